//! IDX, the format of MNIST: a header of big-endian numbers, then bytes.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use flate2::read::GzDecoder;

use crate::{DataError, Result};

/// An array of bytes as an IDX file holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// The length along each axis.
    pub dims: Vec<usize>,
    /// The bytes, the last axis fastest.
    pub bytes: Vec<u8>,
}

/// The code of unsigned bytes; other types of numbers are not read.
const UNSIGNED_BYTE: u8 = 8;

/// Reads the bytes of an IDX file with `axes` axes and at most `most` bytes of content; `file` is
/// named in errors.
///
/// The file is two zero bytes, the type of its numbers (8: unsigned bytes), the number of axes, the
/// length along each axis as a big-endian number of 32 bits, and the numbers.
///
/// # Errors
///
/// If the bytes are not such a file, or hold fewer or more numbers than the header says.
pub fn parse(bytes: &[u8], file: &Path, axes: usize, most: usize) -> Result<Array> {
    let bad = |why: String| DataError::BadIdx {
        file: file.to_path_buf(),
        why,
    };
    let (head, rest) = bytes
        .split_first_chunk::<4>()
        .ok_or_else(|| bad(format!("it has {} bytes, fewer than a header", bytes.len())))?;
    if head[..2] != [0, 0] {
        return Err(bad("it does not begin with two zero bytes".to_owned()));
    }
    if head[2] != UNSIGNED_BYTE || usize::from(head[3]) != axes {
        return Err(bad(format!(
            "it holds numbers of type {:#04x} along {} axes, not unsigned bytes (0x08) along {axes}",
            head[2], head[3]
        )));
    }
    let (lengths, content) = rest
        .split_at_checked(4 * axes)
        .ok_or_else(|| bad("it ends within its header".to_owned()))?;
    let (lengths, _) = lengths.as_chunks::<4>();
    let lengths = lengths.iter().map(|length| u32::from_be_bytes(*length));
    let dims: Vec<usize> = lengths.map(|length| length as usize).collect();
    let size = dims
        .iter()
        .try_fold(1, |size: usize, &length| size.checked_mul(length));
    match size {
        Some(size) if size <= most && size == content.len() => Ok(Array {
            dims,
            bytes: content.to_vec(),
        }),
        Some(size) if size <= most => Err(bad(format!(
            "its header says {dims:?}, {size} bytes, and {} bytes follow: it was cut short or is another file",
            content.len()
        ))),
        Some(_) | None => Err(bad(format!(
            "its header says {dims:?}, more than the {most} bytes of an official file"
        ))),
    }
}

/// Reads an IDX file, compressed with gzip if its name ends in `.gz`. See [`parse`].
///
/// # Errors
///
/// As [`parse`], or if the file cannot be read.
pub fn read(file: &Path, axes: usize, most: usize) -> Result<Array> {
    let header = 4 + 4 * axes;
    // One byte past the cap tells an over-long file from a full one.
    let limit = (most + header + 1) as u64;
    let open = File::open(file).map_err(DataError::io("open", file))?;
    let mut bytes = Vec::new();
    let done = match file.extension().is_some_and(|end| end == "gz") {
        true => GzDecoder::new(open).take(limit).read_to_end(&mut bytes),
        false => open.take(limit).read_to_end(&mut bytes),
    };
    done.map_err(|e| match e.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            DataError::BadIdx {
                file: file.to_path_buf(),
                why: format!("it is not a whole gzip file ({e})"),
            }
        }
        _ => DataError::io("read", file)(e),
    })?;
    parse(&bytes, file, axes, most)
}
