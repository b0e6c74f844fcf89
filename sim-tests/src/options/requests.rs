//! What clients ask for: the weight of each kind of request, and the profile that has all of them.
//!
//! A request that only this profile asks for has no weight under the others, and what has no weight
//! draws nothing: what their seeds mean stays as it is.

use mangrove::base::Rng;

use super::{Options, Profile};

/// Chance that the clients of a run ask on while they wait for an answer.
const PIPELINING_CHANCE: f64 = 0.5;

/// Relative weight of each kind of request.
#[derive(Debug, Clone, Copy)]
pub struct RequestMix {
    /// Reads of one cell.
    pub get: u64,
    /// Writes of one cell.
    pub set: u64,
    /// Deletes of one cell.
    pub delete: u64,
    /// Compare-and-set.
    pub cas: u64,
    /// Deletes of all cells of a row.
    pub delete_row: u64,
    /// Atomic batches.
    pub bulk_set: u64,
    /// Reads of several cells.
    pub multi_get: u64,
    /// Questions to single nodes about how they are.
    pub status: u64,
    /// Atomic batches with conditions.
    pub bulk_if: u64,
    /// Keys, page by page.
    pub keys: u64,
    /// Cells of several keys, page by page.
    pub scan: u64,
    /// Atomic batches that delete rows, too.
    pub bulk_rows: u64,
    /// Columns of one key, page by page.
    pub slice: u64,
}

impl RequestMix {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let (get, set, delete) = (rng.range(2, 10), rng.range(2, 10), rng.range(0, 3));
        Self {
            get,
            set,
            delete,
            delete_row: delete.min(1),
            cas: rng.range(0, 4),
            bulk_set: rng.range(0, 4),
            multi_get: rng.range(0, 4),
            status: rng.range(0, 2),
            bulk_if: 0,
            keys: 0,
            scan: 0,
            bulk_rows: 0,
            slice: 0,
        }
    }
}

impl Options {
    /// Makes of them what [`Profile::Requests`] says. Deletes come along: a listing that shows what
    /// is gone, or a batch whose cell is gone, takes one. Most runs have reads of a row that take
    /// several turns, and followers that acknowledge no more while their tables do not keep up.
    pub(super) fn for_requests(self) -> Self {
        let root = Rng::new(self.seed).split("options.requests");
        let (mut load, mut sizes) = (root.split("load"), root.split("sizes"));
        let mut tuning = self.tuning;
        if sizes.chance(0.7) {
            tuning.read_turn_bytes = 1 << sizes.range(6, 11);
        }
        if sizes.chance(0.5) {
            tuning.behind_bytes_max = 1 << sizes.range(6, 12);
        }
        Self {
            profile: Profile::Requests,
            tuning,
            mix: RequestMix {
                delete: load.range(1, 4),
                delete_row: load.range(0, 2),
                bulk_if: load.range(1, 6),
                keys: load.range(1, 4),
                scan: load.range(1, 4),
                bulk_rows: load.range(1, 4),
                slice: load.range(1, 4),
                ..self.mix
            },
            ..self
        }
    }
}

impl Options {
    /// In some runs a client has several requests in flight in its one session. The load is no
    /// more than it was; they overlap where an answer is late.
    pub(super) fn maybe_pipelined(self) -> Self {
        let mut rng = Rng::new(self.seed).split("options.pipelining");
        let in_flight = if rng.chance(PIPELINING_CHANCE) { rng.range(2, 4) } else { 1 };
        Self { in_flight, ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::options::{Mode, Plan};

    /// What a seed means under the others must not change with what only this one asks for.
    #[test]
    fn one_profile_alone_asks_for_batches_with_conditions_or_rows_and_listings() {
        for mode in [Mode::PrimaryBackup, Mode::Masterless] {
            for seed in 1..20 {
                let mix = |profile| {
                    let RequestMix { bulk_if, keys, scan, bulk_rows, slice, .. } =
                        Plan { mode, profile }.draw(seed).mix;
                    [bulk_if, keys, scan, bulk_rows, slice]
                };
                for profile in
                    [Profile::Standard, Profile::Storage, Profile::Beyond, Profile::Forgetful]
                {
                    assert_eq!(mix(profile), [0; 5], "{mode:?}, {profile:?}, seed {seed}");
                }
                let all = mix(Profile::Requests);
                assert!(all.iter().all(|weight| *weight > 0), "{mode:?}, seed {seed}: {all:?}");
            }
        }
    }

    #[test]
    fn clients_ask_on_while_they_wait_where_sessions_number_their_writes() {
        let in_flight = |mode, profile| -> BTreeSet<u64> {
            (1..40).map(|seed| Plan { mode, profile }.draw(seed).in_flight).collect()
        };
        let requests = in_flight(Mode::PrimaryBackup, Profile::Requests);
        assert_eq!(requests, BTreeSet::from([1, 2, 3]));
        let one = BTreeSet::from([1]);
        assert_eq!(in_flight(Mode::PrimaryBackup, Profile::Standard), one);
        assert_eq!(in_flight(Mode::PrimaryBackup, Profile::Forgetful), one);
        assert_eq!(in_flight(Mode::Masterless, Profile::Requests), one);
    }

    #[test]
    fn requests_profile_has_the_faults_of_the_standard_one() {
        for mode in [Mode::PrimaryBackup, Mode::Masterless] {
            for seed in 1..20 {
                let drawn = |profile| Plan { mode, profile }.draw(seed);
                let (standard, requests) = (drawn(Profile::Standard), drawn(Profile::Requests));
                assert_eq!(
                    crate::nemesis::faults(&standard, None),
                    crate::nemesis::faults(&requests, None),
                    "{mode:?}, seed {seed}"
                );
            }
        }
    }
}
