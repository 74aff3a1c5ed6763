//! Vision Transformers against PyTorch: `fixtures/generate_vit.py`, computed in float64.

use burn::tensor::Device;
use rezero_nn::transformer::{Activation, RztxEncoderConfig};
use rezero_nn::vit::{PatchPositions, Pooling, Vit, VitConfig};
use rezero_nn::{ResidualConfig, ResidualScheme};

use super::backend::{device, every};
use super::by_path::{check_case, check_trajectory};
use super::support::Fixture;

/// Flex is within 2e-6 of the stored values; GELU by tanh for the exact one is above 1e-4, bilinear
/// for bicubic interpolation above 1e-2.
const CASE: f64 = 2e-5;

/// Twenty steps enlarge the difference in the last, small losses.
const TRAJECTORY: f64 = 1e-3;

fn fixture() -> Fixture {
    Fixture::parse(include_bytes!("fixtures/vit.safetensors"))
}

fn network(
    scheme: ResidualScheme,
    pooling: Pooling,
    positions: PatchPositions,
    device: &Device,
) -> Vit {
    let encoder = RztxEncoderConfig::new(8, 12, 2, 2)
        .with_dropout(0.0)
        .with_activation(Activation::Gelu)
        .with_residual(ResidualConfig::new(scheme));
    VitConfig::new(encoder, [8, 12], 4)
        .with_in_channels(2)
        .with_num_classes(4)
        .with_pooling(pooling)
        .with_positions(positions)
        .init(device)
}

#[cfg_attr(test, test)]
pub fn outputs_and_gradients_are_pytorchs() {
    let (fixture, device) = (fixture(), device().autodiff());
    let cases = fixture.cases().into_iter();
    let cases: Vec<String> = cases.filter(|c| !c.starts_with("trajectory")).collect();
    assert_eq!(cases.len(), 10);
    for case in cases.iter().step_by(every()) {
        let parts: Vec<&str> = case.split('.').collect();
        let [scheme, pooling, positions, _size] = parts[..] else {
            panic!("{case} has four parts");
        };
        let net = network(
            scheme.parse().expect("a scheme"),
            pooling.parse().expect("a pooling"),
            positions.parse().expect("a kind of positions"),
            &device,
        );
        check_case(&fixture, case, net, Vit::forward, CASE, &device);
    }
}

#[cfg_attr(test, test)]
pub fn twenty_steps_are_pytorchs() {
    let (fixture, device) = (fixture(), device().autodiff());
    for scheme in [ResidualScheme::ReZero, ResidualScheme::PreNorm] {
        let net = network(scheme, Pooling::Mean, PatchPositions::Learned, &device);
        let case = format!("trajectory.{scheme}");
        check_trajectory(&fixture, &case, net, Vit::forward, TRAJECTORY, &device);
    }
}
