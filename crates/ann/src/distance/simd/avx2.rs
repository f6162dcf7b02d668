//! AVX2 with FMA, F16C and POPCNT: 8 f32 lanes.

use std::arch::x86_64::*;

use super::{FloatKernels, Kernels, portable};
use crate::distance::f16;

pub(super) static KERNELS: Kernels = kernel_table!("avx2", hamming, jaccard_terms);

type V = __m256;
const LANES: usize = 8;

float_kernels!("avx2,fma,f16c,popcnt");

/// What the float kernels can read, widened to f32.
trait Load: Copy {
    /// Reads `LANES` elements.
    unsafe fn load(from: *const Self) -> V;
    /// Reads n elements, 0 < n < `LANES`; the other lanes are 0.
    unsafe fn load_tail(from: *const Self, n: usize) -> V;
}

impl Load for f32 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,popcnt")]
    unsafe fn load(from: *const f32) -> V {
        // SAFETY: the caller grants 8 readable f32; the load needs no alignment.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,popcnt")]
    unsafe fn load_tail(from: *const f32, n: usize) -> V {
        /// Eight lanes from [8 - n] on: n times all ones, then zeros.
        static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        debug_assert!(0 < n && n < LANES);
        // SAFETY: 0 < n < 8, so the mask is read inside MASKS; a masked load touches only the n f32 that the caller
        // grants.
        unsafe {
            let mask = _mm256_loadu_si256(MASKS.as_ptr().add(LANES - n).cast());
            _mm256_maskload_ps(from, mask)
        }
    }
}

impl Load for f16 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,popcnt")]
    unsafe fn load(from: *const f16) -> V {
        // SAFETY: the caller grants 8 readable f16, 16 bytes (f16 is a transparent u16); no alignment needed.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(from.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,popcnt")]
    unsafe fn load_tail(from: *const f16, n: usize) -> V {
        debug_assert!(0 < n && n < LANES);
        let from = from.cast::<u8>();
        let bytes = 2 * n;
        let (low, high) = if bytes > 8 {
            // SAFETY: 8 < bytes < 16 bytes are granted: words at the start and, overlapping it, at the end.
            let (low, last) =
                unsafe { (from.cast::<u64>().read_unaligned(), from.add(bytes - 8).cast::<u64>().read_unaligned()) };
            (low, last >> (8 * (16 - bytes)))
        } else {
            // SAFETY: 2 <= bytes <= 8 bytes are granted.
            (unsafe { load_bytes(from, bytes) }, 0)
        };
        _mm256_cvtph_ps(_mm_set_epi64x(high as i64, low as i64))
    }
}

impl Load for i8 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,popcnt")]
    unsafe fn load(from: *const i8) -> V {
        // SAFETY: the caller grants 8 readable bytes; no alignment needed.
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(unsafe { _mm_loadl_epi64(from.cast()) }))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,popcnt")]
    unsafe fn load_tail(from: *const i8, n: usize) -> V {
        debug_assert!(0 < n && n < LANES);
        // SAFETY: the caller grants 0 < n < 8 readable bytes.
        let bytes = unsafe { load_bytes(from.cast(), n) };
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(bytes as i64)))
    }
}

/// Reads n bytes, 1 <= n <= 8, into the low bytes of a word; the others are 0. Overlapping reads, no loop.
#[inline(always)]
unsafe fn load_bytes(from: *const u8, n: usize) -> u64 {
    // SAFETY: the caller grants n readable bytes, and every read below lies within 0..n.
    unsafe {
        if n >= 4 {
            let low = u64::from(from.cast::<u32>().read_unaligned());
            let last = u64::from(from.add(n - 4).cast::<u32>().read_unaligned());
            low | last << (8 * (n - 4))
        } else {
            let (first, middle, last) = (*from, *from.add(n / 2), *from.add(n - 1));
            u64::from(first) | u64::from(middle) << (8 * (n / 2)) | u64::from(last) << (8 * (n - 1))
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn zero() -> V {
    _mm256_setzero_ps()
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn add(x: V, y: V) -> V {
    _mm256_add_ps(x, y)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn sub(x: V, y: V) -> V {
    _mm256_sub_ps(x, y)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn abs(x: V) -> V {
    _mm256_andnot_ps(_mm256_set1_ps(-0.0), x)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn mul_add(x: V, y: V, sum: V) -> V {
    _mm256_fmadd_ps(x, y, sum)
}

/// The sum of the eight lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn sum(x: V) -> f32 {
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
}

/// Bits that differ.
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
pub(super) fn hamming(a: &[u8], b: &[u8]) -> u64 {
    let n = a.len().min(b.len());
    let (a_blocks, a_tail) = a[..n].as_chunks::<32>();
    let (b_blocks, b_tail) = b[..n].as_chunks::<32>();
    let mut acc = _mm256_setzero_si256();
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        acc = _mm256_add_epi64(acc, count_ones(_mm256_xor_si256(load_block(x), load_block(y))));
    }
    sum_u64(acc) + portable::hamming(a_tail, b_tail)
}

/// (bits in both, bits in either).
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
pub(super) fn jaccard_terms(a: &[u8], b: &[u8]) -> (u64, u64) {
    let n = a.len().min(b.len());
    let (a_blocks, a_tail) = a[..n].as_chunks::<32>();
    let (b_blocks, b_tail) = b[..n].as_chunks::<32>();
    let (mut both, mut either) = (_mm256_setzero_si256(), _mm256_setzero_si256());
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        let (x, y) = (load_block(x), load_block(y));
        both = _mm256_add_epi64(both, count_ones(_mm256_and_si256(x, y)));
        either = _mm256_add_epi64(either, count_ones(_mm256_or_si256(x, y)));
    }
    let tail = portable::jaccard_terms(a_tail, b_tail);
    (sum_u64(both) + tail.0, sum_u64(either) + tail.1)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn load_block(from: &[u8; 32]) -> __m256i {
    // SAFETY: 32 bytes behind the reference; no alignment needed.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

/// The number of ones in each 64-bit lane: each nibble looked up in a table of 16, then bytes added up.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn count_ones(x: __m256i) -> __m256i {
    let table = _mm256_setr_epi8(
        0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, //
        0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
    );
    let nibble = _mm256_set1_epi8(0x0f);
    let low = _mm256_shuffle_epi8(table, _mm256_and_si256(x, nibble));
    let high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16::<4>(x), nibble));
    _mm256_sad_epu8(_mm256_add_epi8(low, high), _mm256_setzero_si256())
}

/// The sum of the four 64-bit lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn sum_u64(x: __m256i) -> u64 {
    let x = _mm_add_epi64(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
    (_mm_cvtsi128_si64(x) as u64).wrapping_add(_mm_extract_epi64::<1>(x) as u64)
}

#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn f16_to_f32(src: &[f16], dst: &mut [f32]) {
    let n = src.len().min(dst.len());
    let (src_blocks, src_tail) = src[..n].as_chunks::<LANES>();
    let (dst_blocks, dst_tail) = dst[..n].as_chunks_mut::<LANES>();
    for (from, to) in src_blocks.iter().zip(dst_blocks) {
        // SAFETY: 8 elements behind each reference; no alignment needed.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), f16::load(from.as_ptr())) };
    }
    portable::f16_to_f32(src_tail, dst_tail);
}

#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn f32_to_f16(src: &[f32], dst: &mut [f16]) {
    let n = src.len().min(dst.len());
    let (src_blocks, src_tail) = src[..n].as_chunks::<LANES>();
    let (dst_blocks, dst_tail) = dst[..n].as_chunks_mut::<LANES>();
    for (from, to) in src_blocks.iter().zip(dst_blocks) {
        // SAFETY: 8 elements behind each reference (f16 is a transparent u16); no alignment needed.
        unsafe {
            let rounded = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(from.as_ptr()));
            _mm_storeu_si128(to.as_mut_ptr().cast(), rounded);
        }
    }
    portable::f32_to_f16(src_tail, dst_tail);
}
