//! `INSERT`: a row is added to those that VACUUM, or a later INSERT, puts into the tree.

use super::page::row_of;
use super::pending;
use super::value::Value;
use crate::index::page::ItemPointer as _;
use crate::index::page::Tid;
use pgrx::prelude::*;

/// The number of a row that is inserted, or an ERROR.
pub fn number_of(tid: Tid) -> u64 {
    row_of(tid).unwrap_or_else(|| {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "an ivflsh index of terms cannot hold the rows of this table's access method"
        );
    })
}

/// Inserts a row.
///
/// # Safety
/// `values` and `nulls` are those of a row of an index of terms.
pub unsafe fn insert(
    index: pg_sys::Relation,
    values: *const pg_sys::Datum,
    nulls: *const bool,
    tid: &pg_sys::ItemPointerData,
) {
    // SAFETY: by contract.
    let value = unsafe { (!*nulls).then(|| Value::read(*values)) };
    pending::insert(index, number_of(Tid::from_item(tid)), value.as_ref());
}
