//! `[data]`: the data that a network learns from.

use rezero_data::{Augment, MAX_CLASSES, picture};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{check, in_f32};
use crate::error::Result;

/// The keys of a `[data]` section of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ImageData {
    /// The data set. `--data-dir` names the folder of one that is not built in.
    pub set: ImageSource,
    /// The mean and the standard deviation that normalise each channel of the images:
    /// (pixel − mean) / standard deviation, for pixels from 0 to 1.
    pub normalization: Pixels,
    /// The random changes of training images, as a list of steps in their order, such as
    /// "crop:padding=4,flip,cutout:size=16": names with their settings; a setting that is left out has
    /// its default. "none": no changes.
    pub augment: Augment,
    /// Label smoothing of the training loss: the share of each label that is spread over all classes
    /// evenly, from 0 to below 1. The validation loss is that of the labels themselves. 0: none.
    pub label_smoothing: f64,
    /// Whether the last batch of an epoch is left out if it is smaller than the others.
    pub drop_last: bool,
    /// Whether batch norms take mean and variance over the whole batch where several processes (mpirun) share it, instead of over each
    /// process's own images. Running statistics are those of the whole batch, too. For device=flex.
    pub sync_batch_norm: bool,
    /// How many training images are used, the first of the split; 0: all.
    pub train_items: usize,
    /// How many validation images are used, the first of the split; 0: all.
    pub valid_items: usize,
    /// The channels of the images of a folder. 1: grey; 2: grey and alpha; 3: red, green and blue;
    /// 4: these and alpha.
    pub channels: usize,
    /// The height and width of the images of a folder in pixels, `[height, width]`, or one number for
    /// both; `[]`: those of the first training image, which all images must have.
    #[serde(deserialize_with = "sides")]
    #[schemars(with = "Sides")]
    pub size: Vec<usize>,
    /// What happens to an image of another size.
    pub resize: Resize,
    /// The classes of a folder in label order; `[]`: the names of its class folders.
    pub class_names: Vec<String>,
    /// The mean of each channel of a folder, for normalization=auto; `[]`: that of the training
    /// images.
    pub mean: Vec<f64>,
    /// The standard deviation of each channel of a folder, for normalization=auto; `[]`: that of the
    /// training images.
    pub std: Vec<f64>,
    /// The share of each class's training images that is held out to validate, for a folder without a
    /// folder val; 0: none.
    pub valid_share: f64,
    /// The share of each class's training images that is held out to test, for a folder without a
    /// folder test; 0: none.
    pub test_share: f64,
    /// The seed of the choice of these images. It does not depend on the run's seed.
    pub split_seed: u64,
    /// Whether corrupt files of a folder are left out and counted; else they are an error.
    pub skip_corrupt: bool,
}

/// What happens to an image of another size than `size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Resize {
    /// It is an error.
    No,
    /// The image is scaled to the size, whatever that does to its proportions.
    Stretch,
    /// The largest window of the size's proportions is cut from the middle and scaled.
    Crop,
}

/// A size as it may be written.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number of pixels or [height, width]")]
enum Sides {
    Both(usize),
    Each(Vec<usize>),
}

fn sides<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<usize>, D::Error> {
    Ok(match Sides::deserialize(d)? {
        Sides::Both(side) => vec![side; 2],
        Sides::Each(sides) => sides,
    })
}

/// A data set of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ImageSource {
    /// CIFAR-10: 32×32 RGB, ten classes.
    Cifar10,
    /// The folder that `--data-dir` names, with a folder of PNG or JPEG files for each class.
    Folder,
    /// CIFAR-100: 32×32 RGB, a hundred classes, the fine ones.
    Cifar100,
    /// MNIST, handwritten digits: 28×28 grey, ten classes; its four IDX files, plain or .gz.
    Mnist,
    /// Fashion-MNIST, pieces of clothing: 28×28 grey, ten classes; its four IDX files, plain or .gz.
    FashionMnist,
    /// Generated images of shapes and textures: 32×32 RGB, ten classes, 10,000 to train; built in.
    Shapes,
}

/// The mean and the standard deviation that normalise the channels of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pixels {
    /// The data set's own constants: for cifar10 those of table; for shapes mean 0.5 and standard
    /// deviations 0.24, 0.27, 0.24; for cifar100, mnist and fashion-mnist those of all training pixels; for
    /// a folder its keys mean and std.
    Auto,
    /// As in the authors' table code: CIFAR-10's means 0.4914, 0.4822, 0.4465, and the mean over
    /// images of each image's standard deviation, 0.2023, 0.1994, 0.2010.
    Table,
    /// As in the authors' notebook: ImageNet's means 0.485, 0.456, 0.406 and standard deviations
    /// 0.229, 0.224, 0.225.
    Notebook,
    /// As in the authors' superconvergence code: means 0.4914, 0.48216, 0.44653 and standard
    /// deviations 0.24703, 0.24349, 0.26159 of all training pixels of CIFAR-10.
    Superconvergence,
    /// As in the authors' fully connected notebook: mean 0.5 and standard deviation 0.5, which give
    /// values from −1 to 1.
    Half,
}

/// The keys of a `[data]` section of text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TextData {
    /// The text.
    pub set: TextSource,
    /// Bytes from the start of one evaluation window to the start of the next, at most the context;
    /// 0: the context. Each byte is scored once, from at least the context − stride + 1 bytes
    /// before it (fewer at the beginning of the text).
    pub stride: usize,
    /// How many bytes of the training split are used, the first; 0: all.
    pub train_items: usize,
    /// How many bytes of the validation split are used, the first; 0: all.
    pub valid_items: usize,
}

/// A text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TextSource {
    /// The first 100 MB of a dump of the English Wikipedia, downloaded where it is absent.
    Enwik8,
    /// The bytes of the file that `--text` names.
    Text,
    /// 4 MB of pages of made-up words in the form of enwik8; built in.
    WikiLike,
}

impl Default for ImageData {
    fn default() -> Self {
        Self {
            set: ImageSource::Cifar10,
            normalization: Pixels::Auto,
            augment: Augment::STANDARD,
            label_smoothing: 0.0,
            drop_last: false,
            sync_batch_norm: false,
            train_items: 0,
            valid_items: 0,
            channels: 3,
            size: Vec::new(),
            resize: Resize::No,
            class_names: Vec::new(),
            mean: Vec::new(),
            std: Vec::new(),
            valid_share: 0.0,
            test_share: 0.0,
            split_seed: 0,
            skip_corrupt: false,
        }
    }
}

impl Default for TextData {
    fn default() -> Self {
        Self {
            set: TextSource::Enwik8,
            stride: 0,
            train_items: 0,
            valid_items: 0,
        }
    }
}

impl ImageData {
    /// The keys that a folder alone has.
    pub(crate) const OF_A_FOLDER: [&str; 10] = [
        "data.channels",
        "data.size",
        "data.resize",
        "data.class_names",
        "data.mean",
        "data.std",
        "data.valid_share",
        "data.test_share",
        "data.split_seed",
        "data.skip_corrupt",
    ];

    fn check_folder(&self) -> Result<()> {
        let (channels, size) = (self.channels, self.size.as_slice());
        check(
            (1..=4).contains(&channels),
            "data.channels",
            format!(
                "must be 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha), got {channels}"
            ),
        )?;
        let whole = match size {
            [] => true,
            &[height, width] => {
                height > 0
                    && width > 0
                    && height.saturating_mul(width) as u64 <= picture::MAX_PIXELS
            }
            _ => false,
        };
        check(
            whole,
            "data.size",
            format!(
                "must be [height, width] or one number for both, each at least 1 and their product at most {}, \
                 got {size:?}",
                picture::MAX_PIXELS
            ),
        )?;
        check(
            self.resize == Resize::No || !size.is_empty(),
            "data.resize",
            "needs the size: give data.size, for example size=64".to_owned(),
        )?;
        let mut names = self.class_names.clone();
        names.sort_unstable();
        let twice = names.windows(2).find(|two| two[0] == two[1]);
        let twice = twice.map(|two| format!(": {:?} is there twice", two[0]));
        check(
            twice.is_none() && names.len() <= MAX_CLASSES,
            "data.class_names",
            format!(
                "must be at most {MAX_CLASSES} different names{}",
                twice.unwrap_or_default()
            ),
        )?;
        let fits = |list: &[f64]| list.is_empty() || list.len() == channels;
        for (key, list) in [("data.mean", &self.mean), ("data.std", &self.std)] {
            check(
                fits(list) && list.iter().all(|value| value.is_finite()),
                key,
                format!(
                    "must be a finite number for each of {channels} channels, or [], got {list:?}"
                ),
            )?;
        }
        check(
            // Pixels are from 0 to 1 in steps of 1/255: a smaller deviation is none.
            self.std.iter().all(|std| *std >= 1e-6),
            "data.std",
            format!("must be at least 1e-6, got {:?}", self.std),
        )?;
        let (valid, test) = (self.valid_share, self.test_share);
        for (key, share) in [("data.valid_share", valid), ("data.test_share", test)] {
            check(
                (0.0..1.0).contains(&share) && valid + test < 1.0,
                key,
                format!(
                    "must be at least 0, and the shares together below 1, got valid_share={valid} and \
                     test_share={test}"
                ),
            )?;
        }
        Ok(())
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.set == ImageSource::Folder {
            self.check_folder()?;
        }
        check(
            (0.0..1.0).contains(&in_f32(self.label_smoothing)),
            "data.label_smoothing",
            format!("must be from 0 to below 1, got {}", self.label_smoothing),
        )
    }
}
