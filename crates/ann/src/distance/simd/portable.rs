//! Plain Rust kernels, written so that the compiler vectorises them for the baseline of any target.

use super::{FloatKernels, Kernels};
use crate::distance::f16;

pub(super) static KERNELS: Kernels = kernel_table!("portable", hamming, jaccard_terms);

/// Independent partial sums: enough for four 4-lane registers.
const LANES: usize = 16;

/// What the float kernels can read.
trait Load: Copy {
    fn widen(self) -> f32;
}

impl Load for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Load for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        widen_f16(self.to_bits())
    }
}

impl Load for i8 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from(self)
    }
}

/// f16 to f32 without branches. The exponent is rebiased by a multiplication, which also normalises subnormals;
/// infinity and NaN, which it would turn into 2^16 and more, get f32's full exponent instead.
#[inline(always)]
fn widen_f16(bits: u16) -> f32 {
    let bits = u32::from(bits);
    let magnitude = (bits & 0x7fff) << 13;
    let finite = f32::from_bits(magnitude) * f32::from_bits((254 - 15) << 23); // 2^112
    let special = if magnitude >= 0x7c00 << 13 { 0x7f80_0000 } else { 0 };
    f32::from_bits(finite.to_bits() | special | (bits & 0x8000) << 16)
}

/// So many elements are summed up before the partial sums are added to the total: rounding errors grow with the length
/// of a chain of additions.
const RUN: usize = 64 * LANES;

/// Σ step(aᵢ, bᵢ).
#[inline(always)]
fn reduce<A: Load, B: Load>(a: &[A], b: &[B], step: impl Fn(f32, f32) -> f32) -> f32 {
    let n = a.len().min(b.len());
    let mut total = 0.0;
    for (a, b) in a[..n].chunks(RUN).zip(b[..n].chunks(RUN)) {
        let (a_blocks, a_tail) = a.as_chunks::<LANES>();
        let (b_blocks, b_tail) = b.as_chunks::<LANES>();
        let mut acc = [0.0f32; LANES];
        for (x, y) in a_blocks.iter().zip(b_blocks) {
            for k in 0..LANES {
                acc[k] += step(x[k].widen(), y[k].widen());
            }
        }
        let tail: f32 = a_tail.iter().zip(b_tail).map(|(x, y)| step(x.widen(), y.widen())).sum();
        total += acc.iter().sum::<f32>() + tail;
    }
    total
}

fn l2_squared<A: Load, B: Load>(a: &[A], b: &[B]) -> f32 {
    reduce(a, b, |x, y| (x - y) * (x - y))
}

fn inner_product<A: Load, B: Load>(a: &[A], b: &[B]) -> f32 {
    reduce(a, b, |x, y| x * y)
}

fn l1<A: Load, B: Load>(a: &[A], b: &[B]) -> f32 {
    reduce(a, b, |x, y| (x - y).abs())
}

fn norm_squared<A: Load>(a: &[A]) -> f32 {
    reduce(a, a, |x, _| x * x)
}

/// (Σ aᵢbᵢ, Σ aᵢ², Σ bᵢ²). Run by run in three loops, because the compiler does not vectorise one loop with three sums;
/// a run stays in the first-level cache.
fn cosine_terms<A: Load, B: Load>(a: &[A], b: &[B]) -> (f32, f32, f32) {
    let n = a.len().min(b.len());
    let mut total = (0.0, 0.0, 0.0);
    for (a, b) in a[..n].chunks(RUN).zip(b[..n].chunks(RUN)) {
        total.0 += inner_product(a, b);
        total.1 += norm_squared(a);
        total.2 += norm_squared(b);
    }
    total
}

/// Bits that differ. Inlined into sets with a population count instruction.
#[inline(always)]
pub(super) fn hamming(a: &[u8], b: &[u8]) -> u64 {
    words(a, b).map(|(x, y)| u64::from((x ^ y).count_ones())).sum()
}

/// (bits in both, bits in either). Inlined into sets with a population count instruction.
#[inline(always)]
pub(super) fn jaccard_terms(a: &[u8], b: &[u8]) -> (u64, u64) {
    words(a, b).fold((0, 0), |(both, either), (x, y)| {
        (both + u64::from((x & y).count_ones()), either + u64::from((x | y).count_ones()))
    })
}

/// The slices in pairs of 8-byte words, the last one filled up with zeros.
#[inline(always)]
fn words(a: &[u8], b: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    let n = a.len().min(b.len());
    let (a_words, a_tail) = a[..n].as_chunks::<8>();
    let (b_words, b_tail) = b[..n].as_chunks::<8>();
    let whole = a_words.iter().zip(b_words).map(|(x, y)| (u64::from_le_bytes(*x), u64::from_le_bytes(*y)));
    whole.chain((!a_tail.is_empty()).then(|| (partial_word(a_tail), partial_word(b_tail))))
}

/// Up to 8 bytes, little-endian, filled up with zeros.
#[inline(always)]
pub(super) fn partial_word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

pub(super) fn f16_to_f32(src: &[f16], dst: &mut [f32]) {
    for (to, from) in dst.iter_mut().zip(src) {
        *to = widen_f16(from.to_bits());
    }
}

pub(super) fn f32_to_f16(src: &[f32], dst: &mut [f16]) {
    for (to, from) in dst.iter_mut().zip(src) {
        *to = f16::from_f32_const(*from);
    }
}
