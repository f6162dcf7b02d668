//! The kernels in plain Rust: the reference for all others.

use super::Kernels;
use crate::quantize::fastscan::{BlockFactors, ScanTerm, fill_table};
use crate::quantize::{BLOCK, code, rotation, sketch};

pub(super) static KERNELS: Kernels = Kernels {
    name: "portable",
    accumulate,
    bounds,
    scan,
    fill_table,
    dot_code,
    decode_code: code::decode,
    rotate: rotation::rotate,
    encode_sketch: sketch::encode,
    encode_code: code::encode,
};

fn accumulate(groups: &[u8], lut: &[u8], sums: &mut [u32; BLOCK]) {
    for (group, lut) in groups.as_chunks::<16>().0.iter().zip(lut.as_chunks::<16>().0) {
        let (low, high) = sums.split_at_mut(16);
        for j in 0..16 {
            low[j] += u32::from(lut[usize::from(group[j] & 15)]);
            high[j] += u32::from(lut[usize::from(group[j] >> 4)]);
        }
    }
}

pub(super) fn bounds(
    term: &ScanTerm,
    sums: &[u32; BLOCK],
    f: &BlockFactors,
    estimate: &mut [f32; BLOCK],
    lower: &mut [f32; BLOCK],
) -> u32 {
    for i in 0..BLOCK {
        // As cvtdq2ps reads it; sums are far below 2³¹.
        let dot = term.base + term.delta * (sums[i] as i32 as f32);
        let e = (term.a + f.constant[i]) - f.scale[i] * dot;
        let l = e - (f.error[i] * term.deviations + f.scale[i] * term.slack);
        // Written as min and max so that a NaN gives the limit.
        let e = if e < f32::MAX { e } else { f32::MAX };
        estimate[i] = if e > f32::MIN { e } else { f32::MIN };
        let l = if l > f32::MIN { l } else { f32::MIN };
        lower[i] = if l < f32::MAX { l } else { f32::MAX };
    }
    let mut mask = 0;
    for (i, lower) in lower.iter().enumerate() {
        mask |= u32::from(*lower < term.threshold) << i;
    }
    mask
}

fn scan(
    groups: &[u8],
    lut: &[u8],
    term: &ScanTerm,
    f: &BlockFactors,
    estimate: &mut [f32; BLOCK],
    lower: &mut [f32; BLOCK],
) -> u32 {
    let mut sums = [0; BLOCK];
    accumulate(groups, lut, &mut sums);
    bounds(term, &sums, f, estimate, lower)
}

/// 32 lanes, then halves onto halves.
pub(super) fn dot_code(q: &[f32], code: &[i8]) -> f32 {
    let mut lanes = [0f32; 32];
    let ((q, q_rest), (code, code_rest)) = (q.as_chunks::<32>(), code.as_chunks::<32>());
    for (q, code) in q.iter().zip(code) {
        for j in 0..32 {
            lanes[j] += q[j] * f32::from(code[j]);
        }
    }
    for (lane, (q, u)) in lanes.iter_mut().zip(q_rest.iter().zip(code_rest)) {
        *lane += q * f32::from(*u);
    }
    let mut width = 16;
    while width > 0 {
        for j in 0..width {
            lanes[j] += lanes[j + width];
        }
        width /= 2;
    }
    lanes[0]
}
