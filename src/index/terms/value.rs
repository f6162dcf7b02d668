//! What the index reads of a `sparsevec`.

use super::page::{Key, key_of};
use crate::types::sparsevec::SparsevecRef;
use ann::memory;
use pgrx::prelude::*;

/// The elements of a row or a query: their lists, in order, and how far they are from zero.
#[derive(Debug, Default)]
pub struct Value {
    pub dims: u32,
    pub entries: Vec<(Key, f32)>,
    /// Whether an element is below zero.
    pub negative: bool,
}

impl Value {
    /// Reads a value.
    ///
    /// # Safety
    /// `datum` is a `sparsevec` that is not NULL.
    pub unsafe fn read(datum: pg_sys::Datum) -> Value {
        // SAFETY: by contract.
        let value = unsafe { SparsevecRef::from_datum(datum) };
        let (indices, values) = (value.indices(), value.values());
        let in_order = indices.windows(2).all(|pair| pair[0] < pair[1])
            && indices.first().is_none_or(|&first| first >= 0)
            && indices.last().is_none_or(|&last| last < value.dims());
        if !in_order || !values.iter().all(|v| v.is_finite()) {
            ereport!(ERROR, PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "invalid sparsevec");
        }
        let mut entries = memory::with_room(indices.len());
        let elements = indices.iter().zip(values).filter(|(_, value)| **value != 0.0);
        entries.extend(elements.map(|(&index, &value)| (key_of(index, value < 0.0), value.abs())));
        Value { dims: value.dims() as u32, entries, negative: values.iter().any(|&value| value < 0.0) }
    }

    /// An ERROR if the others have other dimensions.
    pub fn check_dims(&self, dims: u32) {
        if self.dims != dims {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
                format!("expected {dims} dimensions, not {}", self.dims)
            );
        }
    }
}
