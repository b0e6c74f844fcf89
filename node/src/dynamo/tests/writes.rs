//! Coordinators and replicas.

use super::*;
use crate::base::{Entry, Payload, Stamp, Written};
use crate::dynamo::{Input, Level, RequestId, WriteOutcome};

/// Gives a node a write that a peer might send, and returns what it answers.
fn answer_to(cluster: &mut Cluster, entries: Vec<Entry>) -> Option<WriteOutcome> {
    let id = RequestId { generation: 77, number: 1 };
    cluster.network.clear();
    cluster.step(N1, Input::Peer { from: N2, message: Message::Write { id, entries } });
    cluster.persist(N1, usize::MAX);
    cluster.network.drain(..).find_map(|envelope| {
        let Message::WriteReply { id: of, outcome } = envelope.message else { return None };
        (of == id).then_some(outcome)
    })
}

fn entry(cluster: &Cluster, stamp: Stamp) -> Entry {
    Entry { place: cluster.place("k"), stamp, written: Written::Deleted }
}

#[test]
fn write_waits_for_as_many_replicas_as_its_level_says() {
    for (level, needed) in [(Level::One, 1), (Level::Two, 2), (Level::Quorum, 2), (Level::All, 3)] {
        let mut cluster = cluster(THREE);
        cluster.slow_disks.extend([N1, N2, N3]);
        let token = cluster.put(N1, level, &["k"]);
        for (durable, id) in [N1, N2, N3].into_iter().enumerate() {
            cluster.settle(nothing_cut);
            assert_eq!(is_written(&cluster, token), durable >= needed, "{level:?} with {durable}");
            cluster.persist(id, usize::MAX);
        }
        cluster.settle(nothing_cut);
        assert!(is_written(&cluster, token), "{level:?} with all");
    }
}

#[test]
fn level_above_the_number_of_replicas_is_invalid() {
    let mut cluster = cluster(FOUR);
    let token = cluster.put(N1, Level::Three, &["a"]);
    assert!(matches!(cluster.oracle.reply(token), Some(Reply::Invalid(_))));
}

#[test]
fn write_of_nothing_or_outside_all_partitions_is_invalid() {
    let mut cluster = cluster(THREE);
    let token = cluster.write(N1, 0, Level::One, Vec::new());
    assert!(matches!(cluster.oracle.reply(token), Some(Reply::Invalid(_))));
    let nowhere = Payload::new(vec![0xFF, 0xFF, 1]).unwrap();
    let token = cluster.write(N1, 0, Level::One, vec![(nowhere, Written::Deleted)]);
    assert!(matches!(cluster.oracle.reply(token), Some(Reply::Invalid(_))));
}

#[test]
fn write_without_enough_replicas_up_is_unavailable_and_sent_to_nobody() {
    let mut cluster = cluster(THREE);
    cluster.crash(N2, 0);
    cluster.crash(N3, 0);
    cluster.run(millis(1500), nothing_cut);
    cluster.network.clear();
    let token = cluster.put(N1, Level::Quorum, &["k"]);
    let unavailable = Reply::Unavailable { needed: 2, alive: 1 };
    assert_eq!(cluster.oracle.reply(token), Some(&unavailable));
    assert!(cluster.network.is_empty() && cluster.node(N1).persists.is_empty());
    let token = cluster.put(N1, Level::One, &["k"]);
    cluster.settle(nothing_cut);
    assert!(is_written(&cluster, token), "one is there");
}

#[test]
fn write_without_enough_answers_times_out_and_may_have_happened() {
    let mut cluster = cluster(THREE);
    let token = cluster.put(N1, Level::All, &["k"]);
    cluster.run(millis(1900), without(N3));
    assert_eq!(cluster.oracle.reply(token), None);
    cluster.run(millis(200), without(N3));
    assert_eq!(cluster.oracle.reply(token), Some(&Reply::Timeout));
    assert_eq!(cluster.node(N2).disk.store.entries.len(), 1, "it did happen");
    cluster.run(millis(2000), nothing_cut);
    assert_eq!(cluster.node(N3).disk.store.entries.len(), 1, "and everywhere in the end");
}

#[test]
fn answer_that_is_repeated_counts_once() {
    let mut cluster = cluster(THREE);
    cluster.slow_disks.insert(N1);
    let token = cluster.put(N1, Level::Quorum, &["k"]);
    cluster.network.retain(|envelope| envelope.to == N2);
    cluster.flow(1);
    cluster.copies = cluster.network.iter().cloned().collect();
    cluster.settle(nothing_cut);
    for copy in cluster.copies.clone() {
        cluster.deliver(copy);
    }
    assert_eq!(cluster.oracle.reply(token), None, "one replica has it");
    cluster.persist(N1, usize::MAX);
    assert!(is_written(&cluster, token), "two have it");
}

#[test]
fn hint_is_no_acknowledgement() {
    let mut cluster = cluster(THREE);
    let token = cluster.put(N1, Level::Quorum, &["k"]);
    cluster.run(millis(700), |from, to| from != N1 || to != N1);
    assert_eq!(cluster.core(N1).status().hints.len(), 2);
    assert_eq!(cluster.oracle.reply(token), None);
}

#[test]
fn message_that_was_lost_is_sent_again() {
    let mut cluster = cluster(THREE);
    cluster.slow_disks.insert(N1);
    let token = cluster.put(N1, Level::Quorum, &["k"]);
    assert_eq!(lose(&mut cluster, |message| matches!(message, Message::Write { .. })), 2);
    cluster.run(millis(600), nothing_cut);
    assert!(is_written(&cluster, token));
}

#[test]
fn stamp_is_larger_than_what_the_client_has_seen() {
    let mut cluster = cluster(THREE);
    cluster.node_mut(N2).skew_ms = 60_000;
    let first = cluster.put(N2, Level::Quorum, &["k"]);
    cluster.settle(|_, to| to == N1);
    assert!(is_written(&cluster, first));
    let second = cluster.put(N1, Level::Quorum, &["k"]);
    cluster.settle(nothing_cut);
    assert!(is_written(&cluster, second), "the oracle compares the stamps");
}

#[test]
fn client_that_has_seen_too_much_is_told_of_the_skew() {
    let mut cluster = cluster(THREE);
    cluster.seen.insert(0, Stamp::new(100_000_000, 0, N2));
    let token = cluster.put(N1, Level::Quorum, &["k"]);
    assert!(matches!(cluster.oracle.reply(token), Some(Reply::ClockSkew { ahead_ms })
        if *ahead_ms > 80_000_000));
}

#[test]
fn replica_refuses_stamps_that_cannot_be_and_places_it_does_not_hold() {
    let mut cluster = cluster(THREE);
    let impossible = entry(&cluster, Stamp::from_version(u64::MAX));
    assert_eq!(answer_to(&mut cluster, vec![impossible]), Some(WriteOutcome::Refused));
    let mut cluster = super::cluster(FOUR);
    let place = cluster.place("a");
    let elsewhere = Entry { place, stamp: Stamp::new(10_000, 9, N2), written: Written::Deleted };
    assert_eq!(answer_to(&mut cluster, vec![elsewhere]), Some(WriteOutcome::Refused));
    assert!(cluster.node(N1).disk.store.entries.is_empty());
}

#[test]
fn replica_refuses_what_was_everywhere_once() {
    let mut cluster = cluster(THREE);
    let (old, new) = (Stamp::new(10_000, 8, N2), Stamp::new(10_000, 9, N2));
    let partition = cluster.placement.partition_of(b"k");
    let core = cluster.node_mut(N1).core.as_mut().unwrap();
    core.context.note_floor(partition, old);
    core.context.set_floor(partition, old);
    let (ghost, other) = (entry(&cluster, old), entry(&cluster, new));
    assert_eq!(answer_to(&mut cluster, vec![ghost]), Some(WriteOutcome::Refused));
    assert_eq!(answer_to(&mut cluster, vec![other]), Some(WriteOutcome::Stored));
}

#[test]
fn replica_acknowledges_only_what_is_durable() {
    let mut cluster = cluster(THREE);
    cluster.slow_disks.insert(N2);
    cluster.put(N1, Level::One, &["k"]);
    cluster.settle(|_, to| to == N3);
    let replies = |cluster: &mut Cluster| {
        lose(cluster, |message| matches!(message, Message::WriteReply { .. }))
    };
    assert_eq!(replies(&mut cluster), 0);
    cluster.persist(N2, usize::MAX);
    assert_eq!(replies(&mut cluster), 1);
}

#[test]
fn same_message_twice_is_stored_once_and_answered_twice() {
    let mut cluster = cluster(THREE);
    let entry = entry(&cluster, Stamp::new(10_000, 9, N2));
    for _ in 0..2 {
        let outcome = answer_to(&mut cluster, vec![entry.clone()]);
        assert_eq!(outcome, Some(WriteOutcome::Stored));
    }
    assert_eq!(cluster.node(N1).disk.store.entries.len(), 1);
}

#[test]
fn node_without_a_replica_coordinates() {
    let mut cluster = cluster(FOUR);
    let token = cluster.put(N1, Level::All, &["a"]);
    cluster.settle(nothing_cut);
    assert!(is_written(&cluster, token));
    assert!(cluster.node(N1).disk.store.entries.is_empty());
}

#[test]
fn client_that_waits_no_more_gets_no_answer_and_its_write_goes_on() {
    let mut cluster = cluster(THREE);
    let token = cluster.put(N1, Level::All, &["k"]);
    cluster.forget(N1, token);
    cluster.settle(nothing_cut);
    assert_eq!(cluster.oracle.reply(token), None);
    assert_eq!(cluster.node(N3).disk.store.entries.len(), 1);
    assert_eq!(cluster.core(N1).status().pending_writes, 0);
}

#[test]
fn records_of_many_requests_are_one_persist_request() {
    let mut cluster = cluster(THREE);
    cluster.slow_disks.insert(N1);
    for _ in 0..5 {
        cluster.put(N1, Level::One, &["k"]);
    }
    let gathered: Vec<usize> =
        cluster.node(N1).persists.iter().map(|persist| persist.records.len()).collect();
    assert_eq!(gathered, [1, 1], "the disk has as many as it may");
    cluster.persist(N1, 1);
    let gathered: Vec<usize> =
        cluster.node(N1).persists.iter().map(|persist| persist.records.len()).collect();
    assert_eq!(gathered, [1, 3], "what came meanwhile is one");
}

#[test]
fn unfinished_write_holds_the_low_water() {
    let mut cluster = cluster(THREE);
    let token = cluster.put(N1, Level::Quorum, &["k"]);
    cluster.run(millis(300), without(N3));
    let Some(Reply::Written { stamp }) = cluster.oracle.reply(token).cloned() else {
        panic!("it is not written")
    };
    assert_eq!(cluster.core(N1).status().low_water, stamp, "n3 has not answered");
    cluster.run(millis(500), without(N3));
    assert_eq!(cluster.core(N1).status().low_water, stamp, "there is a hint");
    cluster.run(millis(3000), nothing_cut);
    assert!(cluster.core(N1).status().low_water > stamp);
}

#[test]
fn write_given_up_without_hints_holds_the_low_water_for_a_while() {
    fn hintless(config: &mut Config, seed: u64) {
        plain(config, seed);
        config.repair.hints = false;
    }
    let mut cluster = Cluster::new(THREE, 1, hintless);
    let token = cluster.put(N1, Level::Quorum, &["k"]);
    cluster.run(millis(2500), without(N3));
    let Some(Reply::Written { stamp }) = cluster.oracle.reply(token).cloned() else {
        panic!("it is not written")
    };
    let status = cluster.core(N1).status();
    assert_eq!((status.pending_writes, status.hints.len()), (0, 0));
    assert_eq!(status.low_water, stamp);
    cluster.run(millis(10_500), without(N3));
    assert!(cluster.core(N1).status().low_water > stamp);
}

#[test]
fn disk_full_refuses_what_is_new_and_leaves_in_doubt_what_is_under_way() {
    let mut cluster = cluster(Shape { nodes: 1, factor: 1, partitions: 8 });
    cluster.slow_disks.insert(N1);
    let under_way = [cluster.put(N1, Level::One, &["k"]), cluster.put(N1, Level::One, &["k"])];
    let gathered = cluster.put(N1, Level::One, &["k"]);
    cluster.fill(N1, true);
    let refused = cluster.put(N1, Level::One, &["k"]);
    for token in [gathered, refused] {
        assert_eq!(cluster.oracle.reply(token), Some(&Reply::DiskFull));
    }
    assert_eq!(under_way.map(|token| cluster.oracle.reply(token).cloned()), [None, None]);
    cluster.fill(N1, false);
    cluster.persist(N1, usize::MAX);
    assert!(under_way.iter().all(|&token| is_written(&cluster, token)));
}

#[test]
fn own_share_waits_for_space_while_others_acknowledge() {
    let mut cluster = cluster(THREE);
    cluster.slow_disks.insert(N1);
    let tokens: Vec<Token> = (0..3).map(|_| cluster.put(N1, Level::Quorum, &["k"])).collect();
    cluster.fill(N1, true);
    cluster.settle(nothing_cut);
    assert!(tokens.iter().all(|&token| is_written(&cluster, token)));
    cluster.fill(N1, false);
    cluster.slow_disks.clear();
    cluster.run(millis(1000), nothing_cut);
    assert_eq!(cluster.node(N1).disk.store, cluster.node(N2).disk.store);
}
