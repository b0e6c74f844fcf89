//! `mangrove snapshot`: the state of a cluster in a file, and a new cluster out of it.
//!
//! A file is written under the name `FILE.partial`, verified and made durable before it gets its
//! own name, so that a backup that has its name is one.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::CliError;
use super::args::{ConnectionArgs, Format};
use super::backup_args::RestoreArgs;
use super::client_commands::client;
use super::config::Settings;
use super::files::NewFile;
use super::output::{Output, counted, say};
use super::serve::open_data;
use crate::env::Env as _;
use crate::env::real::RealFile;
use crate::replica::offline::{self, RestoreError, SnapshotSummary};

/// `mangrove snapshot save`
pub(super) async fn save(file: PathBuf, connection: ConnectionArgs) -> Result<(), CliError> {
    let mut out = NewFile::create(&file)?;
    let mut pager = client(&connection).snapshot();
    while let Some(piece) = pager.next_piece().await? {
        if piece.offset == 0 {
            // Another state, of which nothing is there.
            out.begin_again().map_err(|error| out.failed(&error))?;
        }
        out.write_all(piece.data.as_bytes()).map_err(|error| out.failed(&error))?;
    }
    let summary = read(out.partial().unwrap_or(&file)).await?;
    out.finish()?;
    say(&format!("saved {} to {}", describe(&summary), file.display()));
    Ok(())
}

/// `mangrove snapshot verify`
pub(super) async fn verify(file: PathBuf, format: Format) -> Result<(), CliError> {
    let mut output = Output::new(format);
    let summary = match read(&file).await {
        Ok(summary) => summary,
        Err(error) => {
            let shown = match format {
                Format::Table => Ok(()),
                Format::Json | Format::Raw => {
                    output.json(&json!({ "ok": false, "error": error.to_string() }))
                }
            };
            return Err(error.despite(shown.and_then(|()| output.finish())));
        }
    };
    match format {
        Format::Table => {
            output.line(&format!("{} is whole: {}", file.display(), describe(&summary)))?;
        }
        Format::Json | Format::Raw => output.json(&json!({
            "ok": true,
            "index": summary.point.index,
            "term": summary.point.term,
            "cells": summary.cell_count,
        }))?,
    }
    output.finish()
}

/// `mangrove snapshot restore`
pub(super) async fn restore(args: RestoreArgs) -> Result<(), CliError> {
    let file = args.config.as_deref().map(Settings::read).transpose()?;
    let settings = args.settings.or(file.unwrap_or_default());
    let data = settings.data();
    let config = settings.into_node_config()?;
    // Nothing is made of a directory before it is known that it can be given a state, and which.
    if config.mode().is_masterless() {
        return Err(explain(&RestoreError::Masterless, &data));
    }
    check_empty(&data)?;
    read(&args.file).await?;
    let env = open_data(&data)?;
    let (snapshot, shown) = open(&args.file)?;
    let restored = offline::restore(env.disk(), &config, &snapshot, &shown).await;
    let summary = restored.map_err(|error| explain(&error, &data))?;
    say(&format!(
        "restored {} as node {} of the new cluster {} in {}\n\
         Restore every other member from this same file before you start any of them.",
        describe(&summary),
        config.node,
        config.cluster,
        data.display()
    ));
    Ok(())
}

fn explain(error: &RestoreError, data: &Path) -> CliError {
    let shown = data.display();
    match error {
        RestoreError::NotEmpty { .. } => CliError::Usage(format!(
            "{shown} is not empty: {error}. Only a new node can be given a state: name another \
             directory, or move this one away"
        )),
        RestoreError::Masterless => CliError::Usage(error.to_string()),
        RestoreError::Storage(_) => CliError::Failed(error.to_string())
            .advise(format!("what was made of {shown} is of no use: remove it, then try again")),
    }
}

/// Refuses a directory in which there is anything, without leaving a lock there.
fn check_empty(data: &Path) -> Result<(), CliError> {
    let entries = fs::read_dir(data).into_iter().flatten().filter_map(Result::ok);
    let mut names = entries.map(|entry| entry.file_name().display().to_string());
    match names.find(|name| name != "LOCK") {
        None => Ok(()),
        Some(name) => Err(explain(&RestoreError::NotEmpty { name }, data)),
    }
}

/// Verifies a file.
async fn read(file: &Path) -> Result<SnapshotSummary, CliError> {
    let (snapshot, shown) = open(file)?;
    let verified = offline::verify_snapshot(&snapshot, &shown).await;
    verified.map_err(|error| CliError::Failed(error.to_string()))
}

fn open(file: &Path) -> Result<(RealFile, String), CliError> {
    let opened = RealFile::open_to_read(file);
    let opened = opened.map_err(|error| CliError::Usage(error.to_string()))?;
    Ok((opened, file.display().to_string()))
}

fn describe(summary: &SnapshotSummary) -> String {
    let SnapshotSummary { point, cell_count, .. } = summary;
    let cells = counted(*cell_count, "cell");
    format!("{cells}, the state after entry {} of term {}", point.index, point.term)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};
    use crate::cli::backup_args::SnapshotCommand;
    use crate::cli::block_on;

    #[test]
    fn directory_that_cannot_be_given_a_state_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let line = format!(
            "mangrove snapshot restore no-file --cluster-id 1 --node 1 --members 1=a:1 --data {}",
            data.display()
        );
        let refusal = |flags: &str| {
            let cli = Cli::try_parse_from(format!("{line}{flags}").split(' ')).unwrap();
            let Command::Snapshot(SnapshotCommand::Restore(args)) = cli.command else {
                unreachable!()
            };
            let error = block_on(None, restore(*args)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
            error.to_string()
        };
        refusal(" --mode masterless");
        refusal("");
        assert!(!data.exists(), "nothing is made of it");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("note"), "").unwrap();
        assert!(refusal("").contains("\"note\""));
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1);
    }
}
