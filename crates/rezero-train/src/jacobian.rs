//! Jacobians of new networks and of runs: what `rezero jacobian` prints and reports show.

use std::path::Path;

use burn::data::dataloader::DataLoader;
use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use rezero_data::Split;
use rezero_nn::transformer::{AttentionMask, RztxInit, RztxLayerConfig};
use rezero_nn::{
    Jacobian, JacobianError, JacobianProbe, MlpArm, MlpConfig, PooledSpectrum, ResidualConfig,
    ResidualScheme, Spectrum, drawn,
};
use serde::{Deserialize, Serialize};

use crate::checkpoint::Reader;
use crate::data::{Source, eval_loader};
use crate::error::{Error, Result};
use crate::model::{Items, Network};
use crate::plot::{Axis, Lines, Series};
use crate::recipe::Recipe;
use crate::run_dir;

/// Where histograms begin and end, log₁₀ σ, and how many bins they have.
const LOW: f64 = -8.0;
const HIGH: f64 = 4.0;
const BINS: usize = 96;

/// A Jacobian of a language model has at most so many rows: the positions are cut to that.
const MOST_ROWS: usize = 512;

/// The singular values of one network, or of one arm over several draws, in numbers that JSON can
/// hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The arm, or `start` and `step N` of a run.
    pub name: String,
    /// The residual layers.
    pub layers: usize,
    /// How many Jacobians are together here.
    pub jacobians: usize,
    /// How many more there would be, but for values that are not finite.
    pub not_finite: usize,
    /// How many singular values.
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
    /// How many σ are below its first edge.
    pub below: usize,
    /// How many are above its last.
    pub above: usize,
}

impl Record {
    fn new(name: &str, layers: usize, spectra: &[Spectrum], not_finite: usize) -> Self {
        let pooled: PooledSpectrum = Spectrum::pooled(spectra);
        let summary = pooled.summary();
        let histogram = pooled.histogram(LOW, HIGH, BINS);
        let finite = |v: f64| v.is_finite().then_some(v);
        Self {
            name: name.to_owned(),
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

/// Four significant digits.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if (0.01..10_000.0).contains(&v) => {
            let digits = (3.0 - v.log10().floor()).clamp(0.0, 5.0) as usize;
            format!("{value:.digits$}")
        }
        _ => format!("{value:.2e}"),
    }
}

/// The records as a Markdown table.
pub fn table(records: &[Record]) -> String {
    let mut text = String::from(
        "| network | layers | σ | mean σ² | min log₁₀ σ | 5 % | median | 95 % | max | vanishing, % | σ_max / σ_min |\n\
         | - | -: | -: | -: | -: | -: | -: | -: | -: | -: | -: |\n",
    );
    for record in records {
        text.push_str(&format!("| {} |\n", record.cells().join(" | ")));
    }
    text
}

/// The records' histograms in one figure. A bin that holds most of a record's values is cut off a little
/// above the others, and the legend says what it holds.
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
            let name = crate::report::quoted(&record.name);
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

/// Settings of Jacobians at initialisation.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// How many networks are drawn for each.
    pub draws: usize,
    /// α of the arms that have one.
    pub alpha: f64,
    /// Seeds weights and inputs.
    pub seed: u64,
    /// `d_model` of Transformers, the width of MLPs.
    pub width: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// The width of the feed-forward branch.
    pub d_ff: usize,
    /// Positions of a sequence.
    pub length: usize,
}

/// The arms of Transformers that `rezero jacobian transformer` knows.
pub const TRANSFORMER_ARMS: &[(&str, ResidualScheme)] = &[
    ("post-norm", ResidualScheme::PostNorm),
    ("pre-norm", ResidualScheme::PreNorm),
    ("gpt2-norm", ResidualScheme::Gpt2Norm),
    ("residual", ResidualScheme::Sum),
    ("rezero", ResidualScheme::ReZero),
];

/// The arms of MLPs that `rezero jacobian mlp` knows.
pub const MLP_ARMS: &[(&str, MlpArm)] = &[
    ("vanilla", MlpArm::Vanilla),
    ("residual", MlpArm::Residual),
    ("layer-norm", MlpArm::LayerNorm),
    ("layer-norm-each", MlpArm::LayerNormEach),
    ("pre-norm", MlpArm::PreNorm),
    ("post-norm", MlpArm::PostNorm),
    ("rezero", MlpArm::ReZero),
];

/// An encoder of `layers` layers as the authors' notebook has it (weights Xavier-uniform, no
/// dropout), its Jacobian at inputs from N(0, 1).
///
/// # Errors
///
/// If a Jacobian cannot be had.
pub fn transformer(
    name: &str,
    scheme: ResidualScheme,
    alpha: f64,
    layers: usize,
    fresh: &Fresh,
    device: &Device,
) -> Result<Record> {
    let mut residual = ResidualConfig::new(scheme);
    residual.rezero.alpha = alpha;
    let config = RztxLayerConfig::new(fresh.width, fresh.n_heads)
        .with_d_ff(fresh.d_ff)
        .with_dropout(0.0)
        .with_init(RztxInit::notebook())
        .with_residual(residual);
    draws(name, layers, fresh, device, |probe| {
        let encoder = drawn(config.init_encoder(layers, device)).valid();
        let shape = [1, fresh.length, fresh.width];
        let x = Tensor::<3>::random(shape, Distribution::Normal(0.0, 1.0), device);
        let mask = AttentionMask::none();
        probe.run_module(&encoder, |encoder, x| encoder.forward(x, &mask), x)
    })
}

/// The residual layers of a fully connected network, at inputs from N(0, 1) behind a ReLU.
///
/// # Errors
///
/// If a Jacobian cannot be had.
pub fn mlp(
    name: &str,
    arm: MlpArm,
    alpha: f64,
    layers: usize,
    fresh: &Fresh,
    device: &Device,
) -> Result<Record> {
    let mut config = MlpConfig::new(fresh.width, fresh.width, layers, 1).with_arm(arm);
    config.residual.rezero.alpha = alpha;
    draws(name, layers, fresh, device, |probe| {
        let net = drawn(config.init(device)).valid();
        let shape = [1, fresh.width];
        let x = Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), device).clamp_min(0.0);
        probe.run_module(&net, |net, x| net.hidden(x), x)
    })
}

fn draws(
    name: &str,
    layers: usize,
    fresh: &Fresh,
    device: &Device,
    mut draw: impl FnMut(&JacobianProbe) -> Result<Vec<Jacobian>, JacobianError>,
) -> Result<Record> {
    let probe = JacobianProbe::new();
    let (mut spectra, mut not_finite) = (Vec::new(), 0);
    for i in 0..fresh.draws {
        device.seed(crate::model::mix(fresh.seed, i as u64));
        match draw(&probe) {
            Ok(jacobians) => {
                for jacobian in jacobians {
                    spectra.push(jacobian.spectrum()?);
                }
            }
            // A network so deep that its signals overflow is a result.
            Err(JacobianError::Output { .. } | JacobianError::Entry { .. }) => not_finite += 1,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(Record::new(name, layers, &spectra, not_finite))
}

/// The run's network as it began, unless it was grown from another's, and at a checkpoint, at `inputs`
/// items of its validation split.
///
/// | network | from | to |
/// | - | - | - |
/// | `mlp` | the input of the residual layers | their output |
/// | `byte-lm` | the embedding of the first positions, 512 values at most | the output of the layers |
/// | ResNets | the image | the logits |
///
/// # Errors
///
/// If the run has no such checkpoint, its data is gone, or a Jacobian cannot be had.
pub fn of_run(
    run: &Path,
    checkpoint: &Reader,
    source: &Source,
    inputs: usize,
    device: &Device,
) -> Result<Vec<Record>> {
    let recipe = run_dir::recipe(run)?.recipe;
    let set = source.open(&recipe, Split::Valid)?;
    let classes = set.num_classes();
    let small = Recipe {
        batch: inputs,
        accumulate: 1,
        ..recipe.clone()
    };
    let loader = eval_loader(&small, set, device)?;
    let items = match loader.iter().next() {
        Some(batch) => batch.map_err(|e| Error::Training(e.to_string()))?.items,
        None => {
            return Err(Error::Run {
                dir: run.to_owned(),
                message: "its validation split is empty".to_owned(),
            });
        }
    };
    let start = match run_dir::environment(run).and_then(|e| e.grown_from) {
        None => Some(Network::new(&recipe, classes, device)),
        // What it grew from has gone since.
        Some(_) => None,
    };
    let step = checkpoint.state()?.step;
    let end = checkpoint.load_network(Network::new(&recipe, classes, device))?;
    let record = |name: &str, network: Network| -> Result<Record> {
        let spectra = spectra(&network.valid(), &items)?;
        Ok(Record::new(name, recipe.layers(), &spectra, 0))
    };
    let mut records = Vec::new();
    if let Some(start) = start {
        records.push(record("start", start)?);
    }
    records.push(record(&format!("step {step}"), end)?);
    Ok(records)
}

fn spectra(network: &Network, items: &Items) -> Result<Vec<Spectrum>> {
    let probe = JacobianProbe::new();
    let jacobians = match (network, items) {
        (Network::Mlp(net), Items::Images(batch)) => {
            let x = net.embed(batch.images.clone().flatten(1, 3));
            probe.run_module(net, |net, x| net.hidden(x), x)?
        }
        (Network::Cifar(net), Items::Images(batch)) => {
            probe.run_module(net, |net, x| net.forward(x), batch.images.clone())?
        }
        (Network::PreAct(net), Items::Images(batch)) => {
            probe.run_module(net, |net, x| net.forward(x), batch.images.clone())?
        }
        (Network::Lm(net), Items::Text(batch)) => {
            let x = net.embed(batch.inputs.clone(), 0);
            let [_, length, d_model] = x.dims();
            let length = (MOST_ROWS / d_model).clamp(1, length);
            let mask = AttentionMask::causal();
            probe.run_module(
                net,
                |net, x| net.encoder.forward(x, &mask),
                x.narrow(1, 0, length),
            )?
        }
        _ => unreachable!("a recipe's data is of its model's kind"),
    };
    let mut spectra = Vec::with_capacity(jacobians.len());
    for jacobian in jacobians {
        spectra.push(jacobian.spectrum()?);
    }
    Ok(spectra)
}
