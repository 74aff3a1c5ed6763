//! Stacks of layers, each initialised on its own.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::attention::{AttentionCache, Pass};
use super::layer::{DecoderLayerCache, RztxDecoderLayer, RztxEncoderLayer, RztxLayerConfig};
use super::mask::AttentionMask;
use crate::residual::{Norm, ResidualScheme};

/// A stack of encoder layers.
///
/// DIFFERENCE: PyTorch's `nn.TransformerEncoder` deep-copies one layer, so that all begin with the
/// same weights; these are drawn independently.
///
/// Should be created using [RztxLayerConfig::init_encoder].
#[derive(Module, Debug)]
pub struct RztxEncoder {
    /// The layers.
    pub layers: Vec<RztxEncoderLayer>,
    /// The norm after the last layer, in the schemes that have one.
    pub norm: Option<Norm>,
}

/// A stack of decoder layers.
///
/// Should be created using [RztxLayerConfig::init_decoder].
#[derive(Module, Debug)]
pub struct RztxDecoder {
    /// The layers.
    pub layers: Vec<RztxDecoderLayer>,
    /// The norm after the last layer, in the schemes that have one.
    pub norm: Option<Norm>,
}

/// What an encoder stack keeps between the steps of decoding.
#[derive(Clone, Debug, Default)]
pub struct EncoderCache {
    layers: Vec<AttentionCache>,
}

/// What a decoder stack keeps between the steps of decoding.
#[derive(Clone, Debug, Default)]
pub struct DecoderCache {
    layers: Vec<DecoderLayerCache>,
}

impl RztxLayerConfig {
    /// Initializes a stack of `n_layers` encoder layers on `device`.
    ///
    /// # Panics
    ///
    /// As [`init_encoder_layer`](Self::init_encoder_layer).
    pub fn init_encoder(&self, n_layers: usize, device: &Device) -> RztxEncoder {
        let config = self.of_stack(n_layers);
        RztxEncoder {
            layers: (0..n_layers)
                .map(|_| config.init_encoder_layer(device))
                .collect(),
            norm: config.residual.init_final_norm(device),
        }
    }

    /// Initializes a stack of `n_layers` decoder layers on `device`.
    ///
    /// # Panics
    ///
    /// As [`init_encoder_layer`](Self::init_encoder_layer).
    pub fn init_decoder(&self, n_layers: usize, device: &Device) -> RztxDecoder {
        let config = self.of_stack(n_layers);
        RztxDecoder {
            layers: (0..n_layers)
                .map(|_| config.init_decoder_layer(device))
                .collect(),
            norm: config.residual.init_final_norm(device),
        }
    }
}

fn normed(norm: &Option<Norm>, x: Tensor<3>) -> Tensor<3> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}

impl RztxEncoder {
    /// Computes the stack. With ReZero and α = 0 it returns its input.
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
        let x = self
            .layers
            .iter()
            .fold(x, |x, layer| layer.run(x, &pass, None));
        normed(&self.norm, x)
    }

    /// Computes the positions that follow those in `cache`, each seeing itself and what came before
    /// it, and adds them to it: the same values as a causal [`forward`](Self::forward) of the whole
    /// sequence has there. For decoding; it is not meant to be differentiated.
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[batch, new_length, d_model]`; a cache keeps its batch.
    pub fn forward_cached(&self, x: Tensor<3>, cache: &mut EncoderCache) -> Tensor<3> {
        let [batch, length, _] = x.dims();
        cache
            .layers
            .resize_with(self.layers.len(), AttentionCache::default);
        let keys = cache.len() + length;
        let pass = Pass {
            bias: decoding_mask(length).bias(batch, length, keys, &x),
            ..Pass::default()
        };
        let x = self
            .layers
            .iter()
            .zip(&mut cache.layers)
            .fold(x, |x, (layer, cache)| layer.run(x, &pass, Some(cache)));
        normed(&self.norm, x)
    }
}

/// A single new position may see all there is.
fn decoding_mask(new: usize) -> AttentionMask {
    AttentionMask {
        causal: new > 1,
        ..AttentionMask::default()
    }
}

impl EncoderCache {
    /// The number of positions held.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, AttentionCache::len)
    }

    /// Whether no position is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl RztxDecoder {
    /// Computes the stack.
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[batch, length, d_model]`
    /// - `memory`: `[batch, memory_length, d_model]`
    ///
    /// # Panics
    ///
    /// As [`RztxDecoderLayer::forward`].
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
        let x = self
            .layers
            .iter()
            .fold(x, |x, layer| layer.run(x, memory.clone(), &pass, None));
        normed(&self.norm, x)
    }

    /// Computes the positions that follow those in `cache`, each seeing itself, what came before it
    /// and `memory`, and adds them to it. The memory's keys and values are computed in the first
    /// call; give the same memory and mask in all.
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[batch, new_length, d_model]`; a cache keeps its batch.
    /// - `memory`: `[batch, memory_length, d_model]`
    ///
    /// # Panics
    ///
    /// If `memory_mask` does not fit `[batch, new_length, memory_length]`.
    pub fn forward_cached(
        &self,
        x: Tensor<3>,
        memory: Tensor<3>,
        memory_mask: &AttentionMask,
        cache: &mut DecoderCache,
    ) -> Tensor<3> {
        let ([batch, length, _], [_, memory_keys, _]) = (x.dims(), memory.dims());
        cache
            .layers
            .resize_with(self.layers.len(), DecoderLayerCache::default);
        let keys = cache.len() + length;
        let pass = Pass {
            bias: decoding_mask(length).bias(batch, length, keys, &x),
            memory_bias: memory_mask.bias(batch, length, memory_keys, &x),
            ..Pass::default()
        };
        let x = self
            .layers
            .iter()
            .zip(&mut cache.layers)
            .fold(x, |x, (layer, cache)| {
                layer.run(x, memory.clone(), &pass, Some(cache))
            });
        normed(&self.norm, x)
    }
}

impl DecoderCache {
    /// The number of positions held.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.attention.len())
    }

    /// Whether no position is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Configuration to create an [`RztxTransformer`] using the
/// [init function](RztxTransformerConfig::init).
#[derive(Config, Debug)]
pub struct RztxTransformerConfig {
    /// The layers.
    pub layer: RztxLayerConfig,
    /// The number of encoder layers. Default: 6
    #[config(default = 6)]
    pub n_encoder_layers: usize,
    /// The number of decoder layers. Default: 6
    #[config(default = 6)]
    pub n_decoder_layers: usize,
}

/// An encoder–decoder over sequences that are embedded already, like PyTorch's `nn.Transformer`.
///
/// Should be created using [RztxTransformerConfig].
#[derive(Module, Debug)]
pub struct RztxTransformer {
    /// The encoder.
    pub encoder: RztxEncoder,
    /// The decoder.
    pub decoder: RztxDecoder,
}

impl RztxTransformerConfig {
    /// Initializes the two stacks on `device`. Under DeepNorm, the constants that are left open get
    /// the values of its Table 1 for an encoder–decoder.
    ///
    /// # Panics
    ///
    /// As [`RztxLayerConfig::init_encoder_layer`].
    pub fn init(&self, device: &Device) -> RztxTransformer {
        let (n, m) = (self.n_encoder_layers as f64, self.n_decoder_layers as f64);
        let with = |skip: f64, gain: f64| {
            let mut layer = self.layer.clone();
            if layer.residual.scheme == ResidualScheme::DeepNorm {
                layer.residual.skip_scale.get_or_insert(skip);
                layer.residual.branch_gain.get_or_insert(gain);
            }
            layer
        };
        let mixed = (n.powi(4) * m).powf(1.0 / 16.0);
        RztxTransformer {
            encoder: with(0.81 * mixed, 0.87 / mixed).init_encoder(self.n_encoder_layers, device),
            decoder: with((3.0 * m).powf(0.25), (12.0 * m).powf(-0.25))
                .init_decoder(self.n_decoder_layers, device),
        }
    }
}

impl RztxTransformer {
    /// Encodes `source` and decodes `target`, each of whose positions sees the source and the target
    /// up to itself.
    ///
    /// # Shapes
    ///
    /// - `source`: `[batch, source_length, d_model]`
    /// - `target` and output: `[batch, target_length, d_model]`
    pub fn forward(&self, source: Tensor<3>, target: Tensor<3>) -> Tensor<3> {
        let none = AttentionMask::none();
        self.forward_masked(source, target, &none, &AttentionMask::causal(), &none)
    }

    /// As [`forward`](Self::forward), with masks for the source's and the target's self-attention and
    /// for attention from target to source.
    ///
    /// # Panics
    ///
    /// If a mask does not fit.
    pub fn forward_masked(
        &self,
        source: Tensor<3>,
        target: Tensor<3>,
        source_mask: &AttentionMask,
        target_mask: &AttentionMask,
        memory_mask: &AttentionMask,
    ) -> Tensor<3> {
        let memory = self.encoder.forward(source, source_mask);
        self.decoder
            .forward(target, memory, target_mask, memory_mask)
    }
}
