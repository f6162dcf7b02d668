//! The index `ivflsh` apart from PostgreSQL: what is on its pages, and what is done to them, generic over who keeps the pages
//! ([`pages::Pages`]) and the rows ([`rows::Rows`]).
//!
//! * [`pages`], [`rows`]: what the index asks of the server that it lives in.
//! * [`page`]: the page layout; the only place with offsets. [`stale`]: what a reader does who meets a page that is not what it was
//!   led to.
//! * [`frame`]: the coordinates of an index, and what an operator means to it. [`predicate`]: conditions on filter columns.
//!   [`outliers`]: which rows decide about means, centroids and radii. [`sample`]: random numbers and samples.
//! * [`read`]: the meta page, lists, the way to them. [`write`]: entries and lists reach pages.
//! * [`change`]: lists are split and merged, the tree gets a level, the stopping rule is measured again. [`calibrate`]: how that is
//!   measured; [`nearest`]: the best distances found.
//! * [`vacuum`]: what VACUUM does beside.

pub mod calibrate;
pub mod change;
pub mod frame;
pub mod nearest;
pub mod outliers;
pub mod page;
pub mod pages;
pub mod predicate;
pub mod read;
pub mod rows;
pub mod sample;
pub mod stale;
pub mod vacuum;
pub mod write;

use ann::cluster::{self, Assigner, Centroids, Matrix, TrainOptions};
use ann::memory;
use bitvec::vec::BitVec;
use pages::Pages;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Seed of rotations, samples and k-means, of which the option `seed` makes another.
pub const SEED: u64 = 0x1F15_4A5E_ED01_0001;
/// Most entries of the root list: a flat scan of so many sketches costs less than the recall that a beam loses.
pub const ROOT_ENTRIES: usize = 16_384;
/// Entries of the other lists of lists.
pub const INNER_ENTRIES: usize = 256;

/// Divides lists, by their centroids, among `parents` lists of lists.
pub fn group<P: Pages>(index: P, centroids: Arc<Vec<f32>>, padded: usize, parents: usize) -> Vec<u32> {
    index.run_on_threads(move |cancelled| {
        let rows = Matrix::new(&centroids, padded);
        let stop = || cancelled.load(Ordering::Relaxed);
        let options = TrainOptions { lists: parents.max(1), seed: SEED, cancelled: &stop, ..TrainOptions::default() };
        // Who started this has stopped waiting when it was cancelled.
        let above = match cluster::train(rows, &options) {
            Ok(trained) => trained.data,
            Err(_) => vec![0.0; padded],
        };
        let (mut groups, mut distances) = (memory::zeroed(rows.rows()), memory::zeroed(rows.rows()));
        Assigner::new(&Centroids::new(padded, above)).assign(rows, &mut groups, &mut distances);
        groups
    })
}

/// The numbers of rows, in the order of their lists.
pub fn order_of(lists: &[u32], count: usize, interrupts: impl Fn()) -> Vec<u32> {
    let mut next = memory::zeroed::<u32>(count + 1);
    for lists in lists.chunks(1 << 16) {
        interrupts();
        lists.iter().for_each(|&list| next[list as usize + 1] += 1);
    }
    for i in 0..count {
        next[i + 1] += next[i];
    }
    let mut order = memory::zeroed(lists.len());
    for (row, &list) in lists.iter().enumerate() {
        if row % (1 << 16) == 0 {
            interrupts();
        }
        order[next[list as usize] as usize] = row as u32;
        next[list as usize] += 1;
    }
    order
}

/// Makes a set of bits hold at least `n`; new ones are 0.
pub fn resize_bits(bits: &mut BitVec, n: usize) {
    let mut words = std::mem::take(bits).into_vec();
    memory::resize(&mut words, n.div_ceil(usize::BITS as usize), 0);
    *bits = BitVec::from_vec(words);
}
