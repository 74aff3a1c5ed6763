//! One file per subcommand. Each resolves its arguments, opens files, works, and prints the result.

mod bench;
mod devices;
mod eval;
mod export;
mod fetch;
mod grow;
mod import;
mod jacobian;
mod recipes;
mod report;
mod runs;
mod sample;
mod serve;
mod train;

use std::path::{Path, PathBuf};

use crate::cli::{Cli, Command};
use crate::error::{Error, Result};
use crate::record::{Environment, NewRun};
use crate::say::{out, say};
use crate::task::Places;
use crate::words;

/// Runs the command that the command line asks for.
///
/// # Errors
///
/// If the command fails. [`Error::exit_code`] is the exit status.
pub fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Train(args) => train::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Sample(args) => sample::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Fetch(args) => fetch::run(&args),
        Command::Jacobian(args) => jacobian::run(&args),
        Command::Grow(args) => grow::run(args),
        Command::Report(args) => report::run(&args),
        Command::Runs(args) => runs::run(&args),
        Command::Recipes(args) => recipes::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Bench(args) => bench::run(&args),
    }
}

/// The folder of runs, unless `--run-dir` names another.
const RUNS: &str = "runs";

/// The directory that is given for a new run, or one of that name in `base`.
fn new_run(given: Option<&PathBuf>, base: &Path, name: String) -> NewRun {
    let base = base.to_owned();
    given.map_or(NewRun::Named { base, name }, |dir| NewRun::At(dir.clone()))
}

/// The command that continues a run.
fn resume(run: &Path) -> String {
    words::command(&[&"train", &run, &"--resume"])
}

/// The places of a run's data: those of its environment, unless the command line gives others.
fn places(
    environment: Option<&Environment>,
    text: Option<&PathBuf>,
    dir: Option<&PathBuf>,
    offline: bool,
) -> Places {
    Places {
        text: text
            .cloned()
            .or_else(|| environment.and_then(|e| e.text.clone())),
        dir: dir
            .cloned()
            .or_else(|| environment.and_then(|e| e.data_dir.clone())),
        offline,
    }
}

/// The absolute path: a run may be continued or scored from another directory.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Error::io("find", path, e))
}
