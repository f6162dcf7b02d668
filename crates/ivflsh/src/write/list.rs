//! Writes whole lists: during a build, to pages of the new relation that nobody else can see yet and that are logged at the
//! end; when lists are replaced, to new pages of a living index, each logged as it is written.

use crate::page::{self, Child, Kind, Layout, NO_BLOCK, PostingMut, Run, Tid};
use crate::pages::{ExclusiveGuard, Guard, Pages, Record};
use crate::stale::Checked;
use ann::filter::{RowKeys, Summarizer, Summary};
use ann::quantize::{self, BLOCK, CodeFactors, SketchFactors};
use std::ops::Range;

/// An encoded entry of a list, borrowed.
pub struct Entry<'e> {
    pub tid: Tid,
    pub sketch: SketchFactors,
    pub code: CodeFactors,
    /// One nibble a byte, padded / 2.
    pub nibbles: &'e [u8],
    /// As many bytes as the layout's codes have.
    pub codes: &'e [u8],
    /// On the level of rows, the filter columns.
    pub row: &'e RowKeys,
    /// On inner levels, the child list, and the summaries of its filter columns (none: it is a list of lists).
    pub child: Option<(Child, &'e [Summary])>,
}

/// Encoded entries on their way to pages.
pub struct Entries {
    groups: usize,
    code_bytes: usize,
    filters: usize,
    nibbles: Vec<u8>,
    codes: Vec<u8>,
    /// Of entries of rows.
    rows: Vec<RowKeys>,
    /// Of entries of lists of rows.
    summaries: Vec<Summary>,
    heads: Vec<(Tid, SketchFactors, CodeFactors, Option<Child>)>,
}

/// Where the parts of a block are that are not on its posting page.
struct Parts {
    /// Slots that can be used: those that have a cell, where there are codes.
    slots: usize,
    runs: Vec<Run>,
    sketch_pages: Vec<u32>,
}

impl Entries {
    /// None yet.
    pub fn new(layout: &Layout) -> Entries {
        Entries {
            groups: layout.groups,
            code_bytes: layout.code_bytes(),
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

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
    fn write_cell(&self, page: &mut page::Bytes, layout: &Layout, i: usize, cell: u16, part: usize) {
        let (tid, _, factors, child) = &self.heads[i];
        let codes = &self.codes[i * self.code_bytes..][..self.code_bytes];
        let summaries = self.summaries.get(i * self.filters..(i + 1) * self.filters).unwrap_or_default();
        page::write_cell(page, layout, cell, part, factors, codes, *tid, child.map(|c| (c.list, summaries)));
    }

    /// Adds the entries of `range` (at most 32) to a posting page as a block. `groups`: their sketches, interleaved.
    fn write_block(&self, page: &mut page::Bytes, layout: &Layout, range: Range<usize>, parts: &Parts, groups: &[u8]) {
        let mut view = PostingMut::new(page, layout);
        let b = view.add_block(&parts.runs);
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

/// Writes lists of one level, one after another. Cells go where a posting or sketch page has room left, the others to code
/// pages that lists which follow each other share.
pub struct ListWriter<'l, P: Pages> {
    rel: P,
    layout: &'l Layout,
    level: u8,
    list: u32,
    head: u32,
    /// The list's last page.
    posting: u32,
    /// The last code page: locked while it is being filled, opened again when needed.
    code: Option<P::Exclusive>,
    code_block: u32,
    /// Next cell on `code`.
    cell: usize,
    /// Entries of the page that is being filled.
    waiting: Entries,
    groups: Vec<u8>,
    /// Of the list's rows so far.
    summarizer: Summarizer,
}

impl<'l, P: Pages> ListWriter<'l, P> {
    /// For lists of `level`.
    pub fn new(rel: P, layout: &'l Layout, level: u8) -> ListWriter<'l, P> {
        ListWriter {
            rel,
            layout,
            level,
            list: 0,
            head: NO_BLOCK,
            posting: NO_BLOCK,
            code: None,
            code_block: NO_BLOCK,
            cell: 0,
            waiting: Entries::new(layout),
            groups: vec![0; 16 * layout.groups],
            summarizer: Summarizer::new(layout.filters),
        }
    }

    fn new_page(&self, kind: Kind) -> P::Exclusive {
        let mut buffer = self.rel.allocate();
        let level = if kind == Kind::Code { self.level.min(1) } else { self.level };
        let list = if kind == Kind::Code { 0 } else { self.list };
        page::init(buffer.page_unlogged(), kind, level, list);
        buffer
    }

    /// Starts list `id`.
    pub fn begin(&mut self, id: u32) {
        self.list = id;
        self.summarizer.clear();
        let mut head = self.new_page(Kind::Posting);
        let block = head.block();
        page::edit_opaque(head.page_unlogged(), |o| (o.head, o.insert_at) = (block, block));
        (self.head, self.posting) = (block, block);
    }

    /// Unlocks all pages, so that interrupts are answered.
    pub fn unlock(&mut self) {
        self.code = None;
    }

    /// Adds an entry to the list.
    pub fn add(&mut self, entry: &Entry<'_>) {
        if self.waiting.len() == self.layout.entries_per_page() {
            self.write_page();
            let mut next = self.new_page(Kind::Posting);
            page::edit_opaque(next.page_unlogged(), |o| o.head = self.head);
            let mut last = self.rel.write(self.posting);
            page::edit_opaque(last.page_unlogged(), |o| o.next = next.block());
            self.posting = next.block();
        }
        if entry.child.is_none() {
            self.summarizer.add(entry.row);
        }
        self.waiting.push(entry);
    }

    /// What the filter columns of the list's rows hold.
    pub fn summaries(&mut self) -> &[Summary] {
        self.summarizer.summaries()
    }

    /// Ends the list; returns its head page.
    pub fn end(&mut self) -> u32 {
        self.write_page();
        let mut head = self.rel.write(self.head);
        page::edit_opaque(head.page_unlogged(), |o| o.insert_at = self.posting);
        self.head
    }

    /// Writes the waiting entries to the last page.
    fn write_page(&mut self) {
        let layout = self.layout;
        let waiting = std::mem::replace(&mut self.waiting, Entries::new(layout));
        let mut posting = self.rel.write(self.posting);
        let blocks = waiting.len().div_ceil(BLOCK);
        // Pages with cells of inner lists can be closed by themselves: to changes of summaries.
        let mut room = if layout.inner { 0 } else { layout.cells_behind(blocks) };
        for b in 0..blocks {
            let range = b * BLOCK..waiting.len().min((b + 1) * BLOCK);
            quantize::pack_block(waiting.nibbles(range.clone()), range.len(), &mut self.groups);
            let mut sketches: Vec<P::Exclusive> = (0..layout.sketch_pages)
                .map(|i| {
                    let part = layout.part(i);
                    let mut buffer = self.new_page(Kind::Sketch);
                    page::edit_opaque(buffer.page_unlogged(), |o| o.head = self.head);
                    let groups = page::sketch_part_mut(buffer.page_unlogged(), part.len());
                    groups.copy_from_slice(&self.groups[16 * part.start..16 * part.end]);
                    buffer
                })
                .collect();
            let parts = Parts {
                slots: if layout.bits.is_some() { range.len() } else { BLOCK },
                runs: self.write_cells(&waiting, range.clone(), &mut posting, &mut room, sketches.last_mut()),
                sketch_pages: sketches.iter().map(P::Exclusive::block).collect(),
            };
            waiting.write_block(posting.page_unlogged(), layout, range, &parts, &self.groups);
        }
        self.waiting = waiting;
        self.waiting.clear();
    }

    /// Writes the cells of some entries: `room` of them at the end of the posting page, as many as fit behind the sketches
    /// of a sketch page, the others on code pages. Returns where they are.
    fn write_cells(
        &mut self,
        entries: &Entries,
        range: Range<usize>,
        posting: &mut P::Exclusive,
        room: &mut usize,
        mut sketch: Option<&mut P::Exclusive>,
    ) -> Vec<Run> {
        let layout = self.layout;
        let mut runs: Vec<Run> = Vec::new();
        let mut sketch_room = if layout.inner { 0 } else { layout.cells_behind_sketches() };
        for i in if layout.bits.is_some() { range } else { 0..0 } {
            if layout.cell_pages > 1 {
                runs.extend(self.write_spanning(entries, i));
                continue;
            }
            let (buffer, cell) = if *room > 0 {
                *room -= 1;
                (&mut *posting, None)
            } else if sketch_room > 0
                && let Some(sketch) = &mut sketch
            {
                sketch_room -= 1;
                (&mut **sketch, None)
            } else {
                self.turn_code_page();
                self.cell += 1;
                (self.code.as_mut().unwrap(), Some(self.cell as u16 - 1))
            };
            let block = buffer.block();
            let page = buffer.page_unlogged();
            let goes_on = runs.last().is_some_and(|run| run.page == block);
            if cell.is_some() && !goes_on {
                page::edit_opaque(page, |o| o.refs += 1);
            }
            let cell = cell.unwrap_or_else(|| page::add_cell_at_end(page, layout));
            entries.write_cell(page, layout, i, cell, 0);
            match runs.last_mut() {
                Some(run) if goes_on => run.count += 1,
                _ => runs.push(Run { page: block, first: cell, count: 1 }),
            }
        }
        runs
    }

    /// Makes `code` a page with a free cell.
    fn turn_code_page(&mut self) {
        if self.code_block == NO_BLOCK || self.cell == self.layout.cells {
            self.code = None; // release before the next
            let fresh = self.new_page(Kind::Code);
            self.code_block = fresh.block();
            self.code = Some(fresh);
            self.cell = 0;
        } else if self.code.is_none() {
            self.code = Some(self.rel.write(self.code_block));
        }
    }

    /// Writes a cell that spans pages.
    fn write_spanning(&self, entries: &Entries, i: usize) -> Vec<Run> {
        let layout = self.layout;
        let mut parts: Vec<P::Exclusive> = (0..layout.cell_pages).map(|_| self.new_page(Kind::Code)).collect();
        let blocks: Vec<u32> = parts.iter().map(P::Exclusive::block).collect();
        for (part, buffer) in parts.iter_mut().enumerate() {
            let page = buffer.page_unlogged();
            entries.write_cell(page, layout, i, 0, part);
            page::edit_opaque(page, |o| {
                (o.refs, o.next) = (1, blocks.get(part + 1).copied().unwrap_or(NO_BLOCK));
            });
        }
        blocks.into_iter().map(|page| Run { page, first: 0, count: 1 }).collect()
    }

    /// The last code page if it has free cells: open to inserts.
    pub fn open_page(&self) -> u32 {
        let open = self.layout.cell_pages == 1 && self.cell < self.layout.cells;
        if open { self.code_block } else { NO_BLOCK }
    }
}

/// Cells on code pages for lists that are written into a living index, one after another.
pub struct CodeStream<'l, P> {
    rel: P,
    layout: &'l Layout,
    /// The page that is being filled, or [`NO_BLOCK`]; no one else takes cells from it.
    page: u32,
    used: usize,
}

impl<'l, P: Pages> CodeStream<'l, P> {
    /// Begins on `page`, an open code page that has been taken out of the meta page, or [`NO_BLOCK`].
    pub fn new(rel: P, layout: &'l Layout, page: u32) -> CodeStream<'l, P> {
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
        let mut parts = Parts { slots: range.len(), runs: Vec::new(), sketch_pages: Vec::new() };
        if layout.cell_pages != 1 {
            if layout.bits.is_some() {
                parts.runs.extend(range.flat_map(|i| self.write_spanning(entries, i)));
            }
            parts.slots = BLOCK; // a further slot's pages are made when it is used
            return parts;
        }
        let mut next = range.start;
        while next < range.end {
            let fresh = self.page == NO_BLOCK || self.used == layout.cells;
            let buffer = if fresh { self.rel.allocate() } else { self.rel.write(self.page) };
            if fresh {
                (self.page, self.used) = (buffer.block(), 0);
            } else {
                page::check_code(buffer.page(), layout).or_corrupted(self.rel, self.page);
            }
            let first = self.used;
            let mut change = self.rel.begin();
            let page = change.edit(&buffer, fresh);
            if fresh {
                page::init(page, Kind::Code, u8::from(layout.inner), 0);
            }
            page::edit_opaque(page, |o| o.refs += 1);
            let here = (range.end - next).min(layout.cells - self.used);
            for i in next..next + here {
                entries.write_cell(page, layout, i, self.used as u16, 0);
                self.used += 1;
            }
            next += here;
            if next == range.end {
                let more = (BLOCK - parts.slots).min(layout.cells - self.used);
                self.used += more;
                parts.slots += more;
                page::set_used_cells(page, layout, self.used);
            }
            parts.runs.push(Run { page: self.page, first: first as u16, count: (self.used - first) as u16 });
            change.commit();
        }
        parts
    }

    /// Writes a cell of several pages; returns them.
    fn write_spanning(&self, entries: &Entries, i: usize) -> Vec<Run> {
        let layout = self.layout;
        let mut pages = vec![NO_BLOCK; layout.cell_pages];
        let mut next = NO_BLOCK;
        // Back to front, so that each page knows the next.
        for part in (0..layout.cell_pages).rev() {
            let buffer = self.rel.allocate();
            let mut change = self.rel.begin();
            let page = change.edit(&buffer, true);
            page::init(page, Kind::Code, u8::from(layout.inner), 0);
            entries.write_cell(page, layout, i, 0, part);
            page::edit_opaque(page, |o| (o.refs, o.next) = (1, next));
            change.commit();
            next = buffer.block();
            pages[part] = next;
        }
        pages.into_iter().map(|page| Run { page, first: 0, count: 1 }).collect()
    }
}

/// Cells of a code page that nobody has taken.
pub fn free_cells<P: Pages>(rel: P, layout: &Layout, page: u32) -> usize {
    let buffer = rel.read(page);
    let opaque = page::check_code(buffer.page(), layout).or_corrupted(rel, page);
    layout.cells.saturating_sub(opaque.used as usize)
}

/// Writes a list to new pages, which nobody knows yet; returns its head page.
pub fn write_list<P: Pages>(
    rel: P,
    layout: &Layout,
    level: u8,
    list: u32,
    entries: &Entries,
    cells: &mut CodeStream<'_, P>,
) -> u32 {
    let blocks = entries.len().div_ceil(BLOCK);
    let allocate = || rel.allocate();
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
        let mut change = rel.begin();
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
                let mut change = rel.begin();
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
