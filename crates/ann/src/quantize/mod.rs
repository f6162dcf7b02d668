//! Quantization of vectors for `ivflsh`: what an index entry stores and how a scan reads it.
//!
//! * [`rotation`]: the random rotation that makes every coordinate look Gaussian.
//! * [`sketch`]: 2 bits a dimension, 32 entries interleaved, with an unbiased estimate and a statistical bound.
//! * [`fastscan`]: the scan over blocks of sketches by in-register table look-ups.
//! * [`bits`]: bit strings, which are their own sketches.
//! * [`code`]: 8 or 4 bits a dimension with a guaranteed bound, read for the entries that the sketch cannot exclude.
//! * [`factor`]: the 16-bit numbers that entries store beside both.
//! * [`simd`]: the kernels, one file an instruction set, chosen once at run time.
//!
//! All vectors here are already centred and rotated, and `padded` coordinates long (see [`padded_dims`]).
//! Sources: RaBitQ (arXiv 2405.12497), extended RaBitQ (arXiv 2409.09913), Quick ADC and Faiss FastScan for the scan.

pub mod bits;
pub mod code;
pub mod factor;
pub mod fastscan;
pub mod rotation;
pub mod simd;
pub mod sketch;

pub use bits::{bit_factors, pack_bits, shares, unpack_bits};
pub use code::{
    Bits, CodeFactors, ListTerm, code_distance, code_likely_bound, code_lower_bound, code_spread, decode_code,
    dot_code, encode_code, exact_code_error,
};
pub use fastscan::{BlockFactors, DEFAULT_Z, QueryTable, accumulate, bounds, scan_block};
pub use rotation::{Rotation, padded_dims};
pub use sketch::{
    SketchFactors, decode_sketch, encode_sketch, nibble_column, pack_block, set_nibble_column, sketch_vector,
};

/// Entries of a sketch block: as many as one pass of byte shuffles serves.
pub const BLOCK: usize = 32;

/// What the distances of an index mean. Cosine is [`Space::L2`] on normalised vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// Squared Euclidean distance.
    L2,
    /// Negative inner product.
    InnerProduct,
}

#[cfg(test)]
mod tests;
