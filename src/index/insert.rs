//! `INSERT`: one entry into the nearest list. A list that has grown too long is split by whoever filled it.

use super::metric::{Frame, Placed};
use super::page::{self, Bytes, Damage, Layout, META_BLOCK, NO_BLOCK, Owner, Tid};
use super::pgvector;
use super::storage::{Buffer, Change, Checked, Stale, StructureLock, corrupted};
use super::terms;
use crate::index::filter::columns::Columns;
use crate::index::metric::OperatorClass as _;
use crate::index::page::ItemPointer as _;
use crate::index::read::info::Info;
use crate::index::read::rows::Rows;
use crate::index::storage::pages;
use ann::filter::Summary;
use ivflsh::change::structure::{self, Structure};
use ivflsh::read::tree::{self, CodeReader, Found, Query};
use ivflsh::write::append::{self, Added, NewEntry, Refused};
use ivflsh::write::encode::Encoder;
use pgrx::PgMemoryContexts;
use pgrx::prelude::*;

/// What the inserts of one statement share.
struct Inserter {
    frame: Frame,
    /// Of the frame's mean.
    mean_epoch: u32,
    query: Query,
    filters: Columns,
    encoder: Encoder,
    leaf: Layout,
    inner: Layout,
    /// The row as the user gave it.
    value: Vec<f32>,
    /// In the index's coordinates.
    row: Vec<f32>,
    centroid: Vec<f32>,
}

/// Lists looked at for the nearest one.
const BEAM: usize = 8;

/// `aminsert`
#[pg_guard]
#[allow(clippy::too_many_arguments, reason = "PostgreSQL's signature")]
pub unsafe extern "C-unwind" fn aminsert(
    index: pg_sys::Relation,
    values: *mut pg_sys::Datum,
    nulls: *mut bool,
    tid: pg_sys::ItemPointer,
    heap: pg_sys::Relation,
    _unique: pg_sys::IndexUniqueCheck::Type,
    _unchanged: bool,
    info: *mut pg_sys::IndexInfo,
) -> bool {
    // SAFETY: PostgreSQL's arguments. ii_AmCache is NULL or what was stored here; it lives in ii_Context.
    unsafe {
        if pgvector::is_idle(index) {
            return false;
        }
        if terms::is_of(index) {
            terms::insert::insert(index, values, nulls, &*tid);
            return false;
        }
        if *nulls {
            note_left_out(index, heap, page::LEFT_OUT_NULL);
            return false;
        }
        if (*info).ii_AmCache.is_null() {
            let inserter = Inserter::new(index, &Info::of(pages(index)));
            (*info).ii_AmCache = PgMemoryContexts::For((*info).ii_Context).leak_and_drop_on_delete(inserter).cast();
        }
        let inserter = &mut *(*info).ii_AmCache.cast::<Inserter>();
        inserter.frame.operator.read(*values, &mut inserter.value);
        let dims = inserter.frame.dims;
        if inserter.value.len() != dims {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
                format!("expected {dims} dimensions, not {}", inserter.value.len())
            );
        }
        inserter.filters.read(values, nulls, &mut inserter.encoder.row);
        inserter.insert(index, heap, Tid::from_item(&*tid));
        false
    }
}

/// Notes on the meta page, the first time, that a row of the table is not in the index. Plans that count on the contrary are made
/// anew.
fn note_left_out(index: pg_sys::Relation, heap: pg_sys::Relation, what: u32) {
    if Info::of(pages(index)).meta.left_out & what != 0 {
        return;
    }
    let buffer = Buffer::write(index, META_BLOCK);
    let mut meta = page::Meta::read(buffer.page()).or_corrupted(index, META_BLOCK);
    meta.left_out |= what;
    let mut change = Change::begin(index);
    meta.write(change.edit(&buffer, false));
    change.commit();
    drop(buffer);
    // SAFETY: an open table.
    unsafe { pg_sys::CacheInvalidateRelcache(heap) };
}

impl Inserter {
    fn new(index: pg_sys::Relation, info: &Info) -> Inserter {
        let frame = info.frame(pages(index));
        let filters = Columns::of_meta(index, &info.meta);
        Inserter {
            query: Query::new(frame.operator),
            encoder: Encoder::of_rows(&frame, &info.leaf_layout()),
            filters,
            frame,
            mean_epoch: info.meta.mean_epoch,
            leaf: info.leaf_layout(),
            inner: info.inner_layout(),
            value: Vec::new(),
            row: Vec::new(),
            centroid: Vec::new(),
        }
    }

    /// Inserts `self.value`.
    fn insert(&mut self, index: pg_sys::Relation, heap: pg_sys::Relation, tid: Tid) {
        let mut info = Info::of(pages(index));
        let mut placed = None;
        loop {
            if info.meta.mean_epoch != self.mean_epoch {
                let (value, row) = (std::mem::take(&mut self.value), std::mem::take(&mut self.encoder.row));
                *self = Inserter { value, ..Inserter::new(index, &info) };
                self.encoder.row = row;
                placed = None;
            }
            let placed = *placed.get_or_insert_with(|| self.place());
            if placed == Placed::Nowhere {
                note_left_out(index, heap, page::LEFT_OUT_NOWHERE);
                return;
            }
            let mut closed = (0, 0);
            let mut cells = NO_BLOCK;
            let refused = match self.nearest(index, &info).map_err(Refused::Stale).and_then(|path| {
                cells = path[0].cell.0;
                if info.meta.height > 0 {
                    self.widen(index, &path[0])?;
                }
                Ok(path)
            }) {
                Err(refused) => refused,
                Ok(path) => {
                    self.encoder.encode(&self.row, &self.centroid);
                    self.encoder.mark(placed);
                    let list = (path[0].list.head, path[0].list.id);
                    closed = list;
                    let entry = NewEntry { tid, encoded: &self.encoder, child: None, live: true };
                    match append::append(pages(index), &self.leaf, list, &entry, &[]) {
                        Ok(Added { grown, .. }) => {
                            if grown && structure::is_long(pages(index), &self.leaf, &path[0].list, &info.meta) {
                                self.split(index, heap, &path);
                            }
                            return;
                        }
                        Err(refused) => refused,
                    }
                }
            };
            crate::pg::memory::check_for_interrupts();
            info = match refused {
                Refused::Stale(stale) => Info::after(pages(index), stale, info.meta.epoch),
                Refused::Closed => {
                    // Whoever replaces the list has this lock alone until that is done. If the list is closed still, that was
                    // broken off.
                    let lock = StructureLock::shared(index);
                    if closed.0 != 0 {
                        structure::reopen(pages(index), &self.leaf, closed, &lock);
                    } else {
                        structure::reopen_cells(pages(index), &self.inner, cells, &lock);
                    }
                    Info::of(pages(index))
                }
            };
        }
    }

    /// Moves the value into the index's coordinates, for the walk and for encoding.
    fn place(&mut self) -> Placed {
        self.row.clone_from(&self.value);
        self.row.resize(self.frame.padded(), 0.0);
        let placed = self.frame.place(&mut self.row);
        self.query.nearest = true;
        self.query.vector.clone_from(&self.row);
        self.query.prepare();
        placed
    }

    /// Finds the nearest list and its centroid; returns the way to it, the list itself first.
    fn nearest(&mut self, index: pg_sys::Relation, info: &Info) -> Result<Vec<Found>, Stale> {
        let levels = tree::walk(pages(index), &info.meta, &self.inner, &self.query, BEAM, None)?;
        let path = tree::path(&levels, 0).unwrap_or_else(|| corrupted(index, META_BLOCK, Damage::Bounds));
        self.centroid.clear();
        self.centroid.resize(self.frame.padded(), 0.0);
        if info.meta.height > 0 {
            let mut codes = CodeReader::new(pages(index), &self.inner);
            codes.decode(path[0].cell, Owner::child(path[0].list.id), &mut self.centroid)?;
        }
        Ok(path)
    }

    /// Makes the summaries of a list, in the cell of its centroid, know of the row. To be done before the row can be seen.
    fn widen(&self, index: pg_sys::Relation, found: &Found) -> Result<(), Refused> {
        if self.filters.len() == 0 {
            return Ok(());
        }
        let (number, cell) = found.cell;
        // Columns of which the summary does not know the row's key, with the summary that does.
        let widened = |page: &Bytes| -> Result<Vec<(usize, Summary)>, Stale> {
            page::check_code(page, &self.inner).or_stale(index, number)?;
            page::cell(page, &self.inner, cell).or_corrupted(index, number);
            page::check_cell_of(page, &self.inner, cell, found.list.id).or_stale(index, number)?;
            let columns = (0..self.filters.len()).filter_map(|column| {
                let key = self.encoder.row.get(column);
                let mut summary = page::summary(page, &self.inner, cell, column);
                (!summary.knows(key)).then(|| {
                    summary.add(key);
                    (column, summary)
                })
            });
            Ok(columns.collect())
        };
        // Mostly there is nothing new.
        if widened(Buffer::read(index, number).page()).map_err(Refused::Stale)?.is_empty() {
            return Ok(());
        }
        let buffer = Buffer::write(index, number);
        let wider = widened(buffer.page()).map_err(Refused::Stale)?;
        if page::opaque(buffer.page()).closed() {
            return Err(Refused::Closed);
        }
        let mut change = Change::begin(index);
        let page = change.edit(&buffer, false);
        for (column, summary) in wider {
            page::write_summary(page, &self.inner, cell, column, &summary);
        }
        change.commit();
        Ok(())
    }

    /// Splits the list at the end of the path, unless somebody changes the structure now: then the next one tries who adds a
    /// block to it.
    fn split(&self, index: pg_sys::Relation, heap: pg_sys::Relation, path: &[Found]) {
        if let Some(lock) = StructureLock::attempt(index) {
            let rows = Rows::of_inserter(index, heap, self.frame.operator);
            Structure::of_inserter(pages(index), rows, lock).split(path);
        }
    }
}
