//! What an operator class means to the index ([`ivflsh::frame`]), as PostgreSQL's catalogs say it, and reading its values.

pub use ivflsh::frame::*;

use super::method;
use super::pgvector;
use crate::index::filter::keys::Kind;
use crate::types::bit::BitRef;
use crate::types::halfvec::HalfvecRef;
use crate::types::vector::VectorRef;
use bitvec::prelude::*;
use pgrx::prelude::*;

/// The ERROR for an index whose first column is of a type that only filter columns have, in the words that PostgreSQL has for a
/// type without an operator class: its classes are found because filter columns have them.
fn refuse_first_column(index: pg_sys::Relation) -> ! {
    // SAFETY: `index` is open; both names are strings of PostgreSQL's.
    let [type_name, method] = unsafe {
        let columns = pgrx::PgTupleDesc::from_pg_unchecked((*index).rd_att);
        let first = columns.get(0).map_or(pg_sys::InvalidOid, |column| column.atttypid);
        [pg_sys::format_type_be(first), pg_sys::get_am_name((*(*index).rd_rel).relam)]
            .map(|name| if name.is_null() { "?".into() } else { std::ffi::CStr::from_ptr(name).to_string_lossy() })
    };
    ereport!(
        ERROR,
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        format!("data type {type_name} has no default operator class for access method \"{method}\""),
        "The first column of such an index is a vector; filter columns come after it."
    );
}

/// What only an index with `partition = terms` can do.
const NO_LISTS_OF_SPARSEVEC: &str = "sparsevec cannot be indexed but WITH (partition = terms)";

/// Number of the support function that names the metric.
pub const SUPPORT_PROC: u16 = 1;

/// Operator classes as PostgreSQL has them.
pub trait OperatorClass: Sized {
    /// Asks the operator class of an index's first column; None if it is of no vectors that the engine knows.
    fn find(index: pg_sys::Relation) -> Option<Operator>;

    /// Asks the operator class of an index's first column.
    fn of_index(index: pg_sys::Relation) -> Operator;

    /// An ERROR if lists around centroids cannot be made of the element type.
    fn check_lists(self);

    /// Reads a row's or a query's value as f32 into `out` (cleared), any dimension.
    ///
    /// # Safety
    /// `datum` is a non-NULL value of the element type.
    unsafe fn read(self, datum: pg_sys::Datum, out: &mut Vec<f32>);
}

impl OperatorClass for Operator {
    fn find(index: pg_sys::Relation) -> Option<Operator> {
        // SAFETY: `index` is an open index of ours, whose operator classes have support function 1.
        unsafe {
            match method::meaning(index, 1) {
                Some(code) => Operator::from_code(code),
                None => pgvector::operator_of_family(*(*index).rd_opfamily, *(*index).rd_opcintype),
            }
        }
    }

    fn of_index(index: pg_sys::Relation) -> Operator {
        Operator::find(index).unwrap_or_else(|| {
            // SAFETY: as above.
            let code = unsafe { method::meaning(index, 1) }.unwrap_or(0);
            if code == 0 {
                pgvector::refuse_built(index);
                ereport!(
                    ERROR,
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    "this distance is not supported by the index yet",
                    "Queries by it are answered by sorting."
                );
            }
            if Kind::from_code(code).is_some() {
                refuse_first_column(index);
            }
            ereport!(ERROR, PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, format!("unknown ivflsh operator class {code}"));
        })
    }

    fn check_lists(self) {
        if self.element == Element::Sparsevec {
            ereport!(ERROR, PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, NO_LISTS_OF_SPARSEVEC);
        }
    }

    unsafe fn read(self, datum: pg_sys::Datum, out: &mut Vec<f32>) {
        out.clear();
        // SAFETY: by contract.
        unsafe {
            match self.element {
                Element::Vector => out.extend_from_slice(VectorRef::from_datum(datum).as_slice()),
                Element::Halfvec => {
                    let value = HalfvecRef::from_datum(datum);
                    let from = value.as_slice();
                    out.resize(from.len(), 0.0);
                    ann::distance::f16_to_f32_slice(from, out);
                }
                Element::Sparsevec => {
                    ereport!(ERROR, PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, NO_LISTS_OF_SPARSEVEC);
                }
                Element::Bit => {
                    let value = BitRef::from_datum(datum);
                    let bits = &BitSlice::<u8, Msb0>::from_slice(value.bytes())[..value.len()];
                    out.extend(bits.iter().by_vals().map(|bit| f32::from(u8::from(bit))));
                }
            }
        }
    }
}
