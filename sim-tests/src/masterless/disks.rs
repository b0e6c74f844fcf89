//! What the disks of a masterless cluster hold, recovered by the node's own code.
//!
//! Every look is at what a power loss *now* would leave: a copy, which recovery may write to. All
//! copies are made in one instant, then recovered one by one.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use mangrove::base::{Entry, NodeId, Payload, Stamp, Written};
use mangrove::codec;
use mangrove::dynamo::placement::NOTE_PREFIX;
use mangrove::dynamo::{Placement, Record, notes};
use mangrove::env::Env as _;
use mangrove::kv::CellStore;
use mangrove::replica::persist::KIND_RECORDS;
use mangrove::replica::{STATE_DIR, WAL_DIR};
use mangrove::storage::tree::{self, TreeOptions};
use mangrove::storage::{Content, Engine, wal};

use crate::check::masterless::{Store, Stores};
use crate::cluster::{Cluster, unprobed};
use crate::world::SimEnv;

/// Smallest segment of a log.
const SMALL_SEGMENT_BYTES: u64 = 4096;

/// What is on the disks, and what is still to be done there.
#[derive(Debug)]
pub struct Look {
    /// Entries, floors, hints.
    pub stores: Stores,
    /// Hints on all disks.
    pub hint_count: usize,
    /// Batches on all disks that nobody has declared done.
    pub batch_count: usize,
    /// Disks that say that they are damaged, or cannot be read.
    pub damaged: Vec<NodeId>,
}

impl Look {
    /// Tells whether nothing is left to be done: everybody is whole and no batch is open.
    pub fn is_settled(&self) -> bool {
        self.batch_count == 0 && self.damaged.is_empty()
    }
}

/// Looks at all disks.
///
/// # Errors
/// A node other than those in `excused` could not recover: its number, and why.
pub async fn look(
    cluster: &Cluster,
    placement: &Placement,
    excused: impl Fn(u64) -> bool,
) -> Result<Look, (u64, String)> {
    let copies: Vec<(u64, SimEnv)> =
        cluster.nodes().map(|node| (node, cluster.disk_at_worst(node))).collect();
    let mut look = Look {
        stores: Stores { placement: placement.clone(), nodes: BTreeMap::new() },
        hint_count: 0,
        batch_count: 0,
        damaged: Vec::new(),
    };
    for (node, env) in copies {
        let id = NodeId(node);
        match unprobed(recover(&env)).await {
            Ok(raw) => look.add(id, raw),
            Err(_) if excused(node) => {
                look.damaged.push(id);
                look.stores.nodes.insert(id, Store::default());
            }
            Err(what) => return Err((node, what)),
        }
    }
    Ok(look)
}

/// What recovery found.
struct Raw {
    entries: Vec<Entry>,
    notes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Look {
    fn add(&mut self, node: NodeId, raw: Raw) {
        let mut store = Store::default();
        for entry in raw.entries {
            store.put(entry);
        }
        for (place, content) in raw.notes {
            if let Some((partition, floor)) = notes::floor(&place, &content) {
                store.set_floor(partition, floor);
            } else if let Some((target, entries)) = notes::hint(&place, &content) {
                self.hint_count += 1;
                for entry in entries {
                    store.put_hint(target, &entry);
                }
            } else if notes::is_batch(&place) {
                self.batch_count += 1;
            } else if notes::is_damaged(&place) {
                self.damaged.push(node);
            }
        }
        self.stores.nodes.insert(node, store);
    }
}

/// Recovers the cells of a node, as the node would.
async fn recover(env: &SimEnv) -> Result<Raw, String> {
    let opened = tree::open(env.disk().clone(), STATE_DIR, TreeOptions::default()).await;
    let (tree, _keeper, tables) = opened.map_err(|error| error.to_string())?;
    if let Some(damage) = tables.damage {
        return Err(format!("{damage:?}"));
    }
    // Recovery may begin a segment; nobody will write to it.
    let options = wal::Options { segment_bytes: SMALL_SEGMENT_BYTES };
    let (_, log) = wal::open(env.disk(), WAL_DIR, options).await.map_err(|e| e.to_string())?;
    let mut store = CellStore::new(tree);
    for record in log.records.iter().filter(|record| record.kind == KIND_RECORDS) {
        if record.tag > store.applied() {
            let records: Vec<Record> =
                codec::decode(&record.payload).map_err(|error| error.to_string())?;
            store.apply(record.tag, &records).map_err(|error| error.to_string())?;
        }
    }
    let mut raw = Raw { entries: Vec::new(), notes: Vec::new() };
    let scanned = store.engine().scan_raw(&[], None, &mut |cell| {
        if cell.place.starts_with(&NOTE_PREFIX) {
            if let Content::Value(content) = cell.content {
                raw.notes.push((cell.place.to_vec(), content.to_vec()));
            }
            return ControlFlow::Continue(());
        }
        let written = match cell.content {
            Content::Value(value) => Written::Value(payload(value)),
            Content::Deleted => Written::Deleted,
            Content::RowDeleted => Written::RowDeleted,
        };
        let stamp = Stamp::from_version(cell.version);
        raw.entries.push(Entry { place: payload(cell.place), stamp, written });
        ControlFlow::Continue(())
    });
    scanned.map_err(|error| error.to_string())?;
    Ok(raw)
}

fn payload(bytes: &[u8]) -> Payload {
    Payload::new(bytes.to_vec()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::case::Case;
    use crate::options::{Mode, Plan, Profile};
    use crate::run::{Keep, run_case};

    /// Each node begins its log once; recoveries of copies begin some, too.
    #[test]
    fn looks_take_no_rare_path_of_a_node() {
        let plan = Plan { mode: Mode::Masterless, profile: Profile::Standard };
        let report = run_case(&Case::plain(plan, 1), Keep::default());
        assert_eq!(report.violation, None);
        let begun = report.probes.get("wal.starts_segment_at_recovery");
        assert_eq!(begun, Some(&report.node_count));
    }
}
