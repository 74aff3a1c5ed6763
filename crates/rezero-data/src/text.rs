use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::Split;
use crate::hash::hex;

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

    /// Whether this is less than the whole split. A figure measured on a subset is not the split's
    /// figure.
    pub fn is_subset(&self) -> bool {
        self.len < self.storage.bytes.len()
    }

    /// The first `n` bytes, or all where there are fewer. The memory is shared.
    #[must_use]
    pub fn take(self, n: usize) -> Self {
        Self {
            len: n.min(self.len),
            ..self
        }
    }

    /// The SHA-256 of the bytes, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(self.bytes()))
    }
}

/// Says how many bytes there are, and of how many: `enwik8 valid: 1000 bytes, a subset of 5000000`.
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
