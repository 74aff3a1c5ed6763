//! The singular values of Jacobians in numbers, a table, a figure and CSV.

use rezero_nn::{PooledSpectrum, Spectrum};
use serde::{Deserialize, Serialize};

use crate::plot::{Axis, Lines, Series, cell, number, quoted};

/// The first and the last edge of histograms, in log₁₀ σ, and their number of bins.
const LOW: f64 = -8.0;
const HIGH: f64 = 4.0;
const BINS: usize = 96;

/// The singular values of one network, or of one scheme over several random networks, in numbers
/// that JSON can hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The scheme, or `start` and `step N` of a run.
    pub name: String,
    /// From what to what the Jacobians go, such as `from the image to the logits`; empty in records of
    /// older versions.
    #[serde(default)]
    pub of: String,
    /// The residual layers.
    pub layers: usize,
    /// The number of Jacobians in this record.
    pub jacobians: usize,
    /// The number of networks that were left out because their values are not finite.
    pub not_finite: usize,
    /// The number of singular values.
    pub count: usize,
    /// Mean σ²; none without a σ.
    pub mean_square: Option<f64>,
    /// `(q, log₁₀ of the q-quantile)`; none where σ = 0.
    pub log10_quantiles: Vec<(f64, Option<f64>)>,
    /// Share of σ below single precision, see [`Spectrum::vanishing`]; none without a σ.
    pub vanishing: Option<f64>,
    /// σ_max / σ_min, if it is finite.
    pub condition: Option<f64>,
    /// The first edge of the histogram, log₁₀ σ.
    pub low: f64,
    /// Its last edge.
    pub high: f64,
    /// The counts of its bins.
    pub histogram: Vec<usize>,
    /// The number of σ below its first edge.
    pub below: usize,
    /// The number of σ above its last edge.
    pub above: usize,
}

impl Record {
    pub(super) fn new(
        name: &str,
        of: &str,
        layers: usize,
        spectra: &[Spectrum],
        not_finite: usize,
    ) -> Self {
        let pooled: PooledSpectrum = Spectrum::pooled(spectra);
        let summary = pooled.summary();
        let histogram = pooled.histogram(LOW, HIGH, BINS);
        let finite = |v: f64| v.is_finite().then_some(v);
        Self {
            name: name.to_owned(),
            of: of.to_owned(),
            layers,
            jacobians: spectra.len(),
            not_finite,
            count: summary.count,
            mean_square: finite(summary.mean_square),
            log10_quantiles: summary
                .log10_quantiles
                .iter()
                .map(|&(q, v)| (q, finite(v)))
                .collect(),
            vanishing: finite(summary.vanishing),
            condition: finite(summary.condition),
            low: LOW,
            high: HIGH,
            histogram: histogram.counts,
            below: histogram.below,
            above: histogram.above,
        }
    }

    /// The columns of [`table`].
    fn cells(&self) -> Vec<String> {
        if self.count == 0 {
            let mut cells = vec![self.name.clone(), self.layers.to_string()];
            cells.push(format!("none: {} not finite", self.not_finite));
            cells.resize(11, "–".to_owned());
            return cells;
        }
        let log = |wanted: f64| {
            let found = self.log10_quantiles.iter().find(|(q, _)| *q == wanted);
            match found.and_then(|(_, v)| *v) {
                Some(v) => format!("{v:.3}"),
                None => "−∞".to_owned(),
            }
        };
        vec![
            self.name.clone(),
            self.layers.to_string(),
            match self.not_finite {
                0 => self.count.to_string(),
                n => format!("{} ({n} Jacobians not finite)", self.count),
            },
            self.mean_square.map_or("∞".to_owned(), number),
            log(0.0),
            log(0.05),
            log(0.5),
            log(0.95),
            log(1.0),
            format!("{:.1}", 100.0 * self.vanishing.unwrap_or_default()),
            self.condition.map_or("∞".to_owned(), number),
        ]
    }
}

/// The meaning of the columns that tables of Jacobians have: σ and vanishing.
pub const LEGEND: &str = "σ are the singular values. A σ vanishes if single precision cannot tell \
                          it from 0.";

/// The Jacobians of `records` by where they go from and to, each once.
pub fn of(records: &[&Record]) -> String {
    let mut all: Vec<&str> = records.iter().map(|record| record.of.as_str()).collect();
    all.retain(|of| !of.is_empty());
    all.sort_unstable();
    all.dedup();
    match all.is_empty() {
        true => "input–output Jacobian".to_owned(),
        false => format!("Jacobian {}", all.join(", or ")),
    }
}

/// The records as a Markdown table, below a line that says of which Jacobian.
pub fn table(records: &[Record]) -> String {
    let of = of(&records.iter().collect::<Vec<_>>());
    let mut text = format!("{}. {LEGEND}\n\n", cell(&of));
    text.push_str(
        "| network | layers | σ | mean σ² | min log₁₀ σ | 5 % log₁₀ σ | median log₁₀ σ | 95 % log₁₀ σ | \
         max log₁₀ σ | vanishing, % | σ_max / σ_min |\n\
         | - | -: | -: | -: | -: | -: | -: | -: | -: | -: | -: |\n",
    );
    for record in records {
        let cells: Vec<String> = record.cells().iter().map(|text| cell(text)).collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}

/// The records' histograms in one figure. A bin with most of a record's values is cut off a little
/// above the other bins, and the legend gives its share.
pub fn figure(title: &str, records: &[&Record]) -> Lines {
    const MOST: f64 = 60.0;
    let shares = |record: &Record| -> Vec<f64> {
        let total = record.count.max(1) as f64;
        let counts = record.histogram.iter();
        counts.map(|count| 100.0 * *count as f64 / total).collect()
    };
    let highest = records
        .iter()
        .flat_map(|record| shares(record))
        .filter(|share| *share < MOST)
        .fold(0.0, f64::max);
    let top = match highest {
        0.0 => 100.0,
        highest => 1.2 * highest,
    };
    let series = records
        .iter()
        .map(|record| {
            let total = record.count.max(1) as f64;
            let bins = record.histogram.len().max(1) as f64;
            let width = (record.high - record.low) / bins;
            let mut points = Vec::new();
            let mut name = record.name.clone();
            for (i, share) in shares(record).into_iter().enumerate() {
                let left = record.low + width * i as f64;
                if share >= MOST {
                    name.push_str(&format!(", {share:.0} % at 1e{left:.1}"));
                }
                points.push((left, share.min(top)));
                points.push((left + width, share.min(top)));
            }
            if record.above > 0 {
                let share = 100.0 * record.above as f64 / total;
                name.push_str(&format!(", {share:.0} % > 1e{}", record.high));
            }
            if record.count == 0 {
                name.push_str(": not finite");
                points.clear();
            }
            if record.below > 0 {
                let share = 100.0 * record.below as f64 / total;
                name.push_str(&format!(", {share:.0} % < 1e{}", record.low));
            }
            Series::new(&name, points)
        })
        .collect();
    Lines {
        title: title.to_owned(),
        x: Axis::linear("log10 of the singular value"),
        y: Axis::linear("share of singular values (%)"),
        series,
    }
}

/// The histograms as CSV: network, layers, lower edge, upper edge, count.
pub fn csv(records: &[Record]) -> String {
    let mut text = String::from("network,layers,log10_from,log10_to,count\n");
    for record in records {
        let width = (record.high - record.low) / record.histogram.len() as f64;
        let mut line = |from: f64, to: f64, count: usize| {
            let Record { layers, .. } = record;
            let name = quoted(&record.name);
            text.push_str(&format!("{name},{layers},{from},{to},{count}\n"));
        };
        line(f64::NEG_INFINITY, record.low, record.below);
        for (i, count) in record.histogram.iter().enumerate() {
            let from = record.low + width * i as f64;
            line(from, from + width, *count);
        }
        line(record.high, f64::INFINITY, record.above);
    }
    text
}
