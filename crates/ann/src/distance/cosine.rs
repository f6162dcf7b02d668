//! Cosine distance.

use super::{Element, simd};

/// (Σ aᵢbᵢ, Σ aᵢ², Σ bᵢ²) in one pass.
#[inline]
pub fn cosine_terms<T: Element>(a: &[T], b: &[T]) -> (f32, f32, f32) {
    simd::active().cosine_terms(a, b)
}

/// 1 − cos∠(a, b), in 0 ..= 2; NaN when a vector has no direction (its squared norm is 0 in f32), as pgvector does.
#[inline]
pub fn cosine_distance<T: Element>(a: &[T], b: &[T]) -> f64 {
    from_terms(cosine_terms(a, b))
}

/// The cosine distance from the sums of [`cosine_terms`].
#[inline]
fn from_terms((dot, norm_a, norm_b): (f32, f32, f32)) -> f64 {
    if norm_a == 0.0 || norm_b == 0.0 {
        return f64::NAN;
    }
    // The product of two f32 is exact in f64 and cannot overflow it. Rounding can push the quotient just past ±1.
    let similarity = f64::from(dot) / (f64::from(norm_a) * f64::from(norm_b)).sqrt();
    1.0 - similarity.clamp(-1.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(cosine_distance(&[1.0f32, 0.0], &[0.0, 2.0]), 1.0);
        assert_eq!(cosine_distance(&[1.0f32, 1.0], &[-3.0, -3.0]), 2.0);
        assert_eq!(cosine_distance(&[3.0f32, 4.0], &[6.0, 8.0]), 0.0);
        assert!(cosine_distance(&[0.0f32, 0.0], &[1.0, 1.0]).is_nan());
        assert!(cosine_distance(&[1e-30f32, 0.0], &[1e10, 1.0]).is_nan());
        assert!(cosine_distance::<f32>(&[], &[]).is_nan());
    }

    #[test]
    fn quotient_is_clamped() {
        assert_eq!(from_terms((1.0001, 1.0, 1.0)), 0.0);
        assert_eq!(from_terms((-1.0001, 1.0, 1.0)), 2.0);
        assert!(from_terms((f32::INFINITY, f32::INFINITY, f32::INFINITY)).is_nan());
    }
}
