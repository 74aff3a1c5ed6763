//! Files of a run directory. The directory may come from somebody else: no link in it is followed, only
//! regular files are opened, and no more is read than such a file can hold.
//!
//! The directory itself may be a link, because the user named it.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use super::checkpoint::{self, step_of};
use super::{events, metrics, run_dir};
use crate::error::{Error, Result};

/// The most bytes of a recipe, an environment, a state, a manifest or a file of Jacobians.
pub(crate) const SMALL: u64 = 8 << 20;

/// Refuses a run in which a link, a pipe or a device stands in the place of one of its files. Each command
/// does this before it reads the run.
///
/// # Errors
///
/// The first such place, or that a folder cannot be listed.
pub(crate) fn check(run: &Path) -> Result<()> {
    each(run, |path, name| match name == checkpoint::DIR {
        true => must_be(run, path, Metadata::is_dir),
        false if is_ours(name) => must_be(run, path, Metadata::is_file),
        false => Ok(()),
    })?;
    let checkpoints = run.join(checkpoint::DIR);
    if !is_there(&checkpoints) {
        return Ok(());
    }
    each(&checkpoints, |path, _| {
        if step_of(path).is_none() {
            return Ok(());
        }
        must_be(run, path, Metadata::is_dir)?;
        each(path, |file, _| must_be(run, file, Metadata::is_file))
    })
}

/// Whether a command reads or writes a file of that name in a run directory.
fn is_ours(name: &str) -> bool {
    use run_dir::{DONE, ENV, LOCK, RECIPE};
    [RECIPE, ENV, LOCK, DONE, metrics::FILE].contains(&name)
        || name.starts_with("jacobian")
        || events::is_one(name)
}

/// Calls `look` with each entry of a folder and its name.
fn each(dir: &Path, mut look: impl FnMut(&Path, &str) -> Result<()>) -> Result<()> {
    let io = |e| Error::io("read", dir, e);
    for entry in fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        look(&entry.path(), &entry.file_name().to_string_lossy())?;
    }
    Ok(())
}

/// Refuses `path`, a part of `run`, if it is there and `is` does not hold for it.
pub(super) fn must_be(run: &Path, path: &Path, is: fn(&Metadata) -> bool) -> Result<()> {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if is(&meta) {
        return Ok(());
    }
    Err(Error::Run {
        dir: run.to_owned(),
        message: format!(
            "{} is {}, which no command reads or writes there; remove it, or put the real one in its place",
            path.strip_prefix(run).unwrap_or(path).display(),
            kind(&meta)
        ),
    })
}

/// What stands at a path, in words.
pub(super) fn kind(meta: &Metadata) -> &'static str {
    match () {
        () if meta.is_symlink() => "a symbolic link",
        () if meta.is_dir() => "a folder",
        () if meta.is_file() => "a file",
        () => "a pipe, a socket or a device",
    }
}

/// Whether there is anything at `path`, be it a link to nowhere.
pub(crate) fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Whether a regular file is at `path`.
pub(crate) fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file())
}

/// Opens a regular file.
///
/// # Errors
///
/// If it is not one, or cannot be opened.
pub(super) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // The system itself refuses a link, and a pipe is opened without waiting for its other end.
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;

        use rustix::fs::OFlags;
        options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
    }
    #[cfg(not(unix))]
    if fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return Err(io::Error::other("it is not a regular file"));
    }
    let file = options.open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// The content of a regular file of at most `most` bytes.
///
/// # Errors
///
/// If it is not one, has more bytes, or cannot be read.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open(path, File::options().read(true))?;
    let mut bytes = Vec::new();
    // It may grow while it is read.
    file.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(io::Error::other(format!(
            "it has more than {most} bytes, the most that such a file may have"
        ))),
        false => Ok(bytes),
    }
}
