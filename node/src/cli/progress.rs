//! How far an import is: `FILE.progress`, from where `import --resume` goes on.
//!
//! An import goes on with the file and in the cluster that it began with, and with nothing else:
//! the rest of one file after the beginning of another, or each half in a cluster of its own, would
//! look complete.
//!
//! # Layout
//! One JSON object, replaced as a whole:
//! ```text
//! {"cluster":"5e1f0c0ffee5e1f0","head_crc":305419896,"progress":{"total_bytes":4096, …}}
//! ```
//! Before, it was what is in `progress` now, alone. Such a file is recognised and refused.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::CliError;
use super::files::with_suffix;
use crate::base::ClusterId;

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Progress {
    /// Length of the whole input, to recognise another file.
    pub(super) total_bytes: u64,
    /// Everything before here is in the store.
    pub(super) done_bytes: u64,
    /// Lines before here, for messages.
    pub(super) done_lines: u64,
    /// Cells written so far.
    pub(super) done_cells: u64,
}

/// What is in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    /// Where the cells go; `None` until that is known.
    cluster: Option<String>,
    /// Checksum of the beginning of the input, to recognise another file of the same length.
    head_crc: u32,
    progress: Progress,
}

/// The file that says how far an import is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProgressFile {
    path: PathBuf,
    /// The input, for messages.
    input: String,
    content: Content,
}

impl ProgressFile {
    /// Begins with an input of this length, whose beginning has this checksum. Writes nothing yet.
    pub(super) fn begin(input: &Path, total_bytes: u64, head_crc: u32) -> Self {
        let progress = Progress { total_bytes, ..Progress::default() };
        Self {
            path: with_suffix(input, ".progress"),
            input: input.display().to_string(),
            content: Content { cluster: None, head_crc, progress },
        }
    }

    /// Reads how far an earlier import of the input got.
    ///
    /// # Errors
    /// There was none, or it was one of another file.
    pub(super) fn resume(input: &Path, total_bytes: u64, head_crc: u32) -> Result<Self, CliError> {
        let new = Self::begin(input, total_bytes, head_crc);
        let (shown, input) = (new.path.display(), &new.input);
        let bytes = fs::read(&new.path).map_err(|error| {
            CliError::Usage(format!(
                "cannot read {shown}, which would say where to go on: {error}; import without \
                 --resume"
            ))
        })?;
        if serde_json::from_slice::<Progress>(&bytes).is_ok() {
            return Err(CliError::Usage(format!(
                "{shown} is of an earlier release and does not say which cluster {input} went to: \
                 import it from its start, without --resume"
            )));
        }
        let content: Content = serde_json::from_slice(&bytes).map_err(|error| {
            CliError::Usage(format!("{shown}: {error}; import without --resume"))
        })?;
        let Progress { total_bytes: former_bytes, done_bytes, .. } = content.progress;
        if former_bytes != total_bytes || done_bytes > total_bytes {
            return Err(CliError::Usage(format!(
                "{input} had {former_bytes} bytes when its import was interrupted, now it has \
                 {total_bytes}: import it from its start, without --resume"
            )));
        }
        if content.head_crc != head_crc {
            return Err(CliError::Usage(format!(
                "{input} begins with something else than when its import was interrupted: import \
                 it from its start, without --resume"
            )));
        }
        Ok(Self { content, ..new })
    }

    /// Takes note of where the cells go.
    ///
    /// # Errors
    /// The earlier import went to another cluster.
    pub(super) fn bind(&mut self, cluster: ClusterId) -> Result<(), CliError> {
        let cluster = cluster.to_string();
        match &self.content.cluster {
            Some(former) if *former != cluster => Err(CliError::Usage(format!(
                "the import of {} that was interrupted went to the cluster {former}, and this is \
                 {cluster}: give --cluster with nodes of the former, or import all of it into this \
                 one, without --resume",
                self.input
            ))),
            Some(_) | None => {
                self.content.cluster = Some(cluster);
                Ok(())
            }
        }
    }

    /// Returns how far the import is.
    pub(super) fn progress(&self) -> Progress {
        self.content.progress
    }

    /// Writes down how far it is. Replaces the file as a whole, so that it is never half written.
    pub(super) fn write(&mut self, progress: Progress) -> Result<(), CliError> {
        self.content.progress = progress;
        let temporary = with_suffix(&self.path, ".new");
        let written = serde_json::to_vec(&self.content)
            .map_err(std::io::Error::from)
            .and_then(|bytes| fs::write(&temporary, bytes))
            .and_then(|()| fs::rename(&temporary, &self.path));
        written
            .map_err(|error| CliError::io(format!("cannot write {}", self.path.display()), &error))
    }

    /// Removes the file; fine if there is none.
    pub(super) fn remove(self) -> Result<(), CliError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(CliError::io(format!("cannot remove {}", self.path.display()), &error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_refused<T: std::fmt::Debug>(result: Result<T, CliError>, advice: &str) {
        let error = result.unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(error.to_string().contains(advice), "{error}");
    }

    #[test]
    fn import_goes_on_with_its_own_file_and_cluster_alone() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("cells.jsonl");
        assert_refused(ProgressFile::resume(&input, 30, 7), "without --resume");
        let mut kept = ProgressFile::begin(&input, 30, 7);
        kept.bind(ClusterId(1)).unwrap();
        let progress = Progress { done_bytes: 20, done_lines: 2, ..kept.progress() };
        kept.write(progress).unwrap();

        let mut resumed = ProgressFile::resume(&input, 30, 7).unwrap();
        assert_eq!(resumed, kept);
        resumed.bind(ClusterId(1)).unwrap();
        assert_eq!(resumed.progress(), progress);
        assert_refused(resumed.bind(ClusterId(2)), "went to the cluster 0000000000000001");
        assert_refused(ProgressFile::resume(&input, 31, 7), "had 30 bytes");
        assert_refused(ProgressFile::resume(&input, 30, 8), "begins with something else");

        resumed.remove().unwrap();
        kept.remove().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn file_of_an_earlier_release_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("cells.jsonl");
        let kept = ProgressFile::begin(&input, 30, 7);
        fs::write(&kept.path, serde_json::to_vec(&kept.progress()).unwrap()).unwrap();
        assert_refused(ProgressFile::resume(&input, 30, 7), "an earlier release");
        fs::write(&kept.path, "{}").unwrap();
        assert_refused(ProgressFile::resume(&input, 30, 7), "without --resume");
    }
}
