//! A run directory in which a run will begin or continue.

use std::path::Path;

use super::checkpoint::{self, Reader};
use super::environment::Environment;
use super::run_dir::{self, NewRun, RunDir};
use super::state::State;
use crate::error::{Error, Result};

/// The place of a run, before any of its files is written. So a run that cannot begin leaves no
/// directory behind.
#[derive(Debug)]
pub struct Opening {
    place: NewRun,
    /// The locked directory, if it holds a run already.
    run: Option<RunDir>,
    /// The checkpoint to continue from.
    pub start: Option<Reader>,
    /// The state of the run.
    pub state: State,
    /// The environment that earlier processes recorded.
    pub before: Option<Environment>,
}

impl Opening {
    /// For a new run.
    pub fn new(place: NewRun) -> Self {
        Self {
            place,
            run: None,
            start: None,
            state: State::default(),
            before: None,
        }
    }

    /// For a rank that does not write the run: with the checkpoint and the environment that rank 0 has read.
    ///
    /// # Errors
    ///
    /// If the checkpoint is damaged.
    pub fn of_rank(
        place: NewRun,
        start: Option<Reader>,
        before: Option<Environment>,
    ) -> Result<Self> {
        let state = start.as_ref().map(Reader::state).transpose()?;
        Ok(Self {
            state: state.unwrap_or_default(),
            start,
            before,
            ..Self::new(place)
        })
    }

    /// To continue the run at `dir`, whose model must have this `identity`.
    ///
    /// # Errors
    ///
    /// If there is no run, it is in use, or its last checkpoint is damaged or of another model.
    pub fn resume(dir: &Path, identity: &str) -> Result<Self> {
        let run = RunDir::open(dir)?;
        let start = match checkpoint::list(dir)?.last_key_value() {
            Some((_, checkpoint)) => Some(Reader::open(checkpoint, identity)?),
            None => None,
        };
        if start.is_none() && run.is_done() {
            return Err(Error::Run {
                dir: dir.to_owned(),
                message: "is complete, and its checkpoints are gone; start a new run".to_owned(),
            });
        }
        Ok(Self {
            state: match &start {
                Some(reader) => reader.state()?,
                None => State::default(),
            },
            before: run_dir::environment(dir),
            place: NewRun::At(dir.to_owned()),
            run: Some(run),
            start,
        })
    }

    /// Whether the run is complete.
    pub fn is_done(&self) -> bool {
        self.run.as_ref().is_some_and(RunDir::is_done)
    }

    /// Checks that the checkpoint is of this recipe and this data, given as SHA-256.
    ///
    /// # Errors
    ///
    /// If it is of another recipe or of other data.
    pub fn continues(&self, [recipe, data]: [&str; 2]) -> Result<()> {
        if self.start.is_none() {
            return Ok(());
        }
        // Before the first step, weights are all that a checkpoint has.
        if self.state.step > 0 && self.state.recipe != recipe {
            return Err(self.fail(
                "its last checkpoint is of another recipe than recipe.toml is now; restore it, or \
                 start a new run",
            ));
        }
        // A run that was imported has seen no data yet.
        if !self.state.data.is_empty() && self.state.data != data {
            return Err(self.fail(
                "was trained on other data than is here now; give the same --data-dir or --text",
            ));
        }
        Ok(())
    }

    /// Checks that the run is not asked to be shorter than it is.
    ///
    /// # Errors
    ///
    /// If it has taken more steps than `last`.
    pub fn must_reach(&self, last: usize) -> Result<()> {
        let step = self.state.step;
        match step <= last {
            true => Ok(()),
            false => Err(self.fail(&format!(
                "has taken {step} steps, which is more than the {last} asked for"
            ))),
        }
    }

    /// Creates the directory of a new run, and writes its recipe and environment.
    ///
    /// # Errors
    ///
    /// If the directory holds a run already, is in use or cannot be written.
    pub fn begin(
        self,
        name: &str,
        recipe: &str,
        seed: u64,
        environment: &Environment,
    ) -> Result<RunDir> {
        self.begin_with(name, recipe, seed, environment, |_| Ok(()))
    }

    /// Like [`begin`](Self::begin), but `write` first puts a checkpoint into the directory. The
    /// directory becomes a run after that, so that nobody can continue from half a checkpoint.
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin), or what `write` returns.
    pub fn begin_with(
        self,
        name: &str,
        recipe: &str,
        seed: u64,
        environment: &Environment,
        write: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<RunDir> {
        let (run, is_new) = match self.run {
            Some(run) => (run, false),
            None => (self.place.create()?, true),
        };
        let begun = run
            .clean()
            .and_then(|()| write(run.path()))
            .and_then(|()| run.describe(name, recipe, seed, environment))
            .and_then(|()| run.reopen());
        match begun {
            Ok(()) => Ok(run),
            Err(error) => {
                if is_new {
                    run.give_up();
                }
                Err(error)
            }
        }
    }

    fn fail(&self, message: &str) -> Error {
        Error::Run {
            dir: self.place.path(),
            message: message.to_owned(),
        }
    }
}
