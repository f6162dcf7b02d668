//! Calls that fail: reading a page, extending the file, allocating, a statement cancelled; each at any call of a
//! workload. The statement ends with an ERROR, the index stays whole and works on.

use super::check::check;
use super::crash::{Statement, plan, seeds, shrink, vector};
use super::postgres::world;
use super::session::*;
use super::world::*;

/// Whether that is what a fault says.
fn is_of_fault(said: &str) -> bool {
    said.contains("a call that fails") || said.contains("canceling statement")
}

/// Runs statements, of which some meet a fault; returns how many did.
pub fn run(seed: u64, statements: &[Statement]) -> Result<u64, String> {
    let mut dice = Dice::new(seed ^ 0xFA17);
    let kinds = Kinds::by(&mut dice);
    let mut session = Session::begin(seed, kinds);
    let rows = 60 + dice.below(160);
    let mut met = 0;
    for (step, statement) in statements.iter().enumerate() {
        let fault = [Fault::Read, Fault::Extend, Fault::Memory, Fault::Cancel][dice.below(4)];
        let most = [30, 300, 3000][dice.below(3)];
        session.world().fault = dice.one_in(2).then(|| (dice.below(most) as u64, fault));
        let told = |said: String| format!("{kinds:?}, statement {step}, {fault:?}: {said}");
        let outcome = statement.run(kinds, rows);
        let world = session.world();
        world.fault = None;
        world.log.clear();
        world.hints.clear();
        match outcome {
            Ok(()) => {}
            Err(said) if is_of_fault(&said) => {
                met += 1;
                check().map_err(told)?;
                search(&vector(&mut dice), kinds.operator()).map_err(told)?;
            }
            Err(said) => return Err(told(said)),
        }
    }
    vacuum()?;
    let broken_off = session.is_unfinished();
    let counts = check()?;
    if broken_off {
        return Err(format!("VACUUM leaves a change unfinished: {counts:?}"));
    }
    let _ = world();
    Ok(met)
}

#[test]
fn any_call_may_fail() {
    const STEPS: usize = 300;
    let (mut met, mut runs) = (0, 0);
    for seed in seeds(6) {
        runs += 1;
        match run(seed, &plan(seed, STEPS)) {
            Ok(n) => met += n,
            Err(said) => {
                let (fewer, then) = shrink(plan(seed, STEPS), |statements| run(seed, statements).err());
                panic!("SIM_SEED={seed}: {said}\nshrunk to {} statements: {then}\n{fewer:?}", fewer.len());
            }
        }
    }
    println!("{met} statements ended by a fault, {runs} workloads");
    assert!(met > 0);
}
