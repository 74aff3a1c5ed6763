//! The names of timm, the library of image models in PyTorch, as far as families of patches share them.

use crate::nets::patches::PatchEmbedding;
use crate::residual::{LayerResiduals, ResidualScheme};
use crate::torch::{TorchName, TorchTensors, field};

/// The residual connections of the layers of a file, from the names and shapes of its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayersShape {
    /// The number of layers.
    pub n_layers: usize,
    /// The number of gates of a layer.
    pub gates: usize,
    /// Whether a gate has a value per channel.
    pub gate_per_channel: bool,
    /// Whether the gates have the names of LayerScale, `ls1` and `ls2`.
    pub layer_scale: bool,
    /// The number of norms of a layer.
    pub norms: usize,
    /// Whether norms have no bias, as RMS norms.
    pub rms: bool,
    /// Whether a norm follows the last layer.
    pub final_norm: bool,
}

impl LayersShape {
    /// Of the layers `blocks.N` that have a tensor `of_each`.
    pub(super) fn of(named: &TorchTensors, of_each: &str) -> Option<Self> {
        let has = |name: &str| named.contains_key(name);
        let first = |names: &[&str]| {
            let names = names.iter().map(|name| format!("blocks.0.{name}"));
            names.filter(|name| has(name)).count()
        };
        let gates = ["resweight", "resweight_0", "resweight_1"];
        let scales = ["ls1.gamma", "ls2.gamma"];
        let norms = first(&["norm1.weight", "norm2.weight"]);
        let gate = gates.iter().chain(&scales);
        let gate = gate.filter_map(|name| named.get(&format!("blocks.0.{name}")));
        Some(Self {
            n_layers: (0..).find(|n| !has(&format!("blocks.{n}.{of_each}")))?,
            gates: first(&gates) + first(&scales),
            gate_per_channel: gate.clone().any(|gate| gate.len() > 1),
            layer_scale: first(&scales) > 0,
            norms,
            rms: norms > 0 && first(&["norm1.bias"]) == 0,
            final_norm: has("norm.weight"),
        })
    }

    /// A scheme with these parameters, the best known of several. [`ResidualScheme::Gated`] has the
    /// parameters of ReZero, post-norm those of DeepNorm and of the paper's GPT2-norm.
    pub fn scheme(&self) -> ResidualScheme {
        match (self.gates, self.norms, self.final_norm) {
            (1.., ..) if self.layer_scale => ResidualScheme::LayerScale,
            (1.., ..) => ResidualScheme::ReZero,
            (0, 0, _) => ResidualScheme::Residual,
            (0, _, true) => ResidualScheme::PreNorm,
            (0, 1, false) => ResidualScheme::PreNormNotebook,
            (0, _, false) => ResidualScheme::PostNorm,
        }
    }
}

/// A parameter of the embedding of patches, which is a convolution in PyTorch.
pub(super) fn patches(prefix: &str, embedding: &PatchEmbedding, leaf: &str) -> TorchName {
    let [inputs, d_model] = embedding.linear.weight.lazy_shape().dims();
    let p = embedding.patch_size;
    TorchName {
        name: format!("{prefix}.{leaf}"),
        transposed: leaf == "weight",
        shape: (leaf == "weight").then(|| vec![d_model, inputs / (p * p), p, p]),
    }
}

/// `[d_model, channels, patch_size, patch_size]` of such a convolution.
pub(super) fn patches_shape(named: &TorchTensors, prefix: &str) -> Option<[usize; 4]> {
    let shape: [usize; 4] = named
        .get(&format!("{prefix}.weight"))?
        .shape()
        .try_into()
        .ok()?;
    (shape[2] == shape[3] && shape[2] > 0).then_some(shape)
}

/// A parameter of a branch's fully connected layers.
pub(super) fn feed_forward(part: &str, leaf: &str, swiglu: bool) -> String {
    let layer = match (part, swiglu) {
        ("linear1", false) => "fc1",
        ("linear1", true) => "fc1_g",
        ("gate", _) => "fc1_x",
        ("linear2", _) => "fc2",
        (other, _) => other,
    };
    format!("{layer}.{leaf}")
}

/// A parameter of a layer's residual connections, by its path there.
pub(super) fn residual(path: &[&str], residuals: &LayerResiduals) -> String {
    let scheme = residuals.sub_layers.first().map(|part| part.scheme);
    match path {
        ["sub_layers", i, rest @ ..] => {
            let i: usize = i.parse().unwrap_or(0);
            match rest {
                ["norm", .., leaf] => format!("norm{}.{}", i + 1, field(leaf)),
                _ if scheme == Some(ResidualScheme::LayerScale) => format!("ls{}.gamma", i + 1),
                _ => format!("resweight_{i}"),
            }
        }
        _ => "resweight".to_owned(),
    }
}
