//! The contract of [`crate::env`] as tests that every world must pass.
