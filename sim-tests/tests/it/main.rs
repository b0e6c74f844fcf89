//! Scenarios and suites of the simulation.
