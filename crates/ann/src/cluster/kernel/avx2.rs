//! AVX2 with FMA: tiles of 4 rows × up to 24 centroids, 12 accumulators.

use std::arch::x86_64::*;

use super::{Best, Kernel, TILE_ROWS, Tile};

const LANES: usize = 8;
const ROWS: usize = 4;

pub(super) static KERNEL: Kernel = Kernel {
    name: "avx2",
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
    crate::cluster::kernel::plain::row_loops!("avx2,fma");
}

pub(super) fn supported() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// ‖c‖² − 2x·c of a tile.
///
/// # Safety
/// `tile` must be valid for `W` vectors a dimension.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn product<const W: usize>(tile: &Tile) -> [[__m256; W]; ROWS] {
    let mut sums = [[_mm256_setzero_ps(); W]; ROWS];
    for dim in 0..tile.dims {
        let mut centroids = [_mm256_setzero_ps(); W];
        for (w, vector) in centroids.iter_mut().enumerate() {
            // SAFETY: the panel holds `dims * W * LANES` values.
            *vector = unsafe { _mm256_loadu_ps(tile.panel.add((dim * W + w) * LANES)) };
        }
        for (row, sums) in tile.rows.iter().zip(&mut sums) {
            // SAFETY: every row holds `dims` values.
            let value = _mm256_set1_ps(unsafe { *row.add(dim) });
            for (sum, vector) in sums.iter_mut().zip(centroids) {
                *sum = _mm256_fmadd_ps(value, vector, *sum);
            }
        }
    }
    for w in 0..W {
        // SAFETY: there are `W * LANES` norms.
        let norm = unsafe { _mm256_loadu_ps(tile.norms.add(w * LANES)) };
        for sums in &mut sums {
            sums[w] = _mm256_fnmadd_ps(_mm256_set1_ps(2.0), sums[w], norm);
        }
    }
    sums
}

/// # Safety
/// As [`product`]; the states must be valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn nearest_of<const W: usize>(tile: &Tile, states: &[*mut Best; TILE_ROWS]) {
    // SAFETY: the caller's promise.
    let scores = unsafe { product::<W>(tile) };
    let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (&state, scores) in states.iter().zip(scores) {
        // SAFETY: the states are valid and used one at a time.
        let state = unsafe { &mut *state };
        // SAFETY: a state holds more than LANES scores and positions.
        let (mut best, mut position) =
            unsafe { (_mm256_loadu_ps(state.score.as_ptr()), _mm256_loadu_ps(state.position.as_ptr().cast())) };
        for (w, score) in scores.into_iter().enumerate() {
            let less = _mm256_cmp_ps::<_CMP_LT_OQ>(score, best);
            best = _mm256_blendv_ps(best, score, less);
            let here = _mm256_add_epi32(lane, _mm256_set1_epi32((tile.first as usize + w * LANES) as i32));
            position = _mm256_blendv_ps(position, _mm256_castsi256_ps(here), less);
        }
        // SAFETY: as above.
        unsafe {
            _mm256_storeu_ps(state.score.as_mut_ptr(), best);
            _mm256_storeu_ps(state.position.as_mut_ptr().cast(), position);
        }
    }
}

/// # Safety
/// As [`product`]; each of `outs` must have room for `W * LANES` values.
#[target_feature(enable = "avx2,fma")]
unsafe fn scores_of<const W: usize>(tile: &Tile, outs: &[*mut f32; TILE_ROWS]) {
    // SAFETY: the caller's promise.
    let scores = unsafe { product::<W>(tile) };
    for (&out, scores) in outs.iter().zip(scores) {
        for (w, score) in scores.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { _mm256_storeu_ps(out.add(w * LANES), score) };
        }
    }
}

#[target_feature(enable = "avx2,fma")]
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

#[target_feature(enable = "avx2,fma")]
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
