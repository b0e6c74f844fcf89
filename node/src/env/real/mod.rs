//! The real world: tokio's network and clock, the operating system's files.
//!
//! The only place that may name them.
