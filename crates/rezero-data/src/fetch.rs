//! Download, check, unpack: `plan` says which of these are needed, `fetch` does them.
//!
//! In the data folder, from the first byte to the last step:
//!
//! ```text
//! NAME.part       what has arrived so far; kept when a transfer breaks off, and resumed
//! NAME            the archive, renamed from NAME.part once its SHA-256 is right; may be deleted
//! .unpacking-…/   the files while they are unpacked and checked
//! FOLDER/         the data, renamed from there last
//! .NAME.lock      held meanwhile, so that two processes do not work at the same time
//! ```
//!
//! A file or folder with its final name is always complete. A process that is killed leaves at most
//! a `.part` and an `.unpacking-…`, which the next call resumes or removes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ureq::http::{HeaderMap, header};

use crate::hash::file_sha256;
use crate::registry::Entry;
use crate::{Causes, DataError, Result, unpack};

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
            return Err(DataError::WrongKind {
                path: archive,
                expected: "file",
            });
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
        io::ErrorKind::AlreadyExists => DataError::WrongKind {
            path: dir.clone(),
            expected: "folder",
        },
        _ => DataError::io("create", dir)(e),
    })?;
    let bar = Bar::new(options.quiet);
    let lock = lock(&dir.join(format!(".{}.lock", entry.archive)), &bar)?;
    if lock.is_some() {
        unpack::sweep(dir);
    }
    // Another process may have done the work while this one waited.
    let archive = match plan(entry, options)? {
        Plan::Use(folder) => return Ok(folder),
        Plan::Unpack { archive } => {
            verify(&archive, entry, &bar, OnMismatch::Keep)?;
            archive
        }
        Plan::Download { .. } => download(entry, options, &bar)?,
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

/// Tries every address; returns the checked archive under its final name.
fn download(entry: &Entry, options: &Options, bar: &Bar) -> Result<PathBuf> {
    let archive = options.dir.join(&entry.archive);
    let part = part_of(&archive);
    let mut causes = Vec::new();
    for url in urls(entry, options) {
        bar.stage(&format!("asking {url}"), 0, 0);
        match download_from(url, entry, options, &part, bar) {
            Ok(()) => {
                fs::rename(&part, &archive).map_err(DataError::io("create", &archive))?;
                return Ok(archive);
            }
            // The disk, not the source, is at fault: no mirror mends that.
            Err(error @ (DataError::Io { .. } | DataError::WrongKind { .. })) => return Err(error),
            Err(error) => causes.push(error),
        }
    }
    Err(DataError::NoSource {
        file: entry.archive.clone(),
        causes: Causes(causes),
        by_hand: entry.by_hand(&options.dir),
    })
}

/// Brings the whole file to `part` from one address, in as many attempts as it takes, and checks it.
fn download_from(
    url: &str,
    entry: &Entry,
    options: &Options,
    part: &Path,
    bar: &Bar,
) -> Result<()> {
    /// An attempt that brings so many bytes shows that the connection works.
    const PROGRESS: u64 = 1 << 20;

    let agent = agent(url, options);
    let mut failures = 0;
    loop {
        if length(part) > entry.bytes {
            remove(part)?;
        }
        let before = length(part);
        let result = transfer(&agent, url, entry, part, bar)
            .and_then(|()| verify(part, entry, bar, OnMismatch::Delete));
        let error = match result {
            Ok(()) => return Ok(()),
            // The first bytes may be another mirror's or an older file's: try once from zero.
            Err(DataError::HashMismatch { .. }) if before > 0 => continue,
            Err(error) => error,
        };
        if length(part) >= before.saturating_add(PROGRESS) {
            failures = 0;
        }
        if failures >= options.retries || !worth_another_try(&error) {
            return Err(error);
        }
        let pause = options
            .backoff
            .saturating_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX));
        thread::sleep(pause.min(Duration::from_secs(60)));
        failures += 1;
    }
}

fn worth_another_try(error: &DataError) -> bool {
    match error {
        // A name that is not known now is not known a few seconds later: on to the next address.
        DataError::Network { source, .. } => {
            !source
                .downcast_ref::<ureq::Error>()
                .is_some_and(|e| match e {
                    ureq::Error::HostNotFound | ureq::Error::BadUri(_) => true,
                    // The resolver's own words for it; the standard library gives them no kind.
                    ureq::Error::Io(e) => e.to_string().contains("lookup address"),
                    _ => false,
                })
        }
        DataError::Cut { .. } => true,
        DataError::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
        _ => false,
    }
}

fn agent(url: &str, options: &Options) -> ureq::Agent {
    let mut config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_resolve(Some(options.connect_timeout))
        .timeout_connect(Some(options.connect_timeout))
        .timeout_per_read(Some(options.read_timeout))
        .timeout_per_write(Some(options.read_timeout))
        .accept_encoding("identity")
        .user_agent(concat!("rezero-data/", env!("CARGO_PKG_VERSION")));
    let host = url.split("://").nth(1).unwrap_or(url);
    if ["127.0.0.1", "localhost", "[::1]"]
        .iter()
        .any(|local| host.starts_with(local))
    {
        // A proxy cannot reach this machine's own addresses.
        config = config.proxy(None);
    }
    config.build().into()
}

/// One request: appends to `part` what is missing of the file.
fn transfer(agent: &ureq::Agent, url: &str, entry: &Entry, part: &Path, bar: &Bar) -> Result<()> {
    let mut from = length(part);
    if from == entry.bytes {
        return Ok(());
    }
    let mut response = request(agent, url, from)?;
    if response.status() == 416 && from > 0 {
        remove(part)?;
        from = 0;
        response = request(agent, url, 0)?;
    }
    let status = response.status().as_u16();
    match status {
        // Without a range in its answer, or with another one, the server starts over.
        206 if from > 0 && range_start(response.headers()) == Some(from) => {}
        200 => from = 0,
        206 => {
            remove(part)?;
            return Err(cut(url, 0, entry, None));
        }
        _ => {
            return Err(DataError::Status {
                url: url.to_owned(),
                status,
            });
        }
    }
    if is_html(response.headers()) {
        return Err(DataError::HtmlPage {
            url: url.to_owned(),
        });
    }
    let length = response.body().content_length();
    let mut body = response.into_body().into_reader();
    // The first bytes tell a web page, also one without its Content-Type.
    let mut head = Vec::new();
    let broken = body.by_ref().take(HEAD).read_to_end(&mut head).err();
    if from == 0 && looks_like_html(&head) {
        return Err(DataError::HtmlPage {
            url: url.to_owned(),
        });
    }
    if let Some(rest) = length
        && from.saturating_add(rest) != entry.bytes
    {
        let (expected, got) = (entry.bytes, from.saturating_add(rest));
        return Err(DataError::WrongSize {
            url: url.to_owned(),
            expected,
            got,
        });
    }
    // Only now is the response known to be better than what `part` holds.
    let mut file = OpenOptions::new()
        .create(true)
        .append(from > 0)
        .write(true)
        .truncate(from == 0)
        .open(part)
        .map_err(DataError::io("create", part))?;
    bar.stage(&format!("downloading {}", entry.archive), entry.bytes, from);
    let mut body = head.as_slice().chain(Broken(broken)).chain(body);
    let written = receive(&mut body, &mut file, url, entry, part, from, bar);
    if let Err(DataError::TooLarge { .. }) = written {
        drop(file);
        remove(part)?;
        return written;
    }
    // What arrived is to outlive a power cut, but an error in writing it comes first.
    written.and(file.sync_all().map_err(DataError::io("write", part)))
}

/// A reader that is empty, or fails once with the error it holds.
struct Broken(Option<io::Error>);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

fn request(agent: &ureq::Agent, url: &str, from: u64) -> Result<ureq::http::Response<ureq::Body>> {
    let mut request = agent.get(url);
    if from > 0 {
        request = request.header(header::RANGE, format!("bytes={from}-"));
    }
    request.call().map_err(|e| DataError::Network {
        url: url.to_owned(),
        source: Box::new(e),
    })
}

/// Copies the body to `file`, whose length is `from`, up to the registered length.
fn receive(
    body: &mut impl Read,
    file: &mut File,
    url: &str,
    entry: &Entry,
    part: &Path,
    from: u64,
    bar: &Bar,
) -> Result<()> {
    let mut chunk = vec![0; 1 << 16];
    let mut at = from;
    loop {
        let n = match body.read(&mut chunk) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(cut(url, at, entry, Some(e))),
        };
        if n == 0 {
            return if at == entry.bytes {
                Ok(())
            } else {
                Err(cut(url, at, entry, None))
            };
        }
        if at + n as u64 > entry.bytes {
            return Err(DataError::TooLarge {
                url: url.to_owned(),
                cap: entry.bytes,
            });
        }
        file.write_all(&chunk[..n])
            .map_err(DataError::io("write", part))?;
        at += n as u64;
        bar.advance(n as u64);
    }
}

fn cut(url: &str, got: u64, entry: &Entry, source: Option<io::Error>) -> DataError {
    DataError::Cut {
        url: url.to_owned(),
        got,
        expected: entry.bytes,
        source,
    }
}

/// The first byte that a `Content-Range: bytes FIRST-LAST/LENGTH` announces.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    range
        .trim()
        .strip_prefix("bytes")?
        .trim()
        .split('-')
        .next()?
        .parse()
        .ok()
}

fn is_html(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| {
            let kind = v.trim().to_ascii_lowercase();
            kind.starts_with("text/html") || kind.starts_with("application/xhtml")
        })
}

/// Bytes that [`looks_like_html`] needs at most, blanks before the page included.
const HEAD: u64 = 512;

fn looks_like_html(head: &[u8]) -> bool {
    let text = head
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(head)
        .trim_ascii_start();
    [&b"<!doctype html"[..], b"<html"].iter().any(|tag| {
        text.get(..tag.len())
            .is_some_and(|t| t.eq_ignore_ascii_case(tag))
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
