//! A cluster that does what a test tells it: streams in memory, a clock that only goes on when
//! every task waits, and nodes that answer by a script.
#![expect(clippy::disallowed_methods, reason = "this is an environment: the world of one test")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::base::{ClusterId, Instant, NodeId, Rng, Stamp, WallTime};
use crate::codec::{self, FrameDecoder, encode_frame};
use crate::env::real::RealEnv;
use crate::env::{Env, Listener, Net};
use crate::kv::Command;
use crate::wire::{
    Consistency, Hello, Level, Mode, Refusal, Request, RequestBody, Response, ResponseBody, Welcome,
};

/// The type of a disk that no client uses.
type RealDisk = <RealEnv as Env>::Disk;

/// What a node does with one request.
pub(super) enum Reaction {
    /// Answers.
    Answer(ResponseBody),
    /// Answers nothing, for ever.
    Silence,
    /// Takes the request and closes the connection.
    HangUp,
    /// Sends bytes that are no frame.
    Garbage,
    /// Keeps this answer until a `Release`.
    Hold(ResponseBody),
    /// Answers, then gives the kept answers, the last one first.
    Release(ResponseBody),
}

type Script = Box<dyn FnMut(&str, &RequestBody) -> Reaction + Send>;

/// The fake cluster, and the environment of its client.
#[derive(Clone)]
pub(super) struct FakeEnv {
    world: Arc<Mutex<World>>,
    /// How strong the request that is being answered wants its answer.
    asked: Arc<Mutex<Consistency>>,
    started: tokio::time::Instant,
    disk: Option<RealDisk>,
}

struct World {
    script: Script,
    /// Every request that arrived: at which node, and what.
    seen: Vec<(String, RequestBody)>,
    /// Every connection that was tried.
    connects: Vec<String>,
    /// Nodes that cannot be reached.
    down: BTreeSet<String>,
    /// Nodes that refuse.
    refusing: BTreeMap<String, Refusal>,
    /// Nodes that are of another cluster, or replicate in another way.
    strange: BTreeMap<String, (ClusterId, Mode)>,
    /// Connections that the client has closed.
    closed_count: usize,
    mode: Mode,
    /// How strong each request that arrived wanted its answer.
    consistencies: Vec<Consistency>,
    /// The stamp that comes with the next answer, and with all after it.
    stamp: Stamp,
}

/// Runs a test on a clock that never really waits.
pub(super) fn run<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(test)
}

impl FakeEnv {
    pub(super) fn new(script: impl FnMut(&str, &RequestBody) -> Reaction + Send + 'static) -> Self {
        let world = World {
            script: Box::new(script),
            seen: Vec::new(),
            connects: Vec::new(),
            down: BTreeSet::new(),
            refusing: BTreeMap::new(),
            strange: BTreeMap::new(),
            closed_count: 0,
            mode: Mode::PrimaryBackup { group: 1 },
            consistencies: Vec::new(),
            stamp: Stamp::ZERO,
        };
        let world = Arc::new(Mutex::new(world));
        let asked = Arc::default();
        Self { world, asked, started: tokio::time::Instant::now(), disk: None }
    }

    /// Makes it a cluster of the masterless mode.
    pub(super) fn masterless(self) -> Self {
        self.world.lock().unwrap().mode = Mode::Masterless { placement: 1 };
        self
    }

    /// Returns how strong the request wants its answer that is being answered; for scripts.
    pub(super) fn asked_level(&self) -> Level {
        self.asked.lock().unwrap().level
    }

    /// Answers by another script from now on.
    pub(super) fn script(
        &self,
        script: impl FnMut(&str, &RequestBody) -> Reaction + Send + 'static,
    ) {
        self.world.lock().unwrap().script = Box::new(script);
    }

    /// Lets all further answers come with this stamp.
    pub(super) fn stamp(&self, stamp: Stamp) {
        self.world.lock().unwrap().stamp = stamp;
    }

    /// Returns how strong each request wanted its answer, in order.
    pub(super) fn consistencies(&self) -> Vec<Consistency> {
        self.world.lock().unwrap().consistencies.clone()
    }

    pub(super) fn down(&self, address: &str) {
        self.world.lock().unwrap().down.insert(address.to_owned());
    }

    pub(super) fn refuse(&self, address: &str, refusal: Refusal) {
        self.world.lock().unwrap().refusing.insert(address.to_owned(), refusal);
    }

    /// Makes the node say that it is of this cluster, which replicates so. It takes every client,
    /// as a node does that is not told which cluster the client wants.
    pub(super) fn estrange(&self, address: &str, cluster: ClusterId, mode: Mode) {
        self.world.lock().unwrap().strange.insert(address.to_owned(), (cluster, mode));
    }

    pub(super) fn connects(&self) -> Vec<String> {
        self.world.lock().unwrap().connects.clone()
    }

    pub(super) fn closed_count(&self) -> usize {
        self.world.lock().unwrap().closed_count
    }

    /// Returns the nodes that were asked, in order.
    pub(super) fn asked(&self) -> Vec<String> {
        self.world.lock().unwrap().seen.iter().map(|(address, _)| address.clone()).collect()
    }

    /// Returns the writes that arrived: session, number, and the lowest number not yet answered.
    pub(super) fn writes(&self) -> Vec<(u64, u64, u64)> {
        let world = self.world.lock().unwrap();
        let writes = world.seen.iter().filter_map(|(_, body)| match command(body)? {
            Command::Write { session, seq, acked_below, .. } => {
                Some((session.0, seq.0, acked_below.0))
            }
            Command::Register { .. } | Command::RegisterByIndex { .. } => None,
        });
        writes.collect()
    }

    async fn serve(self, address: String, mut stream: DuplexStream) {
        let Some(hello) = self.read_frame(&mut stream, &mut BytesMut::new()).await else { return };
        codec::decode::<Hello>(&hello).unwrap();
        let welcome = self.world.lock().unwrap().welcome(&address);
        write_frame(&mut stream, &codec::encode(&welcome)).await;
        let (mut input, mut held) = (BytesMut::new(), Vec::new());
        while let Some(frame) = self.read_frame(&mut stream, &mut input).await {
            let Request { id, consistency, body } = codec::decode(&frame).unwrap();
            let (reaction, seen) = {
                let mut world = self.world.lock().unwrap();
                world.seen.push((address.clone(), body.clone()));
                world.consistencies.push(consistency);
                *self.asked.lock().unwrap() = consistency;
                ((world.script)(&address, &body), world.stamp)
            };
            match reaction {
                Reaction::Answer(body) => answer(&mut stream, id, seen, body).await,
                Reaction::Silence => {}
                Reaction::HangUp => return,
                Reaction::Garbage => stream.write_all(&[0x5A; 40]).await.unwrap(),
                Reaction::Hold(body) => held.push((id, body)),
                Reaction::Release(body) => {
                    answer(&mut stream, id, seen, body).await;
                    for (id, body) in held.drain(..).rev() {
                        answer(&mut stream, id, seen, body).await;
                    }
                }
            }
        }
        self.world.lock().unwrap().closed_count += 1;
    }

    async fn read_frame(
        &self,
        stream: &mut DuplexStream,
        input: &mut BytesMut,
    ) -> Option<bytes::Bytes> {
        let decoder = FrameDecoder::new(1 << 24);
        loop {
            if let Some(frame) = decoder.decode(input).unwrap() {
                return Some(frame);
            }
            if stream.read_buf(input).await.ok()? == 0 {
                return None;
            }
        }
    }
}

impl World {
    fn welcome(&self, address: &str) -> Welcome {
        if let Some(refusal) = self.refusing.get(address) {
            return Welcome::Refused(refusal.clone());
        }
        let stranger = self.strange.get(address).copied();
        let (cluster, mode) = stranger.unwrap_or((ClusterId(7), self.mode));
        Welcome::Accepted { cluster, node: NodeId(1), mode }
    }
}

/// Returns the command that a request carries.
pub(super) fn command(body: &RequestBody) -> Option<Command> {
    match body {
        RequestBody::Command(payload) | RequestBody::FaultyCommand { command: payload, .. } => {
            codec::decode(payload.as_bytes()).ok()
        }
        RequestBody::Query(_) | RequestBody::Status | RequestBody::Snapshot { .. } => None,
    }
}

async fn answer(stream: &mut DuplexStream, id: u64, seen: Stamp, body: ResponseBody) {
    write_frame(stream, &codec::encode(&Response { id, seen, body })).await;
}

async fn write_frame(stream: &mut DuplexStream, body: &[u8]) {
    let mut frame = Vec::new();
    encode_frame(&mut frame, |buffer| buffer.extend_from_slice(body));
    // The client may be gone: then nobody misses the answer.
    drop(stream.write_all(&frame).await);
}

impl Env for FakeEnv {
    type Disk = RealDisk;
    type Net = Self;

    fn now(&self) -> Instant {
        let nanos = self.started.elapsed().as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap())
    }

    fn wall(&self) -> WallTime {
        WallTime(0)
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(duration)
    }

    fn spawn(&self, _name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        drop(tokio::spawn(task));
    }

    fn rng(&self, purpose: &str) -> Rng {
        Rng::new(1).split(purpose)
    }

    fn disk(&self) -> &RealDisk {
        self.disk.as_ref().unwrap()
    }

    fn net(&self) -> &Self {
        self
    }
}

impl Net for FakeEnv {
    type Stream = DuplexStream;
    type Listener = NoListener;

    async fn listen(&self, _address: &str) -> std::io::Result<NoListener> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    async fn connect(&self, address: &str) -> std::io::Result<DuplexStream> {
        let is_down = {
            let mut world = self.world.lock().unwrap();
            world.connects.push(address.to_owned());
            world.down.contains(address)
        };
        if is_down {
            return Err(std::io::ErrorKind::ConnectionRefused.into());
        }
        // Small enough that large frames do not fit: the driver has to go on writing.
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        drop(tokio::spawn(self.clone().serve(address.to_owned(), theirs)));
        Ok(ours)
    }
}

/// No client opens a port.
pub(super) struct NoListener;

impl Listener for NoListener {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> std::io::Result<(DuplexStream, String)> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn local_address(&self) -> String {
        String::new()
    }
}
