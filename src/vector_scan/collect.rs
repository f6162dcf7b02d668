//! Rows that match, waiting to be returned in exact order.

use crate::index::page::Tid;
use ann::memory;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A row that matches the WHERE clause.
#[derive(Clone, Copy, Debug)]
pub struct Match {
    /// Bounds of its distance; equal when it has been computed.
    pub lower: f64,
    pub upper: f64,
    pub exact: bool,
    /// The version of the row that the query sees.
    pub tid: Tid,
}

impl Match {
    /// A row whose distance is known.
    pub fn exact(distance: f64, tid: Tid) -> Match {
        Match { lower: distance, upper: distance, exact: true, tid }
    }

    /// As SQL orders them, by their lower bounds.
    pub fn order(&self, other: &Match) -> Ordering {
        self.lower.total_cmp(&other.lower).then_with(|| self.tid.cmp(&other.tid))
    }
}

/// The nearest by lower bound is the greatest: BinaryHeap is a max-heap.
#[derive(Clone, Copy)]
struct Nearest(Match);
impl Ord for Nearest {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.order(&self.0)
    }
}
impl PartialOrd for Nearest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Nearest {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Nearest {}

/// The farthest is the greatest.
#[derive(Clone, Copy)]
struct Farthest(Match);
impl Ord for Farthest {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.upper.total_cmp(&other.0.upper).then_with(|| self.0.tid.cmp(&other.0.tid))
    }
}
impl PartialOrd for Farthest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Farthest {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Farthest {}

/// Rows found and not returned yet.
#[derive(Default)]
pub struct Collector {
    pending: BinaryHeap<Nearest>,
    /// The `wanted` of them with the smallest upper bounds.
    best: BinaryHeap<Farthest>,
    wanted: usize,
}

impl Collector {
    /// Says how many rows are wanted besides those returned already.
    pub fn want(&mut self, rows: usize) {
        self.wanted = rows;
        self.best.clear();
        let pending = std::mem::take(&mut self.pending);
        for found in &pending {
            self.rank(found.0);
        }
        self.pending = pending;
    }

    fn rank(&mut self, found: Match) {
        memory::room(&mut self.best, 1);
        self.best.push(Farthest(found));
        if self.best.len() > self.wanted {
            self.best.pop();
        }
    }

    /// Adds a row.
    pub fn add(&mut self, found: Match) {
        memory::room(&mut self.pending, 1);
        self.pending.push(Nearest(found));
        self.rank(found);
    }

    /// Distance within which all rows wanted are; infinite while there are too few.
    pub fn reach(&self) -> f64 {
        match self.best.peek() {
            Some(farthest) if self.best.len() >= self.wanted => farthest.0.upper,
            _ => f64::INFINITY,
        }
    }

    /// How many of the rows wanted have been found.
    pub fn found(&self) -> usize {
        self.best.len()
    }

    /// Takes the row with the smallest lower bound, and the next one's lower bound.
    pub fn take(&mut self) -> Option<(Match, f64)> {
        let nearest = self.pending.pop()?.0;
        Some((nearest, self.pending.peek().map_or(f64::INFINITY, |next| next.0.lower)))
    }

    /// Puts a row back whose distance has been computed meanwhile.
    pub fn put_back(&mut self, found: Match) {
        memory::room(&mut self.pending, 1);
        self.pending.push(Nearest(found));
    }

    /// Forgets all rows.
    pub fn clear(&mut self) {
        self.pending.clear();
        self.best.clear();
    }
}

/// The nearest rows of a pass over many, as many as there is room for.
pub struct Nearby {
    rows: BinaryHeap<Farthest>,
    room: usize,
    /// Rows have been left out for want of room.
    pub overflowed: bool,
}

impl Nearby {
    /// With room for so many rows.
    pub fn new(room: usize) -> Nearby {
        Nearby { rows: BinaryHeap::new(), room, overflowed: false }
    }

    /// Whether a row at this distance would be kept.
    pub fn offer(&mut self, found: Match) {
        memory::room(&mut self.rows, 1);
        self.rows.push(Farthest(found));
        if self.rows.len() > self.room {
            self.rows.pop();
            self.overflowed = true;
        }
    }

    pub fn into_rows(self) -> impl Iterator<Item = Match> {
        self.rows.into_iter().map(|farthest| farthest.0)
    }
}
