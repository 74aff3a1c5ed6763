//! MLP-Mixers: an image is a sequence of patches; a layer mixes the patches of each channel, then
//! the channels of each patch, each by a fully connected branch.
//!
//! - [`MixerConfig`] has presets, such as [`MixerConfig::tiny_32`] and [`MixerConfig::base_224`].
//! - [`Mixer::forward`] takes images of one size, since the width of token mixing is the number of
//!   patches.
//!
//! Source: Tolstikhin et al., [arXiv 2105.01601](https://arxiv.org/abs/2105.01601).
//!
//! # PyTorch
//!
//! With feature `import`, `torch::export` and `torch::load` know timm's names: `stem.proj`, a convolution
//! `[d, channels, p, p]`, for the embedding of patches; `blocks.N.mlp_tokens.fc1`, `.fc2` and
//! `blocks.N.mlp_channels.fc1`, `.fc2` for the branches; `blocks.N.norm1`, `.norm2`, `norm`, `head`. Gates and
//! SwiGLU have the names of a [Vision Transformer](crate::vit#pytorch). timm's norms add 1e-6 to the
//! variance, these 1e-5 unless it is set.

mod fold;
mod grow;
mod net;
#[cfg(feature = "import")]
mod torch;

pub use net::{Mixer, MixerConfig, MixerLayer};
#[cfg(feature = "import")]
pub use torch::{MixerShape, mixer_shape};
