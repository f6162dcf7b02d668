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

use crate::nearest::FIRST_GOAL;
use crate::order_of;
use crate::outliers;
use crate::page::{GOALS, Limits, Measuring, NO_LIMIT, RECALLS, StoppingRule};
use crate::read::tree::needed_cosine;
use ann::memory;
use ann::quantize::{ListTerm, Space};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows that serve as queries, for each of [`GOALS`]: the more neighbours each has, the fewer tell the same.
pub const QUERIES: [usize; GOALS.len()] = [400, 96, 32, 16, 16, 16];
const _: () = assert!(QUERIES[0] <= Measuring::MOST_QUERIES as usize);
/// From this one of [`GOALS`] on they are measured by the same queries, which have to look into nearly the same lists.
const TOGETHER: usize = 3;
/// Share of the allowed misses that is left to what is not simulated: sketches' bounds, the beam, late rows.
pub const OTHER_LOSS: f32 = 0.2;
/// Queries that the range of limits is taken from, one in so many but no more than these, and lists they look into at most.
const FIRST_OF: usize = 4;
const FIRST_QUERIES: usize = 64;
const FIRST_DEPTH: usize = 1024;
/// As many lists as hold so many times the goal are looked into at least, if there are so many.
const DEEPER_THAN_GOAL: usize = 40;
/// Lists that the others look into beyond the farthest that held a neighbour of the first: so many, and this part of these.
const DEEPER_BY: usize = 32;
const DEEPER_PART: usize = 8;
/// Bytes of distances kept at a time.
const DISTANCE_BYTES: usize = 16 << 20;
/// Limits tried: where shares of the neighbours are, and some above, in steps of so much.
const LIMITS: usize = 24;
const LIMITS_ABOVE: usize = 16;
const STEP_ABOVE: f32 = 0.1;
/// By this share more lists are read than are needed, or so many if that is more, if it raises the limit, up to this: where rows
/// find their neighbours at once, as in clusters, nearly any limit is good enough for them, but queries that lie elsewhere
/// need one as high as other data have.
const FREE: f32 = 0.02;
const FREE_LISTS: f32 = 2.0;
const FREE_LIMIT: f32 = 0.9;
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
    /// See [`StoppingRule::norm2`].
    pub norm2: f32,
}

/// Measures the rule.
pub fn calibrate(sample: &Sample<'_>, cancelled: &AtomicBool) -> StoppingRule {
    let rows = sample.rows.len() / sample.padded;
    let lists = sample.radii.len();
    if lists < 2 {
        return StoppingRule::new([Limits::of_all(lists as f32); GOALS.len()], sample.norm2);
    }
    let members = Members::new(sample);
    let mut of_goal = [Limits::none(lists as f32); GOALS.len()];
    let usual = GOALS.iter().filter(|&&goal| is_usual(goal, rows)).count();
    let mut from = 0;
    while from < usual {
        let to = if from < TOGETHER { from + 1 } else { usual };
        if let Some(limits) = calibrate_for(&members, &GOALS[from..to], QUERIES[from], cancelled) {
            of_goal[from..to].copy_from_slice(&limits);
        }
        from = to;
    }
    StoppingRule::new(of_goal, sample.norm2)
}

/// The mean of the squared norms of rows, which are centred by `mean`.
pub fn norm2(rows: &[f32], padded: usize, mean: &[f32]) -> f32 {
    let square = |row: &[f32]| row.iter().zip(mean).map(|(x, m)| f64::from(x + m).powi(2)).sum::<f64>();
    let count = rows.len() / padded;
    let every = count.div_ceil(ROWS_FOR_NORM).max(1);
    let squares = rows.chunks_exact(padded).step_by(every).map(|row| square(row) as f32);
    let squares: Vec<f32> = memory::collected(squares.filter(|s| s.is_finite()));
    if squares.is_empty() { f32::INFINITY } else { outliers::mean_square(&squares, 0.0) }
}

/// Rows looked at for their mean norm, about.
const ROWS_FOR_NORM: usize = 10_000;

/// Whether a search for so many rows is one for a part of the table. For more of them than half, all lists are read.
pub fn is_usual(goal: usize, rows: usize) -> bool {
    goal * 2 <= rows
}

/// Measures the limits for some goals, smallest first. None if nothing could be measured.
fn calibrate_for(
    members: &Members<'_>,
    goals: &[usize],
    queries: usize,
    cancelled: &AtomicBool,
) -> Option<Vec<Limits>> {
    let sample = members.sample;
    let goal = goals[goals.len() - 1];
    let (rows, lists) = (sample.rows.len() / sample.padded, sample.radii.len());
    let count = queries.min(rows);
    let queries: Vec<u32> = (0..count).map(|i| (i * (rows / count)) as u32).collect();
    // Groups of queries, for which few enough distances are kept.
    let measured = |queries: &[u32], depth: usize, each: &mut dyn FnMut(&Group)| {
        let of_query = (depth * rows / lists + 1) * size_of::<f32>();
        for some in queries.chunks((DISTANCE_BYTES / of_query).clamp(1, queries.len())) {
            if !cancelled.load(Ordering::Relaxed) {
                each(&members.measure(some, depth, goals, cancelled));
            }
        }
    };
    let (mut needed, mut deepest) = (vec![Vec::<Needed>::new(); goals.len()], 0);
    let first: Vec<u32> =
        queries.iter().copied().step_by(queries.len().div_ceil(FIRST_QUERIES).max(FIRST_OF)).collect();
    let depth = (goal * DEEPER_THAN_GOAL * lists).div_ceil(rows).max(FIRST_DEPTH).min(lists);
    measured(&first, depth, &mut |group| {
        for query in &group.queries {
            for (needed, near) in needed.iter_mut().zip(&query.near) {
                memory::append(needed, &near.needed);
            }
            deepest = deepest.max(query.deepest);
        }
    });
    if needed[0].is_empty() {
        return None;
    }
    // Recall and lists scanned under each limit, for each goal.
    let limits: Vec<Vec<f32>> = needed.iter_mut().map(|needed| limits(needed)).collect();
    let mut sums: Vec<Vec<(usize, usize)>> = limits.iter().map(|limits| vec![(0, 0); limits.len()]).collect();
    let mut count = 0;
    measured(&queries, (deepest + deepest / DEEPER_PART + DEEPER_BY).min(lists), &mut |group| {
        count += group.queries.len();
        for (i, &goal) in goals.iter().enumerate() {
            let searches = group.queries.par_iter();
            let found: Vec<Vec<(usize, usize)>> =
                searches.map(|query| members.search(group, query, &query.near[i], goal, &limits[i])).collect();
            for of_query in found {
                for (sum, (found, scanned)) in sums[i].iter_mut().zip(of_query) {
                    *sum = (sum.0 + found, sum.1 + scanned);
                }
            }
        }
    });
    let of_goal = goals.iter().zip(limits.iter().zip(&sums));
    (count > 0).then(|| {
        of_goal.map(|(&goal, (limits, sums))| rule(limits, sums, count * results_of(goal), count, OTHER_LOSS)).collect()
    })
}

/// Results that recall is calibrated for in a search for `goal` rows: the LIMIT that has this goal.
pub fn results_of(goal: usize) -> usize {
    (goal - 4) * 4 / 5 + usize::from(goal == FIRST_GOAL)
}

/// Limits to try, from what the lists of neighbours need: where shares of the neighbours are in lists
/// that would be scanned if the goal were known beforehand. They cover the range of interest.
pub fn limits(needed: &mut [Needed]) -> Vec<f32> {
    let scores = |n: &Needed| n.cosine + penalty(n.before);
    needed.sort_unstable_by(|x, y| scores(x).total_cmp(&scores(y)));
    let mut limits: Vec<f32> = (0..LIMITS)
        .map(|i| {
            // Denser towards all.
            let share = 1.0 - (1.0 - (i as f64 + 1.0) / LIMITS as f64).powi(2) * 0.9;
            scores(&needed[((share * needed.len() as f64).ceil() as usize).clamp(1, needed.len()) - 1])
        })
        // Infinite where a list of identical rows is at the very place of the query. Below -1 all lists are alike.
        .map(|limit| limit.clamp(-1.0, NO_LIMIT))
        .collect();
    let top = limits[LIMITS - 1];
    limits.extend((1..=LIMITS_ABOVE).map(|i| (top + i as f32 * STEP_ABOVE).min(NO_LIMIT)));
    limits
}

/// From the neighbours found of so many, and the lists scanned, under each limit, by so many queries.
/// `loss`: share of the allowed misses that is left to what is not simulated.
pub fn rule(limits: &[f32], sums: &[(usize, usize)], neighbours: usize, queries: usize, loss: f32) -> Limits {
    let outcomes: Vec<(f32, f32)> = sums
        .iter()
        .map(|&(found, scanned)| (found as f32 / neighbours as f32, scanned as f32 / queries as f32))
        .collect();
    let mut rule = Limits::of_all(1.0);
    for (i, recall) in RECALLS.into_iter().enumerate() {
        let wanted = recall + (1.0 - recall) * loss;
        let at = outcomes.iter().position(|o| o.0 >= wanted).unwrap_or(limits.len() - 1);
        let (before, after) = (at.saturating_sub(1), at);
        let (from, to) = (outcomes[before].0, outcomes[after].0);
        let part = if to > from { ((wanted - from) / (to - from)).clamp(0.0, 1.0) } else { 1.0 };
        let between = |x: f32, y: f32, part: f32| x + part * (y - x);
        rule.limit[i] = between(limits[before], limits[after], part);
        rule.probes[i] = between(outcomes[before].1, outcomes[after].1, part).max(1.0);
        // As far as it costs next to nothing.
        let most = (rule.probes[i] * (1.0 + FREE)).max(FREE_LISTS);
        let dear = (after..limits.len()).find(|&at| outcomes[at].1 > most);
        let free = match dear {
            None => limits[limits.len() - 1],
            Some(at) if at == after => rule.limit[i],
            Some(at) => {
                let (from, to) = (outcomes[at - 1].1, outcomes[at].1);
                between(limits[at - 1], limits[at], (most - from) / (to - from))
            }
        };
        rule.limit[i] = rule.limit[i].max(free.min(FREE_LIMIT));
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
    pub fn of(space: Space, term: ListTerm, radius: f32, norm2: f32, within: f32, before: usize) -> Needed {
        let cosine = needed_cosine(space, term, radius, norm2, within);
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

/// Searches `lists`, nearest first, under each of `limits` as `search.rs` does; tells for each how many neighbours are found,
/// whose lists `neighbours` names, and how many lists are scanned.
pub fn simulate<'s>(
    (space, norm2): (Space, f32),
    lists: impl Iterator<Item = Simulated<'s>> + Clone,
    neighbours: &[u32],
    goal: usize,
    limits: &[f32],
) -> Vec<(usize, usize)> {
    // For each list the neighbours in it.
    let mut held: Vec<(u32, usize)> = Vec::new();
    let mut neighbours = neighbours.to_vec();
    neighbours.sort_unstable();
    neighbours.chunk_by(|x, y| x == y).for_each(|same| held.push((same[0], same.len())));
    let held = |list: u32| held.binary_search_by_key(&list, |h| h.0).map_or(0, |at| held[at].1);
    let lists = lists.map(|list| (held(list.list), list));
    let run = |limit: f32, best: &mut dyn Best| {
        let (mut found, mut scanned) = (0, 0);
        let mut stop = limit;
        for (number, (held, Simulated { term, radius, distances, nearest, .. })) in lists.clone().enumerate() {
            let within = best.farthest();
            if needed_cosine(space, term, radius, norm2, within) > stop {
                continue;
            }
            found += held;
            scanned += 1;
            stop = limit - penalty(scanned as f32);
            if nearest < within {
                best.add(number, distances);
            }
        }
        (found, scanned)
    };
    if goal <= FEW {
        let mut best = Sorted { goal, distances: Vec::with_capacity(goal + 1) };
        let run = |&limit: &f32| {
            best.distances.clear();
            run(limit, &mut best)
        };
        return limits.iter().map(run).collect();
    }
    let mut nearest: Vec<f32> = memory::collected(lists.clone().flat_map(|(_, list)| list.distances).copied());
    let kept = (STEPS_REACH * goal).min(nearest.len());
    if kept < nearest.len() {
        nearest.select_nth_unstable_by(kept, f32::total_cmp);
        nearest.truncate(kept);
    }
    nearest.sort_unstable_by(f32::total_cmp);
    let steps: Vec<f32> = nearest.chunks(kept.div_ceil(STEPS).max(1)).map(|chunk| chunk[chunk.len() - 1]).collect();
    // Once for all limits. What is farther than the last step is no result under any of them.
    let reach = steps.last().copied().unwrap_or(f32::NEG_INFINITY);
    let (mut numbers, mut ends) = (Vec::new(), Vec::new());
    for (_, list) in lists.clone() {
        for &d in list.distances.iter().filter(|&&d| d <= reach) {
            memory::push(&mut numbers, steps.partition_point(|&step| step < d) as u16);
        }
        memory::push(&mut ends, numbers.len());
    }
    let run = |&limit: &f32| run(limit, &mut Counted::new(goal, &steps, &numbers, &ends));
    limits.iter().map(run).collect()
}

/// Up to this goal the simulation knows the best distances one by one.
const FEW: usize = 64;
/// For a larger one it counts the distances of so many steps, which reach to so many times the goal.
const STEPS: usize = 2048;
const _: () = assert!(STEPS <= u16::MAX as usize, "their numbers are kept in 16 bits");
const STEPS_REACH: usize = 4;

/// The best distances of a simulated search.
trait Best {
    /// The farthest of as many as the goal; infinite while there are fewer.
    fn farthest(&self) -> f32;
    /// Adds those of a list, which is given by its number in the order of lists as well.
    fn add(&mut self, list: usize, distances: &[f32]);
}

/// Nearest first.
struct Sorted {
    goal: usize,
    distances: Vec<f32>,
}

impl Best for Sorted {
    fn farthest(&self) -> f32 {
        if self.distances.len() < self.goal { f32::INFINITY } else { self.distances[self.goal - 1] }
    }

    fn add(&mut self, _: usize, distances: &[f32]) {
        for &d in distances {
            if d < self.farthest() {
                let at = self.distances.partition_point(|&b| b < d);
                self.distances.insert(at, d);
                self.distances.truncate(self.goal);
            }
        }
    }
}

/// How many there are up to each of some distances.
struct Counted<'s> {
    goal: usize,
    steps: &'s [f32],
    /// The number of the step of each distance that is within the last one, list by list, and where those of each list end.
    numbers: &'s [u16],
    ends: &'s [usize],
    /// Distances in each step; in all up to `last`, beyond which there are no results.
    counts: Vec<u32>,
    last: usize,
    within: usize,
}

impl<'s> Counted<'s> {
    fn new(goal: usize, steps: &'s [f32], numbers: &'s [u16], ends: &'s [usize]) -> Counted<'s> {
        let last = steps.len().saturating_sub(1);
        Counted { goal, steps, numbers, ends, counts: vec![0; steps.len()], last, within: 0 }
    }
}

impl Best for Counted<'_> {
    fn farthest(&self) -> f32 {
        if self.within < self.goal { f32::INFINITY } else { self.steps[self.last] }
    }

    fn add(&mut self, list: usize, _: &[f32]) {
        let start = if list == 0 { 0 } else { self.ends[list - 1] };
        for &number in &self.numbers[start..self.ends[list]] {
            let step = usize::from(number);
            if step <= self.last {
                self.counts[step] += 1;
                self.within += 1;
                while self.last > 0 && self.within - self.counts[self.last] as usize >= self.goal {
                    self.within -= self.counts[self.last] as usize;
                    self.last -= 1;
                }
            }
        }
    }
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

/// A query in the coordinates of the index, and what is added to its inner products.
struct Placed {
    vector: Vec<f32>,
    offset: f32,
}

/// A query of the calibration.
struct Measured {
    /// The nearest lists, nearest first.
    lists: Vec<Near>,
    /// For each goal.
    near: Vec<Neighbours>,
    /// How many of `lists` hold them all.
    deepest: usize,
}

/// The true neighbours of a query that a goal stands for.
struct Neighbours {
    /// The list of each.
    lists: Vec<u32>,
    /// The needed cosine of that, at the distance of the goal.
    needed: Vec<Needed>,
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
        let rows = order_of(sample.lists, sample.radii.len(), || {});
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

    fn distance(&self, query: &Placed, x: &[f32]) -> f32 {
        match self.sample.space {
            Space::L2 => ann::distance::l2_squared(&query.vector, x),
            Space::InnerProduct => query.offset - ann::distance::inner_product(&query.vector, x),
        }
    }

    /// Takes the rows `at` as queries, and looks into the `depth` lists nearest to each.
    fn measure(&self, at: &[u32], depth: usize, goals: &[usize], cancelled: &AtomicBool) -> Group {
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
            self.measured(lists, goals, &distances)
        });
        Group { queries: queries.collect(), distances }
    }

    /// The query that a row stands for, and the lists nearest to it.
    fn nearest_lists(&self, at: u32, depth: usize) -> (Placed, Vec<Near>) {
        let Sample { space, padded, mean, centroids, .. } = *self.sample;
        let mut query = self.row(at).to_vec();
        if space == Space::InnerProduct {
            query.iter_mut().zip(mean).for_each(|(q, m)| *q += m);
        }
        let norm = ann::distance::norm_squared(&query).sqrt();
        let offset = if space == Space::InnerProduct { -ann::distance::inner_product(&query, mean) } else { 0.0 };
        let query = Placed { vector: query, offset };
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
    fn measured(&self, lists: Vec<Near>, goals: &[usize], distances: &[Vec<f32>]) -> Option<Measured> {
        let Sample { space, radii, norm2, .. } = *self.sample;
        let goal = goals[goals.len() - 1];
        // The nearest rows are in lists with near rows.
        let mut least: Vec<f32> = lists.iter().map(|near| near.nearest).collect();
        let enough = goal.min(least.len()) - 1;
        let bound = *least.select_nth_unstable_by(enough, f32::total_cmp).1;
        let near = lists.iter().enumerate().filter(|(_, near)| near.nearest <= bound);
        let mut near: Vec<(f32, usize)> = memory::collected(
            near.flat_map(|(i, near)| distances[near.block][near.part.clone()].iter().map(move |&d| (d, i))),
        );
        if near.len() < goal {
            return None;
        }
        near.select_nth_unstable_by(goal - 1, |x, y| x.0.total_cmp(&y.0));
        near.truncate(goal);
        near.sort_unstable_by(|x, y| x.0.total_cmp(&y.0));
        if !near.last()?.0.is_finite() {
            return None;
        }
        let deepest = near[..results_of(goal)].iter().map(|near| near.1 + 1).max().unwrap_or(0);
        let of_goal = goals.iter().map(|&goal| {
            let (within, near) = (near[goal - 1].0, &near[..results_of(goal)]);
            let needed = near
                .iter()
                .map(|&(_, i)| Needed::of(space, lists[i].term, radii[lists[i].list as usize], norm2, within, i));
            Neighbours { needed: needed.collect(), lists: near.iter().map(|&(_, i)| lists[i].list).collect() }
        });
        let near = of_goal.collect();
        Some(Measured { lists, near, deepest })
    }

    /// Searches for a query under each of `limits`, see [`simulate`].
    fn search(
        &self,
        group: &Group,
        query: &Measured,
        near: &Neighbours,
        goal: usize,
        limits: &[f32],
    ) -> Vec<(usize, usize)> {
        let lists = query.lists.iter().map(|near| Simulated {
            list: near.list,
            term: near.term,
            radius: self.sample.radii[near.list as usize],
            distances: &group.distances[near.block][near.part.clone()],
            nearest: near.nearest,
        });
        simulate((self.sample.space, self.sample.norm2), lists, &near.lists, goal, limits)
    }
}
