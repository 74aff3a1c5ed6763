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
        device: "flex".to_owned(),
        processors: 2,
        data: "enwik8 90000000 1234".to_owned(),
        parameters: 1_234_567,
        task: Some(D::task().described()),
        ..Environment::default()
    };
    serde_json::to_vec(&environment).unwrap()
}

/// Writes a run of `[seconds, training loss, validation bits per byte]` at steps 10, 20, ….
fn written(dir: &Path, name: &str, overrides: &[&str], values: &[[f64; 3]]) -> PathBuf {
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
        run("d", &["scheme=pre-norm", "lr=2e-3"]),
    ];
    let labels: Vec<String> = group(runs).unwrap().into_iter().map(|g| g.label).collect();
    assert_eq!(
        labels,
        ["rezero", "rezero alpha_init=1.0", "pre-norm lr=0.002"]
    );
    // A given label.
    for label in ["ours", "α = 0"] {
        let spec = format!("{label}={}", dir.path().join("a").display());
        assert_eq!(read(&spec).unwrap().label.as_deref(), Some(label));
    }
    let twice = vec![run("e", &["seed=1"]), run("f", &["seed=1"])];
    let error = group(twice).unwrap_err().to_string();
    assert!(error.contains("have the seed 1"), "{error}");
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
        let pixels = rezero_train::plot::png(&svg);
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
    refused(
        &["--baseline", "post-norm"],
        "there is no group `post-norm`",
    );
    refused(
        &["--into", "doc.md", "--name", "other"],
        "has no place for the table",
    );
    refused(&["--target", "nan"], "must be finite");
    refused(&[&runs[0]], "have the seed 1");
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
            "neither transformer, mlp nor a run",
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
