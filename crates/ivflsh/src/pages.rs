//! What the index asks of who keeps its pages.

use crate::page::{Bytes, Damage, Meta};
use std::ops::Range;
use std::sync::atomic::AtomicBool;

/// The pages of one index: a handle, copied freely, valid while the index is open.
///
/// Pages are numbered from 0. A page is locked while a guard of it lives: any number of [`Pages::Shared`], or one
/// [`Pages::Exclusive`]. Who asks for a guard waits for it. Whoever holds guards asks for further ones only in the order
/// posting page, meta page, code or sketch page; and for a list's posting pages one at a time. No guard is held where
/// interrupts are answered.
///
/// Nothing here returns an error: what cannot be done (reading beyond the end, no room on disk, a cancelled statement) unwinds, and
/// guards, records and locks that live then may be dropped while the thread panics.
pub trait Pages: Copy {
    /// A page, locked against changes until this is dropped.
    type Shared: Guard;
    /// A page, locked against everybody else until this is dropped.
    type Exclusive: ExclusiveGuard;
    /// A change of up to [`MOST_PAGES`] pages that becomes visible, and permanent, as a whole or not at all.
    type Record: Record<Self::Exclusive>;
    /// The right to change the structure of the index (to split, to merge, to add a level), or to keep it as it is.
    type StructureLock;
    /// Holds off interrupts while it lives.
    type Uninterrupted;
    /// By which buffers who reads the whole index reads it.
    type Strategy: Copy;

    /// Locks a page against changes.
    fn read(self, block: u32) -> Self::Shared;

    /// As [`Pages::read`], for who reads the whole index: few buffers are used again and again.
    fn read_by(self, block: u32, strategy: Self::Strategy) -> Self::Shared;

    /// Locks a page exclusively.
    fn write(self, block: u32) -> Self::Exclusive;

    /// A page that nobody uses: one that [`Pages::note_free`] told of, is free still ([`crate::page::Kind::Free`], or all zeroes)
    /// and not locked by others; else a new one at the end. What is on it is undefined until [`crate::page::init`].
    fn allocate(self) -> Self::Exclusive;

    /// Begins a change.
    fn begin(self) -> Self::Record;

    /// Number of pages.
    fn blocks(self) -> u32;

    /// The same; and by now each of these is visible to who asks for it, locked by who allocated it or not.
    fn blocks_settled(self) -> u32;

    /// Raises the error that names the damage of a page.
    fn corrupted(self, block: u32, damage: Damage) -> !;

    /// Only a hint: bytes of a page will be looked at at once.
    fn prefetch(self, block: u32, bytes: Range<usize>);

    /// Only a hint: a page will be read soon.
    fn read_ahead(self, block: u32);

    /// Pages that had to be read from disk so far.
    fn blocks_read(self) -> i64;

    /// Where the next record goes: pages changed from now on have a [`Guard::lsn`] beyond it. None: hints are not to be set.
    fn log_position(self) -> Option<u64>;

    /// Whether hints may be set on pages.
    fn may_hint(self) -> bool;

    /// Tells of a free page, to be allocated after the next [`Pages::spread_free`]. Only a hint.
    fn note_free(self, block: u32);

    /// Lets all pages that [`Pages::note_free`] told of be allocated.
    fn spread_free(self);

    /// Tells of free pages that may be allocated at once.
    fn record_free(self, blocks: &[u32]);

    /// Free pages that [`Pages::allocate`] took from among those told of, so far.
    fn pages_taken(self) -> u32;

    /// The structure lock, exclusively, if nobody has it. An error where this session has it already.
    fn attempt_structure_lock(self) -> Option<Self::StructureLock>;

    /// Waits for it, exclusively: VACUUM, for a single change. Nobody waits for it while holding a page locked.
    fn wait_for_structure_lock(self) -> Self::StructureLock;

    /// Waits for it, to keep the structure as it is, as several can at a time.
    fn share_structure_lock(self) -> Self::StructureLock;

    /// Holds off interrupts: a change of the structure that is broken off is no damage, but leaves pages that nobody uses.
    fn hold_interrupts(self) -> Self::Uninterrupted;

    /// Answers interrupts, by unwinding if the statement is to end. No page is locked here.
    fn check_for_interrupts(self);

    /// The same for VACUUM, which sleeps by its cost.
    fn vacuum_delay(self);

    /// Bytes that VACUUM may keep.
    fn vacuum_memory(self) -> usize;

    /// Runs numeric work on threads, which ask nothing of the server; meanwhile interrupts are answered. The work is told by its
    /// argument when nobody waits for it any more.
    fn run_on_threads<T: Send + 'static>(self, work: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> T;

    /// The mean that belongs to `meta`, from a cache, or as `read` reads it.
    fn mean(self, meta: &Meta, read: impl FnOnce() -> Vec<f32>) -> Vec<f32>;

    /// The numbers of lists are used up, so that they are neither split nor merged: a warning, once a session.
    fn warn_spent(self);
}

/// Most pages of a [`Record`].
pub const MOST_PAGES: usize = 4;

/// A locked page.
pub trait Guard {
    /// Its number.
    fn block(&self) -> u32;

    /// What is on it.
    fn page(&self) -> &Bytes;

    /// Position in the log of its last change.
    fn lsn(&self) -> u64;

    /// Sets bits of the word at an offset, as a hint, which may be lost; also where it is locked against changes only.
    fn set_hint(&self, at: usize, bits: u32);
}

/// A page locked exclusively.
pub trait ExclusiveGuard: Guard {
    /// The page, to be changed outside of any record: only while nobody else can see the index (build).
    fn page_unlogged(&mut self) -> &mut Bytes;
}

/// A change of some pages at once. Dropped before [`Record::commit`] it was none.
pub trait Record<E> {
    /// The record's copy of a page, which stays locked until [`Record::commit`]. It can be asked for again. `fresh`: the page is
    /// new, all of it is logged.
    fn edit<'s>(&'s mut self, guard: &'s E, fresh: bool) -> &'s mut Bytes;

    /// Makes the change. An error where a page's header is not fit for that ([`crate::page::can_be_logged`],
    /// [`crate::page::can_be_changed`]).
    fn commit(self);
}
