//! The real cluster under load.

fn main() {}
