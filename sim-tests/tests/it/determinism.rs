//! The same seed is the same run: twice in one process, in two processes, alone and among others.
//! And the check is proven: something that no seed decides makes it fail.

use std::process::Command;

use sim_tests::options::{Mode, Options, Plan, Profile};
use sim_tests::run::run;

const SEEDS: std::ops::Range<u64> = 1..7;

/// Returns the last line of `sim replay`, which ends with the hash of everything that happened.
fn replayed(seed: u64, more: &[&str]) -> String {
    let program = env!("CARGO_BIN_EXE_sim");
    let seed = seed.to_string();
    let output = Command::new(program).args(["replay", &seed, "--quiet"]).args(more).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().map(ToOwned::to_owned);
    last.unwrap_or_else(|| panic!("seed {seed} printed nothing"))
}

#[test]
fn seed_run_twice_in_a_process_is_the_same_run() {
    for seed in SEEDS {
        let options = Options::draw(seed);
        let (once, again) = (run(&options, false), run(&options, true));
        assert_eq!((once.hash, once.event_count), (again.hash, again.event_count), "seed {seed}");
    }
}

#[test]
fn masterless_seed_is_the_same_run_twice_and_in_another_process() {
    let plan = Plan { mode: Mode::Masterless, profile: Profile::Standard };
    for seed in SEEDS {
        let options = plan.draw(seed);
        let (once, again) = (run(&options, false), run(&options, true));
        assert_eq!((once.hash, once.event_count), (again.hash, again.event_count), "seed {seed}");
        let line = replayed(seed, &["--mode", "masterless"]);
        assert!(line.ends_with(&format!("{:016x}", once.hash)), "seed {seed}: {line}");
    }
}

#[test]
fn seed_run_in_two_processes_is_the_same_run() {
    for seed in SEEDS {
        let line = replayed(seed, &[]);
        assert_eq!(line, replayed(seed, &[]), "seed {seed}");
        // This process has run other seeds before, in threads beside each other.
        let here = run(&Options::draw(seed), false);
        assert!(line.ends_with(&format!("{:016x}", here.hash)), "seed {seed}: {line}");
    }
}

#[test]
fn number_from_outside_of_the_seed_is_noticed() {
    let leaky = Options { leak: true, ..Options::draw(1) };
    assert_ne!(run(&leaky, false).hash, run(&leaky, false).hash, "the leak goes unnoticed");
    assert_ne!(replayed(1, &["--leak"]), replayed(1, &["--leak"]), "the leak goes unnoticed");
}
