//! Under whose identity functions of users run, where our code has them run.
//!
//! SECURITY.md lists all these places. The rule: whoever wrote a function may be anybody, and so may who calls us. So an
//! index's expressions and its predicate are evaluated as PostgreSQL's maintenance commands do it, as the owner of the table
//! and with none of the caller's settings, or not at all.

use pgrx::prelude::*;

/// Settings that change what the text of a statement means or what functions return, with PostgreSQL's defaults: the owner's
/// functions were not written for the caller's. The first one is what `RestrictSearchPath` of PostgreSQL 17 sets.
const SETTINGS: [(&std::ffi::CStr, &std::ffi::CStr); 12] = [
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"row_security", c"on"),
    (c"standard_conforming_strings", c"on"),
    (c"backslash_quote", c"safe_encoding"),
    (c"transform_null_equals", c"off"),
    (c"array_nulls", c"on"),
    (c"check_function_bodies", c"on"),
    (c"DateStyle", c"ISO, MDY"),
    (c"IntervalStyle", c"postgres"),
    (c"extra_float_digits", c"1"),
    (c"bytea_output", c"hex"),
    (c"quote_all_identifiers", c"off"),
];

/// Proof that code runs as the owner of the table that is worked on, in a security-restricted operation.
pub trait Owner {}

/// Such proof: PostgreSQL has switched to the owner, by itself.
pub struct Build(());

impl Build {
    /// For `ambuild`.
    ///
    /// # Safety
    /// To be called by `ambuild` only: `index_build` has switched to the owner, and from version 17 on has restricted the search
    /// path, for the scan of the table that evaluates the index's expressions there.
    pub unsafe fn by_index_build() -> Build {
        Build(())
    }
}

impl Owner for Build {}
impl Owner for AsOwner {}

/// While it lives, code runs as the owner of a table, in a security-restricted operation (no other role can be assumed, nothing
/// be left behind in the session), and with a safe search path on every version of PostgreSQL. Undone when dropped; after an
/// ERROR, by the transaction's abort.
pub struct AsOwner {
    user: pg_sys::Oid,
    context: i32,
    settings: i32,
}

impl AsOwner {
    /// From now on, for the owner of the open table `heap`.
    pub fn of(heap: pg_sys::Relation) -> AsOwner {
        let mut saved = AsOwner { user: pg_sys::InvalidOid, context: 0, settings: 0 };
        // SAFETY: `heap` is open; what is changed here is restored by Drop.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut saved.user, &mut saved.context);
            let restricted = saved.context | pg_sys::SECURITY_RESTRICTED_OPERATION as i32;
            pg_sys::SetUserIdAndSecContext((*(*heap).rd_rel).relowner, restricted);
            saved.settings = pg_sys::NewGUCNestLevel();
            for (name, value) in SETTINGS {
                pg_sys::set_config_option(
                    name.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0, // an ERROR if it cannot be set
                    false,
                );
            }
        }
        saved
    }
}

impl Drop for AsOwner {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: as saved by `of`.
            unsafe {
                pg_sys::AtEOXact_GUC(false, self.settings);
                pg_sys::SetUserIdAndSecContext(self.user, self.context);
            }
        }
    }
}
