//! The training step's own arithmetic.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use burn::train::{InferenceStep, TrainStep};
use rezero_data::ImageBatch;
use rezero_train::fit::{Batch, Input, Model, Trainee, clip_global_norm};
use rezero_train::recipe::{Recipe, TaskRecipe};
use rezero_train::task::{Domain, Images};
use rezero_train::zoo::Zoo;
use rezero_train::zoo::images::Network;

use crate::support::{
    cifar_layout, drawing, gradients, losses, network, of_images, recipe, scratch, succeed,
    trainee, weights,
};

fn classifier(device: &Device) -> Trainee<Network> {
    let recipe = recipe("quickstart", &["depth=8"]);
    trainee(of_images(&recipe), &recipe.settings, device)
}

fn batch(device: &Device) -> Input<ImageBatch> {
    let pixels: Vec<f32> = (0..3 * 3 * 32 * 32)
        .map(|i| (i % 97) as f32 / 48.0 - 1.0)
        .collect();
    Input::new(ImageBatch {
        images: Tensor::<1>::from_floats(pixels.as_slice(), device).reshape([3, 3, 32, 32]),
        targets: Tensor::<1, Int>::from_ints([1, 4, 9], device),
        soft: None,
    })
}

#[test]
fn a_step_counts_items_and_takes_the_norm_of_all_gradients() {
    let device = Device::flex().autodiff();
    let model = classifier(&device);
    let output = TrainStep::step(&model, batch(&device));
    let mut item = output.item;
    item.read();
    assert_eq!(item.totals.items, 3);
    // Ten classes at the start: about ln 10 each.
    assert!(
        (1.5..4.0).contains(&item.totals.mean_loss()),
        "{:?}",
        item.totals
    );
    let squares = gradients(&model, &output.grads).into_iter();
    let norm = squares.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    assert!((item.grad_norm - norm).abs() < 1e-5 * norm);
}

#[test]
fn clipping_scales_every_gradient_to_one_global_norm() {
    let device = Device::flex().autodiff();
    let model = classifier(&device);
    let grads = TrainStep::step(&model, batch(&device)).grads;
    let (grads, before) = clip_global_norm(&model, grads, 0.01);
    let (_, after) = clip_global_norm(&model, grads, 0.0);
    assert!(before.global().into_scalar::<f32>() > 0.01);
    assert!((after.global().into_scalar::<f32>() - 0.01).abs() < 1e-5);
}

#[test]
fn evaluation_leaves_batch_norm_alone() {
    let device = Device::flex();
    let model = classifier(&device.clone().autodiff());
    TrainStep::step(&model, batch(&device.clone().autodiff()));
    let valid = model.valid();
    let score = |model: &Trainee<Network>| {
        let mut output = InferenceStep::step(model, batch(&device));
        output.read();
        output.totals
    };
    assert_eq!(score(&valid), score(&valid));
    assert_eq!(score(&valid), score(&model.valid()));
}

#[test]
fn weights_are_a_function_of_the_seed() {
    // The random generator is global to a process, and other tests use it at the same time. So this
    // test runs the command, in processes of its own.
    let dir = scratch();
    let data = cifar_layout(dir.path(), 8);
    let data = data.to_str().unwrap();
    let mut first_losses = Vec::new();
    for seed in ["1", "1", "2"] {
        let run = dir.path().join(format!("run-{}", first_losses.len()));
        succeed(
            dir.path(),
            &[
                "train",
                "cifar10-resnet20",
                "--data-dir",
                data,
                "--run-dir",
                run.to_str().unwrap(),
                "depth=8",
                "batch=4",
                "epochs=1",
                "steps=1",
                &format!("seed={seed}"),
            ],
        );
        first_losses.push(losses(&run)[0]);
    }
    assert_eq!(first_losses[0], first_losses[1]);
    assert_ne!(first_losses[0], first_losses[2]);
}

/// A network's weights are a function of its recipe: random numbers, uses and seeds after it was
/// made do not change them.
#[test]
fn weights_are_drawn_when_the_network_is_made() {
    fn check<M: Module>(name: &str, device: &Device, make: impl Fn() -> M) {
        let expected = weights(&make());
        let second = make();
        {
            let _drawing = drawing();
            device.seed(999);
        }
        // In another order of use.
        let found = weights(&second.valid());
        assert_eq!(found, expected, "{name}");
        assert_eq!(weights(&second), expected, "{name}");
    }
    let device = Device::flex().autodiff();
    for (name, overrides) in [
        ("cifar10-mlp64", &["depth=3", "width=8"][..]),
        ("cifar10-resnet20", &["depth=8"]),
        ("cifar10-preact18", &[]),
        ("cifar10-vit", &["depth=2"]),
        ("cifar10-mixer", &["depth=2"]),
        ("enwik8-tiny", &["depth=2", "d_model=8", "d_ff=8"]),
    ] {
        let Recipe { task, settings } = recipe(name, overrides);
        match &task {
            TaskRecipe::Images(of) => check(name, &device, || network(of, &settings, &device)),
            TaskRecipe::Text(of) => check(name, &device, || network(of, &settings, &device)),
        }
    }
}

fn mixed(device: &Device) -> Input<ImageBatch> {
    let mut input = batch(device);
    let shares: Vec<f32> = (0..30).map(|i| (i * 7 % 10) as f32 / 45.0).collect();
    let shares = Tensor::<1>::from_floats(shares.as_slice(), device);
    input.batch.soft = Some(shares.reshape([3, 10]));
    input
}

/// Parts of a batch with shares of classes have together the sums of the whole.
#[test]
fn parts_of_a_mixed_batch_sum_to_the_whole() {
    let device = Device::flex();
    let model = classifier(&device.clone().autodiff()).valid();
    let batch = mixed(&device).batch;
    let sums = |batch: &ImageBatch| {
        let sums = model.model.loss(batch);
        let number = |tensor: Tensor<1>| tensor.into_scalar::<f32>();
        (number(sums.loss), number(sums.named[0].1.clone()))
    };
    let whole = sums(&batch);
    let parts = [0..1, 1..3].map(|rows| sums(&batch.narrow(rows)));
    assert!((whole.0 - parts[0].0 - parts[1].0).abs() < 1e-5 * whole.0);
    assert_eq!(whole.1, parts[0].1 + parts[1].1);
    // By its definition.
    let shares = batch.soft.clone().unwrap();
    let logits = model.model.logits(&batch);
    let loss = (burn::tensor::activation::log_softmax(logits, 1) * shares).sum();
    assert!((whole.0 + loss.into_scalar::<f32>()).abs() < 1e-5 * whole.0);
}

/// The loss and the accuracy of validation are those of the labels and images themselves.
#[test]
fn scoring_neither_augments_nor_smooths() {
    let recipe = recipe(
        "quickstart",
        &["augment=cutout,mixup", "label_smoothing=0.2"],
    );
    let (of, device) = (of_images(&recipe), Device::flex());
    let set = rezero_data::shapes::generate(rezero_data::Split::Valid, 8, 0);
    let scoring = Images::for_scoring(of, &recipe.settings, set.clone(), &device).unwrap();
    let training = Images::for_training(of, &recipe.settings, set, &device).unwrap();
    let (scoring, training) = (scoring.config(), training.config());
    assert_eq!(
        (scoring.label_smoothing, training.label_smoothing),
        (0.0, 0.2)
    );
    assert_eq!(scoring.augment.to_string(), "none");
    assert_eq!(
        training.augment.to_string(),
        "cutout:size=16,mixup:alpha=1.0"
    );
}
