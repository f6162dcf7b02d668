//! The extended code: 8 or 4 bits a dimension with a guaranteed bound, read only for entries that the sketch cannot exclude.
//!
//! x̂ = c + s·u, u a vector of i8 and s a step chosen per entry, in the manner of extended RaBitQ (arXiv 2409.09913) but
//! with plain reconstruction instead of the unbiased estimator, because ‖e‖ = ‖x − x̂‖ is stored and the triangle
//! inequality then bounds the true distance with certainty.
//!
//! With 8 bits u is any of −127..=127 and ‖e‖ about 0.75 % of ‖x − c‖. With 4 bits u is one of 16 levels, the best
//! quantizer of the normal distribution (Lloyd-Max), and ‖e‖ about 9.7 %. Two 4-bit codes share a byte: the even
//! dimension has its low half. Of each, bit 3 is the sign (set: negative), the rest the level's number.

use super::{Space, factor, simd};

/// Half a unit in the last place of 1.0: the largest relative error of one rounding to f32.
const U: f64 = 1.0 / (1u64 << 24) as f64;

/// Bits of a code, a dimension.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bits {
    Four,
    Eight,
}

impl Bits {
    /// Bytes of a code of `dims` coordinates, an even number.
    pub fn bytes(self, dims: usize) -> usize {
        match self {
            Bits::Four => dims / 2,
            Bits::Eight => dims,
        }
    }

    /// Coordinates that so many bytes hold.
    pub fn dims(self, bytes: usize) -> usize {
        match self {
            Bits::Four => 2 * bytes,
            Bits::Eight => bytes,
        }
    }
}

/// What an entry stores beside its code. `error` is a number that [`factor`] can pack; `scale` needs its digits, for e to be
/// orthogonal to u.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CodeFactors {
    /// L2: s²‖u‖² + 2s⟨u,c⟩, infinite where f32 cannot hold it. InnerProduct: 0.
    pub constant: f32,
    /// The step s.
    pub scale: f32,
    /// ‖x − x̂‖, rounded up (infinite where nothing is known). InnerProduct: with the rounding allowance that depends on ‖c‖ and ‖s·u‖ (see
    /// [`code_lower_bound`]), because it is multiplied by ‖q‖ all the same.
    pub error: f32,
}

/// What a list and a query have in common.
///
/// L2: `a` = ‖q−c‖², `b` = ‖q−c‖. InnerProduct: `a` = −⟨c,q⟩, `b` = ‖q‖.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ListTerm {
    /// A: the distance of the query to the centroid, L2 squared.
    pub a: f32,
    /// B: what a deviation of the sketch's estimate is multiplied by.
    pub b: f32,
}

impl ListTerm {
    /// The term for sketch bounds when only entries within `threshold` (a distance, L2 squared) matter: fewer survivors.
    ///
    /// The sketch's error vector f·v − r is orthogonal to r. Hence ⟨f·v − r, q−c⟩ = ⟨f·v − r, q−x⟩, and the estimate of an
    /// entry deviates in proportion to ‖q−x‖ where that is less than ‖q−c‖: for entries within the threshold, B = min(B,
    /// √threshold) is enough. The lower bounds of entries farther away are then too high, which only matters if the
    /// threshold grows again. Not for [`code_lower_bound`]. InnerProduct: no change.
    #[must_use]
    pub fn within(self, space: Space, threshold: f32) -> Self {
        match space {
            Space::L2 => Self { b: self.b.min(threshold.max(0.0).sqrt()), ..self },
            Space::InnerProduct => self,
        }
    }
}

/// Encodes an entry: `residual` = x − c and `centroid` = c have `padded` coordinates, `code` the bytes for so many.
pub fn encode_code(bits: Bits, space: Space, residual: &[f32], centroid: &[f32], code: &mut [u8]) -> CodeFactors {
    assert!(residual.len().is_multiple_of(8));
    assert_eq!(residual.len(), centroid.len());
    assert_eq!(code.len(), bits.bytes(residual.len()));
    simd::best().encode_code(bits, space, residual, centroid, code)
}

/// Adds s·u in place: the parent's centroid becomes the child's. The same to the bit on every CPU (a multiplication and an
/// addition, never fused), so that all who walk down the tree see the same centroid as those who encoded against it.
pub fn decode_code(bits: Bits, code: &[u8], scale: f32, centroid: &mut [f32]) {
    assert_eq!(code.len(), bits.bytes(centroid.len()));
    simd::best().decode_code(bits, code, scale, centroid);
}

/// ⟨q,u⟩. `q` has the coordinates that `code` is of.
pub fn dot_code(bits: Bits, q: &[f32], code: &[u8]) -> f32 {
    simd::best().dot_code(bits, q, code)
}

/// The distance of the query to x̂ (L2 squared, not below 0; or −⟨x̂,q⟩), `dot` being ⟨q,u⟩. Not a bound.
pub fn code_distance(space: Space, term: ListTerm, f: &CodeFactors, dot: f32) -> f32 {
    let (a, constant, s, dot) = (f64::from(term.a), f64::from(f.constant), f64::from(f.scale), f64::from(dot));
    match space {
        Space::L2 => (a + constant - 2.0 * s * dot).max(0.0) as f32,
        Space::InnerProduct => (a - s * dot) as f32,
    }
}

/// A bound of the true distance that only few entries are below (about 0.6 %, as for the sketch), `distance` being
/// [`code_distance`]: `DEFAULT_Z` deviations of it, plus the most that it can be biased.
///
/// With q' = q or q − x̂, the true distance differs from that of x̂ by ‖e‖² − 2⟨q',e⟩ (inner product: by −⟨q,e⟩). But for its
/// part along r, which is ‖e‖²/‖r‖ long and which `BIAS` stands for, e points anywhere.
pub fn code_likely_bound(space: Space, f: &CodeFactors, distance: f32, q_norm: f32, padded: usize) -> f32 {
    /// ‖e‖/‖r‖ of 4-bit codes, rounded up.
    const BIAS: f32 = 0.1;
    let deviations = super::DEFAULT_Z / (padded as f32).sqrt();
    match space {
        Space::L2 => (distance - f.error * (2.0 * deviations * distance.max(0.0).sqrt() + f.error)).max(0.0),
        Space::InnerProduct => distance - f.error * q_norm * (deviations + BIAS),
    }
}

/// γ: bounds |fl(⟨x,y⟩) − ⟨x,y⟩| / (‖x‖‖y‖) for f32 sums of D products in at least 16 independent lanes: a product and
/// every addition round once, each lane adds D/16 times, the lanes are then summed in a few more.
fn gamma(padded: usize) -> f64 {
    (padded as f64 / 16.0 + 16.0) * U
}

/// η: bounds the relative error ‖fl(R(x−m)) − R(x−m)‖ / ‖x−m‖ of a vector's centring and rotation: one rounding for the
/// subtraction and, for each of at most 4 rounds, one for each level of butterflies (log₂D and the halves) and two for the
/// factors, each of at most U times the norm because all steps are orthogonal.
fn eta(padded: usize) -> f64 {
    (4.0 * (f64::from(padded.ilog2()) + 3.0) + 1.0) * U
}

/// The largest f32 not above `x`.
fn round_down(x: f64) -> f32 {
    let y = x as f32;
    if f64::from(y) > x { y.next_down() } else { y }
}

/// The smallest finite f32 not below `x`.
fn round_up(x: f64) -> f32 {
    let y = x as f32;
    (if f64::from(y) < x { y.next_up() } else { y }).min(f32::MAX)
}

/// A lower bound of the true distance (L2 squared; or −⟨x,q⟩) that holds with certainty, not only in exact arithmetic.
///
/// `dot` = ⟨q,u⟩ from [`dot_code`], `q_norm` = ‖q‖, `padded` = D. Demands: `term.a` was computed from the coordinates of
/// q and c in f32 (or better) by a sum of at least 16 lanes, *not* from differences of larger numbers such as
/// [`code_distance`] of the parent list.
///
/// In exact arithmetic L2 gives (‖x̂−q‖ − ‖e‖)² and InnerProduct −⟨x̂,q⟩ − ‖q‖‖e‖. The allowance for rounding, with
/// U = 2⁻²⁴, γ = (D/16 + 16)·U and η = (4·log₂D + 13)·U, r̂ = s·u:
///
/// * A: γ·A (a sum of squares of one sign). InnerProduct: γ‖c‖‖q‖.
/// * `constant`: computed in f64 and rounded once, U·|constant|.
/// * the dot product: s·γ‖q‖‖u‖ = γ‖q‖‖r̂‖, twice that in L2. There ‖r̂‖ is not stored, but ‖r̂‖ ≤ ‖q−c‖ + ‖x̂−q‖.
///   The computed distance d̂ stands for ‖x̂−q‖: with k = 2γ‖q‖ and t = γA + U|constant| + k(B + d̂), the whole error E of d̂²
///   obeys E ≤ t + k√E, thus E ≤ 1.5t + 1.5k²; 1.6 covers the rounding of B and ‖q‖.
/// * centring and rotation: the rotated vectors are off by η‖q‖ and η‖x‖ ≤ η(‖q‖ + d̂): so is the distance.
///   InnerProduct: 2η‖x‖‖q‖.
/// * the distance that the bound is compared with may be computed in f32 itself: factor 1 − 2γ, InnerProduct γ‖x‖‖q‖.
///
/// For InnerProduct everything that is multiplied by ‖q‖ is in the stored `error`: (2γ + 2η)·(‖c‖ + ‖r̂‖) + ‖e‖.
pub fn code_lower_bound(space: Space, term: ListTerm, f: &CodeFactors, dot: f32, q_norm: f32, padded: usize) -> f32 {
    let (a, constant, s, dot) = (f64::from(term.a), f64::from(f.constant), f64::from(f.scale), f64::from(dot));
    let (error, q_norm) = (f64::from(f.error), f64::from(q_norm));
    let gamma = gamma(padded);
    match space {
        Space::L2 => {
            let squared = (a + constant - 2.0 * s * dot).max(0.0);
            let distance = squared.sqrt();
            let k = 2.0 * gamma * q_norm;
            let allowance = 1.6 * (gamma * a + U * constant.abs() + k * (f64::from(term.b) + distance) + k * k);
            let least = (squared - allowance).max(0.0).sqrt() - error - eta(padded) * (2.0 * q_norm + distance);
            // A NaN (infinite input) gives 0 here.
            round_down(least.max(0.0).powi(2) * (1.0 - 2.0 * gamma)).min(f32::MAX)
        }
        Space::InnerProduct => {
            let least = a - s * dot - q_norm * (1.0 + gamma) * error;
            if least.is_nan() { f32::MIN } else { round_down(least).clamp(f32::MIN, f32::MAX) }
        }
    }
}

/// Deviations within which [`code_spread`] takes the error's share in a direction to be: one row in 2·10⁷ is outside. Two
/// rows change places only if their errors take them past each other, that is √2 times as many deviations of the
/// difference: one pair in 10¹⁴ (10¹² by the bound for sub-Gaussian sums, 2·exp(−z²)).
pub(super) const SPREAD_Z: f64 = 5.5;

/// Most that ‖e‖/‖r‖ is for an 8-bit code: coordinates within SPREAD_Z deviations, 127 steps, a uniform error of one step
/// (√12) and a little for clipping.
const RELATIVE_ERROR: f64 = 0.014;

/// How far the true distance (L2 squared; or −⟨x,q⟩) can be from [`code_distance`], all but certainly: a statistical
/// bound, for a search's own decisions. What an error would follow from needs [`code_lower_bound`].
///
/// ‖x−q‖² = ‖x̂−q‖² − 2⟨e,q−c⟩ + ‖e‖², as the step is fitted so that e is orthogonal to u. Split q−c into the part along r
/// and the rest w. Given the rotated r, and with it e, the direction of the rotated w is uniformly distributed among those
/// orthogonal to r, if the rotation was drawn independently of the data. So ⟨e,w⟩ has a deviation of at most
/// ‖e‖‖w‖/√(D−1), with tails below those of a normal variable, and ‖w‖ ≤ min(‖q−x‖, ‖q−c‖). The part along r gives
/// −2‖e‖²⟨q−c,r⟩/‖r‖², which with the term ‖e‖² is at most ‖e‖² + 2‖e‖‖q−x‖·(‖e‖/‖r‖). Compared with the triangle
/// inequality this is √D/z times less: 4.7 times at 784 dimensions, 1.8 times at 100, nothing at 30.
///
/// `term` is the plain one, `floor` its certain lower bound; `centroid` = ‖c‖ (InnerProduct).
#[allow(clippy::too_many_arguments)]
pub fn code_spread(
    space: Space,
    term: ListTerm,
    floor: f32,
    centroid: f32,
    f: &CodeFactors,
    dot: f32,
    q_norm: f32,
    padded: usize,
) -> f32 {
    let (a, constant, s, dot) = (f64::from(term.a), f64::from(f.constant), f64::from(f.scale), f64::from(dot));
    let (error, q_norm) = (f64::from(f.error), f64::from(q_norm));
    let (gamma, eta) = (gamma(padded), eta(padded));
    let share = (SPREAD_Z / (padded as f64 - 1.0).sqrt() + RELATIVE_ERROR).min(1.0);
    let spread = match space {
        Space::L2 => {
            let squared = (a + constant - 2.0 * s * dot).max(0.0);
            let distance = squared.sqrt();
            let k = 2.0 * gamma * q_norm;
            let allowance = 1.6 * (gamma * a + U * constant.abs() + k * (f64::from(term.b) + distance) + k * k);
            let turned = eta * (2.0 * q_norm + distance);
            let reach = distance + error;
            (a - f64::from(floor)).max(0.0)
                + allowance
                + (2.0 * distance + turned) * turned
                + 2.0 * gamma * squared
                + error * (error + 2.0 * share * if share < 1.0 { reach.min(f64::from(term.b)) } else { reach })
        }
        Space::InnerProduct => {
            // What of the stored error is an allowance for rounding does not shrink. ‖r̂‖ = s‖u‖.
            let lengths = f64::from(centroid) + s * 127.0 * (padded as f64).sqrt() + error;
            let allowance = (2.0 * gamma + 2.0 * eta) * lengths;
            (a - f64::from(floor)).max(0.0) + q_norm * (1.0 + gamma) * (share * error + allowance)
        }
    };
    if spread.is_nan() { f32::INFINITY } else { round_up(spread) }
}

/// [`CodeFactors::error`] of an entry that has been replaced by what its code stands for (a list's centroid, moved by
/// [`decode_code`]), so that only rounding is left of ‖e‖: two roundings a coordinate, U(‖s·u‖ + ‖x‖); for InnerProduct also
/// what the bound's rounding takes, as for every entry.
pub fn exact_code_error(space: Space, residual: &[f32], centroid: &[f32]) -> f32 {
    let norm = |v: &[f32]| v.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    let (residual, lengths) = (norm(residual), norm(residual) + norm(centroid));
    let rounding = 1.01 * U * (residual + lengths);
    factor::up(round_up(match space {
        Space::L2 => rounding,
        Space::InnerProduct => rounding + (2.0 * gamma(centroid.len()) + 2.0 * eta(centroid.len())) * lengths,
    }))
}

/// The levels of a 4-bit code, by its bits: the best 16 levels for a normal variable (0.1284, 0.3881, 0.6568, 0.9424, 1.256,
/// 1.618, 2.069, 2.733 deviations), in units of 2.733/127.
pub(super) const LEVELS: [i8; 16] = [6, 18, 31, 44, 58, 75, 96, 127, -6, -18, -31, -44, -58, -75, -96, -127];

/// Where the next level begins, in deviations.
const BOUNDARIES: [f32; 7] = [0.2582, 0.5224, 0.7996, 1.099, 1.437, 1.844, 2.401];

/// Steps tried, relative to max|r|/127. Below 1 the largest coordinates are clipped (or rounded down: 127/127.49) and all
/// others gain.
const STEPS: [f32; 5] = [1.0, 0.998, 0.9962, 0.99, 0.975];

/// Residuals whose largest coordinate is below this are stored as zeros (their norm is in the error).
const SMALLEST: f32 = 1e-30;

/// The 8-bit encoder's body, compiled once per instruction set.
#[inline(always)]
pub(super) fn encode8(space: Space, residual: &[f32], centroid: &[f32], code: &mut [u8]) -> CodeFactors {
    let mut maxima = [0f32; 8];
    for r in residual.as_chunks::<8>().0 {
        for j in 0..8 {
            maxima[j] = if r[j].abs() > maxima[j] { r[j].abs() } else { maxima[j] };
        }
    }
    let max = maxima.iter().fold(0f32, |a, b| a.max(*b));
    if max < SMALLEST {
        return nothing(space, residual, centroid, code);
    }

    // Any step whose grid points minimise ‖r − s·u‖ after s is fitted to u: ‖r‖² − ⟨r,u⟩²/‖u‖².
    let (mut best, mut best_fit) = (max / 127.0, -1.0);
    for t in STEPS {
        let step = max / 127.0 * t;
        let (mut ru, mut uu) = ([0f32; 8], [0f32; 8]);
        let inverse = step.recip();
        for r in residual.as_chunks::<8>().0 {
            // In steps, so that neither sum can overflow; good enough to choose. One loop an operation, or the compiler
            // does not vectorise them.
            let y = r.map(|r| r * inverse);
            let u = y.map(grid);
            for j in 0..8 {
                ru[j] += y[j] * u[j];
            }
            for j in 0..8 {
                uu[j] += u[j] * u[j];
            }
        }
        let (ru, uu): (f64, f64) = (ru.iter().map(|x| f64::from(*x)).sum(), uu.iter().map(|x| f64::from(*x)).sum());
        // ⟨r,u⟩²/‖u‖² in squared units of the residual.
        let fit = (ru * f64::from(step)).powi(2) / uu;
        if fit > best_fit {
            (best, best_fit) = (step, fit);
        }
    }
    let inverse = best.recip();
    for (r, code) in residual.as_chunks::<8>().0.iter().zip(code.as_chunks_mut::<8>().0) {
        for j in 0..8 {
            code[j] = grid_bits(r[j] * inverse);
        }
    }
    let levels = |code: &[u8; 8]| code.map(|u| f32::from(u as i8));
    fit(space, residual, centroid, code.as_chunks::<8>().0.iter().map(levels))
}

/// The 4-bit encoder's body, compiled once per instruction set.
#[inline(always)]
pub(super) fn encode4(space: Space, residual: &[f32], centroid: &[f32], code: &mut [u8]) -> CodeFactors {
    let deviation = (dot64(residual, residual) / residual.len() as f64).sqrt();
    if deviation < f64::from(SMALLEST) {
        return nothing(space, residual, centroid, code);
    }
    let inverse = (1.0 / deviation) as f32;
    for (r, code) in residual.as_chunks::<8>().0.iter().zip(code.as_chunks_mut::<4>().0) {
        let y = r.map(|r| r * inverse);
        let mut number = y.map(|y| y.to_bits() >> 31 << 3);
        for boundary in BOUNDARIES {
            for j in 0..8 {
                number[j] += u32::from(y[j].abs() > boundary);
            }
        }
        for (j, code) in code.iter_mut().enumerate() {
            *code = (number[2 * j] | number[2 * j + 1] << 4) as u8;
        }
    }
    fit(space, residual, centroid, code.as_chunks::<4>().0.iter().map(levels4))
}

/// The levels of eight 4-bit codes.
#[inline(always)]
fn levels4(code: &[u8; 4]) -> [f32; 8] {
    let mut levels = [0.0; 8];
    for (j, byte) in code.iter().enumerate() {
        levels[2 * j] = f32::from(LEVELS[usize::from(byte & 15)]);
        levels[2 * j + 1] = f32::from(LEVELS[usize::from(byte >> 4)]);
    }
    levels
}

/// The factors of a residual that is too small for a code.
#[inline(always)]
fn nothing(space: Space, residual: &[f32], centroid: &[f32], code: &mut [u8]) -> CodeFactors {
    code.fill(0);
    let norm2 = dot64(residual, residual);
    finish(space, norm2, norm2, 0.0, 0.0, dot64(centroid, centroid), 0.0, residual.len())
}

/// The factors of a code, `levels` being its u: s is fitted to it.
#[inline(always)]
fn fit(
    space: Space,
    residual: &[f32],
    centroid: &[f32],
    levels: impl Iterator<Item = [f32; 8]> + Clone,
) -> CodeFactors {
    let (mut ru, mut uu, mut uc) = ([0f64; 8], [0f64; 8], [0f64; 8]);
    let chunks = residual.as_chunks::<8>().0.iter().zip(centroid.as_chunks::<8>().0);
    for ((r, c), u) in chunks.zip(levels.clone()) {
        for j in 0..8 {
            let u = f64::from(u[j]);
            ru[j] += f64::from(r[j]) * u;
            uu[j] += u * u;
            uc[j] += u * f64::from(c[j]);
        }
    }
    let (ru, uu, uc): (f64, f64, f64) = (ru.iter().sum(), uu.iter().sum(), uc.iter().sum());
    let scale = (ru / uu) as f32;
    let mut errors = [0f64; 8];
    for (r, u) in residual.as_chunks::<8>().0.iter().zip(levels) {
        for j in 0..8 {
            let e = f64::from(r[j]) - f64::from(scale) * f64::from(u[j]);
            errors[j] += e * e;
        }
    }
    let centroid2 = if space == Space::InnerProduct { dot64(centroid, centroid) } else { 0.0 };
    let norm2 = dot64(residual, residual);
    finish(space, errors.iter().sum(), norm2, f64::from(scale), uc, centroid2, uu, residual.len())
}

/// The factors from the sums over all coordinates.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn finish(
    space: Space,
    error2: f64,
    norm2: f64,
    s: f64,
    uc: f64,
    centroid2: f64,
    uu: f64,
    padded: usize,
) -> CodeFactors {
    // The f64 sums' own rounding, and that of the subtraction x − c, U‖r‖.
    let error = error2.sqrt() * (1.0 + 1e-9) + norm2.sqrt() * U;
    match space {
        Space::L2 => CodeFactors {
            constant: (s * s * uu + 2.0 * s * uc) as f32,
            scale: s as f32,
            error: factor::up(round_up(error)),
        },
        Space::InnerProduct => {
            let lengths = centroid2.sqrt() + s * uu.sqrt() + error;
            let allowance = (2.0 * gamma(padded) + 2.0 * eta(padded)) * lengths;
            CodeFactors { constant: 0.0, scale: s as f32, error: factor::up(round_up(error + allowance)) }
        }
    }
}

/// Adding 1.5·2²³ rounds to the nearest integer with instructions that every CPU has, and leaves that integer in the low
/// bits.
const MAGIC: f32 = 12_582_912.0;

/// The grid point of a coordinate in units of the step: the nearest integer in −127..=127.
#[inline(always)]
fn grid(y: f32) -> f32 {
    (y.clamp(-127.0, 127.0) + MAGIC) - MAGIC
}

/// [`grid`] as it is stored.
#[inline(always)]
fn grid_bits(y: f32) -> u8 {
    (grid(y) + MAGIC).to_bits() as u8
}

/// ⟨a,b⟩ in f64.
#[inline(always)]
fn dot64(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0f64; 8];
    for (a, b) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        for j in 0..8 {
            sums[j] += f64::from(a[j]) * f64::from(b[j]);
        }
    }
    sums.iter().sum()
}

/// c += s·u, compiled once per instruction set.
#[inline(always)]
pub(super) fn decode8(code: &[u8], scale: f32, centroid: &mut [f32]) {
    for (c, u) in centroid.iter_mut().zip(code) {
        *c += scale * f32::from(*u as i8);
    }
}

/// [`decode8`] for 4 bits.
#[inline(always)]
pub(super) fn decode4(code: &[u8], scale: f32, centroid: &mut [f32]) {
    for (pair, byte) in centroid.as_chunks_mut::<2>().0.iter_mut().zip(code) {
        pair[0] += scale * f32::from(LEVELS[usize::from(byte & 15)]);
        pair[1] += scale * f32::from(LEVELS[usize::from(byte >> 4)]);
    }
}
