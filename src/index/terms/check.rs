//! What `ivflsh_check` looks at in an index of terms.
//!
//! 1. The tree: each level is a chain of pages in order, which are the children that the level above names, each of them once;
//!    entries are within the bounds of their page, and all checksums are right. Every page is in the tree or the chain of pending
//!    rows, free, or counted as leaked.
//! 2. Each row that the snapshot sees has just the entries that its value asks for, and is in the list of all rows or that of
//!    NULLs; each row of these lists points to an item of the table that an index may point to.

use super::page::{Key, Meta, NULLS, Node, Pending, Place, ROWS, tid_of};
use super::pending::{self, entries_of};
use super::tree::{Entry, Tree};
use super::value::Value;
use crate::index::metric::Operator;
use crate::index::metric::OperatorClass as _;
use crate::index::page::ItemPointer as _;
use crate::index::page::{self as pages, Damage, Kind, META_BLOCK, NO_BLOCK, Tid};
use crate::index::read::info::column_dims;
use crate::index::storage::{self, Buffer, StructureLock};
use crate::insight::check::{Report, Snapshot, has_item};
use crate::insight::walk::{Wrong, ensure};
use ann::memory;
use bitvec::prelude::*;
use pgrx::prelude::*;
use serde::Serialize;
use std::collections::HashMap;

/// Times that an index is read whose structure changes: on a standby nothing holds that off.
const TRIES: usize = 20;

/// Verifies an open index of terms. With a snapshot, against its table as well.
pub fn check(heap: pg_sys::Relation, index: pg_sys::Relation, snapshot: Option<&Snapshot>) -> Report {
    let mut found = walk(index);
    if let Some(snapshot) = snapshot {
        // The first row decides about them.
        found.meta.dims = pending::meta(index).dims;
        match rows(heap, index, snapshot, &found) {
            Ok(rows) => found.report.rows = rows,
            Err(wrong) => wrong.raise(index),
        }
    }
    found.report
}

/// Walks over an open index while its structure stands still.
fn walk(index: pg_sys::Relation) -> Walk {
    let mut tries = 0;
    loop {
        let lock = StructureLock::shared(index);
        let walk = Walk::of(index);
        drop(lock);
        tries += 1;
        // SAFETY: asks for the server's state.
        match walk {
            Ok(walk) => return walk,
            Err(_) if tries < TRIES && unsafe { pg_sys::RecoveryInProgress() } => {}
            Err(wrong) => wrong.raise(index),
        }
    }
}

/// The document that `ivflsh_stats` returns of an index of terms.
#[derive(Serialize)]
pub struct Stats {
    format: u16,
    partition: &'static str,
    dimensions: u32,
    /// Levels of inner pages.
    height: u32,
    /// Lists of terms, one a term and sign.
    lists: u64,
    rows: Rows,
    /// Of lists of terms, in the tree.
    entries: u64,
    pages: Pages,
    bytes: u64,
}

/// Rows, whatever a transaction sees of them.
#[derive(Serialize, Clone, Copy, Default)]
struct Rows {
    in_the_tree: u64,
    of_them_null: u64,
    pending: u64,
}

#[derive(Serialize, Clone, Copy, Default)]
struct Pages {
    inner: u64,
    leaf: u64,
    pending: u64,
    free: u64,
    leaked: u64,
}

impl Stats {
    /// Reads every page of an open index of terms.
    pub fn of(index: pg_sys::Relation) -> Stats {
        let Walk { report, meta, height, rows, entries, pages, pending, .. } = walk(index);
        Stats {
            format: pages::FORMAT,
            partition: "terms",
            dimensions: meta.dims,
            height,
            lists: report.lists,
            rows: Rows { pending: pending.len() as u64, ..rows },
            entries,
            pages: Pages { free: report.free_pages, leaked: report.leaked_pages, ..pages },
            bytes: report.pages * pages::PAGE as u64,
        }
    }
}

/// What was found by walking over the pages.
struct Walk {
    report: Report,
    tree: Tree,
    meta: Meta,
    height: u32,
    rows: Rows,
    entries: u64,
    pages: Pages,
    /// The rows that are pending, and their entries.
    pending: HashMap<u64, Vec<(Key, f32)>>,
}

fn wrong(block: u32) -> impl Fn(Damage) -> Wrong {
    move |damage| Wrong::page(block, damage)
}

impl Walk {
    fn of(index: pg_sys::Relation) -> Result<Walk, Wrong> {
        let blocks = storage::blocks_settled(index);
        let mut seen = BitVec::new();
        crate::pg::memory::resize_bits(&mut seen, blocks as usize);
        let mut visit = |block: u32| {
            let is_new = (block as usize) < seen.len() && block != META_BLOCK && !seen.replace(block as usize, true);
            ensure!(is_new, "Block {block} is reached twice, or is not there.");
            Ok(())
        };
        let meta = pending::meta(index);
        let tree = pending::tree(index, &meta);
        let operator = Operator::of_index(index).code();
        let dims = column_dims(index).unwrap_or(0) as u32;
        ensure!(dims == 0 || meta.dims == dims, "The index is of {} dimensions, its column of {dims}.", meta.dims);
        ensure!(meta.operator == operator, "The index is of operator class {}, not {operator}.", meta.operator);
        let mut found = Walk {
            report: Report::default(),
            tree,
            meta,
            height: 0,
            rows: Rows::default(),
            entries: 0,
            pages: Pages::default(),
            pending: HashMap::new(),
        };
        found.report.pages = u64::from(blocks);

        // Level by level: the pages that the one above names.
        let mut level: Vec<(Place, u32)> = vec![(Place::FIRST, meta.root)];
        let mut expected = None;
        while !level.is_empty() {
            let mut below = Vec::new();
            for i in 0..level.len() {
                let (place, block) = level[i];
                let (high, next) = level.get(i + 1).copied().unwrap_or((Place::END, NO_BLOCK));
                crate::pg::memory::check_for_interrupts();
                visit(block)?;
                let buffer = Buffer::read(index, block);
                let node = Node::open(buffer.page()).map_err(wrong(block))?;
                node.verify().map_err(wrong(block))?;
                let expected = *expected.get_or_insert(node.opaque.level);
                found.height = found.height.max(u32::from(node.opaque.level));
                *if node.is_leaf() { &mut found.pages.leaf } else { &mut found.pages.inner } += 1;
                let fits = (node.low(), node.high(), node.opaque.next) == (place, high, next);
                ensure!(fits && node.opaque.level == expected, "Block {block} is not the page that its parent names.");
                match node.is_leaf() {
                    true => found.leaf(block, &node)?,
                    false => {
                        for i in 0..node.len() {
                            let (at, child) = node.down(i);
                            let fits = if i == 0 { at == place } else { at > node.down(i - 1).0 && at < high };
                            ensure!(fits, "Child {i} of block {block} is out of order.");
                            memory::push(&mut below, (at, child));
                        }
                    }
                }
            }
            level = below;
            expected = expected.map(|level| level.saturating_sub(1));
        }

        // The chain, which others make longer meanwhile.
        let meta = pending::meta(index);
        let (mut block, mut number) = (meta.head, meta.first);
        while block != NO_BLOCK && block < blocks {
            crate::pg::memory::check_for_interrupts();
            visit(block)?;
            let buffer = Buffer::read(index, block);
            found.pages.pending += 1;
            let mut rows = Pending::open(buffer.page(), number).map_err(wrong(block))?;
            while let Some(row) = rows.next_row() {
                let row = row.map_err(wrong(block))?;
                let mut entries: Vec<(Key, f32)> = memory::with_room(row.len() + 1);
                let list = (0..row.len()).map(|i| (row.key(i), row.weight(i)));
                entries.extend(entries_of(row.row, row.is_null, list).map(|entry| (entry.key, entry.weight)));
                let known = meta.negative || row.is_null || entries[1..].iter().all(|entry| entry.0 & 1 == 0);
                ensure!(known, "Block {block} has elements below zero, of which the meta page does not know.");
                ensure!(
                    entries.windows(2).all(|p| p[0].0 < p[1].0),
                    "Block {block}: entries of a row are out of order."
                );
                memory::room(&mut found.pending, 1);
                found.pending.insert(row.row, entries);
            }
            if number == meta.last {
                break;
            }
            (block, number) = (rows.next, number + 1);
            ensure!(block != NO_BLOCK, "The chain of pending rows ends before page {number}.");
        }

        for block in META_BLOCK + 1..blocks {
            if seen[block as usize] {
                continue;
            }
            crate::pg::memory::check_for_interrupts();
            let buffer = Buffer::read(index, block);
            match pages::check_any(buffer.page()) {
                Err(Damage::New) => found.report.leaked_pages += 1,
                Err(damage) => return Err(Wrong::page(block, damage)),
                Ok(page) if page.kind == Kind::Free as u8 => found.report.free_pages += 1,
                Ok(page) if page.kind == Kind::TermPending as u8 => {
                    found.report.leaked_pages += u64::from(page.list < meta.first);
                }
                Ok(page) => {
                    return Err(Wrong(format!("Block {block} is of kind {}, and reached by no way.", page.kind)));
                }
            }
        }
        Ok(found)
    }

    fn leaf(&mut self, block: u32, node: &Node<'_>) -> Result<(), Wrong> {
        let (mut rows, mut weights) = (Vec::new(), Vec::new());
        for i in 0..node.len() {
            let segment = node.segment(i);
            let end = if i + 1 < node.len() { node.place(i + 1) } else { node.high() };
            let place = node.place(i);
            ensure!(place >= node.low() && place < end, "Segment {i} of block {block} is out of order.");
            rows.clear();
            weights.clear();
            node.decode(&segment, &mut rows, &mut weights).map_err(wrong(block))?;
            let known = self.meta.negative || segment.key & 1 == 0 || segment.key <= NULLS;
            ensure!(known, "Block {block} has elements below zero, of which the meta page does not know.");
            let last = Place { key: segment.key, row: rows[rows.len() - 1] };
            ensure!(last < end, "Segment {i} of block {block} reaches into the next one.");
            let most = weights.iter().fold(0.0, |a: f32, &b| a.max(b));
            let fit = weights.iter().all(|weight| weight.is_finite() && *weight > 0.0);
            ensure!(
                fit && most == segment.max,
                "Segment {i} of block {block} has weights up to {most}, not {}.",
                segment.max
            );
            self.report.lists += u64::from(segment.key > NULLS && (i == 0 || node.place(i - 1).key != segment.key));
            let n = rows.len() as u64;
            match segment.key {
                ROWS | NULLS => {
                    self.report.entries += n;
                    self.rows.in_the_tree += n;
                    self.rows.of_them_null += if segment.key == NULLS { n } else { 0 };
                }
                _ => self.entries += n,
            }
        }
        // A list that goes on from the page before.
        if node.len() > 0 && node.low().key == node.place(0).key && node.low().row > 0 && node.low().key > NULLS {
            self.report.lists -= 1;
        }
        Ok(())
    }
}

/// The pass over the table.
struct Pass<'w> {
    walk: &'w Walk,
    rows: u64,
    outcome: Result<(), Wrong>,
}

/// Compares the rows that a snapshot sees with their entries; returns how many.
fn rows(heap: pg_sys::Relation, index: pg_sys::Relation, snapshot: &Snapshot, walk: &Walk) -> Result<u64, Wrong> {
    let mut pass = Pass { walk, rows: 0, outcome: Ok(()) };
    // SAFETY: open relations; the state outlives the call, which ends the scan.
    unsafe {
        let scan = pg_sys::table_beginscan_strat(heap, snapshot.0, 0, std::ptr::null_mut(), true, false);
        let built = pg_sys::BuildIndexInfo(index);
        // A scan by snapshot: only what a query would see.
        (*built).ii_Concurrent = true;
        (*built).ii_Unique = false;
        let state = (&raw mut pass).cast();
        pg_sys::table_index_build_scan(heap, index, built, true, false, Some(visit_row), state, scan);
    }
    pass.outcome?;
    // What the lists of all rows name is there.
    for key in [ROWS, NULLS] {
        let (mut next, mut numbers, mut weights) = (Some(Place { key, row: 0 }), Vec::new(), Vec::new());
        while let Some(from) = next {
            crate::pg::memory::check_for_interrupts();
            numbers.clear();
            weights.clear();
            next = walk.tree.part(from, &mut numbers, &mut weights);
            for &row in &numbers {
                let tid = tid_of(row);
                let is_there = || walk.tree.weight(Place { key, row }).is_some();
                let wrong = !has_item(heap, tid) && is_there() && !has_item(heap, tid);
                ensure!(!wrong, "An entry points to {}, where there is no row.", shown(tid));
            }
        }
    }
    Ok(pass.rows)
}

fn shown(tid: Tid) -> String {
    format!("({},{})", tid.block(), tid.offset())
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
        if pass.outcome.is_ok() {
            let value = (!*nulls).then(|| Value::read(*values));
            pass.outcome = pass.row(Tid::from_item(&*tid), value.as_ref());
        }
    }
}

impl Pass<'_> {
    fn row(&mut self, tid: Tid, value: Option<&Value>) -> Result<(), Wrong> {
        crate::pg::memory::check_for_interrupts();
        self.rows += 1;
        let row = super::insert::number_of(tid);
        let list = value.map_or(&[][..], |value| &value.entries);
        let (dims, own) = (self.walk.meta.dims, value.map(|value| value.dims));
        ensure!(own.is_none_or(|own| own == dims), "Row {} has {own:?} dimensions, the index {dims}.", shown(tid));
        let waiting = self.walk.pending.get(&row);
        for (i, Entry { key, weight, .. }) in entries_of(row, value.is_none(), list.iter().copied()).enumerate() {
            let found = match waiting {
                Some(entries) => entries.get(i).filter(|entry| entry.0 == key).map(|entry| entry.1),
                None => self.walk.tree.weight(Place { key, row }),
            };
            ensure!(
                found.is_some_and(|found| found.to_bits() == weight.to_bits()),
                "Row {} has {found:?} in list {key}, not {weight}.",
                shown(tid)
            );
        }
        Ok(())
    }
}
