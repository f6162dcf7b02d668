//! Distances between two vectors of one kind, and the kernels below them.
//!
//! | file | functions | vectors | result |
//! |---|---|---|---|
//! | `l2.rs` | [`l2_squared`] | f32, f16 | Σ (aᵢ − bᵢ)², f32 |
//! | `inner_product.rs` | [`inner_product`], [`norm_squared`] | f32, f16 | Σ aᵢbᵢ and Σ aᵢ², f32 |
//! | | [`dot_i8`] | f32 with an i8 code | Σ qᵢcᵢ, f32 |
//! | `cosine.rs` | [`cosine_terms`], [`cosine_distance`] | f32, f16 | 1 − cos∠(a, b) in 0 ..= 2, f64 |
//! | `l1.rs` | [`l1`] | f32, f16 | Σ \|aᵢ − bᵢ\|, f32 |
//! | `hamming.rs` | [`hamming`] | packed bits | bits that differ, u64 |
//! | `jaccard.rs` | [`jaccard_terms`], [`jaccard`] | packed bits | 1 − \|a ∧ b\| / \|a ∨ b\| in 0 ..= 1, f64 |
//! | `half_float.rs` | [`f16_to_f32_slice`], [`f32_to_f16_slice`] | f16, f32 | the converted slice |
//! | `simd/` | [`simd::active`], [`simd::available`] | | the kernels, one file an instruction set |
//!
//! Shapes: both slices have the same length, any length including 0. That is the caller's duty (debug builds assert
//! it); in release builds a longer slice is cut to the shorter one, never read out of bounds.
//!
//! Precision: f16 elements are widened to f32, and all sums are f32 in several partial sums, so results differ in the
//! last bits between kernel sets and from a sequential sum. Sums that exceed f32 are infinite (or NaN where infinities
//! cancel); nothing panics.
//!
//! The definitions are pgvector's documented ones; the metrics that the SQL operators return (`<->` = √[`l2_squared`],
//! `<#>` = −[`inner_product`]) are one step away from these.

mod cosine;
mod half_float;
mod hamming;
mod inner_product;
mod jaccard;
mod l1;
mod l2;
pub mod simd;
#[cfg(test)]
mod tests;

pub use cosine::{cosine_distance, cosine_terms};
pub use half::f16;
pub use half_float::{f16_to_f32_slice, f32_to_f16_slice};
pub use hamming::hamming;
pub use inner_product::{dot_i8, inner_product, norm_squared};
pub use jaccard::{jaccard, jaccard_terms};
pub use l1::l1;
pub use l2::l2_squared;

/// An element type of dense vectors: `f32` or [`f16`]. Sealed; lets callers write code for both.
pub trait Element: sealed::Sealed + Copy + Default + PartialOrd + Send + Sync + 'static {
    /// The value as f32 (exact).
    fn to_f32(self) -> f32;
    /// The nearest value, ties to even.
    fn from_f32(value: f32) -> Self;
    /// The kernels of `set` for this element type.
    #[doc(hidden)]
    fn kernels(set: &simd::Kernels) -> &simd::FloatKernels<Self>;
}

impl Element for f32 {
    #[inline]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline]
    fn from_f32(value: f32) -> f32 {
        value
    }
    #[inline]
    fn kernels(set: &simd::Kernels) -> &simd::FloatKernels<f32> {
        &set.f32
    }
}

impl Element for f16 {
    #[inline]
    fn to_f32(self) -> f32 {
        self.to_f32_const()
    }
    #[inline]
    fn from_f32(value: f32) -> f16 {
        f16::from_f32_const(value)
    }
    #[inline]
    fn kernels(set: &simd::Kernels) -> &simd::FloatKernels<f16> {
        &set.f16
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::f16 {}
}
