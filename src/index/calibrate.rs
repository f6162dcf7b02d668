//! The stopping rule of `ivflsh.target_recall`, measured on the sample that the build has at hand, and again as the index
//! grows (`recalibrate.rs`).
//!
//! A search scans, nearest first, the lists whose *needed cosine* is at most a limit: cos of the angle, between the
//! residuals of a list and the direction to the query, at which a typical row of the list is just as far as the worst of
//! the best rows found so far. The rule adapts to the query: it knows how far the results are, how far each list, and how
//! wide. The limit for a recall is found by running this search, for sample rows as queries and among the sample's rows,
//! under a range of limits.

use super::assign::order_of;
use super::page::RECALLS;
use super::search::FIRST_GOAL;
use super::tree::needed_cosine;
use ann::cluster::{FromQueries, Matrix};
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
const LIMIT_QUERIES: usize = 64;
/// Queries that share a pass over the sample: as many as suit the product's registers, or fewer where their distances to all
/// rows would take more bytes than this.
const TOGETHER: usize = 48;
const DISTANCE_BYTES: usize = 32 << 20;
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

impl Sample<'_> {
    fn row(&self, row: u32) -> &[f32] {
        &self.rows[row as usize * self.padded..][..self.padded]
    }
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
    let members = Members::new(sample, results, goal);
    // Distances to the whole sample are too many to keep for all queries.
    let together = (DISTANCE_BYTES / 4 / rows).clamp(1, TOGETHER);
    let measured = |some: std::ops::Range<usize>| members.measure(some.map(|i| i * (rows / queries)), cancelled);
    let groups = |queries: usize| (0..queries).step_by(together).map(move |i| i..(i + together).min(queries));
    // Limits at which shares of the neighbours are in lists that would be scanned if the goal were known beforehand:
    // they cover the range of interest.
    let mut needed: Vec<f32> =
        groups(queries.min(LIMIT_QUERIES)).flat_map(measured).flat_map(|measured| measured.needed).collect();
    if needed.is_empty() {
        return Rule { cosine: [1.0; RECALLS.len()], probes: [lists as f32; RECALLS.len()] };
    }
    let limits = limits(&mut needed);
    // Recall and lists scanned under each limit.
    let mut sums = vec![(0, 0); LIMITS];
    for group in groups(queries) {
        let found: Vec<Vec<(usize, usize)>> = measured(group)
            .par_iter()
            .map(|m| limits.iter().map(|&limit| members.search(m, limit)).collect())
            .collect();
        for of_query in found {
            for (sum, (found, scanned)) in sums.iter_mut().zip(of_query) {
                *sum = (sum.0 + found, sum.1 + scanned);
            }
        }
    }
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
    // The best distances so far, nearest first.
    let mut best: Vec<f32> = Vec::with_capacity(goal + 1);
    for Simulated { list, term, radius, distances, nearest } in lists {
        let within = if best.len() < goal { f32::INFINITY } else { best[goal - 1] };
        if needed_cosine(space, term, radius, within) > limit {
            continue;
        }
        found += neighbours.iter().filter(|&&n| n == list).count();
        scanned += 1;
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

/// The sample's rows by list.
struct Members<'s> {
    sample: &'s Sample<'s>,
    /// Neighbours that count, and rows that a search looks for.
    results: usize,
    goal: usize,
    rows: Vec<u32>,
    /// Where each list's rows start; one more for the end.
    starts: Vec<u32>,
    distances: FromQueries<'s>,
    /// For the inner product, ‖x‖² + 2⟨x,m⟩ of each row, m being the mean, which queries of the index are not without.
    norms: Vec<f32>,
}

/// A query of the calibration.
struct Measured {
    /// Distances of the sample's rows, in the order of [`Members::rows`]; infinite for the query itself.
    distances: Vec<f32>,
    /// Lists, nearest first, with the distance of their nearest row.
    lists: Vec<(ListTerm, u32, f32)>,
    /// Lists of the true neighbours.
    neighbours: Vec<u32>,
    /// Needed cosine of each of these, at the distance of the goal.
    needed: Vec<f32>,
}

impl<'s> Members<'s> {
    fn new(sample: &'s Sample<'s>, results: usize, goal: usize) -> Members<'s> {
        let rows = order_of(sample.lists, sample.radii.len());
        let mut starts = vec![0_u32; sample.radii.len() + 1];
        sample.lists.iter().for_each(|&list| starts[list as usize + 1] += 1);
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        let norm = |&row: &u32| {
            let x = sample.row(row);
            ann::distance::norm_squared(x) + 2.0 * ann::distance::inner_product(x, sample.mean)
        };
        let norms = if sample.space == Space::L2 { Vec::new() } else { rows.par_iter().map(norm).collect() };
        let distances = FromQueries::new(Matrix::new(sample.rows, sample.padded));
        Members { sample, results, goal, rows, starts, distances, norms }
    }

    /// Positions of a list's rows in `rows`.
    fn of(&self, list: u32) -> std::ops::Range<usize> {
        self.starts[list as usize] as usize..self.starts[list as usize + 1] as usize
    }

    /// Takes some of the sample's rows as queries. Nothing when the build has been cancelled.
    fn measure(&self, at: impl Iterator<Item = usize>, cancelled: &AtomicBool) -> Vec<Measured> {
        let Sample { space, padded, mean, .. } = *self.sample;
        let at: Vec<u32> = at.map(|i| i as u32).collect();
        let queries: Vec<f32> = at.iter().flat_map(|&at| self.sample.row(at)).copied().collect();
        let stop = || cancelled.load(Ordering::Relaxed);
        let distances = self.distances.distances(Matrix::new(&queries, padded), &self.rows, &stop);
        let rows = queries.par_chunks_exact(padded).zip(at).zip(distances.unwrap_or_default());
        rows.map(|((query, at), mut distances)| {
            let mut query = query.to_vec();
            if space == Space::InnerProduct {
                // −⟨x,q+m⟩ = (‖x−q‖² − ‖x‖² − ‖q‖²) / 2 − ⟨x,m⟩
                let norm = ann::distance::norm_squared(&query);
                distances.iter_mut().zip(&self.norms).for_each(|(d, x)| *d = (*d - x - norm) / 2.0);
                query.iter_mut().zip(mean).for_each(|(q, m)| *q += m);
            }
            let own = self.of(self.sample.lists[at as usize]);
            let itself = own.start + self.rows[own].partition_point(|&row| row < at);
            distances[itself] = f32::INFINITY;
            self.measured(&query, distances)
        })
        .collect()
    }

    /// From the distances of the rows.
    fn measured(&self, query: &[f32], distances: Vec<f32>) -> Measured {
        let Sample { space, padded, radii, centroids, .. } = *self.sample;
        let norm = ann::distance::norm_squared(query).sqrt();
        let mut lists: Vec<(ListTerm, u32, f32)> = centroids
            .chunks_exact(padded)
            .zip(0..)
            .map(|(c, list)| {
                let term = match space {
                    Space::L2 => {
                        let a = ann::distance::l2_squared(query, c);
                        ListTerm { a, b: a.max(0.0).sqrt() }
                    }
                    Space::InnerProduct => ListTerm { a: -ann::distance::inner_product(query, c), b: norm },
                };
                (term, list, nearest(&distances[self.of(list)]))
            })
            .collect();
        // The nearest rows are in lists with near rows.
        let mut least: Vec<f32> = lists.iter().map(|l| l.2).collect();
        let enough = self.goal.min(least.len()) - 1;
        let bound = *least.select_nth_unstable_by(enough, f32::total_cmp).1;
        let mut near: Vec<(f32, u32)> = lists
            .iter()
            .filter(|l| l.2 <= bound)
            .flat_map(|&(_, list, _)| distances[self.of(list)].iter().map(move |&d| (d, list)))
            .collect();
        near.sort_unstable_by(|x, y| x.0.total_cmp(&y.0));
        let within = near[self.goal - 1].0;
        let neighbours: Vec<u32> = near[..self.results].iter().map(|n| n.1).collect();
        let needed = neighbours
            .iter()
            .map(|&list| needed(space, lists[list as usize].0, radii[list as usize], within))
            .collect();
        lists.sort_unstable_by(|x, y| x.0.a.total_cmp(&y.0.a));
        Measured { distances, lists, neighbours, needed }
    }

    /// Searches for a query under `limit`, see [`simulate`].
    fn search(&self, query: &Measured, limit: f32) -> (usize, usize) {
        let lists = query.lists.iter().map(|&(term, list, nearest)| Simulated {
            list,
            term,
            radius: self.sample.radii[list as usize],
            distances: &query.distances[self.of(list)],
            nearest,
        });
        simulate(self.sample.space, lists, &query.neighbours, self.goal, limit)
    }
}
