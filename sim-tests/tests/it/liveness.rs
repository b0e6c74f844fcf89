//! How fast clusters are back after healing, and that ordinary runs know nothing of it.

use sim_tests::case::Case;
use sim_tests::check::liveness::Recovery;
use sim_tests::liveness::{Plan, Step, exceeded, measure, page, to_json};
use sim_tests::options::{self, Mode, Profile};
use sim_tests::run::{Keep, run_case};
use sim_tests::world::{LogEntry, Record};

const JOBS: usize = 2;

const MODES: [Mode; 2] = [Mode::PrimaryBackup, Mode::Masterless];

fn plan(mode: Mode, seeds: std::ops::Range<u64>) -> Plan {
    let runs = options::Plan { mode, profile: Profile::Standard };
    Plan { runs, seeds, curve_seeds: 0, planted: None, jobs: JOBS }
}

/// Few seeds, so that the longest run is judged and no percentile.
#[test]
fn standing_seeds_are_back_in_time() {
    for (mode, step_count) in [(Mode::PrimaryBackup, 3), (Mode::Masterless, 5)] {
        let mut measured = measure(&plan(mode, 1..41), || {});
        assert_eq!(measured.broken, Vec::<String>::new(), "promises are broken");
        assert_eq!(
            exceeded(measured.runs, &measured.series),
            [],
            "see them with `cargo sim liveness`"
        );
        assert_eq!(measured.series.len(), step_count, "{:?}", measured.series);
        for series in &measured.series {
            let is_of_all = !matches!(series.step, Step::Convergence(Some(_)));
            assert!(!is_of_all || series.runs() == 40, "{:?} in {}", series.step, series.runs());
        }
        // And a cluster that is ten times as slow is noticed.
        let samples = measured.series.iter_mut().flat_map(|series| &mut series.samples);
        samples.for_each(|sample| sample.took *= 10);
        assert!(measured.is_too_slow(), "{mode:?}");
    }
}

/// Whoever asks does so after healing; until then a run that is timed is the ordinary one.
#[test]
fn run_that_is_timed_is_the_ordinary_one_until_it_heals() {
    for mode in MODES {
        let ordinary = Case::drawn(options::Plan { mode, profile: Profile::Standard }.draw(7));
        let timed = Case { is_timed: true, ..ordinary.clone() };
        let keep = Keep { trace: Record::Nothing, log: true };
        let reports = [&ordinary, &timed].map(|case| run_case(case, keep));
        let healing = u64::try_from(ordinary.options.fault_phase.as_nanos()).unwrap();
        let [before, timed_before] = [0, 1].map(|at| {
            let log = reports[at].log.iter();
            let lines = log.take_while(|entry| entry.at < healing).map(LogEntry::line);
            lines.collect::<Vec<String>>()
        });
        assert!(before.len() > 100 && before == timed_before, "{mode:?}");
        assert_eq!(reports[0].recovery, Recovery::default(), "{mode:?}");
        assert!(reports[1].recovery.serve_ns.is_some(), "{mode:?}");
        let again = Case::from_json(&timed.written(&reports[1]).to_json()).unwrap();
        assert_eq!(run_case(&again, Keep::default()).hash, reports[1].hash, "{mode:?}");
    }
}

#[test]
fn curves_show_that_a_leader_is_missed_only_where_somebody_leads() {
    let [primary_backup, masterless] = MODES.map(|mode| {
        let measured = measure(&Plan { curve_seeds: 1, ..plan(mode, 1..2) }, || {});
        assert_eq!(measured.broken, Vec::<String>::new(), "promises are broken");
        measured
    });
    let lost = |curves: &[sim_tests::liveness::Curve]| {
        let crash = curves.iter().find(|curve| curve.kind == "crash");
        crash.map(sim_tests::liveness::Curve::lost_seconds).unwrap()
    };
    let [led, free] = [lost(&primary_backup.curves), lost(&masterless.curves)];
    assert!(led > 0.3 && free < led / 2.0, "{led} and {free} seconds");
    let page = page(&primary_backup);
    let addresses = page.matches("http").count();
    assert_eq!(addresses, page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count());
    let json: serde_json::Value = serde_json::from_str(&to_json(&primary_backup)).unwrap();
    assert_eq!(json["after_healing"][0]["step"], "leader");
    assert_eq!(json["availability"].as_array().map(Vec::len), Some(19));
}

/// Runs are the same whoever else runs at the same time.
#[test]
fn figures_do_not_depend_on_the_threads() {
    let with = |jobs| Plan { jobs, curve_seeds: 1, ..plan(Mode::PrimaryBackup, 5..9) };
    let [one, three] = [1, 3].map(|jobs| measure(&with(jobs), || {}));
    assert_eq!(one.series, three.series);
    assert_eq!(one.curves, three.curves);
}
