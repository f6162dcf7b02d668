//! The kernels in plain Rust: the reference for all others.

use super::Kernels;
use crate::quantize::code::{self, LEVELS};
use crate::quantize::fastscan::{BlockFactors, ScanTerm, fill_table};
use crate::quantize::{BLOCK, factor, rotation, sketch};

pub(super) static KERNELS: Kernels = Kernels {
    name: "portable",
    accumulate,
    bounds,
    scan,
    fill_table,
    dot_code8,
    dot_code4,
    decode_code8: code::decode8,
    decode_code4: code::decode4,
    rotate: rotation::rotate,
    encode_sketch: sketch::encode,
    encode_code8: code::encode8,
    encode_code4: code::encode4,
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
        let (scale, error) = (factor::unpack(f.scale[i]), factor::unpack(f.error[i]));
        let e = (term.a + f.constant[i]) - scale * dot;
        let l = e - (error * term.deviations + scale * term.slack);
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
pub(super) fn dot_code8(q: &[f32], code: &[u8]) -> f32 {
    let mut lanes = [0f32; 32];
    let ((q, q_rest), (code, code_rest)) = (q.as_chunks::<32>(), code.as_chunks::<32>());
    for (q, code) in q.iter().zip(code) {
        for j in 0..32 {
            lanes[j] += q[j] * f32::from(code[j] as i8);
        }
    }
    for (lane, (q, u)) in lanes.iter_mut().zip(q_rest.iter().zip(code_rest)) {
        *lane += q * f32::from(*u as i8);
    }
    sum(lanes)
}

/// As [`dot_code8`].
fn dot_code4(q: &[f32], code: &[u8]) -> f32 {
    let mut lanes = [0f32; 32];
    let ((q, q_rest), (code, code_rest)) = (q.as_chunks::<32>(), code.as_chunks::<16>());
    let add = |lanes: &mut [f32], q: &[f32], code: &[u8]| {
        for ((lanes, q), byte) in lanes.chunks_exact_mut(2).zip(q.chunks_exact(2)).zip(code) {
            lanes[0] += q[0] * f32::from(LEVELS[usize::from(byte & 15)]);
            lanes[1] += q[1] * f32::from(LEVELS[usize::from(byte >> 4)]);
        }
    };
    for (q, code) in q.iter().zip(code) {
        add(&mut lanes, q, code);
    }
    add(&mut lanes, q_rest, code_rest);
    sum(lanes)
}

fn sum(mut lanes: [f32; 32]) -> f32 {
    let mut width = 16;
    while width > 0 {
        for j in 0..width {
            lanes[j] += lanes[j + width];
        }
        width /= 2;
    }
    lanes[0]
}
