//! Random numbers, and reservoir sampling.

use ann::memory;

/// A uniform sample of the rows offered (Vitter's algorithm R), the same for the same rows in the same order.
pub struct Reservoir {
    wanted: usize,
    dims: usize,
    stride: usize,
    seen: usize,
    data: Vec<f32>,
    random: u64,
}

impl Reservoir {
    /// For `wanted` rows of `dims` values, stored `stride` apart (zeroes between).
    pub fn new(wanted: usize, dims: usize, stride: usize, seed: u64) -> Reservoir {
        assert!(stride >= dims && seed != 0);
        Reservoir { wanted, dims, stride, seen: 0, data: Vec::new(), random: seed }
    }

    /// Whether more rows were offered than are wanted.
    pub fn has_dropped(&self) -> bool {
        self.seen > self.wanted
    }

    /// Rows offered so far.
    pub fn seen(&self) -> usize {
        self.seen
    }

    /// Offers a row of `dims` values.
    pub fn offer(&mut self, row: &[f32]) {
        let slot = self.seen;
        self.seen += 1;
        let slot = if slot < self.wanted {
            if self.data.len() == self.data.capacity() {
                // Twice as much as there is, but never more than will be wanted.
                let rows = (slot + 1).next_power_of_two().max(64).min(self.wanted);
                memory::room_for(&mut self.data, rows * self.stride);
            }
            self.data.resize((slot + 1) * self.stride, 0.0);
            slot
        } else {
            // xorshift64*: enough for sampling.
            self.random ^= self.random >> 12;
            self.random ^= self.random << 25;
            self.random ^= self.random >> 27;
            (self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) % self.seen as u64) as usize
        };
        if slot < self.wanted {
            self.data[slot * self.stride..][..self.dims].copy_from_slice(row);
        }
    }

    /// The sample, `stride` values a row.
    pub fn into_rows(self) -> Vec<f32> {
        self.data
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers for the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((u128::from(z ^ (z >> 31)) * bound as u128) >> 64) as usize
    }
}
