//! Vision Transformers: an image is a sequence of patches, which the layers of an
//! [`RztxEncoder`](crate::transformer::RztxEncoder) transform under any of its residual schemes.
//!
//! - [`VitConfig`] has presets, such as [`VitConfig::tiny_32`] and [`VitConfig::base_224`].
//! - [`Vit::forward`] takes images of any size whose sides are multiples of the patch size, see
//!   [`PatchPositions`].
//!
//! Source: Dosovitskiy et al., [arXiv 2010.11929](https://arxiv.org/abs/2010.11929).

mod fold;
mod grow;
mod net;
mod positions;

pub use super::patches::PatchEmbedding;
pub use net::{Pooling, Vit, VitConfig};
pub use positions::PatchPositions;
