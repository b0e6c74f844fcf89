//! Floors and ghosts.

use super::super::harness::Envelope;
use super::super::{
    Dynamo, Level, Message, Partition, Reply, RequestId, SyncMessage, WriteOutcome,
};
use super::*;

fn raising_cluster() -> Cluster {
    Cluster::new(Shape { nodes: 3, factor: 3, partitions: 4 }, 1, raising)
}

fn partition_of(cluster: &Cluster, key: &str) -> Partition {
    super::super::placement::partition_of_place(cluster.place(key).as_bytes()).unwrap()
}

/// Returns the floor of a key's partition at a node.
fn floor(cluster: &Cluster, id: NodeId, key: &str) -> Stamp {
    cluster.core(id).floor(partition_of(cluster, key))
}

#[test]
fn floor_rises_over_a_delete_that_is_everywhere_and_the_tombstone_goes() {
    let mut cluster = raising_cluster();
    cluster.put(N1, Level::All, &["k"]);
    cluster.settle(|_, _| false);
    cluster.delete(N1, Level::All, &["k"]);
    cluster.settle(|_, _| false);
    let deleted = stored(&cluster, N1, "k").unwrap();
    cluster.run(SECOND * 5, |_, _| false);
    for id in [N1, N2, N3] {
        assert!(floor(&cluster, id, "k") >= deleted.stamp, "{id}: {}", floor(&cluster, id, "k"));
    }
    assert!(cluster.purge() > 0);
    assert_eq!(stored(&cluster, N2, "k"), None);
    cluster.run(SECOND * 3, |_, _| false);
    let token = cluster.read(N1, Level::Quorum, &["k"]);
    cluster.settle(|_, _| false);
    assert_eq!(cluster.values(token), [""; 0]);
}

#[test]
fn floor_rests_while_nobody_deletes() {
    let mut cluster = raising_cluster();
    cluster.run(SECOND * 5, |_, _| false);
    cluster.put(N1, Level::All, &["k"]);
    cluster.run(SECOND * 3, |_, _| false);
    cluster.trace = Some(Vec::new());
    cluster.run(SECOND * 5, |_, _| false);
    let trace = cluster.trace.take().unwrap();
    assert!(trace.iter().all(|line| !line.contains("Fence")), "{trace:?}");
}

#[test]
fn floor_waits_while_a_node_is_away() {
    let mut cluster = raising_cluster();
    cluster.crash(N3, 0);
    cluster.run(SECOND, |_, _| false);
    cluster.delete(N1, Level::Quorum, &["k"]);
    cluster.run(SECOND * 10, |_, _| false);
    let deleted = stored(&cluster, N1, "k").unwrap();
    assert!(floor(&cluster, N1, "k") < deleted.stamp);
    assert_eq!(cluster.purge(), 0, "the tombstone is needed when n3 is back");
    cluster.start(N3);
    cluster.run(SECOND * 10, |_, _| false);
    assert!(floor(&cluster, N3, "k") >= deleted.stamp);
}

#[test]
fn floor_survives_a_restart() {
    let mut cluster = raising_cluster();
    cluster.delete(N1, Level::All, &["k"]);
    cluster.run(SECOND * 6, |_, _| false);
    let before = floor(&cluster, N2, "k");
    assert!(before > Stamp::ZERO);
    cluster.crash(N2, 0);
    cluster.start(N2);
    assert_eq!(floor(&cluster, N2, "k"), before);
}

/// The accident: trees were built from the lowest partition on. Raised floors made those unknown
/// again, which were built first again, and so the higher ones never had a tree, nor a floor.
#[test]
fn floors_of_all_partitions_rise_although_trees_are_built_slowly() {
    let configure = |config: &mut Config, seed| {
        raising(config, seed);
        config.tree_interval = Duration::from_millis(500);
    };
    let shape = Shape { nodes: 3, factor: 3, partitions: 4 };
    let mut cluster = Cluster::new(shape, 1, configure);
    let key_in = |partition| {
        let mut keys = (0..100).map(|key| format!("k{key}"));
        keys.find(|key| partition_of(&cluster, key) == partition).unwrap()
    };
    let keys: Vec<String> = (0..shape.partitions).map(key_in).collect();
    let mut first_deletes = Vec::new();
    let mut were_known = vec![false; keys.len()];
    for _ in 0..60 {
        for (partition, key) in (0..).zip(&keys) {
            cluster.delete(N1, Level::All, &[key]);
            cluster.settle(|_, _| false);
            first_deletes.push(stored(&cluster, N1, key).map(|entry| entry.stamp));
            let Dynamo { trees, context, .. } = cluster.core(N1);
            were_known[usize::from(partition)] |= trees.leaves(context, partition).is_some();
        }
        first_deletes.truncate(keys.len());
        cluster.run(Duration::from_millis(250), |_, _| false);
    }
    assert!(were_known.iter().all(|is| *is), "{were_known:?}");
    for (key, deleted) in keys.iter().zip(first_deletes) {
        let floor = floor(&cluster, N1, key);
        assert!(deleted.is_some_and(|stamp| stamp < floor), "{key}: {deleted:?}, {floor}");
    }
}

/// Deletes a key, has the tombstone forgotten, and brings a node back with the disk of before.
fn with_an_old_disk() -> Cluster {
    let mut cluster = raising_cluster();
    cluster.put(N1, Level::All, &["k"]);
    cluster.run(SECOND, |_, _| false);
    let old = cluster.node(N3).disk.clone();
    cluster.delete(N1, Level::All, &["k"]);
    cluster.run(SECOND * 6, |_, _| false);
    assert!(cluster.purge() > 0);
    cluster.restore(N3, old);
    assert!(stored(&cluster, N3, "k").is_some_and(|entry| !entry.is_tombstone()));
    cluster
}

/// Tells whether a value that was deleted is shown or kept by anybody in the end.
fn old_disk_resurrects() -> bool {
    let mut cluster = with_an_old_disk();
    // Before the old node has compared itself with anybody.
    cluster.flow(40);
    let token = cluster.read(N1, Level::Quorum, &["k"]);
    cluster.run(SECOND * 5, |_, _| false);
    let is_shown =
        cluster.readers.replies.contains_key(&token) && !cluster.values(token).is_empty();
    let is_value = |id| stored(&cluster, id, "k").is_some_and(|entry| !entry.is_tombstone());
    is_shown || [N1, N2, N3].into_iter().any(is_value)
}

/// A node comes back with an older disk, and its clock as far back; a client writes there before
/// anybody is heard. Tells whether the write is acknowledged and then erased as a ghost.
fn new_write_of_an_old_disk_is_erased() -> bool {
    let configure = |config: &mut Config, seed| {
        raising(config, seed);
        // Until the next heartbeats come.
        config.write_timeout = Duration::from_millis(400);
    };
    let mut cluster = Cluster::new(Shape { nodes: 3, factor: 3, partitions: 4 }, 1, configure);
    cluster.run(SECOND, |_, _| false);
    let old = cluster.node(N3).disk.clone();
    cluster.run(SECOND * 5, |_, _| false);
    cluster.delete(N1, Level::All, &["k"]);
    cluster.run(SECOND * 6, |_, _| false);
    assert!(cluster.purge() > 0 && floor(&cluster, N1, "k").ms() > 16_000);
    let cut_off = |from: NodeId, to: NodeId| from == N3 || to == N3;
    cluster.node_mut(N3).skew_ms = -7_000;
    cluster.restore(N3, old);
    cluster.settle(cut_off);
    let token = cluster.put(N3, Level::One, &["k"]);
    cluster.settle(cut_off);
    cluster.run(SECOND * 5, |_, _| false);
    let reply = cluster.oracle.reply(token);
    assert!(matches!(reply, Some(Reply::Written { .. })), "{reply:?}");
    !is_value_anywhere(&cluster)
}

#[test]
fn new_write_of_an_old_disk_stays() {
    assert!(!new_write_of_an_old_disk_is_erased());
}

/// The accident (seed 210000197 of the storage profile): a write was on one disk alone when that
/// was lost, floors rose over it, and an older disk brought it back. It was under everybody's
/// floor, so nobody took it, and over what the others had, so nobody erased it: the replicas
/// differed for ever. Tells whether they still do.
fn stray_stays_on_one_disk() -> bool {
    let mut cluster = raising_cluster();
    let older = entry(&cluster, "k", "older", 1_000);
    let stray = entry(&cluster, "k", "stray", 2_000);
    plant(&mut cluster, &[N1, N2, N3], &[older]);
    let before = cluster.node(N3).disk.clone();
    cluster.crash(N3, 0);
    cluster.plant(N3, stray.clone());
    let old = cluster.node(N3).disk.clone();
    cluster.restore(N3, before);
    // Tombstones for every partition: floors rise for their sake.
    for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        cluster.delete(N1, Level::All, &[key]);
    }
    cluster.run(SECOND * 6, |_, _| false);
    assert!(floor(&cluster, N1, "k") > stray.stamp, "{}", floor(&cluster, N1, "k"));
    cluster.restore(N3, old);
    cluster.run(SECOND * 6, |_, _| false);
    let has_stray = |id| stored(&cluster, id, "k").as_ref() == Some(&stray);
    assert!(has_stray(N3), "it is the newest that anybody has");
    !(has_stray(N1) && has_stray(N2) && are_equal(&cluster))
}

#[test]
fn write_that_all_had_lost_comes_from_an_old_disk_to_all() {
    assert!(!stray_stays_on_one_disk());
}

#[test]
fn old_disk_resurrects_nothing() {
    assert!(!old_disk_resurrects());
}

#[test]
fn quorum_read_with_an_old_disk_drops_the_ghost() {
    let mut cluster = with_an_old_disk();
    let cut = |from: NodeId, to: NodeId| from == N2 || to == N2;
    for _ in 0..30 {
        cluster.flow(1);
    }
    let token = cluster.read(N1, Level::Quorum, &["k"]);
    cluster.settle(cut);
    if cluster.readers.replies.contains_key(&token) {
        assert_eq!(cluster.values(token), [""; 0]);
    }
    cluster.run(SECOND * 5, |_, _| false);
    assert!(are_equal(&cluster));
}

/// Returns how many more records wait for the full disk of n3 after a while than before.
fn records_that_gather(cluster: &mut Cluster) -> usize {
    let mut waiting = || {
        // What comes once, such as a floor of each partition, has come by then.
        cluster.run(SECOND * 20, |_, _| false);
        cluster.core(N3).status().records_waiting
    };
    let before = waiting();
    waiting() - before
}

/// The accident: every session of anti-entropy found the ghosts of a node without space again, and
/// had it erase them once more, when there would be space.
#[test]
fn ghosts_on_a_full_disk_are_erased_once_there_is_space() {
    let mut cluster = with_an_old_disk();
    // It starts, and compares nothing yet.
    for _ in 0..200 {
        cluster.network.retain(|envelope| !matches!(envelope.message, Message::Sync(_)));
        cluster.flow(cluster.network.len());
        cluster.pass(Duration::from_millis(10));
    }
    assert!(cluster.core(N1).is_up(N3));
    cluster.fill(N3, true);
    let ghost = stored(&cluster, N3, "k");
    assert!(ghost.as_ref().is_some_and(|ghost| !ghost.is_tombstone()), "{ghost:?}");
    let sessions = cluster.core(N1).status().sync_sessions;
    assert_eq!(records_that_gather(&mut cluster), 0);
    assert!(cluster.core(N1).status().sync_sessions > sessions, "nobody compares");
    assert_eq!(stored(&cluster, N3, "k"), ghost);
    cluster.fill(N3, false);
    cluster.run(SECOND * 5, |_, _| false);
    assert!(!is_value_anywhere(&cluster) && are_equal(&cluster));
}

/// The accident: each attempt to raise floors asked a node without space for one more promise, and
/// each two seconds it wanted one more ceiling for its stamps.
#[test]
fn promises_and_ceilings_do_not_gather_on_a_full_disk() {
    let mut cluster = raising_cluster();
    cluster.delete(N1, Level::All, &["k"]);
    cluster.settle(|_, _| false);
    let deleted = stored(&cluster, N1, "k").unwrap();
    cluster.fill(N3, true);
    assert_eq!(records_that_gather(&mut cluster), 0);
    assert!(floor(&cluster, N1, "k") < deleted.stamp, "n3 has promised nothing");
    cluster.fill(N3, false);
    cluster.run(SECOND * 10, |_, _| false);
    assert!(floor(&cluster, N1, "k") >= deleted.stamp);
    let token = cluster.put(N3, Level::Quorum, &["k"]);
    cluster.settle(|_, _| false);
    assert!(matches!(cluster.oracle.reply(token), Some(Reply::Written { .. })), "it has a ceiling");
}

#[test]
fn late_write_under_the_floor_is_refused() {
    let mut cluster = raising_cluster();
    cluster.delete(N1, Level::All, &["k"]);
    cluster.run(SECOND * 6, |_, _| false);
    cluster.purge();
    let late = entry(&cluster, "k", "late", 9_000);
    assert!(late.stamp <= floor(&cluster, N2, "k"));
    for is_repair in [false, true] {
        let (id, entries) = (RequestId { generation: 1, number: 9_999 }, vec![late.clone()]);
        let message = if is_repair {
            Message::Repair { id, entries }
        } else {
            Message::Write { id, entries }
        };
        cluster.step(N2, Input::Peer { from: N1, message });
        let refused = cluster.network.iter().any(|envelope| {
            let outcome = WriteOutcome::Refused;
            envelope.from == N2 && envelope.message == Message::WriteReply { id, outcome }
        });
        assert!(refused, "repair: {is_repair}");
        cluster.run(SECOND, |_, _| false);
        assert_eq!(stored(&cluster, N2, "k"), None);
    }
}

#[test]
fn fence_bars_a_late_write_but_no_repair() {
    let mut cluster = raising_cluster();
    cluster.run(SECOND * 5, |_, _| false);
    let id = RequestId { generation: 1, number: 9_999 };
    let stamp = Stamp::new(11_000, 9, N1);
    let fence = SyncMessage::Fence { id, stamp };
    cluster.step(N2, Input::Peer { from: N1, message: Message::Sync(fence) });
    let held = entry(&cluster, "new", "held", 11_000);
    assert!(held.stamp > floor(&cluster, N2, "new"));
    let entries = vec![held.clone()];
    cluster.step(N2, Input::Peer { from: N1, message: Message::Write { id, entries } });
    let refused = WriteOutcome::Refused;
    let is_refused =
        cluster.network.iter().any(|e| e.message == Message::WriteReply { id, outcome: refused });
    assert!(is_refused, "{:?}", cluster.network);
    let entries = vec![held.clone()];
    cluster.step(N2, Input::Peer { from: N1, message: Message::Repair { id, entries } });
    cluster.flow(0);
    assert_eq!(stored(&cluster, N2, "new"), Some(held));
}

#[test]
fn fence_is_no_promise_while_a_hint_is_kept() {
    let configure = |config: &mut Config, seed| {
        raising(config, seed);
        config.repair.hints = true;
        config.sync_interval = HOUR;
    };
    let mut cluster = Cluster::new(Shape { nodes: 3, factor: 3, partitions: 4 }, 1, configure);
    let cut = |from: NodeId, to: NodeId| (from, to) == (N1, N3) || (from, to) == (N3, N1);
    cluster.run(SECOND, cut);
    cluster.delete(N1, Level::Quorum, &["k"]);
    cluster.run(SECOND * 10, cut);
    let hinted = stored(&cluster, N1, "k").unwrap();
    assert!(cluster.core(N1).status().low_water <= hinted.stamp, "n1 keeps a hint");
    for id in [N1, N2, N3] {
        assert!(floor(&cluster, id, "k") < hinted.stamp, "{id}");
    }
}

#[test]
fn damaged_node_forgets_its_floors() {
    let mut cluster = raising_cluster();
    cluster.delete(N1, Level::All, &["k"]);
    cluster.run(SECOND * 6, |_, _| false);
    assert!(floor(&cluster, N3, "k") > Stamp::ZERO);
    cluster.crash(N3, 0);
    cluster.damage(N3);
    cluster.start(N3);
    assert_eq!(floor(&cluster, N3, "k"), Stamp::ZERO);
    assert!(!cluster.core(N3).status().is_whole);
    cluster.run(SECOND * 8, |_, _| false);
    assert!(cluster.core(N3).status().is_whole);
    assert!(floor(&cluster, N3, "k") > Stamp::ZERO);
}

#[test]
fn single_node_raises_its_floors_alone() {
    let mut cluster = Cluster::new(Shape { nodes: 1, factor: 1, partitions: 4 }, 1, raising);
    cluster.delete(N1, Level::All, &["k"]);
    cluster.run(SECOND * 6, |_, _| false);
    assert_eq!(cluster.purge(), 1);
}

#[test]
fn single_node_that_lost_its_disk_is_whole_at_once() {
    let mut cluster = Cluster::new(Shape { nodes: 1, factor: 1, partitions: 4 }, 1, raising);
    cluster.wipe(N1);
    cluster.start(N1);
    cluster.run(SECOND, |_, _| false);
    assert!(cluster.core(N1).status().is_whole);
}

/// Tells whether a floor rises above a write that a hint has still to deliver.
#[cfg(feature = "testing")]
fn floor_overtakes_a_hint() -> bool {
    let configure = |config: &mut Config, seed| {
        raising(config, seed);
        config.repair.hints = true;
    };
    let mut cluster = Cluster::new(Shape { nodes: 3, factor: 3, partitions: 4 }, 1, configure);
    let cut = |from: NodeId, to: NodeId| (from, to) == (N1, N3) || (from, to) == (N3, N1);
    cluster.run(SECOND, cut);
    // Its steward is n2, who sees everybody, but not the hint.
    let key = (0..100).map(|key| format!("k{key}"));
    let key = key.into_iter().find(|key| partition_of(&cluster, key) == 1).unwrap();
    cluster.delete(N1, Level::Quorum, &[&key]);
    cluster.run(SECOND * 10, cut);
    cluster.ids().into_iter().any(|id| {
        let notes = &cluster.node(N1).disk.store.notes;
        let hints = notes.iter().filter_map(|(place, content)| {
            let kind = super::super::notes::Kind::of(place.as_bytes())?;
            let is_hint = matches!(kind, super::super::notes::Kind::Hint { .. });
            is_hint.then(|| super::super::notes::entries(content.as_bytes()))?
        });
        hints.flatten().any(|entry| entry.stamp <= floor(&cluster, id, &key))
    })
}

fn is_value_anywhere(cluster: &Cluster) -> bool {
    let mut values = cluster.ids().into_iter().flat_map(|id| visible(cluster, id));
    values.any(|entry| !entry.is_tombstone())
}

/// Tells whether a batch on an old disk brings back what was deleted: by the time at which its
/// coordinator replays it, it has taken over the others' floors.
fn old_batch_resurrects() -> bool {
    let shape = Shape { nodes: 4, factor: 3, partitions: 8 };
    let mut cluster = Cluster::new(shape, 1, raising);
    cluster.slow_disks.insert(N1);
    cluster.put(N1, Level::All, &["a", "d"]);
    cluster.settle(|_, _| false);
    cluster.persist(N1, usize::MAX);
    let old = cluster.node(N1).disk.clone();
    cluster.slow_disks.clear();
    cluster.run(SECOND, |_, _| false);
    cluster.delete(N1, Level::All, &["a", "d"]);
    cluster.run(SECOND * 6, |_, _| false);
    assert!(cluster.purge() > 0);
    cluster.restore(N1, old);
    cluster.run(Duration::from_millis(1_900), |_, _| false);
    assert!(floor(&cluster, N1, "a") > Stamp::ZERO);
    assert_eq!(cluster.core(N1).status().batches, 1, "it is not replayed yet");
    cluster.run(SECOND * 60, |_, _| false);
    assert_eq!(cluster.core(N1).status().batches, 0);
    is_value_anywhere(&cluster)
}

#[test]
fn old_batch_resurrects_nothing() {
    assert!(!old_batch_resurrects());
}

/// The accident: a coordinator asked for a holder and crashed before it had its own note. The
/// question was held up; an attempt to raise floors began, and it arrived when all but the holder
/// had promised to take nothing so old. Returns the holder.
fn batch_meets_fences(cluster: &mut Cluster) -> NodeId {
    cluster.run(SECOND * 3, |_, _| false);
    cluster.slow_disks.insert(N1);
    cluster.put(N1, Level::Quorum, &["a", "d"]);
    let batch = cluster.core(N1).context.clock.given();
    let is_question = |e: &Envelope| matches!(e.message, Message::BatchStore { .. });
    let at = cluster.network.iter().position(is_question).unwrap();
    let question = cluster.network.remove(at).unwrap();
    let holder = question.to;
    cluster.crash(N1, 0);
    cluster.slow_disks.clear();
    cluster.start(N1);
    let is_fence = |e: &Envelope| {
        let Message::Sync(SyncMessage::Fence { stamp, .. }) = &e.message else { return false };
        e.to == holder && *stamp >= batch
    };
    for _ in 0..1_000 {
        while !cluster.network.is_empty() && !cluster.network.iter().any(is_fence) {
            cluster.flow(1);
        }
        if cluster.network.iter().any(is_fence) {
            break;
        }
        cluster.pass(Duration::from_millis(10));
    }
    cluster.deliver(question);
    cluster.settle(|_, _| false);
    for id in cluster.ids() {
        let has_promised = cluster.core(id).context.fence >= batch;
        assert_eq!(has_promised, id != holder, "{id}");
    }
    holder
}

/// Tells whether half of that batch is left.
fn fences_tear_a_batch() -> bool {
    let shape = Shape { nodes: 4, factor: 2, partitions: 8 };
    let mut cluster = Cluster::new(shape, 1, raising);
    let holder = batch_meets_fences(&mut cluster);
    assert_eq!(cluster.core(holder).status().batches, 1);
    cluster.run(SECOND * 30, |_, _| false);
    assert!(cluster.ids().iter().all(|id| cluster.core(*id).status().batches == 0));
    let count =
        |key| cluster.ids().iter().filter(|id| stored(&cluster, **id, key).is_some()).count();
    let counts = [count("a"), count("d")];
    assert!(counts.contains(&2), "the holder had it: {counts:?}");
    counts.contains(&0)
}

#[test]
fn batch_that_some_fences_have_passed_is_stored_as_a_whole() {
    assert!(!fences_tear_a_batch());
}

/// Fences fail attempts, and go on for ever: floors must rise all the same when the batch is over.
#[test]
fn floor_rises_over_a_batch_that_fences_had_passed_when_it_is_over() {
    let shape = Shape { nodes: 4, factor: 2, partitions: 8 };
    let mut cluster = Cluster::new(shape, 1, raising);
    let holder = batch_meets_fences(&mut cluster);
    cluster.run(SECOND * 5, |_, _| false);
    let batch = cluster.core(holder).status().low_water;
    for id in cluster.ids() {
        let floors = (0..shape.partitions).map(|partition| cluster.core(id).floor(partition));
        assert!(floors.max() < Some(batch), "{id} passes what {holder} keeps");
    }
    cluster.run(SECOND * 20, |_, _| false);
    cluster.delete(N1, Level::All, &["a", "d"]);
    cluster.run(SECOND * 6, |_, _| false);
    for (id, key) in [(N1, "d"), (N2, "d"), (N3, "a"), (NodeId(4), "a")] {
        assert!(floor(&cluster, id, key) > batch, "{id}");
    }
    assert!(cluster.purge() > 0);
    assert!(!is_value_anywhere(&cluster));
}

/// Tells whether a ghost stays that arrives while an old disk compares itself with the others.
fn ghost_that_arrives_meanwhile_stays() -> bool {
    let mut cluster = raising_cluster();
    cluster.run(SECOND, |_, _| false);
    let old = cluster.node(N3).disk.clone();
    cluster.put(N1, Level::All, &["k"]);
    cluster.settle(|_, _| false);
    let ghost = stored(&cluster, N1, "k").unwrap();
    cluster.delete(N1, Level::All, &["k"]);
    cluster.run(SECOND * 6, |_, _| false);
    assert!(cluster.purge() > 0);
    cluster.restore(N3, old);
    cluster.settle(|_, _| false);
    cluster.slow_disks.insert(N3);
    let (id, entries) = (RequestId { generation: 1, number: 9_999 }, vec![ghost]);
    cluster.step(N3, Input::Peer { from: N2, message: Message::Repair { id, entries } });
    cluster.run(SECOND, |_, _| false);
    cluster.slow_disks.clear();
    cluster.settle(|_, _| false);
    assert!(is_value_anywhere(&cluster), "it was not refused");
    cluster.run(SECOND * 5, |_, _| false);
    assert!(floor(&cluster, N3, "k") > Stamp::ZERO);
    is_value_anywhere(&cluster)
}

#[test]
fn ghost_that_arrives_during_a_comparison_is_found_by_the_next() {
    assert!(!ghost_that_arrives_meanwhile_stays());
}

/// Tells whether an old disk shows what was deleted because it was told a floor that was raised
/// on what the node had before.
fn floor_for_the_last_life_resurrects() -> bool {
    let mut cluster = raising_cluster();
    cluster.put(N1, Level::All, &["k"]);
    cluster.run(SECOND, |_, _| false);
    let old = cluster.node(N3).disk.clone();
    cluster.delete(N1, Level::All, &["k"]);
    cluster.settle(|_, _| false);
    let deleted = stored(&cluster, N1, "k").unwrap();
    let partition = partition_of(&cluster, "k");
    let is_told = |envelope: &Envelope| {
        envelope.to == N3
            && matches!(
                &envelope.message,
                Message::Sync(SyncMessage::Floor { partitions, floor, .. })
                    if partitions.contains(&partition) && *floor >= deleted.stamp
            )
    };
    for _ in 0..1_000 {
        while !cluster.network.is_empty() && !cluster.network.iter().any(is_told) {
            cluster.flow(1);
        }
        if cluster.network.iter().any(is_told) {
            break;
        }
        cluster.pass(Duration::from_millis(10));
    }
    let told = cluster.network.iter().position(is_told).and_then(|at| cluster.network.remove(at));
    cluster.restore(N3, old);
    cluster.flow(0);
    cluster.deliver(told.unwrap());
    // Before it meets a tombstone that is still there.
    cluster.flow(100);
    assert!(cluster.purge() >= 2, "the others have forgotten the tombstone");
    cluster.run(SECOND * 10, |_, _| false);
    is_value_anywhere(&cluster)
}

#[test]
fn floor_for_the_last_life_is_not_believed() {
    assert!(!floor_for_the_last_life_resurrects());
}

#[cfg(feature = "testing")]
mod planted_bugs {
    use super::*;
    use crate::base::planted::loses_only_with;

    #[test]
    fn batch_below_the_own_floor_is_caught() {
        loses_only_with("D56", old_batch_resurrects);
    }

    #[test]
    fn fence_that_bars_a_replayed_batch_is_caught() {
        loses_only_with("D67", fences_tear_a_batch);
    }

    #[test]
    fn floor_that_is_taken_over_too_early_is_caught() {
        loses_only_with("D57", ghost_that_arrives_meanwhile_stays);
    }

    #[test]
    fn floor_of_the_last_life_is_caught() {
        loses_only_with("D58", floor_for_the_last_life_resurrects);
    }

    #[test]
    fn start_under_the_floor_of_others_is_caught() {
        loses_only_with("D75", new_write_of_an_old_disk_is_erased);
    }

    #[test]
    fn stray_that_nobody_takes_is_caught() {
        loses_only_with("D64", stray_stays_on_one_disk);
    }

    #[test]
    fn floor_from_the_own_clock_alone_is_caught() {
        loses_only_with("D50", floor_overtakes_a_hint);
    }

    #[test]
    fn ghosts_that_are_not_dropped_are_caught() {
        let is_caught = || std::panic::catch_unwind(old_disk_resurrects).unwrap_or(true);
        loses_only_with("D51", is_caught);
    }
}
