//! Rows by TID: what other indexes have found for a WHERE clause.

use crate::index::page::{Block, Tid};
use ann::memory;
use pgrx::prelude::*;

/// Most pages (words) of a [`TidSet`]; 16 MB.
const MOST_PAGES: usize = 1 << 21;
/// Rows that a page can hold: what a lossy page may stand for.
pub const MOST_ROWS_OF_PAGE: u16 = 291;

/// A superset of the TIDs of a bitmap, tested by one look-up. Pages of a very large table share words, and so do offsets
/// 64 apart: a row that is in by mistake fails the WHERE clause, which is evaluated for every row anyway.
pub struct TidSet {
    /// A word for each page of the table, modulo their number (a power of two); a bit for each offset, modulo 64.
    words: Vec<u64>,
}

impl TidSet {
    /// An empty set, for a table of so many blocks.
    pub fn for_table(blocks: u32) -> TidSet {
        TidSet { words: memory::zeroed((blocks.max(1) as usize).next_power_of_two().min(MOST_PAGES)) }
    }

    fn word(&mut self, block: u32) -> &mut u64 {
        let at = block as usize & (self.words.len() - 1);
        &mut self.words[at]
    }

    /// Adds a row; offset 0 for all rows of its page.
    #[inline]
    pub fn insert(&mut self, block: u32, offset: u16) {
        *self.word(block) |= if offset == 0 { u64::MAX } else { 1 << (offset & 63) };
    }

    /// Those of some slots of a block whose rows may be in.
    #[inline]
    pub fn among(&self, block: &Block<'_>, slots: u32) -> u32 {
        // All are looked up, without a branch.
        let last = self.words.len() - 1;
        let mut found = 0;
        for (slot, tid) in block.tids().iter().enumerate() {
            let word = self.words[tid.block() as usize & last];
            found |= ((word >> (tid.offset() & 63) & 1) as u32) << slot;
        }
        found & slots
    }
}

/// The rows of a bitmap, in the order of the table.
#[derive(Default)]
pub struct TidList {
    /// Rows; offset 0 for all rows of a page.
    tids: Vec<(u32, u16)>,
    /// How many rows they are, lossy pages counted with `rows_of_page`.
    pub rows: f64,
}

impl TidList {
    /// Adds a row; offset 0 for all rows of its page.
    pub fn push(&mut self, block: u32, offset: u16) {
        memory::push(&mut self.tids, (block, offset));
        self.rows += 1.0;
    }

    /// All of them; those of lossy pages whether or not they exist.
    pub fn iter(&self) -> impl Iterator<Item = Tid> + '_ {
        self.tids.iter().flat_map(|&(block, offset)| {
            let offsets = if offset == 0 { 1..=MOST_ROWS_OF_PAGE } else { offset..=offset };
            offsets.map(move |offset| Tid::new(block, offset))
        })
    }

    /// As a set, for a table of so many blocks.
    pub fn to_set(&self, blocks: u32) -> TidSet {
        let mut set = TidSet::for_table(blocks);
        for &(block, offset) in &self.tids {
            set.insert(block, offset);
        }
        set
    }

    /// Reads a bitmap. `rows_of_page`: rows that a lossy page is counted as.
    ///
    /// # Safety
    /// `bitmap` is a valid TIDBitmap that is not being iterated over.
    pub unsafe fn read(bitmap: *mut pg_sys::TIDBitmap, rows_of_page: f64) -> TidList {
        let mut list = TidList::default();
        let mut lossy = 0;
        // SAFETY: by contract; offsets are valid until the next call.
        unsafe {
            iterate(bitmap, |block, offsets| match offsets {
                Some(offsets) => {
                    memory::room(&mut list.tids, offsets.len());
                    list.tids.extend(offsets.iter().map(|&offset| (block, offset)));
                }
                None => {
                    memory::push(&mut list.tids, (block, 0));
                    lossy += 1;
                }
            });
        }
        list.rows = (list.tids.len() - lossy) as f64 + lossy as f64 * rows_of_page;
        list
    }
}

/// Calls `visit` with each page and its offsets, or None for a lossy page.
///
/// # Safety
/// As [`TidList::read`].
unsafe fn iterate(bitmap: *mut pg_sys::TIDBitmap, mut visit: impl FnMut(u32, Option<&[u16]>)) {
    // SAFETY: by contract.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        {
            let iterator = pg_sys::tbm_begin_iterate(bitmap);
            while let Some(page) = pg_sys::tbm_iterate(iterator).as_ref() {
                let offsets = (page.ntuples >= 0).then(|| page.offsets.as_slice(page.ntuples as usize));
                visit(page.blockno, offsets);
            }
            pg_sys::tbm_end_iterate(iterator);
        }
        #[cfg(feature = "pg18")]
        {
            let iterator = pg_sys::tbm_begin_private_iterate(bitmap);
            let mut page = pg_sys::TBMIterateResult::default();
            let mut offsets = [0; MOST_ROWS_OF_PAGE as usize];
            while pg_sys::tbm_private_iterate(iterator, &mut page) {
                if page.lossy {
                    visit(page.blockno, None);
                } else {
                    let n = pg_sys::tbm_extract_page_tuple(&mut page, offsets.as_mut_ptr(), offsets.len() as u32);
                    visit(page.blockno, Some(&offsets[..n as usize]));
                }
            }
            pg_sys::tbm_end_private_iterate(iterator);
        }
    }
}
