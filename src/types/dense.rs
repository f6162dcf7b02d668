//! What `vector` and `halfvec` share: the layout, and every operation, generic over the element.

use crate::pg::array::{ArrayRef, AverageState, float4_array};
use crate::pg::error::{Result, SqlError};
use crate::pg::function::{FromArg, IntoReturn, Raw};
use crate::pg::text::{FLOAT_LEN, Scanner, TextWriter, float_text};
use crate::pg::varlena::{self, Detoasted, LENGTH_WORD, NewVarlena, Plain};
use crate::pg::wire::{Message, Reply};
use ann::distance::{self, f16};
use pgrx::pg_sys::{Datum, FunctionCallInfo};
use std::cmp::Ordering;
use std::ffi::CStr;
use std::marker::PhantomData;

/// Most dimensions of a `vector` or `halfvec`.
pub const MAX_DIMS: usize = 16_000;

// On disk: length word, i16 dimensions, i16 unused (0), elements.
const DIMS: usize = LENGTH_WORD;
const UNUSED: usize = 6;
const ELEMENTS: usize = 8;

/// An element type and what is particular to it.
pub trait Element: distance::Element + Plain {
    /// The SQL name of the vector type.
    const TYPE: &'static str;

    /// Append in network byte order.
    fn send_all(reply: &mut Reply, values: &[Self]);
    /// Read from network byte order.
    fn receive_all(bytes: &[u8]) -> impl ExactSizeIterator<Item = Self>;

    /// Round, refusing what is finite as f32 and would be infinite as `Self`.
    fn checked(value: f32) -> Result<Self> {
        let rounded = Self::from_f32(value);
        if rounded.to_f32().is_infinite() && value.is_finite() {
            return Err(SqlError::out_of_range(format!(
                "\"{}\" is out of range for type {}",
                float_text(value),
                Self::TYPE
            )));
        }
        Ok(rounded)
    }

    /// Every element of a vector is finite.
    fn check(self) -> Result<Self> {
        let value = self.to_f32();
        if value.is_nan() {
            return Err(SqlError::data(format!("NaN not allowed in {}", Self::TYPE)));
        }
        if value.is_infinite() {
            return Err(SqlError::data(format!("infinite value not allowed in {}", Self::TYPE)));
        }
        Ok(self)
    }
}

/// A borrowed vector.
pub struct DenseRef<'a, T> {
    raw: Detoasted<'a>,
    dims: usize,
    element: PhantomData<T>,
}

impl<'a, T: Element> DenseRef<'a, T> {
    /// Detoast and check; a corrupted value raises an ERROR.
    ///
    /// # Safety
    /// `datum` is a non-null value of this SQL type and outlives the result.
    pub unsafe fn from_datum(datum: Datum) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::from_arg(datum) }.unwrap_or_else(|error| error.raise())
    }

    pub fn as_slice(&self) -> &[T] {
        self.raw.array(ELEMENTS, self.dims).expect("checked by from_arg")
    }

    pub fn dims(&self) -> usize {
        self.dims
    }
}

impl<'a, T: Element> FromArg<'a> for DenseRef<'a, T> {
    const WHOLE: bool = true;

    unsafe fn from_arg(datum: Datum) -> Result<Self> {
        // SAFETY: the caller's promise.
        let raw = unsafe { Detoasted::new(datum) };
        let dims = raw.scalar::<i16>(DIMS).filter(|&dims| dims > 0).unwrap_or(0) as usize;
        let is_sound = dims > 0
            && raw.bytes().len() == ELEMENTS + dims * size_of::<T>()
            && raw.array::<T>(ELEMENTS, dims).is_some();
        if !is_sound {
            return Err(SqlError::corrupted(T::TYPE));
        }
        Ok(DenseRef { raw, dims, element: PhantomData })
    }
}

/// Only the number of dimensions: of a value stored out of line, no more than the header is fetched.
pub struct Dims<T>(pub usize, PhantomData<T>);

impl<T: Element> FromArg<'_> for Dims<T> {
    unsafe fn from_arg(datum: Datum) -> Result<Self> {
        // SAFETY: the caller's promise.
        let head = unsafe { varlena::head(datum, ELEMENTS - LENGTH_WORD) };
        match head.scalar::<i16>(DIMS) {
            Some(dims) if dims > 0 => Ok(Dims(dims as usize, PhantomData)),
            _ => Err(SqlError::corrupted(T::TYPE)),
        }
    }
}

/// A vector being built; its elements begin as zero.
pub struct DenseBuf<T> {
    raw: NewVarlena,
    dims: usize,
    element: PhantomData<T>,
}

impl<T: Element> DenseBuf<T> {
    pub fn zeroed(dims: usize) -> Result<Self> {
        check_dims::<T>(dims as i64)?;
        let mut raw = NewVarlena::zeroed(ELEMENTS + dims * size_of::<T>());
        raw.set::<i16>(DIMS, dims as i16);
        raw.set::<i16>(UNUSED, 0);
        Ok(DenseBuf { raw, dims, element: PhantomData })
    }

    pub fn as_mut_slice(&mut self) -> &mut [T] {
        self.raw.array_mut(ELEMENTS, self.dims)
    }

    fn from_slice(values: &[T]) -> Result<Self> {
        let mut buf = Self::zeroed(values.len())?;
        buf.as_mut_slice().copy_from_slice(values);
        Ok(buf)
    }
}

impl<T> IntoReturn for DenseBuf<T> {
    unsafe fn into_return(self, fcinfo: FunctionCallInfo) -> Datum {
        // SAFETY: the caller's promise.
        unsafe { self.raw.into_return(fcinfo) }
    }
}

pub fn check_dims<T: Element>(dims: i64) -> Result<()> {
    if dims < 1 {
        return Err(SqlError::data(format!("{} must have at least 1 dimension", T::TYPE)));
    }
    if dims > MAX_DIMS as i64 {
        return Err(SqlError::limit(format!("{} cannot have more than {MAX_DIMS} dimensions", T::TYPE)));
    }
    Ok(())
}

/// A type modifier of -1 means any number of dimensions.
pub fn check_expected_dims(typmod: i32, dims: usize) -> Result<()> {
    if typmod != -1 && typmod as usize != dims {
        return Err(SqlError::data(format!("expected {typmod} dimensions, not {dims}")));
    }
    Ok(())
}

fn check_same_dims<T: Element>(a: &DenseRef<'_, T>, b: &DenseRef<'_, T>) -> Result<()> {
    if a.dims != b.dims {
        return Err(SqlError::data(format!("different {} dimensions {} and {}", T::TYPE, a.dims, b.dims)));
    }
    Ok(())
}

// Input and output.

/// Parse `[1,2,3]`.
pub fn parse<T: Element>(text: &CStr) -> Result<Vec<T>> {
    let syntax = || SqlError::syntax(T::TYPE, text.to_bytes());
    let mut scanner = Scanner::new(text);
    scanner.skip_space();
    if !scanner.eat(b'[') {
        return Err(syntax().with_detail("Vector contents must start with \"[\"."));
    }
    scanner.skip_space();
    if scanner.peek() == b']' {
        check_dims::<T>(0)?;
    }
    let mut values = Vec::with_capacity((text.count_bytes() / 4).min(MAX_DIMS));
    loop {
        if values.len() == MAX_DIMS {
            check_dims::<T>(MAX_DIMS as i64 + 1)?;
        }
        scanner.skip_space();
        let number = scanner.float().ok_or_else(syntax)?;
        let value = T::from_f32(number.value);
        if number.overflow || (value.to_f32().is_infinite() && number.value.is_finite()) {
            let token = String::from_utf8_lossy(number.token);
            return Err(SqlError::out_of_range(format!("\"{token}\" is out of range for type {}", T::TYPE)));
        }
        values.push(value.check()?);
        scanner.skip_space();
        if scanner.eat(b']') {
            break;
        }
        if !scanner.eat(b',') {
            return Err(syntax());
        }
    }
    scanner.skip_space();
    if !scanner.at_end() {
        return Err(syntax().with_detail("Junk after closing right brace."));
    }
    Ok(values)
}

pub fn input<T: Element>(text: &CStr, typmod: i32) -> Result<DenseBuf<T>> {
    let values = parse::<T>(text)?;
    check_expected_dims(typmod, values.len())?;
    DenseBuf::from_slice(&values)
}

pub fn output<T: Element>(value: &DenseRef<'_, T>) -> TextWriter {
    let mut text = TextWriter::new((FLOAT_LEN + 1) * value.dims + 2);
    for (i, &element) in value.as_slice().iter().enumerate() {
        text.push(if i == 0 { b'[' } else { b',' });
        text.push_float(element.to_f32());
    }
    text.push(b']');
    text
}

pub fn receive<T: Element>(message: &mut Message<'_>, typmod: i32) -> Result<DenseBuf<T>> {
    let (dims, unused) = (message.i16()?, message.i16()?);
    check_dims::<T>(dims.into())?;
    check_expected_dims(typmod, dims as usize)?;
    if unused != 0 {
        return Err(SqlError::data(format!("expected unused to be 0, not {unused}")));
    }
    let bytes = message.bytes(dims as usize * size_of::<T>())?;
    let mut result = DenseBuf::<T>::zeroed(dims as usize)?;
    for (target, value) in result.as_mut_slice().iter_mut().zip(T::receive_all(bytes)) {
        *target = value.check()?;
    }
    Ok(result)
}

pub fn send<T: Element>(value: &DenseRef<'_, T>) -> NewVarlena {
    let mut reply = Reply::new(4 + value.dims * size_of::<T>());
    reply.push((value.dims as i16).to_be_bytes());
    reply.push(0i16.to_be_bytes());
    T::send_all(&mut reply, value.as_slice());
    reply.finish()
}

// Casts.

/// To the same type with a type modifier: checked, not copied.
pub fn coerce<T: Element>(value: Raw, typmod: i32) -> Result<Raw> {
    // SAFETY: the raw argument is a value of this type.
    let dims = unsafe { Dims::<T>::from_arg(value.0) }?;
    check_expected_dims(typmod, dims.0)?;
    Ok(value)
}

pub fn convert<S: Element, T: Element>(source: &DenseRef<'_, S>, typmod: i32) -> Result<DenseBuf<T>> {
    check_expected_dims(typmod, source.dims)?;
    let mut result = DenseBuf::<T>::zeroed(source.dims)?;
    for (target, value) in result.as_mut_slice().iter_mut().zip(source.as_slice()) {
        *target = T::checked(value.to_f32())?;
    }
    Ok(result)
}

pub fn from_array<T: Element>(array: &ArrayRef<'_>, typmod: i32) -> Result<DenseBuf<T>> {
    array.check_castable()?;
    check_dims::<T>(array.count() as i64)?;
    check_expected_dims(typmod, array.count())?;
    let mut result = DenseBuf::<T>::zeroed(array.count())?;
    let elements = result.as_mut_slice();
    array.for_each_f32(|i, value| {
        elements[i] = T::checked(value)?.check()?;
        Ok(())
    })?;
    Ok(result)
}

pub fn to_float4_array<T: Element>(value: &DenseRef<'_, T>) -> NewVarlena {
    float4_array(value.as_slice().iter().map(|v| v.to_f32()))
}

// Distances.

pub fn l2_squared_distance<T: Element>(a: &DenseRef<'_, T>, b: &DenseRef<'_, T>) -> Result<f64> {
    check_same_dims(a, b)?;
    Ok(distance::l2_squared(a.as_slice(), b.as_slice()).into())
}

pub fn l2_distance<T: Element>(a: &DenseRef<'_, T>, b: &DenseRef<'_, T>) -> Result<f64> {
    Ok(l2_squared_distance(a, b)?.sqrt())
}

pub fn inner_product<T: Element>(a: &DenseRef<'_, T>, b: &DenseRef<'_, T>) -> Result<f64> {
    check_same_dims(a, b)?;
    Ok(distance::inner_product(a.as_slice(), b.as_slice()).into())
}

pub fn cosine_distance<T: Element>(a: &DenseRef<'_, T>, b: &DenseRef<'_, T>) -> Result<f64> {
    check_same_dims(a, b)?;
    Ok(distance::cosine_distance(a.as_slice(), b.as_slice()))
}

pub fn l1_distance<T: Element>(a: &DenseRef<'_, T>, b: &DenseRef<'_, T>) -> Result<f64> {
    check_same_dims(a, b)?;
    Ok(distance::l1(a.as_slice(), b.as_slice()).into())
}

/// The angle between unit vectors, as a share of π: a metric, other than the cosine distance.
pub fn spherical_distance<T: Element>(a: &DenseRef<'_, T>, b: &DenseRef<'_, T>) -> Result<f64> {
    Ok(inner_product(a, b)?.clamp(-1.0, 1.0).acos() / std::f64::consts::PI)
}

/// Summed in f64: the norm of any vector of finite elements is finite.
pub fn norm<T: Element>(value: &DenseRef<'_, T>) -> f64 {
    f64_norm(value.as_slice().iter().map(|v| v.to_f32()))
}

pub fn f64_norm(values: impl Iterator<Item = f32>) -> f64 {
    // Not `sum()`, which is -0.0 for nothing.
    values.fold(0.0, |sum, v| sum + f64::from(v) * f64::from(v)).sqrt()
}

/// The vector with the same direction and norm 1; zero stays zero.
pub fn normalize<T: Element>(value: &DenseRef<'_, T>) -> Result<DenseBuf<T>> {
    let norm = norm(value);
    let mut result = DenseBuf::<T>::zeroed(value.dims)?;
    if norm > 0.0 {
        for (target, element) in result.as_mut_slice().iter_mut().zip(value.as_slice()) {
            *target = T::from_f32((f64::from(element.to_f32()) / norm) as f32);
            if target.to_f32().is_infinite() {
                return Err(SqlError::overflow());
            }
        }
    }
    Ok(result)
}

// Arithmetic.

/// Element by element; a result that became infinite is an error.
fn arithmetic<T: Element>(
    a: &DenseRef<'_, T>,
    b: &DenseRef<'_, T>,
    compute: impl Fn(f32, f32) -> f32,
) -> Result<DenseBuf<T>> {
    check_same_dims(a, b)?;
    let mut result = DenseBuf::<T>::zeroed(a.dims)?;
    let elements = result.as_mut_slice();
    for ((target, a), b) in elements.iter_mut().zip(a.as_slice()).zip(b.as_slice()) {
        *target = T::from_f32(compute(a.to_f32(), b.to_f32()));
    }
    if elements.iter().any(|v| v.to_f32().is_infinite()) {
        return Err(SqlError::overflow());
    }
    Ok(result)
}

pub fn add<T: Element>(a: &DenseRef<'_, T>, b: &DenseRef<'_, T>) -> Result<DenseBuf<T>> {
    arithmetic(a, b, |a, b| a + b)
}

pub fn subtract<T: Element>(a: &DenseRef<'_, T>, b: &DenseRef<'_, T>) -> Result<DenseBuf<T>> {
    arithmetic(a, b, |a, b| a - b)
}

pub fn multiply<T: Element>(a: &DenseRef<'_, T>, b: &DenseRef<'_, T>) -> Result<DenseBuf<T>> {
    let mut result = arithmetic(a, b, |a, b| a * b)?;
    let zero = T::default();
    let mut products = result.as_mut_slice().iter().zip(a.as_slice()).zip(b.as_slice());
    if products.any(|((product, a), b)| *product == zero && *a != zero && *b != zero) {
        return Err(SqlError::underflow());
    }
    Ok(result)
}

pub fn concatenate<T: Element>(a: &DenseRef<'_, T>, b: &DenseRef<'_, T>) -> Result<DenseBuf<T>> {
    let mut result = DenseBuf::<T>::zeroed(a.dims + b.dims)?;
    let (left, right) = result.as_mut_slice().split_at_mut(a.dims);
    left.copy_from_slice(a.as_slice());
    right.copy_from_slice(b.as_slice());
    Ok(result)
}

/// `count` elements from the one-based `start`, as far as they are inside the vector, like `substring`.
pub fn subvector<T: Element>(value: &DenseRef<'_, T>, start: i32, count: i32) -> Result<DenseBuf<T>> {
    let (start, count) = (i64::from(start), i64::from(count));
    let end = (start + count).min(value.dims as i64 + 1);
    let start = start.max(1);
    check_dims::<T>(if count < 1 { 0 } else { end - start })?;
    DenseBuf::from_slice(&value.as_slice()[start as usize - 1..end as usize - 1])
}

// Order.

/// By elements, then by dimensions: as PostgreSQL's arrays are ordered.
pub fn compare<T: Element>(a: &DenseRef<'_, T>, b: &DenseRef<'_, T>) -> Ordering {
    compare_elements(a.as_slice(), b.as_slice())
}

fn compare_elements<T: Element>(a: &[T], b: &[T]) -> Ordering {
    // Slices compare lexicographically; elements are never NaN.
    a.partial_cmp(b).unwrap_or(Ordering::Equal)
}

// Aggregates.

/// Add a row to the state of `avg`; in place if the state is an aggregate's own.
pub fn accumulate<T: Element>(
    state: ArrayRef<'_>,
    value: &DenseRef<'_, T>,
    in_place: bool,
    caller: &str,
) -> Result<StateResult> {
    let mut state = AverageState::new(state, caller)?;
    let fresh = state.dims() == 0;
    if !fresh {
        check_expected_dims(state.dims() as i32, value.dims)?;
    }
    if in_place && !fresh {
        // SAFETY: the caller says that the state belongs to the running aggregate.
        let values = unsafe { state.values_mut() };
        values[0] += 1.0;
        add_to_sums(&mut values[1..], value.as_slice())?;
        return Ok(StateResult::Given(state.into_datum()));
    }
    let mut result = AverageState::build(value.dims);
    let values = result.values_mut();
    values[0] = state.count() + 1.0;
    values[1..].iter_mut().zip(state.sums()).for_each(|(target, sum)| *target = *sum);
    add_to_sums(&mut values[1..], value.as_slice())?;
    Ok(StateResult::New(result.finish()))
}

fn add_to_sums<T: Element>(sums: &mut [f64], values: &[T]) -> Result<()> {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += f64::from(value.to_f32());
    }
    if sums.iter().any(|sum| sum.is_infinite()) {
        return Err(SqlError::overflow());
    }
    Ok(())
}

/// Merge the states of two workers.
pub fn combine(a: ArrayRef<'_>, b: ArrayRef<'_>, caller: &str) -> Result<StateResult> {
    let (a, b) = (AverageState::new(a, caller)?, AverageState::new(b, caller)?);
    // In these words for half vectors as well, as pgvector has it from 0.8.6 on.
    check_dims::<f32>(a.dims().max(b.dims()).max(1) as i64)?;
    if a.count() == 0.0 {
        return Ok(StateResult::Given(b.into_datum()));
    }
    if b.count() == 0.0 {
        return Ok(StateResult::Given(a.into_datum()));
    }
    check_expected_dims(a.dims() as i32, b.dims())?;
    let mut result = AverageState::build(a.dims());
    let values = result.values_mut();
    values[0] = a.count() + b.count();
    for ((target, a), b) in values[1..].iter_mut().zip(a.sums()).zip(b.sums()) {
        *target = a + b;
    }
    if values[1..].iter().any(|sum| sum.is_infinite()) {
        return Err(SqlError::overflow());
    }
    Ok(StateResult::New(result.finish()))
}

/// The result of `avg`; NULL for no rows.
pub fn average<T: Element>(state: ArrayRef<'_>, caller: &str) -> Result<Option<DenseBuf<T>>> {
    let state = AverageState::new(state, caller)?;
    if state.count() == 0.0 {
        return Ok(None);
    }
    let mut result = DenseBuf::<T>::zeroed(state.dims())?;
    for (target, sum) in result.as_mut_slice().iter_mut().zip(state.sums()) {
        *target = T::checked((sum / state.count()) as f32)?.check()?;
    }
    Ok(Some(result))
}

/// An aggregate's state: one of the arguments, or a new one.
pub enum StateResult {
    Given(Datum),
    New(NewVarlena),
}

impl IntoReturn for StateResult {
    unsafe fn into_return(self, fcinfo: FunctionCallInfo) -> Datum {
        match self {
            StateResult::Given(state) => state,
            // SAFETY: the caller's promise.
            StateResult::New(state) => unsafe { state.into_return(fcinfo) },
        }
    }
}

macro_rules! impl_element {
    ($ty:ty, $name:literal) => {
        impl Element for $ty {
            const TYPE: &'static str = $name;

            fn send_all(reply: &mut Reply, values: &[Self]) {
                reply.push_all(values.iter().map(|v| v.to_be_bytes()));
            }

            fn receive_all(bytes: &[u8]) -> impl ExactSizeIterator<Item = Self> {
                bytes.chunks_exact(size_of::<$ty>()).map(|b| <$ty>::from_be_bytes(b.try_into().expect("exact chunk")))
            }
        }
    };
}

impl_element!(f32, "vector");
impl_element!(f16, "halfvec");

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    fn read<T: Element>(text: &str) -> Result<Vec<T>> {
        parse::<T>(&CString::new(text).unwrap())
    }

    fn message<T: Element + std::fmt::Debug>(text: &str) -> String {
        let error = read::<T>(text).unwrap_err();
        error.message + error.detail.map(|d| format!(" / {d}")).unwrap_or_default().as_str()
    }

    #[test]
    fn text_is_parsed() {
        assert_eq!(read::<f32>("[1,2,3]"), Ok(vec![1.0, 2.0, 3.0]));
        assert_eq!(read::<f32>(" [ 1.,\t-.5 ,\n3e2 ] "), Ok(vec![1.0, -0.5, 300.0]));
        assert_eq!(read::<f32>("[0x10]"), Ok(vec![16.0]));
        assert_eq!(read::<f32>("[1e-46]"), Ok(vec![0.0]));
        assert_eq!(read::<f16>("[65519,1.23456]"), Ok(vec![f16::MAX, f16::from_f32(1.234375)]));
    }

    #[test]
    fn malformed_text_is_refused_in_the_words_users_know() {
        let syntax = |text: &str| format!("invalid input syntax for type vector: \"{text}\"");
        for text in ["[1,2,3", "[", "[ ", "[,", "[,]", "[1,]", "[1a]", "[1,,3]", "[1, ,3]", "[hello,1]", "[1e]"] {
            assert_eq!(message::<f32>(text), syntax(text));
        }
        for text in ["", "1,2,3", "{1}"] {
            assert_eq!(message::<f32>(text), syntax(text) + " / Vector contents must start with \"[\".");
        }
        assert_eq!(message::<f32>("[1]9"), syntax("[1]9") + " / Junk after closing right brace.");
        assert_eq!(message::<f32>("[]"), "vector must have at least 1 dimension");
        assert_eq!(message::<f16>("[ ]"), "halfvec must have at least 1 dimension");
        assert_eq!(message::<f32>("[NaN]"), "NaN not allowed in vector");
        assert_eq!(message::<f32>("[-Infinity]"), "infinite value not allowed in vector");
        assert_eq!(message::<f32>("[4e38]"), "\"4e38\" is out of range for type vector");
        assert_eq!(message::<f16>("[65520,-65520]"), "\"65520\" is out of range for type halfvec");
        let many = format!("[{}]", vec!["1"; MAX_DIMS + 1].join(","));
        assert_eq!(message::<f32>(&many), "vector cannot have more than 16000 dimensions");
    }

    #[test]
    fn order_is_lexicographic_and_negative_zero_is_zero() {
        assert_eq!(compare_elements(&[1f32, 2.0], &[1.0, 2.0, 3.0]), Ordering::Less);
        assert_eq!(compare_elements(&[2f32], &[1.0, 2.0, 3.0]), Ordering::Greater);
        assert_eq!(compare_elements(&[0f32], &[-0.0]), Ordering::Equal);
        assert_eq!(compare_elements(&[f16::from_f32(-0.0)], &[f16::ZERO]), Ordering::Equal);
    }

    /// Whatever a client sends: a value of finite elements, which is read again as it is written, or an ERROR; never a panic.
    #[test]
    fn any_text_is_a_value_or_an_error() {
        use proptest::prelude::*;
        const PARTS: [&str; 24] = [
            "[", "]", "{", "}", ",", " ", "\t", "-", "+", ".", "0", "1", "9", "16", "3.5", "1e", "e38", "e-46", "nan",
            "inf", "0x", ":", "/", "é",
        ];
        let text = prop_oneof![
            proptest::collection::vec(proptest::sample::select(PARTS.to_vec()), 0..24).prop_map(|parts| parts.concat()),
            proptest::collection::vec(1u8.., 0..40).prop_map(|bytes| bytes.iter().map(|&byte| byte as char).collect()),
            proptest::collection::vec(-1e38f32..1e38, 1..20).prop_map(|values| format!("{values:?}")),
        ];
        let config = ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(text in text)| {
            if let Ok(values) = read::<f32>(&text) {
                prop_assert!(!values.is_empty() && values.iter().all(|value| value.is_finite()));
                prop_assert_eq!(read::<f32>(&format!("{values:?}")), Ok(values));
            }
            if let Ok(values) = read::<f16>(&text) {
                prop_assert!(values.iter().all(|value| value.is_finite()));
            }
        });
    }
}
