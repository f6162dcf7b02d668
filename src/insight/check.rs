//! `ivflsh_check`: does the index hold what it should?
//!
//! 1. The structure: see [`Structure`].
//! 2. Each list's centroid, as its code gives it, against its sketch and its squared norm.
//! 3. Each row that the snapshot sees against its entry: there is exactly one, its code's bound is not above the true
//!    distance for a few queries, and its sketch is that of the row. An entry whose row is not seen (dead, or too new)
//!    must point to an item of the table.
//!
//! Rows and entries are brought together by TID: entries are sorted by it (externally), the table is read in order.

use super::walk::{Copied, Located, Named, Place, Structure, Wrong, at_rest, ensure};
use crate::index::filter::columns::Columns;
use crate::index::metric::OperatorClass as _;
use crate::index::metric::{Frame, Metric, Operator, Placed};
use crate::index::page::ItemPointer as _;
use crate::index::page::{self, Block, Layout, NO_BLOCK, Owner, Posting, Tid};
use crate::index::storage::pages;
use crate::index::storage::{Buffer, blocks};
use crate::index::terms;
use crate::insight::maintenance_memory;
use crate::pg::compat;
use ann::filter::RowKeys;
use ann::quantize::{self, CodeFactors, SketchFactors, Space};
use ivflsh::read::tree::{Code, CodeReader, List, Query};
use ivflsh::write::encode;
use pgrx::pg_sys::submodules::ffi::pg_guard_ffi_boundary;
use pgrx::prelude::*;

/// What was looked at.
#[derive(Default)]
pub struct Report {
    pub lists: u64,
    /// Live entries.
    pub entries: u64,
    /// Rows of the table compared with their entries.
    pub rows: u64,
    pub pages: u64,
    pub free_pages: u64,
    pub leaked_pages: u64,
}

/// Queries, beside each row itself, that bounds are tried with.
const QUERIES: usize = 3;
/// Rows after which one of these queries is replaced.
const QUERY_LIFE: u64 = 251;
/// Squared norms whose arithmetic stays away from the ends of f32's range.
const USUAL_SQUARES: std::ops::Range<f64> = 1e-25..1e30;

/// Verifies an open index. `rows`: against its table as well.
pub fn check(heap: pg_sys::Relation, index: pg_sys::Relation, rows: bool) -> Report {
    ensure_checkable(index);
    if terms::is_of(index) {
        let snapshot = rows.then(|| Snapshot::new(index));
        return terms::check::check(heap, index, snapshot.as_ref());
    }
    at_rest(index, || {
        // Before the index is read: whatever the snapshot sees has an entry by then.
        let snapshot = Snapshot::new(index);
        run(heap, index, rows.then_some(&snapshot))
    })
}

/// Refuses, as amcheck does, what cannot be right or cannot be read.
fn ensure_checkable(index: pg_sys::Relation) {
    // SAFETY: `index` is open.
    let (unlogged, recovery) = unsafe {
        let unlogged = (*(*index).rd_rel).relpersistence == pg_sys::RELPERSISTENCE_UNLOGGED as std::ffi::c_char;
        (unlogged, pg_sys::RecoveryInProgress())
    };
    if unlogged && recovery {
        let refused = "cannot check the index of an unlogged table during recovery";
        ereport!(ERROR, PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, refused);
    }
}

fn run(heap: pg_sys::Relation, index: pg_sys::Relation, snapshot: Option<&Snapshot>) -> Result<Report, Wrong> {
    // One half for the entries, which are sorted, one for the pages, which are forgotten by the time that rows are looked at.
    let memory = maintenance_memory() / 2;
    let mut entries = snapshot.map(|_| Entries::new(memory));
    let structure = Structure::read(index, memory, &mut |page| {
        if let Some(entries) = &mut entries {
            page.iter().for_each(|&(tid, place)| entries.put(tid, place));
        }
    })?;
    let pages = structure.counts;
    let mut report = Report {
        lists: structure.leaves().count() as u64,
        entries: structure.leaves().map(|list| list.entries).sum(),
        rows: 0,
        pages: u64::from(blocks(index)),
        free_pages: pages.free,
        leaked_pages: pages.leaked,
    };
    let mut checker = Checker::new(index, &structure);
    for at in 0..structure.lists.len() {
        checker.check_centroid(at)?;
    }
    if let (Some(snapshot), Some(entries)) = (snapshot, entries) {
        report.rows = check_rows(heap, index, snapshot, entries, checker)?;
    }
    Ok(report)
}

/// The snapshot whose rows must be in the index; registered while this lives.
pub struct Snapshot(pub pg_sys::Snapshot);

impl Snapshot {
    fn new(index: pg_sys::Relation) -> Snapshot {
        // SAFETY: `index` is open, so its pg_index row is there.
        unsafe {
            let snapshot = Snapshot(pg_sys::RegisterSnapshot(pg_sys::GetTransactionSnapshot()));
            // As in amcheck: a snapshot older than the index can see versions of rows that the index leaves out.
            if pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 && (*(*index).rd_index).indcheckxmin {
                let header = (*(*index).rd_indextuple).t_data;
                let xmin = (*header).t_choice.t_heap.t_xmin;
                let frozen = u32::from((*header).t_infomask) & pg_sys::HEAP_XMIN_FROZEN == pg_sys::HEAP_XMIN_FROZEN;
                if !frozen && !pg_sys::TransactionIdPrecedes(xmin, (*snapshot.0).xmin) {
                    ereport!(
                        ERROR,
                        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
                        "index cannot be verified using transaction snapshot"
                    );
                }
            }
            snapshot
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        // After an ERROR it goes with the transaction.
        if !std::thread::panicking() {
            // SAFETY: registered by `new`.
            unsafe { pg_sys::UnregisterSnapshot(self.0) }
        }
    }
}

/// PostgreSQL's external sort over (TID, place).
struct Entries {
    state: *mut pg_sys::Tuplesortstate,
    input: *mut pg_sys::TupleTableSlot,
    output: *mut pg_sys::TupleTableSlot,
}

impl Entries {
    /// In so many bytes.
    fn new(bytes: usize) -> Entries {
        // SAFETY: a fresh descriptor and slots in the current memory context, that of the function call.
        unsafe {
            let desc = pg_sys::CreateTemplateTupleDesc(2);
            pg_sys::TupleDescInitEntry(desc, 1, c"tid".as_ptr(), pg_sys::INT8OID, -1, 0);
            pg_sys::TupleDescInitEntry(desc, 2, c"place".as_ptr(), pg_sys::INT8OID, -1, 0);
            Entries {
                state: compat::sort_by_int8(desc, (bytes >> 10) as i32),
                input: pg_sys::MakeSingleTupleTableSlot(desc, &raw const pg_sys::TTSOpsVirtual),
                output: pg_sys::MakeSingleTupleTableSlot(desc, &raw const pg_sys::TTSOpsMinimalTuple),
            }
        }
    }

    fn put(&mut self, tid: Tid, place: Place) {
        let pair = |high: u32, low: u16| pg_sys::Datum::from(i64::from(high) << 16 | i64::from(low));
        // SAFETY: the slot has two columns, passed by value.
        unsafe {
            let slot = &mut *self.input;
            let clear = (*slot.tts_ops).clear.expect("a slot has it");
            pg_guard_ffi_boundary(|| clear(slot));
            *slot.tts_values = pair(tid.block(), tid.offset());
            *slot.tts_values.add(1) = pair(place.block, place.slot);
            *slot.tts_isnull = false;
            *slot.tts_isnull.add(1) = false;
            pg_sys::ExecStoreVirtualTuple(slot);
            pg_sys::tuplesort_puttupleslot(self.state, slot);
        }
    }

    fn sort(&mut self) {
        // SAFETY: the sort is in its input phase.
        unsafe { pg_sys::tuplesort_performsort(self.state) }
    }

    fn next(&mut self) -> Option<Located> {
        // SAFETY: the sort has been performed; the columns are not NULL and passed by value.
        unsafe {
            if !pg_sys::tuplesort_gettupleslot(self.state, true, false, self.output, std::ptr::null_mut()) {
                return None;
            }
            pg_sys::slot_getsomeattrs_int(self.output, 2);
            let value = |i: usize| (*(*self.output).tts_values.add(i)).value() as u64;
            let split = |value: u64| ((value >> 16) as u32, value as u16);
            let ((heap_block, offset), (block, slot)) = (split(value(0)), split(value(1)));
            Some((Tid::new(heap_block, offset), Place { block, slot }))
        }
    }
}

impl Drop for Entries {
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

/// An entry as its pages give it.
struct Stored {
    tid: Tid,
    live: bool,
    /// Marked as dead to all.
    dead: bool,
    /// Index of its list in [`Structure::lists`].
    list: usize,
    cell: (u32, u16),
    sketch: SketchFactors,
    /// Of an entry of a list of rows: its filter columns.
    row: RowKeys,
}

/// A vector that bounds are tried with.
struct Probe {
    /// As the user gave it.
    raw: Vec<f32>,
    query: Query,
}

impl Probe {
    fn new(frame: &Frame, raw: &[f32]) -> Probe {
        let mut query = Query::new(frame.operator);
        query.vector.extend_from_slice(raw);
        query.place(frame);
        Probe { raw: raw.to_vec(), query }
    }
}

/// Compares entries with the vectors that they stand for.
struct Checker<'s> {
    index: pg_sys::Relation,
    structure: &'s Structure,
    frame: Frame,
    // Buffers.
    row: Vec<f32>,
    centroid: Vec<f32>,
    nibbles: Vec<u8>,
}

impl<'s> Checker<'s> {
    fn new(index: pg_sys::Relation, structure: &'s Structure) -> Checker<'s> {
        let frame = structure.info.frame(pages(index));
        let nibbles = vec![0; structure.leaf.groups];
        Checker { index, structure, frame, row: Vec::new(), centroid: Vec::new(), nibbles }
    }

    /// Reads an entry; its nibbles go to `self.nibbles`.
    fn read(&mut self, place: Place, layout: &Layout) -> Result<Stored, Wrong> {
        let copied = Copied::of(self.index, place.block);
        let posting = Posting::open(copied.page(), layout, 0).map_err(|damage| Wrong::page(place.block, damage))?;
        let (b, slot) = place.parts();
        let id = posting.opaque.list;
        let list = self.structure.list(id);
        ensure!(list.is_some() && b < posting.blocks(), "Block {} has become part of list {id}.", place.block);
        let block = posting.block(b);
        self.nibbles.resize(layout.groups, 0);
        let inline = layout.inline_groups;
        quantize::nibble_column(block.groups(), slot, &mut self.nibbles[..inline]);
        for i in 0..layout.sketch_pages {
            let (part, number) = (layout.part(i), block.sketch_page(i));
            let buffer = Buffer::read(self.index, number);
            let groups = page::sketch_part(buffer.page(), layout, i, id).map_err(|d| Wrong::page(number, d))?;
            quantize::nibble_column(groups, slot, &mut self.nibbles[part]);
        }
        Ok(Stored {
            tid: block.tid(slot),
            live: block.live() >> slot & 1 == 1,
            dead: block.dead() >> slot & 1 == 1,
            list: list.unwrap_or_default(),
            cell: cell_of(&block, slot),
            sketch: block.sketch(slot),
            row: if layout.inner { RowKeys::default() } else { block.row(slot) },
        })
    }

    /// Cell of a list's centroid. None: the root's, which is zero.
    fn centroid_cell(&self, at: usize) -> Result<Option<(u32, u16)>, Wrong> {
        let Some(Named { place, .. }) = self.structure.lists[at].named else { return Ok(None) };
        let copied = Copied::of(self.index, place.block);
        let layout = &self.structure.inner;
        let posting = Posting::open(copied.page(), layout, 0).map_err(|damage| Wrong::page(place.block, damage))?;
        let (b, slot) = place.parts();
        Ok(Some(cell_of(&posting.block(b), slot)))
    }

    /// Puts the centroid of a list into `self.centroid`.
    fn decode_centroid(&mut self, at: usize) -> Result<(), Wrong> {
        self.centroid.clear();
        self.centroid.resize(self.structure.inner.padded, 0.0);
        if let Some(cell) = self.centroid_cell(at)? {
            let id = self.structure.lists[at].id;
            CodeReader::new(pages(self.index), &self.structure.inner).decode(
                cell,
                Owner::child(id),
                &mut self.centroid,
            )?;
        }
        Ok(())
    }

    /// A list as a search finds it.
    fn list(&self, query: &Query, at: usize) -> Result<List, Wrong> {
        let list = &self.structure.lists[at];
        let (Some(Named { child, .. }), Some(cell)) = (list.named, self.centroid_cell(at)?) else {
            return Ok(query.root(&self.structure.info.meta));
        };
        let code = CodeReader::new(pages(self.index), &self.structure.inner).dot(
            cell,
            Owner::child(list.id),
            &query.vector,
        )?;
        Ok(query.list(&child, &code.factors, code.dot))
    }

    /// Compares the entry of a list in its parent with the centroid that its code stands for.
    fn check_centroid(&mut self, at: usize) -> Result<(), Wrong> {
        crate::pg::memory::check_for_interrupts();
        let list = &self.structure.lists[at];
        let Some(named) = list.named else { return Ok(()) };
        let what = format!("The entry of list {} in block {}", list.id, named.place.block);
        self.decode_centroid(at)?;
        let centroid = std::mem::take(&mut self.centroid);
        let norm2 = square(&centroid);
        if USUAL_SQUARES.contains(&norm2) {
            let stored = f64::from(named.child.norm2);
            ensure!(
                (stored - norm2).abs() <= 1e-3 * norm2,
                "{what} says that its centroid's squared norm is {stored}; it is {norm2}."
            );
        }
        // Of all levels, relative to the origin.
        self.centroid.clear();
        self.centroid.resize(centroid.len(), 0.0);
        let inner = self.structure.inner;
        let stored = self.read(named.place, &inner)?;
        let code = CodeReader::new(pages(self.index), &inner).dot(stored.cell, Owner::child(list.id), &centroid)?;
        self.check_sketch(&what, &stored.sketch, Some(&code.factors), &centroid)
    }

    /// Whether an entry's sketch is that of `x`, up to the code's error: rows that a split could not read were encoded
    /// anew from their code. `self.nibbles` and `self.centroid` are the entry's.
    fn check_sketch(
        &self,
        what: &str,
        sketch: &SketchFactors,
        code: Option<&CodeFactors>,
        x: &[f32],
    ) -> Result<(), Wrong> {
        let second_hand = code.is_none() && encode::is_second_hand(sketch);
        let code = code.copied().unwrap_or_default();
        let all = [sketch.scale, sketch.error, code.constant, code.scale, code.error];
        // Without bounds: a value at the ends of f32's range.
        if sketch.constant.is_nan() || code.error == f32::INFINITY {
            return Ok(());
        }
        ensure!(
            sketch.constant.is_finite()
                && all.iter().all(|f| f.is_finite())
                && sketch.scale >= 0.0
                && code.error >= 0.0,
            "{what} has factors {sketch:?}, {code:?}."
        );
        // Of a row that a split could not read, when nothing but a sketch was known of it.
        if second_hand {
            return Ok(());
        }
        let (mut norm2, mut vr, mut vc, mut v2) = (0.0, 0.0, 0.0, 0.0);
        for ((&x, &c), v) in x.iter().zip(&self.centroid).zip(quantize::sketch_vector(&self.nibbles)) {
            let (r, c, v) = (f64::from(x - c), f64::from(c), f64::from(v));
            norm2 += r * r;
            vr += v * r;
            vc += v * c;
            v2 += v * v;
        }
        if !(norm2 == 0.0 || USUAL_SQUARES.contains(&norm2)) || square(&self.centroid) > USUAL_SQUARES.end {
            return Ok(());
        }
        // By as much the residual that was encoded, up to the code's error from this one, can have other products and squares.
        let error = f64::from(code.error);
        let off = 4.0 * error * (norm2.sqrt() + error);
        let (scale, constant) = (f64::from(sketch.scale), f64::from(sketch.constant));
        let (f, expected) = match self.frame.operator.space() {
            Space::L2 => (scale / 2.0, norm2 + scale * vc),
            Space::InnerProduct => (scale, 0.0),
        };
        ensure!(
            (f * vr - norm2).abs() <= 0.02 * norm2 + off,
            "{what} has a sketch that does not fit: its product with the residual is {}, the residual's square {norm2}.",
            f * vr
        );
        ensure!(
            (constant - expected).abs() <= 0.02 * norm2 + 1e-3 * (scale * vc).abs() + off,
            "{what} has a sketch whose constant is {constant}, not {expected}."
        );
        // Of a code this bad, or without a sketch to speak of, nothing more can be said.
        if vr > 0.0 && f > 0.0 && f64::from(code.error) < 0.05 * norm2.sqrt() {
            let miss = (v2 * norm2 / (vr * vr) - 1.0).max(0.0);
            let unit = (norm2 / (x.len() as f64 - 1.0)).sqrt() * scale / f;
            let (stored, error) = (f64::from(sketch.error), unit * miss.sqrt());
            ensure!(
                (0.5 * error - 0.1 * unit..=2.0 * error + 0.1 * unit).contains(&stored),
                "{what} has a sketch whose deviation is {stored}, not {error}."
            );
        }
        Ok(())
    }

    /// Compares the entry at `place` with its row, by `probes` and the row itself as queries.
    fn check_row(
        &mut self,
        tid: Tid,
        place: Place,
        raw: &[f32],
        keys: &RowKeys,
        probes: &[Probe],
    ) -> Result<(), Wrong> {
        let leaf = self.structure.leaf;
        let stored = self.read(place, &leaf)?;
        let what = format!("The entry of row {} in block {}", shown(tid), place.block);
        ensure!(stored.live && stored.tid == tid, "{what} has gone.");
        // SAFETY: asks for this server's state: on a standby the marks say nothing.
        let heeded = !unsafe { pg_sys::RecoveryInProgress() };
        ensure!(!(stored.dead && heeded), "{what} is marked as that of a dead row.");
        self.check_keys(&what, &stored, keys)?;
        self.decode_centroid(stored.list)?;
        let mut row = std::mem::take(&mut self.row);
        row.clear();
        row.extend_from_slice(raw);
        row.resize(self.frame.padded(), 0.0);
        let placed = self.frame.place(&mut row);
        if leaf.own_bits {
            self.row.clone_from(&row);
            let mut nibbles = vec![0; leaf.groups];
            let factors = self.frame.bits_of(&mut row, &mut nibbles);
            ensure!(nibbles == self.nibbles && factors == stored.sketch, "{what} holds other bits than the row.");
            return Ok(());
        }
        if placed == Placed::Usual {
            let factors = match leaf.bits {
                Some(_) => Some(self.code(&stored, &row)?.factors),
                None => None,
            };
            self.check_sketch(&what, &stored.sketch, factors.as_ref(), &row)?;
        }
        self.row = row;
        if leaf.bits.is_none() {
            return Ok(());
        }
        let own = Probe::new(&self.frame, raw);
        let operator = self.frame.operator;
        for probe in probes.iter().chain([&own]) {
            let list = self.list(&probe.query, stored.list)?;
            let code = self.code(&stored, &probe.query.vector)?;
            let lower = probe.query.lower_bound(&list, &code.factors, code.dot);
            let bound = operator.order_value(lower, probe.query.underflow);
            let distance = operator.distance(&probe.raw, raw);
            ensure!(
                bound <= distance || distance.is_nan(),
                "{what} bounds its distance from another row by {bound}, which is above the true {distance}."
            );
        }
        Ok(())
    }

    /// Compares an entry's filter columns with those of its row, and with the summaries of its list.
    fn check_keys(&self, what: &str, stored: &Stored, keys: &RowKeys) -> Result<(), Wrong> {
        let columns = 0..self.structure.leaf.filters;
        let differs = columns.clone().find(|&i| stored.row.get(i) != keys.get(i));
        ensure!(differs.is_none(), "{what} has another value of filter column {}.", differs.unwrap_or_default() + 2);
        let id = self.structure.lists[stored.list].id;
        if let Some(cell) = self.centroid_cell(stored.list)?
            && !columns.is_empty()
        {
            let summaries = CodeReader::new(pages(self.index), &self.structure.inner).summaries(cell)?;
            let unknown = columns.clone().find(|&i| !summaries[i].knows(keys.get(i)));
            let column = unknown.unwrap_or_default() + 2;
            ensure!(unknown.is_none(), "{what} has a value of filter column {column} that list {id} does not know of.");
        }
        Ok(())
    }

    /// Checks the code of an entry whose row cannot be seen.
    fn check_cell(&mut self, tid: Tid, place: Place) -> Result<(), Wrong> {
        if self.structure.leaf.bits.is_none() {
            return Ok(());
        }
        let leaf = self.structure.leaf;
        let stored = self.read(place, &leaf)?;
        if stored.live && stored.tid == tid {
            let list = &self.structure.lists[stored.list];
            self.row.clear();
            self.row.resize(leaf.padded, 0.0);
            // It may go meanwhile; damage is an ERROR.
            CodeReader::new(pages(self.index), &leaf).of_row(
                stored.cell,
                (list.head, list.id),
                tid,
                |codes, owner| codes.decode(stored.cell, owner, &mut self.row),
            )?;
        }
        Ok(())
    }

    /// The code of an entry, multiplied with `x`.
    fn code(&self, stored: &Stored, x: &[f32]) -> Result<Code, Wrong> {
        let list = self.structure.lists[stored.list].id;
        Ok(CodeReader::new(pages(self.index), &self.structure.leaf).dot(
            stored.cell,
            Owner::row(list, stored.tid),
            x,
        )?)
    }

    /// Whether two entries of one row must not be: both are still there, and no unfinished change explains them, which
    /// has copied entries to a new list and not yet taken all of them out of their old ones.
    fn contradict(&mut self, tid: Tid, one: Place, other: Place) -> Result<bool, Wrong> {
        let leaf = self.structure.leaf;
        for place in [one, other] {
            let stored = self.read(place, &leaf)?;
            let pending = self.structure.info.meta.pending.contains(&self.structure.lists[stored.list].id);
            if pending || !stored.live || stored.tid != tid {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the entry at `place` is still that of `tid`.
    fn is_there(&mut self, tid: Tid, place: Place) -> Result<bool, Wrong> {
        let leaf = self.structure.leaf;
        let stored = self.read(place, &leaf)?;
        Ok(stored.live && stored.tid == tid)
    }
}

/// Where a slot's code is. The structure has been verified.
fn cell_of(block: &Block<'_>, slot: usize) -> (u32, u16) {
    block.cell(slot).unwrap_or((NO_BLOCK, 0))
}

fn square(x: &[f32]) -> f64 {
    x.iter().map(|&v| f64::from(v) * f64::from(v)).sum()
}

fn shown(tid: Tid) -> String {
    format!("({},{})", tid.block(), tid.offset())
}

/// The pass over the table.
struct Pass<'s> {
    heap: pg_sys::Relation,
    checker: Checker<'s>,
    entries: Entries,
    /// The first entry not taken from `entries` yet.
    next: Option<Located>,
    /// Block of the table that the pass is in, and the entries of its rows: seen or not.
    block: u32,
    here: Vec<(Tid, Place, bool)>,
    probes: Vec<Probe>,
    rows: u64,
    value: Vec<f32>,
    filters: Columns,
    keys: RowKeys,
    outcome: Result<(), Wrong>,
}

/// Compares rows and entries; returns the number of rows.
fn check_rows(
    heap: pg_sys::Relation,
    index: pg_sys::Relation,
    snapshot: &Snapshot,
    mut entries: Entries,
    checker: Checker<'_>,
) -> Result<u64, Wrong> {
    entries.sort();
    let next = entries.next();
    let filters = Columns::of_meta(index, &checker.structure.info.meta);
    let mut pass = Pass {
        heap,
        checker,
        entries,
        next,
        block: 0,
        here: Vec::new(),
        probes: Vec::new(),
        rows: 0,
        value: Vec::new(),
        keys: RowKeys::new(filters.len()),
        filters,
        outcome: Ok(()),
    };
    pass.enter(0)?;
    // SAFETY: open relations; the state outlives the call. The scan reads the table from its first block to its last,
    // and is ended by the call.
    unsafe {
        let scan = pg_sys::table_beginscan_strat(heap, snapshot.0, 0, std::ptr::null_mut(), true, false);
        let built = pg_sys::BuildIndexInfo(index);
        // A scan by snapshot: only what a query would see.
        (*built).ii_Concurrent = true;
        (*built).ii_Unique = false;
        let state = (&raw mut pass).cast();
        pg_sys::table_index_build_scan(heap, index, built, true, false, Some(visit_row), state, scan);
    }
    std::mem::replace(&mut pass.outcome, Ok(()))?;
    pass.finish()?;
    Ok(pass.rows)
}

/// Callback: a visible row of the table.
#[pg_guard]
unsafe extern "C-unwind" fn visit_row(
    _index: pg_sys::Relation,
    tid: pg_sys::ItemPointer,
    values: *mut pg_sys::Datum,
    nulls: *mut bool,
    _alive: bool,
    state: *mut std::ffi::c_void,
) {
    // SAFETY: PostgreSQL's arguments; `state` is the Pass given to the scan.
    unsafe {
        let pass = &mut *state.cast::<Pass<'_>>();
        if pass.outcome.is_err() {
            return;
        }
        pass.value.clear();
        if !*nulls {
            pass.checker.frame.operator.read(*values, &mut pass.value);
            pass.filters.read(values, nulls, &mut pass.keys);
        }
        pass.outcome = pass.row(Tid::from_item(&*tid));
    }
}

impl Pass<'_> {
    /// A row whose vector is `self.value` (empty: NULL).
    fn row(&mut self, tid: Tid) -> Result<(), Wrong> {
        let Frame { operator: Operator { metric, .. }, dims, .. } = self.checker.frame;
        if tid.block() != self.block {
            self.enter(tid.block())?;
        }
        let without_direction = metric == Metric::Cosine && self.value.iter().all(|&v| v == 0.0);
        let indexed = !self.value.is_empty() && !without_direction;
        let first = self.here.partition_point(|entry| entry.0 < tid);
        let count = self.here[first..].iter().take_while(|entry| entry.0 == tid).count();
        if count == 0 {
            ensure!(!indexed, "Row {} of the table has no entry.", shown(tid));
            return Ok(());
        }
        let (_, place, seen) = self.here[first];
        ensure!(indexed, "Row {} has an entry in block {}, but no vector to be found by.", shown(tid), place.block);
        ensure!(!seen, "Row {} of the table comes twice.", shown(tid));
        let value = std::mem::take(&mut self.value);
        ensure!(value.len() == dims, "Row {} has {} dimensions, the index {dims}.", shown(tid), value.len());
        // Two of them: see `check_unique`.
        for (_, place, seen) in &mut self.here[first..first + count] {
            *seen = true;
            self.checker.check_row(tid, *place, &value, &self.keys, &self.probes)?;
        }
        if self.probes.len() < QUERIES {
            self.probes.push(Probe::new(&self.checker.frame, &value));
        } else if self.rows.is_multiple_of(QUERY_LIFE) {
            let oldest = (self.rows / QUERY_LIFE) as usize % QUERIES;
            self.probes[oldest] = Probe::new(&self.checker.frame, &value);
        }
        self.rows += 1;
        self.value = value;
        Ok(())
    }

    /// Goes on to a block of the table: ends with the blocks before, and takes the block's entries.
    fn enter(&mut self, block: u32) -> Result<(), Wrong> {
        self.leave()?;
        loop {
            let first = self.next.map(|(tid, _)| tid.block()).filter(|&b| b <= block);
            self.block = first.unwrap_or(block);
            while let Some((tid, place)) = self.next.filter(|(tid, _)| tid.block() == self.block) {
                ann::memory::push(&mut self.here, (tid, place, false));
                self.next = self.entries.next();
            }
            self.check_unique()?;
            if self.block == block {
                return Ok(());
            }
            self.leave()?;
        }
    }

    /// No TID comes twice.
    fn check_unique(&mut self) -> Result<(), Wrong> {
        for pair in self.here.windows(2) {
            let ((tid, one, _), (other_tid, other, _)) = (pair[0], pair[1]);
            if tid == other_tid && self.checker.contradict(tid, one, other)? {
                return Err(Wrong(format!(
                    "Row {} has entries in blocks {} and {}.",
                    shown(tid),
                    one.block,
                    other.block
                )));
            }
        }
        Ok(())
    }

    /// Ends with all blocks.
    fn finish(&mut self) -> Result<(), Wrong> {
        while let Some((tid, _)) = self.next {
            self.enter(tid.block())?;
        }
        self.leave()
    }

    /// Ends with a block of the table: entries without a visible row point to something.
    fn leave(&mut self) -> Result<(), Wrong> {
        crate::pg::memory::check_for_interrupts();
        let here = std::mem::take(&mut self.here);
        for &(tid, place, _) in here.iter().filter(|entry| !entry.2) {
            // VACUUM removes entries first, items afterwards. So an entry that is still there after its item has gone is
            // wrong, unless both have come back meanwhile.
            let wrong = !has_item(self.heap, tid) && self.checker.is_there(tid, place)? && !has_item(self.heap, tid);
            ensure!(!wrong, "The entry in block {} points to {}, where there is no row.", place.block, shown(tid));
            self.checker.check_cell(tid, place)?;
        }
        Ok(())
    }
}

/// Whether a TID names an item of the open table that an index may point to.
pub fn has_item(heap: pg_sys::Relation, tid: Tid) -> bool {
    // SAFETY: `heap` is open; its table access method is compared, not called.
    let is_heap = unsafe { (*heap).rd_tableam == pg_sys::GetHeapamTableAmRoutine() };
    if tid.offset() == 0 || tid.block() >= blocks(heap) || !is_heap {
        return tid.offset() != 0 && !is_heap;
    }
    let buffer = Buffer::read(heap, tid.block());
    let page = buffer.pointer();
    // SAFETY: a locked page of a heap table, on which others may set hint bits: so there is no reference to it. The item's
    // number and place are checked first.
    unsafe {
        if pg_sys::PageIsNew(page) || tid.offset() > pg_sys::PageGetMaxOffsetNumber(page) {
            return false;
        }
        let item = pg_sys::PageGetItemId(page, tid.offset()).read();
        match item.lp_flags() {
            pg_sys::LP_UNUSED => false,
            pg_sys::LP_NORMAL => {
                let at = item.lp_off() as usize;
                if at + size_of::<pg_sys::HeapTupleHeaderData>() > page::PAGE {
                    return false;
                }
                let header: *const pg_sys::HeapTupleHeaderData = page.add(at).cast();
                u32::from((&raw const (*header).t_infomask2).read()) & pg_sys::HEAP_ONLY_TUPLE == 0
            }
            _ => true,
        }
    }
}
