//! Other stores, started and asked in the same way, for comparison: etcd and Redis, where their
//! programs are installed.
//!
//! Each of them is set up to promise what Mangrove does, as nearly as it can: a write that is
//! acknowledged has been synced to disk. etcd replicates with Raft over three nodes, and its reads
//! are linearizable as ours are. Redis is a single thread of control: alone with `appendfsync
//! always` it syncs every write and has no other copy; with two replicas and `WAIT 1` a write is
//! acknowledged when one replica has it, too (in memory), and a failover may still lose it.
//!
//! # Left out
//! Clusters of Redis that elect: their writes are acknowledged by one node.

mod connection;
mod etcd;
mod grpc;
mod redis;
mod resp;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use self::etcd::{Etcd, EtcdClient};
pub use self::grpc::GrpcConnection;
pub use self::redis::Redis;
pub use self::resp::RespConnection;

/// Longest value that peers are asked to take: etcd's client here sends each request as one frame
/// of HTTP/2, and lets no answer be longer than the window that streams begin with.
pub const VALUE_BYTES_MAX: usize = 8 << 10;

/// Longest time for a store to become ready.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Returns where a program is, if it is on the `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

fn other(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}
