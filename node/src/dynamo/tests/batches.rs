//! Batches.

use super::*;
use crate::base::Stamp;
use crate::dynamo::Level;
use crate::dynamo::harness::Envelope;
use crate::dynamo::placement::partition_of_place;

fn batches(cluster: &Cluster, id: NodeId) -> usize {
    cluster.core(id).status().batches
}

fn holders(cluster: &Cluster) -> Vec<NodeId> {
    let ids = cluster.ids().into_iter();
    ids.filter(|&id| id != N1 && cluster.is_up(id) && batches(cluster, id) > 0).collect()
}

fn hintless(config: &mut Config, seed: u64) {
    plain(config, seed);
    config.repair.hints = false;
}

fn is_share(message: &Message) -> bool {
    matches!(message, Message::Write { .. } | Message::Repair { .. })
}

/// Returns a cluster in which the shares of a batch of N1 are on their way.
fn batch_under_way() -> Cluster {
    let mut cluster = cluster(FOUR);
    cluster.put(N1, Level::Quorum, &["a", "d"]);
    while !cluster.network.iter().any(|e| is_share(&e.message)) {
        cluster.flow(1);
    }
    cluster
}

#[test]
fn request_within_one_set_of_replicas_is_no_batch() {
    let mut cluster = cluster(FOUR);
    cluster.put(N1, Level::Quorum, &["a", "b", "c"]);
    assert_eq!(batches(&cluster, N1), 0);
}

#[test]
fn no_share_is_sent_before_the_batch_is_durable_twice() {
    let mut cluster = cluster(FOUR);
    cluster.slow_disks.extend(cluster.ids());
    let token = cluster.put(N1, Level::Quorum, &["a", "d"]);
    cluster.settle(nothing_cut);
    let [holder] = holders(&cluster)[..] else { panic!("{:?} hold it", holders(&cluster)) };
    cluster.persist(N1, usize::MAX);
    assert!(!cluster.network.iter().any(|e| is_share(&e.message)), "the holder has it not");
    cluster.persist(holder, usize::MAX);
    cluster.flow(1);
    assert!(cluster.network.iter().any(|e| is_share(&e.message)));
    cluster.slow_disks.clear();
    cluster.settle(nothing_cut);
    assert!(is_written(&cluster, token));
    assert_eq!((batches(&cluster, N1), holders(&cluster).len()), (0, 0));
}

#[test]
fn batch_without_anybody_to_hold_it_is_unavailable() {
    let mut cluster = cluster(Shape { nodes: 3, factor: 1, partitions: 8 });
    cluster.crash(N2, 0);
    cluster.crash(N3, 0);
    cluster.run(millis(1500), nothing_cut);
    let token = cluster.put(N1, Level::One, &["a", "b", "d", "g"]);
    assert!(matches!(cluster.oracle.reply(token), Some(Reply::Unavailable { .. })));
}

#[test]
fn holder_that_does_not_answer_is_replaced() {
    let mut cluster = cluster(FOUR);
    let token = cluster.put(N1, Level::Quorum, &["a", "d"]);
    assert_eq!(lose(&mut cluster, |m| matches!(m, Message::BatchStore { .. })), 1);
    cluster.run(millis(600), nothing_cut);
    assert!(is_written(&cluster, token));
}

#[test]
fn holder_finishes_what_its_coordinator_began() {
    let mut cluster = batch_under_way();
    // One share of three arrives.
    cluster.network.retain(|e| e.to == N4);
    cluster.settle(nothing_cut);
    cluster.crash(N1, 0);
    cluster.run(millis(9_000), nothing_cut);
    assert!(cluster.node(N3).disk.store.entries.is_empty());
    cluster.run(millis(2_000), nothing_cut);
    assert_eq!(cluster.node(N3).disk.store.entries.len(), 1, "the holder wrote it");
    assert_eq!(holders(&cluster).len(), 2, "n1 lacks its share, and none keeps a batch alone");
    cluster.start(N1);
    cluster.run(millis(5_000), nothing_cut);
    assert_eq!((batches(&cluster, N1), holders(&cluster).len()), (0, 0));
    cluster.oracle.check_healed(&cluster.nodes, &cluster.placement);
}

#[test]
fn coordinator_that_starts_again_finishes_its_batch() {
    let mut cluster = batch_under_way();
    cluster.network.clear();
    cluster.crash(N1, 0);
    cluster.start(N1);
    cluster.run(millis(4_000), nothing_cut);
    assert_eq!(batches(&cluster, N1), 0);
    for id in [N2, N3, N4] {
        assert_eq!(cluster.node(id).disk.store.entries.len(), 1, "{id} has its share");
    }
}

/// As when all who are up have a floor above the batch: they never hold it, and still take shares.
#[test]
fn batch_that_nobody_will_hold_is_replayed_after_all() {
    let mut cluster = batch_under_way();
    let [holder] = holders(&cluster)[..] else { panic!("{:?} hold it", holders(&cluster)) };
    cluster.network.clear();
    cluster.crash(N1, 0);
    cluster.wipe(holder);
    cluster.start(N1);
    cluster.start(holder);
    let mut asked = 0;
    while cluster.network.iter().all(|e| !is_share(&e.message)) {
        assert!(asked <= 8, "asked {asked} times");
        cluster.settle(nothing_cut);
        cluster.pass(millis(10));
        asked += lose(&mut cluster, |m| matches!(m, Message::BatchStore { .. }));
    }
    assert_eq!((asked, holders(&cluster)), (8, vec![]));
    cluster.settle(nothing_cut);
    assert_eq!(batches(&cluster, N1), 0);
    for id in [N2, N3, N4] {
        assert_eq!(cluster.node(id).disk.store.entries.len(), 1, "{id} has its share");
    }
}

/// The accident: a node that had been away kept many batches, which nobody would hold any more;
/// each was offered eight times, two seconds apart, and four of them at a time.
#[test]
fn batch_too_late_for_all_who_are_up_is_over_at_once() {
    let mut cluster = batch_under_way();
    cluster.network.clear();
    cluster.crash(N1, 0);
    cluster.run(millis(1_500), nothing_cut);
    for id in [N2, N3, N4] {
        let fence = Stamp::new(20_000, 0, N1);
        cluster.node_mut(id).core.as_mut().unwrap().context.fence = fence;
    }
    cluster.start(N1);
    cluster.run(millis(1_900), nothing_cut);
    assert_eq!(batches(&cluster, N1), 1, "it waits before it replays");
    cluster.run(millis(200), nothing_cut);
    assert_eq!(batches(&cluster, N1), 0);
}

#[test]
fn many_batches_take_turns_without_pauses() {
    let mut cluster = cluster(FOUR);
    for _ in 0..40 {
        cluster.put(N1, Level::Quorum, &["a", "d"]);
        cluster.settle(|from, _| from == N1);
    }
    assert_eq!(batches(&cluster, N1), 40);
    cluster.crash(N1, 0);
    cluster.start(N1);
    cluster.run(millis(1_900), nothing_cut);
    assert_eq!(batches(&cluster, N1), 40, "they wait before they are replayed");
    cluster.run(millis(1_000), nothing_cut);
    assert_eq!((batches(&cluster, N1), holders(&cluster).len()), (0, 0));
}

/// As long as nobody who lacks a batch is up it is neither read nor sent, and is in nobody's way.
#[test]
fn batch_that_a_node_lacks_who_is_down_is_in_nobodys_way() {
    let mut cluster = Cluster::new(FOUR, 1, hintless);
    for _ in 0..10 {
        cluster.put(N1, Level::One, &["a", "d"]);
    }
    cluster.run(millis(6_000), without(N4));
    assert_eq!(batches(&cluster, N1), 10, "n4 has them not");
    cluster.put(N1, Level::One, &["d", "g"]);
    cluster.settle(|_, to| to == N2 || to == N4);
    assert_eq!(batches(&cluster, N1), 11);
    cluster.run(millis(5_000), without(N4));
    assert_eq!(batches(&cluster, N1), 10);
}

/// The accident: with one replica of each key a hint counted as much as the replica, and the batch
/// was over while a half of it was nothing but a hint, which is dropped when it is old.
#[test]
fn batch_is_not_over_while_a_hint_is_all_that_there_is_of_a_half() {
    let mut cluster = cluster(Shape { nodes: 3, factor: 1, partitions: 8 });
    let of = |cluster: &Cluster, id: NodeId| {
        let is_its = |key: &&str| {
            let partition = partition_of_place(cluster.place(key).as_bytes()).unwrap();
            cluster.placement.is_replica(id, partition)
        };
        ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"].into_iter().find(is_its).unwrap()
    };
    let keys = [of(&cluster, N2), of(&cluster, N3)];
    cluster.put(N1, Level::One, &keys);
    cluster.run(millis(5_000), without(N3));
    assert_eq!(cluster.node(N2).disk.store.entries.len(), 1);
    assert!(cluster.core(N1).status().hints.contains_key(&N3), "no hint is kept");
    assert_eq!(batches(&cluster, N1), 1, "a half of it is a hint alone");
    cluster.run(millis(15_000), nothing_cut);
    assert_eq!(cluster.node(N3).disk.store.entries.len(), 1);
    assert_eq!((batches(&cluster, N1), holders(&cluster).len()), (0, 0));
}

#[test]
fn holder_that_started_again_still_takes_over() {
    let mut cluster = batch_under_way();
    let [holder] = holders(&cluster)[..] else { panic!("{:?} hold it", holders(&cluster)) };
    cluster.network.clear();
    cluster.crash(N1, 0);
    cluster.crash(holder, 0);
    cluster.start(holder);
    cluster.run(millis(13_000), nothing_cut);
    cluster.start(N1);
    cluster.run(millis(4_000), nothing_cut);
    cluster.oracle.check_healed(&cluster.nodes, &cluster.placement);
    assert_eq!(cluster.node(N3).disk.store.entries.len(), 1);
}

#[test]
fn batch_that_was_given_up_without_hints_is_replayed_until_all_have_it() {
    let mut cluster = Cluster::new(FOUR, 1, hintless);
    let token = cluster.put(N1, Level::One, &["a", "d"]);
    cluster.run(millis(3_000), without(N4));
    assert!(is_written(&cluster, token));
    assert_eq!(batches(&cluster, N1), 1, "n4 has not answered");
    cluster.run(millis(5_000), nothing_cut);
    assert_eq!((batches(&cluster, N1), holders(&cluster).len()), (0, 0));
    assert_eq!(cluster.node(N4).disk.store.entries.len(), 1);
}

#[test]
fn batch_that_is_over_before_its_holder_has_it_is_ended_there_too() {
    let mut cluster = cluster(FOUR);
    cluster.put(N1, Level::Quorum, &["a", "d"]);
    let late = cluster.network.pop_front().unwrap();
    cluster.run(millis(600), nothing_cut);
    assert_eq!(batches(&cluster, N1), 0);
    cluster.deliver(late);
    cluster.settle(nothing_cut);
    assert!(holders(&cluster).is_empty(), "{:?} hold it", holders(&cluster));
}

/// The accident: a coordinator whose disk was lost took a batch of which it knew nothing for one
/// that is over, and had the last node that held it forget it.
#[test]
fn coordinator_that_lost_its_disk_does_not_end_a_batch_of_an_earlier_start() {
    let mut cluster = batch_under_way();
    let batch = cluster.core(N1).context.clock.given();
    let [holder] = holders(&cluster)[..] else { panic!("{:?} hold it", holders(&cluster)) };
    cluster.network.clear();
    cluster.wipe(N1);
    cluster.start(N1);
    cluster.settle(|from, to| [from, to].contains(&holder));
    let again = Envelope { from: holder, to: N1, message: Message::BatchStored { batch } };
    cluster.deliver(again);
    cluster.settle(nothing_cut);
    assert_eq!(holders(&cluster), [holder], "nobody else has all of it");
}

#[test]
fn batch_damaged_on_the_disk_is_left_to_the_other_holder() {
    let mut cluster = batch_under_way();
    cluster.network.clear();
    cluster.crash(N1, 0);
    for content in cluster.node_mut(N1).disk.store.notes.values_mut() {
        if content.len() > 12 {
            *content = crate::dynamo::harness::payload("0123456789abcdef");
        }
    }
    cluster.start(N1);
    cluster.run(millis(3_000), nothing_cut);
    assert_eq!(batches(&cluster, N1), 0);
    cluster.run(millis(10_000), nothing_cut);
    cluster.oracle.check_healed(&cluster.nodes, &cluster.placement);
    assert_eq!(cluster.node(N3).disk.store.entries.len(), 1);
}

/// The accident: a coordinator lost its note, and its holder took over when it reached one replica
/// alone. Then the holder's disk came back as it had been before, unnoticed, and nobody knew of the
/// rest. Tells whether half of the batch is left; with `is_fenced`, if the fences of all but the
/// holder have passed the batch.
fn half_of_a_batch_is_left(is_fenced: bool) -> bool {
    let mut cluster = cluster(FOUR);
    let old: Vec<_> = cluster.nodes.iter().map(|(id, node)| (*id, node.disk.clone())).collect();
    cluster.slow_disks.insert(N1);
    cluster.put(N1, Level::Quorum, &["a", "d"]);
    cluster.settle(nothing_cut);
    let [holder] = holders(&cluster)[..] else { panic!("{:?} hold it", holders(&cluster)) };
    cluster.network.clear();
    cluster.crash(N1, 0);
    let reached = [N2, N3, N4].into_iter().find(|id| *id != holder).unwrap();
    for id in [N2, N3, N4].into_iter().filter(|id| is_fenced && *id != holder) {
        let fence = Stamp::new(10_000, 9, N1);
        cluster.node_mut(id).core.as_mut().unwrap().context.fence = fence;
    }
    cluster.run(millis(11_000), |from, to| {
        ![from, to].iter().all(|id| [holder, reached].contains(id))
    });
    assert_eq!(cluster.node(reached).disk.store.entries.len(), 1, "its share has arrived");
    let old = old.into_iter().find(|(id, _)| *id == holder).unwrap().1;
    cluster.restore(holder, old);
    cluster.slow_disks.clear();
    cluster.start(N1);
    cluster.run(millis(60_000), nothing_cut);
    let check = || cluster.oracle.check_healed(&cluster.nodes, &cluster.placement);
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err()
}

#[test]
fn batch_of_a_lone_holder_is_not_left_by_half() {
    assert!(!half_of_a_batch_is_left(false));
}

#[test]
fn batch_that_the_fences_of_all_others_have_passed_has_two_holders() {
    assert!(!half_of_a_batch_is_left(true));
}

/// Nothing heals but a node that is not whole.
fn refilling(config: &mut Config, seed: u64) {
    plain(config, seed);
    config.refill_interval = millis(100);
}

/// Returns a cluster whose N2 is down, and in which N1 and one other node that can be filled
/// without N2 keep a batch: a half of it is on the disk of N1 alone.
fn batch_that_waits_for_n2(seed: u64) -> Option<(Cluster, NodeId)> {
    let mut cluster = Cluster::new(Shape { nodes: 5, factor: 2, partitions: 8 }, seed, refilling);
    let of = |cluster: &Cluster, nodes: [NodeId; 2]| {
        let is_theirs = |key: &&str| {
            let partition = partition_of_place(cluster.place(key).as_bytes()).unwrap();
            cluster.placement.replicas(partition) == nodes
        };
        ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"].into_iter().find(is_theirs).unwrap()
    };
    let keys = [of(&cluster, [N1, N2]), of(&cluster, [N4, N5])];
    cluster.crash(N2, 0);
    cluster.run(millis(1_500), nothing_cut);
    cluster.put(N1, Level::One, &keys);
    cluster.run(millis(1_000), nothing_cut);
    assert_eq!(batches(&cluster, N1), 1, "n2 has it not");
    let [holder] = holders(&cluster)[..] else { panic!("{:?} hold it", holders(&cluster)) };
    (holder != N3).then_some((cluster, holder))
}

/// The accident: the holder of a batch lost its disk while a replica was down. The coordinator took
/// it for held, and had nothing to do before the replica was back; then it lost its own disk. Tells
/// whether half of the batch is left.
fn half_of_a_batch_is_left_by_two_losses() -> bool {
    let Some((mut cluster, holder)) = (1..20).find_map(batch_that_waits_for_n2) else {
        panic!("n3 is always the holder")
    };
    cluster.wipe(holder);
    cluster.start(holder);
    cluster.run(millis(4_000), nothing_cut);
    assert!(cluster.core(holder).is_whole(), "it was healed before the next one is lost");
    cluster.wipe(N1);
    cluster.start(N1);
    cluster.run(millis(1_000), nothing_cut);
    cluster.start(N2);
    cluster.run(millis(30_000), nothing_cut);
    let check = || cluster.oracle.check_healed(&cluster.nodes, &cluster.placement);
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err()
}

#[test]
fn batch_whose_holder_lost_its_disk_is_held_again() {
    let Some((mut cluster, holder)) = (1..20).find_map(batch_that_waits_for_n2) else {
        panic!("n3 is always the holder")
    };
    cluster.wipe(holder);
    assert_eq!(holders(&cluster), []);
    cluster.start(holder);
    cluster.run(millis(500), nothing_cut);
    let [again] = holders(&cluster)[..] else { panic!("{:?} hold it", holders(&cluster)) };
    // Whoever it is takes over at once, and has somebody else hold it as well.
    cluster.wipe(N1);
    cluster.start(N1);
    cluster.run(millis(500), nothing_cut);
    let keepers = cluster.ids().into_iter().filter(|id| *id != N2);
    let keepers: Vec<NodeId> = keepers.filter(|id| batches(&cluster, *id) > 0).collect();
    assert!(keepers.contains(&again) && keepers.len() == 2, "{keepers:?} keep it");
    cluster.start(N2);
    cluster.run(millis(5_000), nothing_cut);
    assert_eq!((batches(&cluster, N1), holders(&cluster)), (0, vec![]));
    cluster.oracle.check_healed(&cluster.nodes, &cluster.placement);
}

#[test]
fn batch_is_not_left_by_half_by_two_losses() {
    assert!(!half_of_a_batch_is_left_by_two_losses());
}

/// A share that only the lost disk had acknowledged, besides a hint, is on one disk.
#[test]
fn share_that_a_lost_disk_had_is_sent_again() {
    let mut cluster = batch_under_way();
    let late = |e: &Envelope| e.to == N4 && is_share(&e.message);
    cluster.network.retain(|e| !late(e));
    cluster.settle(without(N4));
    let had = cluster.node(N3).disk.store.entries.len();
    cluster.wipe(N3);
    cluster.start(N3);
    cluster.settle(without(N4));
    assert_eq!((had, cluster.node(N3).disk.store.entries.len()), (1, 1));
}

#[cfg(feature = "testing")]
#[test]
fn batch_that_is_not_held_again_is_caught() {
    let scenario = half_of_a_batch_is_left_by_two_losses;
    crate::base::planted::loses_only_with("D74", scenario);
}

#[cfg(feature = "testing")]
#[test]
fn batch_of_a_lone_holder_is_caught() {
    crate::base::planted::loses_only_with("D59", || half_of_a_batch_is_left(false));
}

#[cfg(feature = "testing")]
#[test]
fn fence_that_leaves_a_holder_alone_is_caught() {
    crate::base::planted::loses_only_with("D68", || half_of_a_batch_is_left(true));
}
