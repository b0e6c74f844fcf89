//! The command line: wiring, nothing else.
