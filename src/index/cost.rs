//! Cost estimate: what the first rows cost, and what all rows would.

use super::meta::Info;
use super::options;
use pgrx::prelude::*;

/// Code pages that a search reads beside the lists, typically.
const CODE_PAGES: f64 = 64.0;
/// Operator evaluations that scanning one sketch costs.
const OPERATIONS_PER_ENTRY: f64 = 0.01;

/// `amcostestimate`
#[pg_guard]
#[allow(clippy::too_many_arguments, reason = "PostgreSQL's signature")]
pub unsafe extern "C-unwind" fn amcostestimate(
    root: *mut pg_sys::PlannerInfo,
    path: *mut pg_sys::IndexPath,
    _loop_count: f64,
    startup: *mut pg_sys::Cost,
    total: *mut pg_sys::Cost,
    selectivity: *mut pg_sys::Selectivity,
    correlation: *mut f64,
    pages: *mut f64,
) {
    // SAFETY: PostgreSQL's arguments; the index is locked by the planner.
    unsafe {
        let index_info = &*(*path).indexinfo;
        *correlation = 0.0;
        *selectivity = 1.0;
        *pages = f64::from(index_info.pages);
        if (*path).indexorderbys.is_null() {
            // Without an order there is nothing that this index could do.
            *startup = f64::INFINITY;
            *total = f64::INFINITY;
            return;
        }
        let (mut random, mut sequential) = (0.0, 0.0);
        pg_sys::get_tablespace_page_costs(index_info.reltablespace, &mut random, &mut sequential);
        let rows = index_info.tuples.max(1.0);
        let all_pages = f64::from(index_info.pages).max(1.0);
        let (lists, probes, height) = if index_info.hypothetical {
            let lists = (rows / 100.0).max(1.0);
            (lists, lists.sqrt(), 1.0)
        } else {
            let index = pg_sys::index_open(index_info.indexoid, pg_sys::NoLock as i32);
            let info = Info::of(index);
            let probes = match options::probes() {
                0 => f64::from(info.expected_probes(options::target_recall())),
                n => n as f64,
            };
            let found = (f64::from(info.meta.lists).max(1.0), probes, f64::from(info.meta.height));
            pg_sys::index_close(index, pg_sys::NoLock as i32);
            found
        };
        let share = (probes / lists).min(1.0);
        let per_list = (all_pages / lists).max(1.0);
        // Sketches of the lists, and centroids (as large as entries) of the root.
        let posting_pages = (probes * (per_list / 4.0).max(1.0)).min(all_pages);
        let tree_pages = if height > 0.0 { (lists * all_pages / (rows + lists) / 4.0).max(1.0) } else { 0.0 };
        let code_pages = CODE_PAGES.min(all_pages * share);
        // What the cache holds is read as cheaply as a page of a sequential scan.
        let cached = (f64::from(pg_sys::effective_cache_size) / 2.0 / all_pages).min(1.0);
        let page = cached * sequential + (1.0 - cached) * random;
        let entries = rows * share + lists;
        let operator = pg_sys::cpu_operator_cost;
        let first = (posting_pages + tree_pages + code_pages) * page + entries * OPERATIONS_PER_ENTRY * operator;
        let rest = (all_pages - posting_pages - tree_pages - code_pages).max(0.0) * page
            + (rows + lists - entries).max(0.0) * OPERATIONS_PER_ENTRY * operator
            + rows * pg_sys::cpu_index_tuple_cost;
        // The query vector may come from an expression.
        let mut query_cost = pg_sys::QualCost::default();
        pg_sys::cost_qual_eval(&mut query_cost, (*path).indexorderbys, root);
        *startup = first + query_cost.startup;
        *total = *startup + rest;
    }
}
