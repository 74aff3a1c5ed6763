use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;
use std::time::Duration;

use rezero_data::DataError;
use rezero_data::fetch::{Options, Plan, fetch, plan};
use rezero_data::registry::{Entry, Format, Member};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::server::{Server, serve};
use crate::support::{self, entry_of, names, options, sha256, small_archive};

const DONE: [&str; 3] = [".small.zip.lock", "enwik8", "small.zip"];

fn body() -> Vec<u8> {
    let words = (0u32..20_000).map(|i| i.wrapping_mul(0x9e37_79b9) >> 7);
    words.flat_map(|i| format!("{i} ").into_bytes()).collect()
}

fn deflated() -> SimpleFileOptions {
    SimpleFileOptions::default().compression_method(CompressionMethod::Deflated)
}

fn zip_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(name, deflated()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// An entry for `archive`, in which `body` is to be.
fn entry(archive: &[u8], body: &[u8], urls: &[String]) -> Entry {
    Entry {
        archive: "small.zip".into(),
        folder: "enwik8".into(),
        format: Format::Enwik8,
        unpacked_bytes: body.len() as u64,
        member: Some(Member {
            name: "enwik8".into(),
            sha256: sha256(body),
        }),
        ..entry_of(archive, urls)
    }
}

/// The error of an archive in which `body` should be.
fn refusal(archive: &[u8], body: &[u8]) -> DataError {
    support::refusal(&entry(archive, body, &[]), archive)
}

#[test]
fn a_zip_is_resumed_unpacked_and_then_used_offline() {
    let (body, archive) = (body(), zip_of(&[("enwik8", &body())]));
    let (half, whole) = (archive.len() / 2, archive.clone());
    let server = Server::new(move |request, n| match n {
        0 => serve(&whole, request).cut_after(half),
        _ => serve(&whole, request),
    });
    let entry = entry(&archive, &body, &[server.url()]);
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let folder = fetch(&entry, &options).unwrap();
    assert_eq!(server.ranges(), [None, Some(half)]);
    assert_eq!(folder, dir.path().join("enwik8"));
    assert_eq!(names(dir.path()), DONE);
    assert_eq!(names(&folder), ["enwik8"]);
    assert!(fs::read(folder.join("enwik8")).unwrap() == body);

    let offline = Options {
        offline: true,
        ..options
    };
    let inside = Options {
        dir: folder.clone(),
        ..offline.clone()
    };
    for options in [&offline, &inside] {
        assert_eq!(plan(&entry, options).unwrap(), Plan::Use(folder.clone()));
        assert_eq!(fetch(&entry, options).unwrap(), folder);
    }
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_zip_placed_by_hand_needs_no_network_and_neither_does_the_file() {
    let (body, archive) = (body(), zip_of(&[("enwik8", &body())]));
    let entry = entry(&archive, &body, &["http://127.0.0.1:1/".into()]);
    let dir = tempfile::tempdir().unwrap();
    let offline = Options {
        offline: true,
        ..options(dir.path())
    };
    let message = fetch(&entry, &offline).unwrap_err().to_string();
    let place = dir.path().join("small.zip");
    assert!(message.contains(&place.display().to_string()), "{message}");
    fs::write(&place, &archive).unwrap();
    // An empty folder, such as a mount point, is in nobody's way.
    fs::create_dir(dir.path().join("enwik8")).unwrap();
    fetch(&entry, &offline).unwrap();
    assert_eq!(names(dir.path()), DONE);

    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("enwik8"), &body).unwrap();
    let offline = Options {
        dir: dir.path().into(),
        ..offline
    };
    assert_eq!(fetch(&entry, &offline).unwrap(), dir.path());
    assert_eq!(names(dir.path()), ["enwik8"]);
}

#[test]
fn what_stands_in_the_way_of_the_file_is_named_and_kept() {
    let (body, archive) = (body(), zip_of(&[("enwik8", &body())]));
    let entry = entry(&archive, &body, &["http://127.0.0.1:1/".into()]);
    for place in ["enwik8", "enwik8/enwik8"] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(place);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, b"mine").unwrap();
        let error = fetch(&entry, &options(dir.path())).unwrap_err();
        assert!(
            matches!(error, DataError::WrongLength { got: 4, .. }),
            "{error:?}"
        );
        assert_eq!(fs::read(&file).unwrap(), b"mine");
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("enwik8/enwik8")).unwrap();
    let message = fetch(&entry, &options(dir.path())).unwrap_err().to_string();
    assert!(message.contains("enwik8/enwik8 is not a file"), "{message}");
}

#[test]
fn two_at_once_download_a_zip_once() {
    let (body, archive) = (body(), zip_of(&[("enwik8", &body())]));
    let whole = archive.clone();
    let server = Server::new(move |request, _| {
        std::thread::sleep(Duration::from_millis(200));
        serve(&whole, request)
    });
    let entry = entry(&archive, &body, &[server.url()]);
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| fetch(&entry, &options(dir.path())).unwrap());
        }
    });
    assert_eq!(server.requests().len(), 1);
    assert_eq!(names(dir.path()), DONE);
}

#[test]
fn only_the_one_member_is_taken() {
    let body = body();
    let cases = [
        ("evil", "\"evil\": it is not \"enwik8\", the one file"),
        ("Enwik8", "it is not \"enwik8\""),
        ("enwik8/", "not allowed|it is not \"enwik8\""),
        ("enwik8/enwik8", "it is not \"enwik8\""),
        ("../enwik8", "leads out"),
        ("/rezero-evil-zip", "absolute"),
        ("C:\\evil", "not allowed"),
    ];
    for (name, why) in cases {
        for members in [
            vec![(name, &body[..])],
            vec![("enwik8", &body[..]), (name, b"more")],
            vec![(name, b"more"), ("enwik8", &body[..])],
        ] {
            let error = refusal(&zip_of(&members), &body);
            let message = error.to_string();
            assert!(
                matches!(error, DataError::UnsafeArchive { .. }),
                "{name}: {error:?}"
            );
            assert!(
                why.split('|').any(|why| message.contains(why)),
                "{name}: {message}"
            );
        }
    }
    assert!(!Path::new("/rezero-evil-zip").exists());
    let none = refusal(&zip_of(&[]), &body).to_string();
    assert!(none.contains("it is not there"), "{none}");

    let mut link = ZipWriter::new(Cursor::new(Vec::new()));
    link.add_symlink("enwik8", "/etc/passwd", deflated())
        .unwrap();
    let link = refusal(&link.finish().unwrap().into_inner(), &body).to_string();
    assert!(link.contains("not a plain file"), "{link}");
}

#[test]
fn the_length_and_the_hash_of_the_member_are_checked() {
    let body = body();
    let mut other = body.clone();
    other[1000] ^= 1;
    let error = refusal(&zip_of(&[("enwik8", &other)]), &body);
    let message = error.to_string();
    for part in [sha256(&other), sha256(&body), "small.zip/enwik8".into()] {
        assert!(message.contains(&part), "{message}");
    }
    assert!(matches!(error, DataError::HashMismatch { .. }), "{error:?}");

    for other in [&body[1..], &[&body[..], b"x"].concat(), b""] {
        let message = refusal(&zip_of(&[("enwik8", other)]), &body).to_string();
        let rule = format!("it has {} bytes, not {}", other.len(), body.len());
        assert!(message.contains(&rule), "{message}");
    }
}

#[test]
fn a_bomb_is_stopped_whatever_length_it_claims() {
    let body = body();
    let bomb = vec![0; 50 << 20];
    let honest = zip_of(&[("enwik8", &bomb)]);
    let message = refusal(&honest, &body).to_string();
    assert!(message.contains("it has 52428800 bytes"), "{message}");

    // The same with the expected length in both headers: no more than that comes out of it.
    let claim = (bomb.len() as u32).to_le_bytes();
    let lie = (body.len() as u32).to_le_bytes();
    let mut liar = honest.clone();
    let places: Vec<usize> = (0..honest.len() - 4)
        .filter(|&i| honest[i..i + 4] == claim)
        .collect();
    assert!(!places.is_empty());
    for i in places {
        liar[i..i + 4].copy_from_slice(&lie);
    }
    let error = refusal(&liar, &body);
    assert!(
        matches!(
            error,
            DataError::UnsafeArchive { .. } | DataError::BadArchive { .. }
        ),
        "{error:?}"
    );
}

#[test]
fn what_is_no_whole_zip_is_called_so() {
    let body = body();
    let whole = zip_of(&[("enwik8", &body)]);
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 0x55;
    let cases = [
        b"",
        &b"plain text"[..],
        &whole[..whole.len() / 2],
        &whole[..whole.len() - 10],
        &whole[..20],
        &damaged,
    ];
    for bytes in cases {
        let error = refusal(bytes, &body);
        assert!(matches!(error, DataError::BadArchive { .. }), "{error:?}");
        assert!(
            error.to_string().contains("not a whole .zip file"),
            "{error}"
        );
    }
}

/// A data set that is fetched while another one is unpacked leaves that one's temporary folder alone.
#[test]
fn two_data_sets_are_fetched_into_one_folder_at_once() {
    let body = vec![7; 30 << 20];
    let (zip, tar) = (zip_of(&[("enwik8", &body)]), small_archive());
    let (of_zip, of_tar) = (zip.clone(), tar.clone());
    let server = Server::new(move |request, _| match request.path.as_str() {
        "/zip" => serve(&of_zip, request),
        _ => serve(&of_tar, request),
    });
    let text = entry(&zip, &body, &[server.at("/zip")]);
    let images = entry_of(&tar, &[server.at("/tar")]);
    let dir = tempfile::tempdir().unwrap();
    let is_unpacking = || {
        let names = names(dir.path());
        names.iter().any(|name| name.starts_with(".unpacking-"))
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| fetch(&text, &options(dir.path())));
        while !is_unpacking() {
            assert!(!first.is_finished(), "it was unpacked too fast to be seen");
            std::thread::yield_now();
        }
        fetch(&images, &options(dir.path())).unwrap();
        first.join().unwrap().unwrap();
    });
    let done = [
        ".small.tar.gz.lock",
        ".small.zip.lock",
        "cifar-10-batches-bin",
        "enwik8",
        "small.tar.gz",
        "small.zip",
    ];
    assert_eq!(names(dir.path()), done);
    assert!(fs::read(dir.path().join("enwik8/enwik8")).unwrap() == body);
}
