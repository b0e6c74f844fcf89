//! What can be typed of the trials: commands that start nodes of their own, or put load on a
//! cluster.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::args::Format;
use crate::trial::crash::Variant;

const CRASH_TEST_HELP: &str = "\
Examples:
  mangrove crash-test                                 # 30 rounds of every mode, in a minute
  mangrove crash-test --rounds 500 --seed 7           # twenty minutes
  mangrove crash-test --mode masterless --data ./crash --output json

In each round clients write and note what was acknowledged, while one node, a majority or all of
them are killed with SIGKILL, stay down for a moment and are started again, some to be killed once
more while they recover. Then everything is read back: no acknowledged write may be missing or
replaced by an older one, no bulk write half applied, and nothing may be there that was refused.
In every other cluster the nodes also lose what they have written to their tables
(`set --debug-table-loss`), as in a power cut, and must have it from their logs.

The exit code is 0 if every promise was kept, else 6: then the directories of the nodes are kept,
and each broken promise is shown. A seed repeats what is drawn, but not the timing of the machine.";

/// Arguments of `crash-test`.
#[derive(Debug, Clone, Args)]
#[command(after_help = CRASH_TEST_HELP)]
pub(super) struct CrashTestArgs {
    /// How many rounds, over all modes together.
    #[arg(long, value_name = "N", default_value = "30", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) rounds: u32,
    /// What to run: one node alone, three nodes of a mode, or all of that in turn.
    #[arg(long, value_name = "MODE", default_value = "all")]
    pub(super) mode: VariantArg,
    /// What is random follows from it. [default: another one each time]
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
    /// Where the nodes keep their data meanwhile; best on a real disk. [default: a new directory
    /// among the temporary ones of the system]
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// Form of the verdict.
    #[arg(long, short, env = "MANGROVE_OUTPUT", default_value = "table")]
    pub(super) output: Format,
}

/// What a trial runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum VariantArg {
    /// One node.
    Single,
    /// Three nodes, one of which leads.
    PrimaryBackup,
    /// Three nodes without a leader.
    Masterless,
    /// All of them in turn.
    All,
}

impl VariantArg {
    /// Returns what is to be run.
    pub(super) fn variants(self) -> Vec<Variant> {
        match self {
            Self::Single => vec![Variant::Single],
            Self::PrimaryBackup => vec![Variant::PrimaryBackup],
            Self::Masterless => vec![Variant::Masterless],
            Self::All => Variant::ALL.to_vec(),
        }
    }
}

/// Reads a share or probability.
pub(super) fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        Ok(_) | Err(_) => Err(format!("{text:?} is not between 0 and 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_lies_between_none_and_all() {
        for (text, share) in [("0", 0.0), ("0.25", 0.25), ("1", 1.0)] {
            assert_eq!(parse_share(text), Ok(share));
        }
        for text in ["-0.1", "1.1", "NaN", "half", ""] {
            assert!(parse_share(text).is_err(), "{text}");
        }
    }
}
