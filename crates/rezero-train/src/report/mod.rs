//! What several runs say together: arms side by side, over seeds.

mod figures;
mod page;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::error::{Error, Result};
use crate::fit::{Described, LOSS, Task};
use crate::lens::{self, Record};
use crate::record::{Environment, Row, metrics, run_dir};

pub use figures::{Figure, figures};
pub use page::{csv, curves, html, markdown};

/// Whether a key does not make two runs different experiments: the seed, and what may change on resume
/// but for the length.
fn is_aside(key: &str) -> bool {
    match key.split_once('.') {
        Some(("run", key)) => !matches!(key, "epochs" | "steps"),
        _ => key == "train.seed",
    }
}

/// A run as it was read.
#[derive(Clone, Debug)]
pub struct RunData {
    /// Its directory.
    pub dir: PathBuf,
    /// What it was given to be called, else what [`group`] finds.
    pub label: Option<String>,
    /// Its settings, by `section.key`.
    pub settings: BTreeMap<String, toml::Value>,
    /// What it is measured by.
    pub task: Described,
    /// Its seed.
    pub seed: i64,
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
    /// What the runs are measured by.
    pub task: Described,
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
    let (_, recipe) = run_dir::recipe(dir)?;
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
    let jacobians: Vec<Record> = std::fs::read(dir.join(lens::FILE))
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok())
        .unwrap_or_default();
    // Of another step than the last one, they are not of the run's end.
    let end = format!("step {}", rows.last().map_or(0, |row| row.step));
    let jacobians = match jacobians.last() {
        Some(last) if last.name == end => jacobians,
        _ => Vec::new(),
    };
    let settings = flattened(&recipe).map_err(|e| fail(&format!("its recipe.toml: {e}")))?;
    let environment = run_dir::environment(dir);
    let task = environment.as_ref().and_then(|e| e.task.clone());
    Ok(RunData {
        dir: dir.to_owned(),
        label,
        seed: settings
            .get("train.seed")
            .and_then(toml::Value::as_integer)
            .unwrap_or_default(),
        settings,
        task: task.unwrap_or_else(|| Task::new("items").described()),
        rows,
        environment,
        done: dir.join(run_dir::DONE).exists(),
        jacobians,
    })
}

/// The keys of a recipe by `section.key`; whatever model it is of.
fn flattened(recipe: &str) -> Result<BTreeMap<String, toml::Value>, toml::de::Error> {
    let sections: toml::Table = recipe.parse()?;
    let mut all = BTreeMap::new();
    for (section, table) in sections {
        if let toml::Value::Table(table) = table {
            all.extend(
                table
                    .into_iter()
                    .map(|(key, value)| (format!("{section}.{key}"), value)),
            );
        }
    }
    Ok(all)
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
        let task = |r: &RunData| (r.task.clone(), r.settings.get("data.set").cloned());
        if let Some(other) = runs.iter().find(|r| task(r) != task(first)) {
            let name = |r: &RunData| {
                let word = |key: &str| r.settings.get(key).map_or("its own".to_owned(), plain);
                let (model, data) = (word("model.family"), word("data.set"));
                format!("{} ({model} on {data})", r.dir.display())
            };
            return Err(Error::Report(format!(
                "the runs are of different tasks: {} and {}; report them apart",
                name(first),
                name(other)
            )));
        }
    }
    // A key that another run has and this one has not is a difference too.
    let value = |run: &RunData, key: &str| run.settings.get(key).cloned();
    let mut keys: Vec<String> = runs
        .iter()
        .flat_map(|run| run.settings.keys().cloned())
        .filter(|key| !is_aside(key) && key != "model.scheme")
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys.retain(|key| {
        let mut found: Vec<_> = runs.iter().filter_map(|run| value(run, key)).collect();
        found.dedup();
        found.len() > 1
    });
    let usual: BTreeMap<String, Option<toml::Value>> = keys
        .iter()
        .map(|key| {
            let values: Vec<_> = runs.iter().filter_map(|run| value(run, key)).collect();
            let count = |v: &toml::Value| values.iter().filter(|other| *other == v).count();
            // Of equally many, the first.
            let most = values.iter().rev().max_by_key(|v| count(v)).cloned();
            (key.clone(), most)
        })
        .collect();
    let datas: Vec<String> = runs
        .iter()
        .filter_map(|run| Some(run.environment.as_ref()?.data.clone()))
        .filter(|data| !data.is_empty())
        .collect();
    let count = |data: &String| datas.iter().filter(|other| *other == data).count();
    let usual_data = datas.iter().rev().max_by_key(|data| count(data)).cloned();
    let usual_data = usual_data.unwrap_or_default();
    let mut groups: Vec<Group> = Vec::new();
    for run in runs {
        let label = run.label.clone().unwrap_or_else(|| {
            let scheme = run.settings.get("model.scheme");
            let mut label = scheme.map_or_else(|| "model".to_owned(), plain);
            for (key, usual) in &usual {
                if let Some(value) = run.settings.get(key)
                    && usual.as_ref() != Some(value)
                {
                    let key = key.split_once('.').map_or(key.as_str(), |(_, key)| key);
                    label.push_str(&format!(" {key}={}", plain(value)));
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
        let mut seeds: Vec<i64> = group.runs.iter().map(|r| r.seed).collect();
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
        self.rows
            .iter()
            .filter(|row| row.split == "valid")
            .map(|row| (row.step, row.seconds, result(row, &self.task)))
            .collect()
    }

    fn reaches(&self, target: f64) -> Option<(usize, f64)> {
        let higher = self.task.higher_is_better;
        self.validations()
            .into_iter()
            .find(|(_, _, value)| match higher {
                true => *value >= target,
                false => *value <= target,
            })
            .map(|(step, seconds, _)| (step, seconds))
    }

    fn best(&self) -> Option<f64> {
        let values = self.validations().into_iter().map(|(_, _, value)| value);
        match self.task.higher_is_better {
            true => values.max_by(f64::total_cmp),
            false => values.min_by(f64::total_cmp),
        }
    }
}

/// A row's measure as it is shown.
pub(crate) fn result(row: &Row, task: &Described) -> f64 {
    let value = match task.key == LOSS.key {
        true => row.loss,
        false => row.metrics.get(&task.key).copied().unwrap_or(f64::NAN),
    };
    task.shown_times * value
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
        let task = first.runs[0].task.clone();
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
        let target = target.or_else(|| common(&groups, &task));
        let table = groups
            .iter()
            .map(|group| summarise(group, base, target))
            .collect();
        Ok(Self {
            title: title.replace(char::is_control, " "),
            task,
            target,
            baseline: base.map(|group| group.label.clone()),
            table,
            groups,
        })
    }

    /// What a result is, with its unit.
    pub fn measure(&self) -> String {
        let label = self.task.label.to_lowercase();
        match self.task.sign.trim() {
            "%" => format!("{label} (%)"),
            _ => label,
        }
    }

    fn digits(&self) -> usize {
        self.task.digits
    }

    /// The target as text.
    pub fn target_text(&self) -> Option<String> {
        Some(format!("{}{}", self.target?, self.task.sign))
    }
}

/// The best result that all runs reached, rounded so that they did.
fn common(groups: &[Group], task: &Described) -> Option<f64> {
    let runs = || groups.iter().flat_map(|group| &group.runs);
    let bests: Option<Vec<f64>> = runs().map(RunData::best).collect();
    let bests = bests?.into_iter();
    // A digit less than tables show where more is better, as percent have it; never tighter than the
    // value it was rounded from.
    match task.higher_is_better {
        true => {
            let worst = bests.min_by(f64::total_cmp)?;
            let scale = 10f64.powi(task.digits as i32);
            Some(((worst * scale).floor() / scale).min(worst))
        }
        false => {
            let worst = bests.max_by(f64::total_cmp)?;
            let scale = 10f64.powi(task.digits as i32 - 1);
            Some(((worst * scale).ceil() / scale).max(worst))
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
