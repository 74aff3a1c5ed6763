//! `rezero predict`

mod images;
mod text;

use std::io::Read;
use std::path::{Path, PathBuf};

use burn::tensor::Device;

use super::source::NamedRun;
use super::{out, scored};
use crate::cli::Predict;
use crate::device;
use crate::error::{Error, Result};
use crate::recipe::{Recipe, Settings, TaskOf, TaskRecipe};
use crate::record::checkpoint;
use crate::task::Domain;
use crate::zoo;

pub fn run(args: &Predict) -> Result<()> {
    let source = NamedRun::find(&args.run)?;
    let run = source.dir();
    let recipe = Recipe::of_run(run)?.recipe;
    match &recipe.task {
        TaskRecipe::Images(of) => images::run(args, run, of, &recipe.settings),
        TaskRecipe::Text(of) => text::run(args, run, of, &recipe.settings),
    }
}

/// A run's network at a checkpoint.
struct Opened<D: Domain> {
    network: D::Network,
    identity: String,
    step: usize,
    device: Device,
    /// The device's name.
    name: String,
}

impl<D: Domain> Opened<D> {
    fn new(args: &Predict, run: &Path, of: &TaskOf<D>, settings: &Settings) -> Result<Self> {
        let identity = zoo::identity(of, &settings.gates);
        let name = device::chosen(args.device.as_deref(), &settings.run.device)?;
        let device = device::select(name)?;
        let reader = checkpoint::choose(run, &args.checkpoint, &identity)?;
        let step = reader.state()?.step;
        let network = zoo::draw(of, settings, &D::form(&of.data), &device);
        Ok(Self {
            network: scored(&args.run, &reader, network, args.raw)?,
            identity,
            step,
            device,
            name: name.to_owned(),
        })
    }
}

/// An argument that cannot be used.
fn refused(path: &Path, message: String) -> Error {
    Error::Predict {
        path: path.to_owned(),
        message,
    }
}

/// A flag that has no effect on a network of this kind.
fn no_effect(given: bool, flag: &str, why: &str) -> Result<()> {
    match given {
        true => Err(refused(Path::new(flag), format!("has no effect: {why}"))),
        false => Ok(()),
    }
}

/// The name of standard input.
const STDIN: &str = "-";

/// The bytes of standard input, of which there is at least one and at most `most`.
fn standard_input(most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::io("read", "standard input", e))?;
    let wrong = match bytes.len() as u64 {
        0 => "is empty".to_owned(),
        n if n > most => format!("has more than {most} bytes"),
        _ => return Ok(bytes),
    };
    Err(refused(&PathBuf::from("standard input"), wrong))
}

/// Standard input can be read once.
fn once(files: &[PathBuf]) -> Result<()> {
    let count = files.iter().filter(|file| file.as_os_str() == STDIN);
    match count.count() {
        0 | 1 => Ok(()),
        _ => Err(refused(
            Path::new(STDIN),
            "stands for standard input, which can be read once".to_owned(),
        )),
    }
}
