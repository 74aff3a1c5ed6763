//! CIFAR-10, binary version (Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*,
//! 2009): 60,000 colour images of 32 × 32 pixels in ten classes.
//!
//! Five files `data_batch_1.bin` … `data_batch_5.bin` and one `test_batch.bin`, each of at most
//! 10,000 records without any header. A record is 3,073 bytes: the label (0 to 9), then the red,
//! green and blue planes of 1,024 bytes each, row by row
//! ([format](https://www.cs.toronto.edu/~kriz/cifar.html)).
//!
//! There is no official validation set. [`Split::Valid`] is the last tenth of the training
//! records: 5,000 of 50,000.
//!
//! A folder of this layout with fewer records is accepted, and
//! [`ImageSet::is_subset`] then says so. To read a split, only its own files must be there.

use std::path::{Path, PathBuf};

use crate::image_set::{ImageSet, ImageShape};
use crate::normalization::Normalization;
pub use crate::records::Folder;
use crate::records::{RecordLayout, RecordSet};
use crate::{Result, Split};

/// The shape of every image.
pub const SHAPE: ImageShape = ImageShape::new(3, 32, 32);

/// The ten classes, in label order.
pub const CLASS_NAMES: [&str; 10] = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
];

/// The folder's name inside the official archive.
pub const FOLDER: &str = "cifar-10-batches-bin";

/// The training files, in order.
pub const TRAIN_FILES: [&str; 5] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
];

/// The test file.
pub const TEST_FILE: &str = "test_batch.bin";

/// Bytes of one record: a label and 3 × 32 × 32 pixels.
pub const RECORD_BYTES: usize = 1 + SHAPE.bytes();

/// Records of one official batch file.
pub const BATCH_RECORDS: usize = 10_000;

const BATCH: RecordLayout = RecordLayout {
    kind: "CIFAR-10 batch",
    record_bytes: RECORD_BYTES,
    max_records: BATCH_RECORDS,
    remedy: "restore it, or move its folder away and run `rezero fetch cifar10`",
};

/// The constants of the code behind the paper's CIFAR-10 table, in wide use since
/// [kuangliu/pytorch-cifar](https://github.com/kuangliu/pytorch-cifar). Each standard
/// deviation is the mean of the images' own standard deviations, so it is below that of all pixels.
pub fn normalization_table() -> Normalization {
    Normalization {
        mean: vec![0.4914, 0.4822, 0.4465],
        std: vec![0.2023, 0.1994, 0.2010],
    }
}

/// The constants of the ReZero authors' notebook
/// ([tbachlechner/ReZero-examples](https://github.com/tbachlechner/ReZero-examples)): ImageNet's.
pub fn normalization_notebook() -> Normalization {
    Normalization {
        mean: vec![0.485, 0.456, 0.406],
        std: vec![0.229, 0.224, 0.225],
    }
}

/// The mean and standard deviation of all pixels of the 50,000 training images, as used by the
/// paper's super-convergence runs.
pub fn normalization_superconvergence() -> Normalization {
    Normalization {
        mean: vec![0.4914, 0.48216, 0.44653],
        std: vec![0.24703, 0.24349, 0.26159],
    }
}

static SET: RecordSet = RecordSet {
    name: "cifar10",
    title: "CIFAR-10",
    files: "the binary version, data_batch_1.bin … data_batch_5.bin and test_batch.bin,",
    rule: "CIFAR-10 has five data_batch files, to train and to validate, and test_batch.bin",
    restore: "restore the missing files, or move the folder away and run `rezero fetch cifar10`",
    elsewhere: "fetch it with `rezero fetch cifar10`, or point the data folder at a copy; for \
                images of your own see docs/DATA.md, data=folder",
    folder: FOLDER,
    train: &TRAIN_FILES,
    train_layout: BATCH,
    test: TEST_FILE,
    test_layout: BATCH,
    labels: &[CLASS_NAMES.len()],
    class_names: &CLASS_NAMES,
    shape: SHAPE,
};

/// Reads one split. `dir` is the folder of the batch files, or the one above it.
///
/// # Errors
///
/// As [`open`] and [`Folder::load`].
pub fn load(dir: &Path, split: Split) -> Result<ImageSet> {
    open(dir)?.load(split)
}

/// Finds the batch files in `dir` or in `dir/cifar-10-batches-bin` and checks the lengths of those
/// that are there, without reading them.
///
/// # Errors
///
/// If there is no such folder, or if a file is empty, longer than 10,000 records or not a whole
/// number of records.
pub fn open(dir: &Path) -> Result<Folder> {
    SET.open(dir)
}

/// The folder of the six files, which is `dir` or below it; `None` if there is none of them.
pub(crate) fn find(dir: &Path) -> Result<Option<PathBuf>> {
    SET.find(dir)
}

/// Splits the bytes of one batch file into labels and pixels, `(labels, pixels)`; `file` is named
/// in errors.
///
/// # Errors
///
/// If there are no bytes, more than 10,000 records, or not a whole number of them, or if a
/// label is above 9.
pub fn parse(bytes: &[u8], file: &Path) -> Result<(Vec<u8>, Vec<u8>)> {
    SET.parse(bytes, file, BATCH)
}
