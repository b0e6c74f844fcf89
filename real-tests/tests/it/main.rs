//! What only real processes can show; see the crate `real_tests` for how to write one more.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests are about the real world"
)]
#![expect(clippy::expect_used, reason = "helpers of tests stop the test they help")]

mod acid;
mod backup;
mod cli;
mod cluster_command;
mod crash_test;
mod directory;
mod env_conformance;
mod failover;
mod hostile;
mod import;
mod kill_restart;
mod masterless;
mod measuring;
mod operator;
mod partition;
mod power_loss;
mod smoke;
