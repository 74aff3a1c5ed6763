use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::{DataError, Result};

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut s, b| {
            // Writing to a String cannot fail.
            let _ = write!(s, "{b:02x}");
            s
        })
}

/// The SHA-256 of a file, in hexadecimal. `seen` gets the length of each chunk.
pub(crate) fn file_sha256(path: &Path, mut seen: impl FnMut(u64)) -> Result<String> {
    let mut file = File::open(path).map_err(DataError::io("open", path))?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 1 << 16];
    loop {
        match file.read(&mut chunk).map_err(DataError::io("read", path))? {
            0 => return Ok(hex(&hasher.finalize())),
            n => {
                hasher.update(&chunk[..n]);
                seen(n as u64);
            }
        }
    }
}
