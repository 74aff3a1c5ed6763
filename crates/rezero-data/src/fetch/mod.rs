//! Download, check, unpack: `plan` says which of these are needed, `fetch` does them.
//!
//! In the data folder, from the first byte to the last step:
//!
//! ```text
//! NAME.part           what has arrived so far; kept when a transfer breaks off, and resumed
//! NAME                the archive, renamed from NAME.part once its SHA-256 is right; may be deleted
//! .unpacking-NAME-…/  the files while they are unpacked and checked
//! FOLDER/             the data, renamed from there last
//! .NAME.lock          held meanwhile, so that two processes do not work on one archive at the same time
//! ```
//!
//! A file or folder with its final name is always complete. A process that is killed leaves at most
//! a `.part` and an `.unpacking-NAME-…`, which the next call resumes or removes.

#[cfg(feature = "download")]
mod http;
#[cfg(feature = "download")]
mod proxy;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

#[cfg(feature = "download")]
use self::http::download;
use crate::hash::file_sha256;
use crate::registry::Entry;
use crate::{DataError, Result, unpack};

/// How to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The data folder: the archive goes there, and the data into a folder below it. Default:
    /// `datasets`.
    pub dir: PathBuf,
    /// Never open the network. Default: false.
    pub offline: bool,
    /// Addresses to use in place of the registry's, in order. Default: none.
    pub urls: Vec<String>,
    /// How often a broken transfer is tried again, at each address. An attempt that brings 1 MiB or
    /// more resets the count. Default: 4.
    pub retries: u32,
    /// Show no progress: neither the bar on a terminal nor the lines elsewhere, both on stderr.
    /// Default: false.
    pub quiet: bool,
    /// The time to find the server and connect to it. Default: 15 s.
    pub connect_timeout: Duration,
    /// The longest time to wait for data from the server. Default: 30 s.
    pub read_timeout: Duration,
    /// The pause before the first new attempt. It doubles for each further one, up to a minute.
    /// Default: 1 s.
    pub backoff: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dir: "datasets".into(),
            offline: false,
            urls: Vec::new(),
            retries: 4,
            quiet: false,
            connect_timeout: Duration::from_secs(15),
            read_timeout: Duration::from_secs(30),
            backoff: Duration::from_secs(1),
        }
    }
}

/// What [`fetch`] would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing: the data are in this folder.
    Use(PathBuf),
    /// Check and unpack an archive that is there.
    Unpack {
        /// The archive.
        archive: PathBuf,
    },
    /// Download, then check and unpack.
    Download {
        /// The first address to try.
        url: String,
        /// The archive's length in bytes.
        bytes: u64,
        /// How many of them are there already.
        resume_from: u64,
    },
}

/// What [`fetch`] would do for `entry`, given the files in `options.dir`. Writes nothing and opens
/// no connection.
///
/// # Errors
///
/// If a download would be needed but `options.offline` is set, if the data folder holds a
/// damaged copy (which is never overwritten), or if a file is in the place of a folder.
pub fn plan(entry: &Entry, options: &Options) -> Result<Plan> {
    let dir = &options.dir;
    if let Some(folder) = entry.find(dir)? {
        return Ok(Plan::Use(folder));
    }
    let archive = dir.join(&entry.archive);
    match fs::metadata(&archive) {
        Ok(m) if m.is_file() => return Ok(Plan::Unpack { archive }),
        Ok(_) => {
            return Err(DataError::in_the_way(archive, "file"));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(DataError::io("look at", &archive)(e)),
    }
    if options.offline {
        return Err(DataError::Offline {
            name: entry.title.clone(),
            dir: dir.clone(),
            by_hand: entry.by_hand(dir),
        });
    }
    if cfg!(not(feature = "download")) {
        return Err(DataError::NoDownload {
            name: entry.title.clone(),
            dir: dir.clone(),
            by_hand: entry.by_hand(dir),
        });
    }
    let url = urls(entry, options)
        .first()
        .ok_or_else(|| DataError::Setting {
            setting: "urls",
            rule: "at least one address".into(),
            got: "none".into(),
        })?;
    Ok(Plan::Download {
        url: url.clone(),
        bytes: entry.bytes,
        resume_from: length(&part_of(&archive)).min(entry.bytes),
    })
}

/// Brings the data of `entry` into `options.dir` and returns the folder that holds them.
///
/// Data that are already there are used as they are, without network or writing. An archive that is
/// already there (placed by hand or left by an earlier call) is checked and unpacked. Otherwise
/// each address is tried in order, and a broken transfer is resumed.
///
/// # Errors
///
/// As [`plan`], or if no address gives the file, its SHA-256 is not the registered one, the archive
/// is unsafe or damaged, or it cannot be written to the disk. A download with a wrong hash is
/// deleted; an archive that was there before is left in place.
pub fn fetch(entry: &Entry, options: &Options) -> Result<PathBuf> {
    if let Plan::Use(folder) = plan(entry, options)? {
        return Ok(folder);
    }
    let dir = &options.dir;
    fs::create_dir_all(dir).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => DataError::in_the_way(dir.clone(), "folder"),
        _ => DataError::io("create", dir)(e),
    })?;
    let bar = Bar::new(options.quiet);
    let lock = lock(&dir.join(format!(".{}.lock", entry.archive)), &bar)?;
    if lock.is_some() {
        unpack::sweep(dir, entry);
    }
    // Another process may have done the work while this one waited.
    let archive = match plan(entry, options)? {
        Plan::Use(folder) => return Ok(folder),
        Plan::Unpack { archive } => {
            verify(&archive, entry, &bar, OnMismatch::Keep)?;
            archive
        }
        #[cfg(feature = "download")]
        Plan::Download { .. } => download(entry, options, &bar)?,
        #[cfg(not(feature = "download"))]
        Plan::Download { .. } => unreachable!("`plan` refuses it"),
    };
    bar.stage("unpacking", entry.bytes, 0);
    unpack::unpack(&archive, dir, entry, |n| bar.advance(n))
}

fn urls<'a>(entry: &'a Entry, options: &'a Options) -> &'a [String] {
    if options.urls.is_empty() {
        &entry.urls
    } else {
        &options.urls
    }
}

fn part_of(archive: &Path) -> PathBuf {
    let mut name = archive.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// The length of a file, 0 if there is none.
fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |m| m.len())
}

#[cfg(feature = "download")]
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(DataError::io("delete", path)(e)),
        _ => Ok(()),
    }
}

/// Waits for the lock. `None` on a file system without locks. There, the SHA-256 and the renames
/// alone guarantee a complete result.
fn lock(path: &Path, bar: &Bar) -> Result<Option<File>> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(DataError::io("create", path))?;
    let locked = match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            bar.stage(
                "waiting for another process that is fetching the same data",
                0,
                0,
            );
            file.lock()
        }
        Err(TryLockError::Error(e)) => Err(e),
        Ok(()) => Ok(()),
    };
    match locked {
        Ok(()) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(None),
        Err(e) => Err(DataError::io("lock", path)(e)),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum OnMismatch {
    #[cfg(feature = "download")]
    Delete,
    Keep,
}

fn verify(file: &Path, entry: &Entry, bar: &Bar, on_mismatch: OnMismatch) -> Result<()> {
    bar.stage("checking", length(file), 0);
    let got = file_sha256(file, |n| bar.advance(n))?;
    if got == entry.sha256 {
        return Ok(());
    }
    let done = match on_mismatch {
        #[cfg(feature = "download")]
        OnMismatch::Delete => {
            remove(file)?;
            "the download was deleted"
        }
        OnMismatch::Keep => "the file was left in place: delete or replace it",
    };
    let expected = entry.sha256.clone();
    Err(DataError::HashMismatch {
        file: file.to_path_buf(),
        expected,
        got,
        done,
    })
}

/// A progress bar on stderr, drawn only on a terminal.
struct Bar {
    bar: ProgressBar,
    /// Whether to print a line for each stage, if there is no bar.
    lines: bool,
}

impl Bar {
    fn new(quiet: bool) -> Self {
        let drawn = !quiet && io::stderr().is_terminal();
        let target = match drawn {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        Self {
            bar: ProgressBar::with_draw_target(None, target),
            lines: !quiet && !drawn,
        }
    }

    /// Begins a stage of `total` bytes, of which `done` are done; a total of 0 is unknown.
    fn stage(&self, what: &str, total: u64, done: u64) {
        if self.lines {
            // Standard error may be closed; progress is not worth failing for.
            let _ = writeln!(io::stderr(), "{what}");
        }
        let template = if total == 0 {
            "{msg}"
        } else {
            "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.set_message(what.to_owned());
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.reset_eta();
        self.bar.tick();
    }

    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
