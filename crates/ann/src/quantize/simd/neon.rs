//! NEON. Only the look-ups are written by hand; the compiler vectorises the rest.

use super::{Kernels, compiled_for, portable};
use crate::quantize::BLOCK;
use crate::quantize::code::LEVELS;
use crate::quantize::fastscan::{self, BlockFactors, ScanTerm};
use std::arch::aarch64::*;

pub(super) static KERNELS: Kernels = Kernels {
    name: "neon",
    accumulate,
    bounds: portable::bounds,
    scan,
    fill_table: fastscan::fill_table,
    dot_code8: portable::dot_code8,
    dot_code4,
    decode_code8,
    decode_code4,
    rotate,
    encode_sketch,
    encode_code8,
    encode_code4,
};

compiled_for!("neon");

/// Groups whose table values fit a u16 sum: 256 × 255 < 65,536.
const CHUNK: usize = 256 * 16;

#[target_feature(enable = "neon")]
fn accumulate(groups: &[u8], lut: &[u8], sums: &mut [u32; BLOCK]) {
    for (groups, lut) in groups.chunks(CHUNK).zip(lut.chunks(CHUNK)) {
        // u16 sums of the entries 0..8, 8..16, 16..24, 24..32.
        let mut part = [[0u16; 8]; 4];
        // SAFETY: NEON is enabled. Every load and store is of a whole array of the size that the instruction moves.
        #[allow(unused_unsafe)]
        unsafe {
            let nibble = vdupq_n_u8(15);
            let mut acc = [vdupq_n_u16(0); 4];
            for (group, lut) in groups.as_chunks::<16>().0.iter().zip(lut.as_chunks::<16>().0) {
                let (group, lut) = (vld1q_u8(group.as_ptr()), vld1q_u8(lut.as_ptr()));
                let low = vqtbl1q_u8(lut, vandq_u8(group, nibble));
                let high = vqtbl1q_u8(lut, vshrq_n_u8::<4>(group));
                acc[0] = vaddw_u8(acc[0], vget_low_u8(low));
                acc[1] = vaddw_u8(acc[1], vget_high_u8(low));
                acc[2] = vaddw_u8(acc[2], vget_low_u8(high));
                acc[3] = vaddw_u8(acc[3], vget_high_u8(high));
            }
            for (part, acc) in part.iter_mut().zip(acc) {
                vst1q_u16(part.as_mut_ptr(), acc);
            }
        }
        for (sum, part) in sums.iter_mut().zip(part.as_flattened()) {
            *sum += u32::from(*part);
        }
    }
}

#[target_feature(enable = "neon")]
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
    portable::bounds(term, &sums, f, estimate, lower)
}

/// 16 lanes; the levels of 16 codes are looked up by one table instruction.
#[target_feature(enable = "neon")]
fn dot_code4(q: &[f32], code: &[u8]) -> f32 {
    let ((q, q_rest), (code, code_rest)) = (q.as_chunks::<16>(), code.as_chunks::<8>());
    let mut lanes = [0f32; 16];
    // SAFETY: NEON is enabled. Every load and store is of as many elements of an array as the instruction moves.
    #[allow(unused_unsafe)]
    unsafe {
        let table = vld1q_s8(LEVELS.as_ptr());
        let mut sums = [vdupq_n_f32(0.0); 4];
        for (q, code) in q.iter().zip(code) {
            let code = vld1_u8(code.as_ptr());
            let numbers = vzip_u8(vand_u8(code, vdup_n_u8(15)), vshr_n_u8::<4>(code));
            let u = vqtbl1q_s8(table, vcombine_u8(numbers.0, numbers.1));
            let halves = [vmovl_s8(vget_low_s8(u)), vmovl_s8(vget_high_s8(u))];
            for (i, half) in halves.into_iter().enumerate() {
                let (low, high) = (vmovl_s16(vget_low_s16(half)), vmovl_s16(vget_high_s16(half)));
                let at = q.as_ptr().add(8 * i);
                sums[2 * i] = vfmaq_f32(sums[2 * i], vld1q_f32(at), vcvtq_f32_s32(low));
                sums[2 * i + 1] = vfmaq_f32(sums[2 * i + 1], vld1q_f32(at.add(4)), vcvtq_f32_s32(high));
            }
        }
        for (lanes, sums) in lanes.as_chunks_mut::<4>().0.iter_mut().zip(sums) {
            vst1q_f32(lanes.as_mut_ptr(), sums);
        }
    }
    for ((lane, q), byte) in lanes.as_chunks_mut::<2>().0.iter_mut().zip(q_rest.chunks_exact(2)).zip(code_rest) {
        lane[0] += q[0] * f32::from(LEVELS[usize::from(byte & 15)]);
        lane[1] += q[1] * f32::from(LEVELS[usize::from(byte >> 4)]);
    }
    lanes.iter().sum()
}
