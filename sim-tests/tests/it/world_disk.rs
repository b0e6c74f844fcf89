//! What each disk fault leaves behind.

use std::collections::BTreeSet;
use std::time::Duration;

use mangrove::base::Rng;
use mangrove::env::{Disk, DiskErrorKind, Env, File};
use sim_tests::world::{
    DiskOptions, Happening, Host, Log, LogEntry, PowerLoss, SimDisk, SimEnv, World, WorldOptions,
    run_seed,
};

/// Options under which a sync takes no time.
fn instant() -> WorldOptions {
    let disk = DiskOptions { sync_time: Default::default(), ..DiskOptions::default() };
    WorldOptions { disk, ..WorldOptions::default() }
}

/// Runs `scenario` with a machine whose process does nothing by itself.
fn with_disk<T, F, Fut>(seed: u64, options: WorldOptions, scenario: F) -> T
where
    T: Send + 'static,
    F: FnOnce(World, Host, SimEnv) -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    let result = run_seed(seed, options, move |world| async move {
        let host = world.add_server("n1");
        let env = start(&world, host).await;
        scenario(world, host, env).await
    });
    result.unwrap_or_else(|failure| panic!("{failure}"))
}

async fn start(world: &World, host: Host) -> SimEnv {
    world.start(host, |_| std::future::pending()).await;
    world.env(host).unwrap()
}

async fn write(disk: &SimDisk, path: &str, bytes: &[u8]) {
    let file = disk.create(path).await.unwrap();
    file.write_at(0, bytes).await.unwrap();
    file.sync().await.unwrap();
}

/// Returns the content of a file; `None` if it does not exist.
async fn read(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    let file = disk.open(path).await.ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    let len = file.read_at(0, &mut bytes).unwrap();
    assert_eq!(len, bytes.len());
    Some(bytes)
}

/// The bytes of a file that may rot: all of `path`, and none of any other.
fn only(path: &'static str) -> impl Fn(&str) -> u64 {
    move |other| if other == path { u64::MAX } else { 0 }
}

fn observed(world: &World, code: &str) -> u64 {
    world.fault_counts()[code].1
}

#[test]
fn crash_keeps_the_page_cache() {
    with_disk(1, instant(), |world, host, env| async move {
        let file = env.disk().create("file").await.unwrap();
        file.write_at(0, b"never synced").await.unwrap();
        world.crash(host);
        let env = start(&world, host).await;
        assert_eq!(read(env.disk(), "file").await.unwrap(), b"never synced");
        assert_eq!(observed(&world, "P1"), 1);
    });
}

#[test]
fn strict_power_loss_keeps_only_what_was_synced() {
    with_disk(1, instant(), |world, host, env| async move {
        let disk = env.disk();
        let file = disk.create("synced").await.unwrap();
        file.write_at(0, b"one").await.unwrap();
        file.sync().await.unwrap();
        disk.sync_dir("").await.unwrap();
        file.write_at(0, b"TWO and more").await.unwrap();
        write(disk, "name-not-synced", b"lost").await;
        let view = world.durable_view(host);
        assert_eq!(read(&view, "synced").await.unwrap(), b"one");
        world.power_off(host, PowerLoss::Strict);
        let env = start(&world, host).await;
        assert_eq!(read(env.disk(), "synced").await.unwrap(), b"one");
        assert_eq!(read(env.disk(), "name-not-synced").await, None);
        assert_eq!(env.disk().list("").await.unwrap(), ["synced"]);
        assert_eq!(observed(&world, "P2"), 1);
        assert_eq!(observed(&world, "D4"), 1);
    });
}

#[test]
fn directory_whose_name_is_not_synced_is_lost_with_its_files() {
    with_disk(1, instant(), |world, host, env| async move {
        env.disk().create_dir("a/b").await.unwrap();
        write(env.disk(), "a/b/file", b"deep").await;
        env.disk().sync_dir("a/b").await.unwrap();
        env.disk().sync_dir("a").await.unwrap();
        world.power_off(host, PowerLoss::Strict);
        let env = start(&world, host).await;
        assert_eq!(env.disk().list("").await.unwrap(), [""; 0]);
    });
}

#[test]
fn durable_view_is_a_scratch_copy() {
    with_disk(1, instant(), |world, host, env| async move {
        write(env.disk(), "file", b"content").await;
        env.disk().sync_dir("").await.unwrap();
        let hash = world.durable_hash(host);
        let view = world.durable_view(host);
        view.open("file").await.unwrap().write_at(0, b"CONTENT").await.unwrap();
        view.remove("file").await.unwrap();
        assert_eq!(read(env.disk(), "file").await.unwrap(), b"content");
        assert_eq!(world.durable_hash(host), hash);
        write(env.disk(), "file", b"other").await;
        assert_ne!(world.durable_hash(host), hash);
    });
}

/// Loses power in the middle of many unsynced writes, and returns what is left, by seed.
fn subset(seed: u64, torn: f64) -> (Vec<u8>, u64, u64) {
    with_disk(seed, instant(), move |world, host, env| async move {
        world.change_disk(host, |disk| disk.torn = torn);
        let file = env.disk().create("file").await.unwrap();
        file.write_at(0, &[b'.'; 8192]).await.unwrap();
        file.sync().await.unwrap();
        env.disk().sync_dir("").await.unwrap();
        for (record, byte) in (0..8).zip(b'a'..) {
            // Records start in the middle of a sector and end in the middle of another.
            file.write_at(100 + record * 1_000, &[byte; 1_000]).await.unwrap();
        }
        world.power_off(host, PowerLoss::Subset);
        let env = start(&world, host).await;
        let left = read(env.disk(), "file").await.unwrap();
        (left, observed(&world, "D1"), observed(&world, "D2"))
    })
}

#[test]
fn subset_power_loss_keeps_any_set_of_whole_writes() {
    let mut sets = BTreeSet::new();
    let mut reordered = 0;
    for seed in 0..40 {
        let (left, torn, out_of_order) = subset(seed, 0.0);
        assert_eq!(torn, 0);
        reordered += out_of_order;
        let records: Vec<u8> = left[100..8_100].chunks(1_000).map(|record| record[0]).collect();
        for (record, bytes) in records.iter().zip(left[100..8_100].chunks(1_000)) {
            assert!(bytes.iter().all(|byte| byte == record), "a torn record without tearing");
        }
        for (record, new) in records.iter().zip(b'a'..) {
            assert!([b'.', new].contains(record), "neither old nor new: {record}");
        }
        sets.insert(records);
    }
    assert!(sets.len() > 20, "only {} different sets survived", sets.len());
    assert!(reordered > 40, "only {reordered} writes survived an earlier one");
}

#[test]
fn torn_write_damages_sectors_within_its_range_only() {
    let (mut torn_count, mut mixed) = (0, 0);
    for seed in 0..40 {
        let (left, torn, _) = subset(seed, 1.0);
        torn_count += torn;
        assert!(left[..100].iter().chain(&left[8_100..]).all(|byte| *byte == b'.'));
        for (record, new) in left[100..8_100].chunks(1_000).zip(b'a'..) {
            mixed += u32::from(record.contains(&new) && record.iter().any(|byte| *byte != new));
        }
    }
    assert!(torn_count > 40, "only {torn_count} torn writes");
    assert!(mixed > 20, "only {mixed} records are partly new");
}

#[test]
fn rename_over_old_file_survives_in_every_way() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..100 {
        let outcome = with_disk(seed, instant(), |world, host, env| async move {
            let disk = env.disk();
            write(disk, "manifest", b"old").await;
            disk.sync_dir("").await.unwrap();
            let tmp = disk.create("tmp").await.unwrap();
            tmp.write_at(0, b"new").await.unwrap();
            disk.rename("tmp", "manifest").await.unwrap();
            world.power_off(host, PowerLoss::Subset);
            let env = start(&world, host).await;
            (read(env.disk(), "manifest").await, read(env.disk(), "tmp").await)
        });
        outcomes.insert(outcome);
    }
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    for expected in [
        (bytes("old"), None),         // nothing survived
        (bytes("new"), None),         // all of it
        (bytes(""), None),            // the rename, but not the data
        (bytes("old"), bytes("new")), // the creation, but not the rename
        (bytes("new"), bytes("new")), // half of the rename
    ] {
        assert!(outcomes.contains(&expected), "{expected:?} never happened: {outcomes:?}");
    }
}

#[test]
fn power_loss_during_sync_loses_what_it_covers() {
    let slow = Duration::from_millis(10);
    let disk = DiskOptions { sync_time: (slow, slow), ..DiskOptions::default() };
    with_disk(1, WorldOptions { disk, ..WorldOptions::default() }, |world, host, env| async move {
        let file = env.disk().create("file").await.unwrap();
        env.disk().sync_dir("").await.unwrap();
        file.write_at(0, b"bytes").await.unwrap();
        let own = env.clone();
        env.spawn("sync", async move {
            let file = own.disk().open("file").await.unwrap();
            file.sync().await.unwrap();
            panic!("a sync came back from a machine without power");
        });
        world.sleep(Duration::from_millis(5)).await;
        assert!(world.disk_is_busy(host));
        world.power_off(host, PowerLoss::Strict);
        assert!(!world.disk_is_busy(host));
        world.sleep(Duration::from_millis(20)).await;
        let env = start(&world, host).await;
        assert_eq!(read(env.disk(), "file").await.unwrap(), b"");
    });
}

#[test]
fn sync_covers_only_writes_before_it_began() {
    let slow = Duration::from_millis(10);
    let disk = DiskOptions { sync_time: (slow, slow), ..DiskOptions::default() };
    with_disk(1, WorldOptions { disk, ..WorldOptions::default() }, |world, host, env| async move {
        let file = env.disk().create("file").await.unwrap();
        env.disk().sync_dir("").await.unwrap();
        file.write_at(0, b"before").await.unwrap();
        let during = async {
            world.sleep(Duration::from_millis(5)).await;
            file.write_at(0, b"DURING").await.unwrap();
        };
        let (synced, ()) = futures_util::future::join(file.sync(), during).await;
        synced.unwrap();
        assert_eq!(read(&world.durable_view(host), "file").await.unwrap(), b"before");
        assert_eq!(read(env.disk(), "file").await.unwrap(), b"DURING");
    });
}

#[test]
fn failed_sync_drops_its_bytes_but_shows_them_until_restart() {
    with_disk(1, instant(), |world, host, env| async move {
        write(env.disk(), "file", b"first").await;
        env.disk().sync_dir("").await.unwrap();
        let file = env.disk().open("file").await.unwrap();
        file.write_at(5, b" second").await.unwrap();
        world.change_disk(host, |disk| disk.sync_error = 1.0);
        assert_eq!(file.sync().await.unwrap_err().kind, DiskErrorKind::Io);
        world.change_disk(host, |disk| disk.sync_error = 0.0);
        file.sync().await.unwrap();
        file.write_at(12, b" third").await.unwrap();
        assert_eq!(read(env.disk(), "file").await.unwrap(), b"first second third");
        world.crash(host);
        let env = start(&world, host).await;
        assert_eq!(read(env.disk(), "file").await.unwrap(), b"first\0\0\0\0\0\0\0 third");
        assert_eq!(observed(&world, "D5"), 1);
    });
}

#[test]
fn lying_sync_is_shown_by_power_loss_only() {
    with_disk(1, instant(), |world, host, env| async move {
        let file = env.disk().create("file").await.unwrap();
        env.disk().sync_dir("").await.unwrap();
        world.change_disk(host, |disk| disk.sync_lie = 1.0);
        file.write_at(0, b"volatile").await.unwrap();
        file.sync().await.unwrap();
        world.change_disk(host, |disk| disk.sync_lie = 0.0);
        file.sync().await.unwrap();
        world.crash(host);
        let env = start(&world, host).await;
        assert_eq!(read(env.disk(), "file").await.unwrap(), b"volatile");
        assert_eq!(observed(&world, "D6"), 0);
        world.power_off(host, PowerLoss::Strict);
        let env = start(&world, host).await;
        assert_eq!(read(env.disk(), "file").await.unwrap(), b"");
        assert_eq!(observed(&world, "D6"), 1);
    });
}

#[test]
fn failed_write_stores_a_prefix() {
    let mut lens = BTreeSet::new();
    for seed in 0..20 {
        lens.insert(with_disk(seed, instant(), |world, host, env| async move {
            let file = env.disk().create("file").await.unwrap();
            world.change_disk(host, |disk| disk.write_error = 1.0);
            let error = file.write_at(0, b"abcdefgh").await.unwrap_err();
            assert_eq!(error.kind, DiskErrorKind::Io);
            let stored = read(env.disk(), "file").await.unwrap();
            assert!(b"abcdefgh".starts_with(&stored));
            assert_eq!(observed(&world, "D7"), 1);
            stored.len()
        }));
    }
    assert!(lens.len() > 4, "only prefixes of {lens:?}");
}

#[test]
fn full_disk_refuses_growth_until_space_is_freed() {
    with_disk(1, instant(), |world, host, env| async move {
        let disk = env.disk();
        write(disk, "ballast", &[1; 600]).await;
        let file = disk.create("file").await.unwrap();
        world.change_disk(host, |disk| disk.quota_bytes = Some(1_000));
        let error = file.write_at(0, &[2; 500]).await.unwrap_err();
        assert_eq!(error.kind, DiskErrorKind::NoSpace);
        assert_eq!(file.len().unwrap(), 400, "the write happened as far as there was room");
        assert_eq!(disk.create("other").await.err().unwrap().kind, DiskErrorKind::NoSpace);
        assert_eq!(file.truncate(500).await.unwrap_err().kind, DiskErrorKind::NoSpace);
        file.write_at(100, &[3; 300]).await.unwrap();
        disk.remove("ballast").await.unwrap();
        disk.sync_dir("").await.unwrap();
        file.write_at(0, &[2; 500]).await.unwrap();
        assert_eq!(world.disk_used_bytes(host), 500);
        assert_eq!(observed(&world, "D8"), 3);
    });
}

#[test]
fn rot_flips_one_durable_bit_for_good() {
    with_disk(1, instant(), |world, host, env| async move {
        let clean = vec![0x5a; 5_000];
        write(env.disk(), "wal", &clean).await;
        write(env.disk(), "other", &clean).await;
        env.disk().sync_dir("").await.unwrap();
        let mut rng = Rng::new(7);
        assert_eq!(world.rot(host, only("missing"), &mut rng), None);
        let rot = world.rot(host, only("wal"), &mut rng).unwrap();
        assert_eq!(rot.path, "wal");
        assert_eq!(observed(&world, "D10"), 0);
        let mut expected = clean.clone();
        expected[usize::try_from(rot.offset).unwrap()] ^= 1 << rot.bit;
        assert_eq!(read(env.disk(), "wal").await.unwrap(), expected);
        assert_eq!(observed(&world, "D10"), 1);
        world.power_off(host, PowerLoss::Strict);
        let env = start(&world, host).await;
        assert_eq!(read(env.disk(), "wal").await.unwrap(), expected);
        assert_eq!(read(env.disk(), "other").await.unwrap(), clean);
    });
}

#[test]
fn lost_sector_is_unreadable_until_it_is_written_again() {
    with_disk(1, instant(), |world, host, env| async move {
        write(env.disk(), "wal", &[0x5a; 5_000]).await;
        env.disk().sync_dir("").await.unwrap();
        let mut rng = Rng::new(7);
        assert_eq!(world.lose_sector(host, only("missing"), &mut rng), None);
        let head = |path: &str| if path == "wal" { 4_000 } else { 0 };
        let (path, at) = world.lose_sector(host, head, &mut rng).unwrap();
        assert_eq!((path.as_str(), at % 512, observed(&world, "D9")), ("wal", 0, 0));
        world.power_off(host, PowerLoss::Strict);
        let env = start(&world, host).await;
        let file = env.disk().open("wal").await.unwrap();
        let mut byte = [0];
        let mut read = |at| file.read_at(at, &mut byte).map_err(|error| error.kind);
        assert_eq!([read(at), read(at + 511)], [Err(DiskErrorKind::Io); 2]);
        assert_eq!([read(at.wrapping_sub(1).min(4_999)), read(at + 512)], [Ok(1); 2]);
        assert_eq!(observed(&world, "D9"), 2);
        file.write_at(at, &[1; 511]).await.unwrap();
        assert_eq!(read(at), Err(DiskErrorKind::Io), "not all of it was written");
        file.write_at(at, &[1; 512]).await.unwrap();
        assert_eq!(read(at), Ok(1));
    });
}

/// What the log was told last of a file: whether it is there, how many of its bytes are not
/// durable, and whether its name is.
fn last_told(entries: &[LogEntry], wanted: &str) -> (bool, u64, bool) {
    let told = entries.iter().rev().find_map(|entry| match &entry.what {
        Happening::File { path, pending, is_name_durable, .. } if path == wanted => {
            Some((true, *pending, *is_name_durable))
        }
        Happening::Gone { path } if path == wanted => Some((false, 0, true)),
        Happening::Event { .. }
        | Happening::Sent { .. }
        | Happening::Status(_)
        | Happening::File { .. }
        | Happening::Directory { .. }
        | Happening::Probe(_)
        | Happening::Gone { .. } => None,
    });
    told.unwrap_or_else(|| panic!("nothing was told of {wanted}"))
}

#[test]
fn log_tells_of_bytes_that_no_sync_has_made_durable() {
    let log = Log::default();
    let options = WorldOptions { log: Some(log.clone()), ..instant() };
    with_disk(1, options, |world, host, env| async move {
        let told = || last_told(&log.take(), "file");
        let file = env.disk().create("file").await.unwrap();
        assert_eq!(told(), (true, 0, false), "a name");
        file.write_at(0, &[1; 100]).await.unwrap();
        world.change_disk(host, |disk| disk.sync_error = 1.0);
        assert!(file.sync().await.is_err());
        assert_eq!(told(), (true, 100, false), "a failed sync");
        world.change_disk(host, |disk| disk.sync_error = 0.0);
        file.write_at(0, &[2; 60]).await.unwrap();
        file.sync().await.unwrap();
        env.disk().sync_dir("").await.unwrap();
        assert_eq!(told(), (true, 40, true), "some of it is written again");
        world.change_disk(host, |disk| disk.sync_lie = 1.0);
        file.write_at(200, &[3; 7]).await.unwrap();
        file.sync().await.unwrap();
        assert_eq!(told(), (true, 47, true), "a lie");
        world.crash(host);
        assert_eq!(told(), (true, 7, true), "what a failed sync dropped is gone");
        world.power_off(host, PowerLoss::Strict);
        assert_eq!(told(), (true, 0, true), "a power loss");
    });
}

#[test]
fn log_tells_of_names_that_go_with_the_power_or_the_disk() {
    let log = Log::default();
    let options = WorldOptions { log: Some(log.clone()), ..instant() };
    with_disk(1, options, |world, host, env| async move {
        write(env.disk(), "kept", b"1").await;
        env.disk().sync_dir("").await.unwrap();
        write(env.disk(), "lost", b"2").await;
        log.take();
        world.power_off(host, PowerLoss::Strict);
        let entries = log.take();
        assert_eq!(last_told(&entries, "lost"), (false, 0, true));
        assert_eq!(last_told(&entries, "kept"), (true, 0, true));
        let old = world.keep_disk(host);
        world.wipe_disk(host);
        assert_eq!(last_told(&log.take(), "kept"), (false, 0, true));
        let env = start(&world, host).await;
        write(env.disk(), "new", b"3").await;
        world.crash(host);
        world.restore_disk(host, &old);
        let entries = log.take();
        assert_eq!(last_told(&entries, "new"), (false, 0, true));
        assert_eq!(last_told(&entries, "kept"), (true, 0, true));
    });
}

#[test]
fn look_at_a_view_is_none_of_the_machine() {
    let log = Log::default();
    let options = WorldOptions { log: Some(log.clone()), ..instant() };
    let own = with_disk(1, options, |world, host, env| async move {
        write(env.disk(), "wal", &[0x5a; 512]).await;
        write(env.disk(), "old", b"1").await;
        env.disk().sync_dir("").await.unwrap();
        world.lose_sector(host, only("wal"), &mut Rng::new(7)).unwrap();
        let view = world.durable_view(host);
        let file = view.open("wal").await.unwrap();
        assert_eq!(file.read_at(0, &mut [0]).map_err(|error| error.kind), Err(DiskErrorKind::Io));
        assert_eq!(observed(&world, "D9"), 0, "no node has read it");
        write(&view, "new", b"2").await;
        view.rename("new", "newer").await.unwrap();
        view.remove("old").await.unwrap();
        let file = env.disk().open("wal").await.unwrap();
        assert!(file.read_at(0, &mut [0]).is_err());
        assert_eq!(observed(&world, "D9"), 1);
        world.files(host).into_iter().map(|file| file.path).collect::<BTreeSet<String>>()
    });
    let told = |entry: LogEntry| match entry.what {
        Happening::File { path, .. } => Some(path),
        Happening::Gone { path } => panic!("{path} is gone"),
        Happening::Event { .. }
        | Happening::Sent { .. }
        | Happening::Status(_)
        | Happening::Directory { .. }
        | Happening::Probe(_) => None,
    };
    let told: BTreeSet<String> = log.take().into_iter().filter_map(told).collect();
    assert_eq!(told, own);
}

#[test]
fn stalled_disk_holds_writes_and_syncs_but_not_reads() {
    with_disk(1, instant(), |world, host, env| async move {
        write(env.disk(), "file", b"one").await;
        let file = env.disk().open("file").await.unwrap();
        world.stall_disk(host, Duration::from_millis(50));
        let start = world.now();
        assert_eq!(read(env.disk(), "file").await.unwrap(), b"one");
        assert_eq!(world.now(), start);
        file.write_at(0, b"two").await.unwrap();
        assert!(world.now().saturating_sub(start) >= Duration::from_millis(50));
        assert!(observed(&world, "D15") > 0);
    });
}

#[test]
fn stall_holds_a_sync_under_way() {
    with_disk(1, WorldOptions::default(), |world, host, env| async move {
        let file = env.disk().create("file").await.unwrap();
        file.write_at(0, b"one").await.unwrap();
        let stall = async { world.stall_disk(host, Duration::from_millis(80)) };
        let start = world.now();
        let (synced, ()) = futures_util::future::join(file.sync(), stall).await;
        synced.unwrap();
        assert!(world.now().saturating_sub(start) >= Duration::from_millis(80));
    });
}

#[test]
fn slow_disk_takes_its_factor_longer() {
    with_disk(1, WorldOptions::default(), |world, host, env| async move {
        let time = Duration::from_millis(3);
        world.change_disk(host, |disk| (disk.sync_time, disk.slowness) = ((time, time), 20));
        let file = env.disk().create("file").await.unwrap();
        let start = world.now();
        file.sync().await.unwrap();
        assert!(world.now().saturating_sub(start) >= 20 * time);
    });
}

#[test]
fn dead_process_cannot_write() {
    with_disk(1, instant(), |world, host, env| async move {
        let file = env.disk().create("file").await.unwrap();
        world.crash(host);
        let write = std::pin::pin!(file.write_at(0, b"from the grave"));
        let sleep = std::pin::pin!(world.sleep(Duration::from_millis(10)));
        let first = futures_util::future::select(write, sleep).await;
        assert!(matches!(first, futures_util::future::Either::Right(_)));
        assert_eq!(file.len().unwrap_err().kind, DiskErrorKind::Io);
        let new = start(&world, host).await;
        assert_eq!(read(new.disk(), "file").await.unwrap(), b"");
    });
}

#[test]
fn wiped_and_swapped_disks_are_what_they_say() {
    with_disk(1, instant(), |world, host, env| async move {
        let other = world.add_server("n2");
        write(env.disk(), "file", b"mine").await;
        env.disk().sync_dir("").await.unwrap();
        world.crash(host);
        world.swap_disks(host, other);
        let env = start(&world, other).await;
        assert_eq!(read(env.disk(), "file").await.unwrap(), b"mine");
        let env = start(&world, host).await;
        assert_eq!(env.disk().list("").await.unwrap(), [""; 0]);
        world.power_off(other, PowerLoss::Strict);
        world.wipe_disk(other);
        let env = start(&world, other).await;
        assert_eq!(env.disk().list("").await.unwrap(), [""; 0]);
    });
}

#[test]
fn rot_below_what_was_written_since_is_seen_by_nobody() {
    with_disk(1, instant(), |world, host, env| async move {
        write(env.disk(), "wal", &[1; 8]).await;
        env.disk().sync_dir("").await.unwrap();
        let file = env.disk().open("wal").await.unwrap();
        file.write_at(0, &[2; 8]).await.unwrap();
        assert!(world.rot(host, only("wal"), &mut Rng::new(7)).is_some());
        assert_eq!(read(env.disk(), "wal").await.unwrap(), [2; 8]);
        assert_eq!(world.fault_counts()["D10"], (1, 0));
    });
}

#[test]
fn preallocated_zeros_cost_nothing() {
    with_disk(1, instant(), |world, host, env| async move {
        for segment in 0..50 {
            let file = env.disk().create(&format!("segment-{segment}")).await.unwrap();
            file.write_at(0, &vec![0; 1 << 20]).await.unwrap();
            file.sync().await.unwrap();
        }
        assert_eq!(world.disk_used_bytes(host), 50 << 20);
        let mut rng = Rng::new(1);
        assert_eq!(world.rot(host, |_| u64::MAX, &mut rng), None, "a page is stored somewhere");
    });
}
