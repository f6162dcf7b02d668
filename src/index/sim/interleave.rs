//! Clients at the same time: a scheduler with a seed switches them at every call into the server. It finds who waits
//! for each other, and every answer is compared with what its snapshot sees. Likewise a standby, which replays while
//! it is asked.

use super::check::check;
use super::crash::{Statement, plan, seeds, vector};
use super::postgres::{self, world};
use super::session::*;
use super::world::*;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use std::cell::RefCell;
use std::rc::Rc;

type Outcome = Rc<RefCell<Vec<String>>>;
/// An index to begin from, and how many rows it should have.
pub type State = (Kinds, usize, Disk);
type Actor = Coroutine<(), (), ()>;

/// A client that runs `work`; what goes wrong is noted.
fn client(actor: usize, outcome: &Outcome, work: impl FnOnce() -> Said + 'static) -> Actor {
    let outcome = outcome.clone();
    Coroutine::new(move |yielder: &Yielder<(), ()>, ()| {
        as_actor(actor, yielder);
        if let Err(said) = work() {
            outcome.borrow_mut().push(format!("client {actor}: {said}"));
        }
    })
}

/// Runs clients to their ends, the next one chosen by dice; returns how often another went on.
fn schedule(mut clients: Vec<(usize, Actor)>, dice: &mut Dice, outcome: &Outcome) -> Result<u64, String> {
    let (mut switches, mut last) = (0, usize::MAX);
    // Some schedules switch often, others seldom.
    let stay = [1, 4, 16, 64][dice.below(4)];
    while !clients.is_empty() {
        let ready: Vec<usize> = (0..clients.len()).filter(|&i| world().is_ready(clients[i].0)).collect();
        if ready.is_empty() {
            let waits: Vec<String> =
                clients.iter().map(|client| format!("{} for {:?}", client.0, world().waits[client.0])).collect();
            let held: Vec<_> = world().locks.iter().enumerate().filter(|(_, lock)| lock.is_held()).collect();
            // Their stacks cannot be unwound while they hold what they hold.
            clients.into_iter().for_each(std::mem::forget);
            return Err(format!(
                "clients wait for each other: {waits:?}, pages {held:?}, structure {:?}",
                world().structure
            ));
        }
        let at = match ready.iter().find(|&&i| clients[i].0 == last) {
            Some(&same) if !dice.one_in(stay) => same,
            _ => ready[dice.below(ready.len())],
        };
        let (actor, client) = &mut clients[at];
        switches += u64::from(last != *actor);
        last = *actor;
        if let CoroutineResult::Return(()) = client.resume(()) {
            drop(clients.remove(at));
        }
        postgres::begin(0, std::ptr::null());
        if !outcome.borrow().is_empty() {
            clients.into_iter().for_each(std::mem::forget);
            return Err(outcome.borrow().join("; "));
        }
    }
    Ok(switches)
}

/// States to begin from: of several kinds, with lists about to be split.
pub fn states() -> Vec<State> {
    let wide = std::env::var_os("SIM_WIDE").is_some();
    (0..24).map(|seed| state(seed, wide)).collect()
}

/// One of them.
fn state(seed: u64, wide: bool) -> State {
    let mut dice = Dice::new(seed);
    let kinds = Kinds::of(&mut dice, wide);
    let mut session = Session::begin(seed, kinds);
    let rows = 60 + dice.below(100);
    for statement in plan(seed, rows + dice.below(120)) {
        statement.run(kinds, rows).expect("one client alone");
    }
    let mut disk = Disk { clock: 1, ..Disk::default() };
    session.world().log.iter().for_each(|record| disk.replay(record));
    (kinds, rows, disk)
}

/// What a client does: so many statements.
fn work(seed: u64, kinds: Kinds, what: usize) -> Said {
    let dice = &mut Dice::new(seed);
    match what {
        // Rows that come to the same lists.
        0 => (0..1 + dice.below(4)).try_for_each(|_| insert(vector(dice)).map(|_| ())),
        1 => (0..1 + dice.below(2)).try_for_each(|_| search(&vector(dice), kinds.operator())),
        2 => {
            for row in 0..world().rows.len() {
                if dice.one_in(3) {
                    delete(row);
                }
            }
            vacuum()
        }
        _ => {
            let place = vector(dice);
            (0..2 + dice.below(8)).try_for_each(|_| insert(place.clone()).map(|_| ()))
        }
    }
}

/// One interleaving; how often another client went on.
pub fn run(session: &mut Session, seed: u64, (kinds, rows, disk): &State) -> Result<u64, String> {
    let (kinds, dice) = (*kinds, &mut Dice::new(seed));
    session.restart(kinds, disk, seed ^ 1);
    let outcome = Outcome::default();
    let clients = (1..=2 + dice.below(3)).map(|actor| {
        // One VACUUM at a time.
        let what = if actor == 1 { [2, 0, 3][dice.below(3)] } else { [0, 1, 1, 3][dice.below(4)] };
        let seed = dice.next();
        (actor, client(actor, &outcome, move || work(seed, kinds, what)))
    });
    let clients: Vec<_> = clients.collect();
    let switches = schedule(clients, dice, &outcome)?;
    check()?;
    search(&vector(dice), kinds.operator())?;
    if dice.one_in(4) {
        Statement(dice.next()).run(kinds, *rows)?;
        vacuum()?;
        check()?;
    }
    Ok(switches)
}

/// A standby: replays what a server has logged, with any lag, while queries with snapshots of any age are answered.
pub fn run_standby(session: &mut Session, seed: u64, (kinds, rows, disk): &State) -> Result<u64, String> {
    let (kinds, dice) = (*kinds, &mut Dice::new(seed));
    session.restart(kinds, disk, seed ^ 1);
    for statement in plan(seed, 10 + dice.below(20)) {
        statement.run(kinds, *rows)?;
    }
    if dice.one_in(2) {
        work(dice.next(), kinds, 2)?;
    }
    let log = std::mem::take(&mut session.world().log);
    session.restart(kinds, disk, seed ^ 2);
    session.world().standby = true;
    let outcome = Outcome::default();
    let waits = dice.one_in(2);
    let mut clients = vec![(1, client(1, &outcome, move || log.iter().try_for_each(|record| replay(record, waits))))];
    for actor in 2..4 {
        let seed = dice.next();
        clients.push((
            actor,
            client(actor, &outcome, move || {
                let dice = &mut Dice::new(seed);
                (0..3).try_for_each(|_| {
                    // Until replay has gone on.
                    (0..dice.below(200)).for_each(|_| postgres::give_way());
                    search(&vector(dice), kinds.operator()).or_else(|said| {
                        match world().cancelled.remove(&world().actor) {
                            true => Ok(()),
                            false => Err(said),
                        }
                    })?;
                    world().cancelled.remove(&world().actor);
                    Ok(())
                })
            }),
        ));
    }
    let outcome = schedule(clients, dice, &outcome);
    session.world().standby = false;
    let switches = outcome?;
    check()?;
    search(&vector(dice), kinds.operator())?;
    Ok(switches)
}

/// Replays a record on the running standby: as recovery does, with its pages locked.
fn replay(record: &Record, waits: bool) -> Said {
    postgres::give_way();
    let world = world();
    match record {
        Record::Pages(_, changes) => {
            for (block, _) in changes {
                while world.blocks <= *block {
                    let fresh = world.blocks;
                    *world.page_mut(fresh) = [0; crate::index::page::PAGE];
                    world.blocks += 1;
                }
                postgres::lock_block(*block);
            }
            let mut disk = Disk::default();
            for (i, (block, _)) in changes.iter().enumerate() {
                disk.pages.push(std::sync::Arc::new(*world.page(*block)));
                debug_assert_eq!(disk.pages.len(), i + 1);
            }
            for (i, (block, change)) in changes.iter().enumerate() {
                let alone = Record::Pages(record.lsn(), vec![(i as u32, change.clone())]);
                disk.replay(&alone);
                *world.page_mut(*block) = *disk.pages[i];
            }
            changes.iter().for_each(|(block, _)| postgres::unlock_block(*block));
        }
        Record::Row(..) => {
            let mut disk = Disk { rows: std::mem::take(&mut world.rows), clock: world.clock, ..Disk::default() };
            disk.replay(record);
            (world.rows, world.clock) = (disk.rows, disk.clock);
        }
        Record::Removed(conflict, gone) => {
            // Who could still see these rows: replay waits for him, or cancels his query.
            while waits && world.snapshots.iter().any(|time| time < conflict) {
                postgres::give_way();
            }
            let cancelled: Vec<usize> =
                world.asking.iter().filter(|(_, time)| time < conflict).map(|asking| asking.0).collect();
            world.cancelled.extend(cancelled);
            gone.iter().for_each(|&row| world.rows[row].removed = true);
        }
    }
    Ok(())
}

/// Goes through seeds; how many runs there were, or which one fails.
pub fn try_all(seconds: u64, run: impl Fn(&mut Session, u64, &State) -> Result<u64, String>) -> (u64, u64) {
    let states = states();
    let (mut runs, mut switches) = (0, 0);
    let mut session = Session::begin(0, states[0].0);
    for seed in seeds(seconds) {
        for (i, state) in states.iter().enumerate() {
            match run(&mut session, seed, state) {
                Ok(n) => switches += n,
                Err(said) => {
                    drop(session);
                    panic!("SIM_SEED={seed}, state {i}, {:?}: {said}", state.0);
                }
            }
            runs += 1;
        }
    }
    (runs, switches)
}

#[test]
fn clients_do_not_disturb_each_other() {
    let (runs, switches) = try_all(12, run);
    println!("{runs} interleavings, {switches} switches");
}

#[test]
fn a_standby_answers_while_it_replays() {
    let (runs, switches) = try_all(8, run_standby);
    println!("{runs} interleavings on a standby, {switches} switches");
}

/// A row that came at the end of a search, as it turned up too late for the order, and was dead: the entry of the one before it was
/// marked, which lives.
#[test]
fn a_late_row_that_is_dead_marks_no_other() {
    let state = state(22, true);
    let mut session = Session::begin(0, state.0);
    let outcome = run(&mut session, 6, &state);
    drop(session);
    outcome.expect("a whole index");
}
