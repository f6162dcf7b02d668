//! The stopping rule, measured again as the index grows: rows of the table search the index itself.
//!
//! Each query searches far more lists than the rule would. What it finds is taken for the true neighbours, and the search
//! is then simulated on the distances that it saw, under a range of limits, as at build (`calibrate.rs`).

use super::calibrate::{self, Needed, Simulated};
use super::compat;
use super::metric::Frame;
use super::outliers;
use super::page::{self, GOALS, Kind, Layout, Limits, Meta, NO_LIMIT, Owner, Posting, StoppingRule, Tid};
use super::rows::{Row, Rows};
use super::sample::Random;
use super::search::{Distance, farthest_of, note};
use super::storage::{Buffer, Stale, blocks};
use super::tree::{self, CodeReader, Cursor, List, Query, Scores};
use ann::memory;
use ann::quantize::{self, BLOCK, ListTerm, Space};
use pgrx::prelude::*;
use std::collections::BinaryHeap;
use std::ops::Range;

/// Lists read for each that the rule reads on average at the highest recall, and besides. Few would find less than the true
/// neighbours; a rule measured by these would read fewer lists, and be measured by fewer the next time.
const DEEPER: f32 = 4.0;
const DEEPER_BY: usize = 64;
/// Distances that are kept exact in a search, for each row of the goal: more, because the simulation leaves lists out.
const KEPT: usize = 3;
/// Larger goals are measured by fewer queries, in this proportion, but not by fewer than so many.
const LEAST_QUERIES: usize = 4;
/// While rows wait to be inserted, nothing is measured for goals beyond this.
const MOST_IN_HASTE: usize = 1024;
/// How much the lists read grow with the goal where that is not measured: this power of it.
const LISTS_EXPONENT: f32 = 0.6;
/// Share of the allowed misses that is left to what is not simulated. Searches of the whole index, without a sample's chance,
/// hit more nearly what is simulated: a little less than a build leaves is enough.
const OTHER_LOSS: f32 = calibrate::OTHER_LOSS * 0.75;
/// Steps that the largest coordinate of a residual is long.
const LEVELS: f32 = 127.0;
/// Places tried for each query.
const TRIES: usize = 64;

/// A query and what it saw.
#[derive(Default)]
struct Seen {
    /// Lists, nearest first, with the range of their rows' distances.
    lists: Vec<(ListTerm, f32, Range<usize>)>,
    distances: Vec<f32>,
    /// Numbers, in that order, of the lists of the true neighbours.
    neighbours: Vec<u32>,
    /// The distance that the goal is within.
    within: f32,
    /// Squared norm of the query, and mean squared residual of its list.
    norm2: f32,
    spread: f32,
}

/// Lists that each query reads for the smallest goal.
pub fn depth(meta: &Meta) -> usize {
    depth_for(meta, 0)
}

/// Lists that each query reads for a goal of [`GOALS`]: more than the rule reads, and enough to hold the rows that are kept.
fn depth_for(meta: &Meta, goal: usize) -> usize {
    let read = meta.rule.of_goal[goal].probes.iter().copied().fold(0.0, f32::max);
    let hold = KEPT * GOALS[goal] / meta.target.max(1) as usize;
    (read * DEEPER) as usize + 2 * hold + DEEPER_BY
}

/// How a rule is measured.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Queries for the smallest goal.
    pub queries: usize,
    /// Others wait for it.
    pub in_haste: bool,
}

/// Measures the rule with rows as queries, and the mean of the squared residuals. None when there are too few rows, or when
/// the structure changes meanwhile.
pub fn measure(
    index: pg_sys::Relation,
    meta: &Meta,
    frame: &Frame,
    rows: &mut Rows,
    effort: Effort,
) -> Option<(StoppingRule, f32)> {
    if meta.height == 0 || meta.lists < 2 {
        return None;
    }
    let mut random = Random::new(u64::from(meta.epoch) << 32 | u64::from(meta.last_list));
    let seen = see(index, meta, frame, rows, 0, effort.queries, &mut random)?;
    let mean = |values: fn(&Seen) -> f32| outliers::mean_square(&seen.iter().map(values).collect::<Vec<f32>>(), 0.0);
    let (norm2, spread) = (mean(|s| s.norm2), mean(|s| s.spread));
    let angles = (frame.operator.space(), norm2);
    let mut rule = StoppingRule::new([rule_of(&seen, angles, 0); GOALS.len()], norm2);
    for goal in 1..GOALS.len() {
        if !calibrate::is_usual(GOALS[goal], meta.likely_rows()) {
            rule.of_goal[goal] = Limits::none(meta.lists as f32);
            continue;
        }
        let queries = (effort.queries * calibrate::QUERIES[goal] / calibrate::QUERIES[0]).max(LEAST_QUERIES);
        let measured = match effort.in_haste && GOALS[goal] > MOST_IN_HASTE {
            true => None,
            false => see(index, meta, frame, rows, goal, queries, &mut random).map(|seen| rule_of(&seen, angles, goal)),
        };
        rule.of_goal[goal] = measured.unwrap_or_else(|| {
            let mut limits = rule.of_goal[goal - 1];
            let more = (GOALS[goal] as f32 / GOALS[goal - 1] as f32).powf(LISTS_EXPONENT);
            limits.probes.iter_mut().for_each(|probes| *probes = (*probes * more).min(meta.lists as f32));
            limits
        });
    }
    Some((rule, spread))
}

/// Measures the rule by some vectors as queries, given as a user gives them. None when there are too few rows.
pub fn measure_by(
    index: pg_sys::Relation,
    meta: &Meta,
    frame: &Frame,
    rows: &mut Rows,
    queries: &[f32],
) -> Result<Option<StoppingRule>, Stale> {
    if meta.height == 0 || meta.lists < 2 {
        return Ok(None);
    }
    let mut rule = meta.rule;
    for (goal, &rank) in GOALS.iter().enumerate() {
        if !calibrate::is_usual(rank, meta.likely_rows()) {
            continue;
        }
        let count = queries.len() / frame.dims;
        let some = || queries.chunks_exact(frame.dims).step_by(count.div_ceil(calibrate::QUERIES[goal]));
        let lists = meta.lists as usize;
        let mut depth = depth_for(meta, goal).min(lists);
        // Until what is found lies well within what is looked at: how far that is only the queries tell.
        let seen = loop {
            let seen = see_given(index, meta, frame, rows, goal, some(), depth)?;
            let deepest = seen.iter().flat_map(|s| &s.neighbours).max().map_or(0, |&n| n as usize + 1);
            if depth >= lists || !seen.is_empty() && 2 * deepest <= depth {
                break seen;
            }
            depth = (4 * depth).min(lists);
        };
        if seen.is_empty() {
            return Ok(None);
        }
        rule.of_goal[goal] = rule_of(&seen, (frame.operator.space(), meta.rule.norm2), goal);
    }
    Ok(Some(rule))
}

/// Lets vectors search for one of [`GOALS`].
fn see_given<'q>(
    index: pg_sys::Relation,
    meta: &Meta,
    frame: &Frame,
    rows: &mut Rows,
    goal: usize,
    queries: impl Iterator<Item = &'q [f32]>,
    depth: usize,
) -> Result<Vec<Seen>, Stale> {
    let (leaf, inner) = (Layout::new(meta.shape(), false), Layout::new(meta.shape(), true));
    let mut query = Query::new(frame.operator);
    let mut seen = Vec::new();
    for value in queries {
        query.vector.clear();
        query.vector.extend_from_slice(value);
        query.place(frame);
        let lists = tree::nearest_lists(index, meta, &inner, &query, depth, None)?;
        seen.extend(Seen::of(index, &leaf, (value, &query), rows, None, (&lists, meta.spread), GOALS[goal])?);
    }
    Ok(seen)
}

/// Moves a rule towards a new measurement by `weight`; what had no limit for want of rows takes it as it is.
pub fn blend(old: &mut StoppingRule, new: &StoppingRule, weight: f32) {
    for (old, new) in old.of_goal.iter_mut().zip(&new.of_goal) {
        let unknown = |limits: &Limits| limits.limit[0] >= NO_LIMIT;
        let weight = if unknown(old) || unknown(new) { 1.0 } else { weight };
        let blend = |old: &mut [f32], new: &[f32]| {
            old.iter_mut().zip(new).for_each(|(old, new)| *old += weight * (new - *old));
        };
        blend(&mut old.limit, &new.limit);
        blend(&mut old.probes, &new.probes);
    }
    old.norm2 = if old.norm2.is_finite() { old.norm2 + weight * (new.norm2 - old.norm2) } else { new.norm2 };
}

/// Lets rows search for one of [`GOALS`]. None as for [`measure`].
fn see(
    index: pg_sys::Relation,
    meta: &Meta,
    frame: &Frame,
    rows: &mut Rows,
    goal: usize,
    queries: usize,
    random: &mut Random,
) -> Option<Vec<Seen>> {
    let (leaf, inner) = (Layout::new(meta.shape(), false), Layout::new(meta.shape(), true));
    let (deep, goal) = (depth_for(meta, goal), GOALS[goal]);
    if leaf.bits.is_none() && !rows.can_read() {
        return None;
    }
    // Rows cost much more to look at than codes.
    let queries = if leaf.bits.is_some() { queries } else { queries.div_ceil(4) };
    let mut seen = Vec::with_capacity(queries);
    let mut norms: Vec<f32> = Vec::new();
    let mut query = Query::new(frame.operator);
    let (mut value, mut place, mut unreadable) = (Vec::new(), Vec::new(), 0);
    for _ in 0..queries * TRIES {
        compat::vacuum_delay();
        if seen.len() == queries {
            break;
        }
        let row = if rows.can_read() { random_row(index, &leaf, random) } else { None };
        let tid = match row.map(|tid| (tid, rows.read(tid, &mut value))) {
            Some((tid, Row::Read)) if value.len() == frame.dims => {
                query.vector.clone_from(&value);
                query.place(frame);
                tid
            }
            // What its code stands for will do.
            Some((_, Row::Hidden)) | None if leaf.bits.is_some() && (row.is_some() || !rows.can_read()) => {
                let Some(tid) = random_code(index, meta, (&leaf, &inner), random, &mut place).ok()? else {
                    continue;
                };
                query.place_at(frame, &place);
                tid
            }
            Some((_, Row::Hidden)) => {
                unreadable += 1;
                if unreadable > 4 * queries {
                    return None;
                }
                continue;
            }
            _ => continue,
        };
        // Outliers are no examples: what a search for one meets says nothing about others.
        norms.push(query.norm * query.norm);
        if *norms.last().unwrap() > outliers::limit(&mut norms.clone(), outliers::APART) {
            continue;
        }
        let lists = tree::nearest_lists(index, meta, &inner, &query, deep, None).ok()?;
        seen.extend(Seen::of(index, &leaf, (&value, &query), rows, Some(tid), (&lists, meta.spread), goal).ok()?);
    }
    (!seen.is_empty() && seen.len() * 2 >= queries).then_some(seen)
}

/// The limits that follow from what some queries saw.
fn rule_of(seen: &[Seen], (space, norm2): (Space, f32), goal: usize) -> Limits {
    let goal = GOALS[goal];
    let needed = seen.iter().flat_map(|s| {
        s.neighbours.iter().map(move |&n| {
            let (term, radius, _) = s.lists[n as usize];
            Needed::of(space, term, radius, norm2, s.within, n as usize)
        })
    });
    let mut needed: Vec<Needed> = memory::collected(needed);
    let limits = calibrate::limits(&mut needed);
    let mut sums = vec![(0, 0); limits.len()];
    for s in seen {
        let lists = s.lists.iter().zip(0..).map(|((term, radius, rows), list)| {
            let distances = &s.distances[rows.clone()];
            let nearest = calibrate::nearest(distances);
            Simulated { list, term: *term, radius: *radius, distances, nearest }
        });
        for (sum, (found, scanned)) in
            sums.iter_mut().zip(calibrate::simulate((space, norm2), lists, &s.neighbours, goal, &limits))
        {
            *sum = (sum.0 + found, sum.1 + scanned);
        }
    }
    calibrate::rule(&limits, &sums, seen.len() * calibrate::results_of(goal), seen.len(), OTHER_LOSS)
}

/// The row at a place of the index taken at random, if there is one: all rows are equally likely.
fn random_row(index: pg_sys::Relation, leaf: &Layout, random: &mut Random) -> Option<Tid> {
    let buffer = Buffer::read(index, random.below(blocks(index) as usize) as u32);
    let opaque = page::check(buffer.page(), Kind::Posting).ok().filter(|o| o.level == 0)?;
    let posting = Posting::open(buffer.page(), leaf, opaque.list).ok()?;
    let at = random.below(leaf.entries_per_page());
    let (b, slot) = (at / BLOCK, at % BLOCK);
    (b < posting.blocks() && posting.block(b).live() >> slot & 1 == 1).then(|| posting.block(b).tid(slot))
}

/// An entry taken at random from a list taken at random: its row, and in `place` what its code stands for. None where there
/// is none.
fn random_code(
    index: pg_sys::Relation,
    meta: &Meta,
    (leaf, inner): (&Layout, &Layout),
    random: &mut Random,
    place: &mut Vec<f32>,
) -> Result<Option<Tid>, Stale> {
    let (mut head, mut list) = (meta.root, meta.root_list);
    let mut centroid = (page::NO_BLOCK, 0);
    for level in (0..=meta.height).rev() {
        let layout = if level > 0 { inner } else { leaf };
        let (mut found, mut seen) = (None, 0);
        let mut cursor = Cursor::of(index, layout, head, list);
        while let Some(buffer) = cursor.next_page()? {
            let posting = cursor.posting(&buffer);
            for block in (0..posting.blocks()).map(|b| posting.block(b)) {
                for slot in (0..BLOCK).filter(|slot| block.live() >> slot & 1 == 1) {
                    seen += 1;
                    if random.below(seen) == 0 {
                        let child = (level > 0).then(|| block.child(slot));
                        found = block.cell(slot).map(|cell| (cell, block.tid(slot), child));
                    }
                }
            }
        }
        let Some((cell, tid, child)) = found else { return Ok(None) };
        if let Some(child) = child {
            (head, list, centroid) = (child.head, child.list, cell);
            continue;
        }
        place.clear();
        place.resize(leaf.padded, 0.0);
        if meta.height > 0 {
            CodeReader::new(index, inner).decode(centroid, Owner::child(list), place)?;
        }
        let around = place.clone();
        let read = CodeReader::new(index, leaf).of_row(cell, (head, list), tid, |codes, owner| {
            place.copy_from_slice(&around);
            codes.decode(cell, owner, place)
        })?;
        return Ok(read.filter(|code| code.error.is_finite()).map(|_| tid));
    }
    Ok(None)
}

impl Seen {
    /// Scans `lists`, of rows whose squared residuals are `spread` in the mean. None if there are fewer rows than the goal.
    fn of(
        index: pg_sys::Relation,
        leaf: &Layout,
        (value, query): (&[f32], &Query),
        rows: &mut Rows,
        itself: Option<Tid>,
        (lists, spread): (&[List], f32),
        goal: usize,
    ) -> Result<Option<Seen>, Stale> {
        let mut seen = Seen::default();
        // The best distances, the farthest on top.
        let kept = KEPT * goal;
        let mut best: BinaryHeap<Distance> = BinaryHeap::with_capacity(kept + 1);
        let mut scores = Scores::new();
        let mut codes = CodeReader::new(index, leaf);
        let mut candidates: Vec<(f32, (u32, u16), Tid)> = Vec::new();
        let mut row = Vec::new();
        // By the inner product a row far longer than all others is the nearest to half of all queries, wherever it is.
        let most = if query.space == Space::InnerProduct && spread > 0.0 {
            (outliers::FAR * spread).sqrt()
        } else {
            f32::INFINITY
        };
        for list in lists {
            let from = seen.distances.len();
            let mut cursor = Cursor::new(index, leaf, list);
            while let Some(buffer) = cursor.next_page()? {
                let posting = cursor.posting(&buffer);
                let limit = farthest_of(&best, kept);
                for block in (0..posting.blocks()).map(|b| posting.block(b)) {
                    let table = &query.table;
                    let mut near = tree::scan_block(
                        index,
                        leaf,
                        list.id,
                        list.term,
                        &block,
                        block.live(),
                        table,
                        limit,
                        &mut scores,
                    )?;
                    while near != 0 {
                        let slot = near.trailing_zeros() as usize;
                        near &= near - 1;
                        if Some(block.tid(slot)) != itself
                            && let Some(cell) = block.cell(slot)
                        {
                            memory::push(&mut candidates, (scores.lower[slot], cell, block.tid(slot)));
                        }
                    }
                }
                drop(buffer);
                for (lower, cell, tid) in candidates.drain(..) {
                    if best.len() >= kept && lower >= farthest_of(&best, kept) {
                        continue;
                    }
                    let distance = if leaf.bits.is_some() {
                        let read = codes.of_row(cell, (list.head, list.id), tid, |codes, owner| {
                            codes.dot(cell, owner, &query.vector)
                        })?;
                        let Some(code) = read else { continue };
                        // Where little is known, or rows of other lists are nearer than any of a list could be, nothing is to be
                        // learnt about lists.
                        if !code.factors.error.is_finite() || code.factors.scale * LEVELS > most {
                            continue;
                        }
                        quantize::code_distance(query.space, list.term, &code.factors, code.dot)
                    } else if rows.read(tid, &mut row) == Row::Read && row.len() == value.len() {
                        query.operator.index_distance(&row, value)
                    } else {
                        f32::NAN
                    };
                    if !distance.is_finite() {
                        continue;
                    }
                    memory::push(&mut seen.distances, distance);
                    note(&mut best, kept, distance);
                }
                codes.close();
            }
            seen.lists.push((list.term, list.radius, from..seen.distances.len()));
        }
        let numbered =
            seen.lists.iter().zip(0..).flat_map(|((_, _, rows), number)| rows.clone().map(move |i| (i, number)));
        let mut nearest: Vec<(f32, u32)> = memory::collected(numbered.map(|(i, number)| (seen.distances[i], number)));
        if nearest.len() < goal {
            return Ok(None);
        }
        nearest.select_nth_unstable_by(goal - 1, |x, y| x.0.total_cmp(&y.0));
        let within = nearest[goal - 1].0;
        nearest[..goal].sort_unstable_by(|x, y| x.0.total_cmp(&y.0));
        seen.neighbours = nearest[..calibrate::results_of(goal)].iter().map(|b| b.1).collect();
        seen.within = within;
        seen.norm2 = query.norm * query.norm;
        // Most likely its own list.
        seen.spread = lists[0].radius * lists[0].radius;
        Ok(Some(seen))
    }
}
