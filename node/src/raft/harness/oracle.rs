//! What must hold over all nodes together, at any moment and whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use super::{Disk, Node, is_refusal};
use crate::base::{Index, NodeId, Term};
use crate::raft::{
    AppendOutcome, Entry, EntryKind, Message, Raft, Reply, Role, SnapshotOutcome, Token,
};

/// Remembers what the cluster has promised, and panics when a promise is broken.
#[derive(Debug, Default)]
pub(in crate::raft) struct Oracle {
    /// Every entry that any node ever took for committed.
    committed: BTreeMap<Index, Entry>,
    /// The term in which each of them was committed, or a later one: that of who took it for
    /// committed first.
    committed_in: BTreeMap<Index, Term>,
    /// The leader of each term.
    leaders: BTreeMap<Term, NodeId>,
    /// Up to where each running node's commit index was looked at.
    looked_at: BTreeMap<NodeId, Index>,
    /// Reads that wait: where they were asked, and what was committed then.
    reads: BTreeMap<Token, (NodeId, Index)>,
    /// Proposals that wait: where they were made.
    proposals: BTreeMap<Token, NodeId>,
    /// Proposals that were refused, so they must never take effect.
    refused: BTreeSet<Token>,
    /// Reads served.
    pub(in crate::raft) served: u64,
    /// Proposals that took effect where they were made.
    pub(in crate::raft) done: u64,
}

impl Oracle {
    /// Returns the highest index that any node took for committed.
    pub(in crate::raft) fn committed(&self) -> Index {
        self.committed.last_key_value().map_or(0, |(&index, _)| index)
    }

    /// Returns whether somebody still waits for an answer.
    pub(in crate::raft) fn is_waited_for(&self, token: Token) -> bool {
        self.reads.contains_key(&token) || self.proposals.contains_key(&token)
    }

    /// Returns how many answers are waited for.
    pub(in crate::raft) fn waiting_count(&self) -> usize {
        self.reads.len() + self.proposals.len()
    }

    pub(super) fn started(&mut self, id: NodeId) {
        self.looked_at.remove(&id);
    }

    pub(super) fn crashed(&mut self, id: NodeId) {
        self.reads.retain(|_, (at, _)| *at != id);
        self.proposals.retain(|_, at| *at != id);
    }

    pub(super) fn asked(&mut self, id: NodeId, token: Token) {
        self.reads.insert(token, (id, self.committed()));
    }

    pub(super) fn proposed(&mut self, id: NodeId, token: Token) {
        self.proposals.insert(token, id);
    }

    /// A read must see what was committed when it was asked; a refused command must not happen.
    pub(super) fn answered(&mut self, token: Token, reply: Reply, applied: Index) {
        assert!(self.is_waited_for(token), "nobody waits for {reply:?} to #{token}");
        self.proposals.remove(&token);
        if let Some((at, floor)) = self.reads.remove(&token)
            && reply == Reply::ReadReady
        {
            assert!(applied >= floor, "stale read at {at}: applied {applied}, committed {floor}");
            self.served += 1;
        }
        if is_refusal(reply) {
            let done = self.committed.values().any(|entry| command(entry) == Some(token));
            assert!(!done, "#{token} was answered {reply:?} and is committed");
            self.refused.insert(token);
        }
    }

    /// An applied entry is the committed one, and answers the proposal that made it.
    pub(super) fn applied(&mut self, entry: &Entry, token: Option<Token>) {
        let committed = self.committed.get(&entry.index);
        assert!(committed == Some(entry), "applied {entry}, committed {committed:?}");
        let Some(token) = token else { return };
        assert!(command(entry) == Some(token), "#{token} was answered with {entry:?}");
        assert!(self.proposals.remove(&token).is_some(), "nobody waits for #{token}");
        self.done += 1;
    }

    /// A message promises only what would survive a crash of its sender.
    pub(super) fn check_sent(
        nodes: &BTreeMap<NodeId, Node>,
        from: NodeId,
        to: NodeId,
        message: &Message,
    ) {
        let (Some(sender), Some(receiver)) = (nodes.get(&from), nodes.get(&to)) else { return };
        let disk = &sender.disk;
        let (term, durable) = (message.term(), disk.hard_state);
        match message {
            Message::PreVote { .. } | Message::PreVoteReply { .. } | Message::Compare { .. } => {
                return;
            }
            Message::VoteReply { granted: true, .. } => {
                assert!(
                    durable.term > term || (durable.term == term && durable.vote == Some(to)),
                    "{from} votes for {to} in {term}, durable is {durable:?}"
                );
            }
            Message::Vote { .. } => {
                assert!(
                    durable.term == term && durable.vote == Some(from),
                    "{from} asks for votes in {term}, durable is {durable:?}"
                );
            }
            Message::AppendReply { outcome: AppendOutcome::Matched { index }, .. } => {
                Self::acknowledged(disk, receiver, from, *index, term);
            }
            Message::SnapshotReply { meta, outcome: SnapshotOutcome::Installed, .. } => {
                assert!(
                    disk.holds(meta.index, meta.term),
                    "{from} claims snapshot {meta}, its disk does not hold it"
                );
            }
            Message::Append { .. }
            | Message::AppendReply { .. }
            | Message::VoteReply { .. }
            | Message::SnapshotChunk { .. }
            | Message::SnapshotReply { .. }
            | Message::Standing { .. }
            | Message::Forgotten { .. } => {}
        }
        assert!(durable.term >= term, "{from} speaks in {term}, durable is {durable:?}");
    }

    fn acknowledged(disk: &Disk, leader: &Node, from: NodeId, index: Index, term: Term) {
        let Some(leader) = &leader.raft else { return };
        if leader.term() != term || leader.role() != Role::Leader {
            return;
        }
        if let Some(entry_term) = leader.log().term_at(index) {
            assert!(
                index == 0 || disk.holds(index, entry_term),
                "{from} acknowledges {index}@{entry_term}, its disk does not hold it"
            );
        }
    }

    /// Checks everything that concerns a node that has just done something.
    pub(super) fn looked_at(&mut self, nodes: &BTreeMap<NodeId, Node>, id: NodeId) {
        let Some(raft) = nodes.get(&id).and_then(|node| node.raft.as_ref()) else { return };
        self.check_leader(raft);
        self.check_committed(nodes, raft);
        for other in nodes.values().filter_map(|node| node.raft.as_ref()) {
            check_log_matching(raft, other);
        }
    }

    /// At most one leader per term, and it has everything that was committed in earlier ones. One
    /// whose votes arrive when later terms have begun need not have what those have committed.
    fn check_leader(&mut self, raft: &Raft) {
        if raft.role() != Role::Leader {
            return;
        }
        let (id, term) = (raft.id(), raft.term());
        let known = self.leaders.insert(term, id);
        if let Some(known) = known {
            assert!(known == id, "election safety: {known} and {id} lead term {term}");
            return;
        }
        for (&index, entry) in self.committed.range(raft.log().first_index()..) {
            if self.committed_in.get(&index).is_some_and(|&committed_in| committed_in >= term) {
                continue;
            }
            let held = raft.log().entry(index);
            assert!(
                held == Some(entry),
                "leader completeness: {id} leads {term} with {held:?}, committed is {entry}"
            );
        }
    }

    /// What is committed never changes, is the same everywhere, and is durable on a majority.
    fn check_committed(&mut self, nodes: &BTreeMap<NodeId, Node>, raft: &Raft) {
        let (id, commit) = (raft.id(), raft.commit_index());
        let looked_at = self.looked_at.insert(id, commit).unwrap_or(0);
        for entry in raft.log().entries_from(looked_at + 1) {
            if entry.index > commit {
                break;
            }
            let Some(known) = self.committed.get(&entry.index) else {
                let durable =
                    nodes.values().filter(|node| node.disk.holds(entry.index, entry.term)).count();
                assert!(
                    durable * 2 > nodes.len(),
                    "durability: {id} commits {entry}, durable on {durable} of {}",
                    nodes.len()
                );
                if let Some(token) = command(entry) {
                    assert!(!self.refused.contains(&token), "#{token} was refused, see {entry}");
                }
                self.committed.insert(entry.index, entry.clone());
                self.committed_in.insert(entry.index, raft.term());
                continue;
            };
            assert!(
                known == entry,
                "state machine safety: {id} commits {entry}, committed is {known}"
            );
        }
    }
}

/// If two logs have the same term at one index, they are the same up to there. [Raft §5.3]
fn check_log_matching(one: &Raft, other: &Raft) {
    let first = one.log().first_index().max(other.log().first_index());
    let last = one.last_index().min(other.last_index());
    let mut same = false;
    for index in (first..=last).rev() {
        let (a, b) = (one.log().entry(index), other.log().entry(index));
        same |= one.log().term_at(index) == other.log().term_at(index);
        assert!(
            !same || a == b,
            "log matching: {} has {a:?}, {} has {b:?}, and a later entry is the same",
            one.id(),
            other.id()
        );
    }
}

/// Returns the token that a command was made with.
fn command(entry: &Entry) -> Option<Token> {
    match &entry.kind {
        EntryKind::Noop => None,
        EntryKind::Command(command) => command.as_bytes().try_into().ok().map(Token::from_le_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cluster, Envelope};
    use super::*;
    use crate::base::Core as _;

    const N1: NodeId = NodeId(1);
    const N2: NodeId = NodeId(2);

    fn wait_for_deadline(cluster: &mut Cluster, id: NodeId) {
        let deadline = cluster.node(id).raft().deadline();
        cluster.now = cluster.now.max(deadline);
        cluster.tick(id);
    }

    fn is_vote(envelope: &Envelope) -> bool {
        matches!(envelope.message, Message::VoteReply { granted: true, .. })
    }

    #[test]
    fn leader_of_a_passed_term_lacks_what_later_ones_have_committed() {
        let mut cluster = Cluster::new(3, 1, |_, _| {});
        wait_for_deadline(&mut cluster, N1);
        let is_cast = |cluster: &Cluster| cluster.network.iter().any(is_vote);
        cluster.flow_until(|_| false, is_cast);
        let Some(at) = cluster.network.iter().position(is_vote) else { panic!("no vote") };
        let Some(late) = cluster.network.remove(at) else { panic!("no vote") };
        let is_cut = |from, to| from == N1 || to == N1;
        cluster.settle(is_cut);
        while cluster.leader() != Some(N2) {
            wait_for_deadline(&mut cluster, N2);
            cluster.settle(is_cut);
        }
        assert!(cluster.oracle.committed() > 0, "nothing is committed in the later term");

        cluster.deliver(late);
        let (raft, later) = (cluster.node(N1).raft(), cluster.node(N2).raft());
        assert_eq!((raft.role(), later.role()), (Role::Leader, Role::Leader));
        assert!(raft.term() < later.term(), "{} and {}", raft.term(), later.term());
        cluster.settle(|_, _| false);
        assert_eq!(cluster.leader(), Some(N2));
    }
}
