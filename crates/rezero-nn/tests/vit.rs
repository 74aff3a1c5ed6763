//! Vision Transformers: sizes, positions on other grids, half precision, initial weights.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, FloatDType, Tensor};
use rezero_nn::transformer::RztxEncoderConfig;
use rezero_nn::vit::{PatchPositions, Pooling, VitConfig};
use rezero_nn::{
    Fold, Grow, GrowError, Place, ResidualConfig, ResidualScheme, gates, in_precision,
    parameter_count,
};

use crate::helpers::{bits, near, open_gates, random, scheme, values};

fn small() -> VitConfig {
    let encoder = RztxEncoderConfig::new(8, 12, 2, 3).with_dropout(0.0);
    VitConfig::new(encoder, [8, 12], 4)
}

/// The numbers of DeiT's paper (5, 22 and 86 million) to the last digit, which are those of the
/// pre-norm networks `vit_tiny_patch16_224`, `vit_small_patch16_224` and `vit_base_patch16_224` of
/// the library timm.
#[test]
fn presets_have_the_published_sizes() {
    let device = Device::flex();
    for (config, published) in [
        (VitConfig::tiny_224(), 5_717_416),
        (VitConfig::small_224(), 22_050_664),
        (VitConfig::base_224(), 86_567_656),
    ] {
        let mut pre_norm = config.clone();
        pre_norm.encoder.residual = scheme(ResidualScheme::PreNorm);
        assert_eq!(parameter_count(&pre_norm.init(&device)), published);
        // Without two norms for each layer and one at the end, with one α for each layer.
        let d = config.encoder.d_model;
        let rezero = published - 12 * 4 * d - 2 * d + 12;
        assert_eq!(parameter_count(&config.init(&device)), rezero);
    }
    let d = 192;
    let layer = 12 * d * d + 13 * d - 4 * d + 1;
    let tiny = (3 * 16 + 1) * d + d + (64 + 1) * d + 12 * layer + (d + 1) * 10;
    assert_eq!(parameter_count(&VitConfig::tiny_32().init(&device)), tiny);
}

/// Every scheme, pooling and kind of positions: finite logits that depend on the image once gates
/// are open, and for images of any size.
#[test]
fn every_combination_takes_images_of_any_size() {
    let device = Device::flex();
    for &rule in RztxEncoderConfig::SCHEMES {
        for &pooling in Pooling::ALL {
            for &positions in PatchPositions::ALL {
                let mut config = small().with_pooling(pooling).with_positions(positions);
                config.encoder.residual = scheme(rule);
                let net = open_gates(config.init(&device), 0.4, false);
                for [height, width] in [[8, 12], [12, 8], [4, 4], [20, 16]] {
                    let x = random::<4>([2, 3, height, width], &device);
                    let logits = values(net.forward(x));
                    assert_eq!(logits.len(), 20);
                    assert!(logits.iter().all(|v| v.is_finite()));
                    assert_ne!(logits[..10], logits[10..], "{rule} {pooling} {positions}");
                }
            }
        }
    }
}

/// Interpolating the table once gives the network that interpolates in every call, and its table
/// learns.
#[test]
fn another_image_size() {
    let device = Device::flex().autodiff();
    for &pooling in Pooling::ALL {
        let net = open_gates(small().with_pooling(pooling).init(&device), 0.3, true);
        let x = random::<4>([2, 3, 16, 8], &device);
        let before = net.forward(x.clone());
        let resized = net.with_image_size([16, 8]);
        assert_eq!(resized.grid, [4, 2]);
        let table = resized.position_table.as_ref().expect("learned positions");
        let tokens = 8 + usize::from(pooling == Pooling::Token);
        assert_eq!(table.val().dims(), [tokens, 8]);
        let after = resized.forward(x);
        let gradients = GradientsParams::from_grads(after.clone().sum().backward(), &resized);
        assert!(gradients.get::<2>(table.id).is_some());
        near(after, before, 1e-6);
    }
    let net = small().with_positions(PatchPositions::None).init(&device);
    assert!(net.position_table.is_none());
    assert_eq!(net.with_image_size([4, 4]).grid, [1, 1]);
}

/// The weights of each new place sum to 1, also at the border.
#[test]
fn interpolation_keeps_constants() {
    let device = Device::flex();
    let mut net = small().with_pooling(Pooling::Mean).init(&device);
    let table = net.position_table.take().expect("learned positions");
    net.position_table = Some(table.map(|old| old.ones_like() * 0.7));
    let net = net.with_image_size([40, 28]);
    let table = net.position_table.expect("learned positions").val();
    assert_eq!(table.dims(), [70, 8]);
    near(table.clone(), table.ones_like() * 0.7, 1e-6);
}

#[test]
fn without_positions_the_order_of_patches_does_not_matter() {
    let device = Device::flex();
    let config = small().with_pooling(Pooling::Mean);
    let x = random::<4>([1, 3, 8, 12], &device);
    let turned = Tensor::cat(
        vec![x.clone().narrow(3, 8, 4), x.clone().narrow(3, 0, 8)],
        3,
    );
    for (positions, depends) in [
        (PatchPositions::None, false),
        (PatchPositions::Sinusoidal, true),
        (PatchPositions::Learned, true),
    ] {
        let net = config.clone().with_positions(positions).init(&device);
        let net = open_gates(net, 0.5, false);
        let apart = (net.forward(x.clone()) - net.forward(turned.clone())).abs();
        let apart = apart.max().into_scalar::<f32>();
        assert_eq!(apart > 1e-5, depends, "{positions}: {apart}");
    }
}

/// With α = 0 the class token's output does not depend on the image, but the first step opens the
/// gates.
#[test]
fn a_closed_class_token_has_gradients_of_its_gates() {
    let device = Device::flex().autodiff();
    let net = small().init(&device);
    let x = random::<4>([2, 3, 8, 12], &device);
    let logits = net.forward(x);
    let two = bits(logits.clone());
    assert_eq!(two[..10], two[10..]);
    let loss = logits.narrow(1, 3, 1).sum();
    let gradients = GradientsParams::from_grads(loss.backward(), &net);
    for layer in &net.encoder.layers {
        let gate = layer.residual.rezero.as_ref().expect("a gate");
        let gradient = gradients.get::<1>(gate.alpha.id).expect("a gradient");
        assert_ne!(gradient.into_scalar::<f32>(), 0.0);
    }
}

#[test]
fn products_in_half_precision() {
    let device = Device::flex().autodiff();
    let net = open_gates(small().init(&device), 0.5, true);
    let x = random::<4>([2, 3, 8, 12], &device);
    let whole = net.forward(x.clone());
    let half = in_precision(net.clone(), FloatDType::BF16);
    assert_eq!(half.patches.linear.weight.val().dtype(), DType::BF16);
    assert_eq!(half.head.weight.val().dtype(), DType::BF16);
    let table = half.position_table.as_ref().expect("learned positions");
    assert_eq!(table.val().dtype(), DType::F32);
    let logits = half.forward(x);
    assert_eq!(logits.dtype(), DType::F32);
    let loss = logits.clone().square().sum();
    let gradients = GradientsParams::from_grads(loss.backward(), &net);
    let patches = gradients.get::<2>(net.patches.linear.weight.id);
    assert_eq!(patches.expect("a gradient").dtype(), DType::F32);
    assert_ne!(bits(logits.clone()), bits(whole.clone()));
    near(logits, whole, 0.05);
}

#[test]
fn another_network_does_not_grow() {
    let device = Device::flex();
    let deeper = |change: fn(VitConfig) -> VitConfig| {
        let mut config = change(small());
        config.encoder.n_layers = 5;
        config
    };
    let net = || small().init(&device);
    assert!(deeper(|c| c).grow(net(), Place::End).is_ok());
    for change in [
        |c: VitConfig| c.with_pooling(Pooling::Mean),
        |c: VitConfig| c.with_positions(PatchPositions::Sinusoidal),
        |c: VitConfig| c.with_num_classes(3),
        |c: VitConfig| c.with_in_channels(1),
        |c: VitConfig| VitConfig { patch_size: 2, ..c },
        |c: VitConfig| VitConfig {
            image_size: [16, 12],
            ..c
        },
    ] {
        let error = deeper(change).grow(net(), Place::End).unwrap_err();
        assert!(matches!(error, GrowError::Shape(_)), "{error}");
    }
    let mut config = deeper(|c| c);
    config.encoder.residual = ResidualConfig::new(ResidualScheme::PreNorm);
    let error = config.grow(net(), Place::End).unwrap_err();
    assert!(matches!(error, GrowError::NotIdentity { .. }), "{error}");
}

#[test]
fn every_gate_of_one_value_folds() {
    let device = Device::flex();
    for rule in [
        ResidualScheme::ReZero,
        ResidualScheme::SkipInit,
        ResidualScheme::LayerScale,
    ] {
        let mut config = small();
        config.encoder.residual = scheme(rule);
        let net = open_gates(config.init(&device), 0.3, true);
        let x = random::<4>([2, 3, 12, 8], &device);
        let folded = net.clone().fold();
        assert!(gates(&folded).is_empty());
        near(folded.forward(x.clone()), net.valid().forward(x), 1e-5);
    }
}

#[test]
#[should_panic(expected = "multiples of the patch size, got 10 × 12 pixels and patches of 4 × 4")]
fn an_image_that_patches_do_not_fill_panics() {
    let device = Device::flex();
    small()
        .init(&device)
        .forward(Tensor::zeros([1, 3, 10, 12], &device));
}

#[test]
#[should_panic(expected = "a multiple of 4, got 6")]
fn sinusoidal_positions_of_another_width_panic() {
    let encoder = RztxEncoderConfig::new(6, 12, 2, 1);
    let config = VitConfig::new(encoder, [8, 8], 4).with_positions(PatchPositions::Sinusoidal);
    config.init(&Device::flex());
}
