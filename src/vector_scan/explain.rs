//! What EXPLAIN shows of a vector scan.

use super::Strategy;
use super::exec::{self, Totals};
use super::plan;
use pgrx::prelude::*;
use std::ffi::{CStr, CString};

/// `ExplainCustomScan`
#[pg_guard]
pub unsafe extern "C-unwind" fn explain(
    node: *mut pg_sys::CustomScanState,
    ancestors: *mut pg_sys::List,
    es: *mut pg_sys::ExplainState,
) {
    // SAFETY: PostgreSQL's arguments, and our node.
    unsafe {
        let execution = exec::execution(node);
        let (facts, has_bitmap) = (execution.facts, execution.has_bitmap());
        let name = pg_sys::get_rel_name(facts.index);
        let name = if name.is_null() { "?".into() } else { CStr::from_ptr(name).to_string_lossy().into_owned() };
        text(es, "Index", &name);
        let plan = (*node).ss.ps.plan;
        let expressions = plan::unpack(plan.cast()).expressions;
        let context = pg_sys::set_deparse_context_plan((*es).deparse_cxt, plan, ancestors);
        let prefix = pgrx::PgList::<pg_sys::RangeTblEntry>::from_pg((*es).rtable).len() > 1 || (*es).verbose;
        let distance = pg_sys::deparse_expression(expressions.distance.cast(), context, prefix, false);
        if !expressions.conditions_written.is_null() {
            let all = pg_sys::make_ands_explicit(expressions.conditions_written);
            let conditions = pg_sys::deparse_expression(all.cast(), context, prefix, false);
            text(es, "Index Cond", &CStr::from_ptr(conditions).to_string_lossy());
        }
        let label = if facts.ordered { "Order By" } else { "Distance" };
        text(es, label, &CStr::from_ptr(distance).to_string_lossy());
        let strategy = match (facts.strategy, has_bitmap) {
            (Strategy::Bitmap, _) => "bitmap",
            (Strategy::Inline, true) => "inline, else bitmap",
            (Strategy::Inline, false) => "inline",
        };
        text(es, "Strategy", strategy);
        if !(*es).analyze {
            return;
        }
        let totals = execution.totals();
        text(es, "Searches", &searches(&totals));
        for (label, value) in [
            (c"Lists Probed", totals.lists),
            (c"Entries Scanned", totals.entries),
            (c"Entries Refined", totals.refined),
            (c"Heap Rows Fetched", totals.fetched),
        ] {
            pg_sys::ExplainPropertyUInteger(label.as_ptr(), std::ptr::null(), value, es);
        }
    }
}

/// How many searches ended in which strategy.
fn searches(totals: &Totals) -> String {
    let kinds = [
        ("inline", totals.inline),
        ("restricted to the bitmap", totals.restricted),
        ("all rows of the bitmap", totals.read_all),
        ("restricted to what a pass over the table found", totals.restricted_by_pass),
        ("all rows that a pass over the table found", totals.read_all_by_pass),
        ("all rows of the table", totals.pass),
        ("all lists, for a range", totals.range),
    ];
    let parts: Vec<String> = kinds.iter().filter(|k| k.1 > 0).map(|(name, n)| format!("{n} {name}")).collect();
    if parts.is_empty() { "0".into() } else { parts.join(", ") }
}

unsafe fn text(es: *mut pg_sys::ExplainState, label: &str, value: &str) {
    // SAFETY: terminated strings; `es` is PostgreSQL's.
    unsafe {
        let (label, value) = (CString::new(label).unwrap_or_default(), CString::new(value).unwrap_or_default());
        pg_sys::ExplainPropertyText(label.as_ptr(), value.as_ptr(), es);
    }
}
