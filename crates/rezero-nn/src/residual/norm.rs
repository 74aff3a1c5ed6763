//! The norm of a residual scheme.

use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig, RmsNorm, RmsNormConfig};
use burn::tensor::{Device, Tensor};

use crate::vocabulary::vocabulary;
use rezero_kernels::fused;

vocabulary! {
    "norm";
    /// The normalisation of a residual scheme, over the channels.
    pub enum NormKind {
        /// A layer norm where the scheme has a norm; none in ReZero.
        Auto = "auto",
        /// Layer norm: Ba et al., [arXiv 1607.06450](https://arxiv.org/abs/1607.06450).
        Layer = "layer",
        /// RMS norm: Zhang and Sennrich, [arXiv 1910.07467](https://arxiv.org/abs/1910.07467).
        Rms = "rms",
    }
}

/// A normalisation, whose kind is chosen when it is created.
#[derive(Module, Debug)]
pub struct Norm {
    /// Set for [`NormKind::Layer`], and for [`NormKind::Auto`] in a scheme with a norm.
    pub layer_norm: Option<LayerNorm>,
    /// Set for [`NormKind::Rms`].
    pub rms_norm: Option<RmsNorm>,
    /// ε, which a [`LayerNorm`] keeps to itself.
    epsilon: f64,
}

impl Norm {
    pub(super) fn layer(channels: usize, epsilon: f64, device: &Device) -> Self {
        Self {
            layer_norm: Some(
                LayerNormConfig::new(channels)
                    .with_epsilon(epsilon)
                    .init(device),
            ),
            rms_norm: None,
            epsilon,
        }
    }

    pub(super) fn rms(channels: usize, epsilon: f64, device: &Device) -> Self {
        Self {
            layer_norm: None,
            rms_norm: Some(
                RmsNormConfig::new(channels)
                    .with_epsilon(epsilon)
                    .init(device),
            ),
            epsilon,
        }
    }

    /// Normalises over the last axis.
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[.., channels]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match (&self.layer_norm, &self.rms_norm) {
            (Some(norm), _) => fused::layer_norm(norm, x, self.epsilon),
            (None, Some(norm)) => fused::rms_norm(norm, x),
            (None, None) => x,
        }
    }

    /// `x`, normalised where there is a norm.
    pub(crate) fn apply<const D: usize>(norm: Option<&Self>, x: Tensor<D>) -> Tensor<D> {
        match norm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }
}
