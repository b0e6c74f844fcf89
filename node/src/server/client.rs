//! One client connection: requests in, answers out, one task for both.
//!
//! The task decodes requests into the replica's inbox and writes what the replica has put into
//! the connection's outbox. It reads on only while the client has not too much in flight, so a
//! client that does not read its answers stops being read itself.
//!
//! Of a long request only the beginning is read before there is [room](Inbox::room_for) for the
//! rest, so that many clients that send half of one do not take all memory. Who has room keeps it
//! from others, and must be done in time, whatever keeps it: also one that we do not read on
//! because it does not read its answers.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::{AcquireError, OwnedSemaphorePermit};

use crate::base::limits::{
    FRAME_BYTES_MAX, PARTIAL_BYTES_FREE, SESSION_INFLIGHT_MAX, SNAPSHOT_PIECE_BYTES_MAX,
};
use crate::base::{Payload, Rng};
use crate::codec::{self, DecodeError, FrameDecoder};
use crate::env::{Disk, Env};
use crate::kv::{validate, validate_query};
use crate::replica::{ClientOutbox, Inbox, KEPT_BYTES_MAX, Submitted};
use crate::wire::{Request, RequestBody, RequestError, ResponseBody};

/// Bytes of answers, queued or being written, after which a client is not read on.
const OUTBOX_BYTES_MAX: usize = 4 << 20;

/// Longest time for the rest of a frame to arrive once it has begun, while we read; and to be
/// decoded, once it has room that others may wait for.
const PARTIAL_FRAME_MAX: Duration = Duration::from_secs(30);

/// Certainty, in millionths.
const MILLION: u32 = 1_000_000;

/// Bytes asked from the stream at once.
const READ_BYTES: usize = 16 << 10;

type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Room for the rest of a long request.
enum Room {
    /// Others are to be done first. Nobody is late who waits for them.
    Wanted(Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>),
    /// Until the request is decoded.
    Held(#[expect(dead_code, reason = "it is given back when it is dropped")] OwnedSemaphorePermit),
}

/// Why a client connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("half a request and nothing more for {PARTIAL_FRAME_MAX:?}")]
    PartialFrame,
}

/// See the [module](self).
pub(super) struct ClientConnection<E: Env, S> {
    env: E,
    stream: S,
    inbox: Arc<Inbox>,
    outbox: Arc<ClientOutbox>,
    decoder: FrameDecoder,
    read: BytesMut,
    /// `read` was long; it does not tell how much memory it keeps.
    has_grown: bool,
    writing: Vec<u8>,
    written: usize,
    flushed: bool,
    partial_deadline: Option<Sleep>,
    /// For what is missing of the request at the front of `read`, if that is much.
    room: Option<Room>,
    /// Draws whether a fault that was asked for happens; made when the first one is.
    faults: Option<Rng>,
}

impl<E: Env, S: AsyncRead + AsyncWrite + Unpin> ClientConnection<E, S> {
    /// Makes the connection; `read` holds bytes that came with the handshake.
    pub(super) fn new(env: E, stream: S, inbox: Arc<Inbox>, read: BytesMut) -> Self {
        let outbox = inbox.new_outbox();
        Self {
            env,
            stream,
            inbox,
            outbox,
            decoder: FrameDecoder::new(FRAME_BYTES_MAX),
            read,
            has_grown: false,
            writing: Vec::new(),
            written: 0,
            flushed: true,
            partial_deadline: None,
            room: None,
            faults: None,
        }
    }

    /// Serves until the client leaves, breaks a rule, or the connection fails.
    pub(super) async fn run(mut self) -> Result<(), ConnectionError> {
        std::future::poll_fn(move |context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        self.poll_write(context)?;
        loop {
            // The outbox wakes this task with each answer, which makes room again.
            if !self.decode_requests()? {
                return self.poll_unread(context);
            }
            if self.poll_room(context).is_pending() {
                return Poll::Pending;
            }
            self.give_back();
            self.read.reserve(READ_BYTES);
            let read = pin!(self.stream.read_buf(&mut self.read)).poll(context)?;
            match read {
                Poll::Ready(0) => return Poll::Ready(Ok(())),
                Poll::Ready(_) => {}
                Poll::Pending => return self.poll_partial(context),
            }
        }
    }

    /// Writes as much as the stream takes now.
    fn poll_write(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        loop {
            let rest = self.writing.get(self.written..).unwrap_or_default();
            if rest.is_empty() {
                self.writing.clear();
                self.written = 0;
                // It gives what has grown back, too.
                if self.outbox.poll_take(context, &mut self.writing).is_pending() {
                    break;
                }
                continue;
            }
            match Pin::new(&mut self.stream).poll_write(context, rest)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(bytes) => {
                    self.written += bytes;
                    self.flushed = false;
                }
                Poll::Pending => break,
            }
        }
        if !self.flushed {
            self.flushed = Pin::new(&mut self.stream).poll_flush(context)?.is_ready();
        }
        Ok(())
    }

    /// Gives the memory of a long request back once nothing more is in it.
    fn give_back(&mut self) {
        if self.read.is_empty() && self.has_grown {
            self.read = BytesMut::new();
            self.has_grown = false;
        }
        self.has_grown |= self.read.len() > KEPT_BYTES_MAX;
    }

    /// Waits until there is room for the rest of the request that has begun to arrive.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.room.is_none() {
            let bytes = self.decoder.missing_bytes(&self.read);
            if bytes <= PARTIAL_BYTES_FREE {
                return Poll::Ready(());
            }
            self.room = Some(Room::Wanted(Box::pin(self.inbox.room_for(bytes))));
        }
        if let Some(Room::Wanted(wanted)) = &mut self.room {
            let Poll::Ready(room) = wanted.as_mut().poll(context) else {
                crate::probe!("server.long_request_waits_for_room");
                self.partial_deadline = None;
                return Poll::Pending;
            };
            let Ok(room) = room else { unreachable!("the room for requests is never closed") };
            self.room = Some(Room::Held(room));
        }
        Poll::Ready(())
    }

    /// Waits until the client has fetched answers: before that it is not read on.
    fn poll_unread(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        if matches!(self.room, Some(Room::Held(_))) {
            return self.poll_partial(context);
        }
        // It makes room for those who are read, and nobody is late whom we do not read.
        self.room = None;
        self.partial_deadline = None;
        Poll::Pending
    }

    /// Ends the connection when a frame has begun and its rest does not come.
    fn poll_partial(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        if self.read.is_empty() {
            self.partial_deadline = None;
            return Poll::Pending;
        }
        let deadline = self.partial_deadline.get_or_insert_with(|| {
            let env = self.env.clone();
            Box::pin(async move { env.sleep(PARTIAL_FRAME_MAX).await })
        });
        if deadline.as_mut().poll(context).is_ready() {
            crate::probe!("server.partial_frame_ends_connection");
            return Poll::Ready(Err(ConnectionError::PartialFrame));
        }
        Poll::Pending
    }

    /// Takes the requests that have arrived, as many as may be under way; tells whether there is
    /// room for more.
    fn decode_requests(&mut self) -> Result<bool, ConnectionError> {
        let (in_flight, bytes) = self.outbox.load();
        let room = if bytes > OUTBOX_BYTES_MAX { 0 } else { SESSION_INFLIGHT_MAX };
        for _ in in_flight..room {
            let Some(frame) = self.decoder.decode(&mut self.read)? else { return Ok(true) };
            (self.partial_deadline, self.room) = (None, None);
            let request: Request = codec::decode(&frame)?;
            let checked = check(&request.body).and_then(|()| self.fail_on_request(&request.body));
            // What is refused here waits nowhere.
            let bytes = if checked.is_ok() { frame.len() } else { 0 };
            let id = self.outbox.expect_reply(request.id, bytes);
            match checked {
                Ok(()) => self.inbox.submit(Submitted {
                    outbox: Arc::clone(&self.outbox),
                    id,
                    bytes,
                    consistency: request.consistency,
                    body: request.body,
                }),
                Err(what) => {
                    let error = RequestError::Invalid(what);
                    self.outbox.reply(id, ResponseBody::Error(error));
                }
            }
        }
        Ok(false)
    }

    /// Lets a fault happen that a request asks for, if this node was started to have any.
    fn fail_on_request(&mut self, body: &RequestBody) -> Result<(), String> {
        let RequestBody::FaultyCommand { loss_ppm, .. } = body else { return Ok(()) };
        let disk = self.env.disk();
        if !disk.can_hold_back() {
            return Err("it asks for a fault, and this node was started without --debug-faults; \
                        nothing was written"
                .to_owned());
        }
        let faults = self.faults.get_or_insert_with(|| self.env.rng("faults"));
        if faults.range(0, u64::from(MILLION)) < u64::from(*loss_ppm) {
            disk.hold_back().map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

impl<E: Env, S> Drop for ClientConnection<E, S> {
    fn drop(&mut self) {
        self.outbox.leave();
    }
}

/// Says what is wrong with an encoded command.
fn check_command(bytes: &Payload) -> Result<(), String> {
    let command = codec::decode(bytes.as_bytes()).map_err(|error| error.to_string())?;
    validate(&command).map_err(|error| error.to_string())
}

/// Says what is wrong with a request before it costs the replica anything.
fn check(body: &RequestBody) -> Result<(), String> {
    match body {
        RequestBody::Command(bytes) => check_command(bytes),
        RequestBody::FaultyCommand { command, loss_ppm: 0..=MILLION } => check_command(command),
        RequestBody::FaultyCommand { .. } => {
            Err("a probability in millionths is at most one million".to_owned())
        }
        RequestBody::Query(query) => validate_query(query).map_err(|error| error.to_string()),
        RequestBody::Status => Ok(()),
        RequestBody::Snapshot { wanted, offset, bytes_max } => {
            let is_possible = usize::try_from(*bytes_max)
                .is_ok_and(|bytes| (1..=SNAPSHOT_PIECE_BYTES_MAX).contains(&bytes));
            match (is_possible, wanted, offset) {
                (false, _, _) => Err(format!(
                    "a piece of {bytes_max} bytes: ask for 1 to {SNAPSHOT_PIECE_BYTES_MAX}"
                )),
                (true, None, 1..) => Err("a new snapshot begins at its first byte".to_owned()),
                (true, Some(_), _) | (true, None, 0) => Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncWriteExt, DuplexStream};

    use super::*;
    use crate::base::{Column, Key, Value};
    use crate::codec::encode_frame;
    use crate::env::real::RealEnv;
    use crate::kv::{Cell, Query, QueryReply, Version};
    use crate::wire::Consistency;

    /// More than `PARTIAL_FRAME_MAX`, on a clock that goes on only when it is told to.
    const LONG: Duration = Duration::from_secs(31);

    /// A connection that is polled by hand, and its other end.
    struct Scene {
        connection: ClientConnection<RealEnv, DuplexStream>,
        client: DuplexStream,
    }

    impl Scene {
        fn new() -> Self {
            Self::at(Inbox::new(100))
        }

        /// One of several connections.
        fn at(inbox: Arc<Inbox>) -> Self {
            let (client, server) = tokio::io::duplex(64 << 10);
            let env = RealEnv::client();
            let connection = ClientConnection::new(env, server, inbox, BytesMut::new());
            Self { connection, client }
        }

        fn poll(&mut self) -> Poll<Result<(), ConnectionError>> {
            self.connection.poll(&mut Context::from_waker(Waker::noop()))
        }

        /// Returns how many requests have come through.
        fn taken(&self) -> usize {
            self.connection.outbox.load().0
        }

        /// Sends bytes, which the connection takes before it goes on.
        async fn send(&mut self, bytes: &[u8]) {
            for piece in bytes.chunks(32 << 10) {
                self.client.write_all(piece).await.unwrap();
                assert!(self.poll().is_pending());
            }
        }

        /// Gives so many answers of 1 MiB each, to requests that nobody has sent.
        fn answer(&self, count: u64) {
            let value = Value::new(vec![7; 1 << 20]).unwrap();
            let cell = Cell { value, version: Version(1) };
            for id in 0..count {
                let number = self.connection.outbox.expect_reply(id, 0);
                let reply = QueryReply::Cell(Some(cell.clone()));
                self.connection.outbox.reply(number, ResponseBody::Query(reply));
            }
        }

        /// Fetches all answers.
        fn fetch(&mut self) {
            let mut fetched = vec![0; 64 << 10];
            loop {
                assert!(self.poll().is_pending());
                let read = pin!(self.client.read(&mut fetched));
                match read.poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(count) => assert!(count.unwrap() > 0, "it was closed"),
                    Poll::Pending => return,
                }
            }
        }
    }

    /// Returns a request of about so many KiB.
    fn request(kib: usize) -> Vec<u8> {
        let place = (Key::new(vec![0; 1 << 10]).unwrap(), Column::default());
        let body = RequestBody::Query(Query::MultiGet { cells: vec![place; kib] });
        let mut frame = Vec::new();
        encode_frame(&mut frame, |buffer| {
            Request::encode_parts(1, Consistency::default(), &body, buffer);
        });
        frame
    }

    fn is_too_late(ended: &Poll<Result<(), ConnectionError>>) -> bool {
        matches!(ended, Poll::Ready(Err(ConnectionError::PartialFrame)))
    }

    fn run(test: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        // Else the streams would say now and then that they are not ready, for others' sake.
        runtime.block_on(tokio::task::unconstrained(test));
    }

    #[test]
    fn half_a_request_is_not_held_against_who_was_not_read() {
        run(async {
            let (mut scene, request) = (Scene::new(), request(60));
            let (half, rest) = request.split_at(30 << 10);
            scene.send(half).await;
            scene.answer(5);
            assert!(scene.poll().is_pending());
            assert!(scene.connection.outbox.load().1 > OUTBOX_BYTES_MAX, "there is no room");
            tokio::time::advance(LONG).await;
            scene.fetch();
            scene.send(rest).await;
            assert_eq!(scene.taken(), 1, "it is whole");
        });
    }

    #[test]
    fn half_a_request_and_nothing_more_ends_the_connection() {
        run(async {
            let (mut scene, request) = (Scene::new(), request(100));
            scene.send(&request[..50 << 10]).await;
            tokio::time::advance(LONG).await;
            let ended = scene.poll();
            assert!(is_too_late(&ended), "{ended:?}");
        });
    }

    #[test]
    fn answers_that_are_being_written_count_as_well_as_those_that_wait() {
        run(async {
            let (mut scene, request) = (Scene::new(), request(1));
            scene.answer(5);
            assert!(scene.poll().is_pending());
            scene.client.write_all(&request).await.unwrap();
            assert!(scene.poll().is_pending());
            assert_eq!(scene.taken(), 0, "it is not read on");
            scene.fetch();
            assert_eq!(scene.taken(), 1);
        });
    }

    #[test]
    fn long_requests_wait_until_others_are_whole_or_too_late() {
        run(async {
            let inbox = Inbox::new(100);
            inbox.limit_partial(2 << 20);
            let [mut first, mut second, mut third] = [(); 3].map(|()| Scene::at(inbox.clone()));
            let request = request(1_000);
            let (half, rest) = request.split_at(500 << 10);
            first.send(half).await;
            tokio::time::advance(LONG / 2).await;
            second.send(half).await;
            // As much as fits the stream.
            let (begun, not_sent) = request.split_at(60 << 10);
            third.send(begun).await;
            let read = third.connection.read.len();
            assert!(read < begun.len(), "{read} bytes are read of one that has no room");
            tokio::time::advance(LONG / 2 + LONG / 4).await;
            let ended = first.poll();
            assert!(is_too_late(&ended), "{ended:?}");
            assert!(third.poll().is_pending(), "it is not late, it waits");
            drop(first);
            assert!(third.poll().is_pending(), "it is read on");
            third.send(not_sent).await;
            second.send(rest).await;
            assert_eq!((second.taken(), third.taken()), (1, 1));
            // They have given their room back.
            for scene in [&mut second, &mut third] {
                scene.send(&request).await;
                assert_eq!(scene.taken(), 2);
            }
        });
    }

    #[test]
    fn who_keeps_room_and_does_not_fetch_its_answers_is_too_late() {
        run(async {
            let (mut scene, request) = (Scene::new(), request(1_000));
            scene.send(&request[..500 << 10]).await;
            scene.answer(5);
            assert!(scene.poll().is_pending());
            tokio::time::advance(LONG).await;
            let ended = scene.poll();
            assert!(is_too_late(&ended), "{ended:?}");
        });
    }

    #[test]
    fn buffers_that_grew_are_given_back() {
        run(async {
            let (mut scene, request) = (Scene::new(), request(3 << 10));
            scene.send(&request).await;
            assert_eq!(scene.taken(), 1);
            assert!(!scene.connection.read.try_reclaim(KEPT_BYTES_MAX), "it is kept to read");
            scene.answer(5);
            scene.fetch();
            let capacity = scene.connection.writing.capacity();
            assert!(capacity <= KEPT_BYTES_MAX, "{capacity} bytes are kept to write");
        });
    }
}
