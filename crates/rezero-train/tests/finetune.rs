//! Runs that begin with another run's weights, and frozen parameters: which tensors are the source's, bit for bit.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use rezero_nn::transformer::RztxEncoderConfig;
use rezero_nn::vit::VitConfig;
use rezero_train::recipe::Recipe;
use rezero_train::record::{checkpoint, run_dir};

use crate::support::{cifar_layout, fail, rows, run, scratch, succeed};

/// Every tensor of a checkpoint's weights by name, as its shape and bytes.
fn tensors(checkpoint: &Path) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    tensors_of(checkpoint, "model.bpk")
}

fn tensors_of(checkpoint: &Path, file: &str) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let reader = burn_pack::Reader::from_file(checkpoint.join(file)).unwrap();
    let all = reader.into_tensors().unwrap().into_iter();
    all.map(|tensor| {
        let shape = tensor.shape.iter().copied().collect();
        (
            tensor.name.clone(),
            (shape, tensor.to_bytes().unwrap().to_vec()),
        )
    })
    .collect()
}

fn at(run: &Path, step: usize) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    tensors(&checkpoint::list(run).unwrap()[&step])
}

const SMALL: [&str; 7] = [
    "depth=8",
    "batch=8",
    "checkpoint_every=1",
    "eval_every=2",
    "keep=20",
    "log_every=1",
    "epochs=1",
];

fn train(dir: &Path, data: &str, name: &str, more: &[&str]) -> crate::support::Said {
    let first = [
        "train",
        "cifar10-resnet20",
        "--data-dir",
        data,
        "--run-dir",
        name,
        "--plain",
    ];
    succeed(dir, &[&first[..], &SMALL[..], more].concat())
}

#[test]
fn loaded_and_frozen_weights_are_the_sources_bit_for_bit() {
    let dir = scratch();
    let dir = dir.path();
    let data = cifar_layout(dir, 20);
    let data = data.to_str().unwrap();
    train(dir, data, "source", &["steps=3"]);
    let source = at(&dir.join("source"), 3);
    // Momentum and Adam's moments, decay, clipping and parts of a batch.
    for (name, optimizer) in [
        ("sgd", &["weight_decay=0.1", "clip_norm=0.5"][..]),
        (
            "adam",
            &[
                "optimizer=adamw",
                "schedule=constant",
                "lr=0.01",
                "weight_decay=0.1",
                "accumulate=2",
            ],
        ),
        (
            "lamb",
            &[
                "optimizer=lamb",
                "schedule=constant",
                "lr=0.01",
                "weight_decay=0.1",
            ],
        ),
    ] {
        let own = [
            "train.from=source/checkpoints/step-3",
            "freeze=[\"conv*\",\"*.conv1.*\"]",
            "seed=9",
            "steps=3",
        ];
        let said = train(dir, data, name, &[&own[..], optimizer].concat());
        assert!(
            said.err.contains("weights of source at step 3"),
            "{}",
            said.err
        );
        let first = at(&dir.join(name), 0);
        assert_eq!(first, source, "{name}: step 0 is not the source");
        let last = at(&dir.join(name), 3);
        let is_frozen = |tensor: &str| tensor.starts_with("conv") || tensor.contains(".conv1.");
        let mut counts = [0, 0];
        for (tensor, value) in &last {
            // The layout of the file has names that the patterns match, else this asserts nothing.
            let same = *value == source[tensor];
            assert_eq!(same, is_frozen(tensor), "{name}: {tensor}");
            counts[usize::from(same)] += 1;
        }
        assert!(counts[0] > 3 && counts[1] > 2, "{counts:?}");
    }
    let environment = run_dir::environment(&dir.join("sgd")).unwrap();
    let began_with = environment.began_with.unwrap();
    assert_eq!(began_with.step, 3);
    let manifest = fs::read_to_string(dir.join("source/checkpoints/step-3/manifest.json")).unwrap();
    assert!(manifest.contains(&began_with.sha256), "{manifest}");
}

#[test]
fn frozen_parameters_do_not_count_in_the_gradient_norm() {
    let dir = scratch();
    let dir = dir.path();
    let data = cifar_layout(dir, 20);
    let data = data.to_str().unwrap();
    train(dir, data, "all", &["steps=1"]);
    train(dir, data, "stem", &["steps=1", "freeze=[\"conv.*\"]"]);
    train(
        dir,
        data,
        "rest",
        &["steps=1", "freeze=[\"norm.*\",\"blocks.*\",\"linear.*\"]"],
    );
    let norm = |name: &str| rows(&dir.join(name))[0].grad_norm.unwrap();
    let (all, without, alone) = (norm("all"), norm("stem"), norm("rest"));
    assert!(without < all && alone < all, "{all} {without} {alone}");
    // The squares of disjoint sets of parameters add up.
    let sum = (without.powi(2) + alone.powi(2)).sqrt();
    assert!((sum / all - 1.0).abs() < 1e-4, "{all} {without} {alone}");
}

#[test]
fn a_fine_tuned_run_resumes_without_its_source() {
    let dir = scratch();
    let dir = dir.path();
    let data = cifar_layout(dir, 20);
    let data = data.to_str().unwrap();
    train(dir, data, "source", &["steps=2"]);
    let own = ["train.from=source", "freeze=[\"conv*\"]", "seed=9"];
    train(dir, data, "whole", &[&own[..], &["steps=4"]].concat());
    train(dir, data, "parts", &[&own[..], &["steps=2"]].concat());
    fs::remove_dir_all(dir.join("source")).unwrap();
    // As if it was killed before its first checkpoint.
    let all = checkpoint::list(&dir.join("parts")).unwrap();
    for (step, path) in all {
        if step > 0 {
            fs::remove_dir_all(path).unwrap();
        }
    }
    fs::remove_file(dir.join("parts/DONE")).unwrap();
    succeed(
        dir,
        &[
            "train",
            "parts",
            "--resume",
            "--data-dir",
            data,
            "--plain",
            "steps=4",
        ],
    );
    assert_eq!(at(&dir.join("parts"), 4), at(&dir.join("whole"), 4));
    assert_eq!(rows(&dir.join("parts")), rows(&dir.join("whole")));
    let kept = run_dir::environment(&dir.join("parts")).unwrap().began_with;
    assert!(kept.is_some_and(|kept| kept.step == 2));
    // A run from somebody else, whose path leads to a run of ours, is not begun anew from it.
    fs::rename(dir.join("whole"), dir.join("source")).unwrap();
    fs::remove_dir_all(dir.join("parts/checkpoints")).unwrap();
    let _ = fs::remove_file(dir.join("parts/DONE"));
    fail(
        dir,
        &[
            "train",
            "parts",
            "--resume",
            "--data-dir",
            data,
            "--plain",
            "steps=4",
        ],
        1,
        &["began with the weights of another run", "start a new run"],
    );
}

#[test]
fn a_language_model_takes_another_context() {
    let dir = scratch();
    let dir = dir.path();
    fs::write(
        dir.join("text"),
        "a fine tuned text of a few words. ".repeat(300),
    )
    .unwrap();
    let base = [
        "train",
        "enwik8-tiny",
        "--text",
        "text",
        "--plain",
        "depth=2",
        "d_model=16",
        "d_ff=32",
    ];
    let more = [
        "positions=learned",
        "batch=4",
        "steps=2",
        "valid_items=500",
        "lr=1e-2",
    ];
    let words = |own: &[&'static str]| [&base[..], &more[..], own].concat();
    succeed(dir, &words(&["context=16", "--run-dir", "source"]));
    let said = succeed(
        dir,
        &words(&[
            "context=24",
            "seed=5",
            "train.from=source",
            "--run-dir",
            "tuned",
        ]),
    );
    assert!(said.err.contains("[16, 16] -> [24, 16]"), "{}", said.err);
    succeed(
        dir,
        &words(&[
            "context=24",
            "seed=5",
            "--run-dir",
            "fresh",
            "checkpoint_every=1",
            "keep=9",
        ]),
    );
    let (source, tuned) = (at(&dir.join("source"), 2), at(&dir.join("tuned"), 0));
    let others: Vec<&String> = tuned
        .keys()
        .filter(|name| tuned[*name] != source[*name])
        .collect();
    let [table] = others.as_slice() else {
        panic!("{others:?} are not the source's");
    };
    assert_eq!(tuned[*table].0, [24, 16]);
    // The new table is drawn with the run's seed: a run without a source has the same one, less two steps of 0.01.
    let floats = |bytes: &[u8]| -> Vec<f32> {
        let parts = bytes.chunks_exact(4);
        parts
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    };
    let fresh = at(&dir.join("fresh"), 1);
    let (a, b) = (floats(&tuned[*table].1), floats(&fresh[*table].1));
    let worst = a
        .iter()
        .zip(&b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(worst < 0.0101, "{worst}");
}

#[test]
fn what_cannot_be_begun_with_is_refused() {
    let dir = scratch();
    let dir = dir.path();
    let data = cifar_layout(dir, 20);
    let data = data.to_str().unwrap();
    train(dir, data, "source", &["steps=1"]);
    let refused = |own: &[&str], parts: &[&str]| {
        let first = [
            "train",
            "cifar10-resnet20",
            "--data-dir",
            data,
            "--run-dir",
            "new",
            "--plain",
        ];
        fail(
            dir,
            &[&first[..], &SMALL[..], &["steps=1"], own].concat(),
            1,
            parts,
        );
        assert!(!dir.join("new").exists(), "{own:?} left a directory");
    };
    refused(
        &["train.from=source", "depth=14"],
        &["another network", "depth=8", "depth=14"],
    );
    refused(
        &["train.from=source", "scheme=residual"],
        &["another network", "scheme=rezero", "scheme=residual"],
    );
    refused(&["train.from=nowhere"], &["holds no run"]);
    refused(
        &["train.from=source/checkpoints/step-7"],
        &["no checkpoint `7`"],
    );
    refused(&["train.from="], &["train.from", "has no effect"]);
    refused(&["freeze=[]"], &["train.freeze", "has no effect"]);
    refused(
        &["freeze=[\"nothing*\"]"],
        &["`nothing*` matches no parameter"],
    );
    refused(&["freeze=[\"*\"]"], &["nothing is trained"]);
    refused(&["freeze=[\"conv\"]"], &["`conv` matches no parameter"]);
    let other = [
        "train",
        "cifar10-mlp64",
        "--data-dir",
        data,
        "--run-dir",
        "new",
        "depth=2",
        "width=8",
    ];
    let own = [&other[..], &["train.from=source"]].concat();
    fail(dir, &own, 1, &["another network", "cifar-resnet", "mlp"]);
    let own = [&other[..], &["recompute=true", "freeze=[\"*\"]"]].concat();
    fail(dir, &own, 1, &["train.freeze", "recompute=true"]);
    // A damaged source.
    let weights = dir.join("source/checkpoints/step-1/model.bpk");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).unwrap();
    refused(&["train.from=source"], &["model.bpk", "was altered"]);
}

#[test]
fn keys_without_a_value_are_not_written() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 20);
    train(dir.path(), data.to_str().unwrap(), "plain", &["steps=1"]);
    let text = fs::read_to_string(dir.path().join("plain/recipe.toml")).unwrap();
    assert!(!text.contains("from") && !text.contains("freeze"), "{text}");
    let saved = Recipe::of_run(&dir.path().join("plain")).unwrap().recipe;
    assert!(saved.settings.train.freeze.is_empty());
    let said = run(dir.path(), &["recipes", "--keys", "train"]);
    assert!(said.out.contains("freeze"), "{}", said.out);
}

/// A run on other images begins with the weights of all layers but the last, and a sweep over them goes on.
#[test]
fn a_folder_of_other_classes_is_fine_tuned_on_and_swept() {
    let dir = scratch();
    let dir = dir.path();
    let data = cifar_layout(dir, 20);
    train(
        dir,
        data.to_str().unwrap(),
        "source",
        &["steps=3", "ema=0.5"],
    );
    for (label, class) in ["cat", "dog", "emu"].into_iter().enumerate() {
        let class = dir.join("images").join(class);
        fs::create_dir_all(&class).unwrap();
        for i in 0..8u8 {
            let pixels = [80 * label as u8 + i; 3 * 20 * 24];
            let file = class.join(format!("{i}.png"));
            image::save_buffer(file, &pixels, 24, 20, image::ExtendedColorType::Rgb8).unwrap();
        }
    }
    let folder = [
        "data=folder",
        "normalization=auto",
        "size=16",
        "resize=crop",
        "valid_share=0.25",
        "steps=2",
    ];
    let begun = [&folder[..], &["train.from=source", "freeze=['conv.*']"]].concat();
    let said = train(dir, "images", "tuned", &begun);
    assert!(
        said.err
            .contains("made anew: linear.weight [64, 10] -> [64, 3]"),
        "{}",
        said.err
    );
    let mut source = tensors(&checkpoint::list(&dir.join("source")).unwrap()[&3]);
    let first = at(&dir.join("tuned"), 0);
    // Validation scored the average, so that is what another run begins with.
    let average = checkpoint::list(&dir.join("source")).unwrap()[&3].join("ema.bpk");
    let scored = checkpoint::choose(
        &dir.join("source"),
        "3",
        &Recipe::of_run(&dir.join("source"))
            .unwrap()
            .recipe
            .identity(),
    );
    assert!(scored.unwrap().average().unwrap().is_some() && average.exists());
    source.retain(|name, _| !name.starts_with("linear"));
    let same = source
        .iter()
        .filter(|(name, value)| first[*name] == **value);
    assert_ne!(same.count(), source.len(), "the average is another network");
    assert_eq!(
        at(&dir.join("tuned"), 2)["conv.weight"],
        first["conv.weight"]
    );

    let sweep = [
        "sweep",
        "cifar10-resnet20",
        "--data-dir",
        "images",
        "--dir",
        "swept",
        "lr=0.1,0.2",
    ];
    let sweep = [&sweep[..], &SMALL[..], &folder[..]].concat();
    succeed(dir, &sweep);
    let said = succeed(dir, &sweep);
    assert!(
        said.err.contains("2 of 2 trials have ended before"),
        "{}",
        said.err
    );
    let wrong = [
        &sweep[..4],
        &["--dir", "images", "lr=0.1"],
        &SMALL[..],
        &folder[..],
    ]
    .concat();
    fail(dir, &wrong, 1, &["has other files in it and is no sweep"]);

    fs::remove_file(dir.join("images/emu/7.png")).unwrap();
    for i in 0..7 {
        fs::write(dir.join(format!("images/emu/{i}.png")), "no image").unwrap();
    }
    let corrupt = [
        &[
            "train",
            "cifar10-resnet20",
            "--data-dir",
            "images",
            "--plain",
            "skip_corrupt=true",
        ],
        &SMALL[..],
        &folder[..],
    ]
    .concat();
    fail(
        dir,
        &corrupt,
        1,
        &["no whole training image of the class \"emu\""],
    );
}

/// A Vision Transformer goes on with images of another size: its learned positions are interpolated, also
/// those of as many patches in other rows and columns.
#[test]
fn a_vision_transformer_takes_another_image_size() {
    let dir = scratch();
    let dir = dir.path();
    for (label, class) in ["cat", "dog"].into_iter().enumerate() {
        let class = dir.join("images").join(class);
        fs::create_dir_all(&class).unwrap();
        for i in 0..12u8 {
            let file = class.join(format!("{i}.png"));
            let pixels: Vec<u8> = (0..3 * 24 * 24)
                .map(|p| (p * (7 + label) + 9 * i as usize) as u8)
                .collect();
            image::save_buffer(file, &pixels, 24, 24, image::ExtendedColorType::Rgb8).unwrap();
        }
    }
    let train = |name: &str, own: &[&str]| {
        let first = [
            "train",
            "cifar10-vit",
            "--data-dir",
            "images",
            "--run-dir",
            name,
            "--plain",
            "data=folder",
            "normalization=auto",
            "resize=stretch",
            "valid_share=0.25",
            "depth=2",
            "d_model=8",
            "d_ff=12",
            "n_heads=2",
            "patch_size=4",
            "batch=6",
            "steps=3",
            "epochs=1",
            "augment=none",
            "checkpoint_every=1",
            "keep=9",
            "warmup_epochs=0",
            "lr=0.01",
        ];
        succeed(dir, &[&first[..], own].concat())
    };
    let floats = |(shape, bytes): &(Vec<usize>, Vec<u8>)| -> TensorData {
        let values = bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        TensorData::new(values.collect::<Vec<f32>>(), shape.clone())
    };
    for (pooling, token) in [("mean", 0), ("token", 1)] {
        let source = format!("{pooling}-source");
        let pooled = format!("pooling={pooling}");
        train(&source, &["size=[8,16]", "ema=0.5", &pooled]);
        let from = format!("train.from={source}/checkpoints/step-3");
        let best = tensors_of(
            &checkpoint::list(&dir.join(&source)).unwrap()[&3],
            "ema.bpk",
        );
        for size in [[16, 24], [16, 8]] {
            let name = format!("{pooling}-{}", size[1]);
            let sized = format!("size=[{},{}]", size[0], size[1]);
            let said = train(&name, &[&sized, "seed=7", &from, &pooled]);
            let rows = size[0] * size[1] / 16 + token;
            let line = format!(
                "interpolated: position_table [{}, 8] -> [{rows}, 8]",
                8 + token
            );
            assert!(said.err.contains(&line), "{}", said.err);
            assert!(!said.err.contains("made anew"), "{}", said.err);
            let (first, last) = (at(&dir.join(&name), 0), at(&dir.join(&name), 3));
            for (name, value) in &first {
                assert_eq!(*value == best[name], name != "position_table", "{name}");
            }
            // rezero-nn's own, which is compared with PyTorch's bicubic interpolation there.
            let device = Device::flex();
            let encoder = RztxEncoderConfig::new(8, 12, 2, 1);
            let config = VitConfig::new(encoder, [8, 16], 4).with_pooling(pooling.parse().unwrap());
            let mut net = config.init(&device);
            let table = Tensor::from_data(floats(&best["position_table"]), &device);
            net.position_table = net.position_table.map(|own| own.map(|_| table));
            let net = net.with_image_size(size);
            let expected = net.position_table.unwrap().val().into_data();
            assert_eq!(floats(&first["position_table"]), expected, "{name}");
            // They are trained further.
            assert_ne!(first["position_table"], last["position_table"], "{name}");
        }
    }
    // Without learned positions there is nothing to interpolate.
    train("waves", &["size=8", "positions=sinusoidal"]);
    let said = train(
        "other",
        &["size=16", "positions=sinusoidal", "train.from=waves"],
    );
    assert!(
        !said.err.contains("interpolated") && !said.err.contains("made anew"),
        "{}",
        said.err
    );
}

/// `predict` takes the network that `eval` scores.
#[test]
fn predictions_are_those_of_the_average() {
    let dir = scratch();
    let dir = dir.path();
    let data = cifar_layout(dir, 20);
    train(dir, data.to_str().unwrap(), "run", &["steps=4", "ema=0.9"]);
    let of = |command: &str, raw: &[&str]| -> serde_json::Value {
        let all = [
            command,
            "run",
            "--split",
            "valid",
            "--json",
            "--checkpoint",
            "last",
        ];
        serde_json::from_str(&succeed(dir, &[&all[..], raw].concat()).out).unwrap()
    };
    let predicted = of("predict", &[]);
    assert_ne!(predicted, of("predict", &["--raw"]));
    assert!(predicted["accuracy"].is_number(), "{predicted}");
    assert_eq!(predicted["accuracy"], of("eval", &[])["accuracy"]);
}

#[test]
fn patterns_are_a_text_or_a_list_and_leave_something_to_train() {
    let of = |word: &str| {
        let resolved = crate::support::resolve("cifar10-resnet20", &[word]);
        resolved.unwrap().recipe.settings.train.freeze
    };
    let both = ["conv.*", "norm.*"];
    for word in [
        "freeze=conv.*,norm.*",
        "freeze=\"conv.*, norm.*\"",
        "freeze=['conv.*','norm.*']",
    ] {
        assert_eq!(of(word), both, "{word}");
    }
    let dir = scratch();
    let all = "train quickstart depth=8 steps=2 batch=4 --plain";
    let refused = |more: &str, parts: &[&str]| {
        let args = format!("{all} {more}");
        let args: Vec<&str> = args.split(' ').collect();
        let said = fail(dir.path(), &args, 1, parts);
        assert!(!said.err.contains("to continue it"), "{said:?}");
    };
    refused("freeze=*", &["train.freeze", "nothing is trained"]);
    refused("optimizer=muon freeze=blocks.*", &["train.freeze"]);
    refused(
        "optimizer=muon freeze=*.conv1.*,*.conv2.*",
        &["train.freeze", "every matrix that optimizer=muon updates"],
    );
    refused(
        "augment=mixup batch=1",
        &["data.augment", "batch=1 has one"],
    );
}
