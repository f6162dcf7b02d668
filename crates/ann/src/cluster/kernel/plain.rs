//! Loops over single rows that the compiler vectorises; inlined into one wrapper an instruction set.

use crate::cluster::space::CLAMP;

const LANES: usize = 16;

#[inline(always)]
pub(super) fn squared(a: &[f32], b: &[f32], scale: f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (x, y) in a.iter().zip(b) {
        for lane in 0..LANES {
            let difference = (x[lane] - y[lane]) * scale;
            sums[lane] += difference * difference;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| (x - y) * scale).map(|x| x * x).sum();
    total(sums) + rest
}

#[inline(always)]
pub(super) fn shifted(row: &[f32], scale: f32, shift: &[f32], out: &mut [f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (rows, row_rest) = row.as_chunks::<LANES>();
    let (shifts, shift_rest) = shift.as_chunks::<LANES>();
    let (outs, out_rest) = out.as_chunks_mut::<LANES>();
    for ((x, m), y) in rows.iter().zip(shifts).zip(outs) {
        // A loop for each step: the compiler makes whole vectors of these, and pieces of one loop.
        let mut value = *x;
        value.iter_mut().for_each(|value| *value *= scale);
        value.iter_mut().for_each(|value| *value = if *value < CLAMP { *value } else { CLAMP });
        value.iter_mut().for_each(|value| *value = if *value > -CLAMP { *value } else { -CLAMP });
        value.iter_mut().zip(m).for_each(|(value, m)| *value -= m);
        *y = value;
        sums.iter_mut().zip(value).for_each(|(sum, value)| *sum += value * value);
    }
    let mut rest = 0.0;
    for ((x, m), y) in row_rest.iter().zip(shift_rest).zip(out_rest) {
        *y = (x * scale).clamp(-CLAMP, CLAMP) - m;
        rest += *y * *y;
    }
    total(sums) + rest
}

#[inline(always)]
pub(super) fn largest(row: &[f32]) -> f32 {
    let mut most = [0.0f32; LANES];
    let (rows, rest) = row.as_chunks::<LANES>();
    for x in rows {
        for lane in 0..LANES {
            most[lane] = if x[lane].abs() > most[lane] { x[lane].abs() } else { most[lane] };
        }
    }
    most.iter().copied().chain(rest.iter().map(|x| x.abs())).fold(0.0, f32::max)
}

#[inline(always)]
pub(super) fn add(sum: &mut [f64], row: &[f32]) {
    for (total, &value) in sum.iter_mut().zip(row) {
        *total += f64::from(value);
    }
}

#[inline(always)]
fn total(mut sums: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
}

/// Defines the row loops of a kernel for one set of target features.
macro_rules! row_loops {
    ($feature:literal) => {
        pub(super) fn squared(a: &[f32], b: &[f32], scale: f32) -> f32 {
            #[target_feature(enable = $feature)]
            fn run(a: &[f32], b: &[f32], scale: f32) -> f32 {
                crate::cluster::kernel::plain::squared(a, b, scale)
            }
            // SAFETY: this kernel is only chosen after its features were detected.
            unsafe { run(a, b, scale) }
        }
        pub(super) fn shifted(row: &[f32], scale: f32, shift: &[f32], out: &mut [f32]) -> f32 {
            #[target_feature(enable = $feature)]
            fn run(row: &[f32], scale: f32, shift: &[f32], out: &mut [f32]) -> f32 {
                crate::cluster::kernel::plain::shifted(row, scale, shift, out)
            }
            // SAFETY: this kernel is only chosen after its features were detected.
            unsafe { run(row, scale, shift, out) }
        }
        pub(super) fn largest(row: &[f32]) -> f32 {
            #[target_feature(enable = $feature)]
            fn run(row: &[f32]) -> f32 {
                crate::cluster::kernel::plain::largest(row)
            }
            // SAFETY: this kernel is only chosen after its features were detected.
            unsafe { run(row) }
        }
        pub(super) fn add(sum: &mut [f64], row: &[f32]) {
            #[target_feature(enable = $feature)]
            fn run(sum: &mut [f64], row: &[f32]) {
                crate::cluster::kernel::plain::add(sum, row)
            }
            // SAFETY: this kernel is only chosen after its features were detected.
            unsafe { run(sum, row) }
        }
    };
}
pub(super) use row_loops;
