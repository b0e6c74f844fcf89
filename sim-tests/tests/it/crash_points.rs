//! Crash points: a shorter exploration than `cargo sim crash-points`, and the proof that it sees.

use sim_tests::bugs;
use sim_tests::crash::{Plan, cluster, explore};
use sim_tests::options::Mode;

fn of_cluster(mode: Mode, planted: Option<&str>) -> cluster::Exploration {
    let planted = planted.and_then(bugs::find);
    let plan = cluster::Plan { mode, seed: 1, moments_max: 60, jobs: 2, planted };
    cluster::explore(&plan, |_| ())
}

#[test]
fn cluster_that_loses_power_at_any_step_of_its_disks_loses_nothing() {
    for mode in [Mode::PrimaryBackup, Mode::Masterless] {
        let found = of_cluster(mode, None);
        let said: Vec<&String> = found.violations.iter().map(|(_, what)| what).collect();
        assert!(said.is_empty(), "{mode:?}: {said:?}");
        assert!(found.steps > 300 && found.moments > found.steps, "{mode:?}: {found}");
        assert!(found.moments_tried > 40, "{mode:?}: {found}");
        assert_eq!(found.runs, 4 * found.moments_tried + 1, "{mode:?}");
        let answered = found.acknowledged / u64::try_from(found.runs).unwrap();
        assert!(answered > 40, "{mode:?}: {answered} requests a run");
    }
}

#[test]
fn crash_points_of_a_cluster_find_what_is_planted() {
    for (mode, code) in [(Mode::PrimaryBackup, "R4"), (Mode::PrimaryBackup, "W16")] {
        let found = of_cluster(mode, Some(code));
        assert!(!found.violations.is_empty(), "{code} survived: {found}");
    }
}

#[test]
fn crash_points_of_a_store_in_use_lose_nothing_and_make_nothing_up() {
    for seed in [2, 3] {
        let plan = Plan { seed, operations: 60, images_max: 60, ..Plan::default() };
        let found = explore(&plan);
        assert_eq!(found.violations, Vec::<String>::new(), "seed {seed}");
        assert!(found.boundaries > 200, "seed {seed}: {found}");
        assert!(found.distinct > 3000, "seed {seed}: {found}");
        assert!(found.complete_boundaries > 100, "seed {seed}: {found}");
        assert!(found.nested > 100, "seed {seed}: {found}");
        for step in ["create", "write", "sync", "sync of a directory", "rename", "remove"] {
            assert!(found.steps.contains_key(step), "seed {seed} has no {step}: {found}");
        }
    }
}

#[test]
fn crash_points_find_each_bug_that_is_planted_in_the_store() {
    for code in ["W4", "W5", "W6", "W16", "W17"] {
        let plan = Plan { planted: Some(code), stop_at_first: true, ..Plan::default() };
        let found = explore(&plan);
        // By an image that a power loss may leave, not by the script that could not go on.
        let by_image = found.violations.iter().any(|what| what.starts_with("power loss"));
        assert!(by_image, "{code} survived: {found}");
    }
}

#[test]
fn crash_points_are_the_same_in_every_run() {
    let plan = Plan { seed: 4, operations: 30, images_max: 20, ..Plan::default() };
    let runs = [explore(&plan), explore(&plan)].map(|found| found.to_string());
    assert_eq!(runs[0], runs[1]);
}
