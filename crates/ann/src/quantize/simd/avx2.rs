//! AVX2 and FMA.

use super::{Kernels, compiled_for};
use crate::quantize::BLOCK;
use crate::quantize::code::LEVELS as CODE_LEVELS;
use crate::quantize::fastscan::{BlockFactors, ScanTerm};
use crate::quantize::sketch::{LARGE, LEVELS};
use std::arch::x86_64::*;

pub(super) static KERNELS: Kernels = Kernels {
    name: "avx2",
    accumulate,
    bounds,
    scan,
    fill_table,
    dot_code8,
    dot_code4,
    decode_code8,
    decode_code4,
    rotate,
    encode_sketch,
    encode_code8,
    encode_code4,
};

compiled_for!("avx2,fma");

/// Groups whose table values fit a u16 sum: 256 × 255 < 65,536.
const CHUNK: usize = 256 * 16;

#[target_feature(enable = "avx2,fma")]
#[inline]
fn load32(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: reads exactly the 32 bytes of the array; the instruction takes any alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn load16(bytes: &[u8; 16]) -> __m256i {
    // SAFETY: reads exactly the 16 bytes of the array; the instruction takes any alignment.
    _mm256_zextsi128_si256(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn load8(x: &[f32; BLOCK], at: usize) -> __m256 {
    let x: &[f32; 8] = &x.as_chunks::<8>().0[at];
    // SAFETY: reads exactly the 8 numbers of the array; the instruction takes any alignment.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}

/// 8 packed factors (see `factor::unpack`).
#[target_feature(enable = "avx2,fma")]
#[inline]
fn unpack8(x: &[u16; BLOCK], at: usize) -> __m256 {
    let x: &[u16; 8] = &x.as_chunks::<8>().0[at];
    // SAFETY: reads exactly the 8 numbers of the array; the instruction takes any alignment.
    let bits = unsafe { _mm_loadu_si128(x.as_ptr().cast()) };
    _mm256_castsi256_ps(_mm256_slli_epi32::<15>(_mm256_cvtepu16_epi32(bits)))
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn store8(x: &mut [f32; BLOCK], at: usize, value: __m256) {
    let x: &mut [f32; 8] = &mut x.as_chunks_mut::<8>().0[at];
    // SAFETY: writes exactly the 8 numbers of the array; the instruction takes any alignment.
    unsafe { _mm256_storeu_ps(x.as_mut_ptr(), value) }
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn load_sums(sums: &[u32; BLOCK], at: usize) -> __m256i {
    let sums: &[u32; 8] = &sums.as_chunks::<8>().0[at];
    // SAFETY: reads exactly the 8 numbers of the array; the instruction takes any alignment.
    unsafe { _mm256_loadu_si256(sums.as_ptr().cast()) }
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn store_sums(sums: &mut [u32; BLOCK], at: usize, value: __m256i) {
    let sums: &mut [u32; 8] = &mut sums.as_chunks_mut::<8>().0[at];
    // SAFETY: writes exactly the 8 numbers of the array; the instruction takes any alignment.
    unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast(), value) }
}

/// u16 sums of 32 entries: one half of a register for each of two groups. A register of bytes is added as u16 to `mixed`,
/// its odd bytes alone to `odd`; the even bytes' sums are then mixed − 256·odd modulo 2¹⁶.
#[derive(Clone, Copy)]
struct Sums16 {
    low_mixed: __m256i,
    low_odd: __m256i,
    high_mixed: __m256i,
    high_odd: __m256i,
}

impl Sums16 {
    /// Adds the table values of two groups.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn add(&mut self, groups: __m256i, lut: __m256i) {
        let nibble = _mm256_set1_epi8(15);
        let low = _mm256_shuffle_epi8(lut, _mm256_and_si256(groups, nibble));
        let high = _mm256_shuffle_epi8(lut, _mm256_and_si256(_mm256_srli_epi16(groups, 4), nibble));
        self.low_mixed = _mm256_add_epi16(self.low_mixed, low);
        self.low_odd = _mm256_add_epi16(self.low_odd, _mm256_srli_epi16(low, 8));
        self.high_mixed = _mm256_add_epi16(self.high_mixed, high);
        self.high_odd = _mm256_add_epi16(self.high_odd, _mm256_srli_epi16(high, 8));
    }
}

/// The u32 sums of 16 entries in two registers.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn widen(mixed: __m256i, odd: __m256i) -> [__m256i; 2] {
    let even = _mm256_sub_epi16(mixed, _mm256_slli_epi16(odd, 8));
    let even = _mm_add_epi16(_mm256_castsi256_si128(even), _mm256_extracti128_si256(even, 1));
    let odd = _mm_add_epi16(_mm256_castsi256_si128(odd), _mm256_extracti128_si256(odd, 1));
    [_mm256_cvtepu16_epi32(_mm_unpacklo_epi16(even, odd)), _mm256_cvtepu16_epi32(_mm_unpackhi_epi16(even, odd))]
}

/// The table sums of 32 entries over all groups.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn sum(groups: &[u8], lut: &[u8]) -> [__m256i; 4] {
    let zero = _mm256_setzero_si256();
    let mut total = [zero; 4];
    for (groups, lut) in groups.chunks(CHUNK).zip(lut.chunks(CHUNK)) {
        let mut sums = Sums16 { low_mixed: zero, low_odd: zero, high_mixed: zero, high_odd: zero };
        let ((pairs, rest), (luts, lut_rest)) = (groups.as_chunks::<32>(), lut.as_chunks::<32>());
        let ((twos, one), (lut_twos, lut_one)) = (pairs.as_chunks::<2>(), luts.as_chunks::<2>());
        for (two, lut) in twos.iter().zip(lut_twos) {
            sums.add(load32(&two[0]), load32(&lut[0]));
            sums.add(load32(&two[1]), load32(&lut[1]));
        }
        if let ([pair], [lut]) = (one, lut_one) {
            sums.add(load32(pair), load32(lut));
        }
        if let (Some(last), Some(lut)) = (rest.first_chunk::<16>(), lut_rest.first_chunk::<16>()) {
            // The absent second group has a table of zeros.
            sums.add(load16(last), load16(lut));
        }
        let low = widen(sums.low_mixed, sums.low_odd);
        let high = widen(sums.high_mixed, sums.high_odd);
        for (total, part) in total.iter_mut().zip([low[0], low[1], high[0], high[1]]) {
            *total = _mm256_add_epi32(*total, part);
        }
    }
    total
}

#[target_feature(enable = "avx2,fma")]
fn accumulate(groups: &[u8], lut: &[u8], sums: &mut [u32; BLOCK]) {
    for (i, part) in sum(groups, lut).into_iter().enumerate() {
        let total = _mm256_add_epi32(load_sums(sums, i), part);
        store_sums(sums, i, total);
    }
}

/// The same operations in the same order as the portable kernel, 8 entries at a time.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn bound(
    term: &ScanTerm,
    sums: [__m256i; 4],
    f: &BlockFactors,
    estimate: &mut [f32; BLOCK],
    lower: &mut [f32; BLOCK],
) -> u32 {
    let mut mask = 0;
    for (i, sum) in sums.into_iter().enumerate() {
        let scale = unpack8(f.scale, i);
        let dot = _mm256_add_ps(
            _mm256_set1_ps(term.base),
            _mm256_mul_ps(_mm256_set1_ps(term.delta), _mm256_cvtepi32_ps(sum)),
        );
        let known = _mm256_add_ps(_mm256_set1_ps(term.a), load8(f.constant, i));
        let e = _mm256_sub_ps(known, _mm256_mul_ps(scale, dot));
        let width = _mm256_add_ps(
            _mm256_mul_ps(unpack8(f.error, i), _mm256_set1_ps(term.deviations)),
            _mm256_mul_ps(scale, _mm256_set1_ps(term.slack)),
        );
        let l = _mm256_sub_ps(e, width);
        // min and max return their second operand for a NaN.
        let (least, most) = (_mm256_set1_ps(f32::MIN), _mm256_set1_ps(f32::MAX));
        store8(estimate, i, _mm256_max_ps(_mm256_min_ps(e, most), least));
        let l = _mm256_min_ps(_mm256_max_ps(l, least), most);
        store8(lower, i, l);
        let below = _mm256_cmp_ps::<_CMP_LT_OQ>(l, _mm256_set1_ps(term.threshold));
        mask |= (_mm256_movemask_ps(below) as u32) << (8 * i);
    }
    mask
}

#[target_feature(enable = "avx2,fma")]
fn bounds(
    term: &ScanTerm,
    sums: &[u32; BLOCK],
    f: &BlockFactors,
    estimate: &mut [f32; BLOCK],
    lower: &mut [f32; BLOCK],
) -> u32 {
    let sums = [load_sums(sums, 0), load_sums(sums, 1), load_sums(sums, 2), load_sums(sums, 3)];
    bound(term, sums, f, estimate, lower)
}

#[target_feature(enable = "avx2,fma")]
fn scan(
    groups: &[u8],
    lut: &[u8],
    term: &ScanTerm,
    f: &BlockFactors,
    estimate: &mut [f32; BLOCK],
    lower: &mut [f32; BLOCK],
) -> u32 {
    bound(term, sum(groups, lut), f, estimate, lower)
}

/// The sum of 32 lanes.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn sum_lanes(lanes: [__m256; 4]) -> f32 {
    let all = _mm256_add_ps(_mm256_add_ps(lanes[0], lanes[1]), _mm256_add_ps(lanes[2], lanes[3]));
    let x = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps(x, x, 1)))
}

/// 32 lanes; codes are widened to f32, 8 at a time.
#[target_feature(enable = "avx2,fma")]
fn dot_code8(q: &[f32], code: &[u8]) -> f32 {
    let ((q, q_rest), (code, code_rest)) = (q.as_chunks::<8>(), code.as_chunks::<8>());
    let mut lanes = [_mm256_setzero_ps(); 4];
    let step = |lane: &mut __m256, q: &[f32; 8], code: &[u8; 8]| {
        // SAFETY: both loads read exactly the 8 elements of an array; the instructions take any alignment.
        let (q, code) = unsafe { (_mm256_loadu_ps(q.as_ptr()), _mm_loadl_epi64(code.as_ptr().cast())) };
        *lane = _mm256_fmadd_ps(q, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(code)), *lane);
    };
    let ((q4, q1), (code4, code1)) = (q.as_chunks::<4>(), code.as_chunks::<4>());
    for (q, code) in q4.iter().zip(code4) {
        for i in 0..4 {
            step(&mut lanes[i], &q[i], &code[i]);
        }
    }
    for (i, (q, code)) in q1.iter().zip(code1).enumerate() {
        step(&mut lanes[i], q, code);
    }
    let rest: f32 = q_rest.iter().zip(code_rest).map(|(q, u)| q * f32::from(*u as i8)).sum();
    sum_lanes(lanes) + rest
}

/// 32 lanes, as [`dot_code8`]; the levels of 16 codes are looked up by a byte shuffle.
#[target_feature(enable = "avx2,fma")]
fn dot_code4(q: &[f32], code: &[u8]) -> f32 {
    // SAFETY: reads exactly the 16 bytes of the array; the instruction takes any alignment.
    let table = unsafe { _mm_loadu_si128(CODE_LEVELS.as_ptr().cast()) };
    let nibble = _mm_set1_epi8(15);
    let ((q, q_rest), (code, code_rest)) = (q.as_chunks::<16>(), code.as_chunks::<8>());
    let mut lanes = [_mm256_setzero_ps(); 4];
    for (i, (q, code)) in q.iter().zip(code).enumerate() {
        // SAFETY: the loads read exactly the 8 bytes and the 2 × 8 numbers of arrays, at any alignment.
        let (code, low, high) = unsafe {
            (_mm_loadl_epi64(code.as_ptr().cast()), _mm256_loadu_ps(q.as_ptr()), _mm256_loadu_ps(q.as_ptr().add(8)))
        };
        let (even, odd) = (_mm_and_si128(code, nibble), _mm_and_si128(_mm_srli_epi16::<4>(code), nibble));
        let u = _mm_shuffle_epi8(table, _mm_unpacklo_epi8(even, odd));
        let widen = |u| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(u));
        let at = i % 2 * 2;
        lanes[at] = _mm256_fmadd_ps(low, widen(u), lanes[at]);
        lanes[at + 1] = _mm256_fmadd_ps(high, widen(_mm_srli_si128::<8>(u)), lanes[at + 1]);
    }
    let rest = |(q, byte): (&[f32], &u8)| {
        q[0] * f32::from(CODE_LEVELS[usize::from(byte & 15)]) + q[1] * f32::from(CODE_LEVELS[usize::from(byte >> 4)])
    };
    sum_lanes(lanes) + q_rest.chunks_exact(2).zip(code_rest).map(rest).sum::<f32>()
}

/// The same operations in the same order as the portable kernel: 8 values in a register, two groups at a time.
#[target_feature(enable = "avx2,fma")]
pub(super) fn fill_table(q: &[f32], inverse: f32, lut: &mut [u8]) {
    let [a, b, c, d] = LEVELS;
    let even = _mm256_setr_ps(a, b, c, d, a, b, c, d);
    let odd_low = _mm256_setr_ps(a, a, a, a, b, b, b, b);
    let odd_high = _mm256_setr_ps(c, c, c, c, d, d, d, d);
    // Where the quadruples of bytes stand after the two packings, which work within halves.
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let group = |pair: &[f32]| {
        let (x, y) = (pair[0] * inverse, pair[1] * inverse);
        let minimum = LARGE * (x.abs() + y.abs());
        let (x, y) = (_mm256_set1_ps(x), _mm256_set1_ps(y));
        let base = _mm256_add_ps(_mm256_mul_ps(even, x), _mm256_set1_ps(minimum));
        let low = _mm256_cvtps_epi32(_mm256_add_ps(base, _mm256_mul_ps(odd_low, y)));
        let high = _mm256_cvtps_epi32(_mm256_add_ps(base, _mm256_mul_ps(odd_high, y)));
        _mm256_packus_epi32(low, high)
    };
    for (pairs, lut) in q.as_chunks::<4>().0.iter().zip(lut.as_chunks_mut::<32>().0) {
        let bytes = _mm256_packus_epi16(group(&pairs[..2]), group(&pairs[2..]));
        // SAFETY: writes exactly the 32 bytes of the array; the instruction takes any alignment.
        unsafe { _mm256_storeu_si256(lut.as_mut_ptr().cast(), _mm256_permutevar8x32_epi32(bytes, order)) }
    }
}
