//! What goes wrong, by name, and the load under which it does.

use std::time::Duration;

use mangrove::base::Rng;
use mangrove::dynamo::Level;

use super::Subject;
use crate::case::Case;
use crate::masterless::options::LevelMix;
use crate::nemesis::{Action, Fault, FaultId};
use crate::operation::{Cell, Operation, OperationId, Request};
use crate::options::{Mode, Plan, Profile};

/// Clients that ask at the same time.
pub(crate) const CLIENTS: u32 = 6;

/// Time between two requests of one client; it misses those that are due while it waits.
pub(crate) const PACE: Duration = Duration::from_millis(40);

/// When the load begins: every node has started, and somebody leads.
pub(super) const LOAD_BEGIN: Duration = Duration::from_secs(2);

/// When the load ends.
pub(crate) const LOAD_END: Duration = Duration::from_secs(18);

/// Keys that all clients share, so that they meet.
const KEYS: usize = 8;

/// Bytes of a value.
const VALUE_BYTES: u64 = 100;

/// Election time-out of the primary-backup mode, and request time-out of the masterless one: a
/// client tries another node after twice as long, in both.
pub(crate) const PATIENCE: Duration = Duration::from_millis(300);

/// An accident.
#[derive(Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What happens.
    pub what: &'static str,
    /// Why the subjects do what they do.
    pub why: &'static str,
    faults: fn() -> Vec<(u64, Aim, Action)>,
}

/// What is still wrong when the load ends, from when on: what `equal after` tells of is what this
/// has left behind.
const AGAIN: (u64, u64) = (15_000, 60_000);

/// Whom a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// The nodes that it names.
    Named,
    /// The leader in place of node 1, if somebody leads.
    Leader,
}

const fn ms(length: u64) -> Duration {
    Duration::from_millis(length)
}

/// Returns both directions of the links between a node and others.
fn both_ways(node: u64, others: &[u64]) -> Vec<(u64, u64)> {
    others.iter().flat_map(|&other| [(node, other), (other, node)]).collect()
}

fn crash(node: u64, down: u64) -> Action {
    Action::Crash { node, while_busy: false, down: ms(down) }
}

fn cut(links: Vec<(u64, u64)>, length: u64) -> Action {
    Action::Partition { links, length: ms(length) }
}

/// All of them, the calmest first. Times are in milliseconds since the cluster was started.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "calm",
        what: "Nothing goes wrong.",
        why: "A write takes a way to the leader, its round to a follower and a sync of two \
              disks; at QUORUM the same, with whichever node was asked. ONE waits for the \
              quickest replica alone, and a read at ONE for nobody: it asks one replica, and now \
              and then that is one that has not heard yet.",
        faults: Vec::new,
    },
    Scenario {
        name: "leader-dies",
        what: "The process of the leader (or of node 1) dies at 5 s and is started again at 9 s; \
               it dies again at 15 s, to the end of the load.",
        why: "Followers wait for an election time-out before they elect, and nobody writes until \
              then: that is the gap. Without a leader there is nothing to elect: only the \
              clients that had asked the dead node notice, and ask another one.",
        faults: || {
            vec![(5_000, Aim::Leader, crash(1, 4_000)), (AGAIN.0, Aim::Leader, crash(1, AGAIN.1))]
        },
    },
    Scenario {
        name: "minority",
        what: "The leader (or node 1) is cut off from the other nodes from 5 s to 10 s, and from \
               15 s to the end; clients reach all of them.",
        why: "The old leader steps down when it has heard no majority for an election time-out; \
              the others elect one. At QUORUM only the clients of the lone node wait for a \
              time-out, and ask another. At ONE the lone node goes on answering with what it \
              has: no gap, and many stale reads.",
        faults: || {
            vec![
                (5_000, Aim::Leader, cut(both_ways(1, &[2, 3]), 5_000)),
                (AGAIN.0, Aim::Leader, cut(both_ways(1, &[2, 3]), AGAIN.1)),
            ]
        },
    },
    Scenario {
        name: "bridge",
        what: "The leader (or node 1) and node 3 do not hear each other from 5 s to 10 s, and \
               from 15 s to the end; both hear the third node.",
        why: "The leader keeps a majority with the node between, so it stays: pre-votes keep the \
              one that does not hear it from forcing elections. Every quorum exists as well. At \
              ONE a write that one end has acknowledged reaches the other end only by way of \
              hints and repair, and reads there are stale meanwhile.",
        faults: || {
            vec![
                (5_000, Aim::Leader, cut(both_ways(1, &[3]), 5_000)),
                (AGAIN.0, Aim::Leader, cut(both_ways(1, &[3]), AGAIN.1)),
            ]
        },
    },
    Scenario {
        name: "slow-disk",
        what: "The disk of the leader (or of node 1) is fifty times slower from 5 s to 10 s.",
        why: "A majority that does not need the slow disk commits without it: the leader's own \
              sync is one of three, and at QUORUM the same. At ONE a write is acknowledged by \
              quicker replicas, and reads that ask the slow one do not see it for a while.",
        faults: || {
            vec![(5_000, Aim::Leader, Action::Slow { node: 1, factor: 50, length: ms(5_000) })]
        },
    },
    Scenario {
        name: "clock-skew",
        what: "At 5 s the wall clock of node 1 jumps three seconds ahead, that of node 2 three \
               seconds back.",
        why: "The primary-backup mode does not look at wall clocks. Stamps of the masterless \
              mode are hybrid: a node that has heard of a later stamp gives later ones, so \
              clocks that differ do little harm as long as nodes hear each other. Not none: a \
              node whose clock is behind, and that has not heard of a write yet which two others \
              have acknowledged, stamps its own next write older. Such a write is acknowledged \
              and never seen.",
        faults: || {
            vec![
                (5_000, Aim::Named, Action::ClockJump { node: 1, by_ms: 3_000 }),
                (5_000, Aim::Named, Action::ClockJump { node: 2, by_ms: -3_000 }),
            ]
        },
    },
    Scenario {
        name: "clock-skew-cut",
        what: "The same clocks, and node 1, which is ahead, is cut off from 7 s to 11 s, and \
               from 15 s to the end.",
        why: "Now they do not hear each other. What node 1 stamps at ONE while it is alone is \
              later than what the others acknowledge after it, so after healing the older value \
              wins: acknowledged writes are lost. At QUORUM the lone node acknowledges nothing, \
              which leaves the little of the scenario before. Who needs the last word in real \
              time needs the primary-backup mode.",
        faults: || {
            vec![
                (5_000, Aim::Named, Action::ClockJump { node: 1, by_ms: 3_000 }),
                (5_000, Aim::Named, Action::ClockJump { node: 2, by_ms: -3_000 }),
                (7_000, Aim::Named, cut(both_ways(1, &[2, 3]), 4_000)),
                (AGAIN.0, Aim::Named, cut(both_ways(1, &[2, 3]), AGAIN.1)),
            ]
        },
    },
    Scenario {
        name: "rolling-restart",
        what: "The nodes are killed one after the other, at 5 s, 8 s and 11 s, and each is \
               started again a second later.",
        why: "The primary-backup mode pays an election for each time that the leader was the \
              one; the masterless mode a time-out of the clients that had asked it.",
        faults: || {
            vec![
                (5_000, Aim::Named, crash(1, 1_000)),
                (8_000, Aim::Named, crash(2, 1_000)),
                (11_000, Aim::Named, crash(3, 1_000)),
            ]
        },
    },
    Scenario {
        name: "power-loss",
        what: "All nodes lose power at 5 s, and with it everything that was not synced; they \
               have it back one after the other, at 6.5, 8 and 9.5 s.",
        why: "ONE answers as soon as one node is back; the other two need a second one, which \
              has to be found, and the primary-backup mode elects. What was acknowledged was \
              synced by a majority before, or at ONE by one disk: nothing is lost.",
        faults: || {
            vec![(
                5_000,
                Aim::Named,
                Action::PowerLoss {
                    nodes: vec![1, 2, 3],
                    strict: true,
                    while_busy: false,
                    down: ms(1_500),
                },
            )]
        },
    },
];

impl Scenario {
    /// Returns the scenario of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// Returns the run of a seed with a subject.
    pub fn case(&self, subject: Subject, seed: u64) -> Case {
        let mut case = loaded(subject, seed);
        case.about = format!("{}, {}: {}", self.name, subject.name(), self.what);
        let numbered = (1..).zip((self.faults)());
        case.faults = Some(
            numbered
                .map(|(number, (at, aim, action))| Fault {
                    id: FaultId(number),
                    at: ms(at),
                    instead_of: (aim == Aim::Leader).then_some(1),
                    action,
                })
                .collect(),
        );
        case
    }
}

/// Returns the run of a seed with a subject under the load, in which nothing goes wrong.
pub(crate) fn loaded(subject: Subject, seed: u64) -> Case {
    let (mode, level) = match subject {
        Subject::PrimaryBackup => (Mode::PrimaryBackup, None),
        Subject::Quorum => (Mode::Masterless, Some(Level::Quorum)),
        Subject::One => (Mode::Masterless, Some(Level::One)),
    };
    let mut case = Case::plain(Plan { mode, profile: Profile::Standard }, seed);
    case.options.client_count = u64::from(CLIENTS);
    case.options.fault_phase = LOAD_END;
    case.options.tuning.election_timeout = PATIENCE;
    case.options.tuning.value_bytes_max = VALUE_BYTES;
    if let (Some(masterless), Some(level)) = (&mut case.options.masterless, level) {
        masterless.request_timeout = PATIENCE;
        masterless.spread = true;
        masterless.levels = LevelMix::only(level);
    }
    case.operations = Some((1..=CLIENTS).flat_map(|at| operations(at, level, seed)).collect());
    case
}

/// Returns what a client asks for: reads and writes in turn, of keys that the seed draws.
fn operations(client: u32, level: Option<Level>, seed: u64) -> Vec<Operation> {
    let mut rng = Rng::new(seed).split(&format!("compare.{client}"));
    let first = LOAD_BEGIN + PACE / CLIENTS * client;
    let due = |number: u32| first + PACE * number;
    let numbers = (0..).take_while(|number| due(*number) < LOAD_END);
    numbers
        .map(|number| {
            let cell = Cell::new(&format!("k{}", rng.index(KEYS)), "");
            let request = if number % 2 == 0 {
                Request::Set { cell, bytes: VALUE_BYTES }
            } else {
                Request::Get(cell)
            };
            let id = OperationId { client, number: number + 1 };
            Operation { id, at: due(number), level, request }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_of_a_scenario_get_the_same_requests_and_faults() {
        for scenario in SCENARIOS {
            let mut cases = Subject::ALL.map(|subject| scenario.case(subject, 7));
            for case in &mut cases {
                case.operations.iter_mut().flatten().for_each(|operation| operation.level = None);
            }
            let [first, others @ ..] = &cases;
            for other in others {
                assert_eq!(first.operations, other.operations, "{}", scenario.name);
                assert_eq!(first.faults, other.faults, "{}", scenario.name);
            }
        }
    }

    #[test]
    fn names_are_different() {
        let names: std::collections::BTreeSet<_> = SCENARIOS.iter().map(|one| one.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
        assert!(Scenario::named("bridge").is_some() && Scenario::named("tsunami").is_none());
    }
}
