//! A list in two: what an index does whose lists grow.

use super::Matrix;
use super::random::Random;
use crate::distance::{inner_product, l2_squared, norm_squared};
use crate::memory;

/// Lloyd iterations at most.
const ITERATIONS: usize = 12;
/// Starts from different pairs of rows; the best result is taken.
const STARTS: u64 = 3;
/// Each half has at least this share of the rows.
const LEAST: usize = 4;

/// The halves of some rows.
#[derive(Clone, Debug)]
pub struct Halves {
    /// Their centroids.
    pub centroids: [Vec<f32>; 2],
    /// Whether each row is in the second.
    pub second: Vec<bool>,
}

/// Divides at least two rows by 2-means, each half with at least a quarter of them, or as near to that as it goes. Works
/// on the caller's thread. The same seed and rows give the same halves.
pub fn halve(rows: Matrix, seed: u64) -> Halves {
    assert!(rows.rows() >= 2, "one row has no halves");
    (0..STARTS)
        .map(|start| from(rows, &mut Random::new(seed.wrapping_add(start))))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|best| best.1)
        .expect("there are starts")
}

/// 2-means from one start; also tells the spread between the halves, which is what the spread inside them lacks.
fn from(rows: Matrix, random: &mut Random) -> (f64, Halves) {
    let n = rows.rows();
    let first = random.below(n);
    // The second by its squared distance from the first.
    let distances: Vec<f64> = memory::collected((0..n).map(|i| f64::from(l2_squared(rows.row(i), rows.row(first)))));
    let mut left = random.unit() * distances.iter().sum::<f64>();
    let other = distances.iter().position(|d| {
        left -= d;
        left < 0.0
    });
    let other = other.unwrap_or((first + 1) % n);
    let mut halves =
        Halves { centroids: [rows.row(first).to_vec(), rows.row(other).to_vec()], second: memory::filled(false, n) };
    let mut margins = memory::filled((0.0_f32, 0_u32), n);
    for _ in 0..ITERATIONS {
        if !halves.assign(rows, &mut margins) {
            break;
        }
        halves.centre(rows);
    }
    let seconds = halves.second.iter().filter(|s| **s).count() as f64;
    let between = f64::from(l2_squared(&halves.centroids[0], &halves.centroids[1]));
    (between * seconds * (n as f64 - seconds), halves)
}

impl Halves {
    /// Assigns the rows to the nearer centroid, within the bounds of balance; whether any has changed.
    fn assign(&mut self, rows: Matrix, margins: &mut [(f32, u32)]) -> bool {
        let [a, b] = &self.centroids;
        let axis: Vec<f32> = a.iter().zip(b).map(|(a, b)| b - a).collect();
        let middle = (norm_squared(b) - norm_squared(a)) / 2.0;
        for (i, margin) in margins.iter_mut().enumerate() {
            *margin = (inner_product(rows.row(i), &axis) - middle, i as u32);
        }
        let n = margins.len();
        let least = (n / LEAST).max(1);
        let firsts = margins.iter().filter(|m| m.0 <= 0.0).count().clamp(least, n - least);
        margins.select_nth_unstable_by(firsts - 1, |x, y| x.0.total_cmp(&y.0).then(x.1.cmp(&y.1)));
        let mut changed = false;
        for (position, &(_, row)) in margins.iter().enumerate() {
            let second = position >= firsts;
            changed |= self.second[row as usize] != second;
            self.second[row as usize] = second;
        }
        changed
    }

    /// Moves the centroids to the means of their rows.
    fn centre(&mut self, rows: Matrix) {
        let mut counts = [0.0_f32; 2];
        self.centroids.iter_mut().for_each(|c| c.fill(0.0));
        for (i, &second) in self.second.iter().enumerate() {
            let half = usize::from(second);
            counts[half] += 1.0;
            self.centroids[half].iter_mut().zip(rows.row(i)).for_each(|(c, x)| *c += x);
        }
        for (centroid, count) in self.centroids.iter_mut().zip(counts) {
            centroid.iter_mut().for_each(|c| *c /= count);
        }
    }
}
