//! The self-test of a device: the operations of networks, and a training step, compared with Flex.

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::EmbeddingConfig;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};
use rezero_kernels::{Epilogue, batch_norm, conv2d, cross_entropy, linear};
use rezero_nn::transformer::{RztxEncoderConfig, RztxLm, RztxLmConfig};
use rezero_nn::{ReZeroConfig, ResidualConfig, ResidualScheme, initialized};
use serde::{Deserialize, Serialize};

use crate::fit::{Rate, Sgd};

/// One part of the self-test.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Outcome {
    /// The name of the computation.
    pub name: String,
    /// The largest difference from Flex in a result or a gradient, relative to the largest value there.
    pub error: f64,
}

type Part = fn(&Device) -> Vec<Vec<f32>>;

const PARTS: [(&str, Part); 6] = [
    ("matmul", |device| {
        let [x, w, b] = [
            leaf([24, 40], 1, device),
            leaf([40, 56], 2, device),
            leaf([1, 56], 3, device),
        ];
        let y = linear(
            x.clone(),
            w.clone(),
            Some(b.clone().squeeze_dim(0)),
            Epilogue::Relu,
        );
        of(y, [&x, &w, &b])
    }),
    ("convolution", |device| {
        let [x, w] = [
            leaf([2, 6, 10, 10], 4, device),
            leaf([8, 6, 3, 3], 5, device),
        ];
        let y = conv2d(x.clone(), w.clone(), 2, 1);
        of(y, [&x, &w])
    }),
    ("batch norm", |device| {
        let x = leaf([4, 6, 5, 5], 6, device);
        let [gamma, beta] = [leaf([1, 6], 7, device), leaf([1, 6], 8, device)];
        let [g, b] = [gamma.clone().squeeze_dim(0), beta.clone().squeeze_dim(0)];
        let normed = batch_norm(x.clone(), g, b, 1e-5, Epilogue::Identity);
        let mut all = of(normed.output, [&x]);
        all.extend([values(normed.mean), values(normed.variance)]);
        all
    }),
    ("softmax", |device| {
        let x = leaf([3, 4, 9, 9], 9, device);
        let y = softmax(x.clone() * 5.0, 3);
        of(y, [&x])
    }),
    ("embedding", |device| {
        let weight = leaf([12, 16], 10, device);
        let mut embedding = EmbeddingConfig::new(12, 16).init(device);
        embedding.weight = Param::from_tensor(weight);
        let tokens: Vec<i32> = (0..30).map(|i| (i * 7 + i / 5) % 12).collect();
        let tokens = Tensor::<1, Int>::from_data(TensorData::new(tokens, [30]), device);
        let y = embedding.forward(tokens.reshape([2, 15]));
        of(y, [&embedding.weight.val()])
    }),
    ("ReZero training step", training_step),
];

/// Computes everything on `device` and on `reference` and compares.
///
/// # Panics
///
/// If a driver panics.
pub fn run(device: &Device, reference: &Device) -> Vec<Outcome> {
    let compare = |(name, part): &(&str, Part)| {
        let got = part(&device.clone().autodiff());
        let want = part(&reference.clone().autodiff());
        Outcome {
            name: (*name).to_owned(),
            error: difference(&got, &want),
        }
    };
    PARTS.iter().map(compare).collect()
}

/// The largest difference of a value, relative to the largest of its tensor in `want`; infinite if
/// something is missing or not a number.
fn difference(got: &[Vec<f32>], want: &[Vec<f32>]) -> f64 {
    if got.len() != want.len() {
        return f64::INFINITY;
    }
    let of = |(got, want): (&Vec<f32>, &Vec<f32>)| {
        if got.len() != want.len() || !got.iter().all(|x| x.is_finite()) {
            return f64::INFINITY;
        }
        let pairs = got.iter().zip(want);
        let largest = want.iter().fold(f32::MIN_POSITIVE, |m, x| m.max(x.abs()));
        let apart = pairs.fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        f64::from(apart / largest)
    };
    got.iter().zip(want).map(of).fold(0.0, f64::max)
}

/// One step of SGD of a Transformer whose gates are not 0: the loss, and every parameter after the
/// step.
fn training_step(device: &Device) -> Vec<Vec<f32>> {
    let gate = ReZeroConfig::new().with_alpha(0.3);
    let encoder = RztxEncoderConfig::new(24, 32, 3, 2)
        .with_dropout(0.0)
        .with_residual(ResidualConfig::new(ResidualScheme::ReZero).with_rezero(gate));
    let model: RztxLm = RztxLmConfig::new(encoder, 12)
        .with_vocab_size(20)
        .init(device);
    let model = initialized(model).map(&mut Fill { seed: 20 });
    let ids = |shift: i32| -> Tensor<1, Int> {
        let ids: Vec<i32> = (0..36).map(|i| (i * 11 + shift) % 20).collect();
        Tensor::from_data(TensorData::new(ids, [36]), device)
    };
    let logits = model.forward(ids(0).reshape([3, 12])).reshape([36, 20]);
    let loss = cross_entropy(logits, ids(11)).mean();
    let mut optimizer = ModuleOptimizer::from(Sgd {
        lr: Rate::at(0.5),
        momentum: Rate::at(0.9),
        weight_decay: 1e-3,
        numbers: Default::default(),
    });
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    let model = optimizer.step(0.0, model, gradients);
    let mut all = Collect(vec![values(loss)]);
    model.visit(&mut all);
    all.0
}

/// Values from −1 to 1 that are equal on all devices (SplitMix64's finaliser of a counter).
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    (0..count as u64)
        .map(|i| (rezero_data::rng::mix(seed, i) >> 40) as f32 / (1 << 23) as f32 - 1.0)
        .collect()
}

fn leaf<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    let data = TensorData::new(numbers(shape.iter().product(), seed), shape);
    Tensor::from_data(data, device).require_grad()
}

/// A sum with a different weight for every value.
fn weighed<const D: usize>(y: Tensor<D>) -> Tensor<1> {
    let weights = TensorData::new(numbers(y.shape().num_elements(), 99), y.dims());
    (y.clone() * Tensor::from_data(weights, &y.device())).sum()
}

/// The values of `y`, and the gradients of a weighted sum of them.
fn of<const D: usize, const L: usize, const N: usize>(
    y: Tensor<D>,
    leaves: [&Tensor<L>; N],
) -> Vec<Vec<f32>> {
    let mut all = vec![values(y.clone())];
    let gradients: Gradients = weighed(y).backward();
    all.extend(leaves.map(|leaf| values_of(leaf.grad(&gradients))));
    all
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Empty if there is no gradient, so that it differs from the reference.
fn values_of<const D: usize>(gradient: Option<Tensor<D>>) -> Vec<f32> {
    gradient.map_or_else(Vec::new, values)
}

/// Gives every parameter but the gates known values, small enough that the network's values stay
/// moderate.
struct Fill {
    seed: u64,
}

impl burn::module::ModuleMapper for Fill {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.seed += 1;
        let shape = param.val().dims();
        if shape.iter().product::<usize>() == 1 {
            return param;
        }
        let filled = leaf(shape, self.seed, &param.val().device()) * 0.2;
        let (id, _, mapper) = param.consume();
        Param::from_mapped_value(id, filled.detach().require_grad(), mapper)
    }
}

struct Collect(Vec<Vec<f32>>);

impl ModuleVisitor for Collect {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(values(param.val()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "flex")]
    #[test]
    fn flex_agrees_with_itself_bit_for_bit() {
        let flex = Device::flex();
        for outcome in run(&flex, &flex) {
            assert_eq!(outcome.error, 0.0, "{}", outcome.name);
        }
    }

    #[test]
    fn a_difference_is_relative_to_the_largest_value_of_its_tensor() {
        let want = vec![vec![1.0, -4.0], vec![0.0]];
        assert_eq!(difference(&want, &want), 0.0);
        let got = vec![vec![1.5, -4.0], vec![0.0]];
        assert_eq!(difference(&got, &want), 0.125);
        assert_eq!(difference(&want[..1], &want), f64::INFINITY);
        let wrong = vec![vec![1.0, f32::NAN], vec![0.0]];
        assert_eq!(difference(&wrong, &want), f64::INFINITY);
        let short = vec![vec![1.0], vec![0.0]];
        assert_eq!(difference(&short, &want), f64::INFINITY);
    }
}
