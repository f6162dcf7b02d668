//! The rows behind entries: their vectors as they are in the table, for lists that are made anew, and for searches of an
//! index without codes.

use super::metric::Operator;
use super::page::Tid;
use super::storage;
use pgrx::prelude::*;

/// A table and the snapshot that a search sees its rows under.
#[derive(Clone, Copy)]
pub struct Table {
    pub heap: pg_sys::Relation,
    pub snapshot: pg_sys::Snapshot,
}

impl Table {
    /// Asks the operating system to read a row's page.
    pub fn read_ahead(&self, tid: Tid) {
        storage::read_ahead(self.heap, tid.block());
    }
}

/// What is known of the row of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Row {
    /// Its vector was read.
    Read,
    /// It is not visible to us now, or its vector may not be read: another transaction in progress wrote it, or it is dead
    /// while others may still see it.
    Hidden,
    /// Dead to everybody.
    Dead,
}

/// Reads the vectors of rows by their TID.
pub struct Rows {
    operator: Operator,
    heap: pg_sys::Relation,
    /// Blocks of the table when last looked at; all there can be if it is not of PostgreSQL's heap.
    blocks: u32,
    fetch: *mut pg_sys::IndexFetchTableData,
    slot: *mut pg_sys::TupleTableSlot,
    snapshot: pg_sys::Snapshot,
    /// Without a snapshot, values out of line may not be read: what they consist of could be vacuumed away.
    readable: bool,
    /// Number of the indexed column; 0 for an expression.
    column: i16,
    expression: Option<(*mut pg_sys::IndexInfo, *mut pg_sys::EState)>,
}

impl Rows {
    /// Rows as they are now, for `index` on `heap`, which both stay open and locked. What this sees is committed or our own,
    /// and not deleted by a transaction that ended.
    pub fn now(index: pg_sys::Relation, heap: pg_sys::Relation, operator: Operator) -> Rows {
        Rows::of(index, Table { heap, snapshot: &raw mut pg_sys::SnapshotSelfData }, operator)
    }

    /// Rows that a search sees.
    pub fn of(index: pg_sys::Relation, table: Table, operator: Operator) -> Rows {
        let Table { heap, snapshot } = table;
        // SAFETY: open relations; all that is made here is ended by Drop, or with the transaction.
        unsafe {
            let column = *(*(*index).rd_index).indkey.values.as_ptr();
            let expression = (column == 0).then(|| (pg_sys::BuildIndexInfo(index), pg_sys::CreateExecutorState()));
            let is_heap = std::ptr::eq((*heap).rd_tableam, pg_sys::GetHeapamTableAmRoutine());
            Rows {
                operator,
                heap,
                blocks: if is_heap { 0 } else { u32::MAX },
                fetch: pg_sys::table_index_fetch_begin(heap),
                slot: pg_sys::table_slot_create(heap, std::ptr::null_mut()),
                snapshot,
                readable: pg_sys::ActiveSnapshotSet(),
                column,
                expression,
            }
        }
    }

    /// Reads the vector of the row at `tid` into `out` (cleared), as the user gave it. Whatever version of the row is
    /// visible has the entry's vector: versions with another one have entries of their own.
    pub fn read(&mut self, tid: Tid, out: &mut Vec<f32>) -> Row {
        out.clear();
        if tid.block() >= self.blocks {
            self.blocks = self.blocks.max(storage::blocks(self.heap));
            if tid.block() >= self.blocks {
                // The table has been truncated since, or the entry is of a page that is no part of the index.
                return Row::Hidden;
            }
        }
        let mut item = tid.item();
        let (mut again, mut dead) = (false, false);
        // SAFETY: the scan and the slot are live. What SnapshotSelf sees is committed or our own, and not deleted by a
        // transaction that ended: so our active snapshot, which is older, keeps values out of line from being removed.
        unsafe {
            let found =
                pg_sys::table_index_fetch_tuple(self.fetch, &mut item, self.snapshot, self.slot, &mut again, &mut dead);
            if !found {
                return if dead { Row::Dead } else { Row::Hidden };
            }
            let mut null = true;
            let value = match self.expression {
                _ if !self.readable => pg_sys::Datum::null(),
                None => pg_sys::slot_getattr(self.slot, i32::from(self.column), &mut null),
                Some((info, state)) => {
                    let context = match (*state).es_per_tuple_exprcontext {
                        context if context.is_null() => pg_sys::MakePerTupleExprContext(state),
                        context => context,
                    };
                    (*context).ecxt_scantuple = self.slot;
                    let mut values = [pg_sys::Datum::null(); pg_sys::INDEX_MAX_KEYS as usize];
                    let mut nulls = [true; pg_sys::INDEX_MAX_KEYS as usize];
                    pg_sys::FormIndexDatum(info, self.slot, state, values.as_mut_ptr(), nulls.as_mut_ptr());
                    null = nulls[0];
                    values[0]
                }
            };
            if !null {
                self.operator.read(value, out);
            }
            if let Some((_, state)) = self.expression {
                pg_sys::MemoryContextReset((*(*state).es_per_tuple_exprcontext).ecxt_per_tuple_memory);
            }
            pg_sys::ExecClearTuple(self.slot);
            if null { Row::Hidden } else { Row::Read }
        }
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: made by `new`.
            unsafe {
                pg_sys::table_index_fetch_end(self.fetch);
                pg_sys::ExecDropSingleTupleTableSlot(self.slot);
                if let Some((_, state)) = self.expression {
                    pg_sys::FreeExecutorState(state);
                }
            }
        }
    }
}
