//! The functions and variables of PostgreSQL that an index calls, over a [`World`] in memory. They are linked in place
//! of a server's, in unit tests alone. Everything runs in one thread; each of them is a place where another actor may
//! go on.
#![allow(non_snake_case, non_upper_case_globals, clippy::missing_safety_doc, missing_docs)]

use super::mutation::{self, Mutation};
use super::world::*;
use crate::index::page::{Bytes, PAGE};
use corosensei::Yielder;
use pgrx::pg_sys::{self, Datum};
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;

static mut WORLD: *mut World = null_mut();
static mut YIELDER: *const Yielder<(), ()> = std::ptr::null();
static mut ERROR: pg_sys::ErrorData = unsafe { std::mem::zeroed() };
static mut MESSAGE: [u8; 256] = [0; 256];
static mut LEVEL: c_int = 0;
static mut CODE: c_int = 0;
/// XX000: what pgrx makes of a panic.
const INTERNAL_ERROR: c_int = 40 | 40 << 6;
/// The support function that says what an operator class means: without arguments.
static mut SUPPORT: pg_sys::FmgrInfo = unsafe { std::mem::zeroed() };
static mut MUTATION: Option<Mutation> = None;

/// What the index leaves out from now on.
pub fn set_mutation(mutation: Option<Mutation>) {
    // SAFETY: one thread.
    unsafe { MUTATION = mutation };
}

/// The server that functions work on.
pub fn world() -> &'static mut World {
    // SAFETY: one thread, see `Session`.
    unsafe { &mut *WORLD }
}

pub fn set_world(world: *mut World) {
    // SAFETY: as above.
    unsafe {
        WORLD = world;
        BufferBlocks = if world.is_null() { null_mut() } else { (*world).pool.cast() };
    }
}

thread_local! {
    /// Panics are ERRORs that somebody expects.
    static QUIET: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

pub fn set_quiet(quiet: bool) {
    static INSTALLED: std::sync::Once = std::sync::Once::new();
    INSTALLED.call_once(|| {
        let before = std::panic::take_hook();
        let loud = std::env::var_os("SIM_LOUD").is_some();
        std::panic::set_hook(Box::new(move |info| {
            if loud || !QUIET.get() {
                before(info);
            }
        }));
    });
    QUIET.set(quiet);
}

/// The actor that begins to run.
pub fn begin(actor: usize, yielder: *const Yielder<(), ()>) {
    world().actor = actor;
    QUIET.set(false);
    // SAFETY: one thread.
    unsafe {
        YIELDER = yielder;
        PG_exception_stack = null_mut();
        error_context_stack = null_mut();
        InterruptHoldoffCount = 0;
        CritSectionCount = 0;
        InterruptPending = 0;
        CurrentMemoryContext = &raw mut CONTEXT;
    }
}

/// Lets another actor go on.
pub fn give_way() {
    // SAFETY: one thread; what PostgreSQL keeps a process is kept an actor.
    unsafe {
        let yielder = YIELDER;
        if yielder.is_null() {
            return;
        }
        let (actor, stack, context) = (world().actor, PG_exception_stack, error_context_stack);
        let (holdoff, critical, pending, memory) =
            (InterruptHoldoffCount, CritSectionCount, InterruptPending, CurrentMemoryContext);
        let quiet = QUIET.get();
        (*yielder).suspend(());
        QUIET.set(quiet);
        world().actor = actor;
        YIELDER = yielder;
        (PG_exception_stack, error_context_stack) = (stack, context);
        (InterruptHoldoffCount, CritSectionCount, InterruptPending, CurrentMemoryContext) =
            (holdoff, critical, pending, memory);
    }
}

/// A call that may fail in these ways: lets others go on, and fails if its turn has come.
fn call(ways: &[Fault]) {
    give_way();
    let world = world();
    world.calls += 1;
    if let Some((left, fault)) = &mut world.fault {
        if *left > 0 {
            *left -= 1;
        } else if ways.contains(fault) {
            let fault = *fault;
            world.fault = None;
            if fault == Fault::Cancel {
                // SAFETY: one thread.
                unsafe { InterruptPending = 1 };
            } else {
                raise(c"a call that fails");
            }
        }
    }
}

fn wait(wait: Wait) {
    loop {
        let world = world();
        let actor = world.actor;
        world.waits[actor] = Some(wait);
        if world.is_ready(actor) {
            world.waits[actor] = None;
            return;
        }
        // SAFETY: one thread.
        if unsafe { YIELDER.is_null() } {
            raise(c"simulation: waits for itself");
        }
        give_way();
    }
}

fn put_message(text: &[u8]) {
    let n = text.len().min(255);
    let mut message = [0; 256];
    message[..n].copy_from_slice(&text[..n]);
    // SAFETY: one thread.
    unsafe { MESSAGE = message };
}

unsafe extern "C-unwind" {
    fn siglongjmp(buffer: *mut c_void, value: c_int) -> !;
}

/// An ERROR of PostgreSQL's own. No value that needs dropping may live in the caller.
pub fn raise(message: &CStr) -> ! {
    // SAFETY: one thread; the innermost guard waits for the jump.
    unsafe {
        let bytes = message.to_bytes();
        put_message(bytes);
        ERROR.elevel = 21;
        ERROR.message = (&raw mut MESSAGE).cast();
        if PG_exception_stack.is_null() {
            let message = message.to_string_lossy().into_owned();
            std::panic::resume_unwind(Box::new(Raised(message)));
        }
        siglongjmp(PG_exception_stack.cast(), 1)
    }
}

/// After an ERROR, as the end of the transaction does.
pub fn reset_actor() {
    // SAFETY: one thread.
    unsafe {
        PG_exception_stack = null_mut();
        error_context_stack = null_mut();
        InterruptHoldoffCount = 0;
        CritSectionCount = 0;
        InterruptPending = 0;
        CurrentMemoryContext = &raw mut CONTEXT;
    }
}

/// The memory context of a statement.
pub fn context() -> pg_sys::MemoryContext {
    &raw mut CONTEXT
}

/// What an ERROR is to who called the index.
pub struct Raised(pub String);

// -- memory --

static mut CONTEXT: pg_sys::MemoryContextData = unsafe { std::mem::zeroed() };

thread_local! {
    /// What an actor's statement has allocated, and what is to be called at its end.
    static MADE: std::cell::RefCell<BTreeMap<usize, usize>> = const { std::cell::RefCell::new(BTreeMap::new()) };
    static ENDS: std::cell::RefCell<Vec<(usize, *mut pg_sys::MemoryContextCallback)>> =
        const { std::cell::RefCell::new(Vec::new()) };
}

fn allocate(bytes: usize) -> *mut c_void {
    // SAFETY: an allocation of at least a byte.
    let made = unsafe { libc::calloc(1, bytes.max(1)) };
    MADE.with_borrow_mut(|all| all.insert(made as usize, world().actor));
    made
}

/// Ends a statement: callbacks of its memory, then the memory.
pub fn end_statement(actor: usize) {
    let ends: Vec<_> = ENDS.with_borrow_mut(|ends| {
        let (mine, others) = ends.drain(..).partition(|end| end.0 == actor);
        *ends = others;
        mine
    });
    for (_, end) in ends.into_iter().rev() {
        // SAFETY: registered by the statement.
        unsafe {
            if let Some(callback) = (*end).func {
                callback((*end).arg);
            }
        }
    }
    MADE.with_borrow_mut(|all| {
        all.retain(|&made, of| {
            if *of == actor {
                // SAFETY: allocated above, once.
                unsafe { libc::free(made as *mut c_void) };
            }
            *of != actor
        });
    });
}

macro_rules! variables {
    ($($name:ident: $type:ty = $value:expr;)*) => { $(
        #[unsafe(no_mangle)]
        static mut $name: $type = $value;
    )* };
}

variables! {
    BufferBlocks: *mut c_char = null_mut();
    LocalBufferBlockPointers: *mut c_char = null_mut();
    BufferDescriptors: *mut c_char = null_mut();
    PG_exception_stack: *mut pg_sys::sigjmp_buf = null_mut();
    error_context_stack: *mut pg_sys::ErrorContextCallback = null_mut();
    CurrentMemoryContext: pg_sys::MemoryContext = null_mut();
    ErrorContext: pg_sys::MemoryContext = null_mut();
    TopMemoryContext: pg_sys::MemoryContext = null_mut();
    CacheMemoryContext: pg_sys::MemoryContext = null_mut();
    CurTransactionContext: pg_sys::MemoryContext = null_mut();
    MessageContext: pg_sys::MemoryContext = null_mut();
    PortalContext: pg_sys::MemoryContext = null_mut();
    PostmasterContext: pg_sys::MemoryContext = null_mut();
    TopTransactionContext: pg_sys::MemoryContext = null_mut();
    InterruptPending: c_int = 0;
    InterruptHoldoffCount: u32 = 0;
    CritSectionCount: u32 = 0;
    wal_level: c_int = 1;
    wal_consistency_checking: *mut bool = null_mut();
    work_mem: c_int = 4096;
    maintenance_work_mem: c_int = 65536;
    autovacuum_work_mem: c_int = -1;
    max_parallel_maintenance_workers: c_int = 0;
    MyBackendType: c_int = 0;
    CheckXidAlive: u32 = 0;
    bsysscan: bool = false;
    SnapshotSelfData: pg_sys::SnapshotData = unsafe { std::mem::zeroed() };
    SnapshotAnyData: pg_sys::SnapshotData = unsafe { std::mem::zeroed() };
    pgBufferUsage: pg_sys::BufferUsage = unsafe { std::mem::zeroed() };
}

macro_rules! functions {
    ($(fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? $body:block)*) => { $(
        #[unsafe(no_mangle)]
        unsafe extern "C-unwind" fn $name($($arg: $type),*) $(-> $result)? {
            #[allow(unused_unsafe, clippy::undocumented_unsafe_blocks)]
            // SAFETY: called as PostgreSQL's function of this name is, in one thread.
            unsafe { $body }
        }
    )* };
}

functions! {
    fn palloc(size: usize) -> *mut c_void { call(&[Fault::Memory]); allocate(size) }
    fn palloc0(size: usize) -> *mut c_void { call(&[Fault::Memory]); allocate(size) }
    fn MemoryContextAlloc(context: pg_sys::MemoryContext, size: usize) -> *mut c_void {
        call(&[Fault::Memory]);
        if context.is_null() { libc::calloc(1, size.max(1)) } else { allocate(size) }
    }
    fn MemoryContextAllocZero(_context: pg_sys::MemoryContext, size: usize) -> *mut c_void { allocate(size) }
    fn MemoryContextRegisterResetCallback(_context: pg_sys::MemoryContext, end: *mut pg_sys::MemoryContextCallback) {
        ENDS.with_borrow_mut(|ends| ends.push((world().actor, end)));
    }
    fn pfree(made: *mut c_void) {
        MADE.with_borrow_mut(|all| all.remove(&(made as usize)));
        libc::free(made);
    }

    // -- errors --
    fn errstart(level: c_int, _domain: *const c_char) -> bool {
        LEVEL = level;
        if level < 21 { world().warnings += 1; }
        level >= 21
    }
    fn errcode(code: c_int) -> c_int { CODE = code; 0 }
    fn errmsg(_format: *const c_char, message: *const c_char) -> c_int {
        let text = CStr::from_ptr(message).to_bytes();
        put_message(text);
        0
    }
    fn errmsg_internal(_format: *const c_char) -> c_int { 0 }
    fn errdetail(_format: *const c_char, _text: *const c_char) -> c_int { 0 }
    fn errhint(_format: *const c_char, _text: *const c_char) -> c_int { 0 }
    fn errcontext_msg(_format: *const c_char, _text: *const c_char) -> c_int { 0 }
    fn errfinish(_file: *const c_char, _line: c_int, _function: *const c_char) {
        let mut text = MESSAGE;
        if CODE == INTERNAL_ERROR {
            text.copy_within(..247, 8);
            text[..8].copy_from_slice(b"PANIC:  ");
            text[255] = 0;
        }
        raise(CStr::from_bytes_until_nul(&text).unwrap_or(c""));
    }
    fn CopyErrorData() -> *mut pg_sys::ErrorData { &raw mut ERROR }
    fn FreeErrorData(_data: *mut pg_sys::ErrorData) {}
    fn FlushErrorState() {}
    fn ProcessInterrupts() {
        InterruptPending = 0;
        if InterruptHoldoffCount == 0 && CritSectionCount == 0 { raise(c"canceling statement") }
        InterruptPending = 1;
    }

    // -- buffers: number = block + 1 --
    fn ReadBuffer(_rel: pg_sys::Relation, block: u32) -> pg_sys::Buffer {
        call(&[Fault::Read, Fault::Cancel]);
        pin(block)
    }
    fn ReadBufferExtended(
        _rel: pg_sys::Relation, fork: c_int, block: u32, _mode: c_int, _strategy: pg_sys::BufferAccessStrategy
    ) -> pg_sys::Buffer {
        if fork != 0 { raise(c"simulation: one fork only"); }
        if block != u32::MAX {
            call(&[Fault::Read, Fault::Cancel]);
            return pin(block);
        }
        call(&[Fault::Extend]);
        let world = world();
        let block = world.blocks;
        if block as usize >= MOST_BLOCKS { raise(c"simulation: the file is too long"); }
        world.blocks += 1;
        *world.page_mut(block) = [0; PAGE];
        pin(block)
    }
    fn ReadRecentBuffer(_file: pg_sys::RelFileNode, _fork: c_int, block: u32, _buffer: pg_sys::Buffer) -> bool {
        call(&[Fault::Cancel]);
        if block >= world().blocks { return false; }
        pin(block);
        true
    }
    fn ReleaseBuffer(buffer: pg_sys::Buffer) { unpin(buffer) }
    fn LockBuffer(buffer: pg_sys::Buffer, mode: c_int) {
        let block = buffer as u32 - 1;
        if mode == 0 { return unlock(block); }
        call(&[]);
        let exclusive = mode == 2;
        wait(Wait::Buffer { block, exclusive });
        lock(block, exclusive);
    }
    fn ConditionalLockBuffer(buffer: pg_sys::Buffer) -> bool {
        call(&[]);
        let block = buffer as u32 - 1;
        if !world().can_lock(block, true) { return false; }
        lock(block, true);
        true
    }
    fn UnlockReleaseBuffer(buffer: pg_sys::Buffer) {
        unlock(buffer as u32 - 1);
        unpin(buffer);
        call(&[]);
    }
    fn BufferGetBlockNumber(buffer: pg_sys::Buffer) -> u32 { buffer as u32 - 1 }
    fn BufferGetLSNAtomic(buffer: pg_sys::Buffer) -> u64 { lsn_of(world().page(buffer as u32 - 1)) }
    fn MarkBufferDirty(_buffer: pg_sys::Buffer) {}
    fn MarkBufferDirtyHint(buffer: pg_sys::Buffer, _standard: bool) {
        let block = buffer as u32 - 1;
        let _changed = world().page_mut(block);
        if MUTATION == Some(Mutation::NeighbourMarked) {
            // The first block's dead mask.
            let page = world().page_mut(block);
            page[36] |= page[36] << 1;
        }
        let page = std::sync::Arc::new(*world().page(block));
        world().hints.push((block, page));
        call(&[]);
    }
    fn PrefetchBuffer(_rel: pg_sys::Relation, _fork: c_int, _block: u32) -> pg_sys::PrefetchBufferResult {
        std::mem::zeroed()
    }
    fn RelationGetNumberOfBlocksInFork(rel: pg_sys::Relation, _fork: c_int) -> u32 {
        call(&[]);
        if (*rel).rd_id.to_u32() == super::TABLE { table_blocks(world().rows.len()) } else { world().blocks }
    }
    fn PageInit(page: *mut c_char, size: usize, special: usize) {
        let page = &mut *page.cast::<Bytes>();
        page.fill(0);
        let mut put = |at: usize, value: u16| page[at..at + 2].copy_from_slice(&value.to_le_bytes());
        put(12, 24);
        put(14, (size - special) as u16);
        put(16, (size - special) as u16);
        put(18, size as u16 | 4);
    }
    fn GetFreeIndexPage(_rel: pg_sys::Relation) -> u32 {
        call(&[Fault::Read]);
        let world = world();
        let n = world.free.len();
        let Some(&block) = (n > 0).then(|| world.free.iter().nth(world.dice.below(n)).unwrap()) else { return u32::MAX };
        world.free.remove(&block);
        if block < world.blocks { block } else { u32::MAX }
    }
    fn RecordFreeIndexPage(_rel: pg_sys::Relation, block: u32) { call(&[Fault::Read]); world().free.insert(block); }
    fn IndexFreeSpaceMapVacuum(_rel: pg_sys::Relation) {}
    fn FreeSpaceMapVacuumRange(_rel: pg_sys::Relation, _from: u32, _to: u32) {}
    fn LockRelationForExtension(_rel: pg_sys::Relation, _mode: c_int) {
        call(&[]);
        wait(Wait::Extension);
        world().extending = Some(world().actor);
    }
    fn UnlockRelationForExtension(_rel: pg_sys::Relation, _mode: c_int) { world().extending = None; call(&[]); }

    // -- the log --
    fn GenericXLogStart(_rel: pg_sys::Relation) -> *mut pg_sys::GenericXLogState {
        Box::into_raw(Box::new(Changing { pages: Vec::new() })).cast()
    }
    fn GenericXLogRegisterBuffer(state: *mut pg_sys::GenericXLogState, buffer: pg_sys::Buffer, flags: c_int) -> *mut c_char {
        let state = &mut *state.cast::<Changing>();
        let block = buffer as u32 - 1;
        if let Some(page) = state.pages.iter_mut().find(|page| page.0 == block) {
            page.1 |= flags & 1 != 0;
            return page.2.as_mut_ptr().cast();
        }
        if state.pages.len() >= 4 { raise(c"maximum number of generic xlog buffers is exceeded"); }
        if world().locks[block as usize].exclusive != Some(world().actor) { raise(c"simulation: changes a page without a lock"); }
        state.pages.push((block, flags & 1 != 0, Box::new(*world().page(block))));
        state.pages.last_mut().unwrap().2.as_mut_ptr().cast()
    }
    fn GenericXLogFinish(state: *mut pg_sys::GenericXLogState) -> u64 {
        let state = Box::from_raw(state.cast::<Changing>());
        let world = world();
        assert!(!world.standby, "a standby writes");
        world.lsn += 64;
        let lsn = world.lsn;
        let mut changes = Vec::new();
        if MUTATION == Some(Mutation::UnlockedEarly) {
            state.pages.iter().for_each(|page| world.locks[page.0 as usize].exclusive = None);
            call(&[]);
        }
        for (block, whole, mut image) in state.pages {
            let whole = whole || world.dice.one_in(16);
            if let Some(mutation) = MUTATION {
                mutation::mutate(mutation, block, &mut image, world.page(block));
            }
            if MUTATION == Some(Mutation::UnlockedEarly) {
                world.locks[block as usize].exclusive = Some(world.actor);
            }
            changes.push((block, apply(world.page_mut(block), &image, whole, lsn)));
        }
        mutation::log(MUTATION, Record::Pages(lsn, changes));
        call(&[]);
        lsn
    }
    fn GenericXLogAbort(state: *mut pg_sys::GenericXLogState) { drop(Box::from_raw(state.cast::<Changing>())) }
    fn GetXLogInsertRecPtr() -> u64 { world().lsn + 1 }
    fn TransactionStartedDuringRecovery() -> bool { world().standby }
    fn RecoveryInProgress() -> bool { world().standby }

    // -- the lock of the structure: a tuple lock --
    fn LockTuple(_rel: pg_sys::Relation, _tid: *mut pg_sys::ItemPointerData, mode: c_int) {
        call(&[Fault::Cancel]);
        let exclusive = mode == pg_sys::ExclusiveLock as c_int;
        if world().locks.iter().any(|lock| lock.exclusive == Some(world().actor) || lock.shared.contains(&world().actor)) {
            raise(c"simulation: waits for a lock while a page is locked");
        }
        if MUTATION != Some(Mutation::StructureNotLocked) { wait(Wait::Structure { exclusive }); }
        world().structure.push((world().actor, exclusive));
    }
    fn ConditionalLockTuple(_rel: pg_sys::Relation, _tid: *mut pg_sys::ItemPointerData, mode: c_int) -> bool {
        call(&[]);
        let exclusive = mode == pg_sys::ExclusiveLock as c_int;
        let actor = world().actor;
        let can = MUTATION == Some(Mutation::StructureNotLocked) || world().can_have_structure(actor, exclusive);
        if can { world().structure.push((actor, exclusive)); }
        can
    }
    fn UnlockTuple(_rel: pg_sys::Relation, _tid: *mut pg_sys::ItemPointerData, mode: c_int) {
        let mine = (world().actor, mode == pg_sys::ExclusiveLock as c_int);
        match world().structure.iter().position(|holder| *holder == mine) {
            Some(at) => { world().structure.remove(at); }
            None => raise(c"simulation: gives back a lock that it has not"),
        }
        call(&[]);
    }
    fn LockHeldByMe(_tag: *const pg_sys::LOCKTAG, mode: c_int) -> bool {
        world().structure.contains(&(world().actor, mode == pg_sys::ExclusiveLock as c_int))
    }

    // -- the table --
    fn GetHeapamTableAmRoutine() -> *const pg_sys::TableAmRoutine { super::session::routine() }
    fn table_slot_create(_rel: pg_sys::Relation, _list: *mut *mut pg_sys::List) -> *mut pg_sys::TupleTableSlot {
        let slot: *mut pg_sys::TupleTableSlot = libc::calloc(1, size_of::<pg_sys::TupleTableSlot>() + 64).cast();
        (*slot).tts_ops = super::session::slot_routine();
        (*slot).tts_values = libc::calloc(1, 8).cast();
        (*slot).tts_isnull = libc::calloc(1, 8).cast();
        slot
    }
    fn ExecDropSingleTupleTableSlot(slot: *mut pg_sys::TupleTableSlot) {
        libc::free((*slot).tts_values.cast());
        libc::free((*slot).tts_isnull.cast());
        libc::free(slot.cast());
    }
    fn table_open(_id: u32, _mode: c_int) -> pg_sys::Relation { super::session::table() }
    fn table_close(_rel: pg_sys::Relation, _mode: c_int) {}
    fn CacheInvalidateRelcache(_rel: pg_sys::Relation) {}
    fn index_getprocinfo(_rel: pg_sys::Relation, _column: i16, _number: u16) -> *mut pg_sys::FmgrInfo { &raw mut SUPPORT }
    fn FunctionCall0Coll(_function: *mut pg_sys::FmgrInfo, _collation: u32) -> Datum {
        Datum::from(world().meaning as usize)
    }
    fn ActiveSnapshotSet() -> bool { true }
    fn vacuum_delay_point() { call(&[Fault::Cancel]); if InterruptPending != 0 { ProcessInterrupts(); } }
    fn GetUserId() -> u32 { 10 }
}

macro_rules! not_called {
    ($($name:ident)*) => { $(
        /// Of no use here.
        #[unsafe(no_mangle)]
        unsafe extern "C-unwind" fn $name() {
            raise(c"simulation: not simulated");
        }
    )* };
}

// What is linked although no simulated statement comes to it.
not_called! {
    DecrTupleDescRefCount GetDatabaseEncoding MemoryContextDelete MemoryContextReset ReleaseSysCache SearchSysCache1
    SysCacheGetAttr errstart_cold get_namespace_name lookup_type_cache pg_detoast_datum pg_detoast_datum_packed
    slot_getsomeattrs_int stringToNode BufFileClose BufFileCreateTemp BufFileRead BufFileSeekBlock BufFileWrite
    CreateExecutorState ExecPrepareExpr FreeExecutorState FunctionCall2Coll IsTransactionState
    MakePerTupleExprContext build_reloptions check_functions_in_node deconstruct_array expression_tree_walker format_type_be
    get_opcode get_opfamily_member numeric_float8_no_overflow quote_qualified_identifier text_to_cstring
}

/// A change under way: block, whether it is logged whole, and the copy.
struct Changing {
    pages: Vec<(u32, bool, Box<Bytes>)>,
}

fn pin(block: u32) -> pg_sys::Buffer {
    let world = world();
    if block >= world.blocks {
        raise(c"could not read block: beyond the end");
    }
    *world.pins.entry((world.actor, block)).or_default() += 1;
    block as pg_sys::Buffer + 1
}

fn unpin(buffer: pg_sys::Buffer) {
    let world = world();
    let key = (world.actor, buffer as u32 - 1);
    let Some(pins) = world.pins.get_mut(&key) else { raise(c"simulation: lets a page go that it has not") };
    *pins -= 1;
    if *pins == 0 {
        world.pins.remove(&key);
    }
}

/// Locks a page exclusively, as recovery does.
pub fn lock_block(block: u32) {
    wait(Wait::Buffer { block, exclusive: true });
    lock(block, true);
}

pub fn unlock_block(block: u32) {
    unlock(block);
}

fn lock(block: u32, exclusive: bool) {
    let world = world();
    let (actor, lock) = (world.actor, &mut world.locks[block as usize]);
    // PostgreSQL holds interrupts off while a buffer is locked.
    // SAFETY: one thread.
    unsafe { InterruptHoldoffCount += 1 };
    if exclusive { lock.exclusive = Some(actor) } else { lock.shared.push(actor) }
}

fn unlock(block: u32) {
    let world = world();
    let (actor, lock) = (world.actor, &mut world.locks[block as usize]);
    // SAFETY: one thread.
    unsafe { InterruptHoldoffCount -= 1 };
    if lock.exclusive == Some(actor) {
        lock.exclusive = None;
    } else {
        match lock.shared.iter().position(|&holder| holder == actor) {
            Some(at) => drop(lock.shared.remove(at)),
            None => raise(c"simulation: unlocks a page that it has not locked"),
        }
    }
}

// -- callbacks of the table's access method --

/// The time of a snapshot that [`snapshot`] made is in a field that nobody looks at here.
pub fn snapshot(time: u64) -> pg_sys::SnapshotData {
    // SAFETY: a struct of numbers and pointers.
    let mut snapshot: pg_sys::SnapshotData = unsafe { std::mem::zeroed() };
    snapshot.lsn = time;
    snapshot
}

pub unsafe extern "C-unwind" fn fetch_begin(rel: pg_sys::Relation) -> *mut pg_sys::IndexFetchTableData {
    // SAFETY: a small allocation.
    unsafe {
        let fetch: *mut pg_sys::IndexFetchTableData = libc::calloc(1, size_of::<pg_sys::IndexFetchTableData>()).cast();
        (*fetch).rel = rel;
        fetch
    }
}

pub unsafe extern "C-unwind" fn fetch_end(fetch: *mut pg_sys::IndexFetchTableData) {
    // SAFETY: made above.
    unsafe { libc::free(fetch.cast()) }
}

pub unsafe extern "C-unwind" fn fetch_tuple(
    _fetch: *mut pg_sys::IndexFetchTableData,
    tid: pg_sys::ItemPointer,
    snapshot: pg_sys::Snapshot,
    slot: *mut pg_sys::TupleTableSlot,
    _again: *mut bool,
    dead: *mut bool,
) -> bool {
    call(&[Fault::Read, Fault::Cancel]);
    // SAFETY: as PostgreSQL calls it.
    unsafe {
        let block = u32::from((*tid).ip_blkid.bi_hi) << 16 | u32::from((*tid).ip_blkid.bi_lo);
        let world = world();
        let Some(row) = world.rows.get(row_of(block, (*tid).ip_posid)).filter(|row| !row.removed) else {
            *dead = true;
            return false;
        };
        let now = world.clock;
        let seen = if std::ptr::eq(snapshot, &raw const SnapshotAnyData) {
            true
        } else if std::ptr::eq(snapshot, &raw const SnapshotSelfData) {
            row.is_seen_at(now) || row.born == NEVER && !row.aborted && row.writer == world.actor
        } else {
            row.is_seen_at((*snapshot).lsn)
        };
        *dead = !seen && row.is_dead_at(world.horizon());
        if seen {
            *(*slot).tts_values = Datum::from(row.datum.as_ptr() as usize);
            *(*slot).tts_isnull = false;
            (*slot).tts_nvalid = 1;
        }
        seen
    }
}

pub unsafe extern "C-unwind" fn clear(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: a slot made above.
    unsafe { (*slot).tts_nvalid = 0 };
}
