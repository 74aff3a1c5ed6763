//! `family = "preact-resnet"`: pre-activation ResNets.

use burn::tensor::{Device, Tensor};
use rezero_data::ImageBatch;
use rezero_nn::resnet::{PreActDepth, PreActResNet, PreActResNetConfig, preact_resnet_shape};
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

/// A pre-activation ResNet: He et al., arXiv 1603.05027, as the authors of ReZero run it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Section {
    /// The number of weighted layers: 18 or 34, in blocks of two convolutions, or 50, in blocks of
    /// three.
    pub depth: usize,
    /// The residual scheme: how a block joins its input `x` with its branch `F`.
    pub scheme: ResidualScheme,
}

/// The network of the family.
pub type Network = PreActResNet;

impl Default for Section {
    fn default() -> Self {
        Self {
            depth: 18,
            scheme: ResidualScheme::ReZero,
        }
    }
}

/// The possible depths, each with its number of blocks.
const DEPTHS: [(usize, PreActDepth, usize); 3] = [
    (18, PreActDepth::D18, 8),
    (34, PreActDepth::D34, 16),
    (50, PreActDepth::D50, 16),
];

impl Section {
    fn named(&self) -> Option<(PreActDepth, usize)> {
        let found = DEPTHS.iter().find(|(depth, ..)| *depth == self.depth);
        found.map(|(_, named, blocks)| (*named, *blocks))
    }

    fn config(&self, gates: &Gates, form: &ImageForm) -> PreActResNetConfig {
        let (depth, _) = self.named().expect("the recipe was checked");
        PreActResNetConfig::new(depth)
            .with_in_channels(form.shape.channels)
            .with_num_classes(form.num_classes)
            .with_residual(gates.residual(self.scheme))
    }
}

impl Family for Section {
    type Domain = Images;
    type Network = Network;

    const RECIPE: &'static str = "cifar10-preact18";
    const JACOBIAN: &'static str = "from the image to the logits";

    fn schemes() -> &'static [ResidualScheme] {
        PreActResNetConfig::SCHEMES
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
        self.named().map_or(0, |(_, blocks)| blocks)
    }

    fn needs(&self) {}

    fn identity(&self) -> String {
        String::new()
    }

    fn check(&self, _train: &Train) -> Result<()> {
        check(
            self.named().is_some(),
            "model.depth",
            format!(
                "a preact-resnet has 18, 34 or 50 layers, got {}",
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
        let shape = preact_resnet_shape(weights)?;
        let scheme = match shape.gate {
            true => ResidualScheme::ReZero,
            false => ResidualScheme::Residual,
        };
        Some(Recognised {
            settings: vec![
                ("model.depth", shape.depth.to_string()),
                ("model.scheme", scheme.to_string()),
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
        ];
        all.extend(gates.described(self.scheme, false));
        all
    }

    fn untold(&self) -> Vec<&'static str> {
        match self.scheme.has_gate() {
            true => vec!["model.scheme"],
            false => vec![],
        }
    }

    /// The usual layers.
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
