//! Rows by TID: what other indexes have found for a WHERE clause.

use crate::index::page::{Block, Tid};
use ann::memory;
use pgrx::prelude::*;

/// Most pages (words) of a [`TidSet`], of which there are also no more than `work_mem` holds; 16 MB.
const MOST_PAGES: usize = 1 << 21;
/// Rows that a page can hold: what a lossy page may stand for. PostgreSQL's bitmaps take no larger offset, whatever the table's access
/// method (`MaxHeapTuplesPerPage`: a line pointer and a header aligned to 8 bytes for each row).
pub const MOST_ROWS_OF_PAGE: u16 = 291;
const _: () = {
    let row =
        size_of::<pg_sys::ItemIdData>() + std::mem::offset_of!(pg_sys::HeapTupleHeaderData, t_bits).next_multiple_of(8);
    let header = std::mem::offset_of!(pg_sys::PageHeaderData, pd_linp);
    assert!(MOST_ROWS_OF_PAGE as usize == (pg_sys::BLCKSZ as usize - header) / row);
};

/// A superset of the TIDs of a bitmap, tested by one look-up. Pages of a very large table share words, and so do offsets
/// 64 apart: a row that is in by mistake fails the WHERE clause, which is evaluated for every row anyway.
pub struct TidSet {
    /// A word for each page of the table, modulo their number (a power of two); a bit for each offset, modulo 64.
    words: Vec<u64>,
}

impl TidSet {
    /// An empty set, for a table of so many blocks.
    pub fn for_table(blocks: u32) -> TidSet {
        // SAFETY: a plain setting of the backend, in kB.
        let within = unsafe { pg_sys::work_mem } as usize * 1024 / size_of::<u64>();
        let most = MOST_PAGES.min((within + 1).next_power_of_two() / 2);
        TidSet { words: memory::zeroed((blocks.max(1) as usize).next_power_of_two().min(most)) }
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

/// The rows of a bitmap, in the order of the table. It takes no more memory than the bitmap itself, which `work_mem` bounds.
#[derive(Default)]
pub struct TidList {
    /// Page by page: its number in two halves, how many offsets there are, and these. None: all rows of the page. Instead of more
    /// than [`SPARSE`], [`BITS`] and [`WORDS`] words of bits. A page may come more than once.
    words: Vec<u16>,
    /// Where the last page's words start, and its number.
    last: Option<(usize, u32)>,
    /// How many rows they are, lossy pages counted with `rows_of_page`.
    pub rows: f64,
}

/// Words that come before those of a page's offsets.
const HEADER: usize = 3;
/// More offsets of a page than these are kept as bits.
const SPARSE: usize = 16;
const WORDS: usize = 19;
const BITS: u16 = u16::MAX;

impl TidList {
    /// Adds a row; offset 0 for all rows of its page.
    pub fn push(&mut self, block: u32, offset: u16) {
        memory::room(&mut self.words, HEADER + WORDS);
        self.rows += 1.0;
        let fits_bits = usize::from(offset) < 16 * WORDS;
        if let Some((start, last)) = self.last
            && last == block
            && offset > 0
        {
            let count = self.words[start + 2];
            if count == BITS && fits_bits {
                self.words[start + HEADER + usize::from(offset / 16)] |= 1 << (offset % 16);
                return;
            }
            let offsets = &self.words[start + HEADER..];
            if (1..SPARSE as u16).contains(&count) {
                self.words[start + 2] += 1;
                self.words.push(offset);
                return;
            }
            if count == SPARSE as u16 && fits_bits && offsets.iter().all(|&o| usize::from(o) < 16 * WORDS) {
                let mut bits = [0; WORDS];
                offsets.iter().chain([&offset]).for_each(|o| bits[usize::from(o / 16)] |= 1 << (o % 16));
                self.words.truncate(start + HEADER);
                self.words[start + 2] = BITS;
                self.words.extend(bits);
                return;
            }
        }
        self.last = Some((self.words.len(), block));
        self.words.extend([(block >> 16) as u16, block as u16, u16::from(offset > 0)]);
        self.words.extend((offset > 0).then_some(offset));
    }

    /// The pages: the number of each, with its offsets, all of them if there are none, and those that are kept as bits.
    fn pages(&self) -> impl Iterator<Item = (u32, &[u16], &[u16])> {
        let mut rest = &self.words[..];
        std::iter::from_fn(move || {
            let (&[high, low, count], after) = rest.split_first_chunk::<HEADER>()?;
            let (offsets, bits) = if count == BITS { (0, WORDS) } else { (usize::from(count), 0) };
            rest = &after[offsets + bits..];
            Some((u32::from(high) << 16 | u32::from(low), &after[..offsets], &after[offsets..offsets + bits]))
        })
    }

    /// All of them; those of lossy pages whether or not they exist.
    pub fn iter(&self) -> impl Iterator<Item = Tid> + '_ {
        self.pages().flat_map(|(block, offsets, bits)| {
            let all = if offsets.is_empty() && bits.is_empty() { MOST_ROWS_OF_PAGE } else { 0 };
            (1..=all).chain(offsets.iter().copied()).chain(set_bits(bits)).map(move |offset| Tid::new(block, offset))
        })
    }

    /// As a set, for a table of so many blocks.
    pub fn to_set(&self, blocks: u32) -> TidSet {
        let mut set = TidSet::for_table(blocks);
        for (block, offsets, bits) in self.pages() {
            crate::pg::memory::check_for_interrupts();
            if offsets.is_empty() && bits.is_empty() {
                set.insert(block, 0);
            }
            offsets.iter().copied().chain(set_bits(bits)).for_each(|offset| set.insert(block, offset));
        }
        set
    }

    /// Reads a bitmap. `rows_of_page`: rows that a lossy page is counted as.
    ///
    /// # Safety
    /// `bitmap` is a valid TIDBitmap that is not being iterated over.
    pub unsafe fn read(bitmap: *mut pg_sys::TIDBitmap, rows_of_page: f64) -> TidList {
        let mut list = TidList::default();
        let mut lossy = 0.0;
        // SAFETY: by contract; offsets are valid until the next call.
        unsafe {
            iterate(bitmap, |block, offsets| {
                crate::pg::memory::check_for_interrupts();
                match offsets {
                    Some(offsets) => offsets.iter().for_each(|&offset| list.push(block, offset)),
                    None => {
                        list.push(block, 0);
                        lossy += 1.0;
                    }
                }
            });
        }
        list.rows += lossy * (rows_of_page - 1.0);
        list
    }
}

/// The numbers of the bits that are set.
fn set_bits(words: &[u16]) -> impl Iterator<Item = u16> {
    words
        .iter()
        .zip(0_u16..)
        .flat_map(|(&word, at)| (0..16).filter(move |bit| word >> bit & 1 == 1).map(move |bit| 16 * at + bit))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_holds_what_was_put_in() {
        let mut put = Vec::new();
        for (block, offsets) in [
            (0, vec![1, 2, 300]),
            (7, (1..=291).collect()),
            (8, (1..=17).map(|i| i * 17).collect()),
            (70_000, vec![5]),
            (70_001, (1..=40).map(|i| i * 50).collect()),
            (70_002, vec![303, 304, 305]),
        ] {
            put.extend(offsets.into_iter().map(|offset: u16| (block, offset)));
        }
        let mut list = TidList::default();
        put.iter().for_each(|&(block, offset)| list.push(block, offset));
        let mut found: Vec<(u32, u16)> = list.iter().map(|tid| (tid.block(), tid.offset())).collect();
        found.sort_unstable();
        assert_eq!(found, put);
        assert_eq!(list.rows, put.len() as f64);
        list.push(80_000, 0);
        assert_eq!(list.iter().count(), put.len() + usize::from(MOST_ROWS_OF_PAGE));
    }
}
