//! What may change when a run is resumed.

use std::path::Path;

use toml::Table;

use super::sections::Tables;
use super::settings::Settings;
use crate::error::{Error, Result};

/// A resumed run must be the run that was begun: only `[run]` may change, and its length only where the
/// learning rate of a step does not depend on it, or no step was taken (`at_start`). `saved` is the run's recipe.toml.
pub(crate) fn must_be_same(
    dir: &Path,
    saved: &str,
    wanted: &Tables,
    settings: &Settings,
    at_start: bool,
) -> Result<()> {
    let saved: Table = saved.parse().map_err(|e: toml::de::Error| Error::Run {
        dir: dir.to_owned(),
        message: format!("its recipe.toml does not parse: {}", e.message()),
    })?;
    let empty = Table::new();
    let mut sections: Vec<&str> = saved.keys().map(String::as_str).collect();
    sections.extend(wanted.keys());
    sections.sort_unstable();
    sections.dedup();
    let mut changed = Vec::new();
    for section in sections {
        let old = saved.get(section).and_then(toml::Value::as_table);
        let (old, new) = (old.unwrap_or(&empty), wanted.get(section).unwrap_or(&empty));
        let mut keys: Vec<_> = old.keys().chain(new.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys
            .into_iter()
            .filter(|key| old.get(*key) != new.get(*key))
        {
            let length = matches!(key.as_str(), "epochs" | "steps");
            let fixed = length && settings.schedule.spans_the_run() && !at_start;
            if section == "run" && !fixed {
                continue;
            }
            let value = |table: &Table| {
                let value = table.get(key);
                value.map_or_else(|| "–".to_owned(), ToString::to_string)
            };
            changed.push(format!("{section}.{key} {} -> {}", value(old), value(new)));
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    let changes = changed.join(", ");
    if changed.iter().all(|change| change.starts_with("run.")) {
        return Err(Error::Run {
            dir: dir.to_owned(),
            message: format!(
                "cannot change its length ({changes}): its schedule, kind={}, sets the learning rate of every \
                 step by the length of the whole run; resume it with the same length, or begin a new run",
                settings.schedule.kind()
            ),
        });
    }
    Err(Error::Run {
        dir: dir.to_owned(),
        message: format!(
            "was begun with other settings ({changes}); resume it with the same ones, or start a new run (only \
             keys of [run] may change, and under a schedule over the whole run not epochs and steps)"
        ),
    })
}
