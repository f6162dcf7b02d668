//! k-means for many lists, and the assignment of rows to their nearest list.
//!
//! * [`train`]: a sample in, balanced [`Centroids`] out. Hierarchical: a coarse k-means of about √lists clusters, each
//!   split in proportion to its size, then Lloyd iterations over all lists together.
//! * [`halve`]: one list in two, on the caller's thread.
//! * [`Assigner`]: the nearest centroid of many rows, through groups of centroids searched by a beam.
//!
//! Distances are squared L2, computed as blocked products ‖c‖² − 2x·c with the minimum taken in registers
//! (`kernel`); the distances handed out are computed again as Σ(x−c)², so they do not suffer from cancellation.
//!
//! All work runs on the current rayon pool: wrap calls in `pool.install`. Results do not depend on the number of threads:
//! blocks of rows have a fixed size, and every sum has a fixed order. They may differ between instruction sets in the
//! last bit of a product, hence in ties.
//!
//! ```
//! use ann::cluster::{Assigner, Matrix, TrainOptions, train};
//! let data: Vec<f32> = (0..600).map(|i| (i % 6 * 10) as f32 + (i / 6) as f32 * 0.01).collect();
//! let sample = Matrix::new(&data, 2);
//! let centroids = train(sample, &TrainOptions { lists: 3, ..TrainOptions::default() }).unwrap();
//! let (mut lists, mut distances) = (vec![0; sample.rows()], vec![0.0; sample.rows()]);
//! Assigner::new(&centroids).assign(sample, &mut lists, &mut distances);
//! assert!(lists.iter().all(|&list| list < 3));
//! ```

mod assign;
mod halve;
mod kernel;
mod lloyd;
mod random;
mod space;
#[cfg(test)]
mod tests;
mod train;

pub use assign::Assigner;
pub use halve::{Halves, halve};
pub use train::{TrainOptions, train};

/// Rows of `f32`, one after another: `rows() × dims`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// `rows() * dims` finite values.
    pub data: &'a [f32],
    /// Values a row, at least 1.
    pub dims: usize,
}

impl<'a> Matrix<'a> {
    /// A view of `data` as rows of `dims` values. Panics if `dims` is 0 or does not divide the length.
    pub fn new(data: &'a [f32], dims: usize) -> Self {
        assert!(dims > 0 && data.len().is_multiple_of(dims), "{} values are no rows of {dims}", data.len());
        Self { data, dims }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.data.len() / self.dims
    }

    /// Row `index`, `dims` values.
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.data[index * self.dims..][..self.dims]
    }

    /// Rows `start .. end`.
    pub fn slice(&self, start: usize, end: usize) -> Matrix<'a> {
        Matrix { data: &self.data[start * self.dims..end * self.dims], dims: self.dims }
    }
}

/// The caller's flag said stop; nothing was produced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled;

impl std::fmt::Display for Cancelled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("clustering was cancelled")
    }
}

impl std::error::Error for Cancelled {}

/// The centroids of the lists: `lists() × dims`, no two alike.
#[derive(Clone, Debug)]
pub struct Centroids {
    /// Values a centroid.
    pub dims: usize,
    /// `lists() * dims` values.
    pub data: Vec<f32>,
    /// How far the [`Assigner`]'s beam must reach, as [`train`] measured it on its sample.
    pub(crate) beam: Option<f32>,
}

impl Centroids {
    /// Centroids from elsewhere (an index on disk, say). The [`Assigner`] measures the reach of its beam on the first rows
    /// it gets. Panics if `dims` is 0 or does not divide the length.
    pub fn new(dims: usize, data: Vec<f32>) -> Self {
        Matrix::new(&data, dims);
        Self { dims, data, beam: None }
    }

    /// Number of lists.
    pub fn lists(&self) -> usize {
        self.data.len() / self.dims
    }

    /// The centroids as rows.
    pub fn matrix(&self) -> Matrix<'_> {
        Matrix { data: &self.data, dims: self.dims }
    }
}

/// Some rows of a matrix: all of them, or those listed.
#[derive(Clone, Copy)]
struct Picked<'a> {
    matrix: Matrix<'a>,
    indices: Option<&'a [u32]>,
}

impl<'a> Picked<'a> {
    fn all(matrix: Matrix<'a>) -> Self {
        Self { matrix, indices: None }
    }

    fn some(matrix: Matrix<'a>, indices: &'a [u32]) -> Self {
        Self { matrix, indices: Some(indices) }
    }

    fn len(&self) -> usize {
        self.indices.map_or_else(|| self.matrix.rows(), <[u32]>::len)
    }

    fn row(&self, position: usize) -> &'a [f32] {
        self.matrix.row(self.indices.map_or(position, |indices| indices[position] as usize))
    }
}
