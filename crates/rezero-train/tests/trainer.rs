//! The loop with a module and data that are not in the zoo.

use std::path::Path;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::data::dataset::{Dataset, DatasetError, InMemDataset};
use burn::module::Module;
use burn::nn::{Linear, LinearConfig, Relu};
use burn::tensor::{Device, Int, Tensor};
use burn::train::Interrupter;
use rezero_nn::{ReZeroBlock, ReZeroConfig};
use rezero_train::error::{Error, Result};
use rezero_train::fit::{Batches, DatasetSource, Finished, Model, Source, Sums, Task, Trainer};
use rezero_train::recipe::Settings;
use rezero_train::report::{Report, group, read};

use crate::support::{drawing, of_split, rewind, rows, scratch};

#[derive(Module, Debug)]
struct Net {
    input: Linear,
    blocks: Vec<ReZeroBlock<(Linear, Relu)>>,
    output: Linear,
}

impl Net {
    fn new(depth: usize, device: &Device) -> Self {
        let linear = |d_in, d_out| LinearConfig::new(d_in, d_out).init(device);
        let block = |_| ReZeroConfig::new().init_block((linear(6, 6), Relu::new()), device);
        Self {
            input: linear(2, 6),
            blocks: (0..depth).map(block).collect(),
            output: linear(6, 3),
        }
    }
}

impl Model for Net {
    type Batch = (Tensor<2>, Tensor<1, Int>);

    fn loss(&self, (x, y): &Self::Batch) -> Sums {
        let x = self.input.forward(x.clone());
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        Sums::of_logits(self.output.forward(x), y.clone(), None)
    }
}

/// A classifier that returns no sum but its loss.
#[derive(Module, Debug)]
struct Silent {
    linear: Linear,
}

impl Model for Silent {
    type Batch = (Tensor<2>, Tensor<1, Int>);

    fn loss(&self, (x, y): &Self::Batch) -> Sums {
        let sums = Sums::of_logits(self.linear.forward(x.clone()), y.clone(), None);
        Sums::new(sums.loss)
    }
}

/// A network whose third step panics.
#[derive(Module, Debug)]
struct Panics {
    net: Net,
}

static STEPS: AtomicUsize = AtomicUsize::new(0);

impl Model for Panics {
    type Batch = (Tensor<2>, Tensor<1, Int>);

    fn loss(&self, batch: &Self::Batch) -> Sums {
        let step = STEPS.fetch_add(1, Ordering::Relaxed) + 1;
        // The interface needs some time to be drawn.
        std::thread::sleep(std::time::Duration::from_millis(400));
        assert!(step < 3, "step {step} is too much");
        self.net.loss(batch)
    }
}

/// A run in the terminal interface whose model panics.
pub fn panic_at_step_3(dir: &Path) {
    let settings = settings("epochs = 9");
    let (train, valid) = (
        DatasetSource::training(points(0..70), &settings, batch),
        DatasetSource::scoring(points(70..90), &settings, batch),
    );
    let trainer = Trainer::new(dir, settings, Task::classification("points"));
    let init = |device: &Device| Panics {
        net: Net::new(3, device),
    };
    trainer.fit(init, train, valid).unwrap();
}

type Point = ([f32; 2], i32);

fn points(range: std::ops::Range<usize>) -> InMemDataset<Point> {
    let point = |i: usize| {
        let xy = [(i as f32 * 0.7).sin(), (i as f32 * 1.3).cos()];
        (xy, i32::from(xy[0] > 0.0) + i32::from(xy[1] > 0.0))
    };
    InMemDataset::new(range.map(point).collect())
}

fn batch(points: Vec<Point>, device: &Device) -> (Tensor<2>, Tensor<1, Int>) {
    let (xy, y): (Vec<[f32; 2]>, Vec<i32>) = points.into_iter().unzip();
    let n = y.len();
    (
        Tensor::<1>::from_floats(xy.concat().as_slice(), device).reshape([n, 2]),
        Tensor::from_ints(y.as_slice(), device),
    )
}

/// Seven steps per epoch.
fn settings(changes: &str) -> Settings {
    let all = format!(
        "[optimizer]\nkind = 'adam'\nlr = 1e-2\n[train]\nbatch = 10\n[run]\ndevice = 'flex'\n\
         keep = 9\n{changes}"
    );
    Settings::parse(&all).unwrap_or_else(|e| panic!("{all}: {e}"))
}

fn trainer(dir: &Path, settings: &Settings) -> Trainer {
    Trainer::new(dir, settings.clone(), Task::classification("points"))
        .with_model("depth", 3)
        .with_data("points", "70+20")
        .with_plain(true)
}

/// The random generator belongs to the process, so one run at a time.
fn fit(trainer: Trainer, settings: &Settings) -> (Result<Finished>, MutexGuard<'static, ()>) {
    let lock = drawing();
    let train = DatasetSource::training(points(0..70), settings, batch);
    let valid = DatasetSource::scoring(points(70..90), settings, batch);
    (
        trainer.fit(|device| Net::new(3, device), train, valid),
        lock,
    )
}

fn done(trainer: Trainer, settings: &Settings) -> Finished {
    fit(trainer, settings).0.unwrap()
}

fn refused(trainer: Trainer, settings: &Settings, parts: &[&str]) {
    let error = fit(trainer, settings).0.map(|f| f.state);
    let error = error.unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "no `{part}` in: {error}");
    }
}

#[test]
fn a_run_leaves_rows_a_best_checkpoint_and_a_report() {
    let dir = scratch();
    let run = dir.path().join("run");
    let settings = settings("epochs = 30\nlog_every = 7\ntarget = 60.0");
    let finished = done(trainer(&run, &settings), &settings);
    assert!(!finished.interrupted);
    assert_eq!(finished.state.step, 210);
    let all = rows(&run);
    let (train, valid) = (of_split(&all, "train"), of_split(&all, "valid"));
    assert_eq!((train.len(), valid.len()), (30, 30));
    assert!(train.iter().all(|row| row.items == 70));
    assert!(train.iter().all(|row| row.alpha.len() == 3));
    assert!(valid.iter().all(|row| row.items == 20));
    let accuracy = |row: &rezero_train::record::Row| row.metrics["accuracy"];
    let best = valid.iter().map(accuracy).fold(0.0, f64::max);
    assert_eq!(finished.state.best.unwrap().measure, best);
    assert!(best >= 0.6, "{best}");
    let first = valid.iter().find(|row| accuracy(row) >= 0.6);
    assert_eq!(
        finished.state.reached.map(|reached| reached.step),
        first.map(|row| row.step)
    );
    let summary = std::fs::read_to_string(run.join("DONE")).unwrap();
    assert!(
        summary.contains("210 steps, validation accuracy"),
        "{summary}"
    );
    assert!(summary.contains("at least 60 % first at step"), "{summary}");

    let runs = vec![read(run.to_str().unwrap()).unwrap()];
    let report = Report::new("Points", group(runs).unwrap(), None, None).unwrap();
    let page = report.write(dir.path().join("report")).unwrap();
    assert!(std::fs::read_to_string(page).unwrap().contains("Points"));
    let table = report.table_markdown();
    assert!(table.contains("| model | 1 |"), "{table}");

    // It is complete: nothing is done, and nothing is overwritten.
    let again = done(trainer(&run, &settings).with_resume(true), &settings);
    assert_eq!(again.state.step, 210);
    assert_eq!(rows(&run), all);
    refused(
        trainer(&run, &settings),
        &settings,
        &["holds a run already"],
    );
}

#[test]
fn a_resumed_run_is_the_undisturbed_one() {
    let dir = scratch();
    let at = |name: &str| dir.path().join(name);
    let whole = settings("epochs = 4");
    done(trainer(&at("whole"), &whole), &whole);
    let expected = rows(&at("whole"));
    assert_eq!(expected.len(), 4 * 7 + 4);

    // A run that is made longer.
    let half = settings("epochs = 2");
    done(trainer(&at("longer"), &half), &half);
    done(trainer(&at("longer"), &whole).with_resume(true), &whole);
    assert_eq!(rows(&at("longer")), expected);

    // From a checkpoint in the middle.
    rewind(&at("longer"), 7);
    done(trainer(&at("longer"), &whole).with_resume(true), &whole);
    assert_eq!(rows(&at("longer")), expected);

    // The interrupter is set before the first step. The resumed run continues where the stopped run
    // ended.
    let interrupter = Interrupter::new();
    interrupter.stop(None);
    let stopped = trainer(&at("stopped"), &whole).with_interrupter(interrupter);
    let stopped = done(stopped, &whole);
    assert!(
        stopped.interrupted && stopped.state.step < 28,
        "{stopped:?}"
    );
    done(trainer(&at("stopped"), &whole).with_resume(true), &whole);
    assert_eq!(rows(&at("stopped")), expected);

    // Two devices, and a batch in parts, give the same steps.
    for (name, changes) in [
        ("two", "epochs = 4\n[train]\nbatch = 10"),
        ("parts", "epochs = 4\n[train]\nbatch = 10\naccumulate = 5"),
    ] {
        let device = if name == "two" { "flex,flex" } else { "flex" };
        let text =
            format!("[optimizer]\nkind = 'adam'\nlr = 1e-2\n[run]\ndevice = '{device}'\n{changes}");
        let settings = Settings::parse(&text).unwrap();
        done(trainer(&at(name), &settings), &settings);
        for (a, b) in rows(&at(name)).iter().zip(&expected) {
            assert!((a.loss / b.loss - 1.0).abs() < 1e-4, "{name}: {a:?} {b:?}");
        }
    }
}

#[test]
fn another_run_than_it_was_is_refused() {
    let dir = scratch();
    let run = dir.path().join("run");
    let base = settings("epochs = 1");
    done(trainer(&run, &base), &base);
    let resume = |settings: &Settings| trainer(&run, settings).with_resume(true);
    let longer = settings("epochs = 2");

    let other = settings("epochs = 2\n[gates]\nalpha_optimizer = 'sgd'");
    let parts = ["other settings", "gates.alpha_optimizer"];
    refused(resume(&other), &other, &parts);
    let data = resume(&longer).with_data("points", "71+20");
    refused(data, &longer, &["other data"]);
    let model = resume(&longer).with_model("depth", 4);
    refused(model, &longer, &["model.depth 3 -> 4"]);
    let lock = drawing();
    let silent = |device: &Device| Silent {
        linear: LinearConfig::new(2, 3).init(device),
    };
    let sources = || {
        (
            DatasetSource::training(points(0..70), &longer, batch),
            DatasetSource::scoring(points(70..90), &longer, batch),
        )
    };
    let (train, valid) = sources();
    let error = resume(&longer).fit(silent, train, valid).map(|f| f.state);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("another model"), "{error}");
    assert!(error.contains("Net") && error.contains("Silent"), "{error}");
    drop(lock);

    // Nothing was harmed.
    assert_eq!(rows(&run).len(), 8);
    done(resume(&longer), &longer);
    assert_eq!(rows(&run).len(), 16);

    // A cycle over the whole run cannot be made longer.
    let cycle = |epochs: usize| {
        let text = format!(
            "[optimizer]\nkind = 'sgd'\n[schedule]\nkind = 'one-cycle'\n[train]\nbatch = 10\n\
             [run]\ndevice = 'flex'\nepochs = {epochs}"
        );
        Settings::parse(&text).unwrap()
    };
    let run = dir.path().join("cycle");
    done(trainer(&run, &cycle(1)), &cycle(1));
    let longer = trainer(&run, &cycle(2)).with_resume(true);
    refused(longer, &cycle(2), &["run.epochs 1 -> 2"]);
}

#[test]
fn what_goes_wrong_is_said() {
    let dir = scratch();
    let diverging = Settings::parse(
        "[optimizer]\nkind = 'sgd'\nlr = 1e30\n[train]\nbatch = 10\n[run]\ndevice = 'flex'",
    )
    .unwrap();
    let run = dir.path().join("diverged");
    match fit(trainer(&run, &diverging), &diverging).0 {
        Err(Error::Diverged { message, .. }) => {
            assert!(message.contains("largest gate is blocks."), "{message}");
        }
        other => panic!("it does not diverge: {other:?}"),
    }

    // A metric that cannot be computed from the model's sums is refused.
    let settings = settings("epochs = 1");
    let train = DatasetSource::training(points(0..70), &settings, batch);
    let valid = DatasetSource::scoring(points(70..90), &settings, batch);
    let silent = |device: &Device| Silent {
        linear: LinearConfig::new(2, 3).init(device),
    };
    let run = dir.path().join("silent");
    let _lock = drawing();
    let error = trainer(&run, &settings).fit(silent, train, valid);
    let error = error.map(|f| f.state).unwrap_err().to_string();
    for part in ["accuracy", "correct", "Sums"] {
        assert!(error.contains(part), "no `{part}` in: {error}");
    }
}

/// Points of which one cannot be read, while the data set is broken.
struct Broken {
    points: InMemDataset<Point>,
    /// The item that is an error.
    bad: Option<usize>,
    /// How many items there are, of those that `len` tells.
    there: usize,
}

impl Dataset<Point> for Broken {
    fn get(&self, index: usize) -> std::result::Result<Point, DatasetError> {
        match Some(index) == self.bad {
            true => Err(DatasetError::new(std::io::Error::other(format!(
                "item {index} is unreadable"
            )))),
            false => self.points.get(index),
        }
    }

    fn get_many(&self, indices: Vec<usize>) -> std::result::Result<Vec<Point>, DatasetError> {
        let there = indices.into_iter().filter(|i| *i < self.there);
        there.map(|i| self.get(i)).collect()
    }

    fn len(&self) -> usize {
        self.points.len()
    }
}

/// A source with fewer batches than it says.
struct Short(DatasetSource<Point, (Tensor<2>, Tensor<1, Int>)>);

impl Source for Short {
    type Batch = (Tensor<2>, Tensor<1, Int>);

    fn batches_per_epoch(&self) -> usize {
        self.0.batches_per_epoch() + 3
    }

    fn rows_per_epoch(&self) -> usize {
        self.0.rows_per_epoch()
    }

    fn batches_from(&self, step: usize, device: &Device) -> Batches<Self::Batch> {
        self.0
            .batches_from(step.min(self.0.batches_per_epoch() - 1), device)
    }
}

/// A data set that ends early or has an error in the middle ends the run with a message; its checkpoints stay, and it goes on
/// when the data is whole.
#[test]
fn data_that_fails_in_the_middle_of_a_run_is_named_and_costs_no_checkpoint() {
    let dir = scratch();
    for prefetch in [0, 4] {
        let settings = settings(&format!(
            "epochs = 3\ncheckpoint_every = 1\nprefetch = {prefetch}"
        ));
        let at = |name: &str| dir.path().join(format!("{name}-{prefetch}"));
        done(trainer(&at("whole"), &settings), &settings);
        let order = rezero_data::rng::order(settings.train.seed, 1, 70);
        let _lock = drawing();
        for (name, bad, there, part) in [
            // In the fourth batch of the second epoch; the first epoch has it too.
            ("bad", Some(order[35] as usize), 70, "is unreadable"),
            ("early", None, 69, "get_many gave 9 of 10"),
        ] {
            let points = points(0..70);
            let broken = Broken { points, bad, there };
            let train = DatasetSource::training(broken, &settings, batch);
            let valid = DatasetSource::scoring(self::points(70..90), &settings, batch);
            let run = at(name);
            let result = trainer(&run, &settings).fit(|device| Net::new(3, device), train, valid);
            let error = result.map(|f| f.state).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            // A failure in the first batch leaves no checkpoint.
            let train = DatasetSource::training(self::points(0..70), &settings, batch);
            let valid = DatasetSource::scoring(self::points(70..90), &settings, batch);
            let again = trainer(&run, &settings).with_resume(true);
            again
                .fit(|device| Net::new(3, device), train, valid)
                .unwrap();
            assert_eq!(rows(&run), rows(&at("whole")), "{name}");
        }
        let train = Short(DatasetSource::training(points(0..70), &settings, batch));
        let valid = DatasetSource::scoring(points(70..90), &settings, batch);
        let result =
            trainer(&at("short"), &settings).fit(|device| Net::new(3, device), train, valid);
        let error = result.map(|f| f.state).unwrap_err().to_string();
        assert!(error.contains("the data ended early"), "{error}");
    }
}

/// A network whose device fails in one of its steps.
#[derive(Module, Debug)]
struct Fails {
    net: Net,
    #[module(skip)]
    at: Option<(usize, &'static str)>,
}

static TAKEN: AtomicUsize = AtomicUsize::new(0);

impl Model for Fails {
    type Batch = (Tensor<2>, Tensor<1, Int>);

    fn loss(&self, batch: &Self::Batch) -> Sums {
        let taken = TAKEN.fetch_add(1, Ordering::Relaxed) + 1;
        match self.at {
            Some((at, message)) if at == taken => panic!("{message}"),
            _ => self.net.loss(batch),
        }
    }
}

/// A device that is lost has an error of its own, and memory that runs out too. The checkpoint before it stays, and the run goes on
/// from it.
#[test]
fn a_device_that_fails_in_the_middle_of_a_run_costs_no_checkpoint() {
    let dir = scratch();
    let settings = settings("epochs = 3\ncheckpoint_every = 5");
    let _lock = drawing();
    let run = |name: &str, resume: bool, at: Option<(usize, &'static str)>| {
        TAKEN.store(0, Ordering::Relaxed);
        let train = DatasetSource::training(points(0..70), &settings, batch);
        let valid = DatasetSource::scoring(points(70..90), &settings, batch);
        let init = |device: &Device| Fails {
            net: Net::new(3, device),
            at,
        };
        let trainer = trainer(&dir.path().join(name), &settings).with_resume(resume);
        trainer.fit(init, train, valid).map(|f| f.state.step)
    };
    assert_eq!(run("whole", false, None).unwrap(), 21);
    let expected = rows(&dir.path().join("whole"));
    for (name, message, code, parts) in [
        (
            "lost",
            "Error while reading data: use `try_into_data` instead to catch the error at runtime: DevicePoisoned { reason: \
             \"The device is poisoned\\nCaused by:\\n  cuMemcpy failed with status 700\\nBacktrace:\\n  0: f\" }",
            4,
            [
                "device `flex` was lost (cuMemcpy failed with status 700)",
                "the checkpoint of step 10 stays; continue with",
            ],
        ),
        (
            "full",
            "Error while reading data: WithContext { reason: \"out of device memory allocating 512 bytes\" }",
            1,
            ["out of memory: a step holds 10 items", "or batch=5"],
        ),
    ] {
        // Two batches are of the validation of step 7.
        let error = run(name, false, Some((14, message))).unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
        for part in parts {
            assert!(error.to_string().contains(part), "no `{part}` in {error}");
        }
        assert_eq!(run(name, true, None).unwrap(), 21);
        assert_eq!(rows(&dir.path().join(name)), expected, "{name}");
    }
    // Before the first checkpoint.
    let error = run(
        "none",
        false,
        Some((2, "wgpu error: Parent device is lost")),
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("there is no checkpoint yet"),
        "{error}"
    );
}
