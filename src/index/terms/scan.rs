//! The index scan's calls.

use super::page::tid_of;
use super::search::{Hit, Range, Search, Wanted};
use super::value::Value;
use crate::index::page::ItemPointer as _;
use crate::pg::compat;
use pgrx::prelude::*;

/// A scan's state between calls of the access method.
#[derive(Default)]
pub struct Scan {
    search: Option<Search>,
    /// Rows that are expected to be taken, if that is known.
    expected: Option<usize>,
    /// Beyond it the executor discards all rows.
    range: Option<Range>,
}

impl Scan {
    /// See [`crate::index::scan::expect`].
    pub fn expect(&mut self, rows: usize) {
        self.expected = Some(rows);
    }

    /// See [`crate::index::scan::end_at`].
    pub fn end_at(&mut self, range: Range) {
        self.range = Some(range);
    }

    /// Ends the search, if there is one.
    pub fn end(&mut self) {
        self.search = None;
    }

    /// The next row; its place is in the scan then.
    ///
    /// # Safety
    /// `scan` has been rescanned and is of an index of terms.
    pub unsafe fn next(&mut self, scan: pg_sys::IndexScanDesc) -> Option<Hit> {
        // SAFETY: by contract.
        unsafe {
            if self.search.is_none() {
                self.search = Some(self.start(scan));
            }
            let hit = self.search.as_mut()?.next_hit()?;
            (*scan).xs_heaptid = tid_of(hit.row).item();
            (*scan).xs_recheck = false;
            Some(hit)
        }
    }

    /// # Safety
    /// As [`Scan::next`].
    unsafe fn start(&self, scan: pg_sys::IndexScanDesc) -> Search {
        // SAFETY: by contract; types as the operator class declares them.
        unsafe {
            if (*scan).numberOfOrderBys == 0 {
                ereport!(
                    ERROR,
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    "cannot scan ivflsh index without order"
                );
            }
            let order = &*(*scan).orderByData;
            let query = (order.sk_flags as u32 & pg_sys::SK_ISNULL == 0).then(|| Value::read(order.sk_argument));
            let mut wanted = Wanted { values: true, nulls: true };
            for i in 0..(*scan).numberOfKeys as usize {
                let flags = (*(*scan).keyData.add(i)).sk_flags as u32;
                if flags & pg_sys::SK_SEARCHNULL != 0 {
                    wanted.values = false;
                } else if flags & pg_sys::SK_SEARCHNOTNULL != 0 {
                    wanted.nulls = false;
                } else {
                    ereport!(ERROR, PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "unknown condition of an index scan");
                }
            }
            compat::count_index_scan(scan);
            Search::new((*scan).indexRelation, query.as_ref(), wanted, self.range, self.expected)
        }
    }
}
