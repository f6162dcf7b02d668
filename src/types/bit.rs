//! Distances on PostgreSQL's own `bit`, and quantization to it.

use super::dense::Element;
use crate::pg::error::{Result, SqlError};
use crate::pg::function::{FromArg, IntoReturn, pg_function};
use crate::pg::varlena::{Detoasted, LENGTH_WORD, NewVarlena};
use ann::distance;
use bitvec::field::BitField;
use bitvec::order::Msb0;
use bitvec::slice::BitSlice;
use pgrx::pg_sys::{Datum, FunctionCallInfo};

// `VarBit`: length word, i32 number of bits, the bits, most significant first, the last byte padded with zeros.
const BIT_LEN: usize = LENGTH_WORD;
const BITS: usize = 8;

/// A borrowed `bit` or `varbit`.
pub struct BitRef<'a> {
    raw: Detoasted<'a>,
    len: usize,
}

impl<'a> BitRef<'a> {
    /// Detoast and check; a corrupted value raises an ERROR.
    ///
    /// # Safety
    /// `datum` is a non-null `bit` or `varbit` and outlives the result.
    pub unsafe fn from_datum(datum: Datum) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::from_arg(datum) }.unwrap_or_else(|error| error.raise())
    }

    /// Number of bits.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn bytes(&self) -> &[u8] {
        &self.raw.bytes()[BITS..]
    }
}

impl<'a> FromArg<'a> for BitRef<'a> {
    unsafe fn from_arg(datum: Datum) -> Result<Self> {
        // SAFETY: the caller's promise.
        let raw = unsafe { Detoasted::new(datum) };
        match raw.scalar::<i32>(BIT_LEN) {
            Some(len) if len >= 0 && raw.bytes().len() == BITS + (len as usize).div_ceil(8) => {
                Ok(BitRef { raw, len: len as usize })
            }
            _ => Err(SqlError::corrupted("bit")),
        }
    }
}

/// A `bit` being built.
pub struct BitBuf(NewVarlena);

impl BitBuf {
    /// Bit i is set where element i is positive.
    pub fn of_signs<T: Element>(values: &[T]) -> Self {
        let mut raw = NewVarlena::zeroed(BITS + values.len().div_ceil(8));
        raw.set::<i32>(BIT_LEN, values.len() as i32);
        let bits = BitSlice::<u8, Msb0>::from_slice_mut(raw.array_mut(BITS, values.len().div_ceil(8)));
        // A word at a time: the first element is the most significant bit of the word.
        for (word, values) in bits[..values.len()].chunks_mut(u64::BITS as usize).zip(values.chunks(u64::BITS as usize))
        {
            let signs = values.iter().fold(0u64, |signs, v| signs << 1 | u64::from(*v > T::default()));
            word.store_be(signs);
        }
        BitBuf(raw)
    }
}

impl IntoReturn for BitBuf {
    unsafe fn into_return(self, fcinfo: FunctionCallInfo) -> Datum {
        // SAFETY: the caller's promise.
        unsafe { self.0.into_return(fcinfo) }
    }
}

fn check_same_len(a: &BitRef<'_>, b: &BitRef<'_>) -> Result<()> {
    if a.len != b.len {
        return Err(SqlError::data(format!("different bit lengths {} and {}", a.len, b.len)));
    }
    Ok(())
}

pg_function! {
    /// How many bits differ.
    fn vx_hamming_distance(a: BitRef<'_>, b: BitRef<'_>) -> f64 {
        check_same_len(&a, &b)?;
        Ok(distance::hamming(a.bytes(), b.bytes()) as f64)
    }
}

pg_function! {
    /// The share of the bits set in either that are not set in both; 1 if no bit is set in both.
    fn vx_jaccard_distance(a: BitRef<'_>, b: BitRef<'_>) -> f64 {
        check_same_len(&a, &b)?;
        Ok(distance::jaccard(a.bytes(), b.bytes()))
    }
}
