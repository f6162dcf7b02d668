//! `CREATE INDEX`: the table's entries, sorted in bounded memory, become the tree.

use super::insert::number_of;
use super::page::{self, Meta, NULLS};
use super::pending::entries_of;
use super::tree::{self, Entry, Loader};
use super::value::Value;
use crate::index::build::gather;
use crate::index::build::progress;
use crate::index::metric::Operator;
use crate::index::metric::OperatorClass as _;
use crate::index::options;
use crate::index::page::ItemPointer as _;
use crate::index::page::{self as pages, Kind, META_BLOCK, NO_BLOCK, Tid};
use crate::index::read::info::column_dims;
use crate::index::storage::Buffer;
use ann::memory;
use pgrx::prelude::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The phases that this build shares with others, see [`crate::index::build::ambuildphasename`].
const READING: i64 = 2;
const SORTING: i64 = 7;
const WRITING: i64 = 8;

/// Refuses what such an index cannot be.
fn check(index: pg_sys::Relation) {
    let refuse = |message: String, hint: &str| {
        pgrx::pg_sys::panic::ErrorReport::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            message,
            pgrx::function_name!(),
        )
        .set_hint(hint)
        .report(PgLogLevel::ERROR);
    };
    if !crate::index::terms::is_class(index) {
        refuse(
            "partition = terms needs the operator class sparsevec_ip_ops".to_string(),
            "For the cosine distance, index l2_normalize(…) by its inner product.",
        );
    }
    // SAFETY: an open index.
    let columns = unsafe { (*(*index).rd_index).indnkeyatts };
    if columns > 1 {
        refuse(
            "an index with partition = terms has no filter columns".to_string(),
            "Leave them out: conditions are evaluated row by row in the order of the distance.",
        );
    }
    if let Some(option) = options::ignored_by_terms(index) {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("option \"{option}\" has no meaning with partition = terms")
        );
    }
}

fn first_meta(index: pg_sys::Relation) -> Meta {
    Meta {
        operator: Operator::of_index(index).code(),
        dims: column_dims(index).unwrap_or(0) as u32,
        root: NO_BLOCK,
        head: NO_BLOCK,
        tail: NO_BLOCK,
        first: 0,
        last: 0,
        negative: false,
    }
}

/// Builds the index; returns rows of the table, and of the index.
///
/// # Safety
/// PostgreSQL's arguments of `ambuild`.
pub unsafe fn build(heap: pg_sys::Relation, index: pg_sys::Relation, info: *mut pg_sys::IndexInfo) -> (f64, f64) {
    check(index);
    // The meta page comes first, and is filled last.
    drop(Buffer::allocate(index, pg_sys::ForkNumber::MAIN_FORKNUM));
    progress(pg_sys::PROGRESS_CREATEIDX_SUBPHASE, READING);
    let mut reader = Reader { meta: first_meta(index), entries: Entries::new(), rows: 0.0 };
    // SAFETY: by contract; the reader outlives the call.
    let heap_rows = unsafe {
        pg_sys::table_index_build_scan(
            heap,
            index,
            info,
            false,
            true,
            Some(read_row),
            (&raw mut reader).cast(),
            std::ptr::null_mut(),
        )
    };
    let Reader { mut meta, entries, rows } = reader;
    progress(pg_sys::PROGRESS_CREATEIDX_SUBPHASE, SORTING);
    let mut loader = Loader::new(index);
    let mut n = 0u32;
    entries.in_order(
        || progress(pg_sys::PROGRESS_CREATEIDX_SUBPHASE, WRITING),
        |entry| {
            n = n.wrapping_add(1);
            if n.is_multiple_of(1 << 14) {
                crate::pg::memory::check_for_interrupts();
            }
            loader.put(entry);
        },
    );
    meta.root = loader.finish();
    let mut buffer = Buffer::write(index, META_BLOCK);
    let to = buffer.page_unlogged();
    pages::init(to, Kind::TermMeta, 0, 0);
    meta.write(to);
    (heap_rows, rows)
}

/// The init fork of an unlogged index.
pub fn build_empty(index: pg_sys::Relation) {
    check(index);
    let fork = pg_sys::ForkNumber::INIT_FORKNUM;
    let mut meta_buffer = Buffer::allocate(index, fork);
    let mut root_buffer = Buffer::allocate(index, fork);
    let meta = Meta { root: root_buffer.block(), ..first_meta(index) };
    let to = meta_buffer.page_unlogged();
    pages::init(to, Kind::TermMeta, 0, 0);
    meta.write(to);
    tree::init_root(root_buffer.page_unlogged());
}

/// State of the table's scan.
struct Reader {
    meta: Meta,
    entries: Entries,
    rows: f64,
}

/// Callback of the scan.
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
        let row = number_of(Tid::from_item(&*tid));
        reader.rows += 1.0;
        if *nulls {
            reader.entries.add(Entry { key: NULLS, row, weight: 1.0 });
            return;
        }
        let value = Value::read(*values);
        if reader.meta.dims == 0 {
            reader.meta.dims = value.dims;
        }
        value.check_dims(reader.meta.dims);
        reader.meta.negative |= value.negative;
        for entry in entries_of(row, false, value.entries.iter().copied()) {
            reader.entries.add(entry);
        }
    }
}

/// Entries to be sorted: as many as memory holds, the others in sorted runs in temporary files.
struct Entries {
    held: Vec<Entry>,
    most: usize,
    runs: Vec<Run>,
}

/// Share of `maintenance_work_mem` for entries.
const SHARE: f64 = 0.75;
/// Entries held whatever that is.
const LEAST: usize = 1 << 15;

impl Entries {
    fn new() -> Entries {
        let most = (gather::memory().0 as f64 * SHARE) as usize / size_of::<Entry>();
        Entries { held: Vec::new(), most: most.max(LEAST), runs: Vec::new() }
    }

    fn add(&mut self, entry: Entry) {
        if self.held.len() == self.most {
            self.spill();
        }
        if self.held.len() == self.held.capacity() {
            let room = (2 * self.held.len()).clamp(LEAST, self.most);
            memory::room_for(&mut self.held, room);
        }
        self.held.push(entry);
    }

    fn spill(&mut self) {
        self.held.sort_unstable_by_key(Entry::place);
        let mut run = Run::new();
        for part in self.held.chunks(OF_BLOCK) {
            run.write(part);
            crate::pg::memory::check_for_interrupts();
        }
        memory::push(&mut self.runs, run);
        self.held.clear();
    }

    /// Calls `each` for all of them in order; `sorted` before the first.
    fn in_order(mut self, sorted: impl FnOnce(), mut each: impl FnMut(Entry)) {
        if self.runs.is_empty() {
            self.held.sort_unstable_by_key(Entry::place);
            sorted();
            self.held.into_iter().for_each(each);
            return;
        }
        if !self.held.is_empty() {
            self.spill();
        }
        self.held = Vec::new();
        sorted();
        let mut heads = BinaryHeap::new();
        let mut at: Vec<Option<Entry>> = Vec::new();
        for (i, run) in self.runs.iter_mut().enumerate() {
            run.rewind();
            let first = run.next_entry();
            memory::push(&mut at, first);
            memory::room(&mut heads, 1);
            heads.extend(first.map(|entry| Reverse((entry.place(), i))));
        }
        while let Some(Reverse((_, i))) = heads.pop() {
            each(at[i].take().expect("as its place is in the heap"));
            at[i] = self.runs[i].next_entry();
            heads.extend(at[i].map(|entry| Reverse((entry.place(), i))));
        }
    }
}

const BLOCK: usize = pg_sys::BLCKSZ as usize;
const BYTES: usize = 16;
const OF_BLOCK: usize = BLOCK / BYTES;

/// Entries in a temporary file.
struct Run {
    file: *mut pg_sys::BufFile,
    left: usize,
    block: Box<[u8; BLOCK]>,
    at: usize,
    held: usize,
}

impl Run {
    fn new() -> Run {
        // SAFETY: it is closed by Drop, or after an ERROR by its resource owner.
        let file = unsafe { pg_sys::BufFileCreateTemp(false) };
        Run { file, left: 0, block: Box::new([0; BLOCK]), at: 0, held: 0 }
    }

    /// Adds up to a block of entries; all blocks but the last are full.
    fn write(&mut self, entries: &[Entry]) {
        for (bytes, entry) in self.block.chunks_exact_mut(BYTES).zip(entries) {
            bytes[..4].copy_from_slice(&entry.key.to_le_bytes());
            bytes[4..8].copy_from_slice(&entry.weight.to_le_bytes());
            bytes[8..].copy_from_slice(&entry.row.to_le_bytes());
        }
        self.left += entries.len();
        // SAFETY: the file is open, the block is that long.
        unsafe { pg_sys::BufFileWrite(self.file, self.block.as_mut_ptr().cast(), BLOCK as _) };
    }

    fn rewind(&mut self) {
        // SAFETY: the file is open.
        if unsafe { pg_sys::BufFileSeekBlock(self.file, 0) } != 0 {
            ereport!(ERROR, PgSqlErrorCode::ERRCODE_IO_ERROR, "could not seek in a temporary file");
        }
    }

    fn next_entry(&mut self) -> Option<Entry> {
        if self.at == self.held {
            if self.left == 0 {
                return None;
            }
            // SAFETY: the file is open, the block is that long.
            let read = unsafe { pg_sys::BufFileRead(self.file, self.block.as_mut_ptr().cast(), BLOCK as _) };
            if read as usize != BLOCK {
                ereport!(ERROR, PgSqlErrorCode::ERRCODE_IO_ERROR, "could not read from a temporary file");
            }
            (self.at, self.held) = (0, self.left.min(OF_BLOCK));
            self.left -= self.held;
        }
        let bytes = &self.block[self.at * BYTES..][..BYTES];
        self.at += 1;
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let row = u64::from_le_bytes(bytes[8..].try_into().unwrap());
        Some(Entry { key: word(0), row, weight: f32::from_bits(word(4)) })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: open.
            unsafe { pg_sys::BufFileClose(self.file) };
        }
    }
}

const _: () = assert!(size_of::<Entry>() == BYTES && page::ROW_BITS < 64);
