//! The traits of a family of networks, and of all families of a task.

use std::fmt::Debug;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Device;
use rezero_nn::torch::{ImportError, LoadRules, Loaded, StoredAs, TorchNames, TorchWeights};
use rezero_nn::transformer::Activation;
use rezero_nn::vit::LayersShape;
use rezero_nn::{GrowError, Jacobian, JacobianError, NormKind, Place, ResidualScheme};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::fit::{self, PartUpdate, Pass, Sums};
use crate::recipe::{Gates, Train};
use crate::task::Domain;

/// A family of networks: its `[model]` section.
pub trait Family:
    Clone + Debug + PartialEq + Default + Serialize + DeserializeOwned + JsonSchema
{
    /// The task of its networks.
    type Domain: Domain;
    /// The network that it makes.
    type Network: Module + TorchNames;

    /// The recipe of an imported network, unless another is named.
    const RECIPE: &'static str;
    /// From what to what [`jacobians`](Self::jacobians) go, for tables and captions, such as `from the
    /// image to the logits`.
    const JACOBIAN: &'static str;
    /// Whether its layers have several sub-layers, which may share a gate.
    const SUB_LAYERS: bool = false;
    /// Whether its networks can run layers again in the backward pass.
    const RECOMPUTES: bool = false;

    /// The keys of [`identity`](Self::identity) that may be other ones in a run that begins with the
    /// weights of another run.
    const RESHAPES: &'static [&'static str] = &[];

    /// The residual schemes that it supports.
    fn schemes() -> &'static [ResidualScheme];

    /// The residual scheme of this section.
    fn scheme(&self) -> ResidualScheme;

    /// The value of the key `depth`, by which a network grows.
    fn depth(&self) -> usize;

    /// The same section with another depth.
    #[must_use]
    fn with_depth(self, depth: usize) -> Self;

    /// How many residual layers, or blocks, the network has.
    fn layers(&self) -> usize;

    /// The properties that its task must know.
    fn needs(&self) -> <Self::Domain as Domain>::Needs;

    /// The keys that decide its parameters beside depth, scheme and gates, each as ` key=value`.
    fn identity(&self) -> String;

    /// Checks ranges.
    ///
    /// # Errors
    ///
    /// The value that is out of range.
    fn check(&self, train: &Train) -> Result<()>;

    /// Checks that the network can be made for data of this form.
    ///
    /// # Errors
    ///
    /// The sizes that do not fit together.
    fn takes(&self, form: &<Self::Domain as Domain>::Form) -> Result<()> {
        let _ = form;
        Ok(())
    }

    /// Makes the network.
    fn init(
        &self,
        gates: &Gates,
        form: &<Self::Domain as Domain>::Form,
        device: &Device,
    ) -> Self::Network;

    /// `network` with new layers up to this depth, see [`rezero_nn::Grow`].
    ///
    /// # Errors
    ///
    /// As [`rezero_nn::Grow::grow`].
    fn grow(
        &self,
        gates: &Gates,
        form: &<Self::Domain as Domain>::Form,
        network: Self::Network,
        place: Place,
    ) -> Result<Self::Network, GrowError>;

    /// The parameters, by name, that a network for data of the form `after` gets by
    /// [`interpolate`](Self::interpolate) when it begins with the weights of one for `before`.
    fn interpolates(
        &self,
        before: &<Self::Domain as Domain>::Form,
        after: &<Self::Domain as Domain>::Form,
    ) -> &'static [&'static str] {
        let _ = (before, after);
        &[]
    }

    /// `network` with those parameters, made of those of `source`, a network of the same section for
    /// data of another form.
    fn interpolate(network: Self::Network, source: Self::Network) -> Self::Network {
        let _ = source;
        network
    }

    /// The logits of a batch.
    fn logits(
        network: &Self::Network,
        batch: &<Self::Domain as Domain>::Batch,
    ) -> <Self::Domain as Domain>::Logits;

    /// The Jacobians, one for each item of a batch, [from and to](Self::JACOBIAN) where the family
    /// decides.
    ///
    /// # Errors
    ///
    /// If a Jacobian cannot be computed.
    fn jacobians(
        network: &Self::Network,
        batch: &<Self::Domain as Domain>::Batch,
    ) -> Result<Vec<Jacobian>, JacobianError>;

    /// The gradients of a batch, where layers run again in the backward pass. For families that
    /// [can](Self::RECOMPUTES) hold the graph of one layer at a time.
    fn recomputed(
        network: &Self::Network,
        batch: &<Self::Domain as Domain>::Batch,
        pass: &Pass,
    ) -> Option<(Sums, GradientsParams)> {
        let _ = (network, batch, pass);
        None
    }

    /// The settings of the network in a PyTorch file as far as names and shapes tell them, or `None` if
    /// it holds another network.
    fn recognised(weights: &TorchWeights) -> Option<Recognised>;

    /// The settings that a program needs to build the network in PyTorch, by their keys. An export has
    /// them as metadata.
    fn described(&self, gates: &Gates) -> Vec<(&'static str, String)>;

    /// The keys among them that no shape of a file tells, or not for certain: wrong values give wrong
    /// numbers without an error.
    fn untold(&self) -> Vec<&'static str>;

    /// What the family's usual code in PyTorch does not know of this section.
    fn unknown_in_pytorch(&self, gates: &Gates) -> Vec<String>;

    /// See [`fit::Model::update_by_parts`].
    ///
    /// # Errors
    ///
    /// The network, if it cannot be updated by parts.
    fn update_by_parts(
        network: Self::Network,
        batch: &<Self::Domain as Domain>::Batch,
        pass: &Pass,
        update: &mut PartUpdate<'_>,
    ) -> Result<(Self::Network, Sums), Self::Network> {
        let _ = (batch, pass, update);
        Err(network)
    }
}

/// What a PyTorch file tells of its network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recognised {
    /// Settings by their keys, such as `model.depth`.
    pub settings: Vec<(&'static str, String)>,
    /// The form of its inputs and outputs in words, such as `3 channels, 10 classes`.
    pub form: String,
    /// What it tells of images.
    pub images: Option<ImagesOfFile>,
    /// Settings that the file does not allow, each with those that it does.
    pub not: Vec<(&'static str, &'static str, &'static str)>,
    /// The keys that the metadata of an export may have.
    pub keys: Vec<&'static str>,
}

/// What a PyTorch file of a network of images tells of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImagesOfFile {
    /// The channels, if shapes tell them.
    pub channels: Option<usize>,
    /// Height and width of square images, if shapes tell them.
    pub side: Option<usize>,
    /// The classes.
    pub classes: usize,
}

/// The scheme of a network, unless it is the one that the usual code knows, and a bound of its gates.
pub(super) fn unknown_scheme(
    scheme: ResidualScheme,
    known: ResidualScheme,
    gates: &Gates,
) -> Vec<String> {
    let mut unknown = Vec::new();
    if scheme != known {
        unknown.push(format!("scheme={scheme}"));
    }
    if scheme.has_gate() && gates.alpha_bound != 0.0 {
        unknown.push(format!("alpha_bound={}", gates.alpha_bound));
    }
    unknown
}

/// The whole number whose square `n` is.
pub(super) fn root(n: usize) -> Option<usize> {
    let root = n.isqrt();
    (root * root == n).then_some(root)
}

/// The settings of residual connections that a file's layers of patches tell.
pub(super) fn of_layers(layers: &LayersShape) -> Vec<(&'static str, String)> {
    let scheme = layers.scheme();
    let mut settings = vec![
        ("model.depth", layers.n_layers.to_string()),
        ("model.scheme", scheme.to_string()),
    ];
    if layers.norms > 0 && (layers.rms || scheme == ResidualScheme::ReZero) {
        let norm = match layers.rms {
            true => NormKind::Rms,
            false => NormKind::Layer,
        };
        settings.push(("model.norm", norm.to_string()));
    }
    // LayerScale's gates are always per channel and per sublayer.
    if layers.gates > 0 && scheme != ResidualScheme::LayerScale {
        settings.push(("gates.alpha_shared", (layers.gates == 1).to_string()));
        let per_channel = layers.gate_per_channel.to_string();
        settings.push(("gates.alpha_per_channel", per_channel));
    }
    settings
}

/// The keys of layers of patches that no shape tells for certain.
pub(super) fn untold_of_layers(
    scheme: ResidualScheme,
    activation: Activation,
) -> Vec<&'static str> {
    let mut untold = Vec::new();
    if activation != Activation::SwiGlu {
        untold.push("model.activation");
    }
    // The number of norms and the names of gates.
    if !matches!(
        scheme,
        ResidualScheme::PreNorm | ResidualScheme::PreNormNotebook | ResidualScheme::LayerScale
    ) {
        untold.push("model.scheme");
    }
    untold
}

/// The `[model]` sections of a task's families as one type.
pub trait Families<D: Domain>:
    Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync
{
    /// The family's name.
    fn name(&self) -> &'static str;
    /// See [`Family::schemes`].
    fn schemes(&self) -> &'static [ResidualScheme];
    /// See [`Family::scheme`].
    fn scheme(&self) -> ResidualScheme;
    /// See [`Family::depth`].
    fn depth(&self) -> usize;
    /// See [`Family::with_depth`].
    #[must_use]
    fn with_depth(self, depth: usize) -> Self;
    /// See [`Family::layers`].
    fn layers(&self) -> usize;
    /// See [`Family::needs`].
    fn needs(&self) -> D::Needs;
    /// See [`Family::identity`].
    fn identity(&self) -> String;
    /// See [`Family::JACOBIAN`].
    fn jacobian(&self) -> &'static str;
    /// See [`Family::SUB_LAYERS`].
    fn sub_layers(&self) -> bool;
    /// See [`Family::RECOMPUTES`].
    fn recomputes(&self) -> bool;
    /// See [`Family::RESHAPES`].
    fn reshapes(&self) -> &'static [&'static str];
    /// See [`Family::check`].
    ///
    /// # Errors
    ///
    /// The value that is out of range.
    fn check(&self, train: &Train) -> Result<()>;
    /// See [`Family::takes`].
    ///
    /// # Errors
    ///
    /// The sizes that do not fit together.
    fn takes(&self, form: &D::Form) -> Result<()>;
    /// See [`Family::init`].
    fn init(&self, gates: &Gates, form: &D::Form, device: &Device) -> D::Network;
    /// See [`Family::grow`].
    ///
    /// # Errors
    ///
    /// As [`rezero_nn::Grow::grow`], or if the network is of another family.
    fn grow(
        &self,
        gates: &Gates,
        form: &D::Form,
        network: D::Network,
        place: Place,
    ) -> Result<D::Network, GrowError>;
    /// The name of the family that knows the network in a PyTorch file, its recipe, and what the file
    /// tells.
    fn recognised(weights: &TorchWeights) -> Option<(&'static str, &'static str, Recognised)>;
    /// See [`Family::described`].
    fn described(&self, gates: &Gates) -> Vec<(&'static str, String)>;
    /// See [`Family::untold`].
    fn untold(&self) -> Vec<&'static str>;
    /// See [`Family::unknown_in_pytorch`].
    fn unknown_in_pytorch(&self, gates: &Gates) -> Vec<String>;
    /// See [`Family::interpolates`].
    fn interpolates(&self, before: &D::Form, after: &D::Form) -> &'static [&'static str];
}

/// A network of any of a task's families.
pub trait Zoo: fit::Model {
    /// See [`Domain::Logits`].
    type Logits;

    /// See [`Family::logits`].
    fn logits(&self, batch: &Self::Batch) -> Self::Logits;

    /// See [`Family::interpolate`]. A network of another family gives nothing.
    #[must_use]
    fn interpolate(self, source: Self) -> Self;

    /// See [`Family::jacobians`].
    ///
    /// # Errors
    ///
    /// If a Jacobian cannot be computed.
    fn jacobians(&self, batch: &Self::Batch) -> Result<Vec<Jacobian>, JacobianError>;

    /// The network with the weights of a PyTorch file, see [`load_with`](rezero_nn::torch::load_with).
    ///
    /// # Errors
    ///
    /// As `load_with`.
    fn with_torch(
        self,
        weights: &TorchWeights,
        rules: &LoadRules,
    ) -> Result<(Self, Loaded), ImportError>;

    /// The weights as a safetensors file, see [`export_as`](rezero_nn::torch::export_as).
    ///
    /// # Errors
    ///
    /// As `export_as`.
    fn to_torch(
        &self,
        stored: StoredAs,
        metadata: Vec<(String, String)>,
    ) -> Result<Vec<u8>, ImportError>;
}
