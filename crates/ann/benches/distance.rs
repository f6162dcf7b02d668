//! Every distance kernel of every kernel set that this CPU can run, in bytes read a second.
//!
//! `cargo bench -p ann --bench distance -- l2_squared` runs one metric.

use ann::distance::simd::{Kernels, available};
use ann::distance::{Element, f16};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;

const DIMS: [usize; 3] = [100, 784, 1536];

/// Deterministic values in -1 .. 1.
fn floats<T: Element>(n: usize, seed: usize) -> Vec<T> {
    (0..n).map(|i| T::from_f32(((i * 7919 + seed * 104_729) % 2001) as f32 / 1000.0 - 1.0)).collect()
}

fn bytes(n: usize, seed: usize) -> Vec<u8> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729) >> 3) as u8).collect()
}

/// One metric over all dimensions and sets; `bytes_per_dim` counts all the operands.
fn metric<D, R>(
    criterion: &mut Criterion,
    name: &str,
    bytes_per_dim: f64,
    prepare: impl Fn(usize) -> D,
    call: impl Fn(&'static Kernels, &mut D) -> R,
) {
    let mut group = criterion.benchmark_group(name);
    for dim in DIMS {
        group.throughput(Throughput::Bytes((bytes_per_dim * dim as f64).ceil() as u64));
        for set in available() {
            let mut data = prepare(dim);
            group.bench_function(BenchmarkId::new(set.name, dim), |bencher| {
                bencher.iter(|| call(set, black_box(&mut data)));
            });
        }
    }
    group.finish();
}

/// The metrics over vectors of one element type.
fn elements<T: Element>(criterion: &mut Criterion, element: &str) {
    let size = size_of::<T>() as f64;
    let pair = |dim| (floats::<T>(dim, 1), floats::<T>(dim, 2));
    let name = |metric: &str| format!("{metric}_{element}");
    metric(criterion, &name("l2_squared"), 2.0 * size, pair, |set, (a, b)| set.l2_squared(a, b));
    metric(criterion, &name("inner_product"), 2.0 * size, pair, |set, (a, b)| set.inner_product(a, b));
    metric(criterion, &name("l1"), 2.0 * size, pair, |set, (a, b)| set.l1(a, b));
    metric(criterion, &name("cosine_terms"), 2.0 * size, pair, |set, (a, b)| set.cosine_terms(a, b));
    metric(criterion, &name("norm_squared"), size, pair, |set, (a, _)| set.norm_squared(a));
}

fn distances(criterion: &mut Criterion) {
    elements::<f32>(criterion, "f32");
    elements::<f16>(criterion, "f16");

    let code = |dim| bytes(dim, 2).into_iter().map(|byte| byte as i8).collect::<Vec<_>>();
    let query = |dim| (floats::<f32>(dim, 1), code(dim));
    metric(criterion, "dot_i8", 5.0, query, |set, (q, code)| set.dot_i8(q, code));

    let pair = |dim: usize| (bytes(dim.div_ceil(8), 1), bytes(dim.div_ceil(8), 2));
    metric(criterion, "hamming", 0.25, pair, |set, (a, b)| set.hamming(a, b));
    metric(criterion, "jaccard_terms", 0.25, pair, |set, (a, b)| set.jaccard_terms(a, b));

    let both = |dim| (floats::<f16>(dim, 1), floats::<f32>(dim, 2));
    metric(criterion, "f16_to_f32", 6.0, both, |set, (half, float)| set.f16_to_f32(half, float));
    metric(criterion, "f32_to_f16", 6.0, both, |set, (half, float)| set.f32_to_f16(float, half));
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300))
        .sample_size(20);
    targets = distances
}
criterion_main!(benches);
