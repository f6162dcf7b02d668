//! Index scan: hands the rows of a [`Search`] to the executor with a certain lower bound of their distance; the executor
//! computes the true distances and reorders (`xs_recheckorderby`).

use super::metric::{Frame, Operator};
use super::page::Damage;
use super::search::{Restriction, Search};
use super::storage::corrupted;
use super::terms;
use crate::index::filter::columns::Columns;
use crate::index::filter::predicate::Predicate;
use crate::index::filter::predicate::ScanConditions as _;
use crate::index::metric::OperatorClass as _;
use crate::index::page::ItemPointer as _;
use crate::index::read::info::{self, Info};
use crate::index::read::rows::{Judge, Table};
use crate::index::storage::pages;
use ivflsh::read::tree::Query;
use pgrx::PgMemoryContexts;
use pgrx::prelude::*;

/// A scan's state between calls of the access method.
struct ScanState {
    /// Of an index of terms; the rest is idle then.
    terms: Option<Box<terms::scan::Scan>>,
    operator: Operator,
    dims: usize,
    /// And the epoch of its mean.
    frame: Option<(u32, Frame)>,
    filters: Option<Columns>,
    search: Option<Search>,
    /// Rows must be compared with the conditions themselves.
    recheck: bool,
    /// See [`restrict_by`].
    conditions: Option<Predicate>,
    /// Rows that are expected to be taken, if that is known.
    expected: Option<usize>,
    /// See [`Search::order_by_rows`].
    exact: bool,
    /// See [`Search::judge_by`].
    judge: Option<Judge>,
    /// ORDER BY NULL: every row, in any order.
    null_query: bool,
    /// Type of each ORDER BY operator's result.
    order_types: Vec<pg_sys::Oid>,
    order_values: Vec<pg_sys::IndexOrderByDistance>,
}

/// `ambeginscan`
#[pg_guard]
pub unsafe extern "C-unwind" fn ambeginscan(
    index: pg_sys::Relation,
    keys: std::ffi::c_int,
    orderbys: std::ffi::c_int,
) -> pg_sys::IndexScanDesc {
    // SAFETY: PostgreSQL's arguments. The state is dropped with the memory context that the executor runs in.
    unsafe {
        let scan = pg_sys::RelationGetIndexScan(index, keys, orderbys);
        let n = orderbys as usize;
        if n > 0 {
            (*scan).xs_orderbyvals = pg_sys::palloc0(n * size_of::<pg_sys::Datum>()).cast();
            (*scan).xs_orderbynulls = pg_sys::palloc0(n).cast();
        }
        let state = ScanState {
            terms: terms::is_of(index).then(Box::default),
            operator: Operator::of_index(index),
            dims: info::column_dims(index).unwrap_or(0),
            frame: None,
            filters: None,
            search: None,
            recheck: false,
            conditions: None,
            expected: None,
            exact: false,
            judge: None,
            null_query: false,
            order_types: vec![pg_sys::FLOAT8OID; n],
            order_values: vec![pg_sys::IndexOrderByDistance { value: f64::NEG_INFINITY, isnull: false }; n],
        };
        (*scan).opaque = PgMemoryContexts::CurrentMemoryContext.leak_and_drop_on_delete(state).cast();
        scan
    }
}

/// Sets how many rows a scan is expected to be asked for.
///
/// # Safety
/// `scan` is open and of this access method.
pub unsafe fn expect(scan: pg_sys::IndexScanDesc, rows: usize) {
    // SAFETY: by contract; `opaque` is what `ambeginscan` stored.
    unsafe {
        let state = &mut *(*scan).opaque.cast::<ScanState>();
        state.expected = Some(rows);
        if let Some(terms) = &mut state.terms {
            terms.expect(rows);
        }
    }
}

/// Lets a scan of an index of terms end at a distance, as the executor discards what is beyond.
///
/// # Safety
/// `scan` is open and of this access method.
pub unsafe fn end_at(scan: pg_sys::IndexScanDesc, range: terms::search::Range) {
    // SAFETY: by contract; `opaque` is what `ambeginscan` stored.
    unsafe {
        if let Some(terms) = &mut (*(*scan).opaque.cast::<ScanState>()).terms {
            terms.end_at(range);
        }
    }
}

/// Has the scan put its rows in order itself.
///
/// # Safety
/// `scan` is open and of this access method.
pub unsafe fn order_by_rows(scan: pg_sys::IndexScanDesc) {
    // SAFETY: by contract; `opaque` is what `ambeginscan` stored.
    unsafe { (*(*scan).opaque.cast::<ScanState>()).exact = true }
}

/// Has the scan look at rows by the executor's means, where the index is on an expression.
///
/// # Safety
/// `scan` is open and of this access method, and the judge that of its query.
pub unsafe fn judge_by(scan: pg_sys::IndexScanDesc, judge: Judge) {
    // SAFETY: by contract; `opaque` is what `ambeginscan` stored.
    unsafe { (*(*scan).opaque.cast::<ScanState>()).judge = Some(judge) }
}

/// Has the searches of a scan pass by rows that do not pass `conditions`: what scan keys cannot say.
///
/// # Safety
/// `scan` is open and of this access method, and the predicate is of the columns of its index.
pub unsafe fn restrict_by(scan: pg_sys::IndexScanDesc, conditions: Predicate) {
    // SAFETY: by contract; `opaque` is what `ambeginscan` stored.
    unsafe { (*(*scan).opaque.cast::<ScanState>()).conditions = Some(conditions) }
}

/// `amrescan`
#[pg_guard]
pub unsafe extern "C-unwind" fn amrescan(
    scan: pg_sys::IndexScanDesc,
    keys: pg_sys::ScanKey,
    nkeys: std::ffi::c_int,
    orderbys: pg_sys::ScanKey,
    norderbys: std::ffi::c_int,
) {
    // SAFETY: PostgreSQL's arguments; `opaque` is what `ambeginscan` stored.
    unsafe {
        if !keys.is_null() && nkeys > 0 {
            std::ptr::copy(keys, (*scan).keyData, nkeys as usize);
        }
        if !orderbys.is_null() && norderbys > 0 {
            std::ptr::copy(orderbys, (*scan).orderByData, norderbys as usize);
        }
        let state = &mut *(*scan).opaque.cast::<ScanState>();
        end_search(state);
        state.null_query = false;
    }
}

/// Sets the search up from the scan's ORDER BY value.
///
/// # Safety
/// `scan` has been rescanned.
unsafe fn start(scan: pg_sys::IndexScanDesc, state: &mut ScanState) {
    // SAFETY: by contract, and types as the operator class declares them.
    unsafe {
        let index = (*scan).indexRelation;
        if (*scan).numberOfOrderBys == 0 {
            ereport!(ERROR, PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, "cannot scan ivflsh index without order");
        }
        let key = &*(*scan).orderByData;
        let mut query = Query::new(state.operator);
        if key.sk_flags as u32 & pg_sys::SK_ISNULL != 0 {
            state.null_query = true;
            query.vector.resize(state.dims, 0.0);
        } else {
            state.operator.read(key.sk_argument, &mut query.vector);
            if query.vector.len() != state.dims {
                // Before any page is read: the operators' words, the query first, as pgvector's index scans have them.
                ereport!(
                    ERROR,
                    PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
                    format!("different {} {} and {}", state.operator.element.lengths(), query.vector.len(), state.dims)
                );
            }
        }
        let info = Info::of(pages(index));
        if info.meta.dims as usize != state.dims || info.meta.operator != state.operator.code() {
            corrupted(index, super::page::META_BLOCK, Damage::Bounds);
        }
        if state.frame.as_ref().is_none_or(|(epoch, _)| *epoch != info.meta.mean_epoch) {
            state.frame = Some((info.meta.mean_epoch, info.frame(pages(index))));
        }
        crate::pg::compat::count_index_scan(scan);
        let table = Table { heap: (*scan).heapRelation, snapshot: (*scan).xs_snapshot };
        let mut search = Search::new(index, table, &info, &state.frame.as_ref().unwrap().1, query);
        let n = (*scan).numberOfKeys as usize;
        if n > 0 {
            let filters = state.filters.get_or_insert_with(|| Columns::of_meta(index, &info.meta));
            let predicate = Predicate::from_keys(filters, std::slice::from_raw_parts((*scan).keyData, n));
            state.recheck = predicate.recheck();
            if !predicate.is_empty() {
                search.restrict(Restriction { predicate: Some(predicate), ..Restriction::default() });
            }
        }
        if let Some(conditions) = &state.conditions
            && !conditions.is_empty()
        {
            search.restrict(Restriction { predicate: Some(conditions.clone()), ..Restriction::default() });
        }
        if let Some(rows) = state.expected {
            search.expect(rows);
        }
        if state.exact {
            search.order_by_rows();
        }
        if let Some(judge) = state.judge {
            search.judge_by(judge);
        }
        state.search = Some(search);
    }
}

/// `amgettuple`
#[pg_guard]
pub unsafe extern "C-unwind" fn amgettuple(
    scan: pg_sys::IndexScanDesc,
    _direction: pg_sys::ScanDirection::Type,
) -> bool {
    // SAFETY: PostgreSQL's arguments; `opaque` is what `ambeginscan` stored.
    unsafe {
        let state = &mut *(*scan).opaque.cast::<ScanState>();
        if let Some(terms) = &mut state.terms {
            let Some(hit) = terms.next(scan) else { return false };
            state.order_values[0] = pg_sys::IndexOrderByDistance {
                value: hit.distance.unwrap_or_default(),
                isnull: hit.distance.is_none(),
            };
            let recheck = state.order_values.len() > 1;
            pg_sys::index_store_float8_orderby_distances(
                scan,
                state.order_types.as_mut_ptr(),
                state.order_values.as_mut_ptr(),
                recheck,
            );
            return true;
        }
        if state.search.is_none() {
            start(scan, state);
        }
        let search = state.search.as_mut().unwrap();
        if (*scan).kill_prior_tuple {
            search.note_dead();
        }
        let Some(row) = search.next_row() else {
            return false;
        };
        (*scan).xs_heaptid = row.tid.item();
        (*scan).xs_recheck = state.recheck;
        // Only the first ORDER BY is bounded; the executor sorts out the others.
        state.order_values[0] = pg_sys::IndexOrderByDistance {
            value: state.operator.order_value(row.bound, search.query.underflow),
            isnull: state.null_query,
        };
        // A row in its place needs no exact distance, unless ties of it are to be ordered by something else.
        let recheck = !row.placed || state.null_query || state.order_values.len() > 1;
        pg_sys::index_store_float8_orderby_distances(
            scan,
            state.order_types.as_mut_ptr(),
            state.order_values.as_mut_ptr(),
            recheck,
        );
        true
    }
}

/// The search of a scan that has been rescanned, for who drives it itself instead of calling `amgettuple`.
///
/// # Safety
/// `scan` is a scan of an ivflsh index that has been rescanned. The search lives until it is rescanned or ended, and
/// nobody else uses it.
pub unsafe fn driven_search<'s>(scan: pg_sys::IndexScanDesc) -> &'s mut Search {
    // SAFETY: by contract; `opaque` is what `ambeginscan` stored.
    unsafe {
        let state = &mut *(*scan).opaque.cast::<ScanState>();
        if state.search.is_none() {
            start(scan, state);
        }
        state.search.as_mut().unwrap()
    }
}

/// About which share of an index's rows is within a distance: None if the query is of other dimensions. Reads the centroids of all lists.
///
/// # Safety
/// `index` is open and of this access method, `query` a non-NULL value of its column's type.
pub unsafe fn share_within(index: pg_sys::Relation, query: pg_sys::Datum, distance: f64) -> Option<f64> {
    // SAFETY: by contract.
    unsafe {
        let operator = Operator::of_index(index);
        let mut search = Query::new(operator);
        operator.read(query, &mut search.vector);
        let info = Info::of(pages(index));
        if search.vector.len() != info.meta.dims as usize {
            return None;
        }
        let table = Table { heap: std::ptr::null_mut(), snapshot: std::ptr::null_mut() };
        let mut search = Search::new(index, table, &info, &info.frame(pages(index)), search);
        search.go_through(distance, false);
        Some(search.share_within())
    }
}

/// `amendscan`
#[pg_guard]
pub unsafe extern "C-unwind" fn amendscan(scan: pg_sys::IndexScanDesc) {
    // SAFETY: `opaque` is what `ambeginscan` stored; the empty rest goes with the memory context.
    unsafe {
        let state = &mut *(*scan).opaque.cast::<ScanState>();
        end_search(state);
        state.frame = None;
    }
}

/// Ends the search, if there is one.
fn end_search(state: &mut ScanState) {
    if let Some(terms) = &mut state.terms {
        terms.end();
    }
    if let Some(mut search) = state.search.take() {
        search.mark_dead();
    }
}
