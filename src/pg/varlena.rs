//! Variable-length values: borrowed (detoasted where needed) and newly built.

use super::function::IntoReturn;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use std::marker::PhantomData;

/// Bytes of the length word that every value begins with.
pub const LENGTH_WORD: usize = size_of::<u32>();

/// A value with its four-byte length word, detoasted if it was compressed, out of line or short. The copy that detoasting
/// made is freed on drop (comparisons in a sort or an index build would otherwise fill the memory context).
pub struct Detoasted<'a> {
    place: Place,
    len: usize,
    borrow: PhantomData<&'a [u8]>,
}

/// Where the bytes are.
enum Place {
    /// In the caller's memory.
    Borrowed(*mut u8),
    /// In a palloc'd copy.
    Copied(*mut u8),
    /// Here: a short value (one-byte length, not aligned), copied without a call into the server.
    Inline([u64; SHORT_MAX.div_ceil(8)]),
}

/// Most bytes of a short value once it has a four-byte length word.
const SHORT_MAX: usize = 0x7f - 1 + LENGTH_WORD;

impl Detoasted<'_> {
    /// # Safety
    /// `datum` is a non-null varlena that stays valid for the lifetime of the result.
    pub unsafe fn new(datum: Datum) -> Self {
        use pgrx::varlena::{varatt_is_1b, varatt_is_1b_e, varatt_is_4b_u, varsize_1b, varsize_4b};
        let given = datum.cast_mut_ptr::<pg_sys::varlena>();
        // SAFETY: a valid varlena; its first byte says of which kind, detoasting returns a plain one.
        let (place, len) = unsafe {
            if varatt_is_4b_u(given) {
                (Place::Borrowed(given.cast()), varsize_4b(given))
            } else if varatt_is_1b(given) && !varatt_is_1b_e(given) {
                let size = varsize_1b(given).max(1) - 1;
                let mut copy = [0u64; SHORT_MAX.div_ceil(8)];
                let start = copy.as_mut_ptr().cast::<u8>();
                pgrx::varlena::set_varsize_4b(start.cast(), (LENGTH_WORD + size) as i32);
                std::ptr::copy_nonoverlapping(given.cast::<u8>().add(1), start.add(LENGTH_WORD), size);
                (Place::Inline(copy), LENGTH_WORD + size)
            } else {
                let copy = pg_sys::pg_detoast_datum(given);
                (Place::Copied(copy.cast()), varsize_4b(copy))
            }
        };
        Detoasted { place, len: len.max(LENGTH_WORD), borrow: PhantomData }
    }

    fn start(&self) -> *const u8 {
        match &self.place {
            Place::Borrowed(start) | Place::Copied(start) => *start,
            Place::Inline(copy) => copy.as_ptr().cast(),
        }
    }

    /// To hand to the server, or to change what is ours to change. Valid until `self` moves.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        match &mut self.place {
            Place::Borrowed(start) | Place::Copied(start) => *start,
            Place::Inline(copy) => copy.as_mut_ptr().cast(),
        }
    }

    /// To hand to the server, which only reads. Valid until `self` moves.
    pub fn as_ptr(&self) -> *const u8 {
        self.start()
    }

    /// All bytes, length word included.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the length word is the value's size.
        unsafe { std::slice::from_raw_parts(self.start(), self.len) }
    }

    /// The `count` elements of type `T` that begin at byte `at`, or None if they are not all inside the value.
    pub fn array<T: Plain>(&self, at: usize, count: usize) -> Option<&[T]> {
        let end = count.checked_mul(size_of::<T>())?.checked_add(at)?;
        let first = self.start().wrapping_add(at).cast::<T>();
        if end > self.len || !first.is_aligned() {
            return None;
        }
        // SAFETY: in bounds, aligned, and every bit pattern is a `T`.
        Some(unsafe { std::slice::from_raw_parts(first, count) })
    }

    pub fn scalar<T: Plain>(&self, at: usize) -> Option<T> {
        self.array::<T>(at, 1).map(|one| one[0])
    }

    /// Give the value away (as a result) instead of freeing the copy.
    pub fn into_datum(self) -> Datum {
        let this = std::mem::ManuallyDrop::new(self);
        match &this.place {
            Place::Borrowed(start) | Place::Copied(start) => Datum::from(*start),
            Place::Inline(_) => {
                let mut value = NewVarlena::zeroed(this.len);
                let content = &this.bytes()[LENGTH_WORD..];
                value.array_mut(LENGTH_WORD, content.len()).copy_from_slice(content);
                Datum::from(value.start)
            }
        }
    }
}

impl Drop for Detoasted<'_> {
    fn drop(&mut self) {
        // After an ERROR it goes with its memory context, as all does.
        if let Place::Copied(start) = self.place
            && !std::thread::panicking()
        {
            // SAFETY: palloc'd by detoasting, for us alone.
            unsafe { pg_sys::pfree(start.cast()) }
        }
    }
}

/// The first `count` bytes after the length word, without fetching the rest of a value stored out of line.
///
/// # Safety
/// `datum` is a non-null varlena.
pub unsafe fn head(datum: Datum, count: usize) -> Detoasted<'static> {
    // SAFETY: the caller's promise; the borrow of a value in memory ends with the call.
    unsafe { if is_out_of_line(datum) { part(datum, 0, count) } else { Detoasted::new(datum) } }
}

/// Whether a value is not where the datum points to.
///
/// # Safety
/// `datum` is a non-null varlena.
pub unsafe fn is_out_of_line(datum: Datum) -> bool {
    // SAFETY: the caller's promise.
    unsafe { pgrx::varlena::varatt_is_1b_e(datum.cast_mut_ptr()) }
}

/// The `count` bytes (or what there is of them) that begin `at` bytes behind the length word, as a value of their own. Of a value
/// out of line that is not compressed no more than these are fetched.
///
/// # Safety
/// `datum` is a non-null varlena.
pub unsafe fn part(datum: Datum, at: usize, count: usize) -> Detoasted<'static> {
    // SAFETY: the caller's promise; the slice is a fresh copy.
    unsafe {
        let copy = pg_sys::pg_detoast_datum_slice(datum.cast_mut_ptr(), at as i32, count as i32);
        let len = pgrx::varlena::varsize_4b(copy).max(LENGTH_WORD);
        Detoasted { place: Place::Copied(copy.cast()), len, borrow: PhantomData }
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
unsafe impl Plain for u16 {}
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
