//! Several nodes on this machine, each a process of its own.

use std::io;
use std::path::{Path, PathBuf};

use super::{NodeProcess, free_address};
use crate::base::ClusterId;

/// Nodes of one cluster on the loopback interface; they die with this value.
///
/// Nodes are numbered from 1, as their ids are.
#[derive(Debug)]
pub struct LocalCluster {
    nodes: Vec<NodeProcess>,
    addresses: Vec<String>,
    id: ClusterId,
    directory: PathBuf,
}

impl LocalCluster {
    /// Makes `count` nodes that are not running, each with more arguments than it needs. Their
    /// data and their logs go to `directory`.
    pub fn prepare(
        program: &Path,
        directory: &Path,
        count: usize,
        id: ClusterId,
        more_arguments: &[String],
    ) -> Self {
        let addresses: Vec<String> = (0..count).map(|_| free_address()).collect();
        let members: Vec<String> = (1..)
            .zip(&addresses)
            .map(|(node, address): (usize, _)| format!("{node}={address}"))
            .collect();
        let mut nodes = Vec::new();
        for (node, address) in (1_usize..).zip(&addresses) {
            let mut command = vec![program.display().to_string(), "serve".to_owned()];
            for (flag, value) in [
                ("--node", node.to_string()),
                ("--listen", address.clone()),
                ("--cluster-id", id.to_string()),
                ("--members", members.join(",")),
                ("--data", data_of(directory, node).display().to_string()),
            ] {
                command.push(flag.to_owned());
                command.push(value);
            }
            command.push("--stop-with-input".to_owned());
            command.extend_from_slice(more_arguments);
            nodes.push(NodeProcess::new(command, &directory.join(format!("n{node}.log"))));
        }
        Self { nodes, addresses, id, directory: directory.to_owned() }
    }

    /// Returns the id of the cluster.
    pub fn id(&self) -> ClusterId {
        self.id
    }

    /// Returns the addresses of all nodes, in the order of their ids.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Returns where everything is kept.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the data directory of one node.
    pub fn data(&self, node: usize) -> PathBuf {
        data_of(&self.directory, node)
    }

    /// Returns the numbers of all nodes.
    pub fn numbers(&self) -> impl Iterator<Item = usize> + use<> {
        1..=self.nodes.len()
    }

    /// Returns the process of one node.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn node(&mut self, node: usize) -> &mut NodeProcess {
        let count = self.nodes.len();
        let Some(process) = node.checked_sub(1).and_then(|at| self.nodes.get_mut(at)) else {
            unreachable!("node {node} of {count}")
        };
        process
    }

    /// Starts every node that does not run.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start_all(&mut self) -> io::Result<()> {
        for node in self.numbers() {
            if self.node(node).process_id().is_none() {
                self.node(node).start()?;
            }
        }
        Ok(())
    }

    /// Returns the ids of all processes that were started.
    pub fn process_ids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(NodeProcess::process_id).collect()
    }
}

fn data_of(directory: &Path, node: usize) -> PathBuf {
    directory.join(format!("n{node}"))
}
