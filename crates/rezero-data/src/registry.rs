//! The data sets that can be fetched: where they are, how long they are and what their SHA-256 is.
//!
//! The list is the file `registry.toml` of this crate, compiled in.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::{DataError, Result, cifar10, corpus, shapes};

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
    /// The folder that holds the data: of a tar archive, the one inside it.
    pub folder: String,
    /// How the folder's files are read.
    pub format: Format,
    /// Where the archive is, in order of preference.
    pub urls: Vec<String>,
    /// The archive's length in bytes.
    pub bytes: u64,
    /// The archive's SHA-256, in lower-case hexadecimal.
    pub sha256: String,
    /// At most so many bytes may come out of the archive; where `member` is given, exactly so many.
    pub unpacked_bytes: u64,
    /// The one file of a `.zip` archive, which is unpacked into `folder`. Without it, the archive is
    /// a `.tar.gz`.
    pub member: Option<Member>,
    /// Under which terms the data are given.
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

/// How the files of a data set are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[non_exhaustive]
pub enum Format {
    /// [`cifar10`]: six files of 3,073-byte records.
    #[serde(rename = "cifar10-binary")]
    Cifar10Binary,
    /// [`corpus::enwik8`]: one file `enwik8` of bytes.
    #[serde(rename = "enwik8")]
    Enwik8,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Registry {
    dataset: Vec<Entry>,
}

/// All data sets of the registry.
///
/// # Panics
///
/// Never: the registry is part of the crate, and a test reads it.
pub fn datasets() -> &'static [Entry] {
    static REGISTRY: OnceLock<Vec<Entry>> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        toml::from_str::<Registry>(include_str!("registry.toml"))
            .expect("the built-in registry is valid")
            .dataset
    })
}

/// The data set of that name.
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
            nearest: nearest(name, names()).to_owned(),
            known: names().collect::<Vec<_>>().join(", "),
        })
}

/// The known name with the smallest edit distance to `name`, case aside.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> &'a str {
    // A longer name is nobody's typing error, and the distance takes quadratic time.
    let name: Vec<char> = name.to_lowercase().chars().take(64).collect();
    known
        .into_iter()
        .min_by_key(|candidate| edit_distance(&name, candidate))
        .unwrap_or("")
}

/// Levenshtein's distance, row by row.
fn edit_distance(a: &[char], b: &str) -> usize {
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (i, cb) in b.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &ca) in a.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[a.len()]
}

impl Entry {
    /// The data folder, which is `dir` or below it, if its files are there and have possible
    /// lengths; `None` if nothing of the data set is there.
    ///
    /// # Errors
    ///
    /// Where some of it is there but not all, or not whole.
    pub(crate) fn find(&self, dir: &Path) -> Result<Option<PathBuf>> {
        match self.format {
            Format::Cifar10Binary => match cifar10::locate(dir)? {
                None => Ok(None),
                Some(folder) => Ok(Some(cifar10::open(&folder)?.path().to_path_buf())),
            },
            Format::Enwik8 => corpus::locate(dir, self.unpacked_bytes),
        }
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
         `rezero fetch NAME` downloads a set into this folder, which git ignores but for this \
         page. A download goes to `NAME.part`, is resumed where it broke off, is checked against \
         the SHA-256 below, and is unpacked beside its final place and renamed into it last. The \
         archive may be deleted afterwards. Without network, place the archive here by hand: it \
         is checked in the same way.\n",
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
    let _ = write!(
        out,
        "\n## shapes\n\nBuilt in, nothing to download: any number of 32 × 32 colour images in ten \
         classes ({}), drawn from a seed. It is for tests and first runs; a figure measured on it \
         says nothing about CIFAR-10.\n",
        shapes::CLASS_NAMES.join(", ")
    );
    out.push_str(
        "\n## wiki-like\n\nBuilt in, nothing to download: any number of bytes in the form of \
         enwik8 (XML pages, links, headings, lists, templates) and in made-up words, written from \
         a seed. It is for tests and first runs; a figure measured on it says nothing about \
         enwik8.\n",
    );
    out
}
