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

/// As [`up`], with the last bit as a mark: that costs up to one part in 128 of the number. A number with a mark is not 0.
pub fn up_marked(x: f32, mark: bool) -> f32 {
    let up = up(x);
    if is_marked(up) == mark || !up.is_finite() {
        return up;
    }
    unpack(pack(up) + 1)
}

/// Whether [`up_marked`] has marked a number.
pub fn is_marked(x: f32) -> bool {
    pack(x) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks() {
        for x in [0.0, 1e-45, 1e-30, 0.1, 1.0, 1.003, 255.0, 1e30, 3.3e38, f32::MAX] {
            for mark in [false, true] {
                let marked = up_marked(x, mark);
                assert!(marked >= x && (marked == f32::INFINITY || is_marked(marked) == mark), "{x} {mark}: {marked}");
                assert!(unpack(pack(marked)) == marked && (marked.is_infinite() || marked <= x * 1.01 + 1e-40));
            }
        }
        assert_eq!(up_marked(0.0, false), 0.0);
        assert_eq!(up_marked(f32::INFINITY, true), f32::INFINITY);
    }
}
