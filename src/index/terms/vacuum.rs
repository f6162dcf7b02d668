//! `VACUUM`: removes the entries of dead rows, list by list.
//!
//! Rows that are not in the tree yet are put there first. Which rows are dead is found out by the list of all rows (and that of
//! NULLs); their own entries there go last, so that what a crash leaves is found again.

use super::page::{NULLS, Node, Place, ROWS};
use super::pending::{self, move_rows};
use super::tree::{Tree, Writer};
use crate::index::page::ItemPointer as _;
use crate::index::page::{self as pages, Kind, META_BLOCK};
use crate::index::storage::{self, Buffer, Change, Checked, StructureLock};
use crate::pg::compat;
use ann::memory;
use pgrx::pg_sys::submodules::ffi::pg_guard_ffi_boundary;
use pgrx::prelude::*;

/// Whether a row is to be removed.
pub type IsDead = unsafe extern "C-unwind" fn(pg_sys::ItemPointer, *mut std::ffi::c_void) -> bool;

/// What a bulk delete has done.
pub struct Done {
    pub rows: u64,
    pub removed: u64,
}

/// Removes the entries of rows that `is_dead` says are dead.
///
/// # Safety
/// PostgreSQL's callback and its state.
pub unsafe fn bulk_delete(index: pg_sys::Relation, is_dead: IsDead, state: *mut std::ffi::c_void) -> Done {
    {
        let lock = StructureLock::wait(index);
        move_rows(index, &lock, true);
    }
    let tree = pending::tree(index, &pending::meta(index));
    let (mut dead, mut rows) = (Vec::new(), 0);
    for key in [ROWS, NULLS] {
        let (mut next, mut numbers, mut weights) = (Some(Place { key, row: 0 }), Vec::new(), Vec::new());
        while let Some(from) = next {
            compat::vacuum_delay();
            numbers.clear();
            weights.clear();
            next = tree.part(from, &mut numbers, &mut weights);
            let numbers = &mut numbers[..];
            // SAFETY: PostgreSQL's callback. No page is locked, and no Rust value lives inside the guard that needs dropping.
            let of_page = unsafe {
                pg_guard_ffi_boundary(|| {
                    let mut found = 0;
                    for i in 0..numbers.len() {
                        if is_dead(&mut super::page::tid_of(numbers[i]).item(), state) {
                            numbers[found] = numbers[i];
                            found += 1;
                        }
                    }
                    found
                })
            };
            rows += (numbers.len() - of_page) as u64;
            memory::append(&mut dead, &numbers[..of_page]);
        }
    }
    let removed = dead.len() as u64;
    if removed > 0 {
        dead.sort_unstable();
        let terms = Place { key: NULLS + 1, row: 0 };
        remove(&tree, terms, Place::END, &dead);
        remove(&tree, Place::FIRST, terms, &dead);
    }
    Done { rows, removed }
}

/// Removes the entries of dead rows from the leaves between two places.
fn remove(tree: &Tree, from: Place, end: Place, dead: &[u64]) {
    let is_dead = |row: u64| dead.binary_search(&row).is_ok();
    let mut at = from;
    while at < end {
        compat::vacuum_delay();
        // Mostly there is nothing to be done.
        let (mut high, mut found) = (Place::END, false);
        let (mut rows, mut weights) = (Vec::new(), Vec::new());
        tree.leaves(at, |block, node| {
            high = node.high();
            node.verify().or_corrupted(tree.index, block);
            found = (0..node.len()).any(|i| {
                let segment = node.segment(i);
                rows.clear();
                weights.clear();
                node.decode(&segment, &mut rows, &mut weights).or_corrupted(tree.index, block);
                let next = dead.partition_point(|&row| row < segment.first);
                // Mostly none is near.
                dead.get(next).is_some_and(|first| rows.last() >= Some(first)) && rows.iter().any(|&row| is_dead(row))
            });
            false
        });
        if found {
            let lock = StructureLock::wait(tree.index);
            high = Writer::new(*tree, &lock).remove(at, &is_dead).0;
        }
        at = high;
    }
}

/// Puts pending rows into the tree, and pages that nobody uses any more into the free space map. Returns how many are free.
pub fn clean_up(index: pg_sys::Relation, strategy: pg_sys::BufferAccessStrategy) -> u32 {
    {
        let lock = StructureLock::wait(index);
        move_rows(index, &lock, true);
    }
    let mut free = 0;
    for block in META_BLOCK + 1..storage::blocks_settled(index) {
        compat::vacuum_delay();
        let is_lost = {
            let buffer = Buffer::read_by(index, block, strategy);
            match pages::check_any(buffer.page()) {
                Err(pages::Damage::New) => {
                    free += 1;
                    storage::note_free(index, block);
                    false
                }
                page => match page.or_corrupted(index, block) {
                    page if page.kind == Kind::Free as u8 => {
                        free += 1;
                        storage::note_free(index, block);
                        false
                    }
                    // A crash has come between the end of its use and its being freed.
                    page if page.kind == Kind::TermPending as u8 => true,
                    page => {
                        let tree = [Kind::TermInner as u8, Kind::TermLeaf as u8].contains(&page.kind);
                        if tree {
                            Node::open(buffer.page()).or_corrupted(index, block);
                        }
                        false
                    }
                },
            }
        };
        if is_lost {
            let _lock = StructureLock::wait(index);
            let meta = pending::meta(index);
            let buffer = Buffer::write(index, block);
            let used = pages::check(buffer.page(), Kind::TermPending).map_or(true, |page| page.list >= meta.first);
            if !used {
                let mut change = Change::begin(index);
                pages::free(change.edit(&buffer, false), 0);
                change.commit();
                drop(buffer);
                storage::note_free(index, block);
                free += 1;
            }
        }
    }
    storage::spread_free(index);
    free
}
