//! What the theory says of networks at initialisation, exactly.

use burn::module::Param;
use burn::nn::{LinearConfig, Relu};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor};
use rezero_nn::resnet::{
    BasicBlock, CifarResNetConfig, Definition, PreActDepth, PreActResNetConfig,
};
use rezero_nn::{ReZeroConfig, ResidualScheme, gates};

use crate::helpers::{bits, paths, random, scheme, values};

/// The first block of the second stage changes the shape; the one after it keeps it.
fn block(rule: ResidualScheme, device: &Device) -> BasicBlock {
    let config = CifarResNetConfig::resnet20().with_residual(scheme(rule));
    let net = config.init(device);
    net.blocks.into_iter().nth(4).unwrap()
}

#[test]
fn a_rezero_block_returns_its_input_bit_for_bit() {
    let device = Device::flex();
    for device in [device.clone(), device.autodiff()] {
        let x = random([3, 32, 7, 9], &device);
        for rule in [ResidualScheme::ReZero, ResidualScheme::Gated] {
            assert_eq!(
                bits(block(rule, &device).forward(x.clone())),
                bits(x.clone())
            );
        }
        let pre = PreActResNetConfig::new(PreActDepth::D18).init(&device);
        let x = random([2, 64, 5, 6], &device);
        assert_eq!(bits(pre.blocks[1].forward(x.clone())), bits(x));
    }
}

#[test]
fn skipinit_and_fixup_blocks_start_as_a_relu() {
    let device = Device::flex();
    let x = random([3, 32, 7, 9], &device);
    let relu: Vec<f32> = values(x.clone()).into_iter().map(|v| v.max(0.0)).collect();
    for rule in [
        ResidualScheme::SkipInit,
        ResidualScheme::FixUp,
        ResidualScheme::ZeroGamma,
    ] {
        assert_eq!(
            values(block(rule, &device).forward(x.clone())),
            relu,
            "{rule}"
        );
    }
}

#[test]
fn at_zero_the_branch_has_no_gradient_and_the_gate_has_sum_g_times_f() {
    let device = Device::flex().autodiff();
    let linear = LinearConfig::new(13, 13).init(&device);
    let block = ReZeroConfig::new().init_block((linear, Relu::new()), &device);
    let x = random([5, 13], &device);
    let g = random::<2>([5, 13], &device);

    let grads = (block.forward(x.clone()) * g.clone()).sum().backward();

    let weight = block.branch.0.weight.grad(&grads).unwrap();
    assert!(values(weight).iter().all(|v| *v == 0.0));
    let bias = block.branch.0.bias.as_ref().unwrap().grad(&grads).unwrap();
    assert!(values(bias).iter().all(|v| *v == 0.0));
    let found = values(block.rezero.alpha.grad(&grads).unwrap())[0];
    let f = values(block.branch.1.forward(block.branch.0.forward(x)));
    let expected: f64 = f
        .iter()
        .zip(values(g))
        .map(|(f, g)| f64::from(*f) * f64::from(g))
        .sum();
    // A sum of 65 products in f32 against the same in f64.
    assert!((f64::from(found) - expected).abs() < 1e-4 * expected.abs().max(1.0));
}

#[test]
fn a_network_learns_its_gates_first() {
    let device = Device::flex().autodiff();
    let net = CifarResNetConfig::resnet20().init(&device);
    let grads = net
        .forward(random([4, 3, 32, 32], &device))
        .square()
        .mean()
        .backward();
    for (i, block) in net.blocks.iter().enumerate() {
        let conv = block.branch.conv1.weight.grad(&grads).unwrap();
        assert!(values(conv).iter().all(|v| *v == 0.0), "block {i}");
        let gate = block.residual.rezero.as_ref().unwrap();
        assert!(
            values(gate.alpha.grad(&grads).unwrap())[0] != 0.0,
            "block {i}"
        );
    }
}

#[test]
fn a_1202_layer_network_is_finite_with_a_loss_near_ln_10() {
    let device = Device::flex();
    for definition in [Definition::Notebook, Definition::Table] {
        let net = CifarResNetConfig::resnet1202()
            .with_definition(definition)
            .init(&device);
        assert_eq!(net.depth(), 1202);
        let logits = net.forward(random([1, 3, 32, 32], &device));
        assert!(values(logits.clone()).iter().all(|v| v.is_finite()));
        let loss = -values(log_softmax(logits, 1)).iter().sum::<f32>() / 10.0;
        // ln 10 is the least that this mean over all classes can be; how far above it lies is the
        // spread of the first logits, which a network of 8 layers shares.
        assert!((2.302..3.3).contains(&loss), "{definition:?}: {loss}");
    }
}

#[test]
fn fixup_starts_with_a_loss_of_exactly_ln_10() {
    let device = Device::flex();
    let net = CifarResNetConfig::resnet20()
        .with_residual(scheme(ResidualScheme::FixUp))
        .init(&device);
    let logits = net.forward(random([2, 3, 32, 32], &device));
    assert!(values(logits).iter().all(|v| *v == 0.0));
}

#[test]
fn a_frozen_gate_gets_no_gradient() {
    let device = Device::flex().autodiff();
    let gate = ReZeroConfig::new()
        .with_alpha(0.5)
        .with_trainable(false)
        .init(&device);
    let x = random::<2>([2, 3], &device).require_grad();
    let grads = gate.forward(x.clone(), |x| x * 2.0).sum().backward();
    assert!(gate.alpha.grad(&grads).is_none());
    assert_eq!(values(x.grad(&grads).unwrap()), [2.0; 6]);
}

#[test]
fn a_gate_per_channel_scales_its_axis() {
    let device = Device::flex();
    let mut gate = ReZeroConfig::new().init_channels(2, 1, &device);
    gate.alpha = Param::from_data([1.0, -3.0], &device);
    let x = Tensor::<4>::ones([1, 2, 1, 2], &device);
    assert_eq!(values(gate.forward(x, |x| x)), [2.0, 2.0, -2.0, -2.0]);
    gate.channel_axis = 2;
    let x = Tensor::<3>::ones([1, 2, 2], &device);
    assert_eq!(values(gate.forward(x, |x| x)), [2.0, -2.0, 2.0, -2.0]);

    let net = CifarResNetConfig::new(8)
        .with_residual(scheme(ResidualScheme::ReZero).with_per_channel(true))
        .init(&device);
    let sizes: Vec<usize> = gates(&net).iter().map(|gate| gate.raw.len()).collect();
    assert_eq!(sizes, [16, 32, 64]);
}

#[test]
fn a_gated_block_mixes_branch_and_skip() {
    let device = Device::flex();
    let mut block = block(ResidualScheme::Gated, &device);
    let x = random([2, 32, 4, 4], &device);
    let gate = block.residual.rezero.as_mut().unwrap();
    gate.alpha = Param::from_data([1.0], &device);
    // At α = 1 nothing of the skip path is left, and the branch ends in a ReLU.
    let y = values(block.forward(x));
    assert!(y.iter().all(|v| *v >= 0.0) && y.iter().any(|v| *v > 0.0));
    assert_eq!(block.residual.scheme, ResidualScheme::Gated);
}

#[test]
#[should_panic(
    expected = "depth must be 6n+2 with n >= 1 (8, 14, 20, 32, 44, 56, 110, 1202), got 21."
)]
fn a_depth_that_is_not_6n_plus_2_is_refused() {
    CifarResNetConfig::new(21).init(&Device::flex());
}

#[test]
#[should_panic(expected = "a ReZero branch must keep the shape of its input")]
fn a_branch_that_changes_the_shape_is_refused() {
    let device = Device::flex();
    let gate = ReZeroConfig::new().init(&device);
    gate.forward(random::<2>([2, 3], &device), |x| x.narrow(1, 0, 1));
}

#[test]
#[should_panic(expected = "channels must be greater than zero")]
fn zero_channels_are_refused() {
    ReZeroConfig::new().init_channels(0, 1, &Device::flex());
}

#[test]
fn modules_print_what_they_are() {
    let device = Device::flex();
    let gate = ReZeroConfig::new().init(&device);
    assert_eq!(gate.to_string(), "ReZero {channels: 1, params: 1}");
    let gate = ReZeroConfig::new().init_channels(5, 1, &device);
    assert_eq!(
        gate.to_string(),
        "ReZero {channels: 5, channel_axis: 1, params: 5}"
    );
    let net = CifarResNetConfig::resnet20().init(&device);
    // `params` is burn's count, which has batch norm's running statistics in it.
    assert_eq!(
        net.to_string(),
        "CifarResNet {depth: 20, scheme: ReZero, num_classes: 10, trainable: 269731, params: 271107}"
    );
    let net = PreActResNetConfig::new(PreActDepth::D50).init(&device);
    assert!(
        net.to_string()
            .starts_with("PreActResNet {depth: 50, num_classes: 10, trainable: ")
    );
}

#[test]
fn parameter_paths_are_the_checkpoint_contract() {
    let device = Device::flex();
    let norm =
        |at: &str| ["gamma", "beta", "running_mean", "running_var"].map(|n| format!("{at}.{n}"));
    let branch = |i: usize| {
        let at = format!("blocks.{i}.branch");
        let mut all = vec![format!("{at}.conv1.weight")];
        all.extend(norm(&format!("{at}.norm1")));
        all.push(format!("{at}.conv2.weight"));
        all.extend(norm(&format!("{at}.norm2")));
        all
    };
    let mut expected = vec!["conv.weight".to_owned()];
    expected.extend(norm("norm"));
    for i in 0..3 {
        expected.extend(branch(i));
        if i > 0 {
            expected.extend(norm(&format!("blocks.{i}.shortcut.norm")));
        }
        expected.push(format!("blocks.{i}.residual.rezero.alpha"));
    }
    expected.extend(["linear.weight".to_owned(), "linear.bias".to_owned()]);
    let net = CifarResNetConfig::new(8)
        .with_definition(Definition::Table)
        .init(&device);
    assert_eq!(paths(&net), expected);

    let net = CifarResNetConfig::new(8)
        .with_residual(scheme(ResidualScheme::FixUp))
        .init(&device);
    let found = paths(&net);
    let fixup: Vec<&str> = found
        .iter()
        .filter_map(|p| p.strip_prefix("blocks.0."))
        .collect();
    assert_eq!(
        fixup,
        [
            "branch.conv1.weight",
            "branch.conv2.weight",
            "branch.fixup.bias1a",
            "branch.fixup.bias1b",
            "branch.fixup.bias2a",
            "branch.fixup.scale",
            "branch.fixup.bias2b",
        ]
    );
    let net = PreActResNetConfig::new(PreActDepth::D18).init(&device);
    let found = paths(&net);
    for path in [
        "blocks.2.norms.1.gamma",
        "blocks.2.convs.0.weight",
        "blocks.2.shortcut.weight",
    ] {
        assert!(found.iter().any(|p| p == path), "{path}");
    }
}
