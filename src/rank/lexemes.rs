//! Lexemes of PostgreSQL's text search types, read in place.
//!
//! Layouts: `tsearch/ts_type.h` of PostgreSQL. All of them are the same in the versions that we support.

use crate::pg::error::{Result, SqlError};
use crate::pg::function::FromArg;
use crate::pg::varlena::Detoasted;
use pgrx::pg_sys::Datum;

/// Where the number of entries, or of items, is; and where they begin.
const SIZE: usize = 4;
const FIRST: usize = 8;

/// Classes of weights, D (the default), C, B and A.
pub const WEIGHTS: usize = 4;

/// A borrowed `tsvector`.
pub struct TsVector<'a> {
    raw: Detoasted<'a>,
    size: usize,
}

/// A borrowed `tsquery`.
pub struct TsQuery<'a> {
    raw: Detoasted<'a>,
    size: usize,
}

fn corrupted_vector() -> SqlError {
    SqlError::corrupted("tsvector")
}

fn corrupted_query() -> SqlError {
    SqlError::corrupted("tsquery")
}

/// How many entries of `bytes` each a value says that it has, if it has room for them.
fn size_of_value(raw: &Detoasted<'_>, bytes: usize) -> Option<usize> {
    let size = usize::try_from(raw.scalar::<i32>(SIZE)?).ok()?;
    (size.checked_mul(bytes)?.checked_add(FIRST)? <= raw.bytes().len()).then_some(size)
}

impl FromArg<'_> for TsVector<'_> {
    const WHOLE: bool = true;

    unsafe fn from_arg(datum: Datum) -> Result<Self> {
        // SAFETY: the caller's promise.
        let raw = unsafe { Detoasted::new(datum) };
        let size = size_of_value(&raw, TsVector::ENTRY).ok_or_else(corrupted_vector)?;
        Ok(TsVector { raw, size })
    }
}

impl TsVector<'_> {
    /// `WordEntry`: from the lowest bit on, 1 bit whether there are positions, 11 bits length, 20 bits where the lexeme is.
    const ENTRY: usize = 4;

    /// Number of lexemes.
    pub fn len(&self) -> usize {
        self.size
    }

    /// Each lexeme with how many positions of each class of weights it has. One without positions counts as one of class D.
    pub fn for_each(&self, mut each: impl FnMut(&[u8], [u32; WEIGHTS])) -> Result<()> {
        let entries = self.raw.array::<u32>(FIRST, self.size).ok_or_else(corrupted_vector)?;
        let strings = FIRST + TsVector::ENTRY * self.size;
        let bytes = self.raw.bytes();
        for entry in entries {
            let (length, at) = ((entry >> 1 & 0x7ff) as usize, strings + (entry >> 12) as usize);
            let lexeme = bytes.get(at..at + length).ok_or_else(corrupted_vector)?;
            let counts = if entry & 1 == 0 { [1, 0, 0, 0] } else { self.counts((at + length).next_multiple_of(2))? };
            each(lexeme, counts);
        }
        Ok(())
    }

    /// Positions behind a lexeme: how many, then each with its weight in the two highest bits.
    fn counts(&self, at: usize) -> Result<[u32; WEIGHTS]> {
        let count = self.raw.scalar::<u16>(at).ok_or_else(corrupted_vector)?;
        let positions = self.raw.array::<u16>(at + 2, count.into()).ok_or_else(corrupted_vector)?;
        let mut counts = [0; WEIGHTS];
        positions.iter().for_each(|position| counts[usize::from(position >> 14)] += 1);
        Ok(counts)
    }
}

impl FromArg<'_> for TsQuery<'_> {
    const WHOLE: bool = true;

    unsafe fn from_arg(datum: Datum) -> Result<Self> {
        // SAFETY: the caller's promise.
        let raw = unsafe { Detoasted::new(datum) };
        let size = size_of_value(&raw, TsQuery::ITEM).ok_or_else(corrupted_query)?;
        Ok(TsQuery { raw, size })
    }
}

impl TsQuery<'_> {
    /// `QueryItem`. Both kinds begin with a byte of their kind.
    const ITEM: usize = 12;
    const OPERAND: u8 = 1;
    const OPERATOR: u8 = 2;
    const NOT: u8 = 1;

    /// Each lexeme that a match may contain, as often as it stands in the query; those below a NOT are left out. An operand
    /// that is a prefix is an error: no number stands for all words that begin so.
    pub fn for_each(&self, mut each: impl FnMut(&[u8])) -> Result<()> {
        let bytes = self.raw.bytes();
        let text = FIRST + TsQuery::ITEM * self.size;
        // Items stand in Polish notation: an operator is followed by its right operand; `left` says how far the left one is.
        let mut due = vec![(0, false)];
        let mut seen = 0;
        while let Some((i, negated)) = due.pop() {
            if self.size == 0 {
                break;
            }
            seen += 1;
            if i >= self.size || seen > self.size {
                return Err(corrupted_query());
            }
            let item = &bytes[FIRST + TsQuery::ITEM * i..][..TsQuery::ITEM];
            let word = |at: usize| u32::from_ne_bytes(item[at..at + 4].try_into().expect("four bytes"));
            match item[0] {
                TsQuery::OPERATOR if item[1] == TsQuery::NOT => due.push((i + 1, !negated)),
                TsQuery::OPERATOR => {
                    due.push((i + 1, negated));
                    due.push((i.checked_add(word(4) as usize).ok_or_else(corrupted_query)?, negated));
                }
                TsQuery::OPERAND if negated => {}
                TsQuery::OPERAND if item[2] != 0 => {
                    return Err(SqlError::new(
                        pgrx::PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                        "bm25_query cannot score a prefix",
                    )
                    .with_detail(
                        "Words that begin so have no common number; give whole words, and use the prefix with @@.",
                    ));
                }
                TsQuery::OPERAND => {
                    let (length, at) = ((word(8) & 0xfff) as usize, text + (word(8) >> 12) as usize);
                    each(bytes.get(at..at + length).ok_or_else(corrupted_query)?);
                }
                _ => return Err(corrupted_query()),
            }
        }
        Ok(())
    }
}
