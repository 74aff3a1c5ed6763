//! `rezero eval`

use std::path::Path;
use std::time::Instant;

use burn::data::dataloader::DataLoader;
use burn::train::InferenceStep;
use rezero_data::Split;

use super::{out, say};
use crate::checkpoint::{self, Reader};
use crate::cli::Eval;
use crate::data::{Source, eval_loader};
use crate::device;
use crate::error::{Error, Result};
use crate::model::{Learnable, Network, Stats};
use crate::recipe::{Data, Override, Positions};
use crate::run_dir;

pub fn run(args: &Eval) -> Result<()> {
    let resolved = run_dir::recipe(&args.run)?;
    let trained = resolved.recipe.clone();
    let id = trained.model_id();
    let recipe = &resolved.with(&overrides(args))?.recipe;
    if recipe.positions == Positions::Learned && recipe.context > trained.context {
        return Err(Error::RecipeValue {
            key: "context".to_owned(),
            message: format!(
                "must be at most the model's {} learned positions, got {}",
                trained.context, recipe.context
            ),
        });
    }
    let device = device::select(args.device.as_ref().unwrap_or(&recipe.device))?;
    let reader = choose(&args.run, &args.checkpoint, &id)?;
    let step = reader.state()?.step;

    let (text, dir) =
        run_dir::environment(&args.run).map_or((None, None), |e| (e.text, e.data_dir));
    let source = Source {
        text: args.text.clone().or(text),
        dir: args.data_dir.clone().or(dir),
        offline: args.offline,
    };
    let set = source.open(recipe, args.split)?;
    if recipe.data == Data::Text && args.text.is_none() {
        // A file can change behind a run; a data set is verified.
        let print = |split| Ok::<_, Error>(source.open(&trained, split)?.fingerprint());
        let now = format!("{}+{}", print(Split::Train)?, print(Split::Valid)?);
        let recorded = reader.state()?.data;
        if !recorded.is_empty() && recorded != now {
            say!("the text is not the one that the run was trained on: it has changed since");
        }
    }
    let (name, items, subset) = (set.name().to_owned(), set.len(), set.is_subset());
    let network = reader.load_network(Network::new(&trained, set.num_classes(), &device))?;
    let loader = eval_loader(recipe, set, &device)?;
    let model = Learnable::new(network, recipe);

    let started = Instant::now();
    let mut total = Stats::default();
    for batch in loader.iter() {
        let batch = batch.map_err(|e| Error::Training(e.to_string()))?;
        let mut output = InferenceStep::step(&model, batch);
        output.read();
        total.add(&output.stats);
    }
    let seconds = started.elapsed().as_secs_f64();
    let stride = match recipe.stride {
        0 => recipe.context,
        stride => stride,
    };

    if args.json {
        let mut result = serde_json::json!({
            "run": args.run, "model": id, "step": step, "data": name,
            "split": args.split.to_string(), "items": items, "subset": subset,
            "accuracy": total.accuracy(), "loss": total.loss(), "seconds": seconds,
        });
        if recipe.is_text() {
            result["bpb"] = total.bits().into();
            result["perplexity"] = total.loss().exp().into();
            result["context"] = recipe.context.into();
            result["stride"] = stride.into();
        }
        out!("{result}");
        return Ok(());
    }
    let split = match subset {
        false => args.split.to_string(),
        true => format!("{} (a subset of the official set)", args.split),
    };
    out!("{id} · step {step} · {name} {split}");
    match recipe.is_text() {
        true => out!(
            "{:.4} bits per byte   perplexity {:.4}   accuracy {:.2} %   {items} bytes, context {}, stride {stride}   {seconds:.1} s",
            total.bits(),
            total.loss().exp(),
            100.0 * total.accuracy(),
            recipe.context,
        ),
        false => out!(
            "accuracy {:.2} %  ({} of {items})   loss {:.4}   {seconds:.1} s",
            100.0 * total.accuracy(),
            total.correct,
            total.loss()
        ),
    }
    Ok(())
}

/// What the arguments change of the run's recipe; the whole split is scored.
fn overrides(args: &Eval) -> Vec<Override> {
    let numbers = [
        ("context", args.context),
        ("stride", args.stride),
        ("batch", args.batch),
        // Without a batch of its own, an evaluation holds what a part of a training step does.
        ("accumulate", args.batch.map(|_| 1)),
        ("valid_items", Some(0)),
        ("train_items", Some(0)),
    ];
    numbers
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?.to_string())))
        .chain(args.text.is_some().then(|| ("data", "text".to_owned())))
        .map(|(key, value)| Override {
            key: key.to_owned(),
            value,
        })
        .collect()
}

/// The checkpoint that `which` names: `best`, `last` or a step.
pub fn choose(run: &Path, which: &str, model: &str) -> Result<Reader> {
    let all = checkpoint::list(run)?;
    let fail = |message: String| Error::Run {
        dir: run.to_owned(),
        message,
    };
    let (_, newest) = all
        .last_key_value()
        .ok_or_else(|| fail("has no checkpoint yet".to_owned()))?;
    match which {
        "last" => Reader::open(newest, model),
        "best" => {
            let newest = Reader::open(newest, model)?;
            match newest.state()?.best.and_then(|best| all.get(&best.step)) {
                Some(dir) => Reader::open(dir, model),
                None => Ok(newest),
            }
        }
        step => {
            let steps: Vec<String> = all.keys().map(usize::to_string).collect();
            let dir = step.parse().ok().and_then(|step: usize| all.get(&step));
            let dir = dir.ok_or_else(|| {
                fail(format!(
                    "has no checkpoint `{step}`; choose best, last or one of: {}",
                    steps.join(", ")
                ))
            })?;
            Reader::open(dir, model)
        }
    }
}
