//! Reads of many cells at a time, and what the loop does besides.

use std::sync::Arc;

use super::super::config::NodeConfig;
use super::super::inbox::{Arrivals, Submitted};
use super::super::outbox::ClientOutbox;
use super::super::shell::Replica;
use super::{HandEnv, prepare};
use crate::base::{ClusterId, Column, Core, Key, NodeId};
use crate::env::Env;
use crate::kv::Query;
use crate::raft::Role;
use crate::storage::test_disk::run;
use crate::wire::{Consistency, RequestBody, RequestError, ResponseBody, SavedState};

/// Cells of a `multi_get` that a turn may read at most: four times what one read may.
const TURN_CELLS: usize = 4 * (4 << 20) / (4 << 10);

/// A leader without followers.
struct Scene {
    env: HandEnv,
    node: Replica<HandEnv, ()>,
    arrivals: Arrivals,
    outbox: Arc<ClientOutbox>,
}

impl Scene {
    fn new() -> Self {
        Self::with_turns_of(
            NodeConfig::new(ClusterId(1), NodeId(1), "", Vec::new()).read_turn_bytes,
        )
    }

    /// One whose long reads pass so many bytes in a turn.
    fn with_turns_of(read_turn_bytes: usize) -> Self {
        let env = HandEnv::default();
        let members = vec![(NodeId(1), "n1".to_owned())];
        let config = NodeConfig {
            scrub_bytes_per_second: 0,
            read_turn_bytes,
            ..NodeConfig::new(ClusterId(1), NodeId(1), "n1", members)
        };
        prepare(&env, &config);
        let started = run(Replica::recover(env.clone(), config, ()));
        let node = started.unwrap_or_else(|error| panic!("{error}"));
        let outbox = node.inbox.new_outbox();
        let mut scene = Self { env, node, arrivals: Arrivals::default(), outbox };
        let wait = scene.node.core.deadline().since(scene.env.now());
        scene.env.pass(wait);
        for _ in 0..10 {
            scene.turn();
            scene.env.give_turn("log");
        }
        assert_eq!(scene.node.core.role(), Role::Leader);
        scene
    }

    /// Asks for `count` times `cell_count` cells.
    fn ask(&self, count: u64, cell_count: usize) {
        self.ask_from(&self.outbox, count, cell_count);
    }

    /// Asks so on another connection.
    fn ask_from(&self, outbox: &Arc<ClientOutbox>, count: u64, cell_count: usize) {
        let cell = (Key::default(), Column::default());
        for id in 0..count {
            let query = Query::MultiGet { cells: vec![cell.clone(); cell_count] };
            let id = outbox.expect_reply(id, 1);
            self.submit(outbox, id, RequestBody::Query(query));
        }
    }

    fn submit(&self, outbox: &Arc<ClientOutbox>, id: u64, body: RequestBody) {
        let (outbox, consistency) = (Arc::clone(outbox), Consistency::default());
        self.node.inbox.submit(Submitted { outbox, id, bytes: 1, consistency, body });
    }

    /// Gives the loop a turn; tells whether it wants another one at once.
    fn turn(&mut self) -> bool {
        let now = self.env.now();
        self.node.inbox.take(&mut self.arrivals);
        let wants_turn = self.node.turn(now, &mut self.arrivals).is_none();
        assert_eq!(self.node.stop, None);
        wants_turn
    }

    /// Gives the loop turns until a connection has all its answers; returns how many it took.
    fn turns_until_answered(&mut self, outbox: &ClientOutbox) -> usize {
        for count in 0..10_000 {
            if outbox.load().0 == 0 {
                return count;
            }
            self.turn();
            self.env.give_turn("log");
        }
        panic!("{} are not answered", outbox.load().0);
    }

    /// Returns how many answers each turn has, until all that was asked for is answered.
    fn answers_by_turn(&mut self) -> Vec<usize> {
        let mut answers = Vec::new();
        loop {
            let unanswered = self.outbox.load().0;
            let wants_turn = self.turn();
            self.env.give_turn("log");
            answers.push(unanswered - self.outbox.load().0);
            if self.outbox.load().0 == 0 {
                return answers;
            }
            assert!(wants_turn || answers.len() < 3, "nothing goes on: {answers:?}");
        }
    }
}

/// The accident: they were all answered in the turn in which the leader knew that it leads, and
/// for seconds it sent no heartbeat.
#[test]
fn large_multi_gets_at_a_time_leave_the_loop_many_turns() {
    let mut scene = Scene::new();
    scene.ask(40, 10_000);
    let answers = scene.answers_by_turn();
    assert!(answers.iter().all(|count| *count <= 1), "{answers:?}");
    assert!(answers.len() >= 40 * 10_000 / TURN_CELLS, "{answers:?}");
}

#[test]
fn middling_multi_gets_share_turns_and_few_cells_do_not_wait() {
    let mut scene = Scene::new();
    scene.ask(200, 100);
    scene.ask(200, 16);
    let answers = scene.answers_by_turn();
    assert!(answers.iter().any(|count| *count >= 200), "those of few cells at once: {answers:?}");
    assert!(answers.iter().all(|count| *count <= 200 + TURN_CELLS / 100), "{answers:?}");
    assert!(answers.len() <= 200 * 100 * 4 / TURN_CELLS + 5, "they share turns: {answers:?}");
    assert!(answers.len() >= 200 * 100 / TURN_CELLS, "{answers:?}");
}

/// Cells that a turn of a small scene reads.
const SMALL_TURN_CELLS: usize = 16;

fn small_scene() -> Scene {
    Scene::with_turns_of(SMALL_TURN_CELLS * (4 << 10))
}

/// The accident: long reads were read one after the other, whoever asked. One that takes seconds
/// held up those of all others, and so did each try of it that its client had given up.
#[test]
fn long_reads_of_connections_take_turns() {
    let mut scene = small_scene();
    let (greedy, modest) = (scene.node.inbox.new_outbox(), scene.node.inbox.new_outbox());
    for _ in 0..5 {
        scene.ask_from(&greedy, 1, 10_000);
        for _ in 0..4 {
            scene.turn();
        }
        scene.ask_from(&modest, 1, 2 * SMALL_TURN_CELLS);
        let turn_count = scene.turns_until_answered(&modest);
        assert!(turn_count <= 8, "{turn_count} turns");
    }
    assert_eq!(greedy.load().0, 5, "those take hundreds of turns");
}

#[test]
fn few_long_reads_are_under_way_at_a_time_and_the_others_keep_their_place() {
    let mut scene = small_scene();
    let outboxes: Vec<_> = (0..6).map(|_| scene.node.inbox.new_outbox()).collect();
    for outbox in &outboxes {
        scene.ask_from(outbox, 2, 40 * SMALL_TURN_CELLS);
    }
    let mut at = 0;
    let ends = outboxes.iter().map(|outbox| {
        while outbox.load().0 > 1 {
            scene.turn();
            scene.env.give_turn("log");
            at += 1;
        }
        at
    });
    let ends: Vec<usize> = ends.collect();
    // What is found is kept for four of them. The fifth comes before their second reads.
    assert!(ends[..4].iter().all(|end| (150..170).contains(end)), "{ends:?}");
    assert!(ends[4..].iter().all(|end| (250..350).contains(end)), "{ends:?}");
    let last = outboxes.iter().map(|outbox| scene.turns_until_answered(outbox)).sum::<usize>();
    assert!(last + ends[5] < 6 * 80 + 20, "{ends:?}, {last}");
}

#[test]
fn connection_that_is_gone_gets_no_more_turns() {
    let mut scene = small_scene();
    let gone = scene.node.inbox.new_outbox();
    scene.ask_from(&gone, 3, 10_000);
    for _ in 0..10 {
        assert!(scene.turn());
    }
    gone.leave();
    assert!(!scene.turn(), "nobody waits");
    assert_eq!(gone.load().0, 0, "they do not count any more");
}

/// The accident: pieces of snapshots were given to who never fetched one, as many as it asked for.
#[test]
fn piece_of_a_snapshot_is_refused_to_who_does_not_fetch_its_answers() {
    let mut scene = Scene::new();
    let state = SavedState { index: 1, term: 1 };
    for wanted in [None, Some(state)] {
        let (hoarder, saver) = (scene.node.inbox.new_outbox(), scene.node.inbox.new_outbox());
        for id in 0..40 {
            let number = hoarder.expect_reply(id, 0);
            let answer = RequestError::Invalid("x".repeat(1 << 20));
            hoarder.reply(number, ResponseBody::Error(answer));
        }
        for outbox in [&hoarder, &saver] {
            let id = outbox.expect_reply(1, 1);
            scene.submit(outbox, id, RequestBody::Snapshot { wanted, offset: 0, bytes_max: 1 });
        }
        for _ in 0..3 {
            scene.turn();
            scene.env.give_turn("log");
        }
        let unanswered = [&hoarder, &saver].map(|outbox| outbox.load().0);
        assert_eq!(unanswered, [0, 1], "the state task is asked for one piece: {wanted:?}");
    }
}
