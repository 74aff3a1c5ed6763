//! The bytes of a text.

use std::ops::Range;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use rezero_data::{ScoringConfig, Split, TextBatch, TextLoader, WindowConfig, corpus};

use super::Domain;
use super::data_set::{BUILT_IN_SEED, Places, limited, of_split};
use crate::error::{Error, Result};
use crate::fit::{self, ACCURACY, BITS_PER_BYTE, Batches, Source, Sums, Task, bits, integers_on};
use crate::recipe::check::{check, positive};
use crate::recipe::{Settings, TaskOf, TaskRecipe, TextData, TextSource};
use crate::record::Totals;
use crate::words;
use crate::zoo::{self, Families};

/// The number of bytes of `wiki-like`: training, validation, test.
const WIKI_LIKE: [usize; 3] = [3_600_000, 200_000, 200_000];
/// The most bytes per step: thirty times the paper's batch of 1080 windows of 512 bytes.
const MAX_STEP: usize = 1 << 24;

/// Prediction of the next byte, measured in bits per byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text;

/// The form of a text: bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteForm {
    /// The number of tokens.
    pub vocab_size: usize,
}

/// The windows that a network reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// The length of a training window in bytes.
    pub context: usize,
    /// Whether the network cannot read longer windows.
    pub fixed: bool,
}

impl TaskOf<Text> {
    fn context(&self) -> usize {
        self.model.needs().context
    }

    /// Bytes from one window of an evaluation to the next.
    pub fn stride(&self) -> usize {
        match self.data.stride {
            0 => self.context(),
            stride => stride,
        }
    }
}

impl Domain for Text {
    type Batch = TextBatch;
    /// Of bytes, `[batch, length, 256]`.
    type Logits = Tensor<3>;
    type Network = zoo::text::Network;
    type Family = zoo::text::Family;
    type Data = TextData;
    type Set = rezero_data::Text;
    type Source = TextLoader;
    type Form = ByteForm;
    type Needs = Windows;

    fn task() -> Task {
        Task::new("bytes")
            .with_loss_unit("nats")
            .with(BITS_PER_BYTE)
            .with(ACCURACY)
    }

    fn sums(logits: Tensor<3>, batch: &TextBatch) -> Sums {
        let [rows, length, vocab] = logits.dims();
        let n = rows * length;
        Sums::of_logits(
            logits.reshape([n, vocab]),
            batch.targets.clone().reshape([n]),
            batch.weights.clone().map(|w| w.reshape([n])),
        )
    }

    fn open(data: &TextData, places: &Places, split: Split) -> Result<rezero_data::Text> {
        let text = match data.set {
            TextSource::WikiLike => {
                corpus::wiki_like(of_split(WIKI_LIKE, split), BUILT_IN_SEED, split)
            }
            TextSource::Enwik8 => corpus::enwik8(&places.folder("enwik8")?, split)?,
            TextSource::Text => {
                let file = places.text.as_ref().ok_or_else(|| Error::RecipeValue {
                    key: "data.set".to_owned(),
                    message: "data=text reads the file that --text names; give --text FILE"
                        .to_owned(),
                })?;
                corpus::file(file, split)?
            }
        };
        Ok(match split {
            Split::Train => limited(text, data.train_items),
            Split::Valid => limited(text, data.valid_items),
            Split::Test => text,
        })
    }

    fn form(_data: &TextData) -> ByteForm {
        ByteForm { vocab_size: 256 }
    }

    const FORM_KEYS: &'static [&'static str] = &[];

    fn identity(_form: &ByteForm) -> String {
        String::new()
    }

    fn is_complete(_data: &TextData) -> bool {
        true
    }

    fn complete(data: &TextData, _train: &rezero_data::Text) -> Result<TextData> {
        Ok(data.clone())
    }

    fn complete_as(data: &TextData, _before: &TextData) -> TextData {
        data.clone()
    }

    fn task_recipe(of: TaskOf<Self>) -> TaskRecipe {
        TaskRecipe::Text(of)
    }

    fn of_task(task: TaskRecipe) -> Option<TaskOf<Self>> {
        match task {
            TaskRecipe::Text(of) => Some(of),
            TaskRecipe::Images(_) => None,
        }
    }

    /// One epoch of `run.steps` steps.
    fn epochs(_settings: &Settings) -> usize {
        1
    }

    fn for_training(
        of: &TaskOf<Self>,
        settings: &Settings,
        set: rezero_data::Text,
        device: &Device,
    ) -> Result<TextLoader> {
        let config = WindowConfig {
            batch_size: settings.train.batch,
            context: of.context(),
            seed: settings.train.seed,
            steps: settings.run.steps,
            prefetch: settings.run.prefetch,
        };
        Ok(TextLoader::windows(set, config, device)?)
    }

    fn for_scoring(
        of: &TaskOf<Self>,
        settings: &Settings,
        set: rezero_data::Text,
        device: &Device,
    ) -> Result<TextLoader> {
        let config = ScoringConfig {
            // As large as one part of a training step.
            batch_size: settings.train.batch.div_ceil(settings.train.accumulate),
            context: of.context(),
            stride: of.stride(),
            prefetch: settings.run.prefetch,
        };
        Ok(TextLoader::scoring(set, config, device)?)
    }

    fn check(of: &TaskOf<Self>, settings: &Settings) -> Result<()> {
        let (context, batch) = (of.context(), settings.train.batch);
        positive("model.context", context, 1 << 14)?;
        positive("run.steps", settings.run.steps, 1 << 40)?;
        check(
            batch * context <= MAX_STEP,
            "train.batch",
            format!("at most {MAX_STEP} bytes a step, got batch={batch} times context={context}"),
        )?;
        check(
            of.data.stride <= context,
            "data.stride",
            format!(
                "must be at most the context of {context}, got {}",
                of.data.stride
            ),
        )?;
        // Milestones are epochs, and text has only one epoch.
        check(
            settings.optimizer.bias_lr_at(0) == settings.optimizer.bias_lr_at(usize::MAX),
            "optimizer.bias_milestones",
            "text has no epochs: leave it out".to_owned(),
        )?;
        check(
            !settings.schedule.counts_epochs(),
            "schedule.kind",
            "text has no epochs: it takes constant, one-cycle, cosine or linear, and a warm-up in warmup_steps"
                .to_owned(),
        )
    }

    fn synchronises(_data: &TextData) -> bool {
        false
    }

    fn idle(_data: &TextData) -> Vec<(&'static str, String)> {
        vec![
            (
                "run.epochs",
                "a text has windows drawn at random; run.steps is how long the run is".to_owned(),
            ),
            ("run.image_memory", "a text has no images".to_owned()),
            ("run.on_device", "a text has no images".to_owned()),
            ("run.device_memory", "a text has no images".to_owned()),
        ]
    }

    fn may_score(trained: &TaskOf<Self>, wanted: &TaskOf<Self>) -> Result<()> {
        let (
            Windows {
                context: most,
                fixed,
            },
            context,
        ) = (trained.model.needs(), wanted.context());
        check(
            context <= most || !fixed,
            "model.context",
            format!("must be at most the model's {most} learned positions, got {context}"),
        )
    }

    fn shown_of_scoring(
        of: &TaskOf<Self>,
        totals: &Totals,
    ) -> Vec<(&'static str, serde_json::Value, String)> {
        let (bpb, perplexity) = (bits(totals.mean_loss()), totals.mean_loss().exp());
        let accuracy = totals.mean("correct");
        let (context, stride) = (of.context(), of.stride());
        vec![
            ("bpb", bpb.into(), format!("{bpb:.4} bits per byte")),
            (
                "perplexity",
                perplexity.into(),
                format!("perplexity {perplexity:.4}"),
            ),
            (
                "accuracy",
                accuracy.into(),
                format!("accuracy {:.2} %", 100.0 * accuracy),
            ),
            ("context", context.into(), format!("context {context}")),
            ("stride", stride.into(), format!("stride {stride}")),
        ]
    }

    fn next_command(_of: &TaskOf<Self>, run: &Path) -> Option<String> {
        let sample = words::command("sample", run, &[]);
        Some(format!("let it write: {sample}"))
    }

    fn limits(data: &TextData) -> [usize; 2] {
        [data.train_items, data.valid_items]
    }

    fn reads_a_folder(data: &TextData) -> bool {
        data.set == TextSource::Enwik8
    }

    fn reads_a_file(data: &TextData) -> bool {
        data.set == TextSource::Text
    }
}

impl fit::Batch for TextBatch {
    fn rows(&self) -> usize {
        self.inputs.dims()[0]
    }

    fn items(&self) -> usize {
        self.scored
    }

    fn narrow(&self, range: Range<usize>) -> Self {
        // In training, every byte of a window is scored.
        Self {
            inputs: self.inputs.clone().slice_dim(0, range.clone()),
            targets: self.targets.clone().slice_dim(0, range.clone()),
            weights: self.weights.clone().map(|w| w.slice_dim(0, range.clone())),
            scored: self.scored / self.rows() * range.len(),
        }
    }

    fn to_device(self, device: &Device) -> Self {
        Self {
            inputs: integers_on(self.inputs, device),
            targets: integers_on(self.targets, device),
            weights: self.weights.map(|weights| weights.to_device(device)),
            scored: self.scored,
        }
    }

    fn owned(&self) -> Option<Self> {
        Some(Self {
            inputs: fit::own_int(&self.inputs)?,
            targets: fit::own_int(&self.targets)?,
            weights: fit::own_part(self.weights.as_ref(), fit::own)?,
            scored: self.scored,
        })
    }

    fn overwrite(&self, new: &Self) -> bool {
        fit::written_int(&self.inputs, &new.inputs)
            && fit::written_int(&self.targets, &new.targets)
            && fit::written_part(self.weights.as_ref(), new.weights.as_ref(), fit::written)
    }
}

impl Source for TextLoader {
    type Batch = TextBatch;

    fn batches_per_epoch(&self) -> usize {
        Self::batches_per_epoch(self)
    }

    fn rows_per_epoch(&self) -> usize {
        burn::data::dataloader::DataLoader::num_items(self)
    }

    fn batches_from(&self, step: usize, device: &Device) -> Batches<TextBatch> {
        Box::new(self.clone().on(device).from_step(step))
    }
}
