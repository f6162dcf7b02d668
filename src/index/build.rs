//! `CREATE INDEX`.
//!
//! 1. Sample rows, block by block, as many as `maintenance_work_mem` holds.
//! 2. k-means on the sample gives the centroids; the upper levels of the tree are k-means of centroids. Centroids are
//!    replaced by what their codes in the parent list stand for, so that a search computes exact centroid distances
//!    from the codes.
//! 3. Calibrate the stopping rule on the sample.
//! 4. Read the table once: rotate, assign and encode batches of rows on the thread pool; sort by list externally.
//! 5. Write the lists, then the lists of lists, then the meta page; log all pages.

use super::calibrate::{self, Rule, Sample};
use super::compat;
use super::encode::{self, Encoder};
use super::meta::column_dims;
use super::metric::{Frame, Operator, Placed};
use super::options;
use super::page::{self, Child, Kind, Layout, META_BLOCK, Meta, NO_BLOCK, Shape, Tid};
use super::sample::Reservoir;
use super::storage::{self, Buffer};
use super::threads::{Pending, Pool};
use super::write::{Entry, ListWriter};
use crate::filter::columns::Columns;
use ann::cluster::{self, Assigner, Centroids, Matrix, TrainOptions};
use ann::filter::{RowKeys, Summary};
use pgrx::prelude::*;
use rayon::prelude::*;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Seed of rotations, samples and k-means, of which the option `seed` makes another.
const SEED: u64 = 0x1F15_4A5E_ED01_0001;
/// Most entries of the root list: a flat scan of so many sketches costs less than the recall that a beam loses.
pub const ROOT_ENTRIES: usize = 16_384;
/// Entries of the other lists of lists.
pub const INNER_ENTRIES: usize = 256;
/// Rows of the sample for each list, if memory allows.
const SAMPLE_PER_LIST: usize = 64;
/// Blocks read to learn how many rows a table has that was never counted.
const LOOK_BLOCKS: u32 = 32;
/// However many lists the user asks for, one that holds no more rows than this is not split.
const LEAST_TARGET: u32 = 32;
/// An index built on fewer rows has no mean: it is set when the first list is split.
const LEAST_FOR_MEAN: usize = 32;
/// Bytes of f32 in a batch of rows.
const BATCH_BYTES: usize = 4 << 20;

/// Phases that `pg_stat_progress_create_index` shows.
#[derive(Clone, Copy)]
#[repr(i64)]
enum Phase {
    Sampling = 2,
    Clustering = 3,
    Calibrating = 4,
    Assigning = 5,
    Sorting = 6,
    Writing = 7,
}

/// `ambuildphasename`
#[pg_guard]
pub unsafe extern "C-unwind" fn ambuildphasename(phase: i64) -> *mut std::ffi::c_char {
    let name = match phase {
        1 => c"initializing",
        2 => c"sampling rows",
        3 => c"clustering",
        4 => c"calibrating recall",
        5 => c"assigning rows to lists",
        6 => c"sorting",
        7 => c"writing lists",
        _ => return std::ptr::null_mut(),
    };
    name.as_ptr().cast_mut()
}

fn progress(parameter: u32, value: i64) {
    // SAFETY: only sets a value in this backend's status entry.
    unsafe { pg_sys::pgstat_progress_update_param(parameter as i32, value) }
}

fn enter(phase: Phase) {
    progress(pg_sys::PROGRESS_CREATEIDX_SUBPHASE, phase as i64);
}

/// What is built, and with what.
struct Build {
    heap: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
    operator: Operator,
    dims: usize,
    padded: usize,
    filters: Columns,
    /// Bits of the rows' codes.
    bits: u32,
    /// Of rotation, sample and k-means.
    seed: u64,
    leaf: Layout,
    inner: Layout,
    pool: Pool,
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
    let operator = Operator::of_index(index);
    let filters = Columns::of_index(index);
    let dims = checked_dims(index);
    let padded = ann::quantize::padded_dims(dims);
    let bits = options::bits(index);
    let shape = Shape { padded, bits, filters: filters.len() };
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
        pool: Pool::new(),
    };
    let (heap_rows, index_rows) = build.run();
    // SAFETY: `index` is open; the result is read by the caller before its memory context goes.
    unsafe {
        if compat::needs_wal(index) {
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
    let operator = Operator::of_index(index);
    let filters = Columns::of_index(index);
    let dims = checked_dims(index);
    let fork = pg_sys::ForkNumber::INIT_FORKNUM;
    let mut meta_buffer = Buffer::allocate(index, fork);
    let mut root_buffer = Buffer::allocate(index, fork);
    let (seed, bits) = (seed(index), options::bits(index));
    let mut meta = Meta::new(dims as u32, operator.code(), seed, bits, &filters.stored());
    meta.root = root_buffer.block();
    let page = meta_buffer.page_unlogged();
    page::init(page, Kind::Meta, 0, 0);
    meta.write(page);
    let page = root_buffer.page_unlogged();
    page::init(page, Kind::Posting, 0, meta.root_list);
    page::edit_opaque(page, |o| (o.head, o.insert_at) = (meta.root, meta.root));
    drop((meta_buffer, root_buffer));
    // After a crash the init fork becomes the index, so it must be in the WAL although the index is not; GenericXLog would
    // leave it out.
    // SAFETY: `index` is open; its init fork has just been written and no page of it is locked.
    unsafe {
        let blocks = pg_sys::RelationGetNumberOfBlocksInFork(index, fork);
        pg_sys::log_newpage_range(index, fork, 0, blocks, true);
    }
}

/// The seed of an index: never 0.
fn seed(index: pg_sys::Relation) -> u64 {
    SEED ^ (options::seed(index) as u64) << 20
}

/// Dimensions of the column, or an ERROR when it has none or too many.
fn checked_dims(index: pg_sys::Relation) -> usize {
    let dims = column_dims(index).unwrap_or_else(|| {
        ereport!(ERROR, PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "column does not have dimensions");
    });
    if dims > page::MAX_DIMS as usize {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("column cannot have more than {} dimensions for ivflsh index", page::MAX_DIMS)
        );
    }
    dims
}

impl Build {
    /// Builds the index; returns rows of the table, and of the index.
    fn run(self) -> (f64, f64) {
        // The meta page comes first, and is filled last.
        drop(Buffer::allocate(self.index, pg_sys::ForkNumber::MAIN_FORKNUM));

        enter(Phase::Sampling);
        let sampled = self.sample();
        let mut mean = sampled.mean;
        if mean.iter().any(|m| !m.is_finite()) || sampled.rows < LEAST_FOR_MEAN {
            mean.clear();
        }
        let frame = Arc::new(Frame::new(self.operator, self.dims, self.seed, mean.clone()));
        let lists = self.list_count(sampled.table_rows, sampled.rows);

        let mut meta = Meta::new(self.dims as u32, self.operator.code(), self.seed, self.bits, &self.filters.stored());
        let (levels, radii) = if lists < 2 {
            drop(sampled.data);
            (vec![Level { centroids: vec![0.0; self.padded], parents: vec![0], records: Vec::new() }], vec![0.0])
        } else {
            let rows = self.place_sample(&frame, sampled.data);
            let levels = self.train(&rows, lists);
            enter(Phase::Calibrating);
            let (rule, radii) = self.calibrate(&frame, rows, &levels[0], sampled.table_rows);
            meta.calibration = rule.cosine;
            meta.probes = rule.probes;
            (levels, radii)
        };

        enter(Phase::Assigning);
        let sorted = self.assign(&frame, &levels[0], radii.len());
        let (heap_rows, index_rows) = (sorted.heap_rows, sorted.index_rows);
        enter(Phase::Writing);
        self.write(sorted, levels, &mean, meta);
        (heap_rows, index_rows)
    }

    /// Memory for the sample or the sort, in bytes.
    fn memory() -> usize {
        // SAFETY: a plain setting of the backend, in kB.
        unsafe { pg_sys::maintenance_work_mem as usize * 1024 }
    }

    /// Lists for a table of `rows` rows, of which `sampled` are known.
    fn list_count(&self, rows: f64, sampled: usize) -> usize {
        let asked = options::lists(self.index);
        let wanted = if asked > 0 { asked } else { (rows / self.leaf.target_rows() as f64) as usize };
        wanted.min(sampled / 4).min(options::MAX_LISTS as usize)
    }

    /// Block-samples rows of the table.
    fn sample(&self) -> Sampled {
        // SAFETY: `heap`, `index` and `info` are PostgreSQL's; the callback's state outlives the calls.
        unsafe {
            let blocks = storage::blocks(self.heap);
            let (mut pages, mut rows, mut visible) = (0, 0.0, 0.0);
            pg_sys::estimate_rel_size(self.heap, std::ptr::null_mut(), &mut pages, &mut rows, &mut visible);
            if (*(*self.heap).rd_rel).reltuples < 0.0 && blocks > LOOK_BLOCKS {
                // Never counted; what PostgreSQL makes of the row's width is far off when vectors are out of line.
                let mut look = SampleState::new(self, 1);
                look.scan(self, LOOK_BLOCKS);
                rows = look.reservoir.seen() as f64 * f64::from(blocks) / f64::from(LOOK_BLOCKS);
            }
            let asked = options::lists(self.index);
            let lists = if asked > 0 { asked } else { self.list_count(rows, usize::MAX) };
            let fit = Self::memory() * 3 / 4 / (4 * self.padded);
            let wanted = (lists.saturating_mul(SAMPLE_PER_LIST)).clamp(10_000, 100_000_000).min(fit).max(256);
            // Every row, when the sample would be most of the table anyway.
            let sampled_blocks = if rows > 0.0 && (wanted as f64) < rows * 0.7 {
                ((wanted as f64 / rows * f64::from(blocks) * 1.1) as u32).max(1).min(blocks)
            } else {
                blocks
            };
            let mut state = SampleState::new(self, wanted);
            state.scan(self, sampled_blocks);
            if sampled_blocks < blocks && state.reservoir.seen() < wanted / 2 {
                // The estimate of the rows was far off: read everything.
                state = SampleState::new(self, wanted);
                state.scan(self, blocks);
                return state.finish(1.0);
            }
            state.finish(f64::from(blocks) / f64::from(sampled_blocks.max(1)))
        }
    }

    /// Normalises, centres, pads and rotates the sample; rows without direction are dropped.
    fn place_sample(&self, frame: &Arc<Frame>, mut data: Vec<f32>) -> Arc<Vec<f32>> {
        let frame = frame.clone();
        let padded = self.padded;
        self.pool.run(move |_| {
            let keep: Vec<bool> =
                data.par_chunks_exact_mut(padded).map(|x| frame.place(x) != Placed::Nowhere && finite(x)).collect();
            if keep.iter().any(|k| !k) {
                let mut to = 0;
                for (from, _) in keep.iter().enumerate().filter(|(_, k)| **k) {
                    data.copy_within(from * padded..(from + 1) * padded, to * padded);
                    to += 1;
                }
                data.truncate(to * padded);
            }
            Arc::new(data)
        })
    }

    /// Trains the levels of the tree, lists of rows first.
    fn train(&self, rows: &Arc<Vec<f32>>, lists: usize) -> Vec<Level> {
        enter(Phase::Clustering);
        progress(pg_sys::PROGRESS_CREATEIDX_TUPLES_TOTAL, 0);
        let mut levels = vec![cluster(&self.pool, rows.clone(), self.padded, lists, self.seed)];
        while levels.last().unwrap().len() / self.padded > ROOT_ENTRIES {
            let below = Arc::new(levels.last().unwrap().clone());
            let n = below.len() / self.padded / INNER_ENTRIES;
            levels.push(cluster(&self.pool, below, self.padded, n, self.seed));
        }
        let (space, inner) = (self.operator.space(), self.inner);
        self.pool.run(move |_| quantize_levels(levels, space, &inner))
    }

    /// The stopping rule, and the radius of each list.
    fn calibrate(&self, frame: &Arc<Frame>, rows: Arc<Vec<f32>>, leaves: &Level, table_rows: f64) -> (Rule, Vec<f32>) {
        let (space, padded) = (self.operator.space(), self.padded);
        let centroids = leaves.centroids.clone();
        let frame = frame.clone();
        self.pool.run(move |cancelled| {
            let n = rows.len() / padded;
            let lists_n = centroids.len() / padded;
            let known = Centroids::new(padded, centroids);
            let (mut lists, mut distances) = (vec![0; n], vec![0.0; n]);
            if n > 0 {
                Assigner::new(&known).assign(Matrix::new(&rows, padded), &mut lists, &mut distances);
            }
            let radii = radii(lists_n, &lists, &distances);
            let rule = calibrate::calibrate(
                &Sample {
                    space,
                    padded,
                    rows: &rows,
                    lists: &lists,
                    centroids: &known.data,
                    radii: &radii,
                    mean: &frame.rotated_mean(),
                    table_rows,
                },
                cancelled,
            );
            (rule, radii)
        })
    }

    /// Reads the table, assigns and encodes its rows, and sorts them by list.
    fn assign(&self, frame: &Arc<Frame>, leaves: &Level, lists: usize) -> Sorted {
        let centroids = Centroids::new(self.padded, leaves.centroids.clone());
        let assigner = (lists > 1).then(|| {
            self.pool.run({
                let centroids = centroids.clone();
                move |_| Assigner::new(&centroids)
            })
        });
        let job =
            Arc::new(AssignJob { frame: (**frame).clone(), leaf: self.leaf, assigner, centroids: centroids.data });
        let mut state = AssignState {
            build: self,
            job,
            batch: Batch::new(self),
            pending: None,
            sort: Sort::new(encode::record_bytes(&self.leaf)),
            residuals: vec![(0.0, 0); lists],
            index_rows: 0.0,
        };
        // SAFETY: PostgreSQL's relations; the state outlives the call.
        let heap_rows = unsafe {
            pg_sys::table_index_build_scan(
                self.heap,
                self.index,
                self.info,
                true,
                true,
                Some(assign_row),
                (&raw mut state).cast(),
                std::ptr::null_mut(),
            )
        };
        state.submit();
        state.collect();
        enter(Phase::Sorting);
        state.sort.perform();
        Sorted { sort: state.sort, residuals: state.residuals, heap_rows, index_rows: state.index_rows }
    }

    /// Writes all pages.
    fn write(&self, sorted: Sorted, levels: Vec<Level>, mean: &[f32], mut meta: Meta) {
        let Sorted { mut sort, residuals, index_rows, .. } = sorted;
        progress(pg_sys::PROGRESS_CREATEIDX_TUPLES_TOTAL, index_rows as i64);
        let mut written = 0_i64;
        let mut last_list = 0;
        let padded = self.padded;
        let mut encoder = Encoder::new(self.operator.space(), &self.leaf);
        // Lists of rows. A list that got no row is left out.
        let mut children: Vec<Option<Child>> = vec![None; residuals.len()];
        // Of each list, in the order of `children`.
        let mut summaries = vec![Summary::EMPTY; residuals.len() * self.filters.len()];
        {
            let mut writer = ListWriter::new(self.index, &self.leaf, 0);
            let mut open: Option<usize> = None;
            let mut close = |writer: &mut ListWriter<'_>, list: usize, id: u32| {
                let (sum, n) = residuals[list];
                let radius = if n > 0 { (sum / n as f64).sqrt() as f32 } else { 0.0 };
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
            while let Some((list, record)) = sort.next_record() {
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
                    pgrx::check_for_interrupts!();
                    progress(pg_sys::PROGRESS_CREATEIDX_TUPLES_DONE, written);
                }
            }
            if let Some(done) = open {
                close(&mut writer, done, last_list);
            }
            meta.open_code[0] = writer.open_page();
        }
        drop(sort);
        if index_rows == 0.0 {
            children.truncate(1);
        }
        meta.lists = children.iter().flatten().count() as u32;
        let squares: f64 = residuals.iter().map(|r| r.0).sum();
        meta.spread = (squares / index_rows) as f32;
        (meta.calibrated, meta.calibrated_by) = (meta.lists, calibrate::QUERIES as u32);
        if options::lists(self.index) > 0 && meta.lists > 1 {
            meta.target = ((index_rows / f64::from(meta.lists)) as u32).max(LEAST_TARGET);
        }
        meta.rows = index_rows as u64;
        self.write_tree(levels, children, &summaries, &mut last_list, &mut meta);
        meta.last_list = last_list;
        meta.mean = self.write_mean(mean);
        let mut buffer = Buffer::write(self.index, META_BLOCK);
        let page = buffer.page_unlogged();
        page::init(page, Kind::Meta, 0, 0);
        meta.write(page);
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
            let mut members: Vec<Vec<u32>> = vec![Vec::new(); parents];
            for (list, &parent) in level.parents.iter().enumerate() {
                if children[list].is_some() {
                    members[parent as usize].push(list as u32);
                }
            }
            let mut writer = ListWriter::new(self.index, &self.inner, i as u8 + 1);
            let mut next: Vec<Option<Child>> = vec![None; parents];
            for (parent, members) in members.iter().enumerate() {
                if members.is_empty() && above.is_some() {
                    continue;
                }
                pgrx::check_for_interrupts!();
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

/// Centroids of `lists` clusters of `rows`.
fn cluster(pool: &Pool, rows: Arc<Vec<f32>>, padded: usize, lists: usize, seed: u64) -> Vec<f32> {
    if rows.is_empty() {
        return vec![0.0; padded];
    }
    let trained = pool.run(move |cancelled| {
        let options =
            TrainOptions { lists, seed, cancelled: &|| cancelled.load(Ordering::Relaxed), ..TrainOptions::default() };
        cluster::train(Matrix::new(&rows, padded), &options)
    });
    match trained {
        Ok(centroids) => centroids.data,
        Err(_) => {
            ereport!(ERROR, PgSqlErrorCode::ERRCODE_QUERY_CANCELED, "index build was cancelled");
        }
    }
}

/// Divides lists, by their centroids, among `parents` lists of lists.
pub fn group(pool: &Pool, centroids: Arc<Vec<f32>>, padded: usize, parents: usize) -> Vec<u32> {
    let above = cluster(pool, centroids.clone(), padded, parents.max(1), SEED);
    pool.run(move |_| {
        let rows = Matrix::new(&centroids, padded);
        let (mut groups, mut distances) = (vec![0; rows.rows()], vec![0.0; rows.rows()]);
        Assigner::new(&Centroids::new(padded, above)).assign(rows, &mut groups, &mut distances);
        groups
    })
}

fn finite(x: &[f32]) -> bool {
    x.iter().all(|v| v.is_finite())
}

/// Root mean square residual of each list.
fn radii(lists: usize, assigned: &[u32], distances: &[f32]) -> Vec<f32> {
    let mut sums = vec![(0.0_f64, 0_u32); lists];
    for (&list, &d) in assigned.iter().zip(distances) {
        sums[list as usize].0 += f64::from(d);
        sums[list as usize].1 += 1;
    }
    sums.iter().map(|&(sum, n)| if n == 0 { 0.0 } else { (sum / f64::from(n)).sqrt() as f32 }).collect()
}

/// Assigns each level's lists to the next level's, and replaces all centroids by what their codes stand for. All are encoded
/// relative to the origin, the root's centroid, so that an entry is the same in whichever list of its level it is.
fn quantize_levels(centroids: Vec<Vec<f32>>, space: ann::quantize::Space, inner: &Layout) -> Vec<Level> {
    let (padded, record) = (inner.padded, encode::record_bytes(inner));
    let mut levels: Vec<Level> = centroids
        .into_iter()
        .map(|centroids| {
            let n = centroids.len() / padded;
            Level { parents: vec![0; n], records: vec![0; n * record], centroids }
        })
        .collect();
    for i in (0..levels.len()).rev() {
        let (below, above) = levels.split_at_mut(i + 1);
        let level = &mut below[i];
        let n = level.parents.len();
        let zero = vec![0.0; padded];
        if let Some(above) = above.first() {
            let mut distances = vec![0.0; n];
            Assigner::new(&Centroids::new(padded, above.centroids.clone())).assign(
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

/// A sample of the table.
struct Sampled {
    /// Rows as read, padded with zeroes.
    data: Vec<f32>,
    rows: usize,
    /// Mean of the (normalised, under cosine) rows seen.
    mean: Vec<f32>,
    /// Rows of the table, estimated.
    table_rows: f64,
}

/// State of the sampling scan.
struct SampleState {
    operator: Operator,
    dims: usize,
    padded: usize,
    value: Vec<f32>,
    reservoir: Reservoir,
}

impl SampleState {
    fn new(build: &Build, wanted: usize) -> SampleState {
        SampleState {
            operator: build.operator,
            dims: build.dims,
            padded: build.padded,
            value: Vec::new(),
            reservoir: Reservoir::new(wanted, build.dims, build.padded, build.seed),
        }
    }

    /// Reads `sampled` blocks of the table.
    fn scan(&mut self, build: &Build, sampled: u32) {
        let blocks = storage::blocks(build.heap);
        progress(pg_sys::PROGRESS_CREATEIDX_TUPLES_TOTAL, 0);
        let mut scan = |start: u32, n: u32| {
            // SAFETY: `build` holds open relations; the state outlives the call.
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
                    Some(sample_row),
                    (&raw mut *self).cast(),
                    std::ptr::null_mut(),
                );
            }
        };
        if sampled >= blocks {
            if blocks > 0 {
                scan(0, blocks);
            }
            return;
        }
        // SAFETY: a sampler on the stack.
        unsafe {
            let mut sampler = pg_sys::BlockSamplerData::default();
            pg_sys::BlockSampler_Init(&mut sampler, blocks, sampled as i32, (build.seed >> 16) as u32);
            while pg_sys::BlockSampler_HasMore(&mut sampler) {
                scan(pg_sys::BlockSampler_Next(&mut sampler), 1);
                pgrx::check_for_interrupts!();
            }
        }
    }

    /// `factor`: blocks of the table for each block read.
    fn finish(self, factor: f64) -> Sampled {
        let table_rows = self.reservoir.seen() as f64 * factor;
        let data = self.reservoir.into_rows();
        let rows = data.len() / self.padded;
        let mut mean = vec![0.0_f64; self.dims];
        for row in data.chunks_exact(self.padded) {
            let scale = self.operator.scale(row);
            mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v) * scale);
        }
        let mean = if rows == 0 { Vec::new() } else { mean.iter().map(|m| (m / rows as f64) as f32).collect() };
        Sampled { data, rows, mean, table_rows }
    }
}

/// Callback of the sampling scan.
#[pg_guard]
unsafe extern "C-unwind" fn sample_row(
    _index: pg_sys::Relation,
    _tid: pg_sys::ItemPointer,
    values: *mut pg_sys::Datum,
    nulls: *mut bool,
    _alive: bool,
    state: *mut std::ffi::c_void,
) {
    // SAFETY: PostgreSQL's arguments; `state` is the SampleState given to the scan.
    unsafe {
        let state = &mut *state.cast::<SampleState>();
        if *nulls {
            return;
        }
        state.operator.read(*values, &mut state.value);
        if state.value.len() == state.dims {
            state.reservoir.offer(&state.value);
        }
    }
}

/// Rows on their way to the threads.
struct Batch {
    tids: Vec<Tid>,
    data: Vec<f32>,
    keys: Vec<RowKeys>,
    rows: usize,
}

impl Batch {
    fn new(build: &Build) -> Batch {
        let rows = (BATCH_BYTES / 4 / build.padded).clamp(16, 8192);
        Batch {
            tids: Vec::with_capacity(rows),
            data: Vec::with_capacity(rows * build.padded),
            keys: Vec::with_capacity(rows),
            rows,
        }
    }
}

/// What the threads need to assign and encode rows.
struct AssignJob {
    frame: Frame,
    leaf: Layout,
    /// None: one list.
    assigner: Option<Assigner>,
    centroids: Vec<f32>,
}

/// A batch as the threads return it: for each row its list (None: not indexed), residual norm squared, and record.
struct Encoded {
    heads: Vec<Option<(u32, f32)>>,
    records: Vec<u8>,
}

impl AssignJob {
    fn run(&self, mut batch: Batch) -> Encoded {
        let padded = self.frame.padded();
        let n = batch.tids.len();
        let space = self.frame.operator.space();
        let placed: Vec<Placed> = batch.data.par_chunks_exact_mut(padded).map(|x| self.frame.place(x)).collect();
        let (mut lists, mut distances) = (vec![0_u32; n], vec![0.0; n]);
        if let Some(assigner) = &self.assigner {
            assigner.assign(Matrix::new(&batch.data, padded), &mut lists, &mut distances);
        }
        let bytes = encode::record_bytes(&self.leaf);
        let mut records = vec![0_u8; n * bytes];
        const CHUNK: usize = 64;
        let squares: Vec<Vec<f32>> = records
            .par_chunks_mut(CHUNK * bytes)
            .zip(batch.data.par_chunks(CHUNK * padded).zip(batch.keys.par_chunks_mut(CHUNK)))
            .zip(batch.tids.par_chunks(CHUNK).zip(lists.par_chunks(CHUNK)).zip(placed.par_chunks(CHUNK)))
            .map(|((records, (rows, keys)), ((tids, lists), placed))| {
                let mut encoder = Encoder::new(space, &self.leaf);
                records
                    .chunks_exact_mut(bytes)
                    .zip(rows.chunks_exact(padded).zip(keys))
                    .zip(tids.iter().zip(lists).zip(placed))
                    .map(|((record, (row, keys)), ((&tid, &list), &placed))| {
                        let centroid = &self.centroids[list as usize * padded..][..padded];
                        let square = encoder.encode(row, centroid);
                        if placed == Placed::Unbounded {
                            encoder.unbind();
                        }
                        std::mem::swap(&mut encoder.row, keys);
                        encode::write_record(&encoder, tid, record);
                        square
                    })
                    .collect()
            })
            .collect();
        let heads = placed
            .into_iter()
            .zip(lists)
            .zip(squares.into_iter().flatten())
            .map(|((placed, list), square)| (placed != Placed::Nowhere).then_some((list, square)))
            .collect();
        Encoded { heads, records }
    }
}

/// State of the assigning scan: one batch fills while the threads work on the one before.
struct AssignState<'b> {
    build: &'b Build,
    job: Arc<AssignJob>,
    batch: Batch,
    pending: Option<Pending<Encoded>>,
    sort: Sort,
    /// Sum of squared residual norms, and rows, of each list.
    residuals: Vec<(f64, u64)>,
    index_rows: f64,
}

impl AssignState<'_> {
    /// Gives the batch to the threads, and takes the one before.
    fn submit(&mut self) {
        self.collect();
        if self.batch.tids.is_empty() {
            return;
        }
        let batch = std::mem::replace(&mut self.batch, Batch::new(self.build));
        let job = self.job.clone();
        self.pending = Some(self.build.pool.start(move |_| job.run(batch)));
    }

    /// Sorts the pending batch in.
    fn collect(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        let encoded = pending.wait();
        let bytes = encode::record_bytes(&self.build.leaf);
        for (head, record) in encoded.heads.iter().zip(encoded.records.chunks_exact(bytes)) {
            if let Some((list, square)) = *head {
                let sum = &mut self.residuals[list as usize];
                sum.0 += f64::from(square);
                sum.1 += 1;
                self.index_rows += 1.0;
                self.sort.put(list as i32, record);
            }
        }
    }
}

/// Callback of the assigning scan.
#[pg_guard]
unsafe extern "C-unwind" fn assign_row(
    _index: pg_sys::Relation,
    tid: pg_sys::ItemPointer,
    values: *mut pg_sys::Datum,
    nulls: *mut bool,
    _alive: bool,
    state: *mut std::ffi::c_void,
) {
    // SAFETY: PostgreSQL's arguments; `state` is the AssignState given to the scan.
    unsafe {
        let state = &mut *state.cast::<AssignState>();
        if *nulls {
            return;
        }
        let (dims, padded) = (state.build.dims, state.build.padded);
        let mut value = Vec::new();
        state.build.operator.read(*values, &mut value);
        if value.len() != dims {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
                format!("expected {dims} dimensions, not {}", value.len())
            );
        }
        let batch = &mut state.batch;
        batch.data.extend_from_slice(&value);
        batch.data.resize((batch.tids.len() + 1) * padded, 0.0);
        batch.tids.push(Tid::from_item(&*tid));
        let mut keys = RowKeys::new(state.build.filters.len());
        state.build.filters.read(values, nulls, &mut keys);
        batch.keys.push(keys);
        if batch.tids.len() == batch.rows {
            state.submit();
        }
    }
}

/// The table's rows, sorted by list.
struct Sorted {
    sort: Sort,
    residuals: Vec<(f64, u64)>,
    heap_rows: f64,
    index_rows: f64,
}

/// PostgreSQL's external sort over (list int4, record bytea).
struct Sort {
    state: *mut pg_sys::Tuplesortstate,
    input: *mut pg_sys::TupleTableSlot,
    output: *mut pg_sys::TupleTableSlot,
    /// A bytea that records are copied into.
    record: *mut pg_sys::varlena,
    bytes: usize,
}

impl Sort {
    /// For records of so many bytes.
    fn new(bytes: usize) -> Sort {
        // SAFETY: a fresh descriptor and slots in the current memory context, which lives as long as the build.
        unsafe {
            let desc = pg_sys::CreateTemplateTupleDesc(2);
            pg_sys::TupleDescInitEntry(desc, 1, c"list".as_ptr(), pg_sys::INT4OID, -1, 0);
            pg_sys::TupleDescInitEntry(desc, 2, c"record".as_ptr(), pg_sys::BYTEAOID, -1, 0);
            let record: *mut pg_sys::varlena = pg_sys::palloc(bytes + pg_sys::VARHDRSZ).cast();
            pgrx::set_varsize_4b(record, (bytes + pg_sys::VARHDRSZ) as i32);
            Sort {
                state: compat::sort_by_int4(desc, pg_sys::maintenance_work_mem),
                input: pg_sys::MakeSingleTupleTableSlot(desc, &raw const pg_sys::TTSOpsVirtual),
                output: pg_sys::MakeSingleTupleTableSlot(desc, &raw const pg_sys::TTSOpsMinimalTuple),
                record,
                bytes,
            }
        }
    }

    fn put(&mut self, list: i32, record: &[u8]) {
        assert_eq!(record.len(), self.bytes);
        // SAFETY: the slot has two columns; the sort copies them.
        unsafe {
            let data: *mut u8 = self.record.cast::<u8>().add(pg_sys::VARHDRSZ);
            std::ptr::copy_nonoverlapping(record.as_ptr(), data, self.bytes);
            let slot = &mut *self.input;
            ((*slot.tts_ops).clear.unwrap())(slot);
            *slot.tts_values = pg_sys::Datum::from(list);
            *slot.tts_values.add(1) = pg_sys::Datum::from(self.record);
            *slot.tts_isnull = false;
            *slot.tts_isnull.add(1) = false;
            pg_sys::ExecStoreVirtualTuple(slot);
            pg_sys::tuplesort_puttupleslot(self.state, slot);
        }
    }

    fn perform(&mut self) {
        // SAFETY: the sort is in its input phase.
        unsafe { pg_sys::tuplesort_performsort(self.state) }
    }

    /// The next record and its list. The record is valid until the next call.
    fn next_record(&mut self) -> Option<(usize, &[u8])> {
        // SAFETY: the sort has been performed; the tuple's columns are not NULL.
        unsafe {
            if !pg_sys::tuplesort_gettupleslot(self.state, true, false, self.output, std::ptr::null_mut()) {
                return None;
            }
            pg_sys::slot_getsomeattrs_int(self.output, 2);
            let list = (*(*self.output).tts_values).value() as i32;
            let record: *const pg_sys::varlena = (*(*self.output).tts_values.add(1)).cast_mut_ptr();
            let bytes = pgrx::varlena_to_byte_slice(record);
            assert_eq!(bytes.len(), self.bytes);
            Some((list as usize, bytes))
        }
    }
}

impl Drop for Sort {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: live; after an ERROR, temporary files and memory go with the transaction.
            unsafe {
                pg_sys::ExecDropSingleTupleTableSlot(self.input);
                pg_sys::ExecDropSingleTupleTableSlot(self.output);
                pg_sys::tuplesort_end(self.state);
            }
        }
    }
}
