//! Gradients of a language model with one layer's graph at a time.

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use rezero_nn::ResidualScheme;
use rezero_nn::transformer::{Activation, Positions, RztxEncoderConfig, RztxLm, RztxLmConfig};

use crate::helpers::{bytes, near, opened, values};
use crate::support::cross_entropy;

#[test]
fn recomputing_layers_gives_the_same_gradients() {
    let device = Device::flex().autodiff();
    for (scheme, tied, positions, dropout) in [
        (ResidualScheme::ReZero, false, Positions::Learned, 0.0),
        (ResidualScheme::PreNorm, true, Positions::Sinusoidal, 0.0),
        (ResidualScheme::PostNorm, false, Positions::Rotary, 0.0),
    ] {
        let encoder = RztxEncoderConfig::new(16, 24, 4, 4)
            .with_residual(opened(scheme, 0.5))
            .with_dropout(dropout);
        let lm = RztxLmConfig::new(encoder, 8)
            .with_tied(tied)
            .with_positions(positions)
            .with_embedding_scale(16.0)
            .init(&device);
        let tokens = bytes(2, 8, 1, &device);
        let targets = bytes(2, 8, 2, &device).reshape([16]);
        let loss = |logits: Tensor<3>| cross_entropy(logits.reshape([16, 256]), targets.clone());
        let whole = loss(lm.forward(tokens.clone()));
        let (value, parts) = lm.loss_and_gradients(tokens, |part| part, loss);
        near(value.inner(), whole.clone().inner(), 1e-6);
        let whole = GradientsParams::from_grads(whole.backward(), &lm);
        assert_eq!(whole.len(), parts.len(), "{scheme:?}");
        let mut compared = 0;
        lm.visit(&mut Compare(&whole, &parts, &mut compared));
        assert_eq!(compared, whole.len());
    }
}

struct Compare<'a>(&'a GradientsParams, &'a GradientsParams, &'a mut usize);

impl burn::module::ModuleVisitor for Compare<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let (Some(a), Some(b)) = (self.0.get::<D>(param.id), self.1.get::<D>(param.id)) {
            near(a, b, 1e-6);
            *self.2 += 1;
        }
    }
}

/// The second run of a layer drops what the first one dropped: the gradient is that of the loss.
#[test]
fn recomputing_layers_repeats_their_dropout() {
    // Backends have one random stream a process, from which other tests draw meanwhile.
    const ALONE: &str = "REZERO_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = "recompute::recomputing_layers_repeats_their_dropout";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(ALONE, "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let device = Device::flex().autodiff();
    device.seed(3);
    let encoder = RztxEncoderConfig::new(16, 24, 4, 3)
        .with_residual(opened(ResidualScheme::ReZero, 0.7))
        .with_dropout(0.3)
        .with_activation(Activation::Gelu);
    let lm = RztxLmConfig::new(encoder, 8)
        .with_embedding_scale(16.0)
        .init(&device);
    let tokens = bytes(2, 8, 1, &device);
    let targets = bytes(2, 8, 2, &device).reshape([16]);
    let run = |lm: &RztxLm| {
        lm.loss_and_gradients(
            tokens.clone(),
            |part| 1000 + part,
            |logits| cross_entropy(logits.reshape([16, 256]), targets.clone()),
        )
    };
    let (loss, gradients) = run(&lm);
    let (again, _) = run(&lm);
    assert_eq!(values(loss.clone()), values(again));
    // Along the gradient of a gate, the loss moves as the gradient says.
    let gate = &lm.encoder.layers[1].residual.rezero.as_ref().unwrap().alpha;
    let slope = values(gradients.get::<1>(gate.id).unwrap())[0];
    let shifted = |by: f64| {
        let mut lm = lm.clone();
        let gate = lm.encoder.layers[1].residual.rezero.as_mut().unwrap();
        gate.alpha = gate.alpha.clone().map(|a| (a + by).detach().require_grad());
        values(run(&lm).0)[0]
    };
    let numeric = (shifted(1e-2) - shifted(-1e-2)) / 2e-2;
    assert!(
        (slope - numeric).abs() < 2e-3 * slope.abs().max(0.1),
        "{slope} {numeric}"
    );
}
