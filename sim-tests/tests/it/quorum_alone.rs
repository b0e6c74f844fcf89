//! Runs that heal a quorum first: it must serve while the rest stays away.

use std::time::Duration;

use sim_tests::bugs;
use sim_tests::case::Case;
use sim_tests::healing::{Alone, Healing};
use sim_tests::operation::{Cell, Operation, OperationId, Request};
use sim_tests::options::{Mode, Options, Plan, Profile};
use sim_tests::run::{Keep, Report, run_case};
use sim_tests::swarm::{Summary, Swarm, run_all};
use sim_tests::world::{LogEntry, Record};

const JOBS: usize = 2;

const FIRST: [Healing; 2] = [Healing::OthersDown, Healing::OthersCutOff];

/// Each mode with the bug by which a cluster needs all its nodes.
const NEEDY: [(Mode, &str); 2] = [(Mode::PrimaryBackup, "R58"), (Mode::Masterless, "D66")];

/// A calm cluster of three, in which one write is acknowledged.
fn calm(mode: Mode, healing: Healing, planted: Option<&str>) -> Case {
    let mut case = Case::plain(Plan { mode, ..Plan::default() }, 7);
    case.options.fault_phase = Duration::from_secs(3);
    case.options.healing = healing;
    case.options.planted = planted.and_then(bugs::find);
    let (id, at) = (OperationId { client: 1, number: 1 }, Duration::from_secs(2));
    let request = Request::Set { cell: Cell("k0".to_owned()), bytes: 8 };
    case.operations = Some(vec![Operation { id, at, level: None, request }]);
    case
}

/// Runs ordinary seeds that are healed in that way; where no process dies, none does for this.
fn seeds(plan: Plan, end: u64, planted: Option<&str>, healing: Healing) -> Summary {
    let swarm = Swarm { first: 1, end, jobs: JOBS, progress: false, plan };
    let planted = planted.and_then(bugs::find);
    let draw = |seed| {
        let drawn = plan.draw(seed);
        let may_crash = drawn.faults.crash || drawn.faults.power;
        let is_crash = healing == Healing::OthersDown && !may_crash;
        let healing = if is_crash { Healing::OthersCutOff } else { healing };
        Options { planted, healing, ..drawn }
    };
    run_all(&swarm, draw, false)
}

fn speaker(report: &Report) -> Option<&'static str> {
    report.violation.as_ref().map(|violation| violation.checker)
}

#[test]
fn quorum_serves_while_the_others_are_away() {
    for mode in [Mode::PrimaryBackup, Mode::Masterless] {
        for first in FIRST {
            let report = run_case(&calm(mode, first, None), Keep::default());
            assert_eq!(report.violation, None, "{mode:?}, {}", first.name());
            let Alone::Served { healing, after, .. } = report.alone else {
                panic!("{mode:?}, {}: {:?}", first.name(), report.alone);
            };
            assert_eq!(healing, first, "{mode:?}");
            assert!(after < Duration::from_secs(5), "{mode:?}, {}: {after:?}", first.name());
        }
    }
}

#[test]
fn cluster_that_needs_all_its_nodes_is_found_by_a_quorum_alone() {
    for (mode, code) in NEEDY {
        for first in FIRST {
            let report = run_case(&calm(mode, first, Some(code)), Keep::default());
            assert_eq!(speaker(&report), Some("liveness"), "{code}, {}", first.name());
        }
        let report = run_case(&calm(mode, Healing::AtOnce, Some(code)), Keep::default());
        assert_eq!(report.violation, None, "{code} with everybody");
        assert_eq!(report.alone, Alone::NotTried, "{code}");
    }
}

/// Faults alone do not show it: whoever could not be reached is back in the end.
#[test]
fn cluster_that_needs_all_its_nodes_passes_where_all_are_healed_at_once() {
    for (mode, code) in NEEDY {
        let plan = Plan { mode, ..Plan::default() };
        let at_once = seeds(plan, 13, Some(code), Healing::AtOnce);
        assert_eq!(at_once.failed(), [], "{code} is found by another");
        let first = seeds(plan, 13, Some(code), Healing::OthersDown);
        assert!(first.failures() > 0, "{code} survives");
    }
}

#[test]
fn quorums_serve_alone_after_all_faults() {
    for mode in [Mode::PrimaryBackup, Mode::Masterless] {
        for profile in [Profile::Standard, Profile::Storage, Profile::Forgetful] {
            for first in FIRST {
                let plan = Plan { mode, profile };
                let summary = seeds(plan, 31, None, first);
                assert_eq!(summary.failed(), [], "{plan}, {}", first.name());
                let line = summary.alone().to_line();
                assert!(summary.alone().served_count() >= 15, "{plan}, {}: {line}", first.name());
            }
        }
    }
}

#[test]
fn run_that_heals_a_quorum_first_is_the_ordinary_one_until_then_and_can_be_written() {
    for mode in [Mode::PrimaryBackup, Mode::Masterless] {
        let options = Plan { mode, ..Plan::default() }.draw(7);
        let cases = [Healing::AtOnce, Healing::OthersDown]
            .map(|healing| Case::drawn(Options { healing, ..options.clone() }));
        let keep = Keep { trace: Record::Nothing, log: true };
        let [ordinary, first] = cases.each_ref().map(|case| run_case(case, keep));
        let end = u64::try_from(options.fault_phase.as_nanos()).unwrap();
        let [before, first_before] = [&ordinary, &first].map(|report| {
            let log = report.log.iter().take_while(|entry| entry.at < end);
            log.map(LogEntry::line).collect::<Vec<String>>()
        });
        assert!(before.len() > 100 && before == first_before, "{mode:?}");
        assert!(matches!(first.alone, Alone::Served { .. }), "{mode:?}: {:?}", first.alone);
        let again = Case::from_json(&cases[1].written(&first).to_json()).unwrap();
        assert_eq!(run_case(&again, Keep::default()).hash, first.hash, "{mode:?}");
    }
}
