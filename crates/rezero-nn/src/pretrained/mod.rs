//! Named models with weights.
//!
//! [`list`] has every set of weights, [`find`] those whose names match a pattern. A network is made
//! from one by its constructor, as in Burn's own models:
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use rezero_nn::pretrained::weights;
//! use rezero_nn::resnet::CifarResNet;
//!
//! let device = Device::flex();
//! let model = CifarResNet::resnet20_pretrained(weights::ResNet20::Cifar10ReZero, &device)?;
//! let logits = model.forward(Tensor::zeros([1, 3, 32, 32], &device));
//! assert_eq!(logits.dims(), [1, 10]);
//! # Ok::<(), rezero_nn::pretrained::PretrainedError>(())
//! ```
//!
//! # Where weights are found
//!
//! A file of weights is looked for in this order. Its SHA-256 is always compared with the registry's.
//!
//! 1. In the crate: ResNet-20.
//! 2. In the folder that `REZERO_WEIGHTS` names.
//! 3. In `weights/` of the clone that the crate was built from.
//! 4. In the user's cache: `rezero/weights` in the system's folder for caches, or the folder that `REZERO_WEIGHTS_CACHE`
//!    names.
//! 5. Below the address in `REZERO_WEIGHTS_URL`, with feature `download`; the file then goes to the
//!    cache. Without this variable, or after [`stay_offline`], the network is never used.
//!
//! A file is safetensors in PyTorch's layout. [`torch::load`](crate::torch::load) reads it too.

mod place;
mod registry;
pub mod weights;

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use crate::torch::{ImportError, TorchNames, TorchWeights, load};

pub use place::{CACHE, URL, WEIGHTS, stay_offline};
pub use registry::{Normalization, Pretrained};

/// Every set of weights, by name.
pub fn list() -> &'static [&'static Pretrained] {
    registry::ALL
}

/// The sets of weights whose names match `pattern`, in which `*` stands for any characters and `?` for
/// one.
///
/// ```
/// let names: Vec<&str> = rezero_nn::pretrained::find("resnet20*").map(|one| one.name).collect();
/// assert_eq!(names, ["resnet20-cifar10"]);
/// ```
pub fn find(pattern: &str) -> impl Iterator<Item = &'static Pretrained> {
    let pattern: Vec<char> = pattern.chars().collect();
    list().iter().copied().filter(move |one| {
        let name: Vec<char> = one.name.chars().collect();
        matches(&pattern, &name)
    })
}

/// Whether a name matches a pattern. Without recursion, since a pattern may come from anywhere: after
/// the last `*`, one more character is tried to be its own.
fn matches(pattern: &[char], name: &[char]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    p = at + 1;
                    n = from + 1;
                    star = Some((at, n));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

impl Pretrained {
    /// The safetensors file, from the first place that has it.
    ///
    /// # Errors
    ///
    /// If no place has it, or the first that has one has another file.
    pub fn bytes(&self) -> Result<Cow<'static, [u8]>, PretrainedError> {
        place::read(self)
    }

    /// The weights.
    ///
    /// # Errors
    ///
    /// As [`bytes`](Self::bytes).
    pub fn weights(&self) -> Result<TorchWeights, PretrainedError> {
        let bytes = self.bytes()?;
        TorchWeights::from_bytes(&bytes).map_err(|source| self.unfit(source))
    }

    /// `module` with the weights.
    ///
    /// # Errors
    ///
    /// As [`bytes`](Self::bytes), or if the weights are of another network.
    pub fn load<M: TorchNames>(&self, module: M) -> Result<M, PretrainedError> {
        load(module, &self.weights()?).map_err(|source| self.unfit(source))
    }

    fn unfit(&self, source: ImportError) -> PretrainedError {
        PretrainedError::Unfit {
            name: self.name,
            source,
        }
    }
}

/// Why weights could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PretrainedError {
    /// There are no weights of this name.
    Unknown {
        /// The name.
        name: String,
    },
    /// No place has the file.
    NotFound {
        /// The weights.
        name: &'static str,
        /// Where the file was looked for.
        looked: Vec<PathBuf>,
    },
    /// A file is not the one of the registry: it was cut short, altered, or is another.
    Altered {
        /// The weights.
        name: &'static str,
        /// The file, or its address.
        place: String,
        /// What differs.
        found: String,
    },
    /// A file could not be read or written.
    Io {
        /// The file.
        path: PathBuf,
        /// The system's message.
        message: String,
    },
    /// The file could not be downloaded.
    Download {
        /// Its address.
        url: String,
        /// What went wrong.
        message: String,
    },
    /// The weights are of another network.
    Unfit {
        /// The weights.
        name: &'static str,
        /// What differs.
        source: ImportError,
    },
}

impl fmt::Display for PretrainedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name } => {
                write!(
                    f,
                    "there are no weights \"{}\"; there are ",
                    name.escape_debug()
                )?;
                for (i, one) in list().iter().enumerate() {
                    write!(f, "{}{}", if i > 0 { ", " } else { "" }, one.name)?;
                }
                Ok(())
            }
            Self::NotFound { name, looked } => {
                write!(f, "the file {name}.safetensors is in none of")?;
                for path in looked {
                    write!(f, " {},", path.display())?;
                }
                write!(
                    f,
                    " and {URL} names no address: set {WEIGHTS} to the folder that has it"
                )
            }
            Self::Altered { name, place, found } => write!(
                f,
                "{place} is not the file of {name}, which the registry describes: {found}; remove it or fetch it again"
            ),
            Self::Io { path, message } => write!(f, "{}: {message}", path.display()),
            Self::Download { url, message } => write!(f, "cannot download {url}: {message}"),
            Self::Unfit { name, source } => write!(f, "{name}: {source}"),
        }
    }
}

impl std::error::Error for PretrainedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unfit { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// The weights of a name.
///
/// # Errors
///
/// If there are none.
pub fn named(name: &str) -> Result<&'static Pretrained, PretrainedError> {
    list()
        .iter()
        .copied()
        .find(|one| one.name == name)
        .ok_or_else(|| PretrainedError::Unknown {
            name: name.to_owned(),
        })
}
