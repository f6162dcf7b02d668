//! From a row in the index's coordinates to an entry of a list.

use super::page::Tid;
use super::write::Entry;
use ann::filter::RowKeys;
use ann::quantize::{self, CodeFactors, SketchFactors, Space};

/// Buffers for encoding one entry.
pub struct Encoder {
    space: Space,
    residual: Vec<f32>,
    pub nibbles: Vec<u8>,
    pub codes: Vec<i8>,
    pub sketch: SketchFactors,
    pub code: CodeFactors,
    /// Of an entry of a list of rows; set by the caller.
    pub row: RowKeys,
}

impl Encoder {
    /// For vectors of `padded` dimensions, with `filters` filter columns.
    pub fn new(space: Space, padded: usize, filters: usize) -> Encoder {
        Encoder {
            space,
            residual: vec![0.0; padded],
            nibbles: vec![0; padded / 2],
            codes: vec![0; padded],
            sketch: SketchFactors { constant: 0.0, scale: 0.0, error: 0.0 },
            code: CodeFactors { constant: 0.0, scale: 0.0, error: 0.0 },
            row: RowKeys::new(filters),
        }
    }

    /// Takes the bounds of the entry that was encoded last away: a scan looks at the row itself.
    pub fn unbind(&mut self) {
        self.sketch = SketchFactors { constant: f32::NAN, scale: 0.0, error: 0.0 };
        // The inner product has no constant: there the error makes the bound the lowest.
        self.code = CodeFactors { constant: f32::NAN, scale: 0.0, error: f32::MAX };
    }

    /// Encodes `x` as an entry of the list with `centroid`; returns the squared norm of its residual.
    pub fn encode(&mut self, x: &[f32], centroid: &[f32]) -> f32 {
        for ((r, &x), &c) in self.residual.iter_mut().zip(x).zip(centroid) {
            *r = x - c;
        }
        self.sketch = quantize::encode_sketch(self.space, &self.residual, centroid, &mut self.nibbles);
        self.code = quantize::encode_code(self.space, &self.residual, centroid, &mut self.codes);
        // Values near the end of f32's range.
        let finite = |v: [f32; 3]| v.iter().all(|f| f.is_finite());
        let (sketch, code) = (self.sketch, self.code);
        if !finite([sketch.constant, sketch.scale, sketch.error]) || !finite([code.constant, code.scale, code.error]) {
            self.unbind();
        }
        ann::distance::norm_squared(&self.residual)
    }

    /// Encodes the centroid of a list as an entry of the list above, whose centroid is `origin`, and replaces it by what
    /// its code stands for: then a search knows its distance exactly from the code.
    pub fn encode_centroid(&mut self, centroid: &mut [f32], origin: &[f32]) {
        self.encode(centroid, origin);
        if self.code.error == f32::MAX {
            // Beyond f32's range: the origin takes its place.
            self.code = CodeFactors::default();
        }
        centroid.copy_from_slice(origin);
        quantize::decode_code(&self.codes, self.code.scale, centroid);
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
        quantize::decode_code(&self.codes, self.code.scale, centroid);
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

/// Bytes of an entry on its way through the external sort.
pub fn record_bytes(padded: usize, filters: usize) -> usize {
    6 + 24 + 4 + 8 * filters + padded / 4 + padded
}

/// Writes the entry that `encoder` made last as a record.
pub fn write_record(encoder: &Encoder, tid: Tid, record: &mut [u8]) {
    let (head, rest) = record.split_at_mut(30);
    head[..6].copy_from_slice(&tid.0);
    let (s, c) = (&encoder.sketch, &encoder.code);
    for (bytes, f) in head[6..].chunks_exact_mut(4).zip([s.constant, s.scale, s.error, c.constant, c.scale, c.error]) {
        bytes.copy_from_slice(&f.to_le_bytes());
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
    for (byte, &code) in codes.iter_mut().zip(&encoder.codes) {
        *byte = code as u8;
    }
}

/// Reads a record back into an encoder's buffers; returns the TID.
pub fn read_record(encoder: &mut Encoder, record: &[u8]) -> Tid {
    let (head, rest) = record.split_at(30);
    let mut f = head[6..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    let mut three = || (f.next().unwrap(), f.next().unwrap(), f.next().unwrap());
    let (constant, scale, error) = three();
    encoder.sketch = SketchFactors { constant, scale, error };
    let (constant, scale, error) = three();
    encoder.code = CodeFactors { constant, scale, error };
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
    for (code, &byte) in encoder.codes.iter_mut().zip(codes) {
        *code = byte as i8;
    }
    Tid(head[..6].try_into().unwrap())
}
