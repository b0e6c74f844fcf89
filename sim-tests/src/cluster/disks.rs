//! What the disks of all nodes of the primary-backup mode hold, by the node's own recovery.
//!
//! Each look is at what the worst would leave *now*: a copy, which recovery may write to. The logs
//! are compared with what was acknowledged; then, once the run is over and its report is written,
//! the whole states with each other, for which every node's state machine is made again from its
//! tables and the log after them. That takes no time of the world, and nothing of the run depends
//! on it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::pin::pin;

use mangrove::base::{Index, NodeId, probe};
use mangrove::env::Env as _;
use mangrove::kv::Machine;
use mangrove::raft::{Entry, EntryKind, Recovered, SnapshotMeta, Standing};
use mangrove::replica::recovery::replay;
use mangrove::replica::{STATE_DIR, WAL_DIR};
use mangrove::storage::tree::{self, Tree, TreeOptions};
use mangrove::storage::{Engine as _, SnapshotPoint, StorageError, wal};

use super::Cluster;
use crate::check::state_machine_safety::Contents;
use crate::check::{Violation, broken};
use crate::watch::log_of;
use crate::world::{SimDisk, SimEnv};

/// Smallest segment of a log.
const SMALL_SEGMENT_BYTES: u64 = 4096;

/// What was found on the disks that must hold what they were given.
pub struct Disks {
    /// When, in nanoseconds of the world.
    at: u64,
    stored: BTreeMap<NodeId, Stored>,
    sessions_max: usize,
    /// Nodes whose disks have lost something, and may not know all of it yet.
    losers: BTreeSet<NodeId>,
}

/// The state machine of one node, as its disk has it.
struct Stored {
    tree: Tree<SimDisk>,
    /// What was captured with the tables, and what is wrong with them.
    tables: tree::Recovery,
    /// The log after the tables.
    entries: Vec<Entry>,
}

impl Cluster {
    /// Looks at what the worst would leave of all nodes' disks now, with the node's own recovery,
    /// and compares it with what was acknowledged. Returns what it found, so that the contents can
    /// be compared, too.
    ///
    /// # Errors
    /// Something that was acknowledged is not there, or a disk cannot be recovered.
    pub async fn check_disks(&self, acknowledged: &[Index]) -> Result<Disks, Violation> {
        let (mut logs, mut stored) = (BTreeMap::new(), BTreeMap::new());
        let mut excused = not_refilled(&self.lied_to, |node| self.watch.commit_of(node));
        for node in self.nodes() {
            let env = self.disk_at_worst(node);
            let (recovered, tree, tables) = match unprobed(recover(&env)).await {
                Ok(found) => found,
                Err(what) => {
                    let what = format!("the disk of node {node} cannot be recovered: {what}");
                    broken("durability", self.now_ns(), what)?;
                    continue;
                }
            };
            if self.exchanged.contains_key(&node) && recovered == Recovered::default() {
                // It has nothing yet, and knows that.
                excused.insert(NodeId(node));
            }
            logs.insert(NodeId(node), log_of(&recovered));
            let entries = recovered.entries;
            stored.insert(NodeId(node), Stored { tree, tables, entries });
        }
        if let Some(violation) = self.watch.check_disks(acknowledged, &logs, &excused) {
            return Err(violation);
        }
        stored.retain(|node, _| !excused.contains(node));
        Ok(Disks {
            at: self.now_ns(),
            stored,
            sessions_max: self.options.tuning.sessions_max,
            losers: self.nodes().filter(|node| self.atlas.has_lost(*node)).map(NodeId).collect(),
        })
    }

    /// Returns the nodes that could vote, and lack nothing that they acknowledged, if the worst
    /// came to all disks now.
    pub async fn voters(&self) -> BTreeSet<u64> {
        let mut voters = BTreeSet::new();
        for node in self.nodes().filter(|node| !self.atlas.has_lost(*node)) {
            let recovered = unprobed(recover(&self.disk_at_worst(node))).await;
            if recovered.is_ok_and(|(recovered, _, _)| has_a_vote(&recovered)) {
                voters.insert(node);
            }
        }
        voters
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.world.now().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Returns the nodes that were lied to and have not got back yet what they lost. Once they have,
/// they are held to what everybody is.
fn not_refilled(
    lied_to: &BTreeMap<u64, Option<Index>>,
    commit_of: impl Fn(NodeId) -> Index,
) -> BTreeSet<NodeId> {
    let lacks = |(node, index): &(NodeId, Option<Index>)| {
        index.is_none_or(|index| commit_of(*node) < index)
    };
    let all = lied_to.iter().map(|(node, index)| (NodeId(*node), *index));
    all.filter(lacks).map(|(node, _)| node).collect()
}

impl Disks {
    /// Makes every node's state again, and compares it with that of each other node wherever both
    /// can be brought to the same position of the log.
    ///
    /// # Errors
    /// Two differ, or one cannot be read.
    pub fn check_contents(self) -> Result<(), Violation> {
        // Whoever is behind decides where the others are compared with it.
        let ends: BTreeSet<Index> =
            self.stored.values().map(|stored| *stored.range().end()).collect();
        let mut contents = Contents::default();
        for (node, stored) in self.stored {
            let states = match stored.states_at(&ends, self.sessions_max) {
                Ok(states) => states,
                // Rot shows when it is read, and so does what a lie has left out of a table; nobody
                // has promised to have read it before.
                Err(_) if self.losers.contains(&node) => continue,
                Err(error) => {
                    let what = format!("the state on the disk of {node} cannot be read: {error}");
                    broken("durability", self.at, what)?;
                    continue;
                }
            };
            for (point, hash) in states {
                contents.observe(self.at, node, (point.index, point.term), hash)?;
            }
        }
        Ok(())
    }
}

impl Stored {
    /// Returns the positions that its state can be brought to.
    fn range(&self) -> RangeInclusive<Index> {
        let first = self.tree.applied().index;
        first..=self.entries.last().map_or(first, |last| last.index)
    }

    /// Returns the hash of the whole state at each of these indexes that it can be brought to.
    fn states_at(
        self,
        ends: &BTreeSet<Index>,
        sessions_max: usize,
    ) -> Result<Vec<(SnapshotPoint, u64)>, StorageError> {
        let range = self.range();
        let Self { tree, tables, entries } = self;
        if let Some(tree::Damage { path, offset, what, .. }) = tables.damage {
            return Err(StorageError::Corrupt { path, offset, what });
        }
        let mut machine = Machine::restore(tree, &tables.extra, sessions_max)?;
        let mut entries = entries.iter().peekable();
        let mut states = Vec::new();
        for end in ends.range(range) {
            while let Some(entry) = entries.next_if(|entry| entry.index <= *end) {
                carry_out(&mut machine, entry)?;
            }
            states.push((machine.applied(), machine.state_hash()?));
        }
        Ok(states)
    }
}

/// Tells whether a node that starts so takes part without being told anything by others. One whose
/// founding is not over waits for all of them, unless it has got a term meanwhile.
fn has_a_vote(recovered: &Recovered) -> bool {
    let knows_its_past = match recovered.standing {
        Standing::Whole | Standing::New | Standing::Founding => true,
        Standing::Filling(_) | Standing::Unsure => false,
    };
    knows_its_past && recovered.damaged_last.is_none() && recovered.hard_state.term > 0
}

fn carry_out(machine: &mut Machine<Tree<SimDisk>>, entry: &Entry) -> Result<(), StorageError> {
    match &entry.kind {
        EntryKind::Noop => machine.skip(entry.index, entry.term),
        EntryKind::Command(command) => {
            machine.apply(entry.index, entry.term, command.as_bytes())?;
        }
    }
    Ok(())
}

/// Looks at a disk with the nodes' own code: the rare paths that it takes are none of the nodes'.
pub(crate) async fn unprobed<T>(look: impl Future<Output = T>) -> T {
    let mut look = pin!(look);
    poll_fn(|context| {
        let _aside = probe::Aside::new();
        look.as_mut().poll(context)
    })
    .await
}

/// Runs the recovery of a node on a disk; returns what the core would start with, and the tables.
async fn recover(env: &SimEnv) -> Result<(Recovered, Tree<SimDisk>, tree::Recovery), String> {
    let opened = tree::open(env.disk().clone(), STATE_DIR, TreeOptions::default()).await;
    let (tree, _, tables) = opened.map_err(|error| error.to_string())?;
    // Recovery may begin a segment; nobody will write to it.
    let options = wal::Options { segment_bytes: SMALL_SEGMENT_BYTES };
    let (_, log) = wal::open(env.disk(), WAL_DIR, options).await.map_err(|e| e.to_string())?;
    let durable = SnapshotMeta { index: tables.applied.index, term: tables.applied.term };
    let recovered = replay(&log, durable).map_err(|error| error.to_string())?;
    Ok((recovered, tree, tables))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Host, World, WorldOptions, run_seed};
    use mangrove::base::{Column, Key, Payload, RequestSeq, SessionId, Value};
    use mangrove::codec;
    use mangrove::kv::{Batch, Command};

    /// The values that a log writes to one cell, one after the other.
    type Log = &'static [&'static str];

    fn entry(index: Index, command: &Command) -> Entry {
        let command = Payload::new(codec::encode(command)).unwrap();
        Entry { term: 1, index, kind: EntryKind::Command(command) }
    }

    fn write(seq: u64, value: &'static str) -> Command {
        let key = Key::new("k").unwrap();
        Command::Write {
            session: SessionId(1),
            seq: RequestSeq(seq),
            acked_below: RequestSeq(0),
            batch: Batch::new().set(key, Column::default(), Value::new(value).unwrap()),
        }
    }

    /// Makes a disk without tables, and the log after them.
    async fn disk(world: &World, host: Host, log: Log) -> Stored {
        let env = world.observer(host, world.durable_view(host));
        let (recovered, tree, tables) = recover(&env).await.unwrap();
        assert_eq!(recovered, Recovered::default());
        let register = entry(1, &Command::RegisterByIndex { nonce: 7 });
        let writes = (1..).zip(log).map(|(seq, value)| entry(seq + 1, &write(seq, value)));
        Stored { tree, tables, entries: std::iter::once(register).chain(writes).collect() }
    }

    /// Compares disks after something was done to the first.
    fn verdict(
        logs: &'static [Log],
        losers: &'static [u64],
        change: impl FnOnce(&mut Stored) + Send + 'static,
    ) -> Option<&'static str> {
        let result = run_seed(1, WorldOptions::default(), move |world| async move {
            let host = world.add_server("n1");
            let mut stored = BTreeMap::new();
            for (node, log) in (1..).zip(logs) {
                stored.insert(NodeId(node), disk(&world, host, log).await);
            }
            if let Some(mut first) = stored.first_entry() {
                change(first.get_mut());
            }
            let losers = losers.iter().copied().map(NodeId).collect();
            Disks { at: 9, stored, sessions_max: 64, losers }.check_contents()
        });
        let verdict = result.unwrap_or_else(|failure| panic!("{failure}"));
        verdict.err().map(|violation| violation.checker)
    }

    #[test]
    fn states_are_compared_where_both_can_be() {
        let same: &[Log] = &[&["a", "b"], &["a"], &["a", "b"], &[]];
        assert_eq!(verdict(same, &[], |_| {}), None);
        let other: &[Log] = &[&["a", "b"], &["c"]];
        assert_eq!(verdict(other, &[], |_| {}), Some("state_machine_safety"), "at the end of one");
        let end: &[Log] = &[&["a", "b"], &["a"], &["a", "c"]];
        assert_eq!(verdict(end, &[], |_| {}), Some("state_machine_safety"), "at the end of both");
    }

    #[test]
    fn entry_of_another_term_is_another_position() {
        let other: &[Log] = &[&["a", "b"], &["a", "c"]];
        let later = |stored: &mut Stored| stored.entries[2].term = 2;
        assert_eq!(verdict(other, &[], later), None, "one of them is not committed");
    }

    #[test]
    fn state_that_cannot_be_read_must_be_rotten() {
        let same: &[Log] = &[&["a"], &["a"], &["a"]];
        let damage = |stored: &mut Stored| {
            let (point, path, what) = (None, "tables/table-1".to_owned(), "lost".to_owned());
            stored.tables.damage = Some(tree::Damage { point, path, offset: 0, what });
        };
        assert_eq!(verdict(same, &[1], damage), None);
        assert_eq!(verdict(same, &[], damage), Some("durability"));
        assert_eq!(verdict(same, &[2, 3], damage), Some("durability"), "others' may be");
    }

    #[test]
    fn node_that_was_lied_to_is_excused_until_it_is_refilled() {
        let lied_to = BTreeMap::from([(1, None), (2, Some(7))]);
        for (commit, excused) in [(0, vec![1, 2]), (6, vec![1, 2]), (7, vec![1]), (9, vec![1])] {
            let excused: BTreeSet<NodeId> = excused.into_iter().map(NodeId).collect();
            assert_eq!(not_refilled(&lied_to, |_| commit), excused, "committed {commit}");
        }
    }
}
