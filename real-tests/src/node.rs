//! One node: a process, its data directory and its log.

use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use mangrove::trial;

pub use mangrove::trial::Signal;

use crate::{eventually, program};

/// Longest time that a node may take to stop when asked politely.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A node that can be started, killed and started again on the same data; what the machine refuses
/// stops the test.
#[derive(Debug)]
pub struct NodeProcess(trial::NodeProcess);

impl NodeProcess {
    /// Makes a node that is not running yet; its output is appended to the file `log`.
    pub fn new(arguments: Vec<String>, log: &Path) -> Self {
        let mut command = vec![program().display().to_string()];
        command.extend(arguments);
        Self(trial::NodeProcess::new(command, log))
    }

    /// Starts the process. It is not ready yet when this returns.
    pub fn start(&mut self) {
        self.0.start().expect("the program starts");
    }

    /// Waits until the process has ended by itself and returns how.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        ended(&mut self.0, limit).await
    }

    /// Returns everything the node has logged.
    pub fn log(&self) -> String {
        self.0.log()
    }
}

/// Asks a process to stop and returns how it ended.
pub(crate) async fn stop(node: &mut trial::NodeProcess) -> ExitStatus {
    node.signal(Signal::Terminate).expect("the signal can be sent");
    ended(node, STOP_LIMIT).await
}

/// Waits until a process has ended by itself and returns how.
pub(crate) async fn ended(node: &mut trial::NodeProcess, limit: Duration) -> ExitStatus {
    let wait = async || node.try_ended().expect("it can be waited for");
    eventually(limit, "the process ends", wait).await
}
