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
    let tuning = report.tuning.as_ref();
    let mut found: Vec<Figure> = tuning.and_then(|t| t.figure(report)).into_iter().collect();
    let step = |row: &Row| row.step as f64;
    let seconds = |row: &Row| row.seconds;
    let loss = |row: &Row| row.loss;
    let task = report.task.clone();
    let score = move |row: &Row| result(row, &task);
    let over = over(report);
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
            caption: format!("{} by {}{over}.", capital(y.0), x.0),
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
            .filter(|g| trained(shown(g)[0]).any(|r| !r.alpha.is_empty()))
    };
    for (i, group) in gated().enumerate() {
        let run = shown(group)[0];
        let first = match run.alpha_init {
            Some(_) => ", the first column is step 0",
            None => "",
        };
        found.push(Figure {
            name: format!("alpha-over-time-{}", i + 1),
            caption: format!(
                "Every gate of {} (seed {}) over the run; rows are layers in forward order, the first \
                 at the bottom{first}.",
                group.label, run.seed
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
            caption: format!("Magnitude of the gates at the end by layer{over}."),
            svg: Lines {
                title: format!("{}: |α| at the end", report.title),
                x: Axis::whole("layer, 0 next to the input"),
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
                "L2 norm of each layer's gradients, before clipping, at the last step that was \
                 logged{over}."
            ),
            svg: Lines {
                title: format!("{}: gradient norm by layer", report.title),
                x: Axis::whole("layer, 0 next to the input"),
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
                    "Singular values of the {} at the {when} of the first run of each arm that has \
                     them.",
                    lens::of(&refs)
                ),
                svg: lens::figure(&title, &refs).svg(),
            });
        }
    }
    found
}

/// The part of a caption that says over which runs a mean is.
fn over(report: &Report) -> String {
    let mut text = String::new();
    if report.groups.iter().any(|group| shown(group).len() > 1) {
        text.push_str(
            "; mean over seeds as far as all runs of an arm go, the band one standard error",
        );
    }
    let omits = |group: &Group| shown(group).len() < group.runs.len();
    if report.groups.iter().any(omits) {
        text.push_str("; runs that diverged are left out where others of the arm did not");
    }
    text
}

/// The runs of an arm that figures show: those that did not diverge, or all if all did.
fn shown(group: &Group) -> Vec<&RunData> {
    let sound: Vec<&RunData> = group.runs.iter().filter(|run| !run.diverged).collect();
    match sound.is_empty() {
        true => group.runs.iter().collect(),
        false => sound,
    }
}

/// The name of an arm in a legend.
fn name(group: &Group) -> String {
    let all = group.runs.len();
    match group.runs.iter().filter(|run| run.diverged).count() {
        0 => group.label.clone(),
        n if n == all => format!("{}, diverged", group.label),
        n => format!("{}, {n} of {all} diverged", group.label),
    }
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

/// The training rows of a run. The row at which it diverged is none: it has no gates to show.
fn trained(run: &RunData) -> impl Iterator<Item = &Row> {
    let rows = run.rows.iter();
    rows.filter(|row| row.split == "train" && row.is_finite())
}

/// The mean over the runs of a group that figures show, at the steps that all of these have. In a
/// long curve, each point is the mean of neighbours.
pub(super) fn mean_curve(
    group: &Group,
    split: &str,
    x: &dyn Fn(&Row) -> f64,
    y: &dyn Fn(&Row) -> f64,
) -> Series {
    let runs: Vec<Vec<&Row>> = shown(group)
        .into_iter()
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
        name: name(group),
        band: match runs.len() {
            1 => Vec::new(),
            _ => points.iter().map(|(x, y, e)| (*x, y - e, y + e)).collect(),
        },
        beyond: Vec::new(),
        points: points.into_iter().map(|(x, y, _)| (x, y)).collect(),
    }
}

/// Values by layer in the last training row, mean over seeds.
fn by_depth(group: &Group, of: impl Fn(&Row) -> Vec<f32>) -> Series {
    let lasts: Vec<Vec<f32>> = shown(group)
        .into_iter()
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
        name: name(group),
        points,
        band,
        beyond: Vec::new(),
    }
}

/// The gates of the first run that figures show. Each column is centred at its step, or at the mean of
/// its steps in a long run; the first column is step 0, if its gates are known.
fn alphas_over_time(group: &Group) -> HeatMap {
    let run = shown(group)[0];
    let rows: Vec<&Row> = trained(run).filter(|r| !r.alpha.is_empty()).collect();
    let gates = rows.first().map_or(0, |row| row.alpha.len());
    let wide = rows.len().div_ceil(COLUMNS).max(1);
    let high = gates.div_ceil(ROWS).max(1);
    let columns: Vec<&[&Row]> = rows.chunks(wide).collect();
    let centre = |column: &&[&Row]| {
        let steps: f64 = column.iter().map(|row| row.step as f64).sum();
        steps / column.len() as f64
    };
    let start = run.alpha_init;
    let centres: Vec<f64> = start
        .map(|_| 0.0)
        .into_iter()
        .chain(columns.iter().map(centre))
        .collect();
    let values = (0..gates)
        .step_by(high)
        .map(|first| {
            let range = first..gates.min(first + high);
            let later = columns.iter().map(|column| {
                let all = column.iter().flat_map(|row| row.alpha.get(range.clone()));
                let all: Vec<f64> = all.flatten().map(|a| f64::from(*a)).collect();
                all.iter().sum::<f64>() / all.len() as f64
            });
            start.into_iter().chain(later).collect()
        })
        .collect();
    HeatMap {
        title: format!("α over the run: {}", group.label),
        x: "optimizer steps".to_owned(),
        edges: edges(&centres),
        y: match high {
            1 => "gate, 0 next to the input".to_owned(),
            n => format!("gate / {n}, 0 next to the input"),
        },
        rows: values,
        value: "α".to_owned(),
    }
}

/// The edges of columns with these centres: in the middle between neighbours, and as far beyond the
/// first and the last.
fn edges(centres: &[f64]) -> Vec<f64> {
    let [first, .., last] = centres else {
        let alone = centres.iter();
        return alone.flat_map(|at| [at - 0.5, at + 0.5]).collect();
    };
    let middle: Vec<f64> = centres.windows(2).map(|w| (w[0] + w[1]) / 2.0).collect();
    let before = 2.0 * first - middle[0];
    let after = 2.0 * last - middle[middle.len() - 1];
    [vec![before], middle, vec![after]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_centred_at_their_steps() {
        assert_eq!(edges(&[0.0, 10.0, 20.0]), [-5.0, 5.0, 15.0, 25.0]);
        assert_eq!(edges(&[0.0, 1.0, 5.0]), [-0.5, 0.5, 3.0, 7.0]);
        assert_eq!(edges(&[10.0]), [9.5, 10.5]);
        assert!(edges(&[]).is_empty());
    }
}
