use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use burn::data::dataset::{Dataset, DatasetError};
use sha2::{Digest, Sha256};

use crate::hash::hex;
use crate::{Result, Split};

/// The byte that a model reads before the first scored byte of a text: a line end, since a text
/// begins at the start of a line.
pub const START_BYTE: u8 = b'\n';

#[derive(Debug)]
struct Storage {
    name: String,
    split: Split,
    bytes: Vec<u8>,
}

/// The bytes of one split of a text, in memory. Made by [`corpus`](crate::corpus).
///
/// A clone shares the memory.
#[derive(Clone)]
pub struct Text {
    storage: Arc<Storage>,
    len: usize,
}

impl Text {
    /// A text whose split is `bytes`.
    pub(crate) fn new(name: String, split: Split, bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        let storage = Arc::new(Storage { name, split, bytes });
        Self { storage, len }
    }

    /// The text's name, such as `enwik8`.
    pub fn name(&self) -> &str {
        &self.storage.name
    }

    /// Which part of the text this is.
    pub fn split(&self) -> Split {
        self.storage.split
    }

    /// The bytes, in order.
    pub fn bytes(&self) -> &[u8] {
        &self.storage.bytes[..self.len]
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether this is less than the whole split. A result on a subset is not a result on the
    /// split.
    pub fn is_subset(&self) -> bool {
        self.len < self.storage.bytes.len()
    }

    /// The first `n` bytes, or all if there are fewer. The memory is shared.
    #[must_use]
    pub fn take(self, n: usize) -> Self {
        Self {
            len: n.min(self.len),
            ..self
        }
    }

    /// The whole text in windows of `context` bytes, one after the other, as a Burn [`Dataset`]; the
    /// last one may be shorter.
    ///
    /// Each byte is a target once. [`TextLoader::scoring`](crate::TextLoader::scoring) with
    /// `stride = context` scores the same windows in batches.
    ///
    /// ```
    /// use burn::data::dataset::Dataset;
    /// use rezero_data::{START_BYTE, Split, corpus};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let text = corpus::bytes("abc", b"abcdefghijklmnop".to_vec(), Split::Train)?;
    /// let windows = text.windows(6);
    /// assert_eq!(windows.len(), 3);
    /// let second = windows.get(1)?;
    /// assert_eq!((&second.inputs[..], &second.targets[..]), (&b"fghijk"[..], &b"ghijkl"[..]));
    /// assert_eq!(windows.get(0)?.inputs[0], START_BYTE);
    /// assert_eq!(windows.get(2)?.targets, b"mn");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If `context` is 0.
    pub fn windows(&self, context: usize) -> TextWindows {
        assert!(context > 0, "a window of a text has at least 1 byte");
        TextWindows {
            text: self.clone(),
            context,
        }
    }

    /// The bytes that a model reads to predict the bytes at `targets`: the byte before each of
    /// them.
    pub(crate) fn inputs(&self, targets: Range<usize>) -> impl Iterator<Item = u8> + '_ {
        let start = (targets.start == 0).then_some(START_BYTE);
        let before = targets.start.saturating_sub(1)..targets.end - 1;
        start
            .into_iter()
            .chain(self.bytes()[before].iter().copied())
    }

    /// The SHA-256 of the bytes, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(self.bytes()))
    }
}

/// The number of bytes, and for a subset of how many:
/// `enwik8 valid: 1000 bytes, a subset of 5000000`.
impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {} bytes", self.name(), self.split(), self.len)?;
        if self.is_subset() {
            write!(f, ", a subset of {}", self.storage.bytes.len())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Text")
            .field("name", &self.name())
            .field("split", &self.split())
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// A [`Text`] in windows that do not overlap. Made by [`Text::windows`].
///
/// It is a Burn [`Dataset`] of [`TextItem`]s, for Burn's own data loader and transforms:
///
/// ```
/// use burn::data::dataloader::{DataLoaderBuilder, batcher::Batcher};
/// use burn::data::dataset::transform::{Mapper, MapperDataset};
/// use burn::tensor::{Device, Int, Tensor, TensorData};
/// use rezero_data::{Split, TextItem, corpus};
///
/// /// Takes upper and lower case for one.
/// struct LowerCase;
///
/// impl Mapper<TextItem, TextItem> for LowerCase {
///     fn map(&self, item: &TextItem) -> TextItem {
///         TextItem {
///             inputs: item.inputs.to_ascii_lowercase(),
///             targets: item.targets.to_ascii_lowercase(),
///         }
///     }
/// }
///
/// struct Stack;
///
/// impl Batcher<TextItem, Tensor<2, Int>> for Stack {
///     fn batch(&self, items: Vec<TextItem>, device: &Device) -> Tensor<2, Int> {
///         let dims = [items.len(), items[0].inputs.len()];
///         let ids: Vec<i32> = items
///             .iter()
///             .flat_map(|item| item.inputs.iter().map(|&byte| i32::from(byte)))
///             .collect();
///         Tensor::from_data(TensorData::new(ids, dims), device)
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let text = corpus::wiki_like(64 * 30, 1, Split::Valid);
/// let loader = DataLoaderBuilder::new(Stack)
///     .batch_size(10)
///     .set_device(Device::flex())
///     .build(MapperDataset::new(text.windows(64), LowerCase));
/// let mut batches = 0;
/// for batch in loader.iter() {
///     assert_eq!(batch?.dims(), [10, 64]);
///     batches += 1;
/// }
/// assert_eq!(batches, 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TextWindows {
    text: Text,
    context: usize,
}

impl TextWindows {
    /// The text.
    pub fn text(&self) -> &Text {
        &self.text
    }

    /// Bytes of each window but the last.
    pub fn context(&self) -> usize {
        self.context
    }
}

/// One window of a text.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TextItem {
    /// The bytes that the model reads. The first window's begin with [`START_BYTE`].
    pub inputs: Vec<u8>,
    /// The byte after each of them.
    pub targets: Vec<u8>,
}

impl Dataset<TextItem> for TextWindows {
    /// Window `i`: its targets are bytes `i · context .. min((i + 1) · context, len)` of the text.
    /// It never returns an error, since the text is in memory.
    ///
    /// # Panics
    ///
    /// If `i` is not below the number of windows.
    fn get(&self, i: usize) -> Result<TextItem, DatasetError> {
        assert!(i < self.len(), "window {i} of {}", self.len());
        let start = i * self.context;
        let targets = start..start.saturating_add(self.context).min(self.text.len());
        Ok(TextItem {
            inputs: self.text.inputs(targets.clone()).collect(),
            targets: self.text.bytes()[targets].to_vec(),
        })
    }

    fn len(&self) -> usize {
        self.text.len().div_ceil(self.context)
    }
}
