//! A run that was killed and resumed equals a run without interruption, bit for bit on Flex.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use rezero_data::{Split, corpus};
use rezero_train::recipe::{Recipe, schema};
use rezero_train::record::checkpoint;

use crate::support::{cifar_layout, fail, kinds, last, rewind, rezero, rows, scratch, succeed};

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

/// Four steps with each optimizer are two and two.
#[test]
fn every_optimizer_resumes() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 20);
    let data = data.to_str().unwrap();
    let schema = schema();
    let optimizers: Vec<String> = kinds(&schema)
        .iter()
        .filter(|(section, _)| section == "optimizer")
        .filter_map(|(_, kind)| Some(kind["properties"]["kind"]["const"].as_str()?.to_owned()))
        .collect();
    assert!(optimizers.len() >= 6, "{optimizers:?}");
    for optimizer in &optimizers {
        let optimizer = format!("optimizer={optimizer}");
        for (name, changes) in [
            (
                "cifar10-resnet20",
                &["depth=8", "dtype=f16", "accumulate=2", "milestones=[]"][..],
            ),
            ("cifar10-mlp64", &["depth=9", "width=32", "recompute=true"]),
        ] {
            let run = dir.path().join(format!("{name}-{optimizer}"));
            let run_arg = run.to_str().unwrap();
            let mut args = vec![
                "train",
                name,
                "--plain",
                "--data-dir",
                data,
                "--run-dir",
                run_arg,
            ];
            args.extend([&optimizer, "lr=0.01", "batch=4", "epochs=1", "steps=4"]);
            args.extend(["checkpoint_every=2", "eval_every=3", "keep=9", "ema=0.9"]);
            args.extend(changes);
            succeed(dir.path(), &args);
            let (all, end) = (rows(&run), last(&run));
            rewind(&run, 2);
            let said = succeed(dir.path(), &["train", run_arg, "--resume", "--plain"]);
            assert!(said.err.contains("continuing from step 2"), "{}", said.err);
            assert_eq!(rows(&run), all, "{name} {optimizer}");
            assert!(
                end.average.is_some() && last(&run) == end,
                "{name} {optimizer}"
            );
        }
    }
}

/// Validation scores the average, and so do the commands that use the network.
#[test]
fn the_average_of_the_weights_is_scored_stored_and_checked() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 20);
    let data = data.to_str().unwrap();
    let train = |run: &str, extra: &[&str]| {
        let mut args = vec!["train", "cifar10-resnet20", "--plain", "--data-dir", data];
        args.extend([
            "--run-dir",
            run,
            "depth=8",
            "batch=8",
            "epochs=1",
            "steps=6",
        ]);
        args.extend([
            "eval_every=3",
            "checkpoint_every=3",
            "keep=9",
            "milestones=[]",
        ]);
        args.extend(extra);
        succeed(dir.path(), &args)
    };
    let said = train("plain", &[]);
    assert!(!said.err.contains("average"), "{}", said.err);
    let said = train("ema", &["ema=0.5", "device=flex,flex"]);
    assert!(said.err.contains("valid of the average"), "{}", said.err);
    let run = dir.path().join("ema");
    let all = rows(&run);
    for row in &all {
        assert_eq!(row.ema, (row.split == "valid").then_some(0.5));
    }
    assert!(
        rows(&dir.path().join("plain"))
            .iter()
            .all(|row| row.ema.is_none())
    );
    let loss = |extra: &[&str]| {
        let args = [&["eval", "ema", "--json", "--checkpoint", "last"], extra].concat();
        let said = succeed(dir.path(), &args);
        let result: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        (
            result["loss"].as_f64().unwrap(),
            result["averaged"].as_bool().unwrap(),
        )
    };
    let (average, raw) = (loss(&[]), loss(&["--raw"]));
    assert_eq!(average, (all.last().unwrap().loss, true));
    assert!(!raw.1 && raw.0 != average.0, "{raw:?} {average:?}");

    let end = last(&run);
    rewind(&run, 3);
    succeed(dir.path(), &["train", "ema", "--resume", "--plain"]);
    assert_eq!(rows(&run), all);
    assert!(last(&run) == end);

    // The file is checked as the weights are.
    let resume = ["train", "ema", "--resume", "--plain", "steps=7"];
    let eval = ["eval", "ema", "--checkpoint", "last"];
    let file = run.join("checkpoints/step-6/ema.bpk");
    let good = std::fs::read(&file).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for (bad, part) in [
        (Some(&flipped[..]), "was altered"),
        (Some(&good[..99]), "was altered"),
        (None, "is missing"),
    ] {
        match bad {
            Some(bad) => std::fs::write(&file, bad).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        for args in [&resume[..], &eval] {
            fail(dir.path(), args, 1, &["ema.bpk", part]);
        }
    }
    std::fs::write(&file, good).unwrap();
    succeed(dir.path(), &resume);
}

/// A run that is not getting better stops early, at the same step if it was resumed, and goes on if asked.
#[test]
fn a_run_that_does_not_get_better_stops_early() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 20);
    let data = data.to_str().unwrap();
    let train = |run: &str, extra: &[&str]| {
        let mut args = vec!["train", "cifar10-mlp64", "--plain", "--data-dir", data];
        args.extend([
            "--run-dir",
            run,
            "depth=4",
            "width=8",
            "batch=8",
            "epochs=9",
            "steps=20",
        ]);
        // Nothing moves, so that no validation is better than the first.
        args.extend([
            "lr=0",
            "alpha_optimizer=shared",
            "eval_every=3",
            "checkpoint_every=4",
        ]);
        args.extend(["keep=99"]);
        args.extend(extra);
        succeed(dir.path(), &args)
    };
    train("whole", &[]);
    let whole = rows(&dir.path().join("whole"));
    let said = train("early", &["patience=2"]);
    let why = "stopped early: 2 validations without a better one (patience=2)";
    assert!(said.err.contains(why), "{}", said.err);
    let run = dir.path().join("early");
    let all = rows(&run);
    // Validations at 3, 6 and 9.
    assert_eq!(
        all.last().map(|row| (row.split.as_str(), row.step)),
        Some(("valid", 9))
    );
    let done = std::fs::read_to_string(run.join("DONE")).unwrap();
    assert!(done.contains(why), "{done}");
    let listed = succeed(dir.path(), &["runs", "early", "--json"]);
    assert!(listed.out.contains(r#""done""#), "{}", listed.out);

    for step in [4, 8] {
        rewind(&run, step);
        let said = succeed(dir.path(), &["train", "early", "--resume", "--plain"]);
        assert!(said.err.contains(why), "{}", said.err);
        assert_eq!(rows(&run), all);
    }
    // It is complete, also if it may be longer.
    for change in ["keep=99", "steps=25", "patience=1"] {
        let said = succeed(dir.path(), &["train", "early", "--resume", change]);
        let parts = ["is complete already; stopped early", "--resume patience=0"];
        assert!(
            parts.iter().all(|part| said.err.contains(part)),
            "{}",
            said.err
        );
        assert_eq!(rows(&run), all);
    }
    let resume = ["train", "early", "--resume", "--plain", "patience=0"];
    let said = succeed(dir.path(), &resume);
    assert!(!said.err.contains("stopped early"), "{}", said.err);
    assert_eq!(rows(&run), whole);
    compare_weights(&run, &dir.path().join("whole"));
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
    let said = succeed(dir.path(), &[&resume[..], &["run.epochs=2"]].concat());
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
        (
            "augment=flip",
            "data.augment \"crop:padding=4,flip\" -> \"flip\"",
        ),
        ("depth=14", "model.depth 8 -> 14"),
        ("batch=16", "train.batch 8 -> 16"),
    ] {
        let args = [&resume[..], &[change]].concat();
        fail(dir.path(), &args, 1, &["other settings", part]);
    }
}

/// A warm-up that does not end before the run leaves nothing to decay.
#[test]
fn a_decay_needs_steps_after_its_warm_up() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 20);
    let data = data.to_str().unwrap();
    let args = |extra: &[&'static str]| {
        let mut args = args(data, "run");
        args.extend(extra);
        args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>()
    };
    // Twelve steps in an epoch, forty in the run.
    for (changes, key) in [
        (["schedule=cosine", "warmup_steps=40"], "warmup_steps"),
        (["schedule=linear", "warmup_epochs=3.5"], "warmup_epochs"),
    ] {
        let mut args = args(&changes);
        args.retain(|arg| !arg.starts_with("milestones"));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        fail(dir.path(), &args, 1, &[key, "has 40", "never fall"]);
        assert!(!dir.path().join("run").exists());
    }
}

/// A schedule over the whole run: another length gives another rate at every step.
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
    for (run, recipe, schedule, changes) in [
        (
            "images",
            &images[..],
            "schedule=one-cycle",
            &["epochs=2", "steps=2"][..],
        ),
        ("text", &text, "schedule=one-cycle", &["steps=5"]),
        ("cosine", &text, "schedule=cosine", &["steps=5"]),
        ("linear", &text, "schedule=linear", &["steps=5"]),
    ] {
        let mut args = vec!["train", "--plain", "--run-dir", run];
        args.extend(recipe);
        args.extend(["batch=8", "optimizer=sgd", schedule]);
        succeed(dir.path(), &args);
        for change in changes {
            let args = ["train", run, "--resume", change];
            let key = change.split_once('=').unwrap().0;
            let parts = ["cannot change its length", &schedule[9..], key];
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
        "augment=crop,jitter,rotate,flip,cutout:size=8,rand-augment,mixup:alpha=0.3",
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
