//! Mangrove: a replicated key-column-value store whose every failure can be replayed.
#![cfg_attr(
    feature = "testing",
    expect(
        clippy::disallowed_macros,
        reason = "probe counters and planted-bug switches: one simulated run owns one thread"
    )
)]

pub mod base;
pub mod cli;
pub mod client;
pub mod codec;
pub mod env;
pub mod kv;
pub mod raft;
pub mod replica;
pub mod server;
pub mod storage;
pub mod wire;
