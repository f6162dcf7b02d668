//! `sparsevec`: the elements that are not zero, f32, each with its index.

use super::compare::comparison_functions;
use super::dense::{DenseBuf, Element, check_expected_dims, f64_norm};
use super::halfvec::HalfvecRef;
use super::vector::VectorRef;
use crate::pg::array::{ArrayRef, dimension_modifier};
use crate::pg::error::{Result, SqlError};
use crate::pg::function::{FromArg, IntoReturn, Raw, pg_function};
use crate::pg::text::{FLOAT_LEN, Scanner, TextWriter};
use crate::pg::varlena::{self, Detoasted, LENGTH_WORD, NewVarlena};
use crate::pg::wire::{Message, Reply};
use pgrx::pg_sys::{Datum, FunctionCallInfo};
use std::cmp::Ordering;
use std::ffi::CStr;

pub const MAX_DIMS: i32 = 1_000_000_000;
/// Most elements that are not zero.
pub const MAX_NNZ: usize = 16_000;

// On disk: length word, i32 dimensions, i32 number of elements, i32 unused (0), zero-based ascending indices, values.
const DIMS: usize = LENGTH_WORD;
const NNZ: usize = 8;
const INDICES: usize = 16;

/// A borrowed `sparsevec`.
pub struct SparsevecRef<'a> {
    raw: Detoasted<'a>,
    dims: i32,
    nnz: usize,
}

impl SparsevecRef<'_> {
    /// Detoast and check; a corrupted value raises an ERROR.
    ///
    /// # Safety
    /// `datum` is a non-null `sparsevec` and outlives the result.
    pub unsafe fn from_datum(datum: Datum) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::from_arg(datum) }.unwrap_or_else(|error| error.raise())
    }

    pub fn dims(&self) -> i32 {
        self.dims
    }

    /// Zero-based, ascending.
    pub fn indices(&self) -> &[i32] {
        self.raw.array(INDICES, self.nnz).expect("checked by from_arg")
    }

    pub fn values(&self) -> &[f32] {
        self.raw.array(INDICES + 4 * self.nnz, self.nnz).expect("checked by from_arg")
    }

    /// To `vector` or `halfvec`.
    pub fn to_dense<T: Element>(&self, typmod: i32) -> Result<DenseBuf<T>> {
        super::dense::check_dims::<T>(self.dims.into())?;
        check_expected_dims(typmod, self.dims as usize)?;
        let mut result = DenseBuf::<T>::zeroed(self.dims as usize)?;
        let elements = result.as_mut_slice();
        for (index, value) in self.indices().iter().zip(self.values()) {
            let element = usize::try_from(*index).ok().and_then(|i| elements.get_mut(i));
            *element.ok_or_else(|| SqlError::corrupted("sparsevec"))? = T::checked(*value)?;
        }
        Ok(result)
    }
}

impl<'a> FromArg<'a> for SparsevecRef<'a> {
    const WHOLE: bool = true;

    unsafe fn from_arg(datum: Datum) -> Result<Self> {
        // SAFETY: the caller's promise.
        let raw = unsafe { Detoasted::new(datum) };
        let dims = raw.scalar::<i32>(DIMS).unwrap_or(0);
        let nnz = raw.scalar::<i32>(NNZ).and_then(|nnz| usize::try_from(nnz).ok());
        match nnz {
            Some(nnz) if dims > 0 && nnz <= dims as usize && raw.bytes().len() == INDICES + 8 * nnz => {
                Ok(SparsevecRef { raw, dims, nnz })
            }
            _ => Err(SqlError::corrupted("sparsevec")),
        }
    }
}

/// A `sparsevec` being built.
pub struct SparsevecBuf {
    raw: NewVarlena,
    nnz: usize,
}

impl SparsevecBuf {
    fn zeroed(dims: i32, nnz: usize) -> Self {
        let mut raw = NewVarlena::zeroed(INDICES + 8 * nnz);
        raw.set::<i32>(DIMS, dims);
        raw.set::<i32>(NNZ, nnz as i32);
        SparsevecBuf { raw, nnz }
    }

    /// Indices and values.
    fn parts(&mut self) -> (&mut [i32], &mut [f32]) {
        self.raw.arrays_mut(INDICES, self.nnz)
    }

    /// From elements that are in order and not zero.
    pub fn from_elements(dims: i32, elements: &[(i32, f32)]) -> Result<Self> {
        check_nnz(elements.len() as i64, dims)?;
        let mut result = Self::zeroed(dims, elements.len());
        let (indices, values) = result.parts();
        for (i, (index, value)) in elements.iter().enumerate() {
            indices[i] = *index;
            values[i] = *value;
        }
        Ok(result)
    }

    fn from_dense(values: impl ExactSizeIterator<Item = f32>, typmod: i32) -> Result<Self> {
        let dims = values.len() as i32;
        check_expected_dims(typmod, dims as usize)?;
        let elements: Vec<(i32, f32)> = (0..).zip(values).filter(|(_, value)| *value != 0.0).collect();
        Self::from_elements(dims, &elements)
    }
}

impl IntoReturn for SparsevecBuf {
    unsafe fn into_return(self, fcinfo: FunctionCallInfo) -> Datum {
        // SAFETY: the caller's promise.
        unsafe { self.raw.into_return(fcinfo) }
    }
}

fn check_dims(dims: i64) -> Result<()> {
    if dims < 1 {
        return Err(SqlError::data("sparsevec must have at least 1 dimension"));
    }
    if dims > MAX_DIMS.into() {
        return Err(SqlError::limit(format!("sparsevec cannot have more than {MAX_DIMS} dimensions")));
    }
    Ok(())
}

fn check_nnz(nnz: i64, dims: i32) -> Result<()> {
    if nnz < 0 {
        return Err(SqlError::data("sparsevec cannot have negative number of elements"));
    }
    if nnz > MAX_NNZ as i64 {
        return Err(too_many_elements());
    }
    if nnz > dims.into() {
        return Err(SqlError::limit("sparsevec cannot have more elements than dimensions"));
    }
    Ok(())
}

fn too_many_elements() -> SqlError {
    SqlError::limit(format!("sparsevec cannot have more than {MAX_NNZ} non-zero elements"))
}

/// An index is inside the dimensions and greater than the one before.
fn check_index(index: i32, previous: Option<i32>, dims: i32) -> Result<()> {
    if !(0..dims).contains(&index) {
        return Err(SqlError::data("sparsevec index out of bounds"));
    }
    match previous.map(|previous| index.cmp(&previous)) {
        Some(Ordering::Less) => Err(SqlError::data("sparsevec indices must be in ascending order")),
        Some(Ordering::Equal) => Err(SqlError::data("sparsevec indices must not contain duplicates")),
        _ => Ok(()),
    }
}

fn check_indices(indices: impl Iterator<Item = i32>, dims: i32) -> Result<()> {
    let mut previous = None;
    for index in indices {
        check_index(index, previous, dims)?;
        previous = Some(index);
    }
    Ok(())
}

fn check_value(value: f32) -> Result<f32> {
    if value.is_nan() {
        return Err(SqlError::data("NaN not allowed in sparsevec"));
    }
    if value.is_infinite() {
        return Err(SqlError::data("infinite value not allowed in sparsevec"));
    }
    Ok(value)
}

/// Text as read: dimensions, and elements with zero-based index in order.
#[derive(Debug, PartialEq)]
struct Parsed {
    dims: i32,
    elements: Vec<(i32, f32)>,
}

/// Parse `{1:1.5,3:2}/5`. Elements in any order; zeros are dropped.
fn parse(text: &CStr, typmod: i32) -> Result<Parsed> {
    let bytes = text.to_bytes();
    let syntax = || SqlError::syntax("sparsevec", bytes);
    let most = 1 + bytes.iter().filter(|b| **b == b',').count();
    if most > MAX_NNZ {
        return Err(too_many_elements());
    }
    let mut scanner = Scanner::new(text);
    scanner.skip_space();
    if !scanner.eat(b'{') {
        return Err(syntax().with_detail("Vector contents must start with \"{\"."));
    }
    scanner.skip_space();
    let mut elements = Vec::with_capacity(most);
    if !scanner.eat(b'}') {
        loop {
            if let Some(element) = parse_element(&mut scanner, syntax)? {
                elements.push(element);
            }
            if scanner.eat(b'}') {
                break;
            }
            if !scanner.eat(b',') {
                return Err(syntax());
            }
        }
    }
    scanner.skip_space();
    if !scanner.eat(b'/') {
        return Err(syntax().with_detail("Unexpected end of input."));
    }
    scanner.skip_space();
    let dims = scanner.integer().ok_or_else(syntax)?;
    scanner.skip_space();
    if !scanner.at_end() {
        return Err(syntax().with_detail("Junk after closing."));
    }
    check_dims(dims)?;
    check_expected_dims(typmod, dims as usize)?;
    elements.sort_by_key(|(index, _)| *index);
    check_indices(elements.iter().map(|(index, _)| *index), dims as i32)?;
    Ok(Parsed { dims: dims as i32, elements })
}

/// One `index:value` and the space around it; None if the value is zero.
fn parse_element(scanner: &mut Scanner<'_>, syntax: impl Fn() -> SqlError) -> Result<Option<(i32, f32)>> {
    scanner.skip_space();
    let index = scanner.integer().ok_or_else(&syntax)?;
    scanner.skip_space();
    if !scanner.eat(b':') {
        return Err(syntax());
    }
    scanner.skip_space();
    let number = scanner.float().ok_or_else(&syntax)?;
    if number.overflow || number.underflow {
        let token = String::from_utf8_lossy(number.token);
        return Err(SqlError::out_of_range(format!("\"{token}\" is out of range for type sparsevec")));
    }
    let value = check_value(number.value)?;
    scanner.skip_space();
    // What does not fit stays outside of the bounds, to be refused with the right message.
    let index = index.clamp(i32::MIN as i64 + 1, i32::MAX.into()) as i32 - 1;
    Ok((value != 0.0).then_some((index, value)))
}

pg_function! {
    fn vx_sparsevec_in(text: &CStr, _type: i32, typmod: i32) -> SparsevecBuf {
        let parsed = parse(text, typmod)?;
        SparsevecBuf::from_elements(parsed.dims, &parsed.elements)
    }
}

pg_function! {
    fn vx_sparsevec_out(value: SparsevecRef<'_>) -> TextWriter {
        const INTEGER_LEN: usize = 10;
        let mut text = TextWriter::new((INTEGER_LEN + FLOAT_LEN + 2) * value.nnz + INTEGER_LEN + 3);
        text.push(b'{');
        for (i, (index, element)) in value.indices().iter().zip(value.values()).enumerate() {
            if i > 0 {
                text.push(b',');
            }
            text.push_integer(i64::from(*index) + 1);
            text.push(b':');
            text.push_float(*element);
        }
        text.push(b'}');
        text.push(b'/');
        text.push_integer(value.dims.into());
        Ok(text)
    }
}

pg_function! {
    fn vx_sparsevec_typmod_in(modifiers: ArrayRef<'_>) -> i32 {
        dimension_modifier(&modifiers, "sparsevec", MAX_DIMS)
    }
}

pg_function! {
    fn vx_sparsevec_recv(message: Message<'_>, _type: i32, typmod: i32) -> SparsevecBuf {
        let mut message = message;
        let (dims, nnz, unused) = (message.i32()?, message.i32()?, message.i32()?);
        check_dims(dims.into())?;
        check_nnz(nnz.into(), dims)?;
        check_expected_dims(typmod, dims as usize)?;
        if unused != 0 {
            return Err(SqlError::data(format!("expected unused to be 0, not {unused}")));
        }
        let nnz = nnz as usize;
        let mut result = SparsevecBuf::zeroed(dims, nnz);
        let (indices, values) = result.parts();
        for (index, bytes) in indices.iter_mut().zip(message.bytes(4 * nnz)?.chunks_exact(4)) {
            *index = i32::from_be_bytes(bytes.try_into().expect("exact chunk"));
        }
        check_indices(indices.iter().copied(), dims)?;
        for (value, bytes) in values.iter_mut().zip(message.bytes(4 * nnz)?.chunks_exact(4)) {
            *value = check_value(f32::from_be_bytes(bytes.try_into().expect("exact chunk")))?;
            if *value == 0.0 {
                return Err(SqlError::data("binary representation of sparsevec cannot contain zero values"));
            }
        }
        Ok(result)
    }
}

pg_function! {
    fn vx_sparsevec_send(value: SparsevecRef<'_>) -> NewVarlena {
        let mut reply = Reply::new(12 + 8 * value.nnz);
        for field in [value.dims, value.nnz as i32, 0] {
            reply.push(field.to_be_bytes());
        }
        reply.push_all(value.indices().iter().map(|v| v.to_be_bytes()));
        reply.push_all(value.values().iter().map(|v| v.to_be_bytes()));
        Ok(reply.finish())
    }
}

// Casts.

pg_function! {
    fn vx_sparsevec(value: Raw, typmod: i32, _explicit: bool) -> Raw {
        // SAFETY: the raw argument is a sparsevec.
        let head = unsafe { varlena::head(value.0, INDICES - LENGTH_WORD) };
        let dims = head.scalar::<i32>(DIMS).and_then(|dims| usize::try_from(dims).ok());
        check_expected_dims(typmod, dims.ok_or_else(|| SqlError::corrupted("sparsevec"))?)?;
        drop(head);
        Ok(value)
    }
}

pg_function! {
    fn vx_vector_to_sparsevec(value: VectorRef<'_>, typmod: i32, _explicit: bool) -> SparsevecBuf {
        SparsevecBuf::from_dense(value.as_slice().iter().copied(), typmod)
    }
}

pg_function! {
    fn vx_halfvec_to_sparsevec(value: HalfvecRef<'_>, typmod: i32, _explicit: bool) -> SparsevecBuf {
        SparsevecBuf::from_dense(value.as_slice().iter().map(|v| v.to_f32()), typmod)
    }
}

pg_function! {
    fn vx_array_to_sparsevec(array: ArrayRef<'_>, typmod: i32, _explicit: bool) -> SparsevecBuf {
        array.check_castable()?;
        check_dims(array.count() as i64)?;
        check_expected_dims(typmod, array.count())?;
        let mut elements = Vec::new();
        array.for_each_f32(|i, value| {
            // NaN is not equal to zero, and refused.
            if value != 0.0 {
                elements.push((i as i32, check_value(value)?));
            }
            Ok(())
        })?;
        SparsevecBuf::from_elements(array.count() as i32, &elements)
    }
}

// Distances: one merge of the two index lists, in f32 and in the order of the indices.

/// Sum `term(a, b)` over the indices that are in `a` or in `b`, with 0 for what is missing.
fn merge(a: &SparsevecRef<'_>, b: &SparsevecRef<'_>, term: impl Fn(f32, f32) -> f32) -> Result<f32> {
    if a.dims != b.dims {
        return Err(SqlError::data(format!("different sparsevec dimensions {} and {}", a.dims, b.dims)));
    }
    Ok(merge_slices((a.indices(), a.values()), (b.indices(), b.values()), term))
}

fn merge_slices(a: (&[i32], &[f32]), b: (&[i32], &[f32]), term: impl Fn(f32, f32) -> f32) -> f32 {
    let (mut i, mut j, mut sum) = (0, 0, 0.0);
    while i < a.0.len() && j < b.0.len() {
        let order = a.0[i].cmp(&b.0[j]);
        sum += match order {
            Ordering::Less => term(a.1[i], 0.0),
            Ordering::Equal => term(a.1[i], b.1[j]),
            Ordering::Greater => term(0.0, b.1[j]),
        };
        i += order.is_le() as usize;
        j += order.is_ge() as usize;
    }
    sum = a.1[i..].iter().fold(sum, |sum, v| sum + term(*v, 0.0));
    b.1[j..].iter().fold(sum, |sum, v| sum + term(0.0, *v))
}

fn l2_squared(a: &SparsevecRef<'_>, b: &SparsevecRef<'_>) -> Result<f64> {
    Ok(merge(a, b, |a, b| (a - b) * (a - b))?.into())
}

fn inner_product(a: &SparsevecRef<'_>, b: &SparsevecRef<'_>) -> Result<f64> {
    Ok(merge(a, b, |a, b| a * b)?.into())
}

pg_function! {
    fn vx_sparsevec_l2_distance(a: SparsevecRef<'_>, b: SparsevecRef<'_>) -> f64 {
        Ok(l2_squared(&a, &b)?.sqrt())
    }
}

pg_function! {
    fn vx_sparsevec_l2_squared_distance(a: SparsevecRef<'_>, b: SparsevecRef<'_>) -> f64 {
        l2_squared(&a, &b)
    }
}

pg_function! {
    fn vx_sparsevec_inner_product(a: SparsevecRef<'_>, b: SparsevecRef<'_>) -> f64 {
        inner_product(&a, &b)
    }
}

pg_function! {
    fn vx_sparsevec_negative_inner_product(a: SparsevecRef<'_>, b: SparsevecRef<'_>) -> f64 {
        Ok(-inner_product(&a, &b)?)
    }
}

pg_function! {
    fn vx_sparsevec_cosine_distance(a: SparsevecRef<'_>, b: SparsevecRef<'_>) -> f64 {
        let product = inner_product(&a, &b)?;
        let square = |v: &SparsevecRef<'_>| f64::from(v.values().iter().map(|v| v * v).sum::<f32>());
        // `clamp` keeps the NaN of a zero vector.
        Ok(1.0 - (product / (square(&a) * square(&b)).sqrt()).clamp(-1.0, 1.0))
    }
}

pg_function! {
    fn vx_sparsevec_l1_distance(a: SparsevecRef<'_>, b: SparsevecRef<'_>) -> f64 {
        Ok(merge(&a, &b, |a, b| (a - b).abs())?.into())
    }
}

pg_function! {
    fn vx_sparsevec_l2_norm(value: SparsevecRef<'_>) -> f64 {
        Ok(f64_norm(value.values().iter().copied()))
    }
}

pg_function! {
    /// Elements that become too small for f32 are dropped.
    fn vx_sparsevec_l2_normalize(value: SparsevecRef<'_>) -> SparsevecBuf {
        let norm = f64_norm(value.values().iter().copied());
        let scaled = value.indices().iter().zip(value.values()).map(|(i, v)| (*i, (f64::from(*v) / norm) as f32));
        let elements: Vec<(i32, f32)> = scaled.filter(|(_, v)| norm > 0.0 && *v != 0.0).collect();
        if elements.iter().any(|(_, v)| v.is_infinite()) {
            return Err(SqlError::overflow());
        }
        SparsevecBuf::from_elements(value.dims, &elements)
    }
}

// Order: that of the dense vectors, as PostgreSQL's arrays are ordered.

fn compare(a: &SparsevecRef<'_>, b: &SparsevecRef<'_>) -> Ordering {
    compare_slices((a.dims, a.indices(), a.values()), (b.dims, b.indices(), b.values()))
}

fn compare_slices(a: (i32, &[i32], &[f32]), b: (i32, &[i32], &[f32])) -> Ordering {
    let order = |a: f32, b: f32| a.partial_cmp(&b).unwrap_or(Ordering::Equal);
    let same = a.1.iter().zip(b.1).zip(a.2.iter().zip(b.2)).take_while(|((i, j), (v, w))| i == j && v == w).count();
    // The first element that differs is compared with a zero if the other vector has none there …
    match (a.1.get(same), b.1.get(same)) {
        (Some(i), Some(j)) if i == j => order(a.2[same], b.2[same]),
        (Some(i), Some(j)) if i < j => order(a.2[same], 0.0),
        (Some(_), Some(_)) => order(0.0, b.2[same]),
        // … but not beyond its dimensions.
        (Some(i), None) if *i < b.0 => order(a.2[same], 0.0),
        (None, Some(j)) if *j < a.0 => order(0.0, b.2[same]),
        _ => a.0.cmp(&b.0),
    }
}

comparison_functions! {
    SparsevecRef<'_>, compare,
    vx_sparsevec_lt, vx_sparsevec_le, vx_sparsevec_eq, vx_sparsevec_ne, vx_sparsevec_ge, vx_sparsevec_gt,
    vx_sparsevec_cmp
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    fn read(text: &str) -> Result<Parsed> {
        parse(&CString::new(text).unwrap(), -1)
    }

    fn message(text: &str) -> String {
        let error = read(text).unwrap_err();
        error.message + error.detail.map(|d| format!(" / {d}")).unwrap_or_default().as_str()
    }

    #[test]
    fn text_is_parsed() {
        assert_eq!(read("{}/5"), Ok(Parsed { dims: 5, elements: vec![] }));
        assert_eq!(read(" { 3 : 3.5 , 1:1.5,2:0 } / 5 "), Ok(Parsed { dims: 5, elements: vec![(0, 1.5), (2, 3.5)] }));
    }

    #[test]
    fn malformed_text_is_refused_in_the_words_users_know() {
        let syntax = |text: &str| format!("invalid input syntax for type sparsevec: \"{text}\"");
        for text in
            ["{", "{ ", "{:", "{,", "{}/", "{:}/1", "{,}/1", "{1,}/1", "{1:}/1", "{1a:1}/1", "{1:1a}/1", "{1:1,}/1"]
        {
            assert_eq!(message(text), syntax(text));
        }
        assert_eq!(message(""), syntax("") + " / Vector contents must start with \"{\".");
        assert_eq!(message("{}"), syntax("{}") + " / Unexpected end of input.");
        assert_eq!(message("{}/1a"), syntax("{}/1a") + " / Junk after closing.");
        assert_eq!(message("{1:1,1:1}/2"), "sparsevec indices must not contain duplicates");
        assert_eq!(message("{}/-9223372036854775809"), "sparsevec must have at least 1 dimension");
        assert_eq!(message("{}/9223372036854775808"), "sparsevec cannot have more than 1000000000 dimensions");
        for text in ["{0:1}/1", "{2:1}/1", "{2147483648:1}/1", "{-2147483649:1}/1"] {
            assert_eq!(message(text), "sparsevec index out of bounds");
        }
        assert_eq!(message("{1:1e-46}/1"), "\"1e-46\" is out of range for type sparsevec");
        assert_eq!(message("{1:NaN}/1"), "NaN not allowed in sparsevec");
        let many: Vec<String> = (1..=MAX_NNZ + 1).map(|i| format!("{i}:1")).collect();
        assert_eq!(
            message(&format!("{{{}}}/20000", many.join(","))),
            "sparsevec cannot have more than 16000 non-zero elements"
        );
    }

    fn dense(v: (i32, &[i32], &[f32])) -> Vec<f32> {
        let mut dense = vec![0.0; v.0 as usize];
        v.1.iter().zip(v.2).for_each(|(i, x)| dense[*i as usize] = *x);
        dense
    }

    #[test]
    fn order_and_distance_are_those_of_the_dense_vectors() {
        let all: [(i32, &[i32], &[f32]); 9] = [
            (2, &[], &[]),
            (3, &[], &[]),
            (3, &[0], &[1.0]),
            (3, &[0], &[-1.0]),
            (3, &[2], &[1.0]),
            (3, &[2], &[-1.0]),
            (3, &[0, 2], &[1.0, 2.0]),
            (2, &[0, 1], &[1.0, 2.0]),
            (3, &[0, 1, 2], &[1.0, -2.0, 3.0]),
        ];
        for a in all {
            for b in all {
                let (da, db) = (dense(a), dense(b));
                assert_eq!(compare_slices(a, b), da.partial_cmp(&db).unwrap(), "{a:?} {b:?}");
                if a.0 == b.0 {
                    let want: f32 = da.iter().zip(&db).map(|(a, b)| (a - b).abs()).sum();
                    assert_eq!(merge_slices((a.1, a.2), (b.1, b.2), |a, b| (a - b).abs()), want);
                }
            }
        }
    }

    /// As `dense::tests::any_text_is_a_value_or_an_error`.
    #[test]
    fn any_text_is_a_value_or_an_error() {
        use proptest::prelude::*;
        const PARTS: [&str; 20] = [
            "{", "}", "}/", ":", ",", " ", "/", "-", "+", ".", "0", "1", "2", "3:1", "1:1", "1e", "e38", "nan", "inf",
            "é",
        ];
        let text = prop_oneof![
            proptest::collection::vec(proptest::sample::select(PARTS.to_vec()), 0..24).prop_map(|parts| parts.concat()),
            (proptest::collection::vec((0i64..12, -1e38f32..1e38), 0..6), 0i64..12).prop_map(|(elements, dims)| {
                let elements: Vec<String> =
                    elements.iter().map(|(index, value)| format!("{index}:{value:?}")).collect();
                format!("{{{}}}/{dims}", elements.join(","))
            }),
        ];
        let config = ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(text in text)| {
            if let Ok(Parsed { dims, elements }) = read(&text) {
                prop_assert!(dims > 0 && elements.is_sorted_by(|a, b| a.0 < b.0));
                prop_assert!(elements.iter().all(|(i, value)| (0..dims).contains(i) && value.is_finite() && *value != 0.0));
            }
        });
    }
}
