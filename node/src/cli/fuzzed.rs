//! What a fuzzer may call of this folder: everything that reads a file which a person has written.

use super::cluster_file::ClusterFile;
use super::config::Settings;
use super::import;
use super::progress;
use super::records::Record;
use crate::base::{Column, Key};
use crate::kv::{Cell, Mutation, Version};
use crate::replica::NodeConfig;

/// Reads a configuration file, and returns what it makes of a node.
///
/// # Errors
/// What a person would be told.
pub fn configuration(text: &str) -> Result<NodeConfig, String> {
    let settings: Settings = toml::from_str(text).map_err(|error| error.to_string())?;
    settings.into_node_config().map_err(|error| error.to_string())
}

/// Reads the file of a cluster on this machine, and returns it as it would be written again.
///
/// # Errors
/// What a person would be told.
pub fn cluster_file(text: &str) -> Result<String, String> {
    let file: ClusterFile = toml::from_str(text).map_err(|error| error.to_string())?;
    let shown = [file.addresses(), file.members(), file.replication_flags().concat()];
    assert!(shown.iter().all(|shown| shown.len() <= 8 * text.len()), "{shown:?} of {text:?}");
    toml::to_string(&file).map_err(|error| error.to_string())
}

/// Reads a line of `import` or `bulk`.
///
/// # Errors
/// What a person would be told.
pub fn line(line: &[u8]) -> Result<Mutation, String> {
    Record::parse(line)
}

/// Returns a cell as the line that `export` writes.
///
/// # Errors
/// The cell cannot be written as JSON.
pub fn exported(key: &Key, column: &Column, cell: &Cell) -> Result<Vec<u8>, String> {
    serde_json::to_vec(&Record::of_cell(key, column, cell, cell.version > Version(0)))
        .map_err(|error| error.to_string())
}

/// Reads the input of an `import`; returns how many lines, bytes and cells that were, and what the
/// first wrong line was answered with.
pub fn import(input: &[u8]) -> (u64, u64, u64, Result<(), String>) {
    import::read_all(input)
}

/// Reads the file that says how far an import is, of an input of this length and with this checksum
/// of any of its beginnings; returns how many bytes are done, and the file as it would be written
/// again.
///
/// # Errors
/// What a person would be told.
pub fn progress(file: &[u8], total_bytes: u64, crc: u32) -> Result<(u64, Vec<u8>), String> {
    progress::reread(file, total_bytes, crc)
}
