//! The rows that a scan has returned, so that none is returned twice: an exact set in bounded memory. What does not fit a
//! quarter of `work_mem` goes to a temporary file, as bits by page of the table.

use crate::index::page::Tid;
use ann::memory;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

/// Bytes that a row takes in the hash table, with the room for its growth.
const ROW_BYTES: usize = 32;
/// Rows that the hash table holds whatever `work_mem` is.
const LEAST: usize = 1024;

/// The set.
pub struct Returned {
    few: HashSet<Tid>,
    most: usize,
    /// All rows, once they were too many.
    many: Option<RefCell<Pages>>,
}

impl Default for Returned {
    fn default() -> Returned {
        // SAFETY: a plain setting of the backend, in kB.
        let bytes = unsafe { pg_sys::work_mem } as usize * 1024 / 4;
        Returned { few: HashSet::new(), most: (bytes / ROW_BYTES).max(LEAST), many: None }
    }
}

impl Returned {
    /// Adds a row; false when it was in.
    pub fn insert(&mut self, tid: Tid) -> bool {
        if let Some(many) = &mut self.many {
            return many.get_mut().insert(tid);
        }
        memory::room(&mut self.few, 1);
        let is_new = self.few.insert(tid);
        if self.few.len() > self.most {
            let mut many = Pages::new();
            for tid in self.few.drain() {
                many.insert(tid);
            }
            self.few = HashSet::new();
            self.many = Some(RefCell::new(many));
        }
        is_new
    }

    /// Whether a row is in.
    pub fn contains(&self, tid: &Tid) -> bool {
        match &self.many {
            Some(many) => many.borrow_mut().contains(*tid),
            None => self.few.contains(tid),
        }
    }
}

const PAGE: usize = pg_sys::BLCKSZ as usize;
/// Bytes of the bits of a page of the table: enough for one of PostgreSQL's own tables (291 rows). Where a page has more,
/// their bits are on other pages of the file.
const BYTES: usize = 40;
/// Pages of the table in a page of the file.
const OF_PAGE: u32 = (PAGE / BYTES) as u32;

/// A page of bits that is in memory.
#[derive(Clone, Copy)]
struct Held {
    /// Which one; `u64::MAX` for none.
    page: u64,
    changed: bool,
}

/// Bits by page of the table, in a temporary file, of which the pages used last are in memory.
struct Pages {
    file: *mut pg_sys::BufFile,
    /// Where in the file each page is, and how many are there.
    places: HashMap<u64, u32>,
    written: u32,
    /// In a slot by its number, modulo the number of slots, a power of two.
    held: Vec<Held>,
    bytes: Vec<u8>,
}

impl Pages {
    fn new() -> Pages {
        // SAFETY: a plain setting of the backend, in kB.
        let pages = unsafe { pg_sys::work_mem } as usize * 1024 / 4 / PAGE;
        let slots = (pages + 1).next_power_of_two() / 2;
        let slots = slots.max(4);
        Pages {
            file: std::ptr::null_mut(),
            places: HashMap::new(),
            written: 0,
            held: memory::filled(Held { page: u64::MAX, changed: false }, slots),
            bytes: memory::zeroed(slots * PAGE),
        }
    }

    fn insert(&mut self, tid: Tid) -> bool {
        let (byte, bit) = self.find(tid);
        let is_new = self.bytes[byte] & bit == 0;
        self.bytes[byte] |= bit;
        self.held[byte / PAGE].changed |= is_new;
        is_new
    }

    fn contains(&mut self, tid: Tid) -> bool {
        let (byte, bit) = self.find(tid);
        self.bytes[byte] & bit != 0
    }

    /// Where in memory a row's bit is, after its page has been brought there.
    fn find(&mut self, tid: Tid) -> (usize, u8) {
        let offset = usize::from(tid.offset());
        let page = ((offset / (8 * BYTES)) as u64) << 32 | u64::from(tid.block() / OF_PAGE);
        let slot = (page as usize ^ (page >> 32) as usize) & (self.held.len() - 1);
        if self.held[slot].page != page {
            self.bring(page, slot);
        }
        let bit = offset % (8 * BYTES);
        (slot * PAGE + (tid.block() % OF_PAGE) as usize * BYTES + bit / 8, 1 << (bit % 8))
    }

    #[cold]
    fn bring(&mut self, page: u64, slot: usize) {
        let Held { page: before, changed } = self.held[slot];
        let bytes = &mut self.bytes[slot * PAGE..][..PAGE];
        // SAFETY: the file is this set's, its places are those of pages in it, and the buffer is a page long.
        unsafe {
            if changed {
                if self.file.is_null() {
                    // It is closed by Drop, or at the end of the portal that the scan belongs to.
                    let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopTransactionContext);
                    self.file = pg_sys::BufFileCreateTemp(false);
                    pg_sys::MemoryContextSwitchTo(context);
                }
                memory::room(&mut self.places, 1);
                let place = *self.places.entry(before).or_insert(self.written);
                if place == self.written {
                    self.written += 1;
                }
                seek(self.file, place);
                pg_sys::BufFileWrite(self.file, bytes.as_mut_ptr().cast(), PAGE as _);
            }
            // Should reading fail, there is nothing here.
            self.held[slot] = Held { page: u64::MAX, changed: false };
            match self.places.get(&page) {
                None => bytes.fill(0),
                Some(&place) => {
                    seek(self.file, place);
                    if pg_sys::BufFileRead(self.file, bytes.as_mut_ptr().cast(), PAGE as _) as usize != PAGE {
                        ereport!(ERROR, PgSqlErrorCode::ERRCODE_IO_ERROR, "could not read from a temporary file");
                    }
                }
            }
        }
        self.held[slot] = Held { page, changed: false };
    }
}

/// # Safety
/// An open file.
unsafe fn seek(file: *mut pg_sys::BufFile, page: u32) {
    // SAFETY: by contract.
    if unsafe { pg_sys::BufFileSeekBlock(file, page as _) } != 0 {
        ereport!(ERROR, PgSqlErrorCode::ERRCODE_IO_ERROR, "could not seek in a temporary file");
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: open while the transaction goes on; after an ERROR its resource owner has closed it.
        unsafe {
            if !self.file.is_null() && !std::thread::panicking() && pg_sys::IsTransactionState() {
                pg_sys::BufFileClose(self.file);
            }
        }
    }
}
