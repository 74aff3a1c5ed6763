//! Jacobians and singular values against closed forms and finite differences.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use rezero_nn::resnet::CifarResNetConfig;
use rezero_nn::transformer::{RztxEncoderConfig, RztxEncoderInput};
use rezero_nn::{Jacobian, JacobianError, JacobianProbe, Mlp, MlpConfig, ResidualScheme, Spectrum};

use crate::helpers::{random, scheme};

fn one(jacobians: Result<Vec<Jacobian>, JacobianError>) -> Jacobian {
    let mut jacobians = jacobians.expect("a Jacobian");
    assert_eq!(jacobians.len(), 1);
    jacobians.remove(0)
}

#[test]
fn of_a_linear_map_it_is_the_matrix() {
    let device = Device::flex();
    let w = random::<2>([5, 7], &device);
    let x = random::<2>([3, 5], &device);
    for block in [1, 3, 64] {
        let found = JacobianProbe::new()
            .with_block(block)
            .run(|x| x.matmul(on(&w)), x.clone())
            .unwrap();
        assert_eq!(found.len(), 3);
        let expected: Vec<f32> = w.clone().transpose().into_data().iter().collect();
        for jacobian in found {
            assert_eq!(jacobian.dims(), [7, 5]);
            assert_eq!(jacobian.values(), expected);
        }
    }
}

/// `w` where an autodiff input is.
fn on<const D: usize>(w: &Tensor<D>) -> Tensor<D> {
    Tensor::from_inner(w.clone())
}

/// Equations 5 to 8 of the paper: x ← x + α w x, L times, has the slope (1 + αw)^L.
#[test]
fn of_the_toy_chain_it_is_its_closed_form() {
    let device = Device::flex();
    let (alpha, w, layers) = (0.1f64, 0.7f64, 40);
    let chain = |x: Tensor<2>| (0..layers).fold(x, |x, _| x.clone() + x * w * alpha);
    let x = Tensor::<2>::from_floats([[1.5]], &device);
    let found = one(JacobianProbe::new().run(chain, x)).values()[0];
    let expected = (1.0 + alpha * w).powi(layers);
    assert!((f64::from(found) / expected - 1.0).abs() < 1e-5);
}

/// A three-layer network in double precision, by hand.
fn by_hand(net: &Mlp, x: &[f64]) -> Vec<f64> {
    let mut x = x.to_vec();
    for layer in &net.layers {
        let w: Vec<f64> = layer.linear.weight.val().into_data().iter().collect();
        let b: Vec<f64> = layer
            .linear
            .bias
            .as_ref()
            .unwrap()
            .val()
            .into_data()
            .iter()
            .collect();
        let gate = layer.residual.rezero.as_ref().unwrap();
        let alpha: f64 = gate.alpha.val().into_scalar();
        let n = x.len();
        let y: Vec<f64> = (0..n)
            .map(|j| {
                let sum: f64 = (0..n).map(|i| x[i] * w[i * n + j]).sum();
                x[j] + alpha * (sum + b[j]).max(0.0)
            })
            .collect();
        x = y;
    }
    x
}

#[test]
fn of_a_network_it_is_central_differences_in_double_precision() {
    let device = Device::flex();
    let mut config = MlpConfig::new(4, 6, 3, 2);
    config.residual.rezero.alpha = 0.4;
    let net = config.init(&device);
    let x = random::<2>([1, 6], &device);
    let at: Vec<f64> = x.clone().into_data().iter().collect();
    let found = one(JacobianProbe::new()
        .with_block(4)
        .run_module(&net, |net, x| net.hidden(x), x));
    let h = 1e-6;
    for i in 0..6 {
        let moved = |by: f64| {
            let mut x = at.clone();
            x[i] += by;
            by_hand(&net, &x)
        };
        let (up, down) = (moved(h), moved(-h));
        for j in 0..6 {
            let expected = (up[j] - down[j]) / (2.0 * h);
            let found = f64::from(found.values()[j * 6 + i]);
            assert!(
                (found - expected).abs() < 1e-5,
                "{j} by {i}: {found} for {expected}"
            );
        }
    }
}

#[test]
fn a_new_rezero_network_has_singular_values_of_exactly_one() {
    let device = Device::flex();
    let net = MlpConfig::new(4, 32, 64, 2).init(&device);
    let encoder = RztxEncoderConfig::new(8, 16, 2, 20).init(&device);
    let causal = |x| encoder.forward(RztxEncoderInput::new(x).causal());
    let probe = JacobianProbe::new();
    let jacobians = [
        one(probe.run_module(&net, |net, x| net.hidden(x), random([1, 32], &device))),
        one(probe.run(causal, random([1, 5, 8], &device))),
    ];
    for jacobian in jacobians {
        let spectrum = jacobian.spectrum().unwrap();
        assert!(spectrum.values().iter().all(|s| *s == 1.0));
        let summary = spectrum.summary();
        assert_eq!(
            (summary.mean_square, summary.condition, summary.vanishing),
            (1.0, 1.0, 0.0)
        );
    }
}

#[test]
fn singular_values_are_those_of_the_construction() {
    // Two rotations around diag(3, 0.5), padded to 2 by 3.
    let (a, b) = (0.3f64, 1.1f64);
    let (u, v) = (
        [[a.cos(), -a.sin()], [a.sin(), a.cos()]],
        [[b.cos(), -b.sin()], [b.sin(), b.cos()]],
    );
    let sigma = [3.0, 0.5];
    let mut values = Vec::new();
    for row in u {
        for column in v {
            values.push((0..2).map(|k| row[k] * sigma[k] * column[k]).sum::<f64>() as f32);
        }
        values.push(0.0);
    }
    let spectrum = Jacobian::from_values(2, 3, values).spectrum().unwrap();
    assert_eq!(spectrum.values().len(), 2);
    for (found, expected) in spectrum.values().iter().zip(sigma) {
        assert!((found - expected).abs() < 1e-6);
    }
    let summary = spectrum.summary();
    assert!((summary.mean_square - 4.625).abs() < 1e-5);
    assert!((summary.condition - 6.0).abs() < 1e-5);
    let (_, median) = summary.log10_quantiles[3];
    assert!((median - 1.75f64.log10()).abs() < 1e-6);
    let pooled = Spectrum::pooled(&[spectrum.clone(), spectrum]);
    let histogram = pooled.histogram(-1.0, 0.0, 4);
    assert_eq!(
        (histogram.counts, histogram.below, histogram.above),
        (vec![0, 0, 2, 0], 0, 2)
    );
}

#[test]
fn what_does_not_depend_on_its_input_has_a_jacobian_of_zeros() {
    let device = Device::flex();
    let constant = |x: Tensor<2>| {
        let [n, _] = x.dims();
        Tensor::<2>::ones([n, 3], &x.device())
    };
    let jacobian = one(JacobianProbe::new().run(constant, random([1, 4], &device)));
    assert_eq!(
        (jacobian.dims(), jacobian.values()),
        ([3, 4], [0.0; 12].as_slice())
    );
    let summary = jacobian.spectrum().unwrap().summary();
    assert_eq!(
        (summary.count, summary.vanishing, summary.mean_square),
        (3, 1.0, 0.0)
    );
    assert!(summary.condition.is_nan());
    assert!(
        summary
            .log10_quantiles
            .iter()
            .all(|(_, v)| *v == f64::NEG_INFINITY)
    );
}

#[test]
fn what_is_not_finite_is_named() {
    let device = Device::flex();
    let mut net = MlpConfig::new(4, 6, 3, 2)
        .with_residual(scheme(ResidualScheme::Plain))
        .init(&device);
    let bad = Tensor::<1>::from_floats([0.0, f32::NAN, 0.0, 0.0, 0.0, 0.0], &device);
    net.layers[1].linear.bias = Some(Param::from_tensor(bad));
    let probe = JacobianProbe::new();
    let error = probe
        .run_module(&net, |net, x| net.hidden(x), random([1, 6], &device))
        .unwrap_err();
    let parameter = Some("layers.1.linear.bias".to_owned());
    assert!(
        matches!(&error, JacobianError::Output { parameter: p, .. } if *p == parameter),
        "{error:?}"
    );
    assert!(error.to_string().contains("layers.1.linear.bias"));
    // A root at 0 is finite, its slope is not.
    let error = probe
        .run(|x: Tensor<2>| x.sqrt(), Tensor::zeros([1, 2], &device))
        .unwrap_err();
    assert_eq!(error, JacobianError::Entry { row: 0, column: 0 });
}

#[test]
fn functions_that_mix_their_batch_are_refused() {
    let device = Device::flex();
    let x = random::<2>([1, 4], &device);
    let probe = JacobianProbe::new();
    let centred = |x: Tensor<2>| x.clone() - x.mean_dim(0);
    assert_eq!(
        probe.run(centred, x.clone()).unwrap_err(),
        JacobianError::NotIndependent
    );
    let summed = probe
        .run(|x: Tensor<2>| x.sum_dim(0), x.clone())
        .unwrap_err();
    assert_eq!(summed, JacobianError::Batch { given: 2, found: 1 });
    let empty = probe
        .run(|x: Tensor<2>| x, Tensor::zeros([0, 4], &device))
        .unwrap_err();
    assert_eq!(empty, JacobianError::Empty);

    // Batch norm takes the batch's statistics in training and keeps to its own without.
    let images = random::<4>([1, 3, 8, 8], &device);
    let net = CifarResNetConfig::new(8).init(&device.clone().autodiff());
    let training = probe.run_module(&net, |net, x| net.forward(x), images.clone());
    assert_eq!(training.unwrap_err(), JacobianError::NotIndependent);
    let plain = net.valid();
    let found = one(probe.run_module(&plain, |net, x| net.forward(x), images));
    assert_eq!(found.dims(), [10, 192]);
}
