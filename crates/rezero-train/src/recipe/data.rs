//! `[data]`: the data that a network learns from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::check;
use crate::error::Result;

/// The keys of a `[data]` section of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ImageData {
    /// The data set.
    pub set: ImageSource,
    /// The mean and the standard deviation that normalise each channel of the images:
    /// (pixel − mean) / standard deviation, for pixels from 0 to 1.
    pub normalization: Pixels,
    /// Width in pixels of the black frame that is added around an image before a random crop to the
    /// original size; 0: no crops.
    pub crop_padding: usize,
    /// Random horizontal flips.
    pub flip: bool,
    /// Leave out the last batch of an epoch if it is smaller.
    pub drop_last: bool,
    /// Train on this many images only, the first; 0: all.
    pub train_items: usize,
    /// Validate on this many images only, the first; 0: all.
    pub valid_items: usize,
}

/// A data set of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ImageSource {
    /// CIFAR-10: 32×32 RGB, ten classes.
    Cifar10,
    /// Generated images of shapes and textures: 32×32 RGB, ten classes; built in.
    Shapes,
}

/// The mean and the standard deviation that normalise the channels of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pixels {
    /// The data set's own constants: for CIFAR-10, those of `table`.
    Auto,
    /// As in the authors' table code: CIFAR-10's mean, and the mean over images of each image's
    /// standard deviation.
    Table,
    /// As in the authors' notebook: ImageNet's constants.
    Notebook,
    /// As in the authors' superconvergence code: mean and standard deviation of all training pixels
    /// of CIFAR-10.
    Superconvergence,
    /// As in the authors' fully connected notebook: mean 0.5 and standard deviation 0.5, which give
    /// values from −1 to 1.
    Half,
}

/// The keys of a `[data]` section of text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TextData {
    /// The data set.
    pub set: TextSource,
    /// Bytes from the start of one evaluation window to the start of the next, at most the context;
    /// 0: the context. Each byte is scored once, from at least the context − stride + 1 bytes
    /// before it (fewer at the beginning of the text).
    pub stride: usize,
    /// Train on this many bytes only, the first; 0: all.
    pub train_items: usize,
    /// Validate on this many bytes only, the first; 0: all.
    pub valid_items: usize,
}

/// A text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TextSource {
    /// The first 100 MB of a Wikipedia dump.
    Enwik8,
    /// The file that `--text` names.
    Text,
    /// Pages of made-up words in the form of enwik8; built in.
    WikiLike,
}

impl Default for ImageData {
    fn default() -> Self {
        Self {
            set: ImageSource::Cifar10,
            normalization: Pixels::Auto,
            crop_padding: 4,
            flip: true,
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
            self.crop_padding <= 31,
            "data.crop_padding",
            format!("must be at most 31, got {}", self.crop_padding),
        )
    }
}
