//! RZTX: Transformer layers without LayerNorm or warm-up, their stacks, and a byte-level language
//! model, with every residual scheme that the papers compare.
//!
//! | | |
//! | - | - |
//! | [`RztxEncoderLayer`], [`RztxDecoderLayer`] | the authors' two layers, by [`RztxLayerConfig`] |
//! | [`RztxEncoder`], [`RztxDecoder`] | stacks of independently initialised layers, with caches for decoding |
//! | [`RztxTransformer`] | encoder and decoder together |
//! | [`RztxLm`] | embedding, positions, causal encoder stack and head; [`generate`](RztxLm::generate) |
//!
//! All tensors are batch-first; a mask is true (or 1) where attention is forbidden.

mod attention;
mod feed_forward;
mod generate;
mod init;
mod layer;
mod lm;
mod mask;
mod positions;
#[cfg(feature = "train")]
mod recompute;
mod stack;

pub use attention::{Attention, AttentionCache};
pub use feed_forward::{Activation, FeedForward};
pub use generate::{Generation, Sampler, SamplingConfig, SamplingError};
pub use init::RztxInit;
pub use layer::{DecoderLayerCache, RztxDecoderLayer, RztxEncoderLayer, RztxLayerConfig};
pub use lm::{LmCache, Positions, RztxLm, RztxLmConfig};
pub use mask::AttentionMask;
pub use stack::{
    DecoderCache, EncoderCache, RztxDecoder, RztxEncoder, RztxTransformer, RztxTransformerConfig,
};

use burn::nn::Dropout;
use burn::tensor::{Distribution, Tensor};

/// Burn's dropout, or the same on a device without autodiff: a layer that is run again in the
/// backward pass must have dropped the same values when it was first run without a graph.
fn drop<const D: usize>(dropout: &Dropout, x: Tensor<D>, forced: bool) -> Tensor<D> {
    if !forced || dropout.prob == 0.0 {
        return dropout.forward(x);
    }
    let keep = 1.0 - dropout.prob;
    let kept = x.random_like(Distribution::Bernoulli(keep));
    x * kept * (1.0 / keep)
}
