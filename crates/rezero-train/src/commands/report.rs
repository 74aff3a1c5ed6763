//! `rezero report`

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::say;
use super::sweep::warn_of_other_data;
use crate::cli;
use crate::device;
use crate::error::{Error, Result};
use crate::lens::{self, Record};
use crate::recipe::Recipe;
use crate::record::sweep::Plan;
use crate::record::{Stage, checkpoint, events, write_atomic, write_named};
use crate::report::{Report, RunData, SweepData, group, read, read_sweep};
use crate::say::results;
use crate::task::Places;

pub fn run(args: &cli::Report) -> Result<()> {
    if let Some(target) = args.target
        && !target.is_finite()
    {
        return Err(Error::Report(format!(
            "the target must be finite, got {target}"
        )));
    }
    let (mut groups, tuning) = match sweep(args)? {
        Some(sweep) => {
            let [missing, all] = sweep.missing;
            if missing > 0 {
                say!(
                    "{missing} of {all} trials are not complete; the command that began the sweep goes on with it"
                );
            }
            (sweep.groups, sweep.tuning)
        }
        None => {
            let mut runs = Vec::new();
            for spec in &args.runs {
                runs.push(read(spec)?);
            }
            (group(runs)?, None)
        }
    };
    if args.tensorboard {
        for run in groups.iter().flat_map(|group| &group.runs) {
            write_events(&run.dir)?;
        }
    }
    if !args.no_jacobian {
        for group in &mut groups {
            if group.runs.iter().all(|run| run.jacobians.is_empty())
                && let Some(run) = group
                    .runs
                    .iter_mut()
                    .find(|run| run.done && has_checkpoint(run) && is_ours(run))
            {
                // A report is useful without Jacobians.
                match measure(run) {
                    Ok(records) => run.jacobians = records,
                    Err(e) => say!("no Jacobian of {}: {e}", run.dir.display()),
                }
            }
        }
    }
    let title = args.title.as_deref().unwrap_or("Runs");
    let report = Report::new(title, groups, args.target, args.baseline.as_deref())?;
    let report = report.with_tuning(tuning);
    let page = report.write(&args.out)?;
    if let Some(file) = &args.into {
        let table = match report.tuning {
            Some(_) => report.tuning_markdown(),
            None => report.table_markdown(),
        };
        insert(file, &args.name, &table)?;
    }
    if report.tuning.is_some() {
        results(&report.tuning_markdown())?;
        for note in report.tuning_notes() {
            say!("{note}");
        }
    }
    results(&report.table_markdown())?;
    say!("the whole of it: {}", page.display());
    Ok(())
}

/// Writes TensorBoard's event file of a run on which no process works.
fn write_events(run: &Path) -> Result<()> {
    if Stage::of(run) == Stage::Running {
        return Err(Error::Run {
            dir: run.to_owned(),
            message: "is in progress, and its process writes its files; wait for its end, or begin runs with \
                      run.tensorboard=true"
                .to_owned(),
        });
    }
    let events = events::Writer::begin(run)?;
    say!("for TensorBoard: {}", events.path().display());
    Ok(())
}

/// The sweep, if one is named.
fn sweep(args: &cli::Report) -> Result<Option<SweepData>> {
    let is_sweep = |spec: &&OsString| Plan::is_in(Path::new(spec));
    let Some(dir) = args.runs.iter().find(is_sweep) else {
        return Ok(None);
    };
    let dir = Path::new(dir);
    match args.runs.len() {
        1 => {
            let sweep = read_sweep(dir)?;
            warn_of_other_data(dir, &Plan::read(dir)?);
            Ok(Some(sweep))
        }
        _ => Err(Error::Sweep {
            dir: dir.to_owned(),
            message: "is reported alone; to compare some of its trials with other runs, name their directories".to_owned(),
        }),
    }
}

fn has_checkpoint(run: &RunData) -> bool {
    checkpoint::list(&run.dir).is_ok_and(|all| !all.is_empty())
}

/// Whether the network is of the zoo, so that it can be built here.
fn is_ours(run: &RunData) -> bool {
    run.settings.contains_key("model.family")
}

/// Measures the run's Jacobians and stores them in its directory.
fn measure(run: &RunData) -> Result<Vec<Record>> {
    const INPUTS: usize = 2;
    let recipe = Recipe::of_run(&run.dir)?.recipe;
    let device = device::chosen(None, &recipe.settings.run.device)?;
    let given = Places {
        offline: true,
        ..Places::default()
    };
    let records = super::jacobian::of_run(&run.dir, "last", given, INPUTS, device)?;
    let json = serde_json::to_vec_pretty(&records).expect("records are JSON");
    write_atomic(&run.dir.join(lens::FILE), &json)?;
    Ok(records)
}

/// Replaces the text between `<!-- report NAME -->` and `<!-- /report NAME -->` in `file`.
fn insert(file: &Path, name: &str, table: &str) -> Result<()> {
    let text = fs::read_to_string(file).map_err(|e| Error::io("read", file, e))?;
    let (begin, end) = (
        format!("<!-- report {name} -->"),
        format!("<!-- /report {name} -->"),
    );
    let whole = text
        .split_once(&begin)
        .and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let Some((before, after)) = whole else {
        return Err(Error::Report(format!(
            "{} has no place for the table: it needs a line `{begin}` and one `{end}`",
            file.display()
        )));
    };
    let text = format!("{before}{begin}\n{table}{end}{after}");
    write_named(file, text.as_bytes())
}
