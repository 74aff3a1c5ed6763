//! `rezero models`, and `zoo:NAME` wherever a run is taken.

use std::fs;
use std::path::{Path, PathBuf};

use rezero_nn::pretrained;

use crate::support::{cifar_layout, fail, rezero, rows, run, scratch, succeed};

const IMAGES: &str = "zoo:resnet20-cifar10";
const TEXT: &str = "zoo:bytes12-enwik8";

#[test]
fn models_are_listed_and_have_cards() {
    let dir = scratch();
    let dir = dir.path();
    let listed = succeed(dir, &["models"]).out;
    for one in pretrained::list() {
        assert!(
            listed.contains(one.name) && listed.contains(one.summary),
            "{listed}"
        );
        assert_eq!(
            succeed(dir, &["models", one.name]).out.trim(),
            one.card.trim()
        );
        assert_eq!(
            succeed(dir, &["models", &format!("zoo:{}", one.name)])
                .out
                .trim(),
            one.card.trim()
        );
    }
    let some = succeed(dir, &["models", "resnet*"]).out;
    assert!(
        some.contains("resnet20-cifar10") && !some.contains("bytes12"),
        "{some}"
    );
    let json = succeed(dir, &["models", "resnet20-cifar10", "--json"]).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["classes"][9], "truck");
    fail(
        dir,
        &["models", "resnet21"],
        1,
        &["\"resnet21\"", "resnet20-cifar10"],
    );
    fail(
        dir,
        &["eval", "zoo:resnet21"],
        1,
        &["\"resnet21\"", "resnet20-cifar10"],
    );
}

#[test]
fn a_name_stands_wherever_a_run_does() {
    let dir = scratch();
    let dir = dir.path();
    let data = cifar_layout(dir, 20);
    let data = data.to_str().unwrap();
    fs::write(
        dir.join("pages.txt"),
        "Thou art as wise as thou art beautiful. ".repeat(200),
    )
    .unwrap();

    let scored = succeed(dir, &["eval", IMAGES, "--data-dir", data, "--json"]).out;
    let scored: serde_json::Value = serde_json::from_str(&scored).unwrap();
    assert_eq!(scored["run"], IMAGES);
    // Its validation images may be among those that it was trained on.
    assert_eq!(scored["split"], "test");
    let weights = pretrained::named("resnet20-cifar10")
        .unwrap()
        .weights()
        .unwrap();
    assert_eq!(scored["step"].to_string(), weights.metadata()["step"]);
    let said = succeed(dir, &["eval", TEXT, "--text", "pages.txt"]).out;
    assert!(said.contains("bits per byte"), "{said}");
    let said = succeed(dir, &["sample", TEXT, "--prompt", "The ", "--bytes", "8"]).out;
    assert!(said.starts_with("The "), "{said}");
    succeed(
        dir,
        &["predict", IMAGES, "--split", "test", "--data-dir", data],
    );
    succeed(dir, &["predict", TEXT, "pages.txt"]);
    succeed(
        dir,
        &["jacobian", TEXT, "--inputs", "1", "--text", "pages.txt"],
    );
    assert!(dir.join("jacobian/bytes12-enwik8/jacobian.json").is_file());

    // What is exported is the file of the registry.
    succeed(dir, &["export", IMAGES, "--out", "copy.safetensors"]);
    let copy = rezero_nn::torch::TorchWeights::open(dir.join("copy.safetensors")).unwrap();
    let file = pretrained::named("resnet20-cifar10")
        .unwrap()
        .weights()
        .unwrap();
    assert!(copy.names().eq(file.names()));

    // A run that begins with it is the network of the name, bit for bit.
    let first = [
        "train",
        "cifar10-resnet20-notebook",
        "train.from=zoo:resnet20-cifar10",
    ];
    let more = [
        "--data-dir",
        data,
        "--run-dir",
        "tuned",
        "--plain",
        "batch=8",
        "steps=2",
        "lr=0",
    ];
    let said = succeed(dir, &[&first[..], &more[..], &["weight_decay=0"]].concat());
    assert!(
        said.err.contains("weights of zoo:resnet20-cifar10"),
        "{}",
        said.err
    );
    assert!(!rows(&dir.join("tuned")).is_empty());
    succeed(
        dir,
        &[
            "grow",
            IMAGES,
            "--layers",
            "26",
            "--only",
            "--run-dir",
            "grown",
        ],
    );
    assert!(dir.join("grown/recipe.toml").is_file());
}

/// What a card says of official data, scored again. Needs `REZERO_TEST_DATA`, and a clone's `weights/`.
#[test]
fn cards_say_what_their_models_score() {
    let Some(root) = std::env::var_os("REZERO_TEST_DATA").map(PathBuf::from) else {
        println!("skipped: REZERO_TEST_DATA is not set");
        return;
    };
    let dir = scratch();
    for one in pretrained::list() {
        let name = format!("zoo:{}", one.name);
        let (row, place, data, key, scale) = match one.normalization {
            Some(_) => (
                "official test records",
                "--data-dir",
                "cifar10-sample",
                "accuracy",
                100.0,
            ),
            None => ("test", "--text", "enwik8-4mb", "bpb", 1.0),
        };
        let data = root.join(data);
        let args = ["eval", &name, "--split", "test", "--json", place];
        let said = succeed(dir.path(), &[&args[..], &[data.to_str().unwrap()]].concat());
        let scored: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        let line = one
            .card
            .lines()
            .find(|line| line.starts_with(&format!("| {row} |")));
        let cells: Vec<&str> = line.unwrap().split('|').map(str::trim).collect();
        let told: f64 = cells[3].split(' ').next().unwrap().parse().unwrap();
        let found = scale * scored[key].as_f64().unwrap();
        // Another processor rounds otherwise, which may turn the class of an image: two of a thousand.
        let allowed = if key == "bpb" { 0.001 } else { 0.201 };
        assert!(
            (found - told).abs() <= allowed,
            "{name}: {found}, and its card has {told}"
        );
        assert_eq!(
            cells[2].replace(',', ""),
            scored["items"].to_string(),
            "{name}"
        );
    }
}

#[test]
fn files_that_are_not_the_registrys_are_refused_by_name() {
    let dir = scratch();
    let dir = dir.path();
    let folder = dir.join("weights");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("bytes12-enwik8.safetensors");
    let call = |folder: &Path| {
        let mut command = rezero(dir, &["sample", TEXT, "--bytes", "4"]);
        crate::support::Said::from(command.env("REZERO_WEIGHTS", folder).output().unwrap())
    };
    let whole = pretrained::named("bytes12-enwik8")
        .unwrap()
        .bytes()
        .unwrap();
    let mut altered = whole.to_vec();
    altered[100_000] ^= 1;
    let foreign = pretrained::named("resnet20-cifar10")
        .unwrap()
        .bytes()
        .unwrap();
    for (content, part) in [
        (&whole[..whole.len() - 1], "and should have"),
        (&altered, "its SHA-256 is"),
        (&foreign, "and should have"),
        (b"", "it has 0 bytes"),
    ] {
        fs::write(&file, content).unwrap();
        let said = call(&folder);
        assert_eq!(said.code, Some(1), "{said:?}");
        let path = file.display().to_string();
        assert!(
            said.err.contains(part) && said.err.contains(&path),
            "{}",
            said.err
        );
    }
    fs::write(&file, &whole).unwrap();
    assert_eq!(call(&folder).code, Some(0));
    // A folder without the file: the clone has it.
    assert_eq!(call(dir).code, Some(0));
    assert_eq!(run(dir, &["sample", IMAGES]).code, Some(1));
}
