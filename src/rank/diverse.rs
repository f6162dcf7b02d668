//! Results that are not all the same: maximal marginal relevance, and results without near copies.

use crate::pg::array::{ArrayRef, int4_array};
use crate::pg::error::{Result, SqlError};
use crate::pg::function::{FromArg, pg_function};
use crate::pg::memory::check_for_interrupts;
use crate::pg::varlena::NewVarlena;
use crate::types::dense::{DenseRef, Element};
use crate::types::halfvec::HalfvecRef;
use crate::types::vector::VectorRef;
use ann::distance::inner_product;
use ann::memory;
use pgrx::PgSqlErrorCode;

/// Most results that are looked at: each is compared with each that is chosen.
const MOST: usize = 100_000;

/// Vectors of one number of dimensions, of length 1 each, or 0 where one has no direction.
struct Directions {
    dims: usize,
    all: Vec<f32>,
}

impl Directions {
    fn len(&self) -> usize {
        self.all.len() / self.dims.max(1)
    }

    fn get(&self, i: usize) -> &[f32] {
        &self.all[self.dims * i..][..self.dims]
    }

    /// Cosine of the angle between two of them; 0 where one has no direction.
    fn similarity(&self, i: usize, j: usize) -> f64 {
        f64::from(inner_product(self.get(i), self.get(j)))
    }

    /// Adds the direction of a vector.
    fn add<T: Element>(&mut self, vector: &DenseRef<'_, T>) -> Result<()> {
        let values = vector.as_slice();
        if self.dims == 0 {
            self.dims = values.len();
        }
        if values.len() != self.dims {
            let message = format!("different {} dimensions {} and {}", T::TYPE, self.dims, values.len());
            return Err(SqlError::data(message));
        }
        let norm = values.iter().map(|value| f64::from(value.to_f32()).powi(2)).sum::<f64>().sqrt();
        let scale = if norm > 0.0 { 1.0 / norm } else { 0.0 };
        memory::room(&mut self.all, self.dims);
        self.all.extend(values.iter().map(|value| (f64::from(value.to_f32()) * scale) as f32));
        Ok(())
    }

    /// Adds those of an array of this type.
    fn add_all<T: Element>(&mut self, array: &ArrayRef<'_>) -> Result<()> {
        if array.count() > MOST {
            return Err(SqlError::limit(format!("cannot compare more than {MOST} vectors with each other")));
        }
        for value in array.varlenas() {
            let null = || SqlError::new(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "array must not contain nulls");
            // SAFETY: an element of an array of this type.
            self.add(&unsafe { DenseRef::<T>::from_arg(value.ok_or_else(null)?) }?)?;
        }
        Ok(())
    }
}

/// Chooses up to `k` of the vectors behind the first, which is the query: each time the one for which lambda · similarity to the
/// query − (1 − lambda) · similarity to the most similar chosen one is largest, of equal ones the earlier. Positions from 1 on.
///
/// Source: J. Carbonell, J. Goldstein, The Use of MMR (SIGIR 1998).
fn most_relevant_and_diverse(all: &Directions, k: usize, lambda: f64) -> Vec<i32> {
    let mut relevance: Vec<f64> = memory::collected((1..all.len()).map(|i| all.similarity(0, i)));
    let mut likeness = memory::filled(f64::NEG_INFINITY, relevance.len());
    let mut chosen = Vec::new();
    while chosen.len() < k {
        check_for_interrupts();
        let worth = |i: usize| {
            // The first is chosen by its relevance alone.
            if likeness[i] == f64::NEG_INFINITY {
                relevance[i]
            } else {
                lambda * relevance[i] - (1.0 - lambda) * likeness[i]
            }
        };
        let open = (0..relevance.len()).filter(|i| !relevance[*i].is_nan());
        let Some(best) = open.reduce(|best, i| if worth(i) > worth(best) { i } else { best }) else { break };
        relevance[best] = f64::NAN;
        memory::push(&mut chosen, best as i32 + 1);
        for (i, likeness) in likeness.iter_mut().enumerate() {
            *likeness = likeness.max(all.similarity(1 + best, 1 + i));
        }
    }
    chosen
}

fn mmr<T: Element>(query: &DenseRef<'_, T>, array: &ArrayRef<'_>, k: i32, lambda: f64) -> Result<NewVarlena> {
    if k < 0 {
        return Err(SqlError::parameter("mmr: the number of results must not be negative"));
    }
    if !(0.0..=1.0).contains(&lambda) {
        return Err(SqlError::parameter("mmr: lambda must be from 0 (diverse) to 1 (relevant)"));
    }
    let mut all = Directions { dims: 0, all: Vec::new() };
    all.add(query)?;
    all.add_all::<T>(array)?;
    Ok(int4_array(&most_relevant_and_diverse(&all, k as usize, lambda)))
}

/// Positions, from 1 on, of the vectors that are no nearer than `distance` (cosine) to one before them that was kept.
fn without_copies<T: Element>(array: &ArrayRef<'_>, distance: f64) -> Result<NewVarlena> {
    if distance.is_nan() {
        return Err(SqlError::parameter("deduplicate: the distance must be a number"));
    }
    let mut all = Directions { dims: 0, all: Vec::new() };
    all.add_all::<T>(array)?;
    let mut kept: Vec<i32> = Vec::new();
    for i in 0..all.len() {
        check_for_interrupts();
        if kept.iter().all(|&j| 1.0 - all.similarity(i, j as usize - 1) >= distance) {
            memory::push(&mut kept, i as i32 + 1);
        }
    }
    Ok(int4_array(&kept))
}

pg_function! {
    fn vx_vector_mmr(query: VectorRef<'_>, array: ArrayRef<'_>, k: i32, lambda: f64) -> NewVarlena {
        mmr(&query, &array, k, lambda)
    }
}

pg_function! {
    fn vx_halfvec_mmr(query: HalfvecRef<'_>, array: ArrayRef<'_>, k: i32, lambda: f64) -> NewVarlena {
        mmr(&query, &array, k, lambda)
    }
}

pg_function! {
    fn vx_vector_deduplicate(array: ArrayRef<'_>, distance: f64) -> NewVarlena {
        without_copies::<f32>(&array, distance)
    }
}

pg_function! {
    fn vx_halfvec_deduplicate(array: ArrayRef<'_>, distance: f64) -> NewVarlena {
        without_copies::<ann::distance::f16>(&array, distance)
    }
}
