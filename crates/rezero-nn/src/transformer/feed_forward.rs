//! The position-wise feed-forward branch.

use burn::config::Config;
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor};
use rezero_kernels::{Activation as Act, gelu};

use super::drop;
use super::init::{linear, scale_columns};
use super::layer::RztxLayerConfig;
use crate::fused;

/// The non-linearity of a feed-forward branch.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// x · Φ(x), exact: Hendrycks and Gimpel, [arXiv 1606.08415](https://arxiv.org/abs/1606.08415).
    Gelu,
    /// x · σ(x).
    Silu,
    /// silu(x W₁) ⊙ (x W_gate): Shazeer, [arXiv 2002.05202](https://arxiv.org/abs/2002.05202). It has
    /// a third matrix; d_ff = ⅔ of the usual keeps the number of parameters.
    SwiGlu,
}

/// The feed-forward branch `W₂ · dropout(act(W₁ x + b₁)) + b₂`, or with SwiGLU
/// `W₂ · dropout(silu(W₁ x + b₁) ⊙ (W_gate x + b_gate)) + b₂`.
///
/// Should be created as part of a layer, using [RztxLayerConfig].
#[derive(Module, Debug)]
pub struct FeedForward {
    /// `[d_model, d_ff]`.
    pub linear1: Linear,
    /// SwiGLU's gate, `[d_model, d_ff]`.
    pub gate: Option<Linear>,
    /// `[d_ff, d_model]`.
    pub linear2: Linear,
    /// Dropout between the two.
    pub dropout: Dropout,
    /// The non-linearity.
    #[module(skip)]
    pub activation: Activation,
}

impl RztxLayerConfig {
    pub(super) fn init_feed_forward(&self, device: &Device) -> FeedForward {
        let (d, d_ff) = (self.d_model, self.d_ff);
        let bias = self.bias.then_some(self.init.feed_forward_bias.as_ref());
        let gain = self.residual.branch_gain();
        let layer = |dims| {
            let mut layer = linear(dims, &self.init.feed_forward, bias, device);
            layer.weight = scale_columns(layer.weight, 0, gain);
            layer
        };
        let dropout = self.feed_forward_dropout.unwrap_or(self.dropout);
        FeedForward {
            linear1: layer([d, d_ff]),
            gate: (self.activation == Activation::SwiGlu).then(|| layer([d, d_ff])),
            linear2: layer([d_ff, d]),
            dropout: DropoutConfig::new(dropout).init(),
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
        let first = |act| fused::linear(&self.linear1, x.clone(), act);
        let hidden = match (self.activation, &self.gate) {
            (Activation::Relu, _) => first(Act::Relu),
            (Activation::Gelu, _) => gelu(first(Act::Identity)),
            (Activation::SwiGlu, Some(gate)) => {
                silu(first(Act::Identity)) * fused::linear(gate, x.clone(), Act::Identity)
            }
            (Activation::Silu | Activation::SwiGlu, _) => silu(first(Act::Identity)),
        };
        let hidden = drop(&self.dropout, hidden, forced_dropout);
        fused::linear(&self.linear2, hidden, Act::Identity)
    }
}
