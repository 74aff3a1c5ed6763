//! ResNets for 32×32 images, in the arms that the ReZero paper compares.
//!
//! | network | paper | module |
//! | - | - | - |
//! | ResNet-20, 32, 44, 56, 110, 1202, any 6n+2 | the CIFAR-10 table | [`CifarResNet`] |
//! | pre-activation ResNet-18, 34, 50 | the same table; superconvergence | [`PreActResNet`] |
//!
//! "Vanilla" here is the plain ResNet with γ = 1. The curve that the authors' README calls vanilla
//! is [`Arm::ZeroGamma`]: on its date their code had no other baseline.

mod block;
mod cifar;
mod preact;

pub use block::{BasicBlock, BasicBranch, FixupScalars, Shortcut};
pub use cifar::{Arm, CifarResNet, CifarResNetConfig, Definition};
pub use preact::{PreActBlock, PreActDepth, PreActResNet, PreActResNetConfig};
