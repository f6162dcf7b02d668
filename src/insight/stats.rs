//! `ivflsh_stats`: what the pages say.

use crate::index::compat;
use crate::index::meta::Info;
use crate::index::metric::Operator;
use crate::index::page::{self, Damage, Kind, META_BLOCK, Posting, RECALLS};
use crate::index::storage::{self, Buffer, Checked, corrupted};
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
    /// Levels of lists of lists.
    height: u32,
    /// Lists of rows.
    lists: u32,
    rows: Rows,
    pages: Pages,
    bytes: u64,
    rows_when_built: u64,
    /// Lists that a search reads on average for a target recall, as measured when the index was built.
    probes: Vec<Probes>,
}

#[derive(Serialize, Default)]
struct Rows {
    live: u64,
    /// Places that a deleted row has left, or that have not been used yet.
    free: u64,
    largest_list: u64,
}

#[derive(Serialize, Default)]
struct Pages {
    meta: u64,
    lists: u64,
    inner_lists: u64,
    sketches: u64,
    codes: u64,
    free: u64,
}

#[derive(Serialize)]
struct Probes {
    target_recall: f32,
    lists: f32,
}

impl Stats {
    /// Reads every page of an open index.
    pub fn of(index: pg_sys::Relation) -> Stats {
        let info = Info::of(index);
        let meta = &info.meta;
        let leaf = info.leaf_layout();
        let blocks = storage::blocks(index);
        let mut stats = Stats {
            format: page::FORMAT,
            dimensions: meta.dims,
            bits: meta.bits,
            height: meta.height,
            bytes: u64::from(blocks) * page::PAGE as u64,
            rows_when_built: meta.rows,
            ..Stats::default()
        };
        if let Some(operator) = Operator::from_code(meta.operator) {
            stats.element = format!("{:?}", operator.element).to_lowercase();
            stats.metric = format!("{:?}", operator.metric).to_lowercase();
        }
        let mut in_list = std::collections::HashMap::<u32, u64>::new();
        for number in META_BLOCK..blocks {
            compat::vacuum_delay();
            let buffer = Buffer::read(index, number);
            let opaque = match page::check_any(buffer.page()) {
                Ok(opaque) => opaque,
                // Left by a crash.
                Err(Damage::New) => {
                    stats.pages.free += 1;
                    continue;
                }
                Err(damage) => corrupted(index, number, damage),
            };
            let pages = &mut stats.pages;
            match opaque.kind {
                k if k == Kind::Posting as u8 && opaque.level > 0 => pages.inner_lists += 1,
                k if k == Kind::Posting as u8 => {
                    pages.lists += 1;
                    let posting = Posting::open(buffer.page(), &leaf, 0).or_corrupted(index, number);
                    let mut live = 0;
                    for b in 0..posting.blocks() {
                        live += u64::from(posting.block(b).live().count_ones());
                        stats.rows.free += posting.block(b).slots() as u64;
                    }
                    stats.rows.live += live;
                    *in_list.entry(opaque.list).or_default() += live;
                }
                k if k == Kind::Sketch as u8 => pages.sketches += 1,
                k if k == Kind::Code as u8 => pages.codes += 1,
                k if k == Kind::Free as u8 => pages.free += 1,
                _ => pages.meta += 1,
            }
        }
        stats.rows.free -= stats.rows.live.min(stats.rows.free);
        stats.rows.largest_list = in_list.values().copied().max().unwrap_or(0);
        stats.lists = in_list.len() as u32;
        stats.probes = RECALLS
            .into_iter()
            .zip(meta.probes)
            .map(|(target_recall, lists)| Probes { target_recall, lists })
            .collect();
        stats
    }
}
