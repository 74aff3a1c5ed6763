//! Sources of batches, which are functions of the seed and the step.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::Device;
use rezero_data::{Prefetch, rng::order};

use super::model::Batch;
use super::step::Input;
use crate::error::Error;
use crate::ranks::Ranks;
use crate::recipe::Settings;

/// The batches of a run. Each is a function of the seed and the step, so that a resumed run gets
/// the same batches as a run without interruption.
pub trait Source: Send + Sync + 'static {
    /// The data of one training step.
    type Batch: Batch;

    /// Batches per epoch.
    fn batches_per_epoch(&self) -> usize;

    /// Rows per epoch, for the progress display.
    fn rows_per_epoch(&self) -> usize;

    /// The batches from training step `step` to the end of its epoch, on `device`. Steps are
    /// counted over the whole run, from 0.
    fn batches_from(&self, step: usize, device: &Device) -> Batches<Self::Batch>;

    /// The same batches, each cut to the [share](Ranks::share) of a rank. The default makes whole batches and cuts
    /// them; override it where batches are dear.
    fn shares_from(&self, step: usize, device: &Device, ranks: &Ranks) -> Shares<Self::Batch> {
        Box::new(Cutting {
            batches: self.batches_from(step, device),
            ranks: ranks.clone(),
        })
    }
}

/// An iterator over batches.
pub type Batches<B> = Box<dyn DataLoaderIterator<B>>;

/// An iterator over the shares of a rank.
pub type Shares<B> = Box<dyn DataLoaderIterator<Share<B>>>;

/// The rows of a batch that one rank computes.
#[derive(Clone, Debug)]
pub struct Share<B> {
    /// These rows.
    pub batch: B,
    /// The number of the first of them in the whole batch.
    pub first_row: usize,
    /// The number of rows of the whole batch.
    pub rows: usize,
    /// The number of its [items](Batch::items).
    pub items: usize,
}

struct Cutting<B> {
    batches: Batches<B>,
    ranks: Ranks,
}

impl<B: Batch> Iterator for Cutting<B> {
    type Item = Result<Share<B>, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.batches.next()?.map(|batch| {
            let (rows, items) = (batch.rows(), batch.items());
            let own = self.ranks.share(rows);
            Share {
                first_row: own.start,
                batch: batch.narrow(own),
                rows,
                items,
            }
        }))
    }
}

impl<B: Batch> DataLoaderIterator<Share<B>> for Cutting<B> {
    fn progress(&self) -> Progress {
        self.batches.progress()
    }
}

/// Any Burn [`Dataset`] as a [`Source`]. A thread reads the items of `run.prefetch` batches ahead.
/// The thread of the loop makes batches of them, because some backends have one stream per thread.
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
    /// The seed of the order. Without a seed, items come in the order of the data set.
    seed: Option<u64>,
    prefetch: usize,
}

type Batcher<I, B> = dyn Fn(Vec<I>, &Device) -> B + Send + Sync;

impl<I: Send + 'static, B: Batch> DatasetSource<I, B> {
    /// The items of `dataset` in batches of `train.batch`. The order is random in each epoch, as a
    /// function of (`train.seed`, epoch). `batcher` makes a batch of items.
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

    /// The items of `dataset` in their order, for validation. A batch is as large as one part of a
    /// training step: `train.batch / train.accumulate`, rounded up.
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
            let indices = &order[i * size..order.len().min((i + 1) * size)];
            let items = dataset.get_many(indices.iter().map(|i| *i as usize).collect())?;
            match items.len() == indices.len() {
                true => Ok(items),
                false => Err(DatasetError::new(Error::Training(format!(
                    "the data set has {len} items by its len(), and get_many gave {} of {}",
                    items.len(),
                    indices.len()
                )))),
            }
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

/// A source as a Burn [`DataLoader`], for Burn's Learner.
pub(super) struct Loader<S> {
    source: Arc<S>,
    device: Device,
    /// The step that the next iteration begins at; the loop sets it.
    step: Arc<AtomicUsize>,
    ranks: Ranks,
    cut: Cut,
}

/// What a rank gets of the batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Its share of the rows of each, in training.
    Rows,
    /// Each n-th batch of n ranks, for scoring.
    Batches,
}

impl<S: Source> Loader<S> {
    pub fn new(source: S, device: Device, step: Arc<AtomicUsize>, ranks: Ranks, cut: Cut) -> Self {
        Self {
            source: Arc::new(source),
            device,
            step,
            ranks,
            cut,
        }
    }
}

impl<S: Source> DataLoader<Input<S::Batch>> for Loader<S> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Input<S::Batch>> + 'a> {
        let step = self.step.load(Ordering::Relaxed);
        let (source, device, ranks) = (&self.source, &self.device, &self.ranks);
        match self.cut {
            _ if ranks.size() == 1 => Box::new(Each {
                batches: source.batches_from(step, device),
                left_out: 0,
                others: 0,
            }),
            Cut::Rows => Box::new(Own(source.shares_from(step, device, ranks), ranks.size())),
            Cut::Batches => {
                let others = ranks.size() - 1;
                Box::new(Each {
                    batches: source.batches_from(step, device),
                    left_out: ranks.rank(),
                    others,
                })
            }
        }
    }

    fn num_items(&self) -> usize {
        self.source.rows_per_epoch()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Input<S::Batch>>> {
        Arc::new(Self {
            source: self.source.clone(),
            device: device.clone(),
            step: self.step.clone(),
            ranks: self.ranks.clone(),
            cut: self.cut,
        })
    }

    /// The whole loader: our loop cuts each batch instead.
    fn slice(&self, _start: usize, _end: usize) -> Arc<dyn DataLoader<Input<S::Batch>>> {
        self.to_device(&self.device)
    }
}

/// Whole batches, of which some are for other ranks.
struct Each<B> {
    batches: Batches<B>,
    /// Batches to leave out before the next one.
    left_out: usize,
    /// Batches to leave out between two.
    others: usize,
}

impl<B: Batch> Iterator for Each<B> {
    type Item = Result<Input<B>, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        for _ in 0..std::mem::replace(&mut self.left_out, self.others) {
            // Its error is this rank's too: no batch follows it.
            if let Err(error) = self.batches.next()? {
                return Some(Err(error));
            }
        }
        let batch = self.batches.next()?;
        // The loop seeds each step.
        Some(batch.map(Input::new))
    }
}

impl<B: Batch> DataLoaderIterator<Input<B>> for Each<B> {
    fn progress(&self) -> Progress {
        self.batches.progress()
    }
}

/// A rank's shares of batches, and the number of ranks.
struct Own<B>(Shares<B>, usize);

impl<B: Batch> Iterator for Own<B> {
    type Item = Result<Input<B>, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.next()?.map(|share| Input {
            items: share.items,
            first_row: share.first_row,
            givers: share.rows.min(self.1),
            ..Input::new(share.batch)
        }))
    }
}

impl<B: Batch> DataLoaderIterator<Input<B>> for Own<B> {
    fn progress(&self) -> Progress {
        self.0.progress()
    }
}
