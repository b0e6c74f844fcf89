//! `mangrove serve`: one node, from its configuration to its end.

use futures_util::future::{Either, select};

use super::args::ServeArgs;
use super::config::Settings;
use super::{CliError, block_on, output, stop_signal};
use crate::env::real::RealEnv;
use crate::env::{DiskError, DiskErrorKind};
use crate::replica::NodeConfig;
use crate::replica::StopReason;
use crate::server::{self, Node};

/// Runs a node until it is told to stop, or has to.
pub(super) fn serve(args: ServeArgs) -> Result<(), CliError> {
    let file = args.config.as_deref().map(Settings::read).transpose()?;
    let settings = args.settings.or(file.unwrap_or_default());
    let (threads, data) = (settings.threads.filter(|threads| *threads > 1), settings.data());
    let config = settings.into_node_config()?;
    if args.check {
        output::say(&format!("the configuration is valid; data in {}", data.display()));
        output::say(&format!("{config:#?}"));
        return Ok(());
    }
    block_on(threads, async move {
        let env = RealEnv::open(&data).map_err(|error| explain(&error))?;
        run(env, config, args.stop_with_input).await
    })
}

async fn run(env: RealEnv, config: NodeConfig, stop_with_input: bool) -> Result<(), CliError> {
    let (cluster, id) = (config.cluster, config.node);
    let failed = |what: String| CliError::Failed(format!("node {id} {what}"));
    let node = server::start(env, config)
        .await
        .map_err(|error| failed(format!("cannot start: {error}")))?;
    tracing::info!(%cluster, node = %id, address = node.local_address(), "the node serves");
    let reason = match until_stopped_or_told(&node, stop_with_input).await? {
        Some(reason) => reason,
        None => shut_down(&node).await?,
    };
    if !matches!(reason, StopReason::Requested) {
        return Err(failed(format!("stopped: {reason}")));
    }
    tracing::info!(node = %id, "the node stopped in good order");
    Ok(())
}

/// Waits until the node stops by itself (`Some`) or is told to (`None`).
async fn until_stopped_or_told(
    node: &Node,
    stop_with_input: bool,
) -> Result<Option<StopReason>, CliError> {
    let told = std::pin::pin!(async {
        if stop_with_input {
            match select(std::pin::pin!(stop_signal()), std::pin::pin!(end_of_input())).await {
                Either::Left((signal, _)) => signal,
                Either::Right(((), _)) => Ok(()),
            }
        } else {
            stop_signal().await
        }
    });
    match select(std::pin::pin!(node.stopped()), told).await {
        Either::Left((reason, _)) => Ok(Some(reason)),
        Either::Right((told, _)) => told.map(|()| None),
    }
}

/// Stops the node in good order; a second signal stops it at once, which loses nothing either.
async fn shut_down(node: &Node) -> Result<StopReason, CliError> {
    tracing::info!("the node stops; a second signal stops it at once");
    node.shutdown();
    let again = std::pin::pin!(stop_signal());
    match select(std::pin::pin!(node.stopped()), again).await {
        Either::Left((reason, _)) => Ok(reason),
        Either::Right((again, _)) => again.map(|()| StopReason::Requested),
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

/// Says what to do about a data directory that cannot be opened.
fn explain(error: &DiskError) -> CliError {
    let advice = match error.kind {
        DiskErrorKind::Locked => "another node runs on this directory: stop it, or give --data",
        DiskErrorKind::NoSpace => "the disk is full: free some space",
        DiskErrorKind::NotFound | DiskErrorKind::Io => "check the directory, or give --data",
    };
    CliError::Failed(error.to_string()).advise(advice.to_owned())
}
