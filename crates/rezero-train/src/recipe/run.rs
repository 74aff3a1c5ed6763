//! `[run]`: what may change when a run is resumed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{check, nonnegative, positive};
use crate::error::Result;

/// Length, validation, checkpoints, log and device of a run: the only keys that may change when it
/// is resumed. None of them changes the numbers of a step; under schedule.kind = "one-cycle", "cosine"
/// and "linear", which depend on the length, epochs and steps may not change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Run {
    /// Length of the run in epochs, passes over the training images. Text has no epochs: steps is
    /// its length.
    pub epochs: usize,
    /// Length of the run in steps, if its epochs do not end before; 0: no limit. For text it must
    /// be set.
    pub steps: usize,
    /// Steps from one validation to the next; 0: one after each epoch. There is always one at the
    /// end.
    pub eval_every: usize,
    /// A result to reach on validation: bits per byte for text, percent correct for images. The
    /// first validation that reaches it is reported; 0: no target.
    pub target: f64,
    /// The run stops early after this many validations in a row that are not better than the best before
    /// them; 0: it does not.
    pub patience: usize,
    /// Steps from one checkpoint to the next; 0: one after each validation. There is always one at
    /// the end.
    pub checkpoint_every: usize,
    /// How many of the newest checkpoints are kept, at least 1; the best on validation is kept too.
    pub keep: usize,
    /// Steps from one row of metrics.jsonl to the next, at least 1. A row holds the mean over the
    /// steps since the row before.
    pub log_every: usize,
    /// Whether the rows are also written to an event file for TensorBoard, beside metrics.jsonl.
    pub tensorboard: bool,
    /// How many batches a thread prepares ahead of the step that uses them; 0: none. It changes the
    /// speed alone.
    pub prefetch: usize,
    /// Whether a training step is captured once and replayed, on CUDA and ROCm as a single launch, where that is possible: one device and process of a CubeCL
    /// backend, f32 or bf16, SGD, AdaGrad, Adam, AdamW or LAMB, without accumulation and recomputation. It changes the speed, and the numbers by no more than rounding.
    pub capture: bool,
    /// The most megabytes of the images of a folder that are held decoded in memory, of each split. Images that
    /// take more are decoded anew for every batch, with the same results; 0: 80 % of the memory that is free.
    pub image_memory: usize,
    /// Whether the training, validation and test images lie on the device as bytes, where a kernel crops, flips and normalises each batch. The batches are the
    /// same, bit for bit. For a CubeCL backend, images that are in memory on the host, and no augmentation but crop and flip.
    pub on_device: OnDevice,
    /// The most megabytes of images that lie on the device, of each split. More are prepared on the host.
    pub device_memory: usize,
    /// The device to train on, see `rezero devices`; auto is Flex where it is compiled in. With several,
    /// `A,B,…`, each computes an equal part of every batch.
    pub device: String,
}

/// Whether images lie on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnDevice {
    /// Where they can.
    Auto,
    /// A run whose training images cannot does not begin.
    Always,
    /// The host prepares each batch.
    Never,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            epochs: 200,
            steps: 0,
            eval_every: 0,
            target: 0.0,
            patience: 0,
            checkpoint_every: 0,
            keep: 2,
            log_every: 1,
            tensorboard: false,
            prefetch: 4,
            capture: true,
            image_memory: 0,
            on_device: OnDevice::Auto,
            device_memory: 1_000,
            device: "auto".to_owned(),
        }
    }
}

impl Run {
    /// How many devices a step is computed on.
    pub fn devices(&self) -> usize {
        self.device.split(',').count()
    }

    /// The last step of a run whose epochs have `all` steps.
    pub fn last_step(&self, all: usize) -> usize {
        match self.steps {
            0 => all,
            limit => limit.min(all),
        }
    }

    /// Whether a run stops early after `stale` validations without a better one.
    pub fn stops_after(&self, stale: usize) -> bool {
        self.patience > 0 && stale >= self.patience
    }

    pub(super) fn idle(&self) -> Vec<(&'static str, String)> {
        match self.on_device {
            OnDevice::Auto | OnDevice::Always => Vec::new(),
            OnDevice::Never => vec![(
                "device_memory",
                "under on_device=never no images are on the device".to_owned(),
            )],
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        for (key, value) in [("run.keep", self.keep), ("run.log_every", self.log_every)] {
            check(value > 0, key, "must be at least 1, got 0".to_owned())?;
        }
        positive("run.epochs", self.epochs, 1_000_000)?;
        for (key, value, most) in [
            ("run.prefetch", self.prefetch, 1_024),
            ("run.steps", self.steps, 1 << 40),
        ] {
            check(
                value <= most,
                key,
                format!("must be at most {most}, got {value}"),
            )?;
        }
        nonnegative("run.target", self.target)
    }
}
