//! The table of residual schemes.

use crate::vocabulary::vocabulary;

vocabulary! {
    "residual scheme";
    /// A rule that makes a layer out of its input `x` and its branch `F`.
    ///
    /// A network family supports some of them, see the `SCHEMES` of its configuration.
    pub enum ResidualScheme {
        /// `F(x)`: no skip path.
        Plain = "plain",
        /// `Norm(F(x))`, a norm for each layer: no skip path; "Deep + Norm" in the paper's Table 1.
        PlainNorm = "plain-norm",
        /// `Norm(F(x))`, one norm for all layers: the authors' notebook of fully connected networks.
        PlainSharedNorm = "plain-shared-norm",
        /// `x + F(x)`: He et al., [arXiv 1512.03385](https://arxiv.org/abs/1512.03385).
        Residual = "residual",
        /// `x + F(x)`, γ = 0 at the start in the last norm of `F`: Goyal et al.,
        /// [arXiv 1706.02677](https://arxiv.org/abs/1706.02677), section 5.1.
        ZeroGamma = "zero-gamma",
        /// `x + F(x)`, `F` without norm, with rescaled initial weights and scalar biases: Zhang et al.,
        /// [arXiv 1901.09321](https://arxiv.org/abs/1901.09321).
        FixUp = "fixup",
        /// `Norm(x + F(x))`: Vaswani et al., [arXiv 1706.03762](https://arxiv.org/abs/1706.03762).
        PostNorm = "post-norm",
        /// `x + F(Norm(x))`, and a norm after the last layer: Xiong et al.,
        /// [arXiv 2002.04745](https://arxiv.org/abs/2002.04745).
        PreNorm = "pre-norm",
        /// `x + F(Norm(x))` as the ReZero authors' notebook has it: one norm serves all sub-layers of a
        /// layer, and there is none after the last layer.
        PreNormNotebook = "pre-norm-notebook",
        /// `x + Norm(F(x))`: the GPT2-Norm of the ReZero paper. The GPT-2 model itself is pre-norm.
        Gpt2Norm = "gpt2-norm",
        /// `x + α · F(x)`, α = 0 at the start, one α for all sub-layers of a layer:
        /// [arXiv 2003.04887](https://arxiv.org/abs/2003.04887). With a norm `x + α · F(Norm(x))`, which
        /// leaves the identity at the start.
        ReZero = "rezero",
        /// `(1 − α) · x + α · F(x)`, α = 0 at the start: the "Gated ResNet" of the paper's table, a
        /// highway layer with one scalar gate. Not the Gated ResNet of Savarese et al., which is
        /// `x + g(k) · F(x)` with `g(k) = 1` at the start.
        Gated = "gated",
        /// `x + α · F(x)`, α = 0 at the start, one α for each sub-layer: De and Smith,
        /// [arXiv 2002.10444](https://arxiv.org/abs/2002.10444).
        SkipInit = "skipinit",
        /// `x + λ ⊙ F(Norm(x))`, one λ for each channel of each sub-layer, small at the start, and a
        /// norm after the last layer: Touvron et al.,
        /// [arXiv 2103.17239](https://arxiv.org/abs/2103.17239).
        LayerScale = "layerscale",
        /// `Norm(c · x + F(x))` with weights of `F` scaled down at the start: Wang et al.,
        /// [arXiv 2203.00555](https://arxiv.org/abs/2203.00555).
        DeepNorm = "deepnorm",
    }
}

/// The row of one scheme. All code that depends on the scheme reads a column of this row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// The layer's output.
    pub formula: &'static str,
    /// How the branch's output joins the skip path.
    pub join: Join,
    /// The norm, for the schemes that always have one or may have one.
    pub norm: Option<NormRule>,
    /// Whether a norm follows the last layer of a stack.
    pub final_norm: bool,
    /// Whether a new layer is the identity or, in a ResNet, a ReLU of its input.
    pub new_layer_is_identity: bool,
    /// The norms and biases of the convolutions in a CIFAR ResNet's branch.
    pub convolutions: Convolutions,
    /// The place of the last ReLU in a CIFAR ResNet's block.
    pub last_relu: LastRelu,
    /// The gain g of hidden weights N(0, g² / width) in the authors' notebook of fully connected
    /// networks.
    pub notebook_gain: f64,
}

/// How a branch's output `f` joins the skip path `x`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Join {
    /// `f`
    BranchAlone,
    /// `x + f`
    Sum,
    /// `c · x + f`
    ScaledSum(Scales),
    /// `x + α · f`
    GatedSum(GateRule),
    /// `(1 − α) · x + α · f`
    Mixture(GateRule),
}

/// The factors of a scheme that scales its skip path and initial weights, as functions of the
/// number of layers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scales {
    /// Multiplies the skip path.
    pub skip: fn(f64) -> f64,
    /// Multiplies the branch's initial weights.
    pub branch: fn(f64) -> f64,
}

/// The gate of a scheme.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GateRule {
    /// The part of the network that has one gate.
    pub of: Owner,
    /// Whether α is always per channel, whatever the configuration says.
    pub per_channel: bool,
    /// The initial α that replaces a configured 0, as a function of the number of layers.
    pub start: Option<fn(usize) -> f64>,
}

/// The part of the network that a gate or a norm belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Each sub-layer has its own.
    SubLayer,
    /// The sub-layers of a layer share one.
    Layer,
    /// All layers of a network share one.
    Network,
}

/// The norm of a scheme.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormRule {
    /// The tensor that it normalises.
    pub at: NormPlace,
    /// The part of the network that has one norm.
    pub of: Owner,
    /// Whether the scheme has the norm when the configuration's `norm` is Auto.
    pub by_default: bool,
}

/// The tensor that a norm normalises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormPlace {
    /// The branch's input.
    BranchInput,
    /// The branch's output.
    BranchOutput,
    /// The layer's output.
    LayerOutput,
}

/// The norms and biases of the convolutions in a ResNet's branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Convolutions {
    /// A batch norm follows each, γ = 1 at the start.
    BatchNorm,
    /// A batch norm follows each, γ = 0 at the start in the last.
    ZeroGamma,
    /// They have biases and no norm.
    Biased,
    /// They have no norm, and the branch has FixUp's scalars.
    FixUp,
}

/// The place of the last ReLU in a ResNet's block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastRelu {
    /// It ends the branch.
    InBranch,
    /// It follows the sum.
    AfterSum,
}

/// `x + F(x)`; the other rows state how they differ from it.
const SUM: Row = Row {
    formula: "x + F(x)",
    join: Join::Sum,
    norm: None,
    final_norm: false,
    new_layer_is_identity: false,
    convolutions: Convolutions::BatchNorm,
    last_relu: LastRelu::AfterSum,
    notebook_gain: std::f64::consts::SQRT_2,
};

/// One gate per layer, with the configured shape and initial value.
const GATE: GateRule = GateRule {
    of: Owner::Layer,
    per_channel: false,
    start: None,
};

/// One norm per sub-layer.
const fn norm(at: NormPlace) -> Option<NormRule> {
    Some(NormRule {
        at,
        of: Owner::SubLayer,
        by_default: true,
    })
}

impl ResidualScheme {
    /// The scheme's row.
    #[rustfmt::skip]
    pub(crate) const fn row(self) -> Row {
        use NormPlace::{BranchInput, BranchOutput, LayerOutput};
        match self {
            Self::Plain => Row { formula: "F(x)", join: Join::BranchAlone, ..SUM },
            Self::PlainNorm => Row {
                formula: "Norm(F(x)), a norm for each layer",
                join: Join::BranchAlone,
                norm: norm(LayerOutput),
                ..SUM
            },
            Self::PlainSharedNorm => Row {
                formula: "Norm(F(x)), one norm for all layers",
                join: Join::BranchAlone,
                norm: Some(NormRule { at: LayerOutput, of: Owner::Network, by_default: true }),
                ..SUM
            },
            Self::Residual => Row { notebook_gain: 0.5, ..SUM },
            Self::ZeroGamma => Row {
                formula: "x + F(x), γ = 0 at the start in the last norm of F",
                new_layer_is_identity: true,
                convolutions: Convolutions::ZeroGamma,
                ..SUM
            },
            Self::FixUp => Row {
                formula: "x + F(x), F without norm, rescaled at the start",
                new_layer_is_identity: true,
                convolutions: Convolutions::FixUp,
                ..SUM
            },
            Self::PostNorm => Row { formula: "Norm(x + F(x))", norm: norm(LayerOutput), ..SUM },
            Self::PreNorm => Row {
                formula: "x + F(Norm(x))",
                norm: norm(BranchInput),
                final_norm: true,
                ..SUM
            },
            Self::PreNormNotebook => Row {
                formula: "x + F(Norm(x)), one norm for each layer",
                norm: Some(NormRule { at: BranchInput, of: Owner::Layer, by_default: true }),
                ..SUM
            },
            Self::Gpt2Norm => Row { formula: "x + Norm(F(x))", norm: norm(BranchOutput), ..SUM },
            Self::ReZero => Row {
                formula: "x + α · F(x)",
                join: Join::GatedSum(GATE),
                norm: Some(NormRule { at: BranchInput, of: Owner::SubLayer, by_default: false }),
                new_layer_is_identity: true,
                last_relu: LastRelu::InBranch,
                ..SUM
            },
            Self::Gated => Row {
                formula: "(1 − α) · x + α · F(x)",
                join: Join::Mixture(GATE),
                new_layer_is_identity: true,
                last_relu: LastRelu::InBranch,
                ..SUM
            },
            Self::SkipInit => Row {
                formula: "x + α · F(x), one α for each sub-layer",
                join: Join::GatedSum(GateRule { of: Owner::SubLayer, ..GATE }),
                new_layer_is_identity: true,
                convolutions: Convolutions::Biased,
                ..SUM
            },
            Self::LayerScale => Row {
                formula: "x + λ ⊙ F(Norm(x))",
                join: Join::GatedSum(GateRule {
                    of: Owner::SubLayer,
                    per_channel: true,
                    start: Some(layer_scale),
                }),
                norm: norm(BranchInput),
                final_norm: true,
                ..SUM
            },
            Self::DeepNorm => Row {
                formula: "Norm(c · x + F(x))",
                join: Join::ScaledSum(Scales {
                    skip: |n| (2.0 * n).powf(0.25),
                    branch: |n| (8.0 * n).powf(-0.25),
                }),
                norm: norm(LayerOutput),
                ..SUM
            },
        }
    }

    /// The layer's output as a formula, such as `x + α · F(x)`.
    pub const fn formula(self) -> &'static str {
        self.row().formula
    }

    /// Whether the scheme has a gate α.
    pub const fn has_gate(self) -> bool {
        self.gate().is_some()
    }

    /// Whether the scheme has a norm, always or when the configuration asks for one.
    pub const fn takes_norm(self) -> bool {
        self.row().norm.is_some()
    }

    /// Whether the sub-layers of a layer share one gate, unless the configuration gives each its
    /// own.
    pub const fn shares_gate(self) -> bool {
        matches!(self.gate(), Some(gate) if matches!(gate.of, Owner::Layer))
    }

    /// Whether the gate always has one α per channel, whatever the configuration says.
    pub const fn gates_channels(self) -> bool {
        matches!(self.gate(), Some(gate) if gate.per_channel)
    }

    /// Whether a new layer, with the initial values of its scheme, is the identity. In a CIFAR
    /// ResNet whose last ReLU follows the sum, it is the identity for inputs that are outputs of a
    /// ReLU. Networks of these schemes can [grow](crate::Grow).
    pub const fn begins_as_identity(self) -> bool {
        self.row().new_layer_is_identity
    }

    /// The initial α in a network of `n_layers` layers whose configuration says `configured`: a scheme
    /// may have another start than 0.
    pub fn initial_alpha(self, configured: f64, n_layers: usize) -> f64 {
        match self.gate().and_then(|gate| gate.start) {
            Some(start) if configured == 0.0 => start(n_layers),
            _ => configured,
        }
    }

    pub(super) const fn gate(self) -> Option<GateRule> {
        match self.row().join {
            Join::GatedSum(gate) | Join::Mixture(gate) => Some(gate),
            Join::BranchAlone | Join::Sum | Join::ScaledSum(_) => None,
        }
    }

    /// The names of `schemes`, for a message.
    pub(crate) fn names(schemes: &[Self]) -> String {
        let names: Vec<&str> = schemes.iter().map(|scheme| scheme.name()).collect();
        names.join(", ")
    }
}

/// The initial α of LayerScale's paper.
const fn layer_scale(n_layers: usize) -> f64 {
    match n_layers {
        0..=18 => 0.1,
        19..=24 => 1e-5,
        _ => 1e-6,
    }
}
