//! Starts, kills and restarts real nodes: what a simulation cannot show.
//!
//! The simulation proves the protocol; the tests of this package show that the shipped program
//! keeps its word with real sockets, real files and real processes that die of `kill -9`. They are
//! few, and each is about something that only exists in the real world: the lock on a data
//! directory, ports, signals, the command line, strangers' bytes, and how long a failover takes.
//!
//! How to write one: start a [`RealCluster`], talk to it through [`RealCluster::client`] or, to be
//! rude, through a [`Stranger`]; wait with [`eventually`], never with a bare sleep. When a test
//! fails, the end of every node's log is printed; when the cluster is dropped, its processes die.
//!
//! # Layout
//! ```text
//! program   builds the shipped program, once        cluster   nodes together, and who leads
//! node      one process, its directory and its log  stranger  a connection that obeys nobody
//! load      writers that remember promises          wait      eventually, with a limit
//! ```
//!
//! Processes and clusters of them are those of [`mangrove::trial`], which `mangrove crash-test` is
//! made of, too; here is what a test wants on top.
//!
//! # Left out
//! All that a power loss can leave of a write: a killed process loses nothing that the kernel
//! already has, and the layer under `power_loss` loses whole writes that were not synced. The
//! simulated disk in `sim-tests` is the one that tears and reorders.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this package is about the real world"
)]
#![expect(clippy::expect_used, reason = "a test harness stops the test when the machine fails it")]

mod cluster;
mod load;
mod node;
mod program;
mod stranger;
mod wait;

pub use mangrove::trial::free_address;

pub use cluster::RealCluster;
pub use load::{Load, Promises};
pub use node::{NodeProcess, Signal};
pub use program::{Running, program, run_program};
pub use stranger::{Received, Stranger};
pub use wait::{block_on, eventually};
