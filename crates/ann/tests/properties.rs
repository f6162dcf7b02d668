//! Properties that hold for all inputs, tried on random ones, which shrink when one fails. The references are in f64.

use ann::filter::{self, RowKeys, Summarizer, Summary};
use ann::quantize::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn distance2(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
}

fn term(space: Space, q: &[f32], c: &[f32]) -> ListTerm {
    match space {
        Space::L2 => ListTerm { a: distance2(q, c) as f32, b: distance2(q, c).sqrt() as f32 },
        Space::InnerProduct => ListTerm { a: -dot(q, c) as f32, b: dot(q, q).sqrt() as f32 },
    }
}

/// A coordinate: round ones, small and large ones.
fn coordinate() -> impl Strategy<Value = f32> {
    prop_oneof![(-4i32..=4).prop_map(|v| v as f32), -1.0f32..1.0, -1e3f32..1e3, -1e-4f32..1e-4]
}

/// Centroid, row and query of as many dimensions, a multiple of 8.
fn places() -> impl Strategy<Value = (Vec<f32>, Vec<f32>, Vec<f32>)> {
    (1usize..12).prop_flat_map(|n| (vec(coordinate(), 8 * n), vec(coordinate(), 8 * n), vec(coordinate(), 8 * n)))
}

fn space() -> impl Strategy<Value = Space> {
    prop_oneof![Just(Space::L2), Just(Space::InnerProduct)]
}

fn bits() -> impl Strategy<Value = Bits> {
    prop_oneof![Just(Bits::Four), Just(Bits::Eight)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_certain_bound_is_never_above_the_distance(
        (c, x, q) in places(), space in space(), bits in bits(), near in any::<bool>(),
    ) {
        // A row of the list, or one that is anywhere.
        let x: Vec<f32> = if near { c.iter().zip(&x).map(|(c, x)| c + 1e-2 * x).collect() } else { x };
        let residual: Vec<f32> = x.iter().zip(&c).map(|(x, c)| x - c).collect();
        // What the code is of: the centroid and the rounded residual.
        let mut code = vec![0; bits.bytes(x.len())];
        let f = encode_code(bits, space, &residual, &c, &mut code);
        let q_norm = dot(&q, &q).sqrt() as f32;
        let bound = code_lower_bound(space, term(space, &q, &c), &f, dot_code(bits, &q, &code), q_norm, x.len());
        let truth = if space == Space::L2 { distance2(&x, &q) } else { -dot(&x, &q) };
        prop_assert!(f64::from(bound) <= truth, "{bound} above {truth}");
    }

    #[test]
    fn the_error_of_a_code_is_no_less_than_what_is_lost((c, x, _) in places(), bits in bits()) {
        let mut code = vec![0; bits.bytes(x.len())];
        let f = encode_code(bits, Space::L2, &x, &c, &mut code);
        let mut decoded = c.clone();
        decode_code(bits, &code, f.scale, &mut decoded);
        let whole: Vec<f64> = x.iter().zip(&c).map(|(x, c)| f64::from(*x) + f64::from(*c)).collect();
        let lost: f64 = whole.iter().zip(&decoded).map(|(x, d)| (x - f64::from(*d)).powi(2)).sum::<f64>().sqrt();
        let rounding = 1e-6 * whole.iter().map(|x| x * x).sum::<f64>().sqrt();
        prop_assert!(lost <= f64::from(f.error) + rounding, "{lost} of {}", f.error);
    }

    #[test]
    fn a_column_of_a_block_is_read_as_it_was_written(columns in vec(vec(0u8..16, 8), 1..=BLOCK), again in 0usize..BLOCK) {
        let mut groups = vec![0u8; 16 * 8];
        for (slot, column) in columns.iter().enumerate() {
            set_nibble_column(&mut groups, slot, column);
        }
        let again = again % columns.len();
        set_nibble_column(&mut groups, again, &columns[0]);
        for (slot, column) in columns.iter().enumerate() {
            let mut read = vec![0; 8];
            nibble_column(&groups, slot, &mut read);
            prop_assert_eq!(&read, if slot == again { &columns[0] } else { column });
        }
    }

    #[test]
    fn packed_factors_are_no_less(x in 0f32..f32::MAX) {
        let up = factor::up(x);
        prop_assert!(up >= x && factor::unpack(factor::pack(up)) == up);
        prop_assert_eq!(factor::unpack(factor::pack(factor::nearest(x))), factor::nearest(x));
    }

    #[test]
    fn what_a_rotation_does_can_be_undone(x in vec(-1.0f32..1.0, 2..70), seed in any::<u64>()) {
        let rotation = Rotation::new(x.len(), seed);
        let mut there = x.clone();
        there.resize(rotation.padded(), 0.0);
        rotation.apply(&mut there);
        let (before, after) = (dot(&x, &x), dot(&there, &there));
        prop_assert!((before - after).abs() <= 1e-5 * before.max(1e-9), "norm {before} becomes {after}");
        rotation.undo(&mut there);
        prop_assert!(distance2(&x, &there[..x.len()]) <= 1e-10 * before.max(1e-9));
    }
}

/// Keys close to each other, or anywhere.
fn key() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..200, any::<u64>(), (0u32..64).prop_map(|bit| 1 << bit)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_summary_excludes_no_key_that_it_was_made_of(
        keys in vec(proptest::option::weighted(0.9, key()), 1..120), low in key(), high in key(), set in key(), later in any::<bool>(),
    ) {
        let mut summarizer = Summarizer::new(1);
        let first = if later { keys.len() / 2 } else { keys.len() };
        for key in &keys[..first] {
            let mut row = RowKeys::new(1);
            row.set(0, *key);
            summarizer.add(&row);
        }
        let mut summary = summarizer.summaries()[0];
        for key in &keys[first..] {
            summary.add(*key);
        }
        let summary = Summary::from_bytes(&summary.to_bytes());
        let (low, high) = (low.min(high), low.max(high));
        prop_assert!(keys.iter().all(|key| summary.knows(*key)));
        prop_assert_eq!(summary.has_nulls(), keys.contains(&None));
        let mut known: Vec<u64> = keys.iter().flatten().copied().collect();
        known.sort_unstable();
        for &key in &known {
            prop_assert!(summary.may_hold(key, key) && summary.may_overlap(key | 1) | (key == 0) && summary.may_contain(key));
        }
        prop_assert_eq!(summary.has_keys(), !known.is_empty());
        prop_assert!(known.is_empty() || summary.may_hold_one_of(&known[..1]));
        let within = known.iter().any(|key| (low..=high).contains(key));
        prop_assert!(!within || summary.may_hold(low, high));
        prop_assert!(!within || !Summary::is_beyond(&summary.to_bytes(), low, high));
        prop_assert!(!known.iter().any(|key| key & set != 0) || summary.may_overlap(set));
        prop_assert!(!known.iter().any(|key| key & set == set) || summary.may_contain(set));
    }

    #[test]
    fn tests_of_32_keys_are_those_of_each(keys in vec(key(), BLOCK), low in key(), high in key()) {
        let keys: filter::Keys = keys.try_into().unwrap();
        let mask = |passes: &dyn Fn(u64) -> bool| {
            keys.iter().enumerate().fold(0u32, |mask, (i, key)| mask | u32::from(passes(*key)) << i)
        };
        prop_assert_eq!(filter::within(&keys, low, high), mask(&|key| (low..=high).contains(&key)));
        prop_assert_eq!(filter::overlaps(&keys, low), mask(&|key| key & low != 0));
        prop_assert_eq!(filter::contains(&keys, low), mask(&|key| key & low == low));
    }
}
