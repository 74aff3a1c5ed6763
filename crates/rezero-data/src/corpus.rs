//! Texts as bytes: enwik8, any other file, and `wiki-like`, which is generated from a seed.
//!
//! A text of `n` bytes is split by position, as is the convention for enwik8 (90, 5 and 5 million
//! bytes): [`Split::Train`] is `[0, ⌊90 n / 100⌋)`, [`Split::Valid`] goes on to `⌊95 n / 100⌋`, and
//! [`Split::Test`] is the rest. Only the bytes of the wanted split are stored in memory.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::hash::hex;
use crate::{DataError, Result, Split, Text, found, wiki};

/// The name of enwik8's file, and of its folder.
pub const ENWIK8: &str = "enwik8";
/// The length of enwik8.
pub const ENWIK8_BYTES: u64 = 100_000_000;
/// The SHA-256 of enwik8, in hexadecimal.
pub const ENWIK8_SHA256: &str = "2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8";

/// The shortest text of which no split is empty.
const MIN_BYTES: u64 = 11;
/// 4 GiB: a text is held in memory.
const MAX_BYTES: u64 = 1 << 32;

/// A split of enwik8. `dir` is the folder of the file `enwik8`, or the one above it.
///
/// The whole file is read and its SHA-256 is checked, so that a result on it is a result on enwik8.
///
/// # Errors
///
/// If there is no such file, or if it differs from the official one in any byte. [`file()`] reads
/// any other file.
pub fn enwik8(dir: &Path, split: Split) -> Result<Text> {
    let len = ENWIK8_BYTES;
    if fs::metadata(dir).is_ok_and(|meta| !meta.is_dir()) {
        return Err(DataError::WrongKind {
            path: dir.to_path_buf(),
            expected: "folder",
            remedy: "read it as a text of its own with --text FILE, or give the folder of enwik8"
                .into(),
        });
    }
    let file = find(dir, len)?
        .ok_or_else(|| DataError::NotFound {
            set: ENWIK8,
            dir: dir.to_path_buf(),
            found: found::folder(dir),
            looked_for: format!("a file {ENWIK8} there and in its sub-folder {ENWIK8}"),
            remedy: "fetch it with `rezero fetch enwik8`, or read another text with --text FILE"
                .into(),
        })?
        .join(ENWIK8);
    let Range { start, end } = range(len, split);
    let mut hasher = Sha256::new();
    let mut bytes = Vec::with_capacity((end - start) as usize);
    let mut reader = File::open(&file).map_err(DataError::io("open", &file))?;
    for (part, kept) in [(start, false), (end - start, true), (len - end, false)] {
        read(&mut reader, part, &file, |chunk| {
            hasher.update(chunk);
            if kept {
                bytes.extend_from_slice(chunk);
            }
        })?;
    }
    let got = hex(&hasher.finalize());
    if got != ENWIK8_SHA256 {
        return Err(DataError::HashMismatch {
            file,
            expected: ENWIK8_SHA256.into(),
            got,
            done: "the file was left in place: move it away, or read it as a text of its own with \
                   --text",
        });
    }
    Ok(Text::new(ENWIK8.into(), split, bytes))
}

/// A split of any file, as bytes. Its name is the file's.
///
/// # Errors
///
/// If it is not a plain file, has fewer than 11 bytes (a split would be empty) or more than 4 GiB,
/// or cannot be read.
pub fn file(path: &Path, split: Split) -> Result<Text> {
    let name = path.file_name().unwrap_or(path.as_os_str());
    let name = name.to_string_lossy().into_owned();
    let meta = fs::metadata(path).map_err(DataError::io("open", path))?;
    if !meta.is_file() {
        let remedy = match meta.is_dir() {
            true => format!(
                "it is a folder, which {}; a text is one file: give one of them, or join them, cat \
                 FOLDER/* > FILE",
                found::folder(path)
            ),
            false => {
                "a text is read several times: give a plain file, not a pipe or a device".into()
            }
        };
        return Err(DataError::WrongKind {
            path: path.to_path_buf(),
            expected: "file",
            remedy,
        });
    }
    let Range { start, end } = checked_range(&name, meta.len(), split)?;
    let mut reader = File::open(path).map_err(DataError::io("open", path))?;
    reader
        .seek(SeekFrom::Start(start))
        .map_err(DataError::io("read", path))?;
    let mut bytes = Vec::with_capacity((end - start) as usize);
    read(&mut reader, end - start, path, |chunk| {
        bytes.extend_from_slice(chunk);
    })?;
    Ok(Text::new(name, split, bytes))
}

/// A split of `bytes`, a text in memory.
///
/// # Errors
///
/// If there are fewer than 11 bytes (a split would be empty) or more than 4 GiB.
pub fn bytes(name: &str, mut bytes: Vec<u8>, split: Split) -> Result<Text> {
    let Range { start, end } = checked_range(name, bytes.len() as u64, split)?;
    bytes.truncate(end as usize);
    bytes.drain(..start as usize);
    Ok(Text::new(name.to_owned(), split, bytes))
}

/// All of `bytes`, a text in memory that has no splits. Its [`Text::split`] is the test split.
///
/// # Errors
///
/// If there is no byte, or there are more than 4 GiB.
pub fn whole(name: &str, bytes: Vec<u8>) -> Result<Text> {
    let len = bytes.len() as u64;
    if !(1..=MAX_BYTES).contains(&len) {
        return Err(DataError::TextLength {
            name: name.to_owned(),
            len,
            min: 1,
            max: MAX_BYTES,
        });
    }
    Ok(Text::new(name.to_owned(), Split::Test, bytes))
}

/// The first `len` bytes of a split of `wiki-like`: pages of made-up words in the form of enwik8.
///
/// Each page is XML, with a title, headings, lists, links, templates, dates and numbers. A seed has
/// 4,096 words, whose frequencies follow Zipf's law. Each word has four preferred successors, and a
/// page repeats the words of its title. Byte `i` of a split is a function of (seed, split, `i`)
/// alone, on every platform. The splits of one seed share their words and nothing else.
pub fn wiki_like(len: usize, seed: u64, split: Split) -> Text {
    Text::new("wiki-like".into(), split, wiki::write(len, seed, split))
}

/// The folder that holds a file `enwik8` of `len` bytes: `dir` itself, else its sub-folder. `None`
/// if neither does.
pub(crate) fn find(dir: &Path, len: u64) -> Result<Option<PathBuf>> {
    for folder in [dir.to_path_buf(), dir.join(ENWIK8)] {
        let file = folder.join(ENWIK8);
        match fs::metadata(&file) {
            // In the first round, this is the sub-folder.
            Ok(m) if m.is_dir() && folder == dir => {}
            Ok(m) if !m.is_file() => return Err(DataError::in_the_way(file, "file")),
            Ok(m) if m.len() != len => {
                return Err(DataError::WrongLength {
                    set: ENWIK8,
                    remedy: format!(
                        "move it away and run `rezero fetch enwik8`, or read it as a text of its \
                         own with --text {}",
                        file.display()
                    ),
                    file,
                    expected: len,
                    got: m.len(),
                });
            }
            Ok(_) => return Ok(Some(folder)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(DataError::io("look at", &file)(e)),
        }
    }
    Ok(None)
}

/// The byte range of a split, in a text of `len` bytes.
fn range(len: u64, split: Split) -> Range<u64> {
    // In 128 bits, no product is too large.
    let at = |percent: u128| (u128::from(len) * percent / 100) as u64;
    match split {
        Split::Train => 0..at(90),
        Split::Valid => at(90)..at(95),
        Split::Test => at(95)..len,
    }
}

fn checked_range(name: &str, len: u64, split: Split) -> Result<Range<u64>> {
    if (MIN_BYTES..=MAX_BYTES).contains(&len) {
        return Ok(range(len, split));
    }
    Err(DataError::TextLength {
        name: name.to_owned(),
        len,
        min: MIN_BYTES,
        max: MAX_BYTES,
    })
}

/// Reads `len` bytes, chunk by chunk. Fewer are an error.
fn read(from: &mut File, mut len: u64, path: &Path, mut seen: impl FnMut(&[u8])) -> Result<()> {
    let mut chunk = vec![0; 1 << 16];
    while len > 0 {
        let n = len.min(chunk.len() as u64) as usize;
        from.read_exact(&mut chunk[..n])
            .map_err(DataError::io("read", path))?;
        seen(&chunk[..n]);
        len -= n as u64;
    }
    Ok(())
}
