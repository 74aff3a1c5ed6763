//! How a branch joins its skip path. All schemes have the same call: a model does not depend on the
//! scheme, so an ablation of schemes changes nothing else.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::tensor::{Device, Tensor};

use super::norm::{Norm, NormKind};
use super::scheme::{GateRule, Join, NormPlace, Owner, ResidualScheme};
use crate::rezero::{ReZero, ReZeroConfig};

/// Configuration to create a [`Residual`] using the [init function](ResidualConfig::init).
///
/// Width, axis and depth are not part of it: the network gives them as a [`Site`].
#[derive(Config, Debug)]
pub struct ResidualConfig {
    /// The residual scheme.
    pub scheme: ResidualScheme,
    /// The gate of the schemes that have one. [`ResidualScheme::LayerScale`] replaces α = 0 by the
    /// value of its paper: 0.1 up to 18 layers, 1e-5 up to 24, 1e-6 beyond.
    /// Default: α = 0, trainable
    #[config(default = "ReZeroConfig::new()")]
    pub rezero: ReZeroConfig,
    /// Whether a gate has one α per channel; [`ResidualScheme::LayerScale`] always has.
    /// Default: false
    #[config(default = false)]
    pub per_channel: bool,
    /// Whether the sub-layers of a layer share one gate, in the schemes that are defined so
    /// ([`ResidualScheme::shares_gate`]). If false, each sub-layer has its own gate. Default: true
    #[config(default = true)]
    pub share_alpha: bool,
    /// The normalisation. Default: Auto
    #[config(default = "NormKind::Auto")]
    pub norm: NormKind,
    /// Added to the variance by the norm. Default: 1e-5
    #[config(default = 1e-5)]
    pub norm_epsilon: f64,
    /// `c` of DeepNorm; `None`: (2 · n_layers)^¼, the paper's value for a model that has only an
    /// encoder or only a decoder. Default: None
    pub skip_scale: Option<f64>,
    /// The factor of the branch's initial weights in DeepNorm; `None`: (8 · n_layers)^−¼.
    /// Default: None
    pub branch_gain: Option<f64>,
}

/// The place of a residual connection in its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Site {
    /// The number of channels of `x`: the width of norms, and the number of α in a gate per
    /// channel.
    pub channels: usize,
    /// The axis of the channels: 1 for `[batch, channels, height, width]`, 2 for
    /// `[batch, length, d_model]`.
    pub channel_axis: usize,
    /// The number of layers in the stack; LayerScale and DeepNorm depend on it.
    pub n_layers: usize,
}

/// A residual connection: makes a layer out of a branch by a [`ResidualScheme`].
///
/// Should be created using [ResidualConfig].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Residual {
    /// The gate, for the schemes that have one.
    pub rezero: Option<ReZero>,
    /// The norm, for the schemes that have one.
    pub norm: Option<Norm>,
    /// The factor of the skip path.
    pub skip_scale: f64,
    /// Whether the branch is subtracted. Only [folding](crate::Fold) sets it, where α is negative
    /// and a ReLU ends the branch.
    pub subtract: bool,
    /// The residual scheme.
    #[module(skip)]
    pub scheme: ResidualScheme,
}

/// The residual connections of one layer's sub-layers, which may share a gate.
///
/// Should be created using [ResidualConfig::init_layer].
#[derive(Module, Debug)]
pub struct LayerResiduals {
    /// The gate that all sub-layers share, if they do.
    pub rezero: Option<ReZero>,
    /// One residual connection per sub-layer, or one for all.
    pub sub_layers: Vec<Residual>,
}

impl ResidualConfig {
    /// Initializes the residual connection of a single branch on `device`.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use rezero_nn::{ResidualConfig, ResidualScheme, Site};
    ///
    /// let device = Device::flex();
    /// let site = Site { channels: 8, channel_axis: 2, n_layers: 12 };
    /// let residual = ResidualConfig::new(ResidualScheme::PostNorm).init(site, &device);
    /// let y = residual.forward(Tensor::<3>::ones([2, 5, 8], &device), |x| x * 3.0);
    /// assert_eq!(y.dims(), [2, 5, 8]);
    /// ```
    ///
    /// # Panics
    ///
    /// As [`ReZeroConfig::init_channels`], or if `norm` is not Auto in a scheme that has no norm.
    pub fn init(&self, site: Site, device: &Device) -> Residual {
        let row = self.scheme.row();
        Residual {
            rezero: self.scheme.gate().map(|rule| self.gate(rule, site, device)),
            norm: match row.norm.map(|norm| norm.of) {
                Some(Owner::Network) => None,
                Some(Owner::SubLayer | Owner::Layer) | None => self.init_norm(site, device),
            },
            skip_scale: match row.join {
                Join::ScaledSum(scales) => self
                    .skip_scale
                    .unwrap_or_else(|| (scales.skip)(site.n_layers as f64)),
                Join::BranchAlone | Join::Sum | Join::GatedSum(_) | Join::Mixture(_) => 1.0,
            },
            subtract: false,
            scheme: self.scheme,
        }
    }

    /// Initializes the residual connections of a layer with `n` sub-layers on `device`.
    ///
    /// # Panics
    ///
    /// As [`init`](Self::init).
    pub fn init_layer(&self, n: usize, site: Site, device: &Device) -> LayerResiduals {
        let shared = self.scheme.gate().filter(|_| self.gate_is_shared());
        let norm = self.scheme.row().norm;
        let parts = match norm.is_some_and(|norm| norm.of == Owner::Layer) {
            true => 1,
            false => n,
        };
        LayerResiduals {
            rezero: shared.map(|rule| self.gate(rule, site, device)),
            sub_layers: (0..parts)
                .map(|_| {
                    let residual = self.init(site, device);
                    Residual {
                        rezero: residual.rezero.filter(|_| shared.is_none()),
                        ..residual
                    }
                })
                .collect(),
        }
    }

    /// Initializes the norm after the last layer, for the schemes that have one.
    ///
    /// # Panics
    ///
    /// As [`init`](Self::init).
    pub fn init_final_norm(&self, site: Site, device: &Device) -> Option<Norm> {
        match self.scheme.row().final_norm {
            true => self.init_norm(site, device),
            false => None,
        }
    }

    /// Initializes the norm that all layers of a network share, for the schemes that have one. The
    /// network applies it after each layer.
    ///
    /// # Panics
    ///
    /// As [`init`](Self::init).
    pub fn init_shared_norm(&self, site: Site, device: &Device) -> Option<Norm> {
        let norm = self.scheme.row().norm;
        match norm.is_some_and(|norm| norm.of == Owner::Network) {
            true => self.init_norm(site, device),
            false => None,
        }
    }

    /// The factor of the branch's initial weights in a stack of `n_layers`: below 1 for DeepNorm, else 1.
    /// It applies to the value and output projections of attention and to the feed-forward layers.
    pub fn branch_gain(&self, n_layers: usize) -> f64 {
        match self.scheme.row().join {
            Join::ScaledSum(scales) => self
                .branch_gain
                .unwrap_or_else(|| (scales.branch)(n_layers as f64)),
            Join::BranchAlone | Join::Sum | Join::GatedSum(_) | Join::Mixture(_) => 1.0,
        }
    }

    /// Whether a layer has one gate for all sub-layers.
    pub(crate) fn gate_is_shared(&self) -> bool {
        self.share_alpha && self.scheme.shares_gate()
    }

    /// Panics unless `schemes` contains the scheme; `family` is the name of the network's
    /// configuration.
    pub(crate) fn check(&self, family: &str, schemes: &[ResidualScheme]) {
        assert!(
            schemes.contains(&self.scheme),
            "{family} has no residual scheme {}; choose one of {}.",
            self.scheme,
            ResidualScheme::names(schemes)
        );
    }

    /// As [`check`](Self::check), for networks of convolutions, whose norms are batch norms.
    pub(crate) fn check_without_norm(&self, family: &str, schemes: &[ResidualScheme]) {
        self.check(family, schemes);
        assert!(
            self.norm == NormKind::Auto,
            "{family} has batch norms alone: leave `norm` at auto, got {}.",
            self.norm
        );
    }

    fn gate(&self, rule: GateRule, site: Site, device: &Device) -> ReZero {
        let mut gate = self.rezero.clone();
        gate.alpha = self.scheme.initial_alpha(gate.alpha, site.n_layers);
        match rule.per_channel || self.per_channel {
            true => gate.init_channels(site.channels, site.channel_axis, device),
            false => gate.init(device),
        }
    }

    fn init_norm(&self, site: Site, device: &Device) -> Option<Norm> {
        let rule = self.scheme.row().norm;
        assert!(
            rule.is_some() || self.norm == NormKind::Auto,
            "the residual scheme {} has no norm: leave `norm` at auto, got {}.",
            self.scheme,
            self.norm
        );
        let (channels, epsilon) = (site.channels, self.norm_epsilon);
        match (self.norm, rule?.by_default) {
            (NormKind::Auto, false) => None,
            (NormKind::Auto, true) | (NormKind::Layer, _) => {
                Some(Norm::layer(channels, epsilon, device))
            }
            (NormKind::Rms, _) => Some(Norm::rms(channels, epsilon, device)),
        }
    }
}

impl Residual {
    /// Computes the layer `x → scheme(x, branch)`.
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[..]`, any rank; `branch` keeps the shape. Norms are over the last axis.
    ///
    /// # Panics
    ///
    /// If the branch changes the shape, a per-channel α or the norm does not match the shape, or
    /// the sub-layers of the layer share their gate: then use [`LayerResiduals::forward`].
    pub fn forward<const D: usize>(
        &self,
        x: Tensor<D>,
        branch: impl FnOnce(Tensor<D>) -> Tensor<D>,
    ) -> Tensor<D> {
        self.forward_gated(self.rezero.as_ref(), x, branch)
    }

    /// Joins a branch output that is already computed with its skip path, for the schemes without a
    /// norm.
    ///
    /// # Shapes
    ///
    /// - `skip`, `out` and output: the same shape.
    ///
    /// # Panics
    ///
    /// If the shapes differ, a per-channel α does not match them, or the scheme has a norm.
    pub fn combine<const D: usize>(&self, skip: Tensor<D>, out: Tensor<D>) -> Tensor<D> {
        assert!(
            self.norm.is_none(),
            "the residual scheme {} has a norm: use forward.",
            self.scheme
        );
        self.join(self.rezero.as_ref(), skip, out)
    }

    /// The gate, if the layer is `x + α · F(x)` with a single α and without a norm.
    pub(crate) fn rezero_alpha(&self) -> Option<Tensor<1>> {
        match (&self.rezero, self.scheme.row().join) {
            (Some(gate), Join::GatedSum(_)) if self.norm.is_none() => gate.scalar(),
            _ => None,
        }
    }

    fn forward_gated<const D: usize>(
        &self,
        gate: Option<&ReZero>,
        x: Tensor<D>,
        branch: impl FnOnce(Tensor<D>) -> Tensor<D>,
    ) -> Tensor<D> {
        let place = self.scheme.row().norm.map(|norm| norm.at);
        let norm = |at: NormPlace, x: Tensor<D>| {
            let here = self.norm.as_ref().filter(|_| place == Some(at));
            Norm::apply(here, x)
        };
        let out = branch(norm(NormPlace::BranchInput, x.clone()));
        let out = norm(NormPlace::BranchOutput, out);
        norm(NormPlace::LayerOutput, self.join(gate, x, out))
    }

    fn join<const D: usize>(
        &self,
        gate: Option<&ReZero>,
        skip: Tensor<D>,
        out: Tensor<D>,
    ) -> Tensor<D> {
        let gate = || gate.expect("the layer holds the gate: use LayerResiduals::forward");
        match self.scheme.row().join {
            Join::BranchAlone => out,
            Join::GatedSum(_) => gate().combine(skip, out),
            Join::Mixture(_) => {
                let alpha = gate().alpha_like::<D>();
                out * alpha.clone() + skip * (-alpha + 1.0)
            }
            Join::Sum | Join::ScaledSum(_) => {
                let skip = match self.skip_scale {
                    1.0 => skip,
                    scale => skip * scale,
                };
                match self.subtract {
                    true => skip - out,
                    false => skip + out,
                }
            }
        }
    }
}

impl LayerResiduals {
    /// Computes sub-layer `i`, from 0: `x → scheme(x, branch)`.
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[batch, length, d_model]`; `branch` keeps the shape.
    ///
    /// # Panics
    ///
    /// As [`Residual::forward`], or if there is no such sub-layer.
    pub fn forward<const D: usize>(
        &self,
        i: usize,
        x: Tensor<D>,
        branch: impl FnOnce(Tensor<D>) -> Tensor<D>,
    ) -> Tensor<D> {
        // A single residual connection serves all sub-layers.
        let residual = match self.sub_layers.as_slice() {
            [one] => one,
            several => &several[i],
        };
        let gate = self.rezero.as_ref().or(residual.rezero.as_ref());
        residual.forward_gated(gate, x, branch)
    }
}

impl ModuleDisplay for Residual {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let content = content
            .add_debug_attribute("scheme", &self.scheme)
            .add("rezero", &self.rezero);
        match &self.norm {
            Some(norm) => content.add("norm", norm),
            None => content,
        }
        .optional()
    }
}
