//! Configuration of layers and of stacks. They have the same options; only their depths differ.

use burn::config::Config;
use burn::tensor::Device;

use super::attention::AttentionConfig;
use super::feed_forward::{Activation, FeedForwardConfig};
use super::layer::{RztxDecoderLayer, RztxEncoderLayer};
use super::stack::{RztxDecoder, RztxEncoder, RztxTransformer};
use super::weights::RztxInit;
use crate::residual::{Join, ResidualConfig, ResidualScheme, Site};

/// The parts of a layer's configuration.
pub(super) struct Parts {
    pub attention: AttentionConfig,
    pub feed_forward: FeedForwardConfig,
    pub dropout: f64,
    pub residual: ResidualConfig,
    pub site: Site,
}

impl Parts {
    /// Attention to a memory. It is without rotary positions, since the memory is another sequence.
    pub fn cross_attention(&self) -> AttentionConfig {
        self.attention.clone().with_rotary(None)
    }
}

/// Defines a configuration with the widths, the given depths and all options of a layer as fields.
macro_rules! layer_config {
    (
        $(#[$meta:meta])*
        pub struct $config:ident {
            $($(#[$depth_meta:meta])* pub $depth:ident: usize,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Config, Debug)]
        pub struct $config {
            /// The width of the model.
            pub d_model: usize,
            /// The width of the feed-forward branch.
            pub d_ff: usize,
            /// The number of attention heads; divides `d_model`.
            pub n_heads: usize,
            $($(#[$depth_meta])* pub $depth: usize,)+
            /// Dropout of each branch's output. Default: 0.1
            #[config(default = 0.1)]
            pub dropout: f64,
            /// Dropout of the attention weights; `None`: the same as `dropout`. Default: None
            pub attention_dropout: Option<f64>,
            /// Dropout inside the feed-forward branch; `None`: the same as `dropout`. Default: None
            pub feed_forward_dropout: Option<f64>,
            /// The non-linearity. Default: ReLU
            #[config(default = "Activation::Relu")]
            pub activation: Activation,
            /// Whether the linear layers have biases. Default: true
            #[config(default = true)]
            pub bias: bool,
            /// The residual scheme with its gate and norm. Default: ReZero
            #[config(default = "ResidualConfig::new(ResidualScheme::ReZero)")]
            pub residual: ResidualConfig,
            /// The base of rotary positions in self-attention, 10,000 in their paper; `None`: no
            /// rotary positions. Default: None
            pub rotary: Option<f64>,
            /// The initial weights. Default: PyTorch's, as in the authors' layers
            #[config(default = "RztxInit::pytorch()")]
            pub init: RztxInit,
        }

        impl $config {
            /// The residual schemes of Transformers.
            pub const SCHEMES: &'static [ResidualScheme] = SCHEMES;

            /// The parts of a layer in a stack of `n_layers`.
            ///
            /// # Panics
            ///
            /// If the scheme is not one of [`SCHEMES`](Self::SCHEMES).
            pub(super) fn parts(&self, n_layers: usize) -> Parts {
                self.residual.check(stringify!($config), SCHEMES);
                let gain = self.residual.branch_gain(n_layers);
                Parts {
                    attention: AttentionConfig {
                        d_model: self.d_model,
                        n_heads: self.n_heads,
                        dropout: self.attention_dropout.unwrap_or(self.dropout),
                        bias: self.bias,
                        rotary: self.rotary,
                        gain,
                        init: self.init.clone(),
                    },
                    feed_forward: FeedForwardConfig {
                        d_model: self.d_model,
                        d_ff: self.d_ff,
                        dropout: self.feed_forward_dropout.unwrap_or(self.dropout),
                        activation: self.activation,
                        bias: self.bias,
                        gain,
                        init: self.init.clone(),
                    },
                    dropout: self.dropout,
                    residual: self.residual.clone(),
                    site: Site {
                        channels: self.d_model,
                        channel_axis: 2,
                        n_layers,
                    },
                }
            }
        }
    };
}

const SCHEMES: &[ResidualScheme] = &[
    ResidualScheme::ReZero,
    ResidualScheme::PostNorm,
    ResidualScheme::PreNorm,
    ResidualScheme::PreNormNotebook,
    ResidualScheme::Gpt2Norm,
    ResidualScheme::SkipInit,
    ResidualScheme::LayerScale,
    ResidualScheme::DeepNorm,
    ResidualScheme::Gated,
    ResidualScheme::Residual,
    ResidualScheme::Plain,
];

layer_config! {
    /// Configuration to create an [`RztxEncoderLayer`] using the
    /// [init function](RztxEncoderLayerConfig::init).
    pub struct RztxEncoderLayerConfig {
        /// The number of layers in the stack; DeepNorm and LayerScale depend on it. Default: 1
        #[config(default = 1)]
        pub n_layers: usize,
    }
}

layer_config! {
    /// Configuration to create an [`RztxDecoderLayer`] using the
    /// [init function](RztxDecoderLayerConfig::init).
    pub struct RztxDecoderLayerConfig {
        /// The number of layers in the stack; DeepNorm and LayerScale depend on it. Default: 1
        #[config(default = 1)]
        pub n_layers: usize,
    }
}

layer_config! {
    /// Configuration to create an [`RztxEncoder`] using the [init function](RztxEncoderConfig::init).
    ///
    /// ```
    /// use burn::tensor::{Device, Distribution, Tensor};
    /// use rezero_nn::transformer::{RztxEncoderConfig, RztxEncoderInput};
    ///
    /// let device = Device::flex();
    /// let encoder = RztxEncoderConfig::new(32, 64, 4, 100).init(&device);
    /// let x = Tensor::<3>::random([2, 10, 32], Distribution::Default, &device);
    /// let y = encoder.forward(RztxEncoderInput::new(x.clone()).causal());
    /// assert_eq!(y.into_data(), x.into_data()); // the identity, until α changes
    /// ```
    pub struct RztxEncoderConfig {
        /// The number of layers.
        pub n_layers: usize,
    }
}

layer_config! {
    /// Configuration to create an [`RztxDecoder`] using the [init function](RztxDecoderConfig::init).
    pub struct RztxDecoderConfig {
        /// The number of layers.
        pub n_layers: usize,
    }
}

layer_config! {
    /// Configuration to create an [`RztxTransformer`] using the
    /// [init function](RztxTransformerConfig::init).
    pub struct RztxTransformerConfig {
        /// The number of encoder layers.
        pub n_encoder_layers: usize,
        /// The number of decoder layers.
        pub n_decoder_layers: usize,
    }
}

impl RztxEncoderLayerConfig {
    /// Initializes an encoder layer on `device`.
    ///
    /// # Panics
    ///
    /// If `n_heads` does not divide `d_model`, a width is 0, heads have an odd width under rotary
    /// positions, a dropout is not in [0, 1), the scheme is not one of [`SCHEMES`](Self::SCHEMES), or as
    /// [`ResidualConfig::init`].
    pub fn init(&self, device: &Device) -> RztxEncoderLayer {
        RztxEncoderLayer::from_parts(&self.parts(self.n_layers), device)
    }
}

impl RztxDecoderLayerConfig {
    /// Initializes a decoder layer on `device`.
    ///
    /// # Panics
    ///
    /// As [`RztxEncoderLayerConfig::init`].
    pub fn init(&self, device: &Device) -> RztxDecoderLayer {
        RztxDecoderLayer::from_parts(&self.parts(self.n_layers), device)
    }
}

impl RztxEncoderConfig {
    /// Initializes the stack on `device`.
    ///
    /// # Panics
    ///
    /// As [`RztxEncoderLayerConfig::init`].
    pub fn init(&self, device: &Device) -> RztxEncoder {
        RztxEncoder::from_parts(&self.parts(self.n_layers), device)
    }
}

impl RztxDecoderConfig {
    /// Initializes the stack on `device`.
    ///
    /// # Panics
    ///
    /// As [`RztxEncoderLayerConfig::init`].
    pub fn init(&self, device: &Device) -> RztxDecoder {
        RztxDecoder::from_parts(&self.parts(self.n_layers), device)
    }
}

impl RztxTransformerConfig {
    /// Initializes the two stacks on `device`. Under DeepNorm, a `skip_scale` or `branch_gain` of
    /// `None` gets the value of its paper's Table 1 for an encoder–decoder.
    ///
    /// # Panics
    ///
    /// As [`RztxEncoderLayerConfig::init`].
    pub fn init(&self, device: &Device) -> RztxTransformer {
        let (n, m) = (self.n_encoder_layers as f64, self.n_decoder_layers as f64);
        let with = |skip: f64, gain: f64| {
            let mut config = self.clone();
            if let Join::ScaledSum(_) = config.residual.scheme.row().join {
                config.residual.skip_scale.get_or_insert(skip);
                config.residual.branch_gain.get_or_insert(gain);
            }
            config
        };
        let mixed = (n.powi(4) * m).powf(1.0 / 16.0);
        let encoder = with(0.81 * mixed, 0.87 / mixed).parts(self.n_encoder_layers);
        let decoder =
            with((3.0 * m).powf(0.25), (12.0 * m).powf(-0.25)).parts(self.n_decoder_layers);
        RztxTransformer {
            encoder: RztxEncoder::from_parts(&encoder, device),
            decoder: RztxDecoder::from_parts(&decoder, device),
        }
    }
}
