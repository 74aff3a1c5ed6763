//! Reads the run directory of any model for a report.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::fit::{LOSS, Task};
use crate::lens::{self, Record};
use crate::recipe::{Recipe, with_task};
use crate::record::{Described, Environment, Row, inside, metrics, run_dir};
use crate::words::on_a_line;
use crate::zoo::Families;

/// The data of a run.
#[derive(Clone, Debug)]
pub struct RunData {
    /// Its directory.
    pub dir: PathBuf,
    /// The label that it was given. Without one, [`group`](super::group()) makes a label.
    pub label: Option<String>,
    /// Its settings, by `section.key`.
    pub settings: BTreeMap<String, toml::Value>,
    /// Its task, with the measure.
    pub task: Described,
    /// Its seed.
    pub seed: i64,
    /// Its rows. `seconds` is counted on over resumptions.
    pub rows: Vec<Row>,
    /// Its environment, as `env.json` records it.
    pub environment: Option<Environment>,
    /// Whether it is complete.
    pub done: bool,
    /// Whether a number of it, other than a gate or a layer's gradient norm, is not finite.
    pub diverged: bool,
    /// Every gate before the first step, if that is known.
    pub alpha_init: Option<f64>,
    /// Its Jacobians at the start and at the end.
    pub jacobians: Vec<Record>,
}

/// Reads the run at `spec`, `DIR` or `LABEL=DIR`.
///
/// # Errors
///
/// If it is no run or has no rows.
pub fn read(spec: impl AsRef<OsStr>) -> Result<RunData> {
    let (label, dir) = labelled(spec.as_ref());
    let (_, recipe) = run_dir::recipe(dir)?;
    let fail = |message: &str| Error::Run {
        dir: dir.to_owned(),
        message: message.to_owned(),
    };
    if !inside::is_there(&dir.join(metrics::FILE)) {
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
    let jacobians: Vec<Record> = inside::read(&dir.join(lens::FILE), inside::SMALL)
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok())
        .unwrap_or_default();
    // Jacobians of another step than the last are not those of the run's end.
    let end = format!("step {}", rows.last().map_or(0, |row| row.step));
    let mut jacobians = match jacobians.last() {
        Some(last) if last.name == end => jacobians,
        _ => Vec::new(),
    };
    let of_zoo = Recipe::of_run(dir).ok().map(|resolved| resolved.recipe);
    if let Some(recipe) = &of_zoo {
        // Older versions do not record it.
        let of = with_task!(&recipe.task, of => of.model.jacobian());
        for record in jacobians.iter_mut().filter(|record| record.of.is_empty()) {
            record.of = of.to_owned();
        }
    }
    let settings = flattened(&recipe).map_err(|e| fail(&format!("its recipe.toml: {e}")))?;
    let environment = run_dir::environment(dir);
    let task = environment.as_ref().and_then(|e| e.task.clone());
    // Else the gates were trained before.
    let is_new = environment.as_ref().is_some_and(Environment::began_anew);
    Ok(RunData {
        alpha_init: of_zoo.filter(|_| is_new).as_ref().and_then(first_alpha),
        diverged: !rows.iter().all(Row::is_finite),
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
        done: inside::is_file(&dir.join(run_dir::DONE)),
        jacobians,
    })
}

/// The label and the directory of `DIR` or `LABEL=DIR`.
fn labelled(spec: &OsStr) -> (Option<String>, &Path) {
    let whole = Path::new(spec);
    if whole.is_dir() {
        return (None, whole);
    }
    // Labels and directories may both contain equals signs: the directory is the first part after
    // an `=` that exists.
    match splits(spec).find(|(_, dir)| dir.is_dir()) {
        Some((label, dir)) => (Some(on_a_line(&label).into_owned()), dir),
        None => (None, whole),
    }
}

/// The parts before and after each `=`. A path may be any bytes.
#[cfg(unix)]
fn splits(spec: &OsStr) -> impl Iterator<Item = (String, &Path)> {
    use std::os::unix::ffi::OsStrExt;

    let bytes = spec.as_bytes();
    let ats = (0..bytes.len()).filter(|at| bytes[*at] == b'=');
    ats.map(|at| {
        let label = String::from_utf8_lossy(&bytes[..at]).into_owned();
        (label, Path::new(OsStr::from_bytes(&bytes[at + 1..])))
    })
}

/// The parts before and after each `=`.
#[cfg(not(unix))]
fn splits(spec: &OsStr) -> impl Iterator<Item = (String, &Path)> {
    let text = spec.to_str().unwrap_or_default();
    let ats = text.match_indices('=');
    ats.map(|(at, _)| (text[..at].to_owned(), Path::new(&text[at + 1..])))
}

/// The keys of a recipe of any model, by `section.key`.
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

/// The gates of a new network, if it has any.
fn first_alpha(recipe: &Recipe) -> Option<f64> {
    let gates = &recipe.settings.gates;
    let alpha = with_task!(&recipe.task, of => {
        let scheme = of.model.scheme();
        let alpha = scheme.initial_alpha(gates.alpha_init, of.model.layers());
        scheme.has_gate().then_some(alpha)
    })?;
    Some(match gates.alpha_bound {
        0.0 => alpha,
        bound => bound * (alpha / bound).tanh(),
    })
}

/// Each process counts its seconds from 0. This makes them count on over the run.
fn count_on(rows: &mut [Row]) {
    let (mut offset, mut last) = (0.0, 0.0);
    for row in rows {
        // (This misses a process whose last row has fewer seconds than the first row of the next
        // process.)
        if row.seconds < last {
            offset += last;
        }
        last = row.seconds;
        row.seconds += offset;
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

    /// The finite results, in their order.
    fn results(&self) -> impl Iterator<Item = (usize, f64, f64)> {
        let all = self.validations().into_iter();
        all.filter(|(_, _, value)| value.is_finite())
    }

    pub(super) fn reaches(&self, target: f64) -> Option<(usize, f64)> {
        self.results()
            .find(|(_, _, value)| reaches(*value, target, &self.task))
            .map(|(step, seconds, _)| (step, seconds))
    }

    /// The last result. A run that diverged has none: those before belong to a network that it lost.
    pub(super) fn last(&self) -> Option<f64> {
        let last = self.results().last().filter(|_| !self.diverged)?;
        Some(last.2)
    }

    pub(super) fn best(&self) -> Option<f64> {
        let values = self.results().map(|(_, _, value)| value);
        match self.task.higher_is_better {
            true => values.max_by(f64::total_cmp),
            false => values.min_by(f64::total_cmp),
        }
    }
}

/// Whether a result is the target or better.
pub(super) fn reaches(value: f64, target: f64, task: &Described) -> bool {
    match task.higher_is_better {
        true => value >= target,
        false => value <= target,
    }
}

/// The measure of a row, as displayed.
pub(super) fn result(row: &Row, task: &Described) -> f64 {
    let value = match task.key == LOSS.key {
        true => row.loss,
        false => row.metrics.get(&task.key).copied().unwrap_or(f64::NAN),
    };
    match task.shown_times {
        1.0 => value,
        // A share of 0.088 is 8.8 %, where the product is 8.799999999999999.
        times => {
            let product = times * value;
            format!("{product:.11e}").parse().unwrap_or(product)
        }
    }
}
