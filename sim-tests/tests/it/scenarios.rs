//! Directed scenarios: one thing goes wrong on purpose, at the moment when it hurts. Each ends as a
//! swarm run does: everything heals, converges, serves, and the whole history is judged.

use std::time::Duration;

use mangrove::base::NodeId;
use mangrove::replica::WAL_DIR;
use mangrove::storage::wal;
use sim_tests::bugs;
use sim_tests::nemesis::{Action, Weather};
use sim_tests::options::{FaultClasses, Options, Tuning};
use sim_tests::run::{Report, Scene, direct};
use sim_tests::world::Record;

pub(crate) const MS: Duration = Duration::from_millis(1);

/// Options of a busy cluster of three in which nothing goes wrong by chance.
pub(crate) fn busy(seed: u64) -> Options {
    let mut options = Options::draw(seed);
    options.node_count = 3;
    options.client_count = 4;
    options.lockstep = false;
    options.faults = FaultClasses::NONE;
    options.think_time = 10 * MS;
    options.tuning.election_timeout = 300 * MS;
    options.tuning.heartbeat_interval = 60 * MS;
    options.tuning.sessions_max = 64;
    options.tuning.value_bytes_max = 24;
    options
}

/// Makes tables so small that something is flushed and compacted all the time.
pub(crate) fn shrink_tables(tuning: &mut Tuning) {
    tuning.flush_log_bytes = 3000;
    tuning.tree.memtable_bytes = 2 << 10;
    tuning.tree.table_bytes = 1 << 10;
    tuning.tree.level0_tables = 2;
    tuning.tree.level0_tables_max = 12;
    tuning.tree.step_bytes = 512;
}

/// Runs a script to its end and demands that no promise was broken.
pub(crate) fn holds(
    options: &Options,
    script: impl AsyncFnOnce(&mut Scene) + Send + 'static,
) -> Report {
    let report = direct(options, Record::Lines, script);
    if let Some(violation) = &report.violation {
        let from = report.trace.len().saturating_sub(40);
        panic!("{violation}\n{}", report.trace.get(from..).unwrap_or_default().join("\n"));
    }
    report
}

pub(crate) fn observable(report: &Report, code: &str) -> u64 {
    report.faults.get(code).map_or(0, |(_, observable)| *observable)
}

pub(crate) fn hits(report: &Report, probe: &str) -> u64 {
    report.probes.get(probe).copied().unwrap_or(0)
}

pub(crate) fn follower_of(leader: u64) -> u64 {
    1 + leader % 3
}

fn power_loss(nodes: Vec<u64>, strict: bool) -> Action {
    Action::PowerLoss { nodes, strict, while_busy: true, down: 50 * MS }
}

#[test]
fn all_nodes_lose_power_and_every_acknowledged_write_survives() {
    for strict in [true, false] {
        let report = holds(&busy(1), async move |scene| {
            scene.leader().await;
            for _ in 0..5 {
                scene.pass(1500 * MS).await;
                scene.perform(power_loss(vec![1, 2, 3], strict)).await;
            }
        });
        assert_eq!(observable(&report, "P4"), 5, "strict {strict}");
        assert!(report.acknowledged > 100, "{} requests answered", report.acknowledged);
    }
}

#[test]
fn deposed_leader_behind_a_partition_serves_no_stale_read() {
    let report = holds(&busy(2), async |scene| {
        for _ in 0..4 {
            let leader = scene.leader().await;
            let links = [follower_of(leader), follower_of(follower_of(leader))]
                .into_iter()
                .flat_map(|other| [(leader, other), (other, leader)])
                .collect();
            scene.perform(Action::Partition { links, length: 2000 * MS }).await;
            scene.pass(4000 * MS).await;
        }
    });
    assert!(report.elections > 4, "{} elections", report.elections);
    assert!(hits(&report, "raft.checkquorum_steps_down") > 0, "{:?}", report.probes);
}

#[test]
fn node_that_crashes_in_every_recovery_comes_back_in_the_end() {
    let report = holds(&busy(3), async |scene| {
        let node = follower_of(scene.leader().await);
        scene.pass(1000 * MS).await;
        let lives = (1..20).map(|step| step * MS / 4).collect();
        scene.perform(Action::CrashLoop { node, lives }).await;
        scene.pass(1000 * MS).await;
    });
    assert!(observable(&report, "P9") > 3, "{:?}", report.faults.get("P9"));
}

#[test]
fn full_disk_of_the_leader_refuses_writes_until_it_has_space_again() {
    let report = holds(&busy(4), async |scene| {
        let node = scene.leader().await;
        let full = Action::DiskFull { node, room_bytes: 2000, length: 3000 * MS };
        scene.perform(full).await;
        scene.pass(4000 * MS).await;
        let before = scene.acknowledged();
        scene.pass(1000 * MS).await;
        assert!(scene.acknowledged() > before, "nothing is answered with space again");
    });
    assert!(observable(&report, "D8") > 0, "{:?}", report.faults.get("D8"));
}

/// Found by the swarm (seed 1389): the follower answered that its disk was full, and the client
/// took that for the answer of the cluster, whose leader had all the space in the world.
#[test]
fn full_disk_of_a_follower_sends_its_clients_to_the_leader() {
    let report = holds(&busy(4), async |scene| {
        let leader = scene.leader().await;
        let node = follower_of(leader);
        scene.perform(Action::DiskFull { node, room_bytes: 0, length: 6000 * MS }).await;
        scene.pass(2000 * MS).await;
        // Clients lose the leader from sight and ask the others.
        let (answers_only, length) = (false, 1000 * MS);
        scene.perform(Action::ClientCut { node: leader, answers_only, length }).await;
        scene.pass(3000 * MS).await;
    });
    assert!(hits(&report, "replica.log_waits_for_space") > 0, "the disk was not full");
    assert_eq!(hits(&report, "replica.write_refused_disk_full"), 0, "the leader had space");
}

#[test]
fn rot_in_the_log_of_one_node_is_refilled_by_the_others() {
    let mut found = 0;
    for seed in 5..13 {
        let report = holds(&busy(seed), async |scene| {
            let node = follower_of(scene.leader().await);
            scene.pass(1000 * MS).await;
            scene.perform(Action::Rot { node, tables: false, sector: false, down: 50 * MS }).await;
            scene.pass(2000 * MS).await;
        });
        found += hits(&report, "wal.reports_damage");
    }
    assert!(found > 0, "no flipped bit was noticed");
}

/// Returns where the copies of a node's votes lie in its only segment.
async fn votes_of(scene: &Scene, node: u64) -> Vec<u64> {
    let view = scene.world.durable_view(scene.cluster.server(node));
    let mut places = Vec::new();
    let dumped = wal::dump(&view, WAL_DIR, |line| {
        let offset = line.split_whitespace().next().and_then(|word| word.parse().ok());
        places.extend(offset.filter(|_: &u64| line.contains("  kind 1 ")));
    });
    assert_eq!(dumped.await, Ok(()), "the log of node {node} cannot be read");
    places
}

/// Has a byte of a node's only segment rot.
fn rot_in_log(scene: &mut Scene, node: u64, offset: u64) {
    let host = scene.cluster.server(node);
    let files = scene.world.files(host);
    let log = files.iter().find(|file| file.path.starts_with("wal/0"));
    let Some(log) = log else { panic!("no segment among {files:?}") };
    scene.world.rot_at(host, log, offset);
    scene.cluster.note_rot(node, true);
}

/// The accident (seed 81006669, storage): the log went on behind a vote of which one copy had
/// rotted, and much later the other one did. Such a node must not vote again, and stayed away for
/// ever; now it says the vote again as soon as it finds one copy alone.
#[test]
fn vote_outlasts_the_rot_of_one_copy_after_the_other() {
    let mut options = busy(33);
    options.tuning.wal_segment_bytes = 1 << 20;
    options.tuning.flush_log_bytes = 1 << 20;
    let report = holds(&options, async |scene| {
        let node = follower_of(scene.leader().await);
        scene.pass(1000 * MS).await;
        let votes = votes_of(scene, node).await;
        for copy in votes.iter().rev().take(2) {
            rot_in_log(scene, node, copy + 20);
            scene.perform(Action::Crash { node, while_busy: false, down: 50 * MS }).await;
            scene.pass(1000 * MS).await;
        }
    });
    // Once for the copy that is alone, and once because what is lost then might have been a vote.
    assert_eq!(hits(&report, "replica.vote_is_said_again"), 2, "{:?}", report.probes);
}

/// The accident (seed 610001161, storage): a node that had lost the record of its last vote stayed
/// away for ever. Now it asks the others what it may have promised.
#[test]
fn node_whose_last_vote_rots_in_both_copies_takes_part_once_all_others_have_answered() {
    let mut options = busy(33);
    options.tuning.wal_segment_bytes = 1 << 20;
    options.tuning.flush_log_bytes = 1 << 20;
    let report = holds(&options, async |scene| {
        let leader = scene.leader().await;
        let node = follower_of(leader);
        scene.pass(1000 * MS).await;
        let votes = votes_of(scene, node).await;
        for copy in votes.iter().rev().take(2) {
            rot_in_log(scene, node, copy + 20);
        }
        scene.perform(Action::Crash { node, while_busy: false, down: 50 * MS }).await;
        scene.perform(between(leader, node, 2000 * MS)).await;
        scene.pass(1500 * MS).await;
        let status = scene.cluster.watch().applied();
        let (own, all) = (status[&NodeId(node)], scene.cluster.watch().commit_max());
        assert!(own < all, "it has applied {own} of {all} without the leader's answer");
        scene.pass(2000 * MS).await;
    });
    assert_eq!(hits(&report, "recovery.vote_is_lost"), 1, "{:?}", report.probes);
    assert_eq!(hits(&report, "raft.unsure_of_its_promises"), 1, "{:?}", report.probes);
}

/// Lets the tables of a follower rot in the midst of a run.
fn rot_in_tables(options: &Options) -> Report {
    holds(options, async |scene| {
        let node = follower_of(scene.leader().await);
        scene.pass(2000 * MS).await;
        scene.perform(Action::Rot { node, tables: true, sector: false, down: 50 * MS }).await;
        scene.pass(2000 * MS).await;
    })
}

#[test]
fn rot_in_the_tables_of_one_node_is_replaced_by_a_snapshot() {
    let mut found = 0;
    for seed in 5..9 {
        let mut options = busy(seed);
        options.tuning.flush_log_bytes = 2000;
        found += hits(&rot_in_tables(&options), "tree.damage_is_replaced");
    }
    assert!(found > 0, "no damaged table was noticed");
}

/// The accident (seed 73000950): the logs still had everything since the first entry, so nobody
/// sent a snapshot; the node made its state again from them, was refused its next flush because of
/// the damage, stopped, and did the same after every start.
#[test]
fn rot_in_the_tables_of_one_node_is_replaced_from_the_log() {
    let mut found = 0;
    for seed in 5..9 {
        let mut options = busy(seed);
        options.tuning.flush_log_bytes = 2000;
        options.tuning.wal_segment_bytes = 1 << 20;
        options.tuning.log_entries_kept = 100_000;
        let report = rot_in_tables(&options);
        found += hits(&report, "tree.damage_is_replaced");
        assert_eq!(hits(&report, "raft.follower_needs_snapshot"), 0, "seed {seed}");
        assert!(report.stop_count <= 1, "seed {seed}: it stopped {} times", report.stop_count);
    }
    assert!(found > 0, "no damaged table was noticed");
}

#[test]
fn follower_that_was_away_for_long_gets_a_snapshot() {
    let mut options = busy(14);
    options.tuning.flush_log_bytes = 2000;
    options.tuning.log_entries_kept = 0;
    let report = holds(&options, async |scene| {
        let node = follower_of(scene.leader().await);
        scene.perform(Action::Crash { node, while_busy: false, down: 5000 * MS }).await;
        scene.pass(7000 * MS).await;
    });
    assert!(hits(&report, "raft.follower_needs_snapshot") > 0, "{:?}", report.probes);
}

#[test]
fn retried_write_takes_effect_once_over_a_failover() {
    let report = holds(&busy(15), async |scene| {
        for _ in 0..5 {
            // The answers are lost, then the node that gave them: every client tries again.
            let node = scene.leader().await;
            let cut = Action::ClientCut { node, answers_only: true, length: 800 * MS };
            scene.perform(cut).await;
            scene.pass(400 * MS).await;
            scene.perform(Action::Crash { node, while_busy: false, down: 500 * MS }).await;
            scene.pass(2000 * MS).await;
        }
    });
    assert!(hits(&report, "session.answers_a_retry") > 0, "{:?}", report.probes);
}

#[test]
fn failed_fsync_stops_the_node_and_a_restart_brings_it_back() {
    let report = holds(&busy(16), async |scene| {
        for _ in 0..3 {
            let node = scene.leader().await;
            scene.perform(Action::DiskError { node, write: false }).await;
            scene.pass(3000 * MS).await;
        }
    });
    assert!(observable(&report, "D5") > 0 && report.stop_count > 0, "{:?}", report.faults);
}

/// A flipped bit in the length of a frame once made a connection wait for bytes for ever.
#[test]
fn flipped_bits_on_the_links_of_servers_stall_no_connection() {
    let report = holds(&busy(17), async |scene| {
        scene.leader().await;
        let weather = Weather {
            loss: 0.0,
            burst: 0.0,
            latency: MS,
            bit_flip: 0.05,
            reset: 0.0,
            clients: false,
            bytes_per_second: None,
        };
        scene.perform(Action::Weather { weather, length: 5000 * MS }).await;
        scene.pass(6000 * MS).await;
        let before = scene.acknowledged();
        scene.pass(2000 * MS).await;
        assert!(scene.acknowledged() > before, "nothing is answered after the weather");
    });
    assert!(observable(&report, "N8") > 0, "{:?}", report.faults.get("N8"));
}

/// A mark in the page cache once proved rot at a restart, and was lost with the power later: what
/// was behind the rot was cut off as if it had never been acknowledged. Found by the swarm.
#[test]
fn evidence_of_rot_is_not_lost_with_the_power() {
    for seed in 18..30 {
        holds(&busy(seed), async |scene| {
            let node = follower_of(scene.leader().await);
            scene.pass(500 * MS).await;
            scene.perform(Action::Rot { node, tables: false, sector: false, down: 5 * MS }).await;
            scene.pass(100 * MS).await;
            scene.perform(power_loss(vec![1, 2, 3], true)).await;
            scene.pass(2000 * MS).await;
        });
    }
}

/// A segment that was lost is sent again seconds later, when all is well again. A lie in that time
/// was one fault too many: the follower that still heard nothing elected the node that had just
/// lost what its disk had lied about, and what that one had acknowledged was gone (found by seed
/// 885840315441 of primary-backup).
#[test]
fn lie_waits_until_what_was_lost_has_been_sent_again() {
    let report = holds(&busy(62), async |scene| {
        for _ in 0..6 {
            let leader = scene.leader().await;
            let deaf = if leader == 2 { 3 } else { 2 };
            let (from, to) = (scene.cluster.server(leader), scene.cluster.server(deaf));
            scene.world.delay(from, to, 2500 * MS);
            scene.pass(100 * MS).await;
            scene.world.delay(from, to, Duration::ZERO);
            scene.pass(500 * MS).await;
            for _ in 0..6 {
                scene.perform(Action::Lie { node: 1, length: 200 * MS }).await;
                scene.pass(700 * MS).await;
            }
        }
    });
    assert!(observable(&report, "D6") > 0, "no lie was told at all");
}

#[test]
fn leader_that_dies_is_replaced_within_seconds() {
    let report = holds(&busy(31), async |scene| {
        let first = scene.leader().await;
        scene.pass(500 * MS).await;
        scene.perform(Action::Crash { node: first, while_busy: true, down: 9000 * MS }).await;
        let before = scene.acknowledged();
        scene.pass(3000 * MS).await;
        assert!(scene.acknowledged() > before, "nobody serves 3 s after the leader's death");
    });
    assert!(report.time_to_converge < 10_000 * MS, "{:?}", report.time_to_converge);
}

/// Figure 8 of the Raft paper: leaders that nobody hears leave entries of their own at the same
/// places, and power is lost everywhere when the next one knows of a commit.
#[test]
fn entries_of_leaders_that_nobody_heard_give_way() {
    let report = holds(&busy(32), async |scene| {
        for _ in 0..4 {
            scene.leader().await;
            let (lives, down) = (vec![10 * MS; 3], 100 * MS);
            let topple = Action::Topple { lives, down, unheard: 2, at_commit: true };
            scene.perform(topple).await;
            scene.pass(8000 * MS).await;
        }
    });
    assert!(report.elections >= 12, "{} elections", report.elections);
    assert_eq!(observable(&report, "P4"), 4, "{:?}", report.faults);
    assert!(hits(&report, "raft.truncates_conflict") > 0, "{:?}", report.probes);
}

/// Machines in lockstep that start together campaign together, and vote for themselves, unless
/// chance keeps their timers apart.
#[test]
fn nodes_in_lockstep_elect_a_leader_because_their_timers_differ() {
    let run = |planted| {
        let options = Options { lockstep: true, planted, ..busy(33) };
        direct(&options, Record::Nothing, async |scene| {
            scene.pass(1500 * MS).await;
            scene.perform(power_loss(vec![1, 2, 3], true)).await;
        })
    };
    assert_eq!(run(None).violation, None, "a leader is elected");
    let broken = run(bugs::find("R50")).violation;
    assert_eq!(broken.map(|violation| violation.checker), Some("liveness"), "they never agree");
}

/// Cuts two nodes off from each other.
fn between(a: u64, b: u64, length: Duration) -> Action {
    Action::Partition { links: vec![(a, b), (b, a)], length }
}

/// The leader and one follower have what the third lacks. Then the follower gets a new disk, and
/// the leader is cut off: the other two are a majority.
async fn exchange_beside_a_stale_follower(scene: &mut Scene) {
    let leader = scene.leader().await;
    let (loser, stale) = (follower_of(leader), follower_of(follower_of(leader)));
    scene.perform(between(stale, loser, 600 * MS)).await;
    scene.perform(between(stale, leader, 5000 * MS)).await;
    scene.pass(500 * MS).await;
    scene.perform(Action::NewDisk { node: loser, down: 10 * MS }).await;
    scene.perform(between(leader, loser, 4000 * MS)).await;
    scene.pass(6000 * MS).await;
}

#[test]
fn new_disk_elects_nobody_who_lacks_what_the_lost_one_had() {
    let report = holds(&busy(12), exchange_beside_a_stale_follower);
    assert_eq!(observable(&report, "P7"), 1, "{:?}", report.faults.get("P7"));
    assert_eq!(hits(&report, "raft.lost_disk_is_filled"), 1, "{:?}", report.probes);
}

#[test]
fn new_disk_that_takes_part_at_once_is_noticed() {
    let options = Options { planted: Some("R52"), ..busy(12) };
    let report = direct(&options, Record::Nothing, exchange_beside_a_stale_follower);
    let who = report.violation.map(|violation| violation.checker);
    assert!(who.is_some_and(|who| !who.starts_with("assertion")), "{who:?}");
}

/// A follower comes back with a disk as it was two seconds ago, and its leader dies when it has
/// told it what it had, before it has filled it over a narrow network. The third lacks the same.
async fn old_disk_beside_a_stale_follower(scene: &mut Scene) {
    let leader = scene.leader().await;
    let (loser, stale) = (follower_of(leader), follower_of(follower_of(leader)));
    let (age, down) = (2000 * MS, 10 * MS);
    scene.perform(Action::OldDisk { node: loser, age, down }).await;
    scene.perform(between(stale, leader, 8000 * MS)).await;
    scene.perform(between(stale, loser, 2350 * MS)).await;
    scene.pass(1990 * MS).await;
    let weather = Weather {
        loss: 0.0,
        burst: 0.0,
        latency: MS,
        bit_flip: 0.0,
        reset: 0.0,
        clients: false,
        bytes_per_second: Some(10_000),
    };
    scene.perform(Action::Weather { weather, length: 3000 * MS }).await;
    scene.pass(310 * MS).await;
    scene.perform(Action::Crash { node: leader, while_busy: false, down: 4000 * MS }).await;
    scene.pass(6000 * MS).await;
}

#[test]
fn old_disk_whose_leader_has_told_it_elects_nobody_who_lacks_the_same() {
    let mut told = 0;
    for seed in 1..9 {
        let report = holds(&busy(seed), old_disk_beside_a_stale_follower);
        assert_eq!(observable(&report, "P7"), 1, "seed {seed}");
        told += u64::from(hits(&report, "raft.follower_is_told_what_it_lost") > 0);
    }
    assert!(told >= 6, "only {told} of 8 were told in time");
}

#[test]
fn old_disk_that_nobody_tells_of_it_is_noticed() {
    let noticed = (1..9).filter(|seed| {
        let options = Options { planted: bugs::find("R54"), ..busy(*seed) };
        let report = direct(&options, Record::Nothing, old_disk_beside_a_stale_follower);
        report.violation.is_some_and(|violation| !violation.checker.starts_with("assertion"))
    });
    assert!(noticed.count() > 0, "the other two elect a leader, and nobody minds");
}

/// The disks of both followers do nothing for so long, and the faults end at once: somebody leads,
/// all have applied the same, and nothing is acknowledged.
fn with_stalled_followers(length: Duration) -> Option<String> {
    let report = direct(&busy(3), Record::Nothing, async move |scene| {
        let leader = scene.leader().await;
        for node in [follower_of(leader), follower_of(follower_of(leader))] {
            scene.perform(Action::Stall { node, length }).await;
        }
        scene.stop_load();
        scene.pass(1000 * MS).await;
    });
    report.violation.map(|violation| violation.to_string())
}

#[test]
fn first_write_after_healing_is_acknowledged_in_time_or_somebody_says_so() {
    assert_eq!(with_stalled_followers(30_000 * MS), None);
    let late = with_stalled_followers(80_000 * MS).unwrap_or_default();
    let is_told = late.starts_with("liveness") && late.contains("acknowledged in time");
    assert!(is_told, "{late}");
}
