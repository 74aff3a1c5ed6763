//! The loader: batches in an order that depends on nothing but the seed and the epoch.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::augment::{Augment, Table};
use crate::image_set::{CHANNELS, IMAGE_BYTES, ImageSet, Normalization, SIDE};
use crate::rng::{Purpose, Rng};
use crate::{DataError, Result};

/// A batch of images on a device.
#[derive(Clone, Debug)]
pub struct ImageBatch {
    /// Normalised images, `[batch_size, 3, 32, 32]`.
    pub images: Tensor<4>,
    /// Their labels, `[batch_size]`.
    pub targets: Tensor<1, Int>,
}

/// How an [`ImageLoader`] cuts a set into batches.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderConfig {
    /// Records in a batch.
    pub batch_size: usize,
    /// The seed of the order and of the augmentation.
    pub seed: u64,
    /// Whether each epoch has its own random order; otherwise that of the set.
    pub shuffle: bool,
    /// Whether a last batch of fewer records is left out.
    pub drop_last: bool,
    /// The change made to each image.
    pub augment: Augment,
    /// The constants of the normalisation.
    pub normalization: Normalization,
    /// Batches made ready ahead, by one thread; 0 makes each when it is asked for. The batches are
    /// the same, bit for bit.
    pub prefetch: usize,
}

/// A deterministic loader of [`ImageBatch`]es.
///
/// The n-th call of [`iter`](DataLoader::iter) (from 0) yields epoch `first + n`, where `first` is
/// 0 or what [`starting_at`](Self::starting_at) says. The order of an epoch is a function of (seed,
/// epoch), and the augmentation of a record one of (seed, epoch, record): neither depends on batch
/// size, threads or where the epoch was resumed.
///
/// [`to_device`](DataLoader::to_device) shares the count of epochs with the loader that it was
/// called on. [`slice`](DataLoader::slice) takes positions `start..end` of every epoch's order and
/// counts for itself: slices that cover `0..len` see each record once an epoch between them, and
/// slices of equal length have equally many batches.
#[derive(Clone)]
pub struct ImageLoader {
    set: ImageSet,
    config: LoaderConfig,
    device: Device,
    /// Positions of the epoch's order that this loader yields.
    shard: Range<usize>,
    first_epoch: u64,
    first_batch: usize,
    /// Epochs begun so far.
    begun: Arc<AtomicU64>,
}

impl ImageLoader {
    /// A loader of all records of `set`, whose batches are on `device`.
    ///
    /// # Errors
    ///
    /// Where the batch size is 0, the set is empty or has less than one batch under `drop_last`,
    /// the padding exceeds 31, or a constant of the normalisation is not finite or a standard
    /// deviation not above 0.
    pub fn new(set: ImageSet, config: LoaderConfig, device: &Device) -> Result<Self> {
        let check = |ok: bool, setting, rule: &str, got: String| {
            let error = || DataError::Setting {
                setting,
                rule: rule.to_owned(),
                got,
            };
            if ok { Ok(()) } else { Err(error()) }
        };
        let LoaderConfig {
            batch_size,
            augment,
            normalization: n,
            ..
        } = config;
        check(
            batch_size > 0,
            "batch_size",
            "at least 1",
            batch_size.to_string(),
        )?;
        check(
            !set.is_empty() && u32::try_from(set.len()).is_ok(),
            "the number of records",
            "between 1 and 4,294,967,295",
            set.len().to_string(),
        )?;
        check(
            !config.drop_last || batch_size <= set.len(),
            "batch_size",
            &format!(
                "at most the {} records of the set, since drop_last is on",
                set.len()
            ),
            batch_size.to_string(),
        )?;
        let padding = augment.crop_padding;
        check(
            padding < SIDE,
            "crop_padding",
            "at most 31",
            padding.to_string(),
        )?;
        check(
            n.mean.iter().all(|m| m.is_finite()) && n.std.iter().all(|s| s.is_finite() && *s > 0.0),
            "normalization",
            "finite, with standard deviations above 0",
            format!("{n:?}"),
        )?;
        Ok(Self {
            shard: 0..set.len(),
            set,
            config,
            device: device.clone(),
            first_epoch: 0,
            first_batch: 0,
            begun: Arc::default(),
        })
    }

    /// The same loader, beginning at `batch` of `epoch`; the epochs after it are whole. Where
    /// `batch` is not below [`batches_per_epoch`](Self::batches_per_epoch), that first epoch has no
    /// batch.
    #[must_use]
    pub fn starting_at(self, epoch: u64, batch: usize) -> Self {
        Self {
            first_epoch: epoch,
            first_batch: batch,
            begun: Arc::default(),
            ..self
        }
    }

    /// Batches in a whole epoch.
    pub fn batches_per_epoch(&self) -> usize {
        let size = self.config.batch_size;
        if self.config.drop_last {
            self.shard.len() / size
        } else {
            self.shard.len().div_ceil(size)
        }
    }

    /// The records of `epoch`, in order, before the last batch is dropped.
    pub fn order(&self, epoch: u64) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.set.len() as u32).collect();
        if self.config.shuffle {
            let mut rng = Rng::stream(Purpose::Order, &[self.config.seed, epoch]);
            // Fisher and Yates, from the end.
            for i in (1..order.len()).rev() {
                order.swap(i, rng.below(i + 1));
            }
        }
        order.truncate(self.shard.end);
        order.drain(..self.shard.start);
        order
    }

    /// The epoch that the next call of [`iter`](DataLoader::iter) yields.
    pub fn next_epoch(&self) -> u64 {
        self.first_epoch
            .wrapping_add(self.begun.load(Ordering::Relaxed))
    }

    /// The set that is loaded.
    pub fn set(&self) -> &ImageSet {
        &self.set
    }

    /// The configuration.
    pub fn config(&self) -> &LoaderConfig {
        &self.config
    }

    /// `epoch` from `batch` on, whatever was yielded before; the count of epochs stays as it is.
    pub fn epoch(&self, epoch: u64, batch: usize) -> ImageIterator {
        let batches = self.batches_per_epoch();
        let next = batch.min(batches);
        let order = if next < batches {
            self.order(epoch)
        } else {
            Vec::new()
        };
        let assembly = Assembly {
            set: self.set.clone(),
            table: Table::new(self.config.normalization),
            config: self.config,
            epoch,
            order,
        };
        let items = self.num_items();
        ImageIterator {
            source: Source::start(
                move |i| assembly.batch(i),
                next..batches,
                self.config.prefetch,
            ),
            device: self.device.clone(),
            processed: (next * self.config.batch_size).min(items),
            items,
        }
    }
}

impl DataLoader<ImageBatch> for ImageLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<ImageBatch> + 'a> {
        let begun = self.begun.fetch_add(1, Ordering::Relaxed);
        let batch = if begun == 0 { self.first_batch } else { 0 };
        Box::new(self.epoch(self.first_epoch.wrapping_add(begun), batch))
    }

    fn num_items(&self) -> usize {
        self.shard
            .len()
            .min(self.batches_per_epoch() * self.config.batch_size)
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<ImageBatch>> {
        Arc::new(Self {
            device: device.clone(),
            ..self.clone()
        })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<ImageBatch>> {
        let at = |i: usize| self.shard.start.saturating_add(i).min(self.shard.end);
        let (start, end) = (at(start), at(end));
        // Each shard yields every epoch, so a shared count would skip some.
        let begun = AtomicU64::new(self.begun.load(Ordering::Relaxed));
        Arc::new(Self {
            shard: start..end.max(start),
            begun: Arc::new(begun),
            ..self.clone()
        })
    }
}

/// A batch in host memory.
struct HostBatch {
    images: Vec<f32>,
    targets: Vec<i32>,
}

/// Makes the batches of one epoch.
struct Assembly {
    set: ImageSet,
    table: Table,
    config: LoaderConfig,
    epoch: u64,
    order: Vec<u32>,
}

impl Assembly {
    fn batch(&self, i: usize) -> HostBatch {
        let from = i * self.config.batch_size;
        let to = (from + self.config.batch_size).min(self.order.len());
        let records = &self.order[from..to];
        let mut images = Vec::with_capacity(records.len() * IMAGE_BYTES);
        let mut targets = Vec::with_capacity(records.len());
        for &record in records {
            let window = self
                .config
                .augment
                .choose(self.config.seed, self.epoch, record);
            self.table
                .append(self.set.pixels(record as usize), window, &mut images);
            targets.push(i32::from(self.set.label(record as usize)));
        }
        HostBatch { images, targets }
    }
}

/// Values computed one after the other, either here or ahead by a thread.
enum Source<T> {
    Here {
        make: Box<dyn Fn(usize) -> T + Send>,
        range: Range<usize>,
    },
    Ahead {
        receiver: Option<Receiver<T>>,
        worker: Option<JoinHandle<()>>,
        left: usize,
    },
}

impl<T: Send + 'static> Source<T> {
    fn start(
        make: impl Fn(usize) -> T + Send + 'static,
        range: Range<usize>,
        prefetch: usize,
    ) -> Self {
        if prefetch == 0 || range.is_empty() {
            return Self::Here {
                make: Box::new(make),
                range,
            };
        }
        let left = range.len();
        // The thread holds one more than the channel, waiting to hand it over.
        let (sender, receiver) = sync_channel(prefetch - 1);
        let work = move || {
            for i in range {
                // The receiver is gone: nobody wants the rest.
                if sender.send(make(i)).is_err() {
                    break;
                }
            }
        };
        // If the system starts no thread, the sender is dropped with `work`, and `next` reports it.
        let worker = thread::Builder::new()
            .name("rezero-data".into())
            .spawn(work)
            .ok();
        Self::Ahead {
            receiver: Some(receiver),
            worker,
            left,
        }
    }

    fn next(&mut self) -> Option<Result<T>> {
        match self {
            Self::Here { make, range } => range.next().map(|i| Ok(make(i))),
            Self::Ahead { left: 0, .. } => None,
            Self::Ahead {
                receiver,
                worker,
                left,
            } => {
                if let Some(value) = receiver.as_ref().and_then(|r| r.recv().ok()) {
                    *left -= 1;
                    return Some(Ok(value));
                }
                // The sender is gone before its last value.
                *left = 0;
                let message = match worker.take().map(JoinHandle::join) {
                    Some(Err(panic)) => format!("panicked: {}", panic_message(&*panic)),
                    Some(Ok(())) => "ended early".into(),
                    None => "could not be started".into(),
                };
                Some(Err(DataError::Worker { message }))
            }
        }
    }
}

impl<T> Drop for Source<T> {
    fn drop(&mut self) {
        if let Self::Ahead {
            receiver, worker, ..
        } = self
        {
            // Dropping the receiver wakes the thread if it waits to hand over; it then ends after
            // at most the one batch that it is making.
            drop(receiver.take());
            if let Some(worker) = worker.take() {
                // A panic has been reported by `next`, or its batch was not asked for.
                let _ = worker.join();
            }
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
        .to_owned()
}

/// One epoch of an [`ImageLoader`], or what is left of it.
pub struct ImageIterator {
    source: Source<HostBatch>,
    device: Device,
    processed: usize,
    items: usize,
}

impl Iterator for ImageIterator {
    type Item = std::result::Result<ImageBatch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let HostBatch { images, targets } = match self.source.next()? {
            Ok(batch) => batch,
            Err(error) => return Some(Err(DatasetError::new(error))),
        };
        let n = targets.len();
        self.processed += n;
        // Tensors are made on the caller's thread: some backends keep a stream for each thread.
        let images = TensorData::new(images, [n, CHANNELS, SIDE, SIDE]);
        Some(Ok(ImageBatch {
            images: Tensor::from_data(images, &self.device),
            targets: Tensor::from_data(TensorData::new(targets, [n]), &self.device),
        }))
    }
}

impl DataLoaderIterator<ImageBatch> for ImageIterator {
    /// Items yielded and, where the epoch was begun in the middle, those before it.
    fn progress(&self) -> Progress {
        Progress::new(self.processed, self.items, Some("items".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_the_thread_is_an_error_after_the_good_values() {
        let mut source = Source::start(|i| if i < 3 { i } else { panic!("at {i}") }, 0..9, 2);
        for expected in 0..3 {
            assert_eq!(source.next().unwrap().unwrap(), expected);
        }
        let error = source.next().unwrap().unwrap_err();
        assert!(error.to_string().contains("at 3"), "{error}");
        assert!(source.next().is_none());
    }

    #[test]
    fn no_more_than_prefetch_values_are_made_ahead() {
        for prefetch in [1, 3] {
            let made = Arc::new(AtomicU64::new(0));
            let count = made.clone();
            let make = move |i| {
                count.fetch_add(1, Ordering::SeqCst);
                i
            };
            let mut source = Source::start(make, 0..100, prefetch);
            assert_eq!(source.next().unwrap().unwrap(), 0);
            thread::sleep(std::time::Duration::from_millis(50));
            assert!(made.load(Ordering::SeqCst) <= 1 + prefetch as u64);
            drop(source);
            assert!(made.load(Ordering::SeqCst) <= 2 + prefetch as u64);
        }
    }
}
