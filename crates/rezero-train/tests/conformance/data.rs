//! Images that lie on the device: the kernel's batches, and runs with them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use burn::tensor::Device;
use rezero_data::{
    Augment, ImageBatch, ImageLoader, ImageSet, ImageShape, LoaderConfig, Normalization,
};
use rezero_kernels::{ByteImages, Cut};
use rezero_train::fit::{Batch, Source};
use rezero_train::recipe::{OnDevice, Run};
use rezero_train::task::on_device;

use super::backend::{device, flex, name, tolerance};
use super::command::{fail, losses, rewind, scratch, succeed};
use super::helpers::{bits, values};

/// Of CIFAR-10, of MNIST, and some whose sides and bytes are odd.
const SHAPES: [ImageShape; 4] = [
    ImageShape::new(3, 32, 32),
    ImageShape::new(1, 28, 28),
    ImageShape::new(2, 5, 7),
    ImageShape::new(4, 9, 3),
];

/// Images whose bytes have no short period. The bytes of an odd number of them are no whole words.
fn images(count: usize, shape: ImageShape) -> ImageSet {
    let pixels = (0..count * shape.bytes()).map(|i| (i * i / 7 % 256) as u8);
    let labels = (0..count).map(|i| (i % 3) as u8).collect();
    let classes = ["a", "b", "c"];
    ImageSet::from_raw("images", shape, pixels.collect(), labels, classes, 0).expect("a set")
}

fn config(shape: ImageShape, augment: &str) -> LoaderConfig {
    let of = |base: f32| (0..shape.channels).map(move |c| base + 0.03 * c as f32);
    LoaderConfig {
        batch_size: 5,
        seed: 11,
        shuffle: augment != "none",
        drop_last: false,
        augment: augment.parse().expect("a list"),
        label_smoothing: 0.0,
        normalization: Normalization {
            mean: of(0.44).collect(),
            std: of(0.21).collect(),
        },
        prefetch: 2,
    }
}

fn run(on_device: OnDevice) -> Run {
    Run {
        on_device,
        ..Run::default()
    }
}

/// Whether images can lie on the device.
fn can() -> bool {
    ByteImages::most_bytes(&device()).is_some()
}

fn loader(set: &ImageSet, config: LoaderConfig, device: &Device) -> ImageLoader {
    ImageLoader::new(set.clone(), config, device).expect("a loader")
}

/// The loader with its images on the device, or as it is if they cannot be there.
fn there(set: &ImageSet, config: LoaderConfig) -> ImageLoader {
    let wanted = match can() {
        true => OnDevice::Always,
        false => OnDevice::Auto,
    };
    let loader = loader(set, config, &device());
    on_device(loader, &run(wanted), &device()).expect("they fit")
}

/// The bits of the images, and the labels.
fn host(batch: ImageBatch) -> (Vec<u32>, Vec<i64>) {
    let targets = batch.targets.into_data().iter::<i64>().collect();
    (bits(batch.images), targets)
}

fn all(loader: &ImageLoader, step: usize, device: &Device) -> Vec<(Vec<u32>, Vec<i64>)> {
    let batches = loader.batches_from(step, device);
    batches.map(|b| host(b.expect("a batch"))).collect()
}

#[cfg_attr(test, test)]
pub fn batches_on_the_device_are_the_hosts() {
    for shape in SHAPES {
        // Three batches, the last of one image.
        let set = images(13, shape).take(11);
        for augment in ["none", "crop:padding=2,flip", "flip,crop:padding=1", "flip"] {
            let config = config(shape, augment);
            let (own, there) = (loader(&set, config.clone(), &flex()), there(&set, config));
            // Whole epochs, and from the middle of one.
            for step in [0, 3, 4, 8] {
                let (want, got) = (all(&own, step, &flex()), all(&there, step, &device()));
                assert_eq!(want.len(), 3 - step % 3);
                assert!(got == want, "{shape}, {augment}, step {step}");
            }
            // The share of a process.
            let rows = |n: usize| n / 3..n;
            let [want, got] = [(own, flex()), (there, device())]
                .map(|(loader, device)| all(&loader.with_rows(rows), 3, &device));
            assert!(got == want, "{shape}, {augment}, rows");
        }
    }
}

/// With CIFAR-10's padding, for training, and on a device under autodiff.
#[cfg_attr(test, test)]
pub fn images_on_the_device_are_trained_on() {
    let shape = SHAPES[0];
    let set = images(20, shape);
    let config = LoaderConfig {
        batch_size: 8,
        label_smoothing: 0.1,
        ..config(shape, &Augment::STANDARD.to_string())
    };
    let (own, there) = (loader(&set, config.clone(), &flex()), there(&set, config));
    let training = device().autodiff();
    let batches = there.batches_from(0, &training);
    let batches: Vec<ImageBatch> = batches.map(|b| b.expect("a batch")).collect();
    let wanted = own.batches_from(0, &flex().autodiff());
    assert_eq!(batches.len(), 3);
    for (got, want) in batches.iter().zip(wanted) {
        let want = want.expect("a batch");
        assert!(got.images.is_autodiff());
        assert_eq!(got.images.device(), training);
        let soft = |batch: &ImageBatch| batch.soft.clone().map(values);
        assert_eq!(soft(got), soft(&want));
        // A part of it, as a replica of the model gets.
        let (part, same) = (got.narrow(1..3), want.narrow(1..3));
        assert_eq!(host(part), host(same));
        assert!(host(got.clone()) == host(want));
    }
    if can() {
        // As for a captured step.
        let owned = batches[0].owned().expect("memory of its own");
        assert!(owned.overwrite(&batches[1]));
        assert_eq!(host(owned), host(batches[1].clone()));
    }
}

#[cfg_attr(test, test)]
pub fn windows_are_checked() {
    let shape = SHAPES[2];
    let (set, config) = (images(3, shape), config(shape, "none"));
    let table = config.normalization.table();
    let of_shape = [shape.channels, shape.height, shape.width];
    let pixels = set.all_pixels().expect("in memory");
    let made = ByteImages::new(pixels, of_shape, &table, &device());
    assert_eq!(made.is_some(), can());
    let Some(made) = made else { return };
    let cut = |image: u32, down: isize, right: isize| Cut {
        image,
        down,
        right,
        flip: false,
    };
    let whole = values(made.cut(&[cut(2, 0, 0)]));
    let byte = |c: usize, at: usize| {
        let plane = shape.height * shape.width;
        table[c][usize::from(pixels[(2 * shape.channels + c) * plane + at])]
    };
    assert_eq!(whole[..3], [0, 1, 2].map(|at| byte(0, at)));
    assert_eq!(whole.last(), Some(&byte(1, 34)));
    // Moved beyond the image.
    for (down, right) in [
        (5, 0),
        (0, -7),
        (isize::MAX, 0),
        (1 << 40, 3),
        (isize::MIN, isize::MAX),
    ] {
        let black = values(made.cut(&[cut(0, down, right)]));
        let (first, second) = black.split_at(shape.height * shape.width);
        assert!(first.iter().all(|value| *value == table[0][0]));
        assert!(second.iter().all(|value| *value == table[1][0]));
    }
    assert_eq!(made.cut(&[]).dims(), [0, 2, 5, 7]);
    let beyond = catch_unwind(AssertUnwindSafe(|| made.cut(&[cut(3, 0, 0)])));
    assert!(beyond.is_err());
}

#[cfg_attr(test, test)]
pub fn images_that_cannot_be_on_the_device_are_not() {
    let shape = SHAPES[0];
    let set = images(400, shape);
    let of = |augment: &str, run: &Run| {
        let loader = loader(&set, config(shape, augment), &device());
        on_device(loader, run, &device())
    };
    let reason =
        |augment: &str, run: &Run| of(augment, run).err().expect("an obstacle").to_string();
    let always = run(OnDevice::Always);
    if !can() {
        let said = reason("none", &always);
        assert!(
            said.contains("run.on_device") && said.contains("no kernel"),
            "{said}"
        );
        return;
    }
    let said = reason("crop,cutout", &always);
    assert!(said.contains("cutout:size=16 does more"), "{said}");
    let small = Run {
        device_memory: 1,
        ..always
    };
    let said = reason("none", &small);
    assert!(
        said.contains("they take 1.2 MB, and run.device_memory=1"),
        "{said}"
    );
    // The host makes the same batches.
    let auto = Run {
        on_device: OnDevice::Auto,
        ..small
    };
    for (augment, run) in [("none", &auto), ("crop,cutout", &run(OnDevice::Auto))] {
        let own = loader(&set, config(shape, augment), &flex());
        let asked = of(augment, run).expect("the loader itself");
        assert!(all(&asked, 79, &device()) == all(&own, 79, &flex()));
    }
}

/// A small network on images, with batches that are whole, cut and augmented.
const RECIPE: [&str; 13] = [
    "cifar10-mlp64",
    "data=shapes",
    "depth=2",
    "width=8",
    "train_items=20",
    "valid_items=20",
    "augment=crop,flip",
    "batch=8",
    "epochs=4",
    "checkpoint_every=4",
    "keep=5",
    "log_every=1",
    "alpha_init=0.3",
];

fn trained(dir: &Path, run: &str, more: &[&str]) -> (Vec<f64>, String) {
    let (name, mut args) = (name(), vec!["train"]);
    args.extend(RECIPE);
    args.extend(["--plain", "--run-dir", run, "--device", &name]);
    args.extend(more);
    let said = succeed(dir, &args);
    (losses(&dir.join(run)), said.err)
}

/// With images on the device or on the host a run has the same losses, captured or not, and resumed within an epoch.
#[cfg_attr(test, test)]
pub fn runs_with_images_on_the_device_are_the_same_runs() {
    let dir = scratch();
    let always = ["on_device=always"];
    if !can() {
        let mut args = vec!["train"];
        args.extend(RECIPE);
        args.extend(["--plain", "--device"]);
        let name = name();
        args.extend([name.as_str(), always[0]]);
        fail(dir.path(), &args, 1, &["`run.on_device`", "no kernel"]);
    }
    let wanted: &[&str] = if can() { &always } else { &[] };
    let (host, said) = trained(dir.path(), "host", &["on_device=never"]);
    assert!(!said.contains("images are prepared"), "{said}");
    let (captured, said) = trained(dir.path(), "captured", wanted);
    assert_eq!(said.contains("replays of a captured step"), can(), "{said}");
    let (alone, _) = trained(dir.path(), "alone", &[wanted, &["capture=false"]].concat());
    rewind(&dir.path().join("captured"), 4);
    // Where the images are may change.
    let (moved, _) = trained(dir.path(), "captured", &["--resume", "on_device=auto"]);
    assert_eq!(host.len(), 12);
    for other in [&captured, &alone, &moved] {
        assert_eq!(other.len(), 12);
        for (step, (got, want)) in other.iter().zip(&host).enumerate() {
            let error = (got / want - 1.0).abs();
            assert!(
                error <= 10.0 * tolerance(),
                "step {}: {got} {want}",
                step + 1
            );
        }
    }
    println!(
        "the bits of the losses are the same: {}",
        captured == host && alone == host
    );
}
