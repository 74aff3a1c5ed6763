//! Image files against Pillow's decoders; the files and `expected.bin` are by `pictures/generate.py`.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rezero_data::picture::{self, Picture, Preparation, Sizing};
use rezero_data::{DataError, ImageShape};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures")
}

fn as_it_is(channels: usize) -> Preparation {
    Preparation {
        channels,
        sizing: Sizing::Any,
    }
}

/// A row of `index.csv`: the file and what Pillow makes of it.
struct Expected {
    name: String,
    picture: Picture,
}

fn expected() -> Vec<Expected> {
    let index = fs::read_to_string(folder().join("index.csv")).unwrap();
    let all = fs::read(folder().join("expected.bin")).unwrap();
    let mut rest = all.as_slice();
    let mut rows = Vec::new();
    for line in index.lines().skip(1) {
        let [name, _, channels, height, width] = line.split(',').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let [channels, height, width] = [channels, height, width].map(|n| n.parse().unwrap());
        let shape = ImageShape::new(channels, height, width);
        let (of_image, after) = rest.split_at(shape.bytes());
        rest = after;
        // From [row, column, channel].
        let plane = |c| of_image.iter().copied().skip(c).step_by(channels);
        let pixels = (0..channels).flat_map(plane).collect();
        rows.push(Expected {
            name: name.to_owned(),
            picture: Picture { shape, pixels },
        });
    }
    assert!(rest.is_empty());
    rows
}

/// The largest difference of two bytes.
fn distance(a: &Picture, b: &Picture) -> u8 {
    assert_eq!(a.shape, b.shape);
    let pairs = a.pixels.iter().zip(&b.pixels);
    pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}

#[test]
fn png_and_jpeg_are_exactly_what_pillow_reads() {
    let mut compared = (0, 0);
    for Expected { name, picture } in expected() {
        let count = match name.rsplit('.').next() {
            Some("png") => &mut compared.0,
            Some("jpg") => &mut compared.1,
            _ => continue,
        };
        *count += 1;
        let file = folder().join(&name);
        let read = picture::read(&file, &as_it_is(picture.shape.channels)).unwrap();
        let (distance, channels) = (distance(&read, &picture), picture.shape.channels);
        assert_eq!(distance, 0, "{name}, {channels} channels");
    }
    assert_eq!(compared, (29, 28));
}

/// The 2,844 files of `pictures/many.py`, or others: NAME.jpg and the bytes that Pillow reads, NAME.raw.
#[test]
#[ignore = "needs the folder that REZERO_JPEG_FILES names, from pictures/many.py"]
fn many_jpegs_are_exactly_what_pillow_reads() {
    let folder = std::env::var_os("REZERO_JPEG_FILES").expect("REZERO_JPEG_FILES names a folder");
    let mut compared = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        let Ok(raw) = fs::read(file.with_extension("raw")) else {
            continue;
        };
        if file.extension().is_none_or(|kind| kind != "jpg") {
            continue;
        }
        let read = |channels| picture::read(&file, &as_it_is(channels)).unwrap();
        let colours = read(3);
        let pixels = colours.shape.height * colours.shape.width;
        let found = match raw.len() == pixels {
            true => read(1).pixels,
            false => {
                let of = |i: usize| colours.pixels[i % 3 * pixels + i / 3];
                (0..3 * pixels).map(of).collect()
            }
        };
        assert!(found == raw, "{}", file.display());
        compared += 1;
    }
    println!("{compared} files are equal");
    assert!(compared > 0);
}

#[test]
fn images_are_stretched_or_cut_to_a_size() {
    let (large, all) = (folder().join("large.png"), expected());
    for (name, sizing) in [
        (
            "stretch-down",
            Sizing::Stretch {
                height: 12,
                width: 16,
            },
        ),
        (
            "stretch-up",
            Sizing::Stretch {
                height: 45,
                width: 64,
            },
        ),
        (
            "crop-square",
            Sizing::Crop {
                height: 16,
                width: 16,
            },
        ),
        (
            "crop-wide",
            Sizing::Crop {
                height: 8,
                width: 20,
            },
        ),
    ] {
        let read = picture::read(
            &large,
            &Preparation {
                channels: 3,
                sizing,
            },
        )
        .unwrap();
        let expected = all.iter().find(|row| row.name == name).unwrap();
        let distance = distance(&read, &expected.picture);
        assert!(distance <= 1, "{name}: {distance}");
    }
    // The size that it has: nothing changes.
    let same = [
        Sizing::Exactly {
            height: 30,
            width: 50,
        },
        Sizing::Stretch {
            height: 30,
            width: 50,
        },
        Sizing::Crop {
            height: 30,
            width: 50,
        },
    ];
    let whole = picture::read(&large, &as_it_is(3)).unwrap();
    for sizing in same {
        assert_eq!(
            picture::read(
                &large,
                &Preparation {
                    channels: 3,
                    sizing
                }
            )
            .unwrap(),
            whole
        );
    }
    // Extremes of proportion.
    for (height, width) in [(1, 300), (300, 1), (1, 1)] {
        for sizing in [
            Sizing::Crop { height, width },
            Sizing::Stretch { height, width },
        ] {
            let read = picture::read(
                &large,
                &Preparation {
                    channels: 1,
                    sizing,
                },
            )
            .unwrap();
            assert_eq!(read.shape, ImageShape::new(1, height, width));
        }
    }
    // The orientation comes first: 14 × 21 lies on its side.
    let turned = folder().join("orientation-6.jpg");
    let sizing = Sizing::Exactly {
        height: 14,
        width: 21,
    };
    let error = picture::read(
        &turned,
        &Preparation {
            channels: 3,
            sizing,
        },
    )
    .unwrap_err();
    let message = error.to_string();
    for part in [
        "orientation-6.jpg is 21 × 14 pixels",
        "are 14 × 21",
        "resize=crop",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn kinds_that_would_lose_something_are_refused() {
    for (name, said) in [
        ("grey-16-bits.png", "a PNG of 16 bits per channel"),
        ("rgb-16-bits.png", "a PNG of 16 bits per channel"),
        ("cmyk.jpg", "a JPEG in CMYK"),
    ] {
        let error = picture::read(&folder().join(name), &as_it_is(3)).unwrap_err();
        assert!(matches!(error, DataError::PictureKind { .. }), "{error:?}");
        let message = error.to_string();
        assert!(
            message.contains(name) && message.contains(said),
            "{message}"
        );
    }
    let error = picture::read(&folder(), &as_it_is(3)).unwrap_err();
    assert!(matches!(error, DataError::WrongKind { .. }), "{error:?}");
    for channels in [0, 5] {
        let error = picture::read(&folder().join("rgb.png"), &as_it_is(channels)).unwrap_err();
        assert!(matches!(error, DataError::Setting { .. }), "{error:?}");
    }
}

/// Found by the fuzz target `picture`: zune-jpeg 0.5.15 panics on the one, png 0.18.1 on the other.
#[test]
fn damaged_files_that_fuzzing_found_are_no_panics() {
    for name in ["damaged.jpg", "damaged.png"] {
        let read = picture::read(&folder().join(name), &as_it_is(3));
        assert!(
            matches!(read, Ok(_) | Err(DataError::CorruptPicture { .. })),
            "{name}: {read:?}"
        );
    }
}

/// A file that ends early is never taken for a whole one, wherever it ends.
#[test]
fn a_file_that_was_cut_short_is_corrupt() {
    for name in [
        "rgb.png",
        "palette.png",
        "interlaced.png",
        "rgb-2.jpg",
        "progressive.jpg",
        "progressive-2.jpg",
        "grey.jpg",
        "orientation-3.jpg",
    ] {
        let bytes = fs::read(folder().join(name)).unwrap();
        let png = name.ends_with("png");
        // A PNG has all its pixels before its last chunk.
        let end = bytes.len() - if png { 20 } else { 0 };
        for len in 0..end {
            let error = picture::decode(&bytes[..len], Path::new(name), &as_it_is(3)).unwrap_err();
            assert!(
                matches!(error, DataError::CorruptPicture { .. }),
                "{name} {len}: {error:?}"
            );
        }
    }
    let text = picture::decode(b"GIF89a", Path::new("x.png"), &as_it_is(3)).unwrap_err();
    assert!(
        text.to_string()
            .contains("x.png is no whole image: it is neither PNG nor JPEG"),
        "{text}"
    );
}

/// A header may say that an image is large, whatever follows.
#[test]
fn a_bomb_is_refused_before_it_is_decoded() {
    let whole = fs::read(folder().join("rgb.png")).unwrap();
    for (width, height) in [(u32::MAX >> 1, u32::MAX >> 1), (8193, 8192), (1 << 26, 2)] {
        let mut bytes = whole.clone();
        bytes[16..20].copy_from_slice(&width.to_be_bytes());
        bytes[20..24].copy_from_slice(&height.to_be_bytes());
        // The checksum of the header.
        let sum = crc32(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&sum.to_be_bytes());
        let error = picture::decode(&bytes, Path::new("x.png"), &as_it_is(3)).unwrap_err();
        let refused = matches!(
            error,
            DataError::PictureKind { .. } | DataError::CorruptPicture { .. }
        );
        assert!(refused, "{error:?}");
    }
    let mut bytes = fs::read(folder().join("grey.jpg")).unwrap();
    let frame = bytes
        .windows(2)
        .position(|two| two == [0xff, 0xc0])
        .unwrap();
    bytes[frame + 5..frame + 9].fill(0xff);
    let error = picture::decode(&bytes, Path::new("x.jpg"), &as_it_is(1)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("65535 × 65535 pixels, more than 67108864"),
        "{error}"
    );
}

/// CRC-32 as PNG has it.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1));
        }
    }
    !crc
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damage_never_panics_a_decoder(
        name in prop::sample::select(vec!["rgb.png", "palette-alpha.png", "interlaced.png", "rgb-2.jpg", "progressive.jpg", "progressive-2.jpg", "restarts.jpg", "colours-411.jpg", "oriented.png"]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        channels in 1usize..=4,
    ) {
        let mut bytes = fs::read(folder().join(name)).unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let preparation = Preparation { channels, sizing: Sizing::Crop { height: 5, width: 7 } };
        if let Ok(picture) = picture::decode(&bytes, Path::new(name), &preparation) {
            prop_assert_eq!(picture.shape, ImageShape::new(channels, 5, 7));
            prop_assert_eq!(picture.pixels.len(), picture.shape.bytes());
        }
    }
}
