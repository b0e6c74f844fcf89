//! One test per rule of [Raft Figure 2], then what this implementation adds to the paper.

use std::time::Duration;

use super::harness::Cluster;
use super::{
    AppendOutcome, Config, Entry, EntryKind, HardState, Input, Message, Raft, Ready, Recovered,
    Reply, Role, SnapshotMeta, SnapshotOutcome,
};
use crate::base::{Core, Index, Instant, NodeId, Payload, Rng, Term};

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);

/// One core, n1, fed by hand.
struct Lone {
    raft: Raft,
    now: Instant,
}

impl Lone {
    /// Starts n1 of three voters with a log of the given terms, in the given term.
    fn new(terms: &[Term], term: Term) -> Self {
        Self::recovered(Recovered {
            hard_state: HardState { term, vote: None },
            entries: entries(1, terms),
            ..Recovered::default()
        })
    }

    fn recovered(recovered: Recovered) -> Self {
        let mut config = Config::new(N1, vec![N1, N2, N3]);
        config.check_invariants = true;
        let now = Instant::from_nanos(0);
        let mut lone = Self { raft: Raft::new(config, recovered, Rng::new(7), now), now };
        lone.work();
        lone
    }

    /// Starts n1 as the leader of the given term.
    fn leader(terms: &[Term], term: Term) -> Self {
        let mut lone = Self::new(terms, term - 1);
        lone.expire();
        lone.receive(N2, Message::PreVoteReply { term, granted: true });
        lone.receive(N2, Message::VoteReply { term, granted: true });
        assert_eq!(lone.raft.role(), Role::Leader);
        lone
    }

    /// Gives an input without carrying anything out.
    fn step(&mut self, input: Input) -> Ready {
        self.raft.step(self.now, input);
        self.raft.take_ready()
    }

    /// Carries out everything with an instant disk and state machine; returns what was done.
    fn work(&mut self) -> Ready {
        let mut all = Ready::default();
        loop {
            let ready = self.raft.take_ready();
            if ready == Ready::default() {
                return all;
            }
            all.send.extend(ready.send);
            all.replies.extend(ready.replies);
            all.snapshot_reads.extend(ready.snapshot_reads);
            all.snapshot_writes.extend(ready.snapshot_writes);
            if let Some(persist) = ready.persist {
                self.raft.step(self.now, Input::Persisted { through: persist.id });
            }
            if let Some(last) = ready.apply.last() {
                self.raft.step(self.now, Input::Applied { through: last.entry.index });
            }
            all.apply.extend(ready.apply);
        }
    }

    fn give(&mut self, input: Input) -> Ready {
        self.raft.step(self.now, input);
        self.work()
    }

    fn receive(&mut self, from: NodeId, message: Message) -> Vec<(NodeId, Message)> {
        self.give(Input::Peer { from, message }).send
    }

    fn pass(&mut self, time: Duration) -> Ready {
        self.now = self.now + time;
        self.raft.tick(self.now);
        self.work()
    }

    /// Lets the time come at which the core wants to be woken.
    fn expire(&mut self) -> Ready {
        let time = self.raft.deadline().since(self.now);
        self.pass(time)
    }

    fn terms(&self) -> Vec<Term> {
        self.raft.log().entries_from(1).map(|entry| entry.term).collect()
    }
}

fn entries(first: Index, terms: &[Term]) -> Vec<Entry> {
    (first..)
        .zip(terms)
        .map(|(index, &term)| Entry { term, index, kind: EntryKind::Noop })
        .collect()
}

fn append(term: Term, prev: (Index, Term), terms: &[Term], commit: Index) -> Message {
    Message::Append {
        term,
        prev_index: prev.0,
        prev_term: prev.1,
        entries: entries(prev.0 + 1, terms),
        commit,
        round: 0,
    }
}

fn matched(term: Term, index: Index) -> Message {
    let outcome = AppendOutcome::Matched { index };
    Message::AppendReply { term, round: 0, outcome }
}

fn rejected(term: Term, prev_index: Index, hint: (Index, Term)) -> Message {
    let outcome = AppendOutcome::Rejected { prev_index, hint_index: hint.0, hint_term: hint.1 };
    Message::AppendReply { term, round: 0, outcome }
}

fn vote(term: Term, last: (Index, Term)) -> Message {
    Message::Vote { term, last_index: last.0, last_term: last.1 }
}

fn vote_reply(term: Term, granted: bool) -> Message {
    Message::VoteReply { term, granted }
}

fn propose(token: u64) -> Input {
    Input::Propose { token, command: Payload::default() }
}

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

// What follows goes beyond Figure 2.

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

#[test]
fn leader_with_a_dead_disk_steps_down() {
    let mut lone = Lone::leader(&[], 1);
    lone.step(propose(1));
    for _ in 0..51 {
        lone.now = lone.now + Duration::from_millis(60);
        lone.raft.step(lone.now, Input::Peer { from: N2, message: matched(1, 1) });
        lone.raft.tick(lone.now);
        lone.raft.take_ready();
    }
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
fn figure_8() {
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
        |envelope| match &envelope.message {
            Message::Append { entries, .. } => entries.iter().any(|entry| entry.index == 3),
            _ => false,
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
fn vote_is_remembered_across_a_restart() {
    let mut lone = Lone::recovered(Recovered {
        hard_state: HardState { term: 2, vote: Some(N2) },
        ..Recovered::default()
    });
    assert_eq!(lone.receive(N3, vote(2, (0, 0))), [(N3, vote_reply(2, false))]);
}

#[test]
fn snapshot_older_than_the_commit_index_is_not_installed() {
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

/// Proof that the staged scenarios fail where the code is wrong.
#[cfg(feature = "testing")]
#[test]
fn planted_bugs_break_the_staged_scenarios() {
    let scenarios: [(&str, fn()); 3] = [
        ("R2", vote_is_remembered_across_a_restart),
        ("R7", figure_8),
        ("R26", snapshot_older_than_the_commit_index_is_not_installed),
    ];
    for (code, scenario) in scenarios {
        crate::base::planted::turn_on(Some(code));
        let result = std::panic::catch_unwind(scenario);
        crate::base::planted::turn_on(None);
        assert!(result.is_err(), "{code} goes unnoticed");
    }
}
