//! How a branch joins its skip path: every scheme behind one call, so that a model does not know
//! which one it runs and an ablation cannot change anything else.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::tensor::{Device, Tensor};

use crate::rezero::{ReZero, ReZeroConfig};

/// A rule that joins the skip path `x` with the branch output `f`.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum ResidualScheme {
    /// `x + f`: He et al., [arXiv 1512.03385](https://arxiv.org/abs/1512.03385).
    Sum,
    /// `x + α · f`, α = 0 at the start: ReZero, and SkipInit where the branch has no norm.
    ReZero,
    /// `α · f + (1 − α) · x`, α = 0 at the start: the "Gated ResNet" of the paper's table, a
    /// highway layer with one scalar gate. Not the Gated ResNet of Savarese et al., which is
    /// `x + g(k) · f` with `g(k) = 1` at the start.
    Gated,
}

/// Configuration to create a [`Residual`] using the [init function](ResidualConfig::init).
#[derive(Config, Debug)]
pub struct ResidualConfig {
    /// The rule.
    pub scheme: ResidualScheme,
    /// The gate of the schemes that have one. Default: α = 0, trainable, one a layer
    #[config(default = "ReZeroConfig::new()")]
    pub rezero: ReZeroConfig,
}

/// Joins a branch with its skip path by a [`ResidualScheme`].
///
/// Should be created using [ResidualConfig].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Residual {
    /// The gate, for the schemes that have one.
    pub rezero: Option<ReZero>,
    /// The rule.
    #[module(skip)]
    pub scheme: ResidualScheme,
}

impl ResidualConfig {
    /// Initializes the module on `device`.
    ///
    /// # Panics
    ///
    /// As [`ReZeroConfig::init`].
    pub fn init(&self, device: &Device) -> Residual {
        Residual {
            rezero: match self.scheme {
                ResidualScheme::Sum => None,
                ResidualScheme::ReZero | ResidualScheme::Gated => Some(self.rezero.init(device)),
            },
            scheme: self.scheme,
        }
    }
}

impl Residual {
    /// Computes the layer's output from the skip path and the branch output.
    ///
    /// # Shapes
    ///
    /// - `skip`, `out` and output: the same shape.
    ///
    /// # Panics
    ///
    /// If the shapes differ, or a per-channel α does not match them.
    pub fn combine<const D: usize>(&self, skip: Tensor<D>, out: Tensor<D>) -> Tensor<D> {
        match (&self.rezero, self.scheme) {
            (Some(gate), ResidualScheme::Gated) => {
                let alpha = gate.alpha_like::<D>();
                out * alpha.clone() + skip * (-alpha + 1.0)
            }
            (Some(gate), _) => gate.combine(skip, out),
            (None, _) => skip + out,
        }
    }
}

impl ModuleDisplay for Residual {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        content
            .add_debug_attribute("scheme", &self.scheme)
            .add("rezero", &self.rezero)
            .optional()
    }
}
