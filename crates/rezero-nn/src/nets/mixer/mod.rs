//! MLP-Mixers: an image is a sequence of patches; a layer mixes the patches of each channel, then
//! the channels of each patch, each by a fully connected branch.
//!
//! - [`MixerConfig`] has presets, such as [`MixerConfig::tiny_32`] and [`MixerConfig::base_224`].
//! - [`Mixer::forward`] takes images of one size, since the width of token mixing is the number of
//!   patches.
//!
//! Source: Tolstikhin et al., [arXiv 2105.01601](https://arxiv.org/abs/2105.01601).

mod fold;
mod grow;
mod net;

pub use net::{Mixer, MixerConfig, MixerLayer};
