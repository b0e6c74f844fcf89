//! Recovers an image as a node does when it starts, and compares the state with what was written.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mangrove::base::Index;
use mangrove::raft::{EntryKind, HardState, SnapshotMeta};
use mangrove::replica::recovery::replay;
use mangrove::replica::{STATE_DIR, WAL_DIR};
use mangrove::storage::{Engine as _, Tree, tree, wal};

use super::history::{Cells, History};
use super::medium::{Image, Medium};
use super::script::{TREE_OPTIONS, WAL_OPTIONS, run};
use super::trace::{CrashDisk, Note, Step};

/// What a recovery found, where it found a state that there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// The log position of the state.
    pub(super) position: Index,
    /// The last vote.
    pub(super) hard_state: HardState,
}

/// What may be found at some moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Promise {
    acknowledged: Index,
    appended: Index,
    voted: HardState,
    /// Votes that were begun since.
    voting: Vec<HardState>,
}

impl Promise {
    /// Takes note of a change of the promise.
    pub(super) fn update(&mut self, note: &Note) {
        match note {
            Note::Appended(index) => self.appended = *index,
            Note::Acknowledged(index) => self.acknowledged = *index,
            Note::Voting(hard_state) => self.voting.push(*hard_state),
            Note::Voted(hard_state) => {
                self.voted = *hard_state;
                self.voting.clear();
            }
        }
    }

    /// Checks what was found against what was promised.
    pub(super) fn check(&self, found: Found) -> Result<(), String> {
        if !(self.acknowledged..=self.appended).contains(&found.position) {
            let Self { acknowledged, appended, .. } = self;
            let position = found.position;
            return Err(format!("{acknowledged} is promised of {appended}, found is {position}"));
        }
        if found.hard_state != self.voted && !self.voting.contains(&found.hard_state) {
            let Self { voted, voting, .. } = self;
            let vote = found.hard_state;
            return Err(format!("voted {voted:?}, then {voting:?} was begun; found is {vote:?}"));
        }
        Ok(())
    }
}

/// What is left on the disk after a recovery, and what the recovery did to get there.
pub(super) struct Recovered {
    pub(super) found: Found,
    pub(super) steps: Vec<Step>,
    /// What a power loss right after it leaves.
    pub(super) after: Image,
}

/// Recovers an image.
///
/// # Errors
/// What is wrong: the store does not open, reports damage that nobody did, panics, or holds a
/// state that there never was.
pub(super) fn recover(image: &Image, history: &History) -> Result<Recovered, String> {
    let disk = CrashDisk::holding(Medium::of(image));
    let recovery = AssertUnwindSafe(|| run(open(&disk, history, image.hash)));
    let found = catch_unwind(recovery).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        Err(format!("panic: {}", message.unwrap_or_default()))
    })?;
    Ok(Recovered { found, steps: disk.take_steps(), after: disk.medium().strict_image() })
}

async fn open(disk: &CrashDisk, history: &History, hash: u64) -> Result<Found, String> {
    let opened = tree::open(disk.clone(), STATE_DIR, TREE_OPTIONS).await;
    let (mut tree, _keeper, tables) = opened.map_err(|error| error.to_string())?;
    let opened = wal::open(disk, WAL_DIR, WAL_OPTIONS).await;
    let (_writer, log) = opened.map_err(|error| error.to_string())?;
    let found = apply_log(&mut tree, &tables, &log, history)?;
    compare(&tree, history.cells(found.position).as_deref(), hash)?;
    Ok(found)
}

/// Does what a node does between opening its files and taking part, and looks at what it finds.
pub(super) fn apply_log(
    tree: &mut Tree<CrashDisk>,
    tables: &tree::Recovery,
    log: &wal::Recovery,
    history: &History,
) -> Result<Found, String> {
    if let Some(damage) = &tables.damage {
        return Err(format!("the tables are called damaged: {damage:?}"));
    }
    if !log.damage.is_empty() {
        return Err(format!("the log is called damaged: {:?}", log.damage));
    }
    if tables.extra != history.extra(tables.applied.index) {
        return Err(format!("what was captured with {:?} is not what it was", tables.applied));
    }
    let durable = SnapshotMeta { index: tables.applied.index, term: tables.applied.term };
    let recovered = replay(log, durable).map_err(|error| error.to_string())?;
    if recovered.damaged_last.is_some() {
        return Err(format!("entries are called lost: {:?}", recovered.damaged_last));
    }
    for entry in &recovered.entries {
        let written = history.entry(entry.index);
        if written.as_ref() != Some(entry) {
            let kind = matches!(entry.kind, EntryKind::Noop);
            return Err(format!(
                "entry {} of the log was never written (no-op: {kind})",
                entry.index
            ));
        }
        let position = history.at(entry.index);
        let writes = position.iter().filter_map(|position| position.writes.as_ref()).flatten();
        let changes: Vec<_> = writes.map(super::history::Write::as_change).collect();
        let at = mangrove::storage::SnapshotPoint { index: entry.index, term: entry.term };
        if entry.index != tree.applied().index + 1 {
            return Err(format!("entry {} follows {:?}", entry.index, tree.applied()));
        }
        tree.write(at, &changes);
    }
    Ok(Found { position: tree.applied().index, hard_state: recovered.hard_state })
}

/// Compares every cell, by a scan, and one time in four each by itself, too.
fn compare(tree: &Tree<CrashDisk>, cells: Option<&Cells>, hash: u64) -> Result<(), String> {
    let position = tree.applied();
    let Some(cells) = cells else {
        return Err(format!("there never was a state at {position:?}"));
    };
    let mut expected = cells.iter();
    let mut wrong = None;
    let scanned = tree.scan(&[], None, &mut |place, value, version| {
        let next = expected.next();
        let is_right = next.is_some_and(|(at, (written, bytes))| {
            at == place && *written == version && bytes == value
        });
        if is_right {
            return ControlFlow::Continue(());
        }
        wrong = Some(format!("{} of version {version}", String::from_utf8_lossy(place)));
        ControlFlow::Break(())
    });
    scanned.map_err(|error| error.to_string())?;
    if wrong.is_none() {
        let missing = expected.next();
        wrong = missing.map(|(place, _)| format!("{} is gone", String::from_utf8_lossy(place)));
    }
    if let Some(wrong) = wrong {
        return Err(format!("the state at {position:?} is not what it was: {wrong}"));
    }
    if !hash.is_multiple_of(4) {
        return Ok(());
    }
    for (place, (version, value)) in cells {
        let found = tree.get(place).map_err(|error| error.to_string())?;
        if found.is_none_or(|found| found.version != *version || found.value != value[..]) {
            let place = String::from_utf8_lossy(place);
            return Err(format!("{place} at {position:?} cannot be read by itself"));
        }
    }
    Ok(())
}
