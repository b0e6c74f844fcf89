//! `mangrove growth`: throughput against the size of the store, a table and a plot. The measuring
//! itself is [`crate::trial::compare::grow`].

use std::time::Duration;

use super::CliError;
use super::args::Format;
use super::compare::{check_page, measure, spinner, write_page};
use super::crash_test::{remove, trial_directory};
use super::output::Output;
use super::trial_args::{GrowthArgs, MeasuringArgs};
use crate::trial::compare::{Growth, GrowthOptions, columns, grow, growth_page, repeated};

/// `mangrove growth`
pub(super) async fn growth(args: GrowthArgs) -> Result<(), CliError> {
    let MeasuringArgs { data, load, output } = args.measuring;
    // Each size has a directory of its own: said before any is made.
    if let Some(twice) = repeated(&args.sizes) {
        let why = format!("--sizes names {twice} twice: name every size once");
        return Err(CliError::Usage(why));
    }
    check_page(&args.page)?;
    let (directory, is_own) = trial_directory(data, "growth", load.seed)?;
    let program = std::env::current_exe();
    let options = GrowthOptions {
        program: program.map_err(|error| CliError::io("cannot find this program", &error))?,
        directory,
        modes: args.mode.levels(),
        sizes: args.sizes,
        rounds: args.rounds,
        duration: Duration::from_secs(u64::from(args.seconds)),
        load: load.load(),
    };
    let bar = spinner();
    let run = grow(&options, |step| bar.set_message(step.to_owned()));
    let growth = measure(&options.directory, &bar, run).await?;
    let printed = print(output, &growth);
    if is_own {
        remove(&options.directory)?;
    }
    write_page(&args.page, &growth_page(&growth))?;
    printed
}

fn print(format: Format, growth: &Growth) -> Result<(), CliError> {
    let mut output = Output::new(format);
    if format == Format::Json {
        output.json(growth)?;
        return output.finish();
    }
    for curve in &growth.curves {
        output.line(&curve.mode)?;
        let points = curve.points.iter();
        let rows = points.map(|point| columns().map(|(_, show)| show(point)).to_vec());
        output.grid(&columns().map(|(name, _)| name), &rows.collect::<Vec<_>>())?;
        for (cells, sets, gets) in curve.shares().into_iter().skip(1) {
            output.line(&format!("with {cells} cells: writes {sets:.2} ×, reads {gets:.2} ×"))?;
        }
    }
    output.line(&growth.setup)?;
    for note in &growth.notes {
        output.line(note)?;
    }
    output.finish()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::{Cli, Command};
    use super::*;

    #[test]
    fn size_that_is_named_twice_is_refused_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data").display().to_string();
        let page = dir.path().join("page.html").display().to_string();
        let words = ["mangrove", "growth", "--sizes", "0,0", "--data", &data, "--page", &page];
        let Command::Growth(args) = Cli::try_parse_from(words).unwrap().command else {
            unreachable!()
        };
        let error = super::super::block_on(None, growth(args)).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(error.to_string().contains("--sizes"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    }
}
