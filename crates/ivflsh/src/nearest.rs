//! The best distances found so far.

use ann::memory;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Results that the lists are chosen for when nothing is known about the LIMIT, or it is no more than 10: also the few rows
/// more that the executor looks at to be sure of their order. The stopping rule is calibrated for this share.
pub const FIRST_GOAL: usize = 16;

/// f32 with a total order, for heaps.
#[derive(Clone, Copy, PartialEq)]
pub struct Distance(pub f32);
impl Eq for Distance {}
impl PartialOrd for Distance {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Distance {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Adds a distance to the best `most` found.
#[inline]
pub fn note(best: &mut BinaryHeap<Distance>, most: usize, distance: f32) {
    if best.len() < most {
        memory::room(best, 1);
        best.push(Distance(distance));
    } else if let Some(mut farthest) = best.peek_mut()
        && distance < farthest.0
    {
        *farthest = Distance(distance);
    }
}

/// The farthest of the best `most`, infinite while fewer are known.
#[inline]
pub fn farthest_of(best: &BinaryHeap<Distance>, most: usize) -> f32 {
    best.peek().filter(|_| best.len() >= most).map_or(f32::INFINITY, |d| d.0)
}
