//! The pages of an index of PostgreSQL, for the engine.

use super::{Buffer, Change, StructureLock, Uninterrupted, corrupted};
use crate::index::page::{Bytes, Damage, Meta};
use crate::index::read::info;
use crate::pg::compat;
use crate::pg::threads::Pool;
use ivflsh::pages::{ExclusiveGuard, Guard, Pages, Record};
use pgrx::prelude::*;
use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::AtomicBool;

/// An open index.
#[derive(Clone, Copy)]
pub struct Index {
    rel: pg_sys::Relation,
}

/// The pages of an index that is open, and stays so as long as they are used.
pub fn pages(rel: pg_sys::Relation) -> Index {
    Index { rel }
}

/// A page locked exclusively.
pub struct Exclusive(Buffer<'static>);

impl Guard for Buffer<'static> {
    #[inline]
    fn block(&self) -> u32 {
        Buffer::block(self)
    }

    #[inline]
    fn page(&self) -> &Bytes {
        Buffer::page(self)
    }

    #[inline]
    fn lsn(&self) -> u64 {
        Buffer::lsn(self)
    }

    #[inline]
    fn set_hint(&self, at: usize, bits: u32) {
        Buffer::set_hint(self, at, bits);
    }
}

impl Guard for Exclusive {
    #[inline]
    fn block(&self) -> u32 {
        self.0.block()
    }

    #[inline]
    fn page(&self) -> &Bytes {
        self.0.page()
    }

    #[inline]
    fn lsn(&self) -> u64 {
        self.0.lsn()
    }

    #[inline]
    fn set_hint(&self, at: usize, bits: u32) {
        self.0.set_hint(at, bits);
    }
}

impl ExclusiveGuard for Exclusive {
    #[inline]
    fn page_unlogged(&mut self) -> &mut Bytes {
        self.0.page_unlogged()
    }
}

impl Record<Exclusive> for Change<'static> {
    fn edit<'s>(&'s mut self, guard: &'s Exclusive, fresh: bool) -> &'s mut Bytes {
        Change::edit(self, &guard.0, fresh)
    }

    fn commit(self) {
        Change::commit(self);
    }
}

impl Pages for Index {
    type Shared = Buffer<'static>;
    type Exclusive = Exclusive;
    type Record = Change<'static>;
    type StructureLock = StructureLock;
    type Uninterrupted = Uninterrupted;
    type Strategy = pg_sys::BufferAccessStrategy;

    #[inline]
    fn read(self, block: u32) -> Buffer<'static> {
        Buffer::read(self.rel, block)
    }

    fn read_by(self, block: u32, strategy: pg_sys::BufferAccessStrategy) -> Buffer<'static> {
        Buffer::read_by(self.rel, block, strategy)
    }

    fn write(self, block: u32) -> Exclusive {
        Exclusive(Buffer::write(self.rel, block))
    }

    fn allocate(self) -> Exclusive {
        Exclusive(Buffer::allocate(self.rel, pg_sys::ForkNumber::MAIN_FORKNUM))
    }

    fn begin(self) -> Change<'static> {
        Change::begin(self.rel)
    }

    fn blocks(self) -> u32 {
        super::blocks(self.rel)
    }

    fn blocks_settled(self) -> u32 {
        super::blocks_settled(self.rel)
    }

    fn corrupted(self, block: u32, damage: Damage) -> ! {
        corrupted(self.rel, block, damage)
    }

    #[inline]
    fn prefetch(self, block: u32, bytes: Range<usize>) {
        super::prefetch(self.rel, block, bytes);
    }

    fn read_ahead(self, block: u32) {
        super::read_ahead(self.rel, block);
    }

    fn blocks_read(self) -> i64 {
        super::blocks_read()
    }

    fn log_position(self) -> Option<u64> {
        super::wal_position()
    }

    fn may_hint(self) -> bool {
        super::may_hint(self.rel)
    }

    fn note_free(self, block: u32) {
        super::note_free(self.rel, block);
    }

    fn spread_free(self) {
        super::spread_free(self.rel);
    }

    fn record_free(self, blocks: &[u32]) {
        super::record_free(self.rel, blocks);
    }

    fn pages_taken(self) -> u32 {
        super::pages_taken()
    }

    fn attempt_structure_lock(self) -> Option<StructureLock> {
        StructureLock::attempt(self.rel)
    }

    fn wait_for_structure_lock(self) -> StructureLock {
        StructureLock::wait(self.rel)
    }

    fn share_structure_lock(self) -> StructureLock {
        StructureLock::shared(self.rel)
    }

    fn hold_interrupts(self) -> Uninterrupted {
        Uninterrupted::begin()
    }

    #[inline]
    fn check_for_interrupts(self) {
        crate::pg::memory::check_for_interrupts();
    }

    fn vacuum_delay(self) {
        compat::vacuum_delay();
    }

    fn vacuum_memory(self) -> usize {
        // pgrx has no binding of it.
        unsafe extern "C" {
            static autovacuum_work_mem: std::ffi::c_int;
        }
        // SAFETY: settings of this process, and what it is.
        let kilobytes = unsafe {
            let of_worker = pg_sys::MyBackendType == pg_sys::BackendType::B_AUTOVAC_WORKER && autovacuum_work_mem >= 0;
            if of_worker { autovacuum_work_mem } else { pg_sys::maintenance_work_mem }
        };
        kilobytes as usize * 1024
    }

    fn run_on_threads<T: Send + 'static>(self, work: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> T {
        Pool::new().run(work)
    }

    fn mean(self, meta: &Meta, read: impl FnOnce() -> Vec<f32>) -> Vec<f32> {
        info::cached_mean(self.rel, meta, read)
    }

    fn warn_spent(self) {
        thread_local! {
            static WARNED: RefCell<HashSet<u32>> = RefCell::default();
        }
        // SAFETY: an open relation.
        let id = unsafe { (*self.rel).rd_id }.to_u32();
        if WARNED.with_borrow_mut(|warned| warned.insert(id)) {
            pgrx::pg_sys::panic::ErrorReport::new(
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("index \"{}\" has used up the numbers of its lists", super::name(self.rel)),
                pgrx::function_name!(),
            )
            .set_detail("Its lists are no longer split or merged, so that searches will take longer and longer.")
            .set_hint("Please REINDEX it.")
            .report(PgLogLevel::WARNING);
        }
    }
}
