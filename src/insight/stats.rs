//! `ivflsh_stats`: what the pages say.

use super::walk::{PageCounts, Structure, at_rest};
use crate::index::filter::keys::Kind;
use crate::index::metric::Operator;
use crate::index::page::{self, RECALLS};
use crate::index::storage;
use crate::insight::maintenance_memory;
use ivflsh::nearest::FIRST_GOAL;
use pgrx::prelude::*;
use serde::Serialize;

/// The document that `ivflsh_stats` returns.
#[derive(Serialize, Default)]
pub struct Stats {
    format: u16,
    element: String,
    metric: String,
    dimensions: u32,
    bits: u32,
    filters: Vec<Filter>,
    /// Levels of lists of lists.
    height: u32,
    /// Lists of each level, from the root down; the last ones are the lists of rows.
    levels: Vec<u64>,
    /// Lists of rows.
    lists: u64,
    rows: Rows,
    pages: PageCounts,
    bytes: u64,
    rows_when_built: u64,
    /// Lists split, and merged away, since the index was built.
    splits: u64,
    merges: u64,
    /// Lists that a split or a merge has closed and not replaced: one under way, or one that a crash ended.
    closed_lists: u64,
    /// Queries by which `ivflsh_tune` has last measured how many lists are read; 0 for none: rows then serve as queries.
    tuned_by: u32,
    /// Lists that a search for ten rows reads on average for a target recall, as measured.
    probes: Vec<Probes>,
}

/// A filter column.
#[derive(Serialize)]
struct Filter {
    column: String,
    /// What its keys are made of.
    keys: String,
}

#[derive(Serialize, Default)]
struct Rows {
    live: u64,
    /// Places that a deleted row has left, or that have not been used yet.
    free: u64,
    largest_list: u64,
    /// Rows of the largest list, per row of the mean one. Without rows there is none.
    imbalance: Option<f64>,
}

#[derive(Serialize)]
struct Probes {
    target_recall: f32,
    lists: f32,
}

impl Filter {
    fn of(index: pg_sys::Relation, meta: &page::Meta, column: usize) -> Filter {
        // SAFETY: the index is open; a column that it does not have is None.
        let name = unsafe {
            let attributes = pgrx::PgTupleDesc::from_pg_unchecked((*index).rd_att);
            attributes.get(column + 1).map(|attribute| attribute.name().to_owned())
        };
        let kind = Kind::from_stored(meta.kinds[column]);
        Filter {
            column: name.unwrap_or_default(),
            keys: kind.map_or(String::new(), |kind| format!("{kind:?}").to_lowercase()),
        }
    }
}

impl Stats {
    /// Reads every page of an open index.
    pub fn of(index: pg_sys::Relation) -> Stats {
        let structure = at_rest(index, || Structure::read(index, maintenance_memory(), &mut |_| ()));
        let meta = &structure.info.meta;
        let levels = (0..=meta.height).rev();
        let operator = Operator::from_code(meta.operator);
        let (live, slots) = structure.leaves().fold((0, 0), |(live, slots), l| (live + l.entries, slots + l.slots));
        let (lists, largest) = (structure.leaves().count() as u64, structure.leaves().map(|l| l.entries).max());
        let largest_list = largest.unwrap_or(0);
        Stats {
            format: page::FORMAT,
            element: operator.map_or_else(String::new, |o| format!("{:?}", o.element).to_lowercase()),
            metric: operator.map_or_else(String::new, |o| format!("{:?}", o.metric).to_lowercase()),
            dimensions: meta.dims,
            bits: meta.bits,
            filters: (0..meta.filters as usize).map(|i| Filter::of(index, meta, i)).collect(),
            height: meta.height,
            levels: levels.map(|n| structure.lists.iter().filter(|l| u32::from(l.level) == n).count() as u64).collect(),
            lists,
            rows: Rows {
                live,
                free: slots - live,
                largest_list,
                imbalance: (live > 0).then(|| largest_list as f64 * lists as f64 / live as f64),
            },
            pages: structure.counts,
            bytes: u64::from(storage::blocks(index)) * page::PAGE as u64,
            rows_when_built: meta.rows,
            splits: meta.splits,
            merges: meta.merges,
            closed_lists: structure.lists.iter().filter(|l| l.closed).count() as u64,
            tuned_by: meta.tuned_by,
            probes: RECALLS
                .into_iter()
                .map(|target_recall| {
                    let lists = meta.rule_at(target_recall).probes(FIRST_GOAL as f64);
                    Probes { target_recall, lists }
                })
                .collect(),
        }
    }
}
