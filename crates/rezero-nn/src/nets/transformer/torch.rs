//! The names of Transformers in PyTorch.

use std::collections::BTreeSet;

use super::{
    RztxDecoder, RztxDecoderLayer, RztxEncoder, RztxEncoderLayer, RztxLm, RztxTransformer,
};
use crate::torch::{TorchName, TorchNames, TorchTensor, TorchTensors, TorchWeights, complete_head};

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
    /// Whether the table of sines and cosines of the authors' notebook is in the file.
    pub sinusoidal: bool,
    /// Whether the linear layers have biases.
    pub bias: bool,
    /// Whether the feed-forward branch has a gate of its own, as SwiGLU has.
    pub swiglu: bool,
    /// Whether layers have norms.
    pub norm: bool,
    /// Whether layers have gates.
    pub gate: bool,
    /// Whether all branches of a layer share a gate.
    pub alpha_shared: bool,
    /// Whether a gate has a value per channel.
    pub alpha_per_channel: bool,
}

/// The sizes of the language model in `weights`, or `None` if they are no language model.
pub fn lm_shape(weights: &TorchWeights) -> Option<LmShape> {
    let expected = BTreeSet::from(["embedding.weight".to_owned()]);
    let named = weights.named(translate, &expected)?;
    let shape = |name: &str| Some(named.get(name)?.shape());
    let [vocab_size, d_model] = *shape("embedding.weight")? else {
        return None;
    };
    let layer = |n: usize| format!("encoder.layers.{n}.linear1.weight");
    let [d_ff, _] = *shape(&layer(0))? else {
        return None;
    };
    let of_first = |rest: &str| named.get(&format!("encoder.layers.0.{rest}"));
    let gate = of_first("resweight").or(of_first("resweight_0"));
    Some(LmShape {
        sinusoidal: weights.names().any(|name| name.ends_with("pos_encoder.pe")),
        bias: of_first("linear1.bias").is_some(),
        swiglu: of_first("linear_gate.weight").is_some(),
        norm: of_first("norm1.weight").is_some(),
        gate: gate.is_some(),
        alpha_shared: of_first("resweight").is_some(),
        alpha_per_channel: gate.is_some_and(|gate| gate.len() > 1),
        n_layers: (0..).find(|n| !named.contains_key(&layer(*n)))?,
        d_model,
        d_ff,
        vocab_size,
        context: shape("positions.weight").and_then(|s| s.first().copied()),
        tied: !named.contains_key("head.weight") && !named.contains_key("head.bias"),
    })
}

macro_rules! torch_names {
    ($($module:ty),*) => {$(
        impl TorchNames for $module {
            fn torch_name(&self, path: &[String]) -> TorchName {
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
    TorchName {
        name,
        transposed,
        shape: None,
    }
}

/// Translates the names and norms of the authors' notebook, joins split projections, and completes the
/// output layer.
fn translate(tensors: &mut TorchTensors, expected: &BTreeSet<String>) {
    notebook_names(tensors);
    // A table that is a parameter of its own.
    if expected.contains("positions.weight")
        && !tensors.contains_key("positions.weight")
        && let Some(table) = tensors.remove("positions")
    {
        tensors.insert("positions.weight".to_owned(), table);
    }
    join_projections(tensors);
    notebook_norms(tensors, expected);
    head(tensors, expected);
}

/// The output layer of files that tie it to the embedding and save it twice, that tie it and give it a
/// bias, or that give it none.
fn head(tensors: &mut TorchTensors, expected: &BTreeSet<String>) {
    let [table, weight, bias] = ["embedding.weight", "head.weight", "head.bias"];
    let Some(embedding) = tensors.get(table).cloned() else {
        return;
    };
    let same = |head: &TorchTensor| {
        head.shape() == embedding.shape()
            && matches!((head.values(), embedding.values()), (Ok(a), Ok(b)) if a == b)
    };
    if !expected.contains(weight)
        && !tensors.contains_key(bias)
        && tensors.get(weight).is_some_and(same)
    {
        tensors.remove(weight);
    }
    if expected.contains(weight) && tensors.contains_key(bias) && !tensors.contains_key(weight) {
        tensors.insert(weight.to_owned(), embedding.clone());
    }
    complete_head(tensors, expected, "head");
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
            .map(|part| named.get(part).map(|t| t.shape().to_vec()));
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
        let parts = parts.iter().filter_map(|part| named.remove(part)).collect();
        let joined = TorchTensor::joined(parts, shape);
        named.insert(format!("{prefix}in_proj_weight"), joined);
    }
}

/// Removes the constant gates of the notebook's layers with a norm, and uses their `norm1` for both
/// branches.
fn notebook_norms(named: &mut TorchTensors, expected: &BTreeSet<String>) {
    let layers: Vec<String> = named
        .iter()
        .filter(|(name, gate)| !expected.contains(*name) && gate.len() == 1)
        .filter_map(|(name, gate)| Some((name.strip_suffix("resweight")?, gate)))
        .filter(|(_, gate)| gate.values().is_ok_and(|values| values == [1.0]))
        .map(|(layer, _)| layer.to_owned())
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
