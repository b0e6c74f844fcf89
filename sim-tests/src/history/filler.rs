//! The bytes of values: a name, and filler that belongs to that name alone.
//!
//! Written values are told apart by their names and are as long as the run wants them. Who reads
//! one must recognise it, and must not recognise what is only *nearly* right: a value that lacks
//! its end, has bytes of another in its midst, or the right ones at the wrong place. So the filler
//! is a function of the name and of the place, and the history remembers how long each value was.
//! Whatever begins like a value and goes on differently is none.
//!
//! ```text
//! c2.17+1kkkkkkkkkk…kkkkkVVVVVVVVV…
//! name   a letter for each 256 bytes
//! ```
//! Letters are few enough to be mistaken for each other once in 52 times, and last so long that a
//! table packs a value about as well as if there were one letter alone: what is packed decides how
//! large tables get, and so what a run is.

use mangrove::base::hash::hash64;

/// Bytes of a value that are filled with the same letter.
const RUN_BYTES: usize = 256;

/// What values are filled with. A name has no letter but at its beginning, so it ends where the
/// next one is.
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Makes the value of that name which is `len` bytes long, or as long as its name if that is more.
pub(super) fn filled(name: &str, len: usize) -> String {
    let mut value = String::with_capacity(len.max(name.len()));
    value.push_str(name);
    while value.len() < len {
        let run = value.len() / RUN_BYTES;
        let missing = len.min((run + 1) * RUN_BYTES) - value.len();
        value.extend(std::iter::repeat_n(letter(name, run), missing));
    }
    value
}

/// Returns the name that a value begins with, if everything after it is the filler of that name.
/// That the value ends where it should is for somebody to say who knows its length.
pub fn name_of(value: &[u8]) -> Option<&str> {
    let value = std::str::from_utf8(value).ok()?;
    let after_first = value.get(1..)?;
    let letters = after_first.find(|letter: char| letter.is_ascii_alphabetic());
    let name = value.get(..letters.map_or(value.len(), |at| at + 1))?;
    (filled(name, value.len()) == value).then_some(name)
}

/// Returns what a run of the filler of a name is made of.
fn letter(name: &str, run: usize) -> char {
    let run = u64::try_from(run).unwrap_or(u64::MAX);
    let count = u64::try_from(LETTERS.len()).unwrap_or(u64::MAX);
    let at = usize::try_from(hash64(run, name.as_bytes()) % count).unwrap_or(0);
    char::from(LETTERS[at])
}

#[cfg(test)]
mod tests {
    use super::super::{History, ValueId};
    use super::*;

    const NAME: &str = "c2.17+1";

    #[test]
    fn value_has_its_length_and_tells_its_name() {
        for len in [0, 7, 8, 255, 256, 257, 2000] {
            let value = filled(NAME, len);
            assert_eq!(value.len(), len.max(NAME.len()));
            assert_eq!(name_of(value.as_bytes()), Some(NAME), "{value}");
        }
        let long = filled(NAME, 2000);
        let letters: std::collections::BTreeSet<u8> = long.bytes().skip(NAME.len()).collect();
        assert!(letters.len() > 5, "{long}");
    }

    #[test]
    fn bytes_of_another_value_or_place_are_noticed() {
        let value = filled(NAME, 2000);
        let other = filled("c2.18", 2000);
        let mixed = format!("{}{}", &value[..1024], &other[1024..]);
        assert_eq!(name_of(mixed.as_bytes()), None);
        let moved = format!("{}{}", &value[..500], &value[501..]);
        assert_eq!(name_of(moved.as_bytes()), None);
        let swapped = format!("{}{}{}", &value[..512], &value[1024..1536], &value[512..1024]);
        assert_eq!(name_of(swapped.as_bytes()), None);
        assert_eq!(name_of(b""), None);
        assert_eq!(name_of(b"\xff\xfe"), None);
        assert_eq!(name_of(b"nothing of the kind"), None);
    }

    #[test]
    fn history_knows_values_of_the_right_length_alone() {
        let mut history = History::new();
        let (value, bytes) = history.written_value(NAME, 300);
        let (short, name) = history.written_value("c1.1", 0);
        assert_eq!(history.value_of(bytes.as_bytes()), Some(value));
        assert_eq!((history.value_of(name.as_bytes()), name.as_str()), (Some(short), "c1.1"));
        for len in [1, 4, NAME.len(), NAME.len() + 1, 299] {
            assert_eq!(history.value_of(&bytes.as_bytes()[..len]), None, "{len} bytes");
        }
        assert_eq!(history.value_of(filled(NAME, 301).as_bytes()), None, "one byte too many");
        assert_eq!(history.value_of(filled("c9.9", 20).as_bytes()), None, "nobody wrote it");
    }

    #[test]
    fn foreign_value_is_like_none_that_was_written() {
        let mut history = History::new();
        let (value, bytes) = history.written_value(NAME, 300);
        assert_eq!(history.read_value(bytes.as_bytes()), value);
        let cut = history.read_value(NAME.as_bytes());
        assert!(cut != value && cut != ValueId::ABSENT);
        assert_eq!(history.value_text(cut), Some("?c2.17+1 (7 bytes)"));
    }

    #[test]
    fn history_without_lengths_knows_values_by_their_names() {
        let mut history = History::new();
        let value = history.value("any text");
        assert_eq!(history.value_of(b"any text"), Some(value));
        assert_eq!(history.value_of(b"any"), None);
    }
}
