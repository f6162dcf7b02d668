//! The meta page, read anew for each search and insert, and the data mean, which the relation cache keeps.

use crate::frame::{Frame, Operator};
use crate::page::{self, Damage, GOALS, Layout, Limits, META_BLOCK, Meta, NO_BLOCK, NO_LIMIT, RECALLS, StoppingRule};
use crate::pages::{Guard, Pages};
use crate::stale::{Checked, Stale};

/// The meta data of an open index as they were at one moment.
#[derive(Clone, Copy)]
pub struct Info {
    pub meta: Meta,
}

impl Info {
    /// Reads the meta page.
    pub fn of<P: Pages>(index: P) -> Info {
        let buffer = index.read(META_BLOCK);
        Info { meta: Meta::read(buffer.page()).or_corrupted(index, META_BLOCK) }
    }

    /// Reads the meta page for a plan, which may be of a query that the index is not needed for; None if pgvector or another
    /// version built it.
    pub fn to_plan<P: Pages>(index: P) -> Option<Info> {
        let buffer = index.read(META_BLOCK);
        match Meta::read(buffer.page()) {
            Err(Damage::Foreign(_) | Damage::Format(_)) => None,
            read => Some(Info { meta: read.or_corrupted(index, META_BLOCK) }),
        }
    }

    /// Reads the meta page again for a reader who went by the meta data of `epoch` and met what `stale` says. An ERROR if
    /// no structural change explains that.
    pub fn after<P: Pages>(index: P, stale: Stale, epoch: u32) -> Info {
        let info = Info::of(index);
        if info.meta.epoch == epoch {
            index.corrupted(stale.block, stale.damage);
        }
        info
    }

    /// The coordinate system of the index.
    pub fn frame<P: Pages>(&self, index: P) -> Frame {
        let operator =
            Operator::from_code(self.meta.operator).unwrap_or_else(|| index.corrupted(META_BLOCK, Damage::Bounds));
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

/// The data mean that belongs to `meta`; empty for zero.
fn mean<P: Pages>(index: P, meta: &Meta) -> Vec<f32> {
    if meta.mean == NO_BLOCK {
        return Vec::new();
    }
    index.mean(meta, || read_mean(index, meta))
}

fn read_mean<P: Pages>(index: P, meta: &Meta) -> Vec<f32> {
    let mut mean: Vec<f32> = Vec::new();
    let mut block = meta.mean;
    while block != NO_BLOCK {
        let buffer = index.read(block);
        let part = page::read_mean(buffer.page()).or_corrupted(index, block);
        if part.is_empty() || mean.len() + part.len() > meta.dims as usize {
            index.corrupted(block, Damage::Bounds);
        }
        mean.extend_from_slice(part);
        block = page::opaque(buffer.page()).next;
    }
    if mean.len() != meta.dims as usize {
        index.corrupted(meta.mean, Damage::Bounds);
    }
    mean
}
