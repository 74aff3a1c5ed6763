//! `rezero grow`

use std::path::Path;

use burn::optim::lr_scheduler::LrScheduler;

use super::eval::choose;
use super::{say, train};
use crate::checkpoint::{State, Writer};
use crate::cli::{Grow, Train};
use crate::device;
use crate::error::{Error, Result};
use crate::model::Network;
use crate::recipe::Override;
use crate::run_dir::{self, Environment, RunDir};
use crate::schedule::{Dials, Schedule};

pub fn run(args: Grow) -> Result<()> {
    let old = run_dir::recipe(&args.run)?;
    let overridden = |key: &str| args.overrides.iter().any(|o| o.key == key);
    if overridden("depth") {
        return Err(Error::RecipeValue {
            key: "depth".to_owned(),
            message: "is what --layers sets".to_owned(),
        });
    }
    let mut overrides = vec![Override {
        key: "depth".to_owned(),
        value: args.layers.to_string(),
    }];
    if !overridden("seed") {
        // Another order of the data than the run has seen.
        overrides.push(Override {
            key: "seed".to_owned(),
            value: old.recipe.seed.wrapping_add(1).to_string(),
        });
    }
    overrides.extend(args.overrides.iter().cloned());
    let resolved = old.clone().with(&overrides)?;
    let recipe = &resolved.recipe;

    let mut deeper = old.recipe.clone();
    deeper.depth = recipe.depth;
    if deeper.model_id() != recipe.model_id() {
        return Err(Error::Run {
            dir: args.run.clone(),
            message: format!(
                "grows in depth alone: `{}` cannot become `{}`",
                deeper.model_id(),
                recipe.model_id()
            ),
        });
    }
    let device = device::select(&recipe.device)?;
    let reader = choose(&args.run, &args.checkpoint, &old.recipe.model_id())?;
    let step = reader.state()?.step;
    let network = Network::new(&old.recipe, recipe.num_classes(), &device);
    let network = reader.load_network(network)?;
    let before = network.parameter_count();
    let network = network
        .grow(recipe, args.place.into())
        .map_err(|e| Error::Run {
            dir: args.run.clone(),
            message: e.to_string(),
        })?;
    let parameters = network.parameter_count();

    let dir = match &args.run_dir {
        Some(dir) => dir.clone(),
        None => {
            // `.` has a name only in full.
            let run =
                std::path::absolute(&args.run).map_err(|e| Error::io("find", &args.run, e))?;
            let run = run.components().as_path().to_owned();
            let name = run.file_name().unwrap_or_default().to_string_lossy();
            let base = run.parent().unwrap_or(Path::new(train::RUNS));
            run_dir::fresh(base, &format!("{name}_grown-{}", args.layers))
        }
    };
    let run = RunDir::create(&dir)?;
    // Step 0 of a run of its own, whose weights and optimizer are the old run's.
    let state = State {
        recipe: recipe.fingerprint(),
        ..State::default()
    };
    let optimizer = reader.optimizer()?;
    let schedule = Schedule::new(recipe, recipe.steps, Dials::default());
    let writer = Writer::new(run.path(), recipe.model_id(), parameters, recipe.keep);
    writer.save(&state, network, || optimizer, schedule.to_record())?;
    let (data_dir, text) =
        run_dir::environment(&args.run).map_or((None, None), |e| (e.data_dir, e.text));
    // Last: without a recipe it is no run.
    run.describe(
        &resolved,
        &Environment {
            commands: vec![std::env::args().collect()],
            data_dir,
            text,
            device: format!("{device:?}"),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            data: String::new(),
            subset: false,
            parameters,
            grown_from: Some(args.run.clone()),
        },
    )?;
    drop(run);
    say!(
        "{} of step {step} grown from {} to {} layers, {before} to {parameters} parameters: {}",
        args.run.display(),
        old.recipe.depth,
        recipe.depth,
        dir.display()
    );
    for change in &resolved.changes {
        say!("{change}");
    }
    if args.only {
        say!("train it with: rezero train {} --resume", dir.display());
        return Ok(());
    }
    train::run(Train {
        recipe: dir.to_string_lossy().into_owned(),
        overrides: Vec::new(),
        data_dir: None,
        text: None,
        run_dir: None,
        resume: true,
        device: None,
        devices: None,
        offline: args.offline,
        plain: args.plain,
    })
}
