//! `rezero import`

use std::path::Path;

use burn::optim::lr_scheduler::LrScheduler;
use rezero_data::Split;
use rezero_nn::import::{ImportError, LmShape, TorchWeights, load};

use super::export::described;
use super::say;
use super::train::{RUNS, reads_text};
use crate::checkpoint::{State, Writer};
use crate::cli::Import;
use crate::data::Source;
use crate::device;
use crate::error::{Error, Result};
use crate::model::Network;
use crate::optim;
use crate::recipe::{Positions, Recipe};
use crate::run_dir::{self, Environment, RunDir};
use crate::schedule::{Dials, Schedule};

pub fn run(args: &Import) -> Result<()> {
    let mut overrides = args.overrides.clone();
    overrides.extend(reads_text(args.text.as_ref(), &overrides)?);
    let resolved = Recipe::resolve(&args.recipe, &overrides)?;
    let recipe = &resolved.recipe;
    for change in &resolved.changes {
        say!("{change}");
    }
    if !recipe.is_text() {
        return Err(Error::RecipeValue {
            key: "model".to_owned(),
            message: format!(
                "only language models are imported from PyTorch, got {}",
                recipe.model
            ),
        });
    }
    let weights = TorchWeights::open(&args.weights)?;
    agree(recipe, &weights)?;
    let device = device::select(&recipe.device)?;
    let Network::Lm(model) = Network::new(recipe, 256, &device) else {
        unreachable!("a recipe of text has a language model");
    };
    let model = load(model, &weights).map_err(|e| hinted(e, recipe, weights.lm_shape()))?;
    let network = Network::Lm(model);

    let dir = match &args.run_dir {
        Some(dir) => dir.clone(),
        None => run_dir::fresh(
            Path::new(RUNS),
            &format!("{}_imported", resolved.run_name()),
        ),
    };
    let text = match &args.text {
        Some(file) => Some(std::path::absolute(file).map_err(|e| Error::io("find", file, e))?),
        None => None,
    };
    if text.is_some() {
        let source = Source {
            text: text.clone(),
            ..Source::default()
        };
        source.open(recipe, Split::Valid)?;
    }
    let run = RunDir::create(&dir)?;
    // Step 0 of a run that has not begun: it can be scored, sampled, exported, and trained on.
    let state = State {
        recipe: recipe.fingerprint(),
        ..State::default()
    };
    let dials = Dials::default();
    let optimizer = optim::build(recipe, &dials);
    let schedule = Schedule::new(recipe, recipe.steps, dials);
    let parameters = network.parameter_count();
    let writer = Writer::new(run.path(), recipe.model_id(), parameters, recipe.keep);
    writer.save(
        &state,
        network,
        || optimizer.to_record(),
        schedule.to_record(),
    )?;
    // Last: without a recipe it is no run, and nobody can train on from half an import.
    run.describe(
        &resolved,
        &Environment {
            commands: vec![std::env::args().collect()],
            data_dir: None,
            text,
            device: format!("{device:?}"),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            data: String::new(),
            subset: false,
            parameters,
            grown_from: None,
        },
    )?;
    say!(
        "{} · {parameters} parameters from {} to {}",
        recipe.model_id(),
        args.weights.display(),
        dir.display()
    );
    if weights.metadata().get("n_heads").is_none() {
        say!(
            "not in the file, taken from the recipe: n_heads={} activation={} positions={} \
             embedding_scale={}; wrong ones give wrong numbers without an error",
            recipe.n_heads,
            recipe.activation,
            recipe.positions,
            recipe.embedding_scale
        );
    }
    let dir = dir.display();
    say!("score it with: rezero eval {dir}");
    say!("train on from it with: rezero train {dir} --resume");
    Ok(())
}

/// What `rezero export` wrote beside the weights must be what the recipe says.
fn agree(recipe: &Recipe, weights: &TorchWeights) -> Result<()> {
    let metadata = weights.metadata();
    let mut wrong: Vec<String> = described(recipe)
        .into_iter()
        .filter_map(|(key, have)| {
            let found = metadata.get(key)?;
            // A longer or shorter table of learned positions is a mismatch of shapes.
            let fits =
                *found == have || (key == "context" && recipe.positions != Positions::Learned);
            (!fits).then(|| format!("{key}={found}"))
        })
        .collect();
    // The notebook's table of sines and cosines.
    let sinusoidal = weights.names().any(|name| name.ends_with("pos_encoder.pe"));
    if sinusoidal && recipe.positions != Positions::Sinusoidal {
        wrong.push("positions=sinusoidal".to_owned());
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Error::Import {
            source: ImportError::Mismatch(Vec::new()),
            hint: format!(" the file says {}", wrong.join(" ")),
        }),
    }
}

/// The error with the settings that the file's shapes ask for, where they are others.
fn hinted(error: ImportError, recipe: &Recipe, shape: Option<LmShape>) -> Error {
    let mut wanted = Vec::new();
    if let Some(shape) = shape {
        let learned = recipe.positions == Positions::Learned;
        for (key, have, file) in [
            ("depth", recipe.depth, shape.n_layers),
            ("d_model", recipe.d_model, shape.d_model),
            ("d_ff", recipe.d_ff, shape.d_ff),
            (
                "context",
                recipe.context,
                shape.context.unwrap_or(recipe.context),
            ),
        ] {
            if have != file {
                wanted.push(format!("{key}={file}"));
            }
        }
        if shape.tied != recipe.tied {
            wanted.push(format!("tied={}", shape.tied));
        }
        if shape.context.is_some() != learned {
            wanted.push(match learned {
                true => "positions=sinusoidal (or rotary or none)".to_owned(),
                false => "positions=learned".to_owned(),
            });
        }
    }
    Error::Import {
        source: error,
        hint: match wanted.is_empty() {
            true => String::new(),
            false => format!("\nthe file's shapes ask for: {}", wanted.join(" ")),
        },
    }
}
