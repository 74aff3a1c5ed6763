//! Where batches come from: functions of the seed and the step.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::Device;
use rezero_data::{Prefetch, rng::order};

use super::model::Batch;
use super::step::Input;
use crate::recipe::Settings;

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

/// Any Burn [`Dataset`] as a [`Source`]. Items are read ahead by a thread, as `run.prefetch` says; batches
/// are made of them on the thread of the loop, since some backends keep a stream for each thread.
///
/// ```
/// use burn::data::dataset::InMemDataset;
/// use burn::tensor::{Device, Tensor};
/// use rezero_train::fit::{DatasetSource, Source};
/// use rezero_train::recipe::Settings;
///
/// let settings = Settings::parse("[train]\nbatch = 4").unwrap();
/// let numbers = InMemDataset::new((0..10).map(|i| i as f32).collect());
/// let source = DatasetSource::training(numbers, &settings, |items: Vec<f32>, device: &Device| {
///     let x = Tensor::<1>::from_floats(items.as_slice(), device);
///     (x.clone(), x.square())
/// });
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
    prefetch: usize,
}

type Batcher<I, B> = dyn Fn(Vec<I>, &Device) -> B + Send + Sync;

impl<I: Send + 'static, B: Batch> DatasetSource<I, B> {
    /// The items of `dataset`, `train.batch` at a time, in an order of their own in each epoch, which is a
    /// function of (`train.seed`, epoch); `batcher` makes a batch of them.
    ///
    /// # Panics
    ///
    /// If the data set is empty.
    pub fn training(
        dataset: impl Dataset<I> + 'static,
        settings: &Settings,
        batcher: impl Fn(Vec<I>, &Device) -> B + Send + Sync + 'static,
    ) -> Self {
        let train = &settings.train;
        Self::new(dataset, settings, train.batch, Some(train.seed), batcher)
    }

    /// The items of `dataset` in their order, as many at a time as a training step holds.
    ///
    /// # Panics
    ///
    /// If the data set is empty.
    pub fn scoring(
        dataset: impl Dataset<I> + 'static,
        settings: &Settings,
        batcher: impl Fn(Vec<I>, &Device) -> B + Send + Sync + 'static,
    ) -> Self {
        let size = settings.train.batch.div_ceil(settings.train.accumulate);
        Self::new(dataset, settings, size, None, batcher)
    }

    fn new(
        dataset: impl Dataset<I> + 'static,
        settings: &Settings,
        batch_size: usize,
        seed: Option<u64>,
        batcher: impl Fn(Vec<I>, &Device) -> B + Send + Sync + 'static,
    ) -> Self {
        assert!(!dataset.is_empty(), "the data set has no item.");
        Self {
            dataset: Arc::new(dataset),
            batcher: Arc::new(batcher),
            batch_size: batch_size.max(1),
            seed,
            prefetch: settings.run.prefetch,
        }
    }
}

impl<I: Send + 'static, B: Batch> Source for DatasetSource<I, B> {
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
        let (len, size) = (self.dataset.len(), self.batch_size);
        let order: Vec<u32> = match self.seed {
            Some(seed) => order(seed, epoch as u64, len),
            None => (0..len as u32).collect(),
        };
        let dataset = self.dataset.clone();
        let read = move |i: usize| {
            let indices = order[i * size..order.len().min((i + 1) * size)].iter();
            dataset.get_many(indices.map(|i| *i as usize).collect())
        };
        Box::new(DatasetBatches {
            items: Prefetch::start(read, batch..self.batches_per_epoch(), self.prefetch),
            batcher: self.batcher.clone(),
            done: batch * size,
            all: len,
            device: device.clone(),
        })
    }
}

struct DatasetBatches<I, B> {
    items: Prefetch<Result<Vec<I>, DatasetError>>,
    batcher: Arc<Batcher<I, B>>,
    done: usize,
    all: usize,
    device: Device,
}

impl<I: Send + 'static, B> Iterator for DatasetBatches<I, B> {
    type Item = Result<B, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let items = match self.items.next()? {
            Ok(Ok(items)) => items,
            Ok(Err(error)) => return Some(Err(error)),
            Err(error) => return Some(Err(DatasetError::new(error))),
        };
        self.done += items.len();
        Some(Ok((self.batcher)(items, &self.device)))
    }
}

impl<I: Send + 'static, B> DataLoaderIterator<B> for DatasetBatches<I, B> {
    fn progress(&self) -> Progress {
        Progress::new(self.done, self.all, Some("items".into()))
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
