//! The same seed is the same run: twice in one process, in several processes, alone and among
//! others. And the check is proven: something that no seed decides makes it fail, and it says
//! where that came in.

use std::process::Command;

use sim_tests::determinism::{Disagreement, Proof, prove};
use sim_tests::options::{Leak, Mode, Options, Plan, Profile};
use sim_tests::run::run;
use sim_tests::world::Record;

const SEEDS: std::ops::Range<u64> = 1..5;

const MODES: [Mode; 2] = [Mode::PrimaryBackup, Mode::Masterless];

/// Returns the last line of `sim replay`, which ends with the hash of everything that happened.
fn replayed(seed: u64, mode: &str) -> String {
    let program = env!("CARGO_BIN_EXE_sim");
    let seed = seed.to_string();
    let output = Command::new(program).args(["replay", &seed, "--quiet", "--mode", mode]).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().map(ToOwned::to_owned);
    last.unwrap_or_else(|| panic!("seed {seed} printed nothing"))
}

fn proof(mode: Mode, profile: Profile, seeds: std::ops::Range<u64>, leak: Option<Leak>) -> Proof {
    let program = env!("CARGO_BIN_EXE_sim").into();
    Proof { plan: Plan { mode, profile }, seeds, program, other_build: None, leak }
}

#[test]
fn seed_recorded_or_not_is_the_same_run_here_and_in_another_process() {
    for (mode, name) in MODES.into_iter().zip(["primary-backup", "masterless"]) {
        let plan = Plan { mode, profile: Profile::Standard };
        for seed in SEEDS {
            // This process runs other seeds meanwhile, in threads beside each other.
            let options = plan.draw(seed);
            let once = run(&options, Record::Nothing);
            for record in [Record::Lines, Record::Everything] {
                let again = run(&options, record);
                let both = [(once.hash, once.event_count), (again.hash, again.event_count)];
                assert_eq!(both[0], both[1], "{mode:?} seed {seed}, {record:?}");
            }
            let line = replayed(seed, name);
            assert!(line.ends_with(&format!("{:016x}", once.hash)), "{mode:?} seed {seed}: {line}");
        }
    }
}

#[test]
fn witnesses_of_a_seed_agree_on_every_event_and_disk() {
    for mode in MODES {
        for profile in [Profile::Standard, Profile::Storage] {
            let agreement = prove(&proof(mode, profile, 11..13, None), |_| {});
            let agreement =
                agreement.unwrap_or_else(|what| panic!("{mode:?}, {profile:?}: {what}"));
            assert_eq!((agreement.seeds, agreement.witnesses), (2, 2));
            assert!(agreement.events > 10_000, "{agreement}");
            assert!(agreement.disks > 500, "{agreement}");
        }
    }
}

#[test]
fn something_that_no_seed_decides_is_noticed_where_it_comes_in() {
    for mode in MODES {
        for (leak, kind) in [(Leak::Event, "leak"), (Leak::Disk, "disk")] {
            let proven = prove(&proof(mode, Profile::Standard, 1..2, Some(leak)), |_| {});
            let Err(Disagreement::Difference(found)) = proven else {
                panic!("{leak:?} goes unnoticed: {proven:?}");
            };
            let first = |line: &Option<String>| {
                line.as_ref().and_then(|line| line.split_whitespace().nth(2).map(str::to_owned))
            };
            assert!(found.said.iter().all(|(_, line)| first(line).as_deref() == Some(kind)));
            assert!(!found.before.is_empty(), "{found}");
        }
    }
}

#[test]
fn leak_changes_the_hash_of_a_run() {
    let leaky = Options { leak: Some(Leak::Event), ..Options::draw(1) };
    let hash = || run(&leaky, Record::Nothing).hash;
    assert_ne!(hash(), hash(), "the leak goes unnoticed");
}
