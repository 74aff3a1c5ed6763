//! What every family of networks keeps, whatever it computes.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rezero_nn::mixer::MixerConfig;
use rezero_nn::resnet::{CifarResNetConfig, PreActDepth, PreActResNetConfig};
use rezero_nn::torch::{TorchNames, TorchWeights, export, load};
use rezero_nn::transformer::{RztxEncoderConfig, RztxLmConfig};
use rezero_nn::vit::VitConfig;
use rezero_nn::{Fold, Grow, MlpConfig, Place, gate_group, gates, parameter_count};

use crate::helpers::{bits, bytes, open_gates, paths, random, values};

/// A family, by a configuration of ReZero and a deeper one.
struct Family<C: Grow> {
    name: &'static str,
    config: C,
    deeper: C,
    init: fn(&C, &Device) -> C::Network,
    /// The output for a fixed input.
    forward: fn(&C::Network, &Device) -> Vec<f32>,
    /// Input and output of a hidden part that keeps the shape.
    hidden: fn(&C::Network, &Device) -> [Vec<u32>; 2],
    /// The number of parameters by formula.
    parameters: usize,
    /// The number of gates.
    gates: usize,
}

fn check<C: Grow>(family: &Family<C>)
where
    C::Network: Fold + TorchNames,
{
    let name = family.name;
    let device = Device::flex();
    let fresh = || (family.init)(&family.config, &device);
    let forward = |net: &C::Network| (family.forward)(net, &device);
    let net = fresh();

    let [input, output] = (family.hidden)(&net, &device);
    assert!(!input.is_empty());
    assert_eq!(output, input, "{name} is the identity at α = 0");

    assert_eq!(parameter_count(&net), family.parameters, "{name}");
    let found = gates(&net);
    assert_eq!(found.len(), family.gates, "{name}");
    let group = gate_group(&net);
    assert!(found.iter().all(|gate| group.matches(&gate.id, None)));

    let net = open_gates(net, 0.3, true);
    let before = forward(&net);
    assert!(before.iter().all(|value| value.is_finite()), "{name}");
    assert_ne!(
        before,
        forward(&open_gates(net.clone(), 0.6, true)),
        "{name}"
    );

    let again = fresh().try_load_record(net.clone().into_record()).unwrap();
    assert_eq!(forward(&again), before, "{name} after a record");
    assert_eq!(gates(&again), gates(&net), "{name} after a record");

    let again = travelled(&net, fresh());
    assert_eq!(forward(&again), before, "{name} after PyTorch's format");
    assert_eq!(paths(&again), paths(&net), "{name}");

    for place in [Place::End, Place::Even] {
        let deep = family.deeper.grow(net.clone(), place).unwrap();
        assert_eq!(forward(&deep), before, "{name} grown {place:?}");
        let new = gates(&deep);
        assert!(new.len() > family.gates, "{name}");
        let kept = gates(&net);
        assert!(kept.iter().all(|old| {
            let same = new.iter().find(|gate| gate.id == old.id);
            same.is_some_and(|gate| gate.raw == old.raw)
        }));
        let closed = new.iter().filter(|gate| gate.raw == [0.0]).count();
        assert_eq!(closed, new.len() - family.gates, "{name}");
    }

    let folded = net.fold();
    assert!(gates(&folded).is_empty(), "{name} folded");
    let largest = before
        .iter()
        .fold(0f32, |most, value| most.max(value.abs()));
    for (after, before) in forward(&folded).iter().zip(&before) {
        assert!(
            (after - before).abs() <= 1e-5 * largest,
            "{name} folded: {after} for {before}"
        );
    }
}

/// The same values for every network, of any size.
fn wave<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let n = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..n).map(|i| (1.3 * i as f32).sin()).collect();
    Tensor::<1>::from_floats(values.as_slice(), device).reshape(shape)
}

fn travelled<M: TorchNames>(net: &M, fresh: M) -> M {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), export(net, []).unwrap()).unwrap();
    load(fresh, &TorchWeights::open(file.path()).unwrap()).unwrap()
}

#[test]
fn mlps() {
    let config = |n| MlpConfig::new(12, 16, n, 4);
    check(&Family {
        name: "mlp",
        config: config(4),
        deeper: config(9),
        init: |config, device| config.init(device),
        forward: |net, device| values(net.forward(wave([3, 12], device))),
        hidden: |net, device| {
            let x = random([3, 16], device);
            [bits(x.clone()), bits(net.hidden(x))]
        },
        parameters: (12 + 1) * 16 + 4 * (16 * 16 + 16 + 1) + (16 + 1) * 4,
        gates: 4,
    });
}

#[test]
fn cifar_resnets() {
    let config = |depth| {
        CifarResNetConfig::new(depth)
            .with_in_channels(2)
            .with_num_classes(7)
    };
    let block = |c_in: usize, c_out: usize| 9 * c_out * (c_in + c_out) + 4 * c_out + 1;
    let stages = [(16, 16), (16, 32), (32, 64)];
    let blocks: usize = stages.map(|(c, d)| block(c, d) + block(d, d)).iter().sum();
    check(&Family {
        name: "cifar resnet",
        config: config(14),
        deeper: config(26),
        init: |config, device| config.init(device),
        forward: |net, device| values(net.forward(wave([2, 2, 16, 16], device))),
        hidden: |net, device| {
            let x = random([2, 16, 5, 7], device);
            [bits(x.clone()), bits(net.blocks[1].forward(x))]
        },
        parameters: 9 * 2 * 16 + 2 * 16 + blocks + (64 + 1) * 7,
        gates: 6,
    });
}

#[test]
fn preact_resnets() {
    let config = |depth| PreActResNetConfig::new(depth).with_in_channels(1);
    let block = |c: usize, d: usize| {
        let shortcut = if c == d { 0 } else { c * d };
        2 * (c + d) + 9 * d * (c + d) + shortcut + 1
    };
    let stages = [(64, 64), (64, 128), (128, 256), (256, 512)];
    let blocks: usize = stages.map(|(c, d)| block(c, d) + block(d, d)).iter().sum();
    check(&Family {
        name: "pre-activation resnet",
        config: config(PreActDepth::D18),
        deeper: config(PreActDepth::D34),
        init: |config, device| config.init(device),
        forward: |net, device| values(net.forward(wave([2, 1, 16, 16], device))),
        hidden: |net, device| {
            let x = random([2, 64, 5, 7], device);
            [bits(x.clone()), bits(net.blocks[1].forward(x))]
        },
        parameters: 9 * 64 + blocks + (512 + 1) * 10,
        gates: 8,
    });
}

/// Attention, a feed-forward branch of width 12 and one gate, at width 8.
const LAYER: usize = 4 * 8 * 8 + 4 * 8 + 2 * 8 * 12 + 12 + 8 + 1;

#[test]
fn encoders() {
    let config = |n| RztxEncoderConfig::new(8, 12, 2, n);
    check(&Family {
        name: "encoder",
        config: config(3),
        deeper: config(7),
        init: |config, device| config.init(device),
        forward: |net, device| values(net.forward(wave([2, 5, 8], device))),
        hidden: |net, device| {
            let x = random([2, 5, 8], device);
            [bits(x.clone()), bits(net.forward(x))]
        },
        parameters: 3 * LAYER,
        gates: 3,
    });
}

#[test]
fn language_models() {
    let config = |n| RztxLmConfig::new(RztxEncoderConfig::new(8, 12, 2, n), 6);
    check(&Family {
        name: "language model",
        config: config(3),
        deeper: config(7),
        init: |config, device| config.init(device),
        forward: |net, device| values(net.forward(bytes(2, 6, 1, device))),
        hidden: |net, device| {
            let x = random([2, 5, 8], device);
            [bits(x.clone()), bits(net.encoder.forward(x))]
        },
        parameters: 256 * 8 + 6 * 8 + 3 * LAYER + (8 + 1) * 256,
        gates: 3,
    });
}

#[test]
fn vision_transformers() {
    let config = |n| VitConfig::new(RztxEncoderConfig::new(8, 12, 2, n), [8, 12], 4);
    check(&Family {
        name: "vision transformer",
        config: config(3),
        deeper: config(7),
        init: |config, device| config.init(device),
        forward: |net, device| values(net.forward(wave([2, 3, 8, 12], device))),
        hidden: |net, device| {
            let x = random([2, 7, 8], device);
            [bits(x.clone()), bits(net.encoder.forward(x))]
        },
        // Patches, the class token, positions of six patches and the token, layers, head.
        parameters: (3 * 16 + 1) * 8 + 8 + 7 * 8 + 3 * LAYER + (8 + 1) * 10,
        gates: 3,
    });
}

#[test]
fn mlp_mixers() {
    let config = |n| MixerConfig::new(8, 5, 12, n, [8, 12], 4);
    let (tokens, channels) = (2 * 6 * 5 + 5 + 6, 2 * 8 * 12 + 12 + 8);
    check(&Family {
        name: "mlp-mixer",
        config: config(3),
        deeper: config(7),
        init: |config, device| config.init(device),
        forward: |net, device| values(net.forward(wave([2, 3, 8, 12], device))),
        hidden: |net, device| {
            let x = random([2, 6, 8], device);
            [bits(x.clone()), bits(net.hidden(x))]
        },
        parameters: (3 * 16 + 1) * 8 + 3 * (tokens + channels + 1) + (8 + 1) * 10,
        gates: 3,
    });
}
