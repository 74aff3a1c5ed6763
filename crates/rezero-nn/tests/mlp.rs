//! The fully connected network against its formula.

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Distribution, Tensor};
use rezero_nn::{MlpConfig, ResidualConfig, ResidualScheme, parameter_count};

fn input(device: &Device) -> Tensor<2> {
    Tensor::random([5, 12], Distribution::Normal(0.0, 1.0), device)
}

#[test]
fn a_new_network_is_its_first_and_last_layer() {
    let device = Device::flex();
    let mlp = MlpConfig::new(12, 16, 300, 3).init(&device).materialize();
    let x = input(&device);
    let expected = mlp.output.forward(mlp.input.forward(x.clone()));
    assert!(
        mlp.forward(x)
            .into_data()
            .iter::<f32>()
            .zip(expected.into_data().iter::<f32>())
            .all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(1.0))
    );
    let layers = 300 * (16 * 16 + 16 + 1);
    assert_eq!(parameter_count(&mlp), 12 * 16 + 16 + layers + 16 * 3 + 3);
}

#[test]
fn every_scheme_is_its_formula() {
    let device = Device::flex().autodiff();
    for scheme in [
        ResidualScheme::Plain,
        ResidualScheme::Sum,
        ResidualScheme::ReZero,
        ResidualScheme::PostNorm,
        ResidualScheme::PreNorm,
    ] {
        let mut residual = ResidualConfig::new(scheme);
        residual.rezero.alpha = 0.3;
        let mlp = MlpConfig::new(12, 16, 4, 3)
            .with_residual(residual)
            .init(&device);
        let x = input(&device);
        let mut y = mlp.input.forward(x.clone());
        for layer in &mlp.layers {
            let branch = |x: Tensor<2>| relu(layer.linear.forward(x));
            let norm = |x: Tensor<2>| layer.residual.norm.as_ref().unwrap().forward(x);
            y = match scheme {
                ResidualScheme::Plain => branch(y),
                ResidualScheme::Sum => y.clone() + branch(y),
                ResidualScheme::ReZero => y.clone() + branch(y) * 0.3,
                ResidualScheme::PostNorm => norm(y.clone() + branch(y)),
                _ => y.clone() + branch(norm(y)),
            };
        }
        if let Some(norm) = &mlp.norm {
            y = norm.forward(y);
        }
        let expected = mlp.output.forward(y).into_data();
        let found = mlp.forward(x).into_data();
        for (found, expected) in found.iter::<f32>().zip(expected.iter::<f32>()) {
            let error = (found - expected).abs() / expected.abs().max(1.0);
            assert!(error < 1e-5, "{scheme:?}: {found} for {expected}");
        }
    }
}

#[test]
#[should_panic(expected = "d_input, width and num_classes must be greater than zero")]
fn a_width_of_zero_is_refused() {
    MlpConfig::new(12, 0, 4, 3).init(&Device::flex());
}
