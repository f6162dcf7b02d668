//! Euclidean distance.

use super::{Element, simd};

/// Σ (aᵢ − bᵢ)²: the squared Euclidean distance.
#[inline]
pub fn l2_squared<T: Element>(a: &[T], b: &[T]) -> f32 {
    simd::active().l2_squared(a, b)
}
