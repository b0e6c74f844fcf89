//! The simulated world of Mangrove.
