//! `WITH (partition = terms)`: an exact inverted index over the elements of `sparsevec`s. How it works, what is on its pages and why
//! it is safe is in README.md beside this file.
//!
//! * [`page`], [`segment`]: the page layouts; entries packed.
//! * [`tree`]: reading and changing the tree. [`pending`]: rows that are not in it yet. [`value`]: what is read of a value.
//! * [`build`], [`insert`], [`search`] (with [`scan`]), [`vacuum`], [`cost`]: the callbacks. [`check`]: `ivflsh_check`.

pub mod build;
pub mod check;
pub mod cost;
pub mod insert;
pub mod page;
pub mod pending;
pub mod scan;
pub mod search;
pub mod segment;
pub mod tree;
pub mod vacuum;
pub mod value;

use super::method::{self, Method};
use super::metric::{Element, Metric, Operator};
use super::page::{self as pages, Kind, META_BLOCK};
use super::storage::Buffer;
use pgrx::prelude::*;

/// Whether an open index of ours is of an operator class that can be indexed so.
pub fn is_class(index: pg_sys::Relation) -> bool {
    // SAFETY: callers have an index of ours open.
    let is_ivflsh = unsafe { Method::of(index) } == Method::Ivflsh;
    let class = Operator { element: Element::Sparsevec, metric: Metric::InnerProduct };
    // SAFETY: as above.
    is_ivflsh && unsafe { method::meaning(index, 1) } == Some(class.code())
}

/// Whether an open index of ours that has been built is one of terms. Its first page says so: options can be altered.
pub fn is_of(index: pg_sys::Relation) -> bool {
    is_class(index) && pages::check(Buffer::read(index, META_BLOCK).page(), Kind::TermMeta).is_ok()
}

/// The same of an index that the planner looks at.
///
/// # Safety
/// An index of ours that has been built.
pub unsafe fn is_of_plan(index: &pg_sys::IndexOptInfo) -> bool {
    // SAFETY: by contract; the planner has it locked.
    unsafe {
        let index = pg_sys::index_open(index.indexoid, pg_sys::NoLock as i32);
        let is_of = is_of(index);
        pg_sys::index_close(index, pg_sys::NoLock as i32);
        is_of
    }
}
