//! Reads the files of results that tests compare with.

use std::io::Read;

/// The rest of a file.
pub(super) struct Golden(std::vec::IntoIter<u8>);

impl Golden {
    /// A file compressed by gzip.
    pub(super) fn open(file: &[u8]) -> Self {
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(file)
            .read_to_end(&mut bytes)
            .unwrap();
        Self(bytes.into_iter())
    }

    pub(super) fn bytes(&mut self, n: usize) -> Vec<u8> {
        let bytes: Vec<u8> = self.0.by_ref().take(n).collect();
        assert_eq!(bytes.len(), n, "the file ends");
        bytes
    }

    /// A float of four bytes, little-endian.
    pub(super) fn float(&mut self) -> f32 {
        f32::from_le_bytes(self.bytes(4).try_into().unwrap())
    }

    pub(super) fn end(mut self) {
        assert_eq!(self.0.next(), None, "the file goes on");
    }
}
