//! A plain Burn network, once with Burn's own `forward` and once with the kernels:
//! `cargo run --release -p rezero-examples --example burn_layers`
use std::time::Instant;

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Distribution, Tensor};
use rezero_kernels::{Epilogue, fused};

/// Without it, memory that a step frees goes back to the system, and the next step waits for it.
#[global_allocator]
static ALLOCATOR: rezero_kernels::allocator::Allocator = rezero_kernels::allocator::Allocator;

#[derive(Module, Debug)]
struct Net {
    convs: Vec<Conv2d>,
    norms: Vec<BatchNorm>,
    output: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        let channels = [3, 16, 32, 32];
        let conv = |c: &[usize]| {
            Conv2dConfig::new([c[0], c[1]], [3, 3])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .with_bias(false)
                .init(device)
        };
        Self {
            convs: channels.windows(2).map(conv).collect(),
            norms: channels[1..]
                .iter()
                .map(|c| BatchNormConfig::new(*c).init(device))
                .collect(),
            output: LinearConfig::new(32, 10).init(device),
        }
    }

    fn burn(&self, mut x: Tensor<4>) -> Tensor<2> {
        for (conv, norm) in self.convs.iter().zip(&self.norms) {
            x = relu(norm.forward(conv.forward(x)));
        }
        let [batch, channels, height, width] = x.dims();
        let x = x.reshape([batch, channels, height * width]).mean_dim(2);
        self.output.forward(x.reshape([batch, channels]))
    }

    /// The same lines, with `fused::` before each layer.
    fn kernels(&self, mut x: Tensor<4>) -> Tensor<2> {
        for (conv, norm) in self.convs.iter().zip(&self.norms) {
            x = fused::batch_norm(norm, fused::conv2d(conv, x), Epilogue::Relu);
        }
        let [batch, channels, height, width] = x.dims();
        let x = x.reshape([batch, channels, height * width]).mean_dim(2);
        fused::linear(
            &self.output,
            x.reshape([batch, channels]),
            Epilogue::Identity,
        )
    }
}

fn main() {
    rezero_kernels::allocator::keep_memory();
    let device = Device::flex().autodiff();
    device.seed(1);
    let net = Net::new(&device);
    let x = Tensor::<4>::random([64, 3, 32, 32], Distribution::Normal(0.0, 1.0), &device);
    let apart = (net.burn(x.clone()) - net.kernels(x.clone())).abs().max();
    println!(
        "outputs differ by at most {:.0e}",
        apart.into_scalar::<f32>()
    );
    for (name, forward) in [
        ("Burn", Net::burn as fn(&Net, _) -> _),
        ("kernels", Net::kernels),
    ] {
        let (mut net, mut optimizer) = (net.clone(), AdamConfig::new().init());
        let mut ms = Vec::new();
        for _ in 0..6 {
            let begun = Instant::now();
            let loss = forward(&net, x.clone()).square().mean();
            let gradients = GradientsParams::from_grads(loss.backward(), &net);
            net = optimizer.step(1e-3, net, gradients);
            ms.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        // The first step allocates its memory.
        ms.remove(0);
        ms.sort_by(f64::total_cmp);
        println!("{name:8} {:7.1} ms a training step", ms[2]);
    }
}
