//! The loader of images: batches in an order that depends on the seed and the epoch alone.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::augment::{Augment, Canvas, Cutter, Pair, Window, mixed};
use crate::image_set::{ImageSet, ImageShape};
use crate::normalization::Normalization;
use crate::prefetch::Prefetch;
use crate::{DataError, Result, rng};

/// A batch of images on a device.
#[derive(Clone, Debug)]
pub struct ImageBatch {
    /// Normalised images, `[batch_size, channels, height, width]`.
    pub images: Tensor<4>,
    /// Their labels, `[batch_size]`. Of a mixed image it is the label with the larger share.
    pub targets: Tensor<1, Int>,
    /// The share `q` of each class, `[batch_size, classes]`, where the loss of a row is
    /// `−Σⱼ qⱼ log pⱼ` rather than the cross-entropy of its label: of mixed images and of smoothed
    /// labels.
    ///
    /// For an image of label `a` that is mixed with one of label `b` it is
    /// `q = (1 − ε) (λ e_a + (1 − λ) e_b) + ε / classes`, with the λ of [`Mixup`](crate::Mixup), or 1,
    /// and the ε of [`LoaderConfig::label_smoothing`].
    pub soft: Option<Tensor<2>>,
}

/// How an [`ImageLoader`] cuts a set into batches.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderConfig {
    /// Records in a batch.
    pub batch_size: usize,
    /// The seed of the order and of the augmentation.
    pub seed: u64,
    /// Whether each epoch has its own random order; otherwise it has the order of the set.
    pub shuffle: bool,
    /// Whether a last batch of fewer records is left out.
    pub drop_last: bool,
    /// The changes made to each image.
    pub augment: Augment,
    /// Label smoothing: the share ε of a label that is spread over all classes evenly, from 0 to
    /// below 1 (Szegedy et al. 2015, [arXiv 1512.00567](https://arxiv.org/abs/1512.00567), section 7).
    /// 0: none.
    pub label_smoothing: f32,
    /// The mean and the standard deviation of each channel.
    pub normalization: Normalization,
    /// Batches prepared ahead by one thread; 0 prepares each on request. The batches are the same,
    /// bit for bit.
    pub prefetch: usize,
}

/// An image of a batch: a window of a record, of the record's size. The window is moved by (`down`, `right`) pixels over the record, and
/// then mirrored or not. It is black, byte 0, where it leaves the record.
///
/// For a width W, the byte of the window at row y and column x is that of the record at row `y + down` and column `x' + right`, where
/// `x'` is `W − 1 − x` if it is mirrored, else x.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageWindow {
    /// The number of the record in the set.
    pub record: u32,
    /// Rows.
    pub down: isize,
    /// Columns.
    pub right: isize,
    /// Whether it is mirrored left to right.
    pub flip: bool,
}

/// The normalised images of these windows, `[windows, channels, height, width]`, on the device of the batch. See [`ImageLoader::cut_by`].
pub type ImageCutter = Arc<dyn Fn(&[ImageWindow]) -> Tensor<4> + Send + Sync>;

/// A deterministic loader of [`ImageBatch`]es.
///
/// The n-th call of [`iter`](DataLoader::iter) (from 0) yields epoch `first + n`, where `first` is
/// 0 unless [`starting_at`](Self::starting_at) sets it. The order of an epoch is a function of
/// (seed, epoch), and the augmentation of a record is a function of (seed, epoch, record). Neither
/// depends on the batch size, the threads or the batch at which the epoch was resumed. Mixup alone
/// depends on the batch as well, since it mixes the images of one.
/// [`from_step`](Self::from_step) gives the batches of any step, whatever was yielded before.
///
/// [`to_device`](DataLoader::to_device) shares the count of epochs with the loader that it was
/// called on. [`slice`](DataLoader::slice) takes positions `start..end` of every epoch's order and
/// has its own count. Slices that cover `0..len` together yield each record once per epoch. Slices
/// of equal length have equally many batches.
#[derive(Clone)]
pub struct ImageLoader {
    set: ImageSet,
    config: LoaderConfig,
    cutter: Arc<Cutter>,
    device: Device,
    /// Positions of the epoch's order that this loader yields.
    shard: Range<usize>,
    /// The rows of each batch that are made, of as many as it has.
    rows: Rows,
    /// What may make the images in place of the loader.
    cuts: Option<Cuts>,
    first_epoch: u64,
    first_batch: usize,
    /// Epochs begun so far.
    begun: Arc<AtomicU64>,
}

/// The rows of a batch that are wanted, as a function of how many it has.
type Rows = Arc<dyn Fn(usize) -> Range<usize> + Send + Sync>;

/// For a device, what cuts its images in place of the loader.
type Cuts = Arc<dyn Fn(&Device) -> Option<ImageCutter> + Send + Sync>;

impl ImageLoader {
    /// A loader of all records of `set`, whose batches are on `device`.
    ///
    /// # Errors
    ///
    /// If the batch size is 0, the set is empty or has less than one batch under `drop_last`,
    /// the label smoothing is out of range, the augmentation does not pass [`Augment::fits`], or the
    /// normalisation does not pass [`Normalization::check`].
    pub fn new(set: ImageSet, config: LoaderConfig, device: &Device) -> Result<Self> {
        let batch_size = config.batch_size;
        let shape = set.shape();
        let require = DataError::require;
        require(batch_size > 0, "batch_size", "at least 1", &batch_size)?;
        require(
            !set.is_empty() && u32::try_from(set.len()).is_ok(),
            "the number of records",
            "between 1 and 4,294,967,295",
            &set.len(),
        )?;
        require(
            !config.drop_last || batch_size <= set.len(),
            "batch_size",
            &format!(
                "at most the {} records of the set, since drop_last is on",
                set.len()
            ),
            &batch_size,
        )?;
        require(
            (0.0..1.0).contains(&config.label_smoothing),
            "label_smoothing",
            "from 0 to below 1",
            &config.label_smoothing,
        )?;
        config.augment.fits(shape)?;
        config.normalization.check(shape.channels)?;
        Ok(Self {
            shard: 0..set.len(),
            rows: Arc::new(|all| 0..all),
            cuts: None,
            cutter: Arc::new(Cutter::new(shape, &config.normalization)),
            set,
            config,
            device: device.clone(),
            first_epoch: 0,
            first_batch: 0,
            begun: Arc::default(),
        })
    }

    /// The same loader, beginning at `batch` of `epoch`; the epochs after it are complete. If
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
        let len = self.set.len();
        let mut order = match self.config.shuffle {
            true => rng::order(self.config.seed, epoch, len),
            false => (0..len as u32).collect(),
        };
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

    /// The same loader with its batches on another device.
    #[must_use]
    pub fn on(self, device: &Device) -> Self {
        Self {
            device: device.clone(),
            ..self
        }
    }

    /// The same loader, which makes only some rows of each batch: those that `rows` gives for the number of rows of the
    /// whole batch. They are what the whole batch has in these rows, also under mixup.
    ///
    /// # Panics
    ///
    /// The batches, if these rows are not within the batch.
    #[must_use]
    pub fn with_rows(self, rows: impl Fn(usize) -> Range<usize> + Send + Sync + 'static) -> Self {
        Self {
            rows: Arc::new(rows),
            ..self
        }
    }

    /// The same loader, whose images are made by `cuts`, for example on a device that holds the set's
    /// [bytes](ImageSet::all_pixels): the loader draws only the [windows](ImageWindow) of a batch. A byte's value is in
    /// [`Normalization::table`].
    ///
    /// `cuts` is called with the loader's device whenever an epoch, or the rest of one, begins. Where it gives `None`, the loader makes the images. What it
    /// gives is called on the thread that takes the batches.
    ///
    /// # Errors
    ///
    /// If the augmentation changes more than windows: not [`Augment::only_moves`].
    pub fn cut_by(
        self,
        cuts: impl Fn(&Device) -> Option<ImageCutter> + Send + Sync + 'static,
    ) -> Result<Self> {
        let augment = &self.config.augment;
        DataError::require(
            augment.only_moves(),
            "augment",
            "of crop and flip alone, for images that are not made by the loader",
            augment,
        )?;
        Ok(Self {
            cuts: Some(Arc::new(cuts)),
            ..self
        })
    }

    /// The batches from training step `step`, counted from 0 over the whole run, to the end of the
    /// epoch of that step. The count of epochs does not change.
    ///
    /// A run of any length repeats this call with the step after the last one.
    pub fn from_step(&self, step: usize) -> ImageIterator {
        // A slice may be too short for a batch under `drop_last`: then no step has one.
        let per_epoch = self.batches_per_epoch().max(1);
        self.epoch((step / per_epoch) as u64, step % per_epoch)
    }

    /// `epoch` from `batch` on, whatever was yielded before. The count of epochs does not change.
    pub fn epoch(&self, epoch: u64, batch: usize) -> ImageIterator {
        let batches = self.batches_per_epoch();
        let next = batch.min(batches);
        let order = if next < batches {
            self.order(epoch)
        } else {
            Vec::new()
        };
        let cuts = self.cuts.as_ref().filter(|_| next < batches);
        let cut = cuts.and_then(|cuts| cuts(&self.device));
        let assembly = Assembly {
            set: self.set.clone(),
            only_windows: cut.is_some(),
            cutter: self.cutter.clone(),
            augment: self.config.augment.clone(),
            label_smoothing: self.config.label_smoothing,
            seed: self.config.seed,
            batch_size: self.config.batch_size,
            epoch,
            order,
            rows: self.rows.clone(),
        };
        let items = self.num_items();
        ImageIterator {
            source: Prefetch::start(
                move |i| assembly.batch(i),
                next..batches,
                self.config.prefetch,
            ),
            device: self.device.clone(),
            cut,
            shape: self.set.shape(),
            classes: self.set.num_classes(),
            processed: (next * self.config.batch_size).min(items),
            items,
            whole: 0,
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
    images: Images,
    targets: Vec<i32>,
    /// `[targets, classes]`
    soft: Option<Vec<f32>>,
    /// Rows of the whole batch.
    whole: usize,
}

/// The images of a batch, or what is to be made of the set's bytes.
enum Images {
    Made(Vec<f32>),
    Windows(Vec<ImageWindow>),
}

/// Makes the batches of one epoch.
struct Assembly {
    set: ImageSet,
    /// Whether the images are made by something else.
    only_windows: bool,
    cutter: Arc<Cutter>,
    augment: Augment,
    label_smoothing: f32,
    seed: u64,
    batch_size: usize,
    epoch: u64,
    order: Vec<u32>,
    rows: Rows,
}

impl Assembly {
    fn batch(&self, i: usize) -> Result<HostBatch> {
        let from = i * self.batch_size;
        let to = (from + self.batch_size).min(self.order.len());
        let records = &self.order[from..to];
        let whole = records.len();
        let own = (self.rows)(whole);
        let Some(mixup) = self.augment.mixup() else {
            let records = &records[own];
            let images = match self.only_windows {
                true => Images::Windows(self.windows(records)),
                false => Images::Made(self.images(records)?),
            };
            let targets = self.targets(records);
            let soft = (self.label_smoothing > 0.0).then(|| self.soft(&targets, None));
            return Ok(HostBatch {
                images,
                targets,
                soft,
                whole,
            });
        };
        // Any image may be mixed with one of these rows.
        let (images, targets) = (self.images(records)?, self.targets(records));
        let pairs = mixup.pairs(self.seed, self.epoch, records);
        let soft = self.soft(&targets, Some(&pairs));
        let classes = self.set.num_classes();
        let larger = |(i, pair): (usize, &Pair)| match pair.share < 0.5 {
            true => targets[pair.other],
            false => targets[i],
        };
        let all_targets: Vec<i32> = pairs.iter().enumerate().map(larger).collect();
        let size = self.set.shape().bytes();
        let images = mixed(&images, size, &pairs);
        Ok(HostBatch {
            images: Images::Made(images[own.start * size..own.end * size].to_vec()),
            targets: all_targets[own.clone()].to_vec(),
            soft: Some(soft[own.start * classes..own.end * classes].to_vec()),
            whole,
        })
    }

    /// The augmented images of `records`.
    fn images(&self, records: &[u32]) -> Result<Vec<f32>> {
        let mut images = Vec::with_capacity(records.len() * self.set.shape().bytes());
        let mut canvas = Canvas::new(&self.cutter);
        let read = self.set.read(records)?;
        for (&record, pixels) in records.iter().zip(&read) {
            canvas.begin(pixels);
            self.augment
                .apply(self.seed, self.epoch, record, &mut canvas);
            canvas.finish(&mut images);
        }
        Ok(images)
    }

    /// The windows that these images are.
    fn windows(&self, records: &[u32]) -> Vec<ImageWindow> {
        let window = |&record: &u32| {
            let window = self.augment.window(self.seed, self.epoch, record);
            let Window { down, right, flip } = window.expect("`cut_by` has checked the list");
            ImageWindow {
                record,
                down,
                right,
                flip,
            }
        };
        records.iter().map(window).collect()
    }

    /// The labels of `records`.
    fn targets(&self, records: &[u32]) -> Vec<i32> {
        let label = |&record: &u32| i32::from(self.set.label(record as usize));
        records.iter().map(label).collect()
    }

    /// The share of each class in each row.
    fn soft(&self, targets: &[i32], pairs: Option<&[Pair]>) -> Vec<f32> {
        let classes = self.set.num_classes();
        let smoothing = self.label_smoothing;
        let mut soft = vec![smoothing / classes as f32; targets.len() * classes];
        for (i, row) in soft.chunks_exact_mut(classes).enumerate() {
            let own = Pair {
                other: i,
                share: 1.0,
            };
            let Pair { other, share } = pairs.map_or(own, |pairs| pairs[i]);
            row[targets[i] as usize] += (1.0 - smoothing) * share;
            row[targets[other] as usize] += (1.0 - smoothing) * (1.0 - share);
        }
        soft
    }
}

/// One epoch of an [`ImageLoader`], or what is left of it.
pub struct ImageIterator {
    source: Prefetch<Result<HostBatch>>,
    device: Device,
    /// What makes the images, if the loader does not.
    cut: Option<ImageCutter>,
    shape: ImageShape,
    classes: usize,
    processed: usize,
    items: usize,
    whole: usize,
}

impl ImageIterator {
    /// The rows of the batch that was yielded last, with those that [`ImageLoader::with_rows`] has left out.
    pub fn rows_of_batch(&self) -> usize {
        self.whole
    }
}

impl Iterator for ImageIterator {
    type Item = std::result::Result<ImageBatch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let HostBatch {
            images,
            targets,
            soft,
            whole,
        } = match self.source.next()?.flatten() {
            Ok(batch) => batch,
            Err(error) => return Some(Err(DatasetError::new(error))),
        };
        let n = targets.len();
        self.processed += whole;
        self.whole = whole;
        // Tensors are made on the caller's thread: some backends keep a stream for each thread.
        let ImageShape {
            channels,
            height,
            width,
        } = self.shape;
        let images = match (images, &self.cut) {
            (Images::Made(images), _) => {
                let images = TensorData::new(images, [n, channels, height, width]);
                Tensor::from_data(images, &self.device)
            }
            (Images::Windows(windows), Some(cut)) => cut(&windows),
            (Images::Windows(_), None) => unreachable!("windows are for what cuts them"),
        };
        let soft = soft.map(|soft| TensorData::new(soft, [n, self.classes]));
        Some(Ok(ImageBatch {
            images,
            targets: Tensor::from_data(TensorData::new(targets, [n]), &self.device),
            soft: soft.map(|soft| Tensor::from_data(soft, &self.device)),
        }))
    }
}

impl DataLoaderIterator<ImageBatch> for ImageIterator {
    /// Items yielded and, if the epoch was begun in the middle, those before it.
    fn progress(&self) -> Progress {
        Progress::new(self.processed, self.items, Some("items".into()))
    }
}
