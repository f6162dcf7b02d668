//! Conditions on filter columns, as the engine tests them: on a block's keys, on a list's summaries.

use crate::page::Block;
use ann::filter::{self, Summary};

/// Values of an IN that are each compared with all keys of a block; more are searched for.
const FEW: usize = 8;

/// A test of one column.
#[derive(Clone, Debug)]
pub enum Test {
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
    pub nothing: bool,
    /// Rows that pass may still not match.
    pub recheck: bool,
}

impl Predicate {
    /// To be called when all conditions have been added.
    #[inline]
    pub fn sort(&mut self) {
        self.tests.sort_by_key(|t| t.0);
    }

    /// Whether it is known that no row passes.
    #[inline]
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// Whether it lets all rows pass.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.tests.is_empty() && self.any.is_empty() && !self.nothing
    }

    /// Whether rows that pass must be compared with the conditions themselves.
    #[inline]
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

    /// Adds a condition; ranges of a column are joined.
    pub fn add(&mut self, column: usize, test: Test) {
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
#[inline]
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
