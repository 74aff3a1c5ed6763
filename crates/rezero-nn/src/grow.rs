//! Makes a trained network deeper: new layers begin as the identity, so the output does not change.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

use crate::residual::{ResidualConfig, ResidualScheme};

/// Where new layers go. In a ResNet the rule applies to each stage; the first block of a stage
/// stays first.
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
        /// The residual scheme.
        scheme: ResidualScheme,
    },
    /// The new network is not deeper than the old one.
    NotDeeper {
        /// The number of layers, or blocks, of the old network.
        have: usize,
        /// The number of layers, or blocks, of the new network.
        wanted: usize,
    },
    /// The networks differ in more than their depth.
    Shape(String),
}

impl std::fmt::Display for GrowError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotIdentity { scheme } => {
                let mut growing = ResidualScheme::ALL.to_vec();
                growing.retain(|scheme| scheme.begins_as_identity());
                write!(
                    f,
                    "a new layer of {scheme} is not the identity and would change the output; \
                     networks of these schemes can grow: {}",
                    ResidualScheme::names(&growing)
                )
            }
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
    /// The network that this configuration creates.
    type Network: Module;

    /// Adds new layers of this configuration to `network` until it has the configuration's depth.
    /// New layers begin with α = 0, whatever the configuration's α is. The output of the network is
    /// the same bit for bit, as long as the branches give finite values.
    ///
    /// Old parameters keep their ids, so the state of Burn's optimizers stays valid for them.
    /// [`gate_group`](crate::gate_group) also finds gates by id: take a new group for the new
    /// gates.
    ///
    /// # Errors
    ///
    /// If a new layer would not be the identity, the configuration is not deeper, or it differs in
    /// width or kind.
    fn grow(&self, network: Self::Network, place: Place) -> Result<Self::Network, GrowError>;
}

/// `fresh` with the layers at the indices of `place` replaced by those of `old`.
pub(crate) fn insert<T>(old: Vec<T>, mut fresh: Vec<T>, place: Place) -> Result<Vec<T>, GrowError> {
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

/// The residual configuration of new layers, with α = 0.
pub(crate) fn identity(residual: &ResidualConfig) -> Result<ResidualConfig, GrowError> {
    match residual.scheme.begins_as_identity() {
        true => {
            let mut residual = residual.clone();
            residual.rezero.alpha = 0.0;
            Ok(residual)
        }
        false => Err(GrowError::NotIdentity {
            scheme: residual.scheme,
        }),
    }
}

pub(crate) fn device_of<M: Module>(module: &M) -> Device {
    let devices = module.devices();
    devices
        .into_iter()
        .next()
        .expect("a module with parameters")
}

pub(crate) fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    old: T,
    new: T,
) -> Result<(), GrowError> {
    match old == new {
        true => Ok(()),
        false => Err(GrowError::Shape(format!("{what} {old:?} and {new:?}"))),
    }
}

/// [`insert`] in each stage.
pub(crate) fn stages<T>(
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

/// Checks that two layers have the same parameters, by name and shape. Then both have the same
/// kinds of biases, norms and gates.
pub(crate) fn same_parameters<M: Module>(old: &M, new: &M) -> Result<(), GrowError> {
    let (old, new) = (parameters(old), parameters(new));
    match old.iter().zip(&new).find(|(a, b)| a != b) {
        Some((a, b)) => same("a layer's", a, b),
        None => same("a layer's number of parameters", old.len(), new.len()),
    }
}

/// Name and shape of every parameter.
fn parameters<M: Module>(module: &M) -> Vec<(String, Vec<usize>)> {
    #[derive(Default)]
    struct Shapes {
        path: Vec<String>,
        found: Vec<(String, Vec<usize>)>,
    }
    impl ModuleVisitor for Shapes {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let shape = param.lazy_shape().to_vec();
            self.found.push((self.path.join("."), shape));
        }
    }
    let mut shapes = Shapes::default();
    module.visit(&mut shapes);
    shapes.found
}
