//! Inner products.

use super::{Element, simd};

/// Σ aᵢbᵢ (not negated: the SQL operator `<#>` is −this).
#[inline]
pub fn inner_product<T: Element>(a: &[T], b: &[T]) -> f32 {
    simd::active().inner_product(a, b)
}

/// Σ aᵢ²: the squared Euclidean norm.
#[inline]
pub fn norm_squared<T: Element>(a: &[T]) -> f32 {
    simd::active().norm_squared(a)
}

/// Σ qᵢcᵢ of a query and the signed grid points of an 8-bit code, unscaled.
#[inline]
pub fn dot_i8(q: &[f32], code: &[i8]) -> f32 {
    simd::active().dot_i8(q, code)
}
