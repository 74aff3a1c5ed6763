//! Data sets of images whose files are records of one length, without a header: labels, then pixels.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::found;
use crate::image_set::{ImageSet, ImageShape};
use crate::{DataError, Result, Split};

/// A layout of files that hold records of one length and nothing else. Readers check it, and errors
/// name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordLayout {
    /// What a file is, such as "CIFAR-10 batch".
    pub kind: &'static str,
    /// Bytes of a record, at least 1.
    pub record_bytes: usize,
    /// Records of an official file; no file may hold more.
    pub max_records: usize,
    /// What to do about a damaged file, such as "restore it".
    pub remedy: &'static str,
}

impl RecordLayout {
    /// The length of an official file.
    pub const fn max_bytes(self) -> u64 {
        (self.record_bytes as u64).saturating_mul(self.max_records as u64)
    }

    /// The number of records of a file of `len` bytes.
    pub(crate) fn records(self, file: &Path, len: u64) -> Result<usize> {
        let record = self.record_bytes as u64;
        let (file, layout) = (|| file.to_path_buf(), self);
        if len == 0 {
            return Err(DataError::EmptyFile {
                file: file(),
                layout,
            });
        }
        if len > self.max_bytes() {
            return Err(DataError::TooManyRecords {
                file: file(),
                len,
                layout,
            });
        }
        let (records, remainder) = (len / record, len % record);
        if remainder > 0 {
            return Err(DataError::PartialRecord {
                file: file(),
                len,
                records,
                remainder,
                layout,
            });
        }
        Ok(records as usize)
    }
}

/// The files of a data set, and their records.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RecordSet {
    /// The short name.
    pub name: &'static str,
    /// The full name.
    pub title: &'static str,
    /// The files in words, for an error that finds none: "the binary version, a.bin and b.bin,".
    pub files: &'static str,
    /// Which files there must be, for an error that finds some.
    pub rule: &'static str,
    /// What to do where some are missing.
    pub restore: &'static str,
    /// Where the set comes from, for an error that finds none.
    pub elsewhere: &'static str,
    /// The folder's name inside the official archive.
    pub folder: &'static str,
    /// The training files, in order.
    pub train: &'static [&'static str],
    /// A training file.
    pub train_layout: RecordLayout,
    /// The test file.
    pub test: &'static str,
    /// Its layout.
    pub test_layout: RecordLayout,
    /// The labels with which a record begins, a byte each, by their number of classes. The last one
    /// is the class; the others are checked.
    pub labels: &'static [usize],
    /// The classes.
    pub class_names: &'static [&'static str],
    /// The shape of every image.
    pub shape: ImageShape,
}

/// A folder that holds files of records, whose lengths are valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    set: &'static RecordSet,
    path: PathBuf,
    /// Records of each training file, if it is there.
    train: Vec<Option<usize>>,
    test: Option<usize>,
}

/// The labels and the pixels of records.
pub(crate) type Parsed = (Vec<u8>, Vec<u8>);

impl RecordSet {
    /// The folder that is `dir` or below it, with the lengths of the files that are there.
    ///
    /// # Errors
    ///
    /// If there is no such folder, or a file is empty, longer than an official one or not a whole
    /// number of records.
    pub fn open(&'static self, dir: &Path) -> Result<Folder> {
        if fs::metadata(dir).is_ok_and(|meta| !meta.is_dir()) {
            return Err(DataError::WrongKind {
                path: dir.to_path_buf(),
                expected: "folder",
                remedy: format!(
                    "{} is a folder of {} unpacked; {}",
                    self.title, self.files, self.elsewhere
                ),
            });
        }
        let path = self.locate(dir)?.ok_or_else(|| DataError::NotFound {
            set: self.title,
            dir: dir.to_path_buf(),
            found: found::folder(dir),
            looked_for: format!("{} there and in its sub-folder {}", self.files, self.folder),
            remedy: self.elsewhere.into(),
        })?;
        self.look_into(path)
    }

    /// As [`open`](Self::open) for a folder that must have all files; `None` if there is none of
    /// them.
    pub fn find(&'static self, dir: &Path) -> Result<Option<PathBuf>> {
        let Some(path) = self.locate(dir)? else {
            return Ok(None);
        };
        let folder = self.look_into(path)?;
        folder.must_have(self.all_files())?;
        Ok(Some(folder.path))
    }

    /// The folder that holds at least one file: `dir` itself, else its sub-folder. `None` if
    /// neither does.
    fn locate(&self, dir: &Path) -> Result<Option<PathBuf>> {
        for folder in [dir.to_path_buf(), dir.join(self.folder)] {
            match fs::metadata(&folder) {
                Ok(m) if !m.is_dir() => {
                    return Err(DataError::in_the_way(folder, "folder"));
                }
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(DataError::io("look into", &folder)(e)),
            }
            if self.all_files().any(|name| folder.join(name).exists()) {
                return Ok(Some(folder));
            }
        }
        Ok(None)
    }

    fn all_files(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.train.iter().copied().chain([self.test])
    }

    fn look_into(&'static self, path: PathBuf) -> Result<Folder> {
        let count = |name: &str, layout: RecordLayout| {
            let file = path.join(name);
            match fs::metadata(&file) {
                // A link to nowhere is not a file that is absent.
                Err(e)
                    if e.kind() == std::io::ErrorKind::NotFound
                        && fs::symlink_metadata(&file).is_err() =>
                {
                    Ok(None)
                }
                Err(e) => Err(DataError::io("look at", &file)(e)),
                Ok(meta) if !meta.is_file() => Err(DataError::in_the_way(file, "file")),
                Ok(meta) => layout.records(&file, meta.len()).map(Some),
            }
        };
        let train = self.train.iter();
        let train = train.map(|name| count(name, self.train_layout));
        Ok(Folder {
            set: self,
            train: train.collect::<Result<_>>()?,
            test: count(self.test, self.test_layout)?,
            path,
        })
    }

    /// Splits the bytes of one file into labels and pixels; `file` is named in errors.
    pub fn parse(&self, bytes: &[u8], file: &Path, layout: RecordLayout) -> Result<Parsed> {
        let records = layout.records(file, bytes.len() as u64)?;
        let mut labels = Vec::with_capacity(records);
        let mut pixels = Vec::with_capacity(records * self.shape.bytes());
        let count = self.labels.len();
        for (i, record) in bytes.chunks_exact(layout.record_bytes).enumerate() {
            for (&label, &classes) in record.iter().zip(self.labels) {
                if usize::from(label) >= classes {
                    return Err(DataError::BadLabel {
                        file: file.to_path_buf(),
                        record: i,
                        label: label.into(),
                        classes,
                    });
                }
            }
            labels.push(record[count - 1]);
            pixels.extend_from_slice(&record[count..]);
        }
        Ok((labels, pixels))
    }
}

impl Folder {
    /// The folder of the files.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of records of a split; 0 if one of its files is absent.
    pub fn records(&self, split: Split) -> usize {
        let training = || self.train.iter().copied().sum::<Option<usize>>();
        match split {
            Split::Test => self.test.unwrap_or_default(),
            Split::Train | Split::Valid => training()
                .and_then(|all| split.of_training(all))
                .map_or(0, |range| range.len()),
        }
    }

    /// Whether the folder has fewer records than the official set.
    pub fn is_subset(&self) -> bool {
        Split::ALL
            .into_iter()
            .any(|split| self.records(split) < self.official(split))
    }

    fn official(&self, split: Split) -> usize {
        let all = self.set.train.len() * self.set.train_layout.max_records;
        let range = split.of_training(all);
        range.map_or(self.set.test_layout.max_records, |range| range.len())
    }

    fn must_have(&self, files: impl Iterator<Item = &'static str>) -> Result<()> {
        let absent = |name: &&str| fs::symlink_metadata(self.path.join(name)).is_err();
        let missing: Vec<&str> = files.filter(absent).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(DataError::MissingFiles {
            dir: self.path.clone(),
            missing: missing.join(", "),
            rule: self.set.rule,
            remedy: self.set.restore,
        })
    }

    /// Reads one split into memory. Only its own files must be there.
    ///
    /// # Errors
    ///
    /// If a file is absent, cannot be read or has changed since the folder was opened, or if a label
    /// is not that of a class.
    pub fn load(&self, split: Split) -> Result<ImageSet> {
        let set = self.set;
        let (files, counts, layout) = match split {
            Split::Test => (&[set.test][..], &[self.test][..], set.test_layout),
            Split::Train | Split::Valid => (set.train, self.train.as_slice(), set.train_layout),
        };
        self.must_have(files.iter().copied())?;
        let all: usize = counts.iter().flatten().sum();
        let range = split.of_training(all).unwrap_or(0..all);
        let mut labels = Vec::with_capacity(range.len());
        let mut pixels = Vec::with_capacity(range.len() * set.shape.bytes());
        let mut first = 0;
        for (name, count) in files.iter().zip(counts) {
            let count = count.unwrap_or_default();
            let keep = range.start.max(first)..range.end.min(first + count);
            if !keep.is_empty() {
                let file = self.path.join(name);
                let (some_labels, some_pixels) = read(set, &file, count, layout)?;
                let keep = keep.start - first..keep.end - first;
                let bytes = set.shape.bytes();
                labels.extend_from_slice(&some_labels[keep.clone()]);
                pixels.extend_from_slice(&some_pixels[keep.start * bytes..keep.end * bytes]);
            }
            first += count;
        }
        let (names, official) = (set.class_names.iter().copied(), self.official(split));
        ImageSet::from_raw(set.name, set.shape, pixels, labels, names, official)
    }
}

fn read(set: &RecordSet, file: &Path, expected: usize, layout: RecordLayout) -> Result<Parsed> {
    let mut bytes = Vec::with_capacity(expected * layout.record_bytes);
    let open = File::open(file).map_err(DataError::io("open", file))?;
    // One byte past the cap tells an over-long file from a full one.
    open.take(layout.max_bytes() + 1)
        .read_to_end(&mut bytes)
        .map_err(DataError::io("read", file))?;
    let got = layout.records(file, bytes.len() as u64)?;
    if got != expected {
        return Err(DataError::Changed {
            file: file.to_path_buf(),
            expected,
            got,
        });
    }
    set.parse(&bytes, file, layout)
}
