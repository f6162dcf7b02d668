//! An index and its table on a simulated server, and what clients do with them, through the callbacks that PostgreSQL
//! calls.

use super::postgres::{self, Raised, world};
use super::world::*;
use crate::index::metric::{Element, Metric, Operator};
use crate::index::page::ItemPointer as _;
use crate::index::page::{self, Bytes, Kind, META_BLOCK, Meta, PAGE, Tid};
use crate::index::read::info::Info;
use crate::index::read::rows::Table;
use crate::index::search::Search;
use crate::index::storage::pages;
use crate::index::storage::{Buffer, Change};
use crate::index::{insert, vacuum};
use corosensei::Yielder;
use ivflsh::read::tree::Query;
use pgrx::pg_sys::{self, Datum};
use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard};

/// Clients at a time.
pub const ACTORS: usize = 8;

struct Relations {
    /// Each client has its own cache.
    index: [pg_sys::Relation; ACTORS],
    table: pg_sys::Relation,
    routine: *const pg_sys::TableAmRoutine,
    slot: *const pg_sys::TupleTableSlotOps,
}

static mut RELATIONS: Option<Relations> = None;
static ONE: Mutex<()> = Mutex::new(());

fn relations() -> &'static Relations {
    // SAFETY: set once by `Session::begin`, under its lock.
    unsafe {
        let known = &raw const RELATIONS;
        (&*known).as_ref().expect("a session")
    }
}

pub fn index() -> pg_sys::Relation {
    relations().index[world().actor]
}

pub fn table() -> pg_sys::Relation {
    relations().table
}

pub fn routine() -> *const pg_sys::TableAmRoutine {
    relations().routine
}

pub fn slot_routine() -> *const pg_sys::TupleTableSlotOps {
    relations().slot
}

fn leaked<T>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

fn make_relations() -> Relations {
    // SAFETY: structs of numbers and pointers, all of which may be zero.
    unsafe {
        let relation = |id: u32| {
            let mut class: pg_sys::FormData_pg_class = std::mem::zeroed();
            class.relpersistence = b'p' as _;
            class.relname.data[..3].copy_from_slice(&[b's' as _, b'i' as _, b'm' as _]);
            let mut rel: pg_sys::RelationData = std::mem::zeroed();
            rel.rd_id = pg_sys::Oid::from(id);
            rel.rd_node.relNode = pg_sys::Oid::from(id);
            rel.rd_rel = leaked(class);
            leaked(rel)
        };
        let (indexes, table) = ([(); ACTORS].map(|()| relation(super::INDEX)), relation(super::TABLE));
        for &index in &indexes {
            let form: *mut pg_sys::FormData_pg_index = libc::calloc(1, 256).cast();
            *(*form).indkey.values.as_mut_ptr() = 1;
            (*form).indrelid = pg_sys::Oid::from(super::TABLE);
            (*index).rd_index = form;
            (*index).rd_indam = leaked(std::mem::zeroed());
            let desc: *mut pg_sys::TupleDescData = libc::calloc(1, 512).cast();
            (*desc).natts = 1;
            (*desc).tdrefcount = -1;
            (*index).rd_att = desc;
        }
        let mut routine: pg_sys::TableAmRoutine = std::mem::zeroed();
        routine.index_fetch_begin = Some(postgres::fetch_begin);
        routine.index_fetch_end = Some(postgres::fetch_end);
        routine.index_fetch_tuple = Some(postgres::fetch_tuple);
        let routine = leaked(routine);
        (*table).rd_tableam = routine;
        let mut slot: pg_sys::TupleTableSlotOps = std::mem::zeroed();
        slot.clear = Some(postgres::clear);
        Relations { index: indexes, table, routine, slot: leaked(slot) }
    }
}

/// What an index is of.
#[derive(Clone, Copy, Debug)]
pub struct Kinds {
    pub metric: Metric,
    pub bits: u32,
    pub dims: usize,
}

impl Kinds {
    pub fn by(dice: &mut Dice) -> Kinds {
        Kinds::of(dice, std::env::var_os("SIM_WIDE").is_some())
    }

    /// `wide`: also vectors of many dimensions.
    pub fn of(dice: &mut Dice, wide: bool) -> Kinds {
        let metric = [Metric::L2, Metric::L2, Metric::Cosine, Metric::InnerProduct][dice.below(4)];
        // Mostly few; but pages of one block, so that lists have several, and blocks that a page does not hold.
        let dims = [6, 6, 6, 700, 1100][dice.below(if wide { 5 } else { 0 })];
        Kinds { metric, bits: [8, 8, 8, 4, 0][dice.below(5)], dims }
    }

    pub fn operator(self) -> Operator {
        Operator { element: Element::Vector, metric: self.metric }
    }
}

/// What an ERROR said.
pub type Said = Result<(), String>;

/// A server with one index. One at a time in a process.
pub struct Session {
    world: Box<World>,
    pool: Vec<u64>,
    pub kinds: Kinds,
    _one: MutexGuard<'static, ()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        postgres::end_statement(0);
        postgres::set_world(null_mut());
        let _ = &self.pool;
    }
}

impl Session {
    /// With an index that is empty.
    pub fn begin(seed: u64, kinds: Kinds) -> Session {
        let one = ONE.lock().unwrap_or_else(|broken| broken.into_inner());
        pg_sys::submodules::thread_check::active_thread::clear();
        // SAFETY: under the lock.
        unsafe {
            let known = &raw const RELATIONS;
            if (&*known).is_none() {
                RELATIONS = Some(make_relations());
            }
        }
        let mut pool = vec![0u64; (MOST_BLOCKS * PAGE + PAGE) / 8];
        let at = pool.as_mut_ptr().addr().next_multiple_of(PAGE) - pool.as_ptr().addr();
        // SAFETY: within the pool.
        let pages: *mut Bytes = unsafe { pool.as_mut_ptr().byte_add(at).cast() };
        let mut world = Box::new(World::new(pages, seed));
        (world.meaning, world.dims) = (kinds.operator().code(), kinds.dims);
        postgres::set_world(&raw mut *world);
        postgres::begin(0, std::ptr::null());
        let session = Session { world, pool, kinds, _one: one };
        session.forget_cache();
        session.create();
        session
    }

    /// Goes on with an index of other kinds, which a disk holds.
    pub fn restart(&mut self, kinds: Kinds, disk: &Disk, seed: u64) {
        self.kinds = kinds;
        (self.world.meaning, self.world.dims) = (kinds.operator().code(), kinds.dims);
        self.world.load(disk);
        self.world.dice = Dice::new(seed);
        self.forget_cache();
    }

    pub fn world(&mut self) -> &mut World {
        &mut self.world
    }

    /// As another process, that has nothing of the index in its cache.
    pub fn forget_cache(&self) {
        for &index in &relations().index {
            // SAFETY: the chunk is made by `MemoryContextAlloc` for no context.
            unsafe {
                libc::free((*index).rd_amcache);
                (*index).rd_amcache = null_mut();
            }
        }
    }

    /// Whether a change of the structure has begun and not ended.
    pub fn is_unfinished(&self) -> bool {
        Meta::read(world().page(META_BLOCK)).is_ok_and(|meta| meta.unfinished != 0)
    }

    fn create(&self) {
        let rel = index();
        let mut meta = Meta::new(self.kinds.dims as u32, self.kinds.operator().code(), 7, self.kinds.bits, &[]);
        // Small lists.
        meta.target = page::LEAST_TARGET;
        let fork = pg_sys::ForkNumber::MAIN_FORKNUM;
        let (meta_buffer, root) = (Buffer::allocate(rel, fork), Buffer::allocate(rel, fork));
        meta.root = root.block();
        let mut change = Change::begin(rel);
        let page = change.edit(&meta_buffer, true);
        page::init(page, Kind::Meta, 0, 0);
        meta.write(page);
        let page = change.edit(&root, true);
        page::init(page, Kind::Posting, 0, meta.root_list);
        page::edit_opaque(page, |o| (o.head, o.insert_at) = (meta.root, meta.root));
        change.commit();
        assert_eq!(meta_buffer.block(), META_BLOCK);
    }
}

/// Runs a statement of the current actor; an ERROR ends it as it would end a transaction.
pub fn statement(run: impl FnOnce()) -> Said {
    let actor = world().actor;
    // What a callback has reported comes out as it is; a search has no callback around it.
    let reported = || match std::panic::catch_unwind(AssertUnwindSafe(run)) {
        Ok(()) => None,
        Err(panic) => match panic.downcast::<Raised>() {
            Ok(raised) => Some(raised.0),
            Err(panic) => std::panic::resume_unwind(panic),
        },
    };
    // SAFETY: as a callback is called.
    let guarded = || unsafe { pg_sys::panic::pgrx_extern_c_guard(reported) };
    postgres::set_quiet(true);
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(guarded));
    postgres::set_quiet(false);
    let outcome = match outcome {
        Ok(None) => Ok(()),
        Ok(Some(said)) => Err(said),
        Err(panic) => Err(panic.downcast::<Raised>().map_or("an unknown panic".to_string(), |raised| raised.0)),
    };
    let held = world().release(actor);
    postgres::reset_actor();
    postgres::end_statement(actor);
    match outcome {
        Ok(()) if held => Err("simulation: a lock or a pin was left".to_string()),
        outcome => outcome,
    }
}

/// Puts a row into the table, not yet committed; returns its number.
pub fn add_row(vector: Vec<f32>) -> usize {
    let world = world();
    let row = Row::new(vector, world.actor);
    let free = world.rows.iter().position(|row| row.removed);
    let number = free.unwrap_or(world.rows.len());
    if number == world.rows.len() {
        world.rows.push(row.clone())
    } else {
        world.rows[number] = row.clone()
    }
    world.log.push(Record::Row(number, row));
    number
}

/// INSERT of one row.
pub fn insert(vector: Vec<f32>) -> Result<usize, String> {
    let number = add_row(vector);
    let (block, offset) = tid_of(number);
    let outcome = statement(|| {
        let mut value = Datum::from(world().rows[number].datum.as_ptr() as usize);
        let _keep = world().rows[number].datum.clone();
        let mut null = false;
        let mut tid = Tid::new(block, offset).item();
        // SAFETY: as PostgreSQL calls it; the info lives as long as the statement.
        unsafe {
            let mut info: pg_sys::IndexInfo = std::mem::zeroed();
            info.ii_Context = postgres::context();
            insert::aminsert(index(), &mut value, &mut null, &mut tid, table(), 0, false, &mut info);
        }
    });
    let world = world();
    match outcome {
        Ok(()) => {
            world.clock += 1;
            world.rows[number].born = world.clock;
        }
        Err(_) => world.rows[number].aborted = true,
    }
    world.log.push(Record::Row(number, world.rows[number].clone()));
    outcome.map(|()| number)
}

/// DELETE of one row.
pub fn delete(number: usize) {
    let world = world();
    if !world.rows[number].is_seen_at(world.clock) {
        return;
    }
    world.clock += 1;
    world.rows[number].died = world.clock;
    world.log.push(Record::Row(number, world.rows[number].clone()));
}

unsafe extern "C-unwind" fn is_dead(tid: pg_sys::ItemPointer, dead: *mut std::ffi::c_void) -> bool {
    // SAFETY: as `vacuum` passes it.
    unsafe { (*dead.cast::<HashSet<Tid>>()).contains(&Tid::from_item(&*tid)) }
}

/// VACUUM.
pub fn vacuum() -> Said {
    let horizon = world().horizon();
    let gone: Vec<usize> = (0..world().rows.len()).filter(|&row| world().rows[row].is_dead_at(horizon)).collect();
    let mut dead: HashSet<Tid> =
        gone.iter().map(|&row| tid_of(row)).map(|(block, offset)| Tid::new(block, offset)).collect();
    // The heap is pruned first: on a standby that cancels whoever could still see these rows.
    let conflict = gone.iter().map(|&row| world().rows[row].died).filter(|&died| died != NEVER).max().unwrap_or(0);
    world().log.push(Record::Removed(conflict, Vec::new()));
    statement(|| {
        // SAFETY: as PostgreSQL calls them.
        unsafe {
            let mut info: pg_sys::IndexVacuumInfo = std::mem::zeroed();
            info.index = index();
            let stats = if dead.is_empty() {
                null_mut()
            } else {
                vacuum::ambulkdelete(&mut info, null_mut(), Some(is_dead), (&raw mut dead).cast())
            };
            if !dead.is_empty() {
                for &row in &gone {
                    world().rows[row].removed = true;
                }
                world().log.push(Record::Removed(conflict, gone.clone()));
            }
            vacuum::amvacuumcleanup(&mut info, stats);
        }
    })
}

/// All rows that a snapshot of the present sees, through the index, to the end; each once and all of them, or what is
/// wrong.
pub fn search(query: &[f32], operator: Operator) -> Said {
    let time = world().clock;
    let me = (world().actor, time);
    world().snapshots.push(time);
    world().asking.push(me);
    let outcome = search_at(query, operator, time);
    let at = world().snapshots.iter().position(|&other| other == time).unwrap();
    world().snapshots.remove(at);
    world().asking.retain(|asking| *asking != me);
    outcome
}

pub fn search_at(query: &[f32], operator: Operator, time: u64) -> Said {
    let mut wrong = Ok(());
    let expected: HashSet<usize> = (0..world().rows.len()).filter(|&row| world().rows[row].is_seen_at(time)).collect();
    let outcome = statement(|| wrong = compare(query, operator, time, expected));
    outcome.and(wrong)
}

fn compare(query: &[f32], operator: Operator, time: u64, mut expected: HashSet<usize>) -> Said {
    let mut snapshot = postgres::snapshot(time);
    let info = Info::of(pages(index()));
    let frame = info.frame(pages(index()));
    let mut asked = Query::new(operator);
    asked.vector.extend_from_slice(query);
    let table = Table { heap: table(), snapshot: &mut snapshot };
    let mut search = Search::new(index(), table, &info, &frame, asked);
    let (mut last, mut rows) = (f64::NEG_INFINITY, 0);
    while let Some(row) = search.next_row() {
        rows += 1;
        if rows > 20_000 {
            return Err("a search without end".to_string());
        }
        let number = row_of(row.tid.block(), row.tid.offset());
        let Some(found) = world().rows.get(number).filter(|row| row.is_seen_at(time)).cloned() else {
            // What a snapshot does not see, the executor leaves out.
            if world().rows.get(number).is_some_and(|row| row.is_dead_at(world().horizon())) {
                search.note_dead();
            }
            continue;
        };
        let distance = operator.distance(&found.vector, query);
        let bound = operator.order_value(row.bound, search.query.underflow);
        if !row.placed && bound > distance + 1e-6 * distance.abs() {
            return Err(format!("row {number}: a certain bound of {bound}, a distance of {distance}"));
        }
        last = last.max(bound);
        if !expected.remove(&number) {
            return Err(format!("row {number} came twice"));
        }
    }
    search.mark_dead();
    match expected.iter().min() {
        Some(row) => Err(format!("{} rows did not come, among them row {row}", expected.len())),
        None => Ok(()),
    }
}

/// As an actor that a scheduler runs.
pub fn as_actor(actor: usize, yielder: &Yielder<(), ()>) {
    postgres::begin(actor, yielder);
}
