use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The result of every fallible function of this crate.
pub type Result<T, E = DataError> = std::result::Result<T, E>;

/// The source of an error of the HTTP client, whose type is not part of this crate's interface.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Everything that can go wrong with a data set, from the download to the batch.
///
/// A message says what must hold, what was found instead and what to do. It includes its cause, so
/// it is to be printed alone; `source()` is for programs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}; {}", path.display(), io_remedy(source))]
    Io {
        /// What was tried, as a verb: "read", "create".
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },

    /// A file stands where a folder should be, or the other way round.
    #[error("{} is not a {expected}; move it away or choose another data folder", path.display())]
    WrongKind {
        /// What stands there.
        path: PathBuf,
        /// What should: "folder" or "file".
        expected: &'static str,
    },

    /// The folder holds no data set.
    #[error(
        "no CIFAR-10 in {}: looked for data_batch_1.bin … data_batch_5.bin and test_batch.bin \
         there and in its sub-folder cifar-10-batches-bin; fetch it with `rezero fetch cifar10`, \
         or point the data folder at a copy of the binary version",
        dir.display()
    )]
    NotFound {
        /// The folder that was searched.
        dir: PathBuf,
    },

    /// Some files of the data set are there, others are not.
    #[error(
        "{} lacks {missing}: CIFAR-10 needs all five data_batch files and test_batch.bin; restore \
         the missing files, or move the folder away and run `rezero fetch cifar10`",
        dir.display()
    )]
    MissingFiles {
        /// The folder that was searched.
        dir: PathBuf,
        /// The names of the absent files, separated by commas.
        missing: String,
    },

    /// A batch file has no bytes.
    #[error(
        "{} is empty: a CIFAR-10 batch holds at least one record of 3,073 bytes; restore it, or \
         move its folder away and run `rezero fetch cifar10`",
        file.display()
    )]
    EmptyFile {
        /// The batch file.
        file: PathBuf,
    },

    /// The length of a batch file is not a whole number of records.
    #[error(
        "{} is {len} bytes: {records} whole records of 3,073 bytes and {remainder} bytes more, so \
         it was cut short or is not a CIFAR-10 batch; restore it, or move its folder away and run \
         `rezero fetch cifar10`",
        file.display()
    )]
    PartialRecord {
        /// The batch file.
        file: PathBuf,
        /// Its length in bytes.
        len: u64,
        /// How many whole records that is.
        records: u64,
        /// How many bytes follow them.
        remainder: u64,
    },

    /// A batch file is longer than an official one.
    #[error(
        "{} is {len} bytes, more than the 10,000 records ({} bytes) of a CIFAR-10 batch; restore \
         it, or move its folder away and run `rezero fetch cifar10`",
        file.display(), 10_000 * 3073
    )]
    TooManyRecords {
        /// The batch file.
        file: PathBuf,
        /// Its length in bytes.
        len: u64,
    },

    /// A label names no class.
    #[error(
        "{}, record {record}: label {label}, but there are {classes} classes (0 to {}); the file is \
         damaged or of another format",
        file.display(), classes.saturating_sub(1)
    )]
    BadLabel {
        /// The batch file, or the name of the set when it came from memory.
        file: PathBuf,
        /// The record, counted from 0.
        record: usize,
        /// The label found.
        label: u8,
        /// The number of classes.
        classes: usize,
    },

    /// A file changed between its check and its reading.
    #[error("{} changed while it was read: {expected} records, then {got}; try again", file.display())]
    Changed {
        /// The batch file.
        file: PathBuf,
        /// Records when the folder was opened.
        expected: usize,
        /// Records when it was read.
        got: usize,
    },

    /// Pixels and labels given to [`ImageSet::from_raw`](crate::ImageSet::from_raw) do not match.
    #[error(
        "image set {name}: {labels} labels need {} pixel bytes (3 × 32 × 32 each), got {pixels}",
        labels.saturating_mul(3072)
    )]
    PixelCount {
        /// The name of the set.
        name: String,
        /// The number of pixel bytes given.
        pixels: usize,
        /// The number of labels given.
        labels: usize,
    },

    /// No enwik8 in the folder.
    #[error(
        "no enwik8 in {}: looked for a file enwik8 there and in its sub-folder enwik8; fetch it \
         with `rezero fetch enwik8`, or read another text with --text FILE",
        dir.display()
    )]
    NoEnwik8 {
        /// The folder that was searched.
        dir: PathBuf,
    },

    /// A file has another length than the registered one.
    #[error(
        "{} is {got} bytes, but enwik8 has {expected}: it was cut short or is another file; move \
         it away and run `rezero fetch enwik8`, or read it as a text of its own with --text {}",
        file.display(), file.display()
    )]
    WrongLength {
        /// The file.
        file: PathBuf,
        /// The registered length in bytes.
        expected: u64,
        /// The length found.
        got: u64,
    },

    /// A text is too short or too long to be split.
    #[error(
        "the text {name} has {len} bytes, but a text must have between {min} and {max}: its first \
         90 % are to train, the next 5 % to validate and the last 5 % to test, and none may be \
         empty; {}",
        if len < min { "give a longer one" } else { "cut it" }
    )]
    TextLength {
        /// The text's name.
        name: String,
        /// Its length in bytes.
        len: u64,
        /// The least number of bytes.
        min: u64,
        /// The greatest.
        max: u64,
    },

    /// A setting is out of range.
    #[error("{setting} must be {rule}, got {got}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// What it must be.
        rule: String,
        /// What it was.
        got: String,
    },

    /// No data set or split of that name.
    #[error("unknown {what} {name:?}: did you mean {nearest:?}? Known: {known}")]
    Unknown {
        /// "data set" or "split".
        what: &'static str,
        /// The name given.
        name: String,
        /// The known name closest to it.
        nearest: String,
        /// All known names, separated by commas.
        known: String,
    },

    /// The data are absent and the network is not to be used.
    #[error("{name} is not in {} and the network is off; {by_hand}, or run without --offline", dir.display())]
    Offline {
        /// The data set.
        name: String,
        /// The data folder.
        dir: PathBuf,
        /// Which file to place where.
        by_hand: String,
    },

    /// The server answered with an error status.
    #[error("{url}: the server answered {status}; {}", status_remedy(*status))]
    Status {
        /// The address asked.
        url: String,
        /// The HTTP status code.
        status: u16,
    },

    /// The server could not be reached, or did not speak HTTP.
    #[error(
        "{url}: {source}; check the network and the proxy (HTTPS_PROXY), or give a mirror (rezero fetch --url URL)"
    )]
    Network {
        /// The address asked.
        url: String,
        /// The cause.
        #[source]
        source: BoxError,
    },

    /// The transfer ended early. What arrived is kept for the next attempt.
    #[error(
        "{url}: the transfer ended after {got} of {expected} bytes{}; what arrived is kept, run \
         the same command again to go on from there",
        source.as_ref().map(|e| format!(" ({e})")).unwrap_or_default()
    )]
    Cut {
        /// The address asked.
        url: String,
        /// Bytes on disk, those of earlier attempts included.
        got: u64,
        /// Bytes of the whole file.
        expected: u64,
        /// The cause, where the connection gave one.
        #[source]
        source: Option<io::Error>,
    },

    /// The server's file has another size than the registered one.
    #[error(
        "{url}: the server's file has {got} bytes, the registered one {expected}; it is another \
         file: try another mirror"
    )]
    WrongSize {
        /// The address asked.
        url: String,
        /// The registered size in bytes.
        expected: u64,
        /// The announced size in bytes.
        got: u64,
    },

    /// The server sent more bytes than the file has. The transfer was stopped there.
    #[error(
        "{url}: the server sent more than the {cap} bytes of the registered file, so the transfer \
         was stopped and its bytes deleted; try another mirror"
    )]
    TooLarge {
        /// The address asked.
        url: String,
        /// The registered size in bytes.
        cap: u64,
    },

    /// The server sent a web page in place of the archive.
    #[error(
        "{url}: the server sent a web page (HTML), not the archive: a login page of the network, \
         or a notice that the file has moved; open the address in a browser, or give a mirror"
    )]
    HtmlPage {
        /// The address asked.
        url: String,
    },

    /// A file's SHA-256 is not the registered one.
    #[error(
        "{}: SHA-256 is {got}, expected {expected}; {done}. Likely causes: the transfer was \
         damaged, or the file at the source was replaced; fetch it again, from a mirror if that \
         repeats",
        file.display()
    )]
    HashMismatch {
        /// The file.
        file: PathBuf,
        /// The registered hash, in hexadecimal.
        expected: String,
        /// The hash found.
        got: String,
        /// What became of the file.
        done: &'static str,
    },

    /// No address gave the file.
    #[error("cannot download {file}:\n{causes}\n{by_hand}")]
    NoSource {
        /// The archive's name.
        file: String,
        /// The last error of each address.
        #[source]
        causes: Causes,
        /// Which file to place where.
        by_hand: String,
    },

    /// An archive holds something that must not be unpacked.
    #[error("{}: refusing to unpack {member:?}: {why}; nothing was kept of it", archive.display())]
    UnsafeArchive {
        /// The archive.
        archive: PathBuf,
        /// The member's path as the archive gives it.
        member: String,
        /// The rule that it breaks.
        why: String,
    },

    /// An archive is not of its kind, or ends early.
    #[error(
        "{}: not a whole {kind} file ({source}); delete it and fetch it again",
        archive.display()
    )]
    BadArchive {
        /// The archive.
        archive: PathBuf,
        /// What it should be: ".tar.gz" or ".zip".
        kind: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },

    /// The thread that prepares batches failed.
    #[error("the thread that prepares batches {message}; set prefetch to 0 to do without it")]
    Worker {
        /// How it failed: "panicked: " and the panic's message, or "could not be started".
        message: String,
    },
}

impl DataError {
    /// [`Setting`](Self::Setting) unless `ok`.
    pub(crate) fn require(
        ok: bool,
        setting: &'static str,
        rule: &str,
        got: &dyn fmt::Display,
    ) -> Result<()> {
        if ok {
            return Ok(());
        }
        Err(Self::Setting {
            setting,
            rule: rule.to_owned(),
            got: got.to_string(),
        })
    }

    /// For `map_err`: an I/O error with what was tried and where.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| match source.kind() {
            io::ErrorKind::NotADirectory => Self::WrongKind {
                path: blocker(path),
                expected: "folder",
            },
            io::ErrorKind::IsADirectory => Self::WrongKind {
                path,
                expected: "file",
            },
            _ => Self::Io {
                action,
                path,
                source,
            },
        }
    }
}

/// The nearest ancestor that exists and is no folder: the one in the way.
fn blocker(path: PathBuf) -> PathBuf {
    let found = path
        .ancestors()
        .find(|p| p.exists() && !p.is_dir())
        .map(Path::to_path_buf);
    found.unwrap_or(path)
}

fn io_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full: free some space or choose a data folder on another disk, then run \
             the same command again"
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            "it is read-only or not yours: change its permissions or choose another data folder"
        }
        io::ErrorKind::NotFound => "no such file or folder: check the path",
        io::ErrorKind::AlreadyExists => "something of that name is there: move it away first",
        _ => "check the path, its permissions and the disk",
    }
}

fn status_remedy(status: u16) -> &'static str {
    match status {
        404 | 410 => "the file is not there: try another mirror",
        401 | 403 | 407 => "access is refused: check the proxy, or try another mirror",
        408 | 425 | 429 | 500..=599 => "the server is busy or broken: try later or another mirror",
        _ => "try another mirror",
    }
}

/// The last error of each address that was tried, one a line.
#[derive(Debug)]
pub struct Causes(pub Vec<DataError>);

impl fmt::Display for Causes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(|e| format!("  - {e}")).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Causes {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.last().map(|e| e as _)
    }
}
