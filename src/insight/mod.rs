//! What an index is like: `ivflsh_recall`, `ivflsh_stats`, `ivflsh_lists`, `ivflsh_last_scan`; whether it is whole:
//! `ivflsh_check`; and into memory with it: `ivflsh_prewarm`.

pub mod check;
mod privilege;
mod queries;
mod recall;
mod stats;
mod tune;
pub mod walk;

use crate::index::method;
use crate::index::pgvector;
use crate::index::search;
use crate::index::storage;
use crate::index::terms;
use crate::pg::array::ArrayRef;
use crate::pg::error::{Result, SqlError};
use crate::pg::function::{FromArg, IntoReturn, pg_function};
use crate::pg::identity::AsOwner;
use pgrx::pg_sys::{self, Datum};
use pgrx::prelude::*;
use queries::TextRef;

::pgrx::extension_sql_file!("../../sql/insight.sql", name = "insight", requires = ["index"]);
::pgrx::extension_sql_file!("../../sql/fan_out.sql", name = "fan_out", requires = ["insight"]);

/// A `regclass` argument.
struct Index(pg_sys::Oid);

impl FromArg<'_> for Index {
    unsafe fn from_arg(datum: Datum) -> Result<Self> {
        Ok(Index(pg_sys::Oid::from(datum.value() as u32)))
    }
}

/// What a function of this module asks of who calls it.
#[derive(Clone, Copy)]
enum Asks {
    /// To own the table, or else to be trusted with this function: it tells of all rows of a table, whatever policies hide,
    /// holds off VACUUM and splits while it works, or evaluates expressions.
    Trust { function: pg_sys::Oid },
    /// To own the table.
    Ownership,
    /// To read the table.
    Select,
}

impl Asks {
    /// Trust in the function that is called.
    fn trust(call: pg_sys::FunctionCallInfo) -> Asks {
        // SAFETY: a function called from SQL knows which one it is.
        Asks::Trust { function: unsafe { (*(*call).flinfo).fn_oid } }
    }

    /// Refuses a caller who may not.
    ///
    /// # Safety
    /// `table` is the table of `index`, both OIDs of relations.
    unsafe fn demand(self, table: pg_sys::Oid, index: pg_sys::Oid) -> Result<()> {
        // SAFETY: by contract; look-ups in the system caches.
        let may = unsafe {
            match self {
                Asks::Trust { function } => privilege::keeps(table) || privilege::is_named(function),
                Asks::Ownership => privilege::owns(table),
                Asks::Select => privilege::reads(table),
            }
        };
        if may {
            return Ok(());
        }
        // SAFETY: as above.
        let name = unsafe { name_of(index) };
        let error = SqlError::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for the table of index \"{name}\""),
        );
        Err(match self {
            Asks::Trust { .. } => error.with_detail(
                "Its owner may call this function, and roles that EXECUTE on the function has been granted to by name.",
            ),
            Asks::Ownership => error.with_detail("Only its owner may call this function."),
            Asks::Select => error,
        })
    }
}

/// # Safety
/// The OID of a relation, or of none.
unsafe fn name_of(relation: pg_sys::Oid) -> String {
    // SAFETY: by contract; a C string in the current memory context, or NULL.
    unsafe {
        let name = pg_sys::get_rel_name(relation);
        if name.is_null() { String::new() } else { std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned() }
    }
}

/// An open ivflsh index and its table, share-locked; closed when dropped.
struct Opened {
    heap: pg_sys::Relation,
    index: pg_sys::Relation,
}

impl Opened {
    /// Opens an index of this access method whose caller may do what he asks for.
    ///
    /// That is found out before a lock is waited for: else anybody could stand in the queue for the lock of any table, and all
    /// others behind him. As the table may be altered meanwhile, it is found out once more when the lock is there.
    fn new(oid: pg_sys::Oid, asks: Asks) -> Result<Opened> {
        // SAFETY: plain look-ups and opens; locks are released at the end of the transaction at the latest.
        unsafe {
            let table = Opened::table_of(oid)?;
            asks.demand(table, oid)?;
            // Locks in the order that everybody takes them: table, then index.
            let heap = pg_sys::table_open(table, pg_sys::AccessShareLock as i32);
            let index = pg_sys::index_open(oid, pg_sys::AccessShareLock as i32);
            let opened = Opened { heap, index };
            if Opened::table_of(oid)? != table {
                return Err(SqlError::new(PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE, "not an index"));
            }
            asks.demand(table, oid)?;
            if !(*(*index).rd_index).indisvalid {
                return Err(SqlError::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    format!("index \"{}\" is not valid", name_of(oid)),
                )
                .with_detail("Its build has failed or is under way."));
            }
            if pgvector::is_idle(index) {
                return Err(SqlError::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    format!("index \"{}\" is empty: its operator class cannot be searched by yet", name_of(oid)),
                ));
            }
            Ok(opened)
        }
    }

    /// The same of an index that groups its rows in lists around centroids.
    fn lists(oid: pg_sys::Oid, asks: Asks) -> Result<Opened> {
        let opened = Opened::new(oid, asks)?;
        if terms::is_of(opened.index) {
            // SAFETY: an index that is there.
            let name = unsafe { name_of(oid) };
            let message = format!("index \"{name}\" has partition = terms");
            return Err(SqlError::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
                .with_detail("Its searches are exact, and it has no lists of rows around centroids."));
        }
        Ok(opened)
    }

    /// The table of an index of this access method.
    unsafe fn table_of(oid: pg_sys::Oid) -> Result<pg_sys::Oid> {
        // SAFETY: look-ups in the system caches.
        unsafe {
            let wrong = |message: String| SqlError::new(PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE, message);
            let table = pg_sys::IndexGetRelation(oid, true);
            if table == pg_sys::InvalidOid {
                return Err(wrong("not an index".to_owned()));
            }
            if pg_sys::get_rel_relkind(oid) != pg_sys::RELKIND_INDEX as std::ffi::c_char
                || !privilege::access_method_of(oid).is_some_and(method::is_ours_by_oid)
            {
                return Err(wrong(format!("\"{}\" is not an ivflsh index", name_of(oid))));
            }
            Ok(table)
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

pg_function! {
    /// `ivflsh_recall(index regclass, queries integer, k integer)`
    fn ivflsh_recall(call @ FunctionCallInfo, index: Index, queries: i32, k: i32) -> Option<f64> {
        check_range(queries, "queries", 100_000)?;
        check_range(k, "k", MOST_NEIGHBOURS)?;
        let opened = Opened::lists(index.0, Asks::trust(call))?;
        let owner = AsOwner::of(opened.heap);
        Ok(recall::recall(opened.heap, opened.index, &owner, recall::Queries::Rows(queries as usize), k as usize))
    }
}

const MOST_NEIGHBOURS: i32 = 10_000;

fn check_range(value: i32, name: &str, most: i32) -> Result<()> {
    match value {
        1.. if value <= most => Ok(()),
        _ => Err(SqlError::parameter(format!("{name} must be between 1 and {most}, not {value}"))),
    }
}

pg_function! {
    /// `ivflsh_recall(index regclass, queries vector[] or halfvec[], k integer)`
    fn ivflsh_recall_of_array(call @ FunctionCallInfo, index: Index, queries: ArrayRef<'_>, k: i32) -> Option<f64> {
        check_range(k, "k", MOST_NEIGHBOURS)?;
        let opened = Opened::lists(index.0, Asks::trust(call))?;
        let queries = queries::Wanted::of(opened.index).of_array(&queries)?;
        let owner = AsOwner::of(opened.heap);
        Ok(recall::recall(opened.heap, opened.index, &owner, recall::Queries::Given(queries), k as usize))
    }
}

pg_function! {
    /// `ivflsh_recall(index regclass, queries text, k integer)`
    fn ivflsh_recall_of_select(call @ FunctionCallInfo, index: Index, queries: TextRef<'_>, k: i32) -> Option<f64> {
        check_range(k, "k", MOST_NEIGHBOURS)?;
        let opened = Opened::lists(index.0, Asks::trust(call))?;
        // With the caller's rights, not the owner's.
        let queries = queries::Wanted::of(opened.index).of_select(&queries.c_string()?)?;
        let owner = AsOwner::of(opened.heap);
        Ok(recall::recall(opened.heap, opened.index, &owner, recall::Queries::Given(queries), k as usize))
    }
}

pg_function! {
    /// `ivflsh_tune(index regclass, queries vector[] or halfvec[])`
    fn ivflsh_tune_by_array(index: Index, queries: ArrayRef<'_>) -> f64 {
        let opened = Opened::lists(index.0, Asks::Ownership)?;
        tune::prepare(opened.index);
        let queries = queries::Wanted::of(opened.index).of_array(&queries)?;
        let owner = AsOwner::of(opened.heap);
        tune::tune(opened.heap, opened.index, &owner, &queries)
    }
}

pg_function! {
    /// `ivflsh_tune(index regclass, queries text)`
    fn ivflsh_tune_by_select(index: Index, queries: TextRef<'_>) -> f64 {
        let opened = Opened::lists(index.0, Asks::Ownership)?;
        tune::prepare(opened.index);
        // With the caller's rights, not the owner's, who may be a role that he is in.
        let queries = queries::Wanted::of(opened.index).of_select(&queries.c_string()?)?;
        let owner = AsOwner::of(opened.heap);
        tune::tune(opened.heap, opened.index, &owner, &queries)
    }
}

pg_function! {
    /// `ivflsh_tune(index regclass)`
    fn ivflsh_untune(index: Index) -> f64 {
        let opened = Opened::lists(index.0, Asks::Ownership)?;
        tune::prepare(opened.index);
        tune::untune(opened.index)
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
    fn ivflsh_stats(call @ FunctionCallInfo, index: Index) -> Json {
        let opened = Opened::new(index.0, Asks::trust(call))?;
        let stats = match terms::is_of(opened.index) {
            true => serde_json::to_value(terms::check::Stats::of(opened.index)),
            false => serde_json::to_value(stats::Stats::of(opened.index)),
        };
        stats.map(Json).map_err(|e| SqlError::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, e.to_string()))
    }
}

/// Bytes that a function may take for what it keeps of an index.
fn maintenance_memory() -> usize {
    // SAFETY: a setting.
    unsafe { pg_sys::maintenance_work_mem as usize * 1024 }
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

/// A set: of each of some things a row of values that are passed by value, or NULL.
struct Table<T, const N: usize> {
    things: T,
    count: usize,
    row: fn(&T, usize) -> [Option<Datum>; N],
}

impl<T, const N: usize> IntoReturn for Table<T, N> {
    unsafe fn into_return(self, call: pg_sys::FunctionCallInfo) -> Datum {
        // SAFETY: the function is declared to return a set of N OUT parameters of such types; the set goes to the memory
        // of the query.
        unsafe {
            let set: *mut pg_sys::ReturnSetInfo = (*call).resultinfo.cast();
            let materialize = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
            if set.is_null()
                || (*set).type_ != pg_sys::NodeTag::T_ReturnSetInfo
                || (*set).allowedModes as u32 & materialize == 0
            {
                SqlError::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    "set-valued function called in context that cannot accept a set",
                )
                .raise();
            }
            let context = pg_sys::MemoryContextSwitchTo((*(*set).econtext).ecxt_per_query_memory);
            let mut desc = std::ptr::null_mut();
            pg_sys::get_call_result_type(call, std::ptr::null_mut(), &mut desc);
            let store = pg_sys::tuplestore_begin_heap(false, false, pg_sys::work_mem);
            (*set).returnMode = materialize;
            (*set).setResult = store;
            (*set).setDesc = desc;
            pg_sys::MemoryContextSwitchTo(context);
            for row in (0..self.count).map(|i| (self.row)(&self.things, i)) {
                crate::pg::memory::check_for_interrupts();
                let mut nulls = row.map(|value| value.is_none());
                let mut values = row.map(|value| value.unwrap_or_else(Datum::null));
                pg_sys::tuplestore_putvalues(store, desc, values.as_mut_ptr(), nulls.as_mut_ptr());
            }
            (*call).isnull = true;
            Datum::null()
        }
    }
}

pg_function! {
    /// `ivflsh_lists(index regclass)`
    fn ivflsh_lists(call @ FunctionCallInfo, index: Index) -> Table<walk::Structure, 9> {
        let opened = Opened::lists(index.0, Asks::trust(call))?;
        let read = || walk::Structure::read(opened.index, maintenance_memory(), &mut |_| ());
        let structure = walk::at_rest(opened.index, read);
        let row = |structure: &walk::Structure, i: usize| {
            let list = &structure.lists[i];
            [
                Some(Datum::from(i64::from(list.id))),
                list.named.map(|named| Datum::from(i64::from(structure.lists[named.parent as usize].id))),
                Some(Datum::from(i32::from(list.level))),
                Some(Datum::from(i64::from(list.head))),
                Some(Datum::from(list.entries as i64)),
                Some(Datum::from((list.slots - list.entries) as i64)),
                Some(Datum::from(i64::from(list.pages))),
                list.named.map(|named| Datum::from(f64::from(named.child.radius).to_bits())),
                Some(Datum::from(list.closed)),
            ]
        };
        Ok(Table { count: structure.lists.len(), things: structure, row })
    }
}

pg_function! {
    /// `ivflsh_check(index regclass, heapallindexed boolean)`
    fn ivflsh_check(call @ FunctionCallInfo, index: Index, heapallindexed: bool) -> Row<6> {
        let opened = Opened::new(index.0, Asks::trust(call))?;
        // Expressions and predicates are computed.
        let _owner = AsOwner::of(opened.heap);
        let report = check::check(opened.heap, opened.index, heapallindexed);
        let check::Report { lists, entries, rows, pages, free_pages, leaked_pages } = report;
        Ok(Row([lists, entries, rows, pages, free_pages, leaked_pages].map(|n| n as i64)))
    }
}

/// Blocks that the operating system is asked for ahead of the one that is read.
const READ_AHEAD: u32 = 64;

pg_function! {
    /// `ivflsh_prewarm(index regclass)`
    fn ivflsh_prewarm(index: Index) -> i64 {
        let opened = Opened::new(index.0, Asks::Select)?;
        let blocks = storage::blocks(opened.index);
        (0..blocks.min(READ_AHEAD)).for_each(|block| storage::read_ahead(opened.index, block));
        for block in 0..blocks {
            crate::pg::memory::check_for_interrupts();
            if block + READ_AHEAD < blocks {
                storage::read_ahead(opened.index, block + READ_AHEAD);
            }
            storage::load(opened.index, block);
        }
        Ok(i64::from(blocks))
    }
}

pg_function! {
    /// `ivflsh_last_scan()`
    fn ivflsh_last_scan() -> Row<5> {
        let work = search::last_work();
        Ok(Row([work.lists, work.entries, work.refined, work.returned, work.rechecked].map(|n| n as i64)))
    }
}
