//! Cost estimate: what the first rows cost, and what all rows would.

use super::method;
use super::options;
use super::pgvector;
use super::terms;
use crate::index::filter::predicate::strategy;
use crate::index::read::info::Info;
use ivflsh::nearest::FIRST_GOAL;
use pgrx::prelude::*;

/// Code pages that a search reads beside the lists, typically.
const CODE_PAGES: f64 = 64.0;
/// Operator evaluations that scanning one sketch costs.
const OPERATIONS_PER_ENTRY: f64 = 0.01;
/// Tuples' evaluations that a row costs beyond the first ones, measured when conditions discard 90 % to 99 %: codes of others
/// are read, further lists, and lists again.
const TUPLES_PER_ROW: f64 = 300.0;

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
        let filter = Filter::of_path(root, path);
        *selectivity = filter.selectivity;
        *pages = f64::from(index_info.pages);
        // Not one page has an index that pgvector's classes made and the engine cannot fill.
        let idle = index_info.pages == 0 && !index_info.hypothetical;
        if (*path).indexorderbys.is_null() || filter.impossible || idle {
            // Without an order there is nothing that this index could do; nor has it rows whose vector is NULL.
            *startup = f64::INFINITY;
            *total = f64::INFINITY;
            // There what settings disable counts before the costs.
            #[cfg(feature = "pg18")]
            {
                (*path).path.disabled_nodes = 2;
            }
            return;
        }
        // The query vector may come from an expression.
        let mut query_cost = pg_sys::QualCost::default();
        pg_sys::cost_qual_eval(&mut query_cost, (*path).indexorderbys, root);
        let (mut first, mut rest) = estimate(index_info, &filter);
        if (*path).indexclauses.is_null() {
            // Without a condition on them, filter columns are bytes to be read and nothing else. Two rules, measured one by one,
            // scatter by more than that costs.
            for plainer in elements::<pg_sys::IndexOptInfo>((*index_info.rel).indexlist) {
                if is_plainer(plainer, index_info) {
                    let (other_first, other_rest) = estimate(&*plainer, &filter);
                    if other_first < SCATTER * first {
                        first = first.max(other_first * FILTER_COLUMNS);
                        rest = rest.max(other_rest * FILTER_COLUMNS);
                    }
                }
            }
        }
        *startup = first + query_cost.startup + filter.startup;
        *total = *startup + rest;
    }
}

/// How many times as much as by another index a search can cost, with nothing but chance behind it.
const SCATTER: f64 = 2.0;
/// What filter columns that no condition is on cost at least: enough for PostgreSQL to tell the costs apart.
const FILTER_COLUMNS: f64 = 1.03;

/// Whether an index serves the same orders as another one, of the same rows, with fewer filter columns.
///
/// # Safety
/// Nodes of the planner, of one table.
unsafe fn is_plainer(index: *const pg_sys::IndexOptInfo, than: &pg_sys::IndexOptInfo) -> bool {
    // SAFETY: by contract; the first column is a column of the table, or else the first of the index's expressions.
    unsafe {
        let one = &*index;
        let expression = |i: &pg_sys::IndexOptInfo| match *i.indexkeys {
            0 => elements::<std::ffi::c_void>(i.indexprs).next().unwrap_or(std::ptr::null_mut()),
            _ => std::ptr::null_mut(),
        };
        one.nkeycolumns < than.nkeycolumns
            && method::is_ours_to_plan(index)
            && (one.pages > 0 || one.hypothetical)
            && *one.opfamily == *than.opfamily
            && *one.indexkeys == *than.indexkeys
            && pg_sys::equal(expression(one).cast(), expression(than).cast())
            && (one.indpred.is_null() || one.predOK)
    }
}

/// Costs of the first rows, and of all further ones, by an index that `filter` is of.
///
/// # Safety
/// A node of the planner, whose index is locked by it.
unsafe fn estimate(index_info: &pg_sys::IndexOptInfo, filter: &Filter) -> (f64, f64) {
    // SAFETY: by contract.
    unsafe {
        let (mut random, mut sequential) = (0.0, 0.0);
        pg_sys::get_tablespace_page_costs(index_info.reltablespace, &mut random, &mut sequential);
        if !index_info.hypothetical && terms::is_of_plan(index_info) {
            let (first, all) = terms::cost::costs(index_info, (random, sequential));
            return (first, all - first);
        }
        let rows = index_info.tuples.max(1.0);
        let all_pages = f64::from(index_info.pages).max(1.0);
        let usual = (rows / 100.0).max(1.0);
        let (lists, probes, height) = if index_info.hypothetical {
            (usual, usual.sqrt(), 1.0)
        } else {
            let index = pg_sys::index_open(index_info.indexoid, pg_sys::NoLock as i32);
            // One that pgvector built tells by an ERROR, once it is used, that it wants a REINDEX.
            let found = Info::to_plan(crate::index::storage::pages(index)).map_or((usual, usual.sqrt(), 1.0), |info| {
                let probes = match options::probes() {
                    0 => f64::from(info.meta.rule_at(pgvector::target_recall(index)).probes(FIRST_GOAL as f64)),
                    n => n as f64,
                };
                (f64::from(info.meta.lists).max(1.0), probes, f64::from(info.meta.height))
            });
            pg_sys::index_close(index, pg_sys::NoLock as i32);
            found
        };
        let probes = (probes * filter.farther(FIRST_GOAL as f64 / rows)).min(lists);
        let share = (probes / lists).min(1.0);
        // Of those lists, the ones whose summaries let them pass.
        let read = filter.lists_read(rows / lists);
        let per_list = (all_pages / lists).max(1.0);
        // Sketches of the lists, and centroids (as large as entries) of the root.
        let list_pages = (per_list / 4.0).max(1.0);
        let posting_pages = (probes * read * list_pages).min(all_pages);
        let tree_pages = if height > 0.0 { (lists * all_pages / (rows + lists) / 4.0).max(1.0) } else { 0.0 };
        let code_pages = CODE_PAGES.min(all_pages * share);
        // What the cache holds is read as cheaply as a page of a sequential scan.
        let cached = (f64::from(pg_sys::effective_cache_size) / 2.0 / all_pages).min(1.0);
        let page = cached * sequential + (1.0 - cached) * random;
        let entries = rows * share * read + lists;
        let operator = pg_sys::cpu_operator_cost;
        let first = (posting_pages + tree_pages + code_pages) * page + entries * OPERATIONS_PER_ENTRY * operator;
        let matching = rows * filter.selectivity;
        let rest_pages = (lists - probes) * read * list_pages + all_pages * filter.selectivity;
        let rest = rest_pages.min((all_pages - posting_pages - tree_pages - code_pages).max(0.0)) * page
            + (rows * (1.0 - share) * read).max(0.0) * OPERATIONS_PER_ENTRY * operator
            + matching * TUPLES_PER_ROW * pg_sys::cpu_tuple_cost;
        (first, rest)
    }
}

/// Share of the lists without a match that their summaries do not exclude; and where a range is between two values.
const FALSE_MATCHES: f64 = 0.1;
const FALSE_MATCHES_BETWEEN: f64 = 0.25;
/// Lists to be read for n times as many nearest rows: n to this power, measured on several data sets.
const FARTHER: f64 = 0.6;

/// What the conditions of a path mean for its cost.
pub struct Filter {
    /// Share of the rows that pass.
    selectivity: f64,
    /// Of the conditions by which the summaries of lists tell whether the list must be read.
    by_summary: f64,
    /// Share of the lists without a match that are read.
    false_matches: f64,
    /// Evaluating the constants.
    startup: f64,
    /// The index cannot answer it.
    impossible: bool,
}

impl Filter {
    /// # Safety
    /// `path` is a path of an index of this access method.
    pub unsafe fn of_path(root: *mut pg_sys::PlannerInfo, path: *mut pg_sys::IndexPath) -> Filter {
        let mut filter =
            Filter { selectivity: 1.0, by_summary: 1.0, false_matches: 1.0, startup: 0.0, impossible: false };
        // SAFETY: by contract; the lists' elements are of the types that the planner puts there.
        unsafe {
            let index = (*path).indexinfo;
            let (relation, join) = ((*(*index).rel).relid as i32, pg_sys::JoinType::JOIN_INNER);
            let select = |clauses| pg_sys::clauselist_selectivity(root, clauses, relation, join, std::ptr::null_mut());
            let mut conditions = Vec::new();
            for clause in elements::<pg_sys::IndexClause>((*path).indexclauses) {
                for quals in elements::<pg_sys::RestrictInfo>((*clause).indexquals) {
                    let (column, condition) = ((*clause).indexcol, Condition::of(index, (*clause).indexcol, quals));
                    filter.impossible |= column == 0 && matches!(condition, Condition::Equal);
                    conditions.push((column, condition, quals));
                }
            }
            // A range that is open on one side is mostly at an end of the values, where few lists reach.
            let mut known: *mut pg_sys::List = std::ptr::null_mut();
            for (column, condition, quals) in &conditions {
                let has = |other| conditions.iter().any(|(c, o, _)| c == column && *o == other);
                if *condition == Condition::Other {
                    continue;
                }
                let between = has(Condition::Above) && has(Condition::Below);
                filter.false_matches =
                    filter.false_matches.min(if between { FALSE_MATCHES_BETWEEN } else { FALSE_MATCHES });
                known = pg_sys::lappend(known, quals.cast());
            }
            if (*path).indexclauses.is_null() {
                return filter;
            }
            let quals = pg_sys::get_quals_from_indexclauses((*path).indexclauses);
            filter.selectivity = select(pg_sys::add_predicate_to_index_quals(index, quals));
            filter.by_summary = if known.is_null() { 1.0 } else { select(known) };
            filter.startup = pg_sys::index_other_operands_eval_cost(root, quals);
        }
        filter
    }

    /// How many times as many lists hold the nearest matching rows. `goal`: the share of the rows that is looked for.
    fn farther(&self, goal: f64) -> f64 {
        if self.selectivity <= goal {
            return f64::INFINITY;
        }
        self.selectivity.powf(-FARTHER)
    }

    /// Of conditions by which summaries tell, which this share of the rows passes.
    pub fn of_shares(by_summary: f64, false_matches: f64) -> Filter {
        Filter { selectivity: by_summary, by_summary, false_matches, startup: 0.0, impossible: false }
    }

    /// Share of the lists, of `rows` rows each, that must be read.
    pub fn lists_read(&self, rows: f64) -> f64 {
        if self.by_summary >= 1.0 {
            return 1.0;
        }
        let with_match = 1.0 - (1.0 - self.by_summary).powf(rows);
        with_match + (1.0 - with_match) * self.false_matches
    }
}

/// What a condition asks of its column.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// Or IN, or IS NULL.
    Equal,
    Above,
    Below,
    Other,
}

impl Condition {
    /// # Safety
    /// `quals` is a condition of an index path on this column.
    unsafe fn of(index: *mut pg_sys::IndexOptInfo, column: i16, quals: *mut pg_sys::RestrictInfo) -> Condition {
        // SAFETY: by contract; nodes are cast by their tags.
        unsafe {
            let expression = (*quals).clause.cast::<pg_sys::Node>();
            let operator = match (*expression).type_ {
                pg_sys::NodeTag::T_OpExpr => (*expression.cast::<pg_sys::OpExpr>()).opno,
                pg_sys::NodeTag::T_ScalarArrayOpExpr => (*expression.cast::<pg_sys::ScalarArrayOpExpr>()).opno,
                pg_sys::NodeTag::T_NullTest => {
                    let test = (*expression.cast::<pg_sys::NullTest>()).nulltesttype;
                    return if test == pg_sys::NullTestType::IS_NULL { Condition::Equal } else { Condition::Other };
                }
                _ => return Condition::Other,
            };
            let family = *(*index).opfamily.add(column as usize);
            match pg_sys::get_op_opfamily_strategy(operator, family) as u16 {
                strategy::EQUAL => Condition::Equal,
                strategy::LESS | strategy::LESS_EQUAL => Condition::Below,
                strategy::GREATER | strategy::GREATER_EQUAL => Condition::Above,
                _ => Condition::Other,
            }
        }
    }
}

/// The elements of a list of pointers.
///
/// # Safety
/// They are pointers to T.
pub unsafe fn elements<T>(list: *const pg_sys::List) -> impl Iterator<Item = *mut T> {
    // SAFETY: a List has `length` cells; NULL is the empty list.
    (0..unsafe { list.as_ref() }.map_or(0, |l| l.length))
        .map(move |i| unsafe { (*(*list).elements.add(i as usize)).ptr_value.cast() })
}
