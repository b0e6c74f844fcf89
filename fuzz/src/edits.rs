//! Whole files and what happens to them: the input of an *altered* target.
//!
//! Four bytes are one thing that happens to one file:
//!
//! ```text
//! which u8                  what happens (the low three bits), to which file (the rest)
//! place u16 LE │ value u8   where, and with what
//! ```

/// Length of the sectors that go lost or to the wrong place.
const SECTOR: usize = 512;

/// Most bytes that one edit appends.
const APPENDED_MAX: usize = 255;

/// Most edits of one input; more only take time.
const EDITS_MAX: usize = 64;

/// Files by name, in a fixed order; `None` when one was removed.
pub type Files = Vec<(String, Option<Vec<u8>>)>;

/// Alters `files` as the input says; tells whether any byte is another one now.
pub fn alter(files: &mut Files, input: &[u8]) -> bool {
    let before = files.clone();
    let (edits, _) = input.as_chunks::<4>();
    for &[which, low, high, value] in edits.iter().take(EDITS_MAX) {
        let file = usize::from(which >> 3) % files.len().max(1);
        let place = usize::from(u16::from_le_bytes([low, high]));
        edit(files, which & 7, file, place, value);
    }
    *files != before
}

fn edit(files: &mut Files, what: u8, file: usize, place: usize, value: u8) {
    let other = files.get(usize::from(value) % files.len().max(1)).and_then(|(_, b)| b.clone());
    let Some((_, content)) = files.get_mut(file) else { return };
    if what == 6 {
        *content = None;
        return;
    }
    if what == 7 {
        // The file of another name: a rename that went wrong.
        *content = other;
        return;
    }
    let Some(bytes) = content else { return };
    if bytes.is_empty() {
        return;
    }
    let at = place % bytes.len();
    let sector = at / SECTOR * SECTOR;
    let end = (sector + SECTOR).min(bytes.len());
    match what {
        0 => bytes[at] ^= value,
        1 => bytes[at] = value,
        2 => bytes.truncate(at),
        3 => bytes[sector..end].fill(0),
        4 => {
            // What belongs elsewhere: a sector written to the wrong place.
            let sectors = bytes.len().div_ceil(SECTOR);
            let from = usize::from(value) % sectors * SECTOR;
            let from_end = (from + (end - sector)).min(bytes.len());
            let to = sector.min(bytes.len() - (from_end - from));
            bytes.copy_within(from..from_end, to);
        }
        _ => bytes.extend(std::iter::repeat_n(value, 1 + place % APPENDED_MAX)),
    }
}

/// Returns inputs that do one thing each, at places all over the files.
pub fn seeds(files: &Files) -> Vec<Vec<u8>> {
    let mut seeds = vec![Vec::new()];
    for (number, (_, content)) in (0_u8..).zip(files) {
        let len = content.as_ref().map_or(0, Vec::len);
        for what in 0..8 {
            let which = (number % 32) << 3 | what;
            for place in [0, 4, 13, 40, len / 3, len / 2, len.saturating_sub(3)] {
                let [low, high] = u16::try_from(place).unwrap_or(u16::MAX).to_le_bytes();
                seeds.push(vec![which, low, high, 1]);
            }
        }
    }
    seeds
}
