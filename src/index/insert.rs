//! `INSERT`: one entry into the nearest list. A list that has grown too long is split by whoever filled it.

use super::append::{self, Added, NewEntry, Refused};
use super::encode::Encoder;
use super::meta::Info;
use super::metric::{Frame, Placed};
use super::page::{Damage, Layout, META_BLOCK, Tid};
use super::storage::{Stale, StructureLock, corrupted};
use super::structure::{self, Structure};
use super::tree::{self, CodeReader, Found, Query};
use pgrx::PgMemoryContexts;
use pgrx::prelude::*;

/// What the inserts of one statement share.
struct Inserter {
    frame: Frame,
    /// Of the frame's mean.
    mean_epoch: u32,
    query: Query,
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
        if *nulls {
            return false;
        }
        if (*info).ii_AmCache.is_null() {
            let inserter = Inserter::new(index, &Info::of(index));
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
        inserter.insert(index, heap, Tid::from_item(&*tid));
        false
    }
}

impl Inserter {
    fn new(index: pg_sys::Relation, info: &Info) -> Inserter {
        let frame = info.frame(index);
        Inserter {
            query: Query::new(frame.operator),
            encoder: Encoder::new(frame.operator.space(), frame.padded()),
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
        let mut info = Info::of(index);
        let mut placed = None;
        loop {
            if info.meta.mean_epoch != self.mean_epoch {
                let value = std::mem::take(&mut self.value);
                *self = Inserter { value, ..Inserter::new(index, &info) };
                placed = None;
            }
            let placed = *placed.get_or_insert_with(|| self.place());
            if placed == Placed::Nowhere {
                return;
            }
            let mut closed = (0, 0);
            let refused = match self.nearest(index, &info) {
                Err(stale) => Refused::Stale(stale),
                Ok(path) => {
                    self.encoder.encode(&self.row, &self.centroid);
                    if placed == Placed::Unbounded {
                        self.encoder.unbind();
                    }
                    let list = (path[0].list.head, path[0].list.id);
                    closed = list;
                    let entry = NewEntry { tid, encoded: &self.encoder, child: None, live: true };
                    match append::append(index, &self.leaf, list, &entry, &[]) {
                        Ok(Added { grown, .. }) => {
                            if grown && structure::is_long(index, &self.leaf, &path[0].list, &info.meta) {
                                self.split(index, heap, &path);
                            }
                            return;
                        }
                        Err(refused) => refused,
                    }
                }
            };
            pgrx::check_for_interrupts!();
            info = match refused {
                Refused::Stale(stale) => Info::after(index, stale, info.meta.epoch),
                Refused::Closed => {
                    // Whoever replaces the list holds this lock until that is done. If the list is closed still, that was
                    // broken off.
                    let lock = StructureLock::wait(index);
                    structure::reopen(index, &self.leaf, closed, &lock);
                    Info::of(index)
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
        let levels = tree::walk(index, &info.meta, &self.inner, &self.query, BEAM)?;
        let mut path = Vec::with_capacity(levels.len());
        let mut at = 0;
        for level in levels.iter().rev() {
            let Some(found) = level.get(at) else {
                corrupted(index, META_BLOCK, Damage::Bounds);
            };
            path.push(*found);
            at = found.parent;
        }
        self.centroid.clear();
        self.centroid.resize(self.frame.padded(), 0.0);
        if info.meta.height > 0 {
            let mut codes = CodeReader::new(index, &self.inner);
            codes.decode(path[0].cell, path[0].list.id, &mut self.centroid)?;
        }
        Ok(path)
    }

    /// Splits the list at the end of the path, unless somebody changes the structure now: then the next one tries who adds a
    /// block to it.
    fn split(&self, index: pg_sys::Relation, heap: pg_sys::Relation, path: &[Found]) {
        if let Some(lock) = StructureLock::attempt(index) {
            Structure::new(index, heap, lock).split(path);
        }
    }
}
