//! The commands of a client: one request each, printed as asked.

use std::io::Read;

use bytes::Bytes;
use futures_util::future::join_all;

use super::CliError;
use super::args::{
    BulkArgs, CasArgs, ConnectionArgs, DeleteArgs, EncodingArgs, Format, GetArgs, KeysArgs,
    RowArgs, SetArgs, SliceArgs, StatusArgs,
};
use super::output::{Output, new_table};
use super::records::{Record, decode_base64};
use crate::base::{Column, Key, TooLarge, Value};
use crate::client::{CasResult, Client, ClientError, ClientOptions, KeyRange};
use crate::env::real::RealEnv;
use crate::kv::{Batch, Cell, Expectation};
use crate::wire::Status;

/// Makes the client that the arguments describe.
pub(super) fn client(connection: &ConnectionArgs) -> Client<RealEnv> {
    let defaults = ClientOptions::default();
    let limit = connection.timeout;
    let options = ClientOptions {
        connect_timeout: defaults.connect_timeout.min(limit),
        try_timeout: defaults.try_timeout.min(limit),
        request_timeout: limit,
        ..defaults
    };
    Client::connect(RealEnv::client(), connection.cluster.clone(), options)
}

impl EncodingArgs {
    /// Returns the bytes that a key or column on the command line means.
    fn bytes(self, argument: &str) -> Result<Bytes, CliError> {
        if self.base64 {
            return decode_base64(argument).map(Bytes::from).map_err(CliError::Usage);
        }
        Ok(Bytes::copy_from_slice(argument.as_bytes()))
    }

    /// Returns the key that an argument means.
    pub(super) fn key(self, argument: &str) -> Result<Key, CliError> {
        Key::new(self.bytes(argument)?).map_err(too_large)
    }

    fn column(self, argument: &str) -> Result<Column, CliError> {
        Column::new(self.bytes(argument)?).map_err(too_large)
    }

    /// Returns the value that an argument means: itself, a file's content, or standard input's.
    fn value(self, argument: &str) -> Result<Value, CliError> {
        let bytes = match (argument, argument.strip_prefix('@')) {
            ("-", _) => read_stdin()?.into(),
            (_, Some(rest)) if rest.starts_with('@') => self.bytes(rest)?,
            (_, Some(path)) => std::fs::read(path)
                .map_err(|error| CliError::Usage(format!("cannot read {path}: {error}")))?
                .into(),
            (_, None) => self.bytes(argument)?,
        };
        Value::new(bytes).map_err(too_large)
    }
}

/// `mangrove get`
pub(super) async fn get(args: GetArgs) -> Result<(), CliError> {
    let key = args.encoding.key(&args.key)?;
    let column = args.encoding.column(&args.column)?;
    let place = (key.clone().into_bytes(), column.clone().into_bytes());
    let found = client(&args.connection).get_cell(place.0, place.1).await?;
    let cell = found.ok_or(CliError::NotFound)?;
    let mut output = Output::new(args.connection.output);
    output.cell(&key, &column, &cell)?;
    output.finish()
}

/// `mangrove set`
pub(super) async fn set(args: SetArgs) -> Result<(), CliError> {
    let key = args.encoding.key(&args.key)?.into_bytes();
    let column = args.encoding.column(&args.column)?.into_bytes();
    let value = args.encoding.value(&args.value)?.into_bytes();
    let version = client(&args.connection).set_cell(key, column, value).await?;
    written(args.connection.output, version.0)
}

/// `mangrove delete`
pub(super) async fn delete(args: DeleteArgs) -> Result<(), CliError> {
    let key = args.encoding.key(&args.key)?.into_bytes();
    let column = args.encoding.column(&args.column)?.into_bytes();
    let client = client(&args.connection);
    let version = if args.row {
        client.delete_row(key).await?
    } else {
        client.delete_cell(key, column).await?
    };
    written(args.connection.output, version.0)
}

/// `mangrove row`
pub(super) async fn row(args: RowArgs) -> Result<(), CliError> {
    let key = args.encoding.key(&args.key)?;
    let cells = client(&args.connection).row(key.clone().into_bytes()).await?;
    columns(args.connection.output, &key, &cells)
}

/// `mangrove slice`
pub(super) async fn slice(args: SliceArgs) -> Result<(), CliError> {
    let key = args.encoding.key(&args.key)?;
    let bound = |bound: Option<String>| bound.map(|text| args.encoding.column(&text)).transpose();
    let (start, stop) = (bound(args.start)?, bound(args.stop)?);
    let cells = client(&args.connection).slice(key.clone().into_bytes(), start, stop).await?;
    columns(args.connection.output, &key, &cells)
}

/// `mangrove keys`
pub(super) async fn keys(args: KeysArgs) -> Result<(), CliError> {
    let bound = |bound: Option<String>| bound.map(|text| args.encoding.key(&text)).transpose();
    let range = KeyRange {
        start: bound(args.start)?,
        stop: bound(args.stop)?,
        prefix: args.encoding.key(&args.prefix)?,
    };
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut pager = client(&args.connection).keys(range);
    if let Some(limit) = args.limit.and_then(|limit| u32::try_from(limit).ok()) {
        pager = pager.page_limit(limit);
    }
    let mut output = Output::new(args.connection.output);
    while left > 0
        && let Some(page) = pager.next_page().await?
    {
        for key in page {
            if left > 0 {
                output.key(&key)?;
                left -= 1;
            }
        }
    }
    output.finish()
}

/// `mangrove cas`
pub(super) async fn cas(args: CasArgs) -> Result<(), CliError> {
    let key = args.encoding.key(&args.key)?;
    let column = args.encoding.column(&args.column)?;
    let expected = match &args.expect {
        Some(value) => Expectation::Value(args.encoding.value(value)?),
        None => Expectation::Absent,
    };
    let new = args.set.map(|value| args.encoding.value(&value)).transpose()?;
    let place = (key.clone().into_bytes(), column.clone().into_bytes());
    let client = client(&args.connection);
    match client.compare_and_set(place.0, place.1, expected, new).await? {
        CasResult::Applied(version) => written(args.connection.output, version.0),
        CasResult::Conflict { current, .. } => {
            let Some(cell) = current else {
                return Err(CliError::Conflict("conflict: there is no such cell".to_owned()));
            };
            let mut output = Output::new(args.connection.output);
            output.cell(&key, &column, &cell)?;
            output.finish()?;
            Err(CliError::Conflict("conflict: the cell is as shown".to_owned()))
        }
    }
}

/// `mangrove bulk`
pub(super) async fn bulk(args: BulkArgs) -> Result<(), CliError> {
    let input = match args.file.as_str() {
        "-" => read_stdin()?,
        path => std::fs::read(path)
            .map_err(|error| CliError::Usage(format!("cannot read {path}: {error}")))?,
    };
    let name = if args.file == "-" { "standard input" } else { &args.file };
    let mut batch = Batch::default();
    for (position, line) in input.split(|byte| *byte == b'\n').enumerate() {
        if !line.trim_ascii().is_empty() {
            let mutation = Record::parse(line).map_err(|error| {
                CliError::Usage(format!("{name}, line {}: {error}", position + 1))
            })?;
            batch.mutations.push(mutation);
        }
    }
    let version = client(&args.connection).bulk_set(batch).await?;
    written(args.connection.output, version.0)
}

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
    print_statuses(&found, args.connection.output)?;
    let has_answer = found.iter().any(|(_, status)| status.is_ok());
    match found.into_iter().find_map(|(_, status)| status.err()) {
        Some(error) if !has_answer => {
            let advice = "no node answers: check --cluster, or start the nodes";
            Err(CliError::from(error).advise(advice.to_owned()))
        }
        Some(_) | None => Ok(()),
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
        Format::Table => print_status_table(found, &mut output)?,
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
                if status.disk_full { "full" } else { "ok" }.to_owned(),
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
    for (address, status) in found {
        if let Err(error) = status {
            output.line(&format!("{address}: {}", why(error)))?;
        }
    }
    Ok(())
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

fn columns(format: Format, key: &Key, cells: &[(Column, Cell)]) -> Result<(), CliError> {
    if cells.is_empty() {
        return Err(CliError::NotFound);
    }
    let mut output = Output::new(format);
    output.columns(key, cells)?;
    output.finish()
}

/// Prints that a write was applied.
fn written(format: Format, version: u64) -> Result<(), CliError> {
    let mut output = Output::new(format);
    match format {
        Format::Table => output.line(&format!("ok, version {version}"))?,
        Format::Json => output.json(&serde_json::json!({ "version": version }))?,
        Format::Raw => {}
    }
    output.finish()
}

fn read_stdin() -> Result<Vec<u8>, CliError> {
    let mut input = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut input)
        .map_err(|error| CliError::io("cannot read standard input", &error))?;
    Ok(input)
}

fn too_large(error: TooLarge) -> CliError {
    CliError::Client(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: EncodingArgs = EncodingArgs { base64: false };
    const BASE64: EncodingArgs = EncodingArgs { base64: true };

    #[test]
    fn arguments_are_text_base64_or_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value");
        std::fs::write(&path, b"\xFF in a file").unwrap();
        let at = format!("@{}", path.display());
        assert_eq!(TEXT.value("plain").unwrap().as_bytes(), b"plain");
        assert_eq!(TEXT.value("@@mia").unwrap().as_bytes(), b"@mia");
        assert_eq!(TEXT.value(&at).unwrap().as_bytes(), b"\xFF in a file");
        assert_eq!(BASE64.value(&at).unwrap().as_bytes(), b"\xFF in a file");
        assert_eq!(BASE64.key("/wA=").unwrap().as_bytes(), b"\xFF\x00");
    }

    #[test]
    fn wrong_arguments_are_usage_errors() {
        let long = "k".repeat(5000);
        for error in [
            BASE64.key("?").unwrap_err(),
            TEXT.value("@/there/is/no/such/file").unwrap_err(),
            TEXT.key(&long).unwrap_err(),
        ] {
            assert_eq!(error.exit_code(), 2, "{error}");
        }
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
