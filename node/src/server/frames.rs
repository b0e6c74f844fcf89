//! Frames over a stream, for the parts of a conversation where nothing runs in parallel.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::codec::{self, DecodeError, Encode, FrameDecoder};
use crate::env::{self, Env};

/// Longest handshake frame in bytes: a stranger gets no more memory than this.
pub(crate) const HANDSHAKE_BYTES_MAX: usize = 1 << 10;

/// Why a conversation ended before it began.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The stream failed or ended.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are no frame of ours.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Nothing came in time.
    #[error("no answer within {0:?}")]
    Late(Duration),
}

/// Reads one handshake frame within `limit`; bytes after it stay in `buffer`.
pub(crate) async fn read_handshake<E: Env, S: AsyncRead + Unpin>(
    env: &E,
    limit: Duration,
    stream: &mut S,
    buffer: &mut BytesMut,
) -> Result<Bytes, FrameError> {
    let decoder = FrameDecoder::new(HANDSHAKE_BYTES_MAX);
    let read = async {
        loop {
            if let Some(frame) = decoder.decode(buffer)? {
                return Ok(frame);
            }
            if stream.read_buf(buffer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    };
    env::timeout(env, limit, read).await.unwrap_or(Err(FrameError::Late(limit)))
}

/// Writes one frame within `limit`.
pub(crate) async fn write_frame<E: Env, S: AsyncWrite + Unpin, T: Encode>(
    env: &E,
    limit: Duration,
    stream: &mut S,
    value: &T,
) -> Result<(), FrameError> {
    let mut bytes = Vec::new();
    codec::encode_frame(&mut bytes, |buffer| codec::encode_into(value, buffer));
    let write = async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    };
    match env::timeout(env, limit, write).await {
        Some(result) => Ok(result?),
        None => Err(FrameError::Late(limit)),
    }
}
