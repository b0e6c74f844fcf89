//! A node with writes that its cluster has lost, because they were acknowledged before a sync.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::super::config::{NodeConfig, SyncPolicy};
use super::super::ending::StopReason;
use super::super::inbox::Arrivals;
use super::super::shell::Replica;
use super::super::start::STATE_DIR;
use super::behind::{N1, Said, command};
use super::*;
use crate::base::{ClusterId, Core as _, Index, NodeId, Payload, Term};
use crate::kv::Machine;
use crate::raft::{
    AppendOutcome, Entry, EntryKind, Input, Message, Role, SnapshotMeta, SnapshotOutcome,
};
use crate::storage::test_disk::Survives;
use crate::storage::{StorageError, tree};
use crate::wire::PeerMessage;

const N2: NodeId = NodeId(2);

/// What the node's tables have, which a flush had synced. Its log has nothing.
const TABLES: SnapshotMeta = SnapshotMeta { index: 4, term: 1 };

fn config() -> NodeConfig {
    let members = [N1, N2, NodeId(3)].map(|node| (node, format!("n{node}"))).to_vec();
    NodeConfig {
        sync_policy: SyncPolicy::Interval(Duration::from_secs(1)),
        scrub_bytes_per_second: 0,
        ..NodeConfig::new(ClusterId(1), N1, "n1", members)
    }
}

fn with_tables() -> HandEnv {
    let (env, config) = (HandEnv::default(), config());
    prepare(&env, &config);
    let opened = run(tree::open(env.disk().clone(), STATE_DIR, config.tree));
    let (tree, mut keeper, _) = opened.unwrap_or_else(|error| panic!("{error}"));
    let restored = Machine::restore(tree, &[], config.sessions_max);
    let mut machine = restored.unwrap_or_else(|error| panic!("{error}"));
    (1..=TABLES.index).for_each(|index| machine.skip(index, TABLES.term));
    let extra = machine.extra();
    let frozen = machine.engine_mut().freeze(extra);
    run(keeper.flush(&frozen)).unwrap_or_else(|error| panic!("{error}"));
    env
}

fn append(prev: (Index, Term), terms: &[Term]) -> Message {
    let entries = (prev.0 + 1..).zip(terms);
    let entries = entries.map(|(index, &term)| Entry { term, index, kind: EntryKind::Noop });
    let (term, entries) = (2, entries.collect());
    Message::Append { term, prev_index: prev.0, prev_term: prev.1, entries, commit: 0, round: 0 }
}

fn chunk(index: Index) -> Message {
    let (term, meta) = (2, SnapshotMeta { index, term: 2 });
    let data = Payload::new(vec![7; 100]).unwrap_or_default();
    Message::SnapshotChunk { term, meta, offset: 0, data, done: false }
}

struct Scene {
    env: HandEnv,
    node: Replica<HandEnv, Said>,
    said: Said,
}

impl Scene {
    fn start(env: &HandEnv) -> Self {
        Self::start_with(HandEnv::with_disk(env.disk().clone()), config())
    }

    fn start_with(env: HandEnv, config: NodeConfig) -> Self {
        let said = Said::default();
        let started = run(Replica::recover(env.clone(), config, said.clone()));
        Self { node: started.unwrap_or_else(|error| panic!("{error}")), env, said }
    }

    /// Has the leader say something; returns what it is answered.
    fn answers(&mut self, message: Message) -> Vec<Message> {
        self.deliver(N2, message);
        (0..10).for_each(|_| self.work());
        let sent = self.said.take_sent().into_iter();
        sent.filter(|(to, _)| *to == N2).map(|(_, message)| message).collect()
    }

    /// Gives the loop and its tasks a turn, unless the node has to end.
    fn work(&mut self) {
        let mut arrivals = Arrivals::default();
        self.node.inbox.take(&mut arrivals);
        self.node.turn(self.env.now(), &mut arrivals);
        if self.node.stop.is_none() {
            self.env.give_turn("log");
            self.env.give_turn("state");
        }
    }

    fn deliver(&self, from: NodeId, message: Message) {
        assert!(run(self.node.inbox.deliver(from, PeerMessage::Raft(message), 1)));
    }

    /// Runs until the node ends by itself.
    fn end(self) -> StopReason {
        let mut running = pin!(self.node.run());
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..100 {
            if let Poll::Ready(reason) = running.as_mut().poll(&mut context) {
                return reason;
            }
            self.env.give_turn("log");
            self.env.give_turn("state");
        }
        panic!("it goes on");
    }
}

/// The accident: all nodes lost power, and only one had what was written last, in tables. The
/// others elected a leader without it. The one acknowledged to that leader an entry that it did not
/// have, and then its core panicked, and again at every start.
#[test]
fn node_gives_its_state_up_for_a_leader_without_it_and_is_sent_another() {
    let others = [append((4, 2), &[]), append((3, 1), &[2]), append((1, 1), &[2]), chunk(4)];
    for other in others {
        let env = with_tables();
        let mut scene = Scene::start(&env);
        let outcome = AppendOutcome::Matched { index: 3 };
        let answered = vec![Message::AppendReply { term: 2, round: 0, outcome }];
        assert_eq!(scene.answers(append((3, 1), &[])), answered, "a probe proves nothing more");
        scene.deliver(N2, other.clone());
        let reason = scene.end();
        let StopReason::Condemned(StorageError::Corrupt { path, what, .. }) = &reason else {
            panic!("{reason}, {other}")
        };
        assert_eq!(path, STATE_DIR, "{other}");
        assert!(what.contains("--sync interval"), "{what}, {other}");

        let mut scene = Scene::start(&env);
        assert!(scene.node.core.is_recovering(), "{other}");
        let outcome = AppendOutcome::Rejected { prev_index: 4, hint_index: 0, hint_term: 0 };
        let answered = vec![Message::AppendReply { term: 2, round: 0, outcome }];
        assert_eq!(scene.answers(append((4, 2), &[])), answered, "{other}");
        let meta = SnapshotMeta { index: 4, term: 2 };
        let outcome = SnapshotOutcome::Stored { offset: 100 };
        let answered = vec![Message::SnapshotReply { term: 2, meta, outcome }];
        assert_eq!(scene.answers(chunk(4)), answered, "{other}");
        assert_eq!(scene.node.stop, None, "{other}");
    }
}

fn id_of(node: usize) -> NodeId {
    NodeId([1, 2, 3][node])
}

/// Three whole nodes that sync their logs hardly ever, and what they say to one another.
struct Cluster {
    nodes: Vec<Option<Scene>>,
    disks: Vec<TestDisk>,
    /// Nobody hears this one, nor does it hear anybody.
    cut_off: Option<usize>,
    condemned: usize,
}

impl Cluster {
    fn new() -> Self {
        let disks = (0..3).map(|_| TestDisk::default()).collect();
        Self { nodes: (0..3).map(|_| None).collect(), disks, cut_off: None, condemned: 0 }
    }

    fn start(&mut self, node: usize) {
        let sync_policy = SyncPolicy::Interval(Duration::from_hours(1));
        // What a follower lacks that was away comes as a snapshot.
        let config = NodeConfig { node: id_of(node), sync_policy, log_entries_kept: 0, ..config() };
        let disk = self.disks[node].clone();
        self.nodes[node] = Some(Scene::start_with(HandEnv::with_disk(disk), config));
    }

    /// Takes the power from nodes: nothing is left that was not synced.
    fn lose_power(&mut self, nodes: impl IntoIterator<Item = usize>) {
        for node in nodes {
            self.nodes[node] = None;
            self.disks[node] = self.disks[node].after_power_loss(Survives::NOTHING);
        }
    }

    fn node(&mut self, node: usize) -> &mut Replica<HandEnv, Said> {
        let scene = self.nodes[node].as_mut();
        &mut scene.unwrap_or_else(|| panic!("node {node} is down")).node
    }

    /// Lets a little time pass. Who has to give its state up starts again.
    fn round(&mut self) {
        for at in 0..3 {
            let Some(mut scene) = self.nodes[at].take() else { continue };
            scene.work();
            if scene.node.stop.is_some() {
                let reason = scene.end();
                assert!(matches!(reason, StopReason::Condemned(_)), "{reason}");
                self.condemned += 1;
                self.start(at);
                continue;
            }
            for (to, message) in scene.said.take_sent() {
                let to = usize::try_from(to.0).unwrap_or_default() - 1;
                let is_heard = [at, to].into_iter().all(|end| self.cut_off != Some(end));
                if let Some(other) = self.nodes[to].as_ref().filter(|_| is_heard) {
                    other.deliver(id_of(at), message);
                }
            }
            scene.env.pass(Duration::from_millis(10));
            self.nodes[at] = Some(scene);
        }
    }

    /// Goes on until a node leads that is quicker to campaign than the others.
    fn elect(&mut self, node: usize) {
        for _ in 0..200 {
            if self.node(node).core.role() == Role::Leader {
                return;
            }
            if let Some(scene) = &self.nodes[node] {
                scene.env.pass(Duration::from_millis(2));
            }
            self.round();
        }
        panic!("node {node} does not lead");
    }

    /// Has the leader write, and all apply it that run.
    fn write(&mut self, leader: usize, count: u64) {
        for number in 1..=count {
            let now = self.nodes[leader].as_ref().map(|scene| scene.env.now());
            let input = Input::Propose { token: number, command: command(number) };
            self.node(leader).core.step(now.unwrap_or_default(), input);
            self.round();
        }
        (0..20).for_each(|_| self.round());
    }

    /// Has a node write what it has applied to tables, which are synced.
    fn flush(&mut self, node: usize) {
        let now = self.nodes[node].as_ref().map(|scene| scene.env.now());
        self.node(node).begin_flush(now.unwrap_or_default());
        (0..20).for_each(|_| self.round());
    }

    /// Returns how far each node has come, and with what.
    fn states(&mut self) -> Vec<(Index, Term, u64)> {
        let state = |node| {
            let machine = &self.node(node).machine;
            let hash = machine.state_hash().unwrap_or_else(|error| panic!("{error}"));
            (machine.applied().index, machine.applied().term, hash)
        };
        (0..3).map(state).collect()
    }
}

/// Starts a cluster, whose first node leads and has written so much.
fn written(count: u64) -> Cluster {
    let mut cluster = Cluster::new();
    (0..3).for_each(|node| cluster.start(node));
    cluster.elect(0);
    cluster.write(0, count);
    let states = cluster.states();
    assert!(states.iter().all(|state| state.0 == count + 1 && *state == states[0]), "{states:?}");
    cluster
}

/// Has the second node, which leads, write on, and checks that all come to have the same.
fn check_agreement(cluster: &mut Cluster, condemned: usize, when: &str) {
    cluster.write(1, 5);
    (0..200).for_each(|_| cluster.round());
    let states = cluster.states();
    assert!(states.iter().all(|state| *state == states[1]), "{states:?}, {when}");
    assert_eq!(cluster.condemned, condemned, "{when}");
    assert!(!cluster.node(0).core.is_recovering(), "{when}");
}

/// All lose power, and one of them has flushed what the logs of all forget. The others go on before
/// it is back: with fewer entries than it has, or with more.
#[test]
fn cluster_that_lost_power_agrees_again_with_who_had_flushed_what_the_others_lost() {
    // A snapshot of more than it has takes the place of its state by itself.
    for (count, flushes, condemned) in [(1, false, 1), (40, false, 1), (1, true, 1), (40, true, 0)]
    {
        let mut cluster = written(20);
        cluster.flush(0);
        assert_eq!(cluster.node(0).flush.durable.index, 21);
        cluster.lose_power(0..3);
        cluster.start(1);
        cluster.start(2);
        cluster.elect(1);
        cluster.write(1, count);
        if flushes {
            cluster.flush(1);
        }
        cluster.start(0);
        check_agreement(&mut cluster, condemned, &format!("{count} writes, flushes: {flushes}"));
    }
}

/// The others lose power, and elect a leader without what the one has that kept it.
#[test]
fn cluster_of_which_a_majority_lost_power_agrees_again_with_who_kept_it() {
    for count in [1, 40] {
        let mut cluster = written(20);
        cluster.cut_off = Some(0);
        cluster.lose_power(1..3);
        cluster.start(1);
        cluster.start(2);
        cluster.elect(1);
        cluster.write(1, count);
        cluster.cut_off = None;
        check_agreement(&mut cluster, 1, &format!("{count} writes"));
    }
}
