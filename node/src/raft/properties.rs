//! Properties of whole clusters under arbitrary schedules.
//!
//! A case is a number of nodes and a list of events: single deliveries out of order, losses,
//! duplicates, fsyncs, crashes that lose what was not durable, proposals, reads, snapshots, and
//! stretches of ordinary running under a partition. The oracle of the harness looks after every
//! step. At the end everything is healed, and the cluster must serve again.
//!
//! Here proptest draws the events; with the feature `testing`, a fuzzer [plays](play_and_heal) its
//! own.

use std::time::Duration;

#[cfg(test)]
use proptest::prelude::*;

use super::harness::Cluster;
use super::{Config, Input, Role};
use crate::base::NodeId;

/// One thing that happens. Nodes and messages are chosen modulo how many there are.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// Delivers one of the messages on their way.
    Deliver(usize),
    /// Puts a copy of one aside.
    Copy(usize),
    /// Delivers a copy that was put aside, however old.
    DeliverCopy(usize),
    /// Loses one.
    Lose(usize),
    /// Lets some milliseconds pass, at most one tick of every node.
    Pass(u64),
    /// Lets a node see its deadline at once.
    Expire(u64),
    /// Makes some of a node's disk requests durable.
    Persist(u64, usize),
    /// Applies some of a node's committed entries.
    Apply(u64, usize),
    /// Stops a node; some of its disk requests became durable all the same.
    Crash(u64, usize),
    /// Damages the last entries on the disk of the one node whose disk is bad.
    Damage(u64),
    /// Exchanges the disk of that node for an empty one.
    Exchange,
    /// Has that disk forget terms, votes and standing.
    LoseVote,
    /// Starts a node again.
    Start(u64),
    /// Proposes commands at the leader (0) or a node.
    Propose(u64, usize),
    /// Asks the leader (0) or a node for a read.
    Read(u64),
    /// Takes a snapshot.
    Snapshot(u64),
    /// Moves one piece of a snapshot; true: a complete one is damaged.
    Transfer(u64, bool),
    /// Tells a node that its connection to another broke.
    PeerLost(u64, u64),
    /// Delivers some messages in order, with every disk and state machine keeping up.
    Flow(usize),
    /// Runs for some milliseconds, with what the bits say cut in one direction.
    Run(u64, u32),
}

#[cfg(test)]
fn event() -> impl Strategy<Value = Event> {
    let node = 0..6u64;
    prop_oneof![
        20 => (0..64usize).prop_map(Event::Deliver),
        3 => (0..64usize).prop_map(Event::Copy),
        3 => (0..64usize).prop_map(Event::DeliverCopy),
        3 => (0..64usize).prop_map(Event::Lose),
        3 => (1..100u64).prop_map(Event::Pass),
        3 => node.clone().prop_map(Event::Expire),
        6 => (node.clone(), 1..4usize).prop_map(|(node, count)| Event::Persist(node, count)),
        3 => (node.clone(), 1..6usize).prop_map(|(node, count)| Event::Apply(node, count)),
        1 => (node.clone(), 0..3usize).prop_map(|(node, count)| Event::Crash(node, count)),
        1 => (1..6u64).prop_map(Event::Damage),
        1 => Just(Event::Exchange),
        1 => Just(Event::LoseVote),
        3 => node.clone().prop_map(Event::Start),
        4 => (node.clone(), 1..5usize).prop_map(|(node, count)| Event::Propose(node, count)),
        3 => node.clone().prop_map(Event::Read),
        3 => node.clone().prop_map(Event::Snapshot),
        3 => (node.clone(), prop::bool::weighted(0.2))
            .prop_map(|(node, damaged)| Event::Transfer(node, damaged)),
        1 => (node.clone(), node).prop_map(|(at, of)| Event::PeerLost(at, of)),
        6 => (1..40usize).prop_map(Event::Flow),
        3 => (10..900u64, cuts()).prop_map(|(time, cuts)| Event::Run(time, cuts)),
    ]
}

/// Which connections are cut: bit `5 * from + to`.
#[cfg(test)]
fn cuts() -> impl Strategy<Value = u32> {
    prop_oneof![
        2 => Just(0),
        3 => (0..5u32).prop_map(|node| (0..5).fold(0, |bits, other| {
            bits | bit(node, other) | bit(other, node)
        })),
        1 => any::<u32>(),
        1 => any::<u32>().prop_flat_map(|bits| any::<u32>().prop_map(move |more| bits & more)),
    ]
}

fn bit(from: u32, to: u32) -> u32 {
    1 << (5 * from + to)
}

fn is_cut(cuts: u32, from: NodeId, to: NodeId) -> bool {
    let number = |id: NodeId| u32::try_from(id.0 - 1).unwrap_or(0);
    cuts & bit(number(from), number(to)) != 0
}

/// Limits so small that most cases run into them; some follow the seed.
fn narrow(config: &mut Config, seed: u64) {
    config.append_bytes_max = 200;
    config.append_entries_max = if seed.is_multiple_of(2) { 1 } else { 3 };
    config.inflight_count_max = 3;
    config.inflight_bytes_max = 500;
    config.uncommitted_bytes_max = 1500;
    config.snapshot_chunk_bytes = if seed.is_multiple_of(3) { 4096 } else { 24 };
    config.log_entries_kept = seed % 4;
}

/// Plays the events on a fresh cluster of `count` nodes, and heals it.
///
/// # Panics
/// If the cluster breaks a promise.
pub fn play_and_heal(count: u64, seed: u64, events: &[Event]) {
    heal(&mut play(count, seed, events));
}

/// Plays the events on a fresh cluster.
fn play(count: u64, seed: u64, events: &[Event]) -> Cluster {
    let mut cluster = Cluster::new(count, seed, narrow);
    cluster.run(Duration::from_millis(seed % 1_000), |_, _| false);
    for &event in events {
        happen(&mut cluster, event);
    }
    cluster
}

fn happen(cluster: &mut Cluster, event: Event) {
    let ids = cluster.ids();
    let count = u64::try_from(ids.len()).unwrap_or(1);
    let pick = |node: u64| NodeId(node % count + 1);
    let leader_or = |cluster: &Cluster, node: u64| match node {
        0 => cluster.leader().unwrap_or(NodeId(1)),
        other => pick(other),
    };
    let message = |cluster: &Cluster, which: usize| which % cluster.network.len().max(1);
    match event {
        Event::Deliver(which) => {
            if let Some(envelope) = cluster.network.remove(message(cluster, which)) {
                cluster.deliver(envelope);
            }
        }
        Event::Copy(which) => {
            cluster.copies.extend(cluster.network.get(message(cluster, which)).cloned());
        }
        Event::DeliverCopy(which) => {
            let which = which % cluster.copies.len().max(1);
            if let Some(envelope) = cluster.copies.get(which).cloned() {
                cluster.deliver(envelope);
            }
        }
        Event::Lose(which) => {
            cluster.network.remove(message(cluster, which));
        }
        Event::Pass(millis) => {
            cluster.now = cluster.now + Duration::from_millis(millis);
            for id in ids {
                cluster.tick_if_due(id);
            }
        }
        Event::Expire(node) => {
            if let Some(raft) = &cluster.node(pick(node)).raft {
                cluster.now = cluster.now.max(crate::base::Core::deadline(raft));
                cluster.tick(pick(node));
            }
        }
        Event::Persist(node, count) => cluster.persist(pick(node), count),
        Event::Apply(node, count) => cluster.apply(pick(node), count),
        Event::Crash(node, written) => cluster.crash(pick(node), written),
        // A single voter has nobody to get its entries back from.
        Event::Damage(_) | Event::Exchange | Event::LoseVote if count == 1 => {}
        Event::Damage(entries) => cluster.damage(NodeId(2), entries),
        Event::Exchange => cluster.exchange(NodeId(2)),
        Event::LoseVote => cluster.lose_vote(NodeId(2)),
        Event::Start(node) => cluster.start(pick(node)),
        Event::Propose(node, count) => cluster.propose_many(leader_or(cluster, node), count),
        Event::Read(node) => cluster.read(leader_or(cluster, node)),
        Event::Snapshot(node) => cluster.snapshot(pick(node)),
        Event::Transfer(node, damaged) => cluster.transfer(pick(node), damaged),
        Event::PeerLost(at, of) => cluster.step(pick(at), Input::PeerLost { peer: pick(of) }),
        Event::Flow(count) => cluster.flow(count),
        Event::Run(millis, cuts) => {
            cluster.run(Duration::from_millis(millis), |from, to| is_cut(cuts, from, to));
        }
    }
}

/// Heals everything: then the cluster elects, catches up, answers everybody, and serves.
fn heal(cluster: &mut Cluster) {
    for id in cluster.ids() {
        cluster.start(id);
    }
    cluster.run(Duration::from_secs(6), |_, _| false);
    let Some(leader) = cluster.leader() else { panic!("no leader after healing") };
    assert_eq!(cluster.oracle.waiting_count(), 0, "everybody is answered after healing");
    let (done, served) = (cluster.oracle.done, cluster.oracle.served);
    cluster.propose(leader);
    cluster.settle(|_, _| false);
    cluster.read(leader);
    cluster.run(Duration::from_millis(500), |_, _| false);
    assert_eq!(cluster.oracle.done, done + 1, "the leader takes a proposal");
    assert_eq!(cluster.oracle.served, served + 1, "the leader serves a read");
    let machine = &cluster.node(leader).machine;
    for id in cluster.ids() {
        let node = cluster.node(id);
        assert_eq!(&node.machine, machine, "{id} has the state of {leader}");
        assert_eq!(node.raft().role() == Role::Leader, id == leader, "{id} leads beside {leader}");
        assert!(!node.raft().is_recovering(), "{id} still recovers");
    }
}

#[cfg(test)]
proptest! {
    #[test]
    fn cluster_under_any_schedule_keeps_its_promises_and_recovers(
        count in prop::sample::select(vec![1, 3, 3, 3, 5]),
        seed in any::<u64>(),
        events in prop::collection::vec(event(), 1..300),
    ) {
        play_and_heal(count, seed, &events);
    }
}

/// Proof that the property above can fail, and that it gets to the rare paths.
#[cfg(all(test, feature = "testing"))]
mod planted {
    use std::cell::Cell;
    use std::collections::BTreeMap;

    use proptest::test_runner::{Config as RunnerConfig, RngAlgorithm, TestRng, TestRunner};

    use super::*;
    use crate::base::{planted, probe};

    /// Runs up to `cases` cases with the planted bug `code`; returns how many it took to find a
    /// broken promise.
    fn cases_until_found(code: Option<&'static str>, cases: u32) -> Option<u32> {
        let config = RunnerConfig {
            cases,
            failure_persistence: None,
            max_shrink_iters: 0,
            ..RunnerConfig::default()
        };
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let played = Cell::new(0);
        let case = (
            prop::sample::select(vec![3, 3, 3, 5]),
            any::<u64>(),
            prop::collection::vec(event(), 1..300),
        );
        planted::turn_on(code);
        let result = runner.run(&case, |(count, seed, events)| {
            played.set(played.get() + 1);
            play_and_heal(count, seed, &events);
            Ok(())
        });
        planted::turn_on(None);
        result.err().map(|_| played.get())
    }

    /// R2, R7 and R26 need more of a coincidence than this many cases; `tests.rs` stages them.
    #[test]
    fn planted_bugs_break_a_promise() {
        const CASES_MAX: u32 = 1_500;
        let codes = [
            "R3", "R4", "R8", "R9", "R20", "R22", "R32", "R33", "R35", "R44", "R46", "R49", "R50",
            "W10",
        ];
        let found: BTreeMap<&str, Option<u32>> =
            codes.iter().map(|&code| (code, cases_until_found(Some(code), CASES_MAX))).collect();
        let missed: Vec<_> = found.iter().filter(|(_, found)| found.is_none()).collect();
        assert!(missed.is_empty(), "missed {missed:?} of {found:?}");
    }

    #[test]
    fn schedules_reach_the_rare_paths() {
        const CASES: u32 = 600;
        probe::take();
        assert_eq!(cases_until_found(None, CASES), None, "the code as it is has no bug");
        let hits = probe::take();
        let wanted = [
            "raft.checkquorum_steps_down",
            "raft.commit_waits_for_own_term",
            "raft.follower_needs_snapshot",
            "raft.prevote_refused",
            "raft.read_waits_for_own_term",
            "raft.snapshot_piece_repeated",
            "raft.snapshot_replaces_log",
            "raft.stale_leader_told",
            "raft.stale_rejection_ignored",
            "raft.truncates_conflict",
            "raft.unsure_of_its_promises",
            "raft.vote_refused_for_live_leader",
            "raft.window_full",
        ];
        let missed: Vec<_> = wanted.iter().filter(|&name| !hits.contains_key(name)).collect();
        assert!(missed.is_empty(), "missed {missed:?}, hit {hits:#?}");
    }
}
