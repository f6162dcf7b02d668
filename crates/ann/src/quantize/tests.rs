//! Every kernel set against the portable one, and the statistics that the formulas promise.

use super::*;
use crate::quantize::code::SPREAD_Z;
use crate::quantize::simd::{Kernels, available};

/// Numbers for tests: xorshift64*, and the normal distribution by Box-Muller.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Uniform in (0, 1).
    fn uniform(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f32 {
        let (u, v) = (self.uniform(), self.uniform());
        ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }

    fn normals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.normal()).collect()
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| (self.bits() >> 32) as u8).collect()
    }

    /// A direction times a length.
    fn of_norm(&mut self, n: usize, length: f64) -> Vec<f32> {
        let x = self.normals(n);
        let scale = length / dot(&x, &x).sqrt();
        x.iter().map(|x| (f64::from(*x) * scale) as f32).collect()
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn distance2(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
}

fn minus(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

fn plus(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn term(space: Space, q: &[f32], c: &[f32]) -> ListTerm {
    match space {
        Space::L2 => ListTerm { a: distance2(q, c) as f32, b: distance2(q, c).sqrt() as f32 },
        Space::InnerProduct => ListTerm { a: -dot(q, c) as f32, b: dot(q, q).sqrt() as f32 },
    }
}

fn portable() -> &'static Kernels {
    available()[0]
}

#[test]
fn every_kernel_set_sums_exactly() {
    let mut random = Random(1);
    for n in (0..=12).chain((4..=400).step_by(4)).chain([255, 257, 511, 513, 8000]) {
        let full = n % 8 == 0;
        let (groups, mut lut) = (random.bytes(16 * n), random.bytes(16 * n));
        if full {
            lut.fill(255);
        }
        let mut expected = [7u32; BLOCK];
        for g in 0..n {
            for j in 0..16 {
                expected[j] += u32::from(lut[16 * g + usize::from(groups[16 * g + j] & 15)]);
                expected[j + 16] += u32::from(lut[16 * g + usize::from(groups[16 * g + j] >> 4)]);
            }
        }
        for kernels in available() {
            let mut sums = [7u32; BLOCK];
            kernels.accumulate(&groups, &lut, &mut sums);
            assert_eq!(sums, expected, "{} groups, {}", n, kernels.name());
        }
        let mut sums = [7u32; BLOCK];
        accumulate(&groups, &lut, &mut sums);
        assert_eq!(sums, expected);
    }
}

#[test]
fn every_kernel_set_gives_the_same_bounds() {
    let mut random = Random(2);
    for dims in [8, 16, 24, 104, 520, 784, 1536, 16000] {
        let q = random.normals(dims);
        let mut table = QueryTable::new();
        table.build(&q, DEFAULT_Z);
        let groups = random.bytes(8 * dims);
        // At an address that is aligned for f32 only.
        let mut numbers = random.normals(1 + BLOCK);
        numbers[5] = f32::NAN;
        numbers[6] = f32::INFINITY;
        numbers[7] = f32::NEG_INFINITY;
        numbers[8] = 3e38;
        let mut packed: Vec<u16> = random.normals(1 + 2 * BLOCK).iter().map(|x| factor::pack(x.abs())).collect();
        packed[9..13].copy_from_slice(&[f32::NAN, f32::INFINITY, 3e38, 0.0].map(factor::pack));
        packed[41..45].copy_from_slice(&[0.0, f32::NAN, f32::INFINITY, 3e38].map(factor::pack));
        let columns = packed[1..].as_chunks::<BLOCK>().0;
        let f = BlockFactors { constant: numbers[1..].first_chunk().unwrap(), scale: &columns[0], error: &columns[1] };
        for threshold in [0.0, -3.0, f32::INFINITY, f32::NEG_INFINITY] {
            let term = ListTerm { a: 2.0, b: 0.5 };
            let mut expected = None;
            for kernels in available() {
                let (mut estimate, mut lower) = ([0f32; BLOCK], [0f32; BLOCK]);
                let mask = kernels.scan_block(&table, &groups, &f, term, threshold, &mut estimate, &mut lower);
                for i in 0..BLOCK {
                    assert!(estimate[i].is_finite() && lower[i].is_finite());
                    assert_eq!(mask >> i & 1 == 1, lower[i] < threshold);
                }
                let mut sums = [0; BLOCK];
                kernels.accumulate(&groups, table.lut(0..dims / 2), &mut sums);
                let (mut estimate2, mut lower2) = ([0f32; BLOCK], [0f32; BLOCK]);
                let mask2 = kernels.bounds(&table.scan_term(term, threshold), &sums, &f, &mut estimate2, &mut lower2);
                let result = (mask, estimate.map(f32::to_bits), lower.map(f32::to_bits));
                assert_eq!(result, (mask2, estimate2.map(f32::to_bits), lower2.map(f32::to_bits)));
                assert_eq!(&result, expected.get_or_insert(result), "{}", kernels.name());
            }
        }
    }
}

#[test]
fn every_kernel_set_rotates_and_decodes_to_the_same_bits() {
    let mut random = Random(3);
    for dims in [1, 8, 9, 60, 100, 120, 128, 300, 784, 1536] {
        let rotation = Rotation::new(dims, 42);
        let mut x = random.normals(dims);
        x.resize(rotation.padded(), 0.0);
        let mut expected = x.clone();
        rotation.apply(&mut expected);
        for bits in BITS {
            let code = random.bytes(bits.bytes(x.len()));
            let mut decoded = expected.clone();
            decode_code(bits, &code, 0.37, &mut decoded);
            let exact = expected.iter().zip(levels(bits, &code)).map(|(x, u)| x + 0.37 * u);
            assert!(decoded.iter().copied().eq(exact));
            for kernels in available() {
                let mut y = x.clone();
                rotation.apply_with(kernels, &mut y);
                assert_eq!(y, expected, "{}", kernels.name());
                kernels.decode_code(bits, &code, 0.37, &mut y);
                assert_eq!(y, decoded, "{}", kernels.name());
            }
        }
    }
}

const BITS: [Bits; 2] = [Bits::Four, Bits::Eight];

/// u, from a code's bytes.
fn levels(bits: Bits, code: &[u8]) -> Vec<f32> {
    let four = |n: u8| f32::from(code::LEVELS[usize::from(n)]);
    match bits {
        Bits::Four => code.iter().flat_map(|b| [four(b & 15), four(b >> 4)]).collect(),
        Bits::Eight => code.iter().map(|b| f32::from(*b as i8)).collect(),
    }
}

#[test]
fn factors_are_rounded_as_named() {
    let mut random = Random(19);
    for case in 0..100_000 {
        let x = if case % 2 == 0 { f32::from_bits((random.bits() >> 33) as u32) } else { random.normal().abs() };
        if !x.is_finite() {
            continue;
        }
        let (near, up) = (factor::nearest(x), factor::up(x));
        let at_the_ends = !(1e-35..=3.39e38).contains(&x);
        assert!(up >= x && (up <= x * (1.0 + 1.0 / 256.0) || at_the_ends), "{x:e} {up:e}");
        assert!((near - x).abs() <= x / 512.0 || at_the_ends, "{x:e} {near:e}");
        assert!(near.is_finite());
        for y in [near, up] {
            assert_eq!(factor::unpack(factor::pack(y)), y);
            assert_eq!((factor::nearest(y), factor::up(y)), (y, y));
        }
    }
    assert_eq!(factor::up(f32::MAX), f32::INFINITY);
    assert_eq!((factor::up(0.0), factor::nearest(0.0)), (0.0, 0.0));
    assert!(factor::nearest(f32::INFINITY) == f32::INFINITY && factor::up(f32::NAN).is_nan());
}

#[test]
fn every_kernel_set_encodes_alike() {
    let mut random = Random(4);
    for dims in [8, 104, 784] {
        for space in [Space::L2, Space::InnerProduct] {
            let (r, c) = (random.normals(dims), random.normals(dims));
            let mut nibbles = vec![0; dims / 2];
            let sketch = portable().encode_sketch(space, &r, &c, &mut nibbles);
            for bits in BITS {
                let mut code = vec![0; bits.bytes(dims)];
                let factors = portable().encode_code(bits, space, &r, &c, &mut code);
                for kernels in available() {
                    let mut nibbles2 = vec![0xFF; dims / 2];
                    let mut code2 = vec![0; code.len()];
                    assert_eq!(kernels.encode_sketch(space, &r, &c, &mut nibbles2), sketch);
                    assert_eq!(kernels.encode_code(bits, space, &r, &c, &mut code2), factors);
                    assert_eq!((&nibbles2, &code2), (&nibbles, &code), "{}", kernels.name());
                }
            }
        }
    }
}

#[test]
fn every_kernel_set_multiplies_codes() {
    let mut random = Random(5);
    for n in (0..200).chain([784, 1536, 16000]) {
        for bits in BITS {
            let code = random.bytes(n);
            let q = random.normals(bits.dims(n));
            let u = levels(bits, &code);
            let exact: f64 = q.iter().zip(&u).map(|(q, u)| f64::from(*q) * f64::from(*u)).sum();
            let size: f64 = q.iter().zip(&u).map(|(q, u)| f64::from(*q).abs() * f64::from(*u).abs()).sum();
            for kernels in available() {
                let got = f64::from(kernels.dot_code(bits, &q, &code));
                assert!((got - exact).abs() <= 1e-6 * size, "{} {bits:?} {n}: {got} {exact}", kernels.name());
            }
        }
    }
}

#[test]
fn rotation_is_orthonormal() {
    let mut random = Random(6);
    for dims in (1..=300).chain([784, 1536, 16000]) {
        let rotation = Rotation::new(dims, dims as u64);
        assert_eq!((rotation.dims(), rotation.padded()), (dims, padded_dims(dims)));
        assert!(rotation.padded() >= dims.max(8) && rotation.padded() < dims.max(8) + 8);
        let (mut x, mut y) = (random.normals(dims), random.normals(dims));
        let before = (dot(&x, &x), dot(&y, &y), dot(&x, &y));
        x.resize(rotation.padded(), 0.0);
        y.resize(rotation.padded(), 0.0);
        let given = x.clone();
        rotation.apply(&mut x);
        rotation.apply(&mut y);
        let after = (dot(&x, &x), dot(&y, &y), dot(&x, &y));
        let mut undone = x.clone();
        rotation.undo(&mut undone);
        undone.iter_mut().zip(&given).for_each(|(u, g)| *u -= g);
        assert!(dot(&undone, &undone).sqrt() < 1e-5 * before.0.sqrt(), "{dims}");
        assert!((after.0.sqrt() / before.0.sqrt() - 1.0).abs() < 1e-5, "{dims}");
        assert!((after.2 - before.2).abs() < 1e-5 * (before.0 * before.1).sqrt(), "{dims}");
    }
}

#[test]
fn rotation_spreads_a_single_coordinate() {
    for dims in [64, 100, 120, 127, 248, 384, 784, 1016, 1536] {
        for at in [0, dims / 2, dims - 1] {
            let rotation = Rotation::new(dims, 7);
            let mut x = vec![0.0; rotation.padded()];
            x[at] = 1.0;
            rotation.apply(&mut x);
            let n = x.len() as f64;
            // Kurtosis 3 is Gaussian; a concentrated vector has up to n.
            let kurtosis = n * x.iter().map(|x| f64::from(*x).powi(4)).sum::<f64>();
            assert!(kurtosis < 5.5, "{dims} {at}: {kurtosis}");
            // Each quarter of the coordinates has its share.
            for quarter in x.chunks(x.len() / 4) {
                let share = dot(quarter, quarter) * n / quarter.len() as f64;
                assert!((0.4..1.8).contains(&share), "{dims} {at}: {share}");
            }
        }
    }
}

#[test]
fn rotation_depends_on_the_seed_only() {
    let rotated = |seed| {
        let mut x: Vec<f32> = (0..104).map(|i| i as f32).collect();
        Rotation::new(104, seed).apply(&mut x);
        x
    };
    assert_eq!(rotated(1), rotated(1));
    assert_ne!(rotated(1), rotated(2));
}

#[test]
fn columns_and_blocks_are_packed_alike() {
    let mut random = Random(8);
    for n in [4, 52, 200] {
        for entries in [0, 1, 15, 16, 17, 31, 32] {
            let nibbles: Vec<u8> = random.bytes(entries * n).iter().map(|b| b & 15).collect();
            let mut packed = vec![0xAA; 16 * n];
            pack_block(&nibbles, entries, &mut packed);
            let mut columns = vec![0; 16 * n];
            let (mut first, mut last) = (vec![0xFF; 16 * (n / 4)], vec![0xFF; 16 * (n - n / 4)]);
            // In any order, over what was there before.
            for slot in (0..BLOCK).rev() {
                let row = if slot < entries { &nibbles[slot * n..][..n] } else { &vec![0; n] };
                set_nibble_column(&mut columns, slot, row);
                set_nibble_column(&mut first, slot, &row[..n / 4]);
                set_nibble_column(&mut last, slot, &row[n / 4..]);
                let mut back = vec![0xAA; n];
                nibble_column(&columns, slot, &mut back);
                assert_eq!(back, *row);
            }
            assert_eq!(columns, packed);
            first.extend(last);
            assert_eq!(first, packed);
            let mut row = vec![0xAA; n];
            for slot in 0..entries {
                nibble_column(&packed, slot, &mut row);
                assert_eq!(row, nibbles[slot * n..][..n]);
            }
        }
    }
}

/// A block of 32 encoded sketches.
struct Block {
    groups: Vec<u8>,
    constant: [f32; BLOCK],
    scale: [u16; BLOCK],
    error: [u16; BLOCK],
}

impl Block {
    fn new(space: Space, entries: &[Vec<f32>], c: &[f32]) -> Self {
        let n = c.len() / 2;
        let mut block = Block { groups: vec![0; 16 * n], constant: [0.0; BLOCK], scale: [0; BLOCK], error: [0; BLOCK] };
        let mut rows = vec![0; n * entries.len()];
        for (i, x) in entries.iter().enumerate() {
            let f = encode_sketch(space, &minus(x, c), c, &mut rows[i * n..(i + 1) * n]);
            let packed = [f.scale, f.error].map(factor::pack);
            assert_eq!(packed.map(factor::unpack), [f.scale, f.error]);
            (block.constant[i], block.scale[i], block.error[i]) = (f.constant, packed[0], packed[1]);
        }
        pack_block(&rows, entries.len(), &mut block.groups);
        block
    }

    fn factors(&self) -> BlockFactors<'_> {
        BlockFactors { constant: &self.constant, scale: &self.scale, error: &self.error }
    }
}

/// Errors of the sketch over many lists: (mean, deviation) of (estimate − truth) in units of the predicted deviation,
/// the share of entries nearer than their lower bound, and the mean correlation-like tightness of the bound.
fn sketch_errors(space: Space, dims: usize, clustered: bool, seed: u64) -> (f64, f64, f64) {
    let mut random = Random(seed);
    let rotation = Rotation::new(dims, seed);
    let padded = rotation.padded();
    // Clustered data: few directions carry the variance, entries lie near a point far from the origin.
    let spectrum: Vec<f32> = (0..dims).map(|i| if clustered { 1.0 / (1.0 + i as f32) } else { 1.0 }).collect();
    let draw = |random: &mut Random, around: &[f32], radius: f32| {
        let mut x: Vec<f32> = spectrum.iter().map(|s| s * radius * random.normal()).collect();
        x.resize(padded, 0.0);
        rotation.apply(&mut x);
        plus(&x, around)
    };
    let mut table = QueryTable::new();
    let (mut n, mut sum, mut squares, mut violations) = (0.0, 0.0, 0.0, 0.0);
    let lists = 400;
    for _ in 0..lists {
        let c = draw(&mut random, &vec![0.0; padded], if clustered { 3.0 } else { 0.5 });
        let entries: Vec<_> = (0..BLOCK).map(|_| draw(&mut random, &c, 1.0)).collect();
        let block = Block::new(space, &entries, &c);
        let q = draw(&mut random, &c, 1.0);
        let term = term(space, &q, &c);
        table.build(&q, DEFAULT_Z);
        let (mut estimate, mut lower) = ([0f32; BLOCK], [0f32; BLOCK]);
        scan_block(&table, &block.groups, &block.factors(), term, 0.0, &mut estimate, &mut lower);
        for (i, x) in entries.iter().enumerate() {
            let truth = match space {
                Space::L2 => distance2(x, &q),
                Space::InnerProduct => -dot(x, &q),
            };
            // The sketch's error vector f·v − r is orthogonal to r, so only what of y (which r is multiplied by) is
            // orthogonal to r can deviate; the stored error takes all of y.
            let r = minus(x, &c);
            let y = if space == Space::L2 { minus(&q, &c) } else { q.clone() };
            let across = (dot(&y, &y) - dot(&y, &r).powi(2) / dot(&r, &r)).sqrt();
            let off = (f64::from(estimate[i]) - truth) / (f64::from(factor::unpack(block.error[i])) * across);
            n += 1.0;
            sum += off;
            squares += off * off;
            violations += f64::from(u8::from(f64::from(lower[i]) > truth));
        }
    }
    (sum / n, (squares / n).sqrt(), violations / n)
}

#[test]
fn sketch_is_unbiased_and_as_exact_as_predicted() {
    for space in [Space::L2, Space::InnerProduct] {
        for dims in [32, 64, 100, 128, 384, 784] {
            for clustered in [false, true] {
                let (mean, deviation, violations) = sketch_errors(space, dims, clustered, 9);
                println!(
                    "{space:?} {dims} clustered {clustered}: mean {mean:.3} deviation {deviation:.3} violations {violations:.4}"
                );
                assert!(mean.abs() < 0.06, "{space:?} {dims} {clustered}: mean {mean}");
                assert!((0.95..1.06).contains(&deviation), "{space:?} {dims} {clustered}: deviation {deviation}");
                assert!(violations < 0.015, "{space:?} {dims} {clustered}: violations {violations}");
            }
        }
    }
}

#[test]
fn sketch_bound_within_a_threshold_holds_for_entries_within_it() {
    let mut random = Random(17);
    let dims = 104;
    let (mut near, mut missed, mut survivors, mut narrow) = (0u32, 0u32, 0u32, 0u32);
    let mut table = QueryTable::new();
    for _ in 0..2000 {
        let c = random.of_norm(dims, 2.0);
        let q = plus(&c, &random.of_norm(dims, 1.3));
        // Some entries towards the query, so that they are nearer to it than the centroid.
        let entries: Vec<_> = (0..BLOCK)
            .map(|i| {
                let towards = minus(&q, &c).iter().map(|y| y * (i as f32 / 32.0)).collect::<Vec<_>>();
                plus(&plus(&c, &towards), &random.of_norm(dims, 0.7))
            })
            .collect();
        let block = Block::new(Space::L2, &entries, &c);
        table.build(&q, DEFAULT_Z);
        let wide = term(Space::L2, &q, &c);
        let threshold = 0.8;
        let (mut estimate, mut lower) = ([0f32; BLOCK], [0f32; BLOCK]);
        let mut scan =
            |term| scan_block(&table, &block.groups, &block.factors(), term, threshold, &mut estimate, &mut lower);
        let (wide, mask) = (scan(wide), scan(wide.within(Space::L2, threshold)));
        assert_eq!(mask & !wide, 0);
        survivors += wide.count_ones();
        narrow += mask.count_ones();
        for (i, x) in entries.iter().enumerate() {
            if distance2(x, &q) < f64::from(threshold) {
                near += 1;
                missed += u32::from(mask >> i & 1 == 0);
            }
        }
    }
    println!("near {near}, missed {missed}, survivors {survivors}, within the threshold {narrow}");
    assert!(near > 10_000 && f64::from(missed) < 0.015 * f64::from(near) && narrow < survivors);
}

#[test]
fn sketch_of_few_dimensions_keeps_its_bound() {
    for dims in [2, 3, 5, 8, 16, 24] {
        let (mut worst, mut total) = (0f64, 0.0);
        for seed in 1..=10 {
            let (_, _, violations) = sketch_errors(Space::L2, dims, false, seed);
            worst = worst.max(violations);
            total += violations / 10.0;
        }
        println!("{dims}: violations mean {total:.4} worst {worst:.4}");
        assert!(total < 0.03, "{dims}: {total}");
    }
}

#[test]
fn table_rounds_as_predicted() {
    let mut random = Random(10);
    let dims = 104;
    let mut table = QueryTable::new();
    let (mut n, mut squares, mut predicted) = (0.0, 0.0, 0.0);
    for _ in 0..300 {
        let q = random.normals(dims);
        table.build(&q, 1.0);
        let c = vec![0.0; dims];
        let r = random.normals(dims);
        let mut nibbles = vec![0; dims / 2];
        encode_sketch(Space::L2, &r, &c, &mut nibbles);
        let mut groups = vec![0; 8 * dims];
        set_nibble_column(&mut groups, 19, &nibbles);
        let mut sums = [0; BLOCK];
        accumulate(&groups, table.lut(0..dims / 2), &mut sums);
        let v: Vec<f32> = sketch_vector(&nibbles).collect();
        let scan = table.scan_term(ListTerm::default(), 0.0);
        let got = f64::from(scan.base) + f64::from(scan.delta) * f64::from(sums[19]);
        squares += (got - dot(&v, &q)).powi(2);
        predicted += f64::from(scan.slack).powi(2);
        n += 1.0;
    }
    let ratio: f64 = squares / predicted;
    assert!(n > 0.0 && (0.7..1.3).contains(&ratio), "{ratio}");
}

#[test]
fn every_kernel_set_fills_the_same_tables() {
    let mut random = Random(18);
    for dims in [8, 16, 104, 784] {
        let q = random.normals(dims);
        let mut expected = vec![0; 8 * dims];
        portable().fill_table(&q, 12.0, &mut expected);
        for kernels in available() {
            let mut lut = vec![0; 8 * dims];
            kernels.fill_table(&q, 12.0, &mut lut);
            assert_eq!(lut, expected, "{}", kernels.name());
        }
    }
}

#[test]
fn tables_are_reused_for_other_dimensions() {
    let mut random = Random(11);
    let mut table = QueryTable::new();
    for dims in [104, 16, 784, 8] {
        let q = random.normals(dims);
        table.build(&q, DEFAULT_Z);
        let mut fresh = QueryTable::new();
        fresh.build(&q, DEFAULT_Z);
        assert_eq!(table.lut(0..dims / 2), fresh.lut(0..dims / 2));
        assert_eq!(table.lut(2..4), &fresh.lut(0..dims / 2)[32..64]);
    }
}

#[test]
fn code_bound_is_never_above_the_truth() {
    let mut random = Random(12);
    let (mut loosest, mut total, mut counted) = (1f64, 0.0, 0.0);
    for case in 0..100_000 {
        let dims = [8, 16, 40, 104, 128, 384, 784][case % 7];
        let space = if case % 3 == 0 { Space::InnerProduct } else { Space::L2 };
        let norm = 10f64.powf(random.uniform() * 7.0 - 3.0);
        let ratio = 10f64.powf(random.uniform() * 3.0 - 3.0);
        let c = random.of_norm(dims, norm);
        let x = if case % 100 == 1 { c.clone() } else { plus(&c, &random.of_norm(dims, norm * ratio)) };
        let q = match case % 50 {
            0 | 1 => x.clone(),
            2 => c.clone(),
            3 => plus(&x, &random.of_norm(dims, norm * ratio * 1e-3)),
            4 => random.of_norm(dims, norm),
            5 => random.of_norm(dims, norm * 1e3),
            _ => plus(&c, &random.of_norm(dims, norm * ratio)),
        };
        let bits = BITS[case / 42 % 2];
        // What ‖e‖ is of ‖x − c‖, at most.
        let loss = if bits == Bits::Eight { 0.015 } else { 0.2 };
        let mut code = vec![0; bits.bytes(dims)];
        let f = encode_code(bits, space, &minus(&x, &c), &c, &mut code);
        let (dot_qu, q_norm) = (dot_code(bits, &q, &code), dot(&q, &q).sqrt() as f32);
        let term = term(space, &q, &c);
        let bound = f64::from(code_lower_bound(space, term, &f, dot_qu, q_norm, dims));
        let truth = if space == Space::L2 { distance2(&x, &q) } else { -dot(&x, &q) };
        assert!(bound <= truth, "case {case} {space:?} {dims}: {bound} > {truth} (norm {norm}, ratio {ratio})");
        let estimate = f64::from(code_distance(space, term, &f, dot_qu));
        assert!(bound <= estimate.max(0.0) || space == Space::InnerProduct && bound <= estimate);
        if space == Space::L2 && bits == Bits::Eight && case % 50 > 5 && ratio >= 1e-2 && dims >= 40 {
            let tightness = bound / truth;
            loosest = loosest.min(tightness);
            total += tightness;
            counted += 1.0;
        }
        if space == Space::InnerProduct && case % 50 > 5 {
            let most = (2.0 * loss * ratio + 2e-5) * norm * f64::from(q_norm);
            assert!(truth - bound <= most, "case {case}: {bound} {truth}");
        }
    }
    println!("code bound / truth: mean {:.4}, loosest {loosest:.4}", total / counted);
    assert!(loosest > 0.93 && total / counted > 0.97, "{loosest} {}", total / counted);
}

#[test]
fn likely_code_bound_is_seldom_above_the_truth() {
    let mut random = Random(20);
    for (dims, space) in [32, 104, 784].into_iter().flat_map(|d| [(d, Space::L2), (d, Space::InnerProduct)]) {
        let (mut above, mut slack, mut certain_slack) = (0, 0.0, 0.0);
        const CASES: usize = 4000;
        for case in 0..CASES {
            let c = random.of_norm(dims, 1.0);
            let r = random.of_norm(dims, 0.7);
            let x = plus(&c, &r);
            // Near the entry, near its list, or anywhere.
            let q = match case % 3 {
                0 => plus(&x, &random.of_norm(dims, 0.4)),
                1 => plus(&c, &random.of_norm(dims, 0.7)),
                _ => random.of_norm(dims, 1.0),
            };
            let mut code = vec![0; Bits::Four.bytes(dims)];
            let f = encode_code(Bits::Four, space, &r, &c, &mut code);
            let (dot_qu, norm) = (dot_code(Bits::Four, &q, &code), dot(&q, &q).sqrt() as f32);
            let term = term(space, &q, &c);
            let likely = code_likely_bound(space, &f, code_distance(space, term, &f, dot_qu), norm, dims);
            let certain = code_lower_bound(space, term, &f, dot_qu, norm, dims);
            let truth = if space == Space::L2 { distance2(&x, &q) } else { -dot(&x, &q) };
            above += u32::from(f64::from(likely) > truth);
            slack += truth - f64::from(likely);
            certain_slack += truth - f64::from(certain);
        }
        println!("{space:?} {dims}: {above} of {CASES} above, slack {:.3} of the certain", slack / certain_slack);
        assert!(f64::from(above) < 0.015 * CASES as f64, "{space:?} {dims}: {above}");
        assert!(slack < 0.65 * certain_slack, "{space:?} {dims}: {slack} {certain_slack}");
    }
}

#[test]
fn code_bound_holds_through_the_rotation() {
    let mut random = Random(13);
    for case in 0..20_000 {
        let dims = [3, 60, 100, 120, 384, 784][case % 6];
        let rotation = Rotation::new(dims, 5);
        let rotated = |x: &[f32]| {
            let mut x = x.to_vec();
            x.resize(rotation.padded(), 0.0);
            rotation.apply(&mut x);
            x
        };
        let ratio = 10f64.powf(random.uniform() * -5.0);
        let c = random.of_norm(dims, 1.0);
        let (x, q) = (plus(&c, &random.of_norm(dims, ratio)), plus(&c, &random.of_norm(dims, ratio)));
        let (rc, rx, rq) = (rotated(&c), rotated(&x), rotated(&q));
        for space in [Space::L2, Space::InnerProduct] {
            let bits = BITS[case % 2];
            let mut code = vec![0; bits.bytes(rc.len())];
            let f = encode_code(bits, space, &minus(&rx, &rc), &rc, &mut code);
            let (norm, product) = (dot(&rq, &rq).sqrt() as f32, dot_code(bits, &rq, &code));
            let bound = code_lower_bound(space, term(space, &rq, &rc), &f, product, norm, rc.len());
            let truth = if space == Space::L2 { distance2(&x, &q) } else { -dot(&x, &q) };
            assert!(f64::from(bound) <= truth, "case {case} {space:?} {dims}: {bound} > {truth}");
        }
    }
}

/// Vectors that a rotation of few rounds could treat unlike a truly random one: few, equal or repeated coordinates.
fn structured(random: &mut Random, kind: usize, dims: usize) -> Vec<f32> {
    let mut x = vec![0.0; dims];
    match kind {
        0 => return random.normals(dims),
        // One coordinate.
        1 => x[random.bits() as usize % dims] = 100.0,
        // A few bits.
        2 => (0..dims / 20 + 1).for_each(|_| x[random.bits() as usize % dims] = 1.0),
        // A run of equal coordinates.
        3 => {
            let from = random.bits() as usize % dims;
            x[from..(from + dims / 4 + 1).min(dims)].fill(3.0);
        }
        // A rows of a Hadamard matrix, and a bit of another.
        4 => {
            let row = random.bits() as usize % dims;
            for (i, x) in x.iter_mut().enumerate() {
                *x = if (i & row).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
            }
            x[row] += 0.5;
        }
        // Counts: heavy tails.
        _ => x.iter_mut().for_each(|x| *x = (random.uniform().powi(-1) as f32).min(1e4).floor()),
    }
    x
}

#[test]
fn code_spread_holds_for_structured_vectors_and_is_tighter_than_the_bound() {
    let mut random = Random(20);
    for dims in [8, 64, 100, 128, 384, 784, 1536] {
        let (mut most, mut tighter, mut counted, cases) =
            (0f64, 0.0, 0.0, if cfg!(debug_assertions) { 4000 } else { 40_000 });
        for case in 0..cases {
            if case % 8 != 0 && dims > 1000 {
                continue;
            }
            // As the seed of an index is fixed, few rotations and many vectors.
            let rotation = Rotation::new(dims, 1 + case as u64 % 4);
            let kind = case % 6;
            // The centroid of a few rows, of which x is one; q is another row or one far away.
            let rows: Vec<Vec<f32>> = (0..4).map(|_| structured(&mut random, kind, dims)).collect();
            let mut c = vec![0.0; dims];
            for row in &rows[..3] {
                c.iter_mut().zip(row).for_each(|(c, x)| *c += x / 3.0);
            }
            let (x, q) = (&rows[0], &rows[1 + case / 6 % 3]);
            let rotated = |x: &[f32]| {
                let mut x = x.to_vec();
                x.resize(rotation.padded(), 0.0);
                rotation.apply(&mut x);
                x
            };
            let (rc, rx, rq) = (rotated(&c), rotated(x), rotated(q));
            let padded = rc.len();
            let norm = dot(&rq, &rq).sqrt() as f32;
            for space in [Space::L2, Space::InnerProduct] {
                let mut code = vec![0; padded];
                let f = encode_code(Bits::Eight, space, &minus(&rx, &rc), &rc, &mut code);
                let (term, dot_qu) = (term(space, &rq, &rc), dot_code(Bits::Eight, &rq, &code));
                let truth = if space == Space::L2 { distance2(x, q) } else { -dot(x, q) };
                let estimate = f64::from(code_distance(space, term, &f, dot_qu));
                let centroid = dot(&rc, &rc).sqrt() as f32;
                let spread = f64::from(code_spread(space, term, term.a, centroid, &f, dot_qu, norm, padded));
                let off = (estimate - truth).abs();
                assert!(off <= spread, "{space:?} {dims} kind {kind}: {off} > {spread}");
                if f64::from(f.error) > 1e-4 * f64::from(term.b) && dims > 60 {
                    // What z would have been needed.
                    most = most.max(off / spread * SPREAD_Z);
                    let certain = f64::from(code_lower_bound(space, term, &f, dot_qu, norm, padded));
                    tighter += (estimate - certain) / spread;
                    counted += 1.0;
                }
            }
        }
        println!("{dims} dimensions: largest deviation {most:.2}, spread {:.2} times tighter", tighter / counted);
        assert!(dims <= 60 || most < 6.0, "{dims}: {most}");
        assert!(dims <= 60 || tighter / counted > (dims as f64).sqrt() / 10.0, "{dims}: {}", tighter / counted);
    }
}

#[test]
fn decoded_code_is_as_near_as_its_error_says() {
    let mut random = Random(14);
    for (dims, bits) in [8, 104, 1536].into_iter().flat_map(|dims| BITS.map(|bits| (dims, bits))) {
        let (c, r) = (random.normals(dims), random.of_norm(dims, 0.3));
        let mut code = vec![0; bits.bytes(dims)];
        let f = encode_code(bits, Space::L2, &r, &c, &mut code);
        let mut decoded = vec![0.0; dims];
        decode_code(bits, &code, f.scale, &mut decoded);
        let error = distance2(&decoded, &r).sqrt();
        assert!(error <= f64::from(f.error) && error > 0.99 * f64::from(f.error) - 1e-6);
        let most = if bits == Bits::Eight { 0.01 } else { 0.12 };
        assert!(f.error < most * 0.3, "{dims} {bits:?}: {}", f.error);
        let mut child = c.clone();
        decode_code(bits, &code, f.scale, &mut child);
        assert!(distance2(&child, &plus(&c, &r)).sqrt() < 1.001 * error + 1e-5);
    }
}

#[test]
fn decoded_sketch_is_as_near_as_it_says() {
    let mut random = Random(21);
    for (dims, space) in [16, 104, 784].into_iter().flat_map(|d| [(d, Space::L2), (d, Space::InnerProduct)]) {
        for _ in 0..50 {
            let (c, r) = (random.normals(dims), random.of_norm(dims, 0.3));
            let mut nibbles = vec![0; dims / 2];
            let f = encode_sketch(space, &r, &c, &mut nibbles);
            let mut decoded = vec![0.0; dims];
            let error = f64::from(decode_sketch(space, &f, &nibbles, &mut decoded));
            let truth = distance2(&decoded, &r).sqrt();
            assert!(truth < 0.6 * 0.3 && (error / truth - 1.0).abs() < 0.06, "{dims}: {error} {truth}");
        }
        let mut nibbles = vec![0; dims / 2];
        let zeroes = vec![0.0; dims];
        let f = encode_sketch(space, &zeroes, &zeroes, &mut nibbles);
        let mut decoded = zeroes.clone();
        assert_eq!(decode_sketch(space, &f, &nibbles, &mut decoded), 0.0);
        assert_eq!(decoded, zeroes);
        let unknown = SketchFactors { constant: f32::NAN, ..f };
        assert!(decode_sketch(space, &SketchFactors { scale: 1.0, ..unknown }, &nibbles, &mut decoded).is_infinite());
    }
}

#[test]
fn zero_residuals_and_queries_are_finite() {
    let mut random = Random(15);
    for dims in [8, 104] {
        for space in [Space::L2, Space::InnerProduct] {
            for c in [vec![0.0; dims], random.normals(dims)] {
                let r = vec![0.0; dims];
                let block = Block::new(space, &vec![c.clone(); BLOCK], &c);
                assert!(block.scale == [0; BLOCK] && block.error == [0; BLOCK] && block.constant == [0.0; BLOCK]);
                let mut codes = BITS.map(|bits| (bits, vec![1; bits.bytes(dims)], CodeFactors::default()));
                for (bits, code, f) in &mut codes {
                    *f = encode_code(*bits, space, &r, &c, code);
                    assert!(f.scale == 0.0 && f.constant == 0.0 && f.error.is_finite());
                    assert!(code.iter().all(|u| *u == 0));
                }
                for q in [c.clone(), vec![0.0; dims], random.normals(dims)] {
                    let term = term(space, &q, &c);
                    let mut table = QueryTable::new();
                    table.build(&q, DEFAULT_Z);
                    let (mut estimate, mut lower) = ([0f32; BLOCK], [0f32; BLOCK]);
                    let mask =
                        scan_block(&table, &block.groups, &block.factors(), term, 1e9, &mut estimate, &mut lower);
                    assert_eq!(mask, u32::MAX);
                    assert!(estimate == [term.a; BLOCK] && lower == [term.a; BLOCK]);
                    let norm = dot(&q, &q).sqrt() as f32;
                    for (bits, code, f) in &codes {
                        let bound = code_lower_bound(space, term, f, dot_code(*bits, &q, code), norm, dims);
                        assert!(bound.is_finite() && bound <= term.a);
                    }
                }
            }
        }
    }
}

#[test]
fn any_scale_of_data_is_finite() {
    let mut random = Random(16);
    for scale in [1e-44, 1e-38, 1e-30, 1e-20, 1e15, 1e17, 1e30, 3e37] {
        for space in [Space::L2, Space::InnerProduct] {
            let scaled = |random: &mut Random| -> Vec<f32> {
                random.normals(104).iter().map(|x| (f64::from(*x) * scale) as f32).collect()
            };
            let (r, c, q) = (scaled(&mut random), scaled(&mut random), scaled(&mut random));
            // A number that f32 cannot hold says so.
            let overflows = space == Space::L2 && scale > 1e18;
            let mut nibbles = vec![0; 52];
            let s = encode_sketch(space, &r, &c, &mut nibbles);
            assert!(s.scale.is_finite() && s.error.is_finite(), "{scale}: {s:?}");
            assert!(s.constant.is_finite() != overflows, "{scale}: {s:?}");
            let mut table = QueryTable::new();
            table.build(&q, DEFAULT_Z);
            for bits in BITS {
                let mut code = vec![0; bits.bytes(104)];
                let f = encode_code(bits, space, &r, &c, &mut code);
                assert!(f.scale.is_finite() && f.error.is_finite(), "{scale}: {f:?}");
                assert!(f.constant.is_finite() != overflows, "{scale}: {f:?}");
                let dot = dot_code(bits, &q, &code);
                let bound = code_lower_bound(space, term(space, &q, &c), &f, dot, 1.0, 104);
                assert!(!bound.is_nan());
            }
        }
    }
}

/// Vectors of unlike coordinates, some at the ends of f32's range: nothing panics, nothing is returned that is not a number,
/// and a certain bound is one.
#[test]
fn bounds_hold_at_the_ends_of_the_range() {
    const ENDS: [f32; 14] =
        [0.0, -0.0, 1e-45, -1e-40, 1e-30, 1e-20, 1.0, -3.0, 1e7, -1e14, 1e18, -1e25, 3e38, f32::MIN];
    let mut random = Random(19);
    for round in 0..4000 {
        let dims = [8, 16, 24, 104][round % 4];
        // Of a round all vectors stay below an end.
        let end = 1 + random.bits() as usize % ENDS.len();
        let vector = |random: &mut Random| -> Vec<f32> {
            let plain = random.bits().is_multiple_of(2);
            let value = |random: &mut Random| ENDS[random.bits() as usize % end];
            let all = value(random);
            (0..dims).map(|_| if plain { all * (random.uniform() as f32) } else { value(random) }).collect()
        };
        let (x, q) = (vector(&mut random), vector(&mut random));
        let c = if random.bits().is_multiple_of(4) { x.clone() } else { vector(&mut random) };
        let r = minus(&x, &c);
        for space in [Space::L2, Space::InnerProduct] {
            let term = term(space, &q, &c);
            let truth = if space == Space::L2 { distance2(&x, &q) } else { -dot(&x, &q) };
            let norm = dot(&q, &q).sqrt() as f32;
            let mut table = QueryTable::new();
            table.build(&q, DEFAULT_Z);
            let (mut nibbles, mut groups) = (vec![0; dims / 2], vec![0; 8 * dims]);
            let sketch = encode_sketch(space, &r, &c, &mut nibbles);
            set_nibble_column(&mut groups, 3, &nibbles);
            let column = |x: f32| [if x.is_nan() { f32::NAN } else { x }; BLOCK];
            let (scale, error) = ([factor::pack(sketch.scale); BLOCK], [factor::pack(sketch.error); BLOCK]);
            let f = BlockFactors { constant: &column(sketch.constant), scale: &scale, error: &error };
            let (mut estimate, mut lower) = ([0f32; BLOCK], [0f32; BLOCK]);
            scan_block(&table, &groups, &f, term, f32::INFINITY, &mut estimate, &mut lower);
            assert!(estimate.iter().chain(&lower).all(|x| x.is_finite()), "{sketch:?}");
            decode_sketch(space, &sketch, &nibbles, &mut c.clone());
            for bits in BITS {
                let mut code = vec![0; bits.bytes(dims)];
                let f = encode_code(bits, space, &r, &c, &mut code);
                let product = dot_code(bits, &q, &code);
                let bound = code_lower_bound(space, term, &f, product, norm, dims);
                assert!(!bound.is_nan());
                let spread = code_spread(space, term, term.a, dot(&c, &c).sqrt() as f32, &f, product, norm, dims);
                assert!(spread >= 0.0);
                decode_code(bits, &code, f.scale, &mut c.clone());
                // What underflows in f32 is the caller's business, as that happens to the operators as well.
                let underflow = 1e-42 * (dims as f64 + f64::from(norm));
                let finite = [f.constant, f.scale, f.error, term.a, product].iter().all(|x| x.is_finite());
                assert!(
                    !finite || bound == f32::MIN || f64::from(bound) <= truth + underflow + 1e-6 * truth.abs(),
                    "{space:?} {bits:?}: {bound} > {truth}, x {x:?}, c {c:?}, q {q:?}, {f:?}"
                );
            }
        }
    }
}

#[test]
fn bit_strings() {
    let mut random = 1u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as u32
    };
    for bits in [1, 7, 64, 100, 384, 5000, 64_000] {
        let padded = padded_dims(bits);
        let mut string = |share: u32| {
            let mut values: Vec<f32> = (0..bits).map(|_| f32::from(u8::from(next() % 100 < share))).collect();
            values.resize(padded, 0.0);
            let mut nibbles = vec![0; padded / 4];
            let set = pack_bits(&values, &mut nibbles);
            assert_eq!(set, values.iter().filter(|v| **v > 0.0).count());
            let mut back = vec![9.0; padded];
            unpack_bits(&nibbles, &mut back);
            assert_eq!(back, values);
            (values, nibbles, set as f32)
        };
        let rows: Vec<_> = (0..BLOCK as u32).map(|i| string(i * 3)).collect();
        let mut groups = vec![0; 16 * padded / 4];
        rows.iter().enumerate().for_each(|(slot, row)| set_nibble_column(&mut groups, slot, &row.1));
        let constants: [f32; BLOCK] = std::array::from_fn(|i| rows[i].2);
        let ones = [factor::pack(1.0); BLOCK];
        for share in [0, 20, 50, 100] {
            let query = string(share);
            let mut table = QueryTable::new();
            table.build_bits(&query.1);
            let factors = BlockFactors { constant: &constants, scale: &ones, error: &[0; BLOCK] };
            let (mut estimate, mut lower) = ([0.0; BLOCK], [0.0; BLOCK]);
            scan_block(&table, &groups, &factors, table.bit_term(), f32::INFINITY, &mut estimate, &mut lower);
            let differ: [f32; BLOCK] =
                std::array::from_fn(|i| rows[i].0.iter().zip(&query.0).filter(|(x, y)| x != y).count() as f32);
            for i in 0..BLOCK {
                assert_eq!(estimate[i] - constants[i], differ[i]);
                assert_eq!(lower[i], estimate[i]);
            }
            let near = shares(&constants, query.2, 1.0, &mut estimate, &mut lower);
            for i in 0..BLOCK {
                let set = constants[i] + query.2;
                let expected = if set > 0.0 { 2.0 * differ[i] / set } else { 2.0 };
                assert_eq!(estimate[i], expected);
                assert_eq!(near >> i & 1 == 1, expected < 1.0);
            }
        }
    }
}
