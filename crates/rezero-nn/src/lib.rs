//! Networks that train at any depth: ReZero (Bachlechner et al., *ReZero is All You Need: Fast
//! Convergence at Large Depth*, [arXiv 2003.04887](https://arxiv.org/abs/2003.04887)) for Burn.
//!
//! A residual layer `x + F(x)` becomes
//!
//! ```text
//! y = x + α · F(x),   α = 0 at the start, learned
//! ```
//!
//! so that a network of any depth begins as the identity: its input–output Jacobian is I, and
//! signals and gradients pass unchanged until training opens the gates one by one.
//!
//! - [`ReZero`] is the gate, [`ReZeroBlock`] a gate with its branch.
//! - [`resnet`] holds CIFAR ResNets of any depth and pre-activation ResNets, each with the arms
//!   that the paper compares.
//! - [`Mlp`] is the paper's fully connected network, of thousands of layers.
//! - [`transformer`] holds the RZTX encoder and decoder layers, their stacks and a byte-level
//!   language model with incremental decoding.
//! - `import` (a feature) reads and writes PyTorch weights.
//! - [`Residual`] puts any of the schemes that the papers compare around a branch.
//! - `JacobianProbe` (feature `jacobian`) measures how a network carries signals: its input–output
//!   Jacobian and singular values.
//! - [`Grow`] deepens a trained network without changing its output; [`Fold`] takes the gates out of
//!   it for inference.
//! - [`alpha_group`], [`alphas`] and [`parameter_count`] look into any module.
//!
//! Modules take a `&Device` and run on whichever backend it belongs to; this crate enables none but Flex, by
//! feature `flex`, with its kernels.
//!
//! # A ReZero block inside your own module
//!
//! ```
//! use burn::module::Module;
//! use burn::nn::{Linear, LinearConfig, Relu};
//! use burn::tensor::{Device, Distribution, Tensor};
//! use rezero_nn::{ReZeroBlock, ReZeroConfig};
//!
//! #[derive(Module, Debug)]
//! struct Net {
//!     input: Linear,
//!     blocks: Vec<ReZeroBlock<(Linear, Relu)>>,
//! }
//!
//! impl Net {
//!     fn new(depth: usize, device: &Device) -> Self {
//!         let linear = |d_in| LinearConfig::new(d_in, 32).init(device);
//!         Self {
//!             input: linear(8),
//!             blocks: (0..depth)
//!                 .map(|_| ReZeroConfig::new().init_block((linear(32), Relu::new()), device))
//!                 .collect(),
//!         }
//!     }
//!
//!     fn forward(&self, x: Tensor<2>) -> Tensor<2> {
//!         let x = self.input.forward(x);
//!         self.blocks.iter().fold(x, |x, block| block.forward(x))
//!     }
//! }
//!
//! let device = Device::flex();
//! let net = Net::new(100, &device);
//! let x = Tensor::<2>::random([4, 8], Distribution::Default, &device);
//! // At the start every block is the identity, bit for bit.
//! assert_eq!(net.forward(x.clone()).into_data(), net.input.forward(x).into_data());
//! ```

#![warn(missing_docs)]

mod fold;
mod fused;
mod grow;
#[cfg(feature = "import")]
pub mod import;
mod init;
mod inspect;
#[cfg(feature = "jacobian")]
mod jacobian;
mod mlp;
mod precision;
#[cfg(feature = "train")]
mod recompute;
mod residual;
pub mod resnet;
mod rezero;
#[cfg(feature = "train")]
mod segments;
pub mod transformer;

pub use burn;
pub use fold::Fold;
pub use grow::{Grow, GrowError, Place};
pub use inspect::{alpha_group, alphas, drawn, is_alpha, layer_index, parameter_count};
#[cfg(feature = "jacobian")]
pub use jacobian::{
    Histogram, Jacobian, JacobianError, JacobianProbe, PooledSpectrum, Spectrum, SpectrumSummary,
    not_finite,
};
pub use mlp::{Mlp, MlpArm, MlpConfig, MlpLayer};
pub use precision::in_precision;
pub use residual::{LayerResiduals, Norm, NormKind, Residual, ResidualConfig, ResidualScheme};
pub use rezero::{Branch, ReZero, ReZeroBlock, ReZeroConfig};
#[cfg(feature = "train")]
pub use segments::Update;

/// The names that most users need.
pub mod prelude {
    pub use crate::resnet::{
        Arm, CifarResNet, CifarResNetConfig, Definition, PreActDepth, PreActResNet,
        PreActResNetConfig,
    };
    pub use crate::transformer::{
        Activation, AttentionMask, Positions, RztxDecoder, RztxDecoderLayer, RztxEncoder,
        RztxEncoderLayer, RztxLayerConfig, RztxLm, RztxLmConfig, RztxTransformer,
        RztxTransformerConfig,
    };
    pub use crate::{
        Branch, Fold, Grow, Mlp, MlpArm, MlpConfig, ReZero, ReZeroBlock, ReZeroConfig,
        ResidualConfig, ResidualScheme, alpha_group,
    };
}
