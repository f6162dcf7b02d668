//! The products behind k-means: tiles of a few rows × one panel of centroids, with the minimum taken in registers.
//!
//! Centroids are the vector lanes (packed once into [`Panels`]), rows are broadcast from where they lie (never packed, so
//! any selection of rows costs the same). A tile keeps rows × width accumulators in registers over all dimensions, then
//! turns them into scores ‖c‖² − 2x·c and either merges these into the rows' running minima ([`Kernel::nearest`]) or
//! stores them ([`Kernel::scores`]).
//!
//! Why not a crate: measured in processor time on a Zen 5 core (AVX-512, peak 260 GFLOP/s), these kernels reach 200 to 224
//! GFLOP/s with the minimum, the gathering of rows and the final distances included. On 200 × 104 rows times 70 centroids,
//! the size that the two-level search is made of, `matrixmultiply` 0.3.11 reaches 132 and `gemm` 0.18 106 GFLOP/s for the
//! product alone, as both pack the rows anew for each call; on large products 171 to 202 and 114 to 126.
//!
//! One file an instruction set; chosen once at run time.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod plain;
mod portable;

use std::ops::Range;
use std::sync::OnceLock;

use crate::memory;

/// Rows that a tile's argument lists have room for; a kernel uses the first [`Kernel::rows`].
pub(super) const TILE_ROWS: usize = 8;
/// Most lanes of any instruction set.
const MAX_LANES: usize = 16;
/// Vectors a panel, at most.
const MAX_WIDTH: usize = 3;

/// The best score of a row so far, for each lane of the panels that were seen.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Best {
    score: [f32; MAX_LANES],
    /// Position in [`Panels`].
    position: [u32; MAX_LANES],
}

impl Best {
    pub(super) const NONE: Best = Best { score: [f32::INFINITY; MAX_LANES], position: [u32::MAX; MAX_LANES] };

    /// The smallest score and its position; of equal scores the lowest position.
    pub(super) fn least(&self) -> (f32, u32) {
        let mut least = (self.score[0], self.position[0]);
        for lane in 1..MAX_LANES {
            let (score, position) = (self.score[lane], self.position[lane]);
            if score < least.0 || (score == least.0 && position < least.1) {
                least = (score, position);
            }
        }
        least
    }
}

/// What one tile computes: some rows against one panel.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Rows of `dims` values; all valid, repeated where there are fewer.
    rows: [*const f32; TILE_ROWS],
    dims: usize,
    /// `dims × width × lanes` values.
    panel: *const f32,
    /// ‖c‖² of the panel's `width × lanes` centroids; infinite where there is none.
    norms: *const f32,
    /// Position of the panel's first centroid.
    first: u32,
}

type NearestFn = unsafe fn(&Tile, usize, &[*mut Best; TILE_ROWS]);
type ScoresFn = unsafe fn(&Tile, usize, &[*mut f32; TILE_ROWS]);

/// The routines of one instruction set.
pub(super) struct Kernel {
    pub(super) name: &'static str,
    /// Centroids a vector.
    lanes: usize,
    /// Rows a tile.
    rows: usize,
    nearest: NearestFn,
    scores: ScoresFn,
    /// Σ((a−b)·scale)².
    pub(super) squared: fn(&[f32], &[f32], f32) -> f32,
    /// out = clamp(row·scale) − shift; returns Σ out².
    pub(super) shifted: fn(&[f32], f32, &[f32], &mut [f32]) -> f32,
    /// The largest absolute value.
    pub(super) largest: fn(&[f32]) -> f32,
    /// sum += row.
    pub(super) add: fn(&mut [f64], &[f32]),
}

/// All kernels that this machine can run, the fastest first.
pub(super) fn available() -> Vec<&'static Kernel> {
    let mut kernels: Vec<&'static Kernel> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if avx512::supported() {
            kernels.push(&avx512::KERNEL);
        }
        if avx2::supported() {
            kernels.push(&avx2::KERNEL);
        }
    }
    #[cfg(target_arch = "aarch64")]
    if neon::supported() {
        kernels.push(&neon::KERNEL);
    }
    kernels.push(&portable::KERNEL);
    kernels
}

/// The fastest kernel of this machine.
pub(super) fn best() -> &'static Kernel {
    static BEST: OnceLock<&'static Kernel> = OnceLock::new();
    BEST.get_or_init(|| available()[0])
}

/// Has the processor fetch a row that is needed soon: rows picked from many are not what it expects next.
#[inline]
pub(super) fn prefetch(row: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in row.chunks(16) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which needs nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}

/// One panel: up to `width × lanes` centroids at consecutive positions.
#[derive(Clone, Copy)]
struct Panel {
    first: usize,
    width: usize,
}

/// Centroids packed for the tiles, in groups; each group starts a panel of its own.
///
/// A centroid has a *position*; positions left over at the end of a group hold no centroid and never win.
pub(super) struct Panels {
    kernel: &'static Kernel,
    dims: usize,
    panels: Vec<Panel>,
    /// Panels of each group.
    groups: Vec<Range<usize>>,
    /// The panel at position `first` starts at `first * dims`, and holds `width * lanes` values a dimension.
    data: Vec<f32>,
    norms: Vec<f32>,
    /// Caller's number of the centroid at each position, [`u32::MAX`] for none.
    ids: Vec<u32>,
}

impl Panels {
    /// Packs groups of centroids. `groups` lists the numbers of each group's centroids, `put` writes the centroid of a
    /// number (`dims` values) and returns its squared norm.
    pub(super) fn new(
        kernel: &'static Kernel,
        dims: usize,
        groups: &[Vec<u32>],
        mut put: impl FnMut(u32, &mut [f32]) -> f32,
    ) -> Self {
        let lanes = kernel.lanes;
        let positions: usize = groups.iter().map(|ids| ids.len().next_multiple_of(lanes)).sum();
        let mut packed = Panels {
            kernel,
            dims,
            panels: Vec::new(),
            groups: memory::with_room(groups.len()),
            data: memory::zeroed(positions * dims),
            norms: memory::filled(f32::INFINITY, positions),
            ids: memory::filled(u32::MAX, positions),
        };
        let mut centroid = vec![0.0; dims];
        let mut first = 0;
        for ids in groups {
            let start = packed.panels.len();
            let mut vectors = ids.len().div_ceil(lanes);
            let mut ids = ids.as_slice();
            while vectors > 0 {
                // As even as possible: 4 vectors make 2 + 2, not 3 + 1.
                let width = vectors.div_ceil(vectors.div_ceil(MAX_WIDTH));
                let step = width * lanes;
                let (here, rest) = ids.split_at(step.min(ids.len()));
                for (lane, &id) in here.iter().enumerate() {
                    packed.norms[first + lane] = put(id, &mut centroid);
                    packed.ids[first + lane] = id;
                    let panel = &mut packed.data[first * dims..(first + step) * dims];
                    for (dim, &value) in centroid.iter().enumerate() {
                        panel[dim * step + lane] = value;
                    }
                }
                memory::push(&mut packed.panels, Panel { first, width });
                first += step;
                vectors -= width;
                ids = rest;
            }
            packed.groups.push(start..packed.panels.len());
        }
        packed
    }

    pub(super) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// The group of the centroid at `position`.
    pub(super) fn group_of(&self, position: u32) -> usize {
        let panel = self.panels.partition_point(|panel| panel.first <= position as usize) - 1;
        self.groups.partition_point(|panels| panels.end <= panel)
    }

    /// Number of positions: what [`Panels::scores`] writes a row.
    pub(super) fn positions(&self) -> usize {
        self.ids.len()
    }

    /// Number of the centroid at `position`, [`u32::MAX`] for none.
    pub(super) fn id(&self, position: u32) -> u32 {
        self.ids.get(position as usize).copied().unwrap_or(u32::MAX)
    }

    fn tile(&self, panel: Panel) -> Tile {
        let lanes = panel.width * self.kernel.lanes;
        Tile {
            rows: [std::ptr::null(); TILE_ROWS],
            dims: self.dims,
            panel: self.data[panel.first * self.dims..][..lanes * self.dims].as_ptr(),
            norms: self.norms[panel.first..][..lanes].as_ptr(),
            first: panel.first as u32,
        }
    }

    /// Merges the scores of rows `members` of `block` with all centroids of `group` into `best[member]`.
    pub(super) fn nearest(&self, group: usize, block: &Block, members: &[u32], best: &mut [Best]) {
        assert!(block.dims == self.dims);
        let base = best.as_mut_ptr();
        let mut spare = Best::NONE;
        for &panel in &self.panels[self.groups[group].clone()] {
            let mut tile = self.tile(panel);
            for some in members.chunks(self.kernel.rows) {
                let mut states = [&raw mut spare; TILE_ROWS];
                tile.rows = [block.row(some[0] as usize).as_ptr(); TILE_ROWS];
                for (i, &member) in some.iter().enumerate() {
                    assert!((member as usize) < best.len());
                    tile.rows[i] = block.row(member as usize).as_ptr();
                    // SAFETY: `member` is inside `best`, as just checked.
                    states[i] = unsafe { base.add(member as usize) };
                }
                // SAFETY: the kernel was found to be supported when it was chosen. `tile` describes slices whose
                // lengths were checked in `tile()` and `Block::row` (`dims` values a row). The states are valid and
                // the kernel accesses one at a time; repeated members or spares are therefore harmless.
                unsafe { (self.kernel.nearest)(&tile, panel.width, &states) };
            }
        }
    }

    /// Writes the scores of the block's first `rows` rows with all centroids of all groups: `positions()` values a row.
    pub(super) fn scores(&self, block: &Block, rows: usize, out: &mut [f32]) {
        assert!(block.dims == self.dims);
        let positions = self.positions();
        assert!(out.len() >= rows * positions);
        let mut spare = [0.0f32; MAX_WIDTH * MAX_LANES];
        for &panel in &self.panels {
            let mut tile = self.tile(panel);
            let lanes = panel.width * self.kernel.lanes;
            for start in (0..rows).step_by(self.kernel.rows) {
                let mut outs = [spare.as_mut_ptr(); TILE_ROWS];
                tile.rows = [block.row(start).as_ptr(); TILE_ROWS];
                for (i, row) in (start..rows.min(start + self.kernel.rows)).enumerate() {
                    tile.rows[i] = block.row(row).as_ptr();
                    outs[i] = out[row * positions + panel.first..][..lanes].as_mut_ptr();
                }
                // SAFETY: as in `nearest`; each of `outs` has room for the panel's `width * lanes` values.
                unsafe { (self.kernel.scores)(&tile, panel.width, &outs) };
            }
        }
    }
}

/// Rows in the space of the products, ready to be broadcast.
pub(super) struct Block {
    dims: usize,
    stride: usize,
    data: Vec<f32>,
}

impl Block {
    pub(super) fn new(rows: usize, dims: usize) -> Self {
        // An odd number of cache lines a row: rows at multiples of 4 kB would fight for the same lines of the cache.
        let stride = (dims.div_ceil(16) | 1) * 16;
        Self { dims, stride, data: memory::zeroed(rows * stride) }
    }

    pub(super) fn row(&self, index: usize) -> &[f32] {
        &self.data[index * self.stride..][..self.dims]
    }

    pub(super) fn row_mut(&mut self, index: usize) -> &mut [f32] {
        &mut self.data[index * self.stride..][..self.dims]
    }
}
