//! Trains a network of this project with Burn's own `SupervisedTraining` and its default strategy:
//! `cargo run --release -p rezero-examples --example supervised`

use std::sync::Arc;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::SgdConfig;
use burn::optim::momentum::MomentumConfig;
use burn::tensor::Device;
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{
    ClassificationOutput, InferenceStep, Learner, SupervisedTraining, TrainOutput, TrainStep,
};
use rezero_data::{Augment, ImageBatch, ImageLoader, LoaderConfig, Split, shapes};
use rezero_nn::gate_group;
use rezero_nn::resnet::{CifarResNet, CifarResNetConfig};

/// A type of this crate, since Rust allows no implementation of Burn's traits for a foreign type.
#[derive(Module, Debug)]
struct Classifier {
    net: CifarResNet,
}

impl Classifier {
    fn classify(&self, batch: ImageBatch) -> ClassificationOutput {
        let logits = self.net.forward(batch.images);
        let loss = CrossEntropyLossConfig::new().init(&logits.device());
        let loss = loss.forward(logits.clone(), batch.targets.clone());
        ClassificationOutput::new(loss, logits, batch.targets)
    }
}

impl TrainStep for Classifier {
    type Input = ImageBatch;
    type Output = ClassificationOutput;

    fn step(&self, batch: ImageBatch) -> TrainOutput<ClassificationOutput> {
        let output = self.classify(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for Classifier {
    type Input = ImageBatch;
    type Output = ClassificationOutput;

    fn step(&self, batch: ImageBatch) -> ClassificationOutput {
        self.classify(batch)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::default();
    device.seed(1);
    let config = |augment| LoaderConfig {
        batch_size: 32,
        seed: 1,
        shuffle: true,
        drop_last: false,
        augment,
        label_smoothing: 0.0,
        normalization: shapes::normalization(),
        prefetch: 2,
    };
    let training = device.clone().autodiff();
    let set = shapes::generate(Split::Train, 1_600, 0);
    let train = ImageLoader::new(set, config(Augment::STANDARD), &training)?;
    let set = shapes::generate(Split::Valid, 200, 0);
    let valid = ImageLoader::new(set, config(Augment::NONE), &device)?;

    let net = CifarResNetConfig::new(8).init(&training);
    let model = Classifier { net };
    // Gates have their own parameter group, here without momentum.
    let optimizer = SgdConfig::new()
        .with_momentum(Some(MomentumConfig::new().with_momentum(0.9)))
        .init()
        .with_group(gate_group(&model), SgdConfig::new().build(), None);
    let result = SupervisedTraining::new("runs/supervised", Arc::new(train), Arc::new(valid))
        .metrics((AccuracyMetric::new(), LossMetric::new()))
        .num_epochs(2)
        .summary()
        .launch(Learner::new(model, optimizer, 0.05));
    match result.error {
        Some(error) => Err(error.to_string().into()),
        None => Ok(()),
    }
}
