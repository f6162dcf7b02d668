//! Conversion between f16 and f32 slices.

use super::{f16, simd};

/// Widens `src` into `dst` (same length); exact.
#[inline]
pub fn f16_to_f32_slice(src: &[f16], dst: &mut [f32]) {
    simd::active().f16_to_f32(src, dst);
}

/// Rounds `src` into `dst` (same length): to nearest, ties to even, infinite beyond f16's range.
#[inline]
pub fn f32_to_f16_slice(src: &[f32], dst: &mut [f16]) {
    simd::active().f32_to_f16(src, dst);
}
