//! Files of records of one length, without a header.

use std::path::Path;

use crate::{DataError, Result};

/// A layout of files that hold records of one length and nothing else. Readers check it, and errors
/// name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordLayout {
    /// What a file is, such as "CIFAR-10 batch".
    pub kind: &'static str,
    /// Bytes of a record, at least 1.
    pub record_bytes: usize,
    /// Records of an official file; no file may hold more.
    pub max_records: usize,
    /// What to do about a damaged file, such as "restore it".
    pub remedy: &'static str,
}

impl RecordLayout {
    /// The length of an official file.
    pub const fn max_bytes(self) -> u64 {
        (self.record_bytes as u64).saturating_mul(self.max_records as u64)
    }

    /// The number of records of a file of `len` bytes.
    pub(crate) fn records(self, file: &Path, len: u64) -> Result<usize> {
        let record = self.record_bytes as u64;
        let (file, layout) = (|| file.to_path_buf(), self);
        if len == 0 {
            return Err(DataError::EmptyFile {
                file: file(),
                layout,
            });
        }
        if len > self.max_bytes() {
            return Err(DataError::TooManyRecords {
                file: file(),
                len,
                layout,
            });
        }
        let (records, remainder) = (len / record, len % record);
        if remainder > 0 {
            return Err(DataError::PartialRecord {
                file: file(),
                len,
                records,
                remainder,
                layout,
            });
        }
        Ok(records as usize)
    }
}
