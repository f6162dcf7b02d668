//! What an index is like: `ivflsh_recall`, `ivflsh_stats`, `ivflsh_last_scan`.

mod recall;
mod stats;

use crate::index::{access_method_oid, search};
use crate::types::error::{Result, SqlError};
use crate::types::function::{FromArg, IntoReturn, pg_function};
use pgrx::pg_sys::{self, Datum};
use pgrx::prelude::*;

::pgrx::extension_sql_file!("../../sql/insight.sql", name = "insight", requires = ["index"]);

/// A `regclass` argument.
struct Index(pg_sys::Oid);

impl FromArg<'_> for Index {
    unsafe fn from_arg(datum: Datum) -> Result<Self> {
        Ok(Index(pg_sys::Oid::from(datum.value() as u32)))
    }
}

/// An open ivflsh index and its table, share-locked; closed when dropped.
struct Opened {
    heap: pg_sys::Relation,
    index: pg_sys::Relation,
}

impl Opened {
    /// Opens an index of this access method on a table that the user may read.
    fn new(oid: pg_sys::Oid) -> Result<Opened> {
        // SAFETY: plain look-ups and opens; locks are released at the end of the transaction at the latest.
        unsafe {
            let table = pg_sys::IndexGetRelation(oid, true);
            if table == pg_sys::InvalidOid {
                return Err(SqlError::new(PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE, "not an index"));
            }
            // Locks in the order that everybody takes them: table, then index.
            let heap = pg_sys::table_open(table, pg_sys::AccessShareLock as i32);
            let index = pg_sys::index_open(oid, pg_sys::AccessShareLock as i32);
            let opened = Opened { heap, index };
            let name =
                std::ffi::CStr::from_ptr((*(*index).rd_rel).relname.data.as_ptr()).to_string_lossy().into_owned();
            if (*(*index).rd_rel).relam != access_method_oid()
                || (*(*index).rd_rel).relkind != pg_sys::RELKIND_INDEX as i8
            {
                return Err(SqlError::new(
                    PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                    format!("\"{name}\" is not an ivflsh index"),
                ));
            }
            let may = pg_sys::pg_class_aclcheck(table, pg_sys::GetUserId(), pg_sys::ACL_SELECT as _);
            if may != pg_sys::AclResult::ACLCHECK_OK {
                return Err(SqlError::new(
                    PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                    format!("permission denied for the table of index \"{name}\""),
                ));
            }
            Ok(opened)
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: opened by `new`.
            unsafe {
                pg_sys::index_close(self.index, pg_sys::AccessShareLock as i32);
                pg_sys::table_close(self.heap, pg_sys::AccessShareLock as i32);
            }
        }
    }
}

/// Index expressions and predicates run as the owner of the table, in a restricted operation, as in maintenance commands;
/// undone when dropped (after an ERROR, by the transaction's abort).
struct AsOwner {
    user: pg_sys::Oid,
    context: i32,
    settings: i32,
}

impl AsOwner {
    fn new(heap: pg_sys::Relation) -> AsOwner {
        let mut saved = AsOwner { user: pg_sys::InvalidOid, context: 0, settings: 0 };
        // SAFETY: `heap` is open; what is changed here is restored by Drop.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut saved.user, &mut saved.context);
            let restricted = saved.context | pg_sys::SECURITY_RESTRICTED_OPERATION as i32;
            pg_sys::SetUserIdAndSecContext((*(*heap).rd_rel).relowner, restricted);
            saved.settings = pg_sys::NewGUCNestLevel();
            #[cfg(any(feature = "pg17", feature = "pg18"))]
            pg_sys::RestrictSearchPath();
        }
        saved
    }
}

impl Drop for AsOwner {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: as saved by `new`.
            unsafe {
                pg_sys::AtEOXact_GUC(false, self.settings);
                pg_sys::SetUserIdAndSecContext(self.user, self.context);
            }
        }
    }
}

pg_function! {
    /// `ivflsh_recall(index regclass, queries integer, k integer)`
    fn ivflsh_recall(index: Index, queries: i32, k: i32) -> f64 {
        for (value, name, most) in [(queries, "queries", 100_000), (k, "k", 10_000)] {
            if !(1..=most).contains(&value) {
                return Err(SqlError::parameter(format!("{name} must be between 1 and {most}, not {value}")));
            }
        }
        let opened = Opened::new(index.0)?;
        let _owner = AsOwner::new(opened.heap);
        Ok(recall::recall(opened.heap, opened.index, queries as usize, k as usize))
    }
}

/// A `jsonb` result.
struct Json(serde_json::Value);

impl IntoReturn for Json {
    unsafe fn into_return(self, _call: pg_sys::FunctionCallInfo) -> Datum {
        pgrx::JsonB(self.0).into_datum().expect("a value")
    }
}

pg_function! {
    /// `ivflsh_stats(index regclass)`
    fn ivflsh_stats(index: Index) -> Json {
        let opened = Opened::new(index.0)?;
        let stats = serde_json::to_value(stats::Stats::of(opened.index));
        stats.map(Json).map_err(|e| SqlError::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, e.to_string()))
    }
}

/// A row of bigints.
struct Row<const N: usize>([i64; N]);

impl<const N: usize> IntoReturn for Row<N> {
    unsafe fn into_return(self, call: pg_sys::FunctionCallInfo) -> Datum {
        // SAFETY: the function is declared with N OUT parameters of type bigint.
        unsafe {
            let mut desc = std::ptr::null_mut();
            pg_sys::get_call_result_type(call, std::ptr::null_mut(), &mut desc);
            let desc = pg_sys::BlessTupleDesc(desc);
            let mut values = self.0.map(Datum::from);
            let mut nulls = [false; N];
            let tuple = pg_sys::heap_form_tuple(desc, values.as_mut_ptr(), nulls.as_mut_ptr());
            pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)
        }
    }
}

pg_function! {
    /// `ivflsh_last_scan()`
    fn ivflsh_last_scan() -> Row<5> {
        let work = search::last_work();
        Ok(Row([work.lists, work.entries, work.refined, work.returned, work.rechecked].map(|n| n as i64)))
    }
}
