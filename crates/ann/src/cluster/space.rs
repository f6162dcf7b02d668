//! Where products are computed: shifted to the middle of the data and scaled by a power of two, so that ‖c‖² − 2x·c
//! neither overflows nor loses its digits to an offset that all rows share.

use super::Picked;
use super::kernel::Kernel;

/// Largest coordinate of a scaled centroid: 2^54.
const TOP: i32 = 54;
/// Scaled rows are clamped to ±2^55: (2^55)² times 16,000 dimensions is still finite.
pub(super) const CLAMP: f32 = (1u64 << 55) as f32;
/// Rows whose coordinates' medians are the shift. A median, not the mean: a few huge rows must not blur all others.
const MEDIAN_OF: usize = 31;

/// The power of two that brings the largest coordinate of `rows` to about 2^54.
pub(super) fn scale(rows: Picked, kernel: &Kernel) -> f32 {
    let largest = (0..rows.len()).map(|i| (kernel.largest)(rows.row(i))).fold(0.0f32, f32::max);
    if largest == 0.0 {
        return 1.0;
    }
    let exponent = (largest.log2().floor() as i32).clamp(-126, 127);
    2f32.powi((TOP - exponent).clamp(-126, 126))
}

pub(super) struct Space {
    scale: f32,
    /// In scaled units.
    shift: Vec<f32>,
}

impl Space {
    /// The space that suits `rows`.
    pub(super) fn of(rows: Picked, kernel: &Kernel) -> Self {
        let scale = scale(rows, kernel);
        let step = rows.len().div_ceil(MEDIAN_OF).max(1);
        let picked: Vec<&[f32]> = (0..rows.len()).step_by(step).map(|i| rows.row(i)).collect();
        let mut column = vec![0.0f32; picked.len()];
        let shift = (0..rows.matrix.dims)
            .map(|dim| {
                for (value, row) in column.iter_mut().zip(&picked) {
                    *value = row[dim];
                }
                column.sort_unstable_by(f32::total_cmp);
                column.get(column.len() / 2).map_or(0.0, |median| median * scale)
            })
            .collect();
        Self { scale, shift }
    }

    /// `row` in this space, into `out` (as long as `row`); its squared norm there.
    pub(super) fn put(&self, kernel: &Kernel, row: &[f32], out: &mut [f32]) -> f32 {
        (kernel.shifted)(row, self.scale, &self.shift, out)
    }
}
