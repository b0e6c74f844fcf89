//! One node as a process of its own: started, paused, killed and started again on the same data.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// How the variables begin that this program is told things by, and those of them that a node of a
/// trial may see: how it logs changes nothing that is tried.
const OUR_VARIABLES: &str = "MANGROVE_";
const LOG_VARIABLES: [&str; 2] = ["MANGROVE_LOG", "MANGROVE_LOG_FORMAT"];

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
///
/// Its arguments alone say what it is: of the variables that configure a node it sees none, so that
/// a trial does not judge another mode, or another promise, than it believes to run.
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
        for (variable, _) in std::env::vars_os() {
            let configures = variable.to_str().is_some_and(|variable| {
                variable.starts_with(OUR_VARIABLES) && !LOG_VARIABLES.contains(&variable)
            });
            if configures {
                command.env_remove(&variable);
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The process runs itself once more, because variables cannot be set safely in a process.
    #[test]
    fn node_sees_no_variable_that_would_configure_it() {
        const DIRECTORY: &str = "MANGROVE_TEST_ENVIRONMENT_OF";
        if let Some(directory) = std::env::var_os(DIRECTORY) {
            let log = Path::new(&directory).join("log");
            let mut process = NodeProcess::new(vec!["env".to_owned()], &log);
            process.start().unwrap();
            while process.is_running() {
                std::thread::yield_now();
            }
            let seen = process.log();
            let ours: Vec<&str> = seen.lines().filter(|line| line.contains("MANGROVE")).collect();
            assert_eq!(ours, ["MANGROVE_LOG=debug"], "of {seen}");
            assert!(seen.contains("PATH="), "the rest is left as it is: {seen}");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let name = "trial::process::tests::node_sees_no_variable_that_would_configure_it";
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(DIRECTORY, directory.path())
            .envs([("MANGROVE_MODE", "masterless"), ("MANGROVE_SYNC", "interval:9")])
            .env("MANGROVE_LOG", "debug")
            .env_remove("MANGROVE_LOG_FORMAT")
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"), "the child ran it");
    }
}
