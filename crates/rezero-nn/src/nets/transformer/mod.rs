//! RZTX: Transformer layers without LayerNorm or warm-up, their stacks, and a byte-level language
//! model, with every residual scheme that the papers compare.
//!
//! | module | configuration | |
//! | - | - | - |
//! | [`Attention`], [`FeedForward`] | [`AttentionConfig`], [`FeedForwardConfig`] | the branches |
//! | [`RztxEncoderLayer`], [`RztxDecoderLayer`] | [`RztxEncoderLayerConfig`], [`RztxDecoderLayerConfig`] | the authors' two layers |
//! | [`RztxEncoder`], [`RztxDecoder`] | [`RztxEncoderConfig`], [`RztxDecoderConfig`] | stacks of layers that are initialised independently, with caches for decoding |
//! | [`RztxTransformer`] | [`RztxTransformerConfig`] | encoder and decoder together |
//! | [`RztxLm`] | [`RztxLmConfig`] | embedding, positions, causal encoder stack and head; [`generate`](RztxLm::generate) |
//!
//! All tensors are batch-first; a mask is true where attention is forbidden.
//!
//! # PyTorch
//!
//! With feature `import`, `torch::load` and `torch::export` know these modules by the names of the
//! authors' layers (github.com/majumderb/rezero) and of `nn.Transformer`:
//!
//! | here | PyTorch |
//! | - | - |
//! | `attention.in_proj.weight`, `[d, 3d]` | `self_attn.in_proj_weight`, `[3d, d]` |
//! | `cross_attention.…` | `multihead_attn.…` |
//! | `attention.out_proj.…`, `feed_forward.linear1.…`, `feed_forward.linear2.…` | `self_attn.out_proj.…`, `linear1.…`, `linear2.…` |
//! | `feed_forward.gate.…` (SwiGLU) | `linear_gate.…` |
//! | `residual.rezero.alpha` | `resweight` |
//! | `residual.sub_layers.I.rezero.alpha` | `resweight_I` |
//! | `residual.sub_layers.I.norm.…` | `norm{I+1}.weight`, `.bias` |
//! | a stack's `layers.N.…` and final `norm.…` | `layers.N.…`, `norm.…` |
//! | a language model's `embedding`, `positions`, `encoder`, `head` | the same |
//!
//! Matrices of linear layers are transposed. `load` also takes the language model of the authors'
//! notebook (`encoder.weight` for the embedding, `transformer_encoder.layers.N.…`, `decoder.…` for
//! the head), and `q_proj_weight`, `k_proj_weight` and `v_proj_weight` in place of `in_proj_weight`.
//!
//! The notebook's layers with a norm have a `resweight` of 1 that is not trained, and they use
//! `norm1` for both branches. If a layer here has no `resweight`, `load` accepts one of exactly 1
//! in the file. It then fills all norms of the layer with `norm1` and ignores the file's `norm2`.

mod attention;
mod config;
mod feed_forward;
mod fold;
mod generate;
mod grow;
mod input;
mod layer;
mod lm;
mod mask;
mod positions;
#[cfg(feature = "train")]
mod recompute;
mod stack;
#[cfg(feature = "import")]
mod torch;
mod weights;

pub use attention::{Attention, AttentionCache, AttentionConfig};
pub use config::{
    RztxDecoderConfig, RztxDecoderLayerConfig, RztxEncoderConfig, RztxEncoderLayerConfig,
    RztxTransformerConfig,
};
pub use feed_forward::{Activation, FeedForward, FeedForwardConfig};
pub use generate::{Generation, Sampler, SamplingConfig, SamplingError};
pub use input::{RztxDecoderInput, RztxEncoderInput};
pub use layer::{DecoderLayerCache, RztxDecoderLayer, RztxEncoderLayer};
pub use lm::{LmCache, Positions, RztxLm, RztxLmConfig};
pub use mask::AttentionMask;
pub use stack::{DecoderCache, EncoderCache, RztxDecoder, RztxEncoder, RztxTransformer};
#[cfg(feature = "import")]
pub use torch::{LmShape, lm_shape};
pub use weights::RztxInit;

pub(super) use weights::linear as init_linear;

use burn::nn::Dropout;
use burn::tensor::{Device, Tensor};
use rezero_kernels::dropout;

/// [`dropout`] where a graph is built or, if `forced`, everywhere. With recomputation, a layer first runs without a graph and must
/// then drop the same values as in its second run.
pub(super) fn drop<const D: usize>(layer: &Dropout, x: Tensor<D>, forced: bool) -> Tensor<D> {
    let probability = drop_rate(layer, &x.device(), forced);
    dropout(x, probability)
}

/// The probability with which values are dropped on a device, by the rule of [`drop`].
fn drop_rate(layer: &Dropout, device: &Device, forced: bool) -> f64 {
    match forced || (device.is_autodiff() && layer.training.is_enabled()) {
        true => layer.prob,
        false => 0.0,
    }
}
