//! `[schedule]`: how learning rates move over a run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{check, nonnegative, rising};
use crate::error::Result;

/// The course of the learning rate; each kind has keys of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Schedule {
    /// Fixed, after a warm-up.
    Constant(Constant),
    /// Multiplied by gamma at each epoch in milestones, after a warm-up.
    MultiStep(MultiStep),
    /// From lr_start to optimizer.lr, to lr_low, to lr_end: linear pieces over the whole run. The
    /// momentum of SGD runs the other way.
    OneCycle(OneCycle),
}

/// The keys of `kind = "constant"`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Constant {
    /// Steps of linear warm-up from 0; 0: as warmup_epochs says.
    pub warmup_steps: usize,
    /// Epochs of linear warm-up from 0; fractions are allowed.
    pub warmup_epochs: f64,
}

/// The keys of `kind = "multi-step"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MultiStep {
    /// Epochs at which the learning rate drops.
    pub milestones: Vec<usize>,
    /// Factor at each milestone.
    pub gamma: f64,
    /// Steps of linear warm-up from 0; 0: as warmup_epochs says.
    pub warmup_steps: usize,
    /// Epochs of linear warm-up from 0; fractions are allowed.
    pub warmup_epochs: f64,
}

/// The keys of `kind = "one-cycle"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OneCycle {
    /// Learning rate at step 0.
    pub lr_start: f64,
    /// Learning rate where the last phase begins.
    pub lr_low: f64,
    /// Learning rate at the end.
    pub lr_end: f64,
    /// Share of the run at which the learning rate is at its peak, optimizer.lr.
    pub peak_at: f64,
    /// Share of the run at which the learning rate has come down to lr_low.
    pub low_at: f64,
    /// Momentum at the peak of the learning rate; optimizer.momentum at the start and from low_at on.
    pub momentum_low: f64,
}

impl Default for MultiStep {
    fn default() -> Self {
        Self {
            milestones: vec![100, 150],
            gamma: 0.1,
            warmup_steps: 0,
            warmup_epochs: 0.0,
        }
    }
}

impl Default for OneCycle {
    fn default() -> Self {
        Self {
            lr_start: 0.0,
            lr_low: 0.0,
            lr_end: 0.0,
            peak_at: 0.3,
            low_at: 1.0,
            momentum_low: 0.85,
        }
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Constant(Constant::default())
    }
}

impl Schedule {
    /// Whether the rate of a step depends on how long the run is, so that a run cannot be made
    /// longer.
    pub fn spans_the_run(&self) -> bool {
        match self {
            Self::Constant(_) | Self::MultiStep(_) => false,
            Self::OneCycle(_) => true,
        }
    }

    /// Whether it moves the momentum of SGD.
    pub fn cycles_momentum(&self) -> bool {
        match self {
            Self::Constant(_) | Self::MultiStep(_) => false,
            Self::OneCycle(_) => true,
        }
    }

    /// Whether it counts in epochs.
    pub fn counts_epochs(&self) -> bool {
        match self {
            Self::Constant(_) | Self::OneCycle(_) => false,
            Self::MultiStep(_) => true,
        }
    }

    /// Warm-up in steps and in epochs.
    pub(crate) fn warmup(&self) -> (usize, f64) {
        match self {
            Self::Constant(s) => (s.warmup_steps, s.warmup_epochs),
            Self::MultiStep(s) => (s.warmup_steps, s.warmup_epochs),
            Self::OneCycle(_) => (0, 0.0),
        }
    }

    /// Keys that have no effect beside the others, each with the reason.
    pub(super) fn idle(&self) -> Vec<(&'static str, String)> {
        match self.warmup() {
            (0, _) => Vec::new(),
            (steps, _) => vec![("warmup_epochs", format!("warmup_steps={steps} decides"))],
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        nonnegative("schedule.warmup_epochs", self.warmup().1)?;
        match self {
            Self::Constant(_) => Ok(()),
            Self::MultiStep(s) => {
                nonnegative("schedule.gamma", s.gamma)?;
                rising("schedule.milestones", &s.milestones)
            }
            Self::OneCycle(s) => {
                nonnegative("schedule.lr_start", s.lr_start)?;
                nonnegative("schedule.lr_low", s.lr_low)?;
                nonnegative("schedule.lr_end", s.lr_end)?;
                check(
                    (0.0..1.0).contains(&s.momentum_low),
                    "schedule.momentum_low",
                    format!("must be in [0, 1), got {}", s.momentum_low),
                )?;
                check(
                    0.0 < s.peak_at && s.peak_at < s.low_at && s.low_at <= 1.0,
                    "schedule.peak_at",
                    format!(
                        "needs 0 < peak_at < low_at <= 1, got peak_at={} low_at={}",
                        s.peak_at, s.low_at
                    ),
                )
            }
        }
    }
}
