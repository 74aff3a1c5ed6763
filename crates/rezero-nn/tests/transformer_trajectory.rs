//! Twenty steps of Adam and of LAMB on a byte language model of four RZTX layers from α = 0, against
//! PyTorch. The numbers come from `fixtures/generate_transformer.py`.

use burn::optim::{AdamConfig, GradientsParams, LambConfig, ModuleOptimizer};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rezero_nn::gates;
use rezero_nn::transformer::{Activation, RztxEncoderConfig, RztxLm, RztxLmConfig};

use super::backend::device;
use super::support::{Array, Checks, Fixture, Named, cross_entropy, mix, set_transformer};

// Float32 PyTorch is within 3e-7 of the stored losses, logits and alphas, and 2e-6 of the change of
// every parameter; so is LAMB here. Burn's Adam computes its bias correction in float32, where
// 1 − 0.999² is off by 1e-5: that makes 4e-6, 8e-6 and 4e-5.

/// 1 % more learning rate makes 4e-3, no weight decay (LAMB) 2e-3.
const LOSSES: f64 = 2e-5;

/// 1 % more learning rate makes 2e-2, LAMB's ratio without the biases 3.
const LOGITS: f64 = 5e-5;

/// The smallest mistake we know, GELU by tanh for the exact one, makes 8e-4; Burn's default epsilon
/// for PyTorch's (Adam) 0.3.
const PARAMETERS: f64 = 2e-4;

const BATCH: usize = 4;
const CONTEXT: usize = 12;
const D_MODEL: usize = 16;

/// Bytes of batch `b`, and for each the one that follows it.
fn batch(b: usize, device: &Device) -> (Tensor<2, Int>, Tensor<1, Int>) {
    let n = BATCH * (CONTEXT + 1);
    let values: Vec<i32> = mix(300_000 + b, n).map(|x| (x >> 8) as i32 % 256).collect();
    let data = TensorData::new(values, [BATCH, CONTEXT + 1]);
    let bytes = Tensor::<2, Int>::from_data(data, device);
    let targets = bytes.clone().slice_dim(1, 1..CONTEXT + 1);
    (
        bytes.slice_dim(1, 0..CONTEXT),
        targets.reshape([BATCH * CONTEXT]),
    )
}

fn values(net: &mut RztxLm) -> Vec<(String, Vec<f32>)> {
    let slots = net.slots().into_iter();
    slots
        .map(|(name, slot)| (name, slot.get().values))
        .collect()
}

fn follow(name: &str, mut optimizer: ModuleOptimizer, learning_rate: f64) {
    let fixture = Fixture::parse(include_bytes!("fixtures/rztx_lm_trajectory.safetensors"));
    let get = |key: &str| fixture.get(&format!("{name}/{key}"));
    let device = device().autodiff();
    let encoder = RztxEncoderConfig::new(D_MODEL, 32, 2, 4)
        .with_dropout(0.0)
        .with_activation(Activation::Gelu);
    let mut net = RztxLmConfig::new(encoder, CONTEXT).init(&device);
    set_transformer(&mut net, 0.0, &device);
    let start = values(&mut net);

    let mut checks = Checks::new(LOGITS);
    let first = Array::of(net.forward(batch(0, &device).0));
    checks.near(
        "logits before the first step",
        &first,
        &fixture.get("logits"),
    );
    let mut losses = Vec::new();
    let mut alphas = Array {
        shape: vec![20, 4],
        values: Vec::new(),
    };
    for step in 0..20 {
        let (bytes, targets) = batch(step % 2, &device);
        let logits = net.forward(bytes).reshape([BATCH * CONTEXT, 256]);
        let loss = cross_entropy(logits, targets);
        losses.push(loss.clone().into_scalar::<f32>());
        let gradients = GradientsParams::from_grads(loss.backward(), &net);
        net = optimizer.step(learning_rate, net, gradients);
        let values = gates(&net).into_iter().flat_map(|gate| gate.raw);
        alphas.values.extend(values);
    }
    let last = Array::of(net.forward(batch(0, &device).0));
    checks.near("logits after the last step", &last, &get("logits"));
    checks.finish(&format!("{name}, logits"));

    let mut checks = Checks::new(LOSSES);
    let want = get("losses").values;
    assert_eq!(losses.len(), want.len());
    for (step, (got, want)) in losses.iter().zip(&want).enumerate() {
        let loss = format!("loss of step {step}");
        checks.within(&loss, &[*got], &[*want], f64::from(*want));
    }
    checks.finish(&format!("{name}, losses"));

    let mut checks = Checks::new(PARAMETERS);
    checks.near("alphas", &alphas, &get("alphas"));
    let want = get("change");
    assert_eq!(want.shape, [start.len(), 3]);
    let rows = want.values.chunks(3);
    let ends = values(&mut net).into_iter().zip(start);
    for (p, (((name, end), (_, start)), row)) in ends.zip(rows).enumerate() {
        let mut change: Vec<f32> = end.iter().zip(start).map(|(e, s)| e - s).collect();
        if name.ends_with("in_proj_bias") {
            // Softmax does not see the bias of the keys: its gradient is rounding noise.
            change[D_MODEL..2 * D_MODEL].fill(0.0);
        }
        checks.summary(&name, p, &change, row);
    }
    checks.finish(&format!("{name}, parameters"));
}

#[cfg_attr(test, test)]
pub fn transformer_adam() {
    // PyTorch's epsilon; Burn's default is 1e-5.
    let optimizer = AdamConfig::new().with_epsilon(1e-8).init();
    follow("adam", optimizer, 0.01);
}

#[cfg_attr(test, test)]
pub fn transformer_lamb() {
    let optimizer = LambConfig::new().with_weight_decay(0.01).init();
    follow("lamb", optimizer, 0.02);
}
