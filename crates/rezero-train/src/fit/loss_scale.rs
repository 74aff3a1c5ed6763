//! The factor of the loss in half precision.

use serde::{Deserialize, Serialize};

/// A factor for the loss that is as large as gradients in half precision can bear: Micikevicius et al.,
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
    /// After a step whose gradients were finite, or were not.
    pub fn next(self, finite: bool) -> Self {
        let (factor, steps) = match (finite, self.steps + 1) {
            (false, _) => (self.factor / 2.0, 0),
            (true, 2_000) => (self.factor * 2.0, 0),
            (true, steps) => (self.factor, steps),
        };
        Self { factor, steps }
    }

    /// Whether gradients that are not finite can be the factor's fault.
    pub fn can_fall(self) -> bool {
        self.factor > 1.0
    }
}
