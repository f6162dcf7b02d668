//! What the index asks of who keeps the rows.

use crate::page::Tid;

/// What is known of the row of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Row {
    /// Its vector was read.
    Read,
    /// It is not visible to us now, or its vector may not be read: another transaction in progress wrote it, or it is dead
    /// while others may still see it.
    Hidden,
    /// Dead to everybody.
    Dead,
}

/// The rows of the table, under one snapshot.
pub trait Rows {
    /// Whether the vectors of some rows can be read.
    fn can_read(&self) -> bool;

    /// Reads the vector of the row at `tid` into `out` (cleared), as the user gave it. Whatever version of the row is
    /// visible has the entry's vector: versions with another one have entries of their own.
    fn read(&mut self, tid: Tid, out: &mut Vec<f32>) -> Row;

    /// The same of a row that is not visible: what is left of it, as far as that can be read. The TID is not that of another row
    /// while there is an entry for it.
    fn read_unseen(&mut self, tid: Tid, out: &mut Vec<f32>) -> Row;
}
