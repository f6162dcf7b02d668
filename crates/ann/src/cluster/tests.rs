use super::kernel::{Block, Panels};
use super::random::Random;
use super::*;

/// `rows` points around `clusters` random centres, of deviation `spread` where the centres have 1.
fn clustered(rows: usize, dims: usize, clusters: usize, spread: f32, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    let mut normal = move || (0..6).map(|_| random.unit()).sum::<f64>() as f32 * 1.5 - 4.5;
    let centres: Vec<f32> = (0..clusters * dims).map(|_| normal()).collect();
    let mut pick = Random::new(seed ^ 77);
    (0..rows)
        .flat_map(|_| {
            let centre = pick.below(clusters) * dims;
            (centre..centre + dims).collect::<Vec<_>>()
        })
        .map(|at| centres[at] + spread * normal())
        .collect()
}

fn exact(row: &[f32], centroids: Matrix) -> Vec<(f64, u32)> {
    let distance = |c: &[f32]| row.iter().zip(c).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    let mut all: Vec<(f64, u32)> =
        (0..).zip(0..centroids.rows()).map(|(id, i)| (distance(centroids.row(i)), id)).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all
}

fn assigned(centroids: &Centroids, rows: Matrix) -> (Vec<u32>, Vec<f32>) {
    let (mut lists, mut distances) = (vec![0; rows.rows()], vec![0.0; rows.rows()]);
    Assigner::new(centroids).assign(rows, &mut lists, &mut distances);
    (lists, distances)
}

fn sizes(centroids: &Centroids, rows: Matrix) -> Vec<usize> {
    let mut sizes = vec![0; centroids.lists()];
    for list in assigned(centroids, rows).0 {
        sizes[list as usize] += 1;
    }
    sizes
}

fn mean(distances: &[f32]) -> f64 {
    distances.iter().map(|&d| f64::from(d)).sum::<f64>() / distances.len() as f64
}

fn options(lists: usize) -> TrainOptions<'static> {
    TrainOptions { lists, ..TrainOptions::default() }
}

fn in_pool<T: Send>(threads: usize, run: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run)
}

#[test]
fn kernels_agree_with_plain_sums() {
    for kernel in kernel::available() {
        for (dims, counts) in [(1, [1, 5]), (3, [17, 2]), (31, [48, 65]), (104, [100, 47])] {
            let data = clustered(counts[0] + counts[1] + 21, dims, 4, 0.5, dims as u64);
            let rows = Matrix::new(&data, dims);
            let mut next = 21u32;
            let groups = counts.map(|count| {
                next += count as u32;
                (next - count as u32..next).collect::<Vec<u32>>()
            });
            let panels = Panels::new(kernel, dims, &groups, |id, out| {
                out.copy_from_slice(rows.row(id as usize));
                out.iter().map(|x| x * x).sum()
            });
            let mut block = Block::new(21, dims);
            for i in 0..21 {
                block.row_mut(i).copy_from_slice(rows.row(i));
            }
            let mut scores = vec![0.0; 21 * panels.positions()];
            panels.scores(&block, 21, &mut scores);
            let mut best = vec![kernel::Best::NONE; 21];
            for group in 0..2 {
                panels.nearest(group, &block, &(0..21).rev().collect::<Vec<u32>>(), &mut best);
            }
            for i in 0..21 {
                let mut least = (f64::INFINITY, 0);
                let row = rows.row(i);
                for position in 0..panels.positions() as u32 {
                    let score = scores[i * panels.positions() + position as usize];
                    if panels.id(position) == u32::MAX {
                        assert_eq!(score, f32::INFINITY);
                        continue;
                    }
                    let centroid = rows.row(panels.id(position) as usize);
                    let truth: f64 = centroid.iter().zip(row).map(|(c, x)| f64::from(c * (c - 2.0 * x))).sum();
                    assert!((f64::from(score) - truth).abs() < 1e-3, "{}: {score} for {truth}", kernel.name);
                    if truth < least.0 {
                        least = (truth, position);
                    }
                    let group = usize::from(panels.id(position) as usize >= 21 + counts[0]);
                    assert_eq!(panels.group_of(position), group);
                }
                let (score, position) = best[i].least();
                assert!((f64::from(score) - least.0).abs() < 1e-3, "{}", kernel.name);
                assert_eq!(scores[i * panels.positions() + position as usize], score);
            }
        }
    }
}

#[test]
fn assigns_to_the_nearest() {
    // Flat and two-level, and every kernel.
    for (lists, dims) in [(40, 7), (2000, 24)] {
        let data = clustered(6000, dims, 100, 0.7, 5);
        let rows = Matrix::new(&data, dims);
        let centroids = train(rows, &options(lists)).unwrap();
        assert_eq!(centroids.lists(), lists);
        for kernel in kernel::available() {
            let assigner = Assigner::build(kernel, &centroids, &|| false).unwrap();
            let (mut found, mut distances) = (vec![0; rows.rows()], vec![0.0; rows.rows()]);
            assigner.assign(rows, &mut found, &mut distances);
            let mut right = 0;
            for i in 0..rows.rows() {
                let truth = exact(rows.row(i), centroids.matrix());
                let own = truth.iter().find(|(_, id)| *id == found[i]).unwrap().0;
                assert!((f64::from(distances[i]) - own).abs() <= 1e-5 * own.max(1e-3));
                right += usize::from(own <= truth[0].0 * (1.0 + 1e-5));
                if i % 500 == 0 {
                    let near = assigner.nearest(rows.row(i), 10);
                    assert_eq!(near.len(), 10);
                    for (near, truth) in near.iter().zip(&truth) {
                        assert!((f64::from(near.0) - truth.0).abs() <= 1e-4 * truth.0.max(1e-3));
                    }
                }
            }
            assert!(right * 100 >= rows.rows() * 99, "{}: {right} of {}", kernel.name, rows.rows());
            if lists == 40 {
                assert_eq!(right, rows.rows());
            }
            assert_eq!(assigner.nearest(rows.row(0), lists + 5).len(), lists);
        }
    }
}

#[test]
fn threads_do_not_matter() {
    let data = clustered(20_000, 20, 300, 0.4, 1);
    let rows = Matrix::new(&data, 20);
    let run = |threads| {
        in_pool(threads, || {
            let centroids = train(rows, &options(700)).unwrap();
            let (lists, distances) = assigned(&centroids, rows);
            (centroids.data, centroids.beam, lists, distances)
        })
    };
    let one = run(1);
    assert!(one == run(2) && one == run(3) && one == run(2));
    assert_ne!(one.0, train(rows, &TrainOptions { seed: 1, ..options(700) }).unwrap().data);
}

#[test]
fn lists_are_balanced() {
    // Clusters of very different sizes and densities.
    let mut data = clustered(30_000, 16, 3, 0.01, 2);
    data.extend(clustered(6_000, 16, 3000, 1.0, 3));
    for (lists, dims) in [(600, 16), (64, 16), (6, 16), (900, 8)] {
        let rows = Matrix::new(&data, dims);
        let centroids = train(rows, &options(lists)).unwrap();
        assert_eq!(centroids.lists(), lists);
        let sizes = sizes(&centroids, rows);
        let most = sizes.iter().max().unwrap() * lists;
        assert!(sizes.iter().all(|&size| size > 0) && most <= 4 * rows.rows(), "{lists}: {most} of {}", rows.rows());
    }
}

#[test]
fn as_good_as_flat_lloyd() {
    for (clusters, spread) in [(500, 0.3), (50, 1.0), (4000, 0.7)] {
        let data = clustered(20_000, 32, clusters, spread, 9);
        let rows = Matrix::new(&data, 32);
        let centroids = train(rows, &options(400)).unwrap();
        let got = mean(&assigned(&centroids, rows).1);
        let wanted = lloyd::Lloyd { clusters: 400, iterations: 20, seed: 3, cancelled: &|| false };
        let flat = Centroids::new(32, lloyd::lloyd(Picked::all(rows), &wanted).unwrap().data);
        let flat = mean(&assigned(&flat, rows).1);
        println!("{clusters} clusters: {got} hierarchical, {flat} flat ({:+.2} %)", (got / flat - 1.0) * 100.0);
        assert!(got <= flat * 1.02, "{clusters}: {got} for {flat}");
    }
}

#[test]
fn few_distinct_rows() {
    let rows: Vec<f32> = (0..1000).flat_map(|i| [(i % 7) as f32, 0.0, 1.0]).collect();
    let centroids = train(Matrix::new(&rows, 3), &options(20)).unwrap();
    assert_eq!(centroids.lists(), 7);
    assert!(assigned(&centroids, Matrix::new(&rows, 3)).1.iter().all(|&distance| distance == 0.0));
    let same = vec![2.5f32; 4000];
    assert_eq!(train(Matrix::new(&same, 4), &options(9)).unwrap().data, [2.5; 4]);
    let zeros: Vec<f32> = (0..50).map(|i| if i % 2 == 0 { 0.0 } else { -0.0 }).collect();
    assert_eq!(train(Matrix::new(&zeros, 1), &options(9)).unwrap().lists(), 1);
    assert_eq!(train(Matrix::new(&[], 3), &options(9)).unwrap().lists(), 0);
    assert_eq!(train(Matrix::new(&[1.0, 2.0], 2), &options(9)).unwrap().data, [1.0, 2.0]);
    let one = train(Matrix::new(&[1.0, 2.0, 3.0, 6.0], 2), &options(1)).unwrap();
    assert_eq!(one.data, [2.0, 4.0]);
}

#[test]
fn many_duplicates() {
    // Half of the rows are one row, a quarter another.
    let mut data = clustered(8000, 6, 50, 0.5, 4);
    for i in 0..6000 {
        let source = if i < 4000 { 0 } else { 4000 };
        data.copy_within(source * 6..source * 6 + 6, i * 6);
    }
    let rows = Matrix::new(&data, 6);
    for lists in [10, 300] {
        let centroids = train(rows, &options(lists)).unwrap();
        assert_eq!(centroids.lists(), lists);
        let mut sizes = sizes(&centroids, rows);
        sizes.sort_unstable();
        assert!(sizes[0] > 0);
        // Only the two rows' own lists may be large.
        assert!(sizes[lists - 3] <= 4 * 8000 / lists);
        let keys: std::collections::HashSet<Vec<u32>> =
            centroids.data.chunks(6).map(|c| c.iter().map(|x| x.to_bits()).collect()).collect();
        assert_eq!(keys.len(), lists);
    }
}

#[test]
fn dimensions_and_scales() {
    for (dims, rows, lists) in [(1, 3000, 200), (2, 1000, 600), (16_000, 80, 9)] {
        let data = clustered(rows, dims, 20, 0.5, 8);
        for factor in [1.0, 1e-30, 1e30] {
            let data: Vec<f32> = data.iter().map(|x| x * factor).collect();
            let rows = Matrix::new(&data, dims);
            let centroids = train(rows, &options(lists)).unwrap();
            assert_eq!(centroids.lists(), lists, "{dims} {factor}");
            assert!(centroids.data.iter().all(|x| x.is_finite()));
        }
    }
    // Rows of three magnitudes, and an offset that all rows share.
    let mut data = clustered(3000, 10, 30, 0.2, 6);
    for (i, x) in data.iter_mut().enumerate() {
        *x = match i / 10 {
            row if row % 500 == 1 => *x * 1e30,
            row if row % 10 == 0 => *x * 1e9,
            _ => *x,
        };
    }
    let rows = Matrix::new(&data, 10);
    let centroids = train(rows, &options(100)).unwrap();
    let sizes = sizes(&centroids, rows);
    assert_eq!(sizes.len(), 100);
    assert!(sizes.iter().all(|&size| size > 0 && size <= 4 * 30), "{sizes:?}");

    let plain = clustered(3000, 10, 30, 0.01, 6);
    let far: Vec<f32> = plain.iter().map(|x| x + 1000.0).collect();
    let distance = |data: &[f32]| {
        let rows = Matrix::new(data, 10);
        mean(&assigned(&train(rows, &options(30)).unwrap(), rows).1)
    };
    assert!(distance(&far) < 2.0 * distance(&plain));
}

#[test]
fn extreme_values() {
    let data = [f32::MAX, f32::MIN, 0.0, 1.0, f32::MIN_POSITIVE, -1e38, 3e38, -f32::MIN_POSITIVE, 1e-45, 7.0];
    let rows = Matrix::new(&data, 1);
    for lists in 1..=10 {
        let centroids = train(rows, &options(lists)).unwrap();
        assert!(centroids.lists() <= lists && centroids.data.iter().all(|x| x.is_finite()));
        assert!(assigned(&centroids, rows).0.iter().all(|&list| (list as usize) < centroids.lists()));
    }
    // Rows far outside of what the centroids span.
    let centroids = Centroids::new(2, vec![1e-30, 0.0, -1e-30, 0.0]);
    let (lists, _) = assigned(&centroids, Matrix::new(&[3e38, 1e38, -3e38, 1.0], 2));
    assert_eq!(lists, [0, 1]);
}

/// Rows and centroids of any values, also such as no caller should have: each row gets a list that there is.
#[test]
fn any_values() {
    const VALUES: [f32; 14] = [
        0.0,
        1.0,
        -1.0,
        1e-45,
        1e-38,
        -1e-20,
        1e10,
        -1e20,
        3e38,
        f32::MAX,
        f32::MIN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ];
    let mut random = Random::new(5);
    for round in 0..200 {
        let dims = 1 + random.below(20);
        // The last three are not finite: rows and centroids in a third of the rounds each.
        let mut values = |rows: usize, ends: bool| -> Vec<f32> {
            let among = 1 + random.below(VALUES.len() - if ends { 0 } else { 3 } - 1);
            (0..rows * dims).map(|_| VALUES[random.below(among)] * random.unit() as f32).collect()
        };
        let data = values(60, round % 3 == 1);
        let rows = Matrix::new(&data, dims);
        let others = Centroids::new(dims, values(if round % 20 == 0 { 600 } else { 17 }, round % 3 == 2));
        let (lists, distances) = assigned(&others, rows);
        assert!(lists.iter().all(|&list| (list as usize) < others.lists()));
        assert_eq!(distances.len(), 60);
        let halves = halve(rows, round as u64).second.iter().filter(|second| **second).count();
        assert!((15..=45).contains(&halves), "{halves}");
        if data.iter().all(|x| x.is_finite()) {
            let trained = train(rows, &options(1 + round % 30)).unwrap();
            assert!(trained.data.iter().all(|x| x.is_finite()));
            assert!(assigned(&trained, rows).0.iter().all(|&list| (list as usize) < trained.lists()));
        }
    }
}

#[test]
fn cancellation() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let data = clustered(30_000, 24, 200, 0.5, 1);
    let rows = Matrix::new(&data, 24);
    let asked = AtomicUsize::new(0);
    let count = || {
        asked.fetch_add(1, Ordering::Relaxed);
        false
    };
    train(rows, &TrainOptions { cancelled: &count, ..options(800) }).unwrap();
    let all = asked.load(Ordering::Relaxed);
    for share in [0, 1, 3, 5, 8, 9] {
        let asked = AtomicUsize::new(0);
        let stop = || asked.fetch_add(1, Ordering::Relaxed) >= all * share / 10;
        let result = train(rows, &TrainOptions { cancelled: &stop, ..options(800) });
        assert_eq!(result.err(), Some(Cancelled));
        // Few blocks are begun after the flag is up.
        assert!(asked.load(Ordering::Relaxed) < all * share / 10 + 64);
    }
}

#[test]
fn halves() {
    // Two clusters of 30 and 70 rows are told apart; each centroid is the mean of its rows.
    let mut data = clustered(30, 24, 1, 0.1, 5);
    data.extend(clustered(70, 24, 1, 0.1, 6));
    let rows = Matrix::new(&data, 24);
    let Halves { centroids, second } = halve(rows, 1);
    assert!(second[..30].iter().all(|s| *s == second[0]) && second[30..].iter().all(|s| *s != second[0]));
    for (half, centroid) in centroids.iter().enumerate() {
        let members: Vec<usize> = (0..100).filter(|&i| usize::from(second[i]) == half).collect();
        for (j, c) in centroid.iter().enumerate() {
            let mean = members.iter().map(|&i| rows.row(i)[j]).sum::<f32>() / members.len() as f32;
            assert!((c - mean).abs() < 1e-4);
        }
    }
    // A single outlier does not get a half of its own.
    data[..24].fill(100.0);
    let alone = halve(Matrix::new(&data, 24), 1).second;
    let count = alone.iter().filter(|s| **s).count();
    assert!((25..=75).contains(&count), "{count} of 100");
    // Rows all alike, and the smallest numbers of rows.
    for n in [2, 3, 5, 40] {
        let same = vec![1.5; n * 8];
        let halves = halve(Matrix::new(&same, 8), 3);
        let count = halves.second.iter().filter(|s| **s).count();
        assert!(count >= (n / 4).max(1) && n - count >= (n / 4).max(1));
        assert!(halves.centroids.iter().flatten().all(|c| *c == 1.5));
    }
}
