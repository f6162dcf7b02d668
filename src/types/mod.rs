//! SQL types: `vector`, `halfvec`, `sparsevec`, and the distances on `bit`.
//!
//! * [`vector`], [`halfvec`], [`sparsevec`], [`bit`]: one file a type, its SQL-callable functions.
//! * [`dense`]: what `vector` and `halfvec` share, generic over the element.
//!
//! What they are made of (arguments, errors, text and binary representation) is in [`crate::pg`].
//!
//! The SQL side is hand-written in `sql/types`.

pub mod bit;
mod compare;
pub mod dense;
pub mod halfvec;
pub mod sparsevec;
pub mod vector;

::pgrx::extension_sql_file!("../../sql/types/vector.sql", name = "vector");
::pgrx::extension_sql_file!("../../sql/types/halfvec.sql", name = "halfvec", requires = ["vector"]);
::pgrx::extension_sql_file!("../../sql/types/sparsevec.sql", name = "sparsevec", requires = ["halfvec"]);
::pgrx::extension_sql_file!("../../sql/types/bit.sql", name = "bit", requires = ["sparsevec"]);
// The last one: whatever needs the types requires "types".
::pgrx::extension_sql_file!("../../sql/types/casts.sql", name = "types", requires = ["bit"]);
