//! Every structure has a limit, which status shows.

use std::collections::BTreeSet;

use super::*;
use crate::base::{Entry, Payload, Stamp, Written};
use crate::dynamo::message::ReadReply;
use crate::dynamo::placement::partition_of_place;
use crate::dynamo::{Input, Level, Range, RequestId};

fn is_overloaded(cluster: &Cluster, token: Token) -> bool {
    cluster.oracle.reply(token) == Some(&Reply::Overloaded)
}

#[test]
fn writes_under_way_over_their_number_or_bytes_are_refused() {
    fn few(config: &mut Config, seed: u64) {
        plain(config, seed);
        config.pending_writes_max = 3;
    }
    fn small(config: &mut Config, seed: u64) {
        plain(config, seed);
        config.pending_write_bytes_max = 100;
    }
    for configure in [few, small] {
        let mut cluster = Cluster::new(THREE, 1, configure);
        let tokens: Vec<Token> = (0..4).map(|_| cluster.put(N1, Level::Quorum, &["k"])).collect();
        let refused: Vec<bool> =
            tokens.iter().map(|&token| is_overloaded(&cluster, token)).collect();
        let status = cluster.core(N1).status();
        assert_eq!(refused, [false, false, false, true], "{status:?}");
        assert_eq!(status.pending_writes, 3);
        assert!((80..=100).contains(&status.pending_write_bytes), "{status:?}");
        cluster.settle(nothing_cut);
        let status = cluster.core(N1).status();
        assert_eq!((status.pending_writes, status.pending_write_bytes), (0, 0));
    }
}

#[test]
fn requests_that_wait_for_the_start_over_their_limit_are_refused() {
    fn few(config: &mut Config, seed: u64) {
        plain(config, seed);
        config.waiting_count_max = 2;
    }
    let mut cluster = Cluster::new(THREE, 1, few);
    cluster.crash(N1, 0);
    cluster.slow_disks.insert(N1);
    cluster.start(N1);
    let tokens: Vec<Token> = (0..3).map(|_| cluster.put(N1, Level::One, &["k"])).collect();
    let status = cluster.core(N1).status();
    assert_eq!((status.waiting, status.pending_writes), (2, 0));
    assert!(is_overloaded(&cluster, tokens[2]) && !is_overloaded(&cluster, tokens[1]));
    cluster.slow_disks.clear();
    cluster.settle(nothing_cut);
    assert!(is_written(&cluster, tokens[0]) && is_written(&cluster, tokens[1]));
}

#[test]
fn requests_that_wait_too_long_for_a_stamp_are_refused() {
    let mut cluster = cluster(THREE);
    cluster.crash(N1, 0);
    cluster.slow_disks.insert(N1);
    cluster.start(N1);
    let token = cluster.put(N1, Level::One, &["k"]);
    cluster.run(millis(2100), nothing_cut);
    assert_eq!(cluster.oracle.reply(token), Some(&Reply::NotReady));
    assert_eq!(cluster.core(N1).status().waiting_bytes, 0);
}

#[test]
fn writes_of_others_over_their_bytes_are_ignored_until_the_disk_catches_up() {
    fn small(config: &mut Config, seed: u64) {
        plain(config, seed);
        config.replica_bytes_max = 100;
    }
    let mut cluster = Cluster::new(THREE, 1, small);
    cluster.slow_disks.insert(N1);
    let send = |cluster: &mut Cluster, number: u64| {
        let place = cluster.place("k");
        let stamp = Stamp::new(10_000, number, N2);
        let entries = vec![Entry { place, stamp, written: Written::Deleted }];
        let message = Message::Write { id: RequestId { generation: 1, number }, entries };
        cluster.step(N1, Input::Peer { from: N2, message });
    };
    (1..=5).for_each(|number| send(&mut cluster, number));
    let status = cluster.core(N1).status();
    assert_eq!((status.replica_bytes, status.records_waiting + status.records_in_flight), (87, 3));
    cluster.persist(N1, usize::MAX);
    cluster.persist(N1, usize::MAX);
    assert_eq!(cluster.core(N1).status().replica_bytes, 0);
    send(&mut cluster, 6);
    assert_eq!(cluster.core(N1).status().replica_bytes, 29);
}

#[test]
fn batches_over_their_number_or_bytes_are_refused_and_not_held() {
    fn few(config: &mut Config, seed: u64) {
        plain(config, seed);
        config.batch_count_max = 1;
    }
    fn small(config: &mut Config, seed: u64) {
        plain(config, seed);
        config.batch_bytes_max = 90;
    }
    for configure in [few, small] {
        let mut cluster = Cluster::new(FOUR, 1, configure);
        let first = cluster.put(N1, Level::Quorum, &["a", "d"]);
        let second = cluster.put(N1, Level::Quorum, &["a", "d"]);
        assert!(is_overloaded(&cluster, second) && !is_overloaded(&cluster, first));
        let status = cluster.core(N1).status();
        assert!(status.batches == 1 && status.batch_bytes <= 90, "{status:?}");
        cluster.settle(nothing_cut);
        assert_eq!(cluster.core(N1).status().batch_bytes, 0);
    }
    // Two coordinators ask the same two holders, which have room for one batch each.
    let mut cluster = Cluster::new(FOUR, 1, few);
    cluster.crash(N4, 0);
    cluster.run(millis(1500), nothing_cut);
    let tokens = [N1, N2].map(|id| cluster.put(id, Level::One, &["g", "d"]));
    cluster.run(millis(5_000), nothing_cut);
    assert!(tokens.iter().all(|&token| cluster.oracle.reply(token).is_some()));
    assert!(
        cluster
            .ids()
            .iter()
            .filter(|&&id| cluster.is_up(id))
            .all(|&id| { cluster.core(id).status().batches == 0 })
    );
}

#[test]
fn persist_request_keeps_to_its_bytes() {
    fn small(config: &mut Config, seed: u64) {
        plain(config, seed);
        config.persist_bytes_max = 70;
        config.persists_max = 1;
    }
    let mut cluster = Cluster::new(THREE, 1, small);
    cluster.slow_disks.insert(N1);
    for _ in 0..6 {
        cluster.put(N1, Level::One, &["k"]);
    }
    let mut counts = Vec::new();
    while let Some(persist) = cluster.node(N1).persists.front() {
        counts.push(persist.records.len());
        cluster.persist(N1, 1);
    }
    assert_eq!(counts, [1, 2, 2, 1]);
}

#[test]
fn answers_of_reads_keep_to_their_bytes() {
    fn small(config: &mut Config, seed: u64) {
        plain(config, seed);
        config.pending_read_bytes_max = 70;
    }
    let mut cluster = Cluster::new(THREE, 1, small);
    cluster.put(N1, Level::All, &["k"]);
    cluster.settle(nothing_cut);
    let tokens: Vec<Token> = (0..4).map(|_| cluster.read(N1, Level::Quorum, &["k"])).collect();
    let status = cluster.core(N1).status();
    assert!(status.pending_reads == 2 && status.pending_read_bytes <= 70, "{status:?}");
    cluster.settle(nothing_cut);
    let replies = &cluster.readers.replies;
    let is_refused = |token: &&Token| replies.get(token) == Some(&Reply::Overloaded);
    assert_eq!(tokens.iter().filter(is_refused).count(), 2, "{replies:?}");
    let status = cluster.core(N1).status();
    assert_eq!((status.pending_reads, status.pending_read_bytes), (0, 0));
}

#[test]
fn one_read_of_many_partitions_may_exceed_the_bytes_of_answers() {
    const SIX: Shape = Shape { nodes: 6, factor: 3, partitions: 6 };
    let mut cluster = Cluster::new(SIX, 1, |config, seed| {
        plain(config, seed);
        config.pending_read_bytes_max = 70;
    });
    let mut empty: BTreeSet<_> = (0..6).collect();
    for name in 'a'..='z' {
        let key = name.to_string();
        if empty.remove(&partition_of_place(cluster.place(&key).as_bytes()).unwrap()) {
            cluster.put(N1, Level::All, &[&key]);
            cluster.settle(nothing_cut);
        }
    }
    assert_eq!(empty, BTreeSet::new(), "partitions without an entry");
    let token = cluster.scan(N1, Level::Quorum, 100);
    cluster.settle(nothing_cut);
    let reply = cluster.readers.replies.get(&token);
    let Some(Reply::Read { chunks, .. }) = reply else { panic!("{reply:?}") };
    assert_eq!(chunks.iter().map(|chunk| chunk.entries.len()).sum::<usize>(), 6);
    let tokens = [(); 2].map(|()| cluster.scan(N1, Level::Quorum, 100));
    cluster.settle(nothing_cut);
    let replies = tokens.map(|token| cluster.readers.replies.get(&token));
    assert!(replies.contains(&Some(&Reply::Overloaded)), "two of them may not: {replies:?}");
    let status = cluster.core(N1).status();
    assert_eq!((status.pending_reads, status.pending_read_bytes), (0, 0));
}

#[test]
fn trees_take_what_they_can_take_at_most() {
    let mut cluster = Cluster::new(FOUR, 1, |config, seed| {
        plain(config, seed);
        config.tree_interval = millis(1);
    });
    let status = cluster.core(N1).status();
    assert!(status.merkle_bytes < status.merkle_bytes_max && status.merkle_unknown > 0);
    cluster.run(millis(200), nothing_cut);
    let status = cluster.core(N1).status();
    assert_eq!((status.merkle_count, status.merkle_unknown), (4, 0), "{status:?}");
    assert!(status.merkle_bytes <= status.merkle_bytes_max, "{status:?}");
}

#[test]
fn batch_longer_than_a_record_is_held_by_nobody() {
    let mut cluster = cluster(THREE);
    let (place, batch) = (cluster.place("k"), Stamp::new(10_000, 0, N2));
    let written = Written::Value(Payload::new(vec![7; 1 << 20]).unwrap());
    let entry = Entry { place, stamp: batch, written };
    for (count, held) in [(8, 0), (7, 1)] {
        let message = Message::BatchStore { batch, entries: vec![entry.clone(); count] };
        cluster.step(N1, Input::Peer { from: N2, message });
        assert_eq!(cluster.core(N1).status().batches, held, "{count} entries");
    }
}

#[test]
fn range_that_ends_before_it_begins_is_not_read() {
    let mut cluster = cluster(THREE);
    cluster.settle(nothing_cut);
    let start = cluster.place("k");
    let partition = partition_of_place(start.as_bytes()).unwrap();
    for (end, is_read) in [(None, true), (Some(Payload::default()), false)] {
        let ranges = vec![Range { partition, start: start.clone(), end, limit: 1 }];
        let id = RequestId { generation: 1, number: 1_000 };
        let message = Message::Read { id, ranges, digest_only: false };
        cluster.step(N1, Input::Peer { from: N2, message });
        let is_told = |told: fn(&ReadReply) -> bool| {
            cluster.network.iter().any(|envelope| {
                matches!(&envelope.message, Message::ReadReply { reply, .. } if told(reply))
            })
        };
        assert_eq!(is_told(|reply| matches!(reply, ReadReply::Data(_))), is_read);
        assert_eq!(is_told(|reply| matches!(reply, ReadReply::NotReady)), !is_read);
        lose(&mut cluster, |message| matches!(message, Message::ReadReply { .. }));
    }
}
