//! The run that a path names, and the weights that another run begins with: `train.from`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Module;

use super::{say, scored};
use crate::error::{Error, Result};
use crate::fit::Model;
use crate::recipe::{Recipe, TaskOf};
use crate::record::{BeganWith, Reader, checkpoint};
use crate::task::Domain;
use crate::zoo::{Families, Zoo};
use crate::{words, zoo};

/// The run at a path, and the word for its checkpoint: a run's directory means its best one,
/// `RUN/checkpoints/step-N` that one.
pub(super) fn run_at(path: &Path) -> (PathBuf, String) {
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
    let (run, which) = run_at(Path::new(from));
    let trained = Recipe::of_run(&run)?.recipe;
    let source = trained.identity();
    let fail = |message: String| Error::Run {
        dir: run.clone(),
        message,
    };
    if let Some(difference) = zoo::differs(of, identity, &source) {
        return Err(fail(format!(
            "is of another network: it has {difference}; a run begins with the weights of the same network, on any data"
        )));
    }
    let reader = checkpoint::choose(&run, &which, &source)?;
    let step = reader.state()?.step;
    let mut shared = reader.weights_for(&model)?;
    if shared.loaded.is_empty() {
        return Err(fail("has no weights that fit".to_owned()));
    }
    let model = model
        .with_weights(shared.record)
        .map_err(|e| reader.unfit(e))?;
    let (model, interpolated) = interpolated(&run, &reader, of, trained, model)?;
    for (name, shape) in shared
        .loaded
        .extract_if(.., |(name, _)| interpolated.contains(&name.as_str()))
    {
        // Of the same shape, but of another grid.
        shared.remade.push((name, shape.clone(), Some(shape)));
    }
    say!("weights of {} at step {step}", words::path(&run));
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
        run: Some(run),
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
