//! Rows become entries: each is assigned to its nearest list and encoded relative to that list's centroid. All on the
//! threads of the build's pool, while the backend reads the next rows or writes the entries before.

use super::gather;
use super::sort::Sort;
use crate::index::build::{self, BATCH_BYTES, Build};
use crate::index::metric::{Frame, Placed};
use crate::index::page::ItemPointer as _;
use crate::index::page::{LEFT_OUT_NOWHERE, LEFT_OUT_NULL, Layout, Tid};
use crate::pg::threads::Pending;
use ann::cluster::{Assigner, Centroids, Matrix};
use ann::filter::RowKeys;
use ann::memory;
use ivflsh::outliers;
use ivflsh::write::encode::{self, Encoder};
use pgrx::prelude::*;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows that a thread encodes at a time.
const CHUNK: usize = 64;

/// The records of all rows, list by list.
pub trait Records {
    /// The next record and its list. The record is valid until the next call.
    fn next_record(&mut self) -> Option<(usize, &[u8])>;
}

/// Sum of squared norms of a list's residuals, and its rows.
#[derive(Clone, Copy, Default)]
pub struct Residuals {
    squares: f64,
    pub rows: u64,
    outliers: u64,
}

impl Residuals {
    /// Adds a row; an infinite square for an outlier.
    pub fn add(&mut self, square: f32) {
        self.rows += 1;
        if square < f32::INFINITY {
            self.squares += f64::from(square);
        } else {
            self.outliers += 1;
        }
    }

    /// Mean square.
    pub fn mean_square(&self) -> f64 {
        self.squares / (self.rows - self.outliers).max(1) as f64
    }

    /// Root mean square.
    pub fn radius(&self) -> f32 {
        self.mean_square().sqrt() as f32
    }
}

/// Where rows go.
pub struct Lists {
    /// Of centroids that are what their codes stand for. None: there is one list, around the origin.
    assigner: Option<Assigner>,
    origin: Vec<f32>,
    /// The squared distance beyond which a row is an outlier in each list.
    limits: Vec<f32>,
}

impl Lists {
    /// Lists with these `padded` long centroids. `usual`: what three quarters of the rows have at most as their squared norm.
    pub fn new(centroids: Vec<f32>, padded: usize, usual: f32) -> Lists {
        let limit = |centroid| outliers::FAR * ann::distance::norm_squared(centroid).max(usual);
        let limits = memory::collected(centroids.chunks_exact(padded).map(limit));
        let known = Centroids::new(padded, centroids);
        let assigner = (known.lists() > 1).then(|| Assigner::new(&known));
        Lists { assigner, origin: vec![0.0; padded], limits }
    }

    pub fn count(&self) -> usize {
        self.limits.len()
    }

    /// The centroids, if there are several.
    pub fn centroids(&self) -> Option<Matrix<'_>> {
        self.assigner.as_ref().map(Assigner::centroids)
    }

    /// The list of each row, and the squared distance from its centroid, infinite for outliers; anything once the build is
    /// `cancelled`.
    pub fn assign(&self, rows: Matrix, cancelled: &AtomicBool) -> (Vec<u32>, Vec<f32>) {
        let (mut lists, mut distances) = (memory::zeroed(rows.rows()), memory::zeroed(rows.rows()));
        if let Some(assigner) = &self.assigner {
            let _ = assigner.assign_unless(rows, &mut lists, &mut distances, &|| cancelled.load(Ordering::Relaxed));
        } else {
            let squares = rows.data.par_chunks_exact(rows.dims).map(ann::distance::norm_squared);
            squares.collect_into_vec(&mut distances);
        }
        for (distance, &list) in distances.iter_mut().zip(&lists) {
            if *distance > self.limits[list as usize] {
                *distance = f32::INFINITY;
            }
        }
        (lists, distances)
    }

    fn centroid(&self, list: u32) -> &[f32] {
        self.assigner.as_ref().map_or(&self.origin, |assigner| assigner.centroids().row(list as usize))
    }
}

/// A row on its way to its record.
struct Row<'r> {
    tid: Tid,
    /// In the index's coordinates.
    vector: &'r [f32],
    keys: Option<&'r RowKeys>,
    list: u32,
    placed: Placed,
}

/// Writes the records of `n` rows, which `row` gives by their number, one after another.
fn encode_rows<'r>(
    frame: &Frame,
    leaf: &Layout,
    lists: &Lists,
    n: usize,
    row: impl Fn(usize) -> Row<'r> + Sync,
) -> Vec<u8> {
    let bytes = encode::record_bytes(leaf);
    let mut records = memory::zeroed::<u8>(n * bytes);
    records.par_chunks_mut(CHUNK * bytes).enumerate().for_each(|(chunk, records)| {
        let mut encoder = Encoder::of_rows(frame, leaf);
        for (i, record) in records.chunks_exact_mut(bytes).enumerate() {
            let row = row(chunk * CHUNK + i);
            encoder.encode(row.vector, lists.centroid(row.list));
            encoder.mark(row.placed);
            if let Some(keys) = row.keys {
                encoder.row.clone_from(keys);
            }
            encode::write_record(&encoder, row.tid, record);
        }
    });
    records
}

/// All rows of the table, in memory, placed.
pub struct Table {
    pub data: Arc<Vec<f32>>,
    pub tids: Vec<Tid>,
    /// Empty when there are no filter columns.
    pub keys: Vec<RowKeys>,
    pub placed: Vec<Placed>,
    /// The list of each.
    pub lists: Vec<u32>,
    /// The rows in the order of their lists.
    pub order: Vec<u32>,
}

/// Encodes the rows of a [`Table`], list by list, some ahead of those that are asked for.
pub struct InMemory<'b> {
    build: &'b Build,
    frame: Arc<Frame>,
    lists: Arc<Lists>,
    table: Arc<Table>,
    /// Rows, by their place in the order, whose records are at hand, and the next of them.
    current: Range<usize>,
    records: Vec<u8>,
    pending: Option<Pending<Vec<u8>>>,
    bytes: usize,
}

impl<'b> InMemory<'b> {
    pub fn new(build: &'b Build, frame: Arc<Frame>, lists: Arc<Lists>, table: Arc<Table>) -> InMemory<'b> {
        let bytes = encode::record_bytes(&build.leaf);
        let mut records =
            InMemory { build, frame, lists, table, current: 0..0, records: Vec::new(), pending: None, bytes };
        records.start(0);
        records
    }

    /// The rows of the batch that begins at `from`.
    fn batch(&self, from: usize) -> Range<usize> {
        from..(from + batch_rows(self.build)).min(self.table.order.len())
    }

    fn start(&mut self, from: usize) {
        let batch = self.batch(from);
        if batch.is_empty() {
            return;
        }
        let (frame, lists, table, leaf) = (self.frame.clone(), self.lists.clone(), self.table.clone(), self.build.leaf);
        self.pending = Some(self.build.pool.start(move |_| {
            let padded = frame.padded();
            encode_rows(&frame, &leaf, &lists, batch.len(), |i| {
                let at = table.order[batch.start + i] as usize;
                Row {
                    tid: table.tids[at],
                    vector: &table.data[at * padded..][..padded],
                    keys: table.keys.get(at),
                    list: table.lists[at],
                    placed: table.placed[at],
                }
            })
        }));
    }
}

impl Records for InMemory<'_> {
    fn next_record(&mut self) -> Option<(usize, &[u8])> {
        if self.current.is_empty() {
            self.records = self.pending.take()?.wait();
            self.current = self.batch(self.current.end);
            self.start(self.current.end);
        }
        let at = self.current.start;
        self.current.start += 1;
        let first = self.current.end - self.records.len() / self.bytes;
        let list = self.table.lists[self.table.order[at] as usize];
        Some((list as usize, &self.records[(at - first) * self.bytes..][..self.bytes]))
    }
}

/// Rows of a batch.
fn batch_rows(build: &Build) -> usize {
    (BATCH_BYTES / 4 / build.padded).clamp(16, 8192)
}

/// Rows on their way to the threads.
#[derive(Default)]
struct Batch {
    tids: Vec<Tid>,
    data: Vec<f32>,
    keys: Vec<RowKeys>,
}

/// What a scan of the table is for.
enum Purpose {
    /// Entries of the rows, in a sort by list, and the residuals of each list.
    Entries(Sort, Vec<Residuals>),
    /// Sums of each list's rows, and how many there are.
    Means(Vec<f64>, Vec<u32>),
}

/// A batch as the threads return it.
struct Done {
    /// For each row its list (None: not indexed) and residual norm squared (infinite for outliers).
    heads: Vec<Option<(u32, f32)>>,
    /// For entries.
    records: Vec<u8>,
    /// For means: the rows, placed.
    data: Vec<f32>,
}

impl Batch {
    /// `entries`: else only the lists are of interest.
    fn run(mut self, frame: &Frame, leaf: &Layout, lists: &Lists, entries: bool, cancelled: &AtomicBool) -> Done {
        let padded = frame.padded();
        let placed = memory::collected_in_parallel(self.data.par_chunks_exact_mut(padded).map(|x| frame.place(x)));
        let (assigned, distances) = lists.assign(Matrix::new(&self.data, padded), cancelled);
        let row = |i: usize| Row {
            tid: self.tids[i],
            vector: &self.data[i * padded..][..padded],
            keys: self.keys.get(i),
            list: assigned[i],
            placed: placed[i],
        };
        let records = if entries { encode_rows(frame, leaf, lists, self.tids.len(), row) } else { Vec::new() };
        let heads = placed
            .into_iter()
            .zip(assigned.into_iter().zip(distances))
            .map(|(placed, (list, distance))| match placed {
                Placed::Nowhere => None,
                Placed::Usual => Some((list, distance)),
                Placed::Unbounded | Placed::Far => Some((list, f32::INFINITY)),
            })
            .collect();
        Done { heads, records, data: if entries { Vec::new() } else { self.data } }
    }
}

/// The table's rows, sorted by list.
pub struct Sorted {
    pub sort: Sort,
    pub residuals: Vec<Residuals>,
    /// Rows of the table, and of the index.
    pub heap_rows: f64,
    pub index_rows: f64,
}

/// State of a scan: one batch fills while the threads work on the one before.
struct Scan<'b> {
    build: &'b Build,
    frame: Arc<Frame>,
    lists: Arc<Lists>,
    batch: Batch,
    pending: Option<Pending<Done>>,
    purpose: Purpose,
    index_rows: f64,
    value: Vec<f32>,
}

/// Reads the table, assigns and encodes its rows, and puts them into a sort by list.
pub fn scan(build: &Build, frame: Arc<Frame>, lists: Arc<Lists>) -> Sorted {
    let n = lists.count();
    let sort = Sort::new(encode::record_bytes(&build.leaf), gather::sort_memory(build, n));
    let mut scan = Scan::new(build, frame, lists, Purpose::Entries(sort, memory::filled(Residuals::default(), n)));
    let heap_rows = scan.run();
    let Purpose::Entries(sort, residuals) = scan.purpose else { unreachable!("what it was made for") };
    Sorted { sort, residuals, heap_rows, index_rows: scan.index_rows }
}

/// Reads the table and moves the centroid of each list to the mean of its rows: one iteration of k-means over all rows.
pub fn improve(build: &Build, frame: Arc<Frame>, lists: Arc<Lists>) -> Vec<f32> {
    let (n, padded) = (lists.count(), build.padded);
    let mut scan = Scan::new(build, frame, lists, Purpose::Means(memory::zeroed(n * padded), memory::zeroed(n)));
    scan.run();
    let Purpose::Means(sums, counts) = scan.purpose else { unreachable!("what it was made for") };
    let mean = |list: usize, dim: usize| match counts[list] {
        0 => scan.lists.centroid(list as u32)[dim],
        count => (sums[list * padded + dim] / f64::from(count)) as f32,
    };
    let mut centroids = memory::with_room(n * padded);
    centroids
        .extend((0..n).flat_map(|list| (0..padded).map(move |dim| (list, dim))).map(|(list, dim)| mean(list, dim)));
    centroids
}

impl<'b> Scan<'b> {
    fn new(build: &'b Build, frame: Arc<Frame>, lists: Arc<Lists>, purpose: Purpose) -> Scan<'b> {
        let batch = Batch::default();
        Scan { build, frame, lists, batch, pending: None, purpose, index_rows: 0.0, value: Vec::new() }
    }

    /// Reads the table; returns its rows.
    fn run(&mut self) -> f64 {
        let entries = matches!(self.purpose, Purpose::Entries(..));
        // SAFETY: PostgreSQL's relations; the state outlives the call. Sums depend on the order of the rows: they are not
        // read from where another scan is.
        let heap_rows = unsafe {
            pg_sys::table_index_build_scan(
                self.build.heap,
                self.build.index,
                self.build.info,
                entries,
                true,
                Some(assign_row),
                (&raw mut *self).cast(),
                std::ptr::null_mut(),
            )
        };
        self.submit();
        self.collect();
        heap_rows
    }

    /// Gives the batch to the threads, and takes the one before.
    fn submit(&mut self) {
        self.collect();
        if self.batch.tids.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        let (frame, lists, leaf) = (self.frame.clone(), self.lists.clone(), self.build.leaf);
        let entries = matches!(self.purpose, Purpose::Entries(..));
        self.pending =
            Some(self.build.pool.start(move |cancelled| batch.run(&frame, &leaf, &lists, entries, cancelled)));
    }

    /// Takes the pending batch in.
    fn collect(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        let Done { heads, records, data } = pending.wait();
        if heads.contains(&None) {
            self.build.leave_out(LEFT_OUT_NOWHERE);
        }
        match &mut self.purpose {
            Purpose::Entries(sort, residuals) => {
                let records = records.chunks_exact(encode::record_bytes(&self.build.leaf));
                for ((list, square), record) in heads.into_iter().zip(records).filter_map(|(h, r)| Some((h?, r))) {
                    residuals[list as usize].add(square);
                    self.index_rows += 1.0;
                    sort.put(list as i32, record);
                }
            }
            Purpose::Means(sums, counts) => {
                let padded = self.build.padded;
                let rows = data.chunks_exact(padded);
                for ((list, square), row) in heads.into_iter().zip(rows).filter_map(|(h, r)| Some((h?, r))) {
                    if !square.is_finite() {
                        continue; // an outlier
                    }
                    counts[list as usize] += 1;
                    let sum = &mut sums[list as usize * padded..][..padded];
                    sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
                }
            }
        }
    }
}

/// Callback of the scan.
#[pg_guard]
unsafe extern "C-unwind" fn assign_row(
    _index: pg_sys::Relation,
    tid: pg_sys::ItemPointer,
    values: *mut pg_sys::Datum,
    nulls: *mut bool,
    _alive: bool,
    state: *mut std::ffi::c_void,
) {
    // SAFETY: PostgreSQL's arguments; `state` is the Scan given to the scan.
    unsafe {
        let state = &mut *state.cast::<Scan>();
        if *nulls {
            state.build.leave_out(LEFT_OUT_NULL);
            return;
        }
        build::read_vector(state.build, *values, &mut state.value);
        let batch = &mut state.batch;
        memory::append(&mut batch.data, &state.value);
        memory::push(&mut batch.tids, Tid::from_item(&*tid));
        memory::resize(&mut batch.data, batch.tids.len() * state.build.padded, 0.0);
        if state.build.filters.len() > 0 {
            memory::push(&mut batch.keys, build::read_keys(state.build, values, nulls));
        }
        if batch.tids.len() == batch_rows(state.build) {
            state.submit();
        }
    }
}
