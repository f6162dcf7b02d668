//! NEON, which every aarch64 has: 4 f32 lanes.

use std::arch::aarch64::*;
use std::ptr;

use super::{FloatKernels, Kernels, portable};
use crate::distance::f16;

pub(super) static KERNELS: Kernels = kernel_table!("neon", hamming, jaccard_terms);

type V = float32x4_t;
const LANES: usize = 4;

float_kernels!("neon");

/// What the float kernels can read, widened to f32.
trait Load: Copy + Default {
    /// Reads `LANES` elements.
    unsafe fn load(from: *const Self) -> V;

    /// Reads n elements, 0 < n < `LANES`; the other lanes are 0.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load_tail(from: *const Self, n: usize) -> V {
        debug_assert!(0 < n && n < LANES);
        let mut padded = [Self::default(); LANES];
        // SAFETY: the caller grants n readable elements, and n < LANES of them fit the array.
        unsafe {
            ptr::copy_nonoverlapping(from, padded.as_mut_ptr(), n);
            Self::load(padded.as_ptr())
        }
    }
}

impl Load for f32 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(from: *const f32) -> V {
        // SAFETY: the caller grants 4 readable f32.
        unsafe { vld1q_f32(from) }
    }
}

impl Load for f16 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(from: *const f16) -> V {
        // SAFETY: the caller grants 4 readable f16 (f16 is a transparent u16).
        vcvt_f32_f16(vreinterpret_f16_u16(unsafe { vld1_u16(from.cast()) }))
    }
}

impl Load for i8 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(from: *const i8) -> V {
        // SAFETY: the caller grants 4 readable bytes; read as one unaligned word.
        let word = unsafe { from.cast::<u32>().read_unaligned() };
        let bytes = vreinterpret_s8_u32(vdup_n_u32(word));
        vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn zero() -> V {
    vdupq_n_f32(0.0)
}

#[inline]
#[target_feature(enable = "neon")]
fn add(x: V, y: V) -> V {
    vaddq_f32(x, y)
}

#[inline]
#[target_feature(enable = "neon")]
fn sub(x: V, y: V) -> V {
    vsubq_f32(x, y)
}

#[inline]
#[target_feature(enable = "neon")]
fn abs(x: V) -> V {
    vabsq_f32(x)
}

#[inline]
#[target_feature(enable = "neon")]
fn mul_add(x: V, y: V, sum: V) -> V {
    vfmaq_f32(sum, x, y)
}

/// The sum of the four lanes.
#[inline]
#[target_feature(enable = "neon")]
fn sum(x: V) -> f32 {
    vaddvq_f32(x)
}

/// Bits that differ.
#[target_feature(enable = "neon")]
fn hamming(a: &[u8], b: &[u8]) -> u64 {
    let n = a.len().min(b.len());
    let (a_blocks, a_tail) = a[..n].as_chunks::<16>();
    let (b_blocks, b_tail) = b[..n].as_chunks::<16>();
    let mut acc = vdupq_n_u64(0);
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        acc = vaddq_u64(acc, count_ones(veorq_u8(load_block(x), load_block(y))));
    }
    vaddvq_u64(acc) + portable::hamming(a_tail, b_tail)
}

/// (bits in both, bits in either).
#[target_feature(enable = "neon")]
fn jaccard_terms(a: &[u8], b: &[u8]) -> (u64, u64) {
    let n = a.len().min(b.len());
    let (a_blocks, a_tail) = a[..n].as_chunks::<16>();
    let (b_blocks, b_tail) = b[..n].as_chunks::<16>();
    let (mut both, mut either) = (vdupq_n_u64(0), vdupq_n_u64(0));
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        let (x, y) = (load_block(x), load_block(y));
        both = vaddq_u64(both, count_ones(vandq_u8(x, y)));
        either = vaddq_u64(either, count_ones(vorrq_u8(x, y)));
    }
    let tail = portable::jaccard_terms(a_tail, b_tail);
    (vaddvq_u64(both) + tail.0, vaddvq_u64(either) + tail.1)
}

#[inline]
#[target_feature(enable = "neon")]
fn load_block(from: &[u8; 16]) -> uint8x16_t {
    // SAFETY: 16 bytes behind the reference.
    unsafe { vld1q_u8(from.as_ptr()) }
}

/// The number of ones in each 64-bit lane: counted by byte, then added up pairwise.
#[inline]
#[target_feature(enable = "neon")]
fn count_ones(x: uint8x16_t) -> uint64x2_t {
    vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(vcntq_u8(x))))
}

#[target_feature(enable = "neon")]
fn f16_to_f32(src: &[f16], dst: &mut [f32]) {
    let n = src.len().min(dst.len());
    let (src_blocks, src_tail) = src[..n].as_chunks::<LANES>();
    let (dst_blocks, dst_tail) = dst[..n].as_chunks_mut::<LANES>();
    for (from, to) in src_blocks.iter().zip(dst_blocks) {
        // SAFETY: 4 elements behind each reference.
        unsafe { vst1q_f32(to.as_mut_ptr(), f16::load(from.as_ptr())) };
    }
    portable::f16_to_f32(src_tail, dst_tail);
}

#[target_feature(enable = "neon")]
fn f32_to_f16(src: &[f32], dst: &mut [f16]) {
    let n = src.len().min(dst.len());
    let (src_blocks, src_tail) = src[..n].as_chunks::<LANES>();
    let (dst_blocks, dst_tail) = dst[..n].as_chunks_mut::<LANES>();
    for (from, to) in src_blocks.iter().zip(dst_blocks) {
        // SAFETY: 4 elements behind each reference (f16 is a transparent u16). The conversion rounds to nearest, ties
        // to even: the mode that Rust requires of the floating-point control register.
        unsafe {
            let rounded = vcvt_f16_f32(vld1q_f32(from.as_ptr()));
            vst1_u16(to.as_mut_ptr().cast(), vreinterpret_u16_f16(rounded));
        }
    }
    portable::f32_to_f16(src_tail, dst_tail);
}
