//! Weights out of runs and into new ones: `rezero export`, `rezero import`, `rezero grow`.

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::Value;

use crate::support::{cifar_layout, fail, rezero, scratch, succeed};

fn train(here: &Path, run: &str, keys: &[&str]) {
    let always = [
        "--data-dir",
        "data",
        "--plain",
        "schedule=constant",
        "batch=4",
        "--run-dir",
        run,
    ];
    succeed(here, &[&["train"][..], keys, &always].concat());
}

/// The loss and the number of items of a split.
fn score(here: &Path, run: &str, data: &str) -> (Value, Value) {
    let said = succeed(here, &["eval", run, "--data-dir", data, "--json"]);
    let scored: Value = serde_json::from_str(&said.out).unwrap();
    (scored["loss"].clone(), scored["items"].clone())
}

/// The file with these tensors and this metadata alone.
fn keep(from: &Path, to: &Path, metadata: Option<(&str, &str)>, kept: impl Fn(&str) -> bool) {
    let bytes = fs::read(from).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors: Vec<(String, TensorView)> = file
        .tensors()
        .into_iter()
        .filter(|(name, _)| kept(name))
        .collect();
    let metadata = metadata.map(|(key, value)| [(key.to_owned(), value.to_owned())].into());
    fs::write(to, safetensors::serialize(tensors, metadata).unwrap()).unwrap();
}

fn tensors(file: &Path) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let bytes = fs::read(file).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let of =
        |(name, view): (String, TensorView)| (name, view.shape().to_vec(), view.data().to_vec());
    let mut all: Vec<_> = file.tensors().into_iter().map(of).collect();
    all.sort();
    all
}

/// A folder of pictures in four classes, of 20 × 20 pixels.
fn folder(here: &Path) {
    for class in ["ant", "bee", "cow", "dog"] {
        for (split, n) in [("train", 3), ("val", 2)] {
            let dir = here.join("own").join(split).join(class);
            fs::create_dir_all(&dir).unwrap();
            for i in 0..n {
                let of = |x: u32, y: u32| {
                    [
                        (x * 11 + y * 7 + i * 31) as u8,
                        (x * y) as u8,
                        class.as_bytes()[0],
                    ]
                };
                let image = image::RgbImage::from_fn(20, 20, |x, y| image::Rgb(of(x, y)));
                image.save(dir.join(format!("{i}.png"))).unwrap();
            }
        }
    }
}

/// Of four classes and 20 × 20 pixels: the export brings its recipe, and without it the shapes tell enough.
#[test]
fn files_of_other_classes_and_sizes_become_runs() {
    let dir = scratch();
    let here = dir.path();
    folder(here);
    for (name, keys) in [
        ("resnet", &["cifar10-resnet20", "depth=8"][..]),
        (
            "vit",
            &[
                "cifar10-vit",
                "depth=2",
                "d_model=8",
                "d_ff=12",
                "n_heads=2",
                "patch_size=4",
                "warmup_epochs=0",
            ],
        ),
    ] {
        let always = [
            "data=folder",
            "--data-dir",
            "own",
            "size=20",
            "--plain",
            "steps=2",
            "batch=4",
            "--run-dir",
            name,
        ];
        succeed(
            here,
            &[&["train"][..], keys, &always, &["schedule=constant"]].concat(),
        );
        let file = format!("{name}.safetensors");
        succeed(here, &["export", name, "--out", &file]);
        // Nothing is to be given.
        let again = format!("{name}-again");
        let said = succeed(here, &["import", &file, "--run-dir", &again]);
        assert!(
            !said.err.contains("does not tell the names"),
            "{}",
            said.err
        );
        assert_eq!(score(here, &again, "own"), score(here, name, "own"));
        // As somebody else's file.
        let foreign = format!("{name}-foreign");
        let file = format!("{foreign}.safetensors");
        keep(
            &here.join(format!("{name}.safetensors")),
            &here.join(&file),
            None,
            |_| true,
        );
        let mut args = vec!["import", &file];
        if name == "vit" {
            args.push("n_heads=2");
        }
        let said = succeed(here, &args);
        assert!(
            said.err
                .contains("the file does not tell the names of its classes"),
            "{}",
            said.err
        );
        let run = format!("runs/{foreign}_imported");
        let recipe = fs::read_to_string(here.join(&run).join("recipe.toml")).unwrap();
        for line in [
            "set = \"folder\"",
            "class_names = [\"0\", \"1\", \"2\", \"3\"]",
            "resize = \"crop\"",
        ] {
            assert!(recipe.contains(line), "{line}: {recipe}");
        }
        if name == "vit" {
            assert!(recipe.contains("size = [20, 20]"), "{recipe}");
        }
        // Names and numbers of the user's own.
        let own = format!("{foreign}-named");
        args.extend([
            "class_names=[\"ant\",\"bee\",\"cow\",\"dog\"]",
            "size=20",
            "--run-dir",
            &own,
        ]);
        succeed(here, &args);
        score(here, &own, "own");
    }
    // A recipe of somebody else's file does not choose a machine.
    let text = fs::read_to_string(here.join("resnet/recipe.toml")).unwrap();
    let text = text.replace("\ndevice = \"auto\"", "\ndevice = \"remote:example.org:1\"");
    assert!(text.contains("example.org"), "{text}");
    keep(
        &here.join("resnet.safetensors"),
        &here.join("bad.safetensors"),
        Some(("recipe", &text)),
        |_| true,
    );
    fail(
        here,
        &["import", "bad.safetensors"],
        1,
        &["run.device", "example.org"],
    );
    assert!(!here.join("runs/bad_imported").exists());
}

/// Every scheme's gates, and output layers without a bias.
#[test]
fn tensors_come_back_as_they_were() {
    let dir = scratch();
    let here = dir.path();
    cifar_layout(here, 4);
    let vit = [
        "cifar10-vit",
        "depth=2",
        "d_model=8",
        "d_ff=12",
        "n_heads=2",
        "patch_size=8",
        "warmup_epochs=0",
    ];
    let mixer = [
        "cifar10-mixer",
        "depth=2",
        "d_model=8",
        "d_tokens=6",
        "d_channels=12",
        "patch_size=8",
        "warmup_epochs=0",
    ];
    let resnet = ["cifar10-resnet20", "depth=8"];
    let mlp = ["cifar10-mlp64", "depth=2", "width=8"];
    for (i, (keys, scheme, bias)) in [
        (&vit[..], "layerscale", "head.bias"),
        (&mixer, "layerscale", "head.bias"),
        (&vit, "rezero", "head.bias"),
        (&mixer, "pre-norm", "head.bias"),
        (&resnet, "rezero", "fc.bias"),
        (&mlp, "rezero", "linear_output.bias"),
    ]
    .into_iter()
    .enumerate()
    {
        let run = format!("run-{i}");
        let scheme = format!("scheme={scheme}");
        train(here, &run, &[keys, &["steps=2", &scheme]].concat());
        let [first, second, none] =
            ["first", "second", "none"].map(|name| here.join(format!("{name}-{i}.safetensors")));
        let [first, second, none] = [&first, &second, &none].map(|path| path.to_str().unwrap());
        let said = succeed(here, &["export", &run, "--out", first]);
        let usual = matches!(
            (keys[0], &*scheme),
            ("cifar10-mixer", "scheme=pre-norm") | ("cifar10-mlp64", _)
        );
        assert_eq!(
            said.err.contains("knows nothing of scheme="),
            !usual,
            "{scheme}: {}",
            said.err
        );
        let back = format!("back-{i}");
        succeed(here, &["import", first, "--run-dir", &back]);
        succeed(here, &["export", &back, "--out", second]);
        assert!(
            tensors(first.as_ref()) == tensors(second.as_ref()),
            "{scheme} {}",
            keys[0]
        );
        assert_eq!(score(here, &back, "data"), score(here, &run, "data"));
        // A head without a bias.
        keep(first.as_ref(), none.as_ref(), None, |name| name != bias);
        let mut args = vec!["import", none, "--run-dir"];
        let run = format!("none-{i}");
        args.push(&run);
        args.extend(keys.iter().filter(|key| key.starts_with("n_heads")));
        args.push(&scheme);
        let said = succeed(here, &args);
        assert!(
            said.err.contains(&format!("not in the file, so 0: {bias}")),
            "{}",
            said.err
        );
    }
}

#[test]
fn rules_that_fit_nothing_are_told() {
    let dir = scratch();
    let here = dir.path();
    cifar_layout(here, 4);
    train(here, "run", &["cifar10-resnet20", "depth=8", "steps=2"]);
    succeed(here, &["export", "run", "--out", "one.safetensors"]);
    let bytes = fs::read(here.join("one.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let twice = file.tensors().into_iter().flat_map(|(name, view)| {
        ["model", "model_ema"].map(|set| (format!("{set}.{name}"), view.clone()))
    });
    fs::write(
        here.join("two.safetensors"),
        safetensors::serialize(twice, None).unwrap(),
    )
    .unwrap();
    let none = ["import", "one.safetensors", "--ignore", "zzz*"];
    fail(here, &none, 1, &["no tensor's name matches \"zzz*\""]);
    let said = succeed(here, &["import", "two.safetensors"]);
    assert!(
        said.err.contains("begin with model_ema.; --prefix chooses"),
        "{}",
        said.err
    );
    // With the point or without.
    for (prefix, run) in [("model_ema", "a"), ("model_ema.", "b")] {
        succeed(
            here,
            &[
                "import",
                "two.safetensors",
                "--prefix",
                prefix,
                "--run-dir",
                run,
            ],
        );
    }
    fs::write(here.join("cut.pt"), b"PK\x03\x04 and no more").unwrap();
    fail(
        here,
        &["import", "cut.pt"],
        1,
        &["it is cut short or damaged"],
    );
}

/// `--dtype bf16`: the upper half of each number, rounded to even, and a run again.
#[test]
fn an_export_may_be_bf16() {
    let dir = scratch();
    let here = dir.path();
    cifar_layout(here, 4);
    train(here, "run", &["cifar10-resnet20", "depth=8", "steps=2"]);
    succeed(here, &["export", "run", "--out", "whole.safetensors"]);
    let half = ["export", "run", "--out", "half.safetensors"];
    succeed(here, &[&half[..], &["--dtype", "bf16"]].concat());
    let [whole, half] =
        ["whole", "half"].map(|name| tensors(&here.join(name).with_extension("safetensors")));
    assert_eq!(whole.len(), half.len());
    for ((name, shape, values), (of, same, rounded)) in whole.iter().zip(&half) {
        assert_eq!((name, shape), (of, same));
        for (value, rounded) in values.chunks_exact(4).zip(rounded.chunks_exact(2)) {
            let bits = u32::from_le_bytes(value.try_into().unwrap());
            let expected = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
            assert_eq!(
                expected as u16,
                u16::from_le_bytes(rounded.try_into().unwrap()),
                "{name}"
            );
        }
    }
    succeed(here, &["import", "half.safetensors", "--run-dir", "back"]);
    score(here, "back", "data");
}

/// An imported run has taken no step, so that its length may change under every schedule.
#[test]
fn an_imported_run_has_any_length() {
    let dir = scratch();
    let here = dir.path();
    cifar_layout(here, 4);
    train(here, "run", &["cifar10-resnet20", "depth=8", "steps=2"]);
    succeed(here, &["export", "run", "--out", "one.safetensors"]);
    succeed(
        here,
        &[
            "import",
            "one.safetensors",
            "schedule=cosine",
            "lr=0.1",
            "--run-dir",
            "new",
        ],
    );
    let args = ["train", "new", "--resume", "--data-dir", "data", "--plain"];
    succeed(here, &[&args[..], &["steps=3", "epochs=1"]].concat());
    let more = [&args[..], &["steps=4", "epochs=1"]].concat();
    fail(here, &more, 1, &["cannot change its length"]);
}

/// A process that is killed while it imports leaves a folder that the next one takes over.
#[test]
fn a_folder_of_an_import_that_was_killed_is_taken_over() {
    let dir = scratch();
    let here = dir.path();
    cifar_layout(here, 4);
    train(here, "run", &["cifar10-resnet20", "depth=8", "steps=2"]);
    succeed(here, &["export", "run", "--out", "one.safetensors"]);
    succeed(here, &["import", "one.safetensors", "--run-dir", "new"]);
    let whole = score(here, "new", "data");
    for name in ["recipe.toml", "env.json"] {
        fs::remove_file(here.join("new").join(name)).unwrap();
    }
    fs::write(here.join("new/checkpoints/step-0/model.bpk"), b"half").unwrap();
    succeed(here, &["import", "one.safetensors", "--run-dir", "new"]);
    assert_eq!(score(here, "new", "data"), whole);
    // Not a folder that holds anything else.
    for name in ["recipe.toml", "env.json"] {
        fs::remove_file(here.join("new").join(name)).unwrap();
    }
    fs::create_dir(here.join("new/checkpoints/step-7")).unwrap();
    let again = ["import", "one.safetensors", "--run-dir", "new"];
    fail(here, &again, 1, &["holds a run already"]);
}

/// The average grows as the weights do: the grown run scores what the run scores.
#[test]
fn a_grown_average_gives_the_same_output() {
    let dir = scratch();
    let here = dir.path();
    cifar_layout(here, 8);
    train(
        here,
        "run",
        &[
            "cifar10-resnet20",
            "depth=8",
            "ema=0.7",
            "lr=0.1",
            "steps=5",
        ],
    );
    succeed(
        here,
        &[
            "grow",
            "run",
            "--layers",
            "14",
            "--only",
            "--run-dir",
            "grown",
        ],
    );
    // The data may have moved.
    fs::rename(here.join("data"), here.join("moved")).unwrap();
    let again = [
        "grow",
        "run",
        "--layers",
        "14",
        "--data-dir",
        "moved",
        "--plain",
        "--run-dir",
        "longer",
    ];
    succeed(here, &[&again[..], &["steps=1"]].concat());
    fs::rename(here.join("moved"), here.join("data")).unwrap();
    let loss = |args: &[&str]| {
        let all = [&["eval"][..], args, &["--data-dir", "data", "--json"]].concat();
        let scored: Value = serde_json::from_str(&succeed(here, &all).out).unwrap();
        scored["loss"].as_f64().unwrap()
    };
    for raw in [&[][..], &["--raw"]] {
        let [small, deep] = ["run", "grown"].map(|run| loss(&[&[run][..], raw].concat()));
        assert!((small - deep).abs() < 1e-6, "{small} {deep}");
    }
    assert!((loss(&["run"]) - loss(&["run", "--raw"])).abs() > 1e-4);
}

#[cfg(unix)]
#[test]
fn a_device_is_no_text() {
    let dir = scratch();
    let here = dir.path();
    let keys = [
        "train",
        "enwik8-tiny",
        "data=wiki-like",
        "depth=1",
        "steps=1",
        "valid_items=60",
        "--plain",
        "--run-dir",
        "run",
    ];
    succeed(here, &keys);
    fail(
        here,
        &["predict", "run", "/dev/zero"],
        1,
        &["/dev/zero", "is no file of text"],
    );
    // A pipe may be named.
    let pipe = here.join("pipe");
    std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .unwrap();
    let child = rezero(here, &["predict", "run", "pipe"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    fs::write(&pipe, "some text").unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
}
