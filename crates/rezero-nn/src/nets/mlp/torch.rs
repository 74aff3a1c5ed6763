//! The names of fully connected networks in PyTorch, see the [module](super).

use std::collections::BTreeSet;

use super::Mlp;
use crate::torch::{TorchName, TorchNames, TorchTensors, TorchWeights, complete_head, field};

/// The form of a fully connected network, from the names and shapes of its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MlpShape {
    /// The number of inputs.
    pub d_input: usize,
    /// The width of the residual layers.
    pub width: usize,
    /// The number of residual layers.
    pub n_layers: usize,
    /// The number of classes.
    pub num_classes: usize,
    /// Whether each layer has a gate.
    pub gate: bool,
    /// Whether there is a norm.
    pub norm: bool,
}

/// The form of the fully connected network in `weights`, or `None` if they are none.
pub fn mlp_shape(weights: &TorchWeights) -> Option<MlpShape> {
    let expected = ["linear_input.weight", "linear_output.weight"];
    let named = weights.named(names, &expected.map(str::to_owned).into())?;
    let shape = |name: &str| -> Option<[usize; 2]> { named.get(name)?.shape().try_into().ok() };
    let [width, d_input] = shape(expected[0])?;
    let [num_classes, _] = shape(expected[1])?;
    let layer = |i: usize| format!("layers.{i}.weight");
    Some(MlpShape {
        d_input,
        width,
        n_layers: (0..).find(|i| !named.contains_key(&layer(*i)))?,
        num_classes,
        gate: named.contains_key("layers.0.resweight"),
        norm: named.keys().any(|name| name.contains("norm")),
    })
}

impl TorchNames for Mlp {
    fn torch_name(&self, path: &[String]) -> TorchName {
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        let name = match parts[..] {
            ["input", leaf] => format!("linear_input.{leaf}"),
            ["output", leaf] => format!("linear_output.{leaf}"),
            ["layers", i, "linear", leaf] => format!("layers.{i}.{leaf}"),
            ["layers", i, "residual", .., "alpha"] => format!("layers.{i}.resweight"),
            ["layers", i, "residual", .., leaf] => format!("layers.{i}.norm.{}", field(leaf)),
            ["shared_norm", .., leaf] => format!("shared_norm.{}", field(leaf)),
            ["norm", .., leaf] => format!("norm.{}", field(leaf)),
            _ => parts.join("."),
        };
        TorchName {
            name,
            transposed: matches!(
                parts[..],
                ["input" | "output", "weight"] | ["layers", _, "linear", "weight"]
            ),
            shape: None,
        }
    }

    fn translate(tensors: &mut TorchTensors, expected: &BTreeSet<String>) {
        names(tensors, expected);
        complete_head(tensors, expected, "linear_output");
    }
}

fn names(tensors: &mut TorchTensors, _expected: &BTreeSet<String>) {
    // The one list of matrices, whatever its name is.
    let list = tensors
        .keys()
        .filter_map(|name| name.strip_suffix(".0.weight"))
        .find(|list| !list.contains('.') && *list != "layers")
        .map(str::to_owned);
    if let Some(list) = list
        && !tensors.keys().any(|name| name.starts_with("layers."))
    {
        let prefix = format!("{list}.");
        *tensors = std::mem::take(tensors)
            .into_iter()
            .map(|(name, tensor)| match name.strip_prefix(&prefix) {
                Some(rest) => (format!("layers.{rest}"), tensor),
                None => (name, tensor),
            })
            .collect();
    }
    for gates in ["resweight", "alpha"] {
        let Some(vector) = tensors.get(gates) else {
            continue;
        };
        // As many as there are layers: the file says how many, and it may be any number.
        let layer = |i: &usize| tensors.contains_key(&format!("layers.{i}.weight"));
        let &[n] = vector.shape() else {
            continue;
        };
        if (0..n).take_while(layer).count() != n {
            continue;
        }
        if let Some(vector) = tensors.remove(gates) {
            for i in 0..n {
                tensors.insert(format!("layers.{i}.resweight"), vector.element(i));
            }
        }
    }
}
