//! The list of data sets. Those that can be fetched have addresses, a length, a SHA-256 and a
//! reader; the others are built in.
//!
//! The list is the file `registry.toml` of this crate, compiled in. A new data set needs an entry
//! there and, if no reader knows its files, a reader and a [`Format`].

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::{DataError, Result, cifar10, cifar100, corpus, nearest};

/// One data set of the registry. The fields are public so that a private mirror or a test can
/// describe its own.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The short name, such as `cifar10`.
    pub name: String,
    /// The full name.
    pub title: String,
    /// What the set holds, in a sentence or two.
    pub description: String,
    /// The archive's file name.
    pub archive: String,
    /// The folder that holds the data; for a tar archive, its name inside the archive.
    pub folder: String,
    /// How the folder's files are read.
    pub format: Format,
    /// Where the archive is, in order of preference.
    pub urls: Vec<String>,
    /// The archive's length in bytes.
    pub bytes: u64,
    /// The archive's SHA-256, in lower-case hexadecimal.
    pub sha256: String,
    /// The most bytes that may come out of the archive; with `member`, the exact number.
    pub unpacked_bytes: u64,
    /// The one file of a `.zip` archive, which is unpacked into `folder`. Without it, the archive is
    /// a `.tar.gz`.
    pub member: Option<Member>,
    /// The terms under which the data are available.
    pub licence: String,
    /// Where the data come from, and what to cite.
    pub source: String,
}

/// The one file of an archive.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its name in the archive and on the disk, without any folder.
    pub name: String,
    /// Its SHA-256, in lower-case hexadecimal.
    pub sha256: String,
}

/// The reader of a data set's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[non_exhaustive]
pub enum Format {
    /// [`cifar10`]: six files of records.
    #[serde(rename = "cifar10-binary")]
    Cifar10Binary,
    /// [`cifar100`]: two files of records.
    #[serde(rename = "cifar100-binary")]
    Cifar100Binary,
    /// [`corpus::enwik8`]: one file of bytes.
    #[serde(rename = "enwik8")]
    Enwik8,
}

impl Format {
    /// The folder, which is `dir` or below it, that holds the files of `entry`; `None` if there is
    /// none of them. This is the table of readers.
    fn find(self, dir: &Path, entry: &Entry) -> Result<Option<PathBuf>> {
        match self {
            Self::Cifar10Binary => cifar10::find(dir),
            Self::Cifar100Binary => cifar100::find(dir),
            Self::Enwik8 => corpus::find(dir, entry.unpacked_bytes),
        }
    }
}

/// A data set that this crate generates from a seed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuiltIn {
    /// The short name, such as `shapes`.
    pub name: String,
    /// What the set holds, in a sentence or two.
    pub description: String,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Registry {
    dataset: Vec<Entry>,
    built_in: Vec<BuiltIn>,
}

impl Registry {
    fn get() -> &'static Self {
        static REGISTRY: OnceLock<Registry> = OnceLock::new();
        REGISTRY.get_or_init(|| {
            // A test reads it, so this never fails in a release.
            toml::from_str(include_str!("registry.toml")).expect("the built-in registry is valid")
        })
    }
}

/// All data sets that can be fetched.
pub fn datasets() -> &'static [Entry] {
    &Registry::get().dataset
}

/// All data sets that this crate generates and that need no download.
pub fn built_in() -> &'static [BuiltIn] {
    &Registry::get().built_in
}

/// The data set of that name that can be fetched.
///
/// # Errors
///
/// [`DataError::Unknown`], with the nearest known name.
pub fn find(name: &str) -> Result<&'static Entry> {
    let names = || datasets().iter().map(|entry| entry.name.as_str());
    datasets()
        .iter()
        .find(|entry| entry.name == name)
        .ok_or_else(|| DataError::Unknown {
            what: "data set",
            name: name.to_owned(),
            nearest: nearest(name, names()).map(str::to_owned),
            known: names().collect::<Vec<_>>().join(", "),
        })
}

impl Entry {
    /// The data folder, which is `dir` or below it, if its files are there and have valid
    /// lengths; `None` if nothing of the data set is there.
    ///
    /// # Errors
    ///
    /// If some of it is missing or incomplete.
    pub(crate) fn find(&self, dir: &Path) -> Result<Option<PathBuf>> {
        self.format.find(dir, self)
    }

    /// Which file to place where, for a machine without network.
    pub(crate) fn by_hand(&self, dir: &Path) -> String {
        format!(
            "to do without the network, place {} ({} bytes, SHA-256 {}) at {}",
            self.archive,
            self.bytes,
            self.sha256,
            dir.join(&self.archive).display()
        )
    }
}

/// The text of `datasets/README.md`: every data set, as the registry gives it.
pub fn readme() -> String {
    let mut out = String::from(
        "# Data sets\n\n\
         Generated from `crates/rezero-data/src/registry.toml`; a test compares the two.\n\n\
         `rezero fetch NAME` downloads a set into this folder. Git ignores everything here except \
         this page. A download goes to `ARCHIVE.part`; if it breaks off, it is resumed. The \
         archive is checked against the SHA-256 below, unpacked into a temporary folder here, and \
         moved to its final place last. You may delete the archive afterwards. Without a network, \
         place the archive here by hand; it is checked in the same way.\n",
    );
    for e in datasets() {
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "\n## {}\n\n{}: {}\n\n| | |\n| - | - |\n| archive | `{}` |\n| bytes | {} |\n\
             | SHA-256 | `{}` |\n| folder | `{}` |\n| licence | {} |\n| source | {} |\n",
            e.name,
            e.title,
            e.description,
            e.archive,
            e.bytes,
            e.sha256,
            e.folder,
            e.licence,
            e.source
        );
        if let Some(member) = &e.member {
            let _ = write!(
                out,
                "| holds | `{}`, {} bytes |\n| its SHA-256 | `{}` |\n",
                member.name, e.unpacked_bytes, member.sha256
            );
        }
        for url in &e.urls {
            let _ = writeln!(out, "| address | <{url}> |");
        }
    }
    for set in built_in() {
        let _ = write!(
            out,
            "\n## {}\n\nBuilt in, nothing to download: {}\n",
            set.name, set.description
        );
    }
    out
}
