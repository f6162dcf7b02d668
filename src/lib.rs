//! `vector_ext`: vector types, distance operators and the `ivflsh` index for PostgreSQL.

::pgrx::pg_module_magic!(name, version);

mod filter;
mod index;
mod insight;
pub mod types;
mod vector_scan;

use pgrx::prelude::*;

/// Called when PostgreSQL loads the library.
#[allow(non_snake_case)]
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    index::options::register();
    index::projection::register();
    #[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
    filter::planner::register();
    index::limit::register();
    // Behind the hook of `filter`, whose paths it looks at.
    vector_scan::register();
}
