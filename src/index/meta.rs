//! The meta page and the data mean, as one value that the relation cache keeps.

use super::metric::{Frame, Operator};
use super::page::{self, Damage, Layout, META_BLOCK, Meta, NO_BLOCK, RECALLS};
use super::storage::{Buffer, Checked, corrupted};
use pgrx::prelude::*;

/// A copy of the meta data of an open index. (The relation cache may go at any call that takes a lock, so nothing may refer
/// to it for longer than that: detoasting a value takes one.)
#[derive(Clone, Copy)]
pub struct Info {
    pub meta: Meta,
}

impl Info {
    /// Reads the meta page and the mean, or takes them from the relation's cache. PostgreSQL drops that cache with
    /// every invalidation of the relation (so after REINDEX and TRUNCATE).
    pub fn of(index: pg_sys::Relation) -> Info {
        Info { meta: *cached(index).0 }
    }

    /// The coordinate system of the index.
    pub fn frame(&self, index: pg_sys::Relation) -> Frame {
        let operator =
            Operator::from_code(self.meta.operator).unwrap_or_else(|| corrupted(index, META_BLOCK, Damage::Bounds));
        let mean = cached(index).1.to_vec();
        Frame::new(operator, self.meta.dims as usize, self.meta.seed, mean)
    }

    /// Layout of the lists of rows.
    pub fn leaf_layout(&self) -> Layout {
        Layout::new(self.meta.shape(), false)
    }

    /// Layout of the lists of lists.
    pub fn inner_layout(&self) -> Layout {
        Layout::new(self.meta.shape(), true)
    }

    /// Stopping rule for a recall: linear between the calibrated levels.
    pub fn stopping_cosine(&self, recall: f32) -> f32 {
        interpolate(&RECALLS, &self.meta.calibration, recall)
    }

    /// Lists that a typical query reads for a recall.
    pub fn expected_probes(&self, recall: f32) -> f32 {
        interpolate(&RECALLS, &self.meta.probes, recall)
    }
}

/// Linear interpolation of `y` over increasing `x`, constant outside.
fn interpolate(x: &[f32], y: &[f32], at: f32) -> f32 {
    let i = x.partition_point(|&v| v < at);
    if i == 0 {
        return y[0];
    }
    if i == x.len() {
        return y[i - 1];
    }
    y[i - 1] + (at - x[i - 1]) / (x[i] - x[i - 1]) * (y[i] - y[i - 1])
}

/// Meta data and mean (empty for zero) in the relation's cache, to be copied at once.
fn cached<'c>(index: pg_sys::Relation) -> (&'c Meta, &'c [f32]) {
    // SAFETY: rd_amcache is NULL or the chunk that `load` stored: a `Meta`, then `n` floats.
    unsafe {
        if (*index).rd_amcache.is_null() {
            load(index);
        }
        let chunk: *const Meta = (*index).rd_amcache.cast();
        let meta = &*chunk;
        let n = if meta.mean == NO_BLOCK { 0 } else { meta.dims as usize };
        (meta, std::slice::from_raw_parts(chunk.add(1).cast(), n))
    }
}

fn load(index: pg_sys::Relation) {
    let meta = {
        let buffer = Buffer::read(index, META_BLOCK);
        Meta::read(buffer.page()).or_corrupted(index, META_BLOCK)
    };
    let mut mean: Vec<f32> = Vec::new();
    let mut block = meta.mean;
    while block != NO_BLOCK {
        let buffer = Buffer::read(index, block);
        let part = page::read_mean(buffer.page()).or_corrupted(index, block);
        if part.is_empty() || mean.len() + part.len() > meta.dims as usize {
            corrupted(index, block, Damage::Bounds);
        }
        mean.extend_from_slice(part);
        block = page::opaque(buffer.page()).next;
    }
    if meta.mean != NO_BLOCK && mean.len() != meta.dims as usize {
        corrupted(index, meta.mean, Damage::Bounds);
    }
    // SAFETY: the chunk has room for both parts and is freed by the relation cache.
    unsafe {
        let bytes = size_of::<Meta>() + 4 * mean.len();
        let chunk: *mut Meta = pg_sys::MemoryContextAlloc((*index).rd_indexcxt, bytes).cast();
        chunk.write(meta);
        std::ptr::copy_nonoverlapping(mean.as_ptr(), chunk.add(1).cast(), mean.len());
        (*index).rd_amcache = chunk.cast();
    }
}

/// Dimensions of the indexed column, from its type modifier. No page is read.
pub fn column_dims(index: pg_sys::Relation) -> Option<usize> {
    // SAFETY: an index has at least one attribute.
    let typmod = unsafe { pgrx::PgTupleDesc::from_pg_unchecked((*index).rd_att).get(0)?.atttypmod };
    (typmod > 0).then_some(typmod as usize)
}
