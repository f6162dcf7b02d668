//! Jaccard distance of packed bits, read as sets.

use super::simd;

/// (|a ∧ b|, |a ∨ b|) in one pass. Unused bits of the last byte must be 0.
#[inline]
pub fn jaccard_terms(a: &[u8], b: &[u8]) -> (u64, u64) {
    simd::active().jaccard_terms(a, b)
}

/// 1 − |a ∧ b| / |a ∨ b|; 1 when nothing is shared, also for two empty sets, as pgvector does.
#[inline]
pub fn jaccard(a: &[u8], b: &[u8]) -> f64 {
    match jaccard_terms(a, b) {
        (0, _) => 1.0,
        (both, either) => 1.0 - both as f64 / either as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(jaccard(&[0b1111_0000], &[0b1111_0000]), 0.0);
        assert_eq!(jaccard(&[0b1110_0000], &[0b0111_0000]), 0.5);
        assert_eq!(jaccard(&[0b1000_0000], &[0b0100_0000]), 1.0);
        assert_eq!(jaccard(&[0], &[0]), 1.0);
        assert_eq!(jaccard(&[], &[]), 1.0);
    }
}
