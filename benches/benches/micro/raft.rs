//! The primary-backup core: a leader of three that commits and applies 64 proposals.
//!
//! Measured is the leader alone: it takes the proposals, asks its disk, sends both followers one
//! append, takes their acknowledgements, and hands the entries to the state machine. Disk,
//! followers and state machine answer at once, by a few lines here. Each iteration begins with a
//! leader that was just elected, so its log is short and the same every time.
//!
//! # Left out
//! The followers' side, elections, reads, and the encoding of anything. Time, which stands still.

use criterion::{BatchSize, Criterion, Throughput};
use mangrove::base::{Core, Instant, NodeId, Payload, Rng};
use mangrove::raft::{
    AppendOutcome, Committed, Config, Input, Message, Raft, Ready, Recovered, Role,
};

use super::{BATCH, count};

const NOW: Instant = Instant::from_nanos(0);

/// A command of the length that the codec makes of a key of 16 bytes and a value of 100.
const COMMAND: [u8; 120] = [7; 120];

/// Measures it.
pub(crate) fn measure(criterion: &mut Criterion) {
    let mut leader = elected();
    let committed = propose(&mut leader, commands());
    let tokens = committed.iter().map(|committed| committed.token);
    assert!(tokens.eq((0..BATCH).map(Some)), "every proposal is committed, in order");
    assert_eq!(leader.applied_index(), leader.last_index(), "and applied");

    let mut group = criterion.benchmark_group("raft");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("leader_commits_64", |bencher| {
        bencher.iter_batched_ref(
            || (elected(), commands()),
            |(leader, commands): &mut (Raft, Vec<Payload>)| {
                propose(leader, std::mem::take(commands))
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn commands() -> Vec<Payload> {
    let command = |_| Payload::new(COMMAND.to_vec()).expect("a short command");
    (0..BATCH).map(command).collect()
}

/// Returns the leader of three, whose followers have its whole log.
fn elected() -> Raft {
    let voters: Vec<NodeId> = (1..=3).map(NodeId).collect();
    let config = Config::new(NodeId(1), voters);
    let mut leader = Raft::new(config, Recovered::default(), Rng::new(1), NOW);
    let campaign_at = leader.deadline();
    leader.tick(campaign_at);
    settle(&mut leader);
    assert_eq!((leader.role(), leader.applied_index()), (Role::Leader, 1), "it is elected");
    leader
}

/// Has the leader commit commands; returns what was applied.
fn propose(leader: &mut Raft, commands: Vec<Payload>) -> Vec<Committed> {
    for (token, command) in (0..).zip(commands) {
        leader.step(NOW, Input::Propose { token, command });
    }
    settle(leader)
}

/// Does what a core wants until it wants nothing more; returns what was applied.
fn settle(core: &mut Raft) -> Vec<Committed> {
    let mut applied = Vec::new();
    loop {
        let Ready { persist, send, apply, .. } = core.take_ready();
        if persist.is_none() && send.is_empty() && apply.is_empty() {
            return applied;
        }
        for (from, message) in send {
            if let Some(message) = answer(&message) {
                core.step(NOW, Input::Peer { from, message });
            }
        }
        if let Some(persist) = persist {
            core.step(NOW, Input::Persisted { through: persist.id });
        }
        if let Some(last) = apply.last() {
            core.step(NOW, Input::Applied { through: last.entry.index });
        }
        applied.extend(apply);
    }
}

/// Answers a message as a peer does that agrees and has a quick disk.
fn answer(message: &Message) -> Option<Message> {
    match message {
        Message::PreVote { term, .. } => Some(Message::PreVoteReply { term: *term, granted: true }),
        Message::Vote { term, .. } => Some(Message::VoteReply { term: *term, granted: true }),
        Message::Append { term, prev_index, entries, round, .. } => {
            let index = prev_index + count(entries.len());
            let outcome = AppendOutcome::Matched { index };
            Some(Message::AppendReply { term: *term, round: *round, outcome })
        }
        Message::PreVoteReply { .. }
        | Message::VoteReply { .. }
        | Message::AppendReply { .. }
        | Message::SnapshotChunk { .. }
        | Message::SnapshotReply { .. }
        | Message::Compare { .. }
        | Message::Standing { .. }
        | Message::Forgotten { .. } => None,
    }
}
