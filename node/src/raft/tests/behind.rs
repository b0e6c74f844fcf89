//! Followers whose state machine does not keep up.

use super::*;

fn carries_entries((_, message): &(NodeId, Message)) -> bool {
    matches!(message, Message::Append { entries, .. } if !entries.is_empty())
}

#[test]
fn follower_that_is_behind_acknowledges_no_more_and_takes_part_in_all_else() {
    let mut lone = Lone::new(&[], 1);
    lone.receive(N2, append(1, (0, 0), &[1, 1], 0));
    lone.give(Input::Behind { acknowledge_max: Some(2) });
    assert_eq!(lone.receive(N2, append(1, (2, 1), &[1, 1], 4)), []);
    assert_eq!((lone.raft.durable_index(), lone.raft.commit_index()), (4, 4));
    let heartbeat = || append(1, (4, 1), &[], 4);
    assert_eq!(lone.receive(N2, heartbeat()), [(N2, matched(1, 2))], "it lives");
    let vote = lone.receive(N3, Message::PreVote { term: 2, last_index: 9, last_term: 1 });
    assert_eq!(vote.len(), 1, "it votes");
    let sent = lone.give(Input::Behind { acknowledge_max: None }).send;
    assert_eq!(sent, [(N2, matched(1, 4))]);
    assert_eq!(lone.receive(N2, heartbeat()), [(N2, matched(1, 4))]);
}

/// A leader whose log begins later offers a snapshot of what such a follower has. That it has it is
/// an acknowledgement like any other.
#[test]
fn follower_that_is_behind_does_not_say_that_it_needs_no_snapshot() {
    let mut lone = Lone::new(&[1, 1, 1, 1], 1);
    lone.receive(N2, append(1, (4, 1), &[], 4));
    lone.give(Input::Behind { acknowledge_max: Some(2) });
    let meta = SnapshotMeta { index: 3, term: 1 };
    let offered = || {
        let data = Payload::default();
        Message::SnapshotChunk { term: 1, meta, offset: 0, data, done: true }
    };
    let ready = lone.give(Input::Peer { from: N2, message: offered() });
    assert_eq!((ready.send, ready.snapshot_writes), (vec![], vec![]), "it has no use for it");
    lone.give(Input::Behind { acknowledge_max: None });
    let outcome = SnapshotOutcome::Installed;
    let reply = Message::SnapshotReply { term: 1, meta, outcome };
    assert_eq!(lone.receive(N2, offered()), [(N2, reply)]);
}

/// A follower that is behind has a window of entries that it has not acknowledged. Each new leader
/// would else send it another one.
#[test]
fn new_leader_counts_what_a_follower_does_not_acknowledge_as_in_flight() {
    let mut lone = Lone::leader(&[1, 1, 1], 2);
    lone.raft.config.inflight_bytes_max = 1;
    let sent = lone.receive(N2, matched(2, 1));
    assert!(!sent.iter().any(carries_entries), "{sent:?}");
    let sent = lone.receive(N2, matched(2, 2));
    assert!(!sent.iter().any(carries_entries), "{sent:?}");
    let sent = lone.receive(N2, matched(2, 3));
    assert!(sent.iter().any(carries_entries), "{sent:?}");
}

/// It is to take no writes, so others shall lead; but it leads rather than nobody.
#[test]
fn node_whose_state_machine_is_stuck_lets_one_campaign_be() {
    let mut lone = Lone::new(&[1], 1);
    lone.give(Input::Stuck { is_stuck: true });
    assert_eq!(lone.expire().send, []);
    assert_eq!(lone.expire().send.len(), 2, "nobody else leads");
    lone.receive(N2, append(2, (1, 1), &[], 0));
    assert_eq!(lone.expire().send, [], "somebody else could lead before");
    lone.receive(N2, append(2, (1, 1), &[], 0));
    lone.give(Input::Stuck { is_stuck: false });
    assert_eq!(lone.expire().send.len(), 2, "it has applied what there was");
}

#[test]
fn node_alone_whose_state_machine_is_stuck_leads() {
    let mut config = Config::new(N1, vec![N1]);
    config.check_invariants = true;
    let now = Instant::from_nanos(0);
    let mut lone = Lone { raft: Raft::new(config, Recovered::default(), Rng::new(7), now), now };
    lone.give(Input::Stuck { is_stuck: true });
    lone.expire();
    assert_eq!(lone.raft.role(), Role::Leader);
}

/// Has a follower install a snapshot up to entry 9 of term 1, while a new leader sends it the
/// entries up to 20 one by one, each of them committed. Returns what it acknowledges in the end.
fn led_while_it_installs(lone: &mut Lone) -> Message {
    lone.receive(N2, append(1, (2, 1), &[], 2));
    lone.raft.config.held_bytes_max = 4 * entries(1, &[1])[0].weight();
    let (meta, data) = (SnapshotMeta { index: 9, term: 1 }, Payload::default());
    let message = Message::SnapshotChunk { term: 1, meta, offset: 0, data, done: true };
    let ready = lone.give(Input::Peer { from: N2, message });
    assert!(ready.snapshot_writes.first().is_some_and(|write| write.done));
    for index in 3..=20 {
        let term = |index| if index <= 9 { 1 } else { 2 };
        lone.receive(N3, append(2, (index - 1, term(index - 1)), &[term(index)], index));
    }
    assert_eq!((lone.raft.durable_index(), lone.raft.commit_index()), (20, 20));
    assert_eq!(lone.raft.applied_index(), 2, "the state machine belongs to the snapshot");
    let sent = lone.receive(N3, append(2, (20, 2), &[], 20));
    let [(N3, acknowledged)] = sent.as_slice() else { panic!("no sign of life: {sent:?}") };
    acknowledged.clone()
}

/// The accident: the leader that sent the snapshot died, and the next one found that it could go on
/// from the follower's log. It went on at full speed for all the minutes that the snapshot took,
/// and the follower kept in memory what it could neither apply nor cut off.
#[test]
fn follower_that_installs_a_snapshot_acknowledges_no_more_than_it_has_room_for() {
    let mut lone = Lone::new(&[1, 1], 1);
    assert_eq!(led_while_it_installs(&mut lone), matched(2, 6));
    let meta = SnapshotMeta { index: 9, term: 1 };
    let ready = lone.give(Input::SnapshotInstalled { meta });
    assert!(ready.send.contains(&(N3, matched(2, 20))), "{:?}", ready.send);
    assert_eq!(ready.apply.len(), 11);
}

#[test]
fn follower_whose_snapshot_is_damaged_acknowledges_again() {
    let mut lone = Lone::new(&[1, 1], 1);
    assert_eq!(led_while_it_installs(&mut lone), matched(2, 6));
    let meta = SnapshotMeta { index: 9, term: 1 };
    let ready = lone.give(Input::SnapshotFailed { meta });
    assert!(ready.send.contains(&(N3, matched(2, 20))), "{:?}", ready.send);
    assert_eq!(ready.apply.len(), 18);
}
