//! Scenarios and suites of the simulation.

#[cfg(all(test, madsim))]
mod atlas;
#[cfg(all(test, madsim))]
mod branch;
#[cfg(all(test, madsim))]
mod case;
#[cfg(test)]
mod check_fuzz;
#[cfg(test)]
mod check_hand;
#[cfg(test)]
mod check_invariants;
#[cfg(test)]
mod check_naive;
#[cfg(test)]
mod check_random;
#[cfg(test)]
mod check_replay;
#[cfg(test)]
mod check_speed;
#[cfg(all(test, madsim))]
mod command_line;
#[cfg(all(test, madsim))]
mod compare;
#[cfg(all(test, madsim))]
mod crash_points;
#[cfg(all(test, madsim))]
mod determinism;
#[cfg(test)]
mod env_conformance;
#[cfg(all(test, madsim))]
mod golden;
#[cfg(all(test, madsim))]
mod liveness;
#[cfg(all(test, madsim))]
mod masterless_scenarios;
#[cfg(all(test, madsim))]
mod quorum_alone;
#[cfg(all(test, madsim))]
mod regress;
#[cfg(all(test, madsim))]
mod report;
#[cfg(all(test, madsim))]
mod scenarios;
#[cfg(all(test, madsim))]
mod shrink;
#[cfg(all(test, madsim))]
mod storage_scenarios;
#[cfg(all(test, madsim))]
mod swarm;
#[cfg(test)]
mod world_disk;
#[cfg(test)]
mod world_net;
#[cfg(test)]
mod world_process;
#[cfg(test)]
mod world_speed;
