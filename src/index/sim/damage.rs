//! Damaged pages: whatever bytes an index has, a statement ends, with an answer or with an ERROR that is not one of
//! the library's own faults, and holds nothing any more. (PostgreSQL's side of it, and what users are told, is in
//! tests/test_index_damage.py.)

use super::crash::{plan, vector};
use super::interleave::{State, try_all};
use super::postgres::world;
use super::session::*;
use super::world::*;
use crate::index::page::{CAPACITY, Opaque, PAGE};

/// Changes bytes of a page: single ones, words that are numbers of pages or counts, stretches of another page.
fn damage(dice: &mut Dice) {
    let blocks = world().blocks as usize;
    let special = PAGE - size_of::<Opaque>();
    let contents = special - CAPACITY;
    for _ in 0..1 + dice.below(3) {
        let (block, other) = (dice.below(blocks) as u32, dice.below(blocks) as u32);
        // The beginning of the contents and the special area hold what the rest follows from.
        let at = match dice.below(4) {
            0 => special + dice.below(size_of::<Opaque>()),
            1 => contents + dice.below(600),
            2 => dice.below(contents),
            _ => dice.below(PAGE),
        };
        let other = *world().page(other);
        let (kind, value, word) = (dice.below(5), dice.next(), dice.below(blocks + 2) as u32);
        let page = world().page_mut(block);
        match kind {
            0 => page[at] ^= 1 << (value % 8),
            1 => page[at] = value as u8,
            2 => page[at / 4 * 4..][..4].copy_from_slice(&word.to_le_bytes()),
            3 => page[at / 2 * 2..][..2].copy_from_slice(&(value as u16 % 300).to_le_bytes()),
            _ => {
                let to = (at + 64).min(PAGE);
                page[at..to].copy_from_slice(&other[at..to]);
            }
        }
    }
}

/// What a statement may not say.
fn is_fault(said: &str) -> bool {
    said.starts_with("PANIC") || said.contains("simulation:") || said.contains("without end")
}

fn run(session: &mut Session, seed: u64, (kinds, rows, disk): &State) -> Said {
    let dice = &mut Dice::new(seed);
    session.restart(*kinds, disk, seed);
    damage(dice);
    let fault = |outcome: Said| outcome.or_else(|said| if is_fault(&said) { Err(said) } else { Ok(()) });
    fault(search(&vector(dice), kinds.operator()))?;
    for statement in plan(seed, 4) {
        fault(statement.run(*kinds, *rows))?;
    }
    fault(vacuum())
}

#[test]
fn damaged_pages_are_no_panic() {
    let (runs, _) = try_all(4, |session, seed, state| run(session, seed, state).map(|()| 0));
    println!("{runs} damages");
}
