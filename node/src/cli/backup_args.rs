//! What can be typed of backup and repair: `snapshot`, `store` and `wal`.

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand};

use super::args::{ConnectionArgs, Format};
use super::config::Settings;
use crate::replica::SESSIONS_MAX_USUAL;

const SAVE_HELP: &str = "\
Examples:
  mangrove snapshot save backup.snapshot
  mangrove snapshot save backup.snapshot --cluster 10.0.0.1:7101

The file holds one state of the whole store. Everything that was acknowledged before the command
was started is in it; what is written while it runs may or may not be. The leader writes what it
has in memory to its tables, then sends them; it goes on serving meanwhile, and needs room on its
disk for the file. The file is verified, and gets its name only then.";

const SNAPSHOT_VERIFY_HELP: &str = "\
Examples:
  mangrove snapshot verify backup.snapshot

Reads every bit. The exit code is 6 if any is not as it was written. With --output json standard
output says why, too: {\"ok\":false,\"error\":…}, also of a file that cannot be read.";

const RESTORE_HELP: &str = "\
Examples:
  # for each of three nodes, before any of them is started
  mangrove snapshot restore backup.snapshot --cluster-id 7a11 --node 1 --data /var/lib/mangrove \\
      --members 1=10.0.0.1:7101,2=10.0.0.2:7101,3=10.0.0.3:7101

  # then start each of them with the same settings
  mangrove serve --cluster-id 7a11 --node 1 --data /var/lib/mangrove --members …

This makes a NEW cluster, in empty directories:
  - Restore EVERY member from the SAME file before you start any. Members that begin with different
    states, or with none, may lose data or stop.
  - Give it a --cluster-id of its own, so that no client or node of the old one takes it for that.
A restoration that fails or is stopped removes what it made. Client sessions come with the state.
Settings are those of `serve`, from flags, variables or file.";

/// What to do with a saved state.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum SnapshotCommand {
    /// Save the state of a running cluster to a file
    #[command(after_help = SAVE_HELP)]
    Save {
        /// The file.
        file: PathBuf,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Check that a file is whole, and say what it holds
    #[command(after_help = SNAPSHOT_VERIFY_HELP)]
    Verify {
        /// The file.
        file: PathBuf,
        /// Form of the answer. raw: as json.
        #[arg(long, short, env = "MANGROVE_OUTPUT", default_value = "table")]
        output: Format,
    },
    /// Give a node of a new cluster the state in a file. Primary-backup only
    #[command(after_help = RESTORE_HELP)]
    Restore(Box<RestoreArgs>),
}

/// Arguments of `snapshot restore`.
#[derive(Debug, Clone, Args)]
pub(super) struct RestoreArgs {
    /// The file.
    pub(super) file: PathBuf,
    /// A TOML file with any of the settings below except those of the log, as for `serve`.
    #[arg(long, env = "MANGROVE_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Everything that can be chosen for the node.
    #[command(flatten)]
    pub(super) settings: Settings,
}

const STORE_VERIFY_HELP: &str = "\
Examples:
  mangrove store verify mangrove-data/n1
  mangrove store verify mangrove-data/n1 --output json

Reads every byte of the tables and changes nothing. Each damage is shown with its file, its place
in it, and the cells that it concerns. On a masterless node cells lie in the order of the partitions
of their keys, so partitions are shown, too. The exit code is 6 if there is any damage. A node that
runs does this by itself, slowly (--scrub-rate).";

const SALVAGE_HELP: &str = "\
Examples:
  mangrove store salvage mangrove-data/n1 --to saved.jsonl
  mangrove import saved.jsonl --cluster NEW:7101

For a node that was alone, or the last one that is left: a damaged node of a cluster gets its state
from the others when it is started. Nothing is changed in the directory; FILE.scratch is made
beside the file, as large as the store, and removed again.

What is undamaged in tables and log is written to FILE, one cell per line, as `export` does. What is
lost is said range by range: within such a range cells are missing, and those that are there may
be stale, or may have been deleted. Outside of them every cell is as it was, unless it is said that
  - the manifest is lost, or the log is damaged, gone or ends in what may be an unfinished write, or
    a masterless node lacks requests that it had not got back from the others yet: any cell may be
    concerned;
  - conditional writes in the log were decided by cells of such a range: what they wrote, or would
    have written, may lie anywhere;
  - the client sessions are lost: those of the last writes that were sent twice were carried out
    twice.
Of a masterless node, a cell that was deleted may also be there again, if what deletes it is in a
table and the cell in the log alone. The ranges of a masterless node are in the order of partitions,
which are named. The exit code is 6 if anything is lost or in doubt; damage that costs nothing is
said, too, and is none. If the newest files of the log are gone, what is left looks like a log that
never went further, and nothing is said. If the node was one of several, its last writes may never
have been acknowledged.

If the node was started with --sessions-max, give the same number here: which sessions it remembers
decides which writes of its log took effect.";

/// What to do with the tables of a node that does not run.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum StoreCommand {
    /// Read everything and say what is damaged
    #[command(after_help = STORE_VERIFY_HELP)]
    Verify {
        /// Data directory of the node.
        dir: PathBuf,
        /// Form of the answer. raw: as json.
        #[arg(long, short, env = "MANGROVE_OUTPUT", default_value = "table")]
        output: Format,
    },
    /// Write what can be read of a damaged store to a file
    #[command(after_help = SALVAGE_HELP)]
    Salvage {
        /// Data directory of the node.
        dir: PathBuf,
        /// Where to write.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// Most client sessions that the node was told to remember (`serve --sessions-max`).
        #[arg(
            long,
            env = "MANGROVE_SESSIONS_MAX",
            value_name = "N",
            default_value_t = SESSIONS_MAX_USUAL,
            value_parser = RangedU64ValueParser::<usize>::new().range(1..=u64::from(u32::MAX))
        )]
        sessions_max: usize,
    },
}

const WAL_HELP: &str = "\
Examples:
  mangrove wal dump mangrove-data/n1

One line for each record: its place in the file, its number, what it is (a record, one of its two
copies, a mark), its kind, the entry that it is of (tag), its length, whether its checksum is right,
the last record that was known to be on the disk then (durable), its first bytes in hexadecimal.
Then what a start would find torn or rotten.";

/// What to do with a write-ahead log.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum WalCommand {
    /// Print every record
    #[command(after_help = WAL_HELP)]
    Dump {
        /// Data directory of the node.
        dir: PathBuf,
    },
}
