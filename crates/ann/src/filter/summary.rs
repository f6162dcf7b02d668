//! What a list's rows have in a filter column, in short: whether a search can pass the list by without reading it.

/// Words of the Bloom filter.
const BLOOM: usize = 8;
/// Bits that a key sets in it: best for about 120 different keys.
const HASHES: u32 = 3;
/// Words of the bins, and their number.
const BIN_WORDS: usize = 8;
const BINS: u64 = 64 * BIN_WORDS as u64;
/// The middle 80 % of a list's keys take fewer bins, and at least half as many.
const MIDDLE: u64 = BINS * 3 / 2;
/// Keys that the width of the bins is chosen by.
const SAMPLE: usize = 4096;

/// The keys of one column in a list. It may know of more keys than there are (deleted rows), never of fewer.
///
/// A search reads it with the centroid's code, so that the page of a list without a match is not even touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Smallest and largest key; `min > max` when there is none.
    min: u64,
    max: u64,
    /// All bits that a key has.
    bits: u64,
    /// Whether there is a NULL.
    nulls: bool,
    /// How far a key is shifted right (0 to 63 bits) to number its bin.
    shift: u32,
    bloom: [u64; BLOOM],
    /// Bit i: there is a key in bin i, the number of its bin modulo [`BINS`] that is. Ranges are told by them: that they begin
    /// anew at the end lets keys far from the others in without making the bins wider.
    bins: [u64; BIN_WORDS],
}

impl Summary {
    /// Bytes on a page.
    pub const BYTES: usize = 8 * (4 + BLOOM + BIN_WORDS);
    /// Of no rows.
    pub const EMPTY: Summary =
        Summary { min: u64::MAX, max: 0, bits: 0, nulls: false, shift: 0, bloom: [0; BLOOM], bins: [0; BIN_WORDS] };

    /// Adds a row's key, or its NULL.
    pub fn add(&mut self, key: Option<u64>) {
        let Some(key) = key else {
            self.nulls = true;
            return;
        };
        self.min = self.min.min(key);
        self.max = self.max.max(key);
        self.bits |= key;
        for (word, bit) in places(key) {
            self.bloom[word] |= bit;
        }
        let bin = (key >> self.shift) % BINS;
        self.bins[(bin / 64) as usize] |= 1 << (bin % 64);
    }

    /// Makes the bins of a summary without keys as wide as these keys want them.
    fn fit(&mut self, keys: &mut [u64]) {
        let tenth = keys.len() / 10;
        if keys.is_empty() || self.has_keys() {
            return;
        }
        let (_, &mut low, rest) = keys.select_nth_unstable(tenth);
        let high = match rest.len().checked_sub(tenth + 1) {
            Some(at) => *rest.select_nth_unstable(at).1,
            None => low,
        };
        self.shift = (0..63).find(|shift| (high - low) >> shift < MIDDLE).unwrap_or(63);
    }

    /// Whether a row's key, or NULL, has been added.
    pub fn knows(&self, key: Option<u64>) -> bool {
        let mut wider = *self;
        wider.add(key);
        wider == *self
    }

    /// Whether there may be a key in `low ..= high`.
    pub fn may_hold(&self, low: u64, high: u64) -> bool {
        self.has_keys()
            && self.min <= high
            && self.max >= low
            && (low != high || places(low).all(|(w, bit)| self.bloom[w] & bit != 0))
            && self.has_bin(low.max(self.min), high.min(self.max))
    }

    /// Whether there is a key in one of the bins of `low ..= high`.
    fn has_bin(&self, low: u64, high: u64) -> bool {
        let (first, last) = (low >> self.shift, high >> self.shift);
        if last - first >= BINS - 1 {
            return true;
        }
        let (mut at, mut left) = (first % BINS, last - first + 1);
        while left > 0 {
            let here = (64 - at % 64).min(left);
            let mask = (u64::MAX >> (64 - here)) << (at % 64);
            if self.bins[(at / 64) as usize] & mask != 0 {
                return true;
            }
            at = (at + here) % BINS;
            left -= here;
        }
        false
    }

    /// Whether there may be one of the `keys`, which are sorted.
    pub fn may_hold_one_of(&self, keys: &[u64]) -> bool {
        let from = keys.partition_point(|&k| k < self.min);
        keys[from..].iter().take_while(|&&k| k <= self.max).any(|&k| self.may_hold(k, k))
    }

    /// Whether there may be a key that shares a bit with `bits`.
    pub fn may_overlap(&self, bits: u64) -> bool {
        self.bits & bits != 0
    }

    /// Whether there may be a key with all of `bits`.
    pub fn may_contain(&self, bits: u64) -> bool {
        self.has_keys() && self.bits & bits == bits
    }

    /// Whether there may be a NULL.
    pub fn has_nulls(&self) -> bool {
        self.nulls
    }

    /// Whether there may be a key.
    pub fn has_keys(&self) -> bool {
        self.min <= self.max
    }

    /// As it is on a page.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let flags = u64::from(self.nulls) | u64::from(self.shift) << 8;
        let words = [self.min, self.max, self.bits, flags].into_iter().chain(self.bloom).chain(self.bins);
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        bytes
    }

    /// Whether one with these bytes has no key in `low ..= high` by its smallest and largest key: mostly that is enough to know.
    #[inline]
    pub fn is_beyond(bytes: &[u8; Self::BYTES], low: u64, high: u64) -> bool {
        let word = |i: usize| u64::from_le_bytes(bytes.as_chunks().0[i]);
        word(0) > high || word(1) < low
    }

    /// Inverse of [`Summary::to_bytes`].
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Summary {
        let word = |i: usize| u64::from_le_bytes(bytes.as_chunks().0[i]);
        let bloom = std::array::from_fn(|i| word(4 + i));
        let bins = std::array::from_fn(|i| word(4 + BLOOM + i));
        let (nulls, shift) = (word(3) & 1 != 0, (word(3) >> 8) as u32 & 63);
        Summary { min: word(0), max: word(1), bits: word(2), nulls, shift, bloom, bins }
    }
}

/// The bits of the Bloom filter that stand for a key, by word.
fn places(key: u64) -> impl Iterator<Item = (usize, u64)> {
    let hash = (key ^ key >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (0..HASHES).map(move |i| {
        let bit = hash >> (64 - 9 * (i + 1)) & 511;
        (bit as usize / 64, 1 << (bit % 64))
    })
}

/// The filter columns of a row.
#[derive(Clone, Debug, Default)]
pub struct RowKeys {
    /// Bit i: column i is NULL.
    pub nulls: u32,
    /// One a column; 0 for NULL.
    pub keys: Vec<u64>,
}

impl RowKeys {
    /// Of a row without NULLs, all 0.
    pub fn new(columns: usize) -> RowKeys {
        RowKeys { nulls: 0, keys: vec![0; columns] }
    }

    /// Sets a column.
    pub fn set(&mut self, column: usize, key: Option<u64>) {
        self.keys[column] = key.unwrap_or(0);
        self.nulls = self.nulls & !(1 << column) | u32::from(key.is_none()) << column;
    }

    /// A column.
    pub fn get(&self, column: usize) -> Option<u64> {
        (self.nulls >> column & 1 == 0).then_some(self.keys[column])
    }
}

/// Sums up the rows of a list.
#[derive(Debug)]
pub struct Summarizer {
    summaries: Vec<Summary>,
    /// Keys of each column that have not been added: the width of the bins follows from many of them.
    waiting: Vec<Vec<u64>>,
}

impl Summarizer {
    /// Of no rows.
    pub fn new(columns: usize) -> Summarizer {
        Summarizer { summaries: vec![Summary::EMPTY; columns], waiting: vec![Vec::new(); columns] }
    }

    /// Adds a row.
    pub fn add(&mut self, row: &RowKeys) {
        for (column, (summary, waiting)) in self.summaries.iter_mut().zip(&mut self.waiting).enumerate() {
            match row.get(column) {
                Some(key) => waiting.push(key),
                None => summary.add(None),
            }
            if waiting.len() == SAMPLE {
                settle(summary, waiting);
            }
        }
    }

    /// Of the rows so far.
    pub fn summaries(&mut self) -> &[Summary] {
        for (summary, waiting) in self.summaries.iter_mut().zip(&mut self.waiting) {
            settle(summary, waiting);
        }
        &self.summaries
    }

    /// Begins anew.
    pub fn clear(&mut self) {
        self.summaries.fill(Summary::EMPTY);
        self.waiting.iter_mut().for_each(Vec::clear);
    }
}

/// Adds the waiting keys.
fn settle(summary: &mut Summary, waiting: &mut Vec<u64>) {
    summary.fit(waiting);
    waiting.drain(..).for_each(|key| summary.add(Some(key)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_denied_that_was_added() {
        let keys: Vec<u64> = (0..200_u64).map(|i| i.wrapping_mul(0x1234_5678_9ABC_DEF1)).collect();
        let mut summary = Summary::EMPTY;
        let mut unknown = 0;
        for &key in &keys {
            unknown += usize::from(!summary.knows(Some(key)));
            summary.add(Some(key));
        }
        // Some seem known before they are added, as the Bloom filter's bits fill up.
        assert!(unknown > keys.len() / 2, "{unknown} of {} were unknown", keys.len());
        assert!(keys.iter().all(|&key| summary.knows(Some(key))) && !summary.knows(None));
        let bytes = summary.to_bytes();
        assert!(
            keys.iter().all(|&key| !Summary::is_beyond(&bytes, key, key))
                && Summary::is_beyond(&bytes, u64::MAX, u64::MAX)
        );
        let summary = Summary::from_bytes(&bytes);
        for &key in &keys {
            assert!(summary.may_hold(key, key) && summary.may_hold_one_of(&[key]) && summary.may_contain(key));
            assert!(summary.may_hold(key.saturating_sub(1), key.saturating_add(1)));
            assert!(key == 0 || summary.may_overlap(key));
        }
        assert!(!summary.has_nulls());
        summary_with_null(summary);
    }

    fn summary_with_null(mut summary: Summary) {
        summary.add(None);
        assert!(summary.has_nulls() && summary.has_keys() && summary.knows(None));
    }

    #[test]
    fn of_no_rows() {
        let empty = Summary::EMPTY;
        assert!(!empty.may_hold(0, u64::MAX) && !empty.may_hold(0, 0) && !empty.may_hold_one_of(&[0, 1]));
        assert!(!empty.may_contain(0) && !empty.may_overlap(u64::MAX) && !empty.has_keys() && !empty.has_nulls());
    }

    #[test]
    fn most_others_are_denied() {
        let mut summary = Summary::EMPTY;
        // Small integers, as identities are: every tenth.
        (0..100).for_each(|i| summary.add(Some((1 << 63) + 10 * i)));
        let wrong = (0..1000).filter(|i| i % 10 != 0 && summary.may_hold((1 << 63) + i, (1 << 63) + i)).count();
        assert!(wrong < 180, "{wrong} of 900");
        assert!(!summary.may_hold(0, (1 << 63) - 1) && summary.may_hold(0, 1 << 63));
    }

    #[test]
    fn rows() {
        let mut row = RowKeys::new(2);
        row.set(0, None);
        row.set(1, Some(7));
        assert_eq!((row.get(0), row.get(1)), (None, Some(7)));
        let mut list = Summarizer::new(2);
        list.add(&row);
        row.set(0, Some(3));
        assert_eq!(row.get(0), Some(3));
        let summaries = list.summaries();
        assert!(summaries[0].has_nulls() && !summaries[0].has_keys() && summaries[1].may_hold(7, 7));
        list.clear();
        assert!(!list.summaries()[1].has_keys());
    }

    /// Sums up the keys of one column.
    fn summary_of(keys: impl Iterator<Item = u64>) -> Summary {
        let mut list = Summarizer::new(1);
        for key in keys {
            list.add(&RowKeys { nulls: 0, keys: vec![key] });
        }
        list.summaries()[0]
    }

    #[test]
    fn narrow_ranges_between_the_keys_are_denied() {
        // Seconds in microseconds, about evenly, and one far away.
        let key = |i: u64| (1 << 63) + 1_000_000 * (i * 1000 + i * i * 7919 % 500);
        let keys: Vec<u64> = (0..128).map(key).chain([u64::MAX - 3]).collect();
        let summary = summary_of(keys.iter().copied());
        let mut wrong = 0;
        for i in 0..12_700 {
            let (low, high) = ((1 << 63) + 10_000_000 * i, (1 << 63) + 10_000_000 * (i + 1));
            let there = keys.iter().any(|key| (low..=high).contains(key));
            assert!(summary.may_hold(low, high) || !there, "{low} to {high}");
            wrong += usize::from(!there && summary.may_hold(low, high));
        }
        assert!(wrong < 12_700 / 3, "{wrong} of 12,700");
        assert!(summary.may_hold(u64::MAX - 9, u64::MAX) && summary.may_hold(0, u64::MAX));
        assert!(!summary.may_hold(0, (1 << 63) - 1));
    }

    #[test]
    fn bins_of_any_width() {
        for keys in [vec![5], vec![0, u64::MAX], vec![7; 300], (0..5000).map(|i| i * 3).collect(), vec![]] {
            let mut summary = summary_of(keys.iter().copied());
            for later in [1, u64::MAX / 3] {
                for &key in &keys {
                    assert!(summary.may_hold(key, key) && summary.knows(Some(key)));
                    assert!(
                        summary.may_hold(key.saturating_sub(2), key) && summary.may_hold(key, key.saturating_add(2))
                    );
                }
                summary.add(Some(later));
                assert!(summary.may_hold(later, later) && summary.may_hold(later - 1, later + 1));
            }
        }
    }
}
