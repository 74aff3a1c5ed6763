//! `rezero train`: resolve, open, fit, finish.

use std::path::{Path, PathBuf};

use burn::optim::lr_scheduler::LrScheduler;
use burn::tensor::Device;
use rezero_data::Split;
use serde::{Deserialize, Serialize};

use super::source::begin_with;
use super::{RUNS, absolute, described_data, new_run, places, resume, say, short};
use crate::cli::Train;
use crate::device;
use crate::error::{self, Error, Result};
use crate::fit::{
    self, Finished, Fit, Model, Rates, Scheduler, Source, Trainee, build_optimizer, check_freeze,
    launch, load, obey_a_sweep, on_a_big_stack, on_signal,
};
use crate::ranks::Ranks;
use crate::recipe::check::check;
use crate::recipe::{
    EMBEDDED, Override, Recipe, Resolved, TaskOf, TaskRecipe, must_be_same, with_task,
};
use crate::record::{
    Environment, NewRun, Opening, OptimizerState, RunDir, Stage, State, checkpoint, run_dir,
};
use crate::task::{DataSet, Domain, Places};
use crate::{words, zoo};

pub fn run(args: &Train) -> Result<()> {
    if args.of_sweep {
        obey_a_sweep();
    }
    if args.supervised {
        error::tell_a_supervisor();
    }
    let ranks = match args.alone {
        true => Ranks::alone(),
        false => Ranks::join(args.rank_timeout, &[("command line", of_all_ranks(args))])?,
    };
    let trained = on_a_big_stack(|| {
        // The recipe is resolved first, so that a wrong word costs nothing.
        let plan = resolved_on(&ranks, args)?;
        let dir = plan.place.path();
        say!("run {}{}", dir.display(), plan.note);
        for change in &plan.resolved.changes {
            say!("{change}");
        }
        let resolved = &plan.resolved;
        if resolved.gives("optimizer.kind") && !resolved.gives("optimizer.lr") {
            let lr = resolved.recipe.settings.optimizer.lr();
            say!(
                "lr={lr} is the recipe's, for its own optimizer; another one may need another: give lr"
            );
        }
        with_task!(&plan.resolved.recipe.task, of => train(args, &plan, of, &ranks))
    });
    trained.map_err(|error| ranks.end(error))
}

/// The words of the command line that all ranks must have alike: a rank may have its own device, and data at a place of
/// its own.
fn of_all_ranks(args: &Train) -> String {
    let mut words = vec![
        "train".to_owned(),
        args.recipe.to_string_lossy().into_owned(),
    ];
    let overrides = args.overrides.iter();
    let overrides = overrides.filter(|o| short(&o.key) != "device");
    words.extend(overrides.map(|o| format!("{}={}", o.key, o.value)));
    let dir = args.run_dir.as_ref();
    words.extend(dir.map(|dir| format!("--run-dir {}", dir.display())));
    words.extend(args.resume.then(|| "--resume".to_owned()));
    words.join(" ")
}

fn train<D: Domain>(args: &Train, plan: &Plan, of: &TaskOf<D>, ranks: &Ranks) -> Result<()> {
    let Some(open) = open(args, plan, of, ranks)? else {
        return Ok(());
    };
    let of = open.of.clone();
    let (finished, dir, run) = fit(args, plan, open, ranks)?;
    finish(plan, &of, &finished, &dir, run.as_ref())
}

/// The directory in which `rezero train` with these arguments would train.
pub(super) struct Place {
    pub dir: PathBuf,
    /// Whether the arguments leave it open.
    pub is_open: bool,
    /// What is to be said of it.
    pub note: String,
}

pub(super) fn place(args: &Train) -> Result<Place> {
    let Plan { place, note, .. } = resolve(args)?;
    let dir = place.path();
    Ok(Place {
        is_open: args.run_dir.is_none() && dir != Path::new(&args.recipe),
        dir,
        note,
    })
}

/// The recipe to train, and its directory.
struct Plan {
    resolved: Resolved,
    place: NewRun,
    /// What is to be said of the directory.
    note: String,
    /// The recipe of the run that is continued, if any.
    saved: Option<Recipe>,
}

/// What rank 0 tells the others of its plan.
#[derive(Serialize, Deserialize)]
struct Announced {
    name: String,
    recipe: String,
    /// For messages: it need not be a path here.
    dir: String,
}

/// The plan of rank 0 for all: the others may not even see the directory of the run.
fn resolved_on(ranks: &Ranks, args: &Train) -> Result<Plan> {
    if ranks.size() == 1 {
        return resolve(args);
    }
    let own = ranks.agree(match ranks.leads() {
        true => resolve(args).map(Some),
        false => Ok(None),
    })?;
    let announced = own.as_ref().map(|plan| Announced {
        name: plan.resolved.name.clone(),
        recipe: plan.resolved.recipe.to_toml(),
        dir: plan.place.path().to_string_lossy().into_owned(),
    });
    let Announced { name, recipe, dir } = ranks.of_first(announced.as_ref())?;
    let followed = || -> Result<Plan> {
        let resolved = Recipe::parse(&name, &recipe)?.with(&of_device(args))?;
        // A file of that name may have another recipe here.
        if args.recipe.to_string_lossy().ends_with(".toml") {
            let mut overrides = args.overrides.clone();
            overrides.extend(reads_text(args.text.as_ref(), &overrides)?);
            let mut here = Recipe::resolve(&args.recipe, &overrides)?.recipe;
            if args.resume {
                // As that of rank 0 is by the run's.
                here = here.completed_as(&resolved.recipe);
            }
            if here.fingerprint() != resolved.recipe.fingerprint() {
                return Err(Error::Recipe {
                    name: name.clone(),
                    message: "the file here has another recipe than that of rank 0".to_owned(),
                });
            }
        }
        Ok(Plan {
            resolved,
            place: NewRun::At(dir.into()),
            note: String::new(),
            saved: None,
        })
    };
    let plan = ranks.agree(own.map_or_else(followed, Ok))?;
    let recipe = &plan.resolved.recipe;
    ranks.must_have_rows(recipe.settings.train.batch)?;
    let by_parts = recipe.settings.train.recompute && matches!(recipe.task, TaskRecipe::Images(_));
    ranks.agree(check(
        !by_parts,
        "train.recompute",
        "an mlp with recompute=true is updated while its gradients come, in one process".to_owned(),
    ))?;
    Ok(plan)
}

/// The device that the command line gives.
fn of_device(args: &Train) -> Vec<Override> {
    let device = match (&args.device, &args.devices) {
        (base, Some(list)) => Some(device::listed(base.as_deref().unwrap_or("auto"), list)),
        (device, None) => device.clone(),
    };
    let flag = device.map(|value| Override::new("run.device", value));
    let keys = args.overrides.iter().filter(|o| short(&o.key) == "device");
    keys.cloned().chain(flag).collect()
}

fn resolve(args: &Train) -> Result<Plan> {
    let mut overrides = args.overrides.clone();
    overrides.extend(reads_text(args.text.as_ref(), &overrides)?);
    overrides.extend(of_device(args));
    let given = Path::new(&args.recipe);
    // Folders may have any name.
    let recipe = args.recipe.to_string_lossy();
    // A folder may be called like a recipe.
    let is_recipe = || EMBEDDED.iter().any(|(name, _)| *name == recipe);
    if given.is_dir() && (given.join("recipe.toml").exists() || !is_recipe()) {
        if !args.resume {
            return Err(Error::Run {
                dir: given.to_owned(),
                message: "is a directory; add --resume to continue the run in it".to_owned(),
            });
        }
        if args.run_dir.is_some() {
            return Err(Error::Run {
                dir: given.to_owned(),
                message: "is a run of its own; leave out --run-dir".to_owned(),
            });
        }
        let saved = Recipe::of_run(given)?;
        return Ok(Plan {
            saved: Some(saved.recipe.clone()),
            resolved: saved.with(&overrides)?,
            place: NewRun::At(given.to_owned()),
            note: ", continued".to_owned(),
        });
    }
    if args.resume && recipe.contains(['/', '\\']) && !recipe.ends_with(".toml") {
        return Err(Error::Run {
            dir: given.to_owned(),
            message: "there is no such directory".to_owned(),
        });
    }
    let mut resolved = Recipe::resolve(&args.recipe, &overrides)?;
    let name = resolved.run_name();
    let before = run_dir::of_name(Path::new(RUNS), &name, &resolved.name);
    let (place, note) = match (&args.run_dir, args.resume) {
        (Some(dir), true) => (NewRun::At(dir.clone()), ", continued".to_owned()),
        (None, true) => {
            let (dir, stage) = run_dir::latest(&before).ok_or_else(|| Error::Run {
                dir: Path::new(RUNS).join(&name),
                message: "holds no run to resume; leave out --resume to start it, or name the run \
                          directory"
                    .to_owned(),
            })?;
            let which = match (before.len(), stage) {
                (1, _) => String::new(),
                (n, Stage::Done) => format!(": the newest of {n} of this name, all are done"),
                (n, stage) => format!(": of {n} of this name, the newest that is {}", stage.name()),
            };
            (NewRun::At(dir), format!(", continued{which}"))
        }
        (given, false) => {
            let place = new_run(given.as_ref(), Path::new(RUNS), name);
            let other = before.last().filter(|_| given.is_none());
            let other = other.map(|dir| {
                let other = dir.display();
                match Stage::of(dir) {
                    Stage::Stopped => format!(
                        ": a new one; {other} is stopped, to continue that one instead: {}",
                        resume(dir)
                    ),
                    stage => format!(": a new one; {other} is there: {}", stage.name()),
                }
            });
            (place, other.unwrap_or_default())
        }
    };
    let saved = match args.resume {
        true => Some(Recipe::of_run(&place.path())?.recipe),
        false => None,
    };
    if let Some(saved) = &saved {
        resolved.recipe = resolved.recipe.completed_as(saved);
    }
    Ok(Plan {
        saved,
        resolved,
        place,
        note,
    })
}

/// `--text` stands for `data=text`.
pub fn reads_text(text: Option<&PathBuf>, overrides: &[Override]) -> Result<Option<Override>> {
    let other = overrides
        .iter()
        .find(|o| matches!(o.key.as_str(), "data" | "data.set") && o.value != "text");
    match (text, other) {
        (None, _) => Ok(None),
        (Some(_), None) => Ok(Some(Override::new("data.set", "text"))),
        (Some(_), Some(other)) => Err(Error::RecipeValue {
            key: "data.set".to_owned(),
            message: format!(
                "--text reads a file, got {} too; give one of the two",
                other.value
            ),
        }),
    }
}

/// Everything that a run needs, before any of its files is written.
struct Open<D: Domain> {
    opening: Opening,
    /// The recipe with the values that it left to the data.
    recipe: Recipe,
    /// Its sections of the task.
    of: TaskOf<D>,
    devices: Vec<Device>,
    places: Places,
    train: D::Set,
    valid: D::Set,
}

/// Opens the devices, the run and the data. None if the run is complete.
fn open<D: Domain>(
    args: &Train,
    plan: &Plan,
    of: &TaskOf<D>,
    ranks: &Ranks,
) -> Result<Option<Open<D>>> {
    let recipe = &plan.resolved.recipe;
    let settings = &recipe.settings;
    if args.data_dir.is_some() && !D::reads_a_folder(&of.data) {
        return Err(Error::RecipeValue {
            key: "data.set".to_owned(),
            message: "is made here, so that --data-dir has no effect; leave it out, or choose a set that is \
                      read from a folder with data=SET"
                .to_owned(),
        });
    }
    let given = plan
        .resolved
        .gives("run.device")
        .then_some(settings.run.device.as_str());
    let device = device::chosen(given, &settings.run.device)?;
    let local = device::of_rank(device, ranks.local_rank());
    let devices = ranks.agree(device::for_training(&local, settings.train.dtype))?;
    let (place, identity) = (plan.place.clone(), recipe.identity());
    let opening = ranks.open(place, &identity, || opened(plan))?;
    if ranks.leads() && plan.saved.is_some() && opening.start.is_none() && !opening.is_done() {
        say!("no checkpoint yet: starting from step 0");
    }
    let text = args.text.as_deref().map(absolute).transpose()?;
    let dir = args.data_dir.as_deref().map(absolute).transpose()?;
    let is_complete = opening.is_done() && !goes_on(plan, &opening.state);
    if is_complete {
        say!("{}", complete(plan, &opening.state));
    }
    if ranks.of_first(ranks.leads().then_some(&is_complete))? {
        return Ok(None);
    }
    let given = Places {
        text,
        dir,
        offline: args.offline,
        image_memory: settings.run.image_memory,
    };
    let places = places(
        &plan.place.path(),
        of,
        opening.before.as_ref(),
        given,
        device,
    )?;
    let [most_to_train, most_to_validate] = D::limits(&of.data);
    let (train, of, valid) = ranks.in_turn(|| {
        let train = D::open(&of.data, &places, Split::Train)?;
        let of = TaskOf::<D> {
            model: of.model.clone(),
            data: D::complete(&of.data, &train)?,
        };
        let valid = D::open(&of.data, &places, Split::Valid)?;
        Ok((train, of, valid))
    })?;
    say!(
        "{}: {}{}, {}{}{}",
        train.name(),
        words::counted(train.len(), &format!("training {}", D::task().items)),
        limit("train_items", most_to_train, train.len()),
        words::counted(valid.len(), &format!("validation {}", D::task().items)),
        limit("valid_items", most_to_validate, valid.len()),
        match train.is_subset() {
            true if !D::reads_a_file(&of.data) => " (a subset of the official set)",
            _ => "",
        }
    );
    let recipe = Recipe {
        task: D::task_recipe(of.clone()),
        settings: settings.clone(),
    };
    recipe.check()?;
    Ok(Some(Open {
        opening,
        recipe,
        of,
        devices,
        places,
        train,
        valid,
    }))
}

fn opened(plan: &Plan) -> Result<Opening> {
    let recipe = &plan.resolved.recipe;
    let Some(saved) = &plan.saved else {
        return Ok(Opening::new(plan.place.clone()));
    };
    let dir = plan.place.path();
    // Another process that trains it would remove checkpoints between their list and their reading.
    let held = RunDir::open(&dir)?;
    // An imported or grown run that has not been trained.
    let last = checkpoint::list(&dir)?.pop_last();
    let at_start = last.is_some_and(|(step, _)| step == 0);
    must_be_same(
        &dir,
        &saved.to_toml(),
        &recipe.to_tables(),
        &recipe.settings,
        at_start,
    )?;
    drop(held);
    Opening::resume(&dir, &recipe.identity())
}

/// Says that a key has cut a split to its first items.
fn limit(key: &str, most: usize, items: usize) -> String {
    match most == items {
        true => format!(" (the first, {key})"),
        false => String::new(),
    }
}

/// Whether a complete run shall go on: for more epochs or steps, or, if it was stopped early, with more
/// patience.
fn goes_on(plan: &Plan, state: &State) -> bool {
    let run = &plan.resolved.recipe.settings.run;
    plan.saved.as_ref().is_some_and(|saved| {
        let before = &saved.settings.run;
        let limit = |steps| if steps == 0 { usize::MAX } else { steps };
        match before.stops_after(state.stale) {
            true => !run.stops_after(state.stale),
            false => run.epochs > before.epochs || limit(run.steps) > limit(before.steps),
        }
    })
}

/// What is to be said of a run that is complete.
fn complete(plan: &Plan, state: &State) -> String {
    let dir = plan.place.path();
    let settings = &plan.resolved.recipe.settings;
    let with = |change| words::command("train", &dir, &["--resume", change]);
    let more = match settings.run.steps {
        _ if settings.run.stops_after(state.stale) => format!(
            "stopped early, with patience={} and no better validation in {}; to go on: {}",
            settings.run.patience,
            state.stale,
            with("patience=0")
        ),
        _ if settings.schedule.spans_the_run() => {
            "its schedule spans the run, so it cannot be made longer".to_owned()
        }
        0 => format!("for a longer run: {}", with("epochs=N")),
        _ => format!("for a longer run: {}", with("steps=N")),
    };
    let asks_for_events = settings.run.tensorboard
        && plan
            .saved
            .as_ref()
            .is_some_and(|saved| !saved.settings.run.tensorboard);
    let events = match asks_for_events {
        true => format!(
            "; for its event file: {}",
            words::command("report", &dir, &["--tensorboard"])
        ),
        false => String::new(),
    };
    format!("{} is complete already; {more}{events}", dir.display())
}

/// Trains in a run directory that holds its recipe and environment before the first step.
fn fit<D: Domain>(
    args: &Train,
    plan: &Plan,
    open: Open<D>,
    ranks: &Ranks,
) -> Result<(Finished, PathBuf, Option<RunDir>)> {
    let Open {
        opening,
        recipe,
        of,
        devices,
        places,
        train,
        valid,
    } = open;
    let Plan { resolved, .. } = plan;
    let (of, settings) = (&of, &recipe.settings);
    let Some(device) = devices.first().cloned() else {
        return Err(Error::Training("no device".to_owned()));
    };
    let print = format!("{}+{}", train.fingerprint()?, valid.fingerprint()?);
    ranks.same(&[("recipe", &recipe.fingerprint()), ("data", &print)])?;
    if args
        .data_of_sweep
        .as_ref()
        .is_some_and(|data| *data != print)
    {
        return Err(Error::Run {
            dir: plan.place.path(),
            message: "would have other data than the trials of its sweep that have begun, so that they could not be \
                      compared: give the same data with --data-dir or --text, or begin another sweep with --dir"
                .to_owned(),
        });
    }
    let fingerprints = [recipe.fingerprint(), print.clone()];
    opening.continues([&fingerprints[0], &fingerprints[1]])?;
    let environment = Environment {
        data_dir: places.dir,
        text: places.text,
        device: device::in_words(&devices),
        data: described_data(&train, &print),
        subset: train.is_subset(),
        task: Some(D::task().described()),
        ranks: ranks.described(&devices)?,
        ..Environment::here(opening.before.clone())
    };
    let mut model = zoo::draw(of, settings, &D::form(&of.data), &device);
    let train = D::for_training(of, settings, train, &device)?;
    // A batch of scoring is as large as what a rank holds of a step.
    let mut scoring = settings.clone();
    scoring.train.accumulate = settings.train.accumulate.saturating_mul(ranks.size());
    let valid = D::for_scoring(of, &scoring, valid, &device.clone().inner())?;
    let (start, step) = (opening.start.clone(), opening.state.step);
    let from = &settings.train.from;
    let mut began_with = None;
    match &start {
        Some(reader) => model = load(reader, model)?,
        None if from.is_empty() => {}
        // The run may come from somebody else, and the path in it may name anything.
        None if plan.saved.is_some() => {
            return Err(Error::Run {
                dir: plan.place.path(),
                message: "began with the weights of another run, and has lost its checkpoints; start a new run"
                    .to_owned(),
            });
        }
        None => {
            let (begun, with) = begin_with(from, of, &recipe.identity(), model)?;
            (model, began_with) = (begun, Some(with));
        }
    }
    if !settings.train.freeze.is_empty() {
        let frozen = check_freeze(&model, settings)?;
        say!(
            "frozen: {} of {} tensors, {} of {} numbers; running statistics go on following the data",
            frozen.tensors[0],
            frozen.tensors[1],
            frozen.values[0],
            frozen.values[1]
        );
    }
    let synchronised = D::synchronises(&of.data);
    if synchronised {
        fit::may_synchronise(&model, &devices, ranks)?;
    }
    let epochs = D::epochs(settings);
    let per_epoch = train.batches_per_epoch();
    let steps = settings.run.last_step(epochs * per_epoch);
    settings.schedule.must_fit(per_epoch, steps)?;
    opening.must_reach(steps)?;
    if settings.run.steps > steps {
        say!(
            "epochs={epochs} ends the run at step {steps}, before steps={}: give epochs too",
            settings.run.steps
        );
    }
    let environment = Environment {
        parameters: rezero_nn::parameter_count(&model),
        began_with: began_with.or(environment.began_with),
        ..environment
    };
    let seed = settings.train.seed;
    // Last of what can fail: a run that cannot begin leaves no directory behind.
    let expected = plan.place.path();
    let write = |dir: &Path| match &environment.began_with {
        // A continued run has it already.
        Some(_) if start.is_none() => write_first(dir, &recipe, &fingerprints, &model),
        Some(_) | None => Ok(()),
    };
    let (name, text) = (&resolved.name, recipe.to_toml());
    let run = ranks.agree(match ranks.leads() {
        true => opening
            .begin_with(name, &text, seed, &environment, write)
            .map(Some),
        false => {
            // With it goes a hold on the checkpoint that rank 0 has sent, which is removed once it has been read.
            drop(opening);
            Ok(None)
        }
    })?;
    let dir = run
        .as_ref()
        .map_or(expected.clone(), |run| run.path().to_owned());
    if dir != expected {
        say!("run {}: another process began the other", dir.display());
    }
    if plan.saved.is_none() {
        say!("to continue it after a stop: {}", resume(&dir));
    }
    say!(
        "{} · {} parameters · {}{}",
        recipe.identity(),
        environment.parameters,
        device::resolved(&settings.run.device),
        match step {
            0 => String::new(),
            step => format!(" · continuing from step {step}"),
        }
    );
    if ranks.size() > 1 {
        say!(
            "{} processes on {}, {} of a step each",
            ranks.size(),
            words::counted(ranks.count_hosts(), "hosts"),
            words::counted(settings.train.batch.div_ceil(ranks.size()), "rows")
        );
    }
    let finished = launch(Fit {
        settings,
        task: D::task(),
        dir: &dir,
        model,
        devices,
        train,
        valid,
        epochs,
        identity: recipe.identity(),
        fingerprints,
        start,
        interrupter: on_signal(args.on_term),
        plain: args.plain || ranks.size() > 1 || !fit::can_draw(),
        ranks: ranks.clone(),
        synchronised,
        resume: on_the_device(&dir, &settings.run.device),
    })?;
    Ok((finished, dir, run))
}

/// The command that continues a run whose device was lost. Only the command line may name a device of another machine.
fn on_the_device(dir: &Path, device: &str) -> String {
    match device::is_remote(device) {
        true => words::command("train", dir, &["--resume", "--device", device]),
        false => resume(dir),
    }
}

/// Writes the weights that a run begins with as its step 0, so that it never needs the other run again.
fn write_first<M: Model>(
    dir: &Path,
    recipe: &Recipe,
    [recipe_print, data]: &[String; 2],
    model: &M,
) -> Result<()> {
    let settings = &recipe.settings;
    let state = State {
        recipe: recipe_print.clone(),
        data: data.clone(),
        ..State::default()
    };
    let rates = Rates::default();
    let trainee = Trainee::new(model.clone(), &settings.train);
    let optimizer = build_optimizer(&settings.optimizer, &settings.gates, &rates, &trainee);
    let schedule = Scheduler::new(settings, settings.run.steps.max(1), 1, rates);
    let parameters = rezero_nn::parameter_count(model);
    let keep = settings.run.keep;
    let writer = checkpoint::Writer::new(dir, recipe.identity(), parameters, keep);
    writer.save(
        &state,
        model.valid().to_weights(),
        None,
        OptimizerState::of(&optimizer),
        schedule.to_record(),
    )
}

/// Prints the result, and marks a complete run.
fn finish<D: Domain>(
    plan: &Plan,
    of: &TaskOf<D>,
    finished: &Finished,
    dir: &Path,
    run: Option<&RunDir>,
) -> Result<()> {
    let state = &finished.state;
    if finished.interrupted {
        return Err(Error::Interrupted {
            step: state.step,
            resume: resume(dir),
            status: fit::stop_status(),
        });
    }
    let summary = D::task().summary(&plan.resolved.recipe.settings.run, finished);
    if let Some(run) = run {
        run.done(&summary)?;
    }
    say!("done in {:.0} s: {summary}", finished.seconds);
    let eval = words::command("eval", dir, &["--split", "test"]);
    say!("score it with: {eval}");
    let report = words::command("report", dir, &[]);
    say!("see its curves with: {report} (and name other runs to compare them)");
    if let Some(line) = D::next_command(of, dir) {
        say!("{line}");
    }
    Ok(())
}
