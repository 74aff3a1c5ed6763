//! MLP-Mixers: sizes, schemes, half precision, growing and folding.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, FloatDType, Tensor};
use rezero_nn::mixer::MixerConfig;
use rezero_nn::{
    Fold, Grow, GrowError, Place, ResidualScheme, gates, in_precision, parameter_count,
};

use crate::helpers::{bits, near, open_gates, random, scheme, values};

fn small() -> MixerConfig {
    MixerConfig::new(8, 5, 12, 3, [8, 12], 4)
}

/// Table 1 of the paper has 59 million for B/16; to the last digit these are the numbers of the
/// networks `mixer_s16_224` and `mixer_b16_224` of the library timm, which are pre-norm.
#[test]
fn presets_have_the_published_sizes() {
    let device = Device::flex();
    for (config, published) in [
        (MixerConfig::small_224(), 18_528_264),
        (MixerConfig::base_224(), 59_880_472),
    ] {
        let pre_norm = config
            .clone()
            .with_residual(scheme(ResidualScheme::PreNorm));
        assert_eq!(parameter_count(&pre_norm.init(&device)), published);
        // Without two norms for each layer and one at the end, with one α for each layer.
        let (d, n) = (config.d_model, config.n_layers);
        let rezero = published - n * 4 * d - 2 * d + n;
        assert_eq!(parameter_count(&config.init(&device)), rezero);
    }
    let (tokens, channels) = (2 * 64 * 64 + 64 + 64, 2 * 128 * 512 + 512 + 128);
    let tiny = (3 * 16 + 1) * 128 + 12 * (tokens + channels + 1) + (128 + 1) * 10;
    let net = MixerConfig::tiny_32().init(&device);
    assert_eq!(parameter_count(&net), tiny);
}

#[test]
fn every_scheme_gives_finite_logits_that_depend_on_the_image() {
    let device = Device::flex();
    for &rule in MixerConfig::SCHEMES {
        let config = small().with_residual(scheme(rule));
        let net = open_gates(config.init(&device), 0.4, false);
        let logits = values(net.forward(random::<4>([2, 3, 8, 12], &device)));
        assert!(logits.iter().all(|v| v.is_finite()), "{rule}");
        assert_ne!(logits[..10], logits[10..], "{rule}");
    }
}

/// Only token mixing carries values from one patch to another.
#[test]
fn token_mixing_alone_mixes_patches() {
    let device = Device::flex();
    let config = small().with_residual(scheme(ResidualScheme::SkipInit));
    let mut net = open_gates(config.init(&device), 0.5, false);
    let x = random::<3>([1, 6, 8], &device);
    let moved = Tensor::cat(
        vec![x.clone().narrow(1, 0, 5), x.clone().narrow(1, 5, 1) + 1.0],
        1,
    );
    let first =
        |net: &rezero_nn::mixer::Mixer, x: &Tensor<3>| bits(net.hidden(x.clone()).narrow(1, 0, 1));
    assert_ne!(first(&net, &x), first(&net, &moved));
    for layer in &mut net.layers {
        let gate = &mut layer.residual.sub_layers[0].rezero;
        let gate = gate.as_mut().expect("a gate of token mixing");
        gate.alpha = gate.alpha.clone().map(|alpha| alpha * 0.0);
    }
    assert_eq!(first(&net, &x), first(&net, &moved));
}

#[test]
fn products_in_half_precision() {
    let device = Device::flex().autodiff();
    let net = open_gates(small().init(&device), 0.5, true);
    let x = random::<4>([2, 3, 8, 12], &device);
    let whole = net.forward(x.clone());
    let half = in_precision(net.clone(), FloatDType::BF16);
    let first = &half.layers[0];
    for linear in [&first.tokens.linear1, &first.channels.linear2, &half.head] {
        assert_eq!(linear.weight.val().dtype(), DType::BF16);
    }
    let logits = half.forward(x);
    assert_eq!(logits.dtype(), DType::F32);
    let gradients = GradientsParams::from_grads(logits.clone().square().sum().backward(), &net);
    let patches = gradients.get::<2>(net.patches.linear.weight.id);
    assert_eq!(patches.expect("a gradient").dtype(), DType::F32);
    assert_ne!(bits(logits.clone()), bits(whole.clone()));
    near(logits, whole, 0.05);
}

#[test]
fn another_network_does_not_grow() {
    let device = Device::flex();
    let net = || small().init(&device);
    let deeper = MixerConfig {
        n_layers: 5,
        ..small()
    };
    assert!(deeper.grow(net(), Place::End).is_ok());
    for change in [
        MixerConfig {
            d_tokens: 6,
            ..deeper.clone()
        },
        MixerConfig {
            d_channels: 6,
            ..deeper.clone()
        },
        MixerConfig {
            patch_size: 2,
            ..deeper.clone()
        },
        MixerConfig {
            image_size: [8, 8],
            ..deeper.clone()
        },
        deeper.clone().with_num_classes(3),
        deeper
            .clone()
            .with_residual(scheme(ResidualScheme::SkipInit)),
    ] {
        let error = change.grow(net(), Place::End).unwrap_err();
        assert!(matches!(error, GrowError::Shape(_)), "{error}");
    }
    let pre_norm = deeper.with_residual(scheme(ResidualScheme::PreNorm));
    let error = pre_norm.grow(net(), Place::End).unwrap_err();
    assert!(matches!(error, GrowError::NotIdentity { .. }), "{error}");
}

/// A gate per channel stays where the branch ends in a layer over the patches, and goes elsewhere.
#[test]
fn gates_fold_where_the_branch_can_take_them() {
    let device = Device::flex();
    for (rule, per_channel, left) in [
        (ResidualScheme::ReZero, false, 0),
        (ResidualScheme::SkipInit, false, 0),
        (ResidualScheme::Gated, false, 0),
        (ResidualScheme::LayerScale, false, 3),
        (ResidualScheme::ReZero, true, 3),
        (ResidualScheme::SkipInit, true, 3),
    ] {
        let residual = scheme(rule).with_per_channel(per_channel);
        let net = small().with_residual(residual).init(&device);
        let net = open_gates(net, 0.3, true);
        let x = random::<4>([2, 3, 8, 12], &device);
        let folded = net.clone().fold();
        assert_eq!(gates(&folded).len(), left, "{rule} {per_channel}");
        near(folded.forward(x.clone()), net.valid().forward(x), 1e-5);
    }
}

#[test]
#[should_panic(expected = "this network mixes 6 patches, got 4: give it images of its size")]
fn images_of_another_size_panic() {
    let device = Device::flex();
    small()
        .init(&device)
        .forward(Tensor::zeros([1, 3, 8, 8], &device));
}
