//! Segments: up to 128 entries of one list, that is, rows in order and their weights, packed.
//!
//! Of the rows, the first one is in the directory and the others are differences, all of as many bits as the largest takes. Of the
//! weights, the largest is in the directory; the other distinct ones follow the differences, and a number for each entry says
//! which is its own. BM25 has few distinct weights in a list, which follow from how often a word is in a text and how long that is.

use super::page::{ENTRY, Key, ROW_BITS};
use crate::index::page::{Checksum, Damage};

/// Most entries of a segment.
pub const MOST: usize = 128;
/// Bytes that may be read behind a segment's data.
pub const BEHIND: usize = 8;

const WIDTH_AT: u32 = ROW_BITS;
const COUNT_AT: u32 = WIDTH_AT + 6;
const DISTINCT_AT: u32 = COUNT_AT + 7;

/// What the directory says of a segment.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Segment {
    pub key: Key,
    /// Its first row.
    pub first: u64,
    /// Entries.
    pub count: usize,
    /// Bits of a difference.
    width: u32,
    /// Distinct weights.
    distinct: usize,
    /// The largest weight.
    pub max: f32,
    /// Where its data are in the contents of the page.
    pub at: u16,
    sum: u16,
}

/// The first row in what a directory has of it.
pub fn row_in(packed: u64) -> u64 {
    packed & ((1 << ROW_BITS) - 1)
}

impl Segment {
    /// From the directory.
    pub fn unpack(entry: &[u8; ENTRY]) -> Segment {
        let packed = u64::from_le_bytes(entry[4..12].try_into().unwrap());
        Segment {
            key: u32::from_le_bytes(entry[..4].try_into().unwrap()),
            first: row_in(packed),
            width: (packed >> WIDTH_AT & 63) as u32,
            count: (packed >> COUNT_AT & 127) as usize + 1,
            distinct: (packed >> DISTINCT_AT & 127) as usize + 1,
            max: f32::from_le_bytes(entry[12..16].try_into().unwrap()),
            at: u16::from_le_bytes(entry[16..18].try_into().unwrap()),
            sum: u16::from_le_bytes(entry[18..20].try_into().unwrap()),
        }
    }

    /// For the directory.
    pub fn pack(&self) -> [u8; ENTRY] {
        let mut entry = [0; ENTRY];
        entry[..4].copy_from_slice(&self.key.to_le_bytes());
        entry[4..12].copy_from_slice(&self.packed().to_le_bytes());
        entry[12..16].copy_from_slice(&self.max.to_le_bytes());
        entry[16..18].copy_from_slice(&self.at.to_le_bytes());
        entry[18..20].copy_from_slice(&self.sum.to_le_bytes());
        entry
    }

    fn packed(&self) -> u64 {
        self.first
            | u64::from(self.width) << WIDTH_AT
            | (self.count as u64 - 1) << COUNT_AT
            | (self.distinct as u64 - 1) << DISTINCT_AT
    }

    fn difference_bytes(&self) -> usize {
        ((self.count - 1) * self.width as usize).div_ceil(8)
    }

    /// Bits of the number of a weight.
    fn number_bits(&self) -> u32 {
        usize::BITS - (self.distinct - 1).leading_zeros()
    }

    /// Bytes of its data.
    pub fn bytes(&self) -> usize {
        self.difference_bytes() + 4 * (self.distinct - 1) + (self.count * self.number_bits() as usize).div_ceil(8)
    }

    /// The checksum of what the directory has of it, but for the place of its data, and of the data.
    fn checksum(&self, data: &[u8]) -> u16 {
        let mut head = [0; 16];
        head[..4].copy_from_slice(&self.key.to_le_bytes());
        head[4..12].copy_from_slice(&self.packed().to_le_bytes());
        head[12..].copy_from_slice(&self.max.to_le_bytes());
        let mut sum = Checksum::of_bytes(&head);
        sum.add(data);
        sum.short()
    }

    /// Notes the checksum.
    pub fn seal(&mut self, data: &[u8]) {
        self.sum = self.checksum(data);
    }

    /// Whether it and its data are what was written.
    pub fn check(&self, data: &[u8]) -> Result<(), Damage> {
        if self.checksum(data) == self.sum { Ok(()) } else { Err(Damage::Checksum) }
    }

    /// A segment of 1 to [`MOST`] entries, in order; its data are added to `data`.
    pub fn encode(key: Key, entries: &[(u64, f32)], data: &mut Vec<u8>) -> Segment {
        assert!((1..=MOST).contains(&entries.len()));
        let differences = entries.windows(2).map(|pair| pair[1].0 - pair[0].0 - 1);
        let width = differences.clone().map(|d| u64::BITS - d.leading_zeros()).max().unwrap_or(0);
        let mut weights: Vec<f32> = entries.iter().map(|e| e.1).collect();
        weights.sort_unstable_by(|a, b| b.total_cmp(a));
        weights.dedup_by(|a, b| a.to_bits() == b.to_bits());
        let (first, count) = (entries[0].0, entries.len());
        let segment = Segment { key, first, count, width, distinct: weights.len(), max: weights[0], at: 0, sum: 0 };
        let mut bits = Bits { to: data, held: 0, n: 0 };
        differences.for_each(|d| bits.put(d, width));
        bits.end();
        weights[1..].iter().for_each(|weight| bits.to.extend_from_slice(&weight.to_le_bytes()));
        let number = |weight: f32| weights.partition_point(|w| w.total_cmp(&weight).is_gt()) as u64;
        entries.iter().for_each(|e| bits.put(number(e.1), segment.number_bits()));
        bits.end();
        segment
    }

    /// Adds the entries to `rows` and `weights`. `data` goes on for [`BEHIND`] bytes behind its own.
    pub fn decode(&self, data: &[u8], rows: &mut Vec<u64>, weights: &mut Vec<f32>) -> Result<(), Damage> {
        let mut row = self.first;
        rows.push(row);
        let (width, mask) = (self.width as usize, (1u64 << self.width) - 1);
        // Differences are of ROW_BITS at most: then one and what is before it in its byte fit a word.
        if self.width > ROW_BITS {
            return Err(Damage::Bounds);
        }
        rows.extend((0..self.count - 1).map(|i| {
            row += (read(data, i * width) & mask) + 1;
            row
        }));
        if row >> ROW_BITS != 0 {
            return Err(Damage::Bounds);
        }
        if self.distinct == 1 {
            weights.extend(std::iter::repeat_n(self.max, self.count));
            return Ok(());
        }
        let mut of = [0.0; 128];
        of[0] = self.max;
        let data = &data[self.difference_bytes()..];
        let (listed, numbers) = data.split_at(4 * (self.distinct - 1));
        for (weight, bytes) in of[1..].iter_mut().zip(listed.as_chunks::<4>().0) {
            *weight = f32::from_le_bytes(*bytes);
        }
        let (bits, mask) = (self.number_bits() as usize, (1u64 << self.number_bits()) - 1);
        weights.extend((0..self.count).map(|i| of[(read(numbers, i * bits) & mask) as usize & 127]));
        Ok(())
    }
}

/// The bits from this one on; 57 of them count.
#[inline]
fn read(data: &[u8], bit: usize) -> u64 {
    u64::from_le_bytes(data[bit / 8..bit / 8 + 8].try_into().unwrap()) >> (bit % 8)
}

/// Appends numbers of some bits to bytes.
struct Bits<'v> {
    to: &'v mut Vec<u8>,
    held: u64,
    n: u32,
}

impl Bits<'_> {
    fn put(&mut self, value: u64, width: u32) {
        self.held |= value << self.n;
        self.n += width;
        while self.n >= 8 {
            self.to.push(self.held as u8);
            self.held >>= 8;
            self.n -= 8;
        }
    }

    /// To the end of the byte.
    fn end(&mut self) {
        if self.n > 0 {
            self.to.push(self.held as u8);
        }
        (self.held, self.n) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_read_again() {
        let mut state = 7u64;
        let mut dice = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        for round in 0..2_000 {
            let n = 1 + dice() as usize % MOST;
            let most = 1u64 << (dice() % 36);
            let distinct = 1 + dice() % 1u64.wrapping_shl((round % 9) as u32).max(1);
            let mut row = dice() % 1000;
            let entries: Vec<(u64, f32)> = (0..n)
                .map(|_| {
                    row += 1 + dice() % most;
                    (row, (1 + dice() % distinct) as f32 * 0.25)
                })
                .collect();
            let mut data = Vec::new();
            let mut segment = Segment::encode(9, &entries, &mut data);
            segment.seal(&data);
            assert_eq!(segment.bytes(), data.len());
            assert_eq!(Segment::unpack(&segment.pack()), segment);
            segment.check(&data).unwrap();
            data.extend([0xAA; BEHIND]);
            let (mut rows, mut weights) = (Vec::new(), Vec::new());
            segment.decode(&data, &mut rows, &mut weights).unwrap();
            assert_eq!(rows.into_iter().zip(weights).collect::<Vec<_>>(), entries);
        }
    }
}
