//! Where the configuration of a node comes from: flags, then variables, then a file, then
//! defaults.
//!
//! One struct, [`Settings`], is both what `serve` takes on the command line and what its file
//! holds, so the two cannot drift apart. Nothing in it is required; only the sum of all sources
//! is checked ([`Settings::into_node_config`]), and what is missing or contradictory is
//! answered with what to do about it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::CliError;
use crate::base::{ClusterId, NodeId, Stamp};
use crate::planted;
use crate::replica::{
    Compression, Masterless, NodeConfig, PARTITION_COUNT_MAX, Repair, Replication, SyncPolicy,
};

/// Smallest segment and smallest flush interval: below, a busy node makes files all day.
const LOG_BYTES_MIN: u64 = 64 << 10;

/// Most threads of a node: more than any machine gains by, and not too many to be started.
const THREADS_MAX: usize = 1024;

/// Everything that can be chosen about one node; `None` where a source is silent.
#[derive(Debug, Clone, PartialEq, Eq, Default, clap::Args, Deserialize)]
#[command(next_help_heading = "Node")]
#[serde(deny_unknown_fields, default)]
pub(super) struct Settings {
    /// Id of the cluster: up to 16 hexadecimal digits, the same for every node.
    #[arg(long, env = "MANGROVE_CLUSTER_ID", value_name = "HEX")]
    #[serde(deserialize_with = "text")]
    pub(super) cluster_id: Option<HexId>,
    /// Id of this node: a number from 1, never given to another machine.
    #[arg(long, visible_alias = "node-id", env = "MANGROVE_NODE", value_name = "ID")]
    pub(super) node: Option<u64>,
    /// Address to listen on. [default: the node's own address among the members]
    #[arg(long, env = "MANGROVE_LISTEN", value_name = "ADDR")]
    pub(super) listen: Option<String>,
    /// Every node of the cluster, this one included, with the address to reach it.
    #[arg(long, env = "MANGROVE_MEMBERS", value_name = "ID=ADDR,…", value_delimiter = ',')]
    #[serde(deserialize_with = "texts")]
    pub(super) members: Option<Vec<Member>>,
    /// Directory of this node's data. [default: ./mangrove-data/nID]
    #[arg(long, env = "MANGROVE_DATA", value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// How the cluster replicates: `primary-backup` or `masterless`. The same on all nodes, for
    /// the life of the cluster. [default: primary-backup]
    #[arg(long, env = "MANGROVE_MODE", value_name = "MODE")]
    #[serde(deserialize_with = "text")]
    pub(super) mode: Option<ModeSetting>,
    /// Replicas of each key. The same on all nodes, for the life of the cluster. [default: 3, or
    /// as many as there are nodes]
    #[arg(
        long,
        env = "MANGROVE_REPLICATION_FACTOR",
        value_name = "N",
        help_heading = "Masterless mode"
    )]
    pub(super) replication_factor: Option<usize>,
    /// Parts that the keys are divided into. Too few: comparisons take long to find little. Too
    /// many: memory. The same on all nodes, for the life of the cluster. [default: 256]
    #[arg(
        long,
        env = "MANGROVE_PARTITIONS",
        value_name = "N",
        value_parser = parse_partitions,
        help_heading = "Masterless mode"
    )]
    pub(super) partitions: Option<u16>,
    /// How a replica that missed a write gets it, besides by comparison in the background:
    /// `read-repair` (whoever reads compares), `hinted-handoff` (whoever coordinated the write
    /// keeps it), `both` or `none`. [default: both]
    #[arg(long, env = "MANGROVE_REPAIR", value_name = "WAY", help_heading = "Masterless mode")]
    #[serde(deserialize_with = "text")]
    pub(super) repair: Option<RepairSetting>,
    /// When writes are acknowledged: `always`, or `interval:MS`, which is weaker: a node that
    /// loses power forgets the writes of the last MS milliseconds. The same on all nodes: the
    /// weakest counts. [default: always]
    #[arg(long, env = "MANGROVE_SYNC", value_name = "POLICY")]
    #[serde(deserialize_with = "text")]
    pub(super) sync: Option<SyncSetting>,
    /// Shortest time without a leader after which a node campaigns. Too small: needless elections
    /// under load. Too large: long gaps. [default: 300ms]
    #[arg(long, env = "MANGROVE_ELECTION_TIMEOUT", value_name = "TIME", help_heading = "Tuning")]
    #[serde(deserialize_with = "text")]
    pub(super) election_timeout: Option<Time>,
    /// Time between two heartbeats of an idle leader. [default: 60ms]
    #[arg(long, env = "MANGROVE_HEARTBEAT_INTERVAL", value_name = "TIME", help_heading = "Tuning")]
    #[serde(deserialize_with = "text")]
    pub(super) heartbeat_interval: Option<Time>,
    /// Longest wait for a quorum before a request is answered with a time-out. [default: 5s]
    #[arg(long, env = "MANGROVE_REQUEST_TIMEOUT", value_name = "TIME", help_heading = "Tuning")]
    #[serde(deserialize_with = "text")]
    pub(super) request_timeout: Option<Time>,
    /// Largest segment of the write-ahead log; the first ones are smaller. [default: 64MiB]
    #[arg(long, env = "MANGROVE_WAL_SEGMENT_BYTES", value_name = "BYTES", help_heading = "Tuning")]
    #[serde(deserialize_with = "text")]
    pub(super) wal_segment_bytes: Option<ByteSize>,
    /// What is in memory is written to a table when the log has grown by this much. Too small:
    /// much writing. Too large: long restarts. [default: 64MiB]
    #[arg(long, env = "MANGROVE_FLUSH_LOG_BYTES", value_name = "BYTES", help_heading = "Tuning")]
    #[serde(deserialize_with = "text")]
    pub(super) flush_log_bytes: Option<ByteSize>,
    /// What is in memory is written to a table also when it takes this much memory. Up to three
    /// times as much is used. [default: 32MiB]
    #[arg(long, env = "MANGROVE_MEMTABLE_BYTES", value_name = "BYTES", help_heading = "Tuning")]
    #[serde(deserialize_with = "text")]
    pub(super) memtable_bytes: Option<ByteSize>,
    /// Memory for what was read from tables. [default: 64MiB]
    #[arg(long, env = "MANGROVE_CACHE_BYTES", value_name = "BYTES", help_heading = "Tuning")]
    #[serde(deserialize_with = "text")]
    pub(super) cache_bytes: Option<ByteSize>,
    /// Pack the blocks of tables with LZ4: less space for text, more processor time. [default:
    /// false]
    #[arg(
        long,
        env = "MANGROVE_PACK_TABLES",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        help_heading = "Tuning"
    )]
    pub(super) pack_tables: Option<bool>,
    /// Bytes of tables that are verified each second, to find rot early; 0B for none.
    /// [default: 4MiB]
    #[arg(long, env = "MANGROVE_SCRUB_RATE", value_name = "BYTES", help_heading = "Tuning")]
    #[serde(deserialize_with = "text")]
    pub(super) scrub_rate: Option<ByteSize>,
    /// Entries kept in memory after a flush, for followers a little behind. [default: 10000]
    #[arg(long, env = "MANGROVE_LOG_ENTRIES_KEPT", value_name = "N", help_heading = "Tuning")]
    pub(super) log_entries_kept: Option<u64>,
    /// Most client sessions that are remembered. The same on all nodes, for the life of a
    /// primary-backup cluster. [default: 10000]
    #[arg(long, env = "MANGROVE_SESSIONS_MAX", value_name = "N", help_heading = "Tuning")]
    pub(super) sessions_max: Option<usize>,
    /// Most connections at a time. [default: 4096]
    #[arg(long, env = "MANGROVE_CONNECTIONS_MAX", value_name = "N", help_heading = "Tuning")]
    pub(super) connections_max: Option<usize>,
    /// Most requests that wait for an answer, over all connections. [default: 16384]
    #[arg(long, env = "MANGROVE_REQUESTS_MAX", value_name = "N", help_heading = "Tuning")]
    pub(super) requests_max: Option<usize>,
    /// Threads of the node. One serves best on small machines. [default: 1]
    #[arg(long, env = "MANGROVE_THREADS", value_name = "N", help_heading = "Tuning")]
    pub(super) threads: Option<usize>,
}

impl Settings {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, is no TOML, or has a field that nobody knows.
    pub(super) fn read(path: &Path) -> Result<Self, CliError> {
        let shown = path.display();
        let file = std::fs::read_to_string(path)
            .map_err(|error| CliError::Usage(format!("cannot read {shown}: {error}")))?;
        toml::from_str(&file).map_err(|error| CliError::Usage(format!("{shown}: {error}")))
    }

    /// Takes from `other` what is not set here.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            cluster_id: self.cluster_id.or(other.cluster_id),
            node: self.node.or(other.node),
            listen: self.listen.or(other.listen),
            members: self.members.or(other.members),
            data: self.data.or(other.data),
            mode: self.mode.or(other.mode),
            replication_factor: self.replication_factor.or(other.replication_factor),
            partitions: self.partitions.or(other.partitions),
            repair: self.repair.or(other.repair),
            sync: self.sync.or(other.sync),
            election_timeout: self.election_timeout.or(other.election_timeout),
            heartbeat_interval: self.heartbeat_interval.or(other.heartbeat_interval),
            request_timeout: self.request_timeout.or(other.request_timeout),
            wal_segment_bytes: self.wal_segment_bytes.or(other.wal_segment_bytes),
            flush_log_bytes: self.flush_log_bytes.or(other.flush_log_bytes),
            memtable_bytes: self.memtable_bytes.or(other.memtable_bytes),
            cache_bytes: self.cache_bytes.or(other.cache_bytes),
            pack_tables: self.pack_tables.or(other.pack_tables),
            scrub_rate: self.scrub_rate.or(other.scrub_rate),
            log_entries_kept: self.log_entries_kept.or(other.log_entries_kept),
            sessions_max: self.sessions_max.or(other.sessions_max),
            connections_max: self.connections_max.or(other.connections_max),
            requests_max: self.requests_max.or(other.requests_max),
            threads: self.threads.or(other.threads),
        }
    }

    /// Returns the directory of the node's data.
    pub(super) fn data(&self) -> PathBuf {
        let node = self.node.unwrap_or_default();
        self.data.clone().unwrap_or_else(|| PathBuf::from(format!("./mangrove-data/n{node}")))
    }

    /// Puts the defaults where nothing is said, and checks the whole.
    ///
    /// # Errors
    /// Something is missing or contradictory; the message says what to do.
    pub(super) fn into_node_config(self) -> Result<NodeConfig, CliError> {
        let usage = |what: &str| CliError::Usage(what.to_owned());
        let Some(HexId(cluster)) = self.cluster_id else {
            return Err(usage(
                "the node needs the id of its cluster: give every node the same --cluster-id, up \
                 to 16 hexadecimal digits of your choice (or let `mangrove cluster` do it all)",
            ));
        };
        if let Some(threads) = self.threads.filter(|count| !(1..=THREADS_MAX).contains(count)) {
            return Err(usage(&format!(
                "--threads ({threads}) must be between 1 and {THREADS_MAX}"
            )));
        }
        let Some(node) = self.node.filter(|node| *node > 0).map(NodeId) else {
            return Err(usage("the node needs its own id: give it --node, a number from 1"));
        };
        let members = self.members.unwrap_or_default();
        let members: Vec<_> =
            members.into_iter().map(|Member(id, address)| (id, address)).collect();
        let own_address = check_members(node, &members)?;
        let listen = self.listen.unwrap_or(own_address);
        check_address(&listen).map_err(CliError::Usage)?;
        let replication = replication(
            self.mode,
            (self.replication_factor, self.partitions, self.repair),
            &members,
        )?;
        let mut config =
            NodeConfig { replication, ..NodeConfig::new(cluster, node, &listen, members) };
        let set = |to: &mut Duration, from: Option<Time>| *to = from.map_or(*to, |Time(time)| time);
        set(&mut config.election_timeout, self.election_timeout);
        set(&mut config.heartbeat_interval, self.heartbeat_interval);
        set(&mut config.request_timeout, self.request_timeout);
        let set = |to: &mut u64, from: Option<ByteSize>| *to = from.map_or(*to, |size| size.0);
        set(&mut config.wal_segment_bytes, self.wal_segment_bytes);
        set(&mut config.flush_log_bytes, self.flush_log_bytes);
        set(&mut config.tree.memtable_bytes, self.memtable_bytes);
        set(&mut config.tree.cache_bytes, self.cache_bytes);
        set(&mut config.scrub_bytes_per_second, self.scrub_rate);
        if self.pack_tables == Some(true) {
            config.tree.table.compression = Compression::Lz4;
        }
        config.sync_policy = self.sync.map_or(config.sync_policy, |SyncSetting(policy)| policy);
        config.log_entries_kept = self.log_entries_kept.unwrap_or(config.log_entries_kept);
        config.sessions_max = self.sessions_max.unwrap_or(config.sessions_max);
        config.connections_max = self.connections_max.unwrap_or(config.connections_max);
        config.requests_max = self.requests_max.unwrap_or(config.requests_max);
        check_limits(&config)?;
        Ok(config)
    }
}

/// Returns how the cluster replicates, after checking that against the list of members.
///
/// # Errors
/// The settings are of the other mode, or do not fit the members.
pub(super) fn replication(
    mode: Option<ModeSetting>,
    (factor, partitions, repair): (Option<usize>, Option<u16>, Option<RepairSetting>),
    members: &[(NodeId, String)],
) -> Result<Replication, CliError> {
    let usage = |what: String| Err(CliError::Usage(what));
    if mode != Some(ModeSetting::Masterless) {
        return if factor.is_some() || partitions.is_some() || repair.is_some() {
            usage(
                "--replication-factor, --partitions and --repair are of the masterless mode: give \
                 every node --mode masterless too, or leave them out"
                    .to_owned(),
            )
        } else {
            Ok(Replication::PrimaryBackup)
        };
    }
    let defaults = Masterless::default();
    let masterless = Masterless {
        replication_factor: factor.unwrap_or(defaults.replication_factor.min(members.len())),
        partition_count: partitions.unwrap_or(defaults.partition_count),
        repair: repair.map_or(defaults.repair, |RepairSetting(repair)| repair),
        limits: None,
    };
    let Masterless { replication_factor, partition_count, .. } = masterless;
    if !(1..=members.len()).contains(&replication_factor) {
        return usage(format!(
            "--replication-factor ({replication_factor}) must be between 1 and the number of \
             members ({}): no node has two replicas of a key",
            members.len()
        ));
    }
    if !(1..=PARTITION_COUNT_MAX).contains(&partition_count) {
        return usage(format!(
            "--partitions ({partition_count}) must be between 1 and {PARTITION_COUNT_MAX}"
        ));
    }
    if let Some((id, _)) = members.iter().find(|(id, _)| id.0 > Stamp::NODE_MAX) {
        return usage(format!(
            "node {id}: ids of the masterless mode are at most {}, for each write carries one",
            Stamp::NODE_MAX
        ));
    }
    Ok(Replication::Masterless(masterless))
}

/// Checks the list of members; returns the address of `node`.
fn check_members(node: NodeId, members: &[(NodeId, String)]) -> Result<String, CliError> {
    let Some((_, own_address)) = members.iter().find(|(id, _)| *id == node) else {
        return Err(CliError::Usage(format!(
            "node {node} is not among the members: give --members with every node of the cluster, \
             this one included, such as {}=127.0.0.1:7101",
            node.0
        )));
    };
    let ids: BTreeSet<_> = members.iter().map(|(id, _)| id).collect();
    let addresses: BTreeSet<_> = members.iter().map(|(_, address)| address).collect();
    if ids.len() < members.len() || addresses.len() < members.len() {
        return Err(CliError::Usage(
            "two members have the same id or the same address: give each node its own in --members"
                .to_owned(),
        ));
    }
    Ok(own_address.clone())
}

/// Checks the numbers against each other.
fn check_limits(config: &NodeConfig) -> Result<(), CliError> {
    let usage = |what: String| Err(CliError::Usage(what));
    let (election, heartbeat) = (config.election_timeout, config.heartbeat_interval);
    if heartbeat.is_zero() || heartbeat.saturating_mul(2) > election {
        return usage(format!(
            "--heartbeat-interval ({heartbeat:?}) must be above zero and at most half of \
             --election-timeout ({election:?}), or followers campaign against a healthy leader: \
             lower the one or raise the other"
        ));
    }
    if config.request_timeout < election {
        return usage(format!(
            "--request-timeout ({:?}) must not be below --election-timeout ({election:?}), or \
             requests fail before a new leader can answer them",
            config.request_timeout
        ));
    }
    for (flag, bytes) in [
        ("--wal-segment-bytes", config.wal_segment_bytes),
        ("--flush-log-bytes", config.flush_log_bytes),
        ("--memtable-bytes", config.tree.memtable_bytes),
    ] {
        if bytes < LOG_BYTES_MIN {
            return usage(format!("{flag} ({bytes}) must be at least {LOG_BYTES_MIN} (64KiB)"));
        }
    }
    for (flag, count) in [
        ("--sessions-max", config.sessions_max),
        ("--connections-max", config.connections_max),
        ("--requests-max", config.requests_max),
    ] {
        if count == 0 || u32::try_from(count).is_err() {
            return usage(format!("{flag} ({count}) must be between 1 and {}", u32::MAX));
        }
    }
    Ok(())
}

/// Reads an address of the form `host:port`.
pub(super) fn parse_address(text: &str) -> Result<String, String> {
    check_address(text).map(|()| text.to_owned())
}

/// Checks that an address has the form `host:port`.
fn check_address(address: &str) -> Result<(), String> {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match port.map(|(_, port)| port.parse::<u16>()) {
        Some(Ok(_)) => Ok(()),
        Some(Err(_)) | None => {
            Err(format!("{address:?} is no address: write host:port, such as 127.0.0.1:7101"))
        }
    }
}

/// Reads a number of partitions.
pub(super) fn parse_partitions(text: &str) -> Result<u16, String> {
    // What is too small is refused with all else that does not fit the mode.
    let count = text.parse().ok().filter(|count| *count <= PARTITION_COUNT_MAX);
    count.ok_or_else(|| format!("it must be a number between 1 and {PARTITION_COUNT_MAX}"))
}

/// A cluster id in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HexId(pub(super) ClusterId);

impl FromStr for HexId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match u64::from_str_radix(text, 16) {
            Ok(id) => Ok(Self(ClusterId(id))),
            Err(_) => Err(format!("{text:?} is not made of 1 to 16 hexadecimal digits")),
        }
    }
}

/// A node and where it is reached: `ID=host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member(pub(super) NodeId, pub(super) String);

impl FromStr for Member {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('=').map(|(id, address)| (id.trim().parse::<u64>(), address));
        let Some((Ok(id @ 1..), address)) = parsed else {
            return Err(format!("{text:?} is no member: write ID=host:port, with an ID from 1"));
        };
        let address = address.trim();
        check_address(address)?;
        if address.rsplit_once(':').is_some_and(|(_, port)| port.parse() == Ok(0u16)) {
            return Err(format!("{address:?} is reached by nobody: give it a port from 1"));
        }
        Ok(Self(NodeId(id), address.to_owned()))
    }
}

/// How a cluster replicates: `primary-backup` or `masterless`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ModeSetting {
    PrimaryBackup,
    Masterless,
}

impl FromStr for ModeSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::PrimaryBackup, Self::Masterless]
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| format!("{text:?} is no mode: write `primary-backup` or `masterless`"))
    }
}

impl ModeSetting {
    /// Returns the text that it is parsed from.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::PrimaryBackup => "primary-backup",
            Self::Masterless => "masterless",
        }
    }
}

/// How replicas get what they missed: `read-repair`, `hinted-handoff`, `both` or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RepairSetting(pub(super) Repair);

impl FromStr for RepairSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ways = [(true, true), (true, false), (false, true), (false, false)];
        let mut ways = ways.into_iter().map(|(hints, reads)| Repair { hints, reads });
        ways.find(|repair| repair.name() == text).map(Self).ok_or_else(|| {
            format!("{text:?} is no way: write `read-repair`, `hinted-handoff`, `both` or `none`")
        })
    }
}

/// When writes are acknowledged: `always` or `interval:MS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SyncSetting(pub(super) SyncPolicy);

impl FromStr for SyncSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "always" {
            return Ok(Self(SyncPolicy::Always));
        }
        match text.strip_prefix("interval:").map(str::parse::<u32>) {
            Some(Ok(ms @ 1..)) => {
                Ok(Self(SyncPolicy::Interval(Duration::from_millis(u64::from(ms)))))
            }
            Some(Ok(0) | Err(_)) | None => Err(format!(
                "{text:?} is no policy: write `always`, or `interval:MS` with the milliseconds \
                 whose writes a node that loses power forgets"
            )),
        }
    }
}

/// A length of time: `300ms`, `5s`, `2m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time(pub(super) Duration);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_duration(text).map(Self)
    }
}

/// Reads a length of time with its unit.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: write a number and ms, s or m, such as 300ms");
    let (number, unit) = split_unit(text);
    let number: u32 = number.parse().map_err(|_not_a_number| wrong())?;
    match unit {
        "ms" => Ok(Duration::from_millis(u64::from(number))),
        "s" => Ok(Duration::from_secs(u64::from(number))),
        "m" => Ok(Duration::from_secs(u64::from(number) * 60)),
        _ => Err(wrong()),
    }
}

/// Reads a length of time that is not none.
pub(super) fn parse_some_time(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    if time.is_zero() { Err("it must be above zero".to_owned()) } else { Ok(time) }
}

/// A number of bytes: `4096`, `4096B`, `64KiB`, `64MiB`, `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ByteSize(pub(super) u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no size: write a number and B, KiB, MiB or GiB");
        let (number, unit) = split_unit(text);
        let number: u64 = number.parse().map_err(|_not_a_number| wrong())?;
        let unit: u64 = match unit {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(wrong()),
        };
        number.checked_mul(unit).map(Self).ok_or_else(wrong)
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    if planted!("F18") {
        return (text, &text[digits + 1..]);
    }
    let (number, unit) = text.split_at_checked(digits).unwrap_or((text, ""));
    (number, unit.trim())
}

/// Reads a field of a file as the same text that its flag takes.
fn text<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

/// Reads a list in a file whose elements are the texts that the flag takes.
fn texts<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let parsed: Result<Vec<T>, String> = texts.iter().map(|text| text.parse()).collect();
    parsed.map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use proptest::prelude::*;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    const FILE: &str = r#"
        cluster_id = "5e1f"
        node = 1
        members = ["1=a:1", "2=b:2", "3=c:3"]
        sync = "interval:20"
        election_timeout = "900ms"
        sessions_max = 7
    "#;

    fn line(flags: &[&str]) -> Settings {
        Line::try_parse_from(std::iter::once("serve").chain(flags.iter().copied()))
            .unwrap()
            .settings
    }

    fn config(flags: &[&str], file: &str) -> Result<NodeConfig, CliError> {
        line(flags).or(toml::from_str(file).unwrap()).into_node_config()
    }

    fn complaint(flags: &[&str]) -> String {
        config(flags, FILE).unwrap_err().to_string()
    }

    #[test]
    fn file_fills_what_flags_leave_open_and_defaults_the_rest() {
        let config = config(&["--node", "2", "--sync", "always"], FILE).unwrap();
        assert_eq!(config.node, NodeId(2), "the flag wins");
        assert_eq!(config.sync_policy, SyncPolicy::Always, "the flag wins");
        assert_eq!(config.cluster, ClusterId(0x5e1f));
        assert_eq!(config.listen, "b:2", "its address among the members");
        assert_eq!(config.election_timeout, Duration::from_millis(900));
        assert_eq!(config.sessions_max, 7);
        assert_eq!(config.heartbeat_interval, Duration::from_millis(60), "the default");
    }

    /// The process runs itself once more, because variables cannot be set safely in a process.
    #[test]
    fn variable_wins_over_the_file_and_loses_to_the_flag() {
        const CHILD: &str = "MANGROVE_TEST_CONFIG_CHILD";
        if std::env::var_os(CHILD).is_some() {
            assert_eq!(config(&[], FILE).unwrap().node, NodeId(3), "variable over file");
            assert_eq!(config(&["--node", "2"], FILE).unwrap().node, NodeId(2), "flag first");
            return;
        }
        let name = "cli::config::tests::variable_wins_over_the_file_and_loses_to_the_flag";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(CHILD, "1")
            .env("MANGROVE_NODE", "3")
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"), "the child ran it");
    }

    #[test]
    fn unknown_field_of_a_file_is_refused() {
        let error = toml::from_str::<Settings>("elction_timeout = \"1s\"").unwrap_err();
        assert!(error.to_string().contains("elction_timeout"), "{error}");
        let error = toml::from_str::<Settings>("sync = \"sometimes\"").unwrap_err();
        assert!(error.to_string().contains("interval:MS"), "{error}");
    }

    #[test]
    fn complaints_say_what_to_do() {
        let missing = line(&[]).into_node_config().unwrap_err().to_string();
        assert!(missing.contains("--cluster-id"), "{missing}");
        for (flags, advice) in [
            (vec!["--node", "0"], "--node"),
            (vec!["--node", "4"], "--members"),
            (vec!["--members", "1=a:1,1=b:2"], "its own"),
            (vec!["--members", "1=a:1,2=a:1"], "its own"),
            (vec!["--heartbeat-interval", "800ms"], "lower the one"),
            (vec!["--heartbeat-interval", "0ms"], "above zero"),
            (vec!["--request-timeout", "10ms"], "--election-timeout"),
            (vec!["--wal-segment-bytes", "1KiB"], "at least"),
            (vec!["--requests-max", "0"], "between"),
            (vec!["--threads", "0"], "between 1 and 1024"),
            (vec!["--threads", "100000"], "between 1 and 1024"),
            (vec!["--listen", "here"], "host:port"),
            (vec!["--repair", "none"], "--mode masterless"),
            (vec!["--mode", "primary-backup", "--partitions", "7"], "--mode masterless"),
            (vec!["--mode", "masterless", "--replication-factor", "4"], "number of members"),
            (vec!["--mode", "masterless", "--replication-factor", "0"], "number of members"),
            (vec!["--mode", "masterless", "--partitions", "0"], "between"),
            (vec!["--mode", "masterless", "--members", "1=a:1,64=b:1"], "at most 63"),
        ] {
            let complaint = complaint(&flags);
            assert!(complaint.contains(advice), "{flags:?}: {complaint}");
        }
    }

    #[test]
    fn too_many_partitions_are_refused_with_the_real_limit() {
        for wrong in ["16385", "999999999", "-1", "many"] {
            assert!(parse_partitions(wrong).unwrap_err().contains("16384"), "{wrong}");
        }
        assert_eq!(parse_partitions("16384"), Ok(16384));
    }

    #[test]
    fn masterless_mode_has_defaults_that_fit_its_members() {
        let mode = |flags: &[&str], file: &str| match config(flags, file).unwrap().replication {
            Replication::PrimaryBackup => None,
            Replication::Masterless(mode) => {
                Some((mode.replication_factor, mode.partition_count, mode.repair.name()))
            }
        };
        assert_eq!(mode(&[], FILE), None);
        assert_eq!(mode(&["--mode", "primary-backup"], FILE), None);
        assert_eq!(mode(&["--mode", "masterless"], FILE), Some((3, 256, "both")));
        let file = format!("{FILE}\nmode = \"masterless\"\nrepair = \"hinted-handoff\"");
        let flags = ["--members", "1=a:1,2=b:2"];
        assert_eq!(mode(&flags, &file), Some((2, 256, "hinted-handoff")));
    }

    #[test]
    fn times_and_sizes_need_their_units() {
        assert_eq!("2m".parse(), Ok(Time(Duration::from_mins(2))));
        assert_eq!("64MiB".parse(), Ok(ByteSize(64 << 20)));
        assert_eq!("7".parse(), Ok(ByteSize(7)));
        assert_eq!("0B".parse(), Ok(ByteSize(0)));
        for wrong in ["", "5", "ms", "-1s", "1h", "5 seconds", "99999999999s"] {
            assert!(wrong.parse::<Time>().is_err(), "{wrong}");
        }
        for wrong in ["", "MiB", "1MB", "99999999999999999GiB"] {
            assert!(wrong.parse::<ByteSize>().is_err(), "{wrong}");
        }
        for wrong in ["", "interval:", "interval:0", "interval:1.5", "never"] {
            assert!(wrong.parse::<SyncSetting>().is_err(), "{wrong}");
        }
        for wrong in ["", "raft", "Masterless"] {
            assert!(wrong.parse::<ModeSetting>().is_err(), "{wrong}");
            assert!(wrong.parse::<RepairSetting>().is_err(), "{wrong}");
        }
        for wrong in ["1", "0=a:1", "a=b:1", "1=a", "1=:1", "1=a:99999", "1=a:0", "1=a:00"] {
            assert!(wrong.parse::<Member>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            // The results do not matter, only that there is one.
            let _parsed = (text.parse::<Time>(), text.parse::<ByteSize>());
            let _parsed = (text.parse::<SyncSetting>(), text.parse::<Member>());
            let _parsed = text.parse::<HexId>();
        }

        #[test]
        fn displayed_cluster_id_parses_back(id in any::<u64>()) {
            prop_assert_eq!(ClusterId(id).to_string().parse(), Ok(HexId(ClusterId(id))));
        }
    }
}
