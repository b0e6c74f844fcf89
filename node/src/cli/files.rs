//! Files that are written under another name first, and get their own when they are complete: half
//! a file is never taken for a whole one, and one that has its name keeps it through a power loss.
//!
//! What has the name already may be a link, which stays one: the file that it leads to is replaced.
//! It may be a pipe or a device, which cannot be replaced: it is written as it is, or refused. And
//! another command may be at the same file. Both would write to `FILE.partial`, and whichever ended
//! first would give its name to a mixture; so who writes it holds a lock on it.

use std::fs;
use std::io::{self, Seek as _, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::CliError;
use super::output::say;

/// Most links from a name to a file, one after the other; as many as the system follows.
const LINKS_MAX: usize = 40;

/// Where the system keeps links to what processes have open, such as `/dev/stdout`. What is open
/// is not replaced by a file that has its name.
const OPEN_FILES: &str = "/proc";

/// A file that is being written. It gets its name from [`NewFile::finish`]; without that, what
/// there is of it is removed.
pub(super) struct NewFile {
    /// Its name, behind all links.
    path: PathBuf,
    /// What it is called until it is complete; `None` for what has no other name, or none any more.
    partial: Option<PathBuf>,
    #[expect(clippy::disallowed_types, reason = "it is a file of the user, of no node")]
    file: fs::File,
}

impl NewFile {
    /// Begins a file.
    ///
    /// # Errors
    /// The name is that of a directory, a pipe or a device, another command writes the same file,
    /// or it cannot be made.
    pub(super) fn create(path: &Path) -> Result<Self, CliError> {
        if is_special(path)? {
            return Err(not_writable(path, "it is no file"));
        }
        let Some(path) = behind_links(path)? else {
            return Err(not_writable(path, "it is a link to an open file"));
        };
        let partial = with_suffix(&path, ".partial");
        let shown = partial.display();
        let failed = |error| CliError::io(format!("cannot write {shown}"), &error);
        loop {
            let options = fs::OpenOptions::new().write(true).create(true).truncate(false).clone();
            let file = options.open(&partial).map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(CliError::Failed(format!(
                        "another command is writing {shown}: let it end, or name another file"
                    )));
                }
                Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
            }
            // Whoever held the lock may have given the file its own name, or removed it, since it
            // was opened here.
            let locked = file.metadata().map_err(failed)?;
            let is_same =
                |named: fs::Metadata| (named.dev(), named.ino()) == (locked.dev(), locked.ino());
            if fs::metadata(&partial).is_ok_and(is_same) {
                let new = Self { path, partial: Some(partial.clone()), file };
                new.file.set_len(0).map_err(failed)?;
                return Ok(new);
            }
        }
    }

    /// Begins a file, or opens what takes what is written and cannot be replaced: a pipe, a device,
    /// or what is open under that name, such as `/dev/stdout`.
    ///
    /// # Errors
    /// As for `create`.
    pub(super) fn create_or_open(path: &Path) -> Result<Self, CliError> {
        let is_open = || behind_links(path).map(|name| name.is_none());
        let is_special = is_special(path)?;
        if !is_special && !is_open()? {
            return Self::create(path);
        }
        let options = fs::OpenOptions::new().write(true).append(!is_special).clone();
        let file = options.open(path);
        let file =
            file.map_err(|error| CliError::io(format!("cannot write {}", path.display()), &error))?;
        Ok(Self { path: path.to_owned(), partial: None, file })
    }

    /// Returns where what is written can be read before it is complete.
    pub(super) fn partial(&self) -> Option<&Path> {
        self.partial.as_deref()
    }

    /// Forgets what was written.
    pub(super) fn begin_again(&mut self) -> io::Result<()> {
        self.file.set_len(0).and_then(|()| self.file.rewind())
    }

    /// Gives the file its name: makes its content durable first, and the name after that.
    pub(super) fn finish(mut self) -> Result<(), CliError> {
        let Some(partial) = &self.partial else { return Ok(()) };
        let (from, to) = (partial.display(), self.path.display());
        self.file
            .sync_all()
            .map_err(|error| CliError::io(format!("cannot write {from}"), &error))?;
        fs::rename(partial, &self.path)
            .map_err(|error| CliError::io(format!("cannot rename {from} to {to}"), &error))?;
        let parent = parent_of(&self.path);
        let synced = fs::OpenOptions::new().read(true).open(parent).and_then(|dir| dir.sync_all());
        self.partial = None;
        synced.map_err(|error| CliError::io(format!("cannot sync {}", parent.display()), &error))
    }

    /// A failure of writing it.
    pub(super) fn failed(&self, error: &io::Error) -> CliError {
        let path = self.partial.as_ref().unwrap_or(&self.path);
        CliError::io(format!("cannot write {}", path.display()), error)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            remove_partial(partial);
        }
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Returns a path with something more at its end.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Tells whether there is a pipe or a device of that name.
fn is_special(path: &Path) -> Result<bool, CliError> {
    let what = match fs::metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => {
            return Err(CliError::io(format!("cannot write {}", path.display()), &error));
        }
    };
    if what.is_dir() {
        return Err(not_writable(path, "it is a directory"));
    }
    if what.is_socket() {
        return Err(not_writable(path, "it is a socket"));
    }
    Ok(!what.is_file())
}

/// Returns the name to which the links lead that begin at a name; `None` if that is no name but
/// something that a process has open.
fn behind_links(path: &Path) -> Result<Option<PathBuf>, CliError> {
    let mut name = path.to_owned();
    for _ in 0..LINKS_MAX {
        let parent = parent_of(&name).canonicalize();
        let parent = parent
            .map_err(|error| CliError::io(format!("cannot write {}", path.display()), &error))?;
        if parent.starts_with(OPEN_FILES) {
            return Ok(None);
        }
        let Ok(target) = fs::read_link(&name) else { return Ok(Some(name)) };
        name = parent.join(target);
    }
    Err(not_writable(path, "there are too many links"))
}

fn parent_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

fn not_writable(path: &Path, why: &str) -> CliError {
    CliError::Usage(format!("cannot write {}: {why}", path.display()))
}

/// Removes a file that will never be complete, or says that it stays.
fn remove_partial(partial: &Path) {
    match fs::remove_file(partial) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => say(&format!("{} stays: {error}", partial.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(file: Result<NewFile, CliError>, text: &str) -> Result<(), CliError> {
        let mut file = file?;
        file.write_all(text.as_bytes()).unwrap();
        file.finish()
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn pipe(path: &Path) {
        let made = std::process::Command::new("mkfifo").arg(path).status();
        assert!(made.unwrap().success());
    }

    #[test]
    fn file_replaces_the_one_that_has_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "old and longer").unwrap();
        // What a command that was killed has left is no obstacle.
        fs::write(with_suffix(&path, ".partial"), "left by another one").unwrap();
        write(NewFile::create(&path), "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn file_that_is_not_finished_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut file = NewFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        assert_eq!(names(dir.path()), ["file.partial"]);
        drop(file);
        assert!(names(dir.path()).is_empty());
        // Something takes the name while the file is written.
        let file = NewFile::create(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let error = file.finish().unwrap_err().to_string();
        assert!(error.contains("file.partial to "), "{error}");
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn link_stays_one_and_the_file_behind_it_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("there")).unwrap();
        let (path, link) = (dir.path().join("there/file"), dir.path().join("link"));
        symlink("there/file", dir.path().join("other")).unwrap();
        symlink("other", &link).unwrap();
        for text in ["while there is none", "again"] {
            write(NewFile::create(&link), text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(names(dir.path()), ["link", "other", "there"]);
        symlink("round", dir.path().join("round")).unwrap();
        assert!(NewFile::create(&dir.path().join("round")).is_err());
    }

    /// The accident: a device was replaced by a file, and a directory noticed after all the work.
    #[test]
    fn what_is_no_file_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, fifo) = (dir.path().join("folder"), dir.path().join("fifo"));
        fs::create_dir(&folder).unwrap();
        pipe(&fifo);
        for (path, why) in [(&folder, "a directory"), (&fifo, "no file")] {
            let error = NewFile::create(path).err().unwrap();
            assert!(error.exit_code() == 2 && error.to_string().contains(why), "{error}");
        }
        assert!(NewFile::create_or_open(&folder).is_err());
        let error = NewFile::create_or_open(&dir.path().join("none/file")).err().unwrap();
        assert_eq!(error.exit_code(), 6, "{error}");
        // Both ends of a pipe are opened together, so that neither waits for the other.
        let both = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
        write(NewFile::create_or_open(&fifo), "through").unwrap();
        let mut read = [0; 7];
        io::Read::read_exact(&mut &both, &mut read).unwrap();
        assert_eq!(&read, b"through");
        assert_eq!(names(dir.path()), ["fifo", "folder"]);
    }

    #[test]
    fn what_is_open_is_added_to_and_not_replaced() {
        use std::os::fd::AsRawFd;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "there, ").unwrap();
        let open = fs::OpenOptions::new().append(true).open(&path).unwrap();
        let name = PathBuf::from(format!("/dev/fd/{}", open.as_raw_fd()));
        write(NewFile::create_or_open(&name), "and more").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "there, and more");
        assert_eq!(names(dir.path()), ["file"]);
    }

    /// The accident: of two exports to one file, the first one to end published the other's half.
    #[test]
    fn file_has_one_writer_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut first = NewFile::create(&path).unwrap();
        first.write_all(b"whole").unwrap();
        let error = NewFile::create(&path).err().unwrap().to_string();
        assert!(error.contains("another command"), "{error}");
        first.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
        write(NewFile::create(&path), "next").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "next");
    }
}
