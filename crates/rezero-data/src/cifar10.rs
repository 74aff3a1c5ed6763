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
//! [`ImageSet::is_subset`] then says so.

use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::found;
use crate::image_set::{ImageSet, ImageShape};
use crate::normalization::Normalization;
use crate::records::RecordLayout;
use crate::{DataError, Result, Split};

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

/// A folder whose six files exist and have valid lengths. Made by [`open`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    path: PathBuf,
    train: [usize; 5],
    test: usize,
}

/// Reads one split. `dir` is the folder of the batch files, or the one above it.
///
/// # Errors
///
/// As [`open`], or if a label is above 9 or a file cannot be read.
pub fn load(dir: &Path, split: Split) -> Result<ImageSet> {
    open(dir)?.load(split)
}

/// Finds the six batch files in `dir` or in `dir/cifar-10-batches-bin` and checks their lengths,
/// without reading them.
///
/// # Errors
///
/// If there is no such folder, if some of the files are absent, or if a file is empty,
/// longer than 10,000 records or not a whole number of records.
pub fn open(dir: &Path) -> Result<Folder> {
    let files = || {
        format!(
            "the binary version, {} … {} and {TEST_FILE},",
            TRAIN_FILES[0], TRAIN_FILES[4]
        )
    };
    if fs::metadata(dir).is_ok_and(|meta| !meta.is_dir()) {
        return Err(DataError::WrongKind {
            path: dir.to_path_buf(),
            expected: "folder",
            remedy: format!("CIFAR-10 is a folder of {} unpacked; {ELSEWHERE}", files()),
        });
    }
    find(dir)?.ok_or_else(|| DataError::NotFound {
        set: "CIFAR-10",
        dir: dir.to_path_buf(),
        found: found::folder(dir),
        looked_for: format!("{} there and in its sub-folder {FOLDER}", files()),
        remedy: ELSEWHERE.into(),
    })
}

/// Where CIFAR-10 comes from, and what to do with other images.
const ELSEWHERE: &str = "fetch it with `rezero fetch cifar10`, or point the data folder at a copy; for \
                         images of your own see docs/OWN_MODEL.md";

/// As [`open`], but `None` if neither folder has any of the files.
pub(crate) fn find(dir: &Path) -> Result<Option<Folder>> {
    let Some(path) = locate(dir)? else {
        return Ok(None);
    };
    let missing: Vec<&str> = all_files()
        .filter(|name| fs::symlink_metadata(path.join(name)).is_err())
        .collect();
    if !missing.is_empty() {
        return Err(DataError::MissingFiles {
            dir: path,
            missing: missing.join(", "),
            rule: "CIFAR-10 needs all five data_batch files and test_batch.bin",
            remedy: "restore the missing files, or move the folder away and run `rezero fetch \
                     cifar10`",
        });
    }
    let mut train = [0; 5];
    for (records, name) in train.iter_mut().zip(TRAIN_FILES) {
        *records = records_of(&path.join(name))?;
    }
    let test = records_of(&path.join(TEST_FILE))?;
    Ok(Some(Folder { path, train, test }))
}

/// The folder that holds at least one batch file: `dir` itself, else its sub-folder. `None` if
/// neither does.
fn locate(dir: &Path) -> Result<Option<PathBuf>> {
    for folder in [dir.to_path_buf(), dir.join(FOLDER)] {
        match fs::metadata(&folder) {
            Ok(m) if !m.is_dir() => {
                return Err(DataError::in_the_way(folder, "folder"));
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(DataError::io("look into", &folder)(e)),
        }
        if all_files().any(|name| folder.join(name).exists()) {
            return Ok(Some(folder));
        }
    }
    Ok(None)
}

fn all_files() -> impl Iterator<Item = &'static str> {
    TRAIN_FILES.into_iter().chain([TEST_FILE])
}

/// The number of records of a batch file, by its length.
fn records_of(file: &Path) -> Result<usize> {
    let meta = fs::metadata(file).map_err(DataError::io("look at", file))?;
    if !meta.is_file() {
        return Err(DataError::in_the_way(file.to_path_buf(), "file"));
    }
    BATCH.records(file, meta.len())
}

/// Splits the bytes of one batch file into labels and pixels, `(labels, pixels)`; `file` is named
/// in errors.
///
/// # Errors
///
/// If there are no bytes, more than 10,000 records, or not a whole number of them, or if a
/// label is above 9.
pub fn parse(bytes: &[u8], file: &Path) -> Result<(Vec<u8>, Vec<u8>)> {
    let records = BATCH.records(file, bytes.len() as u64)?;
    let mut labels = Vec::with_capacity(records);
    let mut pixels = Vec::with_capacity(records * SHAPE.bytes());
    parse_into(bytes, file, 0..records, &mut labels, &mut pixels)?;
    Ok((labels, pixels))
}

/// Appends the records in `keep`; the labels of all are checked.
fn parse_into(
    bytes: &[u8],
    file: &Path,
    keep: Range<usize>,
    labels: &mut Vec<u8>,
    pixels: &mut Vec<u8>,
) -> Result<()> {
    for (i, record) in bytes.chunks_exact(RECORD_BYTES).enumerate() {
        let (label, image) = (record[0], &record[1..]);
        if usize::from(label) >= CLASS_NAMES.len() {
            return Err(DataError::BadLabel {
                file: file.to_path_buf(),
                record: i,
                label,
                classes: CLASS_NAMES.len(),
            });
        }
        if keep.contains(&i) {
            labels.push(label);
            pixels.extend_from_slice(image);
        }
    }
    Ok(())
}

impl Folder {
    /// The folder of the batch files.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of records of a split.
    pub fn records(&self, split: Split) -> usize {
        self.range(split).len()
    }

    /// Whether the folder has fewer than the official 50,000 + 10,000 records.
    pub fn is_subset(&self) -> bool {
        self.train.iter().sum::<usize>() < 5 * BATCH_RECORDS || self.test < BATCH_RECORDS
    }

    /// The records of a split, counted over its files: those of training for [`Split::Train`] and
    /// [`Split::Valid`].
    fn range(&self, split: Split) -> Range<usize> {
        let all: usize = self.train.iter().sum();
        // 5,000 of the official 50,000. No file is empty, so at least four records remain.
        let valid = (all / 10).max(1);
        match split {
            Split::Train => 0..all - valid,
            Split::Valid => all - valid..all,
            Split::Test => 0..self.test,
        }
    }

    /// Reads one split into memory.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or has changed since [`open`], or if a label is above 9.
    pub fn load(&self, split: Split) -> Result<ImageSet> {
        let range = self.range(split);
        let mut labels = Vec::with_capacity(range.len());
        let mut pixels = Vec::with_capacity(range.len() * SHAPE.bytes());
        let (files, counts): (&[&str], &[usize]) = match split {
            Split::Test => (&[TEST_FILE], &[self.test]),
            Split::Train | Split::Valid => (&TRAIN_FILES, &self.train),
        };
        let mut first = 0;
        for (name, &count) in files.iter().zip(counts) {
            let keep = range.start.max(first)..range.end.min(first + count);
            if !keep.is_empty() {
                let file = self.path.join(name);
                let bytes = read_batch(&file, count)?;
                let keep = keep.start - first..keep.end - first;
                parse_into(&bytes, &file, keep, &mut labels, &mut pixels)?;
            }
            first += count;
        }
        let official = match split {
            Split::Train => 45_000,
            Split::Valid => 5_000,
            Split::Test => 10_000,
        };
        ImageSet::from_raw("cifar10", SHAPE, pixels, labels, CLASS_NAMES, official)
    }
}

fn read_batch(file: &Path, expected: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(expected * RECORD_BYTES);
    let open = File::open(file).map_err(DataError::io("open", file))?;
    // One byte past the cap tells an over-long file from a full one.
    open.take(BATCH.max_bytes() + 1)
        .read_to_end(&mut bytes)
        .map_err(DataError::io("read", file))?;
    let got = BATCH.records(file, bytes.len() as u64)?;
    if got != expected {
        return Err(DataError::Changed {
            file: file.to_path_buf(),
            expected,
            got,
        });
    }
    Ok(bytes)
}
