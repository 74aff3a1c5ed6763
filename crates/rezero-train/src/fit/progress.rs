//! Progress in plain lines with values, for logs and pipes. Burn's headless renderer prints none.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{MetricDefinition, MetricId};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};

/// The time between two lines of training progress.
const INTERVAL: Duration = Duration::from_secs(5);

/// Prints a line every few seconds and one at the end of each split.
#[derive(Debug)]
pub struct PlainRenderer {
    /// The metrics of a line, each with its short name.
    columns: Vec<(MetricId, String)>,
    latest: BTreeMap<usize, f64>,
    epoch: usize,
    epochs: usize,
    split: String,
    done: usize,
    total: usize,
    /// Rows per step, if the run is one epoch that is counted in steps.
    rows: Option<usize>,
    last: Option<Instant>,
}

impl PlainRenderer {
    /// A renderer whose next epoch is `epoch`, counted from 1. If the run is counted in steps, each
    /// step has `rows` rows.
    pub fn new(epoch: usize, rows: Option<usize>) -> Self {
        Self {
            columns: Vec::new(),
            latest: BTreeMap::new(),
            epoch,
            epochs: 0,
            split: String::new(),
            done: 0,
            total: 0,
            rows,
            last: None,
        }
    }

    fn update(&mut self, state: MetricState) {
        if let MetricState::Numeric(entry, Some(value)) = state
            && let Some(i) = self
                .columns
                .iter()
                .position(|(id, _)| *id == entry.metric_id)
        {
            self.latest.insert(i, value.current());
        }
    }

    fn print(&self) {
        let values: Vec<String> = self
            .latest
            .iter()
            .filter(|(_, value)| value.is_finite())
            .map(|(i, value)| format!("{} {}", self.columns[*i].1, digits(*value)))
            .collect();
        // Progress goes to standard error, where it does not mix with results. A closed pipe must
        // not end a run.
        let place = match (self.rows, self.split.as_str()) {
            (Some(n), "train") => format!("step  {:>6}/{}", self.done / n, self.total / n),
            (Some(_), split) => format!("{split} {:>6}/{}", self.done, self.total),
            (None, split) => format!(
                "epoch {}/{} {split:5} {:>6}/{}",
                self.epoch, self.epochs, self.done, self.total
            ),
        };
        let _ = writeln!(std::io::stderr(), "{place}  {}", values.join("  "));
    }
}

/// Four significant digits.
fn digits(value: f64) -> String {
    let places = match value.abs() {
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
        // Burn always passes the first epoch as the starting epoch.
        self.epochs = total_epochs;
    }

    fn update_epoch(&mut self, epoch: usize) {
        self.epoch = epoch + 1;
    }

    fn start_split(&mut self, split: &str, total_items: usize) {
        split.to_lowercase().clone_into(&mut self.split);
        self.total = total_items;
        self.done = 0;
        self.latest.clear();
    }

    fn update_split(&mut self, items_processed: usize) {
        self.done = items_processed;
        let due = self.last.is_none_or(|last| last.elapsed() >= INTERVAL);
        if self.split == "train" && due {
            self.last = Some(Instant::now());
            self.print();
        }
    }

    fn end_split(&mut self) {
        // The epoch's mean of every metric has just arrived.
        self.print();
        self.latest.clear();
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
