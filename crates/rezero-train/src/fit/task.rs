//! What a task calls its items and how it measures a model.

use std::collections::BTreeMap;

use crate::record::{Described, Score, State, Totals};

/// What a model is asked for: the name of its items, and the metrics that its sums make, the first of
/// which decides which checkpoint is the best.
#[derive(Clone, Debug)]
pub struct Task {
    /// What is counted: `images`, `bytes`.
    pub items: &'static str,
    /// What the loss is measured in, `nats`; empty for a number without a unit.
    pub loss_unit: &'static str,
    /// What is measured, beside the loss; the first decides. Without one, the loss does.
    pub metrics: Vec<Metric>,
}

/// A number made of a batch's or a split's sums.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Its name in `metrics.jsonl`.
    pub key: &'static str,
    /// Its name in figures and in the terminal interface.
    pub label: &'static str,
    /// Its name in a line of progress.
    pub short: &'static str,
    /// What it is multiplied by to be shown: 100 for percent.
    pub shown_times: f64,
    /// The sign behind it, where it is shown.
    pub sign: &'static str,
    /// Whether the sign is its name: `3.2 bpb` needs no other word.
    pub sign_is_name: bool,
    /// Digits after the point in tables.
    pub digits: usize,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// How it is computed.
    pub of: fn(&Totals) -> f64,
}

impl Metric {
    /// Whether `score` is better than `other`, or as good at a lower loss.
    pub fn better(&self, score: &Score, other: &Score) -> bool {
        let better = match self.higher_is_better {
            true => score.measure > other.measure,
            false => score.measure < other.measure,
        };
        better || (score.measure == other.measure && score.loss < other.loss)
    }

    /// Whether `score` is at least as good as `target`, which is given as values are shown.
    pub fn reaches(&self, score: &Score, target: f64) -> bool {
        let shown = score.measure * self.shown_times;
        match self.higher_is_better {
            true => shown >= target,
            false => shown <= target,
        }
    }

    /// A value as it is shown, with its name.
    pub fn text(&self, value: f64) -> String {
        let digits = self.digits + 1;
        let shown = format!("{:.digits$}{}", self.shown_times * value, self.sign);
        match self.sign_is_name {
            true => shown,
            false => format!("{} {shown}", self.key),
        }
    }
}

/// Nats as bits.
pub fn bits(nats: f64) -> f64 {
    nats / std::f64::consts::LN_2
}

/// The share of items that are predicted correctly.
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

/// The mean loss, for tasks that have no other measure.
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
    /// A task that is measured by its loss; `items` is what is counted.
    pub fn new(items: &'static str) -> Self {
        Self {
            items,
            loss_unit: "",
            metrics: Vec::new(),
        }
    }

    /// Adds a metric; the first that is added decides which checkpoint is the best.
    #[must_use]
    pub fn with(mut self, metric: Metric) -> Self {
        self.metrics.push(metric);
        self
    }

    /// Names what the loss is measured in.
    #[must_use]
    pub fn with_loss_unit(self, loss_unit: &'static str) -> Self {
        Self { loss_unit, ..self }
    }

    /// A task that is measured by the share of `items` that are classified correctly, see
    /// [`Sums::of_logits`](super::Sums::of_logits).
    pub fn classification(items: &'static str) -> Self {
        Self::new(items).with_loss_unit("nats").with(ACCURACY)
    }

    /// The metric that decides.
    pub fn measure(&self) -> &Metric {
        self.metrics.first().unwrap_or(&LOSS)
    }

    /// What a run records of it.
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

    /// The end of a run in a line; `target` is `run.target`.
    pub(crate) fn summary(&self, target: f64, state: &State) -> String {
        let measure = self.measure();
        let mut text = format!("{} steps", state.step);
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
        text
    }

    pub(crate) fn values(&self, totals: &Totals) -> BTreeMap<String, f64> {
        let values = self.metrics.iter();
        values
            .map(|metric| (metric.key.to_owned(), (metric.of)(totals)))
            // JSON has no other numbers.
            .filter(|(_, value)| value.is_finite())
            .collect()
    }
}
