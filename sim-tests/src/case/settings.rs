//! Every option of a run by a name of its own, and the plain value of each.
//!
//! A replay file lists what differs from the plain options, so that a reader sees what a run needs
//! and an option that is added later does not change what an old file means.

use std::time::Duration;

use mangrove::dynamo::Level;
use mangrove::replica::Repair;
use mangrove::storage::table::{Compression, TableOptions};
use mangrove::storage::tree::TreeOptions;
use serde_json::{Map, Value as Json, json};

use super::ms;
use crate::healing::Healing;
use crate::masterless::options::{self as masterless, LevelMix, Mechanism};
use crate::options::{FaultClasses, Mode, Options, Profile, RequestMix, Tuning};

/// One option.
#[derive(Clone, Copy)]
pub struct Setting {
    /// Its name in a replay file.
    pub name: &'static str,
    get: fn(&Options) -> Option<Json>,
    put: fn(&mut Options, &Json) -> Option<()>,
}

/// A value that can stand in a replay file.
trait Value: Sized {
    fn to_json(&self) -> Json;
    fn from_json(json: &Json) -> Option<Self>;
}

macro_rules! plain_values {
    ($($type:ty: $read:ident),*) => {
        $(impl Value for $type {
            fn to_json(&self) -> Json {
                json!(self)
            }

            fn from_json(json: &Json) -> Option<Self> {
                json.$read()?.try_into().ok()
            }
        })*
    };
}

plain_values!(u64: as_u64, u16: as_u64, u32: as_u64, usize: as_u64, bool: as_bool, f64: as_f64);

impl Value for Duration {
    fn to_json(&self) -> Json {
        json!(ms::number(*self))
    }

    fn from_json(json: &Json) -> Option<Self> {
        ms::duration(json.as_f64()?)
    }
}

impl Value for Compression {
    fn to_json(&self) -> Json {
        json!(if *self == Self::None { "none" } else { "lz4" })
    }

    fn from_json(json: &Json) -> Option<Self> {
        match json.as_str()? {
            "none" => Some(Self::None),
            "lz4" => Some(Self::Lz4),
            _ => None,
        }
    }
}

impl Value for Mechanism {
    fn to_json(&self) -> Json {
        json!(self.name())
    }

    fn from_json(json: &Json) -> Option<Self> {
        let all = [Self::All, Self::AntiEntropy, Self::Hints, Self::Reads];
        all.into_iter().find(|mechanism| Some(mechanism.name()) == json.as_str())
    }
}

impl Value for Healing {
    fn to_json(&self) -> Json {
        json!(self.name())
    }

    fn from_json(json: &Json) -> Option<Self> {
        Self::ALL.into_iter().find(|healing| Some(healing.name()) == json.as_str())
    }
}

macro_rules! settings {
    ($($name:literal: $($field:ident).+),* $(,)?) => {
        [$(Setting {
            name: $name,
            get: |options| Some(Value::to_json(&options.$($field).+)),
            put: |options, json| {
                options.$($field).+ = Value::from_json(json)?;
                Some(())
            },
        }),*]
    };
}

macro_rules! masterless_settings {
    ($($name:literal: $($field:ident).+),* $(,)?) => {
        [$(Setting {
            name: $name,
            get: |options| Some(Value::to_json(&options.masterless.as_ref()?.$($field).+)),
            put: |options, json| {
                options.masterless.as_mut()?.$($field).+ = Value::from_json(json)?;
                Some(())
            },
        }),*]
    };
}

/// Every option.
const SETTINGS: [Setting; 53] = settings! {
    "nodes": node_count,
    "clients": client_count,
    "in_flight": in_flight,
    "keys": key_count,
    "fault_phase_ms": fault_phase,
    "think_time_ms": think_time,
    "fault_pause_ms": fault_pause,
    "torn": torn,
    "relaxed_sync": relaxed_sync,
    "lockstep": lockstep,
    "healing": healing,
    "faults.crash": faults.crash,
    "faults.power": faults.power,
    "faults.pause": faults.pause,
    "faults.disk_error": faults.disk_error,
    "faults.lying_fsync": faults.lying_fsync,
    "faults.disk_full": faults.disk_full,
    "faults.rot": faults.rot,
    "faults.stall": faults.stall,
    "faults.partition": faults.partition,
    "faults.network": faults.network,
    "faults.connection": faults.connection,
    "faults.client_link": faults.client_link,
    "faults.clock": faults.clock,
    "faults.clock_far": faults.clock_far,
    "faults.old_disk": faults.old_disk,
    "faults.absence": faults.absence,
    "faults.topple": faults.topple,
    "election_timeout_ms": tuning.election_timeout,
    "heartbeat_interval_ms": tuning.heartbeat_interval,
    "wal_segment_bytes": tuning.wal_segment_bytes,
    "flush_log_bytes": tuning.flush_log_bytes,
    "scrub_bytes_per_second": tuning.scrub_bytes_per_second,
    "log_entries_kept": tuning.log_entries_kept,
    "append_entries_max": tuning.append_entries_max,
    "snapshot_chunk_bytes": tuning.snapshot_chunk_bytes,
    "behind_bytes_max": tuning.behind_bytes_max,
    "read_turn_bytes": tuning.read_turn_bytes,
    "sessions_max": tuning.sessions_max,
    "value_bytes_max": tuning.value_bytes_max,
    "tree.memtable_bytes": tuning.tree.memtable_bytes,
    "tree.frozen_max": tuning.tree.frozen_max,
    "tree.table_bytes": tuning.tree.table_bytes,
    "tree.level0_tables": tuning.tree.level0_tables,
    "tree.level0_tables_max": tuning.tree.level0_tables_max,
    "tree.base_bytes": tuning.tree.base_bytes,
    "tree.runs_max": tuning.tree.runs_max,
    "tree.step_bytes": tuning.tree.step_bytes,
    "tree.cache_bytes": tuning.tree.cache_bytes,
    "table.block_bytes": tuning.tree.table.block_bytes,
    "table.bloom_bits_per_cell": tuning.tree.table.bloom_bits_per_cell,
    "table.compression": tuning.tree.table.compression,
    "mix.set": mix.set,
};

/// Settings that there once were: old replay files name them.
const RETIRED: &[&str] = &["tree.fanout"];

/// What only the masterless mode has.
const MASTERLESS_SETTINGS: [Setting; 14] = masterless_settings! {
    "replication_factor": replication_factor,
    "partitions": partition_count,
    "mechanism": mechanism,
    "repair.hints": repair.hints,
    "repair.reads": repair.reads,
    "session_chance": session_chance,
    "spread": spread,
    "request_timeout_ms": request_timeout,
    "hint_after_ms": hint_after,
    "sync_interval_ms": sync_interval,
    "floor_age_ms": floor_age,
    "floor_interval_ms": floor_interval,
    "batch_takeover_ms": batch_takeover,
    "masterless.heartbeat_interval_ms": heartbeat_interval,
};

/// Returns every option of a mode.
pub fn all(options: &Options) -> impl Iterator<Item = Setting> + use<> {
    let count = if options.masterless.is_some() { MASTERLESS_SETTINGS.len() } else { 0 };
    SETTINGS.into_iter().chain(MASTERLESS_SETTINGS.into_iter().take(count))
}

impl Setting {
    /// Returns the value.
    pub fn value(&self, options: &Options) -> Json {
        (self.get)(options).unwrap_or_default()
    }

    /// Takes over the value that other options have.
    pub fn copy(&self, from: &Options, to: &mut Options) {
        if let Some(value) = (self.get)(from) {
            // A value that was there can be put there.
            (self.put)(to, &value).unwrap_or_default();
        }
    }
}

/// Returns the options that differ from other ones, by name.
pub fn unlike(options: &Options, base: &Options) -> Map<String, Json> {
    let differs = |setting: &Setting| setting.value(options) != setting.value(base);
    let named = |setting: Setting| (setting.name.to_owned(), setting.value(options));
    all(options).filter(differs).map(named).collect()
}

/// Returns the options that differ from the plain ones.
pub fn unlike_plain(options: &Options) -> Map<String, Json> {
    unlike(options, &plain(options.mode(), options.seed))
}

/// Puts values into options by name; returns the names of settings that there once were.
///
/// # Errors
/// The name of the first setting that never was or cannot have that value.
pub fn put(options: &mut Options, values: &Map<String, Json>) -> Result<Vec<String>, String> {
    put_but(options, values, RETIRED)
}

/// The same with those settings retired that have no meaning.
fn put_but(
    options: &mut Options,
    values: &Map<String, Json>,
    retired: &[&str],
) -> Result<Vec<String>, String> {
    let mut ignored = Vec::new();
    for (name, value) in values {
        let Some(setting) = all(options).find(|setting| setting.name == name) else {
            if retired.contains(&name.as_str()) {
                ignored.push(name.clone());
                continue;
            }
            return Err(format!("there is no setting {name:?}"));
        };
        (setting.put)(options, value)
            .ok_or_else(|| format!("the setting {name:?} cannot be {value}"))?;
    }
    Ok(ignored)
}

/// Returns the plain options of a mode: a calm cluster of three with one client.
pub fn plain(mode: Mode, seed: u64) -> Options {
    Options {
        seed,
        profile: Profile::Standard,
        node_count: 3,
        client_count: 1,
        in_flight: 1,
        key_count: 4,
        fault_phase: Duration::from_secs(10),
        think_time: Duration::from_millis(100),
        fault_pause: Duration::from_secs(1),
        faults: FaultClasses::NONE,
        torn: 0.5,
        lockstep: false,
        tuning: plain_tuning(),
        mix: RequestMix {
            get: 1,
            set: 1,
            delete: 0,
            cas: 0,
            delete_row: 0,
            bulk_set: 0,
            multi_get: 0,
            status: 0,
            bulk_if: 0,
            keys: 0,
            scan: 0,
            bulk_rows: 0,
            slice: 0,
        },
        planted: None,
        mute: None,
        leak: None,
        relaxed_sync: false,
        healing: Healing::AtOnce,
        masterless: (mode == Mode::Masterless).then(plain_masterless),
    }
}

fn plain_tuning() -> Tuning {
    Tuning {
        election_timeout: Duration::from_millis(300),
        heartbeat_interval: Duration::from_millis(60),
        wal_segment_bytes: 1 << 16,
        flush_log_bytes: 1 << 16,
        log_entries_kept: 50,
        append_entries_max: 4096,
        snapshot_chunk_bytes: 1 << 18,
        behind_bytes_max: 64 << 20,
        read_turn_bytes: 4 << 20,
        sessions_max: 64,
        value_bytes_max: 24,
        tree: TreeOptions {
            memtable_bytes: 1 << 15,
            frozen_max: 2,
            table_bytes: 1 << 14,
            level0_tables: 4,
            level0_tables_max: 12,
            base_bytes: 1 << 16,
            runs_max: 3,
            step_bytes: 1 << 13,
            cache_bytes: 1 << 16,
            table: TableOptions {
                block_bytes: 4096,
                bloom_bits_per_cell: 10,
                compression: Compression::None,
            },
        },
        scrub_bytes_per_second: 0,
    }
}

fn plain_masterless() -> masterless::Options {
    let ms = Duration::from_millis;
    masterless::Options {
        replication_factor: 3,
        partition_count: 4,
        mechanism: Mechanism::All,
        repair: Repair { hints: true, reads: true },
        levels: LevelMix::only(Level::Quorum),
        session_chance: 0.0,
        spread: false,
        request_timeout: ms(1000),
        hint_after: ms(200),
        sync_interval: ms(500),
        floor_age: ms(3000),
        floor_interval: ms(1000),
        batch_takeover: ms(3000),
        heartbeat_interval: ms(100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Plan;

    #[test]
    fn options_are_themselves_again_from_what_is_not_plain() {
        for mode in [Mode::PrimaryBackup, Mode::Masterless] {
            for seed in 1..40 {
                let drawn = Plan { mode, profile: Profile::Storage }.draw(seed);
                let values = unlike_plain(&drawn);
                let text = serde_json::to_string(&values).unwrap();
                let mut again = plain(mode, seed);
                put(&mut again, &serde_json::from_str(&text).unwrap()).unwrap();
                assert_eq!(unlike(&drawn, &again), Map::new(), "seed {seed}");
            }
        }
    }

    #[test]
    fn unknown_setting_and_senseless_value_are_named() {
        let mut options = plain(Mode::PrimaryBackup, 1);
        let bad = |name: &str, value: Json| Map::from_iter([(name.to_owned(), value)]);
        let error = put(&mut options, &bad("nodez", json!(3))).unwrap_err();
        assert_eq!(error, "there is no setting \"nodez\"");
        let error = put(&mut options, &bad("nodes", json!("many"))).unwrap_err();
        assert_eq!(error, "the setting \"nodes\" cannot be \"many\"");
        assert!(put(&mut options, &bad("partitions", json!(4))).is_err(), "of another mode");
    }

    #[test]
    fn setting_that_there_once_was_is_ignored_and_named() {
        let mut options = plain(Mode::PrimaryBackup, 1);
        let values = Map::from_iter([
            ("nodes".to_owned(), json!(5)),
            ("tree.once".to_owned(), json!("any value")),
        ]);
        assert_eq!(
            put_but(&mut options, &values, &["tree.once"]),
            Ok(vec!["tree.once".to_owned()])
        );
        assert_eq!(options.node_count, 5);
        assert!(put_but(&mut options, &values, &[]).is_err());
        assert!(RETIRED.contains(&"tree.fanout"));
    }

    #[test]
    fn names_are_unique() {
        let options = plain(Mode::Masterless, 1);
        let mut names: Vec<&str> = all(&options).map(|setting| setting.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
