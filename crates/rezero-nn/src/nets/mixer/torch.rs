//! The names of MLP-Mixers in PyTorch, see the [module](super).

use std::collections::BTreeSet;

use super::Mixer;
use crate::nets::timm::{self, LayersShape};
use crate::torch::{
    TorchName, TorchNames, TorchTensors, TorchWeights, complete_head, field, renamed,
};

/// The form of an MLP-Mixer, from the names and shapes of its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MixerShape {
    /// The residual connections of the layers.
    pub layers: LayersShape,
    /// The number of channels of a patch between two layers.
    pub d_model: usize,
    /// The width between the two linear layers of token mixing.
    pub d_tokens: usize,
    /// The width between the two linear layers of channel mixing.
    pub d_channels: usize,
    /// Whether the branches have a gate of their own, as SwiGLU has.
    pub swiglu: bool,
    /// The side of a patch in pixels.
    pub patch_size: usize,
    /// The number of patches of an image.
    pub patches: usize,
    /// The channels of an image.
    pub in_channels: usize,
    /// The number of classes.
    pub num_classes: usize,
}

/// The tensors by which the prefix of the names is found.
const FIRST: [&str; 3] = [
    "stem.proj.weight",
    "blocks.0.mlp_tokens.fc2.weight",
    "head.weight",
];

/// The form of the MLP-Mixer in `weights`, or `None` if they are none.
pub fn mixer_shape(weights: &TorchWeights) -> Option<MixerShape> {
    let named = weights.named(names, &FIRST.map(str::to_owned).into())?;
    let matrix = |name: &str| -> Option<[usize; 2]> { named.get(name)?.shape().try_into().ok() };
    let [d_model, in_channels, patch_size, _] = timm::patches_shape(&named, "stem.proj")?;
    let [patches, d_tokens] = matrix(FIRST[1])?;
    let [_, d_channels] = matrix("blocks.0.mlp_channels.fc2.weight")?;
    let [num_classes, _] = matrix(FIRST[2])?;
    Some(MixerShape {
        layers: LayersShape::of(&named, "mlp_tokens.fc2.weight")?,
        d_model,
        d_tokens,
        d_channels,
        swiglu: named.contains_key("blocks.0.mlp_tokens.fc1_g.weight"),
        patch_size,
        patches,
        in_channels,
        num_classes,
    })
}

impl TorchNames for Mixer {
    fn torch_name(&self, path: &[String]) -> TorchName {
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        let layer = |i: &str| i.parse().ok().and_then(|i: usize| self.layers.get(i));
        let name = match parts[..] {
            ["patches", "linear", leaf] => return timm::patches("stem.proj", &self.patches, leaf),
            ["layers", i, branch @ ("tokens" | "channels"), part, leaf] => {
                let swiglu = layer(i).is_some_and(|layer| layer.channels.gate.is_some());
                let name = timm::feed_forward(part, leaf, swiglu);
                format!("blocks.{i}.mlp_{branch}.{name}")
            }
            ["layers", i, "residual", ref rest @ ..] => {
                let name = layer(i).map(|layer| timm::residual(rest, &layer.residual));
                format!("blocks.{i}.{}", name.unwrap_or_default())
            }
            ["norm", .., leaf] => format!("norm.{}", field(leaf)),
            _ => parts.join("."),
        };
        TorchName {
            name,
            transposed: parts.last() == Some(&"weight"),
            shape: None,
        }
    }

    fn translate(tensors: &mut TorchTensors, expected: &BTreeSet<String>) {
        names(tensors, expected);
        complete_head(tensors, expected, "head");
    }
}

fn names(tensors: &mut TorchTensors, _expected: &BTreeSet<String>) {
    renamed(tensors, |parts| match parts {
        ["blocks", i, "alpha"] => Some(format!("blocks.{i}.resweight")),
        _ => None,
    });
}
