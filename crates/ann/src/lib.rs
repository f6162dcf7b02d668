//! Engine-independent numerics of `vector_ext`: nothing here knows PostgreSQL.
//!
//! * [`distance`]: distances between vectors of one kind (f32, f16, bits), SIMD kernels chosen at run time.
//! * [`quantize`]: random rotation, the 2-bit sketch, the extended code, and the fast scan over sketch blocks.
//! * [`cluster`]: k-means, flat and hierarchical.
//! * [`filter`]: tests of filter columns, 32 keys at a time.
//! * [`memory`]: allocations that may fail.

pub mod cluster;
pub mod distance;
pub mod filter;
pub mod memory;
pub mod quantize;
