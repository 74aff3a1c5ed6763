//! The figures of a report.

use super::{Group, Report, RunData, result};
use crate::lens;
use crate::plot::{Axis, HeatMap, Lines, Scale, Series};
use crate::record::Row;

/// The most points per line, and the most columns and rows per heat map.
const POINTS: usize = 200;
const COLUMNS: usize = 60;
const ROWS: usize = 128;
/// An axis is logarithmic if the ratio of the largest to the smallest value is above this.
const SPREAD: f64 = 30.0;

/// A figure of a report.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The name of its files.
    pub name: String,
    /// What it shows, in a sentence.
    pub caption: String,
    /// The drawing.
    pub svg: String,
}

/// All figures that the runs have data for.
pub fn figures(report: &Report) -> Vec<Figure> {
    let mut found = Vec::new();
    let step = |row: &Row| row.step as f64;
    let seconds = |row: &Row| row.seconds;
    let loss = |row: &Row| row.loss;
    let task = report.task.clone();
    let score = move |row: &Row| result(row, &task);
    let over = "mean over seeds as far as all runs of an arm go, the band one standard error";
    let mut curve = |name: &str,
                     split: &str,
                     x: (&str, &dyn Fn(&Row) -> f64),
                     y: (&str, &dyn Fn(&Row) -> f64)| {
        let series: Vec<Series> = report
            .groups
            .iter()
            .map(|group| mean_curve(group, split, x.1, y.1))
            .collect();
        if series.iter().all(|s| s.points.is_empty()) {
            return;
        }
        let scale = scale_of(series.iter().flat_map(|s| s.points.iter().map(|p| p.1)));
        let lines = Lines {
            title: format!("{}: {}", report.title, y.0),
            x: Axis::linear(x.0),
            y: Axis {
                label: y.0.to_owned(),
                scale,
            },
            series,
        };
        found.push(Figure {
            name: name.to_owned(),
            caption: format!("{} by {}; {over}.", capital(y.0), x.0),
            svg: lines.svg(),
        });
    };
    let steps = ("optimizer steps", &step as &dyn Fn(&Row) -> f64);
    let time = ("wall time (s)", &seconds as &dyn Fn(&Row) -> f64);
    let nats = match report.task.loss_unit.as_str() {
        "" => "training loss".to_owned(),
        unit => format!("training loss ({unit})"),
    };
    let training = (nats.as_str(), &loss as &dyn Fn(&Row) -> f64);
    let label = match report.task.sign.trim() {
        "%" => format!("validation {}", report.measure()),
        _ => format!("validation ({})", report.measure()),
    };
    let validation = (label.as_str(), &score as &dyn Fn(&Row) -> f64);
    curve("loss-by-step", "train", steps, training);
    curve("loss-by-second", "train", time, training);
    curve("validation-by-step", "valid", steps, validation);
    curve("validation-by-second", "valid", time, validation);

    let gated = || {
        report
            .groups
            .iter()
            .filter(|g| trained(&g.runs[0]).any(|r| !r.alpha.is_empty()))
    };
    for (i, group) in gated().enumerate() {
        found.push(Figure {
            name: format!("alpha-over-time-{}", i + 1),
            caption: format!(
                "Every gate of {} (seed {}) over the run; rows are layers in forward order, the first \
                 at the bottom.",
                group.label, group.runs[0].seed
            ),
            svg: alphas_over_time(group).svg(),
        });
    }
    let depth: Vec<Series> = gated()
        .map(|group| by_depth(group, |row| row.alpha.iter().map(|a| a.abs()).collect()))
        .collect();
    if !depth.is_empty() {
        found.push(Figure {
            name: "alpha-by-depth".to_owned(),
            caption: format!("Magnitude of the gates at the end by layer; {over}."),
            svg: Lines {
                title: format!("{}: |α| at the end", report.title),
                x: Axis::linear("layer, 0 next to the input"),
                y: Axis::linear("|α|"),
                series: depth,
            }
            .svg(),
        });
    }
    let norms: Vec<Series> = report
        .groups
        .iter()
        .map(|group| by_depth(group, |row| row.layer_grad_norm.clone()))
        .filter(|series| !series.points.is_empty())
        .collect();
    if !norms.is_empty() {
        found.push(Figure {
            name: "gradient-by-layer".to_owned(),
            caption: format!(
                "L2 norm of each layer's gradients, before clipping, at the last step that was logged; \
                 {over}."
            ),
            svg: Lines {
                title: format!("{}: gradient norm by layer", report.title),
                x: Axis::linear("layer, 0 next to the input"),
                y: Axis::log("gradient norm"),
                series: norms,
            }
            .svg(),
        });
    }
    for when in ["start", "end"] {
        let records: Vec<lens::Record> = report
            .groups
            .iter()
            .filter_map(|group| {
                let run = group.runs.iter().find(|run| !run.jacobians.is_empty())?;
                let of = |r: &&lens::Record| (r.name == "start") == (when == "start");
                let mut record = run.jacobians.iter().find(of)?.clone();
                record.name.clone_from(&group.label);
                Some(record)
            })
            .collect();
        if !records.is_empty() {
            let title = format!("{}: Jacobian at the {when}", report.title);
            let refs: Vec<_> = records.iter().collect();
            found.push(Figure {
                name: format!("jacobian-{when}"),
                caption: format!(
                    "Singular values of the input–output Jacobian at the {when} of the first run of \
                     each arm that has them."
                ),
                svg: lens::figure(&title, &refs).svg(),
            });
        }
    }
    found
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

fn scale_of(values: impl Iterator<Item = f64>) -> Scale {
    let (mut low, mut high) = (f64::INFINITY, 0.0f64);
    for value in values.filter(|v| v.is_finite()) {
        low = low.min(value);
        high = high.max(value);
    }
    match low > 0.0 && high / low > SPREAD {
        true => Scale::Log,
        false => Scale::Linear,
    }
}

fn trained(run: &RunData) -> impl Iterator<Item = &Row> {
    run.rows.iter().filter(|row| row.split == "train")
}

/// The mean over a group's runs, at the steps that all of its runs have. In a long curve, each
/// point is the mean of neighbours.
pub(super) fn mean_curve(
    group: &Group,
    split: &str,
    x: &dyn Fn(&Row) -> f64,
    y: &dyn Fn(&Row) -> f64,
) -> Series {
    let runs: Vec<Vec<&Row>> = group
        .runs
        .iter()
        .map(|run| run.rows.iter().filter(|row| row.split == split).collect())
        .collect();
    let n = runs.len() as f64;
    let mut points: Vec<(f64, f64, f64)> = Vec::new();
    for row in runs.first().into_iter().flatten() {
        let same: Option<Vec<&Row>> = runs
            .iter()
            .map(|rows| {
                let at = rows.binary_search_by_key(&row.step, |r| r.step).ok()?;
                Some(rows[at])
            })
            .collect();
        let Some(same) = same else { continue };
        let mean = |of: &dyn Fn(&Row) -> f64| same.iter().map(|r| of(r)).sum::<f64>() / n;
        let (at, value) = (mean(x), mean(y));
        let squares: f64 = same.iter().map(|r| (y(r) - value).powi(2)).sum();
        let error = match same.len() {
            1 => 0.0,
            _ => (squares / (n - 1.0) / n).sqrt(),
        };
        points.push((at, value, error));
    }
    let width = points.len().div_ceil(POINTS).max(1);
    let points: Vec<(f64, f64, f64)> = points
        .chunks(width)
        .map(|part| {
            let mean = |of: fn(&(f64, f64, f64)) -> f64| {
                part.iter().map(of).sum::<f64>() / part.len() as f64
            };
            (mean(|p| p.0), mean(|p| p.1), mean(|p| p.2))
        })
        .collect();
    Series {
        name: group.label.clone(),
        band: match group.runs.len() {
            1 => Vec::new(),
            _ => points.iter().map(|(x, y, e)| (*x, y - e, y + e)).collect(),
        },
        points: points.into_iter().map(|(x, y, _)| (x, y)).collect(),
    }
}

/// Values by layer in the last training row, mean over seeds.
fn by_depth(group: &Group, of: impl Fn(&Row) -> Vec<f32>) -> Series {
    let lasts: Vec<Vec<f32>> = group
        .runs
        .iter()
        .filter_map(|run| trained(run).last().map(&of))
        .collect();
    let layers = lasts.iter().map(Vec::len).min().unwrap_or(0);
    let width = layers.div_ceil(POINTS).max(1);
    let (mut points, mut band) = (Vec::new(), Vec::new());
    for first in (0..layers).step_by(width) {
        let range = first..layers.min(first + width);
        let values: Vec<f64> = lasts
            .iter()
            .map(|v| {
                let part = &v[range.clone()];
                part.iter().map(|v| f64::from(*v)).sum::<f64>() / part.len() as f64
            })
            .collect();
        let Some(mean) = super::Mean::of(&values) else {
            continue;
        };
        let at = (range.start + range.end - 1) as f64 / 2.0;
        points.push((at, mean.mean));
        if let Some(error) = mean.error {
            band.push((at, mean.mean - error, mean.mean + error));
        }
    }
    Series {
        name: group.label.clone(),
        points,
        band,
    }
}

fn alphas_over_time(group: &Group) -> HeatMap {
    let rows: Vec<&Row> = trained(&group.runs[0])
        .filter(|r| !r.alpha.is_empty())
        .collect();
    let gates = rows.first().map_or(0, |row| row.alpha.len());
    let wide = rows.len().div_ceil(COLUMNS).max(1);
    let high = gates.div_ceil(ROWS).max(1);
    let columns: Vec<&[&Row]> = rows.chunks(wide).collect();
    let mut edges = vec![0.0];
    edges.extend(
        columns
            .iter()
            .filter_map(|c| c.last())
            .map(|row| row.step as f64),
    );
    let values = (0..gates)
        .step_by(high)
        .map(|first| {
            let range = first..gates.min(first + high);
            columns
                .iter()
                .map(|column| {
                    let all = column.iter().flat_map(|row| row.alpha.get(range.clone()));
                    let all: Vec<f64> = all.flatten().map(|a| f64::from(*a)).collect();
                    all.iter().sum::<f64>() / all.len() as f64
                })
                .collect()
        })
        .collect();
    HeatMap {
        title: format!("α over the run: {}", group.label),
        x: "optimizer steps".to_owned(),
        edges,
        y: match high {
            1 => "gate, 0 next to the input".to_owned(),
            n => format!("gate / {n}, 0 next to the input"),
        },
        rows: values,
        value: "α".to_owned(),
    }
}
