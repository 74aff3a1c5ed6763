//! Progress in plain lines with values, for logs and pipes. Burn's headless renderer prints none.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{MetricDefinition, MetricId, NumericEntry};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};

use super::shown;
use crate::say::say;
use crate::words;

/// The time between two lines of progress.
const INTERVAL: Duration = Duration::from_secs(5);

/// The extent of a run, and where it begins in this process.
#[derive(Debug)]
pub struct Extent {
    /// The step that this process begins at.
    pub first: usize,
    /// The run's last step.
    pub steps: usize,
    pub steps_per_epoch: usize,
    /// Rows (images or windows) in a step.
    pub rows_per_step: usize,
    /// Whether the run is one epoch, so that its progress is counted in steps.
    pub counts_steps: bool,
    /// Whether validation scores an average of the weights.
    pub averages: bool,
}

/// Prints a line every few seconds and at the end of each split. A line of training shows means since
/// the line before it; the line at the end of an epoch shows the epoch's means and says so.
#[derive(Debug)]
pub struct PlainRenderer {
    /// The metrics of a line, each with its short name.
    columns: Vec<(MetricId, String)>,
    /// Sum and number of items of each column since the last line.
    since: BTreeMap<usize, (f64, usize)>,
    /// The last value of the columns whose mean says little.
    latest: BTreeMap<usize, f64>,
    /// The mean of each column over the split that has just ended.
    whole: BTreeMap<usize, f64>,
    extent: Extent,
    epoch: usize,
    epochs: usize,
    is_train: bool,
    /// Items of the split that have been seen, and their number.
    done: usize,
    total: usize,
    /// Rows of this epoch that have been trained on.
    trained: usize,
    /// The time of the last line of training.
    last: Option<Instant>,
    /// The beginning of the split, or the time of its last line.
    said: Instant,
    /// The end of the first step, and that step. Kernels are compiled before it.
    clock: Option<(Instant, usize)>,
}

impl PlainRenderer {
    /// A renderer of a run.
    pub fn new(extent: Extent) -> Self {
        Self {
            columns: Vec::new(),
            since: BTreeMap::new(),
            latest: BTreeMap::new(),
            whole: BTreeMap::new(),
            epoch: extent.first / extent.steps_per_epoch + 1,
            trained: extent.first % extent.steps_per_epoch * extent.rows_per_step,
            extent,
            epochs: 0,
            is_train: true,
            done: 0,
            total: 0,
            last: None,
            said: Instant::now(),
            clock: None,
        }
    }

    fn update(&mut self, state: MetricState) {
        let MetricState::Numeric(entry, Some(value)) = state else {
            return;
        };
        let mut ids = self.columns.iter().map(|(id, _)| id);
        let Some(i) = ids.position(|id| *id == entry.metric_id) else {
            return;
        };
        let (value, items) = match value {
            NumericEntry::Final(value) => {
                self.whole.insert(i, value);
                return;
            }
            NumericEntry::Aggregated {
                aggregated_value,
                count,
            } => (aggregated_value, count),
            NumericEntry::Value(value) => (value, 1),
        };
        if !value.is_finite() || !self.is_train {
            return;
        }
        if shown::is_momentary(&self.columns[i].1) {
            self.latest.insert(i, value);
        } else {
            let (sum, n) = self.since.entry(i).or_default();
            *sum += value * items as f64;
            *n += items;
        }
    }

    /// Optimizer steps taken so far.
    fn step(&self) -> usize {
        let before = (self.epoch - 1) * self.extent.steps_per_epoch;
        before + self.trained.div_ceil(self.extent.rows_per_step)
    }

    /// The time that the rest of the run will take at the speed so far, validations included.
    fn left(&self) -> Option<Duration> {
        let (since, first) = self.clock?;
        let taken = self.step().checked_sub(first).filter(|n| *n > 0)?;
        let rest = self.extent.steps.saturating_sub(self.step());
        Some(since.elapsed().mul_f64(rest as f64 / taken as f64))
    }

    fn place(&self) -> String {
        match self.extent.counts_steps {
            true => format!("step {:>6}/{}", self.step(), self.extent.steps),
            false => format!("epoch {}/{}", self.epoch, self.epochs),
        }
    }

    fn place_of_valid(&self) -> String {
        let step = self.step();
        let what = match self.extent.averages {
            true => "valid of the average",
            false => "valid",
        };
        if self.extent.counts_steps {
            return format!("{} {what}", self.place());
        }
        // A resumed run may begin with the validation of the epoch before.
        let epoch = step.div_ceil(self.extent.steps_per_epoch);
        format!("epoch {epoch}/{} {what} at step {step}", self.epochs)
    }

    /// Prints a line of training, with `means`.
    fn print(&mut self, what: &str, means: BTreeMap<usize, f64>) {
        let mut values = means;
        values.extend(&self.latest);
        let left = self.left().filter(|_| self.step() < self.extent.steps);
        let left = left.map(|left| format!("  {} left", words::duration(left)));
        let (place, values) = (self.place(), self.joined(&values));
        say!("{place}{what}  {values}{}", left.unwrap_or_default());
        self.since.clear();
        self.last = Some(Instant::now());
    }

    fn print_since(&mut self) {
        let what = match self.extent.counts_steps {
            true => String::new(),
            false => format!(" train {:>6}/{}", self.done, self.total),
        };
        let means = self.since.iter().map(|(i, (sum, n))| (*i, sum / *n as f64));
        self.print(&what, means.collect());
    }

    fn joined(&self, values: &BTreeMap<usize, f64>) -> String {
        let values: Vec<String> = values
            .iter()
            .filter(|(_, value)| value.is_finite())
            .map(|(i, value)| format!("{} {}", self.columns[*i].1, digits(*value)))
            .collect();
        values.join("  ")
    }
}

/// Four significant digits.
fn digits(value: f64) -> String {
    let places = match value.abs() {
        v if v >= 1e6 => return format!("{value:.2e}"),
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        v if v >= 1.0 => 3,
        v if v >= 0.001 || v == 0.0 => 4,
        _ => return format!("{value:.2e}"),
    };
    format!("{value:.places$}")
}

impl MetricsRendererTraining for PlainRenderer {
    fn update_train(&mut self, state: MetricState) {
        self.update(state);
    }

    fn update_valid(&mut self, state: MetricState) {
        self.update(state);
    }
}

impl TrainingProgressLogger for PlainRenderer {
    fn start(
        &mut self,
        total_epochs: usize,
        _starting_epoch: usize,
        _total_items: Option<usize>,
        _label: Option<&str>,
    ) {
        // Burn always passes the first epoch as the starting epoch. A run may end before the last one.
        let Extent {
            steps,
            steps_per_epoch,
            ..
        } = self.extent;
        self.epochs = total_epochs.min(steps.div_ceil(steps_per_epoch));
    }

    fn update_epoch(&mut self, epoch: usize) {
        // At the beginning of a resumed run this is the epoch that it goes on in.
        if epoch + 1 != self.epoch {
            self.epoch = epoch + 1;
            self.trained = 0;
        }
    }

    fn start_split(&mut self, split: &str, total_items: usize) {
        self.is_train = split.eq_ignore_ascii_case("train");
        self.total = total_items;
        self.done = 0;
        self.said = Instant::now();
        self.whole.clear();
    }

    fn update_split(&mut self, items_processed: usize) {
        self.done = items_processed;
        if !self.is_train {
            if self.said.elapsed() >= INTERVAL {
                say!("{} {:>6}/{}", self.place_of_valid(), self.done, self.total);
                self.said = Instant::now();
            }
            return;
        }
        let due = self.last.is_none_or(|last| last.elapsed() >= INTERVAL);
        self.trained = items_processed;
        let step = self.step();
        self.clock.get_or_insert_with(|| (Instant::now(), step));
        if due {
            self.print_since();
        }
    }

    fn end_split(&mut self) {
        // The mean of every metric over the split has just arrived.
        let means = std::mem::take(&mut self.whole);
        if !self.is_train {
            say!("{}  {}", self.place_of_valid(), self.joined(&means));
            return;
        }
        let is_whole = self.done == self.total && !self.extent.counts_steps;
        let first = self.extent.first;
        if is_whole {
            let Extent {
                steps_per_epoch, ..
            } = self.extent;
            let resumed =
                first / steps_per_epoch + 1 == self.epoch && !first.is_multiple_of(steps_per_epoch);
            let what = match resumed {
                true => format!(" mean since step {first}"),
                false => " mean".to_owned(),
            };
            self.print(&what, means);
        } else if !self.since.is_empty() {
            self.print_since();
        }
    }

    fn end(&mut self) {}

    fn log_event_training(&mut self, _event: String) {}
}

impl EvaluationProgressLogger for PlainRenderer {
    fn start_global_progress(&mut self, _total_tests: usize) {}
    fn start_test(&mut self, _name: &str, _total_items: usize) {}
    fn update_test_progress(&mut self, _items_processed: usize) {}
    fn end_test(&mut self) {}
    fn end_global_progress(&mut self) {}
    fn log_event_evaluation(&mut self, _event: String) {}
}

impl MetricsRendererEvaluation for PlainRenderer {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl MetricsRenderer for PlainRenderer {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        // The description of our metrics is their short name.
        if let Some(head) = definition.description {
            self.columns.push((definition.metric_id, head));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted_over_epochs_and_the_rest_of_the_run_is_timed() {
        let extent = Extent {
            first: 12,
            steps: 40,
            steps_per_epoch: 10,
            rows_per_step: 8,
            counts_steps: false,
            averages: false,
        };
        let mut lines = PlainRenderer::new(extent);
        assert_eq!((lines.epoch, lines.step()), (2, 12));
        lines.start(4, 1, None, None);
        lines.start_split("Train", 78);
        assert_eq!(lines.step(), 12);
        lines.update_split(24);
        assert_eq!((lines.step(), lines.left()), (13, None));
        lines.clock = Some((Instant::now() - Duration::from_secs(10), 13));
        // The last batch of an epoch may be smaller.
        lines.update_split(78);
        assert_eq!(lines.step(), 20);
        let left = lines.left().map(|left| left.as_secs_f64().round());
        assert_eq!(left, Some(29.0));
        lines.update_epoch(2);
        assert_eq!((lines.epoch, lines.step()), (3, 20));
    }
}
