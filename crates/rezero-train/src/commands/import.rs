//! `rezero import`

use std::path::Path;

use burn::optim::lr_scheduler::LrScheduler;
use rezero_data::Split;
use rezero_nn::torch::{ImportError, TorchWeights, load};
use rezero_nn::transformer::{LmShape, Positions, lm_shape};

use super::export::described;
use super::train::reads_text;
use super::{RUNS, absolute, described_data, fingerprint, new_run, resume, say};
use crate::cli::Import;
use crate::device;
use crate::error::{Error, Result};
use crate::fit::{Model, Rates, Scheduler, Trainee, build_optimizer};
use crate::recipe::{Gates, Recipe, TaskRecipe};
use crate::record::{Environment, Opening, State, checkpoint};
use crate::task::{Domain, Places, Text};
use crate::words;
use crate::zoo::text::{Family, Network};
use crate::zoo::{self, ByteLm};

pub fn run(args: &Import) -> Result<()> {
    let mut overrides = args.overrides.clone();
    overrides.extend(reads_text(args.text.as_ref(), &overrides)?);
    let resolved = Recipe::resolve(&args.recipe, &overrides)?;
    let (recipe, settings) = (&resolved.recipe, &resolved.recipe.settings);
    for change in &resolved.changes {
        say!("{change}");
    }
    if !settings.train.from.is_empty() {
        return Err(Error::RecipeValue {
            key: "train.from".to_owned(),
            message: "has no effect: the weights are imported; leave it out".to_owned(),
        });
    }
    let identity = recipe.identity();
    let TaskRecipe::Text(of) = &recipe.task else {
        return Err(Error::RecipeValue {
            key: "model.family".to_owned(),
            message: format!("only language models are imported from PyTorch, got {identity}"),
        });
    };
    let Family::ByteLm(section) = &of.model;
    let weights = TorchWeights::open(&args.weights)?;
    agree(section, &settings.gates, &weights)?;
    let given = resolved
        .gives("run.device")
        .then_some(settings.run.device.as_str());
    let device = device::select(device::chosen(given, &settings.run.device)?)?;
    let Network::ByteLm(model) = zoo::draw(of, settings, &Text::form(&of.data), &device);
    let model = load(model, &weights).map_err(|e| hinted(e, section, lm_shape(&weights)))?;
    let network = Network::ByteLm(model);

    let name = format!("{}_imported", resolved.run_name());
    let place = new_run(args.run_dir.as_ref(), Path::new(RUNS), name);
    let text = args.text.as_deref().map(absolute).transpose()?;
    let mut data = String::new();
    if text.is_some() {
        let places = Places {
            text: text.clone(),
            ..Places::default()
        };
        let set = Text::open(&of.data, &places, Split::Train)?;
        data = described_data(&set, &fingerprint(of, &places)?);
    }
    // Step 0 of a run that has not begun: it can be scored, sampled, exported, and trained on.
    let state = State {
        recipe: recipe.fingerprint(),
        ..State::default()
    };
    let rates = Rates::default();
    let trainee = Trainee::new(network.clone(), &settings.train);
    let optimizer = build_optimizer(&settings.optimizer, &settings.gates, &rates, &trainee);
    let schedule = Scheduler::new(settings, settings.run.steps, 1, rates);
    let parameters = rezero_nn::parameter_count(&network);
    let environment = Environment {
        text,
        data,
        device: device::in_words(&[device]),
        parameters,
        task: Some(Text::task().described()),
        ..Environment::here(None)
    };
    let write = |run: &Path| {
        let writer = checkpoint::Writer::new(run, identity.clone(), parameters, settings.run.keep);
        let optimizer = || optimizer.to_record();
        writer.save(
            &state,
            network.to_weights(),
            None,
            optimizer,
            schedule.to_record(),
        )
    };
    let (name, text, seed) = (&resolved.name, recipe.to_toml(), settings.train.seed);
    let run = Opening::new(place).begin_with(name, &text, seed, &environment, write)?;
    let dir = run.path();
    say!(
        "{identity} · {parameters} parameters from {} to {}",
        args.weights.display(),
        dir.display()
    );
    if weights.metadata().get("n_heads").is_none() {
        say!(
            "not in the file, taken from the recipe: n_heads={} activation={} positions={} \
             embedding_scale={}; wrong ones give wrong numbers without an error",
            section.n_heads,
            section.activation,
            section.positions,
            section.embedding_scale
        );
    }
    say!("score it with: {}", words::command("eval", dir, &[]));
    say!("train on from it with: {}", resume(dir));
    Ok(())
}

/// Checks that the metadata that `rezero export` wrote agrees with the recipe.
fn agree(section: &ByteLm, gates: &Gates, weights: &TorchWeights) -> Result<()> {
    let metadata = weights.metadata();
    let mut wrong: Vec<String> = described(section, gates)
        .into_iter()
        .filter_map(|(key, have)| {
            let found = metadata.get(key)?;
            // A longer or shorter table of learned positions is a mismatch of shapes.
            let fits =
                *found == have || (key == "context" && section.positions != Positions::Learned);
            (!fits).then(|| format!("{key}={found}"))
        })
        .collect();
    // The notebook's table of sines and cosines.
    let sinusoidal = weights.names().any(|name| name.ends_with("pos_encoder.pe"));
    if sinusoidal && section.positions != Positions::Sinusoidal {
        wrong.push("positions=sinusoidal".to_owned());
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Error::Import {
            source: ImportError::Mismatch(Vec::new()),
            hint: format!("the file says {}; ", wrong.join(" ")),
        }),
    }
}

/// `error` with the settings that the file's shapes need, if they differ from the recipe's.
fn hinted(error: ImportError, section: &ByteLm, shape: Option<LmShape>) -> Error {
    let mut wanted = Vec::new();
    if let Some(shape) = shape {
        let learned = section.positions == Positions::Learned;
        for (key, have, file) in [
            ("depth", section.depth, shape.n_layers),
            ("d_model", section.d_model, shape.d_model),
            ("d_ff", section.d_ff, shape.d_ff),
            (
                "context",
                section.context,
                shape.context.unwrap_or(section.context),
            ),
        ] {
            if have != file {
                wanted.push(format!("{key}={file}"));
            }
        }
        if shape.tied != section.tied {
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
            false => format!("the file's shapes ask for {}\n", wanted.join(" ")),
        },
    }
}
