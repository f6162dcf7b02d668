//! Taxicab distance.

use super::{Element, simd};

/// Σ |aᵢ − bᵢ|.
#[inline]
pub fn l1<T: Element>(a: &[T], b: &[T]) -> f32 {
    simd::active().l1(a, b)
}
