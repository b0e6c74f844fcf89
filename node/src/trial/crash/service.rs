//! Whether the nodes serve after a disturbance: the cluster as a whole, and each node by itself.
//!
//! A cluster serves while a minority of its nodes hangs, so its answers say nothing of the nodes
//! that were killed. Each of them is asked how it is, until it takes part and has caught up with
//! what the leader had applied when that was first heard.

use std::time::Duration;

use super::{CrashError, LOOK_PAUSE, Place, RECOVERY_LIMIT, Variant};
use crate::base::Index;
use crate::client::{Client, ClientError};
use crate::env::Env;
use crate::env::real::RealEnv;
use crate::trial::LocalCluster;
use crate::wire::Status;

/// Waits until the cluster takes a write and answers a read, and each node is in service.
pub(super) async fn serving(
    env: &RealEnv,
    probe: &Client<RealEnv>,
    cluster: &mut LocalCluster,
    place: Place,
) -> Result<(), CrashError> {
    let asked = probe.set("probe", "serving").await;
    look_for_deaths(cluster, place)?;
    match asked {
        Ok(_) => {}
        // A write whose answer is lost is over at once in the masterless mode, which says nothing.
        Err(ClientError::Unknown { .. }) => {
            let cell = probe.get("probe").await;
            cell.map_err(|error| place.not_serving(cluster.directory(), error))?;
        }
        Err(error) => return Err(place.not_serving(cluster.directory(), error)),
    }
    in_service(env, probe, cluster, place, RECOVERY_LIMIT).await
}

/// Waits until each node is in service, for so long at most.
async fn in_service(
    env: &RealEnv,
    probe: &Client<RealEnv>,
    cluster: &mut LocalCluster,
    place: Place,
    limit: Duration,
) -> Result<(), CrashError> {
    let begun = env.now();
    let mut wanted = None;
    loop {
        let mut found = Vec::new();
        for (node, address) in (1_usize..).zip(cluster.addresses()) {
            let status = probe.status(address).await.map_err(|error| error.to_string());
            found.push((node, status));
        }
        look_for_deaths(cluster, place)?;
        let known: Vec<&Status> =
            found.iter().filter_map(|(_, status)| status.as_ref().ok()).collect();
        if let Some(other) = known.iter().find(|status| status.mode != place.variant.mode()) {
            return Err(place.other_mode(other));
        }
        wanted = wanted.or_else(|| applied_by_leader(&known, place.variant));
        let lacking = found.iter().find_map(|(node, status)| {
            let lacks = match status {
                Ok(status) => lacks(status, wanted),
                Err(error) => Some(error.clone()),
            };
            lacks.map(|lacks| (*node, lacks))
        });
        let Some((node, lacks)) = lacking else { return Ok(()) };
        if env.now().since(begun) >= limit {
            return Err(place.not_in_service(cluster, node, lacks));
        }
        env.sleep(LOOK_PAUSE).await;
    }
}

fn look_for_deaths(cluster: &mut LocalCluster, place: Place) -> Result<(), CrashError> {
    for node in cluster.numbers() {
        let ended = cluster.node(node).try_ended().map_err(CrashError::io("wait for a node"))?;
        if let Some(status) = ended {
            return Err(place.node_died(cluster, node, status));
        }
    }
    Ok(())
}

/// Returns what the leader of the highest term has applied; nothing where nobody leads.
fn applied_by_leader(found: &[&Status], variant: Variant) -> Option<Index> {
    if variant == Variant::Masterless {
        return Some(0);
    }
    let leaders = found.iter().filter(|status| status.role == "leader");
    let leader = leaders.max_by_key(|status| status.term);
    leader.map(|status| status.applied_index)
}

/// Says what a node lacks to be in service, if anything; `wanted` is what it must have applied,
/// if that is known.
fn lacks(status: &Status, wanted: Option<Index>) -> Option<String> {
    let Some(wanted) = wanted else { return Some("no node says that it leads".to_owned()) };
    let Status { role, applied_index, .. } = status;
    if matches!(role.as_str(), "new" | "recovering") {
        return Some(format!("it is still {role}"));
    }
    if status.masterless.as_ref().is_some_and(|masterless| !masterless.is_whole) {
        return Some("it has not got back what its disk lost".to_owned());
    }
    (*applied_index < wanted)
        .then(|| format!("it has applied {applied_index} of {wanted} entries, as {role}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ClusterId, NodeId};
    use crate::wire::MasterlessStatus;

    fn status(role: &str, term: u64, applied_index: Index) -> Status {
        Status {
            node: NodeId(1),
            cluster: ClusterId(1),
            mode: "primary-backup".to_owned(),
            role: role.to_owned(),
            awaited: None,
            term,
            leader: None,
            last_index: applied_index,
            commit_index: applied_index,
            applied_index,
            snapshot_index: 0,
            peers: Vec::new(),
            cell_count: 0,
            session_count: 0,
            wal_bytes: 0,
            table_bytes: 0,
            sync_policy: String::new(),
            disk_full: false,
            writes_wait: false,
            writes_waited_ms: 0,
            wall_ms: 0,
            version: String::new(),
            masterless: None,
        }
    }

    fn masterless(role: &str, is_whole: bool) -> Status {
        let masterless = MasterlessStatus {
            replication_factor: 3,
            partition_count: 32,
            repair: String::new(),
            is_whole,
            up: Vec::new(),
            hints: Vec::new(),
            hints_dropped: 0,
            batch_count: 0,
            pending_write_count: 0,
            pending_read_count: 0,
            merkle_bytes: 0,
            unknown_tree_count: 0,
            sync_count: 0,
            syncs: Vec::new(),
            floor_ms: 0,
            clock_ms: 0,
            clock_ahead_ms: None,
            memory: Vec::new(),
        };
        Status { masterless: Some(masterless), ..status(role, 0, 5) }
    }

    #[test]
    fn node_that_waits_or_is_behind_is_not_in_service() {
        let found = [status("leader", 3, 90), status("follower", 4, 99), status("leader", 4, 95)];
        let wanted = applied_by_leader(&found.each_ref(), Variant::PrimaryBackup);
        assert_eq!(wanted, Some(95), "of the leader of the highest term");
        assert_eq!(lacks(&status("follower", 4, 95), wanted), None);
        for (status, why) in [
            (status("follower", 4, 94), "94 of 95"),
            (status("new", 4, 95), "still new"),
            (status("recovering", 4, 95), "still recovering"),
        ] {
            let lacks = lacks(&status, wanted).unwrap_or_default();
            assert!(lacks.contains(why), "{lacks:?} of {status:?}");
        }
        let nobody = applied_by_leader(&[&found[1]], Variant::Single);
        assert!(lacks(&found[1], nobody).is_some_and(|lacks| lacks.contains("leads")));
    }

    #[test]
    fn masterless_node_is_in_service_when_it_is_whole_and_takes_writes() {
        let wanted = applied_by_leader(&[], Variant::Masterless);
        assert_eq!(lacks(&masterless("replica", true), wanted), None);
        assert!(lacks(&masterless("replica", false), wanted).is_some());
        assert!(lacks(&masterless("recovering", true), wanted).is_some());
    }

    #[test]
    fn node_that_hangs_is_named() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("hangs");
        std::fs::write(&program, "#!/bin/sh\nexec sleep 1000\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let env = RealEnv::client();
        let mut cluster = LocalCluster::prepare(&program, directory.path(), 1, ClusterId(1), &[]);
        cluster.start_all().unwrap();
        let addresses = cluster.addresses().to_vec();
        let probe = Client::connect(env.clone(), addresses, super::super::writer_options());
        let place = Place { variant: Variant::Masterless, round: 3, seed: 1 };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let looked = in_service(&env, &probe, &mut cluster, place, Duration::ZERO);
        let error = runtime.unwrap().block_on(looked).unwrap_err();
        assert!(matches!(error, CrashError::NotInService { round: 3, node: 1, .. }), "{error}");
    }
}
