//! Pages that are not what a pointer promised: stale pointers, and damage.

use crate::page::Damage;
use crate::pages::Pages;

/// A reader came by a pointer to a page that is not what the pointer promised. If the structure of the index has changed
/// since the reader took the pointer (the meta page's epoch tells), it has to look for the way anew; if not, the index is
/// damaged.
#[derive(Debug, Clone, Copy)]
pub struct Stale {
    pub block: u32,
    pub damage: Damage,
}

/// Unwraps a check of a page.
pub trait Checked<T> {
    /// The value, or an error that names the block.
    fn or_corrupted<P: Pages>(self, pages: P, block: u32) -> T;

    /// The value; what a structural change may explain is returned, other damage is an error.
    fn or_stale<P: Pages>(self, pages: P, block: u32) -> Result<T, Stale>;
}

impl<T> Checked<T> for Result<T, Damage> {
    #[inline]
    fn or_corrupted<P: Pages>(self, pages: P, block: u32) -> T {
        match self {
            Ok(v) => v,
            Err(damage) => pages.corrupted(block, damage),
        }
    }

    #[inline]
    fn or_stale<P: Pages>(self, pages: P, block: u32) -> Result<T, Stale> {
        match self {
            Ok(v) => Ok(v),
            Err(damage) if damage.may_be_change() => Err(Stale { block, damage }),
            Err(damage) => pages.corrupted(block, damage),
        }
    }
}

/// Counts the pages of a chain: a damaged one could run in a circle.
#[derive(Default)]
pub struct Steps {
    taken: u32,
    /// As many as the index had pages when that was asked last.
    most: u32,
}

impl Steps {
    /// Pages that a chain may have without the index being asked for its size.
    const FEW: u32 = 64;

    /// None yet.
    pub fn new() -> Steps {
        Steps::default()
    }

    /// Goes on from a page; an error when these are more than the index has.
    #[inline]
    pub fn step<P: Pages>(&mut self, pages: P, from: u32) {
        self.taken += 1;
        if self.taken > self.most.max(Steps::FEW) {
            self.most = pages.blocks();
            if self.taken > self.most {
                pages.corrupted(from, Damage::Bounds);
            }
        }
    }
}
