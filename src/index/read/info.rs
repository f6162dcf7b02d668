//! The meta page, read anew for each search and insert, and the data mean, which the relation cache keeps.

use crate::index::metric::{Frame, Operator};
use crate::index::page::{
    self, Damage, GOALS, Layout, Limits, META_BLOCK, Meta, NO_BLOCK, NO_LIMIT, RECALLS, StoppingRule,
};
use crate::index::storage::{Buffer, Checked, Stale, corrupted};
use pgrx::prelude::*;

/// The meta data of an open index as they were at one moment.
#[derive(Clone, Copy)]
pub struct Info {
    pub meta: Meta,
}

impl Info {
    /// Reads the meta page.
    pub fn of(index: pg_sys::Relation) -> Info {
        let buffer = Buffer::read(index, META_BLOCK);
        Info { meta: Meta::read(buffer.page()).or_corrupted(index, META_BLOCK) }
    }

    /// Reads the meta page for a plan, which may be of a query that the index is not needed for; None if pgvector or another
    /// version built it.
    pub fn to_plan(index: pg_sys::Relation) -> Option<Info> {
        let buffer = Buffer::read(index, META_BLOCK);
        match Meta::read(buffer.page()) {
            Err(Damage::Foreign(_) | Damage::Format(_)) => None,
            read => Some(Info { meta: read.or_corrupted(index, META_BLOCK) }),
        }
    }

    /// Reads the meta page again for a reader who went by the meta data of `epoch` and met what `stale` says. An ERROR if
    /// no structural change explains that.
    pub fn after(index: pg_sys::Relation, stale: Stale, epoch: u32) -> Info {
        let info = Info::of(index);
        if info.meta.epoch == epoch {
            corrupted(index, stale.block, stale.damage);
        }
        info
    }

    /// The coordinate system of the index.
    pub fn frame(&self, index: pg_sys::Relation) -> Frame {
        let operator =
            Operator::from_code(self.meta.operator).unwrap_or_else(|| corrupted(index, META_BLOCK, Damage::Bounds));
        Frame::new(operator, self.meta.dims as usize, self.meta.seed, mean(index, &self.meta))
    }

    /// Layout of the lists of rows.
    pub fn leaf_layout(&self) -> Layout {
        Layout::new(self.meta.shape(), false)
    }

    /// Layout of the lists of lists.
    pub fn inner_layout(&self) -> Layout {
        Layout::new(self.meta.shape(), true)
    }
}

impl Meta {
    /// What the stopping rule, tuned, says for one recall: linear between the calibrated levels.
    pub fn rule_at(&self, recall: f32) -> RuleAt {
        let at = |i: usize, values: fn(&Limits) -> &[f32; RECALLS.len()]| {
            let of = |limits: &[Limits; GOALS.len()]| interpolate(&RECALLS, values(&limits[i]), recall);
            (of(&self.rule.of_goal), of(&self.tuning))
        };
        let limit = |i| {
            let (rule, tuning) = at(i, |of| &of.limit);
            rule + tuning
        };
        let probes = |i| {
            let (rule, tuning) = at(i, |of| &of.probes);
            (rule * tuning).min(self.lists as f32)
        };
        RuleAt { limits: std::array::from_fn(limit), probes: std::array::from_fn(probes) }
    }

    /// Lets searches go by `rule`, measured by so many of a user's queries, as far as it differs from the one measured by rows;
    /// as that changes when the index grows, so will what is gone by.
    pub fn tune(&mut self, rule: &StoppingRule, queries: u32) {
        self.tuned_by = queries;
        for ((tuning, own), tuned) in self.tuning.iter_mut().zip(&self.rule.of_goal).zip(&rule.of_goal) {
            // Where either was not measured, for want of rows, there is nothing that they differ by.
            let known = |i: usize| own.limit[i].max(tuned.limit[0]) < NO_LIMIT;
            tuning.limit = std::array::from_fn(|i| if known(i) { tuned.limit[i] - own.limit[i] } else { 0.0 });
            tuning.probes =
                std::array::from_fn(|i| if known(i) { tuned.probes[i] / own.probes[i].max(1.0) } else { 1.0 });
        }
    }
}

/// A [`StoppingRule`] for one recall.
#[derive(Clone, Copy, Debug)]
pub struct RuleAt {
    limits: [f32; GOALS.len()],
    probes: [f32; GOALS.len()],
}

impl RuleAt {
    /// The limit for so many rows; linear in the logarithm of their number between [`GOALS`]. Between two of which one is the
    /// double of the other it is the larger one: with the rows of one more cluster that are wanted, what is needed rises at once.
    pub fn limit(&self, goal: f64) -> f32 {
        let at = (goal as f32).log2();
        let next = LOG_GOALS.partition_point(|&goal| goal < at);
        match next.checked_sub(1).and_then(|before| Some((before, LOG_GOALS.get(next)?))) {
            Some((before, after)) if after - LOG_GOALS[before] <= 1.0 => self.limits[before].max(self.limits[next]),
            _ => interpolate(&LOG_GOALS, &self.limits, at),
        }
    }

    /// Lists that a typical query for so many rows reads.
    pub fn probes(&self, goal: f64) -> f32 {
        interpolate(&LOG_GOALS, &self.probes, (goal as f32).log2())
    }
}

/// log2 of each of [`GOALS`].
const LOG_GOALS: [f32; GOALS.len()] = {
    let mut logs = [0.0; GOALS.len()];
    let mut i = 0;
    while i < GOALS.len() {
        assert!(GOALS[i].is_power_of_two());
        logs[i] = GOALS[i].ilog2() as f32;
        i += 1;
    }
    logs
};

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

/// The data mean that belongs to `meta`; empty for zero.
fn mean(index: pg_sys::Relation, meta: &Meta) -> Vec<f32> {
    if meta.mean == NO_BLOCK {
        return Vec::new();
    }
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
    if mean.len() != meta.dims as usize {
        corrupted(index, meta.mean, Damage::Bounds);
    }
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
