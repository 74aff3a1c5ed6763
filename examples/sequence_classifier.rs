//! A classifier over an `RztxEncoder`: does the first symbol of a sequence occur in it again?
//! Sequences have different lengths, so padding is masked. It takes 20 seconds on two cores:
//! `cargo run --release -p rezero-examples --example sequence_classifier`

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Bool, Device, Distribution, Int, Tensor, s};
use rezero_nn::gates;
use rezero_nn::transformer::{RztxEncoder, RztxEncoderConfig, RztxEncoderInput};

const SYMBOLS: usize = 12;
const LENGTH: usize = 16;
const WIDTH: usize = 32;

#[derive(Module, Debug)]
struct Classifier {
    symbols: Embedding,
    positions: Embedding,
    encoder: RztxEncoder,
    output: Linear,
}

impl Classifier {
    fn new(layers: usize, device: &Device) -> Self {
        let encoder = RztxEncoderConfig::new(WIDTH, 64, 4, layers).with_dropout(0.0);
        Self {
            symbols: EmbeddingConfig::new(SYMBOLS, WIDTH).init(device),
            positions: EmbeddingConfig::new(LENGTH, WIDTH).init(device),
            encoder: encoder.init(device),
            output: LinearConfig::new(WIDTH, 2).init(device),
        }
    }

    /// Computes logits `[batch, 2]` from symbols and a padding mask, both `[batch, length]`.
    fn forward(&self, symbols: Tensor<2, Int>, padding: Tensor<2, Bool>) -> Tensor<2> {
        let x = self.symbols.forward(symbols) + self.positions.weight.val().unsqueeze();
        let input = RztxEncoderInput::new(x).mask_pad(padding);
        let first = self.encoder.forward(input).slice(s![.., 0, ..]);
        self.output.forward(first.squeeze_dim(1))
    }
}

/// Symbols, padding and classes of random sequences of 4 to 16 symbols.
fn sequences(n: usize, device: &Device) -> (Tensor<2, Int>, Tensor<2, Bool>, Tensor<1, Int>) {
    let uniform = |shape, low: f64, high: f64| {
        Tensor::<2>::random(shape, Distribution::Uniform(low, high), device)
    };
    let symbols = uniform([n, LENGTH], 0.0, SYMBOLS as f64).int();
    let lengths = uniform([n, 1], 4.0, LENGTH as f64 + 1.0).int();
    let places = Tensor::<1, Int>::arange(0..LENGTH as i64, device).unsqueeze::<2>();
    let padding = places
        .repeat_dim(0, n)
        .greater_equal(lengths.repeat_dim(1, LENGTH));
    let first = symbols.clone().slice(s![.., 0..1]).repeat_dim(1, LENGTH);
    let same = symbols
        .clone()
        .equal(first)
        .bool_and(padding.clone().bool_not());
    let again = same.int().sum_dim(1).greater_scalar(1).int();
    (symbols, padding, again.squeeze_dim(1))
}

fn main() {
    let device = Device::default().autodiff();
    device.seed(1);
    let mut model = Classifier::new(12, &device);
    let mut optimizer = AdamConfig::new().with_epsilon(1e-8).init();
    for step in 1..=300 {
        let (symbols, padding, classes) = sequences(64, &device);
        let logits = model.forward(symbols, padding);
        let loss = CrossEntropyLossConfig::new()
            .init(&device)
            .forward(logits, classes);
        if step % 50 == 0 {
            println!("step {step}: loss {:.4}", loss.clone().into_scalar::<f32>());
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(1e-3, model, gradients);
    }
    let (symbols, padding, classes) = sequences(1000, &device.clone().inner());
    let predicted = model.valid().forward(symbols, padding).argmax(1);
    let right = predicted.squeeze_dim::<1>(1).equal(classes).float().mean();
    println!(
        "{:.1} % of 1,000 new sequences right",
        100.0 * right.into_scalar::<f32>()
    );
    for gate in gates(&model) {
        println!("{} = {:+.3}", gate.path, gate.raw[0]);
    }
}
