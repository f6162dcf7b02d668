//! What happens when the system has no memory left. No allocation may end the process: the server would end all sessions.
//!
//! 1. Allocations whose size follows from data are made by `ann::memory` and end the statement: SQLSTATE 53200.
//! 2. All others are small. When one fails, the allocator gives up the *ballast*, addresses that were kept for this, and the
//!    next check for interrupts ends the statement unless the ballast can be had again.
//! 3. What the ballast does not serve either ends this session alone (FATAL, also 53200).

use bitvec::vec::BitVec;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::time::Duration;

/// The C library's allocator, and what [`lacking`] makes of its failures.
struct Guarded;

#[cfg_attr(not(test), global_allocator)]
#[cfg_attr(test, allow(dead_code, reason = "unit tests run without a server, whose functions it calls"))]
static ALLOCATOR: Guarded = Guarded;

// SAFETY: the system's allocator, asked again when it fails. Nothing unwinds.
unsafe impl GlobalAlloc for Guarded {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract.
        let made = unsafe { System.alloc(layout) };
        if !made.is_null() { made } else { lacking(|| unsafe { System.alloc(layout) }) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract.
        let made = unsafe { System.alloc_zeroed(layout) };
        if !made.is_null() { made } else { lacking(|| unsafe { System.alloc_zeroed(layout) }) }
    }

    #[inline]
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(at, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's contract. A failed attempt leaves the old block as it is.
        let made = unsafe { System.realloc(at, layout, size) };
        if !made.is_null() { made } else { lacking(|| unsafe { System.realloc(at, layout, size) }) }
    }
}

/// Bytes of the ballast: more than all small allocations between two checks for interrupts.
const BALLAST: usize = 8 << 20;

static BALLAST_AT: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
/// The ballast has been given up.
static SPENT: AtomicBool = AtomicBool::new(false);
/// A thread other than the backend's could not go on.
static THREAD_LOST: AtomicBool = AtomicBool::new(false);
/// The session is being ended.
static ENDING: AtomicBool = AtomicBool::new(false);
/// The backend's thread.
static BACKEND: AtomicUsize = AtomicUsize::new(0);

/// To be called when the library is loaded.
pub fn register() {
    ann::memory::on_lack(refuse);
    // SAFETY: a number of the calling thread.
    BACKEND.store(unsafe { libc::pthread_self() } as usize, Ordering::Relaxed);
    // The handle that channels wake this thread by: std takes it from the system, past this allocator, and ends the process
    // where there is none. Those of other threads are made where there was just room for their stacks.
    let _ = std::thread::current();
    take_ballast();
}

/// The ERROR of a lack of memory, raised by unwinding, from any thread of ours.
fn refuse(bytes: usize) -> ! {
    let report = ErrorReport::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "out of memory", "")
        .set_detail(format!("Failed on request of size {bytes}."));
    std::panic::resume_unwind(Box::new(report))
}

/// Maps the ballast, which no page of memory stands behind.
fn take_ballast() -> bool {
    // SAFETY: a new mapping.
    let at = unsafe {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        libc::mmap(null_mut(), BALLAST, protection, flags, -1, 0)
    };
    if at == libc::MAP_FAILED {
        SPENT.store(true, Ordering::Relaxed);
        return false;
    }
    BALLAST_AT.store(at, Ordering::Relaxed);
    SPENT.store(false, Ordering::Relaxed);
    true
}

/// Makes a set of bits hold at least `n`; new ones are 0.
pub fn resize_bits(bits: &mut BitVec, n: usize) {
    let mut words = std::mem::take(bits).into_vec();
    ann::memory::resize(&mut words, n.div_ceil(usize::BITS as usize), 0);
    *bits = BitVec::from_vec(words);
}

/// Whether so many bytes could be had at once.
pub fn is_to_be_had(bytes: usize) -> bool {
    // SAFETY: a new mapping, which nobody uses before it is gone.
    unsafe {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let at = libc::mmap(null_mut(), bytes.max(1), protection, flags, -1, 0);
        at != libc::MAP_FAILED && libc::munmap(at, bytes.max(1)) == 0
    }
}

fn give_up_ballast() {
    let at = BALLAST_AT.swap(null_mut(), Ordering::Relaxed);
    if !at.is_null() {
        SPENT.store(true, Ordering::Relaxed);
        // SAFETY: mapped by `take_ballast`; nobody has ever used it.
        unsafe { libc::munmap(at, BALLAST) };
    }
}

/// A failed allocation: what `again` answers when the ballast has been given up; null for who is told by that.
#[cold]
#[inline(never)]
fn lacking(again: impl Fn() -> *mut u8) -> *mut u8 {
    if ann::memory::is_asking() {
        return null_mut();
    }
    give_up_ballast();
    let made = again();
    if !made.is_null() {
        return made;
    }
    end_session()
}

/// Answers interrupts; ends the statement if memory is so scarce that the ballast had to be given up. Threads other than the
/// backend's leave the interrupts to it: it waits for them, and tells them when they have to end.
#[inline]
pub fn check_for_interrupts() {
    if SPENT.load(Ordering::Relaxed) {
        go_on_if_possible();
    }
    // SAFETY: a flag, which a signal handler sets.
    if unsafe { (&raw const pg_sys::InterruptPending).read_volatile() } != 0 && is_backend() {
        pgrx::check_for_interrupts!();
    }
}

/// Whether this is the backend's thread.
#[cold]
fn is_backend() -> bool {
    // SAFETY: a number of the calling thread.
    BACKEND.load(Ordering::Relaxed) == unsafe { libc::pthread_self() } as usize
}

#[cold]
fn go_on_if_possible() {
    if THREAD_LOST.load(Ordering::Relaxed) {
        end_session();
    }
    if !take_ballast() {
        refuse(BALLAST);
    }
}

/// Ends the session, without a return and without unwinding. A thread that is not the backend's stops here, and the
/// backend, which waits for it or comes to that, ends the session.
fn end_session() -> ! {
    unsafe extern "C-unwind" {
        fn errstart(level: c_int, domain: *const c_char) -> bool;
        fn errcode(code: c_int) -> c_int;
        fn errmsg_internal(format: *const c_char, ...) -> c_int;
        fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
    }
    if !is_backend() {
        THREAD_LOST.store(true, Ordering::Relaxed);
        SPENT.store(true, Ordering::Relaxed);
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
    if !ENDING.swap(true, Ordering::Relaxed) {
        // SAFETY: the backend's thread. With this level PostgreSQL ends the process in an orderly way from where it is: it
        // gives locks and buffers back, and does not return.
        unsafe {
            if errstart(PgLogLevel::FATAL as c_int, std::ptr::null()) {
                errcode(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY as c_int);
                errmsg_internal(c"terminating connection because there is no memory left".as_ptr());
                errfinish(c"memory.rs".as_ptr(), line!() as c_int, c"end_session".as_ptr());
            }
        }
    }
    std::process::abort()
}
