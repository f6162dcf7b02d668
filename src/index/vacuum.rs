//! `VACUUM`: clears the live bits of dead rows, page by page in physical order. Codes are not read.

use super::compat;
use super::meta::Info;
use super::page::{self, Damage, Kind, Layout, META_BLOCK, Posting, PostingMut};
use super::pgvector;
use super::storage::{self, Buffer, Change, Checked, StructureLock, corrupted};
use super::tidy;
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
        let callback = callback.expect("PostgreSQL passes a callback");
        let index = (*info).index;
        if pgvector::is_idle(index) {
            return stats;
        }
        let leaf = Info::of(index).leaf_layout();
        // No entry moves from a page that is yet to come to one that is done.
        let _structure = StructureLock::wait(index);
        (*stats).num_index_tuples = 0.0;
        let mut number = META_BLOCK + 1;
        // Pages that are added meanwhile hold only rows that this vacuum does not remove, but are counted if met.
        while number < storage::blocks(index) {
            compat::vacuum_delay();
            let buffer = Buffer::write(index, number);
            let opaque = match page::check(buffer.page(), Kind::Posting) {
                Ok(o) => o,
                // Another kind of page, or one that a crash left unwritten.
                Err(Damage::Kind(_) | Damage::New) => {
                    number += 1;
                    continue;
                }
                Err(damage) => corrupted(index, number, damage),
            };
            if opaque.level == 0 {
                let posting = Posting::open(buffer.page(), &leaf, 0).or_corrupted(index, number);
                let mut masks = Vec::with_capacity(posting.blocks());
                let mut removed = 0;
                for b in 0..posting.blocks() {
                    let block = posting.block(b);
                    let (mut live, mut rest) = (block.live(), block.live());
                    while rest != 0 {
                        let slot = rest.trailing_zeros();
                        rest &= rest - 1;
                        let mut tid = block.tid(slot as usize).item();
                        if pg_guard_ffi_boundary(|| callback(&mut tid, callback_state)) {
                            live &= !(1 << slot);
                            removed += 1;
                        }
                    }
                    (*stats).num_index_tuples += f64::from(live.count_ones());
                    masks.push(live);
                }
                if removed > 0 {
                    let mut change = Change::begin(index);
                    let mut view = PostingMut::new(change.edit(&buffer, false), &leaf);
                    for (b, &live) in masks.iter().enumerate() {
                        view.set_live(b, live);
                    }
                    change.commit();
                    (*stats).tuples_removed += f64::from(removed);
                    drop(buffer);
                    note_room(index, opaque.list, opaque.head, &leaf);
                }
            }
            number += 1;
        }
        stats
    }
}

/// Lets the next insert into a list look for room from its first page on.
fn note_room(index: pg_sys::Relation, list: u32, head: u32, leaf: &Layout) {
    if head >= storage::blocks(index) {
        return;
    }
    let buffer = Buffer::write(index, head);
    // A list that a crash kept from being finished has no head: it is written last. Nobody inserts into such a list.
    let Ok(Posting { opaque, .. }) = Posting::open(buffer.page(), leaf, list) else { return };
    if opaque.insert_at != head {
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
        // Nothing to tidy, or nothing that this library could tidy: what pgvector left is to be built anew.
        if storage::blocks(index) == 0 || Info::to_plan(index).is_none() {
            return stats;
        }
        let heap = pg_sys::table_open((*(*index).rd_index).indrelid, pg_sys::AccessShareLock as i32);
        tidy::tidy(index, heap);
        pg_sys::table_close(heap, pg_sys::AccessShareLock as i32);
        storage::spread_free(index);
        if !stats.is_null() {
            (*stats).num_pages = storage::blocks(index);
        }
        stats
    }
}
