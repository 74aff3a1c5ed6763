//! Classes of images.

use std::ops::Range;
use std::path::Path;

use burn::data::dataloader::{DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::{Device, Tensor};
use rezero_data::{
    Augment, ImageBatch, ImageIterator, ImageLoader, ImageSet, ImageShape, LoaderConfig,
    MAX_CLASSES, Normalization, Split, cifar10, cifar100, folder,
    mnist::{self, FASHION_MNIST, MNIST},
    picture::{Preparation, Sizing},
    shapes,
};

use super::Domain;
use super::data_set::{BUILT_IN_SEED, Places, limited, of_split};
use super::on_device::{on_device, scored};
use crate::error::{Error, Result};
use crate::fit::{self, Batches, Share, Shares, Source, Sums, Task, integers_on};
use crate::ranks::Ranks;
use crate::recipe::check::{check, in_f32};
use crate::recipe::{
    ImageData, ImageSource, Override, Pixels, Resize, Settings, TaskOf, TaskRecipe,
};
use crate::record::Totals;
use crate::say::say;
use crate::zoo::ImagesOfFile;
use crate::{words, zoo};

/// The number of images of `shapes`: training, validation, test.
const SHAPES: [usize; 3] = [10_000, 1_000, 1_000];

/// Classification of images, measured by accuracy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Images;

/// The form of images and of their classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageForm {
    /// Channels, height and width.
    pub shape: ImageShape,
    /// The number of classes.
    pub num_classes: usize,
}

/// A row of the table of image data sets: the form of the data, the names of its classes, its mean
/// and standard deviation, and how it is opened.
struct Row {
    form: ImageForm,
    class_names: Vec<String>,
    normalization: Normalization,
    open: fn(&ImageData, &Places, Split) -> Result<ImageSet>,
}

/// The form of CIFAR-10's images, which needs no word in the identity of a network.
const OF_CIFAR10: ImageForm = ImageForm {
    shape: cifar10::SHAPE,
    num_classes: cifar10::CLASS_NAMES.len(),
};

/// The row of a data set that never changes.
fn fixed(
    shape: ImageShape,
    class_names: &[&str],
    normalization: Normalization,
    open: fn(&ImageData, &Places, Split) -> Result<ImageSet>,
) -> Row {
    Row {
        form: ImageForm {
            shape,
            num_classes: class_names.len(),
        },
        class_names: class_names.iter().map(|&name| name.to_owned()).collect(),
        normalization,
        open,
    }
}

/// The table of sources.
fn row(data: &ImageData) -> Row {
    match data.set {
        ImageSource::Cifar10 => fixed(
            cifar10::SHAPE,
            &cifar10::CLASS_NAMES,
            cifar10::normalization_table(),
            |_, places, split| Ok(cifar10::load(&places.folder("cifar10")?, split)?),
        ),
        ImageSource::Cifar100 => fixed(
            cifar100::SHAPE,
            &cifar100::CLASS_NAMES,
            cifar100::normalization(),
            |_, places, split| Ok(cifar100::load(&places.folder("cifar100")?, split)?),
        ),
        ImageSource::Mnist => fixed(
            mnist::SHAPE,
            &MNIST.class_names,
            mnist::normalization_mnist(),
            |_, places, split| Ok(MNIST.load(&places.local(MNIST.name), split)?),
        ),
        ImageSource::FashionMnist => fixed(
            mnist::SHAPE,
            &FASHION_MNIST.class_names,
            mnist::normalization_fashion(),
            |_, places, split| Ok(FASHION_MNIST.load(&places.local(FASHION_MNIST.name), split)?),
        ),
        ImageSource::Folder => Row {
            form: ImageForm {
                shape: match data.size.as_slice() {
                    &[height, width] => ImageShape::new(data.channels, height, width),
                    _ => ImageShape::new(data.channels, 0, 0),
                },
                num_classes: data.class_names.len(),
            },
            class_names: data.class_names.clone(),
            normalization: Normalization {
                mean: data.mean.iter().map(|mean| in_f32(*mean)).collect(),
                std: data.std.iter().map(|std| in_f32(*std)).collect(),
            },
            open: open_folder,
        },
        ImageSource::Shapes => fixed(
            shapes::SHAPE,
            &shapes::CLASS_NAMES,
            shapes::normalization(),
            |_, _, split| {
                Ok(shapes::generate(
                    split,
                    of_split(SHAPES, split),
                    BUILT_IN_SEED,
                ))
            },
        ),
    }
}

/// The settings that make `data` a folder of images of the form that a file of weights tells, if it is data of
/// another form. What the file does not tell is as in `data`; the classes have their numbers as names.
pub(crate) fn data_of_file(data: &ImageData, told: &ImagesOfFile) -> Vec<Override> {
    let is_folder = data.set == ImageSource::Folder;
    let row = row(data);
    let (before, classes) = (row.form.shape, row.form.num_classes);
    let [height, width] = match (told.side, before.height) {
        (Some(side), _) => [side; 2],
        (None, 0) => [OF_CIFAR10.shape.height, OF_CIFAR10.shape.width],
        _ => [before.height, before.width],
    };
    let channels = told.channels.unwrap_or(before.channels);
    let shape = ImageShape::new(channels, height, width);
    let is_whole = <Images as Domain>::is_complete(data);
    if is_whole && (shape, told.classes) == (before, classes) {
        return Vec::new();
    }
    let list = |values: &[f32]| format!("{values:?}");
    let mut settings = vec![
        Override::new("data.set", "folder"),
        Override::new("data.channels", channels.to_string().as_str()),
        Override::new("data.size", format!("[{height}, {width}]").as_str()),
    ];
    if classes != told.classes {
        let names: Vec<String> = (0..told.classes.min(MAX_CLASSES + 1))
            .map(|i| i.to_string())
            .collect();
        settings.push(Override::new(
            "data.class_names",
            format!("{names:?}").as_str(),
        ));
    }
    if data.resize == Resize::No {
        settings.push(Override::new("data.resize", "crop"));
    }
    let tables_fit = channels == 3 || data.normalization == Pixels::Half;
    if data.normalization == Pixels::Auto || !tables_fit {
        let of_set = &row.normalization;
        let (mean, std) = match !is_folder && of_set.mean.len() == channels {
            true => (of_set.mean.clone(), of_set.std.clone()),
            false => (vec![0.5; channels], vec![0.5; channels]),
        };
        settings.push(Override::new("data.normalization", "auto"));
        if data.mean.len() != channels {
            settings.push(Override::new("data.mean", list(&mean).as_str()));
        }
        if data.std.len() != channels {
            settings.push(Override::new("data.std", list(&std).as_str()));
        }
    }
    settings
}

/// How an image of the data set is made of a PNG or JPEG file.
pub fn preparation(data: &ImageData) -> Preparation {
    let ImageShape {
        channels,
        height,
        width,
    } = row(data).form.shape;
    let sizing = match data.resize {
        // The size is known once a run has begun.
        Resize::No if height == 0 => Sizing::Any,
        Resize::No => Sizing::Exactly { height, width },
        Resize::Stretch => Sizing::Stretch { height, width },
        Resize::Crop => Sizing::Crop { height, width },
    };
    Preparation { channels, sizing }
}

/// Reads a split of a folder of class folders.
fn open_folder(data: &ImageData, places: &Places, split: Split) -> Result<ImageSet> {
    // What the network and its optimizer take comes on top.
    const SHARE: f64 = 0.8;
    const MB: u64 = 1_000_000;

    let dir = places.dir.as_ref().ok_or_else(|| Error::RecipeValue {
        key: "data.set".to_owned(),
        message: "data=folder reads the folder that --data-dir names; give --data-dir DIR"
            .to_owned(),
    })?;
    let options = folder::Options {
        preparation: preparation(data),
        class_names: data.class_names.clone(),
        valid_share: data.valid_share,
        test_share: data.test_share,
        split_seed: data.split_seed,
        skip_corrupt: data.skip_corrupt,
        limit: match split {
            Split::Train => data.train_items,
            Split::Valid => data.valid_items,
            Split::Test => 0,
        },
        memory: match places.image_memory {
            0 => fit::available_memory().map(|bytes| (SHARE * bytes as f64) as u64),
            given => Some((given as u64).saturating_mul(MB)),
        },
    };
    let found = folder::find(dir, split, &options)?;
    if !found.fits() {
        say!(
            "{split}: {} of {} decoded, and {} are there for them (run.image_memory), so that each is \
             decoded once now and again for every batch",
            words::counted(found.images(), "images"),
            words::bytes(found.bytes()),
            words::bytes(options.memory.unwrap_or(u64::MAX))
        );
    }
    let folder::Loaded { set, skipped } = found.load()?;
    if let Some(first) = skipped.first() {
        say!(
            "{split}: {} left out, the first is {}",
            words::counted(skipped.len(), "corrupt images"),
            first.display()
        );
    }
    Ok(set)
}

/// The names of the classes in label order, without opening the data.
pub fn class_names(data: &ImageData) -> Vec<String> {
    row(data).class_names
}

fn normalization(data: &ImageData) -> Normalization {
    let row = row(data);
    match data.normalization {
        Pixels::Auto => row.normalization,
        Pixels::Table => cifar10::normalization_table(),
        Pixels::Notebook => cifar10::normalization_notebook(),
        Pixels::Superconvergence => cifar10::normalization_superconvergence(),
        Pixels::Half => Normalization::half(row.form.shape.channels),
    }
}

impl Domain for Images {
    type Batch = ImageBatch;
    /// Of classes, `[batch, classes]`.
    type Logits = Tensor<2>;
    type Network = zoo::images::Network;
    type Family = zoo::images::Family;
    type Data = ImageData;
    type Set = ImageSet;
    type Source = ImageLoader;
    type Form = ImageForm;
    type Needs = ();

    fn task() -> Task {
        Task::classification("images")
    }

    fn sums(logits: Tensor<2>, batch: &ImageBatch) -> Sums {
        let targets = batch.targets.clone();
        match batch.soft.clone() {
            Some(shares) => Sums::of_shares(logits, shares, targets),
            None => Sums::of_logits(logits, targets, None),
        }
    }

    fn open(data: &ImageData, places: &Places, split: Split) -> Result<ImageSet> {
        let set = (row(data).open)(data, places, split)?;
        Ok(match split {
            Split::Train => limited(set, data.train_items),
            Split::Valid => limited(set, data.valid_items),
            Split::Test => set,
        })
    }

    fn form(data: &ImageData) -> ImageForm {
        row(data).form
    }

    const FORM_KEYS: &'static [&'static str] = &["images", "classes"];

    fn identity(form: &ImageForm) -> String {
        match *form == OF_CIFAR10 {
            true => String::new(),
            false => format!(
                " images={}x{}x{} classes={}",
                form.shape.channels, form.shape.height, form.shape.width, form.num_classes
            ),
        }
    }

    fn is_complete(data: &ImageData) -> bool {
        let found = !data.class_names.is_empty() && !data.size.is_empty();
        let normal =
            data.normalization != Pixels::Auto || !(data.mean.is_empty() || data.std.is_empty());
        data.set != ImageSource::Folder || (found && normal)
    }

    fn complete(data: &ImageData, train: &ImageSet) -> Result<ImageData> {
        if Self::is_complete(data) {
            return Ok(data.clone());
        }
        let (shape, moments) = (train.shape(), Normalization::of(train)?);
        // The shortest digits that name the number.
        let digits = |values: Vec<f32>| -> Vec<f64> {
            let texts = values.iter().map(ToString::to_string);
            texts.filter_map(|text| text.parse().ok()).collect()
        };
        let found = ImageData {
            class_names: train.class_names().to_vec(),
            size: vec![shape.height, shape.width],
            mean: digits(moments.mean),
            std: digits(moments.std),
            ..data.clone()
        };
        Ok(Self::complete_as(data, &found))
    }

    fn complete_as(data: &ImageData, before: &ImageData) -> ImageData {
        fn filled<T: Clone>(list: &[T], before: &[T]) -> Vec<T> {
            if list.is_empty() { before } else { list }.to_vec()
        }
        if data.set != ImageSource::Folder {
            return data.clone();
        }
        let mut filled_in = ImageData {
            class_names: filled(&data.class_names, &before.class_names),
            size: filled(&data.size, &before.size),
            ..data.clone()
        };
        if data.normalization == Pixels::Auto {
            filled_in.mean = filled(&data.mean, &before.mean);
            filled_in.std = filled(&data.std, &before.std);
        }
        filled_in
    }

    fn task_recipe(of: TaskOf<Self>) -> TaskRecipe {
        TaskRecipe::Images(of)
    }

    fn of_task(task: TaskRecipe) -> Option<TaskOf<Self>> {
        match task {
            TaskRecipe::Images(of) => Some(of),
            TaskRecipe::Text(_) => None,
        }
    }

    fn epochs(settings: &Settings) -> usize {
        settings.run.epochs
    }

    fn for_training(
        of: &TaskOf<Self>,
        settings: &Settings,
        set: ImageSet,
        device: &Device,
    ) -> Result<ImageLoader> {
        let config = LoaderConfig {
            batch_size: settings.train.batch,
            seed: settings.train.seed,
            shuffle: true,
            drop_last: of.data.drop_last,
            augment: of.data.augment.clone(),
            label_smoothing: in_f32(of.data.label_smoothing),
            normalization: normalization(&of.data),
            prefetch: settings.run.prefetch,
        };
        let loader = ImageLoader::new(set, config, device)?;
        on_device(loader, &settings.run, device)
    }

    fn for_scoring(
        of: &TaskOf<Self>,
        settings: &Settings,
        set: ImageSet,
        device: &Device,
    ) -> Result<ImageLoader> {
        let config = LoaderConfig {
            // As large as one part of a training step.
            batch_size: settings.train.batch.div_ceil(settings.train.accumulate),
            seed: 0,
            shuffle: false,
            drop_last: false,
            augment: Augment::NONE,
            label_smoothing: 0.0,
            normalization: normalization(&of.data),
            prefetch: settings.run.prefetch,
        };
        let loader = ImageLoader::new(set, config, device)?;
        scored(loader, &settings.run, device)
    }

    fn check(of: &TaskOf<Self>, settings: &Settings) -> Result<()> {
        of.data.check()?;
        check(
            of.data.augment.mixup().is_none() || settings.train.batch > 1,
            "data.augment",
            "mixup mixes the images of a batch, and batch=1 has one: give a larger train.batch, or leave mixup out"
                .to_owned(),
        )?;
        if of.data.sync_batch_norm {
            fit::of_whole_batches(&settings.train)?;
        }
        if !Self::is_complete(&of.data) {
            return Ok(());
        }
        let shape = Self::form(&of.data).shape;
        let channels = normalization(&of.data).mean.len();
        check(
            channels == shape.channels,
            "data.normalization",
            format!(
                "has constants for {channels} channels, but the images are {shape} (channels, height, width): \
                 choose auto or half"
            ),
        )?;
        let fits = of.data.augment.fits(shape);
        fits.map_err(|e| Error::RecipeValue {
            key: "data.augment".to_owned(),
            message: e.to_string(),
        })
    }

    fn synchronises(data: &ImageData) -> bool {
        data.sync_batch_norm
    }

    fn idle(data: &ImageData) -> Vec<(&'static str, String)> {
        let all = ImageData::OF_A_FOLDER.into_iter();
        if data.set != ImageSource::Folder {
            let all = all.chain(["run.image_memory"]);
            let why = "only data=folder has it";
            return all.map(|key| (key, why.to_owned())).collect();
        }
        let why = "the constants of a folder are for normalization=auto";
        let idle = all.filter(|key| {
            data.normalization != Pixels::Auto && ["data.mean", "data.std"].contains(key)
        });
        idle.map(|key| (key, why.to_owned())).collect()
    }

    fn may_score(_trained: &TaskOf<Self>, _wanted: &TaskOf<Self>) -> Result<()> {
        Ok(())
    }

    fn shown_of_scoring(
        _of: &TaskOf<Self>,
        totals: &Totals,
    ) -> Vec<(&'static str, serde_json::Value, String)> {
        let (correct, share) = (totals.named.get("correct"), totals.mean("correct"));
        let correct = correct.copied().unwrap_or_default();
        let accuracy = format!(
            "accuracy {:.2} %  ({correct} of {})",
            100.0 * share,
            totals.items
        );
        let loss = totals.mean_loss();
        vec![
            ("accuracy", share.into(), accuracy),
            ("loss", loss.into(), format!("loss {loss:.4}")),
        ]
    }

    fn next_command(_of: &TaskOf<Self>, _run: &Path) -> Option<String> {
        None
    }

    fn limits(data: &ImageData) -> [usize; 2] {
        [data.train_items, data.valid_items]
    }

    fn reads_a_folder(data: &ImageData) -> bool {
        data.set != ImageSource::Shapes
    }

    fn reads_a_file(_data: &ImageData) -> bool {
        false
    }
}

impl fit::Batch for ImageBatch {
    fn rows(&self) -> usize {
        self.targets.dims()[0]
    }

    fn narrow(&self, range: Range<usize>) -> Self {
        Self {
            images: self.images.clone().slice_dim(0, range.clone()),
            targets: self.targets.clone().slice_dim(0, range.clone()),
            soft: self.soft.clone().map(|soft| soft.slice_dim(0, range)),
        }
    }

    fn to_device(self, device: &Device) -> Self {
        Self {
            images: self.images.to_device(device),
            targets: integers_on(self.targets, device),
            soft: self.soft.map(|soft| soft.to_device(device)),
        }
    }

    fn owned(&self) -> Option<Self> {
        Some(Self {
            images: fit::own(&self.images)?,
            targets: fit::own_int(&self.targets)?,
            soft: fit::own_part(self.soft.as_ref(), fit::own)?,
        })
    }

    fn overwrite(&self, new: &Self) -> bool {
        fit::written(&self.images, &new.images)
            && fit::written_int(&self.targets, &new.targets)
            && fit::written_part(self.soft.as_ref(), new.soft.as_ref(), fit::written)
    }
}

impl Source for ImageLoader {
    type Batch = ImageBatch;

    fn batches_per_epoch(&self) -> usize {
        Self::batches_per_epoch(self)
    }

    fn rows_per_epoch(&self) -> usize {
        burn::data::dataloader::DataLoader::num_items(self)
    }

    fn batches_from(&self, step: usize, device: &Device) -> Batches<ImageBatch> {
        Box::new(self.clone().on(device).from_step(step))
    }

    /// Decodes and augments the rows of the share alone.
    fn shares_from(&self, step: usize, device: &Device, ranks: &Ranks) -> Shares<ImageBatch> {
        let ranks = ranks.clone();
        let share = ranks.clone();
        let own = self.clone().with_rows(move |rows| share.share(rows));
        Box::new(ImageShares(own.on(device).from_step(step), ranks))
    }
}

/// The shares of a rank.
struct ImageShares(ImageIterator, Ranks);

impl Iterator for ImageShares {
    type Item = Result<Share<ImageBatch>, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.0.next()?;
        let rows = self.0.rows_of_batch();
        Some(batch.map(|batch| Share {
            first_row: self.1.share(rows).start,
            batch,
            rows,
            items: rows,
        }))
    }
}

impl DataLoaderIterator<Share<ImageBatch>> for ImageShares {
    fn progress(&self) -> Progress {
        self.0.progress()
    }
}
