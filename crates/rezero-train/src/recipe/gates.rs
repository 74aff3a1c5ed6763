//! `[gates]`: how α starts and how it is trained.

use rezero_nn::{ReZeroConfig, ResidualConfig, ResidualScheme};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{check, in_f32, nonnegative};
use crate::error::Result;

/// The gates α of the schemes that have them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Gates {
    /// The initial value of α: 0 in the paper. In the scheme layerscale, 0 stands for the value
    /// that its authors chose for the depth: 0.1, 1e-5 or 1e-6.
    pub alpha_init: f64,
    /// Whether each channel has an α of its own, instead of one α for all channels.
    pub alpha_per_channel: bool,
    /// Whether α is trained; false: it keeps its initial value.
    pub alpha_trainable: bool,
    /// Whether attention and feed-forward of a Transformer's layer share one α, as in the paper;
    /// false: each has its own.
    pub alpha_shared: bool,
    /// A bound C on the gate, which is then C · tanh(α / C) instead of α; 0: no bound.
    pub alpha_bound: f64,
    /// The optimizer of the gates.
    pub alpha_optimizer: GateOptimizer,
    /// Learning rate of the gates' own optimizer; under alpha_optimizer = "shared" they have
    /// optimizer.lr.
    pub alpha_lr: f64,
    /// λ of the L2 penalty on gates that have their own optimizer: λ · α is added to the gradient
    /// of α.
    pub alpha_weight_decay: f64,
}

/// The optimizer of the gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GateOptimizer {
    /// The optimizer of the weights, with its learning rate and weight decay.
    Shared,
    /// SGD with the momentum of the weights, if they have one; the schedule scales alpha_lr as it scales
    /// optimizer.lr.
    Sgd,
    /// AdaGrad at a constant alpha_lr: the schedule does not change it.
    AdaGrad,
    /// Adam with the weights' β₁, β₂ and ε, or its defaults; the schedule scales alpha_lr as it
    /// scales optimizer.lr.
    Adam,
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            alpha_init: 0.0,
            alpha_per_channel: false,
            alpha_trainable: true,
            alpha_shared: true,
            alpha_bound: 0.0,
            alpha_optimizer: GateOptimizer::Shared,
            alpha_lr: 0.1,
            alpha_weight_decay: 0.0,
        }
    }
}

impl Gates {
    /// The residual connection of a network with these gates.
    pub fn residual(&self, scheme: ResidualScheme) -> ResidualConfig {
        let rezero = ReZeroConfig::new()
            .with_alpha(self.alpha_init)
            .with_trainable(self.alpha_trainable)
            .with_bound((self.alpha_bound > 0.0).then_some(self.alpha_bound));
        ResidualConfig::new(scheme)
            .with_rezero(rezero)
            .with_per_channel(self.alpha_per_channel)
            .with_share_alpha(self.alpha_shared)
    }

    /// The part of a model's identity that gates decide.
    pub fn identity(&self, scheme: ResidualScheme, sub_layers: bool) -> String {
        let mut text = String::new();
        if !scheme.has_gate() {
            return text;
        }
        if sub_layers && scheme.shares_gate() && !self.alpha_shared {
            text.push_str(" alpha=per-sub-layer");
        }
        if self.alpha_per_channel {
            text.push_str(" alpha=per-channel");
        }
        if self.alpha_bound > 0.0 {
            text.push_str(&format!(" alpha_bound={}", self.alpha_bound));
        }
        text
    }

    /// The gates of a scheme as a program needs them to compute what a file's weights mean, by their keys.
    /// A shape tells whether α is per channel.
    pub(crate) fn described(
        &self,
        scheme: ResidualScheme,
        sub_layers: bool,
    ) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        if scheme.has_gate() {
            all.push(("gates.alpha_bound", self.alpha_bound.to_string()));
        }
        if sub_layers && scheme.shares_gate() {
            all.push(("gates.alpha_shared", self.alpha_shared.to_string()));
        }
        all
    }

    /// Keys that have no effect, given the other keys, each with the reason.
    pub(super) fn idle(&self) -> Vec<(&'static str, String)> {
        if !self.alpha_trainable {
            return ["alpha_optimizer", "alpha_lr", "alpha_weight_decay"]
                .map(|key| (key, "alpha_trainable=false keeps α as it is".to_owned()))
                .to_vec();
        }
        match self.alpha_optimizer {
            GateOptimizer::Shared => ["alpha_lr", "alpha_weight_decay"]
                .map(|key| (key, "needs alpha_optimizer other than shared".to_owned()))
                .to_vec(),
            GateOptimizer::Sgd | GateOptimizer::AdaGrad | GateOptimizer::Adam => Vec::new(),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        check(
            in_f32(self.alpha_init).is_finite(),
            "gates.alpha_init",
            format!("must be finite as f32, got {}", self.alpha_init),
        )?;
        nonnegative("gates.alpha_bound", self.alpha_bound)?;
        nonnegative("gates.alpha_lr", self.alpha_lr)?;
        nonnegative("gates.alpha_weight_decay", self.alpha_weight_decay)
    }
}
