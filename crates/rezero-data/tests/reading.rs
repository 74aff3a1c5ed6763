use std::fs::{self, File};
use std::path::Path;

use proptest::prelude::*;
use rezero_data::cifar10::{self, BATCH_RECORDS, RECORD_BYTES, TEST_FILE, TRAIN_FILES};
use rezero_data::{DataError, ImageSet, ImageShape, Split, shapes};

fn folder(records: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    shapes::write_cifar_layout(dir.path(), records, 3).unwrap();
    dir
}

fn open_error(dir: &Path) -> (DataError, String) {
    let error = cifar10::open(dir).unwrap_err();
    let message = error.to_string();
    (error, message)
}

#[test]
fn a_small_folder_is_read_in_order_and_called_a_subset() {
    let dir = folder(10);
    let open = cifar10::open(dir.path()).unwrap();
    assert!(open.is_subset());
    assert_eq!(Split::ALL.map(|s| open.records(s)), [45, 5, 10]);
    let [train, valid, test] = Split::ALL.map(|s| cifar10::load(dir.path(), s).unwrap());

    let drawn = shapes::generate(Split::Train, 50, 3);
    for i in 0..50 {
        let (set, at) = if i < 45 {
            (&train, i)
        } else {
            (&valid, i - 45)
        };
        assert_eq!(
            (set.label(at), set.pixels(at).unwrap()),
            (drawn.label(i), drawn.pixels(i).unwrap()),
            "{i}"
        );
    }
    assert_eq!(
        test.fingerprint().unwrap(),
        shapes::generate(Split::Test, 10, 3).fingerprint().unwrap()
    );
    assert_eq!((train.name(), train.num_classes()), ("cifar10", 10));
    assert_eq!(train.class_names()[9], "truck");
    assert!(train.is_subset() && valid.is_subset() && test.is_subset());
    assert_eq!(train.to_string(), "cifar10: 45 records, a subset of 45000");
}

#[test]
fn the_folder_above_will_do() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join(cifar10::FOLDER);
    shapes::write_cifar_layout(&inner, 1, 3).unwrap();
    assert_eq!(cifar10::open(dir.path()).unwrap().path(), inner);
    // Five records: one to validate, four to train.
    assert_eq!(cifar10::load(dir.path(), Split::Train).unwrap().len(), 4);
    assert_eq!(cifar10::load(&inner, Split::Valid).unwrap().len(), 1);
}

#[test]
fn the_official_lengths_are_no_subset() {
    let dir = tempfile::tempdir().unwrap();
    // Files of zeros, which take no room: airplanes, all black.
    for name in TRAIN_FILES.into_iter().chain([TEST_FILE]) {
        let file = File::create(dir.path().join(name)).unwrap();
        file.set_len((BATCH_RECORDS * RECORD_BYTES) as u64).unwrap();
    }
    assert!(!cifar10::open(dir.path()).unwrap().is_subset());
    for (split, records) in [
        (Split::Train, 45_000),
        (Split::Valid, 5_000),
        (Split::Test, 10_000),
    ] {
        let set = cifar10::load(dir.path(), split).unwrap();
        assert_eq!((set.len(), set.is_subset()), (records, false));
        assert!(set.take(records - 1).is_subset());
    }
}

#[test]
fn absent_folders_and_files_are_named() {
    let empty = tempfile::tempdir().unwrap();
    for dir in [empty.path().to_path_buf(), empty.path().join("nowhere")] {
        let (error, message) = open_error(&dir);
        assert!(matches!(error, DataError::NotFound { .. }), "{error:?}");
        for part in [
            &dir.display().to_string(),
            "test_batch.bin",
            "rezero fetch cifar10",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }
    let dir = folder(1);
    fs::remove_file(dir.path().join("data_batch_2.bin")).unwrap();
    fs::remove_file(dir.path().join("test_batch.bin")).unwrap();
    let open = cifar10::open(dir.path()).unwrap();
    assert!(open.is_subset());
    for (split, lacks) in [
        (Split::Train, "lacks data_batch_2.bin:"),
        (Split::Valid, "lacks data_batch_2.bin:"),
        (Split::Test, "lacks test_batch.bin:"),
    ] {
        assert_eq!(open.records(split), 0);
        let error = open.load(split).unwrap_err();
        assert!(matches!(error, DataError::MissingFiles { .. }), "{error:?}");
        assert!(error.to_string().contains(lacks), "{error}");
    }

    let dir = folder(1);
    fs::remove_file(dir.path().join("data_batch_2.bin")).unwrap();
    fs::create_dir(dir.path().join("data_batch_2.bin")).unwrap();
    let (error, _) = open_error(dir.path());
    assert!(
        matches!(
            error,
            DataError::WrongKind {
                expected: "file",
                ..
            }
        ),
        "{error:?}"
    );
    let (error, _) = open_error(&dir.path().join("data_batch_1.bin"));
    assert!(
        matches!(
            error,
            DataError::WrongKind {
                expected: "folder",
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn a_split_needs_its_own_files_alone() {
    let dir = folder(3);
    let whole = Split::ALL.map(|split| {
        cifar10::load(dir.path(), split)
            .unwrap()
            .fingerprint()
            .unwrap()
    });
    for name in TRAIN_FILES {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    let test = cifar10::load(dir.path(), Split::Test).unwrap();
    assert_eq!(test.fingerprint().unwrap(), whole[2]);
    let dir = folder(3);
    fs::remove_file(dir.path().join(TEST_FILE)).unwrap();
    for (split, whole) in [Split::Train, Split::Valid].into_iter().zip(&whole) {
        let set = cifar10::load(dir.path(), split).unwrap();
        assert_eq!(&set.fingerprint().unwrap(), whole);
    }
}

#[test]
fn impossible_lengths_are_told_with_their_records() {
    let dir = folder(3);
    let batch = dir.path().join("data_batch_4.bin");
    let of_len = |len: u64| {
        File::options()
            .write(true)
            .open(&batch)
            .unwrap()
            .set_len(len)
            .unwrap();
        open_error(dir.path())
    };
    let (error, message) = of_len(2 * 3073 + 17);
    assert!(matches!(
        error,
        DataError::PartialRecord {
            records: 2,
            remainder: 17,
            ..
        }
    ));
    for part in [
        "data_batch_4.bin is 6163 bytes",
        "2 whole records",
        "17 bytes more",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let (error, _) = of_len(0);
    assert!(matches!(error, DataError::EmptyFile { .. }), "{error:?}");
    for extra in [1, 3073] {
        let (error, message) = of_len(30_730_000 + extra);
        assert!(
            matches!(error, DataError::TooManyRecords { .. }),
            "{error:?}"
        );
        assert!(message.contains("30730000"), "{message}");
    }
}

#[test]
fn a_label_out_of_range_is_told_with_its_record() {
    let dir = folder(3);
    let batch = dir.path().join("data_batch_1.bin");
    let mut bytes = fs::read(&batch).unwrap();
    bytes[2 * 3073] = 10;
    fs::write(&batch, bytes).unwrap();
    let message = cifar10::load(dir.path(), Split::Train)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("data_batch_1.bin, record 2: label 10"),
        "{message}"
    );
}

#[test]
fn a_file_that_changes_after_opening_is_noticed() {
    let dir = folder(3);
    let open = cifar10::open(dir.path()).unwrap();
    fs::write(dir.path().join(TEST_FILE), [0; 2 * 3073]).unwrap();
    let error = open.load(Split::Test).unwrap_err();
    assert!(
        matches!(
            error,
            DataError::Changed {
                expected: 3,
                got: 2,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn sets_from_memory_are_checked() {
    let classes: &[&str] = &["a", "b"];
    let shaped = |shape, pixels: usize, labels: &[u8]| {
        let classes = classes.iter().copied();
        ImageSet::from_raw("mine", shape, vec![0; pixels], labels.to_vec(), classes, 3)
    };
    let set = |pixels, labels: &[u8]| shaped(cifar10::SHAPE, pixels, labels);
    let error = set(3071, &[0]).unwrap_err();
    assert!(matches!(error, DataError::PixelCount { .. }), "{error:?}");
    let message = shaped(ImageShape::new(1, 28, 28), 1000, &[0, 1])
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("2 labels need 1568 pixel bytes (1 × 28 × 28 each), got 1000"),
        "{message}"
    );
    // Shapes without a pixel, and those whose size no computer can say.
    for shape in [
        ImageShape::new(0, 32, 32),
        ImageShape::new(3, 0, 32),
        ImageShape::new(3, 32, 0),
    ] {
        let error = shaped(shape, 0, &[0]).unwrap_err();
        assert!(matches!(error, DataError::Setting { .. }), "{error:?}");
    }
    for shape in [
        ImageShape::new(usize::MAX, 2, 1),
        ImageShape::new(1, usize::MAX, usize::MAX),
    ] {
        for labels in [&[0][..], &[0, 1]] {
            let error = shaped(shape, 4, labels).unwrap_err();
            assert!(matches!(error, DataError::PixelCount { .. }), "{error:?}");
        }
    }
    let message = set(2 * 3072, &[0, 2]).unwrap_err().to_string();
    assert!(
        message.contains("mine, record 1: label 2, but there are 2 classes (0 to 1)"),
        "{message}"
    );
    let two = set(2 * 3072, &[0, 1]).unwrap();
    assert!(two.is_subset());
    assert_eq!(two.take(1).labels(), [0]);
    assert_eq!(
        two.take(9).fingerprint().unwrap(),
        two.fingerprint().unwrap()
    );
    assert_ne!(
        two.take(1).fingerprint().unwrap(),
        two.fingerprint().unwrap()
    );
    assert!(two.take(0).is_empty());
}

#[test]
fn splits_have_lower_case_names() {
    for split in Split::ALL {
        assert_eq!(split.to_string().parse::<Split>().unwrap(), split);
    }
    let message = "banana".parse::<Split>().unwrap_err().to_string();
    assert_eq!(
        message,
        "unknown split \"banana\"; known: train, valid, test"
    );
    let message = "vaild".parse::<Split>().unwrap_err().to_string();
    assert!(message.contains("did you mean \"valid\""), "{message}");
}

/// Arbitrary bytes, often of a length near whole records and with good labels.
fn some_bytes() -> impl Strategy<Value = Vec<u8>> {
    let near = (0usize..4, 0usize..3, 0u8..12).prop_map(|(records, extra, label)| {
        (0..records * RECORD_BYTES + extra)
            .map(|i| {
                if i % RECORD_BYTES == 0 {
                    label
                } else {
                    i as u8
                }
            })
            .collect()
    });
    prop_oneof![near, prop::collection::vec(any::<u8>(), 0..7000)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic_the_reader(bytes in some_bytes()) {
        let whole = !bytes.is_empty() && bytes.len() % RECORD_BYTES == 0;
        let labels_good = bytes.chunks(RECORD_BYTES).all(|r| r[0] < 10);
        match cifar10::parse(&bytes, Path::new("x.bin")) {
            Ok((labels, pixels)) => {
                prop_assert!(whole && labels_good);
                prop_assert_eq!(labels.len() * RECORD_BYTES, bytes.len());
                prop_assert_eq!(labels.len() * 3072, pixels.len());
            }
            Err(error) => {
                prop_assert!(!whole || !labels_good);
                prop_assert!(error.to_string().contains("x.bin"));
            }
        }
    }

    #[test]
    fn arbitrary_files_never_panic_the_folder(bytes in some_bytes(), which in 0usize..6) {
        let dir = folder(1);
        let name = TRAIN_FILES.into_iter().chain([TEST_FILE]).nth(which).unwrap();
        fs::write(dir.path().join(name), bytes).unwrap();
        for split in Split::ALL {
            if let Err(error) = cifar10::load(dir.path(), split) {
                prop_assert!(error.to_string().contains(name));
            }
        }
    }
}
