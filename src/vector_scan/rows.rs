//! Reading rows of the table: visibility, WHERE clause, distance.

use super::collect::Match;
use crate::index::page::ItemPointer as _;
use crate::index::page::Tid;
use pgrx::pg_sys::submodules::ffi::pg_guard_ffi_boundary;
use pgrx::prelude::*;

/// PostgreSQL's functions without a guard of their own: several calls for a row share one.
mod unguarded {
    use crate::vector_scan::pg_sys;

    unsafe extern "C-unwind" {
        pub fn index_fetch_heap(scan: pg_sys::IndexScanDesc, slot: *mut pg_sys::TupleTableSlot) -> bool;
        pub fn MemoryContextReset(context: pg_sys::MemoryContext);
    }
}

/// How a scan reads rows. All pointers are the executor's and live as long as the node.
#[derive(Clone, Copy)]
pub struct Rows {
    /// The index scan, whose table access is used.
    pub scan: pg_sys::IndexScanDesc,
    pub slot: *mut pg_sys::TupleTableSlot,
    pub context: *mut pg_sys::ExprContext,
    /// The WHERE clause, and without its distance ranges. NULL: nothing to check.
    pub qual: *mut pg_sys::ExprState,
    pub qual_in_range: *mut pg_sys::ExprState,
    pub distance: *mut pg_sys::ExprState,
    /// What stands for a distance that is not a number, and for none: NaNs, positive ones where such rows come after all others, negative
    /// ones where they come before these. Those for none are the farther ones from all numbers, by `total_cmp`.
    pub nan: f64,
    pub null: f64,
}

/// Stands for no distance.
pub const NULL: f64 = f64::from_bits(0x7FFF << 48);

/// What was found under a TID.
pub enum Row {
    /// No row that the query can see.
    Invisible,
    /// Nor anybody else.
    Dead,
    /// It does not pass the WHERE clause.
    Removed,
    /// It does; under this TID.
    Passed(Tid),
}

impl Rows {
    /// Reads the row under a TID of the index and checks the WHERE clause. `in_range`: the distance ranges are known to
    /// be met.
    pub fn check(&self, tid: Tid, in_range: bool) -> Row {
        // SAFETY: pointers are valid (see the type). No Rust value that needs dropping lives inside the guard.
        unsafe {
            pg_guard_ffi_boundary(|| {
                let scan = &mut *self.scan;
                scan.xs_heaptid = tid.item();
                scan.xs_heap_continue = false;
                scan.kill_prior_tuple = false;
                if !unguarded::index_fetch_heap(scan, self.slot) {
                    return if scan.kill_prior_tuple { Row::Dead } else { Row::Invisible };
                }
                let qual = if in_range { self.qual_in_range } else { self.qual };
                if self.passes(qual) { Row::Passed(Tid::from_item(&(*self.slot).tts_tid)) } else { Row::Removed }
            })
        }
    }

    /// Whether the row in the slot passes `qual`.
    ///
    /// # Safety
    /// To be called inside a guard, with a row in the slot.
    unsafe fn passes(&self, qual: *mut pg_sys::ExprState) -> bool {
        // SAFETY: by contract.
        unsafe {
            if qual.is_null() {
                return true;
            }
            let mut null = false;
            let value = self.evaluate(qual, &mut null);
            value.value() != 0
        }
    }

    /// Evaluates an expression on the row in the slot, in memory that lives until the next row.
    ///
    /// # Safety
    /// As [`Rows::passes`].
    unsafe fn evaluate(&self, expression: *mut pg_sys::ExprState, null: &mut bool) -> pg_sys::Datum {
        // SAFETY: by contract; the context is restored (after an ERROR, by the handler).
        unsafe {
            let context = &mut *self.context;
            unguarded::MemoryContextReset(context.ecxt_per_tuple_memory);
            context.ecxt_scantuple = self.slot;
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = context.ecxt_per_tuple_memory;
            let value = (*expression).evalfunc.unwrap_unchecked()(expression, context, null);
            pg_sys::CurrentMemoryContext = before;
            value
        }
    }

    /// Distance of the row in the slot, as the ORDER BY operator has it. None: NULL.
    pub fn distance(&self) -> Option<f64> {
        // SAFETY: a row is in the slot by the caller's order of calls; else the expression meets an empty slot, and
        // PostgreSQL raises an error.
        unsafe {
            pg_guard_ffi_boundary(|| {
                let mut null = false;
                let value = self.evaluate(self.distance, &mut null);
                let value = f64::from_bits(value.value() as u64);
                (!null).then_some(if value.is_nan() { self.nan } else { value })
            })
        }
    }

    /// The row in the slot, with its place in the order, also where it has no distance.
    pub fn matched(&self, tid: Tid) -> Match {
        Match::exact(self.distance().unwrap_or(self.null), tid)
    }

    /// The TID by which an index knows the row in the slot; None where that is not known without reading its page: a
    /// version that an update has put beside the one in the index, or a table that is stored in another way.
    ///
    /// # Safety
    /// A row of the table is in the slot.
    pub unsafe fn tid_in_index(&self) -> Option<Tid> {
        // SAFETY: by contract; a slot is of the kind that its operations say.
        unsafe {
            let slot = &*self.slot;
            if !std::ptr::eq(slot.tts_ops, &raw const pg_sys::TTSOpsBufferHeapTuple) {
                return None;
            }
            let tuple = (*self.slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple.as_ref()?;
            let later = u32::from((*tuple.t_data).t_infomask2) & pg_sys::HEAP_ONLY_TUPLE != 0;
            (!later).then(|| Tid::from_item(&slot.tts_tid))
        }
    }

    /// Checks the row that is in the slot.
    pub fn check_slot(&self) -> bool {
        // SAFETY: as in `check`.
        unsafe { pg_guard_ffi_boundary(|| self.passes(self.qual)) }
    }

    /// Reads a version of a row again, which `check` has returned.
    pub fn load(&self, tid: Tid) -> bool {
        // SAFETY: as in `check`; every table access method has the callback.
        unsafe {
            pg_guard_ffi_boundary(|| {
                let table = (*self.scan).heapRelation;
                let mut item = tid.item();
                let fetch = (*(*table).rd_tableam).tuple_fetch_row_version.unwrap_unchecked();
                fetch(table, &mut item, (*self.scan).xs_snapshot, self.slot)
            })
        }
    }

    /// Begins to read the whole table, row by row.
    pub fn begin_all(&self) -> pg_sys::TableScanDesc {
        // SAFETY: the index scan has the table open; after an ERROR the transaction's abort releases the new scan.
        unsafe { pg_sys::table_beginscan((*self.scan).heapRelation, (*self.scan).xs_snapshot, 0, std::ptr::null_mut()) }
    }

    /// Puts the next row that passes the WHERE clause into the slot; false at the end. Counts those that do not pass.
    pub fn next_of_all(&self, scan: pg_sys::TableScanDesc, seen: &mut u64, removed: &mut u64) -> bool {
        self.next_passing(scan, self.qual, seen, removed)
    }

    /// Puts the next row that passes `qual` into the slot; false at the end. `scan`: made by [`Rows::begin_all`].
    fn next_passing(
        &self,
        scan: pg_sys::TableScanDesc,
        qual: *mut pg_sys::ExprState,
        seen: &mut u64,
        removed: &mut u64,
    ) -> bool {
        // SAFETY: as in `check`; `begin_all` has made the scan.
        unsafe {
            let table = (*self.scan).heapRelation;
            let next = (*(*table).rd_tableam).scan_getnextslot.expect("a table access method has it");
            loop {
                crate::pg::memory::check_for_interrupts();
                // Up to the next row that passes, so that most rows share a guard.
                let found = pg_guard_ffi_boundary(|| {
                    for _ in 0..ROWS_IN_GUARD {
                        if !next(scan, pg_sys::ScanDirection::ForwardScanDirection, self.slot) {
                            return Pass::End;
                        }
                        *seen += 1;
                        if self.passes(qual) {
                            return Pass::Row;
                        }
                        *removed += 1;
                    }
                    Pass::Nothing
                });
                match found {
                    Pass::Row => return true,
                    Pass::Nothing => {}
                    Pass::End => return false,
                }
            }
        }
    }

    /// Reads the whole table: calls `passed` for each row that the query can see and that passes the WHERE clause but
    /// for its distance ranges; it is in the slot then. Returns how many there were, and how many did not pass.
    pub fn all(&self, mut passed: impl FnMut()) -> (u64, u64) {
        let (mut seen, mut removed) = (0, 0);
        let scan = self.begin_all();
        while self.next_passing(scan, self.qual_in_range, &mut seen, &mut removed) {
            passed();
        }
        // SAFETY: made above. After an ERROR the transaction's abort releases it.
        unsafe { pg_sys::table_endscan(scan) };
        (seen, removed)
    }
}

/// Rows read under one guard, between answers to interrupts.
const ROWS_IN_GUARD: usize = 1000;

/// What a piece of a pass over the table ended with.
enum Pass {
    Row,
    Nothing,
    End,
}
