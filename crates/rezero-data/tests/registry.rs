use std::path::Path;

use rezero_data::registry::{built_in, datasets, find, readme};
use rezero_data::{cifar10, corpus, shapes};

#[test]
fn entries_are_complete() {
    for e in datasets() {
        assert!(e.sha256.len() == 64 && e.sha256.bytes().all(|b| b"0123456789abcdef".contains(&b)));
        assert!(!e.urls.is_empty() && e.urls.iter().all(|u| u.starts_with("https://")));
        assert!(e.bytes > 0 && e.unpacked_bytes >= e.bytes);
        if let Some(member) = &e.member {
            assert!(member.sha256.len() == 64 && !member.name.contains(['/', '\\']));
        }
        assert!(e.member.is_some() == e.archive.ends_with(".zip"));
        assert!(!e.archive.contains(['/', '\\']) && !e.folder.contains(['/', '\\']));
    }
    assert_eq!(find("cifar10").unwrap().bytes, 170_052_171);
}

#[test]
fn the_registry_and_the_readers_agree() {
    let enwik8 = find("enwik8").unwrap();
    let member = enwik8.member.as_ref().unwrap();
    assert_eq!(enwik8.unpacked_bytes, corpus::ENWIK8_BYTES);
    assert_eq!(member.sha256, corpus::ENWIK8_SHA256);
    assert_eq!([&enwik8.folder, &member.name], [corpus::ENWIK8; 2]);
    assert_eq!(find("cifar10").unwrap().folder, cifar10::FOLDER);
    let names: Vec<_> = built_in().iter().map(|set| set.name.as_str()).collect();
    assert_eq!(names, ["shapes", "wiki-like"]);
    let classes = shapes::CLASS_NAMES.join(", ");
    assert!(built_in()[0].description.contains(&classes));
}

#[test]
fn an_unknown_name_gets_the_nearest() {
    let message = find("CIFAR-10").unwrap_err().to_string();
    assert!(
        message.contains("did you mean \"cifar10\"? Known: cifar10, cifar100, enwik8"),
        "{message}"
    );
    assert!(find("").is_err() && find(&"x".repeat(100_000)).is_err());
}

/// `REZERO_WRITE=1 cargo test -p rezero-data readme` writes the page.
#[test]
fn the_readme_of_the_data_folder_is_the_generated_one() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/README.md");
    if std::env::var_os("REZERO_WRITE").is_some() {
        std::fs::write(&page, readme()).unwrap();
    }
    match std::fs::read_to_string(&page) {
        Ok(text) => assert!(
            text == readme(),
            "out of date: run this test with REZERO_WRITE=1"
        ),
        Err(e) => println!("skipped: no datasets/README.md outside the workspace ({e})"),
    }
}
