//! From a recipe's data set to its splits and loaders.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use rezero_data::{
    Augment, ImageLoader, ImageSet, LoaderConfig, Normalization, ScoringConfig, Split, Text,
    TextLoader, WindowConfig, cifar10, corpus, fetch, registry, shapes,
};

use crate::error::{Error, Result};
use crate::model::{Batch, Items};
use crate::recipe::{Data, Norm, Recipe};

/// Where data sets are kept unless `--data-dir` says otherwise.
pub const DEFAULT_DIR: &str = "datasets";

/// How many images `shapes` has: training, validation, test.
const SHAPES: [usize; 3] = [10_000, 1_000, 1_000];
/// What is built in is one fixed data set, whatever the run's seed.
const BUILT_IN_SEED: u64 = 0;

/// How many bytes `wiki-like` has: training, validation, test.
const WIKI_LIKE: [usize; 3] = [3_600_000, 200_000, 200_000];

/// A split of a data set.
#[derive(Clone, Debug)]
pub enum Set {
    /// Images.
    Images(ImageSet),
    /// A text.
    Text(Text),
}

/// Where a command may look for data.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// `--text`: the file that `data=text` reads.
    pub text: Option<PathBuf>,
    /// `--data-dir`: used as it is, nothing is downloaded into it.
    pub dir: Option<PathBuf>,
    /// `--offline`: never use the network.
    pub offline: bool,
}

impl Source {
    /// The split of the recipe's data set, cut to the recipe's limits.
    ///
    /// # Errors
    ///
    /// If the data is absent and cannot be downloaded, or is damaged.
    pub fn open(&self, recipe: &Recipe, split: Split) -> Result<Set> {
        let of = |sizes: [usize; 3]| match split {
            Split::Train => sizes[0],
            Split::Valid => sizes[1],
            Split::Test => sizes[2],
        };
        let set = match recipe.data {
            Data::Shapes => Set::Images(shapes::generate(split, of(SHAPES), BUILT_IN_SEED)),
            Data::Cifar10 => Set::Images(cifar10::load(&self.folder("cifar10")?, split)?),
            Data::WikiLike => Set::Text(corpus::wiki_like(of(WIKI_LIKE), BUILT_IN_SEED, split)),
            Data::Enwik8 => Set::Text(corpus::enwik8(&self.folder("enwik8")?, split)?),
            Data::Text => {
                let file = self.text.as_ref().ok_or_else(|| Error::RecipeValue {
                    key: "data".to_owned(),
                    message: "data=text reads the file that --text names; give --text FILE"
                        .to_owned(),
                })?;
                Set::Text(corpus::file(file, split)?)
            }
        };
        let limit = match split {
            Split::Train => recipe.train_items,
            Split::Valid => recipe.valid_items,
            Split::Test => 0,
        };
        Ok(match set {
            set if limit == 0 => set,
            Set::Images(set) => Set::Images(set.take(limit)),
            Set::Text(text) => Set::Text(text.take(limit)),
        })
    }

    fn folder(&self, name: &str) -> Result<PathBuf> {
        if let Some(dir) = &self.dir {
            return Ok(dir.clone());
        }
        let options = fetch::Options {
            dir: Path::new(DEFAULT_DIR).to_owned(),
            offline: self.offline,
            ..fetch::Options::default()
        };
        Ok(fetch::fetch(registry::find(name)?, &options)?)
    }
}

impl Set {
    /// The data set's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Images(set) => set.name(),
            Self::Text(text) => text.name(),
        }
    }

    /// How many images or bytes there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Images(set) => set.len(),
            Self::Text(text) => text.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is counted.
    pub fn unit(&self) -> &'static str {
        match self {
            Self::Images(_) => "images",
            Self::Text(_) => "bytes",
        }
    }

    /// Classes of images, or possible bytes.
    pub fn num_classes(&self) -> usize {
        match self {
            Self::Images(set) => set.num_classes(),
            Self::Text(_) => 256,
        }
    }

    /// Whether it is less than the official set has.
    pub fn is_subset(&self) -> bool {
        match self {
            Self::Images(set) => set.is_subset(),
            Self::Text(text) => text.is_subset(),
        }
    }

    /// SHA-256 of the data.
    pub fn fingerprint(&self) -> String {
        match self {
            Self::Images(set) => set.fingerprint(),
            Self::Text(text) => text.fingerprint(),
        }
    }
}

/// A loader of the recipe's [`Batch`]es.
#[derive(Clone)]
pub enum Loader {
    /// Of images.
    Images(ImageLoader),
    /// Of windows of a text.
    Text(TextLoader),
}

/// Batches for training, from `step` steps into the run: images shuffled and augmented, or windows of
/// a text at random places.
///
/// # Errors
///
/// If the set is too small for a batch.
pub fn train_loader(recipe: &Recipe, set: Set, step: usize, device: &Device) -> Result<Loader> {
    Ok(match set {
        Set::Images(set) => {
            let config = LoaderConfig {
                batch_size: recipe.batch,
                seed: recipe.seed,
                shuffle: true,
                drop_last: recipe.drop_last,
                augment: Augment {
                    crop_padding: recipe.crop_padding,
                    flip: recipe.flip,
                },
                normalization: normalization(recipe),
                prefetch: recipe.prefetch,
            };
            let loader = ImageLoader::new(set, config, device)?;
            let per_epoch = loader.batches_per_epoch();
            let (epoch, batch) = (step / per_epoch, step % per_epoch);
            Loader::Images(loader.starting_at(epoch as u64, batch))
        }
        Set::Text(text) => {
            let config = WindowConfig {
                batch_size: recipe.batch,
                context: recipe.context,
                seed: recipe.seed,
                steps: recipe.steps,
                prefetch: recipe.prefetch,
            };
            Loader::Text(TextLoader::windows(text, config, device)?.starting_at(step))
        }
    })
}

/// Batches over a whole split in order, as it is; every byte of a text is scored once.
///
/// # Errors
///
/// If the set is empty.
pub fn eval_loader(recipe: &Recipe, set: Set, device: &Device) -> Result<Loader> {
    // As large as what a training step holds at a time.
    let batch_size = recipe.batch.div_ceil(recipe.accumulate);
    Ok(match set {
        Set::Images(set) => {
            let config = LoaderConfig {
                batch_size,
                seed: 0,
                shuffle: false,
                drop_last: false,
                augment: Augment::NONE,
                normalization: normalization(recipe),
                prefetch: recipe.prefetch,
            };
            Loader::Images(ImageLoader::new(set, config, device)?)
        }
        Set::Text(text) => {
            let config = ScoringConfig {
                batch_size,
                context: recipe.context,
                stride: match recipe.stride {
                    0 => recipe.context,
                    stride => stride,
                },
                prefetch: recipe.prefetch,
            };
            Loader::Text(TextLoader::scoring(text, config, device)?)
        }
    })
}

impl Loader {
    /// Batches in an epoch.
    pub fn batches_per_epoch(&self) -> usize {
        match self {
            Self::Images(loader) => loader.batches_per_epoch(),
            Self::Text(loader) => loader.batches_per_epoch(),
        }
    }
}

impl DataLoader<Batch> for Loader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        match self {
            Self::Images(loader) => Box::new(Wrapped(loader.iter(), Items::Images)),
            Self::Text(loader) => Box::new(Wrapped(loader.iter(), Items::Text)),
        }
    }

    fn num_items(&self) -> usize {
        match self {
            Self::Images(loader) => loader.num_items(),
            Self::Text(loader) => loader.num_items(),
        }
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        match self {
            Self::Images(loader) => Arc::new(Foreign(loader.to_device(device), Items::Images)),
            Self::Text(loader) => Arc::new(Foreign(loader.to_device(device), Items::Text)),
        }
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Batch>> {
        match self {
            Self::Images(loader) => Arc::new(Foreign(loader.slice(start, end), Items::Images)),
            Self::Text(loader) => Arc::new(Foreign(loader.slice(start, end), Items::Text)),
        }
    }
}

/// A loader behind burn's trait, whose batches become a recipe's.
struct Foreign<T>(Arc<dyn DataLoader<T>>, fn(T) -> Items);

impl<T: 'static> DataLoader<Batch> for Foreign<T> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        Box::new(Wrapped(self.0.iter(), self.1))
    }

    fn num_items(&self) -> usize {
        self.0.num_items()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self(self.0.to_device(device), self.1))
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self(self.0.slice(start, end), self.1))
    }
}

struct Wrapped<'a, T>(Box<dyn DataLoaderIterator<T> + 'a>, fn(T) -> Items);

impl<T> Iterator for Wrapped<'_, T> {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.0.next()?;
        // The loop seeds each step.
        Some(batch.map(|batch| Batch {
            items: self.1(batch),
            seed: 0,
            loss_scale: 1.0,
        }))
    }
}

impl<T> DataLoaderIterator<Batch> for Wrapped<'_, T> {
    fn progress(&self) -> Progress {
        self.0.progress()
    }
}

fn normalization(recipe: &Recipe) -> Normalization {
    match (recipe.normalization, recipe.data) {
        (Norm::Auto, Data::Shapes) => shapes::NORMALIZATION,
        (Norm::Auto | Norm::Table, _) => cifar10::NORMALIZATION_TABLE,
        (Norm::Notebook, _) => cifar10::NORMALIZATION_NOTEBOOK,
        (Norm::Superconvergence, _) => cifar10::NORMALIZATION_SUPERCONVERGENCE,
        (Norm::Half, _) => Normalization {
            mean: [0.5; 3],
            std: [0.5; 3],
        },
    }
}
