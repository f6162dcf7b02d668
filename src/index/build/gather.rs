//! Reads the table for a build: all rows when memory holds them, else a sample.

use crate::index::build::{self, Build, progress};
use crate::index::page::ItemPointer as _;
use crate::index::page::{LEFT_OUT_NULL, Tid};
use crate::index::storage;
use crate::pg::memory::is_to_be_had;
use ann::filter::RowKeys;
use ann::memory;
use ivflsh::sample::Reservoir;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Rows of the sample for each list, if memory allows.
const SAMPLE_PER_LIST: usize = 64;
/// Bytes that training needs for a row beside its values.
const TRAINING_BYTES: usize = 12;
/// Blocks read to learn how many rows a table has that was never counted.
const LOOK_BLOCKS: u32 = 32;
/// Rows of a sample at least.
const LEAST_SAMPLE: usize = 10_000;
/// Where a sample has fewer, centroids are moved to the means of all rows, and once more where it has fewer than this.
const FEW_PER_LIST: usize = 16;
/// Share of `maintenance_work_mem` for the rows.
const SHARE: f64 = 0.75;
/// What a build takes beyond `maintenance_work_mem` at most: centroids and batches of rows, mainly.
const BEYOND: usize = 40 << 20;
/// Copies of the centroids that there are at a time while they are trained, and afterwards.
const TRAINED_COPIES: usize = 5;
const KEPT_COPIES: usize = 4;
/// A build does not try to get on with less.
const LEAST_MEMORY: usize = 1 << 20;
/// Rows that are more than this share of the table are read as all are.
const MOST_OF_THE_TABLE: f64 = 0.7;

/// Rows of the table.
pub struct Gathered {
    /// As read, padded with zeroes.
    pub data: Vec<f32>,
    /// All rows of the table; None for a sample.
    pub whole: Option<Whole>,
    /// Rows of the table that have a vector, estimated where this is a sample.
    pub table_rows: f64,
}

/// What comes with the vectors of all rows.
pub struct Whole {
    pub tids: Vec<Tid>,
    /// The filter columns of each; empty if there are none.
    pub keys: Vec<RowKeys>,
    /// Rows of the table as PostgreSQL counts them.
    pub heap_rows: f64,
}

/// Rows that a training set for so many lists should have.
pub fn training_rows(lists: usize) -> usize {
    lists.saturating_mul(SAMPLE_PER_LIST).max(LEAST_SAMPLE)
}

/// Memory for a build, in bytes: `maintenance_work_mem`, or the part of it that can be had, and whether it is all.
pub fn memory() -> (usize, bool) {
    // SAFETY: a plain setting of the backend, in kB.
    let allowed = unsafe { pg_sys::maintenance_work_mem as usize * 1024 };
    let mut memory = allowed;
    while memory > LEAST_MEMORY && !is_to_be_had(memory + BEYOND) {
        memory /= 2;
    }
    (memory, memory == allowed)
}

/// Most lists whose centroids a build has memory for.
pub fn most_lists(memory: usize, padded: usize) -> usize {
    (memory + BEYOND) / 4 * 3 / ((TRAINED_COPIES + 1) * 4 * padded)
}

/// Memory (kB) for the sort of the rows, beside the centroids of so many lists.
pub fn sort_memory(build: &Build, lists: usize) -> i32 {
    let others = KEPT_COPIES * lists * 4 * build.padded + 4 * build::BATCH_BYTES;
    let memory = build.memory;
    (memory.saturating_sub(others.saturating_sub(BEYOND)).max(memory / 4) / 1024) as i32
}

/// Reads rows for `build`: all, if they fit, else as many as a training set should have and memory holds.
pub fn gather(build: &Build) -> Gathered {
    let memory = build.memory;
    let share = (memory as f64 * SHARE) as usize;
    let blocks = storage::blocks(build.heap);
    let rows = estimate(build, blocks);
    let fit = (share / bytes_per_row(build)).max(256);
    if rows <= fit as f64 {
        let mut reader = Reader::new(build, fit, true);
        let heap_rows = reader.read_all();
        return reader.finish(1.0, heap_rows);
    }
    let lists = build.wanted_lists(rows);
    let centroids = TRAINED_COPIES * lists * 4 * build.padded;
    let bytes = share.min((memory + BEYOND).saturating_sub(centroids)).max(memory / 4);
    let fit = (bytes / (4 * build.padded + TRAINING_BYTES)).max(256);
    let wanted = training_rows(lists).min(fit);
    let improvements = improvements(wanted, lists);
    if improvements > 0 {
        notice(build, wanted, lists, improvements);
    }
    let mut sampled = blocks;
    if (wanted as f64) < rows * MOST_OF_THE_TABLE {
        sampled = ((wanted as f64 / rows * f64::from(blocks) * 1.1) as u32).max(1).min(blocks);
    }
    let mut reader = Reader::new(build, wanted, false);
    reader.read_blocks(blocks, sampled);
    if sampled < blocks && reader.reservoir.seen() < wanted / 2 {
        // The estimate of the rows was far off.
        sampled = blocks;
        reader = Reader::new(build, wanted, false);
        reader.read_blocks(blocks, blocks);
    }
    reader.finish(f64::from(blocks) / f64::from(sampled.max(1)), 0.0)
}

/// How often the table is read to improve the centroids of so many lists, made from a sample of so many rows.
pub fn improvements(rows: usize, lists: usize) -> usize {
    // A sample of blocks has some rows more or less than was wanted.
    if lists < 2 || rows >= lists * SAMPLE_PER_LIST * 9 / 10 {
        0
    } else if rows >= lists * FEW_PER_LIST {
        1
    } else {
        2
    }
}

/// Tells the user that more memory would help.
fn notice(build: &Build, rows: usize, lists: usize, improvements: usize) {
    let enough = (SAMPLE_PER_LIST * lists * (4 * build.padded + TRAINING_BYTES)) as f64 / SHARE;
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        format!("ivflsh index build has memory for a sample of {rows} rows to place {lists} lists by"),
        pgrx::function_name!(),
    )
    .set_detail(format!(
        "The table is read {} more to place them better.",
        if improvements == 1 { "once" } else { "twice" }
    ))
    .set_hint(match build.has_all_memory {
        true => format!("Increase maintenance_work_mem to {} MB to speed up the build.", (enough / 1e6).ceil()),
        false => format!("The system has no more than {} MB for the build.", build.memory >> 20),
    })
    .report(PgLogLevel::NOTICE);
}

/// Bytes that a row takes while it is in memory.
fn bytes_per_row(build: &Build) -> usize {
    let keys = if build.filters.len() > 0 { size_of::<RowKeys>() + 8 * build.filters.len() + 16 } else { 0 };
    // TID, list, distance, place in the order of the lists, state.
    4 * build.padded + keys + size_of::<Tid>() + 13
}

/// Rows of the table, as the planner estimates them.
fn estimate(build: &Build, blocks: u32) -> f64 {
    // Of an empty table PostgreSQL thinks that it will have ten pages.
    if blocks == 0 {
        return 0.0;
    }
    let (mut pages, mut rows, mut visible) = (0, 0.0, 0.0);
    // SAFETY: `heap` is an open table.
    let counted = unsafe {
        pg_sys::estimate_rel_size(build.heap, std::ptr::null_mut(), &mut pages, &mut rows, &mut visible);
        // A table that was empty has no pages.
        (*(*build.heap).rd_rel).reltuples >= 0.0 && (*(*build.heap).rd_rel).relpages > 0
    };
    if counted || blocks <= LOOK_BLOCKS {
        return rows;
    }
    // What PostgreSQL makes of the row's width is far off when vectors are out of line.
    let mut look = Reader::new(build, 1, false);
    look.read_blocks(blocks, LOOK_BLOCKS);
    look.reservoir.seen() as f64 * f64::from(blocks) / f64::from(LOOK_BLOCKS)
}

/// State of a scan.
struct Reader<'b> {
    build: &'b Build,
    value: Vec<f32>,
    reservoir: Reservoir,
    /// While all rows have been kept.
    whole: Option<(Vec<Tid>, Vec<RowKeys>)>,
}

impl<'b> Reader<'b> {
    /// Keeps up to `wanted` rows. `whole`: all there are, if they are no more than that.
    fn new(build: &'b Build, wanted: usize, whole: bool) -> Reader<'b> {
        Reader {
            build,
            value: Vec::new(),
            reservoir: Reservoir::new(wanted, build.dims, build.padded, build.seed),
            whole: whole.then(Default::default),
        }
    }

    /// Reads the whole table as a build that indexes its rows must; returns its rows.
    fn read_all(&mut self) -> f64 {
        // SAFETY: `build` holds open relations; the state outlives the call. Not from where another scan is: the order
        // of the rows decides about the lists.
        unsafe {
            pg_sys::table_index_build_scan(
                self.build.heap,
                self.build.index,
                self.build.info,
                false,
                true,
                Some(read_row),
                (&raw mut *self).cast(),
                std::ptr::null_mut(),
            )
        }
    }

    /// Reads `sampled` of the table's blocks.
    fn read_blocks(&mut self, blocks: u32, sampled: u32) {
        let build = self.build;
        progress(pg_sys::PROGRESS_CREATEIDX_TUPLES_TOTAL, 0);
        let mut read = |start: u32, n: u32| {
            // SAFETY: as in `read_all`.
            unsafe {
                pg_sys::table_index_build_range_scan(
                    build.heap,
                    build.index,
                    build.info,
                    false,
                    true,
                    false,
                    start,
                    n,
                    Some(read_row),
                    (&raw mut *self).cast(),
                    std::ptr::null_mut(),
                );
            }
        };
        if sampled >= blocks {
            if blocks > 0 {
                read(0, blocks);
            }
            return;
        }
        // SAFETY: a sampler on the stack.
        unsafe {
            let mut sampler = pg_sys::BlockSamplerData::default();
            pg_sys::BlockSampler_Init(&mut sampler, blocks, sampled as i32, (build.seed >> 16) as u32);
            while pg_sys::BlockSampler_HasMore(&mut sampler) {
                read(pg_sys::BlockSampler_Next(&mut sampler), 1);
                crate::pg::memory::check_for_interrupts();
            }
        }
    }

    /// `factor`: blocks of the table for each block read.
    fn finish(self, factor: f64, heap_rows: f64) -> Gathered {
        let table_rows = self.reservoir.seen() as f64 * factor;
        let whole = self.whole.map(|(tids, keys)| Whole { tids, keys, heap_rows });
        Gathered { data: self.reservoir.into_rows(), whole, table_rows }
    }
}

/// Callback of the scans.
#[pg_guard]
unsafe extern "C-unwind" fn read_row(
    _index: pg_sys::Relation,
    tid: pg_sys::ItemPointer,
    values: *mut pg_sys::Datum,
    nulls: *mut bool,
    _alive: bool,
    state: *mut std::ffi::c_void,
) {
    // SAFETY: PostgreSQL's arguments; `state` is the Reader given to the scan.
    unsafe {
        let reader = &mut *state.cast::<Reader>();
        if *nulls {
            reader.build.leave_out(LEFT_OUT_NULL);
            return;
        }
        build::read_vector(reader.build, *values, &mut reader.value);
        reader.reservoir.offer(&reader.value);
        if reader.reservoir.has_dropped() {
            reader.whole = None;
        }
        if let Some((tids, keys)) = &mut reader.whole {
            memory::push(tids, Tid::from_item(&*tid));
            if reader.build.filters.len() > 0 {
                memory::push(keys, build::read_keys(reader.build, values, nulls));
            }
        }
    }
}
