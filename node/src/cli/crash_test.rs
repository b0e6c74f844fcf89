//! `mangrove crash-test`: kills under load, and a verdict. The trial itself is
//! [`crate::trial::crash`].

use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::args::Format;
use super::output::{Output, say};
use super::trial_args::CrashTestArgs;
use super::{CliError, stop_signal};
use crate::env::real::RealEnv;
use crate::env::{Env, First, race};
use crate::trial::crash::{self, Options, Report, Tally};

/// Broken promises that are shown one by one.
const SHOWN_MAX: usize = 10;

/// The verdict, for programs.
#[derive(Serialize)]
struct Verdict<'a> {
    kept: bool,
    seconds: f64,
    total: Tally,
    #[serde(flatten)]
    report: &'a Report,
}

/// `mangrove crash-test`
pub(super) async fn crash_test(args: CrashTestArgs) -> Result<(), CliError> {
    let env = RealEnv::client();
    let seed = args.seed.unwrap_or_else(|| env.rng("seed").range(0, 1_000_000_000));
    let (directory, is_own) = trial_directory(args.data, "crash", seed)?;
    let program = std::env::current_exe();
    let options = Options {
        program: program.map_err(|error| CliError::io("cannot find this program", &error))?,
        directory,
        variants: args.mode.variants(),
        rounds: args.rounds,
        seed,
    };
    say(&format!("{} rounds, seed {seed}, in {}", args.rounds, options.directory.display()));
    let bar = progress(args.rounds);
    let begun = env.now();
    let run = crash::run(&options, |report| show(&bar, report));
    let ran = match race(stop_signal(), run).await {
        First::A(told) => told.and(Err(CliError::Stopped("stopped; no verdict".to_owned()))),
        First::B(ran) => ran.map_err(|error| CliError::Failed(error.to_string())),
    };
    bar.finish_and_clear();
    let report = match ran {
        Ok(report) => report,
        Err(error) => {
            let hint = format!("the nodes' data and logs are in {}", options.directory.display());
            return Err(error.advise(hint));
        }
    };
    let printed = print(args.output, &report, env.now().since(begun).as_secs_f64());
    if !report.violations.is_empty() {
        let count = report.violations.len();
        let failed = CliError::Failed(format!("{count} promises were broken (seed {seed})"));
        let kept = report.kept_directory.unwrap_or_default();
        let advice = format!("the nodes' data and logs are kept in {kept}");
        return Err(failed.advise(advice).despite(printed));
    }
    if is_own {
        remove(&options.directory)?;
    }
    printed
}

/// Returns the directory of a trial, made if need be, and whether it is one that nobody named.
pub(super) fn trial_directory(
    wanted: Option<PathBuf>,
    what: &str,
    seed: u64,
) -> Result<(PathBuf, bool), CliError> {
    let is_own = wanted.is_none();
    let directory = wanted.unwrap_or_else(|| {
        let process = std::process::id();
        std::env::temp_dir().join(format!("mangrove-{what}-{seed}-{process}"))
    });
    let failed = |error| CliError::io(format!("cannot use {}", directory.display()), &error);
    std::fs::create_dir_all(&directory).map_err(failed)?;
    // Nodes of another trial would be found there, whose clusters are others.
    if std::fs::read_dir(&directory).map_err(failed)?.next().is_some() {
        return Err(CliError::Usage(format!(
            "{} is not empty: name a new directory, or an empty one, with --data",
            directory.display()
        )));
    }
    let directory = std::path::absolute(&directory).map_err(failed)?;
    Ok((directory, is_own))
}

/// Removes the directory of a trial.
pub(super) fn remove(directory: &Path) -> Result<(), CliError> {
    std::fs::remove_dir_all(directory)
        .map_err(|error| CliError::io(format!("cannot remove {}", directory.display()), &error))
}

fn progress(rounds: u32) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos} of {len} rounds, {msg}, {eta} left");
    // It is drawn on standard error, if that is a terminal.
    let bar = ProgressBar::new(u64::from(rounds));
    bar.with_style(style.unwrap_or(ProgressStyle::default_bar()))
}

fn show(bar: &ProgressBar, report: &Report) {
    let total = report.total();
    let writes = total.sets + total.bulks;
    bar.set_message(format!("{} kills, {writes} writes acknowledged", total.kills));
    bar.set_position(u64::from(report.rounds()));
}

fn print(format: Format, report: &Report, seconds: f64) -> Result<(), CliError> {
    let mut output = Output::new(format);
    let total = report.total();
    let kept = report.violations.is_empty();
    if format == Format::Json {
        output.json(&Verdict { kept, seconds, total, report })?;
        return output.finish();
    }
    let heads = [
        "mode",
        "rounds",
        "kills",
        "one/most/all",
        "sets",
        "bulks",
        "refused",
        "unknown",
        "losses asked",
        "reads",
        "checked",
    ];
    let mut rows = Vec::new();
    let variants = report.variants.iter();
    let named = variants.map(|variant| (variant.variant.name(), &variant.tally));
    for (name, tally) in named.chain([("all", &total)]) {
        let scopes = [tally.killed_one, tally.killed_majority, tally.killed_all];
        let numbers = [
            tally.sets,
            tally.bulks,
            tally.not_applied,
            tally.unknown,
            tally.loss_requests,
            tally.reads,
            tally.checked_cells,
        ];
        let mut row = vec![name.to_owned(), tally.rounds.to_string(), tally.kills.to_string()];
        row.push(scopes.map(|count| count.to_string()).join("/"));
        row.extend(numbers.map(|number| number.to_string()));
        rows.push(row);
    }
    output.grid(&heads, &rows)?;
    for violation in report.violations.iter().take(SHOWN_MAX) {
        output.line(&format!(
            "round {}: {:?} {}: {} must be there, found {:?}, {}",
            violation.round,
            violation.wrong,
            violation.keys.join(" "),
            violation.promised,
            violation.found,
            violation.when,
        ))?;
    }
    let verdict = if kept {
        "every promise was kept: no acknowledged write lost, no bulk write half applied"
    } else {
        "PROMISES WERE BROKEN"
    };
    output.line(&format!("{verdict} ({seconds:.0} s, seed {})", report.seed))?;
    output.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trial_wants_a_directory_that_nothing_is_in() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("trial");
        for _ in 0..2 {
            let (made, is_own) = trial_directory(Some(data.clone()), "crash", 1).unwrap();
            assert_eq!((made.is_dir(), is_own), (true, false), "a new one, then an empty one");
        }
        std::fs::create_dir(data.join("n1")).unwrap();
        let error = trial_directory(Some(data), "crash", 1).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(error.to_string().contains("is not empty"), "{error}");
    }
}
