//! Every kernel set that this CPU can run, against f64 references and the portable set.

use super::simd::{self, Kernels};
use super::{Element, f16};

/// A small deterministic generator (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in -1 .. 1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn floats<T: Element>(&mut self, n: usize, offset: f32) -> Vec<T> {
        (0..n).map(|_| T::from_f32(offset + self.unit())).collect()
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// The lengths tested: every one to 300, and the largest dimension.
fn lengths() -> impl Iterator<Item = usize> {
    (0..=300).chain([16_000])
}

/// Σ of the terms, and Σ of their absolute values.
fn reference<A: Copy, B: Copy>(a: &[A], b: &[B], term: impl Fn(A, B) -> f64) -> (f64, f64) {
    a.iter().zip(b).map(|(x, y)| term(*x, *y)).fold((0.0, 0.0), |(sum, absolute), t| (sum + t, absolute + t.abs()))
}

/// Within 1e-5 of the reference, relative to the sum of absolute terms.
#[track_caller]
fn assert_close(set: &Kernels, what: &str, n: usize, got: f32, (want, scale): (f64, f64)) {
    let error = (f64::from(got) - want).abs();
    assert!(error <= 1e-5 * scale, "{} {what}, {n} elements: {got}, expected {want}", set.name);
}

/// Copies into the end of an exactly fitting, odd-offset allocation: unaligned, and nothing to read behind it.
fn unaligned<T: Copy + Default>(values: &[T]) -> Vec<T> {
    let mut copy = Vec::with_capacity(values.len() + 1);
    copy.push(T::default());
    copy.extend_from_slice(values);
    copy
}

fn check_floats<T: Element>(offset_a: f32, offset_b: f32) {
    let mut random = Random(42);
    let portable = simd::available()[0];
    for n in lengths() {
        let (a, b) = (random.floats::<T>(n, offset_a), random.floats::<T>(n, offset_b));
        let (a, b) = (unaligned(&a), unaligned(&b));
        let (a, b) = (&a[1..], &b[1..]);
        let wide = |x: T| f64::from(x.to_f32());
        let l2 = reference(a, b, |x, y| (wide(x) - wide(y)).powi(2));
        let l1 = reference(a, b, |x, y| (wide(x) - wide(y)).abs());
        let dot = reference(a, b, |x, y| wide(x) * wide(y));
        let norm_a = reference(a, a, |x, _| wide(x).powi(2));
        let norm_b = reference(b, b, |x, _| wide(x).powi(2));
        for set in simd::available() {
            assert_close(set, "l2_squared", n, set.l2_squared(a, b), l2);
            assert_close(set, "l1", n, set.l1(a, b), l1);
            assert_close(set, "inner_product", n, set.inner_product(a, b), dot);
            assert_close(set, "norm_squared", n, set.norm_squared(a), norm_a);
            let terms = set.cosine_terms(a, b);
            assert_close(set, "cosine_terms dot", n, terms.0, dot);
            assert_close(set, "cosine_terms norm a", n, terms.1, norm_a);
            assert_close(set, "cosine_terms norm b", n, terms.2, norm_b);

            let other = f64::from(portable.l2_squared(a, b));
            assert_close(set, "l2_squared against portable", n, set.l2_squared(a, b), (other, l2.1));
            let other = f64::from(portable.inner_product(a, b));
            assert_close(set, "inner_product against portable", n, set.inner_product(a, b), (other, dot.1));
        }
    }
}

#[test]
fn f32_kernels() {
    check_floats::<f32>(0.0, 0.0);
}

#[test]
fn f32_kernels_with_large_offsets() {
    check_floats::<f32>(1e3, 1e3);
    check_floats::<f32>(-1e3, 1e3);
    check_floats::<f32>(1e-20, 1e-20);
}

#[test]
fn f16_kernels() {
    check_floats::<f16>(0.0, 0.0);
}

#[test]
fn f16_kernels_with_large_offsets() {
    check_floats::<f16>(1e3, 1e3);
    check_floats::<f16>(-6e4, 6e4);
}

#[test]
fn constant_vectors() {
    // Equal terms round the same way every time: the worst case of long sums.
    for set in simd::available() {
        let (a, b) = (vec![0.1f32; 16_000], vec![-0.7f32; 16_000]);
        let dot = reference(&a, &b, |x, y| f64::from(x) * f64::from(y));
        let l2 = reference(&a, &b, |x, y| (f64::from(x) - f64::from(y)).powi(2));
        let l1 = reference(&a, &b, |x, y| (f64::from(x) - f64::from(y)).abs());
        assert_close(set, "inner_product", 16_000, set.inner_product(&a, &b), dot);
        assert_close(set, "cosine_terms", 16_000, set.cosine_terms(&a, &b).0, dot);
        assert_close(set, "l2_squared", 16_000, set.l2_squared(&a, &b), l2);
        assert_close(set, "l1", 16_000, set.l1(&a, &b), l1);
    }
}

#[test]
fn overflow_is_infinite() {
    for set in simd::available() {
        for n in [1, 3, 8, 16, 17, 64, 100] {
            let (a, b) = (vec![3e38f32; n], vec![-3e38f32; n]);
            assert_eq!(set.l2_squared(&a, &b), f32::INFINITY);
            assert_eq!(set.l1(&a, &b), f32::INFINITY);
            assert_eq!(set.inner_product(&a, &b), f32::NEG_INFINITY);
            assert_eq!(set.norm_squared(&a), f32::INFINITY);
            assert_eq!(set.cosine_terms(&a, &b), (f32::NEG_INFINITY, f32::INFINITY, f32::INFINITY));
            let huge = vec![f16::INFINITY; n];
            assert_eq!(set.norm_squared(&huge), f32::INFINITY);
            assert_eq!(set.inner_product(&huge, &vec![f16::MAX; n]), f32::INFINITY);
        }
    }
}

#[test]
fn nan_is_kept() {
    for set in simd::available() {
        for n in 1..70 {
            for at in [0, n / 2, n - 1] {
                let mut a = vec![1.0f32; n];
                a[at] = f32::NAN;
                let b = vec![1.0f32; n];
                assert!(set.l2_squared(&a, &b).is_nan());
                assert!(set.l1(&b, &a).is_nan());
                assert!(set.inner_product(&a, &b).is_nan());
                assert!(set.norm_squared(&a).is_nan());
            }
        }
    }
}

#[test]
fn f32_with_i8() {
    let mut random = Random(7);
    for n in lengths() {
        for offset in [0.0, 1e3] {
            let q = unaligned(&random.floats::<f32>(n, offset));
            let code: Vec<i8> = random.bytes(n).into_iter().map(|byte| byte as i8).collect();
            let code = unaligned(&code);
            let (q, code) = (&q[1..], &code[1..]);
            let want = reference(q, code, |x, c| f64::from(x) * f64::from(c));
            for set in simd::available() {
                assert_close(set, "dot_i8", n, set.dot_i8(q, code), want);
            }
        }
        let (q, code) = (vec![1.0f32; n], vec![i8::MIN; n]);
        for set in simd::available() {
            assert_eq!(set.dot_i8(&q, &code), -128.0 * n as f32);
        }
    }
}

#[test]
fn bits() {
    let mut random = Random(3);
    for n in lengths() {
        let (a, b) = (unaligned(&random.bytes(n)), unaligned(&random.bytes(n)));
        let (a, b) = (&a[1..], &b[1..]);
        let count =
            |op: fn(u8, u8) -> u8| -> u64 { a.iter().zip(b).map(|(x, y)| u64::from(op(*x, *y).count_ones())).sum() };
        let (ones, zeros) = (vec![0xffu8; n], vec![0u8; n]);
        for set in simd::available() {
            assert_eq!(set.hamming(a, b), count(|x, y| x ^ y), "{} hamming, {n} bytes", set.name);
            let want = (count(|x, y| x & y), count(|x, y| x | y));
            assert_eq!(set.jaccard_terms(a, b), want, "{} jaccard, {n} bytes", set.name);
            assert_eq!(set.hamming(&ones, &zeros), 8 * n as u64);
            assert_eq!(set.jaccard_terms(&ones, &ones), (8 * n as u64, 8 * n as u64));
        }
    }
}

#[test]
fn every_f16_round_trips() {
    let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    for set in simd::available() {
        let mut wide = vec![0.0f32; all.len()];
        set.f16_to_f32(&all, &mut wide);
        let mut back = vec![f16::ZERO; all.len()];
        set.f32_to_f16(&wide, &mut back);
        for ((half, float), again) in all.iter().zip(&wide).zip(&back) {
            if half.is_nan() {
                assert!(float.is_nan() && again.is_nan());
            } else {
                assert_eq!(float.to_bits(), half.to_f32_const().to_bits());
                assert_eq!(again.to_bits(), half.to_bits());
            }
        }
    }
}

#[test]
fn f16_kernels_read_every_value() {
    // Each value alone, in a full register and in a tail.
    for set in simd::available() {
        for half in (0..=u16::MAX).map(f16::from_bits).filter(|half| half.is_finite()) {
            let want = half.to_f32_const().abs();
            assert_eq!(set.l1(&[half], &[f16::ZERO]), want);
        }
        for half in (0..=u16::MAX).step_by(7).map(f16::from_bits).filter(|half| half.is_finite()) {
            let mut a = [f16::ZERO; 64];
            a[half.to_bits() as usize % 64] = half;
            assert_eq!(set.l1(&a, &[f16::ZERO; 64]), half.to_f32_const().abs());
        }
    }
}

#[test]
fn f32_rounds_to_f16_as_half_does() {
    let mut random = Random(11);
    let mut values: Vec<f32> = (0..100_000).map(|_| f32::from_bits(random.next() as u32)).collect();
    // Values in f16's range, ties between neighbours, and the limits of the range.
    values.extend((0..100_000).map(|_| random.unit() * f32::powi(2.0, (random.next() % 45) as i32 - 27)));
    values.extend(
        (0..0x7bffu16)
            .map(|bits| (f16::from_bits(bits).to_f32_const() + f16::from_bits(bits + 1).to_f32_const()) / 2.0),
    );
    values.extend([0.0, -0.0, 65504.0, 65519.99, 65520.0, 1e9, f32::MAX, f32::INFINITY, 5.9e-8, 2.9e-8, 1e-40]);
    for set in simd::available() {
        for skip in 0..17 {
            // Different offsets move values between registers and tails.
            let values = &values[skip..];
            let mut rounded = vec![f16::ZERO; values.len()];
            set.f32_to_f16(values, &mut rounded);
            for (value, half) in values.iter().zip(&rounded) {
                if value.is_nan() {
                    assert!(half.is_nan());
                } else {
                    assert_eq!(half.to_bits(), f16::from_f32_const(*value).to_bits(), "{} {value}", set.name);
                }
            }
        }
    }
}

#[test]
fn conversions_of_every_length() {
    let mut random = Random(5);
    for n in 0..=300 {
        let halves = random.floats::<f16>(n, 0.0);
        for set in simd::available() {
            let mut wide = vec![0.0f32; n];
            set.f16_to_f32(&halves, &mut wide);
            assert!(wide.iter().zip(&halves).all(|(float, half)| *float == half.to_f32_const()));
            let mut back = vec![f16::ZERO; n];
            set.f32_to_f16(&wide, &mut back);
            assert_eq!(back, halves);
        }
    }
}

#[test]
fn the_best_set_is_active() {
    assert_eq!(simd::active().name, simd::available().last().unwrap().name);
    assert_eq!(simd::active().name, simd::active().name);
    assert_eq!(simd::available()[0].name, "portable");
}

#[test]
fn public_functions() {
    let (a, b) = ([1.0f32, 2.0, 3.0], [4.0f32, 6.0, 8.0]);
    assert_eq!(super::l2_squared(&a, &b), 50.0);
    assert_eq!(super::inner_product(&a, &b), 40.0);
    assert_eq!(super::l1(&a, &b), 12.0);
    assert_eq!(super::norm_squared(&a), 14.0);
    assert_eq!(super::cosine_terms(&a, &b), (40.0, 14.0, 116.0));
    assert_eq!(super::dot_i8(&a, &[-1, 0, 127]), 380.0);
    assert_eq!(super::hamming(&[0b1010, 1], &[0b0110, 1]), 2);
    let mut halves = [f16::ZERO; 3];
    super::f32_to_f16_slice(&a, &mut halves);
    assert_eq!(super::l2_squared(&halves, &[f16::ONE; 3]), 5.0);
    let mut wide = [0.0; 3];
    super::f16_to_f32_slice(&halves, &mut wide);
    assert_eq!(wide, a);
}
