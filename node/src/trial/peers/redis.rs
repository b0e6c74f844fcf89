//! Redis on this machine: a single one, or one with two replicas.

use std::io;
use std::path::Path;

use super::resp::Reply;
use super::{LOOK_PAUSE, RespConnection, START_LIMIT, find_program, other};
use crate::env::Env;
use crate::env::real::RealEnv;
use crate::trial::{NodeProcess, free_address};

/// A server with `appendfsync always`, and its replicas; they die with this value.
#[derive(Debug)]
pub struct Redis {
    servers: Vec<NodeProcess>,
    address: String,
    waits: bool,
}

impl Redis {
    /// Starts a server with so many replicas, with their data in `directory`; `None` if Redis is
    /// not installed.
    ///
    /// # Errors
    /// It is installed and does not start.
    pub async fn start(
        env: &RealEnv,
        directory: &Path,
        replica_count: usize,
    ) -> io::Result<Option<Self>> {
        let Some(program) = find_program("redis-server") else { return Ok(None) };
        let mut servers = Vec::new();
        let address = free_address();
        let addresses: Vec<String> = std::iter::once(address.clone())
            .chain((0..replica_count).map(|_| free_address()))
            .collect();
        for (server, own) in addresses.iter().enumerate() {
            let data = directory.join(format!("r{server}"));
            std::fs::create_dir_all(&data)?;
            let leader = (server > 0).then_some(address.as_str());
            let command = command(&program, own, &data, leader);
            let mut process = NodeProcess::new(command, &directory.join(format!("r{server}.log")));
            process.start()?;
            servers.push(process);
        }
        let redis = Self { servers, address, waits: replica_count > 0 };
        redis.wait_until_ready(env, replica_count).await?;
        Ok(Some(redis))
    }

    async fn wait_until_ready(&self, env: &RealEnv, replica_count: usize) -> io::Result<()> {
        let begun = env.now();
        let wanted = i64::try_from(replica_count).unwrap_or(i64::MAX);
        let count = replica_count.to_string();
        loop {
            if let Ok(connection) = RespConnection::connect(env, &self.address, false).await
                && connection.command(&[b"SET", b"ready", b"yes"]).await.is_ok()
                && let Ok(Reply::Number(have)) =
                    connection.command(&[b"WAIT", count.as_bytes(), b"500"]).await
                && have >= wanted
            {
                return Ok(());
            }
            if env.now().since(begun) > START_LIMIT {
                let log = self.servers.first().map(NodeProcess::log_tail).unwrap_or_default();
                return Err(other(format!("Redis is not ready within {START_LIMIT:?}: {log}")));
            }
            env.sleep(LOOK_PAUSE).await;
        }
    }

    /// Opens so many connections to the server that takes writes.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn connect(&self, env: &RealEnv, count: usize) -> io::Result<Vec<RespConnection>> {
        let mut connections = Vec::new();
        for _ in 0..count {
            connections.push(RespConnection::connect(env, &self.address, self.waits).await?);
        }
        Ok(connections)
    }

    /// Returns the ids of all processes.
    pub fn process_ids(&self) -> Vec<u32> {
        self.servers.iter().filter_map(NodeProcess::process_id).collect()
    }
}

/// Returns the command of a server, of a replica if it has a leader.
fn command(program: &Path, address: &str, data: &Path, leader: Option<&str>) -> Vec<String> {
    let mut command = vec![program.display().to_string()];
    for (flag, value) in [
        ("--port", port_of(address)),
        ("--bind", "127.0.0.1"),
        ("--dir", &data.display().to_string()),
        ("--appendonly", "yes"),
        ("--appendfsync", "always"),
        ("--save", ""),
        ("--daemonize", "no"),
    ] {
        command.extend([flag.to_owned(), value.to_owned()]);
    }
    if let Some(leader) = leader {
        // Two arguments: Redis before 7 does not take one apart.
        let host = leader.split(':').next().unwrap_or_default();
        command.extend(["--replicaof", host, port_of(leader)].map(str::to_owned));
    }
    command
}

fn port_of(address: &str) -> &str {
    address.rsplit(':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replica_is_told_its_leader_in_two_arguments() {
        let command = |leader| command(Path::new("r"), "127.0.0.1:2", Path::new("d"), leader);
        let replica = command(Some("127.0.0.1:1"));
        assert_eq!(&replica[replica.len() - 3..], ["--replicaof", "127.0.0.1", "1"]);
        assert_eq!(replica[1..3], ["--port", "2"]);
        assert!(!command(None).contains(&"--replicaof".to_owned()));
    }
}
