//! Filter columns: keys of rows, tests of 32 of them at a time, and summaries of many.
//!
//! Keys are u64 in the order of the values that they stand for, or sets of 64 bits. Bit i of a test's result says whether
//! key i passes.

mod summary;

pub use summary::{RowKeys, Summarizer, Summary};

use crate::quantize::BLOCK;
use std::sync::OnceLock;

/// A column of keys of a block.
pub type Keys = [u64; BLOCK];

/// One instruction set's tests. A value is only handed out after the CPU was found to have the features that its functions
/// were compiled for.
struct Tests {
    within: unsafe fn(&Keys, u64, u64) -> u32,
    overlaps: unsafe fn(&Keys, u64) -> u32,
    contains: unsafe fn(&Keys, u64) -> u32,
}

/// Keys in `low ..= high`.
#[inline]
pub fn within(keys: &Keys, low: u64, high: u64) -> u32 {
    // SAFETY: the CPU has the features (see Tests).
    unsafe { (best().within)(keys, low, high) }
}

/// Keys that share a bit with `bits`.
#[inline]
pub fn overlaps(keys: &Keys, bits: u64) -> u32 {
    // SAFETY: the CPU has the features (see Tests).
    unsafe { (best().overlaps)(keys, bits) }
}

/// Keys that have all of `bits`.
#[inline]
pub fn contains(keys: &Keys, bits: u64) -> u32 {
    // SAFETY: the CPU has the features (see Tests).
    unsafe { (best().contains)(keys, bits) }
}

static PORTABLE: Tests = Tests {
    within: |keys, low, high| mask(keys, |k| low <= k && k <= high),
    overlaps: |keys, bits| mask(keys, |k| k & bits != 0),
    contains: |keys, bits| mask(keys, |k| k & bits == bits),
};

#[inline(always)]
fn mask(keys: &Keys, passes: impl Fn(u64) -> bool) -> u32 {
    keys.iter().enumerate().fold(0, |mask, (i, &key)| mask | u32::from(passes(key)) << i)
}

/// The sets that this CPU can run, slowest first.
fn available() -> Vec<&'static Tests> {
    let mut sets = vec![&PORTABLE];
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") {
            sets.push(&avx2::TESTS);
        }
        if is_x86_feature_detected!("avx512f") {
            sets.push(&avx512::TESTS);
        }
    }
    sets
}

#[inline]
fn best() -> &'static Tests {
    static BEST: OnceLock<&'static Tests> = OnceLock::new();
    BEST.get_or_init(|| available().pop().unwrap_or(&PORTABLE))
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Keys, Tests};
    use std::arch::x86_64::*;

    pub(super) static TESTS: Tests = Tests { within, overlaps, contains };

    /// Bit i: `passes` made lane i all ones.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn mask(keys: &Keys, passes: impl Fn(__m256i) -> __m256i) -> u32 {
        let mut mask = 0;
        for (i, four) in keys.as_chunks::<4>().0.iter().enumerate() {
            // SAFETY: reads exactly the array; the instruction takes any alignment.
            let lanes = passes(unsafe { _mm256_loadu_si256(four.as_ptr().cast()) });
            mask |= (_mm256_movemask_pd(_mm256_castsi256_pd(lanes)) as u32) << (4 * i);
        }
        mask
    }

    #[target_feature(enable = "avx2")]
    fn within(keys: &Keys, low: u64, high: u64) -> u32 {
        if low > high {
            return 0;
        }
        // Moved to the bottom of the signed range, which is what the CPU compares.
        let offset = _mm256_set1_epi64x((low ^ 1 << 63) as i64);
        let span = _mm256_set1_epi64x(((high - low) ^ 1 << 63) as i64);
        !mask(keys, |k| _mm256_cmpgt_epi64(_mm256_sub_epi64(k, offset), span))
    }

    #[target_feature(enable = "avx2")]
    fn overlaps(keys: &Keys, bits: u64) -> u32 {
        let bits = _mm256_set1_epi64x(bits as i64);
        !mask(keys, |k| _mm256_cmpeq_epi64(_mm256_and_si256(k, bits), _mm256_setzero_si256()))
    }

    #[target_feature(enable = "avx2")]
    fn contains(keys: &Keys, bits: u64) -> u32 {
        let bits = _mm256_set1_epi64x(bits as i64);
        mask(keys, |k| _mm256_cmpeq_epi64(_mm256_and_si256(k, bits), bits))
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{Keys, Tests};
    use std::arch::x86_64::*;

    pub(super) static TESTS: Tests = Tests { within, overlaps, contains };

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn mask(keys: &Keys, passes: impl Fn(__m512i) -> u8) -> u32 {
        let mut mask = 0;
        for (i, eight) in keys.as_chunks::<8>().0.iter().enumerate() {
            // SAFETY: reads exactly the array; the instruction takes any alignment.
            mask |= u32::from(passes(unsafe { _mm512_loadu_si512(eight.as_ptr().cast()) })) << (8 * i);
        }
        mask
    }

    #[target_feature(enable = "avx512f")]
    fn within(keys: &Keys, low: u64, high: u64) -> u32 {
        if low > high {
            return 0;
        }
        let (low, span) = (_mm512_set1_epi64(low as i64), _mm512_set1_epi64((high - low) as i64));
        mask(keys, |k| _mm512_cmple_epu64_mask(_mm512_sub_epi64(k, low), span))
    }

    #[target_feature(enable = "avx512f")]
    fn overlaps(keys: &Keys, bits: u64) -> u32 {
        let bits = _mm512_set1_epi64(bits as i64);
        mask(keys, |k| _mm512_test_epi64_mask(k, bits))
    }

    #[target_feature(enable = "avx512f")]
    fn contains(keys: &Keys, bits: u64) -> u32 {
        let bits = _mm512_set1_epi64(bits as i64);
        mask(keys, |k| _mm512_cmpeq_epi64_mask(_mm512_and_si512(k, bits), bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGES: [u64; 8] = [0, 1, 77, (1 << 63) - 1, 1 << 63, (1 << 63) + 1, u64::MAX - 1, u64::MAX];

    fn keys(seed: u64) -> Keys {
        std::array::from_fn(|i| match i % 4 {
            0 => EDGES[(i + seed as usize) / 4 % 8],
            _ => (seed + i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15),
        })
    }

    #[test]
    fn all_sets_agree_with_the_definition() {
        for (set, tests) in available().into_iter().enumerate() {
            for seed in 0..8 {
                let keys = keys(seed);
                let expect = |passes: &dyn Fn(u64) -> bool| {
                    (0..BLOCK).filter(|&i| passes(keys[i])).fold(0_u32, |mask, i| mask | 1 << i)
                };
                let values = || EDGES.into_iter().chain(keys).chain([keys[1] & keys[2]]);
                for low in values() {
                    // SAFETY: only sets that the CPU can run are available.
                    unsafe {
                        for high in values() {
                            let wanted = expect(&|k| low <= k && k <= high);
                            assert_eq!((tests.within)(&keys, low, high), wanted, "{set} {low} {high}");
                        }
                        assert_eq!((tests.overlaps)(&keys, low), expect(&|k| k & low != 0), "{set} {low}");
                        assert_eq!((tests.contains)(&keys, low), expect(&|k| k & low == low), "{set} {low}");
                    }
                }
            }
        }
    }
}
