//! `vector_ext`: vector types, distance operators and the `ivflsh` index for PostgreSQL.

::pgrx::pg_module_magic!(name, version);

pub mod index;
pub mod types;
