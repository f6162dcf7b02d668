//! SQL types.
