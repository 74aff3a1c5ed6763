//! `[train]`: how a step is computed.

use burn::tensor::FloatDType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{nonnegative, positive};
use crate::error::Result;

/// How a step is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Train {
    /// Seed of all random numbers: initial weights, order of the data, augmentation, dropout. Runs
    /// that differ in it alone repeat one experiment.
    pub seed: u64,
    /// Images, or windows of text, in a step.
    pub batch: usize,
    /// Number of parts in which each step's batch is computed, one after the other, to save memory.
    /// Their gradients are averaged, so the step is the same, but batch norm takes its statistics
    /// per part.
    pub accumulate: usize,
    /// Whether layers run again in the backward pass, which takes longer, instead of storing their
    /// activations, which takes memory. A byte-lm runs one layer at a time. An mlp runs √depth
    /// layers at a time and updates them at once, so that the gradients of the whole network are
    /// never held together.
    pub recompute: bool,
    /// The number type of matrix products and convolutions; all else is f32.
    pub dtype: DType,
    /// The number type in which the gradients of several processes (mpirun) travel. They are added in f32; bf16 halves the bytes, and
    /// rounds each process's gradients and their sum to 8 bits of precision.
    pub reduce: Reduce,
    /// The largest L2 norm N of all gradients together: if it is larger, they are multiplied by N /
    /// norm. 0: no clipping.
    pub clip_norm: f64,
    /// The decay d of an exponential moving average e of the weights w, running statistics included:
    /// after the first step e ← w, after each other e ← d · e + (1 − d) · w; 0.999 averages over about
    /// 1,000 steps. Validation scores the average, and eval, sample and export take it. 0: none.
    pub ema: f64,
    /// The run whose weights this one begins with: its directory, or that of one of its
    /// checkpoints. It has the same network but for the data that goes in and the classes that come
    /// out. Empty: initial weights.
    pub from: String,
    /// The parameters that keep their values, by name: patterns with commas between them, such as
    /// "conv.*,norm.*", in which `*` stands for any characters and `?` for one.
    #[serde(deserialize_with = "patterns")]
    #[schemars(with = "Patterns")]
    pub freeze: Vec<String>,
}

/// Patterns as they may be written: as a text, which a shell and a name of a run have no trouble with, or as the list
/// that a run's recipe has.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected patterns with commas between them")]
enum Patterns {
    Text(String),
    List(Vec<String>),
}

fn patterns<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    let parts = |text: &str| -> Vec<String> {
        let parts = text.split(',').map(str::trim).map(str::to_owned);
        parts.filter(|part| !part.is_empty()).collect()
    };
    Ok(match Patterns::deserialize(d)? {
        Patterns::Text(text) => parts(&text),
        Patterns::List(list) => list.iter().flat_map(|text| parts(text)).collect(),
    })
}

/// The number type of matrix products and convolutions. Gates, norms, the residual stream, the loss
/// and the optimizer's state are always f32, see [`rezero_nn::in_precision`].
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub enum DType {
    /// 32 bits.
    F32,
    /// bfloat16: the range of f32 with 8 bits of precision.
    BF16,
    /// IEEE half precision: 11 bits of precision, values up to 65,504; the loss is scaled.
    F16,
}

impl DType {
    /// The type, unless it is f32.
    pub fn half(self) -> Option<FloatDType> {
        match self {
            Self::F32 => None,
            Self::BF16 => Some(FloatDType::BF16),
            Self::F16 => Some(FloatDType::F16),
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::BF16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

/// The number type of gradients on their way between processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reduce {
    /// 32 bits: as they are.
    F32,
    /// bfloat16: half the bytes.
    BF16,
}

impl Default for Train {
    fn default() -> Self {
        Self {
            seed: 1,
            batch: 128,
            accumulate: 1,
            recompute: false,
            dtype: DType::F32,
            reduce: Reduce::F32,
            clip_norm: 0.0,
            ema: 0.0,
            from: String::new(),
            freeze: Vec::new(),
        }
    }
}

impl Train {
    /// Keys that have no effect.
    pub(super) fn idle(&self) -> Vec<(&'static str, String)> {
        let empty = [
            ("from", self.from.is_empty(), "it names no run"),
            ("freeze", self.freeze.is_empty(), "it has no pattern"),
        ];
        let empty = empty.into_iter().filter(|(_, is_empty, _)| *is_empty);
        empty.map(|(key, _, why)| (key, why.to_owned())).collect()
    }

    pub(super) fn check(&self) -> Result<()> {
        positive("train.batch", self.batch, 1 << 20)?;
        if self.accumulate == 0 || self.accumulate > self.batch {
            super::check::check(
                false,
                "train.accumulate",
                format!(
                    "must be between 1 and the batch of {}, got {}",
                    self.batch, self.accumulate
                ),
            )?;
        }
        super::check::check(
            self.dtype == DType::F32 || !self.recompute,
            "train.dtype",
            "products in half precision are not combined with recompute=true".to_owned(),
        )?;
        super::check::check(
            (0.0..1.0).contains(&self.ema),
            "train.ema",
            format!("must be in [0, 1), got {}", self.ema),
        )?;
        nonnegative("train.clip_norm", self.clip_norm)
    }
}
