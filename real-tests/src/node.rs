//! One node: a process, its data directory and its log.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::{eventually, program};

/// Longest time that a node may take to stop when asked politely.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Lines of a log that are shown when a test fails.
const LOG_LINES_SHOWN: usize = 60;

/// A signal that a test sends by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ask to stop.
    Terminate,
    /// Freeze, as a long pause of the machine does.
    Pause,
    /// Go on after a [`Pause`](Self::Pause).
    Resume,
}

/// A node that can be started, killed and started again on the same data.
#[derive(Debug)]
pub struct NodeProcess {
    arguments: Vec<String>,
    log: PathBuf,
    running: Option<Child>,
}

impl NodeProcess {
    /// Makes a node that is not running yet; its output is appended to the file `log`.
    pub fn new(arguments: Vec<String>, log: &Path) -> Self {
        Self { arguments, log: log.to_owned(), running: None }
    }

    /// Starts the process. It is not ready yet when this returns.
    pub fn start(&mut self) {
        assert!(self.running.is_none(), "{:?} is running already", self.arguments);
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.expect("the log can be written");
        let errors = log.try_clone().expect("the log can be written");
        let child = Command::new(program())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .expect("the program starts");
        self.running = Some(child);
    }

    /// Kills the process as `kill -9` does, and waits until it is gone.
    pub fn kill(&mut self) {
        let mut child = self.running.take().expect("it is running");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// Asks the process to stop and returns how it ended.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::Terminate);
        self.ended(STOP_LIMIT).await
    }

    /// Waits until the process has ended by itself and returns how.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let child = self.running.as_mut().expect("it is running");
        let wait = async || child.try_wait().expect("it can be waited for");
        let status = eventually(limit, "the process ends", wait).await;
        self.running = None;
        status
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let child = self.running.as_ref().expect("it is running");
        let name = match signal {
            Signal::Terminate => "-TERM",
            Signal::Pause => "-STOP",
            Signal::Resume => "-CONT",
        };
        let sent = Command::new("kill").arg(name).arg(child.id().to_string()).status();
        assert!(sent.expect("kill starts").success(), "{signal:?} cannot be sent");
    }

    /// Returns the id of the process.
    pub fn process_id(&self) -> u32 {
        self.running.as_ref().expect("it is running").id()
    }

    /// Tells whether the process was started and has not ended.
    pub fn is_running(&mut self) -> bool {
        let running = self.running.as_mut();
        running.is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_none()))
    }

    /// Returns everything the node has logged.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Returns the end of the log, for people.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let skipped = lines.len().saturating_sub(LOG_LINES_SHOWN);
        lines.into_iter().skip(skipped).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if let Some(child) = &mut self.running {
            // It may have ended by itself; either way nothing is left behind.
            child.kill().ok();
            child.wait().ok();
        }
    }
}
