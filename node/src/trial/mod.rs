//! Trials on this machine: real processes, real kills, and what users were promised.
//!
//! `mangrove crash-test` and `mangrove compare` are made of this, and the tests of `real-tests`
//! start their nodes with it. The nodes are this very program, run as `mangrove serve`; whoever
//! talks to them does so through the client library and sees no more than any user.
//!
//! A trial is no simulation: it has the timing of the machine that it runs on, so a seed repeats
//! what was chosen and not what happened. What it adds is everything that a simulation replaces:
//! the kernel's files, sockets and processes, and the program as it is shipped.
//!
//! # Layout
//! ```text
//! process  one node: started, paused, killed        ports  addresses that stay ours
//! cluster  nodes together                           crash  kills under load, and what must be left
//! load     requests, and how long they took         peers  other stores, asked in the same way
//! usage    what processes use, says the kernel       chart  lines as SVG
//! compare  stores side by side                   page   one file of HTML
//! ```
//!
//! # Left out
//! Power loss of the machine: a killed process loses nothing that the kernel already has. Two
//! things stand in for it: nodes that lose what they wrote to their tables
//! ([`Client::with_debug_table_loss`](crate::client::Client::with_debug_table_loss)), and the
//! simulated disk of `sim-tests`, which forgets whatever was not synced.

pub mod chart;
mod cluster;
pub mod compare;
pub mod crash;
pub mod load;
pub mod page;
pub mod peers;
mod ports;
mod process;
pub mod usage;

pub use cluster::LocalCluster;
pub use ports::free_address;
pub use process::{NodeProcess, Signal};
