//! A follower whose tables do not keep up with what its leader sends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::config::NodeConfig;
use super::super::inbox::{Arrivals, Event};
use super::super::observer::Observer;
use super::super::shell::Replica;
use super::super::state::StateEvent;
use super::{HandEnv, prepare, tree_soon_behind};
use crate::base::{
    ClusterId, Column, Core, Index, Instant, Key, NodeId, Payload, RequestSeq, Rng, SessionId,
    Value,
};
use crate::codec;
use crate::env::Env;
use crate::kv::{Batch, Command};
use crate::raft::{
    self, AppendOutcome, Entry, HardState, Input, Message, Raft, Ready, Recovered, Reply, Role,
    SnapshotMeta,
};
use crate::storage::test_disk::run;
use crate::wire::PeerMessage;

/// The follower under test.
pub(super) const N1: NodeId = NodeId(1);
/// Its leader, a core with a disk and a state machine that take no time.
const N2: NodeId = NodeId(2);
/// A voter that has everything at once and votes for whoever asks.
const N3: NodeId = NodeId(3);

pub(super) const ROUND: Duration = Duration::from_millis(10);
pub(super) const MEMTABLE_BYTES: u64 = 2 << 10;
const BEHIND_BYTES_MAX: usize = 8 << 10;
const INFLIGHT_BYTES_MAX: usize = 4 << 10;
const READ: u64 = 1 << 40;

/// What the core of the node under test said.
#[derive(Clone, Default)]
pub(super) struct Said {
    sent: Arc<Mutex<Vec<(NodeId, Message)>>>,
    /// What was applied when the read was answered.
    read_at: Arc<Mutex<Option<Index>>>,
}

impl Observer for Said {
    fn on_ready(&mut self, _now: Instant, core: &Raft, ready: &Ready) {
        lock(&self.sent).extend(ready.send.iter().cloned());
        if ready.replies.contains(&(READ, Reply::ReadReady)) {
            *lock(&self.read_at) = Some(core.applied_index());
        }
    }
}

impl Said {
    pub(super) fn take_sent(&self) -> Vec<(NodeId, Message)> {
        std::mem::take(&mut *lock(&self.sent))
    }

    fn read_at(&self) -> Option<Index> {
        *lock(&self.read_at)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Scene {
    pub(super) env: HandEnv,
    pub(super) node: Replica<HandEnv, Said>,
    said: Said,
    arrivals: Arrivals,
    leader: Raft,
    /// The leader is there.
    pub(super) is_led: bool,
    writes: u64,
    pub(super) rounds: usize,
    /// Rounds since the node last answered its leader.
    silent_rounds: usize,
}

fn config() -> NodeConfig {
    let members = [N1, N2, N3].map(|node| (node, format!("n{node}"))).to_vec();
    NodeConfig {
        tree: tree_soon_behind(MEMTABLE_BYTES),
        behind_bytes_max: BEHIND_BYTES_MAX,
        scrub_bytes_per_second: 0,
        ..NodeConfig::new(ClusterId(1), N1, "n1", members)
    }
}

pub(super) fn command(number: u64) -> Payload {
    let command = if number == 1 {
        Command::RegisterByIndex { nonce: 1 }
    } else {
        let key = Key::new(number.to_be_bytes().to_vec()).unwrap_or_default();
        let value = Value::new(vec![7; 100]).unwrap_or_default();
        let batch = Batch::new().set(key, Column::default(), value);
        // The first entry of all is the leader's no-op, the second one is the session.
        let (session, seq) = (SessionId(2), RequestSeq(number));
        Command::Write { session, seq, acked_below: seq, batch }
    };
    Payload::new(codec::encode(&command)).unwrap_or_default()
}

impl Scene {
    pub(super) fn new() -> Self {
        let env = HandEnv::default();
        let config = config();
        prepare(&env, &config);
        let said = Said::default();
        let started = run(Replica::recover(env.clone(), config, said.clone()));
        let node = started.unwrap_or_else(|error| panic!("{error}"));
        let config = raft::Config {
            inflight_bytes_max: INFLIGHT_BYTES_MAX,
            append_bytes_max: 1 << 10,
            ..raft::Config::new(N2, vec![N1, N2, N3])
        };
        let hard_state = HardState { term: 1, vote: None };
        let recovered = Recovered { hard_state, ..Recovered::default() };
        let leader = Raft::new(config, recovered, Rng::new(2), env.now());
        let mut scene = Self {
            env,
            node,
            said,
            arrivals: Arrivals::default(),
            leader,
            is_led: true,
            writes: 0,
            rounds: 0,
            silent_rounds: 0,
        };
        let wait = scene.leader.deadline().since(scene.env.now());
        scene.env.pass(wait);
        scene.leader.tick(scene.env.now());
        scene.lead();
        assert_eq!(scene.leader.role(), Role::Leader);
        scene
    }

    /// Has the leader do what it can, and the third voter answer it.
    fn lead(&mut self) {
        let now = self.env.now();
        while self.is_led {
            let ready = self.leader.take_ready();
            if ready == Ready::default() {
                break;
            }
            if let Some(persist) = ready.persist {
                self.leader.step(now, Input::Persisted { through: persist.id });
            }
            if let Some(last) = ready.apply.last() {
                self.leader.step(now, Input::Applied { through: last.entry.index });
            }
            for (to, message) in ready.send {
                if to == N1 {
                    self.deliver(N2, message);
                } else if let Some(message) = answer(&message) {
                    self.leader.step(now, Input::Peer { from: N3, message });
                }
            }
        }
    }

    fn deliver(&self, from: NodeId, message: Message) {
        assert!(run(self.node.inbox.deliver(from, PeerMessage::Raft(message), 1)));
    }

    /// Has the node do what it can without its state task.
    fn work(&mut self) {
        let mut is_over = false;
        while !is_over {
            let now = self.env.now();
            self.node.inbox.take(&mut self.arrivals);
            is_over = self.node.turn(now, &mut self.arrivals).is_some();
            self.env.give_turn("log");
            assert_eq!(self.node.stop, None);
        }
        self.silent_rounds += 1;
        for (to, message) in self.said.take_sent() {
            if to == N3
                && let Some(message) = answer(&message)
            {
                self.deliver(N3, message);
            } else if to == N2 && self.is_led {
                self.silent_rounds = 0;
                self.leader.step(self.env.now(), Input::Peer { from: N1, message });
            }
        }
    }

    /// Lets a little time pass, in which clients write so much.
    pub(super) fn round(&mut self, writes: u64) {
        let now = self.env.now();
        if self.is_led && now >= self.leader.deadline() {
            self.leader.tick(now);
        }
        for _ in 0..writes {
            self.writes += 1;
            let (token, command) = (self.writes, command(self.writes));
            self.leader.step(now, Input::Propose { token, command });
        }
        self.lead();
        self.work();
        self.lead();
        self.rounds += 1;
        self.env.pass(ROUND);
        self.check();
    }

    /// Lets the disk do something.
    fn let_tables_work(&mut self) {
        self.env.give_turn("state");
    }

    fn check(&self) {
        let tree = self.node.machine.engine();
        let (tables, tables_max) = (tree.level0_count(), config().tree.level0_bound());
        assert!(tables <= tables_max, "{tables} tables in round {}", self.rounds);
        // What was applied last may be a window.
        let memory_max = 2 * MEMTABLE_BYTES + 3 * (INFLIGHT_BYTES_MAX as u64);
        let memory = tree.memtable_bytes();
        assert!(memory <= memory_max, "{memory} bytes in round {}", self.rounds);
        let waits = self.waiting_bytes();
        let waits_max = BEHIND_BYTES_MAX + 3 * INFLIGHT_BYTES_MAX;
        assert!(waits <= waits_max, "{waits} bytes wait in round {}", self.rounds);
        // Two heartbeats, and what a round is.
        assert!(self.silent_rounds <= 14, "no word in {} rounds", self.silent_rounds);
    }

    /// Returns what the node's log holds that is not applied.
    fn waiting_bytes(&self) -> usize {
        let next = self.node.machine.applied().index + 1;
        let waiting = self.node.core.log().entries_from(next);
        waiting.filter(|entry| entry.index >= next).map(Entry::weight).sum()
    }

    pub(super) fn applied(&self) -> Index {
        self.node.machine.applied().index
    }

    /// Has the node go on without a leader until it is one.
    pub(super) fn await_its_election(&mut self) {
        while self.node.core.role() != Role::Leader {
            self.round_alone();
            assert!(self.rounds < 1000, "it is not elected");
        }
    }

    /// Lets a little time pass without the leader, who has to be told nothing then.
    pub(super) fn round_alone(&mut self) {
        self.silent_rounds = 0;
        self.round(0);
    }

    /// Has a client ask the node to read.
    pub(super) fn ask_to_read(&mut self) {
        self.node.core.step(self.env.now(), Input::Read { token: READ });
    }

    /// Returns what was applied when the read was answered, if it is.
    pub(super) fn read_at(&self) -> Option<Index> {
        self.said.read_at()
    }

    fn matched(&self) -> Index {
        let found = self.leader.progress().find(|(node, _)| *node == N1);
        found.map_or(0, |(_, progress)| progress.match_index)
    }
}

/// Returns what the third voter says.
fn answer(message: &Message) -> Option<Message> {
    if let Message::PreVote { term, .. } = *message {
        return Some(Message::PreVoteReply { term, granted: true });
    }
    if let Message::Vote { term, .. } = *message {
        return Some(Message::VoteReply { term, granted: true });
    }
    if let Message::Append { term, prev_index, ref entries, round, .. } = *message {
        let index = prev_index + entries.len() as u64;
        let outcome = AppendOutcome::Matched { index };
        return Some(Message::AppendReply { term, round, outcome });
    }
    None
}

/// Returns a scene in which the node has fallen as far behind as it may.
fn far_behind() -> Scene {
    let mut scene = Scene::new();
    for round in 0..400 {
        scene.round(4);
        assert_eq!(scene.leader.commit_index(), scene.leader.last_index(), "the others go on");
        if round % 8 == 0 {
            scene.let_tables_work();
        }
    }
    scene
}

#[test]
fn follower_whose_tables_do_not_keep_up_stays_bounded_and_catches_up() {
    let mut scene = far_behind();
    assert!(scene.node.status().writes_wait, "it says that it is behind");
    assert!(scene.node.applying.acknowledge_max().is_some(), "it has its leader stop");
    let (applied, commit) = (scene.applied(), scene.node.core.commit_index());
    assert!(applied < commit, "{applied} of {commit}: the commit index goes on");
    let (matched, last) = (scene.matched(), scene.leader.last_index());
    assert!(matched + 100 < last, "{matched} of {last} are acknowledged");
    assert_eq!(scene.node.core.leader(), Some(N2));
    assert_eq!(scene.node.core.term(), scene.leader.term(), "nobody was elected");
    while scene.applied() < last {
        scene.round(0);
        scene.let_tables_work();
        assert!(scene.rounds < 10_000, "{} of {last} are applied", scene.applied());
    }
    for _ in 0..100 {
        scene.round(0);
        scene.let_tables_work();
    }
    assert_eq!(scene.matched(), last);
    let status = scene.node.status();
    assert!(!status.writes_wait && status.writes_waited_ms > 0, "{status:?}");
}

#[test]
fn follower_elected_while_it_is_behind_reads_nothing_stale() {
    let mut scene = far_behind();
    scene.is_led = false;
    let last = scene.node.core.last_index();
    assert!(scene.applied() < last);
    scene.await_its_election();
    scene.ask_to_read();
    for _ in 0..20 {
        scene.round_alone();
    }
    assert!(scene.applied() < last, "the tables have not done anything");
    assert_eq!(scene.read_at(), None);
    while scene.read_at().is_none() {
        scene.round_alone();
        scene.let_tables_work();
        let leads = scene.node.core.role() == Role::Leader;
        assert!(scene.rounds < 10_000 && leads, "{} are applied", scene.applied());
    }
    assert!(scene.read_at() >= Some(last), "{:?} of {last}", scene.read_at());
}

/// The accident: a piece of a snapshot found no space when the last piece of another leader's was
/// there. The node took the second one for failed, too, and flushed while it was installed.
#[test]
fn snapshot_that_fails_does_not_end_the_installation_of_another() {
    let mut scene = Scene::new();
    let (failed, other) = (SnapshotMeta { index: 7, term: 1 }, SnapshotMeta { index: 9, term: 2 });
    scene.node.flush.installing = Some(other);
    scene.node.inbox.push(Event::State(StateEvent::Failed(failed)));
    scene.round(0);
    assert_eq!(scene.node.flush.installing, Some(other));
    scene.node.inbox.push(Event::State(StateEvent::Failed(other)));
    scene.round(0);
    assert_eq!(scene.node.flush.installing, None);
}
