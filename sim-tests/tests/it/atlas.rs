//! Disks that lose more than can be mended: the cluster may halt, and must not lie.

use std::time::Duration;

use sim_tests::atlas::Contract;
use sim_tests::bugs;
use sim_tests::case::Case;
use sim_tests::options::{Mode, Options, Plan, Profile};
use sim_tests::run::{Keep, Report, run_case};
use sim_tests::swarm::{Swarm, run_seeds};
use sim_tests::workload::Helper;

fn beyond(mode: Mode) -> Plan {
    Plan { mode, profile: Profile::Beyond }
}

#[test]
fn clusters_that_lost_too_much_halt_and_do_not_lie() {
    let plan = beyond(Mode::PrimaryBackup);
    let summary = run_seeds(&Swarm { first: 61, end: 151, jobs: 2, progress: false, plan });
    assert_eq!(summary.failed(), [], "replay with `cargo sim replay SEED --profile beyond`");
    let (runs, halted) = summary.contracts()[&Contract::MayHalt];
    assert!(runs > 40, "only {runs} runs lost more than a minority");
    assert!((1..runs / 2).contains(&halted), "{halted} of {runs} did not serve in the end");
    assert!(summary.contracts().contains_key(&Contract::MustSurvive), "none was to survive");
}

#[test]
fn masterless_clusters_that_lost_too_much_make_nothing_up() {
    let plan = beyond(Mode::Masterless);
    let summary = run_seeds(&Swarm { first: 1, end: 31, jobs: 2, progress: false, plan });
    assert_eq!(summary.failed(), [], "replay with --mode masterless --profile beyond");
    assert!(summary.contracts()[&Contract::OutOfModel].0 > 10, "{:?}", summary.contracts());
}

#[test]
fn cluster_that_may_halt_is_asked_to_the_end() {
    let draw = |seed| Case::drawn(beyond(Mode::PrimaryBackup).draw(seed));
    let reports = [7, 18, 40, 89, 132].map(|seed| run_case(&draw(seed), Keep::default()));
    let may_halt = reports.iter().filter(|report| report.contract == Contract::MayHalt);
    let mut asked_count = 0;
    for Report { seed, history, names, simulated, .. } in may_halt {
        let is_reader = |op| names.get(op).is_some_and(|id| id.client == Helper::Reader.client());
        let last = history.events().iter().rfind(|event| is_reader(&event.op));
        let last = last.map(|event| Duration::from_nanos(event.time_ns));
        let silence = simulated.saturating_sub(last.unwrap_or_default());
        assert!(silence < Duration::from_secs(10), "seed {seed}: not asked for {silence:?}");
        asked_count += 1;
    }
    assert!(asked_count > 0, "all of them were to survive");
}

/// A node that takes rot for a torn tail forgets what it acknowledged and goes on: with one such
/// disk the others outvote it, with two the cluster lies.
#[test]
fn cluster_that_lies_is_found_where_it_might_halt() {
    let planted = bugs::find("W7");
    let draw = |seed| Options { planted, ..beyond(Mode::PrimaryBackup).draw(seed) };
    let reports =
        [7, 18, 40, 89, 132].map(|seed| run_case(&Case::drawn(draw(seed)), Keep::default()));
    for report in &reports {
        assert!(report.violation.is_some(), "seed {} is not found any more", report.seed);
    }
    let may_halt = reports.iter().filter(|report| report.contract == Contract::MayHalt);
    assert!(may_halt.count() > 0, "all of them were to survive");
}
