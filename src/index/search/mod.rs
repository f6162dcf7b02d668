//! A search: streams rows with a certain lower bound of their distance, nearest first by estimate.
//!
//! 1. The tree gives the lists nearest to the query.
//! 2. Lists are scanned while they can hold rows nearer than the best `goal` found so far, as judged by the calibrated
//!    angle ([`Query::needed_cosine`]).
//! 3. Candidates, entries that could be among these, wait in one heap, ordered by the sketch's lower bound and, after a
//!    look at the extended code, by the estimate, which is good to a fraction of a percent. A refined candidate on top is
//!    returned.
//! 4. When the executor asks for more than the goal, or what was dropped as too far comes into reach, the search starts
//!    over with four times the goal, for the rows that have not been returned.
//! 5. Lists that were replaced since the tree named them (splits, merges) are left out when they turn out to be gone. Then
//!    the tree is asked again; it names the lists that hold their entries now, which are new and so have not been scanned.

mod drive;
pub mod returned;

use crate::index::storage::Index;
use crate::index::storage::pages;
use drive::Through;
pub use drive::{Found, Next};
use ivflsh::nearest::Distance;
use ivflsh::nearest::FIRST_GOAL;
use ivflsh::nearest::farthest_of;
use ivflsh::nearest::note;

use super::metric::Frame;
use super::options::{self, IterativeScan};
use super::page::{Block, Damage, Layout, Meta, Tid};
use super::pgvector;
use super::storage::{self, Stale, corrupted};
use crate::index::filter::predicate::Predicate;
use crate::index::read::info::{Info, RuleAt};
use crate::index::read::rows::{self, Judge, Rows, Table};
use ann::memory;
use ann::quantize::{self, Bits, Space};
use ivflsh::calibrate;
use ivflsh::read::tree::{self, Code, CodeReader, Cursor, List, ListSet, Nearest, Query, Scores};
use pgrx::prelude::*;
use returned::Returned;
use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Candidates are kept that are farther than the goal by this share of the distance between the first and the last row of it.
const REACH: f32 = 0.2;
/// A spread so many times that of most rows is one that only outliers have.
const COARSE: f32 = 8.0;
/// The goal grows by this factor.
const GOAL_GROWTH: usize = 4;
/// Tables are read whole if their sketches take no more than so many bytes, and so many for each entry besides: that takes less
/// time than finding out which lists are due.
const CHEAP_BYTES: usize = 128 << 10;
const ENTRY_BYTES: usize = 24;
/// Where the rows that match may be far from the query, no more lists than this many times those expected for all rows count for
/// the stopping rule: many are scanned before the first such row.
const MOST_COUNTED: f32 = 0.75;
/// The same where the search does not know which rows match.
const MOST_COUNTED_OF_ALL: f32 = 0.6;
/// When this part of the rows expected to pass do pass, so many times as many lists count.
const AS_EXPECTED: f64 = 0.9;
const COUNTED_AS_EXPECTED: f32 = 2.0;
/// Least room for candidates, however small `work_mem` is.
const LEAST_ROOM: usize = 1024;
/// Candidates that are collected before the first are refined, for each row of the goal.
const FIRST_LOOK: usize = 8;
/// Distances (in the index's unit) whose arithmetic stays away from the ends of f32's range.
const USUAL_DISTANCES: f32 = 1e30;
/// Dead rows that are remembered before their entries are marked.
const MOST_DEAD: usize = 1024;
/// Codes whose pages are fetched at a time.
const REFINE_BATCH: usize = 8;
/// Rows that are read at a time once codes have put them in order.
const ROW_BATCH: usize = 2;
/// Lists whose first pages are brought into the processor's cache ahead of the one that is scanned.
const FETCH_AHEAD: usize = 4;
/// Lists whose pages the operating system is asked for ahead, once pages turn out not to be in shared buffers.
const READ_AHEAD: usize = 32;
/// Candidates of a restricted search that are few, while lists are left and when none are.
const FEW_CANDIDATES: usize = 64;
const FEW_OF_ALL: usize = 256;

/// What a candidate's distance is known from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Sketch,
    /// A code whose certain bound is too loose to return the row by.
    Code,
    /// The code or, where codes are coarse or missing, the row itself: it can be returned.
    Refined,
}

/// A row that may be a result.
#[derive(Clone, Copy)]
struct Candidate {
    /// What candidates are ordered by: a lower bound of the distance; once refined, the estimate (or, for a row whose code
    /// says nothing, the bound).
    key: f32,
    /// Lower bound of the distance, statistical: the sketch's or the code's, which holds all but certainly when refined.
    lower: f32,
    /// Estimate of the distance.
    estimate: f32,
    /// When refined: upper bound that holds all but certainly.
    upper: f32,
    /// Certain lower bound, when codes or row have been looked at.
    certain: f32,
    cell: (u32, u16),
    /// Index into the scanned lists.
    list: u32,
    tid: Tid,
    stage: Stage,
}

impl Candidate {
    fn refined(&self) -> bool {
        self.stage == Stage::Refined
    }

    /// Its estimate is its distance, but for rounding.
    fn is_known(&mut self) {
        (self.certain, self.upper, self.stage) = (self.estimate, self.estimate, Stage::Refined);
    }

    fn order(&self, other: &Self) -> Ordering {
        self.key.total_cmp(&other.key).then_with(|| self.tid.cmp(&other.tid))
    }
}

// BinaryHeap is a max-heap: reverse.
impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        other.order(self)
    }
}
impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Candidate {}

/// A row that a search has found.
pub struct Row {
    pub tid: Tid,
    /// Lower bound of its distance, in the index's unit. The rows to come are not nearer than that.
    pub bound: f32,
    /// Its place is known: it is farther than all rows before and nearer than all rows to come. Else `bound` is certain.
    pub placed: bool,
}

/// Which rows of the index a search is for. Others are as if they were not there: they are not scored, not returned, and
/// do not count for the stopping rule, so that the search goes on until it knows enough rows that are wanted.
#[derive(Default)]
pub struct Restriction {
    /// Conditions on filter columns. Lists that cannot hold such a row are not read.
    pub predicate: Option<Predicate>,
    /// Which of some slots of a block hold such a row, for instance one that other indexes have found.
    pub rows: Option<RowTest>,
}

/// See [`Restriction::rows`].
pub type RowTest = Box<dyn Fn(&Block<'_>, u32) -> u32>;

impl Restriction {
    fn is_some(&self) -> bool {
        self.predicate.is_some() || self.rows.is_some()
    }

    /// Those of some slots of a block that hold a row that is wanted.
    #[inline]
    fn wanted(&self, block: &Block<'_>, mut wanted: u32) -> u32 {
        if let Some(predicate) = &self.predicate {
            wanted = predicate.passing(block, wanted);
        }
        if let Some(rows) = &self.rows
            && wanted != 0
        {
            wanted = rows(block, wanted);
        }
        wanted
    }
}

/// What a scan has done, for those who measure it.
#[derive(Clone, Copy, Default, Debug)]
pub struct Work {
    /// Lists scanned.
    pub lists: u64,
    /// Entries in them.
    pub entries: u64,
    /// Entries whose extended code was read.
    pub refined: u64,
    /// Rows handed to the executor.
    pub returned: u64,
    /// Those of them whose place only their true distance tells.
    pub rechecked: u64,
}

/// A search in progress. Owns no PostgreSQL resources between calls.
pub struct Search {
    rel: pg_sys::Relation,
    /// Read when there are no codes.
    table: Table,
    /// Tells the distances of its rows, if those of the index are not a column of it.
    judge: Option<Judge>,
    /// Rows can be looked at. If not, their order is left to the executor.
    sees_rows: bool,
    /// Rows read last came from outside of shared buffers.
    cold: bool,
    meta: Meta,
    leaf: Layout,
    inner: Layout,
    pub query: Query,
    /// The query as the user gave it: an index that was created empty gets a mean later, hence other coordinates.
    original: Vec<f32>,
    /// Something was not where a reader of this epoch was led to: the tree has to be asked again.
    stale: Option<(Stale, u32)>,
    restriction: Restriction,
    /// Lists found by the tree, nearest first, and those that it would find next.
    lists: Vec<List>,
    coming: Nearest,
    /// How many lists the tree was asked for.
    wanted: usize,
    /// Lists scanned, in order of scanning, and the epoch by which they were found.
    scanned: Vec<(List, u32)>,
    seen: ListSet,
    heap: BinaryHeap<Candidate>,
    /// Where candidates go while lists are scanned; swapped with `heap`'s storage.
    pool: Vec<Candidate>,
    /// Candidates being refined.
    batch: Vec<Candidate>,
    /// Candidates in the pool from here on have not been looked at yet.
    unseen: usize,
    /// Candidates kept at most.
    room: usize,
    /// Rows that had been returned when the search last started over.
    widened_at: u64,
    /// Nothing at or above this bound is in the heap for certain: such candidates may have been dropped.
    horizon: f32,
    /// The smallest distance found.
    nearest: f32,
    /// The best distances found, at most [`Search::rank`], farthest on top. The stopping rule goes by the farthest.
    best: BinaryHeap<Distance>,
    /// Results that the search is for.
    goal: usize,
    /// Entries of the lists scanned that pass the restriction, and all of them.
    passing: u64,
    looked_at: u64,
    first_goal: usize,
    /// Share of the rows that are expected to pass the restriction.
    share: f64,
    /// The search goes through the lists for all rows within a distance.
    through: Option<Through>,
    /// Rows returned before the goal grows, and how many were, without those of which little is known but from the rows.
    enough: usize,
    counted: usize,
    /// The stopping rule for the share of the nearest rows to find.
    rule: RuleAt,
    /// The stopping rule's limit, before lists have been scanned.
    limit: f32,
    /// Lists scanned that held rows that pass the restriction.
    fruitful: u32,
    /// At most so many of them count for the stopping rule.
    most_counted: f32,
    /// All lists are so little that they are due, whatever the rule says.
    reads_all: bool,
    /// A list is due up to this needed cosine: the limit, less what the lists scanned so far take away.
    stop: f32,
    /// `ivflsh.probes`: lists to scan for the first goal, or 0 to go by `stop`.
    probes: usize,
    relaxed: bool,
    /// The order is by the rows themselves, not left to the executor.
    exact: bool,
    /// Largest bound reported so far. The executor has returned rows up to this true distance.
    last: f32,
    /// Upper bound of the distance of all rows returned so far.
    farthest: f32,
    /// Largest difference between estimate and lower bound of a refined row, in units of length (L2) or of the distance.
    slack: f32,
    /// The spreads of all refined rows, by the inner product, and the least and most of them.
    spreads: Vec<f32>,
    least_spread: f32,
    most_spread: f32,
    /// Rows returned.
    returned: Returned,
    /// Rows that turned up after farther ones had been returned. They come at the end, the nearest last here.
    late: Vec<Candidate>,
    ended: bool,
    started: bool,
    /// Where the WAL was when the search began; None: marks of dead entries mean nothing here.
    begun: Option<u64>,
    /// The row that was returned last, with head page and identity of its list.
    latest: Option<DeadRow>,
    /// Rows that turned out to be dead to all.
    dead: Vec<DeadRow>,
    pub work: Work,
    /// Who runs it.
    user: pg_sys::Oid,
}

/// A row with head page and identity of the list where it was found.
type DeadRow = ((u32, u32), Tid);

impl Search {
    /// A search of `rel`, an index of `table`, for a query whose `vector` is as the user gave it; `frame` belongs to `info`.
    pub fn new(rel: pg_sys::Relation, table: Table, info: &Info, frame: &Frame, mut query: Query) -> Search {
        let original = query.vector.clone();
        query.place(frame);
        query.norm2 = info.meta.rule.norm2;
        let probes = options::probes();
        let work_mem = pgvector::work_mem(rel);
        Search {
            rel,
            table,
            judge: None,
            sees_rows: rows::is_column(rel),
            cold: false,
            meta: info.meta,
            leaf: info.leaf_layout(),
            inner: info.inner_layout(),
            query,
            original,
            stale: None,
            restriction: Restriction::default(),
            lists: Vec::new(),
            coming: Nearest::none(),
            wanted: 0,
            scanned: Vec::new(),
            seen: ListSet::default(),
            heap: BinaryHeap::new(),
            pool: Vec::new(),
            batch: Vec::new(),
            unseen: 0,
            room: (work_mem / size_of::<Candidate>() / 4).max(LEAST_ROOM),
            widened_at: u64::MAX,
            horizon: f32::INFINITY,
            nearest: f32::INFINITY,
            best: BinaryHeap::new(),
            goal: FIRST_GOAL,
            first_goal: FIRST_GOAL,
            passing: 0,
            looked_at: 0,
            share: 1.0,
            through: None,
            enough: FIRST_GOAL,
            counted: 0,
            rule: info.meta.rule_at(pgvector::target_recall(rel)),
            limit: 1.0,
            fruitful: 0,
            most_counted: f32::INFINITY,
            reads_all: false,
            stop: 1.0,
            probes,
            relaxed: pgvector::iterative_scan(rel) == IterativeScan::relaxed_order,
            exact: false,
            last: f32::NEG_INFINITY,
            farthest: f32::NEG_INFINITY,
            slack: 0.0,
            spreads: Vec::new(),
            least_spread: f32::INFINITY,
            most_spread: 0.0,
            returned: Returned::default(),
            late: Vec::new(),
            ended: false,
            started: false,
            begun: storage::wal_position(),
            latest: None,
            dead: Vec::new(),
            work: Work::default(),
            // SAFETY: a plain look at the backend's state.
            user: unsafe { pg_sys::GetUserId() },
        }
    }

    /// Has rows looked at by `judge`. To be called before the first row is taken.
    pub fn judge_by(&mut self, judge: Judge) {
        assert!(!self.started);
        (self.judge, self.sees_rows) = (Some(judge), true);
    }

    /// Searches only for some of the rows. To be called before the first row is taken.
    pub fn restrict(&mut self, restriction: Restriction) {
        assert!(!self.started);
        self.restriction = restriction;
    }

    /// Prepares the search for as many rows as a LIMIT asks for. To be called before the first row is taken.
    pub fn expect(&mut self, rows: usize) {
        assert!(!self.started);
        self.goal = rows.saturating_mul(5).saturating_div(4).saturating_add(4).max(FIRST_GOAL);
        self.first_goal = self.goal;
        // The executor looks at more rows than it returns where codes leave their order open.
        self.enough = self.goal + self.goal / 2;
    }

    /// Whether about as many rows are wanted as there are: then they come in their order if only what is certain decides, and all
    /// of them have to be read in any case.
    fn takes_all(&self) -> bool {
        self.goal >= self.meta.likely_rows()
    }

    /// Whether distances from the query are numbers, of all rows in the index but those that are kept without bounds.
    pub fn is_usual(&self) -> bool {
        self.query.underflow < 1.0
    }

    /// Reads each row before it is returned, so that all come in their place, but for rounding to f32. To be called before the
    /// first row is taken.
    pub fn order_by_rows(&mut self) {
        assert!(!self.started);
        self.exact = true;
    }

    /// Besides the conditions on filter columns: only for rows that pass a test.
    pub fn restrict_rows(&mut self, rows: RowTest) {
        assert!(!self.started);
        self.restriction.rows = Some(rows);
    }

    /// The row that was returned last is dead to all snapshots.
    pub fn note_dead(&mut self) {
        self.dead.extend(self.latest.take());
        if self.dead.len() >= MOST_DEAD {
            self.mark_dead();
        }
    }

    /// Marks the entries of rows that turned out to be dead to all, so that other searches leave them out. At the latest when
    /// the search ends, while no page is locked.
    pub fn mark_dead(&mut self) {
        let mut dead = std::mem::take(&mut self.dead);
        let Some(begun) = self.begun.filter(|_| !dead.is_empty() && storage::may_hint(self.rel)) else { return };
        dead.sort_unstable();
        for rows in dead.chunk_by(|a, b| a.0 == b.0) {
            let tids: Vec<Tid> = rows.iter().map(|row| row.1).collect();
            tree::mark_dead(pages(self.rel), &self.leaf, rows[0].0, &tids, begun);
        }
    }

    /// Notes which row is returned.
    fn note_latest(&mut self, row: &Candidate) {
        let list = &self.scanned[row.list as usize].0;
        self.latest = Some(((list.head, list.id), row.tid));
    }

    /// The next row.
    pub fn next_row(&mut self) -> Option<Row> {
        if self.restriction.predicate.as_ref().is_some_and(Predicate::is_nothing) {
            return None;
        }
        if !self.started {
            self.started = true;
            self.scan();
        }
        loop {
            if self.stale.is_some() {
                self.catch_up();
            }
            if self.counted >= self.enough {
                self.widen();
            }
            match self.next_refined() {
                // Candidates that are not where they were: their rows are elsewhere.
                _ if self.stale.is_some() => {}
                Some(key) if self.is_within(key) => {
                    let row = self.heap.pop().unwrap();
                    if let Some(bound) = self.take(&row) {
                        self.note_latest(&row);
                        let placed = self.is_placed(&row);
                        self.work.rechecked += u64::from(!placed);
                        // The rows that the executor holds back are nearer than the bound of one in its place: they come first.
                        let bound = if placed { row.lower } else { bound };
                        return Some(Row { tid: row.tid, bound, placed });
                    }
                }
                _ => {
                    if !self.widen() {
                        return self.next_late();
                    }
                }
            }
        }
    }

    /// At the end: the next of the rows that turned up too late for the order.
    fn next_late(&mut self) -> Option<Row> {
        if !self.ended {
            self.ended = true;
            self.late.sort_unstable_by(|a, b| b.estimate.total_cmp(&a.estimate).then_with(|| b.tid.cmp(&a.tid)));
        }
        while let Some(row) = self.late.pop() {
            if self.returned.insert(row.tid) {
                self.note_latest(&row);
                self.work.returned += 1;
                self.work.rechecked += u64::from(!self.exact);
                let bound = if self.exact { row.lower } else { row.certain };
                return Some(Row { tid: row.tid, bound, placed: self.exact });
            }
        }
        None
    }

    /// Records a row as returned, and tells the bound to report for it: a lower bound of its true distance that those of
    /// the rows to come will not be below either, if their codes are no worse than those seen so far. None when the row
    /// has been returned before, or comes too late for the order: then it is kept for the end.
    fn take(&mut self, row: &Candidate) -> Option<f32> {
        if !self.relaxed && row.lower < self.last {
            memory::push(&mut self.late, *row);
            return None;
        }
        if !self.returned.insert(row.tid) {
            return None;
        }
        let bound = row.certain.min(self.deflated(row.estimate));
        self.last = self.last.max(bound);
        self.work.returned += 1;
        self.counted += usize::from(row.estimate == row.key);
        Some(bound)
    }

    /// A certain upper bound of a refined row's distance; infinite where its arithmetic may not be trusted.
    fn upper_bound(&self, row: &Candidate) -> f32 {
        let upper = match self.query.space {
            _ if self.leaf.own_bits => row.upper,
            Space::L2 => {
                let (estimate, lower) = (row.estimate.max(0.0).sqrt(), row.certain.max(0.0).sqrt());
                (estimate + (estimate - lower) * 1.01).powi(2)
            }
            Space::InnerProduct => row.estimate + (row.estimate - row.certain) * 1.01,
        };
        let usual = upper.abs() < USUAL_DISTANCES && self.query.norm * self.query.norm < USUAL_DISTANCES;
        if usual { upper } else { f32::INFINITY }
    }

    /// Whether the codes alone show that a row, just taken off the heap, is farther than all rows returned before and nearer
    /// than all candidates left: then the executor need not compute its distance, nor read it for that.
    fn is_placed(&mut self, row: &Candidate) -> bool {
        if self.exact && self.sees_rows || self.leaf.own_bits && self.query.operator.is_told_apart(self.meta.dims) {
            return true;
        }
        let upper = row.upper;
        if !(upper.abs() < USUAL_DISTANCES && self.query.norm * self.query.norm < USUAL_DISTANCES) {
            self.farthest = f32::INFINITY;
            return false;
        }
        let (operator, underflow) = (self.query.operator, self.query.underflow);
        let behind = operator.order_value(row.lower, underflow) > operator.order_ceiling(self.farthest, underflow);
        self.farthest = self.farthest.max(upper);
        if !behind || self.relaxed {
            return false;
        }
        // The sketches of those left that could be nearer are replaced by their codes first.
        let next = self.next_refined().unwrap_or(f32::INFINITY).min(self.horizon).min(self.nearest_left(upper));
        let placed = operator.order_ceiling(upper, underflow) < operator.order_value(next, underflow);
        if placed {
            // It will be returned even if a nearer row turns up.
            self.last = self.last.max(upper);
        }
        placed
    }

    /// The smallest lower bound among the candidates that could be nearer than `upper`, if any.
    fn nearest_left(&self, upper: f32) -> f32 {
        // Down the heap, as far as keys allow it: the key of a refined row is an estimate, of another its lower bound.
        let heap = self.heap.as_slice();
        let mut nearest = f32::INFINITY;
        let mut open = vec![0];
        while let Some(at) = open.pop() {
            if let Some(row) = heap.get(at)
                && self.deflated(row.key) <= upper
            {
                nearest = nearest.min(row.lower);
                open.extend([2 * at + 1, 2 * at + 2]);
            }
        }
        nearest
    }

    /// `estimate` less the largest slack seen.
    fn deflated(&self, estimate: f32) -> f32 {
        match self.query.space {
            Space::L2 => (estimate.max(0.0).sqrt() - self.slack).max(0.0).powi(2),
            Space::InnerProduct => estimate - self.slack,
        }
    }

    /// Whether a row with this key may be returned before rows that have been dropped. One as near as those may be, where that is
    /// known: many bit strings are equally far.
    fn is_within(&self, key: f32) -> bool {
        key < self.horizon || self.horizon == f32::INFINITY || self.leaf.own_bits && key == self.horizon
    }

    /// Refines until the smallest key is a refined candidate's; returns it. None when none is left within the horizon.
    fn next_refined(&mut self) -> Option<f32> {
        loop {
            let top = self.heap.peek()?;
            if top.refined() {
                return Some(top.key);
            }
            let stage = top.stage;
            let mut batch = std::mem::take(&mut self.batch);
            // The next ones are most likely needed as well; their pages can be fetched meanwhile.
            let most = if stage == Stage::Code { ROW_BATCH } else { REFINE_BATCH };
            while batch.len() < most
                && let Some(top) = self.heap.peek()
                && top.stage == stage
                && self.is_within(top.key)
            {
                batch.extend(self.heap.pop());
            }
            let none = batch.is_empty();
            self.refine(&mut batch);
            memory::room(&mut self.heap, batch.len());
            self.heap.extend(batch.drain(..));
            self.batch = batch;
            if none {
                return None;
            }
        }
    }

    /// Moves candidates, all of one stage, to the next: their codes or, if there are none or they have been looked at, the
    /// rows say more. Rows that cannot be seen are removed.
    fn refine(&mut self, rows: &mut Vec<Candidate>) {
        match self.leaf.bits {
            _ if self.leaf.own_bits => {}
            Some(bits) if rows.first().is_some_and(|row| row.stage == Stage::Sketch) => {
                self.refine_by_codes(bits, rows)
            }
            _ if !self.sees_rows => leave_open(rows),
            _ => self.refine_by_rows(rows),
        }
    }

    /// Replaces the candidates' bounds by those of their codes, and their estimates. Drops those whose code is not theirs any
    /// more: they have been moved to another list.
    fn refine_by_codes(&mut self, bits: Bits, rows: &mut Vec<Candidate>) {
        let leaf = self.leaf;
        let mut codes = CodeReader::new(pages(self.rel), &leaf);
        let mut gone = false;
        for rows in rows.chunks_mut(REFINE_BATCH) {
            for row in &*rows {
                codes.prefetch(row.cell);
            }
            for row in rows {
                let (list, epoch) = &self.scanned[row.list as usize];
                let read = codes
                    .of_row(row.cell, (list.head, list.id), row.tid, |codes, owner| {
                        codes.dot(row.cell, owner, &self.query.vector)
                    })
                    .and_then(|code| still_its(code, row, list, *epoch, &mut codes, self.rel, &leaf));
                let Code { factors, dot, .. } = match read {
                    Ok(Some(code)) => code,
                    Ok(None) => {
                        (row.key, gone) = (f32::NAN, true);
                        continue;
                    }
                    Err(stale) => {
                        self.stale = Some((stale, *epoch));
                        (row.key, gone) = (f32::NAN, true);
                        continue;
                    }
                };
                let distance = quantize::code_distance(self.query.space, list.term, &factors, dot);
                row.certain = self.query.lower_bound(list, &factors, dot);
                self.work.refined += 1;
                // A row at the ends of f32's range has a code that says nothing, its sketch perhaps that it is beyond all.
                let known = factors.error.is_finite() && distance.is_finite() && self.query.norm < f32::INFINITY;
                row.estimate = if known { distance } else { f32::INFINITY };
                if row.lower == f32::MAX && !known {
                    row.certain = f32::MAX;
                }
                if bits == Bits::Four && !self.sees_rows {
                    row.key = if known { distance } else { row.certain };
                    (row.lower, row.upper, row.stage) = (row.certain, f32::INFINITY, Stage::Refined);
                    continue;
                }
                if bits == Bits::Four {
                    let (norm, padded) = (self.query.norm, leaf.padded);
                    let likely = quantize::code_likely_bound(self.query.space, &factors, distance, norm, padded);
                    row.lower = if known && !self.takes_all() { likely.max(row.certain) } else { row.certain };
                    (row.key, row.stage) = (row.lower, Stage::Code);
                    continue;
                }
                let spread = self.query.spread(list, &factors, dot);
                if known {
                    row.key = distance;
                    (row.lower, row.upper) = ((distance - spread).max(row.certain), distance + spread);
                    self.slack = self.slack.max(match self.query.space {
                        Space::L2 => distance.max(0.0).sqrt() - row.lower.max(0.0).sqrt(),
                        Space::InnerProduct => distance - row.lower,
                    });
                    if self.query.space == Space::InnerProduct {
                        memory::push(&mut self.spreads, spread);
                        (self.least_spread, self.most_spread) =
                            (self.least_spread.min(spread), self.most_spread.max(spread));
                    }
                } else {
                    row.key = row.certain;
                    (row.lower, row.upper) = (row.certain, f32::INFINITY);
                }
                row.stage = Stage::Refined;
                if self.exact && self.sees_rows {
                    (row.key, row.stage) = (row.lower, Stage::Code);
                }
            }
        }
        if gone {
            rows.retain(|row| !row.key.is_nan());
        }
        if self.most_spread > COARSE * self.least_spread {
            self.set_coarse_apart(rows);
        }
    }

    /// By the inner product, outliers are among the nearest rows of many queries. Their codes are so coarse that the order of no
    /// other row would be certain: such a row comes when it may be the next, and its distance is left to the executor.
    fn set_coarse_apart(&mut self, rows: &mut [Candidate]) {
        let middle = self.spreads.len() / 2;
        let limit = COARSE * *self.spreads.select_nth_unstable_by(middle, f32::total_cmp).1;
        self.slack = self.spreads.iter().copied().filter(|&spread| spread <= limit).fold(0.0, f32::max);
        for row in rows.iter_mut().filter(|row| row.upper - row.estimate > limit && row.upper < f32::INFINITY) {
            row.estimate = row.upper;
            (row.key, row.lower) = (row.certain, row.certain);
        }
    }

    /// Replaces the candidates' bounds and estimates by their rows' distances; those that cannot be seen are removed.
    fn refine_by_rows(&mut self, rows: &mut Vec<Candidate>) {
        if rows.is_empty() {
            return;
        }
        let reads = storage::blocks_read();
        // In the order of the table: neighbours share pages.
        rows.sort_unstable_by_key(|row| row.tid);
        if self.cold {
            rows.iter().for_each(|row| self.table.read_ahead(row.tid));
        }
        let operator = self.query.operator;
        let mut reader = Rows::of_search(self.rel, self.table, operator);
        let mut value = Vec::new();
        rows.retain_mut(|row| {
            crate::pg::memory::check_for_interrupts();
            self.work.refined += u64::from(row.stage == Stage::Sketch);
            let judged = match self.judge {
                Some(judge) => reader.judge(row.tid, judge, &self.original),
                None => match reader.read(row.tid, &mut value) {
                    rows::Row::Read if value.len() == self.original.len() => {
                        Ok(operator.index_distance(&value, &self.original))
                    }
                    row => Err(row),
                },
            };
            let distance = match judged {
                Ok(distance) => distance,
                Err(found) => {
                    if found == rows::Row::Dead && self.begun.is_some() {
                        let list = &self.scanned[row.list as usize].0;
                        self.dead.push(((list.head, list.id), row.tid));
                    }
                    return false;
                }
            };
            (row.estimate, row.certain) = match distance {
                d if d.is_finite() => (d, d),
                d if d == f32::INFINITY => (d, f32::MAX),
                // Nothing is known of its order.
                d if d == f32::NEG_INFINITY => (f32::INFINITY, f32::MIN),
                // Not a number: it comes last.
                _ => (f32::INFINITY, f32::INFINITY),
            };
            (row.key, row.lower, row.upper) = (row.certain, row.certain, row.estimate);
            row.stage = Stage::Refined;
            true
        });
        self.cold = storage::blocks_read() != reads;
        if self.dead.len() >= MOST_DEAD {
            self.mark_dead();
        }
    }

    /// Asks the tree, as it is by `meta` or later, for `wanted` lists.
    fn find_lists(&mut self) {
        self.lists.clear();
        let at_once = self.probes > 0 || self.through.is_some();
        loop {
            match Nearest::find(pages(self.rel), &self.meta, &self.inner, &self.query, self.wanted, at_once) {
                Ok(coming) => {
                    self.coming = coming;
                    return;
                }
                Err(stale) => {
                    crate::pg::memory::check_for_interrupts();
                    self.stale = Some((stale, self.meta.epoch));
                    self.renew();
                }
            }
        }
    }

    /// Lets `lists` have `count` of those that the tree was asked for, if so many are due within a distance.
    fn list_nearest(&mut self, count: usize, within: f32) {
        let filter = self.restriction.predicate.as_ref();
        while self.lists.len() < count && self.stale.is_none() {
            match self.coming.next(pages(self.rel), &self.meta, &self.inner, &self.query, filter, (within, self.stop)) {
                Ok(Some(list)) => memory::push(&mut self.lists, list),
                Ok(None) => return,
                Err(stale) => self.stale = Some((stale, self.meta.epoch)),
            }
        }
    }

    /// How many rows of the index are as near as those that the search is for.
    fn rows_as_near(&self) -> f64 {
        self.goal as f64 / self.share
    }

    /// Reads the meta page again. Damage is reported if what is `stale` is so without a structural change.
    fn renew(&mut self) {
        let info = match self.stale.take() {
            Some((stale, epoch)) => Info::after(pages(self.rel), stale, epoch),
            None => Info::of(pages(self.rel)),
        };
        if info.meta.mean_epoch != self.meta.mean_epoch {
            // Other coordinates: nothing that is known so far can be used, but for the rows returned.
            self.query.vector.clone_from(&self.original);
            self.query.place(&info.frame(pages(self.rel)));
            self.forget();
            self.pool.clear();
            self.unseen = 0;
        }
        self.meta = info.meta;
        self.query.norm2 = info.meta.rule.norm2;
    }

    /// Asks the tree again, also for more lists, unless it has given all; false then.
    fn find_more_lists(&mut self) -> bool {
        if self.stale.is_none() {
            if self.wanted >= self.meta.lists as usize {
                return false;
            }
            self.wanted = self.wanted.saturating_mul(4);
        }
        self.renew();
        self.find_lists();
        true
    }

    /// After a change of the structure: scans what has come in place of the lists that are gone.
    fn catch_up(&mut self) {
        let scanned = self.scanned.len();
        self.find_more_lists();
        self.open_pool();
        if self.probes > 0 {
            self.list_nearest(scanned, f32::INFINITY);
            for at in 0..self.lists.len().min(scanned) {
                self.scan_list(self.lists[at], self.meta.epoch);
            }
        } else {
            self.scan_due();
        }
        self.close_pool();
    }

    /// Scans the lists for the goal.
    fn scan(&mut self) {
        let expected = f64::from(self.rule.probes(self.rows_as_near()));
        let bytes = self.meta.likely_rows().saturating_mul(self.leaf.padded / 4 + ENTRY_BYTES);
        self.reads_all = bytes <= CHEAP_BYTES;
        self.limit = if self.reads_all { f32::INFINITY } else { self.rule.limit(self.rows_as_near()) };
        let of_all = !self.restriction.is_some() && self.share == 1.0 && self.goal == self.first_goal;
        let most = if self.restriction.is_some() { MOST_COUNTED } else { MOST_COUNTED_OF_ALL };
        self.most_counted = if of_all { f32::INFINITY } else { most * expected as f32 };
        self.adapt_stop();
        let wanted = match self.probes {
            // At least as many as rows, so that this grows whatever is expected.
            0 if self.reads_all => self.goal.max(self.meta.lists as usize),
            0 => ((expected * 3.0) as usize + 16).max(self.goal),
            // Exactly so many, unless many more rows are asked for than had been expected.
            probes => probes.saturating_mul((self.goal / GOAL_GROWTH / self.first_goal).max(1)),
        };
        if wanted > self.wanted {
            self.wanted = wanted;
            self.find_lists();
        }
        self.coming.reconsider();
        self.open_pool();
        if self.probes > 0 {
            self.scan_first(wanted);
        } else {
            self.scan_due();
        }
        self.close_pool();
    }

    /// Starts over with a larger goal, for the rows that have not been returned; false when there are no others.
    fn widen(&mut self) -> bool {
        crate::pg::memory::check_for_interrupts();
        if self.horizon == f32::INFINITY
            && self.wanted >= self.meta.lists as usize
            && self.coming.is_exhausted()
            && self.lists.iter().all(|list| self.seen.contains(list.id))
        {
            return false;
        }
        // When this brought no row the last time (more rows than there is room for have one and the same bound, or
        // sketches that look nearer than their codes turn out to be), only more room helps: then the limit gives way.
        if self.widened_at == self.work.returned {
            self.room = self.room.saturating_mul(GOAL_GROWTH);
        }
        crate::pg::memory::check_for_interrupts();
        self.widened_at = self.work.returned;
        self.goal = self.goal.saturating_mul(GOAL_GROWTH);
        self.enough = self.goal;
        self.forget();
        self.scan();
        true
    }

    /// Forgets what has been scanned and found, but for the rows returned.
    fn forget(&mut self) {
        self.seen.clear();
        self.scanned.clear();
        self.late.clear();
        self.heap.clear();
        self.best.clear();
        (self.passing, self.looked_at, self.fruitful) = (0, 0, 0);
        self.nearest = f32::INFINITY;
        self.horizon = f32::INFINITY;
    }

    /// Scans, nearest first, the lists that are due by the best found so far. Asks the tree for more lists
    /// while the last of them are still due.
    fn scan_due(&mut self) {
        loop {
            let mut last_due = 0;
            let mut ahead = Ahead::default();
            for at in 0.. {
                let within = self.stop_distance();
                ahead.advance(self, at, within);
                let Some(&list) = self.lists.get(at) else { break };
                if self.is_due(&list, within) {
                    last_due = at;
                    self.scan_list(list, self.meta.epoch);
                }
            }
            let enough = self.stale.is_none() && self.coming.has_many_behind(last_due);
            if enough || !self.find_more_lists() {
                break;
            }
        }
    }

    /// Scans the first `count` lists, nearest first.
    fn scan_first(&mut self, count: usize) {
        let before = self.work.lists;
        loop {
            let mut ahead = Ahead::default();
            for at in 0.. {
                if (self.work.lists - before) as usize >= count {
                    return;
                }
                ahead.advance(self, at, f32::INFINITY);
                let Some(&list) = self.lists.get(at) else { break };
                self.scan_list(list, self.meta.epoch);
            }
            if !self.find_more_lists() {
                return;
            }
        }
    }

    /// When few candidates are all that a restricted search has, all of them are refined: a row whose sketch looks farther
    /// than it is would come too late for the order, and be missed in a LIMIT.
    fn refine_few(&mut self) {
        let all_lists = self.wanted >= self.meta.lists as usize;
        let few = if all_lists { FEW_OF_ALL } else { FEW_CANDIDATES };
        if self.restriction.is_some() && self.pool.len() <= few {
            for stage in [Stage::Sketch, Stage::Code] {
                let mut rest: Vec<Candidate> = memory::collected(self.pool.extract_if(.., |row| row.stage == stage));
                self.refine(&mut rest);
                memory::room(&mut self.pool, rest.len());
                self.pool.append(&mut rest);
            }
        }
    }

    /// After lists were scanned.
    fn adapt_stop(&mut self) {
        // While about as many rows pass as had been expected, those that pass are where all rows are.
        let expected = self.share * AS_EXPECTED * self.looked_at as f64;
        let as_expected = self.restriction.is_some() && self.passing as f64 >= expected;
        let most = if as_expected { COUNTED_AS_EXPECTED * self.most_counted } else { self.most_counted };
        let lists = (self.fruitful as f32).min(most);
        self.stop = self.limit - calibrate::penalty(lists);
    }

    /// Slots with an entry whose row may be visible: marks of dead ones count where this search may trust them.
    #[inline]
    fn live(&self, block: &Block<'_>) -> u32 {
        if self.begun.is_some() { block.live() & !block.dead() } else { block.live() }
    }

    /// Whether a list may hold rows within a distance.
    fn is_due(&self, list: &List, within: f32) -> bool {
        let needed = self.query.needed_cosine(list, within);
        // Without a distance all are due, also one whose radius is damaged: else a search to the end would not come to it.
        // NaN: a list of radius 0 at the query's very place, or a rule measured at the ends of f32's range.
        within == f32::INFINITY || needed.partial_cmp(&self.stop) != Some(Ordering::Greater)
    }

    /// Distance that the stopping rule goes by.
    fn stop_distance(&self) -> f32 {
        farthest_of(&self.best, self.goal)
    }

    /// Distance that a row must beat to be among the best `goal`.
    fn near(&self) -> f32 {
        farthest_of(&self.best, self.goal)
    }

    /// Beyond this candidates are dropped: a little farther than `near`, for the rows that the executor looks at in addition.
    fn reach(&self) -> f32 {
        match self.near() {
            f32::INFINITY => f32::INFINITY,
            // By the inner product the nearest may be an outlier. What the rows of a list lie apart is enough.
            near if self.query.space == Space::InnerProduct && self.meta.spread > 0.0 => {
                near + REACH * (near - self.nearest).min(self.query.norm * self.meta.spread.sqrt())
            }
            near => near + REACH * (near - self.nearest),
        }
    }

    /// Scans one list into the pool unless that has been done; refines what may be among the first results.
    /// `epoch`: by which it was found.
    fn scan_list(&mut self, list: List, epoch: u32) {
        if !self.seen.insert(list.id) {
            return;
        }
        let number = self.scanned.len() as u32;
        memory::push(&mut self.scanned, (list, epoch));
        self.work.lists += 1;
        let (rel, leaf, passing) = (self.rel, self.leaf, self.passing);
        let mut cursor = Cursor::new(pages(rel), &leaf, &list);
        let mut scores = Scores::new();
        loop {
            let buffer = match cursor.next_page() {
                Ok(Some(buffer)) => buffer,
                Ok(None) => break,
                Err(stale) => {
                    self.stale = Some((stale, epoch));
                    break;
                }
            };
            let posting = cursor.posting(&buffer);
            let limit = self.reach();
            for b in 0..posting.blocks() {
                let block = posting.block(b);
                let live = self.live(&block);
                let wanted = self.restriction.wanted(&block, live);
                self.passing += u64::from(wanted.count_ones());
                self.looked_at += u64::from(live.count_ones());
                let mut near =
                    match tree::scan_rows(pages(rel), &leaf, &list, &block, wanted, &self.query, limit, &mut scores) {
                        Ok(near) => near,
                        Err(stale) => {
                            self.stale = Some((stale, epoch));
                            break;
                        }
                    };
                self.work.entries += u64::from(live.count_ones());
                if near != wanted {
                    self.horizon = self.horizon.min(limit);
                }
                while near != 0 {
                    let slot = near.trailing_zeros() as usize;
                    near &= near - 1;
                    let Some(cell) = block.cell(slot) else {
                        corrupted(rel, buffer.block(), Damage::Bounds);
                    };
                    memory::room(&mut self.pool, 1);
                    let mut row = Candidate {
                        key: scores.lower[slot],
                        lower: scores.lower[slot],
                        estimate: scores.estimate[slot],
                        upper: f32::INFINITY,
                        certain: f32::MIN,
                        cell,
                        list: number,
                        tid: block.tid(slot),
                        stage: Stage::Sketch,
                    };
                    if leaf.own_bits {
                        row.is_known();
                    }
                    self.pool.push(row);
                }
            }
            drop(buffer);
            if self.pool.len() >= self.room {
                self.refine_near();
                self.shrink_pool();
            }
        }
        // While little is known, the best of many tell more than the best of each list.
        let first_look = self.goal.saturating_mul(FIRST_LOOK);
        if self.best.len() >= self.goal || self.pool.len() - self.unseen >= first_look {
            self.refine_near();
        }
        self.stale = cursor.changed_since(epoch).map(|stale| (stale, epoch)).or(self.stale);
        if self.restriction.is_some() {
            self.adapt_limit();
        }
        if self.passing > passing {
            self.fruitful += 1;
            self.adapt_stop();
        }
    }

    /// Where few of the rows pass, the best of them are among so many more rows of the index.
    fn adapt_limit(&mut self) {
        if !self.reads_all {
            let share = self.passing.max(1) as f64 / self.looked_at.max(1) as f64;
            self.limit = self.rule.limit(self.goal as f64 / share);
        }
    }

    /// Refines the candidates that have come to the pool since the last time and are probably among the best, and those
    /// that may have been returned before.
    fn refine_near(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        let near = self.near().min(self.likely_near());
        // To the end of the pool: those to be refined.
        let mut keep = self.unseen;
        for at in self.unseen..self.pool.len() {
            let row = self.pool[at];
            // One deviation below the estimate; the bound is DEFAULT_Z below.
            let likely = row.estimate - (row.estimate - row.lower) / quantize::DEFAULT_Z;
            if likely < near || row.lower <= self.last {
                memory::push(&mut batch, row);
            } else {
                self.pool[keep] = row;
                keep += 1;
            }
        }
        self.pool.truncate(keep);
        self.refine(&mut batch);
        let last = self.last;
        let is_open = |row: &Candidate| row.lower <= last && (row.stage == Stage::Code || row.key != row.estimate);
        if batch.iter().any(is_open) {
            // Only the row itself can tell whether it comes too late.
            let mut rows = memory::collected(batch.extract_if(.., |row| is_open(row)));
            self.refine(&mut rows);
            batch.append(&mut rows);
        }
        for row in batch.drain(..) {
            self.nearest = self.nearest.min(row.estimate);
            note(&mut self.best, self.goal, row.estimate);
            if self.returned.contains(&row.tid) {
                continue;
            }
            let late = row.lower < self.last && !self.relaxed;
            memory::push(if late { &mut self.late } else { &mut self.pool }, row);
        }
        self.batch = batch;
        self.unseen = self.pool.len();
    }

    /// While fewer than `goal` distances are known: the estimate that so many of the new candidates are within.
    fn likely_near(&mut self) -> f32 {
        let goal = self.goal;
        if self.best.len() >= goal || self.pool.len() - self.unseen <= goal {
            return f32::INFINITY;
        }
        let mut estimates: Vec<f32> = memory::collected(self.pool[self.unseen..].iter().map(|c| c.estimate));
        *estimates.select_nth_unstable_by(goal, f32::total_cmp).1
    }

    /// Keeps half the room's candidates, those with the smallest bounds, when the room is full.
    fn shrink_pool(&mut self) {
        let keep = self.room / 2;
        if self.pool.len() >= self.room {
            let (_, first_dropped, _) = self.pool.select_nth_unstable_by(keep, Candidate::order);
            self.horizon = self.horizon.min(first_dropped.key);
            self.pool.truncate(keep);
            self.unseen = keep;
        }
    }

    /// Turns the heap into the pool, before lists are scanned.
    fn open_pool(&mut self) {
        self.pool = std::mem::take(&mut self.heap).into_vec();
        self.unseen = self.pool.len();
    }

    /// Turns the pool into the heap, after lists have been scanned.
    fn close_pool(&mut self) {
        self.refine_near();
        self.shrink_pool();
        self.refine_few();
        self.heap = std::mem::take(&mut self.pool).into();
    }
}

/// Nothing certain is known of candidates whose rows cannot be looked at here: the executor has to.
fn leave_open(rows: &mut [Candidate]) {
    for row in rows {
        row.key = row.estimate;
        (row.lower, row.certain, row.upper) = (f32::MIN, f32::MIN, f32::INFINITY);
        row.stage = Stage::Refined;
    }
}

/// `code`, if its cell is still the one of `row`, which was found in `list` at `epoch`: something has been taken from the
/// code page since, when the page names a later epoch. None: the row is in no list any more.
fn still_its(
    code: Option<Code>,
    row: &Candidate,
    list: &List,
    epoch: u32,
    codes: &mut CodeReader<'_, Index>,
    rel: pg_sys::Relation,
    leaf: &Layout,
) -> Result<Option<Code>, Stale> {
    let now = match &code {
        Some(code) => code.epoch,
        None => codes.epoch(row.cell.0)?,
    };
    if now <= epoch {
        return Ok(code);
    }
    codes.close(); // posting pages are locked before code pages
    if code.is_some() && tree::cell_of_row(pages(rel), leaf, (list.head, list.id), row.tid).is_some() {
        return Ok(code);
    }
    Err(Stale { block: row.cell.0, damage: Damage::Epoch(now) })
}

/// How far the pages of the lists to come have been asked for.
#[derive(Default)]
struct Ahead {
    /// Lists up to here: from memory into the processor's cache.
    fetched: usize,
    /// Lists up to here: from the operating system.
    asked: usize,
    /// Blocks read from outside shared buffers when last looked at.
    reads: Option<i64>,
}

impl Ahead {
    /// Moves on to the list at `at`: lets the search's list have it, and asks for the first pages of the next lists that are
    /// due.
    fn advance(&mut self, search: &mut Search, at: usize, within: f32) {
        let reads = storage::blocks_read();
        let cold = self.reads.replace(reads).is_some_and(|before| before != reads);
        search.list_nearest(at + 1 + if cold { READ_AHEAD } else { FETCH_AHEAD }, within);
        let lists = &search.lists;
        if cold {
            let to = lists.len().min(at + READ_AHEAD);
            for list in &lists[self.asked.clamp(at.min(to), to)..to] {
                storage::read_ahead(search.rel, list.head);
            }
            self.asked = self.asked.max(to);
        }
        let to = lists.len().min(at + 1 + FETCH_AHEAD);
        for list in &lists[self.fetched.clamp(at.min(to), to)..to] {
            if !search.seen.contains(list.id) && search.is_due(list, within) {
                storage::prefetch(search.rel, list.head, 0..tree::PREFETCHED_BYTES);
            }
        }
        self.fetched = self.fetched.max(to);
    }
}

thread_local! {
    static LAST_WORK: RefCell<Vec<(pg_sys::Oid, Work)>> = const { RefCell::new(Vec::new()) };
}
/// Users whose last search is remembered.
const USERS: usize = 8;

/// What the last search of this backend has done that the current user ran: not one of a SECURITY DEFINER function, whose
/// rows are nobody else's business.
pub fn last_work() -> Work {
    // SAFETY: a plain look at the backend's state.
    let user = unsafe { pg_sys::GetUserId() };
    LAST_WORK.with_borrow(|all| all.iter().find(|(of, _)| *of == user).map_or(Work::default(), |(_, work)| *work))
}

impl Drop for Search {
    fn drop(&mut self) {
        LAST_WORK.with_borrow_mut(|all| {
            all.retain(|(user, _)| *user != self.user);
            all.truncate(USERS - 1);
            all.insert(0, (self.user, self.work));
        });
    }
}
