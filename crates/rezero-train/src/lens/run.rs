//! Jacobians of a run's network.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use rezero_data::Split;

use super::Record;
use crate::error::{Error, Result};
use crate::fit::{Source, load_average};
use crate::recipe::{Recipe, Settings, TaskOf, with_task};
use crate::record::{Reader, run_dir};
use crate::task::{Domain, Places};
use crate::zoo::{self, Families, Zoo};

/// The Jacobians of the run's network at the start and at a checkpoint, for `inputs` items of its
/// validation split, with the average of its weights if the run keeps one. A network that was
/// grown, imported or begun with another run's weights has no record of its start. From what to what they go is the
/// family's [`JACOBIAN`](crate::zoo::Family::JACOBIAN).
///
/// # Errors
///
/// If the run or its data is gone, or a Jacobian cannot be computed.
pub fn of_run(
    run: &Path,
    checkpoint: &Reader,
    places: &Places,
    inputs: usize,
    device: &Device,
) -> Result<Vec<Record>> {
    let recipe = Recipe::of_run(run)?.recipe;
    let mut settings = recipe.settings.clone();
    (settings.train.batch, settings.train.accumulate) = (inputs, 1);
    with_task!(&recipe.task, of => of_task(run, checkpoint, of, &settings, places, device))
}

fn of_task<D: Domain>(
    run: &Path,
    checkpoint: &Reader,
    of: &TaskOf<D>,
    settings: &Settings,
    places: &Places,
    device: &Device,
) -> Result<Vec<Record>> {
    let set = D::open(&of.data, places, Split::Valid)?;
    let form = D::form(&of.data);
    let source = D::for_scoring(of, settings, set, device)?;
    let batch = match source.batches_from(0, device).next() {
        Some(batch) => batch.map_err(|e| Error::Training(e.to_string()))?,
        None => {
            return Err(Error::Run {
                dir: run.to_owned(),
                message: "its validation split is empty".to_owned(),
            });
        }
    };
    let draw = || zoo::draw(of, settings, &form, device);
    let record = |name: &str, network: D::Network| -> Result<Record> {
        let mut spectra = Vec::new();
        for jacobian in network.valid().jacobians(&batch)? {
            spectra.push(jacobian.spectrum()?);
        }
        let (of, layers) = (of.model.jacobian(), of.model.layers());
        Ok(Record::new(name, of, layers, &spectra, 0))
    };
    let mut records = Vec::new();
    // A network with weights from elsewhere is not made again.
    if run_dir::environment(run).is_none_or(|e| e.began_anew()) {
        records.push(record("start", draw())?);
    }
    let step = checkpoint.state()?.step;
    records.push(record(
        &format!("step {step}"),
        load_average(checkpoint, draw())?,
    )?);
    Ok(records)
}
