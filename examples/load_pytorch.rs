//! Loads a language model from a PyTorch file, of any size, and tells how fast:
//! `cargo run --release -p rezero-examples --example load_pytorch -- FILE`

use std::time::Instant;

use burn::tensor::{Device, Int, Tensor};
use rezero_nn::parameter_count;
use rezero_nn::torch::{LoadRules, TorchWeights, load_with};
use rezero_nn::transformer::{RztxEncoderConfig, RztxLmConfig, lm_shape};

/// The number of heads is in no shape. It changes the numbers, and not what is loaded.
const HEADS: usize = 8;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args_os()
        .nth(1)
        .ok_or("usage: load_pytorch FILE")?;
    let begun = Instant::now();
    // The names and shapes; nothing in the file is executed.
    let weights = TorchWeights::open(&file)?;
    let shape = lm_shape(&weights).ok_or("the file holds no language model")?;
    println!("{shape:?}");

    let encoder = RztxEncoderConfig::new(shape.d_model, shape.d_ff, HEADS, shape.n_layers);
    let config = RztxLmConfig::new(encoder, shape.context.ok_or("it has no learned positions")?)
        .with_vocab_size(shape.vocab_size)
        .with_tied(shape.tied);
    let device = Device::default();
    // Initial values are sampled when they are used, so not at all here.
    let (model, loaded) = load_with(config.init(&device), &weights, &LoadRules::default())?;
    let seconds = begun.elapsed().as_secs_f64();
    println!("left out: {:?}", loaded.left_out);

    let megabytes = parameter_count(&model) as f64 * 4e-6;
    println!(
        "{megabytes:.0} MB in {seconds:.2} s: {:.0} MB/s",
        megabytes / seconds
    );
    // Linux counts a process's largest memory.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(peak) = status.lines().find(|line| line.starts_with("VmHWM")) {
        println!("{peak}");
    }
    let logits = model.forward(Tensor::<2, Int>::zeros([1, 4], &device));
    println!(
        "logits {:?}, mean {:.4}",
        logits.dims(),
        logits.mean().into_scalar::<f32>()
    );
    Ok(())
}
