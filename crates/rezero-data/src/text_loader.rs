//! The loader of texts: random windows for training, and all bytes in order for scoring.

use std::ops::Range;
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::prefetch::Prefetch;
use crate::rng::{Purpose, Rng};
use crate::text::Text;
use crate::{DataError, Result};

/// A batch of windows of a text on a device. Bytes are ids in `0..256`.
#[derive(Clone, Debug)]
pub struct TextBatch {
    /// The bytes that the model reads, `[batch_size, length]`.
    pub inputs: Tensor<2, Int>,
    /// The byte after each of them, `[batch_size, length]`.
    pub targets: Tensor<2, Int>,
    /// 1 where the target is scored and 0 where the window before scores it,
    /// `[batch_size, length]`. `None` if all are scored.
    pub weights: Option<Tensor<2>>,
    /// How many targets are scored.
    pub scored: usize,
}

/// How [`TextLoader::windows`] samples windows for training.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowConfig {
    /// Windows in a batch.
    pub batch_size: usize,
    /// Bytes that the model reads per window; it has as many targets.
    pub context: usize,
    /// The seed of the windows' positions.
    pub seed: u64,
    /// Batches in an iteration: the training steps of the whole run.
    pub steps: usize,
    /// Batches prepared ahead by one thread; 0 prepares each on request. The batches are the same.
    pub prefetch: usize,
}

/// How [`TextLoader::scoring`] cuts a text into windows that score each byte once.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoringConfig {
    /// Windows in a batch.
    pub batch_size: usize,
    /// Bytes that the model reads per window.
    pub context: usize,
    /// Bytes from the start of one window to the start of the next, in `1..=context`. Each byte is
    /// predicted from at least `context − stride + 1` bytes, except at the beginning of the text.
    pub stride: usize,
    /// Batches prepared ahead by one thread; 0 prepares each on request. The batches are the same.
    pub prefetch: usize,
}

/// A deterministic loader of [`TextBatch`]es.
///
/// [`windows`](Self::windows) and [`scoring`](Self::scoring) make one.
///
/// Its items are windows: [`num_items`](DataLoader::num_items), the progress and
/// [`slice`](DataLoader::slice) count windows. Slices that cover all items together have each
/// window once. Every call of [`iter`](DataLoader::iter) yields the same batches, beginning with
/// the one that [`starting_at`](Self::starting_at) sets. [`from_step`](Self::from_step) begins with
/// any batch.
#[derive(Clone)]
pub struct TextLoader {
    windows: Windows,
    batch_size: usize,
    prefetch: usize,
    device: Device,
    /// The windows that this loader yields.
    shard: Range<usize>,
    first_batch: usize,
}

impl TextLoader {
    /// Random windows of `context + 1` bytes, of which the model reads all but the last.
    ///
    /// Row `r` of step `s` begins at the `r`-th random number of (seed, `s`), uniform in
    /// `0..len − context`. A batch depends on nothing else.
    ///
    /// # Errors
    ///
    /// If the batch size, the context or the number of steps is 0, or the text has fewer than
    /// `context + 1` bytes.
    pub fn windows(text: Text, config: WindowConfig, device: &Device) -> Result<Self> {
        let require = DataError::require;
        let WindowConfig {
            batch_size,
            context,
            seed,
            steps,
            prefetch,
        } = config;
        require(batch_size > 0, "batch_size", "at least 1", &batch_size)?;
        require(context > 0, "context", "at least 1", &context)?;
        require(
            context < text.len(),
            "context",
            &format!(
                "below {}, the number of bytes of the text, since each window has one more",
                text.len()
            ),
            &context,
        )?;
        let limit = usize::MAX / batch_size;
        require(
            (1..=limit).contains(&steps),
            "steps",
            &format!("between 1 and {limit}"),
            &steps,
        )?;
        Ok(Self {
            windows: Windows {
                text,
                context,
                kind: Kind::Random { seed, batch_size },
            },
            batch_size,
            prefetch,
            device: device.clone(),
            shard: 0..steps * batch_size,
            first_batch: 0,
        })
    }

    /// The whole text, each byte scored once.
    ///
    /// The model reads [`START_BYTE`](crate::START_BYTE) and then the text; target `k` is
    /// `text[k]`. Window `w` has the targets `w · stride .. min(w · stride + context, len)` and
    /// scores those that no earlier window has. The first window scores all its targets, each later
    /// one its last `stride`, and the last one the rest of the text. A last window of fewer than
    /// `context` bytes is a batch of its own.
    ///
    /// # Errors
    ///
    /// If the batch size or the context is 0, the stride is not in `1..=context`, or the text is
    /// empty.
    pub fn scoring(text: Text, config: ScoringConfig, device: &Device) -> Result<Self> {
        let require = DataError::require;
        let ScoringConfig {
            batch_size,
            context,
            stride,
            prefetch,
        } = config;
        require(batch_size > 0, "batch_size", "at least 1", &batch_size)?;
        require(context > 0, "context", "at least 1", &context)?;
        require(
            (1..=context).contains(&stride),
            "stride",
            &format!("between 1 and {context}, the context"),
            &stride,
        )?;
        let len = text.len();
        require(len > 0, "the number of bytes", "at least 1", &len)?;
        let count = 1 + len.saturating_sub(context).div_ceil(stride);
        Ok(Self {
            windows: Windows {
                text,
                context,
                kind: Kind::InTurn { stride },
            },
            batch_size,
            prefetch,
            device: device.clone(),
            shard: 0..count,
            first_batch: 0,
        })
    }

    /// The same loader without the batches before `step`; empty if there are no more.
    #[must_use]
    pub fn starting_at(self, step: usize) -> Self {
        Self {
            first_batch: step,
            ..self
        }
    }

    /// Batches in an iteration, those before [`starting_at`](Self::starting_at) included.
    pub fn batches_per_epoch(&self) -> usize {
        let (whole, short) = self.parts();
        whole.len().div_ceil(self.batch_size) + short.len()
    }

    /// The same loader with its batches on another device.
    #[must_use]
    pub fn on(self, device: &Device) -> Self {
        Self {
            device: device.clone(),
            ..self
        }
    }

    /// The batches from training step `step` to the end of the epoch, of which there is one.
    ///
    /// For random windows, this epoch has the [`steps`](WindowConfig::steps) of the whole run.
    /// There is no batch if `step` is not below [`batches_per_epoch`](Self::batches_per_epoch).
    pub fn from_step(&self, step: usize) -> TextIterator {
        let batches = self.batches_per_epoch();
        let first = step.min(batches);
        let (whole, _) = self.parts();
        let skipped = match first < batches {
            true => (first * self.batch_size).min(whole.len()),
            false => self.num_items(),
        };
        let loader = self.clone();
        TextIterator {
            source: Prefetch::start(
                move |i| loader.windows.batch(loader.batch(i)),
                first..batches,
                self.prefetch,
            ),
            device: self.device.clone(),
            processed: skipped,
            items: self.num_items(),
        }
    }

    /// The text that is loaded.
    pub fn text(&self) -> &Text {
        &self.windows.text
    }

    /// The windows of whole length and the shorter one after them, if there is one.
    fn parts(&self) -> (Range<usize>, Range<usize>) {
        let Range { start, end } = self.shard;
        let short = start < end && self.windows.targets(end - 1).len() < self.windows.context;
        let middle = end - usize::from(short);
        (start..middle, middle..end)
    }

    /// The windows of batch `i`.
    fn batch(&self, i: usize) -> Range<usize> {
        let (whole, short) = self.parts();
        let from = whole.start.saturating_add(i * self.batch_size);
        if from < whole.end {
            from..whole.end.min(from.saturating_add(self.batch_size))
        } else {
            short
        }
    }
}

impl DataLoader<TextBatch> for TextLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<TextBatch> + 'a> {
        Box::new(self.from_step(self.first_batch))
    }

    fn num_items(&self) -> usize {
        self.shard.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<TextBatch>> {
        Arc::new(Self {
            device: device.clone(),
            ..self.clone()
        })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<TextBatch>> {
        let at = |i: usize| self.shard.start.saturating_add(i).min(self.shard.end);
        let (start, end) = (at(start), at(end));
        Arc::new(Self {
            shard: start..end.max(start),
            ..self.clone()
        })
    }
}

/// The windows of a text, by number.
#[derive(Clone)]
struct Windows {
    text: Text,
    context: usize,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Random { seed: u64, batch_size: usize },
    InTurn { stride: usize },
}

impl Windows {
    /// The positions of window `i`'s targets in the text.
    fn targets(&self, i: usize) -> Range<usize> {
        let len = self.text.len();
        let start = match self.kind {
            Kind::Random { seed, batch_size } => {
                let mut rng = Rng::stream(Purpose::Windows, &[seed, (i / batch_size) as u64]);
                rng.skip((i % batch_size) as u64);
                // The target of the window's first byte is its second.
                1 + rng.below(len - self.context)
            }
            Kind::InTurn { stride } => i * stride,
        };
        start..start.saturating_add(self.context).min(len)
    }

    /// How many of the first targets of window `i` the window before it scores.
    fn seen(&self, i: usize) -> usize {
        match self.kind {
            Kind::InTurn { stride } if i > 0 => self.context - stride,
            Kind::InTurn { .. } | Kind::Random { .. } => 0,
        }
    }

    /// A batch of windows of one length.
    fn batch(&self, windows: Range<usize>) -> HostBatch {
        let rows = windows.len();
        let length = self.targets(windows.start).len();
        let size = rows * length;
        let mut inputs = Vec::with_capacity(size);
        let mut targets = Vec::with_capacity(size);
        let mut weights = Vec::new();
        let seen: usize = windows.clone().map(|i| self.seen(i)).sum();
        if seen > 0 {
            weights = vec![1.0; size];
        }
        for (row, i) in windows.enumerate() {
            let at = self.targets(i);
            inputs.extend(self.text.inputs(at.clone()).map(i32::from));
            targets.extend(self.text.bytes()[at].iter().map(|&b| i32::from(b)));
            if seen > 0 {
                weights[row * length..][..self.seen(i)].fill(0.0);
            }
        }
        HostBatch {
            inputs,
            targets,
            weights,
            dims: [rows, length],
            scored: size - seen,
        }
    }
}

/// A batch in host memory.
struct HostBatch {
    inputs: Vec<i32>,
    targets: Vec<i32>,
    /// Empty if all targets are scored.
    weights: Vec<f32>,
    dims: [usize; 2],
    scored: usize,
}

/// One iteration of a [`TextLoader`], or what is left of it.
pub struct TextIterator {
    source: Prefetch<HostBatch>,
    device: Device,
    processed: usize,
    items: usize,
}

impl Iterator for TextIterator {
    type Item = std::result::Result<TextBatch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = match self.source.next()? {
            Ok(batch) => batch,
            Err(error) => return Some(Err(DatasetError::new(error))),
        };
        let HostBatch {
            inputs,
            targets,
            weights,
            dims,
            scored,
        } = batch;
        self.processed += dims[0];
        // Tensors are made on the caller's thread: some backends keep a stream for each thread.
        let device = &self.device;
        Some(Ok(TextBatch {
            inputs: Tensor::from_data(TensorData::new(inputs, dims), device),
            targets: Tensor::from_data(TensorData::new(targets, dims), device),
            weights: (!weights.is_empty())
                .then(|| Tensor::from_data(TensorData::new(weights, dims), device)),
            scored,
        }))
    }
}

impl DataLoaderIterator<TextBatch> for TextIterator {
    /// Windows yielded, and those skipped before them.
    fn progress(&self) -> Progress {
        Progress::new(self.processed, self.items, Some("items".into()))
    }
}
