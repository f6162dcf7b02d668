//! Hooks of PostgreSQL, each of which somebody else may have had before.
//!
//! pgrx wraps PostgreSQL's functions, so that an ERROR of theirs comes back as an unwinding. What is called by a pointer (a
//! hook, a callback, a method of a slot or a table) it cannot wrap: an ERROR would jump over the frames of Rust code, and what
//! their values hold would stay locked, pinned and allocated. Every such call goes through [`pg_guard_ffi_boundary`], here and
//! elsewhere. It is given a call and nothing else: a value that is made inside would be jumped over.

use pgrx::pg_sys::submodules::ffi::pg_guard_ffi_boundary;
use std::sync::OnceLock;

/// What a hook held before this library took it.
pub struct Previous<F>(OnceLock<Option<F>>);

impl<F: Copy> Previous<F> {
    /// Not known yet.
    pub const fn new() -> Previous<F> {
        Previous(OnceLock::new())
    }

    /// Puts `ours` into `hook`.
    ///
    /// # Safety
    /// `hook` is one of PostgreSQL's; called by the backend's thread.
    pub unsafe fn take(&self, hook: *mut Option<F>, ours: F) {
        // SAFETY: by contract.
        unsafe {
            self.0.get_or_init(|| *hook);
            *hook = Some(ours);
        }
    }

    /// Calls who had the hook before; None if nobody had.
    ///
    /// # Safety
    /// `call` calls it and does nothing else.
    pub unsafe fn call<R: Copy>(&self, call: impl FnOnce(F) -> R) -> Option<R> {
        let previous = self.0.get().copied().flatten()?;
        // SAFETY: by contract.
        Some(unsafe { pg_guard_ffi_boundary(|| call(previous)) })
    }
}
