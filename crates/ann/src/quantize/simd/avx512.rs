//! AVX-512: one set for BW (Skylake-X and later), one for VBMI and VNNI (Ice Lake, Zen 4 and later).

use super::{Kernels, avx2, compiled_for};
use crate::quantize::BLOCK;
use crate::quantize::code::LEVELS;
use crate::quantize::fastscan::{BlockFactors, ScanTerm};
use std::arch::x86_64::*;

pub(super) static KERNELS_BW: Kernels = Kernels {
    name: "avx512bw",
    accumulate: accumulate_bw,
    bounds,
    scan: scan_bw,
    fill_table: avx2::fill_table,
    dot_code8,
    dot_code4,
    decode_code8,
    decode_code4,
    rotate,
    encode_sketch,
    encode_code8,
    encode_code4,
};

pub(super) static KERNELS_VBMI: Kernels = Kernels {
    name: "avx512vbmi",
    accumulate: accumulate_vbmi,
    bounds,
    scan: scan_vbmi,
    fill_table: avx2::fill_table,
    dot_code8,
    dot_code4,
    decode_code8,
    decode_code4,
    rotate,
    encode_sketch,
    encode_code8,
    encode_code4,
};

compiled_for!("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq");

/// Groups whose table values fit a u16 sum: 256 × 255 < 65,536.
const CHUNK: usize = 256 * 16;

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn load64(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: reads exactly the 64 bytes of the array; the instruction takes any alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Up to 64 bytes, the rest zeros.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn load_rest(bytes: &[u8]) -> __m512i {
    let mask = (1u64 << bytes.len().min(63)) - 1;
    // SAFETY: the mask keeps the instruction from touching anything after the slice's bytes (which are fewer than 64).
    unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn load16(x: &[f32; BLOCK], at: usize) -> __m512 {
    let x: &[f32; 16] = &x.as_chunks::<16>().0[at];
    // SAFETY: reads exactly the 16 numbers of the array; the instruction takes any alignment.
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}

/// 16 packed factors (see `factor::unpack`).
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn unpack16(x: &[u16; BLOCK], at: usize) -> __m512 {
    let x: &[u16; 16] = &x.as_chunks::<16>().0[at];
    // SAFETY: reads exactly the 16 numbers of the array; the instruction takes any alignment.
    let bits = unsafe { _mm256_loadu_si256(x.as_ptr().cast()) };
    _mm512_castsi512_ps(_mm512_slli_epi32::<15>(_mm512_cvtepu16_epi32(bits)))
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn store16(x: &mut [f32; BLOCK], at: usize, value: __m512) {
    let x: &mut [f32; 16] = &mut x.as_chunks_mut::<16>().0[at];
    // SAFETY: writes exactly the 16 numbers of the array; the instruction takes any alignment.
    unsafe { _mm512_storeu_ps(x.as_mut_ptr(), value) }
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn load_sums(sums: &[u32; BLOCK], at: usize) -> __m512i {
    let sums: &[u32; 16] = &sums.as_chunks::<16>().0[at];
    // SAFETY: reads exactly the 16 numbers of the array; the instruction takes any alignment.
    unsafe { _mm512_loadu_si512(sums.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn add_sums(sums: &mut [u32; BLOCK], parts: [__m512i; 2]) {
    for (i, part) in parts.into_iter().enumerate() {
        let total = _mm512_add_epi32(load_sums(sums, i), part);
        let sums: &mut [u32; 16] = &mut sums.as_chunks_mut::<16>().0[i];
        // SAFETY: writes exactly the 16 numbers of the array; the instruction takes any alignment.
        unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast(), total) }
    }
}

/// The u32 sums of 16 entries: see `Sums16` of the AVX2 kernels; here a register holds four groups, one a quarter.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
#[inline]
fn widen(mixed: __m512i, odd: __m512i) -> __m512i {
    let even = _mm512_sub_epi16(mixed, _mm512_slli_epi16(odd, 8));
    let fold = |x: __m512i| {
        let x = _mm256_add_epi16(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
        _mm_add_epi16(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1))
    };
    let (even, odd) = (fold(even), fold(odd));
    _mm512_cvtepu16_epi32(_mm256_set_m128i(_mm_unpackhi_epi16(even, odd), _mm_unpacklo_epi16(even, odd)))
}

/// The table sums of 32 entries over all groups, by shuffles within quarters and u16 sums.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
#[inline]
fn sum_bw(groups: &[u8], lut: &[u8]) -> [__m512i; 2] {
    let zero = _mm512_setzero_si512();
    let nibble = _mm512_set1_epi8(15);
    let mut total = [zero; 2];
    for (groups, lut) in groups.chunks(CHUNK).zip(lut.chunks(CHUNK)) {
        let (mut low_mixed, mut low_odd, mut high_mixed, mut high_odd) = (zero, zero, zero, zero);
        let mut add = |groups: __m512i, lut: __m512i| {
            let low = _mm512_shuffle_epi8(lut, _mm512_and_si512(groups, nibble));
            let high = _mm512_shuffle_epi8(lut, _mm512_and_si512(_mm512_srli_epi16(groups, 4), nibble));
            low_mixed = _mm512_add_epi16(low_mixed, low);
            low_odd = _mm512_add_epi16(low_odd, _mm512_srli_epi16(low, 8));
            high_mixed = _mm512_add_epi16(high_mixed, high);
            high_odd = _mm512_add_epi16(high_odd, _mm512_srli_epi16(high, 8));
        };
        let ((fours, rest), (luts, lut_rest)) = (groups.as_chunks::<64>(), lut.as_chunks::<64>());
        for (four, lut) in fours.iter().zip(luts) {
            add(load64(four), load64(lut));
        }
        if !rest.is_empty() {
            add(load_rest(rest), load_rest(lut_rest));
        }
        total[0] = _mm512_add_epi32(total[0], widen(low_mixed, low_odd));
        total[1] = _mm512_add_epi32(total[1], widen(high_mixed, high_odd));
    }
    total
}

/// For byte 4e + g of a register the place of entry e's byte of group g in four groups of 16 bytes.
const TRANSPOSE: [u8; 64] = {
    let mut places = [0; 64];
    let mut i = 0;
    while i < 64 {
        places[i] = (i % 4 * 16 + i / 4) as u8;
        i += 1;
    }
    places
};

/// For byte 4e + g of a register the place of group g's table in the tables of four groups.
const TABLES: [u8; 64] = {
    let mut places = [0; 64];
    let mut i = 0;
    while i < 64 {
        places[i] = (i % 4 * 16) as u8;
        i += 1;
    }
    places
};

/// The table sums of 32 entries over all groups: four groups are first transposed, so that the four nibbles of an entry are
/// neighbours; one permutation looks them up in the tables of all four groups, and VNNI adds the four values to the entry's
/// u32 sum.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,avx512vbmi,avx512vnni")]
#[inline]
fn sum_vbmi(groups: &[u8], lut: &[u8]) -> [__m512i; 2] {
    let zero = _mm512_setzero_si512();
    let (nibble, ones) = (_mm512_set1_epi8(15), _mm512_set1_epi8(1));
    let (transpose, tables) = (load64(&TRANSPOSE), load64(&TABLES));
    let add = |low_sum: &mut __m512i, high_sum: &mut __m512i, groups: __m512i, lut: __m512i| {
        /// (a & b) | c
        const AND_OR: i32 = 0xEA;
        let groups = _mm512_permutexvar_epi8(transpose, groups);
        let low = _mm512_ternarylogic_epi32::<AND_OR>(groups, nibble, tables);
        let high = _mm512_ternarylogic_epi32::<AND_OR>(_mm512_srli_epi16(groups, 4), nibble, tables);
        *low_sum = _mm512_dpbusd_epi32(*low_sum, _mm512_permutexvar_epi8(low, lut), ones);
        *high_sum = _mm512_dpbusd_epi32(*high_sum, _mm512_permutexvar_epi8(high, lut), ones);
    };
    // Two sums each, because a VNNI addition takes several cycles until the next can use its result.
    let (mut low, mut high, mut low2, mut high2) = (zero, zero, zero, zero);
    let ((fours, rest), (luts, lut_rest)) = (groups.as_chunks::<64>(), lut.as_chunks::<64>());
    let ((pairs, single), (lut_pairs, lut_single)) = (fours.as_chunks::<2>(), luts.as_chunks::<2>());
    for (pair, lut) in pairs.iter().zip(lut_pairs) {
        add(&mut low, &mut high, load64(&pair[0]), load64(&lut[0]));
        add(&mut low2, &mut high2, load64(&pair[1]), load64(&lut[1]));
    }
    if let ([four], [lut]) = (single, lut_single) {
        add(&mut low, &mut high, load64(four), load64(lut));
    }
    if !rest.is_empty() {
        add(&mut low2, &mut high2, load_rest(rest), load_rest(lut_rest));
    }
    [_mm512_add_epi32(low, low2), _mm512_add_epi32(high, high2)]
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
fn accumulate_bw(groups: &[u8], lut: &[u8], sums: &mut [u32; BLOCK]) {
    add_sums(sums, sum_bw(groups, lut));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,avx512vbmi,avx512vnni")]
fn accumulate_vbmi(groups: &[u8], lut: &[u8], sums: &mut [u32; BLOCK]) {
    add_sums(sums, sum_vbmi(groups, lut));
}

/// The same operations in the same order as the portable kernel, 16 entries at a time.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn bound(
    term: &ScanTerm,
    sums: [__m512i; 2],
    f: &BlockFactors,
    estimate: &mut [f32; BLOCK],
    lower: &mut [f32; BLOCK],
) -> u32 {
    let mut mask = 0;
    for (i, sum) in sums.into_iter().enumerate() {
        let scale = unpack16(f.scale, i);
        let dot = _mm512_add_ps(
            _mm512_set1_ps(term.base),
            _mm512_mul_ps(_mm512_set1_ps(term.delta), _mm512_cvtepi32_ps(sum)),
        );
        let known = _mm512_add_ps(_mm512_set1_ps(term.a), load16(f.constant, i));
        let e = _mm512_sub_ps(known, _mm512_mul_ps(scale, dot));
        let width = _mm512_add_ps(
            _mm512_mul_ps(unpack16(f.error, i), _mm512_set1_ps(term.deviations)),
            _mm512_mul_ps(scale, _mm512_set1_ps(term.slack)),
        );
        let l = _mm512_sub_ps(e, width);
        // min and max return their second operand for a NaN.
        let (least, most) = (_mm512_set1_ps(f32::MIN), _mm512_set1_ps(f32::MAX));
        store16(estimate, i, _mm512_max_ps(_mm512_min_ps(e, most), least));
        let l = _mm512_min_ps(_mm512_max_ps(l, least), most);
        store16(lower, i, l);
        let below = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(l, _mm512_set1_ps(term.threshold));
        mask |= u32::from(below) << (16 * i);
    }
    mask
}

#[target_feature(enable = "avx512f,avx512bw")]
fn bounds(
    term: &ScanTerm,
    sums: &[u32; BLOCK],
    f: &BlockFactors,
    estimate: &mut [f32; BLOCK],
    lower: &mut [f32; BLOCK],
) -> u32 {
    let sums = [load_sums(sums, 0), load_sums(sums, 1)];
    bound(term, sums, f, estimate, lower)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
fn scan_bw(
    groups: &[u8],
    lut: &[u8],
    term: &ScanTerm,
    f: &BlockFactors,
    estimate: &mut [f32; BLOCK],
    lower: &mut [f32; BLOCK],
) -> u32 {
    bound(term, sum_bw(groups, lut), f, estimate, lower)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,avx512vbmi,avx512vnni")]
fn scan_vbmi(
    groups: &[u8],
    lut: &[u8],
    term: &ScanTerm,
    f: &BlockFactors,
    estimate: &mut [f32; BLOCK],
    lower: &mut [f32; BLOCK],
) -> u32 {
    bound(term, sum_vbmi(groups, lut), f, estimate, lower)
}

/// 64 lanes; codes are widened to f32, 16 at a time.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn dot_code8(q: &[f32], code: &[u8]) -> f32 {
    let mut lanes = [_mm512_setzero_ps(); 4];
    let step = |lane: &mut __m512, q: &[f32; 16], code: &[u8; 16]| {
        // SAFETY: both loads read exactly the 16 elements of an array; the instructions take any alignment.
        let (q, code) = unsafe { (_mm512_loadu_ps(q.as_ptr()), _mm_loadu_si128(code.as_ptr().cast())) };
        *lane = _mm512_fmadd_ps(q, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(code)), *lane);
    };
    let ((q, q_rest), (code, code_rest)) = (q.as_chunks::<16>(), code.as_chunks::<16>());
    let ((q4, q1), (code4, code1)) = (q.as_chunks::<4>(), code.as_chunks::<4>());
    for (q, code) in q4.iter().zip(code4) {
        for i in 0..4 {
            step(&mut lanes[i], &q[i], &code[i]);
        }
    }
    for (i, (q, code)) in q1.iter().zip(code1).enumerate() {
        step(&mut lanes[i], q, code);
    }
    let mask = ((1u32 << q_rest.len().min(code_rest.len())) - 1) as u16;
    // SAFETY: the mask keeps both instructions from touching anything after the slices' elements.
    let (q, code) = unsafe {
        (_mm512_maskz_loadu_ps(mask, q_rest.as_ptr()), _mm_maskz_loadu_epi8(mask, code_rest.as_ptr().cast()))
    };
    lanes[3] = _mm512_fmadd_ps(q, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(code)), lanes[3]);
    _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(lanes[0], lanes[1]), _mm512_add_ps(lanes[2], lanes[3])))
}

/// The levels of 32 codes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn levels(code: __m128i) -> [__m512; 2] {
    // SAFETY: reads exactly the 16 bytes of the array; the instruction takes any alignment.
    let table = unsafe { _mm_loadu_si128(LEVELS.as_ptr().cast()) };
    let nibble = _mm_set1_epi8(15);
    let (even, odd) = (_mm_and_si128(code, nibble), _mm_and_si128(_mm_srli_epi16::<4>(code), nibble));
    [_mm_unpacklo_epi8(even, odd), _mm_unpackhi_epi8(even, odd)]
        .map(|numbers| _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_shuffle_epi8(table, numbers))))
}

/// 64 lanes, as [`dot_code8`]; the levels are looked up by a byte shuffle.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn dot_code4(q: &[f32], code: &[u8]) -> f32 {
    let mut lanes = [_mm512_setzero_ps(); 4];
    let ((q, q_rest), (code, code_rest)) = (q.as_chunks::<32>(), code.as_chunks::<16>());
    for (i, (q, code)) in q.iter().zip(code).enumerate() {
        // SAFETY: the loads read exactly the 16 bytes and the 2 × 16 numbers of arrays, at any alignment.
        let (code, low, high) = unsafe {
            (_mm_loadu_si128(code.as_ptr().cast()), _mm512_loadu_ps(q.as_ptr()), _mm512_loadu_ps(q.as_ptr().add(16)))
        };
        let u = levels(code);
        let at = i % 2 * 2;
        lanes[at] = _mm512_fmadd_ps(low, u[0], lanes[at]);
        lanes[at + 1] = _mm512_fmadd_ps(high, u[1], lanes[at + 1]);
    }
    // Fewer than 16 bytes and than 32 numbers.
    let (bytes, numbers) = ((1u32 << code_rest.len()) - 1, (1u32 << q_rest.len()) - 1);
    let high = &q_rest[q_rest.len().min(16)..];
    // SAFETY: the masks keep the instructions from touching anything after the slices' elements.
    let (code, low, high) = unsafe {
        (
            _mm_maskz_loadu_epi8(bytes as u16, code_rest.as_ptr().cast()),
            _mm512_maskz_loadu_ps(numbers as u16, q_rest.as_ptr()),
            _mm512_maskz_loadu_ps((numbers >> 16) as u16, high.as_ptr()),
        )
    };
    let u = levels(code);
    lanes[2] = _mm512_fmadd_ps(low, u[0], lanes[2]);
    lanes[3] = _mm512_fmadd_ps(high, u[1], lanes[3]);
    _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(lanes[0], lanes[1]), _mm512_add_ps(lanes[2], lanes[3])))
}
