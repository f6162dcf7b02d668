//! Loops shared by the vector instruction sets, as macros over primitives that each file defines.
//!
//! The loops exist once so that what is tested on one architecture holds on the others; an instruction set brings only
//! its loads and its arithmetic. Each keeps four independent accumulators a sum, which hides the latency of the
//! additions, and reads the end of the slices through `load_tail`, which fills up with zeros: zeros add nothing to any
//! of the sums.

/// Defines the float kernels of an instruction set. Needs in scope, with the features given:
/// `V` (a register of `LANES` f32), `zero() -> V`, `add(V, V) -> V`, `sub(V, V) -> V`, `abs(V) -> V`,
/// `mul_add(x: V, y: V, sum: V) -> V`, `sum(V) -> f32`, and the trait
/// `Load { unsafe fn load(*const Self) -> V; unsafe fn load_tail(*const Self, n: usize) -> V }`, which reads exactly
/// `LANES` (or n, 0 < n < `LANES`) elements, for f32, f16 and i8.
macro_rules! float_kernels {
    ($features:literal) => {
        /// So many elements are summed up before the accumulators are added to the total: rounding errors grow
        /// with the length of a chain of additions.
        const RUN: usize = 64 * 4 * LANES;

        /// sum + (x − y)².
        #[inline]
        #[target_feature(enable = $features)]
        fn step_l2(x: V, y: V, sum: V) -> V {
            let d = sub(x, y);
            mul_add(d, d, sum)
        }

        /// sum + |x − y|.
        #[inline]
        #[target_feature(enable = $features)]
        fn step_l1(x: V, y: V, sum: V) -> V {
            add(sum, abs(sub(x, y)))
        }

        float_reduction!($features, l2_squared, step_l2);
        float_reduction!($features, inner_product, mul_add);
        float_reduction!($features, l1, step_l1);

        /// Σ aᵢ².
        #[target_feature(enable = $features)]
        fn norm_squared<A: Load>(a: &[A]) -> f32 {
            inner_product(a, a) // inlined, and the two loads of the same address are merged
        }

        /// (Σ aᵢbᵢ, Σ aᵢ², Σ bᵢ²).
        #[target_feature(enable = $features)]
        fn cosine_terms<A: Load, B: Load>(a: &[A], b: &[B]) -> (f32, f32, f32) {
            let n = a.len().min(b.len());
            let (pa, pb) = (a.as_ptr(), b.as_ptr());
            let (mut dot_total, mut a_total, mut b_total) = (zero(), zero(), zero());
            let mut i = 0;
            while i + 4 * LANES <= n {
                let end = n.min(i + RUN);
                let (mut dot, mut norm_a, mut norm_b) = ([zero(); 4], [zero(); 4], [zero(); 4]);
                while i + 4 * LANES <= end {
                    for k in 0..4 {
                        // SAFETY: i + (k + 1) * LANES <= end <= n, so both loads stay inside their slices.
                        let (x, y) = unsafe { (A::load(pa.add(i + k * LANES)), B::load(pb.add(i + k * LANES))) };
                        dot[k] = mul_add(x, y, dot[k]);
                        norm_a[k] = mul_add(x, x, norm_a[k]);
                        norm_b[k] = mul_add(y, y, norm_b[k]);
                    }
                    i += 4 * LANES;
                }
                dot_total = add(dot_total, fold(dot));
                a_total = add(a_total, fold(norm_a));
                b_total = add(b_total, fold(norm_b));
            }
            // Fewer than four registers are left, the last of them perhaps in part.
            let (mut dot, mut norm_a, mut norm_b) = ([zero(); 4], [zero(); 4], [zero(); 4]);
            for k in 0..4 {
                if i >= n {
                    break;
                }
                let (x, y) = if i + LANES <= n {
                    // SAFETY: i + LANES <= n, so both loads stay inside their slices.
                    unsafe { (A::load(pa.add(i)), B::load(pb.add(i))) }
                } else {
                    // SAFETY: 0 < n - i < LANES elements are left in both slices.
                    unsafe { (A::load_tail(pa.add(i), n - i), B::load_tail(pb.add(i), n - i)) }
                };
                dot[k] = mul_add(x, y, dot[k]);
                norm_a[k] = mul_add(x, x, norm_a[k]);
                norm_b[k] = mul_add(y, y, norm_b[k]);
                i += LANES;
            }
            (sum(add(dot_total, fold(dot))), sum(add(a_total, fold(norm_a))), sum(add(b_total, fold(norm_b))))
        }

        /// The sum of four accumulators.
        #[inline]
        #[target_feature(enable = $features)]
        fn fold(acc: [V; 4]) -> V {
            add(add(acc[0], acc[1]), add(acc[2], acc[3]))
        }
    };
}

/// Defines `$name(a, b)`: the sum that `$step(x, y, sum) -> sum` accumulates over all pairs.
macro_rules! float_reduction {
    ($features:literal, $name:ident, $step:ident) => {
        #[inline]
        #[target_feature(enable = $features)]
        fn $name<A: Load, B: Load>(a: &[A], b: &[B]) -> f32 {
            let n = a.len().min(b.len());
            let (pa, pb) = (a.as_ptr(), b.as_ptr());
            let mut total = zero();
            let mut i = 0;
            while i + 4 * LANES <= n {
                let end = n.min(i + RUN);
                let mut acc = [zero(); 4];
                while i + 4 * LANES <= end {
                    for k in 0..4 {
                        // SAFETY: i + (k + 1) * LANES <= end <= n, so both loads stay inside their slices.
                        let (x, y) = unsafe { (A::load(pa.add(i + k * LANES)), B::load(pb.add(i + k * LANES))) };
                        acc[k] = $step(x, y, acc[k]);
                    }
                    i += 4 * LANES;
                }
                total = add(total, fold(acc));
            }
            // Fewer than four registers are left, the last of them perhaps in part.
            let mut acc = [zero(); 4];
            for k in 0..4 {
                if i >= n {
                    break;
                }
                let (x, y) = if i + LANES <= n {
                    // SAFETY: i + LANES <= n, so both loads stay inside their slices.
                    unsafe { (A::load(pa.add(i)), B::load(pb.add(i))) }
                } else {
                    // SAFETY: 0 < n - i < LANES elements are left in both slices.
                    unsafe { (A::load_tail(pa.add(i), n - i), B::load_tail(pb.add(i), n - i)) }
                };
                acc[k] = $step(x, y, acc[k]);
                i += LANES;
            }
            sum(add(total, fold(acc)))
        }
    };
}

/// The table of an instruction set's kernels, from functions of the usual names in scope.
macro_rules! kernel_table {
    ($name:literal, $hamming:path, $jaccard_terms:path) => {
        Kernels {
            name: $name,
            f32: FloatKernels {
                l2_squared: l2_squared::<f32, f32>,
                inner_product: inner_product::<f32, f32>,
                l1: l1::<f32, f32>,
                norm_squared: norm_squared::<f32>,
                cosine_terms: cosine_terms::<f32, f32>,
            },
            f16: FloatKernels {
                l2_squared: l2_squared::<f16, f16>,
                inner_product: inner_product::<f16, f16>,
                l1: l1::<f16, f16>,
                norm_squared: norm_squared::<f16>,
                cosine_terms: cosine_terms::<f16, f16>,
            },
            hamming: $hamming,
            jaccard_terms: $jaccard_terms,
            dot_i8: inner_product::<f32, i8>,
            f16_to_f32,
            f32_to_f16,
        }
    };
}
