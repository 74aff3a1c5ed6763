//! The byte-level language model.

use burn::config::Config;
use burn::module::{Initializer, Module};
use burn::nn::{Dropout, DropoutConfig, Embedding, Linear};
use burn::tensor::{Device, Int, Tensor};

use rezero_kernels::Epilogue;

use super::config::RztxEncoderConfig;
use super::input::RztxEncoderInput;
use super::positions::sinusoidal;
use super::stack::{EncoderCache, RztxEncoder};
use super::weights::linear;
use crate::vocabulary::vocabulary;
use rezero_kernels::fused;

vocabulary! {
    "kind of positions";
    /// How a model knows the position of a token.
    pub enum Positions {
        /// A trained vector for each position, added to the embedding.
        Learned = "learned",
        /// Sines and cosines of the position, added to the embedding: Vaswani et al.,
        /// [arXiv 1706.03762](https://arxiv.org/abs/1706.03762), section 3.5.
        Sinusoidal = "sinusoidal",
        /// Queries and keys are rotated by angles that grow with the position: Su et al.,
        /// [arXiv 2104.09864](https://arxiv.org/abs/2104.09864).
        Rotary = "rotary",
        /// No positions: only the causal mask tells the order of tokens.
        None = "none",
    }
}

/// Configuration to create an [`RztxLm`] using the [init function](RztxLmConfig::init).
#[derive(Config, Debug)]
pub struct RztxLmConfig {
    /// The layers.
    pub encoder: RztxEncoderConfig,
    /// The length of training sequences, and the longest sequence under learned positions.
    pub context: usize,
    /// The number of tokens. Default: 256, bytes
    #[config(default = 256)]
    pub vocab_size: usize,
    /// How the model knows positions. Default: learned
    #[config(default = "Positions::Learned")]
    pub positions: Positions,
    /// Whether the output layer is the embedding's transpose, without a bias. Default: false
    #[config(default = false)]
    pub tied: bool,
    /// The factor of the embedding; √d_model in the authors' notebook. Default: 1
    #[config(default = 1.0)]
    pub embedding_scale: f64,
}

/// A causal language model: the embedding of each token plus its position, dropout, a stack of
/// encoder layers under a causal mask, and a linear output layer.
///
/// The ReZero paper's enwik8 model (section 5) is 12 layers of `d_model` 512, 2 heads and a context
/// of 512 bytes.
///
/// Should be created using [RztxLmConfig].
#[derive(Module, Debug)]
pub struct RztxLm {
    /// Token embedding, `[vocab_size, d_model]`.
    pub embedding: Embedding,
    /// Learned positions, `[context, d_model]`.
    pub positions: Option<Embedding>,
    /// Dropout of the embedded tokens with their positions.
    pub dropout: Dropout,
    /// The layers.
    pub encoder: RztxEncoder,
    /// The output layer, `[d_model, vocab_size]`, unless it is tied to the embedding.
    pub head: Option<Linear>,
    /// Whether positions are sinusoidal.
    pub sinusoidal: bool,
    /// The factor of the embedding.
    pub embedding_scale: f64,
    /// The longest sequence under learned positions.
    pub context: usize,
}

/// The keys and values that a language model stores between decoding steps.
#[derive(Clone, Debug, Default)]
pub struct LmCache {
    encoder: EncoderCache,
}

impl RztxLmConfig {
    /// Initializes the model on `device`.
    ///
    /// # Panics
    ///
    /// If a size is 0, or as [`RztxEncoderConfig::init`].
    pub fn init(&self, device: &Device) -> RztxLm {
        assert!(
            self.context > 0 && self.vocab_size > 0,
            "context and vocab_size must be greater than zero, got {} and {}.",
            self.context,
            self.vocab_size
        );
        let encoder = self.stack();
        let d = encoder.d_model;
        let init = &encoder.init;
        let table = |rows: usize, how: &Initializer| Embedding {
            weight: how.init([rows, d], device),
        };
        let embedding = init.embedding_for(d);
        let positions = init.positions.as_ref().unwrap_or(&embedding);
        RztxLm {
            embedding: table(self.vocab_size, &embedding),
            positions: (self.positions == Positions::Learned)
                .then(|| table(self.context, positions)),
            dropout: DropoutConfig::new(encoder.dropout).init(),
            encoder: encoder.init(device),
            head: (!self.tied).then(|| {
                let bias = Some(init.head_bias.as_ref());
                linear([d, self.vocab_size], &init.head, bias, device)
            }),
            sinusoidal: self.positions == Positions::Sinusoidal,
            embedding_scale: self.embedding_scale,
            context: self.context,
        }
    }

    /// The configuration of the layers, with rotary positions if the model has them.
    pub(super) fn stack(&self) -> RztxEncoderConfig {
        let mut encoder = self.encoder.clone();
        if self.positions == Positions::Rotary {
            encoder.rotary.get_or_insert(1e4);
        }
        encoder
    }
}

impl RztxLm {
    /// Logits of the token that follows each position, given the tokens up to this position.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch, length]`
    /// - output: `[batch, length, vocab_size]`
    ///
    /// # Panics
    ///
    /// If `length` exceeds the context of learned positions.
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let x = super::drop(&self.dropout, self.embed(tokens, 0), false);
        self.logits(self.encoder.forward(RztxEncoderInput::new(x).causal()))
    }

    /// Logits at `tokens`, which follow the tokens in `cache` and are added to it. The logits are
    /// those that [`forward`](Self::forward) of the whole sequence gives at these positions, but
    /// the cost does not grow with the square of the sequence's length. Run it on a device without
    /// autodiff.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch, new_length]`; `batch` is the same in all calls with one cache.
    /// - output: `[batch, new_length, vocab_size]`
    ///
    /// # Panics
    ///
    /// If the whole length exceeds the context of learned positions.
    pub fn forward_cached(&self, tokens: Tensor<2, Int>, cache: &mut LmCache) -> Tensor<3> {
        let x = self.embed(tokens, cache.encoder.len());
        self.logits(self.encoder.forward_cached(x, &mut cache.encoder))
    }

    /// Embeds tokens whose first position is `start`, without dropout.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch, length]`
    /// - output: `[batch, length, d_model]`
    ///
    /// # Panics
    ///
    /// If the last position exceeds the context of learned positions.
    pub fn embed(&self, tokens: Tensor<2, Int>, start: usize) -> Tensor<3> {
        let [_, length] = tokens.dims();
        let device = tokens.device();
        let weight = self.embedding.weight.val();
        let mut x = rezero_kernels::embedding(weight, tokens, self.embedding_scale);
        if let Some(positions) = &self.positions {
            let end = start + length;
            assert!(
                end <= self.context,
                "a sequence of {end} tokens exceeds the model's context of {}.",
                self.context
            );
            x = x + positions.weight.val().slice_dim(0, start..end).unsqueeze();
        }
        if self.sinusoidal {
            let [_, _, d_model] = x.dims();
            x = x.clone() + sinusoidal(start, length, d_model, &device).cast(x.dtype());
        }
        x
    }

    /// The output layer.
    pub(super) fn logits(&self, x: Tensor<3>) -> Tensor<3> {
        match &self.head {
            Some(head) => fused::linear(head, x, Epilogue::Identity),
            None => {
                let weight = self.embedding.weight.val().transpose();
                rezero_kernels::linear(x, weight, None, Epilogue::Identity)
            }
        }
    }
}

impl LmCache {
    /// The number of tokens in the cache.
    pub fn len(&self) -> usize {
        self.encoder.len()
    }

    /// Whether the cache has no token.
    pub fn is_empty(&self) -> bool {
        self.encoder.is_empty()
    }
}
