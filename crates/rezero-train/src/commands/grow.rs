//! `rezero grow`

use std::path::{Path, PathBuf};

use burn::optim::lr_scheduler::LrScheduler;
use rezero_data::Split;

use super::source::NamedRun;
use super::{absolute, described_data, fingerprint, new_run, places, resume, say, train};
use crate::cli::{Grow, Train};
use crate::device;
use crate::error::{Error, Result};
use crate::fit::{Model, Rates, Scheduler, load, load_average};
use crate::ranks;
use crate::recipe::{Override, Recipe, Resolved, TaskOf, TaskRecipe};
use crate::record::{Environment, Opening, State, checkpoint, run_dir};
use crate::task::{Domain, Places};
use crate::zoo::{self, Families};

pub fn run(args: Grow) -> Result<()> {
    let source = NamedRun::find(&args.run)?;
    let old = Recipe::of_run(source.dir())?;
    let overridden = |key: &str| {
        let names = args.overrides.iter().map(|o| o.key.as_str());
        names
            .into_iter()
            .any(|name| name == key || name.ends_with(&format!(".{key}")))
    };
    if overridden("depth") {
        return Err(Error::RecipeValue {
            key: "model.depth".to_owned(),
            message: "is what --layers sets".to_owned(),
        });
    }
    if overridden("from") {
        return Err(Error::RecipeValue {
            key: "train.from".to_owned(),
            message: "has no effect: the weights are those of the run that grows; leave it out"
                .to_owned(),
        });
    }
    let mut overrides = vec![Override::new("model.depth", args.layers.to_string())];
    if !overridden("seed") {
        // A new seed gives another order of the data than the run has seen.
        let seed = old.recipe.settings.train.seed.wrapping_add(1);
        overrides.push(Override::new("train.seed", seed.to_string()));
    }
    let depth = Recipe::clone(&old.clone().with(&overrides)?.recipe).identity();
    overrides.extend(args.overrides.iter().cloned());
    let resolved = old.clone().with(&overrides)?;
    if depth != resolved.recipe.identity() {
        return Err(Error::Run {
            dir: args.run.clone(),
            message: format!(
                "grows in depth alone: `{depth}` cannot become `{}`",
                resolved.recipe.identity()
            ),
        });
    }
    let stored = &resolved.recipe.settings.run.device;
    let given = resolved.gives("run.device").then_some(stored.as_str());
    let device = device::chosen(given, stored)?;
    let old = &old.recipe;
    let dir = match (&old.task, &resolved.recipe.task) {
        (TaskRecipe::Images(of), TaskRecipe::Images(to)) => {
            grow(&args, &source, old, &resolved, [of, to], device)
        }
        (TaskRecipe::Text(of), TaskRecipe::Text(to)) => {
            grow(&args, &source, old, &resolved, [of, to], device)
        }
        (TaskRecipe::Images(_), TaskRecipe::Text(_))
        | (TaskRecipe::Text(_), TaskRecipe::Images(_)) => Err(Error::RecipeValue {
            key: "model.family".to_owned(),
            message: "a run keeps its family".to_owned(),
        }),
    }?;
    for change in &resolved.changes {
        say!("{change}");
    }
    if args.only {
        say!("train it with: {}", resume(&dir));
        return Ok(());
    }
    train::run(&Train {
        alone: true,
        rank_timeout: ranks::PATIENCE,
        recipe: dir.into_os_string(),
        // The new run's file alone cannot choose another machine.
        overrides: given
            .map(|device| Override::new("run.device", device))
            .into_iter()
            .collect(),
        data_dir: None,
        text: None,
        run_dir: None,
        resume: true,
        device: None,
        devices: None,
        offline: args.offline,
        plain: args.plain,
        on_term: args.on_term,
        of_sweep: false,
        restarts: None,
        launcher: None,
        supervised: false,
        data_of_sweep: None,
    })
}

/// Writes the grown network as step 0 of a new run, with the weights and the optimizer's state of
/// the old run.
fn grow<D: Domain>(
    args: &Grow,
    source: &NamedRun,
    old: &Recipe,
    resolved: &Resolved,
    [of, to]: [&TaskOf<D>; 2],
    device: &str,
) -> Result<PathBuf> {
    let (recipe, settings) = (&resolved.recipe, &resolved.recipe.settings);
    if settings.run.steps > 0 {
        // Before anything is written. A warm-up in epochs is checked once the data is read.
        settings.schedule.must_fit(1, settings.run.steps)?;
    }
    let deeper = of.model.clone().with_depth(args.layers);
    let deeper = TaskOf::<D> {
        model: deeper,
        data: of.data.clone(),
    };
    let form = D::form(&of.data);
    let (data, recorded) = data(args, source.dir(), [of, to], device)?;
    let device = device::select(device)?;
    let reader = checkpoint::choose(source.dir(), &args.checkpoint, &old.identity())?;
    let step = reader.state()?.step;
    let network = load(&reader, zoo::draw(of, &old.settings, &form, &device))?;
    let before = rezero_nn::parameter_count(&network);
    let optimizer = reader.optimizer(&network)?;
    let grow = |network| {
        zoo::grow(&deeper, settings, &form, network, args.place.into()).map_err(|e| Error::Run {
            dir: args.run.clone(),
            message: e.to_string(),
        })
    };
    // With the same new layers.
    let average = match settings.train.ema > 0.0 && reader.has_average() {
        true => {
            let network = zoo::draw(of, &old.settings, &form, &device);
            Some(grow(load_average(&reader, network)?)?)
        }
        false => None,
    };
    let network = grow(network)?;
    let parameters = rezero_nn::parameter_count(&network);

    let (base, name) = source.beside()?;
    let name = format!("{name}_grown-{}", args.layers);
    let place = new_run(args.run_dir.as_ref(), &base, name);
    let state = State {
        recipe: recipe.fingerprint(),
        ..State::default()
    };
    let schedule = Scheduler::new(settings, settings.run.steps.max(1), 1, Rates::default());
    let environment = Environment {
        data_dir: data.dir,
        text: data.text,
        data: recorded,
        device: device::in_words(&[device]),
        parameters,
        task: Some(D::task().described()),
        grown_from: Some(args.run.clone()),
        ..Environment::here(None)
    };
    let write = |run: &Path| {
        let writer = checkpoint::Writer::new(run, recipe.identity(), parameters, settings.run.keep);
        writer.save(
            &state,
            network.to_weights(),
            average.as_ref().map(Model::to_weights),
            optimizer.into(),
            schedule.to_record(),
        )
    };
    let opening = Opening::new(place);
    let (name, text) = (&resolved.name, recipe.to_toml());
    let begun = opening.begin_with(name, &text, settings.train.seed, &environment, write)?;
    let dir = begun.path().to_owned();
    say!(
        "{} of step {step} grown from {} to {} layers, {before} to {parameters} parameters: {}",
        args.run.display(),
        of.model.depth(),
        args.layers,
        dir.display()
    );
    Ok(dir)
}

/// Where the data of the old run is, and its description, for the `env.json` of the new run.
fn data<D: Domain>(
    args: &Grow,
    run: &Path,
    [of, to]: [&TaskOf<D>; 2],
    device: &str,
) -> Result<(Places, String)> {
    let given = Places {
        text: args.text.as_deref().map(absolute).transpose()?,
        dir: args.data_dir.as_deref().map(absolute).transpose()?,
        offline: args.offline,
        ..Places::default()
    };
    let is_given = given.text.is_some() || given.dir.is_some();
    let saved = run_dir::environment(run);
    let has_a_path = saved
        .as_ref()
        .is_some_and(|saved| saved.text.is_some() || saved.data_dir.is_some());
    // The description of another part of the data is another one.
    if is_given || (has_a_path && of.data != to.data) {
        let places = places(run, of, saved.as_ref(), given, device)?;
        let set = D::open(&to.data, &places, Split::Train)?;
        let recorded = described_data(&set, &fingerprint(to, &places)?);
        return Ok((places, recorded));
    }
    let Some(saved) = saved else {
        return Ok((given, String::new()));
    };
    let places = Places {
        text: saved.text,
        dir: saved.data_dir,
        ..given
    };
    Ok((places, saved.data))
}
