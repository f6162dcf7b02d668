//! AVX-512 F, BW, VL and DQ: 16 f32 lanes, tails by masked loads.

use std::arch::x86_64::*;

use super::{FloatKernels, Kernels, avx2, portable};
use crate::distance::f16;

/// Without VPOPCNTDQ (Skylake-X, Cascade Lake): AVX2's bit kernels.
pub(super) static KERNELS: Kernels = kernel_table!("avx512", avx2::hamming, avx2::jaccard_terms);

/// With VPOPCNTDQ (Ice Lake, Zen 4 and later).
pub(super) static KERNELS_VPOPCNT: Kernels = kernel_table!("avx512-vpopcnt", hamming, jaccard_terms);

type V = __m512;
const LANES: usize = 16;

float_kernels!("avx512f,avx512bw,avx512vl,avx512dq");

/// What the float kernels can read, widened to f32.
trait Load: Copy {
    /// Reads `LANES` elements.
    unsafe fn load(from: *const Self) -> V;
    /// Reads n elements, 0 < n < `LANES`; the other lanes are 0.
    unsafe fn load_tail(from: *const Self, n: usize) -> V;
}

/// The lowest n of 16 lanes.
#[inline(always)]
fn first_lanes(n: usize) -> u16 {
    debug_assert!(0 < n && n < LANES);
    (1u16 << n) - 1
}

impl Load for f32 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn load(from: *const f32) -> V {
        // SAFETY: the caller grants 16 readable f32; the load needs no alignment.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn load_tail(from: *const f32, n: usize) -> V {
        // SAFETY: a masked load touches only the n f32 that the caller grants.
        unsafe { _mm512_maskz_loadu_ps(first_lanes(n), from) }
    }
}

impl Load for f16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn load(from: *const f16) -> V {
        // SAFETY: the caller grants 16 readable f16, 32 bytes (f16 is a transparent u16); no alignment needed.
        _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(from.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn load_tail(from: *const f16, n: usize) -> V {
        // SAFETY: a masked load touches only the n f16 that the caller grants.
        _mm512_cvtph_ps(unsafe { _mm256_maskz_loadu_epi16(first_lanes(n), from.cast()) })
    }
}

impl Load for i8 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn load(from: *const i8) -> V {
        // SAFETY: the caller grants 16 readable bytes; no alignment needed.
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(from.cast()) }))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn load_tail(from: *const i8, n: usize) -> V {
        // SAFETY: a masked load touches only the n bytes that the caller grants.
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(unsafe { _mm_maskz_loadu_epi8(first_lanes(n), from) }))
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn zero() -> V {
    _mm512_setzero_ps()
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn add(x: V, y: V) -> V {
    _mm512_add_ps(x, y)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn sub(x: V, y: V) -> V {
    _mm512_sub_ps(x, y)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn abs(x: V) -> V {
    _mm512_abs_ps(x)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn mul_add(x: V, y: V, sum: V) -> V {
    _mm512_fmadd_ps(x, y, sum)
}

/// The sum of the 16 lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn sum(x: V) -> f32 {
    _mm512_reduce_add_ps(x)
}

/// Defines the loop over two byte slices in pairs of registers, the last one filled up with zeros.
macro_rules! for_each_block {
    ($a:expr, $b:expr, |$x:ident, $y:ident| $body:expr) => {{
        let n = $a.len().min($b.len());
        let (pa, pb) = ($a.as_ptr().cast::<i8>(), $b.as_ptr().cast::<i8>());
        let mut i = 0;
        while i + 64 <= n {
            // SAFETY: i + 64 <= n, so both loads stay inside their slices.
            let ($x, $y) = unsafe { (_mm512_loadu_epi8(pa.add(i)), _mm512_loadu_epi8(pb.add(i))) };
            $body;
            i += 64;
        }
        if i < n {
            let mask = (1u64 << (n - i)) - 1;
            // SAFETY: masked loads touch only the n - i < 64 bytes left in both slices.
            let ($x, $y) =
                unsafe { (_mm512_maskz_loadu_epi8(mask, pa.add(i)), _mm512_maskz_loadu_epi8(mask, pb.add(i))) };
            $body;
        }
    }};
}

/// Bits that differ.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vpopcntdq")]
fn hamming(a: &[u8], b: &[u8]) -> u64 {
    let mut acc = _mm512_setzero_si512();
    for_each_block!(a, b, |x, y| acc = _mm512_add_epi64(acc, _mm512_popcnt_epi64(_mm512_xor_si512(x, y))));
    _mm512_reduce_add_epi64(acc) as u64
}

/// (bits in both, bits in either).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vpopcntdq")]
fn jaccard_terms(a: &[u8], b: &[u8]) -> (u64, u64) {
    let (mut both, mut either) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    for_each_block!(a, b, |x, y| {
        both = _mm512_add_epi64(both, _mm512_popcnt_epi64(_mm512_and_si512(x, y)));
        either = _mm512_add_epi64(either, _mm512_popcnt_epi64(_mm512_or_si512(x, y)));
    });
    (_mm512_reduce_add_epi64(both) as u64, _mm512_reduce_add_epi64(either) as u64)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn f16_to_f32(src: &[f16], dst: &mut [f32]) {
    let n = src.len().min(dst.len());
    let (src_blocks, src_tail) = src[..n].as_chunks::<LANES>();
    let (dst_blocks, dst_tail) = dst[..n].as_chunks_mut::<LANES>();
    for (from, to) in src_blocks.iter().zip(dst_blocks) {
        // SAFETY: 16 elements behind each reference; no alignment needed.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), f16::load(from.as_ptr())) };
    }
    portable::f16_to_f32(src_tail, dst_tail);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn f32_to_f16(src: &[f32], dst: &mut [f16]) {
    let n = src.len().min(dst.len());
    let (src_blocks, src_tail) = src[..n].as_chunks::<LANES>();
    let (dst_blocks, dst_tail) = dst[..n].as_chunks_mut::<LANES>();
    for (from, to) in src_blocks.iter().zip(dst_blocks) {
        // SAFETY: 16 elements behind each reference (f16 is a transparent u16); no alignment needed.
        unsafe {
            let rounded = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm512_loadu_ps(from.as_ptr()));
            _mm256_storeu_si256(to.as_mut_ptr().cast(), rounded);
        }
    }
    portable::f32_to_f16(src_tail, dst_tail);
}
