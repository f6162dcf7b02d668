//! The filter columns of an index, and the keys of its rows.

use super::keys::{Column, Kind};
use crate::index::method;
use crate::index::page::{Damage, MAX_FILTERS, META_BLOCK, Meta};
use crate::index::storage::corrupted;
use ann::filter::RowKeys;
use pgrx::prelude::*;

/// The filter columns of an index, in the order of the index.
#[derive(Clone)]
pub struct Columns(Vec<Column>);

impl Columns {
    /// Asks the operator classes of an open index.
    pub fn of_index(index: pg_sys::Relation) -> Columns {
        // SAFETY: an open index has a descriptor, and arrays with an element for each key column.
        let columns = unsafe {
            let attributes = pgrx::PgTupleDesc::from_pg_unchecked((*index).rd_att);
            let n = attributes.len();
            if n - 1 > MAX_FILTERS {
                ereport!(
                    ERROR,
                    PgSqlErrorCode::ERRCODE_TOO_MANY_COLUMNS,
                    format!("cannot use more than {MAX_FILTERS} filter columns in an ivflsh index")
                );
            }
            (1..n)
                .map(|i| {
                    let meaning = method::meaning(index, i as i16 + 1);
                    let kind = meaning.and_then(Kind::from_code).unwrap_or_else(|| not_a_filter(i));
                    let attribute = attributes.get(i).expect("a column of the index");
                    Column::new(kind, attribute.atttypid, *(*index).rd_indcollation.add(i))
                })
                .collect()
        };
        Columns(columns)
    }

    /// [`Columns::of_index`] of an index whose meta page has been read, which must say the same.
    pub fn of_meta(index: pg_sys::Relation, meta: &Meta) -> Columns {
        let columns = Columns::of_index(index);
        if meta.kinds[..meta.filters as usize] != columns.stored() {
            corrupted(index, META_BLOCK, Damage::Bounds);
        }
        columns
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The filter column of an index column (1 is the vector); None for the vector.
    pub fn get(&self, attribute: i16) -> Option<&Column> {
        self.0.get((attribute as usize).checked_sub(2)?)
    }

    /// As the meta page keeps them.
    pub fn stored(&self) -> Vec<u8> {
        self.0.iter().map(|c| c.kind as u8).collect()
    }

    /// The keys of a row, given all its index columns.
    ///
    /// # Safety
    /// `values` and `nulls` are those of a row of the index.
    pub unsafe fn read(&self, values: *const pg_sys::Datum, nulls: *const bool, row: &mut RowKeys) {
        for (i, column) in self.0.iter().enumerate() {
            // SAFETY: by contract; the vector comes first.
            let key = unsafe { (!*nulls.add(i + 1)).then(|| column.key(*values.add(i + 1))) };
            row.set(i, key);
        }
    }
}

/// Refuses an operator class of vectors behind the first column.
fn not_a_filter(column: usize) -> ! {
    pgrx::pg_sys::panic::ErrorReport::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("column {} of an ivflsh index cannot be a vector", column + 1),
        pgrx::function_name!(),
    )
    .set_detail("The first column is the vector that is searched for, the others are filter columns.")
    .set_hint("Create one index for each vector column.")
    .report(PgLogLevel::ERROR);
    unreachable!()
}
