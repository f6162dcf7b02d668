//! The kernels, one file an instruction set, and the choice among them.
//!
//! A [`Kernels`] is a table of function pointers. [`best`] is decided once; [`available`] lists all that this CPU can run,
//! for tests and benchmarks. All sets give the same integer sums, and the same bits in everything that ends up on disk or
//! is compared with it, except for the last places of f64 sums and of [`Kernels::dot_code`].

use super::fastscan::{BlockFactors, ScanTerm};
use super::sketch::SketchFactors;
use super::{BLOCK, Bits, CodeFactors, Space};
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

type Accumulate = unsafe fn(&[u8], &[u8], &mut [u32; BLOCK]);
type Bounds = unsafe fn(&ScanTerm, &[u32; BLOCK], &BlockFactors, &mut [f32; BLOCK], &mut [f32; BLOCK]) -> u32;
type Scan = unsafe fn(&[u8], &[u8], &ScanTerm, &BlockFactors, &mut [f32; BLOCK], &mut [f32; BLOCK]) -> u32;

/// One instruction set's kernels.
///
/// Invariant that every call below relies on: a value is only handed out (by [`available`] and [`best`]) after the CPU was
/// found to have the features that its functions were compiled for. The functions have no other demand that their callers
/// here do not check.
#[derive(Debug)]
pub struct Kernels {
    name: &'static str,
    accumulate: Accumulate,
    bounds: Bounds,
    scan: Scan,
    fill_table: unsafe fn(&[f32], f32, &mut [u8]),
    dot_code8: unsafe fn(&[f32], &[u8]) -> f32,
    dot_code4: unsafe fn(&[f32], &[u8]) -> f32,
    decode_code8: unsafe fn(&[u8], f32, &mut [f32]),
    decode_code4: unsafe fn(&[u8], f32, &mut [f32]),
    rotate: unsafe fn(&[f32], &mut [f32]),
    encode_sketch: unsafe fn(Space, &[f32], &[f32], &mut [u8]) -> SketchFactors,
    encode_code8: unsafe fn(Space, &[f32], &[f32], &mut [u8]) -> CodeFactors,
    encode_code4: unsafe fn(Space, &[f32], &[f32], &mut [u8]) -> CodeFactors,
}

impl Kernels {
    /// The name of the instruction set.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// See [`super::accumulate`].
    #[inline]
    pub fn accumulate(&self, groups: &[u8], lut: &[u8], sums: &mut [u32; BLOCK]) {
        assert!(groups.len() == lut.len() && groups.len().is_multiple_of(16));
        // SAFETY: the CPU has the features (invariant of Kernels).
        unsafe { (self.accumulate)(groups, lut, sums) }
    }

    /// See [`super::bounds`].
    #[inline]
    pub(super) fn bounds(
        &self,
        term: &ScanTerm,
        sums: &[u32; BLOCK],
        f: &BlockFactors,
        estimate: &mut [f32; BLOCK],
        lower: &mut [f32; BLOCK],
    ) -> u32 {
        // SAFETY: the CPU has the features (invariant of Kernels).
        unsafe { (self.bounds)(term, sums, f, estimate, lower) }
    }

    /// See [`super::scan_block`].
    #[inline]
    pub(super) fn scan(
        &self,
        groups: &[u8],
        lut: &[u8],
        term: &ScanTerm,
        f: &BlockFactors,
        estimate: &mut [f32; BLOCK],
        lower: &mut [f32; BLOCK],
    ) -> u32 {
        assert!(groups.len() == lut.len() && groups.len().is_multiple_of(16));
        // SAFETY: the CPU has the features (invariant of Kernels).
        unsafe { (self.scan)(groups, lut, term, f, estimate, lower) }
    }

    /// See [`super::scan_block`]; for benchmarks of one instruction set.
    #[allow(clippy::too_many_arguments)]
    pub fn scan_block(
        &self,
        table: &super::QueryTable,
        groups: &[u8],
        f: &BlockFactors,
        term: super::ListTerm,
        threshold: f32,
        estimate: &mut [f32; BLOCK],
        lower: &mut [f32; BLOCK],
    ) -> u32 {
        self.scan(groups, table.lut(0..groups.len() / 16), &table.scan_term(term, threshold), f, estimate, lower)
    }

    /// Fills 16 bytes of table for each two coordinates of `q`.
    pub(super) fn fill_table(&self, q: &[f32], inverse: f32, lut: &mut [u8]) {
        // SAFETY: the CPU has the features (invariant of Kernels).
        unsafe { (self.fill_table)(q, inverse, lut) }
    }

    /// See [`super::dot_code`].
    #[inline]
    pub fn dot_code(&self, bits: Bits, q: &[f32], code: &[u8]) -> f32 {
        assert_eq!(q.len(), bits.dims(code.len()));
        // SAFETY: the CPU has the features (invariant of Kernels).
        match bits {
            Bits::Eight => unsafe { (self.dot_code8)(q, code) },
            Bits::Four => unsafe { (self.dot_code4)(q, code) },
        }
    }

    /// See [`super::decode_code`].
    pub fn decode_code(&self, bits: Bits, code: &[u8], scale: f32, centroid: &mut [f32]) {
        // SAFETY: the CPU has the features (invariant of Kernels).
        match bits {
            Bits::Eight => unsafe { (self.decode_code8)(code, scale, centroid) },
            Bits::Four => unsafe { (self.decode_code4)(code, scale, centroid) },
        }
    }

    /// See [`super::Rotation::apply`]; `factors` holds `x.len()` factors for each round.
    pub(super) fn rotate(&self, factors: &[f32], x: &mut [f32]) {
        // SAFETY: the CPU has the features (invariant of Kernels).
        unsafe { (self.rotate)(factors, x) }
    }

    /// See [`super::encode_sketch`].
    pub fn encode_sketch(&self, space: Space, r: &[f32], c: &[f32], nibbles: &mut [u8]) -> SketchFactors {
        // SAFETY: the CPU has the features (invariant of Kernels).
        unsafe { (self.encode_sketch)(space, r, c, nibbles) }
    }

    /// See [`super::encode_code`].
    pub fn encode_code(&self, bits: Bits, space: Space, r: &[f32], c: &[f32], code: &mut [u8]) -> CodeFactors {
        // SAFETY: the CPU has the features (invariant of Kernels).
        match bits {
            Bits::Eight => unsafe { (self.encode_code8)(space, r, c, code) },
            Bits::Four => unsafe { (self.encode_code4)(space, r, c, code) },
        }
    }
}

/// The kernel sets that this CPU can run, slowest first.
pub fn available() -> Vec<&'static Kernels> {
    let mut sets = vec![&portable::KERNELS];
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            sets.push(&avx2::KERNELS);
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
            {
                sets.push(&avx512::KERNELS_BW);
                if is_x86_feature_detected!("avx512vbmi") && is_x86_feature_detected!("avx512vnni") {
                    sets.push(&avx512::KERNELS_VBMI);
                }
            }
        }
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("neon") {
        sets.push(&neon::KERNELS);
    }
    sets
}

/// The fastest kernel set of this CPU.
#[inline]
pub fn best() -> &'static Kernels {
    static BEST: OnceLock<&'static Kernels> = OnceLock::new();
    BEST.get_or_init(|| available().pop().unwrap_or(&portable::KERNELS))
}

/// Compiles the bodies that the compiler vectorises by itself once more, for the features of the calling module.
macro_rules! compiled_for {
    ($features:literal) => {
        #[target_feature(enable = $features)]
        fn decode_code8(code: &[u8], scale: f32, centroid: &mut [f32]) {
            crate::quantize::code::decode8(code, scale, centroid)
        }
        #[target_feature(enable = $features)]
        fn decode_code4(code: &[u8], scale: f32, centroid: &mut [f32]) {
            crate::quantize::code::decode4(code, scale, centroid)
        }
        #[target_feature(enable = $features)]
        fn rotate(factors: &[f32], x: &mut [f32]) {
            crate::quantize::rotation::rotate(factors, x)
        }
        #[target_feature(enable = $features)]
        fn encode_sketch(
            space: crate::quantize::Space,
            r: &[f32],
            c: &[f32],
            nibbles: &mut [u8],
        ) -> crate::quantize::SketchFactors {
            crate::quantize::sketch::encode(space, r, c, nibbles)
        }
        #[target_feature(enable = $features)]
        fn encode_code8(
            space: crate::quantize::Space,
            r: &[f32],
            c: &[f32],
            code: &mut [u8],
        ) -> crate::quantize::CodeFactors {
            crate::quantize::code::encode8(space, r, c, code)
        }
        #[target_feature(enable = $features)]
        fn encode_code4(
            space: crate::quantize::Space,
            r: &[f32],
            c: &[f32],
            code: &mut [u8],
        ) -> crate::quantize::CodeFactors {
            crate::quantize::code::encode4(space, r, c, code)
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use compiled_for;
