//! Speed, quality and balance of `ann::cluster`.
//!
//! `cargo bench -p ann --bench cluster` prints the machine's FMA peak and the share of it that flat assignment reaches,
//! then runs small criterion benchmarks. With `ANN_BASE=rows.npy` (f32, C order) and `ANN_LISTS=5000` it reports on that
//! file instead; `ANN_COSINE=1` normalises the rows first. `ANN_THREADS` (2) sets the threads.

use std::hint::black_box;
use std::time::{Duration, Instant};

use ann::cluster::{Assigner, Centroids, Matrix, TrainOptions, train};
use criterion::{BatchSize, Criterion, Throughput};

/// Independent chains of fused multiply-adds that fill two units of latency 4 … 5.
const CHAINS: usize = 12;

/// Floating-point operations of `rounds` rounds on all chains: the lanes decide how many.
#[inline(always)]
fn chains<const LANES: usize>(rounds: usize) -> f64 {
    let (x, y) = (black_box([1.000_000_1f32; LANES]), black_box([1e-9f32; LANES]));
    let mut sums = [[1.0f32; LANES]; CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            for lane in 0..LANES {
                sum[lane] = sum[lane].mul_add(x[lane], y[lane]);
            }
        }
    }
    black_box(&sums);
    (rounds * CHAINS * LANES * 2) as f64
}

/// Floating-point operations done by one call.
fn multiply_adds(rounds: usize) -> f64 {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f")]
        fn avx512(rounds: usize) -> f64 {
            use std::arch::x86_64::*;
            let (x, y) = (_mm512_set1_ps(black_box(1.000_000_1)), _mm512_set1_ps(black_box(1e-9)));
            let mut sums = [_mm512_set1_ps(1.0); CHAINS];
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum = _mm512_fmadd_ps(*sum, x, y);
                }
            }
            black_box(&sums);
            (rounds * CHAINS * 32) as f64
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2(rounds: usize) -> f64 {
            chains::<8>(rounds)
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature was just detected.
            return unsafe { avx512(rounds) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the features were just detected.
            return unsafe { avx2(rounds) };
        }
    }
    chains::<4>(rounds)
}

/// Time that the processors spent on this process: unlike the clock, it does not count other work on the machine.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(done, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Operations a second and thread, the best of some tries with all threads busy.
fn peak(threads: usize) -> f64 {
    (0..5)
        .map(|_| {
            let start = processor_time();
            let done: f64 = std::thread::scope(|scope| {
                let work: Vec<_> = (0..threads).map(|_| scope.spawn(|| multiply_adds(10_000_000))).collect();
                work.into_iter().map(|work| work.join().unwrap()).sum()
            });
            done / (processor_time() - start).as_secs_f64()
        })
        .fold(0.0, f64::max)
}

/// `rows` points around `clusters` centres.
fn clustered(rows: usize, dims: usize, clusters: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut normal = || {
        let mut sum = 0.0;
        for _ in 0..4 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            sum += (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
        }
        sum
    };
    let centres: Vec<f32> = (0..clusters * dims).map(|_| normal()).collect();
    let mut data = Vec::with_capacity(rows * dims);
    for row in 0..rows {
        let centre = row * 7919 % clusters * dims;
        data.extend(centres[centre..centre + dims].iter().map(|c| c + 0.7 * normal()));
    }
    data
}

/// What some tries took at least.
struct Took {
    wall: Duration,
    /// Of all threads together.
    processor: Duration,
}

impl std::fmt::Display for Took {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3} s ({:.3} s of processor)", self.wall.as_secs_f64(), self.processor.as_secs_f64())
    }
}

fn least(times: usize, mut run: impl FnMut()) -> Took {
    let tries = (0..times).map(|_| {
        let (wall, processor) = (Instant::now(), processor_time());
        run();
        (wall.elapsed(), processor_time() - processor)
    });
    let (wall, processor): (Vec<_>, Vec<_>) = tries.unzip();
    Took { wall: wall.into_iter().min().unwrap(), processor: processor.into_iter().min().unwrap() }
}

fn mean(distances: &[f32]) -> f64 {
    distances.iter().map(|&d| f64::from(d)).sum::<f64>() / distances.len() as f64
}

/// Prints the share of the peak that assignment to few enough lists for one level reaches.
fn report_share(threads: usize) {
    let peak = peak(threads);
    println!(
        "FMA peak: {:.0} GFLOP/s a thread ({threads} busy); figures a processor second, other work excluded",
        peak / 1e9
    );
    for (rows, dims, lists) in [(200_000, 104, 480), (40_000, 784, 480), (2_000, 16_000, 480)] {
        let data = clustered(rows, dims, 100);
        let rows = Matrix::new(&data, dims);
        let centroids = Centroids::new(dims, data[..lists * dims].to_vec());
        let assigner = Assigner::new(&centroids);
        let (mut found, mut distances) = (vec![0; rows.rows()], vec![0.0; rows.rows()]);
        let time = least(5, || assigner.assign(rows, &mut found, &mut distances));
        let speed = (2 * rows.rows() * dims * lists) as f64 / time.processor.as_secs_f64();
        println!(
            "{}: {} x {dims} rows to {lists} lists: {time}, {:.0} GFLOP/s, {:.0} % of the peak",
            assigner.kernel(),
            rows.rows(),
            speed / 1e9,
            speed / peak * 100.0
        );
    }
}

/// Prints times, balance and quality for a file of rows.
fn report_file(path: &str) {
    let lists: usize = std::env::var("ANN_LISTS").map_or(1000, |lists| lists.parse().expect("ANN_LISTS is a number"));
    let bytes = std::fs::read(path).expect("the file can be read");
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let text = String::from_utf8_lossy(&bytes[10..header]).into_owned();
    let shape = text.split("'shape': (").nth(1).and_then(|rest| rest.split(')').next()).expect("a header with a shape");
    let dims: usize = shape.split(',').nth(1).expect("two dimensions").trim().parse().expect("a number of dimensions");
    let values = bytes[header..].as_chunks::<4>().0;
    let mut data: Vec<f32> = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
    drop(bytes);
    if std::env::var("ANN_COSINE").is_ok() {
        for row in data.chunks_mut(dims) {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.iter_mut().for_each(|x| *x /= norm);
        }
    }
    let all = Matrix::new(&data, dims);
    let sample_rows: usize = std::env::var("ANN_SAMPLE").map_or(all.rows(), |rows| rows.parse().expect("a number"));
    let mut picked = Vec::with_capacity(sample_rows.min(all.rows()) * dims);
    for i in 0..sample_rows.min(all.rows()) {
        picked.extend_from_slice(all.row(i * all.rows() / sample_rows.min(all.rows())));
    }
    let sample = Matrix::new(&picked, dims);
    let options = TrainOptions { lists, ..TrainOptions::default() };
    let mut centroids = train(sample, &options).expect("nothing cancels");
    let time = least(3, || centroids = train(sample, &options).expect("nothing cancels"));
    println!("train on {} x {dims}, {} lists: {time}", sample.rows(), centroids.lists());

    let (mut found, mut distances) = (vec![0; all.rows()], vec![0.0; all.rows()]);
    let mut assigner = Assigner::new(&centroids);
    let time = least(3, || assigner = Assigner::new(&centroids));
    println!("Assigner::new: {time}");
    let time = least(3, || assigner.assign(all, &mut found, &mut distances));
    println!("assign {} rows: {time}, mean squared distance {:.5}", all.rows(), mean(&distances));
    let mut sizes = vec![0; centroids.lists()];
    found.iter().for_each(|&list| sizes[list as usize] += 1);
    sizes.sort_unstable();
    let average = all.rows() as f64 / sizes.len() as f64;
    let at = |share: f64| sizes[((sizes.len() - 1) as f64 * share) as usize];
    println!(
        "lists: mean {average:.1}, least {}, 1 % {}, 10 % {}, 50 % {}, 90 % {}, most {} ({:.2} x mean)",
        sizes[0],
        at(0.01),
        at(0.1),
        at(0.5),
        at(0.9),
        at(1.0),
        at(1.0) as f64 / average
    );
    let checked: Vec<usize> = (0..2000).map(|i| i * all.rows() / 2000).collect();
    let right = checked.iter().filter(|&&i| distances[i] <= assigner.nearest(all.row(i), 1)[0].0).count();
    println!("true nearest found: {:.2} %", right as f64 / checked.len() as f64 * 100.0);
}

fn small(criterion: &mut Criterion) {
    let (dims, lists) = (104, 1000);
    let data = clustered(20_000, dims, 500);
    let rows = Matrix::new(&data, dims);
    let options = TrainOptions { lists, ..TrainOptions::default() };
    let centroids = train(rows, &options).expect("nothing cancels");
    let assigner = Assigner::new(&centroids);
    let mut group = criterion.benchmark_group("cluster");
    group.sample_size(10).measurement_time(Duration::from_secs(3)).throughput(Throughput::Elements(20_000));
    group.bench_function("train 20000 x 104, 1000 lists", |bencher| {
        bencher.iter(|| train(rows, &options).expect("nothing cancels"));
    });
    group.bench_function("assign 20000 x 104, 1000 lists", |bencher| {
        bencher.iter_batched_ref(
            || (vec![0; rows.rows()], vec![0.0; rows.rows()]),
            |(found, distances)| assigner.assign(rows, found, distances),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn main() {
    let threads = std::env::var("ANN_THREADS").map_or(2, |threads| threads.parse().expect("ANN_THREADS is a number"));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started");
    pool.install(|| {
        if let Ok(path) = std::env::var("ANN_BASE") {
            return report_file(&path);
        }
        report_share(threads);
        let mut criterion = Criterion::default().configure_from_args();
        small(&mut criterion);
        criterion.final_summary();
    });
}
