//! Adds one entry to a list: finds room for it, takes cells for its code where there are none yet, and writes it.

use super::encode::Encoder;
use super::page::{
    self, Child, Damage, Kind, Layout, META_BLOCK, Meta, NO_BLOCK, Opaque, Posting, PostingMut, Room, Tid,
};
use super::storage::{Buffer, Change, Checked, Stale, blocks, corrupted};
use super::tree::Position;
use ann::filter::Summary;
use ann::quantize::{self, BLOCK};
use pgrx::prelude::*;

/// Why an entry was not added.
pub enum Refused {
    /// The list is not where the caller was led to.
    Stale(Stale),
    /// The list is about to be replaced.
    Closed,
}

/// An entry that was added.
pub struct Added {
    pub at: Position,
    /// The list got a new block for it.
    pub grown: bool,
}

/// What is added.
pub struct NewEntry<'e> {
    pub tid: Tid,
    pub encoded: &'e Encoder,
    /// On inner levels, the child list, and the summaries of its filter columns (none: it is a list of lists).
    pub child: Option<(Child, &'e [Summary])>,
    /// Whether it is set live; if not, all of it is written but the live bit.
    pub live: bool,
}

/// Locks the page that one of `held` names. Were it that very page, which only damage can make it, it would wait for itself.
fn another<'r>(index: pg_sys::Relation, held: &Buffer<'_>, number: u32) -> Buffer<'r> {
    if number == held.block() || number == META_BLOCK {
        corrupted(index, held.block(), Damage::Bounds);
    }
    Buffer::write(index, number)
}

/// Adds an entry to the list of this head page and identity, in a free slot but not in those `taken`.
pub fn append(
    index: pg_sys::Relation,
    layout: &Layout,
    (head, list): (u32, u32),
    entry: &NewEntry<'_>,
    taken: &[Position],
) -> Result<Added, Refused> {
    let mut buffer = Buffer::write(index, head);
    let mut hint = head;
    let mut left = u32::MAX;
    loop {
        let block = buffer.block();
        let posting = Posting::open(buffer.page(), layout, list).or_stale(index, block).map_err(Refused::Stale)?;
        if posting.opaque.closed() {
            return Err(Refused::Closed);
        }
        // From the head, go on at the page where room was found last.
        let next = if block == head && hint == head && posting.opaque.insert_at != head {
            hint = posting.opaque.insert_at;
            hint
        } else {
            let is_taken =
                |b, slot| taken.iter().any(|t| (t.page, t.block as usize, t.slot as usize) == (block, b, slot));
            if let Some(room) = posting.room(is_taken) {
                let at = put(index, layout, &buffer, room, entry);
                if block != hint {
                    set_insert_page(index, head, &buffer);
                }
                return Ok(Added { at, grown: room == Room::Block });
            }
            posting.opaque.next
        };
        // A damaged chain could run in a circle.
        if left == u32::MAX {
            left = blocks(index);
        }
        left = left.checked_sub(1).unwrap_or_else(|| corrupted(index, block, Damage::Bounds));
        buffer = if next == NO_BLOCK {
            extend(index, buffer, head)
        } else {
            drop(buffer); // one posting page at a time
            pgrx::check_for_interrupts!();
            Buffer::write(index, next)
        };
    }
}

/// Makes `found` (locked) the page where inserts into the list of head page `head` begin to look for room. Nobody who holds
/// a head page waits for another posting page.
fn set_insert_page(index: pg_sys::Relation, head: u32, found: &Buffer<'_>) {
    let buffer;
    let target = if found.block() == head {
        found
    } else {
        buffer = another(index, found, head);
        &buffer
    };
    let change = Change::begin(index);
    page::edit_opaque(change.edit(target, false), |o| o.insert_at = found.block());
    change.commit();
}

/// Links an empty page behind `last`; returns it, locked.
fn extend<'r>(index: pg_sys::Relation, last: Buffer<'r>, head: u32) -> Buffer<'r> {
    let Opaque { list, level, .. } = page::opaque(last.page());
    let fresh = Buffer::allocate(index, pg_sys::ForkNumber::MAIN_FORKNUM);
    let change = Change::begin(index);
    page::edit_opaque(change.edit(&last, false), |o| o.next = fresh.block());
    let page = change.edit(&fresh, true);
    page::init(page, Kind::Posting, level, list);
    page::edit_opaque(page, |o| o.head = head);
    change.commit();
    fresh
}

/// Writes an entry where the locked page has room.
///
/// Mostly this is one record: posting page, code page, and one sketch page if there is one. Entries that span more pages
/// are written part by part, the posting page last. Pages are locked in the order posting, meta, code, sketch.
fn put(index: pg_sys::Relation, layout: &Layout, buffer: &Buffer<'_>, room: Room, entry: &NewEntry<'_>) -> Position {
    let Opaque { list, head, level, used, .. } = page::opaque(buffer.page());
    let (b, slot) = match room {
        Room::Slot(b, slot) | Room::More(b, slot) => (b, slot),
        Room::Block => (used as usize, 0),
    };
    let sketch_pages: Vec<u32> = match room {
        Room::Block => (0..layout.sketch_pages).map(|i| new_sketch_page(index, layout, i, list, head, level)).collect(),
        _ => posting(index, layout, buffer).block(b).all_sketch_pages().collect(),
    };
    if sketch_pages.len() != layout.sketch_pages {
        corrupted(index, buffer.block(), Damage::Bounds);
    }
    // Parts of the sketch that do not fit into the entry's own record.
    let together = if layout.sketch_pages == 1 { 1 } else { 0 };
    for (i, &number) in sketch_pages.iter().enumerate().skip(together) {
        let sketch = another(index, buffer, number);
        let change = Change::begin(index);
        write_sketch(index, layout, &change, &sketch, i, slot, list, entry);
        change.commit();
    }
    let cells = if layout.cell_pages > 1 {
        Cells::spanning(index, layout, buffer, room, entry)
    } else {
        Cells::take(index, layout, buffer, room)
    };
    let sketch = sketch_pages.first().filter(|_| together == 1).map(|&number| another(index, buffer, number));

    let change = Change::begin(index);
    let mut view = PostingMut::new(change.edit(buffer, false), layout);
    if room == Room::Block {
        view.add_block(cells.slots, cells.index);
        for (i, &number) in sketch_pages.iter().enumerate() {
            view.set_sketch_page(b, i, number);
        }
    }
    view.set_slots(b, cells.slots);
    for &(i, number) in &cells.pages {
        view.set_code_page(b, i, number);
    }
    view.set_entry(b, slot, entry.tid, &entry.encoded.sketch);
    match &entry.child {
        Some((child, _)) => view.set_child(b, slot, child),
        None => view.set_keys(b, slot, &entry.encoded.row),
    }
    quantize::set_nibble_column(view.groups(b), slot, &entry.encoded.nibbles[..layout.inline_groups]);
    view.set_live_bit(b, slot, entry.live);
    if let Some((meta, open)) = &cells.open {
        let page = change.edit(meta, false);
        let mut meta = Meta::read(page).or_corrupted(index, META_BLOCK);
        meta.open_code[usize::from(layout.inner)] = *open;
        meta.write(page);
    }
    if let Some(code) = &cells.code {
        let page = change.edit(&code.buffer, code.fresh);
        if code.fresh {
            page::init(page, Kind::Code, level.min(1), 0);
        }
        if code.claimed > 0 {
            page::edit_opaque(page, |o| o.refs += 1);
            page::set_used_cells(page, layout, code.claimed);
        }
        let Encoder { code: factors, codes, .. } = entry.encoded;
        page::write_cell(page, layout, code.cell, 0, factors, codes, entry.child.map(|(c, s)| (c.list, s)));
        // The slot's last entry may have been moved to another list: then whoever still has it in mind must notice.
        let moved = page::opaque(buffer.page()).epoch;
        page::edit_opaque(page, |o| o.epoch = o.epoch.max(moved));
    }
    if let Some(sketch) = &sketch {
        write_sketch(index, layout, &change, sketch, 0, slot, list, entry);
    }
    change.commit();
    Position { page: buffer.block(), block: b as u16, slot: slot as u16 }
}

fn posting<'p>(index: pg_sys::Relation, layout: &'p Layout, buffer: &'p Buffer<'_>) -> Posting<'p> {
    Posting::open(buffer.page(), layout, 0).or_corrupted(index, buffer.block())
}

fn new_sketch_page(index: pg_sys::Relation, layout: &Layout, part: usize, list: u32, head: u32, level: u8) -> u32 {
    let fresh = Buffer::allocate(index, pg_sys::ForkNumber::MAIN_FORKNUM);
    let change = Change::begin(index);
    let page = change.edit(&fresh, true);
    page::init(page, Kind::Sketch, level, list);
    page::edit_opaque(page, |o| o.head = head);
    page::sketch_part_mut(page, layout.part(part).len());
    change.commit();
    fresh.block()
}

/// Writes part `i` of an entry's sketch.
#[allow(clippy::too_many_arguments, reason = "one place, twice")]
fn write_sketch(
    index: pg_sys::Relation,
    layout: &Layout,
    change: &Change<'_>,
    buffer: &Buffer<'_>,
    i: usize,
    slot: usize,
    list: u32,
    entry: &NewEntry<'_>,
) {
    let part = layout.part(i);
    page::sketch_part(buffer.page(), part.len(), list).or_corrupted(index, buffer.block());
    let groups = page::sketch_part_mut(change.edit(buffer, false), part.len());
    quantize::set_nibble_column(groups, slot, &entry.encoded.nibbles[part]);
}

/// The cells of the block that an entry goes to.
struct Cells<'r> {
    /// Cell of slot 0 on the first page.
    index: usize,
    /// Slots that have cells.
    slots: usize,
    /// Pages to be named in the block.
    pages: Vec<(usize, u32)>,
    /// Page of the entry's own cell; None when the cell spans pages and has been written.
    code: Option<CodePage<'r>>,
    /// The meta page, if it has to name another open code page.
    open: Option<(Buffer<'r>, u32)>,
}

struct CodePage<'r> {
    buffer: Buffer<'r>,
    fresh: bool,
    /// The entry's cell.
    cell: usize,
    /// Cells in use from now on, when the block takes cells of this page; else 0.
    claimed: usize,
}

impl<'r> Cells<'r> {
    /// Where a cell has one page: new blocks take cells from the *open* code page, which the meta page names, up to its end or
    /// to 32, blocks that go on take them from a new page. What is left of a new page is open to the next.
    fn take(index: pg_sys::Relation, layout: &Layout, buffer: &Buffer<'_>, room: Room) -> Cells<'r> {
        let fresh = || (Buffer::allocate(index, pg_sys::ForkNumber::MAIN_FORKNUM), 0, true);
        let block = |b| posting(index, layout, buffer).block(b);
        let damaged = || -> ! { corrupted(index, buffer.block(), Damage::Bounds) };
        if let Room::Slot(b, slot) = room {
            let (number, cell) = block(b).cell(slot).unwrap_or_else(|| damaged());
            let code = another(index, buffer, number);
            page::check_code(code.page(), layout).or_corrupted(index, number);
            return Cells {
                index: block(b).code_index(),
                slots: block(b).slots(),
                pages: Vec::new(),
                code: Some(CodePage { buffer: code, fresh: false, cell: cell as usize, claimed: 0 }),
                open: None,
            };
        }
        let meta_buffer = Buffer::write(index, META_BLOCK);
        let meta = Meta::read(meta_buffer.page()).or_corrupted(index, META_BLOCK);
        let open = meta.open_code[usize::from(layout.inner)];
        let mut left_on_open = 0;
        let mut found = None;
        if open != NO_BLOCK {
            let code = another(index, buffer, open);
            let used = page::check_code(code.page(), layout).or_corrupted(index, open).used as usize;
            left_on_open = layout.cells.saturating_sub(used);
            if room == Room::Block && left_on_open > 0 {
                found = Some((code, used, false));
            }
        }
        let (code, cell, fresh) = found.unwrap_or_else(fresh);
        let (first, index_of_first, before) = match room {
            Room::More(b, slots) => {
                let view = block(b);
                (view.next_page().unwrap_or_else(|| damaged()), view.code_index(), slots)
            }
            _ => (0, cell, 0),
        };
        let claimed = (cell + BLOCK - before).min(layout.cells);
        let left = layout.cells - claimed;
        let now_open = match (fresh, left) {
            (false, 0) => NO_BLOCK,
            (false, _) => open,
            (true, left) if left > left_on_open => code.block(),
            (true, _) => open,
        };
        Cells {
            index: index_of_first,
            slots: before + claimed - cell,
            pages: vec![(first, code.block())],
            open: (now_open != open).then_some((meta_buffer, now_open)),
            code: Some(CodePage { buffer: code, fresh, cell, claimed }),
        }
    }

    /// Where a cell spans pages, these are its own: they are made when the slot is used first, and written here.
    fn spanning(
        index: pg_sys::Relation,
        layout: &Layout,
        buffer: &Buffer<'_>,
        room: Room,
        entry: &NewEntry<'_>,
    ) -> Cells<'r> {
        let (slot, known): (usize, Vec<u32>) = match room {
            Room::Slot(b, slot) | Room::More(b, slot) => {
                let block = posting(index, layout, buffer).block(b);
                let first = layout.cell_of(0, slot).0;
                (slot, (first..first + layout.cell_pages).map(|i| block.code_page(i)).collect())
            }
            Room::Block => (0, vec![NO_BLOCK; layout.cell_pages]),
        };
        let (first, cell) = layout.cell_of(0, slot);
        let Opaque { epoch: moved, level, .. } = page::opaque(buffer.page());
        let mut pages = Vec::new();
        let mut next = NO_BLOCK;
        // Back to front, so that each page of a cell knows the next.
        for part in (0..layout.cell_pages).rev() {
            let exists = known[part] != NO_BLOCK;
            let code = if exists {
                another(index, buffer, known[part])
            } else {
                Buffer::allocate(index, pg_sys::ForkNumber::MAIN_FORKNUM)
            };
            if exists {
                page::check_code(code.page(), layout).or_corrupted(index, known[part]);
            } else {
                pages.push((first + part, code.block()));
            }
            let change = Change::begin(index);
            let page = change.edit(&code, !exists);
            if !exists {
                page::init(page, Kind::Code, level.min(1), 0);
                page::edit_opaque(page, |o| o.refs = 1);
            }
            let Encoder { code: factors, codes, .. } = entry.encoded;
            page::write_cell(page, layout, cell, part, factors, codes, entry.child.map(|(c, s)| (c.list, s)));
            page::edit_opaque(page, |o| (o.next, o.epoch) = (next, o.epoch.max(moved)));
            change.commit();
            next = code.block();
        }
        Cells { index: 0, slots: BLOCK, pages, code: None, open: None }
    }
}
