//! The run that an argument names: a directory, or a named model of `rezero_nn::pretrained`. Also the weights
//! that another run begins with: `train.from`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use rezero_nn::pretrained::{self, Pretrained, PretrainedError};
use rezero_nn::torch::{LoadRules, TorchWeights};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::export::RECIPE;
use super::given_weights::begin_at;
use super::{RUNS, absolute, say, scored};
use crate::error::{Error, Result};
use crate::fit::Model;
use crate::ranks::Ranks;
use crate::recipe::{Recipe, TaskOf, with_task};
use crate::record::{BeganWith, Environment, NewRun, Reader, checkpoint, run_dir};
use crate::task::Domain;
use crate::zoo::{Families, Zoo};
use crate::{device, words, zoo};

/// What stands before the name of a model that has weights.
pub(super) const ZOO: &str = "zoo:";

/// Whether an argument names a model that has weights.
pub(super) fn is_zoo(named: &Path) -> bool {
    named.to_str().is_some_and(|text| text.starts_with(ZOO))
}

/// The run that an argument names.
pub(super) struct NamedRun {
    dir: PathBuf,
    /// A named model's run, which ends with the command.
    made: Option<TempDir>,
}

impl NamedRun {
    /// The run at the path `named`, or a run that holds the named model of `zoo:NAME`.
    ///
    /// # Errors
    ///
    /// If there is no model of that name, or its weights are nowhere or not those of the registry.
    pub(super) fn find(named: &Path) -> Result<Self> {
        let (dir, made) = match named.to_str().and_then(|text| text.strip_prefix(ZOO)) {
            Some(name) => {
                let model = pretrained::named(name)?;
                let folder = tempfile::tempdir().map_err(|e| Error::io("create", named, e))?;
                let dir = folder.path().join(model.name);
                write_named_model(model, &dir)?;
                (dir, Some(folder))
            }
            None => (named.to_owned(), None),
        };
        Ok(Self { dir, made })
    }

    /// The run as [`find`](Self::find) finds it on rank 0, and the step of its checkpoint `which`. The other ranks need not
    /// see it: they get a copy of that checkpoint.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find), or if there is no such checkpoint, or it cannot be copied, the same error on all ranks.
    pub(super) fn on_all(ranks: &Ranks, named: &Path, which: &str) -> Result<(Self, String)> {
        let own = ranks.on_first(|| {
            let source = Self::find(named)?;
            let run = source.dir();
            let recipe = Recipe::of_run(run)?.recipe;
            let reader = checkpoint::choose(run, which, &recipe.identity())?;
            let sent = Sent {
                recipe: run_dir::recipe(run)?.1,
                environment: run_dir::environment(run),
                step: reader.state()?.step,
            };
            let from = reader.dir().to_owned();
            Ok((source, sent, from))
        })?;
        let sent = ranks.of_first(own.as_ref().map(|(_, sent, _)| sent))?;
        let made = own.is_none().then(|| sent.begin_copy());
        let made = ranks.agree(made.transpose())?;
        if ranks.size() > 1 {
            let from = own.as_ref().map(|(_, _, from)| from.as_path());
            ranks.copy_files(from, made.as_ref().map(|(_, to)| to.as_path()))?;
        }
        let found = own.map(|(source, ..)| source);
        let source = found.or(made.map(|(source, _)| source));
        let source = source.expect("it is found or made");
        Ok((source, sent.step.to_string()))
    }

    /// Its directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder for a run that is made of this one, and this one's name.
    pub(super) fn beside(&self) -> Result<(PathBuf, String)> {
        // `.` has a name only as an absolute path.
        let run = absolute(&self.dir)?.components().as_path().to_owned();
        let name = run.file_name().unwrap_or_default().to_string_lossy();
        let base = run.parent().unwrap_or(Path::new(RUNS));
        match self.made.is_some() {
            true => Ok((PathBuf::from(RUNS), name.into_owned())),
            false => Ok((base.to_owned(), name.into_owned())),
        }
    }
}

/// What ranks above 0 get of a run beside the files of its checkpoint.
#[derive(Serialize, Deserialize)]
struct Sent {
    recipe: String,
    environment: Option<Environment>,
    step: usize,
}

impl Sent {
    /// A run without its checkpoint's files, and the folder for them.
    fn begin_copy(&self) -> Result<(NamedRun, PathBuf)> {
        let made = tempfile::tempdir();
        let made = made.map_err(|e| Error::io("create a folder in", std::env::temp_dir(), e))?;
        let dir = made.path().to_owned();
        let to = run_dir::copy(&dir, &self.recipe, self.environment.as_ref(), self.step)?;
        let made = Some(made);
        Ok((NamedRun { dir, made }, to))
    }
}

/// Writes a run that holds a named model. The recipe lies beside the weights in the file.
fn write_named_model(model: &Pretrained, dir: &Path) -> Result<()> {
    let weights = model.weights()?;
    let text = weights.metadata().get(RECIPE).map_or("", String::as_str);
    let resolved = Recipe::parse(model.name, text)?;
    let recipe = &resolved.recipe;
    with_task!(&recipe.task, of => write_weights(model.name, dir, recipe, of, &weights))
}

fn write_weights<D: Domain>(
    name: &'static str,
    dir: &Path,
    recipe: &Recipe,
    of: &TaskOf<D>,
    weights: &TorchWeights,
) -> Result<()> {
    let device = device::select("auto")?;
    let network = zoo::draw(of, &recipe.settings, &D::form(&of.data), &device);
    let (network, _) = network
        .with_torch(weights, &LoadRules::default())
        .map_err(|source| PretrainedError::Unfit { name, source })?;
    let environment = Environment {
        device: device::in_words(&[device]),
        ..Environment::here(None)
    };
    let place = NewRun::At(dir.to_owned());
    let step = weights.metadata().get("step");
    let step = step.and_then(|step| step.parse().ok()).unwrap_or(0);
    begin_at(place, name, recipe, of, &network, step, environment)?;
    Ok(())
}

/// The run at a path, and the word for its checkpoint: a run's directory means its best one,
/// `RUN/checkpoints/step-N` that one.
fn run_at(path: &Path) -> (PathBuf, String) {
    let names = || {
        let step = path.file_name()?.to_str()?.strip_prefix("step-")?;
        let folder = path.parent()?;
        let run = folder.parent()?;
        (folder.file_name()? == "checkpoints").then(|| (run.to_owned(), step.to_owned()))
    };
    names().unwrap_or_else(|| (path.to_owned(), "best".to_owned()))
}

/// `model` with the weights of the run `from` where they fit, and which checkpoint they are of. Says what was loaded.
///
/// # Errors
///
/// If there is no run, its network is another one, its checkpoint is damaged, or nothing of it fits.
pub(super) fn begin_with<D: Domain>(
    from: &str,
    of: &TaskOf<D>,
    identity: &str,
    model: D::Network,
) -> Result<(D::Network, BeganWith)> {
    let (named, which) = run_at(Path::new(from));
    let source = NamedRun::find(&named)?;
    let run = source.dir();
    let trained = Recipe::of_run(run)?.recipe;
    let before = trained.identity();
    let fail = |message: String| Error::Run {
        dir: named.clone(),
        message,
    };
    if let Some(difference) = zoo::differs(of, identity, &before) {
        return Err(fail(format!(
            "is of another network: it has {difference}; a run begins with the weights of the same network, on any data"
        )));
    }
    let reader = checkpoint::choose(run, &which, &before)?;
    let step = reader.state()?.step;
    let mut shared = reader.weights_for(&model)?;
    if shared.loaded.is_empty() {
        return Err(fail("has no weights that fit".to_owned()));
    }
    let model = model
        .with_weights(shared.record)
        .map_err(|e| reader.unfit(e))?;
    let (model, interpolated) = interpolated(run, &reader, of, trained, model)?;
    for (name, shape) in shared
        .loaded
        .extract_if(.., |(name, _)| interpolated.contains(&name.as_str()))
    {
        // Of the same shape, but of another grid.
        shared.remade.push((name, shape.clone(), Some(shape)));
    }
    say!("weights of {} at step {step}", words::path(&named));
    say!(
        "  loaded: {}",
        in_groups(shared.loaded.iter().map(|(name, shape)| (name, shape)))
    );
    let (alone, many) = match shared.remade.len() {
        0..=MOST_NAMED => (&shared.remade[..], &[][..]),
        _ => (&[][..], &shared.remade[..]),
    };
    if !many.is_empty() {
        let all = many.iter().map(|(name, shape, _)| (name, shape));
        say!("  made anew or interpolated: {}", in_groups(all));
    }
    for (name, shape, before) in alone {
        let how = match interpolated.contains(&name.as_str()) {
            true => "interpolated",
            false => "made anew",
        };
        match before {
            Some(before) => say!("  {how}: {name} {before:?} -> {shape:?}"),
            None => say!("  {how}: {name} {shape:?}"),
        }
    }
    if !shared.left_out.is_empty() {
        let all = shared.left_out.iter();
        say!(
            "  left out: {}",
            in_groups(all.map(|(name, shape)| (name, shape)))
        );
    }
    let began_with = BeganWith {
        run: Some(named),
        step,
        sha256: reader.weights_hash()?.to_owned(),
    };
    Ok((model, began_with))
}

/// `model` with the parameters that are made of those of `trained`, whose data has another form, and their
/// names.
fn interpolated<D: Domain>(
    run: &Path,
    reader: &Reader,
    of: &TaskOf<D>,
    trained: Recipe,
    model: D::Network,
) -> Result<(D::Network, &'static [&'static str])> {
    let (Some(before), Some(device)) = (D::of_task(trained.task), model.devices().first().cloned())
    else {
        return Ok((model, &[]));
    };
    let form = D::form(&before.data);
    let names = of.model.interpolates(&form, &D::form(&of.data));
    if names.is_empty() {
        return Ok((model, names));
    }
    let source = zoo::draw(&before, &trained.settings, &form, &device);
    Ok((
        model.interpolate(scored(run, reader, source, false)?),
        names,
    ))
}

/// More tensors that are made anew are shown in groups.
const MOST_NAMED: usize = 12;

/// Tensors by the first part of their names: `conv1 (1), layers (60): 269,731 numbers`.
fn in_groups<'a>(all: impl Iterator<Item = (&'a String, &'a Vec<usize>)>) -> String {
    /// More groups are not named.
    const MOST: usize = 12;

    let (mut groups, mut values) = (BTreeMap::<&str, usize>::new(), 0u64);
    for (name, shape) in all {
        *groups
            .entry(name.split('.').next().unwrap_or_default())
            .or_default() += 1;
        let size = shape.iter().map(|n| *n as u64).product::<u64>();
        values = values.saturating_add(size);
    }
    let mut list: Vec<String> = groups
        .iter()
        .map(|(name, n)| format!("{name} ({n})"))
        .collect();
    if list.len() > MOST {
        let more = list.len() - MOST;
        list.truncate(MOST);
        list.push(format!("{more} more"));
    }
    format!("{}: {values} numbers", list.join(", "))
}
