//! The meta page and the mean ([`info`]), as PostgreSQL's relation cache keeps them, and the table's rows ([`rows`]).

pub mod info;
pub mod rows;
