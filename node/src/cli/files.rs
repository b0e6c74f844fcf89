//! Files that are written under another name first, and get their own when they are complete: half
//! a file is never taken for a whole one, and one that has its name keeps it through a power loss.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::output::say;

/// Returns a path with something more at its end.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Gives a file its name: makes its content durable first, and the name after that.
pub(super) fn publish(temporary: &Path, path: &Path) -> io::Result<()> {
    // The whole file is synced, whoever wrote it.
    fs::OpenOptions::new().write(true).open(temporary)?.sync_all()?;
    fs::rename(temporary, path)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs::OpenOptions::new().read(true).open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Removes a file that will never be complete, or says that it stays.
pub(super) fn remove_partial(partial: &Path) {
    if let Err(error) = fs::remove_file(partial) {
        say(&format!("{} stays: {error}", partial.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_replaces_the_one_that_has_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let temporary = with_suffix(&path, ".partial");
        fs::write(&path, "old").unwrap();
        fs::write(&temporary, "new").unwrap();
        publish(&temporary, &path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(publish(&temporary, &path).is_err(), "there is nothing to publish");
    }
}
