//! Trains a byte-level language model on built-in text and lets it write. It takes 40 seconds on
//! two cores: `cargo run --release -p rezero-examples --example write_text`

use burn::data::dataloader::DataLoader;
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::Device;
use rezero_data::{Split, TextLoader, WindowConfig, corpus};
use rezero_nn::transformer::{Positions, RztxEncoderConfig, RztxLmConfig, SamplingConfig};

const CONTEXT: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::default().autodiff();
    device.seed(1);
    // Width, feed-forward width, heads, layers.
    let encoder = RztxEncoderConfig::new(128, 512, 2, 4).with_dropout(0.0);
    let mut model = RztxLmConfig::new(encoder, CONTEXT)
        .with_positions(Positions::Rotary)
        .init(&device);
    let mut optimizer = AdamConfig::new().with_epsilon(1e-8).init();
    let loss_of = CrossEntropyLossConfig::new().init(&device);

    let text = corpus::wiki_like(1_000_000, 0, Split::Train);
    let config = WindowConfig {
        batch_size: 16,
        context: CONTEXT,
        seed: 1,
        steps: 300,
        prefetch: 2,
    };
    let loader = TextLoader::windows(text, config, &device)?;
    for (step, batch) in loader.iter().enumerate() {
        let batch = batch?;
        let n = batch.scored;
        let logits = model.forward(batch.inputs).reshape([n, 256]);
        let loss = loss_of.forward(logits, batch.targets.reshape([n]));
        if step % 50 == 49 {
            let nats = loss.clone().into_scalar::<f64>();
            let bits = nats / std::f64::consts::LN_2;
            println!("step {}: {bits:.3} bits per byte", step + 1);
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(2e-3, model, gradients);
    }

    let sampler = SamplingConfig::new()
        .with_temperature(0.8)
        .with_top_p(0.95)
        .init()?;
    let model = model.valid();
    let written: Vec<u8> = model
        .generate(b"  <page>\n", sampler, None, &device.inner())?
        .take(400)
        .collect();
    println!("{}", String::from_utf8_lossy(&written));
    Ok(())
}
