//! Folders of class folders of image files.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use image::{ExtendedColorType, save_buffer};
use rezero_data::folder::{self, Loaded, Options};
use rezero_data::picture::{Preparation, Sizing};
use rezero_data::{
    Augment, DataError, ImageBatch, ImageLoader, ImageSet, ImageShape, LoaderConfig, Normalization,
    Split,
};

use crate::support::moments;

fn options() -> Options {
    Options {
        preparation: Preparation {
            channels: 3,
            sizing: Sizing::Any,
        },
        class_names: Vec::new(),
        valid_share: 0.0,
        test_share: 0.0,
        split_seed: 0,
        skip_corrupt: false,
        limit: 0,
        memory: None,
    }
}

fn shares(valid_share: f64, test_share: f64) -> Options {
    Options {
        valid_share,
        test_share,
        ..options()
    }
}

/// A PNG in RGB whose pixels are all `value`, at `dir/name`.
fn image(dir: &Path, name: &str, value: u8, (height, width): (u32, u32)) -> PathBuf {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let pixels = vec![value; (3 * height * width) as usize];
    save_buffer(&path, &pixels, width, height, ExtendedColorType::Rgb8).unwrap();
    path
}

/// A folder of images of 4 × 3 pixels; the value of each is its place in the list.
fn images(names: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (i, name) in names.iter().enumerate() {
        image(dir.path(), name, i as u8, (4, 3));
    }
    dir
}

fn load(dir: &Path, split: Split, options: &Options) -> Result<ImageSet, String> {
    let loaded = folder::load(dir, split, options).map_err(|e| e.to_string());
    loaded.map(|Loaded { set, skipped }| {
        assert!(skipped.is_empty());
        set
    })
}

/// The value and the label of each record.
fn records(set: &ImageSet) -> Vec<(u8, u16)> {
    let record = |i| {
        let pixels = set.pixels(i).unwrap();
        assert!(pixels.iter().all(|&byte| byte == pixels[0]));
        (pixels[0], set.label(i))
    };
    (0..set.len()).map(record).collect()
}

fn refused(dir: &Path, split: Split, options: &Options, parts: &[&str]) {
    let message = load(dir, split, options).unwrap_err();
    for part in parts {
        assert!(message.contains(part), "no `{part}` in: {message}");
    }
}

#[test]
fn records_are_in_the_order_of_the_names_of_their_files() {
    let dir = images(&[
        "dog/2.png",
        "cat/10.png",
        "cat/3.PNG",
        "dog/1.png",
        "ant/2.png",
    ]);
    // Neither hidden files nor files that are no images belong to the set.
    for name in ["cat/notes.txt", "cat/.hidden.png", ".cache/x.png", "README"] {
        let file = dir.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "x").unwrap();
    }
    let set = load(dir.path(), Split::Train, &options()).unwrap();
    assert_eq!(set.class_names(), ["ant", "cat", "dog"]);
    assert_eq!(records(&set), [(3, 2), (1, 1), (4, 0), (0, 2), (2, 1)]);
    assert_eq!(set.shape(), ImageShape::new(3, 4, 3));
    assert_eq!(
        set.name(),
        dir.path().file_name().unwrap().to_str().unwrap()
    );
    assert!(!set.is_subset());
    let first = load(
        dir.path(),
        Split::Train,
        &Options {
            limit: 2,
            ..options()
        },
    )
    .unwrap();
    assert_eq!(records(&first), [(3, 2), (1, 1)]);
    let listing = folder::list(dir.path(), Split::Train, &options()).unwrap();
    assert_eq!(listing.len(), 5);
    assert!(listing.path(1).ends_with("cat/10.png"));
}

#[test]
fn parts_are_folders() {
    for valid in ["val", "valid", "validation"] {
        let dir = images(&[
            "train/a/1.png",
            "train/b/2.png",
            "test/b/3.png",
            "test/a/4.png",
        ]);
        image(dir.path(), &format!("{valid}/b/5.png"), 9, (4, 3));
        let [train, valid, test] = Split::ALL.map(|s| load(dir.path(), s, &options()).unwrap());
        assert_eq!(records(&train), [(0, 0), (1, 1)]);
        // The one class of the validation images is the second of the training images.
        assert_eq!(records(&valid), [(9, 1)]);
        assert_eq!(records(&test), [(2, 1), (3, 0)]);
        refused(
            dir.path(),
            Split::Train,
            &shares(0.1, 0.0),
            &["holds a folder val", "data.valid_share=0.1 has no effect"],
        );
        refused(
            dir.path(),
            Split::Train,
            &shares(0.0, 0.1),
            &["holds a folder test", "data.test_share=0.1"],
        );
    }
    // A folder of test images alone, with the classes that a run has.
    let dir = images(&["test/b/1.png"]);
    let known = Options {
        class_names: vec!["a".into(), "b".into()],
        ..options()
    };
    assert_eq!(
        records(&load(dir.path(), Split::Test, &known).unwrap()),
        [(0, 1)]
    );
    refused(dir.path(), Split::Train, &known, &["holds no folder train"]);
    let other = Options {
        class_names: vec!["a".into(), "c".into()],
        ..options()
    };
    refused(
        dir.path(),
        Split::Test,
        &other,
        &["a folder \"b\", which is none of the 2 classes, \"a\" to \"c\""],
    );
    let both = images(&["train/a/1.png", "val/a/1.png", "valid/a/1.png"]);
    refused(
        both.path(),
        Split::Valid,
        &options(),
        &["val and ", "keep one"],
    );
    // Class folders may be called as parts are, as long as others are not.
    let classes = images(&["train/1.png", "plane/2.png"]);
    assert_eq!(
        load(classes.path(), Split::Train, &options())
            .unwrap()
            .num_classes(),
        2
    );
}

#[test]
fn shares_are_chosen_by_the_seed_and_the_names() {
    let names: Vec<String> = (0..200)
        .map(|i| format!("{}/{i:03}.png", ["a", "b"][i / 150]))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let dir = images(&names);
    let all =
        |options: &Options| Split::ALL.map(|s| records(&load(dir.path(), s, options).unwrap()));
    let parts = all(&shares(0.1, 0.2));
    assert_eq!(parts.each_ref().map(Vec::len), [140, 20, 40]);
    // Of each class its share.
    let of_b = |part: &[(u8, u16)]| part.iter().filter(|record| record.1 == 1).count();
    assert_eq!(parts.each_ref().map(|part| of_b(part)), [35, 5, 10]);
    let mut together = parts.concat();
    together.sort_unstable();
    assert!(
        together
            .iter()
            .map(|record| usize::from(record.0))
            .eq(0..200)
    );
    assert_eq!(all(&shares(0.1, 0.2)), parts);
    let other = all(&Options {
        split_seed: 1,
        ..shares(0.1, 0.2)
    });
    assert_ne!(other, parts);
    // Without test images, the same ones validate.
    assert_eq!(all(&shares(0.1, 0.01))[1], parts[1]);
    // Another image moves none of the others from part to part, or one at the edge.
    image(dir.path(), "a/new.png", 200, (4, 3));
    let after = all(&shares(0.1, 0.2));
    let moved = after[0]
        .iter()
        .filter(|record| record.0 != 200 && !parts[0].contains(record));
    assert!(moved.count() <= 2);

    refused(
        dir.path(),
        Split::Valid,
        &options(),
        &["holds no folder val", "data.valid_share=0.1"],
    );
    refused(
        dir.path(),
        Split::Test,
        &options(),
        &["holds no folder test", "data.test_share=0.1"],
    );
    refused(
        dir.path(),
        Split::Valid,
        &shares(1e-6, 0.0),
        &["too few images"],
    );
    for wrong in [shares(0.6, 0.4), shares(-0.1, 0.0), shares(f64::NAN, 0.0)] {
        refused(
            dir.path(),
            Split::Train,
            &wrong,
            &["valid_share and test_share must be"],
        );
    }
    // A part in a folder, the other by its share.
    let dir = images(&[
        "train/a/1.png",
        "train/a/2.png",
        "train/a/3.png",
        "train/a/4.png",
        "test/a/5.png",
    ]);
    let parts = Split::ALL.map(|s| records(&load(dir.path(), s, &shares(0.25, 0.0)).unwrap()));
    assert_eq!(parts.each_ref().map(Vec::len), [3, 1, 1]);
    assert_eq!(parts[2], [(4, 0)]);
}

#[test]
fn folders_that_are_laid_out_wrongly_are_refused() {
    let refused = |names: &[&str], parts: &[&str]| {
        let dir = images(names);
        refused(dir.path(), Split::Train, &options(), parts);
    };
    refused(
        &[],
        &["no folder of images", "is empty", "one for each class"],
    );
    refused(
        &["1.png", "a/2.png"],
        &["1.png", "outside of a class folder"],
    );
    refused(
        &["a/1.png", "A/2.png"],
        &["\"A\" and \"a\"", "differ in case alone"],
    );
    refused(&["a/1.png", "b/c/2.png"], &["b/c", "holds images directly"]);
    let dir = images(&["a/1.png"]);
    fs::create_dir(dir.path().join("b")).unwrap();
    super::folder::refused(dir.path(), Split::Train, &options(), &["b holds no image"]);
    fs::write(dir.path().join("b/x.webp"), "x").unwrap();
    super::folder::refused(
        dir.path(),
        Split::Train,
        &options(),
        &["x.webp is an image in the format webp"],
    );
    let nowhere = dir.path().join("nowhere");
    super::folder::refused(
        &nowhere,
        Split::Train,
        &options(),
        &["nowhere", "no such file or folder"],
    );
    super::folder::refused(
        &dir.path().join("a/1.png"),
        Split::Train,
        &options(),
        &["is not a folder"],
    );
}

#[test]
fn sizes_and_corrupt_files() {
    let dir = images(&["a/1.png", "a/2.png", "b/3.png", "b/4.png"]);
    let odd = image(dir.path(), "b/25.png", 9, (5, 3));
    refused(
        dir.path(),
        Split::Train,
        &options(),
        &["b/25.png is 5 × 3", "are 4 × 3"],
    );
    let sized = |sizing| Options {
        preparation: Preparation {
            channels: 1,
            sizing,
        },
        ..options()
    };
    for sizing in [
        Sizing::Stretch {
            height: 8,
            width: 8,
        },
        Sizing::Crop {
            height: 8,
            width: 8,
        },
    ] {
        let set = load(dir.path(), Split::Train, &sized(sizing)).unwrap();
        assert_eq!(set.shape(), ImageShape::new(1, 8, 8));
        assert_eq!(records(&set), [(0, 0), (1, 0), (9, 1), (2, 1), (3, 1)]);
    }
    fs::remove_file(odd).unwrap();

    // The first two are corrupt, and one in the middle.
    for name in ["a/0.png", "b/00.png", "a/30.jpg"] {
        fs::write(dir.path().join(name), b"\x89PNG\r\n\x1a\nnot").unwrap();
    }
    refused(
        dir.path(),
        Split::Train,
        &options(),
        &["a/0.png is no whole image"],
    );
    let skip = Options {
        skip_corrupt: true,
        ..options()
    };
    let Loaded { set, skipped } = folder::load(dir.path(), Split::Train, &skip).unwrap();
    assert_eq!(records(&set), [(0, 0), (1, 0), (2, 1), (3, 1)]);
    let names: Vec<_> = skipped
        .iter()
        .map(|path| path.strip_prefix(dir.path()).unwrap())
        .collect();
    assert_eq!(
        names,
        [
            Path::new("a/0.png"),
            Path::new("b/00.png"),
            Path::new("a/30.jpg")
        ]
    );
    let known = Options {
        skip_corrupt: true,
        ..sized(Sizing::Exactly {
            height: 4,
            width: 3,
        })
    };
    let again = folder::load(dir.path(), Split::Train, &known).unwrap();
    assert_eq!((again.set.len(), again.skipped), (4, skipped));
    // What is whole and of another kind is not skipped.
    fs::copy(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures/cmyk.jpg"),
        dir.path().join("a/31.jpg"),
    )
    .unwrap();
    let error = folder::load(dir.path(), Split::Train, &skip).unwrap_err();
    assert!(matches!(error, DataError::PictureKind { .. }), "{error:?}");
    let none = tempfile::tempdir().unwrap();
    fs::create_dir(none.path().join("a")).unwrap();
    fs::write(none.path().join("a/1.png"), "").unwrap();
    refused(none.path(), Split::Train, &skip, &["holds no whole image"]);
    refused(
        none.path(),
        Split::Train,
        &options(),
        &["1.png is no whole image: it is empty"],
    );
}

/// Of several files that cannot be read, the first is named, whichever thread came to it.
#[test]
fn the_first_error_is_the_same_each_time() {
    let names: Vec<String> = (0..300).map(|i| format!("a/{i:03}.png")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let dir = images(&names);
    for i in [70, 71, 130, 131, 299] {
        fs::write(dir.path().join(format!("a/{i:03}.png")), "x").unwrap();
    }
    for _ in 0..20 {
        refused(dir.path(), Split::Train, &options(), &["a/070.png"]);
    }
}

/// All batches of two epochs: pixels, labels and shares.
fn batches(set: &ImageSet, prefetch: usize) -> Vec<(Vec<f32>, Vec<i64>, Vec<f32>)> {
    let config = LoaderConfig {
        batch_size: 7,
        seed: 3,
        shuffle: true,
        drop_last: false,
        augment: "crop:padding=1,flip,cutout:size=2,mixup".parse().unwrap(),
        label_smoothing: 0.1,
        normalization: Normalization::of(set).unwrap(),
        prefetch,
    };
    let loader = ImageLoader::new(set.clone(), config, &Device::flex()).unwrap();
    let epochs = (0..2).flat_map(|epoch| loader.epoch(epoch, 0));
    let numbers = |batch: ImageBatch| {
        let images = batch.images.into_data().iter::<f32>().collect();
        let targets = batch.targets.into_data().iter::<i64>().collect();
        let soft = batch.soft.unwrap().into_data().iter::<f32>().collect();
        (images, targets, soft)
    };
    epochs.map(|batch| numbers(batch.unwrap())).collect()
}

/// 60 PNG files of noise of 6 × 5 in three classes, and two corrupt ones.
fn noise() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..60u64 {
        let path = image(dir.path(), &format!("{}/{i:02}.png", i % 3), 0, (1, 1));
        let pixels: Vec<u8> = (0..90)
            .map(|at| (rezero_data::rng::order(i, at, 256)[0]) as u8)
            .collect();
        save_buffer(&path, &pixels, 5, 6, ExtendedColorType::Rgb8).unwrap();
    }
    for name in ["1/155.png", "2/00.png"] {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    dir
}

/// The same pixels in the same order, whether memory holds them or not.
#[test]
fn images_that_do_not_fit_are_decoded_for_each_batch() {
    let dir = noise();
    let limited = |memory| Options {
        memory: Some(memory),
        skip_corrupt: true,
        ..options()
    };
    // 62 files, of which 60 are images.
    let held = folder::load(dir.path(), Split::Train, &limited(62 * 90)).unwrap();
    let read = folder::load(dir.path(), Split::Train, &limited(62 * 90 - 1)).unwrap();
    assert_eq!(read.skipped, held.skipped);
    assert_eq!(read.skipped.len(), 2);
    let (held, read) = (held.set, read.set);
    assert!(held.is_in_memory() && !read.is_in_memory());
    assert_eq!(read.labels(), held.labels());
    for (read, held) in [(&read, &held), (&read.take(7), &held.take(7))] {
        assert_eq!(read.len(), held.len());
        assert_eq!(read.fingerprint().unwrap(), held.fingerprint().unwrap());
        assert_eq!(
            Normalization::of(read).unwrap(),
            Normalization::of(held).unwrap()
        );
        for i in 0..held.len() {
            assert_eq!(read.pixels(i).unwrap(), held.pixels(i).unwrap());
        }
        let expected = batches(held, 0);
        for prefetch in [0, 3] {
            assert!(batches(read, prefetch) == expected, "prefetch={prefetch}");
        }
    }
    // What is to be said before it takes its time.
    let options = limited(5);
    let found = folder::find(dir.path(), Split::Train, &options).unwrap();
    assert_eq!(
        (found.images(), found.bytes(), found.fits()),
        (62, 62 * 90, false)
    );
    // Without leave to skip, the first corrupt file is the error here as well.
    let strict = Options {
        memory: Some(1),
        ..options
    };
    let strict = Options {
        skip_corrupt: false,
        ..strict
    };
    let dir_without = noise();
    fs::remove_file(dir_without.path().join("2/00.png")).unwrap();
    let error = folder::load(dir_without.path(), Split::Train, &strict).unwrap_err();
    assert!(error.to_string().contains("155.png is no whole image"));
}

#[test]
fn a_file_that_changes_while_it_is_needed_is_an_error_with_its_name() {
    let dir = noise();
    let small = Options {
        memory: Some(1),
        skip_corrupt: true,
        ..options()
    };
    let set = folder::load(dir.path(), Split::Train, &small).unwrap().set;
    let path = dir.path().join("0/30.png");
    let before = fs::read(&path).unwrap();
    let said = || {
        let config = LoaderConfig {
            batch_size: 60,
            seed: 0,
            shuffle: true,
            drop_last: false,
            augment: Augment::NONE,
            label_smoothing: 0.0,
            normalization: Normalization::half(3),
            prefetch: 1,
        };
        let loader = ImageLoader::new(set.clone(), config, &Device::flex()).unwrap();
        let batch = loader.epoch(0, 0).next().unwrap();
        let of_batch = batch.map(|_| ()).map_err(|e| e.to_string());
        // Burn's data set says the same.
        let item = burn::data::dataset::Dataset::get(&set, 30);
        let of_item = item.map(|_| ()).map_err(|e| e.to_string());
        assert_eq!(of_batch, of_item);
        of_batch
    };
    assert_eq!(said(), Ok(()));
    let is = |part: &str| {
        let message = said().unwrap_err();
        assert!(message.contains("0/30.png"), "{message}");
        assert!(message.contains(part), "{message}");
    };
    fs::remove_file(&path).unwrap();
    is("no such file");
    fs::write(&path, &before[..before.len() / 2]).unwrap();
    is("no whole image");
    image(dir.path(), "0/30.png", 9, (6, 5));
    is("has changed since the set was opened");
    image(dir.path(), "0/30.png", 9, (5, 6));
    is("is 5 × 6 pixels");
    // The same pixels are the same image, whenever they were written.
    fs::write(&path, &before).unwrap();
    assert_eq!(said(), Ok(()));
}

#[test]
fn the_mean_of_a_set_is_that_of_its_pixels() {
    let dir = images(&["a/1.png", "a/2.png", "b/3.png"]);
    for value in [17, 140, 255] {
        image(dir.path(), &format!("b/{value}.png"), value, (4, 3));
    }
    let set = load(dir.path(), Split::Train, &options()).unwrap();
    let found = Normalization::of(&set).unwrap();
    for (c, (mean, std)) in moments(&set).into_iter().enumerate() {
        assert!((mean - f64::from(found.mean[c])).abs() < 1e-6);
        assert!((std - f64::from(found.std[c])).abs() < 1e-6);
    }
    found.check(3).unwrap();
    // Images without any variation.
    let flat = Normalization::of(&set.take(1)).unwrap();
    assert_eq!((flat.mean, flat.std), (vec![0.0; 3], vec![1.0; 3]));
}

#[cfg(unix)]
#[test]
fn links_stay_inside_and_names_may_be_any_bytes() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    let dir = images(&["a/1.png", "b/2.png"]);
    let outside = images(&["c/3.png"]);
    // The folder itself may be a link, and links may lead to files and folders in it.
    symlink("../a/1.png", dir.path().join("b/0.png")).unwrap();
    symlink("a", dir.path().join("c")).unwrap();
    let link = outside.path().join("link");
    symlink(dir.path(), &link).unwrap();
    let set = load(&link, Split::Train, &options()).unwrap();
    assert_eq!(records(&set), [(0, 1), (0, 0), (0, 2), (1, 1)]);

    let file = dir.path().join("a/9.png");
    symlink(outside.path().join("c/3.png"), &file).unwrap();
    refused(
        dir.path(),
        Split::Train,
        &options(),
        &["a holds a link out of the folder", "a/9.png"],
    );
    fs::remove_file(file).unwrap();
    let class = dir.path().join("d");
    symlink(outside.path().join("c"), &class).unwrap();
    refused(
        dir.path(),
        Split::Train,
        &options(),
        &["holds a link out of the folder"],
    );
    fs::remove_file(&class).unwrap();
    symlink("nowhere", &class).unwrap();
    refused(
        dir.path(),
        Split::Train,
        &options(),
        &["cannot follow", "d"],
    );
    fs::remove_file(&class).unwrap();

    // A file may have any name, a class is text.
    let name = OsStr::from_bytes(b"\xff.png");
    fs::copy(dir.path().join("b/2.png"), dir.path().join("a").join(name)).unwrap();
    let set = load(dir.path(), Split::Train, &options()).unwrap();
    assert_eq!(records(&set).last(), Some(&(1, 2)));
    fs::create_dir(dir.path().join(OsStr::from_bytes(b"e\xff"))).unwrap();
    refused(
        dir.path(),
        Split::Train,
        &options(),
        &["whose name is not UTF-8"],
    );
    fs::remove_dir(dir.path().join(OsStr::from_bytes(b"e\xff"))).unwrap();

    // A pipe would be waited for.
    let status = std::process::Command::new("mkfifo")
        .arg(dir.path().join("a/5.png"))
        .status();
    if status.is_ok_and(|status| status.success()) {
        refused(
            dir.path(),
            Split::Train,
            &options(),
            &["a pipe, a socket or a device"],
        );
    }
}

/// `cargo test --release --workspace --test data -- --ignored --nocapture a_million_files`: names alone.
#[test]
#[ignore = "takes a minute and a million inodes"]
fn a_million_files_are_listed_in_seconds() {
    let dir = tempfile::tempdir().unwrap();
    for class in 0..1000 {
        let class = dir.path().join(format!("class-{class:04}"));
        fs::create_dir(&class).unwrap();
        for i in 0..1000 {
            fs::File::create(class.join(format!("image-{i:08}.png"))).unwrap();
        }
    }
    let started = std::time::Instant::now();
    let listing = folder::list(dir.path(), Split::Train, &shares(0.1, 0.1)).unwrap();
    println!(
        "{} of 1,000,000 files listed in {:?}",
        listing.len(),
        started.elapsed()
    );
    assert_eq!(listing.len(), 800_000);
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        let most = status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap();
        println!("{most}");
    }
}

/// `cargo test --release --workspace --test data -- --ignored --nocapture fifty_thousand`
#[test]
#[ignore = "a measurement"]
fn fifty_thousand_images_are_decoded_in_seconds() {
    const IMAGES: usize = 50_000;
    let dir = tempfile::tempdir().unwrap();
    let set = rezero_data::shapes::generate(Split::Train, IMAGES, 0);
    for name in set.class_names() {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    for i in 0..IMAGES {
        let planes = set.pixels(i).unwrap();
        let pixels: Vec<u8> = (0..1024)
            .flat_map(|at| [planes[at], planes[1024 + at], planes[2048 + at]])
            .collect();
        let class = &set.class_names()[usize::from(set.label(i))];
        let path = dir.path().join(class).join(format!("{i:05}.png"));
        save_buffer(&path, &pixels, 32, 32, ExtendedColorType::Rgb8).unwrap();
    }
    for _ in 0..3 {
        let started = std::time::Instant::now();
        let read = load(dir.path(), Split::Train, &options()).unwrap();
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{IMAGES} images in {seconds:.2} s: {:.0} images/s",
            IMAGES as f64 / seconds
        );
        for i in [0, 1, IMAGES - 1] {
            assert_eq!(read.pixels(i).unwrap(), set.pixels(i).unwrap());
        }
    }
    let small = Options {
        memory: Some(1),
        ..options()
    };
    let started = std::time::Instant::now();
    let read = load(dir.path(), Split::Train, &small).unwrap();
    let rate = |since: std::time::Instant| IMAGES as f64 / since.elapsed().as_secs_f64();
    println!("checked on demand: {:.0} images/s", rate(started));
    for (name, set) in [("on demand", &read), ("in memory", &set)] {
        let config = LoaderConfig {
            batch_size: 128,
            seed: 0,
            shuffle: true,
            drop_last: false,
            augment: Augment::STANDARD,
            label_smoothing: 0.0,
            normalization: Normalization::half(3),
            prefetch: 4,
        };
        let loader = ImageLoader::new(set.clone(), config, &Device::flex()).unwrap();
        for epoch in 0..3 {
            let started = std::time::Instant::now();
            for batch in loader.epoch(epoch, 0) {
                batch.unwrap();
            }
            println!("batches {name}: {:.0} images/s", rate(started));
        }
    }
}
