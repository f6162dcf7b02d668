//! Adds one entry to a list: finds room for it, takes cells for its code where there are none yet, and writes it.

use super::encode::Encoder;
use crate::page::{
    self, Child, Damage, Kind, Layout, META_BLOCK, Meta, NO_BLOCK, Opaque, Posting, PostingMut, Room, Run, Tid,
};
use crate::pages::{Guard, Pages, Record};
use crate::read::tree::Position;
use crate::stale::{Checked, Stale, Steps};
use ann::filter::Summary;
use ann::quantize::{self, BLOCK};

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
fn another<P: Pages>(index: P, held: &P::Exclusive, number: u32) -> P::Exclusive {
    if number == held.block() || number == META_BLOCK {
        index.corrupted(held.block(), Damage::Bounds);
    }
    index.write(number)
}

/// Adds an entry to the list of this head page and identity, in a free slot but not in those `taken`.
pub fn append<P: Pages>(
    index: P,
    layout: &Layout,
    (head, list): (u32, u32),
    entry: &NewEntry<'_>,
    taken: &[Position],
) -> Result<Added, Refused> {
    let mut buffer = index.write(head);
    let mut hint = head;
    let mut steps = Steps::new();
    loop {
        let block = buffer.block();
        let posting = Posting::open(buffer.page(), layout, list).or_stale(index, block).map_err(Refused::Stale)?;
        if posting.opaque.closed() {
            return Err(Refused::Closed);
        }
        // From the head, go on at the page where room was found last. (Not in lists of lists, where each split leaves a free
        // slot anywhere: searches read all of their pages.)
        let next = if !layout.inner && block == head && hint == head && posting.opaque.insert_at != head {
            hint = posting.opaque.insert_at;
            hint
        } else {
            let is_taken =
                |b, slot| taken.iter().any(|t| (t.page, t.block as usize, t.slot as usize) == (block, b, slot));
            if let Some(room) = posting.room(is_taken) {
                let at = put(index, layout, &buffer, room, entry);
                if !layout.inner && block != hint {
                    set_insert_page(index, head, &buffer);
                }
                return Ok(Added { at, grown: room == Room::Block });
            }
            posting.opaque.next
        };
        steps.step(index, block);
        buffer = if next == NO_BLOCK {
            extend(index, buffer, head)
        } else {
            drop(buffer); // one posting page at a time
            index.check_for_interrupts();
            index.write(next)
        };
    }
}

/// Makes `found` (locked) the page where inserts into the list of head page `head` begin to look for room. Nobody who holds
/// a head page waits for another posting page.
fn set_insert_page<P: Pages>(index: P, head: u32, found: &P::Exclusive) {
    let buffer;
    let target = if found.block() == head {
        found
    } else {
        buffer = another(index, found, head);
        &buffer
    };
    let mut change = index.begin();
    page::edit_opaque(change.edit(target, false), |o| o.insert_at = found.block());
    change.commit();
}

/// Links an empty page behind `last`; returns it, locked.
fn extend<P: Pages>(index: P, last: P::Exclusive, head: u32) -> P::Exclusive {
    let Opaque { list, level, .. } = page::opaque(last.page());
    let fresh = index.allocate();
    let mut change = index.begin();
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
fn put<P: Pages>(index: P, layout: &Layout, buffer: &P::Exclusive, room: Room, entry: &NewEntry<'_>) -> Position {
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
        index.corrupted(buffer.block(), Damage::Bounds);
    }
    let cells = match layout.cell_pages {
        0 => Cells::none(),
        1 => Cells::take(index, layout, buffer, room),
        _ => Cells::spanning(index, layout, buffer, room, entry),
    };
    let Encoder { code: factors, codes, .. } = entry.encoded;
    let moved = page::opaque(buffer.page()).epoch;
    let write_cell = |page: &mut page::Bytes, cell: u16| {
        page::write_cell(page, layout, cell, 0, factors, codes, entry.tid, entry.child.map(|(c, s)| (c.list, s)));
        // The slot's last entry may have been moved to another list: then whoever still has it in mind must notice.
        page::edit_opaque(page, |o| o.epoch = o.epoch.max(moved));
    };
    let write_sketch = |change: &mut P::Record, sketch: &P::Exclusive, i: usize| {
        write_sketch(index, layout, change, sketch, i, slot, list, entry);
        if let Cell::WithList(number, cell) = cells.cell
            && number == sketch.block()
        {
            page::cell(sketch.page(), layout, cell).or_corrupted(index, number);
            write_cell(change.edit(sketch, false), cell);
        }
    };
    // Parts of the sketch that do not fit into the entry's own record.
    let together = if layout.sketch_pages == 1 { 1 } else { 0 };
    for (i, &number) in sketch_pages.iter().enumerate().skip(together) {
        let sketch = another(index, buffer, number);
        let mut change = index.begin();
        write_sketch(&mut change, &sketch, i);
        change.commit();
    }
    let sketch = sketch_pages.first().filter(|_| together == 1).map(|&number| another(index, buffer, number));

    let mut change = index.begin();
    let mut view = PostingMut::new(change.edit(buffer, false), layout);
    if room == Room::Block {
        view.add_block(&[]);
        for (i, &number) in sketch_pages.iter().enumerate() {
            view.set_sketch_page(b, i, number);
        }
    }
    for (i, run) in &cells.runs {
        view.set_run(b, *i, run);
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
    match &cells.cell {
        Cell::Written => {}
        Cell::WithList(number, cell) => {
            if *number == buffer.block() {
                write_cell(change.edit(buffer, false), *cell);
            }
        }
        Cell::OnCodePage(code) => {
            let page = change.edit(&code.buffer, code.fresh);
            if code.fresh {
                page::init(page, Kind::Code, level.min(1), 0);
            }
            if code.claimed > 0 {
                page::edit_opaque(page, |o| o.refs += 1);
                page::set_used_cells(page, layout, code.claimed);
            }
            write_cell(page, code.cell);
        }
    }
    if let Some(sketch) = &sketch {
        write_sketch(&mut change, sketch, 0);
    }
    change.commit();
    Position { page: buffer.block(), block: b as u16, slot: slot as u16 }
}

fn posting<'p, P: Pages>(index: P, layout: &'p Layout, buffer: &'p P::Exclusive) -> Posting<'p> {
    Posting::open(buffer.page(), layout, 0).or_corrupted(index, buffer.block())
}

fn new_sketch_page<P: Pages>(index: P, layout: &Layout, part: usize, list: u32, head: u32, level: u8) -> u32 {
    let fresh = index.allocate();
    let mut change = index.begin();
    let page = change.edit(&fresh, true);
    page::init(page, Kind::Sketch, level, list);
    page::edit_opaque(page, |o| o.head = head);
    page::sketch_part_mut(page, layout.part(part).len());
    change.commit();
    fresh.block()
}

/// Writes part `i` of an entry's sketch.
#[allow(clippy::too_many_arguments, reason = "one place, twice")]
fn write_sketch<P: Pages>(
    index: P,
    layout: &Layout,
    change: &mut P::Record,
    buffer: &P::Exclusive,
    i: usize,
    slot: usize,
    list: u32,
    entry: &NewEntry<'_>,
) {
    let part = layout.part(i);
    page::sketch_part(buffer.page(), layout, i, list).or_corrupted(index, buffer.block());
    let groups = page::sketch_part_mut(change.edit(buffer, false), part.len());
    quantize::set_nibble_column(groups, slot, &entry.encoded.nibbles[part]);
}

/// The cells of the block that an entry goes to.
struct Cells<P: Pages> {
    /// Runs to be named in the block.
    runs: Vec<(usize, Run)>,
    /// The entry's own.
    cell: Cell<P>,
    /// The meta page, if it has to name another open code page.
    open: Option<(P::Exclusive, u32)>,
}

/// Where an entry's cell is.
enum Cell<P: Pages> {
    /// There is none, or it spans pages and has been written.
    Written,
    /// On the posting page or on one of the block's sketch pages: page and cell.
    WithList(u32, u16),
    OnCodePage(CodePage<P>),
}

struct CodePage<P: Pages> {
    buffer: P::Exclusive,
    fresh: bool,
    cell: u16,
    /// Cells in use from now on, when the block takes cells of this page; else 0.
    claimed: usize,
}

impl<P: Pages> Cells<P> {
    /// Without codes.
    fn none() -> Cells<P> {
        Cells { runs: Vec::new(), cell: Cell::Written, open: None }
    }

    /// Where a cell has one page: blocks take cells from the *open* code page, which the meta page names, up to its end or
    /// to 32. What is left of a new page is open to the next.
    fn take(index: P, layout: &Layout, buffer: &P::Exclusive, room: Room) -> Cells<P> {
        let block = |b| posting(index, layout, buffer).block(b);
        let damaged = || -> ! { index.corrupted(buffer.block(), Damage::Bounds) };
        if let Room::Slot(b, slot) = room {
            let (number, cell) = block(b).cell(slot).unwrap_or_else(|| damaged());
            let cell = if number == buffer.block() || block(b).all_sketch_pages().any(|page| page == number) {
                if number == buffer.block() {
                    page::cell(buffer.page(), layout, cell).or_corrupted(index, number);
                }
                Cell::WithList(number, cell)
            } else {
                let code = another(index, buffer, number);
                page::check_code(code.page(), layout).or_corrupted(index, number);
                page::cell(code.page(), layout, cell).or_corrupted(index, number);
                Cell::OnCodePage(CodePage { buffer: code, fresh: false, cell, claimed: 0 })
            };
            return Cells { runs: Vec::new(), cell, open: None };
        }
        let (place, before) = match room {
            Room::More(b, slots) => (block(b).free_run().unwrap_or_else(|| damaged()), slots),
            _ => (0, 0),
        };
        let meta_buffer = index.write(META_BLOCK);
        let meta = Meta::read(meta_buffer.page()).or_corrupted(index, META_BLOCK);
        let open = meta.open_code[usize::from(layout.inner)];
        let mut found = None;
        if open != NO_BLOCK {
            let code = another(index, buffer, open);
            let used = page::check_code(code.page(), layout).or_corrupted(index, open).used as usize;
            if used < layout.cells {
                found = Some((code, used, false));
            }
        }
        let (code, cell, fresh) = found.unwrap_or_else(|| (index.allocate(), 0, true));
        let claimed = (cell + BLOCK - before).min(layout.cells);
        let run = Run { page: code.block(), first: cell as u16, count: (claimed - cell) as u16 };
        let now_open = if claimed < layout.cells { code.block() } else { NO_BLOCK };
        Cells {
            runs: vec![(place, run)],
            cell: Cell::OnCodePage(CodePage { buffer: code, fresh, cell: cell as u16, claimed }),
            open: (now_open != open).then_some((meta_buffer, now_open)),
        }
    }

    /// Where a cell spans pages, these are its own: they are made when the slot is used first, and written here.
    fn spanning(index: P, layout: &Layout, buffer: &P::Exclusive, room: Room, entry: &NewEntry<'_>) -> Cells<P> {
        let (slot, known): (usize, Vec<u32>) = match room {
            Room::Slot(b, slot) | Room::More(b, slot) => {
                let block = posting(index, layout, buffer).block(b);
                let first = slot * layout.cell_pages;
                (slot, (first..first + layout.cell_pages).map(|i| block.run(i).page).collect())
            }
            Room::Block => (0, vec![NO_BLOCK; layout.cell_pages]),
        };
        let first = slot * layout.cell_pages;
        let Opaque { epoch: moved, level, .. } = page::opaque(buffer.page());
        let mut runs = Vec::new();
        let mut next = NO_BLOCK;
        // Back to front, so that each page of a cell knows the next.
        for part in (0..layout.cell_pages).rev() {
            let exists = known[part] != NO_BLOCK;
            let code = if exists { another(index, buffer, known[part]) } else { index.allocate() };
            if exists {
                page::check_code(code.page(), layout).or_corrupted(index, known[part]);
            } else {
                runs.push((first + part, Run { page: code.block(), first: 0, count: 1 }));
            }
            let mut change = index.begin();
            let page = change.edit(&code, !exists);
            if !exists {
                page::init(page, Kind::Code, level.min(1), 0);
                page::edit_opaque(page, |o| o.refs = 1);
            }
            let Encoder { code: factors, codes, .. } = entry.encoded;
            page::write_cell(page, layout, 0, part, factors, codes, entry.tid, entry.child.map(|(c, s)| (c.list, s)));
            page::edit_opaque(page, |o| (o.next, o.epoch) = (next, o.epoch.max(moved)));
            change.commit();
            next = code.block();
        }
        Cells { runs, cell: Cell::Written, open: None }
    }
}
