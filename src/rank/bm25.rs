//! Documents and queries as `sparsevec`s whose inner product is BM25.
//!
//! Source: S. Robertson, H. Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009), in the form of Lucene, whose
//! weights of terms are never negative (Kamphuis et al., Which BM25 Do You Mean?, ECIR 2020):
//!
//! score(d, q) = Σ ln(1 + (N − n + ½) / (n + ½)) · f / (f + k1 · (1 − b + b · |d| / mean length))
//!
//! over the terms of q, where N documents there are, n have the term and d has it f times. The first factor is the query's
//! element, the second the document's.

use super::lexemes::{TsQuery, TsVector};
use super::stats::{Parameters, Stats, TERMS, term};
use crate::pg::error::Result;
use crate::pg::function::pg_function;
use crate::types::sparsevec::SparsevecBuf;
use ann::memory;

/// Elements by term, from terms in any order. Those of one term, of which two lexemes may have the same number, are added up.
fn by_term(mut all: Vec<(u32, f64)>) -> Vec<(u32, f64)> {
    all.sort_unstable_by_key(|(term, _)| *term);
    all.dedup_by(|(term, more), (first, sum)| {
        let same = term == first;
        *sum += if same { *more } else { 0.0 };
        same
    });
    all
}

fn sparsevec(elements: impl Iterator<Item = (u32, f64)>) -> Result<SparsevecBuf> {
    let elements = elements.map(|(term, value)| (term as i32, value as f32)).filter(|(_, value)| *value > 0.0);
    SparsevecBuf::from_elements(TERMS, &memory::collected(elements))
}

/// What a term that a document has `frequency` times counts in it, 0 to 1.
fn document_weight(frequency: f64, relative_length: f64, parameters: &Parameters) -> f64 {
    frequency / (frequency + parameters.k1 * (1.0 - parameters.b + parameters.b * relative_length))
}

/// What a term that `n` of the documents have counts in a query.
fn query_weight(n: u32, parameters: &Parameters) -> f64 {
    let n = f64::from(n).min(parameters.documents);
    ((parameters.documents - n + 0.5) / (n + 0.5)).ln_1p()
}

fn query(frequencies: Vec<(u32, f64)>, stats: &Stats<'_>) -> Result<SparsevecBuf> {
    stats.check_frequencies()?;
    let mut elements = by_term(frequencies);
    for (term, value) in &mut elements {
        *value *= query_weight(stats.documents_with(*term)?, &stats.parameters);
    }
    sparsevec(elements.into_iter())
}

pg_function! {
    fn vx_bm25_document(document: TsVector<'_>, stats: Stats<'_>) -> SparsevecBuf {
        let parameters = &stats.parameters;
        let mut frequencies = memory::with_room(document.len());
        document.for_each(|lexeme, counts| frequencies.push((term(lexeme), parameters.weighted(counts))))?;
        let relative_length = parameters.relative_length(frequencies.iter().map(|(_, frequency)| frequency).sum());
        let elements = by_term(frequencies).into_iter().filter(|(_, frequency)| *frequency > 0.0);
        sparsevec(elements.map(|(term, frequency)| (term, document_weight(frequency, relative_length, parameters))))
    }
}

pg_function! {
    /// A text as query: each word as often as it stands there.
    fn vx_bm25_query_of_tsvector(text: TsVector<'_>, stats: Stats<'_>) -> SparsevecBuf {
        let mut frequencies = memory::with_room(text.len());
        text.for_each(|lexeme, counts| frequencies.push((term(lexeme), f64::from(counts.iter().sum::<u32>()))))?;
        query(frequencies, &stats)
    }
}

pg_function! {
    /// The words of a query that a match may have. Whether it has to have them is for `@@` to say.
    fn vx_bm25_query_of_tsquery(words: TsQuery<'_>, stats: Stats<'_>) -> SparsevecBuf {
        let mut frequencies = Vec::new();
        words.for_each(|lexeme| memory::push(&mut frequencies, (term(lexeme), 1.0)))?;
        query(frequencies, &stats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_one_term_are_added_up() {
        let all = vec![(7, 1.0), (3, 2.0), (7, 4.0), (7, 0.5)];
        assert_eq!(by_term(all), [(3, 2.0), (7, 5.5)]);
    }

    #[test]
    fn weights_are_those_of_the_formula() {
        let parameters = Parameters { documents: 10.0, length: 100.0, k1: 1.2, b: 0.75, weights: [1.0; 4] };
        assert!((query_weight(3, &parameters) - (1.0f64 + 7.5 / 3.5).ln()).abs() < 1e-12);
        assert!(query_weight(10, &parameters) > 0.0 && query_weight(11, &parameters) > 0.0);
        assert!((document_weight(2.0, 1.5, &parameters) - 2.0 / (2.0 + 1.2 * (0.25 + 0.75 * 1.5))).abs() < 1e-12);
        assert_eq!(document_weight(2.0, 1.0, &Parameters { k1: 0.0, ..parameters }), 1.0);
        assert_eq!(parameters.relative_length(20.0), 2.0);
    }
}
