//! The simulated world of Mangrove, and what is tested in it.
//!
//! [`world`] is the ground: machines with clocks, disks and a network that fail on purpose, all
//! derived from one seed. A run is `world::run_seed(seed, options, |world| async { … })`.
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
