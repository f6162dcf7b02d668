//! The conditions of a scan on its filter columns.

use super::columns::Columns;
use super::keys::{self, Column, Kind};
use crate::index::page::Block;
use ann::filter::{self, Summary};
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

/// Values of an IN that are each compared with all keys of a block; more are searched for.
const FEW: usize = 8;

/// A test of one column.
#[derive(Clone, Debug)]
enum Test {
    Within(u64, u64),
    /// Sorted.
    OneOf(Vec<u64>),
    Overlaps(u64),
    Contains(u64),
    Null,
    NotNull,
    /// None of these, which are sorted.
    NoneOf(Vec<u64>),
}

/// The conjunction of a scan's conditions.
#[derive(Clone, Debug, Default)]
pub struct Predicate {
    /// By column.
    tests: Vec<(usize, Test)>,
    /// Of each of these, one must let a row pass.
    any: Vec<Vec<Predicate>>,
    /// No row can pass.
    nothing: bool,
    /// Rows that pass may still not match.
    recheck: bool,
}

impl Predicate {
    /// From scan keys, as the executor gives them to `amrescan`.
    ///
    /// # Safety
    /// `keys` are valid scan keys of the index with these columns.
    pub unsafe fn new(columns: &Columns, keys: &[pg_sys::ScanKeyData]) -> Predicate {
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
                unsafe { predicate.compare_any(column, at, key) }
            } else {
                // SAFETY: by contract.
                unsafe { predicate.compare(column, at, key) }
            }
        }
        predicate.tests.sort_by_key(|t| t.0);
        predicate
    }

    /// Whether it is known that no row passes.
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// Whether it lets all rows pass.
    pub fn is_empty(&self) -> bool {
        self.tests.is_empty() && self.any.is_empty() && !self.nothing
    }

    /// Whether rows that pass must be compared with the conditions themselves.
    pub fn recheck(&self) -> bool {
        self.recheck
    }

    /// Demands what another predicate does, too.
    pub fn and(&mut self, other: Predicate) {
        self.nothing |= other.nothing;
        self.recheck |= other.recheck;
        for (column, test) in other.tests {
            self.add(column, test);
        }
        self.any.extend(other.any);
    }

    /// Demands that one of some predicates lets a row pass.
    pub fn and_any(&mut self, mut parts: Vec<Predicate>) {
        self.recheck |= parts.iter().any(Predicate::recheck);
        if parts.iter().any(Predicate::is_empty) {
            return;
        }
        parts.retain(|part| !part.nothing);
        match parts.len() {
            0 => self.nothing = true,
            1 => self.and(parts.pop().unwrap()),
            _ => self.any.push(parts),
        }
    }

    /// `column <> constant`, or, of a key that is flagged as one of an array, `column <> ALL (array)`. The key's strategy is equality.
    ///
    /// # Safety
    /// A valid scan key of the index with these columns.
    pub unsafe fn differing(columns: &Columns, key: &pg_sys::ScanKeyData) -> Predicate {
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

    /// Adds a condition; ranges of a column are joined.
    fn add(&mut self, column: usize, test: Test) {
        if let Test::Within(low, high) = test {
            let range = self.tests.iter_mut().find_map(|(c, t)| match t {
                Test::Within(low, high) if *c == column => Some((low, high)),
                _ => None,
            });
            if let Some((first, last)) = range {
                (*first, *last) = (low.max(*first), high.min(*last));
                self.nothing |= first > last;
                return;
            }
            self.nothing |= low > high;
        }
        self.tests.push((column, test));
    }

    /// Adds `column operator constant`.
    ///
    /// # Safety
    /// `key` is such a scan key, its constant not NULL.
    unsafe fn compare(&mut self, column: &Column, at: usize, key: &pg_sys::ScanKeyData) {
        if matches!(key.sk_strategy, strategy::OVERLAPS | strategy::CONTAINS) {
            // SAFETY: the operators of these strategies take arrays.
            let (bits, has_null) = unsafe { column.set(key.sk_argument) };
            self.recheck = true;
            match key.sk_strategy {
                strategy::OVERLAPS => self.add(at, Test::Overlaps(bits)),
                // No array contains a NULL by `@>`.
                _ if has_null => self.nothing = true,
                _ => self.add(at, Test::Contains(bits)),
            }
            return;
        }
        // SAFETY: by contract.
        let test = unsafe { self.range(column, key.sk_strategy, key.sk_argument, key.sk_subtype) };
        self.add(at, Test::Within(test.0, test.1));
    }

    /// The keys that a comparison with a constant lets pass.
    ///
    /// # Safety
    /// The constant is a value of the type, the right operand of the column's operator of this strategy.
    unsafe fn range(&mut self, column: &Column, strategy: u16, value: pg_sys::Datum, other: pg_sys::Oid) -> (u64, u64) {
        // SAFETY: by contract.
        let place = unsafe { column.place(value, other) };
        self.recheck |= !place.exact;
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
    unsafe fn compare_any(&mut self, column: &Column, at: usize, key: &pg_sys::ScanKeyData) {
        // SAFETY: by contract, the argument is an array of the operator's right type.
        let values = unsafe { keys::elements(key.sk_argument) };
        // NULLs match nothing.
        let mut ranges: Vec<(u64, u64)> = values
            .into_iter()
            // SAFETY: as above.
            .map(|value| unsafe { self.range(column, key.sk_strategy, value, key.sk_subtype) })
            .filter(|(low, high)| low <= high)
            .collect();
        match key.sk_strategy {
            _ if ranges.is_empty() => self.nothing = true,
            strategy::EQUAL if ranges.iter().all(|(low, high)| low == high) => {
                let mut keys: Vec<u64> = ranges.into_iter().map(|r| r.0).collect();
                keys.sort_unstable();
                keys.dedup();
                match keys[..] {
                    [key] => self.add(at, Test::Within(key, key)),
                    _ => self.add(at, Test::OneOf(keys)),
                }
            }
            strategy => {
                // One interval around all of them. That is the union, except for those of inexact constants.
                self.recheck |= strategy == strategy::EQUAL;
                let first = ranges.iter().map(|r| r.0).min().unwrap();
                let last = ranges.drain(..).map(|r| r.1).max().unwrap();
                self.add(at, Test::Within(first, last));
            }
        }
    }

    /// Those of the `live` slots of a block that pass.
    #[inline]
    pub fn passing(&self, block: &Block<'_>, live: u32) -> u32 {
        let mut mask = if self.nothing { 0 } else { live };
        for (column, test) in &self.tests {
            if mask == 0 {
                break;
            }
            let nulls = block.nulls(*column);
            let keys = || block.keys(*column);
            mask &= match test {
                Test::Null => nulls,
                Test::NotNull => !nulls,
                Test::Within(low, high) => filter::within(keys(), *low, *high) & !nulls,
                Test::Overlaps(bits) => filter::overlaps(keys(), *bits) & !nulls,
                Test::Contains(bits) => filter::contains(keys(), *bits) & !nulls,
                Test::OneOf(values) => one_of(keys(), values, mask & !nulls),
                Test::NoneOf(values) => !one_of(keys(), values, mask) & !nulls,
            };
        }
        for parts in &self.any {
            if mask == 0 {
                break;
            }
            let mut passing = 0;
            for part in parts {
                passing |= part.passing(block, mask & !passing);
            }
            mask &= passing;
        }
        mask
    }

    /// Calls `visit` with the columns that there are conditions on; with some of them more than once.
    pub fn for_columns(&self, visit: &mut dyn FnMut(usize)) {
        self.tests.iter().for_each(|(column, _)| visit(*column));
        self.any.iter().flatten().for_each(|part| part.for_columns(visit));
    }

    /// Whether a list with these summaries may hold a row that passes. `summary` tells that of a column, as it is on its page.
    #[inline]
    pub fn may_match<'p>(&self, summary: impl Fn(usize) -> &'p [u8; Summary::BYTES]) -> bool {
        self.tests_may_match(&summary)
            && self.any.iter().all(|parts| parts.iter().any(|part| part.may_match_dyn(&summary)))
    }

    /// [`Predicate::may_match`] of a part, for which there is one form for all callers.
    fn may_match_dyn<'p>(&self, summary: &dyn Fn(usize) -> &'p [u8; Summary::BYTES]) -> bool {
        self.tests_may_match(&summary)
            && self.any.iter().all(|parts| parts.iter().any(|part| part.may_match_dyn(summary)))
    }

    #[inline]
    fn tests_may_match<'p>(&self, summary: &impl Fn(usize) -> &'p [u8; Summary::BYTES]) -> bool {
        !self.nothing
            && self.tests.iter().all(|(column, test)| {
                let bytes = summary(*column);
                if let Test::Within(low, high) = test
                    && Summary::is_beyond(bytes, *low, *high)
                {
                    return false;
                }
                let summary = Summary::from_bytes(bytes);
                match test {
                    Test::Null => summary.has_nulls(),
                    Test::NotNull | Test::NoneOf(_) => summary.has_keys(),
                    Test::Within(low, high) => summary.may_hold(*low, *high),
                    Test::OneOf(values) => summary.may_hold_one_of(values),
                    Test::Overlaps(bits) => summary.may_overlap(*bits),
                    Test::Contains(bits) => summary.may_contain(*bits),
                }
            })
    }
}

/// Those of the `wanted` slots whose key is one of the `values`.
fn one_of(keys: &filter::Keys, values: &[u64], wanted: u32) -> u32 {
    if values.len() <= FEW {
        return values.iter().fold(0, |mask, &v| mask | filter::within(keys, v, v)) & wanted;
    }
    let mut left = wanted & filter::within(keys, values[0], values[values.len() - 1]);
    let mut mask = 0;
    while left != 0 {
        let slot = left.trailing_zeros() as usize;
        left &= left - 1;
        mask |= u32::from(values.binary_search(&keys[slot]).is_ok()) << slot;
    }
    mask
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
