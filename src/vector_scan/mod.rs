//! The custom scan node *vector scan*: `WHERE … ORDER BY column <-> $1 LIMIT k` answered with k and the WHERE clause in
//! hand. It collects the k nearest rows that match before it returns any: in exact order, as many as were asked for, and
//! with no more work than they need. Also `WHERE column <-> $1 < $2`. How and why is in `README.md` beside this file.
//!
//! * [`path`]: finds queries that it can answer, and offers paths to the planner; [`cost`]: what they cost.
//! * [`plan`]: a path becomes a plan node.
//! * [`exec`]: the node; [`collect`]: rows in exact order; [`rows`]: reading rows of the table; [`tids`]: rows found by
//!   other indexes.
//! * [`explain`]: what EXPLAIN shows.

mod collect;
mod conditions;
mod cost;
mod distance;
mod exec;
mod explain;
mod path;
mod plan;
mod rows;
mod tids;

use crate::index::options::Strategy;
pub use exec::{expect, expect_all};
pub use path::is_ordered;
use pgrx::prelude::*;

/// Called when the library is loaded.
pub fn register() {
    path::install_hook();
    // SAFETY: once from _PG_init; the methods are static.
    unsafe { pg_sys::RegisterCustomScanMethods(plan::scan_methods()) };
}
