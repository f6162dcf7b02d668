//! The page layout of an `ivflsh` index. Every offset inside a page is computed here and nowhere else.
//!
//! All pages are standard PostgreSQL pages with a 32-byte special area ([`Opaque`]). Kinds:
//!
//! | kind | content |
//! |---|---|
//! | meta | one [`Meta`], behind it a [`Measuring`] (block 0) |
//! | mean | a stretch of the data mean, f32 |
//! | posting | blocks of 32 entries: live mask, factors, TIDs, sketches (see [`Layout`]) |
//! | sketch | the part of one block's sketches that did not fit on its posting page |
//! | code | cells: the code factors of an entry and its code. On inner levels, the identity of the child list and the
//!   summaries of its filter columns are between the two |
//! | free | nothing; recorded in the free space map |

use ann::filter::{Keys, RowKeys, Summary};
use ann::quantize::{BLOCK, Bits, BlockFactors, CodeFactors, SketchFactors, factor};

/// Bytes of a page.
pub const PAGE: usize = 8192;

/// Start of the contents: the page header (24 bytes) rounded up, so that sketches are aligned for SIMD loads.
const START: usize = 32;
const SPECIAL: usize = size_of::<Opaque>();
const END: usize = PAGE - SPECIAL;
/// Bytes of contents of a page.
pub const CAPACITY: usize = END - START;

const MAGIC: u16 = 0x1F15;
/// Version of the on-disk format. Raise it with every change of this file that an old index would not survive.
pub const FORMAT: u16 = 6;
/// "IVFL": first word of the meta page.
const META_MAGIC: u32 = 0x4C46_5649;

/// Block number of the meta page.
pub const META_BLOCK: u32 = 0;
/// "No page".
pub const NO_BLOCK: u32 = u32::MAX;

/// What a page holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    Meta = 1,
    Mean = 2,
    Posting = 3,
    Sketch = 4,
    Code = 5,
    Free = 6,
    // Of indexes of terms: `terms/page.rs`.
    TermMeta = 7,
    TermInner = 8,
    TermLeaf = 9,
    TermPending = 10,
}

/// The special area of every page.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Opaque {
    /// Next page of the same chain, or [`NO_BLOCK`].
    pub next: u32,
    /// Identity of the list that the page belongs to; never reused within an index. 0 for pages without a list.
    pub list: u32,
    /// Epoch (see [`Meta::epoch`]) of the last structural change that took something away here, so that what a reader
    /// learnt before may be gone. Posting page: entries moved elsewhere. Code page: what was on the page before it was
    /// used anew, or a cell. Free page: all. 0 when there was none.
    pub epoch: u32,
    /// Head page: first page of the chain where an insert may find room.
    pub insert_at: u32,
    /// Posting page: blocks in use. Code page: cells in use.
    pub used: u16,
    /// A [`Kind`].
    pub kind: u8,
    /// 0 for the postings of table rows, n for lists whose entries are lists of level n - 1.
    pub level: u8,
    /// Code page: blocks that refer to it. Posting and sketch page: cells at its end.
    pub refs: u16,
    /// [`CLOSED`]
    pub flags: u16,
    /// Posting and sketch pages: head page of the list.
    pub head: u32,
    magic: u16,
    format: u16,
}

/// Flag of a posting page: its list is about to be replaced, nothing may be added to it.
pub const CLOSED: u16 = 1;

impl Opaque {
    /// Whether the page's list is about to be replaced.
    #[inline]
    pub fn closed(&self) -> bool {
        self.flags & CLOSED != 0
    }
}

/// What is wrong with a page. Becomes an ERROR of class `ERRCODE_INDEX_CORRUPTED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// All zeroes: never written.
    New,
    /// Header or special area out of bounds.
    Header,
    /// Not a page of an ivflsh index.
    Magic,
    /// A page that another access method's library has written.
    Foreign(&'static str),
    /// Another format version.
    Format(u16),
    /// Not the kind of page that the pointer promised.
    Kind(u8),
    /// Belongs to another list.
    List(u32),
    /// Things were taken from the page at an epoch that the reader does not know.
    Epoch(u32),
    /// A count or an offset out of bounds.
    Bounds,
    /// A cell is not what was written for the entry that refers to it.
    Cell,
    /// Not what was written.
    Checksum,
}

impl Damage {
    /// Whether this is what a reader finds who comes by an old pointer after a structural change.
    #[inline]
    pub fn may_be_change(self) -> bool {
        matches!(self, Damage::Kind(_) | Damage::List(_) | Damage::Epoch(_) | Damage::Cell)
    }
}

impl std::fmt::Display for Damage {
    #[inline]
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Damage::New => write!(f, "the page is empty"),
            Damage::Header => write!(f, "the page header is invalid"),
            Damage::Magic => write!(f, "not a page of an ivflsh index"),
            Damage::Foreign(method) => write!(f, "a page of pgvector's {method}"),
            Damage::Format(v) => write!(f, "format version {v}, expected {FORMAT}"),
            Damage::Kind(k) => write!(f, "unexpected page kind {k}"),
            Damage::List(l) => write!(f, "the page belongs to list {l}"),
            Damage::Epoch(e) => write!(f, "the page was changed at epoch {e}"),
            Damage::Bounds => write!(f, "a count or offset is out of bounds"),
            Damage::Cell => write!(f, "the code of an entry does not match its checksum"),
            Damage::Checksum => write!(f, "the contents do not match their checksum"),
        }
    }
}

/// The bytes of a page.
pub type Bytes = [u8; PAGE];

#[inline]
fn word(page: &Bytes, at: usize) -> u32 {
    u32::from_le_bytes(page[at..at + 4].try_into().unwrap())
}

#[inline]
fn half(page: &Bytes, at: usize) -> u16 {
    u16::from_le_bytes(page[at..at + 2].try_into().unwrap())
}

#[inline]
fn put_word(page: &mut Bytes, at: usize, value: u32) {
    page[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[inline]
fn put_half(page: &mut Bytes, at: usize, value: u16) {
    page[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

#[inline]
fn put_float(page: &mut Bytes, at: usize, value: f32) {
    put_word(page, at, value.to_bits());
}

#[inline]
fn float(page: &Bytes, at: usize) -> f32 {
    f32::from_bits(word(page, at))
}

/// `n` u16 at a 2-aligned offset, without a copy.
#[inline]
fn halves<const N: usize>(page: &Bytes, at: usize) -> &[u16; N] {
    let bytes = &page[at..at + 2 * N];
    assert!(bytes.as_ptr().addr().is_multiple_of(2));
    // SAFETY: the slice has 2 * N bytes, is aligned for u16 (asserted), and any bits are a valid u16.
    unsafe { &*bytes.as_ptr().cast() }
}

/// `n` f32 at a 4-aligned offset, without a copy.
#[inline]
fn floats<const N: usize>(page: &Bytes, at: usize) -> &[f32; N] {
    let bytes = &page[at..at + 4 * N];
    assert!(bytes.as_ptr().addr().is_multiple_of(4));
    // SAFETY: the slice has 4 * N bytes, is aligned for f32 (asserted), and any bits are a valid f32.
    unsafe { &*bytes.as_ptr().cast() }
}

/// `n` f32 at a 4-aligned offset, without a copy.
#[inline]
fn float_slice(page: &Bytes, at: usize, n: usize) -> &[f32] {
    let bytes = &page[at..at + 4 * n];
    assert!(bytes.as_ptr().addr().is_multiple_of(4));
    // SAFETY: as in `floats`.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), n) }
}

/// Reads the special area. The caller has checked the page (or just made it).
#[inline]
pub fn opaque(page: &Bytes) -> Opaque {
    let at = END;
    Opaque {
        next: word(page, at),
        list: word(page, at + 4),
        epoch: word(page, at + 8),
        insert_at: word(page, at + 12),
        used: half(page, at + 16),
        kind: page[at + 18],
        level: page[at + 19],
        refs: half(page, at + 20),
        flags: half(page, at + 22),
        head: word(page, at + 24),
        magic: half(page, at + 28),
        format: half(page, at + 30),
    }
}

/// Writes the special area.
#[inline]
pub fn set_opaque(page: &mut Bytes, o: &Opaque) {
    let at = END;
    put_word(page, at, o.next);
    put_word(page, at + 4, o.list);
    put_word(page, at + 8, o.epoch);
    put_word(page, at + 12, o.insert_at);
    put_half(page, at + 16, o.used);
    page[at + 18] = o.kind;
    page[at + 19] = o.level;
    put_half(page, at + 20, o.refs);
    put_half(page, at + 22, o.flags);
    put_word(page, at + 24, o.head);
    put_half(page, at + 28, o.magic);
    put_half(page, at + 30, o.format);
}

/// Changes the special area in place.
#[inline]
pub fn edit_opaque(page: &mut Bytes, change: impl FnOnce(&mut Opaque)) {
    let mut o = opaque(page);
    change(&mut o);
    set_opaque(page, &o);
}

// The header fields of a page that are the same or follow from what is on it. (The others are PostgreSQL's: LSN, checksum.)
pub const PD_FLAGS: usize = 10;
pub const PD_LOWER: usize = 12;
pub const PD_UPPER: usize = 14;
pub const PD_SPECIAL: usize = 16;
pub const PD_VERSION: usize = 18;
pub const PD_PRUNE_XID: usize = 20;
/// Size and layout version of a page, as PostgreSQL's `PageInit` writes them.
pub const PAGE_VERSION: usize = PAGE | 4;

/// A number that PostgreSQL's page header holds.
#[inline]
fn header_field(page: &Bytes, at: usize) -> usize {
    usize::from(u16::from_ne_bytes(page[at..at + 2].try_into().unwrap()))
}

/// Whether the header has just so many bytes at the start and at the end of the contents as used. A generic WAL record takes
/// what is between them for a hole: zeroes it, and computes with its length, which nobody checks for being negative.
#[inline]
fn declares(page: &Bytes, start: usize, end: usize) -> bool {
    header_field(page, PD_LOWER) == (START + start).min(END) && header_field(page, PD_UPPER) == END - end
}

/// Whether a generic WAL record can be made of a change that makes this of a page.
#[inline]
pub fn can_be_logged(page: &Bytes) -> bool {
    let [lower, upper, special] = [PD_LOWER, PD_UPPER, PD_SPECIAL].map(|at| header_field(page, at));
    (START..=upper).contains(&lower) && upper <= special && special == END
}

/// Declares `bytes` of the contents as used.
#[inline]
fn set_used_bytes(page: &mut Bytes, bytes: usize) {
    let lower = (START + bytes).min(END) as u16;
    page[PD_LOWER..PD_LOWER + 2].copy_from_slice(&lower.to_ne_bytes());
}

/// Declares `bytes` at the end of the contents as used.
#[inline]
fn set_used_end(page: &mut Bytes, bytes: usize) {
    let upper = (END - bytes) as u16;
    page[PD_UPPER..PD_UPPER + 2].copy_from_slice(&upper.to_ne_bytes());
}

/// The contents of a page.
#[inline]
pub fn contents(page: &Bytes) -> &[u8; CAPACITY] {
    page[START..END].try_into().unwrap()
}

/// The contents of a page.
#[inline]
pub fn contents_mut(page: &mut Bytes) -> &mut [u8; CAPACITY] {
    (&mut page[START..END]).try_into().unwrap()
}

/// The contents from an offset on, and the special area behind them: what reads words may read beyond its own.
#[inline]
pub fn contents_and_behind(page: &Bytes, at: usize) -> &[u8] {
    &page[START + at..]
}

/// Where in the contents what the header declares as unused begins and ends.
#[inline]
pub fn hole(page: &Bytes) -> (usize, usize) {
    (header_field(page, PD_LOWER).saturating_sub(START), header_field(page, PD_UPPER).saturating_sub(START))
}

/// Declares what is between these offsets of the contents as unused.
#[inline]
pub fn set_hole(page: &mut Bytes, start: usize, end: usize) {
    set_used_bytes(page, start);
    set_used_end(page, CAPACITY - end);
}

/// Whether a generic WAL record can be made of a change of this page. A new one is logged as a whole.
#[inline]
pub fn can_be_changed(page: &Bytes) -> bool {
    can_be_logged(page) || page.iter().all(|&byte| byte == 0)
}

/// Makes `page` an empty page of `kind`. What it held before, if it is a page used anew, does not matter, but for one
/// thing: a reader may still hold the position of a code cell, and code pages belong to no list by which it could see
/// that the page is another one now. So a code page keeps the epoch at which it was freed.
#[inline]
pub fn init(page: &mut Bytes, kind: Kind, level: u8, list: u32) {
    let epoch = match check(page, Kind::Free) {
        Ok(free) if matches!(kind, Kind::Code) => free.epoch,
        _ => 0,
    };
    page.fill(0);
    for (at, value) in [(PD_UPPER, END), (PD_SPECIAL, END), (PD_VERSION, PAGE_VERSION)] {
        page[at..at + 2].copy_from_slice(&(value as u16).to_ne_bytes());
    }
    set_used_bytes(page, 0);
    set_opaque(
        page,
        &Opaque {
            next: NO_BLOCK,
            list,
            epoch,
            insert_at: NO_BLOCK,
            used: 0,
            kind: kind as u8,
            level,
            refs: 0,
            flags: 0,
            head: NO_BLOCK,
            magic: MAGIC,
            format: FORMAT,
        },
    );
}

/// Makes `page` a free page as of `epoch`.
#[inline]
pub fn free(page: &mut Bytes, epoch: u32) {
    init(page, Kind::Free, 0, 0);
    edit_opaque(page, |o| o.epoch = epoch);
}

/// Which of pgvector's access methods has written a page, if it is the first one of an index: it begins with a number and ends
/// with a mark of the method.
#[inline]
fn built_by_pgvector(page: &Bytes) -> Option<&'static str> {
    const CONTENTS: usize = 24;
    let (begin, end) = (&page[CONTENTS..CONTENTS + 4], &page[page.len() - 2..]);
    match (u32::from_ne_bytes(begin.try_into().ok()?), u16::from_ne_bytes(end.try_into().ok()?)) {
        (0xA953_A953, 0xFF90) => Some("hnsw"),
        (0x014F_F1A7, 0xFF84) => Some("ivfflat"),
        _ => None,
    }
}

/// Checks what every reader of a page relies on: header, magic, format, kind.
#[inline]
pub fn check(page: &Bytes, kind: Kind) -> Result<Opaque, Damage> {
    let o = check_any(page)?;
    if o.kind != kind as u8 {
        return Err(Damage::Kind(o.kind));
    }
    Ok(o)
}

/// [`check`] for a page of any kind. The header has to be what was written: where the bounds of the hole follow from more than
/// the special area tells, they are compared by who knows the layout.
pub fn check_any(page: &Bytes) -> Result<Opaque, Damage> {
    if header_field(page, PD_UPPER) == 0 && page.iter().all(|&byte| byte == 0) {
        return Err(Damage::New);
    }
    let foreign = || built_by_pgvector(page).map(Damage::Foreign);
    let same = [(PD_FLAGS, 0), (PD_VERSION, PAGE_VERSION), (PD_PRUNE_XID, 0), (PD_PRUNE_XID + 2, 0)];
    if !can_be_logged(page) || same.iter().any(|&(at, written)| header_field(page, at) != written) {
        return Err(foreign().unwrap_or(Damage::Header));
    }
    let o = opaque(page);
    if o.magic != MAGIC {
        return Err(foreign().unwrap_or(Damage::Magic));
    }
    if o.format != FORMAT {
        return Err(Damage::Format(o.format));
    }
    if o.flags & !CLOSED != 0 {
        return Err(Damage::Bounds);
    }
    let used = match o.kind {
        kind if kind == Kind::Posting as u8 || kind == Kind::Sketch as u8 => return Ok(o),
        kind if kind == Kind::Code as u8 && header_field(page, PD_UPPER) == END => return Ok(o),
        kind if (Kind::TermMeta as u8..=Kind::TermPending as u8).contains(&kind) => return Ok(o),
        kind if kind == Kind::Meta as u8 => META_END - START,
        kind if kind == Kind::Mean as u8 => 4 + 4 * usize::from(o.used),
        kind if kind == Kind::Free as u8 => 0,
        _ => return Err(Damage::Header),
    };
    if !declares(page, used, 0) {
        return Err(Damage::Header);
    }
    // What the special area has of these is no more than `init` wrote, but for a few fields.
    let (next, epoch, used) = match o.kind == Kind::Mean as u8 {
        true => (o.next, 0, o.used),
        false => (NO_BLOCK, if o.kind == Kind::Free as u8 { o.epoch } else { 0 }, 0),
    };
    let unset = (o.list, o.insert_at, o.level, o.refs, o.flags, o.head) == (0, NO_BLOCK, 0, 0, 0, NO_BLOCK);
    if unset && (o.next, o.epoch, o.used) == (next, epoch, used) { Ok(o) } else { Err(Damage::Bounds) }
}

/// Recall levels of a [`StoppingRule`].
pub const RECALLS: [f32; 16] =
    [0.50, 0.60, 0.70, 0.75, 0.80, 0.85, 0.875, 0.90, 0.925, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995];

/// Goals (rows that a search is for) that a [`StoppingRule`] is measured for.
pub const GOALS: [usize; 6] = [16, 128, 1024, 2048, 4096, 8192];

/// When a search is to stop, for each of [`GOALS`]; see `calibrate.rs`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct StoppingRule {
    pub of_goal: [Limits; GOALS.len()],
    /// Mean of the squared norms of the rows, which the inner product's angles are computed with; infinite while unknown.
    pub norm2: f32,
    unused: u32,
}

/// The same for one goal, for each level of [`RECALLS`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A list is worth a probe while the cosine of the angle that a row of it would need, and what is added for the lists
    /// read before, is at most this.
    pub limit: [f32; RECALLS.len()],
    /// Lists that a query reads on average.
    pub probes: [f32; RECALLS.len()],
}

impl Limits {
    /// Unmeasured; so many lists are read.
    pub const fn of_all(lists: f32) -> Limits {
        Limits { limit: [1.0; RECALLS.len()], probes: [lists; RECALLS.len()] }
    }

    /// All lists are due.
    pub const fn none(lists: f32) -> Limits {
        Limits { limit: [NO_LIMIT; RECALLS.len()], probes: [lists; RECALLS.len()] }
    }
}

/// [`Meta::tuning`] that changes nothing.
pub const NO_TUNING: [Limits; GOALS.len()] =
    [Limits { limit: [0.0; RECALLS.len()], probes: [1.0; RECALLS.len()] }; GOALS.len()];

/// A limit that no list exceeds, but one of radius zero.
pub const NO_LIMIT: f32 = 1e6;

impl StoppingRule {
    /// Unmeasured; so many lists are read.
    pub const fn of_all(lists: f32) -> StoppingRule {
        StoppingRule::new([Limits::of_all(lists); GOALS.len()], f32::INFINITY)
    }

    pub const fn new(of_goal: [Limits; GOALS.len()], norm2: f32) -> StoppingRule {
        StoppingRule { of_goal, norm2, unused: 0 }
    }
}

/// Content of the meta page.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    magic: u32,
    format: u32,
    /// Dimensions of the indexed column.
    pub dims: u32,
    /// Metric and element type, as the operator class's support function names them.
    pub operator: u32,
    /// Seed of the rotation.
    pub seed: u64,
    /// Bits per dimension of the rows' extended codes: 0 (none), 4 or 8; or [`OWN_BITS`].
    pub bits: u32,
    /// Scalar filter columns.
    pub filters: u32,
    /// Levels above the leaves: 0 when the root is a list of rows.
    pub height: u32,
    /// Head page of the root list.
    pub root: u32,
    /// Identity of the root list.
    pub root_list: u32,
    /// Identities handed out so far.
    pub last_list: u32,
    /// First page of the data mean, or [`NO_BLOCK`] for a mean of zero.
    pub mean: u32,
    /// Lists of rows.
    pub lists: u32,
    /// Rows in the index when it was built.
    pub rows: u64,
    pub rule: StoppingRule,
    /// What a user's own queries need beyond `rule`, which is measured by rows: what is added to limits, and multiplied with probes.
    pub tuning: [Limits; GOALS.len()],
    /// Structural changes so far: raised by each record that takes a list out of the tree or moves entries.
    pub epoch: u32,
    /// Epoch at which `mean` was set.
    pub mean_epoch: u32,
    /// Rows that a list should hold; see [`Meta::split_at`].
    pub target: u32,
    /// Lists when the stopping rule was measured.
    pub calibrated: u32,
    /// Queries that it was measured by last.
    pub calibrated_by: u32,
    /// Queries that `tuning` was measured by; 0 for none.
    pub tuned_by: u32,
    /// What rows of the table may not be in the index: [`LEFT_OUT_NULL`], [`LEFT_OUT_NOWHERE`].
    pub left_out: u32,
    /// Code pages whose free cells at the end new blocks take, of lists of rows and of lists of lists, or [`NO_BLOCK`].
    pub open_code: [u32; 2],
    /// Mean of the squared residuals of the rows; NaN while that is not known.
    pub spread: f32,
    /// Lists (or 0) into which entries of other lists were copied that may not have been taken out there yet.
    pub pending: [u32; PENDING],
    /// Lists split so far.
    pub splits: u64,
    /// Lists merged away so far.
    pub merges: u64,
    /// Rows that VACUUM has removed, and pages of the index, when it has last read all of it (see `tidy.rs`): the former
    /// since then.
    pub removed: u64,
    pub surveyed: u32,
    /// [`UNFINISHED`] while a change of the structure writes and frees pages, [`BROKEN_OFF`] once one is known not to have come
    /// to its end: then there may be pages that nothing refers to.
    pub unfinished: u32,
    /// What the keys of each filter column stand for, a kind of keys.
    pub kinds: [u8; MAX_FILTERS],
    /// To a multiple of 8: all bytes of the page are known.
    padding: [u8; MAX_FILTERS.next_multiple_of(8) - MAX_FILTERS],
}

/// Where `tests/harness/pages.py` finds them.
const _: () = assert!(std::mem::offset_of!(Meta, last_list) == 44 && std::mem::offset_of!(Meta, epoch) == 1608);
const _: () = assert!(size_of::<Meta>() == 1744);

/// Rows that a list should hold, at least: however many lists the user asks for, one with no more is not split.
pub const LEAST_TARGET: u32 = 32;
/// Identities of lists and epochs are never used again. With no more of them left than this the structure stays as it is, see
/// [`Meta::is_spent`]; what is to be completed then takes far fewer than half of them.
const RESERVE: u32 = 1 << 20;
/// Limits of what the distance between its rows changes of the number of rows at which a list is split.
const DENSEST: f32 = 0.6;
const SPARSEST: f32 = 2.0;
/// See [`Meta::unfinished`].
pub const UNFINISHED: u32 = 1;
pub const BROKEN_OFF: u32 = 2;
/// Flags of [`Meta::left_out`]: rows whose vector is NULL, and rows whose vector has no direction, under cosine distance.
pub const LEFT_OUT_NULL: u32 = 1;
pub const LEFT_OUT_NOWHERE: u32 = 2;
/// Places of [`Meta::pending`].
pub const PENDING: usize = 8;

impl Meta {
    /// Meta data of an empty index whose root list has identity 1. `kinds`: one a filter column.
    pub fn new(dims: u32, operator: u32, seed: u64, bits: u32, kinds: &[u8]) -> Meta {
        const EMPTY: Meta = Meta {
            magic: META_MAGIC,
            format: FORMAT as u32,
            dims: 0,
            operator: 0,
            seed: 0,
            bits: 0,
            filters: 0,
            height: 0,
            root: NO_BLOCK,
            root_list: 1,
            last_list: 1,
            mean: NO_BLOCK,
            lists: 1,
            rows: 0,
            rule: StoppingRule::of_all(1.0),
            tuning: NO_TUNING,
            epoch: 0,
            mean_epoch: 0,
            target: 0,
            calibrated: 1,
            calibrated_by: 0,
            tuned_by: 0,
            left_out: 0,
            open_code: [NO_BLOCK; 2],
            spread: f32::NAN,
            pending: [0; PENDING],
            splits: 0,
            merges: 0,
            removed: 0,
            surveyed: 0,
            unfinished: 0,
            kinds: [0; MAX_FILTERS],
            padding: [0; MAX_FILTERS.next_multiple_of(8) - MAX_FILTERS],
        };
        // SAFETY: of one size. Does not compile where a byte belongs to no field: it would be undefined on the page.
        const _: [u8; size_of::<Meta>()] = unsafe { std::mem::transmute(EMPTY) };
        let mut meta = Meta { dims, operator, seed, bits, filters: kinds.len() as u32, ..EMPTY };
        meta.kinds[..kinds.len()].copy_from_slice(kinds);
        meta.target = Layout::new(meta.shape(), false).target_rows() as u32;
        meta
    }

    /// Rows from which on a list is split: a quarter more than the target, more where rows are dense and fewer where they are
    /// far apart. Then all lists have about the same sum of squared residuals, as those of a k-means have, which is best
    /// for the search. `radius`: the list's.
    #[inline]
    pub fn split_at(&self, radius: f32) -> usize {
        let most = self.target as f32 * 5.0 / 4.0;
        let share = self.spread / (radius * radius);
        (most * if share.is_nan() { 1.0 } else { share.clamp(DENSEST, SPARSEST) }) as usize
    }

    /// Whether identities of lists or epochs are used up: lists are neither split nor merged any more, as there is nothing by
    /// which searches could see what is new. REINDEX begins anew.
    #[inline]
    pub fn is_spent(&self) -> bool {
        self.last_list.max(self.epoch) > u32::MAX - RESERVE
    }

    /// Raises the epoch.
    #[inline]
    pub fn raise_epoch(&mut self) {
        self.epoch = self.epoch.checked_add(1).expect("a reserve of epochs");
    }

    /// How many rows there are about, as far as the number of lists tells.
    #[inline]
    pub fn likely_rows(&self) -> usize {
        self.lists as usize * self.target as usize
    }

    /// What the entries consist of.
    #[inline]
    pub fn shape(&self) -> Shape {
        Shape {
            padded: ann::quantize::padded_dims(self.dims as usize),
            bits: self.bits,
            filters: self.filters as usize,
        }
    }

    /// Reads the meta page.
    #[inline]
    pub fn read(page: &Bytes) -> Result<Meta, Damage> {
        check(page, Kind::Meta)?;
        // SAFETY: the contents hold at least size_of::<Meta>() bytes; all bit patterns are valid for its fields.
        let meta: Meta = unsafe { std::ptr::read_unaligned(page[START..].as_ptr().cast()) };
        if meta.magic != META_MAGIC {
            return Err(Damage::Magic);
        }
        if meta.format != FORMAT as u32 {
            return Err(Damage::Format(meta.format as u16));
        }
        if Checksum::of_bytes(&page[START..AT_META_SUM]).long() != word(page, AT_META_SUM) {
            return Err(Damage::Checksum);
        }
        if meta.dims == 0
            || meta.dims > MAX_DIMS
            || meta.height > MAX_HEIGHT
            || ![0, OWN_BITS, 4, 8].contains(&meta.bits)
            || meta.filters as usize > MAX_FILTERS
            || meta.target < LEAST_TARGET
            || meta.last_list.max(meta.epoch) > u32::MAX - RESERVE / 2
        {
            return Err(Damage::Bounds);
        }
        Ok(meta)
    }

    /// Writes the meta page (made by [`init`]).
    #[inline]
    pub fn write(&self, page: &mut Bytes) {
        // SAFETY: room was asserted.
        unsafe { std::ptr::write_unaligned(page[START..].as_mut_ptr().cast(), *self) };
        let sum = Checksum::of_bytes(&page[START..AT_META_SUM]).long();
        put_word(page, AT_META_SUM, sum);
        set_used_bytes(page, META_END - START);
    }
}

/// Where in the contents of the meta page the checksum of its [`Meta`] is: behind that. Behind both is what no search has to read.
pub const META_SUM: std::ops::Range<usize> = size_of::<Meta>()..size_of::<Meta>() + 4;
const AT_META_SUM: usize = START + META_SUM.start;
const AT_MEASURING: usize = AT_META_SUM + 4;
const META_END: usize = AT_MEASURING + size_of::<Measuring>() + 4;
const _: () = assert!(META_END <= END);

/// Limits that a measurement tries.
pub const TRIED: usize = 56;

/// A measurement of the stopping rule that INSERTs bring forward, each a little (see `recalibrate.rs`): on the meta page, behind
/// [`Meta`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Measuring {
    /// Lists that there were when it began; 0: none is under way.
    pub lists: u32,
    /// Of the data mean that the index had then.
    pub mean_epoch: u32,
    /// Which of [`GOALS`] is measured, by how many queries, how many of these have been tried, and how many saw enough.
    pub goal: u32,
    pub queries: u32,
    pub asked: u32,
    pub seen: u32,
    /// Sums of the squared norms of queries and of the squared radii of their lists, and how many these are.
    pub norm2: f32,
    pub spread: f32,
    pub usual: u32,
    pub tried: [Tried; TRIED],
}

/// A limit, and what all queries together found and read under it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    pub limit: f32,
    pub found: u32,
    pub scanned: u32,
}

impl Measuring {
    /// More are asked for no goal.
    pub const MOST_QUERIES: u32 = 1024;

    pub const NONE: Measuring = Measuring {
        lists: 0,
        mean_epoch: 0,
        goal: 0,
        queries: 0,
        asked: 0,
        seen: 0,
        norm2: 0.0,
        spread: 0.0,
        usual: 0,
        tried: [Tried { limit: 0.0, found: 0, scanned: 0 }; TRIED],
    };

    /// Of a meta page. Nothing is lost if it is damaged: then it begins anew.
    #[inline]
    pub fn read(page: &Bytes) -> Measuring {
        // SAFETY: META_END is within the page; all bit patterns are valid for its fields.
        let read: Measuring = unsafe { std::ptr::read_unaligned(page[AT_MEASURING..].as_ptr().cast()) };
        let sum = Checksum::of_bytes(&page[AT_MEASURING..META_END - 4]).long();
        let fits = (read.goal as usize) < GOALS.len()
            && read.seen <= read.asked
            && read.asked <= read.queries
            && read.queries <= Measuring::MOST_QUERIES;
        if fits && sum == word(page, META_END - 4) { read } else { Measuring::NONE }
    }

    /// Writes it on a meta page.
    #[inline]
    pub fn write(&self, page: &mut Bytes) {
        // SAFETY: META_END is within the page.
        unsafe { std::ptr::write_unaligned(page[AT_MEASURING..].as_mut_ptr().cast(), *self) };
        let sum = Checksum::of_bytes(&page[AT_MEASURING..META_END - 4]).long();
        put_word(page, META_END - 4, sum);
    }
}

/// [`Shape::bits`] of rows that are bit strings: their sketch holds them as they are, and there are no codes.
pub const OWN_BITS: u32 = 1;
/// Most dimensions that can be indexed: those of bit strings.
pub const MAX_DIMS: u32 = 64_000;
/// The same for vectors.
pub const MAX_VECTOR_DIMS: u32 = 16_000;
/// Most filter columns: so many keys fit a posting page beside all that else must be on it.
pub const MAX_FILTERS: usize = 27;
/// Most levels of inner lists; 128^8 lists are more than pages can number.
pub const MAX_HEIGHT: u32 = 8;

/// Floats of the mean on one page.
pub const MEAN_FLOATS: usize = CAPACITY / 4 - 1;

/// Writes a stretch of the mean, behind its checksum.
#[inline]
pub fn write_mean(page: &mut Bytes, values: &[f32]) {
    let at = START + 4;
    for (i, &v) in values.iter().enumerate() {
        put_float(page, at + 4 * i, v);
    }
    let sum = Checksum::of_bytes(&page[at..at + 4 * values.len()]).long();
    put_word(page, START, sum);
    edit_opaque(page, |o| o.used = values.len() as u16);
    set_used_bytes(page, 4 + 4 * values.len());
}

/// Reads a stretch of the mean.
#[inline]
pub fn read_mean(page: &Bytes) -> Result<&[f32], Damage> {
    let n = check(page, Kind::Mean)?.used as usize;
    if n > MEAN_FLOATS {
        return Err(Damage::Bounds);
    }
    let at = START + 4;
    if Checksum::of_bytes(&page[at..at + 4 * n]).long() != word(page, START) {
        return Err(Damage::Checksum);
    }
    Ok(float_slice(page, at, n))
}

/// What the entries of an index consist of: what all layouts follow from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Padded dimensions.
    pub padded: usize,
    /// Bits per dimension of the rows' extended codes: 0, 4 or 8; or [`OWN_BITS`]. Centroids have 8.
    pub bits: u32,
    /// Scalar filter columns.
    pub filters: usize,
}

/// Where the parts of posting blocks and code cells are, for one index and one level.
///
/// A posting block of 32 entries:
///
/// ```text
/// 0    live          u32        bit i: slot i holds a row
/// 4    dead          u32        bit i: that row is dead to all. A hint: not logged, and not heeded on a standby
/// 8    constant      f32 x 32   SketchFactors, by column
/// 136  scale         u16 x 32
/// 200  error         u16 x 32
/// 264  tid           6 x 32     inner level: head page of the child list, and 0
/// 456  runs          8 x n      where the cells of slots 0 .. 31 are, in order, see Run
///      sketch_pages  u32 x n    the pages that continue the sketches
///      inner level:  child list identity u32 x 32, radius f32 x 32, squared norm f32 x 32
///      leaf level:   for each filter column, 32-byte aligned, keys u64 x 32; then for each, NULLs u32 (bit i: slot i)
///      sketches      16 x groups, 32-byte aligned
/// ```
///
/// A cell: constant f32, scale f32 and error u16 of the code, a [`Checksum`] u16, and the code. Cells lie on code pages, and at
/// the end of their own list's posting and sketch pages where a build found room, the first one last.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Padded dimensions.
    pub padded: usize,
    /// Bits of the codes; without them there are no cells.
    pub bits: Option<Bits>,
    /// The sketches are the rows themselves, bit strings.
    pub own_bits: bool,
    /// Nibble groups of a sketch: padded / 2; of bit strings padded / 4.
    pub groups: usize,
    /// Groups on the posting page; the rest is on sketch pages.
    pub inline_groups: usize,
    /// Sketch pages of a block.
    pub sketch_pages: usize,
    /// Runs of cells that a block can have.
    pub runs: usize,
    /// Bytes of a cell.
    cell: usize,
    /// Cells on a code page (1 when a cell spans pages).
    pub cells: usize,
    /// Pages of a cell.
    pub cell_pages: usize,
    /// Bytes of a posting block.
    pub block: usize,
    /// Blocks on a posting page.
    pub blocks: usize,
    /// Blocks of lists of lists.
    pub inner: bool,
    /// Filter columns.
    pub filters: usize,
    at_sketch_pages: usize,
    at_children: usize,
    at_keys: usize,
    at_nulls: usize,
    at_groups: usize,
}

const AT_LIVE: usize = 0;
const AT_DEAD: usize = 4;
const AT_CONSTANT: usize = 8;
const AT_SCALE: usize = AT_CONSTANT + 4 * BLOCK;
const AT_ERROR: usize = AT_SCALE + 2 * BLOCK;
const AT_TID: usize = AT_ERROR + 2 * BLOCK;
const AT_RUNS: usize = AT_TID + 6 * BLOCK;
// Tests damage what is there.
const _: () = assert!(AT_LIVE == 0 && AT_CONSTANT == 8 && AT_TID == 264 && AT_RUNS == 456 && RUN == 8);
/// Bytes of a [`Run`].
const RUN: usize = 8;
const GROUP: usize = 16;
/// Bytes of the factors before a code; on inner levels the identity of the child list and the summaries of its filter
/// columns follow them.
const CELL_HEADER: usize = 12;
const AT_SUM: usize = 10;
const INNER_CELL_HEADER: usize = CELL_HEADER + 4;
/// Groups on one sketch page.
const SKETCH_PAGE_GROUPS: usize = CAPACITY / GROUP;
/// Set in the number of a cell that is counted from the end of its page.
const FROM_END: u16 = 0x8000;

/// Cells of successive slots that lie one after another on a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    pub page: u32,
    /// Number of the first cell.
    pub first: u16,
    pub count: u16,
}

impl Layout {
    /// Layout of an index's entries, on leaf or on inner levels.
    pub fn new(shape: Shape, inner: bool) -> Layout {
        let Shape { padded, filters, .. } = shape;
        let bits = match shape.bits {
            _ if inner => Some(Bits::Eight),
            0 | OWN_BITS => None,
            4 => Some(Bits::Four),
            _ => Some(Bits::Eight),
        };
        let header = if inner { INNER_CELL_HEADER + filters * Summary::BYTES } else { CELL_HEADER };
        let cell = bits.map_or(0, |bits| header + bits.bytes(padded));
        let (cells, cell_pages, runs) = match cell {
            0 => (0, 0, 0),
            // Slot 0 may be on any cell of the first code page; and a run at the end of another page.
            _ if cell <= CAPACITY => (CAPACITY / cell, 1, (CAPACITY / cell - 1 + BLOCK).div_ceil(CAPACITY / cell) + 1),
            _ => (1, cell.div_ceil(CAPACITY), BLOCK * cell.div_ceil(CAPACITY)),
        };
        let own_bits = !inner && shape.bits == OWN_BITS;
        let groups = if own_bits { padded / 4 } else { padded / 2 };
        let at_sketch_pages = AT_RUNS + RUN * runs;
        let mut sketch_pages = 0;
        loop {
            let at_children = at_sketch_pages + 4 * sketch_pages;
            let at_keys = (at_children + if inner { 12 * BLOCK } else { 0 }).next_multiple_of(32);
            let at_nulls = at_keys + if inner { 0 } else { 8 * BLOCK * filters };
            let at_groups = (at_nulls + if inner { 0 } else { 4 * filters }).next_multiple_of(32);
            let inline_groups = groups.min((CAPACITY - at_groups) / GROUP);
            if inline_groups + sketch_pages * SKETCH_PAGE_GROUPS >= groups {
                let block = (at_groups + inline_groups * GROUP).next_multiple_of(32);
                return Layout {
                    padded,
                    bits,
                    own_bits,
                    groups,
                    inline_groups,
                    sketch_pages,
                    runs,
                    cell,
                    cells,
                    cell_pages,
                    block,
                    blocks: CAPACITY / block,
                    inner,
                    filters,
                    at_sketch_pages,
                    at_children,
                    at_keys,
                    at_nulls,
                    at_groups,
                };
            }
            sketch_pages += 1;
        }
    }

    /// Bytes of an entry's code.
    #[inline]
    pub fn code_bytes(&self) -> usize {
        self.bits.map_or(0, |bits| bits.bytes(self.padded))
    }

    /// Cells that fit on a posting page behind so many blocks.
    #[inline]
    pub fn cells_behind(&self, blocks: usize) -> usize {
        (CAPACITY - blocks * self.block).checked_div(self.cell).unwrap_or(0)
    }

    /// Cells that fit on a block's last sketch page, behind the sketches.
    #[inline]
    pub fn cells_behind_sketches(&self) -> usize {
        let Some(last) = self.sketch_pages.checked_sub(1) else {
            return 0;
        };
        (CAPACITY - GROUP * self.part(last).len()).checked_div(self.cell).unwrap_or(0)
    }

    /// Rows that a list should hold. Small lists scan fewest entries; but a page that is not filled wastes its reading, and
    /// its room unless there are codes to fill that. Of bit strings a page holds many, whose scan costs little.
    #[inline]
    pub fn target_rows(&self) -> usize {
        if self.own_bits {
            return (5 * self.entries_per_page()).clamp(128, 2048);
        }
        if self.bits.is_some() { (self.entries_per_page() * 3 / 5).clamp(96, 128) } else { 256 }
    }

    /// Entries on a full posting page.
    #[inline]
    pub fn entries_per_page(&self) -> usize {
        self.blocks * BLOCK
    }

    /// The groups on sketch page `part`.
    #[inline]
    pub fn part(&self, part: usize) -> std::ops::Range<usize> {
        let from = self.inline_groups + part * SKETCH_PAGE_GROUPS;
        from..(from + SKETCH_PAGE_GROUPS).min(self.groups)
    }

    /// The code's bytes on page `part` of a cell.
    #[inline]
    fn code_range(&self, part: usize) -> std::ops::Range<usize> {
        let header = self.cell_header();
        let from = if part == 0 { 0 } else { part * CAPACITY - header };
        from..((part + 1) * CAPACITY - header).min(self.code_bytes())
    }

    #[inline]
    fn cell_header(&self) -> usize {
        self.cell - self.code_bytes()
    }

    /// Whether a posting or sketch page may have so many cells at its end.
    #[inline]
    fn may_end_with(&self, cells: u16) -> bool {
        cells == 0 || self.cell_pages == 1
    }

    /// The bytes of a cell on its first page; None when the number is out of bounds.
    #[inline]
    fn cell_range(&self, cell: u16) -> Option<std::ops::Range<usize>> {
        let number = usize::from(cell & !FROM_END);
        let bytes = self.cell.min(CAPACITY);
        if cell & FROM_END == 0 {
            return (number < self.cells).then(|| START + number * bytes..START + (number + 1) * bytes);
        }
        let at = END.checked_sub((number + 1) * bytes)?;
        (at >= START && self.cell_pages == 1).then(|| at..at + bytes)
    }
}

/// A checked posting page.
#[derive(Clone, Copy)]
pub struct Posting<'p> {
    page: &'p Bytes,
    layout: &'p Layout,
    /// The special area.
    pub opaque: Opaque,
}

impl<'p> Posting<'p> {
    /// Checks that `page` is a posting page of `list` (0: of any list) on the layout's level.
    #[inline]
    pub fn open(page: &'p Bytes, layout: &'p Layout, list: u32) -> Result<Posting<'p>, Damage> {
        let opaque = check(page, Kind::Posting)?;
        if list != 0 && opaque.list != list {
            return Err(Damage::List(opaque.list));
        }
        let (blocks, cells) = (usize::from(opaque.used) * layout.block, usize::from(opaque.refs) * layout.cell);
        if blocks + cells > CAPACITY || !layout.may_end_with(opaque.refs) || (opaque.level > 0) != layout.inner {
            return Err(Damage::Bounds);
        }
        if !declares(page, blocks, cells) {
            return Err(Damage::Header);
        }
        Ok(Posting { page, layout, opaque })
    }

    /// Blocks in use.
    #[inline]
    pub fn blocks(&self) -> usize {
        self.opaque.used as usize
    }

    /// Where an entry can be put, but not in one of the `taken` (block, slot).
    #[inline]
    pub fn room(&self, taken: impl Fn(usize, usize) -> bool) -> Option<Room> {
        for b in 0..self.blocks() {
            let block = self.block(b);
            let (mut free, slots) = (!block.live(), block.slots());
            while free != 0 && (free.trailing_zeros() as usize) < slots {
                let slot = free.trailing_zeros() as usize;
                if !taken(b, slot) {
                    return Some(Room::Slot(b, slot));
                }
                free &= free - 1;
            }
            if slots < BLOCK && block.free_run().is_some() {
                return Some(Room::More(b, slots));
            }
        }
        let cells = usize::from(self.opaque.refs) * self.layout.cell;
        let fits = (self.blocks() + 1) * self.layout.block + cells <= CAPACITY;
        (self.blocks() < self.layout.blocks && fits).then_some(Room::Block)
    }

    /// Block `b`.
    #[inline]
    pub fn block(&self, b: usize) -> Block<'p> {
        assert!(b < self.layout.blocks);
        Block { page: self.page, layout: self.layout, at: START + b * self.layout.block }
    }
}

/// Where a posting page has room for an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// This slot of this block.
    Slot(usize, usize),
    /// This slot of this block, once the block has been given one more run of cells.
    More(usize, usize),
    /// A new block.
    Block,
}

/// One block of 32 entries on a checked posting page.
#[derive(Clone, Copy)]
pub struct Block<'p> {
    page: &'p Bytes,
    layout: &'p Layout,
    at: usize,
}

impl<'p> Block<'p> {
    /// Bit i: slot i holds a row.
    #[inline]
    pub fn live(&self) -> u32 {
        word(self.page, self.at + AT_LIVE)
    }

    /// Bit i: the row of slot i has been found to be dead to all snapshots (of this server, not of its standbys).
    #[inline]
    pub fn dead(&self) -> u32 {
        word(self.page, self.at + AT_DEAD)
    }

    /// Where on the page [`Block::dead`] is.
    #[inline]
    pub fn dead_at(&self) -> usize {
        self.at + AT_DEAD
    }

    /// Slots that can be used: where cells have one page each, those that have one (fewer than 32 in blocks that a build made).
    #[inline]
    pub fn slots(&self) -> usize {
        if self.layout.cell_pages == 1 { self.cells().min(BLOCK) } else { BLOCK }
    }

    /// Cells in the block's runs.
    #[inline]
    fn cells(&self) -> usize {
        self.runs().map(|run| usize::from(run.count)).sum()
    }

    /// Checks the numbers at the block's head.
    #[inline]
    pub fn check(&self) -> Result<(), Damage> {
        let slots = if self.layout.cell_pages == 1 { self.cells() } else { BLOCK };
        // Cells of several pages begin at the beginning of each.
        let sound = self.layout.cell_pages < 2 || self.runs().all(|run| run.first == 0 && run.count == 1);
        let fits = sound && (1..=BLOCK).contains(&slots);
        if fits && self.live().checked_shr(slots as u32).unwrap_or(0) == 0 { Ok(()) } else { Err(Damage::Bounds) }
    }

    /// The sketch factors of all slots.
    #[inline]
    pub fn factors(&self) -> BlockFactors<'p> {
        BlockFactors {
            constant: floats(self.page, self.at + AT_CONSTANT),
            scale: halves(self.page, self.at + AT_SCALE),
            error: halves(self.page, self.at + AT_ERROR),
        }
    }

    /// The sketch factors of a slot.
    #[inline]
    pub fn sketch(&self, slot: usize) -> SketchFactors {
        let BlockFactors { constant, scale, error } = self.factors();
        let unpack = factor::unpack;
        SketchFactors { constant: constant[slot], scale: unpack(scale[slot]), error: unpack(error[slot]) }
    }

    /// The code pages that the block's cells are on, one for each run there.
    #[inline]
    pub fn all_code_pages(&self) -> impl Iterator<Item = u32> {
        self.runs().filter(|run| run.first & FROM_END == 0).map(|run| run.page)
    }

    /// The pages that continue the block's sketches.
    #[inline]
    pub fn all_sketch_pages(&self) -> impl Iterator<Item = u32> {
        let block = *self;
        (0..block.layout.sketch_pages).map(move |i| block.sketch_page(i)).filter(|&page| page != NO_BLOCK)
    }

    /// The part of the sketches that is on this page.
    #[inline]
    pub fn groups(&self) -> &'p [u8] {
        let at = self.at + self.layout.at_groups;
        &self.page[at..at + self.layout.inline_groups * GROUP]
    }

    /// TID of a slot.
    #[inline]
    pub fn tid(&self, slot: usize) -> Tid {
        let at = self.at + AT_TID + 6 * slot;
        Tid(self.page[at..at + 6].try_into().unwrap())
    }

    /// TIDs of all slots.
    #[inline]
    pub fn tids(&self) -> &'p [Tid; BLOCK] {
        let at = self.at + AT_TID;
        let bytes: &[u8; 6 * BLOCK] = self.page[at..at + 6 * BLOCK].try_into().unwrap();
        // SAFETY: a Tid is 6 bytes without an alignment, any of which are valid.
        unsafe { &*bytes.as_ptr().cast() }
    }

    /// Child list of a slot on an inner level.
    #[inline]
    pub fn child(&self, slot: usize) -> Child {
        assert!(self.layout.inner && slot < BLOCK);
        let at = self.at + self.layout.at_children;
        Child {
            head: self.tid(slot).block(),
            list: word(self.page, at + 4 * slot),
            radius: float(self.page, at + 4 * BLOCK + 4 * slot),
            norm2: float(self.page, at + 8 * BLOCK + 4 * slot),
        }
    }

    /// Radius and squared norm of the child lists of all slots, on an inner level.
    #[inline]
    pub fn child_columns(&self) -> (&'p [f32; BLOCK], &'p [f32; BLOCK]) {
        assert!(self.layout.inner);
        let at = self.at + self.layout.at_children;
        (floats(self.page, at + 4 * BLOCK), floats(self.page, at + 8 * BLOCK))
    }

    /// The keys of a filter column.
    #[inline]
    pub fn keys(&self, column: usize) -> &'p Keys {
        assert!(!self.layout.inner && column < self.layout.filters);
        let at = self.at + self.layout.at_keys + 8 * BLOCK * column;
        let bytes = &self.page[at..at + 8 * BLOCK];
        assert!(bytes.as_ptr().addr().is_multiple_of(8));
        // SAFETY: the slice has 8 * BLOCK bytes, is aligned for u64 (asserted), and any bits are a valid u64.
        unsafe { &*bytes.as_ptr().cast() }
    }

    /// Bit i: slot i has NULL in a filter column.
    #[inline]
    pub fn nulls(&self, column: usize) -> u32 {
        assert!(!self.layout.inner && column < self.layout.filters);
        word(self.page, self.at + self.layout.at_nulls + 4 * column)
    }

    /// The filter columns of a slot.
    #[inline]
    pub fn row(&self, slot: usize) -> RowKeys {
        let mut row = RowKeys::new(self.layout.filters);
        for column in 0..self.layout.filters {
            row.set(column, (self.nulls(column) >> slot & 1 == 0).then(|| self.keys(column)[slot]));
        }
        row
    }

    /// Place `i` for a run of cells: page [`NO_BLOCK`] and count 0 where none is. For cells of several pages, the page of part
    /// i % cell_pages of slot i / cell_pages.
    #[inline]
    pub fn run(&self, i: usize) -> Run {
        assert!(i < self.layout.runs);
        let at = self.at + AT_RUNS + RUN * i;
        let count = half(self.page, at + 6);
        let page = if count == 0 { NO_BLOCK } else { word(self.page, at) };
        Run { page, first: half(self.page, at + 4), count }
    }

    /// The runs of the block's cells, in the order of the slots.
    #[inline]
    pub fn runs(&self) -> impl Iterator<Item = Run> {
        let block = *self;
        (0..block.layout.runs).map(move |i| block.run(i)).filter(|run| run.count > 0)
    }

    /// The first place where a run can be added.
    #[inline]
    pub fn free_run(&self) -> Option<usize> {
        (0..self.layout.runs).find(|&i| self.run(i).count == 0)
    }

    /// Page number of part `i` of the sketches.
    #[inline]
    pub fn sketch_page(&self, i: usize) -> u32 {
        assert!(i < self.layout.sketch_pages);
        word(self.page, self.at + self.layout.at_sketch_pages + 4 * i)
    }

    /// Where the cell of `slot` is: page number ([`NO_BLOCK`] while there is none) and cell; None when the block's header is
    /// damaged. A cell of several pages goes on on the `next` ones.
    #[inline]
    pub fn cell(&self, slot: usize) -> Option<(u32, u16)> {
        match self.layout.cell_pages {
            0 => return Some((NO_BLOCK, 0)),
            1 => {}
            pages => return Some((self.run(slot * pages).page, 0)),
        }
        let mut slot = slot as u16;
        for i in 0..self.layout.runs {
            let run = self.run(i);
            if slot < run.count {
                return Some((run.page, run.first.checked_add(slot)?));
            }
            slot -= run.count;
        }
        None
    }
}

/// A child list as an inner entry names it.
#[derive(Clone, Copy, Debug)]
pub struct Child {
    /// Head page.
    pub head: u32,
    /// Identity.
    pub list: u32,
    /// Root mean square of the norms of the residuals of its rows when it was made.
    pub radius: f32,
    /// Squared norm of its centroid (in the index's coordinates).
    pub norm2: f32,
}

/// A heap TID as it is stored: block number (high half first) and offset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Tid(pub [u8; 6]);

impl Tid {
    /// From its parts.
    #[inline]
    pub fn new(block: u32, offset: u16) -> Tid {
        let (b, o) = (block.to_be_bytes(), offset.to_be_bytes());
        Tid([b[0], b[1], b[2], b[3], o[0], o[1]])
    }

    /// Block number.
    #[inline]
    pub fn block(self) -> u32 {
        u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }

    /// Item number within the block.
    #[inline]
    pub fn offset(self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }
}

/// Changes to posting page `page`, which the caller has locked and checked.
pub struct PostingMut<'p> {
    page: &'p mut Bytes,
    layout: &'p Layout,
}

impl<'p> PostingMut<'p> {
    /// `page` is a checked posting page, or one made by [`init`].
    #[inline]
    pub fn new(page: &'p mut Bytes, layout: &'p Layout) -> PostingMut<'p> {
        PostingMut { page, layout }
    }

    #[inline]
    fn at(&self, b: usize) -> usize {
        assert!(b < self.layout.blocks);
        START + b * self.layout.block
    }

    /// Appends an empty block whose cells are in `runs`; returns its number.
    #[inline]
    pub fn add_block(&mut self, runs: &[Run]) -> usize {
        let b = opaque(self.page).used as usize;
        let at = self.at(b);
        self.page[at..at + self.layout.block].fill(0);
        for (i, run) in runs.iter().enumerate() {
            self.set_run(b, i, run);
        }
        for i in 0..self.layout.sketch_pages {
            self.set_sketch_page(b, i, NO_BLOCK);
        }
        edit_opaque(self.page, |o| o.used = b as u16 + 1);
        set_used_bytes(self.page, (b + 1) * self.layout.block);
        b
    }

    /// Sets or clears the live bit of a slot. Whoever was in it is not there any more, dead or not.
    #[inline]
    pub fn set_live_bit(&mut self, b: usize, slot: usize, live: bool) {
        assert!(slot < BLOCK);
        let (at, dead_at) = (self.at(b) + AT_LIVE, self.at(b) + AT_DEAD);
        let mask = word(self.page, at) & !(1 << slot) | u32::from(live) << slot;
        put_word(self.page, at, mask);
        let dead = word(self.page, dead_at) & !(1 << slot);
        put_word(self.page, dead_at, dead);
    }

    /// Sets the live mask.
    #[inline]
    pub fn set_live(&mut self, b: usize, live: u32) {
        let at = self.at(b) + AT_LIVE;
        put_word(self.page, at, live);
    }

    /// Writes run `i` of the cells.
    #[inline]
    pub fn set_run(&mut self, b: usize, i: usize, run: &Run) {
        assert!(i < self.layout.runs);
        let at = self.at(b) + AT_RUNS + RUN * i;
        put_word(self.page, at, run.page);
        put_half(self.page, at + 4, run.first);
        put_half(self.page, at + 6, run.count);
    }

    /// Names page `i` of the sketches' continuation.
    #[inline]
    pub fn set_sketch_page(&mut self, b: usize, i: usize, page: u32) {
        assert!(i < self.layout.sketch_pages);
        let at = self.at(b) + self.layout.at_sketch_pages + 4 * i;
        put_word(self.page, at, page);
    }

    /// Writes factors and TID of a slot; its sketch and live bit are separate.
    #[inline]
    pub fn set_entry(&mut self, b: usize, slot: usize, tid: Tid, f: &SketchFactors) {
        assert!(slot < BLOCK);
        let at = self.at(b);
        put_float(self.page, at + AT_CONSTANT + 4 * slot, f.constant);
        put_half(self.page, at + AT_SCALE + 2 * slot, factor::pack(f.scale));
        put_half(self.page, at + AT_ERROR + 2 * slot, factor::pack(f.error));
        self.page[at + AT_TID + 6 * slot..][..6].copy_from_slice(&tid.0);
    }

    /// Writes identity, radius and squared norm of a child list.
    #[inline]
    pub fn set_child(&mut self, b: usize, slot: usize, child: &Child) {
        assert!(self.layout.inner && slot < BLOCK);
        let at = self.at(b) + self.layout.at_children;
        put_word(self.page, at + 4 * slot, child.list);
        put_float(self.page, at + 4 * BLOCK + 4 * slot, child.radius);
        put_float(self.page, at + 8 * BLOCK + 4 * slot, child.norm2);
    }

    /// Writes the filter columns of a slot.
    #[inline]
    pub fn set_keys(&mut self, b: usize, slot: usize, row: &RowKeys) {
        assert!(slot < BLOCK && row.keys.len() == self.layout.filters);
        let (keys, nulls) = (self.at(b) + self.layout.at_keys, self.at(b) + self.layout.at_nulls);
        for (column, key) in row.keys.iter().enumerate() {
            let at = keys + 8 * (BLOCK * column + slot);
            self.page[at..at + 8].copy_from_slice(&key.to_le_bytes());
            let mask = word(self.page, nulls + 4 * column) & !(1 << slot);
            put_word(self.page, nulls + 4 * column, mask | (row.nulls >> column & 1) << slot);
        }
    }

    /// The part of the sketches that is on this page.
    #[inline]
    pub fn groups(&mut self, b: usize) -> &mut [u8] {
        let at = self.at(b) + self.layout.at_groups;
        &mut self.page[at..at + self.layout.inline_groups * GROUP]
    }
}

/// The sketches on a sketch page, the `part`th of its block: 16 bytes a group.
#[inline]
pub fn sketch_part<'p>(page: &'p Bytes, layout: &Layout, part: usize, list: u32) -> Result<&'p [u8], Damage> {
    let o = check(page, Kind::Sketch)?;
    if o.list != list {
        return Err(Damage::List(o.list));
    }
    let (bytes, cells) = (layout.part(part).len() * GROUP, usize::from(o.refs) * layout.cell);
    if bytes + cells > CAPACITY || o.used > 0 || !layout.may_end_with(o.refs) || (o.level > 0) != layout.inner {
        return Err(Damage::Bounds);
    }
    if !declares(page, bytes, cells) {
        return Err(Damage::Header);
    }
    Ok(&page[START..START + bytes])
}

/// The sketches on a sketch page, to be changed.
#[inline]
pub fn sketch_part_mut(page: &mut Bytes, groups: usize) -> &mut [u8] {
    set_used_bytes(page, groups * GROUP);
    &mut page[START..START + groups * GROUP]
}

/// Checks a code page of lists with `layout`.
#[inline]
pub fn check_code(page: &Bytes, layout: &Layout) -> Result<Opaque, Damage> {
    check(page, Kind::Code)?;
    check_cells(page, layout)
}

/// Checks a page that cells of lists with `layout` lie on.
pub fn check_cells(page: &Bytes, layout: &Layout) -> Result<Opaque, Damage> {
    let opaque = check_any(page)?;
    // One level of code pages serves all levels of lists of lists.
    let kinds = [Kind::Code, Kind::Posting, Kind::Sketch];
    if kinds.iter().all(|&kind| opaque.kind != kind as u8) || (opaque.level > 0) != layout.inner {
        return Err(Damage::Kind(opaque.kind));
    }
    // Code page: cells, where a cell spans pages one; else blocks, and cells at the end.
    let (used, refs) = (usize::from(opaque.used), usize::from(opaque.refs));
    if opaque.kind == Kind::Code as u8 {
        if used.max(refs) > layout.cells {
            return Err(Damage::Bounds);
        }
        // Which part it is only who came here knows.
        let declared = match layout.cell_pages {
            1 => declares(page, used * layout.cell, 0),
            pages => used == 1 && [CAPACITY, layout.code_range(pages - 1).len()].iter().any(|&n| declares(page, n, 0)),
        };
        return if declared { Ok(opaque) } else { Err(Damage::Header) };
    }
    if layout.cell_pages != 1 {
        return Err(Damage::Kind(opaque.kind));
    }
    let at_end = refs * layout.cell;
    if at_end > CAPACITY || used * layout.block > CAPACITY - at_end {
        return Err(Damage::Bounds);
    }
    let sketches = |part: usize| GROUP * layout.part(part).len();
    let declared = match opaque.kind == Kind::Posting as u8 {
        true => declares(page, used * layout.block, at_end),
        // Cells are behind the last of a block's sketch pages only; whether it is that one only who came here knows.
        false if refs > 0 => layout.sketch_pages > 0 && declares(page, sketches(layout.sketch_pages - 1), at_end),
        false => (0..layout.sketch_pages).any(|part| declares(page, sketches(part), 0)),
    };
    if declared { Ok(opaque) } else { Err(Damage::Header) }
}

/// The bytes of a cell on its first page.
#[inline]
pub fn cell_bytes(layout: &Layout, cell: u16) -> std::ops::Range<usize> {
    layout.cell_range(cell).unwrap_or(0..0)
}

/// The factors of a cell, and the code's bytes on its first page, which has been checked.
#[inline]
pub fn cell<'p>(page: &'p Bytes, layout: &Layout, cell: u16) -> Result<(CodeFactors, &'p [u8]), Damage> {
    let o = opaque(page);
    if (o.kind == Kind::Code as u8) != (cell & FROM_END == 0) {
        return Err(Damage::Kind(o.kind));
    }
    let range = layout.cell_range(cell).ok_or(Damage::Bounds)?;
    let (number, from_end) = cell_position(cell);
    if number >= usize::from(if from_end { o.refs } else { o.used }) {
        return Err(Damage::Cell);
    }
    let at = range.start;
    let factors = CodeFactors {
        constant: float(page, at),
        scale: float(page, at + 4),
        error: factor::unpack(half(page, at + 8)),
    };
    Ok((factors, &page[at + layout.cell_header()..range.end]))
}

/// Who refers to a cell.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// On inner levels the child list whose centroid is in the cell; else the list that the entry belongs to.
    pub list: u32,
    /// The row; of no meaning on inner levels.
    tid: Tid,
}

impl Owner {
    /// An entry of a list of rows.
    #[inline]
    pub fn row(list: u32, tid: Tid) -> Owner {
        Owner { list, tid }
    }

    /// An entry of a list of lists.
    #[inline]
    pub fn child(list: u32) -> Owner {
        Owner { list, tid: Tid([0; 6]) }
    }
}

/// A checksum of what distances are computed from: codes, the data mean, the meta page. PostgreSQL's data checksums are off in
/// many clusters, and a wrong distance is an answer that looks right.
///
/// The words are multiplied by as many different odd numbers and added up (multilinear hashing): a changed word always
/// changes the sum, before that is mixed and shortened.
pub struct Checksum(u64);

impl Checksum {
    const STEP: u32 = 0x9E37_79B8;
    const MIX: u64 = 0x9FB2_1C65_1E98_DF25;

    /// Of a cell: with its factors, as they are on its first page, and who it is of. The parts of its code are still to be added.
    #[inline]
    pub fn of_cell(page: &Bytes, layout: &Layout, cell: u16, owner: Owner) -> Result<Checksum, Damage> {
        let at = layout.cell_range(cell).ok_or(Damage::Bounds)?.start;
        let mut sum = Checksum(match layout.inner {
            true => u64::from(owner.list),
            false => owner.tid.0.iter().fold(0, |id, &byte| id << 8 | u64::from(byte)),
        });
        sum.mix(u64::from(word(page, at)) | u64::from(word(page, at + 4)) << 32);
        sum.mix(u64::from(half(page, at + 8)));
        Ok(sum)
    }

    /// Of some bytes.
    #[inline]
    pub fn of_bytes(bytes: &[u8]) -> Checksum {
        let mut sum = Checksum(0);
        sum.add(bytes);
        sum
    }

    /// Adds the next part.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<4>();
        let (mut sum, mut factor) = (0u64, 1u32);
        for word in words {
            sum = sum.wrapping_add(u64::from(u32::from_le_bytes(*word)) * u64::from(factor));
            factor = factor.wrapping_add(Checksum::STEP);
        }
        for &byte in rest {
            sum = sum.wrapping_add(u64::from(byte) * u64::from(factor));
            factor = factor.wrapping_add(Checksum::STEP);
        }
        self.mix(sum);
    }

    #[inline]
    fn mix(&mut self, x: u64) {
        let product = (self.0 ^ x).wrapping_mul(Checksum::MIX);
        self.0 = product ^ product >> 32;
    }

    /// In 16 bits.
    #[inline]
    pub fn short(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// In 32 bits.
    #[inline]
    pub fn long(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// The checksum that a cell (checked by [`cell`]) has on its page.
#[inline]
pub fn cell_sum(page: &Bytes, layout: &Layout, cell: u16) -> Result<u16, Damage> {
    let range = layout.cell_range(cell).ok_or(Damage::Bounds)?;
    Ok(half(page, range.start + AT_SUM))
}

/// Checks that a cell is still of `list`, since it may have been given to another one since the reader saw the entry: on
/// inner levels the child list whose centroid it holds, else the list that it belongs to, which a code page does not tell.
#[inline]
pub fn check_cell_of(page: &Bytes, layout: &Layout, cell: u16, list: u32) -> Result<(), Damage> {
    let found = if layout.inner {
        layout.cell_range(cell).map_or(0, |range| word(page, range.start + CELL_HEADER))
    } else if cell & FROM_END != 0 {
        opaque(page).list
    } else {
        list
    };
    if found == list { Ok(()) } else { Err(Damage::List(found)) }
}

/// The bytes of a code that are on page `part` (1 ..) of a cell that spans pages.
#[inline]
pub fn cell_part<'p>(page: &'p Bytes, layout: &Layout, part: usize) -> Result<&'p [u8], Damage> {
    let bytes = layout.code_range(part).len();
    if declares(page, bytes, 0) { Ok(&page[START..START + bytes]) } else { Err(Damage::Cell) }
}

/// Writes part `part` of an entry's cell. `tid`: of its row. `child`: on inner levels, the child list's identity, and the
/// summaries of its filter columns (none: it is a list of lists).
#[allow(clippy::too_many_arguments, reason = "what a cell is made of, and where it goes")]
pub fn write_cell(
    page: &mut Bytes,
    layout: &Layout,
    cell: u16,
    part: usize,
    factors: &CodeFactors,
    codes: &[u8],
    tid: Tid,
    child: Option<(u32, &[Summary])>,
) {
    assert!(part < layout.cell_pages && codes.len() == layout.code_bytes());
    let code = &codes[layout.code_range(part)];
    if part > 0 {
        page[START..START + code.len()].copy_from_slice(code);
        edit_opaque(page, |o| o.used = 1);
        set_used_bytes(page, code.len());
        return;
    }
    let range = layout.cell_range(cell).expect("a cell of this layout");
    put_float(page, range.start, factors.constant);
    put_float(page, range.start + 4, factors.scale);
    put_half(page, range.start + 8, factor::pack(factors.error));
    let owner = child.map_or(Owner::row(0, tid), |(list, _)| Owner::child(list));
    let mut sum = Checksum::of_cell(page, layout, cell, owner).expect("a cell of this layout");
    for part in 0..layout.cell_pages {
        sum.add(&codes[layout.code_range(part)]);
    }
    put_half(page, range.start + AT_SUM, sum.short());
    assert_eq!(layout.inner, child.is_some());
    if let Some((list, summaries)) = child {
        put_word(page, range.start + CELL_HEADER, list);
        for (column, summary) in summaries.iter().enumerate() {
            write_summary(page, layout, cell, column, summary);
        }
    }
    page[range.start + layout.cell_header()..range.end].copy_from_slice(code);
    if cell & FROM_END == 0 {
        let used = usize::from(cell + 1).max(opaque(page).used as usize);
        set_used_cells(page, layout, used);
    }
}

/// Declares the first `used` cells of a code page as in use or claimed.
#[inline]
pub fn set_used_cells(page: &mut Bytes, layout: &Layout, used: usize) {
    edit_opaque(page, |o| o.used = used as u16);
    set_used_bytes(page, used * layout.cell.min(CAPACITY));
}

/// Where the summary of a filter column of the child list is, whose centroid a cell of an inner level holds; None when the
/// cell's number is out of bounds.
#[inline]
pub fn summary_range(layout: &Layout, cell: u16, column: usize) -> Option<std::ops::Range<usize>> {
    assert!(layout.inner && column < layout.filters);
    let at = layout.cell_range(cell)?.start + INNER_CELL_HEADER + column * Summary::BYTES;
    Some(at..at + Summary::BYTES)
}

/// The summary of a filter column of the list of rows whose centroid is in `cell` (checked by [`cell`]).
#[inline]
pub fn summary(page: &Bytes, layout: &Layout, cell: u16, column: usize) -> Summary {
    Summary::from_bytes(summary_bytes(page, layout, cell, column))
}

/// The bytes of a [`summary`].
#[inline]
pub fn summary_bytes<'p>(page: &'p Bytes, layout: &Layout, cell: u16, column: usize) -> &'p [u8; Summary::BYTES] {
    page[summary_range(layout, cell, column).expect("a cell of this layout")].try_into().unwrap()
}

/// Writes what [`summary`] reads.
#[inline]
pub fn write_summary(page: &mut Bytes, layout: &Layout, cell: u16, column: usize, summary: &Summary) {
    let range = summary_range(layout, cell, column).expect("a cell of this layout");
    page[range].copy_from_slice(&summary.to_bytes());
}

/// Position of a cell on its page, and whether it is counted from the end.
#[inline]
pub fn cell_position(cell: u16) -> (usize, bool) {
    (usize::from(cell & !FROM_END), cell & FROM_END != 0)
}

/// Makes room for another cell at the end of a posting or sketch page; returns its number.
#[inline]
pub fn add_cell_at_end(page: &mut Bytes, layout: &Layout) -> u16 {
    let number = opaque(page).refs;
    edit_opaque(page, |o| o.refs = number + 1);
    set_used_end(page, usize::from(number + 1) * layout.cell);
    FROM_END | number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_page_is_what_postgresql_would_make() {
        let mut page: Bytes = [0xA5; PAGE];
        init(&mut page, Kind::Posting, 1, 7);
        // LSN, checksum and flags; lower, upper, special; size and version; no transaction.
        assert_eq!(page[..12], [0; 12]);
        let field = |at| header_field(&page, at);
        assert_eq!([PD_LOWER, PD_UPPER, PD_SPECIAL, PD_VERSION].map(field), [START, END, END, 8192 + 4]);
        assert_eq!(page[PD_PRUNE_XID..PD_PRUNE_XID + 4], [0; 4]);
        assert!(page[24..END].iter().all(|&byte| byte == 0));
        let opaque = check(&page, Kind::Posting).expect("a page");
        assert_eq!((opaque.level, opaque.list, opaque.next, opaque.used), (1, 7, NO_BLOCK, 0));
        assert!(can_be_logged(&page) && can_be_changed(&page));
        assert_eq!(check(&page, Kind::Code).unwrap_err(), Damage::Kind(Kind::Posting as u8));
    }

    #[test]
    fn a_code_page_keeps_the_epoch_at_which_it_was_freed() {
        let mut page: Bytes = [0; PAGE];
        free(&mut page, 9);
        init(&mut page, Kind::Code, 0, 0);
        assert_eq!(opaque(&page).epoch, 9);
        init(&mut page, Kind::Posting, 0, 1);
        assert_eq!(opaque(&page).epoch, 0);
    }

    #[test]
    fn every_shape_has_room_for_a_block() {
        for padded in (64..=2048).step_by(64).chain([4096, 8192, 16_000usize.next_multiple_of(64)]) {
            for (bits, filters, inner) in
                [(0, 0, false), (4, 1, false), (8, MAX_FILTERS, false), (8, 0, true), (8, 2, true)]
            {
                let layout = Layout::new(Shape { padded, bits, filters }, inner);
                assert!(layout.blocks >= 1, "{padded} {bits} {filters} {inner}");
            }
        }
    }

    #[test]
    fn tids_in_their_order() {
        let tid = Tid::new(0x0102_0304, 0x0506);
        assert_eq!((tid.block(), tid.offset(), tid.0), (0x0102_0304, 0x0506, [1, 2, 3, 4, 5, 6]));
        assert!(Tid::new(1, 2) < Tid::new(1, 3) && Tid::new(1, u16::MAX) < Tid::new(2, 0));
    }
}
