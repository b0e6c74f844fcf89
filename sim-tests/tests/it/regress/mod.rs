//! Accidents: what the swarm found in Mangrove itself, as small as `cargo sim shrink` made it.
//!
//! A file each, with the accident told in its header. The bug is planted again under a code of its
//! own, so that each test shows both: with it the checker speaks, and without it nothing does. A
//! defect of the tests themselves has no code.

mod batch_on_one_disk;
mod stamp_of_an_outvoted_answer;
mod write_later_than_the_repair;
