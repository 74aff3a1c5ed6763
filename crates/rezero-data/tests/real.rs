//! Checks on official records. `REZERO_TEST_DATA` names a folder that holds
//! `cifar10-sample/cifar-10-batches-bin`, the first 1,000 records of each official batch, and
//! `enwik8-4mb`, the first 4,000,000 bytes of enwik8.

use std::path::PathBuf;

use rezero_data::{Split, cifar10, corpus};

use crate::support::{moments, sha256};

#[test]
fn the_first_official_records_are_as_published() {
    let Some(root) = std::env::var_os("REZERO_TEST_DATA") else {
        println!("skipped: REZERO_TEST_DATA is not set");
        return;
    };
    let dir = PathBuf::from(root).join("cifar10-sample");
    let folder = cifar10::open(&dir).unwrap();
    assert!(folder.is_subset());
    let [train, valid, test] = Split::ALL.map(|split| folder.load(split).unwrap());
    assert_eq!([train.len(), valid.len(), test.len()], [4500, 500, 1000]);

    // The first labels of data_batch_1 and test_batch, as every CIFAR-10 tutorial prints them.
    assert_eq!(train.labels()[..10], [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]);
    assert_eq!(test.labels()[..10], [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]);
    // The first image is the frog whose first red, green and blue values are 59, 62 and 63.
    let frog = train.pixels(0).unwrap();
    assert_eq!([frog[0], frog[1024], frog[2048]], [59, 62, 63]);

    // 5,000 of 50,000 images: their moments are near those of all.
    let all = cifar10::normalization_superconvergence();
    for (c, (mean, std)) in moments(&train).into_iter().enumerate() {
        assert!((mean - f64::from(all.mean[c])).abs() < 0.01, "{c}: {mean}");
        assert!((std - f64::from(all.std[c])).abs() < 0.01, "{c}: {std}");
    }
}

#[test]
fn the_first_bytes_of_enwik8_are_as_published_and_split_in_proportion() {
    let Some(root) = std::env::var_os("REZERO_TEST_DATA") else {
        println!("skipped: REZERO_TEST_DATA is not set");
        return;
    };
    let path = PathBuf::from(root).join("enwik8-4mb");
    if !path.exists() {
        println!("skipped: no {}", path.display());
        return;
    }
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(
        sha256(&whole),
        "9f9ca3a41e2b87a0268d00380577e2c308e07959b22a94c8d7b1e8901bdefc37"
    );
    let splits = Split::ALL.map(|split| corpus::file(&path, split).unwrap());
    assert_eq!(
        splits.each_ref().map(|text| text.len()),
        [3_600_000, 200_000, 200_000]
    );
    assert!(splits[0].bytes().starts_with(b"<mediawiki xmlns="));
    let joined: Vec<u8> = splits
        .iter()
        .flat_map(|text| text.bytes())
        .copied()
        .collect();
    assert!(joined == whole);
    assert_eq!(splits[2].to_string(), "enwik8-4mb test: 200000 bytes");
}
