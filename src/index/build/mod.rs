//! `CREATE INDEX`.
//!
//! 1. Read the table: all rows, if `maintenance_work_mem` holds them, else a sample of its blocks.
//! 2. k-means on (a sample of) these rows gives the centroids; the upper levels of the tree are k-means of centroids.
//!    Centroids are replaced by what their codes stand for, so that a search computes exact centroid distances from them.
//! 3. Assign the rows at hand to their lists, and calibrate the stopping rule on them.
//! 4. If they are not all, read the table again: place, assign and encode batches of rows on the thread pool; sort the
//!    entries by list externally. If they are, encode them list by list.
//! 5. Write the lists, then the lists of lists, then the meta page; log all pages.

pub mod assign;
pub mod gather;
pub mod sort;

use super::metric::{Element, Frame, Operator, Placed};
use super::options::{self, Partition};
use super::page::{self, Child, Kind, Layout, META_BLOCK, Meta, NO_BLOCK, Shape, StoppingRule, Tid};
use super::pgvector;
use super::storage::{self, Buffer};
use super::terms;
use crate::index::filter::columns::Columns;
use crate::index::metric::OperatorClass as _;
use crate::index::read::info::column_dims;
use crate::index::read::rows as heap;
use crate::index::storage::Index;
use crate::index::storage::pages;
use crate::pg::compat;
use crate::pg::identity;
use crate::pg::threads::{Pool, trim_memory};
use ann::cluster::{self, Assigner, Centroids, Matrix, TrainOptions};
use ann::filter::{RowKeys, Summary};
use ann::memory;
use assign::{InMemory, Lists, Records, Residuals, Table};
use gather::Whole;
use ivflsh::INNER_ENTRIES;
use ivflsh::ROOT_ENTRIES;
use ivflsh::SEED;
use ivflsh::calibrate;
use ivflsh::calibrate::Sample;
use ivflsh::change::recalibrate;
use ivflsh::outliers::{self, Middle};
use ivflsh::sample::Random;
use ivflsh::write::encode::{self, Encoder};
use ivflsh::write::list::{Entry, ListWriter};
use pgrx::prelude::*;
use rayon::prelude::*;
use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Lists that a first measurement of the stopping rule takes for what the highest recall needs.
const FIRST_PROBES: f32 = 100.0;
/// An index built on fewer rows has no mean: it is set when the first list is split.
const LEAST_FOR_MEAN: usize = 32;
/// Bytes of f32 in a batch of rows.
pub const BATCH_BYTES: usize = 4 << 20;

/// Phases that `pg_stat_progress_create_index` shows.
#[derive(Clone, Copy)]
#[repr(i64)]
enum Phase {
    Reading = 2,
    Clustering = 3,
    Calibrating = 4,
    Improving = 5,
    Assigning = 6,
    Sorting = 7,
    Writing = 8,
    Logging = 9,
}

/// `ambuildphasename`
#[pg_guard]
pub unsafe extern "C-unwind" fn ambuildphasename(phase: i64) -> *mut std::ffi::c_char {
    let name = match phase {
        1 => c"initializing",
        2 => c"reading rows",
        3 => c"clustering",
        4 => c"calibrating recall",
        5 => c"improving clusters",
        6 => c"assigning rows to lists",
        7 => c"sorting",
        8 => c"writing lists",
        9 => c"logging pages",
        _ => return std::ptr::null_mut(),
    };
    name.as_ptr().cast_mut()
}

/// Tells `pg_stat_progress_create_index`.
pub fn progress(parameter: u32, value: i64) {
    // SAFETY: only sets a value in this backend's status entry.
    unsafe { pg_sys::pgstat_progress_update_param(parameter as i32, value) }
}

fn enter(phase: Phase) {
    progress(pg_sys::PROGRESS_CREATEIDX_SUBPHASE, phase as i64);
}

/// What is built, and with what.
pub struct Build {
    pub heap: pg_sys::Relation,
    pub index: pg_sys::Relation,
    pub info: *mut pg_sys::IndexInfo,
    operator: Operator,
    pub dims: usize,
    pub padded: usize,
    pub filters: Columns,
    /// Bits of the rows' codes.
    bits: u32,
    /// Of rotation, sample and k-means.
    pub seed: u64,
    pub leaf: Layout,
    inner: Layout,
    pub pool: Pool,
    /// Bytes that it may take, and can get.
    pub memory: usize,
    /// Whether that is all of `maintenance_work_mem`.
    pub has_all_memory: bool,
    /// [`Meta::left_out`], as far as rows have been read.
    pub left_out: Cell<u32>,
}

/// Lists of one level while the tree is made.
struct Level {
    /// Exact centroids, then what their codes stand for.
    centroids: Vec<f32>,
    /// Index of each list's parent on the next level up (0 under the root).
    parents: Vec<u32>,
    /// The centroids as entries of their parents, see [`encode::write_record`].
    records: Vec<u8>,
}

/// `ambuild`
#[pg_guard]
pub unsafe extern "C-unwind" fn ambuild(
    heap: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
) -> *mut pg_sys::IndexBuildResult {
    pgvector::check_options(index);
    if pgvector::is_idle(index) {
        pgvector::warn_idle(index);
        // SAFETY: a result of zeroes, read by the caller before its memory context goes.
        return unsafe { pg_sys::palloc0(size_of::<pg_sys::IndexBuildResult>()).cast() };
    }
    if options::partition(index) == Partition::Terms {
        // SAFETY: PostgreSQL's arguments.
        let (heap_rows, index_rows) = unsafe { terms::build::build(heap, index, info) };
        return finish(index, heap_rows, index_rows);
    }
    let operator = Operator::of_index(index);
    operator.check_lists();
    let filters = Columns::of_index(index);
    let dims = checked_dims(index, operator);
    let padded = ann::quantize::padded_dims(dims);
    let bits = bits(index, operator);
    let shape = Shape { padded, bits, filters: filters.len() };
    // Threads come first: what they take is not to be had any more.
    let pool = Pool::new();
    let (memory, has_all_memory) = gather::memory();
    let build = Build {
        heap,
        index,
        info,
        operator,
        dims,
        padded,
        filters,
        bits,
        seed: seed(index),
        leaf: Layout::new(shape, false),
        inner: Layout::new(shape, true),
        pool,
        memory,
        has_all_memory,
        left_out: Cell::new(0),
    };
    let (heap_rows, index_rows) = build.run();
    finish(index, heap_rows, index_rows)
}

/// Logs the pages of an index that has been built; returns what `ambuild` has to.
fn finish(index: pg_sys::Relation, heap_rows: f64, index_rows: f64) -> *mut pg_sys::IndexBuildResult {
    // SAFETY: `index` is open; the result is read by the caller before its memory context goes.
    unsafe {
        if compat::needs_wal(index) {
            enter(Phase::Logging);
            pg_sys::log_newpage_range(index, pg_sys::ForkNumber::MAIN_FORKNUM, 0, storage::blocks(index), true);
        }
        let result: *mut pg_sys::IndexBuildResult = pg_sys::palloc0(size_of::<pg_sys::IndexBuildResult>()).cast();
        (*result).heap_tuples = heap_rows;
        (*result).index_tuples = index_rows;
        result
    }
}

/// `ambuildempty`: the init fork of an unlogged index.
#[pg_guard]
pub unsafe extern "C-unwind" fn ambuildempty(index: pg_sys::Relation) {
    if pgvector::is_idle(index) {
        return;
    }
    let fork = pg_sys::ForkNumber::INIT_FORKNUM;
    if options::partition(index) == Partition::Terms {
        terms::build::build_empty(index);
        return log_init_fork(index);
    }
    let operator = Operator::of_index(index);
    operator.check_lists();
    let filters = Columns::of_index(index);
    let dims = checked_dims(index, operator);
    let mut meta_buffer = Buffer::allocate(index, fork);
    let mut root_buffer = Buffer::allocate(index, fork);
    let (seed, bits) = (seed(index), bits(index, operator));
    let mut meta = Meta::new(dims as u32, operator.code(), seed, bits, &filters.stored());
    meta.root = root_buffer.block();
    let page = meta_buffer.page_unlogged();
    page::init(page, Kind::Meta, 0, 0);
    meta.write(page);
    let page = root_buffer.page_unlogged();
    page::init(page, Kind::Posting, 0, meta.root_list);
    page::edit_opaque(page, |o| (o.head, o.insert_at) = (meta.root, meta.root));
    drop((meta_buffer, root_buffer));
    log_init_fork(index);
}

/// Logs the init fork of an index, which has just been written.
fn log_init_fork(index: pg_sys::Relation) {
    let fork = pg_sys::ForkNumber::INIT_FORKNUM;
    // After a crash the init fork becomes the index, so it must be in the WAL although the index is not; GenericXLog would
    // leave it out.
    // SAFETY: `index` is open; its init fork has just been written and no page of it is locked.
    unsafe {
        let blocks = pg_sys::RelationGetNumberOfBlocksInFork(index, fork);
        pg_sys::log_newpage_range(index, fork, 0, blocks, true);
    }
}

/// Bits per dimension of the rows' codes: see [`Shape::bits`].
fn bits(index: pg_sys::Relation, operator: Operator) -> u32 {
    let bits = options::bits(index);
    if !operator.is_exact() {
        return bits;
    }
    if bits != options::DEFAULT_BITS {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("an index of bit strings cannot have bits = {bits}"),
            "It holds them as they are."
        );
    }
    page::OWN_BITS
}

/// The seed of an index: never 0.
fn seed(index: pg_sys::Relation) -> u64 {
    SEED ^ (options::seed(index) as u64) << 20
}

/// Dimensions of the column, or an ERROR when it has none or too many.
fn checked_dims(index: pg_sys::Relation, operator: Operator) -> usize {
    let dims = column_dims(index).unwrap_or_else(|| {
        ereport!(ERROR, PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "column does not have dimensions");
    });
    let most = if operator.element == Element::Bit { page::MAX_DIMS } else { page::MAX_VECTOR_DIMS };
    if dims > most as usize {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("column cannot have more than {most} dimensions for ivflsh index")
        );
    }
    dims
}

/// Reads the vector of a row into `out`.
///
/// # Safety
/// `datum` is a non-NULL value of the indexed column.
pub unsafe fn read_vector(build: &Build, datum: pg_sys::Datum, out: &mut Vec<f32>) {
    // SAFETY: by contract.
    unsafe { build.operator.read(datum, out) };
    if out.len() != build.dims {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
            format!("expected {} dimensions, not {}", build.dims, out.len())
        );
    }
}

/// Reads the filter columns of a row.
///
/// # Safety
/// `values` and `nulls` are those of a row of the index.
pub unsafe fn read_keys(build: &Build, values: *const pg_sys::Datum, nulls: *const bool) -> RowKeys {
    let mut keys = RowKeys::new(build.filters.len());
    // SAFETY: by contract.
    unsafe { build.filters.read(values, nulls, &mut keys) };
    keys
}

impl Build {
    /// Builds the index; returns rows of the table, and of the index.
    fn run(self) -> (f64, f64) {
        // The meta page comes first, and is filled last.
        drop(Buffer::allocate(self.index, pg_sys::ForkNumber::MAIN_FORKNUM));

        enter(Phase::Reading);
        let gathered = gather::gather(&self);
        let table_rows = gathered.table_rows;
        let (data, mean) = self.mean(gathered.data);
        let frame = Arc::new(Frame::new(self.operator, self.dims, self.seed, mean.clone()));
        let lists = self.wanted_lists(table_rows).min(data.len() / self.padded / 4);
        let rows = self.place(&frame, data, gathered.whole, gather::training_rows(lists));
        if rows.nowhere {
            self.leave_out(page::LEFT_OUT_NOWHERE);
        }

        let mut meta = Meta::new(self.dims as u32, self.operator.code(), self.seed, self.bits, &self.filters.stored());
        let trained = (lists > 1).then(|| self.train(&rows, lists));
        // There may be fewer distinct rows than lists. A single list is around the origin, as whoever reads it takes it to be.
        let trained = trained.filter(|(_, centroids)| centroids.len() > self.padded);
        let usual = rows.usual;
        let Some(whole) = rows.whole else {
            drop((rows.data, rows.placed));
            trim_memory();
            let levels = self.levels(trained.map(|(training, mut centroids)| {
                for _ in 0..gather::improvements(training, lists) {
                    enter(Phase::Improving);
                    centroids = assign::improve(&self, frame.clone(), self.lists(centroids, usual));
                }
                centroids
            }));
            let lists = self.lists(memory::copied(&levels[0].centroids), usual);
            trim_memory();
            enter(Phase::Assigning);
            let mut sorted = assign::scan(&self, frame.clone(), lists);
            enter(Phase::Sorting);
            sorted.sort.perform();
            let meta = self.write(sorted.sort, &sorted.residuals, levels, &mean, meta);
            if meta.lists > 1 {
                enter(Phase::Calibrating);
                self.measure(&frame, meta);
            }
            return (sorted.heap_rows, sorted.index_rows);
        };
        let levels = self.levels(trained.map(|(_, centroids)| centroids));
        let lists = self.lists(memory::copied(&levels[0].centroids), usual);
        enter(Phase::Calibrating);
        let data = rows.data;
        let (rule, assigned, distances) = self.calibrate(&frame, &lists, &data, rows.usable);
        if let Some(rule) = rule {
            meta.rule = rule;
        }
        let mut residuals = memory::filled(Residuals::default(), levels[0].parents.len());
        for ((&list, &distance), &placed) in assigned.iter().zip(&distances).zip(&rows.placed) {
            residuals[list as usize].add(if placed == Placed::Usual { distance } else { f32::INFINITY });
        }
        let order = ivflsh::order_of(&assigned, residuals.len(), crate::pg::memory::check_for_interrupts);
        let Whole { tids, keys, heap_rows } = whole;
        let table = Table { data, tids, keys, placed: rows.placed, lists: assigned, order };
        let index_rows = table.tids.len() as f64;
        let records = InMemory::new(&self, frame, lists, Arc::new(table));
        self.write(records, &residuals, levels, &mean, meta);
        (heap_rows, index_rows)
    }

    /// Notes that some rows are not in the index.
    pub fn leave_out(&self, what: u32) {
        self.left_out.set(self.left_out.get() | what);
    }

    /// Lists for a table of `rows` rows.
    pub fn wanted_lists(&self, rows: f64) -> usize {
        let asked = options::lists(self.index);
        let wanted =
            if asked > 0 { asked } else { self.suitable_lists(rows).min(gather::most_lists(self.memory, self.padded)) };
        wanted.min(options::MAX_LISTS as usize)
    }

    /// Lists for so many rows whatever the memory.
    fn suitable_lists(&self, rows: f64) -> usize {
        (rows / self.leaf.target_rows() as f64) as usize
    }

    /// The mean of rows as they were read (normalised, under cosine), without outliers; empty if there are too few.
    fn mean(&self, data: Vec<f32>) -> (Vec<f32>, Vec<f32>) {
        /// Rows that are summed in one piece: sums do not depend on the threads.
        const PIECE: usize = 1024;
        let (operator, dims, padded) = (self.operator, self.dims, self.padded);
        if data.len() / padded < LEAST_FOR_MEAN {
            return (data, Vec::new());
        }
        self.pool.run(move |_| {
            let row = |i: usize| &data[i * padded..][..padded];
            let middle = Middle::of(Some(operator), dims, outliers::steps(data.len() / padded).map(row));
            let parts = data.par_chunks(PIECE * padded).map(|rows| middle.sum(rows.chunks_exact(padded)));
            let parts: Vec<(Vec<f64>, u64)> = memory::collected_in_parallel(parts);
            let sum = parts.into_iter().reduce(|(mut sum, count), (part, more)| {
                sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
                (sum, count + more)
            });
            let mean = sum.and_then(Middle::mean).unwrap_or_default();
            (data, mean)
        })
    }

    /// Centroids of `lists` clusters, and how many rows they were trained with. Outliers have their share of them to
    /// themselves: else they might move all others.
    fn train(&self, rows: &Rows, lists: usize) -> (usize, Vec<f32>) {
        enter(Phase::Clustering);
        progress(pg_sys::PROGRESS_CREATEIDX_TUPLES_TOTAL, 0);
        let Rows { usable, apart, .. } = *rows;
        let training = usable.min(rows.training);
        let of_outliers = (apart * lists).div_ceil((usable + apart).max(1)).min(lists - 1);
        let cluster = |rows_of: Range<usize>, lists| {
            cluster(&self.pool, rows.data.clone(), rows_of, self.padded, lists, self.seed)
        };
        let mut centroids = cluster(0..training, lists - of_outliers);
        if of_outliers > 0 {
            memory::append(&mut centroids, &cluster(usable..usable + apart, of_outliers));
        }
        (training, centroids)
    }

    /// Moves rows into the index's coordinates. Rows without direction are dropped. The first `training` rows become a
    /// random sample of all, if these are many more.
    fn place(&self, frame: &Arc<Frame>, data: Vec<f32>, whole: Option<Whole>, training: usize) -> Rows {
        let (frame, padded, seed) = (frame.clone(), self.padded, self.seed);
        self.pool.run(move |_| {
            let mut rows = Rows::new(&frame, data, whole, padded);
            // The first rows of a table may be all alike.
            if (training as f64) < rows.usable as f64 * 0.7 {
                rows.training = training;
                rows.draw(training, seed);
            }
            rows
        })
    }

    /// The lists of rows with these centroids, as rows are assigned to them; see [`Lists::new`].
    fn lists(&self, centroids: Vec<f32>, usual: f32) -> Arc<Lists> {
        let padded = self.padded;
        self.pool.run(move |_| Arc::new(Lists::new(centroids, padded, usual)))
    }

    /// The levels of the tree above these lists of rows, which come first; None: there is one list.
    fn levels(&self, centroids: Option<Vec<f32>>) -> Vec<Level> {
        let Some(centroids) = centroids else {
            return vec![Level { centroids: vec![0.0; self.padded], parents: vec![0], records: Vec::new() }];
        };
        let mut levels = vec![centroids];
        while levels.last().unwrap().len() / self.padded > ROOT_ENTRIES {
            let below = Arc::new(memory::copied(levels.last().unwrap()));
            let count = below.len() / self.padded;
            levels.push(cluster(&self.pool, below, 0..count, self.padded, count / INNER_ENTRIES, self.seed));
        }
        let (space, inner) = (self.operator.space(), self.inner);
        self.pool.run(move |_| quantize_levels(levels, space, &inner))
    }

    /// Assigns all rows, and measures the stopping rule on those that are `usable`; no rule for a single list.
    fn calibrate(
        &self,
        frame: &Arc<Frame>,
        lists: &Arc<Lists>,
        rows: &Arc<Vec<f32>>,
        usable: usize,
    ) -> (Option<StoppingRule>, Vec<u32>, Vec<f32>) {
        let (space, padded) = (self.operator.space(), self.padded);
        let (frame, lists, data) = (frame.clone(), lists.clone(), rows.clone());
        self.pool.run(move |cancelled| {
            let (assigned, distances) = lists.assign(Matrix::new(&data, padded), cancelled);
            let Some(centroids) = lists.centroids() else { return (None, assigned, distances) };
            let mut residuals = memory::filled(Residuals::default(), centroids.rows());
            for (&list, &distance) in assigned.iter().zip(&distances).take(usable) {
                residuals[list as usize].add(distance);
            }
            let mean = &frame.rotated_mean();
            let sample = Sample {
                space,
                padded,
                rows: &data[..usable * padded],
                lists: &assigned[..usable],
                centroids: centroids.data,
                radii: &memory::collected(residuals.iter().map(Residuals::radius)),
                mean,
                norm2: calibrate::norm2(&data[..usable * padded], padded, mean),
            };
            (Some(calibrate::calibrate(&sample, cancelled)), assigned, distances)
        })
    }

    /// Measures the stopping rule on the index as it was written: roughly first, so as to know how deep to look.
    fn measure(&self, frame: &Frame, mut meta: Meta) {
        meta.rule = StoppingRule::of_all(FIRST_PROBES);
        // SAFETY: this is called by `ambuild`.
        let owner = unsafe { identity::Build::by_index_build() };
        let mut rows = heap::Rows::of_build(self.index, self.heap, self.operator, &owner);
        for queries in [calibrate::QUERIES[0] / 4, calibrate::QUERIES[0]] {
            if let Some((rule, _)) = recalibrate::measure(pages(self.index), &meta, frame, &mut rows, queries) {
                meta.rule = rule;
            }
        }
        self.write_meta(&meta);
    }

    fn write_meta(&self, meta: &Meta) {
        let mut buffer = Buffer::write(self.index, META_BLOCK);
        let page = buffer.page_unlogged();
        page::init(page, Kind::Meta, 0, 0);
        meta.write(page);
    }

    /// Writes all pages.
    fn write(
        &self,
        mut records: impl Records,
        residuals: &[Residuals],
        levels: Vec<Level>,
        mean: &[f32],
        mut meta: Meta,
    ) -> Meta {
        enter(Phase::Writing);
        let index_rows = residuals.iter().map(|r| r.rows).sum::<u64>() as f64;
        progress(pg_sys::PROGRESS_CREATEIDX_TUPLES_TOTAL, index_rows as i64);
        let mut written = 0_i64;
        let mut last_list = 0;
        let padded = self.padded;
        let mut encoder = Encoder::new(self.operator.space(), &self.leaf);
        // Lists of rows. A list that got no row is left out.
        let mut children: Vec<Option<Child>> = memory::filled(None, residuals.len());
        // Of each list, in the order of `children`.
        let mut summaries = memory::filled(Summary::EMPTY, residuals.len() * self.filters.len());
        {
            let mut writer = ListWriter::new(pages(self.index), &self.leaf, 0);
            let mut open: Option<usize> = None;
            let mut close = |writer: &mut ListWriter<'_, Index>, list: usize, id: u32| {
                let radius = residuals[list].radius();
                let norm2 = ann::distance::norm_squared(&levels[0].centroids[list * padded..][..padded]);
                summaries[list * self.filters.len()..][..self.filters.len()].copy_from_slice(writer.summaries());
                children[list] = Some(Child { head: writer.end(), list: id, radius, norm2 });
            };
            if residuals.len() == 1 || index_rows == 0.0 {
                // A root without a tree exists even when it is empty (as when all rows have gone since the sample).
                last_list += 1;
                writer.begin(last_list);
                open = Some(0);
            }
            while let Some((list, record)) = records.next_record() {
                if open != Some(list) {
                    if let Some(done) = open {
                        close(&mut writer, done, last_list);
                    }
                    last_list += 1;
                    writer.begin(last_list);
                    open = Some(list);
                }
                let tid = encode::read_record(&mut encoder, record);
                writer.add(&encoder.entry(tid));
                written += 1;
                if written % 1024 == 0 {
                    writer.unlock();
                    crate::pg::memory::check_for_interrupts();
                    progress(pg_sys::PROGRESS_CREATEIDX_TUPLES_DONE, written);
                }
            }
            if let Some(done) = open {
                close(&mut writer, done, last_list);
            }
            meta.open_code[0] = writer.open_page();
        }
        drop(records);
        if index_rows == 0.0 {
            children.truncate(1);
        }
        meta.lists = children.iter().flatten().count() as u32;
        meta.spread = spread(residuals);
        (meta.calibrated, meta.calibrated_by) = (meta.lists, calibrate::QUERIES[0] as u32);
        let fewer =
            options::lists(self.index) > 0 || gather::most_lists(self.memory, padded) < self.suitable_lists(index_rows);
        if fewer && meta.lists > 1 {
            meta.target = ((index_rows / f64::from(meta.lists)) as u32).max(page::LEAST_TARGET);
        }
        meta.rows = index_rows as u64;
        meta.left_out = self.left_out.get();
        self.write_tree(levels, children, &summaries, &mut last_list, &mut meta);
        meta.last_list = last_list;
        meta.mean = self.write_mean(mean);
        meta.surveyed = storage::blocks(self.index);
        self.write_meta(&meta);
        meta
    }

    /// Writes the lists of lists, bottom up.
    fn write_tree(
        &self,
        levels: Vec<Level>,
        mut children: Vec<Option<Child>>,
        summaries: &[Summary],
        last_list: &mut u32,
        meta: &mut Meta,
    ) {
        let padded = self.padded;
        let filters = self.filters.len();
        let mut encoder = Encoder::new(self.operator.space(), &self.inner);
        let zero = vec![0.0; padded];
        let bytes = encode::record_bytes(&self.inner);
        if children.len() == 1 {
            let only = children[0].unwrap();
            (meta.root, meta.root_list, meta.height) = (only.head, only.list, 0);
            return;
        }
        for (i, level) in levels.iter().enumerate() {
            let above = levels.get(i + 1);
            let parents = above.map_or(1, |l| l.parents.len());
            let mut members: Vec<Vec<u32>> = memory::filled(Vec::new(), parents);
            for (list, &parent) in level.parents.iter().enumerate() {
                if children[list].is_some() {
                    memory::push(&mut members[parent as usize], list as u32);
                }
            }
            let mut writer = ListWriter::new(pages(self.index), &self.inner, i as u8 + 1);
            let mut next: Vec<Option<Child>> = memory::filled(None, parents);
            for (parent, members) in members.iter().enumerate() {
                if members.is_empty() && above.is_some() {
                    continue;
                }
                crate::pg::memory::check_for_interrupts();
                *last_list += 1;
                writer.begin(*last_list);
                let origin = above.map_or(&zero[..], |l| &l.centroids[parent * padded..][..padded]);
                let mut sum = 0.0;
                for list in members.iter().map(|&l| l as usize) {
                    let child = children[list].unwrap();
                    sum += f64::from(ann::distance::l2_squared(&level.centroids[list * padded..][..padded], origin));
                    encode::read_record(&mut encoder, &level.records[list * bytes..][..bytes]);
                    // Lists of lists have no summaries: they would hold nearly everything.
                    let summaries = if i == 0 { &summaries[list * filters..][..filters] } else { &[] };
                    writer.add(&Entry { child: Some((child, summaries)), ..encoder.entry(Tid::new(child.head, 0)) });
                }
                let radius = (sum / members.len().max(1) as f64).sqrt() as f32;
                let norm2 = ann::distance::norm_squared(origin);
                next[parent] = Some(Child { head: writer.end(), list: *last_list, radius, norm2 });
            }
            children = next;
            meta.height = i as u32 + 1;
            meta.open_code[1] = writer.open_page();
        }
        let root = children[0].unwrap();
        (meta.root, meta.root_list) = (root.head, root.list);
    }

    fn write_mean(&self, mean: &[f32]) -> u32 {
        let mut following = NO_BLOCK;
        // Back to front, so that each page knows the next.
        for part in mean.chunks(page::MEAN_FLOATS).rev() {
            let mut buffer = Buffer::allocate(self.index, pg_sys::ForkNumber::MAIN_FORKNUM);
            let page = buffer.page_unlogged();
            page::init(page, Kind::Mean, 0, 0);
            page::write_mean(page, part);
            page::edit_opaque(page, |o| o.next = following);
            following = buffer.block();
        }
        following
    }
}

/// The mean squared residual of the rows, without lists of outliers; NaN if there are no rows.
fn spread(residuals: &[Residuals]) -> f32 {
    let squares = |residuals: &Residuals| residuals.mean_square() as f32;
    let filled = || residuals.iter().filter(|residuals| residuals.rows > 0);
    let limit = outliers::limit(&mut filled().map(squares).collect::<Vec<f32>>(), outliers::FAR);
    let usual = filled().filter(|residuals| squares(residuals) <= limit);
    let (sum, rows) = usual.fold((0.0, 0), |(sum, rows), r| (sum + r.mean_square() * r.rows as f64, rows + r.rows));
    (sum / rows as f64) as f32
}

/// Rows of the table in the index's coordinates.
struct Rows {
    /// Usual rows first, then outliers, then rows without a place.
    data: Arc<Vec<f32>>,
    usable: usize,
    /// How many outliers there are, beyond [`outliers::APART`].
    apart: usize,
    /// How many of the first rows to train with.
    training: usize,
    /// What three quarters of the rows have at most as their squared norm.
    usual: f32,
    placed: Vec<Placed>,
    /// In the same order.
    whole: Option<Whole>,
    /// There were rows without direction.
    nowhere: bool,
}

impl Rows {
    /// Places rows; drops those without direction, and of a sample those without a place.
    fn new(frame: &Frame, mut data: Vec<f32>, mut whole: Option<Whole>, padded: usize) -> Rows {
        const DROPPED: u8 = 3;
        let placed: Vec<(Placed, f32)> = memory::collected_in_parallel(
            data.par_chunks_exact_mut(padded).map(|x| (frame.place(x), ann::distance::norm_squared(x))),
        );
        let nowhere = placed.iter().any(|row| row.0 == Placed::Nowhere);
        let usual_at = |i: &usize| placed[*i].0 == Placed::Usual;
        let with_place: Vec<usize> = memory::collected((0..placed.len()).filter(usual_at));
        let mut sample: Vec<f32> = outliers::steps(with_place.len()).map(|i| placed[with_place[i]].1).collect();
        let usual = outliers::limit(&mut sample, 1.0);
        let limit = usual * outliers::APART;
        let is_whole = whole.is_some();
        let class = |(placed, square): &(Placed, f32)| match placed {
            Placed::Usual if *square <= limit => 0,
            Placed::Usual => 1,
            Placed::Unbounded | Placed::Far if is_whole => 2,
            _ => DROPPED,
        };
        let usable = placed.iter().filter(|row| class(row) == 0).count();
        let apart = with_place.len() - usable;
        if usable == placed.len() {
            let placed = memory::filled(Placed::Usual, usable);
            return Rows { data: Arc::new(data), usable, apart, training: usable, usual, placed, whole, nowhere };
        }
        let mut order: Vec<usize> = memory::collected((0..placed.len()).filter(|&i| class(&placed[i]) != DROPPED));
        order.sort_unstable_by_key(|&i| (class(&placed[i]), i));
        // Those that come later are few.
        let last = order[usable..].iter().flat_map(|&i| &data[i * padded..][..padded]).copied();
        let last: Vec<f32> = memory::collected(last);
        for (to, &from) in order[..usable].iter().enumerate() {
            data.copy_within(from * padded..(from + 1) * padded, to * padded);
        }
        data.truncate(usable * padded);
        memory::append(&mut data, &last);
        if let Some(Whole { tids, keys, .. }) = &mut whole {
            *tids = memory::collected(order.iter().map(|&i| tids[i]));
            if !keys.is_empty() {
                *keys = memory::collected(order.iter().map(|&i| keys[i].clone()));
            }
        }
        let placed = memory::collected(order.iter().map(|&i| placed[i].0));
        Rows { data: Arc::new(data), usable, apart, training: usable, usual, placed, whole, nowhere }
    }

    /// Draws `count` of the usable rows at random and puts them first.
    fn draw(&mut self, count: usize, seed: u64) {
        let Rows { data, usable, placed, whole, .. } = self;
        let padded = data.len() / placed.len().max(1);
        let data = Arc::get_mut(data).expect("nobody else has the rows yet");
        let mut random = Random::new(seed);
        for to in 0..count.min(*usable) {
            let from = to + random.below(*usable - to);
            if from == to {
                continue;
            }
            let (head, tail) = data.split_at_mut(from * padded);
            head[to * padded..][..padded].swap_with_slice(&mut tail[..padded]);
            placed.swap(to, from);
            if let Some(Whole { tids, keys, .. }) = whole {
                tids.swap(to, from);
                if !keys.is_empty() {
                    keys.swap(to, from);
                }
            }
        }
    }
}

/// Centroids of `lists` clusters of some rows.
fn cluster(pool: &Pool, rows: Arc<Vec<f32>>, some: Range<usize>, padded: usize, lists: usize, seed: u64) -> Vec<f32> {
    if some.is_empty() {
        return vec![0.0; padded];
    }
    let trained = pool.run(move |cancelled| {
        let options =
            TrainOptions { lists, seed, cancelled: &|| cancelled.load(Ordering::Relaxed), ..TrainOptions::default() };
        cluster::train(Matrix::new(&rows[some.start * padded..some.end * padded], padded), &options)
    });
    trained
        .unwrap_or_else(|_| {
            // The backend has stopped waiting by then.
            ereport!(ERROR, PgSqlErrorCode::ERRCODE_QUERY_CANCELED, "index build was cancelled");
        })
        .data
}

/// Assigns each level's lists to the next level's, and replaces all centroids by what their codes stand for. All are encoded
/// relative to the origin, the root's centroid, so that an entry is the same in whichever list of its level it is.
fn quantize_levels(centroids: Vec<Vec<f32>>, space: ann::quantize::Space, inner: &Layout) -> Vec<Level> {
    let (padded, record) = (inner.padded, encode::record_bytes(inner));
    let mut levels: Vec<Level> = centroids
        .into_iter()
        .map(|centroids| {
            let n = centroids.len() / padded;
            Level { parents: memory::zeroed(n), records: memory::zeroed(n * record), centroids }
        })
        .collect();
    for i in (0..levels.len()).rev() {
        let (below, above) = levels.split_at_mut(i + 1);
        let level = &mut below[i];
        let n = level.parents.len();
        let zero = vec![0.0; padded];
        if let Some(above) = above.first() {
            let mut distances = memory::zeroed(n);
            Assigner::new(&Centroids::new(padded, memory::copied(&above.centroids))).assign(
                Matrix::new(&level.centroids, padded),
                &mut level.parents,
                &mut distances,
            );
        }
        let records = level.records.par_chunks_exact_mut(record);
        level.centroids.par_chunks_exact_mut(padded).zip(records).for_each(|(c, record)| {
            let mut encoder = Encoder::new(space, inner);
            encoder.encode_centroid(c, &zero);
            encode::write_record(&encoder, Tid::new(0, 0), record);
        });
    }
    levels
}
