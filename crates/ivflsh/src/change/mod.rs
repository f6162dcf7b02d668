//! Changes of the structure.
//!
//! * [`structure`]: lists are split, levels are added. [`merge`]: small lists go. [`recalibrate`]: the stopping rule is measured again.

pub mod merge;
pub mod recalibrate;
pub mod structure;
