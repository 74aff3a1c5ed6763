//! The places that may have a file of weights.

use std::borrow::Cow;
use std::env;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use super::{Pretrained, PretrainedError};

/// The variable that names a folder of weights.
pub const WEIGHTS: &str = "REZERO_WEIGHTS";

/// The variable that holds the address below which weights are downloaded.
pub const URL: &str = "REZERO_WEIGHTS_URL";

/// The variable that names another folder for downloaded weights than the one in the user's cache.
pub const CACHE: &str = "REZERO_WEIGHTS_CACHE";

/// `weights/` of the clone that this crate was built from.
const CLONE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../weights");

static OFFLINE: AtomicBool = AtomicBool::new(false);

/// From now on this process downloads no weights, whatever `REZERO_WEIGHTS_URL` says: for programs with a switch for it.
pub fn stay_offline() {
    OFFLINE.store(true, Ordering::Relaxed);
}

/// Where files of weights are looked for.
#[derive(Default)]
struct Places {
    /// In this order.
    folders: Vec<PathBuf>,
    /// What is downloaded is kept here; it is looked for here, too.
    cache: Option<PathBuf>,
    /// The address below which files are.
    url: Option<String>,
}

impl Places {
    /// The places that the environment of this process names.
    fn of_environment() -> Self {
        let folder = |variable| {
            env::var_os(variable)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let of_user = || Some(dirs::cache_dir()?.join("rezero").join("weights"));
        Self {
            folders: folder(WEIGHTS)
                .into_iter()
                .chain([PathBuf::from(CLONE)])
                .collect(),
            cache: folder(CACHE).or_else(of_user),
            url: env::var(URL)
                .ok()
                .filter(|url| !url.is_empty() && !OFFLINE.load(Ordering::Relaxed)),
        }
    }
}

/// The file of `one`, checked.
pub(super) fn read(one: &Pretrained) -> Result<Cow<'static, [u8]>, PretrainedError> {
    if let Some(inside) = one.inside {
        check(one, inside, || format!("the crate's {}", one.name))?;
        return Ok(Cow::Borrowed(inside));
    }
    read_from(one, &Places::of_environment()).map(Cow::Owned)
}

fn read_from(one: &Pretrained, places: &Places) -> Result<Vec<u8>, PretrainedError> {
    let file = format!("{}.safetensors", one.name);
    let mut looked = Vec::new();
    for folder in places.folders.iter().chain(&places.cache) {
        let path = folder.join(&file);
        if let Some(bytes) = read_file(one, &path)? {
            check(one, &bytes, || path.display().to_string())?;
            return Ok(bytes);
        }
        looked.push(path);
    }
    let Some(base) = &places.url else {
        return Err(PretrainedError::NotFound {
            name: one.name,
            looked,
        });
    };
    let url = format!("{}/{file}", base.trim_end_matches('/'));
    let bytes = download(one, &url)?;
    check(one, &bytes, || shown(&url))?;
    if let Some(cache) = &places.cache {
        // Whoever cannot write there has the weights all the same.
        let _ = keep(cache, &file, &bytes);
    }
    Ok(bytes)
}

/// The bytes of a file, if there is one. No more is read than the file may have, and one byte.
fn read_file(one: &Pretrained, path: &Path) -> Result<Option<Vec<u8>>, PretrainedError> {
    let failed = |e: std::io::Error| PretrainedError::Io {
        path: path.to_owned(),
        message: e.to_string(),
    };
    match fs::metadata(path) {
        Ok(found) if found.is_file() => {}
        Ok(_) => {
            return Err(PretrainedError::Io {
                path: path.to_owned(),
                message: "is no regular file".to_owned(),
            });
        }
        // A clone, or a cache, of another user is no place of this one.
        Err(e)
            if matches!(
                e.kind(),
                ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied
            ) =>
        {
            return Ok(None);
        }
        Err(e) => return Err(failed(e)),
    }
    let mut bytes = Vec::new();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::PermissionDenied => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    file.take(one.bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(Some(bytes))
}

/// Compares bytes with the registry.
fn check(
    one: &Pretrained,
    bytes: &[u8],
    place: impl Fn() -> String,
) -> Result<(), PretrainedError> {
    let altered = |found: String| PretrainedError::Altered {
        name: one.name,
        place: place(),
        found,
    };
    if bytes.len() as u64 != one.bytes {
        let more = if bytes.len() as u64 > one.bytes {
            "more than "
        } else {
            ""
        };
        let shown = (bytes.len() as u64).min(one.bytes);
        return Err(altered(format!(
            "it has {more}{shown} bytes, and should have {}",
            one.bytes
        )));
    }
    let hash: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    match hash == one.sha256 {
        true => Ok(()),
        false => Err(altered(format!(
            "its SHA-256 is {hash}, and should be {}",
            one.sha256
        ))),
    }
}

/// Puts a checked file into the cache, in one step: another process may do the same.
fn keep(cache: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(cache)?;
    let mut new = tempfile::Builder::new();
    // Others may read a shared cache.
    #[cfg(unix)]
    new.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let mut file = new.tempfile_in(cache)?;
    std::io::Write::write_all(&mut file, bytes)?;
    file.persist(cache.join(name)).map_err(|e| e.error)?;
    Ok(())
}

/// An address without what may be secret: the name and the password before its host, and what follows a `?`. Where an `@` comes after
/// the first `/`, a password may have that `/`, and all before is left out.
fn shown(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let rest = rest.split('?').next().unwrap_or_default();
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match (host.rsplit_once('@'), path.rsplit_once('@')) {
        (Some((_, host)), _) => format!("{scheme}{host}{path}"),
        (None, Some((_, path))) => format!("{scheme}…@{path}"),
        (None, None) => format!("{scheme}{rest}"),
    }
}

#[cfg(feature = "download")]
fn download(one: &Pretrained, url: &str) -> Result<Vec<u8>, PretrainedError> {
    use std::time::Duration;

    let failed = |message: String| PretrainedError::Download {
        url: shown(url),
        message,
    };
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_global(Some(Duration::from_secs(300)))
            .build(),
    );
    let mut answer = agent.get(url).call().map_err(|e| failed(e.to_string()))?;
    let mut bytes = Vec::new();
    let mut body = answer.body_mut().as_reader().take(one.bytes + 1);
    body.read_to_end(&mut bytes)
        .map_err(|e| failed(e.to_string()))?;
    Ok(bytes)
}

#[cfg(not(feature = "download"))]
fn download(_: &Pretrained, url: &str) -> Result<Vec<u8>, PretrainedError> {
    Err(PretrainedError::Download {
        url: shown(url),
        message: "this crate was built without its feature download".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row of a file that holds `abc`; its hash is FIPS 180's example.
    const ABC: Pretrained = Pretrained {
        name: "abc",
        summary: "",
        card: "",
        bytes: 3,
        sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        classes: &[],
        normalization: None,
        inside: None,
    };

    fn folder(content: Option<&[u8]>) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        if let Some(content) = content {
            fs::write(folder.path().join("abc.safetensors"), content).unwrap();
        }
        folder
    }

    fn places(folders: &[&tempfile::TempDir]) -> Places {
        Places {
            folders: folders.iter().map(|f| f.path().to_owned()).collect(),
            ..Places::default()
        }
    }

    #[test]
    fn the_first_place_that_has_the_file_is_taken() {
        let (none, right, wrong) = (folder(None), folder(Some(b"abc")), folder(Some(b"abd")));
        assert_eq!(
            read_from(&ABC, &places(&[&none, &right, &wrong])).unwrap(),
            b"abc"
        );
        // A wrong file is an error, also where a later place has the right one.
        let error = read_from(&ABC, &places(&[&wrong, &right])).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("its SHA-256 is"), "{message}");
        assert!(
            message.contains(&wrong.path().display().to_string()),
            "{message}"
        );
        for folder in [None, Some(&none)] {
            let error = read_from(&ABC, &places(folder.as_slice())).unwrap_err();
            let message = error.to_string();
            assert!(
                message.contains("abc.safetensors") && message.contains(WEIGHTS),
                "{message}"
            );
        }
    }

    #[test]
    fn other_lengths_are_told_without_reading_on() {
        for (content, said) in [
            (&b""[..], "it has 0 bytes, and should have 3"),
            (b"ab", "it has 2 bytes, and should have 3"),
            (b"abcd", "it has more than 3 bytes, and should have 3"),
        ] {
            let error = read_from(&ABC, &places(&[&folder(Some(content))])).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
        let odd = folder(None);
        fs::create_dir(odd.path().join("abc.safetensors")).unwrap();
        let error = read_from(&ABC, &places(&[&odd])).unwrap_err();
        assert!(error.to_string().contains("no regular file"), "{error}");
    }

    /// Answers one request with `content`.
    #[cfg(feature = "download")]
    fn server(content: &'static [u8]) -> (String, std::thread::JoinHandle<String>) {
        use std::io::{BufRead, BufReader, Write};

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/files/", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let asked = lines.next().unwrap().unwrap();
            while !lines.next().unwrap().unwrap().is_empty() {}
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                content.len()
            );
            stream
                .write_all(&[head.as_bytes(), content].concat())
                .unwrap();
            asked
        });
        (url, thread)
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(
            shown("https://me:p@ss@host:80/a@b/c"),
            "https://host:80/a@b/c"
        );
        assert_eq!(shown("https://host"), "https://host");
        assert_eq!(shown("host/a"), "host/a");
        assert_eq!(shown("http://me:sec/ret@host/a"), "http://…@host/a");
        assert_eq!(shown("me:secret@host/a?token=secret"), "host/a");
    }

    #[cfg(feature = "download")]
    #[test]
    fn a_file_is_downloaded_once_checked_and_kept() {
        let cache = tempfile::tempdir().unwrap();
        let kept = cache.path().join("below").join("abc.safetensors");
        let at = |url: Option<String>| Places {
            cache: Some(cache.path().join("below")),
            url,
            ..Places::default()
        };
        let (url, thread) = server(b"abd");
        let error = read_from(&ABC, &at(Some(url.clone()))).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("files/abc.safetensors is not the file of abc"),
            "{error}"
        );
        assert!(
            thread
                .join()
                .unwrap()
                .starts_with("GET /files/abc.safetensors ")
        );
        assert!(!kept.exists());

        let (url, thread) = server(b"abc");
        assert_eq!(read_from(&ABC, &at(Some(url))).unwrap(), b"abc");
        thread.join().unwrap();
        assert_eq!(fs::read(&kept).unwrap(), b"abc");
        // The server is gone, and no address is given.
        assert_eq!(read_from(&ABC, &at(None)).unwrap(), b"abc");

        fs::remove_file(&kept).unwrap();
        let nobody = "http://127.0.0.1:1".to_owned();
        let error = read_from(&ABC, &at(Some(nobody))).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("cannot download http://127.0.0.1:1/abc.safetensors"),
            "{error}"
        );
    }
}
