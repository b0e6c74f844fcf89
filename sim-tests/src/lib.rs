//! The simulated world of Mangrove.

pub mod check;
pub mod history;
