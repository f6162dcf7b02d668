//! The plan node at work.

use super::Strategy;
use super::collect::{Collector, Match, Nearby};
use super::conditions::Conditions;
use super::cost::{CHANCE, Model, WORTH};
use super::distance::{Comparison, Form};
use super::explain;
use super::path::{CUSTOM_NAME, UNKNOWN_LIMIT};
use super::plan::{self, Facts, nodes};
use super::rows::{NULL, Row, Rows};
use super::tids::{TidList, TidSet};
use crate::index::filter::columns::Columns;
use crate::index::options::{self, IterativeScan};
use crate::index::page::ItemPointer as _;
use crate::index::page::{self, Tid};
use crate::index::pgvector;
use crate::index::read::info::Info;
use crate::index::read::rows::{self, Judge};
use crate::index::scan;
use crate::index::search::returned::Returned;
use crate::index::search::{Found, Next, Search, Work};
use crate::index::storage::pages;
use crate::pg::compat;
use ann::memory;
use pgrx::PgMemoryContexts;
use pgrx::prelude::*;
use std::collections::VecDeque;
use std::rc::Rc;

/// Rows collected at a time when the planner knows no LIMIT.
const MOST_UNKNOWN: f64 = 1000.0;
/// Rows looked at between thoughts about another strategy.
const RETHINK: u64 = 64;

/// PostgreSQL's state of the node, and ours.
#[repr(C)]
pub struct NodeState {
    css: pg_sys::CustomScanState,
    execution: *mut Execution,
}

/// Tables of callbacks hold C strings and functions only.
struct Methods(pg_sys::CustomExecMethods);
// SAFETY: never changed.
unsafe impl Sync for Methods {}

static EXEC_METHODS: Methods = Methods(pg_sys::CustomExecMethods {
    CustomName: CUSTOM_NAME.as_ptr(),
    BeginCustomScan: Some(begin),
    ExecCustomScan: Some(execute),
    EndCustomScan: Some(end),
    ReScanCustomScan: Some(rescan),
    MarkPosCustomScan: None,
    RestrPosCustomScan: None,
    EstimateDSMCustomScan: None,
    InitializeDSMCustomScan: None,
    ReInitializeDSMCustomScan: None,
    InitializeWorkerCustomScan: None,
    ShutdownCustomScan: None,
    ExplainCustomScan: Some(explain::explain),
});

/// `CreateCustomScanState`
#[pg_guard]
pub unsafe extern "C-unwind" fn create_state(_scan: *mut pg_sys::CustomScan) -> *mut pg_sys::Node {
    // SAFETY: a zeroed struct that begins as PostgreSQL demands.
    unsafe {
        let state: *mut NodeState = pg_sys::palloc0(size_of::<NodeState>()).cast();
        (*state).css.ss.ps.type_ = pg_sys::NodeTag::T_CustomScanState;
        (*state).css.methods = &EXEC_METHODS.0;
        state.cast()
    }
}

/// The execution of a node that has begun.
///
/// # Safety
/// `node` is a node of ours.
pub unsafe fn execution<'e>(node: *mut pg_sys::CustomScanState) -> &'e mut Execution {
    // SAFETY: by contract: set by `begin`, and lives as long as the node.
    unsafe { &mut *(*node.cast::<NodeState>()).execution }
}

/// Tells a node of ours, before it runs, how many rows the LIMIT right above it takes, and how many before these it leaves out.
///
/// # Safety
/// `node` is a custom scan's state that has been initialised.
pub unsafe fn expect(node: *mut pg_sys::CustomScanState, rows: usize, offset: usize) {
    // SAFETY: by contract; nodes of others have other methods.
    unsafe {
        if std::ptr::eq((*node).methods, &EXEC_METHODS.0) && rows > 0 {
            let execution = execution(node);
            (execution.facts.limit, execution.offset) = (Some(rows as f64), offset);
        }
    }
}

/// Tells a node of ours, before it runs, that all of its rows will be asked for.
///
/// # Safety
/// As [`expect`].
pub unsafe fn expect_all(node: *mut pg_sys::CustomScanState) {
    // SAFETY: by contract; nodes of others have other methods.
    unsafe {
        if std::ptr::eq((*node).methods, &EXEC_METHODS.0) {
            execution(node).all = true;
        }
    }
}

/// `BeginCustomScan`
#[pg_guard]
unsafe extern "C-unwind" fn begin(
    node: *mut pg_sys::CustomScanState,
    estate: *mut pg_sys::EState,
    flags: std::ffi::c_int,
) {
    // SAFETY: PostgreSQL's arguments.
    unsafe {
        let css = &mut *node;
        let plan: *mut pg_sys::CustomScan = css.ss.ps.plan.cast();
        let plan::Unpacked { facts, expressions, places: ranges, forms, .. } = plan::unpack(plan);
        let table = css.ss.ss_currentRelation;
        // PostgreSQL has made ready for virtual tuples; rows come as the table stores them.
        pg_sys::ExecInitScanTupleSlot(estate, &mut css.ss, (*table).rd_att, pg_sys::table_slot_callbacks(table));
        pg_sys::ExecAssignScanProjectionInfo(&mut css.ss);
        // The WHERE clause is checked here, before a row is collected, not again when it is returned.
        css.ss.ps.qual = std::ptr::null_mut();
        let parent: *mut pg_sys::PlanState = &raw mut css.ss.ps;
        let quals = nodes::<pg_sys::Expr>(expressions.all);
        let others = quals.iter().enumerate().filter(|(i, _)| !ranges.contains(i)).map(|(_, qual)| *qual);
        let qual_in_range = plan::list_of(&others.collect::<Vec<_>>());
        let qual = expressions.all;
        let init = |expression| pg_sys::ExecInitExpr(expression, parent);
        let bitmap =
            nodes::<pg_sys::Plan>((*plan).custom_plans).first().map(|plan| pg_sys::ExecInitNode(*plan, estate, flags));
        if let Some(bitmap) = bitmap {
            css.custom_ps = pg_sys::lappend(css.custom_ps, bitmap.cast());
        }
        let qual = pg_sys::ExecInitQual(qual, parent);
        let rows = Rows {
            scan: std::ptr::null_mut(),
            slot: css.ss.ss_ScanTupleSlot,
            context: css.ss.ps.ps_ExprContext,
            qual,
            qual_in_range: if ranges.is_empty() { qual } else { pg_sys::ExecInitQual(qual_in_range, parent) },
            distance: init(expressions.distance),
            nan: if facts.nan_first { -f64::NAN } else { f64::NAN },
            null: if facts.nulls_first { -NULL } else { NULL },
        };
        let radii = expressions.radii.iter().zip(&expressions.queries).zip(forms);
        let radii = radii.map(|((&value, &query), (comparison, form))| Radius {
            value: init(value),
            query: (!pg_sys::equal(query.cast(), expressions.query.cast())).then(|| init(query)),
            comparison,
            form,
        });
        let radii = radii.collect();
        let qual_in_range = rows.qual_in_range;
        let execution = Execution {
            node,
            facts,
            expressions: Compiled {
                query: init(expressions.query),
                query_type: pg_sys::exprType(expressions.query.cast()),
                radii,
                qual_in_range,
            },
            conditions: None,
            rows,
            bitmap,
            volatile: pg_sys::contain_volatile_functions(expressions.all.cast()),
            index: std::ptr::null_mut(),
            query: std::ptr::null_mut(),
            model: None,
            found: None,
            offset: 0,
            all: false,
            run: None,
            totals: Totals::default(),
        };
        (*node.cast::<NodeState>()).execution =
            PgMemoryContexts::For((*estate).es_query_cxt).leak_and_drop_on_delete(execution);
    }
}

/// `ExecCustomScan`
#[pg_guard]
unsafe extern "C-unwind" fn execute(node: *mut pg_sys::CustomScanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: PostgreSQL's node.
    unsafe { pg_sys::ExecScan(&mut (*node).ss, Some(next_slot), Some(recheck)) }
}

/// The next row, for ExecScan.
#[pg_guard]
unsafe extern "C-unwind" fn next_slot(node: *mut pg_sys::ScanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: our node, which begins with a ScanState.
    unsafe {
        let execution = execution(node.cast());
        if execution.next() { execution.rows.slot } else { pg_sys::ExecClearTuple(execution.rows.slot) }
    }
}

/// Whether a newer version of a row still matches (READ COMMITTED, after waiting for another transaction).
#[pg_guard]
unsafe extern "C-unwind" fn recheck(node: *mut pg_sys::ScanState, slot: *mut pg_sys::TupleTableSlot) -> bool {
    // SAFETY: our node.
    unsafe {
        let execution = execution(node.cast());
        Rows { slot, ..execution.rows }.check_slot()
    }
}

/// `ReScanCustomScan`
#[pg_guard]
unsafe extern "C-unwind" fn rescan(node: *mut pg_sys::CustomScanState) {
    // SAFETY: our node.
    unsafe {
        let execution = execution(node);
        execution.finish_run();
        if let Some(bitmap) = execution.bitmap {
            let changed = (*node).ss.ps.chgParam;
            if !changed.is_null() {
                pg_sys::UpdateChangedParamSet(bitmap, changed);
            }
            // What it found stays good while the parameters that it depends on stay the same.
            if !(*bitmap).chgParam.is_null() {
                execution.found = None;
            }
        }
        // A pass has evaluated the whole WHERE clause.
        if execution.found_by_pass() {
            execution.found = None;
        }
        pg_sys::ExecScanReScan(&mut (*node).ss);
    }
}

/// `EndCustomScan`
#[pg_guard]
unsafe extern "C-unwind" fn end(node: *mut pg_sys::CustomScanState) {
    // SAFETY: our node.
    unsafe {
        let execution = execution(node);
        execution.finish_run();
        execution.found = None;
        if let Some(bitmap) = execution.bitmap.take() {
            pg_sys::ExecEndNode(bitmap);
        }
        if !execution.rows.scan.is_null() {
            pg_sys::index_endscan(execution.rows.scan);
            pg_sys::index_close(execution.index, pg_sys::NoLock as i32);
            execution.rows.scan = std::ptr::null_mut();
        }
    }
}

struct Compiled {
    query: *mut pg_sys::ExprState,
    query_type: pg_sys::Oid,
    radii: Vec<Radius>,
    /// The WHERE clause without the distance ranges.
    qual_in_range: *mut pg_sys::ExprState,
}

/// A distance range.
struct Radius {
    /// What it compares with.
    value: *mut pg_sys::ExprState,
    /// Its query vector, where that is another expression than the scan's.
    query: Option<*mut pg_sys::ExprState>,
    comparison: Comparison,
    form: Form,
}

/// What all runs of a node have done, for EXPLAIN ANALYZE.
#[derive(Clone, Copy, Default)]
pub struct Totals {
    pub lists: u64,
    pub entries: u64,
    pub refined: u64,
    pub fetched: u64,
    /// Runs that ended with a search inline, one restricted to a bitmap, one by reading all rows of a bitmap, or the table; or
    /// with what a pass over the table had found, instead of a bitmap.
    pub inline: u64,
    pub restricted: u64,
    pub read_all: u64,
    pub restricted_by_pass: u64,
    pub read_all_by_pass: u64,
    pub pass: u64,
    pub range: u64,
}

impl Totals {
    /// Counts a run that ended so; whether a pass over the table had found the rows.
    fn count(&mut self, mode: Mode, by_pass: bool) {
        let runs = match mode {
            Mode::ReadAll if by_pass => &mut self.read_all_by_pass,
            Mode::Inline => &mut self.inline,
            Mode::Restricted => &mut self.restricted,
            Mode::RestrictedByPass => &mut self.restricted_by_pass,
            Mode::ReadAll => &mut self.read_all,
            Mode::Pass => &mut self.pass,
            Mode::Range => &mut self.range,
        };
        *runs += 1;
    }
}

/// A node of a running query.
pub struct Execution {
    node: *mut pg_sys::CustomScanState,
    pub facts: Facts,
    expressions: Compiled,
    conditions: Option<Conditions>,
    rows: Rows,
    bitmap: Option<*mut pg_sys::PlanState>,
    /// The WHERE clause is to be evaluated once for each row.
    volatile: bool,
    index: pg_sys::Relation,
    /// The query vector of the run.
    query: *mut std::ffi::c_void,
    model: Option<Model>,
    /// What the bitmap has found, until its parameters change, or a pass in this run.
    found: Option<Known>,
    /// Rows that an OFFSET leaves out.
    offset: usize,
    /// All rows will be asked for.
    all: bool,
    run: Option<Run>,
    pub totals: Totals,
}

/// Rows that a bitmap, or a pass over the table, has found.
struct Known {
    /// How many.
    rows: f64,
    /// None when they are so many that reading them all would not pay.
    list: Option<Rc<TidList>>,
    set: Option<Rc<TidSet>>,
    by_pass: bool,
}

/// How rows are found just now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// By a search of the index; all candidates are checked.
    Inline,
    /// By a search for what the bitmap has found.
    Restricted,
    /// By a search for what a pass over the table has found.
    RestrictedByPass,
    /// All that the bitmap has found have been read.
    ReadAll,
    /// The distances of all rows of the table that match have been computed.
    Pass,
    /// By going through all lists for the rows within the radius.
    Range,
}

/// The scan with one set of parameters.
struct Run {
    mode: Mode,
    /// ORDER BY NULL: every row, in any order.
    null_query: bool,
    /// Rows beyond are not wanted.
    radius: f64,
    /// Rows to be returned before more are looked for.
    goal: usize,
    returned: usize,
    matches: Collector,
    /// Candidates looked at by this search, and those for which it has been asked.
    looked_at: u64,
    aimed: u64,
    /// Rows fetched and rows that passed, by this search.
    fetched: u64,
    passed: u64,
    /// There are no more rows than those collected.
    exhausted: bool,
    /// That is so because as many rows as wanted had been found within the radius: the search may have missed some.
    cut_short: bool,
    /// Reading all rows had to leave out some that are farther.
    overflowed: bool,
    /// Upper bound of the distance of the row returned last.
    last: f64,
    /// There is a search: reading all rows needs none.
    searches: bool,
    /// The work of its search that is in the totals.
    counted: Work,
    /// Rows returned or kept for the end, when a change of strategy may bring them up again.
    emitted: Returned,
    /// The first rows of a search without conditions, in order.
    first: VecDeque<Match>,
    /// Rows that turned up after farther ones had been returned, by strict order. They come at the end, the nearest last here.
    late: Vec<Match>,
    /// Rows were found whose distance is not a number.
    undefined: bool,
    /// At the end, rows without a distance, the last one first.
    rest: Option<Vec<Match>>,
    /// Such that come before all others, likewise.
    front: Vec<Match>,
    /// The rows behind an OFFSET, in order.
    page: Option<VecDeque<Match>>,
    /// Where rows within the radius come from, when the index is not searched for the nearest.
    range: Option<Range>,
}

/// How rows within a radius are found.
enum Range {
    /// In the lists of the index; those found there and not looked at yet.
    Lists(Vec<Found>),
    /// By reading the table.
    Table(pg_sys::TableScanDesc),
}

impl Mode {
    /// There is no more than what has been collected.
    fn has_read_all(self) -> bool {
        matches!(self, Mode::ReadAll | Mode::Pass | Mode::Range)
    }
}

impl Run {
    /// Room for the nearest rows of a pass over many.
    fn nearby(&mut self) -> Nearby {
        self.matches.clear();
        // SAFETY: a plain setting of the backend, in kB.
        let room = unsafe { pg_sys::work_mem } as usize * 1024 / size_of::<Match>() / 2;
        Nearby::new(room.max(2 * self.goal))
    }

    /// Takes the row in the slot, which passes the WHERE clause but perhaps for its distance ranges.
    /// `strict`: one that is nearer than the last returned has to wait.
    fn offer(&mut self, rows: &Rows, nearby: &mut Nearby, tid: Tid, strict: bool) {
        if self.emitted.contains(&tid) || self.radius < f64::INFINITY && !rows.check_slot() {
            return;
        }
        match rows.distance() {
            None => self.undefined = true,
            Some(distance) if strict && !is_behind(distance, self.last) => {
                self.keep_for_the_end(Match::exact(distance, tid))
            }
            Some(distance) => nearby.offer(Match::exact(distance, tid)),
        }
    }

    fn keep_for_the_end(&mut self, found: Match) {
        self.emitted.insert(found.tid);
        memory::push(&mut self.late, found);
    }

    /// What was nearby is all that there is.
    fn finish_with(&mut self, nearby: Nearby) {
        (self.exhausted, self.overflowed, self.looked_at) = (true, nearby.overflowed, 0);
        for found in nearby.into_rows() {
            self.matches.add(found);
        }
    }
}

impl Execution {
    /// Puts the next row into the slot.
    fn next(&mut self) -> bool {
        if self.run.is_none() && !self.start() {
            return false;
        }
        if self.run.as_ref().unwrap().range.is_some() && !self.facts.ordered {
            return self.next_in_range();
        }
        loop {
            let Some(found) = self.next_of_page() else { return false };
            // The snapshot keeps the version.
            if self.rows.load(found.tid) {
                return true;
            }
        }
    }

    /// The next row to be returned. Which rows come before an OFFSET and which behind it does not depend on the OFFSET: a larger one goes
    /// on from where a smaller one ends. Among the rows behind it are such that turned up late; so these rows are put in order here.
    fn next_of_page(&mut self) -> Option<Match> {
        let (offset, limit) = (self.offset, self.first_goal());
        let run = self.run.as_mut().unwrap();
        if offset == 0 || !self.facts.ordered || run.null_query {
            return self.next_row();
        }
        if let Some(found) = run.page.as_mut().and_then(VecDeque::pop_front) {
            return Some(found);
        }
        if run.returned < offset || run.page.is_some() {
            return self.next_row();
        }
        let mut page = Vec::new();
        while page.len() < limit
            && let Some(found) = self.next_row()
        {
            let exact = found.exact || !self.rows.load(found.tid);
            let row = if exact { found } else { self.rows.matched(found.tid) };
            memory::push(&mut page, row);
        }
        page.sort_unstable_by(Match::order);
        let mut page = VecDeque::from(page);
        let first = page.pop_front();
        self.run.as_mut().unwrap().page = Some(page);
        first
    }

    /// The next row as they are found.
    fn next_row(&mut self) -> Option<Match> {
        if let Some(found) = self.run.as_mut().unwrap().front.pop() {
            self.run.as_mut().unwrap().returned += 1;
            return Some(found);
        }
        let found = self.next_match()?;
        let run = self.run.as_mut().unwrap();
        run.returned += 1;
        run.last = run.last.max(found.upper);
        run.emitted.insert(found.tid);
        Some(found)
    }

    /// Whether a row that turns up after farther ones has to wait until the end.
    fn is_strict(&self) -> bool {
        self.offset == 0 && pgvector::iterative_scan(self.index) == IterativeScan::strict_order
    }

    /// The next row in order.
    fn next_match(&mut self) -> Option<Match> {
        let strict = self.is_strict();
        loop {
            let run = self.run.as_mut().unwrap();
            if let Some(found) = run.first.pop_front() {
                return Some(found);
            }
            if run.returned >= run.goal && !run.exhausted {
                self.grow();
                continue;
            }
            let Some((mut found, next)) = run.matches.take() else {
                if run.overflowed {
                    self.read_all_again();
                } else if std::mem::take(&mut run.cut_short) {
                    // More are wanted than the LIMIT let expect, as by a join above that discards some.
                    self.complete_range();
                } else if run.exhausted {
                    return self.next_left_over();
                } else {
                    self.grow();
                }
                continue;
            };
            if run.null_query {
                return Some(found);
            }
            if found.lower.is_nan() && found.lower.is_sign_positive() && !run.exhausted {
                // All others come before it.
                run.matches.put_back(found);
                let goal = run.goal.saturating_mul(2);
                self.settle(goal);
                continue;
            }
            let behind = is_behind(found.lower, run.last);
            let certain = found.exact || behind && found.upper < next;
            if self.facts.ordered && !certain {
                if !self.rows.load(found.tid) {
                    continue;
                }
                let run = self.run.as_mut().unwrap();
                match self.rows.distance() {
                    Some(distance) => found = Match::exact(distance, found.tid),
                    None => {
                        run.undefined = true;
                        continue;
                    }
                }
                run.matches.put_back(found);
                continue;
            }
            if !behind && self.facts.ordered && strict {
                run.keep_for_the_end(found);
                continue;
            }
            return Some(found);
        }
    }

    /// When the search has come to its end: rows that turned up too late for the order, then those whose distance is not a number, then
    /// those without one.
    fn next_left_over(&mut self) -> Option<Match> {
        let run = self.run.as_mut().unwrap();
        if run.rest.is_none() {
            run.late.sort_unstable_by(|a, b| b.order(a));
            let rest = self.without_distance();
            self.run.as_mut().unwrap().rest = Some(rest);
        }
        let run = self.run.as_mut().unwrap();
        run.late.pop().or_else(|| run.rest.as_mut().and_then(Vec::pop))
    }

    /// Rows that match and have no distance, or none that is a number: the index does not lead to them, or does not tell. The last one first.
    fn without_distance(&mut self) -> Vec<Match> {
        let run = self.run.as_ref().unwrap();
        if !self.facts.ordered || run.radius < f64::INFINITY || !run.undefined && !self.leaves_out() {
            return Vec::new();
        }
        self.find_undefined()
    }

    /// Finds these rows, the last one first.
    fn find_undefined(&mut self) -> Vec<Match> {
        self.count_work();
        if self.bitmap.is_some() && self.found.is_none() {
            self.find_by_bitmap();
        }
        let (rows, run) = (self.rows, self.run.as_ref().unwrap());
        let mut found = Vec::new();
        let mut add = || {
            // SAFETY: a row of the table is in the slot.
            let tid = unsafe { slot_tid(&rows) };
            if !run.emitted.contains(&tid) {
                let row = rows.matched(tid);
                if run.null_query || row.lower.is_nan() {
                    memory::push(&mut found, row);
                }
            }
        };
        match self.found.as_ref().filter(|found| !found.by_pass).and_then(|found| found.list.clone()) {
            Some(list) => {
                for (i, tid) in list.iter().enumerate() {
                    if i % 256 == 0 {
                        crate::pg::memory::check_for_interrupts();
                    }
                    if matches!(rows.check(tid, false), Row::Passed(_)) {
                        add();
                    }
                }
            }
            None => {
                rows.all(add);
            }
        }
        found.sort_unstable_by(|a, b| b.order(a));
        found
    }

    /// Finds the rows without a distance, or with none that is a number, if there may be some and such are to come first.
    fn begin_with_undefined(&mut self) {
        let facts = self.facts;
        if !(facts.nan_first || facts.nulls_first) || self.run.as_ref().unwrap().radius < f64::INFINITY {
            return;
        }
        let left_out = Info::of(pages(self.index)).meta.left_out;
        let nulls = facts.nulls_first && !facts.has_vector && left_out & page::LEFT_OUT_NULL != 0;
        let nans = facts.nan_first && (left_out & page::LEFT_OUT_NOWHERE != 0 || !self.search().is_usual());
        if !(nulls || nans) {
            return;
        }
        let mut front = self.find_undefined();
        front.retain(|row| row.lower.is_sign_negative());
        let run = self.run.as_mut().unwrap();
        for row in &front {
            run.emitted.insert(row.tid);
        }
        run.front = front;
        // The search has not begun.
        self.search_anew();
    }

    /// Whether there may be rows that match and are not in the index.
    fn leaves_out(&self) -> bool {
        let left_out = Info::of(pages(self.index)).meta.left_out;
        left_out & !if self.facts.has_vector { page::LEFT_OUT_NULL } else { 0 } != 0
    }

    /// Looks for more rows than those returned.
    fn grow(&mut self) {
        let run = self.run.as_mut().unwrap();
        let goal = run.goal.saturating_mul(if self.offset > 0 { PAGES_GROWTH } else { 2 });
        if !run.searches && !run.mode.has_read_all() {
            run.goal = goal;
            self.search_anew();
            self.begin_search();
        }
        self.settle(goal);
    }

    /// Starts a run: evaluates the query, looks for the first rows. False when there can be none.
    fn start(&mut self) -> bool {
        // SAFETY: the node is running; expressions are its own.
        unsafe {
            let css = &mut *self.node;
            if self.rows.scan.is_null() {
                self.open();
            }
            let context = css.ss.ps.ps_ExprContext;
            // Values live as long as the scan key that holds them: until the next rescan.
            let mut query_null = false;
            let query = pg_sys::ExecEvalExprSwitchContext(self.expressions.query, context, &mut query_null);
            let query = self.keep_query(query, query_null);
            let mut key = pg_sys::ScanKeyData::default();
            let flags = pg_sys::SK_ORDER_BY | if query_null { pg_sys::SK_ISNULL } else { 0 };
            key.sk_flags = flags as i32;
            key.sk_attno = 1;
            key.sk_strategy = 1;
            key.sk_subtype = self.expressions.query_type;
            key.sk_argument = query;
            if let Some(conditions) = &self.conditions {
                scan::restrict_by(self.rows.scan, conditions.evaluate());
            }
            pg_sys::index_rescan(self.rows.scan, std::ptr::null_mut(), 0, &mut key, 1);
            let Some(radius) = self.radius((!query_null).then_some(query)) else { return false };
            let k = self.first_goal();
            self.run = Some(Run {
                mode: Mode::Inline,
                null_query: query_null,
                radius,
                goal: 0,
                returned: 0,
                matches: Collector::default(),
                looked_at: 0,
                aimed: 0,
                fetched: 0,
                passed: 0,
                exhausted: false,
                cut_short: false,
                overflowed: false,
                last: f64::NEG_INFINITY,
                searches: false,
                counted: Work::default(),
                emitted: Returned::default(),
                first: VecDeque::new(),
                late: Vec::new(),
                undefined: false,
                rest: None,
                page: None,
                front: Vec::new(),
                range: None,
            });
            if !query_null {
                self.begin_with_undefined();
            }
            let run = self.run.as_ref().unwrap();
            let plain =
                run.front.is_empty() && self.rows.qual.is_null() && self.facts.ordered && self.facts.limit.is_some();
            let in_range = !self.expressions.radii.is_empty() && radius < f64::INFINITY;
            if !in_range && !self.facts.ordered {
                // Rows that are not in the index may pass, too.
                self.begin_table();
            } else if in_range
                && self.facts.strategy != Strategy::Bitmap
                && (self.all || self.facts.limit.is_none() || !self.facts.ordered)
            {
                self.begin_range(false);
                if self.facts.ordered {
                    self.take_range();
                }
            } else if self.all && self.facts.ordered && !query_null {
                self.take_all();
            } else if self.facts.strategy == Strategy::Bitmap {
                self.use_bitmap();
                self.settle(k);
            } else if plain && !query_null {
                self.first_rows(k);
            } else {
                self.begin_search();
                self.settle(k);
            }
        }
        true
    }

    /// The radius within which all rows are that match, infinite where none is known; None where no row can match. `query`: the scan's.
    /// Has the ranges be evaluated for each row where it does not stand for all of them.
    unsafe fn radius(&mut self, query: Option<pg_sys::Datum>) -> Option<f64> {
        let (mut radius, mut stands_for_all) = (f64::INFINITY, true);
        // SAFETY: the node is running; expressions are its own.
        unsafe {
            let context = (*self.node).ss.ps.ps_ExprContext;
            let mut null = false;
            for range in &self.expressions.radii {
                let value = pg_sys::ExecEvalExprSwitchContext(range.value, context, &mut null);
                let value = f64::from_bits(value.value() as u64);
                if null {
                    return None;
                }
                if let Some(of_range) = range.query {
                    let of_range = pg_sys::ExecEvalExprSwitchContext(of_range, context, &mut null);
                    if null {
                        return None;
                    }
                    if query.is_none_or(|query| !is_same_value(query, of_range)) {
                        stands_for_all = false;
                        continue;
                    }
                }
                // No distance from NULL is within anything.
                query?;
                // Rows whose distance is not a number are not in the index, or anywhere there.
                let nan_passes = range.comparison.lets_nan_pass(value);
                if nan_passes
                    && (Info::of(pages(self.index)).meta.left_out & page::LEFT_OUT_NOWHERE != 0
                        || !self.search().is_usual())
                {
                    stands_for_all = false;
                    continue;
                }
                let reach = range.comparison.reach(&range.form, value);
                if reach == f64::NEG_INFINITY && !nan_passes && range.form.is_positive() {
                    return None;
                }
                radius = radius.min(reach);
            }
        }
        let in_range = self.expressions.qual_in_range;
        self.rows.qual_in_range = if stands_for_all && radius < f64::INFINITY { in_range } else { self.rows.qual };
        Some(radius)
    }

    /// Prepares to read the table, in its order.
    fn begin_table(&mut self) {
        let scan = self.rows.begin_all();
        let run = self.run.as_mut().unwrap();
        run.mode = Mode::Pass;
        run.range = Some(Range::Table(scan));
    }

    /// Copies the query to where it lives as long as the run.
    unsafe fn keep_query(&mut self, query: pg_sys::Datum, null: bool) -> pg_sys::Datum {
        // SAFETY: a varlena; the copy before is ours.
        unsafe {
            if !self.query.is_null() {
                pg_sys::pfree(self.query);
                self.query = std::ptr::null_mut();
            }
            if null {
                return query;
            }
            let estate = (*self.node).ss.ps.state;
            let copy = PgMemoryContexts::For((*estate).es_query_cxt)
                .switch_to(|_| pg_sys::pg_detoast_datum_copy(query.cast_mut_ptr()));
            self.query = copy.cast();
            pg_sys::Datum::from(copy)
        }
    }

    /// Opens the index.
    unsafe fn open(&mut self) {
        // SAFETY: the table is open and locked; the index is locked as an index scan does.
        unsafe {
            let css = &mut *self.node;
            let estate = css.ss.ps.state;
            let plan: *mut pg_sys::CustomScan = css.ss.ps.plan.cast();
            let lock = (*pg_sys::exec_rt_fetch((*plan).scan.scanrelid, estate)).rellockmode;
            self.index = pg_sys::index_open(self.facts.index, lock);
            let info = Info::of(pages(self.index));
            self.model =
                Some(Model::new(&info, pgvector::target_recall(self.index), self.facts.rows, self.facts.toasted));
            let (table, snapshot) = (css.ss.ss_currentRelation, (*estate).es_snapshot);
            let plan::Unpacked { expressions, condition, .. } = plan::unpack(plan);
            PgMemoryContexts::For((*estate).es_query_cxt).switch_to(|_| {
                if let Some(condition) = condition {
                    let columns = Columns::of_meta(self.index, &info.meta);
                    let parent = &raw mut (*self.node).ss.ps;
                    self.conditions = Some(Conditions::new(parent, columns, condition, &expressions.constants));
                }
                #[cfg(not(feature = "pg18"))]
                {
                    self.rows.scan = pg_sys::index_beginscan(table, self.index, snapshot, 0, 1);
                }
                #[cfg(feature = "pg18")]
                {
                    self.rows.scan = pg_sys::index_beginscan(table, self.index, snapshot, std::ptr::null_mut(), 0, 1);
                }
                if !rows::is_column(self.index) {
                    scan::judge_by(self.rows.scan, Judge::new(self.rows.distance, estate));
                }
            });
        }
    }

    /// Rows to be collected first.
    fn first_goal(&self) -> usize {
        let in_range = self.facts.in_range.map(|n| (n * self.facts.share).max(UNKNOWN_LIMIT));
        let goal = match (self.facts.limit, in_range) {
            (Some(limit), Some(n)) => limit.min(n.max(MOST_UNKNOWN)),
            (Some(limit), None) => limit,
            (None, Some(n)) => n.max(MOST_UNKNOWN),
            (None, None) => UNKNOWN_LIMIT,
        };
        goal.clamp(1.0, 1e9) as usize
    }

    #[allow(clippy::mut_from_ref, reason = "the search belongs to the scan; see SAFETY")]
    fn search<'s>(&self) -> &'s mut Search {
        // SAFETY: the scan has been rescanned by `start`; the search is used by one at a time. Reading the query may detoast
        // it: in memory that goes with the next row.
        unsafe {
            let memory = (*self.rows.context).ecxt_per_tuple_memory;
            PgMemoryContexts::For(memory).switch_to(|_| scan::driven_search(self.rows.scan))
        }
    }

    fn model(&self) -> Model {
        self.model.expect("open")
    }

    /// Prepares to find the rows within the radius, all of them: in the lists of the index, or by reading the table if that is expected to be
    /// quicker. `likely`: see [`Search::go_through`].
    fn begin_range(&mut self, likely: bool) {
        let (model, qual) = (self.model(), self.facts.qual_micros);
        let run = self.run.as_mut().unwrap();
        run.searches = true;
        let radius = run.radius;
        let search = self.search();
        search.go_through(radius, likely);
        let within = search.share_within() * self.facts.rows;
        let forced = options::vector_scan_strategy().is_some();
        let by_lists = likely || forced || model.through(within, qual) <= model.table(qual);
        let range = if by_lists { Range::Lists(Vec::new()) } else { Range::Table(self.rows.begin_all()) };
        let run = self.run.as_mut().unwrap();
        run.mode = if by_lists { Mode::Range } else { Mode::Pass };
        run.range = Some(range);
    }

    /// Puts the next row within the radius into the slot, in no order.
    fn next_in_range(&mut self) -> bool {
        loop {
            let run = self.run.as_mut().unwrap();
            match run.range.as_mut().expect("a range") {
                Range::Table(scan) => {
                    let (mut seen, mut removed) = (0, 0);
                    let found = self.rows.next_of_all(*scan, &mut seen, &mut removed);
                    run.fetched += seen;
                    self.count_removed(removed);
                    return found;
                }
                Range::Lists(found) => {
                    let Some(row) = found.pop() else {
                        let mut found = std::mem::take(found);
                        let more = self.search().next_within(&mut found);
                        // In the order of the table: neighbours share pages.
                        found.sort_unstable_by_key(|row| std::cmp::Reverse(row.tid));
                        self.run.as_mut().unwrap().range = Some(Range::Lists(found));
                        if !more {
                            return false;
                        }
                        continue;
                    };
                    run.fetched += 1;
                    match self.rows.check(row.tid, row.upper < run.radius) {
                        Row::Passed(tid) if run.emitted.insert(tid) => return true,
                        Row::Removed => self.count_removed(1),
                        _ => {}
                    }
                }
            }
        }
    }

    /// Collects all rows within the radius.
    fn take_range(&mut self) {
        while self.next_in_range() {
            // SAFETY: a row of the table is in the slot.
            let tid = unsafe { slot_tid(&self.rows) };
            let found = self.rows.matched(tid);
            self.run.as_mut().unwrap().matches.add(found);
        }
        let run = self.run.as_mut().unwrap();
        (run.exhausted, run.goal) = (true, UNKNOWN_LIMIT as usize);
    }

    /// Fewer rows than wanted have been found within the radius: looks at all lists.
    fn complete_range(&mut self) {
        self.search_anew();
        self.run.as_mut().unwrap().matches.clear();
        self.begin_range(true);
        self.take_range();
    }

    /// All rows that match, in order.
    fn take_all(&mut self) {
        let (model, facts) = (self.model(), self.facts);
        let run = self.run.as_mut().unwrap();
        run.goal = UNKNOWN_LIMIT as usize;
        let rest = (facts.share * facts.rows / facts.matching.max(1.0)).min(1.0);
        let by_bitmap = facts.bitmap_micros + model.read_all(facts.matching, rest, facts.qual_micros).micros;
        if self.bitmap.is_some() && by_bitmap < facts.pass_micros {
            self.find_by_bitmap();
            self.read_all();
        } else {
            self.pass(true);
        }
    }

    /// The first `k` rows of a search without conditions: just those that a plain scan of the index would give, which the pages of the
    /// same order may have begun with. So this does what PostgreSQL's node for index scans does (`IndexNextWithReorder`), with
    /// its queue, on which the order of equal distances depends.
    fn first_rows(&mut self, k: usize) {
        self.run.as_mut().unwrap().goal = k;
        let search = self.search();
        search.expect(k);
        let mut queue = Queue::new();
        let mut first = VecDeque::new();
        let mut bound = f64::NEG_INFINITY;
        let (mut ended, mut fetched) = (false, 0);
        while first.len() < k {
            if let Some(nearest) = queue.first() {
                if ended || !is_above(nearest, bound) {
                    first.push_back(queue.pop());
                    continue;
                }
            } else if ended {
                break;
            }
            let Some(row) = search.next_row() else {
                ended = true;
                continue;
            };
            fetched += 1;
            let Row::Passed(tid) = self.rows.check(row.tid, true) else { continue };
            bound = search.query.operator.order_value(row.bound, search.query.underflow);
            let distance = if row.placed { Some(bound) } else { self.rows.distance() };
            let Some(distance) = distance else {
                self.run.as_mut().unwrap().undefined = true;
                continue;
            };
            let found = Match { lower: distance, upper: distance, exact: !row.placed, tid };
            if distance != bound || queue.first().is_some_and(|nearest| is_above(distance, nearest)) {
                queue.push(found);
            } else {
                first.push_back(found);
            }
        }
        let run = self.run.as_mut().unwrap();
        (run.first, run.fetched, run.searches) = (first, fetched, true);
        self.count_work();
        self.run.as_mut().unwrap().searches = false;
    }

    /// Makes room for another search.
    fn search_anew(&mut self) {
        self.count_work();
        // SAFETY: the same keys as before: the query has been copied into them.
        unsafe {
            let key = (*self.rows.scan).orderByData;
            pg_sys::index_rescan(self.rows.scan, std::ptr::null_mut(), 0, key, 1);
        }
        self.run.as_mut().unwrap().counted = Work::default();
    }

    /// Starts a new search.
    fn begin_search(&mut self) {
        // Of all rows those that the search is restricted to, and of these those that match.
        let (restricted, share) = match self.run.as_ref().unwrap().mode {
            Mode::Restricted => {
                (self.matching() / self.facts.rows, self.facts.share * self.facts.rows / self.matching())
            }
            Mode::RestrictedByPass => (self.matching() / self.facts.rows, 1.0),
            _ => (self.facts.index_share, self.facts.share / self.facts.index_share),
        };
        let k = self.first_goal().max(self.run.as_ref().unwrap().goal) as f64;
        let (model, facts, other) = (self.model(), self.facts, self.alternative());
        let search = self.search();
        search.expect_share(restricted);
        let run = self.run.as_mut().unwrap();
        run.searches = true;
        (run.looked_at, run.fetched, run.passed) = (0, 0, 0);
        {
            let mut goal = Model::goal(k / share.clamp(1e-9, 1.0)).min(self.facts.rows.max(1.0)).min(MOST_FIRST);
            // A search that is not expected to pay goes no farther at first than it may.
            if run.mode == Mode::Inline && !run.null_query {
                let cost = |goal| facts.candidates(&model, goal);
                if cost(goal) > WORTH * other {
                    while goal > 2.0 * Model::goal(k) && cost(goal) > CHANCE * other {
                        goal /= 2.0;
                    }
                }
            }
            search.drive_to(goal as usize);
            run.aimed = goal as u64;
        }
    }

    /// Looks for rows until the next ones to be returned, `goal` in all, are certain.
    fn settle(&mut self, goal: usize) {
        let run = self.run.as_mut().unwrap();
        run.goal = goal;
        run.matches.want(goal - run.returned);
        if run.mode.has_read_all() {
            return;
        }
        let mut rethink = RETHINK;
        loop {
            let next = self.search().peek();
            let run = self.run.as_mut().unwrap();
            let reach = run.matches.reach();
            match next {
                Next::End => {
                    run.exhausted = true;
                    return;
                }
                Next::Row(rest) | Next::Farther(rest) if rest > run.radius => {
                    if (run.returned + run.matches.found()) < goal {
                        self.complete_range();
                    } else {
                        (run.exhausted, run.cut_short) = (true, true);
                    }
                    return;
                }
                Next::Row(rest) | Next::Farther(rest) if reach < f64::INFINITY && rest >= reach => return,
                Next::Row(_) if run.looked_at <= run.aimed.saturating_add(run.aimed / 5) => {
                    let Some(found) = self.search().next_found() else { continue };
                    self.look_at(found);
                    rethink -= 1;
                    if rethink == 0 {
                        rethink = RETHINK;
                        if self.rethink() {
                            return;
                        }
                    }
                }
                Next::Row(_) | Next::Farther(_) => {
                    let mode = run.mode;
                    if self.rethink() {
                        return;
                    }
                    if self.run.as_ref().unwrap().mode == mode {
                        self.go_on();
                    }
                }
            }
        }
    }

    /// Has the search go farther, for as many candidates as are needed at the rate at which they have passed so far.
    fn go_on(&mut self) {
        let run = self.run.as_mut().unwrap();
        let missing = (run.goal - run.returned).saturating_sub(run.matches.found()).max(1) as f64;
        let rate = (run.passed as f64 + 1.0) / (run.looked_at as f64 + 1.0);
        let known = run.looked_at.max(run.aimed.min(u64::MAX / 16));
        let goal = Model::goal(run.looked_at as f64 + missing / rate) as u64;
        run.aimed = goal.clamp(known.saturating_mul(2), known.saturating_mul(8));
        let aimed = run.aimed;
        if !self.search().go_on(aimed.min(1 << 40) as usize) {
            // There is nothing farther: the rest is what is at hand.
            self.run.as_mut().unwrap().aimed = u64::MAX;
        }
    }

    /// Checks a candidate, and collects it if it matches.
    fn look_at(&mut self, found: Found) {
        let run = self.run.as_mut().unwrap();
        run.looked_at += 1;
        if found.lower > run.radius {
            return;
        }
        run.fetched += 1;
        match self.rows.check(found.tid, found.upper < run.radius) {
            Row::Invisible => {}
            Row::Dead => self.search().note_dead(),
            Row::Removed => self.count_removed(1),
            Row::Passed(tid) => {
                run.passed += 1;
                if !run.emitted.contains(&tid) {
                    if run.null_query {
                        run.matches.add(Match::exact(0.0, tid));
                    } else if found.upper < f64::INFINITY {
                        run.matches.add(Match { lower: found.lower, upper: found.upper, exact: false, tid });
                    } else if let Some(distance) = self.rows.distance() {
                        run.matches.add(Match::exact(distance, tid));
                    }
                }
            }
        }
    }

    /// Counts rows for "Rows Removed by Filter".
    fn count_removed(&self, rows: u64) {
        // SAFETY: the node is running.
        unsafe {
            if let Some(counters) = (*self.node).ss.ps.instrument.as_mut() {
                counters.nfiltered1 += rows as f64;
            }
        }
    }

    /// Changes the strategy when the one in use has cost more than it was expected to, and not much less than another
    /// would from the beginning. True when the new one has found all rows.
    fn rethink(&mut self) -> bool {
        let (model, facts) = (self.model(), self.facts);
        let run = self.run.as_ref().unwrap();
        // How many rows are in a range nobody knows.
        if run.null_query || run.radius < f64::INFINITY {
            return false;
        }
        let k = run.goal as f64;
        match run.mode {
            Mode::Inline => {
                let spent = model.spent(&self.search().work, run.fetched as f64, false);
                if !self.gives_up(spent) {
                    return false;
                }
                if self.bitmap.is_some() && facts.by_bitmap(&model, k) <= facts.pass_micros {
                    self.use_bitmap();
                } else {
                    self.pass(self.volatile);
                }
                self.run.as_ref().unwrap().mode.has_read_all()
            }
            Mode::Restricted | Mode::RestrictedByPass => {
                let found = self.found.as_ref().filter(|found| found.list.is_some());
                let Some(matching) = found.map(|found| found.rows) else { return false };
                let spent = model.spent(&self.search().work, run.fetched as f64, true);
                let rest = match run.mode {
                    Mode::Restricted => (facts.share * facts.rows / matching.max(1.0)).min(1.0),
                    _ => 1.0,
                };
                let expected = model.restricted(k, matching, rest, facts.qual_micros);
                if spent > budget(expected.micros, model.read_all(matching, rest, facts.qual_micros).micros) {
                    self.read_all();
                    return true;
                }
                false
            }
            Mode::ReadAll | Mode::Pass | Mode::Range => true,
        }
    }

    /// Whether a search inline that has cost so much had better make room for another strategy.
    fn gives_up(&self, spent: f64) -> bool {
        let (other, rest) = (self.alternative(), self.rest());
        spent > CHANCE * other && rest > other || spent > other && rest > other / 2.0
    }

    /// What the best strategy but a search inline is expected to cost.
    fn alternative(&self) -> f64 {
        let (model, facts) = (self.model(), &self.facts);
        let k = self.run.as_ref().map_or(0, |run| run.goal).max(self.first_goal()) as f64;
        if self.bitmap.is_some() { facts.by_bitmap(&model, k).min(facts.pass_micros) } else { facts.pass_micros }
    }

    /// What the search inline is expected to cost yet, at the rate at which rows have passed, and were expected to pass.
    fn rest(&self) -> f64 {
        let (model, facts, run) = (self.model(), &self.facts, self.run.as_ref().unwrap());
        let missing = (run.goal - run.returned).saturating_sub(run.matches.found()) as f64;
        let expected = (facts.index_share / facts.share).clamp(1.0, facts.rows.max(1.0));
        let rate = (run.passed as f64 + 1.0) / (run.looked_at as f64 + expected);
        let more = (missing / rate).min(facts.rows);
        let known = run.aimed as f64 * 1.2;
        let farther = run.looked_at as f64 + more;
        let again = if farther > known { facts.candidates(&model, farther.max(2.0 * run.aimed as f64)) } else { 0.0 };
        more * model.candidate(facts.qual_micros) + again
    }

    /// Rows that the bitmap has found, or is expected to.
    fn matching(&self) -> f64 {
        self.found.as_ref().map_or(self.facts.matching, |found| found.rows).max(1.0)
    }

    /// Has the other indexes find the rows, unless they have; then searches among these, or reads them all if they are few.
    fn use_bitmap(&mut self) {
        if self.bitmap.is_none() {
            self.begin_search();
            return;
        }
        self.find_by_bitmap();
        let rest = (self.facts.share * self.facts.rows / self.matching()).min(1.0);
        self.search_or_read_all(Mode::Restricted, rest);
    }

    /// Has the other indexes find the rows, unless something has.
    fn find_by_bitmap(&mut self) {
        if let Some(bitmap) = self.bitmap
            && self.found.is_none()
        {
            // SAFETY: a bitmap's plan node, which returns a TIDBitmap.
            let list = unsafe {
                let tids = pg_sys::MultiExecProcNode(bitmap).cast::<pg_sys::TIDBitmap>();
                let list = TidList::read(tids, (self.facts.rows / self.facts.pages.max(1.0)).max(1.0));
                pg_sys::tbm_free(tids);
                list
            };
            self.found = Some(Known { rows: list.rows, list: Some(Rc::new(list)), set: None, by_pass: false });
        }
    }

    /// Goes on with what has been found, of which a share of `rest` passes: reads all, if that costs less than a search.
    fn search_or_read_all(&mut self, mode: Mode, rest: f64) {
        let (model, qual) = (self.model(), self.facts.qual_micros);
        let matching = self.matching();
        let run = self.run.as_ref().unwrap();
        let k = run.goal.max(self.first_goal()) as f64;
        let search = model.restricted(k, matching, rest, qual).micros;
        let all = model.read_all(matching, rest, qual).micros;
        let found = self.found.as_ref().unwrap();
        // A range is to be complete.
        if (all <= search || run.radius < f64::INFINITY) && found.list.is_some() && !run.null_query {
            self.read_all();
        } else {
            self.search_among(mode);
        }
    }

    /// Begins a search for the rows that have been found.
    fn search_among(&mut self, mode: Mode) {
        let pages = self.facts.pages as u32;
        let found = self.found.as_mut().unwrap();
        let list = &found.list;
        let set =
            found.set.get_or_insert_with(|| Rc::new(list.as_ref().expect("a list or a set").to_set(pages))).clone();
        self.search_anew();
        self.search().restrict_rows(Box::new(move |block, slots| set.among(block, slots)));
        let run = self.run.as_mut().unwrap();
        run.mode = mode;
        run.matches.clear();
        run.matches.want(run.goal.saturating_sub(run.returned));
        self.begin_search();
    }

    /// Reads all rows that have been found, and keeps the nearest.
    fn read_all(&mut self) {
        self.count_work();
        let rows = self.rows;
        let list = self.found.as_ref().and_then(|found| found.list.clone()).expect("a list");
        let strict = self.is_strict();
        let run = self.run.as_mut().unwrap();
        run.mode = Mode::ReadAll;
        let mut nearby = run.nearby();
        let mut removed = 0;
        for (i, tid) in list.iter().enumerate() {
            if i % 256 == 0 {
                crate::pg::memory::check_for_interrupts();
            }
            run.fetched += 1;
            match rows.check(tid, false) {
                Row::Passed(tid) => run.offer(&rows, &mut nearby, tid, strict),
                Row::Removed => removed += 1,
                Row::Invisible | Row::Dead => {}
            }
        }
        run.finish_with(nearby);
        self.count_removed(removed);
    }

    /// Reads the whole table for the rows that match. Their distances are computed on the way while they are few; if they
    /// turn out to be many, a search among them finds the nearest. `all`: all distances are computed in any case.
    fn pass(&mut self, all: bool) {
        let (model, facts) = (self.model(), self.facts);
        let k = self.run.as_ref().unwrap().goal as f64;
        let expected = (facts.share * facts.rows).max(1.0);
        // Computing so many distances takes as long as a search.
        let search = model.restricted(k, expected, 1.0, facts.qual_micros).micros;
        let few = (search / (model.distance() + model.read())).max(MIN_FEW);
        let mut at_once = all || expected < 2.0 * few;
        self.count_work();
        let rows = self.rows;
        // SAFETY: the table is open.
        let blocks = unsafe {
            pg_sys::RelationGetNumberOfBlocksInFork((*rows.scan).heapRelation, pg_sys::ForkNumber::MAIN_FORKNUM)
        };
        let mut set = TidSet::for_table(if all { 0 } else { blocks });
        let mut list = Some(TidList::default());
        let mut passed = 0_u64;
        let strict = self.is_strict();
        let run = self.run.as_mut().unwrap();
        run.mode = Mode::Pass;
        let mut nearby = run.nearby();
        let (seen, removed) = rows.all(|| {
            passed += 1;
            // SAFETY: a row of the table is in the slot.
            let (tid, in_index) = unsafe { (Tid::from_item(&(*rows.slot).tts_tid), rows.tid_in_index()) };
            if at_once {
                run.offer(&rows, &mut nearby, tid, strict);
                at_once = all || passed as f64 <= 2.0 * few;
            }
            if all {
                return;
            }
            let offset = in_index.map_or(0, |tid| tid.offset());
            set.insert(tid.block(), offset);
            match &mut list {
                Some(list) if offset > 0 && list.rows <= 2.0 * few => list.push(tid.block(), offset),
                list => *list = None,
            }
        });
        run.fetched += seen;
        self.count_removed(removed);
        if at_once {
            self.run.as_mut().unwrap().finish_with(nearby);
            return;
        }
        let list = list.map(Rc::new);
        self.found = Some(Known { rows: passed as f64, list, set: Some(Rc::new(set)), by_pass: true });
        self.search_or_read_all(Mode::RestrictedByPass, 1.0);
    }

    /// Reads all rows again for those that there was no room for.
    fn read_all_again(&mut self) {
        let run = self.run.as_mut().unwrap();
        run.matches.clear();
        match run.mode {
            Mode::Pass => self.pass(true),
            _ => self.read_all(),
        }
    }

    /// Adds the work of the run so far to the totals.
    fn count_work(&mut self) {
        let Some(run) = &mut self.run else { return };
        self.totals.fetched += std::mem::take(&mut run.fetched);
        if run.searches && (!run.mode.has_read_all() || run.mode == Mode::Range) {
            // SAFETY: the scan is open while there is a run.
            let work = unsafe { scan::driven_search(self.rows.scan).work };
            let counted = std::mem::replace(&mut run.counted, work);
            self.totals.lists += work.lists - counted.lists;
            self.totals.entries += work.entries - counted.entries;
            self.totals.refined += work.refined - counted.refined;
            // SAFETY: open as long as there is a run.
            unsafe { compat::count_index_tuples(self.index, work.returned - counted.returned) };
        }
    }

    /// Ends the run.
    fn finish_run(&mut self) {
        self.count_work();
        if let Some(Run { range: Some(Range::Table(scan)), .. }) = &self.run {
            // SAFETY: begun by this run.
            unsafe { pg_sys::table_endscan(*scan) };
        }
        if let Some(run) = self.run.take() {
            self.totals.count(run.mode, self.found_by_pass());
        }
    }

    /// Totals, with those of the run that is going on.
    pub fn totals(&mut self) -> Totals {
        self.count_work();
        let mut totals = self.totals;
        if let Some(run) = &self.run {
            totals.count(run.mode, self.found_by_pass());
        }
        totals
    }

    /// Whether the rows that have been found were by a pass over the table, not by a bitmap.
    fn found_by_pass(&self) -> bool {
        self.found.as_ref().is_some_and(|found| found.by_pass)
    }

    /// Whether there is a bitmap to fall back to.
    pub fn has_bitmap(&self) -> bool {
        self.bitmap.is_some()
    }
}

/// Whether two values that are not NULL, of one type of variable length, are the same.
///
/// # Safety
/// Such values.
pub unsafe fn is_same_value(a: pg_sys::Datum, b: pg_sys::Datum) -> bool {
    // SAFETY: by contract; copies go with the memory context.
    unsafe {
        let [a, b] = [a, b].map(|value| pg_sys::pg_detoast_datum(value.cast_mut_ptr()));
        pgrx::varlena_to_byte_slice(a) == pgrx::varlena_to_byte_slice(b)
    }
}

/// The TID of the row in the slot.
///
/// # Safety
/// There is one.
unsafe fn slot_tid(rows: &Rows) -> Tid {
    // SAFETY: by contract.
    unsafe { Tid::from_item(&(*rows.slot).tts_tid) }
}

/// Whether one distance comes after another: NaN comes last, or, if it is negative, first (see [`Rows::matched`]).
fn is_above(a: f64, b: f64) -> bool {
    a > b || (a.is_nan() || b.is_nan()) && a.total_cmp(&b).is_gt()
}

/// Rows that wait until none can come that is nearer: PostgreSQL's heap, as its own index scans have it.
struct Queue {
    heap: *mut pg_sys::pairingheap,
    /// They stay where they are.
    #[allow(clippy::vec_box, reason = "the heap points to them")]
    waiting: Vec<Box<Waiting>>,
}

#[repr(C)]
struct Waiting {
    node: pg_sys::pairingheap_node,
    row: Match,
}

impl Queue {
    fn new() -> Queue {
        // SAFETY: allocates in the current memory context.
        let heap = unsafe { pg_sys::pairingheap_allocate(Some(nearer_first), std::ptr::null_mut()) };
        Queue { heap, waiting: Vec::new() }
    }

    fn push(&mut self, row: Match) {
        let mut waiting = Box::new(Waiting { node: pg_sys::pairingheap_node::default(), row });
        // SAFETY: the heap refers to the node, which stays in its place as long as the heap is used.
        unsafe { pg_sys::pairingheap_add(self.heap, &mut waiting.node) };
        memory::push(&mut self.waiting, waiting);
    }

    /// The distance of the nearest.
    fn first(&self) -> Option<f64> {
        // SAFETY: nodes are the beginnings of what `push` has added.
        unsafe {
            let root = (*self.heap).ph_root;
            (!root.is_null()).then(|| (*root.cast::<Waiting>()).row.lower)
        }
    }

    /// Takes the nearest; there is one.
    fn pop(&mut self) -> Match {
        // SAFETY: as in `first`.
        unsafe { (*pg_sys::pairingheap_remove_first(self.heap).cast::<Waiting>()).row }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: made by `new`.
            unsafe { pg_sys::pairingheap_free(self.heap) };
        }
    }
}

/// Compares two nodes of a [`Queue`]: the nearer is the greater.
unsafe extern "C-unwind" fn nearer_first(
    a: *const pg_sys::pairingheap_node,
    b: *const pg_sys::pairingheap_node,
    _arg: *mut std::ffi::c_void,
) -> std::ffi::c_int {
    // SAFETY: nodes of the heap, which are the beginnings of what `push` has added.
    let (a, b) = unsafe { ((*a.cast::<Waiting>()).row.lower, (*b.cast::<Waiting>()).row.lower) };
    i32::from(is_above(b, a)) - i32::from(is_above(a, b))
}

/// The search for the page behind an OFFSET goes on for so many times as many rows as the search before.
const PAGES_GROWTH: usize = 4;
/// Rows of a pass whose distances are computed at least.
const MIN_FEW: f64 = 32.0;
/// Candidates that the first lists are chosen for at most.
const MOST_FIRST: f64 = 20_000.0;

/// Whether a row at a distance comes after one that has been returned at `last`. NaN comes last, or, if it is negative, first.
fn is_behind(distance: f64, last: f64) -> bool {
    distance >= last || distance.is_nan() && distance.is_sign_positive()
}

/// What a restricted search may cost before all rows are read, which is sure to cost `other`.
fn budget(expected: f64, other: f64) -> f64 {
    let chance = CHANCE * other;
    if expected <= WORTH * other { (expected * OVERRUN).clamp(chance, other) } else { chance }
}
const OVERRUN: f64 = 1.3;
