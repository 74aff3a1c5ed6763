//! Augmentations against Pillow, closed forms and their seeds.

use std::collections::HashSet;
use std::io::Read;

use burn::data::dataloader::DataLoader;
use burn::tensor::Device;
use flate2::read::GzDecoder;
use proptest::prelude::*;
use rezero_data::{
    Augment, Augmentation, Cutout, ImageBatch, ImageLoader, ImageSet, ImageShape, LoaderConfig,
    Mixup, Normalization, Operation, RandAugment,
};

use crate::support::{config, loader, numbered, plain};

const SHAPE: ImageShape = ImageShape::new(3, 12, 9);

fn list(text: &str) -> Augment {
    text.parse().unwrap()
}

/// Unnormalised images with `augment`, in the order of the set.
fn unshuffled(augment: &str, batch_size: usize, channels: usize) -> LoaderConfig {
    LoaderConfig {
        augment: list(augment),
        ..plain(batch_size, channels)
    }
}

/// The bytes of each image of an epoch whose images were not normalised.
fn bytes(loader: &ImageLoader, epoch: u64) -> Vec<Vec<u8>> {
    let size = loader.set().shape().bytes();
    let mut images = Vec::new();
    for batch in loader.epoch(epoch, 0) {
        let values = batch.unwrap().images.into_data();
        let values = values.try_to_vec::<f32>().unwrap();
        let byte = |value: &f32| (255.0 * value).round() as u8;
        images.extend(
            values
                .chunks(size)
                .map(|image| image.iter().map(byte).collect()),
        );
    }
    images
}

fn numbers(batch: &ImageBatch) -> (Vec<f32>, Vec<i64>, Option<Vec<f32>>) {
    let floats = |data: burn::tensor::TensorData| data.try_to_vec::<f32>().unwrap();
    (
        floats(batch.images.clone().into_data()),
        batch.targets.clone().into_data().iter::<i64>().collect(),
        batch.soft.clone().map(|soft| floats(soft.into_data())),
    )
}

/// The operations of RandAugment to the bit, see `augmentations/generate.py`.
#[test]
fn the_operations_are_pillows() {
    const MAGNITUDES: [usize; 5] = [0, 1, 9, 16, 30];
    let mut golden = Vec::new();
    GzDecoder::new(&include_bytes!("augmentations/rand_augment.bin.gz")[..])
        .read_to_end(&mut golden)
        .unwrap();
    let mut golden = golden.as_slice();
    let mut changed = HashSet::new();
    for channels in [3, 1] {
        let shape = ImageShape::new(channels, 23, 26);
        let image = golden.split_off(..shape.bytes()).unwrap();
        for operation in Operation::ALL {
            for magnitude in MAGNITUDES {
                for negative in [false, true] {
                    let expected = golden.split_off(..shape.bytes()).unwrap();
                    let mut found = image.to_vec();
                    operation
                        .apply(&mut found, shape, magnitude, negative)
                        .unwrap();
                    let wrong = found.iter().zip(expected).filter(|(a, b)| a != b).count();
                    assert_eq!(
                        wrong, 0,
                        "bytes differ: {operation:?} {shape} {magnitude} {negative}"
                    );
                    if found != image {
                        changed.insert((channels, operation));
                    }
                }
            }
        }
    }
    assert!(golden.is_empty());
    // All but the identity, and Color of the grey image, have an effect on these images.
    assert_eq!(changed.len(), 13 + 12);
}

#[test]
fn an_operation_needs_grey_or_colours() {
    let apply = |channels, magnitude, bytes: usize| {
        let shape = ImageShape::new(channels, 3, 4);
        let error = Operation::Rotate
            .apply(&mut vec![0; bytes], shape, magnitude, false)
            .unwrap_err();
        error.to_string()
    };
    assert!(apply(2, 3, 24).contains("of 1 or 3 channels"));
    assert!(apply(3, 31, 36).contains("at most 30, got 31"));
    assert!(apply(3, 30, 35).contains("must be 36, as of 3 × 3 × 4, got 35"));
    for text in ["rand-augment", "crop:padding=3,jitter"] {
        let set = numbered(3, ImageShape::new(4, 8, 8));
        let error = ImageLoader::new(set, unshuffled(text, 2, 4), &Device::flex());
        let error = error.err().unwrap().to_string();
        assert!(
            error.contains("of 1 or 3 channels") && error.contains("4"),
            "{error}"
        );
    }
}

#[test]
fn a_list_survives_its_text() {
    let all = Augment::new(Augmentation::all()).unwrap();
    assert_eq!(
        all.to_string(),
        "crop:padding=4,flip,cutout:size=16,jitter:brightness=0.25:contrast=0.25:saturation=0.25,\
         rotate:degrees=2.0,rand-augment:magnitude=9:n=2,mixup:alpha=1.0"
    );
    for text in [
        "none",
        "flip",
        "cutout:size=3,crop:padding=9",
        "rand-augment:magnitude=30:n=14",
        "mixup:alpha=0.2",
        "jitter:brightness=0.0:contrast=1.0:saturation=0.1,rotate:degrees=180.0",
    ] {
        assert_eq!(list(text).to_string(), text);
        let table = toml::Table::try_from(config_of(text)).unwrap();
        assert_eq!(table["augment"].as_str(), Some(text));
        assert_eq!(table.try_into::<LoaderConfig>().unwrap(), config_of(text));
    }
    assert_eq!(list(" crop , flip "), Augment::STANDARD);
    assert_eq!(
        list("mixup:alpha=1").steps(),
        [Augmentation::Mixup(Mixup { alpha: 1.0 })]
    );
    assert!(Augment::new([Cutout { size: 0 }.into()]).is_err());
    assert!(
        Augment::new([RandAugment {
            n: 15,
            magnitude: 3
        }
        .into()])
        .is_err()
    );
    for wrong in [
        "",
        ",",
        "flip,",
        "crop:padding",
        "crop:padding=x",
        "none,flip",
        "Crop",
        "crop:=3",
        "jitter:brightness=1.01",
        "jitter:contrast=-0.1",
        "jitter:saturation=nan",
        "jitter:brightness=0:contrast=0:saturation=0",
        "jitter:hue=0.1",
        "rotate:degrees=0",
        "rotate:degrees=181",
        "rotate:degrees=nan",
    ] {
        assert!(wrong.parse::<Augment>().is_err(), "{wrong}");
    }
}

fn config_of(text: &str) -> LoaderConfig {
    LoaderConfig {
        augment: list(text),
        ..config(4)
    }
}

/// Steps are applied in their order: a mirrored window, and the window of the mirrored image.
#[test]
fn the_order_of_a_list_counts() {
    let set = numbered(200, SHAPE);
    let (crop, flip) = (
        bytes(&loader(&set, unshuffled("crop", 50, 3)), 0),
        |image: &[u8]| {
            let rows = image.chunks(SHAPE.width).flat_map(|row| row.iter().rev());
            rows.copied().collect::<Vec<u8>>()
        },
    );
    let both = bytes(&loader(&set, unshuffled("crop,flip", 50, 3)), 0);
    let mut mirrored = 0;
    for (both, crop) in both.iter().zip(&crop) {
        assert!(both == crop || *both == flip(crop));
        mirrored += usize::from(both != crop);
    }
    assert!((60..140).contains(&mirrored), "{mirrored}");
    // The same as the list on images that were mirrored before.
    let turned: Vec<u8> = (0..200)
        .flat_map(|i| flip(&set.pixels(i).unwrap()))
        .collect();
    let turned = ImageSet::from_raw("turned", SHAPE, turned, vec![0u8; 200], ["0"], 0).unwrap();
    let reverse = bytes(&loader(&set, unshuffled("flip,crop", 50, 3)), 0);
    let (mut own, mut other) = (0, 0);
    for (i, reverse) in reverse.iter().enumerate() {
        let is = |pixels: &[u8]| {
            let windows = (-4..=4).flat_map(|down| (-4..=4).map(move |right| (down, right)));
            windows
                .into_iter()
                .any(|(down, right)| shifted(pixels, down, right) == *reverse)
        };
        let found = (is(&set.pixels(i).unwrap()), is(&turned.pixels(i).unwrap()));
        assert!(found.0 || found.1, "{i}");
        own += usize::from(found.0);
        other += usize::from(found.1);
    }
    assert!(own > 60 && other > 60, "{own} {other}");
}

fn shifted(pixels: &[u8], down: isize, right: isize) -> Vec<u8> {
    let (height, width) = (SHAPE.height as isize, SHAPE.width as isize);
    let mut out = Vec::new();
    for plane in pixels.chunks(SHAPE.height * SHAPE.width) {
        for y in 0..height {
            for x in 0..width {
                let (y, x) = (y + down, x + right);
                let on = (0..height).contains(&y) && (0..width).contains(&x);
                out.push(if on {
                    plane[(y * width + x) as usize]
                } else {
                    0
                });
            }
        }
    }
    out
}

/// A square around each pixel, cut at the edges, of the byte nearest to the mean.
#[test]
fn cutout_hides_a_square_around_any_pixel() {
    const RECORDS: usize = 4000;
    for size in [1usize, 4, 5, 9] {
        let white = vec![255u8; RECORDS * SHAPE.bytes()];
        let set = ImageSet::from_raw("white", SHAPE, white, vec![0u8; RECORDS], ["0"], 0).unwrap();
        let normalization = Normalization {
            mean: vec![0.4914, 0.4822, 0.0],
            std: vec![0.2023, 0.1994, 1.0],
        };
        let loader = loader(
            &set,
            LoaderConfig {
                augment: list(&format!("cutout:size={size}")),
                normalization: normalization.clone(),
                ..plain(500, 3)
            },
        );
        let mut centres = HashSet::new();
        for batch in loader.epoch(0, 0) {
            let (images, ..) = numbers(&batch.unwrap());
            for image in images.chunks(SHAPE.bytes()) {
                let plane = SHAPE.height * SHAPE.width;
                let hidden = |i: usize, c: usize| {
                    let value = image[c * plane + i];
                    let white = (1.0 - normalization.mean[c]) / normalization.std[c];
                    let near = value.abs() <= 1.0 / (510.0 * normalization.std[c]) + 1e-6;
                    assert!(near || value == white, "{value}");
                    near
                };
                let square: Vec<usize> = (0..plane).filter(|i| hidden(*i, 0)).collect();
                for c in 1..3 {
                    assert!((0..plane).all(|i| hidden(i, c) == square.contains(&i)));
                }
                centres.insert(square);
            }
        }
        let expected: HashSet<Vec<usize>> = (0..SHAPE.height)
            .flat_map(|y| (0..SHAPE.width).map(move |x| (y, x)))
            .map(|(y, x)| {
                let inside = |centre: usize, at: usize| {
                    let from = centre as isize - (size / 2) as isize;
                    (from..from + size as isize).contains(&(at as isize))
                };
                let all = 0..SHAPE.height * SHAPE.width;
                all.filter(|i| inside(y, i / SHAPE.width) && inside(x, i % SHAPE.width))
                    .collect()
            })
            .collect();
        assert_eq!(centres, expected, "{size}");
    }
    let set = numbered(3, SHAPE);
    let error = ImageLoader::new(set, unshuffled("cutout:size=10", 2, 3), &Device::flex());
    let error = error.err().unwrap().to_string();
    assert!(error.contains("cutout size must be at most 9"), "{error}");
}

/// One operation: each image is the result of some operation in some direction, and all occur.
#[test]
fn rand_augment_chooses_every_operation() {
    let set = numbered(600, SHAPE);
    let images = bytes(
        &loader(&set, unshuffled("rand-augment:n=1:magnitude=20", 64, 3)),
        2,
    );
    let mut seen = HashSet::new();
    for (i, image) in images.iter().enumerate() {
        let mut found = false;
        for operation in Operation::ALL {
            for negative in [false, true] {
                let mut expected = set.pixels(i).unwrap().to_vec();
                operation.apply(&mut expected, SHAPE, 20, negative).unwrap();
                if expected == *image {
                    found = true;
                    seen.insert((operation, negative));
                }
            }
        }
        assert!(found, "image {i} is no result of one operation");
    }
    assert_eq!(seen.len(), 2 * Operation::ALL.len());
}

/// On an image of one colour, brightness alone multiplies by a factor. All factors of the range are
/// equally likely.
#[test]
fn the_factors_of_jitter_are_uniform() {
    const RECORDS: usize = 4000;
    let grey = vec![100u8; RECORDS * SHAPE.bytes()];
    let set = ImageSet::from_raw("grey", SHAPE, grey, vec![0u8; RECORDS], ["0"], 0).unwrap();
    let text = "jitter:brightness=0.2:contrast=0:saturation=0";
    let mut counts = [0usize; 41];
    for image in bytes(&loader(&set, unshuffled(text, 500, 3)), 0) {
        assert!(image.iter().all(|byte| *byte == image[0]));
        counts[usize::from(image[0]) - 80] += 1;
    }
    // 80 to 119 with probability 1/40 each, 120 if a factor is rounded to 1.2.
    assert!(counts[40] < 3, "{counts:?}");
    let square = |n: &usize| (*n as f64 - 100.0).powi(2) / 100.0;
    let chi: f64 = counts[..40].iter().map(square).sum();
    // Of 39 degrees of freedom: above 72.1 with probability 0.001.
    assert!(chi < 72.1, "{chi} {counts:?}");
}

/// Both of the pixels at the ends of a long image are where an angle within the range puts them.
#[test]
fn an_image_is_rotated_up_to_the_angle_in_both_directions() {
    let shape = ImageShape::new(1, 61, 61);
    let mut image = vec![0u8; shape.bytes()];
    image[30 * 61..31 * 61].fill(255);
    let set = ImageSet::from_raw("line", shape, image.repeat(400), vec![0u8; 400], ["0"], 0);
    let set = set.unwrap();
    let mut angles = Vec::new();
    for image in bytes(&loader(&set, unshuffled("rotate:degrees=10", 100, 1)), 0) {
        // The line in column 55, 25 pixels to the right of the middle.
        let row = (0..61).find(|y| image[y * 61 + 55] == 255).unwrap();
        angles.push(((30 - row as i32) as f64 / 25.0).atan().to_degrees());
    }
    let (low, high) = angles
        .iter()
        .fold((0f64, 0f64), |(l, h), a| (l.min(*a), h.max(*a)));
    assert!(
        (-11.0..-8.0).contains(&low) && (8.0..11.0).contains(&high),
        "{low} {high}"
    );
    let mean = angles.iter().sum::<f64>() / 400.0;
    // The mean of 400 has a standard deviation of 0.29 degrees.
    assert!(mean.abs() < 1.0, "{mean}");
    let large = angles.iter().filter(|a| a.abs() > 5.0).count();
    assert!((150..250).contains(&large), "{large}");
}

#[test]
fn an_image_depends_on_seed_epoch_and_record_alone() {
    let set = numbered(60, SHAPE);
    let text = "crop,jitter,rotate:degrees=20,flip,cutout:size=4,rand-augment";
    let one = loader(&set, unshuffled(text, 60, 3));
    let epochs = [bytes(&one, 0), bytes(&one, 1)];
    assert_ne!(epochs[0], epochs[1]);
    let small = loader(&set, unshuffled(text, 7, 3));
    assert_eq!(epochs[1], bytes(&small, 1));
    let other = LoaderConfig {
        seed: 6,
        ..unshuffled(text, 60, 3)
    };
    assert_ne!(epochs[0], bytes(&loader(&set, other), 0));
    let shuffled = LoaderConfig {
        shuffle: true,
        prefetch: 2,
        ..unshuffled(text, 11, 3)
    };
    let shuffled = loader(&set, shuffled);
    for (image, record) in bytes(&shuffled, 1).iter().zip(shuffled.order(1)) {
        assert_eq!(*image, epochs[1][record as usize]);
    }
}

/// Ten records of ten classes: the shares say which images are mixed, and how.
#[test]
fn mixup_mixes_images_and_labels_alike() {
    let set = numbered(10, SHAPE);
    let alone = loader(&set, unshuffled("crop,flip", 10, 3));
    let (images, labels, soft) = numbers(&alone.epoch(3, 0).next().unwrap().unwrap());
    assert_eq!((labels, soft), ((0..10).collect(), None));
    let mixing = loader(&set, unshuffled("crop,flip,mixup:alpha=0.7", 10, 3));
    let mut partners = HashSet::new();
    for epoch in 0..40 {
        let (mixed, targets, soft) = numbers(&mixing.epoch(epoch, 0).next().unwrap().unwrap());
        let soft = soft.unwrap();
        for (i, row) in soft.chunks(10).enumerate() {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            assert!(row.iter().filter(|share| **share > 0.0).count() <= 2);
            let rest = (0..10).filter(|j| *j != i && row[*j] > 0.0);
            partners.extend(rest.map(|j| (i, j)));
            let largest = row.iter().copied().fold(0.0, f32::max);
            assert_eq!(row[targets[i] as usize], largest);
            if epoch != 3 {
                continue;
            }
            let size = SHAPE.bytes();
            for p in 0..size {
                let sum: f32 = (0..10).map(|j| row[j] * images[j * size + p]).sum();
                assert!((mixed[i * size + p] - sum).abs() < 1e-6);
            }
        }
    }
    // 400 pairs of 90.
    assert!(partners.len() > 80, "{}", partners.len());
    // The same batch when the epoch begins in its middle, and in a thread.
    let config = LoaderConfig {
        shuffle: true,
        prefetch: 2,
        ..unshuffled("mixup", 4, 3)
    };
    let ahead = loader(&set, config.clone());
    let now = loader(
        &set,
        LoaderConfig {
            prefetch: 0,
            ..config
        },
    );
    let whole: Vec<_> = ahead.epoch(1, 0).map(|b| numbers(&b.unwrap())).collect();
    let late: Vec<_> = now.epoch(1, 2).map(|b| numbers(&b.unwrap())).collect();
    assert_eq!(whole[2..], late[..]);
    assert_ne!(whole[0], numbers(&now.epoch(2, 0).next().unwrap().unwrap()));
    // A batch of one image stays as it is.
    let single = loader(&set, unshuffled("mixup", 1, 3));
    let (image, _, soft) = numbers(&single.iter().next().unwrap().unwrap());
    let plain = numbers(&loader(&set, plain(1, 3)).iter().next().unwrap().unwrap());
    for (mixed, own) in image.iter().zip(&plain.0) {
        assert!((mixed - own).abs() < 1e-6);
    }
    assert!((soft.unwrap()[0] - 1.0).abs() < 1e-6);
}

#[test]
fn label_smoothing_spreads_a_share_evenly() {
    let set = numbered(10, SHAPE);
    let config = LoaderConfig {
        label_smoothing: 0.1,
        ..plain(10, 3)
    };
    let smooth = numbers(&loader(&set, config).iter().next().unwrap().unwrap());
    let hard = numbers(&loader(&set, plain(10, 3)).iter().next().unwrap().unwrap());
    assert_eq!((&smooth.0, &smooth.1), (&hard.0, &hard.1));
    for (i, row) in smooth.2.unwrap().chunks(10).enumerate() {
        for (j, share) in row.iter().enumerate() {
            let expected = if i == j { 0.91 } else { 0.01 };
            assert!((share - expected).abs() < 1e-7, "{share}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_list_on_any_shape(
        grey: bool, height in 1usize..20, width in 1usize..20, kinds in 1usize..32, magnitude in 0usize..31,
        n in 1usize..15, seed: u64,
    ) {
        let channels = if grey { 1 } else { 3 };
        let shape = ImageShape::new(channels, height, width + 1);
        let side = height.min(width + 1);
        let all = [
            format!("crop:padding={}", side - 1), "flip".to_owned(), format!("cutout:size={side}"),
            format!("rand-augment:magnitude={magnitude}:n={n}"), "mixup:alpha=0.01".to_owned(),
        ];
        let chosen = all.iter().enumerate().filter(|(i, text)| kinds >> i & 1 == 1 && *text != "crop:padding=0");
        let text = chosen.map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(",");
        let text = if text.is_empty() { "none" } else { &text };
        let loader = loader(&numbered(5, shape), LoaderConfig { seed, ..unshuffled(text, 3, channels) });
        for batch in loader.epoch(0, 0) {
            let (images, _, soft) = numbers(&batch.unwrap());
            prop_assert!(images.iter().all(|value| (0.0..=1.000_001).contains(value)));
            prop_assert!(soft.into_iter().flatten().all(|share| (0.0..=1.000_001).contains(&share)));
        }
    }
}
