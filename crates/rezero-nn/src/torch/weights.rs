//! A PyTorch file's tensors on the host.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::{bf16, f16};
use pytorch_reader::{DType, PytorchReader};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use super::{ImportError, guard};

/// The largest file that is read, 16 GiB, since all of it is held in memory.
const MAX_BYTES: u64 = 16 << 30;

/// The longest header that the safetensors library reads.
const MAX_HEADER: u64 = 100_000_000;

/// The tensors of a `.pt` file may claim this many times the size of the file. More than once is
/// allowed, since layers may share weights; a limit is needed, since a view of one number may claim
/// any size.
const MAX_SHARING: u64 = 32;
/// The largest number of components in a shared prefix. It bounds the work, since the names come
/// from the file and each prefix is tried on all of them.
const MAX_PREFIX: usize = 16;

/// The keys under which a `.pt` file may store its state dict.
const TOP_LEVEL: [&str; 3] = ["state_dict", "model_state_dict", "model"];

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct TorchTensor {
    /// The shape.
    pub shape: Vec<usize>,
    /// The values in row-major order.
    pub values: Arc<[f32]>,
}

/// Tensors by name.
pub type TorchTensors = BTreeMap<String, TorchTensor>;

/// The floating-point tensors of a PyTorch state dict, on the host, as f32. Two values are equal if
/// their tensors have equal names, shapes and values.
#[derive(Clone, Default)]
pub struct TorchWeights {
    tensors: TorchTensors,
    ignored: Vec<String>,
    metadata: BTreeMap<String, String>,
}

impl PartialEq for TorchWeights {
    fn eq(&self, other: &Self) -> bool {
        self.tensors == other.tensors
    }
}

impl fmt::Debug for TorchWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes = self.tensors.iter().map(|(name, t)| (name, &t.shape));
        f.debug_map().entries(shapes).finish()
    }
}

impl TorchWeights {
    /// Reads a safetensors file or a file of `torch.save`; the content decides which. If a
    /// checkpoint holds its state dict under `state_dict`, `model_state_dict` or `model`, only that
    /// is read.
    ///
    /// Nothing in a file is ever executed. A pickle is parsed as data: only the names of the
    /// functions that it would call are read. `f64`, `f16` and `bf16` become `f32`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, has another format, is damaged, claims data that it does not
    /// hold, would need much more memory than its size justifies, or holds no floating-point
    /// tensor. Files with compressed entries, which `torch.save` never writes, and archives older
    /// than PyTorch 0.1.10 are refused.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ImportError> {
        let path = path.as_ref();
        let fail = |message: String| ImportError::Read {
            path: path.to_owned(),
            message,
        };
        let meta = std::fs::metadata(path).map_err(|e| fail(e.to_string()))?;
        if !meta.is_file() {
            return Err(fail("it must be a file and is not one".to_owned()));
        }
        if meta.len() > MAX_BYTES {
            return Err(fail(format!(
                "it must have at most {MAX_BYTES} bytes and has {}: save the weights alone",
                meta.len()
            )));
        }
        let weights = match is_safetensors(path, meta.len()).map_err(|e| fail(e.to_string()))? {
            true => {
                let bytes = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
                from_safetensors(&bytes)
            }
            false => guard::check(path).and_then(|()| from_torch(path, meta.len())),
        }
        .map_err(fail)?;
        if weights.tensors.is_empty() {
            return Err(fail(
                "it must hold floating-point tensors and has none: save model.state_dict()"
                    .to_owned(),
            ));
        }
        Ok(weights)
    }

    /// The names of the tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The names of the tensors that were not read because they are not floating-point, such as
    /// integers.
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
            tensors: self
                .tensors
                .iter()
                .filter_map(|(name, tensor)| Some((inner(name)?, tensor.clone())))
                .collect(),
            ignored: self.ignored.iter().filter_map(inner).collect(),
            metadata: self.metadata.clone(),
        }
    }

    /// The metadata in a safetensors file, such as that given to [`export`](super::export).
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The tensors with the names that `translate` gives, without a prefix that all share.
    /// `expected` holds the names of the module's parameters; the prefix that gives most of them is
    /// taken.
    pub(crate) fn translated(
        &self,
        translate: impl Fn(&mut TorchTensors, &BTreeSet<String>),
        expected: &BTreeSet<String>,
    ) -> TorchTensors {
        // Prefixes of whole components that all names share, such as `module.encoder.`.
        let first = self.tensors.keys().next().map_or("", String::as_str);
        let dots = first.match_indices('.').take(MAX_PREFIX);
        let prefixes = dots.map(|(i, _)| &first[..=i]);
        let shared = prefixes.filter(|p| self.tensors.keys().all(|name| name.starts_with(*p)));
        let under = |prefix: &str| {
            let mut tensors = self.under(prefix).tensors;
            translate(&mut tensors, expected);
            tensors
        };
        let count =
            |found: &TorchTensors| found.keys().filter(|name| expected.contains(*name)).count();
        let mut best = under("");
        for prefix in shared {
            let found = under(prefix);
            if count(&found) > count(&best) {
                best = found;
            }
        }
        best
    }
}

/// Whether a file starts like safetensors: 8 bytes with the length of the JSON header, then `{`.
fn is_safetensors(path: &Path, length: u64) -> std::io::Result<bool> {
    use std::io::Read;
    let mut head = Vec::new();
    std::fs::File::open(path)?.take(9).read_to_end(&mut head)?;
    let Some((header, rest)) = head.split_first_chunk::<8>() else {
        return Ok(false);
    };
    Ok(rest == b"{" && u64::from_le_bytes(*header) <= length.min(MAX_HEADER))
}

fn from_safetensors(bytes: &[u8]) -> Result<TorchWeights, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let mut weights = TorchWeights {
        metadata: metadata.into_iter().collect(),
        ..TorchWeights::default()
    };
    for (name, view) in file.tensors() {
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F32 => convert(data, f32::from_le_bytes),
            Dtype::F64 => convert(data, |b| f64::from_le_bytes(b) as f32),
            Dtype::F16 => convert(data, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => convert(data, |b| bf16::from_le_bytes(b).to_f32()),
            // Counters and masks are no weights.
            _ => {
                weights.ignored.push(name);
                continue;
            }
        };
        let shape = view.shape().to_vec();
        weights.tensors.insert(name, TorchTensor { shape, values });
    }
    weights.ignored.sort();
    Ok(weights)
}

fn from_torch(path: &Path, length: u64) -> Result<TorchWeights, String> {
    let mut reader = PytorchReader::new(path)
        .map_err(|e| format!("{e}; save model.state_dict() with torch.save"))?;
    for key in TOP_LEVEL {
        let dotted = format!("{key}.");
        if reader.keys().iter().any(|name| name.starts_with(&dotted))
            && let Ok(inner) = PytorchReader::with_top_level_key(path, key)
        {
            reader = inner;
            break;
        }
    }
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
        let converted: fn(&[u8]) -> Arc<[f32]> = match tensor.dtype() {
            DType::F32 => |data| convert(data, f32::from_ne_bytes),
            DType::F64 => |data| convert(data, |b| f64::from_ne_bytes(b) as f32),
            DType::F16 => |data| convert(data, |b| f16::from_ne_bytes(b).to_f32()),
            DType::BF16 => |data| convert(data, |b| bf16::from_ne_bytes(b).to_f32()),
            // Counters and masks are no weights.
            _ => {
                weights.ignored.push(name);
                continue;
            }
        };
        let values = converted(&tensor.read().map_err(|e| e.to_string())?);
        let shape = tensor.shape().to_vec();
        weights.tensors.insert(name, TorchTensor { shape, values });
    }
    weights.ignored.sort();
    Ok(weights)
}

fn convert<const N: usize>(data: &[u8], f: impl Fn([u8; N]) -> f32) -> Arc<[f32]> {
    let (chunks, _) = data.as_chunks::<N>();
    chunks.iter().map(|chunk| f(*chunk)).collect()
}
