//! Draws SVG pictures with a logarithmic axis, on a white ground. Knows nothing of what it draws.

use crate::common::median;
use std::fmt::Write;

/// A name, and one or more dots on the axis. A dot is the median of its values, with a line from the least to the most.
pub struct Row {
    pub label: String,
    pub peer: String,
    pub dots: Vec<Vec<f64>>,
}

/// The values of a peer at some places.
pub struct Line {
    pub peer: String,
    pub points: Vec<(f64, Vec<f64>)>,
}

const WIDTH: f64 = 800.0;
const LEFT: f64 = 160.0;
const RIGHT: f64 = 110.0;
const TOP: f64 = 50.0;
/// Colours that differ also for the colour-blind (Okabe and Ito). A peer keeps its colour in all pictures.
const COLOURS: [(&str, &str); 6] = [
    ("ours", "#0072b2"),
    ("floor", "#888888"),
    ("async", "#e69f00"),
    ("node", "#009e73"),
    ("river", "#d55e00"),
    ("procrastinate", "#cc79a7"),
];

fn colour(peer: &str) -> &'static str {
    COLOURS.iter().find(|(name, _)| *name == peer).map_or("#000000", |(_, colour)| colour)
}

/// A logarithmic axis.
struct Axis {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// Ends at powers of ten.
    fn around(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let values = values.filter(|value| value.is_finite());
        let (least, most) = values.fold((f64::MAX, 0.0), |(least, most), value| (value.min(least), value.max(most)));
        let least = 10f64.powf(least.log10().floor());
        Self { least, most: 10f64.powf(most.log10().ceil()).max(least * 10.0), from, to }
    }

    /// An infinite value is drawn at the end.
    fn at(&self, value: f64) -> f64 {
        self.from
            + (value.min(self.most) / self.least).log10() / (self.most / self.least).log10() * (self.to - self.from)
    }

    /// The lines of the grid: 1, 2 and 5 of each power of ten.
    fn marks(&self) -> Vec<f64> {
        let powers = (self.most / self.least).log10().round() as i32;
        let steps: &[f64] = if powers < 4 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let marks = (0..=powers).flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
        marks.map(|mark| mark * self.least).filter(|mark| *mark <= self.most * 1.001).collect()
    }
}

/// Draws a row for each entry, with its numbers at the right.
pub fn rows(title: &str, rows: &[Row]) -> String {
    let height = TOP + rows.len() as f64 * 24.0 + 40.0;
    let axis = Axis::around(rows.iter().flat_map(|row| row.dots.iter().flatten().copied()), LEFT, WIDTH - RIGHT);
    let mut body = String::new();
    for mark in axis.marks() {
        let x = axis.at(mark);
        let _ = write!(body, "{}", rule(x, TOP, x, height - 34.0));
        let _ = write!(body, "{}", text(x, height - 16.0, "middle", "#555555", &number(mark)));
    }
    for (place, row) in rows.iter().enumerate() {
        let (y, colour) = (TOP + 14.0 + place as f64 * 24.0, colour(&row.peer));
        let _ = write!(body, "{}", text(LEFT - 10.0, y + 4.0, "end", "#222222", &row.label));
        for (dot, values) in row.dots.iter().enumerate() {
            let (least, most) = ends(values);
            let fill = if dot == 0 { colour } else { "#ffffff" };
            let (from, to, x) = (axis.at(least), axis.at(most), axis.at(median(values.clone())));
            let _ = write!(body, r#"<path d="M{from:.1} {y:.1}H{to:.1}" stroke="{colour}" stroke-width="2"/>"#);
            let _ = write!(
                body,
                r#"<circle cx="{x:.1}" cy="{y:.1}" r="5" fill="{fill}" stroke="{colour}" stroke-width="2"/>"#
            );
        }
        let medians: Vec<String> = row.dots.iter().map(|values| number(median(values.clone()))).collect();
        let _ = write!(body, "{}", text(WIDTH - 12.0, y + 4.0, "end", "#222222", &medians.join(" / ")));
    }
    picture(title, height, &body)
}

/// Draws a line for each peer. The places are equally far apart if `is_even`, else as their numbers are.
pub fn lines(title: &str, places: &str, is_even: bool, lines: &[Line]) -> String {
    let (height, left) = (440.0, 70.0);
    let (bottom, right) = (height - 60.0, WIDTH - RIGHT - 10.0);
    let axis = Axis::around(
        lines.iter().flat_map(|line| line.points.iter().flat_map(|(_, values)| values).copied()),
        bottom,
        TOP,
    );
    let mut all: Vec<f64> = lines.iter().flat_map(|line| line.points.iter().map(|(place, _)| *place)).collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    let share = |place: f64| match is_even {
        true => all.iter().position(|other| *other == place).unwrap_or(0) as f64 / (all.len() - 1).max(1) as f64,
        false => place / all.last().copied().unwrap_or(1.0).max(1.0),
    };
    let x = |place: f64| left + 10.0 + share(place) * (right - left - 20.0);
    let mut body = String::new();
    for mark in axis.marks() {
        let y = axis.at(mark);
        let _ = write!(body, "{}", rule(left, y, right, y));
        let _ = write!(body, "{}", text(left - 8.0, y + 4.0, "end", "#555555", &number(mark)));
    }
    let most = all.last().copied().unwrap_or(1.0);
    let marks: Vec<f64> =
        if is_even { all.clone() } else { (0..=5).map(|fifth| most * f64::from(fifth) / 5.0).collect() };
    for mark in marks {
        let _ = write!(body, "{}", text(x(mark), bottom + 20.0, "middle", "#555555", &number(mark)));
    }
    let _ = write!(body, "{}", text((left + right) / 2.0, height - 14.0, "middle", "#555555", places));
    let mut names: Vec<(f64, &str)> = Vec::new();
    for line in lines {
        let colour = colour(&line.peer);
        let points: Vec<(f64, f64)> =
            line.points.iter().map(|(place, values)| (x(*place), axis.at(median(values.clone())))).collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let _ = write!(body, r#"<path d="M{}" fill="none" stroke="{colour}" stroke-width="2"/>"#, path.join("L"));
        for ((place, values), (cx, cy)) in line.points.iter().zip(&points) {
            let (least, most) = ends(values);
            let (from, to, x) = (axis.at(least), axis.at(most), x(*place));
            let _ = write!(body, r#"<path d="M{x:.1} {from:.1}V{to:.1}" stroke="{colour}" stroke-width="2"/>"#);
            let _ = write!(body, r#"<circle cx="{cx:.1}" cy="{cy:.1}" r="3.5" fill="{colour}"/>"#);
        }
        names.extend(points.last().map(|(_, y)| (*y, &*line.peer)));
    }
    // The names stand at the ends of their lines, moved apart.
    names.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut above = f64::MIN;
    for (y, peer) in names {
        above = y.max(above + 16.0);
        let _ = write!(body, "{}", text(right + 8.0, above + 4.0, "start", colour(peer), peer));
    }
    picture(title, height, &body)
}

fn picture(title: &str, height: f64, body: &str) -> String {
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" font-size="13">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="20" y="28" font-size="16" font-weight="600" fill="#222222">{title}</text>
{body}
</svg>
"##
    )
}

fn text(x: f64, y: f64, anchor: &str, colour: &str, text: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{text}</text>\n")
}

fn rule(x1: f64, y1: f64, x2: f64, y2: f64) -> String {
    format!("<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" stroke=\"#dddddd\"/>\n")
}

fn ends(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::MAX, f64::MIN), |(least, most), value| (value.min(least), value.max(most)))
}

/// Returns a number as people read it: 0.25, 3.1, 850, 12,500.
fn number(value: f64) -> String {
    let digits = if value.fract() < 0.001 || value >= 10.0 { 0 } else { 1 + usize::from(value < 1.0) };
    let text = format!("{value:.digits$}");
    let (whole, rest) =
        text.split_once('.').map_or((&*text, String::new()), |(whole, rest)| (whole, format!(".{rest}")));
    let groups: Vec<&str> =
        whole.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits")).collect();
    groups.join(",") + &rest
}
