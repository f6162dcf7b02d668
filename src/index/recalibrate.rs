//! The stopping rule, measured again as the index grows: rows of the table search the index itself.
//!
//! Each query searches far more lists than the rule would. What it finds is taken for the true neighbours, and the search
//! is then simulated on the distances that it saw, under a range of limits, as at build (`calibrate.rs`).

use super::calibrate::{self, Needed, RESULTS, Simulated};
use super::compat;
use super::metric::Frame;
use super::outliers;
use super::page::{self, Kind, Layout, Meta, Owner, Posting, StoppingRule, Tid};
use super::rows::{Row, Rows};
use super::sample::Random;
use super::search::FIRST_GOAL;
use super::storage::{Buffer, Stale, blocks};
use super::tree::{self, CodeReader, Cursor, List, Query, Scores};
use ann::memory;
use ann::quantize::{self, BLOCK, ListTerm, Space};
use pgrx::prelude::*;
use std::ops::Range;

/// Lists read for each that the rule reads on average at the highest recall, and besides. Few would find less than the true
/// neighbours; a rule measured by these would read fewer lists, and be measured by fewer the next time.
const DEEPER: f32 = 4.0;
const DEEPER_BY: usize = 64;
/// Distances that are kept exact in a search: more than the goal, because the simulation leaves lists out.
const KEPT: usize = 3 * FIRST_GOAL;
/// Share of the allowed misses that is left to what is not simulated. Searches of the whole index, without a sample's chance,
/// hit more nearly what is simulated: a little less than a build leaves is enough.
const OTHER_LOSS: f32 = calibrate::OTHER_LOSS * 0.75;
/// Steps that the largest coordinate of a residual is long.
const LEVELS: f32 = 127.0;
/// Places tried for each query.
const TRIES: usize = 64;

/// A query and what it saw.
#[derive(Default)]
struct Seen {
    /// Lists, nearest first, with the range of their rows' distances.
    lists: Vec<(ListTerm, f32, Range<usize>)>,
    distances: Vec<f32>,
    /// Numbers, in that order, of the lists of the true neighbours.
    neighbours: Vec<u32>,
    needed: Vec<Needed>,
}

/// Lists that each query reads.
pub fn depth(meta: &Meta) -> usize {
    (meta.rule.probes.iter().copied().fold(0.0, f32::max) * DEEPER) as usize + DEEPER_BY
}

/// Measures the rule with up to `queries` rows, and the mean of the squared residuals. None when there are too few rows, or when the structure changes meanwhile.
pub fn measure(
    index: pg_sys::Relation,
    meta: &Meta,
    frame: &Frame,
    rows: &mut Rows,
    queries: usize,
) -> Option<(StoppingRule, f32)> {
    if meta.height == 0 || meta.lists < 2 {
        return None;
    }
    let space = frame.operator.space();
    let (leaf, inner) = (Layout::new(meta.shape(), false), Layout::new(meta.shape(), true));
    let deep = depth(meta);
    let mut seen = Vec::with_capacity(queries);
    let (mut spreads, mut norms) = (Vec::new(), Vec::new());
    let mut random = Random::new(u64::from(meta.epoch) << 32 | u64::from(meta.last_list));
    let mut query = Query::new(frame.operator);
    let (mut value, mut place, mut unreadable) = (Vec::new(), Vec::new(), 0);
    if leaf.bits.is_none() && !rows.can_read() {
        return None;
    }
    // Rows cost much more to look at than codes.
    let queries = if leaf.bits.is_some() { queries } else { queries.div_ceil(4) };
    for _ in 0..queries * TRIES {
        compat::vacuum_delay();
        if seen.len() == queries {
            break;
        }
        let row = if rows.can_read() { random_row(index, &leaf, &mut random) } else { None };
        let tid = match row.map(|tid| (tid, rows.read(tid, &mut value))) {
            Some((tid, Row::Read)) if value.len() == frame.dims => {
                query.vector.clone_from(&value);
                query.place(frame);
                tid
            }
            // What its code stands for will do.
            Some((_, Row::Hidden)) | None if leaf.bits.is_some() && (row.is_some() || !rows.can_read()) => {
                let Some(tid) = random_code(index, meta, (&leaf, &inner), &mut random, &mut place).ok()? else {
                    continue;
                };
                query.place_at(frame, &place);
                tid
            }
            Some((_, Row::Hidden)) => {
                unreadable += 1;
                if unreadable > 4 * queries {
                    return None;
                }
                continue;
            }
            _ => continue,
        };
        // Outliers are no examples: what a search for one meets says nothing about others.
        norms.push(query.norm * query.norm);
        if *norms.last().unwrap() > outliers::limit(&mut norms.clone(), outliers::APART) {
            continue;
        }
        let lists = tree::nearest_lists(index, meta, &inner, &query, deep, None).ok()?;
        // Most likely its own list.
        let before = seen.len();
        seen.extend(Seen::of(index, &leaf, (&value, &query), rows, tid, (&lists, meta.spread)).ok()?);
        if seen.len() > before {
            spreads.push(lists[0].radius * lists[0].radius);
        }
    }
    let needed: Vec<Needed> = memory::collected(seen.iter().flat_map(|s| s.needed.iter().copied()));
    if seen.len() * 2 < queries {
        return None;
    }
    let limits = calibrate::limits(&needed);
    let sums: Vec<(usize, usize)> = limits
        .iter()
        .map(|&limit| {
            seen.iter().fold((0, 0), |sum, s| {
                let lists = s.lists.iter().zip(0..).map(|((term, radius, rows), list)| {
                    let distances = &s.distances[rows.clone()];
                    let nearest = calibrate::nearest(distances);
                    Simulated { list, term: *term, radius: *radius, distances, nearest }
                });
                let (found, scanned) = calibrate::simulate(space, lists, &s.neighbours, FIRST_GOAL, limit);
                (sum.0 + found, sum.1 + scanned)
            })
        })
        .collect();
    let rule = calibrate::rule(&limits, &sums, seen.len(), OTHER_LOSS);
    Some((rule, outliers::mean_square(&spreads, 0.0)))
}

/// The row at a place of the index taken at random, if there is one: all rows are equally likely.
fn random_row(index: pg_sys::Relation, leaf: &Layout, random: &mut Random) -> Option<Tid> {
    let buffer = Buffer::read(index, random.below(blocks(index) as usize) as u32);
    let opaque = page::check(buffer.page(), Kind::Posting).ok().filter(|o| o.level == 0)?;
    let posting = Posting::open(buffer.page(), leaf, opaque.list).ok()?;
    let at = random.below(leaf.entries_per_page());
    let (b, slot) = (at / BLOCK, at % BLOCK);
    (b < posting.blocks() && posting.block(b).live() >> slot & 1 == 1).then(|| posting.block(b).tid(slot))
}

/// An entry taken at random from a list taken at random: its row, and in `place` what its code stands for. None where there
/// is none.
fn random_code(
    index: pg_sys::Relation,
    meta: &Meta,
    (leaf, inner): (&Layout, &Layout),
    random: &mut Random,
    place: &mut Vec<f32>,
) -> Result<Option<Tid>, Stale> {
    let (mut head, mut list) = (meta.root, meta.root_list);
    let mut centroid = (page::NO_BLOCK, 0);
    for level in (0..=meta.height).rev() {
        let layout = if level > 0 { inner } else { leaf };
        let (mut found, mut seen) = (None, 0);
        let mut cursor = Cursor::of(index, layout, head, list);
        while let Some(buffer) = cursor.next_page()? {
            let posting = cursor.posting(&buffer);
            for block in (0..posting.blocks()).map(|b| posting.block(b)) {
                for slot in (0..BLOCK).filter(|slot| block.live() >> slot & 1 == 1) {
                    seen += 1;
                    if random.below(seen) == 0 {
                        let child = (level > 0).then(|| block.child(slot));
                        found = block.cell(slot).map(|cell| (cell, block.tid(slot), child));
                    }
                }
            }
        }
        let Some((cell, tid, child)) = found else { return Ok(None) };
        if let Some(child) = child {
            (head, list, centroid) = (child.head, child.list, cell);
            continue;
        }
        place.clear();
        place.resize(leaf.padded, 0.0);
        if meta.height > 0 {
            CodeReader::new(index, inner).decode(centroid, Owner::child(list), place)?;
        }
        let around = place.clone();
        let read = CodeReader::new(index, leaf).of_row(cell, (head, list), tid, |codes, owner| {
            place.copy_from_slice(&around);
            codes.decode(cell, owner, place)
        })?;
        return Ok(read.filter(|code| code.error.is_finite()).map(|_| tid));
    }
    Ok(None)
}

impl Seen {
    /// Scans `lists`, of rows whose squared residuals are `spread` in the mean. None if there are fewer rows than the goal.
    fn of(
        index: pg_sys::Relation,
        leaf: &Layout,
        (value, query): (&[f32], &Query),
        rows: &mut Rows,
        itself: Tid,
        (lists, spread): (&[List], f32),
    ) -> Result<Option<Seen>, Stale> {
        let mut seen = Seen::default();
        // The nearest rows, nearest first: distance and number of the list.
        let mut best: Vec<(f32, u32)> = Vec::with_capacity(KEPT + 1);
        let mut scores = Scores::new();
        let mut codes = CodeReader::new(index, leaf);
        let mut candidates: Vec<(f32, (u32, u16), Tid)> = Vec::new();
        let mut row = Vec::new();
        // By the inner product a row far longer than all others is the nearest to half of all queries, wherever it is.
        let most = if query.space == Space::InnerProduct && spread > 0.0 {
            (outliers::FAR * spread).sqrt()
        } else {
            f32::INFINITY
        };
        for (list, number) in lists.iter().zip(0..) {
            let from = seen.distances.len();
            let mut cursor = Cursor::new(index, leaf, list);
            while let Some(buffer) = cursor.next_page()? {
                let posting = cursor.posting(&buffer);
                let limit = best.get(KEPT - 1).map_or(f32::INFINITY, |b| b.0);
                for block in (0..posting.blocks()).map(|b| posting.block(b)) {
                    let table = &query.table;
                    let mut near = tree::scan_block(
                        index,
                        leaf,
                        list.id,
                        list.term,
                        &block,
                        block.live(),
                        table,
                        limit,
                        &mut scores,
                    )?;
                    while near != 0 {
                        let slot = near.trailing_zeros() as usize;
                        near &= near - 1;
                        if block.tid(slot) != itself
                            && let Some(cell) = block.cell(slot)
                        {
                            memory::push(&mut candidates, (scores.lower[slot], cell, block.tid(slot)));
                        }
                    }
                }
                drop(buffer);
                for (lower, cell, tid) in candidates.drain(..) {
                    if best.get(KEPT - 1).is_some_and(|b| lower >= b.0) {
                        continue;
                    }
                    let distance = if leaf.bits.is_some() {
                        let read = codes.of_row(cell, (list.head, list.id), tid, |codes, owner| {
                            codes.dot(cell, owner, &query.vector)
                        })?;
                        let Some(code) = read else { continue };
                        // Where little is known, or rows of other lists are nearer than any of a list could be, nothing is to be
                        // learnt about lists.
                        if !code.factors.error.is_finite() || code.factors.scale * LEVELS > most {
                            continue;
                        }
                        quantize::code_distance(query.space, list.term, &code.factors, code.dot)
                    } else if rows.read(tid, &mut row) == Row::Read && row.len() == value.len() {
                        query.operator.index_distance(&row, value)
                    } else {
                        f32::NAN
                    };
                    if !distance.is_finite() {
                        continue;
                    }
                    memory::push(&mut seen.distances, distance);
                    let at = best.partition_point(|b| b.0 < distance);
                    best.insert(at, (distance, number));
                    best.truncate(KEPT);
                }
                codes.close();
            }
            seen.lists.push((list.term, list.radius, from..seen.distances.len()));
        }
        let Some(&(within, _)) = best.get(FIRST_GOAL - 1) else { return Ok(None) };
        seen.neighbours = best[..RESULTS].iter().map(|b| b.1).collect();
        seen.needed = seen
            .neighbours
            .iter()
            .map(|&n| {
                let list = &lists[n as usize];
                Needed::of(query.space, list.term, list.radius, within, n as usize)
            })
            .collect();
        Ok(Some(seen))
    }
}
