//! The directory of a sweep: `sweep.json`, its plan, and a run directory for each trial.
//!
//! The directory may come from somebody else. A plan names its trials' folders, so such a name is checked before it is
//! used. No command runs what a plan says: the plan is compared with the sweep that the command line describes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::inside::{self, SMALL, is_there, must_be};
use super::run_dir::{self, lock};
use super::write::{remove_temporary, write_atomic};
use crate::error::{Error, Result};

/// The plan of a sweep. A directory with it is a sweep.
pub(crate) const FILE: &str = "sweep.json";
const LOCK: &str = "sweep.lock";
/// The layout that this version writes and reads.
const FORMAT: u32 = 1;
/// The most trials of a sweep.
pub const MOST_TRIALS: usize = 10_000;
/// The longest name of a folder.
const LONGEST: usize = 255;

/// What a sweep consists of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    format: u32,
    /// The recipe's name.
    pub recipe: String,
    /// SHA-256 of the recipe's settings without those that the sweep sets.
    pub settings: String,
    /// The keys that are tuned, as `section.key`.
    pub tuned: Vec<String>,
    /// The trials in the order in which they are started.
    pub trials: Vec<Trial>,
}

/// A run of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// The name of its folder.
    pub name: String,
    /// Its arm.
    pub arm: String,
    /// The values of the tuned keys, as they were typed.
    pub values: Vec<String>,
    /// Its seed.
    pub seed: i64,
    /// What the sweep sets, by `section.key`, as it was typed.
    pub set: BTreeMap<String, String>,
}

impl Plan {
    /// A plan.
    pub fn new(recipe: String, settings: String, tuned: Vec<String>, trials: Vec<Trial>) -> Self {
        Self {
            format: FORMAT,
            recipe,
            settings,
            tuned,
            trials,
        }
    }

    /// Whether there is a plan in `dir`.
    pub fn is_in(dir: &Path) -> bool {
        is_there(&dir.join(FILE))
    }

    /// Reads the plan of the sweep in `dir`.
    ///
    /// # Errors
    ///
    /// If there is none, it does not parse, it is of another version, or a name in it is no folder's.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let bytes = inside::read(&path, SMALL).map_err(|e| Error::io("read", &path, e))?;
        let bad = |message: String| Error::Sweep {
            dir: dir.to_owned(),
            message: format!("its {FILE} {message}"),
        };
        let plan: Self =
            serde_json::from_slice(&bytes).map_err(|e| bad(format!("does not parse: {e}")))?;
        if plan.format != FORMAT {
            return Err(bad(format!(
                "has the format {}, this version reads {FORMAT}",
                plan.format
            )));
        }
        if plan.trials.len() > MOST_TRIALS {
            return Err(bad(format!(
                "has {} trials, more than a sweep may have ({MOST_TRIALS})",
                plan.trials.len()
            )));
        }
        let mut names = BTreeSet::new();
        for trial in &plan.trials {
            if !is_a_name(&trial.name) {
                return Err(bad(format!(
                    "names the folder {:?}, which is no name of a trial",
                    trial.name
                )));
            }
            if !names.insert(&trial.name) {
                return Err(bad(format!("has the trial {} twice", trial.name)));
            }
            if trial.values.len() != plan.tuned.len() {
                return Err(bad(format!(
                    "has {} values for {} tuned keys in {}",
                    trial.values.len(),
                    plan.tuned.len(),
                    trial.name
                )));
            }
        }
        Ok(plan)
    }
}

/// Whether a name is that of one folder.
fn is_a_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= LONGEST
        && !name.starts_with('.')
        && !name.contains(|c: char| c == '/' || c == '\\' || c.is_control())
}

/// The folder of a trial, which need not be there.
///
/// # Errors
///
/// If a link or a file is in its place.
pub fn folder(dir: &Path, trial: &Trial) -> Result<PathBuf> {
    let path = dir.join(&trial.name);
    must_be(dir, &path, Metadata::is_dir)?;
    Ok(path)
}

/// A file that shows that a directory is seen.
#[derive(Debug, Serialize, Deserialize)]
pub struct Mark {
    // Unlike a path, any bytes of it can be sent.
    path: OsString,
    word: String,
}

impl Mark {
    /// The directory.
    pub fn dir(&self) -> PathBuf {
        let parent = Path::new(&self.path).parent();
        parent.unwrap_or(Path::new("")).to_owned()
    }

    /// Whether the file is seen here. A file system of a network may need a moment.
    pub fn is_seen(&self) -> bool {
        const PATIENCE: Duration = Duration::from_secs(5);

        let begun = Instant::now();
        loop {
            match inside::read(Path::new(&self.path), SMALL) {
                Ok(word) if word == self.word.as_bytes() => return true,
                _ if begun.elapsed() > PATIENCE => return false,
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Removes the file.
    pub fn remove(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The directory of a sweep, locked for this process.
#[derive(Debug)]
pub struct SweepDir {
    path: PathBuf,
    // Held until the process ends, however it ends.
    _lock: File,
}

impl SweepDir {
    /// Creates the directory, unless it is there, and locks it.
    ///
    /// # Errors
    ///
    /// If it is a run, cannot be created, or another process has it.
    pub fn open(path: &Path) -> Result<Self> {
        let fail = |message: &str| Error::Sweep {
            dir: path.to_owned(),
            message: message.to_owned(),
        };
        if run_dir::holds_run(path) {
            return Err(fail(
                "is the directory of a run; choose another one with --dir",
            ));
        }
        let foreign = |entry: &fs::DirEntry| {
            let name = entry.file_name();
            name != LOCK && !name.to_string_lossy().ends_with(".tmp")
        };
        let mut entries = fs::read_dir(path).into_iter().flatten().flatten();
        if !is_there(&path.join(FILE)) && entries.any(|entry| foreign(&entry)) {
            return Err(fail(
                "has other files in it and is no sweep; choose a new or an empty directory with --dir",
            ));
        }
        let busy = || fail("is in use by another sweep; wait for it, or choose another directory");
        let lock = lock(path, LOCK, busy)?;
        remove_temporary(path)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Writes the plan.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn describe(&self, plan: &Plan) -> Result<()> {
        let json = serde_json::to_vec_pretty(plan).expect("a plan is JSON");
        if json.len() as u64 > SMALL {
            return Err(Error::Sweep {
                dir: self.path.clone(),
                message: format!(
                    "would have a plan of {} bytes, more than the {SMALL} that are read: sweep fewer values, or put \
                     what all trials share into a recipe's file",
                    json.len()
                ),
            });
        }
        write_atomic(&self.path.join(FILE), &json)
    }

    /// Writes a file with a word that nobody else writes, by which other hosts know the directory.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn mark(&self) -> Result<Mark> {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let word = format!("{} {}", std::process::id(), since.as_nanos());
        // A kill leaves it as it leaves other temporary files.
        let name = format!(".rezero-mark-{}.tmp", since.as_nanos());
        let path = self.path.join(name);
        write_atomic(&path, word.as_bytes())?;
        let path = path.into_os_string();
        Ok(Mark { path, word })
    }

    /// Undoes [`open`](Self::open) where no plan was written.
    pub fn give_up(self) {
        let _ = fs::remove_file(self.path.join(LOCK));
        let _ = fs::remove_dir(&self.path);
    }
}
