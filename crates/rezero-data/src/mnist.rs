//! MNIST (LeCun, Cortes and Burges) and Fashion-MNIST (Xiao, Rasul and Vollgraf, arXiv 1708.07747):
//! 70,000 grey images of 28 × 28 pixels in ten classes.
//!
//! Both have four files in the format [IDX](crate::idx), plain or compressed with gzip:
//!
//! | file | content |
//! | - | - |
//! | `train-images-idx3-ubyte` | 60,000 images |
//! | `train-labels-idx1-ubyte` | their labels, 0 to 9 |
//! | `t10k-images-idx3-ubyte` | 10,000 test images |
//! | `t10k-labels-idx1-ubyte` | their labels |
//!
//! `.gz` may follow each name, and `.idx3-ubyte` is taken for `-idx3-ubyte`. There is no official
//! validation set. [`Split::Valid`] is the last tenth of the training images: 6,000 of 60,000. A
//! file of fewer images is accepted, and [`ImageSet::is_subset`] then says so.

use std::fs;
use std::path::{Path, PathBuf};

use crate::image_set::{ImageSet, ImageShape};
use crate::normalization::Normalization;
use crate::{DataError, Result, Split, found, idx};

/// The shape of every image.
pub const SHAPE: ImageShape = ImageShape::new(1, 28, 28);

/// The training images of the official sets, those held out to validate included.
pub const TRAIN_IMAGES: usize = 60_000;
/// The test images of the official sets.
pub const TEST_IMAGES: usize = 10_000;

/// One of the data sets in this layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mnist {
    /// The short name.
    pub name: &'static str,
    /// The full name.
    pub title: &'static str,
    /// The ten classes, in label order.
    pub class_names: [&'static str; 10],
}

/// Handwritten digits.
pub const MNIST: Mnist = Mnist {
    name: "mnist",
    title: "MNIST",
    class_names: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
};

/// Pieces of clothing, in the layout of MNIST.
pub const FASHION_MNIST: Mnist = Mnist {
    name: "fashion-mnist",
    title: "Fashion-MNIST",
    class_names: [
        "t-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ],
};

/// The mean and standard deviation of all pixels of MNIST's 60,000 training images, as in PyTorch's
/// example of MNIST.
pub fn normalization_mnist() -> Normalization {
    Normalization {
        mean: vec![0.1307],
        std: vec![0.3081],
    }
}

/// The mean and standard deviation of all pixels of Fashion-MNIST's 60,000 training images.
pub fn normalization_fashion() -> Normalization {
    Normalization {
        mean: vec![0.2860],
        std: vec![0.3530],
    }
}

impl Mnist {
    /// Reads one split from the files in `dir`. Only the two files of the split must be there.
    ///
    /// # Errors
    ///
    /// If a file is absent, is there twice, is damaged, or is longer than the official one, if images are
    /// not 28 × 28, if there are not as many labels as images, or if a label is above 9.
    pub fn load(&self, dir: &Path, split: Split) -> Result<ImageSet> {
        let (part, most) = match split {
            Split::Train | Split::Valid => ("train", TRAIN_IMAGES),
            Split::Test => ("t10k", TEST_IMAGES),
        };
        let images_file = self.find(dir, part, "images", 3)?;
        let labels_file = self.find(dir, part, "labels", 1)?;
        let images = idx::read(&images_file, 3, most * SHAPE.bytes())?;
        let labels = idx::read(&labels_file, 1, most)?;
        let bad = |file: &PathBuf, why: String| DataError::BadIdx {
            file: file.clone(),
            why,
        };
        if images.dims[1..] != [SHAPE.height, SHAPE.width] {
            let [rows, columns] = [images.dims[1], images.dims[2]];
            let why = format!(
                "its images are {rows} × {columns}, those of {} 28 × 28",
                self.title
            );
            return Err(bad(&images_file, why));
        }
        if images.dims[0] != labels.dims[0] {
            let why = format!(
                "it has {} labels, and {} has {} images",
                labels.dims[0],
                images_file.display(),
                images.dims[0]
            );
            return Err(bad(&labels_file, why));
        }
        let classes = self.class_names.len();
        let wrong = labels
            .bytes
            .iter()
            .position(|&label| usize::from(label) >= classes);
        if let Some(record) = wrong {
            return Err(DataError::BadLabel {
                file: labels_file,
                record,
                label: labels.bytes[record].into(),
                classes,
            });
        }
        let (all, bytes) = (images.dims[0], SHAPE.bytes());
        let range = split.of_training(all).unwrap_or(0..all);
        let official = split.of_training(TRAIN_IMAGES);
        let official = official.map_or(TEST_IMAGES, |range| range.len());
        ImageSet::from_raw(
            self.name,
            SHAPE,
            images.bytes[range.start * bytes..range.end * bytes].to_vec(),
            labels.bytes[range].to_vec(),
            self.class_names,
            official,
        )
    }

    /// The one file of that kind.
    fn find(&self, dir: &Path, part: &str, what: &str, axes: usize) -> Result<PathBuf> {
        let kind = format!("idx{axes}-ubyte");
        let names = ["-", "."].map(|dash| format!("{part}-{what}{dash}{kind}"));
        let names = names.map(|name| [name.clone(), name + ".gz"]).concat();
        let there: Vec<PathBuf> = names
            .iter()
            .map(|name| dir.join(name))
            .filter(|file| fs::symlink_metadata(file).is_ok())
            .collect();
        match there.as_slice() {
            [one] if fs::metadata(one).is_ok_and(|meta| !meta.is_file()) => {
                Err(DataError::in_the_way(one.clone(), "file"))
            }
            [one] => Ok(one.clone()),
            [one, other, ..] => Err(DataError::BadIdx {
                file: one.clone(),
                why: format!("{} is there as well: keep one of them", other.display()),
            }),
            [] => Err(DataError::NotFound {
                set: self.title,
                dir: dir.to_path_buf(),
                found: found::folder(dir),
                looked_for: format!("a file {}", names.join(" or ")),
                remedy: format!(
                    "put the four files of {} there, plain or as .gz; `rezero fetch` does not download them",
                    self.title
                ),
            }),
        }
    }
}
