//! The nearest centroid of many rows.

use std::sync::OnceLock;

use rayon::prelude::*;

use super::kernel::{self, Best, Block, Kernel, Panels};
use super::lloyd::{Lloyd, lloyd};
use super::space::Space;
use super::{Cancelled, Centroids, Matrix, Picked};
use crate::memory;

/// Up to this many lists every row is compared with every centroid.
const FLAT_LISTS: usize = 512;
/// Bytes of rows a block, so that a block stays in the processor's second-level cache.
const BLOCK_BYTES: usize = 384 << 10;
/// Rows whose true nearest centroid tells how far the beam must reach.
const CALIBRATION_ROWS: usize = 4096;
/// Multiplications that this may cost; a quarter of the rows are looked at in any case.
const CALIBRATION_WORK: usize = 1 << 34;
/// Share of the rows looked at that the beam must find; a margin over the 99 % promised.
const CALIBRATION_SHARE: f64 = 0.997;
/// The same for an iteration of k-means, which loses nothing by rows that go to their second nearest centroid.
const ROUGH_SHARE: f64 = 0.95;

/// Finds the nearest centroid (squared L2) of many rows.
///
/// With many lists the search has two levels. The centroids are grouped by k-means around *heads*; of each row, the groups
/// are searched whose head is at most √beam times as far as the nearest head. The beam is so wide that at least 99 % of
/// rows get their true nearest centroid: it is measured by exact search of about 4,000 rows, of the training sample
/// ([`super::train`]) or else of the first call of [`Assigner::assign`].
///
/// Memory: twice the centroids.
pub struct Assigner {
    kernel: &'static Kernel,
    /// lists × dims, as given.
    centroids: Vec<f32>,
    dims: usize,
    space: Space,
    /// All centroids in the groups of `heads`; one group where there are none.
    lists: Panels,
    heads: Option<Panels>,
    /// Share of the rows whose nearest centroid the beam finds.
    share: f64,
    beam: OnceLock<f32>,
}

/// What one thread needs to work on a block of rows.
struct Scratch {
    block: Block,
    norms: Vec<f32>,
    best: Vec<Best>,
    /// rows × positions of the heads.
    scores: Vec<f32>,
    /// Rows of the block that search each group.
    members: Vec<Vec<u32>>,
}

impl Assigner {
    /// Packs the centroids, and groups them where there are many. Panics if there are none.
    pub fn new(centroids: &Centroids) -> Self {
        Self::build(kernel::best(), centroids, &|| false).expect("nothing cancels this")
    }

    pub(super) fn build(
        kernel: &'static Kernel,
        centroids: &Centroids,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Self, Cancelled> {
        let matrix = centroids.matrix();
        let beam = OnceLock::new();
        if let Some(reach) = centroids.beam {
            beam.set(reach).expect("a new lock is empty");
        }
        if centroids.lists() <= FLAT_LISTS {
            return Ok(Self { beam, ..Self::flat(kernel, matrix) });
        }
        let all = Picked::all(matrix);
        let wanted = Lloyd { clusters: groups_for(centroids.lists()), iterations: 10, seed: 0, cancelled };
        let clusters = lloyd(all, &wanted)?;
        let space = Space::of(all, kernel);
        let mut groups = memory::filled(Vec::new(), clusters.count());
        for (list, &group) in clusters.lists.iter().enumerate() {
            memory::push(&mut groups[group as usize], list as u32);
        }
        // A head that has lost its lists must not be the nearest.
        let (numbers, groups): (Vec<usize>, Vec<Vec<u32>>) =
            groups.into_iter().enumerate().filter(|(_, group)| !group.is_empty()).unzip(); // about √lists
        let put = |id: u32, out: &mut [f32]| space.put(kernel, matrix.row(id as usize), out);
        let lists = Panels::new(kernel, matrix.dims, &groups, put);
        let head_rows = Matrix::new(&clusters.data, matrix.dims);
        let one_group = [memory::collected(numbers.iter().map(|&number| number as u32))];
        let put = |id: u32, out: &mut [f32]| space.put(kernel, head_rows.row(id as usize), out);
        let heads = Some(Panels::new(kernel, matrix.dims, &one_group, put));
        let share = CALIBRATION_SHARE;
        let centroids = memory::copied(&centroids.data);
        Ok(Self { kernel, centroids, dims: matrix.dims, space, lists, heads, share, beam })
    }

    /// One level only.
    pub(super) fn flat(kernel: &'static Kernel, centroids: Matrix) -> Self {
        assert!(centroids.rows() > 0, "there is no centroid to assign to");
        let space = Space::of(Picked::all(centroids), kernel);
        let one_group = [memory::collected(0..centroids.rows() as u32)];
        let put = |id: u32, out: &mut [f32]| space.put(kernel, centroids.row(id as usize), out);
        let lists = Panels::new(kernel, centroids.dims, &one_group, put);
        Self {
            kernel,
            centroids: memory::copied(centroids.data),
            dims: centroids.dims,
            space,
            lists,
            heads: None,
            share: CALIBRATION_SHARE,
            beam: OnceLock::new(),
        }
    }

    /// Writes the number of each row's nearest list into `lists`, and its squared distance into `distances` (infinite
    /// where it exceeds f32). Panics where the lengths or dimensions differ.
    ///
    /// For one set of centroids the result of a row depends on that row alone, except that the first call decides on the
    /// beam if the centroids do not come from [`super::train`].
    pub fn assign(&self, rows: Matrix, lists: &mut [u32], distances: &mut [f32]) {
        self.assign_picked(Picked::all(rows), lists, distances, 1.0, &|| false).expect("nothing cancels this");
    }

    /// As [`Assigner::assign`]; `cancelled` is asked about every block of rows.
    pub fn assign_unless(
        &self,
        rows: Matrix,
        lists: &mut [u32],
        distances: &mut [f32],
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), Cancelled> {
        self.assign_picked(Picked::all(rows), lists, distances, 1.0, cancelled)
    }

    /// The centroids.
    pub fn centroids(&self) -> Matrix<'_> {
        Matrix::new(&self.centroids, self.dims)
    }

    /// The instruction set in use.
    pub fn kernel(&self) -> &'static str {
        self.kernel.name
    }

    /// The `n` nearest centroids of one row, nearest first: squared distance and number. Exact.
    pub fn nearest(&self, row: &[f32], n: usize) -> Vec<(f32, u32)> {
        assert_eq!(row.len(), self.dims);
        let mut block = Block::new(1, self.dims);
        self.space.put(self.kernel, row, block.row_mut(0));
        let mut scores = memory::zeroed(self.lists.positions());
        self.lists.scores(&block, 1, &mut scores);
        let mut found: Vec<(f32, u32)> =
            memory::collected((0..).zip(scores).map(|(at, score)| (score, self.lists.id(at))));
        found.retain(|&(_, id)| id != u32::MAX);
        let n = n.min(found.len());
        let order = |a: &(f32, u32), b: &(f32, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
        if n < found.len() {
            found.select_nth_unstable_by(n, order);
            found.truncate(n);
        }
        for entry in &mut found {
            entry.0 = self.squared(row, entry.1, 1.0);
        }
        found.sort_unstable_by(order);
        found
    }

    /// As [`Assigner::assign`], with coordinates times `scale` in the distances.
    pub(super) fn assign_picked(
        &self,
        rows: Picked,
        lists: &mut [u32],
        distances: &mut [f32],
        scale: f32,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), Cancelled> {
        assert!(rows.len() == lists.len() && rows.len() == distances.len() && rows.matrix.dims == self.dims);
        if rows.len() == 0 {
            return Ok(());
        }
        let reach = self.reach(rows, cancelled)?;
        let size = self.block_rows().min(rows.len());
        lists.par_chunks_mut(size).zip(distances.par_chunks_mut(size)).enumerate().try_for_each_init(
            || Scratch::new(self, size),
            |scratch, (number, (lists, distances))| {
                if cancelled() {
                    return Err(Cancelled);
                }
                let first = number * size;
                self.load(scratch, lists.len(), |i| rows.row(first + i));
                self.search(scratch, lists.len(), reach);
                for (i, (list, distance)) in lists.iter_mut().zip(distances).enumerate() {
                    // Of a row or a centroid that is not finite no score is a number: any list will do.
                    *list = match self.lists.id(scratch.best[i].least().1) {
                        u32::MAX => 0,
                        list => list,
                    };
                    *distance = self.squared(rows.row(first + i), *list, scale);
                }
                Ok(())
            },
        )
    }

    /// For iterations of k-means: faster, with the nearest centroid of most rows only.
    pub(super) fn roughly(self) -> Self {
        Self { share: ROUGH_SHARE, beam: OnceLock::new(), ..self }
    }

    /// The beam, which is measured on `rows` if nobody has done so yet.
    pub(super) fn reach(&self, rows: Picked, cancelled: &(dyn Fn() -> bool + Sync)) -> Result<f32, Cancelled> {
        if let Some(&reach) = self.beam.get() {
            return Ok(reach);
        }
        // Outside of the lock: rayon may give a thread that waits for it work of another call that waits as well.
        let measured = self.calibrate(rows, cancelled)?;
        Ok(*self.beam.get_or_init(|| measured))
    }

    /// The ratio of squared distances to heads that finds the nearest centroid of the promised share of rows.
    fn calibrate(&self, rows: Picked, cancelled: &(dyn Fn() -> bool + Sync)) -> Result<f32, Cancelled> {
        let Some(heads) = &self.heads else {
            return Ok(1.0);
        };
        let affordable = CALIBRATION_WORK / self.centroids.len();
        let count = affordable.clamp(CALIBRATION_ROWS / 4, CALIBRATION_ROWS).min(rows.len());
        let picked: Vec<usize> = (0..count).map(|i| i * rows.len() / count).collect();
        let mut ratios = vec![1.0; count];
        let size = self.block_rows().min(count);
        picked.par_chunks(size).zip(ratios.par_chunks_mut(size)).try_for_each_init(
            || Scratch::new(self, size),
            |scratch, (picked, ratios)| {
                if cancelled() {
                    return Err(Cancelled);
                }
                self.load(scratch, picked.len(), |i| rows.row(picked[i]));
                self.search(scratch, picked.len(), f32::INFINITY);
                for (i, ratio) in ratios.iter_mut().enumerate() {
                    let group = self.lists.group_of(scratch.best[i].least().1);
                    let (norm, scores) = (scratch.norms[i], &scratch.scores[i * heads.positions()..]);
                    let nearest = scores[..self.lists.groups()].iter().copied().fold(f32::INFINITY, f32::min);
                    let (nearest, needed) = ((nearest + norm).max(0.0), (scores[group] + norm).max(0.0));
                    *ratio = if needed <= nearest { 1.0 } else { needed / nearest };
                }
                Ok(())
            },
        )?;
        ratios.sort_unstable_by(f32::total_cmp);
        let last = ((count as f64 * self.share).ceil() as usize).clamp(1, count) - 1;
        Ok(ratios[last])
    }

    /// Rows that are worked on together.
    fn block_rows(&self) -> usize {
        (BLOCK_BYTES / (self.dims * size_of::<f32>())).clamp(64, 1024).next_multiple_of(8)
    }

    /// Puts rows into the block.
    fn load<'a>(&self, scratch: &mut Scratch, count: usize, row: impl Fn(usize) -> &'a [f32]) {
        for i in 0..count {
            if i + 1 < count {
                kernel::prefetch(row(i + 1));
            }
            scratch.norms[i] = self.space.put(self.kernel, row(i), scratch.block.row_mut(i));
        }
    }

    /// Finds the best position of the block's first `count` rows.
    fn search(&self, scratch: &mut Scratch, count: usize, reach: f32) {
        let Scratch { block, norms, best, scores, members } = scratch;
        best[..count].fill(Best::NONE);
        for members in members.iter_mut() {
            members.clear();
        }
        if let Some(heads) = &self.heads {
            let (groups, stride) = (self.lists.groups(), heads.positions());
            heads.scores(block, count, scores);
            for i in 0..count {
                let scores = &scores[i * stride..][..groups];
                let least = scores.iter().copied().fold(f32::INFINITY, f32::min);
                let nearest = (least + norms[i]).max(0.0);
                // In terms of the score; at least the nearest head passes, whatever rounding did.
                let limit = if reach.is_finite() { nearest * reach - norms[i] } else { f32::INFINITY };
                let limit = limit.max(nearest - norms[i]).next_up().max(least);
                for (&score, members) in scores.iter().zip(members.iter_mut()) {
                    if score <= limit {
                        memory::push(members, i as u32);
                    }
                }
            }
        } else {
            members[0].extend(0..count as u32);
        }
        for (group, members) in members.iter().enumerate() {
            self.lists.nearest(group, block, members, best);
        }
    }

    fn squared(&self, row: &[f32], list: u32, scale: f32) -> f32 {
        (self.kernel.squared)(row, &self.centroids[list as usize * self.dims..][..self.dims], scale)
    }
}

impl Scratch {
    fn new(assigner: &Assigner, rows: usize) -> Self {
        let heads = assigner.heads.as_ref().map_or(0, Panels::positions);
        Self {
            block: Block::new(rows, assigner.dims),
            norms: memory::zeroed(rows),
            best: memory::filled(Best::NONE, rows),
            scores: memory::zeroed(rows * heads),
            members: memory::filled(Vec::new(), assigner.lists.groups()),
        }
    }
}

/// Number of groups for so many lists.
fn groups_for(lists: usize) -> usize {
    (lists as f64).sqrt().round() as usize
}
