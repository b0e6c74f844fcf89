//! Mangrove: a replicated key-column-value store whose every failure can be replayed.
//!
//! One node program runs in two worlds: on real machines (tokio), and inside a deterministic
//! simulation that crashes nodes, loses fsyncs, tears writes, cuts the network and skews clocks,
//! all from one seed. Start reading at [`replica`] for how a node works, at [`raft`] for how
//! nodes agree, at [`storage`] for what survives, and at [`client`] to use a cluster.
//!
//! # Floors
//! A module imports only modules of lower floors; a test enforces it.
//!
//! | floor | modules | what it never knows |
//! |---|---|---|
//! | F0 | [`base`] | that a network exists |
//! | F1 | [`codec`], [`env`](mod@env) | what the bytes mean; which world it is |
//! | F2 | [`storage`], [`raft`], [`dynamo`] | one another; a command; (protocols) a clock, a disk |
//! | F3 | [`kv`] | which mode replicates it |
//! | F4 | [`wire`] | sockets |
//! | F5 | [`replica`], [`client`] | (replica) sockets; (client) storage |
//! | F6 | [`server`], [`trial`] | how replication works |
//! | top | [`cli`], `main` | |
//!
//! # Sources
//! - \[Raft\] D. Ongaro, J. Ousterhout: In Search of an Understandable Consensus Algorithm
//!   (extended version), 2014.
//! - \[Thesis\] D. Ongaro: Consensus: Bridging Theory and Practice, Stanford, 2014.
//! - \[Fsync '20\] A. Rebello et al.: Can Applications Recover from fsync Failures?, ATC 2020.
//! - \[CTRL '18\] R. Alagappan et al.: Protocol-Aware Recovery for Consensus-Based Storage,
//!   FAST 2018.
//! - \[Dynamo\] G. `DeCandia` et al.: Dynamo: Amazon's Highly Available Key-value Store, SOSP
//!   2007.
//! - \[HLC\] S. Kulkarni et al.: Logical Physical Clocks, OPODIS 2014.
//! - \[Phi\] N. Hayashibara et al.: The phi Accrual Failure Detector, SRDS 2004.
//! - \[Session '94\] D. Terry et al.: Session Guarantees for Weakly Consistent Replicated Data,
//!   PDIS 1994.
//! - \[ALICE '14\] T. Pillai et al.: All File Systems Are Not Created Equal, OSDI 2014.
//! - \[LSM '96\] P. O'Neil et al.: The Log-Structured Merge-Tree, Acta Informatica 33, 1996.
//! - \[Dostoevsky '18\] N. Dayan, S. Idreos: Dostoevsky: Better Space-Time Trade-Offs for LSM-Tree
//!   Based Key-Value Stores via Adaptive Removal of Superfluous Merging, SIGMOD 2018.
//! - \[RIFL '15\] C. Lee et al.: Implementing Linearizability at Large Scale and Low Latency,
//!   SOSP 2015.
#![cfg_attr(
    feature = "testing",
    expect(
        clippy::disallowed_macros,
        reason = "probe counters and planted-bug switches: one simulated run owns one thread"
    )
)]

pub mod base;

pub mod codec;
pub mod env;

pub mod dynamo;
pub mod raft;
pub mod storage;

pub mod kv;

pub mod wire;

pub mod client;
pub mod replica;

pub mod server;

pub mod trial;

pub mod cli;
