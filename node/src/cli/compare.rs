//! `mangrove compare`: stores side by side, a table and a page. The measuring itself is
//! [`crate::trial::compare`].

use std::io;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::args::Format;
use super::crash_test::{remove, trial_directory};
use super::output::{Output, say};
use super::trial_args::{CompareArgs, MeasuringArgs};
use super::{CliError, stop_signal};
use crate::env::{First, race};
use crate::trial::compare::{self, Comparison, Options, page, ratios, rows};
use crate::trial::load::NUMBER_BYTES;
use crate::trial::peers::VALUE_BYTES_MAX;

/// Time between two pictures of the spinner.
const TICK: Duration = Duration::from_millis(120);

/// `mangrove compare`
pub(super) async fn compare(args: CompareArgs) -> Result<(), CliError> {
    let MeasuringArgs { data, load, output } = args.measuring;
    check_values(load.value_bytes, args.peers)?;
    check_page(&args.page)?;
    let (directory, is_own) = trial_directory(data, "compare", load.seed)?;
    let program = std::env::current_exe();
    let options = Options {
        program: program.map_err(|error| CliError::io("cannot find this program", &error))?,
        directory,
        peers: args.peers,
        rounds: args.rounds,
        duration: Duration::from_secs(u64::from(args.seconds)),
        faults: args.faults,
        fill: args.fill,
        load: load.load(),
    };
    let bar = spinner();
    let run = compare::run(&options, |step| bar.set_message(step.to_owned()));
    let comparison = measure(&options.directory, &bar, run).await?;
    let printed = print(output, &comparison);
    if is_own {
        remove(&options.directory)?;
    }
    write_page(&args.page, &page(&comparison))?;
    printed
}

/// Refuses values by which nothing could be told, before anything is made.
fn check_values(bytes: usize, with_peers: bool) -> Result<(), CliError> {
    if bytes < NUMBER_BYTES {
        return Err(CliError::Usage(format!(
            "--value-bytes ({bytes}) must be at least {NUMBER_BYTES}: each value begins with a \
             number of that length, by which stale reads are found"
        )));
    }
    if with_peers && bytes > VALUE_BYTES_MAX {
        return Err(CliError::Usage(format!(
            "--value-bytes ({bytes}) must be at most {VALUE_BYTES_MAX} with --peers: each request \
             to etcd is one small frame of HTTP/2; name smaller values, or leave --peers out"
        )));
    }
    Ok(())
}

/// Returns what shows that something goes on.
pub(super) fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg}, {elapsed}");
    let bar =
        ProgressBar::new_spinner().with_style(style.unwrap_or(ProgressStyle::default_spinner()));
    bar.enable_steady_tick(TICK);
    bar
}

/// Measures clusters whose data is in `directory` until it is done, or somebody stops it.
pub(super) async fn measure<T>(
    directory: &Path,
    bar: &ProgressBar,
    run: impl Future<Output = io::Result<T>>,
) -> Result<T, CliError> {
    let ran = match race(stop_signal(), run).await {
        First::A(told) => told.and(Err(CliError::Stopped("stopped; no figures".to_owned()))),
        First::B(ran) => ran.map_err(|error| CliError::io("cannot measure", &error)),
    };
    bar.finish_and_clear();
    let hint = || format!("the data and logs of all nodes are in {}", directory.display());
    ran.map_err(|error| error.advise(hint()))
}

/// Makes sure, before minutes of measuring, that the page can be written. Leaves nothing behind.
pub(super) fn check_page(path: &Path) -> Result<(), CliError> {
    let was_there = path.exists();
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|_file| if was_there { Ok(()) } else { std::fs::remove_file(path) })
        .map_err(|error| CliError::io(format!("cannot write {}", path.display()), &error))
}

/// Writes the page of what was measured, and says where it is.
pub(super) fn write_page(path: &Path, html: &str) -> Result<(), CliError> {
    let shown = path.display();
    std::fs::write(path, html)
        .map_err(|error| CliError::io(format!("cannot write {shown}"), &error))?;
    say(&format!("the page is {shown}"));
    Ok(())
}

fn print(format: Format, comparison: &Comparison) -> Result<(), CliError> {
    let mut output = Output::new(format);
    if format == Format::Json {
        output.json(comparison)?;
        return output.finish();
    }
    let names = comparison.columns.iter().map(|column| column.name.as_str());
    let heads: Vec<&str> = std::iter::once("").chain(names).collect();
    let mut shown = Vec::new();
    for (head, rows) in rows() {
        for (name, show) in rows {
            let mut row = vec![format!("{head}: {name}")];
            row.extend(comparison.columns.iter().map(show));
            shown.push(row);
        }
    }
    output.grid(&heads, &shown)?;
    let ours = comparison.columns.first().map_or("", |column| column.name.as_str());
    for (name, ratios) in ratios(comparison) {
        let ratios: Vec<String> =
            ratios.iter().map(|(what, ratio)| format!("{what} {ratio:.2} ×")).collect();
        output.line(&format!("{ours} to {name}: {}", ratios.join(", ")))?;
    }
    output.line(&comparison.setup)?;
    for note in &comparison.notes {
        output.line(note)?;
    }
    output.finish()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::{Cli, Command};
    use super::*;

    fn args(words: &[&str]) -> CompareArgs {
        let words = ["mangrove", "compare"].into_iter().chain(words.iter().copied());
        let Command::Compare(args) = Cli::try_parse_from(words).unwrap().command else {
            unreachable!()
        };
        args
    }

    #[test]
    fn values_by_which_nothing_can_be_told_are_refused_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data").display().to_string();
        let page = dir.path().join("page.html").display().to_string();
        let args = args(&["--value-bytes", "7", "--data", &data, "--page", &page]);
        let error = super::super::block_on(None, compare(args)).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(error.to_string().contains("at least 8"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
        check_values(8, true).unwrap();
    }

    #[test]
    fn values_that_etcd_cannot_be_sent_are_refused_with_peers_only() {
        let error = check_values(VALUE_BYTES_MAX + 1, true).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(error.to_string().contains("--peers"), "{error}");
        check_values(VALUE_BYTES_MAX, true).unwrap();
        check_values(1 << 20, false).unwrap();
    }

    #[test]
    fn page_that_cannot_be_written_is_refused_and_others_are_left_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let page = dir.path().join("page.html");
        check_page(&page).unwrap();
        assert!(!page.exists());
        std::fs::write(&page, "of an earlier run").unwrap();
        check_page(&page).unwrap();
        assert_eq!(std::fs::read_to_string(&page).unwrap(), "of an earlier run");
        let error = check_page(&dir.path().join("not/there.html")).unwrap_err();
        assert!(error.to_string().contains("there.html"), "{error}");
    }
}
