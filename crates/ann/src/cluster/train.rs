//! Hierarchical, balanced k-means.
//!
//! 1. A coarse k-means of about √lists clusters on a subsample; all rows are assigned to them.
//! 2. Each cluster is split by a k-means of its own into a number of lists in proportion to its rows.
//! 3. Lloyd iterations over all lists with the two-level [`Assigner`]. Each also *repairs*: a list with more than 3 times
//!    the mean is replaced by a k-means of its rows into pieces of about 1.5 times the mean; the places that takes come
//!    from empty lists, then from the smallest ones, whose rows go to their neighbours. Places left over split the
//!    lists with the largest sum of distances.
//! 4. Iterations go on (a few more) until the last assignment shows no empty list and none above 4 times the mean.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};

use rayon::prelude::*;

use super::assign::Assigner;
use super::kernel;
use super::lloyd::{Clusters, Lloyd, Members, lloyd, means};
use super::random::Random;
use super::space::scale;
use super::{Cancelled, Centroids, Matrix, Picked};
use crate::memory;

/// No list holds more than this many times the mean.
const MOST: f64 = 4.0;
/// A list beyond this many times the mean is split, to stay clear of `MOST`.
const SPLIT_ABOVE: f64 = 3.0;
/// Into pieces of about this many times the mean.
const PIECE: f64 = 1.5;
/// Up to this many lists there is no coarse level.
const FLAT_LISTS: usize = 128;
/// Rows a cluster that k-means looks at; more do not move its centroids by much.
const ROWS_A_CLUSTER: usize = 256;
/// Lloyd iterations over all lists.
const REFINEMENTS: usize = 3;
/// Further iterations that repairs may take.
const REPAIRS: usize = 6;

/// What [`train`] is asked for.
#[derive(Clone, Copy)]
pub struct TrainOptions<'a> {
    /// Lists wanted, at least 1.
    pub lists: usize,
    /// Iterations of the k-means of each level, at most (10).
    pub iterations: usize,
    /// Another seed, other centroids.
    pub seed: u64,
    /// Asked about every block of rows, by any thread; `true` stops the training.
    pub cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl Default for TrainOptions<'_> {
    fn default() -> Self {
        Self { lists: 1, iterations: 10, seed: 0, cancelled: &|| false }
    }
}

/// Centroids of `lists` lists: no two alike, none without a row of the sample, and none with more than 4 times the mean
/// unless all its rows are alike.
///
/// There are fewer where the sample has fewer distinct rows (then these are the centroids), or where f32 cannot tell rows
/// apart. An empty sample gives none.
///
/// Memory beyond the sample: 12 bytes a row, about four times the centroids, and a block of rows a thread:
/// about 0.5 MB, and above 1,500 dimensions that of 64 rows (4 MB at 16,000).
pub fn train(sample: Matrix, options: &TrainOptions) -> Result<Centroids, Cancelled> {
    let lists = options.lists.max(1);
    if let Some(data) = few_distinct(sample, lists, options)? {
        return Ok(Centroids { dims: sample.dims, data, beam: None });
    }
    let rows = Picked::all(sample);
    let data = if lists <= FLAT_LISTS {
        let picked = subsample(rows.len(), lists, options.seed);
        lloyd(Picked::some(sample, &picked), &level(options, lists, 0))?.data
    } else {
        hierarchy(sample, lists, options)?
    };
    refine(sample, data, lists, options)
}

/// The k-means of one level.
fn level<'a>(options: &TrainOptions<'a>, clusters: usize, number: u64) -> Lloyd<'a> {
    let seed = Random::new(options.seed ^ number.wrapping_mul(0xA076_1D64_78BD_642F)).next();
    Lloyd { clusters, iterations: options.iterations, seed, cancelled: options.cancelled }
}

/// Rows enough for a k-means of so many clusters.
fn subsample(rows: usize, clusters: usize, seed: u64) -> Vec<u32> {
    Random::new(!seed).distinct(clusters.saturating_mul(ROWS_A_CLUSTER), rows)
}

/// Coarse clusters, each split in proportion to its size.
fn hierarchy(sample: Matrix, lists: usize, options: &TrainOptions) -> Result<Vec<f32>, Cancelled> {
    let coarse = (lists as f64).sqrt().round() as usize;
    let picked = subsample(sample.rows(), coarse, options.seed);
    let clusters = lloyd(Picked::some(sample, &picked), &level(options, coarse, 0))?;
    let (mut assigned, mut distances) = (memory::zeroed(sample.rows()), memory::zeroed(sample.rows()));
    let assigner = Assigner::flat(kernel::best(), Matrix::new(&clusters.data, sample.dims));
    assigner.assign_picked(Picked::all(sample), &mut assigned, &mut distances, 1.0, options.cancelled)?;
    drop(distances);
    let members = Members::of(&assigned, clusters.count());
    let sizes: Vec<usize> = memory::collected((0..members.count()).map(|cluster| members.len(cluster)));
    let parts: Vec<Clusters> = shares(&sizes, lists)
        .par_iter()
        .enumerate()
        .filter(|&(_, &children)| children > 0)
        .map(|(cluster, &children)| {
            let all = members.list(cluster);
            let picked: Vec<u32> =
                memory::collected(subsample(all.len(), children, options.seed).iter().map(|&i| all[i as usize]));
            lloyd(Picked::some(sample, &picked), &level(options, children, 1 + cluster as u64))
        })
        .collect::<Result<_, _>>()?;
    Ok(memory::joined(&parts.iter().map(|part| &part.data[..]).collect::<Vec<&[f32]>>()))
}

/// Divides `total` in proportion to `sizes`: at least 1 for each that is not empty, none more than its size.
fn shares(sizes: &[usize], total: usize) -> Vec<usize> {
    let rows: usize = sizes.iter().sum();
    let mut shares = vec![0; sizes.len()];
    let (mut rows_done, mut given) = (0, 0);
    for (share, &size) in shares.iter_mut().zip(sizes) {
        rows_done += size;
        // Rounding of the running total, so that the shares add up.
        let until = (rows_done as u128 * total as u128 / rows.max(1) as u128) as usize;
        *share = until.saturating_sub(given).max(1).min(size);
        given += *share;
    }
    shares
}

/// Lloyd iterations over all lists, with repairs, until the lists are in order.
fn refine(sample: Matrix, mut data: Vec<f32>, lists: usize, options: &TrainOptions) -> Result<Centroids, Cancelled> {
    let rows = Picked::all(sample);
    let (mut assigned, mut distances) = (memory::zeroed(sample.rows()), memory::zeroed(sample.rows()));
    let refinements = options.iterations.min(REFINEMENTS);
    let scale = scale(rows, kernel::best());
    for pass in 0.. {
        let centroids = Centroids { dims: sample.dims, data, beam: None };
        let mut assigner = Assigner::build(kernel::best(), &centroids, options.cancelled)?;
        if pass < refinements {
            assigner = assigner.roughly();
        }
        assigner.assign_picked(rows, &mut assigned, &mut distances, scale, options.cancelled)?;
        let state = State::of(sample, Members::of(&assigned, centroids.lists()), &distances, lists);
        if pass >= refinements && (state.in_order() || pass >= refinements + REPAIRS) {
            let beam = Some(assigner.reach(rows, options.cancelled)?);
            return Ok(Centroids { beam, data: state.without_empty(&centroids), ..centroids });
        }
        drop(assigner);
        let moved = means(rows, &state.members, &centroids.data, options.cancelled)?;
        data = state.repair(&moved, &level(options, 0, u64::MAX - pass as u64))?;
    }
    unreachable!("the passes end")
}

/// The lists of the sample after an assignment.
struct State<'a> {
    sample: Matrix<'a>,
    members: Members,
    /// Sum of the squared distances of each list's rows.
    spread: Vec<f64>,
    /// Lists wanted.
    wanted: usize,
}

impl<'a> State<'a> {
    fn of(sample: Matrix<'a>, members: Members, distances: &[f32], wanted: usize) -> Self {
        let spread = |list| members.list(list).iter().map(|&row| f64::from(distances[row as usize])).sum();
        let spread = memory::collected((0..members.count()).map(spread));
        Self { sample, members, spread, wanted }
    }

    /// Whether a list has more rows than `times` the mean, and could be split.
    fn exceeds(&self, list: usize, times: f64) -> bool {
        let mean = self.sample.rows() as f64 / self.wanted as f64;
        self.members.len(list) as f64 > times * mean && self.spread[list] > 0.0
    }

    fn in_order(&self) -> bool {
        self.members.count() == self.wanted
            && (0..self.wanted).all(|list| self.members.len(list) > 0 && !self.exceeds(list, MOST))
    }

    /// The centroids of lists with rows.
    fn without_empty(&self, centroids: &Centroids) -> Vec<f32> {
        let kept = (0..centroids.lists()).filter(|&list| self.members.len(list) > 0);
        let mut data = memory::with_room(centroids.data.len());
        kept.for_each(|list| data.extend_from_slice(centroids.matrix().row(list)));
        data
    }

    /// How many lists shall stand in the place of each: 0 drops it, more than 1 splits it.
    fn plan(&self) -> Vec<usize> {
        let mean = self.sample.rows() as f64 / self.wanted as f64;
        let size = |list: usize| self.members.len(list);
        let mut plan: Vec<usize> = (0..self.members.count())
            .map(|list| match size(list) {
                0 => 0,
                rows if self.exceeds(list, SPLIT_ABOVE) => (rows as f64 / (PIECE * mean)).ceil() as usize,
                _ => 1,
            })
            .collect();
        let planned: usize = plan.iter().sum();
        let mut whole: Vec<usize> = (0..plan.len()).filter(|&list| plan[list] == 1).collect();
        if planned > self.wanted {
            whole.sort_by_key(|&list| size(list));
            for &list in whole.iter().take(planned - self.wanted) {
                plan[list] = 0;
            }
        } else {
            whole.retain(|&list| size(list) > 1 && self.spread[list] > 0.0);
            whole.sort_by(|&a, &b| self.spread[b].total_cmp(&self.spread[a]));
            for &list in whole.iter().take(self.wanted - planned) {
                plan[list] = 2;
            }
        }
        plan
    }

    /// The next centroids, from the means of the lists.
    fn repair(&self, means: &[f32], split: &Lloyd) -> Result<Vec<f32>, Cancelled> {
        let means = Matrix::new(means, self.sample.dims);
        let plan = self.plan();
        let pieces = plan.par_iter().enumerate().map(|(list, &pieces)| match pieces {
            0 => Ok(Vec::new()),
            1 => Ok(memory::copied(means.row(list))),
            _ => {
                let rows = Picked::some(self.sample, self.members.list(list));
                Ok(lloyd(rows, &Lloyd { clusters: pieces, seed: split.seed ^ list as u64, ..*split })?.data)
            }
        });
        let pieces: Vec<Result<Vec<f32>, Cancelled>> = memory::collected_in_parallel(pieces);
        if pieces.iter().any(Result::is_err) {
            return Err(Cancelled);
        }
        Ok(memory::joined(&memory::collected(pieces.iter().flatten())))
    }
}

/// A row as a key: equal where its values are (0 and −0 alike).
struct Key<'a>(&'a [f32]);

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Key<'_> {}

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for value in self.0 {
            state.write_u32((value + 0.0).to_bits());
        }
    }
}

/// The distinct rows if there are no more than `most`.
fn few_distinct(sample: Matrix, most: usize, options: &TrainOptions) -> Result<Option<Vec<f32>>, Cancelled> {
    let mut seen = HashSet::new();
    let mut data = Vec::new();
    for index in 0..sample.rows() {
        if index % 256 == 0 && (options.cancelled)() {
            return Err(Cancelled);
        }
        let row = sample.row(index);
        memory::room(&mut seen, 1);
        if seen.insert(Key(row)) {
            if seen.len() > most {
                return Ok(None);
            }
            memory::append(&mut data, row);
        }
    }
    Ok(Some(data))
}
