//! Reading an index.
//!
//! * [`info`]: the meta page and the mean.
//! * [`tree`]: reading lists, and finding the nearest.

pub mod info;
pub mod tree;
