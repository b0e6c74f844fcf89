//! Properties of anti-entropy, reads and floors under arbitrary schedules.
//!
//! Here proptest draws the events; with the feature `testing`, a fuzzer [plays](play_and_heal) its
//! own.

#[cfg(test)]
use proptest::prelude::*;

use super::super::Level;
use super::super::notes::{self, Kind};
use super::super::placement::partition_of_place;
use super::{
    Cluster, Config, Duration, N1, N2, N3, NodeId, SECOND, Shape, are_equal, raising, visible,
};
#[cfg(test)]
use super::{OLD, Stamp, entry, syncing, tombstone};

const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// One thing that happens.
#[derive(Debug, Clone)]
pub enum Event {
    /// Puts a value at a node, under one of the keys, at quorum or one.
    Put(u64, usize, bool),
    /// Deletes likewise.
    Delete(u64, usize, bool),
    /// Reads one of the keys at a node.
    Read(u64, usize),
    /// Reads all keys at a node, page by page.
    Scan(u64),
    /// Delivers one of the messages on their way.
    Deliver(usize),
    /// Loses one.
    Lose(usize),
    /// Delivers one that stays on its way.
    Repeat(usize),
    /// Puts a copy of a message aside.
    Copy(usize),
    /// Delivers a copy that was put aside, however old.
    DeliverCopy(usize),
    /// Makes a node's oldest disk request durable.
    Persist(u64),
    /// Stops a node.
    Crash(u64),
    /// Starts a node again.
    Start(u64),
    /// The disk of a node is emptied.
    Wipe,
    /// Forgets what may be forgotten.
    Purge,
    /// Runs with one node cut off (0: none).
    Run(u64, u64),
}

#[cfg(test)]
fn event() -> impl Strategy<Value = Event> {
    let node = 1..4_u64;
    let key = 0..KEYS.len();
    prop_oneof![
        6 => (node.clone(), key.clone(), any::<bool>()).prop_map(|(n, k, q)| Event::Put(n, k, q)),
        4 => (node.clone(), key.clone(), any::<bool>())
            .prop_map(|(n, k, q)| Event::Delete(n, k, q)),
        6 => (node.clone(), key).prop_map(|(n, k)| Event::Read(n, k)),
        2 => node.clone().prop_map(Event::Scan),
        20 => (0..64_usize).prop_map(Event::Deliver),
        4 => (0..64_usize).prop_map(Event::Lose),
        2 => (0..64_usize).prop_map(Event::Repeat),
        3 => (0..64_usize).prop_map(Event::Copy),
        3 => (0..64_usize).prop_map(Event::DeliverCopy),
        6 => node.clone().prop_map(Event::Persist),
        1 => node.clone().prop_map(Event::Crash),
        2 => node.prop_map(Event::Start),
        2 => Just(Event::Purge),
        6 => (10..3_000_u64, 0..4_u64).prop_map(|(ms, cut)| Event::Run(ms, cut)),
    ]
}

fn happen(cluster: &mut Cluster, event: &Event) {
    let level = |is_quorum: bool| if is_quorum { Level::Quorum } else { Level::One };
    let message = |cluster: &Cluster, which: usize| which % cluster.network.len().max(1);
    match *event {
        Event::Put(id, key, is_quorum) => {
            cluster.put(NodeId(id), level(is_quorum), &[KEYS[key]]);
        }
        Event::Delete(id, key, is_quorum) => {
            cluster.delete(NodeId(id), level(is_quorum), &[KEYS[key]]);
        }
        Event::Read(id, key) => {
            cluster.read(NodeId(id), Level::Quorum, &[KEYS[key]]);
        }
        Event::Scan(id) => {
            cluster.scan(NodeId(id), Level::Quorum, 2);
        }
        Event::Deliver(which) => {
            if let Some(envelope) = cluster.network.remove(message(cluster, which)) {
                cluster.deliver(envelope);
            }
        }
        Event::Lose(which) => {
            cluster.network.remove(message(cluster, which));
        }
        Event::Repeat(which) => {
            if let Some(envelope) = cluster.network.get(message(cluster, which)).cloned() {
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
        Event::Persist(id) => cluster.persist(NodeId(id), 1),
        Event::Crash(id) => cluster.crash(NodeId(id), 0),
        Event::Start(id) => cluster.start(NodeId(id)),
        Event::Wipe => {
            let is_well = |id| {
                let core = cluster.node(id).core.as_ref();
                core.is_some_and(|core| core.status().is_whole)
            };
            if [N1, N2, N3].into_iter().all(is_well) {
                cluster.wipe(N2);
                cluster.start(N2);
            }
        }
        Event::Purge => {
            cluster.purge();
        }
        Event::Run(ms, cut) => {
            let is_cut = |from: NodeId, to: NodeId| from.0 == cut || to.0 == cut;
            cluster.run(Duration::from_millis(ms), is_cut);
        }
    }
    check_floors(cluster);
}

/// No floor is above a write that somebody has still to deliver.
fn check_floors(cluster: &Cluster) {
    for id in cluster.ids() {
        let notes = &cluster.node(id).disk.store.notes;
        let undelivered = notes.iter().filter_map(|(place, content)| {
            let kind = Kind::of(place.as_bytes())?;
            let is_write = matches!(kind, Kind::Hint { .. } | Kind::Batch(_));
            is_write.then(|| notes::entries(content.as_bytes()))?
        });
        for entry in undelivered.flatten() {
            let partition = partition_of_place(entry.place.as_bytes()).unwrap_or_default();
            for other in cluster.ids() {
                let floor = cluster.node(other).disk.store.floor(partition);
                assert!(floor < entry.stamp, "{other} has floor {floor}, {id} keeps {entry:?}");
            }
        }
    }
}

fn heal(cluster: &mut Cluster) {
    for id in cluster.ids() {
        cluster.start(id);
    }
    cluster.run(SECOND * 20, |_, _| false);
    assert_eq!(cluster.readers.waiting(), 0, "everybody is answered");
    assert!(are_equal(cluster), "{:?}", [N1, N2, N3].map(|id| visible(cluster, id)));
    for id in cluster.ids() {
        assert!(cluster.core(id).status().is_whole, "{id} is whole");
        let token = cluster.read(id, Level::All, &KEYS);
        cluster.settle(|_, _| false);
        assert!(cluster.readers.replies.contains_key(&token), "{id} serves");
    }
}

fn with_reads(config: &mut Config, seed: u64) {
    raising(config, seed);
    config.repair.reads = true;
    config.repair.hints = seed.is_multiple_of(2);
}

/// Plays the events on a fresh cluster of three nodes, and heals it: everybody is answered, the
/// replicas are equal, and every node serves.
///
/// # Panics
/// If the cluster breaks a promise.
pub fn play_and_heal(seed: u64, events: &[Event]) {
    let mut cluster = Cluster::new(Shape { nodes: 3, factor: 3, partitions: 3 }, seed, with_reads);
    for event in events {
        happen(&mut cluster, event);
    }
    heal(&mut cluster);
}

#[cfg(test)]
proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn replicas_converge_by_anti_entropy_alone(
        writes in prop::collection::vec((0..3_u64, 0..KEYS.len(), any::<bool>(), 1..20_u64), 0..40),
    ) {
        let mut cluster = Cluster::new(Shape { nodes: 3, factor: 3, partitions: 4 }, 1, syncing);
        for (node, key, is_delete, ms) in writes {
            let mut written = if is_delete {
                tombstone(&cluster, KEYS[key], ms)
            } else {
                entry(&cluster, KEYS[key], &format!("{node} {key} {ms}"), ms)
            };
            // One write has one stamp.
            let number = u64::try_from(key).unwrap() * 8 + node * 2 + u64::from(is_delete);
            written.stamp = Stamp::new(ms, number, OLD);
            cluster.crash(NodeId(node + 1), 0);
            cluster.plant(NodeId(node + 1), written);
            cluster.start(NodeId(node + 1));
        }
        cluster.run(SECOND * 4, |_, _| false);
        prop_assert!(are_equal(&cluster));
    }

    #[test]
    fn reads_keep_their_promises_and_replicas_converge(
        seed in 0..8_u64,
        events in prop::collection::vec(event(), 1..120),
    ) {
        play_and_heal(seed, &events);
    }

    #[test]
    fn old_disk_resurrects_nothing(
        steps in prop::collection::vec((0..6_u8, 0..KEYS.len(), 1..4_u64), 1..40),
    ) {
        let mut cluster =
            Cluster::new(Shape { nodes: 3, factor: 3, partitions: 3 }, 2, raising);
        let mut old = cluster.node(N3).disk.clone();
        for (kind, key, node) in steps {
            match kind {
                0 | 1 => _ = cluster.put(NodeId(node), Level::All, &[KEYS[key]]),
                2 => _ = cluster.delete(NodeId(node), Level::All, &[KEYS[key]]),
                3 => old = cluster.node(N3).disk.clone(),
                4 => cluster.restore(N3, old.clone()),
                _ => cluster.run(SECOND * u32::try_from(key).unwrap(), |_, _| false),
            }
            cluster.settle(|_, _| false);
            cluster.purge();
            cluster.read(NodeId(node), Level::Quorum, &KEYS);
        }
        heal(&mut cluster);
    }

    #[test]
    fn nothing_is_lost_by_one_lost_disk(
        events in prop::collection::vec(prop_oneof![8 => event(), 1 => Just(Event::Wipe)], 1..80),
    ) {
        play_and_heal(2, &events);
    }
}
