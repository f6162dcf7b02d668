//! The index on a simulated server: crashes after every record, interleavings of clients, faults at every call. See
//! README.md.

mod check;
mod crash;
mod damage;
mod fault;
mod format;
mod interleave;
mod mutation;
mod postgres;
mod session;
mod world;

/// Object identifiers of the two relations.
pub const INDEX: u32 = 20_001;
pub const TABLE: u32 = 20_002;
