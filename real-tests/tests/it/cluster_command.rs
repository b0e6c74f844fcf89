//! `mangrove cluster`, the first command that anybody tries: it serves, reports a node that dies,
//! and the command that it prints brings that node back beside the others.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use real_tests::{Running, block_on, eventually, program, run_program};

/// How long anything may take that is waited for.
const LIMIT: Duration = Duration::from_mins(1);

/// A cluster that the command runs, and what it says.
struct Cluster {
    process: Running,
    said: Receiver<String>,
}

impl Cluster {
    /// Starts a cluster in a folder, under which it is to keep its data.
    fn start(folder: &Path, data: &str) -> Self {
        let mut child = Command::new(program())
            .args(["cluster", "--data", data])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let (to, said) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| to.send(line)));
        Self { process: Running(child), said }
    }

    /// Returns the next line that contains a text.
    #[track_caller]
    fn says(&self, text: &str) -> String {
        loop {
            let line = self.said.recv_timeout(LIMIT);
            let line = line.unwrap_or_else(|error| panic!("{error} before it says {text:?}"));
            if line.contains(text) {
                return line;
            }
        }
    }
}

/// Returns the process whose command line has this word.
fn process_with(word: &str) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let mut numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.find(|number: &u32| {
        let line = std::fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())
    })
}

fn kill(signal: &str, process: u32) {
    let status = Command::new("kill").arg(signal).arg(process.to_string()).status();
    assert!(status.expect("kill starts").success(), "{process} cannot be told {signal}");
}

#[test]
fn node_that_dies_is_reported_with_the_command_that_brings_it_back() {
    let folder = tempfile::tempdir().expect("a folder");
    // What is printed names its folder as the system does.
    let path = folder.path().canonicalize().expect("it is there");
    let data = path.join("data");
    let mut cluster = Cluster::start(&path, "./data");
    // Its ports are others if the usual ones are taken, so they are read off what it says to try.
    let set = cluster.says(" set greeting hello");
    let words: Vec<&str> = set.split_whitespace().skip(1).collect();
    let with_cluster = |command: &str| -> Output {
        let own = command.split(' ').chain(words.iter().skip(3).copied());
        run_program(&own.collect::<Vec<_>>(), b"")
    };
    assert!(run_program(&words, b"").status.success(), "{set}");

    let of_node = data.join("n2").display().to_string();
    kill("-KILL", process_with(&of_node).expect("node 2 runs"));
    cluster.says("n2 ");
    cluster.says("to start it again alone");
    let again = cluster.says(" serve ");
    assert!(with_cluster("get greeting").status.success(), "the others do not serve");

    // Another terminal is seldom in the same folder, and an empty one there would be a lost disk.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let mut words = again.split_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    command.current_dir(elsewhere.path());
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _node = Running(command.spawn().expect("the printed command starts"));
    block_on(eventually(LIMIT, "all three are up", async || {
        let status = with_cluster("status --output raw");
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        (text.lines().count() == 3 && !text.contains("unreachable")).then_some(())
    }));
    let made = std::fs::read_dir(elsewhere.path()).expect("it is there").count();
    assert_eq!(made, 0, "the node keeps its data where it did");

    kill("-INT", cluster.process.0.id());
    let status = cluster.process.0.wait().expect("it ends");
    assert!(status.success(), "it ended with {status}");
}
