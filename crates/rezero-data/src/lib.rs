//! Images and text for Burn: CIFAR-10 and enwik8 by verified download, `shapes` and `wiki-like`
//! generated without a download, and loaders whose batches depend on their seed alone.
//!
//! - [`registry`] names the data sets that can be fetched; [`fetch`](mod@fetch) downloads, checks
//!   and unpacks them.
//! - [`cifar10`], [`cifar100`] and [`mnist`] read the official files, [`shapes`] generates images in ten classes;
//!   each gives an [`ImageSet`]. [`folder`](mod@folder) reads class folders of PNG and JPEG files.
//!   [`ImageSet::from_raw`] makes one of any other images, of any [`ImageShape`].
//! - [`ImageLoader`] is a Burn [`DataLoader`](burn::data::dataloader::DataLoader): shuffle,
//!   [augment](Augment), normalise, prefetch, resume at any step.
//! - [`corpus`] reads enwik8 or any other file as bytes, and generates `wiki-like`; all give a
//!   [`Text`].
//! - [`TextLoader`] samples random windows of a text for training, or reads the whole text so that
//!   each byte is scored once.
//! - [`ImageSet`] and [`TextWindows`] are Burn [`Dataset`](burn::data::dataset::Dataset)s as well,
//!   for Burn's own data loader and transforms.
//! - [`nearest()`] finds the name that was meant, and [`rng`] makes seeds and shuffled orders.
//!
//! This crate enables no backend, reads no environment variables except the usual ones for proxies,
//! and opens the network only in [`fetch::fetch`].
//!
//! # One epoch of images
//!
//! ```
//! use burn::data::dataloader::DataLoader;
//! use burn::tensor::Device;
//! use rezero_data::{Augment, ImageLoader, LoaderConfig, Split, shapes};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = LoaderConfig {
//!     batch_size: 32,
//!     seed: 1,
//!     shuffle: true,
//!     drop_last: true,
//!     augment: Augment::STANDARD,
//!     label_smoothing: 0.0,
//!     normalization: shapes::normalization(),
//!     prefetch: 2,
//! };
//! let set = shapes::generate(Split::Train, 100, 1);
//! let loader = ImageLoader::new(set, config, &Device::flex())?;
//! for batch in loader.iter() {
//!     let batch = batch?;
//!     assert_eq!(batch.images.dims(), [32, 3, 32, 32]);
//!     assert_eq!(batch.targets.dims(), [32]);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # A text, scored byte by byte
//!
//! ```
//! use burn::data::dataloader::DataLoader;
//! use burn::tensor::Device;
//! use rezero_data::{ScoringConfig, Split, TextLoader, corpus};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let text = corpus::wiki_like(1000, 1, Split::Valid);
//! let config = ScoringConfig {
//!     batch_size: 8,
//!     context: 64,
//!     stride: 32,
//!     prefetch: 0,
//! };
//! let loader = TextLoader::scoring(text, config, &Device::flex())?;
//! let mut scored = 0;
//! for batch in loader.iter() {
//!     let batch = batch?;
//!     assert_eq!(batch.inputs.dims(), batch.targets.dims());
//!     scored += batch.scored;
//! }
//! assert_eq!(scored, 1000);
//! # Ok(())
//! # }
//! ```

#![warn(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

// The README's code is compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod augment;
pub mod cifar10;
pub mod cifar100;
pub mod corpus;
mod error;
pub mod fetch;
mod files;
pub mod folder;
mod found;
mod hash;
pub mod idx;
mod image_set;
mod jpeg;
mod loader;
pub mod mnist;
mod nearest;
mod normalization;
pub mod picture;
mod prefetch;
mod records;
pub mod registry;
pub mod rng;
pub mod shapes;
mod split;
mod text;
mod text_loader;
mod unpack;
mod wiki;

pub use augment::{
    Augment, Augmentation, Crop, Cutout, Flip, Jitter, Mixup, RandAugment, Rotate,
    rand_augment::Operation,
};
pub use error::{BoxError, Causes, DataError, Result};
pub use image_set::{ImageItem, ImageSet, ImageShape, MAX_CLASSES};
pub use loader::{ImageBatch, ImageCutter, ImageIterator, ImageLoader, ImageWindow, LoaderConfig};
pub use nearest::nearest;
pub use normalization::Normalization;
pub use prefetch::Prefetch;
pub use records::RecordLayout;
pub use split::Split;
pub use text::{START_BYTE, Text, TextItem, TextWindows};
pub use text_loader::{ScoringConfig, TextBatch, TextIterator, TextLoader, WindowConfig};
