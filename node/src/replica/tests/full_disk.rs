//! Nodes whose disk has space for the log, and none for tables, for as long as anybody looks.

use std::task::{Context, Waker};

use bytes::BytesMut;

use super::super::config::NodeConfig;
use super::super::inbox::{Arrivals, Event, Submitted};
use super::super::outbox::ClientOutbox;
use super::super::shell::Replica;
use super::super::state::StateEvent;
use super::behind::{MEMTABLE_BYTES, N1, ROUND, Scene, command};
use super::*;
use crate::base::{ClusterId, Column, Core as _, Key};
use crate::codec::{self, FrameDecoder};
use crate::kv::{CommandReply, Query, QueryReply};
use crate::raft::Role;
use crate::storage::test_disk::Faults;
use crate::storage::tree::TreeOptions;
use crate::wire::{Consistency, RequestBody, RequestError, Response, ResponseBody};

/// A node that is the whole cluster, with one client.
struct Alone {
    env: HandEnv,
    node: Replica<HandEnv, ()>,
    arrivals: Arrivals,
    client: Arc<ClientOutbox>,
    /// There is no space for tables.
    is_full: bool,
    writes: u64,
}

/// Returns how the node is configured, with a store whose level 0 has room for so many tables.
fn config(level0_tables: usize) -> NodeConfig {
    let level0_tables_max = level0_tables;
    let tree = TreeOptions { level0_tables, level0_tables_max, ..tree_soon_behind(MEMTABLE_BYTES) };
    let members = vec![(N1, "n1".to_owned())];
    NodeConfig {
        tree,
        scrub_bytes_per_second: 0,
        ..NodeConfig::new(ClusterId(1), N1, "n1", members)
    }
}

impl Alone {
    fn start(disk: TestDisk, config: NodeConfig) -> Self {
        let env = HandEnv::with_disk(disk);
        let started = run(Replica::recover(env.clone(), config, ()));
        let node = started.unwrap_or_else(|error| panic!("{error}"));
        let client = node.inbox.new_outbox();
        Self { env, node, arrivals: Arrivals::default(), client, is_full: false, writes: 0 }
    }

    /// Lets a little time pass; returns what the client is answered.
    fn round(&mut self) -> Vec<ResponseBody> {
        let mut is_over = false;
        while !is_over {
            self.node.inbox.take(&mut self.arrivals);
            is_over = self.node.turn(self.env.now(), &mut self.arrivals).is_some();
            self.env.give_turn("log");
            assert_eq!(self.node.stop, None);
        }
        let no_space = self.is_full;
        self.env.disk().set_faults(Faults { no_space, ..Faults::default() });
        self.env.give_turn("state");
        self.env.disk().set_faults(Faults::default());
        self.env.pass(ROUND);
        self.answers()
    }

    fn answers(&self) -> Vec<ResponseBody> {
        let mut taken = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        let is_some = self.client.poll_take(&mut context, &mut taken).is_ready();
        assert_eq!(is_some, !taken.is_empty());
        let mut taken = BytesMut::from(&taken[..]);
        let bodies = std::iter::from_fn(|| FrameDecoder::new(1 << 20).decode(&mut taken).unwrap());
        bodies.map(|body| codec::decode::<Response>(&body).unwrap().body).collect()
    }

    fn submit(&self, body: RequestBody) {
        let id = self.client.expect_reply(1, 1);
        let (outbox, consistency) = (Arc::clone(&self.client), Consistency::default());
        self.node.inbox.submit(Submitted { outbox, id, bytes: 1, consistency, body });
    }

    /// Has the client write, and returns the answer if it comes in time.
    fn write(&mut self) -> Option<ResponseBody> {
        self.writes += 1;
        self.submit(RequestBody::Command(command(self.writes)));
        self.answer()
    }

    /// Has the client read what it wrote so early, and returns the answer if it comes in time.
    fn read(&mut self, write: u64) -> Option<ResponseBody> {
        let key = Key::new(write.to_be_bytes().to_vec()).unwrap_or_default();
        self.submit(RequestBody::Query(Query::Get { key, column: Column::default() }));
        self.answer()
    }

    fn answer(&mut self) -> Option<ResponseBody> {
        (0..100).find_map(|_| self.round().pop())
    }

    fn await_election(&mut self) {
        let leads = (0..100).any(|_| {
            self.round();
            self.node.core.role() == Role::Leader
        });
        assert!(leads, "it is not elected");
    }
}

fn is_written(answer: Option<&ResponseBody>) -> bool {
    let Some(ResponseBody::Command(reply)) = answer else { return false };
    matches!(reply, CommandReply::Registered(_) | CommandReply::Applied(_))
}

/// Returns a node that was started again when its disk had filled: level 0 is full, and its log has
/// entries of its last life that are in no table.
fn started_on_a_full_disk() -> Alone {
    let mut alone = Alone::start(TestDisk::default(), config(100));
    alone.await_election();
    while alone.node.machine.engine().level0_count() == 0 {
        let answer = alone.write();
        assert!(is_written(answer.as_ref()), "{answer:?}");
    }
    for _ in 0..5 {
        let answer = alone.write();
        assert!(is_written(answer.as_ref()), "{answer:?}");
    }
    let (disk, writes) = (alone.env.disk().after_process_end(), alone.writes);
    drop(alone);
    let mut alone = Alone::start(disk, config(1));
    (alone.is_full, alone.writes) = (true, writes);
    assert!(alone.node.machine.engine().is_stalled());
    assert!(alone.node.machine.applied().index < alone.node.core.last_index());
    alone.await_election();
    alone
}

/// The accident: what was written before the start was not applied, because level 0 was full and
/// nothing could be compacted. Every read waited for it, until the operator made space.
#[test]
fn node_that_starts_on_a_full_disk_answers_reads_and_refuses_writes() {
    let mut alone = started_on_a_full_disk();
    let answer = alone.read(alone.writes);
    let is_found = matches!(answer, Some(ResponseBody::Query(QueryReply::Cell(Some(_)))));
    assert!(is_found, "{answer:?}");
    let refused = Some(ResponseBody::Error(RequestError::DiskFull));
    assert_eq!(alone.write(), refused);
    alone.is_full = false;
    let is_over = (0..100).any(|_| {
        alone.round();
        !alone.node.machine.engine().is_stalled()
    });
    assert!(is_over, "its tables are behind with space again");
    alone.writes -= 1;
    let answer = alone.write();
    assert!(is_written(answer.as_ref()), "{answer:?}");
}

/// Returns a follower with something to apply, and no space for the tables that this waits for.
fn stuck_follower() -> Scene {
    let mut scene = Scene::new();
    while scene.applied() == scene.node.core.commit_index() {
        scene.round(1);
        assert!(scene.rounds < 1000, "the tables keep up");
    }
    scene.node.inbox.push(Event::State(StateEvent::DiskFull(true)));
    scene.round(0);
    assert!(scene.node.applying.acknowledge_max().is_none(), "it is not far behind");
    scene.is_led = false;
    scene.round_alone();
    assert_eq!(scene.node.core.role(), Role::Follower);
    scene
}

/// The accident: it was elected and led on, for its log is as good as any, and applied nothing.
/// No read was answered while its disk was full, although the others had all the space they needed.
#[test]
fn follower_elected_while_its_tables_have_no_space_answers_reads() {
    let mut scene = stuck_follower();
    let last = scene.node.core.last_index();
    assert!(scene.applied() < last);
    scene.await_its_election();
    scene.ask_to_read();
    for _ in 0..100 {
        scene.round_alone();
    }
    assert!(scene.read_at() >= Some(last), "{:?} of {last}", scene.read_at());
}

#[test]
fn follower_whose_tables_have_no_space_lets_others_be_elected_first() {
    let mut scene = stuck_follower();
    let (term, deadline) = (scene.node.core.term(), scene.node.core.deadline());
    while scene.env.now() <= deadline + ROUND {
        scene.round_alone();
        assert_eq!(scene.node.core.role(), Role::Follower);
    }
    assert_eq!(scene.node.core.term(), term);
    scene.await_its_election();
}
