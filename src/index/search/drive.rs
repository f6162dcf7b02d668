//! A search that its caller drives: one who looks at each row, keeps those that match, puts them in exact order, and so
//! knows better than the search when enough has been found. The order is the caller's business: rows come as by
//! `relaxed_order`, each once.

use super::*;
use crate::index::storage::pages;
use ann::quantize::BLOCK;
use ivflsh::nearest::FIRST_GOAL;

/// A row that a driven search has found.
#[derive(Clone, Copy)]
pub struct Found {
    pub tid: Tid,
    /// Bounds of the value that the SQL operator returns for it, which hold all but certainly.
    pub lower: f64,
    pub upper: f64,
}

/// What a driven search has at hand.
#[derive(Clone, Copy, Debug)]
pub enum Next {
    /// A row; neither it nor those to come have a distance (the operator's) below this.
    Row(f64),
    /// Nothing, without going farther: all other rows are farther than this.
    Farther(f64),
    /// Nothing: all rows have been found.
    End,
}

impl Search {
    /// Searches for the nearest `goal` rows.
    pub fn drive_to(&mut self, goal: usize) {
        assert!(!self.started);
        self.aim(goal);
        self.first_goal = self.goal;
        self.drive();
    }

    /// Says which share of the rows is expected to pass the restriction, so that the tree is asked for enough lists at once.
    pub fn expect_share(&mut self, share: f64) {
        assert!(!self.started);
        self.share = share.clamp(1e-9, 1.0);
    }

    fn drive(&mut self) {
        self.started = true;
        self.relaxed = true;
        if !self.finds_nothing() {
            self.scan();
        }
    }

    fn aim(&mut self, goal: usize) {
        self.goal = goal.max(FIRST_GOAL);
    }

    /// Whether conditions on filter columns contradict each other.
    fn finds_nothing(&self) -> bool {
        self.restriction.predicate.as_ref().is_some_and(Predicate::is_nothing)
    }

    /// What comes next.
    pub fn peek(&mut self) -> Next {
        if self.finds_nothing() {
            return Next::End;
        }
        loop {
            if self.stale.is_some() {
                self.catch_up();
            }
            let key = match self.next_refined() {
                // Candidates that are not where they were: their rows are elsewhere.
                _ if self.stale.is_some() => continue,
                Some(key) if self.is_within(key) => key,
                _ => break,
            };
            if self.returned.contains(&self.heap.peek().unwrap().tid) {
                self.heap.pop();
                continue;
            }
            return Next::Row(self.order_bound(key));
        }
        if self.is_complete() {
            return Next::End;
        }
        // A horizon of infinity: there are further lists, but no more rows in those that were due.
        let bound = if self.horizon < f32::INFINITY { self.order_bound(self.horizon) } else { f64::NEG_INFINITY };
        Next::Farther(bound)
    }

    /// The operator's value below which no row is whose key is at least this.
    fn order_bound(&self, key: f32) -> f64 {
        self.query.operator.order_value(self.deflated(key), self.query.underflow)
    }

    /// All lists have been scanned, and no row of them has been dropped.
    fn is_complete(&self) -> bool {
        self.horizon == f32::INFINITY
            && self.coming.is_exhausted()
            && self.scanned.len() >= self.lists.len()
            && self.wanted >= self.meta.lists as usize
    }

    /// The row that [`Search::peek`] has announced.
    pub fn next_found(&mut self) -> Option<Found> {
        let row = self.heap.pop()?;
        self.returned.insert(row.tid);
        self.note_latest(&row);
        self.work.returned += 1;
        let (operator, underflow) = (self.query.operator, self.query.underflow);
        let lower = operator.order_value(row.lower, underflow);
        let usual = row.upper.abs() < USUAL_DISTANCES && self.query.norm * self.query.norm < USUAL_DISTANCES;
        let upper = if usual { operator.order_ceiling(row.upper, underflow) } else { f64::INFINITY };
        Some(Found { tid: row.tid, lower, upper })
    }

    /// Goes on as for the nearest `goal` rows in all; false when there are no more.
    pub fn go_on(&mut self, goal: usize) -> bool {
        if self.is_complete() || self.finds_nothing() {
            return false;
        }
        // See `widen`.
        if self.widened_at == self.work.returned {
            self.room = self.room.saturating_mul(GOAL_GROWTH);
        }
        self.widened_at = self.work.returned;
        self.aim(goal.max(self.goal.saturating_mul(2)));
        self.forget();
        self.scan();
        true
    }
}

/// All rows within a distance: all lists are read, and a row is left out only where a bound that is certain says so.
#[derive(Clone, Copy)]
pub struct Through {
    /// The operator's.
    distance: f64,
    /// Sketches may tell, too, [`LIKELY`] deviations off.
    likely: bool,
    /// Place of the next list.
    at: usize,
}

/// Deviations of the sketches beyond which no row is expected: one in 2·10⁷.
const LIKELY: f32 = 5.5;

impl Search {
    /// Prepares to go through the lists for the rows within a distance (the operator's), nearest lists first. `likely`: a row is left
    /// out also where its sketch says all but certainly that it is farther; then codes are read of few.
    pub fn go_through(&mut self, distance: f64, likely: bool) {
        assert!(!self.started);
        self.started = true;
        self.relaxed = true;
        self.through = Some(Through { distance, likely, at: 0 });
        self.wanted = usize::MAX;
        if !self.finds_nothing() {
            self.find_lists();
        }
    }

    /// About which share of the rows is within the distance of [`Search::go_through`].
    pub fn share_within(&mut self) -> f64 {
        let distance = self.through.expect("a range").distance;
        self.list_nearest(usize::MAX, f32::INFINITY);
        let within: f64 = self.lists.iter().map(|list| self.query.share_within(list, distance)).sum();
        within / self.lists.len().max(1) as f64
    }

    /// Adds to `found` the rows of the next list that may be within the distance of [`Search::go_through`]; false when there is none left.
    /// After changes of the structure a row may come twice.
    pub fn next_within(&mut self, found: &mut Vec<Found>) -> bool {
        let Some(Through { distance, likely, .. }) = self.through.filter(|_| !self.finds_nothing()) else {
            return false;
        };
        loop {
            crate::pg::memory::check_for_interrupts();
            if self.stale.is_some() {
                self.renew();
                self.find_lists();
                self.through.as_mut().unwrap().at = 0;
            }
            let at = self.through.unwrap().at;
            self.list_nearest(at + 1 + FETCH_AHEAD, f32::INFINITY);
            let Some(&list) = self.lists.get(at) else {
                if self.stale.is_some() {
                    continue;
                }
                return false;
            };
            if let Some(ahead) = self.lists.get(at + FETCH_AHEAD) {
                storage::prefetch(self.rel, ahead.head, 0..tree::PREFETCHED_BYTES);
            }
            self.through.as_mut().unwrap().at += 1;
            if !self.seen.insert(list.id) {
                continue;
            }
            let mut rows = std::mem::take(&mut self.batch);
            self.read_list(list, likely.then_some(distance), &mut rows);
            self.refine(&mut rows);
            let (operator, underflow) = (self.query.operator, self.query.underflow);
            for row in rows.drain(..) {
                let lower = operator.order_value(row.certain, underflow);
                if lower > distance {
                    continue;
                }
                let upper = self.upper_bound(&row);
                let upper =
                    if upper < f32::INFINITY { operator.order_ceiling(upper, underflow) } else { f64::INFINITY };
                memory::push(found, Found { tid: row.tid, lower, upper });
            }
            self.batch = rows;
            self.work.returned += found.len() as u64;
            return true;
        }
    }

    /// Reads the entries of a list that pass the restriction. `likely`: but those that their sketches say are farther than that.
    fn read_list(&mut self, list: List, likely: Option<f64>, rows: &mut Vec<Candidate>) {
        let epoch = self.meta.epoch;
        self.scanned.clear();
        self.scanned.push((list, epoch));
        self.work.lists += 1;
        let (rel, leaf) = (self.rel, self.leaf);
        let within = likely.map(|distance| {
            let within = self.query.operator.in_index_unit(distance);
            // A row at the place of its centroid has no deviation, but what is computed of it is rounded.
            let sums = SUMS_ROUNDING * (list.term.a.abs() + self.query.norm * self.query.norm);
            within + ROUNDING * within.abs() + sums.max(list.term.a - list.floor)
        });
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
            for b in 0..posting.blocks() {
                let block = posting.block(b);
                let mut wanted = self.restriction.wanted(&block, self.live(&block));
                self.work.entries += u64::from(block.live().count_ones());
                if within.is_some() || leaf.own_bits {
                    let query = &self.query;
                    if let Err(stale) =
                        tree::scan_rows(pages(rel), &leaf, &list, &block, wanted, query, f32::INFINITY, &mut scores)
                    {
                        self.stale = Some((stale, epoch));
                        break;
                    }
                }
                if let Some(within) = within {
                    let passing = wanted;
                    for slot in (0..BLOCK).filter(|slot| passing >> slot & 1 == 1) {
                        let (estimate, lower) = (scores.estimate[slot], scores.lower[slot]);
                        let least = estimate - (estimate - lower) * (LIKELY / quantize::DEFAULT_Z);
                        wanted &= !(u32::from(least > within) << slot);
                    }
                }
                for slot in (0..BLOCK).filter(|slot| wanted >> slot & 1 == 1) {
                    let Some(cell) = block.cell(slot) else {
                        corrupted(rel, buffer.block(), Damage::Bounds);
                    };
                    let mut row = Candidate {
                        key: 0.0,
                        lower: f32::MIN,
                        estimate: 0.0,
                        upper: f32::INFINITY,
                        certain: f32::MIN,
                        cell,
                        list: 0,
                        tid: block.tid(slot),
                        stage: Stage::Sketch,
                    };
                    if leaf.own_bits {
                        row.estimate = scores.estimate[slot];
                        row.is_known();
                    }
                    memory::push(rows, row);
                }
            }
        }
        self.stale = cursor.changed_since(epoch).map(|stale| (stale, epoch)).or(self.stale);
    }
}

/// How far the arithmetic of distances may be off.
const ROUNDING: f32 = 1e-4;
/// The same as a part of what they are sums of.
const SUMS_ROUNDING: f32 = 1e-5;
