//! A masterless replica whose tables do not keep up with what others write to it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::super::config::{Masterless, NodeConfig, Replication};
use super::super::inbox::Arrivals;
use super::super::observer::Observer;
use super::super::tests::{HandEnv, tree_soon_behind};
use super::MasterlessReplica;
use crate::base::{ClusterId, Entry, Instant, NodeId, Payload, Stamp, Written};
use crate::codec::keycode;
use crate::dynamo::placement::place_in;
use crate::dynamo::{Dynamo, Message, Ready, RequestId, WriteOutcome};
use crate::env::Env;
use crate::storage::Engine;
use crate::storage::test_disk::run;
use crate::wire::PeerMessage;

/// Who writes to the node under test.
const N2: NodeId = NodeId(2);
const ROUND: Duration = Duration::from_millis(10);
const MEMTABLE_BYTES: u64 = 2 << 10;
/// Writes without an acknowledgement that the peer has under way.
const UNDER_WAY_MAX: usize = 40;

/// What the node has said to the peer.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<Message>>>);

impl Observer for Said {
    fn on_masterless_ready(&mut self, _now: Instant, _core: &Dynamo, ready: &Ready) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let to_peer = ready.send.iter().filter(|(to, _)| *to == N2);
        said.extend(to_peer.map(|(_, message)| message.clone()));
    }
}

struct Scene {
    env: HandEnv,
    node: MasterlessReplica<HandEnv, Said>,
    said: Said,
    arrivals: Arrivals,
    /// What the peer has not heard of, by its number.
    under_way: BTreeMap<u64, Entry>,
    written: u64,
    heartbeats: usize,
}

fn config() -> NodeConfig {
    let members = (1..=3).map(|node| (NodeId(node), format!("n{node}"))).collect();
    let masterless = Masterless { partition_count: 1, ..Masterless::default() };
    NodeConfig {
        tree: tree_soon_behind(MEMTABLE_BYTES),
        replication: Replication::Masterless(masterless),
        scrub_bytes_per_second: 0,
        ..NodeConfig::new(ClusterId(1), NodeId(1), "n1", members)
    }
}

fn entry(number: u64) -> Entry {
    let place = place_in(0, &keycode::encode_cell(&number.to_be_bytes(), b"column"));
    let value = Payload::new(vec![7; 100]).unwrap_or_default();
    Entry { place, stamp: Stamp::new(number, 0, N2), written: Written::Value(value) }
}

impl Scene {
    fn new() -> Self {
        let (env, said) = (HandEnv::default(), Said::default());
        let started = run(MasterlessReplica::recover(env.clone(), config(), said.clone()));
        let node = started.unwrap_or_else(|error| panic!("{error}"));
        let arrivals = Arrivals::default();
        let under_way = BTreeMap::new();
        Self { env, node, said, arrivals, under_way, written: 0, heartbeats: 0 }
    }

    /// Lets a little time pass, in which the peer writes so much, or what was not acknowledged.
    fn round(&mut self, writes: u64) {
        for _ in 0..writes {
            if self.under_way.len() < UNDER_WAY_MAX {
                self.written += 1;
                self.under_way.insert(self.written, entry(self.written));
            }
        }
        for (&number, entry) in &self.under_way {
            let id = RequestId { generation: 1, number };
            let message = Message::Write { id, entries: vec![entry.clone()] };
            assert!(run(self.node.inbox.deliver(N2, PeerMessage::Dynamo(message), 1)));
        }
        for _ in 0..4 {
            let now = self.env.now();
            self.node.inbox.take(&mut self.arrivals);
            self.node.turn(now, &mut self.arrivals);
            assert_eq!(self.node.stop, None);
            // The log waits some turns for more.
            (0..12).for_each(|_| self.env.give_turn("log"));
        }
        let mut said = self.said.0.lock().unwrap_or_else(PoisonError::into_inner);
        for message in std::mem::take(&mut *said) {
            if let Message::WriteReply { id, outcome } = message {
                assert_eq!(outcome, WriteOutcome::Stored);
                self.under_way.remove(&id.number);
            } else if let Message::Heartbeat(_) = message {
                self.heartbeats += 1;
            }
        }
        drop(said);
        self.env.pass(ROUND);
        self.check();
    }

    fn check(&self) {
        let tree = self.node.store.engine();
        let (tables, tables_max) = (tree.level0_count(), config().tree.level0_bound());
        assert!(tables <= tables_max, "{tables} tables after {} writes", self.written);
        // The three memtables that there is room for, and what a round brings.
        let memory_max = 3 * MEMTABLE_BYTES + 2 * (UNDER_WAY_MAX as u64) * 300;
        let memory = tree.memtable_bytes();
        assert!(memory <= memory_max, "{memory} bytes after {} writes", self.written);
    }
}

#[test]
fn replica_whose_tables_do_not_keep_up_stays_bounded_and_stores_everything_in_the_end() {
    let mut scene = Scene::new();
    let (mut waiting_rounds, mut refusing_rounds) = (0, 0);
    for round in 0..400 {
        scene.round(4);
        waiting_rounds += usize::from(scene.node.store.engine().is_stalled());
        refusing_rounds += usize::from(scene.node.is_overfull());
        if round % 20 == 0 {
            scene.env.give_turn("state");
        }
    }
    let status = scene.node.status(scene.env.now());
    assert!(status.writes_wait, "it says that it is behind");
    assert!(refusing_rounds > 0 && refusing_rounds < waiting_rounds, "{waiting_rounds} rounds");
    assert!(scene.under_way.len() == UNDER_WAY_MAX, "{:?} are on their way", scene.under_way.len());
    assert!(scene.heartbeats > 0, "it says nothing");
    for _ in 0..2_000 {
        scene.round(0);
        scene.env.give_turn("state");
    }
    assert!(scene.under_way.is_empty(), "{:?} are left", scene.under_way.keys());
    for number in 1..=scene.written {
        let raw = scene.node.store.engine().get_raw(entry(number).place.as_bytes()).unwrap();
        assert!(raw.visible().is_some(), "write {number} of {} is lost", scene.written);
    }
}
