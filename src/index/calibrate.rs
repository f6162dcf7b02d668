//! The stopping rule of `ivflsh.target_recall`, measured on the sample that the build has at hand, and again as the index
//! grows (`recalibrate.rs`).
//!
//! A search scans, nearest first, the lists whose *needed cosine* is at most a limit: cos of the angle, between the
//! residuals of a list and the direction to the query, at which a typical row of the list is just as far as the worst of
//! the best rows found so far. The rule adapts to the query: it knows how far the results are, how far each list, and how
//! wide. The limit for a recall is found by running this search, for sample rows as queries and among the sample's rows,
//! under a range of limits.

use super::page::RECALLS;
use super::search::FIRST_GOAL;
use super::tree::needed_cosine;
use ann::quantize::{ListTerm, Space};
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// Results that recall is calibrated for.
pub const RESULTS: usize = 10;
/// Queries sampled.
pub const QUERIES: usize = 400;
/// Share of the allowed misses that is left to what is not simulated: sketches' bounds, the beam, late rows.
pub const OTHER_LOSS: f32 = 0.2;
/// As much more when almost nothing of the table is sampled, falling to none when [`FULL_SHARE`] of it is: the distance that
/// the rule goes by is then known from few rows, and a search, which knows it well, stops sooner (measured: at a quarter,
/// 0.942 instead of 0.95).
const SAMPLING_LOSS: f32 = 0.35;
const FULL_SHARE: f32 = 0.5;
/// Queries that the range of limits is taken from.
const LIMIT_QUERIES: usize = 100;
/// Queries that share a pass over the sample.
const TOGETHER: usize = 16;
/// Limits tried.
const LIMITS: usize = 24;

/// What the build knows.
pub struct Sample<'s> {
    pub space: Space,
    pub padded: usize,
    /// Sampled rows, rotated and centred.
    pub rows: &'s [f32],
    /// The list of each.
    pub lists: &'s [u32],
    /// Centroids of the lists.
    pub centroids: &'s [f32],
    /// Root mean square residual norm of each list.
    pub radii: &'s [f32],
    /// The rotated mean: queries of the inner product are not centred.
    pub mean: &'s [f32],
    /// Rows of the table.
    pub table_rows: f64,
}

/// Stopping cosine, and average number of lists scanned, for each of [`RECALLS`].
pub struct Rule {
    pub cosine: [f32; RECALLS.len()],
    pub probes: [f32; RECALLS.len()],
}

/// Measures the rule.
pub fn calibrate(sample: &Sample<'_>, cancelled: &AtomicBool) -> Rule {
    let padded = sample.padded;
    let rows = sample.rows.len() / padded;
    let lists = sample.radii.len();
    let share = (rows as f64 / sample.table_rows.max(1.0)).min(1.0);
    let results = ((RESULTS as f64 * share).round() as usize).max(1);
    let goal = ((FIRST_GOAL as f64 * share).round() as usize).max(results);
    if rows < goal + 2 || lists < 2 {
        return Rule { cosine: [1.0; RECALLS.len()], probes: [lists as f32; RECALLS.len()] };
    }
    let queries = QUERIES.min(rows);
    let members = &Members::new(sample.lists, lists);
    // Distances to the whole sample are too many to keep for all queries; a few queries share a pass over the rows.
    let measured = |queries: usize| {
        let blocks = queries.div_ceil(TOGETHER);
        (0..blocks).into_par_iter().filter(|_| !cancelled.load(Ordering::Relaxed)).flat_map_iter(move |block| {
            let rows: Vec<usize> =
                (block * TOGETHER..((block + 1) * TOGETHER).min(queries)).map(|i| i * (rows / queries)).collect();
            Measured::together(sample, members, &rows, results, goal)
        })
    };
    // Limits at which shares of the neighbours are in lists that would be scanned if the goal were known beforehand:
    // they cover the range of interest.
    let mut needed: Vec<f32> = measured(queries.min(LIMIT_QUERIES)).flat_map_iter(|m| m.needed).collect();
    if needed.is_empty() {
        return Rule { cosine: [1.0; RECALLS.len()], probes: [lists as f32; RECALLS.len()] };
    }
    let limits = limits(&mut needed);
    // Recall and lists scanned under each limit.
    let sums = measured(queries)
        .map(|m| limits.iter().map(|&limit| m.search(sample, members, goal, limit)).collect::<Vec<_>>())
        .reduce(|| vec![(0, 0); LIMITS], |x, y| x.into_iter().zip(y).map(|(x, y)| (x.0 + y.0, x.1 + y.1)).collect());
    let unsampled = (1.0 - share as f32 / FULL_SHARE).max(0.0);
    Rule::of(&limits, &sums, queries, results, OTHER_LOSS + SAMPLING_LOSS * unsampled)
}

/// Limits to try, from the needed cosines of lists that hold neighbours: where shares of the neighbours are in lists that would
/// be scanned if the goal were known beforehand. They cover the range of interest.
pub fn limits(needed: &mut [f32]) -> Vec<f32> {
    needed.sort_unstable_by(f32::total_cmp);
    (0..LIMITS)
        .map(|i| {
            // Denser towards all.
            let share = 1.0 - (1.0 - (i as f64 + 1.0) / LIMITS as f64).powi(2) * 0.9;
            needed[((share * needed.len() as f64).ceil() as usize).clamp(1, needed.len()) - 1]
        })
        .collect()
}

impl Rule {
    /// From the neighbours found and the lists scanned under each limit, by so many queries with so many neighbours each.
    /// `loss`: share of the allowed misses that is left to what is not simulated.
    pub fn of(limits: &[f32], sums: &[(usize, usize)], queries: usize, results: usize, loss: f32) -> Rule {
        let outcomes: Vec<(f32, f32)> = sums
            .iter()
            .map(|&(found, scanned)| (found as f32 / (queries * results) as f32, scanned as f32 / queries as f32))
            .collect();
        let mut rule = Rule { cosine: [0.0; RECALLS.len()], probes: [0.0; RECALLS.len()] };
        for (i, recall) in RECALLS.into_iter().enumerate() {
            let wanted = recall + (1.0 - recall) * loss;
            let at = outcomes.iter().position(|o| o.0 >= wanted).unwrap_or(limits.len() - 1);
            let (before, after) = (at.saturating_sub(1), at);
            let (from, to) = (outcomes[before].0, outcomes[after].0);
            let part = if to > from { ((wanted - from) / (to - from)).clamp(0.0, 1.0) } else { 1.0 };
            let between = |x: f32, y: f32| x + part * (y - x);
            // Infinite where a list of identical rows is at the very place of the query. Below -1 all lists are alike.
            let limit = |at: usize| limits[at].clamp(-1.0, 1e6);
            rule.cosine[i] = between(limit(before), limit(after));
            rule.probes[i] = between(outcomes[before].1, outcomes[after].1).max(1.0);
        }
        rule
    }
}

/// Cosine that a list needs to hold a row within a distance; the least number if anything will do.
pub fn needed(space: Space, term: ListTerm, radius: f32, within: f32) -> f32 {
    let cosine = needed_cosine(space, term, radius, within);
    if cosine.is_nan() { f32::NEG_INFINITY } else { cosine }
}

/// A list of a simulated search: a number, the query's terms, the radius, and the distances of its rows.
pub type Simulated<'s> = (u32, ListTerm, f32, &'s [f32]);

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
    // The best distances so far, nearest first.
    let mut best: Vec<f32> = Vec::with_capacity(goal + 1);
    for (list, term, radius, distances) in lists {
        let within = if best.len() < goal { f32::INFINITY } else { best[goal - 1] };
        if needed_cosine(space, term, radius, within) > limit {
            continue;
        }
        found += neighbours.iter().filter(|&&n| n == list).count();
        scanned += 1;
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

/// The sample's rows by list.
struct Members {
    rows: Vec<u32>,
    /// Where each list's rows start; one more for the end.
    starts: Vec<u32>,
}

impl Members {
    fn new(assigned: &[u32], lists: usize) -> Members {
        let mut starts = vec![0_u32; lists + 1];
        for &list in assigned {
            starts[list as usize + 1] += 1;
        }
        for i in 0..lists {
            starts[i + 1] += starts[i];
        }
        let mut next = starts.clone();
        let mut rows = vec![0; assigned.len()];
        for (row, &list) in assigned.iter().enumerate() {
            rows[next[list as usize] as usize] = row as u32;
            next[list as usize] += 1;
        }
        Members { rows, starts }
    }

    /// Positions of a list's rows in `rows`.
    fn of(&self, list: u32) -> std::ops::Range<usize> {
        self.starts[list as usize] as usize..self.starts[list as usize + 1] as usize
    }
}

/// A query of the calibration.
struct Measured {
    /// Distances of the sample's rows, in the order of [`Members::rows`]; infinite for the query itself.
    distances: Vec<f32>,
    /// Lists, nearest first.
    lists: Vec<(ListTerm, u32)>,
    /// Lists of the true neighbours.
    neighbours: Vec<u32>,
    /// Needed cosine of each of these, at the distance of the goal.
    needed: Vec<f32>,
}

impl Measured {
    /// Queries that are the sample's rows `at`.
    fn together(sample: &Sample<'_>, members: &Members, at: &[usize], results: usize, goal: usize) -> Vec<Measured> {
        let padded = sample.padded;
        let row = |r: usize| &sample.rows[r * padded..][..padded];
        let queries: Vec<Vec<f32>> = at
            .iter()
            .map(|&at| {
                let mut query = row(at).to_vec();
                if sample.space == Space::InnerProduct {
                    query.iter_mut().zip(sample.mean).for_each(|(q, m)| *q += m);
                }
                query
            })
            .collect();
        let distance = |query: &[f32], x: &[f32]| match sample.space {
            Space::L2 => ann::distance::l2_squared(query, x),
            Space::InnerProduct => -ann::distance::inner_product(query, x),
        };
        let mut distances: Vec<Vec<f32>> = at.iter().map(|_| Vec::with_capacity(members.rows.len())).collect();
        for &r in &members.rows {
            let x = row(r as usize);
            for ((query, &at), distances) in queries.iter().zip(at).zip(&mut distances) {
                distances.push(if r as usize == at { f32::INFINITY } else { distance(query, x) });
            }
        }
        let mut lists: Vec<Vec<(ListTerm, u32)>> = at.iter().map(|_| Vec::with_capacity(sample.radii.len())).collect();
        let norms: Vec<f32> = queries.iter().map(|q| ann::distance::norm_squared(q).sqrt()).collect();
        for (c, list) in sample.centroids.chunks_exact(padded).zip(0..) {
            for ((query, &norm), lists) in queries.iter().zip(&norms).zip(&mut lists) {
                let a = distance(query, c);
                let b = if sample.space == Space::L2 { a.max(0.0).sqrt() } else { norm };
                lists.push((ListTerm { a, b }, list));
            }
        }
        distances.into_iter().zip(lists).map(|(d, l)| Measured::new(sample, members, d, l, results, goal)).collect()
    }

    /// From the distances of the rows, and of the lists in their own order.
    fn new(
        sample: &Sample<'_>,
        members: &Members,
        distances: Vec<f32>,
        mut lists: Vec<(ListTerm, u32)>,
        results: usize,
        goal: usize,
    ) -> Measured {
        let mut near: Vec<u32> = (0..distances.len() as u32).collect();
        let by_distance = |x: &u32, y: &u32| distances[*x as usize].total_cmp(&distances[*y as usize]);
        near.select_nth_unstable_by(goal - 1, by_distance);
        near.truncate(goal);
        near.sort_unstable_by(by_distance);
        let within = distances[near[goal - 1] as usize];
        let neighbours: Vec<u32> =
            near[..results].iter().map(|&n| sample.lists[members.rows[n as usize] as usize]).collect();
        let needed = neighbours
            .iter()
            .map(|&list| needed(sample.space, lists[list as usize].0, sample.radii[list as usize], within))
            .collect();
        lists.sort_unstable_by(|x, y| x.0.a.total_cmp(&y.0.a));
        Measured { distances, lists, neighbours, needed }
    }

    /// Searches under `limit`, see [`simulate`].
    fn search(&self, sample: &Sample<'_>, members: &Members, goal: usize, limit: f32) -> (usize, usize) {
        let lists = self
            .lists
            .iter()
            .map(|&(term, list)| (list, term, sample.radii[list as usize], &self.distances[members.of(list)]));
        simulate(sample.space, lists, &self.neighbours, goal, limit)
    }
}
