//! How a branch joins its skip path: every scheme behind one call, so that a model does not know
//! which one it runs and an ablation cannot change anything else.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::{LayerNorm, LayerNormConfig, RmsNorm, RmsNormConfig};
use burn::tensor::{Device, Tensor};

use crate::rezero::{ReZero, ReZeroConfig};

/// A rule that makes a layer out of its input `x` and its branch `F`.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum ResidualScheme {
    /// `F(x)`: no skip path.
    Plain,
    /// `Norm(F(x))`: no skip path; "Deep + Norm" in the paper's Table 1.
    PlainNorm,
    /// `x + F(x)`: He et al., [arXiv 1512.03385](https://arxiv.org/abs/1512.03385).
    Sum,
    /// `Norm(x + F(x))`: Vaswani et al., [arXiv 1706.03762](https://arxiv.org/abs/1706.03762).
    PostNorm,
    /// `x + F(Norm(x))`, and a norm after the last layer: Xiong et al.,
    /// [arXiv 2002.04745](https://arxiv.org/abs/2002.04745).
    PreNorm,
    /// [`PreNorm`](Self::PreNorm) as the ReZero authors' notebook has it: one norm serves all
    /// sub-layers of a layer, and there is none after the last layer.
    PreNormNotebook,
    /// `x + Norm(F(x))`: what the ReZero paper calls GPT2-Norm. The GPT-2 model itself is
    /// [`PreNorm`](Self::PreNorm).
    Gpt2Norm,
    /// `x + α · F(x)`, α = 0 at the start, one α for all sub-layers of a layer: ReZero. With a
    /// [`norm`](ResidualConfig::norm) `x + α · F(Norm(x))`, which leaves the identity at the start.
    ReZero,
    /// `α · F(x) + (1 − α) · x`, α = 0 at the start: the "Gated ResNet" of the paper's table, a
    /// highway layer with one scalar gate. Not the Gated ResNet of Savarese et al., which is
    /// `x + g(k) · F(x)` with `g(k) = 1` at the start.
    Gated,
    /// `x + α · F(x)`, α = 0 at the start, one α for each sub-layer: De and Smith,
    /// [arXiv 2002.10444](https://arxiv.org/abs/2002.10444).
    SkipInit,
    /// `x + λ ⊙ F(Norm(x))`, one λ for each channel of each sub-layer, small at the start, and a
    /// norm after the last layer: Touvron et al.,
    /// [arXiv 2103.17239](https://arxiv.org/abs/2103.17239).
    LayerScale,
    /// `Norm(c · x + F(x))` with weights of `F` scaled down at the start: Wang et al.,
    /// [arXiv 2203.00555](https://arxiv.org/abs/2203.00555).
    DeepNorm,
}

/// A normalisation over the channels.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Ba et al., [arXiv 1607.06450](https://arxiv.org/abs/1607.06450).
    Layer,
    /// Zhang and Sennrich, [arXiv 1910.07467](https://arxiv.org/abs/1910.07467).
    Rms,
}

/// Configuration to create a [`Residual`] using the [init function](ResidualConfig::init).
#[derive(Config, Debug)]
pub struct ResidualConfig {
    /// The rule.
    pub scheme: ResidualScheme,
    /// The gate of the schemes that have one. For [`ResidualScheme::LayerScale`], α = 0 stands for
    /// the values of its paper: 0.1 up to 18 layers, 1e-5 up to 24, 1e-6 beyond.
    /// Default: α = 0, trainable, one a layer
    #[config(default = "ReZeroConfig::new()")]
    pub rezero: ReZeroConfig,
    /// The normalisation; `None`: a layer norm where the scheme has one, none in
    /// [`ResidualScheme::ReZero`]. Default: None
    pub norm: Option<NormKind>,
    /// Added to the variance by the norm. Default: 1e-5
    #[config(default = 1e-5)]
    pub norm_epsilon: f64,
    /// The channels of `x`, which norms and LayerScale need. Default: 0, unknown
    #[config(default = 0)]
    pub d_model: usize,
    /// The layers of the stack, which LayerScale and DeepNorm depend on. Default: 1
    #[config(default = 1)]
    pub n_layers: usize,
    /// `c` of DeepNorm; `None`: (2 · n_layers)^¼, the paper's for a stack of encoders or of
    /// decoders alone. Default: None
    pub skip_scale: Option<f64>,
    /// What DeepNorm multiplies the branch's weights by; `None`: (8 · n_layers)^−¼. Default: None
    pub branch_gain: Option<f64>,
}

/// Makes a layer out of a branch by a [`ResidualScheme`].
///
/// Should be created using [ResidualConfig].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Residual {
    /// The gate, for the schemes that have one.
    pub rezero: Option<ReZero>,
    /// The norm, for the schemes that have one.
    pub norm: Option<Norm>,
    /// What the skip path is multiplied by.
    pub skip_scale: f64,
    /// Whether the branch is subtracted, which is what [folding](crate::Fold) makes of a negative gate
    /// behind a ReLU.
    pub subtract: bool,
    /// The rule.
    #[module(skip)]
    pub scheme: ResidualScheme,
}

/// The residual connections of one layer's sub-layers, which may share a gate.
///
/// Should be created using [ResidualConfig::init_layer].
#[derive(Module, Debug)]
pub struct LayerResiduals {
    /// The gate that all sub-layers share.
    pub rezero: Option<ReZero>,
    /// One for each sub-layer, or one for all.
    pub sub_layers: Vec<Residual>,
}

/// A normalisation of a kind chosen when it is created.
#[derive(Module, Debug)]
pub struct Norm {
    /// Set for [`NormKind::Layer`].
    pub layer_norm: Option<LayerNorm>,
    /// Set for [`NormKind::Rms`].
    pub rms_norm: Option<RmsNorm>,
}

impl ResidualScheme {
    fn has_gate(self) -> bool {
        use ResidualScheme::*;
        matches!(self, ReZero | Gated | SkipInit | LayerScale)
    }

    /// Whether a layer's sub-layers share the gate by default.
    pub(crate) fn shares_gate(self) -> bool {
        matches!(self, Self::ReZero | Self::Gated)
    }

    fn has_norm(self) -> bool {
        use ResidualScheme::*;
        matches!(
            self,
            PlainNorm | PostNorm | PreNorm | PreNormNotebook | Gpt2Norm | LayerScale | DeepNorm
        )
    }

    fn norm_before(self) -> bool {
        use ResidualScheme::*;
        matches!(self, PreNorm | PreNormNotebook | LayerScale | ReZero)
    }

    fn norm_after(self) -> bool {
        matches!(self, Self::PlainNorm | Self::PostNorm | Self::DeepNorm)
    }
}

impl ResidualConfig {
    /// Initializes the residual connection of a single branch on `device`.
    ///
    /// # Panics
    ///
    /// As [`ReZeroConfig::init`]; or if the scheme needs `d_model` and it is 0, or a norm is asked
    /// for in a scheme that has none.
    pub fn init(&self, device: &Device) -> Residual {
        Residual {
            rezero: self.scheme.has_gate().then(|| self.gate().init(device)),
            norm: self.norm_kind().map(|kind| self.init_norm(kind, device)),
            skip_scale: match self.scheme {
                ResidualScheme::DeepNorm => self
                    .skip_scale
                    .unwrap_or_else(|| (2.0 * self.n_layers as f64).powf(0.25)),
                _ => 1.0,
            },
            subtract: false,
            scheme: self.scheme,
        }
    }

    /// Initializes the residual connections of a layer with `n` sub-layers on `device`;
    /// `share_alpha` gives them one gate together in the schemes that are defined so (ReZero and
    /// Gated).
    ///
    /// # Panics
    ///
    /// As [`init`](Self::init).
    pub fn init_layer(&self, n: usize, share_alpha: bool, device: &Device) -> LayerResiduals {
        let shared = share_alpha && self.scheme.shares_gate();
        let parts = match self.scheme {
            ResidualScheme::PreNormNotebook => 1,
            _ => n,
        };
        LayerResiduals {
            rezero: shared.then(|| self.gate().init(device)),
            sub_layers: (0..parts)
                .map(|_| {
                    let residual = self.init(device);
                    Residual {
                        rezero: residual.rezero.filter(|_| !shared),
                        ..residual
                    }
                })
                .collect(),
        }
    }

    /// The norm after the last layer, for the schemes that have one.
    ///
    /// # Panics
    ///
    /// As [`init`](Self::init).
    pub fn init_final_norm(&self, device: &Device) -> Option<Norm> {
        let has = matches!(
            self.scheme,
            ResidualScheme::PreNorm | ResidualScheme::LayerScale
        );
        let kind = self.norm_kind().filter(|_| has)?;
        Some(self.init_norm(kind, device))
    }

    /// What the branch's initial weights are multiplied by: below 1 for DeepNorm, else 1. It
    /// applies to the value and output projections of attention and to the feed-forward layers.
    pub fn branch_gain(&self) -> f64 {
        match self.scheme {
            ResidualScheme::DeepNorm => self
                .branch_gain
                .unwrap_or_else(|| (8.0 * self.n_layers as f64).powf(-0.25)),
            _ => 1.0,
        }
    }

    fn gate(&self) -> ReZeroConfig {
        let mut gate = self.rezero.clone();
        if self.scheme == ResidualScheme::LayerScale {
            gate.channels = Some(self.known_d_model());
            // The last axis of `[batch, length, d_model]`.
            gate.channel_axis = 2;
            if gate.alpha == 0.0 {
                gate.alpha = match self.n_layers {
                    0..=18 => 0.1,
                    19..=24 => 1e-5,
                    _ => 1e-6,
                };
            }
        }
        gate
    }

    fn norm_kind(&self) -> Option<NormKind> {
        if self.scheme.has_norm() {
            return Some(self.norm.unwrap_or(NormKind::Layer));
        }
        assert!(
            self.norm.is_none() || self.scheme == ResidualScheme::ReZero,
            "the residual scheme {:?} has no norm: leave `norm` unset.",
            self.scheme
        );
        self.norm
    }

    fn init_norm(&self, kind: NormKind, device: &Device) -> Norm {
        let d_model = self.known_d_model();
        Norm {
            layer_norm: (kind == NormKind::Layer).then(|| {
                LayerNormConfig::new(d_model)
                    .with_epsilon(self.norm_epsilon)
                    .init(device)
            }),
            rms_norm: (kind == NormKind::Rms).then(|| {
                RmsNormConfig::new(d_model)
                    .with_epsilon(self.norm_epsilon)
                    .init(device)
            }),
        }
    }

    fn known_d_model(&self) -> usize {
        assert!(
            self.d_model > 0,
            "the residual scheme {:?} needs d_model: set it.",
            self.scheme
        );
        self.d_model
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
    /// If the branch changes the shape, or a per-channel α or the norm does not match it.
    pub fn forward<const D: usize>(
        &self,
        x: Tensor<D>,
        branch: impl FnOnce(Tensor<D>) -> Tensor<D>,
    ) -> Tensor<D> {
        self.forward_gated(self.rezero.as_ref(), x, branch)
    }

    /// Joins a branch output that is already at hand with its skip path, for the schemes without a
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
            "the residual scheme {:?} has a norm: use forward.",
            self.scheme
        );
        self.join(self.rezero.as_ref(), skip, out)
    }

    /// The gate where the layer is `x + α · F(x)` with one α and nothing else.
    pub(crate) fn rezero_alpha(&self) -> Option<Tensor<1>> {
        let sums = matches!(
            self.scheme,
            ResidualScheme::ReZero | ResidualScheme::SkipInit
        );
        match &self.rezero {
            Some(gate) if sums && self.norm.is_none() => gate.scalar(),
            _ => None,
        }
    }

    fn forward_gated<const D: usize>(
        &self,
        gate: Option<&ReZero>,
        x: Tensor<D>,
        branch: impl FnOnce(Tensor<D>) -> Tensor<D>,
    ) -> Tensor<D> {
        let norm = |wanted: bool, x: Tensor<D>| match &self.norm {
            Some(norm) if wanted => norm.forward(x),
            _ => x,
        };
        let out = branch(norm(self.scheme.norm_before(), x.clone()));
        let out = norm(self.scheme == ResidualScheme::Gpt2Norm, out);
        norm(self.scheme.norm_after(), self.join(gate, x, out))
    }

    fn join<const D: usize>(
        &self,
        gate: Option<&ReZero>,
        skip: Tensor<D>,
        out: Tensor<D>,
    ) -> Tensor<D> {
        match (gate, self.scheme) {
            (_, ResidualScheme::Plain | ResidualScheme::PlainNorm) => out,
            (Some(gate), ResidualScheme::Gated) => {
                let alpha = gate.alpha_like::<D>();
                out * alpha.clone() + skip * (-alpha + 1.0)
            }
            (Some(gate), _) => gate.combine(skip, out),
            (None, _) => {
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
        // Where one serves all, every index names it.
        let residual = match self.sub_layers.as_slice() {
            [one] => one,
            several => &several[i],
        };
        let gate = self.rezero.as_ref().or(residual.rezero.as_ref());
        residual.forward_gated(gate, x, branch)
    }
}

impl Norm {
    /// Normalises over the last axis.
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[.., d_model]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match (&self.layer_norm, &self.rms_norm) {
            (Some(norm), _) => norm.forward(x),
            (None, Some(norm)) => norm.forward(x),
            (None, None) => x,
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
