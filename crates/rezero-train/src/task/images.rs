//! Classes of images.

use std::ops::Range;
use std::path::Path;

use burn::tensor::Device;
use rezero_data::{
    Augment, ImageBatch, ImageLoader, ImageSet, ImageShape, LoaderConfig, Normalization, Split,
    cifar10, shapes,
};

use super::Domain;
use super::data_set::{BUILT_IN_SEED, Places, limited, of_split};
use crate::error::Result;
use crate::fit::{self, Batches, Source, Sums, Task, integers_on};
use crate::recipe::check::check;
use crate::recipe::{ImageData, ImageSource, Pixels, Settings, TaskOf, TaskRecipe};
use crate::record::Totals;
use crate::zoo;

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

    fn identity(form: &ImageForm) -> String {
        match *form == OF_CIFAR10 {
            true => String::new(),
            false => format!(
                " images={}x{}x{} classes={}",
                form.shape.channels, form.shape.height, form.shape.width, form.num_classes
            ),
        }
    }

    fn is_complete(_data: &ImageData) -> bool {
        true
    }

    fn complete(data: &ImageData, _train: &ImageSet) -> ImageData {
        data.clone()
    }

    fn complete_as(data: &ImageData, _before: &ImageData) -> ImageData {
        data.clone()
    }

    fn task_recipe(of: TaskOf<Self>) -> TaskRecipe {
        TaskRecipe::Images(of)
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
            augment: Augment {
                crop_padding: of.data.crop_padding,
                flip: of.data.flip,
            },
            normalization: normalization(&of.data),
            prefetch: settings.run.prefetch,
        };
        Ok(ImageLoader::new(set, config, device)?)
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
            normalization: normalization(&of.data),
            prefetch: settings.run.prefetch,
        };
        Ok(ImageLoader::new(set, config, device)?)
    }

    fn check(of: &TaskOf<Self>, _settings: &Settings) -> Result<()> {
        of.data.check()?;
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
        let side = shape.height.min(shape.width);
        check(
            of.data.crop_padding < side,
            "data.crop_padding",
            format!(
                "must be below the smaller side of the images, which are {shape} (channels, height, width), \
                 got {}",
                of.data.crop_padding
            ),
        )
    }

    fn idle(_data: &ImageData) -> Vec<(&'static str, String)> {
        Vec::new()
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

/// The sums of class logits, `[batch, classes]`.
pub(crate) fn sums(logits: burn::Tensor<2>, batch: &ImageBatch) -> Sums {
    Sums::of_logits(logits, batch.targets.clone(), None)
}

impl fit::Batch for ImageBatch {
    fn rows(&self) -> usize {
        self.targets.dims()[0]
    }

    fn narrow(&self, range: Range<usize>) -> Self {
        Self {
            images: self.images.clone().slice_dim(0, range.clone()),
            targets: self.targets.clone().slice_dim(0, range),
        }
    }

    fn to_device(self, device: &Device) -> Self {
        Self {
            images: self.images.to_device(device),
            targets: integers_on(self.targets, device),
        }
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
}
