//! `rezero eval`

use std::path::Path;
use std::time::Instant;

use burn::data::dataloader::DataLoader;
use burn::train::InferenceStep;
use rezero_data::Split;

use super::out;
use crate::checkpoint::{self, Reader};
use crate::cli::Eval;
use crate::data::{Source, eval_loader};
use crate::device;
use crate::error::{Error, Result};
use crate::model::{Classifier, Network, Stats};
use crate::run_dir;

pub fn run(args: &Eval) -> Result<()> {
    let resolved = run_dir::recipe(&args.run)?;
    let recipe = &resolved.recipe;
    let device = device::select(args.device.as_ref().unwrap_or(&recipe.device))?;
    let reader = choose(&args.run, &args.checkpoint, &recipe.model_id())?;
    let step = reader.state()?.step;

    let source = Source {
        dir: args
            .data_dir
            .clone()
            .or_else(|| run_dir::environment(&args.run)?.data_dir),
        offline: args.offline,
    };
    let set = source.open(recipe, args.split)?;
    let (items, subset) = (set.len(), set.is_subset());
    let network = reader.load_network(Network::new(recipe, set.num_classes(), &device))?;
    let loader = eval_loader(recipe, set, &device)?;
    let model = Classifier {
        network,
        clip_norm: 0.0,
    };

    let started = Instant::now();
    let mut total = Stats::default();
    for batch in loader.iter() {
        let batch = batch.map_err(|e| Error::Training(e.to_string()))?;
        let mut output = InferenceStep::step(&model, batch);
        output.read();
        total.add(&output.stats);
    }
    let seconds = started.elapsed().as_secs_f64();

    if args.json {
        let result = serde_json::json!({
            "run": args.run, "model": recipe.model_id(), "step": step, "data": recipe.data,
            "split": args.split.to_string(), "items": items, "subset": subset,
            "accuracy": total.accuracy(), "loss": total.loss(), "seconds": seconds,
        });
        out!("{result}");
        return Ok(());
    }
    let name = match (args.split, subset) {
        (Split::Test, false) => "test".to_owned(),
        (split, false) => split.to_string(),
        (split, true) => format!("{split} (a subset of the official set)"),
    };
    out!(
        "{} · step {step} · {} {name}\naccuracy {:.2} %  ({} of {items})   loss {:.4}   {seconds:.1} s",
        recipe.model_id(),
        recipe.data,
        100.0 * total.accuracy(),
        total.correct,
        total.loss()
    );
    Ok(())
}

/// The checkpoint that `which` names: `best`, `last` or a step.
fn choose(run: &Path, which: &str, model: &str) -> Result<Reader> {
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
