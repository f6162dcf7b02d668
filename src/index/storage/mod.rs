//! Buffers and write-ahead log: the only place where the index touches the buffer manager.

mod pages;

use super::page::{self, Bytes, Damage, Kind, NO_BLOCK};
pub use ivflsh::stale::Stale;
pub use pages::{Index, pages};
use pgrx::prelude::*;
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};

/// Name of a relation, without its schema.
pub fn name(rel: pg_sys::Relation) -> String {
    // SAFETY: `rel` is an open relation.
    unsafe { std::ffi::CStr::from_ptr((*(*rel).rd_rel).relname.data.as_ptr()) }.to_string_lossy().into_owned()
}

/// Raises `ERRCODE_INDEX_CORRUPTED` for a block of `rel`.
pub fn corrupted(rel: pg_sys::Relation, block: u32, damage: Damage) -> ! {
    let name = name(rel);
    let reindex = || {
        // SAFETY: `rel` is an open relation.
        let statement = unsafe {
            let schema = pg_sys::get_namespace_name((*(*rel).rd_rel).relnamespace);
            let relation = (*(*rel).rd_rel).relname.data.as_ptr();
            std::ffi::CStr::from_ptr(pg_sys::quote_qualified_identifier(schema, relation)).to_string_lossy()
        };
        format!("REINDEX INDEX {statement};")
    };
    let (code, message, hint) = match damage {
        Damage::Foreign(method) => (
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("index \"{name}\" was built by pgvector's {method}"),
            reindex(),
        ),
        Damage::Format(v) => (
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("index \"{name}\" has format version {v}, this version of vector_ext reads {}", page::FORMAT),
            reindex(),
        ),
        _ => (
            PgSqlErrorCode::ERRCODE_INDEX_CORRUPTED,
            format!("index \"{name}\" is damaged at block {block}: {damage}"),
            "Please REINDEX it.".to_string(),
        ),
    };
    pgrx::pg_sys::panic::ErrorReport::new(code, message, pgrx::function_name!())
        .set_hint(hint)
        .report(PgLogLevel::ERROR);
    unreachable!()
}

/// Unwraps a check of a page.
pub trait Checked<T> {
    /// The value, or an ERROR that names the block.
    fn or_corrupted(self, rel: pg_sys::Relation, block: u32) -> T;

    /// The value; what a structural change may explain is returned, other damage is an ERROR.
    fn or_stale(self, rel: pg_sys::Relation, block: u32) -> Result<T, Stale>;
}

impl<T> Checked<T> for Result<T, Damage> {
    #[inline]
    fn or_corrupted(self, rel: pg_sys::Relation, block: u32) -> T {
        match self {
            Ok(v) => v,
            Err(damage) => corrupted(rel, block, damage),
        }
    }

    #[inline]
    fn or_stale(self, rel: pg_sys::Relation, block: u32) -> Result<T, Stale> {
        ivflsh::stale::Checked::or_stale(self, pages(rel), block)
    }
}

/// A pinned and locked buffer; unlocked and unpinned when dropped.
pub struct Buffer<'r> {
    buffer: pg_sys::Buffer,
    block: u32,
    exclusive: bool,
    relation: PhantomData<&'r ()>,
}

impl Buffer<'_> {
    /// Pins and share-locks a block.
    pub fn read<'r>(rel: pg_sys::Relation, block: u32) -> Buffer<'r> {
        Self::open(rel, block, pg_sys::BUFFER_LOCK_SHARE)
    }

    /// Pins and locks a block exclusively.
    pub fn write<'r>(rel: pg_sys::Relation, block: u32) -> Buffer<'r> {
        Self::open(rel, block, pg_sys::BUFFER_LOCK_EXCLUSIVE)
    }

    /// As [`Buffer::read`], for who reads the whole index: by a strategy (or none) that uses few buffers again and again.
    pub fn read_by<'r>(rel: pg_sys::Relation, block: u32, strategy: pg_sys::BufferAccessStrategy) -> Buffer<'r> {
        // SAFETY: `rel` is an open relation; a block beyond its end raises an ERROR.
        let buffer = unsafe {
            let normal = pg_sys::ReadBufferMode::RBM_NORMAL;
            let buffer = pg_sys::ReadBufferExtended(rel, pg_sys::ForkNumber::MAIN_FORKNUM, block, normal, strategy);
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            buffer
        };
        Buffer { buffer, block, exclusive: false, relation: PhantomData }
    }

    fn open<'r>(rel: pg_sys::Relation, block: u32, mode: u32) -> Buffer<'r> {
        if block == NO_BLOCK {
            corrupted(rel, block, Damage::Bounds);
        }
        let buffer = hints::read_buffer(rel, block);
        // SAFETY: just pinned.
        unsafe { pg_sys::LockBuffer(buffer, mode as i32) };
        let exclusive = mode == pg_sys::BUFFER_LOCK_EXCLUSIVE;
        Buffer { buffer, block, exclusive, relation: PhantomData }
    }

    /// A new page, exclusively locked: from the free space map, else by extending the relation's fork.
    /// Its content is undefined until [`page::init`].
    pub fn allocate<'r>(rel: pg_sys::Relation, fork: pg_sys::ForkNumber::Type) -> Buffer<'r> {
        // SAFETY: `rel` is an open relation. A page that the free space map names is only taken when its kind says
        // that it is free, under the exclusive lock.
        unsafe {
            if fork == pg_sys::ForkNumber::MAIN_FORKNUM {
                loop {
                    let block = pg_sys::GetFreeIndexPage(rel);
                    if block == NO_BLOCK {
                        break;
                    }
                    let buffer = pg_sys::ReadBuffer(rel, block);
                    if pg_sys::ConditionalLockBuffer(buffer) {
                        let taken = Buffer { buffer, block, exclusive: true, relation: PhantomData };
                        match page::check(taken.page(), Kind::Free) {
                            Ok(_) | Err(Damage::New) => {
                                TAKEN.set(TAKEN.get() + 1);
                                return taken;
                            }
                            Err(_) => drop(taken),
                        }
                    } else {
                        pg_sys::ReleaseBuffer(buffer);
                    }
                }
            }
            pg_sys::LockRelationForExtension(rel, pg_sys::ExclusiveLock as i32);
            let buffer = pg_sys::ReadBufferExtended(
                rel,
                fork,
                NO_BLOCK, // P_NEW
                pg_sys::ReadBufferMode::RBM_NORMAL,
                std::ptr::null_mut(),
            );
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_EXCLUSIVE as i32);
            pg_sys::UnlockRelationForExtension(rel, pg_sys::ExclusiveLock as i32);
            let block = pg_sys::BufferGetBlockNumber(buffer);
            Buffer { buffer, block, exclusive: true, relation: PhantomData }
        }
    }

    /// Block number.
    pub fn block(&self) -> u32 {
        self.block
    }

    /// The page.
    #[inline]
    pub fn page(&self) -> &Bytes {
        // SAFETY: the buffer is pinned and locked for as long as `self` lives, so the page stays where it is and as it is.
        unsafe { &*pg_sys::BufferGetPage(self.buffer).cast() }
    }

    /// Where the page is, for pages (of tables) on which others set hint bits although it is locked here, too.
    pub fn pointer(&self) -> pg_sys::Page {
        // SAFETY: the buffer is pinned for as long as `self` lives.
        unsafe { pg_sys::BufferGetPage(self.buffer) }
    }

    /// LSN of the last logged change of the page.
    pub fn lsn(&self) -> u64 {
        // SAFETY: the buffer is pinned and locked.
        unsafe { pg_sys::BufferGetLSNAtomic(self.buffer) }
    }

    /// Sets bits of the word at an offset of the page, as a hint: it is not logged and may be lost.
    pub fn set_hint(&self, at: usize, bits: u32) {
        assert!(at.is_multiple_of(4) && at + 4 <= page::PAGE);
        // SAFETY: the buffer is pinned and locked, and no reference to the page lives here. Others may set bits of the same word
        // at the same time, and read it.
        unsafe {
            let word = pg_sys::BufferGetPage(self.buffer).cast::<u8>().add(at).cast::<u32>();
            AtomicU32::from_ptr(word).fetch_or(bits.to_le(), Ordering::Relaxed);
            pg_sys::MarkBufferDirtyHint(self.buffer, true);
        }
    }

    /// The page, to be changed without WAL: only while nobody else can see the relation (build).
    pub fn page_unlogged(&mut self) -> &mut Bytes {
        assert!(self.exclusive);
        // SAFETY: exclusively locked, so nobody else looks at it; MarkBufferDirty before unlock.
        unsafe {
            pg_sys::MarkBufferDirty(self.buffer);
            &mut *pg_sys::BufferGetPage(self.buffer).cast()
        }
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        // After an ERROR, transaction abort releases locks and pins; releasing them here as well would unbalance
        // PostgreSQL's interrupt holdoff count, which the ERROR has reset.
        if !std::thread::panicking() {
            // SAFETY: pinned and locked by the constructor.
            unsafe { pg_sys::UnlockReleaseBuffer(self.buffer) }
        }
    }
}

/// Brings bytes of a block into the processor's cache, and what is needed to pin and to check it, if this backend has seen
/// the block in shared buffers. Only a hint: it takes no pin, and does nothing for other blocks.
pub fn prefetch(rel: pg_sys::Relation, block: u32, bytes: std::ops::Range<usize>) {
    let Some(buffer) = hints::recent_buffer(rel, block) else { return };
    // SAFETY: a prefetch of any address is harmless; the addresses are computed as the buffer manager does.
    unsafe {
        prefetch_line(BufferDescriptors.wrapping_add(buffer as usize - 1).cast());
        let page: *const u8 = pg_sys::BufferBlocks.cast::<u8>().wrapping_add((buffer as usize - 1) * page::PAGE);
        prefetch_line(page);
        prefetch_line(page.wrapping_add(page::PAGE - 1));
        for at in bytes.step_by(LINE) {
            prefetch_line(page.wrapping_add(at));
        }
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;

unsafe extern "C" {
    /// The buffer manager's array of buffer headers, each padded to a cache line.
    static BufferDescriptors: *const [u8; LINE];
}

#[inline]
fn prefetch_line(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a hint; never faults.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

/// Where the next WAL record goes: pages that are changed from now on have a later LSN. None: this transaction began on a standby,
/// where others decide which rows are dead.
pub fn wal_position() -> Option<u64> {
    // SAFETY: asks for the state of the transaction and of the server.
    unsafe { (!pg_sys::TransactionStartedDuringRecovery()).then(|| pg_sys::GetXLogInsertRecPtr()) }
}

thread_local! {
    static TAKEN: Cell<u32> = const { Cell::new(0) };
}

/// Free pages that this backend has taken so far.
pub fn pages_taken() -> u32 {
    TAKEN.get()
}

/// Whether hints may be set on pages of `rel`. Without WAL their LSN does not tell that they have been changed; and where
/// `wal_consistency_checking` compares pages after replay with those of the primary, hints would be differences.
pub fn may_hint(rel: pg_sys::Relation) -> bool {
    // SAFETY: `rel` is an open relation; the setting is an array with an element for each resource manager.
    unsafe {
        let checked = pg_sys::wal_consistency_checking;
        crate::pg::compat::needs_wal(rel)
            && (checked.is_null() || !*checked.add(pg_sys::RmgrIds::RM_GENERIC_ID as usize))
    }
}

/// Asks the operating system to read a block that is not in shared buffers yet.
pub fn read_ahead(rel: pg_sys::Relation, block: u32) {
    // SAFETY: `rel` is an open relation; only a hint.
    unsafe { pg_sys::PrefetchBuffer(rel, pg_sys::ForkNumber::MAIN_FORKNUM, block) };
}

/// Blocks that this backend had to read from disk (or from the operating system's cache) so far.
pub fn blocks_read() -> i64 {
    // SAFETY: a counter of this backend.
    unsafe { pg_sys::pgBufferUsage.shared_blks_read }
}

/// Where this backend last found blocks in shared buffers. PostgreSQL can pin a buffer that is known to have held a block
/// without the look-up in its hash table, which costs several cache misses; it checks that the buffer still holds it.
mod hints {
    use super::*;
    use std::cell::RefCell;

    /// Entries; a power of two. 12 bytes each.
    const ENTRIES: usize = 1 << 15;
    /// Every so many reads of a block take the ordinary way, which counts as usage for the buffer replacement.
    const ORDINARY: u32 = 32;

    #[derive(Clone, Copy, Default)]
    struct Hint {
        file: u32,
        block: u32,
        buffer: pg_sys::Buffer,
    }

    thread_local! {
        static HINTS: RefCell<(Vec<Hint>, u32)> = const { RefCell::new((Vec::new(), 0)) };
    }

    /// Whether the pages of a relation are in the backend's own buffers.
    fn is_local(rel: pg_sys::Relation) -> bool {
        // SAFETY: `rel` is an open relation.
        unsafe { (*(*rel).rd_rel).relpersistence == pg_sys::RELPERSISTENCE_TEMP as std::ffi::c_char }
    }

    /// The file of a relation, and where in the table the hint about a block is.
    fn place(rel: pg_sys::Relation, block: u32) -> (u32, usize) {
        // SAFETY: `rel` is an open relation.
        unsafe {
            #[cfg(any(feature = "pg14", feature = "pg15"))]
            let file = (*rel).rd_node.relNode.to_u32();
            #[cfg(not(any(feature = "pg14", feature = "pg15")))]
            let file = (*rel).rd_locator.relNumber.to_u32();
            (file, (block ^ file.wrapping_mul(0x9E37_79B1)) as usize % ENTRIES)
        }
    }

    /// Where a block was last found in shared buffers.
    pub fn recent_buffer(rel: pg_sys::Relation, block: u32) -> Option<pg_sys::Buffer> {
        // A temporary relation is not in shared buffers; its file may have the number of one that is.
        if is_local(rel) {
            return None;
        }
        let (file, at) = place(rel, block);
        HINTS.with_borrow(|(hints, _)| {
            let hint = hints.get(at)?;
            (hint.file == file && hint.block == block && hint.buffer > 0).then_some(hint.buffer)
        })
    }

    /// Pins a block of the main fork.
    pub fn read_buffer(rel: pg_sys::Relation, block: u32) -> pg_sys::Buffer {
        let (file, at) = place(rel, block);
        let ordinary = HINTS.with_borrow_mut(|(_, reads)| {
            *reads = reads.wrapping_add(1);
            *reads % ORDINARY == 0
        });
        // SAFETY: `rel` is an open relation; a block beyond its end raises an ERROR. A hint names a buffer that this
        // server has returned before, so it is a valid buffer number.
        unsafe {
            #[cfg(any(feature = "pg14", feature = "pg15"))]
            let locator = (*rel).rd_node;
            #[cfg(not(any(feature = "pg14", feature = "pg15")))]
            let locator = (*rel).rd_locator;
            if !ordinary
                && let Some(buffer) = recent_buffer(rel, block)
                && pg_sys::ReadRecentBuffer(locator, pg_sys::ForkNumber::MAIN_FORKNUM, block, buffer)
            {
                return buffer;
            }
            let buffer = pg_sys::ReadBuffer(rel, block);
            if is_local(rel) {
                return buffer;
            }
            HINTS.with_borrow_mut(|(hints, _)| {
                if hints.is_empty() {
                    hints.resize(ENTRIES, Hint::default());
                }
                hints[at] = Hint { file, block, buffer };
            });
            buffer
        }
    }
}

/// One atomic, WAL-logged change of up to four pages.
pub struct Change<'c> {
    rel: pg_sys::Relation,
    state: *mut pg_sys::GenericXLogState,
    /// The pages so far: block, buffer, and the copy that is changed.
    pages: [Option<(u32, pg_sys::Buffer, *const Bytes)>; pg_sys::MAX_GENERIC_XLOG_PAGES as usize],
    relation: PhantomData<&'c ()>,
}

impl<'c> Change<'c> {
    /// Starts a change of `rel`.
    pub fn begin(rel: pg_sys::Relation) -> Change<'c> {
        // SAFETY: `rel` is an open relation.
        Change {
            rel,
            state: unsafe { pg_sys::GenericXLogStart(rel) },
            pages: Default::default(),
            relation: PhantomData,
        }
    }

    /// The change's copy of the page in `buffer`, which must be locked exclusively and stay so until [`Change::commit`]. The
    /// same page can be asked for again. `fresh`: the page is new, log all of it.
    pub fn edit<'s>(&'s mut self, buffer: &'s Buffer<'_>, fresh: bool) -> &'s mut Bytes {
        assert!(buffer.exclusive);
        let flags = if fresh { pg_sys::GENERIC_XLOG_FULL_IMAGE as i32 } else { 0 };
        // SAFETY: the copy lives in `state` until commit, and while it is borrowed no other can be asked for.
        let copy = unsafe { &mut *pg_sys::GenericXLogRegisterBuffer(self.state, buffer.buffer, flags).cast::<Bytes>() };
        let page = (buffer.block, buffer.buffer, &raw const *copy);
        if let Some(place) = self.pages.iter_mut().find(|place| place.is_none_or(|known| known.1 == page.1)) {
            *place = Some(page);
        }
        copy
    }

    /// Applies and logs the change. An ERROR if a page's header is not fit for that: PostgreSQL computes with it, and does so
    /// where an error is the end of the server.
    pub fn commit(self) {
        for (block, buffer, copy) in self.pages.iter().flatten().copied() {
            // SAFETY: the copy lives in `state`; the buffer is pinned and locked, by contract of `edit`.
            let [changed, before] = unsafe { [&*copy, &*pg_sys::BufferGetPage(buffer).cast::<Bytes>()] };
            if !page::can_be_logged(changed) || !page::can_be_changed(before) {
                corrupted(self.rel, block, Damage::Header);
            }
        }
        // SAFETY: `state` is live; forgetting self keeps Drop from aborting it.
        unsafe { pg_sys::GenericXLogFinish(self.state) };
        std::mem::forget(self);
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: `state` is live; nothing was applied.
            unsafe { pg_sys::GenericXLogAbort(self.state) };
        }
    }
}

/// Reads a block into shared buffers, if it is not there yet.
pub fn load(rel: pg_sys::Relation, block: u32) {
    // SAFETY: `rel` is an open relation; a block beyond its end raises an ERROR.
    unsafe { pg_sys::ReleaseBuffer(pg_sys::ReadBuffer(rel, block)) };
}

/// Number of blocks of the main fork.
pub fn blocks(rel: pg_sys::Relation) -> u32 {
    // SAFETY: `rel` is an open relation.
    unsafe { pg_sys::RelationGetNumberOfBlocksInFork(rel, pg_sys::ForkNumber::MAIN_FORKNUM) }
}

/// Counts the pages of a chain: a damaged one could run in a circle.
#[derive(Default)]
pub struct Steps {
    taken: u32,
    /// As many as the index had pages when that was asked last.
    most: u32,
}

impl Steps {
    /// Pages that a chain may have without the index being asked for its size.
    const FEW: u32 = 64;

    /// None yet.
    pub fn new() -> Steps {
        Steps::default()
    }

    /// Goes on from a page; an ERROR when these are more than the index has.
    #[inline]
    pub fn step(&mut self, rel: pg_sys::Relation, from: u32) {
        self.taken += 1;
        if self.taken > self.most.max(Steps::FEW) {
            self.most = blocks(rel);
            if self.taken > self.most {
                corrupted(rel, from, Damage::Bounds);
            }
        }
    }
}

/// [`blocks`], and none of these is on its way from the one who extended the file to a buffer that he has locked.
pub fn blocks_settled(rel: pg_sys::Relation) -> u32 {
    let blocks = blocks(rel);
    // SAFETY: `rel` is an open relation, and no buffer is locked here. Who extends the file locks the new page before he
    // lets this lock go.
    unsafe {
        pg_sys::LockRelationForExtension(rel, pg_sys::ExclusiveLock as i32);
        pg_sys::UnlockRelationForExtension(rel, pg_sys::ExclusiveLock as i32);
    }
    blocks
}

/// The right to change the structure of an index (to split, to merge, to add a level): at most one backend has it. Others keep
/// the structure as it is, several at a time.
///
/// It is a tuple lock on a place of the meta page that holds no tuple. A page lock would do but for two things: PostgreSQL
/// leaves page locks out of its search for deadlocks, and forbids those who hold one to wait for other locks, as reading a
/// row out of line may.
///
/// PostgreSQL's locks do not keep a backend from itself. This one does: who holds it may run a function of a user (that of an
/// index expression, in a check), which may insert into the same table.
#[clippy::has_significant_drop]
pub struct StructureLock {
    rel: pg_sys::Relation,
    mode: pg_sys::LOCKMODE,
}

impl StructureLock {
    /// Takes it if nobody has it.
    pub fn attempt(rel: pg_sys::Relation) -> Option<StructureLock> {
        if Self::is_held(rel, EXCLUSIVE) || Self::is_held(rel, SHARED) {
            return None;
        }
        // SAFETY: `rel` is an open relation; no buffer is locked where this is called.
        let taken = unsafe { crate::pg::compat::conditional_lock_tuple(rel, &mut Self::place(), EXCLUSIVE) };
        taken.then(|| StructureLock { rel, mode: EXCLUSIVE })
    }

    /// Waits for it: VACUUM, for a single change. Nobody waits for this lock while holding a buffer lock, so whoever has it comes to an end.
    pub fn wait(rel: pg_sys::Relation) -> StructureLock {
        if Self::is_held(rel, EXCLUSIVE) || Self::is_held(rel, SHARED) {
            in_use();
        }
        // SAFETY: as above.
        unsafe { pg_sys::LockTuple(rel, &mut Self::place(), EXCLUSIVE) };
        StructureLock { rel, mode: EXCLUSIVE }
    }

    /// Waits until nobody changes the structure, and keeps it as it is: rows can be inserted and removed, but no list is split
    /// or merged. Several can have it so. Nobody but VACUUM waits to have it alone, so who keeps it for long keeps nobody
    /// waiting.
    pub fn shared(rel: pg_sys::Relation) -> StructureLock {
        if Self::is_held(rel, EXCLUSIVE) {
            in_use();
        }
        // SAFETY: as above.
        unsafe { pg_sys::LockTuple(rel, &mut Self::place(), SHARED) };
        StructureLock { rel, mode: SHARED }
    }

    /// Whether this backend has it.
    fn is_held(rel: pg_sys::Relation, mode: pg_sys::LOCKMODE) -> bool {
        // SAFETY: `rel` is an open relation.
        unsafe { crate::pg::compat::holds_tuple_lock(rel, &Self::place(), mode) }
    }

    fn place() -> pg_sys::ItemPointerData {
        pg_sys::ItemPointerData { ip_blkid: pg_sys::BlockIdData { bi_hi: 0, bi_lo: 0 }, ip_posid: 1 }
    }
}

/// A function that is called amid an operation on an index wants to change the index.
fn in_use() -> ! {
    ereport!(
        ERROR,
        PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
        "cannot change an ivflsh index in a function that is called while this session works on the index"
    );
}

impl Drop for StructureLock {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: taken by a constructor. After an ERROR it goes with the transaction.
            unsafe { pg_sys::UnlockTuple(self.rel, &mut Self::place(), self.mode) };
        }
    }
}

const EXCLUSIVE: pg_sys::LOCKMODE = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;
const SHARED: pg_sys::LOCKMODE = pg_sys::ShareLock as pg_sys::LOCKMODE;

/// Tells the free space map of pages that were freed.
pub fn record_free(rel: pg_sys::Relation, blocks: &[u32]) {
    for &block in blocks {
        note_free(rel, block);
        // SAFETY: `rel` is an open relation. Else the map's upper pages, by which it is searched, would not know before the
        // next vacuum.
        unsafe { pg_sys::FreeSpaceMapVacuumRange(rel, block, block + 1) };
    }
}

/// Notes a free page in the free space map, which knows of it after the next [`spread_free`].
pub fn note_free(rel: pg_sys::Relation, block: u32) {
    // SAFETY: `rel` is an open relation. The map is only a hint: whoever takes a page from it looks at the page.
    unsafe { pg_sys::RecordFreeIndexPage(rel, block) };
}

/// Brings the free space map up to date.
pub fn spread_free(rel: pg_sys::Relation) {
    // SAFETY: `rel` is an open relation.
    unsafe { pg_sys::IndexFreeSpaceMapVacuum(rel) };
}

/// Holds off interrupts while it lives: a change of the structure that is broken off is no damage, but leaves pages that
/// nobody uses until the next vacuum.
pub struct Uninterrupted(());

impl Uninterrupted {
    /// From now on.
    pub fn begin() -> Uninterrupted {
        // SAFETY: a counter of this backend.
        unsafe { pg_sys::InterruptHoldoffCount += 1 };
        Uninterrupted(())
    }
}

impl Drop for Uninterrupted {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: raised by `begin`; an ERROR sets it to 0.
            unsafe { pg_sys::InterruptHoldoffCount -= 1 };
        }
    }
}
