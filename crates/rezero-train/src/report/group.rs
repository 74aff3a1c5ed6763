//! Groups runs into arms, each over its seeds.

use std::collections::BTreeMap;

use super::{Group, RunData};
use crate::error::{Error, Result};

/// Whether two runs that differ in this key alone are of one arm. True for the seed, and for the
/// keys of `[run]` except the length of the run.
fn is_aside(key: &str) -> bool {
    match key.split_once('.') {
        Some(("run", key)) => !matches!(key, "epochs" | "steps"),
        _ => key == "train.seed",
    }
}

/// Groups the runs by their given label. Runs without a label are grouped by their settings except
/// the seed, by their data, and by whether they were grown from another run.
///
/// # Errors
///
/// If the runs are of different tasks, or two runs of a group have the same seed.
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
    // The keys of all runs: a run may have a key that another run lacks.
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
            // Of equally frequent values, the first.
            let most = values.iter().rev().max_by_key(|v| count(v)).cloned();
            (key.clone(), most)
        })
        .collect();
    let data_sets: Vec<String> = runs
        .iter()
        .filter_map(|run| Some(run.environment.as_ref()?.data.clone()))
        .filter(|data| !data.is_empty())
        .collect();
    let count = |data: &String| data_sets.iter().filter(|other| *other == data).count();
    let usual_data = data_sets
        .iter()
        .rev()
        .max_by_key(|data| count(data))
        .cloned();
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
