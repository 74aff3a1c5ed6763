//! What several runs say together: arms side by side, over seeds.

mod figures;
mod page;

use std::path::{Path, PathBuf};

use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::commands::jacobian::FILE as JACOBIAN;
use crate::error::{Error, Result};
use crate::jacobian::Record;
use crate::metrics::{self, Row};
use crate::recipe::Recipe;
use crate::run_dir::{self, Environment};

pub use figures::{Figure, figures};
pub(crate) use page::quoted;
pub use page::{csv, curves, html, markdown};

/// Keys that do not make two runs different experiments.
const SAME: &[&str] = &[
    "seed",
    "device",
    "prefetch",
    "keep",
    "log_every",
    "eval_every",
    "checkpoint_every",
    "target_bpb",
];

/// A run as it was read.
#[derive(Clone, Debug)]
pub struct RunData {
    /// Its directory.
    pub dir: PathBuf,
    /// What it was given to be called, else what [`group`] finds.
    pub label: Option<String>,
    /// Its settings.
    pub recipe: Recipe,
    /// Its numbers, `seconds` counted on over resumptions.
    pub rows: Vec<Row>,
    /// How it was run.
    pub environment: Option<Environment>,
    /// Whether it came to its end.
    pub done: bool,
    /// Its Jacobians at the start and at the end.
    pub jacobians: Vec<Record>,
}

/// The runs of one arm over its seeds.
#[derive(Clone, Debug)]
pub struct Group {
    /// The arm, and what else tells it from the other groups.
    pub label: String,
    /// The runs.
    pub runs: Vec<RunData>,
}

/// A mean over seeds with its standard error, where there is one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// How many values.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// The sample standard deviation over √n; none under n = 2.
    pub error: Option<f64>,
}

/// A row of the report's table.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The group's label.
    pub label: String,
    /// Its runs.
    pub seeds: usize,
    /// The last validation.
    pub last: Option<Mean>,
    /// The best validation.
    pub best: Option<Mean>,
    /// Welch's p of `last` against the baseline.
    pub p_last: Option<f64>,
    /// How many runs reached the target.
    pub reached: usize,
    /// The steps to the target, over the runs that reached it.
    pub steps: Option<Mean>,
    /// Welch's p of `steps` against the baseline, if all runs of both reached the target.
    pub p_steps: Option<f64>,
    /// The seconds to the target, likewise.
    pub seconds: Option<Mean>,
    /// Optimizer steps of the longest run.
    pub total_steps: usize,
    /// Wall time of training, seconds.
    pub wall: Option<Mean>,
    /// Values that the network learns.
    pub parameters: Option<usize>,
    /// Runs that stopped early.
    pub unfinished: usize,
}

/// The whole report in numbers.
#[derive(Clone, Debug)]
pub struct Report {
    /// What it is called.
    pub title: String,
    /// The groups, in the order that their first runs were given in.
    pub groups: Vec<Group>,
    /// Whether the runs are of text, measured in bits per byte; else of images, in accuracy.
    pub text: bool,
    /// The validation result that steps and seconds are counted to.
    pub target: Option<f64>,
    /// The group that others are tested against.
    pub baseline: Option<String>,
    /// The table.
    pub table: Vec<Summary>,
}

/// Reads the run at `spec`, `DIR` or `LABEL=DIR`.
///
/// # Errors
///
/// If it is no run or has no rows.
pub fn read(spec: &str) -> Result<RunData> {
    let plain = spec.replace(char::is_control, " ");
    let spec = if Path::new(spec).is_dir() {
        spec
    } else {
        &plain
    };
    // Labels and directories may both have equals signs: what names a directory is one.
    let labelled = || {
        spec.match_indices('=')
            .map(|(at, _)| (&spec[..at], &spec[at + 1..]))
            .find(|(_, dir)| Path::new(dir).is_dir())
    };
    let (label, dir) = match Path::new(spec).is_dir() {
        true => (None, spec),
        false => labelled().map_or((None, spec), |(label, dir)| (Some(label.to_owned()), dir)),
    };
    let dir = Path::new(dir);
    let recipe = run_dir::recipe(dir)?.recipe;
    let fail = |message: &str| Error::Run {
        dir: dir.to_owned(),
        message: message.to_owned(),
    };
    if !dir.join(metrics::FILE).exists() {
        return Err(fail(
            "has no metrics.jsonl: it has not taken a step; train it, or leave it out",
        ));
    }
    let mut rows = metrics::read(dir)?;
    if rows.is_empty() {
        return Err(fail(
            "its metrics.jsonl is empty; train it, or leave it out",
        ));
    }
    count_on(&mut rows);
    let jacobians: Vec<Record> = std::fs::read(dir.join(JACOBIAN))
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok())
        .unwrap_or_default();
    // Of another step than the last one, they are not of the run's end.
    let end = format!("step {}", rows.last().map_or(0, |row| row.step));
    let jacobians = match jacobians.last() {
        Some(last) if last.name == end => jacobians,
        _ => Vec::new(),
    };
    Ok(RunData {
        dir: dir.to_owned(),
        label,
        recipe,
        rows,
        environment: run_dir::environment(dir),
        done: dir.join(run_dir::DONE).exists(),
        jacobians,
    })
}

/// Each process counts its seconds from 0; a run's go on.
fn count_on(rows: &mut [Row]) {
    let (mut offset, mut last) = (0.0, 0.0);
    for row in rows {
        // (A process that logged for less time than the next needs for its first row is missed.)
        if row.seconds < last {
            offset += last;
        }
        last = row.seconds;
        row.seconds += offset;
    }
}

/// Groups the runs by what sets them apart, but for their seeds: settings, data, and whether they were
/// grown from another run.
///
/// # Errors
///
/// If they are of different tasks.
pub fn group(runs: Vec<RunData>) -> Result<Vec<Group>> {
    if let Some(first) = runs.first() {
        let task = |r: &Recipe| (r.is_text(), r.data);
        if let Some(other) = runs.iter().find(|r| task(&r.recipe) != task(&first.recipe)) {
            let name = |r: &RunData| {
                let Recipe { model, data, .. } = &r.recipe;
                format!("{} ({model} on {data})", r.dir.display())
            };
            return Err(Error::Report(format!(
                "the runs are of different tasks: {} and {}; report them apart",
                name(first),
                name(other)
            )));
        }
    }
    let tables: Vec<toml::Table> = runs
        .iter()
        .map(|run| toml::Table::try_from(&run.recipe).expect("a recipe is a TOML table"))
        .collect();
    let usual = |key: &str| {
        let count = |value: &toml::Value| tables.iter().filter(|t| t[key] == *value).count();
        let values = tables.iter().map(|table| &table[key]);
        // Of equally many, the first.
        values.rev().max_by_key(|value| count(value)).cloned()
    };
    let keys: Vec<String> = tables.first().map_or_else(Vec::new, |table| {
        table
            .keys()
            .filter(|key| !SAME.contains(&key.as_str()) && *key != "arm")
            .filter(|key| tables.iter().any(|t| t[*key] != table[*key]))
            .cloned()
            .collect()
    });
    let datas: Vec<String> = runs
        .iter()
        .filter_map(|run| Some(run.environment.as_ref()?.data.clone()))
        .filter(|data| !data.is_empty())
        .collect();
    let count = |data: &String| datas.iter().filter(|other| *other == data).count();
    let usual_data = datas.iter().rev().max_by_key(|data| count(data)).cloned();
    let usual_data = usual_data.unwrap_or_default();
    let mut groups: Vec<Group> = Vec::new();
    for (run, table) in runs.into_iter().zip(&tables) {
        let label = run.label.clone().unwrap_or_else(|| {
            let mut label = run.recipe.arm.to_string();
            for key in &keys {
                if usual(key).as_ref() != Some(&table[key]) {
                    label.push_str(&format!(" {key}={}", plain(&table[key])));
                }
            }
            let environment = run.environment.as_ref();
            if environment.is_some_and(|e| e.grown_from.is_some()) {
                label.push_str(" grown");
            }
            let data = environment.map_or("", |e| e.data.as_str());
            if !data.is_empty() && data != usual_data {
                let name: Vec<&str> = data.split(' ').take(2).collect();
                label.push_str(&format!(" data={}", name.join("/")));
            }
            label
        });
        match groups.iter_mut().find(|group| group.label == label) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group {
                label,
                runs: vec![run],
            }),
        }
    }
    for group in &groups {
        let mut seeds: Vec<u64> = group.runs.iter().map(|r| r.recipe.seed).collect();
        seeds.sort_unstable();
        if let Some(pair) = seeds.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::Report(format!(
                "two runs of `{}` have the seed {}: they are one run, not two; leave one out or give \
                 them labels, LABEL=DIR",
                group.label, pair[0]
            )));
        }
    }
    Ok(groups)
}

fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl RunData {
    /// `(step, seconds, result)` of each validation.
    pub fn validations(&self) -> Vec<(usize, f64, f64)> {
        let text = self.recipe.is_text();
        self.rows
            .iter()
            .filter(|row| row.split == "valid")
            .map(|row| (row.step, row.seconds, result(row, text)))
            .collect()
    }

    fn reaches(&self, target: f64) -> Option<(usize, f64)> {
        let text = self.recipe.is_text();
        self.validations()
            .into_iter()
            .find(|(_, _, value)| {
                if text {
                    *value <= target
                } else {
                    *value >= target
                }
            })
            .map(|(step, seconds, _)| (step, seconds))
    }

    fn best(&self) -> Option<f64> {
        let values = self.validations().into_iter().map(|(_, _, value)| value);
        match self.recipe.is_text() {
            true => values.min_by(f64::total_cmp),
            false => values.max_by(f64::total_cmp),
        }
    }
}

/// Bits per byte of text; of images, accuracy in percent.
pub(crate) fn result(row: &Row, text: bool) -> f64 {
    match text {
        true => row.bpb.unwrap_or(row.loss / std::f64::consts::LN_2),
        false => 100.0 * row.accuracy,
    }
}

impl Mean {
    /// The mean of `values`, if there are any.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let error = (n > 1).then(|| (variance(values, mean) / n as f64).sqrt());
        Some(Self { n, mean, error })
    }

    /// `mean ± error` with `digits` decimals.
    pub fn text(&self, digits: usize) -> String {
        match self.error {
            Some(error) => format!("{:.digits$} ± {error:.digits$}", self.mean),
            None => format!("{:.digits$}", self.mean),
        }
    }
}

fn variance(values: &[f64], mean: f64) -> f64 {
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    squares / (values.len() - 1) as f64
}

/// The two-sided p of Welch's test (B. L. Welch, Biometrika 34, 1947) that two samples have the same
/// mean. None where either has fewer than three values, or neither varies.
pub fn welch(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() < 3 || b.len() < 3 {
        return None;
    }
    let stats = |values: &[f64]| {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        (mean, variance(values, mean) / n, n - 1.0)
    };
    let ((mean_a, var_a, free_a), (mean_b, var_b, free_b)) = (stats(a), stats(b));
    let var = var_a + var_b;
    // What rounding makes of equal values is no variance.
    let rounding = 1e-12 * (mean_a.abs() + mean_b.abs());
    if !var.is_finite() || var.sqrt() <= rounding {
        return None;
    }
    let t = (mean_a - mean_b) / var.sqrt();
    let freedom = var * var / (var_a * var_a / free_a + var_b * var_b / free_b);
    let student = StudentsT::new(0.0, 1.0, freedom).ok()?;
    Some(2.0 * student.sf(t.abs()))
}

impl Report {
    /// Puts groups side by side.
    ///
    /// Without a `target` it is the best result that every run reached. The `baseline` is a group's
    /// label.
    ///
    /// # Errors
    ///
    /// If there are no groups, or none has the baseline's label.
    pub fn new(
        title: &str,
        groups: Vec<Group>,
        target: Option<f64>,
        baseline: Option<&str>,
    ) -> Result<Self> {
        let Some(first) = groups.first() else {
            return Err(Error::Report("there are no runs to report on".to_owned()));
        };
        let text = first.runs[0].recipe.is_text();
        let labels: Vec<&str> = groups.iter().map(|g| g.label.as_str()).collect();
        let base = match baseline {
            None => None,
            Some(name) => Some(groups.iter().find(|g| g.label == name).ok_or_else(|| {
                Error::Report(format!(
                    "there is no group `{name}` to compare with; choose of: {}",
                    labels.join(", ")
                ))
            })?),
        };
        let target = target.or_else(|| common(&groups, text));
        let table = groups
            .iter()
            .map(|group| summarise(group, base, target))
            .collect();
        Ok(Self {
            title: title.replace(char::is_control, " "),
            text,
            target,
            baseline: base.map(|group| group.label.clone()),
            table,
            groups,
        })
    }

    /// What a result is, with its unit.
    pub fn measure(&self) -> &'static str {
        match self.text {
            true => "bits per byte",
            false => "accuracy (%)",
        }
    }

    fn digits(&self) -> usize {
        match self.text {
            true => 3,
            false => 1,
        }
    }

    /// The target as text.
    pub fn target_text(&self) -> Option<String> {
        let target = self.target?;
        Some(match self.text {
            true => format!("{target} bpb"),
            false => format!("{target} %"),
        })
    }
}

/// The best result that all runs reached, rounded so that they did.
fn common(groups: &[Group], text: bool) -> Option<f64> {
    let runs = || groups.iter().flat_map(|group| &group.runs);
    let bests: Option<Vec<f64>> = runs().map(RunData::best).collect();
    let bests = bests?;
    match text {
        true => {
            let worst = bests.into_iter().max_by(f64::total_cmp)?;
            // Never tighter than what it was rounded from.
            Some(((worst * 100.0).ceil() / 100.0).max(worst))
        }
        false => {
            let worst = bests.into_iter().min_by(f64::total_cmp)?;
            Some(((worst * 10.0).floor() / 10.0).min(worst))
        }
    }
}

fn lasts(group: &Group) -> Vec<f64> {
    let last = |run: &RunData| Some(run.validations().last()?.2);
    group.runs.iter().filter_map(last).collect()
}

fn to_target(group: &Group, target: Option<f64>) -> Vec<(f64, f64)> {
    let reached = |run: &RunData| run.reaches(target?);
    let found = group.runs.iter().filter_map(reached);
    found
        .map(|(step, seconds)| (step as f64, seconds))
        .collect()
}

fn summarise(group: &Group, base: Option<&Group>, target: Option<f64>) -> Summary {
    let runs = &group.runs;
    let last = lasts(group);
    let best: Vec<f64> = runs.iter().filter_map(RunData::best).collect();
    let reached = to_target(group, target);
    let steps: Vec<f64> = reached.iter().map(|(step, _)| *step).collect();
    let seconds: Vec<f64> = reached.iter().map(|(_, seconds)| *seconds).collect();
    let ends = || runs.iter().filter_map(|run| run.rows.last());
    let wall: Vec<f64> = ends().map(|row| row.seconds).collect();
    let base = base.filter(|base| base.label != group.label);
    Summary {
        label: group.label.clone(),
        seeds: runs.len(),
        p_last: base.and_then(|base| welch(&last, &lasts(base))),
        last: Mean::of(&last),
        best: Mean::of(&best),
        reached: reached.len(),
        p_steps: base.and_then(|base| {
            let others = to_target(base, target);
            let all = reached.len() == runs.len() && others.len() == base.runs.len();
            let others: Vec<f64> = others.into_iter().map(|(step, _)| step).collect();
            welch(&steps, &others).filter(|_| all)
        }),
        steps: Mean::of(&steps),
        seconds: Mean::of(&seconds),
        total_steps: ends().map(|row| row.step).max().unwrap_or(0),
        wall: Mean::of(&wall),
        parameters: runs[0].environment.as_ref().map(|e| e.parameters),
        unfinished: runs.iter().filter(|run| !run.done).count(),
    }
}
