//! Several nodes on this machine, and who leads them.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use mangrove::base::{ClusterId, Index, NodeId};
use mangrove::client::{self, Client};
use mangrove::env::real::RealEnv;
use mangrove::trial::{LocalCluster, Signal};
use mangrove::wire::{MasterlessStatus, Status};
use tempfile::TempDir;

use crate::{Stranger, eventually, node, program};

/// Longest time to a leader, to a caught-up follower, to anything that a healthy cluster does by
/// itself; far above what it takes, because test machines are busy.
const LIMIT: Duration = Duration::from_secs(30);

/// A cluster of real processes on the loopback interface, gone when dropped.
///
/// Nodes are numbered from 1, as their ids are.
#[derive(Debug)]
pub struct RealCluster {
    local: LocalCluster,
    directory: TempDir,
}

impl RealCluster {
    /// Starts `count` nodes and waits until one of them leads.
    pub async fn start(count: usize) -> Self {
        let mut cluster = Self::prepare(count, &[]);
        for node in 1..=count {
            cluster.start_node(node);
        }
        cluster.wait_for_leader().await;
        cluster
    }

    /// Starts `count` nodes of the masterless mode, each with more arguments than that takes, and
    /// waits until all of them know each other.
    pub async fn start_masterless(count: usize, more_arguments: &[&str]) -> Self {
        let arguments = [&["--mode", "masterless"], more_arguments].concat();
        let mut cluster = Self::prepare(count, &arguments);
        for node in 1..=count {
            cluster.start_node(node);
        }
        for node in cluster.numbers() {
            let is_ready = |status: &MasterlessStatus| status.up.len() == count && status.is_whole;
            cluster.wait_for_masterless(node, "has compared with all nodes", is_ready).await;
        }
        cluster
    }

    /// Makes `count` nodes that are not running, each with more arguments than it needs.
    pub fn prepare(count: usize, more_arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let more: Vec<String> = more_arguments.iter().map(ToString::to_string).collect();
        let id = ClusterId(0x0123_4567_89ab_cdef);
        let local = LocalCluster::prepare(program(), directory.path(), count, id, &more);
        Self { local, directory }
    }

    /// Returns a new client that knows all nodes.
    pub fn client(&self) -> Client<RealEnv> {
        client::connect(self.addresses().iter().cloned())
    }

    /// Returns a new client that knows one node only.
    pub fn client_of(&self, node: usize) -> Client<RealEnv> {
        client::connect([self.address(node).to_owned()])
    }

    /// Returns the id of the cluster.
    pub fn id(&self) -> ClusterId {
        self.local.id()
    }

    /// Returns the addresses of all nodes, in the order of their ids.
    pub fn addresses(&self) -> &[String] {
        self.local.addresses()
    }

    /// Returns the address of one node.
    pub fn address(&self, node: usize) -> &str {
        self.addresses().get(node - 1).expect("the node exists")
    }

    /// Returns the data directory of one node.
    pub fn data(&self, node: usize) -> PathBuf {
        self.local.data(node)
    }

    /// Returns a directory for what else a test writes.
    pub fn scratch(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Returns the id of the process of a node that runs.
    pub fn process_id(&mut self, node: usize) -> u32 {
        self.local.node(node).process_id().expect("it is running")
    }

    /// Sends a signal to one node.
    pub fn signal(&mut self, node: usize, signal: Signal) {
        self.local.node(node).signal(signal).expect("the signal can be sent");
    }

    /// Asks one node to stop and returns how it ended.
    pub async fn stop(&mut self, node: usize) -> ExitStatus {
        node::stop(self.local.node(node)).await
    }

    /// Returns the numbers of all nodes.
    pub fn numbers(&self) -> impl Iterator<Item = usize> + use<> {
        self.local.numbers()
    }

    /// Starts one node; it is not ready yet when this returns.
    pub fn start_node(&mut self, node: usize) {
        self.local.node(node).start().expect("the program starts");
    }

    /// Kills one node as `kill -9` does.
    pub fn kill(&mut self, node: usize) {
        let ended = self.local.node(node).kill().expect("it can be killed");
        assert!(ended.is_none(), "node {node} had ended by itself: {ended:?}");
    }

    /// Kills one node and starts it again.
    pub fn restart(&mut self, node: usize) {
        self.kill(node);
        self.start_node(node);
    }

    /// Returns how a node is; `None` if it does not say.
    pub async fn status(&self, node: usize) -> Option<Status> {
        Stranger::status_of(self.address(node)).await
    }

    /// Waits until some running node leads and all running nodes agree on it; returns its number.
    pub async fn wait_for_leader(&mut self) -> usize {
        let running: Vec<usize> =
            self.numbers().filter(|node| self.local.node(*node).is_running()).collect();
        self.wait_for_leader_among(&running).await
    }

    /// Waits until one of these nodes leads and all of them agree on it; returns its number.
    pub async fn wait_for_leader_among(&self, nodes: &[usize]) -> usize {
        eventually(LIMIT, "the nodes agree on a leader", async || {
            let mut leaders = Vec::new();
            for node in nodes {
                let status = self.status(*node).await?;
                leaders.push((status.term, status.leader?));
            }
            let agreed = leaders.windows(2).all(|pair| pair.first() == pair.last());
            let (_, leader) = leaders.first()?;
            nodes.iter().copied().find(|node| agreed && is_node(*leader, *node))
        })
        .await
    }

    /// Waits until a node says that it has this role.
    pub async fn wait_for_role(&self, node: usize, role: &str) {
        eventually(LIMIT, &format!("node {node} is a {role}"), async || {
            let status = self.status(node).await?;
            (status.role == role).then_some(())
        })
        .await;
    }

    /// Waits until a node has applied everything up to `index`.
    pub async fn wait_for_applied(&self, node: usize, index: Index) {
        let what = format!("node {node} applies entry {index}");
        eventually(LIMIT, &what, async || {
            let status = self.status(node).await?;
            (status.applied_index >= index).then_some(())
        })
        .await;
    }

    /// Waits until a node of the masterless mode is as wanted.
    pub async fn wait_for_masterless(
        &self,
        node: usize,
        what: &str,
        is_wanted: impl Fn(&MasterlessStatus) -> bool,
    ) {
        eventually(LIMIT, &format!("node {node} {what}"), async || {
            let status = self.status(node).await?.masterless?;
            is_wanted(&status).then_some(())
        })
        .await;
    }

    /// Waits until all nodes of a masterless cluster have what was written before: nobody keeps a
    /// hint or a batch, and everybody has compared all with everybody since.
    pub async fn wait_until_converged(&self) {
        for node in self.numbers() {
            let is_settled = |status: &MasterlessStatus| {
                status.is_whole && status.hints.is_empty() && status.batch_count == 0
            };
            self.wait_for_masterless(node, "has nothing to deliver", is_settled).await;
        }
        // A comparison that was under way may have passed over what was delivered meanwhile.
        for _ in 0..2 {
            for node in self.numbers() {
                let before = self.status(node).await.and_then(|status| status.masterless);
                let before = before.expect("the node says how it is").sync_count;
                let peers = u64::try_from(self.numbers().count() - 1).expect("a small number");
                let is_compared = |status: &MasterlessStatus| status.sync_count >= before + peers;
                self.wait_for_masterless(node, "compares with all others", is_compared).await;
            }
        }
    }

    /// Waits until every node of the cluster has applied what the leader has applied now.
    pub async fn wait_until_caught_up(&mut self) {
        let leader = self.wait_for_leader().await;
        let status = self.status(leader).await.expect("a leader says how it is");
        for node in self.numbers() {
            self.wait_for_applied(node, status.applied_index).await;
        }
    }
}

impl Drop for RealCluster {
    #[expect(clippy::print_stderr, reason = "the logs are for the reader of a failed test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in self.numbers() {
                let tail = self.local.node(node).log_tail();
                eprintln!("---- end of the log of node {node} ----\n{tail}");
            }
        }
    }
}

fn is_node(id: NodeId, number: usize) -> bool {
    usize::try_from(id.0) == Ok(number)
}
