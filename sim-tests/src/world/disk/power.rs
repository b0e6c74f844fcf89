//! What a power loss leaves on a disk.

use mangrove::base::Rng;

use super::{
    DataChange, DataKind, DiskState, Entry, Inode, NameChange, NameKind, SECTOR_BYTES, directory_of,
};
use crate::world::core::{Core, bytes_u64};
use crate::world::fate::{Fate, For};
use crate::world::fault::Fault;

/// What a power loss keeps of that which was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerLoss {
    /// P2: nothing.
    Strict,
    /// P3: of each change on its own, across files and in any order, all, a part (D1) or nothing.
    Subset,
}

/// What became of the pending changes.
#[derive(Debug, Default)]
struct Losses {
    dropped: u64,
    torn: u64,
    reordered: u64,
    renames: u64,
    names: u64,
    lies: u64,
}

impl DiskState {
    /// Loses power: decides what is left of every pending change, and forgets the page cache.
    ///
    /// What is left depends on the decision that took the power.
    pub(in crate::world) fn lose_power(&mut self, core: &mut Core, kind: PowerLoss, decision: u64) {
        let mut losses = Losses::default();
        let names = self.file_names(core);
        let fate = self.power_fate(decision);
        // Now and then everything had just reached the medium.
        let keep = match kind {
            PowerLoss::Strict => 0.0,
            PowerLoss::Subset if fate.chance(For::KeepAll, 0.1) => 1.0,
            PowerLoss::Subset => fate.unit(For::KeepShare),
        };
        let lost_data = self.lose_data(keep, fate, &mut losses);
        self.lose_names(keep, fate, &lost_data, &mut losses);
        self.power_loss_count += 1;
        self.settle();
        self.note_files_instead_of(core, &names);
        let fault = match kind {
            PowerLoss::Strict => Fault::P2,
            PowerLoss::Subset => Fault::P3,
        };
        core.faults.injected(fault);
        if losses.dropped + losses.names + losses.renames + losses.torn > 0 {
            core.faults.observed(fault);
        }
        let counts = [
            (Fault::D1, losses.torn),
            (Fault::D2, losses.reordered),
            (Fault::D3, losses.renames),
            (Fault::D4, losses.names),
        ];
        for (fault, count) in counts {
            for _ in 0..count {
                core.faults.injected(fault);
                core.faults.observed(fault);
            }
        }
        for _ in 0..losses.lies {
            core.faults.observed(Fault::D6);
        }
        core.event(self.host, "disk.loses", (losses.dropped, losses.torn), || {
            format!("{}: {losses:?}", fault.code())
        });
    }

    /// Returns the fate of what a decision leaves of this disk, this time.
    fn power_fate(&mut self, decision: u64) -> Fate {
        let (last, count) = self.power_decision;
        self.power_decision = (decision, if last == decision { count + 1 } else { 0 });
        self.fate.named("power").of(decision).of(self.power_decision.1)
    }

    /// Decides about the bytes; returns the files that lost some.
    fn lose_data(&mut self, keep: f64, fate: Fate, losses: &mut Losses) -> Vec<u64> {
        let mut files = Vec::new();
        for (id, inode) in &mut self.inodes {
            let mut has_dropped = false;
            let fate = fate.of(inode.fate.bits(For::Keep));
            for (position, change) in (0..).zip(std::mem::take(&mut inode.pending)) {
                let fate = fate.of(position);
                if !fate.chance(For::Keep, keep) {
                    losses.dropped += 1;
                    has_dropped = true;
                    continue;
                }
                losses.reordered += u64::from(has_dropped);
                if fate.chance(For::Torn, self.options.torn) {
                    losses.torn += u64::from(tear(inode, &change, &mut fate.stream(For::Tear)));
                } else {
                    change.kind.apply(&mut inode.durable);
                }
            }
            losses.lies += u64::from(inode.lied);
            if has_dropped {
                files.push(*id);
            }
        }
        files
    }

    fn lose_names(&mut self, keep: f64, fate: Fate, lost_data: &[u64], losses: &mut Losses) {
        for (position, change) in (0..).zip(std::mem::take(&mut self.pending_names)) {
            let fate = fate.named(subject_of(&change)).of(position);
            let is_kept = fate.chance(For::Keep, keep);
            if let NameKind::Rename { from, inode, .. } = &change.kind {
                // A third of the renames that survive have only written the new name.
                let is_half = is_kept && fate.chance(For::Half, 0.3);
                let is_early = is_kept && lost_data.contains(inode);
                losses.renames += u64::from(!is_kept || is_half || is_early);
                if is_half {
                    let old = self.durable_names.get(from).copied();
                    change.kind.apply(&mut self.durable_names);
                    if let Some(old) = old {
                        self.durable_names.insert(from.clone(), old);
                    }
                    continue;
                }
            } else {
                losses.names += u64::from(!is_kept);
            }
            if is_kept {
                change.kind.apply(&mut self.durable_names);
            }
        }
    }

    /// Makes the durable state the only one.
    pub(super) fn settle(&mut self) {
        let mut names = std::collections::BTreeMap::<String, Entry>::new();
        for (path, entry) in std::mem::take(&mut self.durable_names) {
            // Paths are sorted, so a directory is seen before what is in it.
            let directory = directory_of(&path);
            if directory.is_empty() || names.get(directory) == Some(&Entry::Directory) {
                names.insert(path, entry);
            }
        }
        self.durable_names.clone_from(&names);
        self.names = names;
        self.pending_names.clear();
        for inode in self.inodes.values_mut() {
            let rotten = std::mem::take(&mut inode.rotten);
            let unreadable = std::mem::take(&mut inode.unreadable);
            let durable = std::mem::take(&mut inode.durable);
            let (fate, passing) = (inode.fate, std::mem::take(&mut inode.passing));
            let cached = durable.clone();
            *inode = Inode { cached, durable, rotten, unreadable, passing, ..Inode::new(fate) };
        }
        self.sync_count = 0;
        self.stalled_until = 0;
        self.sweep();
    }
}

/// Returns the name that a change is about.
fn subject_of(change: &NameChange) -> &str {
    match &change.kind {
        NameKind::Create { path, .. } | NameKind::Remove { path } => path,
        NameKind::Rename { to, .. } => to,
    }
}

/// What stands in the sectors of a torn write that did not make it.
#[derive(Debug, Clone, Copy)]
enum Rest {
    Old,
    Zeros,
    Garbage,
}

/// Applies some sectors of a write; returns false if it was too small to be torn.
fn tear(inode: &mut Inode, change: &DataChange, rng: &mut Rng) -> bool {
    let (offset, len) = change.kind.range();
    let first = offset / SECTOR_BYTES;
    let count = (offset + len).div_ceil(SECTOR_BYTES).saturating_sub(first);
    let bytes = match &change.kind {
        DataKind::Write { bytes, .. } if count > 1 => Some(bytes),
        DataKind::Zeros { .. } if count > 1 => None,
        DataKind::Write { .. } | DataKind::Zeros { .. } | DataKind::Truncate { .. } => {
            change.kind.apply(&mut inode.durable);
            return false;
        }
    };
    let rest = match rng.range(0, 4) {
        0 => Rest::Zeros,
        1 => Rest::Garbage,
        _ => Rest::Old,
    };
    let shape = rng.range(0, 4);
    let (low, high) = (rng.range(0, count), rng.range(0, count));
    for sector in 0..count {
        let is_new = match shape {
            0 => sector < low.max(1),                               // a prefix
            1 => sector >= low.max(1),                              // a suffix
            2 => sector < low.min(high) || sector >= low.max(high), // a hole
            _ => rng.chance(0.5),                                   // any set
        };
        let start = ((first + sector) * SECTOR_BYTES).max(offset);
        let end = ((first + sector + 1) * SECTOR_BYTES).min(offset + len);
        if is_new {
            write_piece(inode, start, end, offset, bytes.map(|bytes| &**bytes));
        } else {
            match rest {
                Rest::Old => {}
                Rest::Zeros => inode.durable.write_zeros(start, end - start),
                Rest::Garbage => {
                    let garbage: Vec<u8> =
                        (start..end).map(|_| rng.next_u64().to_le_bytes()[0]).collect();
                    inode.durable.write(start, &garbage);
                }
            }
        }
    }
    true
}

fn write_piece(inode: &mut Inode, start: u64, end: u64, offset: u64, bytes: Option<&[u8]>) {
    let from = usize::try_from(start - offset).unwrap_or(usize::MAX);
    let to = usize::try_from(end - offset).unwrap_or(usize::MAX);
    match bytes.and_then(|bytes| bytes.get(from..to)) {
        Some(piece) => inode.durable.write(start, piece),
        None => inode.durable.write_zeros(start, bytes_u64(to - from)),
    }
}
