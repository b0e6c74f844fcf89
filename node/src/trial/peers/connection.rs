//! A connection that many requests share, whatever is spoken on it.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use crate::env::real::RealEnv;
use crate::env::{Env, First, Net, race, timeout};
use crate::trial::load::Failure;

type Stream = <<RealEnv as Env>::Net as Net>::Stream;

/// Longest wait for a connection, and for an answer: those of our own client.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Bytes asked from the stream at once.
const READ_BYTES: usize = 64 << 10;

/// What is spoken: bytes out of questions, and answers out of bytes.
pub(super) trait Protocol: Send + 'static {
    /// A question.
    type Ask: Send + 'static;
    /// An answer.
    type Answer: Send + 'static;

    /// Says what a connection begins with.
    fn begin(&mut self, output: &mut BytesMut);

    /// Asks. Each question has a number of its own.
    fn ask(&mut self, number: u64, ask: Self::Ask, output: &mut BytesMut);

    /// Takes what has arrived, as far as it is whole; returns what it answers.
    ///
    /// # Errors
    /// Nothing that follows can be understood.
    fn receive(
        &mut self,
        input: &mut BytesMut,
        output: &mut BytesMut,
    ) -> io::Result<Vec<(u64, Self::Answer)>>;

    /// Tells whether the other side takes more questions now.
    fn has_room(&self) -> bool {
        true
    }
}

/// See the [module](self).
pub(super) struct Connection<P: Protocol> {
    env: RealEnv,
    asks: mpsc::UnboundedSender<(P::Ask, oneshot::Sender<P::Answer>)>,
}

impl<P: Protocol> std::fmt::Debug for Connection<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl<P: Protocol> Connection<P> {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub(super) async fn connect(env: &RealEnv, address: &str, protocol: P) -> io::Result<Self> {
        let connecting = timeout(env, CONNECT_LIMIT, env.net().connect(address)).await;
        let stream = connecting.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
        let (asks, questions) = mpsc::unbounded_channel();
        env.spawn("peer connection", async move {
            let driver = Driver { stream, protocol, questions, waiting: BTreeMap::new() };
            // Whoever waits for an answer sees that none will come.
            if let Err(error) = driver.run().await {
                tracing::debug!(%error, "a connection to a peer ended");
            }
        });
        Ok(Self { env: env.clone(), asks })
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(&self, ask: P::Ask) -> Result<P::Answer, Failure> {
        let (sender, receiver) = oneshot::channel();
        if self.asks.send((ask, sender)).is_err() {
            return Err(Failure("not connected"));
        }
        match timeout(&self.env, ANSWER_LIMIT, receiver).await {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(_)) => Err(Failure("connection lost")),
            None => Err(Failure("timeout")),
        }
    }
}

struct Driver<P: Protocol> {
    stream: Stream,
    protocol: P,
    questions: mpsc::UnboundedReceiver<(P::Ask, oneshot::Sender<P::Answer>)>,
    waiting: BTreeMap<u64, oneshot::Sender<P::Answer>>,
}

impl<P: Protocol> Driver<P> {
    async fn run(mut self) -> io::Result<()> {
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        let mut last = 0;
        self.protocol.begin(&mut output);
        loop {
            while self.protocol.has_room() {
                let Ok((ask, answer)) = self.questions.try_recv() else { break };
                last += 1;
                self.protocol.ask(last, ask, &mut output);
                self.waiting.insert(last, answer);
            }
            if !output.is_empty() {
                self.stream.write_all(&output).await?;
                output.clear();
            }
            input.reserve(READ_BYTES);
            let has_room = self.protocol.has_room();
            let question = async {
                if has_room { self.questions.recv().await } else { std::future::pending().await }
            };
            match race(self.stream.read_buf(&mut input), question).await {
                First::A(read) => {
                    if read? == 0 {
                        return Ok(());
                    }
                }
                First::B(None) => return Ok(()),
                First::B(Some((ask, answer))) => {
                    last += 1;
                    self.protocol.ask(last, ask, &mut output);
                    self.waiting.insert(last, answer);
                }
            }
            for (number, answer) in self.protocol.receive(&mut input, &mut output)? {
                if let Some(waiting) = self.waiting.remove(&number) {
                    // Who gave up waiting does not miss it.
                    drop(waiting.send(answer));
                }
            }
        }
    }
}
