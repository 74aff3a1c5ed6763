//! MLP-Mixers against PyTorch: `fixtures/generate_mixer.py`, computed in float64.

use burn::tensor::Device;
use rezero_nn::mixer::{Mixer, MixerConfig};
use rezero_nn::{ResidualConfig, ResidualScheme};

use super::backend::{device, every};
use super::by_path::{check_case, check_trajectory};
use super::support::Fixture;

const CASE: f64 = 2e-5;

/// Twenty steps enlarge the difference in the last, small losses.
const TRAJECTORY: f64 = 1e-3;

fn fixture() -> Fixture {
    Fixture::parse(include_bytes!("fixtures/mixer.safetensors"))
}

fn network(scheme: ResidualScheme, device: &Device) -> Mixer {
    MixerConfig::new(8, 5, 12, 2, [8, 12], 4)
        .with_in_channels(2)
        .with_num_classes(4)
        .with_residual(ResidualConfig::new(scheme))
        .init(device)
}

#[cfg_attr(test, test)]
pub fn outputs_and_gradients_are_pytorchs() {
    let (fixture, device) = (fixture(), device().autodiff());
    let cases = fixture.cases().into_iter();
    let cases: Vec<String> = cases.filter(|c| !c.starts_with("trajectory")).collect();
    assert_eq!(cases.len(), 5);
    for case in cases.iter().step_by(every()) {
        let net = network(case.parse().expect("a scheme"), &device);
        check_case(&fixture, case, net, Mixer::forward, CASE, &device);
    }
}

#[cfg_attr(test, test)]
pub fn twenty_steps_are_pytorchs() {
    let (fixture, device) = (fixture(), device().autodiff());
    for scheme in [ResidualScheme::ReZero, ResidualScheme::PreNorm] {
        let case = format!("trajectory.{scheme}");
        let net = network(scheme, &device);
        check_trajectory(&fixture, &case, net, Mixer::forward, TRAJECTORY, &device);
    }
}
