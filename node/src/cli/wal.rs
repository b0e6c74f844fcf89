//! `mangrove wal`: a look into the write-ahead log of a node that does not run.

use std::path::PathBuf;

use super::CliError;
use super::args::Format;
use super::output::Output;
use super::serve::open_data;
use crate::replica::dump_log;

/// `mangrove wal dump`
pub(super) async fn dump(dir: PathBuf) -> Result<(), CliError> {
    // Opening would create it, and to look must not leave traces.
    if !dir.is_dir() {
        return Err(CliError::Usage(format!(
            "there is no directory {}: give the data directory of a node, such as mangrove-data/n1",
            dir.display()
        )));
    }
    let env = open_data(&dir)?;
    let mut output = Output::new(Format::Table);
    let mut printed = Ok(());
    let dumped = dump_log(&env, |line| {
        if printed.is_ok() {
            printed = output.line(line);
        }
    });
    dumped.await.map_err(|error| CliError::Failed(error.to_string()))?;
    printed?;
    output.finish()
}
