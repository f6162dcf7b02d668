//! The stopping rule of `ivflsh.target_recall`, measured when the index is built and again as it grows.
//!
//! A search scans, nearest first, the lists whose *needed cosine* is at most a limit: cos of the angle, between the
//! residuals of a list and the direction to the query, at which a typical row of the list is just as far as the worst of
//! the best rows found so far. The rule adapts to the query: it knows how far the results are, how far each list, and how
//! wide. To the cosine is added a *weight* times ln(1 + lists scanned before): the nearer lists have been scanned, the less
//! is left to be found, whatever the geometry says (figures: README.md).
//! The limit for a recall is found by running this search, for rows of the table as queries, under a range of limits.
//!
//! [`calibrate`] does it while a build has all rows in memory; `recalibrate.rs` in an index that is there.

use super::assign::order_of;
use super::page::{RECALLS, StoppingRule};
use super::search::FIRST_GOAL;
use super::tree::needed_cosine;
use ann::memory;
use ann::quantize::{ListTerm, Space};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Results that recall is calibrated for.
pub const RESULTS: usize = 10;
/// Rows that serve as queries.
pub const QUERIES: usize = 400;
/// Share of the allowed misses that is left to what is not simulated: sketches' bounds, the beam, late rows.
pub const OTHER_LOSS: f32 = 0.2;
/// Queries that the range of limits is taken from, and lists they look into at most.
const FIRST_QUERIES: usize = 64;
const FIRST_DEPTH: usize = 1024;
/// Lists that the others look into beyond the farthest that held a neighbour of the first.
const DEEPER_BY: usize = 32;
/// Bytes of distances kept at a time.
const DISTANCE_BYTES: usize = 16 << 20;
/// Limits tried.
const LIMITS: usize = 24;
/// What each further e-fold of lists scanned adds to the cosine that a list needs. Least lists were
/// scanned at 0.05 for GloVe words, 0.15 for images and for parts of them; 0.1 is within a tenth of the least for all.
const RANK_WEIGHT: f32 = 0.1;

/// All rows of a table, in lists.
pub struct Sample<'s> {
    pub space: Space,
    pub padded: usize,
    /// Rotated and centred.
    pub rows: &'s [f32],
    /// The list of each.
    pub lists: &'s [u32],
    /// Centroids of the lists.
    pub centroids: &'s [f32],
    /// Root mean square residual norm of each list.
    pub radii: &'s [f32],
    /// The rotated mean: queries of the inner product are not centred.
    pub mean: &'s [f32],
}

/// Measures the rule.
pub fn calibrate(sample: &Sample<'_>, cancelled: &AtomicBool) -> StoppingRule {
    let rows = sample.rows.len() / sample.padded;
    let lists = sample.radii.len();
    if rows < FIRST_GOAL + 2 || lists < 2 {
        return StoppingRule::of_all(lists as f32);
    }
    let members = Members::new(sample);
    let queries: Vec<u32> = (0..QUERIES.min(rows)).map(|i| (i * (rows / QUERIES.min(rows))) as u32).collect();
    // Groups of queries, for which few enough distances are kept.
    let measured = |queries: &[u32], depth: usize, each: &mut dyn FnMut(&Group)| {
        let of_query = (depth * rows / lists + 1) * size_of::<f32>();
        for some in queries.chunks((DISTANCE_BYTES / of_query).clamp(1, queries.len())) {
            if !cancelled.load(Ordering::Relaxed) {
                each(&members.measure(some, depth, cancelled));
            }
        }
    };
    let (mut needed, mut deepest) = (Vec::<Needed>::new(), 0);
    let first: Vec<u32> = queries.iter().copied().step_by(queries.len().div_ceil(FIRST_QUERIES)).collect();
    measured(&first, FIRST_DEPTH.min(lists), &mut |group| {
        for query in &group.queries {
            memory::append(&mut needed, &query.needed);
            deepest = deepest.max(query.deepest);
        }
    });
    if needed.is_empty() {
        return StoppingRule::of_all(lists as f32);
    }
    // Recall and lists scanned under each limit.
    let limits = limits(&needed);
    let (mut sums, mut count) = (vec![(0, 0); LIMITS], 0);
    measured(&queries, (deepest + DEEPER_BY).min(lists), &mut |group| {
        let search = |query| limits.iter().map(|&limit| members.search(group, query, limit)).collect();
        let found: Vec<Vec<(usize, usize)>> = group.queries.par_iter().map(search).collect();
        count += found.len();
        for of_query in found {
            for (sum, (found, scanned)) in sums.iter_mut().zip(of_query) {
                *sum = (sum.0 + found, sum.1 + scanned);
            }
        }
    });
    if count == 0 {
        return StoppingRule::of_all(lists as f32);
    }
    rule(&limits, &sums, count, OTHER_LOSS)
}

/// Limits to try, from what the lists of neighbours need: where shares of the neighbours are in lists
/// that would be scanned if the goal were known beforehand. They cover the range of interest.
pub fn limits(needed: &[Needed]) -> Vec<f32> {
    let mut needed: Vec<f32> = needed.iter().map(|n| n.cosine + penalty(n.before)).collect();
    needed.sort_unstable_by(f32::total_cmp);
    (0..LIMITS)
        .map(|i| {
            // Denser towards all.
            let share = 1.0 - (1.0 - (i as f64 + 1.0) / LIMITS as f64).powi(2) * 0.9;
            needed[((share * needed.len() as f64).ceil() as usize).clamp(1, needed.len()) - 1]
        })
        .collect()
}

/// From the neighbours found and the lists scanned under each limit, by so many queries for [`RESULTS`] neighbours each.
/// `loss`: share of the allowed misses that is left to what is not simulated.
pub fn rule(limits: &[f32], sums: &[(usize, usize)], queries: usize, loss: f32) -> StoppingRule {
    let outcomes: Vec<(f32, f32)> = sums
        .iter()
        .map(|&(found, scanned)| (found as f32 / (queries * RESULTS) as f32, scanned as f32 / queries as f32))
        .collect();
    let mut rule = StoppingRule::of_all(1.0);
    for (i, recall) in RECALLS.into_iter().enumerate() {
        let wanted = recall + (1.0 - recall) * loss;
        let at = outcomes.iter().position(|o| o.0 >= wanted).unwrap_or(limits.len() - 1);
        let (before, after) = (at.saturating_sub(1), at);
        let (from, to) = (outcomes[before].0, outcomes[after].0);
        let part = if to > from { ((wanted - from) / (to - from)).clamp(0.0, 1.0) } else { 1.0 };
        let between = |x: f32, y: f32| x + part * (y - x);
        // Infinite where a list of identical rows is at the very place of the query. Below -1 all lists are alike.
        let limit = |at: usize| limits[at].clamp(-1.0, 1e6);
        rule.limit[i] = between(limit(before), limit(after));
        rule.probes[i] = between(outcomes[before].1, outcomes[after].1).max(1.0);
    }
    rule
}

/// What a list needs to hold a row within a distance.
#[derive(Clone, Copy)]
pub struct Needed {
    cosine: f32,
    /// Lists that are nearer.
    before: f32,
}

impl Needed {
    /// The least number as the cosine, if anything will do.
    pub fn of(space: Space, term: ListTerm, radius: f32, within: f32, before: usize) -> Needed {
        let cosine = needed_cosine(space, term, radius, within);
        Needed { cosine: if cosine.is_nan() { f32::NEG_INFINITY } else { cosine }, before: before as f32 }
    }
}

/// By how much the limit is lower after so many lists have been scanned.
pub fn penalty(scanned: f32) -> f32 {
    RANK_WEIGHT * scanned.ln_1p()
}

/// A list of a simulated search.
pub struct Simulated<'s> {
    pub list: u32,
    /// The query's.
    pub term: ListTerm,
    pub radius: f32,
    /// Of its rows.
    pub distances: &'s [f32],
    /// The least of these.
    pub nearest: f32,
}

/// The least of some distances; infinite if there are none.
pub fn nearest(distances: &[f32]) -> f32 {
    distances.iter().copied().fold(f32::INFINITY, f32::min)
}

/// Searches `lists`, nearest first, under `limit` as `search.rs` does; returns how many neighbours are found, whose lists
/// `neighbours` names, and how many lists are scanned.
pub fn simulate<'s>(
    space: Space,
    lists: impl Iterator<Item = Simulated<'s>>,
    neighbours: &[u32],
    goal: usize,
    limit: f32,
) -> (usize, usize) {
    let (mut found, mut scanned) = (0, 0);
    let mut stop = limit;
    // The best distances so far, nearest first.
    let mut best: Vec<f32> = Vec::with_capacity(goal + 1);
    for Simulated { list, term, radius, distances, nearest } in lists {
        let within = if best.len() < goal { f32::INFINITY } else { best[goal - 1] };
        if needed_cosine(space, term, radius, within) > stop {
            continue;
        }
        found += neighbours.iter().filter(|&&n| n == list).count();
        scanned += 1;
        stop = limit - penalty(scanned as f32);
        if nearest >= within {
            continue;
        }
        for &d in distances {
            if best.len() < goal || d < best[goal - 1] {
                let at = best.partition_point(|&b| b < d);
                best.insert(at, d);
                best.truncate(goal);
            }
        }
    }
    (found, scanned)
}

/// The rows by list.
struct Members<'s> {
    sample: &'s Sample<'s>,
    rows: Vec<u32>,
    /// Where each list's rows start; one more for the end.
    starts: Vec<u32>,
}

/// Some queries, and what they saw.
struct Group {
    queries: Vec<Measured>,
    /// For each list that one of them looked into, distances of its rows from the first such query, from the second ….
    distances: Vec<Vec<f32>>,
}

/// A query of the calibration.
struct Measured {
    /// The nearest lists, nearest first.
    lists: Vec<Near>,
    /// Lists of the true neighbours.
    neighbours: Vec<u32>,
    /// Needed cosine of each of these, at the distance of the goal.
    needed: Vec<Needed>,
    /// How many of `lists` hold them all.
    deepest: usize,
}

/// A list that a query looked into.
struct Near {
    term: ListTerm,
    list: u32,
    /// Where the distances of its rows are: which of [`Group::distances`], and what part of it.
    block: usize,
    part: Range<usize>,
    nearest: f32,
}

impl<'s> Members<'s> {
    fn new(sample: &'s Sample<'s>) -> Members<'s> {
        let rows = order_of(sample.lists, sample.radii.len());
        let mut starts = memory::zeroed::<u32>(sample.radii.len() + 1);
        sample.lists.iter().for_each(|&list| starts[list as usize + 1] += 1);
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        Members { sample, rows, starts }
    }

    /// A list's rows.
    fn of(&self, list: u32) -> &[u32] {
        &self.rows[self.starts[list as usize] as usize..self.starts[list as usize + 1] as usize]
    }

    fn row(&self, row: u32) -> &'s [f32] {
        &self.sample.rows[row as usize * self.sample.padded..][..self.sample.padded]
    }

    fn distance(&self, query: &[f32], x: &[f32]) -> f32 {
        match self.sample.space {
            Space::L2 => ann::distance::l2_squared(query, x),
            Space::InnerProduct => -ann::distance::inner_product(query, x),
        }
    }

    /// Takes the rows `at` as queries, and looks into the `depth` lists nearest to each.
    fn measure(&self, at: &[u32], depth: usize, cancelled: &AtomicBool) -> Group {
        let queries = memory::collected_in_parallel(at.par_iter().map(|&at| self.nearest_lists(at, depth)));
        // List by list, so that its rows are read once for all queries.
        let pairs =
            queries.iter().zip(0..).flat_map(|((_, lists), query)| lists.iter().map(move |near| (near.list, query)));
        let mut pairs: Vec<(u32, u32)> = memory::collected(pairs);
        pairs.sort_unstable();
        let by_list: Vec<&[(u32, u32)]> = memory::collected(pairs.chunk_by(|x, y| x.0 == y.0));
        let distances = by_list.par_iter().map(|pairs| {
            let rows = self.of(pairs[0].0);
            let mut distances = memory::filled(f32::INFINITY, pairs.len() * rows.len());
            if cancelled.load(Ordering::Relaxed) {
                return distances;
            }
            for (i, &row) in rows.iter().enumerate() {
                let x = self.row(row);
                for (j, &(_, query)) in pairs.iter().enumerate() {
                    // A query is not its own neighbour.
                    if at[query as usize] != row {
                        distances[j * rows.len() + i] = self.distance(&queries[query as usize].0, x);
                    }
                }
            }
            distances
        });
        let distances: Vec<Vec<f32>> = memory::collected_in_parallel(distances);
        let find = |list: u32, query: u32| {
            let block = by_list.partition_point(|pairs| pairs[0].0 < list);
            let place = by_list[block].partition_point(|pair| pair.1 < query);
            let rows = self.of(list).len();
            (block, place * rows..(place + 1) * rows)
        };
        let queries = queries.into_par_iter().enumerate().filter_map(|(query, (_, mut lists))| {
            for near in &mut lists {
                (near.block, near.part) = find(near.list, query as u32);
                near.nearest = nearest(&distances[near.block][near.part.clone()]);
            }
            self.measured(lists, &distances)
        });
        Group { queries: queries.collect(), distances }
    }

    /// The query that a row stands for, and the lists nearest to it.
    fn nearest_lists(&self, at: u32, depth: usize) -> (Vec<f32>, Vec<Near>) {
        let Sample { space, padded, mean, centroids, .. } = *self.sample;
        let mut query = self.row(at).to_vec();
        if space == Space::InnerProduct {
            query.iter_mut().zip(mean).for_each(|(q, m)| *q += m);
        }
        let norm = ann::distance::norm_squared(&query).sqrt();
        let mut lists: Vec<(f32, u32)> =
            memory::collected(centroids.chunks_exact(padded).map(|c| self.distance(&query, c)).zip(0..));
        let order = |x: &(f32, u32), y: &(f32, u32)| x.0.total_cmp(&y.0).then(x.1.cmp(&y.1));
        if depth < lists.len() {
            lists.select_nth_unstable_by(depth, order);
            lists.truncate(depth);
        }
        lists.sort_unstable_by(order);
        let near = lists.into_iter().map(|(a, list)| {
            let b = if space == Space::L2 { a.max(0.0).sqrt() } else { norm };
            Near { term: ListTerm { a, b }, list, block: 0, part: 0..0, nearest: f32::INFINITY }
        });
        let near = memory::collected(near);
        (query, near)
    }

    /// A query that has looked into `lists`; None if there are too few rows in them.
    fn measured(&self, lists: Vec<Near>, distances: &[Vec<f32>]) -> Option<Measured> {
        let Sample { space, radii, .. } = *self.sample;
        // The nearest rows are in lists with near rows.
        let mut least: Vec<f32> = lists.iter().map(|near| near.nearest).collect();
        let enough = FIRST_GOAL.min(least.len()) - 1;
        let bound = *least.select_nth_unstable_by(enough, f32::total_cmp).1;
        let near = lists.iter().enumerate().filter(|(_, near)| near.nearest <= bound);
        let mut near: Vec<(f32, usize)> = memory::collected(
            near.flat_map(|(i, near)| distances[near.block][near.part.clone()].iter().map(move |&d| (d, i))),
        );
        near.sort_unstable_by(|x, y| x.0.total_cmp(&y.0));
        let within = near.get(FIRST_GOAL - 1).map(|near| near.0).filter(|d| d.is_finite())?;
        let neighbours = near[..RESULTS].iter().map(|&(_, i)| (&lists[i], i));
        let needed = neighbours
            .clone()
            .map(|(near, i)| Needed::of(space, near.term, radii[near.list as usize], within, i))
            .collect();
        let neighbours = neighbours.map(|(near, _)| near.list).collect();
        let deepest = near[..RESULTS].iter().map(|near| near.1 + 1).max().unwrap_or(0);
        Some(Measured { lists, neighbours, needed, deepest })
    }

    /// Searches for a query under `limit`, see [`simulate`].
    fn search(&self, group: &Group, query: &Measured, limit: f32) -> (usize, usize) {
        let lists = query.lists.iter().map(|near| Simulated {
            list: near.list,
            term: near.term,
            radius: self.sample.radii[near.list as usize],
            distances: &group.distances[near.block][near.part.clone()],
            nearest: near.nearest,
        });
        simulate(self.sample.space, lists, &query.neighbours, FIRST_GOAL, limit)
    }
}
