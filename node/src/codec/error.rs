//! What can be wrong with bytes that are decoded.

/// The bytes do not say what they should. Never a panic: they may come from a stranger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end in the middle of a value.
    #[error("the bytes end too early")]
    Truncated,
    /// The bytes go on after the value.
    #[error("{used} of {len} bytes make the value, the rest is too much")]
    TrailingBytes {
        /// Bytes that were used.
        used: usize,
        /// Bytes that were there.
        len: usize,
    },
    /// A length, count or size is over its limit.
    #[error("over the limit: {0}")]
    TooLarge(&'static str),
    /// A frame or record whose checksum does not match its bytes.
    #[error("checksum mismatch: stored {stored:08x}, computed {computed:08x}")]
    Checksum {
        /// The checksum that came with the bytes.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// Any other malformed encoding.
    #[error("malformed: {0}")]
    Malformed(String),
}

impl From<bincode::error::DecodeError> for DecodeError {
    fn from(error: bincode::error::DecodeError) -> Self {
        use bincode::error::DecodeError as Bincode;
        #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that may grow")]
        match error {
            Bincode::UnexpectedEnd { .. } => Self::Truncated,
            Bincode::LimitExceeded => Self::TooLarge("encoded length"),
            Bincode::Other(what) => Self::TooLarge(what),
            other => Self::Malformed(other.to_string()),
        }
    }
}
