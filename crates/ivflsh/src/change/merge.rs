//! Lists that have become small, because their rows were deleted, are merged into one with their neighbours, at vacuum.

use super::structure::{Members, Old, OldPages, Structure, can_change, count};
use crate::page::{Meta, Owner, PENDING};
use crate::pages::{Guard, Pages};
use crate::read::tree::{self, CodeReader, Cursor, Found};
use crate::rows::Rows;

/// A list with fewer rows than this share of what a list should hold is merged with others.
const SMALL: usize = 4;
/// Nearest lists that may be merged with it.
const NEAR: usize = 16;

/// Whether a list with so many rows is to be merged with others.
pub fn is_small(rows: usize, meta: &Meta) -> bool {
    rows * SMALL < meta.target as usize && meta.lists > 1
}

impl<P: Pages, R: Rows> Structure<P, R> {
    /// Merges a list of rows with its neighbours, or takes it out of the tree, if it is small. `cell`: of its centroid, as
    /// the caller has seen it; nothing is done if that is no longer so.
    ///
    /// The new list replaces one of the old ones, like the lists of a split. The others go one after the other. Until all are
    /// gone their rows are in two lists, and the new list is `pending`.
    pub fn merge(&mut self, list: u32, cell: (u32, u16)) {
        if self.meta.pending != [0; PENDING] || !can_change(self.index, &self.meta) {
            return;
        }
        let Some((levels, own)) = self.locate(list, cell) else { return };
        let Some(group) = self.group(levels.last().map_or(&[], |leaves| leaves), own) else { return };
        let mut members = Members::default();
        let mut olds = Vec::new();
        for &at in &group {
            let path = tree::path(&levels, at).unwrap_or_default();
            let old = self.close(path[0].list.head, path[0].list.id, self.centroid(path[0].cell, path[0].list.id));
            let before = members.len();
            for entry in &old.entries {
                self.index.check_for_interrupts();
                self.read_member(entry, (old.list, &old.centroid), &mut members);
            }
            olds.push((path, old, members.len() - before));
        }
        let closed: Vec<(u32, u32)> = olds.iter().map(|(_, old, _)| (old.head, old.list)).collect();
        if self.spares(&members, &closed) {
            return;
        }
        // The first is the one that is replaced: what has most rows.
        olds.sort_by_key(|(_, _, rows)| std::cmp::Reverse(*rows));

        let hold = self.index.hold_interrupts();
        let mut grown = Vec::new();
        if members.len() > 0 || olds.len() == self.meta.lists as usize {
            let (path, old, _) = olds.remove(0);
            grown = self.replace(&path, old, &members, !olds.is_empty());
        }
        let mut parents: Vec<Vec<Found>> = Vec::new();
        while let Some((path, old, _)) = olds.pop() {
            let last = olds.is_empty();
            self.swap(&path[1], &[path[0].at], &[], None, |meta| {
                meta.lists -= 1;
                meta.merges += 1;
                if last {
                    meta.pending = [0; PENDING];
                }
            });
            let leaf = self.leaf;
            self.free(old.pages, &leaf);
            parents.push(path[1..].to_vec());
        }
        parents.sort_by_key(|path| path[0].list.id);
        parents.dedup_by_key(|path| path[0].list.id);
        for path in parents {
            self.remove_if_empty(&path);
        }
        self.finish();
        drop(hold);
        if !grown.is_empty() {
            self.grow_inner(&grown);
        }
    }

    /// Splits a list of rows, or writes it anew if it is not long. `cell` as for [`Structure::merge`].
    pub fn split_located(&mut self, list: u32, cell: (u32, u16)) {
        let path = self.locate(list, cell).and_then(|(levels, at)| tree::path(&levels, at));
        if let Some(path) = path {
            self.split(&path);
        }
    }

    /// The lists around one, as [`tree::walk`] finds them, and its index among those of rows; None if it is not there.
    fn locate(&self, list: u32, cell: (u32, u16)) -> Option<(Vec<Vec<Found>>, usize)> {
        if self.meta.height == 0 {
            return None; // it is the root, and has no centroid
        }
        let mut centroid = vec![0.0; self.padded()];
        CodeReader::new(self.index, &self.inner).decode(cell, Owner::child(list), &mut centroid).ok()?;
        let levels = self.around(&centroid, NEAR + 1);
        let at = levels.last()?.iter().position(|found| found.list.id == list)?;
        Some((levels, at))
    }

    /// Which of `near` lists, nearest first, should become one with list `own` of them: none but `own` itself if it is empty.
    /// None if it is not small, or no other has room for its rows.
    fn group(&self, near: &[Found], own: usize) -> Option<Vec<usize>> {
        let rows = |found: &Found| {
            count(self.index, &self.leaf, found.list.head, found.list.id)
                .unwrap_or_else(|stale| self.index.corrupted(stale.block, stale.damage))
        };
        let mut total = rows(&near[own]);
        if !is_small(total, &self.meta) {
            return None;
        }
        let mut group = vec![own];
        if total == 0 {
            return Some(group);
        }
        let target = self.meta.target as usize;
        let others: Vec<(usize, usize)> =
            near.iter().enumerate().filter(|(at, _)| *at != own).map(|(at, found)| (at, rows(found))).collect();
        for &(at, rows) in &others {
            if total * 2 < target && total + rows <= target {
                group.push(at);
                total += rows;
            }
        }
        if group.len() == 1 {
            let has_room = |&&(at, rows): &&(usize, usize)| total + rows < self.meta.split_at(near[at].list.radius);
            group.push(others.iter().find(has_room)?.0);
        }
        Some(group)
    }

    /// Writes a list of all `members` and puts it in the place of `old`. `others`: some of them are still in other lists.
    /// Returns the way to the parent if that has grown by it.
    fn replace(&mut self, path: &[Found], old: Old, members: &Members, others: bool) -> Vec<Found> {
        let mut centroid = members.mean(self.padded()).unwrap_or_else(|| old.centroid.clone());
        let record = self.quantize(&mut centroid);
        let leaf = self.leaf;
        let (id, mut cells) = self.reserve(1, &leaf);
        let new = self.write_rows(id, members, 0..members.len(), (&centroid, record), &mut cells);
        let grown = self.swap(&path[1], &[path[0].at], &[new], Some((&leaf, &cells)), |meta| {
            meta.pending[0] = if others { id } else { 0 };
        });
        self.free(old.pages, &leaf);
        if grown { path[1..].to_vec() } else { Vec::new() }
    }

    /// Takes a list of lists out of the tree that has no entry left, and so on upwards. `path`: the list, its parent, ...
    fn remove_if_empty(&mut self, path: &[Found]) {
        let [own, parent, ..] = path else { return }; // the root stays
        let mut pages = OldPages::default();
        let mut cursor = Cursor::of(self.index, &self.inner, own.list.head, own.list.id);
        loop {
            match cursor.next_page() {
                Ok(None) => break,
                Ok(Some(buffer)) => {
                    let posting = cursor.posting(&buffer);
                    if (0..posting.blocks()).any(|b| posting.block(b).live() != 0) {
                        return;
                    }
                    pages.add(self.index, buffer.block(), &posting);
                }
                Err(stale) => self.index.corrupted(stale.block, stale.damage),
            }
        }
        self.swap(parent, &[own.at], &[], None, |_| {});
        let inner = self.inner;
        self.free(pages, &inner);
        self.remove_if_empty(&path[1..]);
    }
}
