//! `vector`: f32 elements.

use super::bit::BitBuf;
use super::compare::comparison_functions;
use super::dense::{self, DenseBuf, DenseRef, Dims, MAX_DIMS, StateResult};
use super::halfvec::HalfvecRef;
use super::sparsevec::SparsevecRef;
use crate::pg::array::{ArrayRef, dimension_modifier};
use crate::pg::function::{Raw, called_by_aggregate, pg_function};
use crate::pg::text::TextWriter;
use crate::pg::varlena::NewVarlena;
use crate::pg::wire::Message;
use std::ffi::CStr;

/// A borrowed `vector`.
pub type VectorRef<'a> = DenseRef<'a, f32>;
/// A `vector` being built.
pub type VectorBuf = DenseBuf<f32>;

// Input and output.

pg_function! {
    fn vx_vector_in(text: &CStr, _type: i32, typmod: i32) -> VectorBuf {
        dense::input(text, typmod)
    }
}

pg_function! {
    fn vx_vector_out(value: VectorRef<'_>) -> TextWriter {
        Ok(dense::output(&value))
    }
}

pg_function! {
    fn vx_vector_typmod_in(modifiers: ArrayRef<'_>) -> i32 {
        dimension_modifier(&modifiers, "vector", MAX_DIMS as i32)
    }
}

pg_function! {
    fn vx_vector_recv(message: Message<'_>, _type: i32, typmod: i32) -> VectorBuf {
        let mut message = message;
        dense::receive(&mut message, typmod)
    }
}

pg_function! {
    fn vx_vector_send(value: VectorRef<'_>) -> NewVarlena {
        Ok(dense::send(&value))
    }
}

// Casts.

pg_function! {
    fn vx_vector(value: Raw, typmod: i32, _explicit: bool) -> Raw {
        dense::coerce::<f32>(value, typmod)
    }
}

pg_function! {
    fn vx_array_to_vector(array: ArrayRef<'_>, typmod: i32, _explicit: bool) -> VectorBuf {
        dense::from_array(&array, typmod)
    }
}

pg_function! {
    fn vx_vector_to_float4(value: VectorRef<'_>, _typmod: i32, _explicit: bool) -> NewVarlena {
        Ok(dense::to_float4_array(&value))
    }
}

pg_function! {
    fn vx_halfvec_to_vector(value: HalfvecRef<'_>, typmod: i32, _explicit: bool) -> VectorBuf {
        dense::convert(&value, typmod)
    }
}

pg_function! {
    fn vx_sparsevec_to_vector(value: SparsevecRef<'_>, typmod: i32, _explicit: bool) -> VectorBuf {
        value.to_dense(typmod)
    }
}

// Distances.

pg_function! {
    fn vx_vector_l2_distance(a: VectorRef<'_>, b: VectorRef<'_>) -> f64 {
        dense::l2_distance(&a, &b)
    }
}

pg_function! {
    fn vx_vector_l2_squared_distance(a: VectorRef<'_>, b: VectorRef<'_>) -> f64 {
        dense::l2_squared_distance(&a, &b)
    }
}

pg_function! {
    fn vx_vector_inner_product(a: VectorRef<'_>, b: VectorRef<'_>) -> f64 {
        dense::inner_product(&a, &b)
    }
}

pg_function! {
    fn vx_vector_negative_inner_product(a: VectorRef<'_>, b: VectorRef<'_>) -> f64 {
        Ok(-dense::inner_product(&a, &b)?)
    }
}

pg_function! {
    fn vx_vector_cosine_distance(a: VectorRef<'_>, b: VectorRef<'_>) -> f64 {
        dense::cosine_distance(&a, &b)
    }
}

pg_function! {
    fn vx_vector_l1_distance(a: VectorRef<'_>, b: VectorRef<'_>) -> f64 {
        dense::l1_distance(&a, &b)
    }
}

pg_function! {
    fn vx_vector_spherical_distance(a: VectorRef<'_>, b: VectorRef<'_>) -> f64 {
        dense::spherical_distance(&a, &b)
    }
}

// Properties and parts.

pg_function! {
    fn vx_vector_dims(dims: Dims<f32>) -> i32 {
        Ok(dims.0 as i32)
    }
}

pg_function! {
    fn vx_vector_norm(value: VectorRef<'_>) -> f64 {
        Ok(dense::norm(&value))
    }
}

pg_function! {
    fn vx_vector_l2_normalize(value: VectorRef<'_>) -> VectorBuf {
        dense::normalize(&value)
    }
}

pg_function! {
    fn vx_vector_binary_quantize(value: VectorRef<'_>) -> BitBuf {
        Ok(BitBuf::of_signs(value.as_slice()))
    }
}

pg_function! {
    fn vx_vector_subvector(value: VectorRef<'_>, start: i32, count: i32) -> VectorBuf {
        dense::subvector(&value, start, count)
    }
}

// Arithmetic.

pg_function! {
    fn vx_vector_add(a: VectorRef<'_>, b: VectorRef<'_>) -> VectorBuf {
        dense::add(&a, &b)
    }
}

pg_function! {
    fn vx_vector_sub(a: VectorRef<'_>, b: VectorRef<'_>) -> VectorBuf {
        dense::subtract(&a, &b)
    }
}

pg_function! {
    fn vx_vector_mul(a: VectorRef<'_>, b: VectorRef<'_>) -> VectorBuf {
        dense::multiply(&a, &b)
    }
}

pg_function! {
    fn vx_vector_concat(a: VectorRef<'_>, b: VectorRef<'_>) -> VectorBuf {
        dense::concatenate(&a, &b)
    }
}

// Order.

comparison_functions! {
    VectorRef<'_>, dense::compare,
    vx_vector_lt, vx_vector_le, vx_vector_eq, vx_vector_ne, vx_vector_ge, vx_vector_gt, vx_vector_cmp
}

// Aggregates.

pg_function! {
    fn vx_vector_accum(call @ FunctionCallInfo, state: ArrayRef<'_>, value: VectorRef<'_>) -> StateResult {
        // SAFETY: the current call.
        let in_place = unsafe { called_by_aggregate(call) };
        dense::accumulate(state, &value, in_place, "vector_accum")
    }
}

pg_function! {
    fn vx_vector_combine(a: ArrayRef<'_>, b: ArrayRef<'_>) -> StateResult {
        dense::combine(a, b, "vector_combine")
    }
}

pg_function! {
    fn vx_vector_avg(state: ArrayRef<'_>) -> Option<VectorBuf> {
        dense::average(state, "vector_avg")
    }
}
