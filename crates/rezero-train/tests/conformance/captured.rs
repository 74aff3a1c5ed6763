//! Models train alike with and without captured steps, whether their steps can be captured or not.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use rezero_kernels::fused;
use rezero_train::error::Result;
use rezero_train::fit::{Batch, DatasetSource, Finished, Model, Sums, Task, Trainer};
use rezero_train::recipe::Settings;

use super::backend::{name, tolerance};

/// A line through points.
#[derive(Module, Debug)]
struct Net {
    first: Linear,
    norm: Option<BatchNorm>,
    dropout: Option<Dropout>,
    last: Linear,
    #[module(skip)]
    kind: Kind,
}

/// What is special about a net.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Plain,
    BurnsNorm,
    BurnsDropout,
    Dropout,
    Reads,
    /// Panics in these passes of training, counted from 0.
    Panics(Passes),
    /// Needs more memory than any device has in these.
    Huge(Passes),
}

/// The first pass, and the one after the last.
type Passes = (usize, usize);

/// Two steps, the step beside which a captured one is put, four runs to try a recording of its gradients, and four for the whole step.
const BESIDE: Passes = (2, 3);
const TRIED: Passes = (3, 7);
const RECORDED: Passes = (7, 11);

/// The passes of training in a run.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

impl Net {
    fn new(kind: Kind, device: &Device) -> Self {
        let dropout = [Kind::BurnsDropout, Kind::Dropout].contains(&kind);
        Self {
            first: LinearConfig::new(2, 8).init(device),
            norm: (kind == Kind::BurnsNorm).then(|| BatchNormConfig::new(8).init(device)),
            dropout: dropout.then(|| DropoutConfig::new(0.5).init()),
            last: LinearConfig::new(8, 1).init(device),
            kind,
        }
    }
}

impl Model for Net {
    type Batch = (Tensor<2>, Tensor<2>);

    fn loss(&self, (x, y): &Self::Batch) -> Sums {
        let x = self.first.forward(x.clone());
        let x = match &self.norm {
            Some(norm) => norm.forward::<2>(x),
            None => x,
        };
        let x = match &self.dropout {
            Some(dropout) if self.kind == Kind::Dropout => fused::dropout(dropout, x),
            Some(dropout) => dropout.forward(x),
            None => x,
        };
        let error = self.last.forward(x.tanh()) - y.clone();
        if self.kind == Kind::Reads {
            let largest: f32 = error.clone().inner().abs().max().into_scalar();
            assert!(largest.is_finite());
        }
        let mut sum = error.square().sum();
        if sum.device().is_autodiff()
            && let Kind::Panics((first, end)) | Kind::Huge((first, end)) = self.kind
            && (first..end).contains(&TAKEN.fetch_add(1, Ordering::Relaxed))
        {
            assert!(
                matches!(self.kind, Kind::Huge(_)),
                "out of device memory allocating 512 bytes"
            );
            sum = sum.clone() + Tensor::<1>::ones([1usize << 35], &sum.device()).slice(0..1);
        }
        Sums::new(sum.clone()).with("correct", sum.inner())
    }
}

/// The losses of the last validation, over 12 steps.
fn trained(
    dir: &Path,
    capture: bool,
    (optimizer, clip_norm): (&str, f64),
    init: impl Fn(&Device) -> Net + Send,
) -> Result<(Finished, f64)> {
    let text = format!(
        "[optimizer]\nkind = '{optimizer}'\nlr = 0.05\n[train]\nbatch = 8\nclip_norm = {clip_norm}\n[run]\nepochs = 2\ndevice = '{}'\ncapture = {capture}",
        name()
    );
    let settings = Settings::parse(&text).expect("a valid recipe");
    let points = |range: std::ops::Range<usize>| {
        let point = |i: usize| [(i as f32 * 0.7).sin(), (i as f32 * 1.3).cos()];
        InMemDataset::new(range.map(point).collect())
    };
    let batch = |points: Vec<[f32; 2]>, device: &Device| {
        let n = points.len();
        let x = Tensor::<1>::from_floats(points.concat().as_slice(), device).reshape([n, 2]);
        (x.clone(), x.sum_dim(1) * 3.0)
    };
    let train = DatasetSource::training(points(0..48), &settings, batch);
    let valid = DatasetSource::scoring(points(48..64), &settings, batch);
    let finished = Trainer::new(dir, settings, Task::classification("points"))
        .with_plain(true)
        .fit(init, train, valid)?;
    let rows = std::fs::read_to_string(dir.join("metrics.jsonl")).expect("rows");
    let last = rows.lines().rfind(|row| row.contains("\"valid\""));
    let row: serde_json::Value = serde_json::from_str(last.expect("a validation")).expect("JSON");
    Ok((finished, row["loss"].as_f64().expect("a loss")))
}

#[cfg_attr(test, test)]
pub fn batches_are_copied() {
    let device = super::backend::device();
    if !rezero_kernels::can_overwrite(&device) {
        return;
    }
    let tensor = |value: f32| Tensor::<2>::full([2, 3], value, &device);
    let batch = (tensor(1.0), tensor(2.0));
    let owned = batch.owned().expect("memory of its own");
    assert!(owned.overwrite(&(tensor(3.0), tensor(4.0))));
    assert_eq!(super::helpers::values(batch.0), [1.0; 6]);
    assert_eq!(super::helpers::values(owned.1.clone()), [4.0; 6]);
    assert!(!owned.overwrite(&(Tensor::zeros([1, 3], &device), tensor(0.0))));
}

#[cfg_attr(test, test)]
pub fn captured_or_not_models_train_alike() {
    let captures = rezero_kernels::can_overwrite(&super::backend::device());
    const SGD: (&str, f64) = ("sgd", 0.0);
    for (kind, recipe) in [
        (Kind::Plain, SGD),
        (Kind::Plain, ("sgd", 0.1)),
        (Kind::Plain, ("adam", 0.5)),
        (Kind::Plain, ("lamb", 0.0)),
        (Kind::Plain, ("lamb", 0.1)),
        (Kind::BurnsNorm, SGD),
        (Kind::BurnsDropout, SGD),
        (Kind::Dropout, SGD),
        (Kind::Reads, SGD),
        (Kind::Panics(BESIDE), SGD),
        (Kind::Panics(TRIED), ("sgd", 0.1)),
        (Kind::Panics((6, 7)), ("adam", 0.5)),
        (Kind::Panics(RECORDED), ("adam", 0.5)),
        (Kind::Huge(BESIDE), SGD),
        (Kind::Huge(TRIED), ("adam", 0.5)),
    ] {
        let mut losses = Vec::new();
        for capture in [false, true] {
            let dir = tempfile::tempdir().expect("a directory");
            let init = move |device: &Device| {
                device.seed(7);
                Net::new(kind, device)
            };
            // Without captured steps, none of these passes fails.
            let none = usize::MAX / 2;
            TAKEN.store(
                if capture && captures { 0 } else { none },
                Ordering::Relaxed,
            );
            let (finished, loss) =
                trained(dir.path(), capture, recipe, init).expect("the run ends");
            assert_eq!(finished.state.step, 12, "{kind:?}, {recipe:?}");
            // The first two steps are no replays.
            let can = matches!(kind, Kind::Plain | Kind::Dropout);
            let replayed = if captures && capture && can { 10 } else { 0 };
            assert_eq!(finished.replayed, replayed, "{kind:?}, {recipe:?}");
            losses.push(loss);
        }
        let error = (losses[1] / losses[0] - 1.0).abs();
        assert!(
            error <= 10.0 * tolerance(),
            "{kind:?}, {recipe:?}: {losses:?}"
        );
    }
}

/// A recording of the whole step that fails may take the weights with it. Then the run ends, and its error names what to do.
#[cfg_attr(test, test)]
pub fn a_recording_that_fails_is_told() {
    if !rezero_kernels::can_overwrite(&super::backend::device()) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    TAKEN.store(0, Ordering::Relaxed);
    let init = |device: &Device| Net::new(Kind::Huge(RECORDED), device);
    match trained(dir.path(), true, ("adam", 0.5), init) {
        Ok((finished, _)) => assert_eq!((finished.state.step, finished.replayed), (12, 0)),
        Err(error) => {
            let said = error.to_string();
            println!("{said}");
            for part in ["run.capture=false", "there is no checkpoint yet"] {
                assert!(said.contains(part), "no `{part}` in {said}");
            }
        }
    }
}
