//! Anti-entropy.

use super::super::harness::Envelope;
use super::super::placement::partition_of_place;
use super::super::{Level, Message, SyncMessage};
use super::*;

fn syncing_cluster() -> Cluster {
    Cluster::new(Shape { nodes: 3, factor: 3, partitions: 4 }, 1, syncing)
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|key| format!("key{key}")).collect()
}

#[test]
fn replicas_that_differ_both_ways_become_equal() {
    let mut cluster = syncing_cluster();
    for (number, key) in keys(60).iter().enumerate() {
        let at = [N1, N2, N3][number % 3];
        let ms = u64::try_from(number).unwrap() + 1;
        let written = if number % 5 == 0 {
            tombstone(&cluster, key, ms)
        } else {
            entry(&cluster, key, key, ms)
        };
        plant(&mut cluster, &[at], &[written]);
    }
    cluster.run(SECOND * 3, |_, _| false);
    assert!(are_equal(&cluster));
    assert_eq!(visible(&cluster, N1).len(), 60);
}

#[test]
fn newer_write_wins_in_both_directions() {
    let mut cluster = syncing_cluster();
    let (old, new) = (entry(&cluster, "k", "old", 5), entry(&cluster, "k", "new", 6));
    plant(&mut cluster, &[N1], &[old]);
    plant(&mut cluster, &[N3], std::slice::from_ref(&new));
    cluster.run(SECOND * 2, |_, _| false);
    for id in [N1, N2, N3] {
        assert_eq!(stored(&cluster, id, "k"), Some(new.clone()), "{id}");
    }
}

#[test]
fn row_tombstone_reaches_cells_that_others_have() {
    let mut cluster = syncing_cluster();
    let mut cell = entry(&cluster, "row", "cell", 5);
    let row = cell.place.clone();
    cell.place = Payload::new([row.as_bytes(), b"column"].concat()).unwrap();
    let stamp = Stamp::new(6, 0, OLD);
    let deleted = Entry { place: row, stamp, written: Written::RowDeleted };
    plant(&mut cluster, &[N1, N2], &[cell]);
    plant(&mut cluster, &[N3], std::slice::from_ref(&deleted));
    cluster.run(SECOND * 2, |_, _| false);
    for id in [N1, N2, N3] {
        assert_eq!(visible(&cluster, id), std::slice::from_ref(&deleted), "{id}");
    }
}

#[test]
fn session_exchanges_page_by_page() {
    let configure = |config: &mut Config, seed| {
        syncing(config, seed);
        config.sync_bytes_max = 100;
        config.sync_outline_count_max = 2;
    };
    let mut cluster = Cluster::new(Shape { nodes: 2, factor: 2, partitions: 1 }, 1, configure);
    let (mine, theirs) = (keys(30), keys(50).split_off(20));
    let made = |cluster: &Cluster, keys: &[String]| -> Vec<Entry> {
        keys.iter().map(|key| entry(cluster, key, key, 5)).collect()
    };
    let (mine, theirs) = (made(&cluster, &mine), made(&cluster, &theirs));
    plant(&mut cluster, &[N1], &mine);
    plant(&mut cluster, &[N2], &theirs);
    cluster.run(SECOND * 5, |_, _| false);
    assert!(are_equal(&cluster));
    assert_eq!(visible(&cluster, N1).len(), 50);
}

#[test]
fn session_is_limited_by_its_rate() {
    let configure = |config: &mut Config, seed| {
        syncing(config, seed);
        config.sync_bytes_max = 100;
        config.sync_bytes_per_second = 1000;
    };
    let mut cluster = Cluster::new(Shape { nodes: 2, factor: 2, partitions: 1 }, 1, configure);
    let entries: Vec<Entry> = keys(200).iter().map(|key| entry(&cluster, key, "x", 5)).collect();
    plant(&mut cluster, &[N1], &entries);
    cluster.run(SECOND * 2, |_, _| false);
    let count = visible(&cluster, N2).len();
    assert!((10..150).contains(&count), "{count} entries of 30 bytes and more in 3 s");
    cluster.run(SECOND * 20, |_, _| false);
    assert!(are_equal(&cluster));
}

#[test]
fn sessions_with_losses_and_repetitions_come_to_the_same() {
    let mut cluster = syncing_cluster();
    let entries: Vec<Entry> = keys(30).iter().map(|key| entry(&cluster, key, key, 5)).collect();
    plant(&mut cluster, &[N1], &entries[..15]);
    plant(&mut cluster, &[N2], &entries[15..]);
    let mut number = 0;
    for _ in 0..400 {
        let is_sync = |message: &Message| matches!(message, Message::Sync(_));
        let batch: Vec<_> = cluster.network.drain(..).collect();
        for envelope in batch {
            number += 1;
            if is_sync(&envelope.message) && number % 5 == 0 {
                continue;
            }
            if is_sync(&envelope.message) {
                cluster.deliver(envelope.clone());
            }
            cluster.deliver(envelope);
        }
        cluster.flow(0);
        cluster.now = cluster.now + Duration::from_millis(20);
        for id in cluster.ids() {
            cluster.tick_if_due(id);
        }
    }
    cluster.run(SECOND * 12, |_, _| false);
    assert!(are_equal(&cluster));
    assert_eq!(visible(&cluster, N3).len(), 30);
}

#[test]
fn equal_replicas_exchange_roots_alone() {
    let mut cluster = syncing_cluster();
    let same = entry(&cluster, "k", "v", 5);
    plant(&mut cluster, &[N1, N2, N3], &[same]);
    cluster.run(SECOND * 2, |_, _| false);
    cluster.trace = Some(Vec::new());
    cluster.run(SECOND * 2, |_, _| false);
    let trace = cluster.trace.take().unwrap();
    let outlines = trace.iter().filter(|line| line.contains("Outline"));
    assert_eq!(outlines.count(), 0, "{trace:?}");
    assert!(cluster.core(N1).status().sync_sessions > 10);
}

#[test]
fn status_tells_since_when_all_that_is_shared_was_compared() {
    let shape = Shape { nodes: 6, factor: 3, partitions: 6 };
    let mut cluster = Cluster::new(shape, 1, |config, seed| {
        syncing(config, seed);
        config.sync_partitions_max = 1;
    });
    let placement = cluster.placement.clone();
    let shares = |one: NodeId, other: NodeId| -> usize {
        let is_shared =
            |of: &u16| placement.is_replica(one, *of) && placement.is_replica(other, *of);
        (0..6).filter(is_shared).count()
    };
    let (ids, mut half_compared) = (cluster.ids(), 0);
    for _ in 0..100 {
        cluster.run(Duration::from_millis(50), |_, _| false);
        for &id in &ids {
            let status = cluster.core(id).status();
            let is_peer = |peer: &NodeId| *peer != id && shares(id, *peer) > 0;
            let peers: Vec<NodeId> = ids.iter().copied().filter(is_peer).collect();
            assert_eq!(status.synced.keys().copied().collect::<Vec<_>>(), peers);
            assert!(peers.len() < 5, "{id} shares nothing with some: {peers:?}");
            let synced = status.synced.values().flatten().count();
            let all: usize = peers.iter().map(|peer| shares(id, *peer)).sum();
            assert!(synced == 0 || status.sync_sessions >= 1);
            if usize::try_from(status.sync_sessions).unwrap() < all {
                assert!(synced < peers.len(), "{status:?}");
                half_compared += 1;
            }
        }
    }
    assert!(half_compared > 0);
    for id in ids {
        let status = cluster.core(id).status();
        assert!(status.synced.values().all(Option::is_some), "{status:?}");
    }
}

#[test]
fn write_under_way_is_not_looked_for() {
    let mut cluster = Cluster::new(Shape { nodes: 2, factor: 2, partitions: 1 }, 1, syncing);
    cluster.run(SECOND, |_, _| false);
    cluster.trace = Some(Vec::new());
    let is_seen = |cluster: &Cluster, what: &str| {
        cluster.trace.iter().flatten().any(|line| line.contains(what))
    };
    cluster.put(N1, Level::One, &["k"]);
    let is_write = |envelope: &Envelope| matches!(envelope.message, Message::Write { .. });
    let (held, rest): (Vec<_>, Vec<_>) = cluster.network.drain(..).partition(is_write);
    cluster.network = rest.into();
    assert_eq!(held.len(), 1, "n2 has not heard of it");
    for _ in 0..100 {
        if is_seen(&cluster, "Leaves [0 ") {
            break;
        }
        cluster.run(Duration::from_millis(10), |_, _| false);
    }
    assert!(is_seen(&cluster, "Leaves [0 "), "a session has met the difference");
    for envelope in held {
        cluster.deliver(envelope);
    }
    let sessions = cluster.core(N1).status().sync_sessions;
    cluster.run(SECOND * 2, |_, _| false);
    assert!(are_equal(&cluster) && stored(&cluster, N2, "k").is_some());
    assert!(!is_seen(&cluster, "Outline"), "{:?}", cluster.trace);
    assert!(cluster.core(N1).status().sync_sessions > sessions, "it counts as a comparison");
}

#[test]
fn few_leaves_cost_as_much_as_the_partition_that_is_read_for_them() {
    let configure = |config: &mut Config, seed| {
        syncing(config, seed);
        config.sync_bytes_per_second = 10_000;
    };
    let mut cluster = Cluster::new(Shape { nodes: 2, factor: 2, partitions: 2 }, 1, configure);
    let same: Vec<Entry> = keys(600).iter().map(|key| entry(&cluster, key, "x", 5)).collect();
    plant(&mut cluster, &[N1, N2], &same);
    cluster.run(SECOND * 30, |_, _| false);
    // One leaf of each partition differs, and holds some five entries of three hundred.
    let newer: Vec<Entry> = keys(50).iter().map(|key| entry(&cluster, key, "y", 6)).collect();
    let partition_of = |entry: &Entry| partition_of_place(entry.place.as_bytes());
    let of_each = [0, 1].map(|one| newer.iter().find(|entry| partition_of(entry) == Some(one)));
    let newer = of_each.map(|entry| entry.cloned().unwrap());
    for entry in &newer {
        cluster.crash(N1, 0);
        cluster.plant(N1, entry.clone());
        cluster.start(N1);
    }
    let repaired = |cluster: &Cluster| {
        let store = &cluster.node(N2).disk.store.entries;
        newer.iter().filter(|entry| store.values().any(|stored| stored == *entry)).count()
    };
    for _ in 0..1_000 {
        if repaired(&cluster) > 0 {
            break;
        }
        cluster.run(Duration::from_millis(10), |_, _| false);
    }
    cluster.run(Duration::from_millis(300), |_, _| false);
    assert_eq!(repaired(&cluster), 1, "a partition of 10,000 bytes and more takes a second");
    cluster.run(SECOND * 20, |_, _| false);
    assert_eq!(repaired(&cluster), 2);
}

#[test]
fn node_that_lost_its_disk_is_whole_after_comparing_with_everybody() {
    let mut cluster = syncing_cluster();
    let entries: Vec<Entry> = keys(30).iter().map(|key| entry(&cluster, key, key, 5)).collect();
    plant(&mut cluster, &[N1, N2], &entries[..15]);
    plant(&mut cluster, &[N1, N3], &entries[15..]);
    let cut = |from: NodeId, to: NodeId| from == N3 || to == N3;
    cluster.wipe(N1);
    cluster.start(N1);
    cluster.run(SECOND * 5, cut);
    assert!(!cluster.core(N1).status().is_whole, "n3 may have what n2 has not");
    cluster.crash(N1, 0);
    cluster.start(N1);
    cluster.run(SECOND * 3, cut);
    assert!(!cluster.core(N1).status().is_whole, "it remembers over a restart");
    cluster.run(SECOND * 8, |_, _| false);
    assert!(cluster.core(N1).status().is_whole);
    assert_eq!(visible(&cluster, N1).len(), 30);
    cluster.crash(N1, 0);
    cluster.start(N1);
    assert!(cluster.core(N1).status().is_whole, "that too it remembers");
}

#[test]
fn node_that_is_not_whole_answers_no_reads() {
    use super::super::Reply;
    let mut cluster = syncing_cluster();
    let value = entry(&cluster, "k", "v", 5);
    plant(&mut cluster, &[N1, N2, N3], &[value]);
    cluster.wipe(N1);
    cluster.start(N1);
    let cut = |from: NodeId, to: NodeId| from == N3 || to == N3;
    cluster.run(SECOND * 2, cut);
    let token = cluster.read(N1, Level::One, &["k"]);
    cluster.settle(cut);
    assert_eq!(cluster.values(token), ["v"], "n2 answers");
    let token = cluster.read(N1, Level::Quorum, &["k"]);
    let unavailable = Reply::Unavailable { needed: 2, alive: 1 };
    assert_eq!(cluster.readers.replies.get(&token), Some(&unavailable));
}

#[test]
fn late_answer_of_an_earlier_session_is_ignored() {
    let mut cluster = syncing_cluster();
    let value = entry(&cluster, "k", "v", 5);
    plant(&mut cluster, &[N2], std::slice::from_ref(&value));
    let id = super::super::RequestId { generation: 1, number: 1 };
    let late = SyncMessage::Difference {
        id,
        entries: vec![entry(&cluster, "other", "v", 5)],
        wanted: Vec::new(),
        covered: None,
        floor: Stamp::ZERO,
    };
    cluster.step(N1, Input::Peer { from: N2, message: Message::Sync(late) });
    cluster.run(SECOND * 2, |_, _| false);
    assert_eq!(stored(&cluster, N1, "other"), None);
    assert_eq!(stored(&cluster, N1, "k"), Some(value));
}

#[cfg(feature = "testing")]
#[test]
fn anti_entropy_without_tombstones_is_caught() {
    crate::base::planted::loses_only_with("D21", || {
        let mut cluster = syncing_cluster();
        let (value, deleted) = (entry(&cluster, "k", "v", 5), tombstone(&cluster, "k", 6));
        plant(&mut cluster, &[N1, N2, N3], &[value]);
        plant(&mut cluster, &[N2], &[deleted]);
        cluster.run(SECOND * 2, |_, _| false);
        !are_equal(&cluster)
    });
}

/// The accident: a node had a tombstone later than its own ceiling on its disk when it started, and
/// took the ceiling for the latest that there was. When the second floor after that passed it, the
/// tree was still taken for known, with the tombstone in it. Tells whether it is.
fn tree_keeps_what_the_floor_covers() -> bool {
    let mut cluster = Cluster::new(Shape { nodes: 3, factor: 3, partitions: 4 }, 1, raising);
    let partition_of = |key: &String| partition_of_place(cluster.place(key).as_bytes()).unwrap();
    let keys = keys(100);
    let steward = |key| cluster.placement.replicas(partition_of(key)).first();
    let key = keys.iter().find(|key| steward(key) == Some(&N1)).unwrap();
    let partition = partition_of(key);
    cluster.run(SECOND, |_, _| false);
    cluster.crash(N3, 0);
    cluster.node_mut(N1).skew_ms = 6_000;
    cluster.delete(N1, Level::Quorum, &[key]);
    cluster.settle(|_, _| false);
    let deleted = stored(&cluster, N1, key).unwrap();
    cluster.node_mut(N1).skew_ms = 0;
    // The share arrived, and the node died before it raised its ceiling.
    cluster.plant(N3, deleted.clone());
    cluster.start(N3);
    cluster.run(Duration::from_millis(150), |from, to| from == N3 || to == N3);
    let root = |cluster: &Cluster, id| {
        let core = cluster.core(id);
        core.trees.root(&core.context, partition)
    };
    assert!(root(&cluster, N3).is_some() && cluster.core(N3).context.clock.last() < deleted.stamp);
    cluster.run(SECOND * 12, |_, _| false);
    assert!(cluster.core(N3).floor(partition) >= deleted.stamp);
    let roots = [N1, N2, N3].map(|id| root(&cluster, id));
    assert!(roots[0].is_some() && roots[0] == roots[1], "{roots:?}");
    roots[0] != roots[2]
}

#[test]
fn tree_leaves_out_a_tombstone_that_was_ahead_of_the_clock() {
    assert!(!tree_keeps_what_the_floor_covers());
}

#[cfg(feature = "testing")]
#[test]
fn tree_that_trusts_the_clock_of_a_start_is_caught() {
    crate::base::planted::loses_only_with("D69", tree_keeps_what_the_floor_covers);
}
