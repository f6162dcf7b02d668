//! `bm25_stats`: what BM25 knows of a collection of documents, as one value.
//!
//! A term is known by a number, [`term`], that follows from its lexeme alone. So documents need nothing of the collection but
//! the mean length, and a document with words that nobody has counted yet is found by them.
//!
//! The value is kept out of line and uncompressed, in buckets by number: a query fetches the buckets of its terms, however
//! large the vocabulary is.

use super::lexemes::{TsVector, WEIGHTS};
use crate::pg::array::ArrayRef;
use crate::pg::error::{Result, SqlError, quotable};
use crate::pg::function::{FromArg, IntoReturn, Raw, pg_function};
use crate::pg::varlena::{self, Detoasted, LENGTH_WORD, NewVarlena};
use crate::pg::wire::{Message, Reply};
use crate::types::sparsevec::MAX_DIMS;
use ann::memory;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use pgrx::{PgMemoryContexts, PgSqlErrorCode};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};

/// Dimensions of documents and queries.
pub const TERMS: i32 = MAX_DIMS;

/// The number of a lexeme, 0 to [`TERMS`] − 1. Of a million terms each shares its number with another by a chance of 1 in 1,000.
pub fn term(lexeme: &[u8]) -> u32 {
    (xxhash_rust::xxh3::xxh3_64(lexeme) % TERMS as u64) as u32
}

/// What documents are weighted by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameters {
    /// Documents of the collection.
    pub documents: f64,
    /// Sum of their lengths, in weighted occurrences of words.
    pub length: f64,
    /// How soon more occurrences of a word count no more.
    pub k1: f64,
    /// How much the length of a document counts, 0 to 1.
    pub b: f64,
    /// What an occurrence counts, by class: D, C, B, A, as in `ts_rank`.
    pub weights: [f32; WEIGHTS],
}

impl Parameters {
    /// Those that are usual, of an empty collection.
    const USUAL: Parameters = Parameters { documents: 0.0, length: 0.0, k1: 1.2, b: 0.75, weights: [1.0; WEIGHTS] };
    /// Most documents: counts of these are exact.
    const MOST_DOCUMENTS: f64 = (1u64 << 53) as f64;

    fn check(self) -> Result<Self> {
        let refuse = |what: &str| Err(SqlError::parameter(format!("bm25_stats: {what}")));
        let counts = 0.0..=Parameters::MOST_DOCUMENTS;
        if !counts.contains(&self.documents) || self.documents.fract() != 0.0 {
            return refuse("documents must be a whole number from 0 to 2^53");
        }
        if !(self.length.is_finite() && self.length >= 0.0) {
            return refuse("length must be finite and not negative");
        }
        if !(self.k1.is_finite() && self.k1 >= 0.0) {
            return refuse("k1 must be finite and not negative");
        }
        if !(0.0..=1.0).contains(&self.b) {
            return refuse("b must be from 0 to 1");
        }
        if !self.weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0) {
            return refuse("weights must be finite and not negative");
        }
        Ok(self)
    }

    /// How often words of a document count for it, by the classes of their weights.
    pub fn weighted(&self, counts: [u32; WEIGHTS]) -> f64 {
        counts.iter().zip(&self.weights).map(|(count, weight)| f64::from(*count) * f64::from(*weight)).sum()
    }

    /// The length of a document beside the mean's. In an empty collection every document is of mean length.
    pub fn relative_length(&self, length: f64) -> f64 {
        if self.documents > 0.0 && self.length > 0.0 { length * self.documents / self.length } else { 1.0 }
    }
}

// On disk: length word, u32 layout, f64 documents, f64 length, f64 k1, f64 b, f32 weights[4], u32 terms, u32 buckets, then
// u32 first[buckets + 1] (where in the pairs a bucket begins), and the pairs u32 term, u32 documents that have it, by term.
const LAYOUT: usize = LENGTH_WORD;
const NUMBERS: usize = 8;
const WEIGHTS_AT: usize = 40;
const COUNT: usize = 56;
const BUCKETS: usize = 60;
const FIRSTS: usize = 64;
/// The layout of this version.
const LAYOUT_1: u32 = 1;
/// Without frequencies: for documents only.
const PARAMETERS_ONLY: u32 = 1 << 16;
/// Terms of a bucket on average.
const BUCKET: usize = 128;

/// Documents by term.
type Frequency = (u32, u32);

/// A borrowed `bm25_stats`.
pub struct Stats<'a> {
    /// What the frequencies are read from.
    source: Source<'a>,
    pub parameters: Parameters,
    has_frequencies: bool,
    terms: usize,
    buckets: usize,
}

enum Source<'a> {
    Here(Detoasted<'a>),
    OutOfLine(Datum),
}

fn corrupted() -> SqlError {
    SqlError::corrupted("bm25_stats")
}

impl FromArg<'_> for Stats<'_> {
    unsafe fn from_arg(datum: Datum) -> Result<Self> {
        // SAFETY: the caller's promise: a varlena that outlives the call.
        let (head, size, source) = unsafe {
            if varlena::is_out_of_line(datum) {
                let head = varlena::head(datum, FIRSTS - LENGTH_WORD);
                (head, pg_sys::toast_raw_datum_size(datum), Source::OutOfLine(datum))
            } else {
                let (head, whole) = (Detoasted::new(datum), Detoasted::new(datum));
                let size = whole.bytes().len();
                (head, size, Source::Here(whole))
            }
        };
        Stats::new(head, size, source).ok_or_else(corrupted)
    }
}

impl<'a> Stats<'a> {
    fn new(head: Detoasted<'_>, size: usize, source: Source<'a>) -> Option<Stats<'a>> {
        let layout = head.scalar::<u32>(LAYOUT)?;
        let &[documents, length, k1, b] = head.array::<f64>(NUMBERS, 4)? else { return None };
        let weights = head.array::<f32>(WEIGHTS_AT, WEIGHTS)?.try_into().ok()?;
        let (terms, buckets) = (head.scalar::<u32>(COUNT)? as usize, head.scalar::<u32>(BUCKETS)? as usize);
        let parameters = Parameters { documents, length, k1, b, weights }.check().ok()?;
        let sound = layout & !PARAMETERS_ONLY == LAYOUT_1 && buckets > 0 && size == Stats::size(terms, buckets)?;
        let has_frequencies = layout & PARAMETERS_ONLY == 0;
        sound.then_some(Stats { source, parameters, has_frequencies, terms, buckets })
    }

    fn size(terms: usize, buckets: usize) -> Option<usize> {
        terms.checked_mul(2)?.checked_add(buckets.checked_add(1)?)?.checked_mul(4)?.checked_add(FIRSTS)
    }

    /// Numbers of the value, fetched if it is out of line.
    fn numbers<R>(&self, at: usize, count: usize, with: impl FnOnce(&[u32]) -> R) -> Result<R> {
        match &self.source {
            Source::Here(whole) => whole.array(at, count).map(with),
            Source::OutOfLine(datum) => {
                // SAFETY: the varlena of `from_arg`.
                let part = unsafe { varlena::part(*datum, at - LENGTH_WORD, 4 * count) };
                part.array(LENGTH_WORD, count).map(with)
            }
        }
        .ok_or_else(corrupted)
    }

    /// An error where a query cannot be weighted.
    pub fn check_frequencies(&self) -> Result<()> {
        if self.has_frequencies {
            return Ok(());
        }
        Err(SqlError::parameter("bm25_stats has no frequencies of terms").with_detail(
            "What bm25_parameters returns serves documents only; queries need what the aggregate bm25_stats returned.",
        ))
    }

    /// How many documents of the collection have a term.
    pub fn documents_with(&self, term: u32) -> Result<u32> {
        let bucket = bucket_of(term, self.buckets);
        let (first, end) = self.numbers(FIRSTS + 4 * bucket, 2, |ends| (ends[0] as usize, ends[1] as usize))?;
        if first > end || end > self.terms {
            return Err(corrupted());
        }
        let pairs = FIRSTS + 4 * (self.buckets + 1) + 8 * first;
        self.numbers(pairs, 2 * (end - first), |pairs| {
            pairs.chunks_exact(2).find(|pair| pair[0] == term).map_or(0, |pair| pair[1])
        })
    }

    /// All frequencies, by term.
    fn frequencies(&self) -> Result<Vec<Frequency>> {
        self.numbers(FIRSTS + 4 * (self.buckets + 1), 2 * self.terms, |pairs| {
            memory::collected(pairs.chunks_exact(2).map(|pair| (pair[0], pair[1])))
        })
    }
}

fn bucket_of(term: u32, buckets: usize) -> usize {
    (u64::from(term) * buckets as u64 / TERMS as u64).min(buckets as u64 - 1) as usize
}

/// Makes a value. `frequencies` are by term, each term once; None: a value for documents only.
fn make(parameters: &Parameters, frequencies: Option<&[Frequency]>) -> Result<NewVarlena> {
    let pairs = frequencies.unwrap_or_default();
    let buckets = pairs.len().div_ceil(BUCKET).max(1);
    // What palloc gives at most.
    let most = 0x3fff_ffff;
    let size = Stats::size(pairs.len(), buckets).filter(|size| *size <= most);
    let size = size.ok_or_else(|| SqlError::limit("bm25_stats: too many terms for one value"))?;
    let mut value = NewVarlena::zeroed(size);
    value.set(LAYOUT, if frequencies.is_some() { LAYOUT_1 } else { LAYOUT_1 | PARAMETERS_ONLY });
    let Parameters { documents, length, k1, b, weights } = *parameters;
    value.array_mut(NUMBERS, 4).copy_from_slice(&[documents, length, k1, b]);
    value.array_mut(WEIGHTS_AT, WEIGHTS).copy_from_slice(&weights);
    value.set(COUNT, pairs.len() as u32);
    value.set(BUCKETS, buckets as u32);
    let firsts = value.array_mut::<u32>(FIRSTS, buckets + 1);
    let mut next = 0;
    for (bucket, first) in firsts.iter_mut().enumerate() {
        next += pairs[next..].iter().take_while(|pair| bucket_of(pair.0, buckets) < bucket).count();
        *first = next as u32;
    }
    firsts[buckets] = pairs.len() as u32;
    let numbers = value.array_mut::<u32>(FIRSTS + 4 * (buckets + 1), 2 * pairs.len());
    for (place, pair) in numbers.chunks_exact_mut(2).zip(pairs) {
        place.copy_from_slice(&[pair.0, pair.1]);
    }
    Ok(value)
}

// Text and wire: JSON, for people and programs. The wire carries the same text, behind a byte of its version, as jsonb's does.

/// A value as text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text<'a> {
    documents: u64,
    length: f64,
    #[serde(default = "usual_k1")]
    k1: f64,
    #[serde(default = "usual_b")]
    b: f64,
    #[serde(default = "usual_weights")]
    weights: [f32; WEIGHTS],
    /// Documents by the number of a term, 1 to 10⁹ as elements of a `sparsevec` are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    frequencies: Option<Cow<'a, BTreeMap<u32, u32>>>,
}

fn usual_k1() -> f64 {
    Parameters::USUAL.k1
}

fn usual_b() -> f64 {
    Parameters::USUAL.b
}

fn usual_weights() -> [f32; WEIGHTS] {
    Parameters::USUAL.weights
}

fn parse(text: &[u8]) -> Result<NewVarlena> {
    let syntax = |reason: String| {
        let shown = &text[..text.len().min(100)];
        let message = format!("invalid input syntax for type bm25_stats: \"{}\": {reason}", quotable(shown));
        SqlError::new(PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION, message)
    };
    let read: Text<'_> = serde_json::from_slice(text).map_err(|error| syntax(error.to_string()))?;
    let Text { documents, length, k1, b, weights, frequencies } = read;
    let parameters = Parameters { documents: documents as f64, length, k1, b, weights }.check()?;
    let Some(frequencies) = frequencies else { return make(&parameters, None) };
    let mut pairs: Vec<Frequency> = memory::with_room(frequencies.len());
    for (&number, &count) in frequencies.iter() {
        if !(1..=TERMS as u32).contains(&number) {
            return Err(syntax(format!("term {number} is not from 1 to {TERMS}")));
        }
        if count == 0 || u64::from(count) > documents {
            return Err(syntax(format!("term {number} is in {count} of {documents} documents")));
        }
        pairs.push((number - 1, count));
    }
    make(&parameters, Some(&pairs))
}

fn text_of(stats: &Stats<'_>) -> Result<String> {
    let Parameters { documents, length, k1, b, weights } = stats.parameters;
    let frequencies = stats.frequencies()?;
    let frequencies = stats.has_frequencies.then(|| frequencies.iter().map(|pair| (pair.0 + 1, pair.1)).collect());
    let text = Text { documents: documents as u64, length, k1, b, weights, frequencies: frequencies.map(Cow::Owned) };
    serde_json::to_string(&text).map_err(|_| corrupted())
}

/// A palloc'd C string.
struct CText(String);

impl IntoReturn for CText {
    unsafe fn into_return(self, _: FunctionCallInfo) -> Datum {
        let text = CString::new(self.0).unwrap_or_default();
        // SAFETY: a C string, copied into the current memory context.
        let copy = unsafe { pg_sys::pstrdup(text.as_ptr()) };
        Datum::from(copy)
    }
}

pg_function! {
    fn vx_bm25_stats_in(text: &CStr) -> NewVarlena {
        parse(text.to_bytes())
    }
}

pg_function! {
    fn vx_bm25_stats_out(stats: Stats<'_>) -> CText {
        Ok(CText(text_of(&stats)?))
    }
}

/// Version of the wire's text.
const WIRE_1: u8 = 1;

pg_function! {
    fn vx_bm25_stats_recv(message: Message<'_>) -> NewVarlena {
        let mut message = message;
        if message.bytes(1)? != [WIRE_1] {
            return Err(SqlError::data("unsupported version of a binary bm25_stats"));
        }
        let rest = message.left();
        parse(message.bytes(rest)?)
    }
}

pg_function! {
    fn vx_bm25_stats_send(stats: Stats<'_>) -> NewVarlena {
        let text = text_of(&stats)?;
        let mut reply = Reply::new(1 + text.len());
        reply.push([WIRE_1]);
        reply.push_all(text.bytes().map(|byte| [byte]).collect::<Vec<_>>().into_iter());
        Ok(reply.finish())
    }
}

pg_function! {
    /// The same without frequencies: small enough to be written into the definition of a column.
    fn vx_bm25_parameters(stats: Stats<'_>) -> NewVarlena {
        make(&stats.parameters, None)
    }
}

// The aggregate.

/// What has been counted so far.
struct Counting {
    parameters: Parameters,
    /// By term.
    counted: Vec<Frequency>,
    /// Terms of documents that are not in `counted` yet, in any order; of each document each term once.
    new: Vec<u32>,
    /// The terms of one document.
    document: Vec<u32>,
}

impl Counting {
    /// New terms that are counted together, at least.
    const LEAST: usize = 1 << 18;

    fn new(parameters: Parameters) -> Counting {
        Counting { parameters, counted: Vec::new(), new: Vec::new(), document: Vec::new() }
    }

    fn add(&mut self, document: &TsVector<'_>) -> Result<()> {
        let mut length = 0.0;
        let (terms, parameters) = (&mut self.document, &self.parameters);
        terms.clear();
        document.for_each(|lexeme, counts| {
            let weighted = parameters.weighted(counts);
            length += weighted;
            if weighted > 0.0 {
                memory::push(terms, term(lexeme));
            }
        })?;
        terms.sort_unstable();
        terms.dedup();
        memory::append(&mut self.new, &self.document);
        self.parameters.documents += 1.0;
        self.parameters.length += length;
        if self.new.len() > self.counted.len().max(Counting::LEAST) {
            self.count();
        }
        Ok(())
    }

    /// Brings all terms into `counted`.
    fn count(&mut self) {
        self.new.sort_unstable();
        let runs = self.new.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() as u32));
        self.counted = merged(&self.counted, &memory::collected(runs));
        self.new.clear();
    }

    fn combine(&mut self, other: &mut Counting) -> Result<()> {
        self.count();
        other.count();
        self.check_same(&other.parameters)?;
        self.counted = merged(&self.counted, &other.counted);
        self.parameters.documents += other.parameters.documents;
        self.parameters.length += other.parameters.length;
        Ok(())
    }

    fn check_same(&self, other: &Parameters) -> Result<()> {
        let key = |p: &Parameters| (p.k1, p.b, p.weights);
        if key(&self.parameters) != key(other) {
            return Err(SqlError::parameter("bm25_stats: k1, b and weights must be the same for all documents"));
        }
        Ok(())
    }
}

/// Two lists by term into one.
fn merged(a: &[Frequency], b: &[Frequency]) -> Vec<Frequency> {
    let mut all = memory::with_room(a.len() + b.len());
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        match a[i].0.cmp(&b[j].0) {
            std::cmp::Ordering::Less => (all.push(a[i]), i += 1).1,
            std::cmp::Ordering::Greater => (all.push(b[j]), j += 1).1,
            std::cmp::Ordering::Equal => {
                all.push((a[i].0, a[i].1.saturating_add(b[j].1)));
                (i, j) = (i + 1, j + 1);
            }
        }
    }
    all.extend_from_slice(&a[i..]);
    all.extend_from_slice(&b[j..]);
    all
}

/// The aggregate's state, an argument of SQL type `internal`. NULL: none yet.
struct State(Option<&'static mut Counting>);

/// An argument of a function that is not STRICT.
fn argument(fcinfo: FunctionCallInfo, i: usize) -> Option<Datum> {
    // SAFETY: a valid call; the slice is as long as it says.
    let args = unsafe { (*fcinfo).args.as_slice((*fcinfo).nargs as usize) };
    args.get(i).filter(|arg| !arg.isnull).map(|arg| arg.value)
}

impl State {
    /// The state that is an argument of a call by an aggregate.
    fn of(fcinfo: FunctionCallInfo, i: usize) -> Result<(State, pg_sys::MemoryContext)> {
        let mut context = std::ptr::null_mut();
        // SAFETY: only looks at the call's context node.
        if unsafe { pg_sys::AggCheckCallContext(fcinfo, &mut context) } == 0 {
            return Err(SqlError::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "bm25_stats: a function of the aggregate was called by itself",
            ));
        }
        // SAFETY: `internal` values cannot be made in SQL; those of this aggregate are ours, and one call at a time looks at them.
        let state = argument(fcinfo, i).map(|datum| unsafe { &mut *datum.cast_mut_ptr::<Counting>() });
        Ok((State(state), context))
    }

    /// A new state that lives as long as the aggregate's memory.
    fn make(context: pg_sys::MemoryContext, counting: Counting) -> &'static mut Counting {
        // SAFETY: the context drops it when it is reset, after all uses.
        unsafe { &mut *PgMemoryContexts::For(context).leak_and_drop_on_delete(counting) }
    }
}

fn state_datum(state: Option<&'static mut Counting>) -> Option<Raw> {
    state.map(|state| Raw(Datum::from(std::ptr::from_mut(state))))
}

/// Parameters that a call gives behind state and document.
fn given_parameters(fcinfo: FunctionCallInfo) -> Result<Parameters> {
    let number = |i| argument(fcinfo, i).map(|datum| f64::from_bits(datum.value() as u64));
    // SAFETY: a valid call.
    let count = unsafe { (*fcinfo).nargs };
    let mut parameters = Parameters::USUAL;
    let null =
        || SqlError::new(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "bm25_stats: parameters must not be NULL");
    if count > 2 {
        parameters.k1 = number(2).ok_or_else(null)?;
        parameters.b = number(3).ok_or_else(null)?;
    }
    if count > 4 {
        // SAFETY: declared as real[].
        let weights = unsafe { ArrayRef::from_arg(argument(fcinfo, 4).ok_or_else(null)?) }?;
        weights.check_castable()?;
        let four = weights.plain::<f32>()?.try_into();
        parameters.weights =
            four.map_err(|_| SqlError::parameter("bm25_stats: weights must be four numbers, of D, C, B, A"))?;
    }
    parameters.check()
}

pg_function! {
    /// One more document; NULL is none.
    fn vx_bm25_stats_transition(call @ FunctionCallInfo) -> Option<Raw> {
        let (State(state), context) = State::of(call, 0)?;
        let Some(document) = argument(call, 1) else { return Ok(state_datum(state)) };
        let parameters = given_parameters(call)?;
        let state = match state {
            Some(state) => state,
            None => State::make(context, Counting::new(parameters)),
        };
        state.check_same(&parameters)?;
        // SAFETY: declared as tsvector.
        state.add(&unsafe { TsVector::from_arg(document) }?)?;
        Ok(state_datum(Some(state)))
    }
}

pg_function! {
    fn vx_bm25_stats_combine(call @ FunctionCallInfo) -> Option<Raw> {
        let (State(one), context) = State::of(call, 0)?;
        let (State(other), _) = State::of(call, 1)?;
        let Some(other) = other else { return Ok(state_datum(one)) };
        let one = match one {
            Some(one) => one,
            None => {
                let empty = Parameters { documents: 0.0, length: 0.0, ..other.parameters };
                State::make(context, Counting::new(empty))
            }
        };
        one.combine(other)?;
        Ok(state_datum(Some(one)))
    }
}

pg_function! {
    /// The state as the value that it would become, for parallel workers.
    fn vx_bm25_stats_serialize(call @ FunctionCallInfo) -> Option<NewVarlena> {
        finished(call)
    }
}

pg_function! {
    fn vx_bm25_stats_deserialize(call @ FunctionCallInfo) -> Option<Raw> {
        let mut context = std::ptr::null_mut();
        // SAFETY: only looks at the call's context node.
        if unsafe { pg_sys::AggCheckCallContext(call, &mut context) } == 0 {
            return Err(SqlError::parameter("bm25_stats: a function of the aggregate was called by itself"));
        }
        let Some(value) = argument(call, 0) else { return Ok(None) };
        // SAFETY: what `serialize` made: a varlena with the bytes of our type.
        let stats = unsafe { Stats::from_arg(value) }?;
        let mut counting = Counting::new(stats.parameters);
        counting.counted = stats.frequencies()?;
        // SAFETY: the state belongs to the memory that is current, as any result does.
        let context = unsafe { pg_sys::CurrentMemoryContext };
        Ok(state_datum(Some(State::make(context, counting))))
    }
}

pg_function! {
    fn vx_bm25_stats_final(call @ FunctionCallInfo) -> Option<NewVarlena> {
        finished(call)
    }
}

fn finished(call: FunctionCallInfo) -> Result<Option<NewVarlena>> {
    let (State(state), _) = State::of(call, 0)?;
    let Some(state) = state else { return Ok(None) };
    state.count();
    make(&state.parameters, Some(&state.counted)).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terms_number_is_for_good() {
        // On disk in every document: it may never change.
        assert_eq!(term(b"vector"), TERM_OF_VECTOR);
        assert_eq!(term(b""), (xxhash_rust::xxh3::xxh3_64(b"") % 1_000_000_000) as u32);
    }

    const TERM_OF_VECTOR: u32 = 485_574_397;

    #[test]
    fn lists_are_merged_by_term() {
        let (a, b) = ([(1, 2), (5, 1), (9, 1)], [(0, 1), (5, 3)]);
        assert_eq!(merged(&a, &b), [(0, 1), (1, 2), (5, 4), (9, 1)]);
        assert_eq!(merged(&[], &b), b);
    }

    #[test]
    fn buckets_are_in_the_order_of_terms() {
        for buckets in [1, 2, 7, 1000] {
            let of = |term| bucket_of(term, buckets);
            assert_eq!((of(0), of(TERMS as u32 - 1)), (0, buckets - 1));
            assert!((0..1000u32).map(|i| of(i * 999_999)).is_sorted());
        }
    }
}
