//! Allocations whose size follows from data. Where there is no memory for one, the work ends with an error: `Vec` and its
//! like would end the process, and with it all sessions of a server.
//!
//! What refuses is told by the program ([`on_lack`]), as an unwinding: rayon carries it from its threads to the caller.
//! Small allocations (a closure, a string, one vector) are left to the program's global allocator.

use rayon::iter::IndexedParallelIterator;
use std::alloc::Layout;
use std::cell::Cell;
use std::collections::{BinaryHeap, HashMap, HashSet, TryReserveError};
use std::hash::{BuildHasher, Hash};
use std::sync::OnceLock;
use std::sync::atomic::{Ordering, compiler_fence};

static REFUSE: OnceLock<fn(usize) -> !> = OnceLock::new();

thread_local! {
    static ASKING: Cell<bool> = const { Cell::new(false) };
}

/// Sets what ends the work when so many bytes cannot be had; it must unwind, on whichever thread. The first call counts.
pub fn on_lack(refuse: fn(usize) -> !) {
    let _ = REFUSE.set(refuse);
}

/// Ends the work for lack of so many bytes.
#[cold]
pub fn refuse(bytes: usize) -> ! {
    match REFUSE.get() {
        Some(refuse) => refuse(bytes),
        None => panic!("out of memory: {bytes} bytes"),
    }
}

/// Whether this thread is told when there is no memory: a global allocator that has more to offer keeps it for others.
pub fn is_asking() -> bool {
    ASKING.get()
}

/// Runs `ask`, whose allocations may fail.
fn asking<T>(ask: impl FnOnce() -> T) -> T {
    ASKING.set(true);
    // The compiler takes allocations for calls that look at nothing of ours.
    compiler_fence(Ordering::SeqCst);
    let answer = ask();
    compiler_fence(Ordering::SeqCst);
    ASKING.set(false);
    answer
}

/// What can grow.
pub trait Grows {
    /// Bytes of an element, roughly.
    const BYTES: usize;
    /// `try_reserve`
    fn try_room(&mut self, more: usize) -> Result<(), TryReserveError>;
    /// Elements that fit without growing.
    fn spare(&self) -> usize;
}

impl<T> Grows for Vec<T> {
    const BYTES: usize = size_of::<T>();

    fn try_room(&mut self, more: usize) -> Result<(), TryReserveError> {
        self.try_reserve(more)
    }

    #[inline]
    fn spare(&self) -> usize {
        self.capacity() - self.len()
    }
}

impl<T: Ord> Grows for BinaryHeap<T> {
    const BYTES: usize = size_of::<T>();

    fn try_room(&mut self, more: usize) -> Result<(), TryReserveError> {
        self.try_reserve(more)
    }

    #[inline]
    fn spare(&self) -> usize {
        self.capacity() - self.len()
    }
}

impl<T: Eq + Hash, S: BuildHasher> Grows for HashSet<T, S> {
    const BYTES: usize = size_of::<T>() + 1;

    fn try_room(&mut self, more: usize) -> Result<(), TryReserveError> {
        self.try_reserve(more)
    }

    #[inline]
    fn spare(&self) -> usize {
        self.capacity() - self.len()
    }
}

impl<K: Eq + Hash, V, S: BuildHasher> Grows for HashMap<K, V, S> {
    const BYTES: usize = size_of::<(K, V)>() + 1;

    fn try_room(&mut self, more: usize) -> Result<(), TryReserveError> {
        self.try_reserve(more)
    }

    #[inline]
    fn spare(&self) -> usize {
        self.capacity() - self.len()
    }
}

/// Makes room for `more` elements.
#[inline]
pub fn room<C: Grows>(in_what: &mut C, more: usize) {
    if in_what.spare() < more {
        grow(in_what, more);
    }
}

#[cold]
#[inline(never)]
fn grow<C: Grows>(what: &mut C, more: usize) {
    if asking(|| what.try_room(more)).is_err() {
        refuse(more.saturating_mul(C::BYTES));
    }
}

/// Makes room for `n` elements in all, and no more.
pub fn room_for<T>(what: &mut Vec<T>, n: usize) {
    let more = n.saturating_sub(what.len());
    if asking(|| what.try_reserve_exact(more)).is_err() {
        refuse(more.saturating_mul(size_of::<T>()));
    }
}

/// An empty vector with room for exactly `n` elements.
pub fn with_room<T>(n: usize) -> Vec<T> {
    let mut made = Vec::new();
    if asking(|| made.try_reserve_exact(n)).is_err() {
        refuse(n.saturating_mul(size_of::<T>()));
    }
    made
}

/// `vec![value; n]`
pub fn filled<T: Clone>(value: T, n: usize) -> Vec<T> {
    let mut made = with_room(n);
    made.resize(n, value);
    made
}

/// Numbers, whose zero is made of zero bytes.
///
/// # Safety
/// All bytes zero are a valid value.
pub unsafe trait Zero: Copy {}
// SAFETY: plain numbers.
unsafe impl Zero for u8 {}
// SAFETY: as above.
unsafe impl Zero for u32 {}
// SAFETY: as above.
unsafe impl Zero for u64 {}
// SAFETY: as above.
unsafe impl Zero for usize {}
// SAFETY: as above.
unsafe impl Zero for f32 {}
// SAFETY: as above.
unsafe impl Zero for f64 {}

/// `vec![0; n]`: pages of the system that are zero as they come.
pub fn zeroed<T: Zero>(n: usize) -> Vec<T> {
    let Ok(layout) = Layout::array::<T>(n) else { refuse(usize::MAX) };
    if layout.size() == 0 {
        return Vec::new();
    }
    // SAFETY: the layout is not empty.
    let start: *mut T = asking(|| unsafe { std::alloc::alloc_zeroed(layout) }).cast();
    if start.is_null() {
        refuse(layout.size());
    }
    // SAFETY: allocated by the global allocator for `n` elements, all of which are valid as they are.
    unsafe { Vec::from_raw_parts(start, n, n) }
}

/// `to_vec`
pub fn copied<T: Clone>(from: &[T]) -> Vec<T> {
    let mut made = with_room(from.len());
    made.extend_from_slice(from);
    made
}

/// `Vec::push`
#[inline]
pub fn push<T>(to: &mut Vec<T>, value: T) {
    room(to, 1);
    to.push(value);
}

/// `Vec::extend_from_slice`
#[inline]
pub fn append<T: Clone>(to: &mut Vec<T>, from: &[T]) {
    room(to, from.len());
    to.extend_from_slice(from);
}

/// `Vec::resize`
#[inline]
pub fn resize<T: Clone>(what: &mut Vec<T>, n: usize, value: T) {
    room(what, n.saturating_sub(what.len()));
    what.resize(n, value);
}

/// `Iterator::collect`
pub fn collected<T>(from: impl IntoIterator<Item = T>) -> Vec<T> {
    let from = from.into_iter();
    let mut made = with_room(from.size_hint().0);
    for value in from {
        push(&mut made, value);
    }
    made
}

/// `slices.concat()`
pub fn joined<T: Clone, S: AsRef<[T]>>(slices: &[S]) -> Vec<T> {
    let mut made = with_room(slices.iter().map(|slice| slice.as_ref().len()).sum());
    slices.iter().for_each(|slice| made.extend_from_slice(slice.as_ref()));
    made
}

/// `ParallelIterator::collect`
pub fn collected_in_parallel<T: Send>(from: impl IndexedParallelIterator<Item = T>) -> Vec<T> {
    let mut made = with_room(from.len());
    from.collect_into_vec(&mut made);
    made
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    #[test]
    fn what_is_made_is_what_std_makes() {
        assert_eq!(filled(7, 3), vec![7; 3]);
        assert_eq!(zeroed::<f64>(5), vec![0.0; 5]);
        assert_eq!(zeroed::<u8>(0), Vec::<u8>::new());
        assert_eq!(copied(&["a", "b"]), ["a", "b"]);
        assert_eq!(collected((0..9).filter(|i| i % 2 == 1)), [1, 3, 5, 7]);
        assert_eq!(joined(&[vec![1, 2], vec![], vec![3]]), [1, 2, 3]);
        assert_eq!(collected_in_parallel((0..100_usize).into_par_iter().map(|i| i * i))[99], 9801);
        let mut vector = vec![1];
        push(&mut vector, 2);
        append(&mut vector, &[3, 4]);
        resize(&mut vector, 6, 9);
        assert_eq!(vector, [1, 2, 3, 4, 9, 9]);
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_unwinding() {
        let too_much = [
            || drop(with_room::<u64>(usize::MAX / 16)),
            || drop(zeroed::<u64>(usize::MAX / 4)),
            || room(&mut HashSet::<u64>::new(), usize::MAX / 32),
            || room(&mut BinaryHeap::<u64>::new(), usize::MAX / 16),
            || drop(collected_in_parallel((0..usize::MAX / 16).into_par_iter())),
        ];
        for ask in too_much {
            assert!(std::panic::catch_unwind(ask).is_err());
            assert!(!is_asking());
        }
        let on_a_thread =
            std::panic::catch_unwind(|| (0..8).into_par_iter().for_each(|_| room(&mut vec![0_u8], usize::MAX / 3)));
        assert!(on_a_thread.is_err());
    }
}
