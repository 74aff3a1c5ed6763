//! `rezero train`

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use burn::train::Interrupter;
use rezero_data::Split;

use super::say;
use crate::checkpoint::{self, Reader, Score, State};
use crate::cli::Train;
use crate::data::{Set, Source, eval_loader, train_loader};
use crate::device;
use crate::error::{Error, Result};
use crate::memory;
use crate::model::{Network, bits};
use crate::recipe::{Data, Override, Recipe, Resolved};
use crate::run_dir::{self, Environment, RunDir};
use crate::training::{Finished, Training};

pub const RUNS: &str = "runs";

/// Autodiff walks the graph of a deep network by recursion in places; the default stack of a thread
/// is too small for thousands of layers.
pub const STACK_BYTES: usize = 256 << 20;

pub fn run(args: Train) -> Result<()> {
    let worker = std::thread::Builder::new()
        .name("train".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || train(&args))
        .map_err(|e| Error::Training(format!("cannot start a thread: {e}")))?;
    worker
        .join()
        .unwrap_or_else(|_| Err(Error::Training("the training thread panicked".to_owned())))
}

fn train(args: &Train) -> Result<()> {
    // What decides the run's numbers comes first, so that a wrong word costs nothing.
    let (resolved, dir) = plan(args)?;
    let recipe = &resolved.recipe;
    for change in &resolved.changes {
        say!("{change}");
    }
    let devices = device::select_all(&recipe.device)?;
    let Some(device) = devices.first().cloned() else {
        unreachable!("a list of names has a first one")
    };
    if let Some(half) = recipe.dtype.half() {
        for (name, device) in recipe.device.split(',').zip(&devices) {
            device::computes_in(name, device, half)?;
        }
    }
    let existing = match args.resume {
        true => Some(RunDir::open(&dir)?),
        false => None,
    };
    if existing.as_ref().is_some_and(RunDir::is_done) {
        say!("{} is complete already", dir.display());
        return Ok(());
    }
    let resume = match &existing {
        Some(run) => newest(run, recipe)?,
        None => None,
    };

    let before = existing
        .as_ref()
        .and_then(|run| run_dir::environment(run.path()));
    let data_dir = match &args.data_dir {
        // As seen from anywhere: the run may be continued or scored from another directory.
        Some(dir) => Some(std::path::absolute(dir).map_err(|e| Error::io("find", dir, e))?),
        None => before.as_ref().and_then(|before| before.data_dir.clone()),
    };
    let text = match &args.text {
        Some(file) => Some(std::path::absolute(file).map_err(|e| Error::io("find", file, e))?),
        None => before.as_ref().and_then(|before| before.text.clone()),
    };
    let source = Source {
        text: text.clone(),
        dir: data_dir.clone(),
        offline: args.offline,
    };
    let train = source.open(recipe, Split::Train)?;
    let valid = source.open(recipe, Split::Valid)?;
    let fingerprint = format!("{}+{}", train.fingerprint(), valid.fingerprint());
    describe_data(recipe, &train, &valid);
    let step = match &resume {
        Some(reader) => continued_step(&dir, &reader.state()?, recipe, &fingerprint)?,
        None => 0,
    };

    let autodiff = device.clone().autodiff();
    let data = format!("{} {} {fingerprint}", train.name(), train.len());
    let subset = train.is_subset();
    let mut network = Network::new(recipe, train.num_classes(), &autodiff);
    let train = train_loader(recipe, train, step, &autodiff)?;
    let valid = eval_loader(recipe, valid, &device)?;
    if let Some(reader) = &resume {
        network = reader.load_network(network)?;
    }
    // Last of what can fail: a run that cannot begin leaves no directory behind.
    let run = match existing {
        Some(run) => run,
        None => RunDir::create(&dir)?,
    };
    run.clean()?;

    let grown_from = before.as_ref().and_then(|before| before.grown_from.clone());
    let mut commands = before.map_or_else(Vec::new, |before| before.commands);
    commands.push(std::env::args().collect());
    let environment = Environment {
        commands,
        data_dir,
        text,
        device: match devices.as_slice() {
            [one] => format!("{one:?}"),
            several => format!("{several:?}"),
        },
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        data,
        subset,
        parameters: network.parameter_count(),
        grown_from,
    };
    run.describe(&resolved, &environment)?;
    say!(
        "{} · {} parameters · {} · {}{}",
        recipe.model_id(),
        network.parameter_count(),
        device::resolved(&recipe.device),
        dir.display(),
        match step {
            0 => String::new(),
            step => format!(" · continuing from step {step}"),
        }
    );

    memory::watch(recipe);
    let training = Training {
        recipe,
        dir: run.path(),
        train,
        valid,
        network,
        device: autodiff,
        devices: devices
            .into_iter()
            .map(burn::tensor::Device::autodiff)
            .collect(),
        fingerprint,
        resume,
        interrupter: on_signal(),
        plain: args.plain || !std::io::stdout().is_terminal(),
    };
    let run_it = std::panic::AssertUnwindSafe(|| training.run());
    let finished = std::panic::catch_unwind(run_it).unwrap_or_else(|panic| {
        let message = device::panic_message(panic.as_ref());
        Err(Error::Training(message.to_owned()))
    });
    let finished =
        finished.map_err(|error| device::lost(memory::named(error, recipe), &recipe.device))?;
    finish(&run, recipe, &finished)
}

/// `--text` stands for `data=text`.
pub fn reads_text(text: Option<&PathBuf>, overrides: &[Override]) -> Result<Option<Override>> {
    let other = overrides
        .iter()
        .find(|o| o.key == "data" && o.value != "text");
    match (text, other) {
        (None, _) => Ok(None),
        (Some(_), None) => Ok(Some(Override {
            key: "data".to_owned(),
            value: "text".to_owned(),
        })),
        (Some(_), Some(other)) => Err(Error::RecipeValue {
            key: "data".to_owned(),
            message: format!(
                "--text reads a file, got {} too; give one of the two",
                other.value
            ),
        }),
    }
}

/// Which recipe is to be trained, and where.
fn plan(args: &Train) -> Result<(Resolved, PathBuf)> {
    let mut overrides = args.overrides.clone();
    overrides.extend(reads_text(args.text.as_ref(), &overrides)?);
    let device = match (&args.device, &args.devices) {
        (base, Some(list)) => Some(device::listed(base.as_deref().unwrap_or("auto"), list)),
        (device, None) => device.clone(),
    };
    overrides.extend(device.map(|value| Override {
        key: "device".to_owned(),
        value,
    }));
    let given = Path::new(&args.recipe);
    if args.resume && given.is_dir() {
        let saved = run_dir::recipe(given)?;
        let wanted = saved.clone().with(&overrides)?;
        same_run(given, &saved.recipe, &wanted.recipe)?;
        return Ok((wanted, given.to_owned()));
    }
    if given.is_dir() {
        return Err(Error::Run {
            dir: given.to_owned(),
            message: "is a directory; add --resume to continue the run in it".to_owned(),
        });
    }
    if args.resume && args.recipe.contains(['/', '\\']) && !args.recipe.ends_with(".toml") {
        return Err(Error::Run {
            dir: given.to_owned(),
            message: "there is no such directory".to_owned(),
        });
    }
    let wanted = Recipe::resolve(&args.recipe, &overrides)?;
    let base = Path::new(RUNS);
    let name = wanted.run_name();
    let dir = match (&args.run_dir, args.resume) {
        (Some(dir), _) => dir.clone(),
        (None, false) => run_dir::fresh(base, &name),
        (None, true) => run_dir::latest(base, &name).ok_or_else(|| Error::Run {
            dir: base.join(&name),
            message: "holds no run to resume; leave out --resume to start it, or name the run \
                      directory"
                .to_owned(),
        })?,
    };
    if args.resume {
        let saved = run_dir::recipe(&dir)?;
        same_run(&dir, &saved.recipe, &wanted.recipe)?;
    }
    Ok((wanted, dir))
}

/// A resumed run must be the run that was begun; only where it computes may change.
fn same_run(dir: &Path, saved: &Recipe, wanted: &Recipe) -> Result<()> {
    let table = |r: &Recipe| toml::Table::try_from(r).expect("a recipe is a TOML table");
    let (saved, wanted) = (table(saved), table(wanted));
    let free = ["device", "prefetch", "keep"];
    let changed: Vec<String> = saved
        .iter()
        .filter(|(key, value)| wanted[*key] != **value && !free.contains(&key.as_str()))
        .map(|(key, value)| format!("{key} {value} -> {}", wanted[key]))
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    Err(Error::Run {
        dir: dir.to_owned(),
        message: format!(
            "was begun with other settings ({}); resume with the same ones, or start a new run",
            changed.join(", ")
        ),
    })
}

/// The step to continue from, if the checkpoint is of this recipe and this data.
fn continued_step(dir: &Path, state: &State, recipe: &Recipe, data: &str) -> Result<usize> {
    let fail = |message: &str| {
        Err(Error::Run {
            dir: dir.to_owned(),
            message: message.to_owned(),
        })
    };
    if state.recipe != recipe.fingerprint() {
        return fail(
            "its recipe.toml was altered after its last checkpoint; restore it, or start a new run",
        );
    }
    // A run that was imported has seen no data yet.
    if !state.data.is_empty() && state.data != data {
        return fail(
            "was trained on other data than is here now; give the same --data-dir or --text",
        );
    }
    Ok(state.step)
}

fn newest(run: &RunDir, recipe: &Recipe) -> Result<Option<Reader>> {
    match checkpoint::list(run.path())?.last_key_value() {
        Some((_, dir)) => Ok(Some(Reader::open(dir, &recipe.model_id())?)),
        None => {
            say!("no checkpoint yet: starting from step 0");
            Ok(None)
        }
    }
}

fn describe_data(recipe: &Recipe, train: &Set, valid: &Set) {
    let subset = match train.is_subset() {
        true if recipe.data != Data::Text => " (a subset of the official set)",
        _ if recipe.valid_items > 0 => ", the first of the split",
        _ => "",
    };
    say!(
        "{}: {} training {unit}, {} validation {unit}{subset}",
        train.name(),
        train.len(),
        valid.len(),
        unit = train.unit()
    );
}

/// The first SIGINT or SIGTERM stops after the current step, a second one at once.
fn on_signal() -> Interrupter {
    static STOPPING: AtomicBool = AtomicBool::new(false);
    let interrupter = Interrupter::new();
    let handle = interrupter.clone();
    // Fails only where a handler is set already, which then does the stopping.
    let _ = ctrlc::set_handler(move || {
        if STOPPING.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        say!("stopping after this step; press Ctrl-C again to stop at once");
        handle.stop(Some("interrupted"));
    });
    interrupter
}

fn finish(run: &RunDir, recipe: &Recipe, finished: &Finished) -> Result<()> {
    let dir = run.path().display();
    let state = &finished.state;
    if finished.interrupted {
        return Err(Error::Interrupted {
            step: state.step,
            resume: format!("rezero train {dir} --resume"),
        });
    }
    let mut summary = format!("{} steps", state.step);
    if let (Some(last), Some(best)) = (state.valid, state.best) {
        let score = |score: Score| match recipe.is_text() {
            true => format!("{:.4} bpb", bits(score.loss)),
            false => format!("accuracy {:.2} %", 100.0 * score.accuracy),
        };
        summary.push_str(&format!(
            ", validation {}, best {} at step {}",
            score(last),
            score(best),
            best.step
        ));
    }
    if recipe.is_text() && recipe.target_bpb > 0.0 {
        summary.push_str(&match state.target_step {
            Some(step) => format!(", at most {} bpb first at step {step}", recipe.target_bpb),
            None => format!(", {} bpb was not reached", recipe.target_bpb),
        });
    }
    run.done(&summary)?;
    say!("done in {:.0} s: {summary}", finished.seconds);
    say!("score it with: rezero eval {dir} --split test");
    if recipe.is_text() {
        say!("let it write: rezero sample {dir}");
    }
    Ok(())
}
