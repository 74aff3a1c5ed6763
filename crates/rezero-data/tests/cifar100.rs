//! CIFAR-100's binary version.

use std::fs;
use std::path::Path;

use rezero_data::cifar100::{self, RECORD_BYTES, TEST_FILE, TRAIN_FILE};
use rezero_data::{DataError, Split, registry};

/// Records whose coarse label is `i mod 20`, whose fine label is `i mod 100` and whose pixels are all
/// `i`.
fn records(n: usize) -> Vec<u8> {
    let record = |i: usize| {
        let mut record = vec![i as u8; RECORD_BYTES];
        record[..2].copy_from_slice(&[(i % 20) as u8, (i % 100) as u8]);
        record
    };
    (0..n).flat_map(record).collect()
}

fn folder(dir: &Path, train: usize, test: usize) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join(TRAIN_FILE), records(train)).unwrap();
    fs::write(dir.join(TEST_FILE), records(test)).unwrap();
}

#[test]
fn the_fine_label_is_the_class() {
    let dir = tempfile::tempdir().unwrap();
    folder(&dir.path().join(cifar100::FOLDER), 200, 120);
    let [train, valid, test] = Split::ALL.map(|split| cifar100::load(dir.path(), split).unwrap());
    assert_eq!([train.len(), valid.len(), test.len()], [180, 20, 120]);
    for (set, first) in [(&train, 0), (&valid, 180), (&test, 0)] {
        for i in 0..set.len() {
            assert_eq!(usize::from(set.label(i)), (first + i) % 100);
            assert!(
                set.pixels(i)
                    .unwrap()
                    .iter()
                    .all(|&byte| usize::from(byte) == first + i)
            );
        }
    }
    assert_eq!(
        (train.num_classes(), &*train.class_names()[99]),
        (100, "worm")
    );
    assert_eq!(
        train.to_string(),
        "cifar100: 180 records, a subset of 45000"
    );
    assert!(cifar100::CLASS_NAMES.is_sorted());
    assert_eq!(registry::find("cifar100").unwrap().folder, cifar100::FOLDER);
}

#[test]
fn damage_is_told() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path(), 30, 10);
    let file = dir.path().join(TRAIN_FILE);
    for (at, value, said) in [
        (0, 20, "label 20, but there are 20 classes"),
        (1, 100, "label 100, but there are 100"),
    ] {
        let mut bytes = records(30);
        bytes[7 * RECORD_BYTES + at] = value;
        fs::write(&file, bytes).unwrap();
        let message = cifar100::load(dir.path(), Split::Train)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("train.bin, record 7") && message.contains(said),
            "{message}"
        );
        // The other split is whole.
        assert_eq!(cifar100::load(dir.path(), Split::Test).unwrap().len(), 10);
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(cifar100::load(dir.path(), Split::Test).unwrap().len(), 10);
    let error = cifar100::load(dir.path(), Split::Valid).unwrap_err();
    assert!(matches!(error, DataError::MissingFiles { .. }), "{error:?}");
    // The length of an official training file is no length of a test file.
    let long = fs::File::create(dir.path().join(TEST_FILE)).unwrap();
    long.set_len(10_001 * RECORD_BYTES as u64).unwrap();
    let error = cifar100::open(dir.path()).unwrap_err();
    assert!(
        matches!(error, DataError::TooManyRecords { .. }),
        "{error:?}"
    );
}
