//! `mangrove status`: how every node of a cluster is, as a table or as JSON.

use comfy_table::Table;
use futures_util::future::join_all;

use super::CliError;
use super::args::{Format, StatusArgs};
use super::client_commands::client;
use super::output::{Output, new_table, text};
use crate::client::{Client, ClientError};
use crate::env::real::RealEnv;
use crate::wire::{HintStatus, MasterlessStatus, MemoryStatus, PeerStatus, Status};

/// `mangrove status`
pub(super) async fn status(args: StatusArgs) -> Result<(), CliError> {
    let client = client(&args.connection);
    let mut found = statuses(&client, args.connection.cluster.clone()).await;
    let mut others: Vec<String> = found
        .iter()
        .filter_map(|(_, status)| status.as_ref().ok())
        .flat_map(|status| status.peers.iter().map(|peer| peer.address.clone()))
        .filter(|address| !args.connection.cluster.contains(address))
        .collect();
    others.sort();
    others.dedup();
    found.extend(statuses(&client, others).await);
    if args.output != Format::Json {
        for answer in &mut found {
            make_readable(answer);
        }
    }
    let printed = print_statuses(&found, args.output);
    let has_answer = found.iter().any(|(_, status)| status.is_ok());
    match found.into_iter().find_map(|(_, status)| status.err()) {
        Some(error) if !has_answer => {
            let advice = "no node answers: check --cluster, or start the nodes";
            Err(CliError::from(error).advise(advice.to_owned()).despite(printed))
        }
        Some(_) | None => printed,
    }
}

/// A node's address and how it is, or why that is not known.
type Answer = (String, Result<Status, ClientError>);

async fn statuses(client: &Client<RealEnv>, addresses: Vec<String>) -> Vec<Answer> {
    let asked = addresses.into_iter().map(|address| async {
        let status = client.status(&address).await;
        (address, status)
    });
    join_all(asked).await
}

/// Escapes what a terminal would obey: whoever answers may be no node at all.
fn make_readable((address, status): &mut Answer) {
    *address = text(address.as_bytes());
    let Ok(status) = status else { return };
    let Status { mode, role, sync_policy, version, peers, masterless, .. } = status;
    let mut texts = vec![mode, role, sync_policy, version];
    for PeerStatus { address, state, .. } in peers {
        texts.extend([address, state]);
    }
    if let Some(MasterlessStatus { repair, memory, .. }) = masterless {
        texts.push(repair);
        texts.extend(memory.iter_mut().map(|memory| &mut memory.what));
    }
    for shown in texts {
        *shown = text(shown.as_bytes());
    }
}

fn print_statuses(found: &[Answer], format: Format) -> Result<(), CliError> {
    let mut output = Output::new(format);
    match format {
        Format::Json => {
            for (address, status) in found {
                let error = status.as_ref().err().map(why);
                output.json(&StatusLine { address, status: status.as_ref().ok(), error })?;
            }
        }
        Format::Raw => {
            for (address, status) in found {
                let role = status.as_ref().map_or("unreachable", |status| &status.role);
                output.line(&format!("{address}\t{role}"))?;
            }
        }
        Format::Table => {
            let mut statuses = found.iter().filter_map(|(_, status)| status.as_ref().ok());
            if statuses.any(|status| status.masterless.is_some()) {
                print_masterless_table(found, &mut output)?;
            } else {
                print_status_table(found, &mut output)?;
            }
            say_awaited(found, &mut output)?;
            say_waits(found, &mut output)?;
            for (address, status) in found {
                if let Err(error) = status {
                    output.line(&format!("{address}: {}", text(why(error).as_bytes())))?;
                }
            }
        }
    }
    output.finish()
}

fn print_status_table(found: &[Answer], output: &mut Output) -> Result<(), CliError> {
    let mut table = new_table(&[
        "node",
        "address",
        "role",
        "term",
        "log",
        "commit",
        "applied",
        "cells",
        "sessions",
        "log on disk",
        "tables",
        "disk",
    ]);
    for (address, status) in found {
        table.add_row(match status {
            Ok(status) => vec![
                status.node.to_string(),
                address.clone(),
                status.role.clone(),
                status.term.to_string(),
                status.last_index.to_string(),
                status.commit_index.to_string(),
                status.applied_index.to_string(),
                status.cell_count.to_string(),
                status.session_count.to_string(),
                size(status.wal_bytes),
                size(status.table_bytes),
                disk(status).to_owned(),
            ],
            Err(_) => vec!["?".to_owned(), address.clone(), "unreachable".to_owned()],
        });
    }
    output.table(&table)?;
    let leader = found
        .iter()
        .find_map(|(_, status)| status.as_ref().ok().filter(|status| status.role == "leader"));
    if let Some(leader) = leader {
        output
            .line(&format!("cluster {} ({}), {}", leader.cluster, leader.mode, leader.version))?;
        output.line(&format!("acknowledges {}", leader.sync_policy))?;
        for peer in &leader.peers {
            let behind = match peer.lag {
                0 => "up to date".to_owned(),
                lag => format!("{lag} entries behind"),
            };
            output.line(&format!("{}: {behind} ({})", peer.node, peer.state))?;
        }
    } else {
        output.line("no leader is known")?;
    }
    Ok(())
}

fn print_masterless_table(found: &[Answer], output: &mut Output) -> Result<(), CliError> {
    let mut table = new_table(&[
        "node",
        "address",
        "role",
        "up",
        "hints",
        "dropped",
        "batches",
        "synced",
        "floor",
        "cells",
        "log on disk",
        "tables",
        "disk",
    ]);
    for (address, status) in found {
        add_masterless_row(&mut table, address, status.as_ref().ok());
    }
    output.table(&table)?;
    let statuses = found.iter().filter_map(|(_, status)| status.as_ref().ok());
    for (number, status) in statuses.enumerate() {
        let Some(masterless) = &status.masterless else { continue };
        if number == 0 {
            let MasterlessStatus { replication_factor, partition_count, repair, .. } = masterless;
            output.line(&format!(
                "cluster {} ({}), {}: {replication_factor} replicas of each of {partition_count} \
                 partitions, repair {repair}",
                status.cluster, status.mode, status.version
            ))?;
            output.line(&format!("acknowledges {}", status.sync_policy))?;
        }
        for HintStatus { target, count, bytes, bytes_max, .. } in &masterless.hints {
            let (bytes, bytes_max) = (size(*bytes), size(*bytes_max));
            output.line(&format!(
                "{}: {count} hints for {target} ({bytes} of at most {bytes_max})",
                status.node
            ))?;
        }
        let in_use = masterless.memory.iter().filter(|memory| memory.count > 0);
        let in_use: Vec<String> = in_use.map(memory_line).collect();
        output.line(&format!("{} holds in memory {}", status.node, in_use.join("; ")))?;
        if let Some(ahead_ms) = masterless.clock_ahead_ms {
            output.line(&format!(
                "{}: its clock is {} s ahead of the other nodes': it takes no writes until it is \
                 set",
                status.node,
                ahead_ms / 1000
            ))?;
        }
        if !masterless.is_whole {
            output.line(&format!(
                "{}: its disk lost something; it answers no reads until it has got that from the \
                 others",
                status.node
            ))?;
        } else if status.role == "recovering" {
            output.line(&format!(
                "{}: its disk lost which stamps it gave; it takes no writes for some seconds",
                status.node
            ))?;
        }
    }
    Ok(())
}

/// Says how much of something is held in memory, and how much that may be.
fn memory_line(memory: &MemoryStatus) -> String {
    let count_max = memory.count_max.map_or(String::new(), |max| format!(" of at most {max}"));
    let bytes_max = memory
        .bytes_max
        .map_or(String::new(), |max| format!(" ({} of at most {})", size(memory.bytes), size(max)));
    format!("{}: {}{count_max}{bytes_max}", memory.what, memory.count)
}

fn add_masterless_row(table: &mut Table, address: &str, status: Option<&Status>) {
    let unreachable = || vec!["?".to_owned(), address.to_owned(), "unreachable".to_owned()];
    let row = status.and_then(|status| {
        let masterless = status.masterless.as_ref()?;
        let hint_count: u64 = masterless.hints.iter().map(|hint| hint.count).sum();
        // The comparison that is longest ago; one that never was is longer ago than any.
        let synced = masterless.syncs.iter().map(|sync| sync.last_ms_ago.unwrap_or(u64::MAX)).max();
        let floor = match masterless.floor_ms {
            0 => u64::MAX,
            floor_ms => status.wall_ms.saturating_sub(floor_ms),
        };
        Some(vec![
            status.node.to_string(),
            address.to_owned(),
            status.role.clone(),
            masterless.up.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            hint_count.to_string(),
            masterless.hints_dropped.to_string(),
            masterless.batch_count.to_string(),
            ago(synced.unwrap_or(u64::MAX)),
            ago(floor),
            status.cell_count.to_string(),
            size(status.wal_bytes),
            size(status.table_bytes),
            disk(status).to_owned(),
        ])
    });
    table.add_row(row.unwrap_or_else(unreachable));
}

/// Says in a word whether the disk takes writes.
fn disk(status: &Status) -> &'static str {
    match (status.disk_full, status.writes_wait) {
        (true, _) => "full",
        (false, true) => "behind",
        (false, false) => "ok",
    }
}

/// Says of each node that does not take part yet what it waits for.
fn say_awaited(found: &[Answer], output: &mut Output) -> Result<(), CliError> {
    for status in found.iter().filter_map(|(_, status)| status.as_ref().ok()) {
        if let Some(awaited) = &status.awaited {
            let why = match status.role.as_str() {
                "new" => "its disk is empty",
                _ => "the record of what it has promised is damaged",
            };
            let node = status.node;
            output.line(&format!("{node}: {why}; before it takes part, it waits for {awaited}"))?;
        }
    }
    Ok(())
}

/// Says of each node for how long writes waited, if they did.
fn say_waits(found: &[Answer], output: &mut Output) -> Result<(), CliError> {
    for status in found.iter().filter_map(|(_, status)| status.as_ref().ok()) {
        if status.writes_waited_ms > 0 {
            let (seconds, rest) = (status.writes_waited_ms / 1000, status.writes_waited_ms % 1000);
            output.line(&format!(
                "{}: writes have waited {seconds}.{rest:03} s for compactions since it started",
                status.node
            ))?;
        }
    }
    Ok(())
}

/// Shows a time that has passed; `u64::MAX` for one that never was.
fn ago(ms: u64) -> String {
    match ms / 1000 {
        _ if ms == u64::MAX => "never".to_owned(),
        seconds @ 0..120 => format!("{seconds} s ago"),
        seconds @ 120..7200 => format!("{} min ago", seconds / 60),
        seconds => format!("{} h ago", seconds / 3600),
    }
}

/// One node in JSON.
#[derive(serde::Serialize)]
struct StatusLine<'a> {
    address: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Says why one node did not answer; it was tried once.
fn why(error: &ClientError) -> String {
    if let ClientError::Unavailable { last, .. } = error {
        return last.to_string();
    }
    error.to_string()
}

/// Shows a number of bytes to people.
fn size(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >> shift > 0 {
            let tenths = (bytes >> (shift - 10)).saturating_mul(10) >> 10;
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ClusterId, NodeId};

    fn status(word: &str) -> Status {
        let word = || word.to_owned();
        let peer =
            PeerStatus { node: NodeId(2), address: word(), match_index: 0, lag: 0, state: word() };
        Status {
            node: NodeId(1),
            cluster: ClusterId(1),
            mode: word(),
            role: word(),
            awaited: None,
            term: 0,
            leader: None,
            last_index: 0,
            commit_index: 0,
            applied_index: 0,
            snapshot_index: 0,
            peers: vec![peer],
            cell_count: 0,
            session_count: 0,
            wal_bytes: 0,
            table_bytes: 0,
            sync_policy: word(),
            disk_full: false,
            writes_wait: false,
            writes_waited_ms: 0,
            wall_ms: 0,
            version: word(),
            masterless: None,
        }
    }

    #[test]
    fn no_word_of_a_node_moves_a_terminal() {
        let mut answer = ("\u{1b}[2J".to_owned(), Ok(status("\u{1b}c")));
        make_readable(&mut answer);
        let (address, shown) = answer;
        assert_eq!(address, "\\u{1b}[2J");
        assert_eq!(shown, Ok(status("\\u{1b}c")));
    }

    #[test]
    fn times_are_shown_in_their_unit() {
        assert_eq!(ago(u64::MAX), "never");
        assert_eq!(ago(999), "0 s ago");
        assert_eq!(ago(119_999), "119 s ago");
        assert_eq!(ago(120_000), "2 min ago");
        assert_eq!(ago(7_200_000), "2 h ago");
    }

    #[test]
    fn sizes_are_shown_in_their_unit() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(64 << 20), "64.0 MiB");
        assert_eq!(size((3 << 30) - 1), "2.9 GiB");
        assert_eq!(size(u64::MAX).len(), "17179869183.9 GiB".len());
    }
}
