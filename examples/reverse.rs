//! An encoder–decoder that learns to reverse sequences. It takes 15 seconds on two cores:
//! `cargo run --release -p rezero-examples --example reverse`

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Int, Tensor, s};
use rezero_nn::transformer::{
    DecoderCache, RztxDecoderInput, RztxTransformer, RztxTransformerConfig,
};

const DIGITS: usize = 10;
const START: usize = DIGITS;
const LENGTH: usize = 12;
const WIDTH: usize = 64;

#[derive(Module, Debug)]
struct Reverser {
    tokens: Embedding,
    positions: Embedding,
    transformer: RztxTransformer,
    output: Linear,
}

impl Reverser {
    fn new(device: &Device) -> Self {
        let config = RztxTransformerConfig::new(WIDTH, 128, 4, 4, 4).with_dropout(0.0);
        Self {
            tokens: EmbeddingConfig::new(DIGITS + 1, WIDTH).init(device),
            positions: EmbeddingConfig::new(LENGTH, WIDTH).init(device),
            transformer: config.init(device),
            output: LinearConfig::new(WIDTH, DIGITS).init(device),
        }
    }

    /// Embeds tokens; the first is at position `from`.
    fn embed(&self, tokens: Tensor<2, Int>, from: usize) -> Tensor<3> {
        let to = from + tokens.dims()[1];
        let positions = self.positions.weight.val().slice(s![from..to, ..]);
        self.tokens.forward(tokens) + positions.unsqueeze()
    }

    fn forward(&self, source: Tensor<2, Int>, target: Tensor<2, Int>) -> Tensor<3> {
        let (source, target) = (self.embed(source, 0), self.embed(target, 0));
        self.output
            .forward(self.transformer.forward(source, target))
    }

    /// Decodes one token at a time. The cache holds the keys and values of the positions before it.
    fn decode(&self, source: Tensor<2, Int>) -> Tensor<2, Int> {
        let RztxTransformer { encoder, decoder } = &self.transformer;
        let memory = encoder.forward(self.embed(source.clone(), 0));
        let mut last = Tensor::full([source.dims()[0], 1], START as i32, &source.device());
        let mut cache = DecoderCache::default();
        let mut written = Vec::new();
        for position in 0..LENGTH {
            let input = RztxDecoderInput::new(self.embed(last, position), memory.clone());
            let y = decoder.forward_cached(input, &mut cache);
            last = self.output.forward(y).argmax(2).squeeze_dim(2);
            written.push(last.clone());
        }
        Tensor::cat(written, 1)
    }
}

fn digits(rows: usize, device: &Device) -> Tensor<2, Int> {
    let uniform = Distribution::Uniform(0.0, DIGITS as f64);
    Tensor::<2>::random([rows, LENGTH], uniform, device).int()
}

fn main() {
    let device = Device::default().autodiff();
    device.seed(1);
    let mut model = Reverser::new(&device);
    let mut optimizer = AdamConfig::new().with_epsilon(1e-8).init();
    for step in 1..=400 {
        let source = digits(32, &device);
        let target = source.clone().flip([1]);
        // The decoder reads the start token and all target tokens but the last.
        let start = Tensor::full([32, 1], START as i32, &device);
        let read = Tensor::cat(vec![start, target.clone().slice(s![.., ..-1])], 1);
        let logits = model.forward(source, read).reshape([32 * LENGTH, DIGITS]);
        let loss = CrossEntropyLossConfig::new().init(&device);
        let loss = loss.forward(logits, target.reshape([32 * LENGTH]));
        if step % 50 == 0 {
            println!("step {step}: loss {:.4}", loss.clone().into_scalar::<f32>());
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(1e-3, model, gradients);
    }
    let source = digits(100, &device.clone().inner());
    let written = model.valid().decode(source.clone());
    println!("read    {}", source.clone().slice(s![0, ..]).into_data());
    println!("written {}", written.clone().slice(s![0, ..]).into_data());
    let right = written.equal(source.flip([1])).float().mean();
    let percent = 100.0 * right.into_scalar::<f32>();
    println!("{percent:.1} % of the digits right");
}
