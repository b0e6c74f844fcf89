//! One store that is measured: ours in either mode, or another one.

use std::io;
use std::path::{Path, PathBuf};

use super::{Options, directory_of};
use crate::base::ClusterId;
use crate::client::{Client, ClientOptions};
use crate::env::Env;
use crate::env::real::RealEnv;
use crate::trial::load::{self, Load, Outcome, Target, fill_each};
use crate::trial::peers::{Etcd, EtcdClient, Redis, RespConnection};
use crate::trial::{LocalCluster, NodeProcess};
use crate::wire::Level;

/// Nodes of a cluster of ours.
const NODES: usize = 3;

/// Connections by which another store is filled.
const FILL_CONNECTIONS: usize = 16;

/// See the [module](self).
pub(super) struct Subject {
    name: String,
    kind: Kind,
}

enum Kind {
    Mangrove { cluster: LocalCluster, level: Option<Level> },
    Etcd(Etcd),
    Redis(Redis),
}

/// Connections to a store.
pub(super) enum Connections {
    Mangrove(Vec<Client<RealEnv>>),
    Etcd(Vec<EtcdClient>),
    Redis(Vec<RespConnection>),
}

impl Subject {
    /// Starts every store that is to be measured and is there.
    pub(super) async fn start_all(
        env: &RealEnv,
        options: &Options,
        notes: &mut Vec<String>,
        on_step: &mut impl FnMut(&str),
    ) -> io::Result<Vec<Self>> {
        let mut subjects = Vec::new();
        for (name, level) in [
            ("primary-backup", None),
            ("masterless, quorum", Some(Level::Quorum)),
            ("masterless, one", Some(Level::One)),
        ] {
            on_step(&format!("starting {name}"));
            let Options { program, directory, .. } = options;
            subjects
                .push(Self::start_cluster(env, program, directory, name.to_owned(), level).await?);
        }
        if !options.peers {
            notes.push("other stores were not asked for: --peers measures them, too".to_owned());
            return Ok(subjects);
        }
        on_step("starting etcd and Redis");
        let missing =
            |what: &str| format!("{what} is not installed: it is not on the PATH, and left out");
        let directory = |name| -> io::Result<PathBuf> {
            let directory = directory_of(&options.directory, name);
            std::fs::create_dir_all(&directory)?;
            Ok(directory)
        };
        let name = "etcd, 3 members";
        match Etcd::start(env, &directory(name)?).await? {
            Some(etcd) => subjects.push(Self { name: name.to_owned(), kind: Kind::Etcd(etcd) }),
            None => notes.push(missing("etcd")),
        }
        for (name, replica_count) in [("redis, alone", 0), ("redis, 2 replicas", 2)] {
            match Redis::start(env, &directory(name)?, replica_count).await? {
                Some(redis) => {
                    subjects.push(Self { name: name.to_owned(), kind: Kind::Redis(redis) });
                }
                None => notes.push(missing(name)),
            }
        }
        Ok(subjects)
    }

    /// Starts a cluster of ours, whose nodes keep their data in a directory below `directory`; it
    /// is asked at `level`, or has a leader if there is none.
    pub(super) async fn start_cluster(
        env: &RealEnv,
        program: &Path,
        directory: &Path,
        name: String,
        level: Option<Level>,
    ) -> io::Result<Self> {
        let directory = directory_of(directory, &name);
        std::fs::create_dir_all(&directory)?;
        let mode = if level.is_some() { "masterless" } else { "primary-backup" };
        let arguments = ["--mode".to_owned(), mode.to_owned()];
        let id = ClusterId(env.rng(&name).next_u64());
        let mut cluster = LocalCluster::prepare(program, &directory, NODES, id, &arguments);
        cluster.start_all()?;
        let client = client_of(env, cluster.addresses().to_vec(), level);
        // A masterless node takes part when it has heard all others: a write at once would be
        // early.
        client.set("ready", "yes").await.map_err(io::Error::other)?;
        Ok(Self { name, kind: Kind::Mangrove { cluster, level } })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn directory(&self, all: &Path) -> PathBuf {
        directory_of(all, &self.name)
    }

    /// Tells whether others take over when one of its processes dies.
    pub(super) fn has_others(&self) -> bool {
        !matches!(self.kind, Kind::Redis(_))
    }

    pub(super) fn process_ids(&self) -> Vec<u32> {
        match &self.kind {
            Kind::Mangrove { cluster, .. } => cluster.process_ids(),
            Kind::Etcd(etcd) => etcd.process_ids(),
            Kind::Redis(redis) => redis.process_ids(),
        }
    }

    pub(super) async fn connect(&self, env: &RealEnv, count: usize) -> io::Result<Connections> {
        Ok(match &self.kind {
            Kind::Mangrove { cluster, level } => {
                let clients = (0..count).map(|number| {
                    let mut addresses = cluster.addresses().to_vec();
                    if level.is_some() {
                        // Every node takes requests.
                        addresses.rotate_left(number % NODES);
                    }
                    client_of(env, addresses, *level)
                });
                Connections::Mangrove(clients.collect())
            }
            Kind::Etcd(etcd) => Connections::Etcd(etcd.connect(env, count).await?),
            Kind::Redis(redis) => Connections::Redis(redis.connect(env, count).await?),
        })
    }

    /// Writes so many cells, as fast as the store takes them: a cluster of ours in batches.
    pub(super) async fn fill(
        &self,
        env: &RealEnv,
        count: u32,
        value_bytes: usize,
    ) -> io::Result<()> {
        let filled = match &self.kind {
            Kind::Mangrove { cluster, level } => {
                let client = client_of(env, cluster.addresses().to_vec(), *level);
                let cells = (0, u64::from(count));
                let filled = load::fill(&client, cells, value_bytes, |_| {}).await;
                filled.map_err(|error| error.to_string())
            }
            Kind::Etcd(etcd) => {
                let targets = etcd.connect(env, FILL_CONNECTIONS).await?;
                fill_each(&targets, count, value_bytes)
                    .await
                    .map_err(|failure| failure.0.to_owned())
            }
            Kind::Redis(redis) => {
                let targets = redis.connect(env, FILL_CONNECTIONS).await?;
                fill_each(&targets, count, value_bytes)
                    .await
                    .map_err(|failure| failure.0.to_owned())
            }
        };
        filled.map_err(|why| io::Error::other(format!("{}: {why}", self.name)))
    }

    /// Returns which of its processes leads; in the masterless mode the first.
    pub(super) async fn leader(&self, env: &RealEnv) -> io::Result<usize> {
        match &self.kind {
            Kind::Mangrove { cluster, level: None } => leader_of(env, cluster).await,
            Kind::Mangrove { .. } | Kind::Redis(_) => Ok(0),
            Kind::Etcd(etcd) => etcd.leader(env).await,
        }
    }

    /// Kills one of its processes.
    pub(super) fn kill(&mut self, process: usize) -> io::Result<()> {
        let ended = match &mut self.kind {
            Kind::Mangrove { cluster, .. } => cluster.node(process + 1).kill()?,
            Kind::Etcd(etcd) => etcd.member(process).map_or(Ok(None), NodeProcess::kill)?,
            Kind::Redis(_) => None,
        };
        match ended {
            None => Ok(()),
            Some(status) => Err(io::Error::other(format!("{} had ended: {status}", self.name))),
        }
    }

    /// Starts one of its processes again.
    pub(super) fn start(&mut self, process: usize) -> io::Result<()> {
        match &mut self.kind {
            Kind::Mangrove { cluster, .. } => cluster.node(process + 1).start(),
            Kind::Etcd(etcd) => etcd.member(process).map_or(Ok(()), NodeProcess::start),
            Kind::Redis(_) => Ok(()),
        }
    }
}

impl Connections {
    pub(super) async fn run(&self, env: &RealEnv, load: &Load) -> Outcome {
        match self {
            Self::Mangrove(targets) => run_on(env, targets, load).await,
            Self::Etcd(targets) => run_on(env, targets, load).await,
            Self::Redis(targets) => run_on(env, targets, load).await,
        }
    }
}

async fn run_on<T: Target>(env: &RealEnv, targets: &[T], load: &Load) -> Outcome {
    load::run(env, targets, load, |_elapsed, _answered| {}).await
}

fn client_of(env: &RealEnv, addresses: Vec<String>, level: Option<Level>) -> Client<RealEnv> {
    let level = level.unwrap_or_default();
    let options = ClientOptions { level, ..ClientOptions::default() };
    Client::connect(env.clone(), addresses, options)
}

async fn leader_of(env: &RealEnv, cluster: &LocalCluster) -> io::Result<usize> {
    let client = client_of(env, cluster.addresses().to_vec(), None);
    // There is one when this is answered.
    client.get("ready").await.map_err(io::Error::other)?;
    for (process, address) in cluster.addresses().iter().enumerate() {
        if client.status(address).await.is_ok_and(|status| status.role == "leader") {
            return Ok(process);
        }
    }
    Err(io::Error::other("no node says that it leads"))
}
