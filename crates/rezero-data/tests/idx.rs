//! IDX files, and the sets of MNIST's layout.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use rezero_data::mnist::{FASHION_MNIST, MNIST, SHAPE};
use rezero_data::{DataError, Split, idx};

/// An IDX file of unsigned bytes.
fn file(dims: &[u32], content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dims.len() as u8];
    bytes.extend(dims.iter().flat_map(|length| length.to_be_bytes()));
    bytes.extend_from_slice(content);
    bytes
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// `n` images whose first two bytes are their number.
fn images(n: usize) -> Vec<u8> {
    let mut pixels = vec![7; n * SHAPE.bytes()];
    for (i, image) in pixels.chunks_exact_mut(SHAPE.bytes()).enumerate() {
        image[..2].copy_from_slice(&(i as u16).to_le_bytes());
    }
    file(&[n as u32, 28, 28], &pixels)
}

fn labels(n: usize) -> Vec<u8> {
    let labels: Vec<u8> = (0..n).map(|i| (i * 3 % 10) as u8).collect();
    file(&[n as u32], &labels)
}

fn folder(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

#[test]
fn the_files_are_read_under_each_of_their_names() {
    let plain = folder(&[
        ("train-images-idx3-ubyte", images(50)),
        ("train-labels-idx1-ubyte", labels(50)),
        ("t10k-images.idx3-ubyte", images(20)),
        ("t10k-labels-idx1-ubyte.gz", gz(&labels(20))),
    ]);
    let [train, valid, test] = Split::ALL.map(|split| MNIST.load(plain.path(), split).unwrap());
    assert_eq!([train.len(), valid.len(), test.len()], [45, 5, 20]);
    assert_eq!(train.shape(), SHAPE);
    for (set, first) in [(&train, 0), (&valid, 45), (&test, 0)] {
        for i in 0..set.len() {
            let number = (first + i) as u16;
            assert_eq!(set.pixels(i).unwrap()[..2], number.to_le_bytes());
            assert_eq!(set.label(i), number * 3 % 10);
        }
        assert!(set.is_subset());
    }
    assert_eq!(train.to_string(), "mnist: 45 records, a subset of 54000");

    // The test files alone suffice to score.
    let zipped = folder(&[
        ("t10k-images-idx3-ubyte.gz", gz(&images(20))),
        ("t10k-labels.idx1-ubyte", labels(20)),
    ]);
    let fashion = FASHION_MNIST.load(zipped.path(), Split::Test).unwrap();
    assert_eq!(fashion.fingerprint().unwrap(), test.fingerprint().unwrap());
    assert_eq!(
        (fashion.name(), &*fashion.class_names()[9]),
        ("fashion-mnist", "ankle boot")
    );
    let message = FASHION_MNIST.load(zipped.path(), Split::Train).unwrap_err();
    for part in ["no Fashion-MNIST", "train-images-idx3-ubyte", "four files"] {
        assert!(message.to_string().contains(part), "{message}");
    }
}

#[test]
fn the_official_lengths_are_no_subset() {
    let dir = folder(&[
        ("train-images-idx3-ubyte", images(60_000)),
        ("train-labels-idx1-ubyte", labels(60_000)),
    ]);
    for (split, records) in [(Split::Train, 54_000), (Split::Valid, 6_000)] {
        let set = MNIST.load(dir.path(), split).unwrap();
        assert_eq!((set.len(), set.is_subset()), (records, false));
    }
}

#[test]
fn damaged_files_are_named_with_the_damage() {
    let whole = gz(&images(20));
    let mut label = labels(20);
    label[8 + 3] = 10;
    let (images_name, labels_name) = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte");
    let gz_name = "t10k-images-idx3-ubyte.gz";
    for (files, said) in [
        (
            vec![(images_name, images(20)), (labels_name, labels(19))],
            "t10k-labels-idx1-ubyte: it has 19 labels, and",
        ),
        (
            vec![(images_name, images(20)), (labels_name, label)],
            "record 3: label 10, but there are 10 classes",
        ),
        (
            vec![
                (images_name, file(&[1, 14, 56], &[0; 784])),
                (labels_name, labels(1)),
            ],
            "its images are 14 × 56, those of MNIST 28 × 28",
        ),
        (
            vec![
                (images_name, images(20)[..900].to_vec()),
                (labels_name, labels(20)),
            ],
            "its header says [20, 28, 28], 15680 bytes, and 884 bytes follow",
        ),
        (
            vec![
                (images_name, [images(2), vec![0]].concat()),
                (labels_name, labels(2)),
            ],
            "its header says [2, 28, 28], 1568 bytes, and 1569 bytes follow",
        ),
        (
            vec![(images_name, labels(20)), (labels_name, labels(20))],
            "numbers of type 0x08 along 1 axes, not unsigned bytes (0x08) along 3",
        ),
        (
            vec![
                (images_name, file(&[u32::MAX, u32::MAX, u32::MAX], &[])),
                (labels_name, labels(1)),
            ],
            "more than the 7840000 bytes of an official file",
        ),
        (
            vec![
                (images_name, file(&[10_001, 28, 28], &[])),
                (labels_name, labels(1)),
            ],
            "more than the 7840000 bytes of an official file",
        ),
        (
            vec![
                (gz_name, whole[..whole.len() / 2].to_vec()),
                (labels_name, labels(20)),
            ],
            "it is not a whole gzip file",
        ),
        (
            vec![(gz_name, images(20)), (labels_name, labels(20))],
            "it is not a whole gzip file",
        ),
        (
            vec![
                (images_name, images(20)),
                (gz_name, gz(&images(20))),
                (labels_name, labels(20)),
            ],
            "t10k-images-idx3-ubyte.gz is there as well: keep one of them",
        ),
        (
            vec![(images_name, vec![0, 0, 8]), (labels_name, labels(1))],
            "fewer than a header",
        ),
        (
            vec![(images_name, vec![0, 0, 8, 3, 0]), (labels_name, labels(1))],
            "ends within its header",
        ),
    ] {
        let dir = folder(&files);
        let message = MNIST.load(dir.path(), Split::Test).unwrap_err().to_string();
        assert!(message.contains(said), "no `{said}` in: {message}");
    }
    let dir = folder(&[(labels_name, labels(1))]);
    fs::create_dir(dir.path().join(images_name)).unwrap();
    let error = MNIST.load(dir.path(), Split::Test).unwrap_err();
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
}

/// A file of gigabytes of zeros, compressed to megabytes, is read to the cap and no further.
#[test]
fn a_bomb_is_read_to_its_cap() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&file(&[10_000, 28, 28], &[])).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..64 {
        encoder.write_all(&zeros).unwrap();
    }
    let dir = folder(&[
        ("t10k-images-idx3-ubyte.gz", encoder.finish().unwrap()),
        ("t10k-labels-idx1-ubyte", labels(10_000)),
    ]);
    let message = MNIST.load(dir.path(), Split::Test).unwrap_err().to_string();
    assert!(
        message.contains("7840000 bytes, and 7840001 bytes follow"),
        "{message}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic_the_reader(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            (0u32..4, 0u32..4, prop::collection::vec(any::<u8>(), 0..12))
                .prop_map(|(a, b, content)| file(&[a, b], &content)),
        ],
        axes in 0usize..4,
    ) {
        if let Ok(array) = idx::parse(&bytes, Path::new("x"), axes, 1000) {
            prop_assert_eq!(array.dims.len(), axes);
            prop_assert_eq!(array.dims.iter().product::<usize>(), array.bytes.len());
            let dims: Vec<u32> = array.dims.iter().map(|&length| length as u32).collect();
            prop_assert_eq!(file(&dims, &array.bytes), bytes);
        }
    }
}
