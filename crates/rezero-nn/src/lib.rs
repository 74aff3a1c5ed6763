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
//! signals and gradients pass unchanged until training changes the gates.
//!
//! - [`ReZero`] is the gate alone, [`ReZeroBlock`] is a gate with its branch.
//! - [`Residual`] joins a branch with its skip path by any [`ResidualScheme`] that the papers
//!   compare.
//! - [`resnet`] holds CIFAR ResNets of any depth 6n+2 and pre-activation ResNets.
//! - [`mlp`] holds the paper's fully connected network, which can have thousands of layers.
//! - [`transformer`] holds the RZTX encoder and decoder layers, their stacks and a byte-level
//!   language model with incremental decoding.
//! - [`vit`] holds Vision Transformers.
//! - [`mixer`] holds MLP-Mixers.
//! - `torch` (feature `import`) reads and writes PyTorch weights.
//! - `pretrained` (feature `pretrained`) has named models with weights.
//! - `JacobianProbe` (feature `jacobian`) measures how a network carries signals: its input–output
//!   Jacobian and singular values.
//! - [`Grow`] makes a trained network deeper without changing its output.
//! - [`Fold`] removes the gates from a network for inference.
//! - [`gates`], [`gate_group`], [`parameter_count`] and [`not_finite`] inspect any module.
//!
//! Every choice that has names, such as [`ResidualScheme`], is an enum with `ALL`, `name`,
//! `FromStr` and serde. Feature `schema` adds JSON schemas.
//!
//! Modules are created on a `&Device` and run on its backend. The only backend that this crate can
//! enable is Flex: feature `flex` brings it, with its fast kernels.
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
#![cfg_attr(docsrs, feature(doc_cfg))]

// The README's code is compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(feature = "train")]
mod backward;
mod branch;
mod fold;
mod grow;
mod init;
mod lens;
mod nets;
mod precision;
#[cfg(feature = "pretrained")]
pub mod pretrained;
mod residual;
mod rezero;
#[cfg(feature = "import")]
pub mod torch;
mod vocabulary;

pub use branch::Branch;
pub use burn;
pub use fold::Fold;
pub use grow::{Grow, GrowError, Place};
pub use init::WeightInit;
pub use lens::{Gate, gate_group, gates, initialized, layer_index, not_finite, parameter_count};
#[cfg(feature = "jacobian")]
pub use lens::{
    Histogram, Jacobian, JacobianError, JacobianProbe, PooledSpectrum, Spectrum, SpectrumSummary,
};
#[cfg(feature = "train")]
pub use nets::mlp::Update;
pub use nets::mlp::{Mlp, MlpConfig, MlpLayer};
pub use nets::{mixer, mlp, resnet, transformer, vit};
pub use precision::in_precision;
pub use residual::{
    LayerResiduals, Norm, NormKind, Residual, ResidualConfig, ResidualScheme, Site,
};
pub use rezero::{Bound, ReZero, ReZeroBlock, ReZeroConfig};
pub use vocabulary::UnknownName;

/// The names that most users need.
pub mod prelude {
    pub use crate::mixer::{Mixer, MixerConfig};
    pub use crate::mlp::{Mlp, MlpConfig};
    pub use crate::resnet::{
        CifarResNet, CifarResNetConfig, Definition, PreActDepth, PreActResNet, PreActResNetConfig,
    };
    pub use crate::transformer::{
        Activation, AttentionMask, Positions, RztxDecoder, RztxDecoderConfig, RztxDecoderInput,
        RztxDecoderLayer, RztxEncoder, RztxEncoderConfig, RztxEncoderInput, RztxEncoderLayer,
        RztxInit, RztxLm, RztxLmConfig, RztxTransformer, RztxTransformerConfig, SamplingConfig,
    };
    pub use crate::vit::{PatchPositions, Pooling, Vit, VitConfig};
    pub use crate::{
        Branch, Fold, Gate, Grow, NormKind, Place, ReZero, ReZeroBlock, ReZeroConfig, Residual,
        ResidualConfig, ResidualScheme, Site, WeightInit, gate_group, gates, parameter_count,
    };
}
