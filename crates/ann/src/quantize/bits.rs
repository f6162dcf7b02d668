//! Bit strings as their own sketch: a nibble is four bits, and the fast scan counts where they agree with a query's.
//!
//! A table has the number of bits of each of the 16 nibbles that equal the query's, so that a block's sums are exact. The
//! distances that follow are integers (Hamming) or quotients of two (Jaccard), which f32 holds to half a unit of its last place.

use super::{BLOCK, ListTerm, QueryTable, SketchFactors};

/// Bits of a group.
const BITS: usize = 4;

/// The nibbles of a bit string given as numbers, set where positive. `values` is padded to a multiple of 8; returns how many are set.
pub fn pack_bits(values: &[f32], nibbles: &mut [u8]) -> usize {
    assert_eq!(values.len(), BITS * nibbles.len());
    let mut set = 0;
    for (bits, nibble) in values.as_chunks::<BITS>().0.iter().zip(nibbles) {
        *nibble = (0..BITS).map(|i| u8::from(bits[i] > 0.0) << i).sum();
        set += nibble.count_ones() as usize;
    }
    set
}

/// The reverse of [`pack_bits`]: 1 where a bit is set, else 0.
pub fn unpack_bits(nibbles: &[u8], values: &mut [f32]) {
    assert_eq!(values.len(), BITS * nibbles.len());
    for (bits, nibble) in values.as_chunks_mut::<BITS>().0.iter_mut().zip(nibbles) {
        *bits = std::array::from_fn(|i| f32::from(nibble >> i & 1));
    }
}

/// What the entry of a bit string with so many bits set stores beside them, so that a scan gives the number of bits that differ,
/// and `added`.
pub fn bit_factors(added: f32) -> SketchFactors {
    SketchFactors { constant: added, scale: 1.0, error: 0.0 }
}

impl QueryTable {
    /// Fills the tables for the bit string of these nibbles: a scan with [`QueryTable::bit_term`] counts the bits that differ.
    pub fn build_bits(&mut self, nibbles: &[u8]) {
        self.fill_exact(nibbles.len(), |group, nibble| (BITS as u32 - (nibbles[group] ^ nibble).count_ones()) as u8);
    }

    /// What stands in the place of a list's terms.
    pub fn bit_term(&self) -> ListTerm {
        ListTerm { a: (BITS * self.groups()) as f32, b: 0.0 }
    }
}

/// Turns sums of differing bits and bits set into twice the share of the set bits of both strings that differ, for 32 entries;
/// 2 where no bit is set. Of the slots returned it is less than `threshold`.
pub fn shares(
    constants: &[f32; BLOCK],
    of_query: f32,
    threshold: f32,
    estimate: &mut [f32; BLOCK],
    lower: &mut [f32; BLOCK],
) -> u32 {
    for i in 0..BLOCK {
        let (differ, set) = (estimate[i] - constants[i], constants[i] + of_query);
        let share = if set > 0.0 { 2.0 * differ / set } else { 2.0 };
        (estimate[i], lower[i]) = (share, share);
    }
    (0..BLOCK).fold(0, |mask, i| mask | u32::from(lower[i] < threshold) << i)
}
