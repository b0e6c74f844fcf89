//! The commands of a client: one request each, printed as asked.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;

use super::CliError;
use super::args::{
    BulkArgs, CasArgs, ConnectionArgs, DeleteArgs, EncodingArgs, Format, GetArgs, KeysArgs,
    LevelArgs, RowArgs, SetArgs, SliceArgs,
};
use super::output::Output;
use super::records::{Record, decode_base64};
use crate::base::{Column, Key, TooLarge, Value};
use crate::client::{CasResult, Client, ClientOptions, KeyRange};
use crate::env::real::RealEnv;
use crate::kv::{Batch, Cell, Expectation};

/// Tries for which there is time if no node answers. A read that takes many turns of its node
/// (`replica::reading`) is answered only to who waits long enough with one of them.
const TRIES_MIN: u32 = 5;

/// Makes the client that the arguments describe.
pub(super) fn client(connection: &ConnectionArgs) -> Client<RealEnv> {
    let options = options(connection.timeout);
    Client::connect(RealEnv::client(), connection.cluster.clone(), options)
}

/// Returns how long a client waits whose requests may take as long as this.
fn options(limit: Duration) -> ClientOptions {
    let defaults = ClientOptions::default();
    ClientOptions {
        connect_timeout: defaults.connect_timeout.min(limit),
        try_timeout: defaults.try_timeout.max(limit / TRIES_MIN).min(limit),
        request_timeout: limit,
        ..defaults
    }
}

/// Makes the client that the arguments describe, with answers of that level.
pub(super) fn client_at(connection: &ConnectionArgs, level: LevelArgs) -> Client<RealEnv> {
    client(connection).with_level(level.into())
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
    let found = client_at(&args.connection, args.level).get_cell(place.0, place.1).await?;
    let cell = found.ok_or(CliError::NotFound)?;
    let mut output = Output::new(args.output);
    output.cell(&key, &column, &cell)?;
    output.finish()
}

/// `mangrove set`
pub(super) async fn set(args: SetArgs) -> Result<(), CliError> {
    let key = args.encoding.key(&args.key)?.into_bytes();
    let column = args.encoding.column(&args.column)?.into_bytes();
    let value = args.encoding.value(&args.value)?.into_bytes();
    let client =
        client_at(&args.connection, args.level).with_debug_table_loss(args.debug.debug_table_loss);
    let version = client.set_cell(key, column, value).await?;
    written(args.output, version.0)
}

/// `mangrove delete`
pub(super) async fn delete(args: DeleteArgs) -> Result<(), CliError> {
    let key = args.encoding.key(&args.key)?.into_bytes();
    let column = args.encoding.column(&args.column)?.into_bytes();
    let client = client_at(&args.connection, args.level);
    let version = if args.row {
        client.delete_row(key).await?
    } else {
        client.delete_cell(key, column).await?
    };
    written(args.output, version.0)
}

/// `mangrove row`
pub(super) async fn row(args: RowArgs) -> Result<(), CliError> {
    let key = args.encoding.key(&args.key)?;
    let cells = client_at(&args.connection, args.level).row(key.clone().into_bytes()).await?;
    columns(args.output, &key, &cells)
}

/// `mangrove slice`
pub(super) async fn slice(args: SliceArgs) -> Result<(), CliError> {
    let key = args.encoding.key(&args.key)?;
    let bound = |bound: Option<String>| bound.map(|text| args.encoding.column(&text)).transpose();
    let (start, stop) = (bound(args.start)?, bound(args.stop)?);
    let cells = client_at(&args.connection, args.level)
        .slice(key.clone().into_bytes(), start, stop)
        .await?;
    columns(args.output, &key, &cells)
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
    let mut pager = client_at(&args.connection, args.level).keys(range);
    if let Some(limit) = args.limit.and_then(|limit| u32::try_from(limit).ok()) {
        pager = pager.page_limit(limit);
    }
    let mut output = Output::new(args.output);
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
    if args.expect.as_deref() == Some("-") && args.set.as_deref() == Some("-") {
        let what = "standard input is one value: only one of --expect and --set can be -";
        return Err(CliError::Usage(what.to_owned()));
    }
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
        CasResult::Applied(version) => written(args.output, version.0),
        CasResult::Conflict { current, .. } => {
            let mut output = Output::new(args.output);
            let (shown, what) = match current {
                Some(cell) => (output.cell(&key, &column, &cell), "the cell is as shown"),
                None => (output.absent(&key, &column), "there is no such cell"),
            };
            let shown = shown.and_then(|()| output.finish());
            Err(CliError::Conflict(format!("conflict: {what}")).despite(shown))
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
    let client =
        client_at(&args.connection, args.level).with_debug_table_loss(args.debug.debug_table_loss);
    let version = client.bulk_set(batch).await?;
    written(args.output, version.0)
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
    use clap::Parser;

    use super::super::args::{Cli, Command};
    use super::super::block_on;
    use super::*;

    const TEXT: EncodingArgs = EncodingArgs { base64: false };
    const BASE64: EncodingArgs = EncodingArgs { base64: true };

    #[test]
    fn node_is_waited_for_longer_by_who_has_more_time() {
        for (limit, one_try) in [(1, 1), (2, 2), (10, 2), (60, 12)] {
            let options = options(Duration::from_secs(limit));
            let found = (options.request_timeout.as_secs(), options.try_timeout.as_secs());
            assert_eq!(found, (limit, one_try));
        }
    }

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
    fn standard_input_is_one_value() {
        let line = ["mangrove", "cas", "k", "--expect", "-", "--set", "-"];
        let Command::Cas(args) = Cli::try_parse_from(line).unwrap().command else { unreachable!() };
        let error = block_on(None, cas(args)).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(error.to_string().contains("--expect"), "{error}");
    }
}
