//! The names of ResNets in PyTorch, see the [module](super).

use std::collections::BTreeSet;

use super::{CifarResNet, PreActResNet};
use crate::torch::{
    TorchName, TorchNames, TorchTensors, TorchWeights, complete_head, field, renamed,
};

/// The form of a CIFAR ResNet, from the names and shapes of its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CifarResNetShape {
    /// The number of weighted layers, 6n+2.
    pub depth: usize,
    /// The channels of an image.
    pub in_channels: usize,
    /// The number of classes.
    pub num_classes: usize,
    /// Whether a down-sampling shortcut is a convolution.
    pub projection: bool,
    /// Whether a down-sampling shortcut has a batch norm.
    pub shortcut_norm: bool,
    /// Whether blocks have batch norms.
    pub norm: bool,
    /// Whether each block has a gate.
    pub gate: bool,
    /// Whether each block has the scalars of FixUp.
    pub fixup: bool,
}

/// The form of a pre-activation ResNet, from the names and shapes of its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreActResNetShape {
    /// The number of weighted layers: 18, 34 or 50.
    pub depth: usize,
    /// The channels of an image.
    pub in_channels: usize,
    /// The number of classes.
    pub num_classes: usize,
    /// Whether each block has a gate.
    pub gate: bool,
}

/// The first tensor of every ResNet, by which the prefix of its names is found.
const STEM: [&str; 2] = ["conv1.weight", "layer1.0.conv1.weight"];

/// The number of blocks of each stage `layer1`, `layer2`, ….
fn stages(named: &TorchTensors) -> Vec<usize> {
    let has = |stage: usize, block: usize| {
        named.contains_key(&format!("layer{stage}.{block}.conv1.weight"))
    };
    let blocks = |stage| (0..).find(|block| !has(stage, *block)).unwrap_or(0);
    (1..).map(blocks).take_while(|blocks| *blocks > 0).collect()
}

/// `[out, in]` of the first two extents.
fn extents(named: &TorchTensors, name: &str) -> Option<[usize; 2]> {
    named.get(name)?.shape().get(..2)?.try_into().ok()
}

/// The form of the CIFAR ResNet in `weights`, or `None` if they are none.
pub fn cifar_resnet_shape(weights: &TorchWeights) -> Option<CifarResNetShape> {
    let mut expected = BTreeSet::from(STEM.map(str::to_owned));
    expected.insert("fc.weight".to_owned());
    let named = weights.named(cifar_names, &expected)?;
    let [width, in_channels] = extents(&named, STEM[0])?;
    let [num_classes, features] = extents(&named, "fc.weight")?;
    let [first, second, third] = stages(&named)[..] else {
        return None;
    };
    let has = |name: &str| named.contains_key(name);
    // The norm of a pre-activation block is before its first convolution, of the input's channels.
    let is = width == 16 && features == 64 && first == second && second == third;
    is.then(|| CifarResNetShape {
        depth: 6 * first + 2,
        in_channels,
        num_classes,
        projection: has("layer2.0.downsample.0.weight"),
        shortcut_norm: has("layer2.0.downsample.1.weight"),
        norm: has("layer1.0.bn1.weight"),
        gate: has("layer1.0.resweight"),
        fixup: has("layer1.0.scale"),
    })
}

/// The form of the pre-activation ResNet in `weights`, or `None` if they are none.
pub fn preact_resnet_shape(weights: &TorchWeights) -> Option<PreActResNetShape> {
    let mut expected = BTreeSet::from(STEM.map(str::to_owned));
    expected.insert("linear.weight".to_owned());
    let named = weights.named(preact_names, &expected)?;
    let [width, in_channels] = extents(&named, STEM[0])?;
    let [num_classes, _] = extents(&named, "linear.weight")?;
    let has = |name: &str| named.contains_key(name);
    let depth = match (&stages(&named)[..], has("layer1.0.conv3.weight")) {
        ([2, 2, 2, 2], false) => 18,
        ([3, 4, 6, 3], false) => 34,
        ([3, 4, 6, 3], true) => 50,
        _ => return None,
    };
    // torchvision's ResNet-18 has a norm after its first convolution.
    let is = width == 64 && !has("bn1.weight") && has("layer1.0.bn1.weight");
    is.then(|| PreActResNetShape {
        depth,
        in_channels,
        num_classes,
        gate: has("layer1.0.resweight"),
    })
}

/// The name of a block's stage and its place there, for stages of these numbers of blocks.
fn stage(block: usize, stages: &[usize]) -> String {
    let mut first = 0;
    for (i, blocks) in stages.iter().enumerate() {
        if block < first + blocks {
            return format!("layer{}.{}", i + 1, block - first);
        }
        first += blocks;
    }
    format!("layer{}.{}", stages.len() + 1, block - first)
}

/// The index in a path.
fn index(text: &str) -> usize {
    text.parse().unwrap_or(0)
}

impl TorchNames for CifarResNet {
    fn torch_name(&self, path: &[String]) -> TorchName {
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        let stages = [self.blocks.len() / 3; 3];
        let block = |i: &str| stage(index(i), &stages);
        let name = match parts[..] {
            ["conv", leaf] => format!("conv1.{leaf}"),
            ["norm", leaf] => format!("bn1.{}", field(leaf)),
            ["linear", leaf] => format!("fc.{leaf}"),
            ["blocks", i, "branch", "fixup", scalar] => format!("{}.{scalar}", block(i)),
            ["blocks", i, "branch", layer, leaf] => {
                format!(
                    "{}.{}.{}",
                    block(i),
                    layer.replace("norm", "bn"),
                    field(leaf)
                )
            }
            ["blocks", i, "shortcut", "conv", leaf] => format!("{}.downsample.0.{leaf}", block(i)),
            ["blocks", i, "shortcut", "norm", leaf] => {
                format!("{}.downsample.1.{}", block(i), field(leaf))
            }
            ["blocks", i, "residual", .., "alpha"] => format!("{}.resweight", block(i)),
            _ => parts.join("."),
        };
        TorchName {
            name,
            transposed: parts[..] == ["linear", "weight"],
            shape: None,
        }
    }

    fn translate(tensors: &mut TorchTensors, expected: &BTreeSet<String>) {
        cifar_names(tensors, expected);
        complete_head(tensors, expected, "fc");
    }
}

impl TorchNames for PreActResNet {
    fn torch_name(&self, path: &[String]) -> TorchName {
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        // Every stage but the first begins with a stride.
        let strided = |i: &usize| {
            self.blocks[*i]
                .convs
                .iter()
                .any(|conv| conv.stride != [1, 1])
        };
        let starts: Vec<usize> = (0..self.blocks.len())
            .filter(|i| *i == 0 || strided(i))
            .chain([self.blocks.len()])
            .collect();
        let stages: Vec<usize> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let block = |i: &str| stage(index(i), &stages);
        let name = match parts[..] {
            ["conv", leaf] => format!("conv1.{leaf}"),
            ["blocks", i, "norms", k, leaf] => {
                format!("{}.bn{}.{}", block(i), index(k) + 1, field(leaf))
            }
            ["blocks", i, "convs", k, leaf] => format!("{}.conv{}.{leaf}", block(i), index(k) + 1),
            ["blocks", i, "shortcut", leaf] => format!("{}.shortcut.0.{leaf}", block(i)),
            ["blocks", i, "residual", .., "alpha"] => format!("{}.resweight", block(i)),
            _ => parts.join("."),
        };
        TorchName {
            name,
            transposed: parts[..] == ["linear", "weight"],
            shape: None,
        }
    }

    fn translate(tensors: &mut TorchTensors, expected: &BTreeSet<String>) {
        preact_names(tensors, expected);
        complete_head(tensors, expected, "linear");
    }
}

fn cifar_names(tensors: &mut TorchTensors, _expected: &BTreeSet<String>) {
    renamed(tensors, |parts| match parts {
        ["linear", leaf] => Some(format!("fc.{leaf}")),
        [stage, i, "shortcut", "bn", leaf] => Some(format!("{stage}.{i}.downsample.1.{leaf}")),
        [stage, i, "shortcut", k, leaf] => Some(format!("{stage}.{i}.downsample.{k}.{leaf}")),
        [stage, i, "alpha"] => Some(format!("{stage}.{i}.resweight")),
        _ => None,
    });
}

fn preact_names(tensors: &mut TorchTensors, _expected: &BTreeSet<String>) {
    renamed(tensors, |parts| match parts {
        ["fc", leaf] => Some(format!("linear.{leaf}")),
        [stage, i, "downsample", k, leaf] => Some(format!("{stage}.{i}.shortcut.{k}.{leaf}")),
        [stage, i, "shortcut" | "downsample", "weight"] => {
            Some(format!("{stage}.{i}.shortcut.0.weight"))
        }
        [stage, i, "alpha"] => Some(format!("{stage}.{i}.resweight")),
        _ => None,
    });
}
