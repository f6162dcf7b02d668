//! Crashes: after every record of a random workload the state that recovery would leave is opened, checked, searched
//! and worked on.

use super::check::check;
use super::postgres::world;
use super::session::*;
use super::world::*;
use crate::index::page::{Bytes, PAGE};
use std::sync::Arc;

/// A statement of a random workload: what, and its dice.
#[derive(Clone, Copy, Debug)]
pub struct Statement(pub u64);

/// So many statements.
pub fn plan(seed: u64, steps: usize) -> Vec<Statement> {
    let mut dice = Dice::new(seed);
    (0..steps).map(|_| Statement(dice.next())).collect()
}

/// A vector around one of a few places; some rows are alike.
pub fn vector(dice: &mut Dice) -> Vec<f32> {
    let mut of_place = Dice::new(dice.below(12) as u64);
    let spread = [0.0, 0.02, 0.2, 0.5][dice.below(4)];
    (0..world().dims).map(|_| of_place.normal() * 3.0 + dice.normal() * spread).collect()
}

/// A row that there is now.
fn living(dice: &mut Dice) -> Option<usize> {
    let now = world().clock;
    let living: Vec<usize> = (0..world().rows.len()).filter(|&row| world().rows[row].is_seen_at(now)).collect();
    (!living.is_empty()).then(|| living[dice.below(living.len())])
}

impl Statement {
    /// Runs it on an index that should have about so many rows.
    pub fn run(self, kinds: Kinds, rows: usize) -> Said {
        let dice = &mut Dice::new(self.0);
        let many = world().rows.iter().filter(|row| !row.removed).count();
        match dice.below(100) {
            0 => vacuum(),
            1..14 if many > rows / 2 => {
                if let Some(row) = living(dice) {
                    delete(row);
                }
                Ok(())
            }
            // A cluster goes.
            14 if many > rows => {
                for _ in 0..many / 3 {
                    if let Some(row) = living(dice) {
                        delete(row);
                    }
                }
                vacuum()
            }
            15..17 => search(&vector(dice), kinds.operator()),
            _ => insert(vector(dice)).map(|_| ()),
        }
    }
}

/// What a server may find on disk after a crash at that point of the log: pages that are longer than the log knows,
/// and hints.
fn recovered(disk: &Disk, hints: &[(u32, Arc<Bytes>)], longest: u32, dice: &mut Dice) -> Disk {
    let mut disk = disk.clone();
    let extra = (longest as usize).saturating_sub(disk.pages.len());
    for _ in 0..dice.below(extra + 1) {
        disk.pages.push(Arc::new([0; PAGE]));
    }
    // A page is written as it is, hints and all, and recovery finds nothing to do for it.
    for (block, page) in hints {
        let block = *block as usize;
        if dice.one_in(2) && disk.pages.get(block).is_some_and(|known| lsn_of(known) == lsn_of(page)) {
            disk.pages[block] = page.clone();
        }
    }
    disk
}

/// What to do at each point.
fn at_point(session: &mut Session, kinds: Kinds, rows: usize, dice: &mut Dice) -> Said {
    session.forget_cache();
    let before = check()?;
    let query = vector(dice);
    search(&query, kinds.operator())?;
    if dice.one_in(128) {
        // A change of the structure was broken off: an insert leaves none of these in one record.
        let broken_off = session.is_unfinished() || before.leaked > 0;
        for _ in 0..3 {
            Statement(dice.next()).run(kinds, rows)?;
        }
        vacuum()?;
        let counts = check()?;
        if broken_off && counts.leaked > 0 {
            return Err(format!("VACUUM has left {} pages that nothing refers to", counts.leaked));
        }
        search(&query, kinds.operator())?;
    }
    Ok(())
}

/// Runs statements, and crashes after each record; returns how many points there were.
pub fn run(seed: u64, statements: &[Statement]) -> Result<u64, String> {
    let mut dice = Dice::new(seed ^ 0x5A5A);
    let kinds = Kinds::by(&mut dice);
    let mut session = Session::begin(seed, kinds);
    let rows = 60 + dice.below(160);
    let mut disk = Disk { clock: 1, ..Disk::default() };
    let mut points = 0;
    for (step, statement) in statements.iter().enumerate() {
        let told = |said: String, record: usize| format!("{kinds:?}, statement {step}, record {record}: {said}");
        statement.run(kinds, rows).map_err(|said| told(said, usize::MAX))?;
        let world = session.world();
        let (log, hints) = (std::mem::take(&mut world.log), std::mem::take(&mut world.hints));
        let (longest, lsn, clock, free) = (world.blocks, world.lsn, world.clock, world.free.clone());
        let (after, warnings) = (world.rows.clone(), world.warnings);
        let live: Vec<_> = hints.iter().map(|(block, _)| (*block, *world.page(*block))).collect();
        for (i, record) in log.iter().enumerate() {
            disk.replay(record);
            if !matches!(record, Record::Pages(..)) {
                continue;
            }
            points += 1;
            session.world().load(&recovered(&disk, &hints, longest, &mut dice));
            let mut aside = Dice::new(dice.next());
            at_point(&mut session, kinds, rows, &mut aside).map_err(|said| told(said, i))?;
        }
        // The server goes on, as if nothing had been.
        session.world().load(&disk);
        session.forget_cache();
        let world = session.world();
        (world.lsn, world.rows, world.clock, world.free, world.warnings) = (lsn, after, clock, free, warnings);
        for block in world.blocks..longest {
            *world.page_mut(block) = [0; PAGE];
        }
        world.blocks = longest;
        for (block, page) in live {
            *world.page_mut(block) = page;
        }
    }
    Ok(points)
}

/// Fewer statements that fail in some way as well.
pub fn shrink(
    mut statements: Vec<Statement>,
    fails: impl Fn(&[Statement]) -> Option<String>,
) -> (Vec<Statement>, String) {
    let mut said = fails(&statements).unwrap_or_else(|| "it does not fail again".to_string());
    let mut part = statements.len() / 2;
    let begun = std::time::Instant::now();
    while part > 0 && begun.elapsed().as_secs() < 20 {
        let mut at = 0;
        while at < statements.len() && begun.elapsed().as_secs() < 20 {
            let fewer: Vec<_> = [&statements[..at], &statements[(at + part).min(statements.len())..]].concat();
            match fails(&fewer) {
                Some(why) => (statements, said) = (fewer, why),
                None => at += part,
            }
        }
        part /= 2;
    }
    (statements, said)
}

/// Seeds to go through, and how long at most: `SIM_SEED` (the first) and `SIM_SECONDS`.
pub fn seeds(seconds: u64) -> impl Iterator<Item = u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let first = number("SIM_SEED").unwrap_or(1);
    let (begun, seconds) = (std::time::Instant::now(), number("SIM_SECONDS").unwrap_or(seconds));
    (first..).take_while(move |_| begun.elapsed().as_secs() < seconds)
}

#[test]
fn every_record_is_a_point_to_recover_to() {
    const STEPS: usize = 400;
    let (mut points, mut runs) = (0, 0);
    for seed in seeds(25) {
        runs += 1;
        match run(seed, &plan(seed, STEPS)) {
            Ok(n) => points += n,
            Err(said) => {
                let (fewer, then) = shrink(plan(seed, STEPS), |statements| run(seed, statements).err());
                panic!("SIM_SEED={seed}: {said}\nshrunk to {} statements: {then}\n{fewer:?}", fewer.len());
            }
        }
    }
    println!("{points} points to recover to, {runs} workloads");
    assert!(runs > 0);
}
