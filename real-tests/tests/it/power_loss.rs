//! Power loss of real processes: a node is killed, and everything that it had not synced is gone.
//!
//! A small library (`power/power.c`) is loaded into the nodes, which writes down what they make
//! durable; after the kill their directories are made anew from these notes. That is the worst
//! that a power cut may do: nothing unsynced survives, no byte and no name. Where there is no C
//! compiler the tests say so and pass.
//!
//! Other ways were looked at: the device-mapper targets `flakey` and `log-writes` are modules of
//! the kernel, which a sandbox does not have.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use mangrove::base::ClusterId;
use mangrove::client;
use mangrove::trial::LocalCluster;
use real_tests::{Load, block_on, eventually, program};

const ROUNDS: usize = 4;

/// Longest time for a load to get some writes through.
const LIMIT: Duration = Duration::from_mins(1);

/// Small logs and tables: every sync of a file is followed by a copy of it.
const ARGUMENTS: [&str; 6] =
    ["--wal-segment-bytes", "64KiB", "--flush-log-bytes", "64KiB", "--memtable-bytes", "64KiB"];

/// Builds the library; `None` where that is not possible.
#[expect(clippy::print_stdout, reason = "what was passed over is to be seen")]
fn library(directory: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("power/power.c");
    let library = directory.join("power.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(&source)
        .arg("-ldl")
        .output();
    match built {
        Ok(output) if output.status.success() => Some(library),
        Ok(output) => {
            println!("passed over: {}", String::from_utf8_lossy(&output.stderr));
            None
        }
        Err(error) => {
            println!("passed over: there is no C compiler: {error}");
            None
        }
    }
}

/// One node's directory, and what is durable of it.
struct Machine {
    root: PathBuf,
    notes: PathBuf,
}

impl Machine {
    /// Writes down that all that is in the directory is durable.
    fn note_all(&self) {
        fs::remove_dir_all(&self.notes).ok();
        fs::create_dir_all(&self.notes).expect("notes can be written");
        if self.root.exists() {
            self.note_directory(&self.root, "");
        }
    }

    fn note_directory(&self, directory: &Path, inside: &str) {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory).expect("it is there") {
            let entry = entry.expect("it can be read");
            let name = entry.file_name().into_string().expect("our names are text");
            let metadata = entry.metadata().expect("it can be read");
            if metadata.is_dir() {
                names.push(format!("d {name}\n"));
                let inside = if inside.is_empty() { name } else { format!("{inside}%{name}") };
                self.note_directory(&entry.path(), &inside);
            } else {
                let born = metadata.created().expect("the file system knows when it was made");
                let born = born.duration_since(UNIX_EPOCH).expect("not so long ago");
                let (seconds, nanos) = (born.as_secs(), born.subsec_nanos());
                let id = format!("{}-{seconds}.{nanos:09}", metadata.ino());
                let note = self.notes.join(format!("content-{id}"));
                fs::copy(entry.path(), note).expect("there is space");
                names.push(format!("f {id} {name}\n"));
            }
        }
        fs::write(self.notes.join(format!("names-{inside}")), names.concat())
            .expect("there is space");
    }

    /// Lets everything go that is in no note; returns how many bytes and names that were.
    fn lose_power(&self) -> (u64, usize) {
        let before = tree(&self.root);
        fs::remove_dir_all(&self.root).expect("it is there");
        fs::create_dir(&self.root).expect("there is space");
        self.restore("", &self.root);
        let after = tree(&self.root);
        let gone = before.keys().filter(|path| !after.contains_key(*path)).count();
        let sum = |files: &BTreeMap<PathBuf, u64>| files.values().sum::<u64>();
        self.note_all();
        (sum(&before).saturating_sub(sum(&after)), gone)
    }

    fn restore(&self, inside: &str, to: &Path) {
        let names = fs::read_to_string(self.notes.join(format!("names-{inside}")));
        for line in names.unwrap_or_default().lines() {
            let (kind, rest) = line.split_once(' ').expect("a kind and a name");
            if kind == "d" {
                fs::create_dir(to.join(rest)).expect("there is space");
                let inside =
                    if inside.is_empty() { rest.to_owned() } else { format!("{inside}%{rest}") };
                self.restore(&inside, &to.join(rest));
            } else {
                let (id, name) = rest.split_once(' ').expect("an id and a name");
                let content = fs::read(self.notes.join(format!("content-{id}")));
                // A name may be durable before any byte is.
                fs::write(to.join(name), content.unwrap_or_default()).expect("there is space");
            }
        }
    }
}

/// Returns the length of each file below a directory.
fn tree(directory: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("it is there") {
        let entry = entry.expect("it can be read");
        let metadata = entry.metadata().expect("it can be read");
        if metadata.is_dir() {
            found.append(&mut tree(&entry.path()));
        } else {
            found.insert(entry.path(), metadata.len());
        }
    }
    found
}

/// Lets the power of all nodes fail under load, again and again.
#[expect(clippy::print_stdout, reason = "what was lost is to be seen: --nocapture shows it")]
async fn every_promise_survives(node_count: usize, mode: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(library) = library(directory.path()) else { return };
    let machine = |node: usize| Machine {
        root: directory.path().join(format!("n{node}")),
        notes: directory.path().join(format!("notes{node}")),
    };
    let machines: Vec<Machine> = (1..=node_count).map(machine).collect();
    for machine in &machines {
        fs::create_dir(&machine.root).expect("there is space");
        machine.note_all();
    }
    // The nodes run through `env`, which becomes the node; each finds its own notes by its --data.
    let launcher = launcher(directory.path(), &library);
    let mut arguments: Vec<String> = ARGUMENTS.iter().map(ToString::to_string).collect();
    arguments.extend(["--mode".to_owned(), mode.to_owned()]);
    let id = ClusterId(77);
    let mut cluster =
        LocalCluster::prepare(&launcher, directory.path(), node_count, id, &arguments);
    let client = client::connect(cluster.addresses().iter().cloned());
    for round in 0..ROUNDS {
        cluster.start_all().expect("the nodes start");
        let load = Load::start(&client, 4);
        let enough = async || (load.acknowledged_count() >= 300).then_some(());
        eventually(LIMIT, "300 writes are acknowledged", enough).await;
        for node in cluster.numbers() {
            let ended = cluster.node(node).kill().expect("it can be killed");
            assert!(ended.is_none(), "{}", cluster.node(node).log_tail());
        }
        for (machine, node) in machines.iter().zip(1..) {
            let (bytes, names) = machine.lose_power();
            println!(
                "{mode}, round {round}, node {node}: {bytes} bytes and {names} names are gone"
            );
        }
        cluster.start_all().expect("the nodes start");
        let promises = load.stop().await;
        promises.check(&client).await;
        for node in cluster.numbers() {
            let ended = cluster.node(node).kill().expect("it can be killed");
            assert!(ended.is_none(), "{}", cluster.node(node).log_tail());
        }
    }
}

/// Writes a program that runs the real one with the library in it.
fn launcher(directory: &Path, library: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let launcher = directory.join("launch");
    let script = format!(
        "#!/bin/sh\nprevious=\nfor argument in \"$@\"; do\n  \
         [ \"$previous\" = --data ] && root=$argument\n  previous=$argument\ndone\n\
         number=${{root##*/n}}\n\
         export LD_PRELOAD='{}' POWER_ROOT=\"$root\" POWER_NOTES='{}'/notes\"$number\"\n\
         exec '{}' \"$@\"\n",
        library.display(),
        directory.display(),
        program().display()
    );
    fs::write(&launcher, script).expect("there is space");
    fs::set_permissions(&launcher, fs::Permissions::from_mode(0o755)).expect("it is ours");
    launcher
}

#[test]
fn node_alone_keeps_every_promise_through_power_loss() {
    block_on(every_promise_survives(1, "primary-backup"));
}

#[test]
fn primary_backup_cluster_keeps_every_promise_through_power_loss() {
    block_on(every_promise_survives(3, "primary-backup"));
}

#[test]
fn masterless_cluster_keeps_every_promise_through_power_loss() {
    block_on(every_promise_survives(3, "masterless"));
}
