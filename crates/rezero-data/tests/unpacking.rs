use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use rezero_data::{DataError, cifar10};
use tar::{EntryType, Header};

use crate::support::{self, entry_of, small_archive};

/// One member, its name written as given: the builder itself would refuse most of them.
fn member(name: &str, kind: EntryType, link: &str, body: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(body.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn gz(members: &[Vec<u8>]) -> Vec<u8> {
    use std::io::Write;

    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(&members.concat()).unwrap();
    gz.write_all(&[0; 1024]).unwrap();
    gz.finish().unwrap()
}

/// The error of an archive.
fn refusal(archive: &[u8]) -> DataError {
    support::refusal(&entry_of(archive, &[]), archive)
}

#[test]
fn members_that_would_leave_the_folder_are_refused() {
    let file = EntryType::Regular;
    let inside = |name: &str| format!("{}/{name}", cifar10::FOLDER);
    let cases = [
        ("../evil", file, "", "leads out"),
        (&inside("../../evil"), file, "", "leads out"),
        ("/tmp/rezero-evil", file, "", "absolute"),
        ("C:\\evil", file, "", "not allowed"),
        ("evil", file, "", "not in the data set's folder"),
        (
            "cifar-10-batches-binx/evil",
            file,
            "",
            "not in the data set's folder",
        ),
        (&inside("link"), EntryType::Symlink, "/etc", "links"),
        (&inside("link"), EntryType::Link, "../../evil", "links"),
        (&inside("pipe"), EntryType::Fifo, "", "neither"),
        (&inside("device"), EntryType::Char, "", "neither"),
    ];
    for (name, kind, link, why) in cases {
        let error = refusal(&gz(&[member(name, kind, link, b"")]));
        assert!(
            matches!(error, DataError::UnsafeArchive { .. }),
            "{name}: {error:?}"
        );
        let message = error.to_string();
        assert!(message.contains(why), "{name}: {message}");
    }
    assert!(!Path::new("/tmp/rezero-evil").exists());
}

#[test]
fn a_link_is_never_written_through() {
    // The first member would make a folder point elsewhere, the second would write there.
    let error = refusal(&gz(&[
        member("cifar-10-batches-bin/sub", EntryType::Symlink, "..", b""),
        member(
            "cifar-10-batches-bin/sub/evil",
            EntryType::Regular,
            "",
            b"x",
        ),
    ]));
    assert!(error.to_string().contains("links"), "{error}");
}

#[test]
fn sizes_and_counts_are_bounded() {
    let big = vec![0; 100_000];
    let name = |i: usize| format!("cifar-10-batches-bin/{i}");
    let file = |i: usize, body: &[u8]| member(&name(i), EntryType::Regular, "", body);
    let two = refusal(&gz(&[file(0, &big), file(1, &big)]));
    assert!(two.to_string().contains("exceed 184380 bytes"), "{two}");
    let many: Vec<_> = (0..1001).map(|i| file(i, b"")).collect();
    let many = refusal(&gz(&many));
    assert!(
        many.to_string().contains("more than 1000 members"),
        "{many}"
    );
    let twice = refusal(&gz(&[file(0, b"a"), file(0, b"b")]));
    assert!(twice.to_string().contains("twice"), "{twice}");
    // A long-name record that the tar reader would take into memory by itself.
    let long = member(
        "././@LongLink",
        EntryType::GNULongName,
        "",
        &vec![b'a'; 4 << 20],
    );
    let long = refusal(&gz(&[long, file(0, b"a")]));
    assert!(matches!(long, DataError::BadArchive { .. }), "{long:?}");
}

#[test]
fn what_is_no_whole_archive_is_called_so() {
    let whole = small_archive();
    let cases = [
        &b""[..],
        b"plain text",
        &whole[..whole.len() / 2],
        &whole[..20],
    ];
    for bytes in cases {
        let error = refusal(bytes);
        assert!(matches!(error, DataError::BadArchive { .. }), "{error:?}");
    }
    for members in [
        vec![],
        vec![member(
            "cifar-10-batches-bin/",
            EntryType::Directory,
            "",
            b"",
        )],
    ] {
        let error = refusal(&gz(&members));
        assert!(
            error.to_string().contains("none of the data files"),
            "{error}"
        );
    }
    // A data file of impossible length never gets its final name.
    let short = member(
        "cifar-10-batches-bin/test_batch.bin",
        EntryType::Regular,
        "",
        &[0; 3073],
    );
    let error = refusal(&gz(&[short]));
    assert!(matches!(error, DataError::MissingFiles { .. }), "{error:?}");
}
