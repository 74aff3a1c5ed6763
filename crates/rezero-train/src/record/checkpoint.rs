//! Checkpoints: `checkpoints/step-N/`, complete or absent.
//!
//! | file | content |
//! | - | - |
//! | `model.bpk` | weights and running statistics, burn's record of the network |
//! | `ema.bpk` | with `train.ema`, the average of these after the steps so far |
//! | `optimizer.bpk` | momentum and accumulators |
//! | `scheduler.bpk` | the schedule's step |
//! | `state.json` | [`State`]: step, best result, bytes of `metrics.jsonl`, sums since its last row |
//! | `manifest.json` | [`Manifest`]: versions, the model, size and SHA-256 of every other file |
//!
//! The manifest is renamed into place last. A directory without a manifest is incomplete and is
//! ignored. Data order, augmentation and random numbers are functions of (seed, step), so a
//! checkpoint needs only the step for them.
//!
//! A checkpoint may come from somebody else. So sizes are compared with the manifest and with the network
//! before a file is read, and types and parameters before a tensor is loaded. The weights may be anything,
//! also not finite.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use burn::optim::OptimizerRecord;
use burn::optim::lr_scheduler::LrSchedulerRecord;
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{Bytes, DType};
use burn_pack::Scalar;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::inside::{self, SMALL, is_file, is_there, must_be};
use super::optimizer_state::OptimizerState;
use super::parts::Parts;
use super::run_dir::LOCK;
use super::state::{MOST_STEPS, State};
use super::weights::Weights;
use super::write::write_atomic;
use crate::error::{Error, Result};

/// The layout that this version writes and reads.
const FORMAT: u32 = 2;
/// The version of burn, which defines the `.bpk` files.
pub const BURN_VERSION: &str = "0.22.1";

pub(super) const MANIFEST: &str = "manifest.json";
/// The folder of checkpoints in a run directory.
pub(super) const DIR: &str = "checkpoints";
const MODEL: &str = "model.bpk";
const EMA: &str = "ema.bpk";
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
///
/// # Errors
///
/// If the folder cannot be read, or a link is in its place or in that of a checkpoint.
pub fn list(run: &Path) -> Result<BTreeMap<usize, PathBuf>> {
    let mut all = folders(run)?;
    all.retain(|(_, path)| is_file(&path.join(MANIFEST)));
    Ok(all.into_iter().collect())
}

/// The folders of checkpoints, committed or not.
fn folders(run: &Path) -> Result<Vec<(usize, PathBuf)>> {
    let dir = run.join(DIR);
    must_be(run, &dir, Metadata::is_dir)?;
    let mut found = Vec::new();
    let entries = match fs::read_dir(&dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        entries => entries.map_err(|e| Error::io("read", &dir, e))?,
    };
    for entry in entries {
        let path = entry.map_err(|e| Error::io("read", &dir, e))?.path();
        if let Some(step) = step_of(&path) {
            must_be(run, &path, Metadata::is_dir)?;
            found.push((step, path));
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
    let all = folders(run)?.into_iter().map(|(_, path)| path);
    Ok(all.filter(|path| !is_file(&path.join(MANIFEST))).collect())
}

/// The folder of a checkpoint.
pub(super) fn of_step(run: &Path, step: usize) -> PathBuf {
    run.join(DIR).join(format!("step-{step}"))
}

/// The step of a checkpoint's folder, `step-N`.
pub(super) fn step_of(path: &Path) -> Option<usize> {
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
    for name in [MANIFEST, STATE, SCHEDULER, OPTIMIZER, EMA, MODEL] {
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

/// Reads checkpoints of one model. Each file is verified when it is read.
#[derive(Clone, Debug)]
pub struct Reader {
    dir: PathBuf,
    /// The folder that the checkpoint was copied into, removed with the last clone of this reader.
    _copied_into: Option<Arc<TempDir>>,
    /// The manifest.
    pub manifest: Manifest,
}

impl Reader {
    /// The folder of the checkpoint.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Opens a committed checkpoint, whose files must have the sizes that its manifest says.
    ///
    /// # Errors
    ///
    /// If the manifest is of another format, version or model, or a file is missing or has another size.
    pub fn open(dir: &Path, model: &str) -> Result<Self> {
        let fail = |message: String| Error::Checkpoint {
            dir: dir.to_owned(),
            message,
        };
        let path = dir.join(MANIFEST);
        let text = inside::read(&path, SMALL).map_err(|e| Error::io("read", &path, e))?;
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
        let average = manifest.files.contains_key(EMA).then_some(EMA);
        for name in [MODEL, OPTIMIZER, SCHEDULER, STATE]
            .into_iter()
            .chain(average)
        {
            let entry = manifest
                .files
                .get(name)
                .ok_or_else(|| fail(format!("{MANIFEST} does not list {name}; {REMEDY}")))?;
            let path = dir.join(name);
            if !is_there(&path) {
                return Err(fail(format!("{name} is missing; {REMEDY}")));
            }
            if [SCHEDULER, STATE].contains(&name) && entry.bytes > SMALL {
                return Err(fail(format!(
                    "{name} has {} bytes, more than any such file ({SMALL}); {REMEDY}",
                    entry.bytes
                )));
            }
            let found = size(&path)?;
            if found != entry.bytes {
                return Err(fail(format!(
                    "{name} was altered: expected {} bytes, found {found}; {REMEDY}",
                    entry.bytes
                )));
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            _copied_into: None,
            manifest,
        })
    }

    /// The same, which was copied into `folder` and is removed when it has been read.
    pub(crate) fn copied_into(self, folder: TempDir) -> Self {
        Self {
            _copied_into: Some(Arc::new(folder)),
            ..self
        }
    }

    /// Checks, before the weights are read, that a network like `model` can have written the files: their
    /// sizes and, by name, the types of the parameters.
    ///
    /// # Errors
    ///
    /// The file or the parameter that is of another network, or a file that was altered.
    pub fn fits<M: Module>(&self, model: &M) -> Result<()> {
        let parts = Parts::of(model);
        let average = self.has_average().then_some(EMA);
        // The moments of LAMB and Adam take twice the bytes of the weights; no optimizer here takes more.
        let sizes = [(MODEL, 1), (OPTIMIZER, 2)];
        for (file, times) in sizes.into_iter().chain(average.map(|file| (file, 1))) {
            let (bytes, most) = (self.entry(file)?.bytes, parts.most_bytes(times));
            if bytes > most {
                return Err(self.fail(
                    file,
                    format!("it has {bytes} bytes, where this network has at most {most}"),
                ));
            }
        }
        // Weights are verified as they are read.
        for file in [OPTIMIZER, SCHEDULER] {
            self.verified(file, hash(&self.dir.join(file))?)?;
        }
        for file in [MODEL].into_iter().chain(average) {
            let tensors = self.pack(file)?.into_tensors();
            for tensor in tensors.map_err(|e| self.fail(file, e))? {
                // Burn names a parameter that the network does not have.
                if let Some(part) = parts.named(&tensor.name)
                    && !same_kind(tensor.dtype, part.dtype)
                {
                    return Err(self.fail(
                        file,
                        format!(
                            "parameter {} is of type {:?}, where the network has {:?}",
                            tensor.name, tensor.dtype, part.dtype
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    /// The state beside the tensors.
    ///
    /// # Errors
    ///
    /// If it does not parse.
    pub fn state(&self) -> Result<State> {
        let text = self.read(STATE, SMALL)?;
        let state: State = serde_json::from_slice(&text).map_err(|e| self.fail(STATE, e))?;
        state.check().map_err(|e| self.fail(STATE, e))?;
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
        self.record(MODEL)
    }

    /// Whether the run keeps an average of its weights, and had taken a step.
    pub fn has_average(&self) -> bool {
        self.manifest.files.contains_key(EMA)
    }

    /// The average of weights and running statistics over the steps so far, if the run keeps one.
    ///
    /// # Errors
    ///
    /// As [`weights`](Self::weights).
    pub fn average(&self) -> Result<Option<ModuleRecord>> {
        self.has_average().then(|| self.record(EMA)).transpose()
    }

    fn record(&self, file: &str) -> Result<ModuleRecord> {
        let bytes = self.read(file, self.entry(file)?.bytes)?;
        ModuleRecord::from_bytes(Bytes::from_bytes_vec(bytes)).map_err(|e| self.fail(file, e))
    }

    /// The file of the weights that validation has scored.
    fn scored(&self) -> &'static str {
        match self.has_average() {
            true => EMA,
            false => MODEL,
        }
    }

    /// The SHA-256 of the weights that validation has scored, the average of a run that keeps one.
    ///
    /// # Errors
    ///
    /// If the manifest does not list them.
    pub(crate) fn weights_hash(&self) -> Result<&str> {
        Ok(&self.entry(self.scored())?.sha256)
    }

    /// The weights that validation has scored and that have a place in `model`, by name, shape and type. The
    /// others are not read.
    ///
    /// # Errors
    ///
    /// If they were altered, or do not parse.
    pub(crate) fn weights_for<M: Module>(&self, model: &M) -> Result<Shared> {
        let file = self.scored();
        self.verified(file, hash(&self.dir.join(file))?)?;
        let parts = Parts::of(model);
        let (mut loaded, mut left_out) = (Vec::new(), Vec::new());
        let (mut kept, mut others) = (Vec::new(), BTreeMap::new());
        for tensor in self
            .pack(file)?
            .into_tensors()
            .map_err(|e| self.fail(file, e))?
        {
            let shape: Vec<usize> = tensor.shape.iter().copied().collect();
            match parts.named(&tensor.name) {
                Some(part) if part.shape == shape && same_kind(tensor.dtype, part.dtype) => {
                    loaded.push((tensor.name.clone(), shape));
                    kept.push(tensor);
                }
                Some(_) => {
                    others.insert(tensor.name, shape);
                }
                None => left_out.push((tensor.name, shape)),
            }
        }
        let found: BTreeSet<&String> = loaded.iter().map(|(name, _)| name).collect();
        let missing = parts.names().filter(|(name, _)| !found.contains(name));
        let remade = missing
            .map(|(name, shape)| {
                let before = others.remove(&name);
                (name, shape, before)
            })
            .collect();
        let bytes = burn_pack::Writer::new(kept)
            .into_bytes()
            .map_err(|e| self.fail(file, e))?;
        let record = ModuleRecord::from_bytes(bytes).map_err(|e| self.fail(file, e))?;
        Ok(Shared {
            record: record.allow_partial(true),
            loaded,
            remade,
            left_out,
        })
    }

    /// An error about the weights.
    pub(crate) fn unfit(&self, error: impl std::fmt::Display) -> Error {
        self.fail(MODEL, error)
    }

    /// An error about the average of the weights.
    pub(crate) fn unfit_average(&self, error: impl std::fmt::Display) -> Error {
        self.fail(EMA, error)
    }

    /// The optimizer's state, for the parameters of `model`, which has the weights of this checkpoint.
    ///
    /// # Errors
    ///
    /// If it does not parse, or has a state that is not of a parameter of `model`, by shape and type.
    pub fn optimizer<M: Module>(&self, model: &M) -> Result<OptimizerRecord> {
        let parts = Parts::of(model);
        let bad = |message: String| self.fail(OPTIMIZER, message);
        let part = |name: &str| {
            let (id, field) = name.split_once('.').unwrap_or((name, ""));
            let part = id.parse().ok().and_then(|id| parts.of_id(id));
            let part =
                part.ok_or_else(|| bad(format!("{name} belongs to no parameter of this network")))?;
            Ok::<_, Error>((part, field.to_owned()))
        };
        let pack = self.pack(OPTIMIZER)?;
        for (name, value) in pack.scalars() {
            let (part, field) = part(name)?;
            let number = |value: Scalar| u64::try_from(value).ok();
            let fits = match (field.as_str(), number(*value)) {
                (RANK, Some(rank)) => rank == part.shape.len() as u64,
                ("time", Some(time)) => time <= MOST_STEPS,
                _ => false,
            };
            if !fits {
                return Err(bad(format!(
                    "{field} of parameter {} is {value:?}",
                    part.path
                )));
            }
        }
        for tensor in pack.into_tensors().map_err(|e| self.fail(OPTIMIZER, e))? {
            let (part, _) = part(&tensor.name)?;
            let fits = tensor.param_id == Some(part.id)
                && tensor.dtype == part.dtype
                && tensor.shape.iter().eq(&part.shape);
            if !fits {
                return Err(bad(format!(
                    "the state of parameter {} is {:?} of type {:?}, where the parameter is {:?} of type {:?}",
                    part.path, tensor.shape, tensor.dtype, part.shape, part.dtype
                )));
            }
        }
        OptimizerRecord::load(self.dir.join(OPTIMIZER)).map_err(|e| self.fail(OPTIMIZER, e))
    }

    /// The schedule's state.
    ///
    /// # Errors
    ///
    /// If it was altered, does not parse, or its step is no step of a run.
    pub fn scheduler(&self) -> Result<LrSchedulerRecord> {
        let bytes = Bytes::from_bytes_vec(self.read(SCHEDULER, SMALL)?);
        let record = LrSchedulerRecord::from_bytes(bytes).map_err(|e| self.fail(SCHEDULER, e))?;
        match record.scalar::<u64>("step") {
            Some(step) if step > MOST_STEPS => {
                Err(self.fail(SCHEDULER, format!("its step is {step}")))
            }
            _ => Ok(record),
        }
    }

    fn entry(&self, file: &str) -> Result<&FileEntry> {
        let entry = self.manifest.files.get(file);
        entry.ok_or_else(|| self.fail(file, format!("{MANIFEST} does not list it; {REMEDY}")))
    }

    /// The content of a file of at most `most` bytes, as the manifest has it.
    fn read(&self, file: &str, most: u64) -> Result<Vec<u8>> {
        let path = self.dir.join(file);
        let bytes = inside::read(&path, most).map_err(|e| Error::io("read", &path, e))?;
        self.verified(file, entry(&bytes))?;
        Ok(bytes)
    }

    fn verified(&self, file: &str, found: FileEntry) -> Result<()> {
        let entry = self.entry(file)?;
        if found == *entry {
            return Ok(());
        }
        Err(self.fail(
            file,
            format!(
                "it was altered: expected {} bytes with SHA-256 {}, found {} bytes with {}; {REMEDY}",
                entry.bytes, entry.sha256, found.bytes, found.sha256
            ),
        ))
    }

    /// The tensors of a file, without their data.
    fn pack(&self, file: &str) -> Result<burn_pack::Reader> {
        let path = self.dir.join(file);
        let io = |e| Error::io("read", &path, e);
        let mut head = [0; 10];
        let mut opened = inside::open(&path, File::options().read(true)).map_err(io)?;
        opened.read_exact(&mut head).map_err(io)?;
        // A number, a version, and the length of the names, for which Burn reserves memory at once.
        let names = u32::from_le_bytes([head[6], head[7], head[8], head[9]]);
        let bytes = self.entry(file)?.bytes;
        if u64::from(names) > bytes {
            return Err(self.fail(
                file,
                format!("its names would have {names} bytes, and all of it has {bytes}"),
            ));
        }
        burn_pack::Reader::from_file_exact(&path).map_err(|e| self.fail(file, e))
    }

    fn fail(&self, file: &str, error: impl std::fmt::Display) -> Error {
        Error::Checkpoint {
            dir: self.dir.clone(),
            message: format!("cannot load {file}: {error}"),
        }
    }
}

/// Weights that two networks share.
pub(crate) struct Shared {
    /// Their record, to be loaded into the network.
    pub record: ModuleRecord,
    /// Their names and shapes.
    pub loaded: Vec<(String, Vec<usize>)>,
    /// The network's other tensors, with the checkpoint's shape if it has a tensor of that name.
    pub remade: Vec<(String, Vec<usize>, Option<Vec<usize>>)>,
    /// The checkpoint's tensors that the network does not have.
    pub left_out: Vec<(String, Vec<usize>)>,
}

/// The name of a parameter's rank in an optimizer's record.
const RANK: &str = "__rank";

const REMEDY: &str = "the directory is damaged; remove it to fall back to the checkpoint before it";

/// The part of a version that decides compatibility: 0.N, or N from 1.0 on.
fn release(version: &str) -> Vec<&str> {
    let parts: Vec<&str> = version.split('.').collect();
    let significant = if parts.first() == Some(&"0") { 2 } else { 1 };
    parts.into_iter().take(significant).collect()
}

/// The size of a regular file.
fn size(path: &Path) -> Result<u64> {
    let file = inside::open(path, File::options().read(true));
    let meta = file.and_then(|file| file.metadata());
    Ok(meta.map_err(|e| Error::io("read", path, e))?.len())
}

/// Whether a tensor of type `found` can be loaded where `wanted` is. Devices differ in their integers.
fn same_kind(found: DType, wanted: DType) -> bool {
    let integer = |dtype: DType| dtype.is_int() || dtype.is_uint();
    found == wanted || (integer(found) && integer(wanted)) || (found.is_bool() && wanted.is_bool())
}

/// Reads in parts: a file can be as large as the model.
fn hash(path: &Path) -> Result<FileEntry> {
    let io = |e| Error::io("read", path, e);
    let mut file = inside::open(path, File::options().read(true)).map_err(io)?;
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

    /// Writes a checkpoint and commits it, with the average of the weights if there is one. The optimizer's record is made only when it is written,
    /// because it is a copy of the whole state.
    ///
    /// # Errors
    ///
    /// If a file cannot be written; earlier checkpoints are intact then.
    pub fn save(
        &self,
        state: &State,
        weights: Weights,
        average: Option<Weights>,
        optimizer: OptimizerState,
        schedule: LrSchedulerRecord,
    ) -> Result<()> {
        let all = self.run.join(DIR);
        let dir = of_step(&self.run, state.step);
        must_be(&self.run, &all, Metadata::is_dir)?;
        must_be(&self.run, &dir, Metadata::is_dir)?;
        if is_file(&dir.join(MANIFEST)) {
            return Ok(());
        }
        // Else its folders would be made again, with half a run in them.
        if !is_file(&self.run.join(LOCK)) {
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
        if is_there(&dir) {
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
        optimizer.save(&dir.join(OPTIMIZER)).map_err(text)?;
        schedule.save(dir.join(SCHEDULER)).map_err(text)?;
        weights.save(&dir.join(MODEL)).map_err(text)?;
        let also = average.as_ref().map(|_| EMA);
        if let Some(average) = average {
            average.save(&dir.join(EMA)).map_err(text)?;
        }
        let json = serde_json::to_vec_pretty(state).expect("a state is JSON");
        write_atomic(&dir.join(STATE), &json)?;

        let mut manifest = self.manifest.clone();
        for name in [MODEL, OPTIMIZER, SCHEDULER, STATE].into_iter().chain(also) {
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
