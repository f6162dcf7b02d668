//! The distances of many rows from a few queries.

use rayon::prelude::*;

use super::kernel::{self, Block, Kernel, Panels};
use super::space::Space;
use super::{Cancelled, Matrix};

/// Bytes of rows a block, so that a block stays in the processor's second-level cache.
const BLOCK_BYTES: usize = 256 << 10;

/// Many rows. Computes squared distances from a few queries to them as blocked products ‖q‖² − 2x·q + ‖x‖². These suffer
/// from cancellation where a distance is small against the norms: good for statistics, not for results.
pub struct FromQueries<'r> {
    kernel: &'static Kernel,
    space: Space,
    rows: Matrix<'r>,
}

impl<'r> FromQueries<'r> {
    /// Panics if there is no row.
    pub fn new(rows: Matrix<'r>) -> Self {
        assert!(rows.rows() > 0, "there is no row");
        let kernel = kernel::best();
        Self { kernel, space: Space::of_many(rows, kernel), rows }
    }

    /// For each query, the squared distances to the rows `order`, in that order. Queries are not much larger than the
    /// largest rows. `cancelled` is asked about every block.
    pub fn distances(
        &self,
        queries: Matrix,
        order: &[u32],
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<Vec<f32>>, Cancelled> {
        let (rows, count) = (self.rows, queries.rows());
        let one_group = [(0..count as u32).collect()];
        let put = |id: u32, out: &mut [f32]| self.space.put(self.kernel, queries.row(id as usize), out);
        let panels = Panels::new(self.kernel, queries.dims, &one_group, put);
        let size = (BLOCK_BYTES / (rows.dims * size_of::<f32>())).clamp(16, 512).next_multiple_of(8);
        let positions = panels.positions();
        let blocks: Vec<Vec<f32>> = order
            .par_chunks(size)
            .map_init(
                || (Block::new(size, rows.dims), vec![0.0; size * positions]),
                |(block, scores), order| {
                    if cancelled() {
                        return Err(Cancelled);
                    }
                    let norms: Vec<f32> = (0..order.len())
                        .map(|i| {
                            if let Some(&next) = order.get(i + 1) {
                                kernel::prefetch(rows.row(next as usize));
                            }
                            self.space.put(self.kernel, rows.row(order[i] as usize), block.row_mut(i))
                        })
                        .collect();
                    panels.scores(block, order.len(), scores);
                    let mut found = vec![0.0; count * order.len()];
                    for (query, found) in found.chunks_exact_mut(order.len()).enumerate() {
                        for (i, distance) in found.iter_mut().enumerate() {
                            *distance = self.space.back((scores[i * positions + query] + norms[i]).max(0.0));
                        }
                    }
                    Ok(found)
                },
            )
            .collect::<Result<_, _>>()?;
        let of = |query: usize| {
            let part = |block: &Vec<f32>| {
                let rows = block.len() / count;
                query * rows..(query + 1) * rows
            };
            blocks.iter().flat_map(|block| &block[part(block)]).copied().collect()
        };
        Ok((0..count).into_par_iter().map(of).collect())
    }
}
