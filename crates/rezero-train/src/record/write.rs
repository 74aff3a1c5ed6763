//! Files that are whole or absent. Every file that this crate writes in one piece is written here.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::inside::kind;
use crate::error::{Error, Result};

/// The names of temporary files.
const BEGIN: &str = ".rezero-";
const END: &str = ".tmp";

/// Writes `bytes` to a temporary file in the same folder, forces it to disk and renames it to `path`.
/// Nothing else in the folder changes. A file that is replaced hands on its mode. A link or anything else
/// that is not a regular file is refused.
///
/// # Errors
///
/// If one of these steps fails; `path` is then unchanged.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.is_file() => Err(Error::io(
            "replace",
            path,
            io::Error::other(format!(
                "it is {}; remove it, or write elsewhere",
                kind(&meta)
            )),
        )),
        _ => replace(path, bytes),
    }
}

/// As [`write_atomic`], at a path that the user named. A link there is the user's: it stays, and the file
/// that it points to is replaced.
///
/// # Errors
///
/// As [`write_atomic`].
pub(crate) fn write_named(path: &Path, bytes: &[u8]) -> Result<()> {
    let target = target(path).map_err(|e| Error::io("follow", path, e))?;
    if fs::metadata(&target).is_ok_and(|meta| !meta.is_file()) {
        let message = "it is not a plain file; choose another name";
        return Err(Error::io("replace", path, io::Error::other(message)));
    }
    replace(&target, bytes)
}

/// The path that links lead to. There may be nothing there yet.
fn target(path: &Path) -> io::Result<PathBuf> {
    /// The limit of Linux.
    const LINKS: usize = 40;

    let mut path = path.to_owned();
    for _ in 0..LINKS {
        if !fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_symlink()) {
            return Ok(path);
        }
        let to = fs::read_link(&path)?;
        path = path.parent().unwrap_or(Path::new("")).join(to);
    }
    Err(io::Error::other("it is a circle of links"))
}

/// Removes the temporary files that a kill has left in `folder`. Nobody else may write there meanwhile.
pub(super) fn remove_temporary(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(BEGIN) && name.ends_with(END) {
            let path = entry.path();
            fs::remove_file(&path).map_err(|e| Error::io("remove", &path, e))?;
        }
    }
    Ok(())
}

fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let write = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix(BEGIN).suffix(END);
        // Else it would be private, as temporary files are. The system takes the user's mask off.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        let mut file = builder.tempfile_in(folder)?;
        file.write_all(bytes)?;
        if let Ok(before) = fs::symlink_metadata(path) {
            file.as_file().set_permissions(before.permissions())?;
        }
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)
    };
    write().map_err(|e| Error::io("write", path, e))?;
    // A rename is durable once its directory is.
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// Waits until no other process writes its files into `folder`, so that those of two do not mix. Held until
/// it is dropped. None where folders have no locks.
pub(crate) fn alone_in(folder: &Path) -> Option<File> {
    let folder = File::open(folder).ok()?;
    folder.lock().ok().map(|()| folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (file, folder) = (dir.path().join("a.json"), dir.path().join("b.json"));
        // Not ours, though the name looks like that of a temporary file.
        fs::write(dir.path().join(".a.json.tmp"), b"mine").unwrap();
        write_atomic(&file, b"1").unwrap();
        write_atomic(&file, b"2").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"2");
        fs::create_dir_all(folder.join("full")).unwrap();
        write_atomic(&folder, b"3").unwrap_err();
        write_named(&folder, b"3").unwrap_err();
        assert_eq!(names(dir.path()), [".a.json.tmp", "a.json", "b.json"]);
        assert_eq!(fs::read(dir.path().join(".a.json.tmp")).unwrap(), b"mine");
        // What a kill leaves.
        fs::write(dir.path().join(".rezero-x1.tmp"), b"half").unwrap();
        remove_temporary(dir.path()).unwrap();
        assert_eq!(names(dir.path()), [".a.json.tmp", "a.json", "b.json"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_if_the_user_named_it_and_is_refused_elsewhere() {
        use std::os::unix::fs::{PermissionsExt, symlink};

        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
        fs::write(at("plain"), b"1").unwrap();
        write_atomic(&at("new"), b"1").unwrap();
        // The user's mask is that of any new file.
        assert_eq!(mode("new"), mode("plain"));
        fs::set_permissions(at("plain"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::create_dir(at("folder")).unwrap();
        symlink("../plain", at("folder/link")).unwrap();
        write_named(&at("folder/link"), b"2").unwrap();
        assert_eq!(fs::read(at("plain")).unwrap(), b"2");
        assert_eq!(mode("plain"), 0o640);
        assert!(at("folder/link").is_symlink());
        let error = write_atomic(&at("folder/link"), b"3").unwrap_err();
        assert!(
            error.to_string().contains("it is a symbolic link"),
            "{error}"
        );
        assert_eq!(fs::read(at("plain")).unwrap(), b"2");
        // A file that is not there yet, and links that lead to themselves.
        symlink("later", at("early")).unwrap();
        write_named(&at("early"), b"4").unwrap();
        assert_eq!(fs::read(at("later")).unwrap(), b"4");
        symlink("b", at("a")).unwrap();
        symlink("a", at("b")).unwrap();
        write_named(&at("a"), b"5").unwrap_err();
    }
}
