//! The numbers of a step as metrics of Burn's Learner, for its terminal interface and for lines of
//! progress.

use std::sync::Arc;

use burn::tensor::TensorReadError;
use burn::train::logger::MetricLogger;
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::store::{EpochSummary, MetricsUpdate, Split};
use burn::train::metric::{
    Adaptor, Metric, MetricAttributes, MetricDefinition, MetricMetadata, MetricName, Numeric,
    NumericAttributes, NumericEntry, SerializedEntry,
};

use super::step::Output;
use super::task::{LOSS, Task};
use crate::record::metrics::FILE;

/// The most gates that the terminal interface shows one by one.
const SHOWN_ALPHAS: usize = 32;

/// The short names of the learning rate and of the mean |α|.
const LR: &str = "lr";
const ALPHA: &str = "|alpha|";

/// Whether a line of progress shows the last value of this number instead of a mean.
pub(super) fn is_momentary(short: &str) -> bool {
    [LR, ALPHA].contains(&short)
}

/// One number of a step, averaged over the items of an epoch.
#[derive(Clone)]
pub(super) struct Number {
    name: MetricName,
    /// Its name in a line of progress, passed to the renderer as the metric's description. None if
    /// lines leave it out.
    short: Option<String>,
    sign: &'static str,
    higher_is_better: bool,
    of: Arc<dyn Fn(&Output) -> f64 + Send + Sync>,
    state: NumericMetricState,
}

/// The input of [`Number`].
pub(super) struct Seen(Output);

impl Adaptor<Seen> for Output {
    fn adapt(&self) -> Seen {
        Seen(self.clone())
    }
}

/// The numbers of both splits: the loss and the task's metrics.
pub(super) fn of_both(task: &Task) -> Vec<Number> {
    let mut all = vec![Number::new(LOSS.label, LOSS.short, |output| {
        output.totals.mean_loss()
    })];
    for metric in &task.metrics {
        let (of, times) = (metric.of, metric.shown_times);
        all.push(Number {
            sign: metric.sign.trim(),
            higher_is_better: metric.higher_is_better,
            ..Number::new(metric.label, metric.short, move |output| {
                times * of(&output.totals)
            })
        });
    }
    all
}

/// The numbers of training alone, of a model with that many `gates`.
pub(super) fn of_training(task: &Task, gates: usize) -> Vec<Number> {
    let items = task.items;
    let mut all = vec![
        Number::new("Learning rate", LR, |output| output.lr),
        Number::new("Gradient norm", "|g|", |output| output.grad_norm),
        Number::new(
            &format!("{items} per second"),
            &format!("{items}/s"),
            |output| output.items_per_s,
        ),
    ];
    if gates > 0 {
        all.push(Number::new("mean |alpha|", ALPHA, |output| {
            let sum: f64 = output.alphas.iter().map(|a| f64::from(a.abs())).sum();
            sum / output.alphas.len() as f64
        }));
    }
    if gates <= SHOWN_ALPHAS {
        all.extend((0..gates).map(|i| Number {
            // A line has no room for each gate. It shows their mean.
            short: None,
            ..Number::new(&format!("alpha {i:02}"), "", move |output| {
                output.alphas.get(i).map_or(f64::NAN, |a| f64::from(*a))
            })
        }));
    }
    all
}

impl Number {
    fn new(name: &str, short: &str, of: impl Fn(&Output) -> f64 + Send + Sync + 'static) -> Self {
        Self {
            name: Arc::new(name.to_owned()),
            short: Some(short.to_owned()),
            sign: "",
            higher_is_better: false,
            of: Arc::new(of),
            state: NumericMetricState::new(),
        }
    }

    fn format(&self) -> FormatOptions {
        let options = FormatOptions::new(self.name.clone()).precision(4);
        match self.sign {
            "" => options,
            sign => options.unit(sign),
        }
    }
}

impl Metric for Number {
    type Input = Seen;

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn description(&self) -> Option<String> {
        self.short.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: (!self.sign.is_empty()).then(|| self.sign.to_owned()),
            higher_is_better: self.higher_is_better,
        }
        .into()
    }

    fn update(
        &mut self,
        input: &Seen,
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        let value = (self.of)(&input.0);
        // The mean leaves out a number that was not measured, such as the speed of the first steps.
        if value.is_finite() {
            self.state.update(value, input.0.totals.items);
        }
        Ok(self.state.compute_update(self.format()))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.state.compute_final(self.format()))
    }

    fn clear(&mut self) {
        self.state.reset();
    }
}

impl Numeric for Number {
    fn value(&self) -> Option<NumericEntry> {
        Some(self.state.current_value())
    }

    fn running_value(&self) -> Option<NumericEntry> {
        Some(self.state.running_value())
    }

    fn final_value(&self) -> NumericEntry {
        self.state.final_value()
    }
}

/// Keeps Burn from writing a log file per metric and epoch: `metrics.jsonl` has every value.
pub(super) struct NoLog;

impl MetricLogger for NoLog {
    fn log(&mut self, _update: MetricsUpdate, _epoch: usize, _split: &Split) {}

    fn read_numeric(
        &mut self,
        name: &str,
        _epoch: usize,
        _split: &Split,
    ) -> Result<Vec<NumericEntry>, String> {
        Err(format!("{name} is in {FILE}"))
    }

    fn log_metric_definition(&mut self, _definition: MetricDefinition) {}

    fn log_epoch_summary(&mut self, _summary: EpochSummary) {}
}
