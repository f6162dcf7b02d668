//! Hamming distance of packed bits.

use super::simd;

/// The number of bits that differ. Unused bits of the last byte must be equal (0) in both.
#[inline]
pub fn hamming(a: &[u8], b: &[u8]) -> u64 {
    simd::active().hamming(a, b)
}
