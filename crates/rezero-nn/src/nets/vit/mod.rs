//! Vision Transformers: an image is a sequence of patches, which the layers of an
//! [`RztxEncoder`](crate::transformer::RztxEncoder) transform under any of its residual schemes.
//!
//! - [`VitConfig`] has presets, such as [`VitConfig::tiny_32`] and [`VitConfig::base_224`].
//! - [`Vit::forward`] takes images of any size whose sides are multiples of the patch size, see
//!   [`PatchPositions`].
//!
//! Source: Dosovitskiy et al., [arXiv 2010.11929](https://arxiv.org/abs/2010.11929).
//!
//! # PyTorch
//!
//! With feature `import`, `torch::export` writes timm's names, and `torch::load` also reads torchvision's:
//!
//! | here | timm | torchvision |
//! | - | - | - |
//! | `patches.linear`, a linear layer of patches | `patch_embed.proj`, a convolution `[d, channels, p, p]` | `conv_proj` |
//! | `class_token`, `[d]` | `cls_token`, `[1, 1, d]` | `class_token` |
//! | `position_table`, `[tokens, d]` | `pos_embed`, `[1, tokens, d]` | `encoder.pos_embedding` |
//! | `encoder.layers.N.…` | `blocks.N.…` | `encoder.layers.encoder_layer_N.…` |
//! | `attention.in_proj`, `attention.out_proj` | `attn.qkv`, `attn.proj` | `self_attention.in_proj_weight`, `.in_proj_bias`, `.out_proj` |
//! | `feed_forward.linear1`, `.linear2` | `mlp.fc1`, `mlp.fc2` | `mlp.0`, `mlp.3`, or `mlp.linear_1`, `mlp.linear_2` |
//! | SwiGLU's `linear1`, `gate` | `mlp.fc1_g`, `mlp.fc1_x` | |
//! | `residual.sub_layers.I.norm` | `norm{I+1}` | `ln_{I+1}` |
//! | LayerScale's `residual.sub_layers.I.rezero.alpha` | `ls{I+1}.gamma` | |
//! | `residual.rezero.alpha`, `residual.sub_layers.I.rezero.alpha` | `resweight`, `resweight_I` | |
//! | `encoder.norm`, `head` | `norm`, `head` | `encoder.ln`, `heads.head` |
//!
//! Their networks are pre-norm, and their norms add 1e-6 to the variance;
//! [`ResidualConfig::norm_epsilon`](crate::ResidualConfig) is 1e-5 unless it is set. timm's networks with
//! `fc_norm`, a norm after the mean over patches, are other networks.

mod fold;
mod grow;
mod net;
mod positions;
#[cfg(feature = "import")]
mod torch;

pub use super::patches::PatchEmbedding;
#[cfg(feature = "import")]
pub use super::timm::LayersShape;
pub use net::{Pooling, Vit, VitConfig};
pub use positions::PatchPositions;
#[cfg(feature = "import")]
pub use torch::{VitShape, vit_shape};
