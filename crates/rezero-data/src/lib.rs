//! Image data for Burn: CIFAR-10 by verified download, `shapes` drawn on the spot, and one loader
//! whose batches depend on nothing but its seed.
//!
//! - [`registry`] names the data sets that can be fetched; [`fetch`](mod@fetch) downloads, checks
//!   and unpacks them.
//! - [`cifar10`] reads the binary version, [`shapes`] draws images in ten classes; both give an
//!   [`ImageSet`].
//! - [`ImageLoader`] is a Burn [`DataLoader`](burn::data::dataloader::DataLoader): shuffle, crop,
//!   flip, normalise, prefetch, resume at any batch.
//!
//! This crate enables no backend, reads no environment variable but the usual proxy ones, and
//! opens the network only in [`fetch::fetch`].
//!
//! # One epoch
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
//!     normalization: shapes::NORMALIZATION,
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

#![warn(missing_docs)]

mod augment;
pub mod cifar10;
mod error;
pub mod fetch;
mod hash;
mod image_set;
mod loader;
mod prefetch;
pub mod registry;
mod rng;
pub mod shapes;
mod unpack;

pub use augment::Augment;
pub use error::{BoxError, Causes, DataError, Result};
pub use image_set::{CHANNELS, IMAGE_BYTES, ImageSet, Normalization, SIDE, Split};
pub use loader::{ImageBatch, ImageIterator, ImageLoader, LoaderConfig};
