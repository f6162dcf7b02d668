//! A search: the rows in order of their inner product with the query, the largest first; each with its exact value.
//!
//! MaxScore by windows of rows: a list whose weights, with those of all smaller lists, cannot lift a row above the last of those
//! found so far is only looked at for rows that other lists have; and a window in which all lists together cannot is skipped by
//! what the directories of their leaves say.

use super::page::{Key, NULLS, PendingRow, Place, ROWS, opposite};
use super::pending;
use super::segment;
use super::tree::{Found, Tree};
use super::value::Value;
use ann::memory;
use pgrx::prelude::*;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Rows that a search looks for first if nobody has said how many are wanted.
const FIRST_GOAL: usize = 16;
/// As many times as many rows are looked for when those found were not enough.
const MORE: usize = 4;
/// Segments of a list that is only looked up whose maxima are looked at for a window, at most.
const LOOK: usize = 8;

/// A row that was found. The better one is the greater one: of rows with the same score, the one with the lower number.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Scored {
    score: f32,
    row: u64,
}

impl Eq for Scored {}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Scored) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scored {
    fn cmp(&self, other: &Scored) -> Ordering {
        self.score.total_cmp(&other.score).then(other.row.cmp(&self.row))
    }
}

/// One term of the query, and where its list is read.
struct Cursor {
    key: Key,
    /// The query's value: below zero for a list whose rows have the other sign, as weights have none.
    query: f32,
    /// Its place among the terms of the query.
    term: usize,
    segments: Vec<Found>,
    /// The largest that it can add to a score.
    most: f32,
    /// The segment that holds the rows looked at.
    at: usize,
    /// The segment whose entries are in `rows` and `scores`.
    loaded: usize,
    rows: Vec<u64>,
    /// What each row gets from it.
    scores: Vec<f32>,
    pos: usize,
}

const NONE: usize = usize::MAX;

impl Cursor {
    /// At the beginning of a list; None if that is empty.
    fn open(tree: &Tree, key: Key, query: f32, term: usize) -> Option<Cursor> {
        let segments = tree.directory(key);
        if segments.is_empty() {
            return None;
        }
        let most = query * segments.iter().map(|segment| segment.max).fold(0.0, f32::max);
        let (rows, scores) = (memory::with_room(segment::MOST), memory::with_room(segment::MOST));
        Some(Cursor { key, query, term, segments, most, at: 0, loaded: NONE, rows, scores, pos: 0 })
    }

    fn reset(&mut self) {
        (self.at, self.loaded, self.pos) = (0, NONE, 0);
    }

    /// The first row behind a segment.
    fn end(&self, at: usize) -> u64 {
        self.segments.get(at + 1).map_or(u64::MAX, |next| next.first)
    }

    /// Goes on to the segment that holds a row, or that begins behind it where none is before.
    fn advance(&mut self, row: u64) {
        if self.end(self.at) > row {
            return;
        }
        // Mostly it is near.
        let mut step = 1;
        let mut low = self.at + 1;
        while low + step < self.segments.len() && self.segments[low + step].first <= row {
            low += step;
            step *= 2;
        }
        let most = (low + step).min(self.segments.len());
        self.at = low + self.segments[low..most].partition_point(|segment| segment.first <= row) - 1;
    }

    /// What it can add to the score of a row of the window that begins at `row`, in the segment at hand; and where that segment ends.
    fn window(&self, row: u64) -> (f32, u64) {
        match self.segments.get(self.at) {
            None => (0.0, u64::MAX),
            // Rows before the first one of the list.
            Some(segment) if segment.first > row => (0.0, segment.first),
            Some(segment) => (self.query * segment.max, self.end(self.at)),
        }
    }

    /// What it can add to the score of any row up to `end`.
    fn most_before(&self, end: u64) -> f32 {
        let mut most = 0.0f32;
        for (i, segment) in self.segments[self.at.min(self.segments.len())..].iter().enumerate() {
            if segment.first >= end {
                break;
            }
            if i == LOOK {
                return self.most;
            }
            most = most.max(segment.max);
        }
        self.query * most
    }

    /// Reads the segment at hand.
    fn load(&mut self, tree: &Tree) {
        if self.loaded == self.at {
            return;
        }
        self.rows.clear();
        self.scores.clear();
        (self.loaded, self.pos) = (self.at, 0);
        let Some(&Found { first, block, .. }) = self.segments.get(self.at) else { return };
        tree.entries(self.key, block, (first, self.end(self.at)), &mut self.rows, &mut self.scores);
        for score in &mut self.scores {
            *score *= self.query;
        }
    }

    /// Goes on to a row within the segment that has been read; what it adds to its score if it is in the list.
    fn find(&mut self, row: u64) -> Option<f32> {
        let rest = &self.rows[self.pos..];
        // Rows are looked up in order; the next is near.
        let n = match rest.iter().take(8).position(|&r| r >= row) {
            Some(n) => n,
            None if rest.len() <= 8 => rest.len(),
            None => rest.partition_point(|&r| r < row),
        };
        self.pos += n;
        (self.rows.get(self.pos) == Some(&row)).then(|| self.scores[self.pos])
    }

    /// What the list adds to the score of a row: rows are asked for in order.
    fn look_up(&mut self, tree: &Tree, row: u64) -> Option<f32> {
        self.advance(row);
        if self.segments.get(self.at).is_none_or(|segment| segment.first > row) {
            return None;
        }
        self.load(tree);
        self.find(row)
    }
}

/// A pending row, as far as the query is concerned.
struct Waiting {
    row: u64,
    /// None: it has nothing in common with the query.
    score: Option<f32>,
    is_null: bool,
}

/// Which scores a pass is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sign {
    /// Above zero.
    Plus,
    /// Below, and what is not a number, which comes last.
    Minus,
}

/// What comes next.
#[derive(Clone, Copy)]
enum Phase {
    /// Rows with a score of this sign.
    Scored(Sign),
    /// Rows at distance zero: first those of `waiting`, then those of the tree, of which `next` says where to go on.
    Zero {
        waiting: usize,
        next: Option<Place>,
    },
    /// Rows whose value is NULL, likewise.
    Nulls {
        waiting: usize,
        next: Option<Place>,
    },
    End,
}

/// What the search gives for a row.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Hit {
    pub row: u64,
    /// None for NULL.
    pub distance: Option<f64>,
}

/// The distance from which on no row is wanted any more.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Range {
    pub distance: f64,
    /// Rows at this distance are wanted.
    pub inclusive: bool,
}

impl Range {
    fn holds(self, distance: Option<f64>) -> bool {
        // What is not a number is above all others, and equal to itself, to PostgreSQL.
        let is_beyond = |d: f64| d.is_nan() && !self.distance.is_nan() || d > self.distance;
        let is_equal = |d: f64| d == self.distance || d.is_nan() && self.distance.is_nan();
        distance.is_some_and(|d| !is_beyond(d) && (self.inclusive || !is_equal(d)))
    }
}

/// Which rows are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    pub values: bool,
    pub nulls: bool,
}

/// A search under way.
pub struct Search {
    tree: Tree,
    wanted: Wanted,
    range: Option<Range>,
    /// The query's terms that have a list, those first that can add least.
    cursors: Vec<Cursor>,
    /// Those that have a list of the other sign, which takes something away from a score.
    minus: Vec<Cursor>,
    /// Terms of the query.
    terms: usize,
    waiting: Vec<Waiting>,
    /// ORDER BY NULL.
    is_null: bool,
    goal: usize,
    /// The best ones of a pass, the last one to be returned first.
    found: Vec<Scored>,
    /// The last one that was returned.
    last: Option<Scored>,
    /// Whether the last pass found fewer than it looked for.
    all_found: bool,
    phase: Phase,
    /// Rows of the tree that are to be returned next.
    rows: Vec<u64>,
    weights: Vec<f32>,
    at: usize,
    /// By term: what a row gets.
    parts: Vec<f32>,
}

impl Search {
    /// For a query (None: NULL) and so many rows at first, if that is known. Beyond the range it may end.
    pub fn new(
        index: pg_sys::Relation,
        query: Option<&Value>,
        wanted: Wanted,
        range: Option<Range>,
        expected: Option<usize>,
    ) -> Search {
        let terms = query.map_or(&[][..], |query| &query.entries);
        let mut waiting = Vec::new();
        let meta = {
            let waiting = std::cell::RefCell::new(&mut waiting);
            pending::read(
                index,
                |row| {
                    let waits = Waiting { row: row.row, score: judge(terms, row), is_null: row.is_null };
                    memory::push(&mut waiting.borrow_mut(), waits);
                },
                || waiting.borrow_mut().clear(),
            )
        };
        if let Some(query) = query
            && meta.dims != 0
            && meta.dims != query.dims
        {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
                format!("different sparsevec dimensions {} and {}", query.dims, meta.dims)
            );
        }
        waiting.sort_unstable_by_key(|waiting| waiting.row);
        waiting.dedup_by_key(|waiting| waiting.row);
        let tree = pending::tree(index, &meta);
        let (mut cursors, mut minus) = (memory::with_room(terms.len()), Vec::new());
        for (term, &(key, query)) in terms.iter().enumerate() {
            cursors.extend(Cursor::open(&tree, key, query, term));
            if meta.negative || key & 1 == 1 {
                memory::room(&mut minus, 1);
                minus.extend(Cursor::open(&tree, opposite(key), -query, term));
            }
        }
        cursors.sort_by(|a, b| a.most.total_cmp(&b.most));
        let goal = expected.map_or(FIRST_GOAL, |rows| rows.saturating_add(rows / 8 + 2));
        Search {
            tree,
            wanted,
            range,
            cursors,
            minus,
            terms: terms.len(),
            waiting,
            is_null: query.is_none(),
            goal,
            found: Vec::new(),
            last: None,
            all_found: false,
            phase: if wanted.values {
                Phase::Scored(Sign::Plus)
            } else {
                Phase::Nulls { waiting: 0, next: FIRST_NULL }
            },
            rows: Vec::new(),
            weights: Vec::new(),
            at: 0,
            parts: memory::filled(0.0, terms.len()),
        }
    }

    /// The next row.
    pub fn next_hit(&mut self) -> Option<Hit> {
        let hit = self.next_in_order();
        if let (Some(range), Some(Hit { distance, .. })) = (self.range, hit)
            && !range.holds(distance)
        {
            self.phase = Phase::End;
            self.found.clear();
            return None;
        }
        hit
    }

    fn next_in_order(&mut self) -> Option<Hit> {
        loop {
            match self.phase {
                Phase::Scored(sign) => {
                    if let Some(scored) = self.found.pop() {
                        self.last = Some(scored);
                        return Some(Hit { row: scored.row, distance: Some(-f64::from(scored.score)) });
                    }
                    if !self.all_found && self.terms > 0 && (sign == Sign::Plus || self.has_minus()) {
                        self.pass(sign);
                        continue;
                    }
                    self.enter(match sign {
                        Sign::Plus => Phase::Zero { waiting: 0, next: FIRST_ROW },
                        Sign::Minus => self.nulls(),
                    });
                }
                Phase::Zero { .. } => {
                    if let Some(row) = self.next_at_zero() {
                        return Some(Hit { row, distance: (!self.is_null).then_some(-0.0) });
                    }
                    (self.last, self.all_found) = (None, false);
                    self.enter(Phase::Scored(Sign::Minus));
                }
                Phase::Nulls { ref mut waiting, ref mut next } => {
                    while let Some(row) = self.waiting.get(*waiting) {
                        *waiting += 1;
                        if row.is_null {
                            return Some(Hit { row: row.row, distance: None });
                        }
                    }
                    match next_row(&self.tree, next, &mut self.rows, &mut self.weights, &mut self.at) {
                        Some(row) if is_waiting(&self.waiting, row) => {}
                        Some(row) => return Some(Hit { row, distance: None }),
                        None => self.phase = Phase::End,
                    }
                }
                Phase::End => return None,
            }
        }
    }

    fn nulls(&self) -> Phase {
        if self.wanted.nulls { Phase::Nulls { waiting: 0, next: FIRST_NULL } } else { Phase::End }
    }

    fn enter(&mut self, phase: Phase) {
        self.reset();
        self.rows.clear();
        self.weights.clear();
        (self.phase, self.at) = (phase, 0);
    }

    fn reset(&mut self) {
        self.cursors.iter_mut().chain(&mut self.minus).for_each(Cursor::reset);
    }

    /// Whether a score can be below zero.
    fn has_minus(&self) -> bool {
        !self.minus.is_empty() || self.waiting.iter().any(|waiting| waiting.score.is_some_and(is_minus))
    }

    /// The score of a row of the tree; rows are asked for in order.
    fn score(&mut self, row: u64) -> Option<f32> {
        self.parts.fill(0.0);
        let mut found = false;
        for cursor in self.cursors.iter_mut().chain(&mut self.minus) {
            if let Some(part) = cursor.look_up(&self.tree, row) {
                (self.parts[cursor.term], found) = (part, true);
            }
        }
        found.then(|| sum(&self.parts))
    }

    /// The next of the rows at distance zero.
    fn next_at_zero(&mut self) -> Option<u64> {
        let Phase::Zero { mut waiting, mut next } = self.phase else { return None };
        let row = loop {
            if let Some(row) = self.waiting.get(waiting) {
                waiting += 1;
                if !row.is_null && row.score.is_none_or(|score| score == 0.0) {
                    break Some(row.row);
                }
                continue;
            }
            let Some(row) = next_row(&self.tree, &mut next, &mut self.rows, &mut self.weights, &mut self.at) else {
                break None;
            };
            if !is_waiting(&self.waiting, row) && self.score(row).is_none_or(|score| score == 0.0) {
                break Some(row);
            }
        };
        self.phase = Phase::Zero { waiting, next };
        row
    }

    /// Looks for the next best rows.
    fn pass(&mut self, sign: Sign) {
        // SAFETY: a plain setting of the backend, in kB.
        let most = (unsafe { pg_sys::work_mem } as usize * 1024 / size_of::<Scored>()).max(1024);
        let goal = self.goal.clamp(1, most);
        self.goal = goal.saturating_mul(MORE);
        let mut best = Best { goal, heap: BinaryHeap::new(), before: self.last };
        self.reset();
        match sign {
            Sign::Plus => self.look(&mut best),
            Sign::Minus => self.look_at_all(&mut best),
        }
        for waiting in &self.waiting {
            if let Some(score) = waiting.score.filter(|&score| belongs(score, sign)) {
                best.offer(Scored { score, row: waiting.row });
            }
        }
        self.all_found = best.heap.len() < goal;
        self.found = best.heap.into_vec().into_iter().map(|Reverse(scored)| scored).collect();
        self.found.sort_unstable();
    }

    /// Offers the rows of the tree with a score below zero.
    fn look_at_all(&mut self, best: &mut Best) {
        let (mut next, mut at, mut rows, mut weights) = (FIRST_ROW, 0, Vec::new(), Vec::new());
        while let Some(row) = next_row(&self.tree, &mut next, &mut rows, &mut weights, &mut at) {
            if let Some(score) = self.score(row).filter(|&score| is_minus(score))
                && !is_waiting(&self.waiting, row)
            {
                best.offer(Scored { score, row });
            }
        }
    }

    /// Offers the rows of the tree to `best`, but those that cannot be among them.
    fn look(&mut self, best: &mut Best) {
        let n = self.cursors.len();
        // Sums in another order than the operator's may be a little less.
        let slack = if n > 1 { 1.0 + (n + 2) as f32 * f32::EPSILON } else { 1.0 };
        let (mut start, mut passive, mut rest) = (0u64, 0, 0.0f32);
        let mut active: Vec<(f32, usize)> = memory::with_room(n);
        let mut beside: Vec<Beside> = memory::with_room(n);
        for round in 1u32.. {
            if round.is_multiple_of(256) {
                crate::pg::memory::check_for_interrupts();
            }
            let least = best.least();
            // Lists that only matter beside others.
            while passive < n && (rest + self.cursors[passive].most) * slack <= least {
                rest += self.cursors[passive].most;
                passive += 1;
            }
            if passive == n {
                return;
            }
            let mut end = u64::MAX;
            active.clear();
            for (i, cursor) in self.cursors.iter_mut().enumerate().skip(passive) {
                cursor.advance(start);
                let (most, to) = cursor.window(start);
                end = end.min(to);
                if cursor.segments[cursor.at].first <= start {
                    active.push((most, i));
                }
            }
            if !active.is_empty() {
                beside.clear();
                let mut sum = 0.0;
                for (i, cursor) in self.cursors[..passive].iter_mut().enumerate() {
                    cursor.advance(start);
                    let most = cursor.most_before(end);
                    beside.push(Beside { before: sum, most, cursor: i });
                    sum += most;
                }
                let total: f32 = active.iter().map(|a| a.0).sum::<f32>() + sum;
                if total * slack > least {
                    // In this window more of them may only matter beside others.
                    active.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
                    let mut only_beside = 0;
                    while only_beside < active.len() && (sum + active[only_beside].0) * slack <= least {
                        let (most, cursor) = active[only_beside];
                        beside.push(Beside { before: sum, most, cursor });
                        sum += most;
                        only_beside += 1;
                    }
                    self.window(best, (start, end), &active[only_beside..], &beside, slack);
                }
            }
            if end == u64::MAX {
                return;
            }
            start = end;
        }
    }

    /// Offers the rows of a window that are in one of the lists `drivers`.
    fn window(
        &mut self,
        best: &mut Best,
        (start, end): (u64, u64),
        drivers: &[(f32, usize)],
        beside: &[Beside],
        slack: f32,
    ) {
        let (tree, cursors, minus, parts) = (&self.tree, &mut self.cursors, &mut self.minus, &mut self.parts);
        for &(_, i) in drivers {
            cursors[i].load(tree);
            cursors[i].find(start);
        }
        let mut least = best.least();
        'rows: loop {
            let mut row = u64::MAX;
            for &(_, i) in drivers {
                row = row.min(cursors[i].rows.get(cursors[i].pos).copied().unwrap_or(u64::MAX));
            }
            if row >= end {
                return;
            }
            parts.fill(0.0);
            let mut sum = 0.0;
            for &(_, i) in drivers {
                let cursor = &mut cursors[i];
                if cursor.rows.get(cursor.pos) == Some(&row) {
                    let part = cursor.scores[cursor.pos];
                    sum += part;
                    parts[cursor.term] = part;
                    cursor.pos += 1;
                }
            }
            // Those first that can add most.
            for &Beside { before, most, cursor } in beside.iter().rev() {
                if (sum + before + most) * slack <= least {
                    continue 'rows;
                }
                let cursor = &mut cursors[cursor];
                if let Some(part) = cursor.look_up(tree, row) {
                    sum += part;
                    parts[cursor.term] = part;
                }
            }
            if sum * slack <= least {
                continue;
            }
            for cursor in minus.iter_mut() {
                if let Some(part) = cursor.look_up(tree, row) {
                    parts[cursor.term] = part;
                }
            }
            let scored = Scored { score: self::sum(parts), row };
            // What products below what f32 can hold become zero is at distance zero.
            if belongs(scored.score, Sign::Plus) && best.wants(scored) && !is_waiting(&self.waiting, row) {
                best.offer(scored);
                least = best.least();
            }
        }
    }
}

/// A list that is only looked up, for rows of others: what it and those before it can add to a score.
struct Beside {
    before: f32,
    most: f32,
    cursor: usize,
}

const FIRST_ROW: Option<Place> = Some(Place { key: ROWS, row: 0 });
const FIRST_NULL: Option<Place> = Some(Place { key: NULLS, row: 0 });

/// As the operator adds them up: in f32, in the order of the terms. What is not a number comes last.
fn sum(parts: &[f32]) -> f32 {
    let sum = parts.iter().fold(0.0, |sum, part| sum + part);
    if sum.is_nan() { -f32::NAN.abs() } else { sum }
}

fn is_minus(score: f32) -> bool {
    score < 0.0 || score.is_nan()
}

fn belongs(score: f32, sign: Sign) -> bool {
    match sign {
        Sign::Plus => score > 0.0,
        Sign::Minus => is_minus(score),
    }
}

/// The score of a pending row; None if it has none of the terms.
fn judge(terms: &[(Key, f32)], row: &PendingRow<'_>) -> Option<f32> {
    let (mut score, mut from) = (None, 0);
    for &(key, query) in terms {
        // The list of the element with the other sign is right before or behind.
        match row.find(key & !1, &mut from) {
            Some((found, weight)) if found == key => score = Some(score.unwrap_or(0.0) + query * weight),
            Some((found, weight)) if found == opposite(key) => score = Some(score.unwrap_or(0.0) - query * weight),
            _ => {}
        }
    }
    score.map(|score| sum(&[score]))
}

/// Whether a row is among the pending ones.
fn is_waiting(waiting: &[Waiting], row: u64) -> bool {
    !waiting.is_empty() && waiting.binary_search_by_key(&row, |waiting| waiting.row).is_ok()
}

/// The next row of a list that is read from `next` on.
fn next_row(
    tree: &Tree,
    next: &mut Option<Place>,
    rows: &mut Vec<u64>,
    weights: &mut Vec<f32>,
    at: &mut usize,
) -> Option<u64> {
    while *at >= rows.len() {
        rows.clear();
        weights.clear();
        *at = 0;
        *next = tree.part((*next)?, rows, weights);
    }
    *at += 1;
    Some(rows[*at - 1])
}

/// The best rows so far, of those that come after one.
struct Best {
    goal: usize,
    heap: BinaryHeap<Reverse<Scored>>,
    before: Option<Scored>,
}

impl Best {
    /// A row counts if its score is above this: those that come later have higher numbers.
    fn least(&self) -> f32 {
        match self.heap.peek() {
            Some(Reverse(worst)) if self.heap.len() == self.goal => worst.score,
            // Zero is no score.
            _ => 0.0,
        }
    }

    fn wants(&self, scored: Scored) -> bool {
        let behind = self.before.is_none_or(|before| scored < before);
        behind && (self.heap.len() < self.goal || self.heap.peek().is_some_and(|Reverse(worst)| scored > *worst))
    }

    fn offer(&mut self, scored: Scored) {
        if !self.wants(scored) {
            return;
        }
        if self.heap.len() == self.goal {
            self.heap.pop();
        }
        memory::room(&mut self.heap, 1);
        self.heap.push(Reverse(scored));
    }
}
