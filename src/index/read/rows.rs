//! The rows behind entries: their vectors as they are in the table, for lists that are made anew, and their distances, for
//! searches of an index without codes.
//!
//! Where an index is on an expression, only its owner, by CREATE INDEX and REINDEX, and who inserts a row have PostgreSQL
//! evaluate that. Nobody else may be made to run functions of users, so what reads rows says who it is by the constructor of
//! [`Rows`] that it calls; an expression of casts and functions in C, which only a superuser could make, may be evaluated by
//! who changes lists. A search asks the executor instead, for the expression that the query itself has: see [`Judge`].

use crate::index::metric::Operator;
use crate::index::metric::OperatorClass as _;
use crate::index::page::ItemPointer as _;
use crate::index::page::Tid;
use crate::index::storage;
use crate::pg::identity::Owner;
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

pub use ivflsh::rows::Row;

/// Where the vectors of rows are.
enum Source {
    /// In a column of the table.
    Column(i16),
    /// In the same, but values that are out of line may not be read.
    InLine(i16),
    /// The value of an expression.
    Expression(Expression),
    /// The value of an expression that may not be evaluated.
    Unknown,
}

/// Whether the vectors of an index are a column of the table.
pub fn is_column(index: pg_sys::Relation) -> bool {
    column(index) != 0
}

/// Number of the indexed column; 0 for an expression.
fn column(index: pg_sys::Relation) -> i16 {
    // SAFETY: an open index has at least one column.
    unsafe { *(*(*index).rd_index).indkey.values.as_ptr() }
}

/// The expression that an index's vectors are the values of, ready to be evaluated.
pub struct Expression {
    expression: *mut pg_sys::ExprState,
    state: *mut pg_sys::EState,
}

impl Expression {
    /// That of an index on an expression, to be evaluated as the owner of its table.
    pub fn of_owner(index: pg_sys::Relation, _owner: &impl Owner) -> Option<Expression> {
        // SAFETY: `index` is open.
        unsafe { (!is_column(index)).then(|| Expression::prepare(written(index))) }
    }

    /// That of an index on an expression, if no function of users is called by it.
    fn of_anybody(index: pg_sys::Relation) -> Option<Expression> {
        // SAFETY: `index` is open.
        unsafe {
            let expression = written(index);
            let calls_users = calls_users(expression, std::ptr::null_mut());
            (!calls_users).then(|| Expression::prepare(expression))
        }
    }

    /// # Safety
    /// An expression over a row of a table.
    unsafe fn prepare(expression: *mut pg_sys::Node) -> Expression {
        // SAFETY: by contract; what is made here goes with the state.
        unsafe {
            let state = pg_sys::CreateExecutorState();
            let before = pg_sys::MemoryContextSwitchTo((*state).es_query_cxt);
            let expression = pg_sys::ExecPrepareExpr(expression.cast(), state);
            pg_sys::MemoryContextSwitchTo(before);
            Expression { expression, state }
        }
    }

    /// To evaluate it for rows that a search finds. It must live as long as the search.
    pub fn judge(&self) -> Judge {
        // SAFETY: the state lives as long as self.
        unsafe {
            Judge { expression: self.expression, context: pg_sys::CreateExprContext(self.state), distance: false }
        }
    }

    /// The value for the row in a slot, which is valid until the next one is asked for; None for NULL.
    ///
    /// # Safety
    /// A row of the table is in the slot.
    unsafe fn evaluate(&self, slot: *mut pg_sys::TupleTableSlot) -> Option<pg_sys::Datum> {
        // SAFETY: by contract.
        unsafe {
            let context = match (*self.state).es_per_tuple_exprcontext {
                context if context.is_null() => pg_sys::MakePerTupleExprContext(self.state),
                context => context,
            };
            evaluate(self.expression, context, slot)
        }
    }
}

impl Drop for Expression {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: made by `prepare`.
            unsafe { pg_sys::FreeExecutorState(self.state) }
        }
    }
}

/// Evaluates an expression on the row in a slot, in memory that lives until the next time; None for NULL.
///
/// # Safety
/// An expression over such rows, and a context of its own.
unsafe fn evaluate(
    expression: *mut pg_sys::ExprState,
    context: *mut pg_sys::ExprContext,
    slot: *mut pg_sys::TupleTableSlot,
) -> Option<pg_sys::Datum> {
    // SAFETY: by contract.
    unsafe {
        pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
        (*context).ecxt_scantuple = slot;
        let mut null = true;
        let value = pg_sys::ExecEvalExprSwitchContext(expression, context, &mut null);
        (!null).then_some(value)
    }
}

/// The first expression of an index as it was written: the relation cache has it with functions of constants folded, that
/// is, evaluated.
///
/// # Safety
/// An open index whose first column is an expression.
unsafe fn written(index: pg_sys::Relation) -> *mut pg_sys::Node {
    // SAFETY: by contract: then the expressions are in its tuple, as the text of a list.
    unsafe {
        let mut null = true;
        let text = pg_sys::SysCacheGetAttr(
            pg_sys::SysCacheIdentifier::INDEXRELID as i32,
            (*index).rd_indextuple,
            pg_sys::Anum_pg_index_indexprs as i16,
            &mut null,
        );
        let list = pg_sys::stringToNode(pg_sys::text_to_cstring(text.cast_mut_ptr())).cast::<pg_sys::List>();
        pgrx::PgList::<pg_sys::Node>::from_pg(list).get_ptr(0).expect("an expression")
    }
}

/// Whether an expression may call a function that is not written in C, or calls one that is not immutable; of what it can
/// consist of only casts, functions and operators are looked into.
#[pg_guard]
unsafe extern "C-unwind" fn calls_users(node: *mut pg_sys::Node, context: *mut std::ffi::c_void) -> bool {
    // SAFETY: a node is what its tag says.
    unsafe {
        let Some(tag) = node.as_ref().map(|node| node.type_) else { return false };
        let known = matches!(
            tag,
            pg_sys::NodeTag::T_Var
                | pg_sys::NodeTag::T_Const
                | pg_sys::NodeTag::T_FuncExpr
                | pg_sys::NodeTag::T_OpExpr
                | pg_sys::NodeTag::T_RelabelType
                | pg_sys::NodeTag::T_CoerceViaIO
                | pg_sys::NodeTag::T_List
        );
        !known
            || pg_sys::check_functions_in_node(node, Some(is_of_users), context)
            || pg_sys::expression_tree_walker(node, Some(calls_users), context)
    }
}

/// Whether a function is not an immutable one in C.
#[pg_guard]
unsafe extern "C-unwind" fn is_of_users(function: pg_sys::Oid, _context: *mut std::ffi::c_void) -> bool {
    // SAFETY: a tuple of pg_proc begins with its fixed part.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(function));
        if tuple.is_null() {
            return true;
        }
        let found: *const pg_sys::FormData_pg_proc = pg_sys::heap_tuple_get_struct(tuple);
        let in_c = [INTERNAL_LANGUAGE, C_LANGUAGE].contains(&(*found).prolang.to_u32());
        let immutable = (*found).provolatile == pg_sys::PROVOLATILE_IMMUTABLE as std::ffi::c_char;
        pg_sys::ReleaseSysCache(tuple);
        !(in_c && immutable)
    }
}

/// Whether a function is an immutable one in C, which only a superuser can have created.
pub fn is_immutable_in_c(function: pg_sys::Oid) -> bool {
    // SAFETY: a look-up in the catalog.
    unsafe { !is_of_users(function, std::ptr::null_mut()) }
}

/// From PostgreSQL's pg_language.dat.
const INTERNAL_LANGUAGE: u32 = 12;
const C_LANGUAGE: u32 = 13;

/// Tells the distance of a row from the query where the index itself may not evaluate the expression that it is on: the
/// query's ORDER BY, as the executor has compiled it for its user, by its rules and with its checks of privileges.
#[derive(Clone, Copy)]
pub struct Judge {
    expression: *mut pg_sys::ExprState,
    context: *mut pg_sys::ExprContext,
    /// Its value is the distance, not the vector.
    distance: bool,
}

impl Judge {
    /// # Safety
    /// `distance` is an expression of type float8 that a scan of the table evaluates in this execution of a query, which
    /// outlives the judge.
    pub unsafe fn new(distance: *mut pg_sys::ExprState, state: *mut pg_sys::EState) -> Judge {
        // SAFETY: by contract; the context goes with the execution.
        Judge { expression: distance, context: unsafe { pg_sys::CreateExprContext(state) }, distance: true }
    }
}

/// Reads rows by their TID.
pub struct Rows {
    operator: Operator,
    heap: pg_sys::Relation,
    /// Blocks of the table when last looked at; all there can be if it is not of PostgreSQL's heap.
    blocks: u32,
    fetch: *mut pg_sys::IndexFetchTableData,
    slot: *mut pg_sys::TupleTableSlot,
    snapshot: pg_sys::Snapshot,
    source: Source,
}

impl Rows {
    /// For who inserts into `index` on `heap`, and changes lists for that: rows as they are now. Both stay open and locked.
    ///
    /// What this sees is committed or our own, and not deleted by a transaction that has ended. So our active snapshot, which is
    /// older, keeps values out of line from being removed.
    pub fn of_inserter(index: pg_sys::Relation, heap: pg_sys::Relation, operator: Operator) -> Rows {
        let source = match column(index) {
            0 => Expression::of_anybody(index).map_or(Source::Unknown, Source::Expression),
            // SAFETY: asks for the backend's state.
            column if unsafe { pg_sys::ActiveSnapshotSet() } => Source::Column(column),
            column => Source::InLine(column),
        };
        Rows::new(Table { heap, snapshot: &raw mut pg_sys::SnapshotSelfData }, operator, source)
    }

    /// For VACUUM: rows as they are now.
    ///
    /// Nobody heeds the snapshot of VACUUM: another one may take away the parts of a value out of line as soon as its row is
    /// deleted. Expressions are not evaluated here, as PostgreSQL does not.
    pub fn of_vacuum(index: pg_sys::Relation, heap: pg_sys::Relation, operator: Operator) -> Rows {
        let source = match column(index) {
            0 => Source::Unknown,
            column => Source::InLine(column),
        };
        Rows::new(Table { heap, snapshot: &raw mut pg_sys::SnapshotSelfData }, operator, source)
    }

    /// For who builds an index, as the owner: rows as they are now.
    pub fn of_build(index: pg_sys::Relation, heap: pg_sys::Relation, operator: Operator, owner: &impl Owner) -> Rows {
        let source = match Expression::of_owner(index, owner) {
            Some(expression) => Source::Expression(expression),
            None => Source::Column(column(index)),
        };
        Rows::new(Table { heap, snapshot: &raw mut pg_sys::SnapshotSelfData }, operator, source)
    }

    /// For a search: rows that it sees. Those of an index on an expression can be judged only.
    pub fn of_search(index: pg_sys::Relation, table: Table, operator: Operator) -> Rows {
        let source = match column(index) {
            0 => Source::Unknown,
            column => Source::Column(column),
        };
        Rows::new(table, operator, source)
    }

    fn new(table: Table, operator: Operator, source: Source) -> Rows {
        let Table { heap, snapshot } = table;
        // SAFETY: open relations; all that is made here is ended by Drop, or with the transaction.
        unsafe {
            let is_heap = std::ptr::eq((*heap).rd_tableam, pg_sys::GetHeapamTableAmRoutine());
            Rows {
                operator,
                heap,
                blocks: if is_heap { 0 } else { u32::MAX },
                fetch: pg_sys::table_index_fetch_begin(heap),
                slot: pg_sys::table_slot_create(heap, std::ptr::null_mut()),
                snapshot,
                source,
            }
        }
    }

    /// Whether the vectors of some rows can be read.
    pub fn can_read(&self) -> bool {
        !matches!(self.source, Source::Unknown)
    }

    /// Puts the row at `tid` into the slot; says what it is if that cannot be.
    fn fetch(&mut self, tid: Tid) -> Result<(), Row> {
        if tid.block() >= self.blocks {
            self.blocks = self.blocks.max(storage::blocks(self.heap));
            if tid.block() >= self.blocks {
                // The table has been truncated since, or the entry is of a page that is no part of the index.
                return Err(Row::Hidden);
            }
        }
        let mut item = tid.item();
        let (mut again, mut dead) = (false, false);
        // SAFETY: the scan and the slot are live.
        let found = unsafe {
            pg_sys::table_index_fetch_tuple(self.fetch, &mut item, self.snapshot, self.slot, &mut again, &mut dead)
        };
        match (found, dead) {
            (true, _) => Ok(()),
            (false, true) => Err(Row::Dead),
            (false, false) => Err(Row::Hidden),
        }
    }

    /// Reads the vector of the row at `tid` into `out` (cleared), as the user gave it. Whatever version of the row is
    /// visible has the entry's vector: versions with another one have entries of their own.
    pub fn read(&mut self, tid: Tid, out: &mut Vec<f32>) -> Row {
        out.clear();
        if !self.can_read() {
            return Row::Hidden;
        }
        if let Err(row) = self.fetch(tid) {
            return row;
        }
        // SAFETY: there is a row in the slot; a column of a vector type holds a varlena.
        unsafe {
            let mut null = true;
            let value = match &self.source {
                Source::Column(column) | Source::InLine(column) => {
                    let value = pg_sys::slot_getattr(self.slot, i32::from(*column), &mut null);
                    let readable = !null
                        && (matches!(self.source, Source::Column(_))
                            || !pgrx::varlena::varatt_is_1b_e(value.cast_mut_ptr()));
                    readable.then_some(value)
                }
                Source::Expression(expression) => expression.evaluate(self.slot),
                Source::Unknown => None,
            };
            if let Some(value) = value {
                self.operator.read(value, out);
            }
            pg_sys::ExecClearTuple(self.slot);
            if value.is_some() { Row::Read } else { Row::Hidden }
        }
    }

    /// The distance, in the index's own unit, of the row at `tid` from the judge's query, which is `query` as the user gave
    /// it; what the row is if it cannot be seen.
    pub fn judge(&mut self, tid: Tid, judge: Judge, query: &[f32]) -> Result<f32, Row> {
        self.fetch(tid)?;
        // SAFETY: there is a row in the slot, and the judge is one of such rows.
        unsafe {
            let value = evaluate(judge.expression, judge.context, self.slot);
            let distance = match value {
                // What comes last.
                None => f32::INFINITY,
                Some(value) if judge.distance => self.operator.in_index_unit(f64::from_bits(value.value() as u64)),
                Some(value) => {
                    let mut row = Vec::new();
                    self.operator.read(value, &mut row);
                    if row.len() != query.len() {
                        return Err(Row::Hidden);
                    }
                    self.operator.index_distance(&row, query)
                }
            };
            pg_sys::ExecClearTuple(self.slot);
            Ok(distance)
        }
    }

    /// As [`Rows::read`] for a row that it cannot see: reads what is left of it in the table, as far as that is in the row itself.
    /// (Values out of line may have been removed already.) The TID is not that of another row while there is an entry for it.
    pub fn read_unseen(&mut self, tid: Tid, out: &mut Vec<f32>) -> Row {
        out.clear();
        let (Source::Column(column) | Source::InLine(column)) = self.source else { return Row::Hidden };
        if tid.block() >= self.blocks {
            return Row::Hidden;
        }
        let mut item = tid.item();
        let (mut again, mut dead) = (false, false);
        // SAFETY: as in `read`; the value is looked at while its page is pinned by the slot.
        unsafe {
            let any = &raw mut pg_sys::SnapshotAnyData;
            if !pg_sys::table_index_fetch_tuple(self.fetch, &mut item, any, self.slot, &mut again, &mut dead) {
                return Row::Hidden;
            }
            let mut null = true;
            let value = pg_sys::slot_getattr(self.slot, i32::from(column), &mut null);
            let inline = !null && !pgrx::varlena::varatt_is_1b_e(value.cast_mut_ptr());
            if inline {
                self.operator.read(value, out);
            }
            pg_sys::ExecClearTuple(self.slot);
            if inline { Row::Read } else { Row::Hidden }
        }
    }
}

impl ivflsh::rows::Rows for Rows {
    fn can_read(&self) -> bool {
        Rows::can_read(self)
    }

    fn read(&mut self, tid: Tid, out: &mut Vec<f32>) -> Row {
        Rows::read(self, tid, out)
    }

    fn read_unseen(&mut self, tid: Tid, out: &mut Vec<f32>) -> Row {
        Rows::read_unseen(self, tid, out)
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: made by `new`.
            unsafe {
                pg_sys::table_index_fetch_end(self.fetch);
                pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            }
        }
    }
}
