//! A PyTorch file's tensors.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use pytorch_reader::{DType, PytorchReader};
use rezero_kernels::FileFloat;
use safetensors::tensor::{Dtype, Metadata};

use super::{ImportError, guard};

/// The largest file that is read, 16 GiB.
const MAX_BYTES: u64 = 16 << 30;

/// The longest header that the safetensors library reads.
const MAX_HEADER: u64 = 100_000_000;

/// The longest index of a file in parts.
const MAX_INDEX: u64 = 64 << 20;

/// The tensors of a `.pt` file may claim this many times the size of the file. More than once is
/// allowed, since layers may share weights; a limit is needed, since a view of one number may claim
/// any size.
const MAX_SHARING: u64 = 32;

/// The number of bytes that are read and converted at a time: a multiple of every type's size, and less
/// than a core's cache.
const BUFFER: usize = 1 << 18;

/// Reads the values of a tensor.
type Read32 = dyn Fn() -> Result<Vec<f32>, String> + Send + Sync;

/// A tensor of a file. Its values are read when they are asked for.
#[derive(Clone)]
pub struct TorchTensor {
    shape: Vec<usize>,
    read: Arc<Read32>,
    made: bool,
}

/// Tensors by name.
pub type TorchTensors = BTreeMap<String, TorchTensor>;

impl TorchTensor {
    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        match self.shape.contains(&0) {
            true => 0,
            false => self
                .shape
                .iter()
                .fold(1, |n, &extent| n.saturating_mul(extent)),
        }
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values in row-major order, from the file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or does not hold what it claims.
    pub fn values(&self) -> Result<Vec<f32>, String> {
        let values = (self.read)()?;
        match values.len() == self.len() {
            true => Ok(values),
            false => Err(format!(
                "a tensor of shape {:?} must have {} values, and has {}",
                self.shape,
                self.len(),
                values.len()
            )),
        }
    }

    /// A tensor with the same values in another shape of as many values.
    #[must_use]
    pub fn reshaped(&self, shape: Vec<usize>) -> Self {
        Self {
            shape,
            ..self.clone()
        }
    }

    /// The values of all `parts` in turn.
    pub fn joined(parts: Vec<Self>, shape: Vec<usize>) -> Self {
        let read = move || {
            let mut values = Vec::new();
            for part in &parts {
                values.append(&mut part.values()?);
            }
            Ok(values)
        };
        Self::new(shape, read)
    }

    /// Zeros that stand in for a tensor that the file lacks.
    pub fn zeros(shape: Vec<usize>) -> Self {
        let mut zeros = Self::new(shape, || Ok(Vec::new()));
        let n = zeros.len();
        zeros.read = Arc::new(move || Ok(vec![0.0; n]));
        zeros.made = true;
        zeros
    }

    /// Element `i` of a vector.
    #[must_use]
    pub fn element(&self, i: usize) -> Self {
        let whole = self.clone();
        let read = move || {
            let values = whole.values()?;
            let value = values.get(i).ok_or("a vector ends early")?;
            Ok(vec![*value])
        };
        Self::new(vec![1], read)
    }

    /// Whether it stands in for a tensor that the file lacks.
    pub(super) fn is_made(&self) -> bool {
        self.made
    }

    fn new(
        shape: Vec<usize>,
        read: impl Fn() -> Result<Vec<f32>, String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            shape,
            read: Arc::new(read),
            made: false,
        }
    }
}

impl fmt::Debug for TorchTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shape.fmt(f)
    }
}

/// The floating-point tensors of a PyTorch file. Their values are read, as f32, when a module is
/// loaded.
#[derive(Clone, Default)]
pub struct TorchWeights {
    pub(super) path: PathBuf,
    pub(super) tensors: TorchTensors,
    ignored: Vec<String>,
    metadata: BTreeMap<String, String>,
}

impl fmt::Debug for TorchWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tensors.fmt(f)
    }
}

impl TorchWeights {
    /// Opens a safetensors file, a file of `torch.save`, or the index of a model in several
    /// safetensors files, `….index.json`; the content decides which. Values are read later, so the
    /// files must stay as they are until a module is loaded.
    ///
    /// Nothing in a file is ever executed. A pickle is parsed as data: only the names of the
    /// functions that it would call are read. `f64`, `f16` and `bf16` become `f32`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, has another format, is damaged, claims data that it does not
    /// hold, would need much more memory than its size justifies, is one of several parts, holds a
    /// whole module (`torch.save(model)` in place of `torch.save(model.state_dict())`), or holds no
    /// floating-point tensor. Files with compressed entries, which `torch.save` never writes, and
    /// archives older than PyTorch 0.1.10 are refused.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ImportError> {
        let path = path.as_ref();
        let fail = |message: String| ImportError::Read {
            path: path.to_owned(),
            message,
        };
        if let Some((part, of)) = part_of(path) {
            return Err(fail(format!(
                "it is part {part} of {of}: name the index of the parts, which ends in .index.json"
            )));
        }
        match is_index(path) {
            true => from_index(path).map_err(fail),
            false => Self::open_one(path),
        }
    }

    fn open_one(path: &Path) -> Result<Self, ImportError> {
        let fail = |message: String| ImportError::Read {
            path: path.to_owned(),
            message,
        };
        let io = |e: std::io::Error| fail(e.to_string());
        let meta = std::fs::metadata(path).map_err(io)?;
        if !meta.is_file() {
            return Err(fail("it must be a file and is not one".to_owned()));
        }
        if meta.len() > MAX_BYTES {
            return Err(fail(format!(
                "it must have at most {MAX_BYTES} bytes and has {}: save the weights alone",
                meta.len()
            )));
        }
        let mut file = File::open(path).map_err(io)?;
        let mut head = Vec::new();
        Read::by_ref(&mut file)
            .take(9)
            .read_to_end(&mut head)
            .map_err(io)?;
        let weights = match safetensors_header(&head, meta.len()) {
            Some(length) => from_safetensors(file, length, meta.len()),
            None => guard::check(path).and_then(|patches| match patches.is_empty() {
                true => from_torch(path, meta.len()),
                false => patched(path, &patches)
                    .map_err(|e| e.to_string())
                    .and_then(|copy| {
                        let weights = from_torch(&copy, meta.len())?;
                        Ok(weights.holding(copy))
                    }),
            }),
        };
        weights
            .and_then(some_tensors)
            .map_err(fail)
            .map(|weights| Self {
                path: path.to_owned(),
                ..weights
            })
    }

    /// Reads the bytes of such a file. A file of `torch.save` is put into the folder for temporary
    /// files, as its reader takes a path.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), or if a temporary file cannot be written.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ImportError> {
        let fail = |message: String| ImportError::Read {
            path: PathBuf::from("memory"),
            message,
        };
        let head = &bytes[..bytes.len().min(9)];
        let weights = match safetensors_header(head, bytes.len() as u64) {
            Some(length) => {
                let bytes: Arc<[u8]> = bytes.into();
                let header = header(&bytes[8..][..length], bytes.len() as u64).map_err(fail)?;
                header.weights(move |start, to| {
                    to.copy_from_slice(&bytes[start..][..to.len()]);
                    Ok(())
                })
            }
            None => {
                let io = |e: std::io::Error| fail(e.to_string());
                let mut file = tempfile::NamedTempFile::new().map_err(io)?;
                file.write_all(bytes).map_err(io)?;
                let path = file.into_temp_path();
                let weights = Self::open_one(&path).map_err(|e| match e {
                    ImportError::Read { message, .. } => fail(message),
                    other => other,
                })?;
                weights.holding(path)
            }
        };
        some_tensors(weights).map_err(fail).map(|weights| Self {
            path: PathBuf::from("memory"),
            ..weights
        })
    }

    /// Keeps a temporary file until the last tensor is gone.
    fn holding(mut self, path: tempfile::TempPath) -> Self {
        let path = Arc::new(path);
        for tensor in self.tensors.values_mut() {
            let (read, path) = (tensor.read.clone(), path.clone());
            tensor.read = Arc::new(move || {
                let _held = &path;
                read()
            });
        }
        self
    }

    /// The names of the tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&TorchTensor> {
        self.tensors.get(name)
    }

    /// The names of the tensors that are not floating-point, such as integers. They are not read.
    pub fn ignored(&self) -> impl Iterator<Item = &str> {
        self.ignored.iter().map(String::as_str)
    }

    /// The tensors whose names begin with `prefix`, under names without it: one module of a larger
    /// model. The values are not copied.
    ///
    /// ```no_run
    /// # use rezero_nn::torch::{ImportError, TorchWeights, load};
    /// # use rezero_nn::transformer::RztxEncoder;
    /// # fn encoder(encoder: RztxEncoder) -> Result<RztxEncoder, ImportError> {
    /// let model = TorchWeights::open("model.pt")?;
    /// load(encoder, &model.under("encoder."))
    /// # }
    /// ```
    pub fn under(&self, prefix: &str) -> Self {
        let inner = |name: &String| name.strip_prefix(prefix).map(str::to_owned);
        Self {
            path: self.path.clone(),
            tensors: self
                .tensors
                .iter()
                .filter_map(|(name, tensor)| Some((inner(name)?, tensor.clone())))
                .collect(),
            ignored: self.ignored.iter().filter_map(inner).collect(),
            metadata: self.metadata.clone(),
        }
    }

    /// As [`under`](Self::under), unless there is no such tensor.
    ///
    /// # Errors
    ///
    /// [`ImportError::Prefix`], with the beginnings of names that there are.
    pub fn only(&self, prefix: &str) -> Result<Self, ImportError> {
        let part = self.under(&self.whole_component(prefix));
        match part.tensors.is_empty() {
            false => Ok(part),
            true => Err(self.no_such(prefix.to_owned())),
        }
    }

    /// The metadata in a safetensors file, such as that given to [`export`](super::export).
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// That no name begins with `prefix`.
    pub(super) fn no_such(&self, prefix: String) -> ImportError {
        let names = self.tensors.keys();
        let found: BTreeSet<&str> = names.filter_map(|name| name.split('.').next()).collect();
        ImportError::Prefix {
            prefix,
            found: found.into_iter().map(str::to_owned).collect(),
        }
    }
}

fn some_tensors(weights: TorchWeights) -> Result<TorchWeights, String> {
    match weights.tensors.is_empty() {
        true => Err(
            "it must hold floating-point tensors and has none: save model.state_dict()".to_owned(),
        ),
        false => Ok(weights),
    }
}

/// The number of a part of a model, and the number of parts: `model-00002-of-00003.safetensors` is
/// part 2 of 3.
fn part_of(path: &Path) -> Option<(u32, u32)> {
    let (rest, of) = path.file_stem()?.to_str()?.rsplit_once("-of-")?;
    let (_, part) = rest.rsplit_once('-')?;
    let (part, of) = (part.parse().ok()?, of.parse().ok()?);
    (of > 1).then_some((part, of))
}

fn is_index(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".index.json")
}

/// The tensors of all files that an index names, which must lie beside it.
fn from_index(path: &Path) -> Result<TorchWeights, String> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }

    let mut text = Vec::new();
    let file = File::open(path).map_err(|e| e.to_string())?;
    if !file
        .metadata()
        .is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_INDEX)
    {
        return Err(format!(
            "it must be a file of at most {MAX_INDEX} bytes and is not"
        ));
    }
    file.take(MAX_INDEX)
        .read_to_end(&mut text)
        .map_err(|e| e.to_string())?;
    let index: Index = serde_json::from_slice(&text)
        .map_err(|e| format!("it must have a table weight_map of tensors and their files: {e}"))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut parts: BTreeMap<&str, TorchWeights> = BTreeMap::new();
    let mut whole = TorchWeights {
        path: path.to_owned(),
        ..TorchWeights::default()
    };
    for (name, file) in &index.weight_map {
        let shown = file.escape_debug();
        if !parts.contains_key(file.as_str()) {
            // A name, so that an index from somebody else reaches no other folder.
            let plain = Path::new(file)
                .file_name()
                .is_some_and(|name| name == file.as_str());
            if !plain {
                return Err(format!(
                    "its parts must be files beside it, and \"{shown}\" is not"
                ));
            }
            let part = TorchWeights::open_one(&folder.join(file)).map_err(|e| e.to_string())?;
            whole.ignored.extend(part.ignored.iter().cloned());
            parts.insert(file, part);
        }
        let part = &parts[file.as_str()];
        match part.tensors.get(name) {
            Some(tensor) => {
                whole.tensors.insert(name.clone(), tensor.clone());
            }
            None if part.ignored.contains(name) => {}
            None => {
                return Err(format!(
                    "it says that {} is in \"{shown}\", which does not have it",
                    name.escape_debug()
                ));
            }
        }
    }
    whole.ignored.sort();
    some_tensors(whole)
}

/// The length of the JSON header, if a file of `length` bytes with this beginning is safetensors: 8
/// bytes with the length of the header, then `{`.
fn safetensors_header(head: &[u8], length: u64) -> Option<usize> {
    let (header, rest) = head.split_first_chunk::<8>()?;
    let header = u64::from_le_bytes(*header);
    let fits = rest == b"{" && header <= MAX_HEADER && header.saturating_add(8) <= length;
    fits.then_some(header as usize)
}

fn from_safetensors(mut file: File, length: usize, size: u64) -> Result<TorchWeights, String> {
    let io = |e: std::io::Error| e.to_string();
    let mut text = vec![0; length];
    file.seek(SeekFrom::Start(8)).map_err(io)?;
    file.read_exact(&mut text).map_err(io)?;
    let header = header(&text, size)?;
    let file = Mutex::new(file);
    Ok(header.weights(move |start, bytes| {
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(start as u64)).map_err(io)?;
        file.read_exact(bytes).map_err(io)
    }))
}

/// The header of a safetensors file.
struct Header {
    metadata: Metadata,
    /// Where the values begin.
    start: usize,
}

/// The header from its text, for a file of `size` bytes.
fn header(text: &[u8], size: u64) -> Result<Header, String> {
    let start = 8 + text.len();
    let parsed: Metadata = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    let info = |name: String| Some((name.clone(), parsed.info(&name)?.clone()));
    let tensors = parsed.offset_keys().into_iter().filter_map(info).collect();
    // This checks types, shapes and offsets; what is parsed alone is not checked.
    let metadata = Metadata::new(parsed.metadata().clone(), tensors).map_err(|e| e.to_string())?;
    let values = metadata.data_len();
    match size == (start + values) as u64 {
        true => Ok(Header { metadata, start }),
        false => Err(format!(
            "its header describes {values} bytes of values, and {} follow it",
            size.saturating_sub(start as u64)
        )),
    }
}

impl Header {
    /// The tensors; `read` fills a buffer with the bytes of the file from a place on.
    fn weights(
        &self,
        read: impl Fn(usize, &mut [u8]) -> Result<(), String> + Send + Sync + 'static,
    ) -> TorchWeights {
        let read = Arc::new(read);
        let metadata = self.metadata.metadata().clone().unwrap_or_default();
        let mut weights = TorchWeights {
            metadata: metadata.into_iter().collect(),
            ..TorchWeights::default()
        };
        for (name, info) in self.metadata.tensors() {
            let kind = match info.dtype {
                Dtype::F32 => FileFloat::F32,
                Dtype::F64 => FileFloat::F64,
                Dtype::F16 => FileFloat::F16,
                Dtype::BF16 => FileFloat::Bf16,
                // Counters and masks are no weights.
                _ => {
                    weights.ignored.push(name);
                    continue;
                }
            };
            let (from, to) = info.data_offsets;
            let (from, to, read) = (self.start + from, self.start + to, read.clone());
            let tensor = TorchTensor::new(info.shape.clone(), move || {
                let mut values = Vec::with_capacity((to - from) / kind.size());
                let mut buffer = vec![0; BUFFER.min(to - from)];
                for at in (from..to).step_by(BUFFER) {
                    let bytes = &mut buffer[..BUFFER.min(to - at)];
                    read(at, bytes)?;
                    kind.append_le(bytes, &mut values);
                }
                Ok(values)
            });
            weights.tensors.insert(name, tensor);
        }
        weights.ignored.sort();
        weights
    }
}

/// A copy of a file with changes.
fn patched(path: &Path, patches: &[guard::Patch]) -> std::io::Result<tempfile::TempPath> {
    let mut copy = tempfile::NamedTempFile::new()?;
    std::io::copy(&mut File::open(path)?, &mut copy)?;
    for patch in patches {
        copy.seek(SeekFrom::Start(patch.at))?;
        copy.write_all(&patch.bytes)?;
    }
    Ok(copy.into_temp_path())
}

fn from_torch(path: &Path, length: u64) -> Result<TorchWeights, String> {
    let reader = PytorchReader::new(path)
        .map_err(|e| format!("{e}; save model.state_dict() with torch.save"))?;
    let claimed = reader
        .tensors()
        .values()
        .try_fold(0u64, |sum, t| sum.checked_add(t.byte_len() as u64));
    let most = length.saturating_mul(MAX_SHARING).min(MAX_BYTES);
    if claimed.is_none_or(|claimed| claimed > most) {
        return Err(format!(
            "its tensors must claim at most {most} bytes, as its size is {length}, and claim more"
        ));
    }
    let mut weights = TorchWeights::default();
    for (name, tensor) in reader.into_tensors() {
        let kind = match tensor.dtype() {
            DType::F32 => FileFloat::F32,
            DType::F64 => FileFloat::F64,
            DType::F16 => FileFloat::F16,
            DType::BF16 => FileFloat::Bf16,
            // Counters and masks are no weights.
            _ => {
                weights.ignored.push(name);
                continue;
            }
        };
        let shape = tensor.shape().to_vec();
        let read = move || {
            let bytes = tensor.read().map_err(|e| e.to_string())?;
            let mut values = Vec::new();
            kind.append_ne(&bytes, &mut values);
            Ok(values)
        };
        weights.tensors.insert(name, TorchTensor::new(shape, read));
    }
    weights.ignored.sort();
    Ok(weights)
}

/// Gives the output layer of that name a bias of zeros, if the module has one and the file has none.
pub(crate) fn complete_head(tensors: &mut TorchTensors, expected: &BTreeSet<String>, layer: &str) {
    let bias = format!("{layer}.bias");
    if expected.contains(&bias)
        && !tensors.contains_key(&bias)
        && let Some(head) = tensors.get(&format!("{layer}.weight"))
        && let Some(rows) = head.shape().first()
    {
        let zeros = TorchTensor::zeros(vec![*rows]);
        tensors.insert(bias, zeros);
    }
}

/// Gives tensors other names, component by component. A name that is taken stays as it is.
pub(crate) fn renamed(tensors: &mut TorchTensors, rename: impl Fn(&[&str]) -> Option<String>) {
    let names: Vec<(String, String)> = tensors
        .keys()
        .filter_map(|name| {
            let parts: Vec<&str> = name.split('.').collect();
            Some((name.clone(), rename(&parts)?))
        })
        .collect();
    for (old, new) in names {
        if !tensors.contains_key(&new)
            && let Some(tensor) = tensors.remove(&old)
        {
            tensors.insert(new, tensor);
        }
    }
}
