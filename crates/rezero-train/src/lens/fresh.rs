//! Jacobians of networks at initialisation.

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use rezero_data::rng::mix;
use rezero_nn::transformer::RztxEncoderConfig;
use rezero_nn::{
    Jacobian, JacobianError, JacobianProbe, MlpConfig, ReZeroConfig, ResidualConfig,
    ResidualScheme, WeightInit, initialized,
};

use super::Record;
use crate::error::Result;

/// Settings of Jacobians at initialisation.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// The number of random networks for each scheme and depth.
    pub draws: usize,
    /// α of the schemes that have one.
    pub alpha: f64,
    /// The seed of weights and inputs.
    pub seed: u64,
    /// `d_model` of Transformers, the width of MLPs.
    pub width: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// The width of the feed-forward branch.
    pub d_ff: usize,
    /// Positions of a sequence.
    pub length: usize,
}

/// From what to what the Jacobians of new networks go.
const OF: &str = "from the input of the residual layers to their output";

/// The schemes of Transformers that `--scheme all` shows: the paper's.
pub const OF_TRANSFORMERS: &[ResidualScheme] = &[
    ResidualScheme::PostNorm,
    ResidualScheme::PreNorm,
    ResidualScheme::Gpt2Norm,
    ResidualScheme::Residual,
    ResidualScheme::ReZero,
];

/// An encoder of `layers` layers as the authors' notebook has it (weights Xavier-uniform, no
/// dropout), its Jacobian at inputs from N(0, 1).
///
/// # Errors
///
/// If a Jacobian cannot be computed.
pub fn transformer(
    name: &str,
    scheme: ResidualScheme,
    alpha: f64,
    layers: usize,
    fresh: &Fresh,
    device: &Device,
) -> Result<Record> {
    let config = RztxEncoderConfig::new(fresh.width, fresh.d_ff, fresh.n_heads, layers)
        .with_dropout(0.0)
        .with_init(WeightInit::Notebook.into())
        .with_residual(residual(scheme, alpha));
    draws(name, layers, fresh, device, |probe| {
        let encoder = initialized(config.init(device)).valid();
        let shape = [1, fresh.length, fresh.width];
        let x = Tensor::<3>::random(shape, Distribution::Normal(0.0, 1.0), device);
        probe.run_module(&encoder, |encoder, x| encoder.forward(x), x)
    })
}

/// The residual layers of a fully connected network, at inputs from N(0, 1) behind a ReLU.
///
/// # Errors
///
/// If a Jacobian cannot be computed.
pub fn mlp(
    name: &str,
    scheme: ResidualScheme,
    alpha: f64,
    layers: usize,
    fresh: &Fresh,
    device: &Device,
) -> Result<Record> {
    let config =
        MlpConfig::new(fresh.width, fresh.width, layers, 1).with_residual(residual(scheme, alpha));
    draws(name, layers, fresh, device, |probe| {
        let net = initialized(config.init(device)).valid();
        let shape = [1, fresh.width];
        let x = Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), device).clamp_min(0.0);
        probe.run_module(&net, |net, x| net.hidden(x), x)
    })
}

fn draws(
    name: &str,
    layers: usize,
    fresh: &Fresh,
    device: &Device,
    mut draw: impl FnMut(&JacobianProbe) -> Result<Vec<Jacobian>, JacobianError>,
) -> Result<Record> {
    let probe = JacobianProbe::new();
    let (mut spectra, mut not_finite) = (Vec::new(), 0);
    for i in 0..fresh.draws {
        device.seed(mix(fresh.seed, i as u64));
        match draw(&probe) {
            Ok(jacobians) => {
                for jacobian in jacobians {
                    spectra.push(jacobian.spectrum()?);
                }
            }
            // Signals that overflow in a deep network are a result, not an error.
            Err(JacobianError::Output { .. } | JacobianError::Entry { .. }) => not_finite += 1,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(Record::new(name, OF, layers, &spectra, not_finite))
}

fn residual(scheme: ResidualScheme, alpha: f64) -> ResidualConfig {
    ResidualConfig::new(scheme).with_rezero(ReZeroConfig::new().with_alpha(alpha))
}
