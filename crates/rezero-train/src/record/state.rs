//! The state of a run, in numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// More steps than any run takes, also after it was grown: twice the most that a recipe may ask for.
pub(super) const MOST_STEPS: u64 = 1 << 41;
/// More items than any run sees, and exact as f64.
const MOST_ITEMS: u64 = 1 << 53;

/// The state of a run, beside its tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Optimizer steps taken.
    pub step: usize,
    /// How many bytes of `metrics.jsonl` belong to these steps.
    pub metrics_bytes: u64,
    /// SHA-256 of the recipe without `[run]`.
    pub recipe: String,
    /// SHA-256 of the training and the validation data.
    pub data: String,
    /// Sums since the last row of `metrics.jsonl`.
    pub since: Totals,
    /// The latest validation.
    pub valid: Option<Score>,
    /// The best validation.
    pub best: Option<Score>,
    /// Validations since the best.
    #[serde(default)]
    pub stale: usize,
    /// The first validation that reached `run.target`.
    pub reached: Option<Reached>,
    /// The loss scale, with `train.dtype = "f16"`.
    pub loss_scale: Option<LossScale>,
}

/// A target that a validation reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reached {
    /// The value of `run.target`.
    pub target: f64,
    /// The step of the validation.
    pub step: usize,
}

/// Sums over items: of a batch, since the last row, or of a whole split.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// The number of items.
    pub items: usize,
    /// The sum of their losses.
    pub loss: f64,
    /// Other sums by name.
    pub named: BTreeMap<String, f64>,
}

impl State {
    /// Checks that the loop can count on from these numbers.
    ///
    /// # Errors
    ///
    /// The number that no run has.
    pub(super) fn check(&self) -> Result<(), String> {
        let steps = [&self.valid, &self.best].into_iter().flatten();
        let steps = steps.map(|score| score.step).chain([self.step]);
        if let Some(step) = steps.into_iter().find(|step| *step as u64 > MOST_STEPS) {
            return Err(format!("no run has {step} steps"));
        }
        if self.since.items as u64 > MOST_ITEMS {
            return Err(format!(
                "no run sees {} items between two rows",
                self.since.items
            ));
        }
        if self.stale > self.step {
            return Err(format!(
                "{} validations without a better one in {} steps",
                self.stale, self.step
            ));
        }
        match &self.loss_scale {
            // JSON has no NaN.
            Some(scale) if scale.factor <= 0.0 || scale.steps as u64 > MOST_STEPS => {
                Err(format!("its loss scale is {scale:?}"))
            }
            _ => Ok(()),
        }
    }
}

impl Totals {
    /// The mean loss.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.items as f64
    }

    /// The sum of that name per item; NaN if there is none.
    pub fn mean(&self, name: &str) -> f64 {
        let sum = self.named.get(name).copied().unwrap_or(f64::NAN);
        sum / self.items as f64
    }

    /// Adds the sums of other items.
    pub fn add(&mut self, other: &Self) {
        self.items += other.items;
        self.loss += other.loss;
        for (name, sum) in &other.named {
            *self.named.entry(name.clone()).or_default() += sum;
        }
    }
}

/// A validation result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The step it was taken at.
    pub step: usize,
    /// The mean loss.
    pub loss: f64,
    /// The task's measure.
    pub measure: f64,
}

/// A factor of the loss that is as large as gradients in half precision allow: Micikevicius et al.,
/// [arXiv 1710.03740](https://arxiv.org/abs/1710.03740), section 3.2, with PyTorch's constants.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    /// The factor.
    pub factor: f64,
    /// Steps since it was changed.
    pub steps: usize,
}

impl Default for LossScale {
    fn default() -> Self {
        Self {
            factor: 65_536.0,
            steps: 0,
        }
    }
}

impl LossScale {
    /// The scale after a step whose gradients were `finite`, or were not.
    pub fn next(self, finite: bool) -> Self {
        let (factor, steps) = match (finite, self.steps + 1) {
            (false, _) => (self.factor / 2.0, 0),
            (true, 2_000) => (self.factor * 2.0, 0),
            (true, steps) => (self.factor, steps),
        };
        Self { factor, steps }
    }

    /// Whether the factor can be the cause of gradients that are not finite.
    pub fn can_fall(self) -> bool {
        self.factor > 1.0
    }
}
