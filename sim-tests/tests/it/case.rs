//! A run that is written down is that run again, and one decision can be left out of it.

use sim_tests::case::Case;
use sim_tests::options::{Mode, Options, Plan, Profile};
use sim_tests::run::{Keep, Report, run_case};
use sim_tests::world::Record;

const LOG: Keep = Keep { trace: Record::Nothing, log: true };

fn plans() -> [Plan; 6] {
    [
        Plan::default(),
        Plan { mode: Mode::Masterless, profile: Profile::Standard },
        Plan { mode: Mode::PrimaryBackup, profile: Profile::Storage },
        Plan { mode: Mode::Masterless, profile: Profile::Forgetful },
        Plan { mode: Mode::PrimaryBackup, profile: Profile::Requests },
        Plan { mode: Mode::Masterless, profile: Profile::Requests },
    ]
}

/// Writes a case down and reads it again.
fn kept(case: &Case) -> Case {
    let text = case.to_json();
    Case::from_json(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn hashes(report: &Report) -> (u64, u64) {
    (report.hash, report.event_count)
}

#[test]
fn written_case_is_the_same_run() {
    for plan in plans() {
        for seed in 1..6 {
            let case = Case::drawn(plan.draw(seed));
            let drawn = run_case(&case, LOG);
            let written = kept(&case.written(&drawn));
            let again = run_case(&written, LOG);
            let expected = written.expected.as_ref().unwrap();
            assert_eq!(expected.divergence(&again), None, "{plan}, seed {seed}");
            assert_eq!(hashes(&drawn), hashes(&again), "{plan}, seed {seed}");
        }
    }
}

#[test]
fn written_case_of_a_failure_is_the_same_failure() {
    let (plan, mut found) = (Plan::default(), 0);
    for seed in 1..20 {
        let case = Case::drawn(Options { planted: Some("R8"), ..plan.draw(seed) });
        let drawn = run_case(&case, LOG);
        if drawn.violation.is_none() {
            continue;
        }
        found += 1;
        let again = run_case(&kept(&case.written(&drawn)), Keep::default());
        assert_eq!(again.violation, drawn.violation, "seed {seed}");
        assert_eq!(hashes(&drawn), hashes(&again), "seed {seed}");
    }
    assert!(found > 2, "R8 was found {found} times");
}

#[test]
fn log_changes_nothing() {
    let case = Case::drawn(Options::draw(3));
    assert_eq!(hashes(&run_case(&case, LOG)), hashes(&run_case(&case, Keep::default())));
}

/// The point of it all: what is left out shifts nothing that came before it, and most of what
/// comes after is decided as it was.
#[test]
fn fault_left_out_leaves_the_other_decisions_alone() {
    let case = Case::drawn(Options::draw(4));
    let mut without = case.clone();
    let faults = case.faults();
    let gone = faults[faults.len() / 2].clone();
    without.leave_out(&[gone.id.to_string()]).unwrap();
    let left: Vec<_> = faults.into_iter().filter(|fault| fault.id != gone.id).collect();
    assert_eq!(without.faults(), left);
    let (with, without) = (run_case(&case, LOG), run_case(&without, LOG));
    let at = u64::try_from(gone.at.as_nanos()).unwrap();
    let before = |report: &Report| -> Vec<String> {
        let early = report.log.iter().filter(|entry| entry.at < at);
        early.map(sim_tests::world::LogEntry::line).collect()
    };
    assert_eq!(before(&with), before(&without));
}

#[test]
fn divergence_names_the_first_event_that_differs() {
    let case = Case::drawn(Options::draw(4));
    let written = case.written(&run_case(&case, LOG));
    let mut other = written.clone();
    let faults = other.faults.as_mut().unwrap();
    let gone = faults.remove(faults.len() / 2);
    let divergence = written.expected.unwrap().divergence(&run_case(&other, LOG)).unwrap();
    let expected = divergence.expected.unwrap_or_default();
    let seconds = format!("{}.", gone.at.as_secs());
    assert!(expected.trim_start().starts_with(&seconds), "{expected} is not at {:?}", gone.at);
}

#[test]
fn replay_file_of_another_version_is_refused() {
    let text = Case::drawn(Options::draw(1)).to_json();
    let error = Case::from_json(&text.replace("\"version\": 1", "\"version\": 99")).unwrap_err();
    assert_eq!(error.to_string(), "a replay file of version 99; this program reads version 1");
    assert!(Case::from_json("{}").is_err(), "an empty file");
}
