//! Ranking beside distances: BM25 as an inner product of `sparsevec`s, fused rankings, diverse results.
//!
//! | file | what |
//! |---|---|
//! | `lexemes.rs` | reads `tsvector` and `tsquery` |
//! | `stats.rs` | the type `bm25_stats` and the aggregate that makes it |
//! | `bm25.rs` | documents and queries as `sparsevec` |
//! | `diverse.rs` | `mmr`, `deduplicate` |
//!
//! The SQL side is hand-written in `sql/rank.sql`; what needs no Rust is written there.

mod bm25;
mod diverse;
mod lexemes;
mod stats;

::pgrx::extension_sql_file!("../../sql/rank.sql", name = "rank", requires = ["types"]);
