//! The names of Vision Transformers in PyTorch, see the [module](super).

use std::collections::BTreeSet;

use super::Vit;
use crate::nets::timm::{self, LayersShape};
use crate::torch::{
    TorchName, TorchNames, TorchTensors, TorchWeights, complete_head, field, renamed,
};

/// The form of a Vision Transformer, from the names and shapes of its tensors. The number of heads is
/// missing, since no shape depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VitShape {
    /// The residual connections of the layers.
    pub layers: LayersShape,
    /// The width of the model.
    pub d_model: usize,
    /// The width of the feed-forward branch.
    pub d_ff: usize,
    /// Whether the feed-forward branch has a gate of its own, as SwiGLU has.
    pub swiglu: bool,
    /// The side of a patch in pixels.
    pub patch_size: usize,
    /// The channels of an image.
    pub in_channels: usize,
    /// The number of classes.
    pub num_classes: usize,
    /// Whether there is a class token.
    pub class_token: bool,
    /// The number of patches with learned positions, if there are any.
    pub patches: Option<usize>,
}

/// The tensors by which the prefix of the names is found.
const FIRST: [&str; 3] = [
    "patch_embed.proj.weight",
    "blocks.0.attn.qkv.weight",
    "head.weight",
];

/// The form of the Vision Transformer in `weights`, or `None` if they are none.
pub fn vit_shape(weights: &TorchWeights) -> Option<VitShape> {
    let named = weights.named(names, &FIRST.map(str::to_owned).into())?;
    let shape = |name: &str| named.get(name).map(|tensor| tensor.shape());
    let [d_model, in_channels, patch_size, _] = timm::patches_shape(&named, "patch_embed.proj")?;
    let [num_classes, _] = *shape(FIRST[2])? else {
        return None;
    };
    let swiglu = shape("blocks.0.mlp.fc1_g.weight");
    let [d_ff, _] = *swiglu.or(shape("blocks.0.mlp.fc1.weight"))? else {
        return None;
    };
    let layers = LayersShape::of(&named, "attn.qkv.weight").filter(|l| l.n_layers > 0)?;
    let class_token = named.contains_key("cls_token");
    let tokens = shape("pos_embed").and_then(|shape| shape.get(1).copied());
    Some(VitShape {
        layers,
        d_model,
        d_ff,
        swiglu: swiglu.is_some(),
        patch_size,
        in_channels,
        num_classes,
        class_token,
        patches: tokens.map(|tokens| tokens.saturating_sub(usize::from(class_token))),
    })
}

impl TorchNames for Vit {
    fn torch_name(&self, path: &[String]) -> TorchName {
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        let one_more = |ones: usize, extents: Vec<usize>| Some([vec![1; ones], extents].concat());
        let layer = |i: &str| {
            i.parse()
                .ok()
                .and_then(|i: usize| self.encoder.layers.get(i))
        };
        let (name, shape) = match parts[..] {
            ["patches", "linear", leaf] => {
                return timm::patches("patch_embed.proj", &self.patches, leaf);
            }
            ["class_token"] => {
                let token = self.class_token.as_ref();
                let shape = token.and_then(|token| one_more(2, token.lazy_shape().to_vec()));
                ("cls_token".to_owned(), shape)
            }
            ["position_table"] => {
                let table = self.position_table.as_ref();
                let shape = table.and_then(|table| one_more(1, table.lazy_shape().to_vec()));
                ("pos_embed".to_owned(), shape)
            }
            ["encoder", "layers", i, "attention", "in_proj", leaf] => {
                (format!("blocks.{i}.attn.qkv.{leaf}"), None)
            }
            ["encoder", "layers", i, "attention", "out_proj", leaf] => {
                (format!("blocks.{i}.attn.proj.{leaf}"), None)
            }
            ["encoder", "layers", i, "feed_forward", part, leaf] => {
                let swiglu = layer(i).is_some_and(|layer| layer.feed_forward.gate.is_some());
                let name = timm::feed_forward(part, leaf, swiglu);
                (format!("blocks.{i}.mlp.{name}"), None)
            }
            ["encoder", "layers", i, "residual", ref rest @ ..] => {
                let name = layer(i).map(|layer| timm::residual(rest, &layer.residual));
                (format!("blocks.{i}.{}", name.unwrap_or_default()), None)
            }
            ["encoder", "norm", .., leaf] => (format!("norm.{}", field(leaf)), None),
            _ => (parts.join("."), None),
        };
        TorchName {
            name,
            transposed: parts.last() == Some(&"weight"),
            shape,
        }
    }

    fn translate(tensors: &mut TorchTensors, expected: &BTreeSet<String>) {
        names(tensors, expected);
        complete_head(tensors, expected, "head");
    }
}

/// torchvision's names.
fn names(tensors: &mut TorchTensors, _expected: &BTreeSet<String>) {
    renamed(tensors, |parts| match parts {
        ["class_token"] => Some("cls_token".to_owned()),
        ["conv_proj", leaf] => Some(format!("patch_embed.proj.{leaf}")),
        ["encoder", "pos_embedding"] => Some("pos_embed".to_owned()),
        ["encoder", "ln", leaf] => Some(format!("norm.{leaf}")),
        ["heads", "head", leaf] => Some(format!("head.{leaf}")),
        ["encoder", "layers", layer, rest @ ..] => {
            let i = layer.strip_prefix("encoder_layer_")?;
            let name = match rest {
                ["ln_1", leaf] => format!("norm1.{leaf}"),
                ["ln_2", leaf] => format!("norm2.{leaf}"),
                ["self_attention", "in_proj_weight"] => "attn.qkv.weight".to_owned(),
                ["self_attention", "in_proj_bias"] => "attn.qkv.bias".to_owned(),
                ["self_attention", "out_proj", leaf] => format!("attn.proj.{leaf}"),
                ["mlp", "0" | "linear_1", leaf] => format!("mlp.fc1.{leaf}"),
                ["mlp", "3" | "linear_2", leaf] => format!("mlp.fc2.{leaf}"),
                [gate] => (*gate).to_owned(),
                _ => return None,
            };
            Some(format!("blocks.{i}.{name}"))
        }
        ["blocks", i, "alpha"] => Some(format!("blocks.{i}.resweight")),
        _ => None,
    });
}
