//! `rezero sweep`: its trials, resumed and extended sweeps, its report, and directories from others.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rezero_train::record::sweep::Plan;
use rezero_train::report::{read_sweep, welch};
use serde_json::Value;

use crate::support::{Said, fail, rezero, rows, run, scratch, succeed};

/// A model that takes milliseconds per step.
const SMALL: [&str; 11] = [
    "depth=2",
    "d_model=16",
    "d_ff=32",
    "context=16",
    "batch=4",
    "steps=30",
    "eval_every=10",
    "checkpoint_every=5",
    "valid_items=500",
    "log_every=5",
    "--offline",
];

fn words<'a>(own: &[&'a str]) -> Vec<&'a str> {
    [&["sweep", "enwik8-tiny", "--text", "text"], &SMALL[..], own].concat()
}

fn with_text(dir: &Path) {
    fs::write(
        dir.join("text"),
        "the text of a sweep has some words. ".repeat(400),
    )
    .unwrap();
}

fn trials(said: &Said) -> Vec<Value> {
    said.out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What the names of trials are.
fn names(said: &Said) -> Vec<String> {
    let all = trials(said).into_iter();
    all.map(|trial| trial["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_grid_is_every_combination_seed_by_seed() {
    let dir = scratch();
    let dry = |own: &[&str]| {
        let all = [&["sweep", "enwik8-tiny", "--dry-run", "--json"], own].concat();
        succeed(dir.path(), &all)
    };
    let said = dry(&[
        "scheme=rezero,pre-norm",
        "lr=1e-3,0.01",
        "seed=4..5",
        "steps=9",
    ]);
    assert_eq!(
        names(&said),
        [
            "rezero_lr=1e-3_seed=4",
            "rezero_lr=0.01_seed=4",
            "pre-norm_lr=1e-3_seed=4",
            "pre-norm_lr=0.01_seed=4",
            "rezero_lr=1e-3_seed=5",
            "rezero_lr=0.01_seed=5",
            "pre-norm_lr=1e-3_seed=5",
            "pre-norm_lr=0.01_seed=5",
        ]
    );
    let last = trials(&said).pop().unwrap();
    assert_eq!(last["arm"], "pre-norm");
    assert_eq!(last["tuned"]["optimizer.lr"], "0.01");
    assert_eq!(last["set"]["run.steps"], "9");
    assert_eq!(last["state"], "new");
    assert!(
        said.err
            .contains("8 trials (2 arms, 2 values of optimizer.lr, 2 seeds)"),
        "{}",
        said.err
    );
    // Nothing is written.
    assert!(!dir.path().join("sweeps").exists());
    // Which keys are tuned can be said.
    let said = dry(&["depth=2,3", "lr=1e-3,0.01", "--tune", "depth"]);
    assert_eq!(
        names(&said),
        [
            "lr=1e-3_depth=2",
            "lr=1e-3_depth=3",
            "lr=0.01_depth=2",
            "lr=0.01_depth=3"
        ]
    );
    // Kinds are no numbers, so they distinguish arms.
    let said = dry(&["optimizer=adam,adamw", "lr=1"]);
    assert_eq!(names(&said), ["optimizer=adam", "optimizer=adamw"]);
}

#[test]
fn a_sweep_that_cannot_be_is_refused_before_anything_is_written() {
    let dir = scratch();
    let dir = dir.path();
    with_text(dir);
    let refused = |own: &[&str], parts: &[&str]| {
        fail(dir, &[&["sweep", "enwik8-tiny"], own].concat(), 1, parts);
        assert!(!dir.join("sweeps").exists(), "{own:?}");
    };
    refused(&["lr="], &["lr has an empty value"]);
    refused(&["lr=1e-3,"], &["empty value"]);
    refused(&["lr=1e-3,1e-3"], &["twice"]);
    refused(
        &["lr=1e-3,0.001"],
        &["one trial twice", "lr=1e-3", "lr=0.001"],
    );
    refused(
        &["lr=1e-3", "optimizer.lr=1e-2"],
        &["optimizer.lr", "given twice"],
    );
    refused(&["lrr=1e-3,1e-2"], &["unknown recipe key `lrr`", "lr"]);
    refused(&["depth=2,many"], &["model.depth"]);
    refused(&["lr=1e-3,-1"], &["optimizer.lr"]);
    refused(
        &["scheme=rezero,rezera"],
        &["there is no `rezera`", "did you mean `rezero`?"],
    );
    refused(&["seed=3..1"], &["has no values"]);
    refused(
        &["seed=1..10000", "lr=1e-3,1e-2"],
        &["more than 10000 trials"],
    );
    refused(&["device=flex,cpu"], &["device", "--device LIST"]);
    refused(
        &["lr=1e-3,1e-2", "--tune", "depth"],
        &["depth", "has no values"],
    );
    refused(&["seed=1..2", "--tune", "seed"], &["is no key to tune"]);
    refused(&["lr=1e-3", "--device", "flexx"], &["device `flexx`"]);
    // A key that has no effect in one trial.
    refused(
        &["scheme=rezero,pre-norm", "alpha_init=1"],
        &["alpha_init", "has no effect"],
    );
    fail(
        dir,
        &["sweep", "nothing"],
        1,
        &["there is no recipe `nothing`"],
    );
    // The directory of a run, and a file.
    succeed(
        dir,
        &[
            &["train", "enwik8-tiny", "--text", "text", "--run-dir", "run"],
            &SMALL[..],
        ]
        .concat(),
    );
    fail(
        dir,
        &words(&["lr=1e-3", "--dir", "run"]),
        1,
        &["is the directory of a run"],
    );
    fail(dir, &words(&["lr=1e-3", "--dir", "text"]), 1, &["text"]);
}

fn start(dir: &Path, words: &[&str]) -> Child {
    let mut command = rezero(dir, words);
    command.stderr(Stdio::null()).stdout(Stdio::null());
    command.spawn().unwrap()
}

/// The processes that train in a directory.
#[cfg(target_os = "linux")]
fn children_in(dir: &Path) -> usize {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let ours = |entry: &fs::DirEntry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let cwd = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("--of-sweep") && cwd == dir
    };
    all.filter(ours).count()
}

fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(120);
    while !until() {
        assert!(Instant::now() < limit, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_sweep_goes_on_after_signals_and_kills_as_if_nothing_had_happened() {
    use rustix::process::{Pid, Signal, kill_process};

    let dir = scratch();
    let dir = &dir.path().canonicalize().unwrap();
    with_text(dir);
    let grid = [
        "scheme=rezero,pre-norm",
        "lr=1e-3,1e-2",
        "seed=1..2",
        "-j",
        "2",
    ];
    // Long enough to be stopped in the middle.
    let longer = |dir: &'static str| {
        let all = words(&[&grid[..], &["--dir", dir]].concat());
        let longer = |word| {
            if word == "steps=30" {
                "steps=200"
            } else {
                word
            }
        };
        all.into_iter().map(longer).collect::<Vec<_>>()
    };
    succeed(dir, &longer("whole"));
    let all = longer("parts");
    let begun = |n: usize| {
        let plan = Plan::read(&dir.join("parts"));
        plan.is_ok_and(|plan| {
            let rows = |name: &String| dir.join("parts").join(name).join("metrics.jsonl");
            let has_rows =
                |name: &String| fs::metadata(rows(name)).is_ok_and(|meta| meta.len() > 0);
            plan.trials
                .iter()
                .filter(|trial| has_rows(&trial.name))
                .count()
                >= n
        })
    };
    for (i, signal) in [Signal::TERM, Signal::KILL, Signal::INT]
        .into_iter()
        .enumerate()
    {
        let mut child = start(dir, &all);
        // A sweep that has a child listens for signals.
        wait("trials", || {
            let has_a_child = children_in(dir) > 0 || child.try_wait().unwrap().is_some();
            has_a_child && begun(2 * i + 1)
        });
        let pid = Pid::from_child(&child);
        if i == 0 {
            // A second sweep on the directory, while the first cannot end.
            kill_process(pid, Signal::STOP).unwrap();
            if child.try_wait().unwrap().is_none() {
                fail(dir, &all, 1, &["is in use by another sweep"]);
            }
            kill_process(pid, Signal::CONT).unwrap();
        }
        kill_process(pid, signal).unwrap();
        let status = child.wait().unwrap();
        let wanted = [Some(143), None, Some(130)][i];
        // It may have ended before the signal came.
        assert!(
            status.code() == wanted || status.success(),
            "{signal:?}: {status}"
        );
        wait("the children's end", || children_in(dir) == 0);
    }
    let said = succeed(dir, &all);
    assert!(
        said.err.contains("all 8 trials have ended: 8 done"),
        "{}",
        said.err
    );
    let plan = Plan::read(&dir.join("whole")).unwrap();
    assert_eq!(plan, Plan::read(&dir.join("parts")).unwrap());
    for trial in &plan.trials {
        let rows = |sweep: &str| rows(&dir.join(sweep).join(&trial.name));
        assert_eq!(rows("parts"), rows("whole"), "{}", trial.name);
    }
    let said = succeed(dir, &["runs", "parts"]);
    assert_eq!(said.out.lines().count(), 9, "{}", said.out);
    // Nothing is left to do.
    let said = succeed(dir, &all);
    assert!(
        said.err.contains("8 of 8 trials have ended before"),
        "{}",
        said.err
    );
}

#[test]
fn a_sweep_is_extended_and_not_changed() {
    let dir = scratch();
    let dir = dir.path();
    with_text(dir);
    succeed(
        dir,
        &words(&["lr=1e-3", "seed=1..2", "--dir", "s", "--tune", "lr"]),
    );
    let before = rows(&dir.join("s/enwik8-tiny_lr=1e-3_seed=1"));
    let said = succeed(
        dir,
        &words(&["lr=0.001,1e-2", "seed=1..2", "--dir", "s", "--tune", "lr"]),
    );
    assert!(
        said.err.contains("2 more than the directory has"),
        "{}",
        said.err
    );
    assert!(
        said.err.contains("2 of 4 trials have ended before"),
        "{}",
        said.err
    );
    assert_eq!(rows(&dir.join("s/enwik8-tiny_lr=1e-3_seed=1")), before);
    for (own, parts) in [
        (
            &["lr=1e-2", "seed=1..2", "--tune", "lr"][..],
            &["another grid", "2 trials that this one lacks"][..],
        ),
        (
            &["lr=1e-3,1e-2", "seed=1..2", "--tune", "lr", "dropout=0.1"],
            &["another grid", "4 trials"],
        ),
        (
            &["lr=1e-3,1e-2", "seed=1..2", "--tune", "depth"],
            &["tunes optimizer.lr, not model.depth"],
        ),
    ] {
        let all = words(&[own, &["--dir", "s"]].concat());
        let said = run(dir, &all);
        assert_ne!(said.code, Some(0), "{own:?}");
        for part in parts {
            assert!(said.err.contains(part), "{own:?}: {}", said.err);
        }
    }
    let other = [
        "sweep",
        "enwik8-small",
        "--dir",
        "s",
        "lr=1e-3",
        "--text",
        "text",
    ];
    fail(
        dir,
        &other,
        1,
        &["is of the recipe enwik8-tiny, not of enwik8-small"],
    );
    // Another run in the place of a trial.
    let (a, b) = (
        dir.join("s/enwik8-tiny_lr=1e-3_seed=1"),
        dir.join("s/enwik8-tiny_lr=1e-3_seed=2"),
    );
    fs::rename(&a, dir.join("x")).unwrap();
    fs::rename(&b, &a).unwrap();
    fs::rename(dir.join("x"), &b).unwrap();
    let all = words(&["lr=1e-3,1e-2", "seed=1..2", "--dir", "s", "--tune", "lr"]);
    fail(dir, &all, 1, &["is not the trial of that name"]);
    fail(
        dir,
        &["report", "s"],
        1,
        &["is not the trial of that name", "the seed 2, not 1"],
    );
}

#[test]
fn the_report_compares_arms_at_their_own_best_values() {
    let dir = scratch();
    let dir = dir.path();
    with_text(dir);
    // At the last rate, everything diverges.
    let grid = [
        "scheme=rezero,post-norm",
        "lr=1e-3,1e-2,1e30",
        "seed=1..3",
        "clip_norm=0",
    ];
    let said = succeed(
        dir,
        &words(&[&grid[..], &["--dir", "s", "-j", "2"]].concat()),
    );
    assert!(
        said.err.contains("12 done, 6 diverged") || said.err.contains("6 diverged, 12 done"),
        "{}",
        said.err
    );
    let sweep = read_sweep(&dir.join("s")).unwrap();
    let tuning = sweep.tuning.clone().unwrap();
    assert_eq!(tuning.settings.len(), 6);
    assert_eq!(sweep.groups.len(), 2);
    for setting in &tuning.settings {
        let n = usize::from(setting.values[0] != "1e30") * 3;
        assert_eq!(
            (setting.last.len(), setting.diverged),
            (n, 3 - n),
            "{setting:?}"
        );
    }
    for arm in ["rezero", "post-norm"] {
        let own = || {
            tuning
                .settings
                .iter()
                .filter(|s| s.arm == arm && s.diverged == 0)
        };
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let best = own()
            .min_by(|a, b| mean(&a.last).total_cmp(&mean(&b.last)))
            .unwrap();
        assert!(best.chosen);
        assert_eq!(own().filter(|s| s.chosen).count(), 1);
    }
    let said = succeed(
        dir,
        &[
            "report",
            "s",
            "--out",
            "r",
            "--no-jacobian",
            "--baseline",
            "post-norm",
        ],
    );
    let head: Vec<&str> = said
        .out
        .lines()
        .filter(|line| line.starts_with("| arm"))
        .collect();
    assert_eq!(head[0], "| arm | lr=1e-3 | lr=1e-2 | lr=1e30 |");
    assert!(head[1].contains("p against post-norm lr="), "{}", head[1]);
    assert!(said.out.contains("| diverged |"), "{}", said.out);
    let chosen = |arm: &str| {
        let found = tuning.settings.iter().find(|s| s.chosen && s.arm == arm);
        found.unwrap().clone()
    };
    let (a, b) = (chosen("rezero"), chosen("post-norm"));
    let p = welch(&a.last, &b.last).unwrap();
    let text = if p < 0.001 {
        "< 0.001".to_owned()
    } else {
        format!("{p:.3}")
    };
    assert!(
        said.out.contains(&format!("| {text} |")),
        "{p}: {}",
        said.out
    );
    // The largest rate diverged, so the one before is not at the edge of the grid.
    let edge = tuning
        .settings
        .iter()
        .any(|s| s.chosen && s.values[0] == "1e-3");
    assert_eq!(
        said.err.contains("is the smallest value of the grid"),
        edge,
        "{}",
        said.err
    );
    let csv = fs::read_to_string(dir.join("r/tuning.csv")).unwrap();
    assert_eq!(csv.lines().count(), 7);
    // The values at which trials diverged are in the figure.
    let page = fs::read_to_string(dir.join("r/report.md")).unwrap();
    assert!(page.contains("A cross at the upper edge"), "{page}");
    let svg = fs::read_to_string(dir.join("r/tuning.svg")).unwrap();
    for colour in ["#0072B2", "#D55E00"] {
        let of_a_cross = |line: &&str| line.starts_with("<line") && line.contains(colour);
        assert_eq!(svg.lines().filter(of_a_cross).count(), 2, "{colour}");
    }
    for page in ["r/index.html", "r/report.md"] {
        let page = fs::read_to_string(dir.join(page)).unwrap();
        assert!(page.contains("Tuning") && page.contains("Each arm at its best"));
    }
    // A sweep is reported alone, and an unfinished one says so.
    fail(
        dir,
        &["report", "s", "s/rezero_lr=1e-3_seed=1"],
        1,
        &["is reported alone"],
    );
    fs::remove_file(dir.join("s/rezero_lr=1e-3_seed=1/DONE")).unwrap();
    let said = succeed(dir, &["report", "s", "--out", "r", "--no-jacobian"]);
    assert!(
        said.err.contains("1 of 18 trials are not complete"),
        "{}",
        said.err
    );
    assert!(said.out.contains("(1 of 3 not complete)"), "{}", said.out);
}

#[test]
fn a_file_describes_a_sweep() {
    let dir = scratch();
    let dir = dir.path();
    with_text(dir);
    let file = "recipe = 'enwik8-tiny'\nset = ['depth=2', 'steps=5', 'seed=1..2', 'valid_items=300']\n\
                [[arm]]\nname = 'one'\nlabel = 'α = 1'\nset = ['scheme=rezero', 'alpha_init=1']\n\
                [[arm]]\nname = 'pre'\nset = ['scheme=pre-norm', 'lr=2e-3']\n";
    fs::write(dir.join("mine.toml"), file).unwrap();
    let said = succeed(
        dir,
        &["sweep", "mine.toml", "--text", "text", "seed=3", "--json"],
    );
    assert_eq!(names(&said), ["one_seed=3", "pre_seed=3"]);
    assert!(
        trials(&said).iter().all(|trial| trial["state"] == "done"),
        "{}",
        said.out
    );
    let said = succeed(dir, &["report", "sweeps/mine", "--no-jacobian"]);
    assert!(
        said.out.contains("| α = 1 |") && said.out.contains("| pre |"),
        "{}",
        said.out
    );
    assert!(!said.out.contains("lr="), "{}", said.out);
    for (from, to, part) in [
        (
            "'depth=2'",
            "'depth=2', 'lr=1'",
            "is set by the arm pre and by the sweep",
        ),
        (
            "alpha_init=1",
            "alpha_init=1,2",
            "several values in the arm one",
        ),
        ("name = 'pre'", "name = 'one'", "needs a name of its own"),
        ("set = ['depth", "sets = ['depth", "sets"),
        ("'depth=2'", "'depth'", "key=value"),
        ("enwik8-tiny", "enwik8-tinny", "there is no recipe"),
    ] {
        fs::write(dir.join("bad.toml"), file.replace(from, to)).unwrap();
        fail(
            dir,
            &["sweep", "bad.toml", "--text", "text", "--dry-run"],
            1,
            &[part],
        );
    }
}

#[test]
fn directories_from_others_are_read_with_care() {
    let dir = scratch();
    let dir = dir.path();
    with_text(dir);
    let all = words(&["lr=1e-3", "seed=1..2", "--dir", "s"]);
    succeed(dir, &all);
    let path = dir.join("s/sweep.json");
    let plan = fs::read_to_string(&path).unwrap();
    for (from, to, part) in [
        ("enwik8-tiny_seed=1", "../s/x", "no name of a trial"),
        ("enwik8-tiny_seed=1", "/etc", "no name of a trial"),
        ("enwik8-tiny_seed=1", "", "no name of a trial"),
        ("enwik8-tiny_seed=1", "\\u001b[2J", "no name of a trial"),
        ("enwik8-tiny_seed=1", "enwik8-tiny_seed=2", "twice"),
        ("\"format\": 1", "\"format\": 2", "format"),
        ("\"tuned\": []", "\"tuned\": [\"optimizer.lr\"]", "values"),
        ("{", "", "does not parse"),
    ] {
        let bad = plan.replacen(from, to, 1);
        assert_ne!(bad, plan, "{from}");
        fs::write(&path, bad).unwrap();
        for words in [&["report", "s"][..], &all[..]] {
            let said = fail(dir, words, 1, &[part]);
            assert!(!said.err.contains('\u{1b}'), "{}", said.err);
        }
    }
    // Names of arms reach the terminal.
    fs::write(
        &path,
        plan.replace("\"arm\": \"", "\"arm\": \"\\u001b[31m\\n"),
    )
    .unwrap();
    let said = succeed(dir, &["report", "s", "--no-jacobian"]);
    assert!(
        !said.out.contains('\u{1b}') && !said.err.contains('\u{1b}'),
        "{said:?}"
    );
    fs::write(&path, vec![b' '; 9 << 20]).unwrap();
    fail(dir, &["report", "s"], 1, &["more than"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;

        fs::write(&path, &plan).unwrap();
        let trial = dir.join("s/enwik8-tiny_seed=1");
        fs::rename(&trial, dir.join("elsewhere")).unwrap();
        symlink(dir.join("elsewhere"), &trial).unwrap();
        fail(dir, &["report", "s"], 1, &["symbolic link"]);
        fail(dir, &all, 1, &["symbolic link"]);
        fs::rename(&path, dir.join("plan")).unwrap();
        symlink(dir.join("plan"), &path).unwrap();
        let said = run(dir, &["report", "s"]);
        assert_eq!(said.code, Some(1), "{said:?}");
    }
}

#[test]
fn thousands_of_trials_are_planned_in_seconds() {
    let dir = scratch();
    let begun = Instant::now();
    let args = "sweep cifar10-resnet20 lr=1e-3,1e-2,0.1,0.2,0.3 scheme=rezero,residual seed=1..1000 epochs=3 --dry-run";
    let said = succeed(dir.path(), &args.split(' ').collect::<Vec<_>>());
    println!("10,000 trials: {:.1} s", begun.elapsed().as_secs_f64());
    // The machine may do much else at the same time.
    assert!(begun.elapsed() < Duration::from_secs(60));
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines.len(), 10_001);
    // What all have in common is said once.
    assert_eq!(lines[0], "all trials: run.epochs=3");
    assert_eq!(
        lines[10_000],
        "residual_lr=0.3_seed=1000 (new): model.scheme=residual optimizer.lr=0.3 train.seed=1000"
    );
}

#[test]
fn each_device_gets_trials_of_its_own() {
    let dir = scratch();
    let dir = dir.path();
    with_text(dir);
    // Two names of the same device, which the trials' recipes tell apart.
    let all = words(&[
        "seed=1..6",
        "--dir",
        "s",
        "--device",
        "auto,flex",
        "--threads",
        "1",
    ]);
    succeed(dir, &all);
    let plan = Plan::read(&dir.join("s")).unwrap();
    let on = |device: &str| {
        let line = format!("device = \"{device}\"");
        let has = |name: &String| {
            let recipe = fs::read_to_string(dir.join("s").join(name).join("recipe.toml"));
            recipe.unwrap().lines().any(|other| other == line)
        };
        plan.trials.iter().filter(|trial| has(&trial.name)).count()
    };
    let (auto, flex) = (on("auto"), on("flex"));
    assert!(auto > 0 && flex > 0 && auto + flex == 6, "{auto} {flex}");
}

#[test]
fn a_sweep_is_not_continued_with_other_data() {
    let dir = scratch();
    let dir = dir.path();
    with_text(dir);
    let sweep = |seeds: &str| {
        let all = words(&["lr=1e-3", seeds, "--dir", "s"]);
        run(dir, &all)
    };
    assert_eq!(sweep("seed=1..1").code, Some(0));
    let before = fs::read(dir.join("text")).unwrap();
    fs::write(
        dir.join("text"),
        "another text, of other words. ".repeat(500),
    )
    .unwrap();
    let said = sweep("seed=1..2");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.err.contains("other data than the trials of its sweep"),
        "{said:?}"
    );
    assert!(!dir.join("s/enwik8-tiny_seed=2").exists());
    fs::write(dir.join("text"), before).unwrap();
    let said = sweep("seed=1..2");
    assert_eq!(said.code, Some(0), "{said:?}");
    // The trial's command can be given again without the sweep.
    let env = fs::read_to_string(dir.join("s/enwik8-tiny_seed=2/env.json")).unwrap();
    assert!(!env.contains("of-sweep"), "{env}");
}
