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
use crate::wire::{Consistency, RequestBody};

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
        let env = HandEnv::default();
        let members = vec![(NodeId(1), "n1".to_owned())];
        let config = NodeConfig {
            scrub_bytes_per_second: 0,
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
        let cell = (Key::default(), Column::default());
        for id in 0..count {
            let query = Query::MultiGet { cells: vec![cell.clone(); cell_count] };
            let id = self.outbox.expect_reply(id, 1);
            let (outbox, consistency) = (Arc::clone(&self.outbox), Consistency::default());
            let body = RequestBody::Query(query);
            self.node.inbox.submit(Submitted { outbox, id, bytes: 1, consistency, body });
        }
    }

    /// Gives the loop a turn; tells whether it wants another one at once.
    fn turn(&mut self) -> bool {
        let now = self.env.now();
        self.node.inbox.take(&mut self.arrivals);
        let wants_turn = self.node.turn(now, &mut self.arrivals).is_none();
        assert_eq!(self.node.stop, None);
        wants_turn
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
