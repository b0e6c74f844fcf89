//! The last moments of a run as one SVG picture, to be pasted into a ticket.

use std::fmt::Write as _;
use std::time::Duration;

use mangrove::trial::page::escaped;

use super::data::{Arrow, Band, Bar, Drawing};
use crate::case::Case;
use crate::run::Report;

/// Most messages in the picture.
const ARROWS_MAX: usize = 40;

/// Longest time in the picture, in nanoseconds.
const SPAN_MAX: u64 = 400_000_000;

const WIDTH: u32 = 1000;
const LEFT: u32 = 70;
const ROW: u32 = 64;
const TOP: u32 = 54;

/// Draws what happened last before the promise broke, or before the end.
pub fn last_moments(case: &Case, report: &Report) -> String {
    let drawing = Drawing::new(case, report);
    let until = drawing.bad().unwrap_or(drawing.end);
    let arrows: Vec<Arrow> = drawing.arrows();
    let mut last: Vec<&Arrow> =
        arrows.iter().filter(|arrow| arrow.at <= until && arrow.at + SPAN_MAX >= until).collect();
    last.drain(..last.len().saturating_sub(ARROWS_MAX));
    let from = last.first().map_or(until.saturating_sub(SPAN_MAX), |arrow| arrow.at);
    let frame = Frame { from, until, span: (until - from).max(1_000_000) * 21 / 20 };
    let rows = u32::try_from(drawing.lanes.len()).unwrap_or(1);
    let height = TOP + rows * ROW;
    let title = report.violation.as_ref().map_or("no promise broken", |found| found.checker);
    let mut text = frame.head(height, &format!("{title}, seed {}", case.options.seed));
    drawing.bands().iter().for_each(|band| text.push_str(&frame.band(band)));
    for (lane, name) in drawing.lanes.iter().enumerate() {
        text.push_str(&frame.lane(lane, name));
    }
    for arrow in last {
        text.push_str(&frame.arrow(arrow));
    }
    drawing.bars().iter().for_each(|bar| text.push_str(&frame.bar(bar)));
    let x = frame.x(until);
    // Writing to a string cannot fail.
    writeln!(
        text,
        "<line x1=\"{x:.1}\" y1=\"34\" x2=\"{x:.1}\" y2=\"{height}\" stroke=\"#c8322b\" \
         stroke-width=\"2\" stroke-dasharray=\"5 4\"/>\n</svg>"
    )
    .ok();
    text
}

/// The time that the picture shows.
struct Frame {
    from: u64,
    until: u64,
    span: u64,
}

impl Frame {
    fn head(&self, height: u32, title: &str) -> String {
        let seconds = Duration::from_nanos(self.until).as_secs_f64();
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fbfaf7\"/>\n\
             <text x=\"16\" y=\"24\" font-size=\"15\" font-weight=\"700\" fill=\"#1d2433\">{} at \
             {seconds:.6} s</text>\n",
            escaped(title)
        )
    }

    fn lane(&self, lane: usize, name: &str) -> String {
        let y = row(lane);
        let time = if lane == 0 {
            let span = Duration::from_nanos(self.until - self.from);
            format!("<text x=\"{LEFT}\" y=\"44\" fill=\"#5d6779\">the last {span:.1?}</text>")
        } else {
            String::new()
        };
        format!(
            "{time}<text x=\"16\" y=\"{:.1}\" font-weight=\"700\" fill=\"#1d2433\">{}</text><line \
             x1=\"{LEFT}\" y1=\"{y}\" x2=\"{WIDTH}\" y2=\"{y}\" stroke=\"#dfe2e8\"/>\n",
            y + 4.0,
            escaped(name)
        )
    }

    fn band(&self, band: &Band) -> String {
        let is_seen = band.till >= self.from && band.at <= self.until;
        let Some(lane) = band.lane.filter(|_| is_seen) else { return String::new() };
        let (low, high, top) = (self.x(band.at), self.x(band.till), row(lane) - 26.0);
        format!(
            "<rect x=\"{low:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"52\" fill=\"#b4507a\" \
             fill-opacity=\".14\"/><text x=\"{:.1}\" y=\"{:.1}\" font-size=\"10\" \
             fill=\"#8a3a5c\">{}</text>\n",
            (high - low).max(1.0),
            low + 4.0,
            top + 11.0,
            escaped(&band.text)
        )
    }

    fn bar(&self, bar: &Bar) -> String {
        if bar.till < self.from || bar.at > self.until {
            return String::new();
        }
        let (low, high, y) = (self.x(bar.at), self.x(bar.till), row(bar.lane) - 9.0);
        let colour = match (bar.is_bad, bar.outcome) {
            (true, _) => "#c8322b",
            (false, "ok") => "#2f8f5b",
            (false, "fail") => "#8a93a3",
            (false, _) => "#d18b16",
        };
        format!(
            "<rect x=\"{low:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"18\" rx=\"3\" \
             fill=\"{colour}\"><title>{}</title></rect>\n",
            (high - low).max(3.0),
            escaped(&format!("{} {}", bar.id, bar.text))
        )
    }

    fn x(&self, at: u64) -> f64 {
        let since = Duration::from_nanos(at.saturating_sub(self.from)).as_secs_f64();
        let span = Duration::from_nanos(self.span).as_secs_f64();
        let share = (since / span).clamp(0.0, 1.0);
        f64::from(LEFT) + share * f64::from(WIDTH - LEFT)
    }

    fn arrow(&self, arrow: &Arrow) -> String {
        let (x1, y1, y2) = (self.x(arrow.at), row(arrow.from), row(arrow.to));
        let (x2, y2, dash) = match arrow.till {
            Some(till) => (self.x(till), y2, ""),
            None => {
                (x1 + 6.0, y1 + if y2 > y1 { 16.0 } else { -16.0 }, " stroke-dasharray=\"3 2\"")
            }
        };
        format!(
            "<g stroke=\"#2f6f9f\" fill=\"#2f6f9f\"><line x1=\"{x1:.1}\" y1=\"{y1}\" \
             x2=\"{x2:.1}\" y2=\"{y2}\"{dash}/><circle cx=\"{x2:.1}\" cy=\"{y2}\" r=\"2.5\"/>\
             <title>{}</title></g>\n",
            escaped(&arrow.text)
        )
    }
}

fn row(lane: usize) -> f64 {
    f64::from(TOP + u32::try_from(lane).unwrap_or(0) * ROW) + f64::from(ROW) / 2.0
}
