//! Deepening a trained network: new layers begin as the identity, so the output does not change.

use burn::module::Module;
use burn::tensor::Device;

use crate::mlp::{Mlp, MlpConfig};
use crate::residual::{ResidualConfig, ResidualScheme};
use crate::resnet::{
    Arm, CifarResNet, CifarResNetConfig, PreActDepth, PreActResNet, PreActResNetConfig,
};
use crate::transformer::{RztxEncoder, RztxLayerConfig, RztxLm, RztxLmConfig};

/// Where new layers go. A ResNet has them in each stage alike, never before its first block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// After the old ones.
    #[default]
    End,
    /// Spread evenly between them: of N layers, old layer i of n becomes layer ⌊i · N / n⌋.
    Even,
}

/// Why a network cannot grow.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GrowError {
    /// A new layer would not be the identity.
    NotIdentity {
        /// The residual scheme, or the arm of a ResNet.
        scheme: String,
    },
    /// The new network is not deeper than the old one.
    NotDeeper {
        /// The layers, or blocks, that there are.
        have: usize,
        /// Those that are wanted.
        wanted: usize,
    },
    /// The networks differ in more than their depth.
    Shape(String),
}

impl std::fmt::Display for GrowError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotIdentity { scheme } => write!(
                f,
                "a new layer of {scheme} is not the identity and would change the output; ReZero, \
                 SkipInit and gated networks can grow, and ResNets of zero-γ and FixUp"
            ),
            Self::NotDeeper { have, wanted } => write!(
                f,
                "the new network must be deeper: there are {have} layers, {wanted} are wanted"
            ),
            Self::Shape(what) => write!(f, "the networks differ in more than their depth: {what}"),
        }
    }
}

impl std::error::Error for GrowError {}

/// A configuration that can take over the layers of a shallower network of its kind.
///
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use rezero_nn::{Grow, MlpConfig, Place};
///
/// let device = Device::flex();
/// let config = |n_layers| MlpConfig::new(8, 16, n_layers, 3);
/// let shallow = config(4).init(&device);
/// let x = Tensor::<2>::random([2, 8], Distribution::Default, &device);
/// let before = shallow.forward(x.clone()).into_data();
/// let deep = config(12).grow(shallow, Place::Even).unwrap();
/// assert_eq!(deep.layers.len(), 12);
/// assert_eq!(deep.forward(x).into_data(), before);
/// ```
pub trait Grow {
    /// What is configured.
    type Network: Module;

    /// `network` with new layers of this configuration, as many as it has more, each with α = 0
    /// whatever the configuration's. Its output is the same bit for bit, while branches are finite.
    ///
    /// Old parameters keep their ids, which Burn's optimizers keep their state by, and gates their
    /// names, which [`alpha_group`](crate::alpha_group) finds them by.
    ///
    /// # Errors
    ///
    /// If a new layer would not be the identity, the configuration is not deeper, or it differs in
    /// width or kind.
    fn grow(&self, network: Self::Network, place: Place) -> Result<Self::Network, GrowError>;
}

/// `fresh`, whose layers make room for `old`.
fn insert<T>(old: Vec<T>, mut fresh: Vec<T>, place: Place) -> Result<Vec<T>, GrowError> {
    let (have, wanted) = (old.len(), fresh.len());
    if wanted <= have || have == 0 {
        return Err(GrowError::NotDeeper { have, wanted });
    }
    for (i, layer) in old.into_iter().enumerate() {
        let at = match place {
            Place::End => i,
            Place::Even => i * wanted / have,
        };
        fresh[at] = layer;
    }
    Ok(fresh)
}

/// The residual connections of new layers.
fn identity(residual: &ResidualConfig) -> Result<ResidualConfig, GrowError> {
    use ResidualScheme::{Gated, ReZero, SkipInit};
    match residual.scheme {
        ReZero | SkipInit | Gated => {
            let mut residual = residual.clone();
            residual.rezero.alpha = 0.0;
            Ok(residual)
        }
        scheme => Err(GrowError::NotIdentity {
            scheme: format!("{scheme:?}"),
        }),
    }
}

fn device_of<M: Module>(module: &M) -> Device {
    let devices = module.devices();
    devices
        .into_iter()
        .next()
        .expect("a module with parameters")
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, old: T, new: T) -> Result<(), GrowError> {
    match old == new {
        true => Ok(()),
        false => Err(GrowError::Shape(format!("{what} {old:?} and {new:?}"))),
    }
}

impl Grow for MlpConfig {
    type Network = Mlp;

    fn grow(&self, mut network: Mlp, place: Place) -> Result<Mlp, GrowError> {
        let config = self.clone().with_residual(identity(&self.residual)?);
        let [d_input, width] = network.input.weight.lazy_shape().dims();
        let [_, classes] = network.output.weight.lazy_shape().dims();
        same("d_input", d_input, self.d_input)?;
        same("width", width, self.width)?;
        same("num_classes", classes, self.num_classes)?;
        same("input_relu", network.input_relu, self.input_relu)?;
        if let Some(layer) = network.layers.first() {
            same("scheme", layer.residual.scheme, self.residual.scheme)?;
        }
        let fresh = config.init(&device_of(&network)).layers;
        network.layers = insert(network.layers, fresh, place)?;
        Ok(network)
    }
}

impl Grow for RztxLmConfig {
    type Network = RztxLm;

    fn grow(&self, mut network: RztxLm, place: Place) -> Result<RztxLm, GrowError> {
        let [vocab_size, d_model] = network.embedding.weight.lazy_shape().dims();
        same("vocab_size", vocab_size, self.vocab_size)?;
        same("d_model", d_model, self.layer.d_model)?;
        same("context", network.context, self.context)?;
        same("tied", network.head.is_none(), self.tied)?;
        let device = device_of(&network);
        let layer = self.stacked_layer();
        network.encoder = grow_encoder(&layer, self.n_layers, network.encoder, place, &device)?;
        Ok(network)
    }
}

fn grow_encoder(
    layer: &RztxLayerConfig,
    n_layers: usize,
    mut encoder: RztxEncoder,
    place: Place,
    device: &Device,
) -> Result<RztxEncoder, GrowError> {
    let mut layer = layer.clone();
    layer.residual = identity(&layer.residual)?;
    if let Some(old) = encoder.layers.first() {
        let [_, d_ff] = old.feed_forward.linear1.weight.lazy_shape().dims();
        same("d_ff", d_ff, layer.d_ff)?;
        same("n_heads", old.attention.n_heads, layer.n_heads)?;
        let gates = (old.residual.rezero.is_some(), layer.share_alpha_of_scheme());
        same("shared gates", gates.0, gates.1)?;
        if let Some(sub_layer) = old.residual.sub_layers.first() {
            same("scheme", sub_layer.scheme, layer.residual.scheme)?;
        }
    }
    let fresh = layer.init_encoder(n_layers, device).layers;
    encoder.layers = insert(encoder.layers, fresh, place)?;
    Ok(encoder)
}

impl Grow for CifarResNetConfig {
    type Network = CifarResNet;

    fn grow(&self, mut network: CifarResNet, place: Place) -> Result<CifarResNet, GrowError> {
        same("arm", network.arm, self.arm)?;
        if self.arm == Arm::Vanilla {
            return Err(GrowError::NotIdentity {
                scheme: format!("{:?}", self.arm),
            });
        }
        let mut config = self.clone();
        config.rezero.alpha = 0.0;
        let fresh = config.init(&device_of(&network)).blocks;
        let parts = |blocks: &[crate::resnet::BasicBlock]| {
            let gate = blocks
                .first()
                .and_then(|block| block.residual.rezero.as_ref());
            let shortcuts = blocks.iter().any(|block| block.shortcut.norm.is_some());
            (
                shortcuts,
                gate.map(|gate| gate.alpha.lazy_shape().num_elements() > 1),
            )
        };
        same("definition or gates", parts(&network.blocks), parts(&fresh))?;
        let n = network.blocks.len() / 3;
        network.blocks = stages(network.blocks, &[n; 3], fresh, &[self.blocks(); 3], place)?;
        Ok(network)
    }
}

impl Grow for PreActResNetConfig {
    type Network = PreActResNet;

    /// Depth 18 can become 34; 50 has blocks of another kind.
    fn grow(&self, mut network: PreActResNet, place: Place) -> Result<PreActResNet, GrowError> {
        let residual = identity(&ResidualConfig::new(self.scheme))?;
        let convs = |depth| match depth {
            PreActDepth::D50 => 3,
            _ => 2,
        };
        if let Some(old) = network.blocks.first() {
            same("scheme", old.residual.scheme, residual.scheme)?;
            same("layers in a block", old.convs.len(), convs(self.depth))?;
        }
        let mut config = self.clone();
        config.rezero.alpha = 0.0;
        let fresh = config.init(&device_of(&network)).blocks;
        let old = match network.blocks.len() {
            8 => [2, 2, 2, 2],
            _ => [3, 4, 6, 3],
        };
        let new = self.depth.blocks();
        network.blocks = stages(network.blocks, &old, fresh, &new, place)?;
        Ok(network)
    }
}

/// [`insert`] in each stage.
fn stages<T>(
    old: Vec<T>,
    have: &[usize],
    fresh: Vec<T>,
    wanted: &[usize],
    place: Place,
) -> Result<Vec<T>, GrowError> {
    let (mut old, mut fresh) = (old.into_iter(), fresh.into_iter());
    let mut blocks = Vec::new();
    for (&have, &wanted) in have.iter().zip(wanted) {
        let old = old.by_ref().take(have).collect();
        let fresh = fresh.by_ref().take(wanted).collect();
        blocks.extend(insert(old, fresh, place)?);
    }
    Ok(blocks)
}
