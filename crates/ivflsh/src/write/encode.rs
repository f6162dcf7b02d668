//! From a row in the index's coordinates to an entry of a list.

use super::list::Entry;
use crate::frame::{Frame, Placed};
use crate::page::{Layout, Tid};
use ann::filter::RowKeys;
use ann::quantize::{self, Bits, CodeFactors, SketchFactors, Space, factor};

/// What the factors of an entry's sketch tell of its row, see [`Encoder::mark`].
pub fn placed(sketch: &SketchFactors) -> Placed {
    match sketch.constant {
        constant if constant.is_nan() => Placed::Unbounded,
        f32::INFINITY => Placed::Far,
        _ => Placed::Usual,
    }
}

/// Filter columns of an entry of a list with `layout`.
fn keys(layout: &Layout) -> usize {
    if layout.inner { 0 } else { layout.filters }
}

/// Whether an entry without a code was encoded from another sketch, not from its row: such a sketch may be that of no row.
pub fn is_second_hand(sketch: &SketchFactors) -> bool {
    factor::is_marked(sketch.error)
}

/// Buffers for encoding one entry.
pub struct Encoder {
    space: Space,
    bits: Option<Bits>,
    /// Of rows that are bit strings.
    own_bits: Option<Frame>,
    residual: Vec<f32>,
    pub nibbles: Vec<u8>,
    pub codes: Vec<u8>,
    pub sketch: SketchFactors,
    pub code: CodeFactors,
    /// Of an entry of a list of rows; set by the caller.
    pub row: RowKeys,
}

impl Encoder {
    /// For the rows of an index.
    pub fn of_rows(frame: &Frame, layout: &Layout) -> Encoder {
        let own_bits = layout.own_bits.then(|| frame.clone());
        Encoder { own_bits, ..Encoder::new(frame.operator.space(), layout) }
    }

    /// For entries of lists with `layout` that are centroids, or have been encoded.
    pub fn new(space: Space, layout: &Layout) -> Encoder {
        let Layout { padded, bits, .. } = *layout;
        Encoder {
            space,
            bits,
            own_bits: None,
            residual: vec![0.0; padded],
            nibbles: vec![0; layout.groups],
            codes: vec![0; layout.code_bytes()],
            sketch: SketchFactors { constant: 0.0, scale: 0.0, error: 0.0 },
            code: CodeFactors { constant: 0.0, scale: 0.0, error: 0.0 },
            row: RowKeys::new(keys(layout)),
        }
    }

    /// Makes the bounds of the entry that was encoded last those of a row that is placed so.
    pub fn mark(&mut self, placed: Placed) {
        match placed {
            Placed::Usual | Placed::Nowhere => {}
            Placed::Unbounded => self.unbind(),
            Placed::Far => {
                self.unbind();
                self.sketch.constant = f32::INFINITY;
            }
        }
    }

    /// Takes the bounds of the entry that was encoded last away: a scan looks at the row itself.
    fn unbind(&mut self) {
        self.sketch = SketchFactors { constant: f32::NAN, scale: 0.0, error: 0.0 };
        // The inner product has no constant: there the error makes the bound the lowest.
        self.code = CodeFactors { constant: f32::NAN, scale: 0.0, error: f32::INFINITY };
    }

    /// Says of the entry that was encoded last that its row can be up to `error` from what was encoded.
    pub fn widen(&mut self, error: f32) {
        self.code.error = factor::up(self.code.error + error);
        // Whichever way the error points, it deviates as the sketch's own.
        let unit = if self.space == Space::L2 { 2.0 } else { 1.0 } / (self.residual.len() as f32 - 1.0).sqrt();
        let error = self.sketch.error.hypot(unit * error);
        self.sketch.error = if self.bits.is_none() { factor::up_marked(error, true) } else { factor::up(error) };
        if !(self.sketch.error.is_finite() && self.code.error.is_finite()) {
            self.unbind();
        }
    }

    /// Encodes `x` as an entry of the list with `centroid`; returns the squared norm of its residual.
    pub fn encode(&mut self, x: &[f32], centroid: &[f32]) -> f32 {
        if let Some(frame) = &self.own_bits {
            self.residual.copy_from_slice(x);
            self.sketch = frame.bits_of(&mut self.residual, &mut self.nibbles);
            return ann::distance::l2_squared(x, centroid);
        }
        for ((r, &x), &c) in self.residual.iter_mut().zip(x).zip(centroid) {
            *r = x - c;
        }
        self.sketch = quantize::encode_sketch(self.space, &self.residual, centroid, &mut self.nibbles);
        if self.bits.is_none() {
            self.sketch.error = factor::up_marked(self.sketch.error, false);
        }
        self.code = match self.bits {
            Some(bits) => quantize::encode_code(bits, self.space, &self.residual, centroid, &mut self.codes),
            None => CodeFactors::default(),
        };
        // Values near the end of f32's range.
        let finite = |v: [f32; 3]| v.iter().all(|f| f.is_finite());
        let (sketch, code) = (self.sketch, self.code);
        if !finite([sketch.constant, sketch.scale, sketch.error]) || !finite([code.constant, code.scale, code.error]) {
            self.unbind();
        }
        ann::distance::norm_squared(&self.residual)
    }

    /// Encodes the centroid of a list as an entry of the list above, whose centroid is `origin`, and replaces it by what
    /// its 8-bit code stands for: then a search knows its distance exactly from the code.
    pub fn encode_centroid(&mut self, centroid: &mut [f32], origin: &[f32]) {
        self.encode(centroid, origin);
        if !self.code.constant.is_finite() {
            // Beyond f32's range: the origin takes its place.
            self.code = CodeFactors::default();
        }
        centroid.copy_from_slice(origin);
        quantize::decode_code(Bits::Eight, &self.codes, self.code.scale, centroid);
        for ((r, &c), &o) in self.residual.iter_mut().zip(&*centroid).zip(origin) {
            *r = c - o;
        }
        self.sketch = quantize::encode_sketch(self.space, &self.residual, origin, &mut self.nibbles);
        self.code.error = quantize::exact_code_error(self.space, &self.residual, origin);
    }

    /// Completes an entry of which only the code was read, a centroid's that [`Encoder::encode_centroid`] made: adds the
    /// sketch, and puts what it stands for into `centroid`.
    pub fn decode_centroid(&mut self, centroid: &mut [f32]) {
        centroid.fill(0.0);
        quantize::decode_code(Bits::Eight, &self.codes, self.code.scale, centroid);
        let origin = vec![0.0; centroid.len()];
        self.sketch = quantize::encode_sketch(self.space, centroid, &origin, &mut self.nibbles);
    }

    /// The entry that was encoded last.
    pub fn entry(&self, tid: Tid) -> Entry<'_> {
        Entry {
            tid,
            sketch: self.sketch,
            code: self.code,
            nibbles: &self.nibbles,
            codes: &self.codes,
            row: &self.row,
            child: None,
        }
    }
}

/// Bytes of the TID and the factors before the sketch of a record.
const HEAD: usize = 6 + 8 + 10;

/// Bytes of an entry on its way through the external sort.
pub fn record_bytes(layout: &Layout) -> usize {
    HEAD + 4 + 8 * keys(layout) + layout.groups / 2 + layout.code_bytes()
}

/// Writes the entry that `encoder` made last as a record.
pub fn write_record(encoder: &Encoder, tid: Tid, record: &mut [u8]) {
    let (head, rest) = record.split_at_mut(HEAD);
    head[..6].copy_from_slice(&tid.0);
    let (s, c) = (&encoder.sketch, &encoder.code);
    for (at, float) in [(6, s.constant), (14, c.constant), (18, c.scale)] {
        head[at..at + 4].copy_from_slice(&float.to_le_bytes());
    }
    for (at, packed) in [(10, s.scale), (12, s.error), (22, c.error)] {
        head[at..at + 2].copy_from_slice(&factor::pack(packed).to_le_bytes());
    }
    let (row, rest) = rest.split_at_mut(4 + 8 * encoder.row.keys.len());
    let (nulls, keys) = row.split_at_mut(4);
    nulls.copy_from_slice(&encoder.row.nulls.to_le_bytes());
    for (bytes, key) in keys.as_chunks_mut().0.iter_mut().zip(&encoder.row.keys) {
        *bytes = key.to_le_bytes();
    }
    let (nibbles, codes) = rest.split_at_mut(encoder.nibbles.len() / 2);
    for (byte, pair) in nibbles.iter_mut().zip(encoder.nibbles.chunks_exact(2)) {
        *byte = pair[0] | pair[1] << 4;
    }
    codes.copy_from_slice(&encoder.codes);
}

/// Reads a record back into an encoder's buffers; returns the TID.
pub fn read_record(encoder: &mut Encoder, record: &[u8]) -> Tid {
    let (head, rest) = record.split_at(HEAD);
    let packed = |at: usize| factor::unpack(u16::from_le_bytes(head[at..at + 2].try_into().unwrap()));
    let float = |at: usize| f32::from_le_bytes(head[at..at + 4].try_into().unwrap());
    encoder.sketch = SketchFactors { constant: float(6), scale: packed(10), error: packed(12) };
    encoder.code = CodeFactors { constant: float(14), scale: float(18), error: packed(22) };
    let (row, rest) = rest.split_at(4 + 8 * encoder.row.keys.len());
    let (nulls, keys) = row.split_at(4);
    encoder.row.nulls = u32::from_le_bytes(nulls.try_into().unwrap());
    for (key, bytes) in encoder.row.keys.iter_mut().zip(keys.as_chunks().0) {
        *key = u64::from_le_bytes(*bytes);
    }
    let (nibbles, codes) = rest.split_at(encoder.nibbles.len() / 2);
    for (pair, &byte) in encoder.nibbles.chunks_exact_mut(2).zip(nibbles) {
        pair[0] = byte & 15;
        pair[1] = byte >> 4;
    }
    encoder.codes.copy_from_slice(codes);
    Tid(head[..6].try_into().unwrap())
}
