//! `family = "cifar-resnet"`: ResNets of depth 6n+2.

use burn::tensor::{Device, Tensor};
use rezero_data::ImageBatch;
use rezero_nn::resnet::{CifarResNet, CifarResNetConfig, Definition, cifar_resnet_shape};
use rezero_nn::torch::TorchWeights;
use rezero_nn::{Grow, GrowError, Jacobian, JacobianError, JacobianProbe, Place, ResidualScheme};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::family::unknown_scheme;
use super::{Family, ImagesOfFile, Recognised};
use crate::error::Result;
use crate::recipe::check::check;
use crate::recipe::{Gates, Train};
use crate::task::{ImageForm, Images};

/// A ResNet of 6n+2 weighted layers for small images: He et al., arXiv 1512.03385, section 4.2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Section {
    /// The number of weighted layers, 6n+2: a convolution, three stages of n blocks of two
    /// convolutions each, with 16, 32 and 64 channels, and a linear layer.
    pub depth: usize,
    /// The residual scheme: how a block joins its input `x` with its branch `F`.
    pub scheme: ResidualScheme,
    /// Which version of the authors' CIFAR code decides what the paper leaves open: the shortcut
    /// where a stage halves the image, and the initial weights.
    pub definition: Definition,
}

/// The network of the family.
pub type Network = CifarResNet;

impl Default for Section {
    fn default() -> Self {
        Self {
            depth: 20,
            scheme: ResidualScheme::ReZero,
            definition: Definition::Notebook,
        }
    }
}

impl Section {
    fn config(&self, gates: &Gates, form: &ImageForm) -> CifarResNetConfig {
        CifarResNetConfig::new(self.depth)
            .with_definition(self.definition)
            .with_in_channels(form.shape.channels)
            .with_num_classes(form.num_classes)
            .with_residual(gates.residual(self.scheme))
    }
}

impl Family for Section {
    type Domain = Images;
    type Network = Network;

    const RECIPE: &'static str = "cifar10-resnet20";
    const JACOBIAN: &'static str = "from the image to the logits";

    fn schemes() -> &'static [ResidualScheme] {
        CifarResNetConfig::SCHEMES
    }

    fn scheme(&self) -> ResidualScheme {
        self.scheme
    }

    fn depth(&self) -> usize {
        self.depth
    }

    fn with_depth(self, depth: usize) -> Self {
        Self { depth, ..self }
    }

    fn layers(&self) -> usize {
        (self.depth - 2) / 2
    }

    fn needs(&self) {}

    fn identity(&self) -> String {
        format!(" definition={}", self.definition)
    }

    fn check(&self, _train: &Train) -> Result<()> {
        check(
            self.depth >= 8 && self.depth % 6 == 2 && self.depth <= 10_000,
            "model.depth",
            format!(
                "a cifar-resnet has 6n+2 layers (8, 14, 20, 32, 44, 56, 110, 1202, at most 9,998), got {}",
                self.depth
            ),
        )
    }

    fn init(&self, gates: &Gates, form: &ImageForm, device: &Device) -> Network {
        self.config(gates, form).init(device)
    }

    fn grow(
        &self,
        gates: &Gates,
        form: &ImageForm,
        network: Network,
        place: Place,
    ) -> Result<Network, GrowError> {
        self.config(gates, form).grow(network, place)
    }

    fn recognised(weights: &TorchWeights) -> Option<Recognised> {
        let shape = cifar_resnet_shape(weights)?;
        let scheme = match (shape.norm, shape.gate, shape.fixup) {
            (_, _, true) => ResidualScheme::FixUp,
            (true, true, false) => ResidualScheme::ReZero,
            (true, false, false) => ResidualScheme::Residual,
            (false, _, false) => ResidualScheme::SkipInit,
        };
        let definition = match (shape.projection, shape.shortcut_norm) {
            (true, _) => Definition::Projection,
            (false, true) => Definition::Table,
            (false, false) => Definition::Notebook,
        };
        Some(Recognised {
            settings: vec![
                ("model.depth", shape.depth.to_string()),
                ("model.scheme", scheme.to_string()),
                ("model.definition", definition.to_string()),
            ],
            form: format!(
                "{} channels, {} classes",
                shape.in_channels, shape.num_classes
            ),
            images: Some(ImagesOfFile {
                channels: Some(shape.in_channels),
                side: None,
                classes: shape.num_classes,
            }),
            ..Recognised::default()
        })
    }

    fn described(&self, gates: &Gates) -> Vec<(&'static str, String)> {
        let mut all = vec![
            ("model.depth", self.depth.to_string()),
            ("model.scheme", self.scheme.to_string()),
            ("model.definition", self.definition.to_string()),
        ];
        all.extend(gates.described(self.scheme, false));
        all
    }

    /// A gated block has the parameters of ReZero's, and zero-γ those of a plain ResNet.
    fn untold(&self) -> Vec<&'static str> {
        vec!["model.scheme"]
    }

    /// torchvision's layers.
    fn unknown_in_pytorch(&self, gates: &Gates) -> Vec<String> {
        unknown_scheme(self.scheme, ResidualScheme::Residual, gates)
    }

    fn logits(network: &Network, batch: &ImageBatch) -> Tensor<2> {
        network.forward(batch.images.clone())
    }

    fn jacobians(network: &Network, batch: &ImageBatch) -> Result<Vec<Jacobian>, JacobianError> {
        JacobianProbe::new().run_module(network, |net, x| net.forward(x), batch.images.clone())
    }
}
