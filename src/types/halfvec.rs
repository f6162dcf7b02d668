//! `halfvec`: f16 elements, computed with as f32.

use super::bit::BitBuf;
use super::compare::comparison_functions;
use super::dense::{self, DenseBuf, DenseRef, Dims, MAX_DIMS, StateResult};
use super::sparsevec::SparsevecRef;
use super::vector::VectorRef;
use crate::pg::array::{ArrayRef, dimension_modifier};
use crate::pg::function::{Raw, called_by_aggregate, pg_function};
use crate::pg::text::TextWriter;
use crate::pg::varlena::NewVarlena;
use crate::pg::wire::Message;
use ann::distance::f16;
use std::ffi::CStr;

/// A borrowed `halfvec`.
pub type HalfvecRef<'a> = DenseRef<'a, f16>;
/// A `halfvec` being built.
pub type HalfvecBuf = DenseBuf<f16>;

// Input and output.

pg_function! {
    fn vx_halfvec_in(text: &CStr, _type: i32, typmod: i32) -> HalfvecBuf {
        dense::input(text, typmod)
    }
}

pg_function! {
    fn vx_halfvec_out(value: HalfvecRef<'_>) -> TextWriter {
        Ok(dense::output(&value))
    }
}

pg_function! {
    fn vx_halfvec_typmod_in(modifiers: ArrayRef<'_>) -> i32 {
        dimension_modifier(&modifiers, "halfvec", MAX_DIMS as i32)
    }
}

pg_function! {
    fn vx_halfvec_recv(message: Message<'_>, _type: i32, typmod: i32) -> HalfvecBuf {
        let mut message = message;
        dense::receive(&mut message, typmod)
    }
}

pg_function! {
    fn vx_halfvec_send(value: HalfvecRef<'_>) -> NewVarlena {
        Ok(dense::send(&value))
    }
}

// Casts.

pg_function! {
    fn vx_halfvec(value: Raw, typmod: i32, _explicit: bool) -> Raw {
        dense::coerce::<f16>(value, typmod)
    }
}

pg_function! {
    fn vx_array_to_halfvec(array: ArrayRef<'_>, typmod: i32, _explicit: bool) -> HalfvecBuf {
        dense::from_array(&array, typmod)
    }
}

pg_function! {
    fn vx_halfvec_to_float4(value: HalfvecRef<'_>, _typmod: i32, _explicit: bool) -> NewVarlena {
        Ok(dense::to_float4_array(&value))
    }
}

pg_function! {
    fn vx_vector_to_halfvec(value: VectorRef<'_>, typmod: i32, _explicit: bool) -> HalfvecBuf {
        dense::convert(&value, typmod)
    }
}

pg_function! {
    fn vx_sparsevec_to_halfvec(value: SparsevecRef<'_>, typmod: i32, _explicit: bool) -> HalfvecBuf {
        value.to_dense(typmod)
    }
}

// Distances.

pg_function! {
    fn vx_halfvec_l2_distance(a: HalfvecRef<'_>, b: HalfvecRef<'_>) -> f64 {
        dense::l2_distance(&a, &b)
    }
}

pg_function! {
    fn vx_halfvec_l2_squared_distance(a: HalfvecRef<'_>, b: HalfvecRef<'_>) -> f64 {
        dense::l2_squared_distance(&a, &b)
    }
}

pg_function! {
    fn vx_halfvec_inner_product(a: HalfvecRef<'_>, b: HalfvecRef<'_>) -> f64 {
        dense::inner_product(&a, &b)
    }
}

pg_function! {
    fn vx_halfvec_negative_inner_product(a: HalfvecRef<'_>, b: HalfvecRef<'_>) -> f64 {
        Ok(-dense::inner_product(&a, &b)?)
    }
}

pg_function! {
    fn vx_halfvec_cosine_distance(a: HalfvecRef<'_>, b: HalfvecRef<'_>) -> f64 {
        dense::cosine_distance(&a, &b)
    }
}

pg_function! {
    fn vx_halfvec_l1_distance(a: HalfvecRef<'_>, b: HalfvecRef<'_>) -> f64 {
        dense::l1_distance(&a, &b)
    }
}

pg_function! {
    fn vx_halfvec_spherical_distance(a: HalfvecRef<'_>, b: HalfvecRef<'_>) -> f64 {
        dense::spherical_distance(&a, &b)
    }
}

// Properties and parts.

pg_function! {
    fn vx_halfvec_vector_dims(dims: Dims<f16>) -> i32 {
        Ok(dims.0 as i32)
    }
}

pg_function! {
    fn vx_halfvec_l2_norm(value: HalfvecRef<'_>) -> f64 {
        Ok(dense::norm(&value))
    }
}

pg_function! {
    fn vx_halfvec_l2_normalize(value: HalfvecRef<'_>) -> HalfvecBuf {
        dense::normalize(&value)
    }
}

pg_function! {
    fn vx_halfvec_binary_quantize(value: HalfvecRef<'_>) -> BitBuf {
        Ok(BitBuf::of_signs(value.as_slice()))
    }
}

pg_function! {
    fn vx_halfvec_subvector(value: HalfvecRef<'_>, start: i32, count: i32) -> HalfvecBuf {
        dense::subvector(&value, start, count)
    }
}

// Arithmetic.

pg_function! {
    fn vx_halfvec_add(a: HalfvecRef<'_>, b: HalfvecRef<'_>) -> HalfvecBuf {
        dense::add(&a, &b)
    }
}

pg_function! {
    fn vx_halfvec_sub(a: HalfvecRef<'_>, b: HalfvecRef<'_>) -> HalfvecBuf {
        dense::subtract(&a, &b)
    }
}

pg_function! {
    fn vx_halfvec_mul(a: HalfvecRef<'_>, b: HalfvecRef<'_>) -> HalfvecBuf {
        dense::multiply(&a, &b)
    }
}

pg_function! {
    fn vx_halfvec_concat(a: HalfvecRef<'_>, b: HalfvecRef<'_>) -> HalfvecBuf {
        dense::concatenate(&a, &b)
    }
}

// Order.

comparison_functions! {
    HalfvecRef<'_>, dense::compare,
    vx_halfvec_lt, vx_halfvec_le, vx_halfvec_eq, vx_halfvec_ne, vx_halfvec_ge, vx_halfvec_gt, vx_halfvec_cmp
}

// Aggregates.

pg_function! {
    fn vx_halfvec_accum(call @ FunctionCallInfo, state: ArrayRef<'_>, value: HalfvecRef<'_>) -> StateResult {
        // SAFETY: the current call.
        let in_place = unsafe { called_by_aggregate(call) };
        dense::accumulate(state, &value, in_place, "halfvec_accum")
    }
}

pg_function! {
    fn vx_halfvec_combine(a: ArrayRef<'_>, b: ArrayRef<'_>) -> StateResult {
        dense::combine(a, b, "halfvec_combine")
    }
}

pg_function! {
    fn vx_halfvec_avg(state: ArrayRef<'_>) -> Option<HalfvecBuf> {
        dense::average(state, "halfvec_avg")
    }
}
