//! Directed scenarios of the masterless mode: one thing goes wrong on purpose, at the moment when
//! it hurts. Each ends as a swarm run does: everything heals, the replicas become equal by the
//! mechanism of the run, and disks and history are judged.

use mangrove::dynamo::Level;
use mangrove::replica::Repair;
use sim_tests::bugs::{self, MASTERLESS_BUGS};
use sim_tests::healing::Healing;
use sim_tests::masterless::options::{self, LevelMix, Mechanism, NEVER};
use sim_tests::nemesis::Action;
use sim_tests::options::{FaultClasses, Mode, Options, Plan, Profile, RequestMix};
use sim_tests::run::{Scene, direct};
use sim_tests::world::Record;

use crate::scenarios::{MS, hits, holds, observable, shrink_tables};
use crate::storage_scenarios::outlives_the_rot_of_its_name_plate;

/// Only sets, gets and deletes; a scenario adds what it is about.
const PLAIN: RequestMix = RequestMix {
    get: 3,
    set: 5,
    delete: 0,
    cas: 0,
    delete_row: 0,
    bulk_set: 0,
    multi_get: 0,
    status: 0,
    bulk_if: 0,
    keys: 0,
    scan: 0,
    bulk_rows: 0,
    slice: 0,
};

/// Options of a busy cluster of three in which nothing goes wrong by chance.
fn busy(seed: u64, mechanism: Mechanism) -> Options {
    let plan = Plan { mode: Mode::Masterless, profile: Profile::Standard };
    let mut run = plan.draw(seed);
    run.node_count = 3;
    run.client_count = 4;
    run.faults = FaultClasses::NONE;
    run.relaxed_sync = false;
    run.healing = Healing::AtOnce;
    run.think_time = 20 * MS;
    run.tuning.value_bytes_max = 24;
    run.mix = PLAIN;
    let own = masterless(&mut run);
    own.replication_factor = 3;
    own.partition_count = 16;
    own.mechanism = mechanism;
    own.levels = LevelMix::only(Level::Quorum);
    own.session_chance = 0.5;
    let is_synced = matches!(mechanism, Mechanism::All | Mechanism::AntiEntropy);
    own.sync_interval = if is_synced { 300 * MS } else { NEVER };
    own.floor_interval = if is_synced { 1000 * MS } else { NEVER };
    own.repair = Repair {
        hints: matches!(mechanism, Mechanism::All | Mechanism::Hints),
        reads: matches!(mechanism, Mechanism::All | Mechanism::Reads),
    };
    run
}

fn masterless(run: &mut Options) -> &mut options::Options {
    run.masterless.as_mut().unwrap_or_else(|| panic!("seed {} has another mode", run.seed))
}

fn cut_off(node: u64, seconds: u32) -> Action {
    Action::Absence { node, is_cut_off: true, length: 1000 * MS * seconds }
}

fn away(node: u64, seconds: u32) -> Action {
    Action::Absence { node, is_cut_off: false, length: 1000 * MS * seconds }
}

fn crash(node: u64) -> Action {
    Action::Crash { node, while_busy: true, down: 500 * MS }
}

#[test]
fn delete_stays_a_delete_for_a_node_that_was_away() {
    for mechanism in [Mechanism::All, Mechanism::AntiEntropy] {
        let mut options = busy(1, mechanism);
        options.mix = RequestMix { delete: 4, delete_row: 2, ..PLAIN };
        options.key_count = 4;
        let report = holds(&options, async |scene| {
            scene.pass(4000 * MS).await;
            scene.perform(away(3, 15)).await;
            scene.pass(20_000 * MS).await;
        });
        // Tombstones wait for whoever is away; only then may floors pass them.
        assert!(hits(&report, "dynamo.raises_floor") > 0, "{:?}", report.probes);
        assert!(report.acknowledged > 500, "{} requests answered", report.acknowledged);
    }
}

#[test]
fn old_disk_brings_nothing_back() {
    let mut ghosts = 0;
    for seed in 1..6 {
        let mut options = busy(seed, Mechanism::AntiEntropy);
        options.mix = RequestMix { delete: 4, delete_row: 2, ..PLAIN };
        options.key_count = 8;
        masterless(&mut options).floor_interval = 300 * MS;
        let report = holds(&options, async |scene| {
            scene.pass(3000 * MS).await;
            let (age, down) = (12_000 * MS, 50 * MS);
            scene.perform(Action::OldDisk { node: 2, age, down }).await;
            scene.pass(18_000 * MS).await;
        });
        assert_eq!(observable(&report, "P7"), 1);
        ghosts += hits(&report, "dynamo.sync_erases_ghost");
    }
    assert!(ghosts > 0, "no old disk had anything to bring back");
}

#[test]
fn batch_whose_coordinator_dies_is_finished_by_its_holder() {
    let mut taken_over = 0;
    for seed in 1..6 {
        let mut options = busy(seed, Mechanism::AntiEntropy);
        options.node_count = 5;
        options.mix = RequestMix { bulk_set: 10, ..PLAIN };
        options.key_count = 16;
        let report = holds(&options, async |scene| {
            for node in 1..=5 {
                scene.pass(1000 * MS).await;
                scene.perform(crash(node)).await;
            }
            scene.pass(2000 * MS).await;
        });
        taken_over += hits(&report, "dynamo.batch_taken_over");
    }
    assert!(taken_over > 0, "no coordinator died in mid-batch");
}

#[test]
fn hints_survive_the_crash_of_their_coordinators() {
    for strict in [true, false] {
        let report = holds(&busy(2, Mechanism::Hints), async move |scene| {
            // A cluster that has never been complete answers nothing.
            scene.pass(2000 * MS).await;
            scene.perform(cut_off(3, 30)).await;
            scene.pass(4000 * MS).await;
            // What is not hinted yet dies with its coordinator: it is not what this is about.
            scene.stop_load();
            scene.pass(8000 * MS).await;
            let nodes = vec![1, 2];
            let down = 100 * MS;
            scene.perform(Action::PowerLoss { nodes, strict, while_busy: false, down }).await;
            scene.pass(2000 * MS).await;
        });
        assert!(report.acknowledged > 100, "{} requests answered", report.acknowledged);
    }
}

#[test]
fn both_sides_of_a_partition_write_at_one_and_become_equal() {
    for mechanism in [Mechanism::All, Mechanism::AntiEntropy, Mechanism::Hints, Mechanism::Reads] {
        let mut options = busy(3, mechanism);
        options.mix = RequestMix { delete: 2, delete_row: 1, ..PLAIN };
        masterless(&mut options).levels = LevelMix::only(Level::One);
        let report = holds(&options, async |scene| {
            scene.pass(2000 * MS).await;
            scene.perform(cut_off(1, 8)).await;
            scene.pass(6000 * MS).await;
        });
        assert!(report.acknowledged > 500, "{mechanism:?}: {} answered", report.acknowledged);
    }
}

#[test]
fn clock_an_hour_ahead_loses_no_write() {
    let mut options = busy(4, Mechanism::All);
    options.mix = RequestMix { delete: 2, ..PLAIN };
    let report = holds(&options, async |scene| {
        scene.pass(2000 * MS).await;
        scene.perform(Action::ClockJump { node: 1, by_ms: 3_600_000 }).await;
        scene.pass(3000 * MS).await;
        // Its stamps are everywhere; a restart must not give smaller ones.
        scene.perform(Action::ClockJump { node: 1, by_ms: -3_600_000 }).await;
        for node in 1..=3 {
            scene.perform(crash(node)).await;
            scene.pass(1500 * MS).await;
        }
    });
    assert!(observable(&report, "C3") > 0, "{:?}", report.faults.get("C3"));
}

/// A clock is ten hours ahead, at one level and mechanism after the other, and back again before
/// and after a restart. What was acknowledged meanwhile stays, and nothing is stamped in that
/// future: `stamp_lead` looks for it in answers and on disks.
#[test]
fn clock_hours_ahead_and_back_stamps_nothing_in_its_future() {
    let mut refused = 0;
    for (seed, level) in [(1, Level::One), (2, Level::Quorum), (3, Level::All)] {
        for mechanism in [Mechanism::All, Mechanism::AntiEntropy, Mechanism::Reads] {
            let mut options = busy(seed, mechanism);
            options.mix = RequestMix { delete: 2, bulk_set: 1, ..PLAIN };
            masterless(&mut options).levels = LevelMix::only(level);
            let report = holds(&options, async |scene| {
                scene.pass(2000 * MS).await;
                let far = |length| Action::ClockFar { node: 1, by_ms: 36_000_000, length };
                scene.perform(far(4000 * MS)).await;
                scene.pass(2000 * MS).await;
                scene.perform(crash(1)).await;
                scene.pass(4000 * MS).await;
                // Not set right before the others are gone for a while, one after the other.
                scene.perform(far(60_000 * MS)).await;
                scene.perform(crash(2)).await;
                scene.pass(1500 * MS).await;
                scene.perform(crash(3)).await;
                scene.pass(2000 * MS).await;
            });
            assert!(report.acknowledged > 200, "{mechanism:?}: {} answered", report.acknowledged);
            refused += hits(&report, "dynamo.own_clock_too_far_ahead");
        }
    }
    assert!(refused > 0, "the node with the wrong clock was never asked to write");
}

#[test]
fn clock_hours_behind_is_as_good_as_any() {
    let mut options = busy(5, Mechanism::All);
    options.mix = RequestMix { delete: 2, ..PLAIN };
    masterless(&mut options).levels = LevelMix::only(Level::All);
    let report = holds(&options, async |scene| {
        scene.pass(2000 * MS).await;
        let length = 60_000 * MS;
        scene.perform(Action::ClockFar { node: 2, by_ms: -36_000_000, length }).await;
        scene.pass(3000 * MS).await;
        scene.perform(crash(2)).await;
        scene.pass(4000 * MS).await;
    });
    assert!(report.acknowledged > 300, "{} answered", report.acknowledged);
    assert_eq!(hits(&report, "dynamo.own_clock_too_far_ahead"), 0);
}

/// With the guard off, the checker must see what gets through.
#[test]
fn clock_hours_ahead_without_the_guard_is_noticed() {
    let bug = MASTERLESS_BUGS.iter().find(|bug| bug.code == "D52");
    let bug = bug.unwrap_or_else(|| panic!("D52 is not a planted bug"));
    let hunt = bugs::hunt(*bug, Mode::Masterless, 1, 60, 2);
    let (_, what) = hunt.found.unwrap_or_else(|| panic!("D52 was not found"));
    assert!(what.checker == "stamp_lead", "{what}");
}

#[test]
fn each_mechanism_makes_replicas_equal_by_itself() {
    for mechanism in [Mechanism::AntiEntropy, Mechanism::Hints, Mechanism::Reads] {
        let mut options = busy(6, mechanism);
        options.mix = RequestMix { delete: 1, bulk_set: 1, ..PLAIN };
        let report = holds(&options, async |scene| {
            for node in 1..=3 {
                scene.perform(cut_off(node, 3)).await;
                scene.pass(4000 * MS).await;
            }
            scene.perform(cut_off(2, 20)).await;
            scene.pass(5000 * MS).await;
        });
        assert_eq!(report.mechanism, Some(mechanism));
        assert!(report.time_to_converge < 15_000 * MS, "{:?}", report.time_to_converge);
    }
}

#[test]
fn tables_that_a_start_finds_damaged_are_got_back_from_the_others() {
    // Where the bit flips is a matter of the seed: most often in what no start reads.
    let mut condemned = 0;
    for seed in 1..33 {
        let mut options = busy(seed, Mechanism::All);
        options.tuning.flush_log_bytes = 2000;
        let report = holds(&options, async |scene| {
            scene.pass(2500 * MS).await;
            scene
                .perform(Action::Rot { node: 2, tables: true, sector: false, down: 50 * MS })
                .await;
            scene.pass(3000 * MS).await;
        });
        condemned += hits(&report, "replica.state_is_condemned_at_start");
    }
    assert!(condemned > 0, "no start has met a damaged table");
}

#[test]
fn name_plate_that_rots_in_one_copy_is_mended_at_the_start() {
    outlives_the_rot_of_its_name_plate(&busy(34, Mechanism::All));
}

/// Tables that do not keep up hold writes back; who has waited too long is told that its write was
/// not applied, and the checkers take that at its word.
#[test]
fn write_that_waits_for_tables_too_long_was_not_applied() {
    let mut options = busy(30, Mechanism::All);
    options.client_count = 5;
    shrink_tables(&mut options.tuning);
    options.tuning.value_bytes_max = 2000;
    options.tuning.tree.level0_tables_max = 3;
    let report = holds(&options, async |scene| {
        scene.pass(1000 * MS).await;
        scene.perform(Action::Slow { node: 1, factor: 100, length: 20_000 * MS }).await;
        scene.pass(25_000 * MS).await;
        let before = scene.acknowledged();
        scene.pass(1000 * MS).await;
        assert!(scene.acknowledged() > before, "nothing is answered on a quick disk again");
    });
    let held_back = hits(&report, "replica.masterless_write_is_held_back_too_long");
    assert!(held_back > 0, "{:?}", report.probes);
}

/// Options of a cluster in which a stale replica stays stale unless it is compared with.
fn many_reads(seed: u64) -> Options {
    let mut options = busy(seed, Mechanism::AntiEntropy);
    options.mix = RequestMix { get: 8, set: 2, ..PLAIN };
    options.key_count = 8;
    options
}

/// The third node misses writes, the second gets a new disk, and the first, which alone has them
/// then, is cut off: a quorum of the others has nothing.
async fn exchange_beside_a_stale_replica(scene: &mut Scene) {
    scene.pass(1000 * MS).await;
    scene.perform(cut_off(3, 3)).await;
    scene.pass(3001 * MS).await;
    scene.perform(Action::NewDisk { node: 2, down: 10 * MS }).await;
    scene.perform(cut_off(1, 3)).await;
    scene.pass(6000 * MS).await;
}

#[test]
fn node_with_a_new_disk_answers_nothing_before_it_has_compared() {
    let report = holds(&many_reads(7), exchange_beside_a_stale_replica);
    // Three nodes begin, and one begins again.
    assert_eq!(hits(&report, "dynamo.starts_damaged"), 4, "{:?}", report.probes);
    assert!(hits(&report, "dynamo.read_unavailable") > 0, "{:?}", report.probes);
    assert_eq!(observable(&report, "P7"), 1, "{:?}", report.faults.get("P7"));
}

#[test]
fn new_disk_that_answers_at_once_is_noticed() {
    let options = Options { planted: Some("D65"), ..many_reads(7) };
    let report = direct(&options, Record::Nothing, exchange_beside_a_stale_replica);
    let who = report.violation.map(|violation| violation.checker);
    assert!(who.is_some_and(|who| !who.starts_with("assertion")), "{who:?}");
}
