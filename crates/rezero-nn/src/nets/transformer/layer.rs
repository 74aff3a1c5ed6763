//! The authors' encoder and decoder layers.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Tensor};

use super::attention::{Attention, AttentionCache, Pass};
use super::config::Parts;
use super::drop;
use super::feed_forward::FeedForward;
use super::mask::AttentionMask;
use crate::residual::LayerResiduals;

/// The authors' `RZTXEncoderLayer` (github.com/majumderb/rezero; the paper's section 5):
///
/// `x ← x + α · Attention(x)`, `x ← x + α · FeedForward(x)`
///
/// with one α for both and no norm, or any other [`ResidualScheme`](crate::ResidualScheme) around the same branches.
///
/// Should be created using [RztxEncoderLayerConfig](super::RztxEncoderLayerConfig).
#[derive(Module, Debug)]
pub struct RztxEncoderLayer {
    /// Self-attention.
    pub attention: Attention,
    /// The feed-forward branch.
    pub feed_forward: FeedForward,
    /// Dropout of each branch's output.
    pub dropout: Dropout,
    /// The residual connections of the two branches.
    pub residual: LayerResiduals,
}

/// The authors' `RZTXDecoderLayer`:
///
/// `x ← x + α · Attention(x)`, `x ← x + α · Attention(x, memory)`, `x ← x + α · FeedForward(x)`
///
/// with one α for all three and no norm, or any other [`ResidualScheme`](crate::ResidualScheme) around the same branches.
///
/// Should be created using [RztxDecoderLayerConfig](super::RztxDecoderLayerConfig).
#[derive(Module, Debug)]
pub struct RztxDecoderLayer {
    /// Self-attention.
    pub attention: Attention,
    /// Attention to the memory.
    pub cross_attention: Attention,
    /// The feed-forward branch.
    pub feed_forward: FeedForward,
    /// Dropout of each branch's output.
    pub dropout: Dropout,
    /// The residual connections of the three branches.
    pub residual: LayerResiduals,
}

/// The keys and values that a decoder layer stores between decoding steps.
#[derive(Clone, Debug, Default)]
pub struct DecoderLayerCache {
    /// The keys and values of the positions so far.
    pub attention: AttentionCache,
    /// The keys and values of the memory.
    pub cross_attention: AttentionCache,
}

impl RztxEncoderLayer {
    pub(super) fn from_parts(parts: &Parts, device: &Device) -> Self {
        Self {
            attention: parts.attention.init(device),
            feed_forward: parts.feed_forward.init(device),
            dropout: DropoutConfig::new(parts.dropout).init(),
            residual: parts.residual.init_layer(2, parts.site, device),
        }
    }

    /// Computes the layer.
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[batch, length, d_model]`
    ///
    /// # Panics
    ///
    /// If a mask does not fit `[batch, length, length]`.
    pub fn forward(&self, x: Tensor<3>, mask: &AttentionMask) -> Tensor<3> {
        let [batch, length, _] = x.dims();
        let pass = Pass {
            mask: mask.of(batch, length, length),
            ..Pass::default()
        };
        self.run(x, &pass, None)
    }

    pub(super) fn run(
        &self,
        x: Tensor<3>,
        pass: &Pass,
        cache: Option<&mut AttentionCache>,
    ) -> Tensor<3> {
        let forced = pass.forced_dropout;
        let x = self.residual.forward(0, x, |x| {
            let out = self.attention.attend_self(x, &pass.mask, cache, forced);
            drop(&self.dropout, out, forced)
        });
        self.residual.forward(1, x, |x| {
            let out = self.feed_forward.run(x, forced);
            drop(&self.dropout, out, forced)
        })
    }
}

impl RztxDecoderLayer {
    pub(super) fn from_parts(parts: &Parts, device: &Device) -> Self {
        Self {
            attention: parts.attention.init(device),
            cross_attention: parts.cross_attention().init(device),
            feed_forward: parts.feed_forward.init(device),
            dropout: DropoutConfig::new(parts.dropout).init(),
            residual: parts.residual.init_layer(3, parts.site, device),
        }
    }

    /// Computes the layer. Like the authors' decoder, it is causal only under a causal mask: if a
    /// position must not see later positions, pass [`AttentionMask::causal`] as `mask`.
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[batch, length, d_model]`
    /// - `memory`: `[batch, memory_length, d_model]`
    ///
    /// # Panics
    ///
    /// If `mask` does not fit `[batch, length, length]` or `memory_mask`
    /// `[batch, length, memory_length]`.
    pub fn forward(
        &self,
        x: Tensor<3>,
        memory: Tensor<3>,
        mask: &AttentionMask,
        memory_mask: &AttentionMask,
    ) -> Tensor<3> {
        let ([batch, length, _], [_, keys, _]) = (x.dims(), memory.dims());
        let pass = Pass {
            mask: mask.of(batch, length, length),
            memory_mask: memory_mask.of(batch, length, keys),
            ..Pass::default()
        };
        self.run(x, memory, &pass, None)
    }

    pub(super) fn run(
        &self,
        x: Tensor<3>,
        memory: Tensor<3>,
        pass: &Pass,
        cache: Option<&mut DecoderLayerCache>,
    ) -> Tensor<3> {
        let forced = pass.forced_dropout;
        let (own, cross) = match cache {
            Some(cache) => (Some(&mut cache.attention), Some(&mut cache.cross_attention)),
            None => (None, None),
        };
        // DIFFERENCE: the authors' decoder computes α · dropout(F(x)), their encoder
        // dropout(α · F(x)). The two are equal (their issue 9); here α comes last in both.
        let x = self.residual.forward(0, x, |x| {
            let out = self.attention.attend_self(x, &pass.mask, own, forced);
            drop(&self.dropout, out, forced)
        });
        let x = self.residual.forward(1, x, |x| {
            let attention = &self.cross_attention;
            let out = attention.attend_memory(x, memory, &pass.memory_mask, cross, forced);
            drop(&self.dropout, out, forced)
        });
        self.residual.forward(2, x, |x| {
            let out = self.feed_forward.run(x, forced);
            drop(&self.dropout, out, forced)
        })
    }
}
