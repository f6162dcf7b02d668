//! What a search costs, for the planner.

use pgrx::prelude::*;

/// Terms of a typical query.
const TERMS: f64 = 6.0;
/// Share of the pages that a typical query reads, and of the rows whose entries it looks at.
const SHARE: f64 = 0.02;
/// Operator evaluations that an entry costs.
const OPERATIONS_PER_ENTRY: f64 = 0.02;

/// Cost up to the first row, and of all rows.
///
/// # Safety
/// The planner's index.
pub unsafe fn costs(index: &pg_sys::IndexOptInfo, (random, sequential): (f64, f64)) -> (f64, f64) {
    // SAFETY: settings of the backend.
    let (operator, cached) = unsafe {
        let pages = f64::from(index.pages).max(1.0);
        (pg_sys::cpu_operator_cost, (f64::from(pg_sys::effective_cache_size) / 2.0 / pages).min(1.0))
    };
    let pages = f64::from(index.pages).max(1.0);
    let page = cached * sequential + (1.0 - cached) * random;
    let rows = index.tuples.max(1.0);
    let read = (2.0 * TERMS + SHARE * pages).min(pages);
    let entries = SHARE * rows * TERMS;
    let first = read * page * 0.25 + entries * OPERATIONS_PER_ENTRY * operator;
    let rest = (pages - read).max(0.0) * page + rows * operator * TERMS;
    (first, first + rest)
}
