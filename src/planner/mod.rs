//! Hooks of the planner and the executor around plain index scans.
//!
//! * [`filter_paths`]: conditions that PostgreSQL's planner does not offer to an index by itself (before version 17).
//! * [`limit`]: the LIMIT of a query reaches the scan.
//! * [`projection`]: plans without the distances that nobody sees.
//!
//! The vector scan has its own in [`crate::vector_scan`].

#[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
pub mod filter_paths;
pub mod limit;
pub mod projection;

/// Sets the hooks. Called once, when PostgreSQL loads the library.
pub fn register() {
    projection::register();
    #[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
    filter_paths::register();
    limit::register();
}
