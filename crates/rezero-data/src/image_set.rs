use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use burn::data::dataset::{Dataset, DatasetError};
use sha2::{Digest, Sha256};

use crate::files::Files;
use crate::hash::hex;
use crate::normalization::Counts;
use crate::{DataError, Result};

/// The shape of every image of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageShape {
    /// Colour planes: 3 for red, green and blue, 1 for grey.
    pub channels: usize,
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
}

impl ImageShape {
    /// Images of `channels` planes of `height` rows and `width` columns.
    pub const fn new(channels: usize, height: usize, width: usize) -> Self {
        Self {
            channels,
            height,
            width,
        }
    }

    /// Bytes of one image, one per pixel and channel. A product that exceeds `usize` is
    /// [`usize::MAX`].
    pub const fn bytes(self) -> usize {
        self.channels
            .saturating_mul(self.height)
            .saturating_mul(self.width)
    }
}

/// `3 × 32 × 32`: channels, height, width.
impl fmt::Display for ImageShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {} × {}", self.channels, self.height, self.width)
    }
}

/// The most classes of a set: a label is a `u16`.
pub const MAX_CLASSES: usize = 1 << 16;

/// The pixels of a set.
#[derive(Debug)]
pub(crate) enum Pixels {
    /// In memory.
    Held(Vec<u8>),
    /// In files, to be decoded.
    Files(Files),
}

#[derive(Debug)]
struct Storage {
    name: String,
    shape: ImageShape,
    pixels: Pixels,
    labels: Vec<u16>,
    class_names: Arc<[String]>,
}

/// The images and labels of one split. All images have one shape.
///
/// Pixels are bytes in the order `[record, channel, row, column]`. They are in memory, which a clone
/// shares, or in the files of a [`folder`](mod@crate::folder) that memory does not hold.
///
/// [`ImageLoader`](crate::ImageLoader) makes batches of it. It is also a Burn [`Dataset`] of
/// [`ImageItem`]s, for Burn's own data loader and transforms:
///
/// ```
/// use burn::data::dataloader::{DataLoaderBuilder, batcher::Batcher};
/// use burn::data::dataset::transform::PartialDataset;
/// use burn::tensor::{Device, Tensor, TensorData};
/// use rezero_data::{ImageItem, Split, shapes};
///
/// struct Stack;
///
/// impl Batcher<ImageItem, Tensor<4>> for Stack {
///     fn batch(&self, items: Vec<ImageItem>, device: &Device) -> Tensor<4> {
///         let s = items[0].shape;
///         let dims = [items.len(), s.channels, s.height, s.width];
///         let bytes = items.iter().flat_map(|item| &item.pixels);
///         let values: Vec<f32> = bytes.map(|&byte| f32::from(byte) / 255.0).collect();
///         Tensor::from_data(TensorData::new(values, dims), device)
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let set = shapes::generate(Split::Train, 100, 1);
/// let loader = DataLoaderBuilder::new(Stack)
///     .batch_size(20)
///     .shuffle(7)
///     .set_device(Device::flex())
///     .build(PartialDataset::new(set, 0, 60));
/// let mut batches = 0;
/// for batch in loader.iter() {
///     assert_eq!(batch?.dims(), [20, 3, 32, 32]);
///     batches += 1;
/// }
/// assert_eq!(batches, 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ImageSet {
    storage: Arc<Storage>,
    len: usize,
    official_len: usize,
}

impl ImageSet {
    /// A set from bytes in memory.
    ///
    /// `pixels` holds [`shape.bytes()`](ImageShape::bytes) bytes per label. `official_len` is the
    /// number of records of the official set, of which this set may be a subset; 0 if there is no
    /// such set.
    ///
    /// ```
    /// use rezero_data::{ImageSet, ImageShape};
    ///
    /// # fn main() -> rezero_data::Result<()> {
    /// // Two grey images of 28 × 28 pixels, the first of class 1.
    /// let shape = ImageShape::new(1, 28, 28);
    /// let pixels = vec![0; 2 * shape.bytes()];
    /// let set = ImageSet::from_raw("mine", shape, pixels, vec![1u8, 0], ["cat", "dog"], 0)?;
    /// assert_eq!(set.class_names()[usize::from(set.label(0))], "dog");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the shape has a 0, the lengths do not match, there are more than 65,536 classes, or a
    /// label is not below the number of class names.
    pub fn from_raw<N: Into<String>, L: Into<u16>>(
        name: impl Into<String>,
        shape: ImageShape,
        pixels: Vec<u8>,
        labels: Vec<L>,
        class_names: impl IntoIterator<Item = N>,
        official_len: usize,
    ) -> Result<Self> {
        let class_names = class_names.into_iter().map(Into::into).collect();
        let labels = labels.into_iter().map(Into::into).collect();
        let pixels = Pixels::Held(pixels);
        Self::of(
            name.into(),
            shape,
            pixels,
            labels,
            class_names,
            official_len,
        )
    }

    /// As [`from_raw`](Self::from_raw).
    pub(crate) fn of(
        name: String,
        shape: ImageShape,
        pixels: Pixels,
        labels: Vec<u16>,
        class_names: Vec<String>,
        official_len: usize,
    ) -> Result<Self> {
        DataError::require(
            class_names.len() <= MAX_CLASSES,
            "the number of classes",
            &format!("at most {MAX_CLASSES}"),
            &class_names.len(),
        )?;
        DataError::require(
            shape.bytes() > 0,
            "the shape of images",
            "at least 1 × 1 × 1 (channels, height, width)",
            &shape,
        )?;
        if let Pixels::Held(pixels) = &pixels
            && labels.len().checked_mul(shape.bytes()) != Some(pixels.len())
        {
            return Err(DataError::PixelCount {
                name,
                shape,
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
        let len = labels.len();
        let storage = Arc::new(Storage {
            name,
            shape,
            pixels,
            labels,
            class_names: class_names.into(),
        });
        Ok(Self {
            storage,
            len,
            official_len,
        })
    }

    /// The shape of each image.
    pub fn shape(&self) -> ImageShape {
        self.storage.shape
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the pixels are in memory. If not, each call that reads some decodes their files.
    pub fn is_in_memory(&self) -> bool {
        matches!(self.storage.pixels, Pixels::Held(_))
    }

    /// The pixel bytes of record `i`, `[channel, row, column]`.
    ///
    /// # Errors
    ///
    /// If they are in a file that can no longer be read, or has changed since the set was opened.
    /// Pixels in memory give no error.
    ///
    /// # Panics
    ///
    /// If `i` is not below [`len`](Self::len).
    pub fn pixels(&self, i: usize) -> Result<Cow<'_, [u8]>> {
        assert!(i < self.len, "record {i} of an image set of {}", self.len);
        match &self.storage.pixels {
            Pixels::Held(pixels) => Ok(Cow::Borrowed(self.held(pixels, i))),
            Pixels::Files(files) => files.read(i).map(Cow::Owned),
        }
    }

    /// The pixel bytes of all records, `[record, channel, row, column]`. `None` if they are not in memory.
    pub fn all_pixels(&self) -> Option<&[u8]> {
        match &self.storage.pixels {
            Pixels::Held(pixels) => Some(&pixels[..self.len * self.storage.shape.bytes()]),
            Pixels::Files(_) => None,
        }
    }

    fn held<'a>(&self, pixels: &'a [u8], i: usize) -> &'a [u8] {
        let bytes = self.storage.shape.bytes();
        &pixels[i * bytes..][..bytes]
    }

    /// The pixel bytes of several records, decoded on all cores where they are in files.
    pub(crate) fn read(&self, records: &[u32]) -> Result<Vec<Cow<'_, [u8]>>> {
        let bytes = self.storage.shape.bytes();
        Ok(match &self.storage.pixels {
            Pixels::Held(pixels) => {
                let held = |&i: &u32| Cow::Borrowed(self.held(pixels, i as usize));
                records.iter().map(held).collect()
            }
            Pixels::Files(files) => {
                let read = files.read_all(records)?;
                let each = read.chunks_exact(bytes);
                each.map(|pixels| Cow::Owned(pixels.to_vec())).collect()
            }
        })
    }

    /// The label of record `i`, below [`num_classes`](Self::num_classes).
    ///
    /// # Panics
    ///
    /// If `i` is not below [`len`](Self::len).
    pub fn label(&self, i: usize) -> u16 {
        assert!(i < self.len, "record {i} of an image set of {}", self.len);
        self.storage.labels[i]
    }

    /// All labels, in record order.
    pub fn labels(&self) -> &[u16] {
        &self.storage.labels[..self.len]
    }

    /// The number of classes.
    pub fn num_classes(&self) -> usize {
        self.storage.class_names.len()
    }

    /// The name of each class, in label order.
    pub fn class_names(&self) -> &[String] {
        &self.storage.class_names
    }

    /// The data set's name, such as `cifar10`.
    pub fn name(&self) -> &str {
        &self.storage.name
    }

    /// Whether this set has fewer records than the official one. A result on a subset is not a
    /// result on the data set.
    pub fn is_subset(&self) -> bool {
        self.len < self.official_len
    }

    /// The number of records of the official set; 0 if there is none.
    pub fn official_len(&self) -> usize {
        self.official_len
    }

    /// The first `n` records, or all if there are fewer. The memory is shared.
    #[must_use]
    pub fn take(&self, n: usize) -> Self {
        Self {
            len: n.min(self.len),
            ..self.clone()
        }
    }

    /// The SHA-256, in hexadecimal, of all labels followed by all pixels: two sets of one shape
    /// with the same fingerprint hold the same records in the same order. A label is one byte; of
    /// more than 256 classes it is two, the low one first.
    ///
    /// # Errors
    ///
    /// As [`pixels`](Self::pixels).
    pub fn fingerprint(&self) -> Result<String> {
        if let Some(files) = self.all_files() {
            return Ok(files.fingerprint().to_owned());
        }
        let mut hasher = Sha256::new();
        hasher.update(label_bytes(self.labels(), self.num_classes()));
        self.each(|pixels| hasher.update(pixels))?;
        Ok(hex(&hasher.finalize()))
    }

    /// How often each byte is in each channel.
    pub(crate) fn counts(&self) -> Result<Cow<'_, Counts>> {
        if let Some(files) = self.all_files() {
            return Ok(Cow::Borrowed(files.counts()));
        }
        let mut counts = Counts::new(self.shape());
        self.each(|pixels| counts.add(pixels))?;
        Ok(Cow::Owned(counts))
    }

    /// The files of a set that was not cut: what was found when they were surveyed is true of it.
    fn all_files(&self) -> Option<&Files> {
        match &self.storage.pixels {
            Pixels::Files(files) if self.len == self.storage.labels.len() => Some(files),
            Pixels::Files(_) | Pixels::Held(_) => None,
        }
    }

    fn each(&self, mut look: impl FnMut(&[u8])) -> Result<()> {
        (0..self.len).try_for_each(|i| self.pixels(i).map(|pixels| look(&pixels)))
    }
}

/// The bytes of labels in a fingerprint.
pub(crate) fn label_bytes(labels: &[u16], classes: usize) -> Vec<u8> {
    let wide = classes > 1 << 8;
    let bytes = labels.iter().flat_map(|label| {
        let [low, high] = label.to_le_bytes();
        [Some(low), wide.then_some(high)].into_iter().flatten()
    });
    bytes.collect()
}

/// The number of records, and for a subset of how many: `cifar10: 4500 records, a subset of 45000`.
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
            .field("shape", &self.shape())
            .field("len", &self.len)
            .field("official_len", &self.official_len)
            .finish_non_exhaustive()
    }
}

/// One record of an [`ImageSet`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ImageItem {
    /// The pixel bytes, `[channel, row, column]`.
    pub pixels: Vec<u8>,
    /// The shape of the image.
    pub shape: ImageShape,
    /// The label, an index into [`ImageSet::class_names`].
    pub label: u16,
}

impl Dataset<ImageItem> for ImageSet {
    /// Record `i`. An error is that of [`ImageSet::pixels`].
    ///
    /// # Panics
    ///
    /// If `i` is not below [`len`](ImageSet::len).
    fn get(&self, i: usize) -> Result<ImageItem, DatasetError> {
        Ok(ImageItem {
            pixels: self.pixels(i).map_err(DatasetError::new)?.into_owned(),
            shape: self.shape(),
            label: self.label(i),
        })
    }

    fn len(&self) -> usize {
        self.len
    }
}
