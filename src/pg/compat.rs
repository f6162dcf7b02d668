//! What differs between PostgreSQL 14 and 18.

use pgrx::prelude::*;

/// Counts a search in the statistics views and, from PostgreSQL 18 on, for EXPLAIN's "Index Searches".
///
/// # Safety
/// `scan` is an open index scan.
pub unsafe fn count_index_scan(scan: pg_sys::IndexScanDesc) {
    // SAFETY: by contract; the same steps as PostgreSQL's macro pgstat_count_index_scan.
    unsafe {
        let index = (*scan).indexRelation;
        #[cfg(feature = "pg18")]
        if let Some(instrument) = (*scan).instrument.as_mut() {
            instrument.nsearches += 1;
        }
        #[cfg(not(feature = "pg14"))]
        if (*index).pgstat_info.is_null() && (*index).pgstat_enabled {
            pg_sys::pgstat_assoc_relation(index);
        }
        if let Some(info) = (*index).pgstat_info.as_mut() {
            #[cfg(any(feature = "pg14", feature = "pg15"))]
            {
                info.t_counts.t_numscans += 1;
            }
            #[cfg(not(any(feature = "pg14", feature = "pg15")))]
            {
                info.counts.numscans += 1;
            }
        }
    }
}

/// Counts entries that an index scan has returned, in the statistics views (PostgreSQL's macro pgstat_count_index_tuples).
/// [`count_index_scan`] comes first.
///
/// # Safety
/// `index` is an open index.
pub unsafe fn count_index_tuples(index: pg_sys::Relation, n: u64) {
    // SAFETY: by contract.
    unsafe {
        if let Some(info) = (*index).pgstat_info.as_mut() {
            #[cfg(any(feature = "pg14", feature = "pg15"))]
            {
                info.t_counts.t_tuples_returned += n as i64;
            }
            #[cfg(not(any(feature = "pg14", feature = "pg15")))]
            {
                info.counts.tuples_returned += n as i64;
            }
        }
    }
}

/// Whether a sort key is ascending.
///
/// # Safety
/// `pathkey` is a valid PathKey.
pub unsafe fn is_ascending(pathkey: *const pg_sys::PathKey) -> bool {
    // SAFETY: by contract.
    unsafe {
        #[cfg(feature = "pg18")]
        return (*pathkey).pk_cmptype == pg_sys::CompareType::COMPARE_LT;
        #[cfg(not(feature = "pg18"))]
        return (*pathkey).pk_strategy == pg_sys::BTLessStrategyNumber as i32;
    }
}

/// Sleeps as the vacuum cost settings ask for, and answers interrupts.
pub fn vacuum_delay() {
    // SAFETY: may be called at any time outside critical sections and locks.
    unsafe {
        #[cfg(feature = "pg18")]
        pg_sys::vacuum_delay_point(false);
        #[cfg(not(feature = "pg18"))]
        pg_sys::vacuum_delay_point();
    }
}

/// Takes a tuple lock if that needs no waiting.
///
/// # Safety
/// `rel` is an open relation, and no buffer is locked.
pub unsafe fn conditional_lock_tuple(
    rel: pg_sys::Relation,
    tid: *mut pg_sys::ItemPointerData,
    mode: pg_sys::LOCKMODE,
) -> bool {
    // SAFETY: by contract.
    unsafe {
        #[cfg(feature = "pg18")]
        return pg_sys::ConditionalLockTuple(rel, tid, mode, false);
        #[cfg(not(feature = "pg18"))]
        return pg_sys::ConditionalLockTuple(rel, tid, mode);
    }
}

/// Whether this backend holds a tuple lock.
///
/// # Safety
/// `rel` is an open relation.
pub unsafe fn holds_tuple_lock(rel: pg_sys::Relation, tid: &pg_sys::ItemPointerData, mode: pg_sys::LOCKMODE) -> bool {
    // SAFETY: by contract; as PostgreSQL's macro SET_LOCKTAG_TUPLE.
    unsafe {
        let of = (*rel).rd_lockInfo.lockRelId;
        let tag = pg_sys::LOCKTAG {
            locktag_field1: of.dbId.to_u32(),
            locktag_field2: of.relId.to_u32(),
            locktag_field3: u32::from(tid.ip_blkid.bi_hi) << 16 | u32::from(tid.ip_blkid.bi_lo),
            locktag_field4: tid.ip_posid,
            locktag_type: pg_sys::LockTagType::LOCKTAG_TUPLE as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        };
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        return pg_sys::LockHeldByMe(&tag, mode, false);
        #[cfg(not(any(feature = "pg17", feature = "pg18")))]
        return pg_sys::LockHeldByMe(&tag, mode);
    }
}

/// Whether changes of `rel` are WAL-logged (PostgreSQL's macro RelationNeedsWAL).
///
/// # Safety
/// `rel` is an open relation.
pub unsafe fn needs_wal(rel: pg_sys::Relation) -> bool {
    // SAFETY: by contract.
    unsafe {
        let permanent = (*(*rel).rd_rel).relpersistence == pg_sys::RELPERSISTENCE_PERMANENT as std::ffi::c_char;
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let new_file = (*rel).rd_firstRelfilenodeSubid;
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let new_file = (*rel).rd_firstRelfilelocatorSubid;
        permanent
            && (pg_sys::wal_level >= pg_sys::WalLevel::WAL_LEVEL_REPLICA as i32
                || ((*rel).rd_createSubid == INVALID_SUB && new_file == INVALID_SUB))
    }
}

/// No subtransaction.
const INVALID_SUB: pg_sys::SubTransactionId = 0;

/// Starts a sort by the first column (int4) of `desc`, in `memory` kB.
///
/// # Safety
/// `desc` is a tuple descriptor whose first column is int4.
pub unsafe fn sort_by_int4(desc: pg_sys::TupleDesc, memory: i32) -> *mut pg_sys::Tuplesortstate {
    // SAFETY: by contract.
    unsafe { sort_by_first(desc, pg_sys::Int4LessOperator, memory) }
}

/// As [`sort_by_int4`], by a first column of int8.
///
/// # Safety
/// `desc` is a tuple descriptor whose first column is int8.
pub unsafe fn sort_by_int8(desc: pg_sys::TupleDesc, memory: i32) -> *mut pg_sys::Tuplesortstate {
    // SAFETY: by contract.
    unsafe { sort_by_first(desc, pg_sys::Int8LessOperator, memory) }
}

/// # Safety
/// `desc` is a tuple descriptor whose first column is of the type that operator `less` compares.
unsafe fn sort_by_first(desc: pg_sys::TupleDesc, less: u32, memory: i32) -> *mut pg_sys::Tuplesortstate {
    let mut column: pg_sys::AttrNumber = 1;
    let mut operator = pg_sys::Oid::from(less);
    let mut collation = pg_sys::InvalidOid;
    let mut nulls_first = false;
    #[cfg(feature = "pg14")]
    let options = false;
    #[cfg(not(feature = "pg14"))]
    let options = pg_sys::TUPLESORT_NONE as i32;
    // SAFETY: by contract; the arrays have one element.
    unsafe {
        pg_sys::tuplesort_begin_heap(
            desc,
            1,
            &mut column,
            &mut operator,
            &mut collation,
            &mut nulls_first,
            memory,
            std::ptr::null_mut(),
            options,
        )
    }
}
