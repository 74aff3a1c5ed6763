//! The cost of the trainer beside the arithmetic of a step.
//!
//! - `step/bare` and `step/learner`: a training step of ReZero ResNet-20, batch 32, in a loop written
//!   by hand and through burn's Learner with metrics, progress and `metrics.jsonl`; then the ratio of
//!   the two over alternating runs
//! - `checkpoint/save` and `checkpoint/restore`: ResNet-110 with momentum
//! - `start-up`: `rezero recipes`, a process from start to end; `cargo build --release` first

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use burn::optim::ModuleOptimizer;
use burn::optim::lr_scheduler::LrScheduler;
use burn::tensor::Device;
use burn::train::TrainStep;
use criterion::{Criterion, criterion_group, criterion_main};
use rezero_data::{ImageLoader, Split, shapes};
use rezero_train::fit::{
    Input, Model, Rates, Scheduler, Source, Trainee, Trainer, build_optimizer, load,
};
use rezero_train::recipe::{Recipe, Settings, TaskOf, TaskRecipe};
use rezero_train::record::checkpoint::{Reader, Writer, choose};
use rezero_train::record::{State, metrics};
use rezero_train::task::{Domain, Images};
use rezero_train::zoo::{self, images::Network};

const STEPS: usize = 8;
const PAIRS: usize = 21;

/// A recipe of images in its parts.
struct Parts {
    of: TaskOf<Images>,
    settings: Settings,
}

impl Parts {
    fn new(overrides: &[&str]) -> Self {
        let overrides: Vec<_> = overrides
            .iter()
            .map(|o| o.parse().expect("key=value"))
            .collect();
        let recipe = Recipe::resolve("quickstart", &overrides).expect("a recipe");
        let Recipe { task, settings } = recipe.recipe;
        match task {
            TaskRecipe::Images(of) => Self { of, settings },
            TaskRecipe::Text(_) => panic!("the recipe is of images"),
        }
    }

    fn network(&self, device: &Device) -> Network {
        zoo::draw(
            &self.of,
            &self.settings,
            &Images::form(&self.of.data),
            device,
        )
    }

    fn trainee(&self, device: &Device) -> Trainee<Network> {
        Trainee::new(self.network(device), &self.settings.train)
    }

    fn optimizer(&self, rates: &Rates, trainee: &Trainee<Network>) -> ModuleOptimizer {
        let Settings {
            optimizer, gates, ..
        } = &self.settings;
        build_optimizer(optimizer, gates, rates, trainee)
    }

    fn images(&self, batches: usize, device: &Device) -> ImageLoader {
        let set = shapes::generate(Split::Train, 32 * batches, 0);
        Images::for_training(&self.of, &self.settings, set, device).expect("a loader")
    }

    fn train(&self, dir: &Path) {
        let device = Device::flex();
        let (train, valid) = (self.images(STEPS + 1, &device), self.images(1, &device));
        Trainer::new(dir, self.settings.clone(), Images::task())
            .with_plain(true)
            .fit(|device| self.network(device), train, valid)
            .expect("a run");
    }

    /// The time of `STEPS` steps after a first one, by hand.
    fn bare(&self) -> Duration {
        let device = Device::flex().autodiff();
        let mut model = self.trainee(&device);
        let rates = Rates::default();
        let mut optimizer = self.optimizer(&rates, &model);
        let loader = self.images(STEPS + 1, &device);
        let mut schedule = Scheduler::new(&self.settings, loader.batches_per_epoch(), 1, rates);
        let mut start = Instant::now();
        for (step, batch) in Source::batches_from(&loader, 0, &device).enumerate() {
            if step == 1 {
                start = Instant::now();
            }
            let input = Input::new(batch.expect("a batch"));
            let mut output = TrainStep::step(&model, input);
            output.item.read();
            let lr = schedule.step();
            model = optimizer.step(lr, model, output.grads);
        }
        start.elapsed()
    }

    /// The same steps through [`Trainer`].
    fn learner(&self, dir: &Path) -> Duration {
        self.train(dir);
        let rows = metrics::read(dir).expect("metrics");
        let seconds: Vec<f64> = rows
            .iter()
            .filter(|r| r.split == "train")
            .map(|r| r.seconds)
            .collect();
        Duration::from_secs_f64(seconds[STEPS] - seconds[0])
    }
}

fn steps(c: &mut Criterion) {
    let recipe = Parts::new(&["epochs=1"]);
    let mut group = c.benchmark_group("step");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(20));
    group.bench_function("bare", |b| {
        b.iter_custom(|n| (0..n).map(|_| recipe.bare() / STEPS as u32).sum());
    });
    group.bench_function("learner", |b| {
        b.iter_custom(|n| {
            let one = |_| {
                let dir = tempfile::tempdir().expect("a directory");
                recipe.learner(dir.path()) / STEPS as u32
            };
            (0..n).map(one).sum()
        });
    });
    group.finish();
    // A shared machine drifts by more than the difference: take the ratio of neighbours in time.
    let mut ratios: Vec<f64> = (0..PAIRS)
        .map(|_| {
            let dir = tempfile::tempdir().expect("a directory");
            let through = recipe.learner(dir.path());
            through.as_secs_f64() / recipe.bare().as_secs_f64()
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
    let recipe = Parts::new(&["depth=110", "batch=2", "steps=1", "checkpoint_every=1"]);
    let dir = tempfile::tempdir().expect("a directory");
    recipe.train(dir.path());
    let saved = dir.path().join("checkpoints/step-1");
    let manifest = std::fs::read(saved.join("manifest.json")).expect("a manifest");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    let identity = manifest["model"].as_str().expect("a model").to_owned();
    let open = || choose(dir.path(), "last", &identity).expect("a checkpoint");
    let both = |reader: &Reader, device: &Device| {
        let model = load(reader, recipe.network(device)).expect("weights");
        let trainee = Trainee::new(model, &recipe.settings.train);
        let optimizer = recipe.optimizer(&Rates::default(), &trainee);
        let record = reader.optimizer().expect("a record");
        (trainee.model, optimizer.load_record(record))
    };
    let mut group = c.benchmark_group("checkpoint");
    group.sample_size(10);
    group.bench_function("restore", |b| {
        let device = Device::flex().autodiff();
        b.iter(|| both(&open(), &device));
    });
    group.bench_function("save", |b| {
        let reader = open();
        let (network, optimizer) = both(&reader, &Device::flex());
        b.iter_custom(|n| {
            let once = |_| {
                let dir = tempfile::tempdir().expect("a directory");
                let writer = Writer::new(dir.path(), identity.clone(), 0, 1);
                let start = Instant::now();
                let schedule = reader.scheduler().expect("a record");
                let (state, weights) = (State::default(), network.clone().to_weights());
                writer
                    .save(&state, weights, || optimizer.to_record(), schedule)
                    .expect("a checkpoint");
                start.elapsed()
            };
            (0..n).map(once).sum()
        });
    });
    group.finish();
}

fn start_up(c: &mut Criterion) {
    // Benchmarks are built into `release/deps`, the program into `release`.
    let this = std::env::current_exe().expect("the benchmark has a path");
    let program = this.parent().expect("deps").with_file_name("rezero");
    if !program.exists() {
        println!("start-up: left out, `cargo build --release` makes {}", program.display());
        return;
    }
    c.bench_function("start-up", |b| {
        b.iter(|| {
            let output = Command::new(&program)
                .arg("recipes")
                .output()
                .expect("the command runs");
            assert!(output.status.success());
        });
    });
}

criterion_group!(benches, start_up, checkpoints, steps);
criterion_main!(benches);
