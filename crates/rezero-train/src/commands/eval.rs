//! `rezero eval`

use std::time::Instant;

use burn::tensor::Device;
use rezero_data::Split;

use super::source::{NamedRun, is_zoo};
use super::{out, places, scored};
use crate::cli::Eval;
use crate::device;
use crate::error::{Error, Result};
use crate::fit::{self, Trainee, on_a_big_stack};
use crate::ranks::Ranks;
use crate::recipe::{Override, Recipe, Settings, TaskOf, TaskRecipe};
use crate::record::{Totals, checkpoint, run_dir};
use crate::task::{DataSet, Domain, Places};
use crate::{words, zoo};

pub fn run(args: &Eval) -> Result<()> {
    let ranks = match args.alone {
        true => Ranks::alone(),
        false => Ranks::join(args.rank_timeout, &[("command line", of_all_ranks(args))])?,
    };
    let scored = on_a_big_stack(|| eval(args, &ranks));
    scored.map_err(|error| ranks.end(error))
}

/// The words of the command line that all ranks must have alike, as of `rezero train`.
fn of_all_ranks(args: &Eval) -> String {
    let mut words = vec!["eval".to_owned(), args.run.to_string_lossy().into_owned()];
    let split = split(args).to_string();
    for (flag, value) in [("--split", &split), ("--checkpoint", &args.checkpoint)] {
        words.push(format!("{flag} {value}"));
    }
    words.extend(args.raw.then(|| "--raw".to_owned()));
    let numbers = [
        ("--context", args.context),
        ("--stride", args.stride),
        ("--batch", args.batch),
    ];
    let numbers = numbers.into_iter();
    words.extend(numbers.filter_map(|(flag, value)| Some(format!("{flag} {}", value?))));
    words.join(" ")
}

/// The split that is scored.
fn split(args: &Eval) -> Split {
    let default = match is_zoo(&args.run) {
        true => Split::Test,
        false => Split::Valid,
    };
    args.split.unwrap_or(default)
}

fn eval(args: &Eval, ranks: &Ranks) -> Result<()> {
    let (source, step) = NamedRun::on_all(ranks, &args.run, &args.checkpoint)?;
    let trained = Recipe::of_run(source.dir())?;
    let before = trained.recipe.clone();
    let wanted = ranks.agree(trained.with(&overrides(args)))?.recipe;
    let scored = Scored {
        args,
        ranks,
        source,
        step: &step,
        wanted: &wanted,
    };
    match (&before.task, &wanted.task) {
        (TaskRecipe::Images(before), TaskRecipe::Images(of)) => score(scored, before, of),
        (TaskRecipe::Text(before), TaskRecipe::Text(of)) => score(scored, before, of),
        (TaskRecipe::Images(_), TaskRecipe::Text(_))
        | (TaskRecipe::Text(_), TaskRecipe::Images(_)) => Err(Error::RecipeValue {
            key: "model.family".to_owned(),
            message: "a run keeps its family".to_owned(),
        }),
    }
}

/// What is scored, and by whom.
struct Scored<'a> {
    args: &'a Eval,
    ranks: &'a Ranks,
    source: NamedRun,
    /// The step of its checkpoint.
    step: &'a str,
    wanted: &'a Recipe,
}

/// Scores the network of `trained` with the settings of `of`.
fn score<D: Domain>(what: Scored<'_>, trained: &TaskOf<D>, of: &TaskOf<D>) -> Result<()> {
    let Scored {
        args,
        ranks,
        source,
        step,
        wanted,
    } = what;
    ranks.agree(D::may_score(trained, of))?;
    let run = source.dir();
    let settings = &wanted.settings;
    let identity = zoo::identity(trained, &settings.gates);
    let name = device::chosen(args.device.as_deref(), &settings.run.device)?;
    let local = device::of_rank(name, ranks.local_rank());
    let device = ranks.agree(device::select(&local))?;
    let reader = checkpoint::choose(run, step, &identity)?;
    let state = reader.state()?;

    let saved = run_dir::environment(run);
    let given = Places {
        text: args.text.clone(),
        dir: args.data_dir.clone(),
        offline: args.offline,
        image_memory: settings.run.image_memory,
    };
    let set = ranks.in_turn(|| {
        let places = places(run, trained, saved.as_ref(), given, name)?;
        D::open(&of.data, &places, split(args))
    })?;
    if ranks.size() > 1 {
        ranks.same(&[("data", &set.fingerprint()?)])?;
    }
    let (data, items, subset) = (set.name().to_owned(), set.len(), set.is_subset());
    let model = zoo::draw(trained, settings, &D::form(&trained.data), &device);
    let model = ranks.agree(scored(&args.run, &reader, model, args.raw))?;
    // A copy, on ranks above 0.
    drop(source);
    let started = Instant::now();
    let totals = totals(of, settings, set, &model, &device, ranks)?;
    let seconds = started.elapsed().as_secs_f64();
    if !ranks.leads() {
        return Ok(());
    }

    let task = D::task();
    let step = state.step;
    let averaged = reader.has_average() && !args.raw;
    let extra = D::shown_of_scoring(of, &totals);
    if args.json {
        let mut result = serde_json::json!({
            "run": args.run.display().to_string(), "model": identity, "step": step, "data": data,
            "split": split(args).to_string(), "items": items, "subset": subset, "averaged": averaged,
            "loss": totals.mean_loss(), "seconds": seconds,
        });
        for metric in &task.metrics {
            result[metric.key] = (metric.of)(&totals).into();
        }
        for (key, value, _) in extra {
            result[key] = value;
        }
        out!(
            "{}",
            words::json(&result).expect("a table of values is JSON")
        );
        return Ok(());
    }
    let split = match subset {
        false => split(args).to_string(),
        true => format!("{} (a subset of the official set)", split(args)),
    };
    let which = if averaged {
        " (average of the weights)"
    } else {
        ""
    };
    out!("{identity} · step {step}{which} · {data} {split}");
    let results = extra.into_iter().map(|(_, _, text)| text);
    out!(
        "{}   {}   {seconds:.1} s",
        results.collect::<Vec<_>>().join("   "),
        words::counted(items, task.items)
    );
    Ok(())
}

/// The sums over the whole of a set.
pub(super) fn totals<D: Domain>(
    of: &TaskOf<D>,
    settings: &Settings,
    set: D::Set,
    model: &D::Network,
    device: &Device,
    ranks: &Ranks,
) -> Result<Totals> {
    let source = D::for_scoring(of, settings, set, device)?;
    let trainee = Trainee::new(model.clone(), &settings.train);
    fit::totals(ranks, &trainee, source, device)
}

/// The changes that the arguments make to the run's recipe. The whole split is scored.
fn overrides(args: &Eval) -> Vec<Override> {
    let numbers = [
        ("model.context", args.context),
        ("data.stride", args.stride),
        ("train.batch", args.batch),
        // Without `--batch`, a batch is as large as one part of a training step.
        ("train.accumulate", args.batch.map(|_| 1)),
        ("data.valid_items", Some(0)),
        ("data.train_items", Some(0)),
    ];
    let mut all: Vec<Override> = numbers
        .into_iter()
        .filter_map(|(key, value)| Some(Override::new(key, value?.to_string())))
        .collect();
    if args.text.is_some() {
        all.push(Override::new("data.set", "text"));
    }
    all
}
