//! What a run directory holds, told from its files alone.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::checkpoint;
use super::environment::Described;
use super::inside::{self, is_file};
use super::run_dir::{DONE, LOCK, RECIPE, RunDir};
use super::state::State;
use super::{metrics, run_dir};
use crate::error::{Error, Result};

/// Folders in folders are searched for runs to this depth.
const DEPTH: usize = 4;

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
        match is_locked(dir) {
            true => Self::Running,
            false => Self::at_rest(dir),
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

/// A part of a run that is no longer needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removable {
    /// The run.
    pub run: PathBuf,
    /// The run itself, or one of its checkpoints.
    pub path: PathBuf,
    /// Why it is not needed.
    pub why: &'static str,
    /// Its size.
    pub bytes: u64,
}

impl Removable {
    /// Removes it, unless the run has been continued since it was listed.
    ///
    /// # Errors
    ///
    /// If the run is in use, or a file cannot be removed.
    pub fn remove(&self) -> Result<()> {
        let _lock = RunDir::open(&self.run)?;
        if self.path.is_symlink() {
            return Err(Error::Run {
                dir: self.run.clone(),
                message: "is a link to a run; name the run itself".to_owned(),
            });
        }
        if !listed(&self.run, Stage::at_rest(&self.run))
            .removable
            .contains(self)
        {
            return Err(Error::Run {
                dir: self.run.clone(),
                message: "has changed meanwhile; list it again".to_owned(),
            });
        }
        // What is cut short must not look whole: a run has a recipe, a checkpoint a manifest.
        for name in [RECIPE, checkpoint::MANIFEST] {
            let file = self.path.join(name);
            match fs::remove_file(&file) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &file, e));
                }
                _ => {}
            }
        }
        fs::remove_dir_all(&self.path).map_err(|e| Error::io("remove", &self.path, e))
    }
}

/// The runs below `dir`, in no order. Links are not followed.
pub fn list(dir: &Path) -> Vec<Listed> {
    let mut found = Vec::new();
    search(dir, DEPTH, &mut found);
    found
        .iter()
        .map(|dir| listed(dir, Stage::of(dir)))
        .collect()
}

fn search(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    if inside::is_there(&dir.join(RECIPE)) {
        found.push(dir.to_owned());
        return;
    }
    let Some(depth) = depth.checked_sub(1) else {
        return;
    };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            search(&entry.path(), depth, found);
        }
    }
}

fn listed(dir: &Path, stage: Stage) -> Listed {
    let refused = inside::check(dir).err().map(|error| error.to_string());
    let checkpoints = checkpoint::list(dir).unwrap_or_default();
    let state: Option<State> = checkpoints.last_key_value().and_then(|(_, path)| {
        let json = inside::read(&path.join(checkpoint::STATE), inside::SMALL).ok()?;
        serde_json::from_slice(&json).ok()
    });
    let best = state.as_ref().and_then(|state| state.best.clone());
    let saved = state.as_ref().map_or(0, |state| state.step);
    let row = || metrics::last(dir).ok().flatten();
    let mut removable = Vec::new();
    let mut add = |path: &Path, why| {
        removable.push(Removable {
            run: dir.to_owned(),
            path: path.to_owned(),
            why,
            bytes: size(path),
        });
    };
    match stage {
        _ if refused.is_some() => {}
        Stage::Running => {}
        Stage::Diverged => add(dir, "diverged"),
        Stage::Stopped if checkpoints.is_empty() => add(dir, "stopped before its first checkpoint"),
        Stage::Stopped | Stage::Done => {
            for path in checkpoint::torn(dir).unwrap_or_default() {
                add(&path, "half of a checkpoint");
            }
            let last = checkpoints.last_key_value().map(|(step, _)| *step);
            let kept = [last, best.as_ref().map(|best| best.step)];
            for (step, path) in &checkpoints {
                if stage == Stage::Done && !kept.contains(&Some(*step)) {
                    add(path, "a checkpoint that is neither the best nor the last");
                }
            }
        }
    }
    Listed {
        stage,
        step: match stage {
            Stage::Running | Stage::Diverged => row().map_or(saved, |row| row.step),
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

/// Whether a process has the run's directory.
fn is_locked(dir: &Path) -> bool {
    let lock = inside::open(&dir.join(LOCK), File::options().read(true));
    // A shared lock, so that two lists at a time do not take each other for a run.
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
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
