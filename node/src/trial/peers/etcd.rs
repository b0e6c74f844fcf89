//! A cluster of etcd on this machine.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;

use super::{GrpcConnection, LOOK_PAUSE, START_LIMIT, find_program, other};
use crate::env::Env;
use crate::env::real::RealEnv;
use crate::trial::load::{Failure, Target};
use crate::trial::{NodeProcess, free_address};

/// Members of the cluster.
const MEMBERS: usize = 3;

/// Largest history that it keeps, so that it does not refuse writes in the middle of a run.
const QUOTA_BYTES: u64 = 8 << 30;

/// Three members, as real processes; they die with this value.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<NodeProcess>,
    clients: Vec<String>,
}

impl Etcd {
    /// Starts a cluster with its data in `directory`; `None` if etcd is not installed.
    ///
    /// # Errors
    /// It is installed and does not start.
    pub async fn start(env: &RealEnv, directory: &Path) -> io::Result<Option<Self>> {
        let Some(program) = find_program("etcd") else { return Ok(None) };
        let clients: Vec<String> = (0..MEMBERS).map(|_| free_address()).collect();
        let peers: Vec<String> = (0..MEMBERS).map(|_| free_address()).collect();
        let names = (0..MEMBERS).map(|member| format!("e{member}"));
        let cluster: Vec<String> =
            names.zip(&peers).map(|(name, peer)| format!("{name}=http://{peer}")).collect();
        let mut members = Vec::new();
        for (member, (client, peer)) in clients.iter().zip(&peers).enumerate() {
            let name = format!("e{member}");
            let mut command = vec![program.display().to_string()];
            for (flag, value) in [
                ("--name", name.clone()),
                ("--data-dir", directory.join(&name).display().to_string()),
                ("--listen-client-urls", format!("http://{client}")),
                ("--advertise-client-urls", format!("http://{client}")),
                ("--listen-peer-urls", format!("http://{peer}")),
                ("--initial-advertise-peer-urls", format!("http://{peer}")),
                ("--initial-cluster", cluster.join(",")),
                ("--initial-cluster-state", "new".to_owned()),
                ("--quota-backend-bytes", QUOTA_BYTES.to_string()),
                ("--log-level", "error".to_owned()),
                ("--logger", "zap".to_owned()),
            ] {
                command.extend([flag.to_owned(), value]);
            }
            let mut process = NodeProcess::new(command, &directory.join(format!("{name}.log")));
            process.start()?;
            members.push(process);
        }
        let etcd = Self { members, clients };
        etcd.wait_until_ready(env).await?;
        Ok(Some(etcd))
    }

    async fn wait_until_ready(&self, env: &RealEnv) -> io::Result<()> {
        let begun = env.now();
        loop {
            for address in &self.clients {
                let Ok(connection) = GrpcConnection::connect(env, address).await else { continue };
                if connection.set("ready".into(), "yes".into()).await.is_ok() {
                    return Ok(());
                }
            }
            if env.now().since(begun) > START_LIMIT {
                let log = self.members.first().map(NodeProcess::log_tail).unwrap_or_default();
                return Err(other(format!("etcd is not ready within {START_LIMIT:?}: {log}")));
            }
            env.sleep(LOOK_PAUSE).await;
        }
    }

    /// Opens so many connections to the member that leads, where requests take the shortest way:
    /// that of a client that knows the leader, as ours does.
    ///
    /// # Errors
    /// A member cannot be reached.
    pub async fn connect(&self, env: &RealEnv, count: usize) -> io::Result<Vec<EtcdClient>> {
        let leader = self.leader(env).await?;
        let mut clients = Vec::new();
        for _ in 0..count {
            let client = EtcdClient {
                env: env.clone(),
                addresses: self.clients.clone(),
                member: Cell::new(leader),
                connection: RefCell::new(None),
            };
            client.connection().await.map_err(|failure| other(failure.0))?;
            clients.push(client);
        }
        Ok(clients)
    }

    /// Returns which member leads.
    ///
    /// # Errors
    /// None of them says that it does.
    pub async fn leader(&self, env: &RealEnv) -> io::Result<usize> {
        let begun = env.now();
        loop {
            for (member, address) in self.clients.iter().enumerate() {
                let Ok(connection) = GrpcConnection::connect(env, address).await else { continue };
                if connection.leads().await == Some(true) {
                    return Ok(member);
                }
            }
            if env.now().since(begun) > START_LIMIT {
                return Err(other("no member of etcd leads"));
            }
            env.sleep(LOOK_PAUSE).await;
        }
    }

    /// Returns the process of a member.
    pub fn member(&mut self, member: usize) -> Option<&mut NodeProcess> {
        self.members.get_mut(member)
    }

    /// Returns the ids of all processes.
    pub fn process_ids(&self) -> Vec<u32> {
        self.members.iter().filter_map(NodeProcess::process_id).collect()
    }
}

/// A client with one connection, which it opens to the next member when one fails.
#[derive(Debug)]
pub struct EtcdClient {
    env: RealEnv,
    addresses: Vec<String>,
    member: Cell<usize>,
    connection: RefCell<Option<Rc<GrpcConnection>>>,
}

impl EtcdClient {
    async fn connection(&self) -> Result<Rc<GrpcConnection>, Failure> {
        if let Some(connection) = &*self.connection.borrow() {
            return Ok(Rc::clone(connection));
        }
        let address = self.addresses.get(self.member.get()).map_or("", String::as_str);
        let Ok(connection) = GrpcConnection::connect(&self.env, address).await else {
            self.go_on();
            return Err(Failure("not connected"));
        };
        let connection = Rc::new(connection);
        *self.connection.borrow_mut() = Some(Rc::clone(&connection));
        Ok(connection)
    }

    fn go_on(&self) {
        self.member.set((self.member.get() + 1) % self.addresses.len().max(1));
    }

    /// Leaves a connection that has failed, unless another request has done so.
    fn leave(&self, failed: &Rc<GrpcConnection>) {
        let mut connection = self.connection.borrow_mut();
        if connection.as_ref().is_some_and(|now| Rc::ptr_eq(now, failed)) {
            *connection = None;
            self.go_on();
        }
    }
}

impl Target for EtcdClient {
    async fn set(&self, key: Bytes, value: Bytes) -> Result<(), Failure> {
        let connection = self.connection().await?;
        let done = connection.set(key, value).await;
        if done.is_err() {
            self.leave(&connection);
        }
        done
    }

    async fn get(&self, key: Bytes) -> Result<Option<Bytes>, Failure> {
        let connection = self.connection().await?;
        let found = connection.get(key).await;
        if found.is_err() {
            self.leave(&connection);
        }
        found
    }
}
