use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::image_set::ImageShape;
use crate::records::RecordLayout;

/// The result of every fallible function of this crate.
pub type Result<T, E = DataError> = std::result::Result<T, E>;

/// The source of an error of the HTTP client, whose type is not part of this crate's interface.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Everything that can go wrong with a data set, from the download to the batch.
///
/// A message says what is required, what was found instead and what to do. It includes its cause,
/// so print it alone; `source()` is for programs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}; {}", path.display(), io_remedy(source))]
    Io {
        /// The attempted action, as a verb: "read", "create".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },

    /// A file stands where a folder should be, or the other way round.
    #[error("{} is not a {expected}; {remedy}", path.display())]
    WrongKind {
        /// The file or folder that is there.
        path: PathBuf,
        /// What should be there: "folder" or "file".
        expected: &'static str,
        /// What the user can do.
        remedy: String,
    },

    /// The folder holds no data set.
    #[error("no {set} in {}: it {found}. Looked for {looked_for}; {remedy}", dir.display())]
    NotFound {
        /// The data set.
        set: &'static str,
        /// The folder that was searched.
        dir: PathBuf,
        /// What it holds instead, as the rest of a sentence: "is empty".
        found: String,
        /// The files that were looked for, and in which folders.
        looked_for: String,
        /// What the user can do.
        remedy: String,
    },

    /// Some files of the data set are there, others are missing.
    #[error("{} lacks {missing}: {rule}; {remedy}", dir.display())]
    MissingFiles {
        /// The folder that was searched.
        dir: PathBuf,
        /// The names of the absent files, separated by commas.
        missing: String,
        /// Which files the data set needs.
        rule: &'static str,
        /// What the user can do.
        remedy: &'static str,
    },

    /// A file of records has no bytes.
    #[error(
        "{} is empty: a {} holds at least one record of {} bytes; {}",
        file.display(), layout.kind, layout.record_bytes, layout.remedy
    )]
    EmptyFile {
        /// The file.
        file: PathBuf,
        /// The layout that it should have.
        layout: RecordLayout,
    },

    /// The length of a file is not a whole number of records.
    #[error(
        "{} is {len} bytes: {records} whole records of {} bytes and {remainder} bytes more, so it \
         was cut short or is not a {}; {}",
        file.display(), layout.record_bytes, layout.kind, layout.remedy
    )]
    PartialRecord {
        /// The file.
        file: PathBuf,
        /// Its length in bytes.
        len: u64,
        /// How many whole records that is.
        records: u64,
        /// How many bytes follow them.
        remainder: u64,
        /// The layout that it should have.
        layout: RecordLayout,
    },

    /// A file has more records than an official one.
    #[error(
        "{} is {len} bytes, more than the {} records ({} bytes) of a {}; {}",
        file.display(), layout.max_records, layout.max_bytes(), layout.kind, layout.remedy
    )]
    TooManyRecords {
        /// The file.
        file: PathBuf,
        /// Its length in bytes.
        len: u64,
        /// The layout that it should have.
        layout: RecordLayout,
    },

    /// A label is not that of a class.
    #[error(
        "{}, record {record}: label {label}, but there are {classes} classes (0 to {}); the file is \
         damaged or of another format",
        file.display(), classes.saturating_sub(1)
    )]
    BadLabel {
        /// The file, or the name of the set when it came from memory.
        file: PathBuf,
        /// The record, counted from 0.
        record: usize,
        /// The label found.
        label: u16,
        /// The number of classes.
        classes: usize,
    },

    /// A file is not a whole file in the format IDX, or not that of its data set.
    #[error("{}: {why}", file.display())]
    BadIdx {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },

    /// An image file is damaged, or no image.
    #[error("{} is no whole image: {why}; restore it or move it away", file.display())]
    CorruptPicture {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },

    /// An image file is of a kind that is not read.
    #[error(
        "{} is {found}; PNG and JPEG of 8 bits per channel in grey or RGB are read: convert it, or move \
         it away",
        file.display()
    )]
    PictureKind {
        /// The file.
        file: PathBuf,
        /// Its kind: "a JPEG in CMYK".
        found: String,
    },

    /// An image has another size than it must have.
    #[error(
        "{} is {} × {} pixels (height, width), but images of this set are {} × {}: train with \
         resize=crop or resize=stretch, and size",
        file.display(), found.0, found.1, expected.0, expected.1
    )]
    PictureSize {
        /// The file.
        file: PathBuf,
        /// Its height and width.
        found: (usize, usize),
        /// The height and the width that it must have.
        expected: (usize, usize),
    },

    /// A folder is not laid out as a data set is.
    #[error("{} {found}; {remedy}", dir.display())]
    Layout {
        /// The folder.
        dir: PathBuf,
        /// What is there, as the rest of a sentence: "holds no image".
        found: String,
        /// What the user can do.
        remedy: String,
    },

    /// The pixels of an image file are no longer those that they were when its set was opened.
    #[error(
        "{} has changed since the set was opened: a run sees the same pixels in every epoch; put the old file back, \
         or begin a new run",
        file.display()
    )]
    ChangedPicture {
        /// The file.
        file: PathBuf,
    },

    /// A file changed between its check and its reading.
    #[error("{} changed while it was read: {expected} records, then {got}; try again", file.display())]
    Changed {
        /// The file.
        file: PathBuf,
        /// Records when the folder was opened.
        expected: usize,
        /// Records when it was read.
        got: usize,
    },

    /// Pixels and labels given to [`ImageSet::from_raw`](crate::ImageSet::from_raw) do not match.
    #[error(
        "image set {name}: {labels} labels need {} pixel bytes ({shape} each), got {pixels}",
        labels.saturating_mul(shape.bytes())
    )]
    PixelCount {
        /// The name of the set.
        name: String,
        /// The shape of each image.
        shape: ImageShape,
        /// The number of pixel bytes given.
        pixels: usize,
        /// The number of labels given.
        labels: usize,
    },

    /// The length of a file is not the official one.
    #[error(
        "{} is {got} bytes, but {set} has {expected}: it was cut short or is another file; {remedy}",
        file.display()
    )]
    WrongLength {
        /// The data set.
        set: &'static str,
        /// The file.
        file: PathBuf,
        /// The official length in bytes.
        expected: u64,
        /// The length found.
        got: u64,
        /// What the user can do.
        remedy: String,
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
        /// The smallest allowed length.
        min: u64,
        /// The largest allowed length.
        max: u64,
    },

    /// A text that names no step of a list of augmentations.
    #[error("`{text}` is no augmentation: {message}")]
    Augmentation {
        /// The text.
        text: String,
        /// What is wrong with it.
        message: String,
    },

    /// A setting is out of range.
    #[error("{setting} must be {rule}, got {got}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// The values allowed.
        rule: String,
        /// The value given.
        got: String,
    },

    /// No data set or split of that name.
    #[error("unknown {what} {name:?}{}: {known}", did_you_mean(nearest.as_deref()))]
    Unknown {
        /// "data set" or "split".
        what: &'static str,
        /// The name given.
        name: String,
        /// The known name that was most likely meant, if one is near.
        nearest: Option<String>,
        /// All known names, separated by commas.
        known: String,
    },

    /// The data are absent, and this build has no feature `download`.
    #[error("{name} is not in {} and this build cannot download (feature `download`); {by_hand}", dir.display())]
    NoDownload {
        /// The data set.
        name: String,
        /// The data folder.
        dir: PathBuf,
        /// Which file to place where.
        by_hand: String,
    },

    /// The data are absent, and the network may not be used.
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
        "{url}: {source}; check the network and the proxy (https_proxy), or give a mirror (rezero fetch --url URL)"
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
        /// The cause, if the connection gave one.
        #[source]
        source: Option<io::Error>,
    },

    /// The size of the server's file is not the registered one.
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

    /// [`WrongKind`](Self::WrongKind) of something that stands in the way.
    pub(crate) fn in_the_way(path: PathBuf, expected: &'static str) -> Self {
        Self::WrongKind {
            path,
            expected,
            remedy: "move it away or choose another data folder".into(),
        }
    }

    /// For `map_err`: an I/O error with what was tried and where.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| match source.kind() {
            io::ErrorKind::NotADirectory => Self::in_the_way(blocker(path), "folder"),
            io::ErrorKind::IsADirectory => Self::in_the_way(path, "file"),
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

/// The beginning of a list of known names, after the one that was probably meant.
fn did_you_mean(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!(": did you mean {nearest:?}? Known"),
        None => "; known".to_owned(),
    }
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

/// The last error of each address that was tried, one per line.
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
