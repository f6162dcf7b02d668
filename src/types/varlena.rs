//! Variable-length values: borrowed (detoasted where needed) and newly built.

use super::function::IntoReturn;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use std::marker::PhantomData;

/// Bytes of the length word that every value begins with.
pub const LENGTH_WORD: usize = size_of::<u32>();

/// A value with its four-byte length word, detoasted if it was compressed, out of line or short; the copy that detoasting
/// made is freed on drop (comparisons in a sort or an index build would otherwise fill the memory context).
pub struct Detoasted<'a> {
    start: *mut u8,
    len: usize,
    is_copy: bool,
    borrow: PhantomData<&'a [u8]>,
}

impl Detoasted<'_> {
    /// # Safety
    /// `datum` is a non-null varlena that stays valid for the lifetime of the result.
    pub unsafe fn new(datum: Datum) -> Self {
        let given = datum.cast_mut_ptr::<pg_sys::varlena>();
        // SAFETY: a valid varlena; `varatt_is_4b_u` looks at its first byte, detoasting returns a plain one.
        unsafe {
            let plain = if pgrx::varlena::varatt_is_4b_u(given) { given } else { pg_sys::pg_detoast_datum(given) };
            let len = pgrx::varlena::varsize_4b(plain).max(LENGTH_WORD);
            Detoasted { start: plain.cast(), len, is_copy: plain != given, borrow: PhantomData }
        }
    }

    /// All bytes, length word included.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the length word is the value's size.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    /// The `count` elements of type `T` that begin at byte `at`, or None if they are not all inside the value.
    pub fn array<T: Plain>(&self, at: usize, count: usize) -> Option<&[T]> {
        let end = count.checked_mul(size_of::<T>())?.checked_add(at)?;
        let first = self.start.wrapping_add(at).cast::<T>();
        if end > self.len || !first.is_aligned() {
            return None;
        }
        // SAFETY: in bounds, aligned, and every bit pattern is a `T`.
        Some(unsafe { std::slice::from_raw_parts(first, count) })
    }

    pub fn scalar<T: Plain>(&self, at: usize) -> Option<T> {
        self.array::<T>(at, 1).map(|one| one[0])
    }

    pub fn as_ptr(&self) -> *mut u8 {
        self.start
    }

    /// Give the value away (as a result) instead of freeing the copy.
    pub fn into_datum(self) -> Datum {
        let this = std::mem::ManuallyDrop::new(self);
        Datum::from(this.start)
    }
}

impl Drop for Detoasted<'_> {
    fn drop(&mut self) {
        if self.is_copy {
            // SAFETY: palloc'd by `pg_detoast_datum` for us alone.
            unsafe { pg_sys::pfree(self.start.cast()) }
        }
    }
}

/// The first `count` bytes after the length word, without fetching the rest of a value stored out of line.
///
/// # Safety
/// `datum` is a non-null varlena.
pub unsafe fn head(datum: Datum, count: usize) -> Detoasted<'static> {
    let given = datum.cast_mut_ptr::<pg_sys::varlena>();
    // SAFETY: as in `Detoasted::new`; a slice is always a fresh copy, the borrow of a plain value ends with the call.
    unsafe {
        if pgrx::varlena::varatt_is_4b_u(given) {
            return Detoasted::new(datum);
        }
        let copy = pg_sys::pg_detoast_datum_slice(given, 0, count as i32);
        let len = pgrx::varlena::varsize_4b(copy).max(LENGTH_WORD);
        Detoasted { start: copy.cast(), len, is_copy: true, borrow: PhantomData }
    }
}

/// Types without padding for which every bit pattern is a value.
///
/// # Safety
/// As said.
pub unsafe trait Plain: Copy {}
// SAFETY: plain numbers.
unsafe impl Plain for u8 {}
// SAFETY: plain numbers.
unsafe impl Plain for i16 {}
// SAFETY: plain numbers.
unsafe impl Plain for i32 {}
// SAFETY: plain numbers.
unsafe impl Plain for u32 {}
// SAFETY: plain numbers.
unsafe impl Plain for f32 {}
// SAFETY: plain numbers.
unsafe impl Plain for f64 {}
// SAFETY: `#[repr(transparent)]` over u16.
unsafe impl Plain for ann::distance::f16 {}

/// A value being built, palloc'd in the current memory context and zeroed.
pub struct NewVarlena {
    start: *mut u8,
    len: usize,
}

impl NewVarlena {
    /// `len` counts the length word.
    pub fn zeroed(len: usize) -> Self {
        assert!((LENGTH_WORD..=i32::MAX as usize >> 2).contains(&len));
        // SAFETY: palloc0 returns `len` zeroed bytes, aligned for anything, or raises.
        unsafe {
            let start = pg_sys::palloc0(len).cast::<u8>();
            pgrx::varlena::set_varsize_4b(start.cast(), len as i32);
            NewVarlena { start, len }
        }
    }

    pub fn set<T: Plain>(&mut self, at: usize, value: T) {
        self.array_mut::<T>(at, 1)[0] = value;
    }

    pub fn array_mut<T: Plain>(&mut self, at: usize, count: usize) -> &mut [T] {
        let first = self.start.wrapping_add(at).cast::<T>();
        assert!(at >= LENGTH_WORD && at + count * size_of::<T>() <= self.len && first.is_aligned());
        // SAFETY: in bounds, aligned, ours alone, and initialised (palloc0).
        unsafe { std::slice::from_raw_parts_mut(first, count) }
    }

    /// Two arrays, one behind the other.
    pub fn arrays_mut<T: Plain, U: Plain>(&mut self, at: usize, count: usize) -> (&mut [T], &mut [U]) {
        let second = at + count * size_of::<T>();
        let (t, u) = (self.start.wrapping_add(at).cast::<T>(), self.start.wrapping_add(second).cast::<U>());
        assert!(at >= LENGTH_WORD && second + count * size_of::<U>() <= self.len && t.is_aligned() && u.is_aligned());
        // SAFETY: in bounds, aligned, disjoint, ours alone, and initialised (palloc0).
        unsafe { (std::slice::from_raw_parts_mut(t, count), std::slice::from_raw_parts_mut(u, count)) }
    }

    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: ours, initialised.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl IntoReturn for NewVarlena {
    unsafe fn into_return(self, _: FunctionCallInfo) -> Datum {
        Datum::from(self.start)
    }
}

impl IntoReturn for Detoasted<'_> {
    unsafe fn into_return(self, _: FunctionCallInfo) -> Datum {
        self.into_datum()
    }
}
