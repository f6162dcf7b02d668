//! The external sort of a build: the rows' records by list.

use super::assign::Records;
use crate::pg::compat;
use pgrx::pg_sys::submodules::ffi::pg_guard_ffi_boundary;
use pgrx::prelude::*;

/// PostgreSQL's external sort over (list int4, record bytea).
pub struct Sort {
    state: *mut pg_sys::Tuplesortstate,
    input: *mut pg_sys::TupleTableSlot,
    output: *mut pg_sys::TupleTableSlot,
    /// A bytea that records are copied into.
    record: *mut pg_sys::varlena,
    bytes: usize,
}

impl Sort {
    /// For records of so many bytes, in so much memory (kB).
    pub fn new(bytes: usize, memory: i32) -> Sort {
        // SAFETY: a fresh descriptor and slots in the current memory context, which lives as long as the build.
        unsafe {
            let desc = pg_sys::CreateTemplateTupleDesc(2);
            pg_sys::TupleDescInitEntry(desc, 1, c"list".as_ptr(), pg_sys::INT4OID, -1, 0);
            pg_sys::TupleDescInitEntry(desc, 2, c"record".as_ptr(), pg_sys::BYTEAOID, -1, 0);
            let record: *mut pg_sys::varlena = pg_sys::palloc(bytes + pg_sys::VARHDRSZ).cast();
            pgrx::set_varsize_4b(record, (bytes + pg_sys::VARHDRSZ) as i32);
            Sort {
                state: compat::sort_by_int4(desc, memory),
                input: pg_sys::MakeSingleTupleTableSlot(desc, &raw const pg_sys::TTSOpsVirtual),
                output: pg_sys::MakeSingleTupleTableSlot(desc, &raw const pg_sys::TTSOpsMinimalTuple),
                record,
                bytes,
            }
        }
    }

    /// Adds a record of a list.
    pub fn put(&mut self, list: i32, record: &[u8]) {
        assert_eq!(record.len(), self.bytes);
        // SAFETY: the slot has two columns; the sort copies them.
        unsafe {
            let data: *mut u8 = self.record.cast::<u8>().add(pg_sys::VARHDRSZ);
            std::ptr::copy_nonoverlapping(record.as_ptr(), data, self.bytes);
            let slot = &mut *self.input;
            let clear = (*slot.tts_ops).clear.expect("a slot has it");
            pg_guard_ffi_boundary(|| clear(slot));
            *slot.tts_values = pg_sys::Datum::from(list);
            *slot.tts_values.add(1) = pg_sys::Datum::from(self.record);
            *slot.tts_isnull = false;
            *slot.tts_isnull.add(1) = false;
            pg_sys::ExecStoreVirtualTuple(slot);
            pg_sys::tuplesort_puttupleslot(self.state, slot);
        }
    }

    /// Sorts; to be called between the last [`Sort::put`] and the first record.
    pub fn perform(&mut self) {
        // SAFETY: the sort is in its input phase.
        unsafe { pg_sys::tuplesort_performsort(self.state) }
    }
}

impl Records for Sort {
    fn next_record(&mut self) -> Option<(usize, &[u8])> {
        // SAFETY: the sort has been performed; the tuple's columns are not NULL.
        unsafe {
            if !pg_sys::tuplesort_gettupleslot(self.state, true, false, self.output, std::ptr::null_mut()) {
                return None;
            }
            pg_sys::slot_getsomeattrs_int(self.output, 2);
            let list = (*(*self.output).tts_values).value() as i32;
            let record: *const pg_sys::varlena = (*(*self.output).tts_values.add(1)).cast_mut_ptr();
            let bytes = pgrx::varlena_to_byte_slice(record);
            assert_eq!(bytes.len(), self.bytes);
            Some((list as usize, bytes))
        }
    }
}

impl Drop for Sort {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: live; after an ERROR, temporary files and memory go with the transaction.
            unsafe {
                pg_sys::ExecDropSingleTupleTableSlot(self.input);
                pg_sys::ExecDropSingleTupleTableSlot(self.output);
                pg_sys::tuplesort_end(self.state);
            }
        }
    }
}
