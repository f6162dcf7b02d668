//! Rows that are not in the tree yet: a chain of pages behind the meta page. See README.md beside this file.

use super::page::{self, Key, Meta, NULLS, Pending, PendingRow, ROWS};
use super::tree::{Entry, Tree, Writer};
use super::value::Value;
use crate::index::page::{self as pages, Damage, META_BLOCK, NO_BLOCK};
use crate::index::storage::{self, Buffer, Change, Checked, StructureLock, Uninterrupted, corrupted};
use ann::memory;
use pgrx::prelude::*;

/// Pages from which on whoever adds one puts the rows of all others into the tree: a part of the index, between these. A search reads
/// all of them, and a move changes most leaves.
const MOST_PAGES: std::ops::RangeInclusive<u32> = 64..=256;
const PART: u32 = 32;
/// As many times as many, and he waits for who does that.
const TOO_MANY: u32 = 4;
/// Pages whose rows are put into the tree at once.
const AT_ONCE: u32 = *MOST_PAGES.end();

/// Reads the meta page.
pub fn meta(index: pg_sys::Relation) -> Meta {
    Meta::read(Buffer::read(index, META_BLOCK).page()).or_corrupted(index, META_BLOCK)
}

/// The tree of an index.
pub fn tree(index: pg_sys::Relation, meta: &Meta) -> Tree {
    Tree { index, root: meta.root }
}

/// Locks the meta page and changes what it has to say of a value; an ERROR if that does not go with the others.
fn meta_for<'b>(index: pg_sys::Relation, value: Option<&Value>) -> (Buffer<'b>, Meta) {
    let buffer = Buffer::write(index, META_BLOCK);
    let mut meta = Meta::read(buffer.page()).or_corrupted(index, META_BLOCK);
    if let Some(value) = value {
        let before = meta;
        if meta.dims == 0 {
            meta.dims = value.dims;
        }
        value.check_dims(meta.dims);
        meta.negative |= value.negative;
        if meta != before {
            let mut change = Change::begin(index);
            meta.write(change.edit(&buffer, false));
            change.commit();
        }
    }
    (buffer, meta)
}

/// Adds a row; None is NULL.
pub fn insert(index: pg_sys::Relation, row: u64, value: Option<&Value>) {
    let entries = value.map(|value| &value.entries[..]);
    let n = entries.map_or(0, <[_]>::len);
    if n > page::MOST_PENDING {
        let meta = meta_for(index, value).1;
        let lock = StructureLock::wait(index);
        let mut all = memory::with_room(n + 1);
        all.extend(entries_of(row, false, entries.unwrap_or_default().iter().copied()));
        Writer::new(tree(index, &meta), &lock).put(&all);
        return;
    }
    let pages = append(index, row, value, n);
    if pages <= *MOST_PAGES.start() {
        return;
    }
    let most = (storage::blocks(index) / PART).clamp(*MOST_PAGES.start(), *MOST_PAGES.end());
    if pages <= most {
        return;
    }
    let lock = match StructureLock::attempt(index) {
        Some(lock) => Some(lock),
        None => (pages > TOO_MANY * most).then(|| StructureLock::wait(index)),
    };
    if let Some(lock) = lock {
        move_rows(index, &lock, false);
    }
}

/// Appends a row to the chain; returns its pages if it has got one more, else 0.
fn append(index: pg_sys::Relation, row: u64, value: Option<&Value>, n: usize) -> u32 {
    let entries = value.map(|value| &value.entries[..]);
    let (buffer, mut meta) = meta_for(index, value);
    if meta.tail != NO_BLOCK {
        let tail = Buffer::write(index, meta.tail);
        let pending = Pending::open(tail.page(), meta.last).or_corrupted(index, meta.tail);
        if pending.next != NO_BLOCK {
            corrupted(index, meta.tail, Damage::Bounds);
        }
        if pending.room() >= page::pending_bytes(n) {
            let mut change = Change::begin(index);
            page::add_pending(change.edit(&tail, false), row, entries);
            change.commit();
            return 0;
        }
        let fresh = Buffer::allocate(index, pg_sys::ForkNumber::MAIN_FORKNUM);
        meta.last = meta.last.checked_add(1).unwrap_or_else(|| corrupted(index, META_BLOCK, Damage::Bounds));
        meta.tail = fresh.block();
        let mut change = Change::begin(index);
        let to = change.edit(&fresh, true);
        page::init_pending(to, meta.last);
        page::add_pending(to, row, entries);
        pages::edit_opaque(change.edit(&tail, false), |o| o.next = meta.tail);
        meta.write(change.edit(&buffer, false));
        change.commit();
        return meta.pending_pages();
    }
    let fresh = Buffer::allocate(index, pg_sys::ForkNumber::MAIN_FORKNUM);
    (meta.head, meta.tail) = (fresh.block(), fresh.block());
    meta.first = meta.last.checked_add(1).unwrap_or_else(|| corrupted(index, META_BLOCK, Damage::Bounds));
    meta.last = meta.first;
    let mut change = Change::begin(index);
    let to = change.edit(&fresh, true);
    page::init_pending(to, meta.last);
    page::add_pending(to, row, entries);
    meta.write(change.edit(&buffer, false));
    change.commit();
    1
}

/// The entries of a row, in order: that of the list of all rows comes first.
pub fn entries_of(row: u64, is_null: bool, list: impl Iterator<Item = (Key, f32)>) -> impl Iterator<Item = Entry> {
    let first = if is_null { NULLS } else { ROWS };
    std::iter::once((first, 1.0)).chain(list).map(move |(key, weight)| Entry { key, row, weight })
}

/// Calls `each` for all rows of the chain, as they were at one moment. Rows that have been seen may come again: `anew` is called
/// before.
pub fn read(index: pg_sys::Relation, mut each: impl FnMut(&PendingRow<'_>), mut anew: impl FnMut()) -> Meta {
    let mut before = None;
    'anew: loop {
        let meta = meta(index);
        let (mut block, mut number) = (meta.head, meta.first);
        while block != NO_BLOCK {
            crate::pg::memory::check_for_interrupts();
            let buffer = Buffer::read(index, block);
            let mut pending = match Pending::open(buffer.page(), number) {
                Ok(pending) => pending,
                // Its rows have been put into the tree since, if others begin the chain now.
                Err(damage) if damage.may_be_change() && before != Some(meta.first) => {
                    drop(buffer);
                    anew();
                    before = Some(meta.first);
                    continue 'anew;
                }
                Err(damage) => corrupted(index, block, damage),
            };
            while let Some(row) = pending.next_row() {
                each(&row.or_corrupted(index, block));
            }
            if number == meta.last {
                break;
            }
            (block, number) = (pending.next, number + 1);
            if block == NO_BLOCK {
                corrupted(index, META_BLOCK, Damage::Bounds);
            }
        }
        return meta;
    }
}

/// Puts rows of the chain into the tree: those of all pages but the last, to which others add rows, or all.
pub fn move_rows(index: pg_sys::Relation, lock: &StructureLock, all: bool) {
    if all {
        seal(index);
    }
    let end = meta(index).last;
    loop {
        let meta = meta(index);
        let last = end.min(meta.first.saturating_add(AT_ONCE));
        if meta.head == NO_BLOCK || meta.first >= last {
            return;
        }
        let mut blocks = Vec::new();
        let mut entries: Vec<Entry> = Vec::new();
        let mut block = meta.head;
        for number in meta.first..last {
            let buffer = Buffer::read(index, block);
            let mut pending = Pending::open(buffer.page(), number).or_corrupted(index, block);
            while let Some(row) = pending.next_row() {
                let row = row.or_corrupted(index, block);
                memory::room(&mut entries, row.len() + 1);
                entries.extend(entries_of(row.row, row.is_null, (0..row.len()).map(|i| (row.key(i), row.weight(i)))));
            }
            memory::push(&mut blocks, block);
            block = pending.next;
            drop(buffer);
            crate::pg::memory::check_for_interrupts();
        }
        entries.sort_unstable_by_key(Entry::place);
        Writer::new(tree(index, &meta), lock).put(&entries);
        // From here on the pages would be lost.
        let _uninterrupted = Uninterrupted::begin();
        unlink(index, last, block);
        for &block in &blocks {
            let buffer = Buffer::write(index, block);
            let mut change = Change::begin(index);
            pages::free(change.edit(&buffer, false), 0);
            change.commit();
            drop(buffer);
            storage::note_free(index, block);
        }
        storage::record_free(index, &blocks[blocks.len() - 1..]);
    }
}

/// Ends the last page, if it has a row: from now on rows are added to another one.
fn seal(index: pg_sys::Relation) {
    let (buffer, mut meta) = meta_for(index, None);
    if meta.tail == NO_BLOCK {
        return;
    }
    let tail = Buffer::write(index, meta.tail);
    if pages::opaque(tail.page()).used == 0 {
        return;
    }
    Pending::open(tail.page(), meta.last).or_corrupted(index, meta.tail);
    let fresh = Buffer::allocate(index, pg_sys::ForkNumber::MAIN_FORKNUM);
    meta.last = meta.last.checked_add(1).unwrap_or_else(|| corrupted(index, META_BLOCK, Damage::Bounds));
    meta.tail = fresh.block();
    let mut change = Change::begin(index);
    page::init_pending(change.edit(&fresh, true), meta.last);
    pages::edit_opaque(change.edit(&tail, false), |o| o.next = meta.tail);
    meta.write(change.edit(&buffer, false));
    change.commit();
}

/// Lets the chain begin with a page.
fn unlink(index: pg_sys::Relation, number: u32, block: u32) {
    let (buffer, mut meta) = meta_for(index, None);
    (meta.first, meta.head) = (number, block);
    let mut change = Change::begin(index);
    meta.write(change.edit(&buffer, false));
    change.commit();
}
