//! The contract of [`crate::env`] as tests that every world must pass.
//!
//! Each promise is one function, named as a test is; [`crate::env_conformance_tests`] turns all
//! of them into `#[test]` functions of the crate that has a world to offer, and the suites run
//! them in a row where that is more convenient. A broken promise is a panic.
//!
//! # Left out
//! What survives a power loss: only a simulated disk can lose power, and its own tests show it.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Disk, DiskErrorKind, Env, File, Listener, Net, timeout};
use crate::base::Rng;

/// A place to run the tests at.
#[derive(Debug, Clone)]
pub struct Site<E> {
    /// The environment under test; its directory is empty.
    pub env: E,
    /// Where connections to it come from: another machine, or the same environment again.
    pub peer: E,
    /// What `env` may listen on, with port 0: "127.0.0.1:0" or "n1:0".
    pub listen: String,
}

/// Defines one `#[test]` for each promise of the contract.
///
/// `$run` runs one of them: `fn run<F>(case: fn(Site<MyEnv>) -> F) where F: Future<Output = ()>`
/// with whatever further bounds the world needs. It makes a fresh [`Site`] each time.
#[macro_export]
macro_rules! env_conformance_tests {
    ($run:path) => {
        $crate::env_conformance_tests! { @each $run:
            clock_now_never_goes_back,
            clock_sleep_is_never_early,
            clock_sleeps_end_in_order,
            clock_timeout_gives_up,
            spawned_task_runs_beside_its_parent,
            task_aside_runs_and_uses_the_world,
            rng_streams_differ_by_purpose,
            disk_read_sees_completed_write,
            disk_overwrite_replaces_only_its_range,
            disk_gap_reads_as_zeros,
            disk_read_past_end_is_short,
            disk_truncate_cuts_and_grows_with_zeros,
            disk_large_write_reads_back,
            disk_create_empties_existing_file,
            disk_open_of_missing_file_is_not_found,
            disk_missing_directory_is_not_found,
            disk_rename_replaces_target,
            disk_file_stays_usable_without_its_name,
            disk_list_is_sorted_and_flat,
            disk_two_handles_see_one_file,
            disk_syncs_succeed,
            disk_write_and_sync_aside_is_both,
            net_accepts_and_echoes,
            net_writer_waits_for_slow_reader,
            net_end_of_one_direction_leaves_the_other,
            net_dropped_stream_ends_the_peers_reads,
            net_write_to_closed_peer_fails_in_the_end,
            net_unheard_port_refuses,
            net_closed_listener_refuses,
            net_streams_are_independent,
            net_port_in_use_is_an_error,
        }
    };
    (@each $run:path: $($case:ident),* $(,)?) => {
        $(
            #[test]
            fn $case() {
                $run($crate::env::conformance::$case);
            }
        )*
    };
}

/// Checks every promise about clock, tasks and randomness.
pub async fn clock_suite<E: Env>(site: &Site<E>) {
    clock_now_never_goes_back(site.clone()).await;
    clock_sleep_is_never_early(site.clone()).await;
    clock_sleeps_end_in_order(site.clone()).await;
    clock_timeout_gives_up(site.clone()).await;
    spawned_task_runs_beside_its_parent(site.clone()).await;
    task_aside_runs_and_uses_the_world(site.clone()).await;
    rng_streams_differ_by_purpose(site.clone()).await;
}

/// Checks every promise about the disk.
pub async fn disk_suite<E: Env>(site: &Site<E>) {
    disk_read_sees_completed_write(site.clone()).await;
    disk_overwrite_replaces_only_its_range(site.clone()).await;
    disk_gap_reads_as_zeros(site.clone()).await;
    disk_read_past_end_is_short(site.clone()).await;
    disk_truncate_cuts_and_grows_with_zeros(site.clone()).await;
    disk_large_write_reads_back(site.clone()).await;
    disk_create_empties_existing_file(site.clone()).await;
    disk_open_of_missing_file_is_not_found(site.clone()).await;
    disk_missing_directory_is_not_found(site.clone()).await;
    disk_rename_replaces_target(site.clone()).await;
    disk_file_stays_usable_without_its_name(site.clone()).await;
    disk_list_is_sorted_and_flat(site.clone()).await;
    disk_two_handles_see_one_file(site.clone()).await;
    disk_syncs_succeed(site.clone()).await;
    disk_write_and_sync_aside_is_both(site.clone()).await;
}

/// Checks every promise about the network.
pub async fn net_suite<E: Env>(site: &Site<E>) {
    net_accepts_and_echoes(site.clone()).await;
    net_writer_waits_for_slow_reader(site.clone()).await;
    net_end_of_one_direction_leaves_the_other(site.clone()).await;
    net_dropped_stream_ends_the_peers_reads(site.clone()).await;
    net_write_to_closed_peer_fails_in_the_end(site.clone()).await;
    net_unheard_port_refuses(site.clone()).await;
    net_closed_listener_refuses(site.clone()).await;
    net_streams_are_independent(site.clone()).await;
    net_port_in_use_is_an_error(site.clone()).await;
}

/// A wait that no world needs unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// Returns what must have succeeded.
fn must<T, E: Display>(result: Result<T, E>, what: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error}"),
    }
}

/// Returns the output of a future that must not hang.
async fn soon<E: Env, F: Future>(env: &E, what: &str, future: F) -> F::Output {
    match timeout(env, PATIENCE, future).await {
        Some(output) => output,
        None => panic!("{what} takes longer than {PATIENCE:?}"),
    }
}

/// Returns a stretch of bytes that no shift maps onto itself.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&rng.next_u64().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Creates a file that holds `bytes`.
async fn file_with<E: Env>(env: &E, path: &str, bytes: &[u8]) -> <E::Disk as Disk>::File {
    let file = must(env.disk().create(path).await, "create");
    must(file.write_at(0, bytes).await, "write");
    file
}

/// Returns all bytes of a file.
fn contents(file: &impl File) -> Vec<u8> {
    let len = usize::try_from(must(file.len(), "len")).unwrap_or(usize::MAX);
    let mut bytes = vec![0xee; len + 1];
    let read = must(file.read_at(0, &mut bytes), "read");
    assert_eq!(read, len, "a read of the whole file is as long as the file");
    bytes.truncate(read);
    bytes
}

/// `now` never goes back, and moves on while somebody sleeps.
pub async fn clock_now_never_goes_back<E: Env>(site: Site<E>) {
    let env = &site.env;
    let start = env.now();
    let mut last = start;
    for step in 0..20_u64 {
        let now = env.now();
        assert!(now >= last, "now went back from {last:?} to {now:?}");
        last = now;
        env.sleep(Duration::from_micros(step * 50)).await;
    }
    assert!(env.now() > start, "now did not move on from {start:?}");
}

/// A sleep lasts at least as long as it was asked to.
pub async fn clock_sleep_is_never_early<E: Env>(site: Site<E>) {
    let env = &site.env;
    for micros in [0, 1, 30, 999, 1_000, 7_777, 40_000] {
        let asked = Duration::from_micros(micros);
        let start = env.now();
        env.sleep(asked).await;
        let slept = env.now().since(start);
        assert!(slept >= asked, "slept {slept:?} instead of {asked:?}");
    }
}

/// Sleeps of different lengths end in the order of their lengths.
pub async fn clock_sleeps_end_in_order<E: Env>(site: Site<E>) {
    let env = &site.env;
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    for millis in [90_u64, 30, 60] {
        let (own, sender) = (env.clone(), sender.clone());
        env.spawn("sleeper", async move {
            own.sleep(Duration::from_millis(millis)).await;
            must(sender.send(millis), "report");
        });
    }
    for expected in [30, 60, 90] {
        let ended = soon(env, "a sleep", receiver.recv()).await;
        assert_eq!(ended, Some(expected), "which sleep ended");
    }
}

/// A time-out gives up on what does not end, not before its time, and lets through what does.
pub async fn clock_timeout_gives_up<E: Env>(site: Site<E>) {
    let env = &site.env;
    let limit = Duration::from_millis(20);
    let start = env.now();
    let never = timeout(env, limit, std::future::pending::<()>()).await;
    assert!(never.is_none(), "a future that never ends has ended");
    let waited = env.now().since(start);
    assert!(waited >= limit, "gave up after {waited:?} instead of {limit:?}");
    assert_eq!(timeout(env, limit, async { 7 }).await, Some(7), "a future that ends at once");
}

/// A spawned task runs while its parent waits.
pub async fn spawned_task_runs_beside_its_parent<E: Env>(site: Site<E>) {
    let env = &site.env;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    env.spawn("child", async move {
        must(sender.send(42).map_err(|answer| format!("nobody wants {answer}")), "answer");
    });
    let answer = soon(env, "a task", receiver).await;
    assert_eq!(must(answer, "the task's answer"), 42, "what the task sent");
}

/// A task that is started aside may sleep and use the disk, as any other.
pub async fn task_aside_runs_and_uses_the_world<E: Env>(site: Site<E>) {
    let env = site.env.clone();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    site.env.spawn_aside("aside", async move {
        env.sleep(Duration::from_millis(1)).await;
        let file = file_with(&env, "aside", &pattern(7, 3_000)).await;
        must(file.sync().await, "sync");
        must(sender.send(contents(&file)).map_err(|bytes| format!("{} bytes", bytes.len())), "it");
    });
    let read = must(soon(&site.env, "a task aside", receiver).await, "the task's answer");
    assert_eq!(read, pattern(7, 3_000), "what the task wrote");
}

/// Streams of randomness of different purposes differ.
#[expect(clippy::unused_async, reason = "every promise has the same shape")]
pub async fn rng_streams_differ_by_purpose<E: Env>(site: Site<E>) {
    let (mut one, mut other) = (site.env.rng("one"), site.env.rng("other"));
    let (one, other) = (one.next_u64(), other.next_u64());
    assert!(one != other, "two purposes drew the same {one}");
}

/// A read sees every completed write, through the handle that wrote and through a new one.
pub async fn disk_read_sees_completed_write<E: Env>(site: Site<E>) {
    let env = &site.env;
    let bytes = pattern(1, 1_000);
    let file = file_with(env, "read-sees-write", &bytes).await;
    assert_eq!(contents(&file), bytes, "through the handle that wrote");
    let again = must(env.disk().open("read-sees-write").await, "open");
    assert_eq!(contents(&again), bytes, "through another handle");
    assert!(!must(again.is_empty(), "is_empty"), "1000 bytes are not nothing");
}

/// A write in the middle replaces its range and nothing else.
pub async fn disk_overwrite_replaces_only_its_range<E: Env>(site: Site<E>) {
    let mut bytes = pattern(2, 10_000);
    let file = file_with(&site.env, "overwrite", &bytes).await;
    let piece = pattern(3, 5_000);
    must(file.write_at(4_000, &piece).await, "write");
    bytes.splice(4_000..9_000, piece);
    assert_eq!(contents(&file), bytes, "after the overwrite");
}

/// What lies between the end of a file and a write beyond it reads as zeros.
pub async fn disk_gap_reads_as_zeros<E: Env>(site: Site<E>) {
    let file = file_with(&site.env, "gap", b"head").await;
    must(file.write_at(9_000, b"tail").await, "write");
    let mut expected = b"head".to_vec();
    expected.resize(9_000, 0);
    expected.extend_from_slice(b"tail");
    assert_eq!(contents(&file), expected, "head, zeros, tail");
}

/// A read at the end is short, and beyond the end it is empty.
pub async fn disk_read_past_end_is_short<E: Env>(site: Site<E>) {
    let file = file_with(&site.env, "short", b"0123456789").await;
    let mut buffer = [0; 8];
    assert_eq!(must(file.read_at(6, &mut buffer), "read"), 4, "bytes before the end");
    assert_eq!(buffer.get(..4), Some(&b"6789"[..]), "the last bytes");
    assert_eq!(must(file.read_at(10, &mut buffer), "read"), 0, "at the end");
    assert_eq!(must(file.read_at(1 << 40, &mut buffer), "read"), 0, "far beyond the end");
}

/// Cutting a file and growing it again gives zeros, not what was there before.
pub async fn disk_truncate_cuts_and_grows_with_zeros<E: Env>(site: Site<E>) {
    let mut bytes = pattern(4, 9_000);
    let file = file_with(&site.env, "truncate", &bytes).await;
    must(file.truncate(5_000).await, "cut");
    bytes.truncate(5_000);
    assert_eq!(contents(&file), bytes, "after the cut");
    must(file.truncate(9_000).await, "grow");
    bytes.resize(9_000, 0);
    assert_eq!(contents(&file), bytes, "after it has grown again");
    must(file.truncate(0).await, "empty");
    assert!(must(file.is_empty(), "is_empty"), "a file cut to nothing");
}

/// A large write reads back, with a stretch of zeros in it.
pub async fn disk_large_write_reads_back<E: Env>(site: Site<E>) {
    let mut bytes = pattern(5, 3 << 20);
    if let Some(middle) = bytes.get_mut(1 << 20..2 << 20) {
        middle.fill(0);
    }
    let file = file_with(&site.env, "large", &bytes).await;
    assert!(contents(&file) == bytes, "3 MiB do not read back");
    must(file.write_at(0, &vec![0; 2 << 20]).await, "write zeros");
    if let Some(front) = bytes.get_mut(..2 << 20) {
        front.fill(0);
    }
    assert!(contents(&file) == bytes, "zeros over 2 MiB of 3 do not read back");
}

/// Creating a file that exists empties it, for whoever has it open as well.
pub async fn disk_create_empties_existing_file<E: Env>(site: Site<E>) {
    let old = file_with(&site.env, "create", b"old").await;
    let new = must(site.env.disk().create("create").await, "create again");
    assert_eq!(contents(&new), b"", "a created file");
    assert_eq!(contents(&old), b"", "the same file through its old handle");
}

/// What does not exist cannot be opened, renamed or removed.
pub async fn disk_open_of_missing_file_is_not_found<E: Env>(site: Site<E>) {
    let disk = site.env.disk();
    let opened = disk.open("missing").await.map(|_| ());
    let renamed = disk.rename("missing", "other").await;
    let removed = disk.remove("missing").await;
    for (what, result) in [("open", opened), ("rename", renamed), ("remove", removed)] {
        let kind = result.map_err(|error| error.kind);
        assert_eq!(kind, Err(DiskErrorKind::NotFound), "{what} of a missing file");
    }
}

/// Nothing can be created or listed in a directory that does not exist.
pub async fn disk_missing_directory_is_not_found<E: Env>(site: Site<E>) {
    let disk = site.env.disk();
    let created = disk.create("no-directory/file").await.map(|_| ());
    let listed = disk.list("no-directory").await.map(|_| ());
    let synced = disk.sync_dir("no-directory").await;
    for (what, result) in [("create", created), ("list", listed), ("sync_dir", synced)] {
        let kind = result.map_err(|error| error.kind);
        assert_eq!(kind, Err(DiskErrorKind::NotFound), "{what} in a missing directory");
    }
}

/// A rename replaces its target, also across directories; the old name is gone.
pub async fn disk_rename_replaces_target<E: Env>(site: Site<E>) {
    let disk = site.env.disk();
    must(disk.create_dir("rename/deep").await, "create_dir");
    drop(file_with(&site.env, "rename/new", b"new").await);
    drop(file_with(&site.env, "rename/deep/target", b"the old content").await);
    must(disk.rename("rename/new", "rename/deep/target").await, "rename");
    let file = must(disk.open("rename/deep/target").await, "open");
    assert_eq!(contents(&file), b"new", "the target's content");
    assert_eq!(must(disk.list("rename").await, "list"), ["deep"], "the old name is gone");
}

/// An open file stays readable and writable when its name is removed or replaced.
pub async fn disk_file_stays_usable_without_its_name<E: Env>(site: Site<E>) {
    let disk = site.env.disk();
    let removed = file_with(&site.env, "removed", b"first").await;
    must(disk.remove("removed").await, "remove");
    must(removed.write_at(5, b" second").await, "write to a removed file");
    assert_eq!(contents(&removed), b"first second", "a removed file");
    must(removed.sync().await, "sync of a removed file");

    let replaced = file_with(&site.env, "replaced", b"old").await;
    drop(file_with(&site.env, "replacement", b"replacement").await);
    must(disk.rename("replacement", "replaced").await, "rename");
    assert_eq!(contents(&replaced), b"old", "a replaced file");
    let opened = must(disk.open("replaced").await, "open");
    assert_eq!(contents(&opened), b"replacement", "what replaced it");
}

/// A directory lists its own names, sorted, and not those below them.
pub async fn disk_list_is_sorted_and_flat<E: Env>(site: Site<E>) {
    let disk = site.env.disk();
    must(disk.create_dir("list/b").await, "create_dir");
    must(disk.create_dir("list/b").await, "create_dir of what exists");
    for path in ["list/c", "list/a", "list/b/below", "list/B", "list-not"] {
        drop(must(disk.create(path).await, "create"));
    }
    assert_eq!(must(disk.list("list").await, "list"), ["B", "a", "b", "c"], "one directory");
    assert_eq!(must(disk.list("list/b").await, "list"), ["below"], "the directory in it");
    let root = must(disk.list("").await, "list");
    assert!(root.is_sorted(), "the root is not sorted: {root:?}");
    for name in ["list", "list-not"] {
        assert!(root.iter().any(|found| found == name), "{name} is missing in {root:?}");
    }
    must(disk.remove("list/a").await, "remove");
    assert_eq!(must(disk.list("list").await, "list"), ["B", "b", "c"], "after a removal");
}

/// Two handles of one file see each other's writes.
pub async fn disk_two_handles_see_one_file<E: Env>(site: Site<E>) {
    let one = file_with(&site.env, "two", b"one").await;
    let two = must(site.env.disk().open("two").await, "open");
    must(two.write_at(3, b"+two").await, "write");
    must(one.write_at(0, b"ONE").await, "write");
    assert_eq!(contents(&one), b"ONE+two", "through the first handle");
    assert_eq!(contents(&two), b"ONE+two", "through the second handle");
}

/// Syncs of files and directories succeed, also when there is nothing to do.
pub async fn disk_syncs_succeed<E: Env>(site: Site<E>) {
    let disk = site.env.disk();
    must(disk.create_dir("sync").await, "create_dir");
    let file = file_with(&site.env, "sync/file", &pattern(6, 5_000)).await;
    for _ in 0..2 {
        must(file.sync().await, "sync");
        must(disk.sync_dir("sync").await, "sync_dir");
        must(disk.sync_dir("").await, "sync_dir of the root");
    }
    assert_eq!(contents(&file), pattern(6, 5_000), "a synced file");
}

/// A write and its sync in one leave what was to be written, and give the bytes back.
pub async fn disk_write_and_sync_aside_is_both<E: Env>(site: Site<E>) {
    let mut file = file_with(&site.env, "both", &pattern(8, 5_000)).await;
    for (is_log, offset, len) in [(false, 1_000, 700), (true, 4_096, 1_024), (true, 5_120, 10)] {
        if is_log {
            file.expect_syncs();
        }
        let done = file.write_and_sync_aside(offset, pattern(9, len)).await;
        must(done.written, "write");
        must(done.synced, "sync");
        assert_eq!(done.bytes, pattern(9, len), "the bytes are given back");
        let mut read = vec![0; len];
        let count = must(file.read_at(offset, &mut read), "read");
        assert_eq!(count, len, "read at {offset}");
        assert_eq!(read, pattern(9, len), "at {offset}");
    }
    assert_eq!(contents(&file).get(..1_000), pattern(8, 5_000).get(..1_000), "what was before it");
}

type StreamOf<E> = <<E as Env>::Net as Net>::Stream;
type ListenerOf<E> = <<E as Env>::Net as Net>::Listener;

/// Opens a port and returns it with its address.
async fn open_port<E: Env>(site: &Site<E>) -> (ListenerOf<E>, String) {
    let listener = must(site.env.net().listen(&site.listen).await, "listen");
    let address = listener.local_address();
    assert!(!address.ends_with(":0"), "{address} does not say the real port");
    (listener, address)
}

/// Returns a connection: the end that connected, and the end that accepted.
async fn connection<E: Env>(site: &Site<E>) -> (StreamOf<E>, StreamOf<E>) {
    let (mut listener, address) = open_port(site).await;
    connection_to(site, &mut listener, &address).await
}

async fn connection_to<E: Env>(
    site: &Site<E>,
    listener: &mut ListenerOf<E>,
    address: &str,
) -> (StreamOf<E>, StreamOf<E>) {
    let accept = std::pin::pin!(listener.accept());
    let connect = std::pin::pin!(site.peer.net().connect(address));
    let both = futures_util::future::join(accept, connect);
    let (accepted, connected) = soon(&site.env, "a connection", both).await;
    let (server, from) = must(accepted, "accept");
    assert!(!from.is_empty(), "the other side has no address");
    (must(connected, "connect"), server)
}

/// What is written arrives, both ways, in pieces of any size.
pub async fn net_accepts_and_echoes<E: Env>(site: Site<E>) {
    let (mut client, mut server) = connection(&site).await;
    site.env.spawn("echo", async move {
        let mut buffer = [0; 7];
        loop {
            let len = must(server.read(&mut buffer).await, "read");
            let Some(read) = buffer.get(..len).filter(|read| !read.is_empty()) else { return };
            must(server.write_all(read).await, "write");
        }
    });
    for len in [1, 100, 10_000] {
        let sent = pattern(7, len);
        must(client.write_all(&sent).await, "write");
        must(client.flush().await, "flush");
        let mut received = vec![0; len];
        let read = client.read_exact(&mut received);
        must(soon(&site.peer, "an echo", read).await, "read");
        assert!(sent == received, "{len} bytes changed on their way");
    }
}

/// A writer of much waits for a reader that takes its time; nothing is lost.
pub async fn net_writer_waits_for_slow_reader<E: Env>(site: Site<E>) {
    const LEN: usize = 24 << 20;
    let (mut client, mut server) = connection(&site).await;
    let (sender, mut done) = tokio::sync::oneshot::channel();
    let peer = site.peer.clone();
    peer.spawn("writer", async move {
        for piece in pattern(8, LEN).chunks(1 << 20) {
            must(client.write_all(piece).await, "write");
        }
        must(client.shutdown().await, "shutdown");
        must(sender.send(()).map_err(|()| "the reader has gone"), "report");
    });
    site.env.sleep(Duration::from_millis(300)).await;
    assert!(done.try_recv().is_err(), "{LEN} bytes were taken while nobody read");
    let mut received = Vec::new();
    let read = server.read_to_end(&mut received);
    must(soon(&site.env, "a big transfer", read).await, "read");
    must(soon(&site.env, "the writer", done).await, "the writer's report");
    assert!(received == pattern(8, LEN), "{} of {LEN} bytes arrived, or other", received.len());
}

/// After a shutdown the peer reads the end, and can still answer.
pub async fn net_end_of_one_direction_leaves_the_other<E: Env>(site: Site<E>) {
    let (mut client, mut server) = connection(&site).await;
    must(client.write_all(b"question").await, "write");
    must(client.shutdown().await, "shutdown");
    let mut question = Vec::new();
    let read = server.read_to_end(&mut question);
    must(soon(&site.env, "the end of the stream", read).await, "read");
    assert_eq!(question, b"question", "what came before the end");
    must(server.write_all(b"answer").await, "write against the direction that ended");
    must(server.shutdown().await, "shutdown");
    let mut answer = Vec::new();
    let read = client.read_to_end(&mut answer);
    must(soon(&site.peer, "the answer", read).await, "read");
    assert_eq!(answer, b"answer", "what came back");
}

/// Whoever drops a stream gives the peer all that was written, and then its end.
pub async fn net_dropped_stream_ends_the_peers_reads<E: Env>(site: Site<E>) {
    let (mut client, mut server) = connection(&site).await;
    must(client.write_all(b"last words").await, "write");
    must(client.flush().await, "flush");
    drop(client);
    let mut read = Vec::new();
    let all = server.read_to_end(&mut read);
    must(soon(&site.env, "the end of the stream", all).await, "read");
    assert_eq!(read, b"last words", "what was written before the drop");
}

/// Writing to a peer that has closed fails, at the latest after a few round trips.
pub async fn net_write_to_closed_peer_fails_in_the_end<E: Env>(site: Site<E>) {
    let (mut client, server) = connection(&site).await;
    drop(server);
    let failed = async {
        loop {
            if let Err(error) = client.write_all(&[0; 100]).await {
                return error.kind();
            }
            site.peer.sleep(Duration::from_millis(5)).await;
        }
    };
    let kind = soon(&site.peer, "an error", failed).await;
    let expected = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
    assert!(expected.contains(&kind), "writing to a closed peer gives {kind:?}");
}

/// A port that nobody listens on refuses.
pub async fn net_unheard_port_refuses<E: Env>(site: Site<E>) {
    let (listener, address) = open_port(&site).await;
    drop(listener);
    refuses(&site, &address).await;
}

/// A port refuses once its listener is gone; a connection made before goes on.
pub async fn net_closed_listener_refuses<E: Env>(site: Site<E>) {
    let (mut listener, address) = open_port(&site).await;
    let (mut client, mut server) = connection_to(&site, &mut listener, &address).await;
    drop(listener);
    refuses(&site, &address).await;
    must(client.write_all(b"still here").await, "write");
    let mut read = [0; 10];
    must(soon(&site.env, "a read", server.read_exact(&mut read)).await, "read");
    assert_eq!(&read, b"still here", "over a connection whose port has closed");
}

async fn refuses<E: Env>(site: &Site<E>, address: &str) {
    let connected = soon(&site.peer, "a refusal", site.peer.net().connect(address)).await;
    let kind = connected.map(|_| ()).map_err(|error| error.kind());
    assert_eq!(kind, Err(io::ErrorKind::ConnectionRefused), "connecting to {address}");
}

/// A connection whose reader sleeps does not hold up another one.
pub async fn net_streams_are_independent<E: Env>(site: Site<E>) {
    let (mut full, _never_read) = connection(&site).await;
    let (mut free, mut server) = connection(&site).await;
    let piece = pattern(9, 1 << 16);
    let blocked = timeout(&site.peer, Duration::from_millis(200), async {
        loop {
            must(full.write_all(&piece).await, "write");
        }
    });
    let filled: Option<()> = blocked.await;
    assert!(filled.is_none(), "a write that cannot end has ended");
    must(free.write_all(b"through").await, "write");
    let mut read = [0; 7];
    must(soon(&site.env, "a read", server.read_exact(&mut read)).await, "read");
    assert_eq!(&read, b"through", "over the other connection");
}

/// A port can be open only once.
pub async fn net_port_in_use_is_an_error<E: Env>(site: Site<E>) {
    let (listener, address) = open_port(&site).await;
    let kind = site.env.net().listen(&address).await.map(|_| ()).map_err(|error| error.kind());
    assert_eq!(kind, Err(io::ErrorKind::AddrInUse), "opening {address} twice");
    drop(listener);
    drop(must(site.env.net().listen(&address).await, "listen on a port that was closed"));
}
