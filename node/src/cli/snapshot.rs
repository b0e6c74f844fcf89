//! `mangrove snapshot`: the state of a cluster in a file, and a new cluster out of it.
//!
//! A file is written under the name `FILE.partial`, verified and made durable before it gets its
//! own name, so that a backup that has its name is one.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::args::{ConnectionArgs, Format};
use super::backup_args::RestoreArgs;
use super::client_commands::client;
use super::config::Settings;
use super::files::NewFile;
use super::output::{Output, counted, say};
use super::serve::open_data;
use super::{CliError, unless_stopped};
use crate::env::Env as _;
use crate::env::real::RealFile;
use crate::replica::offline::{self, RestoreError, SnapshotSummary};

/// `mangrove snapshot save`
pub(super) async fn save(file: PathBuf, connection: ConnectionArgs) -> Result<(), CliError> {
    let mut out = NewFile::create(&file)?;
    let mut pager = client(&connection).snapshot();
    let saving = async {
        while let Some(piece) = pager.next_piece().await? {
            if piece.offset == 0 {
                // Another state, of which nothing is there.
                out.begin_again().map_err(|error| out.failed(&error))?;
            }
            out.write_all(piece.data.as_bytes()).map_err(|error| out.failed(&error))?;
        }
        read(out.partial().unwrap_or(&file)).await
    };
    let becomes = format!("{} is not written", file.display());
    let summary = unless_stopped(saving, &becomes).await?;
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
    let (snapshot, shown) = open(&args.file)?;
    let was_there = data.exists();
    let env = open_data(&data)?;
    // Behind the lock once more: what is there from here on was made here.
    check_empty(&data)?;
    let restoring = async {
        let restored = offline::restore(env.disk(), &config, &snapshot, &shown).await;
        restored.map_err(|error| explain(&error, &data))
    };
    let becomes = format!("what was made of {} is removed", data.display());
    let restored = unless_stopped(Box::pin(restoring), &becomes).await;
    if restored.is_err() {
        remove_made(&data, was_there);
    }
    let summary = restored?;
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
        RestoreError::Storage(_) => CliError::Failed(error.to_string()),
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

/// Removes half a state, with which no node starts; says what of it stays.
fn remove_made(data: &Path, was_there: bool) {
    let removed = if was_there {
        fs::read_dir(data).and_then(|mut entries| {
            entries.try_for_each(|entry| {
                let entry = entry?;
                let is_dir = entry.file_type()?.is_dir();
                let path = entry.path();
                if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) }
            })
        })
    } else {
        fs::remove_dir_all(data)
    };
    if let Err(error) = removed {
        let shown = data.display();
        say(&format!("{shown} stays, and is of no use: {error}; remove it before you try again"));
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
    fn half_a_state_is_removed_with_its_directory_if_that_was_made_for_it() {
        let dir = tempfile::tempdir().unwrap();
        for was_there in [true, false] {
            let data = dir.path().join("data");
            fs::create_dir_all(data.join("tables/more")).unwrap();
            fs::write(data.join("LOCK"), "").unwrap();
            remove_made(&data, was_there);
            assert_eq!(data.exists(), was_there);
            assert_eq!(fs::read_dir(&data).into_iter().flatten().count(), 0);
        }
    }

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
