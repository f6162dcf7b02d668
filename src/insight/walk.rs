//! The structure of an index: every page, and every list from the root down, with all that must hold between them.
//! `ivflsh_check`, `ivflsh_lists` and `ivflsh_stats` are based on it.
//!
//! First all pages are read in physical order, then the lists. So a page that belongs to a list by the time of the first
//! pass is met in the second. Rows may be inserted meanwhile: what the first pass says of a page that an insert has taken
//! since is read again where it matters. All of it goes by [`at_rest`].
//!
//! What is known of pages is kept for as many of them as the memory holds that is allowed. Where there are more, all lists
//! are walked once for each such window of pages. What is known of lists is kept for all: some hundred bytes each.

use crate::index::page::{self, Block, Bytes, Child, Damage, Kind, Layout, META_BLOCK, Meta, NO_BLOCK, Posting, Tid};
use crate::index::read::info::Info;
use crate::index::storage::pages;
use crate::index::storage::{self, Buffer, Checked, Stale, StructureLock};
use ann::memory;
use ann::quantize::BLOCK;
use bitvec::prelude::*;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::collections::HashMap;

/// A contradiction: what should hold, and does not.
pub struct Wrong(pub String);

impl Wrong {
    /// A page is not what it should be.
    pub fn page(block: u32, damage: Damage) -> Wrong {
        Wrong(format!("Block {block}: {damage}."))
    }

    /// Raises it as `ERRCODE_INDEX_CORRUPTED`.
    pub fn raise(self, index: pg_sys::Relation) -> ! {
        // SAFETY: `index` is open.
        let name = unsafe { std::ffi::CStr::from_ptr((*(*index).rd_rel).relname.data.as_ptr()) };
        let message = format!("index \"{}\" is damaged", name.to_string_lossy());
        ErrorReport::new(PgSqlErrorCode::ERRCODE_INDEX_CORRUPTED, message, pgrx::function_name!())
            .set_detail(self.0)
            .set_hint("Please REINDEX it.")
            .report(PgLogLevel::ERROR);
        unreachable!()
    }
}

impl From<Stale> for Wrong {
    fn from(stale: Stale) -> Wrong {
        Wrong::page(stale.block, stale.damage)
    }
}

/// Times that a structure is read that keeps changing.
const TRIES: u32 = 20;

/// Calls `read` while the structure of the index stands still; raises what it finds wrong. (What is wrong only counts if nothing
/// changed meanwhile: a standby has no lock against the changes of its primary, and VACUUM takes copies of rows out of lists.)
pub fn at_rest<T>(index: pg_sys::Relation, mut read: impl FnMut() -> Result<T, Wrong>) -> T {
    let mut tries = 0;
    let wrong = loop {
        let _lock = StructureLock::shared(index);
        let epoch = Info::of(pages(index)).meta.epoch;
        match read() {
            Ok(value) => return value,
            Err(wrong) if Info::of(pages(index)).meta.epoch == epoch => break wrong,
            Err(_) => tries += 1,
        }
        if tries == TRIES {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
                "the structure of the index changes too often for it to be read"
            );
        }
    };
    wrong.raise(index)
}

/// Fails with a [`Wrong`] unless a condition holds.
macro_rules! ensure {
    ($holds:expr, $($detail:tt)+) => {
        let holds: bool = $holds;
        if !holds {
            return Err($crate::insight::walk::Wrong(format!($($detail)+)));
        }
    };
}
pub(crate) use ensure;

/// The bytes of a page, copied so that no lock is held while other pages are looked at.
#[repr(align(64))]
pub struct Copied(Bytes);

impl Copied {
    /// Copies a block that exists.
    pub fn of(rel: pg_sys::Relation, block: u32) -> Copied {
        Copied(*Buffer::read(rel, block).page())
    }

    /// The bytes.
    pub fn page(&self) -> &Bytes {
        &self.0
    }
}

/// Where an entry is: block number, and slot on that page (32 a posting block).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub block: u32,
    pub slot: u16,
}

impl Place {
    /// Posting block on the page, and slot in it.
    pub fn parts(self) -> (usize, usize) {
        (usize::from(self.slot) / BLOCK, usize::from(self.slot) % BLOCK)
    }
}

/// An entry of a list of rows.
pub type Located = (Tid, Place);

/// How an inner list names a list.
#[derive(Clone, Copy)]
pub struct Named {
    /// Index of that inner list in [`Structure::lists`].
    pub parent: u32,
    pub place: Place,
    pub child: Child,
}

/// A list of the tree.
pub struct List {
    pub id: u32,
    /// 0: a list of rows.
    pub level: u8,
    pub head: u32,
    /// None: the root.
    pub named: Option<Named>,
    /// Live entries.
    pub entries: u64,
    /// Places for entries, live ones included.
    pub slots: u64,
    /// Posting pages.
    pub pages: u32,
    /// It is about to be replaced, or was when the server crashed: the next who comes by decides.
    pub closed: bool,
}

/// What a page says of itself, and what was found to refer to it.
#[derive(Clone, Copy, Default)]
struct Page {
    /// 0: not looked at, or never written.
    kind: u8,
    level: u8,
    used: u16,
    refs: u16,
    list: u32,
    head: u32,
    next: u32,
    reached: bool,
    /// Code page: posting blocks that name it.
    named: u16,
}

/// Pages, by what they are for.
#[derive(serde::Serialize, Default, Clone, Copy)]
pub struct PageCounts {
    pub meta: u64,
    pub lists: u64,
    pub inner_lists: u64,
    pub sketches: u64,
    pub codes: u64,
    /// Empty.
    pub free: u64,
    /// Not empty, but nothing refers to them: what a crash amid a change may leave, or an insert is just about to link.
    pub leaked: u64,
}

/// The pages and lists of an index.
pub struct Structure {
    rel: pg_sys::Relation,
    pub info: Info,
    pub leaf: Layout,
    pub inner: Layout,
    /// All pages, by what they are for.
    pub counts: PageCounts,
    /// The pages that are kept account of: from this one on.
    first: u32,
    /// The last window: pages that are added meanwhile belong to it.
    open_ended: bool,
    pages: Vec<Page>,
    /// Cells that belong to a block: number of the page in the window × [`Structure::most_cells`] + cell.
    cells: BitVec,
    /// From the root down, level by level.
    pub lists: Vec<List>,
    by_id: HashMap<u32, u32>,
    /// Blocks that the index had when one beyond them was last met.
    blocks: u32,
}

/// Pages in a window, at least.
const SMALLEST_WINDOW: usize = 64;

impl Structure {
    /// Reads and verifies it all. `rows` is given the entries of each posting page of rows. What is kept of pages takes so
    /// many bytes.
    pub fn read(rel: pg_sys::Relation, bytes: usize, rows: &mut dyn FnMut(&[Located])) -> Result<Structure, Wrong> {
        let meta = {
            let buffer = Buffer::read(rel, META_BLOCK);
            Meta::read(buffer.page()).or_corrupted(rel, META_BLOCK)
        };
        let info = Info { meta };
        let (leaf, inner) = (info.leaf_layout(), info.inner_layout());
        let mut structure = Structure {
            rel,
            info,
            leaf,
            inner,
            counts: PageCounts::default(),
            first: META_BLOCK,
            open_ended: false,
            pages: Vec::new(),
            cells: BitVec::new(),
            lists: Vec::new(),
            by_id: HashMap::new(),
            blocks: storage::blocks(rel),
        };
        let window = (8 * bytes / (8 * size_of::<Page>() + structure.most_cells())).max(SMALLEST_WINDOW);
        loop {
            let left = storage::blocks(rel).saturating_sub(structure.first) as usize;
            structure.open_ended = left <= window;
            structure.read_window(left.min(window), rows)?;
            if structure.open_ended {
                break;
            }
            structure.first += window as u32;
        }
        (structure.pages, structure.cells) = (Vec::new(), BitVec::new());
        Ok(structure)
    }

    /// Verifies so many pages from `self.first` on.
    fn read_window(&mut self, pages: usize, rows: &mut dyn FnMut(&[Located])) -> Result<(), Wrong> {
        self.pages.clear();
        memory::resize(&mut self.pages, pages, Page::default());
        self.cells.fill(false);
        let cells = pages * self.most_cells();
        crate::pg::memory::resize_bits(&mut self.cells, cells);
        (self.first..self.first + pages as u32).try_for_each(|block| self.look_at(block))?;
        self.reach(META_BLOCK, "the index")?;
        self.walk_mean()?;
        self.walk_lists(rows)?;
        for (level, block) in (0..).zip(self.info.meta.open_code).filter(|(_, block)| *block != NO_BLOCK) {
            if let Some(page) = self.page(block, Kind::Code, "the meta page")? {
                ensure!(page.level == level, "The open code page {block} is of level {}, not {level}.", page.level);
                page.reached = true;
            }
        }
        self.check_references()?;
        self.count_pages();
        Ok(())
    }

    /// The list of an identity.
    pub fn list(&self, id: u32) -> Option<usize> {
        self.by_id.get(&id).map(|&at| at as usize)
    }

    /// Lists of rows.
    pub fn leaves(&self) -> impl Iterator<Item = &List> {
        self.lists.iter().filter(|l| l.level == 0)
    }

    /// Adds the pages of the window to the counts.
    fn count_pages(&mut self) {
        let n = &mut self.counts;
        for page in &self.pages {
            let is = |kind: Kind| page.kind == kind as u8;
            let count = match page {
                _ if page.kind == 0 || is(Kind::Free) => &mut n.free,
                p if !p.reached => &mut n.leaked,
                p if is(Kind::Posting) && p.level > 0 => &mut n.inner_lists,
                _ if is(Kind::Posting) => &mut n.lists,
                _ if is(Kind::Sketch) => &mut n.sketches,
                _ if is(Kind::Code) => &mut n.codes,
                _ => &mut n.meta,
            };
            *count += 1;
        }
    }

    /// Number of a page in the window, if it is one of it.
    fn in_window(&self, block: u32) -> Option<usize> {
        block.checked_sub(self.first).map(|at| at as usize).filter(|&at| at < self.pages.len())
    }

    /// Reads what a page of the window says of itself.
    fn look_at(&mut self, block: u32) -> Result<(), Wrong> {
        crate::pg::memory::check_for_interrupts();
        let opaque = {
            let buffer = Buffer::read(self.rel, block);
            match page::check_any(buffer.page()) {
                Ok(opaque) => opaque,
                // Left by a crash, or about to be written.
                Err(Damage::New) => return Ok(()),
                Err(damage) => return Err(Wrong::page(block, damage)),
            }
        };
        ensure!(
            (Kind::Meta as u8..=Kind::Free as u8).contains(&opaque.kind)
                && (block == META_BLOCK) == (opaque.kind == Kind::Meta as u8),
            "Block {block}: {}.",
            Damage::Kind(opaque.kind)
        );
        let page::Opaque { next, list, used, kind, level, refs, head, epoch, .. } = opaque;
        let now = self.info.meta.epoch;
        ensure!(epoch <= now, "Block {block} was changed at epoch {epoch}, the index is at {now}.");
        if let Some(at) = self.in_window(block) {
            let known = &mut self.pages[at];
            *known = Page { kind, level, used, refs, list, head, next, ..*known };
        }
        Ok(())
    }

    /// What is known of a page that `by` refers to as one of `kind`; None: it is not in the window.
    fn page(&mut self, block: u32, kind: Kind, by: &str) -> Result<Option<&mut Page>, Wrong> {
        if block >= self.blocks {
            self.blocks = storage::blocks(self.rel);
            ensure!(block < self.blocks, "Block {block}, to which {by} refers, is beyond the end of the index.");
        }
        if self.open_ended && block >= self.first && self.in_window(block).is_none() {
            let known = self.first + self.pages.len() as u32;
            memory::resize(&mut self.pages, (self.blocks - self.first) as usize, Page::default());
            (known..self.blocks).try_for_each(|b| self.look_at(b))?;
        }
        let Some(at) = self.in_window(block) else { return Ok(None) };
        if self.pages[at].kind != kind as u8 {
            self.look_at(block)?; // an insert may have taken it
        }
        let page = &mut self.pages[at];
        ensure!(page.kind == kind as u8, "Block {block}, to which {by} refers: {}.", Damage::Kind(page.kind));
        Ok(Some(page))
    }

    /// Marks a page as reached: for the first time.
    fn reach(&mut self, block: u32, by: &str) -> Result<(), Wrong> {
        let Some(at) = self.in_window(block) else { return Ok(()) };
        let page = &mut self.pages[at];
        ensure!(!page.reached, "Block {block} is reached twice, the second time by {by}.");
        page.reached = true;
        Ok(())
    }

    /// Cells on a code page, at most.
    fn most_cells(&self) -> usize {
        self.leaf.cells.max(self.inner.cells)
    }

    fn walk_mean(&mut self) -> Result<(), Wrong> {
        let dims = self.info.meta.dims as usize;
        let (mut block, mut floats) = (self.info.meta.mean, 0);
        while block != NO_BLOCK {
            self.page(block, Kind::Mean, "the mean")?;
            let page::Opaque { used, next, .. } = page::check(Buffer::read(self.rel, block).page(), Kind::Mean)
                .map_err(|damage| Wrong::page(block, damage))?;
            self.reach(block, "the mean")?;
            floats += usize::from(used);
            ensure!(used > 0 && floats <= dims, "The mean has more values than the {dims} dimensions (block {block}).");
            block = next;
        }
        ensure!(floats == 0 || floats == dims, "The mean has {floats} values for {dims} dimensions.");
        Ok(())
    }

    /// The second pass.
    fn walk_lists(&mut self, rows: &mut dyn FnMut(&[Located])) -> Result<(), Wrong> {
        let Meta { height, root, root_list, lists, .. } = self.info.meta;
        let anew = self.lists.is_empty();
        if anew {
            self.add_list(root_list, height as u8, root, None)?;
        }
        let mut at = 0;
        while at < self.lists.len() {
            self.walk_list(at, anew, rows)?;
            at += 1;
        }
        let found = self.leaves().count();
        ensure!(found == lists as usize, "The tree has {found} lists of rows, the meta page counts {lists}.");
        Ok(())
    }

    fn add_list(&mut self, id: u32, level: u8, head: u32, named: Option<Named>) -> Result<(), Wrong> {
        let last = self.info.meta.last_list;
        ensure!(
            id != 0 && id <= last,
            "List {id} at block {head} has an identity that was never given (last: {last})."
        );
        memory::room(&mut self.by_id, 1);
        memory::room(&mut self.lists, 1);
        let before = self.by_id.insert(id, self.lists.len() as u32);
        ensure!(before.is_none(), "List {id} is named by two entries.");
        self.lists.push(List { id, level, head, named, entries: 0, slots: 0, pages: 0, closed: false });
        Ok(())
    }

    /// Goes along a list's chain. `anew`: for the first time, so that what is on it is told and counted.
    fn walk_list(&mut self, at: usize, anew: bool, rows: &mut dyn FnMut(&[Located])) -> Result<(), Wrong> {
        let List { id, level, head, .. } = self.lists[at];
        let layout = if level > 0 { self.inner } else { self.leaf };
        let by = format!("list {id}");
        let mut entries: Vec<Located> = Vec::new();
        let mut insert_at = None;
        let mut number = head;
        let mut pages: u32 = 0;
        while number != NO_BLOCK {
            self.page(number, Kind::Posting, &by)?;
            self.reach(number, &by)?;
            ensure!(pages <= self.blocks, "Block {number} is reached twice, the second time by {by}.");
            pages += 1;
            crate::pg::memory::check_for_interrupts();
            let copied = Copied::of(self.rel, number);
            let posting = Posting::open(copied.page(), &layout, id).map_err(|damage| Wrong::page(number, damage))?;
            let opaque = posting.opaque;
            ensure!(opaque.level == level, "Block {number} of list {id} has level {}, not {level}.", opaque.level);
            ensure!(opaque.head == head, "Block {number} of list {id} names head {}, not {head}.", opaque.head);
            if number == head && level == 0 {
                insert_at = Some(opaque.insert_at);
            }
            if insert_at == Some(number) {
                insert_at = None;
            }
            entries.clear();
            for b in 0..posting.blocks() {
                let block = posting.block(b);
                block.check().map_err(|damage| Wrong::page(number, damage))?;
                self.walk_sketch_pages(&layout, &block, number, id, head)?;
                self.walk_cells(&layout, &block, number)?;
                if !anew {
                    continue;
                }
                self.lists[at].entries += u64::from(block.live().count_ones());
                self.lists[at].slots += block.slots() as u64;
                for slot in (0..BLOCK).filter(|slot| block.live() >> slot & 1 == 1) {
                    let place = Place { block: number, slot: (b * BLOCK + slot) as u16 };
                    if level == 0 {
                        memory::push(&mut entries, (block.tid(slot), place));
                        continue;
                    }
                    let child = block.child(slot);
                    ensure!(
                        child.radius >= 0.0 && child.norm2 >= 0.0,
                        "List {} (entry in block {number}) has radius {} and squared norm {}.",
                        child.list,
                        child.radius,
                        child.norm2
                    );
                    self.add_list(child.list, level - 1, child.head, Some(Named { parent: at as u32, place, child }))?;
                }
            }
            if level == 0 && anew {
                rows(&entries);
            }
            self.lists[at].pages = pages;
            self.lists[at].closed |= opaque.closed();
            number = opaque.next;
        }
        if let Some(outside) = insert_at {
            return Err(Wrong(format!("Inserts into list {id} begin at block {outside}, which is not in its chain.")));
        }
        Ok(())
    }

    /// The sketch pages of a block: there if it has a live entry, and its list's own.
    fn walk_sketch_pages(
        &mut self,
        layout: &Layout,
        block: &Block<'_>,
        at: u32,
        id: u32,
        head: u32,
    ) -> Result<(), Wrong> {
        for i in 0..layout.sketch_pages {
            let number = block.sketch_page(i);
            let by = format!("block {at}");
            let Some(page) = self.page(number, Kind::Sketch, &by)? else { continue };
            ensure!(
                page.list == id && page.head == head,
                "Sketches of list {id} (block {at}) are on block {number}, which belongs to list {} of head {}.",
                page.list,
                page.head
            );
            self.reach(number, &by)?;
        }
        Ok(())
    }

    /// The code cells of a block's slots: each on a code page or on a page of its own list, of one slot only, and written if
    /// the slot is live.
    fn walk_cells(&mut self, layout: &Layout, block: &Block<'_>, at: u32) -> Result<(), Wrong> {
        let by = format!("block {at}");
        for number in block.all_code_pages() {
            let Some(page) = self.page(number, Kind::Code, &by)? else { continue };
            page.reached = true;
            page.named = page.named.saturating_add(1);
            let level = page.level;
            ensure!(
                (level > 0) == layout.inner,
                "Block {number}, to which block {at} refers, is for codes of level {level}."
            );
        }
        for slot in 0..block.slots() {
            let live = block.live() >> slot & 1 == 1;
            for part in 0..layout.cell_pages {
                let run = |part| block.run(slot * layout.cell_pages + part).page;
                let place = if layout.cell_pages == 1 { block.cell(slot) } else { Some((run(part), 0)) };
                let Some((number, cell)) = place.filter(|place| place.0 != NO_BLOCK) else {
                    ensure!(!live, "An entry of block {at} (slot {slot}) has no code.");
                    continue;
                };
                self.walk_cell(block, at, (number, cell))?;
                let next = if part + 1 < layout.cell_pages { run(part + 1) } else { NO_BLOCK };
                let found = self.in_window(number).map_or(next, |page| self.pages[page].next);
                ensure!(
                    !live || layout.cell_pages == 1 || found == next,
                    "A code's part on block {number} is followed by block {found}, but block {at} names {next}."
                );
            }
        }
        Ok(())
    }

    /// One cell of a slot.
    fn walk_cell(&mut self, block: &Block<'_>, at: u32, (number, cell): (u32, u16)) -> Result<(), Wrong> {
        let (position, with_list) = page::cell_position(cell);
        ensure!(
            !with_list || number == at || block.all_sketch_pages().any(|page| page == number),
            "A code of block {at} is at the end of block {number}, which is not of its list."
        );
        ensure!(position < self.most_cells(), "Block {at} names cell {position} of block {number}.");
        let Some(in_window) = self.in_window(number) else { return Ok(()) };
        let bit = in_window * self.most_cells() + position;
        if bit >= self.cells.len() {
            crate::pg::memory::resize_bits(&mut self.cells, bit + 1);
        }
        ensure!(
            !self.cells.replace(bit, true),
            "Cell {position} of block {number} belongs to two entries, one in block {at}."
        );
        // Also of free slots: what has not been claimed would be given to somebody else.
        let written = |page: Page| usize::from(if with_list { page.refs } else { page.used });
        if written(self.pages[in_window]) <= position {
            self.look_at(number)?; // written since
        }
        ensure!(
            position < written(self.pages[in_window]),
            "Cell {position} of block {number}, to which a slot of block {at} refers, has not been written."
        );
        Ok(())
    }

    /// Whether the chain of a list reaches a page by now: an insert may have appended it after the list was walked.
    fn leads_to(&self, at: usize, number: u32) -> Result<bool, Wrong> {
        let mut next = self.lists[at].head;
        let mut steps = storage::Steps::new();
        while next != NO_BLOCK && next != number {
            crate::pg::memory::check_for_interrupts();
            steps.step(self.rel, next);
            let buffer = Buffer::read(self.rel, next);
            next = page::check(buffer.page(), Kind::Posting).map_err(|damage| Wrong::page(next, damage))?.next;
        }
        Ok(next == number)
    }

    /// What can only be said at the end: of pages that nothing refers to, and of how many blocks refer to a code page.
    fn check_references(&mut self) -> Result<(), Wrong> {
        for at in 0..self.pages.len() {
            crate::pg::memory::check_for_interrupts();
            let (number, page) = (self.first + at as u32, self.pages[at]);
            let list = self.by_id.get(&page.list).filter(|_| page.kind == Kind::Posting as u8 && !page.reached);
            if let Some(&list) = list
                && !self.leads_to(list as usize, number)?
            {
                return Err(Wrong(format!(
                    "Block {number} belongs to list {}, whose chain does not reach it.",
                    page.list
                )));
            }
            if page.named > page.refs {
                self.look_at(number)?;
                let refs = self.pages[at].refs;
                ensure!(page.named <= refs, "{} blocks refer to block {number}, which counts {refs}.", page.named);
            }
        }
        Ok(())
    }
}
