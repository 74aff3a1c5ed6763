//! Checkpoints: `checkpoints/step-N/`, complete or absent.
//!
//! | file | content |
//! | - | - |
//! | `model.bpk` | weights and running statistics, burn's record of the network |
//! | `optimizer.bpk` | momentum and accumulators |
//! | `scheduler.bpk` | the schedule's step |
//! | `state.json` | [`State`]: step, best result, bytes of `metrics.jsonl`, sums since its last row |
//! | `manifest.json` | [`Manifest`]: versions, the model, size and SHA-256 of every other file |
//!
//! The manifest is renamed into place last. A directory without a manifest is incomplete and is
//! ignored. Data order, augmentation and random numbers are functions of (seed, step), so a
//! checkpoint needs only the step for them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use burn::optim::OptimizerRecord;
use burn::optim::lr_scheduler::LrSchedulerRecord;
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::run_dir::LOCK;
use super::state::State;
use super::write::{write_atomic, write_synced};
use crate::error::{Error, Result};

/// The layout that this version writes and reads.
const FORMAT: u32 = 2;
/// The version of burn, which defines the `.bpk` files.
pub const BURN_VERSION: &str = "0.22.1";

pub(super) const MANIFEST: &str = "manifest.json";
/// The folder of checkpoints in a run directory.
pub(super) const DIR: &str = "checkpoints";
const MODEL: &str = "model.bpk";
const OPTIMIZER: &str = "optimizer.bpk";
const SCHEDULER: &str = "scheduler.bpk";
pub(super) const STATE: &str = "state.json";

/// The manifest, which commits a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The layout; this version writes and reads 2.
    pub format: u32,
    /// The version of this crate.
    pub version: String,
    /// The version of burn.
    pub burn: String,
    /// The identity of the model: two models with the same text have the same parameters.
    pub model: String,
    /// The number of the model's parameters.
    pub parameters: usize,
    /// Every other file.
    pub files: BTreeMap<String, FileEntry>,
}

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
}

/// The committed checkpoints of a run, by step.
pub fn list(run: &Path) -> Result<BTreeMap<usize, PathBuf>> {
    let dir = run.join(DIR);
    let mut found = BTreeMap::new();
    let entries = match fs::read_dir(&dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        entries => entries.map_err(|e| Error::io("read", &dir, e))?,
    };
    for entry in entries {
        let path = entry.map_err(|e| Error::io("read", &dir, e))?.path();
        if let Some(step) = step_of(&path)
            && path.join(MANIFEST).exists()
        {
            found.insert(step, path);
        }
    }
    Ok(found)
}

/// The parts of unfinished checkpoints that a kill may have left.
///
/// # Errors
///
/// If the folder cannot be read.
pub fn torn(run: &Path) -> Result<Vec<PathBuf>> {
    let committed = list(run)?;
    let entries = fs::read_dir(run.join(DIR)).into_iter().flatten();
    let paths = entries.flatten().map(|entry| entry.path());
    let ours = |path: &PathBuf| step_of(path).is_some_and(|step| !committed.contains_key(&step));
    Ok(paths.filter(ours).collect())
}

/// The step of a checkpoint's folder, `step-N`.
fn step_of(path: &Path) -> Option<usize> {
    let name = path.file_name()?.to_str()?;
    let step = name.strip_prefix("step-")?.parse().ok()?;
    // `step-020` is not ours.
    (name == format!("step-{step}")).then_some(step)
}

/// Removes a checkpoint, or half of one. Other files in its folder stay, and the folder with them.
///
/// # Errors
///
/// If a file cannot be removed.
pub(super) fn remove(dir: &Path) -> Result<()> {
    // The manifest first: a removal cut short must not look like a damaged checkpoint.
    for name in [MANIFEST, STATE, SCHEDULER, OPTIMIZER, MODEL] {
        remove_file(&dir.join(name))?;
    }
    // Burn's writer and ours have temporary files.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().ends_with(".tmp") {
            remove_file(&entry.path())?;
        }
    }
    let _ = fs::remove_dir(dir);
    Ok(())
}

/// Removes a file, if it is there.
pub(super) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// The checkpoint of the run that `which` names: `best`, `last` or a step.
///
/// # Errors
///
/// If there is none, or it is damaged or of another model.
pub fn choose(run: &Path, which: &str, model: &str) -> Result<Reader> {
    let all = list(run)?;
    let fail = |message: String| Error::Run {
        dir: run.to_owned(),
        message,
    };
    let (_, newest) = all
        .last_key_value()
        .ok_or_else(|| fail("has no checkpoint yet".to_owned()))?;
    match which {
        "last" => Reader::open(newest, model),
        "best" => {
            let newest = Reader::open(newest, model)?;
            match newest.state()?.best.and_then(|best| all.get(&best.step)) {
                Some(dir) => Reader::open(dir, model),
                None => Ok(newest),
            }
        }
        step => {
            let steps: Vec<String> = all.keys().map(usize::to_string).collect();
            let dir = step.parse().ok().and_then(|step: usize| all.get(&step));
            let dir = dir.ok_or_else(|| {
                fail(format!(
                    "has no checkpoint `{step}`; choose best, last or one of: {}",
                    steps.join(", ")
                ))
            })?;
            Reader::open(dir, model)
        }
    }
}

/// Reads checkpoints of one model.
#[derive(Clone, Debug)]
pub struct Reader {
    dir: PathBuf,
    /// The verified manifest.
    pub manifest: Manifest,
}

impl Reader {
    /// Opens a committed checkpoint and verifies all of its files.
    ///
    /// # Errors
    ///
    /// If the manifest is of another format, version or model, or a file is missing or altered.
    pub fn open(dir: &Path, model: &str) -> Result<Self> {
        let fail = |message: String| Error::Checkpoint {
            dir: dir.to_owned(),
            message,
        };
        let path = dir.join(MANIFEST);
        let text = fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|e| fail(format!("{MANIFEST} does not parse: {e}; {REMEDY}")))?;
        if manifest.format != FORMAT {
            return Err(fail(format!(
                "its format is {}, this version reads {FORMAT}; use the version that wrote it \
                 (rezero {})",
                manifest.format, manifest.version
            )));
        }
        if release(&manifest.version) != release(env!("CARGO_PKG_VERSION")) {
            return Err(fail(format!(
                "it was written by rezero {}, this is {}; use that version",
                manifest.version,
                env!("CARGO_PKG_VERSION")
            )));
        }
        if manifest.burn != BURN_VERSION {
            return Err(fail(format!(
                "it was written with burn {}, this binary has {BURN_VERSION}; use the version \
                 that wrote it",
                manifest.burn
            )));
        }
        if manifest.model != model {
            return Err(fail(format!(
                "it holds another model: `{}`, where `{model}` is expected",
                manifest.model
            )));
        }
        for name in [MODEL, OPTIMIZER, SCHEDULER, STATE] {
            let entry = manifest
                .files
                .get(name)
                .ok_or_else(|| fail(format!("{MANIFEST} does not list {name}; {REMEDY}")))?;
            let path = dir.join(name);
            if !path.exists() {
                return Err(fail(format!("{name} is missing; {REMEDY}")));
            }
            let found = hash(&path)?;
            if found != *entry {
                return Err(fail(format!(
                    "{name} was altered: expected {} bytes with SHA-256 {}, found {} bytes with \
                     {}; {REMEDY}",
                    entry.bytes, entry.sha256, found.bytes, found.sha256
                )));
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            manifest,
        })
    }

    /// The state beside the tensors.
    ///
    /// # Errors
    ///
    /// If it does not parse.
    pub fn state(&self) -> Result<State> {
        let path = self.dir.join(STATE);
        let text = fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        let state: State = serde_json::from_slice(&text).map_err(|e| self.fail(STATE, e))?;
        let named = self.dir.file_name().unwrap_or_default().to_string_lossy();
        if named != format!("step-{}", state.step) {
            return Err(self.fail(STATE, format!("it is of step {}", state.step)));
        }
        Ok(state)
    }

    /// The weights and running statistics.
    ///
    /// # Errors
    ///
    /// If they were altered, or do not parse.
    pub fn weights(&self) -> Result<ModuleRecord> {
        let path = self.dir.join(MODEL);
        let bytes = fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        if self.manifest.files.get(MODEL) != Some(&entry(&bytes)) {
            return Err(self.fail(MODEL, format!("it was altered; {REMEDY}")));
        }
        ModuleRecord::from_bytes(Bytes::from_bytes_vec(bytes)).map_err(|e| self.fail(MODEL, e))
    }

    /// An error about the weights.
    pub(crate) fn unfit(&self, error: impl std::fmt::Display) -> Error {
        self.fail(MODEL, error)
    }

    /// The optimizer's state.
    ///
    /// # Errors
    ///
    /// If it does not parse.
    pub fn optimizer(&self) -> Result<OptimizerRecord> {
        OptimizerRecord::load(self.dir.join(OPTIMIZER)).map_err(|e| self.fail(OPTIMIZER, e))
    }

    /// The schedule's state.
    ///
    /// # Errors
    ///
    /// If it does not parse.
    pub fn scheduler(&self) -> Result<LrSchedulerRecord> {
        LrSchedulerRecord::load(self.dir.join(SCHEDULER)).map_err(|e| self.fail(SCHEDULER, e))
    }

    fn fail(&self, file: &str, error: impl std::fmt::Display) -> Error {
        Error::Checkpoint {
            dir: self.dir.clone(),
            message: format!("cannot load {file}: {error}"),
        }
    }
}

const REMEDY: &str = "the directory is damaged; remove it to fall back to the checkpoint before it";

/// The part of a version that decides compatibility: 0.N, or N from 1.0 on.
fn release(version: &str) -> Vec<&str> {
    let parts: Vec<&str> = version.split('.').collect();
    let significant = if parts.first() == Some(&"0") { 2 } else { 1 };
    parts.into_iter().take(significant).collect()
}

/// Reads in parts: a file can be as large as the model.
fn hash(path: &Path) -> Result<FileEntry> {
    let io = |e| Error::io("read", path, e);
    let mut file = File::open(path).map_err(io)?;
    let (mut digest, mut bytes) = (Sha256::new(), 0);
    let mut part = vec![0; 1 << 20];
    loop {
        match file.read(&mut part).map_err(io)? {
            0 => return Ok(sealed(digest, bytes)),
            n => {
                digest.update(&part[..n]);
                bytes += n as u64;
            }
        }
    }
}

fn entry(bytes: &[u8]) -> FileEntry {
    sealed(Sha256::new_with_prefix(bytes), bytes.len() as u64)
}

fn sealed(digest: Sha256, bytes: u64) -> FileEntry {
    let sha256 = digest
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    FileEntry { bytes, sha256 }
}

/// Writes the checkpoints of a run.
#[derive(Debug)]
pub struct Writer {
    run: PathBuf,
    manifest: Manifest,
    keep: usize,
}

impl Writer {
    /// A writer for `run`.
    pub fn new(run: &Path, model: String, parameters: usize, keep: usize) -> Self {
        Self {
            run: run.to_owned(),
            manifest: Manifest {
                format: FORMAT,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                burn: BURN_VERSION.to_owned(),
                model,
                parameters,
                files: BTreeMap::new(),
            },
            keep,
        }
    }

    /// Writes a checkpoint and commits it. The optimizer's record is made only when it is written,
    /// because it is a copy of the whole state.
    ///
    /// # Errors
    ///
    /// If a file cannot be written; earlier checkpoints are intact then.
    pub fn save(
        &self,
        state: &State,
        weights: ModuleRecord,
        optimizer: impl FnOnce() -> OptimizerRecord,
        schedule: LrSchedulerRecord,
    ) -> Result<()> {
        let dir = self.run.join(DIR).join(format!("step-{}", state.step));
        if dir.join(MANIFEST).exists() {
            return Ok(());
        }
        // Else its folders would be made again, with half a run in them.
        if !self.run.join(LOCK).exists() {
            return Err(Error::Run {
                dir: self.run.clone(),
                message: format!(
                    "was removed or renamed while it was trained, so step {} cannot be saved",
                    state.step
                ),
            });
        }
        let io = |action| {
            let dir = dir.clone();
            move |e| Error::io(action, &dir, e)
        };
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(io("remove the unfinished checkpoint"))?;
        }
        fs::create_dir_all(&dir).map_err(io("create"))?;
        let fail = |e: String| Error::Checkpoint {
            dir: dir.clone(),
            message: format!(
                "cannot write: {e}; earlier checkpoints are intact{}",
                match e.contains("No space left") || e.contains("File too large") {
                    true => "; free some space and try again",
                    false => "",
                }
            ),
        };

        let text = |e: RecordError| fail(e.to_string());
        optimizer().save(dir.join(OPTIMIZER)).map_err(text)?;
        schedule.save(dir.join(SCHEDULER)).map_err(text)?;
        weights.save(dir.join(MODEL)).map_err(text)?;
        let json = serde_json::to_vec_pretty(state).expect("a state is JSON");
        write_synced(&dir.join(STATE), &json)?;

        let mut manifest = self.manifest.clone();
        for name in [MODEL, OPTIMIZER, SCHEDULER, STATE] {
            manifest
                .files
                .insert(name.to_owned(), hash(&dir.join(name))?);
        }
        let json = serde_json::to_vec_pretty(&manifest).expect("a manifest is JSON");
        write_atomic(&dir.join(MANIFEST), &json)?;
        self.prune(state)
    }

    /// Removes all committed checkpoints but the last `keep` and the best.
    fn prune(&self, state: &State) -> Result<()> {
        let all = list(&self.run)?;
        let best = state.best.as_ref().map(|b| b.step);
        let old = all.len().saturating_sub(self.keep);
        for (_, dir) in all
            .iter()
            .take(old)
            .filter(|(step, _)| Some(**step) != best)
        {
            remove(dir)?;
        }
        Ok(())
    }
}
