//! What can be typed of the trials: commands that start nodes of their own, or put load on a
//! cluster.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::args::{ConnectionArgs, Format, LevelArgs};
use super::config::{ByteSize, parse_duration, parse_some_time};
use crate::base::limits::VALUE_BYTES_MAX;
use crate::trial::crash::Variant;
use crate::trial::load::{Distribution, Load};
use crate::wire::Level;

const CRASH_TEST_HELP: &str = "\
Examples:
  mangrove crash-test                                 # 30 rounds over all modes, in a minute
  mangrove crash-test --rounds 500 --seed 7           # eight minutes or more
  mangrove crash-test --mode masterless --data ./crash --output json

In each round clients write and note what was acknowledged, while one node, a majority or all of
them are killed with SIGKILL, stay down for a moment and are started again, some to be killed once
more while they recover. Each node must be in service again within a minute. Then everything is
read back: no acknowledged write may be missing or replaced by an older one, no bulk write half
applied, and nothing may be there that was refused.
In every other cluster the nodes also lose what they have written to their tables
(`set --debug-table-loss`), as in a power cut, and must have it from their logs.

The exit code is 0 if every promise was kept, 6 if one was not: then the directories of the nodes
are kept, and each broken promise is shown. A seed repeats what is drawn, but not the timing of the
machine.";

/// Arguments of `crash-test`.
#[derive(Debug, Clone, Args)]
#[command(after_help = CRASH_TEST_HELP)]
pub(super) struct CrashTestArgs {
    /// How many rounds, over all modes together.
    #[arg(
        long,
        value_name = "N",
        default_value = "30",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(super) rounds: u32,
    /// What to run: one node alone, three nodes of a mode, or all of that in turn.
    #[arg(long, value_name = "MODE", default_value = "all")]
    pub(super) mode: VariantArg,
    /// What is random follows from it. [default: another one each time]
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
    /// Where the nodes keep their data meanwhile; best on a real disk. [default: a new directory
    /// among the temporary ones of the system]
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// Form of the verdict. raw: as table.
    #[arg(long, short, env = "MANGROVE_OUTPUT", default_value = "table")]
    pub(super) output: Format,
}

/// What a trial runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum VariantArg {
    /// One node.
    Single,
    /// Three nodes, one of which leads.
    PrimaryBackup,
    /// Three nodes without a leader.
    Masterless,
    /// All of them in turn.
    All,
}

impl VariantArg {
    /// Returns what is to be run.
    pub(super) fn variants(self) -> Vec<Variant> {
        match self {
            Self::Single => vec![Variant::Single],
            Self::PrimaryBackup => vec![Variant::PrimaryBackup],
            Self::Masterless => vec![Variant::Masterless],
            Self::All => Variant::ALL.to_vec(),
        }
    }
}

const BENCH_HELP: &str = "\
Examples:
  mangrove bench                                      # 64 clients that write, for ten seconds
  mangrove bench --reads 0.95 --keys zipfian --fill   # most of it reads, of few keys most often
  mangrove bench --in-flight 16 --output json
  mangrove bench --rate 2000 --duration 60s           # 2,000 a second, however slow the answers are
  mangrove bench --cluster 10.0.0.1:7101,10.0.0.2:7101 --level one --reads 1

Without --rate every client sends its next request when it has the answer to the last one: that
finds the highest throughput. With --rate each request is due at its time, and its latency counts
from then, so what had to wait because the cluster was slow is in the figures. What could not be
sent before the time was over is not sent later: it is counted as never sent, though due.

Keys have 16 bytes, key:000000000000 and so on. They are overwritten, and stay.";

/// Arguments of `bench`.
#[derive(Debug, Clone, Args)]
#[command(after_help = BENCH_HELP)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    pub(super) load: LoadArgs,
    /// Write every key before the load begins, so that all reads find something.
    #[arg(long)]
    pub(super) fill: bool,
    /// Time before anything counts.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub(super) warm_up: Duration,
    /// Time that counts.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_some_time)]
    pub(super) duration: Duration,
    /// End after so many requests after the warm-up, even before the time is over. [default: the
    /// time alone ends it]
    #[arg(long, value_name = "N")]
    pub(super) requests: Option<u64>,
    /// Share of the requests that are reads, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = parse_share)]
    pub(super) reads: f64,
    /// Requests on each connection at a time, at most 65535. Of writes a primary-backup cluster
    /// takes 1024; the others wait.
    #[arg(
        long,
        value_name = "N",
        default_value = "1",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub(super) in_flight: u16,
    /// Requests due each second, over all connections. [default: each is due when the last one is
    /// answered]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) rate: Option<u32>,
    /// Form of the figures. raw: as table.
    #[arg(long, short, env = "MANGROVE_OUTPUT", default_value = "table")]
    pub(super) output: Format,
    #[command(flatten)]
    pub(super) level: LevelArgs,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

/// What a load is like, whoever it is put on.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Load")]
pub(super) struct LoadArgs {
    /// Connections, each of a client of its own.
    #[arg(
        long,
        value_name = "N",
        default_value = "64",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub(super) connections: u16,
    /// Which keys are asked for.
    #[arg(long, value_name = "KIND", default_value = "uniform")]
    pub(super) keys: KeysArg,
    /// Keys that the load draws from. Of `growth`: for sizes that have fewer cells.
    #[arg(
        long,
        value_name = "N",
        default_value = "1000000",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(super) key_count: u32,
    /// Bytes of a value, at most 1MiB.
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = parse_value_bytes)]
    pub(super) value_bytes: usize,
    /// What is random follows from it.
    #[arg(long, value_name = "N", default_value = "0")]
    pub(super) seed: u64,
}

impl LoadArgs {
    /// Returns the load that the arguments describe, as far as they do.
    pub(super) fn load(self) -> Load {
        Load {
            connections: usize::from(self.connections),
            distribution: match self.keys {
                KeysArg::Uniform => Distribution::Uniform,
                KeysArg::Zipfian => Distribution::Zipfian,
            },
            key_count: self.key_count,
            value_bytes: self.value_bytes,
            seed: self.seed,
            ..Load::default()
        }
    }
}

/// Which keys are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum KeysArg {
    /// Each as often as any other.
    Uniform,
    /// Few very often, most hardly ever.
    Zipfian,
}

/// What every command that measures clusters of its own asks for.
#[derive(Debug, Clone, Args)]
pub(super) struct MeasuringArgs {
    /// Where the stores keep their data meanwhile; best on a real disk. [default: a new directory
    /// among the temporary ones of the system]
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    #[command(flatten)]
    pub(super) load: LoadArgs,
    /// Form of the figures on standard output. raw: as table.
    #[arg(long, short, env = "MANGROVE_OUTPUT", default_value = "table")]
    pub(super) output: Format,
}

const COMPARE_HELP: &str = "\
Examples:
  mangrove compare                                    # both modes; writes mangrove-compare.html
  mangrove compare --peers                            # etcd and Redis, too, if they are installed
  mangrove compare --rounds 5 --seconds 5 --fill 1000000 --page figures.html --output json

Starts three clusters of three nodes on this machine: primary-backup, masterless asked at quorum,
masterless asked at one. Puts the same loads on each of them in turn, round by round: writes and
reads with one request in flight on each connection, writes with 16, and writes of a single client.
In the end, under a load of writes and reads, the node that leads (where none does: one of them) is
killed with SIGKILL and started again. Values have at least 8 bytes: those by which stale reads are
found. With --peers they have at most 8 KiB: what the client for etcd can send in one piece.

Prints medians over the rounds, and writes a page with the same figures and what happened through
the fault. The page needs nothing from the network. Do not use the machine for anything else
meanwhile: what counts are the ratios, and even they are of this machine.";

/// Arguments of `compare`.
#[derive(Debug, Clone, Args)]
#[command(after_help = COMPARE_HELP)]
pub(super) struct CompareArgs {
    /// Measure etcd (three members) and Redis (alone, and with two replicas), too.
    #[arg(long)]
    pub(super) peers: bool,
    /// How often each load is put on each store; medians count.
    #[arg(
        long,
        value_name = "N",
        default_value = "3",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(super) rounds: u32,
    /// Seconds of each load.
    #[arg(
        long,
        value_name = "N",
        default_value = "3",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(super) seconds: u32,
    /// How often the leader is killed; the median gap counts.
    #[arg(
        long,
        value_name = "N",
        default_value = "3",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(super) faults: u32,
    /// Write so many cells first.
    #[arg(long, value_name = "N", default_value = "0")]
    pub(super) fill: u32,
    /// Where to write the page.
    #[arg(long, value_name = "FILE", default_value = "mangrove-compare.html")]
    pub(super) page: PathBuf,
    #[command(flatten)]
    pub(super) measuring: MeasuringArgs,
}

const GROWTH_HELP: &str = "\
Examples:
  mangrove growth                                     # 0, 1 and 10 million cells; ten minutes
  mangrove growth --mode masterless --sizes 0,1000000 --rounds 5

Starts a cluster of three nodes on this machine for every size, writes so many cells to it in no
order, waits until its tables are merged, and puts writes and then reads on all clusters in turn.
Prints medians over the rounds, and what they are of those of the first size; the page has a plot.
Ten million cells take about 1.4 GB on each of the nodes.";

/// Arguments of `growth`.
#[derive(Debug, Clone, Args)]
#[command(after_help = GROWTH_HELP)]
pub(super) struct GrowthArgs {
    /// Which modes to measure, one after the other.
    #[arg(long, value_name = "MODE", default_value = "both")]
    pub(super) mode: GrowthModeArg,
    /// Cells that are there before; the first size is what the others are compared with.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "0,1000000,10000000")]
    pub(super) sizes: Vec<u32>,
    /// How often each load is put on each cluster; medians count.
    #[arg(
        long,
        value_name = "N",
        default_value = "5",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(super) rounds: u32,
    /// Seconds of each load.
    #[arg(
        long,
        value_name = "N",
        default_value = "5",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(super) seconds: u32,
    /// Where to write the page.
    #[arg(long, value_name = "FILE", default_value = "mangrove-growth.html")]
    pub(super) page: PathBuf,
    #[command(flatten)]
    pub(super) measuring: MeasuringArgs,
}

/// Modes that grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum GrowthModeArg {
    /// Three nodes, one of which leads.
    PrimaryBackup,
    /// Three nodes without a leader, asked at QUORUM.
    Masterless,
    /// One after the other.
    Both,
}

impl GrowthModeArg {
    /// Returns the level at which each mode is asked; none where one node leads.
    pub(super) fn levels(self) -> Vec<Option<Level>> {
        match self {
            Self::PrimaryBackup => vec![None],
            Self::Masterless => vec![Some(Level::Quorum)],
            Self::Both => vec![None, Some(Level::Quorum)],
        }
    }
}

/// Reads the length of a value.
fn parse_value_bytes(text: &str) -> Result<usize, String> {
    let ByteSize(bytes) = text.parse::<ByteSize>()?;
    let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= VALUE_BYTES_MAX);
    bytes.ok_or_else(|| format!("{text:?} is more than a value has: at most 1MiB"))
}

/// Reads a share or probability.
pub(super) fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        Ok(_) | Err(_) => Err(format!("{text:?} is not between 0 and 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_no_longer_than_a_value_may_be() {
        for (text, bytes) in [("0", 0), ("100", 100), ("4KiB", 4096), ("1MiB", 1 << 20)] {
            assert_eq!(parse_value_bytes(text), Ok(bytes));
        }
        for text in ["", "-1", "1MB", "1048577", "1GiB"] {
            assert!(parse_value_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn share_lies_between_none_and_all() {
        for (text, share) in [("0", 0.0), ("0.25", 0.25), ("1", 1.0)] {
            assert_eq!(parse_share(text), Ok(share));
        }
        for text in ["-0.1", "1.1", "NaN", "half", ""] {
            assert!(parse_share(text).is_err(), "{text}");
        }
    }
}
