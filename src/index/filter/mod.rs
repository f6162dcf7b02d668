//! Filter columns: `CREATE INDEX … USING ivflsh (embedding vector_l2_ops, tenant_id, price)`.
//!
//! Each column behind the vector is stored in the posting blocks as one 64-bit key an entry, so that a search tests the
//! conditions of a WHERE on 32 entries at a time before it scores them. The lists' summaries tell which lists it can pass by.
//!
//! * [`keys`]: values become keys.
//! * [`columns`]: the filter columns of an index, and the keys of its rows.
//! * [`predicate`]: the conditions of a scan.
//!
//! Conditions that PostgreSQL's planner does not offer to an index by itself: [`crate::planner`].
//!
//! Tests of keys, and summaries, are in [`ann::filter`].

pub mod columns;
pub mod keys;
pub mod predicate;

::pgrx::extension_sql_file!("../../../sql/filter.sql", name = "filter", requires = ["index"]);
