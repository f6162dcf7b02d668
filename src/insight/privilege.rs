//! Who may call the functions of this module. All look-ups are in the system caches and take no lock.

use crate::index::filter::keys;
use pgrx::prelude::*;

/// Whether the current user may read a table.
///
/// # Safety
/// The OID of a relation.
pub unsafe fn reads(table: pg_sys::Oid) -> bool {
    // SAFETY: by contract.
    unsafe {
        pg_sys::pg_class_aclcheck(table, pg_sys::GetUserId(), pg_sys::ACL_SELECT as _) == pg_sys::AclResult::ACLCHECK_OK
    }
}

/// Whether the current user owns a table.
///
/// # Safety
/// The OID of a relation.
pub unsafe fn owns(table: pg_sys::Oid) -> bool {
    // SAFETY: by contract.
    unsafe {
        let user = pg_sys::GetUserId();
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        return pg_sys::pg_class_ownercheck(table, user);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        return pg_sys::object_ownercheck(pg_sys::RelationRelationId, table, user);
    }
}

/// Whether the current user may VACUUM and REINDEX a table: as its owner or, from version 17 on, by the privilege MAINTAIN.
///
/// # Safety
/// The OID of a relation.
pub unsafe fn keeps(table: pg_sys::Oid) -> bool {
    // SAFETY: by contract.
    unsafe {
        let user = pg_sys::GetUserId();
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        return pg_sys::pg_class_ownercheck(table, user);
        #[cfg(feature = "pg16")]
        return pg_sys::object_ownercheck(pg_sys::RelationRelationId, table, user);
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        return pg_sys::object_ownercheck(pg_sys::RelationRelationId, table, user)
            || pg_sys::pg_class_aclcheck(table, user, pg_sys::ACL_MAINTAIN as _) == pg_sys::AclResult::ACLCHECK_OK;
    }
}

/// Whether EXECUTE on a function has been granted to the current user by name, or to a role whose privileges he has. What all
/// may do (PUBLIC) does not count.
///
/// # Safety
/// The OID of a function.
pub unsafe fn is_named(function: pg_sys::Oid) -> bool {
    // SAFETY: by contract; an ACL is an array of AclItem, which are passed by reference.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::PROCOID as i32, pg_sys::Datum::from(function));
        if tuple.is_null() {
            return false;
        }
        let mut null = true;
        let acl = pg_sys::SysCacheGetAttr(
            pg_sys::SysCacheIdentifier::PROCOID as i32,
            tuple,
            pg_sys::Anum_pg_proc_proacl as i16,
            &mut null,
        );
        let user = pg_sys::GetUserId();
        let named = !null
            && keys::elements(acl).into_iter().any(|item| {
                let item = &*item.cast_mut_ptr::<pg_sys::AclItem>();
                item.ai_grantee != pg_sys::InvalidOid // which stands for PUBLIC
                    && item.ai_privs & pg_sys::ACL_EXECUTE as pg_sys::AclMode != 0
                    && pg_sys::has_privs_of_role(user, item.ai_grantee)
            });
        pg_sys::ReleaseSysCache(tuple);
        named
    }
}

/// The access method of a relation, if there is one.
///
/// # Safety
/// May be called in a transaction.
pub unsafe fn access_method_of(relation: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a tuple of pg_class begins with its fixed part.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, pg_sys::Datum::from(relation));
        if tuple.is_null() {
            return None;
        }
        let class: *const pg_sys::FormData_pg_class = pg_sys::heap_tuple_get_struct(tuple);
        let found = (*class).relam;
        pg_sys::ReleaseSysCache(tuple);
        Some(found)
    }
}
