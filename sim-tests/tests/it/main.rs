//! Scenarios and suites of the simulation.

mod check_fuzz;
mod check_hand;
mod check_invariants;
mod check_naive;
mod check_random;
mod check_replay;
mod check_speed;
