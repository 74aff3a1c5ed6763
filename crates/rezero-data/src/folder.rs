//! A folder of class folders of PNG and JPEG files: `cat/1.png`, `dog/2.jpg`.
//!
//! The classes are the names of the class folders, in order. The folder may be split in advance: if
//! all its sub-folders have the names `train`, `val` (or `valid`, or `validation`) and `test`, each of
//! them holds class folders. Where there is no `val` or `test`, a share of the other images is held
//! out, [`Options::valid_share`] and [`Options::test_share`]: of each class those images whose names,
//! hashed with the seed, come first. An image that is added later moves few of the others.
//!
//! Records are in the order of their files' names, whatever their class, and of equal names in the
//! order of the classes. So numbers as names, `00000.png` and so on, decide the order.
//!
//! The images are decoded when the folder is read, and held in memory if they fit ([`Options::memory`]).
//! If not, each is decoded once to check it and then again whenever it is asked for, by the
//! [loader](crate::ImageLoader) on all cores: the same pixels, or an error that names a file that has
//! changed since.
//!
//! Names that begin with a dot are ignored, and files that are no images. Refused are images in other
//! formats, folders in class folders, class folders without an image, two classes whose names differ in
//! case alone, a class whose name is not UTF-8, and links that lead out of the folder.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::files::{self, Files};
use crate::image_set::{ImageSet, ImageShape, MAX_CLASSES, Pixels};
use crate::picture::{self, Preparation, Sizing};
use crate::{DataError, Result, Split, found};

/// The most images of a folder.
pub const MAX_IMAGES: usize = 1 << 24;

/// The names of the folders of a split; the first is the usual one.
const TRAIN: &[&str] = &["train"];
const VALID: &[&str] = &["val", "valid", "validation"];
const TEST: &[&str] = &["test"];

/// The ends of the names of images that are read.
const READ: [&str; 3] = ["png", "jpg", "jpeg"];

/// How a folder is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The channels and the size of every image. [`Sizing::Any`]: the size of the first one, which
    /// all must have.
    pub preparation: Preparation,
    /// The classes, in label order. None: those of the folder.
    pub class_names: Vec<String>,
    /// The share of the training images of each class that is held out to validate, where there is no
    /// folder `val`; 0: none.
    pub valid_share: f64,
    /// The share of the training images of each class that is held out to test, where there is no
    /// folder `test`; 0: none.
    pub test_share: f64,
    /// The seed of the choice.
    pub split_seed: u64,
    /// Whether corrupt files are left out; else they are an error.
    pub skip_corrupt: bool,
    /// The most images to decode, the first of the split; 0: all.
    pub limit: usize,
    /// The most bytes that the decoded images may take in memory, if there is a limit. Images that
    /// take more are decoded each time that they are asked for.
    pub memory: Option<u64>,
}

/// The images of a split.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The images.
    pub set: ImageSet,
    /// The corrupt files that were left out.
    pub skipped: Vec<PathBuf>,
}

/// The files of a split, in the order of the records.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The classes, in label order.
    pub class_names: Vec<String>,
    /// The folder of the class folders.
    root: PathBuf,
    files: Vec<Entry>,
}

/// A file of a class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    name: Box<OsStr>,
    label: u16,
}

/// The files of a split and what is to be made of them, before they are decoded.
#[derive(Debug)]
pub struct Found<'a> {
    options: &'a Options,
    listing: Listing,
    name: String,
    split: Split,
    preparation: Preparation,
    shape: ImageShape,
    skipped: Vec<PathBuf>,
}

/// Reads and decodes one split of the folder `dir`, on all cores: [`find`], and [`Found::load`].
///
/// # Errors
///
/// As these.
pub fn load(dir: &Path, split: Split, options: &Options) -> Result<Loaded> {
    find(dir, split, options)?.load()
}

/// Lists the files of one split of the folder `dir`, and decodes those that tell the size of the
/// images, if it is not given.
///
/// # Errors
///
/// As [`list`] and [`picture::read`]. An error names its file.
pub fn find<'a>(dir: &Path, split: Split, options: &'a Options) -> Result<Found<'a>> {
    let mut listing = list(dir, split, options)?;
    if options.limit > 0 {
        listing.files.truncate(options.limit);
    }
    // A name for people, of any folder that a path may mean.
    let full = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
    let name = full.file_name().unwrap_or(OsStr::new("folder"));
    let name = name.to_string_lossy().into_owned();

    let mut skipped = Vec::new();
    let preparation = match options.preparation.sizing {
        Sizing::Any => listing.sized(options, &mut skipped)?,
        Sizing::Exactly { .. } | Sizing::Stretch { .. } | Sizing::Crop { .. } => {
            options.preparation
        }
    };
    let (height, width) = preparation.sizing.size().unwrap_or_default();
    Ok(Found {
        options,
        listing,
        name,
        split,
        preparation,
        shape: ImageShape::new(preparation.channels, height, width),
        skipped,
    })
}

impl Found<'_> {
    /// The number of images.
    pub fn images(&self) -> usize {
        self.listing.len()
    }

    /// The bytes that they take in memory. A product that exceeds `u64` is [`u64::MAX`].
    pub fn bytes(&self) -> u64 {
        (self.shape.bytes() as u64).saturating_mul(self.listing.len() as u64)
    }

    /// Whether they are held in memory: whether their bytes are at most [`Options::memory`].
    pub fn fits(&self) -> bool {
        self.options
            .memory
            .is_none_or(|limit| self.bytes() <= limit)
    }

    /// Decodes the images: into memory if they fit, else to check them.
    ///
    /// # Errors
    ///
    /// As [`picture::read`], of the first file that cannot be read, and if a class is left without an
    /// image to train on.
    pub fn load(self) -> Result<Loaded> {
        let (bytes, skip) = (self.shape.bytes(), self.options.skip_corrupt);
        let fits = self.fits();
        let Self {
            options,
            listing,
            name,
            split,
            preparation,
            shape,
            mut skipped,
        } = self;
        let Listing {
            class_names, root, ..
        } = &listing;
        let (class_names, root) = (class_names.clone(), root.clone());
        let mut labels: Vec<u16> = listing.labels().collect();
        let pixels = match fits {
            true => {
                let read = |i: usize| picture::read(&listing.path(i), &preparation);
                let (mut pixels, failed) = files::decode(listing.len(), bytes, read, skip)?;
                close_gaps(&mut labels, 1, &failed);
                close_gaps(&mut pixels, bytes, &failed);
                skipped.extend(failed.iter().map(|&i| listing.path(i)));
                Pixels::Held(pixels)
            }
            false => {
                let (files, corrupt) = Files::survey(listing, shape, preparation, skip)?;
                labels = files.labels();
                skipped.extend(corrupt);
                Pixels::Files(files)
            }
        };
        if labels.is_empty() {
            return Err(no_whole_image(&root));
        }
        if split == Split::Train && options.limit == 0 {
            let mut seen = vec![false; class_names.len()];
            for &label in &labels {
                seen[usize::from(label)] = true;
            }
            if let Some(class) = seen.iter().position(|seen| !seen) {
                let name = &class_names[class];
                return Err(layout(
                    &root,
                    format!("has no whole training image of the class {name:?}"),
                    "add some, or hold out fewer (valid_share, test_share)",
                ));
            }
        }
        let set = ImageSet::of(name, shape, pixels, labels, class_names, 0)?;
        Ok(Loaded { set, skipped })
    }
}

/// Lists the files of one split of the folder `dir`, without opening them.
///
/// # Errors
///
/// If `dir` is not laid out as the [module](self) says, or does not hold the split; or if the classes
/// are not among [`Options::class_names`].
pub fn list(dir: &Path, split: Split, options: &Options) -> Result<Listing> {
    let (valid, test) = (options.valid_share, options.test_share);
    let require = DataError::require;
    require(
        (0.0..1.0).contains(&valid) && (0.0..1.0).contains(&test) && valid + test < 1.0,
        "valid_share and test_share",
        "at least 0, and their sum below 1",
        &format_args!("{valid} and {test}"),
    )?;
    let folder = Folder::open(dir)?;
    let (root, shares) = folder.place(split, valid, test)?;
    let mut class_names = options.class_names.clone();
    if class_names.is_empty() {
        // Validation and test images have the labels of the training images.
        let known = folder.part(TRAIN)?.unwrap_or_else(|| root.clone());
        class_names = folder.classes(&known)?;
    }
    let labels: BTreeMap<&str, u16> = class_names.iter().map(String::as_str).zip(0..).collect();
    let mut files = Vec::new();
    for class in folder.classes(&root)? {
        let Some(&label) = labels.get(class.as_str()) else {
            let (first, last) = (class_names.first(), class_names.last());
            let (first, last) = (
                first.map_or("", String::as_str),
                last.map_or("", String::as_str),
            );
            let found = format!(
                "holds a folder {class:?}, which is none of the {} classes, {first:?} to {last:?}",
                class_names.len()
            );
            return Err(layout(
                &root,
                found,
                "give its images a class that there is, or move it away",
            ));
        };
        let mut names = folder.images(&root.join(&class))?;
        if let Some((valid, test)) = shares {
            names = chosen(names, &class, split, (valid, test), options.split_seed);
        }
        files.extend(names.into_iter().map(|name| Entry { name, label }));
        if files.len() > MAX_IMAGES {
            let found = format!("holds more than {MAX_IMAGES} images");
            return Err(layout(&root, found, "use a part of them"));
        }
    }
    if files.is_empty() {
        let found =
            format!("has too few images for a share of {valid} to validate and {test} to test");
        return Err(layout(&root, found, "give larger shares"));
    }
    files.sort_unstable_by(|a, b| {
        let (this, other) = (a.name.as_encoded_bytes(), b.name.as_encoded_bytes());
        this.cmp(other).then(a.label.cmp(&b.label))
    });
    Ok(Listing {
        class_names,
        root,
        files,
    })
}

impl Listing {
    /// The number of files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The path of file `i`.
    ///
    /// # Panics
    ///
    /// If `i` is not below [`len`](Self::len).
    pub fn path(&self, i: usize) -> PathBuf {
        let Entry { name, label } = &self.files[i];
        let class = &self.class_names[usize::from(*label)];
        self.root.join(class).join(&**name)
    }

    /// The preparation with the size of the first image. Corrupt files before it are left out, if that
    /// is allowed.
    fn sized(&mut self, options: &Options, skipped: &mut Vec<PathBuf>) -> Result<Preparation> {
        for i in 0..self.len() {
            let path = self.path(i);
            match picture::read(&path, &options.preparation) {
                Ok(picture) => {
                    self.files.drain(..i);
                    let ImageShape { height, width, .. } = picture.shape;
                    return Ok(Preparation {
                        sizing: Sizing::Exactly { height, width },
                        ..options.preparation
                    });
                }
                Err(DataError::CorruptPicture { .. }) if options.skip_corrupt => skipped.push(path),
                Err(e) => return Err(e),
            }
        }
        Err(no_whole_image(&self.root))
    }

    /// The label of each file.
    pub(crate) fn labels(&self) -> impl Iterator<Item = u16> {
        self.files.iter().map(|file| file.label)
    }

    /// Leaves out the files at the places `gaps`, which rise.
    pub(crate) fn leave_out(&mut self, gaps: &[usize]) {
        let mut gaps = gaps.iter().peekable();
        let mut at = 0..;
        self.files
            .retain(|_| gaps.next_if(|gap| at.next() == Some(**gap)).is_none());
    }
}

/// Removes the items at the places `gaps`, which rise; an item is `size` elements.
fn close_gaps<T: Copy>(items: &mut Vec<T>, size: usize, gaps: &[usize]) {
    if gaps.is_empty() {
        return;
    }
    let mut to = 0;
    let mut gaps = gaps.iter().peekable();
    for i in 0..items.len() / size {
        if gaps.next_if(|gap| **gap == i).is_none() {
            items.copy_within(i * size..(i + 1) * size, to);
            to += size;
        }
    }
    items.truncate(to);
}

/// The names of a class that belong to a split by the shares.
fn chosen(
    names: Vec<Box<OsStr>>,
    class: &str,
    split: Split,
    (valid, test): (f64, f64),
    seed: u64,
) -> Vec<Box<OsStr>> {
    let n = names.len();
    let count = |share: f64| (share * n as f64).round() as usize;
    let valid = count(valid).min(n);
    let test = count(test).min(n - valid);
    let mut ranked: Vec<([u8; 32], Box<OsStr>)> = names
        .into_iter()
        .map(|name| {
            let mut hasher = Sha256::new();
            hasher.update(seed.to_le_bytes());
            hasher.update(class);
            hasher.update([0]);
            hasher.update(name.as_encoded_bytes());
            (hasher.finalize().into(), name)
        })
        .collect();
    ranked.sort_unstable();
    let range = match split {
        Split::Valid => 0..valid,
        Split::Test => valid..valid + test,
        Split::Train => valid + test..n,
    };
    let names = ranked.into_iter().map(|(_, name)| name);
    names.skip(range.start).take(range.len()).collect()
}

fn no_whole_image(dir: &Path) -> DataError {
    layout(
        dir,
        "holds no whole image of the split".to_owned(),
        "add some",
    )
}

/// [`DataError::Layout`].
fn layout(dir: &Path, found: String, remedy: &str) -> DataError {
    DataError::Layout {
        dir: dir.to_path_buf(),
        found,
        remedy: remedy.to_owned(),
    }
}

/// A folder of images.
struct Folder {
    dir: PathBuf,
    /// Where it really is: links below it may not lead elsewhere.
    real: PathBuf,
    /// Whether its sub-folders are the parts of the data set.
    is_split: bool,
}

impl Folder {
    fn open(dir: &Path) -> Result<Self> {
        let meta = fs::metadata(dir).map_err(DataError::io("look into", dir))?;
        if !meta.is_dir() {
            return Err(DataError::WrongKind {
                path: dir.to_path_buf(),
                expected: "folder",
                remedy: "images are read from a folder with a folder for each class".into(),
            });
        }
        let real = fs::canonicalize(dir).map_err(DataError::io("look into", dir))?;
        let mut folder = Self {
            dir: dir.to_path_buf(),
            real,
            is_split: false,
        };
        let names = folder.classes(dir)?;
        let of_a_part = |name: &String| {
            let parts = [TRAIN, VALID, TEST];
            parts.iter().any(|part| part.contains(&name.as_str()))
        };
        folder.is_split = names.iter().all(of_a_part);
        Ok(folder)
    }

    /// The folder of a part, if there is one.
    fn part(&self, names: &[&str]) -> Result<Option<PathBuf>> {
        if !self.is_split {
            return Ok(None);
        }
        let there = names.iter().map(|name| self.dir.join(name));
        let there: Vec<PathBuf> = there.filter(|path| path.is_dir()).collect();
        match there.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one.clone())),
            [one, other, ..] => {
                let found = format!("holds {} and {}", one.display(), other.display());
                Err(layout(&self.dir, found, "keep one of them"))
            }
        }
    }

    /// The folder of the classes of a split, and the shares of them that are held out, if any are.
    fn place(&self, split: Split, valid: f64, test: f64) -> Result<(PathBuf, Option<(f64, f64)>)> {
        let parts = [(VALID, "valid_share", valid), (TEST, "test_share", test)];
        let dir = &self.dir;
        let pool = match self.is_split {
            true => self.part(TRAIN)?,
            false => Some(dir.clone()),
        };
        let own = match split {
            Split::Train => None,
            Split::Valid => Some(parts[0]),
            Split::Test => Some(parts[1]),
        };
        if split == Split::Train {
            for (names, key, share) in parts {
                if share > 0.0 && self.part(names)?.is_some() {
                    let found = format!(
                        "holds a folder {}, so that data.{key}={share} has no effect",
                        names[0]
                    );
                    return Err(layout(
                        dir,
                        found,
                        "leave the key out, or move the folder away",
                    ));
                }
            }
        }
        if let Some((names, key, share)) = own {
            if let Some(part) = self.part(names)? {
                return Ok((part, None));
            }
            if share == 0.0 {
                let found = format!("holds no folder {} of class folders", names[0]);
                let remedy = format!(
                    "add it, or hold out a share of the training images, for example data.{key}=0.1"
                );
                return Err(layout(dir, found, &remedy));
            }
        }
        let pool = pool.ok_or_else(|| {
            layout(
                dir,
                "holds no folder train of class folders".to_owned(),
                "add it",
            )
        })?;
        // A part that is a folder takes nothing from the training images.
        let [valid, test] =
            [(VALID, valid), (TEST, test)].map(|(names, share)| match self.part(names) {
                Ok(Some(_)) => 0.0,
                Ok(None) | Err(_) => share,
            });
        Ok((pool, (valid + test > 0.0).then_some((valid, test))))
    }

    /// The names of the sub-folders of `dir`, in order.
    fn classes(&self, dir: &Path) -> Result<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        self.each(dir, |path, name, is_dir| {
            if !is_dir {
                let Some(end) = found::image_end(&name.to_string_lossy()) else {
                    return Ok(());
                };
                let found = format!(
                    "holds the image {} (.{end}) outside of a class folder",
                    path.display()
                );
                return Err(layout(dir, found, "put it into the folder of its class"));
            }
            let Some(name) = name.to_str() else {
                let found = format!(
                    "holds a class folder whose name is not UTF-8, {}",
                    path.display()
                );
                return Err(layout(dir, found, "rename it"));
            };
            names.push(name.to_owned());
            Ok(())
        })?;
        if names.is_empty() {
            return Err(DataError::NotFound {
                set: "folder of images",
                dir: dir.to_path_buf(),
                found: found::folder(dir),
                looked_for: "folders of PNG or JPEG files, one for each class, or folders train, val and test \
                             of such folders"
                    .into(),
                remedy: "put images there, or name another folder with --data-dir".into(),
            });
        }
        if names.len() > MAX_CLASSES {
            let found = format!(
                "holds {} class folders, more than {MAX_CLASSES}",
                names.len()
            );
            return Err(layout(dir, found, "join some"));
        }
        names.sort_unstable();
        let mut lower: Vec<(String, &String)> =
            names.iter().map(|n| (n.to_lowercase(), n)).collect();
        lower.sort_unstable();
        if let Some([a, b]) = lower.array_windows().find(|[a, b]| a.0 == b.0) {
            let found = format!(
                "holds the classes {:?} and {:?}, which differ in case alone",
                a.1, b.1
            );
            return Err(layout(
                dir,
                found,
                "join or rename them: some file systems take them for one",
            ));
        }
        Ok(names)
    }

    /// The names of the images in a class folder, at least one, in any order.
    fn images(&self, class: &Path) -> Result<Vec<Box<OsStr>>> {
        let mut names = Vec::new();
        self.each(class, |path, name, is_dir| {
            if is_dir {
                let found = format!("holds a folder, {}", path.display());
                return Err(layout(
                    class,
                    found,
                    "a class folder holds images directly: move it away",
                ));
            }
            match found::image_end(&name.to_string_lossy()) {
                Some(end) if READ.contains(&end.as_str()) => names.push(name.into()),
                Some(end) => {
                    return Err(DataError::PictureKind {
                        file: path.to_path_buf(),
                        found: format!("an image in the format {end}"),
                    });
                }
                None => {}
            }
            Ok(())
        })?;
        match names.is_empty() {
            true => {
                let found = "holds no image, so that its class has none".to_owned();
                Err(layout(
                    class,
                    found,
                    "add PNG or JPEG files, or remove the folder",
                ))
            }
            false => Ok(names),
        }
    }

    /// Calls `look` with the path and the name of each entry of a folder, and whether it is a folder.
    /// Hidden entries are left out.
    fn each(
        &self,
        dir: &Path,
        mut look: impl FnMut(&Path, &OsStr, bool) -> Result<()>,
    ) -> Result<()> {
        for entry in fs::read_dir(dir).map_err(DataError::io("look into", dir))? {
            let entry = entry.map_err(DataError::io("look into", dir))?;
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            let mut kind = entry.file_type().map_err(DataError::io("look at", &path))?;
            if kind.is_symlink() {
                let real = fs::canonicalize(&path).map_err(DataError::io("follow", &path))?;
                if !real.starts_with(&self.real) {
                    let found = format!(
                        "holds a link out of the folder, {} to {}",
                        path.display(),
                        real.display()
                    );
                    return Err(layout(dir, found, "put the file or folder itself there"));
                }
                kind = fs::metadata(&path)
                    .map_err(DataError::io("look at", &path))?
                    .file_type();
            }
            if !kind.is_dir() && !kind.is_file() {
                let found = format!("holds a pipe, a socket or a device, {}", path.display());
                return Err(layout(dir, found, "move it away"));
            }
            look(&path, &name, kind.is_dir())?;
        }
        Ok(())
    }
}
