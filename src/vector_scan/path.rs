//! The planner's hook: finds scans that a vector scan could answer, and offers it with its cost.

use super::Strategy;
use super::conditions::{Condition, Finder};
use super::cost::{Cost, Model, UNITS_PER_MICROSECOND, WORTH, with_chance, with_try};
use super::distance::{self, Comparison, Form};
use super::exec::is_same_value;
use super::plan::{self, Expressions, Facts, FilterClauses, nodes};
use crate::index::cost::Filter;
use crate::index::method;
use crate::index::metric::OperatorClass as _;
use crate::index::metric::{Metric, Operator};
use crate::index::options;
use crate::index::page;
use crate::index::pgvector;
use crate::index::read::info::Info;
use crate::index::read::rows;
use crate::index::scan;
use crate::index::storage::pages;
use crate::index::terms;
use crate::pg::compat;
use crate::pg::hook::Previous;
use pgrx::prelude::*;

/// The node's name in EXPLAIN.
pub const CUSTOM_NAME: &std::ffi::CStr = c"vector scan";

/// Rows expected within a distance range: statistics say nothing about that. At least so many, or this share of the table.
const LEAST_IN_RANGE: f64 = 100.0;
const SHARE_IN_RANGE: f64 = 0.0005;
/// More than the cost of a plan by so much.
const A_LITTLE: f64 = 1.02;
/// Rows expected to be wanted when there is no LIMIT that the planner knows.
pub const UNKNOWN_LIMIT: f64 = 10.0;

/// Share of the rows that is expected in a range that is not known yet.
const UNKNOWN_RANGE: f64 = 0.01;

static PREVIOUS: Previous<SetRelPathlist> = Previous::new();

type SetRelPathlist = unsafe extern "C-unwind" fn(
    *mut pg_sys::PlannerInfo,
    *mut pg_sys::RelOptInfo,
    pg_sys::Index,
    *mut pg_sys::RangeTblEntry,
);

/// Installs the hook, in front of one that is there already.
pub fn install_hook() {
    // SAFETY: called once from _PG_init, in a single thread.
    unsafe { PREVIOUS.take(&raw mut pg_sys::set_rel_pathlist_hook, set_rel_pathlist) }
}

/// `set_rel_pathlist_hook`
#[pg_guard]
unsafe extern "C-unwind" fn set_rel_pathlist(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    rti: pg_sys::Index,
    rte: *mut pg_sys::RangeTblEntry,
) {
    // SAFETY: PostgreSQL's arguments.
    unsafe {
        PREVIOUS.call(|previous| previous(root, rel, rti, rte));
        if (*rel).indexlist.is_null() || !is_table(rel, rte) || pg_sys::is_dummy_rel(rel) {
            return;
        }
        let mut ours = false;
        for index in nodes::<pg_sys::IndexOptInfo>((*rel).indexlist) {
            if !method::is_ours_to_plan(index) || (*index).hypothetical || (*index).pages == 0 {
                continue;
            }
            if terms::is_of_plan(&*index) {
                continue;
            }
            ours = true;
            let offer = Offer { root, rel, rte, index };
            let can = options::vector_scan()
                && pg_sys::enable_indexscan
                && (*rte).tablesample.is_null()
                && (*rel).lateral_relids.is_null()
                && ((*index).indpred.is_null() || (*index).predOK);
            if can && !offer.wants_null() {
                offer.all();
            }
            // The scan of an index that pgvector built stays: it tells its user that the index wants a REINDEX.
            if !offer.plain_scan_is_right() && offer.model((*index).tuples).is_some() {
                offer.remove_plain_scans();
            }
        }
        // PostgreSQL drops paths that cost more than one which was removed here.
        if ours && !nodes::<pg_sys::Path>((*rel).pathlist).iter().any(|path| (**path).param_info.is_null()) {
            let scan = pg_sys::create_seqscan_path(root, rel, (*rel).lateral_relids, 0);
            pg_sys::add_path(rel, scan);
        }
    }
}

/// A table or a partition (or materialized view) that is scanned by itself.
unsafe fn is_table(rel: *mut pg_sys::RelOptInfo, rte: *mut pg_sys::RangeTblEntry) -> bool {
    // SAFETY: the planner's nodes.
    unsafe {
        ((*rel).reloptkind == pg_sys::RelOptKind::RELOPT_BASEREL
            || (*rel).reloptkind == pg_sys::RelOptKind::RELOPT_OTHER_MEMBER_REL)
            && (*rte).rtekind == pg_sys::RTEKind::RTE_RELATION
            && !(*rte).inh
    }
}

/// `column <op> query` for the column of an index and an ordering operator of its class.
#[derive(Clone, Copy)]
struct Distance {
    /// As written, or as the operator has it where it was written otherwise.
    expression: *mut pg_sys::Expr,
    query: *mut pg_sys::Expr,
}

/// What the query is ordered by first.
struct Order {
    distance: Distance,
    /// The order of a scan.
    pathkeys: *mut pg_sys::List,
    /// It is the distance itself, in the words of a plain index scan.
    plain: bool,
    /// Rows whose distance is not a number, and those that have none, come before all others.
    nan_first: bool,
    nulls_first: bool,
}

/// An index of a relation, for which paths are made.
struct Offer {
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    rte: *mut pg_sys::RangeTblEntry,
    index: *mut pg_sys::IndexOptInfo,
}

impl Offer {
    /// Offers paths in the order of the query, and for distance ranges in no order.
    unsafe fn all(&self) {
        // SAFETY: the planner's nodes.
        unsafe {
            let ranges: Vec<Range> = self.clauses().into_iter().filter_map(|clause| self.range(clause)).collect();
            let ordered = if self.order_is_the_statements() { self.order() } else { None };
            if let Some(order) = &ordered {
                let ranges: Vec<&Range> =
                    ranges.iter().filter(|r| self.may_be_same(&r.distance, &order.distance)).collect();
                let conditions = self.conditions();
                // Without other conditions a plain scan does as well, where it may be taken.
                let is_other = |clause| !self.is_null_test(clause, pg_sys::NullTestType::IS_NOT_NULL);
                if !order.plain || self.clauses().into_iter().any(is_other) || !self.plain_scan_is_right() {
                    self.offer(&order.distance, &ranges, Some(order), conditions);
                }
            }
            let mut done: Vec<*mut pg_sys::Expr> = ordered.iter().map(|order| order.distance.expression).collect();
            for range in &ranges {
                if done.iter().any(|d| same(*d, range.distance.expression)) {
                    continue;
                }
                done.push(range.distance.expression);
                let ranges: Vec<&Range> =
                    ranges.iter().filter(|r| same(r.distance.expression, range.distance.expression)).collect();
                self.offer(&range.distance, &ranges, None, None);
            }
        }
    }

    /// Whether a plain scan of the index in order gives the right answer. It gives the rows of the index, as many as a LIMIT asks for: so
    /// there must be one, and no row that is not in the index. Pages of an order (LIMIT with OFFSET) have to fit together, and some of
    /// PostgreSQL's versions forget the system columns of rows that an index scan puts in order.
    unsafe fn plain_scan_is_right(&self) -> bool {
        // SAFETY: the planner's nodes.
        unsafe {
            let (root, parse) = (&*self.root, &*(*self.root).parse);
            root.limit_tuples > 0.0
                && parse.limitOption == pg_sys::LimitOption::LIMIT_OPTION_COUNT
                && constant(parse.limitOffset).is_some_and(|offset| offset.unwrap_or(0) == 0)
                && !self.needs_system_columns()
                && self.left_out() == 0
        }
    }

    /// Whether the order that is asked for is that of ORDER BY. What steps that group or join make of rows that turn up late would be
    /// wrong; and WITH TIES asks for all ties.
    unsafe fn order_is_the_statements(&self) -> bool {
        // SAFETY: the planner's nodes.
        unsafe {
            let (root, parse) = (&*self.root, &*(*self.root).parse);
            let has_limit = root.tuple_fraction >= 1.0;
            parse.limitOption == pg_sys::LimitOption::LIMIT_OPTION_COUNT
                && parse.groupClause.is_null()
                && parse.groupingSets.is_null()
                && !parse.hasAggs
                && (has_limit || parse.distinctClause.is_null() && !parse.hasWindowFuncs)
        }
    }

    /// Whether something above the scan needs `ctid` (row locks do) or another system column.
    unsafe fn needs_system_columns(&self) -> bool {
        // SAFETY: `attr_needed` has a place for each column from `min_attr` on.
        unsafe {
            let rel = &*self.rel;
            (rel.min_attr..0).any(|column| !(*rel.attr_needed.add((column - rel.min_attr) as usize)).is_null())
        }
    }

    /// Rows that the WHERE clause does not exclude and that may not be in the index: flags of [`page::Meta::left_out`].
    unsafe fn left_out(&self) -> u32 {
        // SAFETY: the planner has the table and its indexes locked.
        unsafe {
            let index = pg_sys::index_open((*self.index).indexoid, pg_sys::NoLock as i32);
            let left_out = Info::to_plan(pages(index)).map_or(u32::MAX, |info| info.meta.left_out);
            pg_sys::index_close(index, pg_sys::NoLock as i32);
            if self.excludes_null() { left_out & !page::LEFT_OUT_NULL } else { left_out }
        }
    }

    /// Whether the WHERE clause excludes rows without a vector.
    unsafe fn excludes_null(&self) -> bool {
        // SAFETY: the planner's nodes.
        unsafe {
            let clauses = nodes::<pg_sys::RestrictInfo>((*self.rel).baserestrictinfo);
            clauses.into_iter().any(|clause| self.tests_null((*clause).clause, pg_sys::NullTestType::IS_NOT_NULL))
        }
    }

    /// Whether an expression is such a test of the index's column.
    unsafe fn tests_null(&self, expression: *mut pg_sys::Expr, kind: pg_sys::NullTestType::Type) -> bool {
        // SAFETY: the planner's nodes.
        unsafe {
            let test = expression.cast::<pg_sys::NullTest>();
            pgrx::is_a(test.cast(), pg_sys::NodeTag::T_NullTest)
                && (*test).nulltesttype == kind
                && pg_sys::match_index_to_operand((*test).arg.cast(), 0, self.index)
        }
    }

    /// Rows that the statement's LIMIT asks for, its OFFSET left out: so all pages of an order are planned alike.
    unsafe fn limit(&self) -> Option<f64> {
        // SAFETY: the planner's nodes.
        unsafe {
            let root = &*self.root;
            let count = constant((*root.parse).limitCount).flatten().filter(|&count| count > 0);
            match count {
                // A sort by further keys reads on until the first one changes.
                _ if root.limit_tuples > 0.0
                    && pgrx::PgList::<pg_sys::PathKey>::from_pg(root.query_pathkeys).len() > 1 =>
                {
                    Some(root.limit_tuples + 1.0)
                }
                Some(count) if root.limit_tuples > 0.0 => Some(count as f64),
                _ if root.limit_tuples > 0.0 => Some(root.limit_tuples),
                _ if root.tuple_fraction >= 1.0 => Some(root.tuple_fraction),
                _ => None,
            }
        }
    }

    /// Whether the WHERE clause asks for rows without a vector, which are not in the index.
    unsafe fn wants_null(&self) -> bool {
        // SAFETY: the planner's nodes.
        unsafe { self.clauses().into_iter().any(|clause| self.is_null_test(clause, pg_sys::NullTestType::IS_NULL)) }
    }

    /// Whether a clause is such a test of the index's column, see [`Offer::tests_null`].
    unsafe fn is_null_test(&self, clause: *mut pg_sys::RestrictInfo, kind: pg_sys::NullTestType::Type) -> bool {
        // SAFETY: the planner's nodes.
        unsafe { self.tests_null((*clause).clause, kind) }
    }

    /// WHERE clauses that have to be evaluated for each row: not those that a partial index implies.
    unsafe fn clauses(&self) -> Vec<*mut pg_sys::RestrictInfo> {
        // SAFETY: the planner's nodes.
        unsafe {
            nodes((*self.index).indrestrictinfo)
                .into_iter()
                .filter(|c: &*mut pg_sys::RestrictInfo| !(**c).pseudoconstant)
                .collect()
        }
    }

    /// The query's first ORDER BY, when it is a distance that the index knows, or follows from one.
    unsafe fn order(&self) -> Option<Order> {
        // SAFETY: the planner's nodes.
        unsafe {
            let pathkey = *nodes::<pg_sys::PathKey>((*self.root).query_pathkeys).first()?;
            if !distance::is_order((*pathkey).pk_opfamily) || (*(*pathkey).pk_eclass).ec_has_volatile {
                return None;
            }
            let descending = !compat::is_ascending(pathkey);
            let is_sorted_further = nodes::<pg_sys::PathKey>((*self.root).query_pathkeys).len() > 1;
            for expression in members((*pathkey).pk_eclass, (*self.rel).relids) {
                let Some((distance, form)) = self.value(expression) else { continue };
                if form.falling != descending {
                    continue;
                }
                let (nan_first, nulls_first) = (descending, (*pathkey).pk_nulls_first);
                let at_front = if nan_first { page::LEFT_OUT_NOWHERE } else { 0 }
                    | if nulls_first { page::LEFT_OUT_NULL } else { 0 };
                // They would have to be looked for in the table.
                if at_front != 0 && self.left_out() & at_front != 0 {
                    return None;
                }
                let pathkeys = pg_sys::lappend(std::ptr::null_mut(), pathkey.cast());
                let plain = distance.expression == expression && !nulls_first && !is_sorted_further;
                return Some(Order { distance, pathkeys, plain, nan_first, nulls_first });
            }
            None
        }
    }

    /// Takes an expression for a value that follows from a distance.
    unsafe fn value(&self, expression: *mut pg_sys::Expr) -> Option<(Distance, Form)> {
        // SAFETY: the planner's nodes.
        unsafe { Form::of(expression, &|inner| self.distance(inner)) }
    }

    /// Takes an expression for a distance: by an operator of the index's class, by the function of one, or by the function
    /// `inner_product`, whose negative is a distance.
    unsafe fn distance(&self, expression: *mut pg_sys::Expr) -> Option<(Distance, Form)> {
        // SAFETY: the planner's nodes, which are what their tags say; an OpExpr with two arguments.
        unsafe {
            let (operator, arguments): (_, Vec<*mut pg_sys::Expr>) = match (*expression).type_ {
                pg_sys::NodeTag::T_OpExpr => {
                    let op = &*expression.cast::<pg_sys::OpExpr>();
                    (op.opno, nodes(op.args))
                }
                pg_sys::NodeTag::T_FuncExpr => {
                    let call = &*expression.cast::<pg_sys::FuncExpr>();
                    (pg_sys::InvalidOid, nodes(call.args))
                }
                _ => return None,
            };
            let &[left, right] = &arguments[..] else { return None };
            let (column, query, turned) = if pg_sys::match_index_to_operand(left.cast(), 0, self.index) {
                (left, right, false)
            } else if pg_sys::match_index_to_operand(right.cast(), 0, self.index) {
                (right, left, true)
            } else {
                return None;
            };
            let form = || Form::of_distance(self.is_positive());
            let family = *(*self.index).opfamily;
            let (operator, form) = if operator == pg_sys::InvalidOid {
                let of_type = *(*self.index).opcintype;
                let operator = pg_sys::get_opfamily_member(family, of_type, of_type, ORDERING);
                let called = (*expression.cast::<pg_sys::FuncExpr>()).funcid;
                let function = if operator == pg_sys::InvalidOid { operator } else { pg_sys::get_opcode(operator) };
                if function == pg_sys::InvalidOid {
                    return None;
                } else if called == function {
                    (operator, form())
                } else if is_inner_product(called, function) {
                    (operator, form().negated())
                } else {
                    return None;
                }
            } else {
                (if turned { pg_sys::get_commutator(operator) } else { operator }, form())
            };
            if operator == pg_sys::InvalidOid
                || pg_sys::get_op_opfamily_sortfamily(operator, family) != distance::FLOAT_OPS
                || !self.is_constant(query)
            {
                return None;
            }
            let is_written_so = !turned && (*expression).type_ == pg_sys::NodeTag::T_OpExpr;
            let expression = if is_written_so {
                expression
            } else {
                let none = pg_sys::InvalidOid;
                pg_sys::make_opclause(operator, pg_sys::FLOAT8OID, false, column, query, none, none)
            };
            Some((Distance { expression, query }, form))
        }
    }

    /// Whether distances of the index are never below 0.
    unsafe fn is_positive(&self) -> bool {
        // SAFETY: the planner has the table and its indexes locked.
        unsafe {
            let index = pg_sys::index_open((*self.index).indexoid, pg_sys::NoLock as i32);
            let operator = Operator::find(index);
            pg_sys::index_close(index, pg_sys::NoLock as i32);
            operator.is_some_and(|operator| operator.metric != Metric::InnerProduct)
        }
    }

    /// Whether two distances have the same query vector, as far as that is known before the query runs: parameters and subqueries that
    /// are given twice are compared then.
    unsafe fn may_be_same(&self, a: &Distance, b: &Distance) -> bool {
        // SAFETY: the planner's nodes; both are made by `distance`.
        unsafe {
            if same(a.expression, b.expression) {
                return true;
            }
            let operator = |d: &Distance| (*d.expression.cast::<pg_sys::OpExpr>()).opno;
            if operator(a) != operator(b) {
                return false;
            }
            match (self.known(a.query), self.known(b.query)) {
                (Some(a), Some(b)) => is_same_value(a, b),
                _ => true,
            }
        }
    }

    /// Whether an expression has one value during a scan.
    unsafe fn is_constant(&self, expression: *mut pg_sys::Expr) -> bool {
        // SAFETY: the planner's nodes.
        unsafe {
            pg_sys::pull_varnos(self.root, expression.cast()).is_null()
                && !pg_sys::contain_volatile_functions(expression.cast())
        }
    }

    /// Takes a WHERE clause for a distance range: `distance < radius`, `<=`, or turned round; or a comparison of a value that follows
    /// from a distance.
    unsafe fn range(&self, clause: *mut pg_sys::RestrictInfo) -> Option<Range> {
        // SAFETY: the planner's nodes; a comparison of two float8 has two arguments.
        unsafe {
            let expression = (*clause).clause;
            if !pgrx::is_a(expression.cast(), pg_sys::NodeTag::T_OpExpr) {
                return None;
            }
            let op = expression.cast::<pg_sys::OpExpr>();
            let arguments: Vec<*mut pg_sys::Expr> = nodes((*op).args);
            let &[left, right] = &arguments[..] else { return None };
            let (mut left_type, mut right_type) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
            pg_sys::op_input_types((*op).opno, &mut left_type, &mut right_type);
            if left_type != pg_sys::FLOAT8OID || right_type != pg_sys::FLOAT8OID {
                return None;
            }
            let (distance, form, radius, turned) = match (self.value(left), self.value(right)) {
                (Some((distance, form)), None) => (distance, form, right, false),
                (None, Some((distance, form))) => (distance, form, left, true),
                _ => return None,
            };
            let strategy = pg_sys::get_op_opfamily_strategy((*op).opno, distance::FLOAT_OPS);
            let comparison = Comparison::of_strategy(strategy, turned)?;
            if comparison.is_below() == form.falling || !form.is_computed() || !self.is_constant(radius) {
                return None;
            }
            Some(Range { clause, distance, form, comparison, radius })
        }
    }

    /// Adds a path for a distance, with or without an order, to the relation.
    /// `conditions`: those on its filter columns.
    unsafe fn offer(
        &self,
        distance: &Distance,
        ranges: &[&Range],
        order: Option<&Order>,
        conditions: Option<FilterClauses>,
    ) {
        // SAFETY: the planner's nodes; what is made here lives in the planner's memory.
        unsafe {
            let (root, rel) = (self.root, self.rel);
            let ordered = order.is_some();
            let pathkeys = order.map_or(std::ptr::null_mut(), |order| order.pathkeys);
            let is_cut_short = ordered && self.limit().is_some();
            if !(ranges.is_empty() || is_cut_short) {
                self.offer_range(distance, ranges, order);
                return;
            }
            let range_clauses: Vec<*mut pg_sys::RestrictInfo> = ranges.iter().map(|r| r.clause).collect();
            let others: Vec<*mut pg_sys::RestrictInfo> =
                self.clauses().into_iter().filter(|c| !range_clauses.contains(c)).collect();
            let rows = (*self.index).tuples.max(1.0);
            let share = if others.is_empty() { 1.0 } else { self.selectivity(&others) };
            let conditions = conditions.as_ref();
            let index_share = conditions.map_or(1.0, |c| self.selectivity(&c.clauses).clamp(share, 1.0));
            let Some(model) = self.model(rows) else { return };
            let mut qual = pg_sys::QualCost::default();
            pg_sys::cost_qual_eval(&mut qual, (*rel).baserestrictinfo, root);
            let qual_micros = qual.per_tuple / UNITS_PER_MICROSECOND;
            let in_range = (!ranges.is_empty()).then(|| LEAST_IN_RANGE.max(rows * SHARE_IN_RANGE).min(rows));
            let limit = if ordered || (*root).query_pathkeys.is_null() { self.limit() } else { None };
            let within = in_range.map(|n| (n * share).max(1.0));
            let k = match (limit, within) {
                (Some(k), Some(n)) => k.min(n),
                (Some(k), None) => k,
                (None, Some(n)) => n,
                (None, None) => UNKNOWN_LIMIT,
            }
            .min((rows * share).max(1.0));
            // The distance itself is computed above the scan, of all rows or of those that are returned.
            let mut above = pg_sys::QualCost::default();
            pg_sys::cost_qual_eval_node(&mut above, distance.expression.cast(), root);
            let sorted = if ordered { self.sorted(k, above.per_tuple) } else { None };
            if options::vector_scan_strategy().is_none()
                && pg_sys::enable_sort
                && let Some(Sorted { path, .. }) = sorted
                && matches!((*path).type_, pg_sys::NodeTag::T_IndexPath | pg_sys::NodeTag::T_BitmapHeapPath)
                && sorted_by(&model, path, qual_micros) <= model.least()
            {
                // Planning more would cost more than it could save.
                self.remove_plain_scans();
                return;
            }
            let (mut random, mut sequential) = (0.0, 0.0);
            pg_sys::get_tablespace_page_costs((*rel).reltablespace, &mut random, &mut sequential);
            let pass_units =
                f64::from((*rel).pages) * sequential + (*rel).tuples * (pg_sys::cpu_tuple_cost + qual.per_tuple);
            let mut facts = Facts {
                index: (*self.index).indexoid,
                strategy: Strategy::Inline,
                limit,
                share,
                matching: rows,
                bitmap_micros: 0.0,
                qual_micros,
                pass_micros: pass_units / UNITS_PER_MICROSECOND + model.found_by_pass(k, rows * share, qual_micros),
                rows,
                pages: f64::from((*rel).pages),
                toasted: model.toasted,
                ordered,
                in_range,
                index_share,
                has_vector: self.excludes_null() || !ranges.is_empty(),
                nan_first: order.is_some_and(|order| order.nan_first),
                nulls_first: order.is_some_and(|order| order.nulls_first),
                lists_read: conditions.map_or(1.0, |c| self.filter(c).lists_read(rows / model.lists)),
            };
            // What the caches hold costs no more than processor time.
            let all_pages = f64::from((*self.index).pages) + f64::from((*rel).pages);
            let uncached = 1.0 - (f64::from(pg_sys::effective_cache_size) / 2.0 / all_pages.max(1.0)).min(1.0);
            let units = |cost: Cost| cost.micros * UNITS_PER_MICROSECOND + cost.pages * uncached * random;

            let search = units(facts.by_search(&model, k));
            // When too few rows match, the search has to go to the end for sure.
            let can_fill = rows * share >= 2.0 * k;
            let pass = units(Cost { micros: facts.pass_micros, pages: 0.0 });
            let mut cost = match in_range {
                Some(_) => search,
                None if can_fill => with_chance(search, pass),
                None => search.min(with_try(pass)),
            };
            // All that match (or are in range): for who reads on.
            let by_pass = pass_units + rows * share * model.distance() * UNITS_PER_MICROSECOND;
            let mut all = units(facts.by_search(&model, within.unwrap_or(rows * share)));
            if in_range.is_none() {
                all = all.min(by_pass);
            }
            let bitmap = if others.is_empty() { None } else { self.bitmap_path() };
            if let Some((_, bitmap_units, found)) = bitmap {
                let matching = (found * (*rel).tuples).clamp(1.0, rows);
                let rest = (share / found.max(1e-12)).min(1.0);
                let search = model.restricted(k, matching, rest, qual_micros);
                let read_all = model.read_all(matching, rest, qual_micros);
                let best = if search.micros < read_all.micros { search } else { read_all };
                facts.matching = matching;
                facts.bitmap_micros = bitmap_units / UNITS_PER_MICROSECOND + model.bitmap(matching);
                let bitmap_cost = facts.bitmap_micros * UNITS_PER_MICROSECOND + units(best);
                let forced = options::vector_scan_strategy();
                if forced == Some(Strategy::Bitmap) || forced.is_none() && bitmap_cost < cost {
                    facts.strategy = Strategy::Bitmap;
                    cost = bitmap_cost;
                    all = bitmap_units + units(read_all);
                }
            }
            let expressions = Expressions {
                distance: distance.expression,
                query: distance.query,
                radii: ranges.iter().map(|r| r.radius).collect(),
                queries: ranges.iter().map(|r| r.distance.query).collect(),
                constants: conditions.map_or(Vec::new(), |conditions| conditions.constants.clone()),
                // Made with the plan.
                conditions_written: std::ptr::null_mut(),
                all: std::ptr::null_mut(),
            };
            let mut query_cost = pg_sys::QualCost::default();
            pg_sys::cost_qual_eval_node(&mut query_cost, distance.query.cast(), root);
            let setup = qual.startup + query_cost.startup + query_cost.per_tuple;
            let emit = pg_sys::cpu_tuple_cost + (*(*rel).reltarget).cost.per_tuple;
            let mut cost = cost + k * emit;
            // PostgreSQL's formulas leave out that a vector is read, out of line perhaps, and count a page of the table like
            // one that is read from disk. So its plan and the node are compared by what both are expected to take, and the
            // node is offered for a little less or a little more.
            if let Some(Sorted { path, units: theirs, rows }) = sorted {
                let theirs_true = match (*path).type_ {
                    pg_sys::NodeTag::T_IndexPath | pg_sys::NodeTag::T_BitmapHeapPath => {
                        units(Cost { micros: sorted_by(&model, path, qual_micros), pages: rows })
                    }
                    _ => theirs + rows * (model.distance() * UNITS_PER_MICROSECOND - above.per_tuple),
                };
                cost = if cost <= theirs_true {
                    cost.min((theirs * (2.0 - A_LITTLE) - k * above.per_tuple).max(0.0))
                } else {
                    cost.max(theirs * A_LITTLE)
                };
            }
            let all = all.max(cost) + (*rel).rows * emit;
            // A LIMIT takes its share of what lies between startup and total cost; it shall come to `cost`.
            let taken = (k / (*rel).rows.max(1.0)).min(0.99);
            let startup = ((cost - taken * all) / (1.0 - taken)).clamp(0.0, cost);
            // A strategy that the user has named is taken wherever it can be.
            let (startup, all) = if options::vector_scan_strategy().is_some() { (0.0, 0.0) } else { (startup, all) };

            let setup = setup + (*(*rel).reltarget).cost.startup;
            let mut path = self.new_path((*rel).rows, setup + startup, setup + all, pathkeys);
            if let Some((bitmap, _, _)) = bitmap
                && options::vector_scan_strategy() != Some(Strategy::Inline)
            {
                path.custom_paths = pg_sys::lappend(path.custom_paths, bitmap.cast());
            }
            path.custom_private = plan::path_private(facts, &expressions, &range_clauses, forms(ranges), conditions);
            if ordered {
                self.remove_plain_scans();
            }
            pg_sys::add_path(rel, path.into_pg().cast());
        }
    }

    /// Adds a path for all rows within a distance, where that is expected to be quicker than PostgreSQL's own plan.
    unsafe fn offer_range(&self, distance: &Distance, ranges: &[&Range], order: Option<&Order>) {
        // SAFETY: the planner's nodes; what is made here lives in the planner's memory.
        unsafe {
            let pathkeys = order.map_or(std::ptr::null_mut(), |order| order.pathkeys);
            let (root, rel) = (self.root, self.rel);
            let rows = (*self.index).tuples.max(1.0);
            let Some(model) = self.model(rows) else { return };
            let Some(Sorted { path: cheapest, rows: found, .. }) = self.sorted(1.0, 0.0) else { return };
            let mut qual = pg_sys::QualCost::default();
            pg_sys::cost_qual_eval(&mut qual, (*rel).baserestrictinfo, root);
            let qual_micros = qual.per_tuple / UNITS_PER_MICROSECOND;
            // What the planner cannot know, the node finds out before it begins; then it reads the table if that is better.
            let within = rows * self.share_within(distance, ranges).unwrap_or(UNKNOWN_RANGE);
            let ours = model.through(within, qual_micros);
            let theirs = match (*cheapest).type_ {
                pg_sys::NodeTag::T_IndexPath | pg_sys::NodeTag::T_BitmapHeapPath => {
                    sorted_by(&model, cheapest, qual_micros)
                }
                _ => model.table(qual_micros),
            };
            let forced = options::vector_scan_strategy().is_some();
            if ours > WORTH * theirs && !forced {
                return;
            }
            let range_clauses: Vec<*mut pg_sys::RestrictInfo> = ranges.iter().map(|r| r.clause).collect();
            let facts = Facts {
                index: (*self.index).indexoid,
                strategy: Strategy::Inline,
                limit: None,
                share: 1.0,
                matching: rows,
                bitmap_micros: 0.0,
                qual_micros,
                pass_micros: model.table(qual_micros),
                rows,
                pages: f64::from((*rel).pages),
                toasted: model.toasted,
                ordered: !pathkeys.is_null(),
                in_range: Some(within.max(1.0)),
                index_share: 1.0,
                has_vector: true,
                nan_first: order.is_some_and(|order| order.nan_first),
                nulls_first: order.is_some_and(|order| order.nulls_first),
                lists_read: 1.0,
            };
            let expressions = Expressions {
                distance: distance.expression,
                query: distance.query,
                radii: ranges.iter().map(|r| r.radius).collect(),
                queries: ranges.iter().map(|r| r.distance.query).collect(),
                constants: Vec::new(),
                conditions_written: std::ptr::null_mut(),
                all: std::ptr::null_mut(),
            };
            // In PostgreSQL's own measure of what it takes for its plan, so that parallel plans are weighed by it as well.
            let mut total = (*cheapest).total_cost * (ours / theirs).min(1.0);
            if !pathkeys.is_null() {
                let n = (*rel).rows.max(2.0);
                total += 2.0 * pg_sys::cpu_operator_cost * n * n.log2();
            }
            let startup = if pathkeys.is_null() { units_of(model.least()) } else { total };
            let (startup, total) = if forced { (0.0, 0.0) } else { (startup.min(total), total) };
            let mut path = self.new_path((*cheapest).rows.max(found.min(1.0)), startup, total, pathkeys);
            path.custom_private = plan::path_private(facts, &expressions, &range_clauses, forms(ranges), None);
            pg_sys::add_path(rel, path.into_pg().cast());
        }
    }

    /// A path node of ours, yet without what is private to it.
    unsafe fn new_path(
        &self,
        rows: f64,
        startup: f64,
        total: f64,
        pathkeys: *mut pg_sys::List,
    ) -> pgrx::PgBox<pg_sys::CustomPath, pgrx::AllocatedByRust> {
        // SAFETY: the planner's nodes; a new one in its memory.
        unsafe {
            let rel = self.rel;
            let mut path = pgrx::PgBox::<pg_sys::CustomPath>::alloc_node(pg_sys::NodeTag::T_CustomPath);
            path.path.pathtype = pg_sys::NodeTag::T_CustomScan;
            path.path.parent = rel;
            path.path.pathtarget = (*rel).reltarget;
            path.path.parallel_safe = (*rel).consider_parallel;
            path.path.rows = rows;
            path.path.startup_cost = startup;
            path.path.total_cost = total;
            path.path.pathkeys = pathkeys;
            #[cfg(not(feature = "pg14"))]
            {
                path.flags = pg_sys::CUSTOMPATH_SUPPORT_PROJECTION;
            }
            path.methods = &PATH_METHODS.0;
            path
        }
    }

    /// About which share of the rows is within distance ranges, by the index; None where the query or all of the radii are not known yet.
    unsafe fn share_within(&self, distance: &Distance, ranges: &[&Range]) -> Option<f64> {
        // SAFETY: the planner's nodes; the index is locked, a value is of the type that its operator takes.
        unsafe {
            let query = self.known(distance.query)?;
            let radius = ranges
                .iter()
                .filter_map(|range| Some((range, f64::from_bits(self.known(range.radius)?.value() as u64))))
                .map(|(range, radius)| range.comparison.reach(&range.form, radius))
                .min_by(f64::total_cmp)?;
            let index = pg_sys::index_open((*self.index).indexoid, pg_sys::NoLock as i32);
            let share = scan::share_within(index, query, radius);
            pg_sys::index_close(index, pg_sys::NoLock as i32);
            share
        }
    }

    /// The value of an expression, if the planner knows it and it is not NULL.
    unsafe fn known(&self, expression: *mut pg_sys::Expr) -> Option<pg_sys::Datum> {
        // SAFETY: the planner's nodes.
        unsafe {
            let value = pg_sys::estimate_expression_value(self.root, expression.cast());
            if !pgrx::is_a(value, pg_sys::NodeTag::T_Const) {
                return None;
            }
            let value = &*value.cast::<pg_sys::Const>();
            (!value.constisnull).then_some(value.constvalue)
        }
    }

    /// The cheapest scan in no order, and what PostgreSQL expects it and a sort for `k` rows to cost. `distance`: cost of computing
    /// one, in the planner's unit.
    unsafe fn sorted(&self, k: f64, distance: f64) -> Option<Sorted> {
        // SAFETY: the planner's nodes.
        unsafe {
            let cheapest = nodes::<pg_sys::Path>((*self.rel).pathlist)
                .into_iter()
                .filter(|path| (**path).param_info.is_null() && (**path).pathkeys.is_null())
                .min_by(|a, b| (**a).total_cost.total_cmp(&(**b).total_cost))?;
            let found = (*cheapest).rows;
            let rows = found.max(2.0);
            let kept = if rows > 2.0 * k { 2.0 * k } else { rows };
            // As in cost_sort; the distance itself is computed by an operator.
            let sort = 2.0 * pg_sys::cpu_operator_cost * rows * kept.log2() + pg_sys::cpu_operator_cost * rows;
            Some(Sorted { path: cheapest, units: (*cheapest).total_cost + rows * distance + sort, rows: found })
        }
    }

    /// What the WHERE clause demands of the index's filter columns, if anything. Not of PostgreSQL's paths, which are those that have
    /// survived beside paths of other indexes, and differ between its versions.
    unsafe fn conditions(&self) -> Option<FilterClauses> {
        // SAFETY: the planner's nodes.
        unsafe {
            let mut finder = Finder::new(self.root, self.index);
            let (mut parts, mut clauses, mut whole) = (Vec::new(), Vec::new(), Vec::new());
            for clause in self.clauses() {
                if !pg_sys::restriction_is_securely_promotable(clause, self.rel) {
                    continue;
                }
                let Some((part, is_whole)) = finder.find((*clause).clause) else { continue };
                parts.push(part);
                clauses.push(clause);
                if is_whole {
                    whole.push(clause);
                }
            }
            // Nor are those shown that a partial index implies.
            let all = nodes::<pg_sys::RestrictInfo>((*self.rel).baserestrictinfo).into_iter();
            let left: Vec<*mut pg_sys::RestrictInfo> = nodes((*self.index).indrestrictinfo);
            whole.extend(all.filter(|clause| !left.contains(clause)));
            let constants = finder.arguments;
            (!parts.is_empty()).then_some(FilterClauses { condition: Condition::All(parts), constants, clauses, whole })
        }
    }

    /// What the conditions mean for the lists to be read.
    unsafe fn filter(&self, conditions: &FilterClauses) -> Filter {
        let Condition::All(parts) = &conditions.condition else { return Filter::of_shares(1.0, 1.0) };
        let told = parts.iter().zip(&conditions.clauses).filter(|(part, _)| part.false_matches().is_some());
        let told: Vec<*mut pg_sys::RestrictInfo> = told.map(|(_, clause)| *clause).collect();
        match conditions.condition.false_matches() {
            // SAFETY: the planner's nodes.
            Some(false_matches) => unsafe { Filter::of_shares(self.selectivity(&told), false_matches) },
            None => Filter::of_shares(1.0, 1.0),
        }
    }

    /// Removes plain scans of the index: what they do, a vector scan does with the WHERE clause in hand. PostgreSQL's
    /// formula for their cost would have them chosen wrongly, as it counts a row that fails the WHERE clause for little.
    unsafe fn remove_plain_scans(&self) {
        // SAFETY: the planner's nodes.
        unsafe {
            for path in nodes::<pg_sys::IndexPath>((*self.rel).pathlist) {
                if (*path).path.type_ == pg_sys::NodeTag::T_IndexPath
                    && (*(*path).indexinfo).indexoid == (*self.index).indexoid
                {
                    (*self.rel).pathlist = pg_sys::list_delete_ptr((*self.rel).pathlist, path.cast());
                }
            }
        }
    }

    /// Share of the rows that pass all of some clauses.
    unsafe fn selectivity(&self, clauses: &[*mut pg_sys::RestrictInfo]) -> f64 {
        // SAFETY: the planner's nodes.
        unsafe {
            let list = plan::list_of(clauses);
            pg_sys::clauselist_selectivity(
                self.root,
                list,
                (*self.rel).relid as i32,
                pg_sys::JoinType::JOIN_INNER,
                std::ptr::null_mut(),
            )
            .max(1e-12)
        }
    }

    /// None if pgvector built the index.
    unsafe fn model(&self, rows: f64) -> Option<Model> {
        // SAFETY: the planner has the table and its indexes locked.
        unsafe {
            let index = pg_sys::index_open((*self.index).indexoid, pg_sys::NoLock as i32);
            let info = Info::to_plan(pages(index));
            let recall = pgvector::target_recall(index);
            pg_sys::index_close(index, pg_sys::NoLock as i32);
            let info = info?;
            // The width of a value that is out of line is that of its pointer.
            let column = *(*self.index).indexkeys;
            let toasted = column > 0 && {
                let width = pg_sys::get_attavgwidth((*self.rte).relid, column as i16);
                width > 0 && (width as f64) < f64::from(info.meta.dims)
            };
            Some(Model::new(&info, recall, rows, toasted))
        }
    }

    /// The best bitmap of the other indexes for the WHERE clause: its path, its cost, and the share of rows it finds.
    /// PostgreSQL's own search for index paths is run on a copy of the relation whose indexes can do bitmap scans only.
    unsafe fn bitmap_path(&self) -> Option<(*mut pg_sys::Path, f64, f64)> {
        // SAFETY: shallow copies of the planner's nodes, in its memory; they live as long as the paths made of them.
        unsafe {
            if !pg_sys::enable_bitmapscan {
                return None;
            }
            let rel: *mut pg_sys::RelOptInfo = copy(self.rel);
            (*rel).pathlist = std::ptr::null_mut();
            (*rel).partial_pathlist = std::ptr::null_mut();
            (*rel).indexlist = std::ptr::null_mut();
            (*rel).joininfo = std::ptr::null_mut();
            (*rel).has_eclass_joins = false;
            (*rel).consider_parallel = false;
            for index in nodes::<pg_sys::IndexOptInfo>((*self.rel).indexlist) {
                if (*index).amhasgetbitmap {
                    let index = copy(index);
                    (*index).rel = rel;
                    (*index).amhasgettuple = false;
                    (*rel).indexlist = pg_sys::lappend((*rel).indexlist, index.cast());
                }
            }
            if (*rel).indexlist.is_null() {
                return None;
            }
            pg_sys::create_index_paths(self.root, rel);
            let path = nodes::<pg_sys::Path>((*rel).pathlist)
                .into_iter()
                .find(|p| (**p).type_ == pg_sys::NodeTag::T_BitmapHeapPath && (**p).param_info.is_null())?;
            let (mut cost, mut selectivity) = (0.0, 0.0);
            let qual = (*path.cast::<pg_sys::BitmapHeapPath>()).bitmapqual;
            pg_sys::cost_bitmap_tree_node(qual, &mut cost, &mut selectivity);
            Some((path, cost, selectivity))
        }
    }
}

/// Microseconds in the planner's unit.
fn units_of(micros: f64) -> f64 {
    micros * UNITS_PER_MICROSECOND
}

/// PostgreSQL's own plan: rows in no order, and a sort above.
struct Sorted {
    path: *mut pg_sys::Path,
    /// Cost by PostgreSQL's formulas.
    units: f64,
    rows: f64,
}

/// Microseconds that PostgreSQL takes for a scan of an index or of a bitmap, and to sort by distance what that finds.
///
/// # Safety
/// Such a path.
unsafe fn sorted_by(model: &Model, path: *mut pg_sys::Path, qual: f64) -> f64 {
    // SAFETY: by contract.
    unsafe {
        let rows = (*path).rows;
        let (scan, bitmap) = match (*path).type_ {
            pg_sys::NodeTag::T_IndexPath => ((*path.cast::<pg_sys::IndexPath>()).indextotalcost, 0.0),
            _ => {
                let (mut cost, mut selectivity) = (0.0, 0.0);
                let tree = (*path.cast::<pg_sys::BitmapHeapPath>()).bitmapqual;
                pg_sys::cost_bitmap_tree_node(tree, &mut cost, &mut selectivity);
                (cost, model.bitmap(rows))
            }
        };
        scan / UNITS_PER_MICROSECOND + bitmap + model.sorted(rows, qual)
    }
}

/// Whether a path is a vector scan in the order of distance.
///
/// # Safety
/// A path of a custom scan.
pub unsafe fn is_ordered(path: *mut pg_sys::CustomPath) -> bool {
    // SAFETY: by contract.
    unsafe { std::ptr::eq((*path).methods, &PATH_METHODS.0) && !(*path).path.pathkeys.is_null() }
}

/// A copy of a node in the current memory context.
unsafe fn copy<T>(node: *mut T) -> *mut T {
    // SAFETY: a plain C struct of that size.
    unsafe {
        let new: *mut T = pg_sys::palloc(size_of::<T>()).cast();
        std::ptr::copy_nonoverlapping(node, new, 1);
        new
    }
}

/// The value of a constant int8, or of none; None for another expression.
///
/// # Safety
/// An expression, or null.
unsafe fn constant(expression: *mut pg_sys::Node) -> Option<Option<i64>> {
    // SAFETY: by contract; a node is what its tag says.
    unsafe {
        match expression.as_ref() {
            None => Some(None),
            Some(node) if node.type_ == pg_sys::NodeTag::T_Const => {
                let value = &*expression.cast::<pg_sys::Const>();
                Some((!value.constisnull).then(|| value.constvalue.value() as i64))
            }
            Some(_) => None,
        }
    }
}

/// Strategy number of the ordering operator in the classes of vectors.
const ORDERING: i16 = 1;

/// Whether a function is the inner product whose negative is the distance `distance`: both come from one library in C, and stand in one
/// schema.
unsafe fn is_inner_product(called: pg_sys::Oid, distance: pg_sys::Oid) -> bool {
    // SAFETY: look-ups in the catalog.
    unsafe {
        let name = |function| {
            let name = pg_sys::get_func_name(function);
            if name.is_null() { "".into() } else { std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned() }
        };
        name(called) == "inner_product"
            && name(distance).ends_with("_negative_inner_product")
            && pg_sys::get_func_namespace(called) == pg_sys::get_func_namespace(distance)
            && rows::is_immutable_in_c(called)
    }
}

/// How ranges follow from distances, as integers.
fn forms(ranges: &[&Range]) -> Vec<i32> {
    let mut integers = Vec::new();
    for range in ranges {
        integers.push(range.comparison as i32);
        range.form.to_integers(&mut integers);
    }
    integers
}

/// A WHERE clause `distance < radius`, or what follows from a distance compared likewise.
struct Range {
    clause: *mut pg_sys::RestrictInfo,
    distance: Distance,
    form: Form,
    comparison: Comparison,
    radius: *mut pg_sys::Expr,
}

/// Whether two expressions are equal.
unsafe fn same(a: *mut pg_sys::Expr, b: *mut pg_sys::Expr) -> bool {
    // SAFETY: the planner's nodes.
    unsafe { pg_sys::equal(a.cast(), b.cast()) }
}

/// Expressions of an equivalence class over just these relations.
unsafe fn members(class: *mut pg_sys::EquivalenceClass, relids: pg_sys::Relids) -> Vec<*mut pg_sys::Expr> {
    // SAFETY: the planner's nodes.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        let all: Vec<*mut pg_sys::EquivalenceMember> = nodes((*class).ec_members);
        #[cfg(feature = "pg18")]
        let all: Vec<*mut pg_sys::EquivalenceMember> = {
            let mut all = Vec::new();
            let mut iterator = pg_sys::EquivalenceMemberIterator::default();
            pg_sys::setup_eclass_member_iterator(&mut iterator, class, relids);
            loop {
                let member = pg_sys::eclass_member_iterator_next(&mut iterator);
                if member.is_null() {
                    break all;
                }
                all.push(member);
            }
        };
        all.into_iter().filter(|m| pg_sys::bms_equal((**m).em_relids, relids)).map(|m| (*m).em_expr).collect()
    }
}

/// Tables of callbacks hold C strings and functions only.
struct Methods(pg_sys::CustomPathMethods);
// SAFETY: never changed.
unsafe impl Sync for Methods {}

static PATH_METHODS: Methods = Methods(pg_sys::CustomPathMethods {
    CustomName: CUSTOM_NAME.as_ptr(),
    PlanCustomPath: Some(plan::plan_path),
    ReparameterizeCustomPathByChild: None,
});
