//! Conditions on filter columns that the planner does not put into an index scan in order by itself, before PostgreSQL 17:
//!
//! * IN and = ANY of any but the first column: it assumes that an array spoils the order, as it did in a btree;
//! * before 16, bare boolean columns (`WHERE active`, which `active = true` becomes): it knows them of built-in indexes only.
//!
//! So a hook takes the ordered scans that the planner has made, and adds them once more with these conditions.

use crate::index::cost::elements;
use crate::index::method;
use crate::pg::hook::Previous;
use pgrx::prelude::*;

/// What was in the hook before.
static PREVIOUS: Previous<SetRelPathlist> = Previous::new();

type SetRelPathlist = unsafe extern "C-unwind" fn(
    *mut pg_sys::PlannerInfo,
    *mut pg_sys::RelOptInfo,
    pg_sys::Index,
    *mut pg_sys::RangeTblEntry,
);

/// Installs the hook.
pub fn register() {
    // SAFETY: called once from _PG_init.
    unsafe { PREVIOUS.take(&raw mut pg_sys::set_rel_pathlist_hook, set_rel_pathlist) }
}

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
        add_paths(root, rel);
    }
}

/// Adds to the relation's paths.
///
/// # Safety
/// PostgreSQL's arguments.
unsafe fn add_paths(root: *mut pg_sys::PlannerInfo, rel: *mut pg_sys::RelOptInfo) {
    // SAFETY: by contract; the lists' elements are of the types that the planner puts there.
    unsafe {
        if (*rel).indexlist.is_null() {
            return;
        }
        // The list changes while paths are added.
        let ordered: Vec<*mut pg_sys::IndexPath> = elements::<pg_sys::IndexPath>((*rel).pathlist)
            .filter(|&path| {
                (*path).path.pathtype == pg_sys::NodeTag::T_IndexScan
                    && !(*path).indexorderbys.is_null()
                    && (*path).path.param_info.is_null()
                    && method::is_ours_to_plan((*path).indexinfo)
                    && (*(*path).indexinfo).nkeycolumns > 1
            })
            .collect();
        for path in ordered {
            let clauses = with_further(root, path);
            if clauses != (*path).indexclauses {
                let path = pg_sys::create_index_path(
                    root,
                    (*path).indexinfo,
                    clauses,
                    (*path).indexorderbys,
                    (*path).indexorderbycols,
                    (*path).path.pathkeys,
                    (*path).indexscandir,
                    false,
                    std::ptr::null_mut(),
                    1.0,
                    false,
                );
                pg_sys::add_path(rel, path.cast());
            }
        }
    }
}

/// The conditions of a path, and those of this module; the same list when there are none.
///
/// # Safety
/// An index path of this access method.
unsafe fn with_further(root: *mut pg_sys::PlannerInfo, path: *mut pg_sys::IndexPath) -> *mut pg_sys::List {
    // SAFETY: by contract.
    unsafe {
        let index = (*path).indexinfo;
        let mut clauses = (*path).indexclauses;
        for restriction in elements::<pg_sys::RestrictInfo>((*index).indrestrictinfo) {
            if (*restriction).pseudoconstant
                || !pg_sys::restriction_is_securely_promotable(restriction, (*index).rel)
                || elements::<pg_sys::IndexClause>((*path).indexclauses).any(|c| (*c).rinfo == restriction)
            {
                continue;
            }
            let Some((column, quals)) =
                (1..(*index).nkeycolumns).find_map(|c| matching(root, index, c, restriction).map(|quals| (c, quals)))
            else {
                continue;
            };
            let mut clause = PgBox::<pg_sys::IndexClause>::alloc_node(pg_sys::NodeTag::T_IndexClause);
            clause.rinfo = restriction;
            clause.indexquals = pg_sys::lappend(std::ptr::null_mut(), quals.cast());
            clause.indexcol = column as pg_sys::AttrNumber;
            let clause = clause.into_pg();
            // In the order of the columns.
            let at =
                elements::<pg_sys::IndexClause>(clauses).take_while(|c| (**c).indexcol <= (*clause).indexcol).count();
            if clauses == (*path).indexclauses {
                clauses = pg_sys::list_copy(clauses);
            }
            clauses = pg_sys::list_insert_nth(clauses, at as i32, clause.cast());
        }
        clauses
    }
}

/// The condition that a restriction is on a column of the index, if it is one of this module's.
///
/// # Safety
/// PostgreSQL's structures; `column` is a key column of the index.
unsafe fn matching(
    root: *mut pg_sys::PlannerInfo,
    index: *mut pg_sys::IndexOptInfo,
    column: i32,
    restriction: *mut pg_sys::RestrictInfo,
) -> Option<*mut pg_sys::RestrictInfo> {
    // SAFETY: by contract; nodes are cast by their tags.
    unsafe {
        let node = (*restriction).clause.cast::<pg_sys::Node>();
        if (*node).type_ != pg_sys::NodeTag::T_ScalarArrayOpExpr {
            return matching_bool(root, index, column, node);
        }
        let any = &*node.cast::<pg_sys::ScalarArrayOpExpr>();
        let mut arguments = elements::<pg_sys::Node>(any.args);
        let (left, right) = (arguments.next()?, arguments.next()?);
        let family = *(*index).opfamily.add(column as usize);
        let collation = *(*index).indexcollations.add(column as usize);
        let matches = any.useOr
            && pg_sys::match_index_to_operand(left, column, index)
            && (collation == pg_sys::InvalidOid || collation == any.inputcollid)
            && pg_sys::op_in_opfamily(any.opno, family)
            && !pg_sys::bms_is_member((*(*index).rel).relid as i32, pg_sys::pull_varnos(root, right))
            && !pg_sys::contain_volatile_functions(right);
        matches.then_some(restriction)
    }
}

/// `column = true` for a bare boolean column, `column = false` for `NOT column`.
///
/// # Safety
/// As for [`matching`].
#[cfg(any(feature = "pg14", feature = "pg15"))]
unsafe fn matching_bool(
    root: *mut pg_sys::PlannerInfo,
    index: *mut pg_sys::IndexOptInfo,
    column: i32,
    node: *mut pg_sys::Node,
) -> Option<*mut pg_sys::RestrictInfo> {
    // SAFETY: by contract; nodes are cast by their tags.
    unsafe {
        let equal = pg_sys::Oid::from(pg_sys::BooleanEqualOperator);
        if !pg_sys::op_in_opfamily(equal, *(*index).opfamily.add(column as usize)) {
            return None;
        }
        let (operand, value) = match (*node).type_ {
            pg_sys::NodeTag::T_BoolExpr
                if (*node.cast::<pg_sys::BoolExpr>()).boolop == pg_sys::BoolExprType::NOT_EXPR =>
            {
                (elements::<pg_sys::Node>((*node.cast::<pg_sys::BoolExpr>()).args).next()?, false)
            }
            pg_sys::NodeTag::T_BooleanTest => {
                let test = &*node.cast::<pg_sys::BooleanTest>();
                match test.booltesttype {
                    pg_sys::BoolTestType::IS_TRUE => (test.arg.cast(), true),
                    pg_sys::BoolTestType::IS_FALSE => (test.arg.cast(), false),
                    _ => return None,
                }
            }
            _ => (node, true),
        };
        if !pg_sys::match_index_to_operand(operand, column, index) {
            return None;
        }
        let clause = pg_sys::make_opclause(
            equal,
            pg_sys::BOOLOID,
            false,
            operand.cast(),
            pg_sys::makeBoolConst(value, false).cast(),
            pg_sys::InvalidOid,
            pg_sys::InvalidOid,
        );
        let none = std::ptr::null_mut();
        Some(pg_sys::make_restrictinfo(root, clause, true, false, false, 0, none, none, none))
    }
}

/// The planner does it.
#[cfg(not(any(feature = "pg14", feature = "pg15")))]
unsafe fn matching_bool(
    _root: *mut pg_sys::PlannerInfo,
    _index: *mut pg_sys::IndexOptInfo,
    _column: i32,
    _node: *mut pg_sys::Node,
) -> Option<*mut pg_sys::RestrictInfo> {
    None
}
