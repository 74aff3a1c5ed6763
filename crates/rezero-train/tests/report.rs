//! Reports against sums done by hand, figures and pages against snapshots, and bad input.

use std::fs;
use std::path::{Path, PathBuf};

use rezero_train::lens::{self, Record};
use rezero_train::plot::{Axis, HeatMap, Lines, Series};
use rezero_train::record::{Environment, Row};
use rezero_train::report::{
    Mean, Report, csv, curves, figures, group, html, markdown, read, welch,
};
use rezero_train::task::{Domain, Images, Text};

use crate::support::{cifar_layout, fail, of_split, recipe, rows, scratch, succeed};

/// The environment that a run of a task records.
fn environment<D: Domain>(command: &[&str]) -> Vec<u8> {
    let environment = Environment {
        commands: vec![command.iter().map(|word| (*word).to_owned()).collect()],
        device: "Device<Flex(Cpu)>".to_owned(),
        processors: 2,
        data: "enwik8 90000000 1234".to_owned(),
        parameters: 1_234_567,
        task: Some(D::task().described()),
        ..Environment::default()
    };
    serde_json::to_vec(&environment).unwrap()
}

/// Writes a run of `[seconds, training loss, validation bits per byte]` at steps 10, 20, ….
pub fn written(dir: &Path, name: &str, overrides: &[&str], values: &[[f64; 3]]) -> PathBuf {
    let run = dir.join(name);
    fs::create_dir_all(&run).unwrap();
    let recipe = recipe("enwik8-small", overrides);
    fs::write(run.join("recipe.toml"), recipe.to_toml()).unwrap();
    let command = [&["rezero", "train", "enwik8-small"], overrides].concat();
    fs::write(run.join("env.json"), environment::<Text>(&command)).unwrap();
    let mut text = String::new();
    for (i, [seconds, loss, bpb]) in values.iter().enumerate() {
        let step = 10 * (i + 1);
        let row = |split: &str, loss: f64| Row {
            split: split.to_owned(),
            step,
            epoch: 1,
            loss,
            metrics: [
                ("bpb".to_owned(), loss / std::f64::consts::LN_2),
                ("accuracy".to_owned(), 0.5),
            ]
            .into(),
            items: 100,
            lr: Some(0.001),
            grad_norm: Some(1.0),
            layer_grad_norm: match split {
                "train" => vec![0.5, 0.25, 0.125],
                _ => Vec::new(),
            },
            alpha: match split {
                "train" => vec![0.1 * i as f32, -0.2 * i as f32, 0.05],
                _ => Vec::new(),
            },
            items_per_s: Some(50.0),
            warm_up_s: None,
            ranks: None,
            ema: None,
            seconds: *seconds,
        };
        let valid = row("valid", bpb * std::f64::consts::LN_2);
        for row in [row("train", *loss), valid] {
            text.push_str(&serde_json::to_string(&row).unwrap());
            text.push('\n');
        }
    }
    fs::write(run.join("metrics.jsonl"), text).unwrap();
    fs::write(run.join("DONE"), "").unwrap();
    run
}

/// Three seeds each of two arms, whose numbers are small enough for paper.
fn fixture(dir: &Path) -> Vec<String> {
    let mut runs = Vec::new();
    for (seed, bits) in [(1, 2.5), (2, 2.6), (3, 2.4)] {
        let name = format!("rezero-{seed}");
        let values = [[1.0, 4.0, 4.0], [2.0, 3.0, 3.0], [3.0, 2.0, bits]];
        runs.push(written(dir, &name, &[&format!("seed={seed}")], &values));
    }
    for (seed, bits) in [(1, 3.0), (2, 3.2), (3, 3.1), (4, 2.9)] {
        let name = format!("pre-norm-{seed}");
        // Seed 4 was interrupted after its first step and counts its seconds anew.
        let second = if seed == 4 { 1.5 } else { 4.0 };
        let values = [
            [2.0, 4.5, 4.0],
            [second, 3.5, 3.3],
            [second + 2.0, 3.0, bits],
        ];
        let overrides = ["scheme=pre-norm", &format!("seed={seed}")];
        runs.push(written(dir, &name, &overrides, &values));
    }
    runs.into_iter()
        .map(|run| run.to_str().unwrap().to_owned())
        .collect()
}

fn report(runs: &[String], target: Option<f64>) -> Report {
    let runs = runs.iter().map(|run| read(run).unwrap()).collect();
    Report::new("Fixture", group(runs).unwrap(), target, Some("pre-norm")).unwrap()
}

#[test]
fn numbers_are_those_of_a_hand() {
    let dir = scratch();
    let report = report(&fixture(dir.path()), None);
    let [rezero, pre_norm] = report.table.as_slice() else {
        panic!("two arms: {:?}", report.table);
    };
    assert_eq!((rezero.label.as_str(), rezero.seeds), ("rezero", 3));
    assert_eq!((pre_norm.label.as_str(), pre_norm.seeds), ("pre-norm", 4));
    let near =
        |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found} {expected}");
    // 2.5 ± 0.1 / √3.
    let last = rezero.last.unwrap();
    near(last.mean, 2.5);
    near(last.error.unwrap(), 0.1 / 3f64.sqrt());
    // 3.05, variance 0.05 / 3.
    let last = pre_norm.last.unwrap();
    near(last.mean, 3.05);
    near(last.error.unwrap(), (0.05f64 / 3.0 / 4.0).sqrt());
    // t = −6.3509 with 4.9592 degrees of freedom; the tail was integrated numerically.
    let p = rezero.p_last.unwrap();
    assert!((p - 0.001_473_299_9).abs() < 1e-9, "{p}");
    assert_eq!(pre_norm.p_last, None);
    // The worst of the best is 3.2; ReZero is there at step 20 after 2 s, pre-norm at 30.
    assert_eq!(report.target, Some(3.2));
    near(rezero.steps.unwrap().mean, 20.0);
    near(rezero.seconds.unwrap().mean, 2.0);
    near(pre_norm.steps.unwrap().mean, 30.0);
    // 6, 6, 6, and 2 + 3.5 of the interrupted run.
    near(pre_norm.seconds.unwrap().mean, (18.0 + 5.5) / 4.0);
    near(pre_norm.wall.unwrap().mean, (18.0 + 5.5) / 4.0);
    assert_eq!((rezero.reached, pre_norm.reached), (3, 4));
    // All of an arm at the same step: nothing varies, so there is no test.
    assert_eq!(rezero.p_steps, None);
}

#[test]
fn a_target_that_some_miss_says_so() {
    let dir = scratch();
    let report = report(&fixture(dir.path()), Some(2.95));
    let pre_norm = &report.table[1];
    assert_eq!((pre_norm.reached, pre_norm.p_steps), (1, None));
    let table = report.table_markdown();
    assert!(table.contains("30 (1 of 4)"), "{table}");
    assert!(table.contains("p against pre-norm"), "{table}");
}

#[test]
fn welchs_test_and_means_know_their_limits() {
    let p = welch(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]).unwrap();
    assert!((p - 0.220_880_840_5).abs() < 1e-9, "{p}");
    assert_eq!(welch(&[1.0, 2.0], &[2.0, 4.0, 6.0]), None);
    assert_eq!(welch(&[1.0; 3], &[2.0; 3]), None);
    assert_eq!(Mean::of(&[]), None);
    assert_eq!(Mean::of(&[2.0]).unwrap().text(2), "2.00");
    assert_eq!(Mean::of(&[1.0, 3.0]).unwrap().text(1), "2.0 ± 1.0");
}

#[test]
fn arms_are_told_apart_by_what_differs() {
    let dir = scratch();
    let values = [[1.0, 4.0, 4.0]];
    let run = |name: &str, overrides: &[&str]| {
        let run = written(dir.path(), name, overrides, &values);
        read(run.to_str().unwrap()).unwrap()
    };
    let runs = vec![
        run("a", &["seed=1"]),
        run("b", &["seed=2"]),
        run("c", &["alpha_init=1"]),
        run("d", &["scheme=pre-norm", "lr=4e-3"]),
    ];
    let labels: Vec<String> = group(runs).unwrap().into_iter().map(|g| g.label).collect();
    // Each names the rate, also those at the usual one; pre-norm has no α.
    assert_eq!(
        labels,
        [
            "rezero alpha_init=0.0 lr=0.002",
            "rezero alpha_init=1.0 lr=0.002",
            "pre-norm lr=0.004"
        ]
    );
    // A given label.
    for label in ["ours", "α = 0"] {
        let spec = format!("{label}={}", dir.path().join("a").display());
        assert_eq!(read(&spec).unwrap().label.as_deref(), Some(label));
    }
    let twice = vec![run("e", &["seed=1"]), run("f", &["seed=1"])];
    let error = group(twice).unwrap_err().to_string();
    assert!(
        error.contains("the seed 1, so that they would count twice"),
        "{error}"
    );
}

/// The labels of runs with these overrides, one step long.
fn labels_of(dir: &Path, runs: &[&[&str]]) -> Vec<String> {
    let run = |(i, overrides): (usize, &&[&str])| {
        let run = written(dir, &i.to_string(), overrides, &[[1.0, 4.0, 4.0]]);
        read(run.to_str().unwrap()).unwrap()
    };
    let groups = group(runs.iter().enumerate().map(run).collect()).unwrap();
    groups.into_iter().map(|group| group.label).collect()
}

#[test]
fn labels_name_what_differs_and_no_more() {
    let dir = scratch();
    let labels = |runs: &[&[&str]]| labels_of(dir.path(), runs);
    // A sweep: each arm names its value, whichever is the usual one.
    let sweep: [&[&str]; 3] = [&["lr=0.01"], &["lr=0.02"], &["lr=0.01", "seed=2"]];
    assert_eq!(labels(&sweep), ["rezero lr=0.01", "rezero lr=0.02"]);
    // Schemes alone, of which one has gates and one has none; a run that is longer.
    let schemes: [&[&str]; 2] = [&[], &["scheme=pre-norm"]];
    assert_eq!(labels(&schemes), ["rezero", "pre-norm"]);
    let longer: [&[&str]; 2] = [&["steps=10"], &["steps=20"]];
    assert_eq!(labels(&longer), ["rezero steps=10", "rezero steps=20"]);
    // A rate that was tuned for each scheme is a difference.
    let tuned: [&[&str]; 2] = [&["lr=4e-3"], &["scheme=pre-norm", "lr=2e-3"]];
    assert_eq!(labels(&tuned), ["rezero lr=0.004", "pre-norm lr=0.002"]);
    // A key that only one kind of optimizer has follows from the kind, which has its command's name.
    let kinds: [&[&str]; 2] = [&["optimizer=adam"], &["optimizer=sgd", "lr=0.1"]];
    assert_eq!(
        labels(&kinds),
        [
            "rezero optimizer=adam lr=0.002",
            "rezero optimizer=sgd lr=0.1"
        ]
    );
    let own: [&[&str]; 3] = [
        &[],
        &["alpha_optimizer=adam", "alpha_lr=0.1"],
        &["alpha_optimizer=adam", "alpha_lr=1"],
    ];
    assert_eq!(
        labels(&own),
        [
            "rezero alpha_optimizer=shared",
            "rezero alpha_lr=0.1 alpha_optimizer=adam",
            "rezero alpha_lr=1.0 alpha_optimizer=adam"
        ]
    );
    assert_eq!(labels(&[&[]]), ["rezero"]);
}

#[test]
fn families_are_named_and_other_data_too() {
    let dir = scratch();
    let run = |name: &str, base: &str, overrides: &[&str], data: &str| {
        let run = written(dir.path(), name, &[], &[[1.0, 4.0, 4.0]]);
        let recipe = recipe(base, overrides);
        fs::write(run.join("recipe.toml"), recipe.to_toml()).unwrap();
        let words = environment::<Images>(&["rezero", "train"]);
        let words = String::from_utf8(words).unwrap();
        let words = words.replace("enwik8 90000000 1234", data);
        fs::write(run.join("env.json"), words).unwrap();
        read(run.to_str().unwrap()).unwrap()
    };
    let labels = |runs| -> Vec<String> {
        let groups = group(runs).unwrap().into_iter();
        groups.map(|group| group.label).collect()
    };
    let all = "cifar10 45000 12345678ab+1234567890";
    let small = "cifar10 4500 12345678ab+1234567890";
    let other = "cifar10 45000 aaaaaaaaaa+1234567890";
    let resnet = "cifar10-resnet20";
    assert_eq!(
        labels(vec![
            run("a", resnet, &[], all),
            run("b", "cifar10-mlp64", &[], all),
            run("c", "cifar10-mlp64", &["scheme=residual"], all),
        ]),
        [
            "rezero model=cifar-resnet",
            "rezero model=mlp",
            "residual model=mlp"
        ]
    );
    assert_eq!(
        labels(vec![
            run("d", resnet, &[], all),
            run("e", resnet, &[], small)
        ]),
        ["rezero data=cifar10/45000", "rezero data=cifar10/4500"]
    );
    assert_eq!(
        labels(vec![
            run("f", resnet, &[], all),
            run("g", resnet, &[], other)
        ]),
        [
            "rezero data=cifar10/45000/12345678/12345678",
            "rezero data=cifar10/45000/aaaaaaaa/12345678"
        ]
    );
    // Data that differ as the settings say are named by the settings.
    assert_eq!(
        labels(vec![
            run("h", resnet, &[], all),
            run("i", resnet, &["train_items=4500"], small)
        ]),
        ["rezero train_items=0", "rezero train_items=4500"]
    );
}

#[test]
fn a_baseline_may_be_the_beginning_of_a_label() {
    let dir = scratch();
    let spec = |name: &str, overrides: &[&str]| {
        let run = written(dir.path(), name, overrides, &[[1.0, 4.0, 4.0]]);
        read(run.to_str().unwrap()).unwrap()
    };
    let runs = || {
        vec![
            spec("a", &["lr=0.01"]),
            spec("b", &["lr=0.02"]),
            spec("c", &["lr=0.01", "scheme=pre-norm"]),
        ]
    };
    let of = |name: &str| Report::new("t", group(runs()).unwrap(), None, Some(name));
    let found = |name: &str| of(name).unwrap().baseline.unwrap();
    assert_eq!(found("pre-norm"), "pre-norm lr=0.01");
    assert_eq!(found("rezero lr=0.02"), "rezero lr=0.02");
    for (name, message) in [
        ("rezero", "several arms begin with `rezero`"),
        ("pre", "there is no arm `pre`"),
    ] {
        let error = of(name).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

/// A report of one run of images for each of these accuracies at the end, as shares.
fn of_accuracies(dir: &Path, shares: &[f64], target: Option<f64>) -> Report {
    let run = |(i, share): (usize, &f64)| {
        let run = written(
            dir,
            &i.to_string(),
            &[&format!("seed={i}")],
            &[[1.0, 4.0, 4.0]],
        );
        fs::write(run.join("env.json"), environment::<Images>(&["rezero"])).unwrap();
        let mut rows = rows(&run);
        for row in &mut rows {
            row.metrics.insert("accuracy".to_owned(), *share);
        }
        let lines = rows
            .iter()
            .map(|row| serde_json::to_string(row).unwrap() + "\n");
        fs::write(run.join("metrics.jsonl"), lines.collect::<String>()).unwrap();
        read(run.to_str().unwrap()).unwrap()
    };
    let runs = shares.iter().enumerate().map(run).collect();
    Report::new("t", group(runs).unwrap(), target, None).unwrap()
}

#[test]
fn the_target_is_printed_as_it_is_counted() {
    let dir = scratch();
    // Products with 100 that are not the percentage: 8.799999999999999 and 7.3999999999999995.
    for (share, text) in [
        (0.088, "8.8 %"),
        (0.074, "7.4 %"),
        (0.3342, "33.4 %"),
        (0.3358, "33.5 %"),
        (0.5, "50.0 %"),
        (0.0, "0.0 %"),
        (1.0, "100.0 %"),
    ] {
        let report = of_accuracies(dir.path(), &[share, 1.0], None);
        assert_eq!(report.target_text().unwrap(), text);
        assert_eq!(report.table[0].reached, 2, "{share}");
        let shown = report.groups[0].runs[0].validations()[0].2;
        assert!(shown.to_string().len() <= 5, "{shown}");
        // A target that is given is shown as given, and counts what the table shows as reached.
        let target = (1000.0 * share).floor() / 10.0;
        let given = of_accuracies(dir.path(), &[share, 1.0], Some(target));
        assert_eq!(given.target_text().unwrap(), format!("{target} %"));
        assert_eq!(given.table[0].reached, 2, "{share}");
    }
    // Bits per byte are rounded up.
    for (bits, text) in [
        (2.5, "2.500 bpb"),
        (2.9771, "2.978 bpb"),
        (2.9769, "2.977 bpb"),
    ] {
        let runs = [("a", bits), ("b", 1.0)].map(|(name, bits)| {
            let overrides: &[&str] = if name == "a" {
                &["seed=1"]
            } else {
                &["seed=2"]
            };
            let run = written(dir.path(), name, overrides, &[[1.0, 4.0, bits]]);
            run.to_str().unwrap().to_owned()
        });
        let runs = runs.iter().map(|run| read(run).unwrap()).collect();
        let report = Report::new("t", group(runs).unwrap(), None, None).unwrap();
        assert_eq!(report.target_text().unwrap(), text);
        assert_eq!(report.table[0].reached, 2, "{bits}");
        assert!(
            report
                .table_markdown()
                .contains(&format!("steps to {text}"))
        );
    }
    let nobody = of_accuracies(dir.path(), &[0.1], Some(99.0));
    let text = markdown(&nobody, &[]);
    assert!(text.contains("| 1 | 10.0 | 10.0 | – | – | 10 |"), "{text}");
    assert!(text.contains("\nNo run reached 99 %.\n"), "{text}");
    assert!(!text.contains('±'), "{text}");
}

#[test]
fn gates_are_shown_from_step_0_if_their_start_is_known() {
    let dir = scratch();
    let values = [[1.0, 4.0, 4.0], [2.0, 3.0, 3.0]];
    let start = |overrides: &[&str], command: &str| {
        let run = written(dir.path(), "run", overrides, &values);
        let words = environment::<Text>(&["rezero", command]);
        fs::write(run.join("env.json"), words).unwrap();
        let run = read(run.to_str().unwrap()).unwrap();
        let start = run.alpha_init;
        let report = Report::new("t", group(vec![run]).unwrap(), None, None).unwrap();
        let figures = figures(&report);
        let map = figures.iter().find(|f| f.name.starts_with("alpha-over"));
        (start, map.unwrap().svg.matches("<rect").count())
    };
    let (grown, two_columns) = start(&[], "grow");
    assert_eq!(grown, None);
    // Three gates: one more column.
    let three_columns = two_columns + 3;
    assert_eq!(start(&[], "train"), (Some(0.0), three_columns));
    assert_eq!(start(&["alpha_init=0.5"], "train").0, Some(0.5));
    let bounded = start(&["alpha_init=0.5", "alpha_bound=2"], "train")
        .0
        .unwrap();
    assert!((bounded - 2.0 * 0.25f64.tanh()).abs() < 1e-12);
    // Twelve layers of LayerScale begin with another value than the recipe's 0.
    assert_eq!(start(&["scheme=layerscale"], "train").0, Some(0.1));
    assert_eq!(start(&[], "import"), (None, two_columns));
    // A module of one's own makes its own gates.
    let own = written(dir.path(), "own", &[], &values);
    fs::write(own.join("recipe.toml"), "[gates]\nalpha_init = 0.0\n").unwrap();
    assert_eq!(read(own.to_str().unwrap()).unwrap().alpha_init, None);
}

#[test]
fn runs_that_diverge_are_counted_as_such() {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let dir = scratch();
    let mut runs = fixture(dir.path());
    let mut add = |name: &str, overrides: &[&str], values: &[[f64; 3]]| {
        let run = written(dir.path(), name, overrides, values);
        fs::remove_file(run.join("DONE")).unwrap();
        runs.push(run.to_str().unwrap().to_owned());
    };
    // One after its second validation; one whose every validation is NaN; one that was stopped.
    let sound = [1.0, 4.0, 3.9];
    add(
        "r4",
        &["seed=4"],
        &[sound, [2.0, 3.0, 2.9], [3.0, inf, nan]],
    );
    add(
        "g1",
        &["scheme=gpt2-norm"],
        &[[1.0, 4.0, nan], [2.0, nan, nan]],
    );
    add(
        "p5",
        &["scheme=pre-norm", "seed=5"],
        &[sound, [2.0, 3.0, 3.1]],
    );
    let report = report(&runs, None);
    let [rezero, pre_norm, gpt2] = report.table.as_slice() else {
        panic!("three arms: {:?}", report.table);
    };
    assert_eq!(
        (rezero.seeds, rezero.diverged, rezero.unfinished),
        (4, 1, 0)
    );
    assert_eq!((pre_norm.diverged, pre_norm.unfinished), (0, 1));
    assert_eq!((gpt2.diverged, gpt2.unfinished), (1, 0));
    // The last validation is that of the other three, the best one that of all.
    let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found}");
    assert_eq!((rezero.last.unwrap().n, rezero.best.unwrap().n), (3, 4));
    near(rezero.last.unwrap().mean, 2.5);
    near(rezero.best.unwrap().mean, (2.5 + 2.6 + 2.4 + 2.9) / 4.0);
    assert!(rezero.p_last.unwrap().is_finite());
    assert_eq!((gpt2.last, gpt2.best, gpt2.reached), (None, None, 0));
    // Runs that diverged set no target; one of them has reached it before.
    assert_eq!((report.target, rezero.reached), (Some(3.2), 4));
    let figures = figures(&report);
    let text = markdown(&report, &figures);
    for part in [
        "| rezero | 4 (1 diverged) | 2.500 ± 0.058 (3 of 4) | 2.600 ± 0.108 |",
        "| pre-norm | 5 (1 stopped early) |",
        "| gpt2-norm | 1 (1 diverged) | – | – |",
        "A run has diverged if",
        "runs that diverged are left out where others of the arm did not",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for part in ["NaN", "inf,", ",inf"] {
        assert!(
            !csv(&report).contains(part) && !curves(&report).contains(part),
            "{part}"
        );
    }
    for figure in &figures {
        assert!(
            !figure.svg.contains("NaN") && !figure.svg.contains("inf"),
            "{}",
            figure.name
        );
    }
    let lines = figures.iter().find(|f| f.name == "loss-by-step").unwrap();
    assert!(lines.svg.contains("1 of 4 diverged") && lines.svg.contains("diverged"));
    assert!(html(&report, &figures).contains("<td>4 (1 diverged)</td>"));
    // All of it diverged.
    let alone = Report::new(
        "t",
        group(vec![read(&runs[8]).unwrap()]).unwrap(),
        None,
        None,
    )
    .unwrap();
    assert_eq!(alone.target, None);
    assert!(!html(&alone, &rezero_train::report::figures(&alone)).contains("NaN"));
}

#[test]
fn jacobians_say_from_what_to_what() {
    let dir = scratch();
    let run = written(dir.path(), "a", &[], &[[1.0, 4.0, 4.0]]);
    // As older versions wrote it.
    let record = r#"{"layers": 12, "jacobians": 1, "not_finite": 0, "count": 1, "mean_square": 1.0,
        "log10_quantiles": [[0.0, 0.0], [1.0, 0.0]], "vanishing": 0.0, "condition": 1.0, "low": -8.0,
        "high": 4.0, "histogram": [0, 1, 0], "below": 0, "above": 0"#;
    let records = format!(r#"[{record}, "name": "start"}}, {record}, "name": "step 10"}}]"#);
    fs::write(run.join(lens::FILE), records).unwrap();
    let run = read(run.to_str().unwrap()).unwrap();
    let of = "from the embedding of the first positions to the output of the layers";
    assert_eq!(run.jacobians[0].of, of);
    let table = lens::table(&run.jacobians);
    assert!(table.starts_with(&format!("Jacobian {of}. σ are the singular values.")));
    for head in ["min", "5 %", "median", "95 %", "max"] {
        assert!(table.contains(&format!("| {head} log₁₀ σ |")), "{table}");
    }
    let report = Report::new("t", group(vec![run]).unwrap(), None, None).unwrap();
    let figures = figures(&report);
    let caption = &figures.last().unwrap().caption;
    assert!(
        caption.contains(&format!("Jacobian {of} at the end")),
        "{caption}"
    );
    let page = html(&report, &figures);
    assert!(page.contains("<th>Jacobian</th>") && page.contains(&format!("<td>{of}</td>")));
}

#[test]
fn figures_and_pages_are_as_they_were() {
    let lines = Lines {
        title: "Two lines".to_owned(),
        x: Axis::linear("steps"),
        y: Axis::log("loss (nats)"),
        series: vec![
            Series {
                name: "with a band".to_owned(),
                points: vec![(0.0, 100.0), (1.0, 10.0), (2.0, 1.0)],
                band: vec![(0.0, 80.0, 120.0), (1.0, 8.0, 12.0), (2.0, 0.8, 1.2)],
                beyond: Vec::new(),
            },
            Series::new(
                "a gap",
                vec![(0.0, 50.0), (0.5, 40.0), (1.0, f64::NAN), (2.0, 3.0)],
            ),
        ],
    };
    insta::assert_snapshot!("lines", lines.svg());
    let map = HeatMap {
        title: "Gates".to_owned(),
        x: "steps".to_owned(),
        edges: vec![0.0, 10.0, 20.0],
        y: "layer".to_owned(),
        rows: vec![vec![0.0, 0.5], vec![-1.0, f64::NAN]],
        value: "α".to_owned(),
    };
    insta::assert_snapshot!("heat-map", map.svg());
    #[cfg(feature = "png")]
    for svg in [lines.svg(), map.svg()] {
        let pixels = rezero_train::plot::png(&svg, &[]);
        assert!(pixels.starts_with(b"\x89PNG") && pixels.len() > 10_000);
    }

    let dir = scratch();
    let report = report(&fixture(dir.path()), None);
    let figures = figures(&report);
    let names: Vec<&str> = figures.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "loss-by-step",
            "loss-by-second",
            "validation-by-step",
            "validation-by-second",
            "alpha-over-time-1",
            "alpha-over-time-2",
            "alpha-by-depth",
            "gradient-by-layer"
        ]
    );
    let text = markdown(&report, &figures);
    insta::assert_snapshot!("markdown", text);
    insta::assert_snapshot!("csv", csv(&report));
    insta::assert_snapshot!("curves", curves(&report));
    let page = html(&report, &figures);
    // The page loads no external resource and runs no script.
    let page_alone = page.replace("http://www.w3.org/2000/svg", "");
    for word in ["http:", "https:", "src=", "<script", "@import", "url("] {
        assert!(!page_alone.contains(word), "{word}");
    }
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("width=device-width"));
    assert_eq!(page.matches("<figure").count(), figures.len());
    let frame = figures.iter().fold(page, |page, figure| {
        let svg = &figure.svg[figure.svg.find('>').unwrap()..];
        page.replace(svg, "…")
    });
    insta::assert_snapshot!("html", frame);
}

#[test]
fn names_cannot_write_into_the_page() {
    let dir = scratch();
    let run = written(dir.path(), "a", &[], &[[1.0, 4.0, 4.0]]);
    let spec = format!("<b>&\"={}", run.display());
    let groups = group(vec![read(&spec).unwrap()]).unwrap();
    let report = Report::new("<i>", groups, None, None).unwrap();
    let page = html(&report, &figures(&report));
    assert!(!page.contains("<b>") && !page.contains("<i>"));
    assert!(page.contains("&lt;b&gt;&amp;&quot;"));
    assert!(csv(&report).contains("\"<b>&\"\"\""));
}

#[test]
fn the_command_writes_all_and_refuses_what_does_not_fit() {
    let dir = scratch();
    let runs = fixture(dir.path());
    let mut args = vec!["report"];
    args.extend(runs.iter().map(String::as_str));
    let doc = dir.path().join("doc.md");
    fs::write(
        &doc,
        "before\n<!-- report t -->\nold\n<!-- /report t -->\nafter\n",
    )
    .unwrap();
    let mut whole = args.clone();
    whole.extend(["--baseline", "pre-norm", "--into", "doc.md", "--name", "t"]);
    let said = succeed(dir.path(), &whole);
    assert!(
        said.out.contains("| rezero | 3 | 2.500 ± 0.058 |"),
        "{}",
        said.out
    );
    for file in [
        "report.md",
        "report.csv",
        "curves.csv",
        "index.html",
        "loss-by-step.svg",
    ] {
        assert!(dir.path().join("report").join(file).exists(), "{file}");
    }
    let text = fs::read_to_string(&doc).unwrap();
    assert!(
        text.starts_with("before\n<!-- report t -->\n| arm |")
            && text.ends_with("<!-- /report t -->\nafter\n")
    );

    let refused = |extra: &[&str], expected: &str| {
        let mut args = args.clone();
        args.extend(extra);
        fail(dir.path(), &args, 1, &[expected]);
    };
    refused(&["--baseline", "post-norm"], "there is no arm `post-norm`");
    refused(
        &["--into", "doc.md", "--name", "other"],
        "has no place for the table",
    );
    refused(&["--target", "nan"], "must be finite");
    refused(&[&runs[0]], "the seed 1, so that they would count twice");
    refused(&["nowhere"], "holds no run");

    let bare = dir.path().join("bare");
    fs::create_dir(&bare).unwrap();
    let copy = |name: &str| fs::copy(Path::new(&runs[0]).join(name), bare.join(name)).unwrap();
    copy("recipe.toml");
    refused(&["bare"], "has no metrics.jsonl");
    fs::write(bare.join("metrics.jsonl"), "").unwrap();
    refused(&["bare"], "is empty");
    let images = recipe("cifar10-resnet20", &[]);
    fs::write(bare.join("recipe.toml"), images.to_toml()).unwrap();
    fs::write(bare.join("env.json"), environment::<Images>(&["rezero"])).unwrap();
    copy("metrics.jsonl");
    refused(&["bare"], "different tasks");
}

/// The JSON of a Jacobian command.
fn records(out: &str) -> Vec<Record> {
    serde_json::from_str(out).unwrap()
}

#[test]
fn jacobians_of_new_networks() {
    let dir = scratch();
    let args = [
        "jacobian",
        "transformer",
        "--layers",
        "2,6",
        "--draws",
        "2",
        "--json",
    ];
    let all = records(&succeed(dir.path(), &args).out);
    assert_eq!(all.len(), 12);
    let from_to = "from the input of the residual layers to their output";
    assert!(all.iter().all(|record| record.of == from_to));
    let of = |name: &str, layers: usize| {
        all.iter()
            .find(|r| r.name == name && r.layers == layers)
            .unwrap()
    };
    // At α = 0 the Jacobian is exactly the identity.
    let closed = of("rezero, α = 0", 6);
    assert_eq!(
        (closed.count, closed.mean_square, closed.condition),
        (128, Some(1.0), Some(1.0))
    );
    // A final norm removes two dimensions of each of four tokens, 8 of 64 in all.
    assert_eq!(of("pre-norm", 2).vanishing, Some(0.125));
    let histogram = closed.histogram.iter().sum::<usize>() + closed.below + closed.above;
    assert_eq!(histogram, closed.count);
    for file in [
        "jacobian.json",
        "jacobian.csv",
        "jacobian-2.svg",
        "jacobian-6.svg",
    ] {
        assert!(
            dir.path().join("jacobian/transformer").join(file).exists(),
            "{file}"
        );
    }
    // A network so deep that its signals overflow gives a row, not an error.
    let deep = [
        "jacobian", "mlp", "--scheme", "residual", "--layers", "3000", "--width", "8",
    ];
    let said = succeed(dir.path(), &[&deep[..], &["--draws", "1"]].concat());
    assert!(said.out.contains("residual | 3000"), "{}", said.out);

    for (args, expected) in [
        (
            &["jacobian", "transformer", "--scheme", "prenorm"][..],
            "did you mean `pre-norm`",
        ),
        (
            &["jacobian", "transformer", "--width", "10"],
            "n-heads must divide width",
        ),
        (
            &["jacobian", "mlp", "--alpha", "inf"],
            "alpha must be finite",
        ),
        (
            &["jacobian", "nothing"],
            "neither transformer, mlp, zoo:NAME nor a run",
        ),
    ] {
        fail(dir.path(), args, 1, &[expected]);
    }
    let figure = lens::figure("t", &[closed]);
    assert_eq!(figure.series[0].points.len(), 2 * closed.histogram.len());
}

#[test]
fn a_run_is_measured_reported_grown_and_trained_on() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 40);
    let data = data.to_str().unwrap();
    let small = ["depth=6", "width=16", "batch=20", "epochs=2", "log_every=1"];
    let run = [
        &[
            "train",
            "cifar10-mlp64",
            "--data-dir",
            data,
            "--run-dir",
            "six",
        ][..],
        &small,
    ];
    succeed(dir.path(), &run.concat());
    let six = rows(&dir.path().join("six"));
    let trained = of_split(&six, "train");
    // Nine batches of 20 in each epoch.
    assert_eq!(trained.len(), 18);
    for row in &trained {
        assert_eq!((row.alpha.len(), row.layer_grad_norm.len()), (6, 6));
        // The norms of the layers are parts of the global norm.
        let layers: f64 = row
            .layer_grad_norm
            .iter()
            .map(|n| f64::from(*n).powi(2))
            .sum();
        assert!(layers <= row.grad_norm.unwrap().powi(2) * 1.001);
    }
    let found = records(&succeed(dir.path(), &["jacobian", "six", "--json"]).out);
    assert_eq!(found.len(), 2);
    assert_eq!(
        (found[0].name.as_str(), found[0].mean_square),
        ("start", Some(1.0))
    );
    assert_eq!(found[1].name, "step 18");
    assert!((found[1].mean_square.unwrap() - 1.0).abs() > 1e-6);

    // Refused before anything is written.
    let short = ["schedule=cosine", "warmup_steps=200", "steps=10"];
    let grow = ["grow", "six", "--layers", "12", "--run-dir", "short"];
    fail(
        dir.path(),
        &[&grow[..], &short].concat(),
        1,
        &["warmup_steps"],
    );
    assert!(!dir.path().join("short").exists());

    let said = succeed(
        dir.path(),
        &[
            "grow", "six", "--layers", "12", "--place", "even", "epochs=1",
        ],
    );
    assert!(
        said.err.contains("grown from 6 to 12 layers"),
        "{}",
        said.err
    );
    let twelve = dir.path().join("six_grown-12");
    let grown = rows(&twelve);
    let first = grown.iter().find(|r| r.split == "train").unwrap();
    assert_eq!(first.alpha.len(), 12);
    // It continues from the old network, not from new weights.
    let last = trained.last().unwrap();
    assert!(first.loss < trained[0].loss && first.loss < last.loss + 0.5);
    let said = succeed(
        dir.path(),
        &["report", "six", "six_grown-12", "--out", "both"],
    );
    assert!(said.out.contains("rezero depth=12"), "{}", said.out);
    let page = fs::read_to_string(dir.path().join("both/index.html")).unwrap();
    assert!(page.contains("jacobian-end"));

    for (args, expected) in [
        (&["grow", "six", "--layers", "6"][..], "must be deeper"),
        (&["grow", "six", "--layers", "0"], "from 1 on"),
        (
            &["grow", "six", "--layers", "9", "depth=9"],
            "is what --layers sets",
        ),
        (
            &["grow", "six", "--layers", "9", "width=32"],
            "grows in depth alone",
        ),
        (
            &["grow", "six", "--layers", "9", "scheme=residual"],
            "grows in depth alone",
        ),
        (&["grow", "nothing", "--layers", "9"], "holds no run"),
    ] {
        fail(dir.path(), args, 1, &[expected]);
    }
    let plain = [&run.concat()[..], &["scheme=plain"]].concat();
    let plain: Vec<&str> = plain
        .iter()
        .map(|a| if *a == "six" { "plain" } else { *a })
        .collect();
    succeed(dir.path(), &plain);
    fail(
        dir.path(),
        &["grow", "plain", "--layers", "9"],
        1,
        &["is not the identity"],
    );
}

/// The optimizer's state follows the parameters: if the new layers cannot learn, a grown run
/// continues as the old run would have.
#[test]
fn the_optimizers_state_follows() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 40);
    let data = data.to_str().unwrap();
    let base = [
        "train",
        "cifar10-mlp64",
        "--data-dir",
        data,
        "width=8",
        "batch=20",
        "log_every=1",
        "optimizer=adam",
        "lr=1e-3",
        "seed=5",
        "epochs=1",
    ];
    succeed(
        dir.path(),
        &[&base[..], &["depth=3", "--run-dir", "a"]].concat(),
    );
    // The same seed again, so that both see the same batches.
    let grow = [
        "grow",
        "a",
        "--layers",
        "4",
        "seed=5",
        "--run-dir",
        "b",
        "--only",
    ];
    succeed(dir.path(), &grow);
    succeed(dir.path(), &["train", "b", "--resume"]);
    let first = rows(&dir.path().join("b"));
    // Adam's first step moves each weight by the learning rate, its tenth by less: with a state that
    // was lost, the old gates would jump.
    let before = rows(&dir.path().join("a"));
    let last: Vec<f32> = before
        .iter()
        .rfind(|r| r.split == "train")
        .unwrap()
        .alpha
        .clone();
    let next = &first[0].alpha;
    let moved: Vec<f32> = (0..3).map(|i| (next[i] - last[i]).abs()).collect();
    assert!(moved.iter().any(|m| (m - 1e-3).abs() > 1e-5), "{moved:?}");
    // The new gate takes Adam's first step, or stays unchanged if its gradient is 0.
    assert!(
        (next[3].abs() - 1e-3).abs() < 1e-5 || next[3] == 0.0,
        "{next:?}"
    );
}

/// Updating layers while their gradients are computed is the same training.
#[test]
fn recomputing_an_mlp_trains_the_same() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 40);
    let data = data.to_str().unwrap();
    let base = [
        "train",
        "cifar10-mlp64",
        "--data-dir",
        data,
        "depth=10",
        "width=16",
        "batch=20",
        "epochs=1",
        "log_every=1",
    ];
    succeed(dir.path(), &[&base[..], &["--run-dir", "a"]].concat());
    let other = ["--run-dir", "b", "recompute=true"];
    succeed(dir.path(), &[&base[..], &other].concat());
    let [a, b] = ["a", "b"].map(|run| rows(&dir.path().join(run)));
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(&b) {
        let near = |a: f64, b: f64| assert!((a - b).abs() <= 1e-4 * a.abs(), "{a} {b}");
        near(a.loss, b.loss);
        if a.split == "train" {
            near(a.grad_norm.unwrap(), b.grad_norm.unwrap());
            assert_eq!(a.layer_grad_norm.len(), b.layer_grad_norm.len());
            for (a, b) in a.layer_grad_norm.iter().zip(&b.layer_grad_norm) {
                near(f64::from(*a), f64::from(*b));
            }
            assert_eq!(a.lr, b.lr);
        }
    }
    for (wrong, part) in [
        ("clip_norm=1", "clip_norm=0"),
        ("accumulate=2", "accumulate=1"),
    ] {
        let args = [&base[..], &["--run-dir", "c", "recompute=true", wrong]].concat();
        fail(dir.path(), &args, 1, &[part]);
    }
    let args = [
        "train",
        "cifar10-resnet20",
        "--data-dir",
        data,
        "recompute=true",
    ];
    fail(
        dir.path(),
        &args,
        1,
        &["`train.recompute`", "a cifar-resnet"],
    );
}
