//! PyTorch weights into modules and back.
//!
//! [`TorchWeights`] reads a `state_dict` from a `.pt` or a `.safetensors` file, and [`load`] puts
//! it into a module. [`export`] writes a module's weights as safetensors in PyTorch's layout. The
//! trait [`TorchNames`] gives the parameters of a module their names in PyTorch. The names of
//! Transformers are in [`transformer`](crate::transformer#pytorch).
//!
//! Names may have a prefix, such as `module.` of DistributedDataParallel, and the weights may lie beside
//! others in a file: [`load_with`] finds them, and tells what it left out.

mod choose;
mod guard;
mod weights;

pub use choose::{LoadRules, Loaded};
pub use weights::{TorchTensor, TorchTensors, TorchWeights};
pub(crate) use weights::{complete_head, renamed};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData, bf16};
use rezero_kernels::{all_finite, transpose};
use safetensors::serialize;
use safetensors::tensor::{Dtype, TensorView};

use crate::vocabulary::vocabulary;

/// A module whose parameters have names in PyTorch.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::Device;
/// use rezero_nn::torch::{TorchName, TorchNames, TorchWeights, export, load};
///
/// #[derive(Module, Debug)]
/// struct Probe {
///     output: Linear,
/// }
///
/// impl TorchNames for Probe {
///     fn torch_name(&self, path: &[String]) -> TorchName {
///         TorchName {
///             name: path.join(".").replace("output", "fc"),
///             transposed: path.ends_with(&["weight".to_owned()]),
///             shape: None,
///         }
///     }
/// }
///
/// let output = LinearConfig::new(3, 2).init(&Device::flex());
/// let bytes = export(&Probe { output }, [])?;
/// # let file = std::env::temp_dir().join(format!("probe-{}.safetensors", std::process::id()));
/// # std::fs::write(&file, bytes).unwrap();
/// let weights = TorchWeights::open(&file)?;
/// assert_eq!(weights.names().collect::<Vec<_>>(), ["fc.bias", "fc.weight"]);
/// # std::fs::remove_file(file).unwrap();
/// # Ok::<(), rezero_nn::torch::ImportError>(())
/// ```
pub trait TorchNames: Module {
    /// The name in PyTorch of the parameter at `path`; `path` holds the names of the fields that
    /// lead to it.
    fn torch_name(&self, path: &[String]) -> TorchName;

    /// Changes a file's tensors that have other names or another layout to those of
    /// [`torch_name`](Self::torch_name). `expected` holds the PyTorch names of the module's
    /// parameters. The names and shapes in `tensors` come from the file, so they can be anything.
    fn translate(tensors: &mut TorchTensors, expected: &BTreeSet<String>) {
        let _ = (tensors, expected);
    }
}

/// The name and the layout of a parameter in PyTorch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TorchName {
    /// The name in a `state_dict`.
    pub name: String,
    /// Whether PyTorch stores a matrix transposed: `[d_out, d_in]`, as the weight of a linear
    /// layer.
    pub transposed: bool,
    /// The shape in PyTorch, where it is another one of as many values, such as
    /// `[d_out, channels, rows, columns]` of a convolution that is a linear layer here.
    pub shape: Option<Vec<usize>>,
}

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
    /// The file is of another model. One text per tensor that is missing, unknown, of another shape
    /// or not finite; the message has the first five of them and their number.
    Mismatch(Vec<String>),
    /// Several parts of the file fit the module equally, such as the weights and their average.
    Ambiguous {
        /// Their prefixes.
        prefixes: Vec<String>,
    },
    /// No tensor of the file has the prefix that was asked for.
    Prefix {
        /// The prefix.
        prefix: String,
        /// The first components of the names in the file.
        found: Vec<String>,
    },
    /// No tensor of the file matches a pattern of those that are left out.
    Ignore {
        /// The pattern.
        pattern: String,
    },
    /// The weights could not be written.
    Write(String),
}

/// The number of tensors that the message of [`ImportError::Mismatch`] names. A file may have any
/// number of them.
const EXAMPLES: usize = 5;

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, message } => {
                write!(f, "cannot read weights from {}: {message}", path.display())
            }
            Self::Mismatch(tensors) if tensors.is_empty() => {
                write!(f, "the weights are of another model")
            }
            Self::Mismatch(tensors) => {
                let n = tensors.len();
                match n {
                    1 => write!(f, "the weights are of another model, 1 tensor differs:")?,
                    _ => write!(f, "the weights are of another model, {n} tensors differ:")?,
                }
                tensors
                    .iter()
                    .take(EXAMPLES)
                    .try_for_each(|t| write!(f, "\n  {t}"))?;
                match tensors.len().saturating_sub(EXAMPLES) {
                    0 => Ok(()),
                    more => write!(f, "\n  and {more} more"),
                }
            }
            Self::Ambiguous { prefixes } => write!(
                f,
                "the file holds the weights several times, under {}: choose one of these prefixes",
                listed(prefixes)
            ),
            Self::Prefix { prefix, found } => write!(
                f,
                "no tensor's name begins with \"{}\"; names begin with {}",
                prefix.escape_debug(),
                listed(found)
            ),
            Self::Ignore { pattern } => write!(
                f,
                "no tensor's name matches \"{}\", which should be left out",
                pattern.escape_debug()
            ),
            Self::Write(message) => write!(f, "cannot write weights: {message}"),
        }
    }
}

/// The first few of names that come from a file.
fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names
        .iter()
        .take(EXAMPLES)
        .map(|name| name.escape_debug().to_string())
        .collect();
    match names.len().saturating_sub(EXAMPLES) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

impl std::error::Error for ImportError {}

/// `module` with the weights of a file, see [`load_with`].
///
/// # Errors
///
/// As [`load_with`].
pub fn load<M: TorchNames>(module: M, weights: &TorchWeights) -> Result<M, ImportError> {
    load_with(module, weights, &LoadRules::default()).map(|(module, _)| module)
}

/// `module` with the weights of a file, and what was left out. The values are read one tensor at a time,
/// so that the file is never in memory as a whole.
///
/// Left out are tensors that can be no parameters by their names, such as `inv_freq` or those of
/// `criterion`, and tensors outside the prefix under which the module's parameters are found, such as an
/// optimizer's state. Every other tensor must be a parameter of the module.
///
/// # Errors
///
/// [`ImportError::Mismatch`] with every tensor that is missing, unknown, of another shape or not
/// finite, or another error if the file cannot be read, or several parts of it fit the module.
pub fn load_with<M: TorchNames>(
    module: M,
    weights: &TorchWeights,
    rules: &LoadRules,
) -> Result<(M, Loaded), ImportError> {
    let slots = slots(&module);
    let expected: BTreeSet<String> = slots.iter().map(|slot| slot.name.name.clone()).collect();
    let mut chosen = weights.choose(&M::translate, &expected, rules)?;
    let mut wrong = Vec::new();
    for Slot { name, shape, .. } in &slots {
        let name = &name.name;
        match chosen.tensors.get(name) {
            None => wrong.push(format!("{name}: missing, expected {shape:?}")),
            // A gate may be saved as a number.
            Some(tensor) if tensor.shape().is_empty() && shape == &[1] => {
                let one = tensor.reshaped(vec![1]);
                chosen.tensors.insert(name.clone(), one);
            }
            Some(tensor) if tensor.shape() != shape => wrong.push(format!(
                "{name}: expected {shape:?}, found {:?}",
                tensor.shape()
            )),
            Some(_) => {}
        }
    }
    for (name, tensor) in &chosen.tensors {
        if !expected.contains(name) {
            // The name comes from the file, so its control characters must not reach a terminal.
            let name = name.escape_debug();
            wrong.push(format!("{name}: unknown, found {:?}", tensor.shape()));
        }
    }
    if !wrong.is_empty() {
        return Err(ImportError::Mismatch(wrong));
    }
    let made = chosen.tensors.iter().filter(|(_, tensor)| tensor.is_made());
    let loaded = Loaded {
        prefix: chosen.prefix,
        left_out: chosen.left_out,
        others: chosen.others,
        zeros: made.map(|(name, _)| name.clone()).collect(),
    };
    let names = slots.into_iter().map(|slot| (slot.path, slot.name));
    let mut fill = Fill {
        names: names.collect(),
        path: Vec::new(),
        named: chosen.tensors,
        wrong,
        failed: None,
    };
    let module = module.map(&mut fill);
    match (fill.failed, fill.wrong.is_empty()) {
        (Some(message), _) => Err(ImportError::Read {
            path: weights.path.clone(),
            message,
        }),
        (None, false) => Err(ImportError::Mismatch(fill.wrong)),
        (None, true) => Ok((module, loaded)),
    }
}

vocabulary! {
    "type of stored weights";
    /// The type of a file's numbers.
    pub enum StoredAs {
        /// 4 bytes: as they are.
        F32 = "f32",
        /// 2 bytes: rounded to 8 significant bits.
        Bf16 = "bf16",
    }
}

/// A module's weights as the bytes of a safetensors file: PyTorch's layout, f32, with `metadata`
/// beside `format = pt`. [`load`] reads the same weights from it, bit for bit.
///
/// # Errors
///
/// If the safetensors library cannot write the weights.
pub fn export<M: TorchNames>(
    module: &M,
    metadata: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<u8>, ImportError> {
    export_as(module, StoredAs::F32, metadata)
}

/// As [`export`], with numbers of another type.
///
/// # Errors
///
/// As [`export`].
pub fn export_as<M: TorchNames>(
    module: &M,
    stored: StoredAs,
    metadata: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<u8>, ImportError> {
    let slots = slots(module);
    let mut read = Values::default();
    module.visit(&mut read);
    let transposed = slots.iter().zip(read.0).map(|(slot, values)| {
        let values = match (slot.name.transposed, slot.own.as_slice()) {
            (true, &[rows, columns]) => transpose(&values, rows, columns),
            _ => values,
        };
        match stored {
            StoredAs::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            StoredAs::Bf16 => {
                let rounded = values.iter().map(|v| bf16::from_f32(*v));
                rounded.flat_map(bf16::to_le_bytes).collect()
            }
        }
    });
    let dtype = match stored {
        StoredAs::F32 => Dtype::F32,
        StoredAs::Bf16 => Dtype::BF16,
    };
    let bytes: Vec<Vec<u8>> = transposed.collect();
    let fail = |e: safetensors::SafeTensorError| ImportError::Write(e.to_string());
    let mut views = Vec::new();
    for (slot, bytes) in slots.iter().zip(&bytes) {
        let view = TensorView::new(dtype, slot.shape.clone(), bytes).map_err(fail)?;
        views.push((slot.name.name.clone(), view));
    }
    let format = [("format".to_owned(), "pt".to_owned())];
    let metadata: BTreeMap<String, String> = format.into_iter().chain(metadata).collect();
    let bytes = serialize(views, None).map_err(fail)?;
    described(&bytes, &metadata)
        .ok_or_else(|| ImportError::Write("the library's header is of another form".to_owned()))
}

/// A safetensors file with `metadata` in its header. The library takes metadata as a hash map,
/// whose random order would make every file different.
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

/// PyTorch's name of a norm's field.
pub(crate) fn field(name: &str) -> &str {
    match name {
        "gamma" => "weight",
        "beta" => "bias",
        other => other,
    }
}

/// A parameter with PyTorch's name and layout.
struct Slot {
    path: Vec<String>,
    name: TorchName,
    /// The shape here.
    own: Vec<usize>,
    /// The shape in PyTorch.
    shape: Vec<usize>,
}

/// The parameters of `module`.
fn slots<M: TorchNames>(module: &M) -> Vec<Slot> {
    let mut visitor = Slots {
        path: Vec::new(),
        found: Vec::new(),
    };
    module.visit(&mut visitor);
    let slot = |(path, own): (Vec<String>, Vec<usize>)| {
        let mut name = module.torch_name(&path);
        name.transposed &= own.len() == 2;
        let shape = match (name.shape.take(), name.transposed) {
            (Some(shape), _) => shape,
            (None, true) => own.iter().rev().copied().collect(),
            (None, false) => own.clone(),
        };
        Slot {
            path,
            name,
            own,
            shape,
        }
    };
    visitor.found.into_iter().map(slot).collect()
}

struct Slots {
    path: Vec<String>,
    found: Vec<(Vec<String>, Vec<usize>)>,
}

impl ModuleVisitor for Slots {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let shape = param.lazy_shape().to_vec();
        self.found.push((self.path.clone(), shape));
    }
}

/// The values of all parameters.
#[derive(Default)]
struct Values(Vec<Vec<f32>>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val().inner().into_data();
        self.0.push(value.iter::<f32>().collect());
    }
}

struct Fill {
    names: BTreeMap<Vec<String>, TorchName>,
    path: Vec<String>,
    named: TorchTensors,
    wrong: Vec<String>,
    failed: Option<String>,
}

impl ModuleMapper for Fill {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let TorchName {
            name, transposed, ..
        } = &self.names[&self.path];
        let Some(tensor) = self.named.remove(name) else {
            return param;
        };
        let values = match tensor.values() {
            Ok(values) => values,
            Err(message) => {
                let name = name.escape_debug();
                self.failed.get_or_insert(format!("{name}: {message}"));
                return param;
            }
        };
        if !all_finite(&values) {
            let wrong = format!("{name}: holds values that are not finite");
            self.wrong.push(wrong);
            return param;
        }
        // Transposed on the host, so that the parameter is a leaf and contiguous.
        let own = param.lazy_shape().to_vec();
        let data = match (own.as_slice(), *transposed) {
            (&[rows, columns], true) => {
                TensorData::new(transpose(&values, columns, rows), [rows, columns])
            }
            _ => TensorData::new(values, own),
        };
        let id = param.id;
        let device = param.lazy_device();
        // Initial values that are not used are not sampled.
        let new = match param.is_initialized() {
            true => Tensor::<D>::from_data(data, (&device, param.val().dtype())),
            false => Tensor::<D>::from_data(data, &device),
        };
        param.transform_for_load(new, id)
    }
}
