//! `rezero eval`

use std::path::Path;
use std::time::Instant;

use burn::tensor::Device;
use burn::train::InferenceStep;

use super::source::NamedRun;
use super::{out, places, scored};
use crate::cli::Eval;
use crate::device;
use crate::error::{Error, Result};
use crate::fit::{Input, Source, Trainee};
use crate::recipe::{Override, Recipe, Settings, TaskOf, TaskRecipe};
use crate::record::{Totals, checkpoint, run_dir};
use crate::task::{DataSet, Domain, Places};
use crate::{words, zoo};

pub fn run(args: &Eval) -> Result<()> {
    let source = NamedRun::find(&args.run)?;
    let run = source.dir();
    let trained = Recipe::of_run(run)?;
    let before = trained.recipe.clone();
    let wanted = trained.with(&overrides(args))?.recipe;
    match (&before.task, &wanted.task) {
        (TaskRecipe::Images(before), TaskRecipe::Images(of)) => {
            score(args, run, &wanted, before, of)
        }
        (TaskRecipe::Text(before), TaskRecipe::Text(of)) => score(args, run, &wanted, before, of),
        (TaskRecipe::Images(_), TaskRecipe::Text(_))
        | (TaskRecipe::Text(_), TaskRecipe::Images(_)) => Err(Error::RecipeValue {
            key: "model.family".to_owned(),
            message: "a run keeps its family".to_owned(),
        }),
    }
}

/// Scores the network of `trained` with the settings of `of`.
fn score<D: Domain>(
    args: &Eval,
    run: &Path,
    wanted: &Recipe,
    trained: &TaskOf<D>,
    of: &TaskOf<D>,
) -> Result<()> {
    D::may_score(trained, of)?;
    let settings = &wanted.settings;
    let identity = zoo::identity(trained, &settings.gates);
    let name = device::chosen(args.device.as_deref(), &settings.run.device)?;
    let device = device::select(name)?;
    let reader = checkpoint::choose(run, &args.checkpoint, &identity)?;
    let state = reader.state()?;

    let saved = run_dir::environment(run);
    let given = Places {
        text: args.text.clone(),
        dir: args.data_dir.clone(),
        offline: args.offline,
        image_memory: settings.run.image_memory,
    };
    let places = places(run, trained, saved.as_ref(), given, name)?;
    let set = D::open(&of.data, &places, args.split)?;
    let (data, items, subset) = (set.name().to_owned(), set.len(), set.is_subset());
    let model = zoo::draw(trained, settings, &D::form(&trained.data), &device);
    let model = scored(&args.run, &reader, model, args.raw)?;
    let started = Instant::now();
    let totals = totals(of, settings, set, &model, &device)?;
    let seconds = started.elapsed().as_secs_f64();

    let task = D::task();
    let step = state.step;
    let averaged = reader.has_average() && !args.raw;
    let extra = D::shown_of_scoring(of, &totals);
    if args.json {
        let mut result = serde_json::json!({
            "run": args.run.display().to_string(), "model": identity, "step": step, "data": data,
            "split": args.split.to_string(), "items": items, "subset": subset, "averaged": averaged,
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
        false => args.split.to_string(),
        true => format!("{} (a subset of the official set)", args.split),
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
) -> Result<Totals> {
    let source = D::for_scoring(of, settings, set, device)?;
    let trainee = Trainee::new(model.clone(), &settings.train);
    let mut total = Totals::default();
    for batch in source.batches_from(0, device) {
        let batch = batch.map_err(|e| Error::Training(e.to_string()))?;
        let mut output = InferenceStep::step(&trainee, Input::new(batch));
        output.read();
        total.add(&output.totals);
    }
    Ok(total)
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
