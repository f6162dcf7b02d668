//! PostgreSQL arrays: read in place, built directly.

use super::error::{Result, SqlError};
use super::function::FromArg;
use super::varlena::{Detoasted, NewVarlena, Plain};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, Oid};

// Offsets in `ArrayType`; behind it come one length and one lower bound per dimension, then the elements.
const NDIM: usize = 4;
const DATA_OFFSET: usize = 8;
const ELEMENT_TYPE: usize = 12;
const DIMENSIONS: usize = 16;
/// Where the elements of a one-dimensional array without nulls begin.
const DATA_1D: usize = 24;

/// A borrowed array.
pub struct ArrayRef<'a> {
    raw: Detoasted<'a>,
    ndim: i32,
    data_offset: i32,
    element_type: Oid,
    len: usize,
}

impl<'a> FromArg<'a> for ArrayRef<'a> {
    unsafe fn from_arg(datum: Datum) -> Result<Self> {
        // SAFETY: a non-null array argument.
        let raw = unsafe { Detoasted::new(datum) };
        let corrupted = || SqlError::corrupted("array");
        let field = |at| raw.scalar::<i32>(at).ok_or_else(corrupted);
        let (ndim, data_offset, element_type) = (field(NDIM)?, field(DATA_OFFSET)?, field(ELEMENT_TYPE)?);
        let dimensions = raw.array::<i32>(DIMENSIONS, usize::try_from(ndim).map_err(|_| corrupted())?);
        let len = match dimensions.ok_or_else(corrupted)? {
            [] => Some(0),
            dimensions => dimensions.iter().try_fold(1usize, |len, &dim| len.checked_mul(usize::try_from(dim).ok()?)),
        };
        let (len, element_type) = (len.ok_or_else(corrupted)?, Oid::from(element_type as u32));
        Ok(ArrayRef { raw, ndim, data_offset, element_type, len })
    }
}

impl ArrayRef<'_> {
    /// Number of elements.
    pub fn count(&self) -> usize {
        self.len
    }

    pub fn element_type(&self) -> Oid {
        self.element_type
    }

    fn start(&self) -> usize {
        match self.data_offset {
            // MAXALIGN of the header.
            0 => (DIMENSIONS + 8 * self.ndim as usize).next_multiple_of(8),
            offset => offset as usize,
        }
    }

    /// All elements of an array whose elements are plain numbers and not NULL.
    pub fn plain<T: Plain>(&self) -> Result<&[T]> {
        self.raw.array::<T>(self.start(), self.len).ok_or_else(|| SqlError::corrupted("array"))
    }

    /// The array that a cast to a vector type accepts: at most one dimension, no NULL elements.
    pub fn check_castable(&self) -> Result<()> {
        if self.ndim > 1 {
            return Err(SqlError::data("array must be 1-D"));
        }
        // SAFETY: a valid array.
        if self.data_offset != 0 && unsafe { pg_sys::array_contains_nulls(self.raw.as_ptr().cast_mut().cast()) } {
            return Err(SqlError::new(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "array must not contain nulls"));
        }
        Ok(())
    }

    /// Call `each` with every element of a castable array of int4, float4, float8 or numeric, rounded to f32.
    pub fn for_each_f32(&self, mut each: impl FnMut(usize, f32) -> Result<()>) -> Result<()> {
        let mut all =
            |values: &mut dyn Iterator<Item = f32>| values.enumerate().try_for_each(|(i, value)| each(i, value));
        match self.element_type {
            pg_sys::INT4OID => all(&mut self.plain::<i32>()?.iter().map(|&v| v as f32)),
            pg_sys::FLOAT4OID => all(&mut self.plain::<f32>()?.iter().copied()),
            pg_sys::FLOAT8OID => all(&mut self.plain::<f64>()?.iter().map(|&v| v as f32)),
            pg_sys::NUMERICOID => {
                let elements = self.numerics();
                let outcome = all(&mut elements.0.iter().map(|&datum| numeric_to_f32(datum)));
                drop(elements);
                outcome
            }
            _ => Err(SqlError::data("unsupported array type")),
        }
    }

    /// The elements of an array of a varlena type that is aligned to 4 bytes; None for NULL. They are valid as long as the array.
    pub fn varlenas(&self) -> Vec<Option<Datum>> {
        let (mut elements, mut nulls): (*mut Datum, *mut bool) = (std::ptr::null_mut(), std::ptr::null_mut());
        let mut count = 0;
        // SAFETY: a valid array of such a type; both results are as long as `count` says.
        unsafe {
            pg_sys::deconstruct_array(
                self.raw.as_ptr().cast_mut().cast(),
                self.element_type,
                -1,
                false,
                b'i' as _,
                &mut elements,
                &mut nulls,
                &mut count,
            );
            (0..count as usize).map(|i| (!*nulls.add(i)).then_some(*elements.add(i))).collect()
        }
    }

    fn numerics(&self) -> Datums {
        let mut elements: *mut Datum = std::ptr::null_mut();
        let mut count = 0;
        // SAFETY: a valid array of numeric (by reference, any length, int-aligned) without nulls.
        unsafe {
            pg_sys::deconstruct_array(
                self.raw.as_ptr().cast_mut().cast(),
                pg_sys::NUMERICOID,
                -1,
                false,
                b'i' as _,
                &mut elements,
                std::ptr::null_mut(),
                &mut count,
            );
            Datums(std::slice::from_raw_parts_mut(elements, count as usize))
        }
    }
}

/// What `deconstruct_array` palloc'd.
struct Datums(&'static mut [Datum]);

impl Drop for Datums {
    fn drop(&mut self) {
        // SAFETY: palloc'd for us.
        unsafe { pg_sys::pfree(self.0.as_mut_ptr().cast()) }
    }
}

/// `numeric::float4`, with the server's own range error.
fn numeric_to_f32(numeric: Datum) -> f32 {
    // Called directly, not through `DirectFunctionCall`: an error must not unwind through a C frame between two of ours.
    // SAFETY: a numeric in, a float4 (by value) out.
    let float4 = unsafe { pgrx::direct_function_call_as_datum(pg_sys::numeric_float4, &[Some(numeric)]) };
    f32::from_bits(float4.expect("numeric_float4 is strict").value() as u32)
}

/// Build a one-dimensional `float4[]`.
pub fn float4_array(values: impl ExactSizeIterator<Item = f32>) -> NewVarlena {
    let mut array = new_array::<f32>(values.len(), pg_sys::FLOAT4OID);
    for (target, value) in array.array_mut::<f32>(DATA_1D, values.len()).iter_mut().zip(values) {
        *target = value;
    }
    array
}

/// Build a one-dimensional `integer[]`; an empty one has no dimension.
pub fn int4_array(values: &[i32]) -> NewVarlena {
    if values.is_empty() {
        let mut array = NewVarlena::zeroed(DIMENSIONS);
        array.set::<u32>(ELEMENT_TYPE, pg_sys::INT4OID.to_u32());
        return array;
    }
    let mut array = new_array::<i32>(values.len(), pg_sys::INT4OID);
    array.array_mut::<i32>(DATA_1D, values.len()).copy_from_slice(values);
    array
}

fn new_array<T: Plain>(len: usize, element_type: Oid) -> NewVarlena {
    let mut array = NewVarlena::zeroed(DATA_1D + len * size_of::<T>());
    array.set::<i32>(NDIM, 1);
    array.set::<u32>(ELEMENT_TYPE, element_type.to_u32());
    array.set::<i32>(DIMENSIONS, len as i32);
    array.set::<i32>(DIMENSIONS + 4, 1);
    array
}

/// The state of `avg`: `float8[]` of the row count and the sum of every dimension.
pub struct AverageState<'a> {
    array: ArrayRef<'a>,
}

impl<'a> AverageState<'a> {
    /// `caller` names the function in the message for something that is not a state.
    pub fn new(array: ArrayRef<'a>, caller: &str) -> Result<Self> {
        let is_state =
            array.ndim == 1 && array.len >= 1 && array.data_offset == 0 && array.element_type == pg_sys::FLOAT8OID;
        if !is_state {
            return Err(SqlError::new(
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                format!("{caller}: expected state array"),
            ));
        }
        array.plain::<f64>()?;
        Ok(AverageState { array })
    }

    fn values(&self) -> &[f64] {
        self.array.plain().expect("checked by new")
    }

    pub fn count(&self) -> f64 {
        self.values()[0]
    }

    pub fn sums(&self) -> &[f64] {
        &self.values()[1..]
    }

    pub fn dims(&self) -> usize {
        self.array.len - 1
    }

    /// A new state with `dims` dimensions.
    pub fn build(dims: usize) -> NewAverageState {
        NewAverageState { array: new_array::<f64>(dims + 1, pg_sys::FLOAT8OID), dims }
    }

    /// The values, to be changed in place.
    ///
    /// # Safety
    /// The array belongs to the running aggregate (see `called_by_aggregate`) and is not otherwise borrowed.
    pub unsafe fn values_mut(&mut self) -> &mut [f64] {
        let (at, len) = (self.array.start(), self.array.len);
        // SAFETY: `new` checked bounds and alignment; exclusive by the caller's promise.
        unsafe {
            let start = self.array.raw.as_mut_ptr().add(at).cast::<f64>();
            std::slice::from_raw_parts_mut(start, len)
        }
    }

    pub fn into_datum(self) -> Datum {
        self.array.raw.into_datum()
    }
}

pub struct NewAverageState {
    array: NewVarlena,
    dims: usize,
}

impl NewAverageState {
    pub fn values_mut(&mut self) -> &mut [f64] {
        self.array.array_mut(DATA_1D, self.dims + 1)
    }

    pub fn finish(self) -> NewVarlena {
        self.array
    }
}

/// The one number of a type modifier such as `vector(3)`.
pub fn dimension_modifier(modifiers: &ArrayRef<'_>, type_name: &str, max: i32) -> Result<i32> {
    let mut count = 0;
    // SAFETY: the argument of a typmod function is a valid cstring[]; the server checks its contents.
    let values = unsafe {
        let values = pg_sys::ArrayGetIntegerTypmods(modifiers.raw.as_ptr().cast_mut().cast(), &mut count);
        std::slice::from_raw_parts(values, count as usize)
    };
    match *values {
        [dims] if dims < 1 => Err(SqlError::parameter(format!("dimensions for type {type_name} must be at least 1"))),
        [dims] if dims > max => {
            Err(SqlError::parameter(format!("dimensions for type {type_name} cannot exceed {max}")))
        }
        [dims] => Ok(dims),
        _ => Err(SqlError::parameter("invalid type modifier")),
    }
}
