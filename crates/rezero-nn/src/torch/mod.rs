//! PyTorch weights into modules and back.
//!
//! [`TorchWeights`] reads a `state_dict` from a `.pt` or a `.safetensors` file, and [`load`] puts
//! it into a module. [`export`] writes a module's weights as safetensors in PyTorch's layout. The
//! trait [`TorchNames`] gives the parameters of a module their names in PyTorch. The names of
//! Transformers are in [`transformer`](crate::transformer#pytorch).
//!
//! [`load`] ignores a prefix that all names in a file share, such as `module.` of
//! DistributedDataParallel.

mod guard;
mod weights;

pub use weights::{TorchTensor, TorchTensors, TorchWeights};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use safetensors::serialize;
use safetensors::tensor::{Dtype, TensorView};

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
///     fn torch_name(path: &[String]) -> TorchName {
///         TorchName {
///             name: path.join(".").replace("output", "fc"),
///             transposed: path.ends_with(&["weight".to_owned()]),
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
    fn torch_name(path: &[String]) -> TorchName;

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
                write!(
                    f,
                    "the weights are of another model, {} tensors differ:",
                    tensors.len()
                )?;
                tensors
                    .iter()
                    .take(EXAMPLES)
                    .try_for_each(|t| write!(f, "\n  {t}"))?;
                match tensors.len().saturating_sub(EXAMPLES) {
                    0 => Ok(()),
                    more => write!(f, "\n  and {more} more"),
                }
            }
            Self::Write(message) => write!(f, "cannot write weights: {message}"),
        }
    }
}

impl std::error::Error for ImportError {}

/// `module` with the weights of a file.
///
/// # Errors
///
/// [`ImportError::Mismatch`] with every tensor that is missing, unknown, of another shape or not
/// finite. Then nothing is loaded.
pub fn load<M: TorchNames>(module: M, weights: &TorchWeights) -> Result<M, ImportError> {
    let slots = slots(&module, false);
    let expected: BTreeSet<String> = slots.iter().map(|slot| slot.torch.clone()).collect();
    let named = weights.translated(M::translate, &expected);
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
        if !expected.contains(name) {
            // The name comes from the file, so its control characters must not reach a terminal.
            let name = name.escape_debug();
            wrong.push(format!("{name}: unknown, found {:?}", tensor.shape));
        }
    }
    if !wrong.is_empty() {
        return Err(ImportError::Mismatch(wrong));
    }
    Ok(module.map(&mut Fill {
        name: M::torch_name,
        path: Vec::new(),
        named,
    }))
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
    let slots = slots(module, true);
    let bytes: Vec<Vec<u8>> = slots
        .iter()
        .map(|slot| slot.values.iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    let fail = |e: safetensors::SafeTensorError| ImportError::Write(e.to_string());
    let mut views = Vec::new();
    for (slot, bytes) in slots.iter().zip(&bytes) {
        let view = TensorView::new(Dtype::F32, slot.shape.clone(), bytes).map_err(fail)?;
        views.push((slot.torch.clone(), view));
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

/// A parameter with PyTorch's name and layout.
struct Slot {
    torch: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// The parameters of `module`, with their values if `read` is true.
fn slots<M: TorchNames>(module: &M, read: bool) -> Vec<Slot> {
    let mut visitor = Slots {
        name: M::torch_name,
        path: Vec::new(),
        found: Vec::new(),
        read,
    };
    module.visit(&mut visitor);
    visitor.found
}

struct Slots {
    name: fn(&[String]) -> TorchName,
    path: Vec<String>,
    found: Vec<Slot>,
    /// Whether to read the values.
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
        let TorchName {
            name: torch,
            transposed,
        } = (self.name)(&self.path);
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
    name: fn(&[String]) -> TorchName,
    path: Vec<String>,
    named: TorchTensors,
}

impl ModuleMapper for Fill {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let TorchName { name, transposed } = (self.name)(&self.path);
        let Some(TorchTensor { shape, values }) = self.named.remove(&name) else {
            return param;
        };
        // Transposed on the host, so that the parameter is a leaf and contiguous.
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
