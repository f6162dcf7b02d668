//! Portable stand-in for `ann::distance`.

use super::dense::Element;

fn sum<T: Element>(a: &[T], b: &[T], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f32 = a8.remainder().iter().zip(b8.remainder()).map(|(a, b)| f(a.to_f32(), b.to_f32())).sum();
    for (a, b) in a8.zip(b8) {
        for i in 0..8 {
            lanes[i] += f(a[i].to_f32(), b[i].to_f32());
        }
    }
    lanes.iter().sum::<f32>() + tail
}

pub fn l2_squared<T: Element>(a: &[T], b: &[T]) -> f32 {
    sum(a, b, |a, b| (a - b) * (a - b))
}

pub fn inner_product<T: Element>(a: &[T], b: &[T]) -> f32 {
    sum(a, b, |a, b| a * b)
}

pub fn l1<T: Element>(a: &[T], b: &[T]) -> f32 {
    sum(a, b, |a, b| (a - b).abs())
}

pub fn cosine_distance<T: Element>(a: &[T], b: &[T]) -> f64 {
    let (aa, bb) = (inner_product(a, a) as f64, inner_product(b, b) as f64);
    1.0 - (inner_product(a, b) as f64 / (aa * bb).sqrt()).clamp(-1.0, 1.0)
}

fn count(a: &[u8], b: &[u8], f: impl Fn(u8, u8) -> u8) -> u64 {
    a.iter().zip(b).map(|(a, b)| u64::from(f(*a, *b).count_ones())).sum()
}

pub fn hamming(a: &[u8], b: &[u8]) -> u64 {
    count(a, b, |a, b| a ^ b)
}

pub fn jaccard(a: &[u8], b: &[u8]) -> f64 {
    let (both, either) = (count(a, b, |a, b| a & b), count(a, b, |a, b| a | b));
    if both == 0 { 1.0 } else { 1.0 - both as f64 / either as f64 }
}
