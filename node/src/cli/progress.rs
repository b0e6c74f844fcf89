//! How far an import is: `FILE.progress`, from where `import --resume` goes on.
//!
//! An import goes on in the cluster that it began with, and with a file that begins with what is
//! imported already, byte for byte: the rest of one file after the beginning of another, or each
//! half in a cluster of its own, would look complete. What comes after that may be another: a wrong
//! line is mended, and the import goes on.
//!
//! Before anything is written the session of the import is in the file, so that whoever goes on, or
//! begins anew, can end it first ([`super::import`]). It can only be ended in its own cluster; so
//! an import of the same input into another cluster is refused, or the session would be forgotten.
//! And who was taken over so leaves the file alone when it wakes: it is the other's by then.
//!
//! # Layout
//! One JSON object, replaced as a whole:
//! ```text
//! {"cluster":"5e1f0c0ffee5e1f0","session":77,"progress":{"done_bytes":4096,"done_crc":3054, …}}
//! ```
//! Earlier files have no `done_crc`, which tells what was imported. They are recognised, and
//! refused. Some have no `session`; one of the masterless mode has `null` there.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::CliError;
use super::files::with_suffix;
use crate::base::{ClusterId, SessionId};
use crate::planted;

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Progress {
    /// Length of the whole input, to show how much is left.
    pub(super) total_bytes: u64,
    /// Everything before here is in the store.
    pub(super) done_bytes: u64,
    /// Checksum of everything before here, to recognise another file.
    pub(super) done_crc: u32,
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
    /// What numbers the writes, if anything does.
    session: Option<u64>,
    progress: Progress,
}

/// The file that says how far an import is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProgressFile {
    path: PathBuf,
    /// The input, for messages.
    input: String,
    content: Content,
    /// What is in the file, as it was read or written last; `None` if there was none.
    former: Option<Content>,
}

impl ProgressFile {
    /// Begins with an input of this length. Writes nothing yet. Of an earlier import of the input
    /// only its session is taken over: that is to be ended, too.
    pub(super) fn begin(input: &Path, total_bytes: u64) -> Self {
        let path = with_suffix(input, ".progress");
        let former = content_at(&path);
        let session = former.as_ref().and_then(|former| former.session);
        let progress = Progress { total_bytes, ..Progress::default() };
        let content = Content { cluster: None, session, progress };
        Self { path, input: input.display().to_string(), content, former }
    }

    /// Reads how far an earlier import of the input got, which has this length now. `crc_of`
    /// returns the checksum of so many bytes of its beginning.
    ///
    /// # Errors
    /// There was none, it was one of another file, or the input cannot be read.
    pub(super) fn resume(
        input: &Path,
        total_bytes: u64,
        crc_of: impl FnOnce(u64) -> Result<u32, CliError>,
    ) -> Result<Self, CliError> {
        let new = Self::begin(input, total_bytes);
        let bytes = fs::read(&new.path).map_err(|error| {
            let shown = new.path.display();
            CliError::Usage(format!(
                "cannot read {shown}, which would say where to go on: {error}; import without \
                 --resume"
            ))
        })?;
        let content = new.content_of(&bytes, crc_of)?;
        Ok(Self { former: Some(content.clone()), content, ..new })
    }

    /// Takes what an earlier import has left in the file.
    fn content_of(
        &self,
        bytes: &[u8],
        crc_of: impl FnOnce(u64) -> Result<u32, CliError>,
    ) -> Result<Content, CliError> {
        let (shown, input) = (self.path.display(), &self.input);
        let total_bytes = self.content.progress.total_bytes;
        if is_of_an_earlier_release(bytes) {
            return Err(CliError::Usage(format!(
                "{shown} is of an earlier release and does not say what of {input} went where: \
                 import it from its start, without --resume"
            )));
        }
        let mut content: Content = serde_json::from_slice(bytes).map_err(|error| {
            CliError::Usage(format!("{shown}: {error}; import without --resume"))
        })?;
        let Progress { done_bytes, done_crc, done_lines, .. } = content.progress;
        let is_cut = done_bytes > total_bytes && !planted!("F24");
        if is_cut || crc_of(done_bytes)? != done_crc {
            return Err(CliError::Usage(format!(
                "{input} was imported up to line {done_lines}, and its {done_bytes} bytes up to \
                 there are not what they were: import it from its start, without --resume"
            )));
        }
        content.progress.total_bytes = total_bytes;
        Ok(content)
    }

    /// Takes note of where the cells go.
    ///
    /// # Errors
    /// The earlier import went to another cluster, where its session is still to be ended.
    pub(super) fn bind(&mut self, cluster: ClusterId) -> Result<(), CliError> {
        let cluster = cluster.to_string();
        let left = self.former.as_ref().filter(|former| former.session.is_some());
        let left = left.and_then(|former| former.cluster.as_ref());
        if let Some(former) = self.content.cluster.as_ref().or(left).filter(|of| **of != cluster) {
            return Err(CliError::Usage(format!(
                "the import of {} that was interrupted went to the cluster {former}, and this is \
                 {cluster}: give --cluster with nodes of the former; or remove {}, if what is \
                 still on its way there may be written there, and import all of it into this one, \
                 without --resume",
                self.input,
                self.path.display()
            )));
        }
        self.content.cluster = Some(cluster);
        Ok(())
    }

    /// Returns the session of the import, or of the one before it.
    pub(super) fn session(&self) -> Option<SessionId> {
        self.content.session.map(SessionId)
    }

    /// Takes note of what numbers the writes from now on.
    pub(super) fn set_session(&mut self, session: Option<SessionId>) {
        self.content.session = session.map(|session| session.0);
    }

    /// Returns how far the import is.
    pub(super) fn progress(&self) -> Progress {
        self.content.progress
    }

    /// Tells whether the file is another import's by now, which has ended the session of this one.
    /// It is gone if that one is complete.
    pub(super) fn is_taken_over(&self) -> bool {
        let found = content_at(&self.path);
        found.map(|found| found.session) != self.former.as_ref().map(|former| former.session)
    }

    /// Writes down how far it is. Replaces the file as a whole, so that it is never half written.
    ///
    /// # Errors
    /// The file is another import's by now, or cannot be written.
    pub(super) fn write(&mut self, progress: Progress) -> Result<(), CliError> {
        if self.is_taken_over() {
            let (shown, input) = (self.path.display(), &self.input);
            return Err(CliError::Failed(format!(
                "{shown} is gone, or of another import of {input} that has begun meanwhile"
            )));
        }
        self.content.progress = progress;
        let temporary = with_suffix(&self.path, ".new");
        let written = serde_json::to_vec(&self.content)
            .map_err(std::io::Error::from)
            .and_then(|bytes| fs::write(&temporary, bytes))
            .and_then(|()| fs::rename(&temporary, &self.path));
        written.map_err(|error| {
            CliError::io(format!("cannot write {}", self.path.display()), &error)
        })?;
        self.former = Some(self.content.clone());
        Ok(())
    }

    /// Removes the file; fine if there is none, or it is another import's by now.
    pub(super) fn remove(self) -> Result<(), CliError> {
        if self.is_taken_over() {
            return Ok(());
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(CliError::io(format!("cannot remove {}", self.path.display()), &error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Reads the file of an import whose input has this length, and this checksum wherever one ends;
/// returns how many bytes are done, and the file as it would be written again.
#[cfg(feature = "testing")]
pub(super) fn reread(bytes: &[u8], total_bytes: u64, crc: u32) -> Result<(u64, Vec<u8>), String> {
    let file = ProgressFile::begin(Path::new("input"), total_bytes);
    let content = file.content_of(bytes, |_| Ok(crc)).map_err(|error| error.to_string())?;
    let again = serde_json::to_vec(&content).map_err(|error| error.to_string())?;
    Ok((content.progress.done_bytes, again))
}

/// Returns what is in the file; `None` if there is none that can be read.
fn content_at(path: &Path) -> Option<Content> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Tells whether a file is one of those that do not tell what was imported.
fn is_of_an_earlier_release(bytes: &[u8]) -> bool {
    let Ok(file) = serde_json::from_slice::<serde_json::Value>(bytes) else { return false };
    // The first form was what is in `progress` in the second.
    let progress = file.get("progress").unwrap_or(&file);
    progress.get("done_bytes").is_some() && progress.get("done_crc").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The checksum of a beginning that has so many bytes, in a file whose content is `content`.
    fn crc_in(content: u32) -> impl FnOnce(u64) -> Result<u32, CliError> {
        move |bytes| Ok(content + u32::try_from(bytes).unwrap())
    }

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
        assert_refused(ProgressFile::resume(&input, 30, crc_in(7)), "without --resume");
        let mut kept = ProgressFile::begin(&input, 30);
        kept.bind(ClusterId(1)).unwrap();
        kept.set_session(Some(SessionId(u64::MAX)));
        let progress = Progress { done_bytes: 20, done_crc: 27, done_lines: 2, ..kept.progress() };
        kept.write(progress).unwrap();

        let mut resumed = ProgressFile::resume(&input, 30, crc_in(7)).unwrap();
        assert_eq!(resumed, kept);
        resumed.bind(ClusterId(1)).unwrap();
        assert_eq!(resumed.progress(), progress);
        assert_eq!(resumed.session(), Some(SessionId(u64::MAX)));
        let anew = ProgressFile::begin(&input, 30);
        assert_eq!((anew.session(), anew.progress().done_bytes), (resumed.session(), 0));
        assert_refused(resumed.bind(ClusterId(2)), "went to the cluster 0000000000000001");
        assert_refused(ProgressFile::resume(&input, 30, crc_in(8)), "not what they were");
        assert_refused(ProgressFile::resume(&input, 19, crc_in(7)), "not what they were");
        for total_bytes in [20, 31] {
            let mended = ProgressFile::resume(&input, total_bytes, crc_in(7)).unwrap();
            assert_eq!(mended.progress(), Progress { total_bytes, ..progress }, "the rest is new");
        }

        resumed.remove().unwrap();
        kept.remove().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn file_without_a_session_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("cells.jsonl");
        let kept = ProgressFile::begin(&input, 30);
        let progress = serde_json::to_string(&kept.progress()).unwrap();
        fs::write(&kept.path, format!(r#"{{"cluster":null,"progress":{progress}}}"#)).unwrap();
        assert_eq!(ProgressFile::resume(&input, 30, |_| Ok(0)).unwrap().content, kept.content);
    }

    /// The accident: an import that woke after another one had taken over wrote its own place and
    /// its ended session over the other's.
    #[test]
    fn file_of_another_import_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("cells.jsonl");
        let begin = |session| {
            let mut kept = ProgressFile::begin(&input, 30);
            kept.bind(ClusterId(1)).unwrap();
            kept.set_session(Some(SessionId(session)));
            kept
        };
        let (mut frozen, mut late) = (begin(1), begin(2));
        frozen.write(frozen.progress()).unwrap();
        assert!(late.write(late.progress()).is_err(), "the two began at once");
        let mut taker = begin(3);
        taker.write(taker.progress()).unwrap();
        taker.write(Progress { done_cells: 7, ..taker.progress() }).unwrap();
        assert!(frozen.is_taken_over() && !taker.is_taken_over());
        let error = frozen.write(frozen.progress()).unwrap_err();
        assert!(error.to_string().contains("another import"), "{error}");
        frozen.clone().remove().unwrap();
        assert_eq!(content_at(&taker.path), Some(taker.content.clone()));
        taker.remove().unwrap();
        assert!(frozen.write(frozen.progress()).is_err(), "the other is complete");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// The accident: the session of an import that was interrupted was forgotten when the same file
    /// was imported into another cluster, and nothing ended it any more.
    #[test]
    fn session_in_another_cluster_is_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("cells.jsonl");
        let mut first = ProgressFile::begin(&input, 30);
        first.bind(ClusterId(1)).unwrap();
        first.set_session(Some(SessionId(77)));
        first.write(first.progress()).unwrap();
        let mut second = ProgressFile::begin(&input, 30);
        assert_refused(second.bind(ClusterId(2)), "or remove");
        second.bind(ClusterId(1)).unwrap();
        assert_eq!(second.session(), Some(SessionId(77)));
        // In the masterless mode there is nothing to be ended.
        second.set_session(None);
        second.write(second.progress()).unwrap();
        ProgressFile::begin(&input, 30).bind(ClusterId(2)).unwrap();
    }

    #[test]
    fn file_of_an_earlier_release_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("cells.jsonl");
        let kept = ProgressFile::begin(&input, 30);
        let first = r#"{"total_bytes":30,"done_bytes":0,"done_lines":0,"done_cells":0}"#;
        let second = format!(r#"{{"cluster":null,"head_crc":7,"progress":{first}}}"#);
        for earlier in [first, &second] {
            fs::write(&kept.path, earlier).unwrap();
            assert_refused(ProgressFile::resume(&input, 30, crc_in(7)), "an earlier release");
        }
        for other in ["{}", "no JSON"] {
            fs::write(&kept.path, other).unwrap();
            let refused = ProgressFile::resume(&input, 30, crc_in(7));
            assert_refused(refused, "import without --resume");
        }
    }
}
