//! The shell: the one place where a protocol core meets the environment.

pub mod config;

pub use config::{NodeConfig, SyncPolicy};
