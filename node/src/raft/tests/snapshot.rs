//! Snapshots, after [Raft Figure 13].

use super::*;

#[test]
pub(super) fn snapshot_older_than_the_commit_index_is_not_installed() {
    let mut lone = Lone::new(&[1, 1, 1], 1);
    lone.receive(N2, append(1, (3, 1), &[], 3));
    let meta = SnapshotMeta { index: 2, term: 1 };
    let chunk = chunk(1, meta, 0, 8, true);
    let ready = lone.give(Input::Peer { from: N2, message: chunk });
    assert_eq!(ready.snapshot_writes, []);
    assert_eq!(ready.send, [(N2, snapshot_reply(1, meta, SnapshotOutcome::Installed))]);
    assert_eq!(lone.raft.last_index(), 3);
}

fn chunk(term: Term, meta: SnapshotMeta, offset: u64, bytes: usize, done: bool) -> Message {
    let data = Payload::new(vec![0; bytes]).unwrap_or_default();
    Message::SnapshotChunk { term, meta, offset, data, done }
}

fn snapshot_reply(term: Term, meta: SnapshotMeta, outcome: SnapshotOutcome) -> Message {
    Message::SnapshotReply { term, meta, outcome }
}

/// [Raft Figure 13], rules 2 to 8, by pieces that may be lost and repeated.
#[test]
fn snapshot_is_stored_piece_by_piece_and_replaces_the_log() {
    let mut lone = Lone::new(&[1, 1], 3);
    let meta = SnapshotMeta { index: 9, term: 2 };
    let stored = |offset| snapshot_reply(3, meta, SnapshotOutcome::Stored { offset });
    let sent = lone.receive(N2, chunk(3, meta, 8, 8, false));
    assert_eq!(sent, [(N2, stored(0))], "it starts at the beginning");
    let ready = lone.give(Input::Peer { from: N2, message: chunk(3, meta, 0, 8, false) });
    assert_eq!((ready.send.len(), ready.snapshot_writes.len()), (0, 1));
    let ready = lone.give(Input::SnapshotStored { meta, offset: 8 });
    assert_eq!(ready.send, [(N2, stored(8))]);
    assert_eq!(lone.receive(N2, chunk(3, meta, 0, 8, false)), [(N2, stored(8))], "a repeated one");
    let ready = lone.give(Input::Peer { from: N2, message: chunk(3, meta, 8, 4, true) });
    assert!(ready.snapshot_writes.first().is_some_and(|write| write.done));
    lone.receive(N2, append(3, (2, 1), &[], 2));
    assert_eq!(lone.raft.commit_index(), 2);
    assert_eq!(lone.raft.applied_index(), 0, "the state machine belongs to the snapshot now");
    let ready = lone.give(Input::SnapshotInstalled { meta });
    assert_eq!(
        ready.send,
        [(N2, snapshot_reply(3, meta, SnapshotOutcome::Installed)), (N2, matched(3, 9))]
    );
    assert_eq!((lone.raft.snapshot(), lone.raft.commit_index()), (meta, 9));
    assert_eq!((lone.raft.log().first_index(), lone.raft.last_index()), (10, 9));
}

/// [Raft Figure 13], rule 6: "If existing log entry has same index and term as snapshot's last
/// included entry, retain log entries following it and reply."
#[test]
fn snapshot_that_the_log_holds_keeps_the_log() {
    let mut lone = Lone::new(&[1, 1, 1], 1);
    let meta = SnapshotMeta { index: 2, term: 1 };
    let ready = lone.give(Input::Peer { from: N2, message: chunk(1, meta, 0, 8, true) });
    assert_eq!(ready.snapshot_writes, [], "everything is there already");
    assert_eq!((lone.raft.commit_index(), lone.raft.last_index()), (2, 3));
}

#[test]
fn snapshot_found_damaged_starts_over() {
    let mut lone = Lone::new(&[], 3);
    let meta = SnapshotMeta { index: 9, term: 2 };
    lone.receive(N2, chunk(3, meta, 0, 8, true));
    let ready = lone.give(Input::SnapshotFailed { meta });
    assert_eq!(ready.send, [(N2, snapshot_reply(3, meta, SnapshotOutcome::Failed))]);
    let ready = lone.give(Input::Peer { from: N2, message: chunk(3, meta, 0, 8, true) });
    assert_eq!(ready.snapshot_writes.len(), 1);
}

#[test]
fn follower_behind_the_log_gets_a_snapshot_while_writes_go_on() {
    let mut cluster = Cluster::new(3, 6, |config, _| {
        config.log_entries_kept = 2;
        config.snapshot_chunk_bytes = 24;
    });
    cluster.run(Duration::from_secs(2), |_, _| false);
    let leader = cluster.leader().unwrap_or(N1);
    let late = NodeId(leader.0 % 3 + 1);
    for _ in 0..40 {
        cluster.propose(leader);
        cluster.run(Duration::from_millis(20), |from, to| from == late || to == late);
    }
    cluster.snapshot(leader);
    for _ in 0..5 {
        cluster.propose(leader);
        cluster.run(Duration::from_millis(50), |_, _| false);
    }
    cluster.run(Duration::from_secs(1), |_, _| false);
    assert_eq!(cluster.leader(), Some(leader));
    assert_eq!(cluster.node(late).machine, cluster.node(leader).machine);
    assert!(cluster.node(late).raft().snapshot().index >= 40);
}

#[test]
fn snapshot_transfer_survives_lost_messages_and_a_restart() {
    let mut cluster = Cluster::new(3, 6, |config, _| {
        config.log_entries_kept = 0;
        config.snapshot_chunk_bytes = 16;
    });
    cluster.run(Duration::from_secs(2), |_, _| false);
    let leader = cluster.leader().unwrap_or(N1);
    let late = NodeId(leader.0 % 3 + 1);
    cluster.crash(late, 0);
    for _ in 0..40 {
        cluster.propose(leader);
    }
    cluster.run(Duration::from_millis(100), |_, _| false);
    cluster.snapshot(leader);
    cluster.start(late);
    for round in 0..12 {
        cluster.run(Duration::from_millis(60), |_, _| false);
        cluster.flow(6);
        cluster.network.clear();
        if round == 6 {
            cluster.crash(late, 0);
            cluster.start(late);
        }
    }
    cluster.run(Duration::from_secs(3), |_, _| false);
    assert_eq!(cluster.node(late).machine, cluster.node(leader).machine);
}
