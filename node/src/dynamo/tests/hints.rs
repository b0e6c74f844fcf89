//! Hints.

use std::collections::BTreeSet;

use super::*;
use crate::base::Stamp;
use crate::dynamo::{Input, Level, WriteOutcome};

/// Returns a cluster in which n1 has `count` hints for n3, which is down.
fn hinted(configure: fn(&mut Config, u64), count: usize) -> Cluster {
    let mut cluster = Cluster::new(THREE, 1, configure);
    cluster.crash(N3, 0);
    cluster.run(millis(1500), nothing_cut);
    for number in 0..count {
        cluster.put(N1, Level::Quorum, &[&format!("k{number}")]);
    }
    cluster.settle(nothing_cut);
    cluster
}

fn hints(cluster: &Cluster) -> usize {
    cluster.core(N1).status().hints.get(&N3).map_or(0, |(count, _)| *count)
}

fn notes(cluster: &Cluster) -> usize {
    let prefix = crate::dynamo::notes::hints_of(N3);
    let notes = cluster.node(N1).disk.store.notes.keys();
    notes.filter(|place| place.as_bytes().starts_with(prefix.as_bytes())).count()
}

#[test]
fn hints_for_a_node_that_is_back_are_delivered_with_their_stamps_and_erased() {
    let mut cluster = hinted(plain, 5);
    assert_eq!((hints(&cluster), notes(&cluster)), (5, 5));
    cluster.start(N3);
    cluster.settle(nothing_cut);
    assert_eq!((hints(&cluster), notes(&cluster)), (0, 0));
    assert_eq!(cluster.node(N3).disk.store.entries, cluster.node(N2).disk.store.entries);
}

#[test]
fn hint_without_an_answer_stays_and_is_sent_again() {
    let mut cluster = hinted(plain, 1);
    cluster.start(N3);
    cluster.run(millis(500), |from, to| (from, to) == (N1, N3));
    assert_eq!((hints(&cluster), notes(&cluster)), (1, 1));
    cluster.run(millis(1200), nothing_cut);
    assert_eq!((hints(&cluster), notes(&cluster)), (0, 0));
}

#[test]
fn hints_in_flight_keep_to_the_window() {
    fn narrow(config: &mut Config, seed: u64) {
        plain(config, seed);
        config.hint_window_bytes = 50;
    }
    let mut cluster = hinted(narrow, 20);
    cluster.start(N3);
    let mut most = 0;
    while hints(&cluster) > 0 {
        let hint = |message: &Message| matches!(message, Message::Write { .. });
        most = most.max(cluster.network.iter().filter(|e| hint(&e.message)).count());
        cluster.flow(1);
    }
    assert!((2..=3).contains(&most), "{most} hints of some 21 bytes were in flight");
}

#[test]
fn hints_over_their_number_are_dropped_oldest_first_and_counted() {
    fn few(config: &mut Config, seed: u64) {
        plain(config, seed);
        config.hint_count_max = 3;
    }
    let mut cluster = hinted(few, 5);
    let status = cluster.core(N1).status();
    assert_eq!((hints(&cluster), notes(&cluster), status.hints_dropped), (3, 3, 2));
    cluster.start(N3);
    cluster.settle(nothing_cut);
    let stamps = |id: NodeId| -> BTreeSet<Stamp> {
        cluster.node(id).disk.store.entries.values().map(|entry| entry.stamp).collect()
    };
    assert!(stamps(N3).iter().eq(stamps(N2).iter().skip(2)), "the newest three were kept");
}

#[test]
fn hints_over_their_bytes_are_dropped_and_counted() {
    fn small(config: &mut Config, seed: u64) {
        plain(config, seed);
        config.hint_bytes_max = 70;
    }
    let cluster = hinted(small, 5);
    let status = cluster.core(N1).status();
    assert_eq!((hints(&cluster), notes(&cluster), status.hints_dropped), (3, 3, 2));
    let (_, bytes) = status.hints[&N3];
    assert!(bytes <= 70, "{bytes} bytes of hints");
}

#[test]
fn hint_larger_than_all_may_be_is_dropped_and_the_write_ends() {
    fn tiny(config: &mut Config, seed: u64) {
        plain(config, seed);
        config.hint_bytes_max = 5;
    }
    let cluster = hinted(tiny, 1);
    let status = cluster.core(N1).status();
    assert_eq!((status.pending_writes, hints(&cluster), status.hints_dropped), (0, 0, 1));
}

#[test]
fn hint_too_old_is_dropped_and_counted() {
    fn short(config: &mut Config, seed: u64) {
        plain(config, seed);
        config.hint_age_max = Duration::from_secs(5);
    }
    let mut cluster = hinted(short, 2);
    cluster.run(millis(4500), nothing_cut);
    assert_eq!(hints(&cluster), 2);
    cluster.run(millis(1000), nothing_cut);
    assert_eq!((hints(&cluster), notes(&cluster)), (0, 0));
    assert_eq!(cluster.core(N1).status().hints_dropped, 2);
}

#[test]
fn hint_refused_by_its_target_is_dropped_and_counted() {
    let mut cluster = hinted(plain, 1);
    cluster.start(N3);
    let partition = cluster.placement.partition_of(b"k0");
    cluster.flow(1);
    if let Some(core) = &mut cluster.node_mut(N3).core {
        let floor = Stamp::new(50_000, 0, N2);
        core.context.note_floor(partition, floor);
        core.context.set_floor(partition, floor);
    }
    cluster.settle(nothing_cut);
    assert_eq!((hints(&cluster), notes(&cluster)), (0, 0));
    assert_eq!(cluster.core(N1).status().hints_dropped, 1);
    assert!(cluster.node(N3).disk.store.entries.is_empty());
}

#[test]
fn hint_that_meets_a_full_disk_waits() {
    let mut cluster = hinted(plain, 1);
    cluster.start(N3);
    cluster.persist(N3, usize::MAX);
    cluster.fill(N3, true);
    cluster.run(millis(2500), nothing_cut);
    assert_eq!(hints(&cluster), 1);
    cluster.fill(N3, false);
    cluster.run(millis(1500), nothing_cut);
    assert_eq!(hints(&cluster), 0);
}

#[test]
fn hint_damaged_on_the_disk_is_dropped_and_counted() {
    let mut cluster = hinted(plain, 2);
    for store in [true, false] {
        let node = cluster.node_mut(N1);
        let store = if store { &mut node.disk.store } else { &mut node.live };
        let prefix = crate::dynamo::notes::hints_of(N3);
        let hint = |place: &&crate::base::Payload| place.as_bytes().starts_with(prefix.as_bytes());
        let places: Vec<_> = store.notes.keys().filter(hint).cloned().collect();
        store.notes.remove(&places[0]);
        store.notes.insert(places[1].clone(), crate::dynamo::harness::payload("0123456789abcdef"));
    }
    cluster.start(N3);
    cluster.settle(nothing_cut);
    let status = cluster.core(N1).status();
    assert_eq!((hints(&cluster), notes(&cluster), status.hints_dropped), (0, 0, 2));
}

#[test]
fn connection_that_breaks_has_its_hints_sent_again() {
    let mut cluster = hinted(plain, 1);
    cluster.start(N3);
    cluster.run(millis(100), |from, to| (from, to) == (N1, N3));
    cluster.step(N1, Input::PeerLost { peer: N3 });
    cluster.run(millis(1500), nothing_cut);
    assert_eq!(hints(&cluster), 0);
}

#[test]
fn answer_of_a_hint_that_nobody_waits_for_changes_nothing() {
    let mut cluster = hinted(plain, 1);
    let id = crate::dynamo::RequestId { generation: 1, number: 1 };
    let message = Message::WriteReply { id, outcome: WriteOutcome::Stored };
    cluster.step(N1, Input::Peer { from: N3, message });
    assert_eq!(hints(&cluster), 1);
}

#[test]
fn hint_that_is_delivered_in_time_counts_as_the_answer_of_its_target() {
    let mut cluster = cluster(THREE);
    cluster.run(millis(1_500), without(N3));
    assert!(!cluster.core(N1).is_up(N3));
    cluster.slow_disks.insert(N2);
    let token = cluster.put(N1, Level::Quorum, &["k"]);
    cluster.run(millis(300), without(N3));
    assert_eq!(cluster.oracle.reply(token), None, "a hint alone is none");
    cluster.run(millis(700), nothing_cut);
    assert!(is_written(&cluster, token), "{:?}", cluster.oracle.reply(token));
}
