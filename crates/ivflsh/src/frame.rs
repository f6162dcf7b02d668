//! What an operator class means to the index, and how rows and queries enter its coordinate system.

use ann::quantize::{self, Rotation, SketchFactors, Space};
use std::cell::RefCell;
use std::sync::Arc;

/// Element type of the indexed column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Element {
    Vector,
    Halfvec,
    Sparsevec,
    /// `bit`: to the tree, a vector of 0 and 1.
    Bit,
}

impl Element {
    /// What values of it must have in common, in the operators' words.
    pub fn lengths(self) -> &'static str {
        match self {
            Element::Vector | Element::Halfvec => "vector dimensions",
            Element::Sparsevec => "sparsevec dimensions",
            Element::Bit => "bit lengths",
        }
    }
}

/// Distance of the operator class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Metric {
    L2,
    Cosine,
    InnerProduct,
    /// Of bits: how many differ.
    Hamming,
    /// Of bits: the share of those set in either that are not set in both.
    Jaccard,
}

/// Meaning of an operator class: its support function 1 returns [`Operator::code`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operator {
    pub element: Element,
    pub metric: Metric,
}

impl Operator {
    /// The number that the support function returns and the meta page keeps.
    pub const fn code(self) -> u32 {
        let element = match self.element {
            Element::Vector => 0,
            Element::Halfvec => 1,
            Element::Sparsevec => 2,
            Element::Bit => 3,
        };
        let metric = match self.metric {
            Metric::L2 => 1,
            Metric::Cosine => 2,
            Metric::InnerProduct => 3,
            Metric::Hamming => 4,
            Metric::Jaccard => 5,
        };
        element << 8 | metric
    }

    /// Inverse of [`Operator::code`].
    pub fn from_code(code: u32) -> Option<Operator> {
        let element = match code >> 8 {
            0 => Element::Vector,
            1 => Element::Halfvec,
            2 => Element::Sparsevec,
            3 => Element::Bit,
            _ => return None,
        };
        let metric = match code & 0xff {
            1 => Metric::L2,
            2 => Metric::Cosine,
            3 => Metric::InnerProduct,
            4 => Metric::Hamming,
            5 => Metric::Jaccard,
            _ => return None,
        };
        let is_of_bits = matches!(metric, Metric::Hamming | Metric::Jaccard);
        if is_of_bits != (element == Element::Bit) {
            return None;
        }
        Some(Operator { element, metric })
    }

    /// The arithmetic that the metric is mapped to: cosine is L2 between normalised vectors. The squared L2 distance of bits is
    /// Hamming's; Jaccard's order is about that of the angles.
    #[inline]
    pub fn space(self) -> Space {
        match self.metric {
            Metric::L2 | Metric::Cosine | Metric::Hamming | Metric::Jaccard => Space::L2,
            Metric::InnerProduct => Space::InnerProduct,
        }
    }

    /// How far the SQL operator, which sums in f32, can come out below the true distance where values are so small that
    /// their squares have few or no bits (or so large that these overflow): absolute, in the index's own unit. `query` is as the user gave it.
    pub fn underflow(self, query: &[f32]) -> f64 {
        /// The smallest f32 above 0: what each product, sum and stored factor may be off by.
        const TINY: f64 = 1.401_298_464_324_817e-45;
        let off = (8 * query.len() + 64) as f64 * TINY;
        match self.metric {
            Metric::Hamming | Metric::Jaccard => 0.0,
            Metric::L2 => off,
            Metric::InnerProduct if norm(query) >= USUAL_NORMS.end => f64::INFINITY,
            // So are the coordinates of a rotated row.
            Metric::InnerProduct => off * (1.0 + norm(query)),
            Metric::Cosine => {
                let norm = norm(query);
                if !USUAL_NORMS.contains(&norm) {
                    return 2.0; // any distance is possible
                }
                off / (norm * USUAL_NORMS.start) + off / (norm * norm) + off / (USUAL_NORMS.start * USUAL_NORMS.start)
            }
        }
    }

    /// The distance that the SQL operator returns, rounded down, from a lower bound in the index's own unit
    /// (squared distance, or negative inner product) and the query's [`Operator::underflow`].
    #[inline]
    pub fn order_value(self, bound: f32, underflow: f64) -> f64 {
        let bound = f64::from(bound);
        match self.metric {
            // The operators sum in f32 and may come out a little below the true distance.
            Metric::L2 => (bound - underflow).max(0.0).sqrt() * (1.0 - 1e-6),
            Metric::Cosine => ((bound.max(0.0) / 2.0) * (1.0 - 1e-6) - 1e-6 - underflow).max(-1.0),
            Metric::Hamming => bound.max(0.0),
            Metric::Jaccard => jaccard_of(bound.max(0.0)) * (1.0 - 1e-6),
            // The operator's sum may have overflowed.
            Metric::InnerProduct if bound < -1e37 => f64::NEG_INFINITY,
            Metric::InnerProduct => bound - bound.abs() * 1e-6 - underflow,
        }
    }

    /// The index's own unit (squared distance, or negative inner product) of a distance that the SQL operator returns.
    #[inline]
    pub fn in_index_unit(self, distance: f64) -> f32 {
        let value = match self.metric {
            Metric::L2 => distance * distance.abs(),
            Metric::Cosine => distance * 2.0,
            Metric::InnerProduct | Metric::Hamming => distance,
            // The reverse of `jaccard_of`.
            Metric::Jaccard => 2.0 * distance / (2.0 - distance).max(1e-9),
        };
        value as f32
    }

    /// As [`Operator::order_value`], rounded up: from an upper bound.
    #[inline]
    pub fn order_ceiling(self, bound: f32, underflow: f64) -> f64 {
        let bound = f64::from(bound);
        match self.metric {
            // The operator's sum of squares may overflow.
            Metric::L2 if bound > 1e37 => f64::INFINITY,
            Metric::L2 => (bound.max(0.0) + underflow).sqrt() * (1.0 + 1e-6),
            Metric::Cosine => (bound.max(0.0) / 2.0) * (1.0 + 1e-6) + 1e-6 + underflow,
            Metric::Hamming => bound.max(0.0),
            Metric::Jaccard => jaccard_of(bound.max(0.0)) * (1.0 + 1e-6),
            Metric::InnerProduct if bound > 1e37 => f64::INFINITY,
            Metric::InnerProduct => bound + bound.abs() * 1e-6 + underflow,
        }
    }

    /// The distance of two vectors in the index's own unit: what [`Operator::order_value`] takes and turns into no more than
    /// [`Operator::distance`] of the same vectors.
    pub fn index_distance(self, x: &[f32], y: &[f32]) -> f32 {
        match self.metric {
            Metric::L2 => ann::distance::l2_squared(x, y),
            Metric::Cosine => (2.0 * ann::distance::cosine_distance(x, y)) as f32,
            Metric::InnerProduct => -ann::distance::inner_product(x, y),
            Metric::Hamming => ann::distance::l2_squared(x, y),
            // As `quantize::shares` has it.
            Metric::Jaccard => match ann::distance::norm_squared(x) + ann::distance::norm_squared(y) {
                0.0 => 2.0,
                set => 2.0 * ann::distance::l2_squared(x, y) / set,
            },
        }
    }

    /// What a row is multiplied by before it enters the index: under cosine 1 / its norm (0 for norm zero), else 1.
    #[inline]
    pub fn scale(self, row: &[f32]) -> f64 {
        match self.metric {
            Metric::Cosine | Metric::Jaccard => match norm(row) {
                0.0 => 0.0,
                norm => 1.0 / norm,
            },
            Metric::L2 | Metric::InnerProduct | Metric::Hamming => 1.0,
        }
    }

    /// The distance that the SQL operator returns for two vectors of the same dimension.
    pub fn distance(self, x: &[f32], y: &[f32]) -> f64 {
        match self.metric {
            Metric::L2 => f64::from(ann::distance::l2_squared(x, y)).sqrt(),
            Metric::Cosine => ann::distance::cosine_distance(x, y),
            Metric::InnerProduct => -f64::from(ann::distance::inner_product(x, y)),
            Metric::Hamming => f64::from(ann::distance::l2_squared(x, y)),
            Metric::Jaccard => {
                let both = f64::from(ann::distance::inner_product(x, y));
                let either =
                    f64::from(ann::distance::norm_squared(x)) + f64::from(ann::distance::norm_squared(y)) - both;
                if both > 0.0 { 1.0 - both / either } else { 1.0 }
            }
        }
    }

    /// Whether the index holds rows as they are, so that what it tells of them are their distances and not bounds.
    pub fn is_exact(self) -> bool {
        self.element == Element::Bit
    }

    /// Whether the index's f32 tell any two different distances of bit strings of so many dimensions apart: quotients of numbers up to
    /// twice as large are.
    pub fn is_told_apart(self, dims: u32) -> bool {
        const MOST: u32 = 2000;
        match self.metric {
            Metric::Hamming => true,
            Metric::Jaccard => dims <= MOST,
            Metric::L2 | Metric::Cosine | Metric::InnerProduct => false,
        }
    }
}

/// The Jaccard distance of sets whose share of different elements is half of `twice`, which counts those of both sets in both.
fn jaccard_of(twice: f64) -> f64 {
    2.0 * twice / (2.0 + twice)
}

/// Norms whose square f32 can hold well. Of other rows no bound is known (but under cosine: of larger ones): what the
/// SQL operator's f32 sums make of them can be far from the true distance.
const USUAL_NORMS: std::ops::Range<f64> = 1e-15..1e18;
/// From this norm on the L2 distance of a row from all queries of a usual norm is infinite: the operator's sum overflows.
const FAR_NORM: f64 = 3e19;
/// Below this norm the coordinates of a rotated vector may have lost digits to f32's least numbers.
const TINY_NORM: f64 = 1e-25;
/// Coordinates of a normalised row of 0 and 1 are larger than this where they are not 0: there are no more than 64,000 bits.
const NO_ELEMENT: f32 = 1e-3;

/// A row in the index's coordinates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placed {
    Usual,
    /// To be indexed without bounds, see [`USUAL_NORMS`]. Where its norm is larger it has no place: zeroes stand for it.
    Unbounded,
    /// Likewise, but known to be farther than all usual rows, see [`FAR_NORM`].
    Far,
    /// No direction (norm zero, under cosine): not indexed.
    Nowhere,
}

/// The coordinate system of an index: rows are normalised (cosine), centred by the mean, padded and rotated.
#[derive(Clone)]
pub struct Frame {
    pub operator: Operator,
    pub dims: usize,
    rotation: Arc<Rotation>,
    mean: Vec<f32>,
}

impl Frame {
    /// `mean` is empty for zero, else `dims` long.
    pub fn new(operator: Operator, dims: usize, seed: u64, mean: Vec<f32>) -> Frame {
        Frame { operator, dims, rotation: rotation(dims, seed), mean }
    }

    /// Padded dimensions.
    pub fn padded(&self) -> usize {
        self.rotation.padded()
    }

    /// Moves a row (padded long, zeroes behind `dims`) into the index's coordinates.
    pub fn place(&self, x: &mut [f32]) -> Placed {
        let placed = match self.operator.metric {
            Metric::Cosine => match normalize(&mut x[..self.dims]) {
                0.0 => Placed::Nowhere,
                norm if USUAL_NORMS.contains(&norm) => Placed::Usual,
                _ => Placed::Unbounded,
            },
            // Sets without elements are rows as others: as far from everything as can be.
            Metric::Jaccard => {
                normalize(&mut x[..self.dims]);
                Placed::Usual
            }
            // Sums may overflow, the operator's and our own: nothing that is computed from such a row is a number for certain.
            metric => match norm(x) {
                norm if norm < USUAL_NORMS.end => Placed::Usual,
                norm => {
                    x.fill(0.0);
                    return if metric == Metric::L2 && norm >= FAR_NORM { Placed::Far } else { Placed::Unbounded };
                }
            },
        };
        for (x, m) in x.iter_mut().zip(&self.mean) {
            *x -= m;
        }
        self.rotation.apply(x);
        placed
    }

    /// Norm of the mean.
    pub fn mean_norm(&self) -> f32 {
        norm(&self.mean) as f32
    }

    /// The mean in the index's coordinates, padded long.
    pub fn rotated_mean(&self) -> Vec<f32> {
        let mut mean = self.mean.clone();
        mean.resize(self.padded(), 0.0);
        self.rotation.apply(&mut mean);
        mean
    }

    /// From the index's coordinates, if these have no mean, back to those of rows: `x` (padded long) becomes dims long.
    pub fn undo_rotation(&self, x: &mut Vec<f32>) {
        self.rotation.undo(x);
        x.truncate(self.dims);
    }

    /// The bits of a row that is `x` in the index's coordinates (padded long; overwritten): a place tells them, as its rounding is much
    /// less than what is between 0 and 1. Returns what its entry stores beside them.
    pub fn bits_of(&self, x: &mut [f32], nibbles: &mut [u8]) -> SketchFactors {
        self.rotation.undo(x);
        for (x, m) in x.iter_mut().zip(&self.mean) {
            *x += m;
        }
        x[self.dims..].fill(0.0);
        // Under Jaccard's, the norm is 1 or 0.
        let one = match self.operator.metric {
            Metric::Jaccard => x.iter().copied().fold(NO_ELEMENT, f32::max),
            _ => 1.0,
        };
        x.iter_mut().for_each(|x| *x -= one / 2.0);
        let set = quantize::pack_bits(x, nibbles);
        self.bit_factors(set)
    }

    /// What the entry of a bit string with so many bits set stores beside them.
    fn bit_factors(&self, set: usize) -> SketchFactors {
        quantize::bit_factors(if self.operator.metric == Metric::Jaccard { set as f32 } else { 0.0 })
    }

    /// Puts the row with these bits into the index's coordinates (padded long).
    pub fn place_bits(&self, nibbles: &[u8], x: &mut Vec<f32>) {
        x.clear();
        x.resize(self.padded(), 0.0);
        quantize::unpack_bits(nibbles, x);
        self.place(x);
    }

    /// Moves a query into the index's coordinates: `x` (dims long) becomes padded long.
    /// Returns what has to be added to every negative inner product: the part that centring took away. None if no bounds are
    /// known of any distance from it; then it becomes zero.
    pub fn place_query(&self, x: &mut Vec<f32>) -> Option<f32> {
        debug_assert_eq!(x.len(), self.dims);
        let mut offset = 0.0;
        let norm = norm(x);
        // A rotation of numbers that have few bits left is no rotation: by a long row's product with it, that tells.
        let is_tiny = self.operator.metric == Metric::InnerProduct && norm > 0.0 && norm < TINY_NORM;
        if self.operator.metric != Metric::Cosine && norm >= USUAL_NORMS.end || is_tiny {
            x.clear();
            x.resize(self.padded(), 0.0);
            return None;
        }
        match self.operator.metric {
            Metric::InnerProduct => {
                if !self.mean.is_empty() {
                    offset = -ann::distance::inner_product(x, &self.mean);
                }
                x.resize(self.padded(), 0.0);
                self.rotation.apply(x);
            }
            Metric::L2 | Metric::Cosine | Metric::Hamming | Metric::Jaccard => {
                x.resize(self.padded(), 0.0);
                // A query without direction is equally far from everything: any place will do.
                self.place(x);
            }
        }
        Some(offset)
    }
}

/// The norm of `x`, also where f32 cannot hold its square.
#[inline]
pub fn norm(x: &[f32]) -> f64 {
    let mut square = f64::from(ann::distance::norm_squared(x));
    if !(1e-30..1e30).contains(&square) {
        square = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    }
    square.sqrt()
}

/// Scales `x` to norm 1 and returns its norm; one of norm zero is left unchanged.
fn normalize(x: &mut [f32]) -> f64 {
    let norm = norm(x);
    if norm > 0.0 {
        let scale = 1.0 / norm;
        for v in x {
            *v = (f64::from(*v) * scale) as f32;
        }
    }
    norm
}

/// Rotations of this backend, newest last: making one costs as much as several queries' rotations.
const KEPT_ROTATIONS: usize = 8;

fn rotation(dims: usize, seed: u64) -> Arc<Rotation> {
    thread_local! {
        static KEPT: RefCell<Vec<(u64, Arc<Rotation>)>> = const { RefCell::new(Vec::new()) };
    }
    KEPT.with_borrow_mut(|kept| {
        if let Some((_, r)) = kept.iter().find(|(s, r)| *s == seed && r.dims() == dims) {
            return r.clone();
        }
        if kept.len() == KEPT_ROTATIONS {
            kept.remove(0);
        }
        let made = Arc::new(Rotation::new(dims, seed));
        kept.push((seed, made.clone()));
        made
    })
}
