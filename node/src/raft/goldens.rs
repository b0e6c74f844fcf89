//! Golden traces: scripts of what happens to a small cluster, with everything it does in return.
//!
//! A script (`testscripts/*`) is a list of commands, then `---`, then the trace. The grammar of a
//! trace line, shared with the simulation:
//!
//! ```text
//! n1@3 → n2 Append prev=4@2 [5@3 6@3] commit=4     a message sent in term 3 arrives
//! n1@3 ⇥ n2 Append …                               it is lost
//! n1@3 ⇨ leader                                    a change of role or term
//! n1 ✓ persists term=3 vote=n1 5@3                 it is durable
//! n1 applies 5@3 for #7                            it takes effect, and answers a proposal
//! n1 answers #7 ReadReady                          another answer
//! n1 ✗ crashes                                     it loses what is not durable
//! ```
//! `UPDATE_GOLDENFILES=1 cargo test -p mangrove goldens` writes the traces anew; read the
//! difference before committing it.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use goldenscript::Context;
use test_each_file::test_each_path;

use super::harness::{Cluster, Envelope};
use super::{Config, Input, Standing};
use crate::base::NodeId;

test_each_path! { in "node/src/raft/testscripts" => run }

fn run(path: &Path) {
    let mut script = Script { cluster: Cluster::new(3, 1, configure), cuts: Vec::new() };
    if let Err(error) = goldenscript::run(&mut script, path) {
        panic!("{}: {error}", path.display());
    }
}

fn configure(config: &mut Config, _: u64) {
    config.append_entries_max = 4;
    config.inflight_count_max = 2;
    config.snapshot_chunk_bytes = 16;
    config.log_entries_kept = 1;
}

/// What a script can say. Nodes are numbers; nothing happens by itself.
#[derive(goldenscript::Command)]
enum Command {
    /// Starts over with that many nodes.
    Cluster(u64),
    /// Lets the time come at which a node wants to be woken, and wakes only it.
    Expire(u64),
    /// Lets milliseconds pass and wakes every node that wants it.
    Pass(u64),
    /// Proposes commands at a node, one unless a number is given.
    Propose(u64, #[arg(key = "count", optional)] usize),
    /// Asks a node for a read.
    Read(u64),
    /// Does everything there is to do, until nothing is on its way.
    Settle,
    /// Delivers that many messages, with everything else done in between.
    Flow(usize),
    /// Loses everything that is on its way.
    Clear,
    /// Makes a node's disk wait for `persist`.
    SlowDisk(u64),
    /// Makes everything durable that a node's disk was asked to write.
    Persist(u64),
    /// Cuts a connection in one direction until `heal`.
    Cut(u64, u64),
    /// Restores all connections.
    Heal,
    /// Crashes a node.
    Crash(u64),
    /// Crashes a node and gives it an empty disk.
    Exchange(u64),
    /// Crashes a node and has its disk forget terms, votes and standing.
    LoseVote(u64),
    /// Starts a node.
    Start(u64),
    /// Takes a snapshot at a node.
    Snapshot(u64),
    /// Tells a node that its connection to another broke.
    Lost(u64, u64),
    /// Delivers the oldest message on its way from one node to another a second time.
    Repeat(u64, u64),
    /// Shows every node.
    Status,
}

struct Script {
    cluster: Cluster,
    cuts: Vec<(NodeId, NodeId)>,
}

impl goldenscript::Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        self.cluster.trace = Some(Vec::new());
        self.obey(command)?;
        let lines = self.cluster.trace.take().unwrap_or_default();
        Ok(lines.into_iter().map(|line| line + "\n").collect())
    }
}

impl Script {
    fn obey(&mut self, command: &Command) -> Result<(), Box<dyn Error>> {
        let cluster = &mut self.cluster;
        match *command {
            Command::Cluster(count) => {
                *cluster = Cluster::new(count, 1, configure);
                self.cuts.clear();
            }
            Command::Expire(id) => {
                let deadline = crate::base::Core::deadline(cluster.node(NodeId(id)).raft());
                cluster.now = cluster.now.max(deadline);
                cluster.tick(NodeId(id));
            }
            Command::Pass(millis) => {
                cluster.now = cluster.now + Duration::from_millis(millis);
                for id in cluster.ids() {
                    cluster.tick_if_due(id);
                }
            }
            Command::Propose(id, count) => {
                cluster.propose_many(NodeId(id), count.max(1));
            }
            Command::Read(id) => cluster.read(NodeId(id)),
            Command::Settle => {
                let cuts = self.cuts.clone();
                cluster.settle(|from, to| cuts.contains(&(from, to)));
            }
            Command::Flow(count) => cluster.flow(count),
            Command::Clear => {
                for envelope in std::mem::take(&mut cluster.network) {
                    cluster.lose(&envelope);
                }
            }
            Command::SlowDisk(id) => {
                cluster.slow_disks.insert(NodeId(id));
            }
            Command::Persist(id) => {
                cluster.slow_disks.remove(&NodeId(id));
                cluster.persist(NodeId(id), usize::MAX);
            }
            Command::Cut(from, to) => self.cuts.push((NodeId(from), NodeId(to))),
            Command::Heal => self.cuts.clear(),
            Command::Crash(id) => cluster.crash(NodeId(id), 0),
            Command::Exchange(id) => cluster.exchange(NodeId(id)),
            Command::LoseVote(id) => cluster.lose_vote(NodeId(id)),
            Command::Start(id) => cluster.start(NodeId(id)),
            Command::Snapshot(id) => cluster.snapshot(NodeId(id)),
            Command::Lost(at, of) => cluster.step(NodeId(at), Input::PeerLost { peer: NodeId(of) }),
            Command::Repeat(from, to) => {
                let repeated = |envelope: &&Envelope| {
                    (envelope.from, envelope.to) == (NodeId(from), NodeId(to))
                };
                let envelope = cluster.network.iter().find(repeated).cloned();
                cluster.deliver(envelope.ok_or("nothing is on its way there")?);
            }
            Command::Status => self.status(),
        }
        Ok(())
    }

    fn status(&mut self) {
        for id in self.cluster.ids() {
            let Some(raft) = &self.cluster.node(id).raft else {
                self.cluster.note(format!("{id} is down"));
                continue;
            };
            let base = raft.log().base();
            let log: Vec<String> = raft.log().entries_from(1).map(ToString::to_string).collect();
            let past = Some(raft.standing()).filter(|standing| *standing != Standing::Whole);
            let past = past.map_or(String::new(), |standing| format!(" ({standing})"));
            let line = format!(
                "{id}@{} {}{past} commit={} applied={} base={base} log=[{}]",
                raft.term(),
                raft.role(),
                raft.commit_index(),
                raft.applied_index(),
                log.join(" "),
            );
            self.cluster.note(line);
        }
    }
}
