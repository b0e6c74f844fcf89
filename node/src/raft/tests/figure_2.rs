//! One test per rule of [Raft Figure 2], in its order.

use super::*;

/// Figure 2, all servers: "If commitIndex > lastApplied: increment lastApplied, apply
/// log[lastApplied] to state machine."
#[test]
fn committed_entries_are_applied_in_order() {
    let mut lone = Lone::new(&[1, 1, 1], 1);
    let ready = lone.give(Input::Peer { from: N2, message: append(1, (3, 1), &[], 3) });
    let applied: Vec<Index> = ready.apply.iter().map(|committed| committed.entry.index).collect();
    assert_eq!(applied, [1, 2, 3]);
    assert_eq!(lone.raft.applied_index(), 3);
}

/// Figure 2, all servers: "If RPC request or response contains term T > currentTerm: set
/// currentTerm = T, convert to follower."
#[test]
fn higher_term_makes_a_follower() {
    for message in [append(9, (0, 0), &[], 0), vote(9, (1, 1)), vote_reply(9, false)] {
        let mut lone = Lone::new(&[1], 1);
        lone.expire();
        assert_eq!(lone.raft.role(), Role::PreCandidate);
        lone.receive(N2, message);
        assert_eq!((lone.raft.role(), lone.raft.term()), (Role::Follower, 9));
    }
    let mut leader = Lone::leader(&[1], 2);
    leader.receive(N2, matched(9, 1));
    assert_eq!((leader.raft.role(), leader.raft.term()), (Role::Follower, 9));
}

/// Figure 2, `AppendEntries` 1: "Reply false if term < currentTerm."
#[test]
fn append_of_an_older_term_is_refused() {
    let mut lone = Lone::new(&[1], 5);
    assert_eq!(lone.receive(N2, append(4, (1, 1), &[4], 1)), [(N2, rejected(5, 1, (0, 0)))]);
    assert_eq!((lone.terms(), lone.raft.leader()), (vec![1], None));
}

/// Figure 2, `AppendEntries` 2: "Reply false if log doesn't contain an entry at prevLogIndex
/// whose term matches prevLogTerm." Unlike there, the answer says where to go on.
#[test]
fn append_that_does_not_connect_is_rejected_with_a_hint() {
    let mut lone = Lone::new(&[1, 1, 2, 2, 2], 4);
    assert_eq!(lone.receive(N2, append(4, (9, 4), &[], 0)), [(N2, rejected(4, 9, (5, 2)))]);
    assert_eq!(lone.receive(N2, append(4, (5, 4), &[], 0)), [(N2, rejected(4, 5, (4, 2)))]);
    assert_eq!(lone.receive(N2, append(4, (4, 1), &[], 0)), [(N2, rejected(4, 4, (2, 1)))]);
    assert_eq!(lone.terms(), [1, 1, 2, 2, 2]);
    lone.receive(N2, append(4, (2, 1), &[], 2));
    assert_eq!(
        lone.receive(N3, append(5, (5, 1), &[], 2)),
        [(N3, rejected(5, 5, (2, 1)))],
        "another leader is told no more than that"
    );
}

/// Figure 2, `AppendEntries` 3: "If an existing entry conflicts with a new one, delete the
/// existing entry and all that follow it."
#[test]
fn append_that_conflicts_replaces_the_suffix() {
    let mut lone = Lone::new(&[1, 1, 2, 2, 2], 4);
    lone.receive(N2, append(4, (2, 1), &[], 0));
    assert_eq!(lone.receive(N2, append(4, (2, 1), &[4], 0)), [(N2, matched(4, 3))]);
    assert_eq!(lone.terms(), [1, 1, 4]);
}

/// Figure 2, `AppendEntries` 4: "Append any new entries not already in the log." What is there
/// already stays, whatever follows it.
#[test]
fn append_that_is_known_changes_nothing() {
    let mut lone = Lone::new(&[1, 1], 1);
    lone.receive(N2, append(1, (2, 1), &[], 0));
    assert_eq!(lone.receive(N2, append(1, (2, 1), &[1, 1], 0)), [(N2, matched(1, 4))]);
    let ready = lone.give(Input::Peer { from: N2, message: append(1, (1, 1), &[1], 0) });
    assert_eq!(ready.send, [(N2, matched(1, 4))], "an acknowledgement never goes back");
    assert_eq!(lone.terms(), [1, 1, 1, 1]);
}

/// Figure 2, `AppendEntries` 5: "If leaderCommit > commitIndex, set commitIndex =
/// min(leaderCommit, index of last new entry)."
#[test]
fn commit_index_stops_at_the_last_verified_entry() {
    let mut lone = Lone::new(&[1, 1, 1, 1], 2);
    lone.receive(N2, append(2, (2, 1), &[], 4));
    assert_eq!(lone.raft.commit_index(), 2, "entries 3 and 4 may not be the leader's");
    lone.receive(N2, append(2, (2, 1), &[2, 2], 3));
    assert_eq!(lone.raft.commit_index(), 3);
    lone.receive(N2, append(2, (4, 2), &[], 1));
    assert_eq!(lone.raft.commit_index(), 3, "it never goes back");
}

/// Figure 2, `RequestVote` 1: "Reply false if term < currentTerm."
#[test]
fn vote_of_an_older_term_is_refused() {
    let mut lone = Lone::new(&[1], 5);
    assert_eq!(lone.receive(N2, vote(4, (9, 3))), [(N2, vote_reply(5, false))]);
}

/// Figure 2, `RequestVote` 2: "If votedFor is null or candidateId …, grant vote."
#[test]
fn vote_is_given_once_per_term() {
    let mut lone = Lone::new(&[1], 1);
    assert_eq!(lone.receive(N2, vote(2, (1, 1))), [(N2, vote_reply(2, true))]);
    assert_eq!(lone.receive(N3, vote(2, (1, 1))), [(N3, vote_reply(2, false))]);
    assert_eq!(lone.receive(N2, vote(2, (1, 1))), [(N2, vote_reply(2, true))], "asked again");
    assert_eq!(lone.receive(N3, vote(3, (1, 1))), [(N3, vote_reply(3, true))], "another term");
}

/// Figure 2, `RequestVote` 2: "… and candidate's log is at least as up-to-date as receiver's
/// log, grant vote." [Raft §5.4.1]
#[test]
fn vote_needs_a_log_as_up_to_date() {
    let cases = [((2, 2), true), ((3, 2), true), ((1, 3), true), ((1, 2), false), ((9, 1), false)];
    for (last, granted) in cases {
        let mut lone = Lone::new(&[1, 2], 2);
        assert_eq!(lone.receive(N2, vote(4, last)), [(N2, vote_reply(4, granted))], "{last:?}");
        assert_eq!(lone.raft.hard_state().vote, granted.then_some(N2));
    }
}

/// Figure 2, followers: "If election timeout elapses without receiving `AppendEntries` … or
/// granting vote to candidate: convert to candidate." Unlike there, it asks first. [Thesis §9.6]
#[test]
fn follower_without_a_leader_asks_before_it_campaigns() {
    let mut lone = Lone::new(&[1, 1], 3);
    let ready = lone.expire();
    let asked = Message::PreVote { term: 4, last_index: 2, last_term: 1 };
    assert_eq!(ready.send, [(N2, asked.clone()), (N3, asked)]);
    assert_eq!((lone.raft.role(), lone.raft.term()), (Role::PreCandidate, 3));
}

/// Figure 2, followers: the timer starts anew with every append and every vote given.
#[test]
fn follower_that_hears_or_votes_waits_again() {
    let (mut heard, mut voted) = (Lone::new(&[1], 1), Lone::new(&[1], 1));
    for _ in 0..20 {
        heard.pass(Duration::from_millis(290));
        heard.receive(N2, append(1, (1, 1), &[], 0));
    }
    assert_eq!(heard.raft.role(), Role::Follower);
    voted.pass(Duration::from_millis(290));
    voted.receive(N2, vote(2, (1, 1)));
    voted.pass(Duration::from_millis(290));
    assert_eq!(voted.raft.role(), Role::Follower);
}

/// Figure 2, candidates: "On conversion to candidate, start election: increment currentTerm,
/// vote for self, reset election timer, send `RequestVote` RPCs to all other servers."
#[test]
fn candidate_enters_a_new_term_and_asks_for_votes() {
    let mut lone = Lone::new(&[1], 3);
    lone.expire();
    let sent = lone.receive(N3, Message::PreVoteReply { term: 4, granted: true });
    assert_eq!(sent, [(N2, vote(4, (1, 1))), (N3, vote(4, (1, 1)))]);
    assert_eq!(lone.raft.role(), Role::Candidate);
    assert_eq!(lone.raft.hard_state(), HardState { term: 4, vote: Some(N1) });
    assert!(lone.raft.deadline() > lone.now);
}

/// Figure 2, candidates: "If votes received from majority of servers: become leader." And
/// leaders: "Upon election: send initial empty `AppendEntries` RPCs to each server."
#[test]
fn candidate_with_a_majority_leads_and_says_so() {
    let mut lone = Lone::new(&[1], 1);
    lone.expire();
    lone.receive(N2, Message::PreVoteReply { term: 2, granted: true });
    assert_eq!(lone.receive(N3, vote_reply(2, false)), []);
    let sent = lone.receive(N2, vote_reply(2, true));
    assert_eq!(sent, [(N2, append(2, (1, 1), &[], 0)), (N3, append(2, (1, 1), &[], 0))]);
    assert_eq!(lone.terms(), [1, 2], "a no-op of its own term [Raft §8]");
}

/// Figure 2, candidates: "If `AppendEntries` RPC received from new leader: convert to follower."
#[test]
fn candidate_that_hears_the_leader_follows() {
    let mut lone = Lone::new(&[1], 1);
    lone.expire();
    lone.receive(N2, Message::PreVoteReply { term: 2, granted: true });
    lone.receive(N3, append(2, (1, 1), &[], 0));
    assert_eq!((lone.raft.role(), lone.raft.leader()), (Role::Follower, Some(N3)));
    assert_eq!(lone.raft.hard_state().vote, Some(N1), "the vote of the term stays given");
}

/// Figure 2, candidates: "If election timeout elapses: start new election."
#[test]
fn candidate_without_a_majority_starts_over() {
    let mut lone = Lone::new(&[1], 1);
    lone.expire();
    lone.receive(N2, Message::PreVoteReply { term: 2, granted: true });
    lone.pass(Duration::from_millis(600));
    assert_eq!((lone.raft.role(), lone.raft.term()), (Role::PreCandidate, 2));
}

/// Figure 2, leaders: "If command received from client: append entry to local log, respond after
/// entry applied to state machine."
#[test]
fn leader_answers_a_proposal_with_its_applied_entry() {
    let mut lone = Lone::leader(&[], 1);
    let ready = lone.give(propose(5));
    assert_eq!((ready.apply, ready.replies), (vec![], vec![]));
    let ready = lone.give(Input::Peer { from: N2, message: matched(1, 2) });
    let answered: Vec<_> = ready.apply.iter().map(|c| (c.entry.index, c.token)).collect();
    assert_eq!(answered, [(1, None), (2, Some(5))]);
}

/// Figure 2, leaders: "If last log index >= nextIndex for a follower: send `AppendEntries` RPC
/// with log entries starting at nextIndex."
#[test]
fn leader_sends_what_a_follower_lacks_in_one_message() {
    let mut lone = Lone::leader(&[1], 2);
    let sent = lone.receive(N2, matched(2, 1));
    assert_eq!(sent, [(N2, append(2, (1, 1), &[2], 0))]);
    for token in 0..3 {
        lone.raft.step(lone.now, propose(token));
    }
    let ready = lone.raft.take_ready();
    let [(to, Message::Append { prev_index: 2, entries, .. })] = ready.send.as_slice() else {
        panic!("three proposals, one append for the one that streams: {:?}", ready.send)
    };
    assert_eq!((*to, entries.len()), (N2, 3));
    assert_eq!(ready.persist.map(|persist| persist.entries.len()), Some(3));
}

/// Figure 2, leaders: "If `AppendEntries` fails because of log inconsistency: decrement nextIndex
/// and retry." Unlike there, by a whole term at a time. [Raft §5.3, end]
#[test]
fn leader_goes_back_by_whole_terms() {
    let mut lone = Lone::leader(&[1, 1, 4, 4, 5, 5, 6, 6, 6], 7);
    let sent = lone.receive(N2, rejected(7, 9, (8, 3)));
    assert_eq!(sent, [(N2, append(7, (2, 1), &[], 0))], "nothing of terms 4 to 6 can match");
    let sent = lone.receive(N2, rejected(7, 9, (8, 3)));
    assert_eq!(sent, [], "a repeated answer is not another one");
}

/// Figure 2, leaders: "If there exists an N such that N > commitIndex, a majority of
/// matchIndex[i] >= N, and log[N].term == currentTerm: set commitIndex = N." [Raft §5.4.2]
#[test]
fn leader_commits_by_counting_only_in_its_own_term() {
    let mut lone = Lone::leader(&[1, 2], 3);
    lone.receive(N2, matched(3, 2));
    assert_eq!(lone.raft.commit_index(), 0, "a majority has entry 2, but of an older term");
    lone.receive(N2, matched(3, 3));
    assert_eq!(lone.raft.commit_index(), 3);
}
