//! Tasks: the name of the items, and the metrics.

use std::collections::BTreeMap;

use super::strategy::Finished;
use crate::recipe::Run;
use crate::record::{Described, Score, Totals};

/// The task of a model: the name of its items, and the metrics that are computed from its sums. The
/// first metric decides which checkpoint is the best.
#[derive(Clone, Debug)]
pub struct Task {
    /// The name of the items, such as `images` or `bytes`.
    pub items: &'static str,
    /// The unit of the loss, such as `nats`; empty for a number without a unit.
    pub loss_unit: &'static str,
    /// The metrics beside the loss. The first metric decides which checkpoint is the best; if there
    /// is none, the loss decides.
    pub metrics: Vec<Metric>,
}

/// A number that is computed from the sums of a batch or of a split.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Its name in `metrics.jsonl`.
    pub key: &'static str,
    /// Its name in figures and in the terminal interface.
    pub label: &'static str,
    /// Its name in a line of progress.
    pub short: &'static str,
    /// The factor for display: 100 for percent.
    pub shown_times: f64,
    /// The sign after the displayed value.
    pub sign: &'static str,
    /// Whether the sign is also the name: `3.2 bpb` needs no other word.
    pub sign_is_name: bool,
    /// Digits after the point in tables.
    pub digits: usize,
    /// Whether a higher value is better.
    pub higher_is_better: bool,
    /// Computes the metric.
    pub of: fn(&Totals) -> f64,
}

impl Metric {
    /// Whether `score` is better than `other`, or equal with a lower loss.
    pub fn better(&self, score: &Score, other: &Score) -> bool {
        let better = match self.higher_is_better {
            true => score.measure > other.measure,
            false => score.measure < other.measure,
        };
        better || (score.measure == other.measure && score.loss < other.loss)
    }

    /// Whether `score` is at least as good as `target`, which is a value as displayed: 90 for 90 %.
    pub fn reaches(&self, score: &Score, target: f64) -> bool {
        let shown = score.measure * self.shown_times;
        match self.higher_is_better {
            true => shown >= target,
            false => shown <= target,
        }
    }

    /// `value` as displayed, with its name.
    pub fn text(&self, value: f64) -> String {
        let digits = self.digits + 1;
        let shown = format!("{:.digits$}{}", self.shown_times * value, self.sign);
        match self.sign_is_name {
            true => shown,
            false => format!("{} {shown}", self.key),
        }
    }
}

/// Converts nats to bits.
pub fn bits(nats: f64) -> f64 {
    nats / std::f64::consts::LN_2
}

/// The share of items that are classified correctly.
pub const ACCURACY: Metric = Metric {
    key: "accuracy",
    label: "Accuracy",
    short: "acc%",
    shown_times: 100.0,
    sign: " %",
    sign_is_name: false,
    digits: 1,
    higher_is_better: true,
    of: |totals| totals.mean("correct"),
};

/// The cross-entropy in bits per byte.
pub const BITS_PER_BYTE: Metric = Metric {
    key: "bpb",
    label: "Bits per byte",
    short: "bpb",
    shown_times: 1.0,
    sign: " bpb",
    sign_is_name: true,
    digits: 3,
    higher_is_better: false,
    of: |totals| bits(totals.mean_loss()),
};

/// The mean loss, for tasks without another metric.
pub const LOSS: Metric = Metric {
    key: "loss",
    label: "Loss",
    short: "loss",
    shown_times: 1.0,
    sign: "",
    sign_is_name: false,
    digits: 4,
    higher_is_better: false,
    of: Totals::mean_loss,
};

impl Task {
    /// A task that is measured by its loss. `items` is the name of the items.
    pub fn new(items: &'static str) -> Self {
        Self {
            items,
            loss_unit: "",
            metrics: Vec::new(),
        }
    }

    /// Adds a metric. The first metric decides which checkpoint is the best.
    #[must_use]
    pub fn with(mut self, metric: Metric) -> Self {
        self.metrics.push(metric);
        self
    }

    /// Sets the unit of the loss.
    #[must_use]
    pub fn with_loss_unit(self, loss_unit: &'static str) -> Self {
        Self { loss_unit, ..self }
    }

    /// A task that is measured by the share of `items` that are classified correctly, see
    /// [`Sums::of_logits`](super::Sums::of_logits).
    pub fn classification(items: &'static str) -> Self {
        Self::new(items).with_loss_unit("nats").with(ACCURACY)
    }

    /// The metric that decides which checkpoint is the best.
    pub fn measure(&self) -> &Metric {
        self.metrics.first().unwrap_or(&LOSS)
    }

    /// The task as a run records it.
    pub fn described(&self) -> Described {
        let measure = self.measure();
        Described {
            items: self.items.to_owned(),
            loss_unit: self.loss_unit.to_owned(),
            key: measure.key.to_owned(),
            label: measure.label.to_owned(),
            shown_times: measure.shown_times,
            sign: measure.sign.to_owned(),
            digits: measure.digits,
            higher_is_better: measure.higher_is_better,
        }
    }

    /// The result of a run in one line.
    pub(crate) fn summary(&self, run: &Run, finished: &Finished) -> String {
        let (measure, state, target) = (self.measure(), &finished.state, run.target);
        let mut text = format!("{} steps", state.step);
        if finished.replayed > 0 {
            text.push_str(&format!(
                ", {} of them replays of a captured step",
                finished.replayed
            ));
        }
        if let (Some(last), Some(best)) = (&state.valid, &state.best) {
            text.push_str(&format!(
                ", validation {}, best {} at step {}",
                measure.text(last.measure),
                measure.text(best.measure),
                best.step
            ));
        }
        if target > 0.0 {
            let (sign, word) = match measure.higher_is_better {
                true => (measure.sign, "at least"),
                false => (measure.sign, "at most"),
            };
            text.push_str(&match state.reached.map(|reached| reached.step) {
                Some(step) => format!(", {word} {target}{sign} first at step {step}"),
                None => format!(", {target}{sign} was not reached"),
            });
        }
        if finished.early {
            text.push_str(&format!(
                ", stopped early: {} validations without a better one (patience={})",
                state.stale, run.patience
            ));
        }
        text
    }

    pub(crate) fn values(&self, totals: &Totals) -> BTreeMap<String, f64> {
        let values = self.metrics.iter();
        values
            .map(|metric| (metric.key.to_owned(), (metric.of)(totals)))
            // JSON has finite numbers only.
            .filter(|(_, value)| value.is_finite())
            .collect()
    }
}
