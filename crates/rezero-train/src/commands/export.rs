//! `rezero export`

use std::path::Path;

use super::source::NamedRun;
use super::{say, scored, short};
use crate::cli::Export;
use crate::device;
use crate::error::Result;
use crate::recipe::{Recipe, Run, TaskOf, with_task};
use crate::record::checkpoint::choose;
use crate::record::write_named;
use crate::task::Domain;
use crate::zoo::{self, Families, Zoo};

/// The metadata that holds a recipe.
pub(super) const RECIPE: &str = "recipe";

pub fn run(args: &Export) -> Result<()> {
    let source = NamedRun::find(&args.run)?;
    let recipe = Recipe::of_run(source.dir())?.recipe;
    with_task!(&recipe.task, of => write(args, source.dir(), &recipe, of))
}

fn write<D: Domain>(args: &Export, run: &Path, recipe: &Recipe, of: &TaskOf<D>) -> Result<()> {
    let (identity, settings) = (recipe.identity(), &recipe.settings);
    // Nothing is computed, so the run's device, which may be gone or another machine, is not needed.
    let device = device::select("auto")?;
    let reader = choose(run, &args.checkpoint, &identity)?;
    let network = scored(
        &args.run,
        &reader,
        zoo::draw(of, settings, &D::form(&of.data), &device),
        args.raw,
    )?;
    let step = reader.state()?.step;
    let mut metadata: Vec<(String, String)> = of
        .model
        .described(&settings.gates)
        .into_iter()
        .map(|(key, value)| (short(key).to_owned(), value))
        .collect();
    metadata.push(("rezero".to_owned(), env!("CARGO_PKG_VERSION").to_owned()));
    metadata.push(("family".to_owned(), of.model.name().to_owned()));
    metadata.push(("step".to_owned(), step.to_string()));
    metadata.push((RECIPE.to_owned(), shared(recipe).to_toml()));
    let bytes = network.to_torch(args.dtype, metadata)?;
    write_named(&args.out, &bytes)?;
    let which = match reader.has_average() && !args.raw {
        true => " · the average of the weights",
        false => "",
    };
    say!(
        "{identity} · step {step}{which} · {} bytes to {}",
        bytes.len(),
        args.out.display()
    );
    let unknown = of.model.unknown_in_pytorch(&settings.gates);
    if !unknown.is_empty() {
        say!(
            "the usual PyTorch code of this network computes something else from these weights: it knows \
             nothing of {}",
            unknown.join(", ")
        );
    }
    Ok(())
}

/// The recipe without what is of this machine alone.
fn shared(recipe: &Recipe) -> Recipe {
    let mut recipe = recipe.clone();
    recipe.settings.train.from.clear();
    recipe.settings.run.device = Run::default().device;
    recipe
}
