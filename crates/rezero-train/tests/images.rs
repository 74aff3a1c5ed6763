//! Data sets of images: folders, IDX files, CIFAR-100, and parts of CIFAR-10.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use burn::tensor::{Device, Distribution, Int, Tensor};
use image::{ExtendedColorType, save_buffer};
use rezero_data::{ImageBatch, ImageSet, Split, cifar10};
use rezero_train::fit::Model;
use rezero_train::recipe::Recipe;
use rezero_train::task::{Domain, Images, class_names};
use serde_json::Value;

use crate::support::{
    Said, cifar_layout, drawing, fail, families, last, network, of_images, resolve, rezero, rows,
    scratch, succeed,
};

/// Writes images as PNG files, `dir/CLASS/NUMBER.png`.
fn as_files(set: &ImageSet, dir: &Path) {
    let shape = set.shape();
    let plane = shape.height * shape.width;
    for i in 0..set.len() {
        let planes = &set.pixels(i).unwrap();
        let pixel = |at| (0..shape.channels).map(move |c| planes[c * plane + at]);
        let pixels: Vec<u8> = (0..plane).flat_map(pixel).collect();
        let class = dir.join(&set.class_names()[usize::from(set.label(i))]);
        fs::create_dir_all(&class).unwrap();
        let colour = match shape.channels {
            1 => ExtendedColorType::L8,
            _ => ExtendedColorType::Rgb8,
        };
        let file = class.join(format!("{i:05}.png"));
        save_buffer(
            file,
            &pixels,
            shape.width as u32,
            shape.height as u32,
            colour,
        )
        .unwrap();
    }
}

/// CIFAR-10's layout as a folder of PNG files with train, val and test.
fn cifar_as_folder(data: &Path, to: &Path) -> PathBuf {
    for (split, part) in Split::ALL.into_iter().zip(["train", "val", "test"]) {
        as_files(&cifar10::load(data, split).unwrap(), &to.join(part));
    }
    to.to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

const SHORT: [&str; 8] = [
    "train",
    "cifar10-resnet20",
    "depth=8",
    "batch=16",
    "epochs=1",
    "steps=6",
    "log_every=1",
    "--plain",
];

fn short<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&SHORT[..], more].concat()
}

fn scored(dir: &Path, args: &[&str]) -> Value {
    let said = succeed(dir, &[&["eval"], args, &["--json"]].concat());
    let mut value: Value = serde_json::from_str(&said.out).unwrap();
    let object = value.as_object_mut().unwrap();
    object.retain(|key, _| ["loss", "accuracy", "items"].contains(&key.as_str()));
    value
}

/// The same images as PNG files and as binary records give the same numbers, bit for bit.
/// `REZERO_TEST_DATA` adds official images.
#[test]
fn a_folder_of_png_files_gives_the_losses_of_the_binary_files() {
    let dir = scratch();
    let mut sets = vec![cifar_layout(dir.path(), 30)];
    match std::env::var_os("REZERO_TEST_DATA") {
        Some(root) => sets.push(PathBuf::from(root).join("cifar10-sample")),
        None => println!("without official images: REZERO_TEST_DATA is not set"),
    }
    for (i, binary) in sets.iter().enumerate() {
        let folder = cifar_as_folder(binary, &dir.path().join(format!("folder-{i}")));
        let run = |name: &str| dir.path().join(format!("{name}-{i}"));
        let (of_binary, of_folder) = (run("binary"), run("folder-run"));
        let keys = ["--data-dir", text(binary), "--run-dir", text(&of_binary)];
        succeed(dir.path(), &short(&keys));
        let keys = [
            "data=folder",
            "normalization=table",
            "--data-dir",
            text(&folder),
        ];
        let keys = [&keys[..], &["--run-dir", text(&of_folder)]].concat();
        succeed(dir.path(), &short(&keys));
        assert_eq!(rows(&of_binary), rows(&of_folder));
        assert!(last(&of_binary) == last(&of_folder));
        for split in ["valid", "test"] {
            let scores = [&of_binary, &of_folder]
                .map(|run| scored(dir.path(), &[text(run), "--split", split]));
            assert_eq!(scores[0], scores[1]);
        }
    }
}

/// What only the data can tell is in the run's recipe from its first step on, and every command
/// takes it from there.
#[test]
fn a_run_records_what_it_found_in_its_folder() {
    let dir = scratch();
    let grey = dir.path().join("grey");
    let set = rezero_data::shapes::generate(Split::Train, 60, 3);
    // Four classes of grey images of 20 × 12.
    let shape = rezero_data::ImageShape::new(1, 20, 12);
    let pixels = (0..60)
        .flat_map(|i| set.pixels(i).unwrap()[..shape.bytes()].to_vec())
        .collect();
    let labels: Vec<u16> = set.labels().iter().map(|label| label % 4).collect();
    let names = ["b c", "\"d\"", "ä", "e"];
    as_files(
        &ImageSet::from_raw("x", shape, pixels, labels, names, 0).unwrap(),
        &grey,
    );

    let run = dir.path().join("run");
    let keys = [
        "data=folder",
        "normalization=auto",
        "channels=1",
        "valid_share=0.2",
        "test_share=0.1",
    ];
    let mlp = [
        "model=mlp",
        "depth=3",
        "width=8",
        "--data-dir",
        text(&grey),
        "--run-dir",
        text(&run),
    ];
    let keys: Vec<&str> = SHORT
        .iter()
        .filter(|key| **key != "depth=8")
        .chain(&keys)
        .chain(&mlp)
        .copied()
        .collect();
    succeed(dir.path(), &keys);
    let recipe = Recipe::of_run(&run).unwrap().recipe;
    let data = &of_images(&recipe).data;
    assert_eq!(data.class_names, ["\"d\"", "b c", "e", "ä"]);
    assert_eq!(class_names(data), data.class_names);
    assert_eq!(data.size, [20, 12]);
    let form = Images::form(data);
    assert_eq!((form.shape, form.num_classes), (shape, 4));
    let train = Images::open(
        data,
        &rezero_train::task::Places {
            dir: Some(grey.clone()),
            ..Default::default()
        },
        Split::Train,
    )
    .unwrap();
    let found = rezero_data::Normalization::of(&train).unwrap();
    assert_eq!(
        [data.mean[0] as f32, data.std[0] as f32],
        [found.mean[0], found.std[0]]
    );
    assert!(
        recipe.identity().ends_with(" images=1x20x12 classes=4"),
        "{}",
        recipe.identity()
    );

    // Without the data: a deeper network, and its Jacobian on images that are there.
    let grown = dir.path().join("grown");
    succeed(
        dir.path(),
        &[
            "grow",
            text(&run),
            "--layers",
            "5",
            "--only",
            "--run-dir",
            text(&grown),
        ],
    );
    let grown = Recipe::of_run(&grown).unwrap().recipe;
    assert_eq!(&of_images(&grown).data, data);
    succeed(dir.path(), &["jacobian", text(&run), "--inputs", "2"]);
    assert_eq!(
        scored(dir.path(), &[text(&run), "--split", "test"])["items"],
        6
    );
    assert_eq!(
        scored(dir.path(), &[text(&run), "--split", "valid"])["items"],
        12
    );

    // Continued by the recipe's name, which leaves to the data what the run has found.
    let longer: Vec<&str> = keys
        .iter()
        .map(|key| if *key == "steps=6" { "steps=9" } else { key })
        .collect();
    let said = succeed(
        dir.path(),
        &[&longer[..], &["epochs=9", "--resume"]].concat(),
    );
    assert!(said.err.contains("continuing from step"), "{said:?}");
    assert_eq!(&of_images(&Recipe::of_run(&run).unwrap().recipe).data, data);

    // The test images of some of the classes, elsewhere.
    let other = dir.path().join("other");
    fs::create_dir_all(other.join("test/ä")).unwrap();
    fs::copy(
        fs::read_dir(grey.join("ä"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path(),
        other.join("test/ä/1.png"),
    )
    .unwrap();
    let scores = scored(
        dir.path(),
        &[text(&run), "--split", "test", "--data-dir", text(&other)],
    );
    assert_eq!(scores["items"], 1);
    fs::rename(other.join("test/ä"), other.join("test/f")).unwrap();
    let eval = [
        "eval",
        text(&run),
        "--split",
        "test",
        "--data-dir",
        text(&other),
    ];
    fail(
        dir.path(),
        &eval,
        1,
        &["holds a folder \"f\"", "none of the 4 classes"],
    );

    // A recipe that has lost what the run found makes no network.
    let file = run.join("recipe.toml");
    let whole = fs::read_to_string(&file).unwrap();
    let less = whole
        .lines()
        .filter(|line| !line.starts_with("class_names"));
    fs::write(&file, less.collect::<Vec<_>>().join("\n")).unwrap();
    fail(
        dir.path(),
        &["eval", text(&run)],
        1,
        &["recipe.toml", "data.class_names"],
    );
    fs::write(&file, whole).unwrap();

    // Another image in the folder is another data set.
    fs::copy(grey.join("e/00003.png"), grey.join("e/99999.png")).unwrap();
    fail(
        dir.path(),
        &["train", text(&run), "--resume", "steps=12"],
        1,
        &["data"],
    );
}

/// A run whose images are decoded anew for each batch is the run whose images are in memory, bit for bit; and an image
/// that disappears ends it with its name, after which it goes on from its checkpoint.
#[test]
fn a_folder_that_memory_does_not_hold_gives_the_same_run() {
    let dir = scratch();
    let binary = cifar_layout(dir.path(), 30);
    let folder = cifar_as_folder(&binary, &dir.path().join("folder"));
    let run = |name: &str| dir.path().join(name);
    let keys = |run: &Path, more: &[&'static str]| -> Vec<String> {
        let keys = ["data=folder", "size=64", "resize=stretch", "log_every=1"];
        let of_run = ["--data-dir", text(&folder), "--run-dir", text(run)];
        let model = [
            "train",
            "cifar10-resnet20",
            "depth=8",
            "batch=16",
            "epochs=4",
            "--plain",
        ];
        let all = model.iter().chain(&keys).chain(&of_run).chain(more);
        all.map(|&key| key.to_owned()).collect()
    };
    let train = |run: &Path, more: &[&'static str]| {
        let keys = keys(run, more);
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        succeed(dir.path(), &keys)
    };
    let (held, read) = (run("held"), run("read"));
    let said = train(&held, &[]);
    assert!(!said.err.contains("decoded once now"), "{said:?}");
    let said = train(&read, &["image_memory=1"]);
    let told = said
        .err
        .matches("decoded once now and again for every batch")
        .count();
    assert_eq!(told, 1, "{said:?}");
    assert!(
        said.err
            .contains("train: 135 images of 1.7 MB decoded, and 1.0 MB are"),
        "{said:?}"
    );
    assert_eq!(rows(&read), rows(&held));
    assert!(last(&read) == last(&held));
    assert_eq!(
        scored(dir.path(), &[text(&read), "--split", "test"]),
        scored(dir.path(), &[text(&held), "--split", "test"])
    );
    fail(
        dir.path(),
        &["train", "quickstart", "image_memory=1"],
        1,
        &["run.image_memory", "no effect", "data=folder"],
    );

    // An image that is gone in the middle of a run, as soon as there is a checkpoint.
    let cut = run("cut");
    let args = keys(
        &cut,
        &["image_memory=1", "checkpoint_every=3", "prefetch=0"],
    );
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut child = rezero(dir.path(), &args);
    let child = child
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let checkpoint = cut.join("checkpoints/step-3/manifest.json");
    let class = fs::read_dir(folder.join("train"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let image = fs::read_dir(class).unwrap().next().unwrap().unwrap().path();
    let away = dir.path().join("away.png");
    let since = std::time::Instant::now();
    while !(checkpoint.exists() || since.elapsed().as_secs() > 120) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    fs::rename(&image, &away).unwrap();
    let said = Said::from(child.wait_with_output().unwrap());
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.err.contains(text(&image)) && said.err.contains("no such file"),
        "{said:?}"
    );
    assert!(last(&cut).step >= 3);
    // It resumes when the image is back.
    fs::rename(&away, &image).unwrap();
    let said = succeed(dir.path(), &["train", text(&cut), "--resume", "--plain"]);
    assert!(said.err.contains("continuing from step"), "{said:?}");
    assert_eq!(rows(&cut), rows(&held));
    assert!(last(&cut) == last(&held));
}

#[test]
fn keys_of_a_folder_are_checked() {
    for (keys, parts) in [
        (
            &["channels=1"][..],
            &["data.channels", "no effect", "data=folder"][..],
        ),
        (&["size=64"], &["data.size", "no effect"]),
        (
            &["data=folder", "channels=5"],
            &["data.channels", "must be 1 (grey)"],
        ),
        (
            &["data=folder", "size=[1,2,3]"],
            &["data.size", "[height, width] or one number"],
        ),
        (&["data=folder", "size=0"], &["data.size", "at least 1"]),
        (
            &["data=folder", "size=100000"],
            &["data.size", "at most 67108864"],
        ),
        (
            &["data=folder", "size=x"],
            &[
                "data.size",
                "expected a number of pixels or [height, width]",
            ],
        ),
        (
            &["data=folder", "resize=crop"],
            &["data.resize", "needs the size"],
        ),
        (
            &["data=folder", "resize=cut"],
            &["data.resize", "there are no, stretch, crop"],
        ),
        (
            &["data=folder", "class_names=['a','a']"],
            &["data.class_names", "different names"],
        ),
        (
            &["data=folder", "mean=[0.5]"],
            &["data.mean", "each of 3 channels"],
        ),
        (
            &["data=folder", "std=[0.5,0.5,0]"],
            &["data.std", "must be at least 1e-6"],
        ),
        (
            &["data=folder", "normalization=half", "mean=[0.5,0.5,0.5]"],
            &["data.mean", "no effect"],
        ),
        (&["data=folder", "valid_share=1"], &["data.valid_share"]),
        (
            &["data=folder", "valid_share=0.5", "test_share=0.5"],
            &["data.valid_share"],
        ),
        (
            &[
                "data=folder",
                "normalization=table",
                "channels=1",
                "size=8",
                "class_names=['a']",
            ],
            &[
                "data.normalization",
                "3 channels, but the images are 1 × 8 × 8",
            ],
        ),
        (
            &["data=mnist", "normalization=table"],
            &["data.normalization", "1 × 28 × 28"],
        ),
        (
            &["data=mnist", "augment=crop:padding=28"],
            &["data.augment", "28"],
        ),
        (
            &[
                "data=folder",
                "normalization=half",
                "class_names=['a']",
                "size=8192",
                "model=mlp",
                "width=4096",
                "depth=1",
            ],
            &["model.width", "3 × 8192 × 8192 in 1 classes"],
        ),
    ] {
        let said = resolve("quickstart", keys).unwrap_err();
        for part in parts {
            assert!(said.contains(part), "{keys:?}: no `{part}` in: {said}");
        }
    }
    let dir = scratch();
    fail(dir.path(), &short(&["data=folder"]), 1, &["--data-dir"]);
    fs::create_dir_all(dir.path().join("x/a")).unwrap();
    let folder = ["data=folder", "--data-dir", "x"];
    fail(dir.path(), &short(&folder), 1, &["x/a holds no image"]);
    fs::write(dir.path().join("x/a/1.png"), "x").unwrap();
    fail(
        dir.path(),
        &short(&folder),
        1,
        &["x/a/1.png is no whole image"],
    );
    // A run that cannot begin leaves nothing.
    assert!(!dir.path().join("runs").exists());
    save_buffer(
        dir.path().join("x/a/2.png"),
        &[0; 27],
        3,
        3,
        ExtendedColorType::Rgb8,
    )
    .unwrap();
    let skip = ["skip_corrupt=true", "valid_share=0.5"];
    let said = fail(
        dir.path(),
        &short(&[&folder[..], &skip].concat()),
        1,
        &["no whole image"],
    );
    assert!(!said.err.contains("panicked"));
    for i in 3..9 {
        save_buffer(
            dir.path().join(format!("x/a/{i}.png")),
            &[i; 27],
            3,
            3,
            ExtendedColorType::Rgb8,
        )
        .unwrap();
    }
    let parts = ["1 corrupt image left out", "data.augment", "at most 2"];
    fail(
        dir.path(),
        &short(&[&folder[..], &skip].concat()),
        1,
        &parts,
    );
}

/// Every family makes a network for images of any channels and size, and learns from a batch of them.
#[test]
fn every_family_takes_images_of_any_form() {
    let device = Device::flex().autodiff();
    let mut networks = 0;
    for family in families().iter().filter(|family| !family.of_text) {
        for (channels, height, width) in
            [(1, 28, 28), (3, 33, 20), (1, 1, 1), (4, 7, 40), (2, 5, 3)]
        {
            for &scheme in &family.schemes {
                let (depth, small): (&str, &[&str]) = match family.name.as_str() {
                    "mlp" => ("depth=3", &[]),
                    "cifar-resnet" => ("depth=8", &[]),
                    "preact-resnet" => ("depth=18", &[]),
                    "vit" => (
                        "depth=1",
                        &["d_model=8", "n_heads=2", "d_ff=8", "patch_size=1"],
                    ),
                    "mixer" => ("depth=1", &["d_model=8", "patch_size=1"]),
                    other => panic!("{other} is new: which depth makes it small?"),
                };
                let keys = [
                    format!("model={}", family.name),
                    format!("scheme={scheme}"),
                    format!("channels={channels}"),
                    format!("size=[{height},{width}]"),
                ];
                let more = [
                    depth,
                    "data=folder",
                    "normalization=half",
                    "class_names=['a','b','c']",
                    "augment=none",
                ];
                let keys = keys.iter().map(String::as_str).chain(more);
                let keys: Vec<&str> = keys.chain(small.iter().copied()).collect();
                // Eighteen layers take long, under one of their schemes.
                if depth == "depth=18" && (scheme != family.schemes[0] || height > 30) {
                    continue;
                }
                let recipe = resolve("quickstart", &keys).unwrap().recipe;
                let net = network(of_images(&recipe), &recipe.settings, &device);
                let images = {
                    let _drawing = drawing();
                    Tensor::random([5, channels, height, width], Distribution::Default, &device)
                };
                let targets = Tensor::<1, Int>::from_ints([0, 1, 2, 1, 0], &device);
                let batch = ImageBatch {
                    images,
                    targets,
                    soft: None,
                };
                let sums = net.loss(&batch);
                let loss = sums.loss.clone().into_data().iter::<f32>().next().unwrap() / 5.0;
                assert!(loss.is_finite() && loss > 0.0, "{keys:?}: {loss}");
                sums.loss.backward();
                networks += 1;
            }
        }
    }
    assert!(networks > 40, "{networks}");
}

/// A folder that holds one of CIFAR-10's splits suffices for what reads that split.
#[test]
fn the_test_file_alone_can_be_scored() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 8);
    let run = dir.path().join("run");
    succeed(
        dir.path(),
        &short(&[
            "steps=2",
            "--data-dir",
            text(&data),
            "--run-dir",
            text(&run),
        ]),
    );
    let all = scored(dir.path(), &[text(&run), "--split", "test"]);
    let alone = dir.path().join("alone");
    fs::create_dir(&alone).unwrap();
    fs::copy(
        data.join(cifar10::TEST_FILE),
        alone.join(cifar10::TEST_FILE),
    )
    .unwrap();
    let args = [text(&run), "--split", "test", "--data-dir", text(&alone)];
    assert_eq!(scored(dir.path(), &args), all);
    let train = [&["eval"], &args[..1], &["--split", "train"], &args[3..]].concat();
    fail(dir.path(), &train, 1, &["lacks data_batch_1.bin"]);
}

/// MNIST's files, with a few generated images in them, train a network and are scored.
#[test]
fn a_network_learns_from_idx_files() {
    let dir = scratch();
    let folder = dir.path().join("datasets/fashion-mnist");
    fs::create_dir_all(&folder).unwrap();
    for (part, n) in [("train", 50u32), ("t10k", 20)] {
        let mut images = [
            &[0, 0, 8, 3][..],
            &n.to_be_bytes(),
            &[0, 0, 0, 28, 0, 0, 0, 28],
        ]
        .concat();
        images.extend((0..n * 784).map(|i| (i / 784 * 5 + i % 11) as u8));
        let mut labels = [&[0, 0, 8, 1][..], &n.to_be_bytes()].concat();
        labels.extend((0..n).map(|i| (i % 10) as u8));
        fs::write(folder.join(format!("{part}-images-idx3-ubyte")), images).unwrap();
        fs::write(folder.join(format!("{part}-labels-idx1-ubyte")), labels).unwrap();
    }
    let run = dir.path().join("run");
    let said = succeed(
        dir.path(),
        &short(&[
            "data=fashion-mnist",
            "normalization=auto",
            "steps=3",
            "--run-dir",
            text(&run),
        ]),
    );
    assert!(
        said.err
            .contains("fashion-mnist: 45 training images, 5 validation images"),
        "{said:?}"
    );
    assert_eq!(
        scored(dir.path(), &[text(&run), "--split", "test"])["items"],
        20
    );
    let recipe = Recipe::of_run(&run).unwrap().recipe;
    assert!(recipe.identity().ends_with(" images=1x28x28 classes=10"));
    assert!(!recipe.to_toml().contains("class_names"));
    fail(
        dir.path(),
        &short(&["data=mnist", "normalization=auto"]),
        1,
        &["no MNIST in datasets/mnist", "does not exist"],
    );
}
