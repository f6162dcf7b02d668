//! The stopping rule, measured again as the index grows: rows of the table search the index itself.
//!
//! Each query searches far more lists than the rule would. What it finds is taken for the true neighbours, and the search
//! is then simulated on the distances that it saw, under a range of limits, as at build (`calibrate.rs`).
//!
//! VACUUM does it at one go ([`renew`]), INSERTs a few queries at a time ([`go_on`]), so that none of them takes long: what the
//! queries so far found is on the meta page.

use crate::calibrate::{self, Needed, Simulated};
use crate::frame::Frame;
use crate::nearest::{Distance, farthest_of, note};
use crate::outliers;
use crate::page::{
    self, GOALS, Kind, Layout, Limits, META_BLOCK, Measuring, Meta, NO_LIMIT, Owner, Posting, StoppingRule, Tid,
};
use crate::pages::{Guard, Pages, Record};
use crate::read::info::Info;
use crate::read::tree::{self, CodeReader, Cursor, List, Query, Scores};
use crate::rows::{Row, Rows};
use crate::sample::Random;
use crate::stale::{Checked, Stale};
use ann::memory;
use ann::quantize::{self, BLOCK, ListTerm, Space};
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
/// INSERTs begin to measure the rule when there are this many times the lists that there were.
const AGAIN_AT: f64 = 1.1;
/// Lists that a single INSERT looks into for that, or one query if that looks into more; but a goal whose queries look into more
/// than so many, or a larger one than this, is left to VACUUM.
const SLICE: usize = 512;
/// Of lists without codes, whose rows are looked at, fewer by so much.
const ROWS_COST: usize = 16;
const DEEPEST: usize = 8 * SLICE;
const LARGEST_GOAL: usize = 1024;
/// Lists that they look into for the smallest goal, all together, about.
const LISTS_IN_ALL: usize = 80_000;
/// Weight of what they measure: with so few queries each is uncertain by itself.
const WEIGHT: f32 = 0.4;
/// Up to this many lists the rule changes too much from one measurement to the next for the older to mean anything.
const ANEW: u32 = 64;
/// Times that VACUUM measures the rule while the structure changes beside, before that is left to the next time.
const MEASURED_AGAIN: usize = 4;
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

/// Lists that each query reads for a goal of [`GOALS`]: more than the rule reads, and enough to hold the rows that are kept.
fn depth_for(meta: &Meta, goal: usize) -> usize {
    let read = meta.rule.of_goal[goal].probes.iter().copied().fold(0.0, f32::max);
    let hold = KEPT * GOALS[goal] / meta.target.max(1) as usize;
    // No more than there are, whatever a page says.
    (read.min(meta.lists as f32) * DEEPER) as usize + 2 * hold + DEEPER_BY
}

/// Changes what the meta page says of the rule and of its measurement.
fn change_meta<P: Pages>(index: P, change: impl FnOnce(&mut Meta, &mut Measuring)) {
    let buffer = index.write(META_BLOCK);
    let mut record = index.begin();
    let page = record.edit(&buffer, false);
    let (mut meta, mut measuring) = (Meta::read(page).or_corrupted(index, META_BLOCK), Measuring::read(page));
    change(&mut meta, &mut measuring);
    meta.write(page);
    measuring.write(page);
    record.commit();
}

/// Measures the rule by so many rows of the table, and takes it over. Needs no lock, as it is a search like others; when the
/// structure changes meanwhile it begins anew, some times.
pub fn renew<P: Pages>(index: P, rows: &mut impl Rows, queries: usize) {
    for _ in 0..MEASURED_AGAIN {
        let info = Info::of(index);
        let measured = measure(index, &info.meta, &info.frame(index), rows, queries);
        let now = Info::of(index).meta;
        if now.mean_epoch != info.meta.mean_epoch || measured.is_none() && now.epoch != info.meta.epoch {
            continue;
        }
        change_meta(index, |meta, measuring| {
            *measuring = Measuring::NONE;
            (meta.calibrated, meta.calibrated_by) = (info.meta.lists, queries as u32);
            let Some((rule, spread)) = measured else { return };
            blend(&mut meta.rule, &rule, 1.0);
            meta.spread = spread;
        });
        return;
    }
}

/// Brings the measurement of the rule forward by as much as one INSERT may, and begins one when the index has grown. Nobody else
/// who inserts does so now.
pub fn go_on<P: Pages>(index: P, rows: &mut impl Rows) {
    let (info, found) = {
        let buffer = index.read(META_BLOCK);
        let meta = Meta::read(buffer.page()).or_corrupted(index, META_BLOCK);
        (Info { meta }, Measuring::read(buffer.page()))
    };
    let meta = &info.meta;
    if meta.height == 0 || meta.lists < 2 {
        return;
    }
    let mut measuring = found;
    if found.lists == 0 || found.mean_epoch != meta.mean_epoch {
        if f64::from(meta.lists) < f64::from(meta.calibrated) * AGAIN_AT {
            return;
        }
        measuring = Measuring { lists: meta.lists, mean_epoch: meta.mean_epoch, ..Measuring::NONE };
        measuring.aim_at(meta, 0);
    }
    let frame = info.frame(index);
    let mut random = Random::new(u64::from(meta.epoch) << 32 | u64::from(meta.last_list));
    let (mut left, mut begun) = (if meta.bits > 0 { SLICE } else { SLICE / ROWS_COST }, false);
    let mut done: Vec<Done> = Vec::new();
    let began = measuring.lists;
    while measuring.lists != 0 {
        let goal = measuring.goal as usize;
        let deep = depth_for(meta, goal).min(meta.lists as usize);
        let queries = match (left / deep, begun) {
            (0, false) => 1,
            (queries, _) => queries,
        };
        let queries = queries.min((measuring.queries - measuring.asked) as usize);
        if queries > 0 {
            let seen = see(index, meta, &frame, rows, goal, queries, meta.rule.norm2, &mut random).unwrap_or_default();
            measuring.add(meta, &frame, goal, queries, &seen);
            (left, begun) = (left.saturating_sub(queries * deep), true);
        }
        if measuring.asked < measuring.queries {
            break;
        }
        done.push(Done {
            goal,
            queries: measuring.queries,
            limits: measuring.limits(meta, goal),
            means: measuring.means().filter(|_| goal == 0),
        });
        if goal + 1 == GOALS.len() {
            measuring.lists = 0;
        } else {
            measuring.aim_at(meta, goal + 1);
        }
    }
    change_meta(index, |meta, on_page| {
        // Unless VACUUM has measured it meanwhile.
        let measured = (meta.calibrated, meta.calibrated_by) != (info.meta.calibrated, info.meta.calibrated_by);
        if measured || (on_page.lists, on_page.goal, on_page.asked) != (found.lists, found.goal, found.asked) {
            return;
        }
        *on_page = measuring;
        let weight = if meta.calibrated <= ANEW { 1.0 } else { WEIGHT };
        for Done { goal, queries, limits, means } in done {
            if let Some((norm2, spread)) = means {
                let old = meta.rule.norm2;
                meta.rule.norm2 = if old.is_finite() { old + weight * (norm2 - old) } else { norm2 };
                meta.spread = if meta.spread.is_nan() { spread } else { meta.spread + weight * (spread - meta.spread) };
            }
            match limits {
                Some(limits) => blend_limits(&mut meta.rule.of_goal[goal], &limits, weight),
                // Not measured (large goals are left to VACUUM): no less than for fewer rows.
                None if goal > 0 => {
                    let least = of_smaller(&meta.rule, goal, meta.lists);
                    let limits = &mut meta.rule.of_goal[goal];
                    if is_unknown(limits) {
                        *limits = least;
                    }
                    limits.limit = std::array::from_fn(|i| limits.limit[i].max(least.limit[i]));
                    limits.probes = std::array::from_fn(|i| limits.probes[i].max(least.probes[i]));
                }
                None => {}
            }
            if goal == 0 {
                meta.calibrated_by = queries;
            }
            if goal + 1 == GOALS.len() {
                meta.calibrated = began;
            }
        }
    });
}

/// What was measured for one of [`GOALS`].
struct Done {
    goal: usize,
    queries: u32,
    limits: Option<Limits>,
    means: Option<(f32, f32)>,
}

impl Measuring {
    /// Turns to one of [`GOALS`].
    fn aim_at(&mut self, meta: &Meta, goal: usize) {
        let deep = |goal| depth_for(meta, goal).min(meta.lists as usize);
        let all = (meta.lists as usize / 4).clamp(16, 128).min((LISTS_IN_ALL / deep(0)).max(24));
        let left_out = goal > 0
            && (GOALS[goal] > LARGEST_GOAL || !calibrate::is_usual(GOALS[goal], meta.likely_rows()))
            || deep(goal) > if meta.bits > 0 { DEEPEST } else { DEEPEST / ROWS_COST };
        let queries = if left_out { 0 } else { queries_for(meta, goal, all) as u32 };
        *self =
            Measuring { lists: self.lists, mean_epoch: self.mean_epoch, goal: goal as u32, queries, ..Measuring::NONE };
    }

    /// Adds what some of `queries` saw.
    fn add(&mut self, meta: &Meta, frame: &Frame, goal: usize, queries: usize, seen: &[Seen]) {
        self.asked += queries as u32;
        if seen.is_empty() {
            return;
        }
        // Outliers by what is known; there are too few here to tell.
        let is_usual = |value: f32, mean: f32| value < f32::INFINITY && !(mean > 0.0 && value > outliers::FAR * mean);
        for s in seen.iter().filter(|s| is_usual(s.norm2, meta.rule.norm2) && is_usual(s.spread, meta.spread)) {
            (self.norm2, self.spread, self.usual) = (self.norm2 + s.norm2, self.spread + s.spread, self.usual + 1);
        }
        let norm2 = match self.means() {
            Some((norm2, _)) if !meta.rule.norm2.is_finite() => norm2,
            _ => meta.rule.norm2,
        };
        let angles = (frame.operator.space(), norm2);
        if self.seen == 0 {
            let mut limits = calibrate::limits(&mut needed_by(seen, angles));
            limits.extend(meta.rule.of_goal[goal].limit);
            limits.sort_unstable_by(f32::total_cmp);
            for (tried, limit) in self.tried.iter_mut().zip(limits) {
                tried.limit = limit;
            }
        }
        let limits = self.tried.map(|tried| tried.limit);
        for (tried, (found, scanned)) in self.tried.iter_mut().zip(outcomes(seen, angles, goal, &limits)) {
            tried.found = tried.found.saturating_add(found as u32);
            tried.scanned = tried.scanned.saturating_add(scanned as u32);
        }
        self.seen += seen.len() as u32;
    }

    /// What has been measured; None if too few queries saw enough.
    fn limits(&self, meta: &Meta, goal: usize) -> Option<Limits> {
        if goal > 0 && !calibrate::is_usual(GOALS[goal], meta.likely_rows()) {
            return Some(Limits::none(meta.lists as f32));
        }
        if self.seen == 0 || self.seen * 2 < self.queries {
            return None;
        }
        let limits = self.tried.map(|tried| tried.limit);
        let sums = self.tried.map(|tried| (tried.found as usize, tried.scanned as usize));
        let seen = self.seen as usize;
        Some(calibrate::rule(&limits, &sums, seen * calibrate::results_of(GOALS[goal]), seen, OTHER_LOSS))
    }

    /// The mean squared norm, and the mean squared residual.
    fn means(&self) -> Option<(f32, f32)> {
        (self.usual > 0).then(|| (self.norm2 / self.usual as f32, self.spread / self.usual as f32))
    }
}

/// Queries for one of [`GOALS`] where there are so many for the smallest.
fn queries_for(meta: &Meta, goal: usize, queries: usize) -> usize {
    let queries = match goal {
        0 => queries,
        _ => (queries * calibrate::QUERIES[goal] / calibrate::QUERIES[0]).max(LEAST_QUERIES),
    };
    // Rows cost much more to look at than codes.
    if meta.bits > 0 { queries } else { queries.div_ceil(4) }
}

/// Measures the rule with rows as queries, so many for the smallest goal, and the mean of the squared residuals. None when there
/// are too few rows, or when the structure changes meanwhile.
pub fn measure<P: Pages>(
    index: P,
    meta: &Meta,
    frame: &Frame,
    rows: &mut impl Rows,
    queries: usize,
) -> Option<(StoppingRule, f32)> {
    if meta.height == 0 || meta.lists < 2 {
        return None;
    }
    let mut random = Random::new(u64::from(meta.epoch) << 32 | u64::from(meta.last_list));
    let mut see_enough = |goal: usize| {
        let queries = queries_for(meta, goal, queries);
        let seen = see(index, meta, frame, rows, goal, queries, f32::INFINITY, &mut random)?;
        (!seen.is_empty() && seen.len() * 2 >= queries).then_some(seen)
    };
    let seen = see_enough(0)?;
    let mean = |values: fn(&Seen) -> f32| outliers::mean_square(&seen.iter().map(values).collect::<Vec<f32>>(), 0.0);
    let (norm2, spread) = (mean(|s| s.norm2), mean(|s| s.spread));
    let angles = (frame.operator.space(), norm2);
    let mut rule = StoppingRule::new([rule_of(&seen, angles, 0); GOALS.len()], norm2);
    for (goal, &rank) in GOALS.iter().enumerate().skip(1) {
        rule.of_goal[goal] = match calibrate::is_usual(rank, meta.likely_rows()) {
            false => Limits::none(meta.lists as f32),
            true => match see_enough(goal) {
                Some(seen) => rule_of(&seen, angles, goal),
                None => of_smaller(&rule, goal, meta.lists),
            },
        };
    }
    Some((rule, spread))
}

/// What the limits for a goal may be about, by those for the next smaller one.
fn of_smaller(rule: &StoppingRule, goal: usize, lists: u32) -> Limits {
    let mut limits = rule.of_goal[goal - 1];
    let more = (GOALS[goal] as f32 / GOALS[goal - 1] as f32).powf(LISTS_EXPONENT);
    limits.probes.iter_mut().for_each(|probes| *probes = (*probes * more).min(lists as f32));
    limits
}

/// Measures the rule by some vectors as queries, given as a user gives them. None when there are too few rows.
pub fn measure_by<P: Pages>(
    index: P,
    meta: &Meta,
    frame: &Frame,
    rows: &mut impl Rows,
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
        if seen.is_empty() && goal == 0 {
            return Ok(None);
        }
        if seen.is_empty() {
            continue; // fewer rows than lists let expect
        }
        rule.of_goal[goal] = rule_of(&seen, (frame.operator.space(), meta.rule.norm2), goal);
    }
    Ok(Some(rule))
}

/// Lets vectors search for one of [`GOALS`].
fn see_given<'q, P: Pages>(
    index: P,
    meta: &Meta,
    frame: &Frame,
    rows: &mut impl Rows,
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

/// Whether there was no limit for want of rows.
fn is_unknown(limits: &Limits) -> bool {
    limits.limit[0] >= NO_LIMIT
}

/// Moves a rule towards a new measurement by `weight`; what had no limit for want of rows takes it as it is.
pub fn blend(old: &mut StoppingRule, new: &StoppingRule, weight: f32) {
    for (old, new) in old.of_goal.iter_mut().zip(&new.of_goal) {
        blend_limits(old, new, weight);
    }
    old.norm2 = if old.norm2.is_finite() { old.norm2 + weight * (new.norm2 - old.norm2) } else { new.norm2 };
}

fn blend_limits(old: &mut Limits, new: &Limits, weight: f32) {
    if is_unknown(old) || is_unknown(new) {
        *old = *new;
        return;
    }
    let blend = |old: &mut [f32], new: &[f32]| {
        old.iter_mut().zip(new).for_each(|(old, new)| *old += weight * (new - *old));
    };
    blend(&mut old.limit, &new.limit);
    blend(&mut old.probes, &new.probes);
}

/// Lets rows search for one of [`GOALS`]; `known`: the mean of their squared norms, if it is known. None where rows cannot be
/// read, or when the structure changes meanwhile.
#[allow(clippy::too_many_arguments, reason = "one place that brings them together")]
fn see<P: Pages>(
    index: P,
    meta: &Meta,
    frame: &Frame,
    rows: &mut impl Rows,
    goal: usize,
    queries: usize,
    known: f32,
    random: &mut Random,
) -> Option<Vec<Seen>> {
    let (leaf, inner) = (Layout::new(meta.shape(), false), Layout::new(meta.shape(), true));
    let (deep, goal) = (depth_for(meta, goal), GOALS[goal]);
    if meta.bits == 0 && !rows.can_read() {
        return None;
    }
    let mut seen = Vec::with_capacity(queries);
    let mut norms: Vec<f32> = Vec::new();
    let mut query = Query::new(frame.operator);
    let (mut value, mut place, mut unreadable) = (Vec::new(), Vec::new(), 0);
    for _ in 0..queries * TRIES {
        index.vacuum_delay();
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
            Some((_, Row::Hidden)) | None if meta.bits > 0 && (row.is_some() || !rows.can_read()) => {
                let Some(tid) = random_code(index, meta, frame, (&leaf, &inner), random, &mut place).ok()? else {
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
        let limit = outliers::limit(&mut norms.clone(), outliers::APART);
        if *norms.last().unwrap() > if known > 0.0 { limit.min(outliers::APART * known) } else { limit } {
            continue;
        }
        let lists = tree::nearest_lists(index, meta, &inner, &query, deep, None).ok()?;
        seen.extend(Seen::of(index, &leaf, (&value, &query), rows, Some(tid), (&lists, meta.spread), goal).ok()?);
    }
    Some(seen)
}

/// The limits that follow from what some queries saw.
fn rule_of(seen: &[Seen], angles: (Space, f32), goal: usize) -> Limits {
    let limits = calibrate::limits(&mut needed_by(seen, angles));
    let sums = outcomes(seen, angles, goal, &limits);
    calibrate::rule(&limits, &sums, seen.len() * calibrate::results_of(GOALS[goal]), seen.len(), OTHER_LOSS)
}

/// What the lists of their neighbours need.
fn needed_by(seen: &[Seen], (space, norm2): (Space, f32)) -> Vec<Needed> {
    let needed = seen.iter().flat_map(|s| {
        s.neighbours.iter().map(move |&n| {
            let (term, radius, _) = s.lists[n as usize];
            Needed::of(space, term, radius, norm2, s.within, n as usize)
        })
    });
    memory::collected(needed)
}

/// Neighbours that are found and lists that are scanned under each of `limits`, by all queries together.
fn outcomes(seen: &[Seen], angles: (Space, f32), goal: usize, limits: &[f32]) -> Vec<(usize, usize)> {
    let mut sums = vec![(0, 0); limits.len()];
    for s in seen {
        let lists = s.lists.iter().zip(0..).map(|((term, radius, rows), list)| {
            let distances = &s.distances[rows.clone()];
            let nearest = calibrate::nearest(distances);
            Simulated { list, term: *term, radius: *radius, distances, nearest }
        });
        for (sum, (found, scanned)) in
            sums.iter_mut().zip(calibrate::simulate(angles, lists, &s.neighbours, GOALS[goal], limits))
        {
            *sum = (sum.0 + found, sum.1 + scanned);
        }
    }
    sums
}

/// The row at a place of the index taken at random, if there is one: all rows are equally likely.
fn random_row<P: Pages>(index: P, leaf: &Layout, random: &mut Random) -> Option<Tid> {
    let buffer = index.read(random.below(index.blocks() as usize) as u32);
    let opaque = page::check(buffer.page(), Kind::Posting).ok().filter(|o| o.level == 0)?;
    let posting = Posting::open(buffer.page(), leaf, opaque.list).ok()?;
    let at = random.below(leaf.entries_per_page());
    let (b, slot) = (at / BLOCK, at % BLOCK);
    (b < posting.blocks() && posting.block(b).live() >> slot & 1 == 1).then(|| posting.block(b).tid(slot))
}

/// An entry taken at random from a list taken at random: its row, and in `place` what its code stands for. None where there
/// is none.
fn random_code<P: Pages>(
    index: P,
    meta: &Meta,
    frame: &Frame,
    (leaf, inner): (&Layout, &Layout),
    random: &mut Random,
    place: &mut Vec<f32>,
) -> Result<Option<Tid>, Stale> {
    let (mut head, mut list) = (meta.root, meta.root_list);
    let mut centroid = (page::NO_BLOCK, 0);
    for level in (0..=meta.height).rev() {
        let layout = if level > 0 { inner } else { leaf };
        let (mut found, mut seen) = (None, 0);
        let mut nibbles = vec![0; layout.groups];
        let mut cursor = Cursor::of(index, layout, head, list);
        while let Some(buffer) = cursor.next_page()? {
            let posting = cursor.posting(&buffer);
            for block in (0..posting.blocks()).map(|b| posting.block(b)) {
                for slot in (0..BLOCK).filter(|slot| block.live() >> slot & 1 == 1) {
                    seen += 1;
                    if random.below(seen) == 0 {
                        let child = (level > 0).then(|| block.child(slot));
                        found = block.cell(slot).map(|cell| (cell, block.tid(slot), child));
                        if layout.own_bits {
                            tree::sketch_of(index, layout, list, &block, slot, &mut nibbles)?;
                        }
                    }
                }
            }
        }
        let Some((cell, tid, child)) = found else { return Ok(None) };
        if let Some(child) = child {
            (head, list, centroid) = (child.head, child.list, cell);
            continue;
        }
        if leaf.own_bits {
            frame.place_bits(&nibbles, place);
            return Ok(Some(tid));
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
    fn of<P: Pages>(
        index: P,
        leaf: &Layout,
        (value, query): (&[f32], &Query),
        rows: &mut impl Rows,
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
                    let live = block.live();
                    let mut near = tree::scan_rows(index, leaf, list, &block, live, query, limit, &mut scores)?;
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
                    let distance = if leaf.own_bits {
                        lower
                    } else if leaf.bits.is_some() {
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
