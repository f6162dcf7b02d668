//! The stopping rule of `ivflsh.target_recall`, measured on the sample that the build has at hand.
//!
//! Sample rows are searched exactly among the sample. For each of their neighbours, the *needed cosine* of its list is
//! noted: cos of the angle, between the residuals of a list and the direction to the query, at which a typical row of the
//! list is just within the goal distance. A search that scans the lists whose needed cosine is at most the p-quantile of
//! these finds a share p of the neighbours. The rule adapts to the query: it knows how far the goal is, how far each
//! list, and how wide.

use super::page::RECALLS;
use super::scan::FIRST_GOAL;
use super::tree::needed_cosine;
use ann::quantize::{ListTerm, Space};
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// Results that recall is calibrated for.
const RESULTS: f64 = 10.0;
/// Queries sampled.
const QUERIES: usize = 400;
/// Share of the misses allowed that the sketches, the order and the sampling may cause; the rule takes the rest.
const OTHER_LOSS: f32 = 0.25;

/// What the build knows.
pub struct Sample<'s> {
    pub space: Space,
    pub padded: usize,
    /// Sampled rows, rotated and centred.
    pub rows: &'s [f32],
    /// The list of each.
    pub lists: &'s [u32],
    /// Centroids of the lists.
    pub centroids: &'s [f32],
    /// Root mean square residual norm of each list.
    pub radii: &'s [f32],
    /// The rotated mean: queries of the inner product are not centred.
    pub mean: &'s [f32],
    /// Rows of the table.
    pub table_rows: f64,
}

/// Stopping cosine, and average number of lists scanned, for each of [`RECALLS`].
pub struct Rule {
    pub cosine: [f32; RECALLS.len()],
    pub probes: [f32; RECALLS.len()],
}

/// Measures the rule.
pub fn calibrate(sample: &Sample<'_>, cancelled: &AtomicBool) -> Rule {
    let padded = sample.padded;
    let rows = sample.rows.len() / padded;
    let lists = sample.radii.len();
    let share = (rows as f64 / sample.table_rows.max(1.0)).min(1.0);
    let results = ((RESULTS * share).round() as usize).max(1);
    let goal = ((FIRST_GOAL as f64 * share).round() as usize).max(results);
    if rows < goal + 2 || lists < 2 {
        return Rule { cosine: [1.0; RECALLS.len()], probes: [lists as f32; RECALLS.len()] };
    }
    let queries = QUERIES.min(rows);
    // For each query: the needed cosines of all lists (sorted), and of its neighbours' lists.
    let measured: Vec<(Vec<f32>, Vec<f32>)> = (0..queries)
        .into_par_iter()
        .filter_map(|i| {
            if cancelled.load(Ordering::Relaxed) {
                return None;
            }
            let at = i * (rows / queries);
            let mut query = sample.rows[at * padded..][..padded].to_vec();
            if sample.space == Space::InnerProduct {
                query.iter_mut().zip(sample.mean).for_each(|(q, m)| *q += m);
            }
            let distance = |x: &[f32]| match sample.space {
                Space::L2 => ann::distance::l2_squared(&query, x),
                Space::InnerProduct => -ann::distance::inner_product(&query, x),
            };
            let mut near: Vec<(f32, u32)> = (0..rows)
                .filter(|&r| r != at)
                .map(|r| (distance(&sample.rows[r * padded..][..padded]), sample.lists[r]))
                .collect();
            near.select_nth_unstable_by(goal - 1, |x, y| x.0.total_cmp(&y.0));
            let within = near[goal - 1].0;
            near.truncate(goal);
            near.sort_unstable_by(|x, y| x.0.total_cmp(&y.0));
            let norm = ann::distance::norm_squared(&query).sqrt();
            let mut needed: Vec<f32> = sample
                .centroids
                .chunks_exact(padded)
                .zip(sample.radii)
                .map(|(c, &radius)| {
                    let a = distance(c);
                    let b = if sample.space == Space::L2 { a.max(0.0).sqrt() } else { norm };
                    needed_cosine(sample.space, ListTerm { a, b }, radius, within)
                })
                // NaN: always scanned.
                .map(|c| if c.is_nan() { f32::NEG_INFINITY } else { c })
                .collect();
            let neighbours = near[..results].iter().map(|n| needed[n.1 as usize]).collect();
            needed.sort_unstable_by(f32::total_cmp);
            Some((needed, neighbours))
        })
        .collect();
    let mut all: Vec<f32> = measured.iter().flat_map(|m| m.1.iter().copied()).collect();
    if all.is_empty() {
        return Rule { cosine: [1.0; RECALLS.len()], probes: [lists as f32; RECALLS.len()] };
    }
    all.sort_unstable_by(f32::total_cmp);
    let cosine = RECALLS.map(|recall| {
        let share = recall + (1.0 - recall) * OTHER_LOSS;
        let i = (share * all.len() as f32).ceil() as usize;
        all[i.clamp(1, all.len()) - 1]
    });
    let probes = cosine.map(|stop| {
        let scanned: usize = measured.iter().map(|m| m.0.partition_point(|&c| c <= stop)).sum();
        (scanned as f32 / measured.len() as f32).max(1.0)
    });
    Rule { cosine, probes }
}
