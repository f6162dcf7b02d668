//! `ivflsh_tune`: an index's stopping rule, measured by a user's own queries.

use crate::index::options;
use crate::index::page::{Meta, NO_TUNING, StoppingRule};
use crate::index::read::info::Info;
use crate::index::read::rows::Rows;
use crate::index::storage::pages;
use crate::pg::error::{Result, SqlError};
use crate::pg::identity::AsOwner;
use ivflsh::change::recalibrate;
use ivflsh::change::structure;
use ivflsh::nearest::FIRST_GOAL;
use pgrx::pg_sys;
use pgrx::prelude::*;

/// Times that the measurement begins again because lists have been replaced meanwhile.
const TRIES: usize = 10;

/// Refuses where an index may not be changed, and keeps others from tuning the same.
pub fn prepare(index: pg_sys::Relation) {
    // SAFETY: an open relation; checks, and a lock that goes with the transaction.
    unsafe {
        pg_sys::PreventCommandIfReadOnly(c"ivflsh_tune()".as_ptr());
        pg_sys::PreventCommandDuringRecovery(c"ivflsh_tune()".as_ptr());
        pg_sys::LockRelation(index, pg_sys::ShareUpdateExclusiveLock as i32);
    }
}

/// Measures the rule by `queries`. Returns how many lists a search for ten rows reads at the present target.
pub fn tune(heap: pg_sys::Relation, index: pg_sys::Relation, owner: &AsOwner, queries: &[f32]) -> Result<f64> {
    let rule = measure(heap, index, owner, queries)?;
    Ok(keep(index, |meta| meta.tune(&rule, (queries.len() / meta.dims as usize) as u32)))
}

/// Goes back to the rule as measured by rows; returns as [`tune`] does.
pub fn untune(index: pg_sys::Relation) -> Result<f64> {
    Ok(keep(index, |meta| (meta.tuning, meta.tuned_by) = (NO_TUNING, 0)))
}

fn keep(index: pg_sys::Relation, change: impl FnOnce(&mut Meta)) -> f64 {
    let meta = structure::update_meta(pages(index), change);
    // A transaction that changes no table would leave the record to be written to disk at some time.
    // SAFETY: sets a flag of the transaction.
    unsafe { pg_sys::ForceSyncCommit() };
    f64::from(meta.rule_at(options::target_recall(index)).probes(FIRST_GOAL as f64))
}

fn measure(heap: pg_sys::Relation, index: pg_sys::Relation, owner: &AsOwner, queries: &[f32]) -> Result<StoppingRule> {
    let mut info = Info::of(pages(index));
    for _ in 0..TRIES {
        let frame = info.frame(pages(index));
        let mut rows = Rows::of_build(index, heap, frame.operator, owner);
        match recalibrate::measure_by(pages(index), &info.meta, &frame, &mut rows, queries) {
            Ok(Some(rule)) => return Ok(rule),
            Ok(None) => {
                return Err(SqlError::new(
                    PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "the index has too few rows to be tuned by these queries",
                ));
            }
            Err(stale) => info = Info::after(pages(index), stale, info.meta.epoch),
        }
    }
    Err(SqlError::new(PgSqlErrorCode::ERRCODE_OBJECT_IN_USE, "the index is changing too fast to be tuned"))
}
