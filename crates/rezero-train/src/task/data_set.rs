//! The places of data sets, and the trait of their splits.

use std::path::{Path, PathBuf};

use rezero_data::{ImageSet, Split, Text, fetch, registry};

use crate::error::Result;

/// The folder of data sets, unless `--data-dir` names another.
pub const DEFAULT_DIR: &str = "datasets";

/// Where a command may look for data.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// `--text`: the file that `data.set = "text"` reads.
    pub text: Option<PathBuf>,
    /// `--data-dir`: used as it is, nothing is downloaded into it.
    pub dir: Option<PathBuf>,
    /// `--offline`: never use the network.
    pub offline: bool,
    /// `run.image_memory`: the most megabytes of a split of a folder that are held decoded; 0: most of what
    /// is free.
    pub image_memory: usize,
}

impl Places {
    /// The folder of a data set of the registry, which is fetched if it is absent.
    pub(super) fn folder(&self, name: &str) -> Result<PathBuf> {
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

    /// The folder of a data set that is not fetched.
    pub(super) fn local(&self, name: &str) -> PathBuf {
        let default = || Path::new(DEFAULT_DIR).join(name);
        self.dir.clone().unwrap_or_else(default)
    }
}

/// The size of the split among training, validation and test.
pub(super) fn of_split(sizes: [usize; 3], split: Split) -> usize {
    match split {
        Split::Train => sizes[0],
        Split::Valid => sizes[1],
        Split::Test => sizes[2],
    }
}

/// The seed of the built-in data sets. It does not depend on the run's seed.
pub(super) const BUILT_IN_SEED: u64 = 0;

/// A split of a data set.
pub trait DataSet: Send + Clone {
    /// The data set's name.
    fn name(&self) -> &str;

    /// The number of items.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is smaller than the official set.
    fn is_subset(&self) -> bool;

    /// SHA-256 of the data.
    ///
    /// # Errors
    ///
    /// If the data is in files that can no longer be read.
    fn fingerprint(&self) -> Result<String>;

    /// The first `n` items.
    #[must_use]
    fn first(&self, n: usize) -> Self;
}

macro_rules! data_set {
    ($($set:ty: $print:expr;)*) => {$(
        impl DataSet for $set {
            fn name(&self) -> &str {
                Self::name(self)
            }

            fn len(&self) -> usize {
                Self::len(self)
            }

            fn is_subset(&self) -> bool {
                Self::is_subset(self)
            }

            fn fingerprint(&self) -> Result<String> {
                let print: fn(&Self) -> Result<String> = $print;
                print(self)
            }

            fn first(&self, n: usize) -> Self {
                self.clone().take(n)
            }
        }
    )*};
}
data_set! {
    ImageSet: |set| Ok(Self::fingerprint(set)?);
    Text: |text| Ok(Self::fingerprint(text));
}

/// `set`, or its first `limit` items if there is a limit.
pub(super) fn limited<S: DataSet>(set: S, limit: usize) -> S {
    match limit {
        0 => set,
        limit => set.first(limit),
    }
}
