//! Images of any shape through loader, crop and flip, against a slow reference.

use std::collections::HashSet;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use proptest::prelude::*;
use rezero_data::{
    Augment, Crop, DataError, Flip, ImageBatch, ImageLoader, ImageShape, ImageWindow, LoaderConfig,
    Normalization, Split, cifar10, shapes,
};

use crate::support::{config, epoch, host, loader, numbered, plain, sha256};

const SHAPES: [ImageShape; 4] = [
    cifar10::SHAPE,
    ImageShape::new(1, 28, 28),
    ImageShape::new(3, 40, 24),
    ImageShape::new(2, 3, 7),
];

/// Other constants for each channel.
fn normalization(channels: usize) -> Normalization {
    let of = |base: f32| (0..channels).map(|c| base + 0.03 * c as f32).collect();
    Normalization {
        mean: of(0.44),
        std: of(0.21),
    }
}

/// A window moved by (down, right), mirrored or not.
type Window = (isize, isize, bool);

/// A list of crop, unless the padding is 0, and of flip.
fn windows(padding: usize, flip: bool) -> Augment {
    let crop = (padding > 0).then_some(Crop { padding }.into());
    let flip = flip.then_some(Flip {}.into());
    Augment::new(crop.into_iter().chain(flip).collect::<Vec<_>>()).unwrap()
}

/// Crop, flip and normalisation as in their definition, pixel by pixel.
fn reference(image: &[u8], shape: ImageShape, n: &Normalization, window: Window) -> Vec<u32> {
    let (down, right, flip) = window;
    let (height, width) = (shape.height as isize, shape.width as isize);
    let mut out = Vec::new();
    for c in 0..shape.channels {
        for y in 0..height {
            for x in 0..width {
                let x = if flip { width - 1 - x } else { x };
                let (sy, sx) = (y + down, x + right);
                let on = (0..height).contains(&sy) && (0..width).contains(&sx);
                let byte = match on {
                    true => image[((c as isize * height + sy) * width + sx) as usize],
                    false => 0,
                };
                out.push(((f32::from(byte) / 255.0 - n.mean[c]) / n.std[c]).to_bits());
            }
        }
    }
    out
}

#[test]
fn every_image_is_some_crop_and_flip_and_all_of_them_occur() {
    for shape in SHAPES {
        let n = normalization(shape.channels);
        let largest = shape.height.min(shape.width) - 1;
        for (padding, flip) in [(1, true), (largest, true), (2, false), (0, true)] {
            let set = numbered(400, shape);
            let augment = windows(padding, flip);
            let loader = loader(
                &set,
                LoaderConfig {
                    augment,
                    normalization: n.clone(),
                    shuffle: false,
                    ..config(400)
                },
            );
            let (images, _) = epoch(&loader).remove(0);
            let p = padding as isize;
            let images = images.chunks(shape.bytes()).enumerate();
            let mut seen = HashSet::new();
            for (i, image) in images.take(if p > 2 { 3 } else { 400 }) {
                let windows = (-p..=p)
                    .flat_map(|down| (-p..=p).map(move |right| (down, right)))
                    .flat_map(|(down, right)| [(down, right, false), (down, right, true)]);
                let found: Vec<_> = windows
                    .filter(|window| flip || !window.2)
                    .filter(|&window| {
                        reference(&set.pixels(i).unwrap(), shape, &n, window) == image
                    })
                    .collect();
                assert!(
                    !found.is_empty(),
                    "{shape}: image {i} is no window of padding {padding}"
                );
                seen.extend(found);
            }
            let all = (2 * padding + 1).pow(2) * (1 + usize::from(flip));
            assert!(
                padding > 2 || seen.len() == all,
                "{shape}: {} of {all} windows",
                seen.len()
            );
        }
    }
}

#[test]
fn the_augmented_batches_are_pinned() {
    // A change here changes every published run: do not adjust the hashes, mend the code.
    let set = shapes::generate(Split::Train, 300, 9);
    let loader = loader(&set, config(128));
    for (n, pinned) in [(0, EPOCH_0), (3, EPOCH_3)] {
        let mut bytes = Vec::new();
        for batch in loader.epoch(n, 0) {
            let (images, targets) = host(batch.unwrap());
            bytes.extend(images.into_iter().flat_map(u32::to_le_bytes));
            bytes.extend(targets.into_iter().flat_map(i64::to_le_bytes));
        }
        assert_eq!(sha256(&bytes), pinned, "epoch {n}");
    }
}
const EPOCH_0: &str = "de96c2cff0add0b060ffc2a1a3c90ef33e899e3e11a5eed70c8672a31b15b332";
const EPOCH_3: &str = "7f123fbab8888adede77256f6809f225f9d6954d2c6949a926916ed22d40a9cd";

#[test]
fn batches_have_the_shape_of_the_set() {
    for shape in SHAPES {
        let set = numbered(7, shape);
        assert_eq!(set.shape(), shape);
        let loader = loader(&set, plain(4, shape.channels));
        let ImageShape {
            channels,
            height,
            width,
        } = shape;
        let dims: Vec<_> = loader
            .epoch(0, 0)
            .map(|batch| batch.unwrap().images.dims())
            .collect();
        assert_eq!(
            dims,
            [[4, channels, height, width], [3, channels, height, width]]
        );
        let identity = Normalization::identity(channels);
        let (images, _) = epoch(&loader).remove(1);
        let images: Vec<_> = images.chunks(shape.bytes()).collect();
        for (i, image) in images.into_iter().enumerate() {
            let expected = reference(&set.pixels(4 + i).unwrap(), shape, &identity, (0, 0, false));
            assert_eq!(image, expected);
        }
    }
}

#[test]
fn the_padding_is_below_the_smaller_side() {
    for (shape, limit) in SHAPES.into_iter().zip([31, 27, 23, 2]) {
        let new = |crop_padding| {
            let augment = windows(crop_padding, true);
            let config = LoaderConfig {
                augment,
                ..plain(2, shape.channels)
            };
            ImageLoader::new(numbered(2, shape), config, &burn::tensor::Device::flex())
        };
        assert!(new(limit).is_ok());
        for padding in [limit + 1, i64::MAX as usize] {
            let error = new(padding).err().unwrap();
            assert!(matches!(error, DataError::Setting { .. }));
            let rule = format!("crop padding must be at most {limit}, below the smaller side");
            assert!(error.to_string().contains(&rule), "{error}");
        }
    }
}

#[test]
fn a_normalisation_is_of_as_many_channels_as_the_images() {
    for channels in 1..4 {
        for n in [
            Normalization::half(channels),
            Normalization::identity(channels),
        ] {
            assert!(n.check(channels).is_ok());
            assert!(n.check(channels + 1).is_err());
        }
    }
    let uneven = Normalization {
        mean: vec![0.0; 3],
        std: vec![1.0; 2],
    };
    let message = uneven.check(3).unwrap_err().to_string();
    assert!(
        message.contains("for each of 3 channels, got 3 and 2"),
        "{message}"
    );
    let nan = Normalization {
        mean: vec![f32::NAN],
        std: vec![1.0],
    };
    assert!(nan.check(1).unwrap_err().to_string().contains("finite"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_shape_goes_through(
        channels in 1usize..5, height in 1usize..12, width in 1usize..12, padding in 0usize..12,
        flip: bool, seed: u64, n in 0u64..3,
    ) {
        // Two bytes hold the number of a record.
        let shape = ImageShape::new(channels, height, width + 1);
        let crop_padding = padding.min(height.min(width + 1) - 1);
        let set = numbered(9, shape);
        let normalization = normalization(channels);
        let loader = loader(&set, LoaderConfig {
            augment: windows(crop_padding, flip), normalization: normalization.clone(), seed,
            ..config(4)
        });
        let order = loader.order(n);
        let images: Vec<u32> = loader.epoch(n, 0).flat_map(|b| host(b.unwrap()).0).collect();
        let p = crop_padding as isize;
        for (image, record) in images.chunks(shape.bytes()).zip(order) {
            let windows = (-p..=p).flat_map(|down| (-p..=p).map(move |right| (down, right)));
            let fits = |flip| windows.clone().any(|(down, right)| {
                let window = (down, right, flip);
                reference(&set.pixels(record as usize).unwrap(), shape, &normalization, window) == image
            });
            prop_assert!(fits(false) || flip && fits(true));
        }
    }
}

/// The loader with images that [`reference`] cuts from the bytes of the set.
fn cut_elsewhere(loader: &ImageLoader) -> ImageLoader {
    let set = loader.set().clone();
    let n = loader.config().normalization.clone();
    let cuts = move |device: &Device| {
        let (set, n, device) = (set.clone(), n.clone(), device.clone());
        let cut = move |windows: &[ImageWindow]| -> Tensor<4> {
            let (shape, all) = (set.shape(), set.all_pixels().unwrap());
            let image = |w: &ImageWindow| {
                let pixels = &all[w.record as usize * shape.bytes()..][..shape.bytes()];
                reference(pixels, shape, &n, (w.down, w.right, w.flip))
            };
            let values: Vec<f32> = windows.iter().flat_map(image).map(f32::from_bits).collect();
            let dims = [windows.len(), shape.channels, shape.height, shape.width];
            Tensor::from_data(TensorData::new(values, dims), &device)
        };
        Some(Arc::new(cut) as _)
    };
    loader.clone().cut_by(cuts).unwrap()
}

/// Images, labels and shares of classes of the batches.
fn all(batches: impl Iterator<Item = ImageBatch>) -> Vec<(Vec<u32>, Vec<i64>, Vec<f32>)> {
    let of = |batch: ImageBatch| {
        let soft = batch.soft.clone().map(|soft| soft.into_data());
        let soft = soft.map_or(Vec::new(), |soft| soft.try_to_vec().unwrap());
        let (images, targets) = host(batch);
        (images, targets, soft)
    };
    batches.map(of).collect()
}

#[test]
fn images_that_are_cut_elsewhere_are_those_of_the_loader() {
    for shape in SHAPES {
        // Of 11 records, the last batch has three.
        let set = numbered(13, shape).take(11);
        for (augment, label_smoothing, prefetch) in [
            ("none", 0.0, 0),
            ("flip", 0.1, 2),
            ("crop:padding=1", 0.0, 2),
            ("crop:padding=2,flip", 0.1, 0),
            ("flip,crop:padding=2", 0.0, 1),
        ] {
            let own = loader(
                &set,
                LoaderConfig {
                    augment: augment.parse().unwrap(),
                    normalization: normalization(shape.channels),
                    label_smoothing,
                    prefetch,
                    ..config(4)
                },
            );
            let cut = cut_elsewhere(&own);
            let half = |n: usize| n / 2..n;
            let (own_half, cut_half) = (own.clone().with_rows(half), cut.clone().with_rows(half));
            for step in 0..7 {
                for (own, cut) in [(&own, &cut), (&own_half, &cut_half)] {
                    let [own, cut] = [own, cut].map(|l| all(l.from_step(step).map(Result::unwrap)));
                    assert_eq!(own.len(), 3 - step % 3);
                    assert!(own == cut, "{shape}, {augment}, step {step}");
                }
            }
        }
    }
}

#[test]
fn images_are_cut_elsewhere_if_they_are_windows_and_the_device_can() {
    let set = numbered(5, SHAPES[3]);
    for (augment, moves) in [
        ("none", true),
        ("flip,crop:padding=1", true),
        ("flip,cutout:size=2", false),
        ("mixup", false),
    ] {
        let augment: Augment = augment.parse().unwrap();
        assert_eq!(augment.only_moves(), moves, "{augment}");
        let config = LoaderConfig {
            augment,
            normalization: normalization(2),
            ..config(2)
        };
        let own = loader(&set, config);
        match own.clone().cut_by(|_| None) {
            Ok(asked) => {
                assert!(moves);
                let [asked, own] = [asked, own].map(|l| all(l.from_step(0).map(Result::unwrap)));
                assert_eq!(asked, own);
            }
            Err(error) => {
                assert!(!moves);
                assert!(error.to_string().contains("crop and flip alone"), "{error}");
            }
        }
    }
}
