//! One node as a process of its own: started, paused, killed and started again on the same data.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// Lines of a log that are shown to people.
const LOG_LINES_SHOWN: usize = 60;

/// A signal that is sent by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ask to stop.
    Terminate,
    /// Freeze, as a long pause of the machine does.
    Pause,
    /// Go on after a [`Pause`](Self::Pause).
    Resume,
}

/// A node that can be started, killed and started again on the same data. It dies with its owner.
#[derive(Debug)]
pub struct NodeProcess {
    command: Vec<String>,
    log: PathBuf,
    running: Option<Child>,
}

impl NodeProcess {
    /// Makes a node that is not running yet: the program and its arguments, and the file that its
    /// output is appended to.
    pub fn new(command: Vec<String>, log: &Path) -> Self {
        Self { command, log: log.to_owned(), running: None }
    }

    /// Starts the process. It is not ready yet when this returns.
    ///
    /// # Errors
    /// The program cannot be started, or the log not be written.
    ///
    /// # Panics
    /// If it runs already, or there is no program.
    pub fn start(&mut self) -> io::Result<()> {
        assert!(self.running.is_none(), "{:?} is running already", self.command);
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let errors = log.try_clone()?;
        let Some((program, arguments)) = self.command.split_first() else {
            unreachable!("a node without a program, with the log {}", self.log.display())
        };
        let mut command = Command::new(program);
        // The pipe ends when this process does, which a node can be told to stop at.
        command.args(arguments).stdin(Stdio::piped()).stdout(log).stderr(errors);
        // Ctrl-C is for whoever started the nodes, not for them.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        self.running = Some(command.spawn()?);
        Ok(())
    }

    /// Kills the process as `kill -9` does, and waits until it is gone. Returns how it had ended if
    /// it was dead already.
    ///
    /// # Errors
    /// The system refuses.
    ///
    /// # Panics
    /// If it was not started.
    pub fn kill(&mut self) -> io::Result<Option<ExitStatus>> {
        let Some(mut child) = self.running.take() else {
            unreachable!("{:?} is not running", self.command)
        };
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        child.kill()?;
        child.wait()?;
        Ok(None)
    }

    /// Returns how the process ended, if it has; from then on it counts as not started.
    ///
    /// # Errors
    /// The system refuses.
    pub fn try_ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.running else { return Ok(None) };
        let ended = child.try_wait()?;
        if ended.is_some() {
            self.running = None;
        }
        Ok(ended)
    }

    /// Tells whether the process was started and has not ended.
    pub fn is_running(&mut self) -> bool {
        let running = self.running.as_mut();
        running.is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_none()))
    }

    /// Sends a signal to a process that runs.
    ///
    /// # Errors
    /// It does not run, or there is no program named `kill`.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let name = match signal {
            Signal::Terminate => "-TERM",
            Signal::Pause => "-STOP",
            Signal::Resume => "-CONT",
        };
        let process =
            self.process_id().ok_or_else(|| io::Error::other("the node is not running"))?;
        let status = Command::new("kill").arg(name).arg(process.to_string()).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("kill {name} failed"))) }
    }

    /// Returns the id of the process, if it was started.
    pub fn process_id(&self) -> Option<u32> {
        self.running.as_ref().map(Child::id)
    }

    /// Returns everything that the node has logged.
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
