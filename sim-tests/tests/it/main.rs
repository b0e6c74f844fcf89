//! Scenarios and suites of the simulation.

mod env_conformance;
mod world_disk;
mod world_net;
mod world_process;
mod world_speed;
