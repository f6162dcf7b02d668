//! Leaves out of a plan the distance that nobody sees.
//!
//! For `SELECT id … ORDER BY v <-> q LIMIT 10` PostgreSQL adds the sort column to the rows of the index scan, although no
//! step above compares it: the scan computes the distance of each row it returns, for which the row's vector must be
//! read, out of line when it is long. In a plan of just a LIMIT over a scan of our index, or a vector scan, such a column
//! becomes NULL.

use crate::index::method;
use crate::pg::hook::Previous;
use crate::vector_scan;
use pgrx::prelude::*;

/// Who else had asked to be called.
static PREVIOUS: Previous<UpperPaths> = Previous::new();

type UpperPaths = unsafe extern "C-unwind" fn(
    *mut pg_sys::PlannerInfo,
    pg_sys::UpperRelationKind::Type,
    *mut pg_sys::RelOptInfo,
    *mut pg_sys::RelOptInfo,
    *mut std::ffi::c_void,
);

/// Called once, when the library is loaded: possibly in the middle of planning, before the paths above the scans are made.
pub fn register() {
    // SAFETY: a plain global of this backend, which has one thread here.
    unsafe { PREVIOUS.take(&raw mut pg_sys::create_upper_paths_hook, upper_paths) }
}

/// `create_upper_paths_hook`
#[pg_guard]
unsafe extern "C-unwind" fn upper_paths(
    root: *mut pg_sys::PlannerInfo,
    stage: pg_sys::UpperRelationKind::Type,
    input: *mut pg_sys::RelOptInfo,
    output: *mut pg_sys::RelOptInfo,
    extra: *mut std::ffi::c_void,
) {
    // SAFETY: the planner's arguments; its nodes are what their tags say.
    unsafe {
        PREVIOUS.call(|previous| previous(root, stage, input, output, extra));
        if stage != pg_sys::UpperRelationKind::UPPERREL_FINAL {
            return;
        }
        for path in pgrx::PgList::<pg_sys::Path>::from_pg((*output).pathlist).iter_ptr() {
            if (*path).type_ == pg_sys::NodeTag::T_LimitPath {
                trim(root, &mut *path.cast());
            }
        }
    }
}

/// Replaces the sort columns that are in no result by NULL if `limit` is right above a scan of our index.
///
/// # Safety
/// A path of the planner for the whole query `root`.
unsafe fn trim(root: *mut pg_sys::PlannerInfo, limit: &mut pg_sys::LimitPath) {
    // SAFETY: by contract.
    unsafe {
        // WITH TIES compares the sort columns.
        if limit.limitOption != pg_sys::LimitOption::LIMIT_OPTION_COUNT {
            return;
        }
        // The scan, and what says which columns it has to compute: usually a projection, else itself.
        let top = limit.subpath;
        let (scan, size) = match (*top).type_ {
            pg_sys::NodeTag::T_IndexPath => (top, size_of::<pg_sys::IndexPath>()),
            pg_sys::NodeTag::T_CustomPath => (top, size_of::<pg_sys::CustomPath>()),
            pg_sys::NodeTag::T_ProjectionPath => {
                ((*top.cast::<pg_sys::ProjectionPath>()).subpath, size_of::<pg_sys::ProjectionPath>())
            }
            _ => return,
        };
        let ours = match (*scan).type_ {
            pg_sys::NodeTag::T_IndexPath => {
                let index = scan.cast::<pg_sys::IndexPath>();
                !(*index).indexorderbys.is_null() && method::is_ours_to_plan((*index).indexinfo)
            }
            pg_sys::NodeTag::T_CustomPath => vector_scan::is_ordered(scan.cast()),
            _ => false,
        };
        if !ours {
            return;
        }
        let columns = pgrx::PgList::<pg_sys::TargetEntry>::from_pg((*root).processed_tlist);
        let target = (*top).pathtarget;
        let values = pgrx::PgList::<pg_sys::Node>::from_pg((*target).exprs);
        // The scan's columns are those of the query, unless steps above compute some of them.
        let same = |column: *mut pg_sys::TargetEntry, value: *mut pg_sys::Node| {
            pg_sys::equal((*column).expr.cast(), value.cast())
        };
        if columns.len() != values.len() || !columns.iter_ptr().zip(values.iter_ptr()).all(|(c, v)| same(c, v)) {
            return;
        }
        let unseen = |column: *mut pg_sys::TargetEntry| {
            (*column).resjunk
                && (*column).ressortgroupref > 0
                && is_number((*column).expr)
                && !pg_sys::contain_volatile_functions((*column).expr.cast())
        };
        if !columns.iter_ptr().any(unseen) {
            return;
        }
        // Other paths may share the scan and its columns: change copies.
        let copy = pg_sys::palloc(size).cast::<pg_sys::Path>();
        std::ptr::copy_nonoverlapping(top.cast::<u8>(), copy.cast::<u8>(), size);
        let trimmed = pg_sys::copy_pathtarget(target);
        let mut exprs = pgrx::PgList::<pg_sys::Node>::new();
        for (column, value) in columns.iter_ptr().zip(values.iter_ptr()) {
            exprs.push(if unseen(column) {
                pg_sys::makeNullConst(pg_sys::exprType(value), -1, pg_sys::InvalidOid).cast()
            } else {
                value
            });
        }
        (*trimmed).exprs = exprs.into_pg();
        (*copy).pathtarget = trimmed;
        limit.subpath = copy;
        limit.path.pathtarget = trimmed;
    }
}

/// Whether an expression is of a type that a distance, or what follows from one, can have.
///
/// # Safety
/// An expression of the planner.
unsafe fn is_number(expression: *mut pg_sys::Expr) -> bool {
    // SAFETY: by contract.
    let of_type = unsafe { pg_sys::exprType(expression.cast()) };
    [pg_sys::FLOAT8OID, pg_sys::FLOAT4OID, pg_sys::NUMERICOID].contains(&of_type)
}
