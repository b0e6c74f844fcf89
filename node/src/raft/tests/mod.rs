//! Directed tests: one core fed by hand, or a few nodes in a staged situation.

mod behind;
mod beyond;
mod figure_2;
mod lost;
mod reads;
mod snapshot;
mod standing;

use std::time::Duration;

use super::harness::Cluster;
use super::{
    AppendOutcome, Awaited, Config, Entry, EntryKind, HardState, Input, Message, Raft, Ready,
    Recovered, Reply, Role, SnapshotMeta, SnapshotOutcome, Standing,
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
        Self::configured(Config::new(N1, vec![N1, N2, N3]), recovered)
    }

    fn configured(mut config: Config, recovered: Recovered) -> Self {
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

/// Proof that the staged scenarios fail where the code is wrong.
#[cfg(feature = "testing")]
#[test]
fn planted_bugs_break_the_staged_scenarios() {
    let scenarios: [(&str, fn()); 7] = [
        ("R2", beyond::vote_is_remembered_across_a_restart),
        ("R7", beyond::figure_8),
        ("R26", snapshot::snapshot_older_than_the_commit_index_is_not_installed),
        ("R52", standing::new_disk_elects_nobody_who_lacks_what_the_lost_one_had),
        ("R53", standing::vote_given_before_the_disk_was_lost_is_not_given_again),
        ("R54", standing::leader_tells_a_follower_what_its_disk_has_forgotten),
        ("R55", standing::vote_whose_record_was_lost_is_not_given_again),
    ];
    for (code, scenario) in scenarios {
        crate::base::planted::turn_on(Some(code));
        let result = std::panic::catch_unwind(scenario);
        crate::base::planted::turn_on(None);
        assert!(result.is_err(), "{code} goes unnoticed");
    }
}
