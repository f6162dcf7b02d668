//! Reading an index and its table.
//!
//! * [`info`]: the meta page and the mean, kept with the relation.
//! * [`tree`]: reading lists, and finding the nearest. [`rows`]: rows of the table.

pub mod info;
pub mod rows;
pub mod tree;
