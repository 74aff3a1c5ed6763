//! `cargo bench -p rezero-train`: what the trainer costs beside the arithmetic of a step.
//!
//! - `step/bare` and `step/learner`: a training step of ReZero ResNet-20, batch 32, in a loop written
//!   by hand and through burn's Learner with metrics, progress and `metrics.jsonl`; then the ratio of
//!   the two over alternating runs
//! - `checkpoint/save` and `checkpoint/restore`: ResNet-110 with momentum
//! - `start-up`: `rezero recipes`, a process from start to end

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use burn::data::dataloader::DataLoader;
use burn::optim::lr_scheduler::LrScheduler;
use burn::tensor::Device;
use burn::train::{Interrupter, TrainStep};
use criterion::{Criterion, criterion_group, criterion_main};
use rezero_data::{Split, shapes};
use rezero_train::checkpoint::{Reader, State, Writer};
use rezero_train::data::{Set, eval_loader, train_loader};
use rezero_train::model::{Learnable, Network};
use rezero_train::recipe::Recipe;
use rezero_train::schedule::{Dials, Schedule};
use rezero_train::training::Training;
use rezero_train::{metrics, optim};

const STEPS: usize = 8;
const PAIRS: usize = 21;

fn recipe(overrides: &[&str]) -> Recipe {
    let overrides: Vec<_> = overrides
        .iter()
        .map(|o| o.parse().expect("key=value"))
        .collect();
    Recipe::resolve("quickstart", &overrides)
        .expect("a recipe")
        .recipe
}

fn images(batches: usize) -> Set {
    Set::Images(shapes::generate(Split::Train, 32 * batches, 0))
}

/// The time of `STEPS` steps after a first one, by hand.
fn bare(recipe: &Recipe) -> Duration {
    let device = Device::flex().autodiff();
    let mut model = Learnable::new(Network::new(recipe, 10, &device), recipe);
    let dials = Dials::default();
    let mut optimizer = optim::build(recipe, &dials);
    let loader = train_loader(recipe, images(STEPS + 1), 0, &device).expect("a loader");
    let mut schedule = Schedule::new(recipe, loader.batches_per_epoch(), dials);
    let mut start = Instant::now();
    for (step, batch) in loader.iter().enumerate() {
        if step == 1 {
            start = Instant::now();
        }
        let mut output = TrainStep::step(&model, batch.expect("a batch"));
        output.item.read();
        let lr = schedule.step();
        model = optimizer.step(lr, model, output.grads);
    }
    start.elapsed()
}

/// The same steps through [`Training`].
fn learner(recipe: &Recipe, dir: &Path) -> Duration {
    train(recipe, dir);
    let rows = metrics::read(dir).expect("metrics");
    let seconds: Vec<f64> = rows
        .iter()
        .filter(|r| r.split == "train")
        .map(|r| r.seconds)
        .collect();
    Duration::from_secs_f64(seconds[STEPS] - seconds[0])
}

fn train(recipe: &Recipe, dir: &Path) {
    let device = Device::flex();
    let autodiff = device.clone().autodiff();
    Training {
        recipe,
        dir,
        network: Network::new(recipe, 10, &autodiff),
        train: train_loader(recipe, images(STEPS + 1), 0, &autodiff).expect("a loader"),
        valid: eval_loader(recipe, images(1), &device).expect("a loader"),
        device: autodiff,
        devices: Vec::new(),
        fingerprint: String::new(),
        resume: None,
        interrupter: Interrupter::new(),
        plain: true,
    }
    .run()
    .expect("a run");
}

fn steps(c: &mut Criterion) {
    let recipe = recipe(&["epochs=1"]);
    let mut group = c.benchmark_group("step");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(20));
    group.bench_function("bare", |b| {
        b.iter_custom(|n| (0..n).map(|_| bare(&recipe) / STEPS as u32).sum());
    });
    group.bench_function("learner", |b| {
        b.iter_custom(|n| {
            let one = |_| {
                let dir = tempfile::tempdir().expect("a directory");
                learner(&recipe, dir.path()) / STEPS as u32
            };
            (0..n).map(one).sum()
        });
    });
    group.finish();
    // A shared machine drifts by more than the difference: take the ratio of neighbours in time.
    let mut ratios: Vec<f64> = (0..PAIRS)
        .map(|_| {
            let dir = tempfile::tempdir().expect("a directory");
            let through = learner(&recipe, dir.path());
            through.as_secs_f64() / bare(&recipe).as_secs_f64()
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    println!(
        "step/learner over step/bare, {PAIRS} pairs: median {:.3}, quartiles {:.3} to {:.3}",
        ratios[PAIRS / 2],
        ratios[PAIRS / 4],
        ratios[3 * PAIRS / 4]
    );
}

fn checkpoints(c: &mut Criterion) {
    let recipe = recipe(&["depth=110", "batch=2", "steps=1", "checkpoint_every=1"]);
    let dir = tempfile::tempdir().expect("a directory");
    train(&recipe, dir.path());
    let saved = dir.path().join("checkpoints/step-1");
    let mut group = c.benchmark_group("checkpoint");
    group.sample_size(10);
    group.bench_function("restore", |b| {
        let device = Device::flex().autodiff();
        b.iter(|| {
            let reader = Reader::open(&saved, &recipe.model_id()).expect("a checkpoint");
            let network = Network::new(&recipe, 10, &device);
            let network = reader.load_network(network).expect("weights");
            let optimizer = optim::build(&recipe, &Dials::default());
            (
                network,
                optimizer.load_record(reader.optimizer().expect("a record")),
            )
        });
    });
    group.bench_function("save", |b| {
        let reader = Reader::open(&saved, &recipe.model_id()).expect("a checkpoint");
        let network = reader
            .load_network(Network::new(&recipe, 10, &Device::flex()))
            .expect("weights");
        let optimizer = optim::build(&recipe, &Dials::default())
            .load_record(reader.optimizer().expect("a record"));
        b.iter_custom(|n| {
            let once = |_| {
                let dir = tempfile::tempdir().expect("a directory");
                let writer = Writer::new(dir.path(), recipe.model_id(), 0, 1);
                let start = Instant::now();
                let schedule = reader.scheduler().expect("a record");
                let state = State::default();
                writer
                    .save(&state, network.clone(), || optimizer.to_record(), schedule)
                    .expect("a checkpoint");
                start.elapsed()
            };
            (0..n).map(once).sum()
        });
    });
    group.finish();
}

fn start_up(c: &mut Criterion) {
    c.bench_function("start-up", |b| {
        b.iter(|| {
            let output = Command::new(env!("CARGO_BIN_EXE_rezero"))
                .arg("recipes")
                .output()
                .expect("the command runs");
            assert!(output.status.success());
        });
    });
}

criterion_group!(benches, start_up, checkpoints, steps);
criterion_main!(benches);
