//! ResNets for 32×32 images, with the residual schemes that the ReZero paper compares.
//!
//! | network | paper | module |
//! | - | - | - |
//! | ResNet-20, 32, 44, 56, 110, 1202, any 6n+2 | the CIFAR-10 table | [`CifarResNet`] |
//! | pre-activation ResNet-18, 34, 50 | the same table; superconvergence | [`PreActResNet`] |
//!
//! "Vanilla" in the paper is the plain ResNet with γ = 1,
//! [`ResidualScheme::Residual`](crate::ResidualScheme::Residual). The curve that the authors'
//! README calls vanilla is [`ResidualScheme::ZeroGamma`](crate::ResidualScheme::ZeroGamma): at the
//! date of that README, their code had no other baseline.
//!
//! # PyTorch
//!
//! With feature `import`, `torch::export` writes these names, and `torch::load` reads the others too:
//!
//! | here | PyTorch | also read |
//! | - | - | - |
//! | [`CifarResNet`]: `conv`, `norm` | `conv1`, `bn1` | |
//! | block i of stage s | `layer{s}.{i}`, s from 1, i from 0 | |
//! | `branch.conv1`, `branch.norm1`, … | `conv1`, `bn1`, `conv2`, `bn2` | |
//! | `branch.fixup.bias1a`, … | `bias1a`, `bias1b`, `bias2a`, `scale`, `bias2b` | |
//! | `shortcut.conv`, `shortcut.norm` | `downsample.0`, `downsample.1` | `shortcut.0`, `shortcut.1`, `shortcut.bn` |
//! | `residual.rezero.alpha` | `resweight` | `alpha` |
//! | `linear` | `fc` | `linear` |
//! | [`PreActResNet`]: `convs[k]`, `norms[k]` of a block | `conv{k+1}`, `bn{k+1}` | |
//! | its `shortcut`, `linear` | `shortcut.0`, `linear` | `shortcut`, `downsample`, `fc` |
//!
//! The names of a [`CifarResNet`] are torchvision's and those of the authors' table code. The shortcuts
//! of torchvision, and of most CIFAR checkpoints, are [`Definition::Projection`].

mod block;
mod cifar;
mod fold;
mod grow;
mod preact;
#[cfg(feature = "import")]
mod torch;

pub use block::{BasicBlock, BasicBlockConfig, BasicBranch, FixupScalars, Shortcut};
pub use cifar::{CifarResNet, CifarResNetConfig, Definition};
pub use preact::{PreActBlock, PreActBlockConfig, PreActDepth, PreActResNet, PreActResNetConfig};
#[cfg(feature = "import")]
pub use torch::{CifarResNetShape, PreActResNetShape, cifar_resnet_shape, preact_resnet_shape};
