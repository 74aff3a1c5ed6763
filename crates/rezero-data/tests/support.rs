//! What several test files need.

use std::fs;
use std::path::Path;
use std::time::Duration;

use burn::data::dataloader::DataLoader;
use burn::tensor::{Device, TensorData};
use flate2::Compression;
use flate2::write::GzEncoder;
use rezero_data::fetch::{Options, fetch};
use rezero_data::registry::{Entry, Format};
use rezero_data::{
    Augment, DataError, ImageBatch, ImageLoader, ImageSet, ImageShape, LoaderConfig, Normalization,
    Split, Text, TextBatch, cifar10, corpus, shapes,
};
use sha2::{Digest, Sha256};

/// The SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

/// The names in a folder, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A small data set in the official layout, as an archive.
pub fn small_archive() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    shapes::write_cifar_layout(dir.path(), 10, 7).unwrap();
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    tar.append_dir_all(cifar10::FOLDER, dir.path()).unwrap();
    tar.into_inner().unwrap().finish().unwrap()
}

/// A registry entry for `archive`.
pub fn entry_of(archive: &[u8], urls: &[String]) -> Entry {
    Entry {
        name: "small".into(),
        title: "Small CIFAR-10".into(),
        description: "Ten records a batch.".into(),
        archive: "small.tar.gz".into(),
        folder: cifar10::FOLDER.into(),
        format: Format::Cifar10Binary,
        urls: urls.to_vec(),
        bytes: archive.len() as u64,
        sha256: sha256(archive),
        unpacked_bytes: 6 * 10 * 3073,
        member: None,
        licence: "none".into(),
        source: "drawn".into(),
    }
}

/// Options that waste no time on a server of this machine.
pub fn options(dir: &Path) -> Options {
    Options {
        dir: dir.to_path_buf(),
        quiet: true,
        retries: 2,
        backoff: Duration::from_millis(1),
        connect_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(5),
        ..Options::default()
    }
}

/// The error of an archive placed by hand in a folder of its own; nothing else may appear there.
pub fn refusal(entry: &Entry, archive: &[u8]) -> DataError {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join(&entry.archive), archive).unwrap();
    let offline = Options {
        offline: true,
        ..options(&dir)
    };
    let error = fetch(entry, &offline).unwrap_err();
    let lock = format!(".{}.lock", entry.archive);
    assert_eq!(names(&dir), [lock, entry.archive.clone()]);
    assert_eq!(names(root.path()), ["data"]);
    error
}

/// Of images like CIFAR-10's: shuffled, augmented, normalised.
pub fn config(batch_size: usize) -> LoaderConfig {
    LoaderConfig {
        batch_size,
        seed: 5,
        shuffle: true,
        drop_last: false,
        augment: Augment::STANDARD,
        label_smoothing: 0.0,
        normalization: cifar10::normalization_table(),
        prefetch: 0,
    }
}

/// Without shuffle, augmentation or normalisation.
pub fn plain(batch_size: usize, channels: usize) -> LoaderConfig {
    LoaderConfig {
        shuffle: false,
        augment: Augment::NONE,
        normalization: Normalization::identity(channels),
        ..config(batch_size)
    }
}

/// Ten classes.
const CLASSES: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// Records of bytes of no short period; the first two of each are its number, so no two are alike.
pub fn numbered(len: usize, shape: ImageShape) -> ImageSet {
    let bytes = shape.bytes();
    let mut pixels: Vec<u8> = (0..len * bytes).map(|i| (i * i / 7 % 251) as u8).collect();
    for (i, image) in pixels.chunks_exact_mut(bytes).enumerate() {
        image[..2].copy_from_slice(&[(i / 256) as u8, (i % 256) as u8]);
    }
    let labels = (0..len).map(|i| (i % 10) as u8).collect();
    ImageSet::from_raw("numbered", shape, pixels, labels, CLASSES, 0).unwrap()
}

pub fn loader(set: &ImageSet, config: LoaderConfig) -> ImageLoader {
    ImageLoader::new(set.clone(), config, &Device::flex()).unwrap()
}

/// A batch on the host: the bits of its images, and its labels.
pub type HostImages = (Vec<u32>, Vec<i64>);

pub fn host(batch: ImageBatch) -> HostImages {
    let images = batch.images.into_data().try_to_vec::<f32>().unwrap();
    let targets = batch.targets.into_data().iter::<i64>().collect();
    (images.into_iter().map(f32::to_bits).collect(), targets)
}

pub fn epoch(loader: &dyn DataLoader<ImageBatch>) -> Vec<HostImages> {
    loader.iter().map(|batch| host(batch.unwrap())).collect()
}

/// Mean and standard deviation of each channel over `[0, 1]`.
pub fn moments(set: &ImageSet) -> Vec<(f64, f64)> {
    let plane = set.shape().height * set.shape().width;
    let of_channel = |c: usize| {
        let (mut sum, mut square) = (0.0, 0.0);
        for i in 0..set.len() {
            for &byte in &set.pixels(i).unwrap()[c * plane..][..plane] {
                let value = f64::from(byte) / 255.0;
                sum += value;
                square += value * value;
            }
        }
        let n = (set.len() * plane) as f64;
        (sum / n, (square / n - (sum / n).powi(2)).sqrt())
    };
    (0..set.shape().channels).map(of_channel).collect()
}

/// The first `n` bytes of a text of no short period.
pub fn text(n: usize) -> Text {
    let len = (n * 10 / 9 + 2).max(11);
    let bytes = (0..len).map(|i| (i * i / 7 % 251) as u8).collect();
    let text = corpus::bytes("numbers", bytes, Split::Train).unwrap();
    assert!(text.len() >= n);
    text.take(n)
}

/// A batch of a text on the host, row by row.
#[derive(Debug, PartialEq)]
pub struct HostText {
    pub inputs: Vec<Vec<u8>>,
    pub targets: Vec<Vec<u8>>,
    /// Which targets are scored.
    pub scored: Vec<Vec<bool>>,
}

pub fn host_text(batch: TextBatch) -> HostText {
    let dims = batch.inputs.dims();
    assert_eq!(batch.targets.dims(), dims);
    let rows = |data: TensorData| -> Vec<Vec<u8>> {
        let bytes: Vec<u8> = data
            .iter::<i64>()
            .map(|id| id.try_into().unwrap())
            .collect();
        bytes.chunks(dims[1]).map(<[u8]>::to_vec).collect()
    };
    let weights = batch.weights.map(|weights| {
        assert_eq!(weights.dims(), dims);
        weights.into_data().try_to_vec::<f32>().unwrap()
    });
    if let Some(weights) = &weights {
        assert!(weights.iter().all(|&w| w == 0.0 || w == 1.0));
        assert!(weights.contains(&0.0), "None stands for all");
    }
    let weights = weights.unwrap_or(vec![1.0; dims[0] * dims[1]]);
    let scored: Vec<bool> = weights.iter().map(|&w| w == 1.0).collect();
    assert_eq!(scored.iter().filter(|&&s| s).count(), batch.scored);
    HostText {
        inputs: rows(batch.inputs.into_data()),
        targets: rows(batch.targets.into_data()),
        scored: scored.chunks(dims[1]).map(<[bool]>::to_vec).collect(),
    }
}

pub fn batches(loader: &dyn DataLoader<TextBatch>) -> Vec<HostText> {
    loader
        .iter()
        .map(|batch| host_text(batch.unwrap()))
        .collect()
}
