//! Golden traces: scripts of what happens to a small cluster, with everything it does in return.
//!
//! A script (`testscripts/*`) is a list of commands, then `---`, then the trace. Its lines are
//! like those of [`crate::raft`]:
//!
//! ```text
//! n1 → n2 Write 1.4 [k=v1 10000.1@n1]     a message arrives
//! n1 ⇥ n2 Write …                         it is lost
//! n1 ✓ persists [k=v1 10000.1@n1] +hint 0 for n3 -batch 10000.1@n1
//! n1 answers #7 Written 10000.1@n1        an answer to a client
//! n1 ✗ crashes                            it loses what is not durable
//! ```
//! Heartbeats and the clock's ceiling are left out. `UPDATE_GOLDENFILES=1 cargo test -p mangrove
//! goldens` writes the traces anew; read the difference before committing it.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use goldenscript::Context;
use test_each_file::test_each_path;

use super::harness::{Cluster, Shape};
use super::{Config, Input, Level, Repair};
use crate::base::NodeId;

test_each_path! { in "node/src/dynamo/testscripts" => run }

fn run(path: &Path) {
    let cluster = new_cluster(3, 3);
    let mut script = Script { cluster, cuts: Vec::new() };
    if let Err(error) = goldenscript::run(&mut script, path) {
        panic!("{}: {error}", path.display());
    }
}

fn new_cluster(nodes: u64, factor: usize) -> Cluster {
    Cluster::new(Shape { nodes, factor, partitions: 8 }, 1, configure)
}

fn configure(config: &mut Config, _: u64) {
    config.ceiling_step = Duration::from_hours(1);
    config.sync_interval = Duration::from_hours(1);
    config.floor_interval = Duration::from_hours(1);
}

/// No hints; anti-entropy every second, and floors a second after the last write.
fn configure_healing(config: &mut Config, seed: u64) {
    configure(config, seed);
    config.repair = Repair { hints: false, reads: false };
    config.write_timeout = Duration::from_millis(200);
    config.sync_interval = Duration::from_secs(1);
    config.floor_interval = Duration::from_secs(2);
    config.floor_age = Duration::from_secs(1);
}

fn level_of(name: &str) -> Result<Level, Box<dyn Error>> {
    match name {
        "one" => Ok(Level::One),
        "two" => Ok(Level::Two),
        "quorum" => Ok(Level::Quorum),
        "all" => Ok(Level::All),
        _ => Err(format!("there is no level {name}").into()),
    }
}

/// What a script can say. Nodes are numbers; nothing happens by itself.
#[derive(goldenscript::Command)]
enum Command {
    /// Starts over with that many nodes and replicas.
    Cluster(u64, usize),
    /// Starts over with that many nodes, one partition, and anti-entropy in place of hints.
    Healing(u64),
    /// Has a client read keys at a node, at a level.
    Read(u64, String, String),
    /// Has a client delete keys at a node, at a level.
    Delete(u64, String, String),
    /// Has a client put values at a node: at a level (one, two, quorum, all), under keys with
    /// commas between.
    Put(u64, String, String),
    /// Lets milliseconds pass in small steps, with everything done in between.
    Run(u64),
    /// Does everything there is to do, until nothing is on its way.
    Settle,
    /// Delivers that many messages, with every disk keeping up.
    Flow(usize),
    /// Makes a node's disk wait for `persist`.
    SlowDisk(u64),
    /// Makes everything durable that a node's disk was asked to write.
    Persist(u64),
    /// Leaves no space on a node's disk.
    Fill(u64),
    /// Makes space again.
    Free(u64),
    /// Cuts both directions of a connection until `heal`.
    Cut(u64, u64),
    /// Restores all connections.
    Heal,
    /// Crashes a node.
    Crash(u64),
    /// Starts a node.
    Start(u64),
    /// Tells a node that its connection to another broke.
    Lost(u64, u64),
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
        let cuts = self.cuts.clone();
        let cut = |from: NodeId, to: NodeId| cuts.contains(&(from, to));
        let cluster = &mut self.cluster;
        match command {
            Command::Cluster(nodes, factor) => {
                *cluster = new_cluster(*nodes, *factor);
                self.cuts.clear();
            }
            Command::Put(id, level, keys) => {
                let level = level_of(level)?;
                let keys: Vec<&str> = keys.split(',').collect();
                cluster.put(NodeId(*id), level, &keys);
            }
            Command::Healing(nodes) => {
                let factor = usize::try_from(*nodes)?;
                let shape = Shape { nodes: *nodes, factor, partitions: 1 };
                *cluster = Cluster::new(shape, 1, configure_healing);
                self.cuts.clear();
            }
            Command::Read(id, level, keys) => {
                let keys: Vec<&str> = keys.split(',').collect();
                cluster.read(NodeId(*id), level_of(level)?, &keys);
            }
            Command::Delete(id, level, keys) => {
                let keys: Vec<&str> = keys.split(',').collect();
                cluster.delete(NodeId(*id), level_of(level)?, &keys);
            }
            Command::Run(millis) => cluster.run(Duration::from_millis(*millis), cut),
            Command::Settle => cluster.settle(cut),
            Command::Flow(count) => cluster.flow(*count),
            Command::SlowDisk(id) => {
                cluster.slow_disks.insert(NodeId(*id));
            }
            Command::Persist(id) => {
                cluster.slow_disks.remove(&NodeId(*id));
                cluster.persist(NodeId(*id), usize::MAX);
            }
            Command::Fill(id) => cluster.fill(NodeId(*id), true),
            Command::Free(id) => cluster.fill(NodeId(*id), false),
            Command::Cut(a, b) => {
                self.cuts.extend([(NodeId(*a), NodeId(*b)), (NodeId(*b), NodeId(*a))]);
            }
            Command::Heal => self.cuts.clear(),
            Command::Crash(id) => cluster.crash(NodeId(*id), 0),
            Command::Start(id) => cluster.start(NodeId(*id)),
            Command::Lost(at, of) => {
                cluster.step(NodeId(*at), Input::PeerLost { peer: NodeId(*of) });
            }
            Command::Status => self.status(),
        }
        Ok(())
    }

    fn status(&mut self) {
        for id in self.cluster.ids() {
            let Some(core) = &self.cluster.node(id).core else {
                self.cluster.note(format!("{id} is down"));
                continue;
            };
            let status = core.status();
            let up: Vec<String> = status.up.iter().map(ToString::to_string).collect();
            let line = format!(
                "{id} sees {} writes={} hints={:?} batches={} has [{}]",
                up.join(" "),
                status.pending_writes,
                status.hints,
                status.batches,
                self.cluster.shown(id),
            );
            self.cluster.note(line);
        }
    }
}
