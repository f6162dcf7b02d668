//! A random rotation in O(D log D).
//!
//! Each round multiplies by random signs, applies the normalised fast Hadamard transform to the first or (in turn) to
//! the last 2^k coordinates, 2^k being the largest power of two not above D, and, where 2^k < D, mixes the two halves
//! of the vector by one more butterfly (x_i, x_{i+D/2}) -> (x_i ± x_{i+D/2})/√2, without which a D just under a power of
//! two would mix slowly. Every step is orthonormal. The same role as the rotation of RaBitQ (arXiv 2405.12497).
//!
//! The result is the same to the bit on every CPU: only separate multiplications, additions and subtractions, in a fixed
//! order, never a fused one. So an index built on one machine is read correctly on another.

use super::simd;

/// Rounds for a D that is a power of two: each mixes all coordinates.
const ROUNDS_POWER_OF_TWO: usize = 3;
/// Rounds for any other D.
const ROUNDS: usize = 4;

/// The next of SplitMix64's numbers (Steele, Lea, Flood 2014; public domain algorithm). Part of the disk format.
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The length of a rotated vector of `dims` coordinates: the next multiple of 8, at least 8.
pub fn padded_dims(dims: usize) -> usize {
    dims.max(1).next_multiple_of(8)
}

/// A random rotation of `padded` coordinates, determined by the dimension and a seed.
#[derive(Clone, Debug)]
pub struct Rotation {
    dims: usize,
    padded: usize,
    /// For each round `padded` factors: a random sign times what normalises the round's butterflies.
    factors: Vec<f32>,
}

impl Rotation {
    /// The rotation of vectors of `dims` coordinates. The signs are the bits of SplitMix64 started at `seed`: round after
    /// round, coordinate after coordinate, lowest bit of each number first, a set bit meaning minus; every round starts
    /// with a fresh number.
    pub fn new(dims: usize, seed: u64) -> Self {
        let padded = padded_dims(dims);
        let window = window(padded);
        let rounds = if window == padded { ROUNDS_POWER_OF_TWO } else { ROUNDS };
        let half = if window == padded { 1.0 } else { 0.5f64.sqrt() };
        let inside = ((window as f64).sqrt().recip() * half) as f32;
        let outside = half as f32;
        let mut state = seed;
        let mut factors = Vec::with_capacity(rounds * padded);
        for round in 0..rounds {
            let transformed = if round % 2 == 0 { 0..window } else { padded - window..padded };
            let mut bits = 0;
            for i in 0..padded {
                if i % 64 == 0 {
                    bits = splitmix64(&mut state);
                }
                let factor = if transformed.contains(&i) { inside } else { outside };
                factors.push(if bits & 1 == 1 { -factor } else { factor });
                bits >>= 1;
            }
        }
        Self { dims, padded, factors }
    }

    /// Coordinates of a vector before padding.
    pub fn dims(&self) -> usize {
        self.dims
    }

    /// Coordinates of a rotated vector.
    pub fn padded(&self) -> usize {
        self.padded
    }

    /// Rotates `x` in place. `x` is `padded` long, with zeros after the first `dims` coordinates.
    pub fn apply(&self, x: &mut [f32]) {
        self.apply_with(simd::best(), x);
    }

    /// [`Self::apply`] by one instruction set's kernel, for tests and benchmarks.
    pub fn apply_with(&self, kernels: &simd::Kernels, x: &mut [f32]) {
        assert_eq!(x.len(), self.padded);
        kernels.rotate(&self.factors, x);
    }
}

impl Rotation {
    /// The inverse of [`Self::apply`], up to rounding.
    pub fn undo(&self, x: &mut [f32]) {
        let padded = self.padded;
        assert_eq!(x.len(), padded);
        let window = window(padded);
        // Each round is orthonormal, so its transpose undoes it: its parts, symmetric by themselves, in reverse order.
        for (round, factors) in self.factors.chunks_exact(padded).enumerate().rev() {
            if window != padded {
                let (a, b) = x.split_at_mut(padded / 2);
                for (a, b) in a.iter_mut().zip(b) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            hadamard(if round % 2 == 0 { &mut x[..window] } else { &mut x[padded - window..] });
            for (x, f) in x.iter_mut().zip(factors) {
                *x *= f;
            }
        }
    }
}

/// The largest power of two not above `padded`.
fn window(padded: usize) -> usize {
    1 << padded.ilog2()
}

/// All rounds of a rotation; `factors` holds `x.len()` factors a round. Compiled once per instruction set.
#[inline(always)]
pub(super) fn rotate(factors: &[f32], x: &mut [f32]) {
    let padded = x.len();
    let window = window(padded);
    for (round, factors) in factors.chunks_exact(padded).enumerate() {
        for (x, f) in x.iter_mut().zip(factors) {
            *x *= f;
        }
        hadamard(if round % 2 == 0 { &mut x[..window] } else { &mut x[padded - window..] });
        if window != padded {
            let (a, b) = x.split_at_mut(padded / 2);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
    }
}

/// The Hadamard transform, not normalised, of 2^k >= 8 coordinates.
#[inline(always)]
fn hadamard(x: &mut [f32]) {
    for block in x.as_chunks_mut::<8>().0 {
        *block = within_eight::<4>(within_eight::<2>(within_eight::<1>(*block)));
    }
    let mut h = 8;
    // Two levels a pass while there are two: half the loads and stores.
    while 4 * h <= x.len() {
        for block in x.chunks_exact_mut(4 * h) {
            let (ab, cd) = block.split_at_mut(2 * h);
            let (a, b) = ab.split_at_mut(h);
            let (c, d) = cd.split_at_mut(h);
            for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
                let (p, q, r, s) = (*a + *b, *a - *b, *c + *d, *c - *d);
                (*a, *b, *c, *d) = (p + r, q + s, p - r, q - s);
            }
        }
        h *= 4;
    }
    if 2 * h <= x.len() {
        for block in x.chunks_exact_mut(2 * h) {
            let (a, b) = block.split_at_mut(h);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
    }
}

/// One level of butterflies between coordinates `H` apart inside 8: a shuffle, a change of signs and an addition.
#[inline(always)]
fn within_eight<const H: usize>(x: [f32; 8]) -> [f32; 8] {
    let mut y = [0.0; 8];
    for (i, y) in y.iter_mut().enumerate() {
        *y = x[i ^ H] + if i & H == 0 { x[i] } else { -x[i] };
    }
    y
}
