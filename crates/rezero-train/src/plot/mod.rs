//! Every figure of the project: one style, SVG by plotters and, with feature `png`, PNG by resvg.
//!
//! The colours are Okabe and Ito's palette, which people with any kind of colour vision can tell
//! apart. Text, lines and background have one colour each. A style sheet inside the file inverts
//! these colours if the reader's system is dark.

mod grid;
#[cfg(feature = "png")]
mod png;
mod text;

use std::ops::Range;
use std::path::Path;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub use grid::{Grid, Tile};
#[cfg(feature = "png")]
pub use png::png;
pub use text::{cell, number, quoted};

use crate::error::Result;
use crate::record::write_atomic;
use crate::words::in_lines;

/// Writes a figure into `dir` as `NAME.svg` and, with feature `png`, as `NAME.png`.
///
/// # Errors
///
/// If a file cannot be written.
pub fn write(dir: &Path, name: &str, svg: &str) -> Result<()> {
    write_atomic(&dir.join(format!("{name}.svg")), svg.as_bytes())?;
    #[cfg(feature = "png")]
    write_atomic(&dir.join(format!("{name}.png")), &png(svg, &[]))?;
    Ok(())
}

const SIZE: (u32, u32) = (760, 420);
/// The width of the legend, to the right of the axes.
const LEGEND: u32 = 200;

const INK: RGBColor = RGBColor(0x1b, 0x1b, 0x1f);
const GRID: RGBColor = RGBColor(0xdf, 0xdf, 0xe3);
const PAPER: RGBColor = RGBColor(0xff, 0xff, 0xfe);
const DARK: &str = "<style>@media (prefers-color-scheme: dark) {\
    [fill=\"#1B1B1F\"] { fill: #e8e8ec } [stroke=\"#1B1B1F\"] { stroke: #e8e8ec }\
    [stroke=\"#DFDFE3\"] { stroke: #3a3a42 } [fill=\"#DFDFE3\"] { fill: #3a3a42 }\
    [fill=\"#FFFFFE\"] { fill: #17171b } [stroke=\"#FFFFFE\"] { stroke: #17171b }\
    }</style>";

/// Okabe and Ito, *Color Universal Design*, 2008, without black and yellow, plus a grey.
const SERIES: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x8a, 0x8a, 0x8a),
];

/// How an axis places its values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Linearly.
    #[default]
    Linear,
    /// Linearly, with labels at whole numbers alone: of what is counted.
    Whole,
    /// By their logarithm; values that are not above 0 are left out.
    Log,
}

/// An axis: its quantity and its scale.
#[derive(Clone, Debug, Default)]
pub struct Axis {
    /// The quantity and its unit.
    pub label: String,
    /// How values are placed.
    pub scale: Scale,
}

/// One line of a [`Lines`].
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points by rising x.
    pub points: Vec<(f64, f64)>,
    /// `(x, low, high)` of a band around it, or empty.
    pub band: Vec<(f64, f64, f64)>,
    /// The x of values that no axis has, such as those of runs that diverged: crosses at the upper edge.
    pub beyond: Vec<f64>,
}

/// Lines over a common axis.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    /// The title.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The lines, in the order of the legend.
    pub series: Vec<Series>,
}

/// Values of either sign over two axes, white where they are 0.
#[derive(Clone, Debug, Default)]
pub struct HeatMap {
    /// The title.
    pub title: String,
    /// The quantity of the columns, with its unit.
    pub x: String,
    /// The edges of the columns: one more than there are columns.
    pub edges: Vec<f64>,
    /// The quantity of the rows.
    pub y: String,
    /// The rows from the bottom up, one value per column.
    pub rows: Vec<Vec<f64>>,
    /// The quantity that the colour shows.
    pub value: String,
}

impl Axis {
    /// A linear axis.
    pub fn linear(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            scale: Scale::Linear,
        }
    }

    /// A linear axis of what is counted.
    pub fn whole(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            scale: Scale::Whole,
        }
    }

    /// A logarithmic axis.
    pub fn log(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            scale: Scale::Log,
        }
    }
}

impl Series {
    /// A line without a band.
    pub fn new(name: &str, points: Vec<(f64, f64)>) -> Self {
        Self {
            name: name.to_owned(),
            points,
            band: Vec::new(),
            beyond: Vec::new(),
        }
    }
}

/// The coordinates of a linear or logarithmic axis, for which plotters has two types.
#[derive(Clone)]
struct Coordinate {
    scale: Scale,
    range: Range<f64>,
}

impl Coordinate {
    fn over(scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|v| v.is_finite() && (scale != Scale::Log || *v > 0.0)) {
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            (low, high) = (1.0, 2.0);
        }
        let range = match scale {
            Scale::Linear | Scale::Whole => {
                let pad = match high - low {
                    0.0 => low.abs().max(1.0) * 0.05,
                    width => width * 0.03,
                };
                // An axis that begins at 0 stays there.
                let start = if low == 0.0 { 0.0 } else { low - pad };
                start..high + pad
            }
            Scale::Log => {
                let pad = (high / low).powf(0.03).max(1.05);
                low / pad..high * pad
            }
        };
        Self { scale, range }
    }

    fn keeps(&self, value: f64) -> bool {
        value.is_finite() && (self.scale != Scale::Log || value > 0.0)
    }

    fn place(&self, value: f64) -> f64 {
        let Range { start, end } = self.range;
        match self.scale {
            Scale::Linear | Scale::Whole => (value - start) / (end - start),
            Scale::Log => (value / start).ln() / (end / start).ln(),
        }
    }
}

impl Ranged for Coordinate {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let at = self.place(*value).clamp(-0.5, 1.5);
        from + (at * f64::from(to - from)).round() as i32
    }

    fn key_points<H: KeyPointHint>(&self, hint: H) -> Vec<f64> {
        ticks(self.scale, &self.range, hint.max_num_points())
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Coordinate {
    fn format_ext(&self, value: &f64) -> String {
        short(*value)
    }
}

/// Round values inside `range`, at most about `most`.
fn ticks(scale: Scale, range: &Range<f64>, most: usize) -> Vec<f64> {
    let most = most.clamp(2, 8) as f64;
    if scale == Scale::Log {
        let (low, high) = (range.start.log10().ceil(), range.end.log10().floor());
        if high - low >= 1.0 {
            let step = ((high - low + 1.0) / most).ceil().max(1.0);
            let count = ((high - low) / step) as usize;
            return (0..=count)
                .map(|i| 10f64.powf(low + step * i as f64))
                .collect();
        }
    }
    let width = range.end - range.start;
    let raw = width / most;
    if !(raw.is_normal() && (range.start / raw).abs() < 1e12) {
        return vec![range.start, range.end];
    }
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= raw && (scale != Scale::Whole || step.fract() == 0.0))
        .unwrap_or(raw);
    let step = match scale {
        Scale::Whole => step.max(1.0).round(),
        Scale::Linear | Scale::Log => step,
    };
    let first = (range.start / step).ceil() as i64;
    let last = (range.end / step).floor() as i64;
    (first..=last).map(|i| i as f64 * step).collect()
}

/// A number as a tick's label.
pub fn short(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 {
        return "0".to_owned();
    }
    if !(1e-3..1e6).contains(&magnitude) {
        let text = format!("{value:.1e}");
        return text.replace(".0e", "e");
    }
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn text(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// Runs `draw` on a drawing area and returns the SVG.
fn svg(
    size: (u32, u32),
    draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, plotters::coord::Shift>) -> Drawn,
) -> String {
    let mut out = String::new();
    {
        let area = SVGBackend::with_string(&mut out, size).into_drawing_area();
        area.fill(&PAPER)
            .and_then(|()| draw(&area))
            .and_then(|()| area.present())
            .expect("writing to a string does not fail");
    }
    let end = out.find('>').map_or(0, |at| at + 1);
    out.insert_str(end, DARK);
    // Labels come from runs. XML forbids most control characters, and a page obeys the others.
    in_lines(&out).into_owned()
}

type Drawn = Result<(), DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>>;

impl Lines {
    /// The figure as SVG.
    pub fn svg(&self) -> String {
        svg(SIZE, |area| {
            let (left, right) = area.split_horizontally(SIZE.0 - LEGEND);
            let points = || self.series.iter().flat_map(|s| s.points.iter().copied());
            let bands = || self.series.iter().flat_map(|s| s.band.iter().copied());
            let beyond = self.series.iter().flat_map(|s| s.beyond.iter().copied());
            let all_x = points().map(|(x, _)| x).chain(beyond);
            let x = Coordinate::over(self.x.scale, all_x);
            let y = Coordinate::over(
                self.y.scale,
                points()
                    .map(|(_, y)| y)
                    .chain(bands().flat_map(|(_, low, high)| [low, high])),
            );
            let mut chart = ChartBuilder::on(&left)
                .caption(&self.title, text(17))
                .margin(10)
                .x_label_area_size(44)
                .y_label_area_size(62)
                .build_cartesian_2d(x.clone(), y.clone())?;
            chart
                .configure_mesh()
                .axis_style(INK)
                .bold_line_style(GRID)
                .light_line_style(PAPER)
                .x_desc(&self.x.label)
                .y_desc(&self.y.label)
                .label_style(text(14))
                .axis_desc_style(text(15))
                .x_label_formatter(&|v| short(*v))
                .y_label_formatter(&|v| short(*v))
                .draw()?;
            let (mut top, mut full) = (46, false);
            for (i, series) in self.series.iter().enumerate() {
                let color = SERIES[i % SERIES.len()];
                let keeps = |vx: f64, vy: f64| x.keeps(vx) && y.keeps(vy);
                let kept: Vec<_> = series.band.iter().filter(|b| keeps(b.0, b.1)).collect();
                if !kept.is_empty() {
                    let upper = kept.iter().map(|(x, _, high)| (*x, *high));
                    let lower = kept.iter().rev().map(|(x, low, _)| (*x, *low));
                    let outline: Vec<_> = upper.chain(lower).collect();
                    chart.draw_series([Polygon::new(outline, color.mix(0.18))])?;
                }
                let style = color.stroke_width(2);
                // A gap in the line if values are left out.
                for part in series.points.split(|(px, py)| !keeps(*px, *py)) {
                    match part {
                        [] => {}
                        [point] => {
                            chart.draw_series([Circle::new(*point, 3, color.filled())])?;
                        }
                        part if i < SERIES.len() => {
                            chart.draw_series(LineSeries::new(part.iter().copied(), style))?;
                        }
                        part => {
                            let line = DashedLineSeries::new(part.iter().copied(), 6, 4, style);
                            chart.draw_series(line)?;
                        }
                    }
                }
                let crosses = series.beyond.iter().filter(|at| x.keeps(**at));
                let crosses = crosses.map(|at| Cross::new((*at, y.range.end), 6, style));
                chart.draw_series(crosses)?;
                if top > SIZE.1 as i32 - 40 && i + 1 < self.series.len() {
                    let style = text(14).pos(Pos::new(HPos::Left, VPos::Center));
                    let more = format!("and {} more", self.series.len() - i);
                    if !full {
                        right.draw(&Text::new(more, (32, top), style))?;
                    }
                    full = true;
                    continue;
                }
                right.draw(&PathElement::new(vec![(4, top), (26, top)], style))?;
                for part in wrapped(&series.name, 23) {
                    let style = text(14).pos(Pos::new(HPos::Left, VPos::Center));
                    right.draw(&Text::new(part, (32, top), style))?;
                    top += 16;
                }
                top += 8;
            }
            Ok(())
        })
    }
}

/// `name` in at most three lines of `width` characters, broken between words.
fn wrapped(name: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in name.split(' ') {
        let last = lines.last_mut().expect("there is a line");
        let length = last.chars().count() + 1 + word.chars().count();
        match last.is_empty() {
            true => last.push_str(word),
            false if length <= width => last.extend([" ", word]),
            false => lines.push(word.to_owned()),
        }
    }
    if lines.len() > 3 {
        lines.truncate(3);
        lines[2].push('…');
    }
    for line in &mut lines {
        if line.chars().count() > width + 2 {
            *line = line.chars().take(width + 1).chain(['…']).collect();
        }
    }
    lines
}

impl HeatMap {
    /// The figure as SVG.
    pub fn svg(&self) -> String {
        svg(SIZE, |area| {
            let (left, right) = area.split_horizontally(SIZE.0 - 100);
            let largest = self
                .rows
                .iter()
                .flatten()
                .filter(|v| v.is_finite())
                .fold(0.0f64, |most, v| most.max(v.abs()));
            let limit = if largest > 0.0 { largest } else { 1.0 };
            let ends = [self.edges.first(), self.edges.last()];
            let [low, high] = ends.map(|edge| edge.copied().unwrap_or_default());
            let rows = self.rows.len() as f64;
            let x = Coordinate {
                scale: Scale::Linear,
                range: low..if high > low { high } else { low + 1.0 },
            };
            let y = Coordinate {
                scale: Scale::Linear,
                range: -0.5..rows - 0.5,
            };
            let mut chart = ChartBuilder::on(&left)
                .caption(&self.title, text(17))
                .margin(10)
                .x_label_area_size(44)
                .y_label_area_size(62)
                .build_cartesian_2d(x, y)?;
            chart
                .configure_mesh()
                .disable_mesh()
                .axis_style(INK)
                .x_desc(&self.x)
                .y_desc(&self.y)
                .label_style(text(14))
                .axis_desc_style(text(15))
                // The first column may be centred at 0: no label is of a value before it.
                .x_label_formatter(&|v| match *v < 0.0 && low < 0.0 && high > 0.0 {
                    true => String::new(),
                    false => short(*v),
                })
                // Rows are counted: between two of them is none.
                .y_label_formatter(&|v| match *v >= 0.0 && v.fract() == 0.0 {
                    true => short(*v),
                    false => String::new(),
                })
                .draw()?;
            for (i, row) in self.rows.iter().enumerate() {
                let at = i as f64;
                for (edges, value) in self.edges.windows(2).zip(row) {
                    let corners = [(edges[0], at - 0.5), (edges[1], at + 0.5)];
                    let color = diverging(value / limit);
                    chart.draw_series([Rectangle::new(corners, color.filled())])?;
                }
            }
            // The colours' scale.
            let (top, height, steps) = (60, 280, 40);
            for step in 0..steps {
                let share = 1.0 - 2.0 * f64::from(step) / f64::from(steps - 1);
                let from = top + height * step / steps;
                let to = top + height * (step + 1) / steps;
                let corners = [(6, from), (24, to)];
                right.draw(&Rectangle::new(corners, diverging(share).filled()))?;
            }
            let left = text(14).pos(Pos::new(HPos::Left, VPos::Center));
            for (share, y) in [(1.0, top), (0.0, top + height / 2), (-1.0, top + height)] {
                right.draw(&Text::new(
                    short(round2(share * limit)),
                    (30, y),
                    left.clone(),
                ))?;
            }
            right.draw(&Text::new(self.value.clone(), (6, top - 20), left))
        })
    }
}

/// Two significant digits.
fn round2(value: f64) -> f64 {
    format!("{value:.1e}").parse().unwrap_or(value)
}

/// Blue below 0, white at 0, red-brown above; grey where there is no value.
fn diverging(share: f64) -> RGBColor {
    if !share.is_finite() {
        return RGBColor(0x8a, 0x8a, 0x8a);
    }
    let end: [f64; 3] = match share < 0.0 {
        true => [33.0, 102.0, 172.0],
        false => [178.0, 68.0, 20.0],
    };
    // A root, so that small values show.
    let t = share.abs().min(1.0).sqrt();
    let [r, g, b] = end.map(|c| (250.0 + (c - 250.0) * t).round() as u8);
    RGBColor(r, g, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(
            ticks(Scale::Linear, &(0.0..10.3), 6),
            [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
        );
        assert_eq!(ticks(Scale::Log, &(0.02..30.0), 6), [0.1, 1.0, 10.0]);
        for range in [0.0..1.0, -3e-5..7e-5, 1e7..1.2e7, 5.0..5.1] {
            let found = ticks(Scale::Linear, &range, 7);
            assert!((2..=9).contains(&found.len()), "{range:?}: {found:?}");
            let slack = 1e-9 * (range.end - range.start);
            assert!(
                found
                    .iter()
                    .all(|t| (range.start - slack..=range.end + slack).contains(t))
            );
        }
    }

    #[test]
    fn numbers_are_short() {
        let found = [0.0, 1.0, -2.5, 0.12345, 1e-5, 3e7, 1234.0].map(short);
        assert_eq!(found, ["0", "1", "-2.5", "0.1235", "1e-5", "3e7", "1234"]);
    }

    #[test]
    fn names_are_wrapped_between_words() {
        assert_eq!(
            wrapped("post-norm, 72 % < 1e-8", 23),
            ["post-norm, 72 % < 1e-8"]
        );
        let two = wrapped("rezero alpha_optimizer=adam lr=0.004", 23);
        assert_eq!(two, ["rezero", "alpha_optimizer=adam", "lr=0.004"]);
        let cut = wrapped("averyverylongnamewithoutanyspaceatall", 10);
        assert_eq!(cut, ["averyverylo…"]);
    }

    #[test]
    fn labels_may_have_any_character() {
        let odd: String = ('\0'..='\u{ff}')
            .chain("\u{202e}\u{fffe}\u{ffff}]]>".chars())
            .collect();
        let lines = Lines {
            title: odd.clone(),
            x: Axis::linear(&odd),
            y: Axis::log(&odd),
            series: vec![Series::new(&odd, vec![(0.0, 1.0), (1.0, 2.0)])],
        };
        let map = HeatMap {
            title: odd.clone(),
            x: odd.clone(),
            edges: vec![0.0, 1.0],
            y: odd.clone(),
            rows: vec![vec![1.0]],
            value: odd,
        };
        for svg in [lines.svg(), map.svg()] {
            let is_plain = |c: char| matches!(c, '\t' | '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}');
            assert_eq!(svg.chars().find(|c| !is_plain(*c)), None);
            assert!(!svg.contains(['\u{ad}', '\u{202e}']) && svg.contains(r"\u{1b}"));
            #[cfg(feature = "png")]
            assert!(png(&svg, &[]).starts_with(b"\x89PNG"));
        }
    }

    #[test]
    fn figures_survive_odd_values() {
        let series = |points| Series::new("a", points);
        for points in [
            vec![],
            vec![(1.0, 2.0)],
            vec![(0.0, f64::NAN), (1.0, 1.0), (2.0, f64::INFINITY)],
            vec![(0.0, 0.0), (0.0, 0.0)],
            vec![(1.0, -1.0), (2.0, 1e300)],
        ] {
            for y in [Axis::linear("y"), Axis::log("y")] {
                let lines = Lines {
                    title: "t".to_owned(),
                    x: Axis::linear("x"),
                    y,
                    series: vec![series(points.clone())],
                };
                assert!(lines.svg().ends_with("</svg>\n"));
            }
        }
        let map = HeatMap {
            edges: vec![0.0, 1.0, 2.0],
            rows: vec![vec![0.0, f64::NAN], vec![-1.0, 0.5]],
            ..HeatMap::default()
        };
        assert!(map.svg().ends_with("</svg>\n"));
        #[cfg(feature = "png")]
        assert!(png(&map.svg(), &[]).starts_with(b"\x89PNG"));
        assert!(HeatMap::default().svg().ends_with("</svg>\n"));
    }
}
