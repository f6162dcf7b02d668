//! Outliers: rows so far from all others that they must not decide about a mean, a list's centroid or its radius. Whoever may
//! insert a row could spoil the index for everybody else otherwise.
//!
//! What is usual follows from quantiles, which a few rows do not move, however far away they are.

use crate::frame::Operator;

/// A square (of a distance) beyond this many times what three quarters of all are within is an outlier's: eight times as far.
pub const FAR: f32 = 64.0;
/// Rows beyond this many times that, a thousand times as far, have lists of their own and are no queries of a calibration: a
/// k-means takes more than those for outliers of no consequence, and heavy tails need lists too.
pub const APART: f32 = 1e6;
/// Rows that a middle and a limit are taken from, at most.
const SAMPLE: usize = 512;

/// The square beyond which one of `squares` is an outlier's: `factor` times what three quarters of them (of those above 0, where
/// most are 0) are within. Puts them in order.
pub fn limit(squares: &mut [f32], factor: f32) -> f32 {
    squares.sort_unstable_by(f32::total_cmp);
    let quantile = |squares: &[f32]| squares.get(squares.len() * 3 / 4).copied().unwrap_or(0.0);
    let usual = match quantile(squares) {
        0.0 => quantile(&squares[squares.partition_point(|&square| square <= 0.0)..]),
        usual => usual,
    };
    // All alike, or nothing to go by: a NaN is above all.
    if usual > 0.0 { usual * factor } else { f32::INFINITY }
}

/// The mean of some squares without outliers; those up to [`FAR`] times `usual` are none in any case. 0 for none.
pub fn mean_square(squares: &[f32], usual: f32) -> f32 {
    let limit = limit(&mut squares.to_vec(), FAR).max(FAR * usual);
    let (sum, count) = squares
        .iter()
        .filter(|&&square| square <= limit && square < f32::INFINITY)
        .fold((0.0, 0_u32), |(sum, count), &square| (sum + f64::from(square), count + 1));
    (sum / f64::from(count.max(1))) as f32
}

/// Numbers up to `count` in equal steps, as many as a sample has.
pub fn steps(count: usize) -> impl Iterator<Item = usize> {
    (0..count).step_by(count.div_ceil(SAMPLE).max(1))
}

/// Where most of some rows are, and how far around.
pub struct Middle {
    /// None: rows are in the index's coordinates.
    operator: Option<Operator>,
    /// The median of each coordinate.
    place: Vec<f32>,
    limit: f32,
}

impl Middle {
    /// Of a sample of rows with at least as many values as `dims`: as users give them, in which case they count by their
    /// direction under cosine, or, without `operator`, in an index's coordinates.
    pub fn of<'r>(operator: Option<Operator>, dims: usize, rows: impl Iterator<Item = &'r [f32]>) -> Middle {
        let mut found = Middle { operator, place: Vec::new(), limit: f32::INFINITY };
        let rows: Vec<(f32, &[f32])> =
            rows.map(|row| (found.scale(row) as f32, row)).filter(|(scale, _)| *scale > 0.0).collect();
        let mut column = vec![0.0; rows.len()];
        let place = (0..dims).map(|dim| {
            for (value, (scale, row)) in column.iter_mut().zip(&rows) {
                *value = row[dim] * scale;
            }
            let middle = column.len() / 2;
            if column.is_empty() { 0.0 } else { *column.select_nth_unstable_by(middle, f32::total_cmp).1 }
        });
        found.place = place.collect();
        let mut squares: Vec<f32> = rows.iter().map(|(_, row)| found.square(row)).collect();
        found.limit = limit(&mut squares, FAR);
        found
    }

    fn scale(&self, row: &[f32]) -> f64 {
        self.operator.map_or(1.0, |operator| operator.scale(row))
    }

    /// The squared distance of a row; infinite for one without direction.
    fn square(&self, row: &[f32]) -> f32 {
        let (row, scale) = (&row[..self.place.len()], self.scale(row));
        let square = match scale {
            0.0 => f32::INFINITY,
            1.0 => ann::distance::l2_squared(row, &self.place),
            scale => {
                let dot = f64::from(ann::distance::inner_product(row, &self.place)) * scale;
                (1.0 - 2.0 * dot + f64::from(ann::distance::norm_squared(&self.place))).max(0.0) as f32
            }
        };
        if square.is_nan() { f32::INFINITY } else { square }
    }

    /// Whether a row is no outlier.
    pub fn is_usual(&self, row: &[f32]) -> bool {
        let square = self.square(row);
        square <= self.limit && square < f32::INFINITY
    }

    /// The sum of those rows that are no outliers, as they count, and how many these are.
    pub fn sum<'r>(&self, rows: impl Iterator<Item = &'r [f32]>) -> (Vec<f64>, u64) {
        let (mut sum, mut count) = (vec![0.0; self.place.len()], 0);
        for row in rows.filter(|row| self.is_usual(row)) {
            let scale = self.scale(row);
            sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) * scale);
            count += 1;
        }
        (sum, count)
    }

    /// The mean of the rows of such sums; none if there are none.
    pub fn mean((sum, count): (Vec<f64>, u64)) -> Option<Vec<f32>> {
        (count > 0).then(|| sum.into_iter().map(|sum| (sum / count as f64) as f32).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Element, Metric};

    const L2: Operator = Operator { element: Element::Vector, metric: Metric::L2 };
    const COSINE: Operator = Operator { element: Element::Vector, metric: Metric::Cosine };

    fn mean_of(operator: Operator, rows: &[[f32; 2]]) -> Vec<f32> {
        let middle = Middle::of(Some(operator), 2, rows.iter().map(|row| &row[..]));
        Middle::mean(middle.sum(rows.iter().map(|row| &row[..]))).unwrap()
    }

    #[test]
    fn outliers_do_not_move_the_mean() {
        let mut rows: Vec<[f32; 2]> = (0..100).map(|i| [i as f32, (i % 7) as f32]).collect();
        let without = mean_of(L2, &rows);
        for far in [1e7, 1e14, 1e30, f32::MAX, -f32::MAX] {
            rows.extend([[far, 0.0], [0.0, far], [far, far]]);
            assert_eq!(mean_of(L2, &rows), without);
        }
    }

    #[test]
    fn rows_without_direction_do_not_move_the_mean() {
        let rows: Vec<[f32; 2]> = (0..100).map(|i| if i % 2 == 0 { [0.0, 0.0] } else { [0.0, i as f32] }).collect();
        let mean = mean_of(COSINE, &rows);
        assert!(mean[0] == 0.0 && (mean[1] - 1.0).abs() < 1e-6, "{mean:?}");
    }

    #[test]
    fn squares() {
        assert_eq!(limit(&mut [], FAR), f32::INFINITY);
        assert_eq!(limit(&mut [0.0; 9], FAR), f32::INFINITY);
        assert_eq!(limit(&mut [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1e30], 2.0), 2.0);
        assert_eq!(mean_square(&[], 1.0), 0.0);
        // Fewer than a quarter of all can be outliers.
        let mut squares = vec![1.0; 12];
        squares.extend([f32::INFINITY, f32::NAN, 1e20]);
        assert_eq!(mean_square(&squares, 0.0), 1.0);
        assert_eq!(mean_square(&[0.0, 0.0, 0.0, 100.0], 4.0), 25.0);
    }
}
