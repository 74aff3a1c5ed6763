//! Unpacking a `.tar.gz`, or a `.zip` of one file, whose content is not trusted.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};
use tar::{Archive, EntryType};
use zip::ZipArchive;

use crate::hash::hex;
use crate::registry::{Entry, Member};
use crate::{DataError, Result};

/// The beginning of the names of an archive's temporary folders, which are beside the final one; letters and
/// digits follow. A folder that a killed process left is never taken for data, and the next `fetch` of the same
/// archive removes it.
fn temp_prefix(entry: &Entry) -> String {
    format!(".unpacking-{}-", entry.archive)
}

/// No data set of the registry has more members; it bounds the work on an archive of empty files.
const MAX_MEMBERS: usize = 1000;

/// Unpacks `archive` to `dir/entry.folder` and returns that folder.
///
/// Everything goes to a temporary folder in `dir`, is checked there, and is renamed last. Only plain
/// files and folders below `entry.folder` are taken, and `entry.unpacked_bytes` at most; of a zip,
/// only `entry.member`, whose length and SHA-256 must be right. `seen` gets the length of each
/// chunk. The caller has checked that there are no data at the destination.
pub(crate) fn unpack(
    archive: &Path,
    dir: &Path,
    entry: &Entry,
    seen: impl FnMut(u64),
) -> Result<PathBuf> {
    let temp = tempfile::Builder::new()
        .prefix(&temp_prefix(entry))
        .tempdir_in(dir)
        .map_err(DataError::io("create a temporary folder in", dir))?;
    match &entry.member {
        None => extract_tar(archive, temp.path(), entry, seen)?,
        Some(member) => extract_zip(archive, temp.path(), entry, member, seen)?,
    }

    let unpacked = temp.path().join(&entry.folder);
    if entry.find(&unpacked)?.is_none() {
        return Err(unsafe_archive(
            archive,
            &entry.folder,
            "it holds none of the data files",
        ));
    }
    let folder = dir.join(&entry.folder);
    // An empty folder may stand there; this fails, rightly, on one that is not empty.
    match fs::remove_dir(&folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(DataError::io("replace", &folder)(e));
        }
        _ => {}
    }
    fs::rename(&unpacked, &folder).map_err(DataError::io("create", &folder))?;
    Ok(folder)
}

/// Removes the folders that killed processes left in `dir` while they unpacked the archive of `entry`. Only for
/// the holder of its lock: another archive may be unpacked in `dir` at the same time.
pub(crate) fn sweep(dir: &Path, entry: &Entry) {
    let prefix = temp_prefix(entry);
    for found in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = found.file_name();
        // With a dash in it, the rest is the name of an archive that begins with the name of this one.
        let rest = name.to_str().and_then(|name| name.strip_prefix(&prefix));
        if rest.is_some_and(|rest| !rest.contains('-')) {
            // It is in nobody's way: failing to remove it is no reason to stop.
            let _ = fs::remove_dir_all(found.path());
        }
    }
}

fn extract_tar(archive: &Path, to: &Path, entry: &Entry, mut seen: impl FnMut(u64)) -> Result<()> {
    let file = File::open(archive).map_err(DataError::io("open", archive))?;
    let bad = |source| DataError::BadArchive {
        archive: archive.to_path_buf(),
        kind: ".tar.gz",
        source,
    };
    let refuse = |member: &str, why: &str| unsafe_archive(archive, member, why);
    let limit = entry.unpacked_bytes;
    // Headers and padding come on top of the files. The bound on the stream holds also for what
    // the tar reader takes in by itself, such as long names.
    let framing = (MAX_MEMBERS as u64 + 2) * 1024;
    let reader = Watched {
        inner: io::BufReader::with_capacity(1 << 16, file),
        seen: |chunk: &[u8]| seen(chunk.len() as u64),
    };
    let stream = GzDecoder::new(reader).take(limit.saturating_add(framing));
    let mut tar = Archive::new(stream);

    let mut total = 0u64;
    for (i, member) in tar.entries().map_err(bad)?.enumerate() {
        let mut member = member.map_err(bad)?;
        let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        let kind = member.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            continue;
        }
        if i >= MAX_MEMBERS {
            return Err(refuse(
                &name,
                &format!("it has more than {MAX_MEMBERS} members"),
            ));
        }
        let path = match relative(&name) {
            Ok(path) if path.starts_with(&entry.folder) => to.join(path),
            Ok(_) => return Err(refuse(&name, "it is not in the data set's folder")),
            Err(why) => return Err(refuse(&name, why)),
        };
        match kind {
            EntryType::Directory => {
                fs::create_dir_all(&path).map_err(DataError::io("create", &path))?;
            }
            EntryType::Regular => {
                total = total.saturating_add(member.size());
                if total > limit {
                    return Err(refuse(&name, &format!("its files exceed {limit} bytes")));
                }
                write(&mut member, &path).map_err(|e| match e {
                    Failed::Read(e) => bad(e),
                    Failed::Exists => refuse(&name, "it comes twice"),
                    Failed::Write(e) => DataError::io("write", &path)(e),
                })?;
            }
            EntryType::Symlink | EntryType::Link => {
                return Err(refuse(&name, "links are not taken"));
            }
            _ => return Err(refuse(&name, "it is neither a file nor a folder")),
        }
    }
    Ok(())
}

/// Unpacks the one member of a zip into `entry.folder`.
fn extract_zip(
    archive: &Path,
    to: &Path,
    entry: &Entry,
    member: &Member,
    mut seen: impl FnMut(u64),
) -> Result<()> {
    let file = File::open(archive).map_err(DataError::io("open", archive))?;
    let bad = |source: io::Error| DataError::BadArchive {
        archive: archive.to_path_buf(),
        kind: ".zip",
        source,
    };
    let refuse = |member: &str, why: &str| unsafe_archive(archive, member, why);
    let limit = entry.unpacked_bytes;
    let reader = Watched {
        inner: io::BufReader::with_capacity(1 << 16, file),
        seen: |chunk: &[u8]| seen(chunk.len() as u64),
    };
    let mut zip = ZipArchive::new(reader).map_err(|e| bad(e.into()))?;
    for name in zip.file_names() {
        let name = name.map_err(|e| bad(e.into()))?;
        if name != member.name {
            let why = format!("it is not {:?}, the one file expected", member.name);
            return Err(refuse(&name, relative(&name).err().unwrap_or(&why)));
        }
    }
    if zip.is_empty() {
        return Err(refuse(&member.name, "it is not there"));
    }
    let mut file = zip.by_index(0).map_err(|e| bad(e.into()))?;
    if !file.is_file() {
        return Err(refuse(&member.name, "it is not a plain file"));
    }
    // The length in the archive's directory may be wrong, so the bytes are counted as well.
    let wrong_size = |n: u64| refuse(&member.name, &format!("it has {n} bytes, not {limit}"));
    if file.size() != limit {
        return Err(wrong_size(file.size()));
    }
    let path = to.join(&entry.folder).join(&member.name);
    let mut hasher = Sha256::new();
    let mut total = 0;
    let mut bytes = Watched {
        inner: file.by_ref().take(limit.saturating_add(1)),
        seen: |chunk: &[u8]| {
            hasher.update(chunk);
            total += chunk.len() as u64;
        },
    };
    write(&mut bytes, &path).map_err(|e| match e {
        Failed::Read(e) => bad(e),
        Failed::Exists => refuse(&member.name, "it comes twice"),
        Failed::Write(e) => DataError::io("write", &path)(e),
    })?;
    if total != limit {
        return Err(wrong_size(total));
    }
    let got = hex(&hasher.finalize());
    if got != member.sha256 {
        return Err(DataError::HashMismatch {
            file: archive.join(&member.name),
            expected: member.sha256.clone(),
            got,
            done: "nothing was kept of it",
        });
    }
    Ok(())
}

/// A member's path, if it stays inside the folder.
fn relative(name: &str) -> Result<PathBuf, &'static str> {
    // Windows takes `\` and `:` for part of a path's structure, other systems for letters.
    if name.contains(['\\', ':', '\0', '\u{fffd}']) {
        return Err("its path has a character that is not allowed");
    }
    let mut path = PathBuf::new();
    for component in Path::new(name).components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => path.push(part),
            Component::ParentDir => return Err("its path leads out of the folder"),
            Component::RootDir | Component::Prefix(_) => return Err("its path is absolute"),
        }
    }
    Ok(path)
}

enum Failed {
    Read(io::Error),
    Exists,
    Write(io::Error),
}

fn write(from: &mut impl Read, path: &Path) -> Result<(), Failed> {
    use std::io::Write;

    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Failed::Write)?;
    }
    let mut file = File::create_new(path).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => Failed::Exists,
        _ => Failed::Write(e),
    })?;
    let mut chunk = vec![0; 1 << 16];
    loop {
        match from.read(&mut chunk).map_err(Failed::Read)? {
            0 => break,
            n => file.write_all(&chunk[..n]).map_err(Failed::Write)?,
        }
    }
    // The rename of the folder must not reach the disk before the bytes do.
    file.sync_all().map_err(Failed::Write)
}

fn unsafe_archive(archive: &Path, member: &str, why: &str) -> DataError {
    DataError::UnsafeArchive {
        archive: archive.to_path_buf(),
        member: member.to_owned(),
        why: why.to_owned(),
    }
}

/// A reader that passes each chunk to `seen`.
struct Watched<R, F> {
    inner: R,
    seen: F,
}

impl<R: Read, F: FnMut(&[u8])> Read for Watched<R, F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        (self.seen)(&buf[..n]);
        Ok(n)
    }
}

impl<R: Seek, F> Seek for Watched<R, F> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}
