//! Where batches come from: functions of the seed and the step.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::Device;
use rezero_data::rng::order;

use super::model::Batch;
use super::step::Input;

/// The batches of a run, each a function of the seed and the step: a resumed run sees what the
/// undisturbed one would have.
pub trait Source: Send + Sync + 'static {
    /// What one step learns from.
    type Batch: Batch;

    /// Batches in an epoch.
    fn batches_per_epoch(&self) -> usize;

    /// Rows in an epoch, for the progress that is shown.
    fn rows_per_epoch(&self) -> usize;

    /// The batches from training step `step`, counted over the whole run from 0, to the end of the epoch
    /// that it lies in, on `device`.
    fn batches_from(&self, step: usize, device: &Device) -> Batches<Self::Batch>;
}

/// Batches one after the other.
pub type Batches<B> = Box<dyn DataLoaderIterator<B>>;

/// Any Burn [`Dataset`] as a [`Source`].
///
/// ```
/// use burn::data::dataset::InMemDataset;
/// use burn::tensor::{Device, Tensor};
/// use rezero_train::fit::{DatasetSource, Source};
///
/// let numbers = InMemDataset::new((0..10).map(|i| i as f32).collect());
/// let source = DatasetSource::new(numbers, 4, |items: Vec<f32>, device: &Device| {
///     let x = Tensor::<1>::from_floats(items.as_slice(), device);
///     (x.clone(), x.square())
/// })
/// .shuffled(1);
/// assert_eq!(source.batches_per_epoch(), 3);
/// let batches: Vec<_> = source.batches_from(1, &Device::flex()).collect();
/// assert_eq!(batches.len(), 2);
/// ```
pub struct DatasetSource<I, B> {
    dataset: Arc<dyn Dataset<I>>,
    batcher: Arc<Batcher<I, B>>,
    batch_size: usize,
    /// The seed of the order; none: that of the data set.
    seed: Option<u64>,
}

type Batcher<I, B> = dyn Fn(Vec<I>, &Device) -> B + Send + Sync;

impl<I: 'static, B: Batch> DatasetSource<I, B> {
    /// The items of `dataset` in their order, `batch_size` at a time, made into a batch by `batcher`.
    ///
    /// # Panics
    ///
    /// If `batch_size` is 0 or the data set empty.
    pub fn new(
        dataset: impl Dataset<I> + 'static,
        batch_size: usize,
        batcher: impl Fn(Vec<I>, &Device) -> B + Send + Sync + 'static,
    ) -> Self {
        assert!(batch_size > 0, "a batch has at least one item.");
        assert!(!dataset.is_empty(), "the data set has no item.");
        Self {
            dataset: Arc::new(dataset),
            batcher: Arc::new(batcher),
            batch_size,
            seed: None,
        }
    }

    /// The same in an order of its own in each epoch, a function of (seed, epoch).
    #[must_use]
    pub fn shuffled(self, seed: u64) -> Self {
        Self {
            seed: Some(seed),
            ..self
        }
    }
}

impl<I: 'static, B: Batch> Source for DatasetSource<I, B> {
    type Batch = B;

    fn batches_per_epoch(&self) -> usize {
        self.dataset.len().div_ceil(self.batch_size)
    }

    fn rows_per_epoch(&self) -> usize {
        self.dataset.len()
    }

    fn batches_from(&self, step: usize, device: &Device) -> Batches<B> {
        let (epoch, batch) = (
            step / self.batches_per_epoch(),
            step % self.batches_per_epoch(),
        );
        let len = self.dataset.len();
        Box::new(DatasetBatches {
            dataset: self.dataset.clone(),
            batcher: self.batcher.clone(),
            order: match self.seed {
                Some(seed) => order(seed, epoch as u64, len),
                None => (0..len as u32).collect(),
            },
            next: batch * self.batch_size,
            batch_size: self.batch_size,
            device: device.clone(),
        })
    }
}

struct DatasetBatches<I, B> {
    dataset: Arc<dyn Dataset<I>>,
    batcher: Arc<Batcher<I, B>>,
    order: Vec<u32>,
    next: usize,
    batch_size: usize,
    device: Device,
}

impl<I, B> Iterator for DatasetBatches<I, B> {
    type Item = Result<B, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = self.order.len().min(self.next + self.batch_size);
        let indices = self.order.get(self.next..end)?;
        if indices.is_empty() {
            return None;
        }
        self.next = end;
        let items = self
            .dataset
            .get_many(indices.iter().map(|i| *i as usize).collect());
        Some(items.map(|items| (self.batcher)(items, &self.device)))
    }
}

impl<I, B> DataLoaderIterator<B> for DatasetBatches<I, B> {
    fn progress(&self) -> Progress {
        Progress::new(self.next, self.order.len(), Some("items".into()))
    }
}

/// A source behind Burn's trait, which its Learner is given.
pub(super) struct Loader<S> {
    source: Arc<S>,
    device: Device,
    /// The step that the next iteration begins at; the loop sets it.
    step: Arc<AtomicUsize>,
}

impl<S: Source> Loader<S> {
    pub fn new(source: S, device: Device, step: Arc<AtomicUsize>) -> Self {
        Self {
            source: Arc::new(source),
            device,
            step,
        }
    }
}

impl<S: Source> DataLoader<Input<S::Batch>> for Loader<S> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Input<S::Batch>> + 'a> {
        let step = self.step.load(Ordering::Relaxed);
        Box::new(Inputs(self.source.batches_from(step, &self.device)))
    }

    fn num_items(&self) -> usize {
        self.source.rows_per_epoch()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Input<S::Batch>>> {
        Arc::new(Self {
            source: self.source.clone(),
            device: device.clone(),
            step: self.step.clone(),
        })
    }

    /// The whole: our loop cuts each batch instead.
    fn slice(&self, _start: usize, _end: usize) -> Arc<dyn DataLoader<Input<S::Batch>>> {
        self.to_device(&self.device)
    }
}

struct Inputs<B>(Batches<B>);

impl<B> Iterator for Inputs<B> {
    type Item = Result<Input<B>, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        // The loop seeds each step.
        Some(self.0.next()?.map(Input::new))
    }
}

impl<B> DataLoaderIterator<Input<B>> for Inputs<B> {
    fn progress(&self) -> Progress {
        self.0.progress()
    }
}
