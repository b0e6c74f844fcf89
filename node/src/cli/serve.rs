//! `mangrove serve`: one node, from its configuration to its end.

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use super::args::ServeArgs;
use super::config::Settings;
use super::{CliError, block_on, output, stop_signal};
use crate::env::real::{HoldingPlaces, RealEnv};
use crate::env::{DiskError, DiskErrorKind, Env as _, First, race};
use crate::replica::{NodeConfig, STATE_DIR, StopReason, TRANSFER_DIR, WAL_DIR};
use crate::server;

/// Pause before a node starts again in the same process.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// Runs a node until it is told to stop, or has to.
pub(super) fn serve(args: ServeArgs) -> Result<(), CliError> {
    let file = args.config.as_deref().map(Settings::read).transpose()?;
    let settings = args.settings.or(file.unwrap_or_default());
    let (threads, data) = (settings.threads.filter(|threads| *threads > 1), settings.data());
    let mut config = settings.into_node_config()?;
    limit_connections(&mut config, raise_file_limit());
    if args.check {
        let (data, threads) = (data.display(), threads.unwrap_or(1));
        output::say(&format!("the configuration is valid; data in {data}, threads: {threads}"));
        output::say(&format!("{config:#?}"));
        return Ok(());
    }
    let (faulty, stop_with_input) = (args.debug_faults, args.stop_with_input);
    block_on(threads, async move {
        // A large value: it is the whole node.
        Box::pin(run(open_node(&data, faulty)?, config, stop_with_input)).await
    })
}

/// Files that may be open, for each connection that is taken: twice as many connections shake hands
/// as are served, and the tables and segments of the store want as many again.
const FILES_PER_CONNECTION: usize = 4;

/// Takes no more connections than this process may have files open for, and says so.
fn limit_connections(config: &mut NodeConfig, files: usize) {
    let (asked, possible) = (config.connections_max, files / FILES_PER_CONNECTION);
    if possible < asked {
        tracing::warn!(
            files,
            "at most {possible} connections instead of {asked}: this process may have too few \
             files open (see `ulimit -n`)"
        );
        config.connections_max = possible;
    }
}

/// Lets this process open as many files as it may at all, which is often far more than it may
/// without asking; returns how many that are. Strangers who connect must not take from the store
/// what it needs to open its files.
fn raise_file_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Without it there are fewer connections, and nothing else.
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
    now.current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

async fn run(env: RealEnv, config: NodeConfig, stop_with_input: bool) -> Result<(), CliError> {
    let mut told = std::pin::pin!(told_to_stop(stop_with_input));
    loop {
        let ended = run_once(&env, &config, told.as_mut()).await?;
        let starts_again = ended.starts_again();
        match ended.reason {
            StopReason::Condemned(error) if starts_again => {
                tracing::warn!(%error, "starting again, to get the state from the other nodes");
                // The old listener goes when its task gets its turn.
                env.sleep(RESTART_PAUSE).await;
            }
            StopReason::Requested | StopReason::Condemned(_) => break,
            reason @ StopReason::Storage(_) => {
                return Err(CliError::Failed(format!("node {} {reason}", config.node)));
            }
        }
    }
    tracing::info!(node = %config.node, "the node stopped in good order");
    Ok(())
}

/// How a node has ended.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    reason: StopReason,
    /// Somebody wanted it to stop.
    was_told: bool,
}

impl Ended {
    /// Tells whether the node is to start again at once, to get its state from the others. One that
    /// was told to stop does that at its next start.
    fn starts_again(&self) -> bool {
        matches!(self.reason, StopReason::Condemned(_)) && !self.was_told
    }
}

/// Runs a node until it is told to stop, or has to.
async fn run_once(
    env: &RealEnv,
    config: &NodeConfig,
    told: Pin<&mut impl Future<Output = Result<(), CliError>>>,
) -> Result<Ended, CliError> {
    let node = server::start(env.clone(), config.clone())
        .await
        .map_err(|error| CliError::Failed(format!("node {} cannot start: {error}", config.node)))?;
    end_of(node.stopped(), told, || node.shutdown(), stop_signal()).await
}

/// Waits until a node has ended: by itself, or because it is `told` to, which `shut_down` passes
/// on; then it need not end in good order any more once it is told `again`.
async fn end_of(
    stopped: impl Future<Output = StopReason>,
    told: Pin<&mut impl Future<Output = Result<(), CliError>>>,
    shut_down: impl FnOnce(),
    again: impl Future<Output = Result<(), CliError>>,
) -> Result<Ended, CliError> {
    // One wait for both phases: only the first one is told the reason.
    let mut stopped = std::pin::pin!(stopped);
    match race(&mut stopped, told).await {
        First::A(reason) => return Ok(Ended { reason, was_told: false }),
        First::B(told) => told?,
    }
    tracing::info!("the node stops; a second signal stops it at once");
    shut_down();
    let reason = match race(&mut stopped, again).await {
        First::A(reason) => reason,
        // What is acknowledged is durable: to stop at once loses nothing.
        First::B(again) => again.map(|()| StopReason::Requested)?,
    };
    Ok(Ended { reason, was_told: true })
}

/// Waits until somebody wants the node to stop.
async fn told_to_stop(with_input: bool) -> Result<(), CliError> {
    if !with_input {
        return stop_signal().await;
    }
    match race(stop_signal(), end_of_input()).await {
        First::A(signal) => signal,
        First::B(()) => Ok(()),
    }
}

/// Waits until standard input ends, which it does when the parent process has gone.
async fn end_of_input() {
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    #[expect(
        clippy::disallowed_methods,
        reason = "only a thread can wait for standard input, and it may outlive the node"
    )]
    let _thread = std::thread::spawn(move || {
        // Whatever comes is thrown away; an error is an end too.
        drop(std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()));
        drop(sender);
    });
    // The sender never sends: it goes away.
    drop(receiver.await);
}

/// Opens the data directory of a node that is to run, with faults on request if it is `faulty`.
fn open_node(dir: &Path, faulty: bool) -> Result<RealEnv, CliError> {
    let places = HoldingPlaces { data: STATE_DIR, log: WAL_DIR, received: TRANSFER_DIR };
    let opened = RealEnv::open_with_holding(dir, places, faulty);
    let (env, was_held) = opened.map_err(|error| explain(&error))?;
    if was_held {
        tracing::warn!("what was written to tables is lost since a client had asked for it");
    }
    if faulty {
        tracing::warn!("clients may ask this node to lose what it writes to its tables");
    }
    Ok(env)
}

/// Opens the data directory of a node; says what to do if that does not work.
pub(super) fn open_data(dir: &Path) -> Result<RealEnv, CliError> {
    RealEnv::open(dir).map_err(|error| explain(&error))
}

fn explain(error: &DiskError) -> CliError {
    let advice = match error.kind {
        DiskErrorKind::Locked => "stop that node, or name another directory",
        DiskErrorKind::NoSpace => "the disk is full: free some space",
        DiskErrorKind::TooManyFiles => "let it open more files: `ulimit -n`, or LimitNOFILE",
        DiskErrorKind::NotFound | DiskErrorKind::Denied | DiskErrorKind::Io => {
            "check the directory and its owner"
        }
    };
    CliError::Failed(error.to_string()).advise(advice.to_owned())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, ready};
    use std::pin::pin;

    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;
    use crate::base::{ClusterId, NodeId};
    use crate::storage::StorageError;

    fn config(connections_max: usize) -> NodeConfig {
        let (listen, node) = ("127.0.0.1:0", NodeId(1));
        let members = vec![(node, listen.to_owned())];
        NodeConfig { connections_max, ..NodeConfig::new(ClusterId(1), node, listen, members) }
    }

    #[test]
    fn connections_leave_files_for_the_store() {
        for (asked, files, taken) in [
            (100, 100 * FILES_PER_CONNECTION, 100),
            (100, usize::MAX, 100),
            (100, 100 * FILES_PER_CONNECTION - 1, 99),
            (100, 0, 0),
        ] {
            let mut config = config(asked);
            limit_connections(&mut config, files);
            assert_eq!(config.connections_max, taken, "{asked} asked, {files} files");
        }
    }

    #[test]
    fn process_may_have_as_many_files_open_as_it_may_ask_for() {
        use rustix::process::{Resource, getrlimit};
        let files = raise_file_limit();
        let limit = getrlimit(Resource::Nofile);
        let most = limit.maximum.map_or(usize::MAX, |most| usize::try_from(most).unwrap());
        assert_eq!(files, most, "the limit now: {limit:?}");
    }

    fn damage() -> StorageError {
        let (path, what) = ("tables/1.table".to_owned(), "a block".to_owned());
        StorageError::Corrupt { path, offset: 0, what }
    }

    fn condemned() -> StopReason {
        StopReason::Condemned(damage())
    }

    #[test]
    fn node_whose_state_is_condemned_starts_again_by_itself() {
        let told = pin!(pending());
        let ended = end_of(ready(condemned()), told, || unreachable!("nobody told it"), pending());
        let ended = ended.now_or_never().unwrap().unwrap();
        assert_eq!(ended, Ended { reason: condemned(), was_told: false });
        assert!(ended.starts_again());
        for reason in [StopReason::Requested, StopReason::Storage(damage())] {
            assert!(!Ended { reason, was_told: false }.starts_again());
        }
    }

    /// The accident: a node that was told to stop, and found its tables damaged on the way, was
    /// started again, and panicked as it waited once more for what it had been told already.
    #[test]
    fn node_that_is_told_to_stop_while_its_state_is_condemned_does_not_start_again() {
        let (end, ended) = oneshot::channel();
        let was_shut_down = Cell::new(false);
        // It must not be asked again once it has been told.
        let told = pin!(async { Ok(()) });
        let shut_down = || was_shut_down.set(true);
        let mut ending = pin!(end_of(ended.map(Result::unwrap), told, shut_down, pending()));
        assert!(ending.as_mut().now_or_never().is_none(), "it waits for the end");
        assert!(was_shut_down.get());
        end.send(condemned()).unwrap();
        let ended = ending.now_or_never().unwrap().unwrap();
        assert_eq!(ended, Ended { reason: condemned(), was_told: true });
        assert!(!ended.starts_again());
    }

    #[test]
    fn node_that_is_told_twice_is_not_waited_for() {
        let told = pin!(ready(Ok(())));
        let ended = end_of(pending(), told, || {}, ready(Ok(()))).now_or_never().unwrap().unwrap();
        assert_eq!(ended, Ended { reason: StopReason::Requested, was_told: true });
    }
}
