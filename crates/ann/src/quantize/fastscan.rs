//! The fast scan: distances of 32 entries at a time by table look-ups within registers.
//!
//! For each group (a nibble: two dimensions) a query has a table of the 16 values that ⟨v,q⟩ can gain there, quantized to
//! u8. A byte shuffle looks up 16 entries' values at once (Quick ADC, André et al.; Faiss' FastScan); sums are u16 until they
//! could overflow. The tables depend on the query only, not on the list, because what a list adds is in the entry's factors.

use super::sketch::{LARGE, LEVELS};
use super::{BLOCK, ListTerm, simd};
use std::ops::Range;

/// Deviations below the estimate that the lower bound lies: about 0.6 % of the entries are nearer than it says.
pub const DEFAULT_Z: f32 = 2.5;

/// 64 bytes on a cache line: the tables of four groups.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// The look-up tables of one query: 16 bytes a group. Buffers are kept for the next query.
#[derive(Clone, Debug, Default)]
pub struct QueryTable {
    lines: Vec<Line>,
    groups: usize,
    /// ⟨v,q⟩ ≈ base + delta · sum of table values.
    base: f32,
    delta: f32,
    /// z deviations of what rounding the table's values does to ⟨v,q⟩.
    slack: f32,
    z: f32,
}

impl QueryTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fills the tables for the centred and rotated query `q` (`padded` coordinates, a multiple of 8); lower bounds will lie
    /// `z` deviations below the estimates.
    ///
    /// A table value is rounded to a multiple of delta, the widest table's range / 255, after the table's minimum is taken
    /// away. The rounding errors are uniform in ±delta/2 and independent, so that their sum over G groups deviates by
    /// delta·√(G/12).
    pub fn build(&mut self, q: &[f32], z: f32) {
        assert!(q.len().is_multiple_of(8));
        self.groups = q.len() / 2;
        // Every line is overwritten by fill_table, so what an earlier query left needs no clearing.
        self.lines.resize(self.groups.div_ceil(4), Line([0; 64]));
        let (mut totals, mut widests) = ([0f64; 4], [0f32; 4]);
        for q in q.as_chunks::<8>().0 {
            for j in 0..4 {
                let sum = q[2 * j].abs() + q[2 * j + 1].abs();
                totals[j] += f64::from(sum);
                widests[j] = if sum > widests[j] { sum } else { widests[j] };
            }
        }
        let total: f64 = totals.iter().sum();
        let widest = widests.iter().fold(0f32, |a, b| a.max(*b));
        let range = 2.0 * LARGE * widest;
        // Ranges without a usable reciprocal: all values are as good as equal.
        let (delta, inverse) = if range > 1e-30 { (range / 255.0, 255.0 / range) } else { (0.0, 0.0) };
        self.base = (-f64::from(LARGE) * total) as f32;
        self.delta = delta;
        self.slack = z * delta * (self.groups as f32 / 12.0).sqrt();
        self.z = z;
        let groups = self.groups;
        simd::best().fill_table(q, inverse, &mut self.bytes_mut()[..16 * groups]);
    }

    /// Fills the tables of so many groups with small numbers whose sums are exact.
    pub(super) fn fill_exact(&mut self, groups: usize, value: impl Fn(usize, u8) -> u8) {
        self.groups = groups;
        self.lines.resize(groups.div_ceil(4), Line([0; 64]));
        (self.base, self.delta, self.slack, self.z) = (0.0, 1.0, 0.0, 0.0);
        for (group, table) in self.bytes_mut().as_chunks_mut::<16>().0.iter_mut().take(groups).enumerate() {
            *table = std::array::from_fn(|nibble| value(group, nibble as u8));
        }
    }

    /// Groups that there are tables for.
    pub(super) fn groups(&self) -> usize {
        self.groups
    }

    /// The tables of some groups, 16 bytes each.
    pub fn lut(&self, groups: Range<usize>) -> &[u8] {
        assert!(groups.end <= self.groups);
        // SAFETY: a Line is 64 initialised bytes without padding (size = alignment = 64), so the vector's buffer is
        // 64 × len bytes; the borrow of self is kept by the result.
        let bytes = unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast::<u8>(), 64 * self.lines.len()) };
        &bytes[16 * groups.start..16 * groups.end]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in lut; the borrow is unique, and any byte is valid in a Line.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast::<u8>(), 64 * self.lines.len()) }
    }

    /// What the kernels need for the blocks of one list.
    #[inline]
    pub(super) fn scan_term(&self, term: ListTerm, threshold: f32) -> ScanTerm {
        ScanTerm {
            a: term.a,
            base: self.base,
            delta: self.delta,
            deviations: self.z * term.b,
            slack: self.slack,
            threshold,
        }
    }
}

/// The numbers common to the 32 entries of a block:
/// estimate = a + constant − scale·(base + delta·sum), lower = estimate − (error·deviations + scale·slack).
#[derive(Clone, Copy, Debug)]
pub struct ScanTerm {
    pub(super) a: f32,
    pub(super) base: f32,
    pub(super) delta: f32,
    pub(super) deviations: f32,
    pub(super) slack: f32,
    pub(super) threshold: f32,
}

/// The factors of a block's entries as stored (see [`super::SketchFactors`]), scale and error packed by [`super::factor`]; no
/// alignment beyond that of their types is assumed.
#[derive(Clone, Copy, Debug)]
pub struct BlockFactors<'a> {
    /// Each entry's constant.
    pub constant: &'a [f32; BLOCK],
    /// Each entry's scale.
    pub scale: &'a [u16; BLOCK],
    /// Each entry's error.
    pub error: &'a [u16; BLOCK],
}

/// Adds to `sums` the table values of a block, or of a part of one: `groups` and `lut` have 16 bytes a group, any number of
/// groups. Sums are exact, and equal on every CPU.
#[inline]
pub fn accumulate(groups: &[u8], lut: &[u8], sums: &mut [u32; BLOCK]) {
    simd::best().accumulate(groups, lut, sums);
}

/// Estimates and lower bounds of a block's entries from their complete sums. Bit i of the result is set if and only if
/// `lower[i] < threshold`.
///
/// The rounding of the tables is counted into the lower bound, z deviations of it beside z deviations of the sketch.
/// Results are equal to the bit on every CPU, and finite: what overflows is the largest finite number as an estimate and
/// (for a NaN) the lowest as a bound, so that no entry is lost by it.
#[inline]
pub fn bounds(
    table: &QueryTable,
    sums: &[u32; BLOCK],
    f: &BlockFactors,
    term: ListTerm,
    threshold: f32,
    estimate: &mut [f32; BLOCK],
    lower: &mut [f32; BLOCK],
) -> u32 {
    simd::best().bounds(&table.scan_term(term, threshold), sums, f, estimate, lower)
}

/// [`accumulate`] and [`bounds`] of a whole block that lies in one piece: `groups` has 16 bytes for each group of the table.
#[inline]
pub fn scan_block(
    table: &QueryTable,
    groups: &[u8],
    f: &BlockFactors,
    term: ListTerm,
    threshold: f32,
    estimate: &mut [f32; BLOCK],
    lower: &mut [f32; BLOCK],
) -> u32 {
    let lut = table.lut(0..table.groups);
    simd::best().scan(groups, lut, &table.scan_term(term, threshold), f, estimate, lower)
}

/// The portable kernel that fills the tables: 16 bytes for each two coordinates.
pub(super) fn fill_table(q: &[f32], inverse: f32, lut: &mut [u8]) {
    /// 2²³: the low byte of a number in 0..256 plus this is the number rounded to the nearest integer.
    const MAGIC: f32 = 8_388_608.0;
    let (mut even, mut odd) = ([0f32; 16], [0f32; 16]);
    for n in 0..16 {
        (even[n], odd[n]) = (LEVELS[n & 3], LEVELS[n >> 2]);
    }
    for (pair, lut) in q.as_chunks::<2>().0.iter().zip(lut.as_chunks_mut::<16>().0) {
        let (x, y) = (pair[0] * inverse, pair[1] * inverse);
        let minimum = LARGE * (x.abs() + y.abs());
        for n in 0..16 {
            let value = (even[n] * x + minimum) + odd[n] * y;
            lut[n] = (value + MAGIC).to_bits() as u8;
        }
    }
}
