//! `rezero runs`

use std::fs;
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::json;

use super::{RUNS, out, say};
use crate::cli::Runs;
use crate::error::{Error, Result};
use crate::record::listing::{self, Listed, Removable};
use crate::words;

pub fn run(args: &Runs) -> Result<()> {
    let default = [PathBuf::from(RUNS)];
    let given: &[PathBuf] = match args.dirs.is_empty() {
        true => &default,
        false => &args.dirs,
    };
    let mut dirs = Vec::new();
    for dir in given {
        match fs::metadata(dir) {
            Ok(meta) if meta.is_dir() => dirs.push(dir.as_path()),
            Ok(_) => {
                return Err(Error::Run {
                    dir: dir.clone(),
                    message: "is a file; name a folder of runs".to_owned(),
                });
            }
            // The default folder is made by the first run.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && args.dirs.is_empty() => {}
            Err(e) => return Err(Error::io("read", dir, e)),
        }
    }
    let mut runs = listing::list(dirs);
    // The newest first; where time stamps are coarse, by name.
    runs.sort_by(|a, b| b.changed.cmp(&a.changed).then_with(|| a.dir.cmp(&b.dir)));
    for refused in runs.iter().filter_map(|run| run.refused.as_ref()) {
        say!("{refused}");
    }
    if args.clean {
        return clean(&runs, args.yes);
    }
    if args.json {
        for run in &runs {
            let json = words::json(&as_json(run)).expect("a table of values is JSON");
            out!("{json}");
        }
        return Ok(());
    }
    if runs.is_empty() {
        let dirs: Vec<String> = given.iter().map(|dir| dir.display().to_string()).collect();
        say!("no runs in {}", dirs.join(", "));
        return Ok(());
    }
    let head = ["run", "state", "step", "best", "changed", "size"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(runs.iter().map(cells));
    for line in aligned(&rows) {
        out!("{line}");
    }
    let bytes: u64 = runs.iter().map(|run| run.bytes).sum();
    let can_go: u64 = runs
        .iter()
        .flat_map(|run| &run.removable)
        .map(|r| r.bytes)
        .sum();
    let tip = match can_go {
        0 => String::new(),
        n => format!(", {} of it no longer needed: --clean", words::bytes(n)),
    };
    let s = if runs.len() == 1 { "" } else { "s" };
    say!("{} run{s}, {}{tip}", runs.len(), words::bytes(bytes));
    Ok(())
}

fn cells(run: &Listed) -> [String; 6] {
    let dash = || "–".to_owned();
    let best = run.best.map(|value| match &run.task {
        Some(task) => {
            let (value, digits) = (value * task.shown_times, task.digits);
            let unit = match task.sign.trim() {
                "" => format!(" {}", task.key),
                _ => task.sign.clone(),
            };
            format!("{value:.digits$}{unit}")
        }
        None => format!("{value:.4}"),
    });
    let age = run.changed.map(|changed| {
        // A clock that was set back gives a time in the future.
        let age = SystemTime::now()
            .duration_since(changed)
            .unwrap_or_default();
        format!("{} ago", words::duration(age))
    });
    [
        words::path(&run.dir),
        run.stage.name().to_owned(),
        run.step.to_string(),
        best.unwrap_or_else(dash),
        age.unwrap_or_else(dash),
        words::bytes(run.bytes),
    ]
}

/// Rows as columns of text; numbers stand at the right of their columns.
fn aligned(rows: &[[String; 6]]) -> Vec<String> {
    const RIGHT: [bool; 6] = [false, false, true, true, true, true];
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..6).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths).zip(RIGHT);
        let cells: Vec<String> = cells
            .map(|((cell, width), right)| match right {
                true => format!("{cell:>width$}"),
                false => format!("{cell:<width$}"),
            })
            .collect();
        cells.join("  ")
    };
    rows.iter().map(line).collect()
}

fn as_json(run: &Listed) -> serde_json::Value {
    let changed = run.changed.and_then(|changed| {
        let since = changed.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(since.as_secs())
    });
    json!({
        "run": run.dir.to_string_lossy(),
        "state": run.stage,
        "step": run.step,
        "measure": run.task.as_ref().map(|task| &task.key),
        "best": run.best,
        "changed": changed,
        "bytes": run.bytes,
        "removable": run.removable.iter().map(|r| r.bytes).sum::<u64>(),
    })
}

/// Removes what is no longer needed, after asking.
fn clean(runs: &[Listed], yes: bool) -> Result<()> {
    let all: Vec<&Removable> = runs.iter().flat_map(|run| &run.removable).collect();
    if all.is_empty() {
        say!("nothing to remove");
        return Ok(());
    }
    for part in &all {
        out!(
            "{}  {}  {}",
            part.path.display(),
            words::bytes(part.bytes),
            part.why
        );
    }
    let bytes: u64 = all.iter().map(|part| part.bytes).sum();
    let question = format!("remove these {}, {}?", all.len(), words::bytes(bytes));
    if !yes && !agreed(&question)? {
        say!("nothing was removed");
        return Ok(());
    }
    let (mut removed, mut failed) = (0, None);
    for part in &all {
        match part.remove() {
            Ok(()) => removed += part.bytes,
            Err(error) => {
                say!("not removed: {error}");
                failed = Some(error);
            }
        }
    }
    say!("removed {}", words::bytes(removed));
    failed.map_or(Ok(()), Err)
}

fn agreed(question: &str) -> Result<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        say!("{question} there is nobody to ask: add --yes");
        return Ok(false);
    }
    say!("{question} [y/N]");
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    read.map_err(|e| Error::io("read from", "standard input", e))?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
