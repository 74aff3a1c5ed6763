//! `family = "mlp"`: deep fully connected networks.

use burn::tensor::{Device, Tensor};
use rezero_data::ImageBatch;
use rezero_nn::mlp::{Mlp, MlpConfig, mlp_shape};
use rezero_nn::torch::TorchWeights;
use rezero_nn::{Grow, GrowError, Jacobian, JacobianError, JacobianProbe, Place, ResidualScheme};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::family::{root, unknown_scheme};
use super::{Family, ImagesOfFile, MAX_PARAMETERS, Recognised};
use crate::error::Result;
use crate::fit::{PartUpdate, Pass, Sums};
use crate::recipe::check::{check, positive};
use crate::recipe::{Gates, Train};
use crate::task::{Domain, ImageForm, Images};

/// A deep fully connected network: the paper's section 4.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Section {
    /// The number of residual layers. A first layer to their width and a last one to the classes
    /// are not counted.
    pub depth: usize,
    /// The residual scheme: how a layer joins its input `x` with its branch `F`.
    pub scheme: ResidualScheme,
    /// The number of units of each residual layer; the paper has 256.
    pub width: usize,
}

/// The network of the family.
pub type Network = Mlp;

impl Default for Section {
    fn default() -> Self {
        Self {
            depth: 64,
            scheme: ResidualScheme::ReZero,
            width: 256,
        }
    }
}

impl Section {
    fn config(&self, gates: &Gates, form: &ImageForm) -> MlpConfig {
        MlpConfig::new(form.shape.bytes(), self.width, self.depth, form.num_classes)
            .with_residual(gates.residual(self.scheme))
    }
}

impl Family for Section {
    type Domain = Images;
    type Network = Network;

    const RECIPE: &'static str = "cifar10-mlp64";
    const JACOBIAN: &'static str = "from the input of the residual layers to their output";

    const RECOMPUTES: bool = true;

    fn schemes() -> &'static [ResidualScheme] {
        MlpConfig::SCHEMES
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
        self.depth
    }

    fn needs(&self) {}

    fn identity(&self) -> String {
        format!(" width={}", self.width)
    }

    fn check(&self, train: &Train) -> Result<()> {
        positive("model.depth", self.depth, 1_000_000)?;
        positive("model.width", self.width, 1 << 16)?;
        check(
            !train.recompute || (train.clip_norm == 0.0 && train.accumulate == 1),
            "train.recompute",
            "an mlp is updated while its gradients come, before their norm is known: needs clip_norm=0 \
             and accumulate=1"
                .to_owned(),
        )?;
        check(
            !train.recompute || train.freeze.is_empty(),
            "train.freeze",
            "an mlp with recompute=true is updated while its gradients come: leave out one of the two".to_owned(),
        )?;
        let parameters = self.depth as u64 * (self.width as u64).pow(2);
        check(
            parameters <= MAX_PARAMETERS,
            "model.width",
            format!(
                "at most {MAX_PARAMETERS} parameters, got {parameters} of depth={} width={}",
                self.depth, self.width
            ),
        )
    }

    fn takes(&self, form: &ImageForm) -> Result<()> {
        let ends = form.shape.bytes().saturating_add(form.num_classes) as u64;
        let parameters = (self.depth as u64 * (self.width as u64).pow(2))
            .saturating_add(ends.saturating_mul(self.width as u64));
        check(
            parameters <= MAX_PARAMETERS,
            "model.width",
            format!(
                "at most {MAX_PARAMETERS} parameters, got {parameters} of depth={} width={} for images of {} \
                 in {} classes",
                self.depth, self.width, form.shape, form.num_classes
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
        let shape = mlp_shape(weights)?;
        let mut settings = vec![
            ("model.depth", shape.n_layers.to_string()),
            ("model.width", shape.width.to_string()),
        ];
        if shape.gate {
            settings.push(("model.scheme", ResidualScheme::ReZero.to_string()));
        }
        // Square images in colours or in grey.
        let of = |channels: usize| {
            let side =
                root(shape.d_input / channels).filter(|_| shape.d_input.is_multiple_of(channels));
            side.map(|side| (channels, side))
        };
        let (channels, side) = of(3).or_else(|| of(1)).unzip();
        Some(Recognised {
            settings,
            form: format!("{} inputs, {} classes", shape.d_input, shape.num_classes),
            images: Some(ImagesOfFile {
                channels,
                side,
                classes: shape.num_classes,
            }),
            ..Recognised::default()
        })
    }

    fn described(&self, gates: &Gates) -> Vec<(&'static str, String)> {
        let mut all = vec![
            ("model.depth", self.depth.to_string()),
            ("model.width", self.width.to_string()),
            ("model.scheme", self.scheme.to_string()),
        ];
        all.extend(gates.described(self.scheme, false));
        all
    }

    fn untold(&self) -> Vec<&'static str> {
        match self.scheme.has_gate() {
            true => vec![],
            false => vec!["model.scheme"],
        }
    }

    /// The authors' notebook.
    fn unknown_in_pytorch(&self, gates: &Gates) -> Vec<String> {
        unknown_scheme(self.scheme, ResidualScheme::ReZero, gates)
    }

    fn logits(network: &Network, batch: &ImageBatch) -> Tensor<2> {
        network.forward(batch.images.clone().flatten(1, 3))
    }

    fn jacobians(network: &Network, batch: &ImageBatch) -> Result<Vec<Jacobian>, JacobianError> {
        let x = network.embed(batch.images.clone().flatten(1, 3));
        JacobianProbe::new().run_module(network, |net, x| net.hidden(x), x)
    }

    /// Updates √depth layers at a time.
    fn update_by_parts(
        network: Network,
        batch: &ImageBatch,
        pass: &Pass,
        update: &mut PartUpdate<'_>,
    ) -> Result<(Network, Sums), Network> {
        let segment = network.layers.len().isqrt().max(1);
        let mut sums = None;
        let network = network.train_by_segments(
            batch.images.clone().flatten(1, 3),
            segment,
            |logits| {
                let found = sums.insert(Images::sums(logits, batch));
                found.loss.clone() * pass.scale
            },
            update,
        );
        Ok((network, sums.expect("the loss was asked for")))
    }
}
