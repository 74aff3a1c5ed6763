//! `rezero runs`, the directories of runs, and lines of progress.

use std::fs;
use std::path::Path;

use rezero_train::record::{Stage, checkpoint, metrics};
use serde_json::Value;

use crate::support::{cifar_layout, fail, run, scratch, succeed};

const TEXT: [&str; 8] = [
    "train",
    "enwik8-tiny",
    "data=wiki-like",
    "depth=2",
    "batch=2",
    "valid_items=64",
    "log_every=1",
    "--plain",
];

fn text<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&TEXT[..], more].concat()
}

fn listed(dir: &Path) -> Vec<Value> {
    let said = succeed(dir, &["runs", "--json"]);
    let lines = said.out.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn of<'a>(runs: &'a [Value], name: &str) -> &'a Value {
    let found = runs.iter().find(|run| run["run"] == format!("runs/{name}"));
    found.unwrap_or_else(|| panic!("no {name} in {runs:?}"))
}

#[test]
fn runs_are_listed_with_their_state_and_cleaned_after_asking() {
    let dir = scratch();
    let said = succeed(dir.path(), &["runs"]);
    assert!(said.err.contains("no runs in runs"), "{said:?}");
    let at = |name: &str| format!("runs/{name}");
    let (done, diverged) = (at("done"), at("group/diverged"));
    let (stopped, early) = (at("stopped"), at("early"));
    let every = ["eval_every=2", "checkpoint_every=1", "keep=9"];
    let short = |run| text(&[&every[..], &["steps=6", "--run-dir", run]].concat());
    succeed(dir.path(), &short(&done));
    fail(
        dir.path(),
        &text(&["lr=1e30", "--run-dir", &diverged]),
        3,
        &["diverged"],
    );
    for run in [&stopped, &early] {
        succeed(dir.path(), &short(run));
        fs::remove_file(dir.path().join(run).join("DONE")).unwrap();
    }
    fs::remove_dir_all(dir.path().join(&early).join("checkpoints")).unwrap();
    // Half of a checkpoint, as a kill leaves it.
    let torn = dir.path().join(&stopped).join("checkpoints/step-7");
    fs::create_dir(&torn).unwrap();
    fs::write(torn.join("model.bpk"), b"1234").unwrap();

    let runs = listed(dir.path());
    let states =
        ["done", "group/diverged", "stopped", "early"].map(|name| of(&runs, name)["state"].clone());
    assert_eq!(states, ["done", "diverged", "stopped", "stopped"]);
    assert_eq!(of(&runs, "stopped")["step"], 6);
    assert_eq!(of(&runs, "stopped")["removable"], 4);
    assert_eq!(of(&runs, "done")["measure"], "bpb");
    let table = succeed(dir.path(), &["runs"]);
    assert!(table.out.contains("bpb"), "{table:?}");
    assert!(table.err.contains("no longer needed: --clean"), "{table:?}");

    // There is nobody to ask.
    let asked = succeed(dir.path(), &["runs", "--clean"]);
    assert!(asked.err.contains("nothing was removed"), "{asked:?}");
    assert_eq!(listed(dir.path()).len(), 4);
    succeed(dir.path(), &["runs", "--clean", "--yes"]);
    let runs = listed(dir.path());
    assert_eq!(runs.len(), 2, "{runs:?}");
    assert!(!torn.exists());
    // The best and the last stay, of a stopped run all.
    let count = |run: &str| checkpoint::list(&dir.path().join(run)).unwrap().len();
    assert!((1..=2).contains(&count(&done)));
    assert_eq!(count(&stopped), 6);
    succeed(dir.path(), &["eval", &done]);
    succeed(dir.path(), &["train", &stopped, "--resume"]);
    let again = succeed(dir.path(), &["runs", "--clean", "--yes"]);
    assert!(again.err.contains("removed"), "{again:?}");
    let again = succeed(dir.path(), &["runs", "--clean", "--yes"]);
    assert!(again.err.contains("nothing to remove"), "{again:?}");
}

#[test]
fn a_divergence_is_one_row_that_goes_when_the_run_is_continued() {
    let dir = scratch();
    let args = text(&["lr=1e30", "checkpoint_every=1", "--run-dir", "run"]);
    fail(dir.path(), &args, 3, &["diverged at step 2"]);
    let run = dir.path().join("run");
    // Continued, it diverges at the same step.
    fail(
        dir.path(),
        &["train", "run", "--resume"],
        3,
        &["diverged at step 2"],
    );
    let rows = metrics::read(&run).unwrap();
    let finite: Vec<bool> = rows.iter().map(|row| row.is_finite()).collect();
    assert_eq!(finite, [true, false], "{rows:?}");
    assert_eq!(metrics::last(&run).unwrap().unwrap().step, 2);
    assert_eq!(Stage::of(&run), Stage::Diverged);

    // A row after the last checkpoint goes, as every other one does.
    succeed(dir.path(), &text(&["steps=2", "--run-dir", "other"]));
    let other = dir.path().join("other");
    let file = other.join("metrics.jsonl");
    let nan = r#"{"split":"train","step":3,"epoch":1,"loss":"NaN","items":2,"seconds":0.5}"#;
    fs::write(&file, fs::read_to_string(&file).unwrap() + nan + "\n").unwrap();
    fs::remove_file(other.join("DONE")).unwrap();
    assert_eq!(Stage::of(&other), Stage::Diverged);
    succeed(dir.path(), &["train", "other", "--resume", "steps=4"]);
    assert!(
        metrics::read(&other)
            .unwrap()
            .iter()
            .all(|row| row.is_finite())
    );
    assert_eq!(Stage::of(&other), Stage::Done);
}

#[test]
fn a_command_says_where_its_run_is_and_what_resume_means() {
    let dir = scratch();
    let first = succeed(dir.path(), &text(&["steps=2"]));
    let lines: Vec<&str> = first.err.lines().collect();
    let name = lines[0].strip_prefix("run ").unwrap();
    assert!(dir.path().join(name).join("DONE").exists(), "{first:?}");
    let hint = format!("train {name} --resume");
    let at = lines.iter().position(|line| line.ends_with(&hint)).unwrap();
    assert!(
        lines[at].starts_with("to continue it after a stop: "),
        "{first:?}"
    );
    // What fails before the run begins tells of no run to continue.
    let none = fail(
        dir.path(),
        &text(&["steps=2", "d_model=16", "n_heads=3"]),
        1,
        &[],
    );
    assert!(!none.err.contains("to continue it"), "{none:?}");
    let second = succeed(dir.path(), &text(&["steps=2"]));
    let expected = format!("run {name}-2: a new one; {name} is there: done");
    assert!(second.err.starts_with(&expected), "{second:?}");
    let third = succeed(dir.path(), &text(&["steps=2", "--resume"]));
    let expected = format!("run {name}-2, continued: the newest of 2 of this name, all are done");
    assert!(third.err.starts_with(&expected), "{third:?}");
    let more = format!("train {name}-2 --resume steps=N");
    assert!(third.err.contains(&more), "{third:?}");
    // The first is stopped: it is the one to continue.
    fs::remove_file(dir.path().join(name).join("DONE")).unwrap();
    let fourth = succeed(dir.path(), &text(&["steps=2", "--resume"]));
    let expected = format!("run {name}, continued: of 2 of this name, the newest that is stopped");
    assert!(fourth.err.starts_with(&expected), "{fourth:?}");
    // A number that was removed is not given to a later run.
    fs::remove_dir_all(dir.path().join(name)).unwrap();
    let fifth = succeed(dir.path(), &text(&["steps=2"]));
    assert!(
        fifth.err.starts_with(&format!("run {name}-3: a new one")),
        "{fifth:?}"
    );
}

#[test]
fn nothing_but_runs_is_removed() {
    let dir = scratch();
    let here = dir.path();
    let list = || listed(here).len();
    let clean = || succeed(here, &["runs", "--clean", "--yes"]);
    let diverge = |run: &str| {
        fail(
            here,
            &text(&["lr=1e30", "--run-dir", run]),
            3,
            &["diverged"],
        )
    };
    // A project with a recipe of its own, and the repository's records, are no runs to remove.
    let project = here.join("runs/project");
    fs::create_dir_all(&project).unwrap();
    fs::write(project.join("recipe.toml"), "").unwrap();
    fs::write(project.join("thesis.tex"), "important").unwrap();
    diverge("runs/record");
    fs::remove_file(here.join("runs/record/run.lock")).unwrap();
    assert_eq!(list(), 1);
    assert!(clean().err.contains("nothing to remove"));
    // Files of others stay, and runs in runs are listed.
    diverge("runs/outer");
    fs::write(here.join("runs/outer/notes.txt"), "important").unwrap();
    succeed(here, &text(&["steps=2", "--run-dir", "runs/outer/inner"]));
    assert_eq!(list(), 3);
    clean();
    assert!(!here.join("runs/outer/recipe.toml").exists());
    assert!(here.join("runs/outer/notes.txt").exists());
    assert!(here.join("runs/outer/inner/DONE").exists());
    assert!(project.join("thesis.tex").exists());
    // The shared folder by mistake.
    diverge("runs");
    succeed(here, &["runs", "--clean", "--yes", "runs", "runs/outer"]);
    assert!(here.join("runs/outer/inner/DONE").exists());
    assert_eq!(list(), 2);
}

#[test]
fn nothing_is_removed_of_a_run_that_cannot_be_read() {
    let dir = scratch();
    let keys = [
        "steps=8",
        "eval_every=2",
        "checkpoint_every=2",
        "keep=9",
        "--run-dir",
        "runs/a",
    ];
    succeed(dir.path(), &text(&keys));
    let run = dir.path().join("runs/a");
    let checkpoints = run.join("checkpoints");
    let count = || checkpoint::list(&run).unwrap().len();
    let nothing = |when: &str| {
        let said = succeed(dir.path(), &["runs", "--clean", "--yes"]);
        assert!(said.err.contains("nothing to remove"), "{when}: {said:?}");
    };
    // The state that names the best checkpoint.
    let state = checkpoints.join("step-8/state.json");
    let text = fs::read(&state).unwrap();
    fs::write(&state, "").unwrap();
    nothing("an empty state");
    fs::write(&state, text).unwrap();
    // A folder that is not ours.
    fs::create_dir(checkpoints.join("step-004")).unwrap();
    assert_eq!(count(), 4);
    succeed(dir.path(), &["runs", "--clean", "--yes"]);
    assert!(checkpoints.join("step-004").exists());
    assert!((1..=2).contains(&count()));
    #[cfg(unix)]
    {
        // A disk that is not there.
        fs::rename(&checkpoints, dir.path().join("disk")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("gone"), &checkpoints).unwrap();
        fs::remove_file(run.join("DONE")).unwrap();
        nothing("a link to nothing");
    }
}

#[test]
fn a_name_is_of_one_recipe() {
    let dir = scratch();
    let recipe = |name: &str, d_model: usize| {
        let recipe = fs::read_to_string(dir.path().join("base.toml")).unwrap();
        let other = recipe.replace("d_model = 64", &format!("d_model = {d_model}"));
        fs::write(dir.path().join(name), other).unwrap();
    };
    let base = succeed(dir.path(), &["recipes", "enwik8-tiny"]).out;
    fs::write(dir.path().join("base.toml"), base).unwrap();
    recipe("x.toml", 32);
    recipe("x-2.toml", 16);
    let keys = [
        "data=wiki-like",
        "depth=2",
        "steps=2",
        "valid_items=64",
        "--plain",
    ];
    let train = |file, more: &[&str]| {
        let args = [&["train", file][..], &keys, more].concat();
        succeed(dir.path(), &args)
            .err
            .lines()
            .next()
            .unwrap()
            .to_owned()
    };
    let of = |line: &str| line.split([' ', ',', ':']).nth(1).unwrap().to_owned();
    let (x, x2) = (train("x.toml", &[]), train("x-2.toml", &[]));
    for run in [&x, &x2] {
        fs::remove_file(dir.path().join(of(run)).join("DONE")).unwrap();
    }
    assert_eq!(of(&train("x.toml", &["--resume"])), of(&x));
    assert_eq!(of(&train("x-2.toml", &["--resume"])), of(&x2));
    // A date is not a number of ours; a folder may have the name of a recipe, and an option's.
    let dated = format!("{}-20240131", of(&x));
    fs::rename(dir.path().join(of(&x)), dir.path().join(dated)).unwrap();
    let again = of(&train("x.toml", &[]));
    assert!(again == of(&x) || !again.contains("2024"), "{again}");
    fs::create_dir(dir.path().join("enwik8-tiny")).unwrap();
    let said = succeed(dir.path(), &text(&["steps=1", "--run-dir=-odd"]));
    assert!(said.err.contains("train ./-odd --resume"), "{said:?}");
    succeed(dir.path(), &["train", "./-odd", "--resume", "steps=2"]);
}

#[test]
fn two_commands_that_begin_at_once_have_a_run_each() {
    let dir = scratch();
    let said: Vec<_> = std::thread::scope(|scope| {
        let run = || run(dir.path(), &text(&["steps=40"]));
        let all: Vec<_> = (0..3).map(|_| scope.spawn(run)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(said.iter().all(|said| said.code == Some(0)), "{said:?}");
    let runs = listed(dir.path());
    assert!(
        runs.len() == 3 && runs.iter().all(|run| run["state"] == "done"),
        "{runs:?}"
    );
}

#[test]
fn lines_of_progress_are_means_and_say_what_of() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 20);
    let args = [
        "train",
        "cifar10-resnet20",
        "depth=8",
        "batch=8",
        "epochs=3",
        "checkpoint_every=5",
        "steps=16",
        "--plain",
        "--data-dir",
        data.to_str().unwrap(),
        "--run-dir",
        "run",
    ];
    // 90 images are 12 steps.
    let said = succeed(dir.path(), &args);
    let lines = |start: &str| -> Vec<String> {
        let lines = said.err.lines().filter(|line| line.starts_with(start));
        lines.map(str::to_owned).collect()
    };
    let mean = lines("epoch 1/2 mean  loss ");
    assert!(mean.len() == 1 && mean[0].contains(" |alpha| "), "{said:?}");
    assert_eq!(
        lines("epoch 1/2 valid at step 12  loss ").len(),
        1,
        "{said:?}"
    );
    // A part of an epoch is not called its mean.
    assert!(lines("epoch 2/2 mean").is_empty(), "{said:?}");
    assert_eq!(
        lines("epoch 2/2 train     32/90  loss ").len(),
        1,
        "{said:?}"
    );

    let more = ["train", "run", "--resume", "steps=36", "--plain"];
    let said = succeed(dir.path(), &more);
    let begins: Vec<&str> = said
        .err
        .lines()
        .filter(|line| line.starts_with("epoch"))
        .collect();
    // The epoch and |α| are known at the first line.
    assert!(
        begins[0].starts_with("epoch 2/3 train     40/90"),
        "{said:?}"
    );
    assert!(begins[0].contains(" |alpha| "), "{said:?}");
    assert!(
        said.err.contains("epoch 2/3 mean since step 16  loss "),
        "{said:?}"
    );
    assert!(said.err.contains("epoch 3/3 mean  loss "), "{said:?}");

    let said = succeed(dir.path(), &text(&["steps=4", "eval_every=2"]));
    assert!(said.err.contains("step      2/4 valid  loss "), "{said:?}");
    assert!(said.err.contains("step      4/4 valid  loss "), "{said:?}");
    assert!(said.err.contains("step      4/4  loss "), "{said:?}");
}
