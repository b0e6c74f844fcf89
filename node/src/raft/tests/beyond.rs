//! What goes beyond Figure 2: durability, pre-vote, reads, limits, damage, isolation.

use super::*;
use crate::raft::durable::HELD_MAX;

#[test]
fn vote_and_term_wait_for_the_disk() {
    let mut lone = Lone::new(&[1], 1);
    let ready = lone.step(Input::Peer { from: N2, message: vote(2, (1, 1)) });
    assert_eq!(ready.send, []);
    let persist = ready.persist.map(|persist| (persist.id, persist.hard_state));
    assert_eq!(persist, Some((1, Some(HardState { term: 2, vote: Some(N2) }))));
    let ready = lone.step(Input::Persisted { through: 1 });
    assert_eq!(ready.send, [(N2, vote_reply(2, true))]);
}

#[test]
fn vote_superseded_before_it_was_durable_is_never_sent() {
    let mut lone = Lone::new(&[1], 1);
    lone.step(Input::Peer { from: N2, message: vote(2, (1, 1)) });
    lone.step(Input::Peer { from: N3, message: vote(3, (1, 1)) });
    let ready = lone.step(Input::Persisted { through: 2 });
    assert_eq!(ready.send, [(N3, vote_reply(3, true))]);
}

/// The accident: while a disk was full, for days, the answers that waited for it filled the memory.
#[test]
fn answers_beyond_those_that_may_wait_for_the_disk_are_given_when_they_are_asked_for_again() {
    let mut lone = Lone::new(&[1], 1);
    let ask = |from| Input::Peer { from, message: vote(2, (1, 1)) };
    let persist = lone.step(ask(N2)).persist.map(|persist| persist.hard_state);
    assert_eq!(persist, Some(Some(HardState { term: 2, vote: Some(N2) })));
    for _ in 1..HELD_MAX {
        assert_eq!(lone.step(ask(N2)), Ready::default());
    }
    for from in [N2, N3, N2, N3] {
        assert_eq!(lone.step(ask(from)), Ready::default());
    }
    let released = lone.step(Input::Persisted { through: 1 }).send;
    assert!(released.iter().all(|sent| *sent == (N2, vote_reply(2, true))), "{released:?}");
    assert_eq!(released.len(), HELD_MAX);
    assert_eq!(lone.step(ask(N3)).send, [(N3, vote_reply(2, false))], "the vote is given");
    assert_eq!(lone.step(ask(N2)).send, [(N2, vote_reply(2, true))]);
}

#[test]
fn acknowledgement_and_what_is_sent_afterwards_outlast_too_many_answers_that_wait() {
    let mut lone = Lone::new(&[1], 1);
    let beyond = || Input::Peer { from: N2, message: append(2, (9, 2), &[], 0) };
    for _ in 0..HELD_MAX + 10 {
        lone.step(beyond());
    }
    let entry = Input::Peer { from: N2, message: append(2, (1, 1), &[2], 0) };
    let persist = lone.step(entry).persist.map(|persist| (persist.id, persist.entries.len()));
    assert_eq!(persist, Some((2, 1)), "the entry goes to the disk");
    let released = lone.step(Input::Persisted { through: 2 }).send;
    let (answers, others): (Vec<_>, Vec<_>) =
        released.into_iter().partition(|sent| *sent == (N2, rejected(2, 9, (1, 1))));
    assert_eq!(answers.len(), HELD_MAX);
    assert_eq!(others, [(N2, matched(2, 2))]);
    assert_eq!(lone.step(beyond()).send, [(N2, rejected(2, 9, (2, 2)))], "nothing waits now");
}

#[test]
fn own_vote_counts_once_durable() {
    let mut lone = Lone::new(&[1], 1);
    lone.expire();
    let granted = Message::PreVoteReply { term: 2, granted: true };
    let ready = lone.step(Input::Peer { from: N2, message: granted });
    assert_eq!(ready.send, [], "nothing is said in a term that is not durable");
    lone.step(Input::Peer { from: N2, message: vote_reply(2, true) });
    assert_eq!(lone.raft.role(), Role::Candidate);
    lone.step(Input::Persisted { through: 1 });
    assert_eq!(lone.raft.role(), Role::Leader);
}

#[test]
fn acknowledgement_covers_only_what_is_durable() {
    let mut lone = Lone::new(&[1], 1);
    lone.receive(N2, append(1, (1, 1), &[], 0));
    let ready = lone.step(Input::Peer { from: N2, message: append(1, (1, 1), &[1, 1], 0) });
    assert_eq!(ready.send, []);
    let ready = lone.step(Input::Peer { from: N2, message: append(1, (3, 1), &[], 0) });
    assert_eq!(ready.send, [(N2, matched(1, 1))], "a heartbeat is answered at once");
    let ready = lone.step(Input::Persisted { through: 1 });
    assert_eq!(ready.send, [(N2, matched(1, 3))]);
}

#[test]
fn follower_with_a_slow_disk_still_shows_that_it_lives() {
    let mut lone = Lone::new(&[], 1);
    lone.receive(N2, append(1, (0, 0), &[], 0));
    lone.step(Input::Peer { from: N2, message: append(1, (0, 0), &[1], 0) });
    lone.now = lone.now + Duration::from_millis(60);
    let ready = lone.step(Input::Peer { from: N2, message: append(1, (1, 1), &[1], 0) });
    assert_eq!(ready.send, [(N2, matched(1, 0))]);
}

#[test]
fn late_fsync_of_replaced_entries_vouches_for_nothing() {
    let mut lone = Lone::new(&[1], 1);
    lone.step(Input::Peer { from: N2, message: append(2, (1, 1), &[2, 2], 0) });
    lone.step(Input::Peer { from: N3, message: append(3, (1, 1), &[3, 3], 0) });
    let ready = lone.step(Input::Persisted { through: 1 });
    assert_eq!(ready.send, [], "the term is not durable yet either");
    assert_eq!(lone.raft.durable_index(), 1, "same indexes, other entries");
    let ready = lone.step(Input::Persisted { through: 2 });
    assert_eq!(ready.send, [(N3, matched(3, 3))]);
}

#[test]
fn leader_commits_by_its_followers_alone() {
    let mut lone = Lone::leader(&[], 1);
    lone.receive(N2, matched(1, 1));
    lone.step(propose(1));
    assert_eq!(lone.raft.durable_index(), 1, "its own disk is slow");
    lone.step(Input::Peer { from: N2, message: matched(1, 2) });
    assert_eq!(lone.raft.commit_index(), 1, "one copy is no majority");
    lone.step(Input::Peer { from: N3, message: matched(1, 2) });
    assert_eq!(lone.raft.commit_index(), 2);
}

#[test]
fn pre_vote_changes_nothing_at_the_asked() {
    let mut lone = Lone::new(&[1], 1);
    let (before, deadline) = (lone.raft.hard_state(), lone.raft.deadline());
    let asked = Message::PreVote { term: 2, last_index: 1, last_term: 1 };
    let granted = Message::PreVoteReply { term: 2, granted: true };
    assert_eq!(lone.receive(N2, asked.clone()), [(N2, granted.clone())]);
    assert_eq!(lone.receive(N3, asked), [(N3, granted)], "to everybody who asks");
    assert_eq!((lone.raft.hard_state(), lone.raft.deadline()), (before, deadline));
}

/// The accident (storage seed 40006264): the disk of n2 lied about the vote for itself, and lost it
/// with the power after n2 had led term 3. It asked for term 3 again, and led it again, with other
/// entries at the same places.
#[cfg(feature = "testing")]
#[test]
fn candidate_that_forgot_its_own_vote_does_not_lead_the_same_term_again() {
    crate::base::planted::loses_only_with("R51", || {
        let mut lone = Lone::new(&[1], 2);
        lone.receive(N2, vote(3, (1, 1)));
        lone.receive(N2, append(3, (1, 1), &[], 0));
        lone.now = lone.now + Duration::from_millis(300);
        let asked = Message::PreVote { term: 3, last_index: 1, last_term: 1 };
        let answers = lone.receive(N2, asked);
        answers == [(N2, Message::PreVoteReply { term: 3, granted: true })]
    });
}

#[test]
fn votes_are_refused_while_a_leader_is_alive() {
    let mut lone = Lone::new(&[1], 3);
    lone.receive(N2, append(3, (1, 1), &[], 0));
    let asked = Message::PreVote { term: 4, last_index: 9, last_term: 3 };
    let refused = Message::PreVoteReply { term: 3, granted: false };
    assert_eq!(lone.receive(N3, asked.clone()), [(N3, refused)]);
    assert_eq!(lone.receive(N3, vote(4, (9, 3))), [], "not even the term is taken over");
    assert_eq!(lone.raft.term(), 3);
    lone.now = lone.now + Duration::from_millis(300);
    let granted = Message::PreVoteReply { term: 4, granted: true };
    assert_eq!(lone.receive(N3, asked), [(N3, granted)]);
}

#[test]
fn refused_pre_vote_teaches_the_term() {
    let mut lone = Lone::new(&[1], 1);
    lone.expire();
    lone.receive(N2, Message::PreVoteReply { term: 8, granted: false });
    assert_eq!((lone.raft.role(), lone.raft.term()), (Role::Follower, 8));
}

#[test]
fn leader_without_a_majority_steps_down_and_answers_everybody() {
    let mut lone = Lone::leader(&[], 1);
    lone.give(propose(1));
    lone.give(Input::Read { token: 2 });
    let mut replies = Vec::new();
    for _ in 0..6 {
        replies.extend(lone.pass(Duration::from_millis(60)).replies);
    }
    assert_eq!((lone.raft.role(), lone.raft.term()), (Role::Follower, 1));
    let not_leader = Reply::NotLeader { leader: None };
    assert_eq!(replies, [(2, not_leader), (1, Reply::Unknown)]);
    assert_eq!(lone.give(propose(3)).replies, [(3, not_leader)]);
    assert_eq!(lone.give(Input::Read { token: 4 }).replies, [(4, not_leader)]);
}

/// Returns a leader whose disk does not answer for three seconds, while these followers have an
/// entry more than it has.
fn stalled_leader(followers: &[NodeId]) -> Lone {
    let mut lone = Lone::leader(&[], 1);
    lone.step(propose(1));
    for _ in 0..51 {
        lone.now = lone.now + Duration::from_millis(60);
        for &from in followers {
            lone.raft.step(lone.now, Input::Peer { from, message: matched(1, 2) });
        }
        lone.raft.tick(lone.now);
        lone.raft.take_ready();
    }
    lone
}

/// The accident: a leader gave up when all disks were full, or its own was and another node down.
/// Nobody could follow it, and reads ended that it could have answered.
#[test]
fn leader_with_a_dead_disk_leads_on_while_nobody_can_do_without_it() {
    assert_eq!(stalled_leader(&[N2]).raft.role(), Role::Leader);
}

#[test]
fn leader_with_a_dead_disk_steps_down() {
    let mut lone = stalled_leader(&[N2, N3]);
    assert_eq!(lone.raft.role(), Role::Follower);
    lone.now = lone.now + Duration::from_millis(900);
    lone.raft.tick(lone.now);
    assert_eq!(lone.raft.role(), Role::Follower, "nor does it campaign");
}

#[test]
fn read_waits_for_own_term_confirmation_and_apply() {
    let mut lone = Lone::leader(&[], 1);
    assert_eq!(lone.give(Input::Read { token: 1 }).send, [], "no entry of its term is committed");
    let sent = lone.receive(N2, matched(1, 1));
    let asked = Message::Append {
        term: 1,
        prev_index: 1,
        prev_term: 1,
        entries: vec![],
        commit: 1,
        round: 1,
    };
    assert!(sent.contains(&(N2, asked)), "{sent:?}");
    let confirm = |round| {
        let outcome = AppendOutcome::Matched { index: 1 };
        Input::Peer { from: N3, message: Message::AppendReply { term: 1, round, outcome } }
    };
    assert_eq!(lone.give(confirm(0)).replies, [], "an answer from before the read");
    assert_eq!(lone.give(confirm(1)).replies, [(1, Reply::ReadReady)]);
    lone.give(Input::Peer { from: N2, message: matched(1, 1) });
    lone.step(Input::Read { token: 2 });
    lone.raft.step(lone.now, propose(3));
    lone.raft.step(lone.now, Input::Peer { from: N3, message: matched(1, 1) });
    let ready = lone.step(confirm(2));
    assert_eq!(ready.replies, [(2, Reply::ReadReady)]);
}

#[test]
fn read_is_served_once_its_index_is_applied() {
    let mut lone = Lone::leader(&[], 1);
    lone.raft.step(lone.now, Input::Peer { from: N2, message: matched(1, 1) });
    let ready = lone.step(Input::Read { token: 1 });
    assert_eq!(ready.apply.len(), 1);
    let outcome = AppendOutcome::Matched { index: 1 };
    let confirm = Message::AppendReply { term: 1, round: 1, outcome };
    assert_eq!(lone.step(Input::Peer { from: N2, message: confirm }).replies, []);
    assert_eq!(lone.step(Input::Applied { through: 1 }).replies, [(1, Reply::ReadReady)]);
}

#[test]
fn proposals_over_the_limit_are_refused_until_room_is_free() {
    let mut lone = Lone::leader(&[], 1);
    lone.raft.config.uncommitted_bytes_max = 1_000;
    let big =
        |token| Input::Propose { token, command: Payload::new(vec![0; 600]).unwrap_or_default() };
    assert_eq!(lone.give(big(1)).replies, []);
    assert_eq!(lone.give(big(2)).replies, [(2, Reply::Overloaded)]);
    lone.receive(N2, matched(1, 2));
    assert_eq!(lone.give(big(3)).replies, []);
    assert_eq!(lone.raft.last_index(), 3);
}

#[test]
fn window_full_still_sends_heartbeats() {
    let mut lone = Lone::leader(&[], 1);
    lone.raft.config.inflight_count_max = 2;
    lone.receive(N2, matched(1, 0));
    let sent = (0..4).flat_map(|token| lone.give(propose(token)).send).count();
    assert_eq!(sent, 1, "the no-op and one proposal fill the window");
    let sent = lone.expire().send;
    assert!(sent.contains(&(N2, append(1, (2, 1), &[], 0))), "{sent:?}");
    let sent = lone.receive(N2, matched(1, 2));
    let [(N2, Message::Append { prev_index: 2, entries, .. })] = sent.as_slice() else {
        panic!("the rest goes in one message: {sent:?}")
    };
    assert_eq!(entries.len(), 3);
}

#[test]
fn strangers_and_nonsense_are_ignored() {
    let mut lone = Lone::new(&[1], 1);
    let meta = SnapshotMeta { index: 0, term: 0 };
    let data = Payload::default();
    assert_eq!(lone.receive(NodeId(9), vote(2, (1, 1))), []);
    assert_eq!(lone.receive(N1, vote(2, (1, 1))), [], "not even from itself");
    assert_eq!(lone.receive(N2, vote(u64::MAX, (1, 1))), []);
    assert_eq!(lone.receive(N2, vote(2, (u64::MAX, 1))), []);
    assert_eq!(lone.receive(N2, append(2, (1, 1), &[2, 1], 0)), [], "terms out of order");
    assert_eq!(lone.receive(N2, append(2, ((1 << 62) + 1, 1), &[], 0)), []);
    let chunk = Message::SnapshotChunk { term: 2, meta, offset: 0, data, done: true };
    assert_eq!(lone.receive(N2, chunk), [], "a snapshot of nothing");
    assert_eq!((lone.raft.term(), lone.raft.last_index()), (1, 1));
    let mut leader = Lone::leader(&[], 1);
    leader.receive(N2, matched(1, 1 << 40));
    assert_eq!(leader.raft.commit_index(), 0, "beyond the leader's own log");
}

#[test]
fn damaged_node_votes_as_before_and_does_not_campaign() {
    let damaged_last = Some(SnapshotMeta { index: 5, term: 3 });
    let mut lone = Lone::recovered(Recovered {
        hard_state: HardState { term: 3, vote: None },
        entries: entries(1, &[1, 2]),
        damaged_last,
        ..Recovered::default()
    });
    lone.pass(Duration::from_secs(5));
    assert_eq!((lone.raft.role(), lone.raft.is_recovering()), (Role::Follower, true));
    assert_eq!(lone.receive(N2, vote(4, (4, 3))), [(N2, vote_reply(4, false))]);
    assert_eq!(lone.receive(N3, vote(4, (5, 3))), [(N3, vote_reply(4, true))]);
    lone.receive(N3, append(4, (2, 2), &[], 0));
    assert_eq!(lone.receive(N3, append(4, (2, 2), &[3, 3, 3], 0)), [(N3, matched(4, 5))]);
    assert!(!lone.raft.is_recovering());
}

#[test]
fn recovered_log_drops_what_its_snapshot_contradicts() {
    let lone = Lone::recovered(Recovered {
        hard_state: HardState { term: 5, vote: None },
        snapshot: SnapshotMeta { index: 2, term: 5 },
        entries: entries(3, &[4, 4]),
        damaged_last: None,
        standing: Standing::Whole,
    });
    assert_eq!((lone.raft.last_index(), lone.raft.last_term()), (2, 5));
}

#[test]
fn single_voter_needs_nobody() {
    let mut cluster = Cluster::new(1, 1, |_, _| {});
    cluster.run(Duration::from_millis(10), |_, _| false);
    assert_eq!(cluster.leader(), Some(N1));
    cluster.propose(N1);
    cluster.read(N1);
    cluster.settle(|_, _| false);
    assert_eq!((cluster.oracle.done, cluster.oracle.served), (1, 1));
    assert!(cluster.network.is_empty());
}

#[test]
fn idle_cluster_sends_only_heartbeats() {
    let mut cluster = Cluster::new(3, 1, |_, _| {});
    cluster.run(Duration::from_secs(2), |_, _| false);
    let term = cluster.leader().map(|leader| cluster.node(leader).raft().term());
    cluster.trace = Some(Vec::new());
    cluster.run(Duration::from_millis(600), |_, _| false);
    let trace = cluster.trace.take().unwrap_or_default();
    assert_eq!(trace.len(), 10 * 2 * 2, "ten heartbeats, two followers, and answers: {trace:#?}");
    assert_eq!(cluster.leader().map(|leader| cluster.node(leader).raft().term()), term);
}

#[test]
fn one_way_isolated_follower_does_not_disturb() {
    let mut cluster = Cluster::new(3, 3, |_, _| {});
    cluster.run(Duration::from_secs(2), |_, _| false);
    let leader = cluster.leader().unwrap_or(N1);
    let term = cluster.node(leader).raft().term();
    let deaf = NodeId(leader.0 % 3 + 1);
    cluster.run(Duration::from_secs(5), |_, to| to == deaf);
    cluster.run(Duration::from_secs(2), |_, _| false);
    assert_eq!((cluster.leader(), cluster.node(leader).raft().term()), (Some(leader), term));
    let mute = deaf;
    cluster.run(Duration::from_secs(5), |from, _| from == mute);
    cluster.run(Duration::from_secs(2), |_, _| false);
    assert_eq!((cluster.leader(), cluster.node(leader).raft().term()), (Some(leader), term));
}

#[test]
fn bridge_between_two_that_cannot_meet_keeps_one_leader() {
    let mut cluster = Cluster::new(3, 5, |_, _| {});
    let cut = |from: NodeId, to: NodeId| from != N2 && to != N2;
    cluster.run(Duration::from_secs(3), cut);
    let leader = cluster.leader();
    let term = leader.map(|leader| cluster.node(leader).raft().term());
    cluster.run(Duration::from_secs(10), cut);
    assert!(leader.is_some());
    assert_eq!(leader, cluster.leader());
    assert_eq!(term, leader.map(|leader| cluster.node(leader).raft().term()));
}

#[test]
fn follower_that_lost_what_it_acknowledged_is_filled_again() {
    let mut cluster = Cluster::new(3, 4, |_, _| {});
    cluster.run(Duration::from_secs(2), |_, _| false);
    let leader = cluster.leader().unwrap_or(N1);
    for _ in 0..10 {
        cluster.propose(leader);
    }
    cluster.settle(|_, _| false);
    let commit = cluster.node(leader).raft().commit_index();
    let liar = NodeId(leader.0 % 3 + 1);
    cluster.crash(liar, 0);
    cluster.node_mut(liar).disk.lose_after(2);
    cluster.start(liar);
    cluster.run(Duration::from_secs(2), |_, _| false);
    assert_eq!(cluster.node(leader).raft().commit_index(), commit);
    assert_eq!(cluster.node(liar).machine, cluster.node(leader).machine);
}

/// [Raft Figure 8]: an entry of an older term on a majority may still be replaced, so it must
/// not be taken for committed.
#[test]
fn old_entry_on_a_majority_may_be_replaced() {
    figure_8();
}

/// Staged so that n1 brings an old entry to a majority and stops before its own entry gets
/// there; then n3 leads, whose last entry is newer.
pub(super) fn figure_8() {
    let mut cluster = Cluster::new(3, 8, |config, _| config.append_entries_max = 1);
    let leads = |id: NodeId| move |cluster: &Cluster| cluster.leader() == Some(id);
    let expire = |cluster: &mut Cluster, id: NodeId| {
        cluster.now = cluster.now + Duration::from_secs(1);
        cluster.tick(id);
    };
    expire(&mut cluster, N1);
    cluster.settle(|_, _| false);
    cluster.propose(N1);
    cluster.settle(|from, _| from == N1);
    cluster.crash(N1, 0);
    expire(&mut cluster, N3);
    cluster.flow_until(|_| false, leads(N3));
    cluster.persist(N3, 9);
    cluster.crash(N3, 0);
    cluster.network.clear();
    cluster.start(N1);
    expire(&mut cluster, N1);
    cluster.settle(|_, _| false);
    assert_eq!(cluster.leader(), None, "n1 has just learnt of term 2");
    expire(&mut cluster, N1);
    cluster.flow_until(
        |envelope| {
            let Message::Append { entries, .. } = &envelope.message else { return false };
            entries.iter().any(|entry| entry.index == 3)
        },
        |cluster| {
            let mut progress = cluster.node(N1).raft().progress();
            progress.any(|(id, progress)| id == N2 && progress.match_index == 2)
        },
    );
    cluster.crash(N1, 0);
    cluster.network.clear();
    cluster.start(N3);
    for _ in 0..2 {
        expire(&mut cluster, N3);
        cluster.settle(|_, _| false);
    }
    let replaced: Vec<Term> =
        cluster.node(N2).raft().log().entries_from(1).map(|entry| entry.term).collect();
    assert_eq!(replaced, [1, 2, 4]);
}

#[test]
pub(super) fn vote_is_remembered_across_a_restart() {
    let mut lone = Lone::recovered(Recovered {
        hard_state: HardState { term: 2, vote: Some(N2) },
        ..Recovered::default()
    });
    assert_eq!(lone.receive(N3, vote(2, (0, 0))), [(N3, vote_reply(2, false))]);
}

/// Every pattern of cut directions among three voters: the terms come to rest, and if any two
/// can talk to each other, there is a leader that one of them can use.
#[test]
fn any_lasting_partition_of_three_comes_to_rest() {
    let links = [(N1, N2), (N2, N1), (N1, N3), (N3, N1), (N2, N3), (N3, N2)];
    for pattern in 0..1_u64 << links.len() {
        let is_cut = |from, to| {
            let position = links.iter().position(|&link| link == (from, to));
            position.is_some_and(|bit| pattern >> bit & 1 == 1)
        };
        let mut cluster = Cluster::new(3, pattern, |_, _| {});
        if pattern % 2 == 0 {
            cluster.run(Duration::from_secs(1), |_, _| false);
        }
        cluster.run(Duration::from_secs(10), is_cut);
        let terms = |cluster: &Cluster| {
            cluster.ids().into_iter().map(|id| cluster.node(id).raft().term()).collect::<Vec<_>>()
        };
        let before = terms(&cluster);
        cluster.run(Duration::from_secs(10), is_cut);
        assert_eq!(terms(&cluster), before, "pattern {pattern:06b}");
        let talk = [(N1, N2), (N1, N3), (N2, N3)];
        if talk.iter().any(|&(one, other)| !is_cut(one, other) && !is_cut(other, one)) {
            let leader = cluster.leader();
            assert!(leader.is_some(), "no leader under {pattern:06b}");
            let done = cluster.oracle.done;
            cluster.propose(leader.unwrap_or(N1));
            cluster.run(Duration::from_millis(100), is_cut);
            assert_eq!(cluster.oracle.done, done + 1, "pattern {pattern:06b}");
        }
    }
}
