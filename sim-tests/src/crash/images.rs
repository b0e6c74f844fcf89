//! The images that a power loss may leave: every combination of what becomes of the pending
//! changes, as far as the bound goes.
//!
//! Each pending write may be lost, kept, or kept in some of its sectors, where the others hold
//! what was there before, zeros or garbage; each pending change of a name may be lost or kept, and
//! a rename may have written the new name only. All of them independently of one another: nothing
//! orders what no sync has ordered.
//!
//! With few pending changes that is all there is. With more, the shapes come first that have been
//! bugs elsewhere (prefixes, suffixes, one missing, one alone, torn in one place), and what is left
//! of the bound is drawn by lot.

use std::collections::BTreeMap;
use std::sync::Arc;

use mangrove::base::Rng;

use super::medium::{
    Change, Image, InodeId, Medium, NameChange, SECTOR_BYTES, hash_bytes, hash_files, mix, put,
};

/// Pending changes up to which every subset of them is tried.
const SUBSETS_MAX: usize = 6;

/// Fates of all pending changes of names together up to which every one is tried.
const NAME_FATES_MAX: usize = 150;

/// Sectors of all pending writes together up to which every subset of them is tried.
const SECTORS_MAX: usize = 9;

/// What becomes of a pending write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lost,
    Kept,
    /// The sectors of `kept` (counted from the write's first, modulo 64) are kept.
    Torn {
        kept: u64,
        rest: Rest,
    },
}

/// What stands in the sectors of a torn write that did not make it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Old,
    Zeros,
    Garbage,
}

/// What becomes of a pending change of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NameFate {
    Lost,
    Kept,
    Half,
}

/// The names that survive, each with its hash.
type Names = Vec<(String, u64, InodeId)>;

/// What is left of the files that have pending changes.
type Contents = BTreeMap<InodeId, (Arc<Vec<u8>>, u64)>;

/// The images of one boundary.
pub(super) struct Images<'m> {
    medium: &'m Medium,
    names: Vec<Names>,
    data: Vec<Vec<Fate>>,
    /// The pending changes of files, in order.
    changes: Vec<(InodeId, &'m Change)>,
    /// Whether the bound left nothing out but kinds of garbage.
    pub(super) is_complete: bool,
    count_max: usize,
}

impl<'m> Images<'m> {
    /// Lists at most `images_max` images of a power loss now.
    pub(super) fn of(medium: &'m Medium, images_max: usize, rng: &mut Rng) -> Self {
        let reachable = |inode: &InodeId| {
            let named = medium.names.values().chain(medium.durable_names.values());
            named.chain(medium.pending_names.iter().filter_map(created)).any(|it| it == inode)
        };
        let mut changes: Vec<(InodeId, &Change)> = Vec::new();
        for (inode, file) in medium.inodes.iter().enumerate() {
            if !file.pending.is_empty() && reachable(&inode) {
                changes.extend(file.pending.iter().map(|change| (inode, change)));
            }
        }
        changes.sort_by_key(|(_, change)| change.order);
        let sectors: Vec<usize> = changes.iter().map(|(_, change)| change.sector_count()).collect();
        let (data, is_data_complete) = data_fates(&sectors, images_max, rng);
        let (fates, are_names_complete) = name_fates(&medium.pending_names, rng);
        let names: Vec<Names> = fates.iter().map(|fates| survive(medium, fates)).collect();
        let is_complete =
            is_data_complete && are_names_complete && data.len() * names.len() <= images_max;
        Self { medium, names, data, changes, is_complete, count_max: images_max }
    }

    /// Calls `visit` with the hash of each image, and what makes the image of it if it is wanted.
    pub(super) fn each(&self, mut visit: impl FnMut(u64, &dyn Fn() -> Image)) {
        let contents: Vec<Contents> = self.data.iter().map(|fates| self.contents(fates)).collect();
        let (names, data) = (self.names.len(), self.data.len());
        let mut left = self.count_max;
        // Tells whether the bound allows more.
        let mut visit = |name: usize, datum: usize| {
            let (Some(names), Some(contents)) = (self.names.get(name), contents.get(datum)) else {
                return left > 0;
            };
            if left == 0 {
                return false;
            }
            left -= 1;
            let hash = hash_files(names.iter().map(|(_, name_hash, inode)| {
                (*name_hash, self.content(contents, *inode).map_or(0, |(_, hash)| *hash))
            }));
            visit(hash, &|| self.image(names, contents, hash));
            left > 0
        };
        // What matters most first: all names with the extremes of the data and the other way round.
        // By turns, so that a bound cuts neither short; nor does it below.
        for at in 0..names.max(data) {
            let is_going_on = visit(at, 0)
                && visit(at, 1)
                && (at < 2 || visit(0, at))
                && (at < 2 || visit(1, at));
            if !is_going_on {
                return;
            }
        }
        for number in 0..names.saturating_sub(2) * data.saturating_sub(2) {
            let (name, datum) = (number % (names - 2), number % (data - 2));
            let shifted = (datum + number / (data - 2) + number / (names - 2)) % (data - 2);
            if !visit(2 + name, 2 + shifted) {
                return;
            }
        }
    }

    fn content<'a>(
        &'a self,
        contents: &'a Contents,
        inode: InodeId,
    ) -> Option<(&'a Arc<Vec<u8>>, &'a u64)> {
        if let Some((content, hash)) = contents.get(&inode) {
            return Some((content, hash));
        }
        self.medium.inodes.get(inode).map(|file| (&file.durable, &file.durable_hash))
    }

    fn image(&self, names: &Names, contents: &Contents, hash: u64) -> Image {
        let file = |(path, _, inode): &(String, u64, InodeId)| {
            let (content, hash) = self.content(contents, *inode)?;
            Some((path.clone(), (Arc::clone(content), *hash)))
        };
        Image::with_hash(names.iter().filter_map(file).collect(), hash)
    }

    /// Returns what is left of the files that have pending changes.
    fn contents(&self, fates: &[Fate]) -> Contents {
        let mut files: BTreeMap<InodeId, Vec<u8>> = BTreeMap::new();
        for ((inode, change), fate) in self.changes.iter().zip(fates) {
            let Some(file) = self.medium.inodes.get(*inode) else { continue };
            let content = files.entry(*inode).or_insert_with(|| file.durable.to_vec());
            survive_write(content, change, *fate);
        }
        let hashed = |(inode, bytes): (InodeId, Vec<u8>)| {
            let hash = hash_bytes(&bytes);
            (inode, (Arc::new(bytes), hash))
        };
        files.into_iter().map(hashed).collect()
    }
}

fn created(change: &NameChange) -> Option<&InodeId> {
    match change {
        NameChange::Create { inode, .. } | NameChange::Rename { inode, .. } => Some(inode),
        NameChange::Remove { .. } => None,
    }
}

/// Lets as much of a write come true as its fate says.
fn survive_write(content: &mut Vec<u8>, change: &Change, fate: Fate) {
    let Some((offset, bytes)) = &change.write else {
        if fate != Fate::Lost {
            content.clear();
        }
        return;
    };
    let (kept, rest) = match fate {
        Fate::Lost => return,
        Fate::Kept => (u64::MAX, Rest::Old),
        Fate::Torn { kept, rest } => (kept, rest),
    };
    if kept == u64::MAX {
        put(content, *offset, bytes);
        return;
    }
    let (mut at, end) = (*offset, offset + bytes.len());
    let first = at / SECTOR_BYTES;
    while at < end {
        let sector = at / SECTOR_BYTES;
        let sector_end = ((sector + 1) * SECTOR_BYTES).min(end);
        if kept >> ((sector - first) % 64) & 1 == 1 {
            put(content, at, bytes.get(at - offset..sector_end - offset).unwrap_or_default());
        } else if rest == Rest::Zeros {
            put(content, at, &[0; SECTOR_BYTES][..sector_end - at]);
        } else if rest == Rest::Garbage {
            let noise: Vec<u8> =
                (at..sector_end).map(|at| mix(17, at as u64).to_le_bytes()[0]).collect();
            put(content, at, &noise);
        }
        at = sector_end;
    }
}

/// Returns the names that are left, sorted.
fn survive(medium: &Medium, fates: &[NameFate]) -> Names {
    let mut names = medium.durable_names.clone();
    for (change, fate) in medium.pending_names.iter().zip(fates) {
        if *fate != NameFate::Lost {
            change.apply(&mut names, *fate == NameFate::Half);
        }
    }
    let hashed = |(path, inode): (String, InodeId)| {
        let hash = hash_bytes(path.as_bytes());
        (path, hash, inode)
    };
    names.into_iter().map(hashed).collect()
}

/// Lists subsets of `count` things: all of them if they are few, else the telling ones.
fn subsets(count: usize, rng: &mut Rng) -> (Vec<Vec<bool>>, bool) {
    if count == 0 {
        return (vec![Vec::new()], true);
    }
    let mut found = vec![vec![false; count], vec![true; count]];
    if count <= SUBSETS_MAX {
        let all = 1..(1_usize << count).saturating_sub(1);
        found.extend(all.map(|bits| (0..count).map(|at| bits >> at & 1 == 1).collect()));
        return (found, true);
    }
    for at in 0..count {
        found.push((0..count).map(|other| other < at).collect());
        found.push((0..count).map(|other| other >= at).collect());
        found.push((0..count).map(|other| other != at).collect());
        found.push((0..count).map(|other| other == at).collect());
    }
    found.extend((0..16).map(|_| (0..count).map(|_| rng.chance(0.5)).collect()));
    (found, false)
}

/// Lists fates of pending changes of names, all lost and all kept first: all of them if they are
/// few, else the telling ones.
fn name_fates(changes: &[NameChange], rng: &mut Rng) -> (Vec<Vec<NameFate>>, bool) {
    let is_rename = |change: &NameChange| matches!(change, NameChange::Rename { .. });
    let ways = |change: &NameChange| if is_rename(change) { 3 } else { 2 };
    let all = changes.iter().try_fold(1_usize, |all, change| all.checked_mul(ways(change)));
    if let Some(all) = all.filter(|all| *all <= NAME_FATES_MAX) {
        let fates = |mut number: usize| {
            let fate = |change: &NameChange| {
                let way = number % ways(change);
                number /= ways(change);
                [NameFate::Lost, NameFate::Kept, NameFate::Half][way]
            };
            changes.iter().map(fate).collect::<Vec<_>>()
        };
        let mut all: Vec<_> = (0..all).map(fates).collect();
        let is_kept = |fates: &Vec<NameFate>| fates.iter().all(|fate| *fate == NameFate::Kept);
        if let Some(kept) = all.iter().position(is_kept).filter(|kept| *kept > 1) {
            all.swap(1, kept);
        }
        return (all, true);
    }
    let fate = |kept: bool| if kept { NameFate::Kept } else { NameFate::Lost };
    let (subsets, _) = subsets(changes.len(), rng);
    let mut fates: Vec<Vec<NameFate>> =
        subsets.iter().map(|subset| subset.iter().map(|kept| fate(*kept)).collect()).collect();
    for (at, _) in changes.iter().enumerate().filter(|(_, change)| is_rename(change)) {
        for others in [false, true] {
            let half = |other: usize| if other == at { NameFate::Half } else { fate(others) };
            fates.push((0..changes.len()).map(half).collect());
        }
    }
    (fates, false)
}

/// Lists fates of pending writes that touch so many sectors each.
fn data_fates(sectors: &[usize], images_max: usize, rng: &mut Rng) -> (Vec<Vec<Fate>>, bool) {
    let count = sectors.len();
    let whole = |kept: bool| if kept { Fate::Kept } else { Fate::Lost };
    let (kept, mut is_complete) = subsets(count, rng);
    let mut fates: Vec<Vec<Fate>> =
        kept.iter().map(|subset| subset.iter().map(|kept| whole(*kept)).collect()).collect();
    let total: usize = sectors.iter().sum();
    if total == count {
        return (fates, is_complete);
    }
    is_complete &= total <= SECTORS_MAX;
    if total <= SECTORS_MAX {
        fates.extend((1..(1_u64 << total) - 1).map(|mut bits| {
            let torn = |sector_count: &usize| {
                let kept = bits & ((1 << sector_count) - 1);
                bits >>= sector_count;
                Fate::Torn { kept, rest: Rest::Old }
            };
            sectors.iter().map(torn).collect()
        }));
    }
    for (at, sector_count) in sectors.iter().enumerate().filter(|(_, sectors)| **sectors > 1) {
        for torn in torn_fates(*sector_count) {
            for around in [(true, false), (false, false), (true, true)] {
                let others = |other: usize| whole(if other < at { around.0 } else { around.1 });
                let one = |other: usize| if other == at { torn } else { others(other) };
                fates.push((0..count).map(one).collect());
            }
        }
    }
    // The first two are the extremes; of the others the bound takes any.
    let mut position = fates.len();
    while position > 3 {
        position -= 1;
        fates.swap(position, 2 + rng.index(position - 1));
    }
    is_complete &= fates.len() <= images_max;
    while fates.len() < images_max {
        fates.push(sectors.iter().map(|_| any_fate(rng)).collect());
    }
    fates.truncate(images_max);
    (fates, is_complete)
}

/// Lists the ways in which a write of so many sectors is torn in one place.
fn torn_fates(sector_count: usize) -> Vec<Fate> {
    let bit = |at: usize| 1_u64 << (at % 64);
    let all = if sector_count >= 64 { u64::MAX } else { bit(sector_count) - 1 };
    let mut masks = Vec::new();
    for at in 0..sector_count.min(64) {
        let before = bit(at) - 1;
        masks.extend([before, all & !before, all & !bit(at), bit(at)]);
    }
    masks.sort_unstable();
    masks.dedup();
    let rests = [Rest::Old, Rest::Zeros, Rest::Garbage];
    let torn = |kept: u64| rests.map(|rest| Fate::Torn { kept, rest });
    masks.into_iter().filter(|kept| *kept != all).flat_map(torn).collect()
}

fn any_fate(rng: &mut Rng) -> Fate {
    match rng.range(0, 8) {
        0 | 1 => Fate::Lost,
        2 | 3 => Fate::Kept,
        4 => Fate::Torn { kept: rng.next_u64(), rest: Rest::Zeros },
        5 => Fate::Torn { kept: rng.next_u64(), rest: Rest::Garbage },
        _ => Fate::Torn { kept: rng.next_u64(), rest: Rest::Old },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::crash::trace::Step;

    fn rename(at: usize) -> NameChange {
        NameChange::Rename { from: format!("a{at}"), to: format!("b{at}"), inode: at }
    }

    fn remove(at: usize) -> NameChange {
        NameChange::Remove { path: format!("c{at}") }
    }

    fn is_whole(fates: &[Vec<NameFate>]) -> bool {
        let extremes = [NameFate::Lost, NameFate::Kept];
        (0..).zip(fates).take(2).all(|(at, fates)| fates.iter().all(|fate| *fate == extremes[at]))
    }

    #[test]
    fn fates_of_names_are_complete_only_if_every_half_rename_is_among_them() {
        let mut rng = Rng::new(1);
        for (renames, removes, wanted) in
            [(0, 0, 1), (1, 0, 3), (2, 0, 9), (3, 0, 27), (1, 2, 12), (4, 0, 81), (0, 6, 64)]
        {
            let changes: Vec<_> =
                (0..renames).map(rename).chain((0..removes).map(remove)).collect();
            let (fates, is_complete) = name_fates(&changes, &mut rng);
            assert!(is_complete && is_whole(&fates), "{renames} renames: {fates:?}");
            assert_eq!(fates.len(), wanted, "{renames} renames, {removes} others");
            let distinct: BTreeSet<String> =
                fates.iter().map(|fates| format!("{fates:?}")).collect();
            assert_eq!(distinct.len(), wanted);
        }
        let changes: Vec<_> = (0..6).map(rename).collect();
        let (fates, is_complete) = name_fates(&changes, &mut rng);
        assert!(!is_complete && is_whole(&fates), "{} of 729", fates.len());
    }

    #[test]
    fn fates_of_data_that_the_bound_cuts_are_not_complete() {
        let mut rng = Rng::new(1);
        let (enough, few) = (1000, 60);
        assert!(data_fates(&[3, 3], enough, &mut rng).1);
        let (fates, is_complete) = data_fates(&[3, 3], few, &mut rng);
        assert_eq!((fates.len(), is_complete), (few, false));
    }

    /// A disk on which some files were made and written, and nothing was synced.
    fn medium(files: usize) -> Medium {
        let mut medium = Medium::default();
        for inode in 0..files {
            medium.apply(&Step::Create(format!("f{inode}")));
            medium.apply(&Step::Write { inode, offset: 0, bytes: Arc::from([7; 1500]) });
        }
        medium
    }

    #[test]
    fn bound_is_never_exceeded_and_cuts_neither_names_nor_data_short() {
        for files in 1..9 {
            for images_max in [1, 2, 7, 12, 60, 300] {
                let medium = medium(files);
                let images = Images::of(&medium, images_max, &mut Rng::new(3));
                let (mut count, mut names, mut contents) = (0, BTreeSet::new(), BTreeSet::new());
                images.each(|_, make| {
                    count += 1;
                    let image = make();
                    names.insert(image.files.keys().cloned().collect::<Vec<_>>());
                    contents.extend(image.files.values().map(|(_, hash)| *hash));
                });
                assert!(count <= images_max, "{count} of {images_max} with {files} files");
                if images_max >= 60 {
                    assert!(names.len() > 1 && contents.len() > 3, "{names:?}, {contents:?}");
                }
            }
        }
    }
}
