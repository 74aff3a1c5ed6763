//! The command as a user meets it: messages, exit codes, and the files that remain.

use std::fs;
use std::path::Path;

use crate::support::{cifar_layout, fail, rezero, rows, run, scratch, succeed};

fn train<'a>(data: &'a Path, extra: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec![
        "train",
        "cifar10-resnet20",
        "--data-dir",
        data.to_str().unwrap(),
    ];
    args.extend(["depth=8", "batch=8", "epochs=1"]);
    args.extend(extra);
    args
}

#[test]
fn a_run_explains_itself_and_can_be_scored_on_every_split() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 20);
    let said = succeed(dir.path(), &train(&data, &["scheme=residual", "seed=3"]));
    assert!(said.err.contains("depth: 20 -> 8"), "{}", said.err);
    assert!(
        said.err.contains("a subset of the official set"),
        "{}",
        said.err
    );

    let run = dir
        .path()
        .join("runs/cifar10-resnet20_batch=8_depth=8_epochs=1_scheme=residual_seed=3");
    for file in ["recipe.toml", "env.json", "metrics.jsonl", "DONE"] {
        assert!(run.join(file).exists(), "{file}");
    }
    let env: serde_json::Value =
        serde_json::from_slice(&fs::read(run.join("env.json")).unwrap()).unwrap();
    assert_eq!(env["seed"], 3);
    assert_eq!(env["subset"], true);
    assert_eq!(env["burn"], "0.22.1");
    let all = rows(&run);
    assert_eq!(all.iter().filter(|r| r.split == "train").count(), 12);
    assert_eq!(all.iter().filter(|r| r.split == "valid").count(), 1);
    let items: usize = all
        .iter()
        .filter(|r| r.split == "train")
        .map(|r| r.items)
        .sum();
    assert_eq!(items, 90);
    assert!(all.iter().all(|r| r.alpha.is_empty()));

    // The run remembers where its data is.
    let said = succeed(
        dir.path(),
        &["eval", run.to_str().unwrap(), "--split", "test"],
    );
    assert!(said.out.contains("of 20)"), "{}", said.out);
    let data = data.to_str().unwrap();
    for (split, items) in [("train", 90), ("valid", 10), ("test", 20)] {
        let args = [
            "eval",
            run.to_str().unwrap(),
            "--split",
            split,
            "--data-dir",
            data,
            "--json",
        ];
        let result: serde_json::Value =
            serde_json::from_str(&succeed(dir.path(), &args).out).unwrap();
        assert_eq!(result["items"], items);
        assert_eq!(result["subset"], true);
        if split == "valid" {
            let recorded = all.iter().find(|r| r.split == "valid").unwrap();
            assert_eq!(result["accuracy"], recorded.metrics["accuracy"]);
            assert_eq!(result["loss"], recorded.loss);
        }
    }
    let args = [
        "eval",
        run.to_str().unwrap(),
        "--data-dir",
        data,
        "--checkpoint",
        "7",
    ];
    fail(dir.path(), &args, 1, &["no checkpoint `7`", "12"]);
}

#[test]
fn a_second_run_gets_a_directory_of_its_own_and_an_occupied_one_is_refused() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 8);
    succeed(dir.path(), &train(&data, &["steps=1"]));
    succeed(dir.path(), &train(&data, &["steps=1"]));
    let runs: Vec<_> = fs::read_dir(dir.path().join("runs"))
        .unwrap()
        .flatten()
        .collect();
    assert_eq!(runs.len(), 2);
    let occupied = runs[0].path();
    let args = train(&data, &["steps=1", "--run-dir", occupied.to_str().unwrap()]);
    fail(dir.path(), &args, 1, &["holds a run already", "--resume"]);
    let resume = |change| {
        let place = occupied.to_str().unwrap();
        train(&data, &["steps=1", "--resume", "--run-dir", place, change])
    };
    for (change, part) in [
        ("lr=0.3", "optimizer.lr 0.1 -> 0.3"),
        ("seed=2", "train.seed 1 -> 2"),
        ("scheme=residual", "model.scheme \"rezero\" -> \"residual\""),
    ] {
        fail(dir.path(), &resume(change), 1, &["other settings", part]);
    }
    fail(
        dir.path(),
        &train(&data, &["steps=3", "--resume"]),
        1,
        &["holds no run to resume"],
    );
    // The newest unfinished run is the one to continue.
    fs::remove_file(occupied.join("DONE")).unwrap();
    succeed(dir.path(), &train(&data, &["steps=1", "--resume"]));
    assert!(occupied.join("DONE").exists());
    let bare = ["train", occupied.to_str().unwrap()];
    fail(dir.path(), &bare, 1, &["add --resume"]);
    fail(
        dir.path(),
        &["eval", "nowhere"],
        1,
        &["nowhere", "holds no run"],
    );
}

#[test]
fn one_process_has_a_run_at_a_time() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 20);
    let run = dir.path().join("run");
    let args = train(&data, &["epochs=1000", "--run-dir", run.to_str().unwrap()]);
    let mut first = rezero(dir.path(), &args)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while !run.join("metrics.jsonl").exists() {
        assert!(std::time::Instant::now() < limit, "the run does not start");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let mut resume = args.clone();
    resume.push("--resume");
    fail(dir.path(), &resume, 1, &["in use by another process"]);
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn a_diverging_run_stops_names_the_layer_and_exits_3() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 20);
    // Weights explode before gates do without α's own zero start.
    let args = train(&data, &["lr=1e30", "epochs=3"]);
    let said = fail(
        dir.path(),
        &args,
        3,
        &["diverged at step", "largest parameter is"],
    );
    assert!(said.err.contains("largest gate is blocks."), "{}", said.err);
}

#[test]
fn bad_data_is_named_and_exits_1() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 8);
    let batch = data.join("data_batch_3.bin");
    let good = fs::read(&batch).unwrap();

    fs::write(&batch, &good[..good.len() - 5]).unwrap();
    fail(
        dir.path(),
        &train(&data, &[]),
        1,
        &["data_batch_3.bin", "3073"],
    );
    let mut long = good.clone();
    long.extend([0; 7]);
    fs::write(&batch, long).unwrap();
    fail(
        dir.path(),
        &train(&data, &[]),
        1,
        &["data_batch_3.bin", "3073"],
    );
    let mut label = good.clone();
    label[3073] = 10;
    fs::write(&batch, label).unwrap();
    fail(
        dir.path(),
        &train(&data, &[]),
        1,
        &["data_batch_3.bin", "label", "10"],
    );
    fs::remove_file(&batch).unwrap();
    fail(dir.path(), &train(&data, &[]), 1, &["data_batch_3.bin"]);

    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    fail(
        dir.path(),
        &train(&empty, &[]),
        1,
        &["empty", "rezero fetch"],
    );
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    fail(dir.path(), &train(&file, &[]), 1, &["file"]);
    // Nothing was downloaded, and a run that could not begin left no run behind.
    assert!(!dir.path().join("datasets").exists());
    assert!(!dir.path().join("runs").exists());
}

#[test]
fn files_where_directories_should_be_and_unwritable_places() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 8);
    let file = dir.path().join("occupied");
    fs::write(&file, "precious").unwrap();
    fail(
        dir.path(),
        &train(&data, &["--run-dir", "occupied"]),
        1,
        &["occupied"],
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    // Not even root can write here.
    fail(
        dir.path(),
        &train(&data, &["--run-dir", "/proc/rezero"]),
        1,
        &["/proc/rezero"],
    );
}

#[test]
fn devices_are_listed_and_a_missing_one_names_its_feature() {
    let dir = scratch();
    let said = succeed(dir.path(), &["devices"]);
    assert!(said.out.contains("flex"));
    let data = cifar_layout(dir.path(), 8);
    fail(
        dir.path(),
        &train(&data, &["--device", "flex:3"]),
        1,
        &["flex:3", "takes no index"],
    );
    fail(
        dir.path(),
        &train(&data, &["--device", "fleks"]),
        1,
        &["did you mean `flex`?"],
    );
    if !cfg!(feature = "cuda") {
        let said = fail(
            dir.path(),
            &train(&data, &["device=cuda:0"]),
            1,
            &["--features cuda"],
        );
        assert!(said.err.contains("built without it"));
    }
}

#[test]
fn recipes_are_listed_shown_and_their_keys_too() {
    let dir = scratch();
    let said = succeed(dir.path(), &["recipes"]);
    assert!(said.out.lines().any(|l| l.starts_with("quickstart ")));
    let said = succeed(dir.path(), &["recipes", "cifar10-resnet56"]);
    assert!(said.out.contains("weight_decay = 5e-4"));
    let said = succeed(dir.path(), &["recipes", "--keys"]);
    assert!(
        said.out
            .contains("# Images, or windows of text, in a step.\nbatch = 128\n"),
        "{}",
        said.out
    );
    assert!(said.out.contains("\n#   \"notebook\"  "), "{}", said.out);
    fail(
        dir.path(),
        &["recipes", "quikstart"],
        1,
        &["did you mean `quickstart`?"],
    );
}

#[test]
fn offline_without_data_says_what_to_put_where() {
    let dir = scratch();
    let args = ["train", "cifar10-resnet20", "--offline"];
    fail(
        dir.path(),
        &args,
        1,
        &[
            "cifar-10-binary.tar.gz",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ],
    );
    fail(dir.path(), &["fetch", "cifar11"], 1, &["cifar10"]);
}

#[test]
fn the_help_of_every_command_prints() {
    let dir = scratch();
    for command in ["train", "eval", "fetch", "recipes", "devices", "bench"] {
        assert_eq!(run(dir.path(), &[command, "--help"]).code, Some(0));
    }
}

#[test]
fn a_run_directory_is_never_overwritten_and_a_failed_start_does_not_occupy_it() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 8);
    let place = ["--run-dir", "here"];
    let with = |extra: &[&'static str]| {
        let mut args = train(&data, &place);
        args.extend(extra);
        args
    };
    fail(
        dir.path(),
        &with(&["batch=1000", "drop_last=true"]),
        1,
        &["drop_last"],
    );
    assert!(!dir.path().join("here").exists());
    succeed(dir.path(), &with(&["steps=1"]));
    // Without its recipe, it is still a run.
    fs::remove_file(dir.path().join("here/recipe.toml")).unwrap();
    fail(dir.path(), &with(&["steps=1"]), 1, &["holds a run already"]);
    assert_eq!(rows(&dir.path().join("here")).len(), 2);
}

#[test]
fn what_decides_the_numbers_must_not_change_under_a_run() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 8);
    succeed(dir.path(), &train(&data, &["steps=2", "--run-dir", "run"]));
    let run = dir.path().join("run");
    fs::remove_file(run.join("DONE")).unwrap();
    fs::create_dir(run.join("checkpoints/step-mine")).unwrap();
    let resume = [
        "train",
        "run",
        "--resume",
        "--plain",
        "--data-dir",
        data.to_str().unwrap(),
    ];

    let recipe = fs::read_to_string(run.join("recipe.toml")).unwrap();
    fs::write(
        run.join("recipe.toml"),
        recipe.replace("lr = 0.1\n", "lr = 0.3\n"),
    )
    .unwrap();
    fail(
        dir.path(),
        &resume,
        1,
        &["of another recipe than recipe.toml"],
    );
    fs::write(run.join("recipe.toml"), recipe).unwrap();

    // The last record of the last batch is a validation image.
    let batch = data.join("data_batch_5.bin");
    let good = fs::read(&batch).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    fs::write(&batch, bad).unwrap();
    fail(dir.path(), &resume, 1, &["other data"]);
    fs::write(&batch, good).unwrap();

    let metrics = fs::read(run.join("metrics.jsonl")).unwrap();
    fs::write(run.join("metrics.jsonl"), &metrics[..metrics.len() - 9]).unwrap();
    fail(dir.path(), &resume, 1, &["metrics.jsonl", "shortened"]);
    fs::write(run.join("metrics.jsonl"), vec![b'x'; metrics.len()]).unwrap();
    fail(dir.path(), &resume, 1, &["metrics.jsonl", "altered"]);
    fs::write(run.join("metrics.jsonl"), metrics).unwrap();

    succeed(dir.path(), &resume);
    assert!(
        run.join("checkpoints/step-mine").exists(),
        "only our own leftovers are removed"
    );
    fail(
        dir.path(),
        &["train", "runs/nowhere", "--resume"],
        1,
        &["no such directory"],
    );
}

#[test]
fn usage_errors_exit_1_and_a_result_that_cannot_be_written_is_an_error() {
    let dir = scratch();
    fail(dir.path(), &["train"], 1, &["Usage"]);
    fail(
        dir.path(),
        &["train", "quickstart", "epochs"],
        1,
        &["key=value"],
    );
    fail(
        dir.path(),
        &["train", "quickstart", "prefetch=1000000000000"],
        1,
        &["`run.prefetch`"],
    );
    fail(
        dir.path(),
        &["train", "quickstart", "epochs=4611686018427387904"],
        1,
        &["`run.epochs`"],
    );
    if let Ok(full) = fs::OpenOptions::new().write(true).open("/dev/full") {
        let status = rezero(dir.path(), &["recipes", "--keys"])
            .stdout(full)
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(1));
    }
}

/// Other programs write `--lr 0.02`.
#[test]
fn a_key_that_is_written_as_a_flag_gets_the_way_to_write_it() {
    let dir = scratch();
    let train = ["train", "quickstart"];
    for (args, tip) in [
        (
            &["--lr", "0.02"][..],
            "lr is a key of the recipe: write lr=0.02",
        ),
        (&["--lr=0.02", "--plain"], "write lr=0.02"),
        (&["-lr", "0.02"], "write lr=0.02"),
        (&["lr", "0.02"], "write lr=0.02"),
        (&["--epochs", "3"], "write epochs=3"),
        (&["--epoch", "3"], "write epochs=3"),
        (&["--scheme", "pre-norm"], "write scheme=pre-norm"),
        (&["--optimizer=adam"], "write optimizer=adam"),
        (&["--seed"], "write seed=VALUE"),
        (&["--alpha_init", "-1"], "write alpha_init=-1"),
        (
            &["--batch-size", "32"],
            "the recipe's key for batch-size is batch: write batch=32",
        ),
        (&["--Learning-Rate", "1"], "write lr=1"),
        // Flags have clap's own tips.
        (&["--devce", "flex"], "similar argument exists: '--device'"),
        (
            &["--data", "shapes"],
            "similar argument exists: '--data-dir'",
        ),
        (&["--gpu", "0"], "write a key of the recipe as KEY=VALUE"),
    ] {
        let said = fail(dir.path(), &[&train[..], args].concat(), 1, &[tip]);
        assert!(!said.err.contains("use '-- -"), "{}", said.err);
    }
    let others = [
        &["import", "x.pt", "enwik8-tiny", "--d_model", "64"][..],
        &["grow", "run", "--layers", "3", "--d_model", "64"],
    ];
    for args in others {
        fail(dir.path(), args, 1, &["write d_model=64"]);
    }
    // Other commands take no keys.
    let said = fail(dir.path(), &["eval", "run", "--lr", "1"], 1, &["'--lr'"]);
    assert!(!said.err.contains("key"), "{}", said.err);
}

/// What a user may have instead of CIFAR-10, or of a text.
#[test]
fn other_data_is_named_with_what_the_trainer_takes() {
    let dir = scratch();
    let place = |files: &[&str]| {
        let folder = dir.path().join("given");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        for file in files {
            let file = folder.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "x").unwrap();
        }
        folder
    };
    let always = ["data_batch_1.bin", "rezero fetch cifar10", "docs/DATA.md"];
    for (files, said) in [
        (
            &["a.png", "b.JPG"][..],
            "it holds image files (a.png, b.JPG)",
        ),
        (
            &["cat/1.png", "dog/1.png"],
            "folders of image files (cat, dog)",
        ),
        (
            &["data_batch_1", "batches.meta"],
            "CIFAR-10's Python version",
        ),
        (&["train.bin", "test.bin"], "it holds CIFAR-100"),
        (&[], "it is empty"),
    ] {
        let folder = place(files);
        let parts = [&always[..], &[said]].concat();
        fail(dir.path(), &train(&folder, &[]), 1, &parts);
    }
    let archive = place(&["cifar-10-python.tar.gz"]).join("cifar-10-python.tar.gz");
    let parts = [&always[..], &["is not a folder"]].concat();
    fail(dir.path(), &train(&archive, &[]), 1, &parts);

    let text = ["train", "enwik8-tiny", "--text", "given"];
    place(&["a.txt", "b.txt"]);
    let parts = ["it is a folder", "a.txt, b.txt", "a text is one file"];
    fail(dir.path(), &text, 1, &parts);
    let parts = ["no enwik8", "it holds a.txt, b.txt", "--text FILE"];
    let args = ["train", "enwik8-tiny", "--data-dir", "given"];
    fail(dir.path(), &args, 1, &parts);
    let args = ["train", "enwik8-tiny", "--data-dir", "given/a.txt"];
    fail(dir.path(), &args, 1, &["not a folder", "--text FILE"]);
}

/// A user's own recipe, as a file.
#[test]
fn a_recipe_file_is_trained_and_a_bad_one_says_where() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 4);
    let data = data.to_str().unwrap();
    let recipe = "\
[model]
family = \"mlp\"
depth = 3
width = 8

[optimizer]
kind = \"adam\"

[run]
steps = 2
";
    let path = dir.path().join("mine.toml");
    fs::write(&path, recipe).unwrap();
    let train = ["train", "mine.toml", "--data-dir", data];
    succeed(dir.path(), &[&train[..], &["lr=0.01"]].concat());
    let run = dir.path().join("runs/mine_lr=0.01");
    let saved = fs::read_to_string(run.join("recipe.toml")).unwrap();
    assert!(saved.starts_with("# mine\n"), "{saved}");
    assert!(saved.contains("lr = 0.01\n"), "{saved}");
    // A run's `recipe.toml` is a recipe too.
    let saved = run.join("recipe.toml");
    let said = succeed(dir.path(), &["recipes", saved.to_str().unwrap()]);
    assert!(said.out.contains("width = 8"), "{}", said.out);
    fs::copy(&saved, dir.path().join("again.toml")).unwrap();
    let again = [
        "train",
        "again.toml",
        "--data-dir",
        data,
        "--run-dir",
        "again",
    ];
    succeed(dir.path(), &again);
    assert_eq!(rows(&dir.path().join("again")), rows(&run));

    for (from, to, parts) in [
        (
            "depth",
            "deapth",
            &["`model.deapth`", "did you mean `model.depth`?"][..],
        ),
        (
            "width = 8",
            "d_model = 8",
            &["`model.d_model`", "family=byte-lm"],
        ),
        ("steps = 2", "lr = 2", &["`run.lr`"]),
        (
            "[run]",
            "[rum]",
            &["unknown section [rum]", "did you mean [run]?"],
        ),
        ("[run]", "[model]", &["model", "duplicate", "line 9"]),
        (
            "[model]",
            "",
            &["`family`", "outside of a section", "[model]"],
        ),
        (
            "\"adam\"",
            "\"adm\"",
            &["`optimizer.kind`", "did you mean `adam`?"],
        ),
        ("\"adam\"", "\"adam", &["line 7"]),
    ] {
        assert!(recipe.contains(from));
        fs::write(&path, recipe.replacen(from, to, 1)).unwrap();
        let said = fail(dir.path(), &train, 1, parts);
        assert!(said.err.contains("mine"), "{}", said.err);
    }
    // A file that cannot be a recipe is refused.
    fs::write(&path, vec![b'#'; 2 << 20]).unwrap();
    fail(dir.path(), &train, 1, &["mine.toml", "2097152 bytes"]);
    fs::write(&path, b"\xff\xfe").unwrap();
    fail(dir.path(), &train, 1, &["mine.toml", "UTF-8"]);
    fail(dir.path(), &["train", ".toml"], 1, &[".toml"]);
}
