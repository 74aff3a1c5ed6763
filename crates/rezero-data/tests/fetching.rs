use std::fs;
use std::time::Duration;

use rezero_data::DataError;
use rezero_data::fetch::{Options, Plan, fetch, plan};
use rezero_data::{Split, cifar10};

use crate::server::{Reply, Server, serve};
use crate::support::{entry_of, names, options, small_archive};

const PART: &str = "small.tar.gz.part";
const DONE: [&str; 3] = [".small.tar.gz.lock", "cifar-10-batches-bin", "small.tar.gz"];

/// The error of the last address.
fn last_cause(error: DataError) -> DataError {
    match error {
        DataError::NoSource { mut causes, .. } => causes.0.pop().unwrap(),
        other => panic!("expected NoSource, got {other:?}"),
    }
}

#[test]
fn downloads_checks_unpacks_and_then_leaves_the_network_alone() {
    let archive = small_archive();
    let body = archive.clone();
    let server = Server::new(move |request, _| serve(&body, request));
    let entry = entry_of(&archive, &[server.url()]);
    let dir = tempfile::tempdir().unwrap();
    let options = options(&dir.path().join("made/on/the/way"));

    let planned = plan(&entry, &options).unwrap();
    let bytes = archive.len() as u64;
    assert_eq!(
        planned,
        Plan::Download {
            url: server.url(),
            bytes,
            resume_from: 0
        }
    );
    let folder = fetch(&entry, &options).unwrap();
    assert_eq!(folder, options.dir.join(cifar10::FOLDER));
    assert_eq!(names(&options.dir), DONE);
    assert_eq!(cifar10::load(&options.dir, Split::Test).unwrap().len(), 10);

    assert_eq!(plan(&entry, &options).unwrap(), Plan::Use(folder.clone()));
    let offline = Options {
        offline: true,
        ..options
    };
    assert_eq!(fetch(&entry, &offline).unwrap(), folder);
    // The data folder itself is accepted in place of the one above it.
    let inside = Options {
        dir: folder.clone(),
        ..offline
    };
    assert_eq!(fetch(&entry, &inside).unwrap(), folder);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_wrong_hash_deletes_the_download() {
    let archive = small_archive();
    let mut body = archive.clone();
    body[1000] ^= 1;
    let server = Server::new(move |request, _| serve(&body, request));
    let entry = entry_of(&archive, &[server.url()]);
    let dir = tempfile::tempdir().unwrap();
    let error = fetch(&entry, &options(dir.path())).unwrap_err();
    let message = error.to_string();
    for part in [
        &entry.sha256[..],
        "SHA-256 is",
        PART,
        "deleted",
        "Likely causes",
        "by",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(matches!(last_cause(error), DataError::HashMismatch { .. }));
    assert_eq!(names(dir.path()), [".small.tar.gz.lock"]);
    assert_eq!(server.ranges(), [None]);
}

#[test]
fn a_cut_transfer_is_resumed_in_the_same_call() {
    let archive = small_archive();
    let (half, body) = (archive.len() / 2, archive.clone());
    let server = Server::new(move |request, n| match n {
        0 => serve(&body, request).cut_after(half),
        _ => serve(&body, request),
    });
    let dir = tempfile::tempdir().unwrap();
    fetch(&entry_of(&archive, &[server.url()]), &options(dir.path())).unwrap();
    assert_eq!(server.ranges(), [None, Some(half)]);
}

#[test]
fn a_server_killed_midway_leaves_a_part_that_the_next_call_resumes() {
    let archive = small_archive();
    let (half, body) = (archive.len() / 2, archive.clone());
    let dir = tempfile::tempdir().unwrap();
    let once = Options {
        retries: 0,
        ..options(dir.path())
    };
    {
        let body = body.clone();
        let server = Server::new(move |request, _| serve(&body, request).cut_after(half));
        let error = fetch(&entry_of(&archive, &[server.url()]), &once).unwrap_err();
        match last_cause(error) {
            DataError::Cut { got, expected, .. } => {
                assert_eq!((got, expected), (half as u64, archive.len() as u64));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fs::read(dir.path().join(PART)).unwrap(), archive[..half]);
    // A kill while unpacking leaves such a folder, which is neither used nor kept.
    let stale = dir
        .path()
        .join(".unpacking-small.tar.gz-1/cifar-10-batches-bin");
    fs::create_dir_all(&stale).unwrap();
    // One of another archive may be in use now.
    let other = ".unpacking-small.tar.gz-more.zip-2";
    fs::create_dir(dir.path().join(other)).unwrap();

    let server = Server::new(move |request, _| serve(&body, request));
    let entry = entry_of(&archive, &[server.url()]);
    match plan(&entry, &once).unwrap() {
        Plan::Download { resume_from, .. } => assert_eq!(resume_from, half as u64),
        other => panic!("{other:?}"),
    }
    fetch(&entry, &once).unwrap();
    assert_eq!(server.ranges(), [Some(half)]);
    fs::remove_dir(dir.path().join(other)).unwrap();
    assert_eq!(names(dir.path()), DONE);
}

#[test]
fn a_body_without_its_length_is_taken_and_a_short_one_noticed() {
    let archive = small_archive();
    let body = archive.clone();
    let server = Server::new(move |request, n| match n {
        0 => serve(&body, request).without_length().cut_after(4321),
        _ => serve(&body, request).without_length(),
    });
    let entry = entry_of(&archive, &[server.url()]);
    let dir = tempfile::tempdir().unwrap();
    let once = Options {
        retries: 0,
        ..options(dir.path())
    };
    let error = last_cause(fetch(&entry, &once).unwrap_err());
    assert!(
        matches!(error, DataError::Cut { got: 4321, .. }),
        "{error:?}"
    );
    fetch(&entry, &once).unwrap();
    assert_eq!(server.ranges(), [None, Some(4321)]);
}

#[test]
fn a_server_that_falls_silent_is_given_up() {
    let archive = small_archive();
    let body = archive.clone();
    let server = Server::new(move |request, _| Reply {
        stall: Duration::from_secs(2),
        ..serve(&body, request).cut_after(100)
    });
    let entry = entry_of(&archive, &[server.url()]);
    let dir = tempfile::tempdir().unwrap();
    let impatient = Options {
        retries: 0,
        read_timeout: Duration::from_millis(200),
        ..options(dir.path())
    };
    let error = last_cause(fetch(&entry, &impatient).unwrap_err());
    assert!(
        matches!(error, DataError::Cut { got: 100, .. }),
        "{error:?}"
    );
}

#[test]
fn absent_files_are_not_asked_for_again_but_busy_servers_are() {
    let archive = small_archive();
    let entry = |server: &Server| entry_of(&archive, &[server.url()]);
    let dir = tempfile::tempdir().unwrap();

    let absent = Server::new(|_, _| Reply::new(404, "<html>not here</html>"));
    let error = fetch(&entry(&absent), &options(dir.path())).unwrap_err();
    let message = error.to_string();
    for part in [
        &absent.url(),
        "404",
        "another mirror",
        "place small.tar.gz",
        &entry(&absent).sha256,
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(matches!(
        last_cause(error),
        DataError::Status { status: 404, .. }
    ));
    assert_eq!(absent.requests().len(), 1);

    let body = archive.clone();
    let busy = Server::new(move |request, n| match n {
        0 | 1 => Reply::new(503, ""),
        _ => serve(&body, request),
    });
    fetch(&entry(&busy), &options(dir.path())).unwrap();
    assert_eq!(busy.requests().len(), 3);
}

#[test]
fn nobody_at_the_address_is_a_network_error() {
    let archive = small_archive();
    let gone = Server::new(|_, _| Reply::new(200, "")).url();
    let dir = tempfile::tempdir().unwrap();
    for url in [
        gone,
        "no address at all".into(),
        "gopher://127.0.0.1/x".into(),
    ] {
        let error =
            last_cause(fetch(&entry_of(&archive, &[url]), &options(dir.path())).unwrap_err());
        assert!(matches!(error, DataError::Network { .. }), "{error:?}");
    }
}

#[test]
fn a_web_page_is_told_by_its_type_or_its_beginning_and_costs_nothing() {
    let archive = small_archive();
    let page = |text: &'static str, kind: Option<&'static str>| {
        let server = Server::new(move |_, _| {
            let reply = Reply::new(200, text);
            match kind {
                Some(kind) => reply.header("Content-Type", kind),
                None => reply,
            }
        });
        let entry = entry_of(&archive, &[server.url()]);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(PART), &archive[..500]).unwrap();
        let error = fetch(&entry, &options(dir.path())).unwrap_err();
        assert!(error.to_string().contains("web page"), "{error}");
        assert!(matches!(last_cause(error), DataError::HtmlPage { .. }));
        // The part that was there is as good as before.
        assert_eq!(fs::read(dir.path().join(PART)).unwrap(), archive[..500]);
        assert_eq!(server.requests().len(), 1);
    };
    page("please log in", Some("text/html; charset=utf-8"));
    page("\u{feff}\n <!DOCTYPE html><p>moved", None);
    page("<HTML>", Some("application/octet-stream"));
}

#[test]
fn a_server_that_ignores_or_refuses_ranges_is_read_from_the_start() {
    let archive = small_archive();
    for refuse in [false, true] {
        let body = archive.clone();
        let server = Server::new(move |request, _| match request.range {
            Some(_) if refuse => Reply::new(416, ""),
            _ => Reply::new(200, &body[..]),
        });
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(PART), b"some older bytes").unwrap();
        fetch(&entry_of(&archive, &[server.url()]), &options(dir.path())).unwrap();
        assert_eq!(names(dir.path()), DONE);
        assert_eq!(server.requests().len(), if refuse { 2 } else { 1 });
    }
}

#[test]
fn a_range_other_than_the_one_asked_for_is_not_appended() {
    let archive = small_archive();
    let body = archive.clone();
    let server = Server::new(move |request, _| match request.range {
        Some(_) => Reply::new(206, &body[5..]).header("Content-Range", "bytes 5-9/10"),
        None => serve(&body, request),
    });
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(PART), &archive[..100]).unwrap();
    fetch(&entry_of(&archive, &[server.url()]), &options(dir.path())).unwrap();
    assert_eq!(server.ranges(), [Some(100), None]);
}

#[test]
fn foreign_bytes_in_the_part_cost_one_more_download() {
    let archive = small_archive();
    let body = archive.clone();
    let server = Server::new(move |request, _| serve(&body, request));
    let dir = tempfile::tempdir().unwrap();
    let entry = entry_of(&archive, &[server.url()]);
    let none = Options {
        retries: 0,
        ..options(dir.path())
    };
    for (part, ranges) in [
        (vec![0; 100], vec![Some(100), None]),
        (vec![0; archive.len()], vec![None]),
        (vec![0; archive.len() + 1], vec![None]),
    ] {
        let before = server.requests().len();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(PART), part).unwrap();
        fetch(
            &entry,
            &Options {
                dir: dir.path().into(),
                ..none.clone()
            },
        )
        .unwrap();
        assert_eq!(server.ranges()[before..], ranges);
    }
    // A whole part is not asked for again.
    fs::write(dir.path().join(PART), &archive).unwrap();
    let before = server.requests().len();
    fetch(&entry, &none).unwrap();
    assert_eq!(server.requests().len(), before);
}

#[test]
fn redirects_are_followed() {
    let archive = small_archive();
    let body = archive.clone();
    let server = Server::new(move |request, _| match request.path.as_str() {
        "/moved" => Reply::new(302, "").header("Location", "/small.tar.gz"),
        _ => serve(&body, request),
    });
    let dir = tempfile::tempdir().unwrap();
    fetch(
        &entry_of(&archive, &[server.at("/moved")]),
        &options(dir.path()),
    )
    .unwrap();
    let paths: Vec<String> = server.requests().into_iter().map(|r| r.path).collect();
    assert_eq!(paths, ["/moved", "/small.tar.gz"]);
}

#[test]
fn mirrors_are_tried_in_order_and_can_be_replaced() {
    let archive = small_archive();
    let body = archive.clone();
    let server = Server::new(move |request, _| match request.path.as_str() {
        "/good" => serve(&body, request),
        "/longer" => Reply::new(200, [&body[..], b"x"].concat()),
        _ => Reply::new(404, ""),
    });
    let entry = entry_of(
        &archive,
        &[server.at("/a"), server.at("/longer"), server.at("/good")],
    );
    let dir = tempfile::tempdir().unwrap();
    fetch(&entry, &options(dir.path())).unwrap();
    assert_eq!(server.requests().len(), 3);

    let dir = tempfile::tempdir().unwrap();
    let own = Options {
        urls: vec![server.at("/b"), server.at("/c")],
        ..options(dir.path())
    };
    let message = fetch(&entry, &own).unwrap_err().to_string();
    assert!(
        message.contains("/b: the server") && message.contains("/c: the server"),
        "{message}"
    );
    assert!(!message.contains("/good"), "{message}");
}

#[test]
fn more_bytes_than_registered_stop_the_transfer() {
    let archive = small_archive();
    let long = [&archive[..], &[0; 100_000]].concat();
    let dir = tempfile::tempdir().unwrap();
    for told in [false, true] {
        let long = long.clone();
        let server = Server::new(move |_, _| Reply {
            content_length: told,
            ..Reply::new(200, &long[..])
        });
        let error = fetch(&entry_of(&archive, &[server.url()]), &options(dir.path())).unwrap_err();
        match last_cause(error) {
            DataError::WrongSize { .. } if told => {}
            DataError::TooLarge { cap, .. } if !told => assert_eq!(cap, archive.len() as u64),
            other => panic!("{other:?}"),
        }
        assert_eq!(names(dir.path()), [".small.tar.gz.lock"]);
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn an_archive_placed_by_hand_needs_no_network() {
    let archive = small_archive();
    let entry = entry_of(&archive, &["http://127.0.0.1:1/".into()]);
    let dir = tempfile::tempdir().unwrap();
    let offline = Options {
        offline: true,
        ..options(dir.path())
    };

    for call in [
        |e: &_, o: &_| plan(e, o).map(|_| ()),
        |e: &_, o: &_| fetch(e, o).map(|_| ()),
    ] {
        let message = call(&entry, &offline).unwrap_err().to_string();
        let place = dir.path().join("small.tar.gz").display().to_string();
        for part in [&place, &entry.sha256, &entry.bytes.to_string(), "--offline"] {
            assert!(message.contains(part), "{message}");
        }
    }
    assert!(names(dir.path()).is_empty());

    let placed = dir.path().join("small.tar.gz");
    fs::write(&placed, b"another file").unwrap();
    let error = fetch(&entry, &offline).unwrap_err();
    assert!(matches!(error, DataError::HashMismatch { .. }), "{error:?}");
    assert!(error.to_string().contains("left in place"), "{error}");
    assert_eq!(fs::read(&placed).unwrap(), b"another file");

    fs::write(&placed, &archive).unwrap();
    assert_eq!(
        plan(&entry, &offline).unwrap(),
        Plan::Unpack { archive: placed }
    );
    // An empty folder, such as a mount point, is in nobody's way.
    fs::create_dir(dir.path().join(cifar10::FOLDER)).unwrap();
    fetch(&entry, &offline).unwrap();
    assert_eq!(names(dir.path()), DONE);
}

#[test]
fn what_stands_in_the_way_is_named_and_kept() {
    let archive = small_archive();
    let body = archive.clone();
    let server = Server::new(move |request, _| serve(&body, request));
    let entry = entry_of(&archive, &[server.url()]);

    // A file in the place of a folder.
    for file in ["data", "data/cifar-10-batches-bin"] {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, b"mine").unwrap();
        let options = options(&root.path().join("data"));
        let message = fetch(&entry, &options).unwrap_err().to_string();
        assert!(
            message.contains(&format!("{} is not a folder", file.display())),
            "{message}"
        );
        let below = Options {
            dir: options.dir.join("x/y"),
            ..options
        };
        if file.ends_with("data") {
            let message = fetch(&entry, &below).unwrap_err().to_string();
            assert!(
                message.contains(&format!("{} is not a folder", file.display())),
                "{message}"
            );
        }
        assert_eq!(fs::read(&file).unwrap(), b"mine");
    }
    // A folder in the place of a file.
    for name in ["small.tar.gz", PART] {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(name)).unwrap();
        let message = fetch(&entry, &options(dir.path())).unwrap_err().to_string();
        assert!(
            message.contains(&format!("{name} is not a file")),
            "{message}"
        );
    }
    // A damaged copy.
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join(cifar10::FOLDER);
    rezero_data::shapes::write_cifar_layout(&folder, 2, 1).unwrap();
    fs::write(folder.join("data_batch_3.bin"), [0; 3074]).unwrap();
    let error = fetch(&entry, &options(dir.path())).unwrap_err();
    assert!(
        matches!(
            error,
            DataError::PartialRecord {
                records: 1,
                remainder: 1,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(
        fs::read(folder.join("data_batch_3.bin")).unwrap().len(),
        3074
    );
    // Files of the user's own in the data's place.
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join(cifar10::FOLDER).join("note.txt");
    fs::create_dir(note.parent().unwrap()).unwrap();
    fs::write(&note, b"mine").unwrap();
    let message = fetch(&entry, &options(dir.path())).unwrap_err().to_string();
    assert!(message.contains(cifar10::FOLDER), "{message}");
    assert_eq!(fs::read(&note).unwrap(), b"mine");
    assert!(
        !names(dir.path())
            .iter()
            .any(|n| n.starts_with(".unpacking"))
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_called_so() {
    let archive = small_archive();
    let body = archive.clone();
    let server = Server::new(move |request, _| serve(&body, request));
    let dir = tempfile::tempdir().unwrap();
    // Every write to this device fails as on a full disk.
    std::os::unix::fs::symlink("/dev/full", dir.path().join(PART)).unwrap();
    let error = fetch(&entry_of(&archive, &[server.url()]), &options(dir.path())).unwrap_err();
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[cfg(unix)]
#[test]
fn a_read_only_folder_is_called_so() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(dir.path().join("probe"), b"").is_ok() {
        println!("skipped: this user may write everywhere");
        return;
    }
    let entry = entry_of(&small_archive(), &["http://127.0.0.1:1/".into()]);
    let error = fetch(&entry, &options(dir.path())).unwrap_err();
    assert!(error.to_string().contains("read-only"), "{error}");
}

#[test]
fn two_at_once_download_once() {
    let archive = small_archive();
    let body = archive.clone();
    let server = Server::new(move |request, _| {
        std::thread::sleep(Duration::from_millis(200));
        serve(&body, request)
    });
    let entry = entry_of(&archive, &[server.url()]);
    let dir = tempfile::tempdir().unwrap();
    // The lock belongs to an open file, so two threads are to it as two processes.
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| fetch(&entry, &options(dir.path())).unwrap());
        }
    });
    assert_eq!(server.requests().len(), 1);
    assert_eq!(names(dir.path()), DONE);
}
