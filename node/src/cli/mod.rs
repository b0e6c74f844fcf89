//! The command line: what the `mangrove` program does, and nothing that a node does.
//!
//! `main` calls `run` and exits with what it returns. Each file is one subject: what can be
//! typed (`args`, `backup_args`, `trial_args`), where a node's configuration comes from (`config`),
//! one node (`serve`), a cluster of them on one machine (`cluster`), what clients do
//! (`client_commands`, `status`, `import`, `export`), backup and repair (`snapshot`, `store`,
//! `wal`), trials on real processes (`crash_test`, `bench`, `compare`), and how all that is printed
//! (`output`) and written (`files`).
//!
//! Only here, in [`crate::trial`] and in tests the real world ([`crate::env::real`]) is chosen and
//! a runtime started.
//!
//! # Invariants
//! 1. Standard output carries answers only; logs, progress and complaints go to standard error.
//! 2. The exit code says what became of the request (`error`).

mod args;
mod backup_args;
mod bench;
mod client_commands;
mod cluster;
mod cluster_file;
mod compare;
mod config;
mod crash_test;
mod error;
mod export;
mod files;
#[cfg(feature = "testing")]
pub mod fuzzed;
mod growth;
mod import;
mod output;
mod progress;
mod records;
mod serve;
mod snapshot;
mod status;
mod store;
mod trial_args;
mod wal;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use self::args::{Cli, Command, LogArgs, LogFormat};
use self::backup_args::{SnapshotCommand, StoreCommand, WalCommand};
use self::error::CliError;
use crate::env::{First, race};

/// Longest wait, at the end of a command, for work that nobody needs any more, such as asking for
/// the address of a name that no server knows.
const LEFTOVER_LIMIT: Duration = Duration::from_millis(200);

/// Does what the command line says; returns the exit code (see `mangrove --help`).
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    match log_to_stderr(&cli).and_then(|()| dispatch(cli.command)) {
        Ok(()) | Err(CliError::NobodyListens) => ExitCode::SUCCESS,
        Err(error) => {
            output::say(&format!("mangrove: {error}"));
            ExitCode::from(&error)
        }
    }
}

fn dispatch(command: Command) -> Result<(), CliError> {
    use client_commands as client;
    match command {
        Command::Serve(args) => serve::serve(*args),
        Command::Cluster(args) => block_on(None, cluster::cluster(args)),
        Command::Status(args) => block_on(None, status::status(args)),
        Command::Get(args) => block_on(None, client::get(args)),
        Command::Set(args) => block_on(None, client::set(args)),
        Command::Delete(args) => block_on(None, client::delete(args)),
        Command::Row(args) => block_on(None, client::row(args)),
        Command::Slice(args) => block_on(None, client::slice(args)),
        Command::Keys(args) => block_on(None, client::keys(args)),
        Command::Cas(args) => block_on(None, client::cas(args)),
        Command::Bulk(args) => block_on(None, client::bulk(args)),
        Command::Import(args) => block_on(None, import::import(args)),
        Command::Export(args) => block_on(None, export::export(args)),
        Command::Snapshot(SnapshotCommand::Save { file, connection }) => {
            block_on(None, snapshot::save(file, connection))
        }
        Command::Snapshot(SnapshotCommand::Verify { file, output }) => {
            block_on(None, snapshot::verify(file, output))
        }
        Command::Snapshot(SnapshotCommand::Restore(args)) => {
            block_on(None, snapshot::restore(*args))
        }
        Command::Store(StoreCommand::Verify { dir, output }) => {
            block_on(None, store::verify(dir, output))
        }
        Command::Store(StoreCommand::Salvage { dir, to, sessions_max }) => {
            block_on(None, store::salvage(dir, to, sessions_max))
        }
        Command::Wal(WalCommand::Dump { dir }) => block_on(None, wal::dump(dir)),
        Command::CrashTest(args) => block_on(None, crash_test::crash_test(args)),
        Command::Bench(args) => block_on(None, bench::bench(args)),
        Command::Compare(args) => block_on(None, compare::compare(args)),
        Command::Growth(args) => block_on(None, growth::growth(args)),
    }
}

/// Runs a future to its end: all on this thread, or with so many further ones.
fn block_on<T>(
    threads: Option<usize>,
    future: impl Future<Output = Result<T, CliError>>,
) -> Result<T, CliError> {
    let mut builder = match threads {
        None => tokio::runtime::Builder::new_current_thread(),
        Some(threads) => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(threads.max(1));
            builder
        }
    };
    let runtime = builder.enable_all().build();
    let runtime = runtime.map_err(|error| CliError::io("cannot start the runtime", &error))?;
    let result = runtime.block_on(future);
    runtime.shutdown_timeout(LEFTOVER_LIMIT);
    result
}

/// Sends the log to standard error, as the flags say.
fn log_to_stderr(cli: &Cli) -> Result<(), CliError> {
    let LogArgs { log, log_format } = &cli.logging;
    let is_node = matches!(cli.command, Command::Serve(_));
    let level = log.as_deref().unwrap_or(if is_node { "info" } else { "warn" });
    let filter = log_filter(level)?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would say on standard error that nothing can be written there, and panic over that:
        // a node must outlive a full disk that only its log is on.
        .log_internal_errors(false);
    let started = match log_format {
        LogFormat::Text => subscriber.with_ansi(output::is_watched()).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| CliError::Failed(format!("cannot start the log: {error}")))
}

/// Returns what is logged at a level, or as directives say. A single word that is no level would be
/// a directive, too, for a module of that name: a misspelt level would silence the node.
fn log_filter(level: &str) -> Result<EnvFilter, CliError> {
    let wrong = |error: &str| CliError::Usage(format!("--log {level:?}: {error}"));
    let is_word = !level.contains(['=', ',', '[']) && !level.contains("::");
    if is_word && level.parse::<LevelFilter>().is_err() {
        return Err(wrong(
            "there is no such level: write error, warn, info, debug or trace, or off; or a \
             directive with its level, such as mangrove=debug",
        ));
    }
    EnvFilter::try_new(level).map_err(|error| wrong(&error.to_string()))
}

/// Does what may be stopped: then it is dropped, and what it leaves with it (see [`files`]).
async fn unless_stopped<T>(
    work: impl Future<Output = Result<T, CliError>>,
    becomes: &str,
) -> Result<T, CliError> {
    match race(stop_signal(), work).await {
        First::A(told) => told.and_then(|()| Err(CliError::Stopped(format!("stopped; {becomes}")))),
        First::B(done) => done,
    }
}

/// Waits for SIGINT (Ctrl-C) or SIGTERM, whichever comes first.
async fn stop_signal() -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::io("cannot listen for signals", &error);
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        match race(interrupt, terminate.recv()).await {
            First::A(interrupted) => interrupted.map_err(failed),
            First::B(_) => Ok(()),
        }
    }
    #[cfg(not(unix))]
    interrupt.await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_level_is_refused_and_not_taken_for_a_module() {
        for level in ["info", "WARN", "off", "", "mangrove=debug", "warn,mangrove::client=trace"] {
            assert!(log_filter(level).is_ok(), "{level:?}");
        }
        for wrong in ["inof", "mangrove", "warning", "in fo", "mangrove=loud"] {
            let error = log_filter(wrong).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
            assert!(error.to_string().contains("--log"), "{error}");
        }
        assert!(log_filter("inof").unwrap_err().to_string().contains("info"));
    }
}
