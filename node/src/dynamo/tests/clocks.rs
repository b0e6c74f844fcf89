//! Wall clocks that are wrong by hours: nobody is given a stamp from that future, nobody loses one.

use super::*;
use crate::base::Stamp;
use crate::dynamo::Level;

/// Ten hours.
const FAR_MS: i64 = 36_000_000;

fn stamp(cluster: &Cluster, token: Token) -> Stamp {
    match cluster.oracle.reply(token) {
        Some(Reply::Written { stamp }) => *stamp,
        reply => panic!("#{token} is answered {reply:?}"),
    }
}

fn is_refused(cluster: &Cluster, token: Token) -> bool {
    let is_far = |ahead_ms: u64| ahead_ms > 30_000_000;
    matches!(cluster.oracle.reply(token), Some(Reply::ClockSkew { ahead_ms }) if is_far(*ahead_ms))
}

/// Has each node write the same key at a level, everything done in between.
fn each_writes(cluster: &mut Cluster, level: Level) -> Vec<Token> {
    let write = |id| {
        let token = cluster.put(id, level, &["k"]);
        cluster.settle(nothing_cut);
        token
    };
    [N1, N2, N3].into_iter().map(write).collect()
}

#[test]
fn node_far_ahead_refuses_writes_at_every_level_and_stays_a_replica() {
    let mut cluster = cluster(THREE);
    cluster.run(millis(500), nothing_cut);
    cluster.node_mut(N1).skew_ms = FAR_MS;
    for level in [Level::One, Level::Quorum, Level::All] {
        let tokens = each_writes(&mut cluster, level);
        assert!(is_refused(&cluster, tokens[0]), "{:?}", cluster.oracle.reply(tokens[0]));
        assert!(tokens[1..].iter().all(|token| stamp(&cluster, *token).ms() < 20_000));
    }
    assert!(cluster.core(N1).status().too_far_ahead_ms.is_some());
    assert_eq!(cluster.shown(N1), cluster.shown(N2), "what the others wrote at All is here");
}

#[test]
fn clock_that_went_ahead_and_back_has_left_nothing_behind() {
    let mut cluster = cluster(THREE);
    cluster.run(millis(500), nothing_cut);
    cluster.node_mut(N1).skew_ms = FAR_MS;
    each_writes(&mut cluster, Level::One);
    cluster.run(millis(2_000), nothing_cut);
    cluster.crash(N1, 0);
    cluster.start(N1);
    cluster.run(millis(2_000), nothing_cut);
    cluster.node_mut(N1).skew_ms = 0;
    cluster.crash(N1, 0);
    cluster.start(N1);
    cluster.run(millis(1_000), nothing_cut);
    let tokens = each_writes(&mut cluster, Level::Quorum);
    let stamps: Vec<Stamp> = tokens.into_iter().map(|token| stamp(&cluster, token)).collect();
    assert!(stamps.is_sorted() && stamps[2].ms() < 3_620_000, "{stamps:?}, the ceiling included");
}

#[test]
fn node_far_behind_takes_and_gives_what_the_others_do() {
    let mut cluster = cluster(THREE);
    cluster.nodes.values_mut().for_each(|node| node.skew_ms = FAR_MS);
    cluster.run(millis(500), nothing_cut);
    cluster.node_mut(N1).skew_ms = 0;
    for level in [Level::One, Level::All] {
        let tokens = each_writes(&mut cluster, level);
        let stamps: Vec<Stamp> = tokens.into_iter().map(|token| stamp(&cluster, token)).collect();
        assert!(stamps.is_sorted() && stamps[0].ms() > 36_000_000, "{stamps:?}");
    }
}

#[test]
fn majority_far_ahead_and_back_loses_no_write_and_goes_on() {
    let mut cluster = cluster(THREE);
    for id in [N1, N2] {
        cluster.node_mut(id).skew_ms = FAR_MS;
    }
    cluster.run(millis(500), nothing_cut);
    let alone = cluster.put(N1, Level::One, &["k"]);
    cluster.settle(|from, to| from != to);
    let ahead = stamp(&cluster, alone);
    assert!(ahead.ms() > 36_000_000);
    for id in [N1, N2] {
        cluster.node_mut(id).skew_ms = 0;
    }
    cluster.run(millis(5_000), nothing_cut);
    let tokens = each_writes(&mut cluster, Level::Quorum);
    assert!(tokens.iter().all(|token| stamp(&cluster, *token) > ahead), "later writes win");
    assert_eq!(cluster.shown(N3), cluster.shown(N1), "and everybody has the first one's successor");
}

#[test]
fn node_that_starts_alone_with_its_clock_ahead_waits_for_the_others_and_then_says_why() {
    let mut cluster = cluster(THREE);
    cluster.run(millis(500), nothing_cut);
    cluster.crash(N1, 0);
    cluster.node_mut(N1).skew_ms = FAR_MS;
    cluster.start(N1);
    cluster.run(millis(100), without(N1));
    let token = cluster.put(N1, Level::One, &["k"]);
    cluster.run(millis(1_000), without(N1));
    assert_eq!(cluster.oracle.reply(token), None);
    cluster.run(millis(1_500), without(N1));
    assert!(is_refused(&cluster, token), "{:?}", cluster.oracle.reply(token));
    // Not the clock was wrong: the node was away for so long.
    cluster.nodes.values_mut().for_each(|node| node.skew_ms = FAR_MS);
    cluster.crash(N1, 0);
    cluster.start(N1);
    let token = cluster.put(N1, Level::One, &["k"]);
    cluster.run(millis(500), nothing_cut);
    assert!(stamp(&cluster, token).ms() > 36_000_000);
}

#[test]
fn hints_are_as_old_as_the_common_time_says() {
    let mut cluster = cluster(THREE);
    cluster.run(millis(500), nothing_cut);
    cluster.crash(N3, 0);
    cluster.run(millis(1_500), nothing_cut);
    cluster.put(N1, Level::Quorum, &["k"]);
    cluster.run(millis(1_000), nothing_cut);
    cluster.node_mut(N1).skew_ms = FAR_MS;
    cluster.run(millis(1_000), nothing_cut);
    let status = cluster.core(N1).status();
    assert_eq!((status.hints.len(), status.hints_dropped), (1, 0));
    cluster.start(N3);
    cluster.run(millis(2_000), nothing_cut);
    assert_eq!(cluster.shown(N3), cluster.shown(N1));
}

#[test]
fn start_that_the_disk_forgot_is_learned_from_others() {
    let mut cluster = Cluster::new(THREE, 1, short);
    let old = cluster.node(N1).disk.clone();
    for _ in 0..3 {
        cluster.crash(N1, 0);
        cluster.start(N1);
        cluster.settle(nothing_cut);
    }
    cluster.crash(N1, 0);
    cluster.run(millis(1_500), nothing_cut);
    cluster.node_mut(N1).disk = old;
    cluster.start(N1);
    cluster.run(millis(3_000), nothing_cut);
    assert!(cluster.core(N2).is_up(N1) && cluster.core(N1).status().generation > 4);
    let token = cluster.put(N1, Level::All, &["k"]);
    cluster.settle(nothing_cut);
    assert!(is_written(&cluster, token));
}

/// The accident: clocks were set back, so stamps came from the latest one and not from a clock; a
/// node gave some that were still on their way when its disk was lost. Tells whether it gives one
/// of them again.
fn stamp_ahead_of_all_clocks_is_given_again() -> bool {
    let mut cluster = Cluster::new(THREE, 1, short);
    cluster.nodes.values_mut().for_each(|node| node.skew_ms = 60_000);
    cluster.run(millis(1_000), nothing_cut);
    cluster.nodes.values_mut().for_each(|node| node.skew_ms = 0);
    cluster.run(millis(1_000), nothing_cut);
    for _ in 0..3 {
        cluster.put(N1, Level::One, &["k"]);
    }
    let late = std::mem::take(&mut cluster.network);
    assert!(late.iter().any(|envelope| matches!(envelope.message, Message::Write { .. })));
    cluster.wipe(N1);
    cluster.start(N1);
    cluster.run(millis(4_000), nothing_cut);
    // The oracle ends the run when it sees a stamp of two writes.
    let see = || {
        let tokens = [(); 3].map(|()| cluster.put(N1, Level::One, &["k"]));
        for envelope in late {
            cluster.deliver(envelope);
        }
        cluster.settle(nothing_cut);
        tokens
    };
    let Ok(tokens) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(see)) else {
        return true;
    };
    for token in tokens {
        assert!(stamp(&cluster, token).ms() > 60_000, "stamps are still ahead of the clocks");
    }
    false
}

#[test]
fn stamp_ahead_of_all_clocks_that_the_lost_disk_knew_of_is_not_given_again() {
    assert!(!stamp_ahead_of_all_clocks_is_given_again());
}

#[cfg(feature = "testing")]
#[test]
fn stamps_that_go_on_from_what_others_know_are_caught() {
    crate::base::planted::loses_only_with("D70", stamp_ahead_of_all_clocks_is_given_again);
}

/// Where stamps come from clocks the wait is long enough, and nothing is to be skipped.
#[test]
fn lost_disk_among_right_clocks_puts_no_stamp_into_the_future() {
    let mut cluster = Cluster::new(THREE, 1, short);
    cluster.run(millis(500), nothing_cut);
    cluster.wipe(N1);
    cluster.start(N1);
    cluster.run(millis(4_000), nothing_cut);
    let token = cluster.put(N1, Level::One, &["k"]);
    cluster.settle(nothing_cut);
    assert_eq!(stamp(&cluster, token).ms(), 14_500);
}
