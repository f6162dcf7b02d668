//! Writing entries.
//!
//! * [`encode`]: a row becomes sketch, code and keys. [`list`]: a new list is written. [`append`]: an entry joins a list.

pub mod append;
pub mod encode;
pub mod list;
