//! `[data]`: what a network learns from.

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
    /// Normalisation constants.
    pub normalization: Pixels,
    /// Random crops of the zero-padded image, in pixels of padding; 0: none.
    pub crop_padding: usize,
    /// Random horizontal flips.
    pub flip: bool,
    /// Leave out an epoch's last, smaller batch.
    pub drop_last: bool,
    /// Train on the first so many images only; 0: all.
    pub train_items: usize,
    /// Validate on the first so many images only; 0: all.
    pub valid_items: usize,
}

/// A data set of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ImageSource {
    /// CIFAR-10: 32×32 RGB, ten classes.
    Cifar10,
    /// Drawn shapes and textures: 32×32 RGB, ten classes; built in.
    Shapes,
}

/// Mean and standard deviation that the channels of images are normalised by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pixels {
    /// The data set's own: `table` for CIFAR-10.
    Auto,
    /// CIFAR-10's, as in the authors' table code.
    Table,
    /// ImageNet's, as in the authors' notebook.
    Notebook,
    /// CIFAR-10's, as in the authors' superconvergence code.
    Superconvergence,
    /// Mean and standard deviation 0.5, as in the authors' fully connected notebook.
    Half,
}

/// The keys of a `[data]` section of text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TextData {
    /// The data set.
    pub set: TextSource,
    /// Bytes between the windows of an evaluation, at most the context; 0: the context. Each byte is
    /// scored once, with at least context − stride bytes before it.
    pub stride: usize,
    /// Train on the first so many bytes only; 0: all.
    pub train_items: usize,
    /// Validate on the first so many bytes only; 0: all.
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
