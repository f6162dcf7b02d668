//! Vectors that a user gives as queries: an array, or the text of a query that returns them.

use crate::index::metric::Operator;
use crate::index::metric::OperatorClass as _;
use crate::index::read::info::Info;
use crate::index::storage::pages;
use crate::pg::array::ArrayRef;
use crate::pg::error::{Result, SqlError};
use crate::pg::function::FromArg;
use crate::pg::varlena::{Detoasted, LENGTH_WORD};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::{CStr, CString};

/// Queries at most.
pub const MOST: usize = 10_000;

/// A `text` argument.
pub struct TextRef<'a>(Detoasted<'a>);

impl<'a> FromArg<'a> for TextRef<'a> {
    unsafe fn from_arg(datum: pg_sys::Datum) -> Result<Self> {
        // SAFETY: a non-null text.
        Ok(TextRef(unsafe { Detoasted::new(datum) }))
    }
}

impl TextRef<'_> {
    /// Text holds no byte of zero.
    pub fn c_string(&self) -> Result<CString> {
        let bytes = &self.0.bytes()[LENGTH_WORD..];
        CString::new(bytes).map_err(|_| SqlError::corrupted("text"))
    }
}

/// What vectors have to be like to be queries of an index.
pub struct Wanted {
    operator: Operator,
    dims: usize,
    /// The indexed column's.
    vector_type: pg_sys::Oid,
}

impl Wanted {
    pub fn of(index: pg_sys::Relation) -> Wanted {
        // SAFETY: an open index has a first column, and so a type of it.
        let vector_type = unsafe {
            let attributes = pgrx::PgTupleDesc::from_pg_unchecked((*index).rd_att);
            attributes.get(0).expect("a column").atttypid
        };
        Wanted { operator: Operator::of_index(index), dims: Info::of(pages(index)).meta.dims as usize, vector_type }
    }

    /// Refuses values of another type than the indexed column's.
    fn check_type(&self, given: pg_sys::Oid) -> Result<()> {
        if given == self.vector_type {
            return Ok(());
        }
        // SAFETY: OIDs of types; a C string in the current memory context.
        let name = |oid| unsafe { CStr::from_ptr(pg_sys::format_type_be(oid)).to_string_lossy().into_owned() };
        Err(SqlError::new(
            PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            format!("queries must be of the indexed type, {}, not {}", name(self.vector_type), name(given)),
        ))
    }

    /// Adds a value, NULL or of the indexed type, to the vectors `all`.
    fn add(&self, value: Option<pg_sys::Datum>, all: &mut Vec<f32>) -> Result<()> {
        let Some(value) = value else {
            return Err(SqlError::new(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "queries must not be NULL"));
        };
        let mut vector = Vec::new();
        // SAFETY: of the type that the operator class is for.
        unsafe { self.operator.read(value, &mut vector) };
        if vector.len() != self.dims {
            return Err(SqlError::data(format!(
                "different {} {} and {}",
                self.operator.element.lengths(),
                vector.len(),
                self.dims
            )));
        }
        all.append(&mut vector);
        Ok(())
    }

    fn check_count(count: usize) -> Result<()> {
        match count {
            0 => Err(SqlError::parameter("there are no queries")),
            1..=MOST => Ok(()),
            _ => Err(SqlError::limit(format!("cannot measure by more than {MOST} queries"))),
        }
    }

    /// The vectors of an array.
    pub fn of_array(&self, array: &ArrayRef) -> Result<Vec<f32>> {
        self.check_type(array.element_type())?;
        Wanted::check_count(array.count())?;
        let mut all = Vec::new();
        array.varlenas().into_iter().try_for_each(|value| self.add(value, &mut all))?;
        Ok(all)
    }

    /// The vectors that a query returns as its only column. It runs with the rights of whoever calls the function, and may change
    /// nothing.
    pub fn of_select(&self, text: &CStr) -> Result<Vec<f32>> {
        let mut all = Vec::new();
        // SAFETY: SPI is connected here and finished below, or by the transaction's abort after an ERROR. Its result is read
        // before that, within the bounds that it names.
        unsafe {
            pg_sys::SPI_connect();
            let read_only = true;
            let outcome = pg_sys::SPI_execute(text.as_ptr(), read_only, MOST as std::ffi::c_long + 1);
            let table = pg_sys::SPI_tuptable;
            let collected =
                if outcome != pg_sys::SPI_OK_SELECT as i32 || table.is_null() || (*(*table).tupdesc).natts != 1 {
                    Err(SqlError::parameter("queries must be an array of vectors, or a query with one column of them"))
                } else {
                    let (rows, description) = (pg_sys::SPI_processed as usize, (*table).tupdesc);
                    self.check_type(pg_sys::SPI_gettypeid(description, 1))
                        .and_then(|()| Wanted::check_count(rows))
                        .and_then(|()| {
                            (0..rows).try_for_each(|i| {
                                let mut null = false;
                                let value = pg_sys::SPI_getbinval(*(*table).vals.add(i), description, 1, &mut null);
                                self.add((!null).then_some(value), &mut all)
                            })
                        })
                };
            pg_sys::SPI_finish();
            collected?;
        }
        Ok(all)
    }
}
