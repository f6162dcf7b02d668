//! The binary representation: fields in network byte order.

use super::error::{Result, SqlError};
use super::function::FromArg;
use super::varlena::{LENGTH_WORD, NewVarlena};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum};
use std::marker::PhantomData;

/// The message that a receive function reads.
pub struct Message<'a> {
    buffer: pg_sys::StringInfo,
    call: PhantomData<&'a ()>,
}

impl FromArg<'_> for Message<'_> {
    unsafe fn from_arg(datum: Datum) -> Result<Self> {
        Ok(Message { buffer: datum.cast_mut_ptr(), call: PhantomData })
    }
}

impl Message<'_> {
    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&[u8]> {
        // SAFETY: a valid StringInfo by the function's declaration; nothing else uses it during the call.
        let buffer = unsafe { &mut *self.buffer };
        let (len, cursor) = (buffer.len.max(0) as usize, buffer.cursor.max(0) as usize);
        if count > len.saturating_sub(cursor) {
            return Err(SqlError::new(PgSqlErrorCode::ERRCODE_PROTOCOL_VIOLATION, "insufficient data left in message"));
        }
        buffer.cursor += count as i32;
        // SAFETY: inside the buffer, which lives as long as the call.
        Ok(unsafe { std::slice::from_raw_parts(buffer.data.add(cursor).cast(), count) })
    }

    /// Bytes that have not been read yet.
    pub fn left(&self) -> usize {
        // SAFETY: as in `bytes`.
        let buffer = unsafe { &*self.buffer };
        (buffer.len.max(0) - buffer.cursor.max(0)).max(0) as usize
    }

    pub fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.bytes(2)?.try_into().expect("asked for 2 bytes")))
    }

    pub fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.bytes(4)?.try_into().expect("asked for 4 bytes")))
    }
}

/// The bytea that a send function returns.
pub struct Reply {
    bytea: NewVarlena,
    at: usize,
}

impl Reply {
    pub fn new(len: usize) -> Self {
        Reply { bytea: NewVarlena::zeroed(LENGTH_WORD + len), at: LENGTH_WORD }
    }

    pub fn push<const N: usize>(&mut self, field: [u8; N]) {
        self.bytea.array_mut::<u8>(self.at, N).copy_from_slice(&field);
        self.at += N;
    }

    pub fn push_all<const N: usize>(&mut self, fields: impl ExactSizeIterator<Item = [u8; N]>) {
        let len = fields.len() * N;
        let target = self.bytea.array_mut::<u8>(self.at, len);
        for (target, field) in target.chunks_exact_mut(N).zip(fields) {
            target.copy_from_slice(&field);
        }
        self.at += len;
    }

    pub fn finish(self) -> NewVarlena {
        debug_assert_eq!(self.at, self.bytea.as_bytes().len());
        self.bytea
    }
}
