//! `family = "mixer"`: MLP-Mixers.

use burn::tensor::{Device, Tensor};
use rezero_data::ImageBatch;
use rezero_nn::mixer::{Mixer, MixerConfig, mixer_shape};
use rezero_nn::torch::TorchWeights;
use rezero_nn::transformer::Activation;
use rezero_nn::{
    Grow, GrowError, Jacobian, JacobianError, JacobianProbe, NormKind, Place, ResidualScheme,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::family::{root, unknown_scheme};
use super::{
    Family, ImagesOfFile, JACOBIAN_ROWS, MAX_PARAMETERS, Recognised, of_layers, untold_of_layers,
};
use crate::error::Result;
use crate::recipe::check::{check, positive};
use crate::recipe::{Gates, Train};
use crate::task::{ImageForm, Images};

/// An MLP-Mixer: Tolstikhin et al., arXiv 2105.01601.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Section {
    /// The number of layers, each of a branch that mixes patches and one that mixes channels.
    pub depth: usize,
    /// The residual scheme: how a layer joins its input `x` with its branch `F`.
    pub scheme: ResidualScheme,
    /// The number of channels: the numbers that represent one patch between two layers.
    pub d_model: usize,
    /// The width between the two linear layers that mix the patches; D_S of the paper.
    pub d_tokens: usize,
    /// The width between the two linear layers that mix the channels; D_C of the paper.
    pub d_channels: usize,
    /// The side of a patch in pixels; it must divide the height and the width of the images.
    pub patch_size: usize,
    /// Probability with which training sets a value between the two linear layers of a branch to 0.
    /// 0: no dropout.
    pub dropout: f64,
    /// The non-linearity between the two linear layers of a branch. Φ is the standard normal
    /// distribution function, σ the logistic function.
    pub activation: Activation,
    /// The normalisation over the d_model numbers of a patch, in schemes that have one or may have
    /// one.
    pub norm: NormKind,
}

/// The network of the family.
pub type Network = Mixer;

impl Default for Section {
    fn default() -> Self {
        Self {
            depth: 12,
            scheme: ResidualScheme::ReZero,
            d_model: 64,
            d_tokens: 64,
            d_channels: 256,
            patch_size: 4,
            dropout: 0.0,
            activation: Activation::Gelu,
            norm: NormKind::Auto,
        }
    }
}

impl Section {
    fn config(&self, gates: &Gates, form: &ImageForm) -> MixerConfig {
        MixerConfig::new(
            self.d_model,
            self.d_tokens,
            self.d_channels,
            self.depth,
            [form.shape.height, form.shape.width],
            self.patch_size,
        )
        .with_in_channels(form.shape.channels)
        .with_num_classes(form.num_classes)
        .with_dropout(self.dropout)
        .with_activation(self.activation)
        .with_residual(gates.residual(self.scheme).with_norm(self.norm))
    }
}

impl Family for Section {
    type Domain = Images;
    type Network = Network;

    const RECIPE: &'static str = "cifar10-mixer";
    const JACOBIAN: &'static str =
        "from the embedding of the first patches to the output of the layers at these patches";
    const SUB_LAYERS: bool = true;

    fn schemes() -> &'static [ResidualScheme] {
        MixerConfig::SCHEMES
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
        let mut text = format!(
            " d_model={} d_tokens={} d_channels={} patch_size={} activation={}",
            self.d_model, self.d_tokens, self.d_channels, self.patch_size, self.activation
        );
        if self.norm != NormKind::Auto {
            text.push_str(&format!(" norm={}", self.norm));
        }
        text
    }

    fn check(&self, _train: &Train) -> Result<()> {
        positive("model.depth", self.depth, 10_000)?;
        positive("model.d_model", self.d_model, 1 << 16)?;
        positive("model.d_tokens", self.d_tokens, 1 << 20)?;
        positive("model.d_channels", self.d_channels, 1 << 20)?;
        positive("model.patch_size", self.patch_size, 1 << 12)?;
        check(
            (0.0..1.0).contains(&self.dropout),
            "model.dropout",
            format!("must be in [0, 1), got {}", self.dropout),
        )?;
        check(
            self.norm == NormKind::Auto || self.scheme.takes_norm(),
            "model.norm",
            format!("the scheme {} has no norm; leave norm=auto", self.scheme),
        )
    }

    fn takes(&self, form: &ImageForm) -> Result<()> {
        let (shape, p) = (form.shape, self.patch_size);
        check(
            shape.height.is_multiple_of(p) && shape.width.is_multiple_of(p),
            "model.patch_size",
            format!(
                "must divide both sides of the images, which are {shape} (channels, height, width), got {p}"
            ),
        )?;
        // Refuses sizes that no machine can hold, before anything is allocated.
        let patches = (shape.height / p) as u128 * (shape.width / p) as u128;
        let [depth, d_model, d_tokens, d_channels] =
            [self.depth, self.d_model, self.d_tokens, self.d_channels].map(|size| size as u128);
        let layer =
            self.activation.matrices() as u128 * (patches * d_tokens + d_model * d_channels);
        let ends = (shape.channels * p * p + form.num_classes) as u128 * d_model;
        let parameters = depth * layer + ends;
        check(
            parameters <= u128::from(MAX_PARAMETERS),
            "model.d_model",
            format!(
                "at most {MAX_PARAMETERS} parameters, got {parameters} of depth={depth} d_model={d_model}                  d_tokens={d_tokens} d_channels={d_channels} for images of {shape}"
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
        let shape = mixer_shape(weights)?;
        let mut settings = vec![
            ("model.d_model", shape.d_model.to_string()),
            ("model.d_tokens", shape.d_tokens.to_string()),
            ("model.d_channels", shape.d_channels.to_string()),
            ("model.patch_size", shape.patch_size.to_string()),
        ];
        if shape.swiglu {
            settings.push(("model.activation", Activation::SwiGlu.to_string()));
        }
        Some(Recognised {
            settings: [of_layers(&shape.layers), settings].concat(),
            form: format!(
                "{} channels, {} patches, {} classes",
                shape.in_channels, shape.patches, shape.num_classes
            ),
            images: Some(ImagesOfFile {
                channels: Some(shape.in_channels),
                side: root(shape.patches).map(|side| side * shape.patch_size),
                classes: shape.num_classes,
            }),
            ..Recognised::default()
        })
    }

    fn described(&self, gates: &Gates) -> Vec<(&'static str, String)> {
        let mut all = vec![
            ("model.depth", self.depth.to_string()),
            ("model.scheme", self.scheme.to_string()),
            ("model.d_model", self.d_model.to_string()),
            ("model.d_tokens", self.d_tokens.to_string()),
            ("model.d_channels", self.d_channels.to_string()),
            ("model.patch_size", self.patch_size.to_string()),
            ("model.activation", self.activation.to_string()),
            ("model.norm", self.norm.to_string()),
        ];
        all.extend(gates.described(self.scheme, true));
        all
    }

    fn untold(&self) -> Vec<&'static str> {
        untold_of_layers(self.scheme, self.activation)
    }

    /// timm's layers.
    fn unknown_in_pytorch(&self, gates: &Gates) -> Vec<String> {
        unknown_scheme(self.scheme, ResidualScheme::PreNorm, gates)
    }

    fn logits(network: &Network, batch: &ImageBatch) -> Tensor<2> {
        network.forward(batch.images.clone())
    }

    /// Of as many patches as have 512 values together, while the other patches stay as they are.
    fn jacobians(network: &Network, batch: &ImageBatch) -> Result<Vec<Jacobian>, JacobianError> {
        let x = network.patches.forward(batch.images.clone());
        let x = match x.device().is_autodiff() {
            true => x.inner(),
            false => x,
        };
        let [images, patches, d_model] = x.dims();
        let first = (JACOBIAN_ROWS / d_model).clamp(1, patches);
        let mut jacobians = Vec::new();
        for i in 0..images {
            let x = x.clone().narrow(0, i, 1);
            // None, if all patches fit.
            let others = (first < patches).then(|| x.clone().narrow(1, first, patches - first));
            let hidden = |net: &Network, x: Tensor<3>| {
                let [rows, ..] = x.dims();
                let others = others.clone().map(|others| {
                    Tensor::from_inner(others).expand([rows, patches - first, d_model])
                });
                let all = [x].into_iter().chain(others).collect();
                net.hidden(Tensor::cat(all, 1)).narrow(1, 0, first)
            };
            jacobians.extend(JacobianProbe::new().run_module(
                network,
                hidden,
                x.narrow(1, 0, first),
            )?);
        }
        Ok(jacobians)
    }
}
