//! A small seeded generator (SplitMix64): the same numbers on every platform and in every release.

use crate::memory;
use std::collections::HashSet;

pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0 .. bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// A number in `[0, 1)`.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// `count` different numbers of `0 .. bound`, in ascending order (Floyd's method).
    pub(super) fn distinct(&mut self, count: usize, bound: usize) -> Vec<u32> {
        if count >= bound {
            return memory::collected(0..bound as u32);
        }
        let mut chosen = HashSet::new();
        memory::room(&mut chosen, count);
        for top in bound - count..bound {
            let candidate = self.below(top + 1) as u32;
            if !chosen.insert(candidate) {
                chosen.insert(top as u32);
            }
        }
        let mut chosen = memory::collected(chosen);
        chosen.sort_unstable();
        chosen
    }
}
