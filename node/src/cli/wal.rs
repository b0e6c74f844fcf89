//! `mangrove wal`: written by a colleague.
use super::CliError;
use std::path::PathBuf;
pub(super) async fn dump(_dir: PathBuf) -> Result<(), CliError> {
    Ok(())
}
