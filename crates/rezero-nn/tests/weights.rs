//! Initial weights of Transformers.

use burn::tensor::{Device, Tensor};
use rezero_nn::transformer::{RztxEncoderConfig, RztxInit, RztxLmConfig, RztxTransformerConfig};
use rezero_nn::{ResidualScheme, WeightInit};

use crate::helpers::{scheme, values};

/// The bounds of uniform draws are reached but for a little, and never passed.
#[test]
fn weights_are_drawn_as_published() {
    let device = Device::flex();
    let encoder = RztxEncoderConfig::new(64, 96, 4, 2);
    let lm = RztxLmConfig::new(encoder.clone(), 128).init(&device);
    let reaches = |name: &str, bound: f64, values: Vec<f32>| {
        let most = values.iter().fold(0f32, |m, v| m.max(v.abs()));
        let ratio = f64::from(most) / bound;
        assert!((0.97..=1.000_001).contains(&ratio), "{name}: {ratio}");
    };
    let first = &lm.encoder.layers[0];
    // Xavier of the whole [64, 192]: PyTorch's nn.MultiheadAttention, not of each [64, 64].
    reaches(
        "in_proj",
        (6f64 / 256.0).sqrt(),
        values(first.attention.in_proj.weight.val()),
    );
    reaches(
        "out_proj",
        1.0 / 8.0,
        values(first.attention.out_proj.weight.val()),
    );
    reaches(
        "linear1",
        1.0 / 8.0,
        values(first.feed_forward.linear1.weight.val()),
    );
    reaches(
        "linear2",
        1.0 / 96f64.sqrt(),
        values(first.feed_forward.linear2.weight.val()),
    );
    reaches("embedding", 1.0 / 64.0, values(lm.embedding.weight.val()));
    let bias = first.attention.in_proj.bias.as_ref().unwrap();
    assert!(values(bias.val()).iter().all(|v| *v == 0.0));
    // Each layer on its own.
    let second = &lm.encoder.layers[1];
    assert_ne!(
        values(first.feed_forward.linear1.weight.val()),
        values(second.feed_forward.linear1.weight.val())
    );

    let encoder = encoder.with_init(RztxInit::from(WeightInit::Notebook));
    let notebook = RztxLmConfig::new(encoder, 128).init(&device);
    let first = &notebook.encoder.layers[0];
    reaches(
        "linear1",
        (6f64 / 160.0).sqrt(),
        values(first.feed_forward.linear1.weight.val()),
    );
    reaches("embedding", 0.1, values(notebook.embedding.weight.val()));
    assert!(
        values(notebook.head.unwrap().bias.unwrap().val())
            .iter()
            .all(|v| *v == 0.0)
    );
}

/// Wang et al., arXiv 2203.00555, Table 1 (decoder-only: 2N and 8N; encoder–decoder: both).
#[test]
fn deepnorm_has_its_papers_constants() {
    let device = Device::flex();

    let largest = |w: Tensor<2>| f64::from(w.abs().max().into_scalar::<f32>());
    let residual = scheme(ResidualScheme::DeepNorm);
    let stack = RztxEncoderConfig::new(64, 64, 4, 8)
        .with_residual(residual.clone())
        .init(&device);
    let sub_layer = &stack.layers[3].residual.sub_layers[1];
    assert!((sub_layer.skip_scale - 16f64.powf(0.25)).abs() < 1e-9);
    let gain = 64f64.powf(-0.25);
    let in_proj = stack.layers[3].attention.in_proj.weight.val();
    let bound = (6f64 / 256.0).sqrt();
    assert!((largest(in_proj.clone().slice_dim(1, 0..128)) / bound - 1.0).abs() < 0.03);
    assert!((largest(in_proj.slice_dim(1, 128..192)) / (gain * bound) - 1.0).abs() < 0.03);
    let linear1 = stack.layers[3].feed_forward.linear1.weight.val();
    assert!((largest(linear1) / (gain / 8.0) - 1.0).abs() < 0.03);

    let both = RztxTransformerConfig::new(64, 64, 4, 4, 2)
        .with_residual(residual)
        .init(&device);
    let encoder = both.encoder.layers[0].residual.sub_layers[0].skip_scale;
    let decoder = both.decoder.layers[0].residual.sub_layers[0].skip_scale;
    assert!((encoder - 0.81 * 512f64.powf(1.0 / 16.0)).abs() < 1e-9);
    assert!((decoder - 6f64.powf(0.25)).abs() < 1e-9);
}
