//! Reading lists: cursors over posting pages, the sketch scan of a block, codes, and the walk from the root to the
//! lists of rows. Shared by search, insert and the checks.
//!
//! No reader holds a lock on more than what it looks at, and lists are replaced meanwhile; then it gets a [`Stale`].

use crate::frame::{Frame, Metric, Operator};
use crate::page::{self, Block, Checksum, Damage, Layout, NO_BLOCK, Owner, Posting, Tid};
use crate::pages::{Guard, Pages};
use crate::predicate::Predicate;
use crate::stale::{Checked, Stale, Steps};
use crate::write::encode::Encoder;
use ann::filter::Summary;
use ann::memory;
use ann::quantize::{self, BLOCK, Bits, CodeFactors, ListTerm, QueryTable, Space};
use bitvec::prelude::*;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

/// A query in the index's coordinates.
pub struct Query {
    pub operator: Operator,
    /// The operator's.
    pub space: Space,
    /// See [`Operator::underflow`].
    pub underflow: f64,
    /// Rotated, padded long.
    pub vector: Vec<f32>,
    /// Infinite for a query at the ends of f32's range: with that all bounds are the lowest.
    pub norm: f32,
    /// Added to every distance: nonzero only for the inner product of a centred index.
    pub offset: f32,
    /// Norm of the index's mean.
    pub mean_norm: f32,
    /// [`page::StoppingRule::norm2`].
    pub norm2: f32,
    pub table: QueryTable,
    /// For rows that are bit strings: their table, and how many bits of the query are set.
    bits: QueryTable,
    set: f32,
    /// Rank lists by the L2 distance of their centroid even for the inner product: rows belong to the list whose
    /// centroid is nearest.
    pub nearest: bool,
}

impl Query {
    /// An unset query.
    pub fn new(operator: Operator) -> Query {
        Query {
            operator,
            space: operator.space(),
            underflow: 0.0,
            vector: Vec::new(),
            norm: 0.0,
            offset: 0.0,
            mean_norm: 0.0,
            norm2: f32::INFINITY,
            table: QueryTable::new(),
            bits: QueryTable::new(),
            set: 0.0,
            nearest: false,
        }
    }

    /// Moves `vector`, as the user gave it, into the coordinates of an index.
    pub fn place(&mut self, frame: &Frame) {
        self.underflow = self.operator.underflow(&self.vector);
        if self.operator.is_exact() {
            let mut bits = memory::copied(&self.vector);
            bits.resize(frame.padded(), 0.0);
            let mut nibbles = vec![0; bits.len() / 4];
            self.set = quantize::pack_bits(&bits, &mut nibbles) as f32;
            self.bits.build_bits(&nibbles);
        }
        let offset = frame.place_query(&mut self.vector);
        self.offset = offset.unwrap_or(0.0);
        self.mean_norm = frame.mean_norm();
        self.prepare();
        if offset.is_none() {
            self.norm = f32::INFINITY;
        }
    }

    /// Takes a place in the coordinates of an index, padded long, for that of a query: a row's, as its code gives it.
    pub fn place_at(&mut self, frame: &Frame, place: &[f32]) {
        self.vector.clear();
        self.vector.extend_from_slice(place);
        if self.operator.is_exact() {
            let (mut bits, mut nibbles) = (memory::copied(place), vec![0; place.len() / 4]);
            frame.bits_of(&mut bits, &mut nibbles);
            self.set = nibbles.iter().map(|nibble| nibble.count_ones()).sum::<u32>() as f32;
            self.bits.build_bits(&nibbles);
        }
        (self.underflow, self.offset, self.mean_norm) = (0.0, 0.0, frame.mean_norm());
        if self.space == Space::InnerProduct {
            // Rows are centred, queries are not.
            let mean = frame.rotated_mean();
            self.vector.iter_mut().zip(&mean).for_each(|(x, m)| *x += m);
            self.offset = -ann::distance::inner_product(&self.vector, &mean);
        }
        self.prepare();
    }

    /// Call after `vector` and `offset` changed.
    pub fn prepare(&mut self) {
        // Not from the f32 square alone: a norm that underflowed to 0 would leave the bounds without their margin.
        self.norm = crate::frame::norm(&self.vector) as f32;
        self.table.build(&self.vector, quantize::DEFAULT_Z);
    }

    /// The terms of the root list, whose centroid is zero.
    #[inline]
    pub fn root_term(&self) -> ListTerm {
        match self.space {
            Space::L2 => ListTerm { a: self.norm * self.norm, b: self.norm },
            Space::InnerProduct => ListTerm { a: self.offset, b: self.norm },
        }
    }

    /// A certain lower bound of the root's term `a`.
    #[inline]
    pub fn root_floor(&self) -> f32 {
        let rounding = self.vector.len() as f32 / 16.0 * f32::EPSILON + 16.0 * f32::EPSILON;
        match self.space {
            Space::L2 => self.norm * self.norm * (1.0 - rounding),
            Space::InnerProduct => self.offset - self.mean_norm * self.norm * rounding,
        }
    }

    /// What centroids of all levels are encoded relative to: the root's centroid.
    #[inline]
    fn origin(&self) -> List {
        List { term: self.root_term(), floor: self.root_floor(), head: NO_BLOCK, id: 0, radius: 0.0, norm: 0.0 }
    }

    /// The root list.
    #[inline]
    pub fn root(&self, meta: &page::Meta) -> List {
        List { head: meta.root, id: meta.root_list, ..self.origin() }
    }

    /// A list, as its entry in its parent says, and the code of its centroid.
    #[inline]
    pub fn list(&self, child: &page::Child, factors: &CodeFactors, dot: f32) -> List {
        let origin = self.origin();
        List {
            term: self.term(self.centroid_distance(factors, dot)),
            floor: self.lower_bound(&origin, factors, dot),
            head: child.head,
            id: child.list,
            radius: child.radius,
            norm: child.norm2.max(0.0).sqrt(),
        }
    }

    /// The distance of a centroid, whose code has this inner product with the query.
    #[inline]
    fn centroid_distance(&self, factors: &CodeFactors, dot: f32) -> f32 {
        quantize::code_distance(self.space, self.root_term(), factors, dot)
    }

    /// The terms of a list whose centroid is at `distance`.
    #[inline]
    fn term(&self, distance: f32) -> ListTerm {
        match self.space {
            Space::L2 => ListTerm { a: distance.max(0.0), b: distance.max(0.0).sqrt() },
            Space::InnerProduct => ListTerm { a: distance, b: self.norm },
        }
    }

    /// What lists are ranked by: the distance of the centroid, or see `nearest`.
    #[inline]
    fn rank(&self, child: &page::Child, distance: f32) -> f32 {
        match self.space {
            Space::InnerProduct if self.nearest => child.norm2 + 2.0 * distance,
            _ => distance,
        }
    }

    /// A certain lower bound of the distance of an entry of `list`, from its code.
    #[inline]
    pub fn lower_bound(&self, list: &List, factors: &CodeFactors, dot: f32) -> f32 {
        let certain = ListTerm { a: list.floor, b: list.term.b };
        quantize::code_lower_bound(self.space, certain, factors, dot, self.norm, self.vector.len())
    }

    /// How far the distance of an entry of `list` can be from its code's estimate, all but certainly.
    #[inline]
    pub fn spread(&self, list: &List, factors: &CodeFactors, dot: f32) -> f32 {
        let padded = self.vector.len();
        quantize::code_spread(self.space, list.term, list.floor, list.norm, factors, dot, self.norm, padded)
    }

    /// The cosine of the angle (between a row's residual and the direction from the centroid to the query) at which a
    /// typical row of `list` is just at `distance`. Above 1 or so the list can hold nothing so near; the smaller, the
    /// more of its rows are nearer.
    #[inline]
    pub fn needed_cosine(&self, list: &List, distance: f32) -> f32 {
        needed_cosine(self.space, list.term, list.radius, self.norm2, distance)
    }

    /// About which share of a list's rows is within a distance, as the SQL operator returns it.
    #[inline]
    pub fn share_within(&self, list: &List, distance: f64) -> f64 {
        let within = f64::from(self.operator.in_index_unit(distance));
        let (a, radius) = (f64::from(list.term.a), f64::from(list.radius));
        let (middle, reach) = match self.space {
            Space::L2 => (a + radius * radius, 2.0 * radius * f64::from(list.term.b)),
            Space::InnerProduct => (a, radius * f64::from(self.norm)),
        };
        // Residuals as in so many dimensions, about; and the tails are left out.
        const DIMENSIONS: f64 = 16.0;
        let deviation = (reach / DIMENSIONS.sqrt()).max(f64::MIN_POSITIVE);
        let share = 0.5 + (within - middle) / deviation / 4.0;
        if share.is_nan() { 1.0 } else { share.clamp(0.0, 1.0) }
    }

    /// Ranks the slots of a block of an inner list by their scores. All slots at once: the compiler turns the loops into
    /// vector instructions.
    #[inline]
    fn ranks(&self, block: &Block<'_>, scores: &Scores) -> Ranks {
        const SHARE: f32 = DEVIATIONS / quantize::DEFAULT_Z;
        let (radii, norms) = block.child_columns();
        let mut ranks = Ranks { rank: scores.estimate, least: [0.0; BLOCK], radius: *radii };
        let Ranks { rank, least, .. } = &mut ranks;
        for i in 0..BLOCK {
            least[i] = rank[i] - (rank[i] - scores.lower[i]) * SHARE;
        }
        if self.space == Space::InnerProduct && self.nearest {
            // Of a sum that is not a number, as on a damaged page, nothing is known.
            let or = |x: f32, other: f32| if x.is_nan() { other } else { x };
            for i in 0..BLOCK {
                rank[i] = or(norms[i] + 2.0 * rank[i], f32::MAX);
                least[i] = or(norms[i] + 2.0 * least[i], f32::MIN);
            }
        }
        ranks
    }

    /// Slots that [`Query::may_be_due`].
    #[inline]
    fn due(&self, Ranks { rank, least, radius }: &Ranks, due: Due) -> u32 {
        if due.distance == f32::INFINITY {
            return u32::MAX;
        }
        mask(match self.space {
            Space::L2 => std::array::from_fn(|i| may_be_due_l2(radius[i], least[i], 2.0 * rank[i] - least[i], due)),
            Space::InnerProduct => {
                let (norm, norm2) = (self.norm, self.norm2);
                std::array::from_fn(|i| may_be_due_ip(radius[i], least[i], 2.0 * rank[i] - least[i], norm, norm2, due))
            }
        })
    }

    /// Whether [`Query::needed_cosine`] may be no more than the limit for a list whose centroid is at `least ..= most`.
    #[inline]
    fn may_be_due(&self, radius: f32, least: f32, most: f32, due: Due) -> bool {
        due.distance == f32::INFINITY
            || match self.space {
                Space::L2 => may_be_due_l2(radius, least, most, due),
                Space::InnerProduct => may_be_due_ip(radius, least, most, self.norm, self.norm2, due),
            }
    }
}

/// [`Query::may_be_due`]. Multiplied out, since a square root and a division for each list tell in a profile, and without
/// branches.
#[inline(always)]
fn may_be_due_l2(radius: f32, least: f32, most: f32, Due { distance, stop }: Due) -> bool {
    let square = radius * radius;
    // The cosine falls until there, then rises.
    let a = (square - distance).max(least).min(most.max(least)).max(0.0);
    let needed = a + square - distance;
    let limit = 4.0 * stop * stop * square * a;
    let above = (needed > 0.0) & ((stop <= 0.0) | (needed * needed > limit));
    !(above | ((stop < 0.0) & (needed * needed < limit)))
}

/// [`Query::may_be_due`]; `norm`: the query's.
#[inline(always)]
fn may_be_due_ip(radius: f32, least: f32, most: f32, norm: f32, norm2: f32, Due { distance, stop }: Due) -> bool {
    // The less of the query is along the centroid, the more is across.
    let small = most.min(0.0).max(least);
    let large = if least.abs() > most.abs() { least } else { most };
    let a = if stop < 0.0 { large } else { small };
    let not_due = least - distance > stop * radius * across(a, norm, radius, norm2); // a NaN may be due
    !not_due
}

/// The part of a query across a centroid, with which it has the (negative) inner product `a`. What residuals have in common with
/// the query is there where all rows are about as long: they are across the centroid themselves. So a query in quite
/// another direction than the rows, as the words beside the pictures that they describe, differs more between the rows of a list
/// than one like a row. The centroid's squared norm is what the mean row's leaves beside the residual.
#[inline(always)]
fn across(a: f32, norm: f32, radius: f32, norm2: f32) -> f32 {
    /// Share of the squared norm that is taken to be across at least: centroids may be longer than most.
    const LEAST: f32 = 0.04;
    let square = norm * norm;
    let centroid = norm2 - radius * radius;
    let along = if centroid > 0.0 { a * a / centroid } else { 0.0 };
    (square - along).max(LEAST * square).sqrt()
}

/// Bit i: the flag of slot i.
#[inline(always)]
fn mask(flags: [bool; BLOCK]) -> u32 {
    /// Times this, the lowest bits of eight bytes are in the highest byte.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let mut mask = 0;
    for (i, eight) in flags.as_chunks::<8>().0.iter().enumerate() {
        let word = u64::from_le_bytes(eight.map(u8::from));
        mask |= ((word.wrapping_mul(GATHER) >> 56) as u32) << (8 * i);
    }
    mask
}

/// The slots whose bits are set.
#[inline]
fn slots(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let slot = mask.trailing_zeros() as usize;
        mask &= mask.wrapping_sub(1);
        (slot < BLOCK).then_some(slot)
    })
}

/// Lists whose typical row is within `distance` at a cosine of `stop`, see [`Query::needed_cosine`].
#[derive(Clone, Copy)]
struct Due {
    distance: f32,
    stop: f32,
}

/// See [`Query::needed_cosine`].
#[inline]
pub fn needed_cosine(space: Space, term: ListTerm, radius: f32, norm2: f32, distance: f32) -> f32 {
    match space {
        Space::L2 => (term.a + radius * radius - distance) / (2.0 * (radius * term.b)),
        Space::InnerProduct => (term.a - distance) / (radius * across(term.a, term.b, radius, norm2)),
    }
}

/// A list as a search sees it.
#[derive(Clone, Copy, Debug)]
pub struct List {
    pub term: ListTerm,
    /// A certain lower bound of `term.a`, which is computed from the parent's.
    pub floor: f32,
    pub head: u32,
    pub id: u32,
    /// Root mean square norm of its rows' residuals.
    pub radius: f32,
    /// Norm of the centroid.
    pub norm: f32,
}

/// Bytes of a posting page that are fetched into the processor's cache ahead of its scan: measured, a half is best.
pub const PREFETCHED_BYTES: usize = page::PAGE / 2;

/// Cells of centroids that are fetched ahead of the one that is read.
const CELLS_AHEAD: usize = 4;

/// Walks the posting pages of a list.
pub struct Cursor<'l, P> {
    rel: P,
    layout: &'l Layout,
    list: u32,
    next: u32,
    steps: Steps,
    /// The latest epoch that a page names, and the page.
    changed: (u32, u32),
}

impl<'l, P: Pages> Cursor<'l, P> {
    /// At the first page.
    pub fn new(rel: P, layout: &'l Layout, list: &List) -> Cursor<'l, P> {
        Cursor::of(rel, layout, list.head, list.id)
    }

    /// At the first page of the list with this head page and identity.
    pub fn of(rel: P, layout: &'l Layout, head: u32, list: u32) -> Cursor<'l, P> {
        Cursor { rel, layout, list, next: head, steps: Steps::new(), changed: (0, head) }
    }

    /// The next page, locked for reading; it is a posting page of the list (checked).
    pub fn next_page(&mut self) -> Result<Option<P::Shared>, Stale> {
        if self.next == NO_BLOCK {
            return Ok(None);
        }
        // Here, where no page is locked: PostgreSQL does not answer interrupts while one is.
        self.rel.check_for_interrupts();
        let buffer = self.rel.read(self.next);
        let posting = Posting::open(buffer.page(), self.layout, self.list).or_stale(self.rel, self.next)?;
        let following = posting.opaque.next;
        if posting.opaque.epoch > self.changed.0 {
            self.changed = (posting.opaque.epoch, self.next);
        }
        if following != NO_BLOCK {
            self.steps.step(self.rel, self.next);
            // The next page comes into the cache while this one is scanned.
            self.rel.prefetch(following, 0..PREFETCHED_BYTES);
        }
        self.next = following;
        Ok(Some(buffer))
    }

    /// Whether entries were taken from the pages that have been read, at a later epoch than `epoch`: a reader who took the
    /// way here at that epoch does not know where these entries are now.
    pub fn changed_since(&self, epoch: u32) -> Option<Stale> {
        let (changed, block) = self.changed;
        (changed > epoch).then_some(Stale { block, damage: Damage::Epoch(changed) })
    }

    /// View of a page that [`Cursor::next_page`] returned.
    pub fn posting<'p>(&'p self, buffer: &'p P::Shared) -> Posting<'p> {
        Posting::open(buffer.page(), self.layout, self.list).or_corrupted(self.rel, buffer.block())
    }
}

/// Estimates and lower bounds of the 32 slots of a block.
pub struct Scores {
    pub estimate: [f32; BLOCK],
    pub lower: [f32; BLOCK],
}

impl Default for Scores {
    fn default() -> Scores {
        Scores::new()
    }
}

impl Scores {
    /// Unset.
    pub fn new() -> Scores {
        Scores { estimate: [0.0; BLOCK], lower: [0.0; BLOCK] }
    }
}

/// Scores a block of list `id` relative to `term`; returns those of the `wanted` slots whose lower bound is not at or over
/// `threshold`.
#[inline]
#[allow(clippy::too_many_arguments, reason = "all of them differ from caller to caller")]
pub fn scan_block<P: Pages>(
    rel: P,
    layout: &Layout,
    id: u32,
    term: ListTerm,
    block: &Block<'_>,
    wanted: u32,
    table: &QueryTable,
    threshold: f32,
    scores: &mut Scores,
) -> Result<u32, Stale> {
    if wanted == 0 {
        return Ok(0);
    }
    let factors = block.factors();
    let Scores { estimate, lower } = scores;
    let near = if layout.sketch_pages == 0 {
        quantize::scan_block(table, block.groups(), &factors, term, threshold, estimate, lower)
    } else {
        let mut sums = [0; BLOCK];
        quantize::accumulate(block.groups(), table.lut(0..layout.inline_groups), &mut sums);
        for i in 0..layout.sketch_pages {
            let part = layout.part(i);
            let number = block.sketch_page(i);
            let buffer = rel.read(number);
            let groups = page::sketch_part(buffer.page(), layout, i, id).or_stale(rel, number)?;
            quantize::accumulate(groups, table.lut(part), &mut sums);
        }
        quantize::bounds(table, &sums, &factors, term, threshold, estimate, lower)
    };
    Ok(near & wanted)
}

/// Scores a block of rows of `list` by a query, as [`scan_block`] does; distances of bit strings are exact.
#[inline]
#[allow(clippy::too_many_arguments, reason = "all of them differ from caller to caller")]
pub fn scan_rows<P: Pages>(
    rel: P,
    layout: &Layout,
    list: &List,
    block: &Block<'_>,
    wanted: u32,
    query: &Query,
    threshold: f32,
    scores: &mut Scores,
) -> Result<u32, Stale> {
    if !layout.own_bits {
        return scan_block(rel, layout, list.id, list.term, block, wanted, &query.table, threshold, scores);
    }
    let (table, term) = (&query.bits, query.bits.bit_term());
    if query.operator.metric == Metric::Hamming {
        return scan_block(rel, layout, list.id, term, block, wanted, table, threshold, scores);
    }
    let wanted = scan_block(rel, layout, list.id, term, block, wanted, table, f32::INFINITY, scores)?;
    let Scores { estimate, lower } = scores;
    Ok(wanted & quantize::shares(block.factors().constant, query.set, threshold, estimate, lower))
}

/// What a search takes from a code cell.
pub struct Code {
    pub factors: CodeFactors,
    /// Inner product of the code with the query.
    pub dot: f32,
    /// Epoch of the page: if it is later than when the reader learnt of the cell, it may be another entry's by now.
    pub epoch: u32,
}

/// Reads code cells; keeps the last page, since entries of one list are often on one page.
pub struct CodeReader<'l, P: Pages> {
    rel: P,
    layout: &'l Layout,
    open: Option<P::Shared>,
}

impl<'l, P: Pages> CodeReader<'l, P> {
    /// Holds no page yet.
    pub fn new(rel: P, layout: &'l Layout) -> CodeReader<'l, P> {
        CodeReader { rel, layout, open: None }
    }

    fn turn_to(&mut self, number: u32) -> Result<&P::Shared, Stale> {
        if number == NO_BLOCK {
            // Where the page before belongs to another cell by now.
            return Err(Stale { block: number, damage: Damage::Cell });
        }
        if self.open.as_ref().is_none_or(|b| b.block() != number) {
            self.open = None; // release before the next lock
            self.rel.check_for_interrupts();
            let buffer = self.rel.read(number);
            page::check_cells(buffer.page(), self.layout).or_stale(self.rel, number)?;
            self.open = Some(buffer);
        }
        Ok(self.open.as_ref().unwrap())
    }

    /// What `read` reads of the cell of a row, which was found in the list of this head page and identity. None: the row has gone from there, and another one has
    /// got its cell. No posting page may be locked here.
    pub fn of_row<T>(
        &mut self,
        cell: (u32, u16),
        (head, list): (u32, u32),
        tid: Tid,
        mut read: impl FnMut(&mut Self, Owner) -> Result<T, Stale>,
    ) -> Result<Option<T>, Stale> {
        let mut tries = 0;
        loop {
            match read(self, Owner::row(list, tid)) {
                Err(Stale { block, damage: Damage::Cell }) => {
                    self.close(); // posting pages are locked before code pages
                    if cell_of_row(self.rel, self.layout, (head, list), tid) != Some(cell) {
                        return Ok(None);
                    }
                    // It may have come back in between, hardly twice.
                    if tries == 2 {
                        self.rel.corrupted(block, Damage::Cell);
                    }
                    tries += 1;
                }
                read => return read.map(Some),
            }
        }
    }

    /// Lets the page go.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// The latest epoch of the pages that a cell is on.
    pub fn epoch(&mut self, mut number: u32) -> Result<u32, Stale> {
        let mut latest = 0;
        for _ in 0..self.layout.cell_pages {
            let page::Opaque { epoch, next, .. } = page::opaque(self.turn_to(number)?.page());
            latest = latest.max(epoch);
            number = next;
        }
        Ok(latest)
    }

    /// Starts fetching a cell into the processor's cache.
    pub fn prefetch(&self, (number, cell): (u32, u16)) {
        self.rel.prefetch(number, page::cell_bytes(self.layout, cell));
    }

    /// Starts fetching what a filter looks at in a cell.
    fn prefetch_summaries(&self, (number, cell): (u32, u16), filter: &Predicate) {
        filter.for_columns(&mut |column| {
            let bytes = page::summary_range(self.layout, cell, column).unwrap_or(0..0);
            self.rel.prefetch(number, bytes);
        });
    }

    /// Hands the codes of a cell to `part`, with the dimensions that they are of; returns factors and epoch. Checks that the
    /// cell is `owner`'s.
    fn read(
        &mut self,
        (number, cell): (u32, u16),
        owner: Owner,
        mut part: impl FnMut(Bits, &CodeFactors, std::ops::Range<usize>, &[u8]),
    ) -> Result<(CodeFactors, u32), Stale> {
        let (rel, layout) = (self.rel, self.layout);
        let page = self.turn_to(number)?.page();
        let bits = layout.bits.expect("a layout with codes");
        let (factors, code) = page::cell(page, layout, cell).or_stale(rel, number)?;
        page::check_cell_of(page, layout, cell, owner.list).or_stale(rel, number)?;
        let mut end = bits.dims(code.len());
        part(bits, &factors, 0..end, code);
        let page::Opaque { mut next, mut epoch, .. } = page::opaque(page);
        let mut sum = Checksum::of_cell(page, layout, cell, owner).or_corrupted(rel, number);
        let expected = page::cell_sum(page, layout, cell).or_stale(rel, number)?;
        sum.add(code);
        for i in 1..layout.cell_pages {
            let page = self.turn_to(next)?.page();
            let code = page::cell_part(page, layout, i).or_stale(rel, next)?;
            let start = end;
            end += bits.dims(code.len());
            part(bits, &factors, start..end, code);
            sum.add(code);
            let opaque = page::opaque(page);
            (next, epoch) = (opaque.next, epoch.max(opaque.epoch));
        }
        if sum.short() != expected {
            return Err(Stale { block: number, damage: Damage::Cell });
        }
        Ok((factors, epoch))
    }

    /// The factors of a cell and the inner product of its code with `q`.
    pub fn dot(&mut self, cell: (u32, u16), owner: Owner, q: &[f32]) -> Result<Code, Stale> {
        let mut dot = 0.0;
        let (factors, epoch) =
            self.read(cell, owner, |bits, _, range, code| dot += quantize::dot_code(bits, &q[range], code))?;
        Ok(Code { factors, dot, epoch })
    }

    /// Reads a cell's factors and code into `encoder`.
    pub fn read_into(&mut self, cell: (u32, u16), owner: Owner, encoder: &mut Encoder) -> Result<(), Stale> {
        let codes = &mut encoder.codes;
        let (factors, _) = self.read(cell, owner, |bits, _, range, code| {
            codes[bits.bytes(range.start)..bits.bytes(range.end)].copy_from_slice(code);
        })?;
        encoder.code = factors;
        Ok(())
    }

    /// Whether the list `child` of rows, whose centroid is in a cell, may hold a row that passes a filter.
    fn may_match(&mut self, (number, cell): (u32, u16), child: u32, filter: &Predicate) -> Result<bool, Stale> {
        let (rel, layout) = (self.rel, self.layout);
        let page = self.turn_to(number)?.page();
        page::cell(page, layout, cell).or_stale(rel, number)?;
        page::check_cell_of(page, layout, cell, child).or_stale(rel, number)?;
        Ok(filter.may_match(|column| page::summary_bytes(page, layout, cell, column)))
    }

    /// The summaries in a cell of an inner level.
    pub fn summaries(&mut self, (number, cell): (u32, u16)) -> Result<Vec<Summary>, Stale> {
        let layout = self.layout;
        let page = self.turn_to(number)?.page();
        Ok((0..layout.filters).map(|column| page::summary(page, layout, cell, column)).collect())
    }

    /// Adds what a cell's code stands for to `centroid` (padded long). Returns the factors.
    pub fn decode(&mut self, cell: (u32, u16), owner: Owner, centroid: &mut [f32]) -> Result<CodeFactors, Stale> {
        let add = |bits, factors: &CodeFactors, range, code: &[u8]| {
            quantize::decode_code(bits, code, factors.scale, &mut centroid[range]);
        };
        self.read(cell, owner, add).map(|(factors, _)| factors)
    }
}

/// Reads an entry's sketch; its nibbles go to `nibbles` (a byte each). The list must be one that nobody changes.
pub fn read_sketch<P: Pages>(
    rel: P,
    layout: &Layout,
    list: u32,
    at: Position,
    nibbles: &mut [u8],
) -> quantize::SketchFactors {
    let buffer = rel.read(at.page);
    let posting = Posting::open(buffer.page(), layout, list).or_corrupted(rel, at.page);
    let block = posting.block(at.block as usize);
    sketch_of(rel, layout, list, &block, at.slot as usize, nibbles)
        .unwrap_or_else(|stale| rel.corrupted(stale.block, stale.damage))
}

/// The same of a slot of a block whose page is locked.
pub fn sketch_of<P: Pages>(
    rel: P,
    layout: &Layout,
    list: u32,
    block: &Block<'_>,
    slot: usize,
    nibbles: &mut [u8],
) -> Result<quantize::SketchFactors, Stale> {
    quantize::nibble_column(block.groups(), slot, &mut nibbles[..layout.inline_groups]);
    for i in 0..layout.sketch_pages {
        let (part, number) = (layout.part(i), block.sketch_page(i));
        let buffer = rel.read(number);
        let groups = page::sketch_part(buffer.page(), layout, i, list).or_stale(rel, number)?;
        quantize::nibble_column(groups, slot, &mut nibbles[part]);
    }
    Ok(block.sketch(slot))
}

/// Where a list has the code of a row: page and cell. None: it has no entry for that.
pub fn cell_of_row<P: Pages>(rel: P, layout: &Layout, (head, list): (u32, u32), tid: Tid) -> Option<(u32, u16)> {
    let mut cursor = Cursor::of(rel, layout, head, list);
    while let Ok(Some(buffer)) = cursor.next_page() {
        let posting = cursor.posting(&buffer);
        for block in (0..posting.blocks()).map(|b| posting.block(b)) {
            let live = block.live();
            if let Some(slot) = (0..BLOCK).find(|slot| live >> slot & 1 == 1 && block.tid(*slot) == tid) {
                return block.cell(slot);
            }
        }
    }
    None
}

/// Marks the entries of rows (in order) of a list as dead to all, on the pages that have not been changed since a position
/// of the WAL: a TID may belong to another row by now.
pub fn mark_dead<P: Pages>(rel: P, layout: &Layout, (head, list): (u32, u32), rows: &[Tid], since: u64) {
    let mut cursor = Cursor::of(rel, layout, head, list);
    while let Ok(Some(buffer)) = cursor.next_page() {
        if buffer.lsn() > since {
            continue;
        }
        let marks: Vec<(usize, u32)> = {
            let posting = cursor.posting(&buffer);
            let mark = |b| {
                let block = posting.block(b);
                let dead = slots(block.live() & !block.dead())
                    .filter(|&slot| rows.binary_search(&block.tid(slot)).is_ok())
                    .fold(0, |mask, slot| mask | 1 << slot);
                (block.dead_at(), dead)
            };
            (0..posting.blocks()).map(mark).filter(|&(_, dead)| dead != 0).collect()
        };
        for (at, dead) in marks {
            buffer.set_hint(at, dead);
        }
    }
}

/// Where an entry is: page, block on it, slot.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    pub page: u32,
    pub block: u16,
    pub slot: u16,
}

/// An entry of an inner list while its distance is only an estimate.
#[derive(Clone, Copy)]
struct Estimated {
    /// What lists are ranked by, see [`Query::rank`].
    estimate: f32,
    /// [`DEVIATIONS`] below that.
    least: f32,
    parent: u32,
    cell: (u32, u16),
    at: Position,
    child: page::Child,
}

/// Which entries of inner lists are looked for.
#[derive(Clone, Copy)]
struct Wanted<'s> {
    /// About how many.
    count: usize,
    /// None: all are due.
    due: Option<Due>,
    /// Without these.
    seen: &'s ListSet,
}

/// What [`estimates`] has found.
struct Estimates {
    entries: Vec<Estimated>,
    /// These are all entries that are due.
    all: bool,
    /// Some entry was not due.
    passed_by: bool,
}

/// A list found by the walk.
#[derive(Clone, Copy)]
pub struct Found {
    pub list: List,
    /// See [`Query::rank`].
    pub rank: f32,
    /// Its entry in its parent, and the cell of its centroid.
    pub at: Position,
    pub cell: (u32, u16),
    /// Index of the parent in the previous level's result.
    pub parent: usize,
}

impl Found {
    #[inline]
    fn root(query: &Query, meta: &page::Meta) -> Found {
        let nowhere = Position { page: NO_BLOCK, block: 0, slot: 0 };
        Found { list: query.root(meta), rank: 0.0, at: nowhere, cell: (NO_BLOCK, 0), parent: 0 }
    }
}

/// Intermediate levels keep this share of the number of lists wanted (and at least `MIN_BEAM`).
const BEAM_SHARE: usize = 8;
const MIN_BEAM: usize = 16;

/// Finds about the `wanted` nearest lists of rows, nearest first, by a beam search from the root; all of them when `wanted`
/// is at least their number. Lists that hold no row that passes `filter`, by their summaries, are left out. Returns what was found on each level, from the root (alone) down to the lists of rows.
pub fn walk<P: Pages>(
    rel: P,
    meta: &page::Meta,
    inner: &Layout,
    query: &Query,
    wanted: usize,
    filter: Option<&Predicate>,
) -> Result<Vec<Vec<Found>>, Stale> {
    let mut levels = vec![vec![Found::root(query, meta)]];
    for level in (0..meta.height).rev() {
        let beam = beam(meta, level, wanted);
        let found = children(rel, meta, inner, query, levels.last().unwrap(), beam, filter.filter(|_| level == 0))?;
        levels.push(found);
    }
    Ok(levels)
}

/// How many lists of a level (0: of rows) are kept to find the `wanted` nearest lists of rows.
fn beam(meta: &page::Meta, level: u32, wanted: usize) -> usize {
    match level {
        _ if wanted >= meta.lists as usize => usize::MAX,
        0 => wanted,
        _ => (wanted / BEAM_SHARE).max(MIN_BEAM),
    }
}

/// The way to the list of rows at index `at` of what [`walk`] found: the list itself, its parent, and so on to the root.
/// None for an index out of bounds.
pub fn path(levels: &[Vec<Found>], mut at: usize) -> Option<Vec<Found>> {
    let mut path = Vec::with_capacity(levels.len());
    for level in levels.iter().rev() {
        let found = *level.get(at)?;
        path.push(found);
        at = found.parent;
    }
    Some(path)
}

/// The lists of rows that [`walk`] finds.
pub fn nearest_lists<P: Pages>(
    rel: P,
    meta: &page::Meta,
    inner: &Layout,
    query: &Query,
    wanted: usize,
    filter: Option<&Predicate>,
) -> Result<Vec<List>, Stale> {
    let lists = walk(rel, meta, inner, query, wanted, filter)?.pop().unwrap();
    Ok(lists.into_iter().map(|f| f.list).collect())
}

/// The lists of rows, nearest first, found as far as they are asked for: most searches need few of those that they might.
///
/// The first few come as they are. Then a search knows how far its results are about, and only lists that are due by that are
/// looked for.
pub struct Nearest {
    /// Those of the level above the lists of rows to look in; for a single list: that itself.
    parents: Vec<Found>,
    stage: Stage,
    /// How many lists to look for; all of them will be asked for.
    wanted: usize,
    at_once: bool,
    /// What the sketches say of all entries of `parents`.
    ranked_blocks: Vec<RankedBlock>,
    /// Probably the nearest of those that are due, as far as their sketches tell.
    entries: Vec<Estimated>,
    /// [`order_key`] of the `least` of each, in order.
    by_least: Vec<u64>,
    /// Up to here they have been looked at.
    looked_at: usize,
    /// Some list was left out because it was not due.
    passed_by: bool,
    /// Centroids that have been read: factors and inner product with the query.
    centroids: Vec<(u32, CodeFactors, f32)>,
    /// [`order_key`] of the rank of those that have not been handed out, with their place in `centroids`.
    ranked: BinaryHeap<Reverse<u64>>,
    /// Ranks of those handed out, as in [`order_key`].
    handed_out: Vec<u32>,
    seen: ListSet,
    /// Centroids that are read at a time.
    batch: usize,
    order: Vec<u32>,
}

/// What [`Nearest`] has looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// There is but one list.
    Root,
    /// Nothing yet.
    Nothing,
    /// So many that they can be handed out until more is known.
    Few,
    /// These have been handed out, or lists that were not due may be so now.
    More,
    /// As many as wanted. `all`: no others are due.
    Wanted { all: bool },
}

impl Nearest {
    /// Of no lists.
    pub fn none() -> Nearest {
        Nearest {
            parents: Vec::new(),
            stage: Stage::Wanted { all: true },
            wanted: 0,
            at_once: false,
            ranked_blocks: Vec::new(),
            entries: Vec::new(),
            by_least: Vec::new(),
            looked_at: 0,
            passed_by: false,
            centroids: Vec::new(),
            ranked: BinaryHeap::new(),
            handed_out: Vec::new(),
            seen: ListSet::default(),
            batch: 0,
            order: Vec::new(),
        }
    }

    /// Prepares for the `wanted` nearest lists; all of them when that is at least their number. `at_once`: however far they
    /// are, all will be asked for.
    pub fn find<P: Pages>(
        rel: P,
        meta: &page::Meta,
        inner: &Layout,
        query: &Query,
        wanted: usize,
        at_once: bool,
    ) -> Result<Nearest, Stale> {
        let mut parents = vec![Found::root(query, meta)];
        for level in (1..meta.height).rev() {
            parents = children(rel, meta, inner, query, &parents, beam(meta, level, wanted), None)?;
        }
        let stage = if meta.height == 0 { Stage::Root } else { Stage::Nothing };
        Ok(Nearest { parents, stage, wanted, at_once, ..Nearest::none() })
    }

    /// Whether all have been handed out, and none passed by.
    pub fn is_exhausted(&self) -> bool {
        self.stage == Stage::Wanted { all: true }
            && self.ranked.is_empty()
            && self.looked_at == self.by_least.len()
            && !self.passed_by
    }

    /// How many lists to find at first, and centroids to read at a time.
    fn few(&self) -> usize {
        (self.wanted / FEW_SHARE).clamp(FEWEST, MOST_OF_FEW)
    }

    /// Looks again at the lists that were not due.
    pub fn reconsider(&mut self) {
        if self.passed_by {
            self.stage = Stage::More;
        }
    }

    /// Whether an eighth of the lists and more are behind the one that was handed out as number `at`, and so those that were
    /// not kept need no look.
    pub fn has_many_behind(&self, at: usize) -> bool {
        let Some(&rank) = self.handed_out.get(at) else { return !self.parents.is_empty() };
        let behind = self.by_least.iter().filter(|&&key| (key >> 32) as u32 > rank).count();
        self.stage == Stage::Wanted { all: true } || behind > self.by_least.len() / 8
    }

    /// The next list of those that are due within `distance` by the limit `stop` of [`Query::needed_cosine`], and some others.
    /// Those that hold no row that passes the `filter`, by their summaries, are left out.
    pub fn next<P: Pages>(
        &mut self,
        rel: P,
        meta: &page::Meta,
        inner: &Layout,
        query: &Query,
        filter: Option<&Predicate>,
        (distance, stop): (f32, f32),
    ) -> Result<Option<List>, Stale> {
        let due = Due { distance, stop };
        loop {
            match self.stage {
                Stage::Root => {
                    self.stage = Stage::Wanted { all: true };
                    return Ok(Some(query.root(meta)));
                }
                Stage::Few if self.handed_out.len() < self.few() => {}
                // Of more levels, those that are not due tell how much of the tree was looked at.
                Stage::Nothing | Stage::Few | Stage::More => {
                    let few = self.stage == Stage::Nothing && !self.at_once && self.wanted > 2 * self.few();
                    self.look_for(rel, meta, inner, query, few, (meta.height == 1).then_some(due))?;
                }
                Stage::Wanted { .. } => {}
            }
            // Where a sketch says too much (see DEVIATIONS), the list comes a little late.
            let next = self.ranked.peek().map_or(u64::MAX, |&Reverse(key)| key >> 32);
            self.order.clear();
            while let Some(&key) = self.by_least.get(self.looked_at)
                && (key >> 32 < next || !self.order.is_empty())
                && self.order.len() < self.batch
            {
                let e = &self.entries[key as u32 as usize];
                match query.may_be_due(e.child.radius, e.least, 2.0 * e.estimate - e.least, due) {
                    true => memory::push(&mut self.order, key as u32),
                    false => self.passed_by = true,
                }
                self.looked_at += 1;
            }
            if !self.order.is_empty() {
                let before = self.centroids.len();
                let (centroids, ranked) = (&mut self.centroids, &mut self.ranked);
                look_up(rel, inner, query, &self.entries, &mut self.order, filter, |i, e, factors, dot| {
                    let distance = query.centroid_distance(factors, dot);
                    memory::room(ranked, 1);
                    ranked.push(Reverse(order_key(query.rank(&e.child, distance), centroids.len() as u32)));
                    memory::push(centroids, (i, *factors, dot));
                })?;
                // Where most are left out, more are looked at together: neighbours share pages.
                if (self.centroids.len() - before) * 4 < self.order.len() {
                    self.batch = self.batch.saturating_mul(4);
                }
                continue;
            }
            if let Some(Reverse(key)) = self.ranked.pop() {
                memory::push(&mut self.handed_out, (key >> 32) as u32);
                let (i, factors, dot) = &self.centroids[key as u32 as usize];
                let child = &self.entries[*i as usize].child;
                self.seen.insert(child.list);
                return Ok(Some(query.list(child, factors, *dot)));
            }
            match self.stage {
                Stage::Few => self.stage = Stage::More,
                _ => return Ok(None),
            }
        }
    }

    /// Looks for lists that have not been handed out.
    fn look_for<P: Pages>(
        &mut self,
        rel: P,
        meta: &page::Meta,
        inner: &Layout,
        query: &Query,
        few: bool,
        due: Option<Due>,
    ) -> Result<(), Stale> {
        let most = if few { self.few() } else { beam(meta, 0, self.wanted) };
        let wanted = Wanted { count: most, due, seen: &self.seen };
        if self.ranked_blocks.is_empty() {
            self.ranked_blocks = ranked_blocks(rel, meta, inner, query, &self.parents)?;
        }
        let Estimates { entries, all, passed_by } =
            estimates(rel, meta, inner, query, &self.parents, &self.ranked_blocks, wanted)?;
        self.passed_by = passed_by;
        self.entries = entries;
        self.by_least.clear();
        memory::room(&mut self.by_least, self.entries.len());
        self.by_least.extend(self.entries.iter().zip(0..).map(|(e, i)| order_key(e.least, i)));
        self.by_least.sort_unstable();
        self.looked_at = 0;
        self.centroids.clear();
        self.ranked.clear();
        self.batch = match (few, self.at_once) {
            (true, _) => most,
            (_, true) => self.entries.len(),
            _ => self.few(),
        };
        // Of more levels, there may be others below other parents.
        let all = all && (meta.height == 1 || most == usize::MAX);
        self.stage = if few { Stage::Few } else { Stage::Wanted { all } };
        Ok(())
    }
}

/// Lists that are found first, for a search to learn how far its results are, and centroids that are read at a time later: this
/// part of those wanted (which are several times as many as a search reads on average), within these limits.
const FEW_SHARE: usize = 4;
const FEWEST: usize = 8;
const MOST_OF_FEW: usize = 24;

/// The nearest `wanted` entries of the inner lists `parents`, nearest first. Centroids of all levels are encoded relative to
/// the origin, the root's centroid.
fn children<P: Pages>(
    rel: P,
    meta: &page::Meta,
    layout: &Layout,
    query: &Query,
    parents: &[Found],
    wanted: usize,
    filter: Option<&Predicate>,
) -> Result<Vec<Found>, Stale> {
    let of_all = Wanted { count: wanted, due: None, seen: &ListSet::default() };
    let ranked = ranked_blocks(rel, meta, layout, query, parents)?;
    let best = estimates(rel, meta, layout, query, parents, &ranked, of_all)?.entries;
    let mut found = memory::with_room(best.len());
    let mut order: Vec<u32> = memory::collected(0..best.len() as u32);
    look_up(rel, layout, query, &best, &mut order, filter, |_, e, factors, dot| {
        let list = query.list(&e.child, factors, dot);
        let rank = query.rank(&e.child, list.term.a);
        found.push(Found { list, rank, at: e.at, cell: e.cell, parent: e.parent as usize });
    })?;
    let mut by_rank: Vec<u64> = memory::collected(found.iter().zip(0_u32..).map(|(f, i)| order_key(f.rank, i)));
    by_rank.sort_unstable();
    Ok(memory::collected(by_rank.into_iter().take(wanted).map(|key| found[key as u32 as usize])))
}

/// All blocks of the inner lists `parents`, in order, ranked by their sketches.
fn ranked_blocks<P: Pages>(
    rel: P,
    meta: &page::Meta,
    layout: &Layout,
    query: &Query,
    parents: &[Found],
) -> Result<Vec<RankedBlock>, Stale> {
    let term = query.root_term();
    let mut ranked = Vec::new();
    let mut scores = Scores::new();
    for (parent, of) in parents.iter().enumerate() {
        let mut cursor = Cursor::new(rel, layout, &of.list);
        while let Some(buffer) = cursor.next_page()? {
            let posting = cursor.posting(&buffer);
            for b in 0..posting.blocks() {
                let block = posting.block(b);
                let (live, table) = (block.live(), &query.table);
                scan_block(rel, layout, of.list.id, term, &block, live, table, f32::INFINITY, &mut scores)?;
                let ranks = query.ranks(&block, &scores);
                memory::push(&mut ranked, RankedBlock { parent, page: buffer.block(), block: b, live, ranks });
            }
        }
        if let Some(stale) = cursor.changed_since(meta.epoch) {
            return Err(stale);
        }
    }
    Ok(ranked)
}

/// Entries of `ranked` blocks of the lists `parents` that are probably among the nearest of those wanted. Pages are read again,
/// those on which there are such entries.
fn estimates<P: Pages>(
    rel: P,
    meta: &page::Meta,
    layout: &Layout,
    query: &Query,
    parents: &[Found],
    ranked: &[RankedBlock],
    wanted: Wanted<'_>,
) -> Result<Estimates, Stale> {
    let mut best = Best::new(meta, wanted);
    let mut open: Option<P::Shared> = None;
    for of in ranked {
        let interest = best.of_interest(query, of);
        if interest == 0 {
            continue;
        }
        if open.as_ref().is_none_or(|buffer| buffer.block() != of.page) {
            drop(open.take()); // before the next lock
            rel.check_for_interrupts();
            open = Some(rel.read(of.page));
        }
        let buffer = open.as_ref().unwrap();
        let posting = Posting::open(buffer.page(), layout, parents[of.parent].list.id).or_stale(rel, of.page)?;
        // Entries that have gone raised it.
        if posting.opaque.epoch > meta.epoch {
            return Err(Stale { block: of.page, damage: Damage::Epoch(posting.opaque.epoch) });
        }
        if of.block >= posting.blocks() {
            return Err(Stale { block: of.page, damage: Damage::Bounds });
        }
        best.add(rel, of, interest, &posting.block(of.block))?;
    }
    Ok(best.finish())
}

/// A block of an inner list as its sketches rank it.
struct RankedBlock {
    /// Index of the list.
    parent: usize,
    page: u32,
    block: usize,
    live: u32,
    ranks: Ranks,
}

/// The best entries so far.
struct Best<'s> {
    wanted: Wanted<'s>,
    last_list: u32,
    entries: Vec<Estimated>,
    /// The worst of those kept when there were too many.
    threshold: f32,
    full: usize,
    all: bool,
    passed_by: bool,
}

impl<'s> Best<'s> {
    fn new(meta: &page::Meta, wanted: Wanted<'s>) -> Best<'s> {
        let full = wanted.count.saturating_mul(2).max(64);
        Best {
            wanted,
            last_list: meta.last_list,
            entries: memory::with_room(full.min(meta.lists as usize)),
            threshold: f32::INFINITY,
            full,
            all: true,
            passed_by: false,
        }
    }

    /// Slots that may be among the best, and due.
    fn of_interest(&mut self, query: &Query, of: &RankedBlock) -> u32 {
        let near = of.live & of.ranks.below(self.threshold);
        match self.wanted.due {
            Some(due) if near != 0 => {
                let interest = near & query.due(&of.ranks, due);
                self.passed_by |= interest != near;
                interest
            }
            _ => near,
        }
    }

    /// Adds slots of a block, which is `of` as it was ranked.
    fn add<P: Pages>(&mut self, rel: P, of: &RankedBlock, interest: u32, block: &Block<'_>) -> Result<(), Stale> {
        let &RankedBlock { parent, page, block: b, ref ranks, .. } = of;
        for slot in slots(interest & block.live()) {
            // Others of this block may have come nearer.
            if ranks.least[slot] >= self.threshold {
                continue;
            }
            let child = block.child(slot);
            if child.list > self.last_list {
                // Made after the walk began.
                return Err(Stale { block: page, damage: Damage::List(child.list) });
            }
            if self.wanted.seen.contains(child.list) {
                continue;
            }
            let Some(cell) = block.cell(slot) else {
                rel.corrupted(page, Damage::Bounds);
            };
            let at = Position { page, block: b as u16, slot: slot as u16 };
            let (estimate, least) = (ranks.rank[slot], ranks.least[slot]);
            memory::push(&mut self.entries, Estimated { estimate, least, parent: parent as u32, cell, at, child });
            if self.entries.len() >= self.full {
                self.all = false;
                self.threshold = keep_nearest(&mut self.entries, self.wanted.count);
                self.full = self.full.max(2 * self.entries.len());
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Estimates {
        if self.entries.len() > self.wanted.count {
            self.all = false;
            keep_nearest(&mut self.entries, self.wanted.count);
        }
        Estimates { entries: self.entries, all: self.all, passed_by: self.passed_by }
    }
}

/// Of the 32 slots of a block of an inner list, live or not, by their sketches: see [`Query::ranks`].
struct Ranks {
    /// What lists are ranked by, see [`Query::rank`].
    rank: [f32; BLOCK],
    /// [`DEVIATIONS`] below that.
    least: [f32; BLOCK],
    /// Of the child lists.
    radius: [f32; BLOCK],
}

impl Ranks {
    /// Slots whose `least` is below a threshold; a NaN is.
    fn below(&self, threshold: f32) -> u32 {
        !mask(self.least.map(|least| least >= threshold))
    }
}

/// Reads the centroids of those `entries` whose indices `order` has (it is put in order, which is mostly that of their cells, as
/// neighbours share pages), and hands them to `take`: index, entry, factors, and inner product of the code with the query. Lists of rows that
/// hold none that passes the `filter` are left out.
fn look_up<P: Pages>(
    rel: P,
    layout: &Layout,
    query: &Query,
    entries: &[Estimated],
    order: &mut [u32],
    filter: Option<&Predicate>,
    mut take: impl FnMut(u32, &Estimated, &CodeFactors, f32),
) -> Result<(), Stale> {
    order.sort_unstable();
    let mut codes = CodeReader::new(rel, layout);
    for (at, &i) in order.iter().enumerate() {
        if let Some(&ahead) = order.get(at + CELLS_AHEAD) {
            match filter {
                Some(filter) => codes.prefetch_summaries(entries[ahead as usize].cell, filter),
                None => codes.prefetch(entries[ahead as usize].cell),
            }
        }
        let e = &entries[i as usize];
        if let Some(filter) = filter
            && !codes.may_match(e.cell, e.child.list, filter)?
        {
            continue;
        }
        let Code { factors, dot, .. } = codes.dot(e.cell, Owner::child(e.child.list), &query.vector)?;
        take(i, e, &factors, dot);
    }
    Ok(())
}

/// Lists whose sketch says that they are this many deviations too far away are looked at all the same. (All of them are,
/// where sketches say little, because the lists are near each other and far from the mean.)
const DEVIATIONS: f32 = 1.0;

/// Removes the entries that are probably not among the `wanted` (at least 1) nearest, without changing the order of the
/// others: it is that of their cells. Returns the `wanted`-th smallest estimate.
fn keep_nearest(entries: &mut Vec<Estimated>, wanted: usize) -> f32 {
    let mut estimates: Vec<f32> = memory::collected(entries.iter().map(|e| e.estimate));
    let threshold = *estimates.select_nth_unstable_by(wanted - 1, f32::total_cmp).1;
    // A tie is enough. None is lost by a threshold that is not a number.
    entries.retain(|e| !(e.least >= threshold && e.estimate > threshold));
    threshold
}

/// A number that orders as `x` does under `f32::total_cmp`, with an index in its low half.
#[inline]
fn order_key(x: f32, i: u32) -> u64 {
    let bits = x.to_bits();
    let key = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    u64::from(key) << 32 | u64::from(i)
}

/// A set of lists, by identity.
#[derive(Default)]
pub struct ListSet {
    /// Of the identities of an index that has not changed much, up to [`ListSet::LOW`].
    low: BitVec,
    high: HashSet<u32>,
}

impl ListSet {
    /// Bits: half a megabyte.
    const LOW: usize = 1 << 22;

    /// Adds a list; false when it was in.
    #[inline]
    pub fn insert(&mut self, list: u32) -> bool {
        let i = list as usize;
        if i >= ListSet::LOW {
            ann::memory::room(&mut self.high, 1);
            return self.high.insert(list);
        }
        if i >= self.low.len() {
            crate::resize_bits(&mut self.low, (i + 1).next_power_of_two());
        }
        !self.low.replace(i, true)
    }

    /// Whether a list is in.
    #[inline]
    pub fn contains(&self, list: u32) -> bool {
        if list as usize >= ListSet::LOW {
            return self.high.contains(&list);
        }
        self.low.get(list as usize).is_some_and(|b| *b)
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.low.fill(false);
        self.high.clear();
    }
}
