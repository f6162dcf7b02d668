//! `vector_ext`: vector types, distance operators and the `ivflsh` index for PostgreSQL.

// Not the macro's own `version`, which writes the version over the name (pgrx 0.18.1).
::pgrx::pg_module_magic!(name, version = VERSION);

/// The library's version, as `pg_get_loaded_modules` shows it from PostgreSQL 18 on.
const VERSION: &std::ffi::CStr =
    match std::ffi::CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version without NUL"),
    };

mod index;
mod insight;
mod pg;
mod planner;
mod rank;
pub mod types;
mod vector_scan;

use pgrx::prelude::*;

/// Called when PostgreSQL loads the library.
#[allow(non_snake_case)]
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    pg::memory::register();
    forgo_backtraces();
    index::options::register();
    planner::register();
    // Behind the hook of `planner`, whose paths it looks at.
    vector_scan::register();
}

/// pgrx adds a backtrace of the Rust stack to the DETAIL of every ERROR when RUST_BACKTRACE is set in the environment of the
/// server, of users' mistakes too. The standard library looks at the environment once, at the first panic or here.
fn forgo_backtraces() {
    const ASKED: &str = "RUST_LIB_BACKTRACE";
    let before = std::env::var_os(ASKED);
    // SAFETY: a backend (or the postmaster) has one thread here.
    unsafe { std::env::set_var(ASKED, "0") };
    let _ = std::hint::black_box(std::backtrace::Backtrace::capture());
    // SAFETY: as above. Other libraries find it as it was.
    unsafe {
        match before {
            Some(value) => std::env::set_var(ASKED, value),
            None => std::env::remove_var(ASKED),
        }
    }
}
