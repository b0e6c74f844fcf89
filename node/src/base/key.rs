//! The bytes of a cell: key, column and value, each within its limit by construction.

use std::fmt;

use bytes::Bytes;

use super::limits::{COLUMN_BYTES_MAX, FRAME_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// A key, column, value or payload was longer than its limit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} of {bytes} bytes is larger than the limit of {bytes_max} bytes")]
pub struct TooLarge {
    /// What was too large: "key", "column", "value" or "payload".
    pub what: &'static str,
    /// Its length in bytes.
    pub bytes: usize,
    /// The longest that is allowed, in bytes.
    pub bytes_max: usize,
}

macro_rules! bounded_bytes {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(Bytes);

        impl $name {
            /// Longest allowed, in bytes.
            pub const BYTES_MAX: usize = $max;

            /// Takes the bytes, or says that they are too long.
            pub fn new(bytes: impl Into<Bytes>) -> Result<Self, TooLarge> {
                let bytes = bytes.into();
                if bytes.len() > Self::BYTES_MAX {
                    return Err(TooLarge {
                        what: $what,
                        bytes: bytes.len(),
                        bytes_max: Self::BYTES_MAX,
                    });
                }
                Ok(Self(bytes))
            }

            /// Returns the bytes.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            /// Returns the bytes, shared.
            pub fn into_bytes(self) -> Bytes {
                self.0
            }

            /// Returns the length in bytes.
            pub fn len(&self) -> usize {
                self.0.len()
            }

            /// Tells whether there are no bytes.
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                const SHOWN: usize = 24;
                let shown = self.0.get(..SHOWN).unwrap_or(&self.0);
                write!(f, "{:?}", String::from_utf8_lossy(shown))?;
                if self.0.len() > SHOWN { write!(f, "…{}B", self.0.len()) } else { Ok(()) }
            }
        }
    };
}

bounded_bytes! {
    /// A key: any bytes up to [`KEY_BYTES_MAX`].
    Key, "key", KEY_BYTES_MAX
}
bounded_bytes! {
    /// A column name: any bytes up to [`COLUMN_BYTES_MAX`]; empty for plain key-value data.
    Column, "column", COLUMN_BYTES_MAX
}
bounded_bytes! {
    /// A value: any bytes up to [`VALUE_BYTES_MAX`].
    Value, "value", VALUE_BYTES_MAX
}
bounded_bytes! {
    /// Opaque bytes that a lower floor carries for a higher one, such as a log entry's command.
    Payload, "payload", FRAME_BYTES_MAX
}
