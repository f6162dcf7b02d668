//! From a value of a filter column to its 64-bit key, and from a constant to where it lies among the keys.

use pgrx::prelude::*;

/// What the keys of a filter column stand for. The column's operator class names it: its support function 1 returns
/// [`Kind::code`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    Bool = 1,
    Int2 = 2,
    Int4 = 3,
    Int8 = 4,
    Float4 = 5,
    Float8 = 6,
    Oid = 7,
    Date = 8,
    Time = 9,
    Timestamp = 10,
    Timestamptz = 11,
    /// A value of an enumerated type, by its OID: for equality only.
    Enum = 12,
    /// The nearest float8.
    Numeric = 13,
    /// The first 8 bytes.
    Uuid = 14,
    /// Family, network, length, and what fits of the host's address.
    Inet = 15,
    /// The type's own 64-bit hash: for equality only.
    Hash = 16,
    /// An array: a set of 64 bits, one for the hash of each element.
    Set = 17,
}

const KINDS: [Kind; 17] = [
    Kind::Bool,
    Kind::Int2,
    Kind::Int4,
    Kind::Int8,
    Kind::Float4,
    Kind::Float8,
    Kind::Oid,
    Kind::Date,
    Kind::Time,
    Kind::Timestamp,
    Kind::Timestamptz,
    Kind::Enum,
    Kind::Numeric,
    Kind::Uuid,
    Kind::Inet,
    Kind::Hash,
    Kind::Set,
];

/// Support functions of filter columns return at least this, those of vectors less.
const FIRST_CODE: u32 = 0x1_0000;

// From PostgreSQL's datatype/timestamp.h and utils/inet.h.
const DAY: i64 = 86_400_000_000;
const TIMESTAMPS: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;
const AF_INET: u8 = 2;
/// The order of keys is that of unsigned numbers.
const SIGN: u64 = 1 << 63;

/// Where a constant of a condition lies among a column's keys: values with a key below `first` are below it, those with a
/// key above `last` above it. `first > last` when it lies between two neighbouring keys.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub first: u64,
    pub last: u64,
    /// Values with a key in `first ..= last` are equal to it; else nothing is known of them.
    pub exact: bool,
}

impl Place {
    fn at(key: u64) -> Place {
        Place { first: key, last: key, exact: true }
    }

    /// Between a key and the next.
    fn after(key: u64) -> Place {
        Place { first: key.saturating_add(1), last: key, exact: true }
    }

    fn about(first: u64, last: u64) -> Place {
        Place { first, last, exact: false }
    }

    /// Nowhere in particular.
    const ANYWHERE: Place = Place { first: 0, last: u64::MAX, exact: false };
}

impl Kind {
    /// What the support function returns.
    pub const fn code(self) -> u32 {
        FIRST_CODE + self as u32
    }

    /// Inverse of [`Kind::code`].
    pub fn from_code(code: u32) -> Option<Kind> {
        Kind::from_stored(u8::try_from(code.checked_sub(FIRST_CODE)?).ok()?)
    }

    /// From the number that the meta page keeps.
    pub fn from_stored(stored: u8) -> Option<Kind> {
        KINDS.into_iter().find(|&k| k as u8 == stored)
    }

    /// Of the constants of a type, as operators of other types than the column's have them.
    fn of_type(oid: pg_sys::Oid) -> Option<Kind> {
        Some(match oid {
            pg_sys::INT2OID => Kind::Int2,
            pg_sys::INT4OID => Kind::Int4,
            pg_sys::INT8OID => Kind::Int8,
            pg_sys::FLOAT4OID => Kind::Float4,
            pg_sys::FLOAT8OID => Kind::Float8,
            pg_sys::DATEOID => Kind::Date,
            pg_sys::TIMESTAMPOID => Kind::Timestamp,
            pg_sys::TIMESTAMPTZOID => Kind::Timestamptz,
            _ => return None,
        })
    }

    /// Whether different values can have the same key.
    pub fn is_lossy(self) -> bool {
        matches!(self, Kind::Numeric | Kind::Uuid | Kind::Inet | Kind::Hash | Kind::Set)
    }
}

/// A filter column.
#[derive(Clone, Copy)]
pub struct Column {
    pub kind: Kind,
    /// Of [`Kind::Hash`].
    hash: Option<Hash>,
    collation: pg_sys::Oid,
}

impl Column {
    /// A column of a type that the kind is for.
    pub fn new(kind: Kind, of_type: pg_sys::Oid, collation: pg_sys::Oid) -> Column {
        let hash = (kind == Kind::Hash).then(|| Hash::of_type(of_type, collation));
        Column { kind, hash, collation }
    }

    /// The key of a value.
    ///
    /// # Safety
    /// `value` is a non-NULL value of the column's type.
    pub unsafe fn key(&self, value: pg_sys::Datum) -> u64 {
        // SAFETY: by contract.
        unsafe { self.key_as(self.kind, value) }
    }

    /// [`Column::key`] of a value that is of another kind's type.
    unsafe fn key_as(&self, kind: Kind, value: pg_sys::Datum) -> u64 {
        let word = value.value();
        // SAFETY: by contract.
        unsafe {
            match kind {
                Kind::Bool => u64::from(word as u8 != 0),
                Kind::Int2 => signed(i64::from(word as i16)),
                Kind::Int4 | Kind::Date => signed(i64::from(word as i32)),
                Kind::Int8 | Kind::Time | Kind::Timestamp | Kind::Timestamptz => signed(word as i64),
                Kind::Float4 => float(f64::from(f32::from_bits(word as u32))),
                Kind::Float8 => float(f64::from_bits(word as u64)),
                Kind::Oid | Kind::Enum => u64::from(word as u32),
                Kind::Numeric => {
                    let numeric = Detoasted::new(value);
                    float(f64::from_bits(call(pg_sys::numeric_float8_no_overflow, numeric.datum()).value() as u64))
                }
                Kind::Uuid => {
                    let bytes: *const [u8; 8] = value.cast_mut_ptr();
                    u64::from_be_bytes(*bytes)
                }
                Kind::Inet => inet(Detoasted::new(value).bytes()),
                Kind::Hash => self.hash.expect("the column has a hash function").of(value),
                Kind::Set => self.set(value).0,
            }
        }
    }

    /// Where a constant of type `other` lies among the column's keys.
    ///
    /// # Safety
    /// `value` is a non-NULL value of the type, which an operator of the class compares with the column.
    pub unsafe fn place(&self, value: pg_sys::Datum, other: pg_sys::Oid) -> Place {
        use Kind::*;
        let from = match self.kind {
            Int2 | Int4 | Int8 | Float4 | Float8 | Date | Timestamp | Timestamptz => {
                Kind::of_type(other).unwrap_or(self.kind)
            }
            kind => kind,
        };
        // SAFETY: by contract.
        let key = unsafe { self.key_as(from, value) };
        let number = || (key ^ SIGN) as i64;
        match (self.kind, from) {
            (Date, Timestamp) => match number() {
                i64::MIN => Place::at(signed(i64::from(i32::MIN))),
                i64::MAX => Place::at(signed(i64::from(i32::MAX))),
                time => {
                    let day = signed(time.div_euclid(DAY));
                    if time.rem_euclid(DAY) == 0 { Place::at(day) } else { Place::after(day) }
                }
            },
            (Timestamp, Date) => at_midnight(number()).map_or_else(beyond, |time| Place::at(signed(time))),
            (Timestamptz, Date) => match at_midnight(number()) {
                Err(sign) => beyond(sign),
                Ok(time) => zoned(time, |time| in_zone(time).map(|t| Place::at(signed(t)))),
            },
            (Timestamptz, Timestamp) => zoned(number(), |time| in_zone(time).map(|t| Place::at(signed(t)))),
            // Local time is not a monotone function of time: clocks are turned back, by at most a day.
            (Timestamp, Timestamptz) => zoned(number(), |time| {
                local(time).map(|t| Place::about(signed(t - DAY - DAY / 24), signed(t + DAY + DAY / 24)))
            }),
            (Date, Timestamptz) => match number() {
                i64::MIN => Place::at(signed(i64::from(i32::MIN))),
                i64::MAX => Place::at(signed(i64::from(i32::MAX))),
                time => local(time).map_or(Place::ANYWHERE, |t| {
                    let day = t.div_euclid(DAY);
                    Place::about(signed(day - 2), signed(day + 2))
                }),
            },
            _ => Place { first: key, last: key, exact: !self.kind.is_lossy() },
        }
    }

    /// The bits of an array's elements, and whether one is NULL.
    ///
    /// # Safety
    /// `value` is an array.
    pub unsafe fn set(&self, value: pg_sys::Datum) -> (u64, bool) {
        let (mut bits, mut has_null) = (0, false);
        // SAFETY: by contract; the hash function is that of the elements' type.
        unsafe {
            let array = Detoasted::new(value);
            let entry = typed((*array.pointer.cast::<pg_sys::ArrayType>()).elemtype);
            let hash = Hash::of_entry(entry, self.collation);
            for_elements(&array, entry, |element| match element {
                Some(element) => bits |= 1 << (hash.of(element) >> 58),
                None => has_null = true,
            });
        }
        (bits, has_null)
    }
}

/// The place of a constant beyond the finite timestamps on one side.
fn beyond(sign: i64) -> Place {
    if sign < 0 { Place::after(signed(i64::MIN)) } else { Place::after(signed(i64::MAX - 1)) }
}

/// Midnight of a date as a timestamp. An error is the side on which a timestamp cannot express it.
fn at_midnight(date: i64) -> Result<i64, i64> {
    match date as i32 {
        i32::MIN => Ok(i64::MIN),
        i32::MAX => Ok(i64::MAX),
        _ => date.checked_mul(DAY).filter(|t| TIMESTAMPS.contains(t)).ok_or(date),
    }
}

/// The place of a time by `convert`; infinite times are the same in all zones.
fn zoned(time: i64, convert: impl FnOnce(i64) -> Option<Place>) -> Place {
    if time == i64::MIN || time == i64::MAX {
        Place::at(signed(time))
    } else {
        convert(time).unwrap_or(Place::ANYWHERE)
    }
}

/// Whether a time can be moved by time zones without leaving the range of timestamps.
fn has_room(time: i64) -> bool {
    (TIMESTAMPS.start + 10 * DAY..TIMESTAMPS.end - 10 * DAY).contains(&time)
}

/// Calls a built-in function that never returns NULL.
///
/// # Safety
/// The function takes one argument, of this type.
unsafe fn call(
    function: unsafe fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum,
    argument: pg_sys::Datum,
) -> pg_sys::Datum {
    // SAFETY: by contract.
    unsafe { pgrx::direct_function_call_as_datum(function, &[Some(argument)]).expect("not NULL") }
}

/// A local time as a point in time, by the session's time zone.
fn in_zone(time: i64) -> Option<i64> {
    // SAFETY: the function takes and returns int64.
    has_room(time).then(|| unsafe { call(pg_sys::timestamp_timestamptz, time.into()).value() as i64 })
}

/// A point in time as a local time, by the session's time zone.
fn local(time: i64) -> Option<i64> {
    // SAFETY: the function takes and returns int64.
    has_room(time).then(|| unsafe { call(pg_sys::timestamptz_timestamp, time.into()).value() as i64 })
}

/// The key of a signed number.
fn signed(x: i64) -> u64 {
    x as u64 ^ SIGN
}

/// The key of a floating-point number in PostgreSQL's order: -0 is 0, and NaN the largest.
fn float(x: f64) -> u64 {
    if x.is_nan() {
        return u64::MAX;
    }
    let bits = (x + 0.0).to_bits();
    if bits & SIGN != 0 { !bits } else { bits | SIGN }
}

/// The key of an inet or cidr value, given the bytes behind its varlena header: family, bits of the mask, address. The order
/// is PostgreSQL's: family, the networks' common part, length of the mask, host.
fn inet(bytes: &[u8]) -> u64 {
    let (family, length) = (bytes[0], u32::from(bytes[1]));
    let host = u64::from_be_bytes(std::array::from_fn(|i| bytes.get(2 + i).copied().unwrap_or(0)));
    let network = match length {
        0 => 0,
        n => host & (u64::MAX << (64 - n.min(64))),
    };
    if family == AF_INET {
        // 32 bits of network, 6 of length, and 25 of the host.
        let host = (host & !network) >> 32;
        network >> 32 << 31 | u64::from(length) << 25 | if length < 7 { host >> (7 - length) } else { host }
    } else {
        SIGN | network >> 1
    }
}

/// The elements of an array that are not NULL; those that are passed by reference are valid for as long as the array is.
///
/// # Safety
/// `value` is an array that outlives the result's use.
pub unsafe fn elements(value: pg_sys::Datum) -> Vec<pg_sys::Datum> {
    let mut elements = Vec::new();
    // SAFETY: by contract. A detoasted copy stays: elements point into it; it goes with the scan's memory context.
    unsafe {
        let array = std::mem::ManuallyDrop::new(Detoasted::new(value));
        let entry = typed((*array.pointer.cast::<pg_sys::ArrayType>()).elemtype);
        for_elements(&array, entry, |element| elements.extend(element));
    }
    elements
}

/// As [`elements`]; None if one is NULL.
///
/// # Safety
/// As there.
pub unsafe fn all_elements(value: pg_sys::Datum) -> Option<Vec<pg_sys::Datum>> {
    // SAFETY: by contract.
    let (values, has_null) = unsafe {
        let values = elements(value);
        let array = Detoasted::new(value);
        (values, pg_sys::array_contains_nulls(array.pointer.cast()))
    };
    (!has_null).then_some(values)
}

/// Calls `visit` with each element of an array, None for NULL.
///
/// # Safety
/// `array` is an array, and `entry` that of its elements' type.
unsafe fn for_elements(
    array: &Detoasted,
    entry: *const pg_sys::TypeCacheEntry,
    mut visit: impl FnMut(Option<pg_sys::Datum>),
) {
    let (mut values, mut nulls, mut n) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
    // SAFETY: by contract; the two results are arrays of n.
    unsafe {
        pg_sys::deconstruct_array(
            array.pointer.cast(),
            (*entry).type_id,
            (*entry).typlen.into(),
            (*entry).typbyval,
            (*entry).typalign,
            &mut values,
            &mut nulls,
            &mut n,
        );
        for i in 0..n as usize {
            visit((!*nulls.add(i)).then(|| *values.add(i)));
        }
        pg_sys::pfree(values.cast());
        pg_sys::pfree(nulls.cast());
    }
}

/// The type cache's entry of a type, with its hash function.
fn typed(oid: pg_sys::Oid) -> *mut pg_sys::TypeCacheEntry {
    // SAFETY: a look-up; entries are never freed.
    unsafe { pg_sys::lookup_type_cache(oid, pg_sys::TYPECACHE_HASH_EXTENDED_PROC_FINFO as i32) }
}

/// A type's 64-bit hash function under a collation.
#[derive(Clone, Copy)]
pub struct Hash {
    function: *mut pg_sys::FmgrInfo,
    collation: pg_sys::Oid,
}

impl Hash {
    /// Of a type; an ERROR when it has none.
    pub fn of_type(oid: pg_sys::Oid, collation: pg_sys::Oid) -> Hash {
        Hash::of_entry(typed(oid), collation)
    }

    fn of_entry(entry: *mut pg_sys::TypeCacheEntry, collation: pg_sys::Oid) -> Hash {
        // SAFETY: an entry of the type cache, which is never freed.
        unsafe {
            let function = &raw mut (*entry).hash_extended_proc_finfo;
            if (*function).fn_oid == pg_sys::InvalidOid {
                let name = pg_sys::format_type_be((*entry).type_id);
                let name = std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned();
                ereport!(
                    ERROR,
                    PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
                    format!("could not identify an extended hash function for type {name}")
                );
            }
            let collation = if collation == pg_sys::InvalidOid { (*entry).typcollation } else { collation };
            Hash { function, collation }
        }
    }

    /// # Safety
    /// `value` is a non-NULL value of the type.
    unsafe fn of(self, value: pg_sys::Datum) -> u64 {
        // SAFETY: by contract.
        unsafe {
            pg_sys::FunctionCall2Coll(self.function, self.collation, value, pg_sys::Datum::from(0_u64)).value() as u64
        }
    }
}

/// A varlena value in its plain form; a copy made for that is freed when dropped.
struct Detoasted {
    pointer: *mut pg_sys::varlena,
    copied: bool,
}

impl Detoasted {
    /// # Safety
    /// `value` is a varlena value.
    unsafe fn new(value: pg_sys::Datum) -> Detoasted {
        // SAFETY: by contract.
        let pointer = unsafe { pg_sys::pg_detoast_datum(value.cast_mut_ptr()) };
        Detoasted { pointer, copied: pointer != value.cast_mut_ptr() }
    }

    fn datum(&self) -> pg_sys::Datum {
        pg_sys::Datum::from(self.pointer)
    }

    /// What is behind the header.
    fn bytes(&self) -> &[u8] {
        // SAFETY: detoasted, and kept while self lives.
        unsafe { pgrx::varlena_to_byte_slice(self.pointer) }
    }
}

impl Drop for Detoasted {
    fn drop(&mut self) {
        if self.copied && !std::thread::panicking() {
            // SAFETY: pg_detoast_datum allocated it.
            unsafe { pg_sys::pfree(self.pointer.cast()) }
        }
    }
}
