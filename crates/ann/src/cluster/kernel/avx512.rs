//! AVX-512: tiles of 8 rows × up to 48 centroids, 24 accumulators.

use std::arch::x86_64::*;

use super::{Best, Kernel, TILE_ROWS, Tile};

const LANES: usize = 16;
const ROWS: usize = 8;

pub(super) static KERNEL: Kernel = Kernel {
    name: "avx512",
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
    crate::cluster::kernel::plain::row_loops!("avx512f");
}

pub(super) fn supported() -> bool {
    is_x86_feature_detected!("avx512f")
}

/// ‖c‖² − 2x·c of a tile.
///
/// # Safety
/// `tile` must be valid for `W` vectors a dimension.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn product<const W: usize>(tile: &Tile) -> [[__m512; W]; ROWS] {
    let mut sums = [[_mm512_setzero_ps(); W]; ROWS];
    for dim in 0..tile.dims {
        let mut centroids = [_mm512_setzero_ps(); W];
        for (w, vector) in centroids.iter_mut().enumerate() {
            // SAFETY: the panel holds `dims * W * LANES` values.
            *vector = unsafe { _mm512_loadu_ps(tile.panel.add((dim * W + w) * LANES)) };
        }
        for (row, sums) in tile.rows.iter().zip(&mut sums) {
            // SAFETY: every row holds `dims` values.
            let value = _mm512_set1_ps(unsafe { *row.add(dim) });
            for (sum, vector) in sums.iter_mut().zip(centroids) {
                *sum = _mm512_fmadd_ps(value, vector, *sum);
            }
        }
    }
    for w in 0..W {
        // SAFETY: there are `W * LANES` norms.
        let norm = unsafe { _mm512_loadu_ps(tile.norms.add(w * LANES)) };
        for sums in &mut sums {
            sums[w] = _mm512_fnmadd_ps(_mm512_set1_ps(2.0), sums[w], norm);
        }
    }
    sums
}

/// # Safety
/// As [`product`]; the states must be valid.
#[target_feature(enable = "avx512f")]
unsafe fn nearest_of<const W: usize>(tile: &Tile, states: &[*mut Best; TILE_ROWS]) {
    // SAFETY: the caller's promise.
    let scores = unsafe { product::<W>(tile) };
    let lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (&state, scores) in states.iter().zip(scores) {
        // SAFETY: the states are valid and used one at a time.
        let state = unsafe { &mut *state };
        // SAFETY: a state holds LANES scores and positions.
        let (mut best, mut position) =
            unsafe { (_mm512_loadu_ps(state.score.as_ptr()), _mm512_loadu_epi32(state.position.as_ptr().cast())) };
        for (w, score) in scores.into_iter().enumerate() {
            let less = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(score, best);
            best = _mm512_mask_mov_ps(best, less, score);
            let here = _mm512_add_epi32(lane, _mm512_set1_epi32((tile.first as usize + w * LANES) as i32));
            position = _mm512_mask_mov_epi32(position, less, here);
        }
        // SAFETY: as above.
        unsafe {
            _mm512_storeu_ps(state.score.as_mut_ptr(), best);
            _mm512_storeu_epi32(state.position.as_mut_ptr().cast(), position);
        }
    }
}

/// # Safety
/// As [`product`]; each of `outs` must have room for `W * LANES` values.
#[target_feature(enable = "avx512f")]
unsafe fn scores_of<const W: usize>(tile: &Tile, outs: &[*mut f32; TILE_ROWS]) {
    // SAFETY: the caller's promise.
    let scores = unsafe { product::<W>(tile) };
    for (&out, scores) in outs.iter().zip(scores) {
        for (w, score) in scores.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { _mm512_storeu_ps(out.add(w * LANES), score) };
        }
    }
}

#[target_feature(enable = "avx512f")]
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

#[target_feature(enable = "avx512f")]
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
