//! `VACUUM`: clears the live bits of dead rows, page by page in physical order. Codes are not read.
//!
//! Lists are split meanwhile. Rows only ever move to lists that are written anew, and these have identities that were never
//! used before. So the pass leaves lists out that came after it began; at its end it goes through those, and through what
//! came meanwhile, until nothing new is left.

use super::page::{self, Kind, Layout, META_BLOCK, Posting, PostingMut, Tid};
use super::pgvector;
use super::storage::{self, Buffer, Change, Checked, Stale, StructureLock, corrupted};
use super::terms;
use crate::index::page::ItemPointer as _;
use crate::index::read::info::Info;
use crate::index::read::rows::Rows;
use crate::index::storage::pages;
use crate::pg::compat;
use ivflsh::read::tree::Cursor;
use ivflsh::vacuum::tidy;
use ivflsh::vacuum::tidy::Tidied;
use pgrx::pg_sys::submodules::ffi::pg_guard_ffi_boundary;
use pgrx::prelude::*;

/// `ambulkdelete`
#[pg_guard]
pub unsafe extern "C-unwind" fn ambulkdelete(
    info: *mut pg_sys::IndexVacuumInfo,
    stats: *mut pg_sys::IndexBulkDeleteResult,
    callback: pg_sys::IndexBulkDeleteCallback,
    callback_state: *mut std::ffi::c_void,
) -> *mut pg_sys::IndexBulkDeleteResult {
    // SAFETY: PostgreSQL's arguments.
    unsafe {
        let stats =
            if stats.is_null() { pg_sys::palloc0(size_of::<pg_sys::IndexBulkDeleteResult>()).cast() } else { stats };
        let index = (*info).index;
        if pgvector::is_idle(index) {
            return stats;
        }
        let dead = callback.expect("PostgreSQL passes a callback");
        if terms::is_of(index) {
            let terms::vacuum::Done { rows, removed } = terms::vacuum::bulk_delete(index, dead, callback_state);
            (*stats).num_index_tuples = rows as f64;
            (*stats).estimated_count = false;
            (*stats).tuples_removed += removed as f64;
            (*stats).num_pages = storage::blocks(index);
            return stats;
        }
        let leaf = Info::of(pages(index)).leaf_layout();
        let mut pass = Pass {
            index,
            leaf,
            strategy: (*info).strategy,
            dead,
            state: callback_state,
            entries: Vec::new(),
            rows: 0,
            removed: 0,
            free: 0,
        };
        let estimated = pass.run();
        if pass.removed > 0 {
            tidy::note_removed(pages(index), pass.removed);
        }
        (*stats).num_index_tuples = pass.rows as f64;
        (*stats).estimated_count = estimated;
        (*stats).tuples_removed += pass.removed as f64;
        (*stats).num_pages = storage::blocks(index);
        ((*stats).pages_deleted, (*stats).pages_free) = (pass.free, pass.free);
        stats
    }
}

/// A bulk delete.
struct Pass {
    index: pg_sys::Relation,
    leaf: Layout,
    strategy: pg_sys::BufferAccessStrategy,
    /// Whether a row is to be removed.
    dead: unsafe extern "C-unwind" fn(pg_sys::ItemPointer, *mut std::ffi::c_void) -> bool,
    state: *mut std::ffi::c_void,
    /// Block, slot and TID of the live entries of a page.
    entries: Vec<(usize, usize, Tid)>,
    /// Entries that stay.
    rows: u64,
    removed: u64,
    /// Empty pages.
    free: u32,
}

/// New lists that are gone through while the structure is kept as it is; and how often others are before.
const FEW_LISTS: usize = 32;
const ROUNDS: usize = 8;

impl Pass {
    /// Goes through the whole index; returns whether rows that moved meanwhile may have been counted twice.
    fn run(&mut self) -> bool {
        // Lists up to this identity are done by the pages in physical order.
        let first = Info::of(pages(self.index)).meta.last_list;
        let (mut number, mut blocks) = (META_BLOCK + 1, storage::blocks(self.index));
        // Pages that are added meanwhile hold new rows, which are not to be removed, but are counted if met.
        while number < blocks {
            compat::vacuum_delay();
            self.page(number, first);
            number += 1;
            if number == blocks {
                blocks = storage::blocks(self.index);
            }
        }
        let mut done = first;
        for round in 0.. {
            // No list is on its way into the tree while this is held.
            let kept = StructureLock::shared(self.index);
            let (lists, last) = tidy::lists_after(pages(self.index), done);
            done = last;
            if lists.len() <= FEW_LISTS || round == ROUNDS {
                lists.into_iter().for_each(|list| self.list(list, |_| {}));
                break;
            }
            drop(kept);
            for list in lists {
                // It may be gone by now: then its rows are in lists that came later still.
                self.list(list, |_| compat::vacuum_delay());
            }
        }
        done != first
    }

    /// Does a page unless it is one of a list that came after `last`.
    fn page(&mut self, number: u32, last: u32) {
        let index = self.index;
        let (list, head) = {
            let buffer = Buffer::read_by(index, number, self.strategy);
            let opaque = match page::check_any(buffer.page()) {
                Ok(opaque) => opaque,
                // Left by a crash, or about to be written.
                Err(page::Damage::New) => {
                    self.free += 1;
                    return;
                }
                Err(damage) => corrupted(index, number, damage),
            };
            self.free += u32::from(opaque.kind == Kind::Free as u8);
            if opaque.kind != Kind::Posting as u8 || opaque.level > 0 || opaque.list > last {
                return;
            }
            let posting = Posting::open(buffer.page(), &self.leaf, opaque.list).or_corrupted(index, number);
            self.entries.clear();
            self.entries.extend(tidy::entries(&posting));
            (opaque.list, opaque.head)
        };
        self.clean(number, (head, list));
    }

    /// Does a list, from its head page on. `before`: called before each page, while none is locked.
    fn list(&mut self, (head, list): (u32, u32), before: impl Fn(u32)) {
        let leaf = self.leaf;
        let mut cursor = Cursor::of(pages(self.index), &leaf, head, list);
        loop {
            before(list);
            let number = match cursor.next_page() {
                Ok(Some(buffer)) => {
                    self.entries.clear();
                    self.entries.extend(tidy::entries(&cursor.posting(&buffer)));
                    buffer.block()
                }
                Ok(None) | Err(Stale { .. }) => return,
            };
            self.clean(number, (head, list));
        }
    }

    /// Removes the dead ones of `entries`, which are those of a page.
    fn clean(&mut self, number: u32, (head, list): (u32, u32)) {
        let index = self.index;
        let (is_dead, state, entries) = (self.dead, self.state, &mut self.entries[..]);
        // SAFETY: PostgreSQL's callback. No page is locked, and no Rust value lives inside the guard that needs dropping.
        let dead = unsafe {
            pg_guard_ffi_boundary(|| {
                let mut dead = 0;
                for i in 0..entries.len() {
                    if is_dead(&mut entries[i].2.item(), state) {
                        entries[dead] = entries[i];
                        dead += 1;
                    }
                }
                dead
            })
        };
        self.rows += (self.entries.len() - dead) as u64;
        self.entries.truncate(dead);
        if self.entries.is_empty() {
            return;
        }
        // Whoever moves entries counts on finding them where he has seen them.
        let _kept = StructureLock::shared(index);
        let buffer = Buffer::write(index, number);
        let Ok(posting) = Posting::open(buffer.page(), &self.leaf, list) else { return };
        // Moved since: then it is met there.
        let is_there = |&(b, slot, tid): &(usize, usize, Tid)| {
            b < posting.blocks() && posting.block(b).live() >> slot & 1 == 1 && posting.block(b).tid(slot) == tid
        };
        self.entries.retain(is_there);
        if self.entries.is_empty() {
            return;
        }
        let mut change = Change::begin(index);
        let mut view = PostingMut::new(change.edit(&buffer, false), &self.leaf);
        for &(b, slot, _) in &self.entries {
            view.set_live_bit(b, slot, false);
        }
        change.commit();
        self.removed += self.entries.len() as u64;
        drop(buffer);
        note_room(index, list, head, &self.leaf);
    }
}

/// Lets the next insert into a list look for room from its first page on.
fn note_room(index: pg_sys::Relation, list: u32, head: u32, leaf: &Layout) {
    if head >= storage::blocks(index) {
        return;
    }
    let is_noted = |buffer: &Buffer<'_>| {
        // A list that a crash kept from being finished has no head: it is written last. Nobody inserts into such a list.
        Posting::open(buffer.page(), leaf, list).map_or(true, |posting| posting.opaque.insert_at == head)
    };
    if is_noted(&Buffer::read(index, head)) {
        return;
    }
    let buffer = Buffer::write(index, head);
    if !is_noted(&buffer) {
        let mut change = Change::begin(index);
        page::edit_opaque(change.edit(&buffer, false), |o| o.insert_at = head);
        change.commit();
    }
}

/// `amvacuumcleanup`
#[pg_guard]
pub unsafe extern "C-unwind" fn amvacuumcleanup(
    info: *mut pg_sys::IndexVacuumInfo,
    stats: *mut pg_sys::IndexBulkDeleteResult,
) -> *mut pg_sys::IndexBulkDeleteResult {
    // SAFETY: PostgreSQL's arguments. VACUUM holds a lock on the table that outlives this. Without a bulk delete, nothing is
    // known of the rows: NULL leaves pg_class as it is.
    unsafe {
        if (*info).analyze_only {
            return stats;
        }
        let index = (*info).index;
        if storage::blocks(index) > 0 && terms::is_of(index) {
            let free = terms::vacuum::clean_up(index, (*info).strategy);
            if let Some(stats) = stats.as_mut() {
                stats.num_pages = storage::blocks(index);
                (stats.pages_free, stats.pages_deleted) = (free, free);
            }
            return stats;
        }
        // Nothing to tidy, or nothing that this library could tidy: what pgvector left is to be built anew.
        if storage::blocks(index) == 0 || Info::to_plan(pages(index)).is_none() {
            return stats;
        }
        let heap = pg_sys::table_open((*(*index).rd_index).indrelid, pg_sys::AccessShareLock as i32);
        let Tidied { free, freed } = tidy::tidy(
            pages(index),
            || Rows::of_vacuum(index, heap, Info::of(pages(index)).frame(pages(index)).operator),
            (*info).strategy,
        );
        pg_sys::table_close(heap, pg_sys::AccessShareLock as i32);
        if let Some(stats) = stats.as_mut() {
            stats.num_pages = storage::blocks(index);
            stats.pages_newly_deleted += freed;
            stats.pages_free = free.unwrap_or(stats.pages_free);
            stats.pages_deleted = stats.pages_free;
        }
        stats
    }
}
