//! What VACUUM does beside removing entries.

pub mod tidy;
