//! Whether an index that is at rest is whole, and holds what its table has.

use super::postgres::world;
use super::session::{Said, index, statement};
use super::world::{NEVER, row_of};
use crate::index::page::{self, Kind, Layout, META_BLOCK, NO_BLOCK, Owner, PENDING, Posting};
use crate::index::read::info::Info;
use crate::index::storage::pages;
use ivflsh::read::tree::CodeReader;
use ivflsh::vacuum::tidy::entries;
use std::collections::{HashMap, HashSet};

/// What a check has counted.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    pub lists: usize,
    pub entries: usize,
    /// Pages that nothing refers to and that are not free.
    pub leaked: usize,
}

/// Checks the index; an error says what is wrong.
pub fn check() -> Result<Counts, String> {
    let mut counts = Ok(Counts::default());
    let said: Said = statement(|| counts = run());
    said.and(counts)
}

fn run() -> Result<Counts, String> {
    let (info, world) = (Info::of(pages(index())), world());
    let meta = &info.meta;
    let (leaf, inner) = (info.leaf_layout(), info.inner_layout());
    let mut used: HashSet<u32> = HashSet::from([META_BLOCK]);
    let mut cells: HashSet<(u32, u16)> = HashSet::new();
    let mut code_refs: HashMap<u32, u16> = HashMap::new();
    let mut rows: HashMap<usize, Vec<u32>> = HashMap::new();
    let mut counts = Counts::default();
    let mut mean = meta.mean;
    while mean != NO_BLOCK {
        used.insert(mean);
        page::read_mean(world.page(mean)).map_err(|damage| format!("mean: {damage}"))?;
        mean = page::opaque(world.page(mean)).next;
    }
    let mut identities = HashSet::new();
    let mut level = vec![(meta.root, meta.root_list)];
    for height in (0..=meta.height).rev() {
        let layout: &Layout = if height == 0 { &leaf } else { &inner };
        let mut next_level = Vec::new();
        for &(head, list) in &level {
            if list > meta.last_list || !identities.insert(list) {
                return Err(format!("list {list} is in the tree twice, or is to come"));
            }
            counts.lists += usize::from(height == 0);
            let (mut block, mut insert_found, mut insert_at) = (head, false, NO_BLOCK);
            while block != NO_BLOCK {
                if block >= world.blocks || !used.insert(block) {
                    return Err(format!("page {block} of list {list} is reached twice, or does not exist"));
                }
                let page = world.page(block);
                let posting =
                    Posting::open(page, layout, list).map_err(|d| format!("page {block} of list {list}: {d}"))?;
                let opaque = posting.opaque;
                if opaque.head != head || u32::from(opaque.level) != height || opaque.epoch > meta.epoch {
                    return Err(format!("page {block} of list {list} says {opaque:?}"));
                }
                if block == head {
                    insert_at = opaque.insert_at;
                }
                insert_found |= block == insert_at;
                for b in 0..posting.blocks() {
                    let part = posting.block(b);
                    part.check().map_err(|d| format!("block {b} of page {block}: {d}"))?;
                    used.extend(part.all_sketch_pages());
                    for code in part.all_code_pages() {
                        used.insert(code);
                        *code_refs.entry(code).or_default() += 1;
                    }
                    for slot in 0..part.slots() {
                        let Some(cell) = part.cell(slot).filter(|cell| cell.0 != NO_BLOCK) else { continue };
                        if layout.cell_pages == 1 && !cells.insert(cell) {
                            return Err(format!("cell {cell:?} is of two slots, one in page {block}"));
                        }
                    }
                }
                for (b, slot, tid) in entries(&posting) {
                    let part = posting.block(b);
                    let cell = part.cell(slot).ok_or("a cell")?;
                    let owner = if height == 0 { Owner::row(list, tid) } else { Owner::child(part.child(slot).list) };
                    if layout.bits.is_some() {
                        let mut out = vec![0.0; layout.padded];
                        CodeReader::new(pages(index()), layout).decode(cell, owner, &mut out).map_err(|stale| {
                            format!("entry {b}/{slot} of page {block}, list {list}: {}", stale.damage)
                        })?;
                    }
                    if height == 0 {
                        let number = row_of(tid.block(), tid.offset());
                        let lives = world.rows.get(number).is_some_and(|row| row.is_seen_at(world.clock));
                        if part.dead() >> slot & 1 == 1 && lives {
                            return Err(format!(
                                "the entry of row {number}, page {block}, is marked as dead, but it lives"
                            ));
                        }
                        counts.entries += 1;
                        rows.entry(row_of(tid.block(), tid.offset())).or_default().push(list);
                    } else {
                        let child = part.child(slot);
                        next_level.push((child.head, child.list));
                    }
                }
                block = opaque.next;
            }
            if height == 0 && insert_at != NO_BLOCK && !insert_found {
                return Err(format!("list {list} has room on page {insert_at}, which is none of its own"));
            }
        }
        level = next_level;
    }
    if counts.lists != meta.lists as usize {
        return Err(format!("{} lists, the meta page says {}", counts.lists, meta.lists));
    }
    for (block, refs) in &code_refs {
        let o = page::check_any(world.page(*block)).map_err(|d| format!("code page {block}: {d}"))?;
        if o.kind != Kind::Code as u8 || o.refs < *refs {
            return Err(format!("code page {block} counts {} blocks, {refs} refer to it: {o:?}", o.refs));
        }
    }
    for (row, lists) in &rows {
        let Some(known) = world.rows.get(*row).filter(|row| !row.removed) else {
            return Err(format!("list {} has an entry of row {row}, which is not in the table", lists[0]));
        };
        let settled = lists.iter().filter(|list| !meta.pending.contains(list)).count();
        if settled > 1 || lists.len() > 1 && meta.pending == [0; PENDING] {
            return Err(format!("row {row} ({known:?}) is in lists {lists:?}", known = known.born));
        }
    }
    for (number, row) in world.rows.iter().enumerate() {
        if !row.removed && !row.is_dead_at(world.horizon()) && row.born != NEVER && !rows.contains_key(&number) {
            return Err(format!("row {number} of {} is in no list (died {})", world.rows.len(), row.died));
        }
    }
    for block in 0..world.blocks {
        if !used.contains(&block) && world.page(block).iter().any(|&byte| byte != 0) {
            let o = page::check_any(world.page(block)).map_err(|d| format!("page {block}: {d}"))?;
            counts.leaked += usize::from(o.kind != Kind::Free as u8 && o.kind != Kind::Sketch as u8);
        }
    }
    Ok(counts)
}
