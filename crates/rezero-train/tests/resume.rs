//! A run that was killed and resumed equals a run without interruption, bit for bit on Flex.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use rezero_data::{Split, corpus};
use rezero_train::recipe::Recipe;
use rezero_train::record::checkpoint;

use crate::support::{cifar_layout, fail, last, rewind, rezero, rows, scratch, succeed};

/// 40 steps of a ResNet-8 over random images: 90 training images in batches of 8, so that kills
/// fall inside epochs. With shuffling, crops, flips, momentum, decay, a milestone and validation.
fn args<'a>(data: &'a str, run: &'a str) -> Vec<&'a str> {
    vec![
        "train",
        "cifar10-resnet20",
        "--plain",
        "--data-dir",
        data,
        "--run-dir",
        run,
        "depth=8",
        "batch=8",
        "epochs=4",
        "steps=40",
        "milestones=[2]",
        "checkpoint_every=5",
        "eval_every=7",
        "log_every=3",
        "lr=0.05",
    ]
}

fn start(dir: &Path, args: &[&str]) -> Child {
    let mut command = rezero(dir, args);
    command.stderr(std::process::Stdio::null());
    command.spawn().expect("the command starts")
}

/// Waits until `when` holds, then kills the run as `kill -9` does.
fn kill_when(mut child: Child, mut when: impl FnMut() -> bool) -> bool {
    let limit = Instant::now() + Duration::from_secs(120);
    loop {
        if when() {
            child.kill().expect("the run is killed");
            child.wait().expect("the run ends");
            return true;
        }
        if child.try_wait().expect("the run is watched").is_some() || Instant::now() > limit {
            let _ = child.kill();
            let _ = child.wait();
            return false;
        }
        std::hint::spin_loop();
    }
}

fn committed(run: &Path) -> Vec<usize> {
    let all = checkpoint::list(run).expect("checkpoints are listed");
    all.into_keys().collect()
}

fn last_files(run: &Path) -> Vec<Vec<u8>> {
    let dir = run.join("checkpoints/step-40");
    ["model.bpk", "scheduler.bpk", "state.json"]
        .map(|name| std::fs::read(dir.join(name)).expect("a checkpoint file"))
        .to_vec()
}

fn undisturbed(dir: &Path, data: &str) -> PathBuf {
    let run = dir.join("undisturbed");
    succeed(dir, &args(data, run.to_str().unwrap()));
    run
}

#[test]
fn forty_steps_are_fifteen_a_kill_and_the_rest() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 20);
    let data = data.to_str().unwrap();
    let whole = undisturbed(dir.path(), data);

    // Two kills between checkpoints, at steps that differ from run to run of this test.
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |t| t.subsec_nanos() as usize);
    for (i, step) in [15 + nanos % 4, 21 + nanos / 7 % 12]
        .into_iter()
        .enumerate()
    {
        let run = dir.path().join(format!("killed-{i}"));
        let arguments = args(data, run.to_str().unwrap());
        let metrics = run.join("metrics.jsonl");
        let child = start(dir.path(), &arguments);
        let killed = kill_when(child, || {
            let text = std::fs::read_to_string(&metrics).unwrap_or_default();
            text.lines().filter(|l| l.contains("\"train\"")).count() >= step / 3
        });
        assert!(killed, "the run ended before step {step}");
        assert!(!run.join("DONE").exists());
        let mut arguments = arguments;
        arguments.push("--resume");
        succeed(dir.path(), &arguments);
        assert_eq!(rows(&run), rows(&whole), "killed at about step {step}");
        assert_eq!(last_files(&run).len(), 3);
        compare_weights(&run, &whole);
    }

    // And one kill while a checkpoint is written: its directory exists, its manifest does not.
    let mut caught = false;
    for attempt in 0..10 {
        let run = dir.path().join(format!("torn-{attempt}"));
        let arguments = args(data, run.to_str().unwrap());
        let checkpoints = run.join("checkpoints");
        let child = start(dir.path(), &arguments);
        let torn = || {
            std::fs::read_dir(&checkpoints).is_ok_and(|entries| {
                entries.flatten().any(|e| {
                    let name = e.file_name().to_string_lossy().into_owned();
                    let step: usize = name.trim_start_matches("step-").parse().unwrap_or(0);
                    step >= 15 && !e.path().join("manifest.json").exists()
                })
            })
        };
        if !kill_when(child, torn) || !torn() {
            continue;
        }
        caught = true;
        let before = committed(&run);
        assert!(!before.is_empty());
        let mut arguments = arguments;
        arguments.push("--resume");
        succeed(dir.path(), &arguments);
        assert_eq!(rows(&run), rows(&whole), "torn checkpoint");
        compare_weights(&run, &whole);
        break;
    }
    assert!(
        caught,
        "no kill fell into the writing of a checkpoint in ten attempts"
    );
}

fn compare_weights(a: &Path, b: &Path) {
    let (a, b) = (last(a), last(b));
    assert_eq!(a.step, b.step);
    assert!(a.weights == b.weights, "the weights differ");
    assert_eq!(a.best, b.best);
}

#[test]
fn an_interrupted_run_checkpoints_exits_130_and_resumes() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 20);
    let data = data.to_str().unwrap();
    // A validation is due at every step. The interruption skips one, and the resumed run makes it.
    let arguments = |run: &'static str| {
        let mut arguments = args(data, run);
        arguments.push("eval_every=1");
        arguments
    };
    succeed(dir.path(), &arguments("undisturbed"));
    let whole = dir.path().join("undisturbed");
    let run = dir.path().join("interrupted");
    let arguments = arguments("interrupted");
    let mut child = start(dir.path(), &arguments);
    let metrics = run.join("metrics.jsonl");
    let limit = Instant::now() + Duration::from_secs(120);
    while std::fs::read_to_string(&metrics)
        .unwrap_or_default()
        .lines()
        .count()
        < 4
    {
        assert!(Instant::now() < limit, "the run does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    let status = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .expect("kill is there");
    assert!(status.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let steps = committed(&run);
    assert!(steps.last().is_some_and(|step| *step < 40), "{steps:?}");
    // By the run's directory alone, too.
    succeed(
        dir.path(),
        &[
            "train",
            run.to_str().unwrap(),
            "--resume",
            "--plain",
            "--data-dir",
            data,
        ],
    );
    assert_eq!(rows(&run), rows(&whole));
    compare_weights(&run, &whole);
}

#[test]
fn a_damaged_or_foreign_checkpoint_is_refused_and_nothing_is_lost() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 20);
    let data = data.to_str().unwrap();
    let run = dir.path().join("run");
    let run_arg = run.to_str().unwrap();
    let mut short = args(data, run_arg);
    short.extend(["steps=10"]);
    succeed(dir.path(), &short);
    std::fs::remove_file(run.join("DONE")).unwrap();
    let resume = ["train", run_arg, "--resume", "--plain", "--data-dir", data];
    let checkpoint = run.join("checkpoints/step-10");
    let evaluate = ["eval", run_arg, "--data-dir", data, "--checkpoint", "last"];
    succeed(dir.path(), &evaluate);

    let damage = |name: &str, change: &dyn Fn(Vec<u8>) -> Option<Vec<u8>>, parts: &[&str]| {
        let path = checkpoint.join(name);
        let good = std::fs::read(&path).unwrap();
        match change(good.clone()) {
            Some(bad) => std::fs::write(&path, bad).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        fail(dir.path(), &resume, 1, parts);
        fail(dir.path(), &evaluate, 1, parts);
        std::fs::write(&path, good).unwrap();
    };
    for name in ["model.bpk", "optimizer.bpk", "scheduler.bpk", "state.json"] {
        let flip = |mut bytes: Vec<u8>| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            Some(bytes)
        };
        damage(name, &flip, &[name, "was altered", "SHA-256", "step-10"]);
        damage(name, &|_| None, &[name, "is missing"]);
        damage(
            name,
            &|b| Some(b[..b.len() / 2].to_vec()),
            &[name, "was altered"],
        );
    }
    let replace = |from: &'static str, to: &'static str| {
        move |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.contains(from), "{text}");
            Some(text.replace(from, to).into_bytes())
        }
    };
    let manifest = "manifest.json";
    damage(
        manifest,
        &replace("scheme=rezero", "scheme=residual"),
        &["another model", "scheme=residual"],
    );
    damage(
        manifest,
        &replace("\"format\": 2", "\"format\": 9"),
        &["format is 9"],
    );
    damage(
        manifest,
        &replace("\"version\": \"0.1", "\"version\": \"7.1"),
        &["rezero 7.1"],
    );
    damage(
        manifest,
        &replace("\"burn\": \"0.22.1\"", "\"burn\": \"0.99.0\""),
        &["burn 0.99.0"],
    );
    damage(
        manifest,
        &|_| Some(b"{".to_vec()),
        &[manifest, "does not parse"],
    );
    // Everything is as it was: both work again.
    succeed(dir.path(), &evaluate);
    succeed(dir.path(), &resume);
}

/// A run that is made longer equals a run that was longer from the start: `[run]` may change if the
/// rate of a step does not depend on the run's length.
#[test]
fn a_run_that_is_made_longer_is_the_longer_run() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 20);
    let data = data.to_str().unwrap();
    // Twelve steps in an epoch.
    let train = |run: &str, extra: &[&str]| {
        let mut args = vec!["train", "cifar10-resnet20", "--plain", "--data-dir", data];
        args.extend(["--run-dir", run, "depth=8", "batch=8", "milestones=[1, 2]"]);
        args.extend(["log_every=4", "keep=9"]);
        args.extend(extra);
        succeed(dir.path(), &args)
    };
    let (long, short) = (dir.path().join("long"), dir.path().join("short"));
    train("long", &["epochs=3"]);
    train("short", &["epochs=1"]);
    assert_eq!(rows(&short).last().unwrap().step, 12);

    // Resumed by its directory, and by its recipe with all of its settings.
    let resume = ["train", "short", "--resume", "--plain"];
    let said = succeed(dir.path(), &[&resume[..], &["epochs=2"]].concat());
    assert!(said.err.contains("continuing from step 12"), "{}", said.err);
    assert!(said.err.contains("epochs: 1 -> 2"), "{}", said.err);
    train(
        "short",
        &["epochs=3", "--resume", "device=flex", "target=99"],
    );
    assert_eq!(rows(&short), rows(&long));
    compare_weights(&short, &long);
    let recipe = Recipe::of_run(&short).unwrap().recipe;
    assert_eq!(recipe.settings.run.epochs, 3);
    assert!(short.join("DONE").exists());

    // With the same length it is complete. It cannot become shorter.
    let said = succeed(dir.path(), &resume);
    assert!(said.err.contains("is complete already"), "{}", said.err);
    assert_eq!(rows(&short), rows(&long));
    std::fs::remove_file(short.join("DONE")).unwrap();
    let shorter = [&resume[..], &["epochs=2"]].concat();
    fail(dir.path(), &shorter, 1, &["has taken 36 steps", "24"]);

    // Settings that affect the weights must not change.
    for (change, part) in [
        ("milestones=[1]", "schedule.milestones [1, 2] -> [1]"),
        ("alpha_init=1", "gates.alpha_init 0.0 -> 1.0"),
        ("augment=flip", "data.augment \"crop:padding=4,flip\" -> \"flip\""),
        ("depth=14", "model.depth 8 -> 14"),
        ("batch=16", "train.batch 8 -> 16"),
    ] {
        let args = [&resume[..], &[change]].concat();
        fail(dir.path(), &args, 1, &["other settings", part]);
    }
}

/// One cycle spans the whole run: another length gives another rate at every step.
#[test]
fn a_cycle_over_the_whole_run_keeps_its_length() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 8);
    let data = data.to_str().unwrap();
    let file = dir.path().join("pages.txt");
    std::fs::write(&file, corpus::wiki_like(3000, 3, Split::Train).bytes()).unwrap();
    let file = file.to_str().unwrap();
    let images = [
        "cifar10-resnet20",
        "--data-dir",
        data,
        "depth=8",
        "epochs=1",
    ];
    let text = [
        "enwik8-tiny",
        "--text",
        file,
        "depth=1",
        "d_model=8",
        "steps=4",
    ];
    for (run, recipe, changes) in [
        ("images", &images[..], &["epochs=2", "steps=2"][..]),
        ("text", &text, &["steps=5"]),
    ] {
        let mut args = vec!["train", "--plain", "--run-dir", run];
        args.extend(recipe);
        args.extend(["batch=8", "optimizer=sgd", "schedule=one-cycle"]);
        succeed(dir.path(), &args);
        for change in changes {
            let args = ["train", run, "--resume", change];
            let key = change.split_once('=').unwrap().0;
            let parts = ["other settings", "not epochs and steps", key];
            fail(dir.path(), &args, 1, &parts);
        }
        // Keys that do not change the length may change.
        succeed(dir.path(), &["train", run, "--resume", "keep=3"]);

        // A change of the file itself is refused too.
        let path = dir.path().join(run).join("recipe.toml");
        let saved = std::fs::read_to_string(&path).unwrap();
        let (from, to) = match run {
            "images" => ("epochs = 1\n", "epochs = 2\n"),
            _ => ("steps = 4\n", "steps = 6\n"),
        };
        assert!(saved.contains(from), "{saved}");
        std::fs::write(&path, saved.replace(from, to)).unwrap();
        std::fs::remove_file(dir.path().join(run).join("DONE")).unwrap();
        let args = ["train", run, "--resume"];
        fail(
            dir.path(),
            &args,
            1,
            &["of another recipe than recipe.toml"],
        );
    }
}

/// Random changes, mixed images and smoothed labels are functions of seed, epoch and record.
#[test]
fn a_resumed_run_repeats_its_augmentations() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 20);
    let run = dir.path().join("run");
    let mut arguments = args(data.to_str().unwrap(), run.to_str().unwrap());
    arguments.extend([
        "augment=crop,flip,cutout:size=8,rand-augment,mixup:alpha=0.3",
        "label_smoothing=0.1",
        "steps=20",
        "log_every=1",
    ]);
    succeed(dir.path(), &arguments);
    let (whole, weights) = (rows(&run), last(&run).weights);
    rewind(&run, 15);
    arguments.push("--resume");
    succeed(dir.path(), &arguments);
    assert_eq!(rows(&run), whole);
    assert!(last(&run).weights == weights);
}
