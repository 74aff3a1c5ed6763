//! Parameter counts against PyTorch.

use burn::tensor::Device;
use rezero_nn::resnet::{CifarResNetConfig, Definition, PreActDepth, PreActResNetConfig};
use rezero_nn::{ResidualConfig, ResidualScheme, parameter_count};
use serde_json::Value;

use crate::support::Named;

fn counts() -> Value {
    serde_json::from_str(include_str!("fixtures/counts.json")).expect("counts.json is JSON")
}

/// The members of a JSON object.
fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let object = value.as_object().expect("an object");
    assert!(!object.is_empty());
    object.iter().map(|(key, value)| (key.as_str(), value))
}

/// The sum over all slots that PyTorch has a parameter for.
fn named_parameters(net: &mut impl Named) -> u64 {
    let slots = net.slots().into_iter().filter(|(_, slot)| slot.is_param());
    slots
        .map(|(_, slot)| slot.shape().iter().product::<usize>() as u64)
        .sum()
}

#[test]
fn cifar_resnets() {
    let device = Device::flex();
    let mut compared = 0;
    for (definition, depths) in members(&counts()["cifar"]) {
        for (depth, arms) in members(depths) {
            for (arm, count) in members(arms) {
                let config = CifarResNetConfig::new(depth.parse().expect("a depth"))
                    .with_definition(definition.parse::<Definition>().expect("a definition"))
                    .with_residual(ResidualConfig::new(match arm {
                        "vanilla" => ResidualScheme::Residual,
                        "zero_gamma" => ResidualScheme::ZeroGamma,
                        "rezero" => ResidualScheme::ReZero,
                        "gated" => ResidualScheme::Gated,
                        "fixup" => ResidualScheme::FixUp,
                        "skipinit" => ResidualScheme::SkipInit,
                        other => panic!("no arm {other}"),
                    }));
                let mut net = config.init(&device);
                let label = format!("ResNet-{depth} {arm} {definition}");
                let count = count.as_u64().expect("a count");
                assert_eq!(parameter_count(&net) as u64, count, "{label}");
                assert_eq!(named_parameters(&mut net), count, "{label}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 2 * 6 * 6);
}

#[test]
fn preact_resnets() {
    let device = Device::flex();
    let mut compared = 0;
    for (depth, arms) in members(&counts()["preact"]) {
        for (arm, count) in members(arms) {
            let config = PreActResNetConfig::new(depth.parse::<PreActDepth>().expect("a depth"))
                .with_residual(ResidualConfig::new(match arm {
                    "vanilla" => ResidualScheme::Residual,
                    "rezero" => ResidualScheme::ReZero,
                    other => panic!("no arm {other}"),
                }));
            let mut net = config.init(&device);
            let count = count.as_u64().expect("a count");
            assert_eq!(parameter_count(&net) as u64, count, "{depth} {arm}");
            assert_eq!(named_parameters(&mut net), count, "{depth} {arm}");
            compared += 1;
        }
    }
    assert_eq!(compared, 3 * 2);
}
