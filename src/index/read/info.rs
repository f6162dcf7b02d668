//! The data mean, which the relation cache keeps, and what an index's columns say. The meta page: [`ivflsh::read::info`].

pub use ivflsh::read::info::*;

use crate::index::page::Meta;
use pgrx::prelude::*;

/// The mean as the relation's cache keeps it: this, then `floats` values. PostgreSQL drops that cache with every
/// invalidation of the relation (so after REINDEX and TRUNCATE), and invalidations come whenever a lock is taken, also when
/// a value is detoasted: so nothing refers to it beyond a copy.
#[repr(C)]
struct CachedMean {
    /// The meta page's, see [`Meta::mean_epoch`].
    epoch: u32,
    block: u32,
    floats: usize,
}

/// The data mean that belongs to `meta`, as the relation's cache has it, or read and then kept there.
pub fn cached_mean(index: pg_sys::Relation, meta: &Meta, read: impl FnOnce() -> Vec<f32>) -> Vec<f32> {
    // SAFETY: rd_amcache is NULL or the chunk that `keep` stored.
    unsafe {
        let cached: *const CachedMean = (*index).rd_amcache.cast();
        if let Some(found) = cached.as_ref()
            && (found.epoch, found.block) == (meta.mean_epoch, meta.mean)
            && found.floats == meta.dims as usize
        {
            return std::slice::from_raw_parts(cached.add(1).cast(), found.floats).to_vec();
        }
    }
    let mean = read();
    keep(index, meta, &mean);
    mean
}

/// Puts the mean into the relation's cache.
fn keep(index: pg_sys::Relation, meta: &Meta, mean: &[f32]) {
    // SAFETY: the chunk has room for both parts; a chunk that it replaces was made here.
    unsafe {
        if !(*index).rd_amcache.is_null() {
            pg_sys::pfree((*index).rd_amcache);
            (*index).rd_amcache = std::ptr::null_mut();
        }
        let bytes = size_of::<CachedMean>() + 4 * mean.len();
        let chunk: *mut CachedMean = pg_sys::MemoryContextAlloc((*index).rd_indexcxt, bytes).cast();
        chunk.write(CachedMean { epoch: meta.mean_epoch, block: meta.mean, floats: mean.len() });
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
