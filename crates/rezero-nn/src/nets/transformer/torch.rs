//! The names of Transformers in PyTorch.

use std::collections::BTreeSet;

use super::{
    RztxDecoder, RztxDecoderLayer, RztxEncoder, RztxEncoderLayer, RztxLm, RztxTransformer,
};
use crate::torch::{TorchName, TorchNames, TorchTensor, TorchTensors, TorchWeights};

/// The sizes of a language model, from the shapes of its tensors. The number of heads is missing,
/// since no shape depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LmShape {
    /// The number of layers.
    pub n_layers: usize,
    /// The width of the model.
    pub d_model: usize,
    /// The width of the feed-forward branch.
    pub d_ff: usize,
    /// The number of tokens.
    pub vocab_size: usize,
    /// The number of learned positions, if there are any.
    pub context: Option<usize>,
    /// Whether the output layer is tied to the embedding.
    pub tied: bool,
}

/// The sizes of the language model in `weights`, or `None` if they are no language model.
pub fn lm_shape(weights: &TorchWeights) -> Option<LmShape> {
    let expected = BTreeSet::from(["embedding.weight".to_owned()]);
    let named = weights.translated(translate, &expected);
    let shape = |name: &str| Some(named.get(name)?.shape.as_slice());
    let [vocab_size, d_model] = *shape("embedding.weight")? else {
        return None;
    };
    let layer = |n: usize| format!("encoder.layers.{n}.linear1.weight");
    let [d_ff, _] = *shape(&layer(0))? else {
        return None;
    };
    Some(LmShape {
        n_layers: (0..).find(|n| !named.contains_key(&layer(*n)))?,
        d_model,
        d_ff,
        vocab_size,
        context: shape("positions.weight").and_then(|s| s.first().copied()),
        tied: !named.contains_key("head.weight"),
    })
}

macro_rules! torch_names {
    ($($module:ty),*) => {$(
        impl TorchNames for $module {
            fn torch_name(path: &[String]) -> TorchName {
                torch_name(path)
            }

            fn translate(tensors: &mut TorchTensors, expected: &BTreeSet<String>) {
                translate(tensors, expected);
            }
        }
    )*};
}
torch_names!(
    RztxEncoderLayer,
    RztxDecoderLayer,
    RztxEncoder,
    RztxDecoder,
    RztxTransformer,
    RztxLm
);

/// The authors' names and those of `nn.Transformer`, see the [module](super).
fn torch_name(path: &[String]) -> TorchName {
    let is_table = path
        .iter()
        .any(|part| part == "embedding" || part == "positions");
    let transposed = path.last().is_some_and(|name| name == "weight") && !is_table;
    let mut name = String::new();
    let mut parts = path.iter().map(String::as_str).peekable();
    while let Some(part) = parts.next() {
        let next = match part {
            "attention" => "self_attn",
            "cross_attention" => "multihead_attn",
            "feed_forward" | "residual" | "rezero" | "layer_norm" | "rms_norm" => continue,
            "gate" => "linear_gate",
            "gamma" => "weight",
            "beta" => "bias",
            "alpha" => "resweight",
            "in_proj" => {
                // One parameter of the attention, not a layer of its own.
                name.push_str("in_proj_");
                continue;
            }
            "sub_layers" => {
                let i: usize = parts.next().and_then(|i| i.parse().ok()).unwrap_or(0);
                match parts.peek() {
                    Some(&"norm") => {
                        parts.next();
                        name.push_str(&format!("norm{}.", i + 1));
                    }
                    _ => {
                        // `rezero`, `alpha`
                        name.push_str(&format!("resweight_{i}."));
                        parts.by_ref().for_each(drop);
                    }
                }
                continue;
            }
            other => other,
        };
        name.push_str(next);
        name.push('.');
    }
    name.pop();
    TorchName { name, transposed }
}

/// Translates the names and norms of the authors' notebook, and joins split projections.
fn translate(tensors: &mut TorchTensors, expected: &BTreeSet<String>) {
    notebook_names(tensors);
    join_projections(tensors);
    notebook_norms(tensors, expected);
}

/// Translates the names of the notebook's language model.
fn notebook_names(tensors: &mut TorchTensors) {
    let first = "transformer_encoder.layers.0.";
    if !tensors.keys().any(|name| name.starts_with(first)) {
        return;
    }
    // The sines and cosines of positions, which are computed here.
    tensors.remove("pos_encoder.pe");
    *tensors = std::mem::take(tensors)
        .into_iter()
        .map(|(name, tensor)| {
            let ours = match name.as_str() {
                "encoder.weight" => "embedding.weight".to_owned(),
                "decoder.weight" => "head.weight".to_owned(),
                "decoder.bias" => "head.bias".to_owned(),
                other => match other.strip_prefix("transformer_encoder.") {
                    Some(rest) => format!("encoder.{rest}"),
                    None => name,
                },
            };
            (ours, tensor)
        })
        .collect();
}

/// Joins `q_proj_weight`, `k_proj_weight` and `v_proj_weight` to one `in_proj_weight`.
fn join_projections(named: &mut TorchTensors) {
    let prefixes: Vec<String> = named
        .keys()
        .filter_map(|name| Some(name.strip_suffix("q_proj_weight")?.to_owned()))
        .collect();
    for prefix in prefixes {
        let parts = ["q", "k", "v"].map(|part| format!("{prefix}{part}_proj_weight"));
        let shapes = parts
            .each_ref()
            .map(|part| named.get(part).map(|t| t.shape.clone()));
        // With different shapes they are no self-attention of this crate: `load` reports them as
        // unknown.
        let [Some(q), Some(k), Some(v)] = shapes else {
            continue;
        };
        let (true, true, [rows, columns]) = (q == k, k == v, q.as_slice()) else {
            continue;
        };
        let Some(rows) = rows.checked_mul(3) else {
            continue;
        };
        let shape = vec![rows, *columns];
        let mut values = Vec::new();
        for part in parts.iter().filter_map(|part| named.remove(part)) {
            values.extend_from_slice(&part.values);
        }
        let values = values.into();
        named.insert(
            format!("{prefix}in_proj_weight"),
            TorchTensor { shape, values },
        );
    }
}

/// Removes the constant gates of the notebook's layers with a norm, and uses their `norm1` for both
/// branches.
fn notebook_norms(named: &mut TorchTensors, expected: &BTreeSet<String>) {
    let layers: Vec<String> = named
        .iter()
        .filter(|(name, gate)| !expected.contains(*name) && gate.values.iter().all(|v| *v == 1.0))
        .filter_map(|(name, _)| name.strip_suffix("resweight").map(str::to_owned))
        .collect();
    for layer in layers {
        named.remove(&format!("{layer}resweight"));
        for part in ["weight", "bias"] {
            let [norm1, norm2] = [1, 2].map(|i| format!("{layer}norm{i}.{part}"));
            let Some(tensor) = named.get(&norm1).cloned() else {
                continue;
            };
            named.remove(&norm2);
            if expected.contains(&norm2) {
                named.insert(norm2, tensor);
            }
        }
    }
}
