//! The kernels behind the distances: one file an instruction set, the set chosen once at run time.
//!
//! * `portable.rs`: plain Rust, on every machine.
//! * `avx2.rs`: x86-64 with AVX2, FMA, F16C and POPCNT (Haswell, Zen and later).
//! * `avx512.rs`: x86-64 with AVX-512 F, BW, VL, DQ; bit kernels with VPOPCNTDQ, or else those of AVX2.
//! * `neon.rs`: every aarch64.
//! * `reduce.rs`: the loops that the three vector files share, as macros over an instruction set's primitives.
//!
//! [`active`] is the best set of this CPU: one relaxed load, then an indirect call. [`available`] lists every set that
//! this CPU can run, so that tests and benches run each of them.

#[macro_use]
mod reduce;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::{Element, f16};

/// A kernel over two slices. `unsafe` because the CPU must have the instruction set.
type Pairwise<T, R> = unsafe fn(&[T], &[T]) -> R;

/// The kernels of one instruction set. A reference to one exists only where the CPU supports it: the statics are
/// private to this module and leave it through [`active`] and [`available`] alone. All methods are sound for slices of
/// unequal length as well (the kernels cut the longer one).
pub struct Kernels {
    /// The name of the instruction set, for reports.
    pub name: &'static str,
    pub(super) f32: FloatKernels<f32>,
    pub(super) f16: FloatKernels<f16>,
    hamming: Pairwise<u8, u64>,
    jaccard_terms: Pairwise<u8, (u64, u64)>,
    dot_i8: unsafe fn(&[f32], &[i8]) -> f32,
    f16_to_f32: unsafe fn(&[f16], &mut [f32]),
    f32_to_f16: unsafe fn(&[f32], &mut [f16]),
}

/// The kernels over vectors of one element type.
#[doc(hidden)]
pub struct FloatKernels<T> {
    l2_squared: Pairwise<T, f32>,
    inner_product: Pairwise<T, f32>,
    l1: Pairwise<T, f32>,
    norm_squared: unsafe fn(&[T]) -> f32,
    cosine_terms: Pairwise<T, (f32, f32, f32)>,
}

impl Kernels {
    /// See [`super::l2_squared`].
    #[inline]
    pub fn l2_squared<T: Element>(&self, a: &[T], b: &[T]) -> f32 {
        debug_assert_eq!(a.len(), b.len());
        // SAFETY: a `Kernels` exists only where the CPU supports its instruction set.
        unsafe { (T::kernels(self).l2_squared)(a, b) }
    }

    /// See [`super::inner_product`].
    #[inline]
    pub fn inner_product<T: Element>(&self, a: &[T], b: &[T]) -> f32 {
        debug_assert_eq!(a.len(), b.len());
        // SAFETY: a `Kernels` exists only where the CPU supports its instruction set.
        unsafe { (T::kernels(self).inner_product)(a, b) }
    }

    /// See [`super::l1`].
    #[inline]
    pub fn l1<T: Element>(&self, a: &[T], b: &[T]) -> f32 {
        debug_assert_eq!(a.len(), b.len());
        // SAFETY: a `Kernels` exists only where the CPU supports its instruction set.
        unsafe { (T::kernels(self).l1)(a, b) }
    }

    /// See [`super::norm_squared`].
    #[inline]
    pub fn norm_squared<T: Element>(&self, a: &[T]) -> f32 {
        // SAFETY: a `Kernels` exists only where the CPU supports its instruction set.
        unsafe { (T::kernels(self).norm_squared)(a) }
    }

    /// See [`super::cosine_terms`].
    #[inline]
    pub fn cosine_terms<T: Element>(&self, a: &[T], b: &[T]) -> (f32, f32, f32) {
        debug_assert_eq!(a.len(), b.len());
        // SAFETY: a `Kernels` exists only where the CPU supports its instruction set.
        unsafe { (T::kernels(self).cosine_terms)(a, b) }
    }

    /// See [`super::hamming`].
    #[inline]
    pub fn hamming(&self, a: &[u8], b: &[u8]) -> u64 {
        debug_assert_eq!(a.len(), b.len());
        // SAFETY: a `Kernels` exists only where the CPU supports its instruction set.
        unsafe { (self.hamming)(a, b) }
    }

    /// See [`super::jaccard_terms`].
    #[inline]
    pub fn jaccard_terms(&self, a: &[u8], b: &[u8]) -> (u64, u64) {
        debug_assert_eq!(a.len(), b.len());
        // SAFETY: a `Kernels` exists only where the CPU supports its instruction set.
        unsafe { (self.jaccard_terms)(a, b) }
    }

    /// See [`super::dot_i8`].
    #[inline]
    pub fn dot_i8(&self, q: &[f32], code: &[i8]) -> f32 {
        debug_assert_eq!(q.len(), code.len());
        // SAFETY: a `Kernels` exists only where the CPU supports its instruction set.
        unsafe { (self.dot_i8)(q, code) }
    }

    /// See [`super::f16_to_f32_slice`].
    #[inline]
    pub fn f16_to_f32(&self, src: &[f16], dst: &mut [f32]) {
        debug_assert_eq!(src.len(), dst.len());
        // SAFETY: a `Kernels` exists only where the CPU supports its instruction set.
        unsafe { (self.f16_to_f32)(src, dst) }
    }

    /// See [`super::f32_to_f16_slice`].
    #[inline]
    pub fn f32_to_f16(&self, src: &[f32], dst: &mut [f16]) {
        debug_assert_eq!(src.len(), dst.len());
        // SAFETY: a `Kernels` exists only where the CPU supports its instruction set.
        unsafe { (self.f32_to_f16)(src, dst) }
    }
}

/// The set in use; null until the first call.
static ACTIVE: AtomicPtr<Kernels> = AtomicPtr::new(ptr::null_mut());

/// The best kernels of this CPU.
#[inline]
pub fn active() -> &'static Kernels {
    // Relaxed is enough: what it points at is an immutable static that exists since the program was loaded.
    let set = ACTIVE.load(Ordering::Relaxed);
    // SAFETY: null, or made from a `&'static Kernels` by `choose`, and never written through.
    match unsafe { set.as_ref() } {
        Some(set) => set,
        None => choose(),
    }
}

/// Chooses the best set; threads that race here store the same pointer.
#[cold]
fn choose() -> &'static Kernels {
    let best = available().pop().expect("the portable kernels run everywhere");
    ACTIVE.store(ptr::from_ref(best).cast_mut(), Ordering::Relaxed);
    best
}

/// Every set that this CPU can run, the portable one first and the best one last.
pub fn available() -> Vec<&'static Kernels> {
    #[allow(unused_mut, reason = "nothing to add on other architectures")]
    let mut sets = vec![&portable::KERNELS];
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("popcnt")
    {
        sets.push(&avx2::KERNELS);
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
        {
            sets.push(&avx512::KERNELS);
            if is_x86_feature_detected!("avx512vpopcntdq") {
                sets.push(&avx512::KERNELS_VPOPCNT);
            }
        }
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("neon") {
        sets.push(&neon::KERNELS);
    }
    sets
}
