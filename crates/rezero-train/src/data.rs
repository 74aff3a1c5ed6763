//! From a recipe's data set to image sets and loaders.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use rezero_data::{
    Augment, ImageLoader, ImageSet, LoaderConfig, Normalization, Split, cifar10, fetch, registry,
    shapes,
};

use crate::error::Result;
use crate::recipe::{Data, Norm, Recipe};

/// Where data sets are kept unless `--data-dir` says otherwise.
pub const DEFAULT_DIR: &str = "datasets";

/// How many images `shapes` has: training, validation, test.
const SHAPES: [usize; 3] = [10_000, 1_000, 1_000];
/// The images of `shapes` are one fixed data set, whatever the run's seed.
const SHAPES_SEED: u64 = 0;

/// Where a command may look for data.
#[derive(Clone, Debug, Default)]
pub struct Source {
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
    pub fn open(&self, recipe: &Recipe, split: Split) -> Result<ImageSet> {
        let set = match recipe.data {
            Data::Shapes => {
                let len = match split {
                    Split::Train => SHAPES[0],
                    Split::Valid => SHAPES[1],
                    Split::Test => SHAPES[2],
                };
                shapes::generate(split, len, SHAPES_SEED)
            }
            Data::Cifar10 => cifar10::load(&self.cifar10()?, split)?,
        };
        let limit = match split {
            Split::Train => recipe.train_items,
            Split::Valid => recipe.valid_items,
            Split::Test => 0,
        };
        Ok(if limit > 0 { set.take(limit) } else { set })
    }

    fn cifar10(&self) -> Result<PathBuf> {
        if let Some(dir) = &self.dir {
            return Ok(dir.clone());
        }
        let options = fetch::Options {
            dir: Path::new(DEFAULT_DIR).to_owned(),
            offline: self.offline,
            ..fetch::Options::default()
        };
        Ok(fetch::fetch(registry::find("cifar10")?, &options)?)
    }
}

/// A loader that shuffles and augments as the recipe says, from `step` steps into the run.
///
/// # Errors
///
/// If the set is too small for a batch.
pub fn train_loader(
    recipe: &Recipe,
    set: ImageSet,
    step: usize,
    device: &Device,
) -> Result<ImageLoader> {
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
    Ok(loader.starting_at((step / per_epoch) as u64, step % per_epoch))
}

/// A loader over a whole split in order, as it is.
///
/// # Errors
///
/// If the set is empty.
pub fn eval_loader(recipe: &Recipe, set: ImageSet, device: &Device) -> Result<ImageLoader> {
    let config = LoaderConfig {
        batch_size: recipe.batch,
        seed: 0,
        shuffle: false,
        drop_last: false,
        augment: Augment::NONE,
        normalization: normalization(recipe),
        prefetch: recipe.prefetch,
    };
    Ok(ImageLoader::new(set, config, device)?)
}

fn normalization(recipe: &Recipe) -> Normalization {
    match (recipe.normalization, recipe.data) {
        (Norm::Auto, Data::Shapes) => shapes::NORMALIZATION,
        (Norm::Auto | Norm::Table, _) => cifar10::NORMALIZATION_TABLE,
        (Norm::Notebook, _) => cifar10::NORMALIZATION_NOTEBOOK,
        (Norm::Superconvergence, _) => cifar10::NORMALIZATION_SUPERCONVERGENCE,
    }
}
