//! Language models from the command line and as the trainer computes them: bits per byte, the ways
//! to compute a step, resume, sampling, and messages for bad input.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use burn::train::{InferenceStep, TrainStep};
use rezero_data::{Split, corpus};
use rezero_train::fit::{Input, Source, Trainee, bits};
use rezero_train::recipe::Recipe;
use rezero_train::record::Totals;
use rezero_train::task::{Domain, Text};
use rezero_train::zoo::text::Network;

use crate::support::{
    self, drawing, fail, families, gradients, network, of_split, of_text, rewind, rezero, rows,
    run, scratch, succeed, trainee,
};

/// A model of three layers that takes milliseconds per step.
const SMALL: [&str; 9] = [
    "depth=3",
    "positions=learned",
    "d_model=16",
    "n_heads=2",
    "d_ff=32",
    "context=24",
    "batch=6",
    "steps=6",
    "eval_every=3",
];

fn recipe(overrides: &[&str]) -> Recipe {
    support::recipe("enwik8-small", &[&SMALL[..], overrides].concat())
}

fn text(bytes: &[u8]) -> rezero_data::Text {
    // The test split of a text with 20 times as many bytes.
    let mut all = b"x".repeat(19 * bytes.len());
    all.extend_from_slice(bytes);
    let text = corpus::bytes("text", all, Split::Test).unwrap();
    assert_eq!(text.bytes(), bytes);
    text
}

fn score(model: &Trainee<Network>, recipe: &Recipe, set: rezero_data::Text) -> Totals {
    let device = Device::flex();
    let source = Text::for_scoring(of_text(recipe), &recipe.settings, set, &device).unwrap();
    let mut total = Totals::default();
    for batch in Source::batches_from(&source, 0, &device) {
        let mut output = InferenceStep::step(model, Input::new(batch.unwrap()));
        output.read();
        total.add(&output.totals);
    }
    total
}

/// A model whose logits are `bias` everywhere.
fn constant(recipe: &Recipe, bias: &[f32; 256]) -> Trainee<Network> {
    let device = Device::flex();
    let Network::ByteLm(mut lm) = network(of_text(recipe), &recipe.settings, &device);
    let head = lm.head.as_mut().unwrap();
    head.weight = head.weight.clone().map(|w| w.zeros_like());
    let bias = Tensor::from_floats(bias.as_slice(), &device);
    head.bias = head.bias.take().map(|b| b.map(|_| bias));
    Trainee::new(Network::ByteLm(lm), &recipe.settings.train)
}

#[test]
fn uniform_logits_score_8_bits_exactly() {
    let bytes: Vec<u8> = (0..1000).map(|i| (i * i % 251) as u8).collect();
    let recipe = recipe(&["stride=7"]);
    let totals = score(&constant(&recipe, &[0.25; 256]), &recipe, text(&bytes));
    assert_eq!(totals.items, 1000);
    let bits = bits(totals.mean_loss());
    assert!((bits - 8.0).abs() < 1e-6, "{bits}");
}

/// Logits ln 3 for `a` and 0 for the other 255 bytes: p(a) = 3/258, p(b) = 1/258.
#[test]
fn three_bytes_by_hand() {
    let mut bias = [0.0; 256];
    bias[usize::from(b'a')] = 3f32.ln();
    let recipe = recipe(&["context=2", "stride=1"]);
    // 40 of 60 bytes are `a`, the rest `b`: the shortest text has splits of three bytes.
    let totals = score(&constant(&recipe, &bias), &recipe, text(b"aba"));
    let by_hand = (258f64.log2() + 2.0 * (258f64 / 3.0).log2()) / 3.0;
    assert_eq!(totals.items, 3);
    assert!((bits(totals.mean_loss()) - by_hand).abs() < 1e-6);
    assert_eq!(totals.mean("correct"), 2.0 / 3.0);
}

#[test]
fn the_score_of_a_split_does_not_depend_on_batch_or_on_bookkeeping() {
    let bytes: Vec<u8> = (0..397).map(|i| (i * 31 % 97) as u8).collect();
    let base = recipe(&[]);
    let model = trainee(of_text(&base), &base.settings, &Device::flex());
    let of = |overrides: &[&str]| {
        let totals = score(&model, &recipe(overrides), text(&bytes));
        assert_eq!(totals.items, 397, "{overrides:?}");
        bits(totals.mean_loss())
    };
    let by_stride = |stride: &str, batch: &str| of(&[stride, batch]);
    for stride in ["stride=24", "stride=5", "stride=1"] {
        let one = by_stride(stride, "batch=1");
        for batch in ["batch=3", "batch=64"] {
            let other = by_stride(stride, batch);
            assert!(
                (one - other).abs() < 1e-6,
                "{stride} {batch}: {one} {other}"
            );
        }
    }
}

#[test]
fn parts_and_recomputation_are_other_ways_to_the_same_step() {
    let device = Device::flex().autodiff();
    let bytes = corpus::wiki_like(2000, 1, Split::Train);
    let base = recipe(&["alpha_init=0.5", "embedding_scale=16.0"]);
    let network = network(of_text(&base), &base.settings, &device);
    let step = |overrides: &[&str]| {
        let mut all = vec!["alpha_init=0.5", "embedding_scale=16.0"];
        all.extend(overrides);
        let recipe = recipe(&all);
        let (of, settings) = (of_text(&recipe), &recipe.settings);
        let source = Text::for_training(of, settings, bytes.clone(), &device).unwrap();
        let batch = Source::batches_from(&source, 0, &device).next();
        let model = Trainee::new(network.clone(), &settings.train);
        // A recomputation seeds the generator for each part.
        let _drawing = drawing();
        let output = TrainStep::step(&model, Input::new(batch.unwrap().unwrap()));
        let mut item = output.item;
        item.read();
        (item, gradients(&model, &output.grads))
    };
    let (whole, gradients) = step(&[]);
    let totals = &whole.totals;
    assert_eq!((totals.items, gradients.is_empty()), (6 * 24, false));
    for overrides in [
        &["accumulate=2"][..],
        &["accumulate=4"],
        &["accumulate=6"],
        &["recompute=true"],
        &["recompute=true", "accumulate=3"],
    ] {
        let (other, parts) = step(overrides);
        assert_eq!(totals.items, other.totals.items);
        assert_eq!(totals.named, other.totals.named);
        let apart = totals.mean_loss() - other.totals.mean_loss();
        assert!(apart.abs() < 1e-5, "{overrides:?}");
        assert!((whole.grad_norm / other.grad_norm - 1.0).abs() < 1e-4);
        assert_eq!(gradients.len(), parts.len());
        for (a, b) in gradients.iter().zip(parts) {
            assert!((a - b).abs() < 1e-5, "{overrides:?}: {a} {b}");
        }
    }
}

fn corpus_file(dir: &Path) -> PathBuf {
    let path = dir.join("pages.txt");
    let text = corpus::wiki_like(6000, 3, Split::Train);
    fs::write(&path, text.bytes()).unwrap();
    path
}

fn train<'a>(file: &'a str, run: &'a str, extra: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["train", "enwik8-small", "--text", file, "--run-dir", run];
    args.extend(SMALL);
    args.extend(extra);
    args
}

#[test]
fn a_run_on_a_file_is_scored_sampled_and_explained() {
    let dir = scratch();
    let file = corpus_file(dir.path());
    let file = file.to_str().unwrap();
    let said = succeed(dir.path(), &train(file, "run", &["target=7.999"]));
    assert!(
        said.err
            .contains("5400 training bytes, 300 validation bytes"),
        "{}",
        said.err
    );
    assert!(
        said.err.contains("at most 7.999 bpb first at step"),
        "{}",
        said.err
    );

    let all = rows(&dir.path().join("run"));
    let valid = of_split(&all, "valid");
    assert_eq!(valid.iter().map(|r| r.step).collect::<Vec<_>>(), [3, 6]);
    assert!(valid.iter().all(|r| r.items == 300));
    let bits = valid[1].loss / std::f64::consts::LN_2;
    assert_eq!(valid[1].metrics["bpb"], bits);
    let last = all.iter().rfind(|r| r.split == "train").unwrap();
    assert_eq!((last.step, last.alpha.len()), (6, 3));

    // The run remembers its text, and scoring agrees with the recorded result.
    let eval = |extra: &[&str]| -> serde_json::Value {
        let mut args = vec!["eval", "run", "--json"];
        args.extend(extra);
        serde_json::from_str(&succeed(dir.path(), &args).out).unwrap()
    };
    let result = eval(&[]);
    assert_eq!(result["bpb"], bits);
    assert_eq!(
        (result["items"].clone(), result["stride"].clone()),
        (300.into(), 24.into())
    );
    assert!((result["perplexity"].as_f64().unwrap() - valid[1].loss.exp()).abs() < 1e-9);
    for extra in [
        &["--split", "test"][..],
        &["--stride", "5"],
        &["--context", "10", "--stride", "3"],
        &["--batch", "100"],
    ] {
        assert_eq!(eval(extra)["items"], 300, "{extra:?}");
    }
    let both = train(file, "both", &["data=wiki-like"]);
    fail(dir.path(), &both, 1, &["--text", "wiki-like"]);
    fs::write(file, corpus::wiki_like(6000, 4, Split::Train).bytes()).unwrap();
    let parts = ["it has changed since", "--text"];
    fail(dir.path(), &["eval", "run"], 1, &parts);
    succeed(dir.path(), &["eval", "run", "--text", file]);
    fail(
        dir.path(),
        &["eval", "run", "--context", "25"],
        1,
        &["`model.context`", "24 learned positions", "25"],
    );
    fail(
        dir.path(),
        &["eval", "run", "--stride", "25"],
        1,
        &["`data.stride`", "24", "25"],
    );

    let sample = |extra: &[&str]| {
        let mut args = vec!["sample", "run", "--bytes", "100"];
        args.extend(extra);
        run_bytes(dir.path(), &args)
    };
    let first = sample(&["--prompt", "<page>", "--seed", "4"]);
    assert_eq!(first.len(), 6 + 100 + 1);
    assert!(first.starts_with(b"<page>"));
    assert_eq!(first, sample(&["--prompt", "<page>", "--seed", "4"]));
    assert_ne!(first, sample(&["--prompt", "<page>", "--seed", "5"]));
    for (extra, part) in [
        (&["--top-p", "0"][..], "top_p must be above 0"),
        (&["--top-p", "1.5"], "got 1.5"),
        (&["--top-k", "0"], "top_k"),
        (&["--temperature", "-1"], "temperature"),
        (&["--prompt", ""], "at least one byte"),
        (
            &["--prompt", "x", "--prompt-file", "-"],
            "cannot be used with",
        ),
    ] {
        let mut args = vec!["sample", "run"];
        args.extend(extra);
        fail(dir.path(), &args, 1, &[part]);
    }
}

fn run_bytes(dir: &Path, args: &[&str]) -> Vec<u8> {
    let output = rezero(dir, args).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

#[test]
fn six_steps_are_three_and_three_with_dropout_recomputed_in_parts() {
    let dir = scratch();
    let file = corpus_file(dir.path());
    let file = file.to_str().unwrap();
    let extra = [
        "dropout=0.2",
        "recompute=true",
        "accumulate=2",
        "optimizer=lamb",
        "alpha_optimizer=adam",
        "checkpoint_every=3",
        "log_every=2",
        "keep=5",
    ];
    let args = train(file, "run", &extra);
    succeed(dir.path(), &args);
    let run = dir.path().join("run");
    let whole = rows(&run);
    assert!(whole.last().unwrap().alpha.is_empty() && whole[0].alpha[0] != 0.0);
    rewind(&run, 3);
    succeed(dir.path(), &["train", "run", "--resume"]);
    assert_eq!(rows(&run), whole);
}

/// More steps than those with which a text's run began.
#[test]
fn a_run_that_is_done_goes_on() {
    let dir = scratch();
    let file = corpus_file(dir.path());
    let file = file.to_str().unwrap();
    let extra = ["schedule=constant", "warmup_steps=4", "log_every=1"];
    succeed(dir.path(), &train(file, "long", &extra));
    let short = [&extra[..], &["steps=3"]].concat();
    succeed(dir.path(), &train(file, "short", &short));
    let said = succeed(dir.path(), &["train", "short", "--resume", "steps=6"]);
    assert!(said.err.contains("continuing from step 3"), "{}", said.err);
    let (long, short) = (dir.path().join("long"), dir.path().join("short"));
    assert_eq!(rows(&short), rows(&long));
}

#[test]
fn every_scheme_trains() {
    let dir = scratch();
    let file = corpus_file(dir.path());
    let family = families().into_iter().find(|f| f.name == "byte-lm");
    let schemes = family.expect("the family").schemes;
    assert_eq!(schemes.len(), 11);
    for scheme in schemes {
        let (key, run) = (format!("scheme={scheme}"), scheme.name());
        let extra = [&key, "warmup_steps=2", "steps=2"];
        succeed(dir.path(), &train(file.to_str().unwrap(), run, &extra));
        let rows = rows(&dir.path().join(run));
        assert!(
            rows.iter().all(|r| r.metrics["bpb"] < 12.0),
            "{scheme}: {rows:?}"
        );
    }
}

#[test]
fn bad_input_says_what_must_hold() {
    let dir = scratch();
    let file = corpus_file(dir.path());
    let file = file.to_str().unwrap();
    for (extra, parts) in [
        (
            &["n_heads=3"][..],
            &["`model.n_heads`", "d_model=16", "n_heads=3"][..],
        ),
        (&["stride=25"], &["`data.stride`", "context of 24", "25"]),
        (&["context=0"], &["`model.context`", "got 0"]),
        (&["steps=0"], &["`run.steps`", "got 0"]),
        (
            &["accumulate=7"],
            &["`train.accumulate`", "batch of 6", "7"],
        ),
        (&["dropout=1"], &["`model.dropout`", "[0, 1)"]),
        (
            &["scheme=fixup"],
            &["`model.scheme`", "post-norm", "`fixup`"],
        ),
        (&["scheme=plain", "norm=rms"], &["`model.norm`", "plain"]),
        (&["augment=flip"], &["`data.augment`", "[data] of images"]),
        (
            &["positions=rotary", "n_heads=16"],
            &["`model.positions`", "even"],
        ),
        (&["context=5400"], &["context", "5400"]),
        (
            &["d_model=65536", "depth=10000"],
            &["4000000000 parameters", "depth=10000"],
        ),
        (
            &["context=16384", "batch=1048576"],
            &["16777216 bytes a step"],
        ),
        (
            &["schedule=multi-step"],
            &["`schedule.kind`", "constant, one-cycle, cosine or linear"],
        ),
        (
            &["milestones=[3]"],
            &["`schedule.milestones`", "kind=multi-step"],
        ),
        (&["epochs=2"], &["`run.epochs`", "run.steps"]),
        (&["epsilon=1e-300"], &["`optimizer.epsilon`", "f32"]),
    ] {
        fail(dir.path(), &train(file, "bad", extra), 1, parts);
    }
    assert!(!dir.path().join("bad").exists());
    let said = run(dir.path(), &["train", "quickstart", "d_model=8"]);
    assert!(
        said.err.contains("`model.d_model`") && said.err.contains("family=cifar-resnet"),
        "{}",
        said.err
    );
    let said = run(dir.path(), &["train", "enwik8-small", "data=text"]);
    assert!(said.err.contains("--text FILE"), "{}", said.err);

    for (name, bytes) in [("empty", &b""[..]), ("one", b"x"), ("short", &[b'a'; 20])] {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let args = train(path.to_str().unwrap(), "bad", &[]);
        // The third text has 18 bytes for training.
        let length = bytes.len().min(18).to_string();
        fail(dir.path(), &args, 1, &[&length]);
    }
}

/// The authors' layers, saved by PyTorch (`crates/rezero-nn/tests/fixtures/generate_import.py`).
#[test]
fn pytorch_weights_are_imported_scored_exported_and_trained_on() {
    let dir = scratch();
    let file = corpus_file(dir.path());
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rezero-nn/tests/fixtures");
    let weights = fixtures.join("authors_lm.pt");
    let weights = weights.to_str().unwrap();
    let mut args = vec!["import", weights, "enwik8-small"];
    // The settings that fit come before some of the tensors that do not.
    let other = [&args[..], &["depth=6", "d_model=16", "n_heads=2"]].concat();
    let said = fail(dir.path(), &other, 1, &["tensors differ"]);
    let lines: Vec<&str> = said.err.lines().collect();
    let at = lines.iter().position(|line| line.starts_with("error: "));
    let error = &lines[at.unwrap()..];
    assert!(
        error[0].contains("the file's shapes ask for depth=2 d_model=8"),
        "{error:?}"
    );
    assert_eq!(error.len(), 2 + 5 + 1, "{error:?}");

    args.extend(["n_heads=2", "activation=gelu", "embedding_scale=1"]);
    args.extend(["steps=2", "batch=2", "eval_every=1", "alpha_optimizer=adam"]);
    args.extend(["--text", file.to_str().unwrap(), "--run-dir", "imported"]);
    succeed(dir.path(), &args);
    fail(dir.path(), &args, 1, &["imported"]);
    let eval = |run: &str| -> serde_json::Value {
        let args = ["eval", run, "--json", "--checkpoint", "last"];
        serde_json::from_str(&succeed(dir.path(), &args).out).unwrap()
    };
    let before = eval("imported");
    assert_eq!(
        (before["step"].clone(), before["items"].clone()),
        (0.into(), 300.into())
    );

    succeed(
        dir.path(),
        &["export", "imported", "--out", "back.safetensors"],
    );
    let values = |path: &Path, prefix: &str| {
        let file = rezero_nn::torch::TorchWeights::open(path)
            .unwrap()
            .under(prefix);
        let names: Vec<String> = file.names().map(str::to_owned).collect();
        let value = |name: &String| file.get(name).unwrap().values().unwrap();
        let values: Vec<Vec<f32>> = names.iter().map(value).collect();
        (names, values)
    };
    let back = values(&dir.path().join("back.safetensors"), "");
    assert_eq!(back, values(Path::new(weights), "state_dict."));

    // The metadata of an export is compared with the recipe.
    let wrong = [
        "import",
        "back.safetensors",
        "enwik8-small",
        "n_heads=4",
        "activation=relu",
    ];
    fail(dir.path(), &wrong, 1, &["n_heads=2", "activation=gelu"]);

    // To fine-tune is to resume a run that has not begun.
    succeed(dir.path(), &["train", "imported", "--resume"]);
    let after = eval("imported");
    assert_eq!(after["step"], 2);
    assert_ne!(after["bpb"], before["bpb"]);
    fail(dir.path(), &["export", "absent"], 1, &["absent"]);
}

/// A run of each family of images goes to PyTorch's format and back; the settings come from the file.
#[test]
fn networks_of_images_are_exported_and_imported() {
    let dir = scratch();
    let here = dir.path();
    let short = [
        "data=shapes",
        "steps=1",
        "batch=4",
        "train_items=8",
        "valid_items=20",
        "epochs=1",
    ];
    for (recipe, more, told) in [
        (
            "cifar10-resnet20",
            &["depth=8", "definition=projection"][..],
            "a cifar-resnet, depth=8 scheme=rezero definition=projection (3 channels, 10 classes)",
        ),
        (
            "cifar10-preact18",
            &["scheme=residual"],
            "a preact-resnet, depth=18 scheme=residual (3 channels, 10 classes)",
        ),
        (
            "cifar10-mlp64",
            &["depth=3", "width=8"],
            "a mlp, depth=3 width=8 scheme=rezero (3072 inputs, 10 classes)",
        ),
        (
            "cifar10-vit",
            &[
                "depth=2",
                "d_model=8",
                "d_ff=12",
                "n_heads=2",
                "scheme=skipinit",
                "warmup_epochs=0",
            ],
            "a vit, depth=2 scheme=rezero alpha_shared=false alpha_per_channel=false d_model=8 d_ff=12 \
             patch_size=4 pooling=mean positions=learned (3 channels, 64 patches, 10 classes)",
        ),
        (
            "cifar10-mixer",
            &[
                "depth=2",
                "d_model=8",
                "d_tokens=4",
                "d_channels=12",
                "scheme=pre-norm",
                "warmup_epochs=0",
            ],
            "a mixer, depth=2 scheme=pre-norm d_model=8 d_tokens=4 d_channels=12 patch_size=4 (3 channels, \
             64 patches, 10 classes)",
        ),
    ] {
        let run = format!("{recipe}-run");
        let train = [
            &["train", recipe, "--plain", "--run-dir", &run],
            &short[..],
            more,
        ]
        .concat();
        succeed(here, &train);
        let file = format!("{recipe}.safetensors");
        succeed(here, &["export", &run, "--out", &file]);
        let back = format!("{recipe}-back");
        let import = [
            "import",
            &file,
            "data=shapes",
            "batch=4",
            "--run-dir",
            &back,
        ];
        let said = succeed(here, &import);
        assert!(said.err.contains(told), "{}", said.err);
        let eval = |run: &str| {
            let args = ["eval", run, "--split", "valid", "--json"];
            let mut score: serde_json::Value =
                serde_json::from_str(&succeed(here, &args).out).unwrap();
            for key in ["run", "step", "seconds"] {
                score.as_object_mut().unwrap().remove(key);
            }
            score
        };
        assert_eq!(eval(&back), eval(&run), "{recipe}");
        let again = format!("{recipe}-again.safetensors");
        succeed(here, &["export", &back, "--out", &again]);
        let values = |name: &str| {
            let bytes = fs::read(here.join(name)).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let mut all: Vec<(String, Vec<u8>)> = file
                .tensors()
                .into_iter()
                .map(|(name, view)| (name, view.data().to_vec()))
                .collect();
            all.sort();
            all
        };
        assert_eq!(values(&again), values(&file), "{recipe}");
        // Of another family, and of another size than the file's.
        let other = ["import", &file, "enwik8-tiny", "--run-dir", "other"];
        fail(here, &other, 1, &["the recipe has a byte-lm"]);
        let other = [
            "import",
            &file,
            "data=shapes",
            match recipe {
                "cifar10-preact18" => "depth=34",
                _ => "depth=50",
            },
            "--run-dir",
            "other",
        ];
        let said = fail(here, &other, 1, &["the file says depth="]);
        assert!(!here.join("other").exists(), "{}", said.err);
    }
    files_with_more_in_them(here);
    // What the file does not tell is named only where it matters.
    fs::write(here.join("none.safetensors"), b"").unwrap();
    fail(
        here,
        &["import", "none.safetensors"],
        1,
        &["none.safetensors"],
    );
}

/// A file as others save one: every name behind `module.`, a counter, a loss's weights, and a second output
/// layer.
fn files_with_more_in_them(here: &Path) {
    use safetensors::tensor::{Dtype, TensorView};
    let bytes = fs::read(here.join("cifar10-resnet20.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let zeros = [0; 80];
    let view = |dtype, shape: &[usize], bytes: usize| {
        TensorView::new(dtype, shape.to_vec(), &zeros[..bytes]).unwrap()
    };
    let mut tensors: Vec<(String, TensorView)> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| (format!("module.{name}"), view))
        .collect();
    for (name, view) in [
        ("module.bn1.num_batches_tracked", view(Dtype::I64, &[], 8)),
        ("criterion.pos_weight", view(Dtype::F32, &[10], 40)),
        ("module.aux.weight", view(Dtype::F32, &[2, 10], 80)),
    ] {
        tensors.push((name.to_owned(), view));
    }
    let file = safetensors::serialize(tensors, None).unwrap();
    fs::write(here.join("more.safetensors"), file).unwrap();

    let mut args = vec!["import", "more.safetensors", "data=shapes"];
    args.extend(["--run-dir", "more"]);
    let said = fail(
        here,
        &args,
        1,
        &[
            "the file has tensors that the network lacks; --ignore PATTERN",
            "1 tensor differs",
        ],
    );
    let first: Vec<&str> = said.err.lines().take(2).collect();
    let expected = [
        "more.safetensors: a cifar-resnet, depth=8 scheme=rezero definition=projection (3 channels, 10 classes)",
        "no floating-point values, so left out: module.bn1.num_batches_tracked",
    ];
    assert_eq!(first, expected, "{}", said.err);
    assert!(said.err.contains("aux.weight: unknown, found [2, 10]"));
    args.extend(["--ignore", "*aux.*"]);
    let said = succeed(here, &args);
    for line in [
        "its names begin with module.",
        "left out: criterion.pos_weight, module.aux.weight",
        "the file does not tell scheme=rezero;",
    ] {
        assert!(said.err.contains(line), "{line}: {}", said.err);
    }
    succeed(here, &["export", "more", "--out", "less.safetensors"]);
    let exported = fs::read(here.join("less.safetensors")).unwrap();
    let exported = safetensors::SafeTensors::deserialize(&exported).unwrap();
    let original = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(exported.len(), original.len());
    for (name, view) in original.tensors() {
        assert_eq!(
            exported.tensor(&name).unwrap().data(),
            view.data(),
            "{name}"
        );
    }

    // A prefix that no name has, a part of several, and a whole module's file that holds no weights.
    let mut prefixed = args.clone();
    prefixed.extend(["--prefix", "net."]);
    let none = "no tensor's name begins with \"net.\"; names begin with criterion, module";
    fail(here, &prefixed, 1, &[none]);
    let part = "model-00001-of-00002.safetensors";
    fs::write(here.join(part), &bytes).unwrap();
    fail(
        here,
        &["import", part],
        1,
        &["it is part 1 of 2: name the index"],
    );
}
