//! The `mangrove` program.

fn main() {}
