//! `[data]`: the data that a network learns from.

use rezero_data::Augment;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::check;
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
    /// How many training images are used, the first of the split; 0: all.
    pub train_items: usize,
    /// How many validation images are used, the first of the split; 0: all.
    pub valid_items: usize,
}

/// A data set of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ImageSource {
    /// CIFAR-10: 32×32 RGB, ten classes.
    Cifar10,
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
    /// deviations 0.24, 0.27, 0.24; for mnist 0.1307 and 0.3081; for fashion-mnist 0.286 and 0.353.
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
            train_items: 0,
            valid_items: 0,
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
    pub(crate) fn check(&self) -> Result<()> {
        check(
            (0.0..1.0).contains(&self.label_smoothing),
            "data.label_smoothing",
            format!("must be from 0 to below 1, got {}", self.label_smoothing),
        )
    }
}
