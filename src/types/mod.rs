//! SQL types: `vector`, `halfvec`, `sparsevec`, and the distances on `bit`.
//!
//! * [`vector`], [`halfvec`], [`sparsevec`], [`bit`]: one file a type, its SQL-callable functions.
//! * [`dense`]: what `vector` and `halfvec` share, generic over the element.
//! * [`text`], [`wire`], [`array`]: text, binary and array representations.
//! * [`varlena`]: borrowed and newly built variable-length values.
//! * [`function`], [`error`]: calling convention and errors.
//!
//! The SQL side is hand-written in `sql/types`.

pub mod array;
pub mod bit;
mod compare;
pub mod dense;
pub mod error;
pub mod function;
pub mod halfvec;
pub mod sparsevec;
pub mod text;
pub mod varlena;
pub mod vector;
pub mod wire;

::pgrx::extension_sql_file!("../../sql/types/vector.sql", name = "vector");
::pgrx::extension_sql_file!("../../sql/types/halfvec.sql", name = "halfvec", requires = ["vector"]);
::pgrx::extension_sql_file!("../../sql/types/sparsevec.sql", name = "sparsevec", requires = ["halfvec"]);
::pgrx::extension_sql_file!("../../sql/types/bit.sql", name = "bit", requires = ["sparsevec"]);
// The last one: whatever needs the types requires "types".
::pgrx::extension_sql_file!("../../sql/types/casts.sql", name = "types", requires = ["bit"]);
