//! A test of the tests: what would be seen if the index left out one of the things that keep it whole? Each mutation
//! takes that away where the index calls the server (a record in two parts, a flag that is not set, a lock that nobody
//! waits for), and has to be found.

use super::crash;
use super::interleave;
use super::postgres::world;
use super::session::Session;
use super::world::Record;
use crate::index::page::{self, Bytes, CLOSED, Kind, META_BLOCK, Meta, NO_BLOCK, PENDING};

macro_rules! mutations {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What is left out.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Mutation {
            $($(#[$doc])* $name,)*
        }

        const ALL: &[Mutation] = &[$(Mutation::$name,)*];
    };
}

mutations! {
    /// A record of several pages becomes several records.
    RecordInParts,
    /// Some records change places with the one before.
    RecordsSwapped,
    /// Some changes are not logged.
    NotLogged,
    /// Lists that are replaced are not closed.
    NotClosed,
    /// The meta page's epoch is not raised.
    EpochNotRaised,
    /// Pages from which something was taken do not say so.
    EpochNotNoted,
    /// Lists that rows were copied into are not noted as pending.
    PendingNotNoted,
    /// Nothing says that a change of the structure is under way.
    UnfinishedNotNoted,
    /// Identities are given out twice.
    IdentityReused,
    /// The number of lists stays as it was.
    ListsNotCounted,
    /// A code is written without its checksum.
    ChecksumNotRenewed,
    /// The meta page is written without its checksum.
    MetaChecksumNotRenewed,
    /// Live bits are not cleared.
    LiveBitNotCleared,
    /// Blocks that refer to a code page are not counted.
    RefsNotCounted,
    /// A chain is not linked to its new page.
    ChainNotLinked,
    /// The place where inserts look for room is on another list's page.
    RoomElsewhere,
    /// Pages that are given up stay what they were.
    NotFreed,
    /// The structure lock holds nobody off.
    StructureNotLocked,
    /// A page is unlocked before its change is made.
    UnlockedEarly,
    /// A dead row's mark is set on its neighbour, too.
    NeighbourMarked,
}

/// Changes the meta page of an image.
fn edit_meta(image: &mut Bytes, before: &Bytes, change: impl FnOnce(&mut Meta, &Meta)) {
    if let (Ok(mut meta), Ok(old)) = (Meta::read(image), Meta::read(before)) {
        change(&mut meta, &old);
        meta.write(image);
    }
}

/// What becomes of a page's change.
pub fn mutate(mutation: Mutation, block: u32, image: &mut Bytes, before: &Bytes) {
    let (new, old) = (page::opaque(image), page::opaque(before));
    let was_page = page::check_any(before).is_ok();
    match mutation {
        Mutation::NotClosed if new.kind == Kind::Posting as u8 => page::edit_opaque(image, |o| o.flags &= !CLOSED),
        Mutation::EpochNotRaised if block == META_BLOCK => edit_meta(image, before, |meta, old| meta.epoch = old.epoch),
        Mutation::EpochNotNoted if was_page && new.kind != Kind::Meta as u8 && new.kind != Kind::Mean as u8 => {
            let epoch = if new.kind == Kind::Free as u8 { 0 } else { old.epoch.min(new.epoch) };
            page::edit_opaque(image, |o| o.epoch = epoch);
        }
        Mutation::PendingNotNoted if block == META_BLOCK => {
            edit_meta(image, before, |meta, _| meta.pending = [0; PENDING])
        }
        Mutation::UnfinishedNotNoted if block == META_BLOCK => edit_meta(image, before, |meta, _| meta.unfinished = 0),
        Mutation::IdentityReused if block == META_BLOCK && old.kind == Kind::Meta as u8 => {
            edit_meta(image, before, |meta, old| meta.last_list = old.last_list);
        }
        Mutation::ListsNotCounted if block == META_BLOCK => {
            edit_meta(image, before, |meta, old| meta.lists = old.lists)
        }
        Mutation::ChecksumNotRenewed if new.kind == Kind::Code as u8 && old.kind == Kind::Code as u8 => {
            // Bytes 10 and 11 of a cell that has changed.
            let (image, before) = (page::contents_mut(image), page::contents(before));
            if let Some(at) = (0..page::CAPACITY).find(|&at| image[at] != before[at]) {
                image[at] = before[at];
            }
        }
        Mutation::MetaChecksumNotRenewed if block == META_BLOCK && was_page => {
            let sum = page::META_SUM;
            page::contents_mut(image)[sum.clone()].copy_from_slice(&page::contents(before)[sum]);
        }
        Mutation::LiveBitNotCleared if new.kind == Kind::Posting as u8 && was_page => {
            let (image, before) = (page::contents_mut(image), page::contents(before));
            if image != before && image.iter().zip(before).all(|(new, old)| new & !old == 0) {
                *image = *before;
            }
        }
        Mutation::RefsNotCounted if new.kind == Kind::Code as u8 && new.refs > 0 => {
            page::edit_opaque(image, |o| o.refs = if was_page { old.refs.min(o.refs) } else { 0 });
        }
        Mutation::ChainNotLinked if new.kind == Kind::Posting as u8 && was_page && old.next == NO_BLOCK => {
            page::edit_opaque(image, |o| o.next = NO_BLOCK);
        }
        Mutation::RoomElsewhere if new.kind == Kind::Posting as u8 && new.insert_at != NO_BLOCK && was_page => {
            page::edit_opaque(image, |o| o.insert_at = if o.insert_at == block { block } else { o.insert_at - 1 });
        }
        Mutation::NotFreed if new.kind == Kind::Free as u8 && was_page => *image = *before,
        _ => {}
    }
}

/// Whether a simulation fails, within so many seconds; what it said, and what found it.
fn find(mutation: Mutation, seconds: u64) -> Option<String> {
    let begun = std::time::Instant::now();
    super::postgres::set_mutation(Some(mutation));
    let states = std::panic::catch_unwind(|| {
        super::postgres::set_mutation(None);
        let states = interleave::states();
        super::postgres::set_mutation(Some(mutation));
        states
    });
    let states = states.expect("states without a mutation");
    let mut found = None;
    'all: for seed in 1.. {
        if begun.elapsed().as_secs() >= seconds {
            break;
        }
        let outcome = std::panic::catch_unwind(|| crash::run(seed, &crash::plan(seed, 300)).err());
        match outcome {
            Ok(None) => {}
            Ok(Some(said)) => {
                found = Some(format!("crash {seed}: {said}"));
                break;
            }
            Err(_) => {
                found = Some(format!("crash {seed}: a panic"));
                break;
            }
        }
        for (i, state) in states.iter().enumerate() {
            let outcome = std::panic::catch_unwind(|| {
                let mut session = Session::begin(seed, state.0);
                (0..8).find_map(|i| {
                    let seed = seed * 8 + i;
                    let said = interleave::run(&mut session, seed, state).err();
                    said.or_else(|| interleave::run_standby(&mut session, seed, state).err())
                })
            });
            let said = outcome.unwrap_or_else(|_| Some("a panic".to_string()));
            if let Some(said) = said {
                found = Some(format!("interleaving {seed} on state {i}: {said}"));
                break 'all;
            }
        }
    }
    super::postgres::set_mutation(None);
    found
}

/// Each within a minute: for `make stress`.
#[test]
#[ignore = "minutes: run by make stress"]
fn mutations_are_found() {
    // SAFETY: no other thread looks at the environment.
    unsafe { std::env::set_var("SIM_WIDE", "1") };
    let only = std::env::var("SIM_MUTATION").ok();
    let mut missed = Vec::new();
    for mutation in ALL.iter().copied().filter(|m| only.as_ref().is_none_or(|only| *only == format!("{m:?}"))) {
        let begun = std::time::Instant::now();
        let found = find(mutation, 60);
        println!("{mutation:?}, {:.1} s: {}", begun.elapsed().as_secs_f32(), found.as_deref().unwrap_or("NOT FOUND"));
        if found.is_none() {
            missed.push(mutation);
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// How a mutation changes what is logged.
pub fn log(mutation: Option<Mutation>, record: Record) {
    let world = world();
    let log = &mut world.log;
    match (mutation, record) {
        (Some(Mutation::RecordInParts), Record::Pages(lsn, changes)) => {
            log.extend(changes.into_iter().map(|change| Record::Pages(lsn, vec![change])));
        }
        (Some(Mutation::RecordsSwapped), record)
            if world.dice.one_in(8) && matches!(log.last(), Some(Record::Pages(..))) =>
        {
            let before = log.pop().unwrap();
            log.extend([record, before]);
        }
        (Some(Mutation::NotLogged), _) if world.dice.one_in(64) => {}
        (_, record) => log.push(record),
    }
}
