//! The pages of an index of terms: the only place with their offsets. All have the header and the special area that the pages of
//! lists have ([`crate::index::page`]).
//!
//! | kind | contents |
//! |---|---|
//! | meta | one [`Meta`] (block 0) |
//! | inner | [`Place`]s where it begins and ends, then (place, child) in order |
//! | leaf | the same two, a directory of [`Segment`]s in order; at the end of the page, their data |
//! | pending | rows that are not in the tree yet, as they came ([`PendingRow`]) |

use super::segment::{self, Segment};
use crate::index::page::{self, Bytes, CAPACITY, Checksum, Damage, Kind, NO_BLOCK, Opaque, Tid};

/// What a list is of: see [`key_of`].
pub type Key = u32;
/// The list of all rows that have a value.
pub const ROWS: Key = 0;
/// The list of rows whose value is NULL.
pub const NULLS: Key = 1;

/// The list of the rows in which the element with this (zero-based) index is above or below zero.
pub fn key_of(index: i32, negative: bool) -> Key {
    (index as u32).wrapping_add(1) << 1 | u32::from(negative)
}

/// The list of the same element with the other sign.
pub fn opposite(key: Key) -> Key {
    key ^ 1
}

/// Bits of a row's number.
pub const ROW_BITS: u32 = 32 + OFFSET_BITS;
const OFFSET_BITS: u32 = 11;

/// A row's number: TIDs in their order. None for an offset that no page of PostgreSQL's own has.
pub fn row_of(tid: Tid) -> Option<u64> {
    let offset = u64::from(tid.offset());
    (1..=1 << OFFSET_BITS).contains(&offset).then(|| u64::from(tid.block()) << OFFSET_BITS | (offset - 1))
}

/// The row with this number.
pub fn tid_of(row: u64) -> Tid {
    Tid::new((row >> OFFSET_BITS) as u32, (row & ((1 << OFFSET_BITS) - 1)) as u16 + 1)
}

const _: () = assert!(size_of::<Opaque>() >= segment::BEHIND);

/// A place in the order of all entries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    pub key: Key,
    pub row: u64,
}

impl Place {
    pub const FIRST: Place = Place { key: 0, row: 0 };
    /// Behind all entries.
    pub const END: Place = Place { key: Key::MAX, row: u64::MAX };
    const BYTES: usize = 12;

    fn read(at: &[u8]) -> Place {
        Place { key: word(at, 0), row: long(at, 4) }
    }

    fn write(self, to: &mut [u8]) {
        to[..4].copy_from_slice(&self.key.to_le_bytes());
        to[4..12].copy_from_slice(&self.row.to_le_bytes());
    }
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The meta page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meta {
    /// The operator class.
    pub operator: u32,
    /// Dimensions of the values; 0 while there is none, of a column without dimensions.
    pub dims: u32,
    /// Of the tree. It stays the root.
    pub root: u32,
    /// First and last page of rows that are not in the tree yet; [`NO_BLOCK`] without any.
    pub head: u32,
    pub tail: u32,
    /// Their numbers: such pages are numbered in order, and no number is used twice.
    pub first: u32,
    pub last: u32,
    /// Whether there is, or was, an element below zero.
    pub negative: bool,
}

/// "TERM"
const META_MAGIC: u32 = 0x4D52_4554;
const META_WORDS: usize = 10;

impl Meta {
    fn words(&self) -> [u32; META_WORDS - 1] {
        let negative = u32::from(self.negative);
        [META_MAGIC, self.operator, self.dims, self.root, self.head, self.tail, self.first, self.last, negative]
    }

    /// Writes it on a page that [`page::init`] has made one of this kind, or that has one.
    pub fn write(&self, to: &mut Bytes) {
        let words = self.words();
        let contents = page::contents_mut(to);
        for (to, word) in contents.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let at = 4 * (META_WORDS - 1);
        let sum = Checksum::of_bytes(&contents[..at]).long();
        contents[at..at + 4].copy_from_slice(&sum.to_le_bytes());
        page::set_hole(to, 4 * META_WORDS, CAPACITY);
    }

    /// Reads it.
    pub fn read(from: &Bytes) -> Result<Meta, Damage> {
        page::check(from, Kind::TermMeta)?;
        let contents = page::contents(from);
        let at = 4 * (META_WORDS - 1);
        if page::hole(from) != (4 * META_WORDS, CAPACITY) {
            return Err(Damage::Header);
        }
        if Checksum::of_bytes(&contents[..at]).long() != word(contents, at) {
            return Err(Damage::Checksum);
        }
        let [magic, operator, dims, root, head, tail, first, last, negative] =
            std::array::from_fn(|i| word(contents, 4 * i));
        let meta = Meta { operator, dims, root, head, tail, first, last, negative: negative != 0 };
        let sound = magic == META_MAGIC && (head == NO_BLOCK) == (tail == NO_BLOCK) && first <= last;
        if sound { Ok(meta) } else { Err(Damage::Bounds) }
    }

    /// Pages of rows that are not in the tree yet.
    pub fn pending_pages(&self) -> u32 {
        if self.head == NO_BLOCK { 0 } else { self.last - self.first + 1 }
    }
}

/// Bytes before the entries of an inner page, and before the directory of a leaf.
const BOUNDS: usize = 2 * Place::BYTES;
/// Bytes of an entry of an inner page.
const DOWN: usize = Place::BYTES + 4;
/// Most entries of an inner page.
pub const MOST_DOWN: usize = (CAPACITY - BOUNDS) / DOWN;
/// Bytes of a segment in the directory of a leaf.
pub const ENTRY: usize = 20;
/// Bytes of a leaf for segments: those of the directory, and their data.
pub const ROOM: usize = CAPACITY - BOUNDS;
/// Most levels of inner pages: halves of full pages, so many levels of them are more than can be numbered.
pub const MOST_LEVELS: u8 = 8;

/// A page of the tree, checked as far as its header and counts tell.
#[derive(Clone, Copy)]
pub struct Node<'p> {
    page: &'p Bytes,
    pub opaque: Opaque,
}

impl<'p> Node<'p> {
    /// Any page of the tree.
    pub fn open(page: &'p Bytes) -> Result<Node<'p>, Damage> {
        let opaque = page::check_any(page)?;
        let used = usize::from(opaque.used);
        let (start, end) = page::hole(page);
        let fits = match opaque.kind {
            kind if kind == Kind::TermInner as u8 => {
                (1..=MOST_LEVELS).contains(&opaque.level)
                    && (1..=MOST_DOWN).contains(&used)
                    && (start, end) == (BOUNDS + DOWN * used, CAPACITY)
            }
            kind if kind == Kind::TermLeaf as u8 => opaque.level == 0 && start == BOUNDS + ENTRY * used && start <= end,
            kind => return Err(Damage::Kind(kind)),
        };
        let unset = (opaque.list, opaque.insert_at, opaque.refs, opaque.flags, opaque.head);
        if fits && unset == (0, NO_BLOCK, 0, 0, NO_BLOCK) { Ok(Node { page, opaque }) } else { Err(Damage::Bounds) }
    }

    fn contents(&self) -> &'p [u8] {
        page::contents(self.page)
    }

    pub fn is_leaf(&self) -> bool {
        self.opaque.level == 0
    }

    /// Entries of an inner page, segments of a leaf.
    pub fn len(&self) -> usize {
        usize::from(self.opaque.used)
    }

    /// No entry is before this place.
    pub fn low(&self) -> Place {
        Place::read(self.contents())
    }

    /// All entries are before this place: where the next page begins.
    pub fn high(&self) -> Place {
        Place::read(&self.contents()[Place::BYTES..])
    }

    /// An entry of an inner page.
    pub fn down(&self, i: usize) -> (Place, u32) {
        let at = BOUNDS + DOWN * i;
        let entry = &self.contents()[at..at + DOWN];
        (Place::read(entry), word(entry, Place::BYTES))
    }

    /// Number of the child of an inner page in which a place is.
    pub fn child_at(&self, place: Place) -> usize {
        let (mut least, mut most) = (0, self.len());
        while least < most {
            let middle = (least + most) / 2;
            if self.down(middle).0 <= place { least = middle + 1 } else { most = middle }
        }
        least.saturating_sub(1)
    }

    /// Whether the bounds and the entries, or the directory, are what was written.
    pub fn verify(&self) -> Result<(), Damage> {
        let bytes = &self.contents()[..page::hole(self.page).0];
        if Checksum::of_bytes(bytes).long() == self.opaque.epoch { Ok(()) } else { Err(Damage::Checksum) }
    }

    /// A segment of a leaf.
    pub fn segment(&self, i: usize) -> Segment {
        let at = BOUNDS + ENTRY * i;
        let entry = &self.contents()[at..at + ENTRY];
        Segment::unpack(entry.try_into().unwrap())
    }

    /// Where a segment begins.
    pub fn place(&self, i: usize) -> Place {
        let at = BOUNDS + ENTRY * i;
        let entry = &self.contents()[at..at + ENTRY];
        Place { key: word(entry, 0), row: segment::row_in(long(entry, 4)) }
    }

    /// The first segment that begins at this place or behind it.
    pub fn find(&self, place: Place) -> usize {
        let (mut least, mut most) = (0, self.len());
        while least < most {
            let middle = (least + most) / 2;
            if self.place(middle) < place { least = middle + 1 } else { most = middle }
        }
        least
    }

    /// The data of a segment, and what is behind it on the page: at least [`segment::BEHIND`] bytes.
    pub fn data(&self, segment: &Segment) -> Result<(&'p [u8], usize), Damage> {
        let (at, bytes) = (usize::from(segment.at), segment.bytes());
        if at < page::hole(self.page).1 || at + bytes > CAPACITY {
            return Err(Damage::Bounds);
        }
        Ok((page::contents_and_behind(self.page, at), bytes))
    }

    /// Adds the entries of a segment to `rows` and `weights`.
    pub fn decode(&self, segment: &Segment, rows: &mut Vec<u64>, weights: &mut Vec<f32>) -> Result<(), Damage> {
        let (data, bytes) = self.data(segment)?;
        segment.check(&data[..bytes])?;
        segment.decode(data, rows, weights)
    }
}

/// Makes `to` an inner page.
pub fn write_inner(to: &mut Bytes, level: u8, next: u32, bounds: (Place, Place), down: &[(Place, u32)]) {
    page::init(to, Kind::TermInner, level, 0);
    let contents = page::contents_mut(to);
    write_bounds(contents, bounds);
    for (entry, (place, child)) in contents[BOUNDS..].chunks_exact_mut(DOWN).zip(down) {
        place.write(entry);
        entry[Place::BYTES..].copy_from_slice(&child.to_le_bytes());
    }
    finish(to, next, down.len(), BOUNDS + DOWN * down.len(), CAPACITY);
}

fn write_bounds(contents: &mut [u8], (low, high): (Place, Place)) {
    low.write(contents);
    high.write(&mut contents[Place::BYTES..]);
}

fn finish(to: &mut Bytes, next: u32, used: usize, start: usize, end: usize) {
    let sum = Checksum::of_bytes(&page::contents(to)[..start]).long();
    page::edit_opaque(to, |o| (o.next, o.used, o.epoch) = (next, used as u16, sum));
    page::set_hole(to, start, end);
}

/// Makes `to` a leaf. `segments` with their data; they have to fit.
pub fn write_leaf<'s>(
    to: &mut Bytes,
    next: u32,
    bounds: (Place, Place),
    segments: impl ExactSizeIterator<Item = (Segment, &'s [u8])>,
) {
    page::init(to, Kind::TermLeaf, 0, 0);
    let n = segments.len();
    let contents = page::contents_mut(to);
    write_bounds(contents, bounds);
    let mut end = CAPACITY;
    for (i, (mut segment, data)) in segments.enumerate() {
        end -= data.len();
        segment.at = end as u16;
        contents[end..end + data.len()].copy_from_slice(data);
        segment.seal(data);
        let at = BOUNDS + ENTRY * i;
        contents[at..at + ENTRY].copy_from_slice(&segment.pack());
    }
    finish(to, next, n, BOUNDS + ENTRY * n, end);
}

/// A row that is not in the tree yet: its number, how many entries, a mark for NULL, a checksum; then the keys, then the weights.
#[derive(Clone, Copy, Debug)]
pub struct PendingRow<'p> {
    pub row: u64,
    pub is_null: bool,
    keys: &'p [[u8; 4]],
    weights: &'p [[u8; 4]],
}

/// Bytes of a pending row before its keys.
const PENDING_HEADER: usize = 16;
/// Most entries of a pending row.
pub const MOST_PENDING: usize = (CAPACITY - PENDING_HEADER) / 8;

impl PendingRow<'_> {
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn key(&self, i: usize) -> Key {
        u32::from_le_bytes(self.keys[i])
    }

    pub fn weight(&self, i: usize) -> f32 {
        f32::from_le_bytes(self.weights[i])
    }

    /// The first entry from this key on. `from` is where to look first, and becomes where the next one is looked for: keys are asked
    /// for in order.
    pub fn find(&self, key: Key, from: &mut usize) -> Option<(Key, f32)> {
        let least = *from + self.keys[*from..].partition_point(|bytes| u32::from_le_bytes(*bytes) < key);
        *from = least;
        (least < self.len()).then(|| (self.key(least), self.weight(least)))
    }
}

/// Bytes that a row with so many entries takes.
pub fn pending_bytes(entries: usize) -> usize {
    PENDING_HEADER + 8 * entries
}

/// The rows of a pending page that has this number, in the order in which they came.
pub struct Pending<'p> {
    contents: &'p [u8],
    at: usize,
    end: usize,
    left: usize,
    pub next: u32,
}

impl<'p> Pending<'p> {
    pub fn open(from: &'p Bytes, number: u32) -> Result<Pending<'p>, Damage> {
        let opaque = page::check(from, Kind::TermPending)?;
        if opaque.list != number {
            return Err(Damage::List(opaque.list));
        }
        let (end, upper) = page::hole(from);
        let unset = (opaque.insert_at, opaque.level, opaque.refs, opaque.flags, opaque.head, opaque.epoch);
        if upper != CAPACITY || unset != (NO_BLOCK, 0, 0, 0, NO_BLOCK, 0) {
            return Err(Damage::Bounds);
        }
        let left = usize::from(opaque.used);
        Ok(Pending { contents: page::contents(from), at: 0, end, left, next: opaque.next })
    }

    /// Bytes that are left on the page.
    pub fn room(&self) -> usize {
        CAPACITY - self.end
    }

    /// The next row.
    pub fn next_row(&mut self) -> Option<Result<PendingRow<'p>, Damage>> {
        if self.left == 0 {
            return (self.at != self.end).then_some(Err(Damage::Bounds));
        }
        self.left -= 1;
        let row = self.read();
        if row.is_err() {
            (self.left, self.at) = (0, self.end);
        }
        Some(row)
    }

    fn read(&mut self) -> Result<PendingRow<'p>, Damage> {
        let bytes = &self.contents[self.at..self.end];
        if bytes.len() < PENDING_HEADER {
            return Err(Damage::Bounds);
        }
        let n = usize::from(half(bytes, 8));
        if bytes.len() < pending_bytes(n) {
            return Err(Damage::Bounds);
        }
        let (header, rest) = bytes[..pending_bytes(n)].split_at(PENDING_HEADER);
        let mut sum = Checksum::of_bytes(&header[..12]);
        sum.add(rest);
        if sum.long() != word(header, 12) {
            return Err(Damage::Checksum);
        }
        self.at += pending_bytes(n);
        let (keys, weights) = rest.as_chunks::<4>().0.split_at(n);
        let row = long(header, 0);
        if row >> ROW_BITS != 0 {
            return Err(Damage::Bounds);
        }
        Ok(PendingRow { row, is_null: half(header, 10) != 0, keys, weights })
    }
}

/// Makes `to` an empty pending page.
pub fn init_pending(to: &mut Bytes, number: u32) {
    page::init(to, Kind::TermPending, 0, number);
    page::set_hole(to, 0, CAPACITY);
}

/// Adds a row to a checked pending page that has room for it. Without entries, `None` is for NULL.
pub fn add_pending(to: &mut Bytes, row: u64, entries: Option<&[(Key, f32)]>) {
    let (at, _) = page::hole(to);
    let list = entries.unwrap_or_default();
    let end = at + pending_bytes(list.len());
    let bytes = &mut page::contents_mut(to)[at..end];
    bytes[..8].copy_from_slice(&row.to_le_bytes());
    bytes[8..10].copy_from_slice(&(list.len() as u16).to_le_bytes());
    bytes[10..12].copy_from_slice(&u16::from(entries.is_none()).to_le_bytes());
    let (header, rest) = bytes.split_at_mut(PENDING_HEADER);
    let (keys, weights) = rest.split_at_mut(4 * list.len());
    for ((key, weight), (to_key, to_weight)) in
        list.iter().zip(keys.chunks_exact_mut(4).zip(weights.chunks_exact_mut(4)))
    {
        to_key.copy_from_slice(&key.to_le_bytes());
        to_weight.copy_from_slice(&weight.to_bits().to_le_bytes());
    }
    let mut sum = Checksum::of_bytes(&header[..12]);
    sum.add(rest);
    header[12..16].copy_from_slice(&sum.long().to_le_bytes());
    page::set_hole(to, end, CAPACITY);
    page::edit_opaque(to, |o| o.used += 1);
}
