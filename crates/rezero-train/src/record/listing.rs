//! What a run directory holds, told from its files alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::checkpoint;
use super::environment::Described;
use super::inside::{self, is_file};
use super::run_dir::{DONE, ENV, LOCK, RECIPE, RunDir};
use super::state::State;
use super::{metrics, run_dir};
use crate::error::{Error, Result};

/// Folders in folders are searched for runs to this depth.
const DEPTH: usize = 32;

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// A process works on it.
    Running,
    /// It can be continued.
    Stopped,
    /// It has come to its end.
    Done,
    /// Its loss or a gradient was not finite.
    Diverged,
}

impl Stage {
    /// The stage of the run at `dir`. Where the file system has no locks, a run in progress looks stopped.
    pub fn of(dir: &Path) -> Self {
        Self::under(dir, Lock::of(dir))
    }

    fn under(dir: &Path, lock: Lock) -> Self {
        match lock {
            Lock::Held => Self::Running,
            Lock::Free | Lock::Unknown => Self::at_rest(dir),
        }
    }

    /// The stage of a run on which no process works.
    fn at_rest(dir: &Path) -> Self {
        let diverged = || matches!(metrics::last(dir), Ok(Some(row)) if !row.is_finite());
        match () {
            () if is_file(&dir.join(DONE)) => Self::Done,
            () if diverged() => Self::Diverged,
            () => Self::Stopped,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Done => "done",
            Self::Diverged => "diverged",
        }
    }
}

/// Whether a process has a run's directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lock {
    Held,
    Free,
    /// There is no lock file, or the file system has no locks.
    Unknown,
}

impl Lock {
    fn of(dir: &Path) -> Self {
        // A shared lock, so that two lists at a time do not take each other for a run.
        let lock = inside::open(&dir.join(LOCK), File::options().read(true));
        match lock.map(|lock| lock.try_lock_shared()) {
            Ok(Ok(())) => Self::Free,
            Ok(Err(TryLockError::WouldBlock)) => Self::Held,
            Ok(Err(TryLockError::Error(_))) | Err(_) => Self::Unknown,
        }
    }
}

/// A run as a list shows it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its directory.
    pub dir: PathBuf,
    /// How far it has come.
    pub stage: Stage,
    /// The steps that it has taken. Of a stopped run, those of its last checkpoint.
    pub step: usize,
    /// Its best validation, in the measure of `task`.
    pub best: Option<f64>,
    /// Its task.
    pub task: Option<Described>,
    /// When its files last changed.
    pub changed: Option<SystemTime>,
    /// The size of its files.
    pub bytes: u64,
    /// What can be removed without loss: see [`Removable`].
    pub removable: Vec<Removable>,
    /// Why no command reads the run, if so. Nothing of it can be removed then.
    pub refused: Option<String>,
}

/// A part of a run that is no longer needed: one of its checkpoints, or the run itself.
///
/// | stage | what is not needed |
/// | - | - |
/// | stopped | the run, if it has no checkpoint; halves of checkpoints |
/// | diverged | the run, if it has no validation before |
/// | done | checkpoints that are neither the best nor the last; halves of checkpoints |
///
/// Nothing is offered of a run that may be in progress, or whose checkpoints cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removable {
    /// The run.
    pub run: PathBuf,
    /// The run, or its checkpoint.
    pub path: PathBuf,
    /// Why it is not needed.
    pub why: &'static str,
    /// Its size.
    pub bytes: u64,
}

impl Removable {
    /// Removes it, unless the run has been continued since it was listed. Only files that this program
    /// writes are removed; a folder that holds others stays, with them.
    ///
    /// # Errors
    ///
    /// If the run is in use, or a file cannot be removed. What was not removed is still listed.
    pub fn remove(&self) -> Result<()> {
        let fail = |message: &str| Error::Run {
            dir: self.run.clone(),
            message: message.to_owned(),
        };
        if Lock::of(&self.run) != Lock::Free {
            return Err(fail("is in use by another process"));
        }
        let run = RunDir::open(&self.run)?;
        // This process has the lock now.
        let now = listed(&self.run, Lock::Free);
        if !now.removable.contains(self) {
            return Err(fail("has changed meanwhile; list it again"));
        }
        if self.path != self.run {
            return checkpoint::remove(&self.path);
        }
        run.remove()?;
        // A folder that holds other files stays.
        let _ = fs::remove_dir(&self.run);
        Ok(())
    }
}

/// The runs below the folders, each once, in no order. Links below them are not followed.
pub fn list<'a>(dirs: impl IntoIterator<Item = &'a Path>) -> Vec<Listed> {
    let mut found = Vec::new();
    for dir in dirs {
        search(dir, DEPTH, &mut found);
    }
    let mut seen = BTreeSet::new();
    found
        .retain(|dir: &PathBuf| seen.insert(fs::canonicalize(dir).unwrap_or_else(|_| dir.clone())));
    found.iter().map(|dir| listed(dir, Lock::of(dir))).collect()
}

fn search(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    // A recipe alone may be a user's own file.
    let is_run = is_file(&dir.join(RECIPE)) && is_file(&dir.join(ENV));
    if is_run {
        found.push(dir.to_owned());
    }
    let Some(depth) = depth.checked_sub(1) else {
        return;
    };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let own = is_run && entry.file_name() == checkpoint::DIR;
        if !own && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            search(&entry.path(), depth, found);
        }
    }
}

fn listed(dir: &Path, lock: Lock) -> Listed {
    let stage = Stage::under(dir, lock);
    let refused = inside::check(dir).err().map(|error| error.to_string());
    let checkpoints = checkpoint::list(dir).ok().filter(|_| refused.is_none());
    let newest = checkpoints.as_ref().and_then(|all| all.last_key_value());
    let state: Option<State> = newest.and_then(|(_, path)| {
        let json = inside::read(&path.join(checkpoint::STATE), inside::SMALL).ok()?;
        serde_json::from_slice(&json).ok()
    });
    let saved = newest.map_or(0, |(step, _)| *step);
    let row = || metrics::last(dir).ok().flatten();
    let removable = match (&checkpoints, lock) {
        (Some(all), Lock::Free) => removable(dir, stage, all, state.as_ref()).unwrap_or_default(),
        _ => Vec::new(),
    };
    let best = state.and_then(|state| state.best);
    Listed {
        stage,
        step: match stage {
            Stage::Running | Stage::Diverged => row().map_or(saved, |row| row.step),
            // A record without checkpoints still has its rows.
            Stage::Stopped | Stage::Done if saved == 0 => row().map_or(0, |row| row.step),
            Stage::Stopped | Stage::Done => saved,
        },
        best: best.map(|best| best.measure),
        task: run_dir::environment(dir).and_then(|environment| environment.task),
        changed: changed(dir),
        bytes: size(dir),
        removable,
        refused,
        dir: dir.to_owned(),
    }
}

/// What is not needed of a run at rest, whose newest state is given. None if that cannot be told.
fn removable(
    dir: &Path,
    stage: Stage,
    checkpoints: &BTreeMap<usize, PathBuf>,
    newest: Option<&State>,
) -> Option<Vec<Removable>> {
    let part = |path: &Path, why| Removable {
        run: dir.to_owned(),
        path: path.to_owned(),
        why,
        bytes: size(path),
    };
    let torn = checkpoint::torn(dir).ok()?;
    let halves = torn.iter().map(|path| part(path, "half of a checkpoint"));
    if checkpoints.is_empty() {
        return Some(match stage {
            Stage::Running | Stage::Done => Vec::new(),
            Stage::Diverged => vec![part(dir, "diverged before its first checkpoint")],
            Stage::Stopped => vec![part(dir, "stopped before its first checkpoint")],
        });
    }
    // A state that does not parse may be another version's.
    let newest = newest?;
    let best = newest.best.as_ref().map(|best| best.step);
    Some(match stage {
        Stage::Running => Vec::new(),
        Stage::Diverged if best.is_none() => {
            vec![part(dir, "diverged before its first validation")]
        }
        Stage::Diverged | Stage::Stopped => halves.collect(),
        Stage::Done => {
            let old = checkpoints.iter();
            let old = old.filter(|(step, _)| **step != newest.step && Some(**step) != best);
            let why = "a checkpoint that is neither the best nor the last";
            halves.chain(old.map(|(_, path)| part(path, why))).collect()
        }
    })
}

fn changed(dir: &Path) -> Option<SystemTime> {
    let files = [metrics::FILE, DONE, RECIPE].map(|name| dir.join(name));
    let times = files
        .iter()
        .filter_map(|file| fs::symlink_metadata(file).ok()?.modified().ok());
    times.max()
}

/// The size of a file, or of all files in a folder.
fn size(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return 0;
    };
    if !meta.is_dir() {
        return meta.len();
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size(&entry.path())).sum()
}
