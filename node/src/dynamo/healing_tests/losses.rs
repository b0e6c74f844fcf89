//! What a node said before its disk was lost.
//!
//! A write or a read may be counted later than the new disk is compared with the replica that it is
//! counted with. In each test one disk is lost, once; what follows is what the oracle of the
//! harness, or the next read, says about it.

use super::super::Level;
use super::super::harness::Envelope;
use super::super::{Message, Reply};
use super::*;

const N4: NodeId = NodeId(4);
const THREE: Shape = Shape { nodes: 3, factor: 3, partitions: 4 };
/// `d` is on n1 and n2; n1 shares nothing with n3.
const FOUR: Shape = Shape { nodes: 4, factor: 2, partitions: 8 };
const STEP: Duration = Duration::from_millis(10);

/// Nothing heals but a node that is not whole.
fn refilling(config: &mut Config, seed: u64) {
    quiet(config, seed);
    config.refill_interval = Duration::from_millis(100);
}

fn cluster_of(shape: Shape) -> Cluster {
    let mut cluster = Cluster::new(shape, 1, refilling);
    cluster.run(SECOND, |_, _| false);
    cluster
}

fn is_whole(cluster: &Cluster, id: NodeId) -> bool {
    cluster.core(id).is_whole()
}

/// Returns a cut of one connection.
fn between(one: NodeId, other: NodeId) -> impl Fn(NodeId, NodeId) -> bool {
    move |from, to| [(one, other), (other, one)].contains(&(from, to))
}

/// Exchanges the disk of n1, and lets some time pass, less than any time-out.
fn lose_disk_of_n1(cluster: &mut Cluster, cut: impl Fn(NodeId, NodeId) -> bool) {
    cluster.wipe(N1);
    cluster.start(N1);
    for _ in 0..120 {
        if is_whole(cluster, N1) {
            break;
        }
        cluster.run(STEP, &cut);
    }
}

/// Tells whether a promise is broken.
fn is_broken(rest: impl FnOnce()) -> bool {
    let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(rest)) else {
        return false;
    };
    let said = panic.downcast_ref::<String>().map_or("", |said| said);
    let is_known = ["is acknowledged at", "is not shown"].iter().any(|what| said.contains(what));
    assert!(is_known, "something else broke: {said}");
    true
}

/// A write has the acknowledgement of n1, whose disk is then lost, and gets that of n2 when n1 is
/// whole. Tells whether it is counted.
fn acknowledgement_of_a_lost_disk_counts() -> bool {
    let mut cluster = cluster_of(THREE);
    cluster.slow_disks.extend([N2, N3]);
    let token = cluster.put(N3, Level::Quorum, &["k"]);
    cluster.settle(|_, _| false);
    lose_disk_of_n1(&mut cluster, |_, _| false);
    cluster.slow_disks.clear();
    cluster.slow_disks.insert(N3);
    is_broken(|| {
        cluster.settle(|_, _| false);
        assert!(matches!(cluster.oracle.reply(token), Some(Reply::Written { .. })));
        cluster.read(N1, Level::Quorum, &["k"]);
        cluster.settle(between(N1, N2));
        cluster.slow_disks.clear();
        cluster.run(SECOND * 8, |_, _| false);
        assert!(is_whole(&cluster, N1) && stored(&cluster, N1, "k").is_some());
    })
}

#[test]
fn write_does_not_count_what_a_lost_disk_acknowledged() {
    assert!(!acknowledgement_of_a_lost_disk_counts());
}

/// The answer to a question of before the disk was lost is late.
#[test]
fn late_acknowledgement_of_a_lost_disk_is_none() {
    let mut cluster = cluster_of(THREE);
    cluster.slow_disks.extend([N2, N3]);
    let token = cluster.put(N3, Level::Quorum, &["k"]);
    let is_late = |e: &Envelope| e.from == N1 && matches!(e.message, Message::WriteReply { .. });
    let mut late = Vec::new();
    while late.is_empty() {
        cluster.flow(1);
        late.extend(cluster.network.iter().filter(|e| is_late(e)).cloned());
        cluster.network.retain(|e| !is_late(e));
    }
    cluster.wipe(N1);
    cluster.start(N1);
    cluster.flow(0);
    // The new start is heard of, and nothing of what it is sent is on its disk.
    cluster.slow_disks.insert(N1);
    cluster.settle(|_, _| false);
    for envelope in late {
        cluster.deliver(envelope);
    }
    cluster.slow_disks.remove(&N2);
    cluster.settle(|_, _| false);
    assert_eq!(cluster.oracle.reply(token), None, "n2 alone has it");
    cluster.slow_disks.clear();
    cluster.settle(|_, _| false);
    assert!(matches!(cluster.oracle.reply(token), Some(Reply::Written { .. })));
}

/// A read has found a value on n1 alone, whose disk is then lost, and repairs n3 when n1 is whole.
/// Tells whether it is shown, and the next read shows less.
fn answer_of_a_lost_disk_counts() -> bool {
    let mut cluster = cluster_of(THREE);
    let value = entry(&cluster, "k", "v", 5);
    plant(&mut cluster, &[N1], &[value]);
    cluster.slow_disks.insert(N3);
    cluster.read(N3, Level::Quorum, &["k"]);
    cluster.settle(between(N2, N3));
    lose_disk_of_n1(&mut cluster, between(N2, N3));
    assert!(is_whole(&cluster, N1), "it gets nothing from those who have nothing");
    cluster.slow_disks.clear();
    is_broken(|| {
        cluster.settle(between(N2, N3));
        assert!(stored(&cluster, N3, "k").is_some(), "it is repaired");
        cluster.read(N1, Level::Quorum, &["k"]);
        cluster.settle(|from, to| from == N3 || to == N3);
    })
}

#[test]
fn read_does_not_count_what_a_lost_disk_answered() {
    assert!(!answer_of_a_lost_disk_counts());
}

/// The coordinator n3 hears nothing of n1, whose disk was lost. Tells whether it counts n1 when
/// that is whole already.
fn new_disk_is_compared_too_early() -> bool {
    let mut cluster = cluster_of(FOUR);
    cluster.slow_disks.insert(N2);
    let token = cluster.put(N3, Level::Quorum, &["d"]);
    cluster.settle(|_, _| false);
    lose_disk_of_n1(&mut cluster, between(N1, N3));
    cluster.slow_disks.clear();
    is_broken(|| {
        cluster.settle(between(N1, N3));
        assert!(matches!(cluster.oracle.reply(token), Some(Reply::Written { .. })));
        cluster.run(SECOND * 3, between(N1, N3));
        assert!(is_whole(&cluster, N1) && stored(&cluster, N1, "d").is_some());
    })
}

#[test]
fn node_that_lost_its_disk_compares_nothing_before_nobody_counts_it() {
    assert!(!new_disk_is_compared_too_early());
}

#[test]
fn node_that_is_down_for_good_delays_a_new_disk_by_the_time_outs() {
    let mut cluster = cluster_of(FOUR);
    cluster.crash(N3, 0);
    cluster.wipe(N1);
    cluster.start(N1);
    cluster.run(Duration::from_millis(2_400), |_, _| false);
    assert!(!is_whole(&cluster, N1), "n3 may be up, and count");
    cluster.run(SECOND, |_, _| false);
    assert!(is_whole(&cluster, N1));

    cluster.start(N3);
    cluster.run(SECOND, |_, _| false);
    cluster.wipe(N1);
    cluster.start(N1);
    cluster.run(SECOND, |_, _| false);
    assert!(is_whole(&cluster, N1), "all have heard of it");
}

/// The coordinator n3 stands still, until n1 has lost its disk and is whole again; then the first
/// thing that it sees is the acknowledgement of n2. Tells whether it counts n1.
fn coordinator_that_stood_still_counts() -> bool {
    let mut cluster = cluster_of(FOUR);
    cluster.slow_disks.insert(N2);
    let token = cluster.put(N3, Level::Quorum, &["d"]);
    cluster.settle(|_, _| false);
    cluster.wipe(N1);
    cluster.start(N1);
    for _ in 0..600 {
        cluster.now = cluster.now + STEP;
        for id in [N1, N2, N4] {
            cluster.tick_if_due(id);
        }
        cluster.settle(|from, to| from == N3 || to == N3);
    }
    assert!(is_whole(&cluster, N1) && stored(&cluster, N1, "d").is_none());
    cluster.persist(N2, usize::MAX);
    cluster.network.retain(|e| matches!(e.message, Message::WriteReply { .. }));
    assert_eq!(cluster.network.len(), 1, "{:?}", cluster.network);
    is_broken(|| {
        cluster.flow(1);
        assert_eq!(cluster.oracle.reply(token), None);
        cluster.pass(STEP);
        assert_eq!(cluster.oracle.reply(token), Some(&Reply::Timeout));
    })
}

#[test]
fn coordinator_that_stood_still_counts_nothing_after_the_time_out() {
    assert!(!coordinator_that_stood_still_counts());
}

/// The coordinator n3 of a read stands still while its own disk makes durable what n2 alone has
/// told it. Tells whether it counts n2, whose disk may have been lost long ago.
fn reader_that_stood_still_counts() -> bool {
    let mut cluster = cluster_of(FOUR);
    let value = entry(&cluster, "g", "v", 5);
    plant(&mut cluster, &[N2], &[value]);
    cluster.slow_disks.insert(N3);
    let token = cluster.read(N3, Level::Quorum, &["g"]);
    cluster.settle(|_, _| false);
    cluster.now = cluster.now + SECOND * 3;
    cluster.persist(N3, usize::MAX);
    assert!(stored(&cluster, N3, "g").is_some(), "it is repaired");
    let is_answered = cluster.readers.replies.contains_key(&token);
    cluster.pass(STEP);
    assert!(cluster.readers.replies.contains_key(&token));
    is_answered
}

#[test]
fn reader_that_stood_still_counts_nothing_after_the_time_out() {
    assert!(!reader_that_stood_still_counts());
}

#[cfg(feature = "testing")]
mod planted_bugs {
    use super::*;
    use crate::base::planted::loses_only_with;

    #[test]
    fn lost_disk_that_is_counted_is_caught() {
        loses_only_with("D71", acknowledgement_of_a_lost_disk_counts);
        loses_only_with("D71", answer_of_a_lost_disk_counts);
    }

    #[test]
    fn new_disk_that_compares_at_once_is_caught() {
        loses_only_with("D72", new_disk_is_compared_too_early);
    }

    #[test]
    fn count_after_the_time_out_is_caught() {
        loses_only_with("D73", coordinator_that_stood_still_counts);
        loses_only_with("D73", reader_that_stood_still_counts);
    }
}
