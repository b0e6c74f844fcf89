//! `mangrove wal`: a look into the write-ahead log of a node that does not run.

use std::path::PathBuf;

use super::CliError;
use super::args::Format;
use super::output::Output;
use super::serve::open_data;
use crate::replica::{WAL_DIR, dump_log};

/// `mangrove wal dump`
pub(super) async fn dump(dir: PathBuf) -> Result<(), CliError> {
    // Opening would leave traces, and to look must not.
    if !dir.join(WAL_DIR).is_dir() {
        return Err(CliError::Usage(format!(
            "there is no write-ahead log in {}: give the data directory of a node, such as \
             mangrove-data/n1",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::block_on;

    #[test]
    fn directory_that_is_no_nodes_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let error = block_on(None, dump(dir.path().to_owned())).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
