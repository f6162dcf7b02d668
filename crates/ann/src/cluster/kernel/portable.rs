//! Any processor: tiles of 2 rows × up to 12 centroids, written so that the compiler vectorises them.

use super::{Best, Kernel, TILE_ROWS, Tile, plain};

const LANES: usize = 4;
const ROWS: usize = 2;

pub(super) static KERNEL: Kernel = Kernel {
    name: "portable",
    lanes: LANES,
    rows: ROWS,
    nearest,
    scores,
    squared: plain::squared,
    shifted: plain::shifted,
    largest: plain::largest,
    add: plain::add,
};

/// ‖c‖² − 2x·c of a tile.
///
/// # Safety
/// `tile` must be valid for `W` vectors a dimension.
#[inline]
unsafe fn product<const W: usize>(tile: &Tile) -> [[[f32; LANES]; W]; ROWS] {
    let mut sums = [[[0.0f32; LANES]; W]; ROWS];
    for dim in 0..tile.dims {
        // SAFETY: the panel holds `dims * W * LANES` values.
        let centroids = unsafe { tile.panel.add(dim * W * LANES).cast::<[[f32; LANES]; W]>().read() };
        for (row, sums) in tile.rows.iter().zip(&mut sums) {
            // SAFETY: every row holds `dims` values.
            let value = unsafe { *row.add(dim) };
            for (sum, vector) in sums.iter_mut().zip(centroids) {
                for lane in 0..LANES {
                    sum[lane] += value * vector[lane];
                }
            }
        }
    }
    // SAFETY: there are `W * LANES` norms.
    let norms = unsafe { tile.norms.cast::<[[f32; LANES]; W]>().read() };
    for sums in &mut sums {
        for (sum, norm) in sums.iter_mut().zip(norms) {
            for lane in 0..LANES {
                sum[lane] = norm[lane] - 2.0 * sum[lane];
            }
        }
    }
    sums
}

/// # Safety
/// As [`product`]; the states must be valid.
unsafe fn nearest_of<const W: usize>(tile: &Tile, states: &[*mut Best; TILE_ROWS]) {
    // SAFETY: the caller's promise.
    let scores = unsafe { product::<W>(tile) };
    for (&state, scores) in states.iter().zip(&scores) {
        // SAFETY: the states are valid and used one at a time.
        let state = unsafe { &mut *state };
        for (w, score) in scores.iter().enumerate() {
            for (lane, &score) in score.iter().enumerate() {
                if score < state.score[lane] {
                    state.score[lane] = score;
                    state.position[lane] = tile.first + (w * LANES + lane) as u32;
                }
            }
        }
    }
}

/// # Safety
/// As [`product`]; each of `outs` must have room for `W * LANES` values.
unsafe fn scores_of<const W: usize>(tile: &Tile, outs: &[*mut f32; TILE_ROWS]) {
    // SAFETY: the caller's promise.
    let scores = unsafe { product::<W>(tile) };
    for (&out, scores) in outs.iter().zip(scores) {
        // SAFETY: the caller's promise.
        unsafe { out.cast::<[[f32; LANES]; W]>().write(scores) };
    }
}

unsafe fn nearest(tile: &Tile, width: usize, states: &[*mut Best; TILE_ROWS]) {
    // SAFETY: the caller promises a tile of `width` vectors.
    unsafe {
        match width {
            1 => nearest_of::<1>(tile, states),
            2 => nearest_of::<2>(tile, states),
            3 => nearest_of::<3>(tile, states),
            _ => unreachable!("a panel has one to three vectors"),
        }
    }
}

unsafe fn scores(tile: &Tile, width: usize, outs: &[*mut f32; TILE_ROWS]) {
    // SAFETY: the caller promises a tile of `width` vectors.
    unsafe {
        match width {
            1 => scores_of::<1>(tile, outs),
            2 => scores_of::<2>(tile, outs),
            3 => scores_of::<3>(tile, outs),
            _ => unreachable!("a panel has one to three vectors"),
        }
    }
}
