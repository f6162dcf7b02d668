//! SQL-callable functions (fmgr version 1): [`pg_function!`], argument and result conversion.
//!
//! Raw V1 functions rather than `#[pg_extern]`: the SQL is hand-written (names, costs, casts and operators have to be
//! exactly the ecosystem's), and arguments are borrowed from the tuple instead of being copied.

use super::error::{Result, SqlError};
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use std::ffi::{CStr, c_char};
use std::marker::PhantomData;

/// A type that a function can take as argument.
pub trait FromArg<'a>: Sized {
    /// The argument is a varlena that will be read wholly: detoasting the same out-of-line value in every call, such as
    /// the query of a search, is saved (see [`Kept`]).
    const WHOLE: bool = false;

    /// # Safety
    /// `datum` is a non-null value of the SQL type that this Rust type stands for, valid for `'a`.
    unsafe fn from_arg(datum: Datum) -> Result<Self>;
}

/// A type that a function can return.
pub trait IntoReturn {
    /// # Safety
    /// `fcinfo` is the call that this result answers.
    unsafe fn into_return(self, fcinfo: FunctionCallInfo) -> Datum;
}

/// The arguments of a call, taken in order. All our functions are STRICT, so none of them is NULL.
pub struct Args<'a> {
    fcinfo: FunctionCallInfo,
    next: usize,
    call: PhantomData<&'a ()>,
}

impl<'a> Args<'a> {
    /// # Safety
    /// `fcinfo` is a valid call of a STRICT function whose SQL declaration fits what is then taken.
    pub unsafe fn new(fcinfo: FunctionCallInfo) -> Self {
        Args { fcinfo, next: 0, call: PhantomData }
    }

    pub fn take<T: FromArg<'a>>(&mut self) -> Result<T> {
        // SAFETY: `new` promises a valid call; the slice has as many arguments as the call says.
        let args = unsafe { (*self.fcinfo).args.as_slice((*self.fcinfo).nargs as usize) };
        let Some(arg) = args.get(self.next).filter(|arg| !arg.isnull) else {
            // Only reachable by declaring the function wrongly in SQL.
            return Err(SqlError::parameter(format!("argument {} is missing or null", self.next + 1)));
        };
        self.next += 1;
        // SAFETY: not null, and of the declared type by the promise of `new`.
        unsafe {
            let value = if T::WHOLE { Kept::detoasted(self.fcinfo, self.next - 1, arg.value) } else { arg.value };
            T::from_arg(value)
        }
    }
}

/// Out-of-line values that a call site of a function got as first and second argument; kept in its `fn_extra`.
///
/// A value that comes twice in a row is detoasted once more and kept. That is the query of `ORDER BY column <-> $1`: each
/// row's own value differs from the one before.
#[derive(Default)]
struct Kept {
    arguments: [KeptValue; 2],
}

#[derive(Default)]
struct KeptValue {
    /// The TOAST pointer seen last.
    pointer: [u8; TOAST_POINTER],
    /// The value, once it has come twice; lives in `fn_mcxt`.
    value: Option<std::ptr::NonNull<pg_sys::varlena>>,
}

/// Bytes of `varatt_external`, which names a value and its version for good while a query can see it.
const TOAST_POINTER: usize = size_of::<pg_sys::varatt_external>();

impl Kept {
    /// The same value as `datum`, detoasted if it is the one that came last.
    ///
    /// # Safety
    /// `datum` is the varlena argument number `i` of `fcinfo`.
    unsafe fn detoasted(fcinfo: FunctionCallInfo, i: usize, datum: Datum) -> Datum {
        // SAFETY: a valid varlena; `fn_extra` is NULL or ours, and lives as long as `fn_mcxt`.
        unsafe {
            let given = datum.cast_mut_ptr::<pg_sys::varlena>();
            let info = (*fcinfo).flinfo;
            let on_disk = pgrx::varlena::varatt_is_1b_e(given)
                && *given.cast::<u8>().add(1) == pg_sys::vartag_external::VARTAG_ONDISK as u8;
            if !on_disk || info.is_null() || i >= 2 {
                return datum;
            }
            if (*info).fn_extra.is_null() {
                let kept: *mut Kept = pg_sys::MemoryContextAlloc((*info).fn_mcxt, size_of::<Kept>()).cast();
                kept.write(Kept::default());
                (*info).fn_extra = kept.cast();
            }
            let kept = &mut (*(*info).fn_extra.cast::<Kept>()).arguments[i];
            let mut pointer = [0; TOAST_POINTER];
            std::ptr::copy_nonoverlapping(given.cast::<u8>().add(2), pointer.as_mut_ptr(), TOAST_POINTER);
            if kept.pointer != pointer {
                kept.pointer = pointer;
                if let Some(old) = kept.value.take() {
                    pg_sys::pfree(old.as_ptr().cast());
                }
                return datum;
            }
            if kept.value.is_none() {
                let context = pg_sys::MemoryContextSwitchTo((*info).fn_mcxt);
                let value = pg_sys::pg_detoast_datum(given);
                pg_sys::MemoryContextSwitchTo(context);
                kept.value = std::ptr::NonNull::new(value);
            }
            kept.value.map_or(datum, |value| Datum::from(value.as_ptr()))
        }
    }
}

/// Deliver a result, or raise the error (by then every argument has been dropped).
///
/// # Safety
/// `fcinfo` is the call being answered.
pub unsafe fn finish<R: IntoReturn>(fcinfo: FunctionCallInfo, outcome: Result<R>) -> Datum {
    match outcome {
        // SAFETY: the caller's promise.
        Ok(value) => unsafe { value.into_return(fcinfo) },
        Err(error) => error.raise(),
    }
}

/// Is this call made by an aggregate, so that its first argument (the state) may be changed in place?
///
/// # Safety
/// `fcinfo` is the current call.
pub unsafe fn called_by_aggregate(fcinfo: FunctionCallInfo) -> bool {
    // SAFETY: only looks at the call's context node.
    unsafe { pg_sys::AggCheckCallContext(fcinfo, std::ptr::null_mut()) != 0 }
}

/// Define an SQL-callable function under the C symbol of its name.
///
/// The body returns `Result<…>`; arguments are any [`FromArg`] types. A first argument written `call @ FunctionCallInfo`
/// gives access to the call itself.
macro_rules! pg_function {
    ($(#[$doc:meta])* fn $name:ident($call:ident @ FunctionCallInfo $(, $arg:ident: $ty:ty)* $(,)?) -> $ret:ty $body:block) => {
        $crate::pg::function::pg_function_info!($name);
        $(#[$doc])*
        #[::pgrx::pg_guard]
        #[unsafe(no_mangle)]
        unsafe extern "C-unwind" fn $name(fcinfo: ::pgrx::pg_sys::FunctionCallInfo) -> ::pgrx::pg_sys::Datum {
            fn body(
                $call: ::pgrx::pg_sys::FunctionCallInfo, $($arg: $ty),*
            ) -> $crate::pg::error::Result<$ret> $body
            // SAFETY: the server calls with valid arguments of the types declared in sql/types.
            #[allow(unused, reason = "a function without arguments takes none")]
            let mut args = unsafe { $crate::pg::function::Args::new(fcinfo) };
            #[allow(clippy::redundant_closure_call, reason = "`?` leaves the closure only")]
            let outcome = (|| body(fcinfo, $(args.take::<$ty>()?),*))();
            // SAFETY: `fcinfo` is this call.
            unsafe { $crate::pg::function::finish(fcinfo, outcome) }
        }
    };
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) -> $ret:ty $body:block) => {
        $crate::pg::function::pg_function! {
            $(#[$doc])* fn $name(_call @ FunctionCallInfo $(, $arg: $ty)*) -> $ret $body
        }
    };
}
pub(crate) use pg_function;

/// `PG_FUNCTION_INFO_V1`.
macro_rules! pg_function_info {
    ($name:ident) => {
        const _: () = {
            #[unsafe(export_name = concat!("pg_finfo_", stringify!($name)))]
            extern "C" fn info() -> *const ::pgrx::pg_sys::Pg_finfo_record {
                const V1: ::pgrx::pg_sys::Pg_finfo_record = ::pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
                &V1
            }
        };
    };
}
pub(crate) use pg_function_info;

impl FromArg<'_> for i32 {
    unsafe fn from_arg(datum: Datum) -> Result<Self> {
        Ok(datum.value() as i32)
    }
}

impl FromArg<'_> for f64 {
    unsafe fn from_arg(datum: Datum) -> Result<Self> {
        Ok(f64::from_bits(datum.value() as u64))
    }
}

impl FromArg<'_> for bool {
    unsafe fn from_arg(datum: Datum) -> Result<Self> {
        Ok(datum.value() as u8 != 0)
    }
}

impl<'a> FromArg<'a> for &'a CStr {
    unsafe fn from_arg(datum: Datum) -> Result<Self> {
        // SAFETY: a non-null cstring argument.
        Ok(unsafe { CStr::from_ptr(datum.cast_mut_ptr::<c_char>()) })
    }
}

/// Any argument as it came, to be handed on unchanged.
pub struct Raw(pub Datum);

impl FromArg<'_> for Raw {
    unsafe fn from_arg(datum: Datum) -> Result<Self> {
        Ok(Raw(datum))
    }
}

impl IntoReturn for Raw {
    unsafe fn into_return(self, _: FunctionCallInfo) -> Datum {
        self.0
    }
}

impl IntoReturn for f64 {
    unsafe fn into_return(self, _: FunctionCallInfo) -> Datum {
        Datum::from(self.to_bits())
    }
}

impl IntoReturn for i32 {
    unsafe fn into_return(self, _: FunctionCallInfo) -> Datum {
        Datum::from(self)
    }
}

impl IntoReturn for i64 {
    unsafe fn into_return(self, _: FunctionCallInfo) -> Datum {
        Datum::from(self)
    }
}

impl IntoReturn for bool {
    unsafe fn into_return(self, _: FunctionCallInfo) -> Datum {
        Datum::from(self)
    }
}

impl<T: IntoReturn> IntoReturn for Option<T> {
    unsafe fn into_return(self, fcinfo: FunctionCallInfo) -> Datum {
        match self {
            // SAFETY: the caller's promise.
            Some(value) => unsafe { value.into_return(fcinfo) },
            None => {
                // SAFETY: the caller's promise: a valid call, ours to answer.
                unsafe { (*fcinfo).isnull = true };
                Datum::from(0usize)
            }
        }
    }
}
