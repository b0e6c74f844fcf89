//! Properties of whole clusters under arbitrary schedules.
//!
//! A case is a number of nodes and a list of events: single deliveries out of order, losses,
//! duplicates, fsyncs, crashes that lose what was not durable, proposals, reads, snapshots, and
//! stretches of ordinary running under a partition. The oracle of the harness looks after every
//! step. At the end everything is healed, and the cluster must serve again.

use std::time::Duration;

use proptest::prelude::*;

use super::harness::Cluster;
use super::{Config, Input, Role};
use crate::base::NodeId;

/// One thing that happens. Nodes and messages are chosen modulo how many there are.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// Delivers one of the messages on their way.
    Deliver(usize),
    /// Delivers one and leaves it on its way, to be delivered again.
    Duplicate(usize),
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
    /// Runs for some milliseconds, with what the bits say cut in one direction.
    Run(u64, u32),
}

fn event() -> impl Strategy<Value = Event> {
    let node = 0..6u64;
    prop_oneof![
        20 => (0..64usize).prop_map(Event::Deliver),
        2 => (0..64usize).prop_map(Event::Duplicate),
        3 => (0..64usize).prop_map(Event::Lose),
        3 => (1..100u64).prop_map(Event::Pass),
        1 => node.clone().prop_map(Event::Expire),
        6 => (node.clone(), 1..4usize).prop_map(|(node, count)| Event::Persist(node, count)),
        3 => (node.clone(), 1..6usize).prop_map(|(node, count)| Event::Apply(node, count)),
        1 => (node.clone(), 0..3usize).prop_map(|(node, count)| Event::Crash(node, count)),
        2 => node.clone().prop_map(Event::Start),
        4 => (node.clone(), 1..5usize).prop_map(|(node, count)| Event::Propose(node, count)),
        3 => node.clone().prop_map(Event::Read),
        1 => node.clone().prop_map(Event::Snapshot),
        2 => (node.clone(), prop::bool::weighted(0.2))
            .prop_map(|(node, damaged)| Event::Transfer(node, damaged)),
        1 => (node.clone(), node).prop_map(|(at, of)| Event::PeerLost(at, of)),
        3 => (10..900u64, cuts()).prop_map(|(time, cuts)| Event::Run(time, cuts)),
    ]
}

/// Which connections are cut: bit `5 * from + to`.
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

/// Limits so small that every case runs into all of them.
fn narrow(config: &mut Config) {
    config.append_bytes_max = 200;
    config.append_entries_max = 3;
    config.inflight_count_max = 3;
    config.inflight_bytes_max = 500;
    config.uncommitted_bytes_max = 1500;
    config.snapshot_chunk_bytes = 24;
    config.log_entries_kept = 2;
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
        Event::Duplicate(which) => {
            if let Some(envelope) = cluster.network.get(message(cluster, which)).cloned() {
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
        Event::Start(node) => cluster.start(pick(node)),
        Event::Propose(node, count) => {
            let at = leader_or(cluster, node);
            for _ in 0..count {
                cluster.propose(at);
            }
        }
        Event::Read(node) => {
            cluster.read(leader_or(cluster, node));
        }
        Event::Snapshot(node) => cluster.snapshot(pick(node)),
        Event::Transfer(node, damaged) => cluster.transfer(pick(node), damaged),
        Event::PeerLost(at, of) => cluster.step(pick(at), Input::PeerLost { peer: pick(of) }),
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn cluster_under_any_schedule_keeps_its_promises_and_recovers(
        count in prop::sample::select(vec![1, 3, 3, 3, 5]),
        seed in any::<u64>(),
        events in prop::collection::vec(event(), 1..300),
    ) {
        heal(&mut play(count, seed, &events));
    }
}
