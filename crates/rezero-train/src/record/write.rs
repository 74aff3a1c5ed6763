//! Files that are whole or absent.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// Writes `bytes` to a sibling file, forces it to disk and renames it to `path`.
///
/// # Errors
///
/// If one of these steps fails; `path` is then unchanged.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let temp = path.with_extension("tmp");
    write_synced(&temp, bytes)?;
    fs::rename(&temp, path).map_err(|e| Error::io("rename to", path, e))?;
    // A rename is durable once its directory is.
    if let Some(parent) = path.parent()
        && let Ok(dir) = File::open(parent)
    {
        let _ = dir.sync_all();
    }
    Ok(())
}

pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    File::create(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .map_err(|e| Error::io("write", path, e))
}
