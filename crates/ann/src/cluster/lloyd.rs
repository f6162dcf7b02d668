//! Lloyd's k-means for a moderate number of clusters: every row is compared with every centroid.

use std::ops::Range;

use rayon::prelude::*;

use super::assign::Assigner;
use super::kernel;
use super::random::Random;
use super::space::scale;
use super::{Cancelled, Matrix, Picked};
use crate::memory;

/// Rows a cluster among which k-means++ chooses the first centroids.
const SEED_ROWS: usize = 16;
/// Iterations stop when the sum of distances falls by less than this share.
const ENOUGH: f64 = 1e-3;
/// Rows that are summed in one piece.
const SUM_ROWS: usize = 2048;

/// What to compute.
#[derive(Clone, Copy)]
pub(super) struct Lloyd<'a> {
    pub(super) clusters: usize,
    pub(super) iterations: usize,
    pub(super) seed: u64,
    pub(super) cancelled: &'a (dyn Fn() -> bool + Sync),
}

/// Clusters of some rows; never more than there are distinct rows.
pub(super) struct Clusters {
    dims: usize,
    /// count × dims.
    pub(super) data: Vec<f32>,
    /// The cluster of each row (with the centroids before the last update).
    pub(super) lists: Vec<u32>,
}

impl Clusters {
    pub(super) fn count(&self) -> usize {
        self.data.len() / self.dims
    }
}

/// k-means of `rows` (at least one), seeded by k-means++ on a subsample. A cluster that loses all rows keeps its centroid.
pub(super) fn lloyd(rows: Picked, wanted: &Lloyd) -> Result<Clusters, Cancelled> {
    let (kernel, dims) = (kernel::best(), rows.matrix.dims);
    // Sums of distances neither overflow nor vanish in these units.
    let scale = scale(rows, kernel);
    let mut random = Random::new(wanted.seed);
    let chosen = random.distinct((wanted.clusters * SEED_ROWS).max(64), rows.len());
    let mut data = seed(rows, &chosen, scale, &mut random, wanted)?;
    if data.len() < wanted.clusters * dims && chosen.len() < rows.len() {
        // Many rows are alike: look at all of them.
        let all: Vec<u32> = memory::collected(0..rows.len() as u32);
        data = seed(rows, &all, scale, &mut random, wanted)?;
    }
    let (mut lists, mut distances) = (memory::zeroed(rows.len()), memory::zeroed(rows.len()));
    let mut before = f64::INFINITY;
    for _ in 0..wanted.iterations.max(1) {
        let assigner = Assigner::flat(kernel, Matrix::new(&data, dims));
        assigner.assign_picked(rows, &mut lists, &mut distances, scale, wanted.cancelled)?;
        let members = Members::of(&lists, data.len() / dims);
        data = means(rows, &members, &data, wanted.cancelled)?;
        let now: f64 = distances.iter().map(|&d| f64::from(d)).sum();
        if now >= before * (1.0 - ENOUGH) {
            break;
        }
        before = now;
    }
    Ok(Clusters { dims, data, lists })
}

/// k-means++ among the rows `chosen`: each next centroid is drawn in proportion to the squared distance from those before.
fn seed(rows: Picked, chosen: &[u32], scale: f32, random: &mut Random, wanted: &Lloyd) -> Result<Vec<f32>, Cancelled> {
    let kernel = kernel::best();
    let row = |i: usize| rows.row(chosen[i] as usize);
    let mut data = row(random.below(chosen.len())).to_vec();
    let dims = data.len();
    let mut distances = memory::filled(f32::INFINITY, chosen.len());
    for done in 1..wanted.clusters {
        if (wanted.cancelled)() {
            return Err(Cancelled);
        }
        let last = &data[(done - 1) * dims..];
        distances.par_iter_mut().enumerate().with_min_len(SUM_ROWS).for_each(|(i, distance)| {
            *distance = distance.min((kernel.squared)(row(i), last, scale)).min(f32::MAX);
        });
        let total: f64 = distances.iter().map(|&d| f64::from(d)).sum();
        if total <= 0.0 {
            break;
        }
        let mut left = random.unit() * total;
        let drawn = distances.iter().position(|&distance| {
            left -= f64::from(distance);
            left < 0.0 && distance > 0.0
        });
        // Rounding can leave nothing: then any row that is not yet a centroid.
        let drawn = drawn.or_else(|| distances.iter().rposition(|&distance| distance > 0.0));
        memory::append(&mut data, row(drawn.expect("the total is positive")));
    }
    Ok(data)
}

/// Rows by list.
pub(super) struct Members {
    /// Where each list starts in `order`; one more than there are lists.
    starts: Vec<u32>,
    /// Positions of rows, ascending in each list.
    order: Vec<u32>,
}

impl Members {
    pub(super) fn of(lists: &[u32], count: usize) -> Self {
        let mut starts = memory::zeroed::<u32>(count + 1);
        for &list in lists {
            starts[list as usize + 1] += 1;
        }
        for i in 0..count {
            starts[i + 1] += starts[i];
        }
        let mut next = memory::copied(&starts);
        let mut order = memory::zeroed(lists.len());
        for (row, &list) in lists.iter().enumerate() {
            order[next[list as usize] as usize] = row as u32;
            next[list as usize] += 1;
        }
        Self { starts, order }
    }

    pub(super) fn count(&self) -> usize {
        self.starts.len() - 1
    }

    pub(super) fn list(&self, list: usize) -> &[u32] {
        &self.order[self.starts[list] as usize..self.starts[list + 1] as usize]
    }

    pub(super) fn len(&self, list: usize) -> usize {
        let Range { start, end } = self.starts[list]..self.starts[list + 1];
        (end - start) as usize
    }
}

/// The mean of each list's rows; the centroid in `before` where a list has none. Summed in f64 in the order of the rows.
pub(super) fn means(
    rows: Picked,
    members: &Members,
    before: &[f32],
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<f32>, Cancelled> {
    let (kernel, dims) = (kernel::best(), rows.matrix.dims);
    let sum = |some: &[u32]| {
        let mut sum = vec![0.0f64; dims];
        for (i, &row) in some.iter().enumerate() {
            if let Some(&next) = some.get(i + 1) {
                kernel::prefetch(rows.row(next as usize));
            }
            (kernel.add)(&mut sum, rows.row(row as usize));
        }
        sum
    };
    let mut data = memory::copied(before);
    data.par_chunks_mut(dims).enumerate().try_for_each(|(list, centroid)| {
        if cancelled() {
            return Err(Cancelled);
        }
        let list = members.list(list);
        if list.is_empty() {
            return Ok(());
        }
        let parts: Vec<Vec<f64>> = list.par_chunks(SUM_ROWS).map(sum).collect();
        for (dim, value) in centroid.iter_mut().enumerate() {
            *value = (parts.iter().map(|part| part[dim]).sum::<f64>() / list.len() as f64) as f32;
        }
        Ok(())
    })?;
    Ok(data)
}
