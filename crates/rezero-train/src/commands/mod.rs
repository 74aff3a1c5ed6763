//! One file per subcommand. Each resolves its arguments, opens files, works, and prints the result.

mod bench;
mod check_ranks;
mod conformance;
mod devices;
mod eval;
mod export;
mod fetch;
mod given_weights;
mod grow;
mod import;
mod jacobian;
mod models;
mod predict;
mod recipes;
mod report;
mod restarts;
mod runs;
mod sample;
mod serve;
mod source;
mod sweep;
mod train;

use std::path::{Path, PathBuf};

pub use conformance::{Suite, bring};
use rezero_data::Split;

use crate::cli::{Cli, Command};
use crate::device;
use crate::error::{Error, Result};
use crate::fit::{Model, load, load_average, survive_file_limits};
use crate::ranks;
use crate::recipe::TaskOf;
use crate::record::{Environment, NewRun, Reader};
use crate::say::{out, say};
use crate::task::{DataSet, Domain, Places};
use crate::words;

/// Runs the command that the command line asks for.
///
/// # Errors
///
/// If the command fails. [`Error::exit_code`] is the exit status.
pub fn run(cli: Cli) -> Result<()> {
    survive_file_limits();
    #[cfg(feature = "flex")]
    rezero_kernels::check_simd().map_err(Error::Variable)?;
    if cli.command.is_offline() {
        rezero_nn::pretrained::stay_offline();
    }
    // Several of these would write into one place.
    match cli.command {
        #[cfg(not(feature = "mpi"))]
        Command::Sweep(_) => ranks::must_be_one("sweep")?,
        Command::Grow(_) => ranks::must_be_one("grow")?,
        _ => {}
    }
    match cli.command {
        Command::Train(args) => match args.restarts {
            Some(restarts) => restarts::run(&args, restarts),
            None => train::run(&args),
        },
        Command::Sweep(args) => sweep::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Sample(args) => sample::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Fetch(args) => fetch::run(&args),
        Command::Jacobian(args) => jacobian::run(&args),
        Command::Grow(args) => grow::run(args),
        Command::Report(args) => report::run(&args),
        Command::Runs(args) => runs::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Recipes(args) => recipes::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Conformance(args) => conformance::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Bench(args) => bench::run(&args),
    }
}

/// Ends this process soon after the one that started it: a measurement whose command was killed must not go on beside the next one.
fn end_with_parent() {
    #[cfg(unix)]
    {
        use std::os::unix::process::parent_id;
        let parent = parent_id();
        std::thread::spawn(move || {
            while parent_id() == parent {
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
            std::process::exit(1);
        });
    }
}

/// The folder of runs, unless `--run-dir` names another.
const RUNS: &str = "runs";

/// The directory that is given for a new run, or one of that name in `base`.
fn new_run(given: Option<&PathBuf>, base: &Path, name: String) -> NewRun {
    let base = base.to_owned();
    given.map_or(NewRun::Named { base, name }, |dir| NewRun::At(dir.clone()))
}

/// A key without its section.
fn short(key: &str) -> &str {
    key.rsplit_once('.').map_or(key, |(_, key)| key)
}

/// The command that continues a run.
fn resume(run: &Path) -> String {
    words::command("train", run, &["--resume"])
}

/// The places of a run's data: those that the command line gives, else those that its `env.json` has.
///
/// The run may come from somebody else, and a path in it may name any file of this machine. So a path of
/// `env.json` is said, and it is used only if the data there has the SHA-256 that `env.json` also has: who
/// wrote the path has then seen the same data. Data at such a path is never sent to another machine.
///
/// # Errors
///
/// If data at a path of `env.json` is needed, and it is absent, other data, or `device` is on another
/// machine.
fn places<D: Domain>(
    run: &Path,
    of: &TaskOf<D>,
    saved: Option<&Environment>,
    given: Places,
    device: &str,
) -> Result<Places> {
    let Some(saved) = saved else {
        return Ok(given);
    };
    // A text that is given stands in for all data of the run.
    let needed = given.text.is_none();
    let (path, flag) = match () {
        () if needed && D::reads_a_file(&of.data) => (&saved.text, "--text"),
        () if needed && given.dir.is_none() && D::reads_a_folder(&of.data) => {
            (&saved.data_dir, "--data-dir")
        }
        () => (&None, ""),
    };
    let places = Places {
        text: given.text.or_else(|| saved.text.clone()),
        dir: given.dir.or_else(|| saved.data_dir.clone()),
        ..given
    };
    let Some(path) = path else {
        return Ok(places);
    };
    // A terminal obeys control characters.
    let path = path.display().to_string().replace(char::is_control, "?");
    let fail = |message: String| Error::Run {
        dir: run.to_owned(),
        message: format!("{message}, name the data with {flag} {path}"),
    };
    if device::is_remote(device) {
        return Err(fail(format!(
            "its env.json says where its data is, and {device} would get the data: only the command line can \
             allow that"
        )));
    }
    say!("its data is at {path}, as env.json says");
    // The last word of `described_data`.
    let recorded = saved.data.rsplit(' ').next().unwrap_or_default();
    match fingerprint(of, &places)? == recorded {
        true => Ok(places),
        false => Err(fail(format!(
            "the data at {path} is not the data that its env.json records: it has changed since, or the run \
             comes from another machine; if it is the right data all the same"
        ))),
    }
}

/// Training data as `env.json` records it, with the [`fingerprint`].
fn described_data(train: &impl DataSet, print: &str) -> String {
    format!("{} {} {print}", train.name(), train.len())
}

/// SHA-256 of the training and the validation data.
fn fingerprint<D: Domain>(of: &TaskOf<D>, places: &Places) -> Result<String> {
    let print = |split| D::open(&of.data, places, split)?.fingerprint();
    Ok(format!("{}+{}", print(Split::Train)?, print(Split::Valid)?))
}

/// `model` as validation has scored it, with the average of a checkpoint's weights if the run keeps one, or
/// with the `raw` weights.
///
/// # Errors
///
/// As [`load`], or if `raw` has no effect.
fn scored<M: Model>(run: &Path, checkpoint: &Reader, model: M, raw: bool) -> Result<M> {
    if raw && !checkpoint.has_average() {
        return Err(Error::Run {
            dir: run.to_owned(),
            message: "keeps no average of its weights (train.ema), so that --raw has no effect; leave it out"
                .to_owned(),
        });
    }
    match raw {
        true => load(checkpoint, model),
        false => load_average(checkpoint, model),
    }
}

/// The absolute path: a run may be continued or scored from another directory.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Error::io("find", path, e))
}
