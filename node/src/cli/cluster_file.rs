//! `cluster.toml`: what a cluster on this machine is made of, so that a second start finds it.
//!
//! # Layout
//! ```toml
//! cluster_id = "5e1f0c0ffee5e1f0"
//! mode = "masterless"        # absent: primary-backup
//! replication_factor = 3     # of the masterless mode, as is what follows
//! partitions = 256
//!
//! [[node]]
//! id = 1
//! address = "127.0.0.1:7101"
//! ```

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::TcpListener;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::CliError;
use super::config::{HexId, ModeSetting, RepairSetting, replication};
use super::files::NewFile;
use super::serve::open_data;
use crate::base::{ClusterId, NodeId};
use crate::env::Env as _;
use crate::replica::{NAME_PLATE, cluster_of, mode_of};

/// Nodes of a cluster that nobody said a number for.
const NODES_DEFAULT: u16 = 3;

/// Port of the first node of a new cluster, unless another one is asked for.
pub(super) const BASE_PORT_DEFAULT: u16 = 7101;

/// Name of the file.
pub(super) const NAME: &str = "cluster.toml";

/// The content of `cluster.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClusterFile {
    /// In hexadecimal.
    pub(super) cluster_id: String,
    /// How it replicates; `None` for the primary-backup mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mode: Option<String>,
    /// Replicas of each key, in the masterless mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) replication_factor: Option<usize>,
    /// Partitions, in the masterless mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) partitions: Option<u16>,
    /// Every node.
    #[serde(rename = "node")]
    pub(super) nodes: Vec<NodeEntry>,
}

/// What is wanted of a cluster; `None` where any will do.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wanted {
    pub(super) nodes_count: Option<u16>,
    pub(super) base_port: u16,
    pub(super) mode: Option<ModeSetting>,
    pub(super) replication_factor: Option<usize>,
    pub(super) partitions: Option<u16>,
    /// Not kept: it may be another one at every start.
    pub(super) repair: Option<RepairSetting>,
}

/// One node of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeEntry {
    pub(super) id: u64,
    pub(super) address: String,
}

impl ClusterFile {
    /// Reads the file in `dir`, or makes one if there is none; tells whether it was made.
    ///
    /// # Errors
    /// It cannot be read or written, it says something else than is wanted, or the nodes would
    /// refuse what is wanted.
    pub(super) fn open(
        dir: &Path,
        wanted: Wanted,
        new_id: ClusterId,
    ) -> Result<(Self, bool), CliError> {
        if let Some(file) = Self::read(dir, wanted)? {
            return Ok((file, false));
        }
        let file = Self::new(wanted, new_id)?;
        file.check_replication(wanted)?;
        let path = dir.join(NAME);
        fs::create_dir_all(dir)
            .map_err(|error| CliError::io(format!("cannot write {}", path.display()), &error))?;
        let place = NewFile::create(&path)?;
        // Another start may have been quicker.
        if let Some(file) = Self::read(dir, wanted)? {
            return Ok((file, false));
        }
        file.write(place)?;
        Ok((file, true))
    }

    /// Reads the file in `dir`, if there is one, and checks that it is as wanted.
    fn read(dir: &Path, wanted: Wanted) -> Result<Option<Self>, CliError> {
        let path = dir.join(NAME);
        let shown = path.display();
        match fs::read_to_string(&path) {
            Ok(text) => {
                let file: Self = toml::from_str(&text)
                    .map_err(|error| CliError::Usage(format!("{shown}: {error}")))?;
                file.check(dir, wanted)?;
                Ok(Some(file))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CliError::io(format!("cannot read {shown}"), &error)),
        }
    }

    /// Refuses to make a cluster where nodes of one are whose file is gone: its id would be another
    /// one, which they refuse, and the wrong file would stay.
    pub(super) async fn check_founding(dir: &Path, wanted: Wanted) -> Result<(), CliError> {
        // In this order: another start makes the file before any node.
        let nodes = nodes_in(dir);
        if nodes.is_empty() || dir.join(NAME).exists() {
            return Ok(());
        }
        let (mut cluster, mut mode) = (None, None);
        for id in &nodes {
            // One that runs is locked, and another one can tell as well.
            let Ok(env) = open_data(&dir.join(format!("n{id}"))) else { continue };
            cluster = cluster.or(cluster_of(env.disk()).await);
            mode = mode.or(mode_of(env.disk()).await);
        }
        let file = Self {
            cluster_id: cluster.map_or("?".to_owned(), |id| id.to_string()),
            mode: mode
                .filter(|mode| mode.is_masterless())
                .map(|_| ModeSetting::Masterless.name().to_owned()),
            replication_factor: wanted.replication_factor,
            partitions: wanted.partitions,
            nodes: nodes
                .iter()
                .zip(BASE_PORT_DEFAULT..)
                .map(|(id, port)| NodeEntry { id: *id, address: format!("127.0.0.1:{port}") })
                .collect(),
        };
        let text = file.to_text()?;
        let shown = dir.display();
        let names: Vec<_> = nodes.iter().map(|id| format!("n{id}")).collect();
        Err(CliError::Usage(format!(
            "{shown} has data of {}, but no {NAME}, which says what cluster they are: no new one \
             is made over them",
            names.join(", ")
        ))
        .advise(format!(
            "put the file back, or write it: as below if that is every node, with any addresses \
             that are free, and with replication_factor and partitions if they had been chosen; or \
             make another cluster with --data\n\n{}",
            text.trim_end()
        )))
    }

    /// Tells whether the first node listens at this port.
    pub(super) fn begins_at(&self, port: u16) -> bool {
        let first = self.nodes.first().and_then(|node| node.address.rsplit_once(':'));
        first.is_some_and(|(_, first)| first.parse() == Ok(port))
    }

    /// Returns all addresses, separated by commas.
    pub(super) fn addresses(&self) -> String {
        self.nodes.iter().map(|node| node.address.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Returns all nodes in the form of `serve --members`.
    pub(super) fn members(&self) -> String {
        let members = self.nodes.iter().map(|node| format!("{}={}", node.id, node.address));
        members.collect::<Vec<_>>().join(",")
    }

    /// Returns how it replicates.
    pub(super) fn mode(&self) -> &str {
        self.mode.as_deref().unwrap_or(ModeSetting::PrimaryBackup.name())
    }

    /// Returns what every node needs to be told about how the cluster replicates. The mode is
    /// always named: where it is not, the environment of a node may name another one.
    pub(super) fn replication_flags(&self) -> Vec<String> {
        let flag = |name: &str, value: Option<String>| {
            value.map_or_else(Vec::new, |value| vec![name.to_owned(), value])
        };
        [
            flag("--mode", Some(self.mode().to_owned())),
            flag("--replication-factor", self.replication_factor.map(|n| n.to_string())),
            flag("--partitions", self.partitions.map(|n| n.to_string())),
        ]
        .concat()
    }

    fn new(wanted: Wanted, id: ClusterId) -> Result<Self, CliError> {
        let (base_port, nodes_count) =
            (wanted.base_port, wanted.nodes_count.unwrap_or(NODES_DEFAULT));
        // All ports stay open until all are chosen, so that none is chosen twice.
        let mut listeners = Vec::new();
        let mut nodes = Vec::new();
        for position in 0..nodes_count {
            let wanted = base_port.checked_add(position).unwrap_or_default();
            let listener = TcpListener::bind(("127.0.0.1", wanted))
                .or_else(|_in_use| TcpListener::bind(("127.0.0.1", 0)));
            let address = listener.and_then(|listener| {
                let address = listener.local_addr();
                listeners.push(listener);
                address
            });
            let address =
                address.map_err(|error| CliError::io("cannot find a free port", &error))?;
            nodes.push(NodeEntry { id: u64::from(position) + 1, address: address.to_string() });
        }
        let mode = wanted.mode.filter(|mode| *mode != ModeSetting::PrimaryBackup);
        Ok(Self {
            cluster_id: id.to_string(),
            mode: mode.map(|mode| mode.name().to_owned()),
            replication_factor: wanted.replication_factor,
            partitions: wanted.partitions,
            nodes,
        })
    }

    /// Refuses what the nodes would refuse: what is once in the file stays there.
    fn check_replication(&self, wanted: Wanted) -> Result<(), CliError> {
        let members = self.nodes.iter().map(|node| (NodeId(node.id), node.address.clone()));
        let chosen = (wanted.replication_factor, wanted.partitions, wanted.repair);
        replication(wanted.mode, chosen, &members.collect::<Vec<_>>()).map(|_replication| ())
    }

    fn check(&self, dir: &Path, wanted: Wanted) -> Result<(), CliError> {
        let shown = dir.display();
        self.cluster_id
            .parse::<HexId>()
            .map_err(|error| CliError::Usage(format!("{shown}/{NAME}: {error}")))?;
        let other = |flag: &str, is: String, wanted: String| {
            Err(CliError::Usage(format!(
                "the cluster in {shown} has {is}, not {wanted}: leave --{flag} out, or make \
                 another cluster with --data"
            )))
        };
        let count = usize::from;
        if let Some(nodes) = wanted.nodes_count.filter(|nodes| count(*nodes) != self.nodes.len()) {
            return other("nodes", format!("{} nodes", self.nodes.len()), nodes.to_string());
        }
        let mode = self.mode();
        if let Some(wanted) = wanted.mode.filter(|wanted| wanted.name() != mode) {
            return other("mode", format!("the mode {mode}"), wanted.name().to_owned());
        }
        let factor = wanted.replication_factor;
        if let Some(wanted) = factor.filter(|wanted| Some(*wanted) != self.replication_factor) {
            let is = self.replication_factor.map_or("no".to_owned(), |is| is.to_string());
            let is = format!("{is} replication factor");
            return other("replication-factor", is, wanted.to_string());
        }
        let partitions = wanted.partitions;
        if let Some(wanted) = partitions.filter(|wanted| Some(*wanted) != self.partitions) {
            let is = self.partitions.map_or("no".to_owned(), |is| is.to_string());
            return other("partitions", format!("{is} partitions"), wanted.to_string());
        }
        Ok(())
    }

    /// Refuses to start nodes whose ports are in use, most likely by themselves.
    pub(super) fn check_ports(&self) -> Result<(), CliError> {
        for NodeEntry { id, address } in &self.nodes {
            if let Err(error) = TcpListener::bind(address) {
                return Err(CliError::io(format!("n{id} cannot use {address}"), &error).advise(
                    "if this cluster runs already, use it or stop it; else stop what uses its \
                     port, or make another cluster with --data"
                        .to_owned(),
                ));
            }
        }
        Ok(())
    }

    /// Writes the file as a whole: a half written one would lose where the data is.
    fn write(&self, mut place: NewFile) -> Result<(), CliError> {
        let text = self.to_text()?;
        place.write_all(text.as_bytes()).map_err(|error| place.failed(&error))?;
        place.finish()
    }

    fn to_text(&self) -> Result<String, CliError> {
        toml::to_string(self)
            .map_err(|error| CliError::Failed(format!("cannot write {NAME}: {error}")))
    }
}

/// Returns the nodes that have data in a directory.
fn nodes_in(dir: &Path) -> Vec<u64> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let numbers = entries.filter_map(|entry| {
        let id = entry.file_name().to_str()?.strip_prefix('n')?.parse().ok()?;
        entry.path().join(NAME_PLATE).exists().then_some(id)
    });
    let mut nodes: Vec<u64> = numbers.collect();
    nodes.sort_unstable();
    nodes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn open(dir: &Path, count: Option<u16>, port: u16) -> Result<(ClusterFile, bool), CliError> {
        let wanted = Wanted { nodes_count: count, base_port: port, ..Wanted::default() };
        ClusterFile::open(dir, wanted, ClusterId(0xBEEF))
    }

    #[test]
    fn mode_is_remembered_and_another_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let masterless = Wanted {
            mode: Some(ModeSetting::Masterless),
            replication_factor: Some(2),
            ..Wanted::default()
        };
        let open = |wanted| ClusterFile::open(dir.path(), wanted, ClusterId(1));
        let (made, _) = open(masterless).unwrap();
        assert_eq!(made.replication_flags(), ["--mode", "masterless", "--replication-factor", "2"]);
        assert_eq!(open(Wanted::default()).unwrap(), (made, false), "without any flags");
        let other = Wanted { mode: Some(ModeSetting::PrimaryBackup), ..Wanted::default() };
        assert!(open(other).unwrap_err().to_string().contains("--mode"));
        let other = Wanted { replication_factor: Some(3), ..masterless };
        assert!(open(other).unwrap_err().to_string().contains("--replication-factor"));
    }

    #[test]
    fn mode_is_named_to_the_nodes_even_if_it_is_the_usual_one() {
        let dir = tempfile::tempdir().unwrap();
        let (usual, _) = open(dir.path(), None, 0).unwrap();
        assert_eq!(usual.replication_flags(), ["--mode", "primary-backup"]);
    }

    #[test]
    fn what_the_nodes_would_refuse_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let none = Wanted::default();
        let masterless = Wanted { mode: Some(ModeSetting::Masterless), ..none };
        let repair = Some("none".parse().unwrap());
        for (wanted, complaint) in [
            (Wanted { replication_factor: Some(2), ..none }, "--mode masterless"),
            (Wanted { partitions: Some(7), ..none }, "--mode masterless"),
            (Wanted { repair, ..none }, "--mode masterless"),
            (Wanted { replication_factor: Some(4), ..masterless }, "number of members"),
            (Wanted { partitions: Some(0), ..masterless }, "between"),
        ] {
            let refused = ClusterFile::open(dir.path(), wanted, ClusterId(1)).unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{refused}");
            assert!(refused.to_string().contains(complaint), "{refused}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        ClusterFile::open(dir.path(), Wanted { repair, ..masterless }, ClusterId(1)).unwrap();
    }

    #[test]
    fn second_start_finds_the_first_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("not/yet/there");
        let (made, is_new) = open(&dir, None, 0).unwrap();
        assert!(is_new);
        assert_eq!((made.nodes.len(), made.cluster_id.as_str()), (3, "000000000000beef"));
        assert_eq!(open(&dir, None, 9).unwrap(), (made.clone(), false));
        assert_eq!(open(&dir, Some(3), 9).unwrap(), (made, false));
        let error = open(&dir, Some(5), 9).unwrap_err();
        assert!(error.to_string().contains("has 3 nodes, not 5"), "{error}");
    }

    #[test]
    fn port_in_use_is_replaced_by_a_free_one() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let (file, _) = open(dir.path(), Some(5), port).unwrap();
        let addresses: BTreeSet<_> = file.nodes.iter().map(|node| &node.address).collect();
        assert_eq!(addresses.len(), 5);
        assert!(!addresses.contains(&taken.local_addr().unwrap().to_string()));
    }

    fn file_of(nodes: Vec<NodeEntry>) -> ClusterFile {
        let (mode, replication_factor, partitions) = (None, None, None);
        ClusterFile { cluster_id: "1".to_owned(), mode, replication_factor, partitions, nodes }
    }

    #[test]
    fn first_node_tells_where_a_cluster_begins() {
        let node = |id, address: &str| NodeEntry { id, address: address.to_owned() };
        let file = file_of(vec![node(1, "127.0.0.1:7101"), node(2, "127.0.0.1:9")]);
        assert!(file.begins_at(7101));
        assert!(!file.begins_at(9) && !file.begins_at(101));
        assert!(!file_of(Vec::new()).begins_at(7101));
    }

    #[test]
    fn cluster_that_runs_already_is_not_started_again() {
        let running = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = running.local_addr().unwrap().to_string();
        let nodes = vec![NodeEntry { id: 1, address: address.clone() }];
        let error = file_of(nodes).check_ports().unwrap_err();
        assert!(error.to_string().contains("runs already"), "{error}");
        assert!(error.to_string().contains(&address), "{error}");
    }

    /// The accident: a new id was chosen for nodes of a cluster whose file somebody had removed,
    /// all of them refused it, and the file with it stayed.
    #[test]
    fn no_cluster_is_made_over_nodes_whose_file_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let check = || {
            let found = ClusterFile::check_founding(dir.path(), Wanted::default());
            crate::cli::block_on(None, found)
        };
        check().unwrap();
        for node in ["n1", "n2"] {
            fs::create_dir(dir.path().join(node)).unwrap();
            fs::write(dir.path().join(node).join(NAME_PLATE), "whatever").unwrap();
        }
        fs::create_dir(dir.path().join("n3")).unwrap();
        fs::write(dir.path().join("n3.log"), "").unwrap();
        let error = check().unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(error.to_string().contains("n1, n2, but no cluster.toml"), "{error}");
        assert!(error.to_string().contains("cluster_id = "), "{error}");
        assert!(!dir.path().join(NAME).exists());
        let text = file_of(Vec::new()).to_text().unwrap();
        fs::write(dir.path().join(NAME), text).unwrap();
        check().unwrap();
    }

    #[test]
    fn of_two_first_starts_one_makes_the_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let place = NewFile::create(&dir.path().join(NAME)).unwrap();
        let error = open(dir.path(), None, 0).unwrap_err();
        assert!(error.to_string().contains("another command"), "{error}");
        let node = NodeEntry { id: 1, address: "127.0.0.1:9".to_owned() };
        file_of(vec![node]).write(place).unwrap();
        assert!(!open(dir.path(), None, 0).unwrap().1);
    }

    #[test]
    fn damaged_file_is_refused_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), "cluster_id = \"xyz\"\nnode = []\n").unwrap();
        let error = open(dir.path(), None, 0).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
    }
}
