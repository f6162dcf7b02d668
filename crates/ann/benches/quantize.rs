//! The quantization kernels: `cargo bench -p ann --bench quantize`.
//!
//! Throughput is in elements: entries of a scan (so 1 / (elements per second) is the time per entry), vectors else. `scan`
//! reads one block again and again from the first cache; `scan_far` walks through 24 MB of blocks, so that its bytes per
//! second (divide: an entry has D/4 bytes of sketch and 8 of factors) compare with what the cache or the memory delivers.
//! `read` is that yardstick: the same bytes summed by plain loads.

use ann::quantize::simd::{Kernels, available};
use ann::quantize::{
    BLOCK, Bits, BlockFactors, DEFAULT_Z, ListTerm, QueryTable, Rotation, Space, decode_code, encode_code,
    encode_sketch, factor,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;

const DIMS: [usize; 3] = [104, 784, 1536];

/// Pseudo-random numbers in −1..1.
fn numbers(n: usize) -> Vec<f32> {
    let mut state = 1u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(n).collect()
}

fn bytes(n: usize) -> Vec<u8> {
    numbers(n).iter().map(|x| (x * 1e6) as i32 as u8).collect()
}

fn scan(kernels: &Kernels, table: &QueryTable, groups: &[u8], f: &BlockFactors) -> u32 {
    let (mut estimate, mut lower) = ([0f32; BLOCK], [0f32; BLOCK]);
    let term = ListTerm { a: 1.0, b: 1.0 };
    let mask = kernels.scan_block(table, groups, f, term, -1e9, &mut estimate, &mut lower);
    black_box((&estimate, &lower));
    mask
}

fn scans(c: &mut Criterion) {
    for dims in DIMS {
        let block = 8 * dims;
        let blocks = (24 << 20) / block;
        let data = bytes(blocks * block);
        let column: [f32; BLOCK] = numbers(BLOCK).try_into().unwrap();
        let packed = column.map(|x| factor::pack(x.abs()));
        let f = BlockFactors { constant: &column, scale: &packed, error: &packed };
        let mut table = QueryTable::new();
        table.build(&numbers(dims), DEFAULT_Z);

        let mut group = c.benchmark_group(format!("scan/{dims}"));
        group.throughput(Throughput::Elements(BLOCK as u64));
        for kernels in available() {
            group.bench_function(kernels.name(), |b| {
                b.iter(|| scan(kernels, &table, black_box(&data[..block]), &f));
            });
        }
        group.finish();

        let mut group = c.benchmark_group(format!("scan_far/{dims}"));
        group.throughput(Throughput::Elements((BLOCK * blocks) as u64));
        for kernels in available().into_iter().skip(1) {
            group.bench_function(kernels.name(), |b| {
                b.iter(|| {
                    data.chunks_exact(block).map(|groups| scan(kernels, &table, groups, &f)).fold(0, |a, m| a ^ m)
                });
            });
        }
        group.bench_function("read", |b| {
            b.iter(|| {
                let mut sums = [0u64; 32];
                for line in black_box(&data).as_chunks::<256>().0 {
                    for (sum, word) in sums.iter_mut().zip(line.as_chunks::<8>().0) {
                        *sum ^= u64::from_le_bytes(*word);
                    }
                }
                sums
            });
        });
        group.finish();
    }
}

fn others(c: &mut Criterion) {
    for dims in DIMS {
        let q = numbers(dims);
        let mut group = c.benchmark_group(format!("vector/{dims}"));
        let mut table = QueryTable::new();
        group.bench_function("table", |b| b.iter(|| table.build(black_box(&q), DEFAULT_Z)));
        let mut nibbles = vec![0; dims / 2];
        group.bench_function("encode_sketch", |b| {
            b.iter(|| encode_sketch(Space::L2, black_box(&q), &q, &mut nibbles));
        });
        for bits in [Bits::Eight, Bits::Four] {
            let mut code = vec![0; bits.bytes(dims)];
            group.bench_function(format!("encode_code/{bits:?}"), |b| {
                b.iter(|| encode_code(bits, Space::L2, black_box(&q), &q, &mut code));
            });
            let mut x = q.clone();
            group.bench_function(format!("decode_code/{bits:?}"), |b| {
                b.iter(|| decode_code(bits, black_box(&code), 1e-9, &mut x));
            });
            for kernels in available() {
                group.bench_function(format!("dot_code/{bits:?}/{}", kernels.name()), |b| {
                    b.iter(|| kernels.dot_code(bits, black_box(&q), black_box(&code)));
                });
            }
        }
        let rotation = Rotation::new(dims, 1);
        for kernels in available() {
            let mut x = q.clone();
            group.bench_function(format!("rotate/{}", kernels.name()), |b| {
                b.iter(|| rotation.apply_with(kernels, black_box(&mut x)));
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300))
        .without_plots();
    targets = scans, others
}
criterion_main!(benches);
