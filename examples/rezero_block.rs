//! 50 ReZero layers learn sin: `cargo run --release -p rezero-examples --example rezero_block`
use burn::module::Module;
use burn::nn::{Linear, LinearConfig, Relu};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Tensor};
use rezero_nn::{ReZeroBlock, ReZeroConfig};

#[derive(Module, Debug)]
struct Net {
    input: Linear,
    blocks: Vec<ReZeroBlock<(Linear, Relu)>>,
    output: Linear,
}

fn main() {
    let device = Device::default().autodiff();
    let linear = |d_in, d_out| LinearConfig::new(d_in, d_out).init(&device);
    let block = |_| ReZeroConfig::new().init_block((linear(32, 32), Relu::new()), &device);
    let mut net = Net {
        input: linear(1, 32),
        blocks: (0..50).map(block).collect(),
        output: linear(32, 1),
    };
    let mut optimizer = AdamConfig::new().init();
    for step in 0..=200 {
        let x = Tensor::<2>::random([64, 1], Distribution::Uniform(-3.0, 3.0), &device);
        let hidden = net.input.forward(x.clone());
        let hidden = net.blocks.iter().fold(hidden, |h, b| b.forward(h));
        let loss = (net.output.forward(hidden) - x.sin()).square().mean();
        if step % 50 == 0 {
            println!("{step:3}  {:.5}", loss.clone().into_scalar::<f32>());
        }
        let grads = GradientsParams::from_grads(loss.backward(), &net);
        net = optimizer.step(2e-3, net, grads);
    }
}
