//! `INSERT`: one entry into the nearest list's tail.
//!
//! The entry's code (and, for many dimensions, the rest of its sketch) is written first, by changes of their own; the
//! last change sets the live bit. A crash in between leaves cells that nobody refers to.

use super::encode::Encoder;
use super::meta::Info;
use super::metric::{Frame, Placed};
use super::page::{self, Damage, Kind, Layout, Meta, NO_BLOCK, Posting, PostingMut, Tid};
use super::storage::{Buffer, Change, Checked, blocks, corrupted};
use super::tree::{self, CodeReader, Query};
use ann::quantize::{self, BLOCK};
use pgrx::PgMemoryContexts;
use pgrx::prelude::*;

/// What the inserts of one statement share.
struct Inserter {
    frame: Frame,
    query: Query,
    encoder: Encoder,
    leaf: Layout,
    inner: Layout,
    row: Vec<f32>,
    centroid: Vec<f32>,
}

/// Lists looked at for the nearest one.
const BEAM: usize = 8;

/// `aminsert`
#[pg_guard]
#[allow(clippy::too_many_arguments, reason = "PostgreSQL's signature")]
pub unsafe extern "C-unwind" fn aminsert(
    index: pg_sys::Relation,
    values: *mut pg_sys::Datum,
    nulls: *mut bool,
    tid: pg_sys::ItemPointer,
    _heap: pg_sys::Relation,
    _unique: pg_sys::IndexUniqueCheck::Type,
    _unchanged: bool,
    info: *mut pg_sys::IndexInfo,
) -> bool {
    // SAFETY: PostgreSQL's arguments. ii_AmCache is NULL or what was stored here; it lives in ii_Context.
    unsafe {
        if *nulls {
            return false;
        }
        let meta_info = Info::of(index);
        if (*info).ii_AmCache.is_null() {
            let frame = meta_info.frame(index);
            let padded = frame.padded();
            let space = frame.operator.space();
            let inserter = Inserter {
                query: Query::new(frame.operator),
                frame,
                encoder: Encoder::new(space, padded),
                leaf: meta_info.leaf_layout(),
                inner: meta_info.inner_layout(),
                row: Vec::new(),
                centroid: Vec::new(),
            };
            (*info).ii_AmCache = PgMemoryContexts::For((*info).ii_Context).leak_and_drop_on_delete(inserter).cast();
        }
        let inserter = &mut *(*info).ii_AmCache.cast::<Inserter>();
        inserter.frame.operator.read(*values, &mut inserter.row);
        let dims = inserter.frame.dims;
        if inserter.row.len() != dims {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
                format!("expected {dims} dimensions, not {}", inserter.row.len())
            );
        }
        inserter.insert(index, &meta_info.meta, Tid::from_item(&*tid));
        false
    }
}

/// Makes `found` (locked) the page where inserts into the list of head page `head` begin to look for room.
fn set_insert_page(index: pg_sys::Relation, head: u32, found: &Buffer<'_>) {
    let buffer;
    let target = if found.block() == head {
        found
    } else {
        buffer = Buffer::write(index, head);
        &buffer
    };
    let change = Change::begin(index);
    page::edit_opaque(change.edit(target, false), |o| o.insert_at = found.block());
    change.commit();
}

/// Locks the page that one of `held` names. Were it that very page, which only damage can make it, it would wait for itself.
fn another<'r>(index: pg_sys::Relation, held: &Buffer<'_>, number: u32) -> Buffer<'r> {
    if number == held.block() {
        corrupted(index, number, Damage::Bounds);
    }
    Buffer::write(index, number)
}

impl Inserter {
    /// Inserts `self.row`.
    fn insert(&mut self, index: pg_sys::Relation, meta: &Meta, tid: Tid) {
        self.row.resize(self.frame.padded(), 0.0);
        let placed = self.frame.place(&mut self.row);
        if placed == Placed::Nowhere {
            return;
        }
        self.query.nearest = true;
        self.query.vector.clear();
        self.query.vector.extend_from_slice(&self.row);
        self.query.prepare();
        self.centroid.clear();
        self.centroid.resize(self.frame.padded(), 0.0);
        let list = if meta.height == 0 {
            (meta.root, meta.root_list)
        } else {
            let found = tree::walk(index, meta, &self.inner, &self.query, BEAM).ok().unwrap();
            let Some(nearest) = found.last().and_then(|l| l.first()) else {
                corrupted(index, meta.root, Damage::Bounds);
            };
            let mut codes = CodeReader::new(index, &self.inner);
            codes.decode(nearest.cell, nearest.list.id, &mut self.centroid).ok().unwrap();
            (nearest.list.head, nearest.list.id)
        };
        self.encoder.encode(&self.row, &self.centroid);
        if placed == Placed::Unbounded {
            self.encoder.unbind();
        }
        self.append(index, list, tid);
    }

    /// Puts the encoded entry into the first free slot from the list's insert page on.
    fn append(&self, index: pg_sys::Relation, (head, list): (u32, u32), tid: Tid) {
        let hint = {
            let buffer = Buffer::read(index, head);
            Posting::open(buffer.page(), &self.leaf, list).or_corrupted(index, head).opaque.insert_at
        };
        let mut buffer = Buffer::write(index, hint);
        let mut left = blocks(index);
        loop {
            let block = buffer.block();
            let posting = Posting::open(buffer.page(), &self.leaf, list).or_corrupted(index, block);
            // A free slot of a block that has cells for it, or a new block.
            for b in 0..posting.blocks() {
                let view = posting.block(b);
                let free = (!view.live()).trailing_zeros() as usize;
                if free < view.slots() {
                    self.fill(index, &buffer, b, free, tid);
                    return self.note_room(index, &buffer, hint, head);
                }
            }
            if posting.blocks() < self.leaf.blocks {
                let b = self.add_block(index, &buffer);
                self.fill(index, &buffer, b, 0, tid);
                return self.note_room(index, &buffer, hint, head);
            }
            left = left.checked_sub(1).unwrap_or_else(|| corrupted(index, block, Damage::Bounds));
            buffer = match posting.opaque.next {
                NO_BLOCK => self.extend(index, buffer, head, list),
                next => {
                    drop(buffer); // one posting page at a time
                    pgrx::check_for_interrupts!();
                    Buffer::write(index, next)
                }
            };
        }
    }

    /// Notes in the list's head that inserts find room on `found`, when they had to walk there from `hint`.
    /// The page stays locked; nobody who holds a head page waits for another posting page.
    fn note_room(&self, index: pg_sys::Relation, found: &Buffer<'_>, hint: u32, head: u32) {
        if found.block() != hint {
            set_insert_page(index, head, found);
        }
    }

    /// Links an empty page behind `last`; returns it, locked.
    fn extend<'r>(&self, index: pg_sys::Relation, last: Buffer<'r>, head: u32, list: u32) -> Buffer<'r> {
        let fresh = Buffer::allocate(index, pg_sys::ForkNumber::MAIN_FORKNUM);
        let change = Change::begin(index);
        let page = change.edit(&fresh, true);
        page::init(page, Kind::Posting, 0, list);
        page::edit_opaque(page, |o| o.head = head);
        page::edit_opaque(change.edit(&last, false), |o| o.next = fresh.block());
        change.commit();
        fresh
    }

    /// Adds an empty block to a posting page, with its sketch pages.
    fn add_block(&self, index: pg_sys::Relation, buffer: &Buffer<'_>) -> usize {
        let page::Opaque { list, head, .. } = page::opaque(buffer.page());
        let sketch_pages: Vec<u32> = (0..self.leaf.sketch_pages)
            .map(|i| {
                let fresh = Buffer::allocate(index, pg_sys::ForkNumber::MAIN_FORKNUM);
                let change = Change::begin(index);
                let page = change.edit(&fresh, true);
                page::init(page, Kind::Sketch, 0, list);
                page::edit_opaque(page, |o| o.head = head);
                page::sketch_part_mut(page, self.leaf.part(i).len());
                change.commit();
                fresh.block()
            })
            .collect();
        // Cells go on behind those of the block before, if they are still free there.
        let (code_index, code_page) = self.free_cells(index, buffer);
        let change = Change::begin(index);
        let page = change.edit(buffer, false);
        let mut view = PostingMut::new(page, &self.leaf);
        let b = view.add_block(BLOCK, code_index);
        if code_page != NO_BLOCK {
            view.set_code_page(b, 0, code_page);
        }
        for (i, &number) in sketch_pages.iter().enumerate() {
            view.set_sketch_page(b, i, number);
        }
        change.commit();
        b
    }

    /// Where the cells of a new block can start: behind those of the page's last block when its code page has room and
    /// nobody else uses it, else on a page still to be made.
    fn free_cells(&self, index: pg_sys::Relation, buffer: &Buffer<'_>) -> (usize, u32) {
        let posting = Posting::open(buffer.page(), &self.leaf, 0).or_corrupted(index, buffer.block());
        if self.leaf.cell_pages > 1 || posting.blocks() == 0 {
            return (0, NO_BLOCK);
        }
        let last = posting.block(posting.blocks() - 1);
        let end = last.code_index() + last.slots();
        let (page, cell) = (end / self.leaf.cells, end % self.leaf.cells);
        if cell == 0 || page >= self.leaf.code_pages || last.code_page(page) == NO_BLOCK {
            return (0, NO_BLOCK);
        }
        let number = last.code_page(page);
        let code = another(index, buffer, number);
        let opaque = page::check_code(code.page(), &self.leaf).or_corrupted(index, number);
        if opaque.used as usize != cell || opaque.flags != 0 {
            return (0, NO_BLOCK);
        }
        // Claim the cells up to the end of the page, so that only this block's owner goes on here.
        let change = Change::begin(index);
        page::edit_opaque(change.edit(&code, false), |o| {
            o.refs += 1;
            o.used = self.leaf.cells as u16;
        });
        change.commit();
        (cell, number)
    }

    /// Writes the entry into `slot` of block `b` of the locked page.
    fn fill(&self, index: pg_sys::Relation, buffer: &Buffer<'_>, b: usize, slot: usize, tid: Tid) {
        let layout = &self.leaf;
        let list = page::opaque(buffer.page()).list;
        let (code_index, live, sketch_pages) = {
            let posting = Posting::open(buffer.page(), layout, list).or_corrupted(index, buffer.block());
            let block = posting.block(b);
            let pages: Vec<u32> = (0..layout.sketch_pages).map(|i| block.sketch_page(i)).collect();
            (block.code_index(), block.live(), pages)
        };
        let new_pages = self.write_code(index, buffer, b, slot, code_index);
        for (i, &number) in sketch_pages.iter().enumerate() {
            let part = layout.part(i);
            let sketch = another(index, buffer, number);
            page::sketch_part(sketch.page(), part.len(), list).or_corrupted(index, number);
            let change = Change::begin(index);
            let groups = page::sketch_part_mut(change.edit(&sketch, false), part.len());
            quantize::set_nibble_column(groups, slot, &self.encoder.nibbles[part]);
            change.commit();
        }
        let change = Change::begin(index);
        let mut view = PostingMut::new(change.edit(buffer, false), layout);
        for (i, number) in new_pages {
            view.set_code_page(b, i, number);
        }
        view.set_entry(b, slot, tid, &self.encoder.sketch);
        quantize::set_nibble_column(view.groups(b), slot, &self.encoder.nibbles[..layout.inline_groups]);
        view.set_live(b, live | 1 << slot);
        change.commit();
    }

    /// Writes the entry's cell; returns the pages that had to be made for it, to be named in the block.
    fn write_code(
        &self,
        index: pg_sys::Relation,
        buffer: &Buffer<'_>,
        b: usize,
        slot: usize,
        code_index: usize,
    ) -> Vec<(usize, u32)> {
        let layout = &self.leaf;
        let (first, cell) = layout.cell_of(code_index, slot);
        if first + layout.cell_pages > layout.code_pages {
            corrupted(index, buffer.block(), Damage::Bounds);
        }
        let known: Vec<u32> = {
            let posting = Posting::open(buffer.page(), layout, 0).or_corrupted(index, buffer.block());
            (0..layout.cell_pages).map(|part| posting.block(b).code_page(first + part)).collect()
        };
        let mut made = Vec::new();
        let mut next = NO_BLOCK;
        // Back to front, so that each page of a cell knows the next.
        for part in (0..layout.cell_pages).rev() {
            let exists = known[part] != NO_BLOCK;
            let page_buffer = if exists {
                another(index, buffer, known[part])
            } else {
                Buffer::allocate(index, pg_sys::ForkNumber::MAIN_FORKNUM)
            };
            if exists {
                page::check_code(page_buffer.page(), layout).or_corrupted(index, known[part]);
            } else {
                made.push((first + part, page_buffer.block()));
            }
            let change = Change::begin(index);
            let page = change.edit(&page_buffer, !exists);
            if !exists {
                page::init(page, Kind::Code, 0, 0);
                page::edit_opaque(page, |o| o.refs = 1);
            }
            page::write_cell(page, layout, cell, part, &self.encoder.code, &self.encoder.codes, 0);
            page::edit_opaque(page, |o| o.next = next);
            change.commit();
            next = page_buffer.block();
        }
        made
    }
}
