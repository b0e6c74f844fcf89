//! Scenarios and suites of the simulation.

#[cfg(test)]
mod env_conformance;
#[cfg(test)]
mod world_disk;
#[cfg(test)]
mod world_net;
#[cfg(test)]
mod world_process;
#[cfg(test)]
mod world_speed;
