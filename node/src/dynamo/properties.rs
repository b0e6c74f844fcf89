//! Properties of whole clusters under arbitrary schedules.
//!
//! A case is a shape of a cluster and a list of events: single deliveries out of order, losses,
//! duplicates, fsyncs, full disks, clocks that jump, crashes that lose what was not durable,
//! writes at any level, and stretches of ordinary running under a partition. The oracle of the
//! harness looks after every step. At the end everything is healed: then everybody is answered,
//! nothing is left under way, and the cluster takes writes again.
//!
//! Here proptest draws the events; with the feature `testing`, a fuzzer [plays](play_and_heal) its
//! own.

use std::time::Duration;

#[cfg(test)]
use proptest::prelude::*;

use super::harness::{Cluster, Shape, payload};
use super::{Config, Input, Level, Reply};
use crate::base::{NodeId, Payload, Written};

/// One thing that happens. Nodes and messages are chosen modulo how many there are.
#[derive(Debug, Clone)]
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
    /// Makes some of a node's disk requests durable.
    Persist(u64, usize),
    /// Stops a node; some of its disk requests became durable all the same.
    Crash(u64, usize),
    /// Starts a node again.
    Start(u64),
    /// Sets a node's wall clock wrong.
    Skew(u64, i64),
    /// Leaves no space on a node's disk.
    Fill(u64),
    /// Makes space on a node's disk.
    Free(u64),
    /// Has a client write at a node.
    Write(u64, Level, Write),
    /// Tells a node that its connection to another broke.
    PeerLost(u64, u64),
    /// Delivers some messages in order, with every disk keeping up.
    Flow(usize),
    /// Runs for some milliseconds, with what the bits say cut in one direction.
    Run(u64, u32),
}

/// What a client writes: of its session, under some of a few keys and columns.
#[derive(Debug, Clone)]
pub struct Write {
    /// Whose write it is.
    pub session: u64,
    /// What it does.
    pub kind: Kind,
    /// The keys, from 0 on.
    pub keys: Vec<u8>,
    /// The column: 0 is the empty one.
    pub column: u8,
}

/// What a client does at every place of a write.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Sets a value that is never used again.
    Put,
    /// Deletes a cell.
    Delete,
    /// Deletes a row.
    DeleteRow,
}

#[cfg(test)]
fn event() -> impl Strategy<Value = Event> {
    let node = 0..5u64;
    prop_oneof![
        20 => (0..64usize).prop_map(Event::Deliver),
        3 => (0..64usize).prop_map(Event::Copy),
        3 => (0..64usize).prop_map(Event::DeliverCopy),
        4 => (0..64usize).prop_map(Event::Lose),
        3 => (1..100u64).prop_map(Event::Pass),
        6 => (node.clone(), 1..4usize).prop_map(|(node, count)| Event::Persist(node, count)),
        2 => (node.clone(), 0..3usize).prop_map(|(node, count)| Event::Crash(node, count)),
        3 => node.clone().prop_map(Event::Start),
        1 => (node.clone(), -3000..3000i64).prop_map(|(node, ms)| Event::Skew(node, ms)),
        1 => node.clone().prop_map(Event::Fill),
        2 => node.clone().prop_map(Event::Free),
        8 => (node.clone(), level(), write())
            .prop_map(|(node, level, write)| Event::Write(node, level, write)),
        1 => (node.clone(), node).prop_map(|(at, of)| Event::PeerLost(at, of)),
        6 => (1..40usize).prop_map(Event::Flow),
        4 => (10..600u64, cuts()).prop_map(|(time, cuts)| Event::Run(time, cuts)),
    ]
}

#[cfg(test)]
fn level() -> impl Strategy<Value = Level> {
    prop::sample::select(vec![Level::One, Level::Two, Level::Quorum, Level::Quorum, Level::All])
}

#[cfg(test)]
fn write() -> impl Strategy<Value = Write> {
    let kind =
        prop_oneof![4 => Just(Kind::Put), 2 => Just(Kind::Delete), 1 => Just(Kind::DeleteRow)];
    let keys = prop_oneof![
        2 => prop::collection::vec(0..4u8, 1..2),
        1 => prop::collection::vec(0..12u8, 2..5),
    ];
    (0..3u64, kind, keys, 0..2u8).prop_map(|(session, kind, keys, column)| Write {
        session,
        kind,
        keys,
        column,
    })
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

/// Limits so small that many cases run into them, and times so short that all fit a run.
fn narrow(config: &mut Config, seed: u64) {
    config.repair.hints = !seed.is_multiple_of(5);
    config.repair.reads = false;
    config.clock_ahead_max = Duration::from_secs(20);
    config.ceiling_step = Duration::from_millis(if seed.is_multiple_of(2) { 200 } else { 2000 });
    config.persist_bytes_max = if seed.is_multiple_of(3) { 60 } else { 4000 };
    config.persists_max = if seed.is_multiple_of(2) { 1 } else { 3 };
    config.waiting_count_max = 4;
    config.write_timeout = Duration::from_millis(300);
    config.hint_after = Duration::from_millis(100);
    config.pending_writes_max = 5;
    config.hint_window_bytes = if seed.is_multiple_of(2) { 40 } else { 400 };
    config.hint_retry = Duration::from_millis(100);
    config.hint_count_max = if seed.is_multiple_of(7) { 3 } else { 1000 };
    config.batch_takeover = Duration::from_millis(500);
    config.batch_store_timeout = Duration::from_millis(100);
    config.batch_retry = Duration::from_millis(150);
    config.batch_replays_max = 2;
    config.batch_count_max = 3;
    config.heartbeat_interval = Duration::from_millis(50);
    config.detector_deviation_min = Duration::from_millis(20);
    config.detector_doubt = Duration::from_millis(80);
    config.sync_interval = Duration::from_hours(1);
    config.floor_interval = Duration::from_hours(1);
}

fn changes(cluster: &Cluster, write: &Write, number: usize) -> Vec<(Payload, Written)> {
    let mut keys = write.keys.clone();
    keys.sort_unstable();
    keys.dedup();
    let change = |key: u8| {
        let key = [b'a' + key];
        let column = if matches!(write.kind, Kind::DeleteRow) { 0 } else { write.column };
        let place = cluster.placement.cell(&key, &vec![b'c'; usize::from(column)]);
        let written = match write.kind {
            Kind::Put => Written::Value(payload(&format!("{number}/{}", char::from(key[0])))),
            Kind::Delete => Written::Deleted,
            Kind::DeleteRow => Written::RowDeleted,
        };
        (Payload::new(place).unwrap_or_default(), written)
    };
    keys.into_iter().map(change).collect()
}

/// Plays the events on a fresh cluster of so many nodes and replicas, and heals it.
///
/// # Panics
/// If the cluster breaks a promise.
pub fn play_and_heal(nodes: u64, factor: usize, seed: u64, events: &[Event]) {
    heal(&mut play(Shape { nodes, factor, partitions: 8 }, seed, events));
}

fn play(shape: Shape, seed: u64, events: &[Event]) -> Cluster {
    let mut cluster = Cluster::new(shape, seed, narrow);
    for (number, event) in events.iter().enumerate() {
        happen(&mut cluster, event, number);
    }
    cluster
}

fn happen(cluster: &mut Cluster, event: &Event, number: usize) {
    let ids = cluster.ids();
    let count = u64::try_from(ids.len()).unwrap_or(1);
    let pick = |node: u64| NodeId(node % count + 1);
    let message = |cluster: &Cluster, which: usize| which % cluster.network.len().max(1);
    match *event {
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
        Event::Persist(node, count) => cluster.persist(pick(node), count),
        Event::Crash(node, written) => cluster.crash(pick(node), written),
        Event::Start(node) => cluster.start(pick(node)),
        Event::Skew(node, ms) => cluster.node_mut(pick(node)).skew_ms = ms,
        Event::Fill(node) => cluster.fill(pick(node), true),
        Event::Free(node) => cluster.fill(pick(node), false),
        Event::Write(node, level, ref write) => {
            let changes = changes(cluster, write, number);
            cluster.write(pick(node), write.session, level, changes);
        }
        Event::PeerLost(at, of) if pick(at) == pick(of) => {}
        Event::PeerLost(at, of) => cluster.step(pick(at), Input::PeerLost { peer: pick(of) }),
        Event::Flow(count) => cluster.flow(count),
        Event::Run(millis, cuts) => {
            cluster.run(Duration::from_millis(millis), |from, to| is_cut(cuts, from, to));
        }
    }
}

/// Heals everything: then nothing is left under way, and every node takes writes.
fn heal(cluster: &mut Cluster) {
    for id in cluster.ids() {
        cluster.fill(id, false);
        cluster.start(id);
    }
    cluster.run(Duration::from_millis(2500), |_, _| false);
    assert_eq!(cluster.oracle.waiting(), 0, "everybody is answered after healing");
    for id in cluster.ids() {
        let status = cluster.core(id).status();
        assert_eq!(status.pending_writes, 0, "{id} has writes under way: {status:?}");
        assert!(status.hints.is_empty(), "{id} still has hints: {status:?}");
        assert_eq!(status.batches, 0, "{id} still has batches: {status:?}");
        assert_eq!(cluster.node(id).live, cluster.node(id).disk.store, "{id} has it on disk");
    }
    cluster.oracle.check_healed(&cluster.nodes, &cluster.placement);
    for id in cluster.ids() {
        let token = cluster.put(id, Level::Quorum, &["healed"]);
        cluster.run(Duration::from_millis(50), |_, _| false);
        let reply = cluster.oracle.reply(token);
        assert!(matches!(reply, Some(Reply::Written { .. })), "{id} answers {reply:?}");
    }
}

#[cfg(test)]
fn shape() -> impl Strategy<Value = Shape> {
    let shapes = [(1, 1), (3, 3), (3, 3), (3, 2), (4, 2), (5, 3), (4, 3)];
    prop::sample::select(shapes.to_vec()).prop_map(|(nodes, factor)| Shape {
        nodes,
        factor,
        partitions: 8,
    })
}

#[cfg(test)]
proptest! {
    #[test]
    fn cluster_under_any_schedule_keeps_its_promises_and_recovers(
        shape in shape(),
        seed in any::<u64>(),
        events in prop::collection::vec(event(), 1..200),
    ) {
        heal(&mut play(shape, seed, &events));
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
        let case = (shape(), any::<u64>(), prop::collection::vec(event(), 1..200));
        planted::turn_on(code);
        let result = runner.run(&case, |(shape, seed, events)| {
            played.set(played.get() + 1);
            heal(&mut play(shape, seed, &events));
            Ok(())
        });
        planted::turn_on(None);
        result.err().map(|_| played.get())
    }

    #[test]
    fn planted_bugs_break_a_promise() {
        const CASES_MAX: u32 = 400;
        let codes = ["D1", "D2", "D7", "D8", "D9", "D13", "D16", "D17", "D30", "D34", "D36"];
        let found: BTreeMap<&str, Option<u32>> =
            codes.iter().map(|&code| (code, cases_until_found(Some(code), CASES_MAX))).collect();
        let missed: Vec<_> = found.iter().filter(|(_, found)| found.is_none()).collect();
        assert!(missed.is_empty(), "missed {missed:?} of {found:?}");
    }

    #[test]
    fn schedules_reach_the_rare_paths() {
        const CASES: u32 = 200;
        probe::take();
        assert_eq!(cases_until_found(None, CASES), None, "the code as it is has no bug");
        let hits = probe::take();
        let wanted = [
            "dynamo.acknowledgement_nobody_waits_for",
            "dynamo.batch_asks_another_holder",
            "dynamo.batch_given_up_is_replayed",
            "dynamo.batch_replayed",
            "dynamo.batch_taken_over",
            "dynamo.disk_full",
            "dynamo.heartbeat_of_an_earlier_start",
            "dynamo.hint_dropped_for_room",
            "dynamo.hint_meets_full_disk",
            "dynamo.hint_sent_again",
            "dynamo.replica_disk_full",
            "dynamo.request_waits_for_the_clock",
            "dynamo.too_many_wait_for_the_clock",
            "dynamo.waited_too_long_for_the_clock",
            "dynamo.write_given_up",
            "dynamo.write_overloaded",
            "dynamo.write_times_out",
            "dynamo.write_unavailable",
        ];
        let missed: Vec<_> = wanted.iter().filter(|&name| !hits.contains_key(name)).collect();
        assert!(missed.is_empty(), "missed {missed:?}, hit {hits:#?}");
    }
}
