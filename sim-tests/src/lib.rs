//! The simulated world of Mangrove, and what is tested in it.
//!
//! [`world`] is the ground: machines with clocks, disks and a network that fail on purpose, all
//! derived from one seed. [`run::run`] is one run: the [`options`] of a seed, a [`cluster`] of
//! nodes, a [`workload`] that uses the shipped client library, a [`nemesis`], and a [`watch`] that
//! tells the checkers of [`check`] every step. [`swarm`] runs many seeds, [`hunt`] for hours;
//! [`bugs`] proves that planted bugs are found; [`compare`] shows both modes the same accidents;
//! [`liveness`] measures how fast a cluster is back. A run that failed is written down as a
//! [`case`], made small by [`shrink`], shown by [`report`], and continued in many ways by
//! [`branch`]. What a run is held to is said by [`atlas`], who is healed first by [`healing`].
#![expect(
    clippy::disallowed_macros,
    reason = "the panic hook of `world::run_seed` knows nothing but its thread"
)]

#[cfg(not(madsim))]
compile_error!(
    "sim-tests needs `--cfg madsim`, which .cargo/config.toml sets for the whole workspace; an \
     exported RUSTFLAGS replaces that setting: unset it, or add `--cfg madsim` to it"
);

#[cfg(madsim)]
pub mod world;

#[cfg(madsim)]
pub mod case;
pub mod check;
pub mod crash;
pub mod history;

#[cfg(madsim)]
pub mod deeds;
pub mod masterless;
#[cfg(madsim)]
pub mod nemesis;
#[cfg(madsim)]
pub mod operation;
pub mod options;

#[cfg(madsim)]
pub mod cluster;
#[cfg(madsim)]
pub mod watch;
#[cfg(madsim)]
pub mod workload;

pub mod atlas;
#[cfg(madsim)]
pub mod branch;
#[cfg(madsim)]
pub mod bugs;
#[cfg(madsim)]
pub mod compare;
#[cfg(madsim)]
pub mod determinism;
#[cfg(madsim)]
pub mod golden;
pub mod healing;
#[cfg(madsim)]
pub mod hunt;
#[cfg(madsim)]
pub mod liveness;
mod parallel;
#[cfg(madsim)]
pub mod report;
#[cfg(madsim)]
pub mod run;
#[cfg(madsim)]
pub mod shrink;
#[cfg(madsim)]
pub mod swarm;
