//! `rezero sweep`

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::train::reads_text;
use super::{absolute, out, say};
use crate::cli::Sweep;
use crate::error::{Error, Result};
use crate::fit::{on_signal, stop_status};
use crate::ranks::Ranks;
use crate::recipe::{Override, Recipe};
use crate::record::listing::{self, Listed};
use crate::record::sweep::{Mark, Plan, SweepDir, Trial, folder};
use crate::record::{DATA_OF_A_SWEEP, OF_A_SWEEP, Stage, run_dir};
use crate::sweep::{self, Described, Ended, Grid, Job, Slot, Word, agree, overrides};
use crate::{device, fit, words};

/// The folder of sweeps, unless `--dir` names another.
const SWEEPS: &str = "sweeps";

pub fn run(args: &Sweep) -> Result<()> {
    let ranks = Ranks::join(args.rank_timeout, &[("command line", of_all_ranks(args))])?;
    sweep(args, &ranks).map_err(|error| ranks.end(error))
}

/// The words of the command line that all ranks must have alike, as of `rezero train`.
fn of_all_ranks(args: &Sweep) -> String {
    let mut words = vec![
        "sweep".to_owned(),
        args.recipe.to_string_lossy().into_owned(),
    ];
    let values = args.words.iter();
    words.extend(values.map(|word| format!("{}={}", word.key, word.values.join(","))));
    let dir = args.dir.as_ref();
    words.extend(dir.map(|dir| format!("--dir {}", dir.display())));
    words.extend((!args.tune.is_empty()).then(|| format!("--tune {}", args.tune.join(","))));
    words.extend(args.dry_run.then(|| "--dry-run".to_owned()));
    words.join(" ")
}

/// A sweep that rank 0 has planned.
struct Planned {
    dir: PathBuf,
    grid: Grid,
    before: Option<Plan>,
    plan: Plan,
}

fn sweep(args: &Sweep, ranks: &Ranks) -> Result<()> {
    let planned = ranks.leads().then(|| planned(args, ranks));
    let planned = ranks.agree(planned.transpose())?;
    if args.dry_run {
        return match planned {
            Some(Planned { dir, plan, .. }) => list(&dir, &plan, args.json),
            None => Ok(()),
        };
    }
    let device = device_here(ranks, planned.as_ref())?;
    let threads = ranks.share_processors()?;
    let slots = ranks.agree(slots(args, ranks, device, threads))?;
    let opened = ranks.agree(planned.as_ref().map(opened).transpose())?;
    must_be_shared(ranks, opened.as_ref())?;
    let trained = train(args, planned.as_ref(), &slots, ranks);
    ranks.agree(trained)?;
    if let (true, Some(Planned { dir, plan, .. })) = (args.json, planned) {
        list(&dir, &plan, true)?;
    }
    Ok(())
}

fn planned(args: &Sweep, ranks: &Ranks) -> Result<Planned> {
    let mut dir = place(args);
    if ranks.size() > 1 {
        // Other ranks may work elsewhere.
        dir = absolute(&dir)?;
    }
    let grid = grid(args)?;
    let before = match Plan::is_in(&dir) {
        true => Some(Plan::read(&dir)?),
        false => None,
    };
    let plan = grid.plan(before.as_ref())?;
    let more = match &before {
        Some(before) => agree(&dir, before, &plan)?,
        None => 0,
    };
    describe(&dir, &plan, more);
    Ok(Planned {
        dir,
        grid,
        before,
        plan,
    })
}

/// The directory with its plan, held by this process.
fn opened(planned: &Planned) -> Result<SweepDir> {
    let Planned {
        dir, before, plan, ..
    } = planned;
    let sweep = SweepDir::open(dir)?;
    match written(dir, &sweep, plan, before.as_ref()) {
        Ok(()) => Ok(sweep),
        Err(error) => {
            if before.is_none() {
                sweep.give_up();
            }
            Err(error)
        }
    }
}

/// Checks that all ranks read the same recipe, and returns its device.
fn device_here(ranks: &Ranks, planned: Option<&Planned>) -> Result<String> {
    let own = planned.map(|planned| recipe_path(ranks, &planned.grid));
    let own = ranks.agree(own.transpose())?;
    let named: OsString = ranks.of_first(own.as_ref())?;
    let recipe = ranks.agree(Recipe::resolve(&named, &[]))?.recipe;
    ranks.same(&[("recipe", &recipe.fingerprint())])?;
    Ok(recipe.settings.run.device)
}

/// The recipe as a trial's process names it.
fn recipe_path(ranks: &Ranks, grid: &Grid) -> Result<OsString> {
    let is_file = grid.recipe.to_string_lossy().ends_with(".toml");
    match is_file && ranks.size() > 1 {
        true => Ok(absolute(Path::new(&grid.recipe))?.into_os_string()),
        false => Ok(grid.recipe.clone()),
    }
}

/// Checks that all ranks see the directory, which rank 0 has.
fn must_be_shared(ranks: &Ranks, sweep: Option<&SweepDir>) -> Result<()> {
    if ranks.size() == 1 {
        return Ok(());
    }
    let own = ranks.agree(sweep.map(SweepDir::mark).transpose())?;
    let mark: Mark = ranks.of_first(own.as_ref())?;
    let seen = ranks.agree(match mark.is_seen() {
        true => Ok(()),
        false => Err(Error::Sweep {
            dir: mark.dir(),
            message: "is not the directory of that path here: each rank writes its trials into it, so it must be on a \
                      disk that all hosts share; choose one with --dir"
                .to_owned(),
        }),
    });
    if let Some(own) = own {
        own.remove();
    }
    seen
}

/// The plan is written before the first trial begins, by the process that has the directory.
fn written(dir: &Path, sweep: &SweepDir, plan: &Plan, before: Option<&Plan>) -> Result<()> {
    // Another sweep may have had the directory when the plan was read.
    let now = Plan::is_in(dir).then(|| Plan::read(dir)).transpose()?;
    if now.as_ref() != before {
        return Err(Error::Sweep {
            dir: dir.to_owned(),
            message: "has changed meanwhile; give the command again".to_owned(),
        });
    }
    match now.as_ref() == Some(plan) {
        true => Ok(()),
        false => sweep.describe(plan),
    }
}

/// The directory that is named, or one of the name of the recipe or the file.
fn place(args: &Sweep) -> PathBuf {
    let stem = Path::new(&args.recipe).file_stem();
    let name = stem.unwrap_or(OsStr::new("sweep"));
    let default = || Path::new(SWEEPS).join(name);
    args.dir.clone().unwrap_or_else(default)
}

fn grid(args: &Sweep) -> Result<Grid> {
    let path = Path::new(&args.recipe);
    if Plan::is_in(path) {
        return Err(Error::Sweep {
            dir: path.to_owned(),
            message: "is a sweep's directory; to continue it, give the command that began it again"
                .to_owned(),
        });
    }
    let mut words = args.words.clone();
    let values: Vec<Override> = words
        .iter()
        .flat_map(|word| {
            let values = word.values.iter();
            values.map(|value| Override::new(&word.key, value))
        })
        .collect();
    if let Some(text) = reads_text(args.text.as_ref(), &values)?
        && !values.iter().any(|o| o.value == "text")
    {
        words.push(Word {
            key: text.key,
            values: vec![text.value],
        });
    }
    let tune = (!args.tune.is_empty()).then(|| args.tune.clone());
    match Described::is_at(path) {
        true => Grid::of_file(path, &words, tune),
        false => Ok(Grid {
            recipe: args.recipe.clone(),
            words,
            tune,
            arms: Vec::new(),
        }),
    }
}

/// Says what the sweep consists of.
fn describe(dir: &Path, plan: &Plan, more: usize) {
    let count = |of: &dyn Fn(&Trial) -> String| {
        let mut all: Vec<String> = plan.trials.iter().map(of).collect();
        all.sort_unstable();
        all.dedup();
        all.len()
    };
    let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let tuned = match plan.tuned.is_empty() {
        true => "no key is tuned".to_owned(),
        false => format!(
            "{} of {}",
            plural(count(&|t| t.values.join(",")), "value"),
            plan.tuned.join(", ")
        ),
    };
    say!(
        "sweep {}: {} ({}, {tuned}, {}){}",
        words::path(dir),
        plural(plan.trials.len(), "trial"),
        plural(count(&|t| t.arm.clone()), "arm"),
        plural(count(&|t| t.seed.to_string()), "seed"),
        match more {
            0 => String::new(),
            n => format!(", {n} more than the directory has"),
        }
    );
}

/// The places in which trials of this process run. `own` is the recipe's device; as many processes as `sharing` have the
/// same processors.
fn slots(args: &Sweep, ranks: &Ranks, own: String, sharing: usize) -> Result<Vec<Slot>> {
    // A trial is alone and would take the first device of several.
    let of_rank = own.contains(":auto") && ranks.size() > 1;
    let given = args.device.clone().or(of_rank.then_some(own));
    let devices: Vec<Option<String>> = match given {
        None => vec![None],
        Some(list) => device::of_rank(&list, ranks.local_rank())
            .split(',')
            .map(|name| Some(name.trim().to_owned()))
            .collect(),
    };
    for name in devices.iter().flatten() {
        // Only the trials open what there is: this process needs no memory on it.
        if !device::backend(name).is_some_and(|backend| backend.compiled) {
            device::select(name)?;
        }
    }
    let all = devices.len() * args.jobs * sharing;
    // What the user set for all processes stays.
    let set = std::env::var_os("RAYON_NUM_THREADS").is_some();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.or((!set).then(|| (cores / all).max(1)));
    let slots = (0..args.jobs).flat_map(|_| devices.iter().cloned());
    Ok(slots.map(|device| Slot { device, threads }).collect())
}

/// The trials that are left to do, and those that have ended before.
struct ToDo {
    jobs: Vec<Job>,
    /// Those that are continued.
    begun: BTreeSet<usize>,
    ended: usize,
    /// How many have ended in which way.
    stages: BTreeMap<&'static str, u32>,
}

fn to_do(args: &Sweep, planned: &Planned, ranks: &Ranks) -> Result<ToDo> {
    let Planned {
        dir, grid, plan, ..
    } = planned;
    let (known, recipe) = (known_data(dir, plan), recipe_path(ranks, grid)?);
    let mut to_do = ToDo {
        jobs: Vec::new(),
        begun: BTreeSet::new(),
        ended: 0,
        stages: BTreeMap::new(),
    };
    for (index, trial) in plan.trials.iter().enumerate() {
        let run = folder(dir, trial)?;
        let begun = run.join("recipe.toml").exists();
        if begun {
            must_be_of(grid, trial, &run)?;
            to_do.begun.insert(index);
            let stage = Stage::of(&run);
            if matches!(stage, Stage::Done | Stage::Diverged) {
                to_do.ended += 1;
                *to_do.stages.entry(stage.name()).or_insert(0) += 1;
                continue;
            }
        }
        to_do.jobs.push(Job {
            index,
            words: command(args, &recipe, trial, &run, begun, &known)?,
        });
    }
    if to_do.ended > 0 {
        let all = plan.trials.len();
        say!("{} of {all} trials have ended before", to_do.ended);
    }
    Ok(to_do)
}

/// Starts the trials that have not ended.
fn train(args: &Sweep, planned: Option<&Planned>, slots: &[Slot], ranks: &Ranks) -> Result<()> {
    let own = planned.map(|planned| to_do(args, planned, ranks));
    let own = ranks.agree(own.transpose())?;
    let slots_of_all: Vec<usize> = ranks.gather(&slots.len())?;
    let interrupter = on_signal(fit::OnTerm::default());
    let (Some(Planned { dir, plan, .. }), Some(own)) = (planned, own) else {
        return sweep::run(Vec::new(), slots, &interrupter, ranks, |_, _| {}).map(drop);
    };
    let ToDo {
        jobs,
        begun: begun_before,
        mut ended,
        mut stages,
    } = own;
    let (all, left) = (plan.trials.len(), jobs.len());
    let (mut spent, mut whole, mut here, mut failed) = (Duration::ZERO, 0u32, 0, Vec::new());
    let stopped = sweep::run(jobs, slots, &interrupter, ranks, |rank, event: Ended| {
        let trial = &plan.trials[event.index];
        let result = match event.code {
            Some(0) => {
                *stages.entry("done").or_insert(0) += 1;
                run_dir::summary(&dir.join(&trial.name)).unwrap_or_else(|| "done".to_owned())
            }
            Some(3) => {
                *stages.entry("diverged").or_insert(0) += 1;
                let said = event.said.trim_start_matches("error: ");
                said.split("; ").next().unwrap_or_default().to_owned()
            }
            // It was asked to.
            Some(129..=143) if interrupter.should_stop() => {
                say!("{}: stopped", trial.name);
                return;
            }
            _ => {
                let why = match (event.code, event.said.is_empty()) {
                    (_, false) => event.said.trim_start_matches("error: ").to_owned(),
                    (Some(code), true) => format!("its process ended with the status {code}"),
                    (None, true) => "a signal ended its process".to_owned(),
                };
                let place = match ranks.size() {
                    1 => String::new(),
                    _ => format!(" on {}", ranks.hosts()[rank]),
                };
                say!("{}: failed{place}: {why}", trial.name);
                failed.push(trial.name.clone());
                return;
            }
        };
        (ended, here) = (ended + 1, here + 1);
        // A trial that is continued takes less time than a whole one.
        if !begun_before.contains(&event.index) {
            (whole, spent) = (whole + 1, spent + event.took);
        }
        let eta = match ((left - here) as u32, whole) {
            (0, _) | (_, 0) => String::new(),
            (n, whole) => {
                let busy = slots_of_all.iter().sum::<usize>().min(left) as u32;
                let time = spent / whole * n / busy;
                format!(", about {} left", words::duration(time))
            }
        };
        say!(
            "{ended}/{all} {}: {result} ({}{eta})",
            trial.name,
            words::duration(event.took)
        );
    })?;
    if stopped && ended < all {
        return Err(Error::SweepStopped {
            ended,
            trials: all,
            resume: words::this_command(),
            status: stop_status(),
        });
    }
    if let Some(first) = failed.first() {
        return Err(Error::Sweep {
            dir: dir.to_owned(),
            message: format!(
                "{} of {all} trials failed, the first is {first}; the same command tries them again",
                failed.len()
            ),
        });
    }
    let counts: Vec<String> = stages
        .iter()
        .map(|(name, n)| format!("{n} {name}"))
        .collect();
    match all {
        1 => say!("the trial has ended: {}", counts.join(", ")),
        _ => say!("all {all} trials have ended: {}", counts.join(", ")),
    }
    warn_of_other_data(dir, plan);
    say!("report it with: {}", words::command("report", dir, &[]));
    Ok(())
}

/// Checks that the run in a trial's folder is the trial: somebody may have put another one there.
fn must_be_of(grid: &Grid, trial: &Trial, run: &Path) -> Result<()> {
    let saved = Recipe::of_run(run)?.recipe;
    let wanted = Recipe::resolve(&grid.recipe, &overrides(&trial.set))?.recipe;
    // What the trial found in its data.
    let wanted = wanted.completed_as(&saved);
    match saved.is_as_long_as(&wanted) && saved.fingerprint() == wanted.fingerprint() {
        true => Ok(()),
        false => Err(Error::Run {
            dir: run.to_owned(),
            message: "is not the trial of that name: its recipe.toml has other settings; move it elsewhere".to_owned(),
        }),
    }
}

/// What a trial sets of its data.
fn data_keys(trial: &Trial) -> Vec<String> {
    let set = trial.set.iter();
    let of_data = set.filter(|(key, _)| key.starts_with("data."));
    of_data
        .map(|(key, value)| format!("{key}={value}"))
        .collect()
}

/// The hashes of the data of trials that have begun, by what they set of it: the trials to come must have the same.
fn known_data(dir: &Path, plan: &Plan) -> BTreeMap<Vec<String>, String> {
    let mut known = BTreeMap::new();
    for trial in &plan.trials {
        let Some(environment) = run_dir::environment(&dir.join(&trial.name)) else {
            continue;
        };
        // The last word of `described_data`; it may come from somebody else.
        let hash = environment.data.rsplit(' ').next().unwrap_or_default();
        if !hash.is_empty() && hash.chars().all(|c| c.is_ascii_hexdigit() || c == '+') {
            known.entry(data_keys(trial)).or_insert(hash.to_owned());
        }
    }
    known
}

/// Trials of one sweep may have different data, if a key says so or its directory comes from several machines: they
/// cannot be compared then.
pub(super) fn warn_of_other_data(dir: &Path, plan: &Plan) {
    let runs = plan.trials.iter().map(|trial| dir.join(&trial.name));
    let mut data: Vec<String> = runs
        .filter_map(|run| Some(run_dir::environment(&run)?.data))
        .collect();
    data.sort_unstable();
    data.dedup();
    if data.len() > 1 {
        say!(
            "warning: the trials have {} different data sets, so they cannot be compared: {}",
            data.len(),
            data.join("; ")
        );
    }
}

/// The words of the command that begins or continues a trial.
fn command(
    args: &Sweep,
    recipe: &OsStr,
    trial: &Trial,
    run: &Path,
    begun: bool,
    known: &BTreeMap<Vec<String>, String>,
) -> Result<Vec<OsString>> {
    let mut all: Vec<OsString> = vec!["train".into(), recipe.to_owned()];
    all.extend(trial.set.iter().map(|(k, v)| format!("{k}={v}").into()));
    all.extend([
        "--run-dir".into(),
        run.into(),
        "--plain".into(),
        "--alone".into(),
        OF_A_SWEEP.into(),
    ]);
    for (flag, path) in [("--data-dir", &args.data_dir), ("--text", &args.text)] {
        if let Some(path) = path {
            all.extend([flag.into(), absolute(path)?.into()]);
        }
    }
    // A trial that is continued compares the data with its own.
    if let Some(data) = known.get(&data_keys(trial)).filter(|_| !begun) {
        all.push(format!("{DATA_OF_A_SWEEP}={data}").into());
    }
    for (flag, given) in [("--offline", args.offline), ("--resume", begun)] {
        if given {
            all.push(flag.into());
        }
    }
    Ok(all)
}

/// Prints the trials, as lines or as JSON.
fn list(dir: &Path, plan: &Plan, as_json: bool) -> Result<()> {
    let runs = listing::list([dir]).into_iter();
    let runs: BTreeMap<PathBuf, Listed> = runs.map(|run| (run.dir.clone(), run)).collect();
    // What all trials share is said once.
    let first = plan.trials.first().filter(|_| plan.trials.len() > 1);
    let mut common = first.map_or_else(BTreeMap::new, |trial| trial.set.clone());
    for trial in &plan.trials {
        common.retain(|key, value| trial.set.get(key) == Some(value));
    }
    let words = |set: &mut dyn Iterator<Item = (&String, &String)>| {
        let words: Vec<String> = set.map(|(k, v)| format!("{k}={v}")).collect();
        words.join(" ")
    };
    if !as_json && !common.is_empty() {
        out!("all trials: {}", words(&mut common.iter()));
    }
    for trial in &plan.trials {
        let path = folder(dir, trial)?;
        let run = runs.get(&path);
        if !as_json {
            let stage = run.map_or("new", |run| run.stage.name());
            let mut own = trial
                .set
                .iter()
                .filter(|(key, _)| !common.contains_key(*key));
            out!("{} ({stage}): {}", trial.name, words(&mut own));
            continue;
        }
        let tuned: BTreeMap<&String, &String> = plan.tuned.iter().zip(&trial.values).collect();
        let value = json!({
            "name": trial.name,
            "dir": words::path(&path),
            "arm": trial.arm,
            "tuned": tuned,
            "seed": trial.seed,
            "set": trial.set,
            "state": run.map_or("new", |run| run.stage.name()),
            "step": run.map_or(0, |run| run.step),
            "best": run.and_then(|run| run.best),
        });
        out!(
            "{}",
            words::json(&value).expect("a table of values is JSON")
        );
    }
    Ok(())
}
