//! Writes whole lists during a build: pages of the new relation that nobody else can see yet, logged at the end.

use super::page::{self, Child, Kind, Layout, NO_BLOCK, PostingMut, Tid};
use super::storage::Buffer;
use ann::quantize::{self, BLOCK, CodeFactors, SketchFactors};
use pgrx::prelude::*;

/// An encoded entry of a list, borrowed.
pub struct Entry<'e> {
    pub tid: Tid,
    pub sketch: SketchFactors,
    pub code: CodeFactors,
    /// One nibble a byte, padded / 2.
    pub nibbles: &'e [u8],
    /// padded
    pub codes: &'e [i8],
    /// On inner levels, the child list.
    pub child: Option<Child>,
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
    waiting: usize,
    nibbles: Vec<u8>,
    groups: Vec<u8>,
    codes: Vec<i8>,
    heads: Vec<(Tid, SketchFactors, CodeFactors, Option<Child>)>,
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
            waiting: 0,
            nibbles: vec![0; BLOCK * layout.groups],
            groups: vec![0; 16 * layout.groups],
            codes: vec![0; BLOCK * layout.padded],
            heads: Vec::with_capacity(BLOCK),
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
        let i = self.waiting;
        self.nibbles[i * self.layout.groups..][..self.layout.groups].copy_from_slice(entry.nibbles);
        self.codes[i * self.layout.padded..][..self.layout.padded].copy_from_slice(entry.codes);
        self.heads.push((entry.tid, entry.sketch, entry.code, entry.child));
        self.waiting += 1;
        if self.waiting == BLOCK {
            self.write_block();
        }
    }

    /// Ends the list; returns its head page.
    pub fn end(&mut self) -> u32 {
        if self.waiting > 0 {
            self.write_block();
        }
        self.posting = None;
        let last_block = self.posting_block;
        let mut head = Buffer::write(self.rel, self.head);
        page::edit_opaque(head.page_unlogged(), |o| o.insert_at = last_block);
        self.head
    }

    fn write_block(&mut self) {
        let n = self.waiting;
        let layout = self.layout;
        let mut posting = self.posting.take().unwrap_or_else(|| Buffer::write(self.rel, self.posting_block));
        if page::opaque(posting.page()).used as usize == layout.blocks {
            let mut next = self.new_page(Kind::Posting);
            page::edit_opaque(next.page_unlogged(), |o| o.head = self.head);
            page::edit_opaque(posting.page_unlogged(), |o| o.next = next.block());
            posting = next;
            self.posting_block = posting.block();
        }
        let code_pages = self.write_codes(n);
        quantize::pack_block(&self.nibbles[..n * layout.groups], n, &mut self.groups);
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
        let mut view = PostingMut::new(posting.page_unlogged(), layout);
        let b = view.add_block(n, code_pages.0);
        for (i, &block) in code_pages.1.iter().enumerate() {
            view.set_code_page(b, i, block);
        }
        for (i, &block) in sketch_pages.iter().enumerate() {
            view.set_sketch_page(b, i, block);
        }
        for (slot, (tid, sketch, _, child)) in self.heads.iter().enumerate() {
            view.set_entry(b, slot, *tid, sketch);
            if let Some(child) = child {
                view.set_child(b, slot, child);
            }
        }
        view.groups(b).copy_from_slice(&self.groups[..16 * layout.inline_groups]);
        view.set_live(b, if n == BLOCK { u32::MAX } else { (1 << n) - 1 });
        self.posting = Some(posting);
        self.waiting = 0;
        self.heads.clear();
    }

    /// Writes the cells of the waiting block; returns the cell of slot 0 on its page, and all pages in order.
    fn write_codes(&mut self, n: usize) -> (usize, Vec<u32>) {
        let layout = self.layout;
        let mut pages = Vec::new();
        let mut first = 0;
        for slot in 0..n {
            let codes = &self.codes[slot * layout.padded..][..layout.padded];
            let (_, _, factors, child) = &self.heads[slot];
            let child = child.map_or(0, |c| c.list);
            if layout.cell_pages > 1 {
                let mut parts: Vec<Buffer> = (0..layout.cell_pages).map(|_| self.new_page(Kind::Code)).collect();
                let blocks: Vec<u32> = parts.iter().map(Buffer::block).collect();
                for (part, buffer) in parts.iter_mut().enumerate() {
                    let page = buffer.page_unlogged();
                    page::write_cell(page, layout, 0, part, factors, codes, child);
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
            page::write_cell(page, layout, cell, 0, factors, codes, child);
            self.cell += 1;
        }
        (first, pages)
    }
}
