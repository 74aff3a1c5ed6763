//! Gates: their values, how they are found, and an optimizer of their own.

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig, PRelu, PReluConfig};
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::{AdaGradConfig, GradientsParams, SgdConfig};
use burn::tensor::{Device, Tensor};
use rezero_nn::resnet::CifarResNetConfig;
use rezero_nn::transformer::RztxEncoderConfig;
use rezero_nn::{
    Gate, ReZero, ReZeroBlock, ReZeroConfig, ResidualScheme, gate_group, gates, not_finite,
};

use crate::helpers::{bits, random, scheme, values};

#[test]
fn a_bounded_gate_is_c_tanh_of_alpha_over_c() {
    let device = Device::flex();
    let gate = ReZeroConfig::new()
        .with_alpha(3.0)
        .with_bound(Some(0.5))
        .init(&device);
    let y = gate.forward(Tensor::<1>::zeros([1], &device), |x| x + 1.0);
    let expected = 0.5 * (3.0f32 / 0.5).tanh();
    assert!((values(y)[0] - expected).abs() < 1e-6);
    // At 0 its slope is α's own.
    let device = device.autodiff();
    let gate = ReZeroConfig::new().with_bound(Some(0.5)).init(&device);
    let y = gate.forward(Tensor::<1>::zeros([1], &device), |x| x + 1.0);
    let gradient = gate.alpha.val().grad(&y.sum().backward()).unwrap();
    assert_eq!(values(gradient), [1.0]);
}

/// Gates, and parameters that are called `alpha` beside them.
#[derive(Module, Debug)]
struct Mixed {
    first: ReZeroBlock<Linear>,
    slopes: PRelu,
    alpha: Param<Tensor<1>>,
    bounded: ReZero,
    channels: Option<ReZero>,
}

fn mixed(device: &Device) -> Mixed {
    let linear = LinearConfig::new(4, 4).init(device);
    let config = ReZeroConfig::new().with_alpha(2.0);
    Mixed {
        first: config.init_block(linear, device),
        slopes: PReluConfig::new().init(device),
        alpha: Param::from_data([7.0], device),
        bounded: config.with_bound(Some(0.1)).init(device),
        channels: Some(ReZeroConfig::new().init_channels(3, 1, device)),
    }
}

#[test]
fn gates_are_told_by_their_module() {
    let net = mixed(&Device::flex());
    let found = gates(&net);
    let paths: Vec<&str> = found.iter().map(|gate| gate.path.as_str()).collect();
    assert_eq!(
        paths,
        ["first.rezero.alpha", "bounded.alpha", "channels.alpha"]
    );
    assert_eq!(found[0].id, net.first.rezero.alpha.id);
    assert_eq!(
        (&found[0].raw, &found[0].effective),
        (&vec![2.0], &vec![2.0])
    );
    assert_eq!(found[1].raw, [2.0]);
    let effective = values(net.bounded.effective());
    assert!((found[1].effective[0] - effective[0]).abs() < 1e-7);
    assert!(found[1].effective[0] < 0.1 + 1e-6);
    assert_eq!(
        (&found[2].raw, &found[2].effective),
        (&vec![0.0; 3], &vec![0.0; 3])
    );
}

#[test]
fn the_group_holds_every_gate_and_nothing_else() {
    let net = mixed(&Device::flex());
    let group = gate_group(&net);
    let slopes = &net.slopes.alpha;
    for (id, path, expected) in [
        (net.first.rezero.alpha.id, "first.rezero.alpha", true),
        (net.bounded.alpha.id, "bounded.alpha", true),
        (slopes.id, "slopes.alpha", false),
        (net.alpha.id, "alpha", false),
        (net.first.branch.weight.id, "first.branch.weight", false),
    ] {
        assert_eq!(group.matches(&id, Some(path)), expected, "{path}");
        // The path is not looked at.
        assert_eq!(group.matches(&id, None), expected, "{path}");
    }
}

#[test]
fn networks_have_their_gates_in_forward_order() {
    let device = Device::flex();
    let paths =
        |found: Vec<Gate>| -> Vec<String> { found.into_iter().map(|gate| gate.path).collect() };
    let net = CifarResNetConfig::new(8).init(&device);
    assert_eq!(
        paths(gates(&net)),
        [0, 1, 2].map(|i| format!("blocks.{i}.residual.rezero.alpha"))
    );
    // A bound is part of every gate of a network.
    let gate = ReZeroConfig::new().with_alpha(3.0).with_bound(Some(0.5));
    let encoder = RztxEncoderConfig::new(8, 12, 2, 2)
        .with_residual(scheme(ResidualScheme::SkipInit).with_rezero(gate))
        .init(&device);
    let found = gates(&encoder);
    assert_eq!(found.len(), 4);
    for gate in found {
        let expected = 0.5 * (3.0f32 / 0.5).tanh();
        assert!((gate.effective[0] - expected).abs() < 1e-6, "{}", gate.path);
        assert_eq!(gate.raw, [3.0]);
    }
}

#[test]
fn a_group_of_their_own_gives_gates_their_own_optimizer() {
    let device = Device::flex().autodiff();
    let linear: Linear = LinearConfig::new(4, 4).init(&device);
    let block = ReZeroConfig::new()
        .with_alpha(1.0)
        .init_block(linear, &device);
    let net = (block, PReluConfig::new().init(&device));
    let weight = bits(net.0.branch.weight.val());
    let slope = values(net.1.alpha.val())[0];
    let y = net.1.forward(net.0.forward(random::<2>([3, 4], &device)));
    let grads = GradientsParams::from_grads(y.square().sum().backward(), &net);
    // The first step of AdaGrad has the size of the learning rate; that of SGD has not.
    let mut optimizer =
        SgdConfig::new()
            .init()
            .with_group(gate_group(&net), AdaGradConfig::new().build(), None);
    let stepped = optimizer.step(ModuleLearningRate::from(0.1), net.clone(), grads);
    let moved = (values(stepped.0.rezero.alpha.val())[0] - 1.0).abs();
    assert!((moved - 0.1).abs() < 1e-4, "{moved}");
    let moved = (values(stepped.1.alpha.val())[0] - slope).abs();
    assert!(
        (moved - 0.1).abs() > 1e-3,
        "a PReLU's slope is no gate: {moved}"
    );
    assert_ne!(bits(stepped.0.branch.weight.val()), weight);
}

#[test]
fn the_first_parameter_that_is_not_finite_is_named() {
    let device = Device::flex();
    let mut net = mixed(&device);
    assert_eq!(not_finite(&net), None);
    net.bounded.alpha = Param::from_data([f32::NAN], &device);
    assert_eq!(not_finite(&net).as_deref(), Some("bounded.alpha"));
}
