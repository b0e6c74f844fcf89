//! What can be typed: every command and flag, with the help that teaches them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::backup_args::{SnapshotCommand, StoreCommand, WalCommand};
use super::config::{
    ModeSetting, RepairSetting, Settings, parse_address, parse_partitions, parse_some_time,
};
use super::trial_args::{BenchArgs, CompareArgs, CrashTestArgs, GrowthArgs};
use crate::wire::Level;

/// Where `mangrove cluster` listens unless told otherwise, hence where clients look.
pub(super) const DEFAULT_CLUSTER: &str = "127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103";

const AFTER_HELP: &str = "\
Try it:
  mangrove cluster                      # three real nodes on this machine
  mangrove set greeting hello           # in another terminal
  mangrove get greeting

The same without a leader: every node takes requests, and each says how many replicas it wants:
  mangrove cluster --mode masterless --data ./masterless-data
  mangrove set greeting hello --level quorum
  mangrove get greeting --level one

For programs (--output json): an answer or a verdict, good or bad, is JSON on standard output; an
error is text on standard error, and the exit code tells them apart. The version of a cell is a
whole number of up to 64 bits, in the masterless mode always above 2^53: read it with all its digits
(JavaScript rounds it).

Exit codes:
  0  done
  1  not found: there is no such cell or row
  2  usage: the command line, the configuration or an input file is not valid or cannot be read,
     or the cluster does not have such a request at all
  3  not applied: the request failed and changed nothing; it may be repeated
  4  unknown: the write was sent and never answered; only a read can tell what became of it
  5  conflict: a condition did not hold; nothing changed
  6  any other failure, such as a file that is damaged or cannot be written, or a node that had
     to stop
  130  stopped by Ctrl-C before it was done";

/// A replicated key-column-value store.
#[derive(Debug, Parser)]
#[command(name = "mangrove", version, after_help = AFTER_HELP)]
pub(super) struct Cli {
    /// How it logs.
    #[command(flatten)]
    pub(super) logging: LogArgs,
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Logs go to standard error.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logging")]
pub(super) struct LogArgs {
    /// What to log: a level (error, warn, info, debug, trace), or tracing directives such as
    /// `warn,mangrove::client=trace`. [default: info for serve, warn for the rest]
    #[arg(long, global = true, env = "MANGROVE_LOG", value_name = "LEVEL")]
    pub(super) log: Option<String>,
    /// Form of the log.
    #[arg(
        long,
        global = true,
        env = "MANGROVE_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub(super) log_format: LogFormat,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run one node
    Serve(Box<ServeArgs>),
    /// Run a whole cluster on this machine, each node a process of its own
    Cluster(ClusterArgs),
    /// Show how every node is
    Status(StatusArgs),
    /// Read one cell
    Get(GetArgs),
    /// Write one cell
    Set(SetArgs),
    /// Delete one cell, or all columns of a key
    Delete(DeleteArgs),
    /// Read all columns of a key
    Row(RowArgs),
    /// Read a range of the columns of a key
    Slice(SliceArgs),
    /// List keys
    Keys(KeysArgs),
    /// Write one cell if it is as expected
    Cas(CasArgs),
    /// Apply many changes together or not at all
    Bulk(BulkArgs),
    /// Write cells from a file of JSON Lines
    Import(ImportArgs),
    /// Read cells into a file of JSON Lines
    Export(ExportArgs),
    /// Save the state of a cluster to a file, and make a new cluster of it
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Verify or salvage the tables of a node that does not run
    #[command(subcommand)]
    Store(StoreCommand),
    /// Look into the write-ahead log of a node that does not run
    #[command(subcommand)]
    Wal(WalCommand),
    /// Kill nodes under load, and see whether anything that was promised is missing
    CrashTest(CrashTestArgs),
    /// Put a load on a cluster and measure
    Bench(BenchArgs),
    /// Measure both modes side by side on this machine, and other stores with them
    Compare(CompareArgs),
    /// Measure how throughput depends on what a store holds
    Growth(GrowthArgs),
}

/// Which cluster, and how long it may take.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cluster")]
pub(super) struct ConnectionArgs {
    /// Addresses of some nodes, host:port; they tell where the leader is. The first one that
    /// answers is asked, if there are no leaders.
    #[arg(
        long,
        env = "MANGROVE_CLUSTER",
        value_name = "ADDR,…",
        value_delimiter = ',',
        default_value = DEFAULT_CLUSTER,
        value_parser = parse_address
    )]
    pub(super) cluster: Vec<String>,
    /// Longest time for a request, with all its tries at all nodes. One node is waited for a fifth
    /// of it before the request is tried again, but for 2 s at least: a read that takes longer than
    /// that, of a row with millions of deleted columns for example, needs a longer time here. What
    /// is read in pages or pieces (row, slice, keys, export, snapshot save) may take as long for
    /// each of them, and an import for each batch.
    #[arg(long, env = "MANGROVE_TIMEOUT", default_value = "10s", value_parser = parse_some_time)]
    pub(super) timeout: Duration,
}

/// How many replicas have a say in the answer.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Cluster")]
pub(super) struct LevelArgs {
    /// How many replicas must have answered. More: newer answers, safer writes. Fewer: quicker,
    /// and there while nodes are down. Only for masterless clusters: primary-backup ones always
    /// answer linearizably.
    #[arg(long, env = "MANGROVE_LEVEL", default_value = "quorum")]
    pub(super) level: LevelArg,
}

/// How many replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LevelArg {
    /// A read may be older than the last write.
    One,
    /// If keys have up to three replicas, reads see what was written at this level.
    Two,
    /// If keys have up to five replicas, reads see what was written at this level.
    Three,
    /// More than half of the replicas: reads see what was written at this level.
    Quorum,
    /// Every replica: fails while any of them is down.
    All,
}

impl LevelArg {
    /// Returns what is typed for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Two => "two",
            Self::Three => "three",
            Self::Quorum => "quorum",
            Self::All => "all",
        }
    }
}

impl From<LevelArgs> for Level {
    fn from(args: LevelArgs) -> Self {
        match args.level {
            LevelArg::One => Self::One,
            LevelArg::Two => Self::Two,
            LevelArg::Three => Self::Three,
            LevelArg::Quorum => Self::Quorum,
            LevelArg::All => Self::All,
        }
    }
}

/// Form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// JSON Lines; bytes that are no text are in fields named `…_base64`.
    Json,
    /// What is stored, as it is; a tab between column and value.
    Raw,
}

/// How keys, columns and values are written on the command line.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct EncodingArgs {
    /// Keys, columns and values in the arguments are base64, for bytes that are no text; files,
    /// standard input and the output are not.
    #[arg(long)]
    pub(super) base64: bool,
}

/// Faults on request.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct DebugArgs {
    /// For tests: how likely it is that the node loses what it writes to its tables from now on
    /// when it is killed, 0 to 1. Of nodes that run with --debug-faults; others refuse the write.
    #[arg(
        long,
        value_name = "PROBABILITY",
        default_value = "0",
        value_parser = super::trial_args::parse_share,
        hide_default_value = true
    )]
    pub(super) debug_table_loss: f64,
}

const SERVE_HELP: &str = "\
Examples:
  # one of three nodes, on a machine of its own
  mangrove serve --cluster-id 5e1f --node 1 --listen 0.0.0.0:7101 --data /var/lib/mangrove \\
      --members 1=10.0.0.1:7101,2=10.0.0.2:7101,3=10.0.0.3:7101

  # the same from a file; flags win over MANGROVE_… variables, which win over the file
  mangrove serve --config /etc/mangrove.toml --log debug

  # a file has the names of the flags, with _ for -
  cluster_id = \"5e1f\"
  node = 1
  listen = \"0.0.0.0:7101\"
  members = [\"1=10.0.0.1:7101\", \"2=10.0.0.2:7101\", \"3=10.0.0.3:7101\"]
  sync = \"always\"
  flush_log_bytes = \"64MiB\"

  # five nodes without a leader, each key on three of them
  mangrove serve --mode masterless --replication-factor 3 --cluster-id 5e1f --node 1 …

Times are written 300ms, 5s or 2m; sizes 4096, 64KiB, 64MiB or 1GiB. In a file both are strings.

The two modes (chosen once, for the life of a cluster):
  primary-backup  one node leads: every request sees all that were acknowledged before. While the
                  nodes elect a leader, there is a gap of about a second
  masterless      every node takes every request; each request says how many replicas must have
                  answered (--level). Of two writes of a cell the later one counts. No `cas`

What --sync promises:
  always       an acknowledged write is on the disks of a majority: it survives the power loss
               of all nodes
  interval:MS  weaker: a node that loses power forgets what was written in the last MS
               milliseconds, acknowledged or not, and gets it from the others. Lost is what no
               other node has, or has any more by then: in a cluster of one node all of it, in
               the masterless mode what one replica alone acknowledged (--level one, or
               --replication-factor 1). A crash of processes loses nothing. In the
               primary-backup mode a node that still has what the others have lost so leaves its
               state aside, starts again and is sent the leader's; what clients had read of it
               meanwhile is gone

A node with an empty directory takes part once all other nodes have answered it: nobody can tell
whether it is new, or its disk was lost. So the first start of a cluster needs all of its nodes.

SIGTERM or Ctrl-C stops the node in good order; a second one at once. A node that is killed
loses nothing that it acknowledged.";

/// Arguments of `serve`.
#[derive(Debug, Clone, Args)]
#[command(after_help = SERVE_HELP)]
pub(super) struct ServeArgs {
    /// A TOML file with any of the settings below, except those of the log.
    #[arg(long, env = "MANGROVE_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Only say whether the configuration is valid, and what it is.
    #[arg(long)]
    pub(super) check: bool,
    /// Stop in good order when standard input ends: the node then never outlives its parent.
    #[arg(long, hide = true)]
    pub(super) stop_with_input: bool,
    /// Take requests that make the node lose what it writes to its tables when it is killed, as a
    /// power cut would (`set --debug-table-loss`). For tests: the log grows until the node ends.
    #[arg(long)]
    pub(super) debug_faults: bool,
    /// Everything that can be chosen.
    #[command(flatten)]
    pub(super) settings: Settings,
}

const CLUSTER_HELP: &str = "\
Examples:
  mangrove cluster                                  # three nodes, data in ./mangrove-data
  mangrove cluster --nodes 5 --data /tmp/five --base-port 8000
  mangrove cluster --nodes 4 --mode masterless --replication-factor 3 --data /tmp/four
  mangrove cluster -- --sync interval:10            # flags after -- go to every node

The first start chooses the addresses and the id of the cluster and writes them to
DIR/cluster.toml; every later start with the same --data finds its data again. Node 1 keeps its
data in DIR/n1 and its log in DIR/n1.log, and so on. Ctrl-C stops all nodes in good order. A node
that dies is reported, with the command that starts it again beside the others.

The nodes see the MANGROVE_… variables of this command, except those of what DIR/cluster.toml
settles and MANGROVE_CONFIG: a file for all of them is named by `-- --config FILE`.";

/// Arguments of `cluster`.
#[derive(Debug, Clone, Args)]
#[command(after_help = CLUSTER_HELP)]
pub(super) struct ClusterArgs {
    /// How many nodes, 1 to 15; best an odd number of them. [default: 3, or what
    /// DIR/cluster.toml says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=15))]
    pub(super) nodes: Option<u16>,
    /// Where everything is kept.
    #[arg(long, value_name = "DIR", default_value = "./mangrove-data")]
    pub(super) data: PathBuf,
    /// Port of the first node of a new cluster, the others follow; a port in use is replaced by a
    /// free one. [default: 7101]
    #[arg(long, value_name = "PORT")]
    pub(super) base_port: Option<u16>,
    /// How the cluster replicates: `primary-backup` or `masterless`; see `mangrove serve --help`.
    /// [default: primary-backup, or what DIR/cluster.toml says]
    #[arg(long, env = "MANGROVE_MODE", value_name = "MODE")]
    pub(super) mode: Option<ModeSetting>,
    /// Masterless: replicas of each key. [default: 3, or as many as there are nodes]
    #[arg(long, env = "MANGROVE_REPLICATION_FACTOR", value_name = "N")]
    pub(super) replication_factor: Option<usize>,
    /// Masterless: parts that the keys are divided into. [default: 256]
    #[arg(
        long,
        env = "MANGROVE_PARTITIONS",
        value_name = "N",
        value_parser = parse_partitions
    )]
    pub(super) partitions: Option<u16>,
    /// Masterless: how replicas get what they missed: `read-repair`, `hinted-handoff`, `both` or
    /// `none`. May be another one at the next start. [default: both]
    #[arg(long, env = "MANGROVE_REPAIR", value_name = "WAY")]
    pub(super) repair: Option<RepairSetting>,
    /// Flags for every node, see `mangrove serve --help`.
    #[arg(last = true, value_name = "SERVE FLAGS")]
    pub(super) serve_flags: Vec<String>,
}

const STATUS_HELP: &str = "\
Examples:
  mangrove status
  mangrove status --cluster 10.0.0.1:7101 --output json

Every node is asked for itself, and one that does not answer is shown too. Nodes that only another
one named are asked as well. Where the terminal is narrow, some columns come in a table below.

  cells     about how many there are: what is overwritten or deleted counts until it is compacted
            away, and a deletion of what was not there is subtracted until then: where there are
            many of them it may be far too few, even 0 (`cell_count` in JSON)
  log on disk, tables
            what they take on the disk. The log ends where the tables begin: it is cut off as they
            are written
  disk      ok, full (no writes), or behind: writes wait for compactions

Of a primary-backup cluster:
  log       index of the last entry that the node has
  commit    index of the last entry that it knows to be committed
  applied   index of the last entry that it has carried out
  sessions  clients that are remembered, so that what they repeat is done once
Below the table is how far each follower is behind the leader, as the leader knows, and how it is
sent entries: `replicate` as they come, `probe` by one question at a time (as long as it does not
answer, or until it is known what it has), `snapshot` by a whole state first.

Of a masterless cluster:
  up        nodes that this node believes to be up
  hints     writes that it keeps for nodes that missed them; `dropped` are those it gave up, which
            anti-entropy brings instead
  batches   atomic writes of several keys whose parts are still on their way
  synced    time in which all that it holds was compared with the other nodes that hold it, as long
            as the one that was compared longest ago; `-` where there is no other
  floor     age of the time up to which every write is known to be on every replica, of the
            partition for which that is longest. It is raised where there is something deleted to
            forget, so `never` is nothing bad";

/// Arguments of `status`.
#[derive(Debug, Clone, Args)]
#[command(after_help = STATUS_HELP)]
pub(super) struct StatusArgs {
    /// Form of the answer. raw: address and role, a tab between.
    #[arg(long, short, env = "MANGROVE_OUTPUT", default_value = "table")]
    pub(super) output: Format,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

const GET_HELP: &str = "\
Examples:
  mangrove get greeting
  mangrove get person/1 --column name
  mangrove get photo --output raw > photo.jpg
  mangrove get AAH/ --base64 --output json";

/// Arguments of `get`.
#[derive(Debug, Clone, Args)]
#[command(after_help = GET_HELP)]
pub(super) struct GetArgs {
    /// The key.
    pub(super) key: String,
    /// The column; without it the plain value of the key.
    #[arg(long, short, default_value = "")]
    pub(super) column: String,
    /// Form of the answer.
    #[arg(long, short, env = "MANGROVE_OUTPUT", default_value = "table")]
    pub(super) output: Format,
    #[command(flatten)]
    pub(super) encoding: EncodingArgs,
    #[command(flatten)]
    pub(super) level: LevelArgs,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

const SET_HELP: &str = "\
Examples:
  mangrove set greeting hello
  mangrove set person/1 Ada --column name
  mangrove set photo @photo.jpg          # the value is what is in the file
  date | mangrove set now -              # the value is standard input
  mangrove set mail @@mia                # the value is the text @mia";

/// Arguments of `set`.
#[derive(Debug, Clone, Args)]
#[command(after_help = SET_HELP)]
pub(super) struct SetArgs {
    /// The key.
    pub(super) key: String,
    /// The value: text, @FILE, or - for standard input.
    #[arg(allow_negative_numbers = true)]
    pub(super) value: String,
    /// The column; without it the plain value of the key.
    #[arg(long, short, default_value = "")]
    pub(super) column: String,
    /// Form of the answer. raw: none.
    #[arg(long, short, env = "MANGROVE_OUTPUT", default_value = "table")]
    pub(super) output: Format,
    #[command(flatten)]
    pub(super) encoding: EncodingArgs,
    #[command(flatten)]
    pub(super) debug: DebugArgs,
    #[command(flatten)]
    pub(super) level: LevelArgs,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

const DELETE_HELP: &str = "\
Examples:
  mangrove delete greeting
  mangrove delete person/1 --column name
  mangrove delete person/1 --row         # all columns

Deleting what is not there is no error.";

/// Arguments of `delete`.
#[derive(Debug, Clone, Args)]
#[command(after_help = DELETE_HELP)]
pub(super) struct DeleteArgs {
    /// The key.
    pub(super) key: String,
    /// The column; without it the plain value of the key.
    #[arg(long, short, default_value = "", conflicts_with = "row")]
    pub(super) column: String,
    /// All columns of the key.
    #[arg(long)]
    pub(super) row: bool,
    /// Form of the answer. raw: none.
    #[arg(long, short, env = "MANGROVE_OUTPUT", default_value = "table")]
    pub(super) output: Format,
    #[command(flatten)]
    pub(super) encoding: EncodingArgs,
    #[command(flatten)]
    pub(super) level: LevelArgs,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

const ROW_HELP: &str = "\
Examples:
  mangrove row person/1
  mangrove row person/1 --output json";

/// Arguments of `row`.
#[derive(Debug, Clone, Args)]
#[command(after_help = ROW_HELP)]
pub(super) struct RowArgs {
    /// The key.
    pub(super) key: String,
    /// Form of the answer.
    #[arg(long, short, env = "MANGROVE_OUTPUT", default_value = "table")]
    pub(super) output: Format,
    #[command(flatten)]
    pub(super) encoding: EncodingArgs,
    #[command(flatten)]
    pub(super) level: LevelArgs,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

const SLICE_HELP: &str = "\
Examples:
  mangrove slice sensor/7 --start 2026-01-01 --stop 2026-01-31
  mangrove slice sensor/7 --start 2026-06

Columns are sorted by their bytes; both ends belong to the slice, either may be left open.";

/// Arguments of `slice`.
#[derive(Debug, Clone, Args)]
#[command(after_help = SLICE_HELP)]
pub(super) struct SliceArgs {
    /// The key.
    pub(super) key: String,
    /// First column.
    #[arg(long)]
    pub(super) start: Option<String>,
    /// Last column.
    #[arg(long)]
    pub(super) stop: Option<String>,
    /// Form of the answer.
    #[arg(long, short, env = "MANGROVE_OUTPUT", default_value = "table")]
    pub(super) output: Format,
    #[command(flatten)]
    pub(super) encoding: EncodingArgs,
    #[command(flatten)]
    pub(super) level: LevelArgs,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

const KEYS_HELP: &str = "\
Examples:
  mangrove keys
  mangrove keys --prefix person/
  mangrove keys --start a --stop m --limit 100

Keys are sorted by their bytes; both ends belong to the range, either may be left open.";

/// Arguments of `keys`.
#[derive(Debug, Clone, Args)]
#[command(after_help = KEYS_HELP)]
pub(super) struct KeysArgs {
    /// Only keys that begin with this.
    #[arg(long, default_value = "")]
    pub(super) prefix: String,
    /// First key.
    #[arg(long)]
    pub(super) start: Option<String>,
    /// Last key.
    #[arg(long)]
    pub(super) stop: Option<String>,
    /// At most this many. [default: all]
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<u64>,
    /// Form of the answer.
    #[arg(long, short, env = "MANGROVE_OUTPUT", default_value = "table")]
    pub(super) output: Format,
    #[command(flatten)]
    pub(super) encoding: EncodingArgs,
    #[command(flatten)]
    pub(super) level: LevelArgs,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

const CAS_HELP: &str = "\
Examples:
  mangrove cas lock --expect-absent --set me        # take it
  mangrove cas lock --expect me --delete            # give it back
  mangrove cas counter --expect 7 --set 8

If the cell is not as expected, nothing changes, the cell is shown, and the exit code is 5. In JSON
a cell that is not there has no value.
A masterless cluster has no conditional writes, and says so.";

/// Arguments of `cas`.
#[derive(Debug, Clone, Args)]
#[command(after_help = CAS_HELP)]
#[command(group(clap::ArgGroup::new("expectation").required(true)))]
#[command(group(clap::ArgGroup::new("change").required(true)))]
pub(super) struct CasArgs {
    /// The key.
    pub(super) key: String,
    /// The column; without it the plain value of the key.
    #[arg(long, short, default_value = "")]
    pub(super) column: String,
    /// The cell must have this value: text, @FILE, or - for standard input.
    #[arg(long, value_name = "VALUE", group = "expectation", allow_negative_numbers = true)]
    pub(super) expect: Option<String>,
    /// There must be no such cell.
    #[arg(long, group = "expectation")]
    pub(super) expect_absent: bool,
    /// The new value: text, @FILE, or - for standard input.
    #[arg(long, value_name = "VALUE", group = "change", allow_negative_numbers = true)]
    pub(super) set: Option<String>,
    /// Delete the cell.
    #[arg(long, group = "change")]
    pub(super) delete: bool,
    /// Form of the answer. raw: none, or the value in a conflict.
    #[arg(long, short, env = "MANGROVE_OUTPUT", default_value = "table")]
    pub(super) output: Format,
    #[command(flatten)]
    pub(super) encoding: EncodingArgs,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

const BULK_HELP: &str = "\
Examples:
  mangrove bulk changes.jsonl
  echo '{\"action\":\"delete\",\"key\":\"a\"}' | mangrove bulk -

One change per line:
  {\"key\":\"k\",\"column\":\"c\",\"value\":\"v\"}          set a cell (no column: the plain value)
  {\"action\":\"delete\",\"key\":\"k\",\"column\":\"c\"}    delete a cell
  {\"action\":\"delete_row\",\"key\":\"k\"}             delete all columns of a key
Bytes that are no text go into key_base64, column_base64, value_base64.

The whole file is one atomic batch: at most 10000 changes and 4 MiB. For more, see `import`.";

/// Arguments of `bulk`.
#[derive(Debug, Clone, Args)]
#[command(after_help = BULK_HELP)]
pub(super) struct BulkArgs {
    /// File of JSON Lines, or - for standard input.
    pub(super) file: String,
    /// Form of the answer. raw: none.
    #[arg(long, short, env = "MANGROVE_OUTPUT", default_value = "table")]
    pub(super) output: Format,
    #[command(flatten)]
    pub(super) debug: DebugArgs,
    #[command(flatten)]
    pub(super) level: LevelArgs,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

const IMPORT_HELP: &str = "\
Examples:
  mangrove import people.jsonl
  mangrove import people.jsonl --resume             # after it was interrupted
  mangrove export --cluster OLD:7101 | mangrove import - --cluster NEW:7101

One cell per line, as `export` writes it:
  {\"key\":\"person/1\",\"column\":\"name\",\"value\":\"Ada\"}
Bytes that are no text go into key_base64, column_base64, value_base64.

Each batch is applied wholly or not at all, the file as a whole is not. Of two lines with the same
cell the later one wins. How far the import is, is kept in FILE.progress until it is complete. It
goes on in the same cluster only, and if all that is imported already is still at the beginning of
FILE, byte for byte; what comes after that may have been mended meanwhile. To import FILE into
another cluster before it is complete in this one, remove FILE.progress first.

Of two imports of one FILE the later one ends the earlier one, but not in the masterless mode.

Batches under way when an import was interrupted are written again; nothing of the earlier import of
FILE takes effect after that. The masterless mode cannot promise this: a node that was frozen may
still write what it had received, over later lines with the same cells. There, go on when every node
answers or has been killed.";

/// Arguments of `import`.
#[derive(Debug, Clone, Args)]
#[command(after_help = IMPORT_HELP)]
pub(super) struct ImportArgs {
    /// File of JSON Lines, or - for standard input.
    pub(super) file: String,
    /// Go on where an interrupted import of this file stopped.
    #[arg(long)]
    pub(super) resume: bool,
    /// Most cells of one atomic batch, at most 10000.
    #[arg(
        long,
        value_name = "N",
        default_value = "500",
        value_parser = clap::value_parser!(u32).range(1..=10_000)
    )]
    pub(super) batch_cells: u32,
    /// Most batches under way at a time, at most 64.
    #[arg(
        long,
        value_name = "N",
        default_value = "8",
        value_parser = clap::value_parser!(u32).range(1..=64)
    )]
    pub(super) in_flight: u32,
    #[command(flatten)]
    pub(super) level: LevelArgs,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

const EXPORT_HELP: &str = "\
Examples:
  mangrove export > everything.jsonl
  mangrove export --prefix person/ --file people.jsonl

Cells come in order of key and column. Each page is one state of the store; what is written while
the export runs may or may not be in it. A file gets its name only when it is complete; until then
it is FILE.partial, which one command at a time writes. A pipe or a device is written as it is.";

/// Arguments of `export`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXPORT_HELP)]
pub(super) struct ExportArgs {
    /// Only keys that begin with this.
    #[arg(long, default_value = "")]
    pub(super) prefix: String,
    /// Where to write; without it to standard output.
    #[arg(long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// The prefix is base64, for bytes that are no text.
    #[arg(long)]
    pub(super) base64: bool,
    #[command(flatten)]
    pub(super) level: LevelArgs,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn commands_are_consistent_and_have_examples() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            let parts: Vec<_> = command.get_subcommands().collect();
            for command in if parts.is_empty() { vec![command] } else { parts } {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.starts_with("Examples:"), "{}", command.get_name());
            }
        }
    }

    #[test]
    fn help_is_a_command_too() {
        for line in ["mangrove help", "mangrove help get", "mangrove help snapshot save"] {
            assert_eq!(parse(line).unwrap_err().kind(), ErrorKind::DisplayHelp, "{line}");
        }
    }

    #[test]
    fn cluster_defaults_to_the_ports_of_the_cluster_command() {
        let Command::Get(get) = parse("mangrove get k").unwrap().command else { unreachable!() };
        assert_eq!(get.connection.cluster.len(), 3);
        assert_eq!(get.connection.cluster.join(","), DEFAULT_CLUSTER);
        assert_eq!(get.connection.timeout, Duration::from_secs(10));
    }

    #[test]
    fn cas_wants_one_expectation_and_one_change() {
        for line in [
            "mangrove cas k --set v",
            "mangrove cas k --expect v",
            "mangrove cas k --expect v --expect-absent --set w",
            "mangrove cas k --expect v --set w --delete",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse("mangrove cas k --expect-absent --set v").is_ok());
        assert!(parse("mangrove cas k --expect -5 --delete").is_ok());
    }

    #[test]
    fn value_may_be_a_number_below_zero_or_standard_input() {
        for value in ["-5", "-", "@file"] {
            let parsed = parse(&format!("mangrove set k {value}")).unwrap();
            let Command::Set(set) = parsed.command else { unreachable!() };
            assert_eq!(set.value, value);
        }
    }

    #[test]
    fn wrong_arguments_are_usage_errors() {
        for wrong in [
            "--timeout soon",
            "--timeout 0s",
            "--cluster 127.0.0.1:99999",
            "--cluster 127.0.0.1",
            "--cluster 127.0.0.1:7101,",
        ] {
            let error = parse(&format!("mangrove get k {wrong}")).unwrap_err();
            let told = (error.kind(), error.exit_code());
            assert_eq!(told, (ErrorKind::ValueValidation, 2), "{wrong}");
        }
        assert!(parse("mangrove get k --cluster [::1]:7101,there:1 --timeout 1ms").is_ok());
        assert!(parse("mangrove cluster --nodes 0").is_err());
        assert!(parse("mangrove delete k --row --column c").is_err());
    }
}
