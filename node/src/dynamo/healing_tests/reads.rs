//! Reads.

use super::super::placement::prefix;
use super::super::{Chunk, Level, Message, Partition, Range, ReadReply, Reply};
use super::*;

/// As [`quiet`], but reads repair replicas that they did not ask.
fn repairing(config: &mut Config, seed: u64) {
    quiet(config, seed);
    config.repair.reads = true;
}

#[test]
fn read_at_one_is_answered_alone_where_nothing_follows_from_it() {
    let shape = Shape { nodes: 4, factor: 3, partitions: 4 };
    let mut cluster = Cluster::new(shape, 1, quiet);
    let placement = cluster.placement.clone();
    let held = (0..4).find(|of| placement.is_replica(N1, *of)).unwrap();
    let foreign = (0..4).find(|of| !placement.is_replica(N1, *of)).unwrap();
    let may = |cluster: &mut Cluster, level, partitions: &[Partition]| {
        let page = |partition: &Partition| {
            let start = Payload::new(prefix(*partition).to_vec()).unwrap();
            Range { partition: *partition, start, end: None, limit: 1 }
        };
        let ranges: Vec<Range> = partitions.iter().map(page).collect();
        cluster.node_mut(N1).core.as_mut().unwrap().may_answer_alone(level, &ranges)
    };
    assert!(may(&mut cluster, Level::One, &[held]));
    assert!(!may(&mut cluster, Level::Quorum, &[held]), "others are to be asked");
    assert!(!may(&mut cluster, Level::One, &[held, foreign]), "a part of it is elsewhere");
    let too_many = vec![held; cluster.config(N1).read_ranges_max + 1];
    assert!(!may(&mut cluster, Level::One, &too_many), "the core refuses it");

    cluster.wipe(N1);
    cluster.start(N1);
    cluster.settle(|_, _| false);
    assert!(!may(&mut cluster, Level::One, &[held]), "the node has not got everything back");

    let mut cluster = Cluster::new(shape, 1, repairing);
    cluster.run(SECOND, |_, _| false);
    assert!(!may(&mut cluster, Level::One, &[held]), "the others are compared with it");
}

#[test]
fn quorum_read_with_a_stale_replica_shows_the_newest() {
    let mut cluster = cluster();
    let (old, new) = (entry(&cluster, "k", "old", 5), entry(&cluster, "k", "new", 6));
    plant(&mut cluster, &[N1, N2, N3], &[old]);
    plant(&mut cluster, &[N2], std::slice::from_ref(&new));
    let token = cluster.read(N1, Level::Quorum, &["k"]);
    cluster.settle(|_, _| false);
    assert_eq!(cluster.values(token), ["new"]);
    assert_eq!(stored(&cluster, N1, "k"), Some(new), "the stale replica is repaired");
}

/// Whether of two quorum reads, the second without the node that has the newest write, the second
/// shows less; a repair takes effect only if it is acknowledged.
fn second_read_shows_less(write: impl Fn(&Cluster) -> Entry) -> bool {
    let mut cluster = cluster();
    let (old, new) = (entry(&cluster, "k", "old", 5), write(&cluster));
    plant(&mut cluster, &[N1, N2, N3], &[old]);
    plant(&mut cluster, &[N2], &[new]);
    let first = cluster.read(N1, Level::Quorum, &["k"]);
    // The first read's repair of n1 waits for its disk; n3 is too far away to help.
    cluster.slow_disks.insert(N1);
    cluster.settle(|from, to| from == N3 || to == N3);
    let is_answered = cluster.readers.replies.contains_key(&first);
    let before = is_answered.then(|| cluster.values(first));
    cluster.crash(N1, 0);
    cluster.start(N1);
    cluster.slow_disks.clear();
    let without = |from: NodeId, to: NodeId| from == N2 || to == N2;
    cluster.run(SECOND * 3, without);
    let second = cluster.read(N3, Level::Quorum, &["k"]);
    cluster.settle(without);
    let after = cluster.values(second);
    before.is_some_and(|before| before != after)
}

/// The oracle of the harness would end the test before we could look.
#[cfg(feature = "testing")]
fn is_caught(scenario: impl Fn() -> bool + std::panic::UnwindSafe) -> bool {
    std::panic::catch_unwind(scenario).unwrap_or(true)
}

#[test]
fn quorum_reads_are_monotonic_when_the_repair_is_lost() {
    assert!(!second_read_shows_less(|cluster| entry(cluster, "k", "new", 6)));
    assert!(!second_read_shows_less(|cluster| tombstone(cluster, "k", 6)));
}

#[test]
fn quorum_read_that_finds_a_tombstone_repairs_it() {
    let mut cluster = cluster();
    let (old, deleted) = (entry(&cluster, "k", "old", 5), tombstone(&cluster, "k", 6));
    plant(&mut cluster, &[N1, N2, N3], &[old]);
    plant(&mut cluster, &[N2], std::slice::from_ref(&deleted));
    let token = cluster.read(N1, Level::Quorum, &["k"]);
    cluster.settle(|_, _| false);
    assert_eq!(cluster.values(token), [""; 0]);
    assert_eq!(stored(&cluster, N1, "k"), Some(deleted));
}

#[test]
fn read_at_one_asks_one_and_repairs_nothing() {
    let mut cluster = cluster();
    let (old, new) = (entry(&cluster, "k", "old", 5), entry(&cluster, "k", "new", 6));
    plant(&mut cluster, &[N1, N2, N3], std::slice::from_ref(&old));
    plant(&mut cluster, &[N2], &[new]);
    let token = cluster.read(N1, Level::One, &["k"]);
    assert!(cluster.network.iter().all(|e| !matches!(e.message, Message::Read { .. })));
    assert_eq!(cluster.values(token), ["old"]);
    assert_eq!(stored(&cluster, N1, "k"), Some(old));
}

#[test]
fn read_at_one_is_compared_with_the_others_in_the_background() {
    let configure = |config: &mut Config, seed| {
        quiet(config, seed);
        config.repair.reads = true;
    };
    let mut cluster = Cluster::new(Shape { nodes: 3, factor: 3, partitions: 4 }, 1, configure);
    let (old, new) = (entry(&cluster, "k", "old", 5), entry(&cluster, "k", "new", 6));
    plant(&mut cluster, &[N1, N2, N3], &[old]);
    plant(&mut cluster, &[N2], std::slice::from_ref(&new));
    let token = cluster.read(N1, Level::One, &["k"]);
    cluster.settle(|_, _| false);
    assert_eq!(cluster.values(token), ["old"]);
    for id in [N1, N3] {
        assert_eq!(stored(&cluster, id, "k"), Some(new.clone()), "{id}");
    }
    assert_eq!(cluster.core(N1).status().background_reads, 0);
}

#[test]
fn background_comparisons_are_limited_by_their_rate() {
    let configure = |config: &mut Config, seed| {
        quiet(config, seed);
        config.repair.reads = true;
        config.background_reads_per_second = 2;
    };
    let mut cluster = Cluster::new(Shape { nodes: 3, factor: 3, partitions: 4 }, 1, configure);
    cluster.run(SECOND * 3, |_, _| false);
    for _ in 0..10 {
        cluster.read(N1, Level::One, &["k"]);
    }
    let reads = cluster.network.iter().filter(|e| matches!(e.message, Message::Read { .. }));
    assert_eq!(reads.count(), 2 * 2, "two comparisons with two replicas each");
}

#[test]
fn read_with_too_few_replicas_up_is_unavailable_at_once() {
    let mut cluster = cluster();
    cluster.crash(N2, 0);
    cluster.crash(N3, 0);
    cluster.run(SECOND * 3, |_, _| false);
    let token = cluster.read(N1, Level::Quorum, &["k"]);
    let unavailable = Reply::Unavailable { needed: 2, alive: 1 };
    assert_eq!(cluster.readers.replies.get(&token), Some(&unavailable));
    let token = cluster.read(N1, Level::One, &["k"]);
    assert_eq!(cluster.values(token), [""; 0]);
}

#[test]
fn read_of_a_replica_that_went_silent_asks_another() {
    let mut cluster = cluster();
    let token = cluster.read(N1, Level::Quorum, &["k"]);
    let asked = cluster
        .network
        .iter()
        .find_map(|e| matches!(e.message, Message::Read { .. }).then_some(e.to));
    let silent = asked.unwrap();
    cluster.run(Duration::from_millis(100), |from, to| from == silent || to == silent);
    assert_eq!(cluster.values(token), [""; 0]);
}

/// The accident: each time that a connection broke, the time until a question is asked again was
/// doubled, until it overflowed and the node panicked.
#[test]
fn read_of_a_replica_whose_connection_breaks_again_and_again_asks_it_each_time() {
    let mut cluster = cluster();
    let token = cluster.read(N1, Level::All, &["k"]);
    for _ in 0..200 {
        cluster.network.clear();
        cluster.step(N1, Input::PeerLost { peer: N2 });
        cluster.tick(N1);
        let is_question = |message: &Message| matches!(message, Message::Read { .. });
        assert!(cluster.network.iter().any(|e| e.to == N2 && is_question(&e.message)));
    }
    assert_eq!(cluster.readers.waiting(), 1);
    cluster.settle(|_, _| false);
    assert_eq!(cluster.values(token), [""; 0]);
}

#[test]
fn read_without_answers_times_out() {
    let mut cluster = cluster();
    let token = cluster.read(N1, Level::Quorum, &["k"]);
    cluster.run(SECOND * 3, |from, to| from == N1 || to == N1);
    assert_eq!(cluster.readers.replies.get(&token), Some(&Reply::Timeout));
    assert_eq!(cluster.core(N1).status().pending_reads, 0);
}

#[test]
fn replica_that_is_not_ready_is_replaced_by_another() {
    let mut cluster = cluster();
    let token = cluster.read(N1, Level::Quorum, &["k"]);
    let asked = cluster.network.iter().find_map(|envelope| {
        let Message::Read { id, .. } = &envelope.message else { return None };
        Some((envelope.to, *id))
    });
    let (from, id) = asked.unwrap();
    cluster.network.retain(|e| e.to != from);
    let reply = ReadReply::NotReady;
    cluster.step(N1, Input::Peer { from, message: Message::ReadReply { id, reply } });
    cluster.settle(|_, _| false);
    assert_eq!(cluster.values(token), [""; 0]);
}

#[test]
fn answer_that_arrives_twice_counts_once() {
    let mut cluster = cluster();
    let token = cluster.read(N1, Level::All, &["k"]);
    let cut = |from: NodeId, to: NodeId| from == N3 || to == N3;
    for _ in 0..20 {
        let Some(envelope) = cluster.network.pop_front() else { break };
        if !cut(envelope.from, envelope.to) {
            cluster.deliver(envelope.clone());
            cluster.deliver(envelope);
        }
    }
    assert!(!cluster.readers.replies.contains_key(&token), "n3 has not answered");
}

#[test]
fn reads_over_the_limit_are_refused() {
    let configure = |config: &mut Config, seed| {
        quiet(config, seed);
        config.pending_reads_max = 2;
    };
    let mut cluster = Cluster::new(Shape { nodes: 3, factor: 3, partitions: 4 }, 1, configure);
    let tokens: Vec<_> = (0..3).map(|_| cluster.read(N1, Level::Quorum, &["k"])).collect();
    assert_eq!(cluster.readers.replies.get(&tokens[2]), Some(&Reply::Overloaded));
    cluster.settle(|_, _| false);
    assert_eq!(cluster.readers.waiting(), 0);
}

#[test]
fn read_that_is_forgotten_leaves_nothing_behind() {
    let mut cluster = cluster();
    let token = cluster.read(N1, Level::Quorum, &["k"]);
    cluster.step(N1, Input::Forget { token });
    assert_eq!(cluster.core(N1).status().pending_reads, 0);
    cluster.settle(|_, _| false);
    assert!(!cluster.readers.replies.contains_key(&token));
}

#[test]
fn pages_of_replicas_that_differ_are_merged_up_to_the_shortest() {
    let mut cluster = cluster();
    let keys: Vec<String> = (0..40).map(|key| format!("k{key}")).collect();
    let entries: Vec<Entry> = keys.iter().map(|key| entry(&cluster, key, key, 5)).collect();
    plant(&mut cluster, &[N1], &entries[..20]);
    plant(&mut cluster, &[N2], &entries[10..]);
    plant(&mut cluster, &[N3], &entries);
    let token = cluster.scan(N1, Level::Quorum, 3);
    cluster.settle(|_, _| false);
    let Some(Reply::Read { chunks, .. }) = cluster.readers.replies.get(&token) else {
        panic!("no answer")
    };
    for chunk in chunks {
        let end = chunk.covered.clone().unwrap();
        let partition = super::super::placement::partition_of_place(end.as_bytes());
        let expected = entries.iter().filter(|entry| {
            let of = super::super::placement::partition_of_place(entry.place.as_bytes());
            of == partition && entry.place < end
        });
        let mut expected: Vec<Entry> = expected.cloned().collect();
        expected.sort_by(|a, b| a.place.cmp(&b.place));
        assert_eq!(chunk.entries, expected, "everything before the end, and nothing behind it");
    }
}

#[test]
fn read_of_cells_in_a_deleted_row_shows_none_of_them() {
    let mut cluster = cluster();
    let mut cell = entry(&cluster, "row", "cell", 5);
    let row = cell.place.clone();
    cell.place = Payload::new([row.as_bytes(), b"column"].concat()).unwrap();
    let stamp = Stamp::new(6, 0, OLD);
    let deleted = Entry { place: row, stamp, written: Written::RowDeleted };
    plant(&mut cluster, &[N1, N2, N3], &[cell]);
    plant(&mut cluster, &[N2], std::slice::from_ref(&deleted));
    let token = cluster.scan(N1, Level::Quorum, 100);
    cluster.settle(|_, _| false);
    assert_eq!(cluster.values(token), [""; 0]);
    let key = (deleted.place.as_bytes().to_vec(), false);
    assert_eq!(cluster.node(N1).disk.store.entries.get(&key), Some(&deleted));
}

/// Returns the stamp that comes with the answer of two replicas that have nothing, while a third
/// has a value that was never acknowledged at quorum: all three are asked, as the second is slow.
fn stamp_of_nothing_that_outvotes_a_value() -> Stamp {
    let mut cluster = cluster();
    let value = entry(&cluster, "k", "v", 5);
    plant(&mut cluster, &[N1], &[value]);
    let token = cluster.read(N1, Level::Quorum, &["k"]);
    let question = |message: &Message| {
        if let Message::Read { id, .. } = message { Some(*id) } else { None }
    };
    let id = cluster.network.iter().find_map(|envelope| question(&envelope.message)).unwrap();
    cluster.pass(Duration::from_millis(500));
    cluster.network.clear();
    let nothing = vec![Chunk::default()];
    let digest = ReadReply::Digest(super::super::merge::digest(&nothing));
    let replies = [(N3, digest.clone()), (N2, digest), (N3, ReadReply::Data(nothing))];
    for (from, reply) in replies {
        cluster.step(N1, Input::Peer { from, message: Message::ReadReply { id, reply } });
    }
    assert_eq!(cluster.values(token), [""; 0]);
    let Some(Reply::Read { seen, .. }) = cluster.readers.replies.get(&token) else {
        panic!("{:?}", cluster.readers.replies)
    };
    *seen
}

#[test]
fn stamp_of_an_answer_is_of_what_it_shows() {
    assert_eq!(stamp_of_nothing_that_outvotes_a_value(), Stamp::ZERO);
}

#[cfg(feature = "testing")]
mod planted_bugs {
    use super::*;
    use crate::base::planted::loses_only_with;

    #[test]
    fn stamp_of_an_outvoted_answer_is_caught() {
        loses_only_with("D60", || stamp_of_nothing_that_outvotes_a_value() != Stamp::ZERO);
    }

    #[test]
    fn not_found_that_beats_a_value_is_caught() {
        loses_only_with("D3", || {
            let mut cluster = cluster();
            let new = entry(&cluster, "k", "v", 5);
            plant(&mut cluster, &[N2, N3], &[new]);
            let token = cluster.read(N1, Level::Quorum, &["k"]);
            cluster.settle(|_, _| false);
            cluster.values(token).is_empty()
        });
    }

    #[test]
    fn repair_with_the_first_answer_is_caught() {
        loses_only_with("D19", || {
            let mut cluster = cluster();
            let (old, new) = (entry(&cluster, "k", "old", 5), entry(&cluster, "k", "new", 6));
            plant(&mut cluster, &[N1, N2, N3], &[old]);
            plant(&mut cluster, &[N2], std::slice::from_ref(&new));
            cluster.read(N1, Level::Quorum, &["k"]);
            cluster.settle(|_, _| false);
            stored(&cluster, N1, "k") != Some(new)
        });
    }

    #[test]
    fn answer_before_the_repair_is_acknowledged_is_caught() {
        loses_only_with("D20", || {
            is_caught(|| second_read_shows_less(|cluster| entry(cluster, "k", "new", 6)))
        });
    }

    #[test]
    fn repair_without_tombstones_is_caught() {
        loses_only_with("D21", || {
            is_caught(|| second_read_shows_less(|cluster| tombstone(cluster, "k", 6)))
        });
    }
}
