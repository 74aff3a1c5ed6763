//! Properties of the Transformer's modules: identity at α = 0, gates, every residual scheme, parameter
//! counts and paths.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use rezero_nn::transformer::{
    Activation, RztxDecoderConfig, RztxDecoderInput, RztxDecoderLayerConfig, RztxEncoderConfig,
    RztxEncoderInput, RztxEncoderLayerConfig, RztxLmConfig,
};
use rezero_nn::{NormKind, ResidualConfig, ResidualScheme, gates, parameter_count};

use crate::helpers::{bytes, paths, random, scheme, values};
use crate::support::cross_entropy;

fn layer() -> RztxEncoderLayerConfig {
    RztxEncoderLayerConfig::new(16, 24, 4).with_dropout(0.0)
}

#[test]
fn a_stack_of_any_depth_is_the_identity_at_alpha_0() {
    let device = Device::flex();
    for &norm in NormKind::ALL {
        for share in [true, false] {
            let residual = scheme(ResidualScheme::ReZero)
                .with_norm(norm)
                .with_share_alpha(share);
            let x = random([2, 5, 16], &device);
            let encoder = RztxEncoderConfig::new(16, 24, 4, 64).with_residual(residual.clone());
            let input = RztxEncoderInput::new(x.clone()).causal();
            let y = encoder.init(&device).forward(input);
            assert_eq!(values(y), values(x.clone()));
            let decoder = RztxDecoderConfig::new(16, 24, 4, 8).with_residual(residual);
            let input = RztxDecoderInput::new(x.clone(), random([2, 3, 16], &device));
            let y = decoder.init(&device).forward(input);
            assert_eq!(values(y), values(x));
        }
    }
}

#[test]
fn alpha_is_shared_split_or_per_channel() {
    let device = Device::flex();
    let shapes = |residual: ResidualConfig| -> Vec<(String, usize)> {
        let layer = RztxDecoderLayerConfig::new(16, 24, 4).with_residual(residual);
        let found = gates(&layer.init(&device)).into_iter();
        found.map(|gate| (gate.path, gate.raw.len())).collect()
    };
    let own = |i: usize| format!("residual.sub_layers.{i}.rezero.alpha");
    let rezero = || scheme(ResidualScheme::ReZero);
    assert_eq!(shapes(rezero()), [("residual.rezero.alpha".to_owned(), 1)]);
    assert_eq!(
        shapes(rezero().with_share_alpha(false)),
        [(own(0), 1), (own(1), 1), (own(2), 1)]
    );
    assert_eq!(
        shapes(rezero().with_per_channel(true)),
        [("residual.rezero.alpha".to_owned(), 16)]
    );
    assert_eq!(
        shapes(scheme(ResidualScheme::SkipInit)),
        [(own(0), 1), (own(1), 1), (own(2), 1)]
    );
    assert_eq!(
        shapes(scheme(ResidualScheme::LayerScale)),
        [(own(0), 16), (own(1), 16), (own(2), 16)]
    );
}

#[test]
fn every_scheme_runs_with_the_same_branches() {
    let device = Device::flex().autodiff();
    let encoder = |rule| {
        RztxEncoderConfig::new(16, 24, 4, 3)
            .with_dropout(0.0)
            .with_residual(scheme(rule))
    };
    let branches = parameter_count(&encoder(ResidualScheme::Plain).init(&device));
    for &rule in RztxEncoderConfig::SCHEMES {
        let lm = RztxLmConfig::new(encoder(rule), 8).init(&device);
        let norms = match rule {
            ResidualScheme::PostNorm | ResidualScheme::Gpt2Norm | ResidualScheme::DeepNorm => 6,
            ResidualScheme::PreNorm | ResidualScheme::LayerScale => 7,
            ResidualScheme::PreNormNotebook => 3,
            _ => 0,
        };
        let gates: usize = gates(&lm).iter().map(|gate| gate.raw.len()).sum();
        assert_eq!(
            parameter_count(&lm.encoder),
            branches + norms * 32 + gates,
            "{rule}"
        );
        let loss = cross_entropy(
            lm.forward(bytes(2, 8, 1, &device)).reshape([16, 256]),
            bytes(2, 8, 2, &device).reshape([16]),
        );
        let value = values(loss.clone())[0];
        assert!(
            value.is_finite() && (4.0..8.0).contains(&value),
            "{rule}: {value}"
        );
        // Every parameter learns, be it drawn as it is or scaled afterwards.
        let grads = GradientsParams::from_grads(loss.backward(), &lm);
        let mut floats = Floats(0);
        lm.visit(&mut floats);
        assert_eq!(grads.len(), floats.0, "{rule}");
    }
}

/// Counts the parameters that can learn.
struct Floats(usize);

impl ModuleVisitor for Floats {
    fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<D>>) {
        self.0 += 1;
    }
}

#[test]
fn activations_and_biases() {
    let device = Device::flex();
    let count = |config: RztxEncoderLayerConfig| parameter_count(&config.init(&device));
    let base = layer();
    // 4·16² + 4·16 of attention, 2·16·24 + 24 + 16 of the feed-forward branch, α.
    assert_eq!(count(base.clone()), 1024 + 64 + 768 + 40 + 1);
    assert_eq!(count(base.clone().with_bias(false)), 1024 + 768 + 1);
    let swiglu = base.clone().with_activation(Activation::SwiGlu);
    assert_eq!(count(swiglu), 1024 + 64 + 768 + 40 + 1 + 16 * 24 + 24);
    for activation in [Activation::Relu, Activation::Gelu, Activation::Silu] {
        assert_eq!(count(base.clone().with_activation(activation)), 1897);
    }
}

#[test]
#[should_panic(expected = "d_model must be a multiple of n_heads, got d_model 10 and n_heads 3")]
fn heads_must_divide_the_width() {
    RztxEncoderLayerConfig::new(10, 24, 3).init(&Device::flex());
}

/// Field names are the checkpoint contract.
#[test]
fn parameter_paths_are_pinned() {
    let device = Device::flex();
    let encoder = RztxEncoderConfig::new(16, 24, 4, 1)
        .with_activation(Activation::SwiGlu)
        .with_residual(scheme(ResidualScheme::PreNorm));
    let lm = RztxLmConfig::new(encoder, 8).init(&device);
    assert_eq!(
        paths(&lm),
        [
            "embedding.weight",
            "positions.weight",
            "encoder.layers.0.attention.in_proj.weight",
            "encoder.layers.0.attention.in_proj.bias",
            "encoder.layers.0.attention.out_proj.weight",
            "encoder.layers.0.attention.out_proj.bias",
            "encoder.layers.0.feed_forward.linear1.weight",
            "encoder.layers.0.feed_forward.linear1.bias",
            "encoder.layers.0.feed_forward.gate.weight",
            "encoder.layers.0.feed_forward.gate.bias",
            "encoder.layers.0.feed_forward.linear2.weight",
            "encoder.layers.0.feed_forward.linear2.bias",
            "encoder.layers.0.residual.sub_layers.0.norm.layer_norm.gamma",
            "encoder.layers.0.residual.sub_layers.0.norm.layer_norm.beta",
            "encoder.layers.0.residual.sub_layers.1.norm.layer_norm.gamma",
            "encoder.layers.0.residual.sub_layers.1.norm.layer_norm.beta",
            "encoder.norm.layer_norm.gamma",
            "encoder.norm.layer_norm.beta",
            "head.weight",
            "head.bias",
        ]
    );
    let decoder = RztxDecoderLayerConfig::new(16, 24, 4)
        .with_bias(false)
        .with_residual(scheme(ResidualScheme::ReZero).with_norm(NormKind::Rms))
        .init(&device);
    assert_eq!(
        paths(&decoder),
        [
            "attention.in_proj.weight",
            "attention.out_proj.weight",
            "cross_attention.in_proj.weight",
            "cross_attention.out_proj.weight",
            "feed_forward.linear1.weight",
            "feed_forward.linear2.weight",
            "residual.rezero.alpha",
            "residual.sub_layers.0.norm.rms_norm.gamma",
            "residual.sub_layers.1.norm.rms_norm.gamma",
            "residual.sub_layers.2.norm.rms_norm.gamma",
        ]
    );
}
