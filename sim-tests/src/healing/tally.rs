//! How often a quorum was alone in many runs, and how long it took to serve.

use serde_json::json;

use super::{Alone, Healing};
use crate::swarm::percentile;
use mangrove::dynamo::Level;

/// How often a quorum was alone in many runs, and how long it took to serve.
#[derive(Debug, Default)]
pub struct Tally {
    served_ms: Vec<u64>,
    down_count: u64,
    cut_off_count: u64,
    at_one_count: u64,
    skipped_count: u64,
}

impl Tally {
    /// Takes note of a run.
    pub fn add(&mut self, alone: Alone) {
        match alone {
            Alone::NotTried => {}
            Alone::Skipped => self.skipped_count += 1,
            Alone::Served { healing, level, after } => {
                self.served_ms.push(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
                self.down_count += u64::from(healing == Healing::OthersDown);
                self.cut_off_count += u64::from(healing == Healing::OthersCutOff);
                self.at_one_count += u64::from(level == Level::One);
            }
        }
    }

    /// Returns in how many runs a quorum served alone.
    pub fn served_count(&self) -> usize {
        self.served_ms.len()
    }

    /// Returns in how many runs no quorum had to.
    pub fn skipped_count(&self) -> u64 {
        self.skipped_count
    }

    /// Returns a line for people.
    pub fn to_line(&self) -> String {
        let at_one = match self.at_one_count {
            0 => String::new(),
            count => format!(", {count} at ONE"),
        };
        format!(
            "a quorum alone served in {} runs ({} with the others down, {} with them cut \
             off{at_one}): median {} ms, p99 {} ms; no quorum had to in {}",
            self.served_count(),
            self.down_count,
            self.cut_off_count,
            percentile(&self.served_ms, 50),
            percentile(&self.served_ms, 99),
            self.skipped_count,
        )
    }

    /// Returns the same for programs.
    pub fn to_json(&self) -> serde_json::Value {
        json!({
            "served": self.served_count(), "others_down": self.down_count,
            "others_cut_off": self.cut_off_count, "at_one": self.at_one_count,
            "skipped": self.skipped_count, "p50_ms": percentile(&self.served_ms, 50),
            "p99_ms": percentile(&self.served_ms, 99),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn line_tells_how_often_and_how_fast() {
        let mut tally = Tally::default();
        let served =
            |healing, level, ms| Alone::Served { healing, level, after: Duration::from_millis(ms) };
        for alone in [
            Alone::NotTried,
            Alone::Skipped,
            served(Healing::OthersDown, Level::Quorum, 50),
            served(Healing::OthersDown, Level::One, 700),
            served(Healing::OthersCutOff, Level::Quorum, 150),
        ] {
            tally.add(alone);
        }
        assert_eq!(
            tally.to_line(),
            "a quorum alone served in 3 runs (2 with the others down, 1 with them cut off, 1 at \
             ONE): median 150 ms, p99 700 ms; no quorum had to in 1"
        );
        assert_eq!((tally.served_count(), tally.skipped_count()), (3, 1));
    }
}
