//! The fully connected networks against PyTorch: `fixtures/generate_mlp.py`, computed in float64.

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{Device, Gradients, Int, Tensor};
use rezero_nn::{Mlp, MlpConfig, Norm, ResidualConfig, ResidualScheme};

use super::backend::device;
use super::support::{Array, Checks, Fixture, cross_entropy};

static FIXTURE: &[u8] = include_bytes!("fixtures/mlp.safetensors");
const ARMS: [(&str, ResidualScheme); 7] = [
    ("vanilla", ResidualScheme::Plain),
    ("residual", ResidualScheme::Residual),
    ("layer-norm", ResidualScheme::PlainSharedNorm),
    ("rezero", ResidualScheme::ReZero),
    ("layer-norm-each", ResidualScheme::PlainNorm),
    ("pre-norm", ResidualScheme::PreNorm),
    ("post-norm", ResidualScheme::PostNorm),
];

fn set_linear(linear: &mut Linear, weight: Array, bias: Array, device: &Device) {
    let weight: Tensor<2> = weight.tensor(device);
    linear.weight = Param::from_data(weight.transpose().into_data(), device);
    linear.bias = Some(Param::from_tensor(bias.tensor(device)));
}

fn set_norm(norm: &mut Norm, weight: Array, bias: Array, device: &Device) {
    let norm = norm.layer_norm.as_mut().expect("a layer norm");
    norm.gamma = Param::from_tensor(weight.tensor(device));
    norm.beta = Some(Param::from_tensor(bias.tensor(device)));
}

fn check(fixture: &Fixture, arm: &str, mut net: Mlp, device: &Device) {
    let param = |name: &str| fixture.get(&format!("{arm}/param/{name}"));
    let both = |name: &str| {
        (
            param(&format!("{name}.weight")),
            param(&format!("{name}.bias")),
        )
    };
    let linear = |linear: &mut Linear, name: &str| {
        let (weight, bias) = both(name);
        set_linear(linear, weight, bias, device);
    };
    linear(&mut net.input, "input");
    linear(&mut net.output, "output");
    for (i, layer) in net.layers.iter_mut().enumerate() {
        linear(&mut layer.linear, &format!("layers.{i}"));
        if let Some(gate) = &mut layer.residual.rezero {
            let alpha = param("alpha").values[i];
            gate.alpha = Param::from_tensor(Tensor::from_floats([alpha], device));
        }
        if let Some(norm) = &mut layer.residual.norm {
            let (weight, bias) = both(&format!("norms.{i}"));
            set_norm(norm, weight, bias, device);
        }
    }
    for norm in [&mut net.shared_norm, &mut net.norm].into_iter().flatten() {
        let (weight, bias) = both("norm");
        set_norm(norm, weight, bias, device);
    }

    let get = |key: &str| fixture.get(&format!("{arm}/{key}"));
    let x = get("input").tensor::<2>(device).require_grad();
    let targets: Vec<i64> = get("targets").values.iter().map(|v| *v as i64).collect();
    let targets = Tensor::<1, Int>::from_ints(targets.as_slice(), device);
    let logits = net.forward(x.clone());
    let loss = cross_entropy(logits.clone(), targets);
    let gradients = loss.backward();
    let mut checks = Checks::new(1e-5);
    checks.near("logits", &Array::of(logits), &get("logits"));
    checks.near("loss", &Array::of(loss), &get("loss"));
    let gradient = x.grad(&gradients).expect("a gradient");
    checks.near("grad_input", &Array::of(gradient), &get("grad_input"));
    let mut linear = |linear: &Linear, name: &str| {
        let weight = grad(&linear.weight, &gradients).transpose();
        let bias = grad(linear.bias.as_ref().expect("a bias"), &gradients);
        let (w, b) = (format!("grad/{name}.weight"), format!("grad/{name}.bias"));
        checks.near(&w, &Array::of(weight), &get(&w));
        checks.near(&b, &Array::of(bias), &get(&b));
    };
    linear(&net.input, "input");
    linear(&net.output, "output");
    for (i, layer) in net.layers.iter().enumerate() {
        linear(&layer.linear, &format!("layers.{i}"));
    }
    let gates: Vec<Tensor<1>> = net
        .layers
        .iter()
        .filter_map(|layer| Some(grad(&layer.residual.rezero.as_ref()?.alpha, &gradients)))
        .collect();
    if !gates.is_empty() {
        checks.near(
            "grad/alpha",
            &Array::of(Tensor::cat(gates, 0)),
            &get("grad/alpha"),
        );
    }
    let each = net.layers.iter().enumerate();
    let each = each.filter_map(|(i, l)| Some((format!("norms.{i}"), l.residual.norm.as_ref()?)));
    let one = [&net.shared_norm, &net.norm].into_iter().flatten();
    for (name, norm) in each.chain(one.map(|norm| ("norm".to_owned(), norm))) {
        let norm = norm.layer_norm.as_ref().expect("a layer norm");
        let beta = norm.beta.as_ref().expect("a bias");
        let (w, b) = (format!("grad/{name}.weight"), format!("grad/{name}.bias"));
        checks.near(&w, &Array::of(grad(&norm.gamma, &gradients)), &get(&w));
        checks.near(&b, &Array::of(grad(beta, &gradients)), &get(&b));
    }
    checks.finish(arm);
}

fn grad<const D: usize>(param: &Param<Tensor<D>>, gradients: &Gradients) -> Tensor<D> {
    param.val().grad(gradients).expect("a gradient")
}

#[cfg_attr(test, test)]
pub fn every_arm_is_pytorchs() {
    let device = device().autodiff();
    let fixture = Fixture::parse(FIXTURE);
    let known: Vec<&str> = ARMS.iter().map(|(name, _)| *name).collect();
    assert!(
        fixture
            .cases()
            .iter()
            .all(|case| known.contains(&case.as_str()))
    );
    for (name, scheme) in ARMS {
        let net = MlpConfig::new(12, 8, 3, 4)
            .with_residual(ResidualConfig::new(scheme))
            .init(&device);
        check(&fixture, name, net, &device);
    }
}

/// The notebook's variances: 2 / d_input, gain² / width, and PyTorch's U(±1/√fan_in) elsewhere.
#[cfg_attr(test, test)]
pub fn weights_are_drawn_as_the_notebook_draws_them() {
    let device = device();
    device.seed(7);
    for (scheme, expected) in [
        (ResidualScheme::ReZero, 2.0),
        (ResidualScheme::Plain, 2.0),
        (ResidualScheme::Residual, 0.25),
    ] {
        let net = MlpConfig::new(300, 200, 4, 10)
            .with_residual(ResidualConfig::new(scheme))
            .init(&device);
        let variance = |x: Tensor<2>| x.square().mean().into_scalar::<f64>();
        let close = |found: f64, expected: f64| (found / expected - 1.0).abs() < 0.03;
        assert!(close(variance(net.input.weight.val()), 2.0 / 300.0));
        for layer in &net.layers {
            assert!(
                close(variance(layer.linear.weight.val()), expected / 200.0),
                "{scheme}"
            );
            let bias = layer
                .linear
                .bias
                .as_ref()
                .unwrap()
                .val()
                .abs()
                .max()
                .into_scalar::<f64>();
            let limit = 1.0 / 200f64.sqrt();
            assert!(bias <= limit && bias > 0.9 * limit);
        }
        let largest = net.output.weight.val().abs().max().into_scalar::<f64>();
        assert!(largest <= 1.0 / 200f64.sqrt() && largest > 0.98 / 200f64.sqrt());
    }
}
