//! Changes of the structure: a list is replaced by two, two by one, the tree gets a level.
//!
//! One backend at a time changes the structure of an index; it holds the [`StructureLock`]. Everything is copied: new lists
//! are written to new pages, one record puts their entries into the parent and takes the old ones out, the old pages are
//! freed. Readers are not kept waiting; by the identities and epochs on pages they notice what is no longer where it was.
//! The order of the steps and what a crash between them leaves are in `README.md`.

use super::recalibrate;
use crate::frame::{Frame, Placed};
use crate::outliers::{self, Middle};
use crate::page::{
    self, BROKEN_OFF, CLOSED, Child, Damage, Kind, Layout, META_BLOCK, Meta, NO_BLOCK, Owner, PENDING, Posting,
    PostingMut, Tid, UNFINISHED,
};
use crate::pages::{Guard, Pages, Record};
use crate::read::info::Info;
use crate::read::tree::{self, CodeReader, Cursor, Found, List, Position, Query};
use crate::rows::{Row, Rows};
use crate::stale::{Checked, Stale, Steps};
use crate::write::append::{self, Added, NewEntry, Refused};
use crate::write::encode::{self, Encoder};
use crate::write::list::{self, CodeStream, Entries, Entry};
use crate::{INNER_ENTRIES, ROOT_ENTRIES};
use ann::cluster::{self, Matrix};
use ann::filter::{RowKeys, Summarizer, Summary};
use ann::memory;
use ann::quantize::{self, BLOCK, Space};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// What rounding adds to the error of a row that is known by its code only, per unit of length, when its coordinates change.
const MOVED_ERROR: f32 = 1e-5;
/// The old list's neighbours that are searched for rows that are nearer to a new centroid.
const NEIGHBOURS: usize = 32;
/// Rows of theirs are looked at that are farther from the new centroid than from their own by at most this share of the
/// squared distance between the two: the new centroid moves towards what it gets.
const NEARLY: f32 = 0.1;
/// Rounds of that.
const ROUNDS: usize = 3;
/// Seed of 2-means.
const SEED: u64 = 0x1F15_4A5E_ED01_0002;

/// Changes the meta page, and returns what it is then.
pub fn update_meta<P: Pages>(index: P, change: impl FnOnce(&mut Meta)) -> Meta {
    let buffer = index.write(META_BLOCK);
    let mut record = index.begin();
    let page = record.edit(&buffer, false);
    let mut meta = Meta::read(page).or_corrupted(index, META_BLOCK);
    change(&mut meta);
    meta.write(page);
    record.commit();
    meta
}

/// Whether a list of rows has grown so long that it should be split.
pub fn is_long<P: Pages>(index: P, leaf: &Layout, list: &List, meta: &Meta) -> bool {
    can_change(index, meta)
        && count(index, leaf, list.head, list.id).is_ok_and(|rows| rows >= meta.split_at(list.radius))
}

/// Whether lists can still be replaced; if not, the user is told, once.
pub(super) fn can_change<P: Pages>(index: P, meta: &Meta) -> bool {
    if meta.is_spent() {
        index.warn_spent();
    }
    !meta.is_spent()
}

/// How many lists come in the place of a list of so many rows, which is split at `limit`.
pub fn pieces(rows: usize, limit: usize) -> usize {
    if rows * 10 > limit * 9 { 2 } else { 1 }
}

/// Live entries of a list.
pub(super) fn count<P: Pages>(index: P, layout: &Layout, head: u32, list: u32) -> Result<usize, Stale> {
    let mut entries = 0;
    let mut cursor = Cursor::of(index, layout, head, list);
    while let Some(buffer) = cursor.next_page()? {
        let posting = cursor.posting(&buffer);
        entries += (0..posting.blocks()).map(|b| posting.block(b).live().count_ones() as usize).sum::<usize>();
    }
    Ok(entries)
}

/// Opens a list again whose replacement was broken off, if it is closed: nobody who would replace it holds `_lock`.
pub fn reopen<P: Pages>(index: P, leaf: &Layout, (head, list): (u32, u32), _lock: &P::StructureLock) {
    let (mut next, mut steps) = (head, Steps::new());
    while next != NO_BLOCK {
        index.check_for_interrupts();
        let buffer = index.write(next);
        // Replaced in the meantime.
        let Ok(posting) = Posting::open(buffer.page(), leaf, list) else { return };
        steps.step(index, next);
        next = posting.opaque.next;
        if posting.opaque.closed() {
            let mut change = index.begin();
            page::edit_opaque(change.edit(&buffer, false), |o| o.flags &= !CLOSED);
            change.commit();
        }
    }
}

/// Opens a code page of inner lists again, if it is closed and still one, as [`reopen`] does.
pub fn reopen_cells<P: Pages>(index: P, inner: &Layout, number: u32, _lock: &P::StructureLock) {
    let buffer = index.write(number);
    if page::check_code(buffer.page(), inner).is_ok_and(|opaque| opaque.closed()) {
        let mut change = index.begin();
        page::edit_opaque(change.edit(&buffer, false), |o| o.flags &= !CLOSED);
        change.commit();
    }
}

/// A list that is being replaced.
pub(super) struct Old {
    pub head: u32,
    pub list: u32,
    pub centroid: Vec<f32>,
    pub pages: OldPages,
    pub entries: Vec<OldEntry>,
}

/// Pages of a list that goes.
#[derive(Default)]
pub(super) struct OldPages {
    postings: Vec<u32>,
    sketches: Vec<u32>,
    /// Code pages, and how many of its blocks have cells there.
    codes: BTreeMap<u32, u16>,
}

impl OldPages {
    /// Adds posting page `number` of `index`, and what its blocks refer to. Raises an ERROR where that can be no page of a list.
    pub fn add<P: Pages>(&mut self, index: P, number: u32, posting: &Posting<'_>) {
        self.postings.push(number);
        let possible = META_BLOCK + 1..index.blocks();
        let checked = |page: u32| match possible.contains(&page) {
            true => page,
            false => index.corrupted(number, Damage::Bounds),
        };
        for block in (0..posting.blocks()).map(|b| posting.block(b)) {
            block.check().or_corrupted(index, number);
            self.sketches.extend(block.all_sketch_pages().map(checked));
            for code in block.all_code_pages().map(checked) {
                *self.codes.entry(code).or_default() += 1;
            }
        }
    }
}

/// An entry of a list of rows.
pub(super) struct OldEntry {
    tid: Tid,
    row: RowKeys,
    at: Position,
    cell: (u32, u16),
    /// As its factors say.
    placed: Placed,
}

impl OldEntry {
    fn of(block: &page::Block<'_>, at: Position) -> Option<OldEntry> {
        let slot = at.slot as usize;
        Some(OldEntry {
            tid: block.tid(slot),
            row: block.row(slot),
            at,
            cell: block.cell(slot)?,
            placed: encode::placed(&block.sketch(slot)),
        })
    }
}

/// Rows that go into a new list.
#[derive(Default)]
pub(super) struct Members {
    tids: Vec<Tid>,
    rows: Vec<RowKeys>,
    /// In the index's coordinates, padded long each.
    vectors: Vec<f32>,
    placed: Vec<Placed>,
    /// How far the vectors can be from the rows: 0 for rows that were read.
    errors: Vec<f32>,
    /// Rows of which all that is known is their sketch.
    sketched: usize,
}

impl Members {
    pub fn len(&self) -> usize {
        self.tids.len()
    }

    /// The middle of the rows.
    fn middle(&self, padded: usize) -> Middle {
        Middle::of(None, padded, outliers::steps(self.len()).map(|i| &self.vectors[i * padded..][..padded]))
    }

    /// The mean of the rows without outliers; none if there is none that counts.
    pub fn mean(&self, padded: usize) -> Option<Vec<f32>> {
        Middle::mean(self.middle(padded).sum(self.vectors.chunks_exact(padded)))
    }

    fn push(&mut self, entry: &OldEntry, vector: &[f32], placed: Placed, error: f32) {
        memory::push(&mut self.tids, entry.tid);
        memory::push(&mut self.rows, entry.row.clone());
        memory::append(&mut self.vectors, vector);
        memory::push(&mut self.placed, placed);
        memory::push(&mut self.errors, error);
    }
}

/// A list that has been written and is not in the tree yet.
pub(super) struct New {
    child: Child,
    /// Of its rows, if it is a list of rows.
    summaries: Vec<Summary>,
    /// The centroid as an entry of the parent, see [`encode::write_record`].
    record: Vec<u8>,
}

/// A row of a neighbouring list that is, or may be, nearer to a new centroid.
struct Mover {
    at: Position,
    list: u32,
    entry: OldEntry,
    /// The centroid of its list, and the squared distance from that.
    from: Rc<Vec<f32>>,
    distance: f32,
    /// What its code stands for.
    vector: Vec<f32>,
}

/// A change of an index's structure.
pub struct Structure<P: Pages, R> {
    pub(crate) index: P,
    pub(crate) lock: P::StructureLock,
    pub(crate) meta: Meta,
    frame: Frame,
    pub(crate) leaf: Layout,
    pub(crate) inner: Layout,
    /// Of rows, and of centroids.
    encoder: Encoder,
    inner_encoder: Encoder,
    rows: R,
    /// What would make entries worse is left to who inserts, as he may read more rows.
    vacuum: bool,
    /// The row that was read last.
    value: Vec<f32>,
    /// Pages freed.
    pub(crate) freed: u32,
}

impl<P: Pages, R: Rows> Structure<P, R> {
    /// With the right to change the index: for who inserts.
    pub fn of_inserter(index: P, rows: R, lock: P::StructureLock) -> Structure<P, R> {
        Structure::new(index, rows, lock)
    }

    /// With the right to change the index: for VACUUM.
    pub fn of_vacuum(index: P, rows: R, lock: P::StructureLock) -> Structure<P, R> {
        Structure { vacuum: true, ..Structure::new(index, rows, lock) }
    }

    fn new(index: P, rows: R, lock: P::StructureLock) -> Structure<P, R> {
        let info = Info::of(index);
        let frame = info.frame(index);
        Structure {
            index,
            lock,
            encoder: Encoder::of_rows(&frame, &info.leaf_layout()),
            inner_encoder: Encoder::new(frame.operator.space(), &info.inner_layout()),
            rows,
            vacuum: false,
            frame,
            leaf: info.leaf_layout(),
            inner: info.inner_layout(),
            meta: info.meta,
            value: Vec::new(),
            freed: 0,
        }
    }

    pub(super) fn space(&self) -> Space {
        self.frame.operator.space()
    }

    pub(super) fn padded(&self) -> usize {
        self.frame.padded()
    }

    /// Splits the list of rows at the end of a way from the root (the list itself first), if that is still the way to it.
    pub fn split(&mut self, path: &[Found]) {
        if path.len() != self.meta.height as usize + 1 || !self.is_way(path) || !can_change(self.index, &self.meta) {
            return;
        }
        match path {
            [root] => self.split_root((root.list.head, root.list.id)),
            [_, _, ..] => self.split_list(path),
            [] => {}
        }
        // VACUUM measures by itself, when it has no lock.
        if !self.vacuum {
            recalibrate::go_on(self.index, &mut self.rows);
        }
    }

    /// Whether each list of the path is where the one after it, its parent, says, up to the root.
    fn is_way(&self, path: &[Found]) -> bool {
        path.last().is_some_and(|root| (root.list.head, root.list.id) == (self.meta.root, self.meta.root_list))
            && path.windows(2).all(|pair| {
                let (child, parent) = (&pair[0], &pair[1]);
                let buffer = self.index.read(child.at.page);
                let (b, slot) = (child.at.block as usize, child.at.slot as usize);
                Posting::open(buffer.page(), &self.inner, parent.list.id).is_ok_and(|posting| {
                    b < posting.blocks()
                        && posting.block(b).live() >> slot & 1 == 1
                        && posting.block(b).child(slot).list == child.list.id
                })
            })
    }

    /// Changes the meta page.
    pub(crate) fn update_meta(&mut self, change: impl FnOnce(&mut Meta)) {
        self.meta = update_meta(self.index, change);
    }

    /// Reserves identities for `n` lists, and takes the open code page of one kind of lists; returns the first identity.
    pub(super) fn reserve<'l>(&mut self, n: u32, layout: &'l Layout) -> (u32, CodeStream<'l, P>) {
        let (mut first, mut open) = (0, NO_BLOCK);
        self.update_meta(|meta| {
            first = meta.last_list + 1;
            meta.last_list += n;
            // It begins now to write pages that nothing refers to yet.
            meta.unfinished = if meta.unfinished == 0 { UNFINISHED } else { BROKEN_OFF };
            open = std::mem::replace(&mut meta.open_code[usize::from(layout.inner)], NO_BLOCK);
        });
        (first, CodeStream::new(self.index, layout, open))
    }

    /// The change is complete: all its pages are in the tree, or freed.
    pub(super) fn finish(&mut self) {
        self.update_meta(|meta| meta.unfinished = if meta.unfinished == UNFINISHED { 0 } else { meta.unfinished });
    }

    /// The centroid whose code is in a cell of an inner list.
    pub(super) fn centroid(&self, cell: (u32, u16), child: u32) -> Vec<f32> {
        let mut centroid = vec![0.0; self.padded()];
        CodeReader::new(self.index, &self.inner)
            .decode(cell, Owner::child(child), &mut centroid)
            .unwrap_or_else(|stale| self.index.corrupted(stale.block, stale.damage));
        centroid
    }

    /// Closes a list of rows: nothing will be added to it any more. Returns what it holds.
    pub(super) fn close(&self, head: u32, list: u32, centroid: Vec<f32>) -> Old {
        let mut old = Old { head, list, centroid, pages: OldPages::default(), entries: Vec::new() };
        let (mut next, mut steps) = (head, Steps::new());
        while next != NO_BLOCK {
            self.index.check_for_interrupts();
            let buffer = self.index.write(next);
            let posting = Posting::open(buffer.page(), &self.leaf, list).or_corrupted(self.index, next);
            old.pages.add(self.index, next, &posting);
            for (b, block) in (0..posting.blocks()).map(|b| (b, posting.block(b))) {
                for slot in (0..BLOCK).filter(|slot| block.live() >> slot & 1 == 1) {
                    let entry = OldEntry::of(&block, Position { page: next, block: b as u16, slot: slot as u16 });
                    old.entries.push(entry.unwrap_or_else(|| self.index.corrupted(next, Damage::Bounds)));
                }
            }
            let mut change = self.index.begin();
            page::edit_opaque(change.edit(&buffer, false), |o| o.flags |= CLOSED);
            let following = posting.opaque.next;
            change.commit();
            steps.step(self.index, next);
            next = following;
        }
        old
    }

    /// Reads a row into the index's coordinates; false where that cannot be, or it has no usual place there.
    fn read_placed(&mut self, tid: Tid, vector: &mut Vec<f32>) -> bool {
        if self.rows.read(tid, vector) != Row::Read || vector.len() != self.frame.dims {
            return false;
        }
        vector.resize(self.padded(), 0.0);
        self.frame.place(vector) == Placed::Usual
    }

    /// Reads the row of an entry of a list, or, where that cannot be, what its code or sketch stands for. A row that is dead
    /// to all here keeps its entry: it may not be to a snapshot on a standby, and what PostgreSQL needs to cancel that
    /// is logged when the table is cleaned up, after which VACUUM removes the entry.
    pub(super) fn read_member(&mut self, entry: &OldEntry, (list, centroid): (u32, &[f32]), members: &mut Members) {
        let padded = self.padded();
        if self.leaf.own_bits {
            let mut nibbles = vec![0; self.leaf.groups];
            tree::read_sketch(self.index, &self.leaf, list, entry.at, &mut nibbles);
            self.frame.place_bits(&nibbles, &mut self.value);
            members.push(entry, &self.value, Placed::Usual, 0.0);
            return;
        }
        let read = match self.rows.read(entry.tid, &mut self.value) {
            Row::Read => Row::Read,
            Row::Hidden | Row::Dead => self.rows.read_unseen(entry.tid, &mut self.value),
        };
        if read == Row::Read && self.value.len() == self.frame.dims {
            self.value.resize(padded, 0.0);
            let placed = self.frame.place(&mut self.value);
            if placed != Placed::Nowhere {
                members.push(entry, &self.value, placed, 0.0);
                return;
            }
        }
        self.value.clear();
        self.value.extend_from_slice(centroid);
        if entry.placed != Placed::Usual {
            members.push(entry, &self.value, entry.placed, 0.0);
            return;
        }
        let error = if self.leaf.bits.is_some() {
            CodeReader::new(self.index, &self.leaf)
                .decode(entry.cell, Owner::row(list, entry.tid), &mut self.value)
                .unwrap_or_else(|stale| self.index.corrupted(stale.block, stale.damage))
                .error
        } else {
            members.sketched += 1;
            let mut nibbles = vec![0; self.leaf.groups];
            let sketch = tree::read_sketch(self.index, &self.leaf, list, entry.at, &mut nibbles);
            quantize::decode_sketch(self.space(), &sketch, &nibbles, &mut self.value)
        };
        members.push(entry, &self.value, Placed::Usual, error);
    }

    /// Whether `members`, of lists that have been closed, had better stay as they are: then the lists are opened again. An entry
    /// that is made of a sketch is worse than that, and again the next time.
    pub(super) fn spares(&self, members: &Members, olds: &[(u32, u32)]) -> bool {
        let spares = self.vacuum && members.sketched > 0;
        if spares {
            olds.iter().for_each(|&old| reopen(self.index, &self.leaf, old, &self.lock));
        }
        spares
    }

    /// Encodes `members` relative to `centroid` and writes them as list `id`; returns it as an entry of its parent.
    pub(super) fn write_rows(
        &mut self,
        id: u32,
        members: &Members,
        chosen: impl Iterator<Item = usize>,
        (centroid, record): (&[f32], Vec<u8>),
        cells: &mut CodeStream<'_, P>,
    ) -> New {
        let padded = self.padded();
        let mut entries = Entries::new(&self.leaf);
        let mut squares = Vec::new();
        let mut summarizer = Summarizer::new(self.leaf.filters);
        for i in chosen {
            let vector = &members.vectors[i * padded..][..padded];
            let square = self.encoder.encode(vector, centroid);
            if members.errors[i] > 0.0 {
                self.encoder.widen(members.errors[i]);
            }
            self.encoder.mark(members.placed[i]);
            if members.placed[i] == Placed::Usual {
                memory::push(&mut squares, square);
            }
            summarizer.add(&members.rows[i]);
            entries.push(&Entry { row: &members.rows[i], ..self.encoder.entry(members.tids[i]) });
        }
        let head = list::write_list(self.index, &self.leaf, 0, id, &entries, cells);
        let radius = outliers::mean_square(&squares, self.meta.spread.max(0.0)).sqrt();
        let child = Child { head, list: id, radius, norm2: ann::distance::norm_squared(centroid) };
        New { child, summaries: summarizer.summaries().to_vec(), record }
    }

    /// Rounds a centroid to what its code stands for; returns it with its record.
    pub(super) fn quantize(&mut self, centroid: &mut [f32]) -> Vec<u8> {
        self.inner_encoder.encode_centroid(centroid, &vec![0.0; centroid.len()]);
        let mut record = vec![0; encode::record_bytes(&self.inner)];
        encode::write_record(&self.inner_encoder, Tid::new(0, 0), &mut record);
        record
    }

    /// Divides rows in two by 2-means. Outliers go anywhere.
    fn halve(&self, members: &Members, fallback: &[f32]) -> cluster::Halves {
        let padded = self.padded();
        let middle = members.middle(padded);
        let mut rows = memory::copied(&members.vectors);
        for row in rows.chunks_exact_mut(padded) {
            if !middle.is_usual(row) {
                row.copy_from_slice(fallback);
            }
        }
        cluster::halve(Matrix::new(&rows, padded), SEED ^ u64::from(self.meta.last_list))
    }

    /// Splits a list of rows that has a parent.
    fn split_list(&mut self, path: &[Found]) {
        let (found, parent) = (path[0], path[1]);
        let centroid = self.centroid(found.cell, found.list.id);
        let mut old = self.close(found.list.head, found.list.id, centroid);
        let mut members = Members::default();
        for entry in std::mem::take(&mut old.entries) {
            self.index.check_for_interrupts();
            self.read_member(&entry, (old.list, &old.centroid), &mut members);
        }
        if self.spares(&members, &[(old.head, old.list)]) {
            return;
        }
        // It may turn out that many of its rows are dead.
        let pieces = pieces(members.len(), self.meta.split_at(found.list.radius));
        let (mut centroids, mut homes) = if pieces == 2 {
            let halves = self.halve(&members, &old.centroid);
            (halves.centroids.to_vec(), halves.second.into_iter().map(usize::from).collect())
        } else {
            (vec![old.centroid.clone()], vec![0; members.len()])
        };
        // While it is not known that an earlier change came to its end, rows of other lists stay where they are.
        let unfinished = self.meta.pending != [0; PENDING];
        let movers = if pieces == 2 && !unfinished {
            let candidates = self.candidates(&old, &centroids);
            let moves = self.settle(&members, &mut homes, &mut centroids, &candidates);
            candidates.into_iter().zip(moves).filter_map(|(c, home)| Some((c, home?))).collect()
        } else {
            Vec::new()
        };
        for (mover, home) in &movers {
            let before = members.len();
            self.read_member(&mover.entry, (mover.list, &mover.from), &mut members);
            homes.extend((members.len() > before).then_some(*home));
        }
        let movers: Vec<Mover> = movers.into_iter().map(|(mover, _)| mover).collect();
        let records: Vec<Vec<u8>> = centroids.iter_mut().map(|c| self.quantize(c)).collect();
        let Some(pending) = self.pending(old.list, pieces, movers.is_empty()) else {
            reopen(self.index, &self.leaf, (old.head, old.list), &self.lock);
            return;
        };

        let hold = self.index.hold_interrupts();
        let leaf = self.leaf;
        let (first, mut cells) = self.reserve(pieces as u32, &leaf);
        let news: Vec<New> = centroids
            .iter()
            .zip(records)
            .enumerate()
            .map(|(home, (centroid, record))| {
                let chosen = (0..members.len()).filter(|&i| homes[i] == home);
                self.write_rows(first + home as u32, &members, chosen, (centroid, record), &mut cells)
            })
            .collect();
        let grown = self.swap(&parent, &[found.at], &news, Some((&leaf, &cells)), |meta| {
            meta.lists = meta.lists + pieces as u32 - 1;
            meta.splits += u64::from(pieces == 2);
            meta.pending = pending.map(|list| if list > u32::MAX - 2 { first + (u32::MAX - list) } else { list });
        });
        self.free(old.pages, &leaf);
        if !movers.is_empty() {
            self.remove(movers);
            self.update_meta(|meta| meta.pending = [0; PENDING]);
        }
        self.finish();
        drop(hold);
        if grown {
            self.grow_inner(&path[1..]);
        }
    }

    /// What `pending` is after `old` has been replaced: its place goes to the new lists (written as MAX and MAX - 1, as their
    /// identities are not known yet), and so do they enter when rows of other lists move to them. None: no place is left.
    fn pending(&self, old: u32, pieces: usize, nothing_moves: bool) -> Option<[u32; PENDING]> {
        let mut pending = self.meta.pending;
        if !pending.contains(&old) && nothing_moves {
            return Some(pending);
        }
        pending.iter_mut().filter(|list| **list == old).for_each(|list| *list = 0);
        for piece in 0..pieces as u32 {
            *pending.iter_mut().find(|list| **list == 0)? = u32::MAX - piece;
        }
        Some(pending)
    }

    /// A query for what is near a place in the index's coordinates.
    fn query_of(&self, place: &[f32]) -> Query {
        let mut query = Query::new(self.frame.operator);
        query.nearest = true;
        query.vector.extend_from_slice(place);
        query.prepare();
        query
    }

    /// The way from the root to the lists of rows whose centroids are nearest to a place, as [`tree::walk`] returns it.
    pub(super) fn around(&self, place: &[f32], lists: usize) -> Vec<Vec<Found>> {
        tree::walk(self.index, &self.meta, &self.inner, &self.query_of(place), lists, None)
            .unwrap_or_else(|stale| self.index.corrupted(stale.block, stale.damage))
    }

    /// Finds the rows of neighbouring lists that are nearer to one of the new centroids than to their own, or nearly so.
    fn candidates(&mut self, old: &Old, centroids: &[Vec<f32>]) -> Vec<Mover> {
        let (index, leaf, inner) = (self.index, self.leaf, self.inner);
        let damaged = |stale: Stale| -> ! { index.corrupted(stale.block, stale.damage) };
        let near = self.around(&old.centroid, NEIGHBOURS + 1).pop();
        let queries: Vec<Query> = centroids.iter().map(|c| self.query_of(c)).collect();
        let mut found = Vec::new();
        let mut codes = CodeReader::new(index, &inner);
        let mut own = Query::new(self.frame.operator);
        let factor = if self.space() == Space::L2 { 1.0 } else { 2.0 };
        let here = quantize::ListTerm::default();
        let (mut nibbles, mut vector) = (vec![0; leaf.groups], Vec::new());
        for neighbour in near.unwrap_or_default() {
            if neighbour.list.id == old.list {
                continue;
            }
            own.vector.clear();
            own.vector.resize(self.frame.padded(), 0.0);
            codes
                .decode(neighbour.cell, Owner::child(neighbour.list.id), &mut own.vector)
                .unwrap_or_else(|stale| damaged(stale));
            codes.close();
            own.prepare();
            let between: Vec<f32> = centroids.iter().map(|c| ann::distance::l2_squared(c, &own.vector)).collect();
            // ‖x−c‖² − ‖x−own‖² = ‖c−own‖² − 2⟨x−own, c−own⟩: first by the sketch, then by the code.
            let mut candidates = Vec::new();
            let from = Rc::new(own.vector.clone());
            let mut cursor = Cursor::new(index, &leaf, &neighbour.list);
            while let Some(buffer) = cursor.next_page().unwrap_or_else(|stale| damaged(stale)) {
                let posting = cursor.posting(&buffer);
                for b in 0..posting.blocks() {
                    let block = posting.block(b);
                    if leaf.own_bits {
                        for slot in (0..BLOCK).filter(|slot| block.live() >> slot & 1 == 1) {
                            tree::sketch_of(index, &leaf, neighbour.list.id, &block, slot, &mut nibbles)
                                .unwrap_or_else(|stale| damaged(stale));
                            let at = Position { page: buffer.block(), block: b as u16, slot: slot as u16 };
                            self.frame.place_bits(&nibbles, &mut vector);
                            let distance = ann::distance::l2_squared(&vector, &own.vector);
                            let to = |c: usize| ann::distance::l2_squared(&vector, &centroids[c]);
                            if (0..2).any(|c| to(c) < distance + NEARLY * between[c])
                                && let Some(entry) = OldEntry::of(&block, at)
                            {
                                let (list, from, vector) = (neighbour.list.id, from.clone(), memory::copied(&vector));
                                memory::push(&mut found, Mover { at, list, entry, from, distance, vector });
                            }
                        }
                        continue;
                    }
                    let mut scores = [tree::Scores::new(), tree::Scores::new(), tree::Scores::new()];
                    for (query, scores) in [&own, &queries[0], &queries[1]].into_iter().zip(&mut scores) {
                        let table = &query.table;
                        let (id, live) = (neighbour.list.id, block.live());
                        tree::scan_block(index, &leaf, id, here, &block, live, table, f32::INFINITY, scores)
                            .unwrap_or_else(|stale| damaged(stale));
                    }
                    for slot in (0..BLOCK).filter(|slot| block.live() >> slot & 1 == 1) {
                        let gain =
                            |c: usize| between[c] + factor * (scores[c + 1].estimate[slot] - scores[0].estimate[slot]);
                        let c = usize::from(gain(1) < gain(0));
                        let at = Position { page: buffer.block(), block: b as u16, slot: slot as u16 };
                        if gain(c) < NEARLY * between[c]
                            && let Some(entry) = OldEntry::of(&block, at)
                            && entry.placed == Placed::Usual
                        {
                            memory::push(&mut candidates, entry);
                        }
                    }
                }
            }
            let list = neighbour.list.id;
            let mut leaf_codes = CodeReader::new(index, &leaf);
            for entry in candidates {
                let mut vector = own.vector.clone();
                if leaf.bits.is_some() {
                    match leaf_codes.of_row(entry.cell, (neighbour.list.head, list), entry.tid, |codes, owner| {
                        vector.copy_from_slice(&own.vector);
                        codes.decode(entry.cell, owner, &mut vector)
                    }) {
                        Ok(Some(_)) => {}
                        Ok(None) => continue,
                        Err(stale) => damaged(stale),
                    }
                } else if !self.read_placed(entry.tid, &mut vector) {
                    continue; // only the row itself says more than the sketch
                }
                let distance = ann::distance::l2_squared(&vector, &from);
                let to = |c: usize| ann::distance::l2_squared(&vector, &centroids[c]);
                if (0..2).any(|c| to(c) < distance + NEARLY * between[c]) {
                    found.push(Mover { at: entry.at, list, entry, from: from.clone(), distance, vector });
                }
            }
        }
        found
    }

    /// Lets the new centroids and the rows around them settle: rows go to the nearer one, `candidates` only if it is nearer
    /// than the centroid that they have; centroids move to the mean of what they have got. Returns where candidates go.
    fn settle(
        &self,
        members: &Members,
        homes: &mut [usize],
        centroids: &mut [Vec<f32>],
        candidates: &[Mover],
    ) -> Vec<Option<usize>> {
        let padded = self.padded();
        let rows: Vec<&[f32]> = memory::collected(members.vectors.chunks_exact(padded));
        let nearer = |row: &[f32], centroids: &[Vec<f32>]| {
            let [a, b] = [0, 1].map(|c: usize| ann::distance::l2_squared(row, &centroids[c]));
            (usize::from(b < a), a.min(b))
        };
        let middle = members.middle(padded);
        let mut moves = vec![None; candidates.len()];
        for round in 0..ROUNDS {
            for (go, candidate) in moves.iter_mut().zip(candidates) {
                let (home, distance) = nearer(&candidate.vector, centroids);
                *go = (distance < candidate.distance).then_some(home);
            }
            if round > 0 {
                let settled: Vec<usize> = rows.iter().map(|row| nearer(row, centroids).0).collect();
                let second = settled.iter().sum::<usize>();
                if second.min(settled.len() - second) * 4 >= settled.len() {
                    homes.copy_from_slice(&settled);
                }
            }
            if round + 1 == ROUNDS {
                break;
            }
            let mut counts = [0.0_f32; 2];
            let mut sums = [vec![0.0_f32; padded], vec![0.0_f32; padded]];
            let moved = moves.iter().zip(candidates).filter_map(|(go, c)| Some(((*go)?, &c.vector[..])));
            for (home, row) in homes.iter().copied().zip(rows.iter().copied()).chain(moved) {
                if middle.is_usual(row) {
                    counts[home] += 1.0;
                    sums[home].iter_mut().zip(row).for_each(|(s, x)| *s += x);
                }
            }
            for ((centroid, sum), count) in centroids.iter_mut().zip(sums).zip(counts) {
                if count > 0.0 {
                    centroid.iter_mut().zip(sum).for_each(|(c, s)| *c = s / count);
                }
            }
        }
        moves
    }

    /// Takes moved rows out of the lists where they were.
    fn remove(&mut self, movers: Vec<Mover>) {
        let (index, leaf) = (self.index, self.leaf);
        for on_page in movers.chunk_by(|a, b| a.at.page == b.at.page) {
            let number = on_page[0].at.page;
            let buffer = index.write(number);
            let posting = Posting::open(buffer.page(), &leaf, on_page[0].list).or_corrupted(index, number);
            let is_there = |m: &Mover| posting.block(m.at.block as usize).tid(m.at.slot as usize) == m.entry.tid;
            if !on_page.iter().all(is_there) {
                index.corrupted(number, Damage::Bounds);
            }
            self.take_out(&buffer, on_page.iter().map(|m| (m.at.block as usize, m.at.slot as usize)));
        }
    }

    /// Takes rows, which are in another list as well, out of the slots of a page, which is locked. By the epoch, whoever has
    /// them in mind as entries of this page notices, and nobody else: it is raised by the same record.
    pub(crate) fn take_out(&mut self, buffer: &P::Exclusive, slots: impl Iterator<Item = (usize, usize)>) {
        let index = self.index;
        let meta_buffer = index.write(META_BLOCK);
        let mut change = index.begin();
        let mut meta = Meta::read(meta_buffer.page()).or_corrupted(index, META_BLOCK);
        meta.raise_epoch();
        let page = change.edit(buffer, false);
        page::edit_opaque(page, |o| o.epoch = meta.epoch);
        let mut view = PostingMut::new(page, &self.leaf);
        for (b, slot) in slots {
            view.set_live_bit(b, slot, false);
        }
        meta.write(change.edit(&meta_buffer, false));
        change.commit();
        self.meta = meta;
    }

    /// Splits the root while it is a list of rows: it becomes the only list of level 1, above two lists of rows. That is also
    /// when the index gets its mean, if it has none.
    fn split_root(&mut self, (head, list): (u32, u32)) {
        let zero = vec![0.0; self.padded()];
        let mut old = self.close(head, list, zero);
        let entries = std::mem::take(&mut old.entries);
        let mean =
            if self.meta.mean == NO_BLOCK { self.mean_of(&entries, (old.list, &old.centroid)) } else { Vec::new() };
        let moved = (!mean.is_empty()).then(|| {
            let frame = Frame::new(self.frame.operator, self.frame.dims, self.meta.seed, mean.clone());
            let before = std::mem::replace(&mut self.frame, frame);
            self.encoder = Encoder::of_rows(&self.frame, &self.leaf);
            (before, self.frame.rotated_mean())
        });
        let mut members = Members::default();
        for entry in &entries {
            self.index.check_for_interrupts();
            let at = members.len();
            self.read_member(entry, (old.list, &old.centroid), &mut members);
            // What is known by its code only was encoded in the coordinates without the mean.
            if let Some((_, mean)) = &moved
                && members.errors.get(at).is_some_and(|&error| error > 0.0)
            {
                let vector = &mut members.vectors[at * mean.len()..];
                let length = crate::frame::norm(vector) + crate::frame::norm(mean);
                vector.iter_mut().zip(mean).for_each(|(x, m)| *x -= m);
                members.errors[at] += MOVED_ERROR * length as f32;
            }
        }
        if members.len() < self.meta.split_at(0.0).max(2) {
            // Rows have gone since: nothing to do yet.
            if let Some((before, _)) = moved {
                self.frame = before;
                self.encoder = Encoder::of_rows(&self.frame, &self.leaf);
            }
            reopen(self.index, &self.leaf, (head, list), &self.lock);
            return;
        }
        let halves = self.halve(&members, &old.centroid);
        let _hold = self.index.hold_interrupts();
        let (leaf, inner) = (self.leaf, self.inner);
        let (first, mut cells) = self.reserve(3, &leaf);
        let mut entries = Entries::new(&inner);
        let mut spread = 0.0;
        for (home, mut centroid) in halves.centroids.into_iter().enumerate() {
            let record = self.quantize(&mut centroid);
            let chosen = (0..members.len()).filter(|&i| usize::from(halves.second[i]) == home);
            let new = self.write_rows(first + 1 + home as u32, &members, chosen, (&centroid, record), &mut cells);
            push_child(&mut self.inner_encoder, &mut entries, &new);
            spread += new.child.radius * new.child.radius / 2.0;
        }
        let mut inner_cells = CodeStream::new(self.index, &inner, NO_BLOCK);
        let root = list::write_list(self.index, &inner, 1, first, &entries, &mut inner_cells);
        let mean = if moved.is_some() { self.write_mean(&mean) } else { self.meta.mean };
        let index = self.index;
        self.update_meta(|meta| {
            meta.raise_epoch();
            (meta.root, meta.root_list, meta.height, meta.lists) = (root, first, 1, 2);
            meta.spread = spread;
            meta.splits += 1;
            if moved.is_some() {
                (meta.mean, meta.mean_epoch) = (mean, meta.epoch);
            }
            meta.open_code = [reopened(index, meta, &leaf, &cells), inner_cells.open_page().map_or(NO_BLOCK, |p| p.0)];
        });
        self.free(old.pages, &leaf);
        self.finish();
    }

    /// The mean of the rows of some entries of the root (normalised, under cosine) without outliers, while the index has no other;
    /// empty if it is not usable.
    fn mean_of(&mut self, entries: &[OldEntry], root: (u32, &[f32])) -> Vec<f32> {
        let dims = self.frame.dims;
        let mut rows = Vec::new();
        for entry in entries {
            self.index.check_for_interrupts();
            if self.leaf.own_bits {
                let mut nibbles = vec![0; self.leaf.groups];
                tree::read_sketch(self.index, &self.leaf, root.0, entry.at, &mut nibbles);
                let mut row = vec![0.0; self.frame.padded()];
                quantize::unpack_bits(&nibbles, &mut row);
                memory::append(&mut rows, &row[..dims]);
                continue;
            }
            match self.rows.read(entry.tid, &mut self.value) {
                Row::Dead => continue,
                Row::Read if self.value.len() == dims => {
                    memory::append(&mut rows, &self.value);
                    continue;
                }
                _ => {}
            }
            // A row that cannot be read, as its code or sketch has it.
            let mut member = Members::default();
            self.read_member(entry, root, &mut member);
            if member.placed == [Placed::Usual] && member.errors[0].is_finite() {
                self.frame.undo_rotation(&mut member.vectors);
                memory::append(&mut rows, &member.vectors[..dims]);
            }
        }
        let count = rows.len() / dims;
        let sample = outliers::steps(count).map(|i| &rows[i * dims..][..dims]);
        let middle = Middle::of(Some(self.frame.operator), dims, sample);
        Middle::mean(middle.sum(rows.chunks_exact(dims))).unwrap_or_default()
    }

    /// Writes a mean to new pages; returns the first.
    fn write_mean(&self, mean: &[f32]) -> u32 {
        let mut following = NO_BLOCK;
        // Back to front, so that each page knows the next.
        for part in mean.chunks(page::MEAN_FLOATS).rev() {
            let buffer = self.index.allocate();
            let mut change = self.index.begin();
            let page = change.edit(&buffer, true);
            page::init(page, Kind::Mean, 0, 0);
            page::write_mean(page, part);
            page::edit_opaque(page, |o| o.next = following);
            change.commit();
            following = buffer.block();
        }
        following
    }

    /// Puts new lists into their parent and takes old ones out, by one record; returns whether the parent got a new block.
    /// `stream`: from which the new lists took their cells.
    pub(super) fn swap(
        &mut self,
        parent: &Found,
        olds: &[Position],
        news: &[New],
        stream: Option<(&Layout, &CodeStream<'_, P>)>,
        update: impl FnOnce(&mut Meta),
    ) -> bool {
        let (index, inner) = (self.index, self.inner);
        let mut grown = false;
        // All but the live bits. (Slots of the old entries are live, so they are not taken.)
        let mut added: Vec<Position> = Vec::new();
        for new in news {
            encode::read_record(&mut self.inner_encoder, &new.record);
            let entry = NewEntry {
                tid: Tid::new(new.child.head, 0),
                encoded: &self.inner_encoder,
                child: Some((new.child, &new.summaries)),
                live: false,
            };
            match append::append(index, &inner, (parent.list.head, parent.list.id), &entry, &added) {
                Ok(Added { at, grown: more }) => {
                    added.push(at);
                    grown |= more;
                }
                Err(Refused::Stale(stale)) => index.corrupted(stale.block, stale.damage),
                Err(Refused::Closed) => index.corrupted(parent.list.head, Damage::Bounds),
            }
        }
        let mut numbers: Vec<u32> = olds.iter().chain(&added).map(|at| at.page).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let buffers: Vec<P::Exclusive> = numbers.iter().map(|&number| index.write(number)).collect();
        let meta_buffer = index.write(META_BLOCK);
        let mut change = index.begin();
        let mut meta = Meta::read(meta_buffer.page()).or_corrupted(index, META_BLOCK);
        meta.raise_epoch();
        update(&mut meta);
        if let Some((layout, stream)) = stream {
            meta.open_code[usize::from(layout.inner)] = reopened(index, &meta, layout, stream);
        }
        for buffer in &buffers {
            let page = change.edit(buffer, false);
            if olds.iter().any(|at| at.page == buffer.block()) {
                page::edit_opaque(page, |o| o.epoch = meta.epoch);
            }
            let mut view = PostingMut::new(page, &inner);
            for (positions, live) in [(olds, false), (&added[..], true)] {
                for at in positions.iter().filter(|at| at.page == buffer.block()) {
                    view.set_live_bit(at.block as usize, at.slot as usize, live);
                }
            }
        }
        meta.write(change.edit(&meta_buffer, false));
        change.commit();
        self.meta = meta;
        grown
    }

    /// Frees the pages of lists that are no longer in the tree.
    pub(super) fn free(&mut self, pages: OldPages, layout: &Layout) {
        let (index, epoch) = (self.index, self.meta.epoch);
        let mut freed = Vec::new();
        for number in pages.postings.into_iter().chain(pages.sketches) {
            let buffer = index.write(number);
            let kind = page::check_any(buffer.page()).or_corrupted(index, number).kind;
            if kind != Kind::Posting as u8 && kind != Kind::Sketch as u8 {
                index.corrupted(number, Damage::Kind(kind));
            }
            let mut change = index.begin();
            page::free(change.edit(&buffer, true), epoch);
            change.commit();
            freed.push(number);
        }
        for (number, blocks) in pages.codes {
            let meta_buffer = index.read(META_BLOCK);
            let meta = Meta::read(meta_buffer.page()).or_corrupted(index, META_BLOCK);
            let buffer = index.write(number);
            let refs = page::check_code(buffer.page(), layout).or_corrupted(index, number).refs.saturating_sub(blocks);
            let mut change = index.begin();
            let page = change.edit(&buffer, false);
            // Blocks go on to take cells from a page that is open.
            if refs == 0 && !meta.open_code.contains(&number) {
                page::free(page, epoch);
                freed.push(number);
            } else {
                page::edit_opaque(page, |o| o.refs = refs);
            }
            change.commit();
        }
        index.record_free(&freed);
        self.freed += freed.len() as u32;
    }

    /// After an inner list got longer: makes two of it, or puts a level above it if it is the root, if it is too long now.
    /// `path`: the list itself, its parent, and so on.
    pub(super) fn grow_inner(&mut self, path: &[Found]) {
        let list = &path[0].list;
        let entries = count(self.index, &self.inner, list.head, list.id)
            .unwrap_or_else(|stale| self.index.corrupted(stale.block, stale.damage));
        match path {
            [root] if entries > self.longest_root() => self.add_level((root.list.head, root.list.id)),
            [_, _, ..] if entries > 2 * INNER_ENTRIES => self.split_inner(path),
            _ => {}
        }
    }

    /// Entries of a root up to which it stays as it is. To divide it takes long, so who inserts leaves that to VACUUM, unless
    /// that does not come.
    fn longest_root(&self) -> usize {
        if self.vacuum { ROOT_ENTRIES + ROOT_ENTRIES / 4 } else { 2 * ROOT_ENTRIES }
    }

    /// Puts a level above the root if it is too long.
    pub(crate) fn grow_root(&mut self) {
        let entries = count(self.index, &self.inner, self.meta.root, self.meta.root_list)
            .unwrap_or_else(|stale| self.index.corrupted(stale.block, stale.damage));
        if self.meta.height > 0 && entries > self.longest_root() && can_change(self.index, &self.meta) {
            self.add_level((self.meta.root, self.meta.root_list));
        }
    }

    /// Reads the entries of an inner list: their centroids, and each as it is. Summaries of its lists are not changed from
    /// now on, until somebody who wants to, and has waited for the lock, opens their pages again.
    fn read_inner(&self, head: u32, list: u32) -> (OldPages, Vec<f32>, Vec<New>) {
        let (index, inner, padded) = (self.index, self.inner, self.padded());
        let damaged = |stale: Stale| -> ! { index.corrupted(stale.block, stale.damage) };
        let mut pages = OldPages::default();
        let mut found = Vec::new();
        let mut cursor = Cursor::of(index, &inner, head, list);
        while let Some(buffer) = cursor.next_page().unwrap_or_else(|stale| damaged(stale)) {
            let posting = cursor.posting(&buffer);
            pages.add(self.index, buffer.block(), &posting);
            for block in (0..posting.blocks()).map(|b| posting.block(b)) {
                for slot in (0..BLOCK).filter(|slot| block.live() >> slot & 1 == 1) {
                    let cell = block.cell(slot);
                    let cell = cell.unwrap_or_else(|| index.corrupted(buffer.block(), Damage::Bounds));
                    found.push((cell, block.child(slot)));
                }
            }
        }
        if inner.filters > 0 {
            for &number in pages.codes.keys() {
                let buffer = index.write(number);
                page::check_code(buffer.page(), &inner).or_corrupted(index, number);
                let mut change = index.begin();
                page::edit_opaque(change.edit(&buffer, false), |o| o.flags |= CLOSED);
                change.commit();
            }
        }
        let mut codes = CodeReader::new(index, &inner);
        let mut encoder = Encoder::new(self.space(), &inner);
        let mut centroids = memory::zeroed(found.len() * padded);
        let mut entries = Vec::new();
        for ((cell, child), centroid) in found.into_iter().zip(centroids.chunks_exact_mut(padded)) {
            codes.read_into(cell, Owner::child(child.list), &mut encoder).unwrap_or_else(|stale| damaged(stale));
            let summaries = codes.summaries(cell).unwrap_or_else(|stale| damaged(stale));
            encoder.decode_centroid(centroid);
            let mut record = vec![0; encode::record_bytes(&inner)];
            encode::write_record(&encoder, Tid::new(0, 0), &mut record);
            entries.push(New { child, summaries, record });
        }
        (pages, centroids, entries)
    }

    /// Writes an inner list of `level` with those `entries` that `chosen` names; returns it as an entry of its own parent.
    fn write_inner(
        &mut self,
        level: u32,
        id: u32,
        (entries, centroids): (&[New], &[f32]),
        chosen: &[usize],
        cells: &mut CodeStream<'_, P>,
    ) -> New {
        let padded = self.padded();
        let row = |i: usize| &centroids[i * padded..][..padded];
        let mut list = Entries::new(&self.inner);
        for &i in chosen {
            push_child(&mut self.inner_encoder, &mut list, &entries[i]);
        }
        let middle = Middle::of(None, padded, outliers::steps(chosen.len()).map(|at| row(chosen[at])));
        let mean = Middle::mean(middle.sum(chosen.iter().map(|&i| row(i))));
        let mut centroid = mean.unwrap_or_else(|| vec![0.0; padded]);
        let head = list::write_list(self.index, &self.inner, level as u8, id, &list, cells);
        let record = self.quantize(&mut centroid);
        let squares: Vec<f32> = chosen.iter().map(|&i| ann::distance::l2_squared(row(i), &centroid)).collect();
        let radius = outliers::mean_square(&squares, 0.0).sqrt();
        let child = Child { head, list: id, radius, norm2: ann::distance::norm_squared(&centroid) };
        New { child, summaries: Vec::new(), record }
    }

    /// Splits the inner list at the end of a way from the root.
    fn split_inner(&mut self, path: &[Found]) {
        let (old, parent) = (&path[0], &path[1]);
        let level = self.meta.height + 1 - path.len() as u32;
        let (pages, centroids, entries) = self.read_inner(old.list.head, old.list.id);
        let halves = cluster::halve(Matrix::new(&centroids, self.padded()), SEED ^ u64::from(self.meta.last_list));
        let hold = self.index.hold_interrupts();
        let inner = self.inner;
        let (first, mut cells) = self.reserve(2, &inner);
        let news: Vec<New> = (0..2)
            .map(|half| {
                let chosen: Vec<usize> =
                    (0..entries.len()).filter(|&i| usize::from(halves.second[i]) == half).collect();
                self.write_inner(level, first + half as u32, (&entries, &centroids), &chosen, &mut cells)
            })
            .collect();
        let grown = self.swap(parent, &[old.at], &news, Some((&inner, &cells)), |_| {});
        self.free(pages, &inner);
        self.finish();
        drop(hold);
        if grown {
            self.grow_inner(&path[1..]);
        }
    }

    /// Divides the root's entries among new lists of its level, and makes a new root above them.
    fn add_level(&mut self, (head, list): (u32, u32)) {
        if self.meta.height >= page::MAX_HEIGHT {
            return;
        }
        let padded = self.padded();
        let (pages, centroids, entries) = self.read_inner(head, list);
        let centroids = Arc::new(centroids);
        let parents = crate::group(self.index, centroids.clone(), padded, entries.len() / INNER_ENTRIES);
        let lists = parents.iter().max().map_or(1, |&most| most as usize + 1);
        let mut chosen: Vec<Vec<usize>> = vec![Vec::new(); lists];
        for (i, parent) in parents.into_iter().enumerate() {
            chosen[parent as usize].push(i);
        }
        chosen.retain(|list| !list.is_empty());
        let _hold = self.index.hold_interrupts();
        let inner = self.inner;
        let level = self.meta.height;
        let (first, mut cells) = self.reserve(chosen.len() as u32 + 1, &inner);
        let mut root = Entries::new(&inner);
        for (id, chosen) in (first + 1..).zip(&chosen) {
            let new = self.write_inner(level, id, (&entries, &centroids), chosen, &mut cells);
            push_child(&mut self.inner_encoder, &mut root, &new);
        }
        let head = list::write_list(self.index, &inner, level as u8 + 1, first, &root, &mut cells);
        let index = self.index;
        self.update_meta(|meta| {
            meta.raise_epoch();
            (meta.root, meta.root_list, meta.height) = (head, first, level + 1);
            meta.open_code[1] = reopened(index, meta, &inner, &cells);
        });
        self.free(pages, &inner);
        self.finish();
    }
}

/// Which code page is open from now on: that of `stream`, or one that has been opened meanwhile.
fn reopened<P: Pages>(index: P, meta: &Meta, layout: &Layout, stream: &CodeStream<'_, P>) -> u32 {
    let theirs = meta.open_code[usize::from(layout.inner)];
    match stream.open_page() {
        None => theirs,
        Some((ours, _)) if theirs == NO_BLOCK => ours,
        Some((ours, cells)) if cells > list::free_cells(index, layout, theirs) => ours,
        Some(_) => theirs,
    }
}

/// Adds a list to the entries of a list of lists.
fn push_child(encoder: &mut Encoder, entries: &mut Entries, new: &New) {
    encode::read_record(encoder, &new.record);
    entries.push(&Entry { child: Some((new.child, &new.summaries)), ..encoder.entry(Tid::new(new.child.head, 0)) });
}
