//! Tells an index scan the LIMIT above it, so that it chooses its lists for as many rows at once, and a vector scan that all rows
//! are wanted: PostgreSQL does not.

use crate::index::method;
use crate::index::read::rows::{self, Judge};
use crate::index::scan;
use crate::index::terms::search::Range;
use crate::pg::hook::Previous;
use crate::vector_scan;
use pgrx::prelude::*;

/// Who else had asked to be called.
static PREVIOUS: Previous<unsafe extern "C-unwind" fn(*mut pg_sys::QueryDesc, std::ffi::c_int)> = Previous::new();
static PREVIOUS_RUN: Previous<ExecutorRun> = Previous::new();

#[cfg(not(feature = "pg18"))]
type ExecutorRun = unsafe extern "C-unwind" fn(*mut pg_sys::QueryDesc, pg_sys::ScanDirection::Type, u64, bool);
#[cfg(feature = "pg18")]
type ExecutorRun = unsafe extern "C-unwind" fn(*mut pg_sys::QueryDesc, pg_sys::ScanDirection::Type, u64);

/// Called once, when the library is loaded.
pub fn register() {
    // SAFETY: a plain global of this backend, which has one thread here.
    unsafe {
        PREVIOUS.take(&raw mut pg_sys::ExecutorStart_hook, executor_start);
        PREVIOUS_RUN.take(&raw mut pg_sys::ExecutorRun_hook, executor_run);
    }
}

/// `ExecutorStart_hook`
#[pg_guard]
unsafe extern "C-unwind" fn executor_start(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int) {
    // SAFETY: the executor's arguments.
    unsafe {
        if PREVIOUS.call(|previous| previous(query, flags)).is_none() {
            pg_sys::standard_ExecutorStart(query, flags);
        }
        if flags as u32 & pg_sys::EXEC_FLAG_EXPLAIN_ONLY == 0 {
            visit((*query).planstate, std::ptr::null_mut());
        }
    }
}

/// `ExecutorRun_hook`
#[cfg(not(feature = "pg18"))]
#[pg_guard]
unsafe extern "C-unwind" fn executor_run(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
    once: bool,
) {
    // SAFETY: the executor's arguments.
    unsafe {
        before_run(query, direction, count);
        if PREVIOUS_RUN.call(|previous| previous(query, direction, count, once)).is_none() {
            pg_sys::standard_ExecutorRun(query, direction, count, once);
        }
    }
}

/// `ExecutorRun_hook`
#[cfg(feature = "pg18")]
#[pg_guard]
unsafe extern "C-unwind" fn executor_run(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
) {
    // SAFETY: the executor's arguments.
    unsafe {
        before_run(query, direction, count);
        if PREVIOUS_RUN.call(|previous| previous(query, direction, count)).is_none() {
            pg_sys::standard_ExecutorRun(query, direction, count);
        }
    }
}

/// A `count` of 0 asks for all rows: not so where a cursor fetches some.
///
/// # Safety
/// The arguments of an `ExecutorRun_hook`.
unsafe fn before_run(query: *mut pg_sys::QueryDesc, direction: pg_sys::ScanDirection::Type, count: u64) {
    if count == 0 && direction == pg_sys::ScanDirection::ForwardScanDirection {
        // SAFETY: by contract.
        unsafe { tell_all((*query).planstate) };
    }
}

/// Tells the vector scans at `state`, or below nodes that read all of their input, that all their rows are wanted.
///
/// # Safety
/// A node of an executor's tree, or null.
unsafe fn tell_all(state: *mut pg_sys::PlanState) {
    // SAFETY: by contract; nodes are what their tags say.
    unsafe {
        let Some(node) = state.as_ref() else { return };
        match node.type_ {
            pg_sys::NodeTag::T_LimitState if limit_of(state.cast()).count == Some(None) => tell_all(node.lefttree),
            pg_sys::NodeTag::T_MergeAppendState => {
                let node = &*state.cast::<pg_sys::MergeAppendState>();
                (0..node.ms_nplans as usize).for_each(|i| tell_all(*node.mergeplans.add(i)));
            }
            pg_sys::NodeTag::T_AppendState => {
                let node = &*state.cast::<pg_sys::AppendState>();
                (0..node.as_nplans as usize).for_each(|i| tell_all(*node.appendplans.add(i)));
            }
            pg_sys::NodeTag::T_SubqueryScanState => tell_all((*state.cast::<pg_sys::SubqueryScanState>()).subplan),
            pg_sys::NodeTag::T_ResultState
            | pg_sys::NodeTag::T_ProjectSetState
            | pg_sys::NodeTag::T_LockRowsState
            | pg_sys::NodeTag::T_ModifyTableState
            | pg_sys::NodeTag::T_WindowAggState
            | pg_sys::NodeTag::T_AggState
            | pg_sys::NodeTag::T_SortState
            | pg_sys::NodeTag::T_IncrementalSortState => tell_all(node.lefttree),
            pg_sys::NodeTag::T_CustomScanState => vector_scan::expect_all(state.cast()),
            _ => {}
        }
    }
}

/// Tells the scans below each LIMIT, and those of expressions how to evaluate them.
#[pg_guard]
unsafe extern "C-unwind" fn visit(state: *mut pg_sys::PlanState, context: *mut std::ffi::c_void) -> bool {
    // SAFETY: a node of an executor's tree, which is what its tag says.
    unsafe {
        if state.is_null() {
            return false;
        }
        if (*state).type_ == pg_sys::NodeTag::T_LimitState {
            let limit = limit_of(state.cast());
            if let Some(Some(count)) = limit.count {
                tell((*state).lefttree, count, limit.offset);
            }
        }
        // A cursor's row can be asked for by WHERE CURRENT OF.
        if let Some(node) = our_scan(state)
            && (names_system_column((*state).plan) || is_cursor())
        {
            scan::order_by_rows(opened(node));
        }
        if let Some(node) = our_scan(state)
            && let Some(range) = range_of((*state).plan.cast())
        {
            scan::end_at(opened(node), range);
        }
        if let Some(node) = our_scan(state)
            && !rows::is_column(node.iss_RelationDesc)
            && let Some(distance) = pgrx::PgList::<pg_sys::ExprState>::from_pg(node.indexorderbyorig).get_ptr(0)
        {
            let judge = Judge::new(distance, (*state).state);
            scan::judge_by(opened(node), judge);
        }
        pg_sys::planstate_tree_walker(state, Some(visit), context)
    }
}

/// What a LIMIT node asks for, as far as it is known when the statement starts.
struct Limit {
    /// None: not known. `Some(None)`: all rows.
    count: Option<Option<usize>>,
    /// 0 if it is not known.
    offset: usize,
}

/// # Safety
/// A LIMIT node that has been initialised.
unsafe fn limit_of(state: *mut pg_sys::LimitState) -> Limit {
    // SAFETY: by contract.
    unsafe {
        let plan = &*(*state).ps.plan.cast::<pg_sys::Limit>();
        let context = (*state).ps.ps_ExprContext;
        let value = |expression: *mut pg_sys::Node, compiled: *mut pg_sys::ExprState| -> Option<Option<usize>> {
            if expression.is_null() {
                return Some(None);
            }
            if !is_known(expression) {
                return None;
            }
            let mut null = false;
            let value = pg_sys::ExecEvalExprSwitchContext(compiled, context, &mut null).value() as i64;
            // A negative one is an error when the node runs.
            if null { Some(None) } else { usize::try_from(value).ok().map(Some) }
        };
        let count = value(plan.limitCount, (*state).limitCount);
        let offset = value(plan.limitOffset, (*state).limitOffset).flatten().unwrap_or(0);
        Limit { count, offset }
    }
}

/// Whether an expression can be evaluated before the statement runs: it is of constants and the statement's parameters.
///
/// # Safety
/// An expression of a plan.
unsafe fn is_known(expression: *mut pg_sys::Node) -> bool {
    // SAFETY: by contract.
    unsafe { !needs_to_run(expression, std::ptr::null_mut()) && !pg_sys::contain_volatile_functions(expression) }
}

#[pg_guard]
unsafe extern "C-unwind" fn needs_to_run(node: *mut pg_sys::Node, context: *mut std::ffi::c_void) -> bool {
    // SAFETY: an expression of a plan; nodes are what their tags say.
    unsafe {
        match node.as_ref().map(|node| node.type_) {
            None => false,
            Some(pg_sys::NodeTag::T_Param) => {
                (*node.cast::<pg_sys::Param>()).paramkind != pg_sys::ParamKind::PARAM_EXTERN
            }
            Some(pg_sys::NodeTag::T_SubPlan | pg_sys::NodeTag::T_AlternativeSubPlan | pg_sys::NodeTag::T_Var) => true,
            Some(_) => pg_sys::expression_tree_walker(node, Some(needs_to_run), context),
        }
    }
}

/// Whether the statement that starts is that of a cursor.
fn is_cursor() -> bool {
    // SAFETY: a plain global of this backend; a portal's name is a C string. Those of EXECUTE are not visible.
    unsafe { pg_sys::ActivePortal.as_ref().is_some_and(|p| p.visible && !p.name.is_null() && *p.name != 0) }
}

/// Tells the index scans of ours at `state` or right below nodes that only collect rows.
///
/// # Safety
/// A node of an executor's tree, or null.
unsafe fn tell(state: *mut pg_sys::PlanState, rows: usize, offset: usize) {
    // SAFETY: by contract; nodes are what their tags say. A scan of our index is one that we opened.
    unsafe {
        let Some(node) = state.as_ref() else { return };
        match node.type_ {
            pg_sys::NodeTag::T_IndexScanState => {
                if let Some(node) = our_scan(state) {
                    scan::expect(opened(node), rows.saturating_add(offset));
                }
            }
            pg_sys::NodeTag::T_MergeAppendState => {
                let node = &*state.cast::<pg_sys::MergeAppendState>();
                // Each may have to give all the rows.
                let rows = rows.saturating_add(offset);
                (0..node.ms_nplans as usize).for_each(|i| tell(*node.mergeplans.add(i), rows, 0));
            }
            pg_sys::NodeTag::T_ResultState => tell(node.lefttree, rows, offset),
            // It reads on until the first sort key changes.
            pg_sys::NodeTag::T_IncrementalSortState => {
                tell(node.lefttree, rows.saturating_add(offset).saturating_add(1), 0)
            }
            pg_sys::NodeTag::T_LockRowsState => tell(node.lefttree, rows, offset),
            pg_sys::NodeTag::T_CustomScanState => vector_scan::expect(state.cast(), rows, offset),
            _ => {}
        }
    }
}

/// The node if it is a scan of an index of ours, in order.
///
/// # Safety
/// A node of an executor's tree.
unsafe fn our_scan<'n>(state: *mut pg_sys::PlanState) -> Option<&'n mut pg_sys::IndexScanState> {
    // SAFETY: by contract; a node is what its tag says.
    unsafe {
        if (*state).type_ != pg_sys::NodeTag::T_IndexScanState {
            return None;
        }
        let node = &mut *state.cast::<pg_sys::IndexScanState>();
        (!node.iss_RelationDesc.is_null() && method::is_ours(node.iss_RelationDesc) && node.iss_NumOrderByKeys > 0)
            .then_some(node)
    }
}

/// Whether a plan returns a system column, as those with row locks do `ctid`. PostgreSQL's index scan forgets them of rows that it
/// puts in order itself (seen on 14.23, 15.18, 16.14, 17.11 and 18.4, of GiST indexes as well; not on Debian's 15.20).
///
/// # Safety
/// A node of a plan.
unsafe fn names_system_column(plan: *mut pg_sys::Plan) -> bool {
    // SAFETY: by contract; what `pull_var_clause` returns with these flags are Vars.
    unsafe {
        let flags = pg_sys::PVC_RECURSE_AGGREGATES | pg_sys::PVC_RECURSE_WINDOWFUNCS | pg_sys::PVC_RECURSE_PLACEHOLDERS;
        let variables = pg_sys::pull_var_clause((*plan).targetlist.cast(), flags as i32);
        pgrx::PgList::<pg_sys::Var>::from_pg(variables).iter_ptr().any(|var| (*var).varattno < 0)
    }
}

/// The distance from which on the conditions of a scan in order discard all rows: `ORDER BY d … WHERE d < constant`.
///
/// # Safety
/// The plan of a scan in order.
unsafe fn range_of(plan: *mut pg_sys::IndexScan) -> Option<Range> {
    /// PostgreSQL's B-tree operator family of floats.
    const FLOAT_OPS: pg_sys::Oid = pg_sys::Oid::from_u32(1970);
    // SAFETY: by contract; nodes are what their tags say.
    unsafe {
        let order = pgrx::PgList::<pg_sys::Node>::from_pg((*plan).indexorderbyorig).get_ptr(0)?;
        pgrx::PgList::<pg_sys::Node>::from_pg((*plan).scan.plan.qual).iter_ptr().find_map(|condition| {
            if (*condition).type_ != pg_sys::NodeTag::T_OpExpr {
                return None;
            }
            let condition = condition.cast::<pg_sys::OpExpr>();
            let arguments = pgrx::PgList::<pg_sys::Node>::from_pg((*condition).args);
            let (left, right) = (arguments.get_ptr(0)?, arguments.get_ptr(1)?);
            let (constant, smaller, smaller_or_equal) = match pg_sys::equal(left.cast(), order.cast()) {
                true => (right, pg_sys::BTLessStrategyNumber, pg_sys::BTLessEqualStrategyNumber),
                false if pg_sys::equal(right.cast(), order.cast()) => {
                    (left, pg_sys::BTGreaterStrategyNumber, pg_sys::BTGreaterEqualStrategyNumber)
                }
                false => return None,
            };
            if (*constant).type_ != pg_sys::NodeTag::T_Const {
                return None;
            }
            let constant = constant.cast::<pg_sys::Const>();
            if (*constant).constisnull || (*constant).consttype != pg_sys::FLOAT8OID {
                return None;
            }
            let strategy = pg_sys::get_op_opfamily_strategy((*condition).opno, FLOAT_OPS) as u32;
            let distance = f64::from_bits((*constant).constvalue.value() as u64);
            (strategy == smaller || strategy == smaller_or_equal)
                .then_some(Range { distance, inclusive: strategy == smaller_or_equal })
        })
    }
}

/// The scan of a node, which is opened if it has not been.
///
/// # Safety
/// As [`open`].
unsafe fn opened(node: &mut pg_sys::IndexScanState) -> pg_sys::IndexScanDesc {
    // SAFETY: by contract.
    unsafe {
        if node.iss_ScanDesc.is_null() {
            open(node);
        }
    }
    node.iss_ScanDesc
}

/// Opens the scan of an index scan node, which would open it itself at its first row: as PostgreSQL does in parallel plans.
///
/// # Safety
/// A node that has been initialised and not run.
unsafe fn open(node: &mut pg_sys::IndexScanState) {
    // SAFETY: by contract; the node closes the scan at its end.
    unsafe {
        node.iss_ScanDesc = pg_sys::index_beginscan(
            node.ss.ss_currentRelation,
            node.iss_RelationDesc,
            (*node.ss.ps.state).es_snapshot,
            #[cfg(feature = "pg18")]
            &raw mut node.iss_Instrument,
            node.iss_NumScanKeys,
            node.iss_NumOrderByKeys,
        );
        if node.iss_NumRuntimeKeys == 0 || node.iss_RuntimeKeysReady {
            pg_sys::index_rescan(
                node.iss_ScanDesc,
                node.iss_ScanKeys,
                node.iss_NumScanKeys,
                node.iss_OrderByKeys,
                node.iss_NumOrderByKeys,
            );
        }
    }
}
