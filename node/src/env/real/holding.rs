//! Faults on request: a disk that keeps what is written to data files from the medium.
//!
//! For tests of a whole node (`mangrove serve --debug-faults`). From the moment that somebody asks
//! for it, nothing that is written to the *data files* reaches the medium any more, although every
//! write and every sync of them says that it did; the next start of the node finds them as they
//! were at that moment. It is what a power cut does to writes that the disk had in its cache, with
//! a disk that lies about its cache. The log is never concerned.
//!
//! What must not be lost then has to come from the log, so the log may go only when what stands for
//! it is truly on the medium: while data files are held back, removals of log segments are held
//! back with them, and are undone by the same cut.
//!
//! # How it is done
//! The process and its kernel stay honest, so that it can go on reading what it has written: when
//! the holding begins, the data directory is copied as it is. At the next start the copy takes the
//! directory's place. A file that was written and not synced at that moment keeps a part of that
//! only, as it would. A log segment that is to be removed simply stays.
//!
//! ```text
//! tables       what the process sees          tables.copy  a copy that is not complete
//! tables.held  what the medium has            tables.lost  what a cut has taken, to be removed
//! ```
//!
//! The holding ends with the process. It also ends, the other way, when the node is about to
//! receive a state from another one, which replaces data files and log together: then all becomes
//! durable, and nothing is held back any more. A state that was acknowledged to another node and
//! is lost is not what this fault is about.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::base::Rng;

/// Which files are concerned, as paths within the node's directory.
#[derive(Debug, Clone, Copy)]
pub struct HoldingPlaces {
    /// Directory of the data files.
    pub data: &'static str,
    /// Directory of the log.
    pub log: &'static str,
    /// Directory of states on their way from another node.
    pub received: &'static str,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Holding {
    root: PathBuf,
    places: HoldingPlaces,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Data files with bytes that no sync has covered.
    unsynced: BTreeSet<String>,
    /// Log segments that stay for as long as data files are held back.
    kept: Vec<PathBuf>,
    rng: Rng,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Honest,
    Holding,
    /// It has ended for good.
    Over,
}

impl Holding {
    pub(super) fn new(root: &Path, places: HoldingPlaces, rng: Rng) -> Self {
        let (unsynced, kept) = (BTreeSet::new(), Vec::new());
        let state = Mutex::new(State { phase: Phase::Honest, unsynced, kept, rng });
        Self { root: root.to_owned(), places, state }
    }

    /// Carries out what a cut has taken, at a start: whatever was held back is gone.
    ///
    /// May be interrupted and repeated.
    pub(super) fn recover(root: &Path, places: HoldingPlaces) -> io::Result<bool> {
        let [data, held, copy, lost] = paths(root, places);
        let was_held = held.exists();
        if was_held {
            if data.exists() {
                remove_dir_if_there(&lost)?;
                fs::rename(&data, &lost)?;
            }
            fs::rename(&held, &data)?;
        }
        remove_dir_if_there(&lost)?;
        remove_dir_if_there(&copy)?;
        Ok(was_held)
    }

    /// Tells whether a path is that of a data file.
    pub(super) fn is_data(&self, path: &str) -> bool {
        is_in(path, self.places.data)
    }

    /// Begins to hold back; fine if it does already. Tells whether it does now.
    pub(super) fn begin(&self) -> io::Result<bool> {
        let mut state = self.lock();
        if state.phase != Phase::Honest {
            return Ok(state.phase == Phase::Holding);
        }
        let [data, held, copy, _] = paths(&self.root, self.places);
        remove_dir_if_there(&copy)?;
        fs::create_dir(&copy)?;
        for entry in fs::read_dir(&data)? {
            let entry = entry?;
            let (name, to) = (entry.file_name(), copy.join(entry.file_name()));
            let bytes = fs::copy(entry.path(), &to)?;
            let path = format!("{}/{}", self.places.data, name.to_string_lossy());
            if state.unsynced.contains(&path) && bytes > 0 {
                let left = state.rng.range(0, bytes + 1);
                fs::OpenOptions::new().write(true).open(&to)?.set_len(left)?;
            }
        }
        fs::rename(&copy, &held)?;
        state.phase = Phase::Holding;
        Ok(true)
    }

    /// Runs a change of a data file while no copy is made.
    pub(super) fn change<T>(&self, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let _state = self.lock();
        change()
    }

    /// Runs a write to a data file, which no sync has covered afterwards.
    pub(super) fn write<T>(
        &self,
        path: &str,
        write: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.lock();
        if !state.unsynced.contains(path) {
            state.unsynced.insert(path.to_owned());
        }
        write()
    }

    /// Takes note that all that was written to a file has been synced.
    pub(super) fn on_synced(&self, path: &str) {
        self.lock().unsynced.remove(path);
    }

    /// Takes note of a new name of a file.
    pub(super) fn on_renamed(&self, from: &str, to: &str) {
        let mut state = self.lock();
        if state.unsynced.remove(from) {
            state.unsynced.insert(to.to_owned());
        }
    }

    /// Tells whether a file must not be removed yet; it will be when it may.
    pub(super) fn keeps(&self, path: &str, place: &Path) -> bool {
        let mut state = self.lock();
        let is_kept = state.phase == Phase::Holding && is_in(path, self.places.log);
        if is_kept {
            state.kept.push(place.to_owned());
        }
        is_kept
    }

    /// Ends the holding for good if `path` belongs to a state from another node: everything is on
    /// the medium from now on.
    pub(super) fn end_for(&self, path: &str) -> io::Result<()> {
        if !is_in(path, self.places.received) {
            return Ok(());
        }
        let mut state = self.lock();
        if state.phase == Phase::Holding {
            let [_, held, _, lost] = paths(&self.root, self.places);
            // One step; from here on the next start finds what the process sees.
            fs::rename(held, &lost)?;
            remove_dir_if_there(&lost)?;
            for segment in std::mem::take(&mut state.kept) {
                fs::remove_file(segment)?;
            }
        }
        state.phase = Phase::Over;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the directories of data: what is seen, what is durable, a copy, and what is lost.
fn paths(root: &Path, places: HoldingPlaces) -> [PathBuf; 4] {
    ["", ".held", ".copy", ".lost"].map(|ending| root.join(format!("{}{ending}", places.data)))
}

fn is_in(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

fn remove_dir_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::block_on;
    use super::super::{RealDisk, RealEnv};
    use super::*;
    use crate::env::{Disk, DiskErrorKind, Env, File};

    const PLACES: HoldingPlaces =
        HoldingPlaces { data: "tables", log: "wal", received: "snapshot" };

    /// Opens a directory as a node that may be asked for faults; tells whether something was lost.
    fn start(root: &Path) -> (RealDisk, bool) {
        // What another test starts has the lock as well, from its fork to its exec.
        for _ in 0..10_000 {
            match RealEnv::open_with_holding(root, PLACES, true) {
                Ok((env, was_held)) => return (env.disk().clone(), was_held),
                Err(error) if error.kind == DiskErrorKind::Locked => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
        panic!("{} stays locked", root.display());
    }

    fn write(disk: &RealDisk, path: &str, bytes: &[u8], is_synced: bool) {
        block_on(async {
            disk.create_dir(path.split('/').next().unwrap()).await.unwrap();
            let file = disk.create(path).await.unwrap();
            file.write_at(0, bytes).await.unwrap();
            if is_synced {
                file.sync().await.unwrap();
            }
        });
    }

    fn names(disk: &RealDisk, path: &str) -> Vec<String> {
        block_on(disk.list(path)).unwrap()
    }

    #[test]
    fn data_files_are_back_as_they_were_and_the_log_is_not_concerned() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, _) = start(directory.path());
        write(&disk, "tables/1", b"one", true);
        write(&disk, "tables/2", b"two", true);
        write(&disk, "wal/1", b"log", true);
        write(&disk, "wal/2", b"log", true);
        disk.hold_back().unwrap();
        write(&disk, "tables/1", b"changed", true);
        write(&disk, "tables/3", b"three", true);
        write(&disk, "wal/3", b"log", true);
        block_on(async {
            disk.remove("tables/2").await.unwrap();
            disk.rename("tables/3", "tables/4").await.unwrap();
            disk.remove("wal/1").await.unwrap();
        });
        assert_eq!(names(&disk, "tables"), ["1", "4"], "the process sees what it did");
        drop(disk);

        let (disk, was_held) = start(directory.path());
        assert!(was_held);
        assert_eq!(names(&disk, "tables"), ["1", "2"]);
        assert_eq!(fs::read(directory.path().join("tables/1")).unwrap(), b"one");
        assert_eq!(names(&disk, "wal"), ["1", "2", "3"], "what stands for it is there");
        assert_eq!(names(&disk, ""), ["tables", "wal"]);
        drop(disk);
        assert!(!start(directory.path()).1, "a cut takes things once");
    }

    #[test]
    fn file_that_is_being_written_keeps_a_part_at_most() {
        let directory = tempfile::tempdir().unwrap();
        let mut lengths = BTreeSet::new();
        for _ in 0..20 {
            let (disk, _) = start(directory.path());
            write(&disk, "tables/1", &[7; 5_000], false);
            disk.hold_back().unwrap();
            drop(disk);
            let (disk, _) = start(directory.path());
            lengths.insert(block_on(disk.open("tables/1")).unwrap().len().unwrap());
        }
        assert!(lengths.len() > 5 && lengths.iter().all(|len| *len <= 5_000), "{lengths:?}");
    }

    #[test]
    fn state_from_another_node_makes_everything_durable_for_good() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, _) = start(directory.path());
        write(&disk, "tables/1", b"one", true);
        write(&disk, "wal/1", b"log", true);
        disk.hold_back().unwrap();
        write(&disk, "tables/2", b"two", true);
        block_on(disk.remove("wal/1")).unwrap();
        write(&disk, "snapshot/x", b"state", true);
        assert_eq!(names(&disk, "wal"), Vec::<String>::new(), "nothing needs it any more");
        disk.hold_back().unwrap();
        write(&disk, "tables/3", b"three", true);
        drop(disk);
        let (disk, was_held) = start(directory.path());
        assert!(!was_held);
        assert_eq!(names(&disk, "tables"), ["1", "2", "3"]);
    }

    #[test]
    fn cut_that_was_interrupted_goes_on_at_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let make = |path: &str| {
            fs::create_dir(root.join(path)).unwrap();
            fs::write(root.join(path).join("name"), path).unwrap();
        };
        // After each step of `recover`, and after a copy that was not completed.
        for left in [
            &["tables", "tables.held"][..],
            &["tables.lost", "tables.held"],
            &["tables", "tables.held", "tables.lost"],
            &["tables", "tables.copy", "tables.held"],
        ] {
            for path in left {
                make(path);
            }
            assert!(Holding::recover(root, PLACES).unwrap());
            assert_eq!(fs::read(root.join("tables/name")).unwrap(), b"tables.held", "{left:?}");
            assert_eq!(fs::read_dir(root).unwrap().count(), 1, "{left:?}");
            fs::remove_dir_all(root.join("tables")).unwrap();
        }
        for path in ["tables", "tables.lost", "tables.copy"] {
            make(path);
        }
        assert!(!Holding::recover(root, PLACES).unwrap());
        assert_eq!(fs::read(root.join("tables/name")).unwrap(), b"tables");
    }

    #[test]
    fn disk_that_was_not_asked_for_faults_has_none() {
        let directory = tempfile::tempdir().unwrap();
        let (env, _) = RealEnv::open_with_holding(directory.path(), PLACES, false).unwrap();
        let disk = env.disk();
        assert!(!disk.can_hold_back());
        write(disk, "tables/1", b"one", true);
        disk.hold_back().unwrap();
        assert_eq!(names(disk, ""), ["tables"]);
    }
}
