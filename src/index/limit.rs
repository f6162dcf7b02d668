//! Tells an index scan the LIMIT above it, so that it chooses its lists for as many rows at once: PostgreSQL does not.

use super::rows::{self, Judge};
use super::{method, scan};
use crate::hook::Previous;
use crate::vector_scan;
use pgrx::prelude::*;

/// Who else had asked to be called.
static PREVIOUS: Previous<unsafe extern "C-unwind" fn(*mut pg_sys::QueryDesc, std::ffi::c_int)> = Previous::new();

/// Called once, when the library is loaded.
pub fn register() {
    // SAFETY: a plain global of this backend, which has one thread here.
    unsafe { PREVIOUS.take(&raw mut pg_sys::ExecutorStart_hook, executor_start) }
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

/// Tells the scans below each LIMIT, and those of expressions how to evaluate them.
#[pg_guard]
unsafe extern "C-unwind" fn visit(state: *mut pg_sys::PlanState, context: *mut std::ffi::c_void) -> bool {
    // SAFETY: a node of an executor's tree, which is what its tag says.
    unsafe {
        if state.is_null() {
            return false;
        }
        if (*state).type_ == pg_sys::NodeTag::T_LimitState
            && let Some(rows) = rows_wanted(state)
        {
            tell((*state).lefttree, rows);
        }
        if super::compat::REORDERING_LOSES_CTID
            && let Some(node) = our_scan(state)
            && names_ctid((*state).plan)
        {
            scan::order_by_rows(opened(node));
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

/// LIMIT and OFFSET together, if they are constants or parameters of the statement.
///
/// # Safety
/// A LIMIT node.
unsafe fn rows_wanted(state: *mut pg_sys::PlanState) -> Option<usize> {
    // SAFETY: by contract.
    unsafe {
        let limit = (*state).plan.cast::<pg_sys::Limit>();
        let count = known(state, (*limit).limitCount)?;
        let offset = if (*limit).limitOffset.is_null() { 0 } else { known(state, (*limit).limitOffset)? };
        usize::try_from(count.checked_add(offset)?).ok()
    }
}

/// The value of an int8 constant or parameter; None for NULL and other expressions.
///
/// # Safety
/// An expression of the plan of `state`, or null.
unsafe fn known(state: *mut pg_sys::PlanState, value: *mut pg_sys::Node) -> Option<i64> {
    // SAFETY: by contract; parameters are numbered from 1.
    unsafe {
        match value.as_ref()?.type_ {
            pg_sys::NodeTag::T_Const => {
                let value = &*value.cast::<pg_sys::Const>();
                (!value.constisnull).then(|| value.constvalue.value() as i64)
            }
            pg_sys::NodeTag::T_Param => {
                let value = &*value.cast::<pg_sys::Param>();
                let given = (*(*state).state).es_param_list_info.as_ref()?;
                if value.paramkind != pg_sys::ParamKind::PARAM_EXTERN
                    || given.paramFetch.is_some()
                    || !(1..=given.numParams).contains(&value.paramid)
                {
                    return None;
                }
                let given = &*given.params.as_ptr().add(value.paramid as usize - 1);
                (!given.isnull && given.ptype == pg_sys::INT8OID).then(|| given.value.value() as i64)
            }
            _ => None,
        }
    }
}

/// Tells the index scans of ours at `state` or right below nodes that only collect rows.
///
/// # Safety
/// A node of an executor's tree, or null.
unsafe fn tell(state: *mut pg_sys::PlanState, rows: usize) {
    // SAFETY: by contract; nodes are what their tags say. A scan of our index is one that we opened.
    unsafe {
        let Some(node) = state.as_ref() else { return };
        match node.type_ {
            pg_sys::NodeTag::T_IndexScanState => {
                if let Some(node) = our_scan(state) {
                    scan::expect(opened(node), rows);
                }
            }
            pg_sys::NodeTag::T_MergeAppendState => {
                let node = &*state.cast::<pg_sys::MergeAppendState>();
                (0..node.ms_nplans as usize).for_each(|i| tell(*node.mergeplans.add(i), rows));
            }
            pg_sys::NodeTag::T_ResultState => tell(node.lefttree, rows),
            pg_sys::NodeTag::T_CustomScanState => vector_scan::expect(state.cast(), rows),
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

/// Whether a plan returns `ctid`, as those with row locks do.
///
/// # Safety
/// A node of a plan.
unsafe fn names_ctid(plan: *mut pg_sys::Plan) -> bool {
    // SAFETY: by contract; what `pull_var_clause` returns with these flags are Vars.
    unsafe {
        let flags = pg_sys::PVC_RECURSE_AGGREGATES | pg_sys::PVC_RECURSE_WINDOWFUNCS | pg_sys::PVC_RECURSE_PLACEHOLDERS;
        let variables = pg_sys::pull_var_clause((*plan).targetlist.cast(), flags as i32);
        pgrx::PgList::<pg_sys::Var>::from_pg(variables)
            .iter_ptr()
            .any(|var| i32::from((*var).varattno) == pg_sys::SelfItemPointerAttributeNumber)
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
