//! The conditions of a scan on its filter columns.

use super::columns::Columns;
use super::keys::{self, Column, Kind};
pub use ivflsh::predicate::Predicate;
use ivflsh::predicate::Test;
use pgrx::prelude::*;

/// Strategy numbers of the operator classes of filter columns; the first five are btree's.
pub mod strategy {
    pub const LESS: u16 = 1;
    pub const LESS_EQUAL: u16 = 2;
    pub const EQUAL: u16 = 3;
    pub const GREATER_EQUAL: u16 = 4;
    pub const GREATER: u16 = 5;
    /// `&&`
    pub const OVERLAPS: u16 = 6;
    /// `@>`
    pub const CONTAINS: u16 = 7;
}
/// The last strategy number.
pub const STRATEGIES: i16 = strategy::CONTAINS as i16;

/// The conditions of PostgreSQL's scan keys.
pub trait ScanConditions: Sized {
    /// From scan keys, as the executor gives them to `amrescan`.
    ///
    /// # Safety
    /// `keys` are valid scan keys of the index with these columns.
    unsafe fn from_keys(columns: &Columns, keys: &[pg_sys::ScanKeyData]) -> Predicate;

    /// `column <> constant`, or, of a key that is flagged as one of an array, `column <> ALL (array)`. The key's strategy is equality.
    ///
    /// # Safety
    /// A valid scan key of the index with these columns.
    unsafe fn differing(columns: &Columns, key: &pg_sys::ScanKeyData) -> Predicate;
}

impl ScanConditions for Predicate {
    unsafe fn from_keys(columns: &Columns, keys: &[pg_sys::ScanKeyData]) -> Predicate {
        let mut predicate = Predicate::default();
        for key in keys {
            let flags = key.sk_flags as u32;
            let Some(column) = columns.get(key.sk_attno) else {
                // The vector: there are no NULLs of it in the index.
                predicate.nothing |= flags & pg_sys::SK_SEARCHNULL != 0;
                continue;
            };
            let at = key.sk_attno as usize - 2;
            if flags & pg_sys::SK_SEARCHNULL != 0 {
                predicate.add(at, Test::Null);
            } else if flags & pg_sys::SK_SEARCHNOTNULL != 0 {
                predicate.add(at, Test::NotNull);
            } else if flags & pg_sys::SK_ISNULL != 0 {
                predicate.nothing = true; // the operators are strict
            } else if flags & pg_sys::SK_SEARCHARRAY != 0 {
                // SAFETY: by contract.
                unsafe { compare_any(&mut predicate, column, at, key) }
            } else {
                // SAFETY: by contract.
                unsafe { compare(&mut predicate, column, at, key) }
            }
        }
        predicate.sort();
        predicate
    }

    unsafe fn differing(columns: &Columns, key: &pg_sys::ScanKeyData) -> Predicate {
        let mut predicate = Predicate::default();
        let Some(column) = columns.get(key.sk_attno) else { return predicate };
        let at = key.sk_attno as usize - 2;
        let flags = key.sk_flags as u32;
        if flags & pg_sys::SK_ISNULL != 0 {
            predicate.nothing = true;
            return predicate;
        }
        // SAFETY: by contract.
        let values = unsafe {
            if flags & pg_sys::SK_SEARCHARRAY == 0 {
                vec![key.sk_argument]
            } else {
                match keys::all_elements(key.sk_argument) {
                    // Not known for any row, or false.
                    None => {
                        predicate.nothing = true;
                        return predicate;
                    }
                    // True even for NULL.
                    Some(values) if values.is_empty() => return predicate,
                    Some(values) => values,
                }
            }
        };
        let mut keys = Vec::new();
        for value in values {
            // SAFETY: by contract.
            let place = unsafe { column.place(value, key.sk_subtype) };
            // What has the key of a value need not be equal to it.
            if place.exact && place.first == place.last {
                keys.push(place.first);
            } else {
                predicate.recheck |= !place.exact;
            }
        }
        keys.sort_unstable();
        keys.dedup();
        predicate.add(at, if keys.is_empty() { Test::NotNull } else { Test::NoneOf(keys) });
        predicate
    }
}

/// Adds `column operator constant`.
///
/// # Safety
/// `key` is such a scan key, its constant not NULL.
unsafe fn compare(predicate: &mut Predicate, column: &Column, at: usize, key: &pg_sys::ScanKeyData) {
    if matches!(key.sk_strategy, strategy::OVERLAPS | strategy::CONTAINS) {
        // SAFETY: the operators of these strategies take arrays.
        let (bits, has_null) = unsafe { column.set(key.sk_argument) };
        predicate.recheck = true;
        match key.sk_strategy {
            strategy::OVERLAPS => predicate.add(at, Test::Overlaps(bits)),
            // No array contains a NULL by `@>`.
            _ if has_null => predicate.nothing = true,
            _ => predicate.add(at, Test::Contains(bits)),
        }
        return;
    }
    // SAFETY: by contract.
    let test = unsafe { range(predicate, column, key.sk_strategy, key.sk_argument, key.sk_subtype) };
    predicate.add(at, Test::Within(test.0, test.1));
}

/// The keys that a comparison with a constant lets pass.
///
/// # Safety
/// The constant is a value of the type, the right operand of the column's operator of this strategy.
unsafe fn range(
    predicate: &mut Predicate,
    column: &Column,
    strategy: u16,
    value: pg_sys::Datum,
    other: pg_sys::Oid,
) -> (u64, u64) {
    // SAFETY: by contract.
    let place = unsafe { column.place(value, other) };
    predicate.recheck |= !place.exact;
    /// No key is within it.
    const NONE: (u64, u64) = (u64::MAX, 0);
    let below = |key: u64| key.checked_sub(1).map_or(NONE, |last| (0, last));
    let above = |key: u64| key.checked_add(1).map_or(NONE, |first| (first, u64::MAX));
    // Where nothing is known, rows pass.
    match (strategy, place.exact) {
        (strategy::LESS, true) => below(place.first),
        (strategy::LESS, false) | (strategy::LESS_EQUAL, _) => (0, place.last),
        (strategy::EQUAL, _) => (place.first, place.last),
        (strategy::GREATER, true) => above(place.last),
        (strategy::GREATER, false) | (strategy::GREATER_EQUAL, _) => (place.first, u64::MAX),
        _ => {
            ereport!(ERROR, PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, format!("unknown ivflsh strategy {strategy}"));
        }
    }
}

/// Adds `column operator ANY (array)`.
///
/// # Safety
/// `key` is such a scan key, its array not NULL.
unsafe fn compare_any(predicate: &mut Predicate, column: &Column, at: usize, key: &pg_sys::ScanKeyData) {
    // SAFETY: by contract, the argument is an array of the operator's right type.
    let values = unsafe { keys::elements(key.sk_argument) };
    // NULLs match nothing.
    let mut ranges: Vec<(u64, u64)> = values
        .into_iter()
        // SAFETY: as above.
        .map(|value| unsafe { range(predicate, column, key.sk_strategy, value, key.sk_subtype) })
        .filter(|(low, high)| low <= high)
        .collect();
    match key.sk_strategy {
        _ if ranges.is_empty() => predicate.nothing = true,
        strategy::EQUAL if ranges.iter().all(|(low, high)| low == high) => {
            let mut keys: Vec<u64> = ranges.into_iter().map(|r| r.0).collect();
            keys.sort_unstable();
            keys.dedup();
            match keys[..] {
                [key] => predicate.add(at, Test::Within(key, key)),
                _ => predicate.add(at, Test::OneOf(keys)),
            }
        }
        strategy => {
            // One interval around all of them. That is the union, except for those of inexact constants.
            predicate.recheck |= strategy == strategy::EQUAL;
            let first = ranges.iter().map(|r| r.0).min().unwrap();
            let last = ranges.drain(..).map(|r| r.1).max().unwrap();
            predicate.add(at, Test::Within(first, last));
        }
    }
}

/// Whether the operator class of a kind may use a strategy.
pub fn allows(kind: Kind, strategy: i16) -> bool {
    match strategy as u16 {
        strategy::EQUAL => kind != Kind::Set,
        strategy::LESS | strategy::LESS_EQUAL | strategy::GREATER_EQUAL | strategy::GREATER => {
            !matches!(kind, Kind::Enum | Kind::Hash | Kind::Set)
        }
        strategy::OVERLAPS | strategy::CONTAINS => kind == Kind::Set,
        _ => false,
    }
}
