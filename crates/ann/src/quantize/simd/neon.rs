//! NEON. Only the look-ups are written by hand; the compiler vectorises the rest.

use super::{Kernels, compiled_for, portable};
use crate::quantize::BLOCK;
use crate::quantize::fastscan::{self, BlockFactors, ScanTerm};
use std::arch::aarch64::*;

pub(super) static KERNELS: Kernels = Kernels {
    name: "neon",
    accumulate,
    bounds: portable::bounds,
    scan,
    fill_table: fastscan::fill_table,
    dot_code: portable::dot_code,
    decode_code,
    rotate,
    encode_sketch,
    encode_code,
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
