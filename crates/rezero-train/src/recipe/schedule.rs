//! `[schedule]`: how learning rates change over a run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{check, nonnegative, rising};
use crate::error::Result;

/// The schedule of the learning rate; each kind has keys of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Schedule {
    /// The learning rate is constant, after a warm-up if one is set.
    Constant(Constant),
    /// The learning rate is multiplied by gamma at each epoch in milestones, after a warm-up if one
    /// is set.
    MultiStep(MultiStep),
    /// The learning rate goes in straight lines over the whole run: lr_start at the start,
    /// optimizer.lr at peak_at, lr_low at low_at, lr_end at the end. The momentum of SGD or Muon goes from
    /// optimizer.momentum down to momentum_low at peak_at, and back up until low_at. The name and
    /// the idea are Smith and Topin's, arXiv 1708.07120.
    OneCycle(OneCycle),
    /// After the warm-up, if one is set, the learning rate falls along half a cosine wave from
    /// optimizer.lr to lr_end at the end of the run: Loshchilov and Hutter, arXiv 1608.03983.
    Cosine(Decay),
    /// After the warm-up, if one is set, the learning rate falls in a straight line from optimizer.lr
    /// to lr_end at the end of the run.
    Linear(Decay),
}

/// The keys of `kind = "constant"`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Constant {
    /// Steps of a linear warm-up: with n of them, step k (from 1) has k / n of the learning rate.
    /// 0: warmup_epochs decides.
    pub warmup_steps: usize,
    /// The same in epochs, which may be a fraction, such as 0.5; 0: no warm-up.
    pub warmup_epochs: f64,
}

/// The keys of `kind = "multi-step"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MultiStep {
    /// Epochs, counted from 0, at whose beginning the learning rate is multiplied by gamma; rising.
    pub milestones: Vec<usize>,
    /// The factor γ of the learning rate at each of milestones: once k of them have passed, the
    /// rate is optimizer.lr · γᵏ.
    pub gamma: f64,
    /// Steps of a linear warm-up: with n of them, step k (from 1) has k / n of the learning rate.
    /// 0: warmup_epochs decides.
    pub warmup_steps: usize,
    /// The same in epochs, which may be a fraction, such as 0.5; 0: no warm-up.
    pub warmup_epochs: f64,
}

/// The keys of `kind = "one-cycle"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OneCycle {
    /// Learning rate at the first step; it rises in a straight line to optimizer.lr at peak_at.
    pub lr_start: f64,
    /// Learning rate at low_at; it falls to it in a straight line from optimizer.lr at peak_at.
    pub lr_low: f64,
    /// Learning rate at the end of the run, to which it goes in a straight line from lr_low at
    /// low_at; it has an effect if low_at is below 1.
    pub lr_end: f64,
    /// Where the learning rate is highest, optimizer.lr: a share of the run, above 0 and below
    /// low_at; 0.3 is after 30 % of the steps.
    pub peak_at: f64,
    /// Where the learning rate has fallen to lr_low: a share of the run above peak_at, up to 1,
    /// with which the run ends at lr_low.
    pub low_at: f64,
    /// Momentum of SGD or Muon at peak_at, where the learning rate is highest. At the start and from low_at
    /// on, it is optimizer.momentum.
    pub momentum_low: f64,
}

/// The keys of `kind = "cosine"` and `kind = "linear"`.
///
/// With n steps of warm-up in a run of N steps, step k (from 0) has the rate
/// `lr_end + (lr − lr_end) · f((k − n) / (N − n))` from step n on, where `f(t)` is `(1 + cos πt) / 2` or
/// `1 − t`, as PyTorch's `CosineAnnealingLR` and `LinearLR` after a `LinearLR` of n − 1 steps from 1/n.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Decay {
    /// Learning rate at the end of the run, where the decay from optimizer.lr ends; the last step
    /// comes right before it.
    pub lr_end: f64,
    /// Steps of a linear warm-up: with n of them, step k (from 1) has k / n of the learning rate.
    /// 0: warmup_epochs decides.
    pub warmup_steps: usize,
    /// The same in epochs, which may be a fraction, such as 0.5; 0: no warm-up.
    pub warmup_epochs: f64,
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

/// Where a step stands in its run.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The step, from 0.
    pub step: usize,
    /// Steps in an epoch.
    pub steps_per_epoch: usize,
    /// Steps in the whole run.
    pub span: usize,
}

impl Moment {
    /// How many of the epochs in `milestones` have begun.
    fn passed(&self, milestones: &[usize]) -> i32 {
        let epoch = self.step / self.steps_per_epoch;
        milestones.iter().filter(|m| **m <= epoch).count() as i32
    }

    /// The share of the run after its first `warmup` steps that is over.
    fn since(&self, warmup: f64) -> f64 {
        let (step, span) = (self.step as f64, self.span as f64);
        if step <= warmup {
            return 0.0;
        }
        ((step - warmup) / (span - warmup)).min(1.0)
    }
}

impl Schedule {
    /// The learning rate and the momentum at a step; `lr` and `momentum` are the optimizer's.
    pub fn at(&self, moment: Moment, lr: f64, momentum: f64) -> (f64, f64) {
        match self {
            Self::Constant(_) => (lr * self.warmth(moment), momentum),
            Self::MultiStep(s) => {
                let drops = s.gamma.powi(moment.passed(&s.milestones));
                (lr * drops * self.warmth(moment), momentum)
            }
            Self::OneCycle(s) => {
                let t = moment.step as f64 / moment.span as f64;
                let lrs = [
                    (0.0, s.lr_start),
                    (s.peak_at, lr),
                    (s.low_at, s.lr_low),
                    (1.0, s.lr_end),
                ];
                let momenta = [
                    (0.0, momentum),
                    (s.peak_at, s.momentum_low),
                    (s.low_at, momentum),
                ];
                (piecewise(t, &lrs), piecewise(t, &momenta))
            }
            Self::Cosine(s) => {
                let t = moment.since(self.warmup_steps(moment.steps_per_epoch));
                let left = (1.0 + (std::f64::consts::PI * t).cos()) / 2.0;
                let lr = s.lr_end + (lr - s.lr_end) * left;
                (lr * self.warmth(moment), momentum)
            }
            Self::Linear(s) => {
                let t = moment.since(self.warmup_steps(moment.steps_per_epoch));
                let lr = s.lr_end + (lr - s.lr_end) * (1.0 - t);
                (lr * self.warmth(moment), momentum)
            }
        }
    }

    /// Linear from 1/n at the first of n warm-up steps to 1 at the last.
    fn warmth(&self, moment: Moment) -> f64 {
        match self.warmup_steps(moment.steps_per_epoch) {
            0.0 => 1.0,
            steps => ((moment.step + 1) as f64 / steps).min(1.0),
        }
    }

    /// The length of the warm-up in steps, which may be a fraction; 0: none.
    fn warmup_steps(&self, steps_per_epoch: usize) -> f64 {
        let steps = match self.warmup() {
            (0, epochs) => epochs * steps_per_epoch as f64,
            (steps, _) => steps as f64,
        };
        if steps < 1.0 { 0.0 } else { steps }
    }

    /// Checks that a run of `span` steps is long enough for the schedule.
    ///
    /// # Errors
    ///
    /// If the learning rate should fall after the warm-up, and the run ends before.
    pub(crate) fn must_fit(&self, steps_per_epoch: usize, span: usize) -> Result<()> {
        let steps = self.warmup_steps(steps_per_epoch);
        let key = match self.warmup() {
            (0, _) => "schedule.warmup_epochs",
            _ => "schedule.warmup_steps",
        };
        check(
            !self.spans_the_run() || steps < span as f64,
            key,
            format!(
                "is {steps} steps, where the whole run has {span}, so that the learning rate would never \
                 fall; shorten it ({}=0 is none), or choose schedule=constant",
                key.trim_start_matches("schedule.")
            ),
        )
    }

    /// Its name in a recipe.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Constant(_) => "constant",
            Self::MultiStep(_) => "multi-step",
            Self::OneCycle(_) => "one-cycle",
            Self::Cosine(_) => "cosine",
            Self::Linear(_) => "linear",
        }
    }

    /// Whether the learning rate of a step depends on the length of the run. Such a run cannot be
    /// made longer.
    pub fn spans_the_run(&self) -> bool {
        match self {
            Self::Constant(_) | Self::MultiStep(_) => false,
            Self::OneCycle(_) | Self::Cosine(_) | Self::Linear(_) => true,
        }
    }

    /// Whether it has keys for a warm-up, and none is set.
    pub fn may_warm_up(&self) -> bool {
        !matches!(self, Self::OneCycle(_)) && self.warmup() == (0, 0.0)
    }

    /// Whether it changes the momentum.
    pub fn cycles_momentum(&self) -> bool {
        match self {
            Self::Constant(_) | Self::MultiStep(_) | Self::Cosine(_) | Self::Linear(_) => false,
            Self::OneCycle(_) => true,
        }
    }

    /// Whether it counts in epochs, by its milestones or its warm-up.
    pub fn counts_epochs(&self) -> bool {
        match self {
            Self::Constant(_) | Self::OneCycle(_) | Self::Cosine(_) | Self::Linear(_) => {
                self.warmup().1 > 0.0
            }
            Self::MultiStep(_) => true,
        }
    }

    /// Warm-up in steps and in epochs.
    fn warmup(&self) -> (usize, f64) {
        match self {
            Self::Constant(s) => (s.warmup_steps, s.warmup_epochs),
            Self::MultiStep(s) => (s.warmup_steps, s.warmup_epochs),
            Self::Cosine(s) | Self::Linear(s) => (s.warmup_steps, s.warmup_epochs),
            Self::OneCycle(_) => (0, 0.0),
        }
    }

    /// Keys that have no effect, given the other keys, each with the reason.
    pub(super) fn idle(&self) -> Vec<(&'static str, String)> {
        let mut idle = match self.warmup() {
            (0, _) => Vec::new(),
            (steps, _) => vec![("warmup_epochs", format!("warmup_steps={steps} decides"))],
        };
        if let Self::OneCycle(s) = self
            && s.low_at >= 1.0
        {
            idle.push(("lr_end", "the run ends at lr_low where low_at=1".to_owned()));
        }
        idle
    }

    pub(super) fn check(&self) -> Result<()> {
        nonnegative("schedule.warmup_epochs", self.warmup().1)?;
        match self {
            Self::Constant(_) => Ok(()),
            Self::Cosine(s) | Self::Linear(s) => nonnegative("schedule.lr_end", s.lr_end),
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

/// The value at `t` of the piecewise linear function through `points`, constant beyond its ends.
fn piecewise(t: f64, points: &[(f64, f64)]) -> f64 {
    for pair in points.windows(2) {
        let ((t0, y0), (t1, y1)) = (pair[0], pair[1]);
        if t < t1 {
            return y0 + (y1 - y0) * ((t - t0) / (t1 - t0)).max(0.0);
        }
    }
    points.last().map_or(0.0, |p| p.1)
}
