//! A run as something to look at: one HTML file, and a picture of its last moments for a ticket.
//!
//! The page holds everything that it shows: a space-time diagram with nodes and clients as lanes,
//! messages as arrows, faults as bands; the state of each node and what of each file is durable;
//! the operations of clients with their answers; and the promise that broke. It asks nothing of a
//! network and needs no library: a canvas that draws only what is in sight, so twenty thousand
//! events are no trouble.
//!
//! What is shown comes from the [log](crate::world::Log) of the run. An arrow is a message that a
//! core gave to its shell and that the core of the other node took in later: the same text, sent
//! first. One that nobody took in is drawn as a stub with a cross.
//!
//! # Left out
//! Connections, segments and the messages of clients: operations stand for those.

mod data;
mod svg;

use serde_json::Value as Json;

pub use self::svg::last_moments;
use crate::branch::Odds;
use crate::case::Case;
use crate::run::Report;

/// The page without its data.
const PAGE: &str = include_str!("page.html");

/// Where the data goes.
const PLACE: &str = "@DATA@";

/// Returns the page of a run that was logged.
pub fn page(case: &Case, report: &Report) -> String {
    filled(&data::of(case, report))
}

/// Returns the page of a run with how likely its failure was all along it.
pub fn page_with_odds(case: &Case, odds: &Odds) -> String {
    let mut json = data::of(case, &odds.report);
    if let Some(fields) = json.as_object_mut() {
        fields.extend(data::of_odds(odds));
    }
    filled(&json)
}

fn filled(json: &Json) -> String {
    let json = json.to_string();
    // A text may hold the end of a script, which would end this one.
    PAGE.replace(PLACE, &json.replace("</", "<\\/"))
}
