//! The position-wise feed-forward branch.

use burn::config::Config;
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::{Device, Tensor};
use rezero_kernels::{Epilogue, swiglu};

use super::drop;
use super::weights::{RztxInit, linear, scale_columns};
use crate::vocabulary::vocabulary;
use rezero_kernels::fused;

vocabulary! {
    "activation";
    /// The non-linearity of a feed-forward branch.
    pub enum Activation {
        /// max(x, 0).
        Relu = "relu",
        /// x · Φ(x), exact: Hendrycks and Gimpel,
        /// [arXiv 1606.08415](https://arxiv.org/abs/1606.08415).
        Gelu = "gelu",
        /// x · σ(x).
        Silu = "silu",
        /// silu(x W₁) ⊙ (x W_gate): Shazeer, [arXiv 2002.05202](https://arxiv.org/abs/2002.05202). It
        /// has a third matrix. With ⅔ of the usual d_ff, the number of parameters stays the same.
        SwiGlu = "swiglu",
    }
}

impl Activation {
    /// The number of matrices in a feed-forward branch: two, and SwiGLU's gate.
    pub const fn matrices(self) -> usize {
        match self {
            Self::Relu | Self::Gelu | Self::Silu => 2,
            Self::SwiGlu => 3,
        }
    }
}

/// Configuration to create a [`FeedForward`] using the [init function](FeedForwardConfig::init).
#[derive(Config, Debug)]
pub struct FeedForwardConfig {
    /// The width of the model.
    pub d_model: usize,
    /// The width between the two layers.
    pub d_ff: usize,
    /// Dropout between the two layers. Default: 0.1
    #[config(default = 0.1)]
    pub dropout: f64,
    /// The non-linearity. Default: ReLU
    #[config(default = "Activation::Relu")]
    pub activation: Activation,
    /// Whether the layers have biases. Default: true
    #[config(default = true)]
    pub bias: bool,
    /// The factor of the initial weights, see
    /// [`ResidualConfig::branch_gain`](crate::ResidualConfig::branch_gain()). Default: 1
    #[config(default = 1.0)]
    pub gain: f64,
    /// The initial weights. Default: PyTorch's
    #[config(default = "RztxInit::pytorch()")]
    pub init: RztxInit,
}

/// The feed-forward branch `W₂ · dropout(act(W₁ x + b₁)) + b₂`, or with SwiGLU
/// `W₂ · dropout(silu(W₁ x + b₁) ⊙ (W_gate x + b_gate)) + b₂`.
///
/// Should be created using [FeedForwardConfig].
#[derive(Module, Debug)]
pub struct FeedForward {
    /// `[d_model, d_ff]`.
    pub linear1: Linear,
    /// SwiGLU's gate, `[d_model, d_ff]`.
    pub gate: Option<Linear>,
    /// `[d_ff, d_model]`.
    pub linear2: Linear,
    /// Dropout between the two layers.
    pub dropout: Dropout,
    /// The non-linearity.
    #[module(skip)]
    pub activation: Activation,
}

impl FeedForwardConfig {
    /// Initializes the module on `device`.
    ///
    /// # Panics
    ///
    /// If a width is 0 or the dropout is not in [0, 1).
    pub fn init(&self, device: &Device) -> FeedForward {
        let (d, d_ff) = (self.d_model, self.d_ff);
        assert!(
            d > 0 && d_ff > 0,
            "d_model and d_ff must be greater than zero, got {d} and {d_ff}."
        );
        let bias = self.bias.then_some(self.init.feed_forward_bias.as_ref());
        let layer = |dims| {
            let mut layer = linear(dims, &self.init.feed_forward, bias, device);
            layer.weight = scale_columns(layer.weight, 0, self.gain);
            layer
        };
        FeedForward {
            linear1: layer([d, d_ff]),
            gate: (self.activation == Activation::SwiGlu).then(|| layer([d, d_ff])),
            linear2: layer([d_ff, d]),
            dropout: DropoutConfig::new(self.dropout).init(),
            activation: self.activation,
        }
    }
}

impl FeedForward {
    /// Computes the branch.
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[batch, length, d_model]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.run(x, false)
    }

    pub(super) fn run(&self, x: Tensor<3>, forced_dropout: bool) -> Tensor<3> {
        let first = |epilogue| fused::linear(&self.linear1, x.clone(), epilogue);
        let gate = self.gate.as_ref();
        let gate = gate.map(|gate| fused::linear(gate, x.clone(), Epilogue::Identity));
        let hidden = match (self.activation, gate) {
            (Activation::SwiGlu, Some(gate)) => swiglu(first(Epilogue::Identity), gate),
            (activation, gate) => {
                let hidden = first(match activation {
                    Activation::Relu => Epilogue::Relu,
                    Activation::Gelu => Epilogue::Gelu,
                    Activation::Silu | Activation::SwiGlu => Epilogue::Silu,
                });
                match gate {
                    Some(gate) => hidden * gate,
                    None => hidden,
                }
            }
        };
        let hidden = drop(&self.dropout, hidden, forced_dropout);
        fused::linear(&self.linear2, hidden, Epilogue::Identity)
    }
}
