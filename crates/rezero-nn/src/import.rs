//! PyTorch weights into these modules and back.
//!
//! [`TorchWeights`] reads a `state_dict` from a `.pt` or a `.safetensors` file; [`load`] puts it into
//! a module, [`export`] writes a module's weights as safetensors in PyTorch's layout. Names are those
//! of the authors' layers (github.com/majumderb/rezero) and of `nn.Transformer`:
//!
//! | here | PyTorch |
//! | - | - |
//! | `attention.in_proj.weight`, `[d, 3d]` | `self_attn.in_proj_weight`, `[3d, d]` |
//! | `cross_attention.…` | `multihead_attn.…` |
//! | `attention.out_proj.…`, `feed_forward.linear1.…`, `feed_forward.linear2.…` | `self_attn.out_proj.…`, `linear1.…`, `linear2.…` |
//! | `feed_forward.gate.…` (SwiGLU) | `linear_gate.…` |
//! | `residual.rezero.alpha` | `resweight` |
//! | `residual.sub_layers.I.rezero.alpha` | `resweight_I` |
//! | `residual.sub_layers.I.norm.…` | `norm{I+1}.weight`, `.bias` |
//! | a stack's `layers.N.…` and final `norm.…` | `layers.N.…`, `norm.…` |
//! | of a language model `embedding`, `positions`, `encoder`, `head` | the same |
//!
//! Matrices of linear layers are transposed. [`load`] also takes the language model of the authors'
//! notebook (`encoder.weight` for the embedding, `transformer_encoder.layers.N.…`, `decoder.…` for
//! the head), `q_proj_weight`, `k_proj_weight` and `v_proj_weight` in place of `in_proj_weight`, and
//! names behind any prefix that all share, such as `module.` of DistributedDataParallel.
//!
//! The notebook's layers with a norm keep a `resweight` of 1 that is not learned, and use `norm1` for
//! both of their branches: there [`load`] fills both norms with `norm1`, and `norm2` is not looked at.

mod guard;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData, bf16, f16};
use pytorch_reader::{DType, PytorchReader};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

/// The largest file that is read, 16 GiB, since all of it is held in memory.
const MAX_BYTES: u64 = 16 << 30;

/// The longest header that the safetensors library reads.
const MAX_HEADER: u64 = 100_000_000;

/// How many times what a file stores its tensors may claim: layers may share their weights, but a
/// view of one number may claim any size.
const MAX_SHARING: u64 = 32;
/// The most components of a prefix: names are the file's, and each prefix is tried on all of them.
const MAX_PREFIX: usize = 16;

/// Where a `.pt` file may keep its state dict.
const TOP_LEVEL: [&str; 3] = ["state_dict", "model_state_dict", "model"];

/// Why weights could not be read or do not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportError {
    /// The file cannot be read as weights.
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The file is of another model: every tensor that is missing, of another shape or unknown.
    Mismatch(Vec<String>),
    /// The weights could not be written.
    Write(String),
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, message } => {
                write!(f, "cannot read weights from {}: {message}", path.display())
            }
            Self::Mismatch(tensors) if tensors.is_empty() => {
                write!(f, "the weights are of another model:")
            }
            Self::Mismatch(tensors) => {
                write!(
                    f,
                    "the weights are of another model, {} tensors differ:",
                    tensors.len()
                )?;
                tensors.iter().try_for_each(|t| write!(f, "\n  {t}"))
            }
            Self::Write(message) => write!(f, "cannot write weights: {message}"),
        }
    }
}

impl std::error::Error for ImportError {}

#[derive(Clone, Debug, PartialEq)]
struct Host {
    shape: Vec<usize>,
    values: Arc<[f32]>,
}

/// The floating-point tensors of a PyTorch state dict, on the host, as f32. Two are equal if their
/// tensors are, by name and value.
#[derive(Clone, Default)]
pub struct TorchWeights {
    tensors: BTreeMap<String, Host>,
    ignored: Vec<String>,
    metadata: BTreeMap<String, String>,
}

/// The sizes of a language model, as the shapes of its tensors give them. Its number of heads cannot
/// be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LmShape {
    /// Layers.
    pub n_layers: usize,
    /// Width.
    pub d_model: usize,
    /// Width of the feed-forward branch.
    pub d_ff: usize,
    /// Tokens.
    pub vocab_size: usize,
    /// Learned positions, if there are any.
    pub context: Option<usize>,
    /// Whether there is no output layer of its own.
    pub tied: bool,
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
    /// Reads a file, by its content a safetensors file or what `torch.save` wrote. Of a checkpoint
    /// that holds more than a state dict, `state_dict`, `model_state_dict` or `model` is taken.
    ///
    /// Nothing in a file is ever executed: a pickle is parsed as data, and of what it would call only
    /// the names are looked at. `f64`, `f16` and `bf16` become `f32`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is neither, is damaged, claims what it does not hold, would take
    /// more memory than its size warrants, or holds no floating-point tensor. Of what `torch.save`
    /// never writes, compressed entries are refused; of what it once wrote, archives older than
    /// PyTorch 0.1.10.
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

    /// The names of tensors that were left out because they hold integers or booleans.
    pub fn ignored(&self) -> impl Iterator<Item = &str> {
        self.ignored.iter().map(String::as_str)
    }

    /// The tensors whose names begin with `prefix`, without it: one module of a larger one. Nothing
    /// is copied.
    ///
    /// ```no_run
    /// # use rezero_nn::import::{ImportError, TorchWeights, load};
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

    /// What a safetensors file says of itself, such as what was given to [`export`].
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The sizes of the language model that this is, if it is one.
    pub fn lm_shape(&self) -> Option<LmShape> {
        let named = self.renamed(|name| name == "embedding.weight");
        let shape = |name: &str| Some(named.get(name)?.shape.as_slice());
        let [vocab_size, d_model] = *shape("embedding.weight")? else {
            return None;
        };
        let layer = |n: usize| format!("encoder.layers.{n}.linear1.weight");
        let [d_ff, _] = *shape(&layer(0))? else {
            return None;
        };
        Some(LmShape {
            n_layers: (0..).find(|n| !named.contains_key(&layer(*n)))?,
            d_model,
            d_ff,
            vocab_size,
            context: shape("positions.weight").and_then(|s| s.first().copied()),
            tied: !named.contains_key("head.weight"),
        })
    }

    /// The tensors under the names of [`export`], as far as they can be told; `known` says which
    /// names are expected.
    fn renamed(&self, known: impl Fn(&str) -> bool) -> BTreeMap<String, Host> {
        // Prefixes of whole components that all names share, such as `module.encoder.`.
        let first = self.tensors.keys().next().map_or("", String::as_str);
        let dots = first.match_indices('.').take(MAX_PREFIX);
        let prefixes = dots.map(|(i, _)| &first[..=i]);
        let shared = prefixes.filter(|p| self.tensors.keys().all(|name| name.starts_with(*p)));
        let mut best = self.named_under("");
        let count =
            |named: &BTreeMap<String, Host>| named.keys().filter(|name| known(name)).count();
        let mut most = count(&best);
        for prefix in shared {
            let named = self.named_under(prefix);
            if count(&named) > most {
                (most, best) = (count(&named), named);
            }
        }
        best
    }

    /// The tensors without `prefix`, the notebook's names and split projections replaced.
    fn named_under(&self, prefix: &str) -> BTreeMap<String, Host> {
        let inner = || {
            let tensors = self.tensors.iter();
            tensors.filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?, tensor)))
        };
        let notebook = inner().any(|(name, _)| name.starts_with("transformer_encoder.layers.0."));
        let mut named = BTreeMap::new();
        for (name, tensor) in inner() {
            let name = match name {
                "encoder.weight" if notebook => "embedding.weight".to_owned(),
                "decoder.weight" if notebook => "head.weight".to_owned(),
                "decoder.bias" if notebook => "head.bias".to_owned(),
                // Sines and cosines, which are computed.
                "pos_encoder.pe" if notebook => continue,
                _ => match name.strip_prefix("transformer_encoder.") {
                    Some(rest) if notebook => format!("encoder.{rest}"),
                    _ => name.to_owned(),
                },
            };
            named.insert(name, tensor.clone());
        }
        fused(named)
    }
}

/// Joins `q_proj_weight`, `k_proj_weight` and `v_proj_weight` to one `in_proj_weight`.
fn fused(mut named: BTreeMap<String, Host>) -> BTreeMap<String, Host> {
    let prefixes: Vec<String> = named
        .keys()
        .filter_map(|name| Some(name.strip_suffix("q_proj_weight")?.to_owned()))
        .collect();
    for prefix in prefixes {
        let parts = ["q", "k", "v"].map(|part| format!("{prefix}{part}_proj_weight"));
        let shapes = parts
            .each_ref()
            .map(|part| named.get(part).map(|t| t.shape.clone()));
        // Of unlike widths they are no self-attention of ours; they are reported as unknown.
        let [Some(q), Some(k), Some(v)] = shapes else {
            continue;
        };
        let (true, true, [rows, columns]) = (q == k, k == v, q.as_slice()) else {
            continue;
        };
        let Some(rows) = rows.checked_mul(3) else {
            continue;
        };
        let shape = vec![rows, *columns];
        let mut values = Vec::new();
        for part in parts.iter().filter_map(|part| named.remove(part)) {
            values.extend_from_slice(&part.values);
        }
        let values = values.into();
        named.insert(format!("{prefix}in_proj_weight"), Host { shape, values });
    }
    named
}

/// The first bytes of a safetensors file are the length of its JSON header.
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
        weights.tensors.insert(name, Host { shape, values });
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
        if !matches!(
            tensor.dtype(),
            DType::F32 | DType::F64 | DType::F16 | DType::BF16
        ) {
            weights.ignored.push(name);
            continue;
        }
        let data = tensor.read().map_err(|e| e.to_string())?;
        let values = match tensor.dtype() {
            DType::F64 => convert(&data, |b| f64::from_ne_bytes(b) as f32),
            DType::F16 => convert(&data, |b| f16::from_ne_bytes(b).to_f32()),
            DType::BF16 => convert(&data, |b| bf16::from_ne_bytes(b).to_f32()),
            _ => convert(&data, f32::from_ne_bytes),
        };
        let shape = tensor.shape().to_vec();
        weights.tensors.insert(name, Host { shape, values });
    }
    weights.ignored.sort();
    Ok(weights)
}

fn convert<const N: usize>(data: &[u8], f: impl Fn([u8; N]) -> f32) -> Arc<[f32]> {
    let (chunks, _) = data.as_chunks::<N>();
    chunks.iter().map(|chunk| f(*chunk)).collect()
}

/// `module` with the weights of a file.
///
/// # Errors
///
/// [`ImportError::Mismatch`] with every tensor that is missing, unknown or of another shape; nothing
/// is loaded then. A `resweight` of exactly 1 is no mismatch where the module has no gate, see the
/// [module](self).
pub fn load<M: Module>(module: M, weights: &TorchWeights) -> Result<M, ImportError> {
    let mut expected = Slots::default();
    module.visit(&mut expected);
    let slots = expected.found;
    let by_name: HashMap<&str, &Slot> = slots.iter().map(|s| (s.torch.as_str(), s)).collect();
    let mut named = weights.renamed(|name| by_name.contains_key(name));
    // Layers of the notebook with a norm: a gate that does nothing, and `norm1` for both branches.
    let layers: Vec<String> = named
        .iter()
        .filter(|(name, gate)| {
            let idle = !by_name.contains_key(name.as_str());
            idle && gate.values.iter().all(|v| *v == 1.0)
        })
        .filter_map(|(name, _)| name.strip_suffix("resweight").map(str::to_owned))
        .collect();
    for layer in layers {
        named.remove(&format!("{layer}resweight"));
        for part in ["weight", "bias"] {
            let [norm1, norm2] = [1, 2].map(|i| format!("{layer}norm{i}.{part}"));
            let Some(tensor) = named.get(&norm1).cloned() else {
                continue;
            };
            named.remove(&norm2);
            if by_name.contains_key(norm2.as_str()) {
                named.insert(norm2, tensor);
            }
        }
    }

    let mut wrong = Vec::new();
    for slot in &slots {
        match named.get(&slot.torch) {
            None => wrong.push(format!(
                "{}: missing, expected {:?}",
                slot.torch, slot.shape
            )),
            Some(tensor) if tensor.shape != slot.shape => wrong.push(format!(
                "{}: expected {:?}, found {:?}",
                slot.torch, slot.shape, tensor.shape
            )),
            Some(tensor) if tensor.values.iter().any(|v| !v.is_finite()) => {
                wrong.push(format!("{}: holds values that are not finite", slot.torch));
            }
            Some(_) => {}
        }
    }
    for (name, tensor) in &named {
        if !by_name.contains_key(name.as_str()) {
            // Whoever made the file chose the name; the terminal must not obey it.
            let name = name.escape_debug();
            wrong.push(format!("{name}: unknown, found {:?}", tensor.shape));
        }
    }
    if !wrong.is_empty() {
        return Err(ImportError::Mismatch(wrong));
    }
    Ok(module.map(&mut Fill {
        path: Vec::new(),
        named,
    }))
}

/// A module's weights as the bytes of a safetensors file in PyTorch's layout, f32, with `metadata`
/// beside `format = pt`. [`load`] of it gives the same weights bit for bit.
///
/// # Errors
///
/// If the library that writes the format refuses.
pub fn export<M: Module>(
    module: &M,
    metadata: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<u8>, ImportError> {
    let mut slots = Slots {
        read: true,
        ..Slots::default()
    };
    module.visit(&mut slots);
    let bytes: Vec<Vec<u8>> = slots
        .found
        .iter()
        .map(|slot| slot.values.iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    let fail = |e: safetensors::SafeTensorError| ImportError::Write(e.to_string());
    let mut views = Vec::new();
    for (slot, bytes) in slots.found.iter().zip(&bytes) {
        let view = TensorView::new(Dtype::F32, slot.shape.clone(), bytes).map_err(fail)?;
        views.push((slot.torch.clone(), view));
    }
    let format = [("format".to_owned(), "pt".to_owned())];
    let metadata: BTreeMap<String, String> = format.into_iter().chain(metadata).collect();
    let bytes = serialize(views, None).map_err(fail)?;
    described(&bytes, &metadata)
        .ok_or_else(|| ImportError::Write("the library's header is of another form".to_owned()))
}

/// A safetensors file with `metadata` in its header. The library takes it as a hash map, whose order
/// would make every file another one.
fn described(bytes: &[u8], metadata: &BTreeMap<String, String>) -> Option<Vec<u8>> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (header, data) = rest.split_at_checked(length)?;
    let tensors = std::str::from_utf8(header)
        .ok()?
        .trim_end()
        .strip_prefix('{')?;
    let metadata = serde_json::to_string(metadata).ok()?;
    let mut header = format!("{{\"__metadata__\":{metadata},{tensors}");
    // The data begins at a multiple of 8.
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let length = u64::try_from(header.len()).ok()?;
    Some([&length.to_le_bytes(), header.as_bytes(), data].concat())
}

/// PyTorch's name for a parameter's path, and whether its matrix is transposed there.
fn torch_name(path: &[String]) -> (String, bool) {
    let is_table = path
        .iter()
        .any(|part| part == "embedding" || part == "positions");
    let matrix = path.last().is_some_and(|name| name == "weight") && !is_table;
    let mut name = String::new();
    let mut parts = path.iter().map(String::as_str).peekable();
    while let Some(part) = parts.next() {
        let next = match part {
            "attention" => "self_attn",
            "cross_attention" => "multihead_attn",
            "feed_forward" | "residual" | "rezero" | "layer_norm" | "rms_norm" => continue,
            "gate" => "linear_gate",
            "gamma" => "weight",
            "beta" => "bias",
            "alpha" => "resweight",
            "in_proj" => {
                // One parameter of the attention, not a layer of its own.
                name.push_str("in_proj_");
                continue;
            }
            "sub_layers" => {
                let i: usize = parts.next().and_then(|i| i.parse().ok()).unwrap_or(0);
                match parts.peek() {
                    Some(&"norm") => {
                        parts.next();
                        name.push_str(&format!("norm{}.", i + 1));
                    }
                    _ => {
                        // `rezero`, `alpha`
                        name.push_str(&format!("resweight_{i}."));
                        parts.by_ref().for_each(drop);
                    }
                }
                continue;
            }
            other => other,
        };
        name.push_str(next);
        name.push('.');
    }
    name.pop();
    (name, matrix)
}

/// A parameter as PyTorch has it.
struct Slot {
    torch: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

#[derive(Default)]
struct Slots {
    path: Vec<String>,
    found: Vec<Slot>,
    /// Whether the values are wanted.
    read: bool,
}

impl ModuleVisitor for Slots {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (torch, transposed) = torch_name(&self.path);
        let mut shape: Vec<usize> = param.lazy_shape().to_vec();
        let mut values = Vec::new();
        if self.read {
            let value = param.val().inner();
            let value = if transposed && D == 2 {
                value.swap_dims(0, 1)
            } else {
                value
            };
            values = value.into_data().iter::<f32>().collect();
        }
        if transposed && D == 2 {
            shape.reverse();
        }
        self.found.push(Slot {
            torch,
            shape,
            values,
        });
    }
}

struct Fill {
    path: Vec<String>,
    named: BTreeMap<String, Host>,
}

impl ModuleMapper for Fill {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (name, transposed) = torch_name(&self.path);
        let Some(Host { shape, values }) = self.named.remove(&name) else {
            return param;
        };
        // Transposed here, the parameter is a leaf, and contiguous.
        let data = match (shape.as_slice(), transposed) {
            (&[rows, columns], true) => {
                let value = |i| values[i % rows * columns + i / rows];
                let values: Vec<f32> = (0..values.len()).map(value).collect();
                TensorData::new(values, [columns, rows])
            }
            _ => TensorData::new(values.to_vec(), shape),
        };
        param.map(|old| {
            let new = Tensor::<D>::from_data(data, (&old.device(), old.dtype()));
            match old.is_require_grad() {
                true => new.require_grad(),
                false => new,
            }
        })
    }
}
