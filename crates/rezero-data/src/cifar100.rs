//! CIFAR-100, binary version (Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*,
//! 2009): 60,000 colour images of 32 × 32 pixels in a hundred classes.
//!
//! A file `train.bin` of 50,000 records and a file `test.bin` of 10,000, without any header. A record
//! is 3,074 bytes: the coarse label (0 to 19), the fine label (0 to 99), then the red, green and blue
//! planes of 1,024 bytes each, row by row ([format](https://www.cs.toronto.edu/~kriz/cifar.html)). The
//! fine label is the class; the coarse one is checked and not kept.
//!
//! There is no official validation set. [`Split::Valid`] is the last tenth of the training records:
//! 5,000 of 50,000. A folder with fewer records is accepted, and [`ImageSet::is_subset`] then says so.
//! To read a split, only its own file must be there.

use std::path::{Path, PathBuf};

use crate::image_set::{ImageSet, ImageShape};
use crate::normalization::Normalization;
pub use crate::records::Folder;
use crate::records::{RecordLayout, RecordSet};
use crate::{Result, Split};

/// The shape of every image.
pub const SHAPE: ImageShape = ImageShape::new(3, 32, 32);

/// The hundred fine classes, in label order.
pub const CLASS_NAMES: [&str; 100] = [
    "apple",
    "aquarium_fish",
    "baby",
    "bear",
    "beaver",
    "bed",
    "bee",
    "beetle",
    "bicycle",
    "bottle",
    "bowl",
    "boy",
    "bridge",
    "bus",
    "butterfly",
    "camel",
    "can",
    "castle",
    "caterpillar",
    "cattle",
    "chair",
    "chimpanzee",
    "clock",
    "cloud",
    "cockroach",
    "couch",
    "crab",
    "crocodile",
    "cup",
    "dinosaur",
    "dolphin",
    "elephant",
    "flatfish",
    "forest",
    "fox",
    "girl",
    "hamster",
    "house",
    "kangaroo",
    "keyboard",
    "lamp",
    "lawn_mower",
    "leopard",
    "lion",
    "lizard",
    "lobster",
    "man",
    "maple_tree",
    "motorcycle",
    "mountain",
    "mouse",
    "mushroom",
    "oak_tree",
    "orange",
    "orchid",
    "otter",
    "palm_tree",
    "pear",
    "pickup_truck",
    "pine_tree",
    "plain",
    "plate",
    "poppy",
    "porcupine",
    "possum",
    "rabbit",
    "raccoon",
    "ray",
    "road",
    "rocket",
    "rose",
    "sea",
    "seal",
    "shark",
    "shrew",
    "skunk",
    "skyscraper",
    "snail",
    "snake",
    "spider",
    "squirrel",
    "streetcar",
    "sunflower",
    "sweet_pepper",
    "table",
    "tank",
    "telephone",
    "television",
    "tiger",
    "tractor",
    "train",
    "trout",
    "tulip",
    "turtle",
    "wardrobe",
    "whale",
    "willow_tree",
    "wolf",
    "woman",
    "worm",
];

/// The number of coarse classes.
pub const COARSE_CLASSES: usize = 20;

/// The folder's name inside the official archive.
pub const FOLDER: &str = "cifar-100-binary";

/// The training file.
pub const TRAIN_FILE: &str = "train.bin";

/// The test file.
pub const TEST_FILE: &str = "test.bin";

/// Bytes of one record: two labels and 3 × 32 × 32 pixels.
pub const RECORD_BYTES: usize = 2 + SHAPE.bytes();

const TRAIN: RecordLayout = RecordLayout {
    kind: "CIFAR-100 training file",
    record_bytes: RECORD_BYTES,
    max_records: 50_000,
    remedy: "restore it, or move its folder away and run `rezero fetch cifar100`",
};

const TEST: RecordLayout = RecordLayout {
    kind: "CIFAR-100 test file",
    max_records: 10_000,
    ..TRAIN
};

static SET: RecordSet = RecordSet {
    name: "cifar100",
    title: "CIFAR-100",
    files: "the binary version, train.bin and test.bin,",
    rule: "CIFAR-100 has train.bin, to train and to validate, and test.bin",
    restore: "restore it, or move the folder away and run `rezero fetch cifar100`",
    elsewhere: "fetch it with `rezero fetch cifar100`, or point the data folder at a copy",
    folder: FOLDER,
    train: &[TRAIN_FILE],
    train_layout: TRAIN,
    test: TEST_FILE,
    test_layout: TEST,
    labels: &[COARSE_CLASSES, CLASS_NAMES.len()],
    class_names: &CLASS_NAMES,
    shape: SHAPE,
};

/// The mean and standard deviation of all pixels of the 50,000 training images.
pub fn normalization() -> Normalization {
    Normalization {
        mean: vec![0.50708, 0.48655, 0.44089],
        std: vec![0.26733, 0.25644, 0.27615],
    }
}

/// Reads one split. `dir` is the folder of the two files, or the one above it.
///
/// # Errors
///
/// As [`open`] and [`Folder::load`].
pub fn load(dir: &Path, split: Split) -> Result<ImageSet> {
    open(dir)?.load(split)
}

/// Finds the files in `dir` or in `dir/cifar-100-binary` and checks the lengths of those that are
/// there, without reading them.
///
/// # Errors
///
/// If there is no such folder, or if a file is empty, longer than the official one or not a whole
/// number of records.
pub fn open(dir: &Path) -> Result<Folder> {
    SET.open(dir)
}

/// The folder of the two files, which is `dir` or below it; `None` if there is neither of them.
pub(crate) fn find(dir: &Path) -> Result<Option<PathBuf>> {
    SET.find(dir)
}
