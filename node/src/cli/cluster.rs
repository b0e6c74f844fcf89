//! `mangrove cluster`: a whole cluster on one machine, each node a process of its own.
//!
//! The nodes are this program, run as `mangrove serve`, so what is tried here is what runs
//! elsewhere. Each has a process group of its own and a pipe as its standard input: Ctrl-C
//! reaches this process alone, which then closes the pipes, and a node whose input ends stops in
//! good order. The same pipe sees to it that no node outlives this process, however it dies.
//!
//! # Left out
//! Starting a node again that died: somebody who tries things out wants to see that it did. The
//! command that does it is printed instead.

use std::env;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::process::{Child, ChildStdin, Command};

use super::args::{self, Cli, ClusterArgs, DEFAULT_CLUSTER};
use super::cluster_file::{BASE_PORT_DEFAULT, ClusterFile, NAME, NodeEntry, Wanted};
use super::output::{quoted, say};
use super::{CliError, stop_signal};
use crate::base::ClusterId;
use crate::client::{Client, ClientError, ClientOptions};
use crate::env::real::RealEnv;
use crate::env::{Env, First, race, timeout};

/// How long the nodes may take until one of them answers: recovery of a large log takes a while.
const START_LIMIT: Duration = Duration::from_mins(1);

/// How long a node may take to stop in good order.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Most of a log's end in which a node's last words are looked for: more than any complaint.
const LAST_WORDS_BYTES: u64 = 2048;

/// Variables that do not reach the nodes. What `cluster.toml` settles is told to them by flags, and
/// what it leaves to the defaults must not be settled behind its back.
const KEPT_BACK: [&str; 4] =
    ["MANGROVE_CONFIG", "MANGROVE_MODE", "MANGROVE_REPLICATION_FACTOR", "MANGROVE_PARTITIONS"];

/// How the complaints of this program begin: its own, and those about its command line.
const COMPLAINTS: [&str; 2] = ["mangrove: ", "error: "];

/// A node that runs.
struct NodeProcess {
    id: u64,
    address: String,
    log: PathBuf,
    /// Where in its log this life begins.
    log_start: u64,
    /// What to type to start it again alone, wherever that is typed.
    again: String,
    child: Child,
    /// Its standard input. Kept apart from `child`, which would close it when it is waited for.
    input: Option<ChildStdin>,
}

/// What ended a wait.
enum Event {
    /// The cluster answers, or says why it does not.
    Ready(Result<(), ClientError>),
    /// A node ended; the text says how.
    Died(String),
    /// Ctrl-C.
    Told,
}

/// `mangrove cluster`
pub(super) async fn cluster(args: ClusterArgs) -> Result<(), CliError> {
    check_serve_flags(&args)?;
    let env = RealEnv::client();
    let new_id = ClusterId(env.rng("cluster id").next_u64());
    let wanted = Wanted {
        nodes_count: args.nodes,
        base_port: args.base_port.unwrap_or(BASE_PORT_DEFAULT),
        mode: args.mode,
        replication_factor: args.replication_factor,
        partitions: args.partitions,
        repair: args.repair,
    };
    ClusterFile::check_founding(&args.data, wanted).await?;
    let (file, is_new) = ClusterFile::open(&args.data, wanted, new_id)?;
    if !is_new {
        file.check_ports()?;
        if let Some(port) = args.base_port.filter(|port| !file.begins_at(*port)) {
            say(&format!(
                "--base-port {port} is of new clusters: this one keeps the addresses in {}",
                args.data.join(NAME).display()
            ));
        }
    }
    let whose = if is_new { "a new cluster" } else { "the cluster" };
    say(&format!("starting {whose} of {} nodes in {}", file.nodes.len(), args.data.display()));
    let mut nodes = Vec::new();
    for entry in &file.nodes {
        nodes.push(start(&args, &file, entry)?);
    }
    let outcome = watch(&env, &args.data, &file, &mut nodes).await;
    let stopped = stop_all(&env, nodes).await;
    outcome.and(stopped)
}

/// Refuses flags that no node would take, before anything is made of the cluster: with them the
/// command line of a node must be one that runs a node.
fn check_serve_flags(args: &ClusterArgs) -> Result<(), CliError> {
    let wrong = |what: String| Err(CliError::Usage(format!("the flags after --: {what}")));
    // What the nodes are told is of this form, whatever the cluster is.
    let entry = NodeEntry { id: 1, address: "127.0.0.1:1".to_owned() };
    let file = ClusterFile {
        cluster_id: "1".to_owned(),
        mode: args.mode.map(|mode| mode.name().to_owned()),
        replication_factor: args.replication_factor,
        partitions: args.partitions,
        nodes: vec![entry.clone()],
    };
    let words = std::iter::once("mangrove".to_owned());
    let words = words.chain(serve_flags(args, &file, &entry, &args.data));
    // The nodes do not see this variable.
    let command = Cli::command().mut_subcommand("serve", |serve| {
        serve.mut_arg("config", |config| config.env(Resettable::Reset))
    });
    let parsed = command.try_get_matches_from(words);
    match parsed.and_then(|matches| Cli::from_arg_matches(&matches)).map(|cli| cli.command) {
        Ok(args::Command::Serve(serve)) if serve.check => {
            wrong("--check runs no node: use it with `mangrove serve`".to_owned())
        }
        Ok(_) => Ok(()),
        Err(error) => wrong(error.to_string()),
    }
}

/// Starts one node as a process.
fn start(
    args: &ClusterArgs,
    file: &ClusterFile,
    entry: &NodeEntry,
) -> Result<NodeProcess, CliError> {
    let NodeEntry { id, address } = entry;
    let (data, log) = (args.data.join(format!("n{id}")), args.data.join(format!("n{id}.log")));
    let failed = |error: std::io::Error| CliError::io(format!("cannot start n{id}"), &error);
    // Both its outputs go to its log, after what it said in earlier lives.
    let output = fs::OpenOptions::new().create(true).append(true).open(&log).map_err(failed)?;
    let log_start = output.metadata().map_err(failed)?.len();
    // Whoever starts it again may be in another folder: there the same relative path would be a new
    // directory, and an empty one is that of a node whose disk was lost.
    let data = std::path::absolute(data).map_err(failed)?;
    let flags = serve_flags(args, file, entry, &data);
    let words = std::iter::once(program()).chain(flags.iter().cloned());
    let again = words.map(quoted).collect::<Vec<_>>().join(" ");
    let mut command = Command::new(env::current_exe().map_err(failed)?);
    command
        .args(flags)
        .arg("--stop-with-input")
        .stdin(Stdio::piped())
        .stdout(output.try_clone().map_err(failed)?)
        .stderr(output)
        .kill_on_drop(true);
    for variable in KEPT_BACK {
        command.env_remove(variable);
    }
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    let input = child.stdin.take();
    Ok(NodeProcess { id: *id, address: address.clone(), log, log_start, again, child, input })
}

/// Returns the command `serve` and its flags for one node.
fn serve_flags(
    args: &ClusterArgs,
    file: &ClusterFile,
    entry: &NodeEntry,
    data: &Path,
) -> Vec<String> {
    let (id, data) = (entry.id.to_string(), data.display().to_string());
    let members = file.members();
    let own = [
        ["--cluster-id", &file.cluster_id],
        ["--node", &id],
        ["--listen", &entry.address],
        ["--members", &members],
        ["--data", &data],
    ];
    let repair = args.repair.iter().flat_map(|way| ["--repair", way.0.name()]);
    std::iter::once("serve")
        .chain(own.into_iter().flatten())
        .map(str::to_owned)
        .chain(file.replication_flags())
        .chain(repair.map(str::to_owned))
        .chain(args.serve_flags.iter().cloned())
        .collect()
}

/// Waits until the cluster serves, says how to use it, and then until it is to end.
async fn watch(
    env: &RealEnv,
    data: &Path,
    file: &ClusterFile,
    nodes: &mut [NodeProcess],
) -> Result<(), CliError> {
    let count = nodes.len();
    let mut deaths: FuturesUnordered<_> = nodes.iter_mut().map(death).collect();
    let mut stop = Box::pin(stop_signal());
    let mut ready = Some(Box::pin(first_answer(env, file)));
    let mut dead_count = 0;
    loop {
        match next_event(&mut ready, &mut deaths, &mut stop).await? {
            Event::Ready(Ok(())) => {
                ready = None;
                say(&welcome(data, file));
            }
            Event::Ready(Err(error)) => {
                let advice = format!("look into the logs of the nodes, {}/n*.log", data.display());
                return Err(CliError::from(error).advise(advice));
            }
            Event::Died(how) => {
                say(&how);
                dead_count += 1;
                if dead_count == count || ready.is_some() && dead_count * 2 >= count {
                    return Err(CliError::Failed(format!("{dead_count} of {count} nodes died")));
                }
            }
            Event::Told => {
                say("stopping the nodes");
                return Ok(());
            }
        }
    }
}

/// Waits for whatever happens first; of things that happened together, in this order.
async fn next_event<R, D, S>(
    ready: &mut Option<std::pin::Pin<Box<R>>>,
    deaths: &mut FuturesUnordered<D>,
    stop: &mut std::pin::Pin<Box<S>>,
) -> Result<Event, CliError>
where
    R: Future<Output = Result<(), ClientError>>,
    D: Future<Output = String>,
    S: Future<Output = Result<(), CliError>>,
{
    let death = async {
        match deaths.next().await {
            Some(how) => how,
            None => std::future::pending().await,
        }
    };
    let answer = async {
        match ready {
            Some(ready) => ready.await,
            None => std::future::pending().await,
        }
    };
    match race(stop.as_mut(), race(death, answer)).await {
        First::A(told) => told.map(|()| Event::Told),
        First::B(First::A(how)) => Ok(Event::Died(how)),
        First::B(First::B(answer)) => Ok(Event::Ready(answer)),
    }
}

/// Waits until a node ends; returns how it did, in words.
async fn death(node: &mut NodeProcess) -> String {
    let how = match node.child.wait().await {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    let NodeProcess { id, address, log, log_start, again, .. } = node;
    let mut said = vec![format!("n{id} ({address}) ended with {how}; its log: {}", log.display())];
    said.extend(last_words(log, *log_start).into_iter().map(|line| format!("  {line}")));
    said.push("to start it again alone, in another terminal (Ctrl-C there stops it):".to_owned());
    said.push(format!("  {again}"));
    said.join("\n")
}

/// Returns what a node said at last, of what is in its log from `start` on: its last complaint, up
/// to an empty line, else its last line. Nothing if that cannot be had.
fn last_words(path: &Path, start: u64) -> Vec<String> {
    let end = end_of(path, start).unwrap_or_default();
    let lines: Vec<&str> = end.lines().collect();
    let complains = |line: &&str| COMPLAINTS.iter().any(|complaint| line.starts_with(complaint));
    let last = || lines.iter().rposition(|line| !line.trim().is_empty());
    let Some(from) = lines.iter().rposition(complains).or_else(last) else { return Vec::new() };
    let said = lines.iter().skip(from).take_while(|line| !line.trim().is_empty());
    said.map(|line| (*line).to_owned()).collect()
}

/// Returns the end of a file, from `start` on at most.
fn end_of(path: &Path, start: u64) -> std::io::Result<String> {
    let mut file = fs::OpenOptions::new().read(true).open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(LAST_WORDS_BYTES).max(start)))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}

/// Asks until a node answers for the cluster.
async fn first_answer(env: &RealEnv, file: &ClusterFile) -> Result<(), ClientError> {
    let options = ClientOptions { request_timeout: START_LIMIT, ..ClientOptions::default() };
    let addresses = file.nodes.iter().map(|node| node.address.clone()).collect();
    Client::connect(env.clone(), addresses, options).get("").await.map(|_cell| ())
}

/// Says what runs where, and how to use it.
fn welcome(data: &Path, file: &ClusterFile) -> String {
    let (program, addresses) = (quoted(program()), file.addresses());
    let cluster = if addresses == DEFAULT_CLUSTER {
        String::new()
    } else {
        format!(" --cluster {addresses}")
    };
    let mode = file.mode.as_ref().map(|mode| format!(", {mode}")).unwrap_or_default();
    let mut lines = vec![format!("the cluster serves (id {}{mode}):", file.cluster_id)];
    for NodeEntry { id, address } in &file.nodes {
        let data = data.display();
        lines.push(format!("  n{id}  {address}  data {data}/n{id}  log {data}/n{id}.log"));
    }
    lines.push("try, in another terminal:".to_owned());
    for command in ["status", "set greeting hello", "get greeting", "--help"] {
        let cluster = if command == "--help" { "" } else { &cluster };
        lines.push(format!("  {program} {command}{cluster}"));
    }
    lines.push("Ctrl-C stops all nodes; the same command starts them again".to_owned());
    lines.join("\n")
}

/// Returns what to type to run this program again, in whatever folder.
fn program() -> String {
    let exe = env::current_exe().unwrap_or_else(|_| PathBuf::from("mangrove"));
    exe.display().to_string()
}

/// Stops every node that still runs: in good order if it does so in time, else at once.
async fn stop_all(env: &RealEnv, mut nodes: Vec<NodeProcess>) -> Result<(), CliError> {
    for node in &mut nodes {
        // The end of its input tells the node to stop.
        drop(node.input.take());
    }
    let mut late = Vec::new();
    for node in &mut nodes {
        if timeout(env, STOP_LIMIT, node.child.wait()).await.is_none() {
            late.push(format!("n{} (its log: {})", node.id, node.log.display()));
            node.child.kill().await.map_err(|error| CliError::io("cannot stop a node", &error))?;
        }
    }
    if late.is_empty() {
        return Ok(());
    }
    Err(CliError::Failed(format!("had to be killed after {STOP_LIMIT:?}: {}", late.join(", "))))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn file(addresses: &[&str]) -> ClusterFile {
        let nodes = addresses.iter().zip(1..);
        ClusterFile {
            cluster_id: "5e1f".to_owned(),
            mode: None,
            replication_factor: None,
            partitions: None,
            nodes: nodes
                .map(|(address, id)| NodeEntry { id, address: (*address).to_owned() })
                .collect(),
        }
    }

    #[test]
    fn welcome_gives_commands_that_reach_the_cluster() {
        let usual = file(&["127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"]);
        let said = welcome(Path::new("data"), &usual);
        assert!(said.contains(" set greeting hello\n"), "{said}");
        assert!(said.contains("n2  127.0.0.1:7102  data data/n2  log data/n2.log"), "{said}");
        let other = welcome(Path::new("data"), &file(&["127.0.0.1:9", "127.0.0.1:10"]));
        assert!(other.contains("get greeting --cluster 127.0.0.1:9,127.0.0.1:10\n"), "{other}");
    }

    #[test]
    fn last_words_of_a_node_are_its_complaint_or_its_last_line() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("n1.log");
        assert!(last_words(&log, 0).is_empty());
        fs::write(&log, "").unwrap();
        assert!(last_words(&log, 0).is_empty());
        fs::write(&log, format!("{}\nthe end\n\n", "x".repeat(9000))).unwrap();
        assert_eq!(last_words(&log, 0), ["the end"]);
        let earlier = "mangrove: what an earlier life ended with\n";
        let usage = "error: unexpected argument '--foo' found\n\nUsage: mangrove serve\n\nFor \
                     more information, try '--help'.\n";
        fs::write(&log, format!("{earlier}{usage}")).unwrap();
        let start = u64::try_from(earlier.len()).unwrap();
        assert_eq!(last_words(&log, start), ["error: unexpected argument '--foo' found"]);
        fs::write(&log, format!("{earlier}INFO it runs\n")).unwrap();
        assert_eq!(last_words(&log, start), ["INFO it runs"]);
        fs::write(&log, format!("{earlier}INFO\nmangrove: no room\nfree some\n")).unwrap();
        assert_eq!(last_words(&log, start), ["mangrove: no room", "free some"]);
    }

    fn cluster_args(words: &[&str]) -> ClusterArgs {
        let words = ["mangrove", "cluster"].into_iter().chain(words.iter().copied());
        let args::Command::Cluster(args) = Cli::try_parse_from(words).unwrap().command else {
            unreachable!()
        };
        args
    }

    #[test]
    fn flag_that_no_node_takes_is_refused_before_a_cluster_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("new").display().to_string();
        let args = cluster_args(&["--data", &data, "--", "--foo"]);
        let error = super::super::block_on(None, cluster(args)).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(error.to_string().contains("--foo"), "{error}");
        assert!(!Path::new(&data).exists(), "nothing is left behind");
        check_serve_flags(&cluster_args(&["--", "--sync", "interval:10"])).unwrap();
        check_serve_flags(&cluster_args(&["--", "--repair", "none"])).unwrap();
        for (words, named) in [
            (&["--", "--mode", "masterless"][..], "--mode"),
            (&["--", "--node", "7"], "--node"),
            (&["--", "--data", "z"], "--data"),
            (&["--", "--check"], "--check"),
            (&["--", "--sync", "foo"], "foo"),
            (&["--repair", "none", "--", "--repair", "both"], "--repair"),
        ] {
            let error = check_serve_flags(&cluster_args(words)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
            assert!(error.to_string().contains(named), "{words:?}: {error}");
        }
    }

    #[test]
    fn command_of_a_node_names_the_mode() {
        let (args, file) = (cluster_args(&[]), file(&["127.0.0.1:9"]));
        let flags = serve_flags(&args, &file, &file.nodes[0], Path::new("d"));
        assert!(flags.windows(2).any(|pair| pair == ["--mode", "primary-backup"]), "{flags:?}");
    }

    #[test]
    fn what_to_type_works_in_any_folder() {
        assert!(Path::new(&program()).is_absolute(), "{}", program());
    }

    #[test]
    fn default_cluster_is_what_the_default_flags_make() {
        let addresses = DEFAULT_CLUSTER.split(',').collect::<Vec<_>>();
        assert_eq!(file(&addresses).addresses(), DEFAULT_CLUSTER);
        assert_eq!(addresses, ["127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"]);
    }
}
