//! Starting, and what others are told about oneself.

use super::*;
use crate::base::Stamp;
use crate::dynamo::{Heartbeat, Input, Level};

fn heartbeats(cluster: &Cluster, from: NodeId) -> Vec<Heartbeat> {
    let sent = cluster.network.iter().filter(|envelope| envelope.from == from);
    sent.filter_map(|envelope| {
        let Message::Heartbeat(heartbeat) = &envelope.message else { return None };
        Some(heartbeat.clone())
    })
    .collect()
}

fn is_refused(cluster: &Cluster, token: Token) -> bool {
    cluster.oracle.reply(token) == Some(&Reply::NotReady)
}

/// Returns the stamp of a write, which must be acknowledged.
fn written(cluster: &Cluster, token: Token) -> Stamp {
    match cluster.oracle.reply(token) {
        Some(Reply::Written { stamp }) => *stamp,
        reply => panic!("#{token} is answered {reply:?}"),
    }
}

#[test]
fn node_says_nothing_before_its_generation_is_durable() {
    let mut cluster = cluster(THREE);
    cluster.crash(N1, 0);
    cluster.slow_disks.insert(N1);
    cluster.start(N1);
    cluster.put(N1, Level::One, &["k"]);
    cluster.run(millis(1000), nothing_cut);
    assert!(!cluster.network.iter().any(|envelope| envelope.from == N1));
    assert!(!cluster.core(N2).is_up(N1));
    cluster.persist(N1, usize::MAX);
    let heartbeats = heartbeats(&cluster, N1);
    assert!(heartbeats.iter().all(|heartbeat| heartbeat.generation == 2) && !heartbeats.is_empty());
}

#[test]
fn node_that_crashed_before_its_generation_was_durable_takes_it_again() {
    let mut cluster = cluster(THREE);
    for _ in 0..3 {
        cluster.crash(N1, 0);
        cluster.start(N1);
    }
    assert_eq!(cluster.core(N1).status().generation, 2);
    cluster.settle(nothing_cut);
    cluster.crash(N1, 0);
    cluster.start(N1);
    assert_eq!(cluster.core(N1).status().generation, 3);
}

#[test]
fn stamps_after_a_restart_are_larger_though_the_wall_clock_went_back() {
    let mut cluster = Cluster::new(THREE, 1, short);
    let stamp = |cluster: &mut Cluster| {
        let token = cluster.put(N1, Level::One, &["k"]);
        cluster.settle(|from, to| from != N1 || to != N1);
        match cluster.oracle.reply(token) {
            Some(Reply::Written { stamp }) => *stamp,
            reply => panic!("{reply:?}"),
        }
    };
    let before = stamp(&mut cluster);
    cluster.crash(N1, 0);
    cluster.node_mut(N1).skew_ms = -9_000;
    cluster.start(N1);
    cluster.run(millis(900), |from, to| from != N1 || to != N1);
    let after = stamp(&mut cluster);
    assert!(after > before && after.ms() <= before.ms() + 2_000, "{after} after {before}");
}

#[test]
fn request_that_needs_a_higher_ceiling_waits_for_the_disk() {
    let mut cluster = Cluster::new(THREE, 1, short);
    cluster.slow_disks.insert(N1);
    cluster.node_mut(N1).skew_ms = 5_000;
    let token = cluster.put(N1, Level::Quorum, &["k"]);
    cluster.settle(nothing_cut);
    assert_eq!((cluster.core(N1).status().waiting, is_written(&cluster, token)), (1, false));
    cluster.persist(N1, usize::MAX);
    cluster.settle(nothing_cut);
    assert!(is_written(&cluster, token));
}

#[test]
fn peer_of_another_placement_is_never_up() {
    let mut cluster = cluster(THREE);
    cluster.crash(N2, 0);
    cluster.run(millis(1500), nothing_cut);
    let heartbeat = Heartbeat {
        generation: 9,
        clock: Stamp::ZERO,
        wall_ms: 10_000,
        heard: 0,
        placement: 123,
        low_water: Stamp::ZERO,
        is_whole: true,
    };
    cluster.step(N1, Input::Peer { from: N2, message: Message::Heartbeat(heartbeat.clone()) });
    assert!(!cluster.core(N1).is_up(N2));
    let placement = cluster.placement.hash();
    let message = Message::Heartbeat(Heartbeat { placement, ..heartbeat });
    cluster.step(N1, Input::Peer { from: N2, message: message.clone() });
    assert!(cluster.core(N1).is_up(N2));
    cluster.step(N1, Input::Peer { from: NodeId(9), message });
    assert!(!cluster.core(N1).is_up(NodeId(9)), "a stranger");
}

#[test]
fn node_whose_disk_was_lost_says_so_and_is_heard_as_a_new_start() {
    let mut cluster = cluster(THREE);
    cluster.run(millis(500), nothing_cut);
    cluster.wipe(N1);
    cluster.start(N1);
    assert!(!cluster.core(N1).status().is_whole);
    cluster.persist(N1, usize::MAX);
    let told = heartbeats(&cluster, N1);
    assert!(told.iter().all(|heartbeat| !heartbeat.is_whole && heartbeat.generation > 10_000));
    cluster.settle(nothing_cut);
    assert!(cluster.core(N2).is_up(N1));
    cluster.crash(N1, 0);
    cluster.start(N1);
    assert!(!cluster.core(N1).status().is_whole, "it is remembered");
}

#[test]
fn node_whose_disk_was_lost_gives_no_stamps_before_others_told_the_time() {
    let mut cluster = Cluster::new(THREE, 1, short);
    cluster.run(millis(500), nothing_cut);
    cluster.node_mut(N1).skew_ms = -9_000;
    cluster.wipe(N1);
    cluster.start(N1);
    let early = cluster.put(N1, Level::One, &["k"]);
    assert_eq!(cluster.core(N1).status().waiting, 1, "who is up is about to be heard of");
    cluster.run(millis(1_000), without(N1));
    assert!(is_refused(&cluster, early), "{:?}", cluster.oracle.reply(early));
    cluster.run(millis(2_000), without(N1));
    let late = cluster.put(N1, Level::One, &["k"]);
    assert!(is_refused(&cluster, late), "{:?}", cluster.oracle.reply(late));
    cluster.run(millis(500), nothing_cut);
    let token = cluster.put(N1, Level::One, &["k"]);
    cluster.settle(nothing_cut);
    assert!(is_written(&cluster, token), "{:?}", cluster.oracle.reply(token));
    assert!(cluster.core(N1).status().clock.ms() >= 10_000);
}

#[test]
fn node_with_a_new_disk_refuses_writes_at_once_and_stores_those_of_others() {
    let mut cluster = Cluster::new(THREE, 1, short);
    cluster.run(millis(500), nothing_cut);
    cluster.wipe(N1);
    cluster.start(N1);
    cluster.settle(nothing_cut);
    let asked_at = cluster.now;
    for level in [Level::One, Level::Quorum, Level::All] {
        let token = cluster.put(N1, level, &["k"]);
        assert!(is_refused(&cluster, token), "{:?}", cluster.oracle.reply(token));
    }
    let status = cluster.core(N1).status();
    assert!(status.refuses_writes && status.waiting == 0, "{status:?}");
    let token = cluster.put(N2, Level::All, &["k"]);
    cluster.settle(nothing_cut);
    assert!(is_written(&cluster, token), "the others are told nothing of the kind");
    assert_eq!(cluster.now, asked_at, "no time has passed");

    cluster.run(millis(2_600), nothing_cut);
    assert!(!cluster.core(N1).status().refuses_writes);
    let token = cluster.put(N1, Level::All, &["k"]);
    cluster.settle(nothing_cut);
    assert!(is_written(&cluster, token), "{:?}", cluster.oracle.reply(token));
}

#[test]
fn write_that_came_before_the_others_were_heard_of_is_refused_then_and_a_read_is_answered() {
    let mut cluster = Cluster::new(THREE, 1, short);
    cluster.run(millis(500), nothing_cut);
    cluster.wipe(N1);
    cluster.start(N1);
    let read = cluster.read(N1, Level::One, &["k"]);
    let write = cluster.put(N1, Level::One, &["k"]);
    assert_eq!(cluster.core(N1).status().waiting, 2);
    let asked_at = cluster.now;
    cluster.settle(nothing_cut);
    assert!(is_refused(&cluster, write), "{:?}", cluster.oracle.reply(write));
    let reply = cluster.readers.replies.get(&read);
    assert!(matches!(reply, Some(Reply::Read { .. })), "{reply:?}");
    let status = cluster.core(N1).status();
    assert_eq!((status.waiting, status.waiting_bytes, cluster.now), (0, 0, asked_at));
}

#[test]
fn read_that_came_before_the_start_is_answered_though_writes_wait_for_the_clock() {
    let mut cluster = Cluster::new(THREE, 1, short);
    cluster.run(millis(500), nothing_cut);
    cluster.crash(N1, 0);
    cluster.node_mut(N1).skew_ms = 3 * 3_600_000;
    cluster.slow_disks.insert(N1);
    cluster.start(N1);
    let write = cluster.put(N1, Level::One, &["k"]);
    let read = cluster.read(N1, Level::One, &["k"]);
    assert_eq!(cluster.core(N1).status().waiting, 2);
    let asked_at = cluster.now;
    cluster.slow_disks.clear();
    cluster.settle(|_, _| true);
    let reply = cluster.readers.replies.get(&read);
    assert!(matches!(reply, Some(Reply::Read { .. })), "{reply:?}");
    assert_eq!(cluster.oracle.reply(write), None, "nobody has told whether the clock is right");
    let status = cluster.core(N1).status();
    assert_eq!((status.waiting, cluster.now), (1, asked_at));
}

#[test]
fn write_to_a_cluster_that_begins_waits_for_its_nodes_to_meet() {
    let mut cluster = cluster(THREE);
    for id in [N1, N2, N3] {
        cluster.wipe(id);
    }
    for id in [N1, N2, N3] {
        cluster.start(id);
    }
    let token = cluster.put(N1, Level::One, &["k"]);
    assert!(!cluster.core(N1).status().refuses_writes);
    cluster.settle(nothing_cut);
    assert!(is_written(&cluster, token), "{:?}", cluster.oracle.reply(token));
}

#[test]
fn node_with_an_older_disk_refuses_writes_once_it_knows() {
    let mut cluster = Cluster::new(THREE, 1, short);
    let old = cluster.node(N1).disk.clone();
    for _ in 0..3 {
        cluster.crash(N1, 0);
        cluster.start(N1);
        cluster.run(millis(500), nothing_cut);
    }
    cluster.crash(N1, 0);
    cluster.node_mut(N1).disk = old;
    cluster.start(N1);
    cluster.run(millis(500), nothing_cut);
    assert!(cluster.core(N1).status().generation > 4, "the others told which starts it forgot");
    let token = cluster.put(N1, Level::One, &["k"]);
    assert!(is_refused(&cluster, token), "{:?}", cluster.oracle.reply(token));
    cluster.run(millis(2_600), nothing_cut);
    let token = cluster.put(N1, Level::One, &["k"]);
    cluster.settle(nothing_cut);
    assert!(is_written(&cluster, token), "{:?}", cluster.oracle.reply(token));
}

/// A node writes, and loses its disk before the writes have reached anybody. Tells whether it gives
/// one of their stamps again while they are still on their way.
fn stamp_on_its_way_is_given_again() -> bool {
    let mut cluster = Cluster::new(THREE, 1, short);
    cluster.run(millis(500), nothing_cut);
    // Its clock is a second ahead, and right when it starts again: nobody knows so late a time.
    cluster.node_mut(N1).skew_ms = 1_000;
    let lost = [(); 3].map(|()| cluster.put(N1, Level::One, &["k"]));
    let late = std::mem::take(&mut cluster.network);
    cluster.node_mut(N1).skew_ms = 0;
    cluster.wipe(N1);
    cluster.start(N1);
    cluster.settle(nothing_cut);
    assert!(!lost.iter().any(|token| is_written(&cluster, *token)) && !late.is_empty());
    // The oracle ends the run when it sees a stamp of two writes.
    let see = || {
        let next = cluster.put(N1, Level::One, &["k"]);
        for envelope in late {
            cluster.deliver(envelope);
        }
        cluster.run(millis(3_000), nothing_cut);
        next
    };
    let Ok(next) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(see)) else {
        return true;
    };
    assert!(is_refused(&cluster, next), "{:?}", cluster.oracle.reply(next));
    let token = cluster.put(N1, Level::One, &["k"]);
    cluster.settle(nothing_cut);
    assert!(is_written(&cluster, token));
    false
}

#[test]
fn stamp_that_the_lost_disk_knew_of_is_not_given_again() {
    assert!(!stamp_on_its_way_is_given_again());
}

#[cfg(feature = "testing")]
#[test]
fn stamp_given_again_is_caught() {
    crate::base::planted::loses_only_with("D63", stamp_on_its_way_is_given_again);
}

/// A node comes back with an older disk, and its clock is set back to the very time at which it
/// gave a stamp that the disk has forgotten. A client writes before anybody is heard. Tells whether
/// the write gets that stamp.
fn stamp_that_an_older_disk_forgot_is_given_again() -> bool {
    let mut cluster = Cluster::new(THREE, 1, short);
    cluster.run(millis(500), nothing_cut);
    let old = cluster.node(N1).disk.clone();
    cluster.run(millis(4_000), nothing_cut);
    let token = cluster.put(N1, Level::One, &["k"]);
    cluster.settle(nothing_cut);
    let forgotten = written(&cluster, token);
    cluster.run(millis(4_000), nothing_cut);
    cluster.node_mut(N1).skew_ms = -4_010;
    cluster.restore(N1, old);
    cluster.settle(without(N1));
    cluster.pass(millis(10));
    // The client has seen nothing yet.
    cluster.seen.clear();
    // The oracle ends the run when it sees a stamp of two writes.
    let see = || {
        let token = cluster.put(N1, Level::One, &["k"]);
        cluster.settle(without(N1));
        token
    };
    let token = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(see)) {
        Ok(token) => token,
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map_or("", |said| said);
            assert!(said.contains("is of two writes"), "something else broke: {said}");
            return true;
        }
    };
    assert_eq!(cluster.oracle.reply(token), None, "it waits for what others know");
    // The next heartbeats.
    cluster.run(millis(200), nothing_cut);
    let stamp = written(&cluster, token);
    assert!(stamp > forgotten, "{stamp} after {forgotten}");
    false
}

#[test]
fn stamp_that_an_older_disk_forgot_is_not_given_again() {
    assert!(!stamp_that_an_older_disk_forgot_is_given_again());
}

#[cfg(feature = "testing")]
#[test]
fn start_that_waits_for_nobody_is_caught() {
    crate::base::planted::loses_only_with("D75", stamp_that_an_older_disk_forgot_is_given_again);
}

#[test]
fn start_among_others_takes_writes_as_soon_as_a_majority_is_heard() {
    let mut cluster = cluster(Shape { nodes: 5, factor: 3, partitions: 8 });
    cluster.run(millis(500), nothing_cut);
    cluster.crash(N1, 0);
    cluster.start(N1);
    let asked_at = cluster.now;
    let token = cluster.put(N1, Level::One, &["k"]);
    cluster.settle(|from, to| to == N1 && from != N2);
    assert_eq!(cluster.oracle.reply(token), None, "two of five are no majority");
    assert!(!cluster.core(N1).status().refuses_writes);
    cluster.pass(millis(200));
    cluster.settle(|from, to| to == N1 && from != N2 && from != N3);
    written(&cluster, token);
    assert_eq!(cluster.now, asked_at + millis(200), "it waits for the heartbeats alone");

    cluster.crash(N1, 0);
    cluster.start(N1);
    let token = cluster.put(N1, Level::One, &["k"]);
    cluster.settle(nothing_cut);
    written(&cluster, token);
    assert_eq!(cluster.now, asked_at + millis(200), "whoever is up is heard at once");
}

#[test]
fn start_that_hears_nobody_takes_writes_when_whoever_is_up_would_have_been_heard() {
    let mut cluster = cluster(THREE);
    cluster.run(millis(500), nothing_cut);
    cluster.crash(N1, 0);
    cluster.slow_disks.insert(N1);
    cluster.start(N1);
    let early = cluster.put(N1, Level::One, &["k"]);
    cluster.run(millis(1_000), without(N1));
    cluster.slow_disks.clear();
    let late = cluster.put(N1, Level::One, &["k"]);
    cluster.run(millis(700), without(N1));
    assert_eq!(cluster.oracle.reply(late), None, "nobody hears of a start before it is durable");
    cluster.run(millis(200), without(N1));
    written(&cluster, early);
    written(&cluster, late);
}

#[test]
fn start_of_a_node_without_others_waits_for_nobody() {
    let mut cluster = cluster(Shape { nodes: 1, factor: 1, partitions: 8 });
    cluster.run(millis(500), nothing_cut);
    cluster.crash(N1, 0);
    cluster.start(N1);
    let asked_at = cluster.now;
    let token = cluster.put(N1, Level::All, &["k"]);
    cluster.settle(nothing_cut);
    written(&cluster, token);
    assert_eq!(cluster.now, asked_at);
}

/// What a start is called is drawn, so it may be later than the starts that the disk forgot.
#[test]
fn node_whose_disk_forgot_earlier_starts_than_its_own_refuses_writes_once_it_knows() {
    let mut cluster = Cluster::new(THREE, 1, short);
    cluster.run(millis(500), nothing_cut);
    let old = cluster.node(N1).disk.clone();
    cluster.crash(N1, 0);
    cluster.start(N1);
    cluster.run(millis(500), nothing_cut);
    let forgotten = cluster.core(N1).status().generation;
    cluster.restore(N1, old);
    let waits = cluster.put(N1, Level::One, &["k"]);
    cluster.settle(nothing_cut);
    let generation = cluster.core(N1).status().generation;
    assert!(generation > forgotten + 1, "{generation} is not far beyond {forgotten}");
    assert!(is_refused(&cluster, waits), "{:?}", cluster.oracle.reply(waits));
    cluster.run(millis(2_600), nothing_cut);
    let token = cluster.put(N1, Level::One, &["k"]);
    cluster.settle(nothing_cut);
    written(&cluster, token);

    // This start is remembered: the next one is an ordinary one.
    cluster.crash(N1, 0);
    cluster.start(N1);
    cluster.settle(nothing_cut);
    let token = cluster.put(N1, Level::One, &["k"]);
    cluster.settle(nothing_cut);
    written(&cluster, token);
}

#[test]
fn low_water_told_to_others_is_never_undercut_over_a_restart() {
    let mut cluster = cluster(THREE);
    cluster.run(millis(3_000), nothing_cut);
    cluster.network.clear();
    cluster.run(millis(10), nothing_cut);
    let told = cluster.core(N1).status().low_water;
    cluster.crash(N1, 0);
    cluster.node_mut(N1).skew_ms = -9_000;
    cluster.start(N1);
    cluster.run(millis(900), |from, to| from != N1 || to != N1);
    let token = cluster.put(N1, Level::One, &["k"]);
    cluster.settle(|from, to| from != N1 || to != N1);
    let Some(Reply::Written { stamp }) = cluster.oracle.reply(token) else {
        panic!("it is not written")
    };
    assert!(*stamp > told, "{stamp}, and {told} was told");
}

/// A node comes back with a disk of before its last start, while another node has not yet answered
/// a write of that start. Tells whether a new write is acknowledged on the strength of that answer.
fn forgotten_start_is_answered() -> bool {
    let mut cluster = Cluster::new(THREE, 1, short);
    cluster.run(millis(500), nothing_cut);
    let old = cluster.node(N1).disk.clone();
    cluster.crash(N1, 0);
    cluster.start(N1);
    cluster.run(millis(500), nothing_cut);
    cluster.slow_disks.insert(N2);
    cluster.put(N1, Level::Quorum, &["lost"]);
    cluster.settle(without(N3));
    cluster.restore(N1, old);
    cluster.run(millis(3_000), without(N3));
    let token = cluster.put(N1, Level::Quorum, &["new"]);
    // The answer to what was asked before arrives; what is asked now does not.
    cluster.settle(|from, _| from == N1);
    cluster.persist(N2, usize::MAX);
    cluster.settle(|from, to| from == N1 || from == N3 || to == N3);
    is_written(&cluster, token)
}

#[test]
fn answer_to_a_start_that_the_disk_forgot_counts_for_nothing() {
    assert!(!forgotten_start_is_answered());
}

#[test]
fn node_whose_disk_forgot_starts_begins_one_that_nobody_knows() {
    let mut cluster = cluster(THREE);
    let old = cluster.node(N1).disk.clone();
    for _ in 0..3 {
        cluster.crash(N1, 0);
        cluster.start(N1);
        cluster.run(millis(500), nothing_cut);
    }
    let forgotten = cluster.core(N1).status().generation;
    cluster.restore(N1, old);
    cluster.run(millis(500), nothing_cut);
    assert!(cluster.core(N1).status().generation > forgotten, "after {forgotten}");
}

#[cfg(feature = "testing")]
#[test]
fn acknowledgement_to_a_forgotten_start_is_caught() {
    let is_answered = || match std::panic::catch_unwind(forgotten_start_is_answered) {
        Ok(is_answered) => is_answered,
        // The oracle of the harness ends the run when it sees such an acknowledgement.
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map_or("", |said| said);
            assert!(said.contains("is acknowledged at"), "something else broke: {said}");
            true
        }
    };
    crate::base::planted::loses_only_with("D62", is_answered);
}
