//! `[optimizer]`: how the weights are updated.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{check, in_f32, nonnegative, rising};
use crate::error::Result;

/// The optimizer of the weights; each kind has keys of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Optimizer {
    /// Stochastic gradient descent with momentum μ, as PyTorch's: v ← μ · v + gradient, w ← w − lr
    /// · v.
    Sgd(Sgd),
    /// AdaGrad: Duchi, Hazan and Singer, 2011. s ← s + gradient², w ← w − lr · gradient / (√s +
    /// 1e-10).
    AdaGrad(AdaGrad),
    /// Adam: Kingma and Ba, arXiv 1412.6980.
    Adam(Adam),
    /// Adam with decoupled weight decay: Loshchilov and Hutter, arXiv 1711.05101.
    AdamW(AdamW),
    /// LAMB: You et al., arXiv 1904.00962; its trust ratio is not clamped.
    Lamb(Lamb),
    /// Muon with Nesterov momentum: Jordan et al., 2024, kellerjordan.github.io/posts/muon. The matrices
    /// of residual layers, and their convolution kernels as matrices [out, in · height · width], get the
    /// update lr · 0.2 · √(the larger side) · U, where U is their momentum made orthogonal; with this
    /// factor (Liu et al., arXiv 2502.16982) the learning rate and weight decay of AdamW fit. All other
    /// parameters are updated by AdamW at the same lr: embeddings, the first and the last layer, biases,
    /// norms, gates.
    Muon(Muon),
    /// Lion: Chen et al., arXiv 2302.06675. w ← w · (1 − lr · λ) − lr · sign(β₁ · m + (1 − β₁) ·
    /// gradient), m ← β₂ · m + (1 − β₂) · gradient. Each step moves each parameter by lr, so its authors
    /// take a third to a tenth of AdamW's learning rate, and a weight decay that is larger by as much.
    Lion(Lion),
}

/// The keys of `kind = "sgd"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sgd {
    /// Learning rate, which the schedule changes; under schedule.kind = "one-cycle" it is the peak.
    pub lr: f64,
    /// Momentum μ, from 0 to below 1; 0: none. Under schedule.kind = "one-cycle" it is the highest.
    pub momentum: f64,
    /// λ of the L2 penalty: λ · w is added to the gradient of each parameter w, except gates that
    /// have an optimizer of their own.
    pub weight_decay: f64,
    /// A learning rate of their own for biases, batch norm's β and FixUp's scalars, as in the
    /// authors' table code. The schedule does not change it, bias_milestones do. 0: they have lr,
    /// like the weights.
    pub bias_lr: f64,
    /// The factor γ of bias_lr at each of bias_milestones: once k of them have passed, the rate is
    /// bias_lr · γᵏ.
    pub bias_gamma: f64,
    /// Epochs, counted from 0, at whose beginning bias_lr is multiplied by bias_gamma; rising, []
    /// for none.
    pub bias_milestones: Vec<usize>,
}

/// The keys of `kind = "adagrad"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdaGrad {
    /// Learning rate, which the schedule changes.
    pub lr: f64,
    /// λ of the L2 penalty: λ · w is added to the gradient of each parameter w, except gates that
    /// have an optimizer of their own.
    pub weight_decay: f64,
}

macro_rules! adam_like {
    ($(#[$doc:meta])* $name:ident { $(#[$decay:meta])* weight_decay = $default:literal }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            /// Learning rate, which the schedule changes.
            pub lr: f64,
            /// β₁, the decay per step of the first moment, the running mean of gradients; 0.9
            /// averages over about 10 steps.
            pub beta1: f64,
            /// β₂, the decay per step of the second moment, the running mean of squared gradients;
            /// 0.999 averages over about 1,000 steps.
            pub beta2: f64,
            /// ε, which is added to the square root of the second moment, so that no update divides
            /// by 0.
            pub epsilon: f64,
            $(#[$decay])*
            pub weight_decay: f64,
        }

        impl Default for $name {
            fn default() -> Self {
                let Betas { beta1, beta2, epsilon } = Betas::default();
                Self { lr: 1e-3, beta1, beta2, epsilon, weight_decay: $default }
            }
        }
    };
}
adam_like! {
    /// The keys of `kind = "adam"`.
    Adam {
        /// λ of the L2 penalty: λ · w is added to the gradient of each parameter w, except gates
        /// that have an optimizer of their own.
        weight_decay = 0.0
    }
}
adam_like! {
    /// The keys of `kind = "adamw"`.
    AdamW {
        /// Decoupled weight decay λ: each step multiplies each parameter by 1 − lr · λ, except
        /// gates that have an optimizer of their own.
        weight_decay = 0.01
    }
}
adam_like! {
    /// The keys of `kind = "lamb"`.
    Lamb {
        /// Weight decay λ: λ · w is added to the update of each parameter w before the trust ratio,
        /// the norm of w over the norm of the update, scales it.
        weight_decay = 0.0
    }
}

/// The keys of `kind = "muon"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Muon {
    /// Learning rate of Muon and of AdamW, which the schedule changes.
    pub lr: f64,
    /// Momentum μ of Muon, from 0 to below 1. Under schedule.kind = "one-cycle" it is the highest.
    pub momentum: f64,
    /// AdamW's β₁, the decay per step of the first moment.
    pub beta1: f64,
    /// AdamW's β₂, the decay per step of the second moment.
    pub beta2: f64,
    /// AdamW's ε, which is added to the square root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay λ: each step multiplies each parameter by 1 − lr · λ, except gates
    /// that have an optimizer of their own.
    pub weight_decay: f64,
}

impl Default for Muon {
    fn default() -> Self {
        let AdamW {
            lr,
            beta1,
            beta2,
            epsilon,
            weight_decay,
        } = AdamW::default();
        Self {
            lr,
            momentum: 0.95,
            beta1,
            beta2,
            epsilon,
            weight_decay,
        }
    }
}

/// The keys of `kind = "lion"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lion {
    /// Learning rate, which the schedule changes.
    pub lr: f64,
    /// β₁, the weight of the running mean m of gradients in the direction of a step; the rest is the
    /// gradient's.
    pub beta1: f64,
    /// β₂, the decay per step of m; 0.99 averages over about 100 steps.
    pub beta2: f64,
    /// Decoupled weight decay λ: each step multiplies each parameter by 1 − lr · λ, except gates
    /// that have an optimizer of their own.
    pub weight_decay: f64,
}

impl Default for Lion {
    fn default() -> Self {
        Self {
            lr: 1e-4,
            beta1: 0.9,
            beta2: 0.99,
            weight_decay: 0.1,
        }
    }
}

/// The averaging constants of Adam and its relatives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Betas {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the square root of the second moment.
    pub epsilon: f64,
}

impl Default for Betas {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
        }
    }
}

impl Default for Sgd {
    fn default() -> Self {
        Self {
            lr: 0.1,
            momentum: 0.9,
            weight_decay: 1e-4,
            bias_lr: 0.0,
            bias_gamma: 1.0,
            bias_milestones: Vec::new(),
        }
    }
}

impl Default for AdaGrad {
    fn default() -> Self {
        Self {
            lr: 0.01,
            weight_decay: 0.0,
        }
    }
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::Sgd(Sgd::default())
    }
}

impl Optimizer {
    /// The learning rate of the weights, before the schedule.
    pub fn lr(&self) -> f64 {
        match self {
            Self::Sgd(o) => o.lr,
            Self::AdaGrad(o) => o.lr,
            Self::Adam(o) => o.lr,
            Self::AdamW(o) => o.lr,
            Self::Lamb(o) => o.lr,
            Self::Muon(o) => o.lr,
            Self::Lion(o) => o.lr,
        }
    }

    /// The penalty on the weights.
    pub fn weight_decay(&self) -> f64 {
        match self {
            Self::Sgd(o) => o.weight_decay,
            Self::AdaGrad(o) => o.weight_decay,
            Self::Adam(o) => o.weight_decay,
            Self::AdamW(o) => o.weight_decay,
            Self::Lamb(o) => o.weight_decay,
            Self::Muon(o) => o.weight_decay,
            Self::Lion(o) => o.weight_decay,
        }
    }

    /// The momentum of the optimizers that have one.
    pub fn momentum(&self) -> Option<f64> {
        match self {
            Self::Sgd(o) => Some(o.momentum),
            Self::Muon(o) => Some(o.momentum),
            Self::AdaGrad(_) | Self::Adam(_) | Self::AdamW(_) | Self::Lamb(_) | Self::Lion(_) => {
                None
            }
        }
    }

    /// The averaging constants of the optimizers that have two moments.
    pub fn betas(&self) -> Option<Betas> {
        let (beta1, beta2, epsilon) = match self {
            Self::Sgd(_) | Self::AdaGrad(_) | Self::Lion(_) => return None,
            Self::Adam(o) => (o.beta1, o.beta2, o.epsilon),
            Self::AdamW(o) => (o.beta1, o.beta2, o.epsilon),
            Self::Lamb(o) => (o.beta1, o.beta2, o.epsilon),
            Self::Muon(o) => (o.beta1, o.beta2, o.epsilon),
        };
        Some(Betas {
            beta1,
            beta2,
            epsilon,
        })
    }

    /// The learning rate of biases in an epoch, counted from 0, if they have one of their own.
    pub fn bias_lr_at(&self, epoch: usize) -> Option<f64> {
        match self {
            Self::Sgd(o) if o.bias_lr > 0.0 => {
                let passed = o.bias_milestones.iter().filter(|m| **m <= epoch).count();
                Some(o.bias_lr * o.bias_gamma.powi(passed as i32))
            }
            Self::Sgd(_)
            | Self::AdaGrad(_)
            | Self::Adam(_)
            | Self::AdamW(_)
            | Self::Lamb(_)
            | Self::Muon(_)
            | Self::Lion(_) => None,
        }
    }

    /// Keys that have no effect, given the other keys, each with the reason.
    pub(super) fn idle(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Sgd(o) if o.bias_lr == 0.0 => ["bias_gamma", "bias_milestones"]
                .map(|key| (key, "needs bias_lr above 0".to_owned()))
                .to_vec(),
            Self::Sgd(o) if o.bias_milestones.is_empty() => {
                vec![("bias_gamma", "needs bias_milestones".to_owned())]
            }
            Self::Sgd(_)
            | Self::AdaGrad(_)
            | Self::Adam(_)
            | Self::AdamW(_)
            | Self::Lamb(_)
            | Self::Muon(_)
            | Self::Lion(_) => Vec::new(),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        nonnegative("optimizer.lr", self.lr())?;
        nonnegative("optimizer.weight_decay", self.weight_decay())?;
        if let Some(momentum) = self.momentum() {
            check(
                (0.0..1.0).contains(&momentum),
                "optimizer.momentum",
                format!("must be in [0, 1), got {momentum}"),
            )?;
        }
        if let Some(betas) = self.betas() {
            check_betas(betas.beta1, betas.beta2)?;
            let epsilon = in_f32(betas.epsilon);
            check(
                epsilon.is_finite() && epsilon > 0.0,
                "optimizer.epsilon",
                format!("must be finite and above 0 as f32, got {}", betas.epsilon),
            )?;
        }
        if let Self::Lion(o) = self {
            check_betas(o.beta1, o.beta2)?;
        }
        if let Self::Sgd(o) = self {
            nonnegative("optimizer.bias_lr", o.bias_lr)?;
            nonnegative("optimizer.bias_gamma", o.bias_gamma)?;
            rising("optimizer.bias_milestones", &o.bias_milestones)?;
        }
        Ok(())
    }
}

/// Checks that both are the decay of a running mean.
fn check_betas(beta1: f64, beta2: f64) -> Result<()> {
    for (key, value) in [("optimizer.beta1", beta1), ("optimizer.beta2", beta2)] {
        check(
            (0.0..1.0).contains(&in_f32(value)),
            key,
            format!("must be in [0, 1) as f32, got {value}"),
        )?;
    }
    Ok(())
}
