//! Factors in 16 bits: numbers that are not negative, with the exponent of f32 and 8 bits of mantissa.
//!
//! The upper half of an f32 without its sign. So any f32 is in range, to one part in 512; encoders round before they compute
//! what depends on a factor, and errors upwards.

/// Bits of an f32's mantissa that are left out.
const DROPPED: u32 = 15;
/// The largest finite one.
const LARGEST: u16 = (f32::MAX.to_bits() >> DROPPED) as u16;

/// The number that `bits` stand for.
#[inline]
pub fn unpack(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << DROPPED)
}

/// The bits of a number that 16 bits can hold (of others, of the next smaller one).
pub fn pack(x: f32) -> u16 {
    debug_assert!(x >= 0.0 || x.is_nan());
    (x.abs().to_bits() >> DROPPED) as u16
}

/// The nearest number that 16 bits can hold; finite for finite `x`.
pub fn nearest(x: f32) -> f32 {
    let bits = x.abs().to_bits();
    if bits >= f32::INFINITY.to_bits() {
        return x.abs();
    }
    unpack((((bits + (1 << (DROPPED - 1))) >> DROPPED) as u16).min(LARGEST))
}

/// The smallest number not below `x` that 16 bits can hold; infinite where none is.
pub fn up(x: f32) -> f32 {
    let bits = x.abs().to_bits();
    if bits >= f32::INFINITY.to_bits() {
        return x.abs();
    }
    unpack((bits.div_ceil(1 << DROPPED)) as u16)
}
