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
