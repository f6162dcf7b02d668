//! What the simulated server knows: an index's pages, the log of their changes, the locks, and a table of vectors.

use crate::index::page::{Bytes, PAGE};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Pages that an index can have here.
pub const MOST_BLOCKS: usize = 2048;
/// Rows of a page of the table.
const ROWS_OF_PAGE: usize = 50;
/// Later than everything.
pub const NEVER: u64 = u64::MAX;

/// Dice with a seed.
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x1F15)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ x >> 31
    }

    /// 0 .. n
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// About normal, with deviation 1.
    pub fn normal(&mut self) -> f32 {
        (0..4).map(|_| (self.next() >> 40) as f32 / (1u64 << 24) as f32 - 0.5).sum::<f32>() * 1.73
    }
}

/// A page as a record leaves it on a server that replays the log.
#[derive(Clone)]
pub enum Change {
    /// The whole page.
    Image(Arc<Bytes>),
    /// Bytes from an offset on.
    Delta(Vec<(u16, Vec<u8>)>),
}

/// What is in the log.
#[derive(Clone)]
pub enum Record {
    /// One atomic change of pages of the index.
    Pages(u64, Vec<(u32, Change)>),
    /// A row of the table: what it is from now on.
    Row(usize, Row),
    /// VACUUM takes rows from the table: snapshots older than that can no longer be served.
    Removed(u64, Vec<usize>),
}

impl Record {
    pub fn lsn(&self) -> u64 {
        if let Record::Pages(lsn, _) = self { *lsn } else { 0 }
    }
}

/// A row of the table.
#[derive(Clone)]
pub struct Row {
    /// A value of type `vector`.
    pub datum: Arc<Vec<u64>>,
    pub vector: Arc<Vec<f32>>,
    /// When it was committed; [`NEVER`]: not yet, or it was aborted.
    pub born: u64,
    pub died: u64,
    pub aborted: bool,
    /// No row any more: its place can be taken.
    pub removed: bool,
    /// Who is inserting it.
    pub writer: usize,
}

impl Row {
    pub fn new(vector: Vec<f32>, writer: usize) -> Row {
        let bytes = 8 + 4 * vector.len();
        let mut datum = vec![0u64; bytes.div_ceil(8)];
        datum[0] = (bytes as u64) << 2 | (vector.len() as u64) << 32;
        for (i, v) in vector.iter().enumerate() {
            datum[1 + i / 2] |= u64::from(v.to_bits()) << (32 * (i % 2));
        }
        let (datum, vector) = (Arc::new(datum), Arc::new(vector));
        Row { datum, vector, born: NEVER, died: NEVER, aborted: false, removed: false, writer }
    }

    /// Whether a snapshot of that time sees it.
    pub fn is_seen_at(&self, time: u64) -> bool {
        !self.removed && self.born <= time && self.died > time
    }

    /// Whether nobody with a snapshot of that time or later sees it, ever.
    pub fn is_dead_at(&self, horizon: u64) -> bool {
        !self.removed && (self.aborted || self.died <= horizon)
    }
}

/// Number of a row and its TID's block and offset.
pub fn tid_of(row: usize) -> (u32, u16) {
    ((row / ROWS_OF_PAGE) as u32, (row % ROWS_OF_PAGE) as u16 + 1)
}

pub fn row_of(block: u32, offset: u16) -> usize {
    block as usize * ROWS_OF_PAGE + (usize::from(offset).wrapping_sub(1))
}

pub fn table_blocks(rows: usize) -> u32 {
    rows.div_ceil(ROWS_OF_PAGE) as u32
}

/// What a server holds on disk, at a moment.
#[derive(Clone, Default)]
pub struct Disk {
    pub pages: Vec<Arc<Bytes>>,
    pub rows: Vec<Row>,
    pub clock: u64,
}

impl Disk {
    /// Replays a record.
    pub fn replay(&mut self, record: &Record) {
        match record {
            Record::Pages(lsn, changes) => {
                for (block, change) in changes {
                    let block = *block as usize;
                    while self.pages.len() <= block {
                        self.pages.push(Arc::new([0; PAGE]));
                    }
                    match change {
                        Change::Image(page) => self.pages[block] = page.clone(),
                        Change::Delta(parts) => {
                            let page = Arc::make_mut(&mut self.pages[block]);
                            for (at, bytes) in parts {
                                page[usize::from(*at)..][..bytes.len()].copy_from_slice(bytes);
                            }
                            finish(page, *lsn);
                        }
                    }
                }
            }
            Record::Row(number, row) => {
                self.rows.resize_with(self.rows.len().max(number + 1), || {
                    let mut row = Row::new(Vec::new(), 0);
                    (row.removed, row.aborted) = (true, true);
                    row
                });
                self.rows[*number] = row.clone();
                self.clock = self.clock.max(if row.born == NEVER { 0 } else { row.born });
                self.clock = self.clock.max(if row.died == NEVER { 0 } else { row.died });
            }
            Record::Removed(_, rows) => rows.iter().for_each(|&row| self.rows[row].removed = true),
        }
    }
}

fn bounds(page: &Bytes) -> (usize, usize) {
    let at = |i: usize| usize::from(u16::from_le_bytes([page[i], page[i + 1]]));
    (at(12), at(14))
}

/// What PostgreSQL does with a page at the end of a change: the hole becomes zeroes, the LSN the record's.
fn finish(page: &mut Bytes, lsn: u64) {
    let (lower, upper) = bounds(page);
    assert!(lower <= upper && upper <= PAGE, "a page whose hole is no hole: {lower} to {upper}");
    page[lower..upper].fill(0);
    page[..4].copy_from_slice(&((lsn >> 32) as u32).to_le_bytes());
    page[4..8].copy_from_slice(&(lsn as u32).to_le_bytes());
}

pub fn lsn_of(page: &Bytes) -> u64 {
    let word = |i: usize| u64::from(u32::from_le_bytes(page[i..i + 4].try_into().unwrap()));
    word(0) << 32 | word(4)
}

/// Makes `page` what a change makes of it, and says what the log has of that.
pub fn apply(page: &mut Bytes, image: &Bytes, whole: bool, lsn: u64) -> Change {
    /// Equal bytes between two parts that cost no less than a part's header.
    const GAP: usize = 4;
    let (lower, upper) = bounds(image);
    let (old_lower, old_upper) = bounds(page);
    let mut parts: Vec<(u16, Vec<u8>)> = Vec::new();
    if !whole {
        let mut open: Option<(usize, usize)> = None;
        let is_logged = |at: usize| at < lower || at >= upper;
        for at in (0..PAGE).filter(|&at| is_logged(at)) {
            let was_hole = at >= old_lower && at < old_upper;
            if image[at] == page[at] && !was_hole {
                continue;
            }
            open = match open {
                Some((from, to)) if at - to <= GAP && (to >= upper) == (at >= upper) => Some((from, at + 1)),
                before => {
                    parts.extend(before.map(|(from, to)| (from as u16, image[from..to].to_vec())));
                    Some((at, at + 1))
                }
            };
        }
        parts.extend(open.map(|(from, to)| (from as u16, image[from..to].to_vec())));
    }
    *page = *image;
    finish(page, lsn);
    if whole { Change::Image(Arc::new(*page)) } else { Change::Delta(parts) }
}

/// Who has a buffer locked.
#[derive(Clone, Default, Debug)]
pub struct Lock {
    pub exclusive: Option<usize>,
    pub shared: Vec<usize>,
}

impl Lock {
    pub fn is_held(&self) -> bool {
        self.exclusive.is_some() || !self.shared.is_empty()
    }
}

/// What an actor waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    Buffer { block: u32, exclusive: bool },
    Extension,
    Structure { exclusive: bool },
}

/// What can go wrong at a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    Read,
    Extend,
    Memory,
    Cancel,
}

/// The server.
pub struct World {
    pub pool: *mut Bytes,
    /// What pages of the pool are copies of.
    pub loaded: Vec<Option<Arc<Bytes>>>,
    pub blocks: u32,
    pub locks: Vec<Lock>,
    pub pins: BTreeMap<(usize, u32), u32>,
    pub extending: Option<usize>,
    pub structure: Vec<(usize, bool)>,
    pub free: BTreeSet<u32>,
    pub lsn: u64,
    pub log: Vec<Record>,
    /// Pages after bits were set on them without a record.
    pub hints: Vec<(u32, Arc<Bytes>)>,
    pub rows: Vec<Row>,
    pub clock: u64,
    /// Snapshots in use.
    pub snapshots: Vec<u64>,
    pub dice: Dice,
    pub actor: usize,
    pub waits: Vec<Option<Wait>>,
    /// The call at which something goes wrong, and what; counts down.
    pub fault: Option<(u64, Fault)>,
    pub calls: u64,
    /// Whether records are applied as in recovery: nothing may be changed by who reads.
    pub standby: bool,
    pub warnings: u64,
    /// What the index's operator class means.
    pub meaning: u32,
    pub dims: usize,
    /// Queries under way: whose, and the time of their snapshot; and clients whose query a standby has cancelled.
    pub asking: Vec<(usize, u64)>,
    pub cancelled: BTreeSet<usize>,
}

impl World {
    pub fn new(pool: *mut Bytes, seed: u64) -> World {
        World {
            pool,
            loaded: vec![None; MOST_BLOCKS],
            blocks: 0,
            locks: vec![Lock::default(); MOST_BLOCKS],
            pins: BTreeMap::new(),
            extending: None,
            structure: Vec::new(),
            free: BTreeSet::new(),
            lsn: 1 << 20,
            log: Vec::new(),
            hints: Vec::new(),
            rows: Vec::new(),
            clock: 1,
            snapshots: Vec::new(),
            dice: Dice::new(seed),
            actor: 0,
            waits: vec![None; 16],
            fault: None,
            calls: 0,
            standby: false,
            warnings: 0,
            meaning: 0,
            dims: 0,
            asking: Vec::new(),
            cancelled: BTreeSet::new(),
        }
    }

    pub fn page(&self, block: u32) -> &Bytes {
        assert!((block as usize) < MOST_BLOCKS);
        // SAFETY: the pool has so many pages; there is one thread.
        unsafe { &*self.pool.add(block as usize) }
    }

    pub fn page_mut(&mut self, block: u32) -> &mut Bytes {
        assert!((block as usize) < MOST_BLOCKS);
        self.loaded[block as usize] = None;
        // SAFETY: as above.
        unsafe { &mut *self.pool.add(block as usize) }
    }

    /// Starts on what is on disk, as after a restart.
    pub fn load(&mut self, disk: &Disk) {
        self.blocks = disk.pages.len() as u32;
        for (block, page) in disk.pages.iter().enumerate() {
            if !self.loaded[block].as_ref().is_some_and(|loaded| Arc::ptr_eq(loaded, page)) {
                *self.page_mut(block as u32) = **page;
                self.loaded[block] = Some(page.clone());
            }
            self.lsn = self.lsn.max(lsn_of(page));
        }
        self.locks.iter_mut().for_each(|lock| *lock = Lock::default());
        self.pins.clear();
        self.extending = None;
        self.structure.clear();
        self.free.clear();
        self.log.clear();
        self.hints.clear();
        self.snapshots.clear();
        self.asking.clear();
        self.cancelled.clear();
        self.waits.fill(None);
        self.rows.clone_from(&disk.rows);
        self.clock = disk.clock.max(1);
        self.fault = None;
        // Whoever was inserting is gone.
        for row in self.rows.iter_mut().filter(|row| row.born == NEVER) {
            row.aborted = true;
        }
    }

    /// What a server that has replayed all of the log has; hints that were set are lost.
    pub fn horizon(&self) -> u64 {
        self.snapshots.iter().copied().min().unwrap_or(self.clock)
    }

    /// Gives back what an actor holds, as the end of its transaction does; whether it held buffers.
    pub fn release(&mut self, actor: usize) -> bool {
        let mut held = false;
        for lock in self.locks.iter_mut().take(self.blocks as usize) {
            held |= lock.exclusive == Some(actor) || lock.shared.contains(&actor);
            lock.exclusive = lock.exclusive.filter(|&holder| holder != actor);
            lock.shared.retain(|&holder| holder != actor);
        }
        held |= self.pins.keys().any(|pin| pin.0 == actor);
        self.pins.retain(|pin, _| pin.0 != actor);
        self.extending = self.extending.filter(|&holder| holder != actor);
        held |= self.structure.iter().any(|holder| holder.0 == actor);
        self.structure.retain(|holder| holder.0 != actor);
        held
    }

    /// Whether what an actor waits for can be had.
    pub fn is_ready(&self, actor: usize) -> bool {
        match self.waits[actor] {
            None => true,
            Some(Wait::Extension) => self.extending.is_none(),
            Some(Wait::Buffer { block, exclusive }) => self.can_lock(block, exclusive),
            Some(Wait::Structure { exclusive }) => self.can_have_structure(actor, exclusive),
        }
    }

    pub fn can_lock(&self, block: u32, exclusive: bool) -> bool {
        let lock = &self.locks[block as usize];
        lock.exclusive.is_none() && (!exclusive || lock.shared.is_empty())
    }

    pub fn can_have_structure(&self, actor: usize, exclusive: bool) -> bool {
        self.structure.iter().all(|&(holder, alone)| holder == actor || !(alone || exclusive))
    }
}
