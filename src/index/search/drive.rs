//! A search that its caller drives: one who looks at each row, keeps those that match, puts them in exact order, and so
//! knows better than the search when enough has been found. The order is the caller's business: rows come as by
//! `relaxed_order`, each once.

use super::*;

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

    /// Searches for the rows within a distance (the operator's): lists are due by it, as by the distance of a last result.
    pub fn drive_within(&mut self, distance: f64) {
        assert!(!self.started);
        let distance = self.query.operator.in_index_unit(distance);
        self.within = Some(distance + ROUNDING * distance.abs());
        (self.goal, self.first_goal) = (usize::MAX / GOAL_GROWTH / 2, FIRST_GOAL);
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
                Some(key) if key < self.horizon || self.horizon == f32::INFINITY => key,
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
        // Nothing but what was out of the range has been dropped.
        if self.within.is_some_and(|within| self.horizon >= within) {
            return Next::Farther(f64::INFINITY);
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
        if self.within.is_none() {
            self.aim(goal.max(self.goal.saturating_mul(2)));
        }
        self.forget();
        self.scan();
        true
    }
}

/// How far the arithmetic of distances may be off.
const ROUNDING: f32 = 1e-4;
