use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::hash::hex;
use crate::registry::nearest;
use crate::{DataError, Result};

/// Height and width of every image, in pixels.
pub const SIDE: usize = 32;
/// Colour planes of every image: red, green, blue.
pub const CHANNELS: usize = 3;
/// Pixel bytes of one image: 3 × 32 × 32.
pub const IMAGE_BYTES: usize = CHANNELS * SIDE * SIDE;

/// Which part of a data set.
///
/// Training reads [`Train`](Split::Train), choices (learning rate, stopping) are made on
/// [`Valid`](Split::Valid), and [`Test`](Split::Test) is read once, at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// The records to learn from.
    Train,
    /// The records held out of the training set to choose by.
    Valid,
    /// The official test set.
    Test,
}

impl Split {
    /// All splits, in this order.
    pub const ALL: [Self; 3] = [Self::Train, Self::Valid, Self::Test];

    const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Split {
    type Err = DataError;

    fn from_str(s: &str) -> Result<Self> {
        let names = Self::ALL.map(Self::name);
        Self::ALL
            .into_iter()
            .find(|split| split.name() == s)
            .ok_or_else(|| DataError::Unknown {
                what: "split",
                name: s.to_owned(),
                nearest: nearest(s, names).to_owned(),
                known: names.join(", "),
            })
    }
}

/// Per-channel normalisation of pixels in `[0, 1]`: `(byte / 255 − mean) / std`.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// The mean of the red, green and blue channels.
    pub mean: [f32; 3],
    /// Their standard deviations.
    pub std: [f32; 3],
}

impl Normalization {
    /// Leaves pixels in `[0, 1]`.
    pub const IDENTITY: Self = Self {
        mean: [0.0; 3],
        std: [1.0; 3],
    };
}

#[derive(Debug)]
struct Storage {
    name: String,
    pixels: Vec<u8>,
    labels: Vec<u8>,
    class_names: &'static [&'static str],
}

/// The images and labels of one split, in memory.
///
/// Pixels are bytes in the order `[record, channel, row, column]`: 3 planes (red, green, blue) of
/// 32 × 32, row by row. A clone shares the memory.
#[derive(Clone)]
pub struct ImageSet {
    storage: Arc<Storage>,
    start: usize,
    len: usize,
    official_len: usize,
}

impl ImageSet {
    /// A set from bytes in memory.
    ///
    /// `pixels` holds 3,072 bytes for each label. `official_len` is the number of records of the
    /// whole set that this one may be a subset of; 0 where there is no such set.
    ///
    /// # Errors
    ///
    /// Where the lengths do not match or a label is not below `class_names.len()`.
    pub fn from_raw(
        name: impl Into<String>,
        pixels: Vec<u8>,
        labels: Vec<u8>,
        class_names: &'static [&'static str],
        official_len: usize,
    ) -> Result<Self> {
        let name = name.into();
        if labels.len().checked_mul(IMAGE_BYTES) != Some(pixels.len()) {
            return Err(DataError::PixelCount {
                name,
                pixels: pixels.len(),
                labels: labels.len(),
            });
        }
        if let Some(record) = labels
            .iter()
            .position(|&l| usize::from(l) >= class_names.len())
        {
            return Err(DataError::BadLabel {
                file: Path::new(&name).to_path_buf(),
                record,
                label: labels[record],
                classes: class_names.len(),
            });
        }
        Ok(Self::from_checked(
            name,
            pixels,
            labels,
            class_names,
            official_len,
        ))
    }

    /// [`Self::from_raw`] for callers that have already made its checks.
    pub(crate) fn from_checked(
        name: String,
        pixels: Vec<u8>,
        labels: Vec<u8>,
        class_names: &'static [&'static str],
        official_len: usize,
    ) -> Self {
        let len = labels.len();
        let storage = Arc::new(Storage {
            name,
            pixels,
            labels,
            class_names,
        });
        Self {
            storage,
            start: 0,
            len,
            official_len,
        }
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The 3,072 pixel bytes of record `i`, `[channel, row, column]`.
    ///
    /// # Panics
    ///
    /// Where `i` is not below [`len`](Self::len).
    pub fn pixels(&self, i: usize) -> &[u8] {
        assert!(i < self.len, "record {i} of an image set of {}", self.len);
        let at = (self.start + i) * IMAGE_BYTES;
        &self.storage.pixels[at..at + IMAGE_BYTES]
    }

    /// The label of record `i`, below [`num_classes`](Self::num_classes).
    ///
    /// # Panics
    ///
    /// Where `i` is not below [`len`](Self::len).
    pub fn label(&self, i: usize) -> u8 {
        assert!(i < self.len, "record {i} of an image set of {}", self.len);
        self.storage.labels[self.start + i]
    }

    /// All labels, in record order.
    pub fn labels(&self) -> &[u8] {
        &self.storage.labels[self.start..self.start + self.len]
    }

    /// The number of classes.
    pub fn num_classes(&self) -> usize {
        self.storage.class_names.len()
    }

    /// The name of each class, in label order.
    pub fn class_names(&self) -> &'static [&'static str] {
        self.storage.class_names
    }

    /// The data set's name, such as `cifar10`.
    pub fn name(&self) -> &str {
        &self.storage.name
    }

    /// Whether this set has fewer records than the official one. A figure measured on a subset is
    /// not the data set's figure.
    pub fn is_subset(&self) -> bool {
        self.len < self.official_len
    }

    /// The number of records of the official set; 0 where there is none.
    pub fn official_len(&self) -> usize {
        self.official_len
    }

    /// The first `n` records, or all where there are fewer. The memory is shared.
    #[must_use]
    pub fn take(&self, n: usize) -> Self {
        Self {
            len: n.min(self.len),
            ..self.clone()
        }
    }

    /// The SHA-256, in hexadecimal, of all labels followed by all pixels: two sets with the same
    /// fingerprint hold the same records in the same order.
    pub fn fingerprint(&self) -> String {
        let from = self.start * IMAGE_BYTES;
        let mut hasher = Sha256::new();
        hasher.update(self.labels());
        hasher.update(&self.storage.pixels[from..from + self.len * IMAGE_BYTES]);
        hex(&hasher.finalize())
    }
}

/// Says how many records there are, and of how many: `cifar10: 4500 records, a subset of 45000`.
impl fmt::Display for ImageSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} records", self.name(), self.len)?;
        if self.is_subset() {
            write!(f, ", a subset of {}", self.official_len)?;
        }
        Ok(())
    }
}

impl fmt::Debug for ImageSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageSet")
            .field("name", &self.name())
            .field("len", &self.len)
            .field("official_len", &self.official_len)
            .finish_non_exhaustive()
    }
}
