//! What VACUUM does when the dead rows are gone: it brings to an end what a crash or an ERROR broke off, gives back pages
//! that nothing refers to, merges small lists, splits long ones, writes wasteful ones anew, and measures the stopping rule again.
//!
//! It keeps 36 bytes for each list, and 6 for each page, but of no more pages at a time than VACUUM's memory holds.

use crate::ROOT_ENTRIES;
use crate::calibrate::QUERIES;
use crate::change::merge;
use crate::change::recalibrate;
use crate::change::structure::{self, Structure};
use crate::page::{self, Block, Damage, Kind, Layout, META_BLOCK, Meta, NO_BLOCK, PENDING, Posting, Tid};
use crate::pages::{Guard, Pages, Record};
use crate::read::info::Info;
use crate::read::tree::Cursor;
use crate::rows::Rows;
use crate::stale::{Checked, Stale, Steps};
use ann::memory;
use ann::quantize::BLOCK;
use std::ops::Range;

/// Lists are split by whoever inserts into them, at their limit; by VACUUM only when they have so many times as many rows.
const NEGLECTED: usize = 2;
/// All of the index is read when so many rows a list have been removed since that was done last, or when it has grown by a
/// fifth since, and so many pages.
const REMOVED: u64 = 1;
const GROWN_BY: u32 = 64;

/// What was found and done.
#[derive(Default)]
pub struct Tidied {
    /// Free pages in the end, if all have been looked at.
    pub free: Option<u32>,
    /// Pages freed.
    pub freed: u32,
}

/// Tidies up `index` as far as that is worth it; `rows` makes a reader of rows for each change. Nobody is kept waiting but while a single
/// change is made.
pub fn tidy<P: Pages, R: Rows>(index: P, rows: impl Fn() -> R, strategy: P::Strategy) -> Tidied {
    let mut tidied = Tidied::default();
    if is_worth_it(index) {
        // Whoever waits for a closed list or wants to look at the structure need not wait for this.
        let mut free;
        let leaves = {
            let mut structure = Structure::of_vacuum(index, rows(), index.share_structure_lock());
            let (leaves, found) = structure.mend(strategy);
            (free, tidied.freed) = (found, structure.freed);
            leaves
        };
        let taken = index.pages_taken();
        let layout = Info::of(index).leaf_layout();
        for (list, leaf) in leaves {
            index.vacuum_delay();
            let meta = Info::of(index).meta;
            let small = leaf.has_shrunk() && merge::is_small(leaf.rows as usize, &meta);
            let long = leaf.rows as usize > NEGLECTED * meta.split_at(leaf.radius);
            if !small && !long && (!leaf.wastes(&layout) || leaf.is_split(&meta)) {
                continue;
            }
            let mut structure = Structure::of_vacuum(index, rows(), index.wait_for_structure_lock());
            if small {
                structure.merge(list, leaf.cell);
            } else {
                structure.split_located(list, leaf.cell);
            }
            tidied.freed += structure.freed;
        }
        free = (free + tidied.freed).saturating_sub(index.pages_taken() - taken);
        tidied.free = Some(free);
        index.spread_free();
        let blocks = index.blocks();
        structure::update_meta(index, |meta| (meta.removed, meta.surveyed) = (0, blocks));
    }
    let meta = Info::of(index).meta;
    // A root that holds all lists may be too long.
    if meta.height == 1 && meta.lists as usize > ROOT_ENTRIES {
        Structure::of_vacuum(index, rows(), index.wait_for_structure_lock()).grow_root();
    }
    let (now, then) = (f64::from(meta.lists), f64::from(meta.calibrated));
    // If that was last done in haste, or with fewer or many more lists.
    if (meta.calibrated_by as usize) < QUERIES[0] || now >= then * 1.05 || now < then * 0.7 {
        let mut rows = rows();
        recalibrate::renew(index, &mut rows, QUERIES[0]);
    }
    tidied
}

/// Whether there is likely something to be done that takes all of the index to be read.
fn is_worth_it<P: Pages>(index: P) -> bool {
    let meta = Info::of(index).meta;
    meta.pending != [0; PENDING]
        || meta.unfinished != 0
        || meta.removed >= REMOVED * u64::from(meta.lists)
        || index.blocks() >= meta.surveyed.saturating_add(meta.surveyed / 5).saturating_add(GROWN_BY)
}

/// Counts rows that have been removed.
pub fn note_removed<P: Pages>(index: P, rows: u64) {
    structure::update_meta(index, |meta| meta.removed = meta.removed.saturating_add(rows));
}

/// Head page and identity of the lists of rows that came after list `last`, and the last that there is. The structure must be
/// kept as it is.
pub fn lists_after<P: Pages>(index: P, last: u32) -> (Vec<(u32, u32)>, u32) {
    let info = Info::of(index);
    if info.meta.last_list == last {
        return (Vec::new(), last);
    }
    let mut survey = Survey::default();
    survey.find_lists(index, &info.meta);
    let new = survey.leaves.iter().filter(|(list, _)| *list > last).map(|(list, leaf)| (leaf.head, *list));
    (memory::collected(new), info.meta.last_list)
}

/// A list of rows in the tree.
#[derive(Clone, Copy)]
struct Leaf {
    head: u32,
    /// Of its centroid; none if it is the root.
    cell: (u32, u16),
    radius: f32,
    rows: u32,
    /// Places for rows, and those of them that have held one.
    slots: u32,
    removed: u32,
    pages: u32,
    closed: bool,
}

impl Leaf {
    /// Whether the list would take fewer pages if it were written anew, or has more free slots than it will soon need.
    fn wastes(&self, layout: &Layout) -> bool {
        let (rows, slots, pages) = (self.rows as usize, self.slots as usize, self.pages as usize);
        let needed = (rows + BLOCK / 2).div_ceil(BLOCK).div_ceil(layout.blocks);
        pages > needed || slots > rows + rows / 4 + BLOCK
    }

    /// Whether half of the rows that it has had or more, or all, are gone. Of the lists that k-means makes some are small, where
    /// few rows are near each other and far from others; to merge those would undo its work.
    fn has_shrunk(&self) -> bool {
        self.removed >= self.rows
    }

    /// Whether writing it anew would make two of it.
    fn is_split(&self, meta: &Meta) -> bool {
        structure::pieces(self.rows as usize, meta.split_at(self.radius)) > 1
    }
}

/// What is known of a page.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// 0: it was never written.
    kind: u8,
    /// What a sketch or code page says of itself, and what was found to refer to it.
    refs: u16,
    named: u16,
    /// Part of the index as it is.
    used: bool,
}

/// The lists of an index, by identity, and a window of its pages.
#[derive(Default)]
struct Survey {
    window: Range<u32>,
    pages: Vec<Seen>,
    leaves: Vec<(u32, Leaf)>,
    inner: Vec<u32>,
}

impl<P: Pages, R: Rows> Structure<P, R> {
    /// Brings broken-off changes to an end and gives back leaked pages; returns the lists of rows, and how many pages were free.
    /// It is enough that the structure is kept as it is.
    fn mend(&mut self, strategy: P::Strategy) -> (Vec<(u32, Leaf)>, u32) {
        self.complete();
        let mut survey = Survey::default();
        survey.find_lists(self.index, &self.meta);
        // Who extends the file locks the new page before this lock is released: from now on, a page of zeroes up to here is
        // either locked or left over.
        let blocks = self.index.blocks_settled();
        let window = u32::try_from(self.index.vacuum_memory() / size_of::<Seen>()).unwrap_or(u32::MAX);
        let mut free = 0;
        let mut first = META_BLOCK;
        while first < blocks {
            survey.window = first..first.saturating_add(window).min(blocks);
            let open = self.survey_pages(&mut survey, blocks, strategy, false);
            if survey.leaks(open) {
                // An insert may have made pages that it was just about to name. It has had the posting page locked that is
                // to name them; so this pass meets the names of all pages that the first has met.
                survey.pages.iter_mut().for_each(|page| page.named = 0);
                let open = self.survey_pages(&mut survey, blocks, strategy, true);
                self.give_back(&survey, open);
            }
            for (number, page) in survey.numbered() {
                if page.kind == 0 || page.is(Kind::Free) {
                    self.index.check_for_interrupts();
                    self.index.note_free(number);
                    free += 1;
                }
            }
            first = survey.window.end;
        }
        self.index.spread_free();
        // Nobody has the structure lock alone: what was begun before has come to its end, or never will.
        self.update_meta(|meta| meta.unfinished = 0);
        for (id, leaf) in survey.leaves.iter().filter(|(_, leaf)| leaf.closed) {
            structure::reopen(self.index, &self.leaf, (leaf.head, *id), &self.lock);
        }
        (survey.leaves, free)
    }

    /// Completes the change that left lists `pending`: their rows are taken out of all other lists.
    fn complete(&mut self) {
        let pending = self.meta.pending;
        if pending == [0; PENDING] {
            return;
        }
        let mut survey = Survey::default();
        survey.find_lists(self.index, &self.meta);
        let (most, layout) = ((self.index.vacuum_memory() / size_of::<Tid>()).max(1), self.leaf);
        let mut rows: Vec<Tid> = Vec::new();
        for &(id, leaf) in survey.leaves.iter().filter(|(id, _)| pending.contains(id)) {
            let mut cursor = Cursor::of(self.index, &layout, leaf.head, id);
            while let Some(buffer) = cursor.next_page().unwrap_or_else(|stale| damaged(self.index, stale)) {
                entries(&cursor.posting(&buffer)).for_each(|entry| memory::push(&mut rows, entry.2));
                drop(buffer);
                if rows.len() >= most {
                    self.take_out_of_others(&survey, &mut rows);
                }
            }
        }
        self.take_out_of_others(&survey, &mut rows);
        self.update_meta(|meta| meta.pending = [0; PENDING]);
    }

    /// Takes rows out of all lists but those that are pending, and out of `rows`.
    fn take_out_of_others(&mut self, survey: &Survey, rows: &mut Vec<Tid>) {
        rows.sort_unstable();
        let pending = self.meta.pending;
        for &(id, leaf) in survey.leaves.iter().filter(|(id, _)| !rows.is_empty() && !pending.contains(id)) {
            let (mut next, mut steps) = (leaf.head, Steps::new());
            while next != NO_BLOCK {
                self.index.vacuum_delay();
                steps.step(self.index, next);
                let buffer = self.index.write(next);
                let posting = Posting::open(buffer.page(), &self.leaf, id).or_corrupted(self.index, next);
                next = posting.opaque.next;
                let copies = entries(&posting).filter(|entry| rows.binary_search(&entry.2).is_ok());
                let copies: Vec<(usize, usize)> = copies.map(|(b, slot, _)| (b, slot)).collect();
                if !copies.is_empty() {
                    self.take_out(&buffer, copies.into_iter());
                }
            }
        }
        rows.clear();
    }

    /// Reads the pages of the window, or `again` those on which posting blocks may be by now, and what all blocks of the index
    /// refer to in the window; returns the code pages that were open before.
    fn survey_pages(&self, survey: &mut Survey, blocks: u32, strategy: P::Strategy, again: bool) -> [u32; 2] {
        let index = self.index;
        let meta = Info::of(index).meta;
        let mut mean = meta.mean;
        let counts = survey.window.start == META_BLOCK;
        if counts {
            survey
                .leaves
                .iter_mut()
                .for_each(|(_, leaf)| (leaf.rows, leaf.slots, leaf.removed, leaf.pages) = (0, 0, 0, 0));
        }
        if !again {
            survey.pages.clear();
            memory::resize(&mut survey.pages, survey.window.len(), Seen::default());
            survey.mark_used(META_BLOCK);
            let mut steps = Steps::new();
            while mean != NO_BLOCK {
                steps.step(index, mean);
                let next = page::check(index.read(mean).page(), Kind::Mean).or_corrupted(index, mean).next;
                survey.mark_used(mean);
                mean = next;
            }
        }
        let mut number = META_BLOCK;
        // Blocks that were added meanwhile may name pages that are older.
        while number < if again { index.blocks() } else { blocks } {
            let block = number;
            number += 1;
            let seen = survey.page(block).copied().unwrap_or_default();
            if again && [Kind::Meta, Kind::Mean, Kind::Sketch, Kind::Code].into_iter().any(|kind| seen.is(kind)) {
                continue;
            }
            index.vacuum_delay();
            let buffer = index.read_by(block, strategy);
            let opaque = match page::check_any(buffer.page()) {
                Ok(opaque) => opaque,
                Err(Damage::New) => continue,
                Err(damage) => index.corrupted(block, damage),
            };
            let leaf = survey.leaf(opaque.list);
            let in_tree = leaf.is_some() || survey.inner.binary_search(&opaque.list).is_ok();
            if let Some(page) = survey.page(block).filter(|_| !again) {
                (page.kind, page.refs) = (opaque.kind, opaque.refs);
                page.used |= opaque.kind == Kind::Posting as u8 && in_tree;
                if opaque.kind == Kind::Sketch as u8 {
                    page.refs = 1;
                }
                if opaque.kind == Kind::Code as u8 && opaque.closed() {
                    drop(buffer);
                    structure::reopen_cells(index, &self.inner, block, &self.lock);
                    continue;
                }
            }
            if opaque.kind != Kind::Posting as u8 || !in_tree {
                continue;
            }
            let layout = if opaque.level == 0 { &self.leaf } else { &self.inner };
            let posting = Posting::open(buffer.page(), layout, opaque.list).or_corrupted(index, block);
            for b in (0..posting.blocks()).map(|b| posting.block(b)) {
                b.check().or_corrupted(index, block);
                for named in b.all_code_pages().chain(b.all_sketch_pages()) {
                    if let Some(page) = survey.page(named) {
                        page.named = page.named.saturating_add(1);
                    }
                }
            }
            if let Some(leaf) = leaf.filter(|_| counts) {
                let leaf = &mut survey.leaves[leaf].1;
                leaf.rows += entries(&posting).count() as u32;
                for block in (0..posting.blocks()).map(|b| posting.block(b)) {
                    leaf.slots += block.slots() as u32;
                    leaf.removed += removed(&block);
                }
                leaf.pages += 1;
                leaf.closed |= opaque.closed();
            }
        }
        meta.open_code
    }

    /// Frees the pages that nothing refers to, and corrects how many blocks code pages think refer to them. `open`: code pages
    /// that blocks took cells from meanwhile.
    fn give_back(&mut self, survey: &Survey, open: [u32; 2]) {
        let (index, epoch) = (self.index, self.meta.epoch);
        for (number, seen) in survey.numbered().filter(|(number, seen)| seen.leaks() && !open.contains(number)) {
            index.vacuum_delay();
            let buffer = index.write(number);
            let mut change = index.begin();
            if seen.named > 0 && seen.is(Kind::Code) {
                page::edit_opaque(change.edit(&buffer, false), |o| o.refs = seen.named);
            } else {
                page::free(change.edit(&buffer, true), epoch);
                index.note_free(number);
                self.freed += 1;
            }
            change.commit();
        }
    }
}

impl Seen {
    fn is(&self, kind: Kind) -> bool {
        self.kind == kind as u8
    }

    /// Whether fewer blocks refer to the page than it counts, or nothing at all.
    fn leaks(&self) -> bool {
        match self.kind {
            _ if self.is(Kind::Sketch) || self.is(Kind::Code) => self.named < self.refs || self.named == 0,
            _ if self.is(Kind::Posting) || self.is(Kind::Mean) => !self.used,
            _ => false,
        }
    }
}

fn damaged<P: Pages>(index: P, stale: Stale) -> ! {
    index.corrupted(stale.block, stale.damage)
}

impl Survey {
    /// Finds all lists of the tree.
    fn find_lists<P: Pages>(&mut self, index: P, meta: &Meta) {
        let inner = Layout::new(meta.shape(), true);
        let Meta { height, root, root_list, .. } = *meta;
        let unknown = Leaf {
            head: root,
            cell: (NO_BLOCK, 0),
            radius: 0.0,
            rows: 0,
            slots: 0,
            removed: 0,
            pages: 0,
            closed: false,
        };
        if height == 0 {
            memory::push(&mut self.leaves, (root_list, unknown));
            return;
        }
        memory::push(&mut self.inner, root_list);
        let mut level = memory::filled((root, root_list), 1);
        for height in (0..height).rev() {
            let mut children = Vec::new();
            for (head, list) in level {
                let mut cursor = Cursor::of(index, &inner, head, list);
                while let Some(buffer) = cursor.next_page().unwrap_or_else(|stale| damaged(index, stale)) {
                    let posting = cursor.posting(&buffer);
                    for (b, slot, _) in entries(&posting) {
                        let (block, child) = (posting.block(b), posting.block(b).child(slot));
                        let cell = block.cell(slot).unwrap_or_else(|| index.corrupted(buffer.block(), Damage::Bounds));
                        if height == 0 {
                            let leaf = Leaf { head: child.head, cell, radius: child.radius, ..unknown };
                            memory::push(&mut self.leaves, (child.list, leaf));
                        } else {
                            memory::push(&mut self.inner, child.list);
                            memory::push(&mut children, (child.head, child.list));
                        }
                    }
                }
            }
            level = children;
        }
        // Also, so that the order of what is done does not depend on where the tree names them.
        self.leaves.sort_unstable_by_key(|(list, _)| *list);
        self.leaves.dedup_by_key(|(list, _)| *list);
        self.inner.sort_unstable();
    }

    /// Number of a list of rows in `leaves`.
    fn leaf(&self, list: u32) -> Option<usize> {
        self.leaves.binary_search_by_key(&list, |(list, _)| *list).ok()
    }

    /// What is known of a page of the window.
    fn page(&mut self, block: u32) -> Option<&mut Seen> {
        block.checked_sub(self.window.start).and_then(|at| self.pages.get_mut(at as usize))
    }

    /// Notes that a page is part of the index as it is.
    fn mark_used(&mut self, block: u32) {
        if let Some(page) = self.page(block) {
            page.used = true;
        }
    }

    /// The pages of the window, with their numbers.
    fn numbered(&self) -> impl Iterator<Item = (u32, &Seen)> {
        self.window.clone().zip(&self.pages)
    }

    /// Whether there are pages that nothing refers to.
    fn leaks(&self, open: [u32; 2]) -> bool {
        self.numbered().any(|(number, seen)| seen.leaks() && !open.contains(&number))
    }
}

/// Slots of a block that have held a row and hold none.
fn removed(block: &Block<'_>) -> u32 {
    let never = Tid::new(0, 0);
    (0..BLOCK).filter(|slot| block.live() >> slot & 1 == 0 && block.tid(*slot) != never).count() as u32
}

/// Block, slot and TID of the live entries of a page.
pub fn entries<'p>(posting: &Posting<'p>) -> impl Iterator<Item = (usize, usize, Tid)> + use<'p> {
    let posting = *posting;
    (0..posting.blocks()).flat_map(move |b| {
        let block = posting.block(b);
        (0..BLOCK).filter(move |slot| block.live() >> slot & 1 == 1).map(move |slot| (b, slot, block.tid(slot)))
    })
}
