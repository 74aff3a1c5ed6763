//! Groups runs into arms, each over its seeds.

use std::collections::BTreeSet;

use super::place::data_label;
use super::{Group, RunData};
use crate::error::{Error, Result};
use crate::words::on_a_line;

/// Whether two runs that differ in this key alone are of one arm. True for the seed, and for the
/// keys of `[run]` except the length of the run.
fn is_aside(key: &str) -> bool {
    match key.split_once('.') {
        Some(("run", key)) => !matches!(key, "epochs" | "steps"),
        _ => key == "train.seed",
    }
}

const SCHEME: &str = "model.scheme";
const FAMILY: &str = "model.family";

/// Groups the runs by their given label. A run without one is called by its scheme and then by every
/// setting in which the runs differ, as on the command line: `rezero lr=0.01` and `rezero lr=0.02`.
///
/// The runs differ in a setting if two of them that have it, of one family, have other values of it.
/// Then all runs that have it name it. So runs that differ in their scheme alone are called by it
/// alone; a setting that only some schemes or optimizers have is named only if it varies; and
/// if networks are of several families, `model=FAMILY` is named, not all that goes with the family.
/// Seeds and the keys of `[run]`, but for the run's length, do not distinguish runs.
///
/// Runs that were grown say so. Runs name their data if others with the same settings have other data.
///
/// # Errors
///
/// If the runs are of different tasks, or two runs of a group have the same seed.
pub fn group(runs: Vec<RunData>) -> Result<Vec<Group>> {
    must_be_of_one_task(&runs.iter().collect::<Vec<_>>())?;
    let labels = labels(&runs);
    let mut groups: Vec<Group> = Vec::new();
    for (run, label) in runs.into_iter().zip(labels) {
        let label = run.label.clone().unwrap_or(label);
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
                "two runs of `{}` have the same settings and the seed {}, so that they would count twice; \
                 leave one out, or give them labels, LABEL=DIR",
                group.label, pair[0]
            )));
        }
    }
    Ok(groups)
}

/// Refuses runs of several tasks.
pub(super) fn must_be_of_one_task(runs: &[&RunData]) -> Result<()> {
    let Some(first) = runs.first() else {
        return Ok(());
    };
    let task = |r: &RunData| (r.task.clone(), r.settings.get("data.set").cloned());
    let Some(other) = runs.iter().find(|r| task(r) != task(first)) else {
        return Ok(());
    };
    let name = |r: &RunData| {
        let word = |key: &str| r.settings.get(key).map_or("its own".to_owned(), plain);
        let (model, data) = (word(FAMILY), word("data.set"));
        on_a_line(&format!("{} ({model} on {data})", r.dir.display())).into_owned()
    };
    Err(Error::Report(format!(
        "the runs are of different tasks: {} and {}; report them apart",
        name(first),
        name(other)
    )))
}

/// A label for each run, see [`group`].
fn labels(runs: &[RunData]) -> Vec<String> {
    let all: BTreeSet<&str> = runs
        .iter()
        .flat_map(|run| run.settings.keys().map(String::as_str))
        .collect();
    let named: Vec<&str> = all
        .iter()
        .copied()
        .filter(|key| !is_aside(key) && *key != SCHEME && differs(runs, key))
        .collect();
    let data = data_labels(runs);
    let label = |(run, data): (&RunData, Option<String>)| {
        let scheme = run.settings.get(SCHEME);
        let mut label = scheme.map_or_else(|| "model".to_owned(), plain);
        for key in &named {
            if let Some(value) = run.settings.get(*key) {
                label.push_str(&format!(" {}={}", word(key, &all), plain(value)));
            }
        }
        if is_grown(run) {
            label.push_str(" grown");
        }
        if let Some(data) = data {
            label.push_str(&format!(" data={data}"));
        }
        on_a_line(&label).into_owned()
    };
    runs.iter().zip(data).map(label).collect()
}

fn differs(runs: &[RunData], key: &str) -> bool {
    // The first value of each family.
    let mut firsts: Vec<(Option<&toml::Value>, &toml::Value)> = Vec::new();
    for run in runs {
        let Some(value) = run.settings.get(key) else {
            continue;
        };
        // Families themselves are compared across families.
        let family = run.settings.get(FAMILY).filter(|_| key != FAMILY);
        match firsts.iter().find(|(of, _)| *of == family) {
            Some((_, first)) if *first != value => return true,
            Some(_) => {}
            None => firsts.push((family, value)),
        }
    }
    false
}

/// The word for a key on the command line, where `all` are the keys.
fn word<'a>(key: &'a str, all: &BTreeSet<&str>) -> &'a str {
    match key.split_once('.') {
        Some((section, "kind" | "family")) => section,
        Some((_, short)) => {
            let same = all
                .iter()
                .filter(|key| key.split_once('.').is_some_and(|(_, other)| other == short));
            if same.count() == 1 { short } else { key }
        }
        None => key,
    }
}

fn is_grown(run: &RunData) -> bool {
    let environment = run.environment.as_ref();
    environment.is_some_and(|e| e.grown_from.is_some())
}

/// The data of each run, if runs with the same settings of data have other data.
fn data_labels(runs: &[RunData]) -> Vec<Option<String>> {
    let data = |run: &RunData| {
        let data = run.environment.as_ref().map(|e| e.data.clone());
        data.filter(|data| !data.is_empty())
    };
    let settings = |run: &RunData| -> Vec<(String, toml::Value)> {
        let all = run.settings.iter();
        let of_data = all.filter(|(key, _)| key.starts_with("data."));
        of_data.map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let found: Vec<_> = runs
        .iter()
        .filter_map(|run| Some((settings(run), data(run)?)))
        .collect();
    let differ = found.iter().any(|(settings, data)| {
        let mut same = found.iter().filter(|(others, _)| others == settings);
        same.any(|(_, other)| other != data)
    });
    if !differ {
        return vec![None; runs.len()];
    }
    // Two data of one name and size are told apart by their hashes.
    let mut distinct: Vec<&String> = found.iter().map(|(_, data)| data).collect();
    distinct.sort_unstable();
    distinct.dedup();
    let names: BTreeSet<String> = distinct.iter().map(|d| data_label(d, false)).collect();
    let hash = names.len() < distinct.len();
    runs.iter()
        .map(|run| data(run).map(|data| data_label(&data, hash)))
        .collect()
}

fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
