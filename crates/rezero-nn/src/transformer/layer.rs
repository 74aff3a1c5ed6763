//! The authors' encoder and decoder layers.

use burn::config::Config;
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Tensor};

use super::attention::{Attention, AttentionCache, Pass};
use super::drop;
use super::feed_forward::{Activation, FeedForward};
use super::init::RztxInit;
use super::mask::AttentionMask;
use crate::residual::{LayerResiduals, ResidualConfig, ResidualScheme};

/// Configuration of Transformer layers, and of stacks of them.
#[derive(Config, Debug)]
pub struct RztxLayerConfig {
    /// The width of the model.
    pub d_model: usize,
    /// The number of attention heads; divides `d_model`.
    pub n_heads: usize,
    /// The width of the feed-forward branch. Default: 2048
    #[config(default = 2048)]
    pub d_ff: usize,
    /// Dropout of each branch's output. Default: 0.1
    #[config(default = 0.1)]
    pub dropout: f64,
    /// Dropout of the attention weights; `None`: as `dropout`. Default: None
    pub attention_dropout: Option<f64>,
    /// Dropout inside the feed-forward branch; `None`: as `dropout`. Default: None
    pub feed_forward_dropout: Option<f64>,
    /// The non-linearity. Default: ReLU
    #[config(default = "Activation::Relu")]
    pub activation: Activation,
    /// Whether the linear layers have biases. Default: true
    #[config(default = true)]
    pub bias: bool,
    /// The residual scheme with its gate and norm; its `d_model`, and in a stack its `n_layers`, are
    /// filled in. Default: ReZero
    #[config(default = "ResidualConfig::new(ResidualScheme::ReZero)")]
    pub residual: ResidualConfig,
    /// Whether a layer's sub-layers share one α, as the authors' do; else each has its own.
    /// Default: true
    #[config(default = true)]
    pub share_alpha: bool,
    /// Whether α is per channel instead of a scalar. Default: false
    #[config(default = false)]
    pub alpha_per_channel: bool,
    /// The base of rotary positions in self-attention, 10,000 in their paper; `None`: without.
    /// Default: None
    pub rotary: Option<f64>,
    /// How weights are drawn. Default: PyTorch's way, which the authors' layers keep
    #[config(default = "RztxInit::pytorch()")]
    pub init: RztxInit,
}

/// The authors' `RZTXEncoderLayer` (github.com/majumderb/rezero; the paper's section 5):
///
/// `x ← x + α · Attention(x)`, `x ← x + α · FeedForward(x)`
///
/// with one α for both and no norm, or any other [`ResidualScheme`] around the same branches.
///
/// Should be created using [RztxLayerConfig::init_encoder_layer].
#[derive(Module, Debug)]
pub struct RztxEncoderLayer {
    /// Self-attention.
    pub attention: Attention,
    /// The feed-forward branch.
    pub feed_forward: FeedForward,
    /// Dropout of each branch's output.
    pub dropout: Dropout,
    /// The residual connections of the two.
    pub residual: LayerResiduals,
}

/// The authors' `RZTXDecoderLayer`:
///
/// `x ← x + α · Attention(x)`, `x ← x + α · Attention(x, memory)`, `x ← x + α · FeedForward(x)`
///
/// with one α for all three and no norm, or any other [`ResidualScheme`] around the same branches.
///
/// Should be created using [RztxLayerConfig::init_decoder_layer].
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
    /// The residual connections of the three.
    pub residual: LayerResiduals,
}

/// What a decoder layer keeps between the steps of decoding.
#[derive(Clone, Debug, Default)]
pub struct DecoderLayerCache {
    /// Keys and values of the positions so far.
    pub attention: AttentionCache,
    /// Keys and values of the memory.
    pub cross_attention: AttentionCache,
}

impl RztxLayerConfig {
    /// Initializes an encoder layer on `device`.
    ///
    /// # Panics
    ///
    /// If `n_heads` does not divide `d_model`, a width is 0, heads are of odd width under rotary
    /// positions, a dropout is not in [0, 1), or as [`ResidualConfig::init`].
    pub fn init_encoder_layer(&self, device: &Device) -> RztxEncoderLayer {
        let config = self.checked();
        RztxEncoderLayer {
            attention: config.init_attention(true, device),
            feed_forward: config.init_feed_forward(device),
            dropout: DropoutConfig::new(config.dropout).init(),
            residual: config.residual.init_layer(2, config.share_alpha, device),
        }
    }

    /// Initializes a decoder layer on `device`.
    ///
    /// # Panics
    ///
    /// As [`init_encoder_layer`](Self::init_encoder_layer).
    pub fn init_decoder_layer(&self, device: &Device) -> RztxDecoderLayer {
        let config = self.checked();
        RztxDecoderLayer {
            attention: config.init_attention(true, device),
            cross_attention: config.init_attention(false, device),
            feed_forward: config.init_feed_forward(device),
            dropout: DropoutConfig::new(config.dropout).init(),
            residual: config.residual.init_layer(3, config.share_alpha, device),
        }
    }

    /// This configuration for a stack of `n_layers`.
    pub(super) fn of_stack(&self, n_layers: usize) -> Self {
        let mut config = self.clone();
        config.residual.n_layers = n_layers;
        config.checked()
    }

    /// Whether a layer has one gate for all sub-layers.
    pub(crate) fn share_alpha_of_scheme(&self) -> bool {
        self.share_alpha && self.residual.scheme.shares_gate()
    }

    /// With the residual scheme's widths filled in.
    fn checked(&self) -> Self {
        let Self {
            d_model, n_heads, ..
        } = *self;
        assert!(
            d_model > 0 && self.d_ff > 0,
            "d_model and d_ff must be greater than zero, got {d_model} and {}.",
            self.d_ff
        );
        assert!(
            n_heads > 0 && d_model.is_multiple_of(n_heads),
            "d_model must be a multiple of n_heads, got d_model {d_model} and n_heads {n_heads}."
        );
        assert!(
            self.rotary.is_none() || (d_model / n_heads).is_multiple_of(2),
            "rotary positions need heads of even width, got {}.",
            d_model / n_heads
        );
        let mut config = self.clone();
        config.residual.d_model = d_model;
        if self.alpha_per_channel {
            config.residual.rezero.channels = Some(d_model);
            config.residual.rezero.channel_axis = 2;
        }
        config
    }
}

impl RztxEncoderLayer {
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
            bias: mask.bias(batch, length, length, &x),
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
            let out = self.attention.attend_self(x, &pass.bias, cache, forced);
            drop(&self.dropout, out, forced)
        });
        self.residual.forward(1, x, |x| {
            let out = self.feed_forward.run(x, forced);
            drop(&self.dropout, out, forced)
        })
    }
}

impl RztxDecoderLayer {
    /// Computes the layer. The authors' decoder is causal only if it is told so: give
    /// [`AttentionMask::causal`] as `mask` where a position must not see what follows it.
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
            bias: mask.bias(batch, length, length, &x),
            memory_bias: memory_mask.bias(batch, length, keys, &x),
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
        // DIFFERENCE: the authors' decoder multiplies dropout(F(x)) by α, their encoder drops
        // values of α · F(x). The two are equal (their issue 9); we gate last in both.
        let x = self.residual.forward(0, x, |x| {
            let out = self.attention.attend_self(x, &pass.bias, own, forced);
            drop(&self.dropout, out, forced)
        });
        let x = self.residual.forward(1, x, |x| {
            let attention = &self.cross_attention;
            let out = attention.attend_memory(x, memory, &pass.memory_bias, cross, forced);
            drop(&self.dropout, out, forced)
        });
        self.residual.forward(2, x, |x| {
            let out = self.feed_forward.run(x, forced);
            drop(&self.dropout, out, forced)
        })
    }
}
