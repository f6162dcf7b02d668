//! Reservoir sampling.

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

    /// Rows offered so far.
    pub fn seen(&self) -> usize {
        self.seen
    }

    /// Offers a row of `dims` values.
    pub fn offer(&mut self, row: &[f32]) {
        let slot = self.seen;
        self.seen += 1;
        let slot = if slot < self.wanted {
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
