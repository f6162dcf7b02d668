//! Which indexes are of this library's access methods: `ivflsh`, and those that an extension names otherwise.
//!
//! An access method is known by the callbacks that its handler gave, not by its name or OID. So several of them may be in
//! a database, made by several extensions, dropped and made again, and nothing has to be looked up or invalidated.

use super::cost;
use super::metric::SUPPORT_PROC;
use super::options;
use pgrx::prelude::*;

/// Address of the callback that all our access methods have, and no other one.
fn mark() -> usize {
    cost::amcostestimate as *const () as usize
}

/// Whether an open index is of one of our access methods.
///
/// # Safety
/// An open relation.
pub unsafe fn is_ours(index: pg_sys::Relation) -> bool {
    // SAFETY: by contract; only an index has callbacks.
    unsafe {
        (*index)
            .rd_indam
            .as_ref()
            .and_then(|callbacks| callbacks.amcostestimate)
            .is_some_and(|callback| callback as *const () as usize == mark())
    }
}

/// Whether an access method is one of ours, where no index of it is open: its handler is asked.
pub fn is_ours_by_oid(method: pg_sys::Oid) -> bool {
    // SAFETY: a look-up that returns NULL where there is no such method of indexes, else a node with the handler's answer.
    unsafe {
        let callbacks = pg_sys::GetIndexAmRoutineByAmId(method, true).as_ref();
        callbacks.and_then(|c| c.amcostestimate).is_some_and(|callback| callback as *const () as usize == mark())
    }
}

/// Whether an index that the planner looks at is of one of our access methods.
///
/// # Safety
/// A node of the planner.
pub unsafe fn is_ours_to_plan(index: *const pg_sys::IndexOptInfo) -> bool {
    // SAFETY: by contract.
    unsafe { (*index).amcostestimate.is_some_and(|callback| callback as *const () as usize == mark()) }
}

/// One of our access methods.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    Ivflsh,
    /// With pgvector's options and settings.
    Hnsw,
    Ivfflat,
}

impl Method {
    /// The access method of an open index.
    ///
    /// # Safety
    /// An open index of one of our access methods.
    pub unsafe fn of(index: pg_sys::Relation) -> Method {
        // SAFETY: by contract.
        let options = unsafe { (*(*index).rd_indam).amoptions.map_or(0, |callback| callback as *const () as usize) };
        if options == options::amoptions_of_hnsw as *const () as usize {
            Method::Hnsw
        } else if options == options::amoptions_of_ivfflat as *const () as usize {
            Method::Ivfflat
        } else {
            Method::Ivflsh
        }
    }

    /// As users know it.
    pub fn name(self) -> &'static str {
        match self {
            Method::Ivflsh => "ivflsh",
            Method::Hnsw => "hnsw",
            Method::Ivfflat => "ivfflat",
        }
    }
}

/// The meaning of the operator class of a column of an open index (1 is the first), which its support function returns. None
/// for a class that is declared as pgvector declares it.
///
/// # Safety
/// An open index of one of our access methods.
pub unsafe fn meaning(index: pg_sys::Relation, column: i16) -> Option<u32> {
    // SAFETY: by contract; a support function that takes no argument is one of ours.
    unsafe {
        if !names_meaning(index, column) {
            return None;
        }
        let function = pg_sys::index_getprocinfo(index, column, SUPPORT_PROC);
        Some(pg_sys::FunctionCall0Coll(function, pg_sys::InvalidOid).value() as u32)
    }
}

/// Whether the support function of a column's class is one that takes no argument and returns its meaning.
///
/// # Safety
/// An open index of one of our access methods.
pub unsafe fn names_meaning(index: pg_sys::Relation, column: i16) -> bool {
    // SAFETY: by contract.
    unsafe { (*pg_sys::index_getprocinfo(index, column, SUPPORT_PROC)).fn_nargs == 0 }
}
