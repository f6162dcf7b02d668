//! PostgreSQL's plumbing: what knows neither vectors nor the pages of the index.
//!
//! * [`function`], [`error`]: the calling convention of SQL functions, and errors as values.
//! * [`varlena`], [`array`], [`text`], [`wire`]: values of variable length, arrays, text and binary representation.
//! * [`memory`]: what happens when there is none left; interrupts. [`threads`]: threads beside the backend's own.
//! * [`identity`]: as whom functions of users run. [`hook`]: the hooks of the planner and the executor.
//! * [`compat`]: what differs between PostgreSQL's versions.

pub mod array;
pub mod compat;
pub mod error;
pub mod function;
pub mod hook;
pub mod identity;
pub mod memory;
pub mod text;
pub mod threads;
pub mod varlena;
pub mod wire;
