//! NEON: tiles of 8 rows × up to 12 centroids, 24 accumulators.

use std::arch::aarch64::*;

use super::{Best, Kernel, TILE_ROWS, Tile};

const LANES: usize = 4;
const ROWS: usize = 8;

pub(super) static KERNEL: Kernel = Kernel {
    name: "neon",
    lanes: LANES,
    rows: ROWS,
    nearest,
    scores,
    squared: rows::squared,
    shifted: rows::shifted,
    largest: rows::largest,
    add: rows::add,
};

mod rows {
    crate::cluster::kernel::plain::row_loops!("neon");
}

pub(super) fn supported() -> bool {
    std::arch::is_aarch64_feature_detected!("neon")
}

/// ‖c‖² − 2x·c of a tile.
///
/// # Safety
/// `tile` must be valid for `W` vectors a dimension.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn product<const W: usize>(tile: &Tile) -> [[float32x4_t; W]; ROWS] {
    let mut sums = [[vdupq_n_f32(0.0); W]; ROWS];
    for dim in 0..tile.dims {
        let mut centroids = [vdupq_n_f32(0.0); W];
        for (w, vector) in centroids.iter_mut().enumerate() {
            // SAFETY: the panel holds `dims * W * LANES` values.
            *vector = unsafe { vld1q_f32(tile.panel.add((dim * W + w) * LANES)) };
        }
        for (row, sums) in tile.rows.iter().zip(&mut sums) {
            // SAFETY: every row holds `dims` values.
            let value = vdupq_n_f32(unsafe { *row.add(dim) });
            for (sum, vector) in sums.iter_mut().zip(centroids) {
                *sum = vfmaq_f32(*sum, value, vector);
            }
        }
    }
    for w in 0..W {
        // SAFETY: there are `W * LANES` norms.
        let norm = unsafe { vld1q_f32(tile.norms.add(w * LANES)) };
        for sums in &mut sums {
            sums[w] = vfmsq_f32(norm, vdupq_n_f32(2.0), sums[w]);
        }
    }
    sums
}

/// # Safety
/// As [`product`]; the states must be valid.
#[target_feature(enable = "neon")]
unsafe fn nearest_of<const W: usize>(tile: &Tile, states: &[*mut Best; TILE_ROWS]) {
    // SAFETY: the caller's promise.
    let scores = unsafe { product::<W>(tile) };
    // SAFETY: four values are read from an array of four.
    let lane = unsafe { vld1q_u32([0u32, 1, 2, 3].as_ptr()) };
    for (&state, scores) in states.iter().zip(scores) {
        // SAFETY: the states are valid and used one at a time.
        let state = unsafe { &mut *state };
        // SAFETY: a state holds more than LANES scores and positions.
        let (mut best, mut position) = unsafe { (vld1q_f32(state.score.as_ptr()), vld1q_u32(state.position.as_ptr())) };
        for (w, score) in scores.into_iter().enumerate() {
            let less = vcltq_f32(score, best);
            best = vbslq_f32(less, score, best);
            let here = vaddq_u32(lane, vdupq_n_u32(tile.first + (w * LANES) as u32));
            position = vbslq_u32(less, here, position);
        }
        // SAFETY: as above.
        unsafe {
            vst1q_f32(state.score.as_mut_ptr(), best);
            vst1q_u32(state.position.as_mut_ptr(), position);
        }
    }
}

/// # Safety
/// As [`product`]; each of `outs` must have room for `W * LANES` values.
#[target_feature(enable = "neon")]
unsafe fn scores_of<const W: usize>(tile: &Tile, outs: &[*mut f32; TILE_ROWS]) {
    // SAFETY: the caller's promise.
    let scores = unsafe { product::<W>(tile) };
    for (&out, scores) in outs.iter().zip(scores) {
        for (w, score) in scores.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { vst1q_f32(out.add(w * LANES), score) };
        }
    }
}

#[target_feature(enable = "neon")]
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

#[target_feature(enable = "neon")]
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
