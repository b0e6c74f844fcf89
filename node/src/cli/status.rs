//! `mangrove status`: how every node of a cluster is, as a table or as JSON.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;

use super::CliError;
use super::args::{Format, StatusArgs};
use super::client_commands::client;
use super::output::{Output, text};
use crate::base::NodeId;
use crate::client::{Client, ClientError};
use crate::env::real::RealEnv;
use crate::wire::{HintStatus, MasterlessStatus, MemoryStatus, PeerStatus, Status};

/// `mangrove status`
pub(super) async fn status(args: StatusArgs) -> Result<(), CliError> {
    let client = client(&args.connection);
    let mut found = statuses(&client, args.connection.cluster.clone()).await;
    for _ in 0..FOLLOWED_MAX {
        let mut others = named(&found);
        others.extend(leaders(&client, &found).await);
        others.retain(|other| found.iter().all(|(address, _)| address != other));
        found.extend(statuses(&client, others.into_iter().collect()).await);
    }
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

/// How often nodes are asked that only others named: the leader that a follower knows, and those
/// that the leader knows.
const FOLLOWED_MAX: usize = 2;

/// A node's address and how it is, or why that is not known.
type Answer = (String, Result<Status, ClientError>);

async fn statuses(client: &Client<RealEnv>, addresses: Vec<String>) -> Vec<Answer> {
    let asked = addresses.into_iter().map(|address| async {
        let status = client.status(&address).await;
        (address, status)
    });
    join_all(asked).await
}

/// Returns where nodes are that answering ones named, and that did not answer elsewhere.
fn named(found: &[Answer]) -> BTreeSet<String> {
    let peers = answered(found).flat_map(|status| &status.peers);
    peers.filter(|peer| !answers(found, peer.node)).map(|peer| peer.address.clone()).collect()
}

/// Asks those that take another node for the leader, which did not answer, where that is. Who does
/// not lead names no other node in its status.
async fn leaders(client: &Client<RealEnv>, found: &[Answer]) -> Vec<String> {
    let asked = followers(found).into_iter().map(|address| client.leader_known_at(address));
    join_all(asked).await.into_iter().filter_map(|known| known.ok().flatten()).collect()
}

/// Returns where nodes are that take another one for the leader, which did not answer.
fn followers(found: &[Answer]) -> Vec<&str> {
    let follows = |status: &Status| status.leader.is_some_and(|leader| !answers(found, leader));
    let followers = found.iter().filter(|(_, status)| status.as_ref().is_ok_and(follows));
    followers.map(|(address, _)| address.as_str()).collect()
}

/// Returns how the nodes are that answered.
fn answered(found: &[Answer]) -> impl Iterator<Item = &Status> {
    found.iter().filter_map(|(_, status)| status.as_ref().ok())
}

/// Tells whether a node answered.
fn answers(found: &[Answer], node: NodeId) -> bool {
    answered(found).any(|status| status.node == node)
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
            if answered(found).any(|status| status.masterless.is_some()) {
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
    let heads = [
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
    ];
    let rows = found.iter().map(|(address, status)| match status {
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
    output.grid(&heads, &rows.collect::<Vec<_>>())?;
    let leader = leader(found);
    if let Some(status) = leader.or_else(|| answered(found).next()) {
        output
            .line(&format!("cluster {} ({}), {}", status.cluster, status.mode, status.version))?;
        say_sync(found, output)?;
    }
    match leader {
        Some(leader) => {
            leader.peers.iter().try_for_each(|peer| output.line(&peer_line(found, peer)))
        }
        None => output.line(&no_leader_line(found)),
    }
}

/// Returns the node that leads. One that was replaced and has not heard of it yet says the same, of
/// a lower term.
fn leader(found: &[Answer]) -> Option<&Status> {
    let leaders = answered(found).filter(|status| status.role == "leader");
    leaders.max_by_key(|status| status.term)
}

/// Says how far a follower is, as the leader knows.
fn peer_line(found: &[Answer], peer: &PeerStatus) -> String {
    let behind = match peer.lag {
        0 => "up to date".to_owned(),
        1 => "1 entry behind".to_owned(),
        lag => format!("{lag} entries behind"),
    };
    // What the leader knows of a node that is gone is what it knew before that.
    let silent = if answers(found, peer.node) { "" } else { "does not answer; last known to be " };
    format!("{}: {silent}{behind} ({})", peer.node, peer.state)
}

/// Says why no leader is shown.
fn no_leader_line(found: &[Answer]) -> String {
    match answered(found).find_map(|status| Some((status.leader?, status.node))) {
        Some((leader, node)) if leader != node => {
            format!("{leader} leads, as {node} says, and does not answer here")
        }
        Some(_) | None => "no leader is known".to_owned(),
    }
}

fn print_masterless_table(found: &[Answer], output: &mut Output) -> Result<(), CliError> {
    let heads = [
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
    ];
    let rows = found.iter().map(|(address, status)| masterless_row(address, status.as_ref().ok()));
    output.grid(&heads, &rows.collect::<Vec<_>>())?;
    for (number, status) in answered(found).enumerate() {
        let Some(masterless) = &status.masterless else { continue };
        if number == 0 {
            let MasterlessStatus { replication_factor, partition_count, repair, .. } = masterless;
            output.line(&format!(
                "cluster {} ({}), {}: {replication_factor} replicas of each of {partition_count} \
                 partitions, repair {repair}",
                status.cluster, status.mode, status.version
            ))?;
            say_sync(found, output)?;
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

fn masterless_row(address: &str, status: Option<&Status>) -> Vec<String> {
    let unreachable = || vec!["?".to_owned(), address.to_owned(), "unreachable".to_owned()];
    let row = status.and_then(|status| {
        let masterless = status.masterless.as_ref()?;
        let hint_count: u64 = masterless.hints.iter().map(|hint| hint.count).sum();
        // The comparison that is longest ago; one that never was is longer ago than any. A node
        // that shares nothing with others has none.
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
            synced.map_or_else(|| "-".to_owned(), ago),
            ago(floor),
            status.cell_count.to_string(),
            size(status.wal_bytes),
            size(status.table_bytes),
            disk(status).to_owned(),
        ])
    });
    row.unwrap_or_else(unreachable)
}

/// Says when the nodes acknowledge, and what that promises.
fn say_sync(found: &[Answer], output: &mut Output) -> Result<(), CliError> {
    sync_lines(found).iter().try_for_each(|line| output.line(line))
}

/// Returns the line of all nodes that acknowledge alike. If they do not, each has its own: nothing
/// compares them, and the cluster promises only what the weakest does.
fn sync_lines(found: &[Answer]) -> Vec<String> {
    let policies: BTreeMap<NodeId, &str> =
        answered(found).map(|status| (status.node, status.sync_policy.as_str())).collect();
    // Another version of the program may have other words for the same.
    let kinds: BTreeSet<&str> =
        policies.values().filter_map(|policy| policy.split(':').next()).collect();
    if kinds.len() <= 1 {
        let policy = policies.into_values().next();
        return policy.map(|policy| format!("acknowledges {policy}")).into_iter().collect();
    }
    let each = policies.iter().map(|(node, policy)| format!("{node} acknowledges {policy}"));
    let advice = "the nodes differ in --sync: give all the same, for the weakest promise counts";
    each.chain([advice.to_owned()]).collect()
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
    for status in answered(found) {
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
    for status in answered(found) {
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

    /// The answer of a node of a primary-backup cluster of three, as the leader or a follower.
    fn answer(node: u64, leader: Option<u64>) -> Answer {
        let peer = |node| PeerStatus {
            node: NodeId(node),
            address: format!("{node}:1"),
            match_index: 7,
            lag: 0,
            state: "probe".to_owned(),
        };
        let leads = leader == Some(node);
        let others = [1, 2, 3].into_iter().filter(|other| leads && *other != node);
        let status = Status {
            node: NodeId(node),
            leader: leader.map(NodeId),
            role: if leads { "leader" } else { "follower" }.to_owned(),
            peers: others.map(peer).collect(),
            ..status("")
        };
        (format!("{node}:1"), Ok(status))
    }

    fn silent(node: u64) -> Answer {
        (format!("{node}:1"), Err(ClientError::Overloaded))
    }

    #[test]
    fn nodes_that_did_not_answer_are_found_over_those_that_did() {
        let follower = [answer(3, Some(2))];
        assert!(named(&follower).is_empty(), "a follower names nobody");
        assert_eq!(followers(&follower), ["3:1"], "but it knows who leads");
        let with_leader = [answer(3, Some(2)), answer(2, Some(2))];
        assert_eq!(named(&with_leader), ["1:1".to_owned()].into());
        assert!(followers(&with_leader).is_empty());
        // Node 1 answered at a name of its machine, not at the address that the others know.
        let elsewhere = ("here:1".to_owned(), answer(1, Some(2)).1);
        assert!(named(&[elsewhere, answer(3, Some(2)), answer(2, Some(2))]).is_empty());
        assert!(followers(&[answer(1, None)]).is_empty());
    }

    #[test]
    fn follower_that_does_not_answer_is_not_called_up_to_date() {
        let found = [answer(1, Some(1)), answer(2, Some(1)), silent(3)];
        let peers = &found[0].1.as_ref().unwrap().peers;
        assert_eq!(peer_line(&found, &peers[0]), "n2: up to date (probe)");
        let said = peer_line(&found, &peers[1]);
        assert_eq!(said, "n3: does not answer; last known to be up to date (probe)");
        let behind = PeerStatus { lag: 1, ..peers[0].clone() };
        assert_eq!(peer_line(&found, &behind), "n2: 1 entry behind (probe)");
    }

    #[test]
    fn of_two_leaders_the_one_of_the_higher_term_leads() {
        let of_term = |node, term| {
            let (address, status) = answer(node, Some(node));
            (address, status.map(|status| Status { term, ..status }))
        };
        for found in [[of_term(1, 6), of_term(2, 7)], [of_term(2, 7), of_term(1, 6)]] {
            assert_eq!(leader(&found).map(|status| status.node), Some(NodeId(2)));
        }
        assert_eq!(leader(&[answer(1, Some(2)), silent(2)]), None);
    }

    #[test]
    fn leader_that_does_not_answer_is_named() {
        let said = no_leader_line(&[silent(1), answer(2, Some(1))]);
        assert_eq!(said, "n1 leads, as n2 says, and does not answer here");
        assert_eq!(no_leader_line(&[answer(2, None), silent(1)]), "no leader is known");
    }

    /// The accident: one node of three had been given another --sync, and the promise of all was
    /// said to be that of whoever led, or answered first.
    #[test]
    fn promise_of_the_cluster_is_not_that_of_one_node() {
        let with = |node, policy: &str| {
            let (address, status) = answer(node, Some(1));
            let sync_policy = policy.to_owned();
            (address, status.map(|status| Status { sync_policy, ..status }))
        };
        let (always, interval) = ("always: it survives", "every 20 ms: it may not");
        let alike = [with(1, always), silent(2), with(3, "always: as others say")];
        assert_eq!(sync_lines(&alike), [format!("acknowledges {always}")]);
        let lines = sync_lines(&[with(1, always), with(2, interval), with(1, always)]);
        let [first, second, advice] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(*first, format!("n1 acknowledges {always}"));
        assert_eq!(*second, format!("n2 acknowledges {interval}"));
        assert!(advice.contains("weakest"), "{advice}");
        assert!(sync_lines(&[silent(1)]).is_empty());
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
