//! Writes whole lists: during a build, to pages of the new relation that nobody else can see yet and that are logged at the
//! end; when lists are replaced, to new pages of a living index, each logged as it is written.

use super::page::{self, Child, Kind, Layout, NO_BLOCK, PostingMut, Tid};
use super::storage::{Buffer, Change, Checked};
use ann::filter::{RowKeys, Summary};
use ann::quantize::{self, BLOCK, CodeFactors, SketchFactors};
use pgrx::prelude::*;
use std::ops::Range;

/// An encoded entry of a list, borrowed.
pub struct Entry<'e> {
    pub tid: Tid,
    pub sketch: SketchFactors,
    pub code: CodeFactors,
    /// One nibble a byte, padded / 2.
    pub nibbles: &'e [u8],
    /// padded
    pub codes: &'e [i8],
    /// On the level of rows, the filter columns.
    pub row: &'e RowKeys,
    /// On inner levels, the child list, and the summaries of its filter columns (none: it is a list of lists).
    pub child: Option<(Child, &'e [Summary])>,
}

/// Encoded entries on their way to pages.
pub struct Entries {
    groups: usize,
    padded: usize,
    filters: usize,
    nibbles: Vec<u8>,
    codes: Vec<i8>,
    /// Of entries of rows.
    rows: Vec<RowKeys>,
    /// Of entries of lists of rows.
    summaries: Vec<Summary>,
    heads: Vec<(Tid, SketchFactors, CodeFactors, Option<Child>)>,
}

/// Where the parts of a block are that are not on its posting page.
struct Parts {
    /// Slots that have a cell.
    slots: usize,
    /// Cell of slot 0 on the first code page.
    code_index: usize,
    code_pages: Vec<u32>,
    sketch_pages: Vec<u32>,
}

impl Entries {
    /// None yet.
    pub fn new(layout: &Layout) -> Entries {
        Entries {
            groups: layout.groups,
            padded: layout.padded,
            filters: layout.filters,
            nibbles: Vec::new(),
            codes: Vec::new(),
            rows: Vec::new(),
            summaries: Vec::new(),
            heads: Vec::new(),
        }
    }

    /// Adds one.
    pub fn push(&mut self, entry: &Entry<'_>) {
        self.nibbles.extend_from_slice(entry.nibbles);
        self.codes.extend_from_slice(entry.codes);
        match entry.child {
            Some((_, summaries)) => self.summaries.extend_from_slice(summaries),
            None => self.rows.push(entry.row.clone()),
        }
        self.heads.push((entry.tid, entry.sketch, entry.code, entry.child.map(|c| c.0)));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    fn clear(&mut self) {
        self.nibbles.clear();
        self.codes.clear();
        self.rows.clear();
        self.summaries.clear();
        self.heads.clear();
    }

    fn nibbles(&self, range: Range<usize>) -> &[u8] {
        &self.nibbles[range.start * self.groups..range.end * self.groups]
    }

    /// Writes the cell of entry `i`, or part `part` of it.
    fn write_cell(&self, page: &mut page::Bytes, layout: &Layout, i: usize, cell: usize, part: usize) {
        let (_, _, factors, child) = &self.heads[i];
        let codes = &self.codes[i * self.padded..][..self.padded];
        let summaries = self.summaries.get(i * self.filters..(i + 1) * self.filters).unwrap_or_default();
        page::write_cell(page, layout, cell, part, factors, codes, child.map(|c| (c.list, summaries)));
    }

    /// Adds the entries of `range` (at most 32) to a posting page as a block. `groups`: their sketches, interleaved.
    fn write_block(&self, page: &mut page::Bytes, layout: &Layout, range: Range<usize>, parts: &Parts, groups: &[u8]) {
        let mut view = PostingMut::new(page, layout);
        let b = view.add_block(parts.slots, parts.code_index);
        for (i, &block) in parts.code_pages.iter().enumerate() {
            view.set_code_page(b, i, block);
        }
        for (i, &block) in parts.sketch_pages.iter().enumerate() {
            view.set_sketch_page(b, i, block);
        }
        let n = range.len();
        for (slot, row) in self.rows.get(range.clone()).unwrap_or_default().iter().enumerate() {
            view.set_keys(b, slot, row);
        }
        for (slot, (tid, sketch, _, child)) in self.heads[range].iter().enumerate() {
            view.set_entry(b, slot, *tid, sketch);
            if let Some(child) = child {
                view.set_child(b, slot, child);
            }
        }
        view.groups(b).copy_from_slice(&groups[..16 * layout.inline_groups]);
        view.set_live(b, if n == BLOCK { u32::MAX } else { (1 << n) - 1 });
    }
}

/// Writes lists of one level, one after another. Code pages are shared by lists that follow each other.
pub struct ListWriter<'l> {
    rel: pg_sys::Relation,
    layout: &'l Layout,
    level: u8,
    list: u32,
    head: u32,
    /// The list's last page, and the last code page: locked while they are being filled, opened again when needed.
    posting: Option<Buffer<'l>>,
    posting_block: u32,
    code: Option<Buffer<'l>>,
    code_block: u32,
    /// Next cell on `code`.
    cell: usize,
    /// Entries of the block that is being filled.
    waiting: Entries,
    groups: Vec<u8>,
    /// Of the list's rows so far.
    summaries: Vec<Summary>,
}

impl<'l> ListWriter<'l> {
    /// For lists of `level`.
    pub fn new(rel: pg_sys::Relation, layout: &'l Layout, level: u8) -> ListWriter<'l> {
        ListWriter {
            rel,
            layout,
            level,
            list: 0,
            head: NO_BLOCK,
            posting: None,
            posting_block: NO_BLOCK,
            code: None,
            code_block: NO_BLOCK,
            cell: 0,
            waiting: Entries::new(layout),
            groups: vec![0; 16 * layout.groups],
            summaries: vec![Summary::EMPTY; layout.filters],
        }
    }

    fn new_page(&self, kind: Kind) -> Buffer<'l> {
        let mut buffer = Buffer::allocate(self.rel, pg_sys::ForkNumber::MAIN_FORKNUM);
        let level = if kind == Kind::Code { self.level.min(1) } else { self.level };
        let list = if kind == Kind::Code { 0 } else { self.list };
        page::init(buffer.page_unlogged(), kind, level, list);
        buffer
    }

    /// Starts list `id`.
    pub fn begin(&mut self, id: u32) {
        self.list = id;
        self.summaries.fill(Summary::EMPTY);
        let mut head = self.new_page(Kind::Posting);
        self.head = head.block();
        let block = head.block();
        page::edit_opaque(head.page_unlogged(), |o| (o.head, o.insert_at) = (block, block));
        self.posting_block = block;
        self.posting = Some(head);
    }

    /// Unlocks all pages, so that interrupts are answered.
    pub fn unlock(&mut self) {
        self.posting = None;
        self.code = None;
    }

    /// Adds an entry to the list.
    pub fn add(&mut self, entry: &Entry<'_>) {
        if entry.child.is_none() {
            entry.row.add_to(&mut self.summaries);
        }
        self.waiting.push(entry);
        if self.waiting.len() == BLOCK {
            self.write_block();
        }
    }

    /// What the filter columns of the list's rows hold.
    pub fn summaries(&self) -> &[Summary] {
        &self.summaries
    }

    /// Ends the list; returns its head page.
    pub fn end(&mut self) -> u32 {
        if self.waiting.len() > 0 {
            self.write_block();
        }
        self.posting = None;
        let last_block = self.posting_block;
        let mut head = Buffer::write(self.rel, self.head);
        page::edit_opaque(head.page_unlogged(), |o| o.insert_at = last_block);
        self.head
    }

    fn write_block(&mut self) {
        let n = self.waiting.len();
        let layout = self.layout;
        let mut posting = self.posting.take().unwrap_or_else(|| Buffer::write(self.rel, self.posting_block));
        if page::opaque(posting.page()).used as usize == layout.blocks {
            let mut next = self.new_page(Kind::Posting);
            page::edit_opaque(next.page_unlogged(), |o| o.head = self.head);
            page::edit_opaque(posting.page_unlogged(), |o| o.next = next.block());
            posting = next;
            self.posting_block = posting.block();
        }
        let (code_index, code_pages) = self.write_codes(n);
        quantize::pack_block(self.waiting.nibbles(0..n), n, &mut self.groups);
        let sketch_pages: Vec<u32> = (0..layout.sketch_pages)
            .map(|i| {
                let part = layout.part(i);
                let mut buffer = self.new_page(Kind::Sketch);
                page::edit_opaque(buffer.page_unlogged(), |o| o.head = self.head);
                let groups = page::sketch_part_mut(buffer.page_unlogged(), part.len());
                groups.copy_from_slice(&self.groups[16 * part.start..16 * part.end]);
                buffer.block()
            })
            .collect();
        let parts = Parts { slots: n, code_index, code_pages, sketch_pages };
        self.waiting.write_block(posting.page_unlogged(), layout, 0..n, &parts, &self.groups);
        self.posting = Some(posting);
        self.waiting.clear();
    }

    /// Writes the cells of the waiting block; returns the cell of slot 0 on its page, and all pages in order.
    fn write_codes(&mut self, n: usize) -> (usize, Vec<u32>) {
        let layout = self.layout;
        let mut pages = Vec::new();
        let mut first = 0;
        for slot in 0..n {
            if layout.cell_pages > 1 {
                let mut parts: Vec<Buffer> = (0..layout.cell_pages).map(|_| self.new_page(Kind::Code)).collect();
                let blocks: Vec<u32> = parts.iter().map(Buffer::block).collect();
                for (part, buffer) in parts.iter_mut().enumerate() {
                    let page = buffer.page_unlogged();
                    self.waiting.write_cell(page, layout, slot, 0, part);
                    page::edit_opaque(page, |o| {
                        o.refs = 1;
                        o.next = blocks.get(part + 1).copied().unwrap_or(NO_BLOCK);
                    });
                }
                pages.extend(blocks);
                continue;
            }
            if self.code_block == NO_BLOCK || self.cell == layout.cells {
                self.code = None; // release before the next
                let fresh = self.new_page(Kind::Code);
                self.code_block = fresh.block();
                self.code = Some(fresh);
                self.cell = 0;
            } else if self.code.is_none() {
                self.code = Some(Buffer::write(self.rel, self.code_block));
            }
            let cell = self.cell;
            if slot == 0 {
                first = cell;
            }
            let buffer = self.code.as_mut().unwrap();
            let block = buffer.block();
            let page = buffer.page_unlogged();
            if slot == 0 || cell == 0 {
                pages.push(block);
                page::edit_opaque(page, |o| o.refs += 1);
            }
            self.waiting.write_cell(page, layout, slot, cell, 0);
            self.cell += 1;
        }
        (first, pages)
    }
}

/// Cells on code pages for lists that are written into a living index, one after another.
pub struct CodeStream<'l> {
    rel: pg_sys::Relation,
    layout: &'l Layout,
    /// The page that is being filled, or [`NO_BLOCK`]; no one else takes cells from it.
    page: u32,
    used: usize,
}

impl<'l> CodeStream<'l> {
    /// Begins on `page`, an open code page that has been taken out of the meta page, or [`NO_BLOCK`].
    pub fn new(rel: pg_sys::Relation, layout: &'l Layout, page: u32) -> CodeStream<'l> {
        let used = if page == NO_BLOCK { 0 } else { layout.cells - free_cells(rel, layout, page) };
        CodeStream { rel, layout, page, used }
    }

    /// The page that has cells left, and how many.
    pub fn open_page(&self) -> Option<(u32, usize)> {
        let left = self.layout.cells - self.used;
        (self.page != NO_BLOCK && left > 0).then_some((self.page, left))
    }

    /// Writes the codes of some entries, at most 32; returns their place. Up to 32 slots get cells, as far as that takes no
    /// further page.
    fn write(&mut self, entries: &Entries, range: Range<usize>) -> Parts {
        let layout = self.layout;
        let mut parts = Parts { slots: range.len(), code_index: 0, code_pages: Vec::new(), sketch_pages: Vec::new() };
        if layout.cell_pages > 1 {
            for i in range {
                parts.code_pages.extend(self.write_spanning(entries, i));
            }
            parts.slots = BLOCK; // a further slot's pages are made when it is used
            return parts;
        }
        let mut next = range.start;
        while next < range.end {
            let fresh = self.page == NO_BLOCK || self.used == layout.cells;
            let buffer = if fresh {
                Buffer::allocate(self.rel, pg_sys::ForkNumber::MAIN_FORKNUM)
            } else {
                Buffer::write(self.rel, self.page)
            };
            if fresh {
                (self.page, self.used) = (buffer.block(), 0);
            } else {
                page::check_code(buffer.page(), layout).or_corrupted(self.rel, self.page);
            }
            if next == range.start {
                parts.code_index = self.used;
            }
            parts.code_pages.push(self.page);
            let change = Change::begin(self.rel);
            let page = change.edit(&buffer, fresh);
            if fresh {
                page::init(page, Kind::Code, u8::from(layout.inner), 0);
            }
            page::edit_opaque(page, |o| o.refs += 1);
            let here = (range.end - next).min(layout.cells - self.used);
            for i in next..next + here {
                entries.write_cell(page, layout, i, self.used, 0);
                self.used += 1;
            }
            next += here;
            if next == range.end {
                let more = (BLOCK - parts.slots).min(layout.cells - self.used);
                self.used += more;
                parts.slots += more;
                page::set_used_cells(page, layout, self.used);
            }
            change.commit();
        }
        parts
    }

    /// Writes a cell of several pages; returns them.
    fn write_spanning(&self, entries: &Entries, i: usize) -> Vec<u32> {
        let layout = self.layout;
        let mut pages = vec![NO_BLOCK; layout.cell_pages];
        let mut next = NO_BLOCK;
        // Back to front, so that each page knows the next.
        for part in (0..layout.cell_pages).rev() {
            let buffer = Buffer::allocate(self.rel, pg_sys::ForkNumber::MAIN_FORKNUM);
            let change = Change::begin(self.rel);
            let page = change.edit(&buffer, true);
            page::init(page, Kind::Code, u8::from(layout.inner), 0);
            entries.write_cell(page, layout, i, 0, part);
            page::edit_opaque(page, |o| (o.refs, o.next) = (1, next));
            change.commit();
            next = buffer.block();
            pages[part] = next;
        }
        pages
    }
}

/// Cells of a code page that nobody has taken.
pub fn free_cells(rel: pg_sys::Relation, layout: &Layout, page: u32) -> usize {
    let buffer = Buffer::read(rel, page);
    let opaque = page::check_code(buffer.page(), layout).or_corrupted(rel, page);
    layout.cells.saturating_sub(opaque.used as usize)
}

/// Writes a list to new pages, which nobody knows yet; returns its head page.
pub fn write_list(
    rel: pg_sys::Relation,
    layout: &Layout,
    level: u8,
    list: u32,
    entries: &Entries,
    cells: &mut CodeStream<'_>,
) -> u32 {
    let blocks = entries.len().div_ceil(BLOCK);
    let allocate = || Buffer::allocate(rel, pg_sys::ForkNumber::MAIN_FORKNUM);
    let pages = blocks.div_ceil(layout.blocks).max(1);
    let mut first = Some(allocate());
    let head = first.as_ref().unwrap().block();
    let (mut next, mut last) = (NO_BLOCK, NO_BLOCK);
    let mut groups = vec![0; 16 * layout.groups];
    // Back to front, so that a page names the next only when that is in the log.
    for p in (0..pages).rev() {
        let buffer = if p == 0 { first.take().unwrap() } else { allocate() };
        if last == NO_BLOCK {
            last = buffer.block();
        }
        let change = Change::begin(rel);
        let page = change.edit(&buffer, true);
        page::init(page, Kind::Posting, level, list);
        page::edit_opaque(page, |o| {
            o.head = head;
            o.next = next;
            o.insert_at = if p == 0 { last } else { NO_BLOCK };
        });
        next = buffer.block();
        for b in p * layout.blocks..blocks.min((p + 1) * layout.blocks) {
            let range = b * BLOCK..entries.len().min((b + 1) * BLOCK);
            let mut parts = cells.write(entries, range.clone());
            quantize::pack_block(entries.nibbles(range.clone()), range.len(), &mut groups);
            for i in 0..layout.sketch_pages {
                let part = layout.part(i);
                let sketch = allocate();
                let change = Change::begin(rel);
                let page = change.edit(&sketch, true);
                page::init(page, Kind::Sketch, level, list);
                page::edit_opaque(page, |o| o.head = head);
                let bytes = &groups[16 * part.start..16 * part.end];
                page::sketch_part_mut(page, part.len()).copy_from_slice(bytes);
                change.commit();
                parts.sketch_pages.push(sketch.block());
            }
            entries.write_block(page, layout, range, &parts, &groups);
        }
        change.commit();
    }
    head
}
