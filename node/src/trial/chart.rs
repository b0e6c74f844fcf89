//! A small line chart as SVG.

use std::fmt::Write;

use super::page::escaped;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const MARGIN: f64 = 64.0;

/// Lines of the grid in each direction, but for the axis.
const GRID: u32 = 5;

/// Colours of the lines, in turn.
const COLOURS: [&str; 3] = ["#1b6e53", "#b5651d", "#4a5fa5"];

/// A chart with axes that begin at zero, unless it is told otherwise.
#[derive(Debug, Clone, Default)]
pub struct Chart {
    /// What stands above it.
    pub title: String,
    /// What goes from left to right.
    pub x: String,
    /// What goes upwards.
    pub y: String,
    /// Where the axis from left to right begins and ends; from zero to the greatest point if not.
    pub x_axis: Option<(f64, f64)>,
    /// The lines: a name, and points from left to right.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

impl Chart {
    /// Returns the chart as the text of an SVG file.
    pub fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let greatest = points().map(|point| point.0).fold(0.0, f64::max);
        let (x_min, x_max) = self.x_axis.unwrap_or_else(|| (0.0, nice(greatest)));
        let y_max = nice(points().map(|point| point.1).fold(0.0, f64::max));
        let x_of = |x: f64| MARGIN + (x - x_min) / (x_max - x_min) * (WIDTH - 2.0 * MARGIN);
        let y_of = |y: f64| HEIGHT - MARGIN - y / y_max * (HEIGHT - 2.0 * MARGIN);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        push_text(&mut svg, (WIDTH / 2.0, MARGIN / 2.0), "middle", &self.title);
        push_text(&mut svg, (WIDTH / 2.0, HEIGHT - MARGIN / 4.0), "middle", &self.x);
        push_text(&mut svg, (MARGIN / 4.0, MARGIN * 0.75), "start", &self.y);
        for step in 0..=GRID {
            let share = f64::from(step) / f64::from(GRID);
            let (x, y) = (x_min + share * (x_max - x_min), share * y_max);
            push_line(&mut svg, (x_of(x_min), y_of(y)), (x_of(x_max), y_of(y)));
            push_text(&mut svg, (x_of(x_min) - 6.0, y_of(y) + 4.0), "end", &short(y));
            push_text(&mut svg, (x_of(x), y_of(0.0) + 18.0), "middle", &short(x));
        }
        for (colour, (_, points)) in COLOURS.iter().cycle().zip(&self.lines) {
            let place = |(x, y): &(f64, f64)| format!("{:.1},{:.1}", x_of(*x), y_of(*y));
            let path: Vec<String> = points.iter().map(place).collect();
            push(
                &mut svg,
                &format!(
                    "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
                     points=\"{}\"/>\n",
                    path.join(" ")
                ),
            );
        }
        push(&mut svg, &self.legend());
        svg + "</svg>\n"
    }

    /// Returns the names of the lines in their colours, above the grid, where no line comes.
    fn legend(&self) -> String {
        let names = COLOURS.iter().cycle().zip(&self.lines).map(|(colour, (name, _))| {
            format!("<tspan dx=\"14\" fill=\"{colour}\">{}</tspan>", escaped(name))
        });
        let (right, above) = (WIDTH - MARGIN, MARGIN * 0.75);
        let names = names.collect::<String>();
        format!("<text x=\"{right:.1}\" y=\"{above:.1}\" text-anchor=\"end\">{names}</text>\n")
    }
}

fn push(svg: &mut String, text: &str) {
    svg.push_str(text);
}

fn push_text(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let text = escaped(text);
    // Writing to a string does not fail.
    _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

fn push_line(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#ddd\"/>"
    );
}

/// Returns a round number that is not less.
fn nice(value: f64) -> f64 {
    let mut unit = 1.0;
    while unit * 10.0 < value {
        unit *= 10.0;
    }
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * unit);
    steps.into_iter().find(|step| *step >= value).unwrap_or(value)
}

/// Returns a number as few characters show it.
fn short(value: f64) -> String {
    if value >= 1e6 {
        format!("{} M", value / 1e6)
    } else if value >= 1e3 {
        format!("{} k", value / 1e3)
    } else {
        format!("{value}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greatest_point_lies_in_the_corner_of_the_grid() {
        let line = ("a < b".to_owned(), vec![(0.0, 0.0), (10.0, 200.0)]);
        let svg = Chart { lines: vec![line], ..Chart::default() }.svg();
        assert!(svg.contains("points=\"64.0,296.0 656.0,64.0\""), "{svg}");
        assert!(svg.contains("a &lt; b"), "{svg}");
    }

    #[test]
    fn axis_can_begin_before_zero() {
        let line = ("a".to_owned(), vec![(-2.5, 0.0), (10.0, 100.0)]);
        let x_axis = Some((-2.5, 10.0));
        let svg = Chart { lines: vec![line], x_axis, ..Chart::default() }.svg();
        assert!(svg.contains("points=\"64.0,296.0 656.0,64.0\""), "{svg}");
        assert!(svg.contains("text-anchor=\"middle\">-2.5</text>"), "{svg}");
    }

    #[test]
    fn axes_end_at_round_numbers() {
        let ends = [0.0, 1.0, 3.0, 40.0, 1_000_001.0].map(nice);
        assert_eq!(ends.map(short), ["1", "1", "5", "50", "2 M"]);
    }
}
