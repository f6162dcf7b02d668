//! The tree: entries (list, row, weight) in the order of lists and rows. See README.md beside this file.
//!
//! Readers lock one page at a time, shared, and go right where a page has been split since they read the way to it. One backend at
//! a time changes the structure: the holder of the [`StructureLock`].

use super::page::{self, ENTRY, Key, MOST_DOWN, MOST_LEVELS, Node, Place, ROOM};
use super::segment::{self, Segment};
use crate::index::page::{Bytes, Damage, NO_BLOCK};
use crate::index::storage::{Buffer, Change, Checked, Steps, StructureLock, corrupted};
use ann::memory;
use pgrx::prelude::*;
use std::ops::Range;

/// An entry.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Entry {
    pub key: Key,
    pub row: u64,
    pub weight: f32,
}

impl Entry {
    pub fn place(&self) -> Place {
        Place { key: self.key, row: self.row }
    }
}

/// A tree to be read.
#[derive(Clone, Copy)]
pub struct Tree {
    pub index: pg_sys::Relation,
    pub root: u32,
}

/// Where a segment was found, and what the search goes by without its data.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub first: u64,
    pub max: f32,
    pub block: u32,
}

impl Tree {
    /// Locks (shared) the leaf in which a place is.
    fn leaf<'b>(&self, place: Place) -> Buffer<'b> {
        let (mut block, mut level) = (self.root, None);
        let mut steps = Steps::new();
        loop {
            let buffer = Buffer::read(self.index, block);
            let node = Node::open(buffer.page()).or_corrupted(self.index, block);
            // The root becomes an inner page, and of another level.
            let right = level.is_none_or(|level| level == node.opaque.level) && node.opaque.level <= MOST_LEVELS;
            if !right || place < node.low() {
                corrupted(self.index, block, Damage::Bounds);
            }
            level = Some(node.opaque.level);
            if node.high() <= place {
                steps.step(self.index, block);
                block = node.opaque.next;
                continue;
            }
            if node.is_leaf() {
                return buffer;
            }
            block = node.down(node.child_at(place)).1;
            level = level.map(|level| level - 1);
        }
    }

    /// Calls `each` for the leaves from that of `from` on, with the page, until it says that it has enough.
    pub fn leaves(&self, from: Place, mut each: impl FnMut(u32, &Node<'_>) -> bool) {
        let mut buffer = self.leaf(from);
        let mut begins = None;
        loop {
            let block = buffer.block();
            let node = Node::open(buffer.page()).or_corrupted(self.index, block);
            if !node.is_leaf() || begins.is_some_and(|low| node.low() != low) || node.high() <= node.low() {
                corrupted(self.index, block, Damage::Bounds);
            }
            begins = Some(node.high());
            let next = node.opaque.next;
            if !each(block, &node) || node.high() == Place::END {
                return;
            }
            drop(buffer);
            crate::pg::memory::check_for_interrupts();
            buffer = Buffer::read(self.index, next);
        }
    }

    /// The segments of a list, in order.
    pub fn directory(&self, key: Key) -> Vec<Found> {
        let mut found = Vec::new();
        let from = Place { key, row: 0 };
        self.leaves(from, |block, node| {
            node.verify().or_corrupted(self.index, block);
            for i in node.find(from)..node.len() {
                let segment = node.segment(i);
                if segment.key != key {
                    return false;
                }
                if found.last().is_some_and(|last: &Found| last.first >= segment.first) {
                    corrupted(self.index, block, Damage::Bounds);
                }
                memory::push(&mut found, Found { first: segment.first, max: segment.max, block });
            }
            node.high().key == key
        });
        found
    }

    /// Adds the entries of a list from row `first` of a segment to the one before `end` to `rows` and `weights`. `block`: where that
    /// segment was found, alone.
    pub fn entries(&self, key: Key, block: u32, (first, end): (u64, u64), rows: &mut Vec<u64>, weights: &mut Vec<f32>) {
        let place = Place { key, row: first };
        {
            let buffer = Buffer::read(self.index, block);
            let node = Node::open(buffer.page()).or_corrupted(self.index, block);
            let i = if node.is_leaf() { node.find(place) } else { node.len() };
            if i < node.len() && node.is_leaf() && node.place(i) == place {
                let behind = match i + 1 {
                    next if next < node.len() => node.place(next),
                    _ => node.high(),
                };
                // Else it has been divided since.
                if behind >= (Place { key, row: end }) {
                    node.decode(&node.segment(i), rows, weights).or_corrupted(self.index, block);
                    if rows.last().is_some_and(|&last| last >= end) {
                        let n = rows.partition_point(|&row| row < end);
                        rows.truncate(n);
                        weights.truncate(n);
                    }
                    return;
                }
            }
        }
        self.range(key, first..end, rows, weights);
    }

    /// Adds the entries of a list in these rows.
    pub fn range(&self, key: Key, wanted: Range<u64>, rows: &mut Vec<u64>, weights: &mut Vec<f32>) {
        let from = Place { key, row: wanted.start };
        let start = rows.len();
        self.leaves(from, |block, node| {
            // The segment before may reach as far.
            for i in node.find(from).saturating_sub(1)..node.len() {
                let place = node.place(i);
                if place.key > key || place.key == key && place.row >= wanted.end {
                    return false;
                }
                if place.key == key {
                    memory::room(rows, segment::MOST);
                    memory::room(weights, segment::MOST);
                    node.decode(&node.segment(i), rows, weights).or_corrupted(self.index, block);
                }
            }
            node.high().key == key && node.high().row < wanted.end
        });
        let mut kept = start;
        for i in start..rows.len() {
            if wanted.contains(&rows[i]) {
                (rows[kept], weights[kept]) = (rows[i], weights[i]);
                kept += 1;
            }
        }
        rows.truncate(kept);
        weights.truncate(kept);
    }

    /// Adds the entries of a list that are on the page of a place, and not before it, to `rows` and `weights`; returns where it goes on.
    pub fn part(&self, from: Place, rows: &mut Vec<u64>, weights: &mut Vec<f32>) -> Option<Place> {
        let mut next = None;
        self.leaves(from, |block, node| {
            for i in node.find(from).saturating_sub(1)..node.len() {
                let segment = node.segment(i);
                if segment.key == from.key {
                    memory::room(rows, segment::MOST);
                    memory::room(weights, segment::MOST);
                    node.decode(&segment, rows, weights).or_corrupted(self.index, block);
                }
            }
            next = (node.high().key == from.key).then_some(node.high());
            false
        });
        let before = rows.iter().take_while(|&&row| row < from.row).count();
        rows.drain(..before);
        weights.drain(..before);
        next
    }

    /// The weight of a row in a list.
    pub fn weight(&self, place: Place) -> Option<f32> {
        let (mut rows, mut weights) = (Vec::new(), Vec::new());
        self.range(place.key, place.row..place.row + 1, &mut rows, &mut weights);
        weights.first().copied()
    }
}

/// A segment of a leaf that is written anew, with its data.
#[derive(Clone)]
struct Piece {
    segment: Segment,
    data: Range<usize>,
}

impl Piece {
    fn bytes(&self) -> usize {
        ENTRY + self.data.len()
    }
}

/// Bytes of a leaf that is split are divided among so many pages at most: a change has four, and one of them is the parent.
const MOST_PAGES: usize = 3;
/// Entries that are put into a leaf at once, at most.
const MOST_AT_ONCE: usize = 1024;

/// What changes the tree.
pub struct Writer<'l> {
    tree: Tree,
    _lock: &'l StructureLock,
    /// Data of the pieces.
    data: Vec<u8>,
    pieces: Vec<Piece>,
    /// A segment that is changed.
    rows: Vec<u64>,
    weights: Vec<f32>,
    merged: Vec<(u64, f32)>,
}

impl<'l> Writer<'l> {
    pub fn new(tree: Tree, lock: &'l StructureLock) -> Writer<'l> {
        Writer {
            tree,
            _lock: lock,
            data: Vec::new(),
            pieces: Vec::new(),
            rows: Vec::new(),
            weights: Vec::new(),
            merged: Vec::new(),
        }
    }

    /// Puts entries into the tree; an entry that is there already gets the new weight. They are in order.
    pub fn put(&mut self, entries: &[Entry]) {
        let mut done = 0;
        while done < entries.len() {
            crate::pg::memory::check_for_interrupts();
            let (leaf, parent) = self.way(entries[done].place());
            done += self.fill(&leaf, parent, &entries[done..]);
        }
    }

    /// Removes the entries whose row is dead from the leaf in which a place is, and returns where the next one begins, and how
    /// many were removed.
    pub fn remove(&mut self, at: Place, is_dead: &dyn Fn(u64) -> bool) -> (Place, u64) {
        let index = self.tree.index;
        let (leaf, parent) = self.way(at);
        let node = Node::open(leaf.page()).or_corrupted(index, leaf.block());
        node.verify().or_corrupted(index, leaf.block());
        let high = node.high();
        self.data.clear();
        self.pieces.clear();
        let mut removed = 0;
        for i in 0..node.len() {
            let segment = node.segment(i);
            self.take(&leaf, &node, &segment);
            let Writer { rows, weights, merged, .. } = self;
            let live = rows.iter().copied().zip(weights.iter().copied()).filter(|(row, _)| !is_dead(*row));
            merged.clear();
            merged.extend(live);
            removed += (rows.len() - merged.len()) as u64;
            if merged.len() == rows.len() {
                self.keep(&leaf, &node, segment);
            } else {
                self.divide(segment.key, segment::MOST);
            }
        }
        if removed > 0 {
            self.write(&leaf, parent);
        }
        (high, removed)
    }

    /// Decodes a segment.
    fn take(&mut self, leaf: &Buffer<'_>, node: &Node<'_>, segment: &Segment) {
        self.rows.clear();
        self.weights.clear();
        node.decode(segment, &mut self.rows, &mut self.weights).or_corrupted(self.tree.index, leaf.block());
    }

    /// A segment stays as it is.
    fn keep(&mut self, leaf: &Buffer<'_>, node: &Node<'_>, segment: Segment) {
        let (data, bytes) = node.data(&segment).or_corrupted(self.tree.index, leaf.block());
        let start = self.data.len();
        self.data.extend_from_slice(&data[..bytes]);
        self.pieces.push(Piece { segment, data: start..start + bytes });
    }

    /// `merged` becomes segments of at most so many entries.
    fn divide(&mut self, key: Key, most: usize) {
        for part in self.merged.chunks(most) {
            let start = self.data.len();
            let segment = Segment::encode(key, part, &mut self.data);
            self.pieces.push(Piece { segment, data: start..self.data.len() });
        }
    }

    /// Puts as many entries as belong to a leaf, and can be put at once, into it. Returns how many.
    fn fill(&mut self, leaf: &Buffer<'_>, parent: Option<u32>, entries: &[Entry]) -> usize {
        let index = self.tree.index;
        let node = Node::open(leaf.page()).or_corrupted(index, leaf.block());
        node.verify().or_corrupted(index, leaf.block());
        let high = node.high();
        let mut n = entries.iter().take(MOST_AT_ONCE).take_while(|entry| entry.place() < high).count();
        if n == 0 {
            corrupted(index, leaf.block(), Damage::Bounds);
        }
        loop {
            self.merge(leaf, &node, &entries[..n]);
            if self.pages() <= MOST_PAGES {
                break;
            }
            // One entry makes one segment two, of which both are smaller than a page.
            if n == 1 {
                corrupted(index, leaf.block(), Damage::Bounds);
            }
            n /= 2;
        }
        self.write_to(leaf, parent);
        n
    }

    /// Makes pieces of a leaf and new entries.
    fn merge(&mut self, leaf: &Buffer<'_>, node: &Node<'_>, entries: &[Entry]) {
        self.data.clear();
        self.pieces.clear();
        let (mut at, mut i) = (0, 0);
        while at < entries.len() {
            let place = entries[at].place();
            // Segments before the one that the entry is in, or before which it is.
            while i < node.len() && (i + 1 < node.len()) && node.place(i + 1) <= place {
                self.keep(leaf, node, node.segment(i));
                i += 1;
            }
            let key = place.key;
            let behind_other = i < node.len() && node.place(i).key < key;
            if behind_other {
                self.keep(leaf, node, node.segment(i));
                i += 1;
            }
            // Entries up to where the next segment begins.
            let segment = (i < node.len() && node.place(i).key == key).then(|| node.segment(i));
            let end = match &segment {
                Some(_) if i + 1 < node.len() => node.place(i + 1),
                Some(_) => Place::END,
                None if i < node.len() => node.place(i),
                None => Place::END,
            };
            let n = entries[at..].iter().take_while(|entry| entry.key == key && entry.place() < end).count();
            let new = &entries[at..at + n];
            at += n;
            self.rows.clear();
            self.weights.clear();
            if let Some(segment) = segment {
                self.take(leaf, node, &segment);
                i += 1;
            }
            let appended = self.rows.last().is_none_or(|&last| last < new[0].row);
            self.join(new);
            let parts = self.merged.len().div_ceil(segment::MOST);
            // Where rows come in order, segments stay full.
            let most = if appended { segment::MOST } else { self.merged.len().div_ceil(parts) };
            self.divide(key, most);
        }
        for i in i..node.len() {
            self.keep(leaf, node, node.segment(i));
        }
    }

    /// `merged` becomes what was taken and the new entries.
    fn join(&mut self, new: &[Entry]) {
        self.merged.clear();
        let mut old = self.rows.iter().copied().zip(self.weights.iter().copied()).peekable();
        for entry in new {
            while let Some(&(row, weight)) = old.peek()
                && row <= entry.row
            {
                old.next();
                if row < entry.row {
                    self.merged.push((row, weight));
                }
            }
            // The same row may have come twice.
            match self.merged.last_mut() {
                Some(last) if last.0 == entry.row => last.1 = entry.weight,
                _ => self.merged.push((entry.row, entry.weight)),
            }
        }
        self.merged.extend(old);
    }

    /// Pages that the pieces take, about as many bytes each.
    fn pages(&self) -> usize {
        self.parts().len()
    }

    /// The pieces page by page.
    fn parts(&self) -> Vec<Range<usize>> {
        let total: usize = self.pieces.iter().map(Piece::bytes).sum();
        let wanted = total.div_ceil(total.div_ceil(ROOM).max(1));
        let mut parts = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for (i, piece) in self.pieces.iter().enumerate() {
            let full = bytes + piece.bytes() > ROOM || bytes >= wanted;
            if full && i > start {
                parts.push(start..i);
                (start, bytes) = (i, 0);
            }
            bytes += piece.bytes();
        }
        parts.push(start..self.pieces.len());
        parts
    }

    fn write(&mut self, leaf: &Buffer<'_>, parent: Option<u32>) {
        if self.pages() > MOST_PAGES {
            corrupted(self.tree.index, leaf.block(), Damage::Bounds);
        }
        self.write_to(leaf, parent);
    }

    /// Writes the pieces to a leaf and, if they are too many, to new ones behind it.
    fn write_to(&mut self, leaf: &Buffer<'_>, parent: Option<u32>) {
        let index = self.tree.index;
        let (low, high, next) = {
            let node = Node::open(leaf.page()).or_corrupted(index, leaf.block());
            (node.low(), node.high(), node.opaque.next)
        };
        let parts = self.parts();
        let of = |part: &Range<usize>| {
            self.pieces[part.clone()].iter().map(|piece| (piece.segment, &self.data[piece.data.clone()]))
        };
        if parts.len() == 1 {
            let mut change = Change::begin(index);
            page::write_leaf(change.edit(leaf, false), next, (low, high), of(&parts[0]));
            change.commit();
            return;
        }
        let begins = |i: usize| {
            let segment = &self.pieces[parts[i].start].segment;
            Place { key: segment.key, row: segment.first }
        };
        let bounds = |i: usize| {
            let (low, high) =
                (if i == 0 { low } else { begins(i) }, if i + 1 == parts.len() { high } else { begins(i + 1) });
            (low, high)
        };
        // The first part stays where it is, unless that is the root, which all readers begin with.
        let parent = parent.map(|block| Buffer::write(index, block));
        let fresh = parts.len() - usize::from(parent.is_some());
        let new: Vec<Buffer<'_>> =
            (0..fresh).map(|_| Buffer::allocate(index, pg_sys::ForkNumber::MAIN_FORKNUM)).collect();
        let leaves: Vec<&Buffer<'_>> = parent.iter().map(|_| leaf).chain(&new).collect();
        let mut change = Change::begin(index);
        for (i, buffer) in leaves.iter().enumerate() {
            let next = leaves.get(i + 1).map_or(next, |next| next.block());
            let is_new = i > 0 || parent.is_none();
            page::write_leaf(change.edit(buffer, is_new), next, bounds(i), of(&parts[i]));
        }
        let down = |i: usize| (bounds(i).0, leaves[i].block());
        match &parent {
            Some(parent) => {
                let node = Node::open(parent.page()).or_corrupted(index, parent.block());
                let at = node.child_at(low);
                let (mut children, bounds, of_page) = children(&node);
                for i in 1..parts.len() {
                    children.insert(at + i, down(i));
                }
                page::write_inner(change.edit(parent, false), of_page.0, of_page.1, bounds, &children);
            }
            None => {
                let children: Vec<_> = (0..parts.len()).map(down).collect();
                page::write_inner(change.edit(leaf, false), 1, NO_BLOCK, (Place::FIRST, Place::END), &children);
            }
        }
        change.commit();
    }

    /// Locks the leaf in which a place is. Its parent has room for as many children as a split may make; nobody else changes the
    /// structure.
    fn way<'b>(&self, place: Place) -> (Buffer<'b>, Option<u32>) {
        let index = self.tree.index;
        'anew: loop {
            let (mut parent, mut block, mut level) = (None, self.tree.root, None);
            loop {
                let buffer = Buffer::read(index, block);
                let node = Node::open(buffer.page()).or_corrupted(index, block);
                let fits = node.low() <= place
                    && place < node.high()
                    && level.is_none_or(|level| level == node.opaque.level)
                    && node.opaque.level <= MOST_LEVELS;
                if !fits {
                    corrupted(index, block, Damage::Bounds);
                }
                if node.is_leaf() {
                    drop(buffer);
                    return (Buffer::write(index, block), parent);
                }
                node.verify().or_corrupted(index, block);
                if node.len() + MOST_PAGES > MOST_DOWN {
                    drop(buffer);
                    self.split_inner(block, parent);
                    continue 'anew;
                }
                parent = Some(block);
                block = node.down(node.child_at(place)).1;
                level = Some(node.opaque.level - 1);
            }
        }
    }

    /// Splits an inner page, whose parent has room for it.
    fn split_inner(&self, block: u32, parent: Option<u32>) {
        let index = self.tree.index;
        let buffer = &Buffer::write(index, block);
        let parent = parent.map(|block| Buffer::write(index, block));
        let node = Node::open(buffer.page()).or_corrupted(index, buffer.block());
        let (down, (low, high), (level, next)) = children(&node);
        let (left, right) = down.split_at(down.len() / 2);
        let middle = right[0].0;
        let main = pg_sys::ForkNumber::MAIN_FORKNUM;
        let new = Buffer::allocate(index, main);
        let mut change = Change::begin(index);
        match &parent {
            Some(parent) => {
                let node = Node::open(parent.page()).or_corrupted(index, parent.block());
                let (mut above, bounds, of_page) = children(&node);
                above.insert(node.child_at(low) + 1, (middle, new.block()));
                page::write_inner(change.edit(buffer, false), level, new.block(), (low, middle), left);
                page::write_inner(change.edit(&new, true), level, next, (middle, high), right);
                page::write_inner(change.edit(parent, false), of_page.0, of_page.1, bounds, &above);
                change.commit();
            }
            None => {
                if level >= MOST_LEVELS {
                    corrupted(index, buffer.block(), Damage::Bounds);
                }
                let other = Buffer::allocate(index, main);
                page::write_inner(change.edit(&new, true), level, other.block(), (low, middle), left);
                page::write_inner(change.edit(&other, true), level, next, (middle, high), right);
                let above = [(low, new.block()), (middle, other.block())];
                page::write_inner(change.edit(buffer, false), level + 1, NO_BLOCK, (low, high), &above);
                change.commit();
            }
        }
    }
}

/// The entries of an inner page, its bounds, its level and the page to the right.
#[allow(clippy::type_complexity, reason = "what a page consists of")]
fn children(node: &Node<'_>) -> (Vec<(Place, u32)>, (Place, Place), (u8, u32)) {
    let down = (0..node.len()).map(|i| node.down(i)).collect();
    (down, (node.low(), node.high()), (node.opaque.level, node.opaque.next))
}

/// Writes a tree from entries in order, bottom up, while nobody else can see the index.
pub struct Loader {
    index: pg_sys::Relation,
    /// Of the list that is being read: up to a segment.
    key: Key,
    entries: Vec<(u64, f32)>,
    data: Vec<u8>,
    pieces: Vec<Piece>,
    bytes: usize,
    /// The leaf that is being filled: it is written when the next one is known.
    leaf: u32,
    low: Place,
    /// Of the leaves.
    down: Vec<(Place, u32)>,
}

/// Share of a page that a build fills.
const FILLED: usize = ROOM / 100 * 90;

impl Loader {
    pub fn new(index: pg_sys::Relation) -> Loader {
        Loader {
            index,
            key: 0,
            entries: Vec::new(),
            data: Vec::new(),
            pieces: Vec::new(),
            bytes: 0,
            leaf: new_page(index),
            low: Place::FIRST,
            down: Vec::new(),
        }
    }

    /// The next entry.
    pub fn put(&mut self, entry: Entry) {
        if entry.key != self.key || self.entries.len() == segment::MOST {
            self.end_segment();
            self.key = entry.key;
        }
        self.entries.push((entry.row, entry.weight));
    }

    fn end_segment(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        let start = self.data.len();
        let segment = Segment::encode(self.key, &self.entries, &mut self.data);
        let piece = Piece { segment, data: start..self.data.len() };
        self.entries.clear();
        if self.bytes + piece.bytes() > FILLED && !self.pieces.is_empty() {
            let high = Place { key: segment.key, row: segment.first };
            let next = new_page(self.index);
            self.end_leaf(high, next);
            self.leaf = next;
            self.low = high;
            let data = self.data.split_off(start);
            self.data = data;
            self.bytes = piece.bytes();
            self.pieces.push(Piece { data: 0..self.data.len(), ..piece });
            return;
        }
        self.bytes += piece.bytes();
        self.pieces.push(piece);
    }

    fn end_leaf(&mut self, high: Place, next: u32) {
        let Loader { pieces, data, .. } = self;
        let segments = pieces.iter().map(|piece| (piece.segment, &data[piece.data.clone()]));
        page::write_leaf(Buffer::write(self.index, self.leaf).page_unlogged(), next, (self.low, high), segments);
        memory::push(&mut self.down, (self.low, self.leaf));
        self.pieces.clear();
    }

    /// Writes the rest; returns the root.
    pub fn finish(mut self) -> u32 {
        self.end_segment();
        self.end_leaf(Place::END, NO_BLOCK);
        let Loader { index, mut down, .. } = self;
        let mut level = 0;
        while down.len() > 1 {
            level += 1;
            let groups = down.len().div_ceil(MOST_DOWN * 9 / 10);
            let size = down.len().div_ceil(groups);
            let mut above: Vec<(Place, u32)> = Vec::new();
            let mut block = new_page(index);
            let mut rest = &down[..];
            while !rest.is_empty() {
                let (group, behind) = rest.split_at(size.min(rest.len()));
                rest = behind;
                let next = if rest.is_empty() { NO_BLOCK } else { new_page(index) };
                let bounds = (group[0].0, rest.first().map_or(Place::END, |first| first.0));
                page::write_inner(Buffer::write(index, block).page_unlogged(), level, next, bounds, group);
                memory::push(&mut above, (group[0].0, block));
                block = next;
            }
            down = above;
        }
        down[0].1
    }
}

/// A page more, which nobody else can see yet.
fn new_page(index: pg_sys::Relation) -> u32 {
    Buffer::allocate(index, pg_sys::ForkNumber::MAIN_FORKNUM).block()
}

/// Makes `to` the only page of an empty tree.
pub fn init_root(to: &mut Bytes) {
    page::write_leaf(to, NO_BLOCK, (Place::FIRST, Place::END), std::iter::empty());
}
