//! Kills under load: some tasks write and remember what they were promised, another kills nodes,
//! and when the nodes are back everything that was promised must be there.
//!
//! A *round* is one disturbance: writers write; one node, a majority or all are killed with
//! SIGKILL at a moment drawn from the seed, stay down for a while, and are started again, some of
//! them to be killed once more while they recover. When the cluster serves again, each node must
//! take part again, too (`service`). Then every cell that was ever written is read back (`ledger`
//! says what must be found). A *life* is some rounds on one cluster in a fresh
//! directory; lives differ in how large logs and tables may grow, how many threads a node has, and
//! whether its nodes lose what they write to their tables.
//!
//! # Variants
//! One node alone; three nodes in the primary-backup mode; three in the masterless mode, written
//! and read at the level `quorum` through all nodes in turn.
//!
//! # Left out
//! Whether two clients agree on an order: every cell has one writer. That is what the simulation's
//! linearizability checker is for.

mod ledger;
mod nemesis;
mod report;
mod service;
mod writer;

use std::cell::Cell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::{join, join_all};

use self::nemesis::Disturbance;
use self::service::serving;
use self::writer::{LOSS_PROBABILITY, Writer};
use super::LocalCluster;
use crate::base::{ClusterId, Rng};
use crate::client::{Client, ClientError, ClientOptions};
use crate::env::Env;
use crate::env::real::RealEnv;
use crate::wire::Status;

pub use self::ledger::Wrong;
pub use self::report::{Report, Tally, VariantReport, Violation};

/// Rounds of one life.
const LIFE_ROUNDS: u32 = 20;

/// Writers at a time.
const WRITERS: usize = 4;

/// Nodes of the variants that replicate.
const NODES: usize = 3;

/// Longest time until the nodes serve after a disturbance, and until half of a bulk write becomes
/// a whole one in the masterless mode. Far above what it takes: machines are busy.
const RECOVERY_LIMIT: Duration = Duration::from_mins(1);

/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// One node of the primary-backup mode.
    Single,
    /// Three nodes, one of which leads.
    PrimaryBackup,
    /// Three nodes without a leader.
    Masterless,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Single, Self::PrimaryBackup, Self::Masterless];

    /// Returns what it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::PrimaryBackup => "primary-backup",
            Self::Masterless => "masterless",
        }
    }

    /// Returns how its nodes replicate, as they say it themselves.
    fn mode(self) -> &'static str {
        match self {
            Self::Single | Self::PrimaryBackup => "primary-backup",
            Self::Masterless => "masterless",
        }
    }

    fn node_count(self) -> usize {
        match self {
            Self::Single => 1,
            Self::PrimaryBackup | Self::Masterless => NODES,
        }
    }
}

/// What to try, how often.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program that the nodes run.
    pub program: PathBuf,
    /// Where directories of the nodes are made, and removed unless something is wrong.
    pub directory: PathBuf,
    /// Which variants, in turn.
    pub variants: Vec<Variant>,
    /// Rounds of all variants together.
    pub rounds: u32,
    /// What is random follows from it.
    pub seed: u64,
}

/// The trial itself could not go on.
#[derive(Debug, thiserror::Error)]
pub enum CrashError {
    /// A node cannot be started, or a directory not be made.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The nodes do not serve.
    #[error(
        "round {round} of {variant:?} (seed {seed}): the nodes in {directory} do not serve again \
         within {RECOVERY_LIMIT:?}: {source}"
    )]
    NotServing {
        /// Which round, over all.
        round: u32,
        /// Of what.
        variant: Variant,
        /// The seed of the run.
        seed: u64,
        /// Where their data and logs are.
        directory: String,
        /// What the client said.
        source: Box<ClientError>,
    },
    /// The cluster serves, but one of its nodes does not take part again.
    #[error(
        "round {round} of {variant:?} (seed {seed}): node {node} is not in service again within \
         {RECOVERY_LIMIT:?}: {lacks}; the end of its log, of which the whole is in {directory}:\n\
         {log}"
    )]
    NotInService {
        /// Which round, over all.
        round: u32,
        /// Of what.
        variant: Variant,
        /// The seed of the run.
        seed: u64,
        /// Which node.
        node: usize,
        /// What it lacks.
        lacks: String,
        /// Where its data and log are.
        directory: String,
        /// The end of its log.
        log: String,
    },
    /// A node replicates in another way than it was told.
    #[error("round {round}: node {node} says that it is {mode}, and {variant:?} is to be tried")]
    OtherMode {
        /// Which round, over all.
        round: u32,
        /// What is tried.
        variant: Variant,
        /// Which node.
        node: u64,
        /// What it says.
        mode: String,
    },
    /// A node ended though nobody had killed it.
    #[error(
        "round {round} (seed {seed}): node {node} ended by itself with {status}; the end of its \
         log, of which the whole is in {directory}:\n{log}"
    )]
    NodeDied {
        /// Which round, over all.
        round: u32,
        /// The seed of the run.
        seed: u64,
        /// Which node.
        node: usize,
        /// How it ended.
        status: String,
        /// Where its data and log are.
        directory: String,
        /// The end of its log.
        log: String,
    },
}

impl CrashError {
    fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// Runs the trial; `on_round` hears how far it is after each round. It ends early when a promise
/// was broken: the directory of the nodes is then left as it is.
///
/// # Errors
/// See [`CrashError`].
pub async fn run(
    options: &Options,
    mut on_round: impl FnMut(&Report),
) -> Result<Report, CrashError> {
    let mut report = Report::new(options.seed, &options.variants);
    let variant_count = u32::try_from(options.variants.len()).unwrap_or(1).max(1);
    let mut left: Vec<(Variant, u32, u32)> = Vec::new();
    for (at, variant) in (0..).zip(&options.variants) {
        let rounds = options.rounds / variant_count;
        let rounds = rounds + u32::from(at < options.rounds % variant_count);
        // Two lives at least: one with losses of tables and one without.
        left.push((*variant, rounds, LIFE_ROUNDS.min(rounds.div_ceil(2))));
    }
    for number in 0_u32.. {
        let lives: Vec<_> = left.iter_mut().filter(|(_, rounds, _)| *rounds > 0).collect();
        if lives.is_empty() {
            break;
        }
        for (variant, rounds, life_rounds) in lives {
            let count = (*life_rounds).min(*rounds);
            let mut life = Life::begin(options, *variant, number)?;
            for _ in 0..count {
                let is_kept = life.round(&mut report).await?;
                on_round(&report);
                if !is_kept {
                    report.kept_directory = Some(life.directory.display().to_string());
                    return Ok(report);
                }
            }
            life.end(report.rounds())?;
            *rounds -= count;
        }
    }
    Ok(report)
}

/// One cluster in a directory of its own.
struct Life {
    variant: Variant,
    seed: u64,
    cluster: LocalCluster,
    writers: Vec<Writer>,
    rng: Rng,
    env: RealEnv,
    probe: Client<RealEnv>,
    directory: PathBuf,
    with_losses: bool,
}

impl Life {
    fn begin(options: &Options, variant: Variant, number: u32) -> Result<Self, CrashError> {
        let purpose = format!("{}.{number}", variant.name());
        let rng = Rng::new(options.seed).split(&purpose);
        let directory = options.directory.join(&purpose);
        fs::create_dir_all(&directory).map_err(CrashError::io("make a directory"))?;
        let with_losses = number % 2 == 1;
        let arguments = node_arguments(variant, with_losses, &mut rng.split("arguments"));
        let id = ClusterId(rng.split("id").next_u64());
        let count = variant.node_count();
        let mut cluster =
            LocalCluster::prepare(&options.program, &directory, count, id, &arguments);
        cluster.start_all().map_err(CrashError::io("start a node"))?;
        let env = RealEnv::client();
        let patient = ClientOptions { request_timeout: RECOVERY_LIMIT, ..writer_options() };
        let writers = (0..WRITERS).map(|writer| {
            // Each asks another node first.
            let mut addresses = cluster.addresses().to_vec();
            addresses.rotate_left(writer % count);
            let clients = [writer_options(), patient.clone()]
                .map(|options| Client::connect(env.clone(), addresses.clone(), options));
            let name = format!("w{writer}");
            let rng = rng.split(&name);
            Writer::new(name, clients, rng, with_losses)
        });
        let writers = writers.collect();
        let seed = options.seed;
        let probe = Client::connect(env.clone(), cluster.addresses().to_vec(), patient);
        Ok(Self { variant, seed, cluster, writers, rng, env, probe, directory, with_losses })
    }

    /// Writes, disturbs, and reads everything back. Tells whether all promises were kept.
    async fn round(&mut self, report: &mut Report) -> Result<bool, CrashError> {
        let place = Place { variant: self.variant, round: report.rounds() + 1, seed: self.seed };
        self.wait_until_serving(place).await?;
        if self.with_losses {
            let tally = report.of(self.variant);
            tally.loss_requests += self.ask_for_losses(place).await?;
        }
        let disturbance = Disturbance::draw(&mut self.rng, self.cluster.numbers().count());
        let stop = Cell::new(false);
        let Self { cluster, writers, env, probe, .. } = self;
        let disturbed = async {
            let disturbed = disturbance.carry_out(env, cluster, place).await;
            let served = match &disturbed {
                Ok(()) => serving(env, probe, cluster, place).await,
                Err(_) => Ok(()),
            };
            // The nodes are back: some writes more, then all is compared.
            env.sleep(disturbance.tail).await;
            stop.set(true);
            disturbed.and(served)
        };
        let writing = join_all(writers.iter_mut().map(|writer| writer.write_until(&stop)));
        let (disturbed, _) = join(disturbed, writing).await;
        disturbed?;
        let violations = self.check(place).await?;
        let tally = report.of(self.variant);
        tally.rounds += 1;
        disturbance.count_in(tally);
        for writer in &mut self.writers {
            tally.add(&std::mem::take(&mut writer.tally));
        }
        let is_kept = violations.is_empty();
        report.violations.extend(violations.into_iter().map(|violation| violation.at(place)));
        Ok(is_kept)
    }

    /// Reads everything back. What a masterless cluster has half applied may become whole by
    /// itself: that is waited for.
    async fn check(&mut self, place: Place) -> Result<Vec<Violation>, CrashError> {
        let begun = self.env.now();
        let mut seen = Vec::new();
        for writer in &mut self.writers {
            seen.append(&mut writer.violations);
        }
        loop {
            let mut wrong = Vec::new();
            for writer in &mut self.writers {
                let found = writer.check().await;
                wrong.extend(found.map_err(|error| place.not_serving(&self.directory, error))?);
            }
            let may_heal = self.variant == Variant::Masterless
                && !wrong.is_empty()
                && wrong.iter().all(|violation| violation.wrong == Wrong::HalfApplied);
            if !may_heal || self.env.now().since(begun) > RECOVERY_LIMIT {
                seen.append(&mut wrong);
                return Ok(seen);
            }
            self.env.sleep(LOOK_PAUSE).await;
        }
    }

    async fn wait_until_serving(&mut self, place: Place) -> Result<(), CrashError> {
        serving(&self.env, &self.probe, &mut self.cluster, place).await
    }

    /// Asks each node for the loss of what it writes to its tables from now on; returns how many
    /// answered. Writes alone do not reach a node that does not lead.
    async fn ask_for_losses(&self, place: Place) -> Result<u64, CrashError> {
        let mut count = 0;
        for address in self.cluster.addresses() {
            match self.probe.debug_table_loss_at(address, LOSS_PROBABILITY).await {
                Ok(()) => count += 1,
                Err(error @ ClientError::Invalid(_)) => {
                    return Err(place.not_serving(&self.directory, error));
                }
                // A node that does not answer now is looked at again after the disturbance.
                Err(_) => {}
            }
        }
        Ok(count)
    }

    /// Kills what runs, and removes what it has written; unless a node had ended by itself, of
    /// which all is kept. So many rounds are over.
    fn end(mut self, rounds: u32) -> Result<(), CrashError> {
        let place = Place { variant: self.variant, round: rounds, seed: self.seed };
        for node in self.cluster.numbers() {
            let ended = self.cluster.node(node).kill().map_err(CrashError::io("kill a node"))?;
            if let Some(status) = ended {
                return Err(place.node_died(&mut self.cluster, node, status));
            }
        }
        fs::remove_dir_all(&self.directory).map_err(CrashError::io("remove a directory"))
    }
}

/// Which round, for messages.
#[derive(Debug, Clone, Copy)]
struct Place {
    variant: Variant,
    round: u32,
    seed: u64,
}

impl Place {
    fn not_serving(self, directory: &Path, error: ClientError) -> CrashError {
        let Self { variant, round, seed } = self;
        let directory = directory.display().to_string();
        CrashError::NotServing { round, variant, seed, directory, source: Box::new(error) }
    }

    fn not_in_service(self, cluster: &mut LocalCluster, node: usize, lacks: String) -> CrashError {
        let Self { variant, round, seed } = self;
        let directory = cluster.directory().display().to_string();
        let log = cluster.node(node).log_tail();
        CrashError::NotInService { round, variant, seed, node, lacks, directory, log }
    }

    fn other_mode(self, status: &Status) -> CrashError {
        let (node, mode) = (status.node.0, status.mode.clone());
        CrashError::OtherMode { round: self.round, variant: self.variant, node, mode }
    }

    fn node_died(
        self,
        cluster: &mut LocalCluster,
        node: usize,
        status: std::process::ExitStatus,
    ) -> CrashError {
        CrashError::NodeDied {
            round: self.round,
            seed: self.seed,
            node,
            status: status.to_string(),
            directory: cluster.directory().display().to_string(),
            log: cluster.node(node).log_tail(),
        }
    }
}

/// Returns what the nodes of a life are told: how they replicate, and how soon they make tables.
fn node_arguments(variant: Variant, with_losses: bool, rng: &mut Rng) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut add = |flag: &str, value: &str| {
        arguments.push(flag.to_owned());
        arguments.push(value.to_owned());
    };
    add("--mode", variant.mode());
    if variant == Variant::Masterless {
        add("--partitions", "32");
    }
    // Small logs and tables, so that flushes, compactions and removals meet the kills, too.
    if with_losses || rng.chance(0.7) {
        let size = if rng.chance(0.5) { "64KiB" } else { "128KiB" };
        add("--wal-segment-bytes", size);
        add("--flush-log-bytes", size);
        add("--memtable-bytes", size);
    }
    if variant != Variant::Masterless && rng.chance(0.5) {
        // A node that was down for long needs a snapshot.
        add("--log-entries-kept", "50");
    }
    if rng.chance(0.3) {
        add("--threads", "2");
    }
    if with_losses {
        arguments.push("--debug-faults".to_owned());
    }
    arguments
}

/// Returns the options of clients that must not wait long for a node that is dead.
fn writer_options() -> ClientOptions {
    ClientOptions {
        connect_timeout: Duration::from_millis(500),
        try_timeout: Duration::from_secs(1),
        request_timeout: Duration::from_secs(4),
        ..ClientOptions::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_that_ended_by_itself_is_found_at_the_end_and_its_log_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options {
            program: "true".into(),
            directory: directory.path().to_owned(),
            variants: vec![Variant::Single],
            rounds: 1,
            seed: 1,
        };
        let mut life = Life::begin(&options, Variant::Single, 0).unwrap();
        while life.cluster.node(1).is_running() {
            std::thread::yield_now();
        }
        let kept = life.directory.clone();
        let error = life.end(7).unwrap_err();
        assert!(matches!(error, CrashError::NodeDied { round: 7, node: 1, .. }), "{error}");
        assert!(kept.join("n1.log").exists(), "the evidence is gone");
    }
}
