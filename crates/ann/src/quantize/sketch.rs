//! The sketch: 2 bits a dimension.
//!
//! For the residual r = x − c of entry x in the list of centroid c, a coordinate keeps its sign and whether
//! |r_i| > 0.98σ, σ = ‖r‖/√D. The sketch stands for v, v_i ∈ {±0.453, ±1.510}: the optimal 4-level quantizer of the
//! normal distribution (Lloyd-Max). With f = ‖r‖²/⟨v,r⟩, f⟨v,y⟩ is an unbiased estimate of ⟨r,y⟩ over the random
//! rotation, with deviation ‖r‖‖y‖√((1−a²)/(a²(D−1))), a = cos∠(v,r): RaBitQ's estimator (arXiv 2405.12497) with
//! another grid.
//!
//! A nibble holds two consecutive dimensions: bits 0 and 1 the even one, bits 2 and 3 the odd one; the lower bit of each
//! is the sign (set: negative), the upper one the magnitude (set: large).

use super::{BLOCK, Space, factor, simd};

/// The value of each 2-bit level.
pub(super) const LEVELS: [f32; 4] = [SMALL, -SMALL, LARGE, -LARGE];
pub(super) const SMALL: f32 = 0.453;
pub(super) const LARGE: f32 = 1.510;
/// Above this many deviations a coordinate is large.
const BOUNDARY: f64 = 0.98;

/// What an entry stores beside its nibbles, all in units of the distance (L2: squared). `scale` and `error` are numbers that
/// [`factor`] can pack.
///
/// estimate = A + `constant` − `scale`·⟨v,q⟩, lower bound = estimate − z·`error`·B, with A and B of the list and the query
/// (see [`super::ListTerm`]).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SketchFactors {
    /// L2: ‖r‖² + 2f⟨v,c⟩, infinite where f32 cannot hold it. InnerProduct: 0.
    pub constant: f32,
    /// L2: 2f. InnerProduct: f. Never negative.
    pub scale: f32,
    /// L2: 2‖r‖√((1−a²)/(a²(D−1))). InnerProduct: half of it.
    pub error: f32,
}

/// Encodes an entry. `residual` = x − c and `centroid` = c are D = `padded` long; `nibbles`, D/2 long, receives one nibble
/// in the low half of each byte. A zero residual gets zero factors.
pub fn encode_sketch(space: Space, residual: &[f32], centroid: &[f32], nibbles: &mut [u8]) -> SketchFactors {
    assert!(residual.len().is_multiple_of(8));
    assert_eq!(residual.len(), centroid.len());
    assert_eq!(residual.len(), 2 * nibbles.len());
    simd::best().encode_sketch(space, residual, centroid, nibbles)
}

/// A finite f32 for any f64.
pub(super) fn finite(x: f64) -> f32 {
    x.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
}

/// The encoder's body, compiled once per instruction set. Sums are f64, so no scale of data under- or overflows.
#[inline(always)]
pub(super) fn encode(space: Space, residual: &[f32], centroid: &[f32], nibbles: &mut [u8]) -> SketchFactors {
    let dims = residual.len() as f64;
    let mut squares = [0f64; 8];
    for r in residual.as_chunks::<8>().0 {
        for j in 0..8 {
            squares[j] += f64::from(r[j]) * f64::from(r[j]);
        }
    }
    let norm2: f64 = squares.iter().sum();
    let boundary = (BOUNDARY * (norm2 / dims).sqrt()) as f32;

    let (mut with_r, mut with_c, mut large) = ([0f64; 8], [0f64; 8], [0u32; 8]);
    let chunks = residual.as_chunks::<8>().0.iter().zip(centroid.as_chunks::<8>().0);
    for ((r, c), nibbles) in chunks.zip(nibbles.as_chunks_mut::<4>().0) {
        let mut bits = [0u32; 8];
        for j in 0..8 {
            let is_large = r[j].abs() > boundary;
            let v = if is_large { LARGE } else { SMALL };
            let v = f64::from(v.copysign(r[j]));
            with_r[j] += v * f64::from(r[j]);
            with_c[j] += v * f64::from(c[j]);
            large[j] += u32::from(is_large);
            bits[j] = r[j].to_bits() >> 31 | u32::from(is_large) << 1;
        }
        for (j, nibble) in nibbles.iter_mut().enumerate() {
            *nibble = (bits[2 * j] | bits[2 * j + 1] << 2) as u8;
        }
    }
    let vr: f64 = with_r.iter().sum();
    if norm2 <= 0.0 || vr <= 0.0 {
        return SketchFactors { constant: if space == Space::L2 { norm2 as f32 } else { 0.0 }, scale: 0.0, error: 0.0 };
    }
    let vc: f64 = with_c.iter().sum();
    let large = f64::from(large.iter().sum::<u32>());
    let (small2, large2) = (f64::from(SMALL).powi(2), f64::from(LARGE).powi(2));
    let v2 = dims * small2 + large * (large2 - small2);
    // Rounded first: the constant goes with what is stored. The relative error of it is one of ⟨r,q−c⟩.
    let exact = norm2 / vr;
    let double = factor::nearest(finite(2.0 * exact));
    let f = f64::from(double) / 2.0;
    let rounding = f / exact - 1.0;
    // (1 − a²)/a² with a² = ⟨v,r⟩²/(‖v‖²‖r‖²)
    let miss = (v2 * norm2 / (vr * vr) - 1.0).max(0.0);
    let error = (norm2 * (miss / (dims - 1.0) + rounding * rounding)).sqrt();
    match space {
        Space::L2 => SketchFactors {
            constant: (norm2 + 2.0 * f * vc) as f32,
            scale: double,
            error: factor::up(finite(2.0 * error)),
        },
        Space::InnerProduct => SketchFactors { constant: 0.0, scale: double / 2.0, error: factor::up(finite(error)) },
    }
}

/// Writes an entry's nibbles into `slot` (0..32) of a block or of a part of one, and leaves the other slots as they are.
///
/// A block is a row of groups of 16 bytes, one group for each nibble of an entry: byte j holds the nibble of entry j in its
/// low half and that of entry j + 16 in its high half. `groups` is 16 × `nibbles.len()` bytes.
pub fn set_nibble_column(groups: &mut [u8], slot: usize, nibbles: &[u8]) {
    assert!(slot < BLOCK);
    assert_eq!(groups.len(), 16 * nibbles.len());
    let (byte, shift) = (slot % 16, slot / 16 * 4);
    for (group, nibble) in groups.as_chunks_mut::<16>().0.iter_mut().zip(nibbles) {
        group[byte] = group[byte] & (0xF0 >> shift) | (nibble & 0x0F) << shift;
    }
}

/// Reads the nibbles of `slot` (0..32) back from where [`set_nibble_column`] put them.
pub fn nibble_column(groups: &[u8], slot: usize, nibbles: &mut [u8]) {
    assert!(slot < BLOCK);
    assert_eq!(groups.len(), 16 * nibbles.len());
    let (byte, shift) = (slot % 16, slot / 16 * 4);
    for (group, nibble) in groups.as_chunks::<16>().0.iter().zip(nibbles) {
        *nibble = group[byte] >> shift & 0x0F;
    }
}

/// The vector v that an entry's nibbles stand for: two coordinates a nibble.
pub fn sketch_vector(nibbles: &[u8]) -> impl Iterator<Item = f32> {
    nibbles.iter().flat_map(|n| [LEVELS[usize::from(n & 3)], LEVELS[usize::from(n >> 2 & 3)]])
}

/// Adds to `x` what an entry's sketch says of its residual, the projection of r on v; returns how far from r that is.
/// In vain for an entry without usable factors: then nothing is added and the result is infinite.
pub fn decode_sketch(space: Space, f: &SketchFactors, nibbles: &[u8], x: &mut [f32]) -> f32 {
    assert_eq!(x.len(), 2 * nibbles.len());
    if f.scale == 0.0 {
        return if f.error == 0.0 { f.constant.max(0.0).sqrt() } else { f32::INFINITY };
    }
    let half = if space == Space::L2 { 0.5 } else { 1.0 };
    let (factor, error) = (f64::from(f.scale) * half, f64::from(f.error) * half);
    let v2: f64 = sketch_vector(nibbles).map(|v| f64::from(v) * f64::from(v)).sum();
    // From f = ‖r‖²/⟨v,r⟩ and error²·(D−1) = ‖r‖²(‖v‖²‖r‖²/⟨v,r⟩² − 1).
    let vr = v2 * factor - error * error * (x.len() as f64 - 1.0) / factor;
    let missed = (factor * vr - vr * vr / v2).max(0.0).sqrt();
    if !(vr > 0.0 && missed.is_finite() && f.constant.is_finite()) {
        return f32::INFINITY;
    }
    let step = (vr / v2) as f32;
    for (x, v) in x.iter_mut().zip(sketch_vector(nibbles)) {
        *x += step * v;
    }
    missed as f32
}

/// Interleaves the nibbles of up to 32 entries at once: `nibbles` holds `entries` rows of n nibbles, one row after the
/// other, and `groups`, 16·n bytes, is overwritten wholly; slots without an entry get zeros.
pub fn pack_block(nibbles: &[u8], entries: usize, groups: &mut [u8]) {
    assert!(entries <= BLOCK && groups.len().is_multiple_of(16));
    let n = groups.len() / 16;
    assert_eq!(nibbles.len(), entries * n);
    let row = |entry: usize| &nibbles[entry * n..(entry + 1) * n];
    groups.fill(0);
    let groups = groups.as_chunks_mut::<16>().0;
    for entry in 0..entries.min(16) {
        let low = row(entry);
        if entry + 16 < entries {
            for ((group, low), high) in groups.iter_mut().zip(low).zip(row(entry + 16)) {
                group[entry] = low & 0x0F | high << 4;
            }
        } else {
            for (group, low) in groups.iter_mut().zip(low) {
                group[entry] = low & 0x0F;
            }
        }
    }
}
