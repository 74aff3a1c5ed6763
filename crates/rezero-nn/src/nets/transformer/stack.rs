//! Stacks of layers.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::attention::{AttentionCache, Pass};
use super::config::Parts;
use super::input::{RztxDecoderInput, RztxEncoderInput};
use super::layer::{DecoderLayerCache, RztxDecoderLayer, RztxEncoderLayer};
use super::mask::AttentionMask;
use crate::residual::Norm;

/// A stack of encoder layers.
///
/// DIFFERENCE: PyTorch's `nn.TransformerEncoder` copies one layer, so all its layers begin with the
/// same weights. Here each layer is initialised independently.
///
/// Should be created using [RztxEncoderConfig](super::RztxEncoderConfig).
#[derive(Module, Debug)]
pub struct RztxEncoder {
    /// The layers.
    pub layers: Vec<RztxEncoderLayer>,
    /// The norm after the last layer, in the schemes that have one.
    pub norm: Option<Norm>,
}

/// A stack of decoder layers.
///
/// Should be created using [RztxDecoderConfig](super::RztxDecoderConfig).
#[derive(Module, Debug)]
pub struct RztxDecoder {
    /// The layers.
    pub layers: Vec<RztxDecoderLayer>,
    /// The norm after the last layer, in the schemes that have one.
    pub norm: Option<Norm>,
}

/// The keys and values that an encoder stack stores between decoding steps.
#[derive(Clone, Debug, Default)]
pub struct EncoderCache {
    layers: Vec<AttentionCache>,
}

/// The keys and values that a decoder stack stores between decoding steps.
#[derive(Clone, Debug, Default)]
pub struct DecoderCache {
    layers: Vec<DecoderLayerCache>,
}

impl RztxEncoder {
    pub(super) fn from_parts(parts: &Parts, device: &Device) -> Self {
        Self {
            layers: (0..parts.site.n_layers)
                .map(|_| RztxEncoderLayer::from_parts(parts, device))
                .collect(),
            norm: parts.residual.init_final_norm(parts.site, device),
        }
    }

    /// Computes the stack. With ReZero and α = 0 it returns its input.
    ///
    /// # Shapes
    ///
    /// - `input`, a tensor or an [`RztxEncoderInput`], and output: `[batch, length, d_model]`
    ///
    /// # Panics
    ///
    /// If a mask does not fit `[batch, length, length]`.
    pub fn forward(&self, input: impl Into<RztxEncoderInput>) -> Tensor<3> {
        let RztxEncoderInput { tensor: x, mask } = input.into();
        let [batch, length, _] = x.dims();
        let pass = Pass {
            mask: mask.of(batch, length, length),
            ..Pass::default()
        };
        let x = self
            .layers
            .iter()
            .fold(x, |x, layer| layer.run(x, &pass, None));
        Norm::apply(self.norm.as_ref(), x)
    }

    /// Computes the positions `x`, which follow those in `cache`, and adds them to `cache`. Each
    /// attends to itself and to all positions before it. The output is that of a causal
    /// [`forward`](Self::forward) of the whole sequence at these positions. It is for decoding, not
    /// for training: do not differentiate it.
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[batch, new_length, d_model]`; `batch` is the same in all calls with one
    ///   cache.
    pub fn forward_cached(&self, x: Tensor<3>, cache: &mut EncoderCache) -> Tensor<3> {
        let [batch, length, _] = x.dims();
        cache
            .layers
            .resize_with(self.layers.len(), AttentionCache::default);
        let keys = cache.len() + length;
        let pass = Pass {
            mask: AttentionMask::causal().of(batch, length, keys),
            ..Pass::default()
        };
        let x = self
            .layers
            .iter()
            .zip(&mut cache.layers)
            .fold(x, |x, (layer, cache)| layer.run(x, &pass, Some(cache)));
        Norm::apply(self.norm.as_ref(), x)
    }
}

impl EncoderCache {
    /// The number of positions in the cache.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, AttentionCache::len)
    }

    /// Whether the cache has no position.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl RztxDecoder {
    pub(super) fn from_parts(parts: &Parts, device: &Device) -> Self {
        Self {
            layers: (0..parts.site.n_layers)
                .map(|_| RztxDecoderLayer::from_parts(parts, device))
                .collect(),
            norm: parts.residual.init_final_norm(parts.site, device),
        }
    }

    /// Computes the stack.
    ///
    /// # Shapes
    ///
    /// - `input`: a target of `[batch, length, d_model]` and a memory of
    ///   `[batch, memory_length, d_model]`
    /// - output: `[batch, length, d_model]`
    ///
    /// # Panics
    ///
    /// If a mask of the target does not fit `[batch, length, length]` or one of the memory
    /// `[batch, length, memory_length]`.
    pub fn forward(&self, input: RztxDecoderInput) -> Tensor<3> {
        let RztxDecoderInput {
            target: x,
            target_mask,
            memory,
            memory_mask,
        } = input;
        let ([batch, length, _], [_, keys, _]) = (x.dims(), memory.dims());
        let pass = Pass {
            mask: target_mask.of(batch, length, length),
            memory_mask: memory_mask.of(batch, length, keys),
            ..Pass::default()
        };
        let x = self
            .layers
            .iter()
            .fold(x, |x, layer| layer.run(x, memory.clone(), &pass, None));
        Norm::apply(self.norm.as_ref(), x)
    }

    /// Computes target positions, which follow those in `cache`, and adds them to `cache`. Each
    /// attends to itself, to all positions before it and to the memory. The output is that of a
    /// causal [`forward`](Self::forward) of the whole target at these positions. The keys and
    /// values of the memory are computed in the first call; pass the same memory and memory mask in
    /// all calls.
    ///
    /// # Shapes
    ///
    /// - `input`: new positions of `[batch, new_length, d_model]` and a memory of
    ///   `[batch, memory_length, d_model]`; `batch` is the same in all calls with one cache.
    /// - output: `[batch, new_length, d_model]`
    ///
    /// # Panics
    ///
    /// If a mask of the memory does not fit `[batch, new_length, memory_length]`, or the target has
    /// a padding or attention mask. [`causal`](RztxDecoderInput::causal) is allowed and changes
    /// nothing.
    pub fn forward_cached(&self, input: RztxDecoderInput, cache: &mut DecoderCache) -> Tensor<3> {
        let RztxDecoderInput {
            target: x,
            target_mask,
            memory,
            memory_mask,
        } = input;
        assert!(
            target_mask.attention.is_none() && target_mask.padding.is_none(),
            "decoding with a cache is causal: give the target no mask."
        );
        let ([batch, length, _], [_, memory_keys, _]) = (x.dims(), memory.dims());
        cache
            .layers
            .resize_with(self.layers.len(), DecoderLayerCache::default);
        let keys = cache.len() + length;
        let pass = Pass {
            mask: AttentionMask::causal().of(batch, length, keys),
            memory_mask: memory_mask.of(batch, length, memory_keys),
            ..Pass::default()
        };
        let x = self
            .layers
            .iter()
            .zip(&mut cache.layers)
            .fold(x, |x, (layer, cache)| {
                layer.run(x, memory.clone(), &pass, Some(cache))
            });
        Norm::apply(self.norm.as_ref(), x)
    }
}

impl DecoderCache {
    /// The number of positions in the cache.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.attention.len())
    }

    /// Whether the cache has no position.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An encoder–decoder for sequences that are already embedded, like PyTorch's `nn.Transformer`.
///
/// Should be created using [RztxTransformerConfig](super::RztxTransformerConfig).
#[derive(Module, Debug)]
pub struct RztxTransformer {
    /// The encoder.
    pub encoder: RztxEncoder,
    /// The decoder.
    pub decoder: RztxDecoder,
}

impl RztxTransformer {
    /// Encodes `source` and decodes `target`. Each position of the target attends to the whole
    /// source and to the target up to itself. For other masks, run the two stacks one after the
    /// other: `decoder.forward(RztxDecoderInput::new(target, encoder.forward(source)))`.
    ///
    /// # Shapes
    ///
    /// - `source`: `[batch, source_length, d_model]`
    /// - `target` and output: `[batch, target_length, d_model]`
    pub fn forward(&self, source: Tensor<3>, target: Tensor<3>) -> Tensor<3> {
        let memory = self.encoder.forward(source);
        let input = RztxDecoderInput::new(target, memory).causal();
        self.decoder.forward(input)
    }
}
